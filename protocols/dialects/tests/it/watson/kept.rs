//! How a managed device is kept, and what is owed to it.

use std::collections::BTreeSet;

use moorline_core::UnixMillis;
use moorline_dialects::watson::management::{
    address::{Downward, Upward},
    device::{Change, Event, LOG_KEPT_MS},
    kept::{self, Kept, OWED_AGAIN_MS, OWED_MAX, Owing},
    task::{Action, Parameter},
};

use super::{
    device,
    machine::{TIMEOUT_MS, exchange, id},
};

const NOW: UnixMillis = UnixMillis(1_767_323_045_678);

fn after(kept: Kept, event: Event<'_>) -> Kept {
    kept.after(NOW, event).0
}

fn said(kept: Kept, address: &Upward, payload: &str) -> Kept {
    let (payload, bundles) = (payload.as_bytes(), &BTreeSet::new());
    after(kept, Event::Said { address, payload, bundles })
}

fn managed() -> Kept {
    const MANAGE: &str =
        r#"{"d":{"lifetime":3600,"supports":{"deviceActions":true,"firmwareActions":true}}}"#;
    said(Kept::default(), &Upward::Manage, MANAGE)
}

fn ask(kept: Kept, number: u128, action: &Action) -> Kept {
    let value = "http://x/y".into();
    let parameters = [Parameter { name: "uri".to_owned(), value }];
    let timeout_ms = TIMEOUT_MS;
    let (id, parameters) = (id(number), &parameters[..]);
    after(kept, Event::Asked { id, action, parameters, timeout_ms, overrides: true })
}

fn answer(kept: Kept, number: u128, count: u8, rc: u16) -> Kept {
    let answer = format!(r#"{{"rc":{rc},"reqId":"{}"}}"#, exchange(number, count));
    said(kept, &Upward::Response, &answer)
}

/// What is owed, in short.
fn owed(kept: &Kept) -> Vec<String> {
    let short = |what: &Owing| match what {
        Owing::Send { to, .. } => to.clone(),
        Owing::Note { progress, .. } => {
            serde_json::to_string(progress).expect("progress has a form in JSON")
        }
    };
    kept.owed.iter().map(|owed| short(&owed.what)).collect()
}

#[test]
fn what_was_not_said_is_owed() {
    let asked = ask(managed(), 7, &Action::FirmwareDownload);
    assert_eq!(owed(&asked), [r#""running""#, "device/update"]);
    // Whoever wrote it does it at once, and somebody else when it should be done long since.
    let due = |kept: &Kept, fresh, ms| kept.due(fresh, UnixMillis(NOW.0 + ms)).count();
    assert_eq!((due(&asked, 0, 0), due(&asked, asked.next(), OWED_AGAIN_MS - 1)), (2, 0));
    assert_eq!(due(&asked, asked.next(), OWED_AGAIN_MS), 2);
    // The device answers before it is known that it was asked: that question is not asked again.
    let answered = answer(asked.clone(), 7, 1, 204);
    assert_eq!(owed(&answered), [r#""running""#, "observe"]);
    let numbers: Vec<u64> = answered.owed.iter().map(|owed| owed.number).collect();
    let mut done = answered;
    done.paid(&numbers);
    assert_eq!(owed(&done), [""; 0]);
    let begun = answer(answer(done, 7, 2, 200), 7, 3, 202);
    assert_eq!(owed(&begun), [r#""running""#], "it works: nothing is asked");
    // Another one makes way for it.
    let other = ask(begun, 8, &Action::Reboot);
    assert_eq!(
        owed(&other),
        [r#"{"ended":"cancelled"}"#, r#""running""#, "mgmt/initiate/device/reboot"]
    );
    let (over, answers) = answer(other, 8, 1, 202).after(
        NOW,
        Event::Said {
            address: &Upward::Manage,
            payload: br#"{"reqId":"m"}"#,
            bundles: &BTreeSet::new(),
        },
    );
    assert_eq!(answers.len(), 1, "an answer is said once, and not owed");
    assert_eq!(owed(&over), [r#"{"ended":"cancelled"}"#, r#"{"ended":"succeeded"}"#]);
}

#[test]
fn no_more_is_owed_than_may_be() {
    let mut kept = managed();
    for _ in 0..OWED_MAX + 5 {
        kept = after(kept, Event::Changed(Change::Metadata(serde_json::Map::new())));
    }
    assert_eq!(kept.owed.len(), OWED_MAX);
    assert_eq!(kept.owed[0].number, 5);
}

#[test]
fn kept_forms_stay() {
    let mut kept = ask(managed(), 7, &Action::FirmwareDownload);
    kept = said(
        kept,
        &Upward::UpdateLocation,
        r#"{"d":{"longitude":1,"latitude":2.5,"elevation":3}}"#,
    );
    kept = said(kept, &Upward::AddErrorCode, r#"{"d":{"errorCode":42}}"#);
    let written = concat!(
        r#"{"form":1,"standing":{"managed":{"until":1767326645678,"supports":["deviceActions","firmwareActions"]}},"#,
        r#""location":{"longitude":1.0,"latitude":2.5,"elevation":3.0,"measuredDateTime":"2026-01-02T03:04:05.678Z","updatedDateTime":"2026-01-02T03:04:05.678Z"},"#,
        r#""errors":[{"errorCode":42,"timestamp":"2026-01-02T03:04:05.678Z"}],"#,
        r#""firmware":{"version":"","name":"","uri":"http://x/y","verifier":"","state":0,"updateStatus":0,"updatedDateTime":"2026-01-02T03:04:05.678Z"},"#,
        r#""task":{"id":"00000000-0000-0000-0000-000000000070","action":"firmware/download","parameters":[{"name":"uri","value":"http://x/y"}],"deadline":1767323105678,"phase":"updating","exchange":1},"#,
        r#""owed":[{"number":0,"since":1767323045678,"note":{"id":"00000000-0000-0000-0000-000000000070","progress":"running"}},"#,
        r#"{"number":1,"since":1767323045678,"send":{"to":"device/update","payload":"{\"reqId\":\"00000000-0000-0000-0000-000000000071\",\"d\":{\"fields\":[{\"field\":\"mgmt.firmware\",\"value\":{\"name\":\"\",\"state\":0,\"updateStatus\":0,\"updatedDateTime\":\"2026-01-02T03:04:05.678Z\",\"uri\":\"http://x/y\",\"verifier\":\"\",\"version\":\"\"}}]}}","exchange":"00000000-0000-0000-0000-000000000071"}}],"#,
        r#""owed-next":2}"#,
    );
    assert_eq!(kept.written(), written);
    assert_eq!(Kept::read(written.as_bytes()), Ok(kept));
    let bare = r#"{"form":1,"standing":"dormant","something":"later"}"#;
    assert!(Kept::read(bare.as_bytes()).is_ok());
    for wrong in ["", "{}", "[]", r#"{"form":2}"#, r#"{"form":1,"standing":"other"}"#] {
        assert!(Kept::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let (log, _) = Kept::default().after(
        NOW,
        Event::Said {
            address: &Upward::AddLog,
            payload: br#"{"d":{"message":"m","severity":2,"data":"AA=="}}"#,
            bundles: &BTreeSet::new(),
        },
    );
    let written = r#"{"form":1,"entries":[{"id":"0","message":"m","severity":2,"data":"AA==","timestamp":"2026-01-02T03:04:05.678Z","came":1767323045678}],"next":1}"#;
    assert_eq!(kept::log(&log.device), written);
    assert_eq!(kept::read_log(written.as_bytes()).as_ref(), Ok(&log.device));
    // As it was kept before anybody knew when it came: what it says of itself counts.
    let before = r#"{"form":1,"entries":[{"id":"0","message":"m","severity":2,"data":"AA==","timestamp":"2026-01-02T03:04:05.678Z"}],"next":1}"#;
    let mut before = kept::read_log(before.as_bytes()).unwrap();
    assert_eq!((before.log[0].came, &before.log[0].message), (None, &"m".to_owned()));
    let mut log = log.device;
    for (after_ms, left) in [(LOG_KEPT_MS - 1, 1), (LOG_KEPT_MS, 0)] {
        let now = UnixMillis(NOW.0 + after_ms);
        log.forget_old_log(now);
        before.forget_old_log(now);
        assert_eq!((log.log.len(), before.log.len()), (left, left), "{after_ms}");
    }
}

#[test]
fn a_device_hears_through_whom_spoke_for_it_last() {
    let mut behind = Kept::default();
    behind.gateway = Some(device("gw", "g1"));
    assert_eq!(Kept::read(&behind.written()).as_ref(), Ok(&behind));
    assert!(
        behind.written().starts_with(br#"{"form":1,"standing":"unmanaged","gateway":"gw:g1","#)
    );
    let at = |kept: &Kept| kept.channel(&device("t1", "d1")).topic(Downward::Observe).to_string();
    assert_eq!(at(&behind), "iotdm-1/via/type/gw/id/g1/type/t1/id/d1/observe");
    behind.gateway = None;
    assert_eq!(at(&behind), "iotdm-1/type/t1/id/d1/observe");
    let nobody = r#"{"form":1,"standing":"unmanaged","gateway":"g1"}"#;
    assert!(Kept::read(nobody.as_bytes()).is_err());
}
