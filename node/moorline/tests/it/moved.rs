//! Fleets of other platforms are imported by what those platforms' APIs say of them, and connect with what they have.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        packet::{Connect, Version},
        scenarios,
    },
    thingsboard, watson,
};

const TOKEN: &str = "A1B2C3D4E5F6G7H8I9J0";
const CHANGED: &str = "K1B2C3D4E5F6G7H8I9J0";

#[test]
fn fleets_move_in() {
    let mut api = Api::start();
    for (name, aliases, settings) in [
        // Who shows a login without a tenant's name is of the tenant that has all of them.
        (
            "plant",
            "thingsboard:plant,host:*",
            json!({ "plaintext": true, "chosen-passwords": true }),
        ),
        ("strict", "thingsboard:strict", json!({ "plaintext": true })),
        ("acme", "watson:abc123", json!({ "plaintext": true })),
        ("yard", "losant:5f0c9a1b2c3d4e5f60718293", json!({ "plaintext": true })),
    ] {
        let aliases: Vec<_> = aliases.split(',').collect();
        let tenant = json!({ "name": name, "aliases": aliases, "settings": settings });
        let made = api.ask(1, "POST", "/tenants", &tenant);
        assert_eq!(made.0, 201, "{}", made.1);
    }
    scenarios(
        &mut api,
        &[
            ("devices of ThingsBoard come with their credentials", plant),
            ("devices of Watson come with their tokens", acme),
            ("devices of Losant come with what is known of them", yard),
            ("a credential is one device's, and is as its tenant wants", refusals),
        ],
    );
}

pub(crate) fn import(
    api: &Api,
    node: u64,
    platform: &str,
    tenant: &str,
    more: &[&str],
    export: &[Value],
) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export.json");
    let text: String = export.iter().map(Value::to_string).collect();
    fs::write(&file, text).unwrap();
    run(api, node, platform, tenant, more, &file)
}

fn run(api: &Api, node: u64, platform: &str, tenant: &str, more: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
    command.args(["import", platform]).arg(file).args(["--tenant", tenant]).args(more);
    command.env("MOORLINE_TOKEN", &api.token);
    command.env("MOORLINE_ADMIN", api.cluster.node(node).admin.to_string()).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn imported(output: &Output, summary: &str) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    assert!(said(output).starts_with(summary), "{}", said(output));
}

fn id(number: u8) -> Value {
    json!({ "entityType": "DEVICE", "id": format!("11111111-0000-11f0-8000-{number:012}") })
}

fn devices() -> Value {
    let device = |number, name: &str, gateway: bool| {
        json!({ "id": id(number), "name": name, "type": "thermostat", "label": "north",
                "additionalInfo": { "gateway": gateway } })
    };
    let data = [device(1, "Dev A", false), device(2, "Dev B", false), device(3, "Hub", true)];
    json!({ "data": data, "totalPages": 1, "totalElements": 3, "hasNext": false })
}

fn credentials(number: u8, kind: &str, shown: &str, value: &Value) -> Value {
    json!({ "deviceId": id(number), "credentialsType": kind, "credentialsId": shown, "credentialsValue": value })
}

fn basic(password: &str) -> Value {
    json!(json!({ "clientId": "c-7", "userName": "bob", "password": password }).to_string())
}

fn login(password: &str) -> Connect {
    let connect = Connect::clean(Version::V5, "c-7");
    Connect { login: Some(("bob".to_owned(), password.to_owned())), ..connect }
}

fn plant(api: &mut Api) {
    let of = |token: &str, password: &str| {
        [
            devices(),
            credentials(1, "ACCESS_TOKEN", token, &Value::Null),
            credentials(2, "MQTT_BASIC", "hash", &basic(password)),
            credentials(3, "ACCESS_TOKEN", "H1B2C3D4E5F6G7H8I9J0", &Value::Null),
        ]
    };
    let first = of(TOKEN, "chosen");
    imported(
        &import(api, 1, "thingsboard", "plant", &[], &first),
        "3 created, 0 updated, 0 unchanged, 0 failed",
    );
    // The same again changes nothing, whoever is asked: a chosen password is known to be the same.
    imported(
        &import(api, 2, "thingsboard", "plant", &[], &first),
        "0 created, 0 updated, 3 unchanged, 0 failed",
    );

    let (mut device, _) = thingsboard::device(Version::V4, TOKEN).to(api.cluster.mqtt(3));
    device.publish_acked("v1/devices/me/telemetry", br#"{"t":1}"#);
    let (mut device, _) = login("chosen").to(api.cluster.mqtt(2));
    device.publish_acked("v1/devices/me/telemetry", br#"{"t":2}"#);
    let (mut hub, _) =
        thingsboard::device(Version::V4, "H1B2C3D4E5F6G7H8I9J0").to(api.cluster.mqtt(1));
    hub.publish_acked("v1/gateway/telemetry", br#"{"Child":[{"t":3}]}"#);
    for (name, value) in [("Dev%20A", 1), ("Dev%20B", 2), ("Child", 3)] {
        assert_eq!(thingsboard::latest(api, 2, name)["t"]["value"], value, "{name}");
    }
    let (_, shown) = api.ask(1, "GET", "/devices/Dev%20A?tenant=plant", &Value::Null);
    assert_eq!(shown["settings"]["type"], "thermostat");
    assert_eq!(shown["settings"]["labels"], json!(["north"]));

    // What changed there since is taken when it is asked for, and the old password counts no more.
    let second = of(TOKEN, "changed");
    let refused = import(api, 3, "thingsboard", "plant", &[], &second);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("line 2: exists"), "{}", said(&refused));
    imported(
        &import(api, 3, "thingsboard", "plant", &["--update"], &second),
        "0 created, 1 updated, 2 unchanged, 0 failed",
    );
    drop(login("changed").to(api.cluster.mqtt(1)));
    assert!(login("chosen").attempt(api.cluster.mqtt(1)).is_err());
}

fn acme(api: &mut Api) {
    let page = json!({ "results": [
        { "clientId": "d:abc123:pump:p1", "typeId": "pump", "deviceId": "p1", "authToken": "Zk3vQ9xLw2RtY7uPb5" },
        { "clientId": "d:abc123:pump:p2", "typeId": "pump", "deviceId": "p2" },
    ], "bookmark": "", "meta": { "total_rows": 2 } });
    let output = import(api, 1, "watson", "acme", &[], &[page]);
    // Without a token a device moves, but not whole.
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("pump:p2: without its authToken"), "{}", said(&output));
    assert!(said(&output).contains("2 created, 0 updated"), "{}", said(&output));
    let device = watson::device(Version::V4, "pump", "p1", "Zk3vQ9xLw2RtY7uPb5");
    let (mut device, _) = device.to(api.cluster.mqtt(2));
    device.publish_acked("iot-2/evt/status/fmt/json", br#"{"d":1}"#);
}

fn yard(api: &mut Api) {
    let id = "aaaaaaaaaaaaaaaaaaaaaaaa";
    let attributes = json!([{ "name": "t", "dataType": "number" }]);
    let device = json!({ "deviceId": id, "name": "hub", "deviceClass": "gateway", "attributes": attributes });
    let page = json!({ "items": [device], "count": 1 });
    let keys = json!({ "items": [{ "id": id, "key": "1f0ac3d4" }] });
    let output = import(api, 1, "losant", "yard", &[], &[page, keys]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("1f0ac3d4: an access key"), "{}", said(&output));
    let (_, shown) = api.ask(2, "GET", &format!("/devices/{id}?tenant=yard"), &Value::Null);
    let settings = &shown["settings"];
    let kept = (&settings["class"], &settings["metadata"]["losant"]["attributes"]["t"]);
    assert_eq!(kept, (&json!("gateway"), &json!("number")), "{settings}");
}

fn refusals(api: &mut Api) {
    let device = json!({ "id": id(1), "name": "Thief", "type": "t" });
    let taken = [device.clone(), credentials(1, "ACCESS_TOKEN", TOKEN, &Value::Null)];
    let chosen = [device.clone(), credentials(1, "MQTT_BASIC", "", &basic("chosen"))];
    let short = [device, credentials(1, "ACCESS_TOKEN", "short", &Value::Null)];
    let wrong = [json!({ "name": "Thief" }), json!(7)];
    for (export, why) in [
        (&taken, "line 1: credential-taken"),
        (&chosen, "line 1: forbidden"),
        (&short, "line 1: malformed: a token has 20 to 128"),
        (&wrong, "value 2: neither a device"),
    ] {
        let output = import(api, 1, "thingsboard", "strict", &[], export);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why), "{why}: {}", said(&output));
    }
    // Nothing is imported, and what would be is printed.
    let export = [devices(), credentials(1, "ACCESS_TOKEN", CHANGED, &Value::Null)];
    let output = import(api, 1, "thingsboard", "strict", &["--print"], &export);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed.lines().count(), 3);
    assert!(printed.contains(CHANGED));
    let (_, shown) = api.ask(2, "GET", "/devices?tenant=strict", &Value::Null);
    let names: Vec<_> =
        shown["devices"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["Thief"], "of the last export before, without credentials");
}
