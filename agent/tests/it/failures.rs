//! What an agent does when nodes die, refuse it, or do not answer.

use std::{net::SocketAddr, ops::RangeInclusive};

use moorline_core::op::{Denial, Settlement};
use serde_json::Value;
use tokio::{net::TcpListener, time::Instant};

use crate::support::{
    agent::Place,
    cluster::{Cluster, mail_id},
    node::{Manner, Node},
    sdk::drain,
    until,
};

/// How long an agent waits after its credentials were refused.
const UNAUTHORIZED_MS: u64 = 300_000;

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_node_dies_the_other_goes_on_at_once() {
    let cluster = Cluster::new(20);
    let nodes = [Node::start(&cluster).await, Node::start(&cluster).await];
    let agent = Place::new(&[nodes[0].address, nodes[1].address]).run().await;
    let sdk = agent.sdk();
    let mut events = sdk.events().await;
    let (taken, _) = drain(&sdk, &mut events, "ack", 20).await;
    assert_eq!(taken.len(), 20);
    let (dies, lives): (Vec<_>, Vec<_>) =
        nodes.into_iter().partition(|node| node.connections() > 0);
    drop(dies);
    let lost = events.until_told_why().await;
    assert_eq!(lost["reconnecting_in_ms"], 0);
    assert!(lost["error"].as_str().unwrap().starts_with("connect_failed: "), "{lost}");
    events.until_connected().await;
    assert_eq!(lives[0].connections(), 1);
    cluster.send(20);
    let (taken, _) = drain(&sdk, &mut events, "ack", 1).await;
    assert_eq!(taken, [mail_id(20).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_not_there_are_passed_over() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let nodes = [nobody().await, nobody().await, node.address, nobody().await];
    let agent = Place::new(&nodes).run().await;
    until("the agent is connected", || node.connections() == 1).await;
    let log = agent.log();
    let waits = log.matches("next attempt in ").count();
    assert!(waits < 4 && log.matches("next attempt in 0 ms").count() == waits, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_is_left_for_another() {
    let cluster = Cluster::new(0);
    let nodes = [Node::start(&cluster).await, Node::start(&cluster).await];
    let agent = Place::new(&[nodes[0].address, nodes[1].address]).run().await;
    let mut events = agent.sdk().events().await;
    events.until_connected().await;
    let (stops, stays): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.connections() > 0);
    stops[0].say_goodbye().await;
    let lost = events.until_told_why().await;
    assert_eq!(lost["error"], "connect_failed: the server closed the connection");
    events.until_connected().await;
    assert_eq!(stays[0].connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_the_next_connection() {
    let cluster = Cluster::new(1);
    let node = Node::start(&cluster).await;
    let address = node.address;
    let agent = Place::new(&[address]).run().await;
    let sdk = agent.sdk();
    let mut events = sdk.events().await;
    events.until_connected().await;
    drop(node);
    events.until("disconnected").await;
    let status = sdk.ask("GET", "/").await.json();
    assert_eq!((&status["connected"], &status["error"]), (&false.into(), &"connect_failed".into()));
    let asked = tokio::join!(
        sdk.ask("GET", "/mailbox/next"),
        sdk.post("/pulse/datapoint/env", "{\"t\":1}"),
        async { Node::with(&cluster, Manner::default(), address).await }
    );
    assert_eq!(asked.0.header("x-mail-id"), mail_id(0).to_string());
    assert_eq!(asked.1.status, 200);
    assert_eq!(cluster.with(|world| world.events.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_answer_was_lost_is_said_again_and_a_pulse_is_not() {
    let cluster = Cluster::new(2);
    let nodes = [Node::start(&cluster).await, Node::start(&cluster).await];
    let agent = Place::new(&[nodes[0].address, nodes[1].address]).run().await;
    let sdk = agent.sdk();
    cluster.with(|world| world.cut_settlement = true);
    let settled = sdk.mail_op("ack", &mail_id(0).to_string()).await;
    assert_eq!((settled.status, settled.header("x-mail-available")), (200, "true"));
    assert_eq!(cluster.settled(Settlement::Ack), [mail_id(0)]);
    cluster.with(|world| world.cut_event = true);
    let (status, error) = sdk.post("/pulse/datapoint/env", "{\"t\":1}").await.error();
    assert!(status == 403 && error.starts_with("txn_failed: "), "{error}");
    assert_eq!(cluster.with(|world| world.events.len()), 1);
    assert_eq!(sdk.post("/pulse/datapoint/env", "{\"t\":1}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_told_to_whoever_comes_later() {
    let cluster = Cluster::new(0);
    let nodes = [Node::start(&cluster).await, Node::start(&cluster).await];
    let mut place = Place::new(&[nodes[0].address, nodes[1].address]);
    place.set("FOSTROM_DEVICE_SECRET", "FOS-ZZZZ456789ABCDEFGHIJKLMNOPQRSTUV");
    let agent = place.run().await;
    let sdk = agent.sdk();
    // Whether it attached before or after, it hears why.
    let refused = sdk.events().await.until_told_why().await;
    let first = sdk.events().await.next().await.unwrap();
    let first = serde_json::from_str(first.split_once("\ndata: ").unwrap().1).unwrap();
    for data in [refused, first] as [Value; 2] {
        assert_eq!(data["error"], "unauthorized: the device secret is wrong");
        let wait_ms = data["reconnecting_in_ms"].as_u64().unwrap();
        assert!((UNAUTHORIZED_MS / 2..=UNAUTHORIZED_MS * 6 / 5).contains(&wait_ms), "{wait_ms}");
    }
    let status = sdk.ask("GET", "/").await;
    assert_eq!(status.header("x-connected"), "false");
    let status = status.json();
    assert_eq!(status["connected"], false);
    assert_eq!(
        (&status["error"], &status["msg"]),
        (&"unauthorized".into(), &"the device secret is wrong".into())
    );
    assert!(status["reconnecting_in"].as_u64().unwrap() > UNAUTHORIZED_MS / 2);
    // One node said so for all.
    assert_eq!(nodes.iter().map(Node::connections).sum::<usize>(), 0);
    assert_eq!(agent.log().matches("unauthorized").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_not_now_is_tried_again_ever_later() {
    let cluster = Cluster::new(0);
    cluster.with(|world| world.denial = Some(Denial::Unavailable));
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut events = agent.sdk().events().await;
    // The first one may be what is left of a wait.
    events.until_told_why().await;
    let mut waits = Vec::new();
    for _ in 0..2 {
        let told = events.until_told_why().await;
        assert_eq!(told["error"], "connect_failed: the server is unavailable");
        waits.push(told["reconnecting_in_ms"].as_u64().unwrap());
    }
    let ranges = [1_000..=1_200, 2_500..=3_000, 5_000..=6_000, 10_000..=12_000, 15_000..=18_000];
    let grows = |pair: &[RangeInclusive<u64>]| {
        pair.iter().zip(&waits).all(|(range, wait)| range.contains(wait))
    };
    assert!(ranges.windows(2).any(grows), "{waits:?}");
    cluster.with(|world| world.denial = None);
    events.until_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_requests_wait_ten_seconds() {
    let agent = Place::new(&[nobody().await]).run().await;
    let sdk = agent.sdk();
    let began = Instant::now();
    let id = mail_id(0).to_string();
    let answers = tokio::join!(
        sdk.ask("GET", "/mailbox/next"),
        sdk.ask("HEAD", "/mailbox/next"),
        sdk.mail_op("ack", &id),
        sdk.post("/pulse/msg/env", "null"),
    );
    let waited = began.elapsed();
    assert!((10..30).contains(&waited.as_secs()), "{waited:?}");
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        let (status, error) = answer.error();
        assert!(status == 403 && error.starts_with("not_connected: "), "{status} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_waited_for_ten_seconds() {
    let cluster = Cluster::new(1);
    cluster.with(|world| world.silent = true);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    sdk.events().await.until_connected().await;
    let began = Instant::now();
    let id = mail_id(0).to_string();
    let answers = tokio::join!(
        sdk.ask("GET", "/mailbox/next"),
        sdk.mail_op("ack", &id),
        sdk.post("/pulse/msg/env", "null"),
    );
    let waited = began.elapsed();
    assert!((10..30).contains(&waited.as_secs()), "{waited:?}");
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(answer.error(), (408, "Operation timed out".to_owned()));
    }
    assert_eq!(node.connections(), 1);
}
