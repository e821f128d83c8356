//! The rings of devices.

use moorline_core::{Offset, TenantId, Text, UnixMillis};
use moorline_explain::{
    Became, Cause, Fingerprint, Held, Limits, Note, Place, ROUTES_MAX, Route, Stage,
    TEXT_BYTES_MAX, Trails,
};

const TENANT: TenantId = TenantId(1);

fn device(number: usize) -> Text {
    Text::from(format!("device-{number}").as_str())
}

fn limits(devices: usize, notes: usize) -> Limits {
    Limits { devices, notes, ..Limits::default() }
}

fn note(at: u64, about: &str) -> Note {
    Note::new(UnixMillis(at), Stage::Publish, about)
}

#[test]
fn a_ring_keeps_the_last_notes() {
    let trails = Trails::new(limits(16, 3));
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
    let trails = Trails::new(limits(160, 4));
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
    let no_bytes = Limits { bytes: 0, ..limits(4, 4) };
    for limits in [limits(0, 4), limits(4, 0), no_bytes] {
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
    let ask = |tenant, since, most| {
        trails.message(tenant, Fingerprint::of(b"a/b", payload), UnixMillis(since), most)
    };
    let (found, more) = ask(TENANT, 0, 10);
    let found: Vec<_> = found.iter().map(|(device, note)| (device.as_str(), note.stage)).collect();
    assert_eq!(found, [("device-0", Stage::Publish), ("device-1", Stage::Deliver)]);
    assert_eq!(more, 0);
    // What is left out is counted, and what is too old takes nobody's place.
    let (found, more) = ask(TENANT, 0, 1);
    assert_eq!((found.len(), more), (1, 1));
    let (found, more) = ask(TENANT, 20, 1);
    assert_eq!((found[0].0.as_str(), more), ("device-1", 0));
    assert!(ask(TenantId(2), 0, 10).0.is_empty());
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

#[test]
fn a_publish_says_where_it_went() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    let published = |token| Note { conn: 1, token, became: Became::Waiting, ..note(1, "t") };
    (7..9).for_each(|token| trail.add(published(token)));
    let to = |shard| Route { index: Some(9), ..Route::to(Place::Shard(shard), Became::Done) };
    (0..12).for_each(|shard| trail.routed(1, 7, to(shard)));
    trail.routed(1, 99, to(1));
    trail.routed(2, 7, to(1));
    let kept = Became::Refused(Cause::RetainedFull);
    trail.routed(1, 8, Route::to(Place::Kept(3), kept));
    // What all places come to is said of the place that refused it.
    trail.became(1, Stage::Publish, 8, UnixMillis(2), Became::Refused(Cause::QueueFull));
    let notes = trail.since(UnixMillis(0));
    assert_eq!((notes[0].count, notes[0].routes.len()), (12, ROUTES_MAX));
    assert_eq!((notes[0].routes[1], notes[1].became), (to(1), kept));
    let written = serde_json::to_string(&notes[0]).unwrap();
    let first = r#"{"to":"shard","id":0,"result":"done","index":9}"#;
    assert!(written.contains(first), "{written}");
    assert_eq!(serde_json::from_str::<Note>(&written).unwrap().routes, notes[0].routes);
    // Of what nobody answers it is said afterwards.
    trail.passed(1, 7, Became::Dropped(Cause::PublishForbidden));
    assert_eq!(trail.since(UnixMillis(0))[0].became.label(), "dropped");
}

#[test]
fn what_nobody_hears_and_is_kept_is_done() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    let refused = Became::Refused(Cause::RetainedFull);
    let nobody = Became::DoneBut(Cause::NobodyListens);
    for (token, kept, expected) in [(1, Became::Done, Became::Done), (2, refused, nobody)] {
        trail.add(Note { conn: 1, token, became: Became::Waiting, ..note(1, "t") });
        trail.routed(1, token, Route::to(Place::Kept(3), kept));
        trail.became(1, Stage::Publish, token, UnixMillis(2), nobody);
        assert_eq!(trail.since(UnixMillis(0)).last().unwrap().became, expected);
    }
}

#[test]
fn quiet_ones_are_not_looked_for_by_each_new_one() {
    let trails = Trails::new(limits(1_024, 4));
    let connected: Vec<_> = (0..20_000).filter_map(|of| trails.of(TENANT, &device(of))).collect();
    assert_eq!(connected.len(), 20_000, "who is connected is remembered, however many they are");
    // Those that come and go take each other's place, in the end.
    (20_000..40_000).for_each(|number| trails.add(TENANT, &device(number), note(1, "t")));
    let held = trails.held();
    assert!(held.devices < 20_000 + 20_000 / 16, "{held:?}");
    assert_eq!(trails.since(TENANT, &device(39_999), UnixMillis(0)).len(), 1);
}

#[test]
fn an_event_says_where_it_is() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    trail.add(Note {
        token: 3,
        became: Became::Waiting,
        ..Note::new(UnixMillis(1), Stage::Event, "t")
    });
    let there = Route::to(Place::Shard(4), Became::Done);
    trail.stored(Stage::Event, 3, Offset(11), there);
    trail.stored(Stage::Event, 4, Offset(12), there);
    let notes = trail.since(UnixMillis(0));
    assert_eq!((notes[0].offset, &notes[0].routes[..]), (Some(11), &[there][..]));
}

#[test]
fn what_waits_when_a_connection_ends_had_no_answer() {
    let trails = Trails::new(Limits::default());
    let trail = trails.of(TENANT, &device(0)).unwrap();
    for (conn, stage) in [(1, Stage::Publish), (1, Stage::Deliver), (2, Stage::Deliver)] {
        let waits = Note::new(UnixMillis(1), stage, "t");
        trail.add(Note { conn, became: Became::Waiting, ..waits });
    }
    trail.ended(1);
    let became: Vec<_> = trail.since(UnixMillis(0)).iter().map(|note| note.became).collect();
    let expected = [
        Became::DoneBut(Cause::ConnectionEnded),
        Became::DoneBut(Cause::Unacknowledged),
        Became::Waiting,
    ];
    assert_eq!(became, expected);
}

#[test]
fn the_same_over_and_over_pushes_nothing_out() {
    let trails = Trails::new(limits(16, 4));
    let refused = |about: &str| {
        let became = Became::Refused(Cause::WrongCredentials);
        Note { became, ..Note::new(UnixMillis(1), Stage::Authenticate, about) }
    };
    trails.add(TENANT, &device(0), note(1, "before"));
    (0..1_000).for_each(|_| trails.again(TENANT, &device(0), refused("10.0.0.1")));
    trails.again(TENANT, &device(0), refused("10.0.0.2"));
    // From any number of addresses, and between what the device does.
    trails.again(TENANT, &device(0), refused("10.0.0.3"));
    trails.again(TENANT, &device(0), refused("10.0.0.1"));
    trails.again(TENANT, &device(0), refused("10.0.0.4"));
    let notes = trails.since(TENANT, &device(0), UnixMillis(0));
    let told: Vec<_> = notes.iter().map(|note| (note.about.as_str(), note.count)).collect();
    let others = "10.0.0.2, and others";
    assert_eq!(told, [("before", 0), ("10.0.0.1", 1_001), (others, 3)]);
    assert_eq!(trails.held().noted, 3);
}

#[test]
fn what_still_goes_on_is_not_what_happened_when_it_began() {
    let trails = Trails::new(limits(16, 4));
    let full = |at| {
        let became = Became::Dropped(Cause::SubscriberFull);
        Note { became, ..Note::new(UnixMillis(at), Stage::Deliver, "") }
    };
    // The last one comes from a part of the node that read its clock earlier.
    [1, 5_000, 4_900].map(full).into_iter().for_each(|note| trails.again(TENANT, &device(0), note));
    let since = |at| trails.since(TENANT, &device(0), UnixMillis(at));
    let told: Vec<_> =
        since(4_000).iter().map(|note| (note.at_ms, note.last(), note.count)).collect();
    assert_eq!(told, [(1, UnixMillis(5_000), 3)]);
    assert!(since(5_001).is_empty());
    // A node of an earlier version does not say it.
    let early: Note = serde_json::from_str(&serde_json::to_string(&full(7)).unwrap()).unwrap();
    assert_eq!((early.last_ms, early.last()), (0, UnixMillis(7)));
}

#[test]
fn bytes_have_a_limit_and_all_of_them_come_back() {
    let most = 256 * 1024;
    let trails = Trails::new(Limits { devices: 1_000_000, notes: 48, bytes: most });
    let long = "x".repeat(TEXT_BYTES_MAX);
    let one = size_of::<Note>() * 64 + 1_024;
    // Connected all the time, so that none may be forgotten.
    let mut connected = Vec::new();
    for number in 0..2_000 {
        connected.extend(trails.of(TENANT, &device(number)));
        for trail in &connected {
            trail.add(note(1, &long));
        }
        assert!(trails.held().bytes <= most + one, "{:?}", trails.held());
    }
    let held = trails.held();
    assert!(held.forgotten_notes > 0 && held.refused_notes > 0, "{held:?}");
    assert!(connected.len() > 100, "those that are here give notes away for others: {held:?}");
    assert!(connected.iter().all(|trail| trail.since(UnixMillis(0)).len() < 48));
    // What is written last is there.
    connected[0].add(note(2, "last"));
    assert!(connected[0].since(UnixMillis(2)).len() <= 1);
    drop(connected);
    // Now they are quiet: others take their place.
    let before = trails.held().forgotten_devices;
    (5_000..9_000).for_each(|number| trails.add(TENANT, &device(number), note(3, "t")));
    let held = trails.held();
    assert!(held.forgotten_devices > before && held.bytes <= most + one, "{held:?}");
    assert_eq!(trails.since(TENANT, &device(8_999), UnixMillis(3)).len(), 1);
}

#[test]
fn a_ring_that_goes_gives_back_what_it_took() {
    let trails = Trails::new(limits(16, 8));
    let connected: Vec<_> = (0..16).filter_map(|of| trails.of(TENANT, &device(of))).collect();
    let empty = trails.held().bytes;
    for trail in &connected {
        (0..20).for_each(|token| {
            trail.add(Note { conn: 1, token, became: Became::Waiting, ..note(1, "topic") });
            trail.routed(1, token, Route::to(Place::Node(1), Became::Done));
        });
    }
    let held = trails.held();
    assert!(held.bytes > empty + 16 * 8 * size_of::<Note>(), "{held:?}");
    assert_eq!((held.devices, held.noted, held.forgotten_notes), (16, 320, 192));
    drop(connected);
    // Each of these pushes quiet ones out, until all of the first are gone.
    (100..1_000).for_each(|number| drop(trails.of(TENANT, &device(number))));
    let Held { devices, bytes, .. } = trails.held();
    assert!(bytes <= devices * (empty / 16 + 64), "{bytes} bytes of {devices} empty rings");
}
