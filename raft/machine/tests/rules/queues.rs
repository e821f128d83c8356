//! Queues: what is published is queued once per session, in order, and goes when it is settled.

use crate::harness::*;
use moorline_core::{Offset, QoS, UnixMillis, port::SessionLimits};
use moorline_machine::{
    Answer, Effect, GARBAGE_ROWS_PER_TICK_MAX, SESSION_QUEUE_ITEMS_MAX, answer::Refused,
    command::Command,
};

const QOS0: QoS = QoS::AtMostOnce;
const QOS1: QoS = QoS::AtLeastOnce;
const QOS2: QoS = QoS::ExactlyOnce;

fn sessions(count: u32) -> Answer {
    Answer::Published { sessions: count }
}

#[test]
fn a_message_is_queued_in_order_for_each_matching_session() {
    let mut group = Group::new(SHARD);
    let (a, _) = group.subscriber("a", 1, "t/+");
    let (b, _) = group.subscriber("b", 2, "t/1");
    let answers = group.batch(&[publish("t/1", b"x"), publish("t/2", b"y"), publish("u", b"z")]);
    assert_eq!(answers, [sessions(2), sessions(1), sessions(0)]);
    assert_eq!(group.queue(a), [(1, b"x".to_vec()), (2, b"y".to_vec())]);
    assert_eq!(group.queue(b), [(1, b"x".to_vec())]);
}

#[test]
fn overlapping_filters_give_one_copy_at_the_highest_qos() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    group.one(subscribe(
        session,
        epoch,
        &[("#", QOS0), ("t/+", QOS1), ("t/1", QOS2), ("+/1", QOS0)],
    ));
    #[rustfmt::skip]
    let table = [
        ("t/1", QOS2, Some(QOS2)), ("t/1", QOS1, Some(QOS1)), ("t/2", QOS2, Some(QOS1)),
        ("u",   QOS2, Some(QOS0)), ("t/1", QOS0, Some(QOS0)), ("$x",  QOS1, None),
    ];
    for (topic, published, delivered) in table {
        let command = Command::Publish {
            tenant: TENANT,
            from: None,
            message: message(topic, published, b"m"),
        };
        let answer = group.one(command);
        assert_eq!(answer, sessions(u32::from(delivered.is_some())), "{topic} {published:?}");
        let delivery = group.effects.iter().find_map(|effect| {
            if let Effect::Deliver { delivery, .. } = effect {
                Some(delivery.clone())
            } else {
                None
            }
        });
        assert_eq!(delivery.as_ref().map(|delivery| delivery.qos), delivered, "{topic}");
        let queued = delivery.is_some_and(|delivery| delivery.offset.is_some());
        assert_eq!(queued, delivered.is_some_and(|qos| qos > QOS0), "{topic} {published:?}");
    }
    assert_eq!(group.queue(session).len(), 3);
}

#[test]
fn tenants_never_meet() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("a", 1, "#");
    let command = Command::Publish {
        tenant: moorline_core::TenantId(8),
        from: None,
        message: message("t", QOS1, b"x"),
    };
    assert_eq!(group.one(command), sessions(0));
    assert!(group.queue(session).is_empty());
}

#[test]
fn settling_removes_what_was_acknowledged_and_never_goes_back() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("a", 1, "t");
    group.batch(&(0..10_u8).map(|n| publish("t", &[n])).collect::<Vec<_>>());
    let mut offsets = |upto, also: &[u64]| -> (Vec<u64>, Offset) {
        assert_eq!(group.one(settle(session, upto, also)), Answer::Done);
        let head = group.machine.session(session).unwrap().head;
        (group.queue(session).into_iter().map(|(offset, _)| offset).collect(), head)
    };
    #[rustfmt::skip]
    let table: [(u64, &[u64], &[u64], u64); 9] = [
        (0,  &[],         &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 1),
        (2,  &[],         &[3, 4, 5, 6, 7, 8, 9, 10],       3),
        (1,  &[2],        &[3, 4, 5, 6, 7, 8, 9, 10],       3),
        (2,  &[5, 4],     &[3, 6, 7, 8, 9, 10],             3),
        (2,  &[5, 4, 99], &[3, 6, 7, 8, 9, 10],             3),
        (3,  &[],         &[6, 7, 8, 9, 10],                6),
        (0,  &[9, 6],     &[7, 8, 10],                      7),
        (9,  &[],         &[10],                            10),
        (99, &[99],       &[],                              11),
    ];
    for (upto, also, left, head) in table {
        assert_eq!(offsets(upto, also), (left.to_vec(), Offset(head)), "{upto} {also:?}");
    }
    group.one(publish("t", b"next"));
    assert_eq!(group.queue(session), [(11, b"next".to_vec())]);
}

#[test]
fn a_settlement_for_nobody_does_nothing() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("a", 1, "t");
    group.one(publish("t", b"x"));
    group.one(Command::CloseSession { session, epoch, expiry_s: Some(0), forget_will: false });
    assert_eq!(group.one(settle(session, 1, &[])), Answer::Done);
}

#[test]
fn large_messages_for_many_are_stored_once_until_the_last_has_settled() {
    let mut group = Group::new(SHARD);
    let all: Vec<_> = (0..3).map(|n| group.subscriber(&format!("c{n}"), n, "t").0).collect();
    group.batch(&[publish("t", &[1; 500]), publish("t", &[2; 20])]);
    assert_eq!((group.rows.count(KIND_MESSAGE), group.rows.count(KIND_ITEM)), (1, 6));
    assert_eq!(group.queue(all[2]), [(1, vec![1; 500]), (2, vec![2; 20])]);

    group.batch(&[settle(all[0], 2, &[]), settle(all[1], 1, &[])]);
    assert_eq!((group.rows.count(KIND_MESSAGE), group.rows.count(KIND_ITEM)), (1, 3));
    group.one(settle(all[2], 1, &[]));
    assert_eq!((group.rows.count(KIND_MESSAGE), group.rows.count(KIND_ITEM)), (0, 2));

    // Stored, and settled by all, within one batch.
    let mut commands = vec![publish("t", &[3; 500])];
    commands.extend(all.iter().map(|session| settle(*session, 3, &[])));
    group.batch(&commands);
    assert_eq!((group.rows.count(KIND_MESSAGE), group.rows.count(KIND_ITEM)), (0, 0));
}

#[test]
fn only_held_sessions_are_delivered_to() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("a", 1, "t");
    group.one(publish("t", b"x"));
    assert_eq!(group.effects.len(), 1);
    group.one(close(session, epoch));
    assert_eq!(group.one(publish("t", b"y")), sessions(1));
    assert!(group.effects.is_empty());
    assert_eq!(group.queue(session).len(), 2);
}

#[test]
fn what_may_have_been_offered_is_marked_as_resent() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("a", 1, "t");
    group.one(publish("t", b"held"));
    group.one(close(session, epoch));
    group.one(publish("t", b"offline"));
    let resent = |group: &Group| -> Vec<bool> {
        let all = group.machine.queue_read(&group.rows, session, Offset(1), 10, 1000).unwrap();
        all.iter().map(|delivery| delivery.resent).collect()
    };
    assert_eq!(resent(&group), [true, false]);
    group.one(open("a", 2, false, 3600));
    assert_eq!(resent(&group), [true, false]);
    group.one(publish("t", b"held"));
    assert_eq!(resent(&group), [true, false, false]);
    group.one(open("a", 3, false, 3600));
    assert_eq!(resent(&group), [true, true, true], "taken over while they may have been sent");
}

#[test]
fn a_read_is_bounded_but_never_empty() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("a", 1, "t");
    group.batch(&(0..10_u8).map(|n| publish("t", &[n; 100])).collect::<Vec<_>>());
    let read = |from, items, bytes| -> Vec<u64> {
        let all = group.machine.queue_read(&group.rows, session, Offset(from), items, bytes);
        all.unwrap().iter().map(|delivery| delivery.offset.unwrap().0).collect()
    };
    assert_eq!(read(0, 3, 10_000), [1, 2, 3]);
    assert_eq!(read(9, 3, 10_000), [9, 10]);
    assert_eq!(read(11, 3, 10_000), [0_u64; 0]);
    assert_eq!(read(4, 9, 1), [4]);
    assert_eq!(read(4, 9, 250), [4, 5]);
    assert_eq!(read(4, 0, 250), [0_u64; 0]);
}

#[test]
fn a_full_queue_drops_the_newest_for_its_session_alone_and_says_so() {
    let mut group = Group::new(SHARD);
    let (full, _) = group.subscriber("full", 1, "t/#");
    let (other, _) = group.subscriber("other", 2, "t/2");
    let piece: Vec<_> = (0..10_000).map(|_| publish("t/1", b"")).collect();
    for _ in 0..SESSION_QUEUE_ITEMS_MAX / 10_000 {
        group.batch(&piece);
    }
    assert_eq!(group.one(publish("t/2", b"x")), sessions(2));
    let is_told = |effect: &Effect| matches!(effect, Effect::QueueFull { session, client, .. } if *session == full && client.as_str() == "full");
    assert!(group.effects.iter().any(is_told));
    assert_eq!(group.queue(other).len(), 1);
    let info = group.machine.session(full).unwrap();
    assert_eq!((info.queued_items, info.dropped), (u64::from(SESSION_QUEUE_ITEMS_MAX), 1));
    let tail = info.tail;
    assert_eq!(
        group.one(publish("t/1", b"y")),
        Answer::Refused(Refused::QueueFull),
        "nobody took it, and nobody is told that somebody did"
    );

    group.batch(&[settle(full, 1, &[]), publish("t/1", b"")]);
    let info = group.machine.session(full).unwrap();
    assert_eq!((info.tail, info.dropped), (tail.next(), 2));
}

#[test]
fn a_session_has_the_limits_it_was_last_opened_with() {
    let mut group = Group::new(SHARD);
    let none = SessionLimits::none();
    let items = |queue_items| SessionLimits { queue_items, ..none };
    let opening = |conn, limits| open_with("a", conn, false, 60, limits);
    let full = Answer::Refused(Refused::QueueFull);
    let Answer::Opened { session, epoch, .. } = group.one(opening(1, items(2))) else { panic!() };
    group.one(subscribe(session, epoch, &[("t", QOS1)]));
    let three = [publish("t", b"1"), publish("t", b"2"), publish("t", b"3")];
    assert_eq!(group.batch(&three), [sessions(1), sessions(1), full.clone()]);

    group.one(opening(2, items(3)));
    assert_eq!(group.batch(&three), [sessions(1), full.clone(), full.clone()]);
    // Fewer than there are: nothing is taken away, and nothing comes.
    group.one(opening(3, items(1)));
    assert_eq!(group.queue(session).len(), 3);
    assert_eq!(group.one(publish("t", b"4")), full);
    group.reopen();
    assert_eq!(group.one(publish("t", b"4")), full, "the row has it");

    let bytes = group.machine.session(session).unwrap().queued_bytes / 3;
    let queue_bytes = u32::try_from(bytes * 5).unwrap();
    group.one(opening(4, SessionLimits { queue_bytes, ..none }));
    assert_eq!(group.batch(&three), [sessions(1), sessions(1), full]);

    let Answer::Opened { epoch, .. } =
        group.one(opening(5, SessionLimits { subscriptions: 2, ..none }))
    else {
        panic!()
    };
    let refused = Answer::Refused(Refused::TooManySubscriptions);
    let two_more = subscribe(session, epoch, &[("u", QOS1), ("v", QOS1)]);
    assert_eq!(group.one(two_more), refused);
    let one_more = subscribe(session, epoch, &[("u", QOS1)]);
    assert!(matches!(group.one(one_more), Answer::Subscribed { .. }));
}

#[test]
fn a_long_queue_of_an_ended_session_goes_in_pieces() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("a", 1, "t");
    let (other, _) = group.subscriber("b", 2, "t");
    let items = GARBAGE_ROWS_PER_TICK_MAX + 100;
    let all: Vec<_> = (0..items).map(|_| publish("t", &[7; 200])).collect();
    group.batch(&all);
    group.one(Command::CloseSession { session, epoch, expiry_s: Some(0), forget_will: false });
    assert_eq!(group.rows.count(KIND_ITEM), 2 * items);
    let counts = group.machine.counts();
    assert_eq!(counts.queued_items, items as u64, "what is going is not counted");

    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_ITEM), items + 100);
    assert!(group.machine.next_deadline().unwrap() <= group.machine.time(), "there is more");
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_ITEM), items);
    assert!(group.machine.next_deadline().unwrap() > group.machine.time());
    assert_eq!(group.queue(other).len(), items);
    group.one(settle(other, items as u64, &[]));
    assert_eq!(group.rows.count(KIND_MESSAGE), 0);
}

#[test]
fn a_message_expires_so_long_after_the_stamp_of_its_entry() {
    let mut group = Group::new(SHARD);
    let (a, _) = group.subscriber("a", 1, "t");
    let (b, _) = group.subscriber("b", 2, "t");
    let table = [(None, None), (Some(0), Some(0)), (Some(250), Some(250))];
    for (offset, (in_ms, after)) in (1..).zip(table) {
        // From the second on by a leader whose clock is behind: log time stays.
        let stamp = group.now.max(group.machine.time().0);
        let mut message = message("t", QOS1, b"m");
        message.expires_at = in_ms.map(UnixMillis);
        group.one(Command::Publish { tenant: TENANT, from: None, message });
        let expected = after.map(|after: u64| UnixMillis(stamp + after));
        for session in [a, b] {
            let read = group.machine.queue_read(&group.rows, session, Offset(offset), 1, 1);
            assert_eq!(read.unwrap()[0].message.expires_at, expected, "{in_ms:?}");
        }
        for effect in &group.effects {
            let Effect::Deliver { delivery, .. } = effect else { panic!("{effect:?}") };
            assert_eq!(delivery.message.expires_at, expected, "{in_ms:?}");
        }
        group.now -= 100;
    }
    let mut message = message("t", QOS1, b"m");
    message.expires_at = Some(UnixMillis(u64::MAX));
    group.one(Command::Publish { tenant: TENANT, from: None, message });
    assert_eq!(group.queue(a).len(), 4, "no overflow");
}

#[test]
fn whatever_becomes_of_a_message_is_counted_once() {
    let mut group = Group::new(SHARD);
    let (a, _) = group.subscriber("a", 1, "t");
    let (b, epoch) = group.open("b", 2, 3600);
    group.one(subscribe(b, epoch, &[("t", QOS0)]));
    let limits = SessionLimits { queue_items: 1, ..SessionLimits::none() };
    let answer = group.one(open_with("c", 3, false, 3600, limits));
    let Answer::Opened { session: c, epoch, .. } = answer else { panic!("{answer:?}") };
    group.one(subscribe(c, epoch, &[("t", QOS1)]));

    group.batch(&[publish("t", b"1"), publish("t", b"2"), publish("t", b"3")]);
    let tally = *group.machine.queue_tally();
    assert_eq!((tally.matched, tally.passed, tally.full, tally.enqueued), (9, 3, 2, 4));
    // Settled twice is settled once.
    group.batch(&[settle(a, 1, &[]), settle(a, 1, &[3]), settle(a, 0, &[3])]);
    group.one(Command::CloseSession { session: c, epoch, expiry_s: Some(0), forget_will: false });
    let tally = *group.machine.queue_tally();
    assert_eq!((tally.settled, tally.discarded, tally.opened_with), (2, 1, 0));
    assert_eq!(tally.imbalance(1), 0);
    assert_eq!(tally.imbalance(2), 1, "a message that nobody counted");

    // Who opens it again begins with what is there.
    group.reopen();
    assert_eq!(group.machine.queue_tally().opened_with, 1);
    assert_eq!(group.machine.queue_imbalance(), 0);
    group.one(settle(a, 9, &[]));
    assert_eq!(group.machine.queue_tally().settled, 1);
}
