//! Which deliveries of a durable session the client has acknowledged, and what of that the shard knows.
//!
//! # Invariants
//!
//! - **Only what was delivered is settled**, and `upto` never passes an offset that is not. Checked by the tests below.
//! - **A lost settlement is told again**: what was not confirmed stays in the next [`Settled`].

use std::collections::{BTreeSet, VecDeque};

use moorline_core::Offset;

/// What to tell the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Everything up to here.
    pub(crate) upto: Offset,
    /// And these above it, ascending.
    pub(crate) also: Vec<Offset>,
}

/// The deliveries in a client's hands.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    /// Delivered and below no gap: ascending; those in `settled` are acknowledged.
    delivered: VecDeque<Offset>,
    settled: BTreeSet<Offset>,
    upto: Offset,
    /// Acknowledged since the last [`Hand::take`].
    fresh: usize,
}

impl Hand {
    /// Begins with everything before `first` settled.
    pub(crate) fn new(first: Offset) -> Self {
        Self { upto: Offset(first.0.saturating_sub(1)), ..Self::default() }
    }

    /// A message was handed over.
    pub(crate) fn deliver(&mut self, offset: Offset) {
        self.delivered.push_back(offset);
    }

    /// The client acknowledged one. Unknown and repeated ones are ignored.
    pub(crate) fn settle(&mut self, offset: Offset) -> bool {
        if self.delivered.binary_search(&offset).is_err() || !self.settled.insert(offset) {
            return false;
        }
        self.fresh += 1;
        while let Some(&first) = self.delivered.front()
            && self.settled.remove(&first)
        {
            self.upto = first;
            self.delivered.pop_front();
        }
        true
    }

    /// Deliveries the client still has.
    pub(crate) fn unsettled(&self) -> usize {
        self.delivered.len() - self.settled.len()
    }

    /// Acknowledgements the shard was not told of.
    pub(crate) fn fresh(&self) -> usize {
        self.fresh
    }

    /// What to tell the shard, if there is anything new.
    pub(crate) fn take(&mut self) -> Option<Settled> {
        (std::mem::take(&mut self.fresh) > 0)
            .then(|| Settled { upto: self.upto, also: self.settled.iter().copied().collect() })
    }

    /// The shard may not have heard the last [`Hand::take`].
    pub(crate) fn tell_again(&mut self) {
        self.fresh = self.fresh.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_in_any_order_become_one_mark_and_a_rest() {
        let mut hand = Hand::new(Offset(5));
        (5..10).for_each(|offset| hand.deliver(Offset(offset)));
        assert_eq!(hand.take(), None);
        assert!(hand.settle(Offset(7)) && hand.settle(Offset(5)));
        assert!(!hand.settle(Offset(5)) && !hand.settle(Offset(99)));
        assert_eq!(hand.take(), Some(Settled { upto: Offset(5), also: vec![Offset(7)] }));
        assert_eq!((hand.take(), hand.unsettled()), (None, 3));
        assert!(hand.settle(Offset(6)));
        assert_eq!(hand.take(), Some(Settled { upto: Offset(7), also: vec![] }));
        hand.tell_again();
        assert_eq!(hand.take(), Some(Settled { upto: Offset(7), also: vec![] }));
    }
}
