//! A message of QoS 2 is taken at most once by each subscriber, whatever happens to nodes and connections.
//!
//! Source: MQTT 5.0, 4.3.3 (exactly once delivery); invariant 4 of the chaos tests; CVE-2026-8741 is a broker that fails at it
//! when a client changes nodes.

use std::collections::BTreeMap;

use super::Invariant;
use crate::{devices::Key, witness::Event};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// On which connection it was taken.
    took: BTreeMap<(u64, Key), u64>,
}

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "once"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let Event::Took { subscriber, link, key, once: true } = event else { return Ok(()) };
        match self.took.insert((*subscriber, *key), *link) {
            None => Ok(()),
            Some(before) => Err(format!(
                "subscriber {subscriber} took {key:?} on connection {before}, and again on {link}"
            )),
        }
    }

    fn judged(&self) -> String {
        format!("{} taken with QoS 2", self.took.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_time_is_seen() {
        let took = |link, once| Event::Took {
            subscriber: 0,
            link,
            key: Key { publisher: 0, number: 1 },
            once,
        };
        let mut all = Once::default();
        assert_eq!(all.see(&took(1, false)), Ok(()), "QoS 1 promises nothing of the kind");
        assert_eq!(all.see(&took(1, true)), Ok(()));
        assert!(all.see(&took(2, true)).is_err());
    }
}
