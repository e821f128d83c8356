//! The REST API's paths: every row, and what is refused.

use moorline_dialects::thingsboard::{
    query::WrongParameter,
    rest::{
        auth, calls,
        devices::{self, IDS_MAX},
        entities::PageQuery,
        routes::{Route, route},
    },
};
use serde_json::json;
use uuid::Uuid;

const ID: &str = "784f394c-42b6-11ee-983c-b7beff2784f9";

fn id() -> Uuid {
    ID.parse().unwrap()
}

fn page() -> PageQuery {
    PageQuery { size: 10, page: 0, text_search: None, sort_property: None, descending: false }
}

#[test]
fn each_path_asks_for_something() {
    use devices::Route as D;
    let devices = |route| Some(Route::Devices(route));
    let list = |kind: Option<&str>, infos| {
        devices(D::List { page: page(), kind: kind.map(str::to_owned), infos })
    };
    let pages = "pageSize=10&page=0";
    let of = |rest: &str| format!("/api/device{rest}");
    #[rustfmt::skip]
    let table = [
        ("POST",   "/api/auth/login".to_owned(),           "",                     Some(Route::Auth(auth::Route::Login))),
        ("POST",   "/api/auth/token".to_owned(),           "",                     Some(Route::Auth(auth::Route::Refresh))),
        ("POST",   "/api/auth/login/public".to_owned(),    "",                     Some(Route::Auth(auth::Route::PublicLogin))),
        ("POST",   "/api/auth/logout".to_owned(),          "",                     Some(Route::Auth(auth::Route::Logout))),
        ("GET",    "/api/auth/user".to_owned(),            "",                     Some(Route::Auth(auth::Route::User))),
        ("POST",   of(""),                                 "",                     devices(D::Save { access_token: None })),
        ("POST",   of(""),                                 "accessToken=T",        devices(D::Save { access_token: Some("T".into()) })),
        ("POST",   of("-with-credentials"),                "",                     devices(D::SaveWithCredentials)),
        ("GET",    of(&format!("/{ID}")),                  "",                     devices(D::Get(id()))),
        ("DELETE", of(&format!("/{ID}")),                  "",                     devices(D::Delete(id()))),
        ("GET",    of(&format!("/info/{ID}")),             "",                     devices(D::Info(id()))),
        ("GET",    of(&format!("/{ID}/credentials")),      "",                     devices(D::Credentials(id()))),
        ("POST",   of("/credentials"),                     "",                     devices(D::SaveCredentials)),
        ("GET",    of("/types"),                           "",                     devices(D::Types)),
        ("GET",    "/api/tenant/devices".to_owned(),       pages,                  list(None, false)),
        ("GET",    "/api/user/devices".to_owned(),         pages,                  list(None, false)),
        ("GET",    "/api/tenant/devices".to_owned(),       "pageSize=10&page=0&type=p", list(Some("p"), false)),
        ("GET",    "/api/tenant/deviceInfos".to_owned(),   pages,                  list(None, true)),
        ("GET",    "/api/deviceInfos/all".to_owned(),      pages,                  list(None, true)),
        ("GET",    "/api/tenant/device".to_owned(),        "deviceName=Dev%20A",   devices(D::ByName("Dev A".into()))),
        ("GET",    "/api/rpc/persistent/".to_owned() + ID, "",                     Some(Route::Calls(calls::Route::Get(id())))),
        ("PUT",    of(""),                                 "",                     None),
        ("GET",    "/api/alarms".to_owned(),               "",                     None),
        ("GET",    "/api".to_owned(),                      "",                     None),
        ("GET",    of("/a/b/c"),                           "",                     None),
        ("GET",    "/api/plugins/telemetry/ASSET/x/keys/timeseries".to_owned(), "", None),
    ];
    for (method, path, query, expected) in table {
        assert_eq!(route(method, &path, query), Ok(expected), "{method} {path}?{query}");
    }
    let ids = route("GET", "/api/devices", &format!("deviceIds={ID},{ID}"));
    assert_eq!(ids, Ok(devices(D::ByIds(vec![id(), id()]))));
}

#[test]
fn wrong_parameters_are_said() {
    let many = format!("deviceIds={}", format!("{ID},").repeat(IDS_MAX + 1));
    #[rustfmt::skip]
    let table = [
        ("/api/device/7",          "",                     WrongParameter::Value("the id")),
        ("/api/tenant/devices",    "page=0",               WrongParameter::Missing("pageSize")),
        ("/api/tenant/devices",    "pageSize=10",          WrongParameter::Missing("page")),
        ("/api/tenant/devices",    "pageSize=1001&page=0", WrongParameter::Value("pageSize")),
        ("/api/tenant/device",     "",                     WrongParameter::Missing("deviceName")),
        ("/api/devices",           "",                     WrongParameter::Missing("deviceIds")),
        ("/api/devices",           "deviceIds=x",          WrongParameter::Value("the id")),
        ("/api/devices",           &many,                  WrongParameter::Value("deviceIds")),
    ];
    for (path, query, wrong) in table {
        assert_eq!(route("GET", path, query), Err(wrong), "{path}");
    }
}

#[test]
fn what_only_looks_is_known() {
    let looks =
        |method, path: &str, query| route(method, path, query).unwrap().unwrap().only_looks();
    let telemetry = format!("/api/plugins/telemetry/DEVICE/{ID}/values/timeseries");
    assert!(looks("GET", &telemetry, "keys=t"));
    assert!(looks("GET", &format!("/api/device/{ID}"), ""));
    assert!(!looks("GET", &format!("/api/device/{ID}/credentials"), ""), "they let devices in");
    assert!(!looks("POST", "/api/device", ""));
    assert!(!looks("POST", &format!("/api/rpc/oneway/{ID}"), ""));
    assert!(!looks("POST", &format!("/api/plugins/telemetry/{ID}/SHARED_SCOPE"), ""));
}

#[test]
fn a_device_is_shown_with_more() {
    let device = serde_json::from_value(json!({ "name": "d", "type": "pump" })).unwrap();
    let shown = devices::info(&device, true);
    assert_eq!((&shown["name"], &shown["deviceProfileName"]), (&json!("d"), &json!("pump")));
    assert_eq!((&shown["active"], &shown["customerIsPublic"]), (&json!(true), &json!(false)));
    let body = json!({ "device": { "name": "d" }, "credentials": {} });
    assert!(devices::with_credentials(&body).is_some());
    assert!(devices::with_credentials(&json!({ "device": {} })).is_none());
}
