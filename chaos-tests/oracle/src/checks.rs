//! The checkers, and [`judge`], which runs them all.
//!
//! One file a promise. Each takes the sorted history and gives back a [`Check`]; none knows of another.

pub mod accounts;
pub mod audit;
pub mod churn;
pub mod conservation;
mod copies;
pub mod coverage;
pub mod digests;
mod disturbed;
pub mod duplicates;
pub mod enough;
pub mod flow;
pub mod inventory;
mod linear;
pub mod logs;
pub mod loss;
pub mod mailbox;
pub mod minority;
pub mod once;
pub mod order;
pub mod phantoms;
pub mod protocol;
pub mod queueing;
pub mod records;
pub mod retained;
pub mod revocation;
pub mod served;
pub mod sessions;
pub mod shares;
pub mod terms;
pub mod usage;
pub mod versions;
pub mod wills;

use std::collections::BTreeSet;

use crate::history::Event;
use crate::model::{Answer, Model};
use crate::requests::Requests;
use crate::verdict::{Check, Counts, Verdict};

/// Name of the check that acknowledged messages arrive.
pub const NO_LOSS: &str = "no-loss";
/// Name of the check that nothing arrives which nobody sent.
pub const NO_PHANTOM: &str = "no-phantom";
/// Name of the check of order per publisher.
pub const ORDER: &str = "order";
/// Name of the check that duplicates have a reason.
pub const DUPLICATES: &str = "duplicates";
/// Name of the check that QoS 2 delivers once.
pub const EXACTLY_ONCE: &str = "exactly-once";
/// Name of the check that durable sessions are kept.
pub const SESSIONS: &str = "sessions";
/// Name of the check of packet ids and receive maximum.
pub const FLOW: &str = "flow";
/// Name of the check that the protocol is kept.
pub const PROTOCOL: &str = "protocol";
/// Name of the check that replicas agree.
pub const DIGESTS: &str = "digests";
/// Name of the check that the run saw enough to judge.
pub const ENOUGH: &str = "enough";
/// Name of the check that the registry is linearizable.
pub const REGISTRY: &str = "registry";
/// Name of the check that versions grow.
pub const VERSIONS: &str = "versions";
/// Name of the check that mailboxes are linearizable.
pub const MAILBOX: &str = "mailbox";
/// Name of the check that mail is shown in order.
pub const QUEUE_ORDER: &str = "queue-order";
/// Name of the check that mail that ended is not shown again.
pub const RESURRECTION: &str = "resurrection";
/// Name of the check that a mail ends once.
pub const ONE_END: &str = "one-end";
/// Name of the check that no mail is lost.
pub const CONSERVATION: &str = "conservation";
/// Name of the check that who is revoked stays out.
pub const REVOCATION: &str = "revocation";
/// Name of the check that shares lose nothing.
pub const SHARE_LOSS: &str = "share-loss";
/// Name of the check that a message of a share goes to one member.
pub const SHARE_ONCE: &str = "share-once";
/// Name of the check that wills are published, and only those that should be.
pub const WILLS: &str = "wills";
/// Name of the check that a will is published once.
pub const WILL_ONCE: &str = "will-once";
/// Name of the check that what a topic retains is a register.
pub const RETAINED: &str = "retained";
/// Name of the check that credentials count when they should, and only then.
pub const CREDENTIALS: &str = "credentials";
/// Name of the check that who lost its credential is disconnected.
pub const TURNED_OUT: &str = "turned-out";
/// Name of the check that every change has one record in the audit.
pub const AUDIT: &str = "audit";
/// Name of the check that all answers about devices agree in the end.
pub const INVENTORY: &str = "inventory";
/// Name of the check that a node on its own answers nothing.
pub const MINORITY: &str = "minority";
/// Name of the check that nodes keep nothing of clients that are gone.
pub const USAGE: &str = "usage";
/// Name of the check that what nodes count adds up.
pub const ACCOUNTS: &str = "accounts";
/// Name of the check of the nodes' logs.
pub const LOGS: &str = "logs";
/// Name of the check that a majority serves.
pub const SERVED: &str = "served";
/// Name of the check that a term has one leader.
pub const TERMS: &str = "terms";
/// Name of the check that the run reached what it was for.
pub const COVERAGE: &str = "coverage";

pub use coverage::Wanted;

/// What a run must have seen, and how patient the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long before the end of a connection a subscriber's PUBACK may have been written and still have been lost
    /// with it, in nanoseconds. The cluster coalesces PUBACKs for 50 ms and cannot settle them while a group has no
    /// leader; a message acknowledged longer ago than this must not come again.
    pub ack_grace_ns: u64,
    /// Fewer acknowledged messages make a run inconclusive.
    pub acked_min: u64,
    /// Fewer installed faults (kills, pauses, cuts) make a run inconclusive.
    pub faults_min: u64,
    /// More unknown attempts in a thousand make a run inconclusive.
    pub unknown_permille_max: u64,
    /// How many replicas must report a digest for each shard; 0 if digests were not asked for.
    pub replicas: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ack_grace_ns: 3_000_000_000,
            acked_min: 1_000,
            faults_min: 1,
            unknown_permille_max: 200,
            replicas: 3,
        }
    }
}

/// Judges a whole history.
pub fn judge(events: &[Event], rules: &Rules) -> Verdict {
    judge_with(events, rules, None)
}

/// Judges a whole history; by what its run wanted to reach, if it said so.
pub fn judge_with(events: &[Event], rules: &Rules, wanted: Option<&Wanted>) -> Verdict {
    let model = Model::of(events);
    let requests = Requests::of(events);
    let mut checks = vec![
        loss::check(&model),
        phantoms::check(&model),
        order::check(&model),
        duplicates::check(&model, rules),
        once::check(&model),
        sessions::check(&model),
        flow::check(events),
        protocol::check(events),
    ];
    if rules.replicas > 0 {
        checks.push(digests::check(&model, rules));
    }
    if !requests.records.is_empty() {
        checks.extend([records::check(&requests), versions::check(&requests)]);
    }
    if !requests.mails.is_empty() {
        checks.push(mailbox::check(&requests));
        checks.extend(queueing::check(&requests));
        checks.extend([conservation::check(&requests), revocation::check(&requests)]);
    }
    checks.extend(shares::check(events, rules));
    checks.extend(wills::check(events, rules));
    checks.extend(retained::check(events));
    checks.extend(churn::check(events));
    checks.extend(audit::check(events, &requests));
    checks.extend(inventory::check(events));
    checks.extend(minority::check(events, &requests));
    checks.extend(usage::check(events));
    checks.extend(accounts::check(events));
    if let Some(wanted) = wanted {
        checks.extend([served::check(events, wanted.nodes), terms::check(events)]);
        checks.extend([logs::check(events), coverage::check(events, wanted, &requests.problems)]);
    }
    let counts = count(&model);
    checks.push(enough::check(&model, &counts, rules));
    Verdict::of(checks, counts)
}

fn count(model: &Model) -> Counts {
    let mut counts = Counts::default();
    let mut seen = BTreeSet::new();
    for client in model.clients.values() {
        let mut mine = BTreeSet::new();
        for message in client.deliveries.iter().filter_map(|delivery| delivery.message) {
            counts.delivered += 1;
            counts.duplicates += u64::from(!mine.insert(message));
        }
        seen.append(&mut mine);
        if !client.filters.is_empty() {
            counts.interruptions += (client.connections.len() as u64).saturating_sub(1);
        }
    }
    for (message, published) in &model.published {
        let is = |answer| published.attempts.iter().filter(|one| one.answer == answer).count();
        counts.messages += 1;
        counts.attempts += published.attempts.len() as u64;
        counts.unknown += is(Answer::Unknown) as u64;
        counts.acked += u64::from(published.acked());
        counts.refused += u64::from(is(Answer::Refused) == published.attempts.len());
        counts.recovered += u64::from(!published.acked() && seen.contains(message));
    }
    counts.faults = enough::installed(model);
    counts
}

/// A checker with the given name; its detail is filled in at the end.
fn named(name: &str) -> Check {
    Check::new(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use crate::history::{Fault, Phase, Stage};
    use crate::planted::Story;

    /// Retries, interruptions, redeliveries and a fault, all as they should be.
    fn busy() -> Story {
        let mut story = Story::with_clients();
        story.acked(1, 1).taken(2, 1);
        story.publish(Phase::Invoke, 1, 2).deliver(2, 2).fault(Fault::Kill, 1);
        story.publish(Phase::Info, 1, 2).leave("p0", 1).leave("s0", 2);
        story.connect("p0", 3, 2).connect("s0", 4, 3);
        story.acked(3, 2).acked(3, 3).taken(4, 2).taken(4, 3);
        story.digest(1, 9, "aa").digest(2, 9, "aa").digest(3, 9, "aa");
        story.mark(Stage::Draining).mark(Stage::Drained);
        story
    }

    #[test]
    fn a_history_without_violations_passes() {
        let rules = Rules { acked_min: 3, ..Rules::default() };
        let rules = Rules { unknown_permille_max: 500, ..rules };
        let verdict = judge(&busy().events, &rules);
        assert_eq!(verdict.outcome, Outcome::Pass, "{verdict}");
        assert_eq!(verdict.checks.len(), 10);
        let counts = verdict.counts;
        assert_eq!((counts.messages, counts.attempts, counts.acked), (3, 4, 3));
        assert_eq!((counts.unknown, counts.delivered, counts.duplicates), (1, 4, 1));
        assert_eq!((counts.interruptions, counts.faults), (1, 1));
    }

    #[test]
    fn a_verdict_depends_on_the_history_alone() {
        let rules = Rules::default();
        assert_eq!(judge(&busy().events, &rules).json(), judge(&busy().events, &rules).json());
    }
}
