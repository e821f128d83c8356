//! The REST API's shapes: failures, entities, calls.

use moorline_core::CallState;
use moorline_dialects::thingsboard::{
    json::Json,
    query::{QUERY_BYTES_MAX, Query, WrongParameter},
    rest::{
        calls::{
            Kept, Outcome, Request, Route, Version, respond, route, state_by_name, state_name,
        },
        entities::{Device, EntityId, EntityType, PAGE_SIZE_MAX, Page, PageQuery},
        errors::ErrorCode,
    },
};
use serde_json::json;
use uuid::Uuid;

use super::support::NOW_MS;

const ID: &str = "784f394c-42b6-11ee-983c-b7beff2784f9";

fn id() -> Uuid {
    ID.parse().unwrap()
}

#[test]
fn failures_have_status_code_and_message() {
    #[rustfmt::skip]
    let table = [
        (ErrorCode::General,               2, 500), (ErrorCode::Authentication,    10, 401),
        (ErrorCode::TokenExpired,         11, 401), (ErrorCode::CredentialsExpired, 15, 401),
        (ErrorCode::PermissionDenied,     20, 403), (ErrorCode::InvalidArguments,  30, 400),
        (ErrorCode::BadRequestParams,     31, 400), (ErrorCode::ItemNotFound,      32, 404),
        (ErrorCode::TooManyRequests,      33, 429), (ErrorCode::TooManyUpdates,    34, 429),
        (ErrorCode::VersionConflict,      35, 409), (ErrorCode::SubscriptionViolation, 40, 403),
        (ErrorCode::EntitiesLimit,        41, 403), (ErrorCode::PasswordViolation, 45, 401),
        (ErrorCode::Database,             46, 500),
    ];
    for (code, number, status) in table {
        let expected = json!({ "status": status, "message": code.message(), "errorCode": number, "timestamp": NOW_MS });
        assert_eq!(code.body(code.message(), NOW_MS), expected);
        assert!(!code.message().is_empty());
    }
}

#[test]
fn queries_are_read() {
    let query = Query::of("a=1&b=x%20y&c=&d&a=2&e=a+b&f=true&=x").unwrap();
    assert_eq!(
        (query.get("a"), query.get("b"), query.get("e")),
        (Some("1"), Some("x y"), Some("a b"))
    );
    assert_eq!((query.get("c"), query.get("d"), query.get("x")), (None, None, None));
    assert_eq!(
        (query.count("a"), query.time("a"), query.count("x")),
        (Ok(Some(1)), Ok(Some(1)), Ok(None))
    );
    assert_eq!((query.flag("f"), query.flag("x")), (Ok(true), Ok(false)));
    assert_eq!(query.flag("e"), Err(WrongParameter::Value("e")));
    assert_eq!((query.list("a").as_deref(), query.list("c")), (Some("1,2"), None));
    for (said, meant) in
        [("True", true), ("1", true), ("yes", true), ("FALSE", false), ("off", false)]
    {
        let query = format!("f={said}");
        assert_eq!(Query::of(&query).unwrap().flag("f"), Ok(meant), "{said}");
    }
    assert_eq!(query.count("b"), Err(WrongParameter::Value("b")));
    assert_eq!(Query::of(&"a".repeat(QUERY_BYTES_MAX + 1)), Err(WrongParameter::TooLong));
}

#[test]
fn a_page_knows_its_place() {
    let read = |query: &str| PageQuery::read(&Query::of(query).unwrap());
    let query = read("pageSize=10&page=2&textSearch=a&sortProperty=name&sortOrder=DESC").unwrap();
    assert_eq!((query.size, query.page, query.offset(), query.descending), (10, 2, 20, true));
    assert_eq!(
        (query.text_search.as_deref(), query.sort_property.as_deref()),
        (Some("a"), Some("name"))
    );
    #[rustfmt::skip]
    let table = [
        (25, 3, false), (30, 3, false), (31, 4, true), (0, 0, false),
    ];
    for (total, pages, more) in table {
        let page = Page::of(vec![1], total, &query);
        let expected =
            json!({ "data": [1], "totalPages": pages, "totalElements": total, "hasNext": more });
        assert_eq!(json!(page), expected);
    }
    let too_large = format!("pageSize={}&page=0", PAGE_SIZE_MAX + 1);
    for wrong in [
        "",
        "pageSize=1",
        "page=0",
        "pageSize=0&page=0",
        "pageSize=1&page=a",
        "pageSize=1&page=0&sortOrder=x",
        &too_large,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn devices_keep_what_nobody_knows() {
    let written = json!({
        "id": { "entityType": "DEVICE", "id": ID },
        "createdTime": 1, "tenantId": { "entityType": "TENANT", "id": ID }, "customerId": null,
        "name": "Dev A", "type": "default", "label": null,
        "deviceProfileId": { "entityType": "DEVICE_PROFILE", "id": ID }, "firmwareId": null, "softwareId": null,
        "additionalInfo": { "gateway": true, "overwriteActivityTime": false },
        "version": 3, "deviceData": { "configuration": { "type": "DEFAULT" } },
    });
    let device: Device = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(json!(device), written);
    assert!(device.is_gateway() && !device.overwrites_activity_time() && device.has_name());
    let device: Device = serde_json::from_value(json!({ "name": " " })).unwrap();
    assert!(!device.is_gateway() && !device.has_name() && device.id.is_none());
    for wrong in [
        json!({}),
        json!({ "name": "a", "id": { "entityType": "X", "id": ID } }),
        json!({ "name": "a", "id": ID }),
    ] {
        assert!(serde_json::from_value::<Device>(wrong.clone()).is_err(), "{wrong}");
    }
    let entity = EntityId { entity_type: EntityType::OtaPackage, id: id() };
    assert_eq!(json!(entity), json!({ "entityType": "OTA_PACKAGE", "id": ID }));
}

#[test]
fn paths_of_calls_have_two_versions() {
    let call = |version, one_way| Some(Route::Call { version, one_way, device: id() });
    #[rustfmt::skip]
    let table = [
        ("POST",   format!("/api/rpc/oneway/{ID}"),            call(Version::V2, true)),
        ("POST",   format!("/api/rpc/twoway/{ID}"),            call(Version::V2, false)),
        ("POST",   format!("/api/plugins/rpc/oneway/{ID}"),    call(Version::V1, true)),
        ("POST",   format!("/api/plugins/rpc/twoway/{ID}"),    call(Version::V1, false)),
        ("GET",    format!("/api/rpc/persistent/{ID}"),        Some(Route::Get(id()))),
        ("GET",    format!("/api/rpc/persistent/device/{ID}"), Some(Route::List(id()))),
        ("DELETE", format!("/api/rpc/persistent/{ID}"),        Some(Route::Delete(id()))),
        ("GET",    format!("/api/rpc/oneway/{ID}"),            None),
        ("POST",   format!("/api/rpc/threeway/{ID}"),          None),
        ("POST",   format!("/api/rpc/oneway/{ID}/x"),          None),
        ("GET",    format!("/api/plugins/rpc/persistent/{ID}"), None),
        ("POST",   "/api/rpc".to_owned(),                      None),
    ];
    for (method, path, expected) in table {
        assert_eq!(route(method, &path), Ok(expected), "{method} {path}");
    }
    let no_id = Err(WrongParameter::Value("the id"));
    for path in ["/api/rpc/oneway/1", "/api/plugins/rpc/twoway/x"] {
        assert_eq!(route("POST", path), no_id, "{path}");
    }
    assert_eq!(route("GET", "/api/rpc/persistent/x"), no_id);
}

#[test]
fn a_calls_body_has_defaults_and_bounds() {
    let request = |expires_ms| Request {
        method: "m".to_owned(),
        params: Json::Null,
        expires_ms,
        persistent: false,
        retries: 5,
        additional_info: Json::Null,
    };
    let full = Request {
        params: Json::read(br#"{"pin":7.0}"#).unwrap(),
        persistent: true,
        retries: 2,
        additional_info: Json::read(br#"{"a":1}"#).unwrap(),
        ..request(5)
    };
    #[rustfmt::skip]
    let table = [
        (r#"{"method":"m"}"#,                                 request(NOW_MS + 10_000)),
        (r#"{"method":"m","timeout":20000}"#,                 request(NOW_MS + 20_000)),
        (r#"{"method":"m","timeout":1}"#,                     request(NOW_MS + 5_000)),
        (r#"{"method":"m","timeout":1,"expirationTime":7}"#,  request(7)),
        (r#"{"method":"m","retries":-1}"#,                    Request { retries: 0, ..request(NOW_MS + 10_000) }),
        (r#"{"method":"m","retries":999999}"#,                Request { retries: 100, ..request(NOW_MS + 10_000) }),
        (r#"{"method":"m","params":"on","persistent":null}"#, Request { params: Json::from("on"), ..request(NOW_MS + 10_000) }),
        (r#"{"method":"m","params":{"pin":7.0},"expirationTime":5,"persistent":true,"retries":2,"additionalInfo":{"a":1}}"#, full),
    ];
    for (body, expected) in table {
        assert_eq!(Request::read(body.as_bytes(), NOW_MS), Ok(expected), "{body}");
    }
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"method":1}"#,
        r#"{"method":""}"#,
        r#"{"method":"m","timeout":"1"}"#,
    ] {
        assert!(Request::read(body.as_bytes(), NOW_MS).is_err(), "{body}");
    }
}

#[test]
fn outcomes_of_calls_have_their_status() {
    let answered = |text: &str| Outcome::Answered(text.to_owned());
    let kept = format!("{{\"rpcId\":\"{ID}\"}}");
    #[rustfmt::skip]
    let table = [
        (Outcome::Sent,             200, 200, ""),
        (answered(r#"{"ok":1.0}"#), 200, 200, r#"{"ok":1.0}"#),
        (answered("3"),             200, 200, "3"),
        (answered(""),              200, 200, ""),
        (answered("not JSON"),      406, 406, ""),
        (Outcome::Kept(id()),       200, 200, &kept),
        (Outcome::TimedOut,         408, 504, ""),
        (Outcome::NoConnection,     409, 504, ""),
    ];
    for (outcome, v1, v2, body) in table {
        assert_eq!(respond(Version::V1, &outcome), (v1, body.to_owned()), "{outcome:?}");
        assert_eq!(respond(Version::V2, &outcome), (v2, body.to_owned()), "{outcome:?}");
    }
}

#[test]
fn states_of_a_kept_call_have_their_names() {
    let names = "QUEUED SENT DELIVERED SUCCESSFUL TIMEOUT EXPIRED FAILED DELETED";
    assert_eq!(CallState::ALL.map(state_name), *names.split(' ').collect::<Vec<_>>());
    for state in CallState::ALL {
        assert_eq!(state_by_name(state_name(state)), Some(state));
    }
    assert_eq!(state_by_name("sent"), None);
}

#[test]
fn a_kept_call_is_shown() {
    let kept = Kept {
        id: id(),
        created_ms: 1,
        tenant: id(),
        device: id(),
        expires_ms: 2,
        request: json!({ "method": "m" }),
        response: None,
        state: CallState::Sent,
        additional_info: json!({}),
    };
    let entity = |kind: &str| json!({ "entityType": kind, "id": ID });
    let expected = json!({
        "id": entity("RPC"), "createdTime": 1, "tenantId": entity("TENANT"), "deviceId": entity("DEVICE"),
        "expirationTime": 2, "request": { "method": "m" }, "response": null, "status": "SENT", "additionalInfo": {},
    });
    assert_eq!(kept.to_json(), expected);
}
