//! What the server asks of devices, and what their answers lead to.

use moorline_core::UnixMillis;
use moorline_dialects::watson::management::{
    attributes::UpdateStatus,
    bundle::{Bundle, Invalid},
    record::{DeviceRecord, Progress, Record, completed},
    task::{Action, Outcome, Parameter, RequestId},
};

use super::{
    device,
    machine::{Bench, TIMEOUT_MS, exchange, id},
};

const NOTHING: [&str; 0] = [];
const FIRMWARE: [(&str, &str); 4] =
    [("version", "2"), ("name", "n"), ("uri", "http://x/y"), ("verifier", "v")];

#[test]
fn a_restart_is_over_with_the_next_manage() {
    for (action, topic) in [("device/reboot", "reboot"), ("device/factoryReset", "factory_reset")] {
        let begin = format!(r#"mgmt/initiate/device/{topic} {{"reqId":"{}"}}"#, exchange(7, 1));
        let mut bench = Bench::managed();
        assert_eq!(bench.ask(7, action, &[("action", "reboot")]).concat(), begin);
        assert_eq!(bench.answer(&exchange(7, 1), 202, "null"), NOTHING);
        let back = bench.say("mgmt/manage", r#"{"reqId":"m"}"#);
        assert_eq!(back, [r#"response {"rc":200,"message":"Done","reqId":"m"}"#, "7 succeeded"]);
        assert_eq!(bench.say("mgmt/manage", r#"{"reqId":"m"}"#).len(), 1);

        for (rc, expected) in
            [(500, "7 failed 500: no"), (501, "7 failed 501: no"), (400, "7 failed 400: no")]
        {
            let mut bench = Bench::managed();
            bench.ask(7, action, &[]);
            let answer = format!(r#"{{"rc":{rc},"message":"no","reqId":"{}"}}"#, exchange(7, 1));
            assert_eq!(bench.say("response", &answer), [expected]);
        }
    }
}

fn observe(number: u128, count: u8) -> String {
    format!(
        r#"observe {{"reqId":"{}","d":{{"fields":[{{"field":"mgmt.firmware"}}]}}}}"#,
        exchange(number, count)
    )
}

fn cancel(number: u128, count: u8) -> String {
    format!(
        r#"cancel {{"reqId":"{}","d":{{"fields":[{{"field":"mgmt.firmware"}}]}}}}"#,
        exchange(number, count)
    )
}

fn begin(what: &str, number: u128, count: u8) -> String {
    format!(r#"mgmt/initiate/firmware/{what} {{"reqId":"{}"}}"#, exchange(number, count))
}

/// Brings a download to where the device works.
fn downloading() -> Bench {
    let mut bench = Bench::managed();
    let update = bench.ask(1, "firmware/download", &FIRMWARE).concat();
    assert!(
        update.starts_with(&format!(r#"device/update {{"reqId":"{}","#, exchange(1, 1))),
        "{update}"
    );
    for field in [
        r#""version":"2""#,
        r#""name":"n""#,
        r#""uri":"http://x/y""#,
        r#""verifier":"v""#,
        r#""state":0"#,
        r#""updateStatus":0"#,
        r#""updatedDateTime":"2026"#,
    ] {
        assert!(update.contains(field), "{update}");
    }
    assert_eq!(bench.answer(&exchange(1, 1), 204, "null"), [observe(1, 2)]);
    let value = r#"{"fields":[{"field":"mgmt.firmware","value":{"state":0,"updateStatus":0}}]}"#;
    assert_eq!(bench.answer(&exchange(1, 2), 200, value), [begin("download", 1, 3)]);
    assert_eq!(bench.answer(&exchange(1, 3), 202, "null"), NOTHING);
    bench
}

#[test]
fn a_download_goes_its_way() {
    let mut bench = downloading();
    assert_eq!(bench.notify(r#"{"state":1}"#), NOTHING);
    assert_eq!(bench.notify(r#"{"state":2}"#), [cancel(1, 4)]);
    assert_eq!(bench.answer(&exchange(1, 4), 200, "null"), ["1 succeeded"]);
    assert_eq!(bench.device.firmware.version, "2");

    for (status, why) in [
        (2, "The device is out of memory"),
        (3, "The connection was lost during the download"),
        (4, "The image did not pass its verification"),
        (6, "The URI is not valid"),
    ] {
        let mut bench = downloading();
        assert_eq!(bench.notify(r#"{"state":1}"#), NOTHING);
        let failed = format!(r#"{{"state":0,"updateStatus":{status}}}"#);
        assert_eq!(bench.notify(&failed), [cancel(1, 4)]);
        assert_eq!(bench.answer(&exchange(1, 4), 200, "null"), [format!("1 failed: {why}")]);
    }
}

/// Brings an update to where the device works. `told`: whether it is told another firmware first.
fn updating(told: bool) -> (Bench, u8) {
    let mut bench = Bench::managed();
    bench.notify(r#"{"version":"2","state":2,"updateStatus":1}"#);
    let first = bench.ask(1, "firmware/update", if told { &FIRMWARE } else { &[] }).concat();
    let count = if told {
        assert!(first.starts_with("device/update ") && first.contains(r#""state":2"#), "{first}");
        assert_eq!(bench.answer(&exchange(1, 1), 204, "null"), [observe(1, 2)]);
        2
    } else {
        assert_eq!(first, observe(1, 1));
        1
    };
    let next = bench.answer(&exchange(1, count), 200, "null");
    assert_eq!(next, [begin("update", 1, count + 1)]);
    assert_eq!(bench.answer(&exchange(1, count + 1), 202, "null"), NOTHING);
    (bench, count + 2)
}

#[test]
fn an_update_goes_its_way() {
    for told in [true, false] {
        let (mut bench, last) = updating(told);
        assert_eq!(bench.notify(r#"{"updateStatus":1}"#), NOTHING);
        assert_eq!(bench.notify(r#"{"state":0,"updateStatus":0}"#), [cancel(1, last)]);
        assert_eq!(bench.answer(&exchange(1, last), 200, "null"), ["1 succeeded"]);
        assert_eq!(bench.device.info.fw_version.as_deref(), Some("2"));
        // The Python SDK's callbacks begin with "idle, success", whatever was before.
        let (mut bench, last) = updating(told);
        assert_eq!(bench.notify(r#"{"state":0,"updateStatus":0}"#), NOTHING);
        assert_eq!(bench.notify(r#"{"state":0,"updateStatus":1}"#), NOTHING);
        assert_eq!(bench.notify(r#"{"state":0,"updateStatus":0}"#), [cancel(1, last)]);
        // A client that tells the status alone.
        let (mut bench, last) = updating(told);
        assert_eq!(bench.notify(r#"{"updateStatus":1}"#), NOTHING);
        assert_eq!(bench.notify(r#"{"updateStatus":0}"#), [cancel(1, last)]);
        for (status, why) in [(2, "The device is out of memory"), (5, "The image is not supported")]
        {
            let (mut bench, last) = updating(told);
            assert_eq!(bench.notify(r#"{"updateStatus":1}"#), NOTHING);
            assert_eq!(bench.notify(&format!(r#"{{"updateStatus":{status}}}"#)), [cancel(1, last)]);
            // Whatever it says to the cancel.
            assert_eq!(bench.answer(&exchange(1, last), 500, "null"), [format!("1 failed: {why}")]);
            assert_eq!(bench.device.info.fw_version, None);
        }
    }
    assert!(UpdateStatus::try_from(7).is_err());
}

#[test]
fn refusals_end_a_firmware_request() {
    let refused = |rc| format!("1 failed {rc}: The device refused");
    for (step, rc) in [(1, 400), (1, 500), (2, 404), (2, 500)] {
        let mut bench = Bench::managed();
        bench.ask(1, "firmware/download", &FIRMWARE);
        if step == 2 {
            bench.answer(&exchange(1, 1), 204, "null");
        }
        assert_eq!(bench.answer(&exchange(1, step), rc, "null"), [refused(rc)]);
    }
    // SDKs send empty messages.
    let mut bench = Bench::managed();
    bench.ask(1, "firmware/download", &FIRMWARE);
    let answer = format!(r#"{{"rc":500,"message":"","reqId":"{}"}}"#, exchange(1, 1));
    assert_eq!(bench.say("response", &answer), [refused(500)]);
    // It observes by then, so that it is told to stop.
    for rc in [400, 500, 501] {
        let mut bench = Bench::managed();
        bench.ask(1, "firmware/update", &[]);
        bench.answer(&exchange(1, 1), 200, "null");
        assert_eq!(bench.answer(&exchange(1, 2), rc, "null"), [cancel(1, 3)]);
        assert_eq!(bench.answer(&exchange(1, 3), 200, "null"), [refused(rc)]);
    }
    // A notice may overtake the answer to what it is about.
    let mut bench = Bench::managed();
    bench.ask(1, "firmware/download", &FIRMWARE);
    bench.answer(&exchange(1, 1), 204, "null");
    bench.answer(&exchange(1, 2), 200, "null");
    assert_eq!(bench.notify(r#"{"state":2}"#), [cancel(1, 4)]);
    assert_eq!(bench.answer(&exchange(1, 3), 202, "null"), NOTHING);
    assert_eq!(bench.answer(&exchange(1, 4), 200, "null"), ["1 succeeded"]);
}

#[test]
fn custom_actions_are_done_at_once_or_later() {
    let sent = format!(
        r#"mgmt/custom/bundle-1/act {{"reqId":"{}","d":{{"fields":[{{"field":"p1","value":"1"}}]}}}}"#,
        exchange(3, 1)
    );
    let asked = || {
        let mut bench = Bench::managed();
        assert_eq!(bench.ask(3, "bundle-1/act", &[("p1", "1")]).concat(), sent);
        bench
    };
    assert_eq!(asked().answer(&exchange(3, 1), 200, "null"), ["3 succeeded"]);
    assert_eq!(asked().answer(&exchange(3, 1), 400, "null"), ["3 failed 400: The device refused"]);
    assert_eq!(asked().answer(&exchange(3, 1), 500, "null"), ["3 failed 500: The device refused"]);
    for (field, expected) in
        [("bundle-1", 1), ("bundle-1.act", 1), ("bundle-12", 0), ("location", 0)]
    {
        let mut bench = asked();
        assert_eq!(bench.answer(&exchange(3, 1), 202, "null"), NOTHING);
        let notify = format!(r#"{{"d":{{"fields":[{{"field":"{field}","value":1}}]}}}}"#);
        assert_eq!(bench.say("notify", &notify).len(), expected, "{field}");
    }
    let bare = Bench::managed().ask(3, "bundle-1/act", &[]);
    assert_eq!(bare, [format!(r#"mgmt/custom/bundle-1/act {{"reqId":"{}"}}"#, exchange(3, 1))]);
}

#[test]
fn what_timed_out_is_still_delivered() {
    let mut bench = Bench::managed();
    assert_eq!(bench.ask(1, "device/reboot", &[]).len(), 1, "it is sent, and nothing recalls it");
    assert_eq!(bench.device.due(), Some(UnixMillis(bench.now.0 + TIMEOUT_MS)));
    assert_eq!(bench.pass(TIMEOUT_MS - 1), NOTHING);
    assert_eq!(bench.pass(1), ["1 timed out"]);
    assert_eq!(bench.device.due(), None);
    assert_eq!(bench.answer(&exchange(1, 1), 202, "null"), NOTHING);
    assert_eq!(bench.say("mgmt/manage", r#"{"reqId":"m"}"#).len(), 1);
    // What is known to be over does not time out.
    let mut bench = downloading();
    bench.notify(r#"{"state":2}"#);
    assert_eq!(bench.pass(TIMEOUT_MS), ["1 succeeded"]);
}

#[test]
fn a_repeated_answer_moves_nothing() {
    let mut bench = Bench::managed();
    bench.ask(1, "firmware/download", &FIRMWARE);
    assert_eq!(bench.answer(&exchange(1, 1), 204, "null"), [observe(1, 2)]);
    for stale in [exchange(1, 1), exchange(1, 0), exchange(2, 2), "x".to_owned()] {
        assert_eq!(bench.answer(&stale, 200, "null"), NOTHING, "{stale}");
    }
    assert_eq!(bench.answer(&exchange(1, 2), 200, "null").len(), 1);
    let text = id(0x1234).to_string();
    assert_eq!(RequestId::parse(&text), Some(id(0x1234)));
    for wrong in
        ["", "x", &text[1..], &exchange(1, 1), &text.replace('-', "0"), &text.replace('1', "é")]
    {
        assert_eq!(RequestId::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn one_task_at_a_time() {
    let mut bench = Bench::managed();
    assert_eq!(bench.ask(1, "device/reboot", &[]).len(), 1);
    assert_eq!(bench.ask(1, "device/reboot", &[]), NOTHING, "the driver repeats itself");
    assert_eq!(bench.ask(2, "device/reboot", &[]), ["2 failed: Another request is under way"]);
    let over = bench.ask_again(3, "device/reboot", &[], true);
    assert_eq!((over[0].as_str(), over.len()), ("1 cancelled", 2));
    assert_eq!(bench.call_off(1), NOTHING);
    assert_eq!(bench.call_off(3), ["3 cancelled"]);
    assert_eq!(bench.device.task, None);
}

#[test]
fn who_does_not_support_it_is_not_asked() {
    let unmanaged = "1 failed: The device is not managed";
    let without = "1 failed: The device does not support the action";
    for action in [
        "device/reboot",
        "device/factoryReset",
        "firmware/download",
        "firmware/update",
        "bundle-1/act",
    ] {
        assert_eq!(Bench::new().ask(1, action, &[]), [unmanaged]);
        let mut bare = Bench::new();
        bare.say("mgmt/manage", "{}");
        assert_eq!(bare.ask(1, action, &[]), [without]);
        assert_eq!(Action::parse(action).map(|action| action.to_string()).as_deref(), Some(action));
    }
    for action in ["", "reboot", "device/other", "firmware/", "a/b/c", "a b/c", "/x", "x/"] {
        assert_eq!(Action::parse(action), None, "{action}");
    }
}

#[test]
fn records_follow_their_devices() {
    let at = UnixMillis(1_767_323_045_678);
    let failed = Progress::Ended(Outcome::failed(Some(501), "no"));
    let mut one = DeviceRecord::pending(at);
    for (progress, is_new) in [
        (Progress::Running, true),
        (Progress::Running, false),
        (failed, true),
        (Progress::Ended(Outcome::Succeeded), false),
        (Progress::Running, false),
    ] {
        let noted = one.noted(&progress, at);
        assert_eq!(noted.is_some(), is_new, "{progress:?}");
        one = noted.unwrap_or(one);
    }
    let two = DeviceRecord::pending(at);
    assert_eq!(completed([&one, &two]), None);
    let two = two.noted(&Progress::Ended(Outcome::TimedOut), UnixMillis(at.0 + 1)).unwrap();
    assert_eq!(completed([&one, &two]), Some(UnixMillis(at.0 + 1)));
    let mut record = Record {
        action: Action::Reboot,
        parameters: Vec::new(),
        initiated: at,
        deadline: UnixMillis(at.0 + 5),
        devices: 2,
        completed: None,
    };
    let text = |record: &Record| serde_json::to_string(&record.shown(id(1))).unwrap();
    assert_eq!(
        text(&record),
        r#"{"id":"00000000-0000-0000-0000-000000000010","action":"device/reboot","parameters":[],"deviceCount":2,"initiated":"2026-01-02T03:04:05.678Z","complete":false}"#
    );
    record.completed = Some(at);
    assert!(text(&record).ends_with(r#""complete":true,"completed":"2026-01-02T03:04:05.678Z"}"#));
    let shown =
        |one: &DeviceRecord| serde_json::to_string(&one.shown(&device("t1", "d1"))).unwrap();
    assert_eq!(
        shown(&one),
        r#"{"typeId":"t1","deviceId":"d1","status":1,"complete":true,"message":"501: no","lastUpdateDateTime":"2026-01-02T03:04:05.678Z"}"#
    );
    assert!(shown(&two).contains(r#""status":2,"complete":true"#));
}

#[test]
fn bundles_have_their_shape() {
    let text = r#"{"bundleId":"bundle-1","version":"1.0","provider":"p","displayName":{"en_US":"B"},"description":{"en_US":"d"},"actions":{"act":{"actionDisplayName":{"en_US":"A"},"description":{"en_US":"a"},"parameters":[{"name":"p1","value":"http://x","required":"true","defaultValue":"0","regex":"[0-9]"},{"name":"p2","required":true},{"name":"p3","required":false}]}}}"#;
    let bundle: Bundle = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&bundle).unwrap(), text);
    assert_eq!(bundle.check(), Ok(()));
    let given = [Parameter { name: "p2".into(), value: 7.into() }];
    let names = |all: Vec<Parameter>| all.into_iter().map(|p| p.name).collect::<Vec<_>>();
    assert_eq!(
        bundle.parameters("act", &given).map(names),
        Ok(vec!["p2".to_owned(), "p1".to_owned()])
    );
    assert_eq!(bundle.parameters("act", &[]), Err(Invalid::Missing("p2".into())));
    assert_eq!(bundle.parameters("other", &given), Err(Invalid::NoAction("other".into())));
    for id in ["", "a/b", "device", "firmware", "deviceActions", "firmwareActions"] {
        let wrong = Bundle { bundle_id: id.to_owned(), ..bundle.clone() };
        assert_eq!(wrong.check(), Err(Invalid::Id(id.to_owned())), "{id}");
    }
    let empty = Bundle { actions: Default::default(), ..bundle.clone() };
    assert_eq!(empty.check(), Err(Invalid::Actions));
    let mut odd = bundle;
    let action = odd.actions["act"].clone();
    odd.actions.insert("a b".to_owned(), action);
    assert_eq!(odd.check(), Err(Invalid::Action("a b".to_owned())));
}
