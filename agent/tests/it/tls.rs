//! Moonlight over TLS: whom an agent trusts.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    agent::Place,
    cluster::Cluster,
    node::{Manner, Node},
    sdk::drain,
    until,
};

/// A server for this name, and whom a client has to trust for it.
fn secure(name: &str) -> (Manner, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let tls = Some(TlsAcceptor::from(Arc::new(config)));
    (Manner { tls, ..Manner::default() }, cert.pem())
}

fn place(node: &Node, host: &str, authority: &str) -> Place {
    let mut place = Place::new(&[]);
    place.set("MOORLINE_PLAINTEXT", "0");
    place.set("MOORLINE_NODES", &format!("{host}:{}", node.address.port()));
    let file = place.file("ca.pem", authority);
    place.set("MOORLINE_CA", &file);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_drained_over_tls() {
    for (name, step) in [("localhost", 4096), ("127.0.0.1", 1)] {
        let cluster = Cluster::new(60);
        let (manner, authority) = secure(name);
        let node =
            Node::with(&cluster, Manner { step, ..manner }, "127.0.0.1:0".parse().unwrap()).await;
        let agent = place(&node, name, &authority).run().await;
        let mut events = agent.sdk().events().await;
        let (taken, _) = drain(&agent.sdk(), &mut events, "ack", 60).await;
        assert_eq!(taken.len(), 60);
        let large = format!("{{\"t\":\"{}\"}}", "x".repeat(60_000));
        assert_eq!(agent.sdk().post("/pulse/datapoint/env", &large).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_show_who_it_is_gets_no_secret() {
    let (_, stranger) = secure("localhost");
    let (manner, authority) = secure("localhost");
    let (elsewhere, other) = secure("example.org");
    #[rustfmt::skip]
    let table = [
        (manner.clone(), "localhost", &stranger),
        (manner, "127.0.0.1", &authority),
        (elsewhere, "localhost", &other),
    ];
    for (manner, host, authority) in table {
        let cluster = Cluster::new(0);
        let node = Node::with(&cluster, manner, "127.0.0.1:0".parse().unwrap()).await;
        let agent = place(&node, host, authority).run().await;
        let mut events = agent.sdk().events().await;
        let told = events.until_told_why().await["error"].to_string();
        assert!(told.contains("connect_failed: no connection to "), "{told}");
        assert!(told.contains("certificate"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_depends_on_the_working_directory_is_one_configuration() {
    let cluster = Cluster::new(0);
    let (manner, authority) = secure("localhost");
    let node = Node::with(&cluster, manner, "127.0.0.1:0".parse().unwrap()).await;
    let mut place = place(&node, "localhost", &authority);
    place.set("MOORLINE_CA", "ca.pem");
    let here = place.directory().parent().unwrap().to_owned();
    for expected in ["started: ", "already_started: "] {
        let output = place.command(&["start"]).current_dir(&here).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(expected), "{said}");
    }
    until("it is connected", || node.connections() == 1).await;
    assert!(place.prints(&["stop"]).starts_with("stopped: "));
}

#[test]
fn a_list_of_authorities_that_is_none_is_refused() {
    for content in
        ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let mut place = Place::new(&["127.0.0.1:1".parse().unwrap()]);
        place.set("MOORLINE_PLAINTEXT", "");
        let file = place.file("ca.pem", content);
        place.set("MOORLINE_CA", &file);
        let failed = place.complains(&["run"]);
        assert!(failed.starts_with(&format!("invalid_config: MOORLINE_CA: {file}: ")), "{failed}");
    }
}
