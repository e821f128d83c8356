//! Every path, query and body of the REST API, and what is refused.

use moorline_core::Text;
use moorline_dialects::losant::{
    access::Access,
    connect::KEY_BYTES_MAX,
    rest::{
        Asked, Error, Kind, Method, Resource, ToPublish,
        auth::{
            DeviceLogin, EMAIL_BYTES_MAX, PASSWORD_BYTES_MAX, SECRET_BYTES_MAX, UserLogin, allows,
            bearer,
        },
        pass::{Kept, Said},
        query::Query,
        route,
        route::{LABELS, PassKind, claims},
        sse,
    },
};
use serde_json::json;

use super::{DEVICE, NOW, OTHER, id};

#[test]
fn paths_and_methods_ask_for_something_or_are_not_found() {
    use Method::{Delete, Get, Patch, Post};
    let of = |resource| Some(Asked::Of(id(OTHER), resource));
    let dev = || id(DEVICE);
    let d = format!("devices/{DEVICE}");
    #[rustfmt::skip]
    let table = [
        (String::new(),              of(Resource::Application),               &[Get][..]),
        ("devices".into(),           of(Resource::Devices),                   &[Get, Post]),
        ("devices/command".into(),   of(Resource::CommandToMany),             &[Post]),
        (d.clone(),                  of(Resource::Device(dev())),             &[Get, Patch, Delete]),
        (format!("{d}/state"),       of(Resource::State(dev())),              &[Get, Post]),
        (format!("{d}/command"),     of(Resource::Command(dev())),            &[Get, Post]),
        (format!("{d}/compositeState"), of(Resource::CompositeState(dev())),  &[Get]),
        (format!("{d}/logs"),        of(Resource::Logs(dev())),               &[Get]),
        (format!("{d}/stateStream"), of(Resource::StateStream(dev())),        &[Get]),
        (format!("{d}/commandStream"), of(Resource::CommandStream(dev())),    &[Get]),
        (format!("{d}/setConnectionStatus"), of(Resource::ConnectionStatus(dev())), &[Post]),
        ("mqttPublishMessage".into(), of(Resource::Publish),                  &[Post]),
        ("keys".into(),              of(Resource::Passes(PassKind::Key)),     &[Get, Post]),
        (format!("keys/{DEVICE}"),   of(Resource::Pass(PassKind::Key, dev())), &[Get, Patch, Delete]),
        ("certificates".into(),      of(Resource::Passes(PassKind::Certificate)), &[Get, Post]),
        (format!("certificates/{DEVICE}"), of(Resource::Pass(PassKind::Certificate, dev())), &[Get, Patch, Delete]),
        (format!("{d}/x"),           None, &[]),
        (format!("{d}/state/x"),     None, &[]),
        ("devices/x".into(),         None, &[]),
        ("keys/x".into(),            None, &[]),
        ("webhooks".into(),          None, &[]),
        ("data/time-series-query".into(), of(Resource::TimeSeries),           &[Post]),
        ("data/last-value-query".into(), of(Resource::LastValues),            &[Post]),
        ("certificate-authorities".into(), of(Resource::Passes(PassKind::Authority)), &[Get, Post]),
        (format!("certificate-authorities/{DEVICE}"), of(Resource::Pass(PassKind::Authority, dev())), &[Get, Patch, Delete]),
        ("data/query".into(),        None, &[]),
    ];
    for (rest, expected, methods) in table {
        let path = format!("/applications/{OTHER}/{rest}");
        for (name, method) in [("GET", Get), ("POST", Post), ("PATCH", Patch), ("DELETE", Delete)] {
            let found = route(name, &path).ok();
            let expected = expected.clone().filter(|_| methods.contains(&method));
            assert_eq!(found, expected.map(|asked| (method, asked)), "{name} {path}");
        }
        assert!(route("PUT", &path).is_err());
        if let Some(Asked::Of(_, resource)) = &expected {
            assert!(LABELS.contains(&resource.label()));
            let names = resource.device().or(match resource {
                Resource::Pass(_, id) => Some(id),
                _ => None,
            });
            assert_eq!(names.is_some(), path.contains(DEVICE), "{path}");
        }
    }
    for (path, asked) in [("/auth/device", Asked::AuthDevice), ("/auth/user", Asked::AuthUser)] {
        assert_eq!(route("POST", path), Ok((Post, asked)));
        assert!(route("GET", path).is_err() && claims(path));
    }
    for (path, ours) in [("/applications/x", true), ("/applications", false), ("/api/v1/x", false)]
    {
        assert_eq!((claims(path), route("GET", path).is_ok()), (ours, false), "{path}");
    }
}

#[test]
fn tokens_are_for_what_they_asked_for() {
    let scopes = |all: &[&str]| all.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>();
    let (send, get) = (("device.sendState", true), ("device.getState", true));
    let (patch, publish) = (("device.patch", false), ("application.mqttPublishMessage", true));
    #[rustfmt::skip]
    let table = [
        (&["all.Device"][..],        [true,  true,  false, true]),
        (&["all.Device.read"],       [false, true,  false, false]),
        (&["device.*"],              [true,  true,  false, false]),
        (&["device.sendState"],      [true,  false, false, false]),
        (&["device.getState", "application.mqttPublishMessage"], [false, true, false, true]),
        (&["device.patch"],          [false, false, false, false]),
        (&["devices.*"],             [false, false, false, false]),
        (&[],                        [false, false, false, false]),
    ];
    for (said, expected) in table {
        let all = scopes(said);
        let may = [
            allows(&all, send, false),
            allows(&all, get, true),
            allows(&all, patch, false),
            allows(&all, publish, false),
        ];
        assert_eq!(may, expected, "{said:?}");
    }
}

#[test]
fn devices_have_their_actions_and_integrators_the_others() {
    use Method::{Delete, Get, Patch, Post};
    #[rustfmt::skip]
    let table = [
        (Resource::Application,              Get,    false), (Resource::Publish,              Post,  false),
        (Resource::Devices,                  Get,    true),  (Resource::Devices,              Post,  false),
        (Resource::CommandToMany,            Post,   true),  (Resource::Device(id(DEVICE)),   Get,   true),
        (Resource::Device(id(DEVICE)),       Patch,  false), (Resource::Device(id(DEVICE)),   Delete, false),
        (Resource::State(id(DEVICE)),        Post,   true),  (Resource::Command(id(DEVICE)),  Post,  true),
        (Resource::Logs(id(DEVICE)),         Get,    true),  (Resource::ConnectionStatus(id(DEVICE)), Post, true),
        (Resource::TimeSeries,               Post,   true),  (Resource::LastValues,           Post,  true),
        (Resource::Passes(PassKind::Key),    Get,    false), (Resource::Pass(PassKind::Key, id(DEVICE)), Get, false),
    ];
    let all = ["all.Device".to_owned()];
    for (resource, method, expected) in table {
        let reads = resource.reads(method);
        assert_eq!(allows(&all, resource.action(method), reads), expected, "{resource:?}");
    }
    let reads = ["all.Device.read".to_owned(), "data.*".to_owned()];
    for scope in reads {
        let of = Resource::TimeSeries;
        assert!(allows(&[scope], of.action(Post), of.reads(Post)));
    }
}

#[test]
fn a_topic_of_a_request_is_no_longer_than_one_of_a_connection() {
    let table = [
        ("a/b", true),
        ("a/b/c", false),
        ("/b", true),
        ("//", false),
        ("abcd", true),
        ("abcde", false),
    ];
    for (topic, fits) in table {
        let said = ToPublish { topic: topic.to_owned(), message: String::new() };
        assert_eq!(said.fits(4, 2), fits, "{topic}");
    }
}

#[test]
fn logins_are_read_and_never_printed() {
    let said = json!({ "deviceId": DEVICE, "key": "k", "secret": "s3cr3t" });
    let login = DeviceLogin::read(said.to_string().as_bytes()).unwrap();
    assert_eq!((login.token_s, login.scopes.clone()), (86_400, vec!["all.Device".to_owned()]));
    assert!(!format!("{login:?}").contains("s3cr3t"));
    let mut said = said;
    said["tokenTTL"] = json!(10);
    said["requestedScopes"] = json!(["device.sendState", "device.*"]);
    assert_eq!(DeviceLogin::read(said.to_string().as_bytes()).unwrap().token_s, 10);
    for (key, value) in [
        ("deviceId", json!("x")),
        ("key", json!(null)),
        ("secret", json!(7)),
        ("tokenTTL", json!(-1)),
        ("requestedScopes", json!(["all.Application"])),
        ("requestedScopes", json!(vec!["device.get"; 65])),
    ] {
        let mut wrong = said.clone();
        wrong[key] = value;
        assert!(DeviceLogin::read(wrong.to_string().as_bytes()).is_err(), "{wrong:.200}");
    }
    for (field, most) in [("key", KEY_BYTES_MAX), ("secret", SECRET_BYTES_MAX)] {
        for (bytes, is_read) in [(most, true), (most + 1, false)] {
            let mut long = said.clone();
            long[field] = json!("x".repeat(bytes));
            let read = DeviceLogin::read(long.to_string().as_bytes()).is_ok();
            assert_eq!(read, is_read, "{field}: {bytes}");
        }
    }
    for (field, most) in [("email", EMAIL_BYTES_MAX), ("password", PASSWORD_BYTES_MAX)] {
        for (bytes, is_read) in [(most, true), (most + 1, false)] {
            let mut long = json!({ "email": "a@example.com", "password": "mlt_1_a_b" });
            long[field] = json!("x".repeat(bytes));
            let read = UserLogin::read(long.to_string().as_bytes()).is_ok();
            assert_eq!(read, is_read, "{field}: {bytes}");
        }
    }
    let user =
        UserLogin::read(br#"{"email":"a@example.com","password":"mlt_1_a_b","twoFactorCode":1}"#);
    assert!(!format!("{:?}", user.unwrap()).contains("mlt_"));
    assert!(UserLogin::read(b"{}").is_err());
    for (header, expected) in
        [("Bearer abc", Some("abc")), ("bearer  abc ", Some("abc")), ("Basic x", None), ("", None)]
    {
        assert_eq!(bearer(header), expected, "{header}");
    }
}

#[test]
fn keys_and_certificates_are_said_kept_and_shown() {
    use PassKind::{Authority, Certificate, Key};
    let read =
        |kind, said: serde_json::Value, new| Said::read(kind, said.to_string().as_bytes(), new);
    let said = read(Key, json!({ "description": "d", "deviceIds": [DEVICE] }), true).unwrap();
    let access = said.access(&Access::default()).unwrap();
    let kept = Kept {
        key: Some("k".into()),
        description: "d".into(),
        access: access.clone(),
        created_ms: NOW,
        updated_ms: NOW,
        ..Kept::default()
    };
    assert_eq!(Kept::read(&kept.written()), Some(kept.clone()));
    let shown = kept.shown(&id(OTHER), &Text::from("app"), None);
    assert_eq!((&shown["key"], &shown["deviceIds"]), (&json!("k"), &json!([DEVICE])));
    assert!(shown.get("secret").is_none());
    assert_eq!(kept.shown(&id(OTHER), &Text::from("app"), Some("s"))["secret"], "s");
    let changed = read(Key, json!({ "status": "inactive" }), false).unwrap();
    let changed = changed.access(&access).unwrap();
    assert_eq!(changed.device_ids, access.device_ids, "what is not said stays");
    let certificate = Kept { key: None, fingerprint: Some("ab".into()), ..kept };
    let shown = certificate.shown(&id(OTHER), &Text::from("app"), None);
    assert_eq!(shown["certificateInfo"]["fingerprint"], "ab");
    authorities_say_whom_they_let_in();
    #[rustfmt::skip]
    let table = [
        (Key,         json!({}),                                    true,  true),
        (Key,         json!({ "key": "my-key", "secret": "s" }),    true,  true),
        (Key,         json!({ "key": "my-key" }),                   true,  false),
        (Key,         json!({ "secret": "s" }),                     true,  false),
        (Key,         json!({ "key": "a b c", "secret": "s" }),     true,  false),
        (Key,         json!({ "key": "abc", "secret": "s" }),       true,  false),
        (Key,         json!({ "key": "my-key", "secret": "s" }),    false, false),
        (Key,         json!({ "certificate": "PEM" }),              true,  false),
        (Key,         json!({ "key": 7 }),                          true,  false),
        (Key,         json!({ "description": "d".repeat(1_025) }),  true,  false),
        (Key,         json!([]),                                    true,  false),
        (Certificate, json!({ "certificate": "PEM" }),              true,  true),
        (Certificate, json!({}),                                    true,  false),
        (Certificate, json!({}),                                    false, true),
        (Certificate, json!({ "certificate": "PEM", "key": "my-key" }), true, false),
        (Certificate, json!({ "certificate": "PEM", "name": "n" }), true,  false),
        (Authority,   json!({ "name": "n", "caBundle": "PEM" }),    true,  true),
        (Authority,   json!({ "name": "n" }),                       true,  false),
        (Authority,   json!({ "caBundle": "PEM" }),                 true,  false),
        (Authority,   json!({ "name": "", "caBundle": "PEM" }),     true,  false),
        (Authority,   json!({ "name": "n", "caBundle": "P".repeat(32_768) }), true, false),
        (Authority,   json!({ "name": "n", "caBundle": "PEM", "certificate": "PEM" }), true, false),
        (Authority,   json!({ "caBundle": "PEM" }),                 false, true),
        (Authority,   json!({ "status": "inactive" }),              false, true),
    ];
    for (kind, said, new, expected) in table {
        assert_eq!(read(kind, said.clone(), new).is_ok(), expected, "{kind:?} {said:.80}");
    }
    let unknown = read(Key, json!({ "colour": "red" }), true).unwrap();
    assert!(unknown.access(&Access::default()).is_err());
    let secret = read(Key, json!({ "key": "my-key", "secret": "s3cr3t" }), true).unwrap();
    assert!(!format!("{secret:?}").contains("s3cr3t"));
}

fn authorities_say_whom_they_let_in() {
    let read = |said: serde_json::Value| {
        Said::read(PassKind::Authority, said.to_string().as_bytes(), true).unwrap()
    };
    let vouches = read(json!({ "name": "n", "caBundle": "PEM", "status": "active" }));
    let lets_in = read(json!({ "name": "n", "caBundle": "PEM", "deviceIds": [DEVICE] }));
    assert_eq!((vouches.restricts(), lets_in.restricts()), (false, true));
    let mut kept = Kept {
        name: "n".into(),
        ca_bundle: Some("PEM".into()),
        access: lets_in.access(&Access::default()).unwrap(),
        ..Kept::default()
    };
    assert_eq!(kept.kind(), PassKind::Authority);
    let shown = |kept: &Kept| kept.shown(&id(OTHER), &Text::from("app"), None);
    assert!(shown(&kept).get("deviceIds").is_none());
    assert_eq!(shown(&kept)["caBundle"], "PEM");
    kept.lets_in = true;
    assert_eq!(shown(&kept)["deviceIds"], json!([DEVICE]));
}

#[test]
fn queries_say_how_much_and_since_when() {
    let read = |text: &str| Query::read(text, NOW).unwrap();
    let sdk = read("_actions=false&_links=true&_embedded=true");
    assert_eq!((sdk.limit, sdk.since_ms, sdk.page, sdk.per_page), (None, None, 0, 100));
    #[rustfmt::skip]
    let table = [
        ("since=1767323045678",              Some(NOW)),
        ("since=-1000",                      Some(NOW - 1_000)),
        ("since=2026-01-02T03%3A04%3A05.678Z", Some(NOW)),
        ("since=soon",                       None),
    ];
    for (text, expected) in table {
        assert_eq!(read(text).since_ms, expected, "{text}");
    }
    let list = read("page=2&perPage=5000&filterField=name&filter=pump&deviceClass=gateway&limit=7");
    assert_eq!((list.page, list.per_page, list.limit), (2, 1_000, Some(7)));
    assert_eq!((list.filter.as_deref(), list.class.as_deref()), (Some("pump"), Some("gateway")));
    let tags =
        read("tagFilter[0][key]=site&tagFilter%5B0%5D%5Bvalue%5D=north&tagFilter[1][key]=x").tags;
    assert_eq!(json!(tags), json!([{ "key": "site", "value": "north" }, { "key": "x" }]));
    assert!(read("query=%7B%22name%22%3A%22a%22%7D").meant.is_some());
    for wrong in
        ["query=x", "query={}x", "query={\"colour\":1}", "tagFilter=x", "tagFilter[a][key]=x"]
    {
        assert!(Query::read(wrong, NOW).is_err(), "{wrong}");
    }
    assert_eq!((read("keepAliveInterval=900").keep_alive_s, sdk.keep_alive_s), (60, 2));
    assert_eq!(read("attributes=a,%20b").attributes, ["a", "b"]);
}

#[test]
fn refusals_have_a_type_and_a_message() {
    #[rustfmt::skip]
    let table = [
        (Kind::Validation, 400, "Validation"), (Kind::Unauthorized, 401, "Unauthorized"),
        (Kind::Forbidden, 403, "Forbidden"), (Kind::NotFound, 404, "NotFound"),
        (Kind::Conflict, 409, "Conflict"), (Kind::TooLarge, 413, "PayloadTooLarge"),
        (Kind::TooManyRequests, 429, "TooManyRequests"), (Kind::Unavailable, 503, "Unavailable"),
    ];
    for (kind, status, name) in table {
        let error = Error::from(kind);
        let body: serde_json::Value = serde_json::from_str(&error.body()).unwrap();
        assert_eq!((error.status(), body["type"].as_str()), (status, Some(name)));
        assert!(body["message"].is_string());
    }
}

#[test]
fn messages_go_to_custom_topics_and_events_have_their_names() {
    let read = |topic: &str| {
        ToPublish::read(json!({ "topic": topic, "message": "m" }).to_string().as_bytes()).is_ok()
    };
    assert!(read("plant/1"));
    for wrong in ["", "plant/#", "losant/x", "$SYS/x", &format!("losant/{DEVICE}/state")] {
        assert!(!read(wrong), "{wrong}");
    }
    assert!(ToPublish::read(b"{\"topic\":\"a\"}").is_err());
    let large = json!({ "topic": "a", "message": "m".repeat(262_145) }).to_string();
    assert!(ToPublish::read(large.as_bytes()).is_err());
    let event = sse::event(sse::Stream::States, &json!({ "a": "x\ny" }));
    assert_eq!(event, "event: deviceState\ndata: {\"a\":\"x\\ny\"}\n\n");
    assert!(sse::event(sse::Stream::Commands, &json!(1)).starts_with("event: deviceCommand\n"));
}
