//! Wills in a cluster: published once, when they should, whoever dies.

use std::time::{Duration, Instant};

use crate::harness::{
    client_in,
    cluster::{Cluster, SHARDS},
    mqtt::Client,
    packet::{Connect, Packet, Version, disconnect_with_will},
    scenarios,
    wait::{READY, until},
};

/// A delay that these tests wait for.
const DELAY_S: u32 = 2;
const DELAY: Duration = Duration::from_secs(DELAY_S as u64);
/// How long a will is waited for that must not come.
const NEVER: Duration = Duration::from_millis(3_500);

#[test]
fn wills_are_published_once_whoever_dies() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("a broken connection publishes the will, a goodbye does not", ends),
            ("a takeover publishes what does not wait", takeovers),
            ("a delayed will waits for its client on any node", delays),
            ("a dead node's clients leave their wills, once", a_dead_node),
            ("a dead leader's wills are published by the next one, once", a_dead_leader),
            ("replicas hold the same rows", |cluster| cluster.digests_agree()),
        ],
    );
}

/// A durable session that hears all wills of one test, and a live one.
struct Watch {
    durable: Client,
    live: Client,
}

impl Watch {
    fn on(cluster: &Cluster, node: u64, topic: &str) -> Self {
        let name = topic.replace('/', "-");
        let at = cluster.mqtt(node);
        let (mut durable, _) = Connect::durable(Version::V5, &format!("{name}-durable")).to(at);
        let (mut live, _) = Connect::clean(Version::V5, &format!("{name}-live")).to(at);
        durable.subscribe_1(topic);
        live.subscribe_1(topic);
        Self { durable, live }
    }

    #[track_caller]
    fn hears(&mut self, payload: &str) {
        assert_eq!(self.durable.take(1), [payload]);
        assert_eq!(self.live.take(1), [payload]);
    }

    /// The live session, whose node survived, hears each of these once, in any order. `wanted` is sorted.
    #[track_caller]
    fn live_hears_each_once(&mut self, wanted: &[String]) {
        let mut heard = self.live.take(wanted.len());
        heard.sort();
        assert_eq!(heard, wanted, "each once");
        self.live.hears_nothing();
    }

    #[track_caller]
    fn hears_nothing(&mut self) {
        self.durable.hears_nothing();
        self.live.hears_nothing();
    }
}

fn ends(cluster: &mut Cluster) {
    let mut watch = Watch::on(cluster, 1, "wills/ends");
    for (node, version) in [(1, Version::V4), (2, Version::V5), (3, Version::V5)] {
        for connect in [Connect::clean(version, "ends"), Connect::durable(version, "ends")] {
            let connect = connect.leaving("wills/ends", "broke", 0);
            let (client, _) = connect.to(cluster.mqtt(node));
            drop(client);
            watch.hears("broke");
            let (client, _) = connect.to(cluster.mqtt(node));
            client.disconnect();
            watch.hears_nothing();
        }
    }
    // With its session a will is over too, whatever its delay; and a client may ask for it.
    let connect = Connect::clean(Version::V5, "ends").leaving("wills/ends", "asked for", 3_600);
    let (mut client, _) = connect.to(cluster.mqtt(2));
    client.send(&disconnect_with_will()).unwrap();
    watch.hears("asked for");
    watch.hears_nothing();
}

fn takeovers(cluster: &mut Cluster) {
    let mut watch = Watch::on(cluster, 1, "wills/taken");
    let connect = |payload, delay_s| {
        Connect::durable(Version::V5, "taken").leaving("wills/taken", payload, delay_s)
    };
    let (_first, _) = connect("first", 0).to(cluster.mqtt(1));
    let (_second, present) = connect("second", 60).to(cluster.mqtt(2));
    assert!(present);
    watch.hears("first");
    let (_third, _) = connect("third", 60).to(cluster.mqtt(3));
    watch.hears_nothing();
    let wiping = Connect { clean: true, ..connect("fourth", 0) };
    let (fourth, present) = wiping.to(cluster.mqtt(1));
    assert!(!present);
    watch.hears("third");
    fourth.disconnect();
    watch.hears_nothing();
}

fn delays(cluster: &mut Cluster) {
    let mut watch = Watch::on(cluster, 3, "wills/delay");
    let connect = Connect::durable(Version::V5, "delay").leaving("wills/delay", "late", DELAY_S);
    let (client, _) = connect.to(cluster.mqtt(1));
    drop(client);
    let (client, present) = connect.to(cluster.mqtt(2));
    assert!(present, "back in time, elsewhere");
    watch.durable.hears_nothing_for(NEVER);
    watch.live.hears_nothing();
    let began = Instant::now();
    drop(client);
    watch.hears("late");
    assert!(began.elapsed() >= DELAY - Duration::from_millis(200), "{:?}", began.elapsed());
    watch.hears_nothing();
}

fn a_dead_node(cluster: &mut Cluster) {
    // A node that leads none of the shards that matter would be too easy: whichever it is, it led a third of them.
    let victim = 2;
    let mut watch = Watch::on(cluster, 1, "wills/node");
    let mut wanted = Vec::new();
    let mut clients = Vec::new();
    let mut saved = Vec::new();
    for shard in 1..=SHARDS {
        for (prefix, delay_s) in [("now", 0), ("later", DELAY_S)] {
            let id = client_in(shard, SHARDS, &format!("node-{prefix}"));
            let connect = Connect::durable(Version::V5, &id).leaving("wills/node", &id, delay_s);
            clients.push(connect.to(cluster.mqtt(victim)));
            wanted.push(id);
        }
        let id = client_in(shard, SHARDS, "node-saved");
        let connect = Connect::durable(Version::V5, &id).leaving("wills/node", &id, 60);
        clients.push(connect.to(cluster.mqtt(victim)));
        saved.push(connect);
    }
    cluster.node_mut(victim).kill();
    let back: Vec<_> = saved.iter().map(|saved| saved.to_patiently(cluster.mqtt(3))).collect();
    assert!(back.iter().all(|(_, present)| *present));
    let mut heard = watch.durable.take(wanted.len());
    heard.sort();
    wanted.sort();
    assert_eq!(heard, wanted, "each once");
    watch.durable.hears_nothing();
    watch.live_hears_each_once(&wanted);
    cluster.node_mut(victim).start_ready();
    watch.durable.hears_nothing_for(NEVER);
    watch.live.hears_nothing();
    back.into_iter().for_each(|(client, _)| client.disconnect());
}

fn a_dead_leader(cluster: &mut Cluster) {
    let shard = 1;
    let victim = cluster.leader(shard, 1);
    let (other, third) = (cluster.others(victim)[0], cluster.others(victim)[1]);
    let mut watch = Watch::on(cluster, other, "wills/leader");
    let mut wanted = Vec::new();
    for number in 0..20 {
        let id = client_in(shard, SHARDS, &format!("leader-{number}"));
        // Half of them break just before their leader dies, half wait for the next one.
        let delay_s = if number % 2 == 0 { 0 } else { DELAY_S };
        let connect = Connect::durable(Version::V5, &id).leaving("wills/leader", &id, delay_s);
        drop(connect.to(cluster.mqtt(third)));
        wanted.push(id);
    }
    cluster.node_mut(victim).kill();
    let mut heard = Vec::new();
    until("every will is heard", READY, || {
        if let crate::harness::mqtt::Heard::Packet(Packet::Publish(message)) =
            watch.durable.hear(Duration::from_millis(100))
        {
            watch.durable.ack(&message);
            // What was sent just before the leader died comes again, and says so.
            let payload = String::from_utf8(message.payload).unwrap();
            if !(message.dup && heard.contains(&payload)) {
                heard.push(payload);
            }
        }
        (heard.len() >= wanted.len()).then_some(())
    });
    heard.sort();
    wanted.sort();
    assert_eq!(heard, wanted, "each once");
    watch.live_hears_each_once(&wanted);
    cluster.node_mut(victim).start_ready();
    watch.durable.hears_nothing_for(NEVER);
    watch.live.hears_nothing();
}
