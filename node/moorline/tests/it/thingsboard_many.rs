//! ThingsBoard's WebSocket API for many devices: how many there are, a page of them with what is wanted of each, what changes, which they
//! are by what they say, and how a list follows them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        mqtt::Client,
        packet::Version,
        scenarios,
        wait::{SOON, until_true},
        websocket::{Heard, Socket},
    },
    thingsboard::{device, set},
    thingsboard_rest::User,
};

const TELEMETRY: &str = "v1/devices/me/telemetry";
/// A list is looked at every ten seconds; a count and a page each for themselves, so twice, and a busy machine.
const FOLLOWED: Duration = Duration::from_secs(60);

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
            ("devices are found by what they say", filtered),
            ("a list and a count follow devices that come and go", followed),
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

/// A key filter: the kind of the key, the key, what sort of predicate, its operation, and with what.
fn filter(kind: &str, key: &str, sort: &str, operation: &str, than: &Value) -> Value {
    let value = json!({ "defaultValue": than, "dynamicValue": null });
    json!({
        "key": { "type": kind, "key": key }, "valueType": sort,
        "predicate": { "type": sort, "operation": operation, "value": value },
    })
}

fn filtered(api: &mut Api) {
    let user = User::new(api, "filtering", "operator");
    let mut clients = Vec::new();
    for (name, t) in [("oven-1", 10), ("oven-2", 30), ("oven-3", 50)] {
        let (_, mut client) = made(api, &user, name, "oven");
        client.publish_acked(TELEMETRY, json!({ "t": t }).to_string().as_bytes());
        clients.push(client);
    }
    set(api, 1, "oven-2", &json!({ "mode": "eco" }));
    set(api, 2, "oven-3", &json!({ "mode": "fast" }));
    // One that was never heard from.
    let new = json!({ "name": "oven-4", "type": "oven" });
    assert_eq!(user.ask(api, 1, "POST", "/api/device", &new).status, 200);
    let mut socket = connect(api, 3, &user);
    let mut next = 100;
    let mut named = |filters: &[Value]| {
        next += 1;
        let name = json!({ "type": "ENTITY_FIELD", "key": "name" });
        let query = json!({
            "entityFilter": of_type("oven"), "keyFilters": filters,
            "pageLink": { "pageSize": 2, "page": 0, "sortOrder": by_name() },
            "entityFields": [name],
        });
        say(&mut socket, "ENTITY_DATA", next, &json!({ "query": query }));
        let shown = socket.next();
        assert_eq!(shown["errorCode"], 0, "{shown}");
        let rows = shown["data"]["data"].as_array().unwrap().clone();
        let name = |row: &Value| row["latest"]["ENTITY_FIELD"]["name"]["value"].clone();
        let names: Vec<Value> = rows.iter().map(name).collect();
        (json!(names), shown["data"]["totalElements"].as_u64().unwrap())
    };
    let above = |than: i64| filter("TIME_SERIES", "t", "NUMERIC", "GREATER", &json!(than));
    let eco = |operation| filter("SHARED_ATTRIBUTE", "mode", "STRING", operation, &json!("eco"));
    let active = |than| filter("SERVER_ATTRIBUTE", "active", "BOOLEAN", "EQUAL", &json!(than));
    let called = filter("ENTITY_FIELD", "name", "STRING", "ENDS_WITH", &json!("3"));
    assert_eq!(named(&[above(20)]), (json!(["oven-2", "oven-3"]), 2));
    assert_eq!(named(&[above(9)]), (json!(["oven-1", "oven-2"]), 3), "a page of three");
    assert_eq!(named(&[above(20), eco("EQUAL")]), (json!(["oven-2"]), 1));
    assert_eq!(named(&[eco("NOT_EQUAL"), above(0)]), (json!(["oven-3"]), 1), "who has a mode");
    assert_eq!(named(&[called]), (json!(["oven-3"]), 1));
    // That they are there is reported a moment after they came.
    until_true("they are there", SOON, || named(&[active(true)]).1 == 3);
    assert_eq!(named(&[active(false)]), (json!(["oven-4"]), 1));
    let (low, high) = (filter("", "", "NUMERIC", "LESS", &json!(20)), above(40));
    let either = json!({
        "type": "COMPLEX", "operation": "OR", "predicates": [low["predicate"], high["predicate"]],
    });
    let either = json!({ "key": { "type": "TIME_SERIES", "key": "t" }, "predicate": either });
    assert_eq!(named(&[either]), (json!(["oven-1", "oven-3"]), 2));
}

fn followed(api: &mut Api) {
    let user = User::new(api, "following", "operator");
    let (first, mut client) = made(api, &user, "boat-1", "boat");
    client.publish_acked(TELEMETRY, br#"{"t":50}"#);
    let mut socket = connect(api, 2, &user);
    let hot = filter("TIME_SERIES", "t", "NUMERIC", "GREATER", &json!(20));
    let series = json!([{ "type": "TIME_SERIES", "key": "t" }]);
    let query = json!({
        "entityFilter": of_type("boat"), "keyFilters": [hot],
        "pageLink": { "pageSize": 10, "page": 0, "dynamic": true, "sortOrder": by_name() },
        "latestValues": series,
    });
    say(&mut socket, "ENTITY_COUNT", 1, &json!({ "query": { "entityFilter": of_type("boat") } }));
    assert_eq!(socket.next()["count"], 1);
    let command = json!({ "query": query, "latestCmd": { "keys": series } });
    say(&mut socket, "ENTITY_DATA", 2, &command);
    let (mut count, mut page, mut news) = (1, Value::Null, json!({}));
    let mut hears = |count: &mut u64, page: &mut Value, news: &mut Value| {
        let Heard::Said(said) = socket.hear(FOLLOWED) else { panic!("nothing is said") };
        if let Some(now) = said["count"].as_u64() {
            *count = now;
        } else if let Some(rows) = said["data"]["data"].as_array() {
            *page = rows.iter().map(|row| row["entityId"]["id"].clone()).collect();
        }
        for one in said["update"].as_array().into_iter().flatten() {
            let device = one["entityId"]["id"].as_str().unwrap();
            news[device] = one["latest"]["TIME_SERIES"]["t"]["value"].clone();
        }
    };
    until_true("it is shown", SOON, || {
        hears(&mut count, &mut page, &mut news);
        page == json!([first]) && news[&first] == "50"
    });
    // Another one comes, and is hot: it is on the page, and watched.
    let (second, mut other) = made(api, &user, "boat-2", "boat");
    other.publish_acked(TELEMETRY, br#"{"t":40}"#);
    until_true("it comes", FOLLOWED, || {
        hears(&mut count, &mut page, &mut news);
        count == 2 && page == json!([first, second]) && news[&second] == "40"
    });
    other.publish_acked(TELEMETRY, br#"{"t":41}"#);
    until_true("it is watched", SOON, || {
        hears(&mut count, &mut page, &mut news);
        news[&second] == "41"
    });
    // One is not hot any more, and one is deleted.
    client.publish_acked(TELEMETRY, br#"{"t":5}"#);
    let path = format!("/api/device/{second}");
    assert_eq!(user.ask(api, 3, "DELETE", &path, &Value::Null).status, 200);
    until_true("they go", FOLLOWED, || {
        hears(&mut count, &mut page, &mut news);
        count == 1 && page == json!([])
    });
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
    let filters = [filter("TIME_SERIES", "t", "NUMERIC", "LIKE", &json!(1))];
    let query = json!({ "entityFilter": of_type("lift"), "keyFilters": filters });
    let why = refused("ENTITY_COUNT", json!({ "query": query }));
    assert_eq!(why, "keyFilters: the operation \"LIKE\" is not served");
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
