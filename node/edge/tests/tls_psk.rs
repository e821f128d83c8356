//! Pre-shared keys at the port where certificates are shown, too; with a client of another make.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]
#![cfg(feature = "tls-psk")]

mod support;

use std::{
    process::Stdio,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use moorline_core::{TenantId, Text};
use moorline_edge::{Channel, FoundPsk, Proof, PskHolder, PskKeys, PskOffer, Transport};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};
use zeroize::Zeroizing;

use support::{
    CONNACK_V311, CONNECT_V311, DEADLINE, Edge, Notes, edge_over, expect,
    tls::{BOTH, Certificate},
};

const KEY: &str = "00112233445566778899aabbccddeeff";
const OTHER: &str = "ff112233445566778899aabbccddeeff";
const FAILED: &str = "moorline_tls_handshakes_failed_total{reason=\"refused\"}";

fn holder() -> PskHolder {
    PskHolder { tenant: TenantId(3), device: Text::from("pump-1"), born: 5, credential: 9 }
}

/// Knows `pump`, after a while: whoever waits for it must hold up nobody.
struct Keys;

impl PskKeys for Keys {
    fn find(&self, identity: &[u8]) -> FoundPsk {
        let key: Vec<u8> =
            (0..16).map(|at| u8::from_str_radix(&KEY[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let offer =
            (identity == b"pump").then(|| PskOffer { key: Zeroizing::new(key), holder: holder() });
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            offer
        })
    }
}

fn edge(server: &Certificate) -> (Edge, Receiver<Channel>) {
    let (notes, channels) = channel();
    let tls = server.tls().with_psk(Arc::new(Keys)).unwrap();
    let transport = Transport { tls: Some(tls), ..Transport::default() };
    (edge_over(transport, |_| {}, Arc::new(Notes(notes))), channels)
}

/// What `mosquitto_pub` says when it is done, and whether it succeeded.
async fn mosquitto(edge: &Edge, identity: &str, key: &str, more: &[&str]) -> (bool, String) {
    let port = edge.address.port().to_string();
    let args = ["-h", "127.0.0.1", "-p", &port, "--psk", key, "--psk-identity", identity];
    let client = Command::new("mosquitto_pub")
        .args(args)
        .args(["-t", "t", "-m", "hi", "-i", "c"])
        .args(more)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, client).await.unwrap().expect("mosquitto_pub is installed");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_proves_its_key_beside_clients_with_certificates() {
    let server = Certificate::new();
    let (edge, channels) = edge(&server);
    for (round, version) in ["tlsv1.2", "tlsv1.3"].into_iter().enumerate() {
        let (done, said) = mosquitto(&edge, "pump", KEY, &["--tls-version", version]).await;
        assert!(done, "{version}: {said}");
        let channel = channels.recv_timeout(DEADLINE).unwrap();
        assert!(matches!(&channel.proof, Some(Proof::Psk(by)) if **by == holder()), "{channel:?}");
        assert_eq!(&edge.published().1.payload[..], b"hi");
        let line = format!("moorline_tls_handshakes_total{{kind=\"psk\"}} {}", round + 1);
        edge.shows(&line).await;
        let mut other = server.client(edge.client().await, BOTH).await.unwrap();
        other.write_all(CONNECT_V311).await.unwrap();
        expect(&mut other, CONNACK_V311).await;
        assert!(channels.recv_timeout(DEADLINE).unwrap().proof.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_identity_looks_like_a_wrong_key() {
    let server = Certificate::new();
    let (edge, channels) = edge(&server);
    let mut refused = 0;
    for version in ["tlsv1.2", "tlsv1.3"] {
        let more = ["--tls-version", version];
        let wrong = mosquitto(&edge, "pump", OTHER, &more).await;
        let unknown = mosquitto(&edge, "nobody", KEY, &more).await;
        assert!(!wrong.0 && !unknown.0);
        assert_eq!(wrong.1, unknown.1, "{version}");
        refused += 2;
        edge.shows(&format!("{FAILED} {refused}")).await;
    }
    assert!(channels.try_recv().is_err(), "nobody came so far");
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_in_pieces_and_nonsense_hold_up_nobody() {
    let server = Certificate::new();
    let (edge, _channels) = edge(&server);
    let mut slow = edge.client().await;
    slow.write_all(b"\x16\x03\x01").await.unwrap();
    let mut plain = edge.client().await;
    plain.write_all(CONNECT_V311).await.unwrap();
    edge.shows(&format!("{FAILED} 1")).await;
    drop(edge.client().await);
    edge.shows("moorline_tls_handshakes_failed_total{reason=\"gone\"} 1").await;
    assert!(mosquitto(&edge, "pump", KEY, &[]).await.0);
    drop(slow);
    edge.shows("moorline_tls_handshakes_failed_total{reason=\"gone\"} 2").await;
}
