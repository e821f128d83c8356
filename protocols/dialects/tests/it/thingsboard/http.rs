//! HTTP's device API: every route, what is refused, and the response of every outcome.

use bytes::Bytes;
use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Wanted},
    calls::{DeviceCall, ServerCall},
    claim::Claim,
    http::{
        BODY_BYTES_MAX, CALL_BYTES_MAX, Response, Route, encoding, limited, respond, route,
        too_large,
    },
    json::Json,
    ota::{ChunkError, PackageKind},
    payloads::{Encoding, Payloads, ProvisionEncoding},
    provision,
    requests::{Answer, Failure, PackageRequest, Request},
    values::{Sample, Value},
};
use proptest::prelude::*;

use super::{
    payloads::schemas,
    support::{NOW_MS, RULES, entries, json, token},
};

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

/// The path behind the token, with its query.
fn routed(method: &str, rest: &str) -> Result<Route, u16> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let routed = route(method, &format!("/api/v1/T0KEN/{path}"), query);
    let routed = routed.map_err(|response| response.status)?;
    assert_eq!(routed.token.as_deref(), Some("T0KEN"));
    let calls = path.starts_with("rpc");
    assert_eq!(routed.body_bytes_max, if calls { CALL_BYTES_MAX } else { BODY_BYTES_MAX });
    Ok(routed.route)
}

fn named(client: &[&str], shared: &[&str]) -> Wanted {
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    Wanted::Named { client: owned(client), shared: owned(shared) }
}

fn package(title: Option<&str>, version: Option<&str>, size: u64, chunk: u64) -> PackageRequest {
    let (title, version) = (title.map(str::to_owned), version.map(str::to_owned));
    PackageRequest { kind: PackageKind::Firmware, title, version, size, chunk }
}

#[test]
fn every_route_is_read() {
    let poll_attributes = |timeout_ms| Ok(Route::PollAttributes { timeout_ms });
    let poll_call = |timeout_ms| Ok(Route::PollCall { timeout_ms });
    let attributes = |wanted| Ok(Route::ReadAttributes(wanted));
    let firmware = |request| Ok(Route::Package(request));
    let software = PackageRequest { kind: PackageKind::Software, ..package(None, None, 0, 0) };
    #[rustfmt::skip]
    let table = [
        ("POST", "telemetry",                                    Ok(Route::Telemetry)),
        ("POST", "telemetry?x=1",                                Ok(Route::Telemetry)),
        ("POST", "attributes",                                   Ok(Route::Attributes)),
        ("GET",  "attributes?clientKeys=a,b&sharedKeys=c",       attributes(named(&["a", "b"], &["c"]))),
        ("GET",  "attributes?sharedKeys=a&sharedKeys=&sharedKeys=b,c", attributes(named(&[], &["a", "b", "c"]))),
        ("GET",  "attributes?clientKeys=a%2Cb+c%20d",            attributes(named(&["a", "b c d"], &[]))),
        ("GET",  "attributes?clientKeys=%C3%A9%zz%",             attributes(named(&["é%zz%"], &[]))),
        ("GET",  "attributes",                                   attributes(Wanted::All)),
        ("GET",  "attributes?clientKeys=&sharedKeys",            attributes(Wanted::All)),
        ("GET",  "attributes?client_keys=a&shared_keys=c",       attributes(Wanted::All)),
        ("GET",  "attributes/updates?timeout=20000",             poll_attributes(20_000)),
        ("GET",  "attributes/updates",                           poll_attributes(60_000)),
        ("GET",  "attributes/updates?timeout=999999",            poll_attributes(300_000)),
        ("POST", "claim",                                        Ok(Route::Claim)),
        ("GET",  "rpc?timeout=20000",                            poll_call(20_000)),
        ("GET",  "rpc?timeout=0&x=y",                            poll_call(60_000)),
        ("POST", "rpc/12",                                       Ok(Route::CallReply(12))),
        ("POST", "rpc",                                          Ok(Route::Call)),
        ("GET",  "firmware?title=a%20b&version=1&size=512&chunk=3", firmware(package(Some("a b"), Some("1"), 512, 3))),
        ("GET",  "firmware",                                     firmware(package(None, None, 0, 0))),
        ("GET",  "software?size=&chunk=",                        firmware(software)),
    ];
    for (method, rest, expected) in table {
        assert_eq!(routed(method, rest), expected, "{method} {rest}");
    }
    let provision = route("POST", "/api/v1/provision", "").unwrap();
    assert_eq!((provision.route, provision.token), (Route::Provision, None));
    let escaped = route("POST", "/api/v1/a%2Fb/telemetry", "").unwrap();
    assert_eq!(escaped.token.as_deref(), Some("a/b"));
}

#[test]
fn a_body_is_protobuf_if_it_says_so_and_the_profile_has_schemas() {
    let schemas = schemas(false, false);
    #[rustfmt::skip]
    let table = [
        ("application/x-protobuf",           true),
        ("Application/Protobuf; charset=x",  true),
        ("application/vnd.google.protobuf",  true),
        ("application/json",                 false),
        ("application/octet-stream",         false),
        ("",                                 false),
    ];
    for (content_type, is_protobuf) in table {
        let by_schema = matches!(encoding(&schemas, content_type), Encoding::Protobuf(_));
        assert_eq!(by_schema, is_protobuf, "{content_type}");
        assert_eq!(encoding(&Payloads::Json, content_type), Encoding::Json, "{content_type}");
    }
}

#[test]
fn a_limit_says_which_it_is() {
    let response = limited("DEVICE rate limit reached: 1:1 messages");
    assert_eq!(
        (response.status, text(&response)),
        (500, "DEVICE rate limit reached: 1:1 messages")
    );
}

#[test]
fn other_routes_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("GET",    "telemetry",               405), ("PUT",  "attributes",        405),
        ("POST",   "attributes/updates",      405), ("GET",  "claim",             405),
        ("GET",    "rpc/1",                   405), ("POST", "firmware",          405),
        ("DELETE", "rpc",                     405), ("HEAD", "software",          405),
        ("POST",   "",                        404), ("POST", "x",                 404),
        ("POST",   "telemetry/",              404), ("POST", "telemetry/1",       404),
        ("GET",    "attributes/x",            404), ("GET",  "attributes/updates/x", 404),
        ("POST",   "rpc/1/2",                 404), ("POST", "Telemetry",         404),
        ("POST",   "rpc/a",                   400), ("POST", "rpc/2147483648",    400),
        ("GET",    "rpc?timeout=a",           400), ("GET",  "attributes/updates?timeout=-1", 400),
        ("GET",    "firmware?size=a",         400), ("GET",  "firmware?chunk=-1", 400),
    ];
    for (method, rest, status) in table {
        assert_eq!(routed(method, rest), Err(status), "{method} {rest}");
    }
    #[rustfmt::skip]
    let table = [
        ("POST", "/api/v1/",          404), ("POST", "/api/v1",           404), ("POST", "/api/v1//telemetry", 404),
        ("POST", "/api/v2/T/telemetry", 404), ("POST", "/",               404), ("POST", "",                   404),
        ("GET",  "/api/v1/provision", 405), ("POST", "/api/v1/T",         404),
    ];
    for (method, path, status) in table {
        assert_eq!(route(method, path, "").unwrap_err().status, status, "{method} {path}");
    }
}

fn ask(method: &str, path: &str, body: &str) -> Result<Request, (u16, String)> {
    let routed = route(method, path, "").unwrap();
    let ask = routed.request(Encoding::Json, body.as_bytes(), NOW_MS, &RULES);
    ask.map_err(|response| (response.status, text(&response).to_owned()))
}

#[test]
fn bodies_become_requests() {
    let sample = Sample { ts_ms: NOW_MS, values: entries(&[("t", Value::Long(1))]) };
    let claim = Claim { secret_key: "s".to_owned(), duration_ms: None };
    let call = DeviceCall { method: "m".to_owned(), params: Json::Null };
    let reply = |data: &str| Request::CallReply { id: 1, data: data.to_owned() };
    let provision = r#"{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let request = provision::Request::read(&json(provision)).unwrap();
    #[rustfmt::skip]
    let table = [
        ("POST", "/api/v1/T/telemetry",  r#"{"t":1}"#,          Request::Telemetry(vec![sample])),
        ("POST", "/api/v1/T/telemetry",  "{}",                  Request::Telemetry(vec![])),
        ("POST", "/api/v1/T/attributes", r#"{"t":1}"#,          Request::Attributes(entries(&[("t", Value::Long(1))]))),
        ("GET",  "/api/v1/T/attributes", "",                    Request::ReadAttributes(Wanted::All)),
        ("GET",  "/api/v1/T/attributes/updates", "",            Request::PollAttributes { timeout_ms: 60_000 }),
        ("GET",  "/api/v1/T/rpc",        "",                    Request::PollCall { timeout_ms: 60_000 }),
        ("POST", "/api/v1/T/claim",      r#"{"secretKey":"s"}"#, Request::Claim(claim)),
        ("POST", "/api/v1/T/claim",      "",                    Request::Claim(Claim::default())),
        ("POST", "/api/v1/T/rpc",        r#"{"method":"m"}"#,   Request::Call(call)),
        ("POST", "/api/v1/T/rpc/1",      r#"{"ok":true}"#,      reply(r#"{"ok":true}"#)),
        ("POST", "/api/v1/T/rpc/1",      "",                    reply("")),
        ("GET",  "/api/v1/T/firmware",   "",                    Request::Package(package(None, None, 0, 0))),
        ("POST", "/api/v1/provision",    provision,             Request::Provision { request: Box::new(request), encoding: ProvisionEncoding::Json }),
    ];
    for (method, path, body, expected) in table {
        assert_eq!(ask(method, path, body), Ok(expected), "{path} {body}");
    }
}

#[test]
fn bodies_that_can_not_be_read_are_answered_with_why() {
    #[rustfmt::skip]
    let table = [
        ("/api/v1/T/telemetry",  "{",    "the payload is not JSON at byte 1"),
        ("/api/v1/T/telemetry",  "",     "the payload is empty"),
        ("/api/v1/T/telemetry",  "[1]",  "telemetry is an object or an array of them"),
        ("/api/v1/T/attributes", "[]",   "attributes are an object"),
        ("/api/v1/T/rpc",        "{}",   "a call has a method, which is a text"),
        ("/api/v1/T/claim",      "[]",   "a claim is an object"),
        ("/api/v1/provision",    "[]",   "a provision request is an object"),
    ];
    for (path, body, why) in table {
        assert_eq!(ask("POST", path, body), Err((400, why.to_owned())), "{path} {body}");
    }
    let large = " ".repeat(CALL_BYTES_MAX + 1);
    for path in ["/api/v1/T/rpc", "/api/v1/T/rpc/1"] {
        assert_eq!(ask("POST", path, &large).unwrap_err().0, 413);
    }
    assert_eq!(ask("POST", "/api/v1/T/telemetry", &large).unwrap_err().0, 400);
    let body = r#"{"status":413,"message":"Payload size exceeds the limit"}"#;
    assert_eq!((too_large().status, text(&too_large())), (413, body));
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
}

#[test]
fn every_outcome_has_its_response() {
    let found = Found { client: entries(&[("a", Value::Long(1))]), shared: vec![] };
    let updated = entries(&[("k", Value::Double(2.0))]);
    let deleted = Changed { updated: vec![], deleted: vec!["k".to_owned()] };
    let call = ServerCall { id: 1, method: "m".to_owned(), params: json("{}") };
    let provisioned = provision::Answer::Success(token("t"));
    let answered = |text: &str| Ok(Answer::CallAnswered(text.to_owned()));
    #[rustfmt::skip]
    let table = [
        (Ok(Answer::Done),                                            200, ""),
        (Ok(Answer::Attributes(found)),                               200, r#"{"client":{"a":1}}"#),
        (Ok(Answer::Attributes(Found::default())),                    200, "{}"),
        (Ok(Answer::Changed(Changed { updated, deleted: vec![] })),   200, r#"{"k":2.0}"#),
        (Ok(Answer::Changed(deleted)),                                200, r#"{"deleted":["k"]}"#),
        (Ok(Answer::Call(call)),                                      200, r#"{"id":1,"method":"m","params":{}}"#),
        (answered(r#"{"t":1}"#),                                      200, r#"{"t":1}"#),
        (answered(r#"{"error":"timeout"}"#),                          200, r#"{"error":"timeout"}"#),
        (Ok(Answer::Provisioned(provisioned)),                        200, r#"{"credentialsType":"ACCESS_TOKEN","credentialsValue":"t","status":"SUCCESS"}"#),
        (Ok(Answer::Provisioned(provision::Answer::NotFound)),        200, r#"{"errorMsg":"Provision data was not found!","status":"NOT_FOUND"}"#),
        (Err(Failure::Unauthorised),                                  401, ""),
        (Err(Failure::Gone),                                          403, ""),
        (Err(Failure::NoPackage),                                     404, ""),
        (Err(Failure::TimedOut),                                      408, ""),
        (Err(Failure::OtherPackage),                                  400, "another package is assigned"),
        (Err(Failure::ChunkTooLarge),                                 413, r#"{"status":413,"message":"Payload size exceeds the limit"}"#),
        (Err(Failure::RateLimited),                                   500, ""),
        (Err(Failure::Failed),                                        500, ""),
    ];
    for (outcome, status, body) in table {
        let response = respond(outcome.clone());
        assert_eq!((response.status, text(&response)), (status, body), "{outcome:?}");
        let json = body.starts_with('{').then_some("application/json");
        assert_eq!(
            header(&response, "content-type").filter(|kind| !kind.starts_with("text")),
            json
        );
    }
    assert_eq!(Failure::from(ChunkError::NotFound), Failure::NoPackage);
}

#[test]
fn a_package_is_a_file() {
    let chunk = |file_name: &str, bytes: &'static [u8]| {
        let (file_name, bytes) = (file_name.to_owned(), Bytes::from_static(bytes));
        respond(Ok(Answer::Chunk { file_name, bytes }))
    };
    let response = chunk("app-1.2.bin", b"abc");
    assert_eq!((response.status, &response.body[..]), (200, &b"abc"[..]));
    assert_eq!(header(&response, "content-type"), Some("application/octet-stream"));
    assert_eq!(header(&response, "x-filename"), Some("app-1.2.bin"));
    let disposition = Some("attachment;filename=app-1.2.bin");
    assert_eq!(header(&response, "content-disposition"), disposition);
    let beyond = chunk("a\r\nx: y\"é", b"");
    assert_eq!((beyond.status, beyond.body.len()), (200, 0));
    assert_eq!(header(&beyond, "x-filename"), Some("a__x:_y__"));
}

proptest! {
    #[test]
    fn no_head_makes_it_panic(path in "/api/v1/[a-z0-9/%]{0,40}", query in "[a-zA-Z=&%+0-9]{0,40}") {
        for method in ["GET", "POST"] {
            drop(route(method, &path, &query));
        }
    }
}
