//! Groups that change: the steps of a move, taken as the node above takes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Duration,
};

use moorline_core::{NodeId, ShardId};
use moorline_group::GroupsConfig;
use moorline_machine::placement::{Next, next_step};

use super::{Cluster, DEADLINE, Node, Producer, within};

pub const SHARD: ShardId = ShardId(1);
/// Between two looks at who is in a group.
pub const LOOK: Duration = Duration::from_millis(20);

/// `nodes` connected nodes, of which the first `voters` have the group. They keep next to no log.
pub fn cluster(nodes: u64, voters: u64) -> (Cluster, Vec<Node>) {
    cluster_with(nodes, voters, |config| config.checkpoint.keep_entries = 10)
}

/// The same, configured in another way.
pub fn cluster_with(
    nodes: u64,
    voters: u64,
    configure: fn(&mut GroupsConfig),
) -> (Cluster, Vec<Node>) {
    let mut cluster = Cluster::new(nodes);
    cluster.configure = configure;
    let running: Vec<Node> = (1..=nodes).map(|node| cluster.start(NodeId(node))).collect();
    let all = cluster.voters();
    let voters: BTreeMap<NodeId, String> =
        all.into_iter().filter(|(node, _)| node.0 <= voters).collect();
    for node in running.iter().filter(|node| voters.contains_key(&node.id())) {
        node.open(SHARD).unwrap();
    }
    running[0].on(running[0].groups().initialize(SHARD, voters)).unwrap();
    (cluster, running)
}

pub fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Takes step after step, on whoever leads, until the group is where it should be; publishes meanwhile.
pub fn move_to(cluster: &Cluster, nodes: &[Node], producer: &mut Producer, voters: &[u64]) {
    let (voters, addresses) = (ids(voters), cluster.voters());
    within(DEADLINE, "the target", || {
        producer.publish(nodes, SHARD, 3);
        let (leader, members) =
            nodes.iter().find_map(|node| Some((node, node.groups().members(SHARD)?)))?;
        let next = next_step(&members, &voters, &BTreeSet::new());
        let address = match &next {
            Next::Done => return Some(()),
            Next::Learn(node) => addresses[node].clone(),
            Next::Wait | Next::Vote(_) | Next::HandOver(_) | Next::Forget(_) => String::new(),
        };
        if let Err(error) = leader.on(leader.groups().take_step(SHARD, &next, address)) {
            println!("{next:?}: {error}");
        }
        sleep(LOOK);
        None
    });
}

pub fn of(nodes: &[Node], id: u64) -> &Node {
    nodes.iter().find(|node| node.id() == NodeId(id)).unwrap()
}

/// Waits until these replicas have applied the same rows.
pub fn same_rows(nodes: &[Node], of_nodes: &[u64]) {
    within(DEADLINE, "the same rows", || {
        let mut digests =
            of_nodes.iter().map(|id| of(nodes, *id).digest(SHARD)).collect::<Option<Vec<_>>>()?;
        digests.dedup();
        (digests.len() == 1).then_some(())
    });
}

pub fn voters(node: &Node) -> BTreeSet<NodeId> {
    let status = node.groups().status();
    status[0].voters.iter().copied().collect()
}
