//! What a node spends on newcomers: who is beyond it is told so at once and in its protocol's own way, before TLS by a closed socket;
//! and a node that stops does not send all its clients away at once.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use moorline_edge::{Anonymous, Attempt, Authenticate, Transport, Verdict};
use tokio::{io::AsyncWriteExt, sync::Semaphore, task::JoinSet};

use support::{
    CONNACK_V311, CONNECT_V5, CONNECT_V311, Call, NEVER_OPENS, TENANT, edge, edge_over, edge_with,
    expect, rest,
    tls::{BOTH, Certificate},
};

/// 0x89, and a reason string.
const BUSY_V5: &[u8] = b"\x20\x18\x00\x89\x15\x1f\x00\x12the server is busy";
const BUSY_V311: &[u8] = b"\x20\x02\x00\x03";

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Lets somebody in for each permit.
struct Slow(Arc<Semaphore>);

impl Authenticate for Slow {
    fn authenticate(&self, attempt: Attempt) -> Verdict {
        let permits = Arc::clone(&self.0);
        Box::pin(async move {
            permits.acquire().await.unwrap().forget();
            Anonymous { tenant: TENANT }.authenticate(attempt).await
        })
    }
    fn method(&self) -> &'static str {
        "slow"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_beyond_the_line_hears_that_the_server_is_busy_and_others_are_let_in() {
    let permits = Arc::new(Semaphore::new(0));
    let edge = edge_with(
        |config| {
            config.authentications_per_core = 1;
            config.authentications_per_core_s = 0;
            config.admission_waiting_max = 1;
            config.admission_wait_ms = 20_000;
        },
        Arc::new(Slow(Arc::clone(&permits))),
    );
    let mut within = Vec::new();
    for at in 1..=cores() {
        let mut client = edge.client().await;
        client.write_all(CONNECT_V311).await.unwrap();
        within.push(client);
        let admitted = "moorline_admission_admitted_total{gate=\"authentications\"}";
        edge.shows(&format!("{admitted} {at}")).await;
    }
    let mut waits = edge.client().await;
    waits.write_all(CONNECT_V311).await.unwrap();
    edge.shows("moorline_admission_waiting{gate=\"authentications\"} 1").await;
    for (connect, connack) in [(CONNECT_V5, BUSY_V5), (CONNECT_V311, BUSY_V311)] {
        let mut beyond = edge.client().await;
        beyond.write_all(connect).await.unwrap();
        assert_eq!(rest(&mut beyond).await, connack);
    }
    edge.shows("moorline_admission_rejected_total{reason=\"admission_waiting_max\"} 2").await;
    edge.shows("moorline_limits_reached_total{limit=\"admission_waiting_max\"} 2").await;
    permits.add_permits(cores() + 1);
    for client in within.iter_mut().chain([&mut waits]) {
        expect(client, CONNACK_V311).await;
    }
    edge.shows("moorline_admission_waiting{gate=\"authentications\"} 0").await;
    // There is room again.
    permits.add_permits(1);
    let mut again = edge.client().await;
    again.write_all(CONNECT_V311).await.unwrap();
    expect(&mut again, CONNACK_V311).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_session_does_not_open_keeps_nobody_from_being_judged() {
    const CONNECT_NEVER: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05never";
    let edge = edge(|config| {
        config.authentications_per_core = 1;
        config.authentications_per_core_s = 0;
        config.admission_wait_ms = 20_000;
    });
    let mut waiting = Vec::new();
    for _ in 0..=2 * cores() {
        let mut client = edge.client().await;
        client.write_all(CONNECT_NEVER).await.unwrap();
        waiting.push(client);
        edge.call(|call| match call {
            Call::Open(open) => (open.client.as_str() == NEVER_OPENS).then_some(()),
            _ => None,
        });
    }
    let (_client, _) = edge.connected().await;
    edge.shows("moorline_admission_waiting{gate=\"authentications\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_fast_is_refused_before_anybody_is_asked() {
    let edge = edge(|config| {
        config.authentications_per_core_s = 1;
        config.admission_wait_ms = 1;
    });
    let mut asking = JoinSet::new();
    for _ in 0..20 * cores() {
        let mut client = edge.client().await;
        client.write_all(CONNECT_V311).await.unwrap();
        asking.spawn(async move {
            let mut connack = [0; 4];
            expect_some(&mut client, &mut connack).await;
            connack[3]
        });
    }
    let codes = asking.join_all().await;
    assert!(codes.iter().all(|code| [0, 3].contains(code)), "{codes:?}");
    let refused = codes.iter().filter(|code| **code == 3).count();
    assert!(refused > 0 && refused < codes.len(), "{codes:?}");
    let reason = "reason=\"authentications_per_core_s\"";
    edge.shows(&format!("moorline_admission_rejected_total{{{reason}}} {refused}")).await;
    let judged = codes.len() - refused;
    let attempts = "moorline_auth_attempts_total{method=\"anonymous\",result=\"accepted\"}";
    edge.shows(&format!("{attempts} {judged}")).await;
}

async fn expect_some(client: &mut tokio::net::TcpStream, bytes: &mut [u8]) {
    use tokio::io::AsyncReadExt;
    tokio::time::timeout(support::DEADLINE, client.read_exact(bytes)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_waits_for_its_turn_or_is_closed_before_it_costs_anything() {
    let certificate = Certificate::new();
    let transport = Transport { tls: Some(certificate.tls()), ..Transport::default() };
    let edge = edge_over(
        transport,
        |config| {
            config.handshakes_per_core = 1;
            config.handshakes_per_core_s = 0;
            config.admission_wait_ms = 200;
            config.tls_handshake_ms = 60_000;
        },
        Arc::new(Anonymous { tenant: TENANT }),
    );
    // Who says nothing has no place, however many they are.
    let mut silent = Vec::new();
    for _ in 0..=2 * cores() {
        silent.push(edge.client().await);
    }
    drop(certificate.client(edge.client().await, BOTH).await.unwrap());
    edge.shows("moorline_admission_admitted_total{gate=\"handshakes\"} 1").await;
    let mut begun = Vec::new();
    for at in 2..=cores() + 1 {
        let mut client = edge.client().await;
        client.write_all(b"\x16").await.unwrap();
        begun.push(client);
        edge.shows(&format!("moorline_admission_admitted_total{{gate=\"handshakes\"}} {at}")).await;
    }
    assert!(certificate.client(edge.client().await, BOTH).await.is_err(), "there is no place");
    edge.shows("moorline_admission_rejected_total{reason=\"handshakes_per_core\"} 1").await;
    edge.shows("moorline_tls_handshakes_failed_total{reason=\"refused\"} 0").await;
    let gone = begun.len() + silent.len();
    drop((begun, silent));
    edge.shows(&format!("moorline_tls_handshakes_failed_total{{reason=\"gone\"}} {gone}")).await;
    let mut good = certificate.client(edge.client().await, BOTH).await.unwrap();
    good.write_all(CONNECT_V311).await.unwrap();
    expect(&mut good, CONNACK_V311).await;
    edge.shows("moorline_admission_waiting{gate=\"handshakes\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_tells_its_clients_one_after_the_other() {
    const CLIENTS: usize = 400;
    let edge = edge(|config| config.authentications_per_core_s = 0);
    let mut clients = JoinSet::new();
    for at in 1..=CLIENTS {
        let mut client = edge.client().await;
        client.write_all(CONNECT_V5).await.unwrap();
        clients.spawn(async move {
            let said = rest(&mut client).await;
            assert!(said.ends_with(b"\x01\x8b"), "{said:x?}");
            Instant::now()
        });
        if at == CLIENTS {
            let connected = "moorline_connections{listener=\"mqtt\",protocol=\"mqtt5\"}";
            edge.shows(&format!("{connected} {CLIENTS}")).await;
        }
    }
    edge.stopped().await;
    let ends = clients.join_all().await;
    let between = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    // A thousand in a second would be 380 ms; some of it is lost where the machine is busy.
    assert!(between >= Duration::from_millis(100), "{between:?}");
}
