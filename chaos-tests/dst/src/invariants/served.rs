//! When faults are over every device is served: each publisher is answered, and each subscriber takes something.
//!
//! Source: invariant 27 of the chaos tests; TigerBeetle's liveness mode. Not judged where a link stays cut for ever: a device
//! may then be at one of its ends.

use std::collections::BTreeSet;

use super::Invariant;
use crate::{
    devices::{PUBLISHERS, SUBSCRIPTIONS},
    witness::Event,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Served {
    calm: bool,
    answered: BTreeSet<u64>,
    took: BTreeSet<u64>,
}

impl Invariant for Served {
    fn name(&self) -> &'static str {
        "served"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Calm { .. } => self.calm = true,
            Event::Answered { key, yes: true } if self.calm => {
                self.answered.insert(key.publisher);
            }
            Event::Took { subscriber, .. } if self.calm => {
                self.took.insert(*subscriber);
            }
            Event::End { whole: true, .. } => {
                if let Some(silent) = (0..PUBLISHERS).find(|one| !self.answered.contains(one)) {
                    return Err(format!("publisher {silent} was not answered in calm"));
                }
                let all = 0..SUBSCRIPTIONS.len() as u64;
                if let Some(silent) = all.into_iter().find(|one| !self.took.contains(one)) {
                    return Err(format!("subscriber {silent} got nothing in calm"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} devices served in calm", self.answered.len() + self.took.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_nobody_serves_is_seen() {
        let mut served = Served::default();
        served.see(&Event::Calm { whole: true }).unwrap();
        let end = |whole| Event::End { clients: Vec::new(), whole };
        assert_eq!(served.see(&end(false)), Ok(()), "a link is cut");
        assert!(served.see(&end(true)).is_err());
    }
}
