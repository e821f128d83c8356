//! The local API's sockets: what is no request, who may ask, streams that are refused or silent.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    agent::Place,
    cluster::Cluster,
    node::Node,
    sdk::{exchange, headers},
    until, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_of_an_sdk_is_refused() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    let headers = headers();
    let with = |line: &str| format!("{line}\r\n{headers}");
    let long = "x".repeat(9_000);
    let large = "1".repeat(65_537);
    #[rustfmt::skip]
    let table = [
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 505, "HTTP Version Not Supported"),
        ("OPTIONS / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request: the method is not supported"),
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request: the head is malformed"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 400, "bad_request: a line is too long"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), 400, "bad_request: too many headers"),
        (with("POST /pulse/msg/a HTTP/1.1\r\nTransfer-Encoding: chunked") + "\r\n4\r\nnull\r\n0\r\n\r\n", 400,
            "bad_request: bodies come with Content-Length only"),
        (with("POST /pulse/msg/a HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 65537") + "\r\n" + &large, 400,
            "bad_request: the body is too long"),
        (with("POST /pulse/msg/a HTTP/1.1\r\nContent-Length: 4") + "\r\nnull", 400, "bad_request: bodies are application/json"),
        (with("GET /mailbox/next?x HTTP/1.1") + "\r\n", 404, "Not Found"),
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400, "Fleet ID is missing"),
        ("GET /mailbox/next HTTP/1.1\r\nX-Fleet-ID: FLEET002\r\nX-Device-ID: DEVICE0001\r\n\r\n".to_owned(), 401, "Fleet ID mismatch"),
        ("GET /mailbox/next HTTP/1.1\r\nX-Fleet-ID: FLEET001\r\nX-Device-ID: DEVICE0002\r\n\r\n".to_owned(), 401, "Device ID mismatch"),
    ];
    for (bytes, status, error) in table {
        assert_eq!(sdk.send(&bytes).await.error(), (status, error.to_owned()));
    }
    let ping = sdk.ask("HEAD", "/").await;
    assert_eq!((ping.status, ping.body.len()), (200, 0));
    let table = [
        ("cache-control", "no-cache"),
        ("content-type", "application/json; charset=utf-8"),
        ("x-api-version", "1"),
        ("x-protocol", "Moonlight"),
        ("x-protocol-version", "1"),
        ("x-agent-version", "0.1.0"),
        ("x-fleet-id", "FLEET001"),
        ("x-device-id", "DEVICE0001"),
    ];
    for (name, value) in table {
        assert_eq!(ping.header(name), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_come_is_not_waited_for_for_ever() {
    let agent = Place::new(&["127.0.0.1:1".parse().unwrap()]).run().await;
    let sdk = agent.sdk();
    let began = Instant::now();
    let silent = async {
        let mut stream = sdk.connect().await;
        let mut rest = Vec::new();
        within("the end", stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
    };
    let (half, ()) = tokio::join!(sdk.send("GET / HTTP/1.1\r\nHost:"), silent);
    assert_eq!(half.error(), (408, "Operation timed out".to_owned()));
    assert!((5..30).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_stream_is_not_closed_at_once() {
    let agent = Place::new(&["127.0.0.1:1".parse().unwrap()]).run().await;
    let sdk = agent.sdk();
    let began = Instant::now();
    let answer = sdk
        .send("GET /events HTTP/1.1\r\nX-Fleet-ID: FLEET002\r\nX-Device-ID: DEVICE0001\r\n\r\n")
        .await;
    assert_eq!(answer.error(), (401, "Fleet ID mismatch".to_owned()));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_a_limit_and_requests_go_on_beyond_it() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let sdk = agent.sdk();
    sdk.events().await.until_connected().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut events = sdk.events().await;
        events.until_connected().await;
        streams.push(events);
    }
    let refused = sdk.ask("GET", "/events").await;
    assert_eq!(refused.error(), (500, "failed: too many event streams".to_owned()));
    assert_eq!(sdk.post("/pulse/datapoint/env", "{\"t\":1}").await.status, 200);
    // Another may come when one leaves, and all of them hear what happens.
    streams.truncate(1);
    sdk.events().await.until_connected().await;
    streams[0].until("new_mail").await;
    cluster.send(1);
    streams[0].until("new_mail").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_kept_alive() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    let mut events = agent.sdk().events().await;
    events.until_connected().await;
    let began = Instant::now();
    let alive = events.until("keep_alive").await;
    assert!((14..30).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let unix_ms: u64 = alive.strip_prefix("event: keep_alive\ndata: ").unwrap().parse().unwrap();
    assert!(unix_ms > 1_700_000_000_000);
    assert_eq!(node.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_api_is_served_over_tcp_if_asked_for() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run_with(&["--tcp=127.0.0.1:0"]).await;
    until("it listens", || agent.log().contains("listening: ")).await;
    let log = agent.log();
    let address = log.lines().find_map(|line| line.strip_prefix("listening: ")).unwrap();
    let request = format!("HEAD / HTTP/1.1\r\n{}\r\n", headers());
    assert_eq!(exchange(TcpStream::connect(address).await.unwrap(), &request).await.status, 200);
    // A refusal is heard although the request goes on.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let large = "x".repeat(500_000);
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 500000\r\n\r\n").await.unwrap();
    assert_eq!(exchange(stream, &large).await.error().0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_small() {
    let cluster = Cluster::new(0);
    let node = Node::start(&cluster).await;
    let agent = Place::new(&[node.address]).run().await;
    agent.sdk().events().await.until_connected().await;
    let resident = agent.resident_kib();
    println!("resident: {resident} KiB");
    assert!(resident < 10 * 1024, "{resident} KiB");
}
