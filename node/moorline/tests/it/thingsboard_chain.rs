//! Devices of a profile of ThingsBoard's that has an authority: who shows a certificate of it is the device that it names, at whichever
//! node, and nobody else is.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        certificates::{Issuer, Shown, authority, common},
        cluster::Shape,
        packet::{self, Connect, Version},
        scenarios,
    },
    thingsboard::latest,
    thingsboard_rest::{User, refused},
};

/// Of a common name, with its authority's certificate behind its own.
fn issued(name: &str, by: &Issuer) -> Shown {
    Shown::issued(by, common(name)).with(by)
}

/// Connects to a node, and says something if it may: what the CONNACK says.
fn says(shown: &Shown, api: &Api, node: u64, telemetry: &str) -> u8 {
    let connect = Connect { login: None, ..Connect::clean(Version::V4, "ESP32Client") };
    let (mut stream, reason) = shown.connect(api, node, &connect);
    if reason == 0 {
        let topic = "v1/devices/me/telemetry";
        let publish = packet::publish(Version::V4, 1, topic, telemetry.as_bytes(), None);
        stream.write_all(&publish).unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [0x40, 2, 0, 1]);
    }
    reason
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
    let (ours, theirs) = (authority(common("factory")), authority(common("factory")));
    assert_eq!(with_authority(&user, api, "none", "no certificate", true).0, 400);
    let (status, made) = with_authority(&user, api, "pump", &ours.pem(), true);
    assert_eq!(status, 200, "{made}");
    let thief = with_authority(&user, api, "thief", &ours.pem(), true);
    assert_eq!((thief.0, &thief.1["errorCode"]), (400, &json!(31)), "it is another profile's");

    let first = issued("dev pump-1", &ours);
    assert_eq!(says(&first, api, 1, r#"{"t":1}"#), 0);
    assert_eq!(latest(api, 2, "pump-1")["t"]["value"], 1);
    let row = user.get(api, 3, "/api/tenant/device?deviceName=pump-1");
    assert_eq!(row["type"], "pump");
    // It is its certificate from then on, shown alone, too, and at any node.
    let alone = first.alone();
    assert_eq!(says(&alone, api, 2, r#"{"t":2}"#), 0);
    // Others are nobody: of an authority of the same name, also when the real one's certificate is shown beside it; a name that the
    // pattern does not find; and who does not show the authority.
    #[rustfmt::skip]
    let nobodies = [
        (1, issued("dev pump-1", &theirs)),
        (2, issued("dev pump-1", &theirs).alone().with(&ours)),
        (3, issued("pump-1", &ours)),
        (3, issued("dev pump-2", &ours).alone()),
    ];
    for (node, nobody) in nobodies {
        assert_ne!(says(&nobody, api, node, "{}"), 0);
    }
    assert_eq!(latest(api, 1, "pump-1")["t"]["value"], 2);
    // Another certificate of its name takes the place of the first.
    let second = issued("dev pump-1", &ours);
    assert_eq!(says(&second, api, 3, r#"{"t":3}"#), 0);
    assert_ne!(says(&alone, api, 1, r#"{"t":4}"#), 0);
    assert_eq!(latest(api, 2, "pump-1")["t"]["value"], 3);
}

fn in_advance(api: &mut Api) {
    let user = User::new(api, "advance", "operator");
    let ours = authority(common("other factory"));
    let (status, made) = with_authority(&user, api, "fan", &ours.pem(), false);
    assert_eq!(status, 200, "{made}");
    for (name, kind) in [("fan-1", "fan"), ("saw-1", "saw")] {
        let new = json!({ "name": name, "type": kind });
        assert_eq!(user.ask(api, 1, "POST", "/api/device", &new).status, 200);
    }
    let of = |name: &str| issued(&format!("dev {name}"), &ours);
    assert_eq!(says(&of("fan-1"), api, 2, r#"{"t":1}"#), 0);
    assert_eq!(latest(api, 1, "fan-1")["t"]["value"], 1);
    assert_ne!(says(&of("fan-2"), api, 1, "{}"), 0, "nobody has made it");
    assert_ne!(says(&of("saw-1"), api, 2, "{}"), 0, "it is another profile's");
    let path = "/api/tenant/device?deviceName=fan-2";
    refused(&user.ask(api, 3, "GET", path, &Value::Null), 404, 32);
}
