//! CoAP's device API: every path, what is refused, and the code of every outcome.

use bytes::Bytes;
use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Wanted},
    calls::ServerCall,
    coap::{Code, Head, Method, Observe, Route, Routed, observed, respond, route},
    ota::PackageKind,
    payloads::{Encoding, ProvisionEncoding},
    provision,
    requests::{Answer, Failure, PackageRequest, Request},
    values::Value,
};

use super::support::{NOW_MS, RULES, entries, json, token};

fn head<'a>(method: Method, path: &'a [&'a str], query: &'a [&'a str]) -> Head<'a> {
    Head { method: Some(method), path, query, observe: None, certified: false }
}

/// A path with `/`, and a query with `&`.
fn read(
    method: Method,
    url: &str,
    observe: Option<Observe>,
    certified: bool,
) -> Result<Routed, Code> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let (path, query): (Vec<&str>, Vec<&str>) =
        (path.split('/').collect(), query.split('&').collect());
    route(&Head { observe, certified, ..head(method, &path, &query) })
}

const NONE: Option<Observe> = None;
const ON: Option<Observe> = Some(Observe::Register);
const OFF: Option<Observe> = Some(Observe::Deregister);

#[test]
fn every_path_is_read() {
    use Method::{Get, Post};
    let named = Wanted::Named { client: vec!["a".to_owned(), "b".to_owned()], shared: vec![] };
    let package = |kind, title: Option<&str>, size, chunk| {
        Route::Package(PackageRequest {
            kind,
            title: title.map(str::to_owned),
            version: None,
            size,
            chunk,
        })
    };
    #[rustfmt::skip]
    let table = [
        (Post, "api/v1/T/telemetry",                              NONE, Route::Telemetry),
        (Post, "api/v1/T/attributes",                             NONE, Route::Attributes),
        (Post, "api/v1/T/claim",                                  NONE, Route::Claim),
        (Get,  "api/v1/T/attributes",                             NONE, Route::ReadAttributes(Wanted::All)),
        (Get,  "api/v1/T/attributes?clientKeys=a,b&sharedKeys=&x", NONE, Route::ReadAttributes(named)),
        (Get,  "api/v1/T/attributes",                             ON,   Route::ObserveAttributes(Observe::Register)),
        (Get,  "api/v1/T/attributes",                             OFF,  Route::ObserveAttributes(Observe::Deregister)),
        (Get,  "api/v1/T/rpc",                                    ON,   Route::ObserveCalls(Observe::Register)),
        (Get,  "api/v1/T/rpc",                                    OFF,  Route::ObserveCalls(Observe::Deregister)),
        (Post, "api/v1/T/rpc/7",                                  NONE, Route::CallReply(7)),
        (Post, "api/v1/T/rpc",                                    NONE, Route::Call),
        (Get,  "fw/T",                                            NONE, package(PackageKind::Firmware, None, 0, 0)),
        (Get,  "sw/T?title=a&size=512&chunk=2",                   NONE, package(PackageKind::Software, Some("a"), 512, 2)),
    ];
    for (method, url, observe, route) in table {
        let expected = Routed { route: route.clone(), token: Some("T".to_owned()) };
        assert_eq!(read(method, url, observe, false), Ok(expected), "{url}");
        // With a certificate the token is left out.
        let Some(rest) = url.strip_prefix("api/v1/T/") else { continue };
        let expected = Routed { route, token: None };
        assert_eq!(read(method, &format!("api/v1/{rest}"), observe, true), Ok(expected), "{url}");
    }
    let expected = Routed { route: Route::Provision, token: None };
    assert_eq!(read(Post, "api/v1/provision", NONE, false), Ok(expected));
}

#[test]
fn other_paths_are_refused() {
    use Method::{Get, Post};
    #[rustfmt::skip]
    let table = [
        (Get,  "api/v1/T/telemetry",   NONE, Code::MethodNotAllowed), (Get,  "api/v1/T/claim",      NONE, Code::MethodNotAllowed),
        (Get,  "api/v1/T/rpc/1",       NONE, Code::MethodNotAllowed), (Get,  "api/v1/provision",    NONE, Code::MethodNotAllowed),
        (Post, "fw/T",                 NONE, Code::MethodNotAllowed), (Get,  "api/v1/T/rpc",        NONE, Code::BadRequest),
        (Post, "api/v1/T/rpc/a",       NONE, Code::BadRequest),       (Get,  "fw/T?size=a",         NONE, Code::BadRequest),
        (Post, "api/v1/T",             NONE, Code::NotFound),         (Post, "api/v1",              NONE, Code::NotFound),
        (Post, "api/v1/T/x",           NONE, Code::NotFound),         (Post, "api/v1//telemetry",   NONE, Code::NotFound),
        (Post, "api/v1/T/telemetry/x", NONE, Code::NotFound),         (Get,  "fw",                  NONE, Code::NotFound),
        (Get,  "fw/T/x",               NONE, Code::NotFound),         (Get,  "",                    NONE, Code::NotFound),
        (Post, "api/v1/telemetry",     NONE, Code::NotFound),
    ];
    for (method, url, observe, code) in table {
        assert_eq!(read(method, url, observe, false), Err(code), "{url}");
    }
    let other = Head { method: None, ..head(Get, &["api", "v1", "T", "attributes"], &[]) };
    assert_eq!(route(&other), Err(Code::MethodNotAllowed));
    assert_eq!(read(Post, "api/v1/T/telemetry", NONE, true), Err(Code::NotFound));
}

#[test]
fn payloads_become_requests() {
    let request = |url: &str, payload: &[u8]| {
        let routed = read(Method::Post, url, NONE, false).unwrap();
        routed.request(Encoding::Json, payload, NOW_MS, &RULES)
    };
    let attributes = Request::Attributes(entries(&[("a", Value::Long(1))]));
    assert_eq!(request("api/v1/T/attributes", br#"{"a":1}"#), Ok(Some(attributes)));
    let provision = br#"{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let asked = request("api/v1/provision", provision).unwrap();
    assert!(matches!(asked, Some(Request::Provision { encoding: ProvisionEncoding::Json, .. })));
    for (url, payload) in [("telemetry", "["), ("attributes", "[]"), ("rpc", "{}"), ("claim", "1")]
    {
        assert!(request(&format!("api/v1/T/{url}"), payload.as_bytes()).is_err(), "{url}");
    }
    let observe = read(Method::Get, "api/v1/T/rpc", ON, false).unwrap();
    assert_eq!(observe.request(Encoding::Json, b"", NOW_MS, &RULES), Ok(None));
}

#[test]
fn who_observes_is_told_at_once() {
    let shared = Changed { updated: entries(&[("k", Value::Long(1))]), deleted: vec![] };
    #[rustfmt::skip]
    let table = [
        (Route::ObserveAttributes(Observe::Register),   Code::Content, r#"{"k":1}"#),
        (Route::ObserveCalls(Observe::Register),        Code::Valid,   ""),
        (Route::ObserveAttributes(Observe::Deregister), Code::Deleted, ""),
        (Route::ObserveCalls(Observe::Deregister),      Code::Deleted, ""),
    ];
    for (route, code, body) in table {
        let expected = (code, Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(observed(&route, Encoding::Json, &shared), expected, "{route:?}");
    }
}

#[test]
fn every_outcome_has_its_code() {
    let found = Found { client: entries(&[("a", Value::Long(1))]), shared: vec![] };
    let deleted = Changed { updated: vec![], deleted: vec!["k".to_owned()] };
    let call = ServerCall { id: 1, method: "m".to_owned(), params: json("{}") };
    let chunk = Answer::Chunk { file_name: "a".to_owned(), bytes: Bytes::from_static(b"abc") };
    let provisioned = Answer::Provisioned(provision::Answer::Success(token("t")));
    #[rustfmt::skip]
    let table = [
        (Ok(Answer::Done),                            0x41, ""),
        (Ok(Answer::Attributes(found)),               0x45, r#"{"client":{"a":1}}"#),
        (Ok(Answer::Attributes(Found::default())),    0x84, ""),
        (Ok(Answer::Changed(deleted)),                0x45, r#"{"deleted":["k"]}"#),
        (Ok(Answer::Call(call)),                      0x45, r#"{"id":1,"method":"m","params":{}}"#),
        (Ok(Answer::CallAnswered("1".to_owned())),    0x45, "1"),
        (Ok(chunk),                                   0x45, "abc"),
        (Ok(provisioned), 0x41, r#"{"credentialsType":"ACCESS_TOKEN","credentialsValue":"t","status":"SUCCESS"}"#),
        (Err(Failure::Unauthorised),                  0x81, ""),
        (Err(Failure::Gone),                          0x81, ""),
        (Err(Failure::NoPackage),                     0x84, ""),
        (Err(Failure::OtherPackage),                  0x80, ""),
        (Err(Failure::ChunkTooLarge),                 0x8d, ""),
        (Err(Failure::TimedOut),                      0xa4, ""),
        (Err(Failure::RateLimited),                   0xa0, ""),
        (Err(Failure::Failed),                        0xa0, ""),
    ];
    for (outcome, code, body) in table {
        let (said, payload) = respond(&outcome, Encoding::Json, ProvisionEncoding::Json);
        assert_eq!((said as u8, &payload[..]), (code, body.as_bytes()), "{outcome:?}");
    }
}
