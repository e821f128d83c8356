//! What the wire counts. Names are an interface (docs/metrics.md); labels take few values.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};

use super::{hello::RefusalReason, kind::Lane};

/// All metrics of the wire. Cheap to clone; every clone counts into the same cells.
#[derive(Debug, Clone)]
pub(super) struct WireMetrics {
    lanes: [LaneMetrics; Lane::ALL.len()],
    refused_hellos: IntCounterVec,
    pub(super) peers_up: IntGauge,
    pub(super) turned_away: IntCounter,
    pub(super) tls: TlsMetrics,
}

/// What is counted of TLS between nodes.
#[derive(Debug, Clone)]
pub(super) struct TlsMetrics {
    pub(super) failed_handshakes: IntCounter,
    pub(super) reloads: IntCounter,
    pub(super) reloads_failed: IntCounter,
    pub(super) expires: IntGauge,
}

impl TlsMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Incoming connections of peers whose TLS did not come about";
        let failed_handshakes = IntCounter::new("moorline_wire_failed_handshakes_total", help)?;
        registry.register(Box::new(failed_handshakes.clone()))?;
        let help = "How often the files of [cluster.tls] were read again, by result";
        let opts = Opts::new("moorline_wire_tls_reloads_total", help);
        let reloads = IntCounterVec::new(opts, &["result"])?;
        registry.register(Box::new(reloads.clone()))?;
        let help = "When the certificate shown to other nodes expires; 0 without TLS";
        let expires = IntGauge::new("moorline_wire_cert_expiry_timestamp_seconds", help)?;
        registry.register(Box::new(expires.clone()))?;
        Ok(Self {
            failed_handshakes,
            reloads: reloads.with_label_values(&["done"]),
            reloads_failed: reloads.with_label_values(&["failed"]),
            expires,
        })
    }
}

/// The cells of one lane, all peers together.
#[derive(Debug, Clone)]
pub(super) struct LaneMetrics {
    pub(super) sent: DirectionMetrics,
    pub(super) received: DirectionMetrics,
    pub(super) connects: IntCounter,
    pub(super) failed_connects: IntCounter,
    pub(super) losses: IntCounter,
    pub(super) unreachable: IntCounter,
    pub(super) full: IntCounter,
    pub(super) malformed: IntCounter,
    pub(super) call_seconds: Histogram,
}

/// The cells of one direction of a lane.
#[derive(Debug, Clone)]
pub(super) struct DirectionMetrics {
    frames: IntCounter,
    bytes: IntCounter,
    messages: IntCounter,
    /// Bytes that wait (of the receiving direction: always 0).
    pub(super) queued: IntGauge,
}

impl DirectionMetrics {
    pub(super) fn count(&self, bytes: usize, messages: usize) {
        self.frames.inc();
        self.bytes.inc_by(bytes as u64);
        self.messages.inc_by(messages as u64);
    }
}

impl WireMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let direction = ["lane", "direction"];
        let frames = counters("moorline_wire_frames_total", "Frames between nodes", &direction)?;
        let bytes = counters("moorline_wire_bytes_total", "Bytes of frames", &direction)?;
        let messages = counters("moorline_wire_messages_total", "Messages in frames", &direction)?;
        let connects =
            counters("moorline_wire_connects_total", "Connections made to peers", &["lane"])?;
        let help = "Attempts to connect to a peer that failed";
        let failed_connects = counters("moorline_wire_failed_connects_total", help, &["lane"])?;
        let losses =
            counters("moorline_wire_losses_total", "Connections to peers that ended", &["lane"])?;
        let help = "Messages that were not sent, by why";
        let unsent = counters("moorline_wire_unsent_total", help, &["lane", "reason"])?;
        let help = "Connections closed because a frame was malformed";
        let malformed = counters("moorline_wire_malformed_frames_total", help, &["lane"])?;
        let help = "Hellos refused by either side, by why";
        let refused_hellos = counters("moorline_wire_refused_hellos_total", help, &["reason"])?;

        let opts = Opts::new("moorline_wire_queued_bytes", "Bytes that wait for a peer");
        let queued = IntGaugeVec::new(opts, &["lane"])?;
        registry.register(Box::new(queued.clone()))?;
        let help = "Peers with all three connections";
        let peers_up = IntGauge::new("moorline_wire_peers_up", help)?;
        registry.register(Box::new(peers_up.clone()))?;
        let help = "Incoming connections closed at once because there were too many";
        let turned_away = IntCounter::new("moorline_wire_turned_away_total", help)?;
        registry.register(Box::new(turned_away.clone()))?;
        let opts = HistogramOpts::new("moorline_wire_call_seconds", "From a request to its answer")
            // 50 µs to 6.5 s: below is a loopback's ping, above are the deadlines.
            .buckets(exponential_buckets(0.000_05, 2.5, 14)?);
        let call_seconds = HistogramVec::new(opts, &["lane"])?;
        registry.register(Box::new(call_seconds.clone()))?;

        let lanes = Lane::ALL.map(|lane| {
            let name = lane.name();
            let direction = |direction: &str, queued| DirectionMetrics {
                frames: frames.with_label_values(&[name, direction]),
                bytes: bytes.with_label_values(&[name, direction]),
                messages: messages.with_label_values(&[name, direction]),
                queued,
            };
            LaneMetrics {
                sent: direction("sent", queued.with_label_values(&[name])),
                received: direction("received", queued.with_label_values(&[name])),
                connects: connects.with_label_values(&[name]),
                failed_connects: failed_connects.with_label_values(&[name]),
                losses: losses.with_label_values(&[name]),
                unreachable: unsent.with_label_values(&[name, "unreachable"]),
                full: unsent.with_label_values(&[name, "full"]),
                malformed: malformed.with_label_values(&[name]),
                call_seconds: call_seconds.with_label_values(&[name]),
            }
        });
        for reason in RefusalReason::ALL {
            refused_hellos.with_label_values(&[reason.name()]).inc_by(0);
        }
        let tls = TlsMetrics::register(registry)?;
        Ok(Self { lanes, refused_hellos, peers_up, turned_away, tls })
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneMetrics {
        &self.lanes[lane.index()]
    }

    pub(super) fn hello_refused(&self, reason: RefusalReason) {
        self.refused_hellos.with_label_values(&[reason.name()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_dashboards_say() {
        let registry = Registry::new();
        let metrics = WireMetrics::register(&registry).unwrap();
        metrics.hello_refused(RefusalReason::Store);
        metrics.lane(Lane::Data).sent.count(100, 3);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "moorline_wire_refused_hellos_total{reason=\"store\"} 1",
            "moorline_wire_messages_total{direction=\"sent\",lane=\"data\"} 3",
            "moorline_wire_bytes_total{direction=\"sent\",lane=\"data\"} 100",
            "moorline_wire_frames_total{direction=\"sent\",lane=\"data\"} 1",
            "moorline_wire_connects_total{lane=\"bulk\"} 0",
            "moorline_wire_failed_connects_total{lane=\"data\"} 0",
            "moorline_wire_losses_total{lane=\"control\"} 0",
            "moorline_wire_unsent_total{lane=\"data\",reason=\"full\"} 0",
            "moorline_wire_malformed_frames_total{lane=\"data\"} 0",
            "moorline_wire_queued_bytes{lane=\"data\"} 0",
            "moorline_wire_call_seconds_count{lane=\"data\"} 0",
            "moorline_wire_peers_up 0",
            "moorline_wire_turned_away_total 0",
            "moorline_wire_failed_handshakes_total 0",
            "moorline_wire_tls_reloads_total{result=\"done\"} 0",
            "moorline_wire_tls_reloads_total{result=\"failed\"} 0",
            "moorline_wire_cert_expiry_timestamp_seconds 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        WireMetrics::register(&registry).expect_err("registered twice");
    }
}
