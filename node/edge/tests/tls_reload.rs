//! A new certificate reaches new connections and disturbs no old one; one that is wrong changes nothing (abuse case 60).
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::{fs, path::Path, sync::Arc, time::Duration};

use moorline_edge::{Anonymous, Tls, TlsMetrics, Transport};
use prometheus::Registry;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify, task::JoinSet, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use support::{
    CONNACK_V311, CONNECT_V311, DEADLINE, Edge, TENANT, edge_over, expect,
    tls::{BOTH, Certificate},
};

fn edge(tls: &Tls) -> Edge {
    let transport = Transport { tls: Some(tls.clone()), ..Transport::default() };
    edge_over(transport, |_| {}, Arc::new(Anonymous { tenant: TENANT }))
}

async fn connect(edge: &Edge, server: &Certificate) -> TlsStream<TcpStream> {
    let mut client = server.client(edge.client().await, BOTH).await.unwrap();
    client.write_all(CONNECT_V311).await.unwrap();
    expect(&mut client, CONNACK_V311).await;
    client
}

async fn pings(client: &mut TlsStream<TcpStream>) {
    client.write_all(b"\xc0\x00").await.unwrap();
    expect(client, b"\xd0\x00").await;
}

/// A certificate and its key that count between two years.
fn write_pair(cert: &Path, key: &Path, from: i32, until: i32) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let pair = KeyPair::generate().unwrap();
    fs::write(cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(key, pair.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_goes_on_and_a_new_one_sees_the_new_certificate() {
    let first = Certificate::new();
    let tls = first.tls();
    let edge = edge(&tls);
    let mut old = connect(&edge, &first).await;
    let shown = first.der().clone();
    let second = first.renewed();
    tls.reload().unwrap();
    let mut new = connect(&edge, &second).await;
    assert_ne!(second.der(), &shown);
    pings(&mut old).await;
    pings(&mut new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_wrong_change_nothing() {
    let server = Certificate::new();
    let tls = server.tls();
    let edge = edge(&tls);
    let mut old = connect(&edge, &server).await;
    let config = server.config();
    let good = [fs::read(&config.cert).unwrap(), fs::read(&config.key).unwrap()];
    let (cert, key) = (&config.cert, &config.key);
    type Break<'a> = &'a dyn Fn();
    #[rustfmt::skip]
    let table: [(&str, Break<'_>); 7] = [
        ("cert: ",                              &|| fs::write(cert, "no certificate").unwrap()),
        ("cert: ",                              &|| fs::write(cert, "").unwrap()),
        ("cert: ",                              &|| fs::remove_file(cert).unwrap()),
        ("key: ",                               &|| fs::write(key, "no key").unwrap()),
        ("cert and key do not work together: ", &|| fs::write(key, KeyPair::generate().unwrap().serialize_pem()).unwrap()),
        ("cert: ",                              &|| write_pair(cert, key, 2001, 2002)),
        ("cert: ",                              &|| write_pair(cert, key, 3001, 3002)),
    ];
    for (expected, break_files) in table {
        break_files();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        println!("{error}");
        connect(&edge, &server).await;
        fs::write(cert, &good[0]).unwrap();
        fs::write(key, &good[1]).unwrap();
    }
    pings(&mut old).await;
    tls.reload().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_reads_when_it_is_asked_and_counts() {
    let server = Certificate::new();
    let (tls, registry) = (server.tls(), Registry::new());
    let metrics = TlsMetrics::register(&registry).unwrap();
    let (asked, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(tls.keep_fresh(metrics, Arc::clone(&asked), stop.clone()));
    let shows = async |line: &str| {
        let shown = async {
            loop {
                let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
                if text.unwrap().lines().any(|shown| shown == line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, shown).await.expect(line);
    };
    // 4096-01-01, what the test's certificates have.
    shows("moorline_cert_expiry_timestamp_seconds 67090118400").await;
    shows("moorline_tls_reloads_total{result=\"done\"} 0").await;
    asked.notify_one();
    shows("moorline_tls_reloads_total{result=\"done\"} 1").await;
    let config = server.config();
    fs::write(&config.key, "no key").unwrap();
    asked.notify_one();
    shows("moorline_tls_reloads_total{result=\"failed\"} 1").await;
    write_pair(&config.cert, &config.key, 2001, 3001);
    asked.notify_one();
    shows("moorline_tls_reloads_total{result=\"done\"} 2").await;
    shows("moorline_cert_expiry_timestamp_seconds 32535216000").await;
    stop.cancel();
    timeout(DEADLINE, tasks.join_next()).await.unwrap().unwrap().unwrap();
}
