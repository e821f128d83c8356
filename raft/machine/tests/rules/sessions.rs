//! The life of a session.

use moorline_core::{Epoch, Incarnation, NodeId, QoS, port::SessionLimits};
use moorline_machine::{
    Answer, DEADLINES_PER_TICK_MAX, Effect, Refused,
    command::{Command, Holder, SessionId},
};

use crate::harness::*;

struct Opened {
    session: SessionId,
    epoch: u64,
    present: bool,
    previous: Option<u64>,
}

fn opened(group: &mut Group, command: Command) -> Opened {
    let answer = group.one(command);
    let Answer::Opened { session, epoch, present, previous, .. } = answer else {
        panic!("{answer:?}")
    };
    let previous = previous.map(|holder| holder.conn.0);
    Opened { session, epoch: epoch.0, present, previous }
}

#[test]
fn opening_resumes_takes_over_or_wipes() {
    // (before: connection, expiry, closed?), (now: clean start, expiry) -> (present, previous, same session)
    #[rustfmt::skip]
    let table = [
        ((1, 60, true),  (false, 60), (true,  None,    true)),
        ((1, 60, false), (false, 60), (true,  Some(1), true)),
        ((1, 60, true),  (true,  60), (false, None,    false)),
        ((1, 60, false), (true,  0),  (false, Some(1), false)),
        ((1, 60, true),  (false, 0),  (true,  None,    true)),
        // A session that ends with its connection ends with the takeover too.
        ((1, 0,  false), (false, 60), (false, Some(1), false)),
        ((1, 0,  true),  (false, 60), (false, None,    false)),
        ((1, 0,  false), (false, 0),  (false, Some(1), false)),
    ];
    for case @ (before, now, expected) in table {
        let mut group = Group::new(SHARD);
        let first = opened(&mut group, open("c", before.0, false, before.1));
        assert!(!first.present);
        if before.2 {
            group.one(close(first.session, Epoch(first.epoch)));
        }
        let second = opened(&mut group, open("c", 2, now.0, now.1));
        let same = second.session == first.session;
        assert_eq!((second.present, second.previous, same), expected, "{case:?}");
        let gone = before.1 == 0 && before.2;
        assert_eq!(second.epoch, if gone { 1 } else { 2 }, "{case:?}");
        assert_eq!(group.machine.sessions().count(), 1, "{case:?}");
        let told = group.effects.iter().any(|effect| {
            matches!(effect, Effect::Opened { previous, .. }
                if previous.map(|holder| holder.conn.0) == expected.1)
        });
        assert!(told, "{case:?}: {:?}", group.effects);
    }
}

#[test]
fn opening_again_with_the_same_connection_changes_nothing() {
    let mut group = Group::new(SHARD);
    let first = opened(&mut group, open("c", 1, false, 60));
    let again = opened(&mut group, open("c", 1, true, 0));
    assert_eq!((again.session, again.epoch, again.present), (first.session, 1, false));
    assert!(group.effects.is_empty());
    let second = opened(&mut group, open("c", 2, false, 60));
    let again = opened(&mut group, open("c", 2, false, 60));
    assert!(second.present && again.present);
}

#[test]
fn a_wiped_session_leaves_nothing_to_the_next() {
    let mut group = Group::new(SHARD);
    let (old, _) = group.subscriber("c", 1, "t");
    group.batch(&[publish("t", b"1"), publish("t", b"2")]);
    let answer = group.one(open("c", 2, true, 60));
    let Answer::Opened { session, released, head, tail, .. } = answer else { panic!("{answer:?}") };
    assert_ne!(session, old);
    assert_eq!((head.0, tail.0), (1, 1));
    assert_eq!(released.len(), 1);
    assert_eq!(group.one(publish("t", b"3")), Answer::Published { sessions: 0 });
    assert!(group.queue(session).is_empty());
    assert_eq!(group.rows.count(KIND_ITEM), 0);
}

#[test]
fn an_older_connection_can_no_longer_close_or_subscribe() {
    let mut group = Group::new(SHARD);
    let (session, old) = group.open("c", 1, 60);
    let (_, new) = group.open("c", 2, 60);
    assert_eq!(group.one(close(session, old)), Answer::Released(vec![]));
    assert!(group.machine.session(session).unwrap().holder.is_some());
    let refused = Answer::Refused(Refused::NotYours);
    assert_eq!(group.one(subscribe(session, old, &[("t", QoS::AtLeastOnce)])), refused);
    assert_eq!(group.one(unsubscribe(session, old, &["t"])), refused);
    group.one(close(session, new));
    assert_eq!(group.one(subscribe(session, new, &[("t", QoS::AtLeastOnce)])), refused);
}

#[test]
fn a_session_outlives_its_connection_as_long_as_it_said() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("c", 1, "t");
    group.one(publish("t", b"x"));
    group.one(Command::CloseSession { session, epoch, expiry_s: Some(10), forget_will: false });
    assert_eq!(group.effects, [Effect::Closed { session, epoch }]);
    let due = group.machine.next_deadline().unwrap();
    assert_eq!(due.0, group.now + 10_000);

    group.now = due.0 - 1;
    assert_eq!(group.one(Command::Tick), Answer::Released(vec![]));
    group.now = due.0;
    let answer = group.one(Command::Tick);
    assert!(matches!(&answer, Answer::Released(routes) if routes.len() == 1), "{answer:?}");
    assert!(group.machine.session(session).is_none());
    assert_eq!(group.rows.count(KIND_ITEM), 0);
}

#[test]
fn an_expired_session_is_not_resumed_even_before_it_is_removed() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("c", 1, 10);
    group.one(close(session, epoch));
    group.now += 10_000;
    let again = opened(&mut group, open("c", 2, false, 10));
    assert!(!again.present && again.session != session);
}

#[test]
fn a_session_without_end_is_never_removed() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("c", 1, u32::MAX);
    group.one(close(session, epoch));
    group.now = u64::MAX / 2;
    group.one(Command::Tick);
    assert!(group.machine.session(session).is_some());
}

#[test]
fn log_time_never_goes_back() {
    let mut group = Group::new(SHARD);
    group.one(Command::Tick);
    let before = group.machine.time();
    group.now -= 1000;
    group.one(Command::Tick);
    assert_eq!(group.machine.time(), before);
}

#[test]
fn a_full_shard_refuses_a_new_session_and_resumes_those_it_has() {
    let mut group = Group::new(SHARD);
    let among = |client: &str, conn, sessions_max| {
        let mut command = open(client, conn, false, 60);
        let Command::OpenSession { sessions_max: max, .. } = &mut command else { unreachable!() };
        *max = sessions_max;
        command
    };
    assert!(matches!(group.one(among("a", 1, 1)), Answer::Opened { .. }));
    let refused = Answer::Refused(Refused::TooManySessions);
    assert_eq!(group.one(among("b", 2, 1)), refused);
    assert!(matches!(group.one(among("a", 3, 1)), Answer::Opened { .. }));
    assert!(matches!(group.one(among("b", 4, 2)), Answer::Opened { .. }));
    assert_eq!(group.one(among("c", 5, 2)), refused);
}

#[test]
fn a_dead_node_lets_go_of_its_sessions_and_of_no_others() {
    let mut group = Group::new(SHARD);
    let on = |client: &str, node, incarnation, expiry_s| {
        let Command::OpenSession { tenant, client, clean_start, .. } = open(client, 1, false, 0)
        else {
            unreachable!()
        };
        let conn = moorline_core::ConnId(1);
        let holder = Holder { node: NodeId(node), incarnation: Incarnation(incarnation), conn };
        let (limits, sessions_max) = (SessionLimits::none(), u32::MAX);
        Command::OpenSession {
            tenant,
            client,
            clean_start,
            expiry_s,
            holder,
            limits,
            sessions_max,
            will: None,
        }
    };
    let dead = opened(&mut group, on("dead", 1, 1, 60)).session;
    let clean = opened(&mut group, on("clean", 1, 1, 0)).session;
    let alive = opened(&mut group, on("alive", 1, 2, 60)).session;
    let other = opened(&mut group, on("other", 2, 1, 60)).session;
    let command = Command::NodeGone { node: NodeId(1), gone: Incarnation(1) };
    assert_eq!(group.one(command), Answer::Released(vec![]));
    assert_eq!(group.effects.len(), 2);
    let held = |group: &Group, session| group.machine.session(session).map(|s| s.holder.is_some());
    assert_eq!((held(&group, dead), held(&group, clean)), (Some(false), Some(false)));
    assert!(group.machine.next_deadline().is_some_and(|at| at.0 <= group.now));
    group.one(Command::Tick);
    assert_eq!((held(&group, dead), held(&group, clean)), (Some(false), None));
    assert_eq!((held(&group, alive), held(&group, other)), (Some(true), Some(true)));
    group.one(Command::NodeGone { node: NodeId(1), gone: Incarnation(2) });
    assert_eq!((held(&group, alive), held(&group, other)), (Some(false), Some(true)));
}

#[test]
fn a_late_word_of_a_death_does_not_touch_who_lives() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.open("c", 1, 60);
    let gone = Command::NodeGone { node: NodeId(1), gone: holder(1).incarnation };
    group.one(gone.clone());
    let held = |group: &Group| group.machine.session(session).and_then(|info| info.holder);
    assert_eq!(held(&group), None);
    let mut again = open("c", 2, false, 60);
    let Command::OpenSession { holder: next, .. } = &mut again else { unreachable!() };
    next.incarnation = Incarnation(99);
    assert_eq!(opened(&mut group, again).session, session);
    // Whoever proposed this slept since the node began again.
    group.one(gone);
    assert_eq!(held(&group).map(|holder| holder.incarnation), Some(Incarnation(99)));
    assert!(group.effects.is_empty(), "{:?}", group.effects);
}

#[test]
fn who_is_given_up_and_lives_is_told() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("c", 1, 60);
    let held = group.machine.session(session).and_then(|info| info.holder).unwrap();
    group.one(Command::NodeGone { node: NodeId(1), gone: held.incarnation });
    assert_eq!(group.effects, [Effect::Detached { session, epoch, holder: held }]);
}

#[test]
fn clients_are_found_by_tenant_and_name() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.open("c", 1, 60);
    let find = |tenant: u32, client: &str| {
        let tenant = moorline_core::TenantId(tenant);
        group.machine.session_of(&group.rows, tenant, &client.into()).unwrap().map(|info| info.id)
    };
    assert_eq!(find(TENANT.0, "c"), Some(session));
    assert_eq!(find(TENANT.0, "d"), None);
    assert_eq!(find(TENANT.0 + 1, "c"), None);
}

#[test]
fn the_death_of_a_node_is_one_row_for_each_session_and_the_rest_goes_by_tick() {
    const SESSIONS: usize = 2_500;
    let mut group = Group::new(SHARD);
    let command = |number: usize| {
        let expiry_s = if number.is_multiple_of(2) { 0 } else { 60 };
        let mut command = open(&format!("c{number}"), number as u64, false, expiry_s);
        let Command::OpenSession { will, .. } = &mut command else { unreachable!() };
        let message = message("gone", QoS::AtLeastOnce, b"w");
        *will = Some(Box::new(moorline_core::Will { message, delay_s: 0 }));
        command
    };
    group.batch(&(0..SESSIONS).map(command).collect::<Vec<_>>());
    let before = group.machine.counts();
    group.one(Command::NodeGone { node: NodeId(1), gone: holder(1).incarnation });
    let after = group.machine.counts();
    assert_eq!((after.held, after.sessions), (0, before.sessions));
    assert_eq!((after.wills, after.due_wills), (SESSIONS, 0), "none is due within the entry");
    let mut ticks = 0;
    while group.machine.next_deadline().is_some_and(|at| at.0 <= group.now) {
        let before = group.machine.counts().sessions;
        group.one(Command::Tick);
        assert!(before - group.machine.counts().sessions <= DEADLINES_PER_TICK_MAX);
        group.reopen();
        ticks += 1;
    }
    assert!(ticks > 1, "{ticks}");
    let left = group.machine.counts();
    assert_eq!((left.sessions, left.wills, left.due_wills), (SESSIONS / 2, 0, SESSIONS));
}

#[test]
fn a_tick_ends_fewer_sessions_when_each_has_many_rows() {
    const OPEN: u16 = 40_000;
    let mut group = Group::new(SHARD);
    for conn in 1..=3 {
        let (session, epoch) = group.open(&format!("c{conn}"), conn, 1);
        for piece in (1..=OPEN).collect::<Vec<_>>().chunks(10_000) {
            let receive = |packet: &u16| Command::Receive { session, epoch, packet: *packet };
            group.batch(&piece.iter().map(receive).collect::<Vec<_>>());
        }
        group.one(close(session, epoch));
    }
    group.now += 1_000;
    for left in [1, 0] {
        group.one(Command::Tick);
        assert_eq!(group.machine.counts().sessions, left);
    }
}
