//! Mail and pulses, from an SDK's request to the cluster and back.

use std::time::Duration;

use bytes::Bytes;
use moorline_core::op::{EventKind, MailId, Settlement};

use crate::support::{
    agent::Place,
    bare::Bare,
    cluster::{Cluster, mail_id},
    node::{Manner, Node},
    sdk::drain,
};

/// More than Python's SDK can take in one go, and than a round of the cures.
const MANY: u16 = 400;
/// What both sides of the cure have agreed on.
const IN_A_ROW_MAX: usize = 50;

fn ids(numbers: impl Iterator<Item = u16>) -> Vec<String> {
    numbers.map(|number| mail_id(number.into()).to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_mails_are_drained_in_short_runs() {
    let cluster = Cluster::new(MANY.into());
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut events = agent.sdk().events().await;
    let (taken, longest) = drain(&agent.sdk(), &mut events, "ack", MANY.into()).await;
    assert_eq!(taken, ids(0..MANY));
    assert_eq!(longest, IN_A_ROW_MAX);
    assert_eq!(cluster.settled(Settlement::Ack).len(), usize::from(MANY));
    assert!(cluster.with(|world| world.mailbox.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_no_cure_is_drained_in_short_runs_as_well() {
    let bare = Bare::start((0..u128::from(MANY)).map(mail_id).collect()).await;
    let agent = Place::new(&[bare.address]).run().await;
    let mut events = agent.sdk().events().await;
    let (taken, longest) = drain(&agent.sdk(), &mut events, "ack", MANY.into()).await;
    assert_eq!(taken, ids(0..MANY));
    assert_eq!(longest, IN_A_ROW_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_may_come_byte_by_byte() {
    let cluster = Cluster::new(60);
    let manner = Manner { step: 1, ..Manner::default() };
    let node = Node::with(&cluster, manner, "127.0.0.1:0".parse().unwrap()).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut events = agent.sdk().events().await;
    let (taken, _) = drain(&agent.sdk(), &mut events, "ack", 60).await;
    assert_eq!(taken, ids(0..60));
    let body = format!("{{\"t\":\"{}\"}}", "x".repeat(20_000));
    assert_eq!(agent.sdk().post("/pulse/datapoint/env", &body).await.status, 200);
    let said = cluster.with(|world| world.events.clone());
    assert_eq!(said, [(EventKind::Datapoint, "env".to_owned(), Bytes::from(body))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_mail_is_gone_and_requeued_mail_comes_again_last() {
    let cluster = Cluster::new(3);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    sdk.events().await.until_connected().await;
    let table = [("requeue", 0), ("reject", 1), ("ack", 2), ("requeue", 0), ("ack", 0)];
    for (op, number) in table {
        let mail = sdk.ask("GET", "/mailbox/next").await;
        assert_eq!(mail.header("x-mail-id"), mail_id(number).to_string(), "{op}");
        let settled = sdk.mail_op(op, mail.header("x-mail-id")).await;
        let more = settled.header("x-mail-available").to_owned();
        assert_eq!(settled.json()["mail_available"].to_string(), more);
        let left = !cluster.with(|world| world.mailbox.is_empty());
        assert_eq!((settled.status, more), (200, left.to_string()), "{op}");
    }
    let of =
        |how| cluster.settled(how).into_iter().map(|id: MailId| id.to_string()).collect::<Vec<_>>();
    assert_eq!(of(Settlement::Reject), ids(1..2));
    assert_eq!(of(Settlement::Ack), [mail_id(2).to_string(), mail_id(0).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_mail_is_shown_and_stays() {
    let cluster = Cluster::new(2);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    for method in ["GET", "HEAD", "GET"] {
        let mail = sdk.ask(method, "/mailbox/next").await;
        let (has, body): (_, &[u8]) = match method {
            "GET" => ("true", b"{\"gate\":0}"),
            _ => ("false", b""),
        };
        assert_eq!((mail.status, mail.body.as_slice()), (200, body));
        let table = [
            ("x-mailbox-size", "2"),
            ("x-mailbox-empty", "false"),
            ("x-mail-id", &mail_id(0).to_string()),
            ("x-mail-name", "open-gate"),
            ("x-mail-has-payload", has),
            ("x-connected", "true"),
        ];
        for (name, value) in table {
            assert_eq!(mail.header(name), value, "{method}: {name}");
        }
    }
    cluster.with(|world| world.mailbox.clear());
    for method in ["GET", "HEAD"] {
        let mail = sdk.ask(method, "/mailbox/next").await;
        assert_eq!((mail.status, mail.body.len()), (200, 0));
        assert_eq!((mail.header("x-mailbox-size"), mail.header("x-mailbox-empty")), ("0", "true"));
        assert!(!mail.headers.keys().any(|name| name.starts_with("x-mail-")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_arrives_is_announced() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut events = agent.sdk().events().await;
    events.until_connected().await;
    // Once at a stream's begin, whatever is there. One that began before the uplink has nothing to announce.
    let mut later = agent.sdk().events().await;
    assert_eq!(later.next().await.unwrap(), "event: connected");
    assert_eq!(later.next().await.unwrap(), "event: new_mail");
    cluster.send(7);
    assert_eq!(later.next().await.unwrap(), "event: new_mail");
    let (taken, _) = drain(&agent.sdk(), &mut events, "ack", 1).await;
    assert_eq!(taken, ids(7..8));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulses_reach_the_cluster_as_they_were_written() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    let largest = format!("{{\"t\":\"{}\"}}", "x".repeat(65_536 - 8));
    #[rustfmt::skip]
    let table = [
        ("datapoint/env",     "{\"t\":21.50}", EventKind::Datapoint),
        ("msg/env",           "null",          EventKind::Message),
        ("msg/env",           "",              EventKind::Message),
        ("datapoint/env",     &largest,        EventKind::Datapoint),
        ("system/manifest_v0", "{\"a\": 1}",   EventKind::System),
    ];
    for (path, body, kind) in table {
        let answer = sdk.post(&format!("/pulse/{path}"), body).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"ok\":true}"[..]));
        let said = cluster.with(|world| world.events.pop()).unwrap();
        let name = path.split('/').next_back().unwrap();
        assert_eq!(said, (kind, name.to_owned(), Bytes::copy_from_slice(body.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_cluster_are_told() {
    let cluster = Cluster::new(1);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    let (status, error) = sdk.post("/pulse/datapoint/unknown", "{\"t\":1}").await.error();
    assert!(status == 403 && error.starts_with("packet_schema_not_found: "), "{error}");
    let (status, error) = sdk.mail_op("ack", &mail_id(9).to_string()).await.error();
    assert!(status == 403 && error.starts_with("mail_ack_failed: "), "{error}");
    let (status, error) = sdk.mail_op("ack", "not-a-uuid").await.error();
    assert!(status == 400 && error.starts_with("invalid_pulse_id: "), "{error}");
    assert_eq!(cluster.with(|world| world.mailbox.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_all_answered() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..300 {
        let sdk = agent.sdk();
        asking.spawn(async move {
            // More than may be under way at once is refused, and nothing of that was sent.
            loop {
                let answer = sdk.post("/pulse/datapoint/env", &format!("{{\"n\":{number}}}")).await;
                if answer.status == 200 {
                    return;
                }
                assert_eq!(
                    answer.error(),
                    (403, "failed: too many requests are under way".to_owned())
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    let mut said = cluster
        .with(|world| world.events.iter().map(|(_, _, body)| body.clone()).collect::<Vec<_>>());
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 300);
}
