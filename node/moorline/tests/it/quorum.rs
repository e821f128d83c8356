//! Two nodes of three are gone: what is refused, what is said, what can be read; one comes back, and everything goes on.

use std::time::{Duration, Instant};

use crate::harness::{
    cluster::Cluster,
    http,
    mqtt::{Client, Heard, numbered},
    packet::{Connect, Packet, Version},
    wait::{READY, until, until_true},
};

/// How long it is watched that nothing is acknowledged: longer than a lease of the meta group.
const WATCHED: Duration = Duration::from_secs(4);
/// Less than what was sent is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);
const LOST: &str = "no majority, 1 of 3 votes: nodes 2 and 3 are down";

#[test]
fn without_a_majority_nothing_is_taken_and_it_is_said_until_one_is_back() {
    let mut cluster = Cluster::start(3);
    let connect = Connect::durable(Version::V5, "quorum-subscriber");
    let (mut subscriber, _) = connect.to(cluster.mqtt(1));
    subscriber.subscribe_1("quorum");
    subscriber.disconnect();
    let (mut publisher, _) = Connect::clean(Version::V5, "quorum-publisher").to(cluster.mqtt(1));
    let before = numbered("before", 0..20);
    for payload in &before {
        publisher.publish_acked("quorum", payload.as_bytes());
    }
    cluster.node_mut(2).kill();
    cluster.node_mut(3).kill();

    nothing_is_acknowledged(publisher);
    it_is_said(&cluster);
    what_is_left_can_be_read(&cluster);
    nothing_is_sent(&cluster);
    assert!(Connect::clean(Version::V5, "late").attempt(cluster.mqtt(1)).is_err());

    cluster.node_mut(2).start();
    let mut publisher = until("a publish is acknowledged again", READY, || {
        let (mut client, _) =
            Connect::clean(Version::V5, "quorum-again").attempt(cluster.mqtt(1)).ok()?;
        let id = client.publish_unchecked("quorum", b"after");
        match client.hear(READY) {
            Heard::Packet(Packet::PubAck { id: acked, reason: 0 }) if acked == id => Some(client),
            _ => None,
        }
    });
    publisher.publish_acked("quorum", b"last");
    let (mut subscriber, present) = connect.to_patiently(cluster.mqtt(2));
    assert!(present, "its session was acknowledged");
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "last") {
        got.extend(subscriber.take(1));
    }
    // What nobody was told of may be there or not.
    got.retain(|payload| !payload.starts_with("unknown"));
    got.dedup();
    let expected: Vec<&str> = before.iter().map(String::as_str).chain(["after", "last"]).collect();
    assert_eq!(got, expected);
    until_true("no group is lost any more", READY, || {
        let view = cluster.node(1).view();
        view.is_some_and(|view| !view["waiting_for"].to_string().contains("no majority"))
    });

    cluster.node_mut(3).start();
    cluster.wait_ready();
    let replicas = cluster.node(1).view().unwrap()["replicas"].clone();
    assert_eq!(replicas, 3, "what was refused was not carried out later");
    cluster.digests_agree();
}

fn nothing_is_acknowledged(mut publisher: Client) {
    for payload in numbered("unknown", 0..5) {
        publisher.publish_unchecked("quorum", payload.as_bytes());
    }
    let since = Instant::now();
    while since.elapsed() < WATCHED {
        match publisher.hear(WATCHED.saturating_sub(since.elapsed())) {
            Heard::Packet(Packet::PubAck { reason, .. }) => {
                assert!(reason >= 0x80, "acknowledged by one node of three");
            }
            Heard::Packet(_) | Heard::Nothing => {}
            Heard::Closed => break,
        }
    }
}

fn it_is_said(cluster: &Cluster) {
    let admin = cluster.node(1).admin;
    until_true("readiness says which votes are missing", READY, || {
        let ready = http::get(admin, "/health/ready").unwrap();
        ready.status == 503 && ready.body.contains(LOST) && ready.body.contains("Start those nodes")
    });
    let said = http::get(admin, "/api/v1/guarantees").unwrap().json();
    assert_eq!(said["survives"], -1, "{said}");
    assert!(said["sentences"][0].as_str().unwrap().contains(LOST), "{said}");
    let waits = cluster.node(1).view().unwrap()["waiting_for"].to_string();
    assert_eq!(waits.matches(LOST).count(), 1, "{waits}");
    assert_eq!(
        http::get(admin, "/health/live").unwrap().status,
        200,
        "nobody restarts it for that"
    );
}

/// What needs the meta group is refused before it is sent: nobody may hear a no, and see it done when the nodes are back.
fn nothing_is_sent(cluster: &Cluster) {
    for command in ["replicas?copies=1", "drain?node=2", "token", "remove?node=3"] {
        let since = Instant::now();
        let path = format!("/api/v1/cluster/{command}");
        let refused = http::post(cluster.node(1).admin, &path).unwrap();
        assert_eq!(refused.status, 409, "{command}: {}", refused.body);
        assert!(refused.body.contains("nothing was sent"), "{command}: {}", refused.body);
        assert!(since.elapsed() < AT_ONCE, "{command}: {:?}", since.elapsed());
    }
}

fn what_is_left_can_be_read(cluster: &Cluster) {
    let admin = cluster.node(1).admin;
    let session = http::get(admin, "/api/v1/sessions?client=quorum-subscriber").unwrap();
    assert_eq!(session.status, 200, "{}", session.body);
    assert!(session.head.contains("moorline-consistency: stale"), "{}", session.head);
    assert!(session.json()["queued_messages"].as_u64().unwrap() >= 20, "{}", session.body);
    let tenants = http::get(admin, "/api/v1/stale/tenants").unwrap();
    assert_eq!((tenants.status, &tenants.json()["node"]), (200, &1.into()), "{}", tenants.body);
    assert!(tenants.head.contains("moorline-consistency: stale"), "{}", tenants.head);
    let path = "/api/v1/stale/device?tenant=nobody&device=nothing";
    assert_eq!(http::get(admin, path).unwrap().status, 404);
}
