//! Mail ops in a row, so that SDKs that drain a mailbox recursively begin anew in time.
//!
//! The vendor's Python SDK fetches the next mail inside the call that settled the last one, as long as more is there. About
//! 247 mails deep it is at Python's limit, takes that for a failure of the handler, and rejects good mail. So after
//! [`ROW_MAX`] it hears "nothing more" and, by the event stream, of new mail: it returns and begins on a fresh stack.
//! Moorline's nodes do the same with the same number; other servers do not.

/// Successful mail ops before an SDK begins anew.
const ROW_MAX: u32 = moorline_moonlight::server::MAIL_OPS_IN_A_ROW_MAX;

/// What an SDK is told after a mail op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// More mail is there: fetch it now.
    More,
    /// No more is there.
    Nothing,
    /// No more, and then that new mail is there.
    BeginAnew,
}

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Row {
    ops: u32,
}

impl Row {
    /// A mail op succeeded, and so many mails are left.
    pub(crate) fn settled(&mut self, left: u16) -> Told {
        self.ops += 1;
        if left == 0 {
            self.ops = 0;
            return Told::Nothing;
        }
        if self.ops == ROW_MAX {
            self.ops = 0;
            return Told::BeginAnew;
        }
        Told::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_fifty_in_a_row_an_sdk_begins_anew() {
        let mut row = Row::default();
        for _ in 0..3 {
            for _ in 1..ROW_MAX {
                assert_eq!(row.settled(9), Told::More);
            }
            assert_eq!(row.settled(9), Told::BeginAnew);
        }
        for _ in 1..ROW_MAX {
            assert_eq!(row.settled(9), Told::More);
        }
        assert_eq!((row.settled(0), row.settled(1)), (Told::Nothing, Told::More));
    }
}
