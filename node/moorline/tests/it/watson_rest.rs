//! The management API of Watson IoT: types, devices, last events and who is connected, by whichever node.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    harness::{
        http::{self, Answer},
        packet::Version,
        scenarios,
        wait::{SOON, until, until_true},
    },
    watson::{APP_KEY, LOOK_KEY, device},
    watson_managed::{OPERATOR, Plant, ask, ask_as, get},
};

#[test]
fn an_organisation_is_managed() {
    scenarios(
        &mut Plant::start(),
        &[
            ("a key reaches what it is for, in its own organisation", who_may),
            ("types are kept, and devices begin as they say", types),
            ("devices are made, changed, found and removed", devices),
            ("many devices at once, each for itself", bulk),
            ("the last events are there for who wants them", last_events),
            ("who is connected is known", states),
            ("who asks too often waits, and then hears so", too_often),
            ("what was answered survives a node, and goes with its device", nothing_of_the_dead),
        ],
    );
}

#[track_caller]
fn is(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.body);
}

fn who_may(plant: &mut Plant) {
    let org = &plant.org;
    let types = "/device/types";
    is(&ask(org, 1, "GET", types, &Value::Null), 200);
    let new = json!({ "id": "t" });
    let refused = ask(org, 1, "POST", types, &new);
    is(&refused, 403);
    assert_eq!(refused.json()["exception"]["id"], "CUDML0003E");
    let look = |method: &str, path: &str| {
        ask_as(org, 2, (LOOK_KEY, &org.look), (method, path, &json!({})))
    };
    is(&look("GET", types), 200);
    is(&look("POST", "/mgmt/requests"), 403);
    is(&ask_as(org, 3, (LOOK_KEY, "wrong"), ("GET", types, &Value::Null)), 401);
    is(&ask_as(org, 1, ("a-zzz999-abcdefghij", &org.app), ("GET", types, &Value::Null)), 401);
    let nobody = http::api("GET", org.api.at(1, "http"), "/api/v0002/device/types", &[], "");
    is(&nobody, 401);
    let basic = |who: &str| format!("Basic {}", STANDARD.encode(who));
    let of_device = [("authorization", basic("use-token-auth:12345678"))];
    let of_device = of_device.each_ref().map(|(name, value)| (*name, value.as_str()));
    is(&http::api("GET", org.api.at(1, "http"), "/api/v0002/device/types", &of_device, ""), 403);
    for path in
        ["/groups/x", "/draft/schemas", "/authorization/apikeys", "/actions", "/usage/data-traffic"]
    {
        let answer = ask(org, 1, "GET", path, &Value::Null);
        is(&answer, 404);
        assert_eq!(answer.json()["exception"]["id"], "CUDML0004E");
    }
    is(&ask(org, 1, "DELETE", types, &Value::Null), 405);
    assert_eq!(get(org, 1, "/service-status")["messaging"], "green");
    let large = json!({ "id": "x".repeat(600_000) });
    is(&ask_as(org, 1, (APP_KEY, &org.app), ("POST", "/mgmt/requests", &large)), 413);
}

fn types(plant: &mut Plant) {
    let org = &plant.org;
    let info = json!({ "manufacturer": "m", "model": "x" });
    let kind =
        json!({ "id": "valve", "classId": "Device", "deviceInfo": info, "metadata": { "a": 1 } });
    is(&plant.operate(1, "POST", "/device/types", &kind), 201);
    is(&plant.operate(2, "POST", "/device/types", &kind), 409);
    is(&plant.operate(2, "POST", "/device/types", &json!({ "id": "a b" })), 400);
    let shown = get(org, 3, "/device/types/valve");
    assert_eq!((&shown["classId"], &shown["deviceInfo"]), (&json!("Device"), &info));
    let changed = plant.operate(2, "PUT", "/device/types/valve", &json!({ "description": "d" }));
    is(&changed, 200);
    assert_eq!(
        (&changed.json()["description"], &changed.json()["metadata"]["a"]),
        (&json!("d"), &json!(1))
    );
    for number in 0..5 {
        is(
            &plant.operate(1, "POST", "/device/types", &json!({ "id": format!("kind{number}") })),
            201,
        );
    }
    let (mut seen, mut bookmark) = (Vec::new(), String::new());
    loop {
        let page = get(org, 2, &format!("/device/types?_limit=2{bookmark}"));
        let ids = page["results"].as_array().unwrap().iter();
        seen.extend(ids.map(|kind| kind["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["bookmark"].as_str() else { break };
        bookmark = format!("&_bookmark={next}");
    }
    assert_eq!(seen, ["kind0", "kind1", "kind2", "kind3", "kind4", "valve"]);
    is(&plant.operate(3, "DELETE", "/device/types/kind0", &Value::Null), 204);
    is(&ask(org, 1, "GET", "/device/types/kind0", &Value::Null), 404);
    is(&plant.operate(3, "DELETE", "/device/types/kind0", &Value::Null), 404);
}

fn devices(plant: &mut Plant) {
    let org = &plant.org;
    let base = "/device/types/valve/devices";
    let new = json!({ "deviceId": "v1", "deviceInfo": { "model": "y" }, "location": { "latitude": 1, "longitude": 2 } });
    let made = plant.operate(1, "POST", base, &new);
    is(&made, 201);
    let token = made.json()["authToken"].as_str().unwrap().to_owned();
    let info = json!({ "manufacturer": "m", "model": "y" });
    assert_eq!((token.len(), &made.json()["deviceInfo"]), (36, &info), "its type's, and its own");
    assert_eq!(made.json()["registration"]["auth"], json!({ "id": OPERATOR, "type": "app" }));
    is(&plant.operate(2, "POST", base, &new), 409);
    let shown = get(org, 3, &format!("{base}/v1"));
    assert_eq!((&shown["clientId"], shown.get("authToken")), (&json!("d:abc123:valve:v1"), None));
    assert_eq!(get(org, 2, &format!("{base}/v1/location"))["latitude"], 1.0);
    is(&ask(org, 2, "GET", &format!("{base}/v1/mgmt"), &Value::Null), 404);
    let (mut valve, _) = device(Version::V4, "valve", "v1", &token).to(org.at(2));
    valve.publish_acked("iot-2/evt/e/fmt/json", b"{}");
    let weak = json!({ "deviceId": "v2", "authToken": "12345678" });
    is(&plant.operate(1, "POST", base, &weak), 400);
    let brought = json!({ "deviceId": "v2", "authToken": "Zk3vQ9xLw2RtY7uPb5" });
    assert_eq!(plant.operate(1, "POST", base, &brought).json()["authToken"], "Zk3vQ9xLw2RtY7uPb5");
    assert_eq!(device(Version::V4, "valve", "v2", "Zk3vQ9xLw2RtY7uPb5").reason(org.at(3)), 0);
    let change = json!({ "metadata": { "b": 2 }, "deviceInfo": { "serialNumber": "s" }, "status": { "alert": { "enabled": true } } });
    is(&plant.operate(3, "PUT", &format!("{base}/v1"), &change), 200);
    let shown = get(org, 1, &format!("{base}/v1"));
    assert_eq!(
        (&shown["metadata"], &shown["deviceInfo"]["model"]),
        (&json!({ "b": 2 }), &json!("y"))
    );
    assert_eq!(shown["status"]["alert"]["enabled"], true);
    is(&plant.operate(1, "DELETE", "/device/types/valve", &Value::Null), 409);
    is(&plant.operate(1, "DELETE", &format!("{base}/v2"), &Value::Null), 204);
    is(&plant.operate(1, "DELETE", &format!("{base}/v2"), &Value::Null), 404);
    is(&ask(org, 1, "GET", &format!("{base}/v2/location"), &Value::Null), 404);
    // A type that only devices name.
    is(
        &plant.operate(1, "POST", "/device/types/unsaid/devices", &json!({ "deviceId": "u1" })),
        201,
    );
    assert_eq!(get(org, 2, "/device/types/unsaid")["classId"], "Device");
    // One whose devices are gateways.
    is(
        &plant.operate(1, "POST", "/device/types", &json!({ "id": "box", "classId": "Gateway" })),
        201,
    );
    let made = plant.operate(1, "POST", "/device/types/box/devices", &json!({ "deviceId": "b1" }));
    assert_eq!(made.json()["clientId"], "g:abc123:box:b1");
}

fn bulk(plant: &mut Plant) {
    let org = &plant.org;
    let mut new: Vec<Value> =
        (0..120).map(|n| json!({ "typeId": "tap", "deviceId": format!("t{n:03}") })).collect();
    let added = plant.operate(1, "POST", "/bulk/devices/add", &json!(new));
    is(&added, 201);
    assert!(added.json().as_array().unwrap().iter().all(|one| one["authToken"].is_string()));
    new.truncate(1);
    new.push(json!({ "typeId": "tap", "deviceId": "a b" }));
    new.push(json!({ "typeId": "tap", "deviceId": "new" }));
    let added = plant.operate(2, "POST", "/bulk/devices/add", &json!(new));
    is(&added, 202);
    let success: Vec<_> =
        added.json().as_array().unwrap().iter().map(|one| one["success"] == true).collect();
    assert_eq!(success, [false, false, true]);
    for path in
        ["/bulk/devices?typeId=tap&_limit=50", "/device/types/tap/devices/?_limit=50&_sort=x"]
    {
        let (mut seen, mut bookmark) = (Vec::new(), String::new());
        loop {
            let page = get(org, 3, &format!("{path}{bookmark}"));
            let ids = page["results"].as_array().unwrap().iter();
            seen.extend(ids.map(|one| one["deviceId"].as_str().unwrap().to_owned()));
            let Some(next) = page["bookmark"].as_str() else { break };
            bookmark = format!("&_bookmark={next}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 121, "{path}");
    }
    let gone: Vec<Value> =
        (0..120).map(|n| json!({ "typeId": "tap", "deviceId": format!("t{n:03}") })).collect();
    is(&plant.operate(1, "POST", "/bulk/devices/remove", &json!(gone)), 200);
    let left = get(org, 2, "/bulk/devices?typeId=tap");
    assert_eq!(left["results"].as_array().unwrap().len(), 1, "{left}");
}

fn last_events(plant: &mut Plant) {
    let org = &plant.org;
    let token = org.register("pump", "l1", "device");
    let path = "/device/types/pump/devices/l1/events";
    let off = ask(org, 1, "GET", path, &Value::Null);
    is(&off, 403);
    assert_eq!(off.json()["exception"]["id"], "CUDCS0105E");
    assert_eq!(get(org, 1, "/config/lec")["enabled"], false);
    let on = json!({ "enabled": true, "ttlDays": 7 });
    is(&ask(org, 1, "PUT", "/config/lec", &on), 403);
    is(&plant.operate(1, "PUT", "/config/lec", &on), 200);
    assert_eq!(get(org, 2, "/config/lec"), on);
    is(&ask(org, 2, "GET", &format!("{path}/temp"), &Value::Null), 404);
    let (mut pump, _) = device(Version::V4, "pump", "l1", &token).to(org.at(3));
    // Node 3 hears of the switch within moments.
    let shown = until("an event is kept", SOON, || {
        pump.publish_acked("iot-2/evt/temp/fmt/json", b"{}");
        let answer = ask(org, 2, "GET", &format!("{path}/temp"), &Value::Null);
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(
        (&shown["payload"], &shown["format"], &shown["typeId"]),
        (&json!("e30="), &json!("json"), &json!("pump"))
    );
    pump.publish_acked("iot-2/evt/temp/fmt/bin", b"\x00");
    until_true("the newest is there", SOON, || {
        get(org, 1, &format!("{path}/temp"))["payload"] == "AA=="
    });
    for event in ["a", "b", "c", "d", "e", "f"] {
        pump.publish_acked(&format!("iot-2/evt/{event}/fmt/json"), b"{}");
    }
    until_true("as many names as may be", SOON, || {
        get(org, 1, path).as_array().unwrap().len() == 5
    });
    is(&plant.operate(1, "PUT", "/config/lec", &json!({ "enabled": false, "ttlDays": 7 })), 200);
    is(&ask(org, 3, "GET", path, &Value::Null), 403);
}

fn states(plant: &mut Plant) {
    let org = &plant.org;
    let token = org.register("pump", "s1", "device");
    org.register("pump", "s2", "device");
    let path = "/clientconnectionstates/d:abc123:pump:s1";
    assert_eq!(get(org, 1, path)["connectionStatus"], "disconnected");
    let (mut pump, _) = device(Version::V4, "pump", "s1", &token).to(org.at(2));
    pump.ping();
    until_true("it is known to be there", SOON, || {
        get(org, 3, path)["connectionStatus"] == "connected"
    });
    let list = |filter: &str| {
        let page = get(org, 1, &format!("/clientconnectionstates?deviceType=pump&{filter}"));
        let ids = page["results"].as_array().unwrap().iter().map(|one| one["id"].to_string());
        ids.filter(|id| id.contains(":s")).collect::<Vec<_>>()
    };
    assert_eq!(list("connectionStatus=connected&_limit=100"), [r#""d:abc123:pump:s1""#]);
    assert_eq!(list("connectionStatus=disconnected&deviceId=s2"), [r#""d:abc123:pump:s2""#]);
    is(&ask(org, 1, "GET", "/clientconnectionstates?connectionStatus=x", &Value::Null), 400);
    let log = |node| get(org, node, "/logs/connection?typeId=pump&deviceId=s1");
    assert_eq!(log(1)[0]["message"], "d:abc123:pump:s1 is connected");
    pump.disconnect();
    until_true("that it went is the newest entry", SOON, || {
        log(2)[0]["message"] == "d:abc123:pump:s1 is disconnected"
    });
    let all = log(3);
    assert!(all.as_array().unwrap().len() >= 2 && all[1]["timestamp"].is_string(), "{all}");
    assert_eq!(get(org, 1, "/logs/connection?typeId=pump&deviceId=s2"), json!([]));
    is(&ask(org, 1, "GET", "/logs/connection?typeId=pump", &Value::Null), 400);
    is(&ask(org, 1, "GET", "/logs/connection?typeId=pump&deviceId=nobody", &Value::Null), 404);
    is(&ask(org, 1, "GET", "/clientconnectionstates/g:abc123:pump:s1", &Value::Null), 404);
    is(&ask(org, 1, "GET", "/clientconnectionstates/d:zzz999:pump:s1", &Value::Null), 404);
}

fn too_often(plant: &mut Plant) {
    let org = &plant.org;
    // So many ask again and again, until one is too early: however slow the machine is, more wait at once than have a turn within the
    // longest wait (50 of them).
    let (refused, until) = (AtomicBool::new(false), Instant::now() + SOON);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let several = || {
            let mut heard = Vec::new();
            while !refused.load(Ordering::Relaxed) && Instant::now() < until {
                let status = ask(org, 2, "GET", "/service-status", &Value::Null).status;
                refused.fetch_or(status == 429, Ordering::Relaxed);
                heard.push(status);
            }
            heard
        };
        let asking: Vec<_> = (0..120).map(|_| scope.spawn(several)).collect();
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|heard| **heard == status).count();
    // Who is refused is so because as many have their turn before him as come in five seconds.
    assert!(of(200) >= 50 && of(429) >= 1, "{statuses:?}");
    assert_eq!(of(200) + of(429), statuses.len(), "{statuses:?}");
    is(&ask(org, 3, "GET", "/service-status", &Value::Null), 200);
}

fn nothing_of_the_dead(plant: &mut Plant) {
    // A device that is made again begins anew, and what was acknowledged is there when a node dies.
    let base = "/device/types/valve/devices/v1";
    let place = json!({ "latitude": 5, "longitude": 5 });
    is(&plant.operate(1, "PUT", &format!("{base}/location"), &place), 200);
    plant.org.api.cluster.node_mut(3).kill();
    let location = until("its shard has a leader", SOON, || {
        let path = format!("{base}/location");
        let answer = ask(&plant.org, 2, "GET", &path, &Value::Null);
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(location["latitude"], 5.0);
    plant.org.api.cluster.node_mut(3).start_ready();
    is(&plant.operate(1, "DELETE", base, &Value::Null), 204);
    is(&plant.operate(2, "POST", "/device/types/valve/devices", &json!({ "deviceId": "v1" })), 201);
    is(&ask(&plant.org, 1, "GET", &format!("{base}/location"), &Value::Null), 404);
}
