//! CONNECT: what is tried in which order, what is accepted, and the codes of refusals.

use moorline_dialects::thingsboard::{
    claim::Claim,
    coap,
    connect::{Attempt, Connack, Hello, Refused, attempts, session_present},
    credentials::{Credentials, basic_id, certificate_id_of_der, hash},
    http,
    profile::Profile,
    provision,
};
use serde_json::json;

use super::support::{self, basic, token};

const OWN: &[u8] = &[1, 2, 3];
const AUTHORITY: &[u8] = &[4, 5, 6];

fn hello<'a>(
    client_id: &'a str,
    user_name: Option<&'a str>,
    password: Option<&'a str>,
) -> Hello<'a> {
    Hello { client_id, user_name, password: password.map(str::as_bytes), chain: &[] }
}

#[test]
fn attempts_are_made_in_order() {
    let by_client = |id: &str, shown| Attempt::Basic { id: id.to_owned(), shown };
    let by_name = |id: &str, shown| Attempt::UserName { id: id.to_owned(), shown };
    let token_only = basic(None, Some("T"), None);
    let both = basic(Some("c"), Some("u"), Some("p"));
    let named = basic(None, Some("u"), Some("p"));
    #[rustfmt::skip]
    let table = [
        (hello("", None, None),                     vec![]),
        (hello("", Some(""), Some("p")),            vec![]),
        (hello("provision", None, None),            vec![Attempt::Provision]),
        (hello("provision", Some("T"), Some("p")),  vec![Attempt::Provision]),
        (hello("c", Some("provision"), None),       vec![Attempt::Provision]),
        (hello("c", None, None),                    vec![by_client(&hash("c"), basic(Some("c"), None, None))]),
        (hello("c", Some(""), Some("")),            vec![by_client(&hash("c"), basic(Some("c"), None, None))]),
        (hello("", Some("T"), None),                vec![by_name("T", token_only)]),
        (hello("", Some("u"), Some("p")),           vec![by_name("u", named)]),
        (hello("c", Some("u"), Some("p")),          vec![by_client(&basic_id("c", "u"), both.clone()), by_name("u", both)]),
        (hello("Provision", None, None),            vec![by_client(&hash("Provision"), basic(Some("Provision"), None, None))]),
    ];
    for (hello, expected) in table {
        assert_eq!(attempts(&hello), expected, "{hello:?}");
    }
}

#[test]
fn a_certificate_comes_before_all_but_provisioning() {
    let own = Attempt::Certificate { id: certificate_id_of_der(OWN) };
    let authority = Attempt::Authority { ids: vec![certificate_id_of_der(AUTHORITY)] };
    let with = |chain| Hello { chain, ..hello("c", Some("T"), Some("p")) };
    assert_eq!(attempts(&with(&[OWN])), std::slice::from_ref(&own));
    assert_eq!(attempts(&with(&[OWN, AUTHORITY])), [own, authority]);
    let provision = Hello { chain: &[OWN], ..hello("", Some("provision"), None) };
    assert_eq!(attempts(&provision), [Attempt::Provision]);
}

#[test]
fn what_is_stored_has_to_be_shown() {
    let mqtt = |client_id, user_name, password| {
        Credentials::MqttBasic(basic(client_id, user_name, password))
    };
    let (c, u, p) = (Some("c"), Some("u"), Some("p"));
    #[rustfmt::skip]
    let table = [
        // A token needs nothing else, whatever else is shown.
        (hello("", Some("T"), None),       token("T"),             true),
        (hello("x", Some("T"), Some("x")), token("T"),             true),
        (hello("c", None, None),           mqtt(c, None, None),    true),
        (hello("c", None, Some("p")),      mqtt(c, None, None),    true),
        (hello("d", None, None),           mqtt(c, None, None),    false),
        (hello("c", u, p),                 mqtt(c, u, p),          true),
        (hello("c", u, None),              mqtt(c, u, None),       true),
        (hello("c", u, Some("x")),         mqtt(c, u, None),       true),
        (hello("c", u, Some("x")),         mqtt(c, u, p),          false),
        (hello("c", u, None),              mqtt(c, u, p),          false),
        (hello("x", u, p),                 mqtt(c, u, p),          false),
        (hello("", u, p),                  mqtt(None, u, p),       true),
        (hello("any", u, p),               mqtt(None, u, p),       true),
        (hello("any", u, None),            mqtt(None, u, p),       false),
        (hello("any", u, None),            mqtt(None, u, None),    true),
        (hello("c", None, None),           token(&hash("c")),      false),
        (hello("c", None, None),           Credentials::X509Certificate("AQID".to_owned()), false),
        (Hello { chain: &[OWN], ..hello("", None, None) }, Credentials::X509Certificate("AQID".to_owned()), true),
        (hello("provision", None, None),   token("provision"),     false),
    ];
    for (hello, stored, expected) in table {
        // As the registry does: the first attempt whose id finds these credentials.
        let found = attempts(&hello).into_iter().find(|attempt| match attempt {
            Attempt::Basic { id, .. }
            | Attempt::UserName { id, .. }
            | Attempt::Certificate { id } => *id == stored.id(),
            Attempt::Provision | Attempt::Authority { .. } => true,
        });
        let accepted = found.is_some_and(|attempt| attempt.accepts(&stored));
        assert_eq!(accepted, expected, "{hello:?} {stored:?}");
    }
}

#[test]
fn refusals_have_their_codes() {
    #[rustfmt::skip]
    let table = [
        (Refused::BadCredentials,     5, 0x86),
        (Refused::UnknownClientId,    2, 0x85),
        (Refused::UnknownCertificate, 5, 0x87),
        (Refused::RateLimited,        3, 0x9f),
        (Refused::Unavailable,        3, 0x88),
    ];
    for (refused, v3, v5) in table {
        assert_eq!(refused.connack(), Connack { v3, v5 }, "{refused:?}");
    }
    #[rustfmt::skip]
    let table = [
        (hello("c", Some("u"), Some("p")), Refused::BadCredentials),
        (hello("c", Some("T"), None),      Refused::BadCredentials),
        (hello("", Some("T"), None),       Refused::BadCredentials),
        (hello("c", None, Some("p")),      Refused::BadCredentials),
        (hello("c", None, None),           Refused::UnknownClientId),
        (hello("", None, None),            Refused::UnknownClientId),
        (hello("c", Some(""), Some("")),   Refused::UnknownClientId),
        (Hello { chain: &[OWN], ..hello("c", Some("T"), None) }, Refused::UnknownCertificate),
    ];
    for (hello, expected) in table {
        assert_eq!(Refused::by(&hello), expected, "{hello:?}");
    }
    assert_eq!((session_present(true), session_present(false)), (false, true));
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let hello = hello("c", Some("T0KEN"), Some("T0KEN"));
    let stored =
        [token("T0KEN"), Credentials::MqttBasic(basic(Some("c"), Some("T0KEN"), Some("T0KEN")))];
    let provision = r#"{"provisionDeviceKey":"T0KEN","provisionDeviceSecret":"T0KEN","credentialsType":"ACCESS_TOKEN","token":"T0KEN"}"#;
    let provision = provision::Request::read(&support::json(provision));
    let claim = Claim::read(&support::json(r#"{"secretKey":"T0KEN"}"#));
    let routed = http::route("POST", "/api/v1/T0KEN/telemetry", "");
    let path = ["api", "v1", "T0KEN", "telemetry"];
    let head = coap::Head {
        method: Some(coap::Method::Post),
        path: &path,
        query: &[],
        observe: None,
        certified: false,
    };
    let profile = json!({ "profileData": { "provisionConfiguration": { "provisionDeviceSecret": "T0KEN" } } });
    let profile: Profile = serde_json::from_value(profile).unwrap();
    let all = (
        hello,
        attempts(&hello),
        stored,
        provision,
        claim,
        routed,
        coap::route(&head),
        head,
        profile,
    );
    let printed = format!("{all:?}");
    assert!(!printed.contains("T0KEN"), "{printed}");
}
