//! What came into queues and mailboxes and what left them, since this replica was opened: for metrics, and to see that nothing
//! is lost between two counts.
//!
//! Each number is counted where its row is written or deleted. What they are compared with, the lengths of queues and
//! mailboxes, is kept on another way, by sessions and mailboxes. So a row that goes without being counted, or is counted without
//! being there, shows.
//!
//! # Invariants
//!
//! - **Nothing here is in a row.** A replica that is opened again begins anew, with what is queued then.
//! - **The imbalance is 0 after every batch.** Checked by [`crate::Machine::assert_derived`]: after each batch of the tests in
//!   `tests/rules`, with any sequence of commands in `replicas.rs` and `mail_model.rs`, and in the simulators.

use crate::mail::Noted;

/// How many things can happen to a mail, and nothing.
const NOTED: usize = 10;

/// What came into queues and left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueTally {
    /// Messages that were in queues when the replica was opened.
    pub opened_with: u64,
    /// Copies of messages for sessions and shares that want them.
    pub matched: u64,
    /// Of those, the ones of QoS 0: they are in no queue.
    pub passed: u64,
    /// Of those, the ones that found their queue full.
    pub full: u64,
    /// Of those, the ones that were put into a queue.
    pub enqueued: u64,
    /// Messages that were settled: acknowledged, expired, or not for their client after all.
    pub settled: u64,
    /// Messages that went with their session or share.
    pub discarded: u64,
}

impl QueueTally {
    /// By how much the counts differ from each other, and from the messages that are queued.
    #[must_use]
    pub fn imbalance(&self, queued: u64) -> u64 {
        let came = self.matched.abs_diff(self.passed + self.full + self.enqueued);
        let stayed =
            (self.opened_with + self.enqueued).abs_diff(self.settled + self.discarded + queued);
        came + stayed
    }
}

/// What happened to mail, and where that mail was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailTally {
    /// Mails that waited when the replica was opened.
    pub opened_with: u64,
    /// Mails that went with the mailbox of a device that is gone.
    pub forgotten: u64,
    /// By number of [`Noted`].
    queued: [u64; NOTED],
    /// The same of those on dead lists.
    dead: [u64; NOTED],
}

impl MailTally {
    /// Nothing has happened yet to the mails that wait.
    pub(crate) fn begin(waiting: u64) -> Self {
        Self { opened_with: waiting, ..Self::default() }
    }

    pub(crate) fn note(&mut self, was: Noted, what: Noted) {
        let of = if was == Noted::Dead { &mut self.dead } else { &mut self.queued };
        of[what as usize] += 1;
    }

    /// How often this happened to mail that was queued, or (`dead`) on a dead list.
    #[must_use]
    pub fn of(&self, dead: bool, what: Noted) -> u64 {
        let of = if dead { &self.dead } else { &self.queued };
        of[what as usize]
    }

    /// By how much the counts differ from the mails that wait.
    #[must_use]
    pub fn imbalance(&self, waiting: u64) -> u64 {
        let came = self.opened_with + self.of(false, Noted::Queued);
        let ended = Noted::ALL.into_iter().filter(|what| what.ends());
        let left: u64 = ended.map(|what| self.of(false, what)).sum();
        came.abs_diff(left + self.forgotten + waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_counted_shows() {
        let whole = QueueTally {
            opened_with: 2,
            matched: 9,
            passed: 1,
            full: 1,
            enqueued: 7,
            settled: 4,
            discarded: 3,
        };
        assert_eq!(whole.imbalance(2), 0);
        assert_eq!((whole.imbalance(3), whole.imbalance(0)), (1, 2));
        for (lost, expected) in [
            (QueueTally { opened_with: 1, ..whole }, 1),
            (QueueTally { matched: 8, ..whole }, 1),
            (QueueTally { passed: 0, ..whole }, 1),
            (QueueTally { full: 0, ..whole }, 1),
            (QueueTally { enqueued: 6, ..whole }, 2),
            (QueueTally { settled: 5, ..whole }, 1),
            (QueueTally { discarded: 4, ..whole }, 1),
        ] {
            assert_eq!(lost.imbalance(2), expected, "{lost:?}");
        }
    }

    #[test]
    fn mail_that_ends_waits_no_more_and_other_news_of_it_change_nothing() {
        let mut tally = MailTally { opened_with: 1, ..MailTally::default() };
        for what in Noted::ALL {
            tally.note(Noted::Queued, what);
        }
        // Six ends of one that was there and one that came.
        assert_eq!(tally.imbalance(0), 4);
        tally.opened_with = 5;
        assert_eq!((tally.imbalance(0), tally.imbalance(1)), (0, 1));
        tally.note(Noted::Dead, Noted::Purged);
        assert_eq!((tally.imbalance(0), tally.of(true, Noted::Purged)), (0, 1));
    }
}
