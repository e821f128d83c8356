//! Drogue Cloud's devices and applications where things go wrong: what can't be read, what is too much, who may not be here any more.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    drogue::{Plant, basic, event, login, reads, said},
    harness::{
        api::text,
        http::{self, Answer},
        mqtt::{Client, Heard},
        packet::{Connect, Packet, Publish, Version},
        scenarios,
        wait::{SOON, until},
    },
};

const BASE: &str = "/api/registry/v1alpha1/apps/plant";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
/// What an application says counts everywhere within this.
const SAID: Duration = Duration::from_secs(10);

fn ask(plant: &Plant, by: &str, (method, path): (&str, &str), kind: &str, body: &Value) -> Answer {
    let by = format!("Bearer {by}");
    let headers = [("authorization", by.as_str()), ("content-type", kind)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::api(method, plant.api.at(1, "http"), &format!("{BASE}{path}"), &headers, &body)
}

/// A key that writes; each is another one.
#[track_caller]
fn operator(plant: &Plant) -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("operator-{}", MADE.fetch_add(1, Ordering::Relaxed));
    let body = json!({ "name": name, "role": "operator" });
    text(&plant.api.ask(1, "POST", "/tokens?tenant=acme", &body), 201, "token")
}

/// An application that shares by a group, acknowledging one at a time.
fn member(plant: &Plant, application: &str, key: &str, group: &str) -> (Client, u8) {
    let login = Some(("ops".to_owned(), key.to_owned()));
    let connect = Connect { login, ..Connect::clean(Version::V5, "ops") };
    let (mut client, _) = connect.to(plant.at(2));
    let granted = client.subscribe(&[(&format!("$share/{group}/app/{application}"), 1)]);
    (client, granted[0])
}

#[test]
fn what_goes_wrong_is_told() {
    let mut plant = Plant::start();
    for name in ["prober", "gate", "gw"] {
        plant.device(name, name, &json!({}));
    }
    scenarios(
        &mut plant,
        &[
            ("a group that began while there was nothing is not forgotten", groups),
            ("what comes after a subscription was granted is heard", begins),
            ("there are so many groups, and who comes then is told", many_groups),
            ("what is taken as JSON is heard, and all else, too", payloads),
            ("a patch does not grow beyond all bounds", patches),
            ("a device that can't be read is nobody", unreadable),
            ("rules that can't be read are refused, and let nothing through", rules),
            ("an application that is disabled has no devices", disabled),
            ("a device has so many requests that wait", waits),
            ("who fails bans no other one of its address", bans),
            ("an administrator's key needs TLS where an application does", plaintext),
            ("a device that may not be here leaves no will", revoked),
        ],
    );
}

fn groups(plant: &mut Plant) {
    let key = plant.token("other", "app");
    // Nothing is in the streams of this application.
    let (early, granted) = member(plant, "other", &key, "early");
    assert_eq!(granted, 1);
    early.disconnect();
    let device = json!({ "name": "lone" });
    assert_eq!(plant.api.ask(1, "POST", "/devices?tenant=other", &device).0, 201);
    let password = json!({ "kind": "password", "user": "lone", "password": "pw" });
    let path = "/devices/lone/credentials?tenant=other";
    assert_eq!(plant.api.ask(1, "POST", path, &password).0, 201);
    let (mut lone, _) = login(Version::V5, "x", "lone@other", "pw").to(plant.at(1));
    lone.publish_acked("a", b"1");
    // It is away while it comes, and hears it all the same.
    let (mut early, granted) = member(plant, "other", &key, "early");
    assert_eq!(granted, 1);
    let next = |client: &mut Client| loop {
        let heard = client.message();
        client.ack(&heard);
        let event: Value = serde_json::from_slice(&heard.payload).unwrap();
        if event["type"] == "io.drogue.event.v1" {
            return event["data"].clone();
        }
    };
    assert_eq!(next(&mut early), json!(1));
    early.disconnect();
    lone.publish_acked("a", b"2");
    let (mut early, _) = member(plant, "other", &key, "early");
    assert_eq!(next(&mut early), json!(2), "and nothing twice");
}

/// The next event of a channel, and what it says; all others are acknowledged.
#[track_caller]
fn on_channel(client: &mut Client, channel: &str) -> (Publish, Value) {
    loop {
        let heard = client.message();
        let event: Value = serde_json::from_slice(&heard.payload).unwrap();
        if event["subject"] == channel {
            return (heard, event["data"].clone());
        }
        client.ack(&heard);
    }
}

fn begins(plant: &mut Plant) {
    let (mut gate, _) = login(Version::V5, "x", "gate@plant", "gate").to(plant.at(3));
    // Without a client id there is no group.
    let anybody = || {
        let (mut client, _) = login(Version::V4, "", "ops", &plant.key).to(plant.at(1));
        assert_eq!(client.subscribe(&[("app/plant", 1)]), [1]);
        client
    };
    for round in 0..5 {
        let mut client = anybody();
        gate.publish_acked("begins", round.to_string().as_bytes());
        assert_eq!(on_channel(&mut client, "begins").1, json!(round));
    }
    let mut client = anybody();
    gate.publish_acked("begins", b"10");
    assert_eq!(on_channel(&mut client, "begins").1, json!(10));
    gate.publish_acked("begins", b"11");
    assert_eq!(client.subscribe(&[("app/plant", 1)]), [1]);
    for expected in [10, 11] {
        let (heard, said) = on_channel(&mut client, "begins");
        assert_eq!(said, json!(expected), "what it had not acknowledged comes again");
        client.ack(&heard);
    }
    // A group that was deleted begins again.
    let delete = || plant.api.ask(1, "DELETE", "/consumers/gone?tenant=acme", &json!({})).0;
    let (one, granted) = member(plant, "plant", &plant.key, "gone");
    assert_eq!(granted, 1);
    one.disconnect();
    assert_eq!(delete(), 204, "although it has read nothing");
    until("nobody commits for it any more", SOON, || (delete() == 404).then_some(()));
    gate.publish_acked("begins", b"20");
    let (mut one, granted) = member(plant, "plant", &plant.key, "gone");
    assert_eq!(granted, 1);
    gate.publish_acked("begins", b"21");
    assert_eq!(on_channel(&mut one, "begins").1, json!(21));
    let long = "x".repeat(100);
    let (mut long, _) = login(Version::V5, &long, "ops", &plant.key).to(plant.at(1));
    assert_eq!(long.subscribe(&[("app/plant", 1)]), [1], "a client id of any length");
}

fn many_groups(plant: &mut Plant) {
    let key = plant.token("other", "read-only");
    let (mut client, _) = login(Version::V5, "many", "ops", &key).to(plant.at(2));
    let mut granted = Vec::new();
    // One is there already.
    for number in 0..64 {
        let filter = format!("$share/g{number}/app/other");
        granted.push(client.subscribe(&[(&filter, 1)])[0]);
        client.unsubscribe(&filter);
    }
    let mut expected = vec![1; 63];
    expected.push(0x97);
    assert_eq!(granted, expected);
    assert_eq!(client.subscribe(&[("$share/g7/app/other", 1)]), [1], "this one is there");
}

fn payloads(plant: &mut Plant) {
    let mut application = plant.application(1, "payloads", "app/plant");
    reads(plant, &mut application);
    let (mut gate, _) = login(Version::V5, "x", "gate@plant", "gate").to(plant.at(2));
    let deep = "[".repeat(130) + &"]".repeat(130);
    for odd in [r#""\ud800""#, r#"{"t":1e999}"#, deep.as_str()] {
        gate.publish_acked("odd", odd.as_bytes());
        let event = said(&mut application);
        assert!(event["data_base64"].is_string(), "{odd}: {event}");
        let answer = plant.post(3, "/v1/odd", &basic("gate@plant:gate"), odd);
        // Tests say that it is JSON.
        assert_eq!(answer.status, 406, "{odd}");
    }
}

fn patches(plant: &mut Plant) {
    let by = operator(plant);
    let spec = json!({ "spec": { "x": "x".repeat(64) } });
    assert_eq!(ask(plant, &by, ("PATCH", "/devices/gw"), MERGE, &spec).status, 204);
    let copy = |at| json!({ "op": "copy", "from": "/spec", "path": format!("/spec/c{at}") });
    let copies = Value::Array((0..40).map(copy).collect());
    for place in ["/devices/gw", ""] {
        let mut copies = copies.clone();
        if place.is_empty() {
            let seed = json!({ "op": "add", "path": "/spec", "value": { "x": "x".repeat(64) } });
            copies.as_array_mut().unwrap().insert(0, seed);
        }
        let answer = ask(plant, &by, ("PATCH", place), PATCH, &copies);
        assert_eq!(answer.status, 400, "{place} {}", answer.body);
    }
    let names: Vec<_> = (0..65).map(|at| format!("gw-{at}")).collect();
    let many = json!({ "spec": { "gatewaySelector": { "matchNames": names } } });
    assert_eq!(ask(plant, &by, ("PATCH", "/devices/gw"), MERGE, &many).status, 400);
}

/// Writes a device's metadata as the cluster's own API has it.
#[track_caller]
fn write(plant: &Plant, device: &str, kept: &Value) {
    let settings = json!({ "settings": { "metadata": { "drogue": kept } } });
    let path = format!("/devices/{device}?tenant=acme");
    let (status, said) = plant.api.ask(1, "PATCH", &path, &settings);
    assert_eq!(status, 200, "{said}");
}

fn unreadable(plant: &mut Plant) {
    plant.device("odd", "odd", &json!({}));
    let spec = json!({ "core": { "disabled": true }, "gatewaySelector": { "matchNames": ["gw"] } });
    write(plant, "odd", &json!({ "labels": { "hall": 3 }, "spec": spec }));
    for (version, refused) in [(Version::V4, 4), (Version::V5, 0x86)] {
        assert_eq!(login(version, "x", "odd@plant", "odd").reason(plant.at(2)), refused);
    }
    assert_eq!(plant.post(1, "/v1/a", &basic("odd@plant:odd"), "{}").status, 500);
    assert_eq!(plant.post(1, "/v1/a?as=odd", &basic("gw@plant:gw"), "{}").status, 403);
    assert_eq!(plant.command(1, "odd", "SET", "1"), 500);
    let by = operator(plant);
    let nothing = Value::Null;
    assert_eq!(ask(plant, &by, ("GET", "/devices/odd"), JSON, &nothing).status, 500);
    let listed = ask(plant, &by, ("GET", "/devices"), JSON, &nothing).json();
    let listed = listed.as_array().unwrap().iter();
    let odd = listed.clone().find(|device| device["metadata"]["name"] == "odd").unwrap();
    assert_eq!(odd["spec"]["core"]["disabled"], true, "it is let in nowhere");
    let anew = json!({ "metadata": { "application": "plant", "name": "odd" } });
    assert_eq!(ask(plant, &by, ("PUT", "/devices/odd"), JSON, &anew).status, 204);
    assert_eq!(login(Version::V4, "x", "odd@plant", "odd").reason(plant.at(2)), 0);
}

fn rules(plant: &mut Plant) {
    let by = &operator(plant);
    for spec in [
        json!({ "publish": { "rules": [{ "then": ["explode"] }] } }),
        json!({ "mqtt": { "dialect": { "type": "azure" } } }),
    ] {
        for place in ["", "/devices/gw"] {
            let answer = ask(plant, by, ("PATCH", place), MERGE, &json!({ "spec": spec }));
            assert_eq!(answer.status, 400, "{place} {spec}");
        }
    }
    plant.device("ruled", "pw", &json!({ "publish": { "rules": 7 } }));
    let answer = plant.post(1, "/v1/a", &basic("ruled@plant:pw"), "{}");
    assert_eq!((answer.status, &answer.json()["error"]), (500, &json!("ConfigurationError")));
    // A device without a place among an application's has none, whichever it is.
    let path =
        |application| format!("/api/command/v1alpha1/apps/{application}/devices/gw?command=x");
    for application in ["other", "nobody"] {
        let by = format!("Bearer {}", plant.key);
        assert_eq!(plant.post(1, &path(application), &by, "").status, 406, "{application}");
    }
}

fn disabled(plant: &mut Plant) {
    let by = operator(plant);
    let (mut gate, _) = login(Version::V5, "x", "gate@plant", "gate").to(plant.at(2));
    let off = json!({ "spec": { "core": { "disabled": true } } });
    assert_eq!(ask(plant, &by, ("PATCH", ""), MERGE, &off).status, 204);
    let shown = ask(plant, &by, ("GET", ""), JSON, &Value::Null).json();
    assert_eq!(shown["spec"]["core"]["disabled"], true);
    // One refusal each: more of them ban.
    let prober = login(Version::V5, "y", "prober@plant", "prober");
    until("a login", SAID, || (prober.reason(plant.at(3)) == 0x86).then_some(()));
    until("what a connection says", SAID, || {
        let id = gate.publish("a", b"1");
        (gate.puback(id) == 0x87).then_some(())
    });
    let gw = basic("gw@plant:gw");
    until("a request", SAID, || (plant.post(1, "/v1/a", &gw, "{}").status == 403).then_some(()));
    until("a command", SAID, || (plant.command(2, "gate", "SET", "1") == 406).then_some(()));
    let other = json!({ "metadata": { "name": "plant", "uid": "7777" } });
    assert_eq!(ask(plant, &by, ("PUT", ""), JSON, &other).status, 409, "another one");
    let on = json!({ "spec": { "core": null } });
    assert_eq!(ask(plant, &by, ("PATCH", ""), MERGE, &on).status, 204);
    until("it has devices again", SAID, || {
        let id = gate.publish("a", b"1");
        (gate.puback(id) == 0).then_some(())
    });
    // It was written by this node.
    assert_eq!(plant.post(1, "/v1/a", &gw, "{}").status, 202);
}

fn waits(plant: &mut Plant) {
    let (to, by) = (plant.api.at(1, "http"), basic("gate@plant:gate"));
    let ask = move |path: &'static str| {
        let by = by.clone();
        move || http::api("POST", to, path, &[("authorization", &*by)], "{}").status
    };
    let stranger = ask("/v1/a?ct=600&as=gw");
    assert_eq!(stranger(), 403, "it does not wait for what it may not say");
    let waiting = (0..4).map(|_| {
        let asks = ask("/v1/a?ct=600");
        // Whoever looks whether there is room has a place for a moment.
        thread::spawn(move || {
            until("there is room", 4 * SOON, || Some(asks()).filter(|s| *s != 503))
        })
    });
    let waiting: Vec<_> = waiting.collect();
    until("four wait, and one more is told", 2 * SOON, || {
        (ask("/v1/a?ct=1")() == 503).then_some(())
    });
    assert_eq!(ask("/v1/a")(), 202, "who does not wait needs no place");
    until("a command ends all of them", 2 * SOON, || {
        assert_eq!(plant.command(3, "gate", "end", "1"), 202);
        thread::sleep(Duration::from_millis(100));
        waiting.iter().all(thread::JoinHandle::is_finished).then_some(())
    });
    for waited in waiting {
        assert_eq!(waited.join().unwrap(), 200);
    }
    assert_eq!(ask("/v1/a?ct=1")(), 202, "there is room again");
}

fn bans(plant: &mut Plant) {
    let at = plant.api.at(1, "http");
    let discover = |authorization: &str| {
        let headers = [("authorization", authorization)];
        http::api("GET", at, "/.well-known/drogue-endpoints", &headers, "")
    };
    for _ in 0..6 {
        // A device's, which is no key: it is told what everybody is told.
        let answer = discover(&basic("gate@plant:gate"));
        assert_eq!((answer.status, &answer.json()["http"]), (200, &Value::Null));
        let wrong = format!("{}x", plant.look);
        let status = ask(plant, &wrong, ("GET", ""), JSON, &Value::Null).status;
        assert_eq!(status, 403);
    }
    let look = plant.look.clone();
    let status = ask(plant, &look, ("GET", ""), JSON, &Value::Null).status;
    assert_eq!(status, 403, "this one is banned for a while");
    let key = plant.key.clone();
    assert_eq!(ask(plant, &key, ("GET", ""), JSON, &Value::Null).status, 200, "no other one is");
}

fn plaintext(plant: &mut Plant) {
    let root = plant.api.token.clone();
    let settings = json!({ "plaintext": false });
    let tenant = json!({ "name": "tls", "aliases": ["drogue:tls"], "settings": settings });
    assert_eq!(plant.api.ask(1, "POST", "/tenants", &tenant).0, 201);
    let by = format!("Bearer {root}");
    let get = |path: &str| {
        let headers = [("authorization", by.as_str())];
        let path = format!("/api/registry/v1alpha1/apps{path}");
        http::api("GET", plant.api.at(1, "http"), &path, &headers, "").status
    };
    assert_eq!([get("/plant"), get("/tls"), get("/nobody"), get("")], [200, 403, 403, 403]);
}

fn revoked(plant: &mut Plant) {
    let mut application = plant.application(1, "revoked", "app/plant");
    reads(plant, &mut application);
    let connect = login(Version::V5, "x", "gate@plant", "gate");
    let (mut gate, _) = connect.leaving("gone", "0", 0).to(plant.at(2));
    gate.publish_acked("a", b"1");
    assert_eq!(said(&mut application)["subject"], "a");
    let (status, said) =
        plant.api.ask(1, "PATCH", "/devices/gate?tenant=acme", &json!({ "enabled": false }));
    assert_eq!(status, 200, "{said}");
    assert_eq!(gate.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    // It goes when all is said that it has to say.
    loop {
        let event = event(&mut application);
        assert_ne!(event["subject"], "gone", "it leaves no will");
        if event["device"] == "gate" && event["data"] == json!({ "connected": false }) {
            return;
        }
    }
}
