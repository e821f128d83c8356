//! Watson IoT's gateways and their groups, connects that fail, why connections end, and applications that come and go.

use serde_json::{Value, json};

use crate::{
    harness::{
        http::Answer,
        mqtt::{Client, Heard},
        packet::{Connect, Packet, Version},
        scenarios,
        wait::{SOON, until, until_true},
    },
    watson::{APP_KEY, ORG, Org, device, named},
    watson_http::{event, fetch, post},
    watson_managed::{Plant, ask, get},
};

const GATEWAY: &str = "g:abc123:gw:s1";
const GROUP: &str = "gw_def_res_grp:abc123:gw:s1";
const STANDARD_ROLE: &str = "PD_STANDARD_GW_DEVICE";
const PRIVILEGED_ROLE: &str = "PD_PRIVILEGED_GW_DEVICE";

#[track_caller]
fn make(plant: &Plant, role: &str) {
    let body = json!({ "roles": [{ "roleId": role, "roleStatus": 1 }], "rolesToGroups": {} });
    let put = plant.operate(1, "PUT", &format!("/authorization/devices/{GATEWAY}/roles"), &body);
    assert_eq!(put.status, 200, "{}", put.body);
    assert_eq!(put.json()["rolesToGroups"][role], json!([GROUP]));
}

#[track_caller]
fn regroup(plant: &Plant, how: &str, ids: &[&str]) -> Answer {
    let devices: Vec<Value> =
        ids.iter().map(|id| json!({ "typeId": "sensor", "deviceId": id })).collect();
    plant.operate(2, "PUT", &format!("/bulk/devices/{GROUP}/{how}"), &json!(devices))
}

#[test]
fn gateways_and_who_comes_and_goes() {
    scenarios(
        &mut Plant::start(),
        &[
            ("who was not let in is told and noted", failed_connects),
            ("why a connection ended is said", close_codes),
            ("applications come and go", applications),
            ("a standard gateway speaks for its group", standard),
            ("and hears of its group alone", hears_of_its_group),
            ("and is told for its group alone", manages_its_group),
            ("a gateway whose role changes comes anew", changed),
        ],
    );
}

/// An application that hears what a filter says.
#[track_caller]
fn watch(org: &Org, name: &str, filter: &str) -> Client {
    let (mut app, _) = org.application(Version::V4, name).to(org.at(1));
    assert_eq!(app.subscribe(&[(filter, 0)]), [0]);
    app
}

/// The next news of it.
#[track_caller]
fn news(app: &mut Client) -> (Value, bool) {
    let message = app.message();
    (serde_json::from_slice(&message.payload).unwrap(), message.retain)
}

fn failed_connects(plant: &mut Plant) {
    let org = &plant.org;
    let token = org.register("pump", "f1", "device");
    let mut app = watch(org, "fails", "iot-2/type/pump/id/f1/mon");
    let wrong = |id: &str, node| {
        assert_eq!(device(Version::V4, "pump", id, "wrong-token").reason(org.at(node)), 5);
    };
    wrong("f1", 2);
    let (said, retained) = news(&mut app);
    assert_eq!(
        (&said["Action"], &said["ClientID"], &said["CloseCode"], &said["Protocol"]),
        (&json!("FailedConnect"), &json!("d:abc123:pump:f1"), &json!(180), &json!("mqtt4"))
    );
    assert!(said["Reason"].is_string() && said.get("ConnectTime").is_none(), "{said}");
    assert!(!retained);
    // Over HTTP, too.
    let (to, path) = (org.api.at(3, "http"), event("pump", "f1", "e"));
    assert_eq!(post(to, &path, "use-token-auth:wrong-token", b"{}").status, 403);
    let (said, _) = news(&mut app);
    assert_eq!((&said["Action"], &said["Protocol"]), (&json!("FailedConnect"), &json!("http")));
    // Who is turned away before his secret is looked at is told of, and not kept.
    let willing = device(Version::V4, "pump", "f1", "wrong-token");
    let willing = willing.leaving("iot-2/cmd/go/fmt/json", "{}", 0);
    assert!(willing.attempt(org.at(3)).is_err());
    assert_eq!(news(&mut app).0["CloseCode"], 270);
    // Nobody hears of what there is not, nor of a gateway where there is a device.
    let mut others = watch(org, "others", "iot-2/type/pump/id/+/mon");
    wrong("nobody", 1);
    assert_eq!(named(Version::V4, "g:abc123:pump:f1", "wrong-token").reason(org.at(1)), 5);
    wrong("f1", 1);
    for heard in [&mut others, &mut app] {
        let (said, _) = news(heard);
        assert_eq!(
            (&said["ClientID"], &said["CloseCode"]),
            (&json!("d:abc123:pump:f1"), &json!(180))
        );
    }
    let log = until("three are in the log", SOON, || {
        let log = get(org, 2, "/logs/connection?typeId=pump&deviceId=f1");
        (log.as_array().unwrap().len() == 3).then_some(log)
    });
    let message = log[0]["message"].as_str().unwrap();
    assert!(message.starts_with("d:abc123:pump:f1 was not let in from "), "{log}");
    // What it was does not hide how it stands now.
    let (_pump, _) = device(Version::V4, "pump", "f1", &token).to(org.at(2));
    assert_eq!(news(&mut app).0["Action"], "Connect");
    // An application is told of by its key.
    let mut apps = watch(org, "apps", "iot-2/app/closed/mon");
    let login = Some((APP_KEY.to_owned(), "wrong".to_owned()));
    let closed = Connect { login, ..org.application(Version::V5, "closed") };
    assert_eq!(closed.reason(org.at(1)), 0x86);
    let (said, _) = news(&mut apps);
    assert_eq!((&said["Action"], &said["User"]), (&json!("FailedConnect"), &json!(APP_KEY)));
}

/// What ends a connection.
type End = fn(&mut Client);

fn close_codes(plant: &mut Plant) {
    let org = &plant.org;
    let token = org.register("pump", "k1", "device");
    let mut app = watch(org, "codes", "iot-2/type/pump/id/k1/mon");
    let silent = Connect { keep_alive_s: 1, ..device(Version::V4, "pump", "k1", &token) };
    let ends: [(End, u64); 4] = [
        (|pump| assert_eq!(pump.hear(SOON), Heard::Closed, "silent"), 160),
        (|pump| pump.send(&[0xf1, 0]).unwrap(), 105),
        (|pump| assert!(pump.publish("iot-2/cmd/reset/fmt/json", b"{}") > 0), 276),
        (|pump| assert!(pump.publish("iot-2/evt/e/fmt/bin", &vec![0; 131_073]) > 0), 287),
    ];
    for (end, code) in ends {
        let connect =
            if code == 160 { silent.clone() } else { device(Version::V4, "pump", "k1", &token) };
        let (mut pump, _) = connect.to(org.at(2));
        assert_eq!(news(&mut app).0["Action"], "Connect");
        end(&mut pump);
        let (said, _) = news(&mut app);
        assert_eq!((&said["Action"], &said["CloseCode"]), (&json!("Disconnect"), &json!(code)));
    }
    // Another connection takes it over, and MQTT 5 hears so.
    let (mut old, _) = device(Version::V5, "pump", "k1", &token).to(org.at(2));
    assert_eq!(news(&mut app).0["Action"], "Connect");
    let (_new, _) = device(Version::V5, "pump", "k1", &token).to(org.at(2));
    assert_eq!(old.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8e }));
    let mut codes: Vec<Value> = (0..2).map(|_| news(&mut app).0["CloseCode"].clone()).collect();
    codes.sort_by_key(Value::is_null);
    assert_eq!(codes, [json!(288), Value::Null]);
    // An administrator takes it away.
    assert_eq!(org.api.ask(1, "DELETE", "/devices/pump:k1?tenant=acme", &Value::Null).0, 204);
    assert_eq!(news(&mut app).0["CloseCode"], 94);
}

fn applications(plant: &mut Plant) {
    let org = &plant.org;
    let mut app = watch(org, "watcher", "iot-2/app/dash/mon");
    let path = "/clientconnectionstates/a:abc123:dash";
    assert_eq!(ask(org, 1, "GET", path, &Value::Null).status, 404, "it never came");
    let (dash, _) = org.application(Version::V4, "dash").to(org.at(2));
    let (said, _) = news(&mut app);
    assert_eq!((&said["Action"], &said["User"]), (&json!("Connect"), &json!(APP_KEY)));
    // Who comes later hears that it is there.
    assert_eq!(news(&mut watch(org, "late", "iot-2/app/dash/mon")).0["Action"], "Connect");
    let state = until("its state is known", SOON, || {
        let answer = ask(org, 3, "GET", path, &Value::Null);
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(
        (&state["connectionStatus"], &state["clientType"]),
        (&json!("connected"), &json!("Application"))
    );
    assert!(state["connectedDateTime"].is_string(), "{state}");
    let list = |filter: &str| {
        let page = get(org, 1, &format!("/clientconnectionstates?_limit=100{filter}"));
        let mut ids = page["results"].as_array().unwrap().iter();
        ids.any(|one| one["id"] == "a:abc123:dash")
    };
    assert!(list("") && list("&connectionStatus=connected"));
    assert!(!list("&connectionStatus=disconnected") && !list("&deviceType=pump"));
    dash.disconnect();
    let (said, retained) = news(&mut app);
    assert_eq!((&said["Action"], retained), (&json!("Disconnect"), false));
    // What was retained is cleared: whoever hears of that hears nothing.
    let cleared = app.message();
    assert!(cleared.payload.is_empty());
    watch(org, "later", "iot-2/app/dash/mon").hears_nothing();
    until_true("it is known to have left", SOON, || {
        get(org, 2, path)["connectionStatus"] == "disconnected"
    });
    assert!(list("&connectionStatus=disconnected"));
    // It comes again, to another node.
    let (_dash, _) = org.application(Version::V4, "dash").to(org.at(3));
    until_true("it is there again", SOON, || get(org, 1, path)["connectionStatus"] == "connected");
}

/// A standard gateway with one device in its group, and one that is not.
fn standard(plant: &mut Plant) {
    let token = plant.org.register("gw", "s1", "gateway");
    plant.org.register("sensor", "in", "device");
    plant.org.register("sensor", "out", "device");
    let roles = format!("/authorization/devices/{GATEWAY}/roles");
    assert_eq!(get(&plant.org, 1, &roles)["roles"][0]["roleId"], PRIVILEGED_ROLE, "at first");
    make(plant, STANDARD_ROLE);
    let org = &plant.org;
    assert_eq!(get(org, 3, &roles)["roles"][0]["roleId"], STANDARD_ROLE);
    assert_eq!(regroup(plant, "add", &["in"]).status, 200);
    let part = regroup(plant, "add", &["in", "nobody"]);
    assert_eq!(part.status, 202, "{}", part.body);
    assert_eq!(part.json()[1]["success"], false);
    let members = get(org, 2, &format!("/bulk/devices/{GROUP}"));
    let ids: Vec<&Value> =
        members["results"].as_array().unwrap().iter().map(|one| &one["deviceId"]).collect();
    assert_eq!(ids, [&json!("in")]);
    assert_eq!(members["results"][0]["groups"], json!([GROUP]));
    assert_eq!(get(org, 1, &format!("/groups/{GROUP}"))["id"], GROUP);
    assert_eq!(
        ask(org, 1, "GET", "/groups/gw_def_res_grp:abc123:gw:none", &Value::Null).status,
        404
    );
    let of = get(org, 1, "/authorization/devices/d:abc123:sensor:in");
    assert_eq!(of["results"][0]["resourceGroups"], json!([GROUP]));

    let (mut gateway, _) = named(Version::V4, GATEWAY, &token).to(org.at(2));
    assert_eq!(gateway.subscribe(&[("iot-2/type/gw/id/s1/notify", 0)]), [0]);
    let (mut app, _) = org.application(Version::V4, "group").to(org.at(3));
    assert_eq!(app.subscribe(&[("iot-2/type/+/id/+/evt/status/fmt/+", 1)]), [1]);
    for (id, arrives) in [("in", true), ("out", false), ("new", false)] {
        // Acknowledged in any case.
        gateway.publish_acked(&format!("iot-2/type/sensor/id/{id}/evt/status/fmt/json"), b"{}");
        if arrives {
            let heard = app.message();
            assert_eq!(heard.topic, format!("iot-2/type/sensor/id/{id}/evt/status/fmt/json"));
            app.ack(&heard);
            continue;
        }
        let (notice, _) = news(&mut gateway);
        assert_eq!(
            (&notice["Request"], &notice["Id"], &notice["RC"], &notice["Client"]),
            (&json!("Publish"), &json!(id), &json!(180), &json!(GATEWAY))
        );
    }
    // Of itself it may speak, and it brings no devices along.
    gateway.publish_acked("iot-2/type/gw/id/s1/evt/status/fmt/json", b"{}");
    assert_eq!(app.message().topic, "iot-2/type/gw/id/s1/evt/status/fmt/json");
    app.hears_nothing();
    let new = org.api.ask(1, "GET", "/devices/sensor:new?tenant=acme", &Value::Null);
    assert_eq!(new.0, 404, "{}", new.1);
    // A will for somebody else is none.
    let leaving = named(Version::V5, GATEWAY, &token);
    let leaving = leaving.leaving("iot-2/type/sensor/id/out/evt/status/fmt/json", "{}", 0);
    assert_eq!(leaving.reason(org.at(1)), 0x87);
    // The same over HTTP.
    let (to, user) = (org.api.at(1, "http"), format!("g/{ORG}/gw/s1:{token}"));
    for (path, status) in [
        (event("sensor", "in", "status"), 200),
        (event("sensor", "out", "status"), 403),
        (fetch("sensor", "in", "+"), 204),
        (fetch("sensor", "out", "+"), 403),
        (fetch("+", "+", "+"), 403),
    ] {
        let body: &[u8] = if status == 204 { b"" } else { b"{}" };
        assert_eq!(post(to, &path, &user, body).status, status, "{path}");
    }
}

fn hears_of_its_group(plant: &mut Plant) {
    let connect = Connect { clean: false, ..named(Version::V4, GATEWAY, &token(plant, "gw:s1")) };
    let (mut gateway, _) = connect.to(plant.org.at(2));
    assert_eq!(gateway.subscribe(&[("iot-2/type/gw/id/s1/notify", 0)]), [0]);
    for (filter, granted) in [
        ("iot-2/type/sensor/id/in/cmd/+/fmt/+", 1),
        ("iot-2/type/gw/id/s1/cmd/+/fmt/+", 1),
        ("iotdm-1/#", 1),
        ("iot-2/type/sensor/id/out/cmd/+/fmt/+", 0x80),
        ("iot-2/type/+/id/+/cmd/+/fmt/+", 0x80),
        ("iot-2/type/sensor/id/+/mon", 0x80),
    ] {
        assert_eq!(gateway.subscribe(&[(filter, 1)]), [granted], "{filter}");
        if granted == 0x80 {
            let (notice, _) = news(&mut gateway);
            assert_eq!((&notice["Request"], &notice["RC"]), (&json!("Subscribe"), &json!(180)));
        }
    }
    let (mut app, _) = plant.org.application(Version::V4, "orders").to(plant.org.at(1));
    for id in ["out", "in"] {
        app.publish_acked(&format!("iot-2/type/sensor/id/{id}/cmd/go/fmt/json"), b"{}");
    }
    let heard = gateway.message();
    assert_eq!(heard.topic, "iot-2/type/sensor/id/in/cmd/go/fmt/json");
    gateway.ack(&heard);
    // What is taken out of the group is not its own any more: it comes anew, and what it has asked for before is gone.
    assert_eq!(regroup(plant, "remove", &["in"]).status, 200);
    assert_eq!(gateway.hear(SOON), Heard::Closed, "it comes anew");
    let (mut gateway, present) = connect.to(plant.org.at(3));
    assert!(!present, "its session is another one");
    assert_eq!(gateway.subscribe(&[("iot-2/type/sensor/id/in/cmd/+/fmt/+", 1)]), [0x80]);
    app.publish_acked("iot-2/type/sensor/id/in/cmd/go/fmt/json", b"{}");
    gateway.hears_nothing();
}

/// Who was managed through a gateway hears for itself once that may not speak for it.
fn manages_its_group(plant: &mut Plant) {
    let token_of = token(plant, "gw:s1");
    let connect = || named(Version::V4, GATEWAY, &token_of);
    assert_eq!(regroup(plant, "add", &["in"]).status, 200);
    make(plant, PRIVILEGED_ROLE);
    let (mut gateway, _) = connect().to(plant.org.at(1));
    for id in ["in", "out"] {
        let manage = json!({ "d": { "supports": { "deviceActions": true } }, "reqId": "mine" });
        let topic = format!("iotdevice-1/type/sensor/id/{id}/mgmt/manage");
        gateway.publish_acked(&topic, manage.to_string().as_bytes());
    }
    make(plant, STANDARD_ROLE);
    assert_eq!(gateway.hear(SOON), Heard::Closed, "it comes anew");
    let (mut gateway, _) = connect().to(plant.org.at(2));
    assert_eq!(gateway.subscribe(&[("iotdm-1/#", 1)]), [1]);
    let of = |id: &str| device(Version::V4, "sensor", id, &token(plant, &format!("sensor:{id}")));
    let (mut out, _) = of("out").to(plant.org.at(3));
    assert_eq!(out.subscribe(&[("iotdm-1/#", 1)]), [1]);
    let devices = ["out", "in"].map(|id| json!({ "typeId": "sensor", "deviceId": id }));
    let body = json!({ "action": "device/reboot", "devices": devices });
    let made = ask(&plant.org, 1, "POST", "/mgmt/requests", &body);
    assert_eq!(made.status, 202, "{}", made.body);
    assert_eq!(out.message().topic, "iotdm-1/mgmt/initiate/device/reboot");
    let heard = gateway.message();
    assert_eq!(heard.topic, "iotdm-1/type/sensor/id/in/mgmt/initiate/device/reboot");
    gateway.ack(&heard);
    gateway.hears_nothing();
    // The same of one that leaves the group.
    assert_eq!(regroup(plant, "remove", &["in"]).status, 200);
    assert_eq!(gateway.hear(SOON), Heard::Closed, "it comes anew");
    let (mut gateway, _) = connect().to(plant.org.at(2));
    assert_eq!(gateway.subscribe(&[("iotdm-1/#", 1)]), [1]);
    let (mut inside, _) = of("in").to(plant.org.at(3));
    assert_eq!(inside.subscribe(&[("iotdm-1/#", 1)]), [1]);
    let (path, place) =
        ("/device/types/sensor/devices/in/location", json!({ "longitude": 1, "latitude": 2 }));
    assert_eq!(ask(&plant.org, 1, "PUT", path, &place).status, 200);
    assert_eq!(inside.message().topic, "iotdm-1/device/update");
    gateway.hears_nothing();
}

fn changed(plant: &mut Plant) {
    let token = token(plant, "gw:s1");
    let (mut gateway, _) = named(Version::V4, GATEWAY, &token).to(plant.org.at(3));
    make(plant, PRIVILEGED_ROLE);
    assert_eq!(gateway.hear(SOON), Heard::Closed, "it comes anew");
    let (mut gateway, _) = named(Version::V4, GATEWAY, &token).to(plant.org.at(3));
    assert_eq!(gateway.subscribe(&[("iot-2/type/+/id/+/cmd/+/fmt/+", 1)]), [1]);
    // It registers whom it names, by what it asks for, too.
    assert_eq!(gateway.subscribe(&[("iot-2/type/sensor/id/asked/cmd/+/fmt/+", 1)]), [1]);
    let asked = plant.org.api.ask(1, "GET", "/devices/sensor:asked?tenant=acme", &Value::Null);
    assert_eq!(asked.0, 200, "{}", asked.1);
    gateway.publish_acked("iot-2/type/sensor/id/brought/evt/status/fmt/json", b"{}");
    // What it brings along is in its group.
    let members = get(&plant.org, 1, &format!("/bulk/devices/{GROUP}/ids"));
    let mut ids: Vec<&Value> =
        members["results"].as_array().unwrap().iter().map(|one| &one["deviceId"]).collect();
    ids.sort_by_key(|id| id.to_string());
    assert_eq!(ids, [&json!("asked"), &json!("brought")]);
}

/// A further token of a gateway or a device.
#[track_caller]
fn token(plant: &Plant, name: &str) -> String {
    let path = format!("/devices/{name}/credentials?tenant=acme");
    let made = plant.org.api.ask(1, "POST", &path, &json!({}));
    made.1["secret"].as_str().expect("a token").to_owned()
}
