//! Devices of a profile of ThingsBoard's that has an authority: who shows a certificate of it is the device that it names, at whichever
//! node, and nobody else is.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        packet::{self, Connect, Version},
        scenarios,
        wait::SOON,
    },
    thingsboard::latest,
    thingsboard_rest::{User, refused},
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a device has: certificates, its own first, and its key.
struct Holder {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Holder {
    /// Of a common name, issued by one authority, that shows perhaps another one's certificate behind its own.
    fn new(common: &str, by: &Authority, shows: Option<&Authority>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, by).unwrap().der().clone();
        let shown = shows.map(|shown| CertificateDer::from_pem_slice(shown.pem().as_bytes()));
        Self { chain: std::iter::once(own).chain(shown.map(Result::unwrap)).collect(), key }
    }

    /// Connects to a node, and says something if it may: what the CONNACK says.
    fn says(&self, api: &Api, node: u64, telemetry: &str) -> u8 {
        let mut roots = RootCertStore::empty();
        let ca = api.cluster.node(node).data.join("tls/ca.pem");
        for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain.clone(), key)
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(api.at(node, "mqtts")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let connect = Connect { login: None, ..Connect::clean(Version::V4, "ESP32Client") };
        stream.write_all(&packet::connect(&connect)).unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard[0], 0x20, "{heard:?}");
        if heard[3] == 0 {
            let topic = "v1/devices/me/telemetry";
            let publish = packet::publish(Version::V4, 1, topic, telemetry.as_bytes(), None);
            stream.write_all(&publish).unwrap();
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(heard, [0x40, 2, 0, 1]);
        }
        heard_code(heard)
    }
}

/// Of a CONNACK; 0 of a PUBACK.
fn heard_code(heard: [u8; 4]) -> u8 {
    if heard[0] == 0x20 { heard[3] } else { 0 }
}

#[test]
fn an_authority_is_a_profiles() {
    let mut api = Api::start_as(&Shape::of(3), &["http", "mqtts"]);
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"], "settings": { "plaintext": true },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("who its authority vouches for is the device that it names", named),
            ("devices that were made in advance take their certificates", in_advance),
        ],
    );
}

/// A profile with an authority; what was answered.
fn with_authority(user: &User, api: &Api, name: &str, ca: &str, creates: bool) -> (u16, Value) {
    let config = json!({
        "type": "X509_CERTIFICATE_CHAIN", "provisionDeviceSecret": ca,
        "certificateRegExpPattern": "^dev (.+)$",
        "allowCreateNewDevicesByX509Certificate": creates,
    });
    let profile = json!({
        "name": name, "provisionType": "X509_CERTIFICATE_CHAIN",
        "profileData": { "provisionConfiguration": config },
    });
    let made = user.ask(api, 1, "POST", "/api/deviceProfile", &profile);
    (made.status, made.json())
}

fn named(api: &mut Api) {
    let user = User::new(api, "named", "operator");
    let (ours, theirs) = (authority("factory"), authority("factory"));
    assert_eq!(with_authority(&user, api, "none", "no certificate", true).0, 400);
    let (status, made) = with_authority(&user, api, "pump", &ours.pem(), true);
    assert_eq!(status, 200, "{made}");
    let thief = with_authority(&user, api, "thief", &ours.pem(), true);
    assert_eq!((thief.0, &thief.1["errorCode"]), (400, &json!(31)), "it is another profile's");

    let first = Holder::new("dev pump-1", &ours, Some(&ours));
    assert_eq!(first.says(api, 1, r#"{"t":1}"#), 0);
    assert_eq!(latest(api, 2, "pump-1")["t"]["value"], 1);
    let row = user.get(api, 3, "/api/tenant/device?deviceName=pump-1");
    assert_eq!(row["type"], "pump");
    // It is its certificate from then on, shown alone, too, and at any node.
    let key = KeyPair::from_pem(&first.key.serialize_pem()).unwrap();
    let alone = Holder { chain: first.chain[..1].to_vec(), key };
    assert_eq!(alone.says(api, 2, r#"{"t":2}"#), 0);
    // Others are nobody: of an authority of the same name, also when the real one's certificate is shown beside it; a name that the
    // pattern does not find; and who does not show the authority.
    #[rustfmt::skip]
    let nobodies = [
        (1, Holder::new("dev pump-1", &theirs, Some(&theirs))),
        (2, Holder::new("dev pump-1", &theirs, Some(&ours))),
        (3, Holder::new("pump-1", &ours, Some(&ours))),
        (3, Holder::new("dev pump-2", &ours, None)),
    ];
    for (node, nobody) in nobodies {
        assert_ne!(nobody.says(api, node, "{}"), 0);
    }
    assert_eq!(latest(api, 1, "pump-1")["t"]["value"], 2);
    // Another certificate of its name takes the place of the first.
    let second = Holder::new("dev pump-1", &ours, Some(&ours));
    assert_eq!(second.says(api, 3, r#"{"t":3}"#), 0);
    assert_ne!(alone.says(api, 1, r#"{"t":4}"#), 0);
    assert_eq!(latest(api, 2, "pump-1")["t"]["value"], 3);
}

fn in_advance(api: &mut Api) {
    let user = User::new(api, "advance", "operator");
    let ours = authority("other factory");
    let (status, made) = with_authority(&user, api, "fan", &ours.pem(), false);
    assert_eq!(status, 200, "{made}");
    for (name, kind) in [("fan-1", "fan"), ("saw-1", "saw")] {
        let new = json!({ "name": name, "type": kind });
        assert_eq!(user.ask(api, 1, "POST", "/api/device", &new).status, 200);
    }
    let of = |name: &str| Holder::new(&format!("dev {name}"), &ours, Some(&ours));
    assert_eq!(of("fan-1").says(api, 2, r#"{"t":1}"#), 0);
    assert_eq!(latest(api, 1, "fan-1")["t"]["value"], 1);
    assert_ne!(of("fan-2").says(api, 1, "{}"), 0, "nobody has made it");
    assert_ne!(of("saw-1").says(api, 2, "{}"), 0, "it is another profile's");
    let path = "/api/tenant/device?deviceName=fan-2";
    refused(&user.ask(api, 3, "GET", path, &Value::Null), 404, 32);
}
