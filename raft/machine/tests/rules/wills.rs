//! Wills: when they are due, when they are forgotten, and that they count once.

use moorline_core::{Epoch, QoS, Will};
use moorline_machine::{
    Answer, Command, Effect,
    command::{Origin, SessionId},
};

use crate::harness::*;

const KIND_WILL: u8 = 18;
const KIND_DUE: u8 = 19;

fn with_will(command: Command, payload: &[u8], delay_s: u32) -> Command {
    let Command::OpenSession { tenant, client, clean_start, expiry_s, holder, .. } = command else {
        panic!("{command:?}")
    };
    let message = message("gone", QoS::AtLeastOnce, payload);
    let will = Some(Box::new(Will { message, delay_s }));
    let (limits, sessions_max) = (moorline_core::port::SessionLimits::none(), u32::MAX);
    Command::OpenSession {
        tenant,
        client,
        clean_start,
        expiry_s,
        holder,
        limits,
        sessions_max,
        will,
    }
}

fn opened(group: &mut Group, command: Command) -> (SessionId, Epoch) {
    let answer = group.one(command);
    let Answer::Opened { session, epoch, .. } = answer else { panic!("{answer:?}") };
    (session, epoch)
}

/// Payloads of the wills that are due, by number.
fn due(group: &Group) -> Vec<(u64, Vec<u8>)> {
    let wills = group.machine.due_wills(&group.rows, 0, usize::MAX).unwrap();
    assert_eq!(group.machine.counts().due_wills, wills.len());
    assert_eq!(group.rows.count(KIND_DUE), wills.len());
    wills.into_iter().map(|will| (will.number, will.message.payload.to_vec())).collect()
}

fn tick(group: &mut Group, passed_ms: u64) {
    group.now += passed_ms;
    group.one(Command::Tick);
}

fn goodbye(session: SessionId, epoch: Epoch) -> Command {
    Command::CloseSession { session, epoch, expiry_s: None, forget_will: true }
}

#[test]
fn a_will_is_due_when_its_delay_or_its_session_is_over() {
    // (expiry, delay) -> milliseconds after the connection was lost
    #[rustfmt::skip]
    let table = [
        ((0,        0),  0),
        ((0,        5),  0),
        ((60,       0),  0),
        ((60,       5),  5_000),
        ((3,        5),  3_000),
        ((u32::MAX, 5),  5_000),
        ((60,       60), 60_000),
    ];
    for ((expiry_s, delay_s), after_ms) in table {
        let mut group = Group::new(SHARD);
        let command = with_will(open("c", 1, false, expiry_s), b"w", delay_s);
        let (session, epoch) = opened(&mut group, command);
        tick(&mut group, 100_000);
        assert!(due(&group).is_empty(), "its client is there");
        group.one(close(session, epoch));
        if after_ms > 0 {
            let at = group.now + after_ms;
            assert!(due(&group).is_empty());
            assert!(group.machine.next_deadline().is_some_and(|next| next.0 == at), "{delay_s}");
            tick(&mut group, after_ms - 1);
            assert!(due(&group).is_empty(), "{expiry_s} {delay_s}");
            group.reopen();
            tick(&mut group, 1);
        }
        assert_eq!(due(&group), [(1, b"w".to_vec())], "{expiry_s} {delay_s}");
        assert!(group.effects.contains(&Effect::WillDue));
        assert_eq!(group.rows.count(KIND_WILL), 0);
        tick(&mut group, 100_000);
        assert_eq!(due(&group).len(), 1, "once");
    }
}

#[test]
fn a_goodbye_forgets_the_will_and_nothing_else_does() {
    for expiry_s in [0, 60] {
        let mut group = Group::new(SHARD);
        let (session, epoch) =
            opened(&mut group, with_will(open("c", 1, false, expiry_s), b"w", 0));
        group.one(goodbye(session, Epoch(epoch.0 + 1)));
        assert_eq!(group.machine.counts().wills, 1, "another's goodbye");
        group.one(goodbye(session, epoch));
        tick(&mut group, 100_000);
        assert!(due(&group).is_empty());
        assert_eq!(group.rows.count(KIND_WILL), 0);
        assert_eq!(group.machine.counts().wills, 0);
    }
}

#[test]
fn the_next_connection_decides_what_becomes_of_a_will() {
    // (expiry, delay, gone for so long before), clean start -> due at once
    #[rustfmt::skip]
    let table = [
        ((60, 0,  None),         false, true),  // taken over
        ((60, 5,  None),         false, false),
        ((60, 5,  None),         true,  true),  // the session ends
        ((0,  5,  None),         false, true),
        ((60, 5,  Some(4_999)),  false, false), // back in time
        ((60, 5,  Some(5_000)),  false, true),  // too late, though nobody ticked
        ((60, 30, Some(5_000)),  true,  true),
        ((60, 90, Some(60_000)), false, true),
    ];
    for case @ ((expiry_s, delay_s, gone_ms), clean_start, at_once) in table {
        let mut group = Group::new(SHARD);
        let (session, epoch) =
            opened(&mut group, with_will(open("c", 1, false, expiry_s), b"old", delay_s));
        if let Some(gone_ms) = gone_ms {
            group.one(close(session, epoch));
            group.now += gone_ms;
        }
        let again = with_will(open("c", 2, clean_start, 60), b"new", 7);
        let (session, epoch) = opened(&mut group, again.clone());
        let expected = if at_once { vec![(1, b"old".to_vec())] } else { vec![] };
        assert_eq!(due(&group), expected, "{case:?}");
        group.one(again);
        assert_eq!(due(&group), expected, "a repeat changes nothing");
        group.one(close(session, epoch));
        tick(&mut group, 7_000);
        assert_eq!(due(&group).last().unwrap().1, b"new");
        assert_eq!(due(&group).len(), expected.len() + 1, "{case:?}");
    }
}

#[test]
fn the_wills_of_a_dead_node_are_due() {
    let mut group = Group::new(SHARD);
    for (conn, (client, delay_s)) in (1..).zip([("a", 0), ("b", 5), ("c", 0)]) {
        let expiry_s = if client == "c" { 0 } else { 60 };
        let command = with_will(open(client, conn, false, expiry_s), client.as_bytes(), delay_s);
        group.one(command);
    }
    group.one(Command::NodeGone { node: moorline_core::NodeId(1), gone: holder(1).incarnation });
    assert!(due(&group).is_empty() && group.machine.counts().wills == 3);
    tick(&mut group, 0);
    let mut now = due(&group).into_iter().map(|(_, payload)| payload).collect::<Vec<_>>();
    now.sort();
    assert_eq!(now, [b"a", b"c"]);
    tick(&mut group, 5_000);
    assert_eq!(due(&group).last(), Some(&(3, b"b".to_vec())));
}

#[test]
fn a_will_that_was_published_is_due_no_more_and_its_number_never_comes_again() {
    let mut group = Group::new(SHARD);
    let fire = |group: &mut Group| {
        let (session, epoch) = opened(group, with_will(open("c", 1, false, 0), b"w", 0));
        group.one(close(session, epoch));
    };
    (0..3).for_each(|_| fire(&mut group));
    let second = group.machine.due_wills(&group.rows, 2, 1).unwrap();
    assert_eq!(second.iter().map(|will| will.number).collect::<Vec<_>>(), [2]);
    assert_eq!(group.one(Command::WillsDone { numbers: vec![3, 1, 9] }), Answer::Done);
    assert_eq!(due(&group), [(2, b"w".to_vec())]);
    group.one(Command::WillsDone { numbers: vec![2, 2] });
    group.reopen();
    fire(&mut group);
    assert_eq!(due(&group), [(4, b"w".to_vec())]);
}

#[test]
fn a_will_published_by_two_leaders_is_queued_once() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("s", 1, "gone");
    let publish = |number, floor| Command::PublishOnce {
        tenant: TENANT,
        origin: Origin::of_wills(moorline_core::ShardId(3), number, floor),
        message: message("gone", QoS::AtLeastOnce, &[u8::try_from(number).unwrap()]),
    };
    group.batch(&[publish(1, 1), publish(2, 1), publish(1, 1), publish(3, 2), publish(2, 2)]);
    let payloads: Vec<_> = group.queue(session).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [[1], [2], [3]]);
}
