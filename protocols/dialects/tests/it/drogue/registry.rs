//! The registry: what is kept of devices, credentials, labels, patches, routes, and the import of all that.

use std::collections::BTreeMap;

use moorline_core::UnixMillis;
use moorline_dialects::drogue::{
    export,
    http::Head,
    registry::{
        credentials::{self, Credential, Password},
        device::{GATEWAYS_MAX, Kept, Unreadable, is_disabled},
        labels::Selector,
        patch::{DEPTH_MAX, RESULT_BYTES_MAX, Unpatched, fits, merge, patched},
        resource::{self, Known},
        route::{Action, Place, route},
    },
};
use serde_json::{Map, Value, json};

use super::fields;

#[test]
fn what_is_kept_of_a_device_says_who_may_act_for_it() {
    let metadata = fields(json!({ "drogue": {
        "labels": { "hall": "3" },
        "spec": { "gatewaySelector": { "matchNames": ["gw-1", 7] }, "alias": ["x"] },
    }, "other": 1 }));
    let kept = Kept::of(&metadata).unwrap();
    assert!(kept.allows("gw-1") && !kept.allows("gw-2"));
    assert_eq!(kept.aliases().collect::<Vec<_>>(), ["x"]);
    let mut written = metadata.clone();
    kept.put(&mut written);
    assert_eq!(Kept::of(&written), Ok(kept));
    assert_eq!(written["other"], 1);
    Kept::default().put(&mut written);
    assert!(written.get("drogue").is_none());
    assert_eq!(Kept::of(&Map::new()), Ok(Kept::default()));
    for wrong in [
        json!({ "drogue": 7 }),
        json!({ "drogue": { "spec": [] } }),
        json!({ "drogue": { "labels": { "hall": 3 }, "spec": { "core": { "disabled": true } } } }),
    ] {
        assert_eq!(Kept::of(&fields(wrong.clone())), Err(Unreadable), "{wrong}");
    }
    for (spec, disabled) in [
        (json!({}), false),
        (json!({ "core": {} }), false),
        (json!({ "core": { "disabled": false } }), false),
        (json!({ "core": { "disabled": true } }), true),
        (json!({ "core": { "disabled": "x" } }), true),
        (json!({ "core": 7 }), true),
    ] {
        assert_eq!(is_disabled(&fields(spec.clone())), disabled, "{spec}");
    }
}

#[test]
fn credentials_are_read_in_both_places_and_forms() {
    let of = |section: &str, listed: Value| {
        credentials::of(&fields(json!({ section: { "credentials": listed } })))
    };
    let plain = |text: &str| Password::Plain(text.to_owned());
    for section in ["authentication", "credentials"] {
        let found = of(section, json!([{ "pass": "a" }, { "pass": { "plain": "b" } }]));
        let expected = ["a", "b"].map(|text| Ok(Credential::Password(plain(text))));
        assert_eq!(found, expected);
    }
    let bcrypt = "$2b$10$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
    let sha512 = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
    let found = of(
        "authentication",
        json!([
            { "pass": { "bcrypt": bcrypt } },
            { "pass": { "sha512": sha512 } },
            { "user": { "username": "gw", "password": "s", "unique": true } },
            { "user": { "username": "gw", "password": { "plain": "s" } } },
            { "psk": { "key": "cHNr", "validity": { "notAfter": "2027-01-01T00:00:00Z" } } },
            { "pass": 7 }, { "user": {} }, { "psk": { "key": "!" } }, { "cert": "x" },
            { "pass": { "bcrypt": "$2b$10$x" } }, { "pass": { "bcrypt": sha512 } },
            { "pass": { "sha512": bcrypt } }, { "pass": { "bcrypt": bcrypt.replace("$10$", "$13$") } },
            { "pass": { "sha512": sha512.replace("$6$", "$6$rounds=700001$") } },
            { "pass": { "md5": "x" } },
        ]),
    );
    let hashed = |text: &str| Ok(Credential::Password(Password::Hashed(text.to_owned())));
    assert_eq!((&found[0], &found[1]), (&hashed(bcrypt), &hashed(sha512)));
    assert!(!format!("{found:?}").contains("$2b$") && !format!("{found:?}").contains("$6$r"));
    for (at, unique) in [(2, true), (3, false)] {
        let user = Credential::User { user: "gw".to_owned(), password: plain("s"), unique };
        assert_eq!(found[at], Ok(user));
    }
    let Ok(Credential::Psk { key, not_before, not_after }) = &found[4] else { panic!() };
    assert_eq!((key.0.as_slice(), not_before, not_after.is_some()), (&b"psk"[..], &None, true));
    assert!(found[5..].iter().all(Result::is_err));
    assert!(!format!("{:?}", of("credentials", json!([{ "pass": "hidden" }]))).contains("hidden"));
}

#[test]
fn selectors_select() {
    let labels: BTreeMap<String, String> =
        [("hall", "3"), ("a.b/c", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    #[rustfmt::skip]
    let table = [
        ("", true), ("hall", true), ("!hall", false), ("floor", false), ("!floor", true),
        ("hall=3", true), ("hall = 3", true), ("hall=4", false), ("hall!=3", false), ("hall!=4", true),
        ("floor!=4", true), ("hall in (3,4)", true), ("hall in ( 4 )", false),
        ("hall notin (3, 4)", false), ("floor notin (3)", true),
        ("hall,a.b/c=x", true), ("hall in (3,4),a.b/c in (x)", true), ("hall,floor", false),
    ];
    for (text, expected) in table {
        assert_eq!(Selector::parse(text).unwrap().selects(&labels), expected, "{text}");
    }
    for wrong in [
        "foo/bar/bar",
        "foo/",
        "/bar",
        "foo-bar/baz",
        "foo,#",
        "foo,",
        ",foo",
        "a=",
        "a in 3",
        "a of (3)",
        "a in ()",
    ] {
        assert!(Selector::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn patches_are_carried_out_whole_or_not_at_all() {
    let target = json!({ "a": { "b": [1, 2] }, "x/y": 1 });
    #[rustfmt::skip]
    let table = [
        (json!([{ "op": "add", "path": "/a/b/1", "value": 9 }]), Ok(json!({ "a": { "b": [1, 9, 2] }, "x/y": 1 }))),
        (json!([{ "op": "add", "path": "/a/b/-", "value": 9 }]), Ok(json!({ "a": { "b": [1, 2, 9] }, "x/y": 1 }))),
        (json!([{ "op": "remove", "path": "/x~1y" }]), Ok(json!({ "a": { "b": [1, 2] } }))),
        (json!([{ "op": "replace", "path": "/a/b", "value": 0 }]), Ok(json!({ "a": { "b": 0 }, "x/y": 1 }))),
        (json!([{ "op": "move", "from": "/x~1y", "path": "/a/c" }]), Ok(json!({ "a": { "b": [1, 2], "c": 1 } }))),
        (json!([{ "op": "copy", "from": "/x~1y", "path": "/z" }]), Ok(json!({ "a": { "b": [1, 2] }, "x/y": 1, "z": 1 }))),
        (json!([{ "op": "test", "path": "/a/b/0", "value": 1 }, { "op": "add", "path": "", "value": 7 }]), Ok(json!(7))),
        (json!([{ "op": "remove", "path": "/a" }, { "op": "test", "path": "/x~1y", "value": 2 }]), Err(Unpatched::TestFailed)),
        (json!([{ "op": "remove", "path": "/nothing" }]), Err(Unpatched::NoSuchPath)),
        (json!([{ "op": "replace", "path": "/nothing", "value": 1 }]), Err(Unpatched::NoSuchPath)),
        (json!([{ "op": "add", "path": "/a/b/7", "value": 1 }]), Err(Unpatched::NoSuchPath)),
        (json!([{ "op": "add", "path": "/a/b/01", "value": 1 }]), Err(Unpatched::NoSuchPath)),
        (json!([{ "op": "move", "from": "/a", "path": "/a/b" }]), Err(Unpatched::Malformed)),
        (json!([{ "op": "explode", "path": "/a" }]), Err(Unpatched::Malformed)),
        (json!([{ "op": "add", "path": "a", "value": 1 }]), Err(Unpatched::Malformed)),
        (json!([{ "op": "add", "path": "/a" }]), Err(Unpatched::Malformed)),
        (json!({}), Err(Unpatched::Malformed)),
    ];
    for (patch, expected) in table {
        assert_eq!(patched(&target, &patch), expected, "{patch}");
    }
    let mut merged = target;
    merge(&mut merged, &json!({ "a": { "b": null, "c": { "d": 1, "e": null } }, "x/y": 2 }));
    assert_eq!(merged, json!({ "a": { "c": { "d": 1 } }, "x/y": 2 }));
}

#[test]
fn routes_of_the_registry() {
    let base = "/api/registry/v1alpha1/apps";
    let patch = [("content-type", &b"application/json-patch+json"[..])];
    let merge = [("content-type", &b"application/merge-patch+json; charset=utf-8"[..])];
    let ask = |method, path: &str, query, headers: &[(&str, &[u8])]| {
        route(&Head { method, path: &format!("{base}{path}"), query, headers })
            .map_err(|refusal| refusal.status())
    };
    let app = || Place::Application("plant".to_owned());
    let device = || Place::Device("plant".to_owned(), "a b".to_owned());
    let devices = || Place::Devices("plant".to_owned());
    #[rustfmt::skip]
    let table = [
        ("POST", "", &[][..], Ok((Place::Applications, Action::Create))),
        ("GET", "/plant", &[], Ok((app(), Action::Get))),
        ("PUT", "/plant", &[], Ok((app(), Action::Replace))),
        ("DELETE", "/plant", &[], Ok((app(), Action::Delete))),
        ("PATCH", "/plant", &patch[..], Ok((app(), Action::Patch))),
        ("POST", "/plant/devices", &[], Ok((devices(), Action::Create))),
        ("GET", "/plant/devices/a%20b", &[], Ok((device(), Action::Get))),
        ("PATCH", "/plant/devices/a%20b", &merge[..], Ok((device(), Action::Merge))),
        ("PATCH", "/plant", &[], Err(400)),
        ("POST", "/plant", &[], Err(405)),
        ("DELETE", "", &[], Err(405)),
        ("GET", "/plant/things", &[], Err(404)),
        ("GET", "/plant/devices/a/b", &[], Err(404)),
        ("GET", "//devices", &[], Err(404)),
        ("GET", "x", &[], Err(404)),
    ];
    for (method, path, headers, expected) in table {
        assert_eq!(ask(method, path, "", headers), expected, "{method} {path}");
    }
    let listed = ask("GET", "/plant/devices/", "labels=hall%3D3&limit=5&offset=10", &[]).unwrap();
    let selector = Selector::parse("hall=3").unwrap();
    assert_eq!(listed, (devices(), Action::List(selector, 5, 10)));
    for query in ["limit=x", "offset=-1", "labels=%23"] {
        assert_eq!(ask("GET", "", query, &[]), Err(400), "{query}");
    }
}

#[test]
fn resources_are_shown_as_they_were_written() {
    let body = json!({
        "metadata": { "application": "plant", "name": "gate-7", "labels": { "hall": "3" }, "resourceVersion": "7" },
        "spec": { "core": { "disabled": true }, "alias": ["x"], "credentials": { "credentials": [{ "pass": "s3cret" }] } },
    });
    let written = resource::read(&body).unwrap();
    assert_eq!((written.name.as_str(), written.application.as_deref()), ("gate-7", Some("plant")));
    assert_eq!((written.version.as_deref(), written.enabled), (Some("7"), false));
    let password = Credential::Password(Password::Plain("s3cret".to_owned()));
    assert_eq!(written.credentials, Some(vec![password]));
    let known = Known {
        application: Some("plant"),
        name: "gate-7",
        uid: "7-1",
        created: UnixMillis(1_795_222_923_456),
        version: 9,
        enabled: written.enabled,
    };
    let shown = resource::shown(&known, &written.kept);
    let expected = json!({
        "metadata": {
            "application": "plant", "name": "gate-7", "uid": "7-1", "generation": 9, "resourceVersion": "9",
            "creationTimestamp": "2026-11-21T01:02:03.456Z", "labels": { "hall": "3" },
        },
        "spec": { "core": { "disabled": true }, "alias": ["x"] },
    });
    assert_eq!(shown, expected, "and no credentials");
    assert_eq!(resource::read(&shown).unwrap().credentials, None, "it keeps those it has");
    for wrong in [
        json!({}),
        json!({ "metadata": {} }),
        json!({ "metadata": { "name": "a", "labels": { "x": 1 } } }),
        json!({ "metadata": { "name": "a" }, "spec": 7 }),
        json!({ "metadata": { "name": "a" }, "spec": { "credentials": { "credentials": [{}] } } }),
    ] {
        assert!(resource::read(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_would_not_count_later_is_not_written() {
    let read = |spec: Value| {
        resource::read(&json!({ "metadata": { "name": "a" }, "spec": spec })).map(|_| ())
    };
    let names = |many: usize| (0..many).map(|at| format!("gw-{at}")).collect::<Vec<_>>();
    let gateways = |many| json!({ "gatewaySelector": { "matchNames": names(many) } });
    let deep = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    #[rustfmt::skip]
    let table = [
        (json!({ "publish": { "rules": [{ "then": ["drop"] }] } }), true),
        (json!({ "publish": { "rules": [{ "then": ["explode"] }] } }), false),
        (json!({ "publish": { "rules": 7 } }), false),
        (json!({ "mqtt": { "dialect": { "type": "plainTopic" } } }), true),
        (json!({ "mqtt": { "dialect": { "type": "azure" } } }), false),
        (gateways(GATEWAYS_MAX), true),
        (gateways(GATEWAYS_MAX + 1), false),
        (json!({ "x": deep(DEPTH_MAX - 3) }), true),
        (json!({ "x": deep(DEPTH_MAX) }), false),
        (json!({ "x": "x".repeat(RESULT_BYTES_MAX) }), false),
    ];
    for (spec, expected) in table {
        let text = spec.to_string();
        assert_eq!(read(spec).is_ok(), expected, "{}", &text[..text.len().min(99)]);
    }
}

#[test]
fn an_application_keeps_that_it_is_disabled() {
    for (core, disabled) in [
        (json!({}), false),
        (json!({ "disabled": false }), false),
        (json!({ "disabled": true }), true),
        (json!({ "disabled": "x" }), true),
    ] {
        let body = json!({ "metadata": { "name": "plant" }, "spec": { "core": core, "x": 1 } });
        let kept = resource::read(&body).unwrap().of_application();
        assert_eq!(is_disabled(&kept.spec), disabled, "{core}");
        assert_eq!(kept.spec["x"], 1);
    }
}

#[test]
fn however_often_a_patch_copies_its_result_is_bounded() {
    let target = json!({ "spec": { "a": "x".repeat(64) } });
    let copies = |many: usize| {
        let copy = |at| json!({ "op": "copy", "from": "/spec", "path": format!("/spec/c{at}") });
        Value::Array((0..many).map(copy).collect())
    };
    // Each doubles what there is.
    assert!(patched(&target, &copies(4)).is_ok());
    for many in [12, 40, 256] {
        assert_eq!(patched(&target, &copies(many)), Err(Unpatched::TooLarge), "{many}");
    }
    let deeper = json!({ "op": "copy", "from": "/spec", "path": "/spec/a" });
    let deeper = Value::Array(vec![deeper; DEPTH_MAX]);
    assert_eq!(patched(&json!({ "spec": {} }), &deeper), Err(Unpatched::TooLarge));
    let mut between = copies(40).as_array().unwrap().clone();
    between.push(json!({ "op": "replace", "path": "", "value": {} }));
    assert_eq!(patched(&target, &Value::Array(between)), Err(Unpatched::TooLarge), "on its way");
    assert!(fits(&json!("x".repeat(RESULT_BYTES_MAX - 3))));
    assert!(!fits(&json!("x".repeat(RESULT_BYTES_MAX - 2))));
}

#[test]
fn devices_move_with_what_they_show() {
    let device = json!({
        "metadata": { "application": "plant", "name": "gate-7", "labels": { "hall": "3" } },
        "spec": {
            "alias": ["old-7"],
            "authentication": { "credentials": [
                { "pass": "s3cret" },
                { "user": { "username": "fleet", "password": "pw" } },
                { "user": { "username": "gw", "password": "pw", "unique": true } },
                { "psk": { "key": "cHNrcHNrcHNrcHNrcHNrcA==" } },
                { "pass": { "sha512": "$6$x" } },
            ] },
            "gatewaySelector": { "matchNames": ["gw-1"] },
            "core": { "disabled": true },
        },
        "status": {},
    });
    let application = json!({ "metadata": { "name": "plant" } });
    let export = export::read(&[json!([device, application]), json!({ "x": 1 })]);
    let line = export.devices[0].to_line();
    assert_eq!((&line["name"], &line["enabled"]), (&json!("gate-7"), &json!(false)));
    assert_eq!(line["settings"]["labels"], json!(["hall=3"]));
    let kept = &line["settings"]["metadata"]["drogue"];
    assert_eq!(kept["spec"]["gatewaySelector"]["matchNames"], json!(["gw-1"]));
    assert!(kept["spec"].get("authentication").is_none(), "no secret in the settings");
    assert!(kept["spec"].get("core").is_none(), "whether it is enabled says the row");
    assert_eq!(
        line["credentials"],
        json!([
            { "alias": "old-7" },
            { "user": "gate-7", "password": "s3cret" },
            { "client_id": "gate-7", "user": "fleet", "password": "pw" },
            { "user": "gw", "password": "pw" },
            { "identity": "gate-7@plant", "key": "70736b70736b70736b70736b70736b70" },
        ])
    );
    let left: Vec<_> = export.left.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left, ["gate-7", "plant", "value 2"], "the hash, the application, and nonsense");
    assert!(!format!("{export:?}").contains("s3cret"));
}

#[test]
fn a_name_has_two_passwords_while_one_is_changed() {
    let listed = json!([
        { "pass": "old" }, { "pass": "new" }, { "pass": "third" },
        { "user": { "username": "fleet", "password": "a" } },
        { "user": { "username": "fleet", "password": "b", "unique": true } },
        { "user": { "username": "fleet", "password": "c" } },
    ]);
    let device = json!({
        "metadata": { "application": "plant", "name": "gate-7" },
        "spec": { "authentication": { "credentials": listed } },
    });
    let export = export::read(&[device]);
    assert_eq!(
        export.devices[0].to_line()["credentials"],
        json!([
            { "user": "gate-7", "password": "old" },
            { "client_id": "gate-7", "user": "gate-7", "password": "new" },
            { "client_id": "gate-7", "user": "fleet", "password": "a" },
            { "user": "fleet", "password": "b" },
        ])
    );
    let left: Vec<_> = export.left.iter().map(|left| left.why.as_str()).collect();
    let why = "a device's name has two passwords at most, and a user name has one";
    assert_eq!(left, [why, why]);
}
