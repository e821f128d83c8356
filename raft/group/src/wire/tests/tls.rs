//! Mutual TLS: who has no certificate of the cluster's authority is not let in.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

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
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = names.join("+");
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.ca).unwrap();
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
