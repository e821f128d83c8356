//! What is kept of Losant's devices, at its bounds: texts of 64 KiB, pages of a history, and commands of one millisecond.

use std::{collections::BTreeSet, thread, time::SystemTime};

use serde_json::json;

use crate::{
    harness::{
        scenarios,
        wait::{SOON, until_true},
    },
    losant::{Yard, commands_of, json_of, state_of},
};

/// Bytes of a text.
const TEXT: usize = 64 * 1_024;
/// Points with such a text on one page of a history: no more is looked at than 256 KiB, or a point behind them.
const PER_PAGE: usize = 4;
/// Pages that every question for a history looks at; more are for few at once.
const PAGES: usize = 16;
/// Such texts of one request.
const AT_ONCE: usize = 3;

#[test]
fn what_is_kept_of_a_device_is_bounded_and_whole() {
    let mut yard = Yard::start();
    scenarios(
        &mut yard,
        &[
            ("a text of 64 KiB is a value, and a longer one is left out", texts),
            ("a history is read over its pages, from either end", history),
            ("commands of one millisecond are all in the history", one_millisecond),
            ("a command of more than 32 KiB is in the history", long_command),
        ],
    );
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn texts(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let mut say = |value: u64, bytes: usize| {
        let said = json!({ "data": { "temperature": value, "label": "ä".repeat(bytes / 2) } });
        client.publish_acked(&state_of(&device), said.to_string().as_bytes());
        said["data"].clone()
    };
    // As long as it may be, by bytes and not by characters.
    let said = say(1, TEXT);
    let composite = yard.get(3, &format!("/devices/{device}/compositeState"));
    for name in ["temperature", "label"] {
        assert_eq!(composite[name]["value"], said[name], "{name}");
    }
    let states = yard.get(2, &format!("/devices/{device}/state?limit=2"));
    assert_eq!((states.as_array().unwrap().len(), &states[0]["data"]), (1, &said));
    // One more: the others of its state count.
    say(2, TEXT + 2);
    let composite = yard.get(3, &format!("/devices/{device}/compositeState"));
    assert_eq!(composite["temperature"]["value"], 2);
    assert_eq!(composite["label"]["value"], said["label"], "it is what it was");
}

fn history(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (most, path) = (PAGES * PER_PAGE, format!("/devices/{device}/state"));
    let all = most + 2;
    let begun_ms = now_ms() - 3_600_000;
    let said = |number: usize| {
        let time = begun_ms + i64::try_from(number).unwrap();
        let label = "x".repeat(TEXT - 2) + &format!("{number:02}");
        json!({ "time": time, "data": { "label": label, "temperature": number } })
    };
    for first in (0..all).step_by(AT_ONCE) {
        let states: Vec<_> = (first..all.min(first + AT_ONCE)).map(said).collect();
        yard.done(1, "POST", &path, &json!(states));
    }
    let numbers = |query: &str| {
        let found = yard.get(2, &format!("{path}?{query}"));
        let found = found.as_array().unwrap().clone();
        found
            .iter()
            .map(|one| usize::try_from(one["data"]["temperature"].as_u64().unwrap()).unwrap())
            .collect::<Vec<_>>()
    };
    let newest_first = |from: usize, count: usize| (from + 1 - count..=from).rev();
    for count in [1, PER_PAGE - 1, PER_PAGE, PER_PAGE + 1, 2 * PER_PAGE] {
        let newest: Vec<_> = newest_first(all - 1, count).collect();
        assert_eq!(numbers(&format!("limit={count}")), newest, "{count}");
        let oldest: Vec<_> = (0..count).collect();
        assert_eq!(numbers(&format!("limit={count}&sortDirection=asc")), oldest, "{count}");
    }
    // Up to the last page that every question looks at, and one behind it.
    for count in [most, all, 1_000] {
        let oldest = numbers(&format!("limit={count}&sortDirection=asc"));
        assert_eq!(oldest, (0..count.min(all)).collect::<Vec<_>>(), "{count}");
    }
    let since = begun_ms + i64::try_from(most).unwrap();
    let behind = numbers(&format!("limit=1000&sortDirection=asc&since={since}"));
    assert_eq!(behind, (most..all).collect::<Vec<_>>());
}

fn one_millisecond(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let ahead = json!({ "data": { "temperature": 1 }, "time": now_ms() + 3_600_000 });
    client.publish_acked(&state_of(&device), ahead.to_string().as_bytes());
    let (yard, device) = (&*yard, &device);
    // As many as a node takes of a device in a window, at all of them at once.
    let (nodes, each) = (1..=3_u64, 25);
    let path = format!("/devices/{device}/command");
    thread::scope(|scope| {
        for node in nodes.clone() {
            let path = &path;
            scope.spawn(move || {
                for number in 0..each {
                    let name = format!("{node}-{number}");
                    yard.done(node, "POST", path, &json!({ "name": name }));
                }
            });
        }
    });
    let found = yard.get(1, &format!("{path}?limit=100&sortDirection=asc"));
    let names: Vec<_> =
        found.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let all: BTreeSet<_> = names.iter().copied().collect();
    assert_eq!((names.len(), all.len()), (75, 75), "{names:?}");
    for node in nodes {
        // Of each node in the order in which it took them.
        let prefix = format!("{node}-");
        let of_node = names.iter().filter_map(|name| name.strip_prefix(&prefix));
        let expected: Vec<_> = (0..each).map(|number: usize| number.to_string()).collect();
        assert_eq!(of_node.collect::<Vec<_>>(), expected, "{node}");
    }
    let last = yard.get(2, &path);
    assert_eq!(last[0]["name"].as_str(), names.last().copied());
}

fn long_command(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    client.subscribe(&[(&commands_of(&device), 0)]);
    let path = format!("/devices/{device}/command");
    let payload = "p".repeat(TEXT - 200);
    yard.done(3, "POST", &path, &json!({ "name": "long", "payload": payload }));
    assert_eq!(json_of(&client.message())["payload"], payload);
    until_true("it is in the history", SOON, || yard.get(2, &path)[0]["payload"] == payload);
    let (status, _) =
        yard.rest(3, "POST", &path, &json!({ "name": "longer", "payload": "p".repeat(TEXT) }));
    assert_eq!(status, 413, "with what is around it, it is more than a command may have");
}
