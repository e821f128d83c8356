//! What the cluster survives right now, in words: a function of what one node sees ([`ClusterView`]).
//!
//! `GET /api/v1/guarantees` answers it, and `moorline cluster status` prints it. What an acknowledgement means is in
//! `docs/guarantees.md` and does not depend on who is up: with fewer nodes less is accepted, and no less is promised.
//!
//! # Invariants
//!
//! - **As good as the least lucky group.** [`Guarantees::survives`] is the least of all groups here.
//! - **A voter that is known to have to catch up is no copy**: it counts as one that is not there, and never says that a group stopped.
//!   Only the group's leader knows: the least that all nodes say is what the cluster survives.
//! - **No group is left out**: each is in exactly one sentence about what it survives.
//!
//! Checked by this file's tests.
//!
//! # Deliberately absent
//!
//! Groups without a replica on the node that is asked: it does not know how they are, and says so.

mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use moorline_core::NodeId;
use moorline_machine::MemberState;
use serde::Serialize;

pub(crate) use self::way::too_few;
use crate::cluster::{ClusterView, GroupView, NodeView};

/// Who lacks more entries than this of a group has to catch up before the group can go on with it. The same number lets
/// a learner become a voter.
const LAG_MAX: u64 = 1_000;

/// What `GET /api/v1/guarantees` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Guarantees {
    /// The node whose view it is.
    pub(crate) node: u64,
    /// How many more nodes may be lost before the first group stops; negative if one has stopped. Nothing before there
    /// is a cluster.
    pub(crate) survives: Option<i64>,
    /// The same in words: what is worst comes first.
    pub(crate) sentences: Vec<String>,
    /// Each group with a replica on that node.
    pub(crate) groups: Vec<GroupGuarantee>,
}

/// What one group survives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GroupGuarantee {
    /// The shard; 0 is the meta group.
    pub(crate) shard: u16,
    /// How many nodes have its data and a vote.
    pub(crate) voters: usize,
    /// How many of them may be lost before it stops; negative if it has. Whom it would wait for is counted as lost.
    pub(crate) survives: i64,
    /// Whether somebody is known to lead it.
    pub(crate) led: bool,
    /// The voters that do not answer.
    pub(crate) down: Vec<u64>,
    /// How many entries voters lack that have to catch up first. Only its leader knows.
    pub(crate) behind: BTreeMap<u64, u64>,
}

/// What the node of this view can say.
pub(crate) fn of(view: &ClusterView) -> Guarantees {
    let up: BTreeSet<u64> =
        view.nodes.iter().filter(|node| node.alive).map(|node| node.id).collect();
    let begun = view.groups.iter().filter(|group| !group.voters.is_empty());
    let groups: Vec<_> = begun.map(|group| of_group(group, &up)).collect();
    let none = view.cluster.is_empty() || groups.is_empty();
    let survives = groups.iter().map(|group| group.survives).min().filter(|_| !none);
    let sentences = said(view, &groups).into_iter().map(|(_, sentence)| sentence).collect();
    Guarantees { node: view.node, survives, sentences, groups }
}

/// What to do about groups here that have no majority, if there are any, with which they are.
pub(crate) fn lost(view: &ClusterView) -> Option<String> {
    let groups = of(view).groups;
    let said = said(view, &groups);
    let lost: Vec<String> = said
        .into_iter()
        .filter(|(about, _)| *about == About::Lost)
        .map(|(_, sentence)| sentence)
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "{} Mend the network if they run: node {} does not reach them. Start those nodes if they do not; everything goes on \
             by itself then, and with their disks nothing that was acknowledged is lost",
            lost.join(" "),
            view.node
        )
    })
}

/// What a sentence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// There is nothing to speak of.
    NoCluster,
    /// Groups without a majority.
    Lost,
    /// Groups with one voter by design.
    OneCopy,
    /// Groups that survive the loss of no node.
    Thin,
    /// Groups that survive at least one loss.
    Fine,
    /// Groups that elect.
    Leaderless,
    /// Voters that lack entries.
    Lag,
    /// What is on its way.
    Way,
    /// What the node that is asked can't speak of.
    Scope,
}

/// The sentences, with what each is about.
pub(crate) fn said(view: &ClusterView, groups: &[GroupGuarantee]) -> Vec<(About, String)> {
    if view.cluster.is_empty() || groups.is_empty() {
        let sentence = "There is no cluster yet: nothing is promised.".to_owned();
        return vec![(About::NoCluster, sentence)];
    }
    let about = |about: About| move |sentence: String| (about, sentence);
    let mut said = survival(groups);
    said.extend(leaderless(groups).map(about(About::Leaderless)));
    said.extend(lag(groups).into_iter().map(about(About::Lag)));
    said.extend(way::sentences(view).into_iter().map(about(About::Way)));
    said.extend(scope(view).map(about(About::Scope)));
    said
}

fn of_group(group: &GroupView, up: &BTreeSet<u64>) -> GroupGuarantee {
    let down: Vec<u64> = group.voters.iter().filter(|node| !up.contains(*node)).copied().collect();
    let lacks = |confirmed: u64| group.last_log.saturating_sub(confirmed);
    let voters = group.confirmed.iter().filter(|(node, _)| group.voters.contains(node));
    let behind = voters.map(|(node, confirmed)| (*node, lacks(*confirmed)));
    let behind: BTreeMap<u64, u64> =
        behind.filter(|(node, lacks)| *lacks > LAG_MAX && !down.contains(node)).collect();
    let answer = spare(group.voters.len(), down.len());
    // Who has to catch up votes, and is no copy that another one's loss leaves.
    let current = spare(group.voters.len(), down.len() + behind.len());
    GroupGuarantee {
        shard: group.shard,
        voters: group.voters.len(),
        survives: answer.min(current.max(0)),
        led: group.leader.is_some(),
        behind,
        down,
    }
}

/// How many more of so many voters may be lost; negative if more are than may.
fn spare(voters: usize, lost: usize) -> i64 {
    (voters - lost) as i64 - (voters / 2 + 1) as i64
}

impl GroupGuarantee {
    /// The voters for which it survives less than it would with them: those that have to catch up.
    fn waits_for(&self) -> Vec<u64> {
        let lessens = self.survives < spare(self.voters, self.down.len());
        self.behind.keys().filter(|_| lessens).copied().collect()
    }
}

/// Nodes of the cluster that were not removed, whether they answer or not; none before there is a cluster.
pub(crate) fn members(view: &ClusterView) -> usize {
    let stays = |node: &&NodeView| node.state != MemberState::Removed.name();
    if view.cluster.is_empty() { 0 } else { view.nodes.iter().filter(stays).count() }
}

/// Groups of which fewer voters are up than a majority, wherever they are: also those without a replica on this node.
pub(crate) fn without_majority<'a>(
    groups: impl Iterator<Item = &'a [NodeId]>,
    alive: &BTreeMap<NodeId, bool>,
) -> usize {
    let is_down = |node: &&NodeId| !alive.get(node).copied().unwrap_or(false);
    let begun = groups.filter(|voters| !voters.is_empty());
    begun.filter(|voters| spare(voters.len(), voters.iter().filter(is_down).count()) < 0).count()
}

/// What groups are told together by: how much they survive, how many voters, which of them are down, whom they wait for.
type Alike<'a> = (i64, usize, &'a [u64], Vec<u64>);

/// A sentence for the groups that are alike, those that survive least first.
fn survival(groups: &[GroupGuarantee]) -> Vec<(About, String)> {
    let mut alike: BTreeMap<Alike<'_>, Vec<u16>> = BTreeMap::new();
    for group in groups {
        let key = (group.survives, group.voters, &group.down[..], group.waits_for());
        alike.entry(key).or_default().push(group.shard);
    }
    let said = alike.into_iter().map(|((survives, voters, down, waits), shards)| {
        let who = Subject::of(&shards, groups.len());
        let absent = absent(down, &waits);
        if survives < 0 {
            let missing = counted(-survives, "more node answers", "more nodes answer");
            let (has, accepts) = (who.verb("has", "have"), who.verb("It accepts", "They accept"));
            let there = voters - down.len();
            let sentence = format!(
                "{who} {has} no majority, {there} of {voters} votes: {absent}. {accepts} nothing until {missing}."
            );
            return (About::Lost, sentence);
        }
        if voters == 1 {
            let (has, it) = (who.verb("has", "have"), who.verb("it", "they"));
            let sentence =
                format!("{who} {has} one copy: what {it} acknowledged is gone with its disk.");
            return (About::OneCopy, sentence);
        }
        let survive = who.verb("survives", "survive");
        match (survives, &*absent) {
            (0, "") => (
                About::Thin,
                format!("{who} {survive} the loss of no node: only {voters} have a vote."),
            ),
            (0, _) => (About::Thin, format!("{who} {survive} the loss of no node: {absent}.")),
            (_, "") => {
                let nodes = counted(survives, "node", "nodes");
                (About::Fine, format!("{who} {survive} the loss of {nodes}."))
            }
            (_, _) => {
                let more = counted(survives, "more node", "more nodes");
                (About::Fine, format!("{who} {survive} the loss of {more}: {absent}."))
            }
        }
    });
    said.collect()
}

/// Groups that have a majority and are electing.
fn leaderless(groups: &[GroupGuarantee]) -> Option<String> {
    let waiting = groups.iter().filter(|group| !group.led && group.survives >= 0);
    let shards: Vec<u16> = waiting.map(|group| group.shard).collect();
    let who = Subject::of(&shards, groups.len());
    (!shards.is_empty()).then(|| format!("{who} {} no leader at present.", who.verb("has", "have")))
}

/// Voters that are there and lack so much that a group would wait for them.
fn lag(groups: &[GroupGuarantee]) -> Vec<String> {
    let mut nodes: BTreeMap<u64, (u64, Vec<u16>)> = BTreeMap::new();
    for group in groups {
        for (node, lacks) in &group.behind {
            let (most, shards) = nodes.entry(*node).or_default();
            *most = (*most).max(*lacks);
            shards.push(group.shard);
        }
    }
    let said = nodes.into_iter().map(|(node, (most, shards))| {
        let who = Subject::of(&shards, groups.len());
        let (waits, up_to) = (who.verb("waits", "wait"), if shards.len() > 1 { "up to " } else { "" });
        format!("{who} {waits} for node {node} if another voter is lost: it lacks {up_to}{most} entries.")
    });
    said.collect()
}

/// Whether there may be groups that this node cannot speak of.
fn scope(view: &ClusterView) -> Option<String> {
    let mut active = view.nodes.iter().filter(|node| node.state == "active");
    let elsewhere =
        active.any(|node| !view.groups.iter().all(|group| group.voters.contains(&node.id)));
    elsewhere.then(|| format!("Node {} speaks of the groups that have a replica there.", view.node))
}

/// Groups as the subject of a sentence.
struct Subject {
    words: String,
    several: bool,
}

impl Subject {
    fn of(shards: &[u16], all: usize) -> Self {
        let numbers: Vec<String> =
            shards.iter().filter(|shard| **shard != 0).map(u16::to_string).collect();
        let named = match numbers.len() {
            0 => None,
            1 => Some(format!("shard {}", numbers[0])),
            _ => Some(format!("shards {}", listed(&numbers))),
        };
        let words = match (shards.contains(&0), named) {
            (true, _) if shards.len() == all && all > 1 => "Each shard".to_owned(),
            (true, None) => "The meta group".to_owned(),
            (true, Some(named)) => format!("The meta group and {named}"),
            (false, named) => named.unwrap_or_default().replacen('s', "S", 1),
        };
        Self { several: shards.len() > 1 && words != "Each shard", words }
    }

    fn verb(&self, one: &'static str, several: &'static str) -> &'static str {
        if self.several { several } else { one }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

fn are_down(nodes: &[u64]) -> String {
    let numbers: Vec<String> = nodes.iter().map(u64::to_string).collect();
    let (nodes, are) = if nodes.len() == 1 { ("node", "is") } else { ("nodes", "are") };
    format!("{nodes} {} {are} down", listed(&numbers))
}

/// Why fewer count than vote; nothing if all do.
fn absent(down: &[u64], waits: &[u64]) -> String {
    let numbers: Vec<String> = waits.iter().map(u64::to_string).collect();
    let (nodes, has) = if waits.len() == 1 { ("node", "has") } else { ("nodes", "have") };
    let catches_up = format!("{nodes} {} {has} to catch up", listed(&numbers));
    match (down, waits) {
        ([], []) => String::new(),
        (_, []) => are_down(down),
        ([], _) => catches_up,
        (_, _) => format!("{}, and {catches_up}", are_down(down)),
    }
}

fn counted(count: i64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// `1, 2 and 3`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes 1 to `nodes` without those that are down; a group for each list of voters, the meta group first, led by
    /// its first voter.
    pub(super) fn view(nodes: u64, down: &[u64], groups: &[&[u64]]) -> ClusterView {
        let node = |id| NodeView {
            id,
            address: format!("10.0.0.{id}:7400"),
            alive: !down.contains(&id),
            state: "active".to_owned(),
            program: None,
        };
        let group = |(shard, voters): (u16, &&[u64])| GroupView {
            shard,
            leader: voters.first().copied(),
            term: 1,
            last_log: 10_000,
            committed: 10_000,
            applied: 10_000,
            voters: voters.to_vec(),
            learners: Vec::new(),
            target: Vec::new(),
            confirmed: BTreeMap::new(),
            digest_index: None,
            digest: None,
        };
        ClusterView {
            node: 1,
            clock_ms: 0,
            name: "test".to_owned(),
            cluster: "c1".to_owned(),
            shards: 3,
            replicas: 0,
            level: 2,
            next_level: None,
            ready: true,
            waiting_for: Vec::new(),
            nodes: (1..=nodes).map(node).collect(),
            groups: (0..).zip(groups).map(group).collect(),
        }
    }

    pub(super) const ALL: &[u64] = &[1, 2, 3];
    pub(super) const FIVE: &[u64] = &[1, 2, 3, 4, 5];

    #[test]
    fn what_is_survived_is_said() {
        #[rustfmt::skip]
        let table: [(ClusterView, i64, &[&str]); 11] = [
            (view(3, &[], &[ALL, ALL, ALL]), 1,
                &["Each shard survives the loss of 1 node."]),
            (view(3, &[2], &[ALL, ALL, ALL]), 0,
                &["Each shard survives the loss of no node: node 2 is down."]),
            (view(3, &[2, 3], &[ALL, ALL, ALL]), -1,
                &["Each shard has no majority, 1 of 3 votes: nodes 2 and 3 are down. It accepts nothing until 1 more node answers."]),
            (view(5, &[], &[FIVE, FIVE]), 2,
                &["Each shard survives the loss of 2 nodes."]),
            (view(5, &[4], &[FIVE, FIVE]), 1,
                &["Each shard survives the loss of 1 more node: node 4 is down."]),
            (view(5, &[2, 3, 4, 5], &[FIVE, FIVE]), -2,
                &["Each shard has no majority, 1 of 5 votes: nodes 2, 3, 4 and 5 are down. It accepts nothing until 2 more nodes answer."]),
            (view(1, &[], &[&[1], &[1]]), 0,
                &["Each shard has one copy: what it acknowledged is gone with its disk."]),
            (view(1, &[], &[&[1]]), 0,
                &["The meta group has one copy: what it acknowledged is gone with its disk."]),
            (view(3, &[], &[ALL, &[1, 2], ALL]), 0,
                &["Shard 1 survives the loss of no node: only 2 have a vote.",
                  "The meta group and shard 2 survive the loss of 1 node.",
                  "Node 1 speaks of the groups that have a replica there."]),
            (view(4, &[4], &[ALL, &[1, 2, 4], &[1, 3, 4], ALL]), 0,
                &["Shards 1 and 2 survive the loss of no node: node 4 is down.",
                  "The meta group and shard 3 survive the loss of 1 node.",
                  "Node 1 speaks of the groups that have a replica there."]),
            (view(5, &[4, 5], &[ALL, &[1, 4, 5], &[1, 2, 5]]), -1,
                &["Shard 1 has no majority, 1 of 3 votes: nodes 4 and 5 are down. It accepts nothing until 1 more node answers.",
                  "Shard 2 survives the loss of no node: node 5 is down.",
                  "The meta group survives the loss of 1 node.",
                  "Node 1 speaks of the groups that have a replica there."]),
        ];
        for (view, survives, sentences) in table {
            let said = of(&view);
            assert_eq!(said.sentences, sentences);
            assert_eq!(said.survives, Some(survives), "{sentences:?}");
        }
    }

    #[test]
    fn before_there_is_a_cluster_nothing_is_promised() {
        let mut view = view(3, &[], &[&[]]);
        view.cluster = String::new();
        let said = of(&view);
        assert_eq!(said.survives, None);
        assert_eq!(said.sentences, ["There is no cluster yet: nothing is promised."]);
    }

    #[test]
    fn a_replica_that_was_just_opened_says_nothing_of_what_is_lost() {
        // Its group has no voters until its first entries are there.
        assert_eq!(of(&view(4, &[], &[ALL, &[], ALL])).survives, Some(1));
        assert_eq!(of(&view(1, &[], &[&[]])).survives, None);
    }

    #[test]
    fn members_are_counted_whether_they_answer_or_not() {
        let mut view = view(4, &[3], &[ALL]);
        view.nodes[3].state = "removed".to_owned();
        assert_eq!(members(&view), 3);
        view.cluster = String::new();
        assert_eq!(members(&view), 0);
    }

    #[test]
    fn groups_elsewhere_are_looked_after() {
        let groups: [&[NodeId]; 3] = [
            &[NodeId(1), NodeId(2), NodeId(3)],
            &[NodeId(4), NodeId(5), NodeId(6)],
            &[NodeId(3), NodeId(4), NodeId(5)],
        ];
        let alive = |up: &[u64]| (1..=6).map(|node| (NodeId(node), up.contains(&node))).collect();
        for (up, expected) in
            [(&[1, 2, 3, 4, 5][..], 0), (&[1, 2, 3, 4][..], 1), (&[1, 2, 3][..], 2)]
        {
            assert_eq!(without_majority(groups.into_iter(), &alive(up)), expected, "{up:?}");
        }
    }

    #[test]
    fn a_voter_that_has_to_catch_up_is_no_copy_and_does_not_say_that_a_group_stopped() {
        let mut view = view(3, &[], &[ALL, ALL]);
        view.groups[1].confirmed = BTreeMap::from([(2, 10_000), (3, 0)]);
        let said = of(&view);
        let expected = [
            "Shard 1 survives the loss of no node: node 3 has to catch up.",
            "The meta group survives the loss of 1 node.",
            "Shard 1 waits for node 3 if another voter is lost: it lacks 10000 entries.",
        ];
        assert_eq!(
            (said.survives, &said.sentences[..]),
            (Some(0), &expected.map(str::to_owned)[..])
        );
        view.groups[1].confirmed = BTreeMap::from([(2, 0), (3, 0)]);
        assert_eq!(of(&view).survives, Some(0), "it has a majority of votes");
    }

    #[test]
    fn an_election_is_said_and_a_group_without_a_majority_does_not_elect() {
        let mut electing = view(4, &[4], &[ALL, ALL, &[1, 2, 4]]);
        electing.groups[1].leader = None;
        let said = of(&electing).sentences;
        assert!(said.contains(&"Shard 1 has no leader at present.".to_owned()), "{said:?}");
        let mut stuck = view(3, &[2, 3], &[ALL, ALL]);
        stuck.groups[1].leader = None;
        assert_eq!(of(&stuck).sentences.len(), 1);
    }

    #[test]
    fn a_voter_that_lacks_much_is_named_and_one_that_is_down_is_not_named_twice() {
        let mut view = view(3, &[3], &[ALL, ALL, ALL]);
        let confirmed = |two| BTreeMap::from([(2, two), (3, 0)]);
        for (group, two) in view.groups.iter_mut().zip([10_000, 9_000, 8_999]) {
            group.confirmed = confirmed(two);
        }
        let said = of(&view);
        let expected = [
            "Each shard survives the loss of no node: node 3 is down.",
            "Shard 2 waits for node 2 if another voter is lost: it lacks 1001 entries.",
        ];
        assert_eq!(said.sentences, expected);
        assert_eq!(said.groups[2].behind, BTreeMap::from([(2, 1_001)]));

        view.groups[1].confirmed = confirmed(0);
        let said = of(&view).sentences;
        let last = "Shards 1 and 2 wait for node 2 if another voter is lost: it lacks up to 10000 entries.";
        assert_eq!(said.last().map(String::as_str), Some(last));
    }
}
