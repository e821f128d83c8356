//! What a client is told about its mailbox, and when.
//!
//! A `NewMailEvent` makes it fetch the front mail. It is sent when mail arrives and the client has none in hand; while it
//! drains its mailbox, every answer says how much is left. One too many does no harm, one too few leaves mail lying.
//!
//! Invariant: after any answer that says "nothing left" while there is something, an event is due. Checked by this file's
//! tests.

use super::MAIL_OPS_IN_A_ROW_MAX;

/// One connection's view of its mailbox.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Whether a mail op waits for the service.
    asked: bool,
    /// Whether the client has the front mail in hand.
    in_hand: bool,
    /// Whether mail arrived while the op was under way, so that its answer may not count it.
    arrived: bool,
    /// Successful settlements since the client last heard that nothing is left.
    in_a_row: u32,
    event_due: bool,
    cures: u64,
}

impl Mailbox {
    /// Whether a mail op is under way: the next one has to wait.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    pub(super) fn ask(&mut self) {
        assert!(!self.asked, "one mail op at a time");
        self.asked = true;
    }

    /// Mail arrived. `open`: whether the client has been let in.
    pub(super) fn arrive(&mut self, open: bool) {
        if self.asked || !open {
            self.arrived = true;
        } else if !self.in_hand {
            self.event_due = true;
        }
    }

    /// The client was let in.
    pub(super) fn open(&mut self) {
        self.event_due = std::mem::take(&mut self.arrived);
    }

    /// A fetch was answered.
    pub(super) fn fetched(&mut self, outcome: Fetched) {
        self.asked = false;
        match outcome {
            Fetched::Mail => self.in_hand = true,
            Fetched::Empty => {
                self.in_hand = false;
                self.in_a_row = 0;
            }
            Fetched::Header | Fetched::Failed => {}
        }
        let arrived = std::mem::take(&mut self.arrived);
        self.event_due |= arrived && !self.in_hand;
    }

    /// A settlement was answered: `left` mails are left, or it failed. Returns the size to say.
    pub(super) fn settled(&mut self, left: Option<u64>) -> u16 {
        self.asked = false;
        self.in_hand = false;
        let arrived = std::mem::take(&mut self.arrived);
        let Some(left) = left else {
            self.event_due |= arrived;
            return 0;
        };
        self.in_a_row = if left == 0 { 0 } else { self.in_a_row + 1 };
        if self.in_a_row == MAIL_OPS_IN_A_ROW_MAX {
            self.in_a_row = 0;
            self.event_due = true;
            self.cures += 1;
            return 0;
        }
        self.event_due |= arrived && left == 0;
        capped(left)
    }

    /// Whether a `NewMailEvent` has to go out; asked once it can.
    pub(super) fn take_event(&mut self) -> bool {
        std::mem::take(&mut self.event_due)
    }

    pub(super) fn has_event(&self) -> bool {
        self.event_due
    }

    pub(super) fn take_cures(&mut self) -> u64 {
        std::mem::take(&mut self.cures)
    }
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    Mail,
    Header,
    Empty,
    Failed,
}

/// A size as the wire can say it.
pub(super) fn capped(size: u64) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a script does to a mailbox: `a`rrives, `n`ext with mail, `e`mpty next, `h`eader, `f`ailed next, `s`ettled with
    /// some left, `l`ast one settled, `x` a failed settlement. In capitals: mail arrives while it is under way.
    fn event_after(script: &str) -> bool {
        let mut mailbox = Mailbox::default();
        mailbox.open();
        for step in script.chars() {
            mailbox.take_event();
            if step == 'a' {
                mailbox.arrive(true);
                continue;
            }
            mailbox.ask();
            if step.is_uppercase() {
                mailbox.arrive(true);
            }
            match step.to_ascii_lowercase() {
                'n' => mailbox.fetched(Fetched::Mail),
                'e' => mailbox.fetched(Fetched::Empty),
                'h' => mailbox.fetched(Fetched::Header),
                'f' => mailbox.fetched(Fetched::Failed),
                's' => assert_eq!(mailbox.settled(Some(3)), 3),
                'l' => assert_eq!(mailbox.settled(Some(0)), 0),
                'x' => assert_eq!(mailbox.settled(None), 0),
                other => panic!("{other}"),
            }
        }
        mailbox.take_event()
    }

    #[test]
    fn an_event_goes_out_whenever_the_client_would_not_look() {
        #[rustfmt::skip]
        let table = [
            ("", false),    ("a", true),
            ("na", false),  ("nsa", true),  ("nla", true),  ("ea", true),  ("ha", true),  ("nha", false),
            ("n", false),   ("e", false),   ("h", false),   ("s", false),  ("l", false),
            ("N", false),   ("E", true),    ("H", true),    ("nH", false), ("F", true),
            ("nS", false),  ("nL", true),   ("nX", true),   ("nx", false), ("nxa", true),
        ];
        for (script, expected) in table {
            assert_eq!(event_after(script), expected, "{script:?}");
        }
    }

    #[test]
    fn mail_that_arrives_before_the_client_is_in_is_announced_after() {
        let mut mailbox = Mailbox::default();
        mailbox.arrive(false);
        assert!(!mailbox.take_event());
        mailbox.open();
        assert!(mailbox.take_event());
    }

    #[test]
    fn after_fifty_in_a_row_the_client_begins_anew() {
        let mut mailbox = Mailbox::default();
        for round in 1..=3 {
            for op in 1..MAIL_OPS_IN_A_ROW_MAX {
                mailbox.ask();
                assert_eq!((mailbox.settled(Some(7)), mailbox.take_event()), (7, false), "{op}");
            }
            mailbox.ask();
            assert_eq!((mailbox.settled(Some(7)), mailbox.take_event()), (0, true), "{round}");
        }
        assert_eq!(mailbox.take_cures(), 3);
    }

    #[test]
    fn sizes_are_capped_at_what_two_bytes_say() {
        for (size, said) in [(0, 0), (65_535, 65_535), (65_536, 65_535), (u64::MAX, 65_535)] {
            assert_eq!(capped(size), said);
        }
    }
}
