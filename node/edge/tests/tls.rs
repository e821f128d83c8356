//! MQTT over TLS, and over WebSocket over TLS.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_core::port::{Close, Failure};
use moorline_edge::{Anonymous, EdgeConfig, TlsConfig, Transport, WsConfig};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use support::{
    CONNACK_V311, CONNECT_V311, DEADLINE, DISCONNECT_V311, Edge, TENANT, answer, delivery,
    edge_over, expect, puback, publish, rest,
    tls::{BOTH, Certificate},
};

const FAILED: &str = "moorline_tls_handshakes_failed_total";

fn secure(
    certificate: &Certificate,
    ws: Option<WsConfig>,
    change: impl FnOnce(&mut EdgeConfig),
) -> Edge {
    let transport = Transport { tls: Some(certificate.tls()), ws, ..Transport::default() };
    edge_over(transport, change, Arc::new(Anonymous { tenant: TENANT }))
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_is_spoken_over_tls_1_2_and_1_3() {
    let certificate = Certificate::new();
    let edge = secure(&certificate, None, |_| {});
    for (version, name) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = certificate.client(edge.client().await, &[version]).await.unwrap();
        assert_eq!(client.get_ref().1.protocol_version(), Some(name));
        client.write_all(CONNECT_V311).await.unwrap();
        expect(&mut client, CONNACK_V311).await;
        let inbox = edge.inbox();
        client.write_all(&publish(1)).await.unwrap();
        answer(&inbox, edge.published().0);
        expect(&mut client, &puback(1)).await;
        // More than the library buffers, both ways of waiting for the socket included.
        let payload = Bytes::from(vec![7; 250 * 1024]);
        for offset in 1..=8 {
            inbox.push(delivery(Some(offset), payload.clone())).unwrap();
        }
        for packet_id in 2..=9 {
            // 250 KiB and 5 bytes of topic and id; the length in three bytes.
            expect(&mut client, &[0x32, 0x85, 0xd0, 0x0f, 0, 1, b't', 0, packet_id]).await;
            expect(&mut client, &payload).await;
        }
        client.write_all(DISCONNECT_V311).await.unwrap();
        assert_eq!(edge.closed(), Close::Clean { expiry_s: None, with_will: false });
        assert!(rest(&mut client).await.is_empty(), "ended by TLS's own goodbye");
    }
    edge.shows("moorline_connections_opened_total{listener=\"mqtts\"} 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_is_spoken_over_tls() {
    let certificate = Certificate::new();
    let edge = secure(&certificate, Some(WsConfig::default()), |_| {});
    let stream = certificate.client(edge.client().await, BOTH).await.unwrap();
    let mut request = "wss://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (mut client, _) = client_async(request, stream).await.unwrap();
    client.send(Message::Binary(CONNECT_V311.into())).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(CONNACK_V311.into()));
    edge.shows("moorline_connections{listener=\"wss\",protocol=\"mqtt311\"} 1").await;
    client.send(Message::Binary(DISCONNECT_V311.into())).await.unwrap();
    assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    let end = client.next().await;
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_handshakes_are_counted_and_hold_up_nobody() {
    let certificate = Certificate::new();
    let edge = secure(&certificate, None, |config| config.tls_handshake_ms = 300);
    let began = Instant::now();
    let mut stalled = edge.client().await;
    let mut plain = edge.client().await;
    plain.write_all(CONNECT_V311).await.unwrap();
    rest(&mut plain).await;
    let distrusts = Certificate::new().client(edge.client().await, BOTH).await;
    assert!(distrusts.is_err());
    edge.shows(&format!("{FAILED}{{reason=\"refused\"}} 2")).await;
    drop(edge.client().await);
    edge.shows(&format!("{FAILED}{{reason=\"gone\"}} 1")).await;
    let mut good = certificate.client(edge.client().await, BOTH).await.unwrap();
    good.write_all(CONNECT_V311).await.unwrap();
    expect(&mut good, CONNACK_V311).await;
    assert!(rest(&mut stalled).await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    edge.shows(&format!("{FAILED}{{reason=\"timeout\"}} 1")).await;
    edge.shows("moorline_connections_opening 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed_over_tls_as_well() {
    let certificate = Certificate::new();
    let edge = secure(&certificate, None, |config| config.write_stall_ms = 300);
    let mut deaf = certificate.client(edge.client().await, BOTH).await.unwrap();
    deaf.write_all(CONNECT_V311).await.unwrap();
    expect(&mut deaf, CONNACK_V311).await;
    let inbox = edge.inbox();
    for offset in 1..=200 {
        inbox.push(delivery(Some(offset), Bytes::from(vec![0; 200 * 1024]))).unwrap();
    }
    edge.shows("moorline_connections_closed_total{reason=\"write_timeout\"} 1").await;
    assert_eq!(edge.closed(), Close::Failed(Failure::Slow));
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_said_over_tls_and_ends() {
    let certificate = Certificate::new();
    let edge = secure(&certificate, None, |_| {});
    let mut client = certificate.client(edge.client().await, BOTH).await.unwrap();
    client.write_all(support::CONNECT_V5).await.unwrap();
    edge.call(|call| matches!(call, support::Call::Open(_)).then_some(()));
    edge.shows("moorline_connections{listener=\"mqtts\",protocol=\"mqtt5\"} 1").await;
    edge.stop.cancel();
    let said = rest(&mut client).await;
    assert!(said.ends_with(b"\x01\x8b"), "{said:x?}");
    drop(client);
    assert!(edge.stopped().await < DEADLINE);
}

#[test]
fn files_that_make_no_tls_are_named() {
    let (one, two) = (Certificate::new(), Certificate::new());
    let (certificate, other) = (one.config(), two.config());
    let missing = certificate.cert.with_file_name("missing.pem");
    let empty = certificate.cert.with_file_name("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let chain = certificate.cert.with_file_name("chain.pem");
    let pem = |path| std::fs::read_to_string(path).unwrap();
    let mut stranger = CertificateParams::new(Vec::new()).unwrap();
    stranger.distinguished_name = DistinguishedName::new();
    let stranger = stranger.self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(&chain, pem(&certificate.cert) + &stranger.pem()).unwrap();
    #[rustfmt::skip]
    let table = [
        (&missing,          &certificate.key,  "cert: "),
        (&certificate.key,  &certificate.key,  "cert: "),
        (&empty,            &certificate.key,  "cert: "),
        (&chain,            &certificate.key,  "cert: "),
        (&certificate.cert, &missing,          "key: "),
        (&certificate.cert, &certificate.cert, "key: "),
        (&certificate.cert, &empty,            "key: "),
        (&certificate.cert, &other.key,        "cert and key do not work together: "),
    ];
    for (cert, key, expected) in table {
        let config = TlsConfig::of(cert.clone(), key.clone());
        let error = config.load().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        println!("{error}");
    }
}
