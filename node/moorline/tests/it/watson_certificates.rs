//! Devices and gateways of Watson IoT that show certificates of their organisation's authorities, as its policies ask.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};

use crate::{
    harness::{
        packet::{self, Connect, Packet, Version},
        scenarios,
        wait::{SOON, until, until_true},
    },
    watson::{Org, device, named},
    watson_managed::ask_as,
};

/// A key that may change policies.
const OPERATE_KEY: &str = "a-abc123-operateall";

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// What a client shows: a certificate and its key.
struct Shown {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

struct Plant {
    org: Org,
    operate: String,
    ours: Issuer,
    theirs: Issuer,
}

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued(by: &Issuer, common: &str, alternative: &[SanType]) -> Shown {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.subject_alt_names = alternative.to_vec();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().der().clone();
    Shown { certificate, key: key.serialize_der() }
}

/// A connection by TLS.
struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    version: Version,
    input: Vec<u8>,
}

impl Plant {
    fn ca(&self, node: u64) -> PathBuf {
        self.org.api.cluster.node(node).data.join("tls/ca.pem")
    }

    /// Says CONNECT over TLS.
    #[track_caller]
    fn begin(&self, node: u64, shown: Option<&Shown>, connect: &Connect) -> Secure {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.ca(node)).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            Some(Shown { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.org.api.at(node, "mqtts")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let stream = StreamOwned::new(connection, socket);
        let mut secure = Secure { stream, version: connect.version, input: Vec::new() };
        secure.stream.write_all(&packet::connect(connect)).unwrap();
        secure
    }

    /// The reason of the CONNACK; [`None`] if there is none.
    #[track_caller]
    fn reason(&self, node: u64, shown: Option<&Shown>, connect: &Connect) -> Option<u8> {
        match self.begin(node, shown, connect).hear() {
            Some(Packet::ConnAck { reason, .. }) => Some(reason),
            None => None,
            other => panic!("{} hears {other:?}", connect.client),
        }
    }

    #[track_caller]
    fn connected(&self, node: u64, shown: Option<&Shown>, connect: &Connect) -> Secure {
        let mut secure = self.begin(node, shown, connect);
        assert!(matches!(secure.hear(), Some(Packet::ConnAck { reason: 0, .. })));
        secure
    }

    #[track_caller]
    fn ask_for(&self, policies: &Value) {
        for node in 1..=3 {
            let asked = ("PUT", "/config/connection-security", policies);
            let answer = ask_as(&self.org, node, (OPERATE_KEY, &self.operate), asked);
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }

    /// Whose certificates count from now on.
    #[track_caller]
    fn trust(&self, authority: &Issuer) {
        let anchors = json!({ "certificates": authority.pem() });
        let settings = json!({ "plaintext": true, "trust-anchors": &anchors });
        let body = json!({ "settings": settings });
        let (status, answer) = self.org.api.ask(1, "PATCH", "/tenants/acme", &body);
        assert_eq!(status, 200, "{answer}");
        // Who fails too often while a node does not know of it yet would be banned.
        until_true("all nodes know of the authority", SOON, || {
            (1..=3).all(|node| {
                let (_, shown) = self.org.api.ask(node, "GET", "/tenants/acme", &Value::Null);
                shown["settings"]["trust-anchors"]["certificates"] == anchors["certificates"]
            })
        });
    }
}

impl Secure {
    /// The next packet; [`None`] when the connection ends.
    #[track_caller]
    fn hear(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = packet::take(self.version, &mut self.input) {
                return Some(packet);
            }
            let mut some = [0; 1_024];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(bytes) => self.input.extend_from_slice(&some[..bytes]),
                // Closed without a word of TLS.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A client without a token.
fn bare(version: Version, client: &str) -> Connect {
    Connect::clean(version, client)
}

#[test]
fn certificates_say_who_it_is() {
    let org = Org::start_as(&["http", "mqtts"]);
    let operate = org.key(OPERATE_KEY, "operator");
    let mut plant = Plant { org, operate, ours: authority("ours"), theirs: authority("theirs") };
    plant.trust(&plant.ours);
    scenarios(
        &mut plant,
        &[
            ("a certificate is enough where nobody says otherwise", enough),
            ("a certificate is its client's and nobody else's", nobody_elses),
            ("a type asks for what its policy says", policies),
            ("who no authority vouches for any more is turned out", turned_out),
        ],
    );
}

fn enough(plant: &mut Plant) {
    let org = &plant.org;
    org.register("pump", "c1", "device");
    org.register("gw", "c1", "gateway");
    let (mut app, _) = org.application(Version::V4, "dash").to(org.at(1));
    assert_eq!(app.subscribe(&[("iot-2/type/pump/id/c1/mon", 0)]), [0]);
    let other = SanType::DnsName("pump.example".try_into().unwrap());
    let mail = SanType::Rfc822Name("d:pump:c1".try_into().unwrap());
    let uri = SanType::URI("d:pump:c1".try_into().unwrap());
    let gateway = issued(&plant.ours, "g:gw:c1", &[]);
    let by_common = issued(&plant.ours, "d:pump:c1", &[]);
    for node in 1..=3 {
        let connect = bare(Version::V4, "g:abc123:gw:c1");
        assert_eq!(plant.reason(node, Some(&gateway), &connect), Some(0));
    }
    let device = bare(Version::V4, "d:abc123:pump:c1");
    let mut pump = plant.connected(2, Some(&by_common), &device);
    let here: Value = serde_json::from_slice(&app.message().payload).unwrap();
    assert_eq!((&here["CertName"], &here["Secure"]), (&json!("d:pump:c1"), &json!(true)), "{here}");
    let event = packet::publish(Version::V4, 7, "iot-2/evt/e/fmt/json", b"{}", None);
    pump.stream.write_all(&event).unwrap();
    assert!(matches!(pump.hear(), Some(Packet::PubAck { id: 7, .. })));
    for names in [vec![mail.clone()], vec![other, uri]] {
        let shown = issued(&plant.ours, "whoever", &names);
        assert_eq!(plant.reason(3, Some(&shown), &device), Some(0), "{names:?}");
    }
    // A token does as well, also beside a certificate of somebody that nobody here knows.
    let token = org.register("pump", "c2", "device");
    let with = crate::watson::device(Version::V5, "pump", "c2", &token);
    let foreign = issued(&plant.theirs, "d:pump:c2", &[]);
    assert_eq!(plant.reason(1, None, &with), Some(0));
    assert_eq!(plant.reason(1, Some(&foreign), &with), Some(0));
    assert_eq!(plant.reason(1, Some(&foreign), &bare(Version::V4, "d:abc123:pump:c2")), Some(5));
    assert_eq!(plant.reason(1, None, &bare(Version::V4, "d:abc123:pump:c1")), Some(5));
}

fn nobody_elses(plant: &mut Plant) {
    let token = plant.org.register("pump", "c3", "device");
    plant.org.register("pump", "c4", "device");
    let shown = issued(&plant.ours, "d:pump:c4", &[]);
    for (version, no) in [(Version::V4, None), (Version::V5, Some(0x87))] {
        let without = bare(version, "d:abc123:pump:c3");
        assert_eq!(plant.reason(1, Some(&shown), &without), no);
        // What it says besides must not contradict it.
        let with = device(version, "pump", "c3", &token);
        assert_eq!(plant.reason(2, Some(&shown), &with), no);
    }
    let class = issued(&plant.ours, "g:pump:c4", &[]);
    assert_eq!(plant.reason(3, Some(&class), &bare(Version::V4, "g:abc123:pump:c4")), Some(5));
    let unknown = issued(&plant.ours, "d:pump:nobody", &[]);
    assert_eq!(
        plant.reason(3, Some(&unknown), &bare(Version::V4, "d:abc123:pump:nobody")),
        Some(5)
    );
}

fn policies(plant: &mut Plant) {
    let org = &plant.org;
    plant.ask_for(&json!({
        "default": "token",
        "types": { "safe": "certificate-and-token", "sure": "certificate", "lax": "tls-optional" },
    }));
    let cases = ["safe", "sure", "plain", "lax"].map(|kind| {
        let token = org.register(kind, "c5", "device");
        (kind, token, issued(&plant.ours, &format!("d:{kind}:c5"), &[]))
    });
    #[rustfmt::skip]
    let expected = [
        // nothing, token, certificate, both; and a token without TLS
        ("safe",  [None,    None,    Some(5), Some(0)], 5),
        ("sure",  [None,    None,    Some(0), Some(0)], 5),
        ("plain", [Some(5), Some(0), Some(5), Some(0)], 5),
        ("lax",   [Some(5), Some(0), Some(5), Some(0)], 0),
    ];
    for ((kind, token, shown), (_, tls, without_tls)) in cases.iter().zip(expected) {
        let client = format!("d:abc123:{kind}:c5");
        let (without, with) = (bare(Version::V4, &client), named(Version::V4, &client, token));
        let heard = [
            plant.reason(1, None, &without),
            plant.reason(2, None, &with),
            plant.reason(3, Some(shown), &without),
            plant.reason(1, Some(shown), &with),
        ];
        assert_eq!(heard, tls, "{kind}");
        assert_eq!(with.reason(org.at(2)), without_tls, "{kind}");
    }
    let asked = ("PUT", "/config/connection-security", &json!({ "default": "tls" }));
    assert_eq!(ask_as(org, 1, (OPERATE_KEY, &plant.operate), asked).status, 400);
    plant.ask_for(&json!({}));
}

fn turned_out(plant: &mut Plant) {
    plant.org.register("pump", "c6", "device");
    let shown = issued(&plant.ours, "d:pump:c6", &[]);
    let connect = bare(Version::V5, "d:abc123:pump:c6");
    let mut pump = plant.connected(3, Some(&shown), &connect);
    plant.trust(&plant.theirs);
    let heard = until("it hears something", SOON, || pump.hear());
    assert_eq!(heard, Packet::Disconnect { reason: 0x87 });
    assert_eq!(plant.reason(3, Some(&shown), &connect), Some(0x86));
}
