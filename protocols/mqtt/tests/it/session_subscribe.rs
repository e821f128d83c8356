//! SUBSCRIBE and UNSUBSCRIBE: what is judged here, what is asked, how it is answered.

use std::num::NonZeroU32;

use moorline_core::{
    QoS, RetainHandling, SubscriptionOptions, Text,
    port::{Notice, Refusal, Token},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::UnsubAck,
    server::{CloseReason, Config, Event},
};

use crate::support::{Rig, VERSIONS, connect, id, suback, subscribe, unsubscribe};

type Granted = Result<Vec<Result<QoS, Refusal>>, Refusal>;

fn asked(rig: &mut Rig) -> (Token, Vec<(String, QoS)>) {
    match rig.connection.poll_event() {
        Some(Event::Subscribe { token, filters, .. }) => {
            let filters = filters.iter().map(|f| (f.filter.to_string(), f.options.qos)).collect();
            (token, filters)
        }
        other => panic!("{other:?}"),
    }
}

fn grant(rig: &mut Rig, token: Token, granted: Granted) {
    rig.notice(Notice::Subscribed { token, granted });
}

#[test]
fn a_subscribe_is_asked_and_answered_filter_by_filter() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        let filters =
            [("a/#", QoS::AtMostOnce), ("+/b", QoS::AtLeastOnce), ("c", QoS::ExactlyOnce)];
        rig.say(&Packet::Subscribe(subscribe(9, &filters)));
        let (token, filters) = asked(&mut rig);
        let wanted = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        assert_eq!(filters.iter().map(|(_, qos)| *qos).collect::<Vec<_>>(), wanted);
        assert!(rig.said().is_empty());
        grant(&mut rig, token, Ok(wanted.into_iter().map(Ok).collect()));
        let reasons = [Reason::Success, Reason::GrantedQoS1, Reason::GrantedQoS2];
        assert_eq!(rig.said(), [suback(9, &reasons)]);
    }
}

#[test]
fn ill_formed_filters_are_refused_one_by_one() {
    let deep = "a/".repeat(64);
    let filters = ["a#", "ok/+", "a/#/b", "+a", "ok", deep.as_str(), "#/"];
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        let with_qos: Vec<_> = filters.iter().map(|&filter| (filter, QoS::AtLeastOnce)).collect();
        rig.say(&Packet::Subscribe(subscribe(1, &with_qos)));
        let (token, passed) = asked(&mut rig);
        assert_eq!(passed.iter().map(|(f, _)| f.as_str()).collect::<Vec<_>>(), ["ok/+", "ok"]);
        grant(&mut rig, token, Ok(vec![Ok(QoS::AtLeastOnce), Err(Refusal::NotAuthorised)]));
        if version == Version::V31 {
            assert_eq!(rig.ended(), (CloseReason::SubscribeRefused, None), "it has no word for no");
            continue;
        }
        let (bad, denied) = if version.is_v5() {
            (Reason::TopicFilterInvalid, Reason::NotAuthorized)
        } else {
            (Reason::UnspecifiedError, Reason::UnspecifiedError)
        };
        let reasons = [bad, Reason::GrantedQoS1, bad, bad, denied, bad, bad];
        assert_eq!(rig.said(), [suback(1, &reasons)], "{version:?}");
        let counters = rig.connection.take_counters();
        assert_eq!((counters.filters_granted, counters.filters_refused), (1, 6));
    }
}

#[test]
fn a_subscribe_of_ill_formed_filters_only_asks_nobody() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::Subscribe(subscribe(1, &[("a#", QoS::AtMostOnce)])));
    assert_eq!(rig.connection.poll_event(), None);
    assert_eq!(rig.said(), [suback(1, &[Reason::TopicFilterInvalid])]);
    rig.say(&unsubscribe(2, &["a#"]));
    assert_eq!(rig.connection.poll_event(), None);
    let reasons = vec![Reason::TopicFilterInvalid];
    assert_eq!(rig.said(), [Packet::UnsubAck(UnsubAck { id: id(2), properties: None, reasons })]);
}

#[test]
fn mqtt_31_is_granted_all_filters_or_closed() {
    let mut rig = Rig::open(Version::V31);
    rig.say(&Packet::Subscribe(subscribe(1, &[("a", QoS::ExactlyOnce)])));
    let (token, _) = asked(&mut rig);
    grant(&mut rig, token, Ok(vec![Ok(QoS::AtLeastOnce)]));
    assert_eq!(rig.said(), [suback(1, &[Reason::GrantedQoS1])], "less than asked is no refusal");
    rig.say(&Packet::Subscribe(subscribe(2, &[("a#", QoS::AtMostOnce)])));
    assert_eq!(
        rig.connection.poll_event().map(|event| matches!(event, Event::Closed(_))),
        Some(true)
    );
    assert!(rig.said().is_empty());
}

#[test]
fn a_refused_subscribe_refuses_each_filter() {
    #[rustfmt::skip]
    let table = [
        (Refusal::Busy,          Reason::QuotaExceeded),
        (Refusal::Quota,         Reason::QuotaExceeded),
        (Refusal::DiskFull,      Reason::QuotaExceeded),
        (Refusal::NotAuthorised, Reason::NotAuthorized),
        (Refusal::TooLarge,      Reason::TopicFilterInvalid),
        (Refusal::Unavailable,   Reason::ImplementationSpecificError),
    ];
    for (refusal, reason) in table {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            rig.say(&Packet::Subscribe(subscribe(
                1,
                &[("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce)],
            )));
            let (token, _) = asked(&mut rig);
            grant(&mut rig, token, Err(refusal));
            if version == Version::V31 {
                assert_eq!(rig.ended(), (CloseReason::SubscribeRefused, None));
                continue;
            }
            let reason = if version.is_v5() { reason } else { Reason::UnspecifiedError };
            assert_eq!(rig.said(), [suback(1, &[reason, reason])]);
        }
    }
}

#[test]
fn shared_subscriptions_are_refused_while_they_are_not_offered() {
    #[rustfmt::skip]
    let table = [
        ("$share/g/a/+",  Reason::SharedSubscriptionsNotSupported, CloseReason::NotSupported),
        ("$share/g/",     Reason::ProtocolError,                   CloseReason::ProtocolError),
        ("$share/g",      Reason::ProtocolError,                   CloseReason::ProtocolError),
        ("$share//a",     Reason::ProtocolError,                   CloseReason::ProtocolError),
        ("$share/+/a",    Reason::ProtocolError,                   CloseReason::ProtocolError),
        ("$share/g#/a",   Reason::ProtocolError,                   CloseReason::ProtocolError),
        ("$share/g/a#",   Reason::ProtocolError,                   CloseReason::ProtocolError),
    ];
    for (filter, reason, closed) in table {
        let packet = Packet::Subscribe(subscribe(
            1,
            &[("plain", QoS::AtMostOnce), (filter, QoS::AtMostOnce)],
        ));
        let mut config = Config::default();
        config.capabilities.shared = false;
        let mut rig = Rig::open_with(config.clone(), connect(Version::V5));
        rig.say(&packet);
        assert_eq!(rig.ended(), (closed, Some(reason)), "{filter}");

        let mut rig = Rig::open_with(config, connect(Version::V311));
        rig.say(&packet);
        let (token, passed) = asked(&mut rig);
        assert_eq!(passed.len(), 1);
        grant(&mut rig, token, Ok(vec![Ok(QoS::AtMostOnce)]));
        assert_eq!(rig.said(), [suback(1, &[Reason::Success, Reason::UnspecifiedError])]);
    }
}

#[test]
fn shared_subscriptions_are_asked_but_never_ill_formed_or_with_no_local() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&Packet::Subscribe(subscribe(1, &[("$share/g/a/+", QoS::AtMostOnce)])));
        assert_eq!(asked(&mut rig).1[0].0, "$share/g/a/+");
    }
    for filter in ["$share/g/", "$share/g", "$share//a", "$share/+/a", "$share/g/a#"] {
        let mut rig = Rig::open(Version::V5);
        rig.say(&Packet::Subscribe(subscribe(1, &[(filter, QoS::AtMostOnce)])));
        assert_eq!(rig.ended().1, Some(Reason::ProtocolError), "{filter}");
    }
    let mut rig = Rig::open(Version::V5);
    let mut wrong = subscribe(1, &[("$share/g/a", QoS::AtMostOnce)]);
    wrong.filters[0].no_local = true;
    rig.say(&Packet::Subscribe(wrong));
    assert_eq!(rig.ended().1, Some(Reason::ProtocolError));
}

#[test]
fn the_options_of_a_filter_are_asked_as_they_came() {
    let mut rig = Rig::open(Version::V5);
    let mut with = subscribe(1, &[("a", QoS::AtMostOnce), ("b", QoS::AtLeastOnce)]);
    with.subscription_id = Some(268_435_455);
    with.filters[0].no_local = true;
    with.filters[1].retain_as_published = true;
    with.filters[1].retain_handling = RetainHandling::Never;
    rig.say(&Packet::Subscribe(with));
    let Some(Event::Subscribe { filters, .. }) = rig.connection.poll_event() else {
        panic!("no subscribe");
    };
    let id = NonZeroU32::new(268_435_455);
    let first = SubscriptionOptions { no_local: true, id, ..SubscriptionOptions::default() };
    let second = SubscriptionOptions {
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
        id,
        ..SubscriptionOptions::of_qos(QoS::AtLeastOnce)
    };
    assert_eq!(filters.iter().map(|f| f.options).collect::<Vec<_>>(), [first, second]);
}

#[test]
fn what_is_not_offered_is_refused_rather_than_ignored() {
    let mut config = Config::default();
    (config.capabilities.subscription_ids, config.capabilities.no_local) = (false, false);
    let mut rig = Rig::open_with(config.clone(), connect(Version::V5));
    let mut with = subscribe(1, &[("a", QoS::AtMostOnce)]);
    with.subscription_id = Some(3);
    rig.say(&Packet::Subscribe(with));
    let code = Some(Reason::SubscriptionIdentifiersNotSupported);
    assert_eq!(rig.ended(), (CloseReason::NotSupported, code));

    let stays = Config { stays_with_subscription_id: true, ..config.clone() };
    let mut rig = Rig::open_with(stays, connect(Version::V5));
    let mut with = subscribe(1, &[("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce)]);
    with.subscription_id = Some(3);
    rig.say(&Packet::Subscribe(with));
    let each = Reason::SubscriptionIdentifiersNotSupported;
    assert_eq!(rig.said(), [suback(1, &[each, each])]);
    assert!(!rig.connection.is_closed());

    let mut rig = Rig::open_with(config, connect(Version::V5));
    let mut with = subscribe(1, &[("a", QoS::AtMostOnce)]);
    with.filters[0].no_local = true;
    rig.say(&Packet::Subscribe(with));
    assert_eq!(rig.said(), [suback(1, &[Reason::ImplementationSpecificError])]);
    assert!(!rig.connection.is_closed());
}

#[test]
fn an_unsubscribe_is_answered_with_codes_in_mqtt_5_only() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&unsubscribe(4, &["a", "b", "c#"]));
        let Some(Event::Unsubscribe { token, filters }) = rig.connection.poll_event() else {
            panic!()
        };
        assert_eq!(filters, [Text::from("a"), Text::from("b")]);
        rig.notice(Notice::Unsubscribed { token, existed: Ok(vec![true, false]) });
        let reasons = if version.is_v5() {
            vec![Reason::Success, Reason::NoSubscriptionExisted, Reason::TopicFilterInvalid]
        } else {
            Vec::new()
        };
        assert_eq!(
            rig.said(),
            [Packet::UnsubAck(UnsubAck { id: id(4), properties: None, reasons })]
        );
    }
}

#[test]
fn a_refused_unsubscribe_is_never_confirmed() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&unsubscribe(4, &["a"]));
        let Some(Event::Unsubscribe { token, .. }) = rig.connection.poll_event() else { panic!() };
        rig.notice(Notice::Unsubscribed { token, existed: Err(Refusal::Unavailable) });
        if version.is_v5() {
            let reasons = vec![Reason::ImplementationSpecificError];
            assert_eq!(
                rig.said(),
                [Packet::UnsubAck(UnsubAck { id: id(4), properties: None, reasons })]
            );
        } else {
            assert_eq!(rig.ended(), (CloseReason::UnsubscribeRefused, None));
        }
    }
}

#[test]
fn a_client_with_too_many_unanswered_requests_is_not_read_from() {
    let config = Config { requests_max: 2, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    for packet_id in 1..=3 {
        rig.say(&Packet::Subscribe(subscribe(packet_id, &[("a", QoS::AtMostOnce)])));
    }
    let (first, _) = asked(&mut rig);
    asked(&mut rig);
    assert_eq!(rig.connection.poll_event(), None);
    assert!(!rig.connection.wants_read());
    grant(&mut rig, first, Ok(vec![Ok(QoS::AtMostOnce)]));
    asked(&mut rig);
}

#[test]
fn answers_come_as_the_service_gives_them() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::Subscribe(subscribe(1, &[("a", QoS::AtMostOnce)])));
    rig.say(&Packet::Subscribe(subscribe(2, &[("b", QoS::AtMostOnce)])));
    let (first, _) = asked(&mut rig);
    let (second, _) = asked(&mut rig);
    grant(&mut rig, second, Ok(vec![Ok(QoS::AtMostOnce)]));
    grant(&mut rig, first, Ok(vec![Ok(QoS::AtMostOnce)]));
    grant(&mut rig, first, Ok(vec![Ok(QoS::AtMostOnce)]));
    assert_eq!(rig.said(), [suback(2, &[Reason::Success]), suback(1, &[Reason::Success])]);
}
