//! What a subscriber gets was published, under this topic and with this payload, and is something that it asked for.
//!
//! Source: invariant 2 of the chaos tests (no phantom), after Jepsen's checkers of queues.

use std::collections::BTreeSet;

use super::Invariant;
use crate::{
    devices::{Key, wants},
    witness::Event,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Genuine {
    published: BTreeSet<Key>,
    got: u64,
}

impl Invariant for Genuine {
    fn name(&self) -> &'static str {
        "genuine"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Published { key, .. } => {
                self.published.insert(*key);
            }
            Event::Got { subscriber, key, whole, .. } => {
                self.got += 1;
                let wrong = if !self.published.contains(key) {
                    "nobody published"
                } else if !whole {
                    "was published with another topic or payload"
                } else if !wants(*subscriber, *key) {
                    "it did not ask for"
                } else {
                    return Ok(());
                };
                return Err(format!("subscriber {subscriber} got {key:?}, which {wrong}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} deliveries", self.got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_published_or_asked_for_is_seen() {
        let mut genuine = Genuine::default();
        let key = Key { publisher: 1, number: 1 };
        let got =
            |subscriber, whole| Event::Got { subscriber, link: 1, key, id: 1, whole, known: false };
        assert!(genuine.see(&got(0, true)).is_err(), "nobody published it");
        genuine.see(&Event::Published { key, again: false }).unwrap();
        assert_eq!(genuine.see(&got(0, true)), Ok(()));
        assert!(genuine.see(&got(0, false)).is_err(), "another payload");
        assert!(genuine.see(&got(2, true)).is_err(), "another publisher's topics");
    }
}
