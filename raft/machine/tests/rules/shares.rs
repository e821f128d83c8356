//! Shares: members of any shard, one queue.

use std::collections::BTreeSet;

use moorline_core::{QoS, SubscriptionOptions, shard::bucket_of};
use moorline_machine::{
    Answer, Effect, LEFT_MAX, LEFT_MS, Refused, RouteChange, SHARES_PER_SHARD_MAX,
    command::{Command, SessionId},
};

use crate::harness::*;

const QOS1: QoS = QoS::AtLeastOnce;
const FILTER: &str = "$share/g/t/+";
const KIND_SHARE: u8 = 23;
const KIND_SHARE_MEMBER: u8 = 24;
const KIND_SHARE_LEFT: u8 = 25;

fn member(number: u64) -> SessionId {
    SessionId { bucket: 99, number }
}

fn join(filter: &str, member: SessionId, version: u64) -> Command {
    let options = SubscriptionOptions::of_qos(QOS1);
    Command::JoinShare { tenant: TENANT, filter: filter.into(), member, options, version }
}

fn leave(filter: &str, member: SessionId, version: u64) -> Command {
    Command::LeaveShare { tenant: TENANT, filter: filter.into(), member, version }
}

fn joined(group: &mut Group, filter: &str, number: u64) -> SessionId {
    let answer = group.one(join(filter, member(number), 1));
    let Answer::Joined { share, .. } = answer else { panic!("{answer:?}") };
    share
}

fn members(group: &Group, share: SessionId) -> Vec<(u64, u64)> {
    let share = group.machine.share(share);
    let members = share.iter().flat_map(|share| {
        share.members().map(|(member, _, version)| (member.number, version)).collect::<Vec<_>>()
    });
    members.collect()
}

fn filters(changes: &[RouteChange]) -> Vec<(&str, bool)> {
    changes.iter().map(|change| (change.filter.as_str(), change.present)).collect()
}

#[test]
fn a_share_has_one_queue_for_all_its_members_and_ends_with_the_last() {
    let mut group = Group::new(SHARD);
    let answer = group.one(join(FILTER, member(1), 1));
    let Answer::Joined { share, route } = answer else { panic!("{answer:?}") };
    assert_eq!(share.bucket, bucket_of(TENANT, FILTER.as_bytes()));
    assert_eq!((route.filter.as_str(), route.version), ("t/+", group.index << 16));
    assert!(group.effects.contains(&Effect::Routes(vec![route.clone()])));

    let answer = group.one(join(FILTER, member(2), 1));
    assert_eq!(answer, Answer::Joined { share, route }, "the same share and route");
    assert_eq!(group.one(publish("t/1", b"x")), Answer::Published { sessions: 1 });
    let told = group.effects.iter().any(|effect| {
        matches!(effect, Effect::Deliver { session, delivery }
            if *session == share && delivery.offset.is_some())
    });
    assert!(told, "the leader lends it");
    assert_eq!(group.queue(share), [(1, b"x".to_vec())]);
    assert_eq!((group.machine.counts().sessions, group.machine.sessions().count()), (0, 0));
    group.reopen();
    group.check();

    assert_eq!(group.one(leave(FILTER, member(1), 1)), Answer::Released(vec![]));
    assert_eq!(group.queue(share).len(), 1, "somebody may still want it");
    let answer = group.one(leave(FILTER, member(2), 1));
    let Answer::Released(released) = answer else { panic!("{answer:?}") };
    assert_eq!(filters(&released), [("t/+", false)]);
    assert!(group.machine.share(share).is_none() && group.machine.counts().queued_items == 0);
    for kind in [KIND_SHARE, KIND_SHARE_MEMBER, KIND_ITEM] {
        assert_eq!(group.rows.count(kind), 0);
    }
    assert_eq!(group.one(publish("t/1", b"x")), Answer::Published { sessions: 0 });
    let answer = group.one(join(FILTER, member(1), 2));
    let Answer::Joined { share: next, .. } = answer else { panic!("{answer:?}") };
    assert_ne!(next, share, "late settlements can't touch a new one");
}

#[test]
fn the_newest_news_of_a_membership_counts() {
    let mut group = Group::new(SHARD);
    let share = joined(&mut group, FILTER, 1);
    let mut after = |command| {
        group.one(command);
        members(&group, share)
    };
    assert_eq!(after(join(FILTER, member(2), 5)), [(1, 1), (2, 5)]);
    assert_eq!(after(leave(FILTER, member(2), 4)), [(1, 1), (2, 5)], "of an earlier subscription");
    assert_eq!(after(join(FILTER, member(2), 3)), [(1, 1), (2, 5)]);
    assert_eq!(after(join(FILTER, member(2), 7)), [(1, 1), (2, 7)]);
    assert_eq!(after(leave(FILTER, member(2), 7)), [(1, 1)]);
    assert_eq!(after(leave(FILTER, member(2), 9)), [(1, 1)]);
    assert_eq!(after(leave("$share/g/u", member(1), 9)), [(1, 1)]);
}

#[test]
fn a_beginning_that_is_older_than_the_end_changes_nothing() {
    let mut group = Group::new(SHARD);
    let late = Answer::Refused(Refused::Left);
    // The end may come first, of a share that nobody knows yet; and of the last member.
    for (filter, begins) in [("$share/g/a", false), ("$share/g/b", true)] {
        if begins {
            group.one(join(filter, member(1), 5));
        }
        group.one(leave(filter, member(1), 6));
        group.reopen();
        for version in [5, 6] {
            assert_eq!(group.one(join(filter, member(1), version)), late, "{filter}");
        }
        group.one(leave(filter, member(1), 4));
        assert_eq!(group.one(join(filter, member(1), 5)), late, "an older end changes nothing");
        assert_eq!(group.machine.shares().count(), 0);
        assert!(group.machine.held_filters(&group.rows).unwrap().is_empty());
    }
    assert_eq!(group.rows.count(KIND_SHARE_LEFT), 2);
    let answer = group.one(join("$share/g/a", member(1), 7));
    assert!(matches!(answer, Answer::Joined { .. }), "a later one does: {answer:?}");
    assert_eq!(group.rows.count(KIND_SHARE_LEFT), 1, "a member has no note");
    group.now += LEFT_MS - 1;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_SHARE_LEFT), 1);
    assert_eq!(group.machine.next_deadline().map(|at| at.0), Some(group.now + 1));
    group.now += 1;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_SHARE_LEFT), 0);
}

#[test]
fn of_too_many_ends_the_oldest_is_forgotten() {
    let mut group = Group::new(SHARD);
    let members: Vec<u64> = (0..=LEFT_MAX as u64).collect();
    for piece in members.chunks(10_000) {
        let commands: Vec<_> =
            piece.iter().map(|number| leave(FILTER, member(*number), 1)).collect();
        group.batch(&commands);
        group.now += 1;
    }
    assert_eq!(group.rows.count(KIND_SHARE_LEFT), LEFT_MAX);
    assert_eq!(group.one(join(FILTER, member(1), 1)), Answer::Refused(Refused::Left));
    assert!(matches!(group.one(join(FILTER, member(0), 1)), Answer::Joined { .. }));
}

#[test]
fn shares_of_other_names_and_sessions_of_their_own_get_a_copy_each() {
    let mut group = Group::new(SHARD);
    let one = joined(&mut group, "$share/g/t", 1);
    let other = joined(&mut group, "$share/h/t", 1);
    let (plain, _) = group.subscriber("a", 1, "t");
    assert_eq!(BTreeSet::from([one, other, plain]).len(), 3);
    assert_eq!(group.one(publish("t", &[7; 1_000])), Answer::Published { sessions: 3 });
    for queue in [one, other, plain] {
        assert_eq!(group.queue(queue).len(), 1);
    }
    // They share the message's row, and each settles its own.
    assert_eq!(group.rows.count(KIND_MESSAGE), 1);
    group.one(settle(one, 0, &[1, 9]));
    let offsets = vec![moorline_core::Offset(1), moorline_core::Offset(9)];
    assert_eq!(group.effects, [Effect::Settled { share: one, offsets }]);
    group.one(leave("$share/h/t", member(1), 1));
    assert_eq!((group.queue(one).len(), group.queue(plain).len()), (0, 1));
    group.one(settle(plain, 1, &[]));
    assert_eq!(group.rows.count(KIND_MESSAGE), 0);
    assert_eq!(group.machine.held_filters(&group.rows).unwrap().len(), 1, "one route for all");
}

#[test]
fn a_shared_subscription_of_a_session_matches_nothing_itself_and_its_end_is_told() {
    let ends: [fn(&mut Group, SessionId, moorline_core::Epoch); 3] = [
        |group, session, epoch| _ = group.one(unsubscribe(session, epoch, &[FILTER])),
        |group, session, epoch| {
            _ = group.one(Command::CloseSession {
                session,
                epoch,
                expiry_s: Some(0),
                forget_will: true,
            });
        },
        |group, _, _| _ = group.one(open("a", 2, true, 60)),
    ];
    for end in ends {
        let mut group = Group::new(SHARD);
        let (session, epoch) = group.open("a", 1, 60);
        let answer = group.one(subscribe(session, epoch, &[(FILTER, QOS1), ("u", QOS1)]));
        let Answer::Subscribed { granted, new, routes, .. } = answer else { panic!("{answer:?}") };
        assert_eq!((granted, new), (vec![QOS1; 2], vec![true; 2]));
        let version = routes[0].version;
        assert_eq!(group.machine.held_filters(&group.rows).unwrap().len(), 1, "it is no route");
        assert_eq!(group.one(publish("t/1", b"x")), Answer::Published { sessions: 0 });
        let known: Vec<_> = group.machine.shared_by(session).collect();
        let options = SubscriptionOptions::of_qos(QOS1);
        assert_eq!(known, [(&FILTER.into(), options, version)]);
        group.reopen();
        group.check();

        end(&mut group, session, epoch);
        let left = group.effects.iter().find_map(|effect| {
            if let Effect::Left { filter, member, version, .. } = effect {
                Some((filter.as_str().to_owned(), *member, *version))
            } else {
                None
            }
        });
        let (filter, member, newer) = left.expect("the share has to know");
        assert_eq!((filter.as_str(), member), (FILTER, session));
        assert!(newer > version);
        assert_eq!(group.machine.shared_by(session).count(), 0);
    }
}

#[test]
fn ill_formed_shared_filters_are_refused() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    for filter in ["$share//t", "$share/+/t", "$share/g/t#", "$share/g/"] {
        let refused = Answer::Refused(Refused::Malformed);
        assert_eq!(group.one(join(filter, member(1), 1)), refused, "{filter}");
        assert_eq!(group.one(subscribe(session, epoch, &[(filter, QOS1)])), refused, "{filter}");
    }
}

#[test]
fn a_share_of_a_long_queue_is_removed_in_pieces() {
    let mut group = Group::new(SHARD);
    joined(&mut group, "$share/g/t", 1);
    for _ in 0..100 {
        group.one(publish("t", b"x"));
    }
    group.one(leave("$share/g/t", member(1), 1));
    assert_eq!(group.rows.count(KIND_ITEM), 100);
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_ITEM), 0);
    group.check();
}

#[test]
fn shares_are_limited_and_do_not_count_as_sessions() {
    let mut group = Group::new(SHARD);
    let number: Vec<usize> = (0..SHARES_PER_SHARD_MAX).collect();
    for piece in number.chunks(5_000) {
        let joins = piece.iter().map(|number| join(&format!("$share/g/{number}"), member(1), 1));
        let answers = group.batch(&joins.collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Joined { .. })));
    }
    let refused = Answer::Refused(Refused::TooManySessions);
    assert_eq!(group.one(join("$share/g/more", member(1), 1)), refused);
    assert!(matches!(group.one(join("$share/g/0", member(2), 1)), Answer::Joined { .. }));
    let mut command = open("a", 1, false, 60);
    let Command::OpenSession { sessions_max, .. } = &mut command else { unreachable!() };
    *sessions_max = 1;
    assert!(matches!(group.one(command), Answer::Opened { .. }), "the first session");
    group.one(leave("$share/g/1", member(1), 1));
    assert!(matches!(group.one(join("$share/g/more", member(1), 1)), Answer::Joined { .. }));
}
