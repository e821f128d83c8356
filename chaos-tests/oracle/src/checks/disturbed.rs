//! When nodes were not themselves, and when groups got other leaders: what explains a copy too many, or a wait.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, Op, Phase};

/// A client may notice the end of a connection so much later than the cluster does: it waits for an answer for two seconds.
pub(crate) const NOTICE_NS: u64 = 4_000_000_000;
/// Who leads is looked at this often, and leaders change a while before they are seen to have.
const LEADS_NS: u64 = 3_000_000_000;

/// A node that was struck: from when, until when it was ready again.
#[derive(Debug, Clone, Copy)]
struct Struck {
    node: Option<u32>,
    from_ns: u64,
    until_ns: u64,
}

/// All that disturbed a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Disturbed {
    struck: Vec<Struck>,
    /// When a group was seen to have another leader.
    led_ns: Vec<u64>,
}

impl Disturbed {
    /// In a history.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut all = Self::default();
        let (mut open, mut shards) = (BTreeMap::new(), BTreeSet::new());
        for event in events.iter().filter(|event| event.ph != Phase::Fail) {
            if let Op::Leads { shard, .. } = event.op {
                // The first leader of a group disturbs nobody.
                if !shards.insert(shard) {
                    all.led_ns.push(event.ns);
                }
            }
            let Op::Fault { fault, .. } = event.op else { continue };
            if fault.strikes() {
                open.entry(event.node).or_insert_with(|| {
                    let until_ns = u64::MAX;
                    all.struck.push(Struck { node: event.node, from_ns: event.ns, until_ns });
                    all.struck.len() - 1
                });
            } else if fault.ends()
                && let Some(at) = open.remove(&event.node)
            {
                all.struck[at].until_ns = event.ns;
            }
        }
        all
    }

    /// Whether anything was amiss between two moments; leaders count for a while before they were seen.
    pub(crate) fn within(&self, from_ns: u64, until_ns: u64) -> bool {
        let led = |ns: &u64| (from_ns..=until_ns.saturating_add(LEADS_NS)).contains(ns);
        self.led_ns.iter().any(led)
            || self.struck.iter().any(|one| one.from_ns <= until_ns && one.until_ns >= from_ns)
    }

    /// Whether this node was struck between two moments.
    pub(crate) fn node(&self, node: Option<u32>, from_ns: u64, until_ns: u64) -> bool {
        let here = self.struck.iter().filter(|one| one.node == node || one.node.is_none());
        let mut here = here;
        here.any(|one| one.from_ns <= until_ns && one.until_ns >= from_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fault;
    use crate::planted::{MS, Story};

    #[test]
    fn a_node_is_struck_until_it_is_ready_and_others_are_not() {
        let mut story = Story::new();
        story.wait(10_000).fault(Fault::Kill, 1).wait(1_000).fault(Fault::Restart, 1);
        story.wait(1_000).fault(Fault::Ready, 1).wait(10_000).fault(Fault::Pause, 2);
        let disturbed = Disturbed::of(&story.events);
        let at = |ms: u64| ms * MS;
        assert!(!disturbed.within(0, at(9_000)) && disturbed.within(at(11_000), at(11_001)));
        assert!(
            !disturbed.within(at(13_000), at(20_000)) && disturbed.within(at(90_000), u64::MAX)
        );
        assert!(disturbed.node(Some(1), 0, at(90_000)) && !disturbed.node(Some(3), 0, at(90_000)));
        assert!(!disturbed.node(Some(2), 0, at(20_000)));
    }

    #[test]
    fn another_leader_disturbs_and_the_first_does_not() {
        let mut story = Story::new();
        let leads = |leader| Op::Leads { shard: 1, leader, term: 1 };
        story.push("watch", Phase::Ok, Some(1), leads(1)).wait(20_000);
        assert!(!Disturbed::of(&story.events).within(0, u64::MAX));
        story.push("watch", Phase::Ok, Some(1), leads(2));
        assert!(Disturbed::of(&story.events).within(0, u64::MAX));
        assert!(!Disturbed::of(&story.events).within(0, 10_000 * MS));
    }
}
