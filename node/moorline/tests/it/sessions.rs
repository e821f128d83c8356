//! Sessions of a healthy cluster: they belong to nobody's node.

use std::{thread::sleep, time::Duration};

use crate::harness::{
    cluster::Cluster,
    mqtt::{AN_HOUR_S, Heard, numbered},
    packet::{Connect, Packet, Version},
    wait::SOON,
};

/// Session and message expiry that these tests wait for, and how long they wait for it.
const SHORT_S: u32 = 2;
const AFTER_SHORT: Duration = Duration::from_millis(3_500);

pub(crate) fn a_clean_session_leaves_nothing(cluster: &mut Cluster) {
    for version in [Version::V4, Version::V5] {
        let connect = Connect::clean(version, "clean");
        let (mut client, present) = connect.to(cluster.mqtt(1));
        assert!(!present);
        client.subscribe_1("clean/#");
        drop(client);
        let (mut client, present) = Connect { clean: false, ..connect.clone() }.to(cluster.mqtt(2));
        assert!(!present, "{version:?}: a clean session is gone with its connection");
        let (mut publisher, _) = Connect::clean(Version::V5, "clean-publisher").to(cluster.mqtt(3));
        let id = publisher.publish("clean/1", b"");
        assert!(publisher.puback(id) < 0x80);
        client.hears_nothing();
        // What version 4 made durable just now goes again.
        drop(connect.to(cluster.mqtt(1)));
    }
}

pub(crate) fn resumes_anywhere_v4(cluster: &mut Cluster) {
    resumes_anywhere(cluster, Version::V4);
}

pub(crate) fn resumes_anywhere_v5(cluster: &mut Cluster) {
    resumes_anywhere(cluster, Version::V5);
}

fn resumes_anywhere(cluster: &Cluster, version: Version) {
    let name = format!("resumes-{version:?}");
    let topic = format!("resumes/{version:?}");
    let connect = Connect::durable(version, &name);
    let (mut client, present) = connect.to(cluster.mqtt(1));
    assert!(!present, "nobody knows it yet");
    client.subscribe_1(&topic);
    let (mut publisher, _) = Connect::clean(version, &format!("{name}-p")).to(cluster.mqtt(2));
    let payloads = numbered("m", 0..30);
    for payload in &payloads[..5] {
        publisher.publish_acked(&topic, payload.as_bytes());
    }
    let before: Vec<_> = (0..5).map(|_| client.message()).collect();
    assert!(before.iter().all(|message| !message.dup && message.qos == 1 && message.id != 0));
    for message in &before[..3] {
        client.ack(message);
    }
    client.ping();
    drop(client);
    for payload in &payloads[5..] {
        publisher.publish_acked(&topic, payload.as_bytes());
    }

    let (mut client, present) = connect.to(cluster.mqtt(3));
    assert!(present, "{name} goes on on another node");
    for (place, payload) in payloads.iter().enumerate().skip(3) {
        let message = client.message();
        assert_eq!(String::from_utf8_lossy(&message.payload), *payload, "in order, nothing twice");
        if let Some(earlier) = before.get(place) {
            assert_eq!((message.dup, message.id), (true, earlier.id), "{payload} is sent again");
        }
        // Those after may say so too: until node 1 notices that the connection is gone, it sends on it.
        client.ack(&message);
    }
    client.hears_nothing();
    client.disconnect();

    let (mut client, present) = connect.to(cluster.mqtt(2));
    assert!(present);
    client.hears_nothing();
    publisher.publish_acked(&topic, b"still subscribed");
    assert_eq!(client.take(1), ["still subscribed"]);
    drop(Connect::clean(version, &name).to(cluster.mqtt(1)));
}

pub(crate) fn a_clean_start_wipes_on_all_nodes(cluster: &mut Cluster) {
    let connect = Connect::durable(Version::V5, "wiped");
    let (mut client, _) = connect.to(cluster.mqtt(1));
    client.subscribe_1("wiped");
    client.disconnect();
    let (mut publisher, _) = Connect::clean(Version::V5, "wiped-publisher").to(cluster.mqtt(1));
    publisher.publish_acked("wiped", b"waits");
    // A clean start whose new session stays: nothing of the old one may come back, on no node.
    let (mut fresh, present) = Connect { clean: true, ..connect.clone() }.to(cluster.mqtt(2));
    assert!(!present);
    fresh.hears_nothing();
    fresh.disconnect();
    let id = publisher.publish("wiped", b"nobody wants it now");
    assert!(publisher.puback(id) < 0x80);
    for node in [3, 1, 2] {
        let (mut client, present) = connect.to(cluster.mqtt(node));
        assert!(present, "the new session is there on node {node}");
        client.hears_nothing();
        client.disconnect();
    }
}

pub(crate) fn a_takeover_is_told(cluster: &mut Cluster) {
    for (version, goodbye) in [
        (Version::V4, Heard::Closed),
        (Version::V5, Heard::Packet(Packet::Disconnect { reason: 0x8E })),
    ] {
        let topic = format!("takeover/{version:?}");
        let connect = Connect::durable(version, &format!("takeover-{version:?}"));
        let (mut old, _) = connect.to(cluster.mqtt(1));
        old.subscribe_1(&topic);
        let (mut publisher, _) =
            Connect::clean(Version::V5, "takeover-publisher").to(cluster.mqtt(3));
        publisher.publish_acked(&topic, b"taken");
        publisher.publish_acked(&topic, b"not taken");
        assert_eq!(old.take(1), ["taken"]);
        let unacknowledged = old.message();
        old.ping();

        let (mut new, present) = connect.to(cluster.mqtt(2));
        assert!(present);
        assert_eq!(old.hear(SOON), goodbye, "{version:?}: the old connection is told");
        if version == Version::V5 {
            assert_eq!(old.hear(SOON), Heard::Closed);
        }
        // An acknowledgement of the last moment may have been on its way still; then its message comes first, again.
        let mut again = new.message();
        while again.payload == b"taken" {
            assert!(again.dup, "{version:?}: what comes again says so");
            new.ack(&again);
            again = new.message();
        }
        assert_eq!((&again.payload, again.id), (&unacknowledged.payload, unacknowledged.id));
        new.ack(&again);
        publisher.publish_acked(&topic, b"later");
        assert_eq!(new.take(1), ["later"]);
        // The old connection's end does not end the new one.
        drop(old);
        publisher.publish_acked(&topic, b"last");
        assert_eq!(new.take(1), ["last"]);
        drop(Connect::clean(version, &connect.client).to(cluster.mqtt(2)));
    }
}

/// How often the session moves, and what is published each time.
const MOVES: usize = 12;
const EACH: usize = 10;

pub(crate) fn changes_nodes_often(cluster: &mut Cluster) {
    let connect = Connect::durable(Version::V5, "moves");
    let (mut client, _) = connect.to(cluster.mqtt(1));
    client.subscribe_1("moves");
    let (mut publisher, _) = Connect::clean(Version::V5, "moves-publisher").to(cluster.mqtt(2));
    let mut taken = Vec::new();
    for round in 0..MOVES {
        let payloads = numbered("m", round * EACH..(round + 1) * EACH);
        let ids: Vec<_> =
            payloads.iter().map(|p| publisher.publish("moves", p.as_bytes())).collect();
        // It moves while they are under way, with some of them taken.
        taken.extend(client.take(EACH / 2));
        client.ping();
        client = connect.to(cluster.mqtt(round as u64 % 3 + 1)).0;
        for id in ids {
            assert_eq!(publisher.puback(id), 0);
        }
    }
    let wanted = numbered("m", 0..MOVES * EACH);
    while taken.last() != wanted.last() {
        taken.extend(client.take(1));
    }
    // Acknowledgements of the last moment before a move may come too late, and their messages again: a repeated tail,
    // never a gap and never disorder.
    let mut next = 0;
    for payload in taken {
        let place = wanted.iter().position(|one| *one == payload).expect("it was published");
        assert!(place <= next, "{payload} came before {}", wanted[next]);
        next = next.max(place + 1);
    }
    client.hears_nothing();
}

pub(crate) fn expiry_is_kept(cluster: &mut Cluster) {
    let session = |name: String, expiry_s| Connect::durable(Version::V5, &name).expiring(expiry_s);
    let short: Vec<_> = (1..=3).map(|n| session(format!("expires-soon-{n}"), SHORT_S)).collect();
    let long: Vec<_> = (1..=3).map(|n| session(format!("expires-late-{n}"), AN_HOUR_S)).collect();
    for connect in short.iter().chain(&long) {
        let (mut client, _) = connect.to(cluster.mqtt(1));
        client.subscribe_1("expires");
        drop(client);
    }
    let (mut publisher, _) = Connect::clean(Version::V5, "expires-publisher").to(cluster.mqtt(2));
    for (payload, expiry_s) in
        [("for ever", None), ("an hour", Some(AN_HOUR_S)), ("a moment", Some(SHORT_S))]
    {
        let id = publisher.publish_expiring("expires", payload.as_bytes(), expiry_s);
        assert_eq!(publisher.puback(id), 0);
    }
    sleep(AFTER_SHORT); // time itself is what is tested
    for (node, (short, long)) in (1..).zip(short.iter().zip(&long)) {
        let (_, present) = short.to(cluster.mqtt(node));
        assert!(!present, "node {node}: a session of {SHORT_S} s is gone");
        let (mut client, present) = long.to(cluster.mqtt(node));
        assert!(present, "node {node}: a session of an hour is there");
        let messages = [client.message(), client.message()];
        let payloads = messages.each_ref().map(|message| String::from_utf8_lossy(&message.payload));
        assert_eq!(payloads, ["for ever", "an hour"], "node {node}");
        assert_eq!(messages[0].expiry_s, None);
        let left = messages[1].expiry_s.expect("it still expires");
        assert!((AN_HOUR_S - 60..AN_HOUR_S).contains(&left), "{left} s left of {AN_HOUR_S}");
        client.hears_nothing();
        drop(Connect::clean(Version::V5, &long.client).to(cluster.mqtt(node)));
    }
}
