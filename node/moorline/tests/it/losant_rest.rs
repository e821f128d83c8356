//! What those who manage devices of Losant ask for: lists, queries, what was reported over a while; and what is too much.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    harness::{
        packet::Connect,
        scenarios,
        wait::{SOON, until_true},
    },
    losant::{TOO_MANY, Yard, commands_of, json_of, state_of},
};

#[test]
fn an_application_is_managed() {
    let mut yard = Yard::start();
    scenarios(
        &mut yard,
        &[
            ("lists are sorted, filtered and paged", lists),
            ("queries find devices, and what they don't know is refused", queries),
            ("states are shown as asked for", states),
            ("what was reported over a while is taken together", data),
            ("thirty requests of a kind are taken in fifteen seconds", limits),
            ("a strict tenant refuses sessions that last", strict),
        ],
    );
}

/// What a query would be in a URL.
fn encoded(query: &Value) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    query.to_string().bytes().map(byte).collect()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// Devices of a scenario, by name.
fn plant(yard: &Yard, site: &str) -> BTreeMap<&'static str, String> {
    let one = |name: &'static str, class: &str, floor: &str| {
        let tags = json!([{ "key": "site", "value": site }, { "key": "floor", "value": floor }]);
        let made = yard.device(class, &json!({ "name": name, "tags": tags }));
        (name, made)
    };
    BTreeMap::from([
        one("Pump 2", "standalone", "1"),
        one("Pump 1", "gateway", "2"),
        one("Valve 1", "standalone", "2"),
    ])
}

fn lists(yard: &mut Yard) {
    plant(yard, "lists");
    let of = "tagFilter[0][key]=site&tagFilter[0][value]=lists";
    #[rustfmt::skip]
    let table = [
        ("",                                          &["Pump 1", "Pump 2", "Valve 1"][..], 3),
        ("sortDirection=desc",                        &["Valve 1", "Pump 2", "Pump 1"],     3),
        ("filter=pump*",                              &["Pump 1", "Pump 2"],                2),
        ("filterField=name&filter=*1&perPage=1",      &["Pump 1"],                          2),
        ("perPage=2&page=1",                          &["Valve 1"],                         3),
        ("deviceClass=gateway",                       &["Pump 1"],                          1),
        ("tagFilter[1][key]=floor&tagFilter[1][value]=1", &["Pump 2"],                      1),
    ];
    for (query, expected, total) in table {
        let list = yard.get(2, &format!("/devices?{of}&{query}"));
        assert_eq!(
            (names(&list).as_slice(), &list["totalCount"]),
            (expected, &json!(total)),
            "{query}"
        );
        assert!(list["items"][0]["connectionInfo"].is_object());
    }
    // Each is made at its own shard's time, two within a millisecond at times.
    let made = |direction: &str| -> Vec<String> {
        let query = format!("{of}&sortField=creationDate&sortDirection={direction}");
        let list = yard.get(1, &format!("/devices?{query}"));
        let items = list["items"].as_array().unwrap().iter();
        items.map(|one| one["creationDate"].as_str().unwrap().to_owned()).collect()
    };
    let (up, down) = (made("asc"), made("desc"));
    assert!(up.len() == 3 && up.is_sorted(), "{up:?}");
    assert!(down.iter().rev().eq(&up), "{down:?}");
    for wrong in
        ["sortField=colour", "sortDirection=up", "filterField=tags&filter=x", "tagFilter=x"]
    {
        let (status, said) = yard.rest(1, "GET", &format!("/devices?{wrong}"), &Value::Null);
        assert_eq!((status, &said["type"]), (400, &json!("Validation")), "{wrong}: {said}");
    }
    let first = yard.new_key(&json!({ "status": "inactive" }));
    let second = yard.new_key(&json!({ "status": "inactive" }));
    let keys = |query: &str| -> Vec<(String, String)> {
        let list = yard.get(3, &format!("/keys?filterField=status&filter=inactive&{query}"));
        let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|one| (text(one, "creationDate"), text(one, "id"))).collect()
    };
    let newest_first = keys("");
    assert!(newest_first.len() == 2 && newest_first[0].0 >= newest_first[1].0, "{newest_first:?}");
    assert!(
        [&first.id, &second.id].iter().all(|id| newest_first.iter().any(|(_, known)| known == *id))
    );
    assert_eq!(keys("sortDirection=asc&perPage=1"), newest_first[1..]);
}

fn queries(yard: &mut Yard) {
    let devices = plant(yard, "queries");
    let site = json!({ "tags": { "site": "queries" } });
    #[rustfmt::skip]
    let table = [
        (json!({ "name": { "$startsWith": "Pump" } }),                 &["Pump 1", "Pump 2"][..]),
        (json!({ "deviceClass": "gateway" }),                          &["Pump 1"]),
        (json!({ "id": { "$in": [devices["Valve 1"]] } }),             &["Valve 1"]),
        (json!({ "$or": [{ "tags.floor": "1" }, { "name": "Valve 1" }] }), &["Pump 2", "Valve 1"]),
        (json!({ "tags": { "$ne": { "$tagKey": "floor", "$tagValue": "2" } } }), &["Pump 2"]),
        (json!({ "attributeName": "colour" }),                         &[]),
    ];
    for (query, expected) in table {
        let query = json!({ "$and": [site, query] });
        // What filters besides means nothing then.
        let path = format!("/devices?filter=nobody&query={}", encoded(&query));
        assert_eq!(names(&yard.get(1, &path)), expected, "{query}");
    }
    #[rustfmt::skip]
    let wrong = [
        json!({ "colour": "red" }), json!({ "name": { "$regex": "a" } }), json!({ "connectionStatus": "connected" }), json!([]),
    ];
    for query in wrong {
        let path = format!("/devices?query={}", encoded(&query));
        let (status, said) = yard.rest(2, "GET", &path, &Value::Null);
        assert_eq!((status, &said["type"]), (400, &json!("Validation")), "{query}");
        let command = json!({ "name": "go", "deviceQuery": query });
        assert_eq!(yard.rest(2, "POST", "/devices/command", &command).0, 400, "{query}");
    }
    let mut hears: BTreeMap<_, _> = BTreeMap::new();
    for (name, id) in &devices {
        let (mut client, _) = yard.connect(id).to(yard.at(1));
        client.subscribe(&[(&commands_of(id), 0)]);
        hears.insert(*name, client);
    }
    let query = json!({ "$and": [site, { "tags.floor": "2" }] });
    yard.done(3, "POST", "/devices/command", &json!({ "name": "go", "deviceQuery": query }));
    for (name, client) in &mut hears {
        match *name {
            "Pump 2" => client.hears_nothing(),
            _ => assert_eq!(json_of(&client.message())["name"], "go", "{name}"),
        }
    }
}

/// A device that said three numbers, four, two and one minute ago by the clock of the machine; and when that was.
fn measured(yard: &Yard, name: &str) -> (String, i64) {
    let device = yard.device("standalone", &json!({ "name": name }));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let now = json!({ "data": { "temperature": 0 } });
    client.publish_acked(&state_of(&device), now.to_string().as_bytes());
    let last = yard.get(1, &format!("/devices/{device}/compositeState"));
    let now_ms = millis(last["temperature"]["time"].as_str().unwrap());
    for (minutes, value, label) in [(4, 1, "a"), (2, 2, "b"), (1, 6, "c")] {
        let said = json!({
            "time": now_ms - minutes * 60_000, "data": { "temperature": value, "label": label },
        });
        client.publish_acked(&state_of(&device), said.to_string().as_bytes());
    }
    (device, now_ms)
}

/// Milliseconds since 1970 of a time as answers write it.
fn millis(text: &str) -> i64 {
    let when = moorline_dialects::losant::when::When::read(Some(&json!(text)));
    when.ms(i64::MIN)
}

fn states(yard: &mut Yard) {
    let (device, now_ms) = measured(yard, "states");
    let since = now_ms - 150_000;
    #[rustfmt::skip]
    let table = [
        (String::new(),                                   json!([0])),
        ("limit=2".into(),                                json!([0, 6])),
        ("limit=9".into(),                                json!([0, 6, 2, 1])),
        ("limit=2&sortDirection=asc".into(),              json!([1, 2])),
        (format!("limit=9&since={since}"),                json!([0, 6, 2])),
        (format!("since={since}&sortDirection=asc"),      json!([2])),
        (format!("since={}", now_ms + 60_000),            json!([])),
        ("limit=9&attributes=label".into(),               json!([null, null, null])),
        ("limit=0".into(),                                json!([])),
    ];
    for (query, expected) in table {
        let found = yard.get(3, &format!("/devices/{device}/state?{query}"));
        let values = found.as_array().unwrap().iter().map(|one| one["data"]["temperature"].clone());
        assert_eq!(json!(values.collect::<Vec<_>>()), expected, "{query}");
    }
    let wrong = format!("/devices/{device}/state?sortDirection=up");
    assert_eq!(yard.rest(1, "GET", &wrong, &Value::Null).0, 400);
}

fn data(yard: &mut Yard) {
    let (device, now_ms) = measured(yard, "data");
    let other = yard.device("standalone", &json!({ "name": "silent" }));
    let series = |more: Value| {
        let mut asked = json!({
            "start": now_ms - 300_000, "end": now_ms, "deviceIds": [device, other],
            "attributes": ["temperature"],
        });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        yard.rest(2, "POST", "/data/time-series-query", &asked)
    };
    let taken = |more: Value| {
        let (status, said) = series(more);
        assert_eq!(status, 200, "{said}");
        assert_eq!(said["devices"][&other], json!({ "name": "silent", "points": [] }));
        let of = &said["devices"][&device];
        assert_eq!(of["name"], "data");
        let points = of["points"].as_array().unwrap().clone();
        points.iter().map(|point| point["data"]["temperature"].clone()).collect::<Vec<_>>()
    };
    let step = json!(150_000);
    #[rustfmt::skip]
    let table = [
        (json!({}),                                                      json!([1, 2, 6])),
        (json!({ "order": "desc", "limit": 1 }),                         json!([6])),
        (json!({ "aggregation": "MEAN" }),                               json!([3])),
        (json!({ "aggregation": "MAX", "resolution": step }),            json!([1, 6])),
        (json!({ "aggregation": "COUNT", "resolution": step }),          json!([1, 2])),
        (json!({ "aggregation": { "type": "SUM" }, "resolution": step }), json!([1, 8])),
        (json!({ "start": now_ms - 130_000, "aggregation": "FIRST" }),   json!([2])),
    ];
    for (more, expected) in table {
        assert_eq!(json!(taken(more.clone())), expected, "{more}");
    }
    for wrong in [
        json!({ "aggregation": "MODE" }),
        json!({ "end": 1 }),
        json!({ "deviceIds": [], "deviceQuery": { "colour": 1 } }),
    ] {
        assert_eq!(series(wrong.clone()).0, 400, "{wrong}");
    }
    let asked =
        json!({ "attribute": "label", "deviceQuery": { "id": { "$in": [device, other] } } });
    let last = yard.done(3, "POST", "/data/last-value-query", &asked);
    let expected = json!({ "label": "c" });
    assert_eq!((&last[&device]["data"], last.get(&other)), (&expected, None));
}

fn limits(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let of = |what: &str| format!("/devices/{device}/{what}");
    #[rustfmt::skip]
    let table = [
        (of("state"),                json!({ "data": { "temperature": 1 } })),
        (of("command"),              json!({ "name": "go" })),
        (of("setConnectionStatus"),  json!({ "status": "connected" })),
        ("/mqttPublishMessage".into(), json!({ "topic": "plant/limits", "message": "" })),
    ];
    for (path, body) in table {
        let mut all: Vec<_> = (0..TOO_MANY).map(|_| yard.rest(1, "POST", &path, &body)).collect();
        let (status, last) = all.pop().unwrap();
        assert!(all.iter().all(|(status, _)| *status == 200), "{path}: {all:?}");
        let throttled = json!("Over rate limit, request throttled");
        assert_eq!(
            (status, &last["type"], &last["message"]),
            (429, &json!("TooManyRequests"), &throttled)
        );
    }
    // Another device, and what only reads, are not stopped by that.
    let other = yard.device("standalone", &json!({}));
    yard.done(1, "POST", &format!("/devices/{other}/command"), &json!({ "name": "go" }));
    yard.get(1, &of("state"));
}

fn strict(yard: &mut Yard) {
    let set = |only: bool| {
        let change = json!({ "settings": { "sessions": { "clean-only": only } } });
        let changed = yard.api.ask(1, "PATCH", "/tenants/yard", &change);
        assert_eq!(changed.0, 200, "{}", changed.1);
    };
    let device = yard.device("standalone", &json!({}));
    let lasting = Connect { clean: false, ..yard.connect(&device) };
    set(true);
    until_true("it is refused", SOON, || lasting.reason(yard.at(3)) == 2);
    assert_eq!(yard.connect(&device).reason(yard.at(3)), 0);
    set(false);
    until_true("it is taken again", SOON, || lasting.reason(yard.at(3)) == 0);
}
