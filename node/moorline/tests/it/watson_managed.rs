//! Managed devices of Watson IoT: what they say is kept and answered, and they do what they are asked, on whichever node, while nodes
//! die.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::shard::Shards;
use serde_json::{Value, json};

use crate::{
    harness::{
        cluster::SHARDS,
        http::{self, Answer},
        mqtt::{Client, Heard},
        packet::{Connect, Packet, Version},
        scenarios,
        wait::{SOON, until, until_true},
    },
    watson::{APP_KEY, Org, device, named},
};

/// How often and how long it is looked for something that takes a moment.
const A_WHILE: Duration = Duration::from_secs(30);
/// What a device sends that supports everything of the platform's own.
const MANAGE: &str =
    r#"{"lifetime":3600,"supports":{"deviceActions":true,"firmwareActions":true}}"#;

/// A request of the management API, with a key that may use devices.
#[track_caller]
pub(crate) fn ask(org: &Org, node: u64, method: &str, path: &str, body: &Value) -> Answer {
    ask_as(org, node, (APP_KEY, &org.app), (method, path, body))
}

#[track_caller]
pub(crate) fn ask_as(
    org: &Org,
    node: u64,
    (key, token): (&str, &str),
    (method, path, body): (&str, &str, &Value),
) -> Answer {
    let basic = format!("Basic {}", STANDARD.encode(format!("{key}:{token}")));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let path = format!("/api/v0002{path}");
    http::api(method, org.api.at(node, "http"), &path, &[("authorization", &basic)], &body)
}

/// Whoever may change which devices an organisation has, and what gateways may.
pub(crate) const OPERATOR: &str = "a-abc123-operator01";

/// An organisation, and the key of its operator.
pub(crate) struct Plant {
    pub(crate) org: Org,
    pub(crate) operator: String,
}

impl Plant {
    pub(crate) fn start() -> Self {
        let org = Org::start();
        let operator = org.key(OPERATOR, "operator");
        Self { org, operator }
    }

    #[track_caller]
    pub(crate) fn operate(&self, node: u64, method: &str, path: &str, body: &Value) -> Answer {
        ask_as(&self.org, node, (OPERATOR, &self.operator), (method, path, body))
    }
}

#[track_caller]
pub(crate) fn get(org: &Org, node: u64, path: &str) -> Value {
    let answer = ask(org, node, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

/// Somebody who speaks for a managed device.
struct Thing {
    client: Client,
    /// What stands behind `iotdm-1/` and `iotdevice-1/`: nothing, or the device's name if a gateway speaks.
    name: String,
}

impl Thing {
    /// A device that is connected and subscribed to all that it is told.
    #[track_caller]
    fn connected(org: &Org, node: u64, connect: &Connect) -> Self {
        let (mut client, present) = connect.to_patiently(org.at(node));
        if !present {
            assert_eq!(client.subscribe(&[("iotdm-1/#", 1)]), [1]);
        }
        Self { client, name: String::new() }
    }

    #[track_caller]
    fn managed(org: &Org, node: u64, id: &str) -> Self {
        let token = org.register("pump", id, "device");
        let mut thing = Self::connected(org, node, &device(Version::V4, "pump", id, &token));
        thing.manage();
        thing
    }

    #[track_caller]
    fn manage(&mut self) {
        let rc = self.asks("mgmt/manage", serde_json::from_str(MANAGE).unwrap());
        assert_eq!(rc, 200);
    }

    /// Says something that wants no answer.
    #[track_caller]
    fn say(&mut self, what: &str, said: &Value) {
        let topic = format!("iotdevice-1/{}{what}", self.name);
        self.client.publish_acked(&topic, said.to_string().as_bytes());
    }

    /// Asks something: the answer's number.
    #[track_caller]
    fn asks(&mut self, what: &str, data: Value) -> u64 {
        self.say(what, &json!({ "d": data, "reqId": "mine" }));
        let answer = self.hears("response");
        assert_eq!(answer["reqId"], "mine", "{answer}");
        answer["rc"].as_u64().unwrap()
    }

    /// What it is told next, which must be there.
    #[track_caller]
    fn hears(&mut self, what: &str) -> Value {
        let message = self.client.message();
        self.client.ack(&message);
        assert_eq!(message.topic, format!("iotdm-1/{}{what}", self.name), "{message:?}");
        serde_json::from_slice(&message.payload).unwrap()
    }

    #[track_caller]
    fn answers(&mut self, asked: &Value, rc: u16) {
        self.say("response", &json!({ "rc": rc, "reqId": asked["reqId"] }));
    }

    #[track_caller]
    fn notifies(&mut self, firmware: &Value) {
        let fields = json!([{ "field": "mgmt.firmware", "value": firmware }]);
        self.say("notify", &json!({ "d": { "fields": fields } }));
    }
}

/// Asks devices to do something: the request's id.
#[track_caller]
fn initiate(org: &Org, node: u64, action: &str, ids: &[&str], more: Value) -> String {
    let devices: Vec<Value> =
        ids.iter().map(|id| json!({ "typeId": "pump", "deviceId": id })).collect();
    let mut body = json!({ "action": action, "devices": devices });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let made = ask(org, node, "POST", "/mgmt/requests", &body);
    assert_eq!(made.status, 202, "{}", made.body);
    made.json()["reqId"].as_str().unwrap().to_owned()
}

/// How a request stands at a device: status, and whether it is over.
#[track_caller]
fn status(org: &Org, node: u64, request: &str, id: &str) -> (u64, bool) {
    let path = format!("/mgmt/requests/{request}/deviceStatus/pump/{id}");
    let said = get(org, node, &path);
    (said["status"].as_u64().unwrap(), said["complete"].as_bool().unwrap())
}

#[track_caller]
fn until_over(org: &Org, node: u64, request: &str, id: &str, expected: u64) {
    let over = until("the request is over", A_WHILE, || {
        let (status, over) = status(org, node, request, id);
        over.then_some(status)
    });
    assert_eq!(over, expected);
}

#[test]
fn devices_are_managed() {
    let mut org = Org::start();
    scenarios(
        &mut org,
        &[
            ("ten requests to be managed are one, and ten answers", ten_manages),
            ("what a device says of itself is kept", said),
            ("a device reboots, and is back with its next manage", reboots),
            ("a device downloads firmware and updates itself", updates),
            ("what timed out is delivered all the same", times_out),
            ("a gateway's devices are managed through it", behind_gateway),
            ("requests are called off, make way, and are forgotten", called_off),
            ("custom actions go by their bundle", custom),
            ("hundreds of devices at once", many),
            ("who is asked twice answers once", asked_twice),
            ("a request goes on when leaders die", leaders_die),
        ],
    );
}

fn ten_manages(org: &mut Org) {
    let token = org.register("pump", "m1", "device");
    let (mut client, _) = device(Version::V4, "pump", "m1", &token).to(org.at(1));
    let filters = [
        "response",
        "observe",
        "mgmt/initiate/device/reboot",
        "mgmt/initiate/device/factory_reset",
        "device/update",
        "mgmt/initiate/firmware/update",
        "mgmt/initiate/firmware/download",
        "cancel",
        "mgmt/custom/#",
    ];
    for filter in filters {
        assert_eq!(client.subscribe(&[(&format!("iotdm-1/{filter}"), 1)]), [1]);
    }
    assert_eq!(ask(org, 2, "GET", "/device/types/pump/devices/m1/mgmt", &Value::Null).status, 404);
    let info = r#""deviceInfo":{"model":"x","fwVersion":1.5},"metadata":{"a":1}"#;
    let ids: Vec<u16> = (0..10)
        .map(|number| {
            let d = format!("{},{info}}}", MANAGE.strip_suffix('}').unwrap());
            let payload = format!(r#"{{"d":{d},"reqId":"r{number}"}}"#);
            client.publish("iotdevice-1/mgmt/manage", payload.as_bytes())
        })
        .collect();
    assert!(ids.into_iter().all(|id| client.puback(id) == 0));
    let mut heard: Vec<String> = (0..10)
        .map(|_| {
            let message = client.message();
            client.ack(&message);
            let said: Value = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!((message.topic.as_str(), &said["rc"]), ("iotdm-1/response", &json!(200)));
            said["reqId"].as_str().unwrap().to_owned()
        })
        .collect();
    heard.sort();
    assert_eq!(heard, (0..10).map(|number| format!("r{number}")).collect::<Vec<_>>());
    let managed = get(org, 3, "/device/types/pump/devices/m1/mgmt");
    assert_eq!(managed["supports"], json!({ "deviceActions": true, "firmwareActions": true }));
    let shown = get(org, 2, "/device/types/pump/devices/m1");
    assert_eq!(
        (&shown["deviceInfo"]["fwVersion"], &shown["metadata"]),
        (&json!("1.5"), &json!({"a": 1}))
    );
    // A claim of what the organisation does not have.
    let claim = br#"{"d":{"supports":{"bundle-9":true}},"reqId":"c"}"#;
    client.publish_acked("iotdevice-1/mgmt/manage", claim);
    let message = client.message();
    assert!(String::from_utf8_lossy(&message.payload).contains(r#""rc":403"#));
    client.ack(&message);
    // What is no JSON has nobody to answer.
    client.publish_acked("iotdevice-1/mgmt/manage", b"no JSON");
    client.hears_nothing();
}

fn said(org: &mut Org) {
    let mut pump = Thing::managed(org, 1, "m2");
    let base = "/device/types/pump/devices/m2";
    let place = json!({ "longitude": -0.1, "latitude": 51.5, "elevation": 10 });
    assert_eq!(pump.asks("device/update/location", place), 200);
    assert_eq!(pump.asks("device/update/location", json!({ "longitude": 1 })), 400);
    for code in [7, 8] {
        assert_eq!(pump.asks("add/diag/errorCodes", json!({ "errorCode": code })), 200);
    }
    for message in ["one", "two"] {
        let entry = json!({ "message": message, "severity": 1, "data": "AA==" });
        assert_eq!(pump.asks("add/diag/log", entry), 200);
    }
    for node in [2, 3] {
        let location = get(org, node, &format!("{base}/location"));
        assert_eq!((&location["latitude"], &location["elevation"]), (&json!(51.5), &json!(10.0)));
        assert!(location["updatedDateTime"].is_string());
        let codes = get(org, node, &format!("{base}/diag/errorCodes"));
        assert_eq!((&codes[0]["errorCode"], &codes[1]["errorCode"]), (&json!(8), &json!(7)));
        let log = get(org, node, &format!("{base}/diag/logs"));
        assert_eq!((&log[0]["message"], &log[1]["data"]), (&json!("two"), &json!("AA==")));
    }
    let first = get(org, 1, &format!("{base}/diag/logs/0"));
    assert_eq!(first["message"], "one");
    assert_eq!(pump.asks("clear/diag/errorCodes", Value::Null), 200);
    assert_eq!(pump.asks("clear/diag/log", Value::Null), 200);
    assert_eq!(get(org, 2, &format!("{base}/diag/errorCodes")), json!([]));
    assert_eq!(get(org, 2, &format!("{base}/diag/logs")), json!([]));
    // The other way round: the device is told.
    let elsewhere = json!({ "longitude": 2, "latitude": 3 });
    assert_eq!(ask(org, 3, "PUT", &format!("{base}/location"), &elsewhere).status, 200);
    let told = pump.hears("device/update");
    assert_eq!(told["d"]["fields"][0]["field"], "location");
    assert!(told.get("reqId").is_none(), "nobody waits for an answer");
    let code = json!({ "errorCode": 9 });
    assert_eq!(ask(org, 1, "POST", &format!("{base}/diag/errorCodes"), &code).status, 201);
    assert_eq!(get(org, 2, &format!("{base}/diag/errorCodes"))[0]["errorCode"], 9);
    assert_eq!(pump.asks("mgmt/unmanage", Value::Null), 200);
    assert_eq!(ask(org, 2, "GET", &format!("{base}/mgmt"), &Value::Null).status, 404);
    assert_eq!(get(org, 2, &format!("{base}/location"))["latitude"], 3.0, "that stays");
}

fn reboots(org: &mut Org) {
    let mut pump = Thing::managed(org, 2, "m3");
    let request = initiate(org, 1, "device/reboot", &["m3"], Value::Null);
    let asked = pump.hears("mgmt/initiate/device/reboot");
    assert_eq!(status(org, 3, &request, "m3"), (0, false));
    assert_eq!(get(org, 3, &format!("/mgmt/requests/{request}"))["complete"], false);
    pump.answers(&asked, 202);
    assert_eq!(status(org, 3, &request, "m3"), (0, false), "it will be back");
    pump.manage();
    assert_eq!(status(org, 3, &request, "m3"), (0, true));
    let whole = get(org, 2, &format!("/mgmt/requests/{request}"));
    assert_eq!((&whole["complete"], &whole["deviceCount"]), (&json!(true), &json!(1)), "{whole}");
    assert_eq!(whole["action"], "device/reboot");
    let all = get(org, 1, "/mgmt/requests");
    assert!(all["results"].as_array().unwrap().iter().any(|one| one["id"] == json!(request)));
    // One that it can't do.
    let request = initiate(org, 1, "device/factoryReset", &["m3"], Value::Null);
    let asked = pump.hears("mgmt/initiate/device/factory_reset");
    pump.answers(&asked, 501);
    until_over(org, 2, &request, "m3", 1);
    // Devices that nobody manages, or knows.
    org.register("pump", "m3b", "device");
    let request = initiate(org, 1, "device/reboot", &["m3b", "nobody"], Value::Null);
    let parts = get(org, 2, &format!("/mgmt/requests/{request}/deviceStatus"));
    let said = |at: usize| parts["results"][at]["message"].as_str().unwrap().to_owned();
    assert_eq!(said(0), "The device is not managed");
    assert_eq!(said(1), "The device is not registered");
    assert_eq!(get(org, 3, &format!("/mgmt/requests/{request}"))["complete"], true);
}

const FIRMWARE: [(&str, &str); 4] =
    [("version", "2.0"), ("name", "n"), ("uri", "http://x/y"), ("verifier", "v")];

fn firmware() -> Value {
    let parameters: Vec<Value> =
        FIRMWARE.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    json!({ "parameters": parameters })
}

fn updates(org: &mut Org) {
    let mut pump = Thing::managed(org, 3, "m4");
    let download = initiate(org, 1, "firmware/download", &["m4"], firmware());
    let told = pump.hears("device/update");
    let value = &told["d"]["fields"][0]["value"];
    for (name, expected) in FIRMWARE {
        assert_eq!(value[name], expected, "{told}");
    }
    let fields = ["version", "name", "uri", "verifier", "state", "updateStatus", "updatedDateTime"];
    assert!(fields.iter().all(|field| value.get(field).is_some()), "an SDK wants them all: {told}");
    pump.answers(&told, 204);
    let observe = pump.hears("observe");
    pump.answers(&observe, 200);
    let begin = pump.hears("mgmt/initiate/firmware/download");
    pump.answers(&begin, 202);
    pump.notifies(&json!({ "state": 1 }));
    assert_eq!(get(org, 2, "/device/types/pump/devices/m4/mgmt")["firmware"]["state"], 1);
    pump.notifies(&json!({ "state": 2 }));
    let cancel = pump.hears("cancel");
    assert_eq!(status(org, 2, &download, "m4"), (0, false));
    pump.answers(&cancel, 200);
    until_over(org, 2, &download, "m4", 0);

    let update = initiate(org, 2, "firmware/update", &["m4"], Value::Null);
    let observe = pump.hears("observe");
    pump.answers(&observe, 200);
    let begin = pump.hears("mgmt/initiate/firmware/update");
    pump.answers(&begin, 202);
    pump.notifies(&json!({ "updateStatus": 1 }));
    pump.notifies(&json!({ "state": 0, "updateStatus": 0 }));
    let cancel = pump.hears("cancel");
    pump.answers(&cancel, 200);
    until_over(org, 1, &update, "m4", 0);
    let shown = get(org, 3, "/device/types/pump/devices/m4");
    assert_eq!(shown["deviceInfo"]["fwVersion"], "2.0");

    // A download that goes wrong.
    let download = initiate(org, 3, "firmware/download", &["m4"], firmware());
    let told = pump.hears("device/update");
    pump.answers(&told, 204);
    let observe = pump.hears("observe");
    pump.answers(&observe, 200);
    let begin = pump.hears("mgmt/initiate/firmware/download");
    pump.answers(&begin, 202);
    pump.notifies(&json!({ "state": 0, "updateStatus": 6 }));
    let cancel = pump.hears("cancel");
    pump.answers(&cancel, 200);
    until_over(org, 1, &download, "m4", 1);
}

fn times_out(org: &mut Org) {
    let token = org.register("pump", "m5", "device");
    let login = Some(("use-token-auth".to_owned(), token));
    let connect = Connect { login, ..Connect::durable(Version::V4, "d:abc123:pump:m5") };
    let mut pump = Thing::connected(org, 1, &connect);
    pump.manage();
    pump.client.disconnect();
    let request = initiate(org, 2, "device/reboot", &["m5"], json!({ "timeout": 1 }));
    assert_eq!(status(org, 3, &request, "m5"), (0, false));
    until_over(org, 3, &request, "m5", 2);
    assert_eq!(get(org, 1, &format!("/mgmt/requests/{request}"))["complete"], true);
    let mut pump = Thing::connected(org, 3, &connect);
    let asked = pump.hears("mgmt/initiate/device/reboot");
    // It does what it was asked; nobody waits for that any more.
    pump.answers(&asked, 202);
    pump.manage();
    assert_eq!(status(org, 2, &request, "m5"), (2, true));
}

fn behind_gateway(org: &mut Org) {
    let token = org.register("gw", "m6", "gateway");
    let connect = named(Version::V4, "g:abc123:gw:m6", &token);
    let (mut client, _) = connect.to(org.at(1));
    assert_eq!(client.subscribe(&[("iotdm-1/type/pump/id/m6/response", 1)]), [1]);
    // Nobody has made this device: the gateway does, by speaking for it.
    let mut pump = Thing { client, name: "type/pump/id/m6/".to_owned() };
    pump.manage();
    assert_eq!(get(org, 2, "/device/types/pump/devices/m6/mgmt")["dormant"], false);
    let request = initiate(org, 3, "device/reboot", &["m6"], Value::Null);
    let asked = pump.hears("mgmt/initiate/device/reboot");
    pump.answers(&asked, 202);
    pump.manage();
    until_over(org, 2, &request, "m6", 0);
    let shown = get(org, 3, "/device/types/pump/devices/m6");
    assert_eq!(
        (&shown["gatewayTypeId"], &shown["gatewayId"]),
        (&json!("gw"), &json!("m6")),
        "{shown}"
    );
    // Another gateway hears nothing of it, nor of devices that speak for themselves, until it speaks for it.
    let token = org.register("gw", "m6b", "gateway");
    let (mut client, _) = named(Version::V4, "g:abc123:gw:m6b", &token).to(org.at(2));
    assert_eq!(client.subscribe(&[("iotdm-1/#", 1)]), [1]);
    let mut other = Thing { client, name: "type/pump/id/m6/".to_owned() };
    let mut alone = Thing::managed(org, 3, "m6c");
    let place = json!({ "longitude": 1, "latitude": 2 });
    for id in ["m6", "m6c"] {
        let path = format!("/device/types/pump/devices/{id}/location");
        assert_eq!(ask(org, 1, "PUT", &path, &place).status, 200);
    }
    pump.hears("device/update");
    alone.hears("device/update");
    other.client.hears_nothing();
    other.manage();
    assert_eq!(ask(org, 1, "PUT", "/device/types/pump/devices/m6/location", &place).status, 200);
    other.hears("device/update");
    pump.client.hears_nothing();
    // Itself is managed, too.
    other.name = "type/gw/id/m6b/".to_owned();
    other.manage();
    assert_eq!(get(org, 1, "/device/types/gw/devices/m6b/mgmt")["dormant"], false);
}

fn called_off(org: &mut Org) {
    let mut pump = Thing::managed(org, 1, "m7");
    let first = initiate(org, 2, "device/reboot", &["m7"], Value::Null);
    pump.hears("mgmt/initiate/device/reboot");
    let second = initiate(org, 3, "device/reboot", &["m7"], Value::Null);
    assert_eq!(status(org, 1, &second, "m7"), (1, true), "another one is under way");
    let third = initiate(org, 3, "device/factoryReset", &["m7"], json!({ "override": true }));
    assert_eq!(status(org, 1, &first, "m7"), (3, true), "it makes way");
    pump.hears("mgmt/initiate/device/factory_reset");
    let path = format!("/mgmt/requests/{third}");
    let over = ask(org, 2, "POST", &format!("{path}/cancel"), &Value::Null);
    assert_eq!((over.status, &over.json()["complete"]), (200, &json!(true)), "{}", over.body);
    assert_eq!(status(org, 1, &third, "m7"), (3, true));
    assert_eq!(ask(org, 1, "DELETE", &path, &Value::Null).status, 204);
    assert_eq!(ask(org, 2, "GET", &path, &Value::Null).status, 404);
    assert_eq!(ask(org, 3, "DELETE", &path, &Value::Null).status, 404);
    let part = format!("{path}/deviceStatus/pump/m7");
    assert_eq!(ask(org, 2, "GET", &part, &Value::Null).status, 404);
}

fn custom(org: &mut Org) {
    let token = org.key("a-abc123-operator01", "operator");
    let operator = |method: &str, path: &str, body: &Value| {
        ask_as(org, 1, ("a-abc123-operator01", &token), (method, path, body)).status
    };
    let parameters =
        json!([{ "name": "p1", "required": true }, { "name": "p2", "defaultValue": 7 }]);
    let bundle = json!({
        "bundleId": "bundle-1", "version": "1", "displayName": { "en_US": "B" },
        "actions": { "act": { "actionDisplayName": { "en_US": "A" }, "parameters": parameters } },
    });
    assert_eq!(ask(org, 1, "POST", "/mgmt/custom/bundle", &bundle).status, 403, "no operator");
    assert_eq!(operator("POST", "/mgmt/custom/bundle", &bundle), 201);
    assert_eq!(operator("POST", "/mgmt/custom/bundle", &bundle), 409);
    assert_eq!(get(org, 2, "/mgmt/custom/bundle")[0]["bundleId"], "bundle-1");
    let mut pump = Thing::managed(org, 1, "m8");
    let supports = json!({ "supports": { "bundle-1": true } });
    assert_eq!(pump.asks("mgmt/manage", supports), 200);
    let devices = json!([{ "typeId": "pump", "deviceId": "m8" }]);
    let missing = json!({ "action": "bundle-1/act", "devices": devices });
    assert_eq!(ask(org, 1, "POST", "/mgmt/requests", &missing).status, 400);
    let given = json!({ "parameters": [{ "name": "p1", "value": 1 }] });
    let request = initiate(org, 3, "bundle-1/act", &["m8"], given);
    let asked = pump.hears("mgmt/custom/bundle-1/act");
    let fields = json!([{ "field": "p1", "value": 1 }, { "field": "p2", "value": 7 }]);
    assert_eq!(asked["d"]["fields"], fields);
    pump.answers(&asked, 200);
    until_over(org, 2, &request, "m8", 0);
    assert_eq!(operator("DELETE", "/mgmt/custom/bundle/bundle-1", &Value::Null), 204);
    assert_eq!(operator("DELETE", "/mgmt/custom/bundle/bundle-1", &Value::Null), 404);
}

fn many(org: &mut Org) {
    let mut pump = Thing::managed(org, 1, "m9");
    let ids: Vec<String> = (0..499).map(|number| format!("many{number}")).collect();
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.push("m9");
    let request = initiate(org, 2, "device/reboot", &ids, Value::Null);
    let asked = pump.hears("mgmt/initiate/device/reboot");
    pump.answers(&asked, 202);
    assert_eq!(get(org, 3, &format!("/mgmt/requests/{request}"))["complete"], false);
    pump.manage();
    let whole = get(org, 1, &format!("/mgmt/requests/{request}"));
    assert_eq!((&whole["complete"], &whole["deviceCount"]), (&json!(true), &json!(500)), "{whole}");
    // All pages of it.
    let (mut seen, mut bookmark) = (0, String::new());
    loop {
        let path = format!("/mgmt/requests/{request}/deviceStatus?_limit=100{bookmark}");
        let page = get(org, 3, &path);
        seen += page["results"].as_array().unwrap().len();
        let Some(next) = page["bookmark"].as_str() else { break };
        bookmark = format!("&_bookmark={next}");
    }
    assert_eq!(seen, 500);
    let devices: Vec<Value> =
        (0..5_001).map(|n| json!({ "typeId": "pump", "deviceId": format!("d{n}") })).collect();
    let body = json!({ "action": "device/reboot", "devices": devices });
    assert_eq!(ask(org, 1, "POST", "/mgmt/requests", &body).status, 400);
}

fn asked_twice(org: &mut Org) {
    // An answer that comes again, because its PUBACK was lost, moves nothing.
    let mut pump = Thing::managed(org, 1, "m10");
    let request = initiate(org, 2, "firmware/download", &["m10"], firmware());
    let told = pump.hears("device/update");
    pump.answers(&told, 204);
    pump.answers(&told, 204);
    let observe = pump.hears("observe");
    pump.client.hears_nothing();
    pump.answers(&observe, 200);
    let begin = pump.hears("mgmt/initiate/firmware/download");
    pump.answers(&observe, 200);
    pump.answers(&begin, 500);
    let cancel = pump.hears("cancel");
    pump.answers(&cancel, 200);
    until_over(org, 3, &request, "m10", 1);
}

fn leaders_die(org: &mut Org) {
    let token = org.register("pump", "m11", "device");
    let shards = Shards::new(SHARDS);
    let login = Some(("use-token-auth".to_owned(), token));
    let connect = Connect { login, ..Connect::durable(Version::V4, "d:abc123:pump:m11") };
    // The leader of what is kept of the device, then that of its session.
    for key in [&b"pump:m11"[..], b"d:abc123:pump:m11"] {
        let leader = org.api.cluster.leader(shards.of(org.tenant, key).0, 1);
        let alive = org.api.cluster.others(leader);
        let mut pump = Thing::connected(org, alive[0], &connect);
        pump.manage();
        let request = initiate(org, alive[1], "firmware/download", &["m11"], firmware());
        let told = pump.hears("device/update");
        org.api.cluster.node_mut(leader).kill();
        pump.answers(&told, 204);
        let observe = pump.hears("observe");
        pump.answers(&observe, 200);
        let begin = pump.hears("mgmt/initiate/firmware/download");
        pump.answers(&begin, 202);
        pump.notifies(&json!({ "state": 2 }));
        let cancel = pump.hears("cancel");
        pump.answers(&cancel, 200);
        until_true("it is over", A_WHILE, || {
            let path = format!("/mgmt/requests/{request}/deviceStatus/pump/m11");
            let said = ask(org, alive[1], "GET", &path, &Value::Null);
            said.status == 200 && said.json()["complete"] == true
        });
        assert_eq!(status(org, alive[1], &request, "m11"), (0, true));
        org.api.cluster.node_mut(leader).start_ready();
        pump.client.disconnect();
    }
    // The node it speaks to.
    let mut pump = Thing::connected(org, 1, &connect);
    pump.manage();
    let request = initiate(org, 2, "firmware/download", &["m11"], firmware());
    let told = pump.hears("device/update");
    let answer = json!({ "rc": 204, "reqId": told["reqId"] }).to_string();
    pump.client.publish_unchecked("iotdevice-1/response", answer.as_bytes());
    org.api.cluster.node_mut(1).kill();
    // Whether it was heard is not known: it says it again.
    let mut pump = Thing::connected(org, 2, &connect);
    pump.answers(&told, 204);
    let observe = until("it is asked on", A_WHILE, || {
        let Heard::Packet(Packet::Publish(message)) = pump.client.hear(SOON) else { return None };
        pump.client.ack(&message);
        (message.topic == "iotdm-1/observe")
            .then(|| serde_json::from_slice::<Value>(&message.payload).unwrap())
    });
    pump.answers(&observe, 200);
    let begin = pump.hears("mgmt/initiate/firmware/download");
    pump.answers(&begin, 500);
    let cancel = pump.hears("cancel");
    pump.answers(&cancel, 200);
    until_over(org, 3, &request, "m11", 1);
    org.api.cluster.node_mut(1).start_ready();
}
