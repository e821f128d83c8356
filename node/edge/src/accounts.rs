//! What became of the publishes of QoS 1 and 2 of this node's clients, and whether that adds up.
//!
//! ```text
//!   received = acked + refused + unanswered + repeated + waiting
//! ```
//!
//! Each connection keeps its own accounts ([`moorline_mqtt::server::Connection::imbalance`]), and shows here what changed. So the
//! sum is exact at any moment, though the counters of a scrape are read one after the other.
//!
//! # Invariants
//!
//! - **A connection that is gone leaves nothing waiting**, and what it was out of balance by stays: an imbalance does not go away
//!   before the process ends. Checked by the tests below.

use moorline_mqtt::server::Fate;
use prometheus::{IntCounter, IntGauge, Opts};

use crate::metrics::Registrar;

/// What one connection has told so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    waiting: i64,
    imbalance: i64,
}

/// The accounts of all connections.
#[derive(Debug, Clone)]
pub(crate) struct Publishes {
    /// One counter for each [`Fate`], in its order; `None` of what another counter says already.
    fates: Vec<Option<IntCounter>>,
    waiting: IntGauge,
    imbalance: IntGauge,
}

/// Under which counter, and with which label, a fate is shown.
fn family(fate: Fate) -> Option<usize> {
    match fate {
        Fate::Matched | Fate::Unmatched => Some(0),
        Fate::Busy
        | Fate::Unavailable
        | Fate::Quota
        | Fate::DiskFull
        | Fate::NotAuthorised
        | Fate::TooLarge
        | Fate::Topic
        | Fate::Payload
        | Fate::Platform => Some(1),
        Fate::Broken | Fate::Unanswered => Some(2),
        // `moorline_messages_repeated_total`.
        Fate::Repeated => None,
    }
}

impl Publishes {
    pub(crate) fn register(to: &Registrar<'_>) -> prometheus::Result<Self> {
        let families = [
            to.counters(
                "moorline_messages_acked_total",
                "PUBLISH packets of QoS 1 and 2 that were accepted, by whether anybody wants them",
                &["result"],
            )?,
            to.counters(
                "moorline_messages_refused_total",
                "PUBLISH packets of QoS 1 and 2 that were not accepted, by reason",
                &["reason"],
            )?,
            to.counters(
                "moorline_messages_unanswered_total",
                "PUBLISH packets of QoS 1 and 2 that got no answer, by reason",
                &["reason"],
            )?,
        ];
        // A scrape shows them also before the first.
        let counter = |fate: Fate| Some(families[family(fate)?].with_label_values(&[fate.label()]));
        let imbalance =
            "By how much counts of messages differ that must be equal; 0 unless there is a bug";
        let imbalance = Opts::new("moorline_accounting_imbalance", imbalance);
        Ok(Self {
            fates: Fate::ALL.into_iter().map(counter).collect(),
            waiting: to.add(IntGauge::new(
                "moorline_publishes_waiting",
                "PUBLISH packets of QoS 1 and 2 that wait for their answer",
            )?)?,
            imbalance: to.add(IntGauge::with_opts(imbalance.const_label("where", "publishes"))?)?,
        })
    }

    /// Adds what publishes of a connection came to.
    pub(crate) fn add(&self, fates: &[u64; Fate::ALL.len()]) {
        for (counter, &times) in self.fates.iter().zip(fates) {
            if let (Some(counter), 1..) = (counter, times) {
                counter.inc_by(times);
            }
        }
    }

    /// A connection has so many publishes that wait now, and is out of balance by so much.
    pub(crate) fn tell(&self, told: &mut Told, waiting: usize, imbalance: u64) {
        let now = Told {
            waiting: i64::try_from(waiting).unwrap_or(i64::MAX),
            imbalance: i64::try_from(imbalance).unwrap_or(i64::MAX),
        };
        if now.waiting != told.waiting {
            self.waiting.add(now.waiting - told.waiting);
        }
        if now.imbalance != told.imbalance {
            self.imbalance.add(now.imbalance - told.imbalance);
        }
        *told = now;
    }

    /// It is gone.
    pub(crate) fn gone(&self, told: Told) {
        self.waiting.sub(told.waiting);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_connections_tell_adds_up_and_an_imbalance_outlives_them() {
        let registry = Registry::new();
        let publishes = Publishes::register(&Registrar { registry: &registry }).unwrap();
        let (mut one, mut other) = (Told::default(), Told::default());
        publishes.tell(&mut one, 3, 0);
        publishes.tell(&mut other, 2, 1);
        publishes.tell(&mut one, 1, 2);
        assert_eq!((publishes.waiting.get(), publishes.imbalance.get()), (3, 3));
        publishes.tell(&mut one, 1, 0);
        publishes.gone(other);
        publishes.gone(one);
        assert_eq!((publishes.waiting.get(), publishes.imbalance.get()), (0, 1));
    }

    #[test]
    fn every_fate_is_shown_once() {
        let registry = Registry::new();
        let publishes = Publishes::register(&Registrar { registry: &registry }).unwrap();
        let mut fates = [0; Fate::ALL.len()];
        fates[Fate::Unmatched as usize] = 2;
        fates[Fate::Quota as usize] = 3;
        fates[Fate::Unanswered as usize] = 4;
        fates[Fate::Repeated as usize] = 5;
        publishes.add(&fates);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "moorline_messages_acked_total{result=\"matched\"} 0",
            "moorline_messages_acked_total{result=\"unmatched\"} 2",
            "moorline_messages_refused_total{reason=\"quota\"} 3",
            "moorline_messages_refused_total{reason=\"platform\"} 0",
            "moorline_messages_unanswered_total{reason=\"connection_ended\"} 4",
            "moorline_messages_unanswered_total{reason=\"broken_rule\"} 0",
            "moorline_accounting_imbalance{where=\"publishes\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("repeated"), "that is counted elsewhere");
    }
}
