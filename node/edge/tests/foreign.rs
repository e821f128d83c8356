//! Another protocol at an edge's listeners: alone, and beside MQTT over WebSocket on one port.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::Arc;

use moorline_edge::{Anonymous, EdgeConfig, Served, Speaks, Transport, Visit, WsConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use support::{CONNACK_V311, CONNECT_V311, DEADLINE, Edge, TENANT, edge_over, expect, rest, tls};

/// Says back what it hears, until a full stop, or that the node stops. Who says `me` is known.
#[derive(Debug)]
struct Echo;

impl Speaks for Echo {
    fn name(&self, tls: bool) -> &'static str {
        if tls { "echos" } else { "echo" }
    }

    fn serve(&self, mut visit: Visit) -> Served {
        Box::pin(async move {
            let mut heard = [0; 256];
            loop {
                let read = tokio::select! {
                    read = visit.stream.read(&mut heard) => read.unwrap(),
                    () = visit.stop.cancelled() => {
                        visit.stream.write_all(b"stopping").await.unwrap();
                        return;
                    }
                };
                if heard[..read].ends_with(b"me") {
                    drop(visit.stranger.take());
                }
                visit.stream.write_all(&heard[..read]).await.unwrap();
                if read == 0 || heard[..read].ends_with(b".") {
                    return;
                }
            }
        })
    }
}

fn edge(ws: Option<WsConfig>, change: impl FnOnce(&mut EdgeConfig)) -> Edge {
    let transport = Transport { ws, other: Some(Arc::new(Echo)), ..Transport::default() };
    edge_over(transport, change, Arc::new(Anonymous { tenant: TENANT }))
}

async fn say(client: &mut TcpStream, what: &[u8]) -> Vec<u8> {
    client.write_all(what).await.unwrap();
    let mut answer = vec![0; what.len()];
    timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_speak_something_else_and_is_counted_by_its_name() {
    let edge = edge(None, |_| {});
    let mut client = edge.client().await;
    assert_eq!(say(&mut client, b"hello").await, b"hello");
    edge.shows("moorline_connections_opened_total{listener=\"echo\"} 1").await;
    edge.shows("moorline_connections_opening 0").await;
    assert_eq!(say(&mut client, b"bye.").await, b"bye.");
    assert!(rest(&mut client).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_websocket_it_gets_every_other_request_from_its_first_byte() {
    let edge = edge(Some(WsConfig::default()), |_| {});
    for request in [
        "GET / HTTP/1.1\r\nhost: h\r\n\r\n.",
        "GET / HTTP/1.0\r\n\r\n.",
        "PUT /x HTTP/1.1\r\nhost: h\r\n\r\nbody.",
    ] {
        let mut client = edge.client().await;
        assert_eq!(say(&mut client, request.as_bytes()).await, request.as_bytes());
    }
    let mut client = edge.client().await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut answer = [0; 13];
    timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101 ");
    // What is no HTTP at all is nobody's.
    let mut client = edge.client().await;
    client.write_all(b"\x02\x01\x01\x02 what?\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.starts_with(b"HTTP/1.1 400 "));
}

/// A request for MQTT over WebSocket.
const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: mqtt\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_may_share_a_port() {
    let mixed = || Transport {
        ws: Some(WsConfig::default()),
        other: Some(Arc::new(Echo)),
        mixed: Some("all"),
        ..Transport::default()
    };
    let everybody = || Arc::new(Anonymous { tenant: TENANT });
    let edge = edge_over(mixed(), |config| config.first_packet_ms = 300, everybody());
    // MQTT, in one piece and byte by byte.
    let mut client = edge.client().await;
    client.write_all(CONNECT_V311).await.unwrap();
    expect(&mut client, CONNACK_V311).await;
    let mut client = edge.client().await;
    for byte in CONNECT_V311 {
        client.write_all(&[*byte]).await.unwrap();
        client.flush().await.unwrap();
    }
    expect(&mut client, CONNACK_V311).await;
    // HTTP, of which nothing is lost.
    for request in
        ["GET / HTTP/1.1\r\nhost: h\r\n\r\n.", "POST /x HTTP/1.1\r\nhost: h\r\n\r\nbody."]
    {
        let mut client = edge.client().await;
        assert_eq!(say(&mut client, request.as_bytes()).await, request.as_bytes());
    }
    // A WebSocket, in two pieces: the first one tells only that it is HTTP.
    let mut client = edge.client().await;
    client.write_all(&UPGRADE.as_bytes()[..1]).await.unwrap();
    client.write_all(&UPGRADE.as_bytes()[1..]).await.unwrap();
    let mut answer = [0; 13];
    timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101 ");
    edge.shows("moorline_connections_opened_total{listener=\"all\"} 5").await;
    // It would be late with its CONNECT.
    drop(client);
    // TLS where there is none, and whatever else is neither, is MQTT that is wrong.
    let mut client = edge.client().await;
    client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    assert!(rest(&mut client).await.is_empty());
    // Who says nothing, or leaves at once, holds no place.
    assert!(rest(&mut edge.client().await).await.is_empty());
    edge.shows("moorline_limits_reached_total{limit=\"first_packet_ms\"} 1").await;
    drop(edge.client().await);
    edge.shows("moorline_connections_opening 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_may_share_a_port_over_tls() {
    let certificate = tls::Certificate::new();
    let transport = Transport {
        tls: Some(certificate.tls()),
        ws: Some(WsConfig::default()),
        other: Some(Arc::new(Echo)),
        mixed: Some("all"),
    };
    let edge = edge_over(transport, |_| {}, Arc::new(Anonymous { tenant: TENANT }));
    let mut client = certificate.client(edge.client().await, tls::BOTH).await.unwrap();
    client.write_all(CONNECT_V311).await.unwrap();
    expect(&mut client, CONNACK_V311).await;
    let mut client = certificate.client(edge.client().await, tls::BOTH).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n.";
    client.write_all(request).await.unwrap();
    expect(&mut client, request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_guests_count_as_strangers_until_they_are_known() {
    let edge = edge(None, |config| config.unauthenticated_per_address_max = 1);
    let mut first = edge.client().await;
    assert_eq!(say(&mut first, b"hello").await, b"hello");
    assert!(rest(&mut edge.client().await).await.is_empty(), "one stranger is there already");
    assert_eq!(say(&mut first, b"it is me").await, b"it is me");
    let mut second = edge.client().await;
    assert_eq!(say(&mut second, b"hello").await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_reaches_it() {
    let edge = edge(None, |_| {});
    let mut client = edge.client().await;
    assert_eq!(say(&mut client, b"hello").await, b"hello");
    edge.stopped().await;
    assert_eq!(rest(&mut client).await, b"stopping");
}
