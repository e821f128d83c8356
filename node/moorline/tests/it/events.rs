//! Events: appended through any node, read from any node, while leaders die; consumer groups; filters; the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    cluster::SHARDS,
    http,
    node::MOORLINE,
    scenarios,
    sse::{Said, Sse},
    wait::{READY, SOON, until, until_true},
};

/// Devices of a tenant, enough for all shards.
const DEVICES: u64 = 30;

/// A cluster with devices that have spoken.
struct Fleet {
    api: Api,
    /// How often each did, while leaders died.
    rounds: u64,
}

/// All they said in so many rounds.
fn everything(rounds: u64) -> BTreeSet<(String, u64)> {
    let of = |n| (0..DEVICES).map(move |device| (format!("d{device}"), n));
    (0..rounds).flat_map(of).collect()
}

fn tenant(api: &Api, name: &str) {
    assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": name })).0, 201);
}

fn device(api: &Api, tenant: &str, name: &str) {
    let path = format!("/devices?tenant={tenant}");
    assert_eq!(api.ask(1, "POST", &path, &json!({ "name": name })).0, 201);
}

fn token(api: &Api, tenant: &str, name: &str, role: &str) -> String {
    let path = format!("/tokens?tenant={tenant}");
    text(&api.ask(1, "POST", &path, &json!({ "name": name, "role": role })), 201, "token")
}

/// Reports an event; the status.
fn report(api: &Api, node: u64, tenant: &str, device: &str, n: u64) -> u16 {
    let path = format!("/devices/{device}/events?tenant={tenant}");
    let event = json!({ "type": "datapoint", "channel": "env", "data": { "n": n } });
    api.ask(node, "POST", &path, &event).0
}

fn open(api: &Api, node: u64, token: &str, query: &str, last: Option<&str>) -> Sse {
    try_open(api, node, token, query, last)
        .unwrap_or_else(|(status, why)| panic!("{status}: {why}"))
}

fn try_open(
    api: &Api,
    node: u64,
    token: &str,
    query: &str,
    last: Option<&str>,
) -> Result<Sse, (u16, String)> {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(last.map(|last| ("last-event-id", last)));
    Sse::open(api.cluster.node(node).admin, &format!("/api/v1/events?{query}"), &headers)
}

/// Device and number of a datapoint.
fn datapoint(said: &Said) -> (String, u64) {
    assert_eq!(said.event, None, "nothing is missed: {said:?}");
    let event = said.data.as_ref().unwrap();
    let device = event["device"].as_str().unwrap().to_owned();
    (device, event["data"]["n"].as_u64().unwrap_or_else(|| panic!("{event}")))
}

/// Reads until all of these have come, in the order they come.
#[track_caller]
fn read_all(sse: &mut Sse, wanted: &BTreeSet<(String, u64)>, came: &mut Vec<(String, u64)>) {
    let mut missing = wanted.clone();
    came.iter().for_each(|one| _ = missing.remove(one));
    while !missing.is_empty() {
        let said = sse.next(READY);
        let said = said.unwrap_or_else(|| panic!("{} are missing: {missing:?}", missing.len()));
        let one = datapoint(&said);
        missing.remove(&one);
        came.push(one);
    }
}

#[track_caller]
fn in_order_of_each_device(came: &[(String, u64)]) {
    let mut last = BTreeMap::new();
    for (device, n) in came {
        // The same again: its first report was not answered.
        assert!(
            last.insert(device, n).is_none_or(|before| before <= n),
            "{device}: {n} in {came:?}"
        );
    }
}

#[test]
fn what_devices_send_up_is_read_everywhere() {
    let api = Api::start();
    for name in ["acme", "other"] {
        tenant(&api, name);
        (0..DEVICES).for_each(|number| device(&api, name, &format!("d{number}")));
    }
    let mut fleet = Fleet { api, rounds: 0 };
    scenarios(
        &mut fleet,
        &[
            ("nothing is lost and order is kept while leaders die", leaders_die),
            ("a consumer group goes on where it has committed, on another node", groups_go_on),
            ("a reader says what it wants to read", filters),
            ("only who may reads, and no more than may", readers_are_limited),
            ("a token that is revoked ends its streams", revoked),
            ("retention takes the oldest, and says so", retention),
            ("the command line prints and commits", command_line),
        ],
    );
    fleet.api.cluster.digests_agree();
}

/// Whether a node leads one of these shards.
fn leads(api: &Api, node: u64, shards: &BTreeSet<u16>) -> bool {
    let led = |shard: &u16| {
        let leader = api.cluster.node(1).group(*shard, "leader");
        leader.is_some_and(|leader| leader == node)
    };
    shards.iter().any(led)
}

fn leaders_die(fleet: &mut Fleet) {
    let api = &mut fleet.api;
    let (mine, others) =
        (token(api, "acme", "reader", "app"), token(api, "other", "reader", "app"));
    let mut foreign = open(api, 2, &others, "", None);
    let mut sse = open(api, 2, &mine, "", None);
    let (to, app) = (api.cluster.node(1).admin, mine.clone());
    let (said, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, stopped) = (Arc::clone(&said), Arc::clone(&stop));
    let devices = thread::spawn(move || {
        let (mut shards, mut rounds) = (BTreeSet::new(), 0);
        while !stopped.load(Ordering::Relaxed) {
            let n = rounds;
            rounds += 1;
            for device in 0..DEVICES {
                let path = format!("/api/v1/devices/d{device}/events");
                let event = json!({ "type": "datapoint", "channel": "env", "data": { "n": n } });
                let bearer = format!("Bearer {app}");
                // One that was not answered may be in the stream; the device says it again.
                let id = until("an event is taken", READY, || {
                    let headers = [("authorization", bearer.as_str())];
                    let answer = http::api("POST", to, &path, &headers, &event.to_string());
                    (answer.status == 201).then(|| answer.json()["id"].clone())
                });
                let (shard, _) = id.as_str().unwrap().split_once('-').unwrap();
                shards.insert(shard.parse::<u16>().unwrap());
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        (shards, rounds)
    });
    let shards: BTreeSet<u16> = (1..=SHARDS).collect();
    let speak_on = || {
        let before = said.load(Ordering::Relaxed);
        until_true("devices speak", READY, || said.load(Ordering::Relaxed) > before + DEVICES);
    };
    let mut came = Vec::new();
    for paused in [false, true] {
        until_true("node 3 leads", READY, || leads(api, 3, &shards));
        speak_on();
        if paused {
            api.cluster.node(3).pause();
        } else {
            api.cluster.node_mut(3).kill();
        }
        speak_on();
        // Also what comes while it is away.
        read_all(&mut sse, &everything(said.load(Ordering::Relaxed) / DEVICES), &mut came);
        if paused {
            api.cluster.node(3).resume();
        } else {
            api.cluster.node_mut(3).start_ready();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (spoken, rounds) = devices.join().unwrap();
    assert_eq!(spoken, shards, "there are devices in all of them");
    fleet.rounds = rounds;
    read_all(&mut sse, &everything(rounds), &mut came);
    in_order_of_each_device(&came);
    // The other tenant's devices have the same names.
    let api = &fleet.api;
    assert_eq!(report(api, 3, "other", "d1", 99), 201);
    assert_eq!(datapoint(&foreign.next(SOON).unwrap()), ("d1".to_owned(), 99));
}

fn groups_go_on(fleet: &mut Fleet) {
    let api = &fleet.api;
    let app = token(api, "acme", "group", "app");
    let ask = |api: &Api, node, method: &str, path: &str, body: &Value| {
        api.ask_as(&app, node, method, path, body)
    };
    // A group that never committed begins with the oldest.
    let wanted = everything(fleet.rounds);
    let mut first = open(api, 1, &app, "group=g", None);
    let half: Vec<_> = (0..60).map(|_| datapoint(&first.next(READY).unwrap())).collect();
    let cursor = first.cursor.clone();
    let (status, committed) =
        ask(api, 1, "POST", "/consumers/g/commit", &json!({ "cursor": cursor }));
    assert_eq!((status, &committed["cursor"]), (200, &json!(cursor)));
    let (_, before) = ask(api, 2, "GET", "/consumers", &Value::Null);
    let lag = before[0]["lag"].as_u64().unwrap();
    assert_eq!((&before[0]["group"], &before[0]["missed"]), (&json!("g"), &json!(0)));
    assert!(lag >= wanted.len() as u64 - 60, "{before}");

    let mut second = open(api, 3, &app, "group=g", None);
    let rest: Vec<_> = (0..lag).map(|_| datapoint(&second.next(READY).unwrap())).collect();
    let mut all = half.clone();
    all.extend(rest.clone());
    in_order_of_each_device(&all);
    assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), wanted, "all, over two nodes");

    // The same by the header that browsers send when they connect again.
    let mut again = open(api, 2, &app, "group=nobody", Some(&cursor));
    let resumed: BTreeSet<_> = (0..lag).map(|_| datapoint(&again.next(READY).unwrap())).collect();
    assert_eq!(resumed, rest.into_iter().collect());

    let last = json!({ "cursor": second.cursor });
    assert_eq!(ask(api, 2, "POST", "/consumers/g/commit", &last).0, 200);
    let (_, now) = ask(api, 1, "POST", "/consumers/g/commit", &json!({ "cursor": cursor }));
    assert_eq!(now["cursor"], last["cursor"], "never back");
    let (_, after) = ask(api, 3, "GET", "/consumers", &Value::Null);
    assert_eq!((&after[0]["lag"], &after[0]["cursor"]), (&json!(0), &last["cursor"]));
    let beyond = ask(api, 1, "POST", "/consumers/g/commit", &json!({ "cursor": "zz.zz.zz" }));
    assert_eq!(problem(beyond), (409, "beyond-the-end".to_owned()));
    for wrong in ["", "1", "x y", "0.0.0.0"] {
        let answer = ask(api, 1, "POST", "/consumers/g/commit", &json!({ "cursor": wrong }));
        assert_eq!(problem(answer), (400, "malformed".to_owned()), "{wrong}");
    }
    assert_eq!(
        problem(ask(api, 1, "DELETE", "/consumers/g", &Value::Null)).0,
        403,
        "an operator's"
    );
    assert_eq!(api.ask(1, "DELETE", "/consumers/g?tenant=acme", &Value::Null).0, 204);
    assert_eq!(api.ask(2, "DELETE", "/consumers/g?tenant=acme", &Value::Null).0, 404);
    assert_eq!(ask(api, 3, "GET", "/consumers", &Value::Null).1, json!([]));
}

fn filters(fleet: &mut Fleet) {
    let api = &fleet.api;
    let app = token(api, "acme", "filter", "app");
    let of = |query: &str| open(api, 2, &app, query, None);
    let mut all = of("");
    let mut one = of("device=d2");
    let mut doors = of("channel=door&type=message");
    let mut states = of("type=moorline.state&device=d4");
    let say = |device: &str, kind: &str, channel: &str, data: Value| {
        let path = format!("/devices/{device}/events?tenant=acme");
        let event = json!({ "type": kind, "channel": channel, "data": data });
        text(&api.ask(3, "POST", &path, &event), 201, "id")
    };
    let ids = [
        say("d1", "message", "door", json!({ "open": true })),
        say("d2", "datapoint", "env", json!([1, 2.5])),
        say("d4", "state", "", Value::Null),
        say("d4", "message", "door", json!("shut")),
    ];
    let came = |sse: &mut Sse, many| {
        let said = (0..many).map(|_| sse.next(SOON).unwrap().data.unwrap());
        said.map(|event| (event["id"].as_str().unwrap().to_owned(), event))
            .collect::<BTreeMap<_, _>>()
    };
    let whole = came(&mut all, 4);
    assert_eq!(whole.keys().cloned().collect::<BTreeSet<_>>(), ids.clone().into());
    let event = &whole[&ids[1]];
    assert_eq!(
        (&event["specversion"], &event["type"]),
        (&json!("1.0"), &json!("moorline.datapoint"))
    );
    assert_eq!(
        (&event["source"], &event["data"]),
        (&json!("/tenants/acme/devices/d2"), &json!([1, 2.5]))
    );
    assert_eq!((&event["subject"], &event["protocol"]), (&json!("env"), &json!("api")));
    assert_eq!(whole[&ids[2]].get("subject"), None);
    assert!(came(&mut one, 1).contains_key(&ids[1]));
    let both = came(&mut doors, 2);
    assert!(both.contains_key(&ids[0]) && both.contains_key(&ids[3]));
    assert!(came(&mut states, 1).contains_key(&ids[2]));
    for sse in [&mut one, &mut doors, &mut states] {
        assert_eq!(sse.next(std::time::Duration::from_millis(300)), None, "and nothing else");
    }
    for (device, body, status) in [
        ("nobody", json!({ "type": "message" }), 404),
        ("d1", json!({ "type": "presence" }), 400),
        ("d1", json!({ "type": "message", "channel": "a\nb" }), 400),
        ("d1", json!({ "type": "message", "more": 1 }), 400),
    ] {
        let path = format!("/devices/{device}/events?tenant=acme");
        let (answered, why) = api.ask(1, "POST", &path, &body);
        assert!(answered == status || answered == 422 && status == 400, "{answered}: {why}");
    }
}

fn readers_are_limited(fleet: &mut Fleet) {
    let api = &fleet.api;
    let (app, eyes) = (token(api, "acme", "many", "app"), token(api, "acme", "eyes", "read-only"));
    let refused =
        |token: &str, query: &str, last| try_open(api, 1, token, query, last).err().unwrap().0;
    assert_eq!(refused(&eyes, "", None), 403);
    assert_eq!(refused("", "", None), 401);
    assert_eq!(refused(&app, "tenant=other", None), 404);
    for wrong in ["type=no", "after=1", "group=a%20b", "devise=d1", "device=~x"] {
        assert_eq!(refused(&app, wrong, None), 400, "{wrong}");
    }
    assert_eq!(refused(&app, "", Some("zz.zz.zz")), 400, "behind the end");
    let mut held: Vec<_> = (0..32).map(|_| open(api, 1, &app, "device=d1", None)).collect();
    let (status, why) = try_open(api, 1, &app, "", None).err().unwrap();
    assert_eq!(status, 503);
    assert!(why.contains("too-many-readers"), "{why}");
    assert_eq!(report(api, 1, "acme", "d1", 7), 201, "others are served");
    assert_eq!(datapoint(&held[31].next(SOON).unwrap()).1, 7);
    held.clear();
    until_true("a place is free again", SOON, || try_open(api, 1, &app, "", None).is_ok());
}

fn revoked(fleet: &mut Fleet) {
    let api = &fleet.api;
    let app = token(api, "acme", "brief", "app");
    let mut sse = open(api, 3, &app, "", None);
    assert_eq!(report(api, 1, "acme", "d1", 8), 201);
    assert_eq!(datapoint(&sse.next(SOON).unwrap()).1, 8);
    assert_eq!(api.ask(2, "DELETE", "/tokens/brief?tenant=acme", &Value::Null).0, 204);
    assert!(sse.ends(READY));
}

fn retention(fleet: &mut Fleet) {
    let api = &fleet.api;
    let small = json!({ "name": "small", "settings": { "events": { "bytes-max": 2_000 } } });
    assert_eq!(api.ask(1, "POST", "/tenants", &small).0, 201);
    device(api, "small", "d");
    let app = token(api, "small", "reader", "app");
    assert_eq!(report(api, 1, "small", "d", 0), 201);
    let mut sse = open(api, 1, &app, "group=late", None);
    assert_eq!(datapoint(&sse.next(SOON).unwrap()).1, 0);
    let commit = json!({ "cursor": sse.cursor });
    assert_eq!(api.ask_as(&app, 1, "POST", "/consumers/late/commit", &commit).0, 200);
    for n in 1..=100 {
        assert_eq!(report(api, 1 + n % 3, "small", "d", n), 201);
    }
    let late = || api.ask_as(&app, 2, "GET", "/consumers", &Value::Null).1[0].clone();
    until_true("the oldest are gone", SOON, || late()["missed"].as_u64() > Some(50));
    assert_eq!(late()["lag"], 100);
    let mut sse = open(api, 2, &app, "group=late", None);
    let missed = sse.next(SOON).unwrap();
    assert_eq!(missed.event.as_deref(), Some("missed"));
    let missed = missed.data.unwrap()["missed"].as_u64().unwrap();
    assert_eq!(datapoint(&sse.next(SOON).unwrap()).1, missed + 1);
}

/// Runs `moorline` to its end, and gives its lines.
fn lines(api: &Api, token: &str, args: &[&str]) -> Vec<String> {
    let mut command = Command::new(MOORLINE);
    command.args(args).stdin(Stdio::null());
    command.env("MOORLINE_ADMIN", api.cluster.node(1).admin.to_string());
    command.env("MOORLINE_TOKEN", token).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn command_line(fleet: &mut Fleet) {
    let api = &fleet.api;
    tenant(api, "shell");
    device(api, "shell", "d");
    let app = token(api, "shell", "reader", "app");
    for n in 0..7 {
        assert_eq!(report(api, 2, "shell", "d", n), 201);
    }
    let read = |count: &str, more: &[&str]| {
        let args = [&["events", "--group", "cli", "--count", count], more].concat();
        lines(api, &app, &args)
    };
    let first = read("3", &[]);
    assert!(first[2].ends_with(r#" d datapoint env {"n":2}"#), "{first:?}");
    let second = read("2", &["--json"]);
    let event: Value = serde_json::from_str(&second[1]).unwrap();
    assert_eq!(event["data"]["n"], 4, "it went on, and committed what it printed");
    assert_eq!(read("2", &["--only", "subject"]), ["env", "env"]);

    let mut tail = Command::new(MOORLINE);
    tail.args(["device", "tail", "d", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    tail.env("MOORLINE_ADMIN", api.cluster.node(3).admin.to_string());
    let mut tail = Ended(tail.env("MOORLINE_TOKEN", &app).spawn().unwrap());
    let mut printed = std::io::BufReader::new(tail.0.stdout.take().unwrap());
    // When it listens is not to be seen: it prints the first event that comes after.
    let (sender, heard) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
        sender.send(line).unwrap();
    });
    let mut n = 100;
    let line = until("the tail prints", READY, || {
        n += 1;
        assert_eq!(report(api, 1, "shell", "d", n), 201);
        heard.try_recv().ok()
    });
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(event["data"]["n"].as_u64().unwrap() > 100, "{event}");
    drop(tail);
    reader.join().unwrap();
}

/// A process that ends with its handle.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
