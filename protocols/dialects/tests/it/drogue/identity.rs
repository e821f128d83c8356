//! Who a device says that it is, by MQTT and by HTTP.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_dialects::drogue::identity::{Credentials, DeviceId, Hello, http, mqtt};

/// Device, application, user if any, password.
type Shown = (String, String, Option<String>, String);

fn shown(credentials: &Credentials) -> Option<Shown> {
    let (id, user, password) = match credentials {
        Credentials::Password { id, password } => (id, None, password),
        Credentials::User { id, user, password } => (id, Some(user.to_string()), password),
        Credentials::Proven => return None,
    };
    let DeviceId { application, device } = id;
    let password = String::from_utf8(password.expose().to_vec()).unwrap();
    Some((device.to_string(), application.to_string(), user, password))
}

fn password(device: &str, app: &str) -> Option<Shown> {
    Some((device.to_owned(), app.to_owned(), None, "pw".to_owned()))
}

fn user(device: &str, app: &str, user: &str) -> Option<Shown> {
    Some((device.to_owned(), app.to_owned(), Some(user.to_owned()), "pw".to_owned()))
}

#[test]
fn connects_have_exact_shapes() {
    #[rustfmt::skip]
    let table = [
        ("any", Some("gate-7@plant"), true, password("gate-7", "plant"), "a password"),
        ("any", Some("CN%3DGate%207@plant"), true, password("CN=Gate 7", "plant"), "escaped"),
        ("any", Some("a%@plant"), true, password("a%", "plant"), "a sign that stands for nothing"),
        ("any", Some("a@b@c"), true, password("a", "b@c"), "the first @"),
        ("gate-7@plant", Some("fleet"), true, user("gate-7", "plant", "fleet"), "a user"),
        ("gate-7", Some("fleet"), true, None, "a user without a client id"),
        ("any", Some("@plant"), true, None, "no device"),
        ("any", Some("gate-7@"), true, None, "no application"),
        ("any", Some("%ff@plant"), true, None, "no text"),
        ("gate-7@plant", Some(""), true, None, "an empty user name"),
        ("any", Some("gate-7@plant"), false, None, "no password"),
        ("gate-7@plant", Some("fleet"), false, None, "a user without a password"),
        ("any", None, true, None, "a password alone"),
        ("gate-7@plant", None, false, None, "nothing"),
    ];
    for (client, username, has_password, expected, what) in table {
        let password = has_password.then_some(&b"pw"[..]);
        let hello = Hello { client, username, password, proven: false };
        let found = mqtt(&hello).as_ref().and_then(shown);
        assert_eq!(found, expected, "{what}");
        assert_eq!(mqtt(&Hello { proven: true, ..hello }).is_some(), what == "nothing", "{what}");
    }
    let proven = Hello { client: "any", username: None, password: None, proven: true };
    assert_eq!(mqtt(&proven), Some(Credentials::Proven));
}

#[test]
fn requests_have_exact_shapes() {
    #[rustfmt::skip]
    let table = [
        (None, None, "gate-7@plant:pw", password("gate-7", "plant")),
        (Some("plant"), None, "gate-7:pw", password("gate-7", "plant")),
        (Some("plant"), Some("gate-7"), "fleet:pw", user("gate-7", "plant", "fleet")),
        (None, Some("gate-7"), "fleet@plant:pw", user("gate-7", "plant", "fleet")),
        (None, None, "gate-7:pw", None),
        (None, Some("gate-7"), "fleet:pw", None),
        (None, None, "gate-7@plant", None),
    ];
    for (application, device, basic, expected) in table {
        let authorization = format!("Basic {}", STANDARD.encode(basic));
        let asked = |proven| http(application, device, Some(authorization.as_bytes()), proven);
        assert_eq!(asked(false).as_ref().and_then(shown), expected, "{basic}");
        assert_eq!(asked(true), None, "an Authorization beside a certificate");
    }
    let proven = |application, device| http(application, device, None, true);
    assert_eq!(proven(None, None), Some(Credentials::Proven));
    assert_eq!(proven(Some("plant"), None), None, "a parameter beside a certificate");
    assert_eq!(proven(None, Some("gate-7")), None);
    assert_eq!(http(None, None, None, false), None);
    for wrong in ["Bearer x", "Basic", "Basic !", "basic  "] {
        assert_eq!(http(None, None, Some(wrong.as_bytes()), false), None, "{wrong}");
    }
    let lower = format!("basic {}", STANDARD.encode("gate-7@plant:pw:with:colons"));
    let found = http(None, None, Some(lower.as_bytes()), false).unwrap();
    assert_eq!(shown(&found).unwrap().3, "pw:with:colons");
    assert!(!format!("{found:?}").contains("pw"));
}
