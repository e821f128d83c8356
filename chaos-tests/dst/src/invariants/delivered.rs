//! What was acknowledged to a publishing device (PUBACK or PUBCOMP) after a subscriber had its SUBACK is taken by that
//! subscriber, on whichever node and connection, before the end.
//!
//! Source: MQTT 5.0, 4.3.2, 4.3.3 and 4.4 (delivery and its retry for a session that lasts); invariant 1 of the chaos tests
//! (no loss), after Jepsen's checkers of queues.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::{
    devices::{Key, SUBSCRIPTIONS, wants},
    witness::Event,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Who was subscribed when a message was published for the first time: as bits.
    sent: BTreeMap<Key, u64>,
    subscribed: u64,
    owed: BTreeSet<(u64, Key)>,
    took: BTreeSet<(u64, Key)>,
    acked: u64,
    refused: u64,
}

impl Invariant for Delivered {
    fn name(&self) -> &'static str {
        "delivered"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Subscribed { subscriber } => self.subscribed |= 1 << subscriber,
            Event::Published { key, again: false } => {
                self.sent.insert(*key, self.subscribed);
            }
            Event::Answered { key, yes: true } => {
                self.acked += 1;
                let relied = self.sent.get(key).copied().unwrap_or(0);
                let all = 0..SUBSCRIPTIONS.len() as u64;
                for subscriber in all.filter(|one| relied >> one & 1 == 1 && wants(*one, *key)) {
                    if !self.took.contains(&(subscriber, *key)) {
                        self.owed.insert((subscriber, *key));
                    }
                }
            }
            Event::Answered { yes: false, .. } => self.refused += 1,
            Event::Took { subscriber, key, .. } => {
                self.took.insert((*subscriber, *key));
                self.owed.remove(&(*subscriber, *key));
            }
            Event::Drained => {
                if let Some((subscriber, key)) = self.owed.first() {
                    let more = self.owed.len() - 1;
                    return Err(format!(
                        "subscriber {subscriber} never got {key:?}, which was acknowledged, and {more} others are missing"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!(
            "{} published by devices, {} acknowledged, {} refused, {} taken",
            self.sent.len(),
            self.acked,
            self.refused,
            self.took.len()
        )
    }

    fn owed(&self) -> usize {
        self.owed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_acknowledged_and_never_came_is_seen() {
        let mut lost = Delivered::default();
        let key = Key { publisher: 0, number: 1 };
        let published = Event::Published { key, again: false };
        let early = Key { publisher: 0, number: 2 };
        for event in [
            Event::Published { key: early, again: false },
            Event::Subscribed { subscriber: 0 },
            published,
            Event::Answered { key, yes: true },
            Event::Answered { key: early, yes: true },
        ] {
            assert_eq!(lost.see(&event), Ok(()));
        }
        assert_eq!(lost.owed(), 1, "who was not subscribed yet was promised nothing");
        assert!(lost.see(&Event::Drained).is_err());
        let took = Event::Took { subscriber: 0, link: 1, key, once: false };
        assert_eq!(lost.see(&took), Ok(()));
        assert_eq!(lost.see(&Event::Drained), Ok(()));
    }
}
