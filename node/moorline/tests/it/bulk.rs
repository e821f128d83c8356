//! Requests that are sent again, and many devices at once, while nodes die.

use std::{
    fmt::Write,
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem},
    http::{self, Answer},
    scenarios,
    wait::{SOON, until_true},
};

#[test]
fn what_is_sent_again_is_done_once() {
    let mut api = Api::start();
    assert_eq!(problem(api.ask(1, "POST", "/tenants", &json!({ "name": "acme" }))).0, 201);
    scenarios(
        &mut api,
        &[
            ("a repeat gets the first answer, and another request none", repeats),
            ("a secret is not shown again", secrets_are_not_repeated),
            ("a repeat is known to whoever leads", repeats_outlive_a_leader),
            ("a patch changes what it says, of the version it means", patches),
            ("a file is imported once, whatever is wrong in it", imports),
            ("what was exported can be imported", exports),
            ("an import goes on while nodes die", imports_outlive_a_node),
            ("a broadcast reaches each device with its label once", broadcasts),
            ("the command line says how it went", exit_codes),
        ],
    );
}

fn with(
    api: &Api,
    node: u64,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let bearer = format!("Bearer {}", api.token);
    let all: Vec<_> = [("authorization", bearer.as_str())].iter().chain(headers).copied().collect();
    let to = api.cluster.node(node).admin;
    http::api(method, to, &format!("/api/v1{path}"), &all, body)
}

fn keyed(api: &Api, node: u64, path: &str, key: &str, body: &Value) -> Answer {
    with(api, node, "POST", path, &[("idempotency-key", key)], &body.to_string())
}

fn repeats(api: &mut Api) {
    let (path, device) = ("/devices?tenant=acme", json!({ "name": "twice" }));
    let first = keyed(api, 1, path, "order-1", &device);
    assert_eq!(first.status, 201, "{}", first.body);
    // Whatever happened to it since.
    let changed = api.ask(2, "PATCH", "/devices/twice?tenant=acme", &json!({ "enabled": false }));
    assert_eq!(changed.0, 200, "{}", changed.1);
    let again = keyed(api, 3, path, "order-1", &device);
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    let etag = |answer: &Answer| {
        answer.head.lines().find(|line| line.starts_with("etag")).map(str::to_owned)
    };
    assert_eq!(etag(&again), etag(&first));
    let other = keyed(api, 2, path, "order-1", &json!({ "name": "other" }));
    assert_eq!((other.status, &other.json()["code"]), (422, &json!("idempotency-key-reused")));
    // A request that was refused may be corrected.
    let wrong = keyed(api, 1, path, "order-2", &json!({ "name": "~" }));
    assert_eq!(wrong.status, 400);
    assert_eq!(keyed(api, 1, path, "order-2", &json!({ "name": "corrected" })).status, 201);
    // A mail of a key is one mail.
    let (path, mail) = ("/devices/twice/mailbox?tenant=acme", json!({ "name": "open" }));
    let first = keyed(api, 1, path, "mail-1", &mail);
    assert_eq!((first.status, &first.json()["mailbox_size"]), (201, &json!(1)));
    assert_eq!(keyed(api, 2, path, "mail-1", &mail).body, first.body);
    let second = keyed(api, 3, path, "mail-2", &mail);
    assert_eq!((second.status, &second.json()["mailbox_size"]), (201, &json!(2)));
    let long = "k".repeat(256);
    assert_eq!(keyed(api, 1, path, &long, &mail).status, 400);
    // Keys of one token are nothing to another.
    let made = api.ask(2, "POST", "/tokens?tenant=acme", &json!({ "name": "op", "role": "admin" }));
    let token = made.1["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "order-1")];
    let to = api.cluster.node(1).admin;
    let of_other =
        http::api("POST", to, "/api/v1/devices", &headers, &json!({ "name": "mine" }).to_string());
    assert_eq!(of_other.status, 201, "{}", of_other.body);
}

fn secrets_are_not_repeated(api: &mut Api) {
    let path = "/devices/twice/credentials?tenant=acme";
    let first = keyed(api, 1, path, "cred-1", &json!({}));
    assert_eq!(first.status, 201, "{}", first.body);
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    let again = keyed(api, 2, path, "cred-1", &json!({}));
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("secret-not-kept")));
    assert!(
        again.body.contains(first.json()["id"].as_str().unwrap()) && !again.body.contains(&secret)
    );
    let token = json!({ "name": "once", "role": "app" });
    assert_eq!(keyed(api, 3, "/tokens?tenant=acme", "token-1", &token).status, 201);
    assert_eq!(
        keyed(api, 1, "/tokens?tenant=acme", "token-1", &token).json()["code"],
        "secret-not-kept"
    );
    for node in api.cluster.nodes() {
        assert!(!node.log().contains(&secret), "a secret is in the log of node {}", node.id);
    }
}

fn repeats_outlive_a_leader(api: &mut Api) {
    for victim in [1, 2, 3] {
        let others = api.cluster.others(victim);
        let (path, key) = ("/devices?tenant=acme", format!("victim-{victim}"));
        let device = json!({ "name": format!("of-{victim}") });
        let first = keyed(api, others[0], path, &key, &device);
        assert_eq!(first.status, 201, "{}", first.body);
        api.cluster.node_mut(victim).kill();
        until_true("a repeat is answered as the first was", SOON, || {
            let again = keyed(api, others[1], path, &key, &device);
            again.status == 201 && again.body == first.body
        });
        api.cluster.node_mut(victim).start_ready();
    }
}

fn patches(api: &mut Api) {
    let path = "/devices/patched?tenant=acme";
    let settings = json!({ "type": "pump", "labels": ["north"] });
    let device = json!({ "name": "patched", "settings": settings });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &device).0, 201);
    let patch = json!({ "settings": { "labels": ["south"], "type": null } });
    let (status, now) = api.ask(2, "PATCH", path, &patch);
    assert_eq!(
        (status, &now["settings"]["labels"], &now["settings"]["type"]),
        (200, &json!(["south"]), &Value::Null)
    );
    let tag = format!("\"{}\"", now["version"]);
    let same = with(api, 3, "GET", path, &[("if-none-match", &tag)], "");
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    assert_eq!(
        with(api, 1, "PATCH", path, &[("if-match", &tag)], r#"{"enabled":false}"#).status,
        200
    );
    let late = with(api, 2, "PATCH", path, &[("if-match", &tag)], r#"{"enabled":true}"#);
    assert_eq!((late.status, &late.json()["code"]), (412, &json!("version-mismatch")));
    assert_eq!(with(api, 3, "GET", path, &[("if-none-match", &tag)], "").status, 200);
    assert_eq!(with(api, 1, "PATCH", path, &[], "null").status, 400);
    for wrong in [json!({ "version": 7 }), json!({ "settings": { "typ": "x" } }), json!([1])] {
        assert_eq!(problem(api.ask(1, "PATCH", path, &wrong)).0, 400, "{wrong}");
    }
    let (status, tenant) =
        api.ask(2, "PATCH", "/tenants/acme", &json!({ "aliases": ["fostrom:F1"] }));
    assert_eq!((status, &tenant["aliases"]), (200, &json!(["fostrom:F1"])));
}

/// Results of an import, in order.
fn import(api: &Api, node: u64, query: &str, lines: &str) -> Vec<Value> {
    let answer =
        with(api, node, "POST", &format!("/devices/import?tenant=acme{query}"), &[], lines);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn results(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["result"].as_str().unwrap()).collect()
}

fn imports(api: &mut Api) {
    let given = "0123456789abcdef0123456789abcdef";
    let long = "x".repeat(70_000);
    let lines = format!(
        "{}\n\n{}\nno json\n{}\n{}\n{}\n{}",
        json!({ "name": "in-1", "settings": { "labels": ["in"] }, "credentials": [{ "secret": given }] }),
        json!({ "name": "in-2", "credentials": [{ "generate": "fostrom" }] }),
        json!({ "name": "in-3", "settings": { "type": long } }),
        json!({ "name": "in-4", "credentials": [{ "secret": "weak" }] }),
        json!({ "name": "in-5", "tenant": "other" }),
        json!({ "name": "in-6" }),
    );
    let first = import(api, 1, "", &lines);
    let expected = ["created", "created", "failed", "failed", "failed", "failed", "created"];
    assert_eq!(results(&first), expected, "{first:?}");
    let numbers: Vec<_> = first.iter().map(|result| result["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8]);
    let codes: Vec<_> = first[2..6].iter().map(|result| result["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["malformed", "too-large", "weak-secret", "malformed"]);
    let secret = first[1]["secrets"][0].as_str().unwrap();
    assert!(secret.starts_with("FOS-"));
    let again = import(api, 2, "", &lines);
    let expected = ["unchanged", "unchanged", "failed", "failed", "failed", "failed", "unchanged"];
    assert_eq!(results(&again), expected, "{again:?}");
    assert!(again[1].get("secrets").is_none());
    let changed = json!({ "name": "in-1", "enabled": false, "credentials": [{ "secret": given }] })
        .to_string();
    let refused = import(api, 3, "", &changed);
    assert_eq!((results(&refused), &refused[0]["code"]), (vec!["failed"], &json!("exists")));
    assert_eq!(results(&import(api, 3, "&update=true", &changed)), ["updated"]);
    let (_, device) = api.ask(1, "GET", "/devices/in-1?tenant=acme", &Value::Null);
    assert_eq!(
        (&device["enabled"], device["credentials"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    assert_eq!(
        problem(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "import" }))).0,
        400
    );
}

fn exports(api: &mut Api) {
    let answer = with(api, 2, "GET", "/devices/export?tenant=acme", &[], "");
    let mut lines: Vec<_> = answer.body.lines().collect();
    let total: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    assert_eq!(total["devices"], lines.len());
    assert!(lines.len() > 5 && !answer.body.contains("verifier") && !answer.body.contains('~'));
    let again = import(api, 3, "", &lines.join("\n"));
    assert!(results(&again).iter().all(|result| *result == "unchanged"), "{again:?}");
}

fn moorline(api: &Api, node: u64, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
    command.args(arguments).env("MOORLINE_TOKEN", &api.token).env("MOORLINE_TENANT", "acme");
    command.env("MOORLINE_ADMIN", api.cluster.node(node).admin.to_string()).output().unwrap()
}

fn imports_outlive_a_node(api: &mut Api) {
    const DEVICES: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("devices.ndjson");
    let mut text = String::new();
    for number in 0..DEVICES {
        writeln!(
            text,
            "{}",
            json!({ "name": format!("many-{number:06}"), "settings": { "labels": ["many"] } })
        )
        .unwrap();
    }
    fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    let first = std::thread::scope(|scope| {
        let admin = api.cluster.node(1).admin.to_string();
        let (token, path) = (api.token.clone(), path.clone());
        let import = scope.spawn(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
            command.args(["device", "import", &path]).env("MOORLINE_TOKEN", token);
            command.env("MOORLINE_TENANT", "acme").env("MOORLINE_ADMIN", admin).output().unwrap()
        });
        until_true("some are imported", SOON, || {
            let path = "/devices/many-000500?tenant=acme";
            api.ask(1, "GET", path, &Value::Null).0 == 200
        });
        // The node that is asked, so that the connection breaks too.
        api.cluster.node_mut(1).kill();
        api.cluster.node_mut(1).start_ready();
        import.join().unwrap()
    });
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(first.status.success(), "{said}");
    let again = moorline(api, 2, &["device", "import", &path]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains(&format!("0 created, 0 updated, {DEVICES} unchanged, 0 failed")),
        "{said}"
    );
    let out = dir.path().join("export.ndjson");
    let exported = moorline(api, 3, &["device", "export", "--output", out.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let exported = fs::read_to_string(out).unwrap();
    assert_eq!(exported.lines().filter(|line| line.contains("\"many-")).count(), DEVICES);
}

fn broadcasts(api: &mut Api) {
    let lines: Vec<_> = (0..40)
        .map(|number| {
            json!({ "name": format!("cast-{number}"), "settings": { "labels": ["cast"] } })
                .to_string()
        })
        .collect();
    import(api, 1, "", &lines.join("\n"));
    let id = "0193e7a0-0000-7000-8000-000000000001";
    let body = json!({ "selector": { "label": "cast" }, "mail": { "name": "update", "payload": 7, "id": id } });
    let cast = |node: u64, body: &Value| -> Vec<Value> {
        let answer = with(api, node, "POST", "/mail?tenant=acme", &[], &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = cast(1, &body);
    let total = first.last().unwrap();
    assert_eq!(
        (&total["sent"], &total["complete"], &total["id"]),
        (&json!(40), &json!(true), &json!(id))
    );
    let again = cast(2, &body);
    assert_eq!(
        (&again.last().unwrap()["sent"], &again.last().unwrap()["repeats"]),
        (&json!(0), &json!(40))
    );
    let (_, waiting) = api.ask(3, "GET", "/devices/cast-7/mailbox?tenant=acme", &Value::Null);
    assert_eq!(waiting["mails"].as_array().unwrap().len(), 1);
    let mine = first.iter().find(|result| result["device"] == "cast-7").unwrap();
    assert_eq!(waiting["mails"][0]["id"], mine["mail"]);
    // The one at the front can be settled for the device, and no other.
    let settle =
        format!("/devices/cast-7/mailbox/{}/settle?tenant=acme", mine["mail"].as_str().unwrap());
    assert_eq!(api.ask(1, "POST", &settle, &json!({ "op": "ack" })).0, 200);
    let none = format!("/devices/cast-7/mailbox/{id}/settle?tenant=acme");
    assert_eq!(
        problem(api.ask(1, "POST", &none, &json!({ "op": "ack" }))),
        (409, "not-next-mail".to_owned())
    );
    let cast = moorline(api, 2, &["mail", "broadcast", "--label", "cast", "reboot"]);
    assert!(cast.status.success(), "{}", String::from_utf8_lossy(&cast.stderr));
}

fn exit_codes(api: &mut Api) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong");
    fs::write(&file, "{\"name\": \"~\"}\n").unwrap();
    let nowhere = ["device", "list", "--admin", "127.0.0.1:1"];
    for (arguments, code) in [
        (&["device", "show", "in-6", "--json"][..], 0),
        (&["device", "import", file.to_str().unwrap()], 1),
        (&["device", "frobnicate"], 2),
        (&["device", "show", "nobody"], 3),
        (&["device", "create", "in-6"], 4),
        (&nowhere, 5),
        (&["device", "disable", "in-6"], 0),
        (&["device", "update", "in-6", "{\"settings\": {\"type\": \"x\"}}"], 0),
        (&["device", "delete", "in-6", "--yes"], 0),
        (&["tenant", "show", "acme"], 0),
    ] {
        let output = moorline(api, 1, arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if code == 0 {
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(shown.is_empty() || serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");
        }
    }
}
