//! What a managed device says of itself, and how it is answered.

use moorline_core::UnixMillis;
use moorline_dialects::watson::{
    management::{
        address::Upward,
        attributes::{DeviceInfo, Location, NewErrorCode},
        device::{Change, ERROR_CODES_MAX, LOG_BYTES_MAX, Standing},
        wire::{Rc, answer_unread},
    },
    topics::subscribe,
};
use proptest::prelude::*;

use super::{client, machine::Bench};

fn done(id: &str) -> Vec<String> {
    vec![format!(r#"response {{"rc":200,"message":"Done","reqId":"{id}"}}"#)]
}

#[test]
fn ten_manages_are_one() {
    let payload = |number: usize| {
        format!(
            r#"{{"d":{{"lifetime":3600,"supports":{{"deviceActions":true,"firmwareActions":false}},"deviceInfo":{{"serialNumber":"s","fwVersion":0.5}},"metadata":{{"a":{{"b":1}}}}}},"reqId":"r{number}"}}"#
        )
    };
    let mut bench = Bench::new();
    assert_eq!(bench.say("mgmt/manage", &payload(0)), done("r0"));
    let after_one = bench.device.clone();
    for number in 1..10 {
        assert_eq!(bench.say("mgmt/manage", &payload(number)), done(&format!("r{number}")));
    }
    assert_eq!(bench.device, after_one);
    assert!(after_one.supports("deviceActions") && !after_one.supports("firmwareActions"));
    assert_eq!(after_one.due(), Some(UnixMillis(bench.now.0 + 3_600_000)));
    assert_eq!(after_one.info.serial_number.as_deref(), Some("s"));
    assert_eq!(after_one.info.fw_version.as_deref(), Some("0.5"));
    assert_eq!(after_one.metadata["a"]["b"], 1);
}

#[test]
fn requests_have_their_answers() {
    let rc = |rc: u16, text: &str| {
        vec![format!(r#"response {{"rc":{rc},"message":"{text}","reqId":"r"}}"#)]
    };
    let (bad, none) = (rc(400, "The request is malformed"), Vec::new());
    let unknown = rc(403, "The organization has no such extension bundle");
    let missing = rc(404, "There is no such device or attribute");
    let place = r#"{"longitude":-0.1,"latitude":51.5,"elevation":10,"measuredDateTime":"2026-01-02T03:04:05Z","updatedDateTime":"2026-01-02T03:04:05Z","accuracy":5}"#;
    #[rustfmt::skip]
    let table = [
        ("mgmt/manage",   r#"{"reqId":"r"}"#,                                              done("r")),
        ("mgmt/manage",   r#"{"d":{},"reqId":"r"}"#,                                       done("r")),
        ("mgmt/manage",   r#"{"d":{"lifetime":0},"reqId":"r"}"#,                           done("r")),
        ("mgmt/manage",   r#"{"d":{"lifetime":1},"reqId":"r"}"#,                           done("r")),
        ("mgmt/manage",   r#"{"d":{"lifetime":null,"supports":null,"deviceInfo":null,"metadata":null},"reqId":"r"}"#, done("r")),
        ("mgmt/manage",   r#"{"d":{"supports":{"bundle-1":true}},"reqId":"r"}"#,           done("r")),
        ("mgmt/manage",   r#"{"d":{"supports":{"bundle-2":false,"deviceActions":null}},"reqId":"r"}"#, done("r")),
        ("mgmt/manage",   r#"{"d":{"supports":{"bundle-2":true}},"reqId":"r"}"#,           unknown),
        ("mgmt/manage",   r#"{"d":{"lifetime":-1},"reqId":"r"}"#,                          bad.clone()),
        ("mgmt/manage",   r#"{"d":{"lifetime":"3600"},"reqId":"r"}"#,                      bad.clone()),
        ("mgmt/manage",   r#"{"d":{"supports":[]},"reqId":"r"}"#,                          bad.clone()),
        ("mgmt/manage",   r#"{"d":{"deviceInfo":{"model":[]}},"reqId":"r"}"#,              bad.clone()),
        ("mgmt/manage",   r#"{"d":{"metadata":7},"reqId":"r"}"#,                           bad.clone()),
        ("mgmt/manage",   r#"{"d":[],"reqId":"r"}"#,                                       bad.clone()),
        ("mgmt/manage",   r#"{"d":{}}"#,                                                   none.clone()),
        ("mgmt/manage",   "{",                                                             none.clone()),
        ("mgmt/manage",   "",                                                              none.clone()),
        ("mgmt/manage",   r#"[null,"r"]"#,                                                 none.clone()),
        ("mgmt/manage",   r#"{"reqId":7}"#,                                                none.clone()),
        ("mgmt/unmanage", r#"{"reqId":"r"}"#,                                              done("r")),
        ("mgmt/other",    r#"{"reqId":"r"}"#,                                              bad.clone()),
        ("add/x/y",       r#"{"reqId":"r"}"#,                                              bad.clone()),
        ("device/update/location", &format!(r#"{{"d":{place},"reqId":"r"}}"#),             done("r")),
        ("device/update/location", r#"{"d":{"longitude":1,"latitude":2},"reqId":"r"}"#,    done("r")),
        ("device/update/location", &format!(r#"{{"d":{place}}}"#),                         none.clone()),
        ("device/update/location", r#"{"d":{"longitude":1},"reqId":"r"}"#,                 bad.clone()),
        ("device/update/location", r#"{"d":{"latitude":1},"reqId":"r"}"#,                  bad.clone()),
        ("device/update/location", r#"{"d":{"longitude":1,"latitude":91},"reqId":"r"}"#,   bad.clone()),
        ("device/update/location", r#"{"d":{"longitude":1,"latitude":2,"measuredDateTime":"now"},"reqId":"r"}"#, bad.clone()),
        ("add/diag/errorCodes",    r#"{"d":{"errorCode":42},"reqId":"r"}"#,                done("r")),
        ("add/diag/errorCodes",    r#"{"d":{"errorCode":"42"},"reqId":"r"}"#,              bad.clone()),
        ("add/diag/errorCodes",    r#"{"reqId":"r"}"#,                                     bad.clone()),
        ("clear/diag/errorCodes",  r#"{"reqId":"r"}"#,                                     done("r")),
        ("add/diag/log",  r#"{"d":{"message":"m","timestamp":"2026-01-02T03:04:05","data":"AA==","severity":0},"reqId":"r"}"#, done("r")),
        ("add/diag/log",  r#"{"d":{"message":"","severity":2},"reqId":"r"}"#,              done("r")),
        ("add/diag/log",  r#"{"d":{"message":"m","severity":3},"reqId":"r"}"#,             bad.clone()),
        ("add/diag/log",  r#"{"d":{"message":"m"},"reqId":"r"}"#,                          bad.clone()),
        ("add/diag/log",  r#"{"d":{"severity":1},"reqId":"r"}"#,                           bad.clone()),
        ("clear/diag/log", r#"{"reqId":"r"}"#,                                             done("r")),
        ("notify",        r#"{"d":{"fields":[{"field":"mgmt.firmware","value":{"state":1}}]}}"#, none.clone()),
        ("notify",        r#"{"d":{"fields":[{"field":"mgmt.firmware","value":{"state":1}}]},"reqId":"r"}"#, done("r")),
        ("notify",        r#"{"d":{"field":"deviceInfo.model","value":"x"},"reqId":"r"}"#, done("r")),
        ("notify",        r#"{"d":{"fields":[{"field":"deviceInfo","value":{"model":"x"}},{"field":"metadata","value":{}}]},"reqId":"r"}"#, done("r")),
        ("notify",        &format!(r#"{{"d":{{"fields":[{{"field":"location","value":{place}}}]}},"reqId":"r"}}"#), done("r")),
        ("notify",        r#"{"d":{"fields":[{"field":"mgmt.firmware","value":{"state":9}}]},"reqId":"r"}"#, bad.clone()),
        ("notify",        r#"{"d":{"fields":[{"field":"location","value":7}]},"reqId":"r"}"#, bad.clone()),
        ("notify",        r#"{"d":{"fields":7},"reqId":"r"}"#,                             bad.clone()),
        ("notify",        r#"{"reqId":"r"}"#,                                              bad),
        ("notify",        r#"{"d":{"fields":[{"field":"other","value":7}]},"reqId":"r"}"#, missing),
        ("response",      r#"{"rc":200,"reqId":"unheard of"}"#,                            none.clone()),
        ("response",      "no JSON",                                                       none),
    ];
    for (address, payload, expected) in table {
        assert_eq!(Bench::managed().say(address, payload), expected, "{address} {payload}");
    }
    assert_eq!(Rc::Failed as u16, 500);
}

#[test]
fn what_is_not_looked_into_is_answered_all_the_same() {
    let known = answer_unread(&Upward::Manage, br#"{"reqId":"r","d":{}}"#, Rc::NotFound).unwrap();
    assert_eq!(known, r#"{"rc":404,"message":"There is no such device or attribute","reqId":"r"}"#);
    let met = answer_unread(&Upward::Notify, br#"{"reqId":"r"}"#, Rc::Conflict).unwrap();
    assert_eq!(met, r#"{"rc":409,"message":"Another change came between","reqId":"r"}"#);
    assert_eq!(answer_unread(&Upward::Manage, b"{}", Rc::NotFound), None);
    let answer = br#"{"reqId":"r","rc":200}"#;
    assert_eq!(answer_unread(&Upward::Response, answer, Rc::NotFound), None, "it asks nothing");
}

#[test]
fn a_lifetime_that_passes_makes_dormant() {
    for (lifetime, after_s, expected) in [
        (3_600, 3_599, false),
        (3_600, 3_600, true),
        (60, 3_599, false),
        (60, 3_600, true),
        (0, 1_000_000_000, false),
        (u64::MAX, 1_000_000_000, false),
    ] {
        let mut bench = Bench::new();
        let manage = format!(
            r#"{{"d":{{"lifetime":{lifetime},"deviceInfo":{{"model":"x"}}}},"reqId":"r"}}"#
        );
        assert_eq!(bench.say("mgmt/manage", &manage), done("r"));
        assert!(bench.notify(r#"{"version":"1"}"#).is_empty());
        assert_eq!(bench.pass(after_s * 1_000), [""; 0]);
        let dormant = bench.device.standing == Standing::Dormant;
        assert_eq!(dormant, expected, "{lifetime} {after_s}");
        assert_eq!(bench.device.firmware.version.is_empty(), dormant);
        assert_eq!(bench.device.info.model.as_deref(), Some("x"), "only mgmt.* vanishes");
        assert_eq!(bench.say("mgmt/manage", &manage), done("r"));
        assert!(matches!(bench.device.standing, Standing::Managed(_)));
    }
    let mut bench = Bench::managed();
    assert!(bench.notify(r#"{"version":"1"}"#).is_empty());
    assert_eq!(bench.say("mgmt/unmanage", r#"{"reqId":"u"}"#), done("u"));
    assert_eq!((bench.device.standing.clone(), bench.device.due()), (Standing::Unmanaged, None));
    assert!(bench.device.firmware.version.is_empty());
    assert_eq!(bench.say("mgmt/unmanage", r#"{"reqId":"u"}"#), done("u"));
    let gone = bench
        .say("notify", r#"{"d":{"fields":[{"field":"mgmt.firmware","value":{}}]},"reqId":"n"}"#);
    assert_eq!(
        gone,
        [r#"response {"rc":404,"message":"There is no such device or attribute","reqId":"n"}"#]
    );
}

#[test]
fn places_are_on_the_globe() {
    let place = |longitude, latitude| Location {
        longitude,
        latitude,
        elevation: None,
        measured_date_time: None,
        updated_date_time: None,
        accuracy: None,
    };
    #[rustfmt::skip]
    let table = [
        (0.0, 0.0, true), (180.0, 90.0, true), (-180.0, -90.0, true), (180.1, 0.0, false), (0.0, 90.1, false),
        (-180.1, 0.0, false), (0.0, -90.1, false), (f64::NAN, 0.0, false), (0.0, f64::INFINITY, false),
    ];
    for (longitude, latitude, expected) in table {
        let taken = place(longitude, latitude).taken(UnixMillis(0));
        assert_eq!(taken.is_some(), expected, "{longitude} {latitude}");
        let both = taken.map(|taken| (taken.measured_date_time, taken.updated_date_time));
        let now = Some("1970-01-01T00:00:00.000Z".to_owned());
        assert!(both.is_none_or(|both| both == (now.clone(), now)));
    }
    // The whole location is replaced.
    let mut bench = Bench::managed();
    bench.say("device/update/location", r#"{"d":{"longitude":1,"latitude":2,"elevation":3}}"#);
    bench.say("device/update/location", r#"{"d":{"longitude":1.5,"latitude":2}}"#);
    assert_eq!(
        bench.device.location.map(|place| (place.longitude, place.elevation)),
        Some((1.5, None))
    );
}

#[test]
fn diagnostics_are_bounded_and_newest_first() {
    let mut bench = Bench::managed();
    for code in 0..150 {
        assert!(
            bench
                .device
                .report_error_code(bench.now, NewErrorCode { error_code: code, timestamp: None })
        );
    }
    assert_eq!(bench.device.error_codes.len(), ERROR_CODES_MAX);
    assert_eq!(bench.device.error_codes[0].error_code, 149);
    bench.say("clear/diag/errorCodes", "{}");
    assert!(bench.device.error_codes.is_empty());
    let large = "x".repeat(20_000);
    for _ in 0..8 {
        bench.say("add/diag/log", &format!(r#"{{"d":{{"message":"{large}","severity":1}}}}"#));
    }
    let kept: Vec<&str> = bench.device.log.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(kept, ["7", "6", "5", "4"]);
    assert!(bench.device.log.iter().map(|entry| entry.bytes()).sum::<usize>() <= LOG_BYTES_MAX);
    bench.say("clear/diag/log", "{}");
    assert!(bench.device.log.is_empty());
}

#[test]
fn changes_by_the_api_are_told_to_managed_devices() {
    let info = || DeviceInfo { model: Some("x".to_owned()), ..DeviceInfo::default() };
    let location = Location {
        longitude: 1.5,
        latitude: 2.0,
        elevation: None,
        measured_date_time: None,
        updated_date_time: None,
        accuracy: None,
    };
    let metadata = [("a".to_owned(), 1.into())].into_iter().collect();
    let mut bench = Bench::managed();
    #[rustfmt::skip]
    let table = [
        (Change::Location(location), r#"{"longitude":1.5,"latitude":2.0}"#, "location"),
        (Change::Metadata(metadata), r#"{"a":1}"#,                          "metadata"),
        (Change::Info(info()),       r#"{"model":"x"}"#,                    "deviceInfo"),
    ];
    for (change, value, field) in table {
        // No reqId: nobody waits for an answer. Keys of a value have no order.
        let expected = format!(
            r#"device/update {{"d":{{"fields":[{{"field":"{field}","value":{value}}}]}}}}"#
        );
        let said = bench.change(change).concat();
        let json = |text: &str| {
            serde_json::from_str::<serde_json::Value>(text.split_once(' ').unwrap().1).unwrap()
        };
        assert_eq!(json(&said), json(&expected), "{field}");
        assert!(said.starts_with("device/update "));
    }
    let mut stranger = Bench::new();
    assert_eq!(stranger.change(Change::Info(info())), [""; 0]);
    assert_eq!(stranger.device.info, info());
}

#[test]
fn the_ten_subscriptions_of_the_sdk_are_granted() {
    for rest in [
        "response",
        "observe",
        "mgmt/initiate/device/reboot",
        "mgmt/initiate/device/factory_reset",
        "device/update",
        "mgmt/initiate/firmware/update",
        "mgmt/initiate/firmware/download",
        "cancel",
        "mgmt/custom/#",
        "#",
    ] {
        assert!(subscribe(&client("d:abc123:t1:d1"), format!("iotdm-1/{rest}").as_bytes()).is_ok());
        let through = format!("iotdm-1/type/gw/id/g1/{rest}");
        assert!(subscribe(&client("g:abc123:gw:g1"), through.as_bytes()).is_ok());
    }
}

proptest! {
    #[test]
    fn no_payload_breaks_the_machine(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        address in prop::sample::select(vec!["mgmt/manage", "mgmt/unmanage", "notify", "response", "add/diag/log", "add/diag/errorCodes", "device/update/location", "mgmt/x"]),
        field in "(mgmt.firmware|location|metadata|deviceInfo|deviceInfo.model|x)",
        value in "(null|1|\"\"|\\{\\}|\\[\\]|\\{\"state\":[0-9]\\}|\\{\"latitude\":[0-9]{1,3},\"longitude\":1\\})",
    ) {
        let mut bench = Bench::managed();
        bench.ask(1, "firmware/download", &[]);
        for payload in [String::from_utf8_lossy(&bytes).into_owned(), format!(r#"{{"d":{{"field":"{field}","value":{value}}},"reqId":"r"}}"#), format!(r#"{{"d":{value},"reqId":"r"}}"#)] {
            let said = bench.say(address, &payload);
            prop_assert!(said.len() <= 3);
        }
    }
}
