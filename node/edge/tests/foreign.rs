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

use support::{DEADLINE, Edge, TENANT, edge_over, rest};

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
    let transport = Transport { tls: None, ws, other: Some(Arc::new(Echo)) };
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
    for request in ["GET / HTTP/1.1\r\nhost: h\r\n\r\n.", "PUT /x HTTP/1.1\r\nhost: h\r\n\r\nbody."]
    {
        let mut client = edge.client().await;
        assert_eq!(say(&mut client, request.as_bytes()).await, request.as_bytes());
    }
    let mut client = edge.client().await;
    let upgrade = "GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        sec-websocket-protocol: mqtt\r\n\r\n";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = [0; 13];
    timeout(DEADLINE, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101 ");
    // What is no HTTP at all is nobody's.
    let mut client = edge.client().await;
    client.write_all(b"\x02\x01\x01\x02 what?\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.starts_with(b"HTTP/1.1 400 "));
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
