//! Three replicas in one process, over the real wire and real RocksDB: what is acknowledged stays, whoever dies.
#![allow(clippy::unwrap_used)]

mod rig;

use std::time::{Duration, Instant};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use moorline_group::{Confirmation, GroupError, ProposeError};
use rig::{Cluster, DEADLINE, Node, Producer, run, within};

const SHARD: ShardId = ShardId(1);

/// A cluster with one group, initialised, and its leader.
fn cluster(nodes: u64) -> (Cluster, Vec<Node>) {
    let mut cluster = Cluster::new(nodes);
    cluster.configure = |config| config.checkpoint.keep_entries = 10;
    let running: Vec<Node> = (1..=nodes).map(|node| cluster.start(NodeId(node))).collect();
    for node in &running {
        node.open(SHARD).unwrap();
    }
    running[0].initialize(SHARD, &cluster).unwrap();
    (cluster, running)
}

fn leader(nodes: &[Node]) -> usize {
    within(DEADLINE, "a leader", || nodes.iter().position(|node| node.role(SHARD).leading))
}

/// Waits until all replicas have applied the same, and compares their rows.
fn same_rows(nodes: &[Node]) -> u128 {
    let digests = within(DEADLINE, "all replicas at the same index", || {
        let mut digests =
            nodes.iter().map(|node| node.digest(SHARD)).collect::<Option<Vec<_>>>()?;
        digests.dedup();
        (digests.len() == 1).then_some(digests)
    });
    digests[0].1
}

#[test]
fn a_lone_node_applies_and_answers_in_order() {
    let (_cluster, nodes) = cluster(1);
    leader(&nodes);
    let mut producer = Producer::new(1);
    for _ in 0..100 {
        producer.publish(&nodes, SHARD, 3);
    }
    assert_eq!(producer.answered(), 300);
    let status = &nodes[0].groups().status()[0];
    assert_eq!((status.applied, status.voters.clone()), (status.committed, vec![NodeId(1)]));
    assert!(nodes[0].effects() > 0, "the sink saw nothing");
}

#[test]
fn a_crash_loses_the_overlay_and_no_answer() {
    let (cluster, mut nodes) = cluster(1);
    leader(&nodes);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 50);
    nodes[0].checkpoint();
    producer.publish(&nodes, SHARD, 50);
    let before = nodes[0].digest(SHARD).unwrap();

    nodes.remove(0).kill();
    let node = cluster.start(NodeId(1));
    node.open(SHARD).unwrap();
    assert!(node.wait_ready(SHARD), "a lone node recovers by itself");
    nodes.push(node);
    leader(&nodes);
    let after = nodes[0].digest(SHARD).unwrap();
    assert!(after.0 > before.0, "the new leader's own entry");
    assert_eq!(after.1, before.1, "the same rows");
    producer.publish(&nodes, SHARD, 1);
}

#[test]
fn followers_refuse_and_say_who_leads() {
    let (_cluster, nodes) = cluster(3);
    let leader = leader(&nodes);
    let follower = (leader + 1) % 3;
    within(DEADLINE, "the follower knows its leader", || {
        nodes[follower].role(SHARD).leader.filter(|known| known.0 == leader as u64 + 1)
    });
    let one = run(1, 1, 1, &Bytes::new());
    let refused = nodes[follower].propose(SHARD, one.clone());
    let leader = Some(NodeId(leader as u64 + 1));
    assert_eq!(refused, Err(ProposeError::NotLeader { leader }));
    assert_eq!(nodes[follower].propose(ShardId(7), one), Err(ProposeError::NoGroup));
}

#[test]
fn three_replicas_hold_the_same_rows() {
    let (_cluster, nodes) = cluster(3);
    let leader = leader(&nodes);
    let mut producer = Producer::new(1);
    for _ in 0..50 {
        producer.publish(&nodes, SHARD, 10);
    }
    same_rows(&nodes);
    let index = nodes[leader].barrier(SHARD).unwrap();
    assert!(index >= 50, "the barrier covers what was answered");
    let follower = (leader + 1) % 3;
    assert!(nodes[follower].barrier(SHARD).is_err(), "a follower promises nothing");
}

#[test]
fn a_followers_vote_is_a_majority_with_its_leaders_own() {
    let (_cluster, nodes) = cluster(3);
    let led = leader(&nodes);
    // For whom a follower votes, when it is somebody else than that.
    let vote_of = |node: usize, not: Option<NodeId>| {
        within(DEADLINE, "a follower's vote", || {
            let said = nodes[node].groups().confirmation(SHARD)?;
            (Some(said.leader) != not && said.leader != nodes[node].id()).then_some(said)
        })
    };
    let confirmed = |node: usize, from: usize, said| {
        nodes[node].groups().is_confirmed(SHARD, nodes[from].id(), said)
    };
    let (second, third) = ((led + 1) % 3, (led + 2) % 3);
    let said = vote_of(second, None);
    assert_eq!(said.leader, nodes[led].id());
    within(DEADLINE, "the leader is confirmed", || confirmed(led, second, said).then_some(()));
    assert!(!confirmed(led, led, said), "one is no majority");
    assert!(!confirmed(second, third, said), "it does not lead");
    assert!(!confirmed(led, second, Confirmation { term: said.term + 1, ..said }));
    assert!(!confirmed(led, second, Confirmation { term: said.term - 1, ..said }));
    assert!(!confirmed(led, second, Confirmation { leader: nodes[second].id(), ..said }));

    nodes[led].hand_over(DEADLINE);
    let next = within(DEADLINE, "another leads", || {
        nodes.iter().position(|node| node.role(SHARD).leading && node.id() != nodes[led].id())
    });
    let now = vote_of(led, Some(nodes[led].id()));
    assert!(now.term > said.term);
    assert!(confirmed(next, led, now));
    let other = 3 - led - next;
    for said in [said, now] {
        assert!(!confirmed(led, other, said), "it led once");
    }
    assert!(!confirmed(next, other, said), "of an earlier term");
}

#[test]
fn another_leads_soon_after_the_leader_dies_and_nothing_answered_is_missing() {
    let (cluster, mut nodes) = cluster(3);
    let mut producer = Producer::new(1);
    for round in 0..3 {
        let led = leader(&nodes);
        producer.publish(&nodes, SHARD, 20);
        let dead = nodes.remove(led);
        let id = dead.id();
        let died = Instant::now();
        let killed = std::thread::spawn(move || dead.kill());
        leader(&nodes);
        let took = died.elapsed();
        println!("round {round}: another node leads after {took:?}");
        assert!(took < Duration::from_millis(700), "the timers had to decide: {took:?}");
        killed.join().unwrap();
        producer.publish(&nodes, SHARD, 20);
        let back = cluster.start(id);
        back.open(SHARD).unwrap();
        nodes.push(back);
        same_rows(&nodes);
    }
    assert_eq!(producer.answered(), 120);
}

#[test]
fn a_follower_that_the_log_no_longer_reaches_gets_a_snapshot() {
    let (cluster, mut nodes) = cluster(3);
    let led = leader(&nodes);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 10);
    let lagging = (led + 1) % 3;
    let id = nodes[lagging].id();
    nodes.remove(lagging).kill();
    leader(&nodes);
    // Enough entries that the purge is worth it: the cluster of this test keeps 10.
    for _ in 0..1200 {
        producer.publish(&nodes, SHARD, 1);
    }
    for node in &nodes {
        within(DEADLINE, "a purge", || {
            node.checkpoint();
            let status = &node.groups().status()[0];
            (status.purged > Some(1000)).then_some(())
        });
    }
    let back = cluster.start(id);
    back.open(SHARD).unwrap();
    nodes.push(back);
    let digest = same_rows(&nodes);
    leader(&nodes);
    producer.publish(&nodes, SHARD, 10);
    assert_ne!(same_rows(&nodes), digest);

    // And what was installed is there after a restart too.
    let last = nodes.len() - 1;
    nodes.remove(last).kill();
    let back = cluster.start(id);
    back.open(SHARD).unwrap();
    nodes.push(back);
    same_rows(&nodes);
}

#[test]
fn a_stopping_leader_hands_over_without_a_gap() {
    let (_cluster, mut nodes) = cluster(3);
    let led = leader(&nodes);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 10);
    let stopping = nodes.remove(led);
    let began = Instant::now();
    stopping.hand_over(Duration::from_secs(2));
    leader(&nodes);
    println!("another node leads after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(700), "the timers had to decide");
    producer.publish(&nodes, SHARD, 10);
    stopping.stop();
    producer.publish(&nodes, SHARD, 10);
    same_rows(&nodes);
}

#[test]
fn a_replica_that_lost_log_refuses_to_take_part() {
    let (cluster, mut nodes) = cluster(3);
    let led = leader(&nodes);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 10);
    let victim = (led + 1) % 3;
    same_rows(&nodes);
    let node = nodes.remove(victim);
    let id = node.id();
    node.kill();
    let old = cluster.keep_disk(id);
    let node = cluster.start(id);
    node.open(SHARD).unwrap();
    nodes.push(node);
    leader(&nodes);
    producer.publish(&nodes, SHARD, 10);
    same_rows(&nodes);
    within(DEADLINE, "the leader to hear that it is on disk", || {
        let status = &nodes[leader(&nodes)].groups().status()[0];
        (status.confirmed.get(&id).copied().flatten() == status.last_log).then_some(())
    });
    nodes.pop().unwrap().kill();
    cluster.put_back(id, &old);
    let node = cluster.start(id);
    let error = node.open(SHARD).unwrap_err();
    assert!(matches!(error, GroupError::LostLog { .. }), "{error}");
    assert!(error.to_string().contains("new node id"), "{error}");
}

#[test]
fn leaders_move_to_the_nodes_that_are_preferred() {
    let cluster = Cluster::new(3);
    let nodes: Vec<Node> = (1..=3).map(|node| cluster.start(NodeId(node))).collect();
    let shards = [ShardId(1), ShardId(2), ShardId(3)];
    for node in &nodes {
        for shard in shards {
            node.open(shard).unwrap();
        }
    }
    for shard in shards {
        nodes[0].initialize(shard, &cluster).unwrap();
    }
    within(Duration::from_secs(30), "each node leads its shard", || {
        let leads = |(node, shard): (&Node, ShardId)| node.role(shard).leading;
        nodes.iter().zip(shards).all(leads).then_some(())
    });
}

#[test]
fn a_run_that_is_repeated_is_answered_once() {
    let (_cluster, nodes) = cluster(1);
    leader(&nodes);
    let run = run(9, 1, 5, &Bytes::new());
    let first = nodes[0].propose(SHARD, run.clone()).unwrap();
    let queued = nodes[0].groups().read(SHARD, |machine, _| machine.counts().queued_items);
    assert_eq!(queued, Some(3));
    let again = nodes[0].propose(SHARD, run).unwrap();
    assert_eq!(first.answers, again.answers);
    assert_eq!(nodes[0].groups().read(SHARD, |machine, _| machine.counts().queued_items), queued);
}

#[test]
fn a_checkpoint_that_nobody_waits_for_is_finished_all_the_same() {
    let (_cluster, nodes) = cluster(1);
    let mut producer = Producer::new(1);
    for _ in 0..5 {
        producer.publish(&nodes, SHARD, 10);
        // As when a node stops in the middle of one: then it makes the last one.
        nodes[0].abandon_checkpoint();
        nodes[0].checkpoint();
    }
}

#[test]
fn rows_that_were_lost_are_noticed() {
    let (cluster, mut nodes) = cluster(1);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 10);
    nodes[0].checkpoint();
    producer.publish(&nodes, SHARD, 10);
    nodes.remove(0).kill();
    cluster.remove_rows(NodeId(1));
    let error = cluster.start(NodeId(1)).open(SHARD).unwrap_err();
    assert!(matches!(error, GroupError::Storage { .. }), "{error}");
}
