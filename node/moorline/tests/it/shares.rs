//! Shared subscriptions of a cluster: members anywhere, one queue, nothing stranded.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use moorline_core::shard::Shards;

use crate::harness::{
    TENANT,
    cluster::{Cluster, SHARDS},
    http,
    mqtt::{Client, Heard, numbered},
    packet::{Connect, Packet, Version},
    scenarios,
    wait::{READY, SOON, until_true},
};

/// How long one client is listened to before the next.
const TURN: Duration = Duration::from_millis(10);
/// Messages that it gets acknowledged meanwhile.
const PER_TURN: usize = 8;
/// How long nothing may come before it counts as nothing more.
const QUIET: Duration = Duration::from_millis(700);

#[test]
fn members_of_a_share_take_turns_on_all_nodes() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("each message goes to one member while nobody leaves", each_message_to_one),
            ("every share and every plain subscription gets a copy", every_share_a_copy),
            ("who leaves before its SUBSCRIBE is answered is lent nothing", a_brief_member),
            ("who is away strands nothing, and finds everything if all are", away),
            ("what a member held when its connection broke goes to another", a_broken_member),
            ("what was with a killed node goes to others", a_killed_node),
            ("a leader's death loses nothing of a share", a_leaders_death),
        ],
    );
}

/// The id of the node that leads the shard of a shared filter.
fn leader_of(cluster: &Cluster, filter: &str) -> u64 {
    let shard = Shards::new(SHARDS).of(TENANT, filter.as_bytes());
    cluster.leader(shard.0, 1)
}

/// Listens to all of them in turn until `many` different payloads came and no more do: how often each came, and how many
/// each client got. Everything is acknowledged.
fn collect(clients: &mut [Client], many: usize) -> (BTreeMap<String, usize>, Vec<usize>) {
    let (mut heard, mut each) = (BTreeMap::new(), vec![0; clients.len()]);
    let (since, mut last) = (Instant::now(), Instant::now());
    while heard.len() < many || last.elapsed() < QUIET {
        assert!(since.elapsed() < READY, "{} of {many} came, to each {each:?}", heard.len());
        for (at, client) in clients.iter_mut().enumerate() {
            // Not all there is: the others would wait for as long as one is kept busy.
            for _ in 0..PER_TURN {
                let Heard::Packet(Packet::Publish(message)) = client.hear(TURN) else { break };
                client.ack_unchecked(&message);
                let payload = String::from_utf8(message.payload).unwrap();
                *heard.entry(payload).or_insert(0) += 1;
                each[at] += 1;
                last = Instant::now();
            }
        }
    }
    (heard, each)
}

fn publish_all(cluster: &Cluster, node: u64, topic: &str, payloads: &[String]) {
    let (mut publisher, _) = Connect::clean(Version::V5, "share-publisher").to(cluster.mqtt(node));
    let ids: Vec<_> =
        payloads.iter().map(|payload| publisher.publish(topic, payload.as_bytes())).collect();
    ids.into_iter().for_each(|id| assert_eq!(publisher.puback(id), 0));
}

/// A clean or durable member on each node.
fn crew(cluster: &Cluster, tag: &str, filter: &str) -> Vec<Client> {
    let connect = |node| {
        let name = format!("{tag}-{node}");
        match node {
            1 => Connect::durable(Version::V5, &name),
            2 => Connect::clean(Version::V4, &name),
            _ => Connect::clean(Version::V5, &name),
        }
    };
    let join = |node| {
        let (mut client, _) = connect(node).to(cluster.mqtt(node));
        client.subscribe_1(filter);
        client
    };
    (1..=3).map(join).collect()
}

fn each_message_to_one(cluster: &mut Cluster) {
    let mut crew = crew(cluster, "turns", "$share/turns/turns/+");
    let payloads = numbered("m", 0..300);
    publish_all(cluster, 2, "turns/1", &payloads);
    let (heard, each) = collect(&mut crew, payloads.len());
    assert!(heard.values().all(|copies| *copies == 1), "{heard:?}");
    assert!(each.iter().all(|got| *got >= 50), "everybody has a part: {each:?}");

    // Granted QoS is at most 1, and leaving ends it.
    assert_eq!(crew[0].subscribe(&[("$share/two/turns/+", 2), ("plain", 1)]), [1, 1]);
    for filter in ["$share/turns/turns/+", "$share/two/turns/+"] {
        crew[0].unsubscribe(filter);
    }
    publish_all(cluster, 3, "turns/2", &payloads[..30]);
    let (heard, each) = collect(&mut crew, 30);
    assert!(heard.values().all(|copies| *copies == 1) && each[0] == 0, "{each:?} {heard:?}");
    crew.into_iter().for_each(Client::disconnect);
}

fn every_share_a_copy(cluster: &mut Cluster) {
    let (mut client, _) = Connect::durable(Version::V5, "copies").to(cluster.mqtt(1));
    let filters = [("$share/a/copies", 1), ("$share/b/copies", 1), ("copies", 1)];
    assert_eq!(client.subscribe(&filters), [1, 1, 1]);
    publish_all(cluster, 2, "copies", &numbered("c", 0..10));
    let mut all = [client];
    let (heard, _) = collect(&mut all, 10);
    assert!(heard.values().all(|copies| *copies == 3), "{heard:?}");
    for (filter, _) in filters {
        assert_eq!(all[0].unsubscribe(filter), [0]);
    }
}

fn a_brief_member(cluster: &mut Cluster) {
    let filter = "$share/brief/brief";
    let (mut stays, _) = Connect::durable(Version::V5, "brief-stays").to(cluster.mqtt(1));
    stays.subscribe_1(filter);
    let mut brief: Vec<Client> = (1..=3)
        .flat_map(|node| {
            let durable = Connect::durable(Version::V5, &format!("brief-{node}"));
            let clean = Connect::clean(Version::V4, &format!("brief-clean-{node}"));
            [durable, clean].map(|connect| connect.to(cluster.mqtt(node)).0)
        })
        .collect();
    let mut all = [stays];
    for round in 0..5 {
        brief.iter_mut().for_each(|client| client.subscribe_briefly(filter));
        publish_all(cluster, 2, "brief", &numbered(&format!("round-{round}-"), 0..100));
        let (heard, _) = collect(&mut all, 100);
        assert!(heard.values().all(|copies| *copies == 1), "{heard:?}");
    }
    until_true("nobody else is a member", SOON, || listed(cluster, filter) == Some((1, 0)));
    brief.iter_mut().for_each(Client::hears_nothing);
    all[0].unsubscribe(filter);
}

/// Members and queued messages of a share, as the leader of its shard lists them.
fn listed(cluster: &Cluster, filter: &str) -> Option<(u64, u64)> {
    let leader = cluster.node(leader_of(cluster, filter));
    let shares = http::get(leader.admin, "/api/v1/shares").unwrap().json();
    let share = shares.as_array()?.iter().find(|share| share["filter"] == filter)?;
    Some((share["members"].as_u64()?, share["queued_messages"].as_u64()?))
}

fn away(cluster: &mut Cluster) {
    let filter = "$share/away/away";
    let connects = [1, 2].map(|node| Connect::durable(Version::V5, &format!("away-{node}")));
    let join = |at: usize, node| {
        let (mut client, _) = connects[at].to(cluster.mqtt(node));
        client.subscribe_1(filter);
        client
    };
    let (first, second) = (join(0, 1), join(1, 2));
    first.disconnect();
    let mut online = [second];
    publish_all(cluster, 3, "away", &numbered("one", 0..100));
    let (heard, _) = collect(&mut online, 100);
    assert!(heard.values().all(|copies| *copies == 1), "who is away strands nothing");

    // Whoever ends before its attachment is answered keeps nothing either.
    for round in 0..10 {
        join(0, 1).disconnect();
        publish_all(cluster, 3, "away", &numbered(&format!("round-{round}-"), 0..20));
        let (heard, _) = collect(&mut online, 20);
        assert_eq!(heard.len(), 20);
    }

    let [second] = online;
    second.disconnect();
    publish_all(cluster, 3, "away", &numbered("two", 0..150));
    assert_eq!(listed(cluster, filter), Some((2, 150)));
    let (first, present) = connects[0].to(cluster.mqtt(3));
    assert!(present);
    let mut back = [first];
    let (heard, _) = collect(&mut back, 150);
    assert!(heard.values().all(|copies| *copies == 1), "{heard:?}");
    assert!(heard.keys().all(|payload| payload.starts_with("two")));
    back[0].unsubscribe(filter);
}

fn a_broken_member(cluster: &mut Cluster) {
    let filter = "$share/broken/broken";
    let (mut first, _) = Connect::durable(Version::V5, "broken-1").to(cluster.mqtt(1));
    first.subscribe_1(filter);
    publish_all(cluster, 3, "broken", &numbered("b", 0..20));
    let held: Vec<_> = (0..20).map(|_| first.message()).collect();
    assert!(held.iter().all(|message| !message.dup));
    first.ack(&held[0]);
    first.ping();
    let (mut second, _) = Connect::clean(Version::V4, "broken-2").to(cluster.mqtt(2));
    second.subscribe_1(filter);
    second.hears_nothing();
    drop(first);
    for _ in 1..20 {
        let message = second.message();
        assert!(message.dup, "it was sent before");
        second.ack(&message);
    }
    second.hears_nothing();
    let wiped = Connect::clean(Version::V5, "broken-1");
    drop(wiped.to(cluster.mqtt(3)));
}

fn a_killed_node(cluster: &mut Cluster) {
    let filter = "$share/killed/killed";
    let leader = leader_of(cluster, filter);
    let [victim, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let member = |node| {
        let connect = Connect::durable(Version::V5, &format!("killed-{node}"));
        let (mut client, _) = connect.to(cluster.mqtt(node));
        client.subscribe_1(filter);
        client
    };
    let (mut lost, stays) = (member(victim), member(other));
    let payloads = numbered("k", 0..200);
    publish_all(cluster, leader, "killed", &payloads);
    let held = lost.message();
    cluster.node_mut(victim).kill();
    let mut all = [stays];
    let (heard, _) = collect(&mut all, payloads.len());
    assert_eq!(heard.len(), payloads.len(), "what was held there came here");
    assert!(heard.contains_key(std::str::from_utf8(&held.payload).unwrap()));
    cluster.node_mut(victim).start();
    cluster.wait_ready();
    all[0].unsubscribe(filter);
    cluster.digests_agree();
}

fn a_leaders_death(cluster: &mut Cluster) {
    let filter = "$share/death/death";
    let leader = leader_of(cluster, filter);
    let [one, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let member = |name: &str, node| {
        let (mut client, _) = Connect::durable(Version::V5, name).to(cluster.mqtt(node));
        client.subscribe_1(filter);
        client
    };
    let mut members = [member("death-1", one), member("death-2", other)];
    let (mut publisher, _) = Connect::clean(Version::V5, "death-p").to(cluster.mqtt(one));
    let payloads = numbered("d", 0..400);
    for payload in &payloads[..100] {
        publisher.publish_acked("death", payload.as_bytes());
    }
    cluster.node_mut(leader).kill();
    for payload in &payloads[100..] {
        let id = publisher.publish("death", payload.as_bytes());
        assert_eq!(publisher.puback(id), 0, "over the death of a leader");
    }
    let (heard, each) = collect(&mut members, payloads.len());
    assert_eq!(heard.len(), payloads.len());
    println!("  copies {} to each {each:?}", heard.values().sum::<usize>());
    assert!(each.iter().all(|got| *got >= 100), "both go on under the new leader: {each:?}");
    cluster.node_mut(leader).start();
    cluster.wait_ready();
    for member in &mut members {
        member.unsubscribe(filter);
    }
    cluster.digests_agree();
}
