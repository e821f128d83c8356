//! Why something did not arrive: each cause is brought about by a real client, and is found with its words from another node.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    cluster::Shape,
    http,
    mqtt::{Client, Heard},
    packet::{self, Connect, Version, frame, put_properties, put_text},
    scenarios,
    wait::{SOON, until},
};

/// Few enough to fill: queues of three, two subscriptions, packets of 4 KiB. Nobody is kept off for coming often.
const MQTT: &str = "unauthenticated-per-address-max = 0\nconnects-per-client-s = 0\nconnects-per-tenant-s = 0\n\
    session-queue-max = 3\nsubscriptions-max = 2\npacket-bytes-max = 4096\nreceive-max = 2\n";
/// A fleet of Fostrom's, which is the tenant `fleet`.
const FLEET: &str = "FLEET001";

#[test]
fn what_happened_to_a_device_is_told() {
    let mut api = Api::start_as(&Shape { mqtt: MQTT.to_owned(), ..Shape::of(3) }, &["http"]);
    for (name, plaintext) in [("acme", true), ("other", true), ("secure", false)] {
        let tenant = json!({ "name": name, "settings": { "plaintext": plaintext } });
        assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("a message is followed from its publisher to who was sent it", followed),
            ("who is not let in", doors),
            ("what is refused", refusals),
            ("what was not sent, or not acknowledged", copies),
            ("what tenants may not", quotas),
            ("what ends a connection", ends),
            ("what a platform refuses over HTTP", platform),
            ("where what was not let in is not looked up before it is answered", beside),
            ("what is remembered is counted", counted),
            ("tenants hear of their own", tenants),
            ("what can't be asked is refused in words", malformed),
            ("a node that is gone is said to be silent", silent),
        ],
    );
}

/// Makes a device that may do what these patterns say: its secret.
#[track_caller]
fn device(api: &Api, tenant: &str, name: &str, topics: &[&str]) -> String {
    let settings = json!({ "topics": { "publish": topics, "subscribe": topics } });
    let made = json!({ "name": name, "settings": settings });
    let answer = api.ask(1, "POST", &format!("/devices?tenant={tenant}"), &made);
    assert_eq!(answer.0, 201, "{}", answer.1);
    let path = format!("/devices/{name}/credentials?tenant={tenant}");
    text(&api.ask(1, "POST", &path, &json!({})), 201, "secret")
}

fn login(tenant: &str, name: &str, secret: &str, connect: Connect) -> Connect {
    Connect { login: Some((format!("{name}@{tenant}"), secret.to_owned())), ..connect }
}

/// What all nodes remember of a device, asked of one that never met it.
#[track_caller]
fn notes(api: &Api, tenant: &str, name: &str) -> Vec<Value> {
    let path = format!("/devices/{name}/explain?tenant={tenant}");
    let (status, answer) = api.ask(3, "GET", &path, &Value::Null);
    if status == 404 {
        // No device is called so, and nothing was noted of anybody who said so.
        return Vec::new();
    }
    assert_eq!(status, 200, "{answer}");
    answer["notes"].as_array().unwrap().clone()
}

/// A note with this stage, result and cause; each has its words.
#[track_caller]
fn has(api: &Api, name: &str, looked_for: (&str, &str, &str)) -> Value {
    has_of(api, "acme", name, looked_for)
}

/// The same of any tenant.
#[track_caller]
fn has_of(
    api: &Api,
    tenant: &str,
    name: &str,
    (stage, result, cause): (&str, &str, &str),
) -> Value {
    until(&format!("{name}: {stage} {result} {cause}"), SOON, || {
        let found = notes(api, tenant, name).into_iter().find(|note| {
            note["stage"] == stage
                && note["result"] == result
                && note["cause"].as_str().unwrap_or_default() == cause
        })?;
        let words = |field: &str| found[field].as_str().is_some_and(|text| text.len() > 10);
        assert!(cause.is_empty() || words("what") && words("fix"), "{found}");
        Some(found)
    })
}

fn followed(api: &mut Api) {
    let (sensor, screen) =
        (device(api, "acme", "sensor", &["#"]), device(api, "acme", "screen", &["#"]));
    let durable = login("acme", "screen", &screen, Connect::durable(Version::V5, "screen"));
    let (mut hears, _) = durable.to_patiently(api.cluster.mqtt(2));
    hears.subscribe_1("hall/+");
    let clean = login("acme", "sensor", &sensor, Connect::clean(Version::V5, "sensor"));
    let (mut says, _) = clean.to_patiently(api.cluster.mqtt(1));
    says.publish_acked("hall/temperature", b"21.5");
    let heard = hears.message();
    hears.ack(&heard);
    let delivered = has(api, "screen", ("deliver", "done", ""));
    assert!(delivered["took_ms"].is_number(), "acknowledged: {delivered}");
    let publish = has(api, "sensor", ("publish", "done", ""));
    assert_eq!((&publish["about"], &publish["qos"]), (&json!("hall/temperature"), &json!(1)));
    assert_eq!((&publish["node"], &publish["bytes"]), (&json!(1), &json!(4)));
    assert!(publish["took_ms"].is_number(), "{publish}");
    // Where: one shard, with one session that wanted it, at an index of its log.
    let routes = publish["routes"].as_array().unwrap();
    assert_eq!((routes.len(), &publish["count"]), (1, &json!(1)), "{publish}");
    assert_eq!((&routes[0]["to"], &routes[0]["sessions"]), (&json!("shard"), &json!(1)));
    assert!(routes[0]["log_index"].as_u64().is_some_and(|index| index > 0), "{publish}");
    // From here to whoever it touched.
    let path = format!("/messages/{}/explain?tenant=acme", publish["message"].as_str().unwrap());
    let (status, answer) = api.ask(3, "GET", &path, &Value::Null);
    assert_eq!(status, 200, "{answer}");
    let touched: Vec<_> = answer["notes"].as_array().unwrap().iter().collect();
    // Two nodes have two clocks: which is first is not said.
    let of = |device: &str| touched.iter().find(|note| note["device"] == device).unwrap();
    assert_eq!((touched.len(), &of("sensor")["stage"]), (2, &json!("publish")), "{answer}");
    let sent = of("screen");
    assert_eq!((&sent["stage"], &sent["node"]), (&json!("deliver"), &json!(2)), "{answer}");
    assert!(sent["offset"].is_number(), "{answer}");
    let steps: Vec<_> =
        notes(api, "acme", "screen").iter().map(|note| note["stage"].clone()).collect();
    assert_eq!(steps, ["authenticate", "session", "subscribe", "deliver"]);
    hears.disconnect();
    says.disconnect();
    has(api, "sensor", ("end", "done", ""));
}

fn doors(api: &mut Api) {
    let secret = device(api, "acme", "door", &["#"]);
    let connect = |secret: &str| login("acme", "door", secret, Connect::clean(Version::V5, "door"));
    assert_eq!(connect("wrong").reason(api.cluster.mqtt(2)), 0x86);
    let refused = has(api, "door", ("authenticate", "refused", "wrong_credentials"));
    assert_eq!(refused["about"], "127.0.0.1", "where it came from: {refused}");
    let expired = json!({ "kind": "token", "not_after_ms": 1 });
    let token =
        text(&api.ask(1, "POST", "/devices/door/credentials?tenant=acme", &expired), 201, "secret");
    let by_token =
        Connect { login: Some((token, String::new())), ..Connect::clean(Version::V5, "x") };
    assert_eq!(by_token.reason(api.cluster.mqtt(1)), 0x87);
    has(api, "door", ("authenticate", "refused", "credential_expired"));
    let (in_time, _) = connect(&secret).to_patiently(api.cluster.mqtt(2));
    has(api, "door", ("authenticate", "done", ""));
    in_time.disconnect();
    // Five wrong ones are a ban, which its own right password does not end.
    let banned = device(api, "acme", "guesser", &["#"]);
    let guess = |secret: &str| login("acme", "guesser", secret, Connect::clean(Version::V5, "g"));
    let wrong: Vec<_> = (0..5).map(|_| guess("wrong").reason(api.cluster.mqtt(3))).collect();
    assert!(wrong.iter().all(|reason| *reason == 0x86), "{wrong:?}");
    assert_eq!(guess(&banned).reason(api.cluster.mqtt(3)), 0x8A);
    has(api, "guesser", ("authenticate", "refused", "banned"));
    let again = has(api, "guesser", ("authenticate", "refused", "wrong_credentials"));
    assert_eq!(again["count"], 4, "one note of all but the last, which was the ban: {again}");
    // From outside the same as a wrong password, which these are not.
    let off = device(api, "acme", "off", &["#"]);
    let disabled = json!({ "enabled": false, "settings": {} });
    assert_eq!(api.ask(1, "PUT", "/devices/off?tenant=acme", &disabled).0, 200);
    let connect = login("acme", "off", &off, Connect::clean(Version::V5, "off"));
    assert_eq!(connect.reason(api.cluster.mqtt(1)), 0x86);
    has(api, "off", ("authenticate", "refused", "disabled"));
    let bare = json!({ "name": "bare" });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &bare).0, 201);
    let connect = login("acme", "bare", "lost", Connect::clean(Version::V5, "bare"));
    assert_eq!(connect.reason(api.cluster.mqtt(1)), 0x86);
    has(api, "bare", ("authenticate", "refused", "no_credential"));
    // A device that there is not leaves nothing behind.
    let nobody = login("acme", "nobody", "wrong", Connect::clean(Version::V5, "nobody"));
    assert_eq!(nobody.reason(api.cluster.mqtt(1)), 0x86);
    assert_eq!(notes(api, "acme", "nobody"), Vec::<Value>::new());
}

fn refusals(api: &mut Api) {
    let secret = device(api, "acme", "may-little", &["mine/#"]);
    let connect = Connect::durable(Version::V5, "may-little");
    let connect = login("acme", "may-little", &secret, connect);
    let (mut client, _) = connect.to_patiently(api.cluster.mqtt(1));
    let id = client.publish("yours/t", b"x");
    assert_eq!(client.puback(id), 0x87);
    has(api, "may-little", ("publish", "refused", "publish_forbidden"));
    // Not even asked for is what the protocol machine refuses.
    let id = client.publish(&"x".repeat(300), b"x");
    assert_eq!(client.puback(id), 0x90);
    has(api, "may-little", ("request", "refused", "topic_not_accepted"));
    // Of QoS 0 nobody tells it.
    client.send(&quietly("yours/t", b"x")).unwrap();
    has(api, "may-little", ("publish", "dropped", "publish_forbidden"));
    let id = client.publish("mine/nobody", b"x");
    assert_eq!(client.puback(id), 0x10);
    has(api, "may-little", ("publish", "done", "nobody_listens"));
    assert_eq!(client.subscribe(&[("yours/#", 1)]), [0x87]);
    has(api, "may-little", ("subscribe", "refused", "subscribe_forbidden"));
    let granted = client.subscribe(&[("mine/1", 1), ("yours/1", 1), ("mine/2", 0)]);
    assert_eq!(granted, [1, 0x87, 0]);
    let three: Vec<_> = notes(api, "acme", "may-little");
    let three =
        three[three.len() - 3..].iter().map(|note| (note["about"].clone(), note["result"].clone()));
    let expected = [("mine/1", "done"), ("yours/1", "refused"), ("mine/2", "done")];
    assert_eq!(
        three.collect::<Vec<_>>(),
        expected.map(|(about, result)| (json!(about), json!(result)))
    );
    assert_eq!(client.subscribe(&[("mine/3", 1)]), [0x97]);
    has(api, "may-little", ("subscribe", "refused", "subscriptions_full"));
    client.disconnect();
    // Nobody takes what waits for it.
    let teller = device(api, "acme", "teller", &["mine/#"]);
    let teller = login("acme", "teller", &teller, Connect::clean(Version::V5, "teller"));
    let (mut teller, _) = teller.to_patiently(api.cluster.mqtt(2));
    let reasons: Vec<_> = (0..4)
        .map(|_| {
            let id = teller.publish("mine/1", b"x");
            teller.puback(id)
        })
        .collect();
    assert_eq!(reasons, [0, 0, 0, 0x97]);
    let refused = has(api, "teller", ("publish", "refused", "queue_full"));
    assert_eq!(refused["routes"][0]["cause"], "queue_full", "{refused}");
    has(api, "may-little", ("deliver", "dropped", "subscriber_full"));
}

/// A publish of QoS 0.
fn quietly(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    put_properties(&mut body, &[]);
    body.extend(payload);
    frame(0x30, &body)
}

fn copies(api: &mut Api) {
    let taker = json!({ "topics": {
        "publish": ["hall/#"], "subscribe": ["hall/#"], "deny-subscribe": ["hall/secret"],
    } });
    let made = json!({ "name": "taker", "settings": taker });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &made).0, 201);
    let path = "/devices/taker/credentials?tenant=acme";
    let secret = text(&api.ask(1, "POST", path, &json!({})), 201, "secret");
    let connect = Connect { receive_max: Some(1), ..Connect::durable(Version::V5, "taker") };
    let (mut taker, _) = login("acme", "taker", &secret, connect).to_patiently(api.cluster.mqtt(2));
    taker.subscribe_1("hall/#");
    let speaker = device(api, "acme", "speaker", &["#"]);
    let speaker = login("acme", "speaker", &speaker, Connect::clean(Version::V5, "speaker"));
    let (mut speaker, _) = speaker.to_patiently(api.cluster.mqtt(1));
    speaker.publish_acked("hall/secret", b"x");
    has(api, "taker", ("deliver", "dropped", "read_forbidden"));
    speaker.publish_acked("hall/1", b"first");
    let first = taker.message();
    has(api, "taker", ("deliver", "waiting", ""));
    taker.ack(&first);
    has(api, "taker", ("deliver", "done", ""));
    // It goes with one in hand.
    speaker.publish_acked("hall/2", b"second");
    taker.message();
    taker.disconnect();
    has(api, "taker", ("deliver", "done", "unacknowledged"));
    // A retained message has a place more.
    speaker.retain("hall/kept", b"x", None);
    let kept = until("it says where it is kept", SOON, || {
        let notes = notes(api, "acme", "speaker");
        notes.into_iter().find(|note| note["about"] == "hall/kept" && note["result"] == "done")
    });
    let places: Vec<_> = kept["routes"].as_array().unwrap().iter().map(|to| &to["to"]).collect();
    assert!(places.contains(&&json!("kept")) && places.contains(&&json!("shard")), "{kept}");
    speaker.disconnect();
}

fn quotas(api: &mut Api) {
    let few = json!({ "publishes-s": 1, "connections-max": 1 });
    let settings = json!({ "plaintext": true, "quotas": few });
    let tenant = json!({ "name": "small", "settings": settings });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    let (loud, late) = (device(api, "small", "loud", &["#"]), device(api, "small", "late", &["#"]));
    let loud = login("small", "loud", &loud, Connect::clean(Version::V5, "loud"));
    let (mut loud, _) = loud.to_patiently(api.cluster.mqtt(1));
    until("it has said too much", SOON, || {
        let id = loud.publish("t", b"x");
        (loud.puback(id) == 0x97).then_some(())
    });
    has_of(api, "small", "loud", ("publish", "refused", "publish_busy"));
    let late = login("small", "late", &late, Connect::clean(Version::V5, "late"));
    assert_eq!(late.reason(api.cluster.mqtt(1)), 0x97);
    has_of(api, "small", "late", ("session", "refused", "too_many_connections"));
    loud.disconnect();
}

/// What Fostrom's devices are told over HTTP, and what not.
fn platform(api: &mut Api) {
    let fields = json!({ "n": { "type": "uint8" } });
    let schemas =
        json!({ "env": { "kind": "datapoint", "direction": "inbound", "fields": fields } });
    let settings = json!({ "plaintext": true, "fostrom": { "schemas": schemas } });
    let aliases = [format!("fostrom:{FLEET}")];
    let tenant = json!({ "name": "fleet", "aliases": aliases, "settings": settings });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    let name = "DEVICE0001";
    assert_eq!(api.ask(1, "POST", "/devices?tenant=fleet", &json!({ "name": name })).0, 201);
    let path = format!("/devices/{name}/credentials?tenant=fleet");
    let made = api.ask(1, "POST", &path, &json!({ "style": "fostrom" }));
    let (secret, http) = (text(&made, 201, "secret"), api.at(2, "http"));
    let ask = |secret: &str, path: &str, body: &str| {
        let headers = [("X-Fleet-ID", FLEET), ("X-Device-ID", name), ("X-Device-Secret", secret)];
        http::api("POST", http, path, &headers, body).status
    };
    until("the fleet is known there", SOON, || {
        (ask(&secret, "/v1/heartbeat", "") == 201).then_some(())
    });
    let wrong = format!("{}x", &secret[..secret.len() - 1]);
    assert_eq!(ask(&wrong, "/v1/heartbeat", ""), 401);
    let refused = has_of(api, "fleet", name, ("authenticate", "refused", "wrong_credentials"));
    assert_eq!(refused["about"], "127.0.0.1", "{refused}");
    assert_eq!(ask(&secret, "/v1/datapoint/env", "{\"n\":"), 400);
    has_of(api, "fleet", name, ("request", "refused", "unreadable_payload"));
    assert_eq!(ask(&secret, "/v1/datapoint/unheard", "{\"n\":1}"), 422);
    has_of(api, "fleet", name, ("request", "refused", "unknown_schema"));
    // It hears success, as there: only here somebody learns that it went nowhere.
    assert_eq!(ask(&secret, "/v1/datapoint/env", "{\"n\":\"text\"}"), 201);
    has_of(api, "fleet", name, ("event", "dropped", "schema_mismatch"));
    assert_eq!(ask(&secret, "/v1/datapoint/env", "{\"n\":1}"), 201);
    let event = has_of(api, "fleet", name, ("event", "done", ""));
    assert!(event["offset"].is_number() && event["routes"][0]["to"] == "shard", "{event}");
    let disabled = json!({ "enabled": false, "settings": {} });
    let path = format!("/devices/{name}?tenant=fleet");
    assert_eq!(api.ask(3, "PUT", &path, &disabled).0, 200);
    until("it is turned out", SOON, || (ask(&secret, "/v1/heartbeat", "") == 403).then_some(()));
    has_of(api, "fleet", name, ("authenticate", "refused", "disabled"));
}

/// A tenant that wants TLS looks at nobody without; whoever asks later hears of it all the same.
fn beside(api: &mut Api) {
    let secret = device(api, "secure", "plain", &["#"]);
    let connect = login("secure", "plain", &secret, Connect::clean(Version::V5, "plain"));
    assert_eq!(connect.reason(api.cluster.mqtt(2)), 0x87);
    has_of(api, "secure", "plain", ("authenticate", "refused", "plaintext_forbidden"));
    let nobody = login("secure", "nobody", &secret, Connect::clean(Version::V5, "nobody"));
    assert_eq!(nobody.reason(api.cluster.mqtt(2)), 0x87);
    // Whatever was looked up for one of them has been by now.
    assert_eq!(connect.reason(api.cluster.mqtt(2)), 0x87);
    until("it was noted twice", SOON, || {
        let notes = notes(api, "secure", "plain");
        (notes[0]["count"].as_u64() >= Some(2)).then_some(())
    });
    assert_eq!(notes(api, "secure", "nobody"), Vec::<Value>::new());
}

fn counted(api: &mut Api) {
    let page = http::get(api.cluster.node(1).admin, "/metrics").unwrap().body;
    let of = |series: &str| -> Option<u64> {
        page.lines().find_map(|line| line.strip_prefix(series))?.trim().parse().ok()
    };
    for series in ["devices", "bytes", "notes_total"] {
        let count = of(&format!("moorline_explain_{series} "));
        assert!(count.is_some_and(|count| count > 0), "{series}: {count:?}");
    }
    for what in ["note", "refused-note", "device"] {
        let series = format!("moorline_explain_forgotten_total{{what=\"{what}\"}} ");
        assert!(of(&series).is_some(), "{what}");
    }
}

/// Something that a client does, and what becomes of it.
type End = (&'static str, fn(&mut Client), &'static str);

fn ends(api: &mut Api) {
    let secret = device(api, "acme", "ender", &["#"]);
    let connect = |keep_alive_s| {
        let connect = Connect { keep_alive_s, ..Connect::clean(Version::V5, "ender") };
        login("acme", "ender", &secret, connect)
    };
    let alias = |alias: u8| {
        let mut body = Vec::new();
        put_text(&mut body, "t");
        body.extend(7_u16.to_be_bytes());
        put_properties(&mut body, &[0x23, 0, alias]);
        frame(0x32, &body)
    };
    let (qos_3, no_alias, large) = (vec![0x36, 0x00], alias(0), frame(0x30, &[0; 5_000]));
    let again = packet::connect(&connect(60));
    let filters = vec![("f", 0); 257];
    // Two may be under way: QoS 2 is until it is released.
    let three = (1..=3).flat_map(|id| packet::publish_2(Version::V5, id, "t", b"x", false));
    for (bytes, cause) in [
        (packet::subscribe(Version::V5, 1, &filters), "too_many_in_packet"),
        (three.collect(), "too_many_unanswered"),
        (quietly(&"x".repeat(300), b""), "topic_not_accepted"),
        (qos_3, "malformed"),
        (no_alias, "topic_alias"),
        (large, "too_large"),
        (again, "protocol_error"),
    ] {
        let (mut client, _) = connect(60).to_patiently(api.cluster.mqtt(1));
        client.send(&bytes).unwrap();
        is_over(&mut client, cause);
        has(api, "ender", ("end", "done", cause));
    }
    let quiet: [End; 2] =
        [("silent", |client| is_over(client, "silent"), "silent"), ("gone", |_| {}, "peer_gone")];
    for (_, act, cause) in quiet {
        let (mut client, _) = connect(1).to_patiently(api.cluster.mqtt(2));
        act(&mut client);
        drop(client);
        has(api, "ender", ("end", "done", cause));
    }
    let (mut first, _) = connect(60).to_patiently(api.cluster.mqtt(1));
    let (mut second, _) = connect(60).to_patiently(api.cluster.mqtt(2));
    is_over(&mut first, "taken over");
    has(api, "ender", ("end", "done", "taken_over"));
    let disabled = json!({ "enabled": false, "settings": {} });
    assert_eq!(api.ask(3, "PUT", "/devices/ender?tenant=acme", &disabled).0, 200);
    is_over(&mut second, "revoked");
    has(api, "ender", ("end", "done", "revoked"));
}

/// Within the time that a keep-alive of a second takes.
#[track_caller]
fn is_over(client: &mut Client, why: &str) {
    loop {
        match client.hear(Duration::from_secs(5)) {
            Heard::Closed => return,
            Heard::Packet(_) => {}
            other @ Heard::Nothing => panic!("{why}: {other:?}"),
        }
    }
}

fn tenants(api: &mut Api) {
    let secret = device(api, "other", "sensor", &["#"]);
    let connect = login("other", "sensor", &secret, Connect::clean(Version::V5, "theirs"));
    let (mut client, _) = connect.to_patiently(api.cluster.mqtt(1));
    // To its own tenant nobody listens, whoever does in another.
    let id = client.publish("hall/temperature", b"21.5");
    assert_eq!(client.puback(id), 0x10);
    let of = |tenant| notes(api, tenant, "sensor");
    let publishes =
        |notes: &[Value]| notes.iter().filter(|note| note["stage"] == "publish").count();
    assert_eq!((publishes(&of("acme")), publishes(&of("other"))), (1, 1));
    let message = of("other").iter().find_map(|note| note["message"].as_str().map(str::to_owned));
    let path = format!("/messages/{}/explain?tenant=other", message.unwrap());
    let (_, answer) = api.ask(2, "GET", &path, &Value::Null);
    let touched = answer["notes"].as_array().unwrap();
    assert!(touched.iter().all(|note| note["device"] == "sensor"), "{answer}");
    assert_eq!(touched.len(), 1, "{answer}");
}

fn malformed(api: &mut Api) {
    let path = |message: &str| format!("/messages/{message}/explain?tenant=acme");
    for message in ["12", "zzzzzzzzzzzzzzzz", "00112233445566778"] {
        let refused = problem(api.ask(1, "GET", &path(message), &Value::Null));
        assert_eq!(refused.0, 400, "{message}");
    }
    let refused = api.ask(1, "GET", "/devices/sensor/explain?tenant=nowhere", &Value::Null);
    assert_eq!(refused.0, 404);
    let back = "/devices/sensor/explain?tenant=acme&back_s=0";
    let (_, answer) = api.ask(1, "GET", back, &Value::Null);
    assert_eq!(answer["notes"], json!([]), "nothing happened within this second");
}

fn silent(api: &mut Api) {
    api.cluster.node_mut(2).kill();
    let (status, answer) = api.ask(3, "GET", "/devices/sensor/explain?tenant=acme", &Value::Null);
    assert_eq!((status, &answer["silent"]), (200, &json!([2])), "{answer}");
    assert!(!answer["notes"].as_array().unwrap().is_empty());
}
