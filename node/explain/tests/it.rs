//! The rings of devices, and the words of causes.

use std::collections::BTreeSet;

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_explain::{Became, Cause, Fingerprint, Limits, Note, Stage, Trails};

const TENANT: TenantId = TenantId(1);

fn device(number: usize) -> Text {
    Text::from(format!("device-{number}").as_str())
}

fn note(at: u64, about: &str) -> Note {
    Note::new(UnixMillis(at), Stage::Publish, about)
}

#[test]
fn every_cause_has_its_own_words() {
    let all: Vec<Cause> = Cause::all().collect();
    assert_eq!(all.len(), Cause::COUNT);
    assert!(all.is_sorted(), "the table is in the order of the enum");
    for of in [Cause::label, Cause::what] {
        let words: BTreeSet<&str> = all.iter().map(|cause| of(*cause)).collect();
        assert_eq!(words.len(), all.len(), "no two causes say the same");
    }
    for cause in all {
        let written = serde_json::to_string(&cause).unwrap();
        assert_eq!(written, format!("\"{}\"", cause.label()));
        assert!(!cause.fix().is_empty() && !cause.what().ends_with('.'), "{cause:?}");
    }
}

#[test]
fn a_ring_keeps_the_last_notes() {
    let trails = Trails::new(Limits { devices: 16, notes: 3 });
    let trail = trails.of(TENANT, &device(0)).unwrap();
    (1..=5).for_each(|at| trail.add(note(at, "t")));
    let times = |since| -> Vec<u64> {
        let notes = trails.since(TENANT, &device(0), UnixMillis(since));
        notes.iter().map(|note| note.at_ms).collect()
    };
    assert_eq!(times(0), [3, 4, 5]);
    assert_eq!(times(5), [5]);
    assert!(trails.since(TenantId(2), &device(0), UnixMillis(0)).is_empty(), "tenants never meet");
}

#[test]
fn an_answer_finds_what_it_answers() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    for token in [7, 8] {
        let waits = Note { conn: 1, token, became: Became::Waiting, ..note(1_000, "t") };
        trail.add(waits);
    }
    let refused = Became::Refused(Cause::PublishBusy);
    trail.became(1, Stage::Publish, 7, UnixMillis(1_250), refused);
    // Of another connection, another stage, and what is not there.
    trail.became(2, Stage::Publish, 8, UnixMillis(1_250), Became::Done);
    trail.became(1, Stage::Subscribe, 8, UnixMillis(1_250), Became::Done);
    trail.became(1, Stage::Publish, 9, UnixMillis(1_250), Became::Done);
    let notes = trail.since(UnixMillis(0));
    assert_eq!((notes[0].became, notes[0].took_us), (refused, Some(250_000)));
    assert_eq!((notes[1].became, notes[1].took_us), (Became::Waiting, None));
}

#[test]
fn devices_that_were_quiet_for_longest_are_forgotten_and_connected_ones_are_not() {
    let trails = Trails::new(Limits { devices: 160, notes: 4 });
    let connected = trails.of(TENANT, &device(0)).unwrap();
    for number in 1..5_000 {
        trails.add(TENANT, &device(number), note(1, "t"));
        assert!(trails.devices() <= 161);
    }
    connected.add(note(2, "still"));
    assert_eq!(trails.since(TENANT, &device(0), UnixMillis(0)).len(), 1);
    assert_eq!(trails.since(TENANT, &device(4_999), UnixMillis(0)).len(), 1);
    assert!(trails.since(TENANT, &device(1), UnixMillis(0)).is_empty());
}

#[test]
fn nothing_is_remembered_where_nothing_may_be() {
    for limits in [Limits { devices: 0, notes: 4 }, Limits { devices: 4, notes: 0 }] {
        let trails = Trails::new(limits);
        assert!(trails.of(TENANT, &device(0)).is_none());
        trails.add(TENANT, &device(0), note(1, "t"));
        assert_eq!(trails.devices(), 0);
    }
}

#[test]
fn a_message_is_found_at_whoever_it_touched() {
    let trails = Trails::new(Limits::default());
    let (topic, payload) = (Text::from("a/b"), b"21.5");
    for (number, at, stage) in [(1, 30, Stage::Deliver), (0, 10, Stage::Publish)] {
        let note = Note::of_message(UnixMillis(at), stage, &topic, payload, 1);
        trails.add(TENANT, &device(number), note);
        let other = Note::of_message(UnixMillis(at), stage, &topic, b"21.6", 1);
        trails.add(TENANT, &device(number), other);
    }
    let found = trails.message(TENANT, Fingerprint::of(b"a/b", payload), 10);
    let found: Vec<_> = found.iter().map(|(device, note)| (device.as_str(), note.stage)).collect();
    assert_eq!(found, [("device-0", Stage::Publish), ("device-1", Stage::Deliver)]);
    assert_eq!(trails.message(TENANT, Fingerprint::of(b"a/b", payload), 1).len(), 1);
    assert!(trails.message(TenantId(2), Fingerprint::of(b"a/b", payload), 10).is_empty());
}

#[test]
fn a_topic_is_not_part_of_the_payload() {
    assert_ne!(Fingerprint::of(b"ab", b"c"), Fingerprint::of(b"a", b"bc"));
    let fingerprint = Fingerprint::of(b"a", b"b");
    assert_eq!(Fingerprint::read(&fingerprint.to_string()), Some(fingerprint));
    for wrong in ["", "12", "+23456789abcdef0", "0123456789abcdefa"] {
        assert_eq!(Fingerprint::read(wrong), None, "{wrong}");
    }
}

#[test]
fn many_of_the_same_are_counted_together() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    let settled = |conn| Note { conn, count: 2, ..Note::new(UnixMillis(1), Stage::Settle, "") };
    trail.count(settled(1));
    trail.count(settled(1));
    trail.count(settled(2));
    let notes = trail.since(UnixMillis(0));
    assert_eq!(notes.iter().map(|note| note.count).collect::<Vec<_>>(), [4, 2]);
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let long = "ä".repeat(200);
    let note = Note::new(UnixMillis(1), Stage::Publish, &long);
    assert_eq!(note.about, "ä".repeat(64));
    let written = serde_json::to_string(&note).unwrap();
    assert_eq!(serde_json::from_str::<Note>(&written).unwrap(), note);
}
