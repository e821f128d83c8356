//! QoS 2: exactly once inside the cluster, on whichever node each of the four packets is said, also when leaders die
//! between them.

use std::collections::BTreeSet;

use crate::harness::{
    client_in,
    cluster::{Cluster, SHARDS},
    mqtt::{Client, Heard, numbered},
    packet::{self, Connect, Packet, Publish, Version},
    scenarios,
    wait::{READY, SOON, until},
};

/// Publishes under way at once.
const PIPELINED: usize = 100;

// ---- a healthy cluster

pub(crate) fn across_nodes(cluster: &mut Cluster) {
    for version in [Version::V4, Version::V5] {
        let (name, topic) = (format!("once-{version:?}"), format!("once/{version:?}"));
        let durable = Connect::durable(version, &format!("{name}-durable"));
        let (mut kept, _) = durable.to(cluster.mqtt(1));
        let (mut live, _) = Connect::clean(version, &format!("{name}-live")).to(cluster.mqtt(2));
        let (mut lower, _) = Connect::clean(version, &format!("{name}-lower")).to(cluster.mqtt(3));
        kept.subscribe_2(&topic);
        live.subscribe_2(&topic);
        lower.subscribe_1(&topic);
        for node in 1..=3 {
            let payload = format!("from {node}");
            let connect = Connect::clean(version, &format!("{name}-{node}"));
            let (mut publisher, _) = connect.to(cluster.mqtt(node));
            publisher.publish_once(&topic, payload.as_bytes());
            publisher.publish_acked(&topic, b"with 1");
            for client in [&mut kept, &mut live] {
                assert_eq!(client.take_once(1)[0], payload);
                assert_eq!(client.take(1), ["with 1"], "a message has its publisher's QoS at most");
            }
            assert_eq!(lower.take(2), [payload, "with 1".to_owned()], "or its subscription's");
        }
        kept.disconnect();
        drop(Connect::clean(version, &durable.client).to(cluster.mqtt(1)));
    }
}

/// Whoever repeats a publish, on whichever node, is answered, and nobody hears it again: durable sessions, live ones.
pub(crate) fn a_repeat_counts_once(cluster: &mut Cluster) {
    for version in [Version::V4, Version::V5] {
        let (name, topic) = (format!("repeat-{version:?}"), format!("repeat/{version:?}"));
        let (mut kept, _) = Connect::durable(version, &format!("{name}-d")).to(cluster.mqtt(1));
        let (mut live, _) = Connect::clean(version, &format!("{name}-c")).to(cluster.mqtt(2));
        kept.subscribe_2(&topic);
        live.subscribe_2(&topic);
        let connect = Connect::durable(version, &name);
        let (mut publisher, _) = connect.to(cluster.mqtt(3));
        publisher.publish_2(7, &topic, b"once", false);
        publisher.publish_2(7, &topic, b"once", true);
        assert_eq!(publisher.pubrec(7), 0);
        publisher.publish_2(7, &topic, b"once", true);
        assert_eq!(publisher.pubrec(7), 0);
        for node in [1, 2, 3] {
            drop(publisher);
            let (resumed, present) = connect.to(cluster.mqtt(node));
            assert!(present);
            publisher = resumed;
            publisher.publish_2(7, &topic, b"once", true);
            assert_eq!(publisher.pubrec(7), 0, "on node {node}");
        }
        assert_eq!(publisher.pubrel(7), 0);
        assert_eq!(publisher.pubrel(7), 0, "it is complete, and was");
        // The packet id stands for another message now, whatever DUP says.
        publisher.publish_2(7, &topic, b"another", true);
        assert_eq!((publisher.pubrec(7), publisher.pubrel(7)), (0, 0));
        for client in [&mut kept, &mut live] {
            assert_eq!(client.take_once(2), ["once", "another"]);
            client.hears_nothing();
        }
        for client in [format!("{name}-d"), name] {
            drop(Connect::clean(version, &client).to(cluster.mqtt(1)));
        }
    }
}

pub(crate) fn many_at_once_stay_in_order(cluster: &mut Cluster) {
    let (mut kept, _) = Connect::durable(Version::V5, "pipeline-durable").to(cluster.mqtt(1));
    let (mut live, _) = Connect::clean(Version::V5, "pipeline-live").to(cluster.mqtt(3));
    kept.subscribe_2("pipeline");
    live.subscribe_2("pipeline");
    let (mut publisher, _) = Connect::clean(Version::V5, "pipeline-p").to(cluster.mqtt(2));
    let payloads = numbered("m", 0..PIPELINED);
    for (id, payload) in (1..).zip(&payloads) {
        publisher.publish_2(id, "pipeline", payload.as_bytes(), false);
    }
    let ids = 1..=u16::try_from(PIPELINED).unwrap();
    let mut received = Vec::new();
    while received.len() < PIPELINED {
        match publisher.hear(SOON) {
            Heard::Packet(Packet::PubRec { id, reason: 0 }) => received.push(id),
            other => panic!("{other:?}, not a PUBREC"),
        }
    }
    assert_eq!(received, ids.clone().collect::<Vec<_>>(), "PUBRECs in the order of the PUBLISHes");
    for id in ids {
        assert_eq!(publisher.pubrel(id), 0);
    }
    assert_eq!(kept.take_once(PIPELINED), payloads);
    assert_eq!(live.take_once(PIPELINED), payloads);
    drop(Connect::clean(Version::V5, "pipeline-durable").to(cluster.mqtt(1)));
}

/// What a subscriber has said stays said on every node: a message that arrived never comes again.
pub(crate) fn a_delivery_goes_on_anywhere(cluster: &mut Cluster) {
    for version in [Version::V4, Version::V5] {
        let (name, topic) = (format!("goes-on-{version:?}"), format!("goes-on/{version:?}"));
        let connect = Connect::durable(version, &name);
        let (mut client, _) = connect.to(cluster.mqtt(1));
        client.subscribe_2(&topic);
        let (mut publisher, _) = Connect::clean(version, &format!("{name}-p")).to(cluster.mqtt(2));
        for payload in ["complete", "released", "sent"] {
            publisher.publish_once(&topic, payload.as_bytes());
        }
        let complete = client.message();
        client.receive(&complete);
        client.complete(complete.id);
        let released = client.message();
        client.receive(&released);
        let sent = client.message();
        client.ping();
        drop(client);

        let (mut client, present) = connect.to(cluster.mqtt(3));
        assert!(present);
        let mut pubrels = BTreeSet::new();
        let again = loop {
            match client.hear(SOON) {
                Heard::Packet(Packet::PubRel { id, reason: 0 }) => pubrels.insert(id),
                Heard::Packet(Packet::Publish(publish)) => break publish,
                other => panic!("{name} hears {other:?}"),
            };
        };
        assert_eq!((again.dup, again.id, again.payload), (true, sent.id, b"sent".to_vec()));
        // A PUBCOMP of the last moment may be on its way still: then its PUBREL comes again, never the message.
        assert!(pubrels.remove(&released.id), "what is owed comes first");
        if pubrels.remove(&complete.id) {
            client.complete(complete.id);
        }
        assert!(pubrels.is_empty());
        client.complete(released.id);
        client.receive(&sent);
        client.complete(sent.id);
        client.hears_nothing();
        client.disconnect();
        let (mut client, _) = connect.to(cluster.mqtt(2));
        client.hears_nothing();
        drop(Connect::clean(version, &name).to(cluster.mqtt(1)));
    }
}

// ---- a cluster that is hurt

#[test]
fn a_qos_2_flow_outlives_a_kill_at_each_of_its_four_steps() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("killed: the leader of the publisher's shard", |cluster| {
                kill_at_each_step(cluster, Victim::PublishersLeader);
            }),
            ("killed: the leader of the subscriber's shard", |cluster| {
                kill_at_each_step(cluster, Victim::SubscribersLeader);
            }),
            ("killed: the node of the publisher's connection", |cluster| {
                kill_at_each_step(cluster, Victim::PublishersNode);
            }),
            ("replicas hold the same rows", |cluster| cluster.digests_agree()),
        ],
    );
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    PublishersLeader,
    SubscribersLeader,
    PublishersNode,
}

/// The last packet before the kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Publish,
    PubRec,
    PubRel,
    PubComp,
}

fn kill_at_each_step(cluster: &mut Cluster, victim: Victim) {
    for (turn, step) in (0..).zip([Step::Publish, Step::PubRec, Step::PubRel, Step::PubComp]) {
        println!("  after {step:?}");
        kill_after(cluster, victim, step, turn % 2 == 0);
    }
}

fn kill_after(cluster: &mut Cluster, victim: Victim, step: Step, v5: bool) {
    let version = if v5 { Version::V5 } else { Version::V4 };
    let (tag, topic) = (format!("{victim:?}-{step:?}"), format!("steps/{victim:?}/{step:?}"));
    let publisher = Connect::durable(version, &client_in(1, SHARDS, &format!("{tag}-p")));
    let subscriber = Connect::durable(version, &client_in(2, SHARDS, &format!("{tag}-s")));
    let dies = match victim {
        Victim::PublishersLeader | Victim::PublishersNode => cluster.leader(1, 1),
        Victim::SubscribersLeader => cluster.leader(2, 1),
    };
    let [one, other] = cluster.others(dies)[..] else { panic!("three nodes") };
    let at = if victim == Victim::PublishersNode { dies } else { one };
    let (mut listening, _) = subscriber.to_patiently(cluster.mqtt(one));
    listening.subscribe_2(&topic);
    let (mut speaking, _) = publisher.to_patiently(cluster.mqtt(at));

    speaking.publish_once(&topic, b"first");
    let mut receiver = Receiver::default();
    let first = listening.message();
    receiver.take(&mut listening, first, step);
    publish_until(&mut speaking, &topic, step);
    cluster.node_mut(dies).kill();
    drop((speaking, listening));

    let (mut speaking, present) = publisher.to_patiently(cluster.mqtt(other));
    assert!(present);
    finish_publish(&mut speaking, &topic, step);
    speaking.publish_2(ID, &topic, b"last", false);
    assert_eq!((speaking.pubrec(ID), speaking.pubrel(ID)), (0, 0));
    let (mut listening, present) = subscriber.to_patiently(cluster.mqtt(other));
    assert!(present);
    receiver.take_all(&mut listening, "last");
    assert_eq!(receiver.got, ["first", "second", "last"], "{victim:?} {step:?}");
    cluster.node_mut(dies).start_ready();
    for client in [publisher, subscriber] {
        drop(Connect { clean: true, expiry_s: None, ..client }.to_patiently(cluster.mqtt(other)));
    }
}

/// The packet id of the publish that is interrupted, and of the one after it.
const ID: u16 = 77;

/// Publishes up to and with the packet of `step`.
fn publish_until(client: &mut Client, topic: &str, step: Step) {
    client.publish_2(ID, topic, b"second", false);
    if step >= Step::PubRec {
        assert_eq!(client.pubrec(ID), 0);
    }
    match step {
        Step::Publish | Step::PubRec => {}
        Step::PubRel => client.send(&packet::pubrel(ID)).unwrap(),
        Step::PubComp => assert_eq!(client.pubrel(ID), 0),
    }
}

/// Goes on as a client does that remembers how far it got.
fn finish_publish(client: &mut Client, topic: &str, step: Step) {
    match step {
        Step::Publish => {
            client.publish_2(ID, topic, b"second", true);
            assert_eq!((client.pubrec(ID), client.pubrel(ID)), (0, 0));
        }
        Step::PubRec => assert_eq!(client.pubrel(ID), 0, "it was received"),
        // It may have been completed before the kill.
        Step::PubRel => assert_eq!(client.pubrel(ID), 0),
        Step::PubComp => {}
    }
}

/// A subscriber that keeps what the standard has it keep (4.3.3): packet ids from PUBLISH to PUBREL.
#[derive(Default)]
struct Receiver {
    got: Vec<String>,
    held: BTreeSet<u16>,
    /// Of these the PUBREL was heard on an earlier connection: their PUBLISH must not come again.
    released: BTreeSet<u16>,
}

impl Receiver {
    /// Takes a message up to and with the packet of `step`.
    fn take(&mut self, client: &mut Client, message: Publish, step: Step) {
        let id = message.id;
        self.hear(message);
        match step {
            Step::Publish => {}
            Step::PubRec => client.send(&packet::pubrec(id)).unwrap(),
            Step::PubRel | Step::PubComp => {
                client.send(&packet::pubrec(id)).unwrap();
                client.pubrel_of(id);
                self.held.remove(&id);
                self.released.insert(id);
                if step == Step::PubComp {
                    client.complete(id);
                }
            }
        }
    }

    fn hear(&mut self, message: Publish) {
        assert_eq!(message.qos, 2, "{message:?}");
        assert!(!self.released.contains(&message.id), "{message:?} after its PUBREL");
        if self.held.insert(message.id) {
            self.got.push(String::from_utf8(message.payload).unwrap());
        }
    }

    /// Takes everything, with all four packets, until `last` is complete.
    fn take_all(&mut self, client: &mut Client, last: &str) {
        until(&format!("{last} is complete"), READY, || {
            match client.hear(SOON) {
                Heard::Packet(Packet::Publish(message)) => {
                    client.send(&packet::pubrec(message.id)).unwrap();
                    self.hear(message);
                }
                Heard::Packet(Packet::PubRel { id, .. }) => {
                    self.held.remove(&id);
                    client.complete(id);
                }
                other => panic!("{other:?} of a QoS 2 subscription"),
            }
            let done = self.held.is_empty() && self.got.last().is_some_and(|got| got == last);
            done.then_some(())
        });
        client.hears_nothing();
    }
}
