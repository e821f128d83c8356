//! A subscriber takes the messages of one publisher and topic in the order in which they were published, each for the first
//! time after those before it.
//!
//! Source: MQTT 5.0, 4.6 (an ordered topic); invariant 3 of the chaos tests. Messages that were published again are not judged:
//! a late copy may be the first one that comes (as in `../sim`).

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::{devices::Key, witness::Event};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    again: BTreeSet<Key>,
    /// By subscriber, publisher and topic: the last one.
    last: BTreeMap<(u64, u64, String), u64>,
    took: BTreeSet<(u64, Key)>,
    judged: u64,
}

impl Invariant for InOrder {
    fn name(&self) -> &'static str {
        "in-order"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Published { key, again: true } => {
                self.again.insert(*key);
            }
            Event::Took { subscriber, key, .. } => {
                if !self.took.insert((*subscriber, *key)) || self.again.contains(key) {
                    return Ok(());
                }
                self.judged += 1;
                let last = self.last.entry((*subscriber, key.publisher, key.topic())).or_default();
                if key.number < *last {
                    return Err(format!(
                        "subscriber {subscriber} took {key:?} for the first time after {last}"
                    ));
                }
                *last = key.number;
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} in order", self.judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_behind_a_later_one_is_seen() {
        let took = |publisher, number| Event::Took {
            subscriber: 0,
            link: 1,
            key: Key { publisher, number },
            once: false,
        };
        // Two of one topic.
        let of_first = |number: &u64| {
            Key { publisher: 0, number: *number }.topic() == Key { publisher: 0, number: 1 }.topic()
        };
        let [one, two] = (1..20).filter(of_first).take(2).collect::<Vec<_>>()[..] else {
            panic!("of twenty some are")
        };
        let mut order = InOrder::default();
        assert_eq!(order.see(&took(0, two)), Ok(()));
        assert_eq!(order.see(&took(0, two)), Ok(()), "again");
        assert!(order.see(&took(0, one)).is_err());
        let mut order = InOrder::default();
        let key = Key { publisher: 0, number: one };
        order.see(&Event::Published { key, again: true }).unwrap();
        assert_eq!(order.see(&took(0, two)), Ok(()));
        assert_eq!(order.see(&took(0, one)), Ok(()), "it was sent again");
    }
}
