//! MQTT over WebSocket, with a client of another maker and with raw bytes.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_core::port::{Close, Failure};
use moorline_edge::{Anonymous, EdgeConfig, Transport, WsConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use support::{
    CONNACK_V311, CONNECT_V311, DEADLINE, DISCONNECT_V311, Edge, TENANT, answer, delivery,
    edge_over, expect, puback, publish, rest,
};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fn websocket(change: impl FnOnce(&mut EdgeConfig)) -> Edge {
    let transport = Transport { ws: Some(WsConfig::default()), ..Transport::default() };
    edge_over(transport, change, Arc::new(Anonymous { tenant: TENANT }))
}

async fn client(edge: &Edge) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/any", edge.address).into_client_request().unwrap();
    let subprotocol = HeaderValue::from_static("mqttv3.1, mqtt");
    request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
    let (client, response) = client_async(request, edge.client().await).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqttv3.1");
    assert!(!response.headers().contains_key("Sec-WebSocket-Extensions"));
    client
}

/// After the handshake, as a client that speaks its frames by hand.
async fn raw(edge: &Edge) -> TcpStream {
    let mut client = edge.client().await;
    client.set_nodelay(true).unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(DEADLINE, client.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    client
}

/// A client's frame of up to 125 bytes; a mask of zeros leaves the payload readable.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
}

/// A server's frame.
fn answer_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()][..], payload].concat()
}

async fn next(client: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(DEADLINE, client.next()).await.expect("a frame in time").unwrap().unwrap()
}

fn binary(bytes: impl Into<Bytes>) -> Message {
    Message::Binary(bytes.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_both_ways_and_are_counted_as_their_listeners() {
    let edge = websocket(|_| {});
    let mut client = client(&edge).await;
    client.send(binary(CONNECT_V311)).await.unwrap();
    assert_eq!(next(&mut client).await, binary(CONNACK_V311));
    let inbox = edge.inbox();
    edge.shows("moorline_connections{listener=\"ws\",protocol=\"mqtt311\"} 1").await;
    client.send(binary(publish(1))).await.unwrap();
    answer(&inbox, edge.published().0);
    assert_eq!(next(&mut client).await, binary(puback(1).to_vec()));
    inbox.push(delivery(Some(1), Bytes::from_static(b"yo"))).unwrap();
    assert_eq!(next(&mut client).await, binary(&b"\x32\x07\x00\x01t\x00\x02yo"[..]));
    edge.shows("moorline_connections_opening 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_frames_cut_packets_changes_nothing() {
    let edge = websocket(|_| {});
    let mut client = raw(&edge).await;
    let packets = [CONNECT_V311, &publish(1), &publish(2)].concat();
    for byte in &packets[..packets.len() - 9] {
        client.write_all(&frame(0x82, &[*byte])).await.unwrap();
    }
    // Fragments with a ping and an empty one between them, cut in their headers as well.
    let fragments = [
        frame(0x02, &packets[packets.len() - 9..packets.len() - 5]),
        frame(0x89, b"there?"),
        frame(0x00, b""),
        frame(0x80, &[&packets[packets.len() - 5..], &publish(3), &publish(4)].concat()),
    ];
    for byte in fragments.concat() {
        client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let inbox = edge.inbox();
    for _ in 1..=4 {
        answer(&inbox, edge.published().0);
    }
    let mut heard = Vec::new();
    while heard.len() < CONNACK_V311.len() + 4 * 4 {
        let mut header = [0; 2];
        timeout(DEADLINE, client.read_exact(&mut header)).await.unwrap().unwrap();
        let mut payload = vec![0; header[1].into()];
        client.read_exact(&mut payload).await.unwrap();
        match header[0] {
            0x82 => heard.extend(payload),
            0x8a => assert_eq!(payload, b"there?"),
            other => panic!("{other:#x}"),
        }
    }
    let expected = [CONNACK_V311, &puback(1), &puback(2), &puback(3), &puback(4)].concat();
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_arrive_whole_both_ways() {
    let edge = websocket(|_| {});
    let mut client = client(&edge).await;
    client.send(binary(CONNECT_V311)).await.unwrap();
    next(&mut client).await;
    let inbox = edge.inbox();
    let payload: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    // 5 bytes of topic and id; the length in three bytes.
    let mut packet = vec![0x32, 0xc5, 0x9a, 0x0c, 0, 1, b't', 0, 1];
    packet.extend(&payload);
    client.send(binary(packet)).await.unwrap();
    let (token, message) = edge.published();
    assert_eq!(message.payload, payload);
    answer(&inbox, token);
    assert_eq!(next(&mut client).await, binary(puback(1).to_vec()));
    inbox.push(delivery(Some(1), message.payload)).unwrap();
    let mut heard = Vec::new();
    while heard.len() < 9 + payload.len() {
        let Message::Binary(part) = next(&mut client).await else { panic!("binary") };
        heard.extend_from_slice(&part);
    }
    assert_eq!(heard[9..], payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rfc_forbids_is_closed_with_its_code() {
    let edge = websocket(|config| config.packet_bytes_max = 1_024);
    let masked = |bytes: &[u8]| [bytes, &[0; 4]].concat();
    #[rustfmt::skip]
    let table = [
        (b"\x82\x01x".to_vec(),              1002, "unmasked"),
        (frame(0xc2, b"x"),                  1002, "reserved_bits"),
        (frame(0x83, b"x"),                  1002, "opcode"),
        (frame(0x09, b"x"),                  1002, "control_fragmented"),
        (masked(b"\x89\xfe\x00\x7e"),        1002, "control_too_large"),
        (frame(0x80, b"x"),                  1002, "continuation"),
        (frame(0x88, b"\x03\xed"),           1002, "close_code"),
        (frame(0x88, b"\x03\xe8\xff"),       1007, "close_reason"),
        (frame(0x81, b"text"),               1003, "text"),
        (masked(b"\x82\xfe\x04\x01"),        1009, "too_large"),
    ];
    for (bytes, code, reason) in table {
        let mut client = raw(&edge).await;
        client.write_all(&bytes).await.unwrap();
        let code: u16 = code;
        expect(&mut client, &answer_frame(0x88, &code.to_be_bytes())).await;
        // What follows is not looked at, and does not reset the connection.
        client.write_all(&[0; 4_000]).await.unwrap();
        assert!(rest(&mut client).await.is_empty(), "{reason}");
        drop(client);
        edge.shows(&format!("moorline_websocket_violations_total{{reason=\"{reason}\"}} 1")).await;
        assert_eq!(edge.closed(), Close::Broken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_is_answered_with_its_code() {
    let edge = websocket(|_| {});
    for code in [CloseCode::Normal, CloseCode::Away, CloseCode::Library(4_999)] {
        let mut client = client(&edge).await;
        client.send(binary(CONNECT_V311)).await.unwrap();
        next(&mut client).await;
        let goodbye = CloseFrame { code, reason: "bye".into() };
        client.close(Some(goodbye)).await.unwrap();
        let Message::Close(Some(answer)) = next(&mut client).await else { panic!("a close") };
        assert_eq!(answer.code, code);
        assert!(matches!(client.next().await, None | Some(Err(_))), "the stream has ended");
        assert_eq!(edge.closed(), Close::Broken);
    }
    let mut client = raw(&edge).await;
    client.write_all(&frame(0x88, b"")).await.unwrap();
    assert_eq!(rest(&mut client).await, answer_frame(0x88, b""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_is_followed_by_the_closing_handshake() {
    let edge = websocket(|_| {});
    let mut client = client(&edge).await;
    client.send(binary(CONNECT_V311)).await.unwrap();
    next(&mut client).await;
    client.send(binary(DISCONNECT_V311)).await.unwrap();
    let Message::Close(Some(goodbye)) = next(&mut client).await else { panic!("a close") };
    assert_eq!(goodbye.code, CloseCode::Normal);
    let began = Instant::now();
    let end = timeout(DEADLINE, client.next()).await.expect("an end in time");
    assert!(end.is_none(), "{end:?}");
    assert!(began.elapsed() < Duration::from_millis(900), "nothing was waited out");
    assert_eq!(edge.closed(), Close::Clean { expiry_s: None, with_will: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_goes_away() {
    let edge = websocket(|_| {});
    let mut client = raw(&edge).await;
    client.write_all(&frame(0x82, CONNECT_V311)).await.unwrap();
    expect(&mut client, &answer_frame(0x82, CONNACK_V311)).await;
    edge.stop.cancel();
    // 1001; the client answers, and the stream ends.
    expect(&mut client, b"\x88\x02\x03\xe9").await;
    client.write_all(&frame(0x88, b"\x03\xe9")).await.unwrap();
    assert!(rest(&mut client).await.is_empty());
    edge.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pings_and_does_not_listen_costs_no_more_than_one_answer() {
    let edge = websocket(|config| config.first_packet_ms = 60_000);
    let mut client = raw(&edge).await;
    // More than both sockets hold: it goes through only because it is read on.
    let pings = frame(0x89, &[7; 125]).repeat(1_000);
    for _ in 0..200 {
        timeout(DEADLINE, client.write_all(&pings)).await.expect("it is read").unwrap();
    }
    client.write_all(&frame(0x82, b"\xc0\x00")).await.unwrap();
    edge.shows("moorline_connections_closed_total{reason=\"not_mqtt\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_says_why_and_is_counted() {
    let edge = websocket(|_| {});
    let table = [
        (REQUEST.replace("Protocol: mqtt", "Protocol: soap"), "400", "subprotocol"),
        (REQUEST.replace("Upgrade: websocket", "X: y"), "426", "not_websocket"),
        ("\u{10}\r\n\r\n".to_owned(), "400", "malformed"),
    ];
    for (request, status, reason) in table {
        let mut client = edge.client().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let said = String::from_utf8(rest(&mut client).await).unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        drop(client);
        let name = "moorline_websocket_handshakes_refused_total";
        edge.shows(&format!("{name}{{reason=\"{reason}\"}} 1")).await;
    }
    edge.shows("moorline_connections_opening 0").await;
    let error = client_async(format!("ws://{}", edge.address), edge.client().await).await;
    assert!(matches!(error, Err(tungstenite::Error::Http(answer)) if answer.status() == 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshake_and_connect_share_one_deadline() {
    let edge = websocket(|config| config.first_packet_ms = 300);
    let began = Instant::now();
    let mut stalled = edge.client().await;
    stalled.write_all(&REQUEST.as_bytes()[..40]).await.unwrap();
    let mut silent = raw(&edge).await;
    assert!(rest(&mut stalled).await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(rest(&mut silent).await, answer_frame(0x88, b"\x03\xe8"));
    edge.shows("moorline_websocket_handshakes_refused_total{reason=\"timeout\"} 1").await;
    edge.shows("moorline_connections_closed_total{reason=\"connect_timeout\"} 1").await;
    edge.shows("moorline_connections_opening 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_handshake_holds_up_neither_others_nor_a_stop() {
    let edge = websocket(|config| config.first_packet_ms = 60_000);
    let stalled = edge.client().await;
    let mut client = client(&edge).await;
    client.send(binary(CONNECT_V311)).await.unwrap();
    assert_eq!(next(&mut client).await, binary(CONNACK_V311));
    drop(client);
    let took = edge.stopped().await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed() {
    let edge = websocket(|config| config.write_stall_ms = 300);
    let mut deaf = raw(&edge).await;
    deaf.write_all(&frame(0x82, CONNECT_V311)).await.unwrap();
    expect(&mut deaf, &answer_frame(0x82, CONNACK_V311)).await;
    let inbox = edge.inbox();
    for offset in 1..=200 {
        inbox.push(delivery(Some(offset), Bytes::from(vec![0; 200 * 1024]))).unwrap();
    }
    edge.shows("moorline_connections_closed_total{reason=\"write_timeout\"} 1").await;
    assert_eq!(edge.closed(), Close::Failed(Failure::Slow));
    drop(deaf);
}
