//! A message comes on one connection no more often than it was published; and what was acknowledged while nothing was wrong, a
//! while before its connection ended, never comes again.
//!
//! Source: MQTT 5.0, 4.4 (what is unacknowledged is sent again when a connection is made, and at no other time); invariants 5
//! and 6 of the chaos tests (duplicates bounded, no delivery after an acknowledgement).

use std::{collections::BTreeMap, time::Duration};

use super::Invariant;
use crate::{devices::Key, os, witness::Event};

/// After this an acknowledgement must have been noted, if its connection lived on and nothing was wrong: a sweep, latency and a
/// log's sync, many times over.
const NOTED_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    published: BTreeMap<Key, u64>,
    /// By subscriber, connection and message: how often it came.
    got: BTreeMap<(u64, u64, Key), u64>,
    calm: bool,
    /// When something was acknowledged for the last time in calm, by subscriber, and on which connection.
    took: BTreeMap<(u64, Key), (Duration, u64)>,
    /// When connections ended.
    ended: BTreeMap<(u64, u64), Duration>,
    again: u64,
}

impl Repeats {
    fn got(&mut self, subscriber: u64, link: u64, key: Key, now: Duration) -> Result<(), String> {
        let times = self.got.entry((subscriber, link, key)).or_default();
        *times += 1;
        let published = self.published.get(&key).copied().unwrap_or(0);
        if *times > published {
            return Err(format!(
                "subscriber {subscriber} got {key:?} {times} times on connection {link}, published {published} times"
            ));
        }
        if let Some((took, on)) = self.took.get(&(subscriber, key)) {
            let lived = self.ended.get(&(subscriber, *on)).copied().unwrap_or(now) - *took;
            if lived > NOTED_AFTER && published == 1 {
                return Err(format!(
                    "subscriber {subscriber} got {key:?} on connection {link}: it had acknowledged it {:?} before, in calm, \
                     on {on}",
                    now - *took
                ));
            }
        }
        Ok(())
    }

    fn see_at(&mut self, event: &Event, now: Duration) -> Result<(), String> {
        match event {
            Event::Calm { whole } => self.calm = *whole,
            Event::Detached { subscriber, link } => {
                self.ended.insert((*subscriber, *link), now);
            }
            Event::Published { key, .. } => *self.published.entry(*key).or_default() += 1,
            Event::Took { subscriber, link, key, .. } if self.calm => {
                self.took.insert((*subscriber, *key), (now, *link));
            }
            Event::Got { subscriber, link, key, known, .. } => {
                self.again += u64::from(*known);
                return self.got(*subscriber, *link, *key, now);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for Repeats {
    fn name(&self) -> &'static str {
        "repeats"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        self.see_at(event, os::elapsed())
    }

    fn judged(&self) -> String {
        let mut copies: BTreeMap<(u64, Key), u64> = BTreeMap::new();
        for ((subscriber, _, key), times) in &self.got {
            *copies.entry((*subscriber, *key)).or_default() += times;
        }
        let redelivered: u64 = copies.values().map(|times| times - 1).sum();
        format!("{redelivered} redeliveries ({} known by their id)", self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { publisher: 0, number: 1 };

    fn got(link: u64) -> Event {
        Event::Got { subscriber: 0, link, key: KEY, id: 1, whole: true, known: false }
    }

    #[test]
    fn a_second_copy_on_one_connection_is_seen() {
        let mut repeats = Repeats::default();
        repeats.see(&Event::Published { key: KEY, again: false }).unwrap();
        assert_eq!(repeats.see(&got(1)), Ok(()));
        assert_eq!(repeats.see(&got(2)), Ok(()), "another connection");
        assert!(repeats.see(&got(2)).is_err());
    }

    #[test]
    fn what_was_acknowledged_in_calm_and_comes_again_is_seen() {
        let at = Duration::from_secs;
        let took = Event::Took { subscriber: 0, link: 1, key: KEY, once: false };
        let published = Event::Published { key: KEY, again: false };
        let mut repeats = Repeats::default();
        for event in [&published, &got(1), &took] {
            repeats.see_at(event, at(1)).unwrap();
        }
        assert_eq!(repeats.see_at(&got(2), at(9)), Ok(()), "a fault may have lost it");
        let mut repeats = Repeats::default();
        let calm = Event::Calm { whole: true };
        for event in [&published, &calm, &got(1), &took] {
            repeats.see_at(event, at(1)).unwrap();
        }
        assert_eq!(repeats.see_at(&got(2), at(2)), Ok(()), "it may be on its way");
        assert!(repeats.see_at(&got(3), at(9)).is_err());
        let mut repeats = Repeats::default();
        let ended = Event::Detached { subscriber: 0, link: 1 };
        for event in [&published, &calm, &got(1), &took, &ended] {
            repeats.see_at(event, at(1)).unwrap();
        }
        assert_eq!(repeats.see_at(&got(2), at(9)), Ok(()), "it was lost with its connection");
    }
}
