//! Devices of Drogue Cloud that show certificates: the issuer is the application, the subject the device.

use rcgen::{DistinguishedName, DnType};
use serde_json::json;

use crate::harness::{
    api::Api,
    certificates::{Issuer, Shown, authority, named},
    cluster::Shape,
    packet::{Connect, Version},
};

fn of_plant(common: &str) -> DistinguishedName {
    named(&[(DnType::OrganizationName, "Plant"), (DnType::CommonName, common)])
}

fn issued(by: &Issuer, common: &str) -> Shown {
    Shown::issued(by, of_plant(common))
}

/// The reason of the CONNACK.
#[track_caller]
fn reason(api: &Api, shown: &Shown, connect: &Connect) -> u8 {
    shown.connect(api, 1, connect).1
}

#[test]
fn a_certificates_issuer_is_its_application() {
    let api = Api::start_as(&Shape::of(1), &["mqtts"]);
    let [ours, theirs, strangers] =
        ["ours", "theirs", "strangers"].map(|name| authority(of_plant(name)));
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
