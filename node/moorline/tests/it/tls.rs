//! A node's certificates: made when there are none, exchanged while it runs; and the API for other machines.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;

use crate::harness::{
    cluster::{Cluster, Shape, ports},
    http,
    node::{MOORLINE, Node},
    wait::{SOON, until_true},
};

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands, trusting nothing but what is in `ca`.
fn secure(at: SocketAddr, ca: &Path) -> Stream {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(connection, socket)
}

fn says(stream: &mut Stream, said: &[u8], answer: &[u8]) {
    stream.write_all(said).unwrap();
    let mut heard = vec![0; answer.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, answer);
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone()
}

/// Asks `listen.api`; status and body.
fn ask(at: SocketAddr, ca: &Path, method: &str, path: &str, more: &str) -> (u16, String) {
    let mut stream = secure(at, ca);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    stream.write_all(format!("{head}{more}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// A node that listens for other things than plain MQTT.
fn prepare(listen: &str, extra: &str) -> Cluster {
    let mut shape = Shape::of(1);
    shape.extra = extra.to_owned();
    let cluster = Cluster::prepare(&shape);
    let node = cluster.node(1);
    let text = fs::read_to_string(&node.config).unwrap();
    let plain = format!("mqtt = \"{}\"\n", node.mqtt);
    let secure = format!("mqtts = \"{}\"\n{listen}", node.mqtt);
    assert!(text.contains(&plain));
    fs::write(&node.config, text.replace(&plain, &secure)).unwrap();
    cluster
}

fn moorline(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(MOORLINE);
    command.args(arguments).env_remove("MOORLINE_CA").env_remove("MOORLINE_API");
    command.envs(environment.iter().copied()).output().unwrap()
}

fn words(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn counts(node: &Node, line: &str) {
    until_true(line, SOON, || {
        http::get(node.admin, "/metrics").is_ok_and(|answer| answer.body.contains(line))
    });
}

#[test]
fn a_node_without_a_certificate_makes_one_says_so_and_keeps_it() {
    let mut cluster = prepare("", "");
    cluster.bring_up();
    let tls = cluster.node(1).data.join("tls");
    let (ca, key) = (tls.join("ca.pem"), tls.join("ca.key"));
    let log = cluster.node(1).log();
    assert!(log.contains("DEVELOPMENT CA") && log.contains(ca.to_str().unwrap()), "{log}");
    assert_eq!([mode(&key), mode(&tls.join("server.key"))], [0o600; 2]);
    let at = cluster.mqtt(1);
    let mut first = secure(at, &ca);
    says(&mut first, CONNECT, CONNACK);
    let made = ["ca.pem", "ca.key", "server.pem", "server.key"].map(|name| tls.join(name));
    let before = made.each_ref().map(|path| fs::read(path).unwrap());
    cluster.node_mut(1).kill();
    cluster.node_mut(1).start_ready();
    assert_eq!(made.each_ref().map(|path| fs::read(path).unwrap()), before);
    assert_eq!(shown(&secure(at, &ca)), shown(&first));
}

#[test]
fn the_api_for_other_machines_wants_tokens_and_shows_no_cluster() {
    let at = ports(1)[0];
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("cluster.key");
    fs::write(&key, "5a".repeat(32)).unwrap();
    let extra = format!("[security]\nkey-file = {key:?}\n");
    let mut cluster = prepare(&format!("api = \"{at}\"\n"), &extra);
    cluster.bring_up();
    let ca = cluster.node(1).data.join("tls/ca.pem");
    for path in ["/health/live", "/health/ready", "/health/startup", "/livez", "/metrics"] {
        assert_eq!(ask(at, &ca, "GET", path, "\r\n").0, 200, "{path}");
    }
    #[rustfmt::skip]
    let not_here = [
        ("GET",  "/api/v1/cluster"),
        ("POST", "/api/v1/cluster/init"),
        ("POST", "/api/v1/cluster/token"),
        ("POST", "/api/v1/cluster/remove?node=1"),
        ("GET",  "/api/v1/sessions?client=c"),
        ("GET",  "/api/v1/shares"),
        ("GET",  "/nothing"),
    ];
    for (method, path) in not_here {
        let (status, body) = ask(at, &ca, method, path, "content-length: 0\r\n\r\n");
        assert_eq!(status, 404, "{path}: {body}");
    }
    // Also from this machine nobody makes the first token here.
    let first = "content-type: application/json\r\ncontent-length: 30\r\n\r\n\
        {\"name\":\"root\",\"role\":\"admin\"}";
    assert_eq!(ask(at, &ca, "POST", "/api/v1/tokens", first).0, 401);

    let admin = cluster.node(1).admin.to_string();
    let arguments = ["token", "create", "root", "--only", "token", "--admin", &admin];
    let made = moorline(&arguments, &[]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let token = words(&made.stdout).trim().to_owned();
    let url = format!("https://{at}");
    let token = ("MOORLINE_TOKEN", token.as_str());
    let with = ["--api", &url, "--ca", ca.to_str().unwrap()];
    let made = moorline(&[&["tenant", "create", "acme"][..], &with].concat(), &[token]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let listed = moorline(
        &["tenant", "list"],
        &[token, ("MOORLINE_API", &url), ("MOORLINE_CA", ca.to_str().unwrap())],
    );
    assert!(words(&listed.stdout).contains("acme"), "{}", words(&listed.stderr));

    let distrusts = moorline(&["tenant", "list", "--api", &url], &[token]);
    assert_eq!(distrusts.status.code(), Some(4));
    assert!(words(&distrusts.stderr).contains("--ca FILE"), "{}", words(&distrusts.stderr));
    let nobody = moorline(&[&["tenant", "list"][..], &with].concat(), &[]);
    assert_eq!(nobody.status.code(), Some(4), "{}", words(&nobody.stderr));
    TcpStream::connect(at).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    counts(cluster.node(1), "moorline_api_refused_total{reason=\"tls\"} 2");
}

/// An authority of its own in a directory, and a certificate `name` of it; where the authority's is.
fn issue(dir: &Path, name: &str) -> PathBuf {
    let dir = dir.to_str().unwrap();
    let made = moorline(&["ca", "init", "--dir", dir], &[]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let issued = moorline(&["ca", "issue", name, "--san", "localhost", "--dir", dir], &[]);
    assert!(issued.status.success(), "{}", words(&issued.stderr));
    Path::new(dir).join("ca.pem")
}

#[test]
fn a_new_certificate_comes_with_sighup_and_ends_no_connection() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [old_ca, new_ca] = dirs.each_ref().map(|dir| issue(dir.path(), "node"));
    let file = |dir: usize, name: &str| dirs[dir].path().join(name);
    let (cert, key) = (file(0, "node.pem"), file(0, "node.key"));
    let mut cluster = prepare("", &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n"));
    cluster.bring_up();
    let (at, node) = (cluster.mqtt(1), cluster.node(1));
    let mut old = secure(at, &old_ca);
    says(&mut old, CONNECT, CONNACK);
    // A key that does not fit: as it is for a moment while files are exchanged.
    fs::copy(file(1, "node.key"), &key).unwrap();
    node.hang_up();
    counts(node, "moorline_tls_reloads_total{result=\"failed\"} 1");
    assert_eq!(shown(&secure(at, &old_ca)), shown(&old));
    fs::copy(file(1, "node.pem"), &cert).unwrap();
    node.hang_up();
    counts(node, "moorline_tls_reloads_total{result=\"done\"} 1");
    assert_ne!(shown(&secure(at, &new_ca)), shown(&old));
    says(&mut old, b"\xc0\x00", b"\xd0\x00");
}

#[test]
fn an_authority_overwrites_nothing_and_keeps_its_keys_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let made = moorline(&["ca", "init", "--dir", path, "--json"], &[]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(mode(Path::new(made["key"].as_str().unwrap())), 0o600);
    let issued = moorline(&["ca", "issue", "pump-1", "--client", "--dir", path, "--json"], &[]);
    let issued: Value = serde_json::from_slice(&issued.stdout).unwrap();
    assert_eq!(issued["ca"], made["cert"]);
    assert_eq!(mode(Path::new(issued["key"].as_str().unwrap())), 0o600);
    let node = moorline(&["ca", "issue", "moorline", "--node", "3", "--dir", path], &[]);
    assert!(node.status.success() && dir.path().join("node3.pem").exists());
    #[rustfmt::skip]
    let refused = [
        (vec!["ca", "init"],                                  1, "not overwritten"),
        (vec!["ca", "issue", "pump-1", "--client"],           1, "not overwritten"),
        (vec!["ca", "issue", "../pump"],                      1, "no file's name"),
        (vec!["ca", "issue", "a", "--client", "--san", "b"],  2, "cannot be used with"),
        (vec!["ca", "issue", "a", "--days", "0"],             2, "0 is not in"),
    ];
    for (arguments, code, expected) in refused {
        let refused = moorline(&[&arguments[..], &["--dir", path]].concat(), &[]);
        let said = words(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
