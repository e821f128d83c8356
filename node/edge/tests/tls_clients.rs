//! What a client's TLS says and proves is known to whoever decides who it is: its certificates, and the name it asked for.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use moorline_core::Text;
use moorline_edge::{Channel, ClientCertificates, Proof, Tls, TlsConfig, Transport};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use support::{
    CONNACK_V311, CONNECT_V311, DEADLINE, DISCONNECT_V311, Edge, Notes, edge_over, expect, rest,
    tls::{BOTH, Certificate},
};

fn edge(tls: Tls) -> (Edge, Receiver<Channel>) {
    let (notes, channels) = channel();
    let transport = Transport { tls: Some(tls), ..Transport::default() };
    (edge_over(transport, |_| {}, Arc::new(Notes(notes))), channels)
}

/// A client with a certificate of its own, or none.
fn client(
    server: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
    shows: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(server.roots());
    let config = match shows {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

fn device() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["pump-1".to_owned()]).unwrap();
    (cert.der().clone(), PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into())
}

/// Connects and leaves; says what kind of handshake it was.
async fn visit(edge: &Edge, client: &TlsConnector) -> HandshakeKind {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = client.connect(name, edge.client().await).await.unwrap();
    stream.write_all(CONNECT_V311).await.unwrap();
    expect(&mut stream, CONNACK_V311).await;
    stream.write_all(DISCONNECT_V311).await.unwrap();
    assert!(rest(&mut stream).await.is_empty());
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_known_also_after_the_client_resumed() {
    let server = Certificate::new();
    let (edge, channels) = edge(server.tls());
    let shows = device();
    for version in [&TLS12, &TLS13] {
        let client = client(&server, &[version], Some((shows.0.clone(), shows.1.clone_key())));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(visit(&edge, &client).await, kind, "{version:?}");
            let channel = channels.recv_timeout(DEADLINE).unwrap();
            assert!(channel.tls);
            assert_eq!(channel.server_name.as_ref().map(Text::as_str), Some("localhost"));
            let Some(Proof::Certificates(chain)) = channel.proof else { panic!("no certificate") };
            assert_eq!((chain.len(), &chain[0]), (1, &shows.0));
        }
    }
    edge.shows("moorline_tls_handshakes_total{kind=\"full\"} 2").await;
    edge.shows("moorline_tls_handshakes_total{kind=\"resumed\"} 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_refused() {
    let server = Certificate::new();
    let (edge, channels) = edge(server.tls());
    let (somebodys, _) = device();
    let (_, my_key) = device();
    for version in [&TLS12, &TLS13] {
        let key = aws_lc_rs::sign::any_supported_type(&my_key).unwrap();
        let pair = rustls::sign::CertifiedKey::new(vec![somebodys.clone()], key);
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(server.roots())
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
        let name = ServerName::try_from("localhost").unwrap();
        let client = TlsConnector::from(Arc::new(config));
        // With TLS 1.3 the client believes to be through before the server has looked.
        if let Ok(mut stream) = client.connect(name, edge.client().await).await {
            drop(stream.write_all(CONNECT_V311).await);
        }
    }
    edge.shows("moorline_tls_handshakes_failed_total{reason=\"refused\"} 2").await;
    assert!(channels.try_recv().is_err(), "nobody was asked about it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_none_or_is_not_asked_has_proved_nothing() {
    let server = Certificate::new();
    let off = TlsConfig { client_certificates: ClientCertificates::Off, ..server.config() };
    for (tls, shows) in [
        (server.tls(), None),
        (server.tls().silent(), Some(device())),
        (off.load().unwrap(), Some(device())),
    ] {
        let (edge, channels) = edge(tls);
        visit(&edge, &client(&server, BOTH, shows)).await;
        let channel = channels.recv_timeout(DEADLINE).unwrap();
        assert!(channel.tls && channel.proof.is_none(), "{channel:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_too_long_is_refused() {
    let server = Certificate::new();
    let (edge, _channels) = edge(server.tls());
    let (certificate, key) = device();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_client_auth_cert(vec![certificate; 9], key)
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let refused = TlsConnector::from(Arc::new(config)).connect(name, edge.client().await).await;
    assert!(refused.is_err());
    edge.shows("moorline_tls_handshakes_failed_total{reason=\"refused\"} 1").await;
}
