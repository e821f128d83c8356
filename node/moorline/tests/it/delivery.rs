//! A healthy cluster: whoever publishes and subscribes where, it is one broker.

use crate::{
    harness::{
        cluster::Cluster,
        mqtt::Client,
        packet::{self, Connect, Version},
        rumqtt::{Device, Told},
        scenarios,
    },
    once, operating, sessions,
};

#[test]
fn a_healthy_cluster_is_one_broker() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("messages get from every node to every node", from_every_node_to_every_node),
            ("a SUBACK covers what any node accepts next", a_suback_covers_what_comes_next),
            ("a node knows its own subscribers at once", a_node_knows_its_own_at_once),
            ("an UNSUBACK ends it", an_unsuback_ends_it),
            ("a publish nobody wants is answered so", a_publish_nobody_wants_is_answered_so),
            ("a clean session leaves nothing", sessions::a_clean_session_leaves_nothing),
            ("a durable session resumes anywhere (3.1.1)", sessions::resumes_anywhere_v4),
            ("a durable session resumes anywhere (5.0)", sessions::resumes_anywhere_v5),
            ("a clean start wipes on all nodes", sessions::a_clean_start_wipes_on_all_nodes),
            ("a takeover is told and loses nothing", sessions::a_takeover_is_told),
            ("a session that changes nodes often misses nothing", sessions::changes_nodes_often),
            ("expiry is kept", sessions::expiry_is_kept),
            ("QoS 2 goes from every node to every node", once::across_nodes),
            ("a QoS 2 publish that is repeated counts once", once::a_repeat_counts_once),
            ("QoS 2 publishes stay in order", once::many_at_once_stay_in_order),
            ("a QoS 2 delivery goes on anywhere", once::a_delivery_goes_on_anywhere),
            ("health tells what there is", operating::health_tells_what_there_is),
            ("metrics are there by their documented names", operating::metrics_are_there),
            ("status comes as table and as JSON", operating::status_comes_both_ways),
            ("a new cluster is at the level of its nodes", operating::levels_are_shown_and_kept),
            ("pub and sub talk to each other", operating::pub_and_sub_talk),
            ("replicas hold the same rows", |cluster| cluster.digests_agree()),
        ],
    );
}

fn from_every_node_to_every_node(cluster: &mut Cluster) {
    for version in [Version::V4, Version::V5] {
        let mut devices: Vec<(u64, Device)> = Vec::new();
        for node in cluster.nodes() {
            let id = format!("pairs-{version:?}-{}", node.id);
            let mut device = Device::connect(version, &id, node.mqtt);
            device.subscribe(&format!("pairs/{version:?}/+/{}", node.id));
            devices.push((node.id, device));
        }
        for from in 0..devices.len() {
            for to in 0..devices.len() {
                for qos in [0, 1] {
                    let (publisher, subscriber) = (devices[from].0, devices[to].0);
                    let topic = format!("pairs/{version:?}/{qos}/{subscriber}");
                    let payload = format!("from {publisher} to {subscriber} with {qos}");
                    if from == to {
                        // Its own message may come before its own acknowledgement.
                        let mut other =
                            Device::connect(version, "pairs-same", cluster.mqtt(publisher));
                        other.publish(&topic, qos, &payload);
                    } else {
                        devices[from].1.publish(&topic, qos, &payload);
                    }
                    let expected = Told::Message { topic, payload, qos };
                    assert_eq!(devices[to].1.message(), expected);
                }
            }
        }
    }
}

/// How often; each time on another pair of nodes than before.
const ROUNDS: usize = 100;

fn a_suback_covers_what_comes_next(cluster: &mut Cluster) {
    let connect = |kind: fn(Version, &str) -> Connect, name: &str| -> Vec<Client> {
        let nodes = cluster.nodes().iter();
        nodes
            .map(|node| kind(Version::V5, &format!("{name}-{}", node.id)).to(node.mqtt).0)
            .collect()
    };
    let mut publishers = connect(Connect::clean, "suback-publisher");
    let mut durable = connect(Connect::durable, "suback-durable");
    let mut clean = connect(Connect::clean, "suback-clean");
    for round in 0..ROUNDS {
        let (at, from) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        for (kind, subscribers) in [("durable", &mut durable), ("clean", &mut clean)] {
            let topic = format!("suback/{kind}/{round}");
            subscribers[at].subscribe_1(&topic);
            publishers[from].publish_acked(&topic, b"at once");
            let message = subscribers[at].message();
            assert_eq!((message.topic.as_str(), message.qos), (topic.as_str(), 1));
            subscribers[at].ack(&message);
        }
    }
    for client in durable.into_iter().chain(clean).chain(publishers) {
        client.disconnect();
    }
}

/// No SUBACK is waited for, only that the node has read the SUBSCRIBE; clients' tests of others rely on it.
fn a_node_knows_its_own_at_once(cluster: &mut Cluster) {
    let node = cluster.mqtt(2);
    let (mut publisher, _) = Connect::clean(Version::V5, "early-publisher").to(node);
    let (mut subscriber, _) = Connect::clean(Version::V5, "early").to(node);
    for round in 0..ROUNDS {
        let topic = format!("early/{round}");
        let subscribe = packet::subscribe(Version::V5, 1, &[(&topic, 1)]);
        subscriber.send(&[subscribe, packet::pingreq()].concat()).unwrap();
        subscriber.heard_ping();
        publisher.publish_acked(&topic, b"early");
        assert_eq!(subscriber.suback(1), [1]);
        let message = subscriber.message();
        assert_eq!(message.topic, topic);
        subscriber.ack(&message);
    }
    subscriber.disconnect();
    publisher.disconnect();
}

fn an_unsuback_ends_it(cluster: &mut Cluster) {
    let (mut subscriber, _) = Connect::durable(Version::V5, "unsuback").to(cluster.mqtt(1));
    let (mut publisher, _) = Connect::clean(Version::V5, "unsuback-publisher").to(cluster.mqtt(2));
    subscriber.subscribe_1("unsuback/+");
    publisher.publish_acked("unsuback/1", b"before");
    assert_eq!(subscriber.take(1), ["before"]);
    assert_eq!(subscriber.unsubscribe("unsuback/+"), [0]);
    assert_eq!(subscriber.unsubscribe("unsuback/+"), [0x11], "there is no such subscription now");
    // Nobody may want it any more, or its route is on its way out: both are answers of success.
    let id = publisher.publish("unsuback/1", b"after");
    assert!(publisher.puback(id) < 0x80);
    subscriber.hears_nothing();
}

fn a_publish_nobody_wants_is_answered_so(cluster: &mut Cluster) {
    let (mut v5, _) = Connect::clean(Version::V5, "unwanted-5").to(cluster.mqtt(1));
    let id = v5.publish("nobody/wants/this", b"");
    assert_eq!(v5.puback(id), 0x10);
    let (mut v4, _) = Connect::clean(Version::V4, "unwanted-4").to(cluster.mqtt(2));
    v4.publish_acked("nobody/wants/this", b"");
}
