//! What an idle connection costs, whatever carries it. Alone in its process, since it looks at the whole of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use moorline_core::port::Inbox;
use moorline_edge::{Anonymous, Transport, WsConfig};
use support::{
    CONNACK_V311, CONNECT_V311, Edge, TENANT, answer, edge_over, expect, puback, publish, tls,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Of each kind, all open at once: what one kind gives back would be another's for nothing. Both ends of all of them
/// stay below the usual 1,024 open files.
const CONNECTIONS: usize = 100;
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A frame of the client's with a mask of zeros.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

/// Connects, publishes, has its answer, and is idle.
async fn use_once<S: AsyncRead + AsyncWrite + Unpin>(
    edge: &Edge,
    mut client: S,
    websocket: bool,
) -> (S, Arc<dyn Inbox>) {
    let said = |bytes: &[u8]| if websocket { frame(bytes) } else { bytes.to_vec() };
    let heard =
        |bytes: &[u8]| if websocket { [b"\x82\x04", bytes].concat() } else { bytes.to_vec() };
    if websocket {
        client.write_all(UPGRADE).await.unwrap();
        let mut accepted = Vec::new();
        while !accepted.ends_with(b"\r\n\r\n") {
            accepted.push(client.read_u8().await.unwrap());
        }
    }
    client.write_all(&said(CONNECT_V311)).await.unwrap();
    expect(&mut client, &heard(CONNACK_V311)).await;
    let inbox = edge.inbox();
    client.write_all(&said(&publish(1))).await.unwrap();
    answer(&inbox, edge.published().0);
    expect(&mut client, &heard(&puback(1))).await;
    (client, inbox)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_small() {
    let certificate = tls::Certificate::new();
    let ws = || Some(WsConfig::default());
    // The client's end of each is in it as well: with TLS that is as much again.
    let table = [
        (Transport::default(), 8 * 1024),
        (Transport { ws: ws(), ..Transport::default() }, 8 * 1024),
        (Transport { ws: ws(), mixed: Some("mixed"), ..Transport::default() }, 8 * 1024),
        (Transport { tls: Some(certificate.tls()), ..Transport::default() }, 40 * 1024),
        (Transport { tls: Some(certificate.tls()), ws: ws(), ..Transport::default() }, 40 * 1024),
    ];
    let (mut plain, mut secure, mut edges) = (Vec::new(), Vec::new(), Vec::new());
    for (transport, bytes_max) in table {
        let websocket = transport.ws.is_some() && transport.mixed.is_none();
        let name = transport.name();
        let is_tls = transport.tls.is_some();
        let edge = edge_over(transport, |_| {}, Arc::new(Anonymous { tenant: TENANT }));
        let mut before = 0;
        for number in 0..=CONNECTIONS {
            let client = edge.client().await;
            if is_tls {
                let client = certificate.client(client, tls::BOTH).await.unwrap();
                secure.push(use_once(&edge, client, websocket).await);
            } else {
                plain.push(use_once(&edge, client, websocket).await);
            }
            if number == 0 {
                before = resident();
            }
        }
        let each = resident().saturating_sub(before) / CONNECTIONS;
        println!("{name}: {each} bytes each");
        assert!(each < bytes_max, "{name}: {each} bytes each");
        edges.push(edge);
    }
}
