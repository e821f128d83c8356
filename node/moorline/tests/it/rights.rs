//! Topic rights in a cluster, and what deleted devices leave: abuse cases 19 to 30, each with a canary that somebody would hear.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    http,
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Version, frame, put_properties, put_text},
    scenarios,
    wait::{SOON, until, until_true},
};

/// How soon a change of rules reaches connections.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Not authorised, in MQTT 5.
const DENIED: u8 = 0x87;
/// A delay of wills that these tests wait for.
const DELAY_S: u32 = 2;
/// How long a will is waited for that must not come.
const NEVER: Duration = Duration::from_secs(4);

#[test]
fn nobody_uses_a_topic_without_the_right() {
    let mut api = Api::start();
    for tenant in ["acme", "other", "ruled"] {
        assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": tenant })).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("a device has the topics below its name", own_subtree),
            ("a filter that is wider than the right is refused (21, 22)", subscribing),
            ("a client id widens nothing (19)", client_ids),
            ("nobody takes over a session of others (20, 28)", takeovers),
            ("what is denied is left out of what is wider (22)", left_out),
            ("a will needs its right, at CONNECT and when it is due (23)", wills),
            ("a deleted device leaves nothing (24, 29)", deleted),
            ("rules that change reach who is there (25)", changed_live),
            ("rules that change reach who comes again (25, 26)", changed_away),
            ("rules of a tenant reach all of its devices", changed_tenant),
            ("a right that ends between PUBLISH and PUBREL (30)", exactly_once),
            ("what is no rule is refused", malformed),
            ("a deleted tenant leaves nothing", deleted_tenant),
            ("replicas hold the same rows", |api| api.cluster.digests_agree()),
        ],
    );
}

/// A device, and how it logs in.
#[derive(Clone)]
struct Device {
    tenant: &'static str,
    name: String,
    secret: String,
}

impl Device {
    #[track_caller]
    fn make(api: &Api, tenant: &'static str, name: &str, settings: &Value) -> Self {
        let made = json!({ "name": name, "settings": settings });
        let answer = api.ask(1, "POST", &format!("/devices?tenant={tenant}"), &made);
        assert_eq!(answer.0, 201, "{}", answer.1);
        let mut device = Self { tenant, name: name.to_owned(), secret: String::new() };
        device.secret = device.credential(api);
        device
    }

    #[track_caller]
    fn credential(&self, api: &Api) -> String {
        let path = format!("/devices/{}/credentials?tenant={}", self.name, self.tenant);
        text(&api.ask(2, "POST", &path, &json!({})), 201, "secret")
    }

    fn path(&self) -> String {
        format!("/devices/{}?tenant={}", self.name, self.tenant)
    }

    #[track_caller]
    fn put(&self, api: &Api, enabled: bool, settings: &Value) {
        let body = json!({ "enabled": enabled, "settings": settings });
        let answer = api.ask(3, "PUT", &self.path(), &body);
        assert_eq!(answer.0, 200, "{}", answer.1);
    }

    #[track_caller]
    fn delete(&self, api: &Api) {
        assert_eq!(api.ask(3, "DELETE", &self.path(), &Value::Null).0, 204);
    }

    fn login(&self, connect: Connect) -> Connect {
        let user = format!("{}@{}", self.name, self.tenant);
        Connect { login: Some((user, self.secret.clone())), ..connect }
    }

    #[track_caller]
    fn clean(&self, api: &Api, node: u64, client: &str) -> Client {
        self.login(Connect::clean(Version::V5, client)).to(api.cluster.mqtt(node)).0
    }

    /// A durable session, and whether there was one.
    #[track_caller]
    fn durable(&self, api: &Api, node: u64, client: &str) -> (Client, bool) {
        let connect = self.login(Connect::durable(Version::V5, client));
        connect.to_patiently(api.cluster.mqtt(node))
    }
}

fn rules(publish: &[&str], subscribe: &[&str]) -> Value {
    json!({ "topics": { "publish": publish, "subscribe": subscribe } })
}

/// Who hears and may say everything in a tenant.
#[track_caller]
fn all(api: &Api, tenant: &'static str, name: &str) -> Device {
    Device::make(api, tenant, name, &rules(&["#"], &["#"]))
}

fn refused(api: &Api, what: &str) -> u64 {
    let name = format!("moorline_rights_refused_total{{what=\"{what}\"}} ");
    let of = |node: &crate::harness::node::Node| {
        let body = http::get(node.admin, "/metrics").unwrap().body;
        let value = body.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    api.cluster.nodes().iter().map(of).sum()
}

/// A publish of QoS 1 by a topic alias: with the topic, or by the alias alone.
fn by_alias(id: u16, topic: &str, alias: u8) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend(id.to_be_bytes());
    put_properties(&mut body, &[0x23, 0, alias]);
    body.extend(b"canary");
    frame(0x32, &body)
}

/// Publishes with QoS 1, which must be accepted, whether anybody hears it or not.
#[track_caller]
fn say(client: &mut Client, topic: &str, payload: &[u8]) {
    let id = client.publish(topic, payload);
    assert!(client.puback(id) < 0x80, "{topic}");
}

fn own_subtree(api: &mut Api) {
    let pump = Device::make(api, "acme", "pump", &json!({}));
    let mut reader = all(api, "acme", "reader").clean(api, 2, "r");
    reader.subscribe_1("#");
    let before = refused(api, "publish");
    let mut client = pump.clean(api, 1, "c");
    say(&mut client, "pump/a", b"1");
    say(&mut client, "pump", b"2");
    for topic in ["other/a", "pump-1/a", "$SYS/x", "reader/a", "a/pump"] {
        let id = client.publish(topic, b"canary");
        assert_eq!(client.puback(id), DENIED, "{topic}");
    }
    client.publish_2(900, "other/a", b"canary", false);
    assert_eq!(client.pubrec(900), DENIED);
    // The alias is known from a topic that was denied, and is that topic still.
    for (id, topic) in [(901, "other/a"), (902, "")] {
        client.send(&by_alias(id, topic, 1)).unwrap();
        assert_eq!(client.puback(id), DENIED, "{topic:?}");
    }
    // 3.1.1 can't say no: acknowledged, dropped and counted.
    let old = pump.login(Connect::clean(Version::V4, "old"));
    let (mut old, _) = old.to(api.cluster.mqtt(3));
    say(&mut old, "other/a", b"canary");
    old.publish_once("other/a", b"canary");
    say(&mut old, "pump/a", b"3");
    assert_eq!(reader.take(3), ["1", "2", "3"]);
    reader.hears_nothing();
    assert_eq!(refused(api, "publish") - before, 10);
}

fn subscribing(api: &mut Api) {
    let mine =
        Device::make(api, "acme", "mine", &rules(&["x/mine/x"], &["x/mine/x", "{device}/#"]));
    let mut client = mine.clean(api, 1, "c");
    let (mut kept, _) = mine.durable(api, 2, "kept");
    let before = refused(api, "subscribe");
    #[rustfmt::skip]
    let table = [
        ("#", DENIED), ("+/+", DENIED), ("$SYS/#", DENIED), ("$share/g/#", DENIED),
        ("$share/g/$SYS/#", DENIED), ("$queue/x", DENIED), ("$CONTROL/#", DENIED), ("x/+/x", DENIED),
        ("x/#", DENIED), ("$share/g/x/+/x", DENIED), ("x/mine/x", 1), ("mine/#", 1), ("mine/+/a", 1),
        ("$share/g/mine/a", 1),
    ];
    let filters: Vec<_> = table.iter().map(|(filter, _)| (*filter, 1)).collect();
    let expected: Vec<_> = table.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(client.subscribe(&filters), expected);
    assert_eq!(kept.subscribe(&filters), expected);
    assert_eq!(refused(api, "subscribe") - before, 20);
    let old = mine.login(Connect::clean(Version::V4, "old"));
    let (mut old, _) = old.to(api.cluster.mqtt(3));
    assert_eq!(old.subscribe(&[("x/+/x", 1), ("x/mine/x", 1)]), [0x80, 1]);
    let mut writer = all(api, "acme", "writer").clean(api, 3, "w");
    for (topic, payload) in [("x/other/x", "canary"), ("other", "canary"), ("x/mine/x", "seen")] {
        say(&mut writer, topic, payload.as_bytes());
    }
    for client in [&mut client, &mut kept, &mut old] {
        assert_eq!(client.take(1), ["seen"]);
        client.hears_nothing();
    }
}

fn client_ids(api: &mut Api) {
    let device = Device::make(api, "acme", "named", &json!({}));
    let mut writer = all(api, "acme", "writer-19").clean(api, 3, "w");
    let huge = "x".repeat(65_535);
    let ids =
        ["#", "+", "a/b", "${tenant}", ".*", "^", "(?i)", "{device}", "pump", "../pump", &huge];
    for id in ids {
        let connect = device.login(Connect::clean(Version::V5, id));
        // Refused is as good.
        let Ok((mut client, _)) = connect.attempt(api.cluster.mqtt(1)) else { continue };
        let filters = [("#", 1), ("+/x", 1), ("pump/x", 1), ("a/b/x", 1), ("named/x", 1)];
        assert_eq!(client.subscribe(&filters), [DENIED, DENIED, DENIED, DENIED, 1], "{id:.10}");
        let denied = client.publish("pump/x", b"canary");
        assert_eq!(client.puback(denied), DENIED, "{id:.10}");
        for (topic, payload) in [("pump/x", "canary"), ("a/b/x", "canary"), ("named/x", "seen")] {
            say(&mut writer, topic, payload.as_bytes());
        }
        assert_eq!(client.take(1), ["seen"], "{id:.10}");
        client.hears_nothing();
        client.disconnect();
    }
    let unnamed = Connect { expiry_s: None, ..Connect::durable(Version::V4, "") };
    let refused = device.login(unnamed).attempt(api.cluster.mqtt(1));
    assert!(refused.is_err(), "3.1.1 has no durable session without a client id");
}

fn takeovers(api: &mut Api) {
    let mine = Device::make(api, "acme", "same", &json!({}));
    let theirs = Device::make(api, "other", "same", &json!({}));
    let neighbour = Device::make(api, "acme", "neighbour", &json!({}));
    let (mut first, _) = mine.durable(api, 1, "same");
    first.subscribe_1("same/#");
    assert_eq!(first.subscribe(&[("$share/g/same/shared", 1)]), [1]);
    // The same device and client ids in another tenant, and its client id by a neighbour.
    let (mut second, present) = theirs.durable(api, 2, "same");
    assert!(!present);
    let (mut third, present) = neighbour.durable(api, 3, "same");
    assert!(!present);
    assert_eq!(second.subscribe(&[("$share/g/same/shared", 1), ("same/#", 1)]), [1, 1]);
    for number in 0..6 {
        say(&mut second, "same/shared", format!("theirs {number}").as_bytes());
    }
    // By both subscriptions.
    let heard = second.take(12);
    assert!(heard.iter().all(|payload| payload.starts_with("theirs")), "{heard:?}");
    for client in [&mut first, &mut second, &mut third] {
        client.hears_nothing();
        client.ping();
    }
    // A client that is no device may not call its session as one's. There is none here: only devices come in.
    let nobody = Connect::clean(Version::V5, "same\u{1F}1\u{1F}same");
    assert!(nobody.attempt(api.cluster.mqtt(1)).is_err());
}

fn left_out(api: &mut Api) {
    let topics = json!({ "topics": {
        "publish": ["#"], "subscribe": ["#"], "deny-subscribe": ["secret/+/key", "secret/#"],
    } });
    let wide = Device::make(api, "acme", "wide", &topics);
    let mut writer = all(api, "acme", "writer-22").clean(api, 3, "w");
    writer.retain("secret/retained/key", b"canary", None);
    writer.retain("plain/retained", b"kept", None);
    let mut clean = wide.clean(api, 1, "clean");
    let (mut kept, _) = wide.durable(api, 2, "kept");
    let before = refused(api, "delivery");
    for client in [&mut clean, &mut kept] {
        assert_eq!(client.subscribe(&[("$share/g/#", 1), ("secret/a", 1)]), [DENIED, DENIED]);
        assert_eq!(client.subscribe(&[("secret/+/+", 1)]), [DENIED]);
        client.subscribe_1("#");
        let retained = client.take(1);
        assert_eq!(retained, ["kept"]);
    }
    for number in 0..50 {
        say(&mut writer, "secret/a/key", b"canary");
        say(&mut writer, "plain/a", format!("{number}").as_bytes());
    }
    writer.publish_once("secret/a", b"canary");
    let expected: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    for client in [&mut clean, &mut kept] {
        assert_eq!(client.take(50), expected);
        client.hears_nothing();
    }
    assert!(refused(api, "delivery") - before >= 102);
    // What was passed over is settled: nothing comes again.
    drop(kept);
    let (mut kept, present) = wide.durable(api, 3, "kept");
    assert!(present);
    kept.hears_nothing();
    writer.retain("plain/retained", b"", None);
    assert_eq!(kept.take(1), [""]);
}

fn wills(api: &mut Api) {
    let leaver = Device::make(api, "acme", "leaver", &json!({}));
    let mut reader = all(api, "acme", "reader-23").clean(api, 2, "r");
    reader.subscribe_1("leaver/#");
    reader.subscribe_1("forbidden");
    let at = api.cluster.mqtt(1);
    let leave = |client: &str, topic: &str, delay_s| {
        let connect = Connect::durable(Version::V5, client).leaving(topic, client, delay_s);
        leaver.login(connect)
    };
    let before = (refused(api, "will"), refused(api, "will-due"));
    assert_eq!(leave("no", "forbidden", 0).reason(at), DENIED);
    let old = leaver.login(Connect::clean(Version::V4, "old").leaving("forbidden", "old", 0));
    assert_eq!(old.reason(at), 5);
    assert_eq!(refused(api, "will") - before.0, 2);
    drop(leave("heard", "leaver/will", 0).to(at));
    assert_eq!(reader.take(1), ["heard"]);
    // Its right ends before its delay does.
    drop(leave("late", "leaver/late", DELAY_S).to(at));
    leaver.put(api, true, &rules(&["leaver/other"], &[]));
    reader.hears_nothing_for(NEVER);
    // It is disabled before.
    leaver.put(api, true, &json!({}));
    drop(leave("disabled", "leaver/disabled", DELAY_S).to(at));
    leaver.put(api, false, &json!({}));
    reader.hears_nothing_for(NEVER);
    // It is deleted before.
    leaver.put(api, true, &json!({}));
    drop(leave("deleted", "leaver/deleted", DELAY_S).to(at));
    leaver.delete(api);
    reader.hears_nothing_for(NEVER);
    assert_eq!(refused(api, "will-due") - before.1, 2, "the last one went with its device");
}

/// Sessions of all shards whose metrics say so.
fn gauge(api: &Api, name: &str) -> u64 {
    let of = |node: &crate::harness::node::Node| {
        let body = http::get(node.admin, "/metrics").unwrap().body;
        let lines = body.lines().filter(|line| line.starts_with(name));
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        values.sum::<u64>()
    };
    api.cluster.nodes().iter().map(of).sum()
}

fn deleted(api: &mut Api) {
    let mortal = Device::make(api, "acme", "mortal", &json!({}));
    let mut writer = all(api, "acme", "writer-24").clean(api, 3, "w");
    let retained = gauge(api, "moorline_retained_messages");
    let mut away = Vec::new();
    for client in ["one", "two", "three", "mortal"] {
        let (mut client, present) = mortal.durable(api, 1, client);
        assert!(!present);
        client.subscribe_1("mortal/#");
        away.push(client);
    }
    let mut here = mortal.clean(api, 2, "here");
    here.retain("mortal/state", b"canary", None);
    for number in 0..9 {
        here.retain(&format!("mortal/{number}"), b"canary", None);
    }
    drop(away);
    say(&mut writer, "mortal/x", b"canary");
    // Nodes count now and then.
    until_true("all of it is counted", SOON, || {
        gauge(api, "moorline_retained_messages") >= retained + 10
    });
    mortal.delete(api);
    let since = Instant::now();
    assert_eq!(here.hear(SOON), Heard::Packet(Packet::Disconnect { reason: DENIED }));
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    until_true("what it retained is gone", SOON, || {
        writer.subscribe_1("mortal/#");
        let heard = writer.hear(Duration::from_millis(300));
        while let Heard::Packet(_) = writer.hear(Duration::from_millis(100)) {}
        heard == Heard::Nothing
    });
    until_true("it is not counted any more", SOON, || {
        gauge(api, "moorline_retained_messages") <= retained
    });
    writer.hears_nothing();
    // Another device of that name is another one.
    let again = Device::make(api, "acme", "mortal", &json!({}));
    let (mut first, present) = again.durable(api, 2, "one");
    assert!(!present);
    first.subscribe_1("mortal/#");
    first.hears_nothing();
    let old = mortal.login(Connect::clean(Version::V5, "one"));
    assert_ne!(old.reason(api.cluster.mqtt(1)), 0, "the old token");
    // Two devices swap their tokens.
    let other = Device::make(api, "acme", "swapper", &json!({}));
    for (one, other) in [(&again, &other), (&other, &again)] {
        let swapped = Device { secret: other.secret.clone(), ..one.clone() };
        let connect = swapped.login(Connect::clean(Version::V5, "one"));
        assert_ne!(connect.reason(api.cluster.mqtt(3)), 0);
    }
}

fn changed_live(api: &mut Api) {
    let device = Device::make(api, "acme", "changing", &rules(&["#"], &["a/#", "b/#"]));
    let mut writer = all(api, "acme", "writer-25").clean(api, 3, "w");
    let mut clean = device.clean(api, 1, "clean");
    let (mut kept, _) = device.durable(api, 2, "kept");
    let mut unhurt = device.clean(api, 3, "unhurt");
    clean.subscribe_1("a/#");
    assert_eq!(kept.subscribe(&[("a/#", 1), ("b/#", 1), ("$share/g/a/x", 1)]), [1, 1, 1]);
    unhurt.subscribe_1("b/#");
    // 32 of them wait for their acknowledgements.
    for number in 0..32 {
        say(&mut writer, "a/x", format!("{number}").as_bytes());
    }
    let first = clean.message();
    clean.ack(&first);
    let since = Instant::now();
    device.put(api, true, &rules(&["b/#"], &["b/#"]));
    for client in [&mut clean, &mut kept] {
        // What was sent before the change may still be read.
        let end = loop {
            match client.hear(SOON) {
                Heard::Packet(Packet::Publish(_)) => {}
                other => break other,
            }
        };
        assert_eq!(end, Heard::Packet(Packet::Disconnect { reason: DENIED }));
    }
    assert!(since.elapsed() < AT_ONCE * 2, "{:?}", since.elapsed());
    say(&mut writer, "a/x", b"canary");
    say(&mut writer, "b/x", b"seen");
    assert_eq!(unhurt.take(1), ["seen"], "who has nothing of it stays");
    let id = unhurt.publish("a/x", b"canary");
    assert_eq!(unhurt.puback(id), DENIED);
    let (mut kept, present) = device.durable(api, 1, "kept");
    assert!(present);
    assert_eq!(kept.take(1), ["seen"], "its queue without what it may not read");
    say(&mut writer, "a/x", b"canary");
    kept.hears_nothing();
    assert_eq!(kept.subscribe(&[("a/#", 1)]), [DENIED]);
}

fn changed_away(api: &mut Api) {
    let device = Device::make(api, "acme", "away", &rules(&[], &["a/#", "b/#"]));
    let mut writer = all(api, "acme", "writer-26").clean(api, 3, "w");
    let (mut kept, _) = device.durable(api, 1, "kept");
    assert_eq!(kept.subscribe(&[("a/#", 1), ("b/#", 2), ("$share/g/a/+", 1)]), [1, 2, 1]);
    drop(kept);
    for topic in ["a/1", "b/1", "a/2", "b/2"] {
        say(&mut writer, topic, topic.as_bytes());
    }
    device.put(api, true, &rules(&[], &["b/#"]));
    let before = refused(api, "resumed-subscription");
    let (mut kept, present) = device.durable(api, 2, "kept");
    assert!(present);
    assert_eq!(kept.take(2), ["b/1", "b/2"]);
    kept.hears_nothing();
    assert_eq!(refused(api, "resumed-subscription") - before, 2);
    // They are ended, not only hidden: with the right back they stay ended.
    device.put(api, true, &rules(&[], &["a/#", "b/#"]));
    say(&mut writer, "a/3", b"canary");
    say(&mut writer, "b/3", b"b/3");
    assert_eq!(kept.take(1), ["b/3"]);
    kept.hears_nothing();
    drop(kept);
    let (mut kept, _) = device.durable(api, 3, "kept");
    kept.hears_nothing();
    assert_eq!(kept.subscribe(&[("a/#", 1)]), [1]);
}

fn put_tenant(api: &Api, tenant: &str, settings: &Value) {
    let mut settings = settings.clone();
    settings["plaintext"] = json!(true);
    let body = json!({ "name": tenant, "settings": settings });
    let answer = api.ask(1, "PUT", &format!("/tenants/{tenant}"), &body);
    assert_eq!(answer.0, 200, "{}", answer.1);
}

fn changed_tenant(api: &mut Api) {
    let typed = json!({ "type": "pump" });
    let pump = Device::make(api, "ruled", "p", &typed);
    let odd = Device::make(api, "ruled", "odd", &rules(&["odd"], &["odd"]));
    let mut on = [1, 2, 3].map(|node| pump.clean(api, node, &format!("c{node}")));
    let mut own = odd.clean(api, 2, "own");
    own.subscribe_1("odd");
    for client in &mut on {
        client.subscribe_1("p/#");
    }
    let topics = json!({ "topics": {
        "publish": ["{type}/{device}/#"], "subscribe": ["{type}/#", "{class}/all"],
    } });
    let since = Instant::now();
    put_tenant(api, "ruled", &topics);
    for client in &mut on {
        assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: DENIED }));
    }
    assert!(since.elapsed() < AT_ONCE * 2, "{:?}", since.elapsed());
    own.ping();
    let mut again = pump.clean(api, 3, "again");
    assert_eq!(again.subscribe(&[("p/#", 1), ("pump/#", 1), ("device/all", 1)]), [DENIED, 1, 1]);
    say(&mut again, "pump/p/x", b"seen");
    assert_eq!(again.take(1), ["seen"]);
    let id = again.publish("pump/q/x", b"canary");
    assert_eq!(again.puback(id), DENIED);
    // Rules without anything in them allow nothing.
    put_tenant(api, "ruled", &rules(&[], &[]));
    assert_eq!(again.hear(SOON), Heard::Packet(Packet::Disconnect { reason: DENIED }));
    let mut none = pump.clean(api, 1, "none");
    assert_eq!(none.subscribe(&[("p/#", 1), ("pump/#", 1)]), [DENIED, DENIED]);
    // A disabled tenant's devices leave.
    let body = json!({ "name": "ruled", "enabled": false, "settings": { "plaintext": true } });
    let since = Instant::now();
    assert_eq!(api.ask(1, "PUT", "/tenants/ruled", &body).0, 200);
    for client in [&mut none, &mut own] {
        assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: DENIED }));
    }
    assert!(since.elapsed() < AT_ONCE * 2, "{:?}", since.elapsed());
    assert_ne!(pump.login(Connect::clean(Version::V5, "c")).reason(api.cluster.mqtt(2)), 0);
    put_tenant(api, "ruled", &json!({}));
}

fn exactly_once(api: &mut Api) {
    let device = Device::make(api, "acme", "once", &rules(&["a"], &[]));
    let mut reader = all(api, "acme", "reader-30").clean(api, 2, "r");
    reader.subscribe_2("a");
    let (mut client, _) = device.durable(api, 1, "c");
    client.publish_2(7, "a", b"accepted", false);
    assert_eq!(client.pubrec(7), 0);
    device.put(api, true, &rules(&["b"], &[]));
    until_true("the change is known", SOON, || {
        let id = client.publish("a", b"canary");
        client.puback(id) == DENIED
    });
    // It was handed out when it was accepted, by the right it had then; its repeat is not.
    client.publish_2(8, "a", b"canary", false);
    assert_eq!(client.pubrec(8), DENIED);
    assert_eq!(client.pubrel(7), 0);
    loop {
        let heard = reader.message();
        let payload = String::from_utf8(heard.payload.clone()).unwrap();
        if heard.qos == 2 {
            assert_eq!(payload, "accepted");
            reader.receive(&heard);
            reader.complete(heard.id);
            break;
        }
    }
    let old = (0..20).all(|_| {
        let id = client.publish("a", b"denied");
        client.puback(id) == DENIED
    });
    assert!(old);
    while let Heard::Packet(Packet::Publish(heard)) = reader.hear(Duration::from_millis(300)) {
        assert_eq!((heard.qos, &heard.payload[..]), (1, &b"canary"[..]), "from before the change");
    }
}

fn malformed(api: &mut Api) {
    for topics in [
        json!({ "publish": ["a{device}"] }),
        json!({ "publish": ["{tenant}/#"] }),
        json!({ "subscribe": ["a/#/b"] }),
        json!({ "subscribe": ["$share/g/a"] }),
        json!({ "publish": vec!["a"; 65] }),
        json!({ "allow": ["a"] }),
        json!({ "publish": "a" }),
    ] {
        let settings = json!({ "topics": topics });
        let device = json!({ "name": "bad", "settings": settings });
        let (status, body) = api.ask(1, "POST", "/devices?tenant=acme", &device);
        assert!(matches!(status, 400 | 422), "{status} {topics} {body}");
        let tenant = json!({ "name": "acme", "settings": settings });
        let (status, _) = api.ask(1, "PUT", "/tenants/acme", &tenant);
        assert!(matches!(status, 400 | 422), "{status} {topics}");
    }
}

fn deleted_tenant(api: &mut Api) {
    let device = Device::make(api, "ruled", "last", &json!({}));
    let (mut client, _) = device.durable(api, 1, "c");
    client.subscribe_1("last/#");
    client.retain("last/state", b"canary", None);
    drop(client);
    let path = "/devices/last/events?tenant=ruled";
    let event = json!({ "type": "datapoint", "channel": "env", "data": { "t": 1 } });
    assert!(api.ask(2, "POST", path, &event).0 < 300);
    assert_eq!(api.ask(1, "DELETE", "/tenants/ruled", &Value::Null).0, 409, "it has devices");
    let (_, list) = api.ask(1, "GET", "/devices?tenant=ruled&limit=1000", &Value::Null);
    for device in list["devices"].as_array().unwrap() {
        let path = format!("/devices/{}?tenant=ruled", device["name"].as_str().unwrap());
        assert_eq!(api.ask(1, "DELETE", &path, &Value::Null).0, 204);
    }
    let events = until("its events are counted", SOON, || {
        Some(gauge(api, "moorline_events ")).filter(|events| *events > 0)
    });
    assert_eq!(api.ask(1, "DELETE", "/tenants/ruled", &Value::Null).0, 204);
    // A node that dies now leaves the rest to the next leader.
    api.cluster.node_mut(1).kill();
    until_true("its events are gone", SOON * 2, || {
        let of = |id: u64| {
            let body = http::get(api.cluster.node(id).admin, "/metrics").unwrap().body;
            let line = body.lines().find_map(|line| line.strip_prefix("moorline_events "));
            line.map_or(0, |value| value.parse::<u64>().unwrap())
        };
        of(2) + of(3) < events
    });
    api.cluster.node_mut(1).start_ready();
}
