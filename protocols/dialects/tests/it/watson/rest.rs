//! The management API: every URL with its methods and statuses, queries, bodies both ways, and refusals.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::{Text, UnixMillis};
use moorline_dialects::watson::{
    about::{About, GROUPS_MAX},
    close::Close,
    identity::Policy,
    management::{attributes::DeviceInfo, kept},
    rest::{
        BODY_BYTES_MAX, Head, Method, Resource,
        error::Error,
        is_meant,
        kept::{FAILURES_MAX, KeptApp, KeptEvent, KeptFailure, KeptFailures, KeptType},
        query::{ConnectionFilter, Query, Sort},
        request::{
            self, Alert, CacheSettings, ClassId, DeviceChange, DeviceUid, NewDevice, NewRequest,
            NewType, Status, TypeChange,
        },
        response::{
            Added, Authorization, ConnectionLogEntry, ConnectionState, Device, DeviceId,
            DeviceType, Initiated, Known, LastEvent, Meta, Page, Registrar, Registration,
            ResourceGroup, Roles, bulk_status, managed,
        },
        route,
        security::{self, ConnectionSecurity},
    },
    topics::{Group, Role},
};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::{client, device, machine::Bench};

const NOW: UnixMillis = UnixMillis(1_767_323_045_678);
const GROUP: &str = "gw_def_res_grp:abc123:gw:g1";
const ID: &str = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa000";

#[test]
fn urls_have_their_methods_and_statuses() {
    let d = "device/types/t1/devices/d1";
    #[rustfmt::skip]
    let table: Vec<(String, [Option<u16>; 4])> = vec![
        // GET, POST, PUT, DELETE
        ("bulk/devices".into(),                 [Some(200), None,      None,      None]),
        ("bulk/devices/add".into(),             [None,      Some(201), None,      None]),
        ("bulk/devices/remove".into(),          [None,      Some(200), None,      None]),
        ("device/types".into(),                 [Some(200), Some(201), None,      None]),
        ("device/types/".into(),                [Some(200), Some(201), None,      None]),
        ("device/types/t1".into(),              [Some(200), None,      Some(200), Some(204)]),
        ("device/types/t1/devices".into(),      [Some(200), Some(201), None,      None]),
        ("device/types/t1/devices/".into(),     [Some(200), Some(201), None,      None]),
        (d.into(),                              [Some(200), None,      Some(200), Some(204)]),
        (format!("{d}/location"),               [Some(200), None,      Some(200), None]),
        (format!("{d}/mgmt"),                   [Some(200), None,      None,      None]),
        (format!("{d}/diag/logs"),              [Some(200), Some(201), None,      Some(204)]),
        (format!("{d}/diag/logs/7"),            [Some(200), None,      None,      Some(204)]),
        (format!("{d}/diag/errorCodes"),        [Some(200), Some(201), None,      Some(204)]),
        (format!("{d}/events"),                 [Some(200), None,      None,      None]),
        (format!("{d}/events/e"),               [Some(200), None,      None,      None]),
        ("config/lec".into(),                   [Some(200), None,      Some(200), None]),
        ("config/connection-security".into(),   [Some(200), None,      Some(200), None]),
        ("clientconnectionstates".into(),       [Some(200), None,      None,      None]),
        ("clientconnectionstates/d:abc123:t1:d1".into(),   [Some(200), None, None, None]),
        ("clientconnectionstates/d%3Aabc123%3At1%3Ad1".into(), [Some(200), None, None, None]),
        ("logs/connection".into(),              [Some(200), None,      None,      None]),
        ("service-status".into(),               [Some(200), None,      None,      None]),
        ("usage/data-traffic".into(),           [Some(200), None,      None,      None]),
        ("groups".into(),                       [Some(200), None,      None,      None]),
        (format!("groups/{GROUP}"),             [Some(200), None,      None,      None]),
        (format!("bulk/devices/{GROUP}"),       [Some(200), None,      None,      None]),
        (format!("bulk/devices/{GROUP}/ids"),   [Some(200), None,      None,      None]),
        (format!("bulk/devices/{GROUP}/add"),   [None,      None,      Some(200), None]),
        (format!("bulk/devices/{GROUP}/remove"), [None,     None,      Some(200), None]),
        ("authorization/devices/g:abc123:gw:g1".into(),    [Some(200), None, None, None]),
        ("authorization/devices/g%3Aabc123%3Agw%3Ag1/roles".into(), [Some(200), None, Some(200), None]),
        ("authorization/devices/g:abc123:gw:g1/withroles".into(), [Some(200), None, Some(200), None]),
        ("mgmt/requests".into(),                [Some(200), Some(202), None,      None]),
        (format!("mgmt/requests/{ID}"),         [Some(200), None,      None,      Some(204)]),
        (format!("mgmt/requests/{ID}/cancel"),  [None,      Some(200), None,      None]),
        (format!("mgmt/requests/{ID}/deviceStatus"),       [Some(200), None, None, None]),
        (format!("mgmt/requests/{ID}/deviceStatus/t1/d1"), [Some(200), None, None, None]),
        ("mgmt/custom/bundle".into(),           [Some(200), Some(201), None,      None]),
        ("mgmt/custom/bundle/b".into(),         [Some(200), None,      Some(200), Some(204)]),
    ];
    let methods = [Method::Get, Method::Post, Method::Put, Method::Delete];
    for (path, statuses) in table {
        let resource =
            Resource::parse(&format!("/api/v0002/{path}")).unwrap_or_else(|| panic!("{path}"));
        assert_eq!(methods.map(|method| resource.success(method)), statuses, "{path}");
    }
    let last = Resource::parse(&format!("/api/v0002/{d}/events/e"));
    assert_eq!(last, Some(Resource::Event(device("t1", "d1"), Text::from("e"))));
    assert_eq!((bulk_status(201, [true, true]), bulk_status(201, [true, false])), (201, 202));
    assert_eq!((bulk_status(200, []), bulk_status(200, [false])), (200, 202));
}

#[test]
fn paths_that_are_not_in_the_table_are_not_found() {
    let long = format!("/api/v0002/device/types/{}", "x".repeat(2_000));
    let odd = format!("/api/v0002/mgmt/requests/{}", ID.replace("a000", "a001"));
    for path in [
        "",
        "/",
        "/api/v0002",
        "/api/v0002/",
        "/api/v0001/device/types",
        "/device/types",
        "/api/v0002//device/types",
        "/api/v0002/device",
        "/api/v0002/device/types/a b",
        "/api/v0002/device/types/t%2F1",
        "/api/v0002/device/types/t1/devices//",
        "/api/v0002/device/types/t1/devices/d1/x",
        "/api/v0002/device/types/t1/devices/d1/diag",
        "/api/v0002/device/types/+/devices/d1",
        "/api/v0002/clientconnectionstates/x",
        "/api/v0002/mgmt/requests/x",
        "/api/v0002/mgmt/custom",
        "/api/v0002/groups/other",
        "/api/v0002/groups/gw_def_res_grp:abc123:gw",
        "/api/v0002/bulk/devices/other",
        "/api/v0002/bulk/devices/gw_def_res_grp:abc123:gw:g1/other",
        "/api/v0002/authorization/devices",
        "/api/v0002/authorization/devices/g:abc123:gw",
        "/api/v0002/authorization/apikeys",
        "/api/v0002/draft/schemas",
        "/api/v0002/actions",
        "/api/v0002/historianconnectors",
        "/api/v0002/s2s/services",
        "/api/v0002/device/types/t1/devices/d1/state/i",
        "/api/v0002/device/types/%zz",
        &long,
        &odd,
    ] {
        assert_eq!(Resource::parse(path), None, "{path}");
    }
}

#[test]
fn keys_open_their_own_organisation() {
    let ask = |method: &str, path: &str, host: Option<&str>, user: &str| {
        let basic = format!("Basic {}", STANDARD.encode(user));
        let mut headers: Vec<(&str, &[u8])> = vec![("Authorization", basic.as_bytes())];
        headers.extend(host.map(|host| ("Host", host.as_bytes())));
        route(&Head { method, path, headers: &headers })
            .map(|asked| (asked.success, asked.key.org.to_string()))
    };
    const TYPES: &str = "/api/v0002/device/types";
    const KEY: &str = "a-abc123-0123456789:12345678";
    let mine = |status| Ok((status, "abc123".to_owned()));
    #[rustfmt::skip]
    let table = [
        ("GET",   TYPES, Some("abc123.example.com"),  KEY, mine(200)),
        ("POST",  TYPES, Some("127.0.0.1:9443"),      KEY, mine(201)),
        ("GET",   TYPES, None,                        KEY, mine(200)),
        ("GET",   TYPES, Some("zzz999.example.com"),  KEY, Err(Error::Forbidden)),
        ("GET",   TYPES, None, "use-token-auth:12345678",  Err(Error::Forbidden)),
        ("GET",   TYPES, None, "g/abc123/gw/g1:12345678",  Err(Error::Forbidden)),
        ("GET",   TYPES, None, "nobody:12345678",          Err(Error::Unauthorised)),
        ("GET",   TYPES, None, "",                         Err(Error::Unauthorised)),
        ("GET",   "/x",  None, "",                         Err(Error::Unauthorised)),
        ("GET",   "/x",  None, KEY,                        Err(Error::NotFound)),
        ("PUT",   TYPES, None, KEY,                        Err(Error::Method)),
        ("PATCH", TYPES, None, KEY,                        Err(Error::Method)),
    ];
    for (method, path, host, user, expected) in table {
        assert_eq!(ask(method, path, host, user), expected, "{method} {path} {host:?} {user}");
    }
}

#[test]
fn messaging_has_a_host_of_its_own() {
    const EVENT: &str = "/api/v0002/device/types/t1/devices/d1/events/e";
    #[rustfmt::skip]
    let table = [
        ("GET",  EVENT,               Some("abc123.example.com"),           true),
        ("POST", EVENT,               Some("abc123.example.com:443"),       true),
        ("GET",  EVENT,               Some("abc123.messaging.example.com"), false),
        ("GET",  EVENT,               Some("127.0.0.1:9443"),               true),
        ("POST", EVENT,               Some("127.0.0.1:9443"),               false),
        ("POST", EVENT,               None,                                 false),
        ("POST", "/api/v0002/device/types", Some("localhost"),              true),
        ("GET",  "/api/v0002/x",      None,                                 true),
    ];
    for (method, path, host, expected) in table {
        let headers: Vec<(&str, &[u8])> =
            host.iter().map(|host| ("host", host.as_bytes())).collect();
        let found = is_meant(&Head { method, path, headers: &headers });
        assert_eq!(found, expected, "{method} {path} {host:?}");
    }
}

#[test]
fn types_and_last_events_are_kept_as_they_were() {
    let new = NewType::read(
        br#"{"id":"t1","classId":"Gateway","deviceInfo":{"model":"x"},"metadata":{"a":1}}"#,
    );
    let mut kind = KeptType::new(new.unwrap(), NOW);
    kind.change(TypeChange { description: Some("d".into()), ..TypeChange::default() }, NOW);
    let written = r#"{"form":1,"class":"Gateway","description":"d","info":{"model":"x"},"metadata":{"a":1},"created":1767323045678,"updated":1767323045678}"#;
    assert_eq!(kept::write(&kind), written);
    assert_eq!(kept::read::<KeptType>(written.as_bytes()), Ok(kind));
    assert!(
        kept::read::<KeptType>(written.replace(":1,\"class", ":2,\"class").as_bytes()).is_err()
    );
    let event =
        KeptEvent { format: Text::from("bin"), at: NOW, payload: Bytes::from_static(b"\n\x00{") };
    let written = event.written();
    assert_eq!(written, &b"{\"form\":1,\"format\":\"bin\",\"at\":1767323045678}\n\n\x00{"[..]);
    assert_eq!(KeptEvent::read(&written), Ok(event));
    assert!(KeptEvent::read(&Bytes::from_static(b"x\n")).is_err());
}

#[test]
fn what_is_known_of_a_device_comes_back() {
    let read = |text: &str| About::read(serde_json::from_str(text).unwrap());
    // As an import writes it.
    let about = read(r#"{"deviceInfo":{"model":"x","other":1},"a":1,"status":7}"#);
    assert_eq!((about.info.model.as_deref(), &about.metadata["a"]), (Some("x"), &json!(1)));
    assert_eq!(
        (about.metadata.len(), &about.registered_by, &about.status.alert),
        (1, &None, &None)
    );
    let by = Registrar { id: "a-abc123-0123456789".into(), kind: "app".into() };
    let mut about = About { registered_by: Some(by), ..about };
    about.status.alert = Some(Alert { enabled: true, timestamp: None });
    let kept = about.written();
    let written = r#"{"a":1,"deviceInfo":{"model":"x"},"registeredBy":{"id":"a-abc123-0123456789","type":"app"},"status":{"alert":{"enabled":true}}}"#;
    assert_eq!(serde_json::to_string(&kept).unwrap(), written);
    assert_eq!(About::read(kept), about);
    let mut gateway = About { role: Role::Standard, ..About::default() };
    assert!(gateway.join(GROUP) && !gateway.join(GROUP));
    let kept = gateway.written();
    let written = r#"{"gatewayRole":"PD_STANDARD_GW_DEVICE","resourceGroups":["gw_def_res_grp:abc123:gw:g1"]}"#;
    assert_eq!(serde_json::to_string(&kept).unwrap(), written);
    assert_eq!(About::read(kept), gateway);
    // It comes anew whenever its group is another one; a privileged one does not mind.
    let first = gateway.bounds();
    gateway.change_bounds(NOW);
    let second = gateway.bounds();
    gateway.change_bounds(NOW);
    assert_eq!((first.changed, second.changed, gateway.changed), (0, NOW.0, NOW.0 + 1));
    assert_eq!(About::read(gateway.written()), gateway);
    let mighty = About { role: Role::Privileged, ..gateway.clone() };
    assert_eq!(mighty.bounds(), About::default().bounds());
    // It hears of itself, and of who is in its group.
    let (own, other, alone) = (device("gw", "g1"), device("gw", "g2"), About::default());
    let grouped = About { groups: [GROUP.to_owned()].into(), ..About::default() };
    let pump = device("pump", "p1");
    assert!(gateway.may_hear_of(&own, (&pump, &grouped)));
    assert!(gateway.may_hear_of(&own, (&own, &alone)));
    assert!(mighty.may_hear_of(&other, (&pump, &alone)));
    assert!(!gateway.may_hear_of(&own, (&pump, &alone)));
    assert!(!gateway.may_hear_of(&other, (&pump, &grouped)));
    // What can't be read makes no gateway more than it was meant to be.
    assert_eq!(read(r#"{"gatewayRole":"later"}"#).role, Role::Standard);
    let all = (0..GROUPS_MAX).filter(|number| gateway.join(&number.to_string())).count();
    assert_eq!(all, GROUPS_MAX - 1);
    about.metadata.insert("deviceInfo".into(), json!("mine"));
    assert_eq!(About::read(about.written()).info, about.info, "no name of ours");
    for (id, kind, expected) in [
        ("g:abc123:gw:g1", About::BY_GATEWAY, Some(device("gw", "g1"))),
        ("g:abc123:gw:g1", "app", None),
        ("someone", About::BY_GATEWAY, None),
    ] {
        about.registered_by = Some(Registrar { id: id.into(), kind: kind.into() });
        assert_eq!(about.gateway(), expected, "{id} {kind}");
    }
}

#[test]
fn queries_are_pages_and_filters() {
    let empty = Query::parse("").unwrap();
    assert_eq!(
        (empty.limit, &empty.bookmark, empty.sort.len(), empty.filters.len()),
        (25, &None, 0, 0)
    );
    let query = Query::parse(
        "_limit=50&_bookmark=a%2Bb&_sort=typeId,-deviceId&_other=1&deviceType=t1&deviceType=t2",
    )
    .unwrap();
    assert_eq!((query.limit, query.bookmark.as_deref()), (50, Some("a+b")));
    let sort = |field: &str, descending| Sort { field: field.to_owned(), descending };
    assert_eq!(query.sort, [sort("typeId", false), sort("deviceId", true)]);
    assert_eq!((query.filters.len(), query.filter("deviceType")), (1, Some("t1")));
    assert_eq!(Query::parse("_limit=1000").unwrap().limit, 100);
    let many: String = (0..20).map(|number| format!("f{number}=1&")).collect();
    for wrong in ["_limit=0", "_limit=-1", "_limit=x", "_limit=", &many, &"x".repeat(5_000)] {
        assert!(matches!(Query::parse(wrong), Err(Error::Malformed(_))), "{wrong}");
    }
    let filter = |text: &str| ConnectionFilter::of(&Query::parse(text).unwrap());
    let all = filter(
        "deviceType=t1&deviceId=d1&connectionStatus=connected&connectedAfter=2026-01-02T03:04:05.678Z",
    );
    let (kind, id) = (Some(Text::from("t1")), Some(Text::from("d1")));
    assert_eq!(all, Ok(ConnectionFilter { kind, id, connected: Some(true), after: Some(NOW) }));
    assert_eq!(filter("connectionStatus=disconnected&deviceType=").unwrap().connected, Some(false));
    assert_eq!(filter(""), Ok(ConnectionFilter::default()));
    for wrong in ["connectionStatus=x", "connectedAfter=x", "deviceType=a%2Fb", "deviceId=%23"] {
        assert!(matches!(filter(wrong), Err(Error::Malformed(_))), "{wrong}");
    }
}

/// What reading a body says: nothing, `malformed`, or the number of violations.
fn said<T>(read: Result<T, Error>) -> &'static str {
    match read {
        Ok(_) => "fine",
        Err(Error::Malformed(_)) => "malformed",
        Err(Error::Invalid(violations)) => ["", "1", "2", "3", "4"][violations.len()],
        Err(Error::TooLarge) => "large",
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn bodies_are_read_or_refused() {
    let new = |body: &str| said(NewDevice::read("t1", body.as_bytes(), NOW));
    let kind = |body: &str| said(NewType::read(body.as_bytes()));
    let place = |body: &str| said(request::location(body.as_bytes(), NOW));
    let entry = |body: &str| said(request::log_entry(body.as_bytes(), NOW));
    let code = |body: &str| said(request::error_code(body.as_bytes(), NOW));
    let cache = |body: &str| said(CacheSettings::read(body.as_bytes()));
    #[rustfmt::skip]
    let table = [
        (new(r#"{"deviceId":"d1"}"#), "fine"),
        (new(r#"{"typeId":"t1","deviceId":"d1","authToken":null,"deviceInfo":null,"location":null,"metadata":null}"#), "fine"),
        (new(r#"{"deviceId":"d1","authToken":"12345678","deviceInfo":{"model":"x","other":1},"location":{"latitude":1,"longitude":2},"metadata":{"a":[1]}}"#), "fine"),
        (new(r#"{"deviceId":"d1","metadata":{"status":1}}"#), "1"),
        (new(r#"{"deviceId":"a b"}"#), "1"), (new(r#"{"deviceId":""}"#), "1"),
        (new(r#"{"deviceId":"d1","typeId":"t2"}"#), "1"), (new(r#"{"deviceId":"d1","authToken":"short"}"#), "1"),
        (new(r#"{"deviceId":"a b","authToken":"short","location":{"latitude":100,"longitude":2}}"#), "3"),
        (new("{}"), "malformed"), (new("[]"), "malformed"), (new(""), "malformed"), (new(r#"{"deviceId":7}"#), "malformed"),
        (new(&" ".repeat(BODY_BYTES_MAX + 1)), "large"),
        (kind(r#"{"id":"t1"}"#), "fine"),
        (kind(r#"{"id":"t1","classId":"Gateway","description":"x","deviceInfo":{},"metadata":{}}"#), "fine"),
        (kind(r#"{"id":"t1","classId":"Other"}"#), "malformed"), (kind(r#"{"id":"#), "malformed"), (kind(r#"{"id":"a/b"}"#), "1"),
        (place(r#"{"latitude":50,"longitude":60}"#), "fine"), (place(r#"{"latitude":100,"longitude":120}"#), "1"),
        (place(r#"{"latitude":50}"#), "malformed"), (place(r#"{"latitude":1,"longitude":2,"measuredDateTime":"x"}"#), "1"),
        (entry(r#"{"message":"m","severity":1,"data":"x","timestamp":"2026-01-02T03:04:05"}"#), "fine"),
        (entry(r#"{"message":"m","severity":9}"#), "malformed"), (entry(r#"{"message":"m","severity":0,"timestamp":"x"}"#), "1"),
        (code(r#"{"errorCode":0,"timestamp":"2026-01-02T03:04:05"}"#), "fine"), (code(r#"{"errorCode":1,"timestamp":"x"}"#), "1"),
        (code(r#"{"timestamp":"2026-01-02T03:04:05"}"#), "malformed"),
        (cache(r#"{"enabled":true,"ttlDays":7}"#), "fine"), (cache(r#"{"enabled":true,"ttlDays":46}"#), "1"),
        (cache(r#"{"enabled":true,"ttlDays":0}"#), "1"), (cache(r#"{"enabled":true}"#), "malformed"),
    ];
    for (row, (found, expected)) in table.into_iter().enumerate() {
        assert_eq!(found, expected, "row {row}");
    }
    let taken =
        NewDevice::read("t1", br#"{"deviceId":"d1","location":{"latitude":1,"longitude":2}}"#, NOW)
            .unwrap();
    assert_eq!(
        (taken.name(), taken.location.and_then(|at| at.measured_date_time).as_deref()),
        (Some(device("t1", "d1")), Some("2026-01-02T03:04:05.678Z"))
    );
    let parts = NewDevice::read_all(br#"[{"typeId":"t1","deviceId":"d1"},{"deviceId":"d2"}]"#, NOW)
        .unwrap();
    assert_eq!(parts.iter().map(|(_, read)| read.is_ok()).collect::<Vec<_>>(), [true, false]);
    let removed =
        DeviceUid::read_all(br#"[{"typeId":"t1","deviceId":"d1"},{"typeId":"","deviceId":"/"}]"#)
            .unwrap();
    assert_eq!(
        removed.iter().map(DeviceUid::name).collect::<Vec<_>>(),
        [Some(device("t1", "d1")), None]
    );
    assert_eq!(removed[1].parts(), ("", "/"));
    let change: DeviceChange = request::read(
        br#"{"status":{"alert":{"enabled":true}},"deviceInfo":null,"metadata":null}"#,
    )
    .unwrap();
    assert!(change.status.unwrap().alert.unwrap().enabled && change.device_info.is_none());
    assert_eq!(request::read::<TypeChange>(b"{}").unwrap(), TypeChange::default());
}

#[test]
fn management_requests_are_read_or_refused() {
    let devices = r#""devices":[{"typeId":"t1","deviceId":"d1"}]"#;
    let read =
        |body: &str, query: &str| NewRequest::read(body.as_bytes(), &Query::parse(query).unwrap());
    let ask = |action: &str, more: &str| format!(r#"{{"action":"{action}",{devices}{more}}}"#);
    #[rustfmt::skip]
    let table = [
        (ask("device/reboot", ""),                             "",                           Ok((3_600, false))),
        (ask("device/factoryReset", r#","timeout":60"#),       "",                           Ok((60, false))),
        (ask("firmware/download", r#","parameters":null"#),    "timeout=5&override=true",    Ok((5, true))),
        (ask("firmware/update", r#","timeout":60,"override":false"#), "timeout=5&override=true", Ok((60, false))),
        (ask("bundle-1/act", r#","override":true"#),           "",                           Ok((3_600, true))),
        (ask("device/other", ""),                              "",                           Err("1")),
        (ask("device/reboot", r#","timeout":0"#),              "",                           Err("1")),
        (ask("device/reboot", ""),                             "timeout=x",                  Err("1")),
        (ask("device/reboot", r#","timeout":604801"#),         "",                           Err("1")),
        (ask("device/reboot", r#","timeout":"1""#),            "",                           Err("malformed")),
        (r#"{"action":"device/reboot","devices":[]}"#.into(),  "",                           Err("1")),
        (r#"{"action":"device/reboot"}"#.into(),               "",                           Err("malformed")),
        (r#"{"action":"x","devices":[{"typeId":"t 1","deviceId":"d1"}],"timeout":0}"#.into(), "", Err("3")),
    ];
    for (body, query, expected) in table {
        let found = read(&body, query);
        let found = match found {
            Ok(new) => {
                assert_eq!(new.devices, [device("t1", "d1")]);
                Ok((new.timeout_s, new.overrides))
            }
            Err(error) => Err(said::<()>(Err(error))),
        };
        assert_eq!(found, expected, "{body} {query}");
    }
    let many = |count: usize| {
        let one = (0..count)
            .map(|at| format!(r#"{{"typeId":"t1","deviceId":"d{at}"}}"#))
            .collect::<Vec<_>>();
        read(&format!(r#"{{"action":"device/reboot","devices":[{}]}}"#, one.join(",")), "")
    };
    assert_eq!(many(5_000).unwrap().devices.len(), 5_000);
    assert_eq!(said(many(5_001)), "1");
    let twice = r#"{"action":"device/reboot","devices":[{"typeId":"t1","deviceId":"d1"},{"typeId":"t1","deviceId":"d1"}]}"#;
    assert_eq!(read(twice, "").unwrap().devices.len(), 1);
    let bundle = br#"{"bundleId":"b","actions":{"a":{}}}"#;
    assert!(request::bundle(bundle, None).is_ok() && request::bundle(bundle, Some("b")).is_ok());
    assert_eq!(said(request::bundle(bundle, Some("c"))), "1");
    assert_eq!(said(request::bundle(br#"{"bundleId":"device","actions":{"a":{}}}"#, None)), "1");
}

#[test]
fn answers_have_their_forms() {
    let text = |value: &dyn erased::Written| value.written();
    let (org, name, gateway) = (Text::from("abc123"), device("t1", "d1"), device("gw", "g1"));
    let info = DeviceInfo { serial_number: Some("s".into()), ..DeviceInfo::default() };
    let metadata: Map<_, _> = [("a".to_owned(), json!(1))].into_iter().collect();
    let known = |gateway, token| Known {
        org: &org,
        name: &name,
        class: ClassId::Device,
        info: &info,
        metadata: &metadata,
        registration: Registration {
            auth: Registrar { id: "a-abc123-0123456789".into(), kind: "app".into() },
            date: "2026-01-02T03:04:05.678Z".into(),
        },
        groups: &[],
        status: &STATUS,
        gateway,
        token,
    };
    static STATUS: Status = Status { alert: None };
    let whole = r#"{"clientId":"d:abc123:t1:d1","typeId":"t1","deviceId":"d1","deviceInfo":{"serialNumber":"s"},"metadata":{"a":1},"registration":{"auth":{"id":"a-abc123-0123456789","type":"app"},"date":"2026-01-02T03:04:05.678Z"},"groups":[],"status":{},GATEWAY"refs":{"diag":{"errorCodes":"/api/v0002/device/types/t1/devices/d1/diag/errorCodes","logs":"/api/v0002/device/types/t1/devices/d1/diag/logs"},"location":"/api/v0002/device/types/t1/devices/d1/location","mgmt":"/api/v0002/device/types/t1/devices/d1/mgmt"}TOKEN}"#;
    let bare = whole.replace("GATEWAY", "").replace("TOKEN", "");
    let behind = whole
        .replace("GATEWAY", r#""gatewayId":"g1","gatewayTypeId":"gw","#)
        .replace("TOKEN", r#","authToken":"12345678""#);
    let kind = DeviceType {
        id: "t1",
        class_id: ClassId::Gateway,
        description: None,
        device_info: &info,
        metadata: &metadata,
        created_date_time: "c".into(),
        updated_date_time: "u".into(),
    };
    let page = |bookmark: Option<&str>| Page {
        results: vec![1],
        bookmark: bookmark.map(str::to_owned),
        meta: Meta::default(),
    };
    let added = Added {
        type_id: "t1",
        device_id: "d1",
        success: true,
        auth_token: Some("12345678"),
        exception: None,
    };
    let state = ConnectionState::new(&client("g:abc123:gw:g1"), true, Some(NOW), None);
    #[rustfmt::skip]
    let table: Vec<(String, String)> = vec![
        (text(&Device::from(known(None, None))), bare),
        (text(&Device::from(known(Some(&gateway), Some("12345678")))), behind),
        (text(&kind), r#"{"id":"t1","classId":"Gateway","deviceInfo":{"serialNumber":"s"},"metadata":{"a":1},"createdDateTime":"c","updatedDateTime":"u"}"#.into()),
        (text(&page(Some("b"))), r#"{"results":[1],"bookmark":"b","meta":{}}"#.into()),
        (text(&page(None)), r#"{"results":[1],"meta":{}}"#.into()),
        (text(&added), r#"{"typeId":"t1","deviceId":"d1","success":true,"authToken":"12345678"}"#.into()),
        (text(&LastEvent::new(&name, "e", "json", b"{}", NOW)), r#"{"deviceId":"d1","eventId":"e","format":"json","payload":"e30=","timestamp":"2026-01-02T03:04:05.678Z","typeId":"t1"}"#.into()),
        (text(&state), r#"{"id":"g:abc123:gw:g1","clientType":"Gateway","connectionStatus":"connected","connectedDateTime":"2026-01-02T03:04:05.678Z"}"#.into()),
        (text(&Initiated { id: "x".into() }), r#"{"reqId":"x"}"#.into()),
        (text(&managed(&Bench::managed().device)), r#"{"dormant":false,"supports":{"bundle-1":true,"deviceActions":true,"firmwareActions":true},"firmware":{"version":"","name":"","uri":"","verifier":"","state":0,"updateStatus":0,"updatedDateTime":""}}"#.into()),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
    assert_eq!(managed(&Bench::new().device), None);
}

mod erased {
    //! Any body, written.

    pub(super) trait Written {
        fn written(&self) -> String;
    }

    impl<T: serde::Serialize> Written for T {
        fn written(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

#[test]
fn errors_have_their_statuses_and_bodies() {
    #[rustfmt::skip]
    let table = [
        (Error::Malformed("x"), 400), (Error::Invalid(vec![]), 400), (Error::Unauthorised, 401), (Error::Forbidden, 403),
        (Error::CacheDisabled, 403), (Error::NotFound, 404), (Error::Method, 405), (Error::Conflict, 409),
        (Error::Full, 403), (Error::TooLarge, 413), (Error::TooOften, 429), (Error::Failed, 500), (Error::Unavailable, 503),
    ];
    for (error, status) in table {
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!((error.status(), body["exception"]["id"].as_str()), (status, Some(error.id())));
        assert_eq!(body["message"], error.to_string());
    }
    let body = Error::Invalid(vec!["v".into()]).body();
    assert_eq!(
        body,
        r#"{"message":"The request is not valid","exception":{"id":"CUDRS0007E","properties":[]},"violations":[{"message":"v","exception":{"id":"CUDRS0007E","properties":[]}}]}"#
    );
    let body = Error::CacheDisabled.body();
    assert_eq!(
        body,
        r#"{"message":"The last event cache is disabled","exception":{"id":"CUDCS0105E","properties":[]},"violations":[]}"#
    );
}

proptest! {
    #[test]
    fn no_bytes_break_the_api(path in "(/api/v0002)?(/[a-z%0-9é]{0,9}){0,8}", query in "[a-z_=&%+0-9é]{0,60}", body in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(Resource::parse(&path).is_none() || path.starts_with("/api/v0002/"));
        prop_assert!(Query::parse(&query).is_ok_and(|query| query.limit > 0) || query.contains('_') || query.contains('&'));
        prop_assert!(NewRequest::read(&body, &Query::parse("").unwrap()).is_err());
        prop_assert!(NewDevice::read("t1", &body, NOW).is_err());
    }
}

#[test]
fn policies_are_read_or_refused() {
    use Policy::{CertificateAndToken, CertificateOrToken, Token};
    let said = br#"{"default":"certificate-or-token","types":{"pump":"certificate-and-token"}}"#;
    let read = ConnectionSecurity::read(said).unwrap();
    assert_eq!(
        (read.of("pump"), read.of("valve")),
        (Some(CertificateAndToken), Some(CertificateOrToken))
    );
    assert_eq!(serde_json::to_vec(&read).unwrap(), said);
    assert_eq!(ConnectionSecurity::read(b"{}").unwrap().of("pump"), None);
    for policy in Policy::ALL {
        let written = serde_json::to_string(&policy).unwrap();
        assert_eq!(written, format!("\"{}\"", policy.name()));
    }
    let many: Vec<String> =
        (0..=security::TYPES_MAX).map(|number| format!(r#""t{number}":"token""#)).collect();
    let many = format!(r#"{{"types":{{{}}}}}"#, many.join(","));
    #[rustfmt::skip]
    let wrong = [
        (r#"{"default":"tls"}"#,             400), (r#"{"defualt":"token"}"#,        400),
        (r#"{"types":{"a b":"token"}}"#,     400), (r#"{"types":{"pump":true}}"#,    400),
        (r#"{"types":["pump"]}"#,            400), ("[]",                            400),
        ("",                                 400), (many.as_str(),                   400),
    ];
    for (body, status) in wrong {
        let error = ConnectionSecurity::read(body.as_bytes()).unwrap_err();
        assert_eq!(error.status(), status, "{body}: {error:?}");
    }
    #[rustfmt::skip]
    let unsaid = [
        // TLS, whether the tenant takes plaintext, whether it trusts anybody
        (true,  false, false, Token),               (true,  true,  false, Token),
        (true,  false, true,  CertificateOrToken),  (true,  true,  true,  CertificateOrToken),
        (false, true,  true,  Policy::TlsOptional), (false, true,  false, Policy::TlsOptional),
        (false, false, true,  CertificateOrToken),  (false, false, false, Token),
    ];
    for (tls, plaintext, authorities, expected) in unsaid {
        assert_eq!(
            Policy::unsaid(tls, plaintext, authorities),
            expected,
            "{tls} {plaintext} {authorities}"
        );
    }
}

#[test]
fn gateways_have_roles_and_groups() {
    let of = |roles: &str, more: &str| {
        request::role(format!(r#"{{"roles":{roles}{more}}}"#).as_bytes(), GROUP)
    };
    let (standard, privileged) = ("PD_STANDARD_GW_DEVICE", "PD_PRIVILEGED_GW_DEVICE");
    let one = |role: &str| format!(r#"[{{"roleId":"{role}","roleStatus":1}}]"#);
    assert_eq!(of(&one(standard), ""), Ok(Role::Standard));
    assert_eq!(of(&one(privileged), r#","rolesToGroups":{}"#), Ok(Role::Privileged));
    let own = format!(r#","rolesToGroups":{{"{standard}":["{GROUP}"]}}"#);
    assert_eq!(of(&one(standard), &own), Ok(Role::Standard));
    let bare = r#"[{"roleId":"PD_STANDARD_GW_DEVICE"}]"#;
    assert_eq!(of(bare, r#","rolesToGroups":null"#), Ok(Role::Standard));
    #[rustfmt::skip]
    let table = [
        ("[]".to_owned(), ""), (one("PD_ADMIN_APP"), ""),
        (r#"[{"roleId":"PD_STANDARD_GW_DEVICE","roleStatus":0}]"#.to_owned(), ""),
        (format!("[{},{}]", &one(standard)[1..one(standard).len() - 1], &one(privileged)[1..one(privileged).len() - 1]), ""),
        (one(standard), r#","rolesToGroups":{"PD_STANDARD_GW_DEVICE":["other"]}"#),
    ];
    for (roles, more) in table {
        assert!(matches!(of(&roles, more), Err(Error::Invalid(why)) if why.len() == 1), "{roles}");
    }
    for wrong in ["", "{", "[]", r#"{"roles":7}"#, "{}"] {
        let read = request::role(wrong.as_bytes(), GROUP);
        assert!(matches!(read, Err(Error::Malformed(_))), "{wrong}");
    }
    let group = Group::parse(GROUP).unwrap();
    let said = |shown: serde_json::Value| shown.to_string();
    let roles = r#"{"roles":[{"roleId":"PD_STANDARD_GW_DEVICE","roleStatus":1}],"rolesToGroups":{"PD_STANDARD_GW_DEVICE":["gw_def_res_grp:abc123:gw:g1"]}}"#;
    assert_eq!(said(json!(Roles::of(Some((Role::Standard, &group))))), roles);
    assert_eq!(said(json!(Roles::of(None))), r#"{"roles":[],"rolesToGroups":{}}"#);
    let shown = said(json!(ResourceGroup::of(&group)));
    let expected = r#"{"description":"Devices that the gateway gw:g1 speaks for","id":"gw_def_res_grp:abc123:gw:g1","name":"gw_def_res_grp:abc123:gw:g1","searchTags":[]}"#;
    assert_eq!(shown, expected);
    let about = About { groups: ["x".to_owned()].into(), ..About::default() };
    let of = |id: &str, enabled| {
        Authorization::of(&client(id), &about, enabled).map(|shown| json!(shown))
    };
    let gateway = of("g:abc123:gw:g1", true).unwrap();
    assert_eq!(gateway["resourceGroups"], json!([GROUP, "x"]), "its own first");
    assert_eq!(
        (&gateway["status"], &gateway["roles"][0]["roleId"]),
        (&json!(1), &json!(privileged))
    );
    let device = of("d:abc123:t1:d1", false).unwrap();
    assert_eq!((&device["resourceGroups"], &device["roles"]), (&json!(["x"]), &json!([])));
    assert_eq!((&device["clientId"], &device["status"]), (&json!("d:abc123:t1:d1"), &json!(0)));
    assert_eq!(of("a:abc123:app", true), None);
    assert_eq!(
        said(json!(DeviceId { type_id: "t1", device_id: "d1" })),
        r#"{"deviceId":"d1","typeId":"t1"}"#
    );
}

#[test]
fn failures_and_applications_are_kept_and_shown() {
    let mut all = KeptFailures::default();
    let failure = |number: u64| KeptFailure {
        at: UnixMillis(NOW.0 + number),
        close: Close::NotAuthorised.number(),
        address: "192.0.2.7".to_owned(),
    };
    for number in 0..30 {
        all.note(failure(number));
    }
    assert_eq!((all.failures.len(), &all.failures[0]), (FAILURES_MAX, &failure(29)));
    assert_eq!(kept::read::<KeptFailures>(&kept::write(&all)).as_ref(), Ok(&all));
    let shown = json!(ConnectionLogEntry::failed(&client("d:abc123:t1:d1"), &failure(0)));
    let expected = json!({ "message": "d:abc123:t1:d1 was not let in from 192.0.2.7: Not authorized (180)", "timestamp": "2026-01-02T03:04:05.678Z" });
    assert_eq!(shown, expected);
    let app = KeptApp { session: "a:abc123:app".to_owned(), since: NOW, left: None };
    let written = kept::write(&app);
    let text = r#"{"form":1,"session":"a:abc123:app","since":1767323045678,"left":null}"#;
    assert_eq!(written, text);
    assert_eq!(kept::read::<KeptApp>(&written).as_ref(), Ok(&app));
    let later = KeptApp { since: UnixMillis(NOW.0 + 1), left: Some(NOW), ..app.clone() };
    assert_eq!(kept::read::<KeptApp>(&kept::write(&later)).as_ref(), Ok(&later));
    assert!(later.is_newer_than(&app) && !app.is_newer_than(&later) && !app.is_newer_than(&app));
    // That it came may be written after that it went.
    let left = KeptApp { left: Some(NOW), ..app.clone() };
    assert!(left.is_newer_than(&app) && !app.is_newer_than(&left) && !left.is_newer_than(&left));
    let other = KeptApp { session: "a:abc123:app:2".to_owned(), ..app };
    assert!(!left.is_newer_than(&other) && !other.is_newer_than(&left));
}
