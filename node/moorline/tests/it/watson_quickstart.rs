//! Quickstart of Watson IoT: strangers' devices publish and strangers look at them, where an operator says so, and nothing lasts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{
        mqtt::{Client, Heard},
        packet::{self, Connect, Packet, Version},
        scenarios,
        wait::SOON,
    },
    watson::Org,
};

/// How long it is listened whether there is more.
const A_MOMENT: Duration = Duration::from_millis(200);
/// What a connection may say at once.
const BURST: usize = 5;

fn device(version: Version, id: &str) -> Connect {
    Connect::clean(version, &format!("d:quickstart:pump:{id}"))
}

fn application(version: Version, name: &str) -> Connect {
    Connect::clean(version, &format!("a:quickstart:{name}"))
}

/// Switches it on or off, by the tenant that is for it.
#[track_caller]
fn switch(org: &Org, node: u64, settings: &Value) {
    let (status, answer) = org.api.ask(node, "PATCH", "/tenants/quick", settings);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn strangers_are_let_in_where_an_operator_says_so() {
    let mut org = Org::start();
    scenarios(
        &mut org,
        &[
            ("nobody comes in as long as nobody has switched it on", off),
            ("events go from device to application, at once or never", events),
            ("what is not for strangers is refused", refused),
            ("who says too much is not heard, and not told", floods),
            ("nothing lasts", nothing_lasts),
            ("when it is switched off they are turned out", turned_out),
        ],
    );
}

fn off(org: &mut Org) {
    // With a user name, so that it is no client of anybody else's.
    let login = Some(("use-token-auth".to_owned(), "whatever".to_owned()));
    for (version, no) in [(Version::V4, 5), (Version::V5, 0x87)] {
        let connect = Connect { login: login.clone(), ..device(version, "d0") };
        assert_eq!(connect.reason(org.at(1)), no);
    }
    // An organisation's devices are not among strangers.
    let both = json!({ "name": "both", "aliases": ["watson:quickstart", "watson:both00"] });
    assert_eq!(org.api.ask(1, "POST", "/tenants", &both).0, 201);
    let connect = Connect { login, ..device(Version::V5, "d0") };
    assert_eq!(connect.reason(org.at(2)), 0x87);
    assert_eq!(org.api.ask(1, "DELETE", "/tenants/both", &Value::Null).0, 204);
    let quick = json!({ "name": "quick", "aliases": ["watson:quickstart"] });
    assert_eq!(org.api.ask(1, "POST", "/tenants", &quick).0, 201);
}

fn events(org: &mut Org) {
    let (mut app, _) = application(Version::V4, "web").to_patiently(org.at(2));
    assert_eq!(
        app.subscribe(&[("iot-2/type/+/id/d1/evt/+/fmt/+", 1)]),
        [0],
        "the service is QoS 0"
    );
    // Credentials are not looked at, and TLS is not asked for.
    let login = Some(("use-token-auth".to_owned(), "whatever".to_owned()));
    let (mut pump, _) = Connect { login, ..device(Version::V4, "d1") }.to(org.at(1));
    pump.publish_acked("iot-2/evt/e/fmt/json", b"{\"n\":1}");
    let heard = app.message();
    assert_eq!(heard.topic, "iot-2/type/pump/id/d1/evt/e/fmt/json");
    assert_eq!((heard.qos, &heard.payload[..]), (0, &b"{\"n\":1}"[..]));
    pump.publish_once("iot-2/evt/e/fmt/json", b"{\"n\":2}");
    assert_eq!(app.message().payload, b"{\"n\":2}");
    let (mut new, _) = device(Version::V5, "d1").to(org.at(3));
    new.publish_once("iot-2/evt/e/fmt/json", b"{\"n\":3}");
    assert_eq!(app.message().payload, b"{\"n\":3}");
}

fn refused(org: &mut Org) {
    let to = org.at(3);
    for (version, no) in [(Version::V4, 5), (Version::V5, 0x87)] {
        for client in ["g:quickstart:gw:g1", "A:quickstart:app", "A:quickstart:app:1"] {
            assert_eq!(Connect::clean(version, client).reason(to), no, "{client}");
        }
    }
    assert_eq!(Connect { clean: false, ..device(Version::V4, "d2") }.reason(to), 5);
    assert_eq!(device(Version::V5, "d2").expiring(60).reason(to), 0x87);

    let (mut pump, _) = device(Version::V5, "d2").to(to);
    let id = pump.publish("iot-2/evt/e/fmt/bin", b"1");
    assert_eq!(pump.puback(id), 0x87, "JSON alone");
    assert_eq!(pump.subscribe(&[("iot-2/cmd/+/fmt/+", 0)]), [0x87]);
    let (mut app, _) = application(Version::V5, "web2").to(to);
    for filter in ["iot-2/type/+/id/+/evt/+/fmt/+", "iot-2/type/+/id/d2/cmd/+/fmt/+"] {
        assert_eq!(app.subscribe(&[(filter, 0)]), [0x87], "{filter}");
    }
    let id = app.publish("iot-2/type/pump/id/d2/evt/e/fmt/json", b"{}");
    assert_eq!(app.puback(id), 0x87, "an application only looks");
    let (mut old, _) = device(Version::V4, "d2").to(to);
    old.send(&packet::subscribe(Version::V4, 7, &[("iot-2/cmd/+/fmt/+", 1)])).unwrap();
    assert_eq!(old.hear(SOON), Heard::Closed, "MQTT 3 can't be told");
}

fn floods(org: &mut Org) {
    let (mut app, _) = application(Version::V4, "flood").to(org.at(1));
    assert_eq!(app.subscribe(&[("iot-2/type/pump/id/d3/evt/+/fmt/+", 0)]), [0]);
    let (mut pump, _) = device(Version::V4, "d3").to(org.at(2));
    let ids: Vec<u16> =
        (0..4 * BURST).map(|_| pump.publish("iot-2/evt/e/fmt/json", b"{}")).collect();
    assert!(ids.into_iter().all(|id| pump.puback(id) == 0), "it is not told");
    for _ in 0..BURST {
        app.message();
    }
    let mut heard = BURST;
    while let Heard::Packet(Packet::Publish(_)) = app.hear(A_MOMENT) {
        heard += 1;
    }
    // Where time goes by slowly, one or two more may have had their turn.
    assert!((BURST..4 * BURST).contains(&heard), "{heard}");
}

fn nothing_lasts(org: &mut Org) {
    let (mut app, _) = application(Version::V4, "watch").to(org.at(1));
    assert_eq!(app.subscribe(&[("iot-2/type/+/id/d4/mon", 0)]), [0]);
    let (pump, _) = device(Version::V4, "d4").to(org.at(2));
    let here = app.message();
    assert!(!here.retain && String::from_utf8_lossy(&here.payload).contains("Connect"));
    pump.disconnect();
    assert!(String::from_utf8_lossy(&app.message().payload).contains("Disconnect"));
    let (mut late, _) = application(Version::V4, "late").to(org.at(3));
    assert_eq!(late.subscribe(&[("iot-2/type/+/id/d4/mon", 0)]), [0]);
    late.hears_nothing();
    let devices = org.api.ask(1, "GET", "/devices?tenant=quick", &Value::Null);
    assert_eq!(devices.0, 200);
    assert!(!devices.1.to_string().contains("d4"), "nobody is registered: {}", devices.1);
}

fn turned_out(org: &mut Org) {
    let strangers: Vec<Client> =
        (1..=3).map(|node| device(Version::V5, &format!("out{node}")).to(org.at(node)).0).collect();
    switch(org, 2, &json!({ "enabled": false }));
    for mut stranger in strangers {
        assert_eq!(stranger.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    }
    assert_eq!(device(Version::V5, "out1").reason(org.at(3)), 0x87);
    switch(org, 1, &json!({ "enabled": true }));
    let (_again, _) = device(Version::V4, "out1").to_patiently(org.at(2));
}
