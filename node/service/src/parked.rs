//! What waits for this node's lease: publishes and opens that came while it had none.
//!
//! A leader change of the meta group takes less than a second and a lease lasts two, so this is for the rare longer gap:
//! a refusal would close every MQTT 3.1.1 publisher's connection.
//!
//! # Invariants
//!
//! - **Order is kept**: while anything waits, everything that comes after it waits behind it. Whoever takes things out
//!   handles them under the lock around this.
//! - **Bounded** in number, bytes and time; what does not fit or waits too long is refused. Checked by the tests below.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long anything waits for a lease.
pub(crate) const PARKED_WAIT: Duration = Duration::from_secs(5);
/// Most things that wait.
const PARKED_MAX: usize = 16_384;
/// Most bytes of messages that wait.
const PARKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What waits, in the order it came: `A` is a publish or an open, with its connection.
#[derive(Debug)]
pub(crate) struct Parked<A> {
    waiting: VecDeque<(Instant, usize, A)>,
    bytes: usize,
}

impl<A> Default for Parked<A> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<A> Parked<A> {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Something of that size waits from now on; gives it back if there is no room.
    pub(crate) fn push(&mut self, now: Instant, bytes: usize, asked: A) -> Option<A> {
        if self.waiting.len() >= PARKED_MAX || self.bytes + bytes > PARKED_BYTES_MAX {
            return Some(asked);
        }
        self.bytes += bytes;
        self.waiting.push_back((now, bytes, asked));
        None
    }

    /// The oldest.
    pub(crate) fn pop(&mut self) -> Option<A> {
        let (_, bytes, asked) = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(asked)
    }

    /// The oldest, if it has waited too long.
    pub(crate) fn pop_late(&mut self, now: Instant) -> Option<A> {
        let (since, ..) = self.waiting.front()?;
        if now.saturating_duration_since(*since) < PARKED_WAIT {
            return None;
        }
        self.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_comes_out_in_order_and_in_time() {
        let (start, mut parked) = (Instant::now(), Parked::default());
        assert!(parked.push(start, 1, 'a').is_none());
        assert!(parked.push(start + PARKED_WAIT / 2, 1, 'b').is_none());
        assert_eq!(parked.pop_late(start), None);
        assert_eq!(parked.pop_late(start + PARKED_WAIT), Some('a'));
        assert_eq!(parked.pop_late(start + PARKED_WAIT), None);
        assert_eq!(parked.pop(), Some('b'));
        assert!(parked.is_empty() && parked.bytes == 0);
    }

    #[test]
    fn what_does_not_fit_is_given_back() {
        let (now, mut parked) = (Instant::now(), Parked::default());
        assert!(parked.push(now, PARKED_BYTES_MAX, 0).is_none());
        assert_eq!(parked.push(now, 1, 1), Some(1));
        parked.pop();
        for number in 0..PARKED_MAX {
            assert!(parked.push(now, 1, number).is_none());
        }
        assert_eq!(parked.push(now, 1, 7), Some(7));
    }
}
