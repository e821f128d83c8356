//! Events: in order, for as long as they are to be kept, and read by whoever has committed less.

use bytes::Bytes;
use moorline_core::{Offset, ShardId, TenantId, Text, UnixMillis};
use moorline_machine::{
    Answer, Command, ConsumersPage, Effect, EventAnswer, EventCommand, EventRefused, EventsPage,
    EventsQuery, Refused,
    events::{
        AppendEvent, CONSUMER_NAME_BYTES_MAX, CONSUMERS_PER_STREAM_MAX, CommitEvents, Consumer,
        DeleteConsumer, EVENT_BODY_BYTES_MAX, EVENT_BYTES_PER_TICK_MAX, EVENT_CHANNEL_BYTES_MAX,
        EVENT_DEVICE_BYTES_MAX, EVENTS_PER_TICK_MAX, EventKind, NewEvent, Retention,
    },
    query::{EVENTS_PAGE_BYTES_MAX, EVENTS_PER_PAGE_MAX, Found, Query},
    registry::{DeleteDevice, PutDevice},
};

use crate::harness::*;

pub(crate) const KIND_STREAM: u8 = 60;
pub(crate) const KIND_EVENT: u8 = 61;
pub(crate) const KIND_CONSUMER: u8 = 62;

/// What a row has beside the names and the body.
pub(crate) const ROW_BYTES: u64 = 25;
const KEEP_ALL: Retention = Retention { keep_s: u32::MAX, bytes_max: u64::MAX };

pub(crate) fn event(device: &str, body: &[u8]) -> AppendEvent {
    let event = NewEvent {
        kind: EventKind::Datapoint,
        channel: "c".into(),
        content_type: 1,
        body: Bytes::copy_from_slice(body),
        by: 3,
    };
    AppendEvent { tenant: TENANT, device: device.into(), born: None, event, retention: KEEP_ALL }
}

pub(crate) fn append(append: AppendEvent) -> Command {
    Command::Events(EventCommand::Append(append))
}

fn append_with(change: impl FnOnce(&mut AppendEvent)) -> Command {
    let mut event = event("d", b"{}");
    change(&mut event);
    append(event)
}

pub(crate) fn commit(tenant: TenantId, consumer: &str, offset: u64) -> Command {
    let (consumer, offset) = (consumer.into(), Offset(offset));
    Command::Events(EventCommand::Commit(CommitEvents { tenant, consumer, offset }))
}

pub(crate) fn delete(tenant: TenantId, consumer: &str) -> Command {
    let consumer = consumer.into();
    Command::Events(EventCommand::DeleteConsumer(DeleteConsumer { tenant, consumer }))
}

pub(crate) fn appended(offset: u64, at: u64) -> Answer {
    Answer::Events(EventAnswer::Appended { offset: Offset(offset), at: UnixMillis(at) })
}

pub(crate) fn committed(offset: u64) -> Answer {
    Answer::Events(EventAnswer::Committed { offset: Offset(offset) })
}

pub(crate) fn refused(why: EventRefused) -> Answer {
    Answer::Refused(Refused::Events(why))
}

fn beyond(last: u64) -> Answer {
    refused(EventRefused::BeyondTail { last: Offset(last) })
}

pub(crate) fn page(group: &Group, tenant: TenantId, after: u64, items_max: usize) -> EventsPage {
    let query =
        EventsQuery { tenant, after: Offset(after), device: None, items_max, bytes_max: 1 << 20 };
    group.machine.streams().events(&group.rows, &query).unwrap()
}

/// Offset, device and body of everything that is kept, page by page.
pub(crate) fn all(group: &Group, tenant: TenantId) -> Vec<(u64, Text, Bytes)> {
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let page = page(group, tenant, after, 3);
        if page.events.is_empty() {
            return found;
        }
        after = page.upto.0;
        found.extend(page.events.into_iter().map(|event| {
            assert_eq!(event.event.channel, "c".into());
            (event.offset.0, event.device, event.event.body)
        }));
    }
}

fn offsets(group: &Group) -> Vec<u64> {
    all(group, TENANT).into_iter().map(|(offset, ..)| offset).collect()
}

/// What is due within a minute: producers are, some day.
fn soon(group: &Group) -> Option<u64> {
    let deadline = group.machine.next_deadline().map(|at| at.0);
    deadline.filter(|at| *at < group.now + 60_000)
}

fn tick(group: &mut Group, passed_ms: u64) {
    group.now += passed_ms;
    group.one(Command::Tick);
}

#[test]
fn events_are_read_in_the_order_they_came() {
    let mut group = Group::new(SHARD);
    let began = group.now;
    assert_eq!(group.one(append(event("a", b"1"))), appended(1, began));
    group.now += 5;
    let answers = group.batch(&[append(event("b", b"2")), append(event("a", b"3"))]);
    assert_eq!(answers, [appended(2, began + 5), appended(3, began + 5)]);
    assert_eq!(group.effects, [Effect::Events { tenant: TENANT, appended: 2 }], "said once");
    let names = all(&group, TENANT).into_iter().map(|(offset, device, _)| (offset, device));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [(1, Text::from("a")), (2, Text::from("b")), (3, Text::from("a"))]
    );
    let page = page(&group, TENANT, 1, 1);
    assert_eq!((page.upto, page.head, page.tail), (Offset(2), Offset(1), Offset(4)));
    let first = &page.events[0];
    assert_eq!((first.offset, first.at, first.born), (Offset(2), UnixMillis(began + 5), None));
    assert_eq!(
        (first.event.kind, first.event.content_type, first.event.by),
        (EventKind::Datapoint, 1, 3)
    );
    assert_eq!(group.machine.streams().last(TENANT), Offset(3));
    group.reopen();
    assert_eq!(group.one(append(event("a", b"4"))), appended(4, began + 5));
}

#[test]
fn tenants_have_streams_of_their_own() {
    let mut group = Group::new(SHARD);
    let other = TenantId(8);
    group.one(append(event("a", b"mine")));
    let foreign = append_with(|append| append.tenant = other);
    assert_eq!(group.one(foreign), appended(1, group.now));
    assert_eq!(all(&group, TENANT).len(), 1);
    assert_eq!(all(&group, other).len(), 1);
    assert!(all(&group, TenantId(9)).is_empty());
    assert_eq!(group.one(commit(other, "g", 1)), committed(1));
    assert!(group.machine.streams().consumers(TENANT).consumers.is_empty());
}

#[test]
fn a_page_of_one_device_looks_at_the_others_and_says_how_far() {
    let mut group = Group::new(SHARD);
    for number in 0..6 {
        group.one(append(event(if number % 3 == 0 { "a" } else { "b" }, b"{}")));
    }
    let device = Text::from("a");
    let query = |after, items_max, bytes_max| {
        let query = EventsQuery {
            tenant: TENANT,
            after: Offset(after),
            device: Some(&device),
            items_max,
            bytes_max,
        };
        let page = group.machine.streams().events(&group.rows, &query).unwrap();
        let found: Vec<_> = page.events.iter().map(|event| event.offset.0).collect();
        (found, page.upto.0)
    };
    assert_eq!(query(0, 9, 1 << 20), (vec![1, 4], 6));
    assert_eq!(query(1, 2, 1 << 20), (vec![], 3), "looked at two, none of it");
    assert_eq!(query(0, 9, 1), (vec![1], 1), "one in any case");
    assert_eq!(query(6, 9, 9), (vec![], 6));
    assert_eq!(query(99, 9, 9), (vec![], 99));
}

#[test]
fn a_question_cannot_ask_for_more_than_the_machine_allows() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let many: Vec<_> = (0..=EVENTS_PER_PAGE_MAX).map(|_| append(event("d", b""))).collect();
    group.batch(&many);
    let ask = |group: &Group, after| {
        let query = Query::Events {
            tenant: TENANT,
            after: Offset(after),
            device: None,
            items_max: u16::MAX,
            bytes_max: u32::MAX,
            wait_ms: u32::MAX,
        };
        let found = group.machine.query(&group.rows, &query).unwrap();
        let Found::Events(page) = found else { panic!("{found:?}") };
        page.events.len()
    };
    assert_eq!(ask(&group, 0), usize::from(EVENTS_PER_PAGE_MAX));
    let large = vec![0; EVENTS_PAGE_BYTES_MAX as usize / 2];
    let behind = group.machine.streams().last(TENANT).0;
    (0..3).for_each(|_| _ = group.one(append(event("d", &large))));
    assert_eq!(ask(&group, behind), 1);
    group.one(commit(TENANT, "g", 2));
    let found = group.machine.query(&group.rows, &Query::Consumers { tenant: TENANT }).unwrap();
    let consumers =
        vec![Consumer { name: "g".into(), offset: Offset(2), at: UnixMillis(group.now) }];
    let (head, tail) = (Offset(1), Offset(behind + 4));
    assert_eq!(found, Found::Consumers(ConsumersPage { consumers, head, tail }));
}

#[test]
fn an_event_of_a_device_that_is_gone_is_refused() {
    let mut group = Group::new(SHARD);
    let put = Command::PutDevice(PutDevice {
        tenant: TENANT,
        device: "d".into(),
        enabled: true,
        credentials: Vec::new(),
        settings: Bytes::new(),
        if_version: None,
        devices_max: 9,
    });
    let Answer::Device { born, .. } = group.one(put.clone()) else { panic!() };
    let of = |born| append_with(|append| append.born = Some(born));
    assert_eq!(group.one(of(born)), appended(1, group.now));
    assert_eq!(page(&group, TENANT, 0, 9).events[0].born, Some(born));
    let gone = refused(EventRefused::DeviceGone);
    assert_eq!(group.one(of(born + 1)), gone);
    let delete = DeleteDevice { tenant: TENANT, device: "d".into(), if_version: None };
    group.one(Command::DeleteDevice(delete));
    assert_eq!(group.one(of(born)), gone);
    assert_eq!(offsets(&group), [1], "what it said before stays");
    let Answer::Device { born: again, .. } = group.one(put) else { panic!() };
    assert_eq!(group.one(of(born)), gone, "another one of its name");
    assert_eq!(group.one(of(again)), appended(2, group.now));
}

#[test]
fn what_no_stream_takes_is_refused() {
    let long = |bytes: usize| Text::from("x".repeat(bytes).as_str());
    let mut group = Group::new(SHARD);
    #[rustfmt::skip]
    let table = [
        (append_with(|append| append.device = long(0)),                              Refused::Malformed),
        (append_with(|append| append.device = long(EVENT_DEVICE_BYTES_MAX + 1)),     Refused::Malformed),
        (append_with(|append| append.event.channel = long(EVENT_CHANNEL_BYTES_MAX + 1)), Refused::Malformed),
        (append_with(|append| append.event.body = vec![0; EVENT_BODY_BYTES_MAX + 1].into()),
                                                                       Refused::Events(EventRefused::TooLarge)),
        (commit(TENANT, "", 0),                                                      Refused::Malformed),
        (commit(TENANT, long(CONSUMER_NAME_BYTES_MAX + 1).as_str(), 0),              Refused::Malformed),
        (commit(TENANT, "g", 1),           Refused::Events(EventRefused::BeyondTail { last: Offset(0) })),
        (delete(TENANT, "g"),                          Refused::Events(EventRefused::NoSuchConsumer)),
    ];
    for (command, why) in table {
        assert_eq!(group.one(command), Answer::Refused(why));
        assert!(group.effects.is_empty());
        let rows = [KIND_STREAM, KIND_EVENT, KIND_CONSUMER].map(|kind| group.rows.count(kind));
        assert_eq!(rows, [0; 3], "nothing changed");
    }
    for whole in [
        append_with(|append| append.device = long(EVENT_DEVICE_BYTES_MAX)),
        append_with(|append| append.event.channel = long(EVENT_CHANNEL_BYTES_MAX)),
        append_with(|append| append.event.channel = Text::default()),
        append_with(|append| append.event.body = vec![0; EVENT_BODY_BYTES_MAX].into()),
    ] {
        assert!(matches!(group.one(whole), Answer::Events(_)));
    }
    assert_eq!(group.one(commit(TENANT, long(CONSUMER_NAME_BYTES_MAX).as_str(), 1)), committed(1));
    let mut meta = Group::new(ShardId::META);
    assert!(matches!(
        meta.one(append(event("d", b""))),
        Answer::Refused(Refused::WrongGroup { .. })
    ));
}

#[test]
fn a_consumer_group_goes_forwards_and_not_beyond_what_there_is() {
    let mut group = Group::new(SHARD);
    group.batch(&[1, 2, 3].map(|_| append(event("d", b"{}"))));
    assert_eq!(group.one(commit(TENANT, "g", 0)), committed(0));
    assert_eq!(group.rows.count(KIND_CONSUMER), 0, "who has read nothing is nobody yet");
    assert_eq!(group.one(commit(TENANT, "g", 2)), committed(2));
    group.now += 7;
    assert_eq!(group.one(commit(TENANT, "g", 1)), committed(2), "not back");
    assert_eq!(group.one(commit(TENANT, "g", 4)), beyond(3));
    assert!(group.effects.is_empty());
    let known = |group: &Group| {
        let page = group.machine.streams().consumers(TENANT);
        let known = page.consumers.into_iter();
        known.map(|known| (known.name.to_string(), known.offset.0, known.at.0)).collect::<Vec<_>>()
    };
    assert_eq!(known(&group), [("g".to_owned(), 2, group.now - 7)]);
    assert_eq!(group.machine.streams().lag_max(), 1);
    group.one(commit(TENANT, "f", 1));
    group.reopen();
    assert_eq!(group.machine.streams().lag_max(), 2);
    assert_eq!(group.one(delete(TENANT, "g")), Answer::Done);
    assert_eq!(group.one(delete(TENANT, "g")), refused(EventRefused::NoSuchConsumer));
    assert_eq!(known(&group), [("f".to_owned(), 1, group.now)]);
    assert_eq!(group.one(commit(TENANT, "g", 1)), committed(1), "it begins anew");
}

#[test]
fn a_tenant_has_so_many_consumer_groups_and_no_more() {
    let mut group = Group::new(SHARD);
    group.one(append(event("d", b"{}")));
    for number in 0..CONSUMERS_PER_STREAM_MAX {
        assert_eq!(group.one(commit(TENANT, &format!("g{number}"), 1)), committed(1));
    }
    assert_eq!(group.one(commit(TENANT, "more", 1)), refused(EventRefused::TooManyConsumers));
    assert_eq!(group.one(commit(TENANT, "g0", 1)), committed(1), "it is there");
    group.one(delete(TENANT, "g1"));
    assert_eq!(group.one(commit(TENANT, "more", 1)), committed(1));
}

#[test]
fn events_go_when_they_are_too_old_and_a_sixteenth() {
    let mut group = Group::new(SHARD);
    let keep = |group: &mut Group| {
        let retention = Retention { keep_s: 16, bytes_max: u64::MAX };
        group.one(append_with(|append| append.retention = retention));
    };
    keep(&mut group);
    let due = group.now + 17_000;
    assert_eq!(soon(&group), Some(due));
    group.now += 900;
    keep(&mut group);
    group.now += 500;
    keep(&mut group);
    tick(&mut group, 15_599);
    assert_eq!(offsets(&group), [1, 2, 3], "16,999 ms old");
    tick(&mut group, 1);
    assert_eq!(offsets(&group), [3], "those of more than 16 s went together");
    assert_eq!(page(&group, TENANT, 0, 9).head, Offset(3));
    assert_eq!(soon(&group), Some(due + 1_400));
    tick(&mut group, 60_000);
    assert!(offsets(&group).is_empty());
    assert_eq!(soon(&group), None);
    assert_eq!(group.rows.count(KIND_STREAM), 1, "offsets never come again");
    keep(&mut group);
    assert_eq!(offsets(&group), [4]);
    assert_eq!(group.one(commit(TENANT, "g", 2)), committed(2), "what is gone can be committed");
}

#[test]
fn the_oldest_events_go_when_there_are_too_many_bytes() {
    let mut group = Group::new(SHARD);
    let one = ROW_BYTES + 2 + 2;
    let retention = Retention { keep_s: u32::MAX, bytes_max: 32 * one };
    let add = |group: &mut Group| {
        group.one(append_with(|append| append.retention = retention));
    };
    (0..32).for_each(|_| add(&mut group));
    assert_ne!(group.machine.next_deadline(), Some(UnixMillis(0)));
    add(&mut group);
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)));
    tick(&mut group, 0);
    assert_eq!(offsets(&group), (4..=33).collect::<Vec<_>>(), "30 are left");
    assert_eq!(group.machine.streams().totals().bytes, 30 * one);
    (0..2).for_each(|_| add(&mut group));
    assert_ne!(group.machine.next_deadline(), Some(UnixMillis(0)), "there is room again");
    let lower = Retention { bytes_max: one - 1, ..retention };
    group.one(append_with(|append| append.retention = lower));
    tick(&mut group, 0);
    assert!(offsets(&group).is_empty(), "the last append's limit counts");
}

#[test]
fn a_tick_removes_a_piece_and_the_next_goes_on() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let none = Retention { keep_s: 0, bytes_max: u64::MAX };
    let many = EVENTS_PER_TICK_MAX + 10;
    for _ in 0..many / 2 {
        let add = || append_with(|append| append.retention = none);
        group.batch(&[add(), add()]);
    }
    tick(&mut group, 0);
    assert_eq!(group.machine.streams().totals().events, 10);
    assert!(group.machine.next_deadline().is_some_and(|at| at.0 <= group.now), "there is more");
    tick(&mut group, 0);
    assert_eq!(group.machine.streams().totals().events, 0);
    group.check();

    let large = vec![0; EVENT_BODY_BYTES_MAX];
    let per_tick = EVENT_BYTES_PER_TICK_MAX / EVENT_BODY_BYTES_MAX as u64;
    for _ in 0..per_tick + 5 {
        group.one(append(AppendEvent { retention: none, ..event("d", &large) }));
    }
    tick(&mut group, 0);
    let left = group.machine.streams().totals().events;
    assert_eq!(left, 5, "about as many bytes as it may");
    tick(&mut group, 0);
    assert_eq!(group.rows.count(KIND_EVENT), 0);
    group.check();
}
