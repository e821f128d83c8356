//! Mutual TLS: who has no certificate of the cluster's authority is not let in.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use tempfile::TempDir;
use tokio::time::sleep;

use super::*;

const SERVER_NAME: &str = "node.moorline.internal";

/// An authority, and a directory for what it gives.
struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { ca, directory: tempfile::tempdir().unwrap() }
    }

    /// A certificate with these names.
    fn files(&self, names: &[&str]) -> TlsFiles {
        self.files_for(names, Vec::new())
    }

    /// One that is for this alone.
    fn files_for(&self, names: &[&str], purposes: Vec<ExtendedKeyUsagePurpose>) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = names.join("+");
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = purposes;
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let write = |name: String, pem: String| {
            let path = self.directory.path().join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        TlsFiles {
            ca: write("ca.pem".to_owned(), self.ca.pem()),
            certificate: write(format!("{file}.pem"), certificate.pem()),
            key: write(format!("{file}.key"), key.serialize_pem()),
            server_name: SERVER_NAME.to_owned(),
        }
    }

    fn of_node(&self, node: u64) -> TlsFiles {
        self.files(&[SERVER_NAME, &node_name(node, SERVER_NAME)])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_with_the_clusters_certificates_connect() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (listeners, addresses) = listeners(6);
    let tls = [
        Some(ours.of_node(1)),
        Some(ours.of_node(2)),
        // Another authority's, as devices have.
        Some(theirs.of_node(3)),
        None,
        // Of the cluster, and another node's.
        Some(ours.of_node(2)),
        // Of the cluster, and no node's.
        Some(ours.files(&[SERVER_NAME])),
    ];
    let mut nodes: Vec<_> = (1..)
        .zip(listeners)
        .zip(tls)
        .map(|((id, listener), tls)| node(config(id, &addresses, tls), listener))
        .collect();
    for node in &mut nodes {
        echo(&node.peers, Kind::Submit);
        node.start();
    }
    nodes[0].wait_up(2).await;
    nodes[1].wait_up(1).await;
    let body = Bytes::from(vec![7; 1 << 20]);
    let call =
        nodes[0].peers.call(NodeId(2), Lane::Data, Kind::Submit, SHARD, body.clone(), PATIENCE);
    assert!(call.await == Ok(body));
    for (stranger, peer) in [(2, 1), (3, 1), (0, 3), (0, 4), (0, 5), (0, 6)] {
        let tried = async {
            while nodes[stranger].metric("moorline_wire_failed_connects_total", "") < 10.0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, tried).await.expect("in time");
        assert!(!nodes[stranger].peers.is_up(NodeId(peer)), "{} to {peer}", stranger + 1);
    }
    for stranger in [2, 3, 4, 5] {
        assert_eq!(nodes[stranger].metric("moorline_wire_connects_total", ""), 0.0, "{stranger}");
    }
    // They were let through by TLS, and refused by who they said they are.
    let refused = async {
        while nodes[0].metric("moorline_wire_refused_hellos_total", "certificate") < 2.0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("in time");
}

#[test]
fn a_missing_file_is_named() {
    let authority = Authority::new();
    let mut tls = authority.of_node(1);
    tls.key = authority.directory.path().join("nowhere.key");
    let error = Peers::new(config(1, &BTreeMap::new(), Some(tls)), &Registry::new()).unwrap_err();
    assert!(error.to_string().contains("nowhere.key"), "{error}");
}

/// Files that a node reads again: where they are stays, what they are changes.
struct Live {
    directory: TempDir,
    files: TlsFiles,
}

impl Live {
    fn of(files: &TlsFiles) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let live = TlsFiles {
            ca: at("ca.pem"),
            certificate: at("node.pem"),
            key: at("node.key"),
            server_name: SERVER_NAME.to_owned(),
        };
        let live = Self { files: live, directory };
        live.shows(files);
        live.trusts(&[files]);
        live
    }

    fn shows(&self, files: &TlsFiles) {
        fs::copy(&files.certificate, &self.files.certificate).unwrap();
        fs::copy(&files.key, &self.files.key).unwrap();
    }

    fn trusts(&self, all: &[&TlsFiles]) {
        let all: String = all.iter().map(|files| fs::read_to_string(&files.ca).unwrap()).collect();
        fs::write(self.directory.path().join("ca.pem"), all).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_takes_the_olds_place_and_no_connection_ends() {
    let (old, new) = (Authority::new(), Authority::new());
    let (of_old, of_new) = ([1, 2].map(|id| old.of_node(id)), [1, 2].map(|id| new.of_node(id)));
    let live = of_old.each_ref().map(Live::of);
    let (mut listeners, addresses) = listeners(4);
    let mut later = listeners.split_off(2);
    // Who is not heard of yet: an attempt that waits for an answer would be judged by the files of when it began.
    let first: BTreeMap<_, _> = addresses.clone().into_iter().filter(|(id, _)| id.0 < 3).collect();
    let mut nodes: Vec<_> = (1..)
        .zip(listeners)
        .zip(&live)
        .map(|((id, listener), live)| node(config(id, &first, Some(live.files.clone())), listener))
        .collect();
    for node in &mut nodes {
        echo(&node.peers, Kind::Submit);
        node.start();
    }
    nodes[0].wait_up(2).await;
    nodes[1].wait_up(1).await;

    let refused = |node: &Node, expected: &str| {
        let why = node.peers.reload_tls().unwrap_err().to_string();
        assert!(why.contains(expected), "{expected} is not in {why}");
    };
    // Each step on one node after the other, as people do it.
    for ((node, live), (old, new)) in nodes.iter().zip(&live).zip(of_old.iter().zip(&of_new)) {
        live.trusts(&[old, new]);
        node.peers.reload_tls().unwrap();
    }
    for ((node, live), new) in nodes.iter().zip(&live).zip(&of_new) {
        fs::copy(&new.key, &live.files.key).unwrap();
        refused(node, "node.pem: with ");
        live.shows(new);
        node.peers.reload_tls().unwrap();
    }
    for ((node, live), (old, new)) in nodes.iter().zip(&live).zip(of_old.iter().zip(&of_new)) {
        live.trusts(&[old]);
        refused(node, "nodes with this ca refuse it");
        fs::write(&live.files.ca, "no certificate").unwrap();
        refused(node, "ca.pem: there is no certificate in it");
        live.trusts(&[new]);
        node.peers.reload_tls().unwrap();
    }
    live[0].shows(&of_new[1]);
    refused(&nodes[0], "it has no name node-1.");

    for node in &nodes {
        assert_eq!(node.metric("moorline_wire_losses_total", ""), 0.0);
    }
    assert!(nodes[0].call(2, Kind::Submit, "as before").await.is_ok());

    // Who comes now is judged by the new files, in both directions.
    let (of_old, of_new) = (old.of_node(3), new.of_node(4));
    let stranger = Live::of(&of_old);
    stranger.trusts(&[&of_old, &of_new]);
    let (fourth, third) = (later.pop().unwrap(), later.pop().unwrap());
    let mut third = node(config(3, &addresses, Some(stranger.files.clone())), third);
    let mut fourth = node(config(4, &addresses, Some(of_new)), fourth);
    for node in &nodes {
        node.peers.update_peers(addresses.clone());
    }
    third.start();
    fourth.start();
    fourth.wait_up(1).await;
    nodes[0].wait_up(4).await;
    let tried = async {
        while third.metric("moorline_wire_failed_connects_total", "") < 10.0
            || nodes[0].metric("moorline_wire_failed_handshakes_total", "") < 1.0
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("in time");
    assert!(!nodes[0].peers.is_up(NodeId(3)), "it shows a certificate of the old authority");
    assert!(!third.peers.is_up(NodeId(1)), "its certificate is one of the old authority");
}

#[tokio::test]
async fn a_new_certificate_has_to_do_for_both_directions() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let authority = Authority::new();
    let live = Live::of(&authority.of_node(1));
    let (mut listeners, addresses) = listeners(1);
    let config = config(1, &addresses, Some(live.files.clone()));
    let node = node(config, listeners.pop().unwrap());
    let own = node_name(1, SERVER_NAME);
    let table = [
        (vec![ClientAuth], Some("nodes with this ca do not connect to it")),
        (vec![ServerAuth], Some("nodes with this ca refuse it")),
        (vec![ServerAuth, ClientAuth], None),
    ];
    for (purposes, expected) in table {
        live.shows(&authority.files_for(&[SERVER_NAME, &own], purposes));
        let why = node.peers.reload_tls().err().map(|why| why.to_string());
        match expected {
            Some(expected) => assert!(why.as_ref().unwrap().contains(expected), "{why:?}"),
            None => assert_eq!(why, None),
        }
    }
}

#[tokio::test]
async fn files_are_read_again_when_asked_and_counted() {
    let (authority, asked) = (Authority::new(), Arc::new(tokio::sync::Notify::new()));
    let live = Live::of(&authority.of_node(1));
    let (mut listeners, addresses) = listeners(1);
    let config = config(1, &addresses, Some(live.files.clone()));
    let node = node(config, listeners.pop().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let (peers, told) = (node.peers.clone(), Arc::clone(&asked));
    let mut kept = tokio::task::JoinSet::new();
    kept.spawn(peers.keep_tls_fresh(told, stop.clone()));
    let counted = async |result: &str| {
        asked.notify_one();
        let counted = async {
            while node.metric("moorline_wire_tls_reloads_total", result) < 1.0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("in time");
    };
    counted("done").await;
    assert!(node.metric("moorline_wire_cert_expiry_timestamp_seconds", "") > 0.0);
    fs::remove_file(&live.files.key).unwrap();
    counted("failed").await;
    stop.cancel();
    timeout(PATIENCE, kept.join_next()).await.expect("in time").unwrap().unwrap();
}
