//! What the edge counts.
//!
//! The protocol machine returns facts ([`Counters`]) and they are added up here, per node and not per connection, so
//! that a rate survives its connections. Labels take few values: a client id is never one.

use moorline_mqtt::{
    Version,
    server::{CloseReason, Counters},
};
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::authenticate::Denial;

/// Labels of `moorline_messages_dropped_total` at the edge.
const DROPPED: [&str; 2] = ["slow_client", "too_large"];
/// The protocols, in the order of their counters.
const PROTOCOLS: [&str; 3] = ["mqtt31", "mqtt311", "mqtt5"];
const QOS: [&str; 3] = ["0", "1", "2"];

/// The edge's metrics. Cheap to clone; every clone counts into the same cells.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    /// Open sockets that have not sent an accepted CONNECT yet.
    pub(crate) opening: IntGauge,
    connections: IntGaugeVec,
    opened: IntCounterVec,
    closed: IntCounterVec,
    rejected: IntCounterVec,
    auth_attempts: IntCounterVec,
    bad_packets: IntCounterVec,
    pub(crate) accept_errors: IntCounter,
    pub(crate) bytes_received: IntCounter,
    pub(crate) bytes_sent: IntCounter,
    packets_received: IntCounter,
    packets_sent: IntCounter,
    received: [[IntCounter; 3]; 3],
    delivered: [[IntCounter; 3]; 3],
    repeated: IntCounter,
    resent: IntCounter,
    delivery_acks: IntCounter,
    unknown_acks: IntCounter,
    expired: IntCounter,
    dropped: [IntCounter; 2],
    filters: [IntCounter; 2],
}

impl EdgeMetrics {
    /// Registers into `registry`.
    ///
    /// # Errors
    ///
    /// If it has metrics of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let to = Registrar { registry };
        let received = to.counters(
            "moorline_messages_received_total",
            "PUBLISH packets received from clients",
            &["protocol", "qos"],
        )?;
        let delivered = to.counters(
            "moorline_messages_delivered_total",
            "PUBLISH packets sent to clients",
            &["protocol", "qos"],
        )?;
        let dropped = to.add(IntCounterVec::new(
            Opts::new(
                "moorline_messages_dropped_total",
                "Copies of messages that were dropped, by reason",
            )
            .const_label("layer", "edge"),
            &["reason"],
        )?)?;
        let filters = to.counters(
            "moorline_subscribe_filters_total",
            "Filters of SUBSCRIBE packets, by result",
            &["result"],
        )?;
        Ok(Self {
            opening: to.add(IntGauge::new(
                "moorline_connections_opening",
                "Sockets that have not brought an accepted CONNECT yet",
            )?)?,
            connections: to.add(IntGaugeVec::new(
                Opts::new("moorline_connections", "Clients connected now"),
                &["listener", "protocol"],
            )?)?,
            opened: to.counters(
                "moorline_connections_opened_total",
                "Sockets accepted",
                &["listener"],
            )?,
            closed: to.counters(
                "moorline_connections_closed_total",
                "Connections ended, by reason",
                &["reason"],
            )?,
            rejected: to.counters(
                "moorline_admission_rejected_total",
                "Clients turned away before a session was opened, by reason",
                &["reason"],
            )?,
            auth_attempts: to.counters(
                "moorline_auth_attempts_total",
                "Authentication attempts, by result",
                &["method", "result"],
            )?,
            bad_packets: to.counters(
                "moorline_bad_packets_total",
                "Packets that broke a rule and ended their connection, by reason",
                &["reason"],
            )?,
            accept_errors: to
                .counter("moorline_accept_errors_total", "Failures to accept a socket")?,
            bytes_received: to
                .counter("moorline_mqtt_received_bytes_total", "Bytes read from clients")?,
            bytes_sent: to.counter("moorline_mqtt_sent_bytes_total", "Bytes written to clients")?,
            packets_received: to
                .counter("moorline_mqtt_packets_received_total", "Packets read from clients")?,
            packets_sent: to
                .counter("moorline_mqtt_packets_sent_total", "Packets written to clients")?,
            received: by_protocol_and_qos(&received),
            delivered: by_protocol_and_qos(&delivered),
            repeated: to.counter(
                "moorline_messages_repeated_total",
                "PUBLISH packets received again before their first copy was answered",
            )?,
            resent: to.counter(
                "moorline_messages_resent_total",
                "PUBLISH packets sent to clients with DUP=1",
            )?,
            delivery_acks: to.counter(
                "moorline_deliveries_acked_total",
                "Deliveries that clients acknowledged",
            )?,
            unknown_acks: to.counter(
                "moorline_unknown_acks_total",
                "Acknowledgements of clients for nothing that was in flight",
            )?,
            expired: to.counter(
                "moorline_messages_expired_total",
                "Copies of messages that expired before they were sent",
            )?,
            dropped: DROPPED.map(|reason| dropped.with_label_values(&[reason])),
            filters: ["granted", "refused"].map(|result| filters.with_label_values(&[result])),
        })
    }

    /// A client's CONNECT was accepted.
    pub(crate) fn connected(&self, listener: &str, version: Version) {
        self.connections.with_label_values(&[listener, version.label()]).inc();
    }

    /// The same client is gone.
    pub(crate) fn disconnected(&self, listener: &str, version: Version) {
        self.connections.with_label_values(&[listener, version.label()]).dec();
    }

    /// A socket was accepted.
    pub(crate) fn opened(&self, listener: &str) {
        self.opened.with_label_values(&[listener]).inc();
    }

    /// A connection ended.
    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed.with_label_values(&[reason.label()]).inc();
        if is_bad_packet(reason) {
            self.bad_packets.with_label_values(&[reason.label()]).inc();
        }
    }

    /// A client was turned away.
    pub(crate) fn rejected(&self, reason: &'static str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// A client was judged.
    pub(crate) fn judged(&self, method: &'static str, denial: Option<Denial>) {
        let result = denial.map_or("accepted", Denial::label);
        self.auth_attempts.with_label_values(&[method, result]).inc();
    }

    /// Counts live copies that were dropped because their client is too slow.
    pub(crate) fn dropped_slow(&self) -> IntCounter {
        self.dropped[0].clone()
    }

    /// Adds what one connection did since it was last asked.
    pub(crate) fn add(&self, version: Option<Version>, facts: &Counters) {
        let add = |counter: &IntCounter, by: u64| {
            if by > 0 {
                counter.inc_by(by);
            }
        };
        let protocol = version.map_or(0, position);
        for qos in 0..QOS.len() {
            add(&self.received[protocol][qos], facts.publishes_received[qos]);
            add(&self.delivered[protocol][qos], facts.deliveries_sent[qos]);
        }
        add(&self.packets_received, facts.packets_received);
        add(&self.packets_sent, facts.packets_sent);
        add(&self.repeated, facts.publishes_repeated);
        add(&self.resent, facts.deliveries_resent);
        add(&self.delivery_acks, facts.deliveries_acked);
        add(&self.unknown_acks, facts.unknown_acks);
        add(&self.expired, facts.expired);
        add(&self.dropped[0], facts.dropped_queue_full);
        add(&self.dropped[1], facts.dropped_too_large);
        add(&self.filters[0], facts.filters_granted);
        add(&self.filters[1], facts.filters_refused);
    }
}

fn position(version: Version) -> usize {
    match version {
        Version::V31 => 0,
        Version::V311 => 1,
        Version::V5 => 2,
    }
}

/// Children are looked up once: by label they cost a hash and a lock each time.
fn by_protocol_and_qos(family: &IntCounterVec) -> [[IntCounter; 3]; 3] {
    PROTOCOLS.map(|protocol| QOS.map(|qos| family.with_label_values(&[protocol, qos])))
}

/// Whether the client broke a rule of the protocol, and did not just leave or come at a bad time.
fn is_bad_packet(reason: CloseReason) -> bool {
    match reason {
        CloseReason::NotMqtt
        | CloseReason::UnsupportedVersion
        | CloseReason::Malformed
        | CloseReason::ProtocolError
        | CloseReason::PacketTooLarge
        | CloseReason::QuotaExceeded
        | CloseReason::ReceiveMaximumExceeded
        | CloseReason::TopicAliasInvalid
        | CloseReason::TopicNotAccepted
        | CloseReason::NotSupported => true,
        CloseReason::ClientDisconnect
        | CloseReason::ClientDisconnectWithWill
        | CloseReason::PeerGone
        | CloseReason::ConnectTimeout
        | CloseReason::OpenTimeout
        | CloseReason::KeepAliveTimeout
        | CloseReason::WriteTimeout
        | CloseReason::ConnectRefused
        | CloseReason::PublishRefused
        | CloseReason::UnsubscribeRefused
        | CloseReason::TakenOver
        | CloseReason::Stopping
        | CloseReason::Lost
        | CloseReason::Overrun => false,
    }
}

struct Registrar<'a> {
    registry: &'a Registry,
}

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn names_are_what_the_documents_say() {
        let registry = Registry::new();
        let metrics = EdgeMetrics::register(&registry).unwrap();
        metrics.connected("mqtt", Version::V5);
        metrics.closed(CloseReason::Malformed);
        metrics.judged("anonymous", None);
        metrics.rejected("connections_max");
        let facts = Counters {
            publishes_received: [0, 2, 0],
            dropped_queue_full: 1,
            ..Counters::default()
        };
        metrics.add(Some(Version::V311), &facts);

        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "moorline_connections{listener=\"mqtt\",protocol=\"mqtt5\"} 1",
            "moorline_connections_closed_total{reason=\"malformed\"} 1",
            "moorline_bad_packets_total{reason=\"malformed\"} 1",
            "moorline_auth_attempts_total{method=\"anonymous\",result=\"accepted\"} 1",
            "moorline_admission_rejected_total{reason=\"connections_max\"} 1",
            "moorline_messages_received_total{protocol=\"mqtt311\",qos=\"1\"} 2",
            "moorline_messages_dropped_total{layer=\"edge\",reason=\"slow_client\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(EdgeMetrics::register(&registry).is_err(), "names are taken once");
    }
}
