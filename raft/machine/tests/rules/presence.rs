//! Presence: what reports, time and the death of nodes make of it, and what is said of that as events.

use moorline_core::{Incarnation, NodeId, Offset, UnixMillis};
use moorline_machine::{
    Answer, Command, PresenceCounts, Refused,
    events::{EventKind, NEWS, Retention},
    presence::{
        PRESENCE_LINKS_MAX, PRESENCE_PER_NODE_GONE_MAX, PRESENCE_REPORTS_MAX, PRESENCE_USED_MAX,
        PresenceNews, PresenceRecord, PresenceReport, PresenceState, ReportPresence,
    },
    query::{Found, Query},
};

use crate::{devices, events, harness::*};

pub(crate) const KIND_PRESENT: u8 = 74;
pub(crate) const KIND_OFFLINE: u8 = 75;

const NODE: (u64, u64) = (1, 10);
const OTHER: (u64, u64) = (2, 20);
const KEEP_ALL: Retention = Retention { keep_s: u32::MAX, bytes_max: u64::MAX };

/// Makes a device: the version it was made with.
fn made(group: &mut Group, device: &str) -> u64 {
    let answer = group.one(devices::put_plain(device));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    born
}

pub(crate) fn report(device: &str, born: u64) -> PresenceReport {
    PresenceReport {
        tenant: TENANT,
        device: device.into(),
        born,
        open: false,
        came: false,
        heard_ago_ms: None,
        by: 3,
        credential: 0,
        offline_after_s: 60,
        events: Some(KEEP_ALL),
    }
}

fn open(device: &str, born: u64) -> PresenceReport {
    PresenceReport { open: true, came: true, ..report(device, born) }
}

fn heard(device: &str, born: u64) -> PresenceReport {
    PresenceReport { heard_ago_ms: Some(0), ..report(device, born) }
}

pub(crate) fn from((node, process): (u64, u64), reports: Vec<PresenceReport>) -> Command {
    let (node, incarnation) = (NodeId(node), Incarnation(process));
    Command::Presence(ReportPresence { node, incarnation, reports })
}

fn gone((node, process): (u64, u64)) -> Command {
    Command::NodeGone { node: NodeId(node), gone: Incarnation(process) }
}

fn record(group: &Group, device: &str) -> PresenceRecord {
    group.machine.presence(&group.rows, TENANT, &device.into()).unwrap().unwrap()
}

fn state(group: &Group, device: &str) -> PresenceState {
    record(group, device).state
}

/// What was said of presence, in order.
fn said(group: &Group) -> Vec<String> {
    let page = events::page(group, TENANT, 0, 10_000);
    let of_presence = page.events.iter().filter(|event| event.event.kind == EventKind::Presence);
    of_presence
        .map(|event| {
            assert_eq!(event.event.content_type, NEWS);
            PresenceNews::decode(event.event.body.clone()).unwrap();
            event.event.channel.to_string()
        })
        .collect()
}

fn counts(group: &Group) -> (usize, usize) {
    let PresenceCounts { connected, active } = group.machine.counts().presence;
    (connected, active)
}

#[test]
fn a_device_is_connected_then_active_then_offline_and_each_is_said_once() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    assert_eq!(group.one(from(NODE, vec![open("d", born)])), Answer::Done);
    assert_eq!((state(&group, "d"), counts(&group)), (PresenceState::Connected, (1, 0)));
    // As it is, not what changed: a repeat says nothing new.
    let again = PresenceReport { came: false, ..open("d", born) };
    let before = group.rows.clone();
    group.one(from(NODE, vec![again]));
    assert_eq!(group.rows.count(KIND_PRESENT), before.count(KIND_PRESENT));
    assert_eq!(said(&group), ["connected"]);

    group.now += 500_000;
    group.one(Command::Tick);
    assert_eq!(state(&group, "d"), PresenceState::Connected, "its connection speaks for it");
    group.one(from(NODE, vec![report("d", born)]));
    group.one(from(NODE, vec![report("d", born)]));
    assert_eq!((state(&group, "d"), counts(&group)), (PresenceState::Active, (0, 1)));
    assert_eq!(record(&group, "d").disconnected, Some(UnixMillis(group.now)));

    group.now += 59_999;
    group.one(Command::Tick);
    assert_eq!(state(&group, "d"), PresenceState::Active);
    group.now += 1;
    assert!(group.machine.next_deadline().unwrap().0 <= group.now);
    group.one(Command::Tick);
    assert_eq!((state(&group, "d"), counts(&group)), (PresenceState::Offline, (0, 0)));
    assert_eq!(said(&group), ["connected", "disconnected", "offline"]);
    assert_eq!((group.rows.count(KIND_PRESENT), group.rows.count(KIND_OFFLINE)), (0, 1));
}

#[test]
fn a_device_without_a_connection_is_active_while_it_is_heard_from() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    for _ in 0..3 {
        group.one(from(NODE, vec![heard("d", born)]));
        group.now += 50_000;
        group.one(Command::Tick);
        assert_eq!(state(&group, "d"), PresenceState::Active);
    }
    // Heard from a while before it was reported.
    let ago = PresenceReport { heard_ago_ms: Some(20_000), ..heard("d", born) };
    group.one(from(NODE, vec![ago]));
    assert_eq!(record(&group, "d").heard.0, group.now - 20_000);
    group.now += 40_000;
    group.one(Command::Tick);
    assert_eq!(state(&group, "d"), PresenceState::Offline);
    group.one(from(NODE, vec![heard("d", born)]));
    assert_eq!(said(&group), ["active", "offline", "active"]);
}

#[test]
fn a_connection_that_came_and_went_between_two_reports_is_said() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    let passing = PresenceReport { open: false, ..open("d", born) };
    group.one(from(NODE, vec![passing]));
    assert_eq!(said(&group), ["connected", "disconnected"]);
    assert_eq!(state(&group, "d"), PresenceState::Active);
}

#[test]
fn a_device_is_connected_until_the_last_process_lets_it_go() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    group.one(from(NODE, vec![open("d", born)]));
    group.one(from(OTHER, vec![open("d", born)]));
    group.one(from(NODE, vec![report("d", born)]));
    assert_eq!(
        (state(&group, "d"), said(&group)),
        (PresenceState::Connected, vec!["connected".into()])
    );
    assert_eq!(record(&group, "d").node, NodeId(OTHER.0));
    group.one(from(OTHER, vec![report("d", born)]));
    assert_eq!(said(&group), ["connected", "disconnected"]);
}

#[test]
fn what_a_dead_process_held_is_disconnected_and_offline_after_its_threshold() {
    let mut group = Group::new(SHARD);
    let (pump, valve) = (made(&mut group, "pump"), made(&mut group, "valve"));
    group.one(from(NODE, vec![open("pump", pump), open("valve", valve)]));
    group.one(from(OTHER, vec![open("valve", valve)]));
    assert!(group.machine.processes_of(NodeId(NODE.0)).iter().eq(&[Incarnation(NODE.1)]));
    group.one(gone((NODE.0, 11)));
    assert_eq!(counts(&group), (2, 0), "that process lives");
    group.now += 100_000;
    assert_eq!(group.one(gone(NODE)), Answer::Released(Vec::new()));
    assert_eq!((counts(&group), state(&group, "valve")), ((1, 1), PresenceState::Connected));
    assert!(group.machine.processes_of(NodeId(NODE.0)).is_empty());
    group.now += 60_000;
    group.one(Command::Tick);
    assert_eq!(state(&group, "pump"), PresenceState::Offline);
    assert_eq!(said(&group), ["connected", "connected", "disconnected", "offline"]);
}

#[test]
fn a_process_that_was_thought_dead_is_heard_again() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    group.one(from(NODE, vec![open("d", born)]));
    group.one(gone(NODE));
    group.one(from(NODE, vec![PresenceReport { came: false, ..open("d", born) }]));
    assert_eq!(state(&group, "d"), PresenceState::Connected);
    assert_eq!(said(&group), ["connected", "disconnected", "connected"]);
}

#[test]
fn one_command_lets_go_so_many_devices_and_no_more() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let names: Vec<_> = (0..=PRESENCE_PER_NODE_GONE_MAX).map(|n| format!("d{n}")).collect();
    for names in names.chunks(PRESENCE_REPORTS_MAX) {
        let puts: Vec<_> = names.iter().map(|name| devices::put_plain(name)).collect();
        let borns = group.batch(&puts).into_iter().map(|answer| {
            let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
            born
        });
        let reports = names.iter().zip(borns).map(|(name, born)| open(name, born)).collect();
        group.one(from(NODE, reports));
    }
    assert_eq!(group.one(gone(NODE)), Answer::Partly(Vec::new()));
    assert_eq!(counts(&group), (1, PRESENCE_PER_NODE_GONE_MAX));
    assert_eq!(group.one(gone(NODE)), Answer::Released(Vec::new()));
    group.check();
}

#[test]
fn reports_of_a_device_that_is_gone_or_another_are_passed_over() {
    let mut group = Group::new(SHARD);
    let first = made(&mut group, "d");
    group.one(from(NODE, vec![open("d", first)]));
    group.one(devices::delete_plain("d"));
    assert_eq!((group.rows.count(KIND_PRESENT), counts(&group)), (0, (0, 0)));
    group.one(from(NODE, vec![open("d", first)]));
    let second = made(&mut group, "d");
    group.one(from(NODE, vec![open("d", first)]));
    assert_eq!(group.machine.presence(&group.rows, TENANT, &"d".into()).unwrap(), None);
    group.one(from(NODE, vec![open("d", second)]));
    assert_eq!(record(&group, "d").born, second);
    let many = vec![open("d", second); PRESENCE_REPORTS_MAX + 1];
    assert_eq!(group.one(from(NODE, many)), Answer::Refused(Refused::Malformed));
}

#[test]
fn without_events_nothing_is_said_and_everything_is_kept() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    group.one(from(NODE, vec![PresenceReport { events: None, ..open("d", born) }]));
    group.one(from(NODE, vec![PresenceReport { events: None, ..report("d", born) }]));
    group.now += 60_000;
    group.one(Command::Tick);
    assert_eq!((said(&group).len(), state(&group, "d")), (0, PresenceState::Offline));
    assert_eq!(group.machine.streams().last(TENANT), Offset(0));
}

#[test]
fn the_last_use_of_each_credential_is_kept_and_links_are_bounded() {
    let mut group = Group::new(SHARD);
    let born = made(&mut group, "d");
    for credential in 1..=PRESENCE_USED_MAX as u64 + 1 {
        group.now += 1_000;
        group.one(from(NODE, vec![PresenceReport { credential, ..heard("d", born) }]));
    }
    let record_now = record(&group, "d");
    assert_eq!(record_now.used_at(1), None, "as many as it may have");
    assert_eq!(record_now.used_at(2), Some(UnixMillis(group.now - 7_000)));
    assert_eq!(record_now.used.len(), PRESENCE_USED_MAX);
    for node in 1..=PRESENCE_LINKS_MAX as u64 + 1 {
        group.one(from((node, node), vec![open("d", born)]));
    }
    assert_eq!(record(&group, "d").links.len(), PRESENCE_LINKS_MAX);
    let query = Query::Presence { tenant: TENANT, devices: vec!["d".into(), "e".into()] };
    let Found::Presence(found) = group.machine.query(&group.rows, &query).unwrap() else {
        panic!()
    };
    assert_eq!(found, [Some(record(&group, "d")), None]);
}
