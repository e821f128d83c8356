//! Filters of sessions, and the routes they make.

use moorline_core::QoS;
use moorline_machine::{
    Answer, Effect, Refused, RouteChange, SUBSCRIPTIONS_PER_SESSION_MAX,
    command::{Command, RouteTarget},
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
    let Answer::Subscribed { granted, routes: asked } = answer else { panic!("{answer:?}") };
    assert_eq!(granted, [QOS1]);
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
    assert_eq!(subscriptions[0].qos, QoS::AtMostOnce);
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

    let fits = &all[..SUBSCRIPTIONS_PER_SESSION_MAX];
    assert!(matches!(group.one(subscribe(session, epoch, fits)), Answer::Subscribed { .. }));
    // Those it has already take no further place.
    assert!(matches!(group.one(subscribe(session, epoch, fits)), Answer::Subscribed { .. }));
    assert_eq!(group.one(subscribe(session, epoch, &all[100..])), refused);

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
    let Answer::Subscribed { granted, routes } = answer else { panic!("{answer:?}") };
    assert_eq!((granted.len(), routes.len()), (2, 2));
    assert_eq!(group.machine.counts().subscriptions, 1);
    group.one(unsubscribe(session, epoch, &["t"]));
    assert!(group.machine.held_filters(&group.rows).unwrap().is_empty());
}
