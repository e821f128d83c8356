//! What the edge counts.
//!
//! The protocol machine returns facts ([`Counters`]) and they are added up here, per node and not per connection, so
//! that a rate survives its connections. Labels take few values: a client id is never one.

use std::{sync::Arc, time::Duration};

use moorline_mqtt::{
    Version,
    server::{CloseReason, Counters, Limit},
};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector, exponential_buckets,
};

use crate::{
    accounts::{Publishes, Told},
    authenticate::Denial,
    budget::Gate,
    limit::{EdgeLimit, Reached},
    tls,
    websocket::{Refused, Violation},
};

/// Labels of `moorline_messages_dropped_total` at the edge.
const DROPPED: [&str; 2] = ["slow_client", "too_large"];
/// The protocols, in the order of their counters.
const PROTOCOLS: [&str; 3] = ["mqtt31", "mqtt311", "mqtt5"];
const QOS: [&str; 3] = ["0", "1", "2"];

/// Below 0.1 ms no disk answers; above 6.5 s clients hang up.
const ACK_SECONDS_MIN: f64 = 0.000_1;
/// How many buckets, each twice the one before.
const ACK_BUCKETS: usize = 17;
/// Below a millisecond nobody has waited; above 32 s nobody does.
const WAIT_SECONDS_MIN: f64 = 0.001;
/// How many buckets, each twice the one before.
const WAIT_BUCKETS: usize = 16;

/// The edge's metrics. Cheap to clone; every clone counts into the same cells.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    connections: Connections,
    carriers: Carriers,
    traffic: Traffic,
    messages: Messages,
    publishes: Publishes,
    reached: Arc<Reached>,
    delayed: IntCounter,
    gates: [GateMetrics; Gate::ALL.len()],
}

/// What newcomers wait for.
#[derive(Debug, Clone)]
struct GateMetrics {
    waiting: IntGauge,
    admitted: IntCounter,
    waited: Histogram,
}

/// What goes wrong below MQTT.
#[derive(Debug, Clone)]
struct Carriers {
    tls_shook: IntCounterVec,
    tls_took: Histogram,
    tls_failed: IntCounterVec,
    websocket_refused: IntCounterVec,
    websocket_violated: IntCounterVec,
}

#[derive(Debug, Clone)]
struct Connections {
    opening: IntGauge,
    current: IntGaugeVec,
    opened: IntCounterVec,
    closed: IntCounterVec,
    rejected: IntCounterVec,
    auth_attempts: IntCounterVec,
    bad_packets: IntCounterVec,
    accept_errors: IntCounter,
}

#[derive(Debug, Clone)]
struct Traffic {
    bytes_received: IntCounter,
    bytes_sent: IntCounter,
    packets_received: IntCounter,
    packets_sent: IntCounter,
}

#[derive(Debug, Clone)]
struct Messages {
    received: [[IntCounter; 3]; 3],
    delivered: [[IntCounter; 3]; 3],
    repeated: IntCounter,
    resent: IntCounter,
    delivery_acks: IntCounter,
    unknown_acks: IntCounter,
    expired: IntCounter,
    dropped: [IntCounter; 2],
    filters: [IntCounter; 2],
    publish_ack: Histogram,
}

impl Connections {
    fn register(to: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            opening: to.add(IntGauge::new(
                "moorline_connections_opening",
                "Sockets that have not brought an accepted CONNECT yet",
            )?)?,
            current: to.add(IntGaugeVec::new(
                Opts::new("moorline_connections", "Clients connected now"),
                &["listener", "protocol"],
            )?)?,
            opened: to.counters(
                "moorline_connections_opened_total",
                "Sockets accepted",
                &["listener"],
            )?,
            closed: to.counters_from_0(
                "moorline_connections_closed_total",
                "Connections ended, by reason",
                "reason",
                CloseReason::ALL.map(CloseReason::label),
            )?,
            rejected: rejected(to)?,
            auth_attempts: auth_attempts(to)?,
            bad_packets: to.counters_from_0(
                "moorline_bad_packets_total",
                "Packets that broke a rule and ended their connection, by reason",
                "reason",
                CloseReason::ALL
                    .into_iter()
                    .filter(|of| is_bad_packet(*of))
                    .map(CloseReason::label),
            )?,
            accept_errors: to
                .counter("moorline_accept_errors_total", "Failures to accept a socket")?,
        })
    }
}

impl Carriers {
    fn register(to: &Registrar<'_>) -> prometheus::Result<Self> {
        let labelled = |name, help, label, values: &[&str]| {
            let counters = to.counters(name, help, &[label])?;
            // A scrape shows them also before the first.
            for value in values {
                counters.with_label_values(&[value]);
            }
            Ok::<_, prometheus::Error>(counters)
        };
        let of = |name, help, reasons: &[&str]| labelled(name, help, "reason", reasons);
        Ok(Self {
            tls_shook: labelled(
                "moorline_tls_handshakes_total",
                "TLS handshakes of clients that succeeded, by kind",
                "kind",
                &tls::Shook::ALL.map(tls::Shook::label),
            )?,
            tls_took: to.add(Histogram::with_opts(
                HistogramOpts::new(
                    "moorline_tls_handshake_seconds",
                    "From its turn to the end of a TLS handshake that succeeded",
                )
                .buckets(exponential_buckets(ACK_SECONDS_MIN, 2.0, ACK_BUCKETS)?),
            )?)?,
            tls_failed: of(
                "moorline_tls_handshakes_failed_total",
                "TLS handshakes of clients that failed, by reason",
                &tls::Failed::ALL.map(tls::Failed::label),
            )?,
            websocket_refused: of(
                "moorline_websocket_handshakes_refused_total",
                "WebSocket handshakes that were refused, by reason",
                &Refused::ALL.map(Refused::label),
            )?,
            websocket_violated: of(
                "moorline_websocket_violations_total",
                "WebSockets closed because a frame broke a rule, by reason",
                &Violation::ALL.map(Violation::label),
            )?,
        })
    }
}

/// A reason that is not there until it happens can't be watched.
fn rejected(to: &Registrar<'_>) -> prometheus::Result<IntCounterVec> {
    let help = "Clients turned away before a session was opened, by reason";
    let rejected = to.counters("moorline_admission_rejected_total", help, &["reason"])?;
    let limits = EdgeLimit::ALL.into_iter().filter(|limit| *limit != EdgeLimit::TlsHandshake);
    for reason in limits.map(EdgeLimit::label).chain(Denial::ALL.map(Denial::label)) {
        rejected.with_label_values(&[reason]);
    }
    Ok(rejected)
}

/// Those of each gate, by its number.
fn gates(to: &Registrar<'_>) -> prometheus::Result<[GateMetrics; Gate::ALL.len()]> {
    let waiting = to.add(IntGaugeVec::new(
        Opts::new(
            "moorline_admission_waiting",
            "Newcomers that wait for a handshake of TLS, or to be authenticated",
        ),
        &["gate"],
    )?)?;
    let admitted = to.counters(
        "moorline_admission_admitted_total",
        "Newcomers that went ahead, by what they waited for",
        &["gate"],
    )?;
    let waited = to.add(HistogramVec::new(
        HistogramOpts::new("moorline_admission_wait_seconds", "How long they waited for that")
            .buckets(exponential_buckets(WAIT_SECONDS_MIN, 2.0, WAIT_BUCKETS)?),
        &["gate"],
    )?)?;
    Ok(Gate::ALL.map(Gate::label).map(|gate| GateMetrics {
        waiting: waiting.with_label_values(&[gate]),
        admitted: admitted.with_label_values(&[gate]),
        waited: waited.with_label_values(&[gate]),
    }))
}

/// A result that is not there until it happens can't be watched.
fn auth_attempts(to: &Registrar<'_>) -> prometheus::Result<IntCounterVec> {
    let help = "Authentication attempts, by result";
    let attempts = to.counters("moorline_auth_attempts_total", help, &["method", "result"])?;
    for result in Denial::ALL.map(Denial::label).into_iter().chain(["accepted"]) {
        attempts.with_label_values(&["registry", result]);
    }
    Ok(attempts)
}

impl Traffic {
    fn register(to: &Registrar<'_>) -> prometheus::Result<Self> {
        let of = |name, help| to.counter(name, help);
        Ok(Self {
            bytes_received: of("moorline_mqtt_received_bytes_total", "Bytes read from clients")?,
            bytes_sent: of("moorline_mqtt_sent_bytes_total", "Bytes written to clients")?,
            packets_received: of(
                "moorline_mqtt_packets_received_total",
                "Packets read from clients",
            )?,
            packets_sent: of("moorline_mqtt_packets_sent_total", "Packets written to clients")?,
        })
    }
}

impl Messages {
    fn register(to: &Registrar<'_>) -> prometheus::Result<Self> {
        let labels = ["protocol", "qos"];
        let received = "PUBLISH packets received from clients";
        let received = to.counters("moorline_messages_received_total", received, &labels)?;
        let delivered = "PUBLISH packets sent to clients";
        let delivered = to.counters("moorline_messages_delivered_total", delivered, &labels)?;
        // The layers below count under the same name, with another `layer`.
        let dropped = "Copies of messages that were dropped, by reason";
        let dropped = Opts::new("moorline_messages_dropped_total", dropped);
        let dropped = dropped.const_label("layer", "edge");
        let dropped = to.add(IntCounterVec::new(dropped, &["reason"])?)?;
        let filters = "Filters of SUBSCRIBE packets, by result";
        let filters = to.counters("moorline_subscribe_filters_total", filters, &["result"])?;
        let of = |name, help| to.counter(name, help);
        Ok(Self {
            received: by_protocol_and_qos(&received),
            delivered: by_protocol_and_qos(&delivered),
            repeated: of(
                "moorline_messages_repeated_total",
                "PUBLISH packets received again before their first copy was answered, or (QoS 2) released",
            )?,
            resent: of(
                "moorline_messages_resent_total",
                "PUBLISH packets sent to clients with DUP=1",
            )?,
            delivery_acks: of(
                "moorline_deliveries_acked_total",
                "Deliveries that clients acknowledged",
            )?,
            unknown_acks: of(
                "moorline_unknown_acks_total",
                "Acknowledgements of clients for nothing that was in flight",
            )?,
            expired: of(
                "moorline_messages_expired_total",
                "Copies of messages that expired before they were sent",
            )?,
            dropped: DROPPED.map(|reason| dropped.with_label_values(&[reason])),
            filters: ["granted", "refused"].map(|result| filters.with_label_values(&[result])),
            publish_ack: to.add(Histogram::with_opts(
                HistogramOpts::new(
                    "moorline_publish_ack_seconds",
                    "From a QoS 1 or 2 PUBLISH read to the service's answer, whichever it is",
                )
                .buckets(exponential_buckets(ACK_SECONDS_MIN, 2.0, ACK_BUCKETS)?),
            )?)?,
        })
    }
}

impl EdgeMetrics {
    /// Registers into `registry`.
    ///
    /// # Errors
    ///
    /// If it has metrics of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let to = Registrar { registry };
        Ok(Self {
            connections: Connections::register(&to)?,
            carriers: Carriers::register(&to)?,
            traffic: Traffic::register(&to)?,
            messages: Messages::register(&to)?,
            publishes: Publishes::register(&to)?,
            reached: Arc::new(Reached::new(&to.counters(
                "moorline_limits_reached_total",
                "How often clients ran into a limit, by limit",
                &["limit"],
            )?)),
            delayed: to.counter(
                "moorline_connects_delayed_total",
                "Clients that connected too often, and waited for their turn",
            )?,
            gates: gates(&to)?,
        })
    }

    /// A socket is open, and nothing was said yet.
    pub(crate) fn opening(&self) {
        self.connections.opening.inc();
    }

    /// It ended before a client was accepted.
    pub(crate) fn never_opened(&self) {
        self.connections.opening.dec();
    }

    /// A socket could not be accepted.
    pub(crate) fn accept_failed(&self) {
        self.connections.accept_errors.inc();
    }

    /// A client's TLS handshake succeeded.
    pub(crate) fn tls_shook(&self, kind: tls::Shook, took: Duration) {
        self.carriers.tls_took.observe(took.as_secs_f64());
        self.carriers.tls_shook.with_label_values(&[kind.label()]).inc();
    }

    /// A client's TLS handshake failed.
    pub(crate) fn tls_failed(&self, reason: tls::Failed) {
        self.carriers.tls_failed.with_label_values(&[reason.label()]).inc();
    }

    /// A client's WebSocket handshake was refused.
    pub(crate) fn websocket_refused(&self, reason: Refused) {
        self.carriers.websocket_refused.with_label_values(&[reason.label()]).inc();
    }

    /// A client broke a rule of WebSocket.
    pub(crate) fn websocket_violated(&self, violation: Violation) {
        self.carriers.websocket_violated.with_label_values(&[violation.label()]).inc();
    }

    /// Bytes came from a socket.
    pub(crate) fn read(&self, bytes: usize) {
        self.traffic.bytes_received.inc_by(bytes as u64);
    }

    /// Bytes went to a socket.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.traffic.bytes_sent.inc_by(bytes as u64);
    }

    /// A QoS 1 publish was answered.
    pub(crate) fn publish_answered(&self, took: Duration) {
        self.messages.publish_ack.observe(took.as_secs_f64());
    }

    /// A client's CONNECT was accepted.
    pub(crate) fn connected(&self, listener: &str, version: Version) {
        self.connections.opening.dec();
        self.connections.current.with_label_values(&[listener, version.label()]).inc();
    }

    /// The same client is gone.
    pub(crate) fn disconnected(&self, listener: &str, version: Version) {
        self.connections.current.with_label_values(&[listener, version.label()]).dec();
    }

    /// Clients may come at a listener: a scrape shows its numbers before the first does.
    pub(crate) fn listens(&self, listener: &str) {
        self.connections.opened.with_label_values(&[listener]);
        for protocol in PROTOCOLS {
            self.connections.current.with_label_values(&[listener, protocol]);
        }
    }

    /// A socket was accepted.
    pub(crate) fn opened(&self, listener: &str) {
        self.connections.opened.with_label_values(&[listener]).inc();
    }

    /// A connection ended.
    pub(crate) fn closed(&self, reason: CloseReason) {
        self.connections.closed.with_label_values(&[reason.label()]).inc();
        if is_bad_packet(reason) {
            self.connections.bad_packets.with_label_values(&[reason.label()]).inc();
        }
    }

    /// A client was turned away.
    pub(crate) fn rejected(&self, reason: &'static str) {
        self.connections.rejected.with_label_values(&[reason]).inc();
    }

    /// The same, because the edge has a limit.
    pub(crate) fn turned_away(&self, limit: EdgeLimit) {
        self.rejected(limit.label());
        self.reached(limit);
    }

    /// One of the edge's limits was reached.
    pub(crate) fn reached(&self, limit: EdgeLimit) {
        self.reached.edge(limit);
    }

    /// One of the protocol's limits was reached so many times.
    pub(crate) fn reached_in_protocol(&self, limit: Limit, times: u64) {
        self.reached.protocol(limit, times);
    }

    /// A newcomer is in a line.
    pub(crate) fn waits(&self, gate: Gate) {
        self.gates[gate as usize].waiting.inc();
    }

    /// It is out of it.
    pub(crate) fn waits_no_more(&self, gate: Gate) {
        self.gates[gate as usize].waiting.dec();
    }

    /// It goes ahead, after so long.
    pub(crate) fn admitted(&self, gate: Gate, waited: Duration) {
        let of = &self.gates[gate as usize];
        of.admitted.inc();
        of.waited.observe(waited.as_secs_f64());
    }

    /// A client has to wait before its session is opened.
    pub(crate) fn connect_delayed(&self) {
        self.delayed.inc();
    }

    /// A client was judged.
    pub(crate) fn judged(&self, method: &'static str, denial: Option<Denial>) {
        let result = denial.map_or("accepted", Denial::label);
        self.connections.auth_attempts.with_label_values(&[method, result]).inc();
    }

    /// Counts live copies that were dropped because their client is too slow.
    pub(crate) fn dropped_slow(&self) -> IntCounter {
        self.messages.dropped[0].clone()
    }

    /// A connection has so many publishes that wait, and its accounts differ by so much.
    pub(crate) fn account(&self, told: &mut Told, waiting: usize, imbalance: u64) {
        self.publishes.tell(told, waiting, imbalance);
    }

    /// It is gone.
    pub(crate) fn account_closed(&self, told: Told) {
        self.publishes.gone(told);
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
            add(&self.messages.received[protocol][qos], facts.publishes_received[qos]);
            add(&self.messages.delivered[protocol][qos], facts.deliveries_sent[qos]);
        }
        add(&self.traffic.packets_received, facts.packets_received);
        add(&self.traffic.packets_sent, facts.packets_sent);
        add(&self.messages.repeated, facts.publishes_repeated);
        self.publishes.add(&facts.fates);
        add(&self.messages.resent, facts.deliveries_resent);
        add(&self.messages.delivery_acks, facts.deliveries_acked);
        add(&self.messages.unknown_acks, facts.unknown_acks);
        add(&self.messages.expired, facts.expired);
        add(&self.messages.dropped[0], facts.dropped_queue_full);
        add(&self.messages.dropped[1], facts.dropped_too_large);
        add(&self.messages.filters[0], facts.filters_granted);
        add(&self.messages.filters[1], facts.filters_refused);
        for (limit, times) in Limit::ALL.into_iter().zip(facts.limits) {
            if times > 0 {
                self.reached_in_protocol(limit, times);
            }
        }
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
        | CloseReason::SubscribeRefused
        | CloseReason::UnsubscribeRefused
        | CloseReason::TakenOver
        | CloseReason::Stopping
        | CloseReason::Lost
        | CloseReason::Overrun
        | CloseReason::Revoked
        | CloseReason::Misused
        | CloseReason::Finished => false,
    }
}

pub(crate) struct Registrar<'a> {
    pub(crate) registry: &'a Registry,
}

impl Registrar<'_> {
    pub(crate) fn add<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::new(name, help)?)
    }

    pub(crate) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Counters of which a scrape shows each also before the first.
    fn counters_from_0(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> prometheus::Result<IntCounterVec> {
        let counters = self.counters(name, help, &[label])?;
        for value in values {
            counters.with_label_values(&[value]);
        }
        Ok(counters)
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
        metrics.listens("mqtts");
        metrics.connected("mqtt", Version::V5);
        metrics.closed(CloseReason::Malformed);
        metrics.judged("anonymous", None);
        metrics.turned_away(EdgeLimit::Connections);
        let facts = Counters {
            publishes_received: [0, 2, 0],
            dropped_queue_full: 1,
            ..Counters::default()
        };
        metrics.add(Some(Version::V311), &facts);
        metrics.publish_answered(Duration::from_millis(2));

        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "moorline_connections{listener=\"mqtt\",protocol=\"mqtt5\"} 1",
            "moorline_connections_closed_total{reason=\"malformed\"} 1",
            "moorline_bad_packets_total{reason=\"malformed\"} 1",
            "moorline_auth_attempts_total{method=\"anonymous\",result=\"accepted\"} 1",
            "moorline_admission_rejected_total{reason=\"connections_max\"} 1",
            "moorline_admission_rejected_total{reason=\"connects_per_client_s\"} 0",
            "moorline_connections_closed_total{reason=\"finished\"} 0",
            "moorline_bad_packets_total{reason=\"not_supported\"} 0",
            "moorline_connections_opened_total{listener=\"mqtts\"} 0",
            "moorline_connections{listener=\"mqtts\",protocol=\"mqtt31\"} 0",
            "moorline_tls_handshake_seconds_count 0",
            "moorline_messages_received_total{protocol=\"mqtt311\",qos=\"1\"} 2",
            "moorline_publish_ack_seconds_count 1",
            "moorline_tls_handshakes_failed_total{reason=\"timeout\"} 0",
            "moorline_websocket_handshakes_refused_total{reason=\"subprotocol\"} 0",
            "moorline_websocket_violations_total{reason=\"text\"} 0",
            "moorline_limits_reached_total{limit=\"connections_max\"} 1",
            "moorline_limits_reached_total{limit=\"write_stall_ms\"} 0",
            "moorline_admission_rejected_total{reason=\"authentications_per_core_s\"} 0",
            "moorline_admission_rejected_total{reason=\"busy\"} 0",
            "moorline_admission_waiting{gate=\"handshakes\"} 0",
            "moorline_admission_admitted_total{gate=\"authentications\"} 0",
            "moorline_admission_wait_seconds_count{gate=\"handshakes\"} 0",
            "moorline_messages_dropped_total{layer=\"edge\",reason=\"slow_client\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(EdgeMetrics::register(&registry).is_err(), "names are taken once");
    }
}
