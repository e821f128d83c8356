//! A session has one owner: once a newer connection has its CONNACK, nothing that is published from then on reaches an older
//! one.
//!
//! Source: MQTT 5.0, 3.1.4-3 (the existing connection is closed); Kleppmann, "How to do distributed locking", 2016 (fencing by
//! a number that grows with each owner); invariant 14 of the chaos tests. No time is allowed for it: the CONNACK says that the
//! new owner is in the group's log, and what is published later is behind it there.

use std::collections::BTreeMap;

use super::Invariant;
use crate::{devices::Key, witness::Event};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OneOwner {
    events: u64,
    /// By subscriber: its newest connection, and since when.
    newest: BTreeMap<u64, (u64, u64)>,
    /// When a message was published first.
    published: BTreeMap<Key, u64>,
    taken_over: u64,
    stale: u64,
}

impl Invariant for OneOwner {
    fn name(&self) -> &'static str {
        "one-owner"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        self.events += 1;
        match event {
            Event::Attached { subscriber, link, over } => {
                self.taken_over += u64::from(*over);
                self.newest.insert(*subscriber, (*link, self.events));
            }
            Event::Published { key, again: false } => {
                self.published.insert(*key, self.events);
            }
            Event::Took { subscriber, link, .. } => {
                let newest = self.newest.get(subscriber).map_or(0, |(link, _)| *link);
                self.stale += u64::from(*link < newest);
            }
            Event::Got { subscriber, link, key, .. } => {
                let (newest, since) = self.newest.get(subscriber).copied().unwrap_or_default();
                let published = self.published.get(key).copied().unwrap_or(0);
                if *link < newest && published > since {
                    return Err(format!(
                        "subscriber {subscriber} got {key:?} on connection {link}, published after {newest} had taken over"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!(
            "{} takeovers of living connections, {} stale acknowledgements",
            self.taken_over, self.stale
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_published_after_a_takeover_and_comes_to_the_old_owner_is_seen() {
        let mut owners = OneOwner::default();
        let key = |number| Key { publisher: 0, number };
        let got = |link, number| Event::Got {
            subscriber: 0,
            link,
            key: key(number),
            id: 1,
            whole: true,
            known: false,
        };
        for event in [
            Event::Attached { subscriber: 0, link: 1, over: false },
            Event::Published { key: key(1), again: false },
            Event::Attached { subscriber: 0, link: 2, over: true },
            Event::Published { key: key(2), again: false },
            got(1, 1),
            got(2, 2),
        ] {
            assert_eq!(owners.see(&event), Ok(()), "{event:?}");
        }
        assert!(owners.see(&got(1, 2)).is_err());
    }
}
