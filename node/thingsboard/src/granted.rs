//! What a connection has subscribed to, and with which QoS a message goes out to it.
//!
//! # Invariants
//!
//! - **Bounded**: [`FILTERS_MAX`] filters; of a node [`TOPICS_MAX`] topics beside those that have wildcards.
//! - **What a node subscribes to costs the same however much that is**: its topics are looked up, not gone through.
//!
//! Checked by this file's tests.

use std::collections::HashMap;

use moorline_core::{QoS, Text, topic};
use moorline_dialects::thingsboard::{filters::Wanted, sparkplug::node::DEVICES_MAX};

/// Filters of one connection: all that mean anything are fewer.
const FILTERS_MAX: usize = 64;
/// Topics of one node: one of each of its devices, its own, and a few that say whether applications are there.
const TOPICS_MAX: usize = DEVICES_MAX + 8;
/// What filters that are more than one topic have.
const WILDCARDS: [char; 2] = ['+', '#'];

/// A filter that was granted.
struct Held {
    filter: Text,
    wanted: Wanted,
    qos: QoS,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Granted {
    /// As they were asked for.
    held: Vec<Held>,
    /// A node's topics.
    topics: HashMap<Text, QoS>,
}

impl Granted {
    /// A filter counts no more: whether it did.
    pub(crate) fn remove(&mut self, filter: &Text) -> bool {
        if self.topics.remove(filter).is_some() {
            return true;
        }
        let held = self.held.iter().position(|held| held.filter == *filter);
        held.map(|at| self.held.remove(at)).is_some()
    }

    /// One more, in the place of an earlier one that is the same; false if there are too many.
    pub(crate) fn add(&mut self, filter: Text, wanted: Wanted, qos: QoS) -> bool {
        self.remove(&filter);
        let has_room = self.held.len() < FILTERS_MAX;
        if has_room {
            self.held.push(Held { filter, wanted, qos });
        }
        has_room
    }

    /// The same of a node: whether it subscribes or not changes nothing but the QoS.
    pub(crate) fn add_of_node(&mut self, filter: Text, qos: QoS) -> bool {
        if filter.as_str().contains(WILDCARDS) {
            return self.add(filter, Wanted::Responses, qos);
        }
        let has_room = self.topics.len() < TOPICS_MAX || self.topics.contains_key(&filter);
        if has_room {
            self.topics.insert(filter, qos);
        }
        has_room
    }

    /// What was asked for, the last first.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Wanted> {
        self.held.iter().rev().map(|held| &held.wanted)
    }

    /// The best that was granted for a topic, if any.
    pub(crate) fn qos(&self, topic: &Text) -> Option<QoS> {
        let matches = |held: &&Held| topic::matches(held.filter.as_bytes(), topic.as_bytes());
        let held = self.held.iter().filter(matches).map(|held| held.qos).max();
        held.max(self.topics.get(topic).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: usize) -> Text {
        Text::from(format!("spBv1.0/G/DCMD/N/{number}"))
    }

    #[test]
    fn a_node_has_a_topic_for_each_of_its_devices() {
        let mut granted = Granted::default();
        for number in 0..TOPICS_MAX {
            assert!(granted.add_of_node(text(number), QoS::AtMostOnce));
        }
        assert!(!granted.add_of_node(text(TOPICS_MAX), QoS::AtMostOnce));
        assert!(granted.add_of_node(text(7), QoS::AtLeastOnce), "one that it has");
        assert_eq!(granted.qos(&text(7)), Some(QoS::AtLeastOnce));
        assert_eq!(granted.qos(&text(8)), Some(QoS::AtMostOnce));
        assert_eq!(granted.qos(&text(TOPICS_MAX)), None);
        assert!(granted.remove(&text(7)) && !granted.remove(&text(7)));
        assert!(granted.add_of_node(text(TOPICS_MAX), QoS::AtMostOnce));
        // The best of all that match counts.
        let all = Text::from("spBv1.0/G/DCMD/N/+");
        assert!(granted.add_of_node(all.clone(), QoS::AtLeastOnce));
        assert_eq!(granted.qos(&text(8)), Some(QoS::AtLeastOnce));
        assert!(granted.remove(&all));
        assert_eq!(granted.qos(&text(8)), Some(QoS::AtMostOnce));
    }

    #[test]
    fn a_device_has_so_many_filters() {
        let mut granted = Granted::default();
        for number in 0..FILTERS_MAX {
            assert!(granted.add(text(number), Wanted::Responses, QoS::AtMostOnce));
        }
        assert!(!granted.add(text(FILTERS_MAX), Wanted::Responses, QoS::AtMostOnce));
        let attributes = Wanted::Attributes(None);
        assert!(granted.add(text(0), attributes, QoS::AtLeastOnce), "one that it has");
        let first = granted.wanted().next();
        assert!(matches!(first, Some(Wanted::Attributes(None))), "the last first");
        assert_eq!(granted.qos(&text(0)), Some(QoS::AtLeastOnce));
    }
}
