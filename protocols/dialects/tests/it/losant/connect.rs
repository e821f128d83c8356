//! What a CONNECT shows, and what it is answered.

use moorline_core::Text;
use moorline_dialects::losant::connect::{Refused, Shows, is_likely_key, shows};

use super::DEVICE;

#[test]
fn a_client_shows_a_key_or_a_certificate() {
    let secret = &b"s"[..];
    let key = Some(Shows::Key("k", secret));
    #[rustfmt::skip]
    let table = [
        (DEVICE, Some("k"), Some(secret), false, key),
        ("x",    Some("k"), Some(secret), true,  key),
        (DEVICE, Some("k"), None,         true,  None),
        (DEVICE, None,      None,         true,  Some(Shows::Certificate)),
        (DEVICE, Some(""),  Some(secret), true,  Some(Shows::Certificate)),
        (DEVICE, None,      None,         false, None),
        ("x",    None,      None,         true,  None),
    ];
    for (client, user, password, certificate, expected) in table {
        let user = user.map(Text::from);
        let shown = shows(&Text::from(client), user.as_ref(), password, certificate);
        assert_eq!(shown, expected, "{client} {user:?}");
    }
    let long = Text::from("k".repeat(129));
    assert_eq!(shows(&Text::from(DEVICE), Some(&long), Some(secret), false), None);
    assert!(!format!("{key:?}").contains("115"), "no secret is printed");
}

#[test]
fn keys_are_uuids() {
    assert!(is_likely_key("1f0ac3d4-0b1c-4d2e-9f3a-5b6c7d8e9f00"));
    for other in ["", "my-key", "1f0ac3d40b1c4d2e9f3a5b6c7d8e9f001234", "use-token-auth"] {
        assert!(!is_likely_key(other), "{other}");
    }
}

#[test]
fn refusals_have_codes_that_sdks_know() {
    #[rustfmt::skip]
    let table = [
        (Refused::Version, 1), (Refused::Session, 2), (Refused::Device, 2), (Refused::Credentials, 4), (Refused::Forbidden, 5),
        (Refused::Plaintext, 5), (Refused::Banned, 3), (Refused::Unavailable, 3),
    ];
    assert_eq!(table.len(), Refused::ALL.len());
    for (refused, code) in table {
        assert_eq!(refused.connack(), code, "{refused}");
    }
}
