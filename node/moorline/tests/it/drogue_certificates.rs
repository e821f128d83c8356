//! Devices of Drogue Cloud that show certificates: the issuer is the application, the subject the device.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::json;

use crate::harness::{
    api::Api,
    cluster::Shape,
    packet::{self, Connect, Packet, Version},
    wait::SOON,
};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// What a client shows: a certificate and its key.
struct Shown {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

fn named(organisation: &str, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organisation);
    name.push(DnType::CommonName, common);
    name
}

fn authority(common: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = named("Plant", common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued(by: &Issuer, common: &str) -> Shown {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = named("Plant", common);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().der().clone();
    Shown { certificate, key: key.serialize_der() }
}

/// The reason of the CONNACK.
#[track_caller]
fn reason(api: &Api, shown: &Shown, connect: &Connect) -> u8 {
    let mut roots = RootCertStore::empty();
    let ca = api.cluster.node(1).data.join("tls/ca.pem");
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let key = PrivateKeyDer::try_from(shown.key.clone()).unwrap();
    let config = config.with_client_auth_cert(vec![shown.certificate.clone()], key).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(api.at(1, "mqtts")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(&packet::connect(connect)).unwrap();
    let mut input = Vec::new();
    loop {
        if let Some(packet) = packet::take(connect.version, &mut input) {
            let Packet::ConnAck { reason, .. } = packet else { panic!("{packet:?}") };
            return reason;
        }
        let mut some = [0; 1_024];
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "closed without an answer");
        input.extend_from_slice(&some[..read]);
    }
}

#[test]
fn a_certificates_issuer_is_its_application() {
    let api = Api::start_as(&Shape::of(1), &["mqtts"]);
    let (ours, theirs, strangers) =
        (authority("ours"), authority("theirs"), authority("strangers"));
    for (name, common, issuer) in [("plant", "ours", &ours), ("other", "theirs", &theirs)] {
        let aliases = [format!("drogue:{name}"), format!("drogue:O=Plant, CN={common}")];
        let settings = json!({ "trust-anchors": { "certificates": issuer.pem() } });
        let tenant = json!({ "name": name, "aliases": aliases, "settings": settings });
        let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
        assert_eq!(status, 201, "{made}");
    }
    for device in ["O=Plant, CN=by-subject", "by-common"] {
        let (status, made) =
            api.ask(1, "POST", "/devices?tenant=plant", &json!({ "name": device }));
        assert_eq!(status, 201, "{made}");
    }
    let (status, made) =
        api.ask(1, "POST", "/devices?tenant=plant", &json!({ "name": "otherwise" }));
    assert_eq!(status, 201, "{made}");
    let alias = json!({ "kind": "alias", "alias": "O=Plant, CN=by-alias" });
    let path = "/devices/otherwise/credentials?tenant=plant";
    let (status, made) = api.ask(1, "POST", path, &alias);
    assert_eq!(status, 201, "{made}");
    for (version, refused) in [(Version::V4, 4), (Version::V5, 0x86)] {
        let bare = Connect::clean(version, "any");
        #[rustfmt::skip]
        let table = [
            (issued(&ours, "by-subject"),      0,       "named by all of its subject"),
            (issued(&ours, "by-common"),       0,       "named by its common name"),
            (issued(&ours, "by-alias"),        0,       "an alias"),
            (issued(&ours, "nobody"),          refused, "nobody"),
            (issued(&theirs, "by-common"),     refused, "a device of another application"),
            (issued(&strangers, "by-common"),  refused, "of an authority of nobody's"),
        ];
        for (shown, expected, what) in &table {
            assert_eq!(reason(&api, shown, &bare), *expected, "{what}, {version:?}");
        }
        let login = Some(("by-common@plant".to_owned(), "x".to_owned()));
        let beside = Connect { login, ..bare };
        assert_eq!(reason(&api, &table[1].0, &beside), refused, "beside a user name");
    }
}
