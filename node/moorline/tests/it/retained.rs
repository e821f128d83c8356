//! Retained messages in a cluster: seen by every SUBSCRIBE that begins later, on any node, whoever dies.

use std::collections::BTreeMap;

use crate::harness::{
    cluster::Cluster,
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Publish, Version},
    scenarios,
    wait::{SOON, until},
};

/// So many topics fill several pages in each shard.
const MANY: usize = 2_000;
/// Between looks for one message after a leader died.
const ROUNDS: u32 = 20;

#[test]
fn retained_messages_are_seen_on_every_node() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("what was acknowledged is seen through every other node", seen_everywhere),
            ("live copies have no RETAIN flag, and an empty one removes", live_copies_and_removal),
            ("a durable session gets it into its queue", durable_sessions),
            ("many of them come whole, to slow clients too", many),
            ("they expire", expiry),
            ("wills are retained", wills),
            ("they outlive their leader", a_dead_leader),
            ("replicas hold the same rows", |cluster| cluster.digests_agree()),
        ],
    );
}

fn clean(cluster: &Cluster, node: u64, name: &str) -> Client {
    Connect::clean(Version::V5, name).to(cluster.mqtt(node)).0
}

/// The next message, which must be a retained one; acknowledged.
#[track_caller]
fn retained(client: &mut Client) -> Publish {
    let message = client.message();
    assert!(message.retain, "{message:?}");
    client.ack(&message);
    message
}

fn seen_everywhere(cluster: &mut Cluster) {
    let nodes: Vec<u64> = cluster.nodes().iter().map(|node| node.id).collect();
    let mut publishers: Vec<_> =
        nodes.iter().map(|node| clean(cluster, *node, &format!("seen-p{node}"))).collect();
    for round in 0..ROUNDS {
        for (publisher, from) in publishers.iter_mut().zip(&nodes) {
            let topic = format!("seen/{from}");
            let payload = format!("{round} from {from}");
            publisher.retain(&topic, payload.as_bytes(), None);
            let at = nodes[(*from as usize + round as usize) % nodes.len()];
            for (filter, version) in [(topic.as_str(), Version::V4), ("seen/+", Version::V5)] {
                let name = format!("seen-s{at}");
                let (mut reader, _) = Connect::clean(version, &name).to(cluster.mqtt(at));
                reader.subscribe_1(filter);
                let mut found = retained(&mut reader);
                while found.topic != topic {
                    found = retained(&mut reader);
                }
                assert_eq!(String::from_utf8_lossy(&found.payload), payload, "{filter} on {at}");
                assert_eq!((found.qos, found.dup), (1, false));
            }
        }
    }
}

fn live_copies_and_removal(cluster: &mut Cluster) {
    let mut publisher = clean(cluster, 1, "copies-p");
    let mut live = clean(cluster, 2, "copies-live");
    live.subscribe_1("copies/t");
    publisher.retain("copies/t", b"one", None);
    let copy = live.message();
    assert!(!copy.retain, "the subscription was there");
    live.ack(&copy);
    live.subscribe_1("copies/t");
    assert_eq!(retained(&mut live).payload, b"one", "every SUBSCRIBE gets it");
    publisher.retain("copies/t", b"", None);
    let copy = live.message();
    assert!(!copy.retain && copy.payload.is_empty(), "an empty one is passed on");
    live.ack(&copy);
    live.subscribe_1("copies/t");
    live.hears_nothing();
}

fn durable_sessions(cluster: &mut Cluster) {
    let mut publisher = clean(cluster, 1, "queued-p");
    for number in 0..10 {
        publisher.retain(&format!("queued/{number}"), b"kept", None);
    }
    let connect = Connect::durable(Version::V5, "queued");
    let (mut client, _) = connect.to(cluster.mqtt(2));
    client.subscribe_1("queued/+");
    // Gone before it has taken any: what it was promised with the SUBACK waits for it.
    drop(client);
    let (mut client, present) = connect.to(cluster.mqtt(3));
    assert!(present);
    let mut topics: Vec<_> = (0..10).map(|_| retained(&mut client).topic).collect();
    topics.sort();
    let wanted: Vec<_> = (0..10).map(|number| format!("queued/{number}")).collect();
    assert_eq!(topics, wanted);
    client.hears_nothing();
    client.disconnect();
    let (mut client, _) = connect.to(cluster.mqtt(1));
    client.hears_nothing();
    drop(Connect { clean: true, ..connect }.to(cluster.mqtt(1)));
}

fn many(cluster: &mut Cluster) {
    let mut publisher = clean(cluster, 1, "many-p");
    for number in 0..MANY {
        publisher.retain(&format!("many/{number}"), &[b'x'; 200], None);
    }
    for (connect, node) in [
        (Connect::clean(Version::V4, "many-live"), 2),
        (Connect::durable(Version::V5, "many-durable"), 3),
    ] {
        let (mut client, _) = connect.to(cluster.mqtt(node));
        client.subscribe_1("many/#");
        let mut found = BTreeMap::new();
        while found.len() < MANY {
            let message = retained(&mut client);
            *found.entry(message.topic).or_insert(0) += 1;
        }
        assert!(found.values().all(|times| *times == 1));
        client.hears_nothing();
        drop(Connect { clean: true, ..connect }.to(cluster.mqtt(node)));
    }
    for number in 0..MANY {
        publisher.retain(&format!("many/{number}"), b"", None);
    }
}

fn expiry(cluster: &mut Cluster) {
    let mut publisher = clean(cluster, 1, "expiry-p");
    publisher.retain("expiry/t", b"for a moment", Some(2));
    let mut reader = clean(cluster, 3, "expiry-s");
    reader.subscribe_1("expiry/#");
    let found = retained(&mut reader);
    assert!(found.expiry_s.is_some_and(|left| (1..=2).contains(&left)), "{found:?}");
    until("it is over", SOON, || {
        reader.subscribe_1("expiry/#");
        match reader.hear(std::time::Duration::from_millis(300)) {
            Heard::Packet(Packet::Publish(message)) => {
                reader.ack(&message);
                None
            }
            Heard::Nothing => Some(()),
            other => panic!("{other:?}"),
        }
    });
}

fn wills(cluster: &mut Cluster) {
    let mut connect = Connect::clean(Version::V5, "will-kept").leaving("will/kept", "gone", 0);
    if let Some(will) = &mut connect.will {
        will.retain = true;
    }
    drop(connect.to(cluster.mqtt(1)));
    let mut reader = clean(cluster, 2, "will-kept-s");
    until("the will is retained", SOON, || {
        reader.subscribe_1("will/kept");
        match reader.hear(std::time::Duration::from_millis(300)) {
            Heard::Packet(Packet::Publish(message)) => {
                reader.ack(&message);
                assert_eq!(message.payload, b"gone");
                message.retain.then_some(())
            }
            _ => None,
        }
    });
}

fn a_dead_leader(cluster: &mut Cluster) {
    let victim = cluster.leader(1, 1);
    let others = cluster.others(victim);
    let mut publisher = clean(cluster, others[0], "outlive-p");
    for number in 0..100 {
        publisher.retain(&format!("outlive/{number}"), number.to_string().as_bytes(), None);
    }
    cluster.node_mut(victim).kill();
    let mut reader = clean(cluster, others[1], "outlive-s");
    reader.subscribe_1("outlive/+");
    for _ in 0..100 {
        let message = retained(&mut reader);
        let number = message.topic.strip_prefix("outlive/").unwrap();
        assert_eq!(message.payload, number.as_bytes());
    }
    reader.hears_nothing();
    cluster.node_mut(victim).start_ready();
}
