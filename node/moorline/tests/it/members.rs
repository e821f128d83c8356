//! Clusters that grow, shrink and heal while messages flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Output},
    thread,
    time::Duration,
};

use crate::harness::{
    cluster::{Cluster, SHARDS, Shape},
    flow::Flow,
    http,
    mqtt::Heard,
    packet::{Connect, Packet, Version},
    scenarios,
    wait::{READY, SOON, until_true},
};

/// Acknowledgements per publisher before, between and after what happens.
const SOME: u64 = 50;
/// A leadership is moved at most every 30 s, one every 2 s, and to nobody who came just now.
const BALANCED: Duration = Duration::from_secs(90);

#[test]
fn a_cluster_grows_and_shrinks_while_messages_flow() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("a fourth node joins and takes its part", a_fourth_node_joins),
            ("a leader is moved by hand", a_leader_is_moved_by_hand),
            ("a drained node serves nobody until it is resumed", a_node_drains_and_resumes),
            ("the first node leaves and nothing is lost", the_first_node_leaves),
        ],
    );
}

#[test]
fn a_dead_node_is_replaced_and_its_id_refused() {
    let mut cluster = Cluster::start(3);
    let flow = Flow::start(&cluster, "replace", &[1, 2]);
    flow.goes_on(SOME);
    cluster.node_mut(3).kill();
    flow.goes_on(SOME);
    assert_eq!(cluster.join(), 4);
    let alive = ask(&cluster, 1, "remove?node=2");
    assert_eq!(alive.status, 409, "a node that runs is not given up: {}", alive.body);
    assert_eq!(ask(&cluster, 1, "remove?node=3").status, 200);
    every_group_votes_on(&cluster, &[1, 2, 4]);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    cluster.digests_agree_on(&[1, 2, 4]);

    // Somebody finds the old machine and switches it on.
    cluster.node_mut(3).must_refuse_to_run(&["removed from the cluster"]);
    // Two of the three that vote now are enough: the new one counts.
    cluster.node_mut(2).kill();
    let (mut publisher, _) = Connect::clean(Version::V5, "after").to_patiently(cluster.mqtt(4));
    until_true("a publish is acknowledged by the old and the new", READY, || {
        let id = publisher.publish_unchecked("after", b"more");
        match publisher.hear(READY) {
            Heard::Packet(Packet::PubAck { id: acked, reason }) => acked == id && reason < 0x80,
            Heard::Packet(_) | Heard::Nothing => false,
            Heard::Closed => {
                publisher = Connect::clean(Version::V5, "after").to_patiently(cluster.mqtt(4)).0;
                false
            }
        }
    });
}

#[test]
fn a_move_goes_on_whoever_dies_in_the_middle() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.join(), 4);
    let flow = Flow::start(&cluster, "midway", &[2, 3, 4]);
    flow.goes_on(SOME);
    assert_eq!(ask(&cluster, 2, "leave?node=1").status, 200);
    // One after the other, the one that leaves among them: whoever leads, leads no more.
    for victim in [2, 1, 3, 4] {
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).start();
        flow.goes_on(SOME / 2);
    }
    until_true("node 1 is removed", READY, || {
        state_of(&cluster, 2, 1).is_some_and(|state| state == "removed")
    });
    every_group_votes_on(&cluster, &[2, 3, 4]);
    flow.goes_on(SOME);
    flow.finish();
    cluster.digests_agree_on(&[2, 3, 4]);
}

#[test]
fn a_voter_that_starts_anew_while_its_shard_moves_away_still_votes() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.join(), 4);
    votes_are_spread(&cluster, &[1, 2, 3, 4]);
    let of_three: Vec<u16> =
        (1..=SHARDS).filter(|shard| cluster.node(4).group(*shard, "voters").is_none()).collect();
    assert!(!of_three.is_empty(), "nine votes, and node 4 has some of three shards");
    // It can't catch up, so none of them gets to the end of its move.
    cluster.node(4).pause();
    assert_eq!(ask(&cluster, 2, "leave?node=1").status, 200);
    for shard in &of_three {
        until_true(&format!("shard {shard} is on its way to node 4"), READY, || {
            let learners = cluster.node(3).group(*shard, "learners");
            learners.is_some_and(|learners| learners.as_array().unwrap().contains(&4.into()))
        });
    }
    // One voter is lost for good, and another is to go, but has not gone: it and the third are the majority.
    for dead in [4, 2, 1] {
        cluster.node_mut(dead).kill();
    }
    cluster.node_mut(1).start();
    for shard in of_three {
        // Seen by the one that is new: the other may still think that it leads, with nobody to follow it.
        until_true(&format!("nodes 1 and 3 elect a leader of shard {shard}"), READY, || {
            let leader = cluster.node(1).group(shard, "leader").and_then(|leader| leader.as_u64());
            leader.is_some_and(|leader| [1, 3].contains(&leader))
        });
    }
}

#[test]
fn five_replicas_survive_the_loss_of_two_at_once() {
    let mut cluster =
        Cluster::start_as(&Shape { extra: "replicas = 5\n".to_owned(), ..Shape::of(5) });
    every_group_votes_on(&cluster, &[1, 2, 3, 4, 5]);
    let flow = Flow::start(&cluster, "five", &[1, 2, 3]);
    flow.goes_on(SOME);
    for pair in [[4, 5], [1, 3]] {
        let victims = pair.map(|id| usize::try_from(id).unwrap() - 1);
        thread::scope(|scope| {
            for (at, node) in cluster.nodes_mut().iter_mut().enumerate() {
                if victims.contains(&at) {
                    scope.spawn(|| node.kill());
                }
            }
        });
        if pair == [4, 5] {
            flow.goes_on(SOME);
        }
        for id in pair {
            cluster.node_mut(id).start();
        }
        cluster.wait_ready();
        flow.goes_on(SOME);
    }
    flow.finish();
    cluster.digests_agree();
}

#[test]
fn three_replicas_become_five_when_there_are_five_nodes() {
    let mut cluster =
        Cluster::start_as(&Shape { extra: "replicas = 5\n".to_owned(), ..Shape::of(3) });
    every_group_votes_on(&cluster, &[1, 2, 3]);
    let flow = Flow::start(&cluster, "grow", &[1, 2, 3]);
    flow.goes_on(SOME);
    assert_eq!((cluster.join(), cluster.join()), (4, 5));
    every_group_votes_on(&cluster, &[1, 2, 3, 4, 5]);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    cluster.digests_agree();
    leaders_are_spread(&cluster, &[1, 2, 3, 4, 5]);
}

#[test]
fn copies_change_from_three_to_five_and_back_while_messages_flow() {
    const ALL: [u64; 5] = [1, 2, 3, 4, 5];
    let mut cluster = Cluster::start(3);
    let flow = Flow::start(&cluster, "copies", &[1, 2, 3]);
    flow.goes_on(SOME);
    let even = ask(&cluster, 2, "replicas?copies=4");
    assert_eq!(even.status, 400, "{}", even.body);
    assert!(even.body.contains("as 3 do"), "{}", even.body);
    let admin = cluster.node(3).admin.to_string();
    let typed = moorline(&["cluster", "replicas", "2", "--admin"], &[&admin]);
    assert_eq!(typed.status.code(), Some(2), "{typed:?}");
    let typed = moorline(&["cluster", "replicas", "1", "--admin"], &[&admin]);
    assert_eq!(typed.status.code(), Some(1), "without --yes: {typed:?}");

    let wanted = ask(&cluster, 2, "replicas?copies=5");
    let waits = "there are 3 until 5 nodes are active, and 3 are";
    assert!(wanted.status == 200 && wanted.body.contains(waits), "{}", wanted.body);
    assert!(guarantees(&cluster, 2).to_string().contains(waits));
    assert_eq!((cluster.join(), cluster.join()), (4, 5));
    every_group_votes_on(&cluster, &ALL);
    flow.goes_on(SOME);
    cluster.digests_agree();
    until_true("the loss of two is survived", READY, || guarantees(&cluster, 1)["survives"] == 2);

    let back = moorline(&["cluster", "replicas", "3", "--admin"], &[&admin]);
    assert!(back.status.success(), "{back:?}");
    votes_are_spread(&cluster, &ALL);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    assert_eq!(cluster.node(4).view().unwrap()["replicas"], 3);
}

#[test]
fn leaders_are_spread_after_a_join_and_after_a_restart() {
    let mut cluster = Cluster::start(3);
    leaders_are_spread(&cluster, &[1, 2, 3]);
    cluster.node_mut(1).kill();
    leaders_are_spread(&cluster, &[2, 3]);
    cluster.node_mut(1).start_ready();
    leaders_are_spread(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.join(), 4);
    leaders_are_spread(&cluster, &[1, 2, 3, 4]);
    votes_are_spread(&cluster, &[1, 2, 3, 4]);
}

#[test]
fn what_a_shard_left_on_a_node_is_deleted_and_the_shard_may_come_back() {
    let extra = "[storage]\nmoved-keep-s = 1\n".to_owned();
    let mut cluster = Cluster::start_as(&Shape { extra, ..Shape::of(3) });
    assert_eq!(cluster.join(), 4);
    let flow = Flow::start(&cluster, "leftovers", &[2, 4]);
    flow.goes_on(SOME);
    let groups = |cluster: &Cluster| {
        cluster.node(3).view().map_or(0, |view| view["groups"].as_array().unwrap().len())
    };
    let deleted =
        |cluster: &Cluster| cluster.node(3).log().matches("moved away were deleted").count();
    // Shards come back to the process that deleted them, and to one that was started anew.
    for restarts in [false, true] {
        let before = deleted(&cluster);
        assert_eq!(ask(&cluster, 1, "drain?node=3").status, 200);
        until_true("no shard is left on the disk of node 3", READY, || {
            groups(&cluster) == 1 && deleted(&cluster) > before
        });
        flow.goes_on(SOME);
        if restarts {
            cluster.node_mut(3).kill();
        }
        assert_eq!(ask(&cluster, 1, "resume?node=3").status, 200);
        if restarts {
            cluster.node_mut(3).start();
        }
        cluster.node_mut(3).wait_ready();
        until_true("votes are back on node 3", READY, || groups(&cluster) > 1);
    }
    assert_eq!(ask(&cluster, 1, "leave?node=1").status, 200);
    assert!(cluster.node_mut(1).wait_for_end(READY).success());
    every_group_votes_on(&cluster, &[2, 3, 4]);
    flow.goes_on(SOME / 2);
    flow.finish();
    cluster.digests_agree_on(&[2, 3, 4]);
}

#[test]
fn a_node_that_is_cut_off_deletes_nothing() {
    let extra = "[storage]\nmoved-keep-s = 5\n".to_owned();
    let mut cluster = Cluster::start_as(&Shape { extra, ..Shape::of(3) });
    assert_eq!(cluster.join(), 4);
    assert_eq!(ask(&cluster, 1, "drain?node=3").status, 200);
    let groups = |cluster: &Cluster| {
        cluster.node(3).view().map_or(0, |view| view["groups"].as_array().unwrap().len())
    };
    until_true("no shard is open on node 3", READY, || groups(&cluster) == 1);
    (1..=4).for_each(|node| cluster.node_mut(node).kill());
    // What it knows of the meta group may be old, and nobody can say.
    cluster.node_mut(3).start();
    let says = |cluster: &Cluster, what: &str| cluster.node(3).log().contains(what);
    until_true("it wants to delete", READY, || says(&cluster, "stays until the meta group"));
    assert!(!says(&cluster, "moved away were deleted"));
    for node in [1, 2, 4] {
        cluster.node_mut(node).start();
    }
    until_true("it hears that it may", READY, || says(&cluster, "moved away were deleted"));
}

#[test]
fn a_node_joins_by_the_command_and_its_token_stands_nowhere() {
    let mut cluster = Cluster::start(3);
    let token = cluster.token();
    let (mut node, text) = cluster.newcomer();
    let member = cluster.node(1).admin.to_string();
    let join = |token: &str, text: &str| {
        fs::write(&node.config, text).unwrap();
        let args = ["cluster", "join", "--token", token, "--member", &member, "--config"];
        moorline(&args, &[node.config.to_str().unwrap()])
    };
    let says = |output: &Output, what: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(what), "no {what:?} in: {said}");
    };
    let wrong = join(&"0".repeat(32), &text);
    says(&wrong, "there is no such token");
    says(&join("secret", &text), "--token");
    // What is wrong in the file costs no token.
    let data = node.data.clone();
    fs::remove_dir_all(&data).unwrap();
    let other = text.replace(&format!("shards = {SHARDS}"), "shards = 9");
    says(&join(&token, &other), "cluster.shards is 3 here and 9 in its file");
    fs::remove_dir_all(&data).unwrap();
    let joined = join(&token, &text);
    assert!(joined.status.success(), "{joined:?}");
    says(&joined, "node 4 may join; start it: moorline server --config");
    says(&join(&token, &text), "node 4 is a member already");
    node.start_ready();
    cluster.add(node);
    votes_are_spread(&cluster, &[1, 2, 3, 4]);

    let members = moorline(&["cluster", "members", "--admin"], &[&member]);
    says(&members, "node 4");
    says(
        &moorline(&["cluster", "remove", "4", "--admin"], &[&member]),
        "node 4 runs: let it leave",
    );
    says(&moorline(&["cluster", "leave", "9", "--admin"], &[&member]), "node 9 is not known");
    for node in cluster.nodes_mut() {
        node.stop();
    }
    for node in cluster.nodes() {
        assert!(!holds(&node.data, token.as_bytes()), "node {} has the token on its disk", node.id);
        let bytes = u128::from_str_radix(&token, 16).unwrap().to_be_bytes();
        assert!(!holds(&node.data, &bytes), "node {} has the token on its disk", node.id);
    }
}

/// Whether a file below a directory has these bytes in it.
fn holds(dir: &std::path::Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes)
    })
}

/// Runs the program as an operator does.
fn moorline(args: &[&str], more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moorline")).args(args).args(more).output().unwrap()
}

/// Waits until no node leads more than one shard more than another.
#[track_caller]
fn leaders_are_spread(cluster: &Cluster, nodes: &[u64]) {
    until_true(&format!("leaders are spread over {nodes:?}"), BALANCED, || {
        let mut led: BTreeMap<u64, usize> = nodes.iter().map(|node| (*node, 0)).collect();
        for shard in 1..=SHARDS {
            let lead = |node: &&u64| {
                cluster.node(**node).group(shard, "leader").is_some_and(|leader| leader == **node)
            };
            let Some(leader) = nodes.iter().find(lead) else { return false };
            *led.get_mut(leader).unwrap() += 1;
        }
        led.values().max().unwrap() - led.values().min().unwrap() <= 1
    });
}

/// Waits until no node has more than one vote more than another.
#[track_caller]
fn votes_are_spread(cluster: &Cluster, nodes: &[u64]) {
    until_true(&format!("votes are spread over {nodes:?}"), BALANCED, || {
        let votes = |node: &u64| {
            (1..=SHARDS)
                .filter(|shard| cluster.node(*node).group(*shard, "voters").is_some())
                .count()
        };
        let votes: Vec<usize> = nodes.iter().map(votes).collect();
        votes.iter().sum::<usize>() == usize::from(SHARDS) * 3
            && votes.iter().max().unwrap() - votes.iter().min().unwrap() <= 1
    });
}

/// What a node says that the cluster survives.
fn guarantees(cluster: &Cluster, node: u64) -> serde_json::Value {
    http::get(cluster.node(node).admin, "/api/v1/guarantees").unwrap().json()
}

fn ask(cluster: &Cluster, node: u64, what: &str) -> http::Answer {
    http::post(cluster.node(node).admin, &format!("/api/v1/cluster/{what}")).unwrap()
}

/// Waits until every group votes on these nodes alone, and each of them has all groups.
fn every_group_votes_on(cluster: &Cluster, nodes: &[u64]) {
    let wanted: BTreeSet<u64> = nodes.iter().copied().collect();
    for node in nodes {
        until_true(&format!("node {node} sees every group on {nodes:?}"), READY, || {
            let Some(view) = cluster.node(*node).view() else { return false };
            let groups = view["groups"].as_array().unwrap();
            let voters = |group: &serde_json::Value| -> BTreeSet<u64> {
                group["voters"].as_array().unwrap().iter().filter_map(|id| id.as_u64()).collect()
            };
            groups.len() == usize::from(SHARDS) + 1
                && groups.iter().all(|group| voters(group) == wanted)
        });
    }
}

fn state_of(cluster: &Cluster, seen_by: u64, id: u64) -> Option<String> {
    let view = cluster.node(seen_by).view()?;
    let node = view["nodes"].as_array()?.iter().find(|node| node["id"] == id)?.clone();
    Some(node["state"].as_str()?.to_owned())
}

fn a_fourth_node_joins(cluster: &mut Cluster) {
    let flow = Flow::start(cluster, "join", &[1, 2, 3]);
    flow.goes_on(SOME);
    assert_eq!(cluster.join(), 4);
    // It serves clients, of whatever shard, before and while votes move onto it.
    let on_four = Flow::start(cluster, "join-four", &[4, 1]);
    on_four.goes_on(SOME);
    until_true("votes move onto node 4", READY, || {
        (1..=SHARDS).any(|shard| {
            let voters = cluster.node(4).group(shard, "voters");
            voters.is_some_and(|voters| voters.as_array().unwrap().contains(&4.into()))
        })
    });
    flow.goes_on(SOME);
    for flow in [flow, on_four] {
        let outcome = flow.finish();
        assert_eq!(outcome.broken, 0, "{outcome:?}");
    }
}

fn a_leader_is_moved_by_hand(cluster: &mut Cluster) {
    let leader = cluster.leader(0, 1);
    let to = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    assert_eq!(ask(cluster, 4, &format!("transfer?group=0&to={to}")).status, 200);
    // The same leadership is not moved twice in 30 s.
    until_true("the leadership is where it was sent", READY + READY, || {
        cluster.node(2).group(0, "leader").is_some_and(|leader| leader == to)
    });
    assert_eq!(ask(cluster, 4, "transfer?group=0&to=9").status, 409);
}

fn a_node_drains_and_resumes(cluster: &mut Cluster) {
    let flow = Flow::start(cluster, "drain", &[1, 2, 4]);
    let (mut client, _) = Connect::clean(Version::V5, "drained").to(cluster.mqtt(3));
    assert_eq!(ask(cluster, 1, "drain?node=3").status, 200);
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8B }));
    until_true("no shard is left on node 3", READY, || {
        let view = cluster.node(3).view().unwrap();
        view["groups"].as_array().unwrap().len() == 1
    });
    assert_eq!(state_of(cluster, 3, 3).as_deref(), Some("draining"));
    assert!(!cluster.node(3).is_ready());
    flow.goes_on(SOME);
    assert_eq!(ask(cluster, 1, "resume?node=3").status, 200);
    cluster.node_mut(3).wait_ready();
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
}

fn the_first_node_leaves(cluster: &mut Cluster) {
    let (mut client, _) = Connect::clean(Version::V5, "leaving").to(cluster.mqtt(1));
    let flow = Flow::start(cluster, "leave", &[2, 3, 4]);
    flow.goes_on(SOME);
    assert_eq!(ask(cluster, 3, "leave?node=1").status, 200);
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8B }), "it is told");
    let status = cluster.node_mut(1).wait_for_end(READY);
    assert!(status.success(), "a node that has left ends with {status}");
    flow.goes_on(SOME);
    every_group_votes_on(cluster, &[2, 3, 4]);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    cluster.digests_agree_on(&[2, 3, 4]);
    assert_eq!(state_of(cluster, 4, 1).as_deref(), Some("removed"));
    cluster.node_mut(1).must_refuse_to_run(&["removed from the cluster"]);
}
