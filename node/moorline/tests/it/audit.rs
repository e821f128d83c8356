//! The audit: every change through the API has one record, on all nodes, also when its leader died, and none has a secret.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    http,
    node::MOORLINE,
    scenarios,
    wait::{SOON, until},
};

#[test]
fn the_audit_has_every_change_once() {
    let mut api = Api::start();
    for name in ["acme", "other"] {
        assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": name })).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("each change has one record, and what was refused has none", once_each),
            ("a tenant's operator sees its tenant alone", of_a_tenant),
            ("no secret is in it", no_secret),
            ("the command line prints it", command_line),
            ("a change is there once when its leader died", leader_dies),
        ],
    );
}

/// All records, page by page.
#[track_caller]
fn records(api: &Api, node: u64, token: &str, query: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/audit?limit=7&{query}{after}");
        let (status, page) = api.ask_as(token, node, "GET", &path, &Value::Null);
        assert_eq!(status, 200, "{page}");
        all.extend(page["records"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

/// What was done to an object, in order.
fn story(records: &[Value], object: &str) -> Vec<String> {
    let of_object = records.iter().filter(|record| record["object"] == object);
    of_object.map(|record| record["action"].as_str().unwrap().to_owned()).collect()
}

fn once_each(api: &mut Api) {
    let (of, null) = ("?tenant=acme", Value::Null);
    assert_eq!(api.ask(1, "POST", &format!("/devices{of}"), &json!({ "name": "pump" })).0, 201);
    assert_eq!(api.ask(2, "POST", &format!("/devices{of}"), &json!({ "name": "pump" })).0, 409);
    assert_eq!(api.ask(3, "PUT", &format!("/devices/pump{of}"), &json!({})).0, 200);
    assert_eq!(api.ask(3, "POST", &format!("/devices/pump/credentials{of}"), &json!({})).0, 201);
    let mailbox = format!("/devices/pump/mailbox{of}");
    let mail = text(&api.ask(1, "POST", &mailbox, &json!({ "name": "a" })), 201, "id");
    let cancel = format!("/devices/pump/mailbox/{mail}{of}");
    assert_eq!(api.ask(2, "DELETE", &cancel, &null).0, 204);
    assert_eq!(api.ask(2, "DELETE", &cancel, &null).0, 204);
    assert_eq!(api.ask(1, "POST", &mailbox, &json!({ "name": "b" })).0, 201);
    assert_eq!(api.ask(2, "DELETE", &mailbox, &null).0, 200);
    assert_eq!(api.ask(1, "DELETE", &format!("/devices/pump{of}"), &null).0, 204);
    assert_eq!(api.ask(1, "DELETE", &format!("/devices/pump{of}"), &null).0, 404);
    let all = records(api, 2, &api.token, "");
    #[rustfmt::skip]
    assert_eq!(story(&all, "pump"), [
        "device.put", "device.put", "device.put", "mail.cancel", "mail.purge", "device.delete",
    ]);
    assert_eq!(story(&all, "acme"), ["tenant.put"]);
    assert_eq!(story(&all, "~root"), ["device.put"]);
    let of_pump: Vec<_> = all.iter().filter(|record| record["object"] == "pump").collect();
    assert_eq!((&of_pump[0]["actor"], &of_pump[0]["tenant"]), (&json!("0/root"), &json!("acme")));
    assert_eq!(of_pump[0]["request"], "POST /api/v1/devices");
    assert_eq!(of_pump[0]["before"], Value::Null);
    assert_eq!((&of_pump[1]["before"], &of_pump[1]["node"]), (&of_pump[0]["after"], &json!(3)));
    assert_eq!(of_pump[2]["request"], "POST /api/v1/devices/{device}/credentials");
    assert_eq!(of_pump[3]["mail"], json!(mail));
    assert_eq!((&of_pump[5]["before"], &of_pump[5]["after"]), (&of_pump[2]["after"], &Value::Null));
    assert!(of_pump[0]["address"].as_str().unwrap().starts_with("127."), "{}", of_pump[0]);
    // The request's number is the client's own, and said in the answer.
    let id = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("x-request-id", id)];
    let to = api.cluster.node(2).admin;
    let body = json!({ "name": "named" }).to_string();
    let answer = http::api("POST", to, "/api/v1/devices?tenant=acme", &headers, &body);
    assert!(answer.status == 201 && answer.head.contains(id), "{}", answer.head);
    let all = records(api, 1, &api.token, "tenant=acme");
    assert_eq!(all.iter().filter(|record| record["request_id"] == id).count(), 1);
}

fn of_a_tenant(api: &mut Api) {
    let token = |name: &str, role: &str| {
        let new = json!({ "name": name, "role": role });
        text(&api.ask(1, "POST", "/tokens?tenant=other", &new), 201, "token")
    };
    let (operator, app) = (token("op", "operator"), token("app", "app"));
    let new = json!({ "name": "own" });
    assert_eq!(api.ask_as(&operator, 2, "POST", "/devices", &new).0, 201);
    let seen = records(api, 3, &operator, "");
    assert!(seen.iter().all(|record| record["tenant"] == "other"), "{seen:?}");
    assert_eq!(story(&seen, "own"), ["device.put"]);
    let own = seen.iter().find(|record| record["object"] == "own").unwrap();
    assert!(own["actor"].as_str().unwrap().ends_with("/op"), "{own}");
    assert_eq!(api.ask_as(&operator, 1, "GET", "/audit?tenant=acme", &Value::Null).0, 404);
    assert_eq!(api.ask_as(&app, 1, "GET", "/audit", &Value::Null).0, 403);
    assert_eq!(api.ask_as("", 1, "GET", "/audit", &Value::Null).0, 401);
    for wrong in ["after=1", "after=x", "limit=0", "more=1"] {
        assert_eq!(api.ask(1, "GET", &format!("/audit?{wrong}"), &Value::Null).0, 400, "{wrong}");
    }
    let page = http::get(api.cluster.node(1).admin, "/metrics").unwrap().body;
    assert!(page.contains("moorline_api_unauthorised_total{status=\"403\"} 1"), "{page}");
}

fn no_secret(api: &mut Api) {
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "safe" })).0, 201);
    let made = api.ask(1, "POST", "/devices/safe/credentials?tenant=acme", &json!({}));
    let secret = text(&made, 201, "secret");
    let all = Value::from(records(api, 1, &api.token, "")).to_string();
    assert!(all.contains("safe") && !all.contains(&secret) && !all.contains(&api.token));
}

fn command_line(api: &mut Api) {
    let run = |more: &[&str]| {
        let mut command = Command::new(MOORLINE);
        command.arg("audit").args(more).stdin(Stdio::null());
        command.env("MOORLINE_ADMIN", api.cluster.node(3).admin.to_string());
        let output = command.env("MOORLINE_TOKEN", &api.token).output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let whole = |bytes| String::from_utf8(bytes).unwrap();
        (whole(output.stdout), whole(output.stderr))
    };
    let (printed, cursor) = run(&["--tenant", "acme"]);
    let last = printed.lines().find(|line| line.contains(" device.put acme named ")).unwrap();
    assert!(last.contains(" 0/root 127."), "{last}");
    let after = cursor.trim().strip_prefix("--after ").unwrap();
    assert_eq!(run(&["--tenant", "acme", "--after", after, "--json"]).0, "", "nothing is new");
    let (all, _) = run(&["--json"]);
    let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    assert_eq!(first["result"], "done");
}

fn leader_dies(api: &mut Api) {
    let mut made = 0;
    for victim in [1, 2, 3] {
        let other = 1 + victim % 3;
        api.cluster.node_mut(victim).kill();
        for _ in 0..6 {
            let new = json!({ "name": format!("far-{made}") });
            let status = until("a leader answers", SOON, || {
                let (status, _) = api.ask(other, "POST", "/devices?tenant=acme", &new);
                // Another try found what an earlier one made.
                (status == 201 || status == 409).then_some(status)
            });
            assert!(status == 201 || status == 409);
            made += 1;
        }
        api.cluster.node_mut(victim).start_ready();
    }
    let mut count: BTreeMap<String, u64> = BTreeMap::new();
    for record in records(api, 2, &api.token, "tenant=acme") {
        *count.entry(record["object"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for number in 0..made {
        assert_eq!(count.get(&format!("far-{number}")), Some(&1), "far-{number}");
    }
    api.cluster.digests_agree();
}
