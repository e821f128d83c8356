//! Whether what came into queues and mailboxes adds up with what left them and what is there, of the replicas of this node; and
//! how much that was in the shards it leads.
//!
//! The replicas count ([`moorline_machine::QueueTally`], [`moorline_machine::MailTally`]), under the lock under which they apply,
//! so an imbalance is exact whenever it is looked at. Counters grow by what a replica counted since the last look, if it leads
//! its shard. Near a change of leaders they may be off by what was counted between two looks; the imbalance is not.
//!
//! # Invariants
//!
//! - **A counter never goes back**, also when a replica is opened again and counts anew. Checked by the tests below.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_core::{
    ShardId,
    port::{Published, Refusal},
};
use moorline_machine::{Machine, MailTally, QueueTally, mail::Noted};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
    exponential_buckets,
};

use crate::service::Inner;

/// A second; half a year of seconds is not far above the last.
const WAITED_SECONDS_MIN: f64 = 1.0;
/// How many buckets, each four times the one before.
const WAITED_BUCKETS: usize = 12;

/// What the replicas of a node counted.
#[derive(Debug, Clone)]
pub(crate) struct AccountMetrics {
    queues_off: IntGauge,
    mail_off: IntGauge,
    enqueued: IntCounter,
    passed: IntCounter,
    full: IntCounter,
    settled: IntCounter,
    discarded: IntCounter,
    transitions: IntCounterVec,
    /// How long mail waited that devices are done with.
    pub(crate) mail_waited: Histogram,
    pub(crate) direct: DirectMetrics,
    /// What was counted at the last look.
    seen: Arc<Mutex<BTreeMap<ShardId, Tallies>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tallies {
    queues: QueueTally,
    mail: MailTally,
}

/// Where a mail was and what happened to it there: all that can.
fn transitions() -> impl Iterator<Item = (bool, Noted)> {
    let of_dead = [Noted::Cancelled, Noted::Purged].map(|what| (true, what));
    Noted::ALL.into_iter().map(|what| (false, what)).chain(of_dead)
}

/// The labels of a transition.
fn labels(dead: bool, what: Noted) -> [&'static str; 2] {
    let from = match (dead, what) {
        (true, _) => "dead",
        (false, Noted::Queued) => "new",
        (false, _) => "queued",
    };
    [from, what.name()]
}

/// How much more it is; of one that began anew, all.
fn more(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

impl AccountMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let off = |of| {
            let name = "moorline_accounting_imbalance";
            let help =
                "By how much counts of messages differ that must be equal; 0 unless there is a bug";
            add(registry, IntGauge::with_opts(Opts::new(name, help).const_label("where", of))?)
        };
        let name = "moorline_queue_messages_total";
        let help = "Copies of messages for durable sessions and shares of the shards this node leads, by what became of them";
        let queues = add(registry, IntCounterVec::new(Opts::new(name, help), &["what"])?)?;
        let name = "moorline_mail_transitions_total";
        let help = "What happened to mail in the shards this node leads";
        let transitions_of = Opts::new(name, help);
        let transitions_of = add(registry, IntCounterVec::new(transitions_of, &["from", "to"])?)?;
        for (dead, what) in transitions() {
            transitions_of.with_label_values(&labels(dead, what));
        }
        Ok(Self {
            queues_off: off("queues")?,
            mail_off: off("mail")?,
            enqueued: queues.with_label_values(&["enqueued"]),
            passed: queues.with_label_values(&["passed"]),
            full: queues.with_label_values(&["full"]),
            settled: queues.with_label_values(&["settled"]),
            discarded: queues.with_label_values(&["discarded"]),
            transitions: transitions_of,
            mail_waited: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "moorline_mail_time_in_queue_seconds",
                        "From a mail's coming to its device's being done with it",
                    )
                    .buckets(exponential_buckets(
                        WAITED_SECONDS_MIN,
                        4.0,
                        WAITED_BUCKETS,
                    )?),
                )?,
            )?,
            direct: DirectMetrics::register(registry)?,
            seen: Arc::default(),
        })
    }

    /// What a replica has counted by now.
    fn look(
        &self,
        seen: &mut BTreeMap<ShardId, Tallies>,
        shard: ShardId,
        leads: bool,
        now: Tallies,
    ) {
        let Some(before) = seen.insert(shard, now).filter(|_| leads) else { return };
        let (to, from) = (now.queues, before.queues);
        for (counter, to, from) in [
            (&self.enqueued, to.enqueued, from.enqueued),
            (&self.passed, to.passed, from.passed),
            (&self.full, to.full, from.full),
            (&self.settled, to.settled, from.settled),
            (&self.discarded, to.discarded, from.discarded),
        ] {
            counter.inc_by(more(to, from));
        }
        for (dead, what) in transitions() {
            let times = more(now.mail.of(dead, what), before.mail.of(dead, what));
            if times > 0 {
                self.transitions.with_label_values(&labels(dead, what)).inc_by(times);
            }
        }
    }
}

impl Inner {
    /// Looks what the replicas here have counted. To be called before somebody reads it.
    pub(crate) fn account(&self) {
        let accounts = &self.metrics.accounts;
        let (mut queues_off, mut mail_off) = (0_u64, 0_u64);
        let mut seen = accounts.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in self.shards.all() {
            let leads = self.delivery(shard).is_some_and(|delivery| delivery.is_leading());
            let mut counted = |machine: &Machine| {
                queues_off += machine.queue_imbalance();
                mail_off += machine.mailboxes().imbalance();
                Tallies { queues: *machine.queue_tally(), mail: *machine.mailboxes().tally() }
            };
            match self.below().groups.read(shard, |machine, _| counted(machine)) {
                Some(now) => accounts.look(&mut seen, shard, leads, now),
                None => {
                    seen.remove(&shard);
                }
            }
        }
        drop(seen);
        accounts.queues_off.set(i64::try_from(queues_off).unwrap_or(i64::MAX));
        accounts.mail_off.set(i64::try_from(mail_off).unwrap_or(i64::MAX));
    }
}

/// What became of messages that came by no session, as over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct DirectMetrics(IntCounterVec);

/// What a direct publish can come to.
const DIRECT: [&str; 12] = [
    "matched",
    "unmatched",
    "busy",
    "unavailable",
    "quota",
    "disk_full",
    "not_authorised",
    "too_large",
    "topic",
    "payload",
    "platform",
    ABANDONED,
];
/// Whoever published it did not wait for the answer.
const ABANDONED: &str = "abandoned";

impl DirectMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let name = "moorline_direct_publishes_total";
        let help = "Messages to be accepted that came by no session, by what became of them";
        let direct = add(registry, IntCounterVec::new(Opts::new(name, help), &["result"])?)?;
        for result in DIRECT {
            direct.with_label_values(&[result]);
        }
        Ok(Self(direct))
    }

    /// A message came: whatever becomes of it is counted once.
    pub(crate) fn begin(&self) -> Begun<'_> {
        Begun { of: self, result: ABANDONED }
    }
}

/// A direct publish that is under way. Counts what became of it when it is dropped.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    of: &'a DirectMetrics,
    result: &'static str,
}

impl Begun<'_> {
    /// It came to this.
    pub(crate) fn end(mut self, outcome: Result<Published, Refusal>) -> Result<Published, Refusal> {
        self.result = match outcome {
            Ok(Published { matched: true }) => "matched",
            Ok(Published { matched: false }) => "unmatched",
            Err(Refusal::Busy) => "busy",
            Err(Refusal::Unavailable) => "unavailable",
            Err(Refusal::Quota) => "quota",
            Err(Refusal::DiskFull) => "disk_full",
            Err(Refusal::NotAuthorised) => "not_authorised",
            Err(Refusal::TooLarge) => "too_large",
            Err(Refusal::Topic) => "topic",
            Err(Refusal::Payload) => "payload",
            Err(Refusal::Platform(_)) => "platform",
        };
        outcome
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.of.0.with_label_values(&[self.result]).inc();
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn tallies(enqueued: u64) -> Tallies {
        let queues = QueueTally { enqueued, matched: enqueued, ..QueueTally::default() };
        Tallies { queues, ..Tallies::default() }
    }

    #[test]
    fn a_counter_grows_by_what_a_leader_counted_and_never_goes_back() {
        let metrics = AccountMetrics::register(&Registry::new()).unwrap();
        let mut seen = BTreeMap::new();
        #[rustfmt::skip]
        let steps = [
            // Before the first look nobody knows who led.
            (true, 5, 0), (true, 7, 2), (false, 9, 2), (true, 10, 3),
            // Opened again.
            (true, 4, 7), (true, 4, 7),
        ];
        for (leads, counted, expected) in steps {
            metrics.look(&mut seen, ShardId(1), leads, tallies(counted));
            assert_eq!(metrics.enqueued.get(), expected, "{leads} {counted}");
        }
    }

    #[test]
    fn a_direct_publish_is_counted_once_whatever_becomes_of_it() {
        let registry = Registry::new();
        let metrics = AccountMetrics::register(&registry).unwrap();
        metrics.direct.begin().end(Err(Refusal::DiskFull)).unwrap_err();
        drop(metrics.direct.begin());
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "moorline_direct_publishes_total{result=\"disk_full\"} 1",
            "moorline_direct_publishes_total{result=\"abandoned\"} 1",
            "moorline_direct_publishes_total{result=\"matched\"} 0",
            "moorline_mail_transitions_total{from=\"queued\",to=\"acked\"} 0",
            "moorline_mail_transitions_total{from=\"dead\",to=\"purged\"} 0",
            "moorline_queue_messages_total{what=\"discarded\"} 0",
            "moorline_accounting_imbalance{where=\"mail\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
