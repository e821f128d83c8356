//! Messages that were handed to a connection and of which somebody wants to know that the client has them.
//!
//! # Invariants
//!
//! - **Each is told once**: when the client has it, or that nobody will say. Checked below.
//! - **Its numbers are its own**: a task that numbers what it sends itself ([`asks::numbered`](crate::asks::numbered)) begins with 0.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    Message, Offset, ShareNumber,
    port::{Inbox, Notice},
};
use tokio::sync::oneshot;

use crate::asks::{SHARE, numbered};

/// Where its numbers begin.
const FIRST: u64 = 1 << 62;

#[derive(Debug, Default)]
struct Out {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// See the module. Whoever hands over one after the other has one here.
#[derive(Debug, Default)]
pub struct Handed(Mutex<Out>);

impl Handed {
    fn out(&self) -> MutexGuard<'_, Out> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a message over, with its own QoS; the receiver hears when the client has it. [`None`]: the connection takes nothing any
    /// more.
    pub fn over(&self, inbox: &dyn Inbox, message: Message) -> Option<oneshot::Receiver<()>> {
        let (sender, taken) = oneshot::channel();
        let number = {
            let mut out = self.out();
            out.last += 1;
            let number = FIRST + out.last;
            out.waiting.insert(number, sender);
            number
        };
        let delivery = numbered(number, message.qos, message);
        if inbox.push(Notice::Deliver(vec![delivery])).is_err() {
            self.out().waiting.remove(&number);
            return None;
        }
        Some(taken)
    }

    /// The client has this one: whether it was handed over here.
    pub fn has(&self, number: u64) -> bool {
        let sender = self.out().waiting.remove(&number);
        if let Some(sender) = sender {
            // Perhaps nobody wants to know any more.
            sender.send(()).unwrap_or_default();
        }
        number > FIRST
    }

    /// The client has these: those that were not handed over here.
    #[must_use]
    pub fn others(&self, items: &[(ShareNumber, Offset)]) -> Vec<(ShareNumber, Offset)> {
        let is_other =
            |(share, number): &&(ShareNumber, Offset)| *share != SHARE || !self.has(number.0);
        items.iter().filter(is_other).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::port::Overflow;

    use super::*;

    #[derive(Debug)]
    struct Takes(bool);

    impl Inbox for Takes {
        fn push(&self, _: Notice) -> Result<(), Overflow> {
            if self.0 { Ok(()) } else { Err(Overflow) }
        }
    }

    #[test]
    fn each_is_told_once() {
        let handed = Handed::default();
        let mut first = handed.over(&Takes(true), Message::empty()).unwrap();
        let mut second = handed.over(&Takes(true), Message::empty()).unwrap();
        assert!(handed.over(&Takes(false), Message::empty()).is_none());
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        let items =
            [(SHARE, Offset(FIRST + 2)), (SHARE, Offset(2)), (ShareNumber(7), Offset(FIRST + 1))];
        assert_eq!(handed.others(&items), items[1..]);
        assert!(second.try_recv().is_ok() && first.try_recv().is_err());
        assert!(handed.has(FIRST + 2), "it was told already");
        drop(handed);
        assert!(first.try_recv().is_err());
    }
}
