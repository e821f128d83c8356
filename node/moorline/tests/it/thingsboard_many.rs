//! ThingsBoard's WebSocket API for many devices: how many there are, a page of them with what is wanted of each, and what changes.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        mqtt::Client,
        packet::Version,
        scenarios,
        wait::{SOON, until_true},
        websocket::Socket,
    },
    thingsboard::{device, set},
    thingsboard_rest::User,
};

const TELEMETRY: &str = "v1/devices/me/telemetry";

/// Opens a connection and says who it is.
#[track_caller]
fn connect(api: &Api, node: u64, user: &User) -> Socket {
    let mut socket = Socket::open(api.at(node, "http"), "/api/ws");
    socket.say(&json!({ "authCmd": { "cmdId": 0, "token": user.token }, "cmds": [] }));
    socket
}

fn say(socket: &mut Socket, kind: &str, id: i64, more: &Value) {
    let mut command = json!({ "type": kind, "cmdId": id });
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    socket.say(&json!({ "cmds": [command] }));
}

fn of_type(kind: &str) -> Value {
    json!({ "type": "deviceType", "deviceTypes": [kind], "deviceNameFilter": "" })
}

fn by_name() -> Value {
    json!({ "key": { "type": "ENTITY_FIELD", "key": "name" }, "direction": "ASC" })
}

#[test]
fn many_devices_are_looked_at() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"], "settings": { "plaintext": true },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("a page of devices has what is wanted of each, and changes are pushed", page),
            ("samples of the past are shown, and those that come", past),
            ("what can't be found so is refused", wrong),
        ],
    );
}

/// Makes a device: its id and a connection of it.
#[track_caller]
fn made(api: &Api, user: &User, name: &str, kind: &str) -> (String, Client) {
    let (id, token) = {
        let new = json!({ "name": name, "type": kind, "label": format!("of {name}") });
        let made = user.ask(api, 1, "POST", "/api/device", &new);
        assert_eq!(made.status, 200, "{}", made.body);
        let id = made.json()["id"]["id"].as_str().unwrap().to_owned();
        let shown = user.get(api, 2, &format!("/api/device/{id}/credentials"));
        (id, shown["credentialsId"].as_str().unwrap().to_owned())
    };
    (id, device(Version::V4, &token).to(api.cluster.mqtt(3)).0)
}

fn page(api: &mut Api) {
    let user = User::new(api, "many", "operator");
    let (first, mut one) = made(api, &user, "lift-1", "lift");
    let (_, mut two) = made(api, &user, "lift-2", "lift");
    let (_, mut other) = made(api, &user, "door-1", "door");
    for (client, t) in [(&mut one, 1), (&mut two, 2), (&mut other, 3)] {
        let said = json!({ "ts": 1_000, "values": { "t": t } }).to_string();
        client.publish_acked(TELEMETRY, said.as_bytes());
    }
    set(api, 1, "lift-1", &json!({ "mode": "eco" }));
    let mut socket = connect(api, 2, &user);
    say(&mut socket, "ENTITY_COUNT", 1, &json!({ "query": { "entityFilter": of_type("lift") } }));
    let counted = json!({
        "cmdId": 1, "errorCode": 0, "errorMsg": null, "count": 2, "cmdUpdateType": "COUNT_DATA",
    });
    assert_eq!(socket.next(), counted);
    let doors = json!({ "type": "entityName", "entityType": "DEVICE", "entityNameFilter": "DOOR" });
    say(&mut socket, "ENTITY_COUNT", 2, &json!({ "query": { "entityFilter": doors } }));
    assert_eq!(socket.next()["count"], 1);

    let field = |key: &str| json!({ "type": "ENTITY_FIELD", "key": key });
    let series = json!({ "type": "TIME_SERIES", "key": "t" });
    let mode = json!({ "type": "SHARED_ATTRIBUTE", "key": "mode" });
    let query = json!({
        "entityFilter": of_type("lift"),
        "pageLink": { "pageSize": 10, "page": 0, "sortOrder": by_name() },
        "entityFields": [field("name"), field("label")], "latestValues": [series, mode],
    });
    say(&mut socket, "ENTITY_DATA", 3, &json!({ "query": query }));
    let shown = socket.next();
    let data = &shown["data"];
    assert_eq!((&data["totalElements"], &data["hasNext"]), (&json!(2), &json!(false)), "{shown}");
    let latest = &data["data"][0]["latest"];
    assert_eq!(data["data"][0]["entityId"], json!({ "entityType": "DEVICE", "id": first }));
    assert_eq!(latest["ENTITY_FIELD"]["name"]["value"], "lift-1");
    assert_eq!(latest["ENTITY_FIELD"]["label"]["value"], "of lift-1");
    assert_eq!(latest["TIME_SERIES"]["t"], json!({ "ts": 1_000, "value": "1" }));
    assert_eq!(latest["SHARED_ATTRIBUTE"]["mode"]["value"], "eco");
    assert_eq!(data["data"][1]["latest"]["SHARED_ATTRIBUTE"]["mode"]["value"], "");

    // Then what changes of those that were found.
    say(&mut socket, "ENTITY_DATA", 3, &json!({ "latestCmd": { "keys": [series, mode] } }));
    let mut known = json!({});
    let mut hears = |known: &mut Value| {
        let news = socket.next();
        assert_eq!((&news["cmdId"], &news["data"]), (&json!(3), &Value::Null), "{news}");
        for one in news["update"].as_array().unwrap() {
            let device = one["entityId"]["id"].as_str().unwrap();
            for (kind, key) in [("TIME_SERIES", "t"), ("SHARED_ATTRIBUTE", "mode")] {
                if let Some(value) = one["latest"][kind][key]["value"].as_str() {
                    known[format!("{device} {key}")] = json!(value);
                }
            }
        }
    };
    until_true("what is there is told", SOON, || {
        hears(&mut known);
        known.as_object().unwrap().len() == 3
    });
    one.publish_acked(TELEMETRY, br#"{"t":11}"#);
    other.publish_acked(TELEMETRY, br#"{"t":33}"#);
    set(api, 3, "lift-1", &json!({ "mode": "fast" }));
    let (t, mode) = (format!("{first} t"), format!("{first} mode"));
    until_true("what changes is told", SOON, || {
        hears(&mut known);
        known[&t] == "11" && known[&mode] == "fast"
    });
    assert!(!known.to_string().contains("33"), "{known}");
}

fn past(api: &mut Api) {
    let user = User::new(api, "past-many", "operator");
    let (id, mut one) = made(api, &user, "crane-1", "crane");
    one.publish_acked(TELEMETRY, br#"{"ts":1000,"values":{"t":1}}"#);
    let mut socket = connect(api, 1, &user);
    let single =
        json!({ "type": "singleEntity", "singleEntity": { "entityType": "DEVICE", "id": id } });
    let past = json!({ "keys": ["t"], "startTs": 1, "endTs": 2_000 });
    let command = json!({ "query": { "entityFilter": single }, "historyCmd": past });
    say(&mut socket, "ENTITY_DATA", 4, &command);
    assert_eq!(socket.next()["data"]["totalElements"], 1);
    let samples = socket.next()["update"][0]["timeseries"]["t"].clone();
    assert_eq!(samples, json!([{ "ts": 1_000, "value": "1" }]));
    // And those that come.
    let coming = json!({ "keys": ["t"], "startTs": 1, "timeWindow": 10_000, "agg": "NONE" });
    say(&mut socket, "ENTITY_DATA", 4, &json!({ "tsCmd": coming }));
    assert_eq!(socket.next()["update"][0]["timeseries"]["t"], samples);
    one.publish_acked(TELEMETRY, br#"{"ts":3000,"values":{"t":2}}"#);
    let news = socket.next()["update"][0]["timeseries"]["t"].clone();
    assert_eq!(news, json!([{ "ts": 3_000, "value": "2" }]));
}

fn wrong(api: &mut Api) {
    let user = User::new(api, "wrong-many", "read-only");
    let mut socket = connect(api, 1, &user);
    let mut refused = |kind: &str, more: Value| {
        say(&mut socket, kind, 5, &more);
        let said = socket.next();
        assert_eq!((&said["cmdId"], &said["errorCode"]), (&json!(5), &json!(2)), "{said}");
        said["errorMsg"].as_str().unwrap().to_owned()
    };
    let assets = json!({ "type": "assetType", "assetType": "x" });
    let why = refused("ENTITY_COUNT", json!({ "query": { "entityFilter": assets } }));
    assert!(why.contains("assetType"), "{why}");
    let keys = json!({ "keys": [{ "type": "TIME_SERIES", "key": "t" }] });
    assert_eq!(refused("ENTITY_DATA", json!({ "latestCmd": keys })), "query is needed");
    // More than a connection may have.
    let every = json!([
        { "type": "TIME_SERIES", "key": "t" }, { "type": "ATTRIBUTE", "key": "a" },
        { "type": "CLIENT_ATTRIBUTE", "key": "a" },
    ]);
    let query =
        json!({ "entityFilter": of_type("lift"), "pageLink": { "pageSize": 100, "page": 0 } });
    let why = refused("ENTITY_DATA", json!({ "query": query, "latestCmd": { "keys": every } }));
    assert!(why.contains("256 subscriptions"), "{why}");
}
