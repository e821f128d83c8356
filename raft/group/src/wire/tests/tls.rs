//! Mutual TLS: who has no certificate of the cluster's authority is not let in.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use tokio::time::sleep;

use super::*;

const SERVER_NAME: &str = "node.moorline.internal";

/// Makes an authority and a certificate that it signed.
fn files(directory: &Path) -> TlsFiles {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let write = |name, pem: String| {
        let path = directory.join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    TlsFiles {
        ca: write("ca.pem", ca.pem()),
        certificate: write("node.pem", certificate.pem()),
        key: write("node.key", key.serialize_pem()),
        server_name: SERVER_NAME.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_with_the_clusters_certificates_connect() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [ours, theirs] = directories.each_ref().map(|directory| files(directory.path()));
    let (listeners, addresses) = listeners(4);
    let tls = [Some(ours.clone()), Some(ours), Some(theirs), None];
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
    for (stranger, peer) in [(2, 1), (3, 1), (0, 3), (0, 4)] {
        let tried = async {
            while nodes[stranger].metric("moorline_wire_failed_connects_total", "") < 10.0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, tried).await.expect("in time");
        assert!(!nodes[stranger].peers.is_up(NodeId(peer)), "{} to {peer}", stranger + 1);
    }
    for stranger in [2, 3] {
        assert_eq!(nodes[stranger].metric("moorline_wire_connects_total", ""), 0.0);
    }
}

#[test]
fn a_missing_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut tls = files(directory.path());
    tls.key = directory.path().join("nowhere.key");
    let error = Peers::new(config(1, &BTreeMap::new(), Some(tls)), &Registry::new()).unwrap_err();
    assert!(error.to_string().contains("nowhere.key"), "{error}");
}
