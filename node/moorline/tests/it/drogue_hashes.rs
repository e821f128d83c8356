//! Devices of Drogue Cloud whose passwords came as hashes, and that have several pre-shared keys; and API keys of their application.
//!
//! The hashes here were made by libxcrypt, which is what `crypt` of most systems is.

use std::slice;

use serde_json::{Value, json};

use crate::{
    credentials::counted,
    drogue::{Plant, basic, login},
    harness::{
        api::text,
        http::{self, Answer},
        mqtt::Heard,
        packet::{Packet, Version},
        scenarios,
        wait::SOON,
    },
    moved,
};

const DEVICES: &str = "/api/registry/v1alpha1/apps/plant/devices";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
/// Hashes of `secret`, and how the registry calls their form.
#[rustfmt::skip]
const HASHES: [(&str, &str); 5] = [
    ("bcrypt", "$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"),
    ("bcrypt", "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"),
    ("bcrypt", "$2y$06$......................LlrHE.PBZavRp1Br9ZKhi8SOMUWPCBG"),
    ("sha512", "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogdTET5Ukw9Sf7eZTITsuk0Ry5qulYz."),
    ("sha512", "$6$rounds=1000$s$jWKWW4frHd2UJCMnzN3684fspPDUebzE6OnlK.F/bIYlUl9ch1/YyU4YMwEz1ya6974pdkzQ/w/5/LikcSsVm."),
];

fn hashed(at: usize) -> Value {
    let (form, hash) = HASHES[at];
    json!({ form: hash })
}

/// Asks the registry of a node, as one that writes.
#[track_caller]
fn ask(plant: &Plant, node: u64, (method, path): (&str, &str), kind: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let by = format!("Bearer {}", plant.look);
    let headers = [("authorization", by.as_str()), ("content-type", kind)];
    http::api(method, plant.api.at(node, "http"), &format!("{DEVICES}{path}"), &headers, &body)
}

fn with(name: &str, credentials: &Value) -> Value {
    let spec = json!({ "authentication": { "credentials": credentials } });
    json!({ "metadata": { "application": "plant", "name": name }, "spec": spec })
}

#[track_caller]
fn made(plant: &Plant, name: &str, credentials: &Value) {
    let answer = ask(plant, 1, ("POST", ""), JSON, &with(name, credentials));
    assert_eq!(answer.status, 201, "{name}: {}", answer.body);
}

/// What a device is told at a node: by MQTT 3.1.1, by MQTT 5 and over HTTP.
fn told(plant: &Plant, node: u64, (user, password): (&str, &str)) -> (u8, u8, u16) {
    let reason = |version| login(version, "x", user, password).reason(plant.at(node));
    let answer = plant.post(node, "/v1/a", &basic(&format!("{user}:{password}")), "{}");
    (reason(Version::V4), reason(Version::V5), answer.status)
}

const IN: (u8, u8, u16) = (0, 0, 202);
const OUT: (u8, u8, u16) = (4, 0x86, 403);

#[test]
fn hashes_and_keys_move_in() {
    let mut plant = Plant::start();
    // Here it is a key that writes.
    plant.look = plant.token("acme", "operator");
    scenarios(
        &mut plant,
        &[
            ("a password that was hashed lets in who knows it", forms),
            ("it stands wherever a password does", places),
            ("what is read back has no hash, and written back it stays", kept),
            ("a hash that is none, or too dear, is refused when it is written", refused),
            ("an import and the cluster's own API take them, too", brought),
            ("what was right is known for a while", known),
            ("a device has several keys, and its identity as long as it has one", keys),
            ("administrators of an application make, see and forget API keys", api_keys),
        ],
    );
}

fn forms(plant: &mut Plant) {
    for (at, (form, hash)) in HASHES.into_iter().enumerate() {
        let name = format!("form-{at}");
        made(plant, &name, &json!([{ "pass": { form: hash } }]));
        let user = format!("{name}@plant");
        assert_eq!(told(plant, 2, (&user, "secret")), IN, "{hash}");
        assert_eq!(told(plant, 3, (&user, "secret")), IN, "{hash}");
        assert_eq!(told(plant, 3, (&user, "Secret")), OUT, "{hash}");
        // Neither is the hash a password.
        assert_eq!(login(Version::V4, "x", &user, hash).reason(plant.at(2)), 4);
        let long = "s".repeat(1_000);
        assert_eq!(login(Version::V4, "x", &user, &long).reason(plant.at(2)), 4);
    }
}

fn places(plant: &mut Plant) {
    let user = |name: &str, unique: bool, at: usize| json!({ "user": { "username": name, "password": hashed(at), "unique": unique } });
    made(plant, "two", &json!([{ "pass": hashed(1) }, { "pass": "plain" }]));
    made(plant, "other-two", &json!([{ "pass": "plain" }, { "pass": hashed(3) }]));
    for name in ["two@plant", "other-two@plant"] {
        for password in ["secret", "plain"] {
            assert_eq!(told(plant, 1, (name, password)), IN, "{name} {password}");
        }
    }
    made(plant, "fleet-1", &json!([user("fleet", false, 4), user("alone", true, 0)]));
    for (client, name, password, reason) in [
        ("fleet-1@plant", "fleet", "secret", 0),
        ("x", "alone@plant", "secret", 0),
        ("fleet-1@plant", "fleet", "wrong", 4),
        ("two@plant", "fleet", "secret", 4),
    ] {
        let connect = login(Version::V4, client, name, password);
        assert_eq!(connect.reason(plant.at(2)), reason, "{client} {name}");
    }
    // A gateway that came by one.
    let proxied = json!({
        "metadata": { "application": "plant", "name": "behind" },
        "spec": { "gatewaySelector": { "matchNames": ["two"] } },
    });
    assert_eq!(ask(plant, 1, ("POST", ""), JSON, &proxied).status, 201);
    assert_eq!(plant.post(3, "/v1/a?as=behind", &basic("two@plant:secret"), "{}").status, 202);
    assert_eq!(plant.post(3, "/v1/a?as=behind", &basic("two@plant:wrong"), "{}").status, 403);
}

fn kept(plant: &mut Plant) {
    made(plant, "kept", &json!([{ "pass": hashed(1) }]));
    let shown = ask(plant, 2, ("GET", "/kept"), JSON, &Value::Null);
    assert_eq!(shown.status, 200);
    assert!(!shown.body.contains("$2") && shown.json().get("spec").is_none(), "{}", shown.body);
    assert_eq!(ask(plant, 3, ("PUT", "/kept"), JSON, &shown.json()).status, 204);
    assert_eq!(told(plant, 1, ("kept@plant", "secret")), IN);
    let (mut there, _) = login(Version::V5, "x", "kept@plant", "secret").to(plant.at(2));
    let patch = json!({ "spec": { "authentication": { "credentials": [{ "pass": "plain" }] } } });
    assert_eq!(ask(plant, 3, ("PATCH", "/kept"), MERGE, &patch).status, 204);
    assert_eq!(there.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    assert_eq!(told(plant, 1, ("kept@plant", "secret")), OUT);
    let back = json!({ "spec": { "authentication": { "credentials": [{ "pass": hashed(4) }] } } });
    assert_eq!(ask(plant, 3, ("PATCH", "/kept"), MERGE, &back).status, 204);
    assert_eq!(login(Version::V5, "x", "kept@plant", "secret").reason(plant.at(2)), 0);
}

fn refused(plant: &mut Plant) {
    let (bcrypt, sha512) = (HASHES[1].1, HASHES[3].1);
    #[rustfmt::skip]
    let table = [
        (json!({ "bcrypt": "secret" }),                                     "bcrypt's ($2a$, $2b$, $2y$)"),
        (json!({ "bcrypt": &bcrypt[..59] }),                                "can't be read"),
        (json!({ "bcrypt": bcrypt.replace("$2b$", "$2x$") }),               "bcrypt's ($2a$, $2b$, $2y$)"),
        (json!({ "bcrypt": bcrypt.replace("$04$", "$13$") }),               "a cost of 4 to 12"),
        (json!({ "bcrypt": sha512 }),                                       "another form's"),
        (json!({ "sha512": bcrypt }),                                       "another form's"),
        (json!({ "sha512": sha512.replace("$6$", "$5$") }),                 "SHA-512-crypt's ($6$)"),
        (json!({ "sha512": sha512.replace("$6$", "$6$rounds=700001$") }),   "1000 to 700000 rounds"),
        (json!({ "sha512": &sha512[..90] }),                                "can't be read"),
        (json!({ "md5": "x" }),                                             "neither text nor"),
    ];
    for (password, why) in table {
        let answer =
            ask(plant, 1, ("POST", ""), JSON, &with("never", &json!([{ "pass": password }])));
        let said = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && said.contains(why), "{password}: {}", answer.body);
    }
    assert_eq!(ask(plant, 1, ("GET", "/never"), JSON, &Value::Null).status, 404);
}

fn brought(plant: &mut Plant) {
    let own = json!({ "name": "own" });
    assert_eq!(plant.api.ask(1, "POST", "/devices?tenant=acme", &own).0, 201);
    let credential = json!({ "kind": "password", "user": "own", "password_hash": HASHES[3].1 });
    plant.credential("own", &credential);
    assert_eq!(told(plant, 2, ("own@plant", "secret")), IN);
    let (_, shown) = plant.api.ask(1, "GET", "/devices/own/credentials?tenant=acme", &Value::Null);
    let said = shown.to_string();
    assert!(said.contains("\"password\"") && !said.contains("$6$"), "{said}");
    for wrong in [
        json!({ "kind": "password", "user": "more", "password_hash": "$2b$13$x" }),
        json!({ "kind": "password", "user": "more", "password_hash": "x", "password": "x" }),
        json!({ "kind": "token", "password_hash": HASHES[3].1 }),
    ] {
        let (status, said) =
            plant.api.ask(1, "POST", "/devices/own/credentials?tenant=acme", &wrong);
        assert_eq!(status, 400, "{wrong}: {said}");
    }
    let dear = HASHES[1].1.replace("$04$", "$31$");
    let export = json!([
        with("moved-1", &json!([{ "pass": hashed(0) }, { "pass": hashed(4) }])),
        with("moved-2", &json!([{ "user": { "username": "m", "password": hashed(1) } }])),
        with("moved-3", &json!([{ "pass": { "bcrypt": dear } }])),
    ]);
    let import =
        |node| moved::import(&plant.api, node, "drogue", "acme", &[], slice::from_ref(&export));
    // One is named, and its device moves without it.
    for (node, summary) in [(1, "3 created"), (2, "0 created, 0 updated, 3 unchanged, 0 failed")] {
        let output = import(node);
        let said = moved::said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(summary) && said.contains("a cost of 4 to 12"), "{said}");
    }
    assert_eq!(told(plant, 3, ("moved-1@plant", "secret")), IN);
    assert_eq!(login(Version::V5, "moved-2@plant", "m", "secret").reason(plant.at(3)), 0);
    assert_eq!(told(plant, 3, ("moved-3@plant", "secret")), OUT);
    // Where people's passwords are not taken, neither are these.
    let strict = json!({ "name": "strict", "aliases": ["drogue:strict"] });
    assert_eq!(plant.api.ask(1, "POST", "/tenants", &strict).0, 201);
    assert_eq!(plant.api.ask(1, "POST", "/devices?tenant=strict", &own).0, 201);
    let (status, said) =
        plant.api.ask(1, "POST", "/devices/own/credentials?tenant=strict", &credential);
    assert_eq!(status, 403, "{said}");
}

fn known(plant: &mut Plant) {
    made(plant, "often", &json!([{ "pass": hashed(2) }]));
    let often = || login(Version::V5, "x", "often@plant", "secret").reason(plant.at(2));
    let count = |result: &str| {
        let series = "moorline_foreign_hash_checks_total{form=\"bcrypt\",result=";
        counted(&plant.api, 2, &format!("{series}\"{result}\""))
    };
    assert_eq!(often(), 0);
    let (hashed, known) = (count("hashed"), count("known"));
    for _ in 0..20 {
        assert_eq!(often(), 0);
    }
    assert_eq!((count("hashed"), count("known")), (hashed, known + 20));
}

fn keys(plant: &mut Plant) {
    let key = |byte: char, validity: Value| json!({ "psk": { "key": byte.to_string().repeat(22) + "==", "validity": validity } });
    let listed = json!([
        key('A', json!({ "notAfter": "2027-01-01T00:00:00Z" })),
        key('Q', json!({ "notBefore": "2026-12-01T00:00:00Z" })),
        key('g', Value::Null),
    ]);
    made(plant, "keyed", &listed);
    let path = "/devices/keyed/credentials?tenant=acme";
    let held = |plant: &Plant| {
        let (_, held) = plant.api.ask(1, "GET", path, &Value::Null);
        held.as_array().unwrap().clone()
    };
    let all = held(plant);
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|held| held["identity"] == "keyed@plant"), "{all:?}");
    assert_eq!(all[0]["not_after_ms"], 1_798_761_600_000_u64);
    assert_eq!(all[1]["not_before_ms"], 1_796_083_200_000_u64);
    // Beside them one more, by the cluster's own API.
    let made = json!({ "kind": "psk", "identity": "keyed@plant" });
    text(&plant.api.ask(1, "POST", path, &made), 201, "secret");
    let other = json!({ "name": "other-keyed" });
    assert_eq!(plant.api.ask(1, "POST", "/devices?tenant=acme", &other).0, 201);
    let taken = |plant: &Plant| {
        plant.api.ask(2, "POST", "/devices/other-keyed/credentials?tenant=acme", &made).0
    };
    // The identity is its own until the last of them is gone.
    for held in held(plant) {
        assert_eq!(taken(plant), 409);
        let id = held["id"].as_str().unwrap();
        let path = format!("/devices/keyed/credentials/{id}?tenant=acme");
        assert_eq!(plant.api.ask(3, "DELETE", &path, &Value::Null).0, 204);
    }
    assert_eq!(taken(plant), 201);
    let answer = ask(
        plant,
        1,
        ("POST", ""),
        JSON,
        &with("never", &json!([key('A', json!({ "notAfter": "soon" }))])),
    );
    assert_eq!(answer.status, 400, "{}", answer.body);
    let export = json!([with("moved-keyed", &listed)]);
    for (node, summary) in [(1, "1 created"), (2, "0 created, 0 updated, 1 unchanged")] {
        let output =
            moved::import(&plant.api, node, "drogue", "acme", &[], slice::from_ref(&export));
        moved::imported(&output, summary);
    }
    let (_, moved) =
        plant.api.ask(1, "GET", "/devices/moved-keyed/credentials?tenant=acme", &Value::Null);
    assert_eq!(moved.as_array().unwrap().len(), 3, "{moved}");
}

fn api_keys(plant: &mut Plant) {
    let admin = plant.token("acme", "admin");
    let operator = plant.look.clone();
    let keys = |node: u64, by: &str, (method, rest): (&str, &str), body: &str| {
        let by = format!("Bearer {by}");
        let path = format!("/api/tokens/v1alpha1{rest}");
        http::api(method, plant.api.at(node, "http"), &path, &[("authorization", &by)], body)
    };
    let made = keys(1, &admin, ("POST", "?description=of%20the%20CI&role=app"), "");
    assert_eq!(made.status, 200, "{}", made.body);
    let made = made.json();
    let (key, prefix) = (made["token"].as_str().unwrap(), made["prefix"].as_str().unwrap());
    assert!(key.starts_with(prefix) && key.len() > prefix.len() + 40);
    let command = |key: &str| {
        let path = "/api/command/v1alpha1/apps/plant/devices/two?command=x";
        plant.post(3, path, &format!("Bearer {key}"), "").status
    };
    assert_eq!(command(key), 202);
    let by_user = "/api/command/v1alpha1/apps/plant/devices/two?command=x";
    assert_eq!(plant.post(3, by_user, &basic(&format!("me:{key}")), "").status, 202);
    assert_eq!(keys(2, key, ("GET", ""), "").status, 403, "an application has no keys");
    let listed = keys(2, &admin, ("GET", "/"), "");
    assert!(listed.status == 200 && !listed.body.contains(key), "{}", listed.body);
    let listed = listed.json();
    let shown = listed.as_array().unwrap().iter().find(|shown| shown["prefix"] == prefix).unwrap();
    assert_eq!(shown["description"], "of the CI");
    assert!(shown["created"].as_str().unwrap().ends_with('Z'), "{shown}");
    // Those of the cluster's own API are among them.
    assert!(listed.as_array().unwrap().len() > 3, "{listed}");
    let (_, tokens) = plant.api.ask(1, "GET", "/tokens?tenant=acme", &Value::Null);
    assert_eq!(tokens.as_array().unwrap().len(), listed.as_array().unwrap().len());
    let whole = keys(2, &admin, ("POST", ""), r#"{"description":"whole"}"#).json();
    let whole = whole["token"].as_str().unwrap();
    assert_eq!(keys(3, whole, ("GET", ""), "").status, 200, "it may what its maker may");
    let elsewhere = prefix.replacen("mlt_", "mlt_9", 1);
    for (by, asked, status) in [
        (&operator, ("GET", String::new()), 403),
        (&operator, ("POST", String::new()), 403),
        (&operator, ("DELETE", format!("/{prefix}")), 403),
        // The cluster has no say in how its keys are shown without TLS.
        (&plant.api.token, ("GET", String::new()), 403),
        (&admin, ("POST", "?role=owner".to_owned()), 400),
        (&admin, ("DELETE", format!("/{elsewhere}")), 404),
        (&admin, ("DELETE", format!("/{key}")), 404),
        (&admin, ("PUT", String::new()), 405),
    ] {
        let answer = keys(1, by, (asked.0, &asked.1), "");
        assert_eq!(answer.status, status, "{asked:?}: {}", answer.body);
    }
    assert_eq!(command(key), 202);
    assert_eq!(keys(1, &admin, ("DELETE", &format!("/{prefix}")), "").status, 204);
    assert_eq!(keys(1, &admin, ("DELETE", &format!("/{prefix}")), "").status, 404);
    assert_eq!(command(key), 403, "it is forgotten everywhere");
    let members = |by: &str| {
        let path = "/api/admin/v1alpha1/apps/plant/members";
        http::api("GET", plant.api.at(2, "http"), path, &[("authorization", by)], "")
    };
    let told = members(&format!("Bearer {admin}"));
    assert!(told.status == 501 && told.body.contains("no users"), "{}", told.body);
    assert_eq!(members("Bearer x").status, 403);
}
