//! Sparkplug B by tables: topics, values of all types, a node's life, commands; and what is refused.

mod commands;
mod node;
mod topics;
mod values;

use moorline_dialects::thingsboard::sparkplug::{
    messages::{Metric, MetricValue, Payload},
    metrics::Reading,
    node::{Left, Node, Said, Unsaid},
};
use prost::Message;

use super::support::{NOW_MS, RULES};

pub(crate) const WILL: &str = "spBv1.0/G/NDEATH/N";

/// A metric with a name; `datatype` 0: it has none.
pub(crate) fn metric(name: &str, datatype: u32, value: MetricValue) -> Metric {
    Metric {
        name: Some(name.to_owned()),
        datatype: (datatype > 0).then_some(datatype),
        value: Some(value),
        ..Metric::default()
    }
}

/// One that has an alias from now on.
pub(crate) fn aliased(alias: u64, metric: Metric) -> Metric {
    Metric { alias: Some(alias), ..metric }
}

/// One that only its alias names.
pub(crate) fn only(alias: u64, value: MetricValue) -> Metric {
    Metric { alias: Some(alias), value: Some(value), ..Metric::default() }
}

pub(crate) fn bd_seq(number: u64) -> Metric {
    metric("bdSeq", 4, MetricValue::Long(number))
}

pub(crate) fn payload(seq: u64, metrics: &[Metric]) -> Payload {
    let (timestamp, seq) = (Some(1_000), Some(seq));
    Payload { timestamp, metrics: metrics.to_vec(), seq }
}

/// A node, and what its metrics are read by.
pub(crate) struct Tried {
    pub(crate) node: Node,
    pub(crate) attributes: Vec<String>,
}

impl Tried {
    /// One that has connected and said nothing.
    pub(crate) fn new(attributes: &[&str]) -> Self {
        let attributes: Vec<String> = attributes.iter().map(|name| (*name).to_owned()).collect();
        let will = Payload { metrics: vec![bd_seq(7)], ..Payload::default() }.encode_to_vec();
        let left = Left { clean: true, topic: WILL, payload: &will, plain: true };
        let by = Reading { attributes: &attributes, now_ms: NOW_MS, rules: &RULES };
        let (node, _) = Node::connect(left, &by).unwrap();
        Self { node, attributes }
    }

    /// One with these metrics, and a device `D` with those.
    pub(crate) fn born(attributes: &[&str], own: &[Metric], device: &[Metric]) -> Self {
        let mut tried = Self::new(attributes);
        let own: Vec<Metric> = std::iter::once(bd_seq(7)).chain(own.iter().cloned()).collect();
        tried.says("NBIRTH/N", &payload(0, &own)).unwrap();
        tried.says("DBIRTH/N/D", &payload(1, device)).unwrap();
        tried
    }

    /// It publishes in its group.
    pub(crate) fn says(&mut self, topic: &str, payload: &Payload) -> Result<Said, Unsaid> {
        self.says_bytes(&format!("spBv1.0/G/{topic}"), &payload.encode_to_vec())
    }

    pub(crate) fn says_bytes(&mut self, topic: &str, bytes: &[u8]) -> Result<Said, Unsaid> {
        let by = Reading { attributes: &self.attributes, now_ms: NOW_MS, rules: &RULES };
        self.node.read(topic.as_bytes(), bytes, &by)
    }

    /// Whether it is asked for its certificates now.
    pub(crate) fn is_asked(&mut self) -> bool {
        self.node.rebirth(NOW_MS).is_some()
    }
}
