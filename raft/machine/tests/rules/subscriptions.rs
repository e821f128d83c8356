//! Filters of sessions, and the routes they make.

use std::num::NonZeroU32;

use moorline_core::{Delivery, Message, Offset, QoS, SubscriptionOptions};
use moorline_machine::{
    Answer, Effect, Refused, RouteChange, SUBSCRIPTIONS_PER_SESSION_MAX,
    command::{Command, Origin, RouteTarget, SessionId, Subscription},
};

use crate::harness::*;

const QOS1: QoS = QoS::AtLeastOnce;

/// What a batch told the leader about routes: filter, version, present.
fn routes(effects: &[Effect]) -> Vec<(String, u64, bool)> {
    effects
        .iter()
        .filter_map(
            |effect| if let Effect::Routes(changes) = effect { Some(changes) } else { None },
        )
        .flatten()
        .map(|change| {
            assert_eq!((change.tenant, change.target), (TENANT, RouteTarget::Shard(SHARD)));
            (change.filter.as_str().to_owned(), change.version, change.present)
        })
        .collect()
}

fn filters(changes: &[RouteChange]) -> Vec<(&str, bool)> {
    changes.iter().map(|change| (change.filter.as_str(), change.present)).collect()
}

#[test]
fn the_first_session_of_a_filter_makes_a_route_and_the_last_one_ends_it() {
    let mut group = Group::new(SHARD);
    let (a, a_epoch) = group.open("a", 1, 60);
    let (b, b_epoch) = group.open("b", 2, 60);
    group.one(subscribe(a, a_epoch, &[("t", QOS1), ("u", QOS1)]));
    let version = group.index << 16;
    assert_eq!(routes(&group.effects), [("t".into(), version, true), ("u".into(), version, true)]);

    let answer = group.one(subscribe(b, b_epoch, &[("t", QOS1)]));
    let Answer::Subscribed { granted, new, routes: asked, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((granted, new), (vec![QOS1], vec![true]));
    assert_eq!((filters(&asked), asked[0].version), (vec![("t", true)], version));
    assert!(group.effects.is_empty());

    let answer = group.one(unsubscribe(a, a_epoch, &["t", "u", "v"]));
    let Answer::Unsubscribed { existed, released } = answer else { panic!("{answer:?}") };
    assert_eq!(existed, [true, true, false]);
    assert_eq!(filters(&released), [("u", false)]);
    assert_eq!(routes(&group.effects), [("u".into(), group.index << 16, false)]);
    let held = group.machine.held_filters(&group.rows).unwrap();
    assert_eq!(filters(&held), [("t", true)]);

    let Answer::Released(released) = group.one(Command::CloseSession {
        session: b,
        epoch: b_epoch,
        expiry_s: Some(0),
        forget_will: false,
    }) else {
        panic!()
    };
    assert_eq!(filters(&released), [("t", false)]);
    assert!(group.machine.held_filters(&group.rows).unwrap().is_empty());
}

#[test]
fn versions_grow_with_every_change_of_a_batch() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    let on = subscribe(session, epoch, &[("t", QOS1)]);
    let off = unsubscribe(session, epoch, &["t"]);
    group.batch(&[on.clone(), off.clone(), on.clone(), off, on]);
    let changes = routes(&group.effects);
    assert_eq!(changes.len(), 5);
    assert!(changes.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].2 != pair[1].2));
}

#[test]
fn subscribing_again_replaces_the_qos_and_tells_the_route_again() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.subscriber("a", 1, "t");
    let version = group.index << 16;
    let answer = group.one(subscribe(session, epoch, &[("t", QoS::AtMostOnce)]));
    let Answer::Subscribed { routes, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(routes[0].version, version);
    assert_eq!(group.machine.session(session).unwrap().subscriptions, 1);
    group.one(publish("t", b"x"));
    assert!(group.queue(session).is_empty());
    let subscriptions = group.machine.subscriptions(&group.rows, session).unwrap();
    assert_eq!(subscriptions.len(), 1);
    assert_eq!(subscriptions[0].options.qos, QoS::AtMostOnce);
}

#[test]
fn too_many_or_ill_formed_filters_are_refused_as_a_whole() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    let names: Vec<String> =
        (0..=SUBSCRIPTIONS_PER_SESSION_MAX).map(|n| format!("t/{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), QOS1)).collect();
    let refused = Answer::Refused(Refused::TooManySubscriptions);
    assert_eq!(group.one(subscribe(session, epoch, &all)), refused);
    assert_eq!(group.machine.counts().subscriptions, 0);

    let max = SUBSCRIPTIONS_PER_SESSION_MAX as usize;
    let fits = &all[..max];
    assert!(matches!(group.one(subscribe(session, epoch, fits)), Answer::Subscribed { .. }));
    // Those it has already take no further place.
    assert!(matches!(group.one(subscribe(session, epoch, fits)), Answer::Subscribed { .. }));
    assert_eq!(group.one(subscribe(session, epoch, &all[max..])), refused);

    for filter in ["", "a#", "#/a", "a/b+"] {
        let answer = group.one(subscribe(session, epoch, &[("ok", QOS1), (filter, QOS1)]));
        assert_eq!(answer, Answer::Refused(Refused::Malformed), "{filter:?}");
    }
}

#[test]
fn a_filter_twice_in_one_subscribe_is_one_subscription() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    let answer = group.one(subscribe(session, epoch, &[("t", QoS::AtMostOnce), ("t", QOS1)]));
    let Answer::Subscribed { granted, new, routes, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((granted.len(), routes.len()), (2, 2));
    assert_eq!(new, [true, false]);
    assert_eq!(group.machine.counts().subscriptions, 1);
    group.one(unsubscribe(session, epoch, &["t"]));
    assert!(group.machine.held_filters(&group.rows).unwrap().is_empty());
}

/// A subscription of MQTT 5.
fn subscription(filter: &str, options: SubscriptionOptions) -> Subscription {
    Subscription { filter: filter.into(), options }
}

/// QoS, RETAIN and identifiers of what was delivered to a session, by effect and from its queue.
fn flags(group: &Group, session: SessionId) -> Vec<(QoS, bool, Vec<u32>)> {
    let of_session = |effect: &Effect| {
        if let Effect::Deliver { session: to, delivery } = effect {
            (*to == session).then(|| delivery.clone())
        } else {
            None
        }
    };
    let told: Vec<_> = group.effects.iter().filter_map(of_session).collect();
    let last = group.machine.session(session).unwrap().tail.0 - 1;
    let queued = group.machine.queue_read(&group.rows, session, Offset(last), 1, 1000).unwrap();
    let flags =
        |delivery: &Delivery| (delivery.qos, delivery.retain, delivery.ids.as_slice().to_vec());
    let told: Vec<_> = told.iter().map(flags).collect();
    assert_eq!(told, queued.iter().map(flags).collect::<Vec<_>>(), "rows say the same");
    told
}

#[test]
fn overlapping_subscriptions_make_one_copy_with_all_that_they_want() {
    let id = NonZeroU32::new;
    let plain = SubscriptionOptions::of_qos(QOS1);
    let subscriptions = vec![
        subscription("t/+", SubscriptionOptions { id: id(9), ..plain }),
        subscription("t/1", SubscriptionOptions { id: id(4), retain_as_published: true, ..plain }),
        subscription("#", SubscriptionOptions { qos: QoS::AtMostOnce, id: None, ..plain }),
        subscription("u", SubscriptionOptions { id: id(1), ..plain }),
    ];
    #[rustfmt::skip]
    let table = [
        ("t/1", true,  (QOS1, true,  vec![4, 9])),
        ("t/1", false, (QOS1, false, vec![4, 9])),
        ("t/2", true,  (QOS1, false, vec![9])),
    ];
    // A payload that is stored in the item, and one with a row of its own for two queues.
    for len in [1, 1_000] {
        let mut group = Group::new(SHARD);
        let (other, _) = group.subscriber("other", 2, "t/#");
        let (session, epoch) = group.open("a", 1, 60);
        let answer =
            group.one(Command::Subscribe { session, epoch, subscriptions: subscriptions.clone() });
        let Answer::Subscribed { new, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(new, [true; 4]);
        for (topic, retain, expected) in &table {
            let message = Message { retain: *retain, ..message(topic, QOS1, &vec![7; len]) };
            group.one(Command::Publish { tenant: TENANT, from: None, message });
            assert_eq!(flags(&group, session), std::slice::from_ref(expected), "{topic} {retain}");
            assert_eq!(flags(&group, other), [(QOS1, false, vec![])]);
        }
        group.reopen();
        group.check();
    }
}

#[test]
fn a_session_that_wants_no_messages_of_its_own_gets_those_of_others() {
    let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::of_qos(QOS1) };
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("a", 1, 60);
    let (other, _) = group.open("b", 2, 60);
    let ask = |options| Command::Subscribe {
        session,
        epoch,
        subscriptions: vec![subscription("t", options)],
    };
    let publish =
        |from| Command::Publish { tenant: TENANT, from, message: message("t", QOS1, b"x") };
    group.one(ask(no_local));
    let nobody = Answer::Published { sessions: 0 };
    assert_eq!(group.one(publish(Some(session))), nobody);
    let origin = Origin { session, number: 1, floor: 1 };
    let once = Command::PublishOnce { tenant: TENANT, origin, message: message("t", QOS1, b"x") };
    assert_eq!(group.one(once), nobody);
    for from in [None, Some(other)] {
        assert_eq!(group.one(publish(from)), Answer::Published { sessions: 1 });
    }
    // Subscribing again replaces that, and says that it is not new.
    let answer = group.one(ask(SubscriptionOptions::of_qos(QOS1)));
    let Answer::Subscribed { new, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(new, [false]);
    assert_eq!(group.one(publish(Some(session))), Answer::Published { sessions: 1 });
}
