//! Limits that were reached: counted by name, and logged now and then.
//!
//! # Invariants
//!
//! - **A storm makes no log.** Each limit has one line in [`LOG_EVERY_MS`]. Checked by this file's tests.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use moorline_mqtt::server::Limit;
use prometheus::{IntCounter, IntCounterVec};
use tracing::info;

/// Between two lines of one limit.
const LOG_EVERY_MS: u64 = 10_000;

/// A limit that an edge keeps itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeLimit {
    /// Connections at all listeners together.
    Connections,
    /// Connections of one address that have not said who they are.
    UnauthenticatedPerAddress,
    /// A TLS handshake that took too long.
    TlsHandshake,
    /// A client connects too often.
    ConnectsPerClient,
    /// A tenant's clients connect too often.
    ConnectsPerTenant,
    /// Handshakes of TLS that are under way.
    HandshakesPerCore,
    /// Handshakes of TLS in a second.
    HandshakesPerCoreS,
    /// Clients that are being judged, or whose session is being opened.
    AuthenticationsPerCore,
    /// The same in a second.
    AuthenticationsPerCoreS,
    /// Newcomers that wait for either.
    AdmissionWaiting,
}

impl EdgeLimit {
    /// All of them, by number.
    pub(crate) const ALL: [Self; 10] = [
        Self::Connections,
        Self::UnauthenticatedPerAddress,
        Self::TlsHandshake,
        Self::ConnectsPerClient,
        Self::ConnectsPerTenant,
        Self::HandshakesPerCore,
        Self::HandshakesPerCoreS,
        Self::AuthenticationsPerCore,
        Self::AuthenticationsPerCoreS,
        Self::AdmissionWaiting,
    ];

    /// The setting's name, for metrics and logs.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections_max",
            Self::UnauthenticatedPerAddress => "unauthenticated_per_address_max",
            Self::TlsHandshake => "tls_handshake_ms",
            Self::ConnectsPerClient => "connects_per_client_s",
            Self::ConnectsPerTenant => "connects_per_tenant_s",
            Self::HandshakesPerCore => "handshakes_per_core",
            Self::HandshakesPerCoreS => "handshakes_per_core_s",
            Self::AuthenticationsPerCore => "authentications_per_core",
            Self::AuthenticationsPerCoreS => "authentications_per_core_s",
            Self::AdmissionWaiting => "admission_waiting_max",
        }
    }
}

const COUNT: usize = Limit::ALL.len() + EdgeLimit::ALL.len();

/// A counter and the time of the last line for each limit: the protocol's, then the edge's.
#[derive(Debug)]
pub(crate) struct Reached {
    counters: Vec<IntCounter>,
    /// When the next line may be written, in milliseconds since the start.
    next_log: [AtomicU64; COUNT],
    start: Instant,
}

impl Reached {
    pub(crate) fn new(counters: &IntCounterVec) -> Self {
        let counter = |label| counters.with_label_values(&[label]);
        Self {
            counters: labels().map(counter).collect(),
            next_log: [const { AtomicU64::new(0) }; COUNT],
            start: Instant::now(),
        }
    }

    /// The edge's limit was reached.
    pub(crate) fn edge(&self, limit: EdgeLimit) {
        self.note(Limit::ALL.len() + limit as usize, limit.label(), 1);
    }

    /// The protocol's limit was reached so many times.
    pub(crate) fn protocol(&self, limit: Limit, times: u64) {
        self.note(limit as usize, limit.label(), times);
    }

    fn note(&self, place: usize, limit: &'static str, times: u64) {
        self.counters[place].inc_by(times);
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.may_log(place, now) {
            let total = self.counters[place].get();
            info!(limit, total, "a limit was reached");
        }
    }

    fn may_log(&self, place: usize, now: u64) -> bool {
        let next = self.next_log[place].load(Ordering::Relaxed);
        let later = now.saturating_add(LOG_EVERY_MS);
        now >= next
            && self.next_log[place]
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn labels() -> impl Iterator<Item = &'static str> {
    let protocol = Limit::ALL.into_iter().map(Limit::label);
    protocol.chain(EdgeLimit::ALL.into_iter().map(EdgeLimit::label))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus::Opts;

    use super::*;

    #[test]
    fn every_limit_has_its_own_counter_and_one_line_in_a_while() {
        assert_eq!(labels().collect::<BTreeSet<_>>().len(), COUNT);
        let counters = IntCounterVec::new(Opts::new("reached", "reached"), &["limit"]).unwrap();
        let reached = Reached::new(&counters);
        for limit in Limit::ALL {
            reached.protocol(limit, 2);
        }
        for limit in EdgeLimit::ALL {
            reached.edge(limit);
            assert_eq!(counters.with_label_values(&[limit.label()]).get(), 1);
        }
        assert_eq!(counters.with_label_values(&["topic_bytes_max"]).get(), 2);
        let lines = |until: u64| (LOG_EVERY_MS..until).filter(|now| reached.may_log(3, *now));
        assert_eq!(lines(4 * LOG_EVERY_MS).count(), 3);
    }
}
