//! Deliveries: packet ids, windows, what is dropped and what is settled.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use bytes::Bytes;
use moorline_core::{
    Delivery, Message, Offset, QoS, ShareNumber, Text, UnixMillis,
    port::{Close, Failure, Notice},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{Ack, Connect},
    server::{CloseReason, Closed, Config, Event, packet_id_of},
};

use crate::support::{
    Rig, START, VERSIONS, connect, deliveries, durable, id, ids, live, message, puback,
};

fn windowed(version: Version, window: u16) -> Rig {
    let config = Config { inflight_max: NonZeroU16::new(window).unwrap(), ..Config::default() };
    Rig::open_with(config, Connect { clean_start: false, ..connect(version) })
}

fn settled(rig: &mut Rig) -> Vec<u64> {
    rig.events()
        .into_iter()
        .flat_map(|event| match event {
            Event::Settled(offsets) => offsets,
            other => panic!("{other:?}"),
        })
        .map(|offset| offset.0)
        .collect()
}

#[test]
fn durable_deliveries_carry_ids_of_their_offsets_and_settle_when_acknowledged() {
    for version in VERSIONS {
        let mut rig = windowed(version, 10);
        rig.deliver(vec![durable(70_000), durable(70_001), durable(70_002)]);
        let said = rig.said();
        let expected: Vec<_> =
            [70_000, 70_001, 70_002].map(|offset| packet_id_of(Offset(offset)).get()).into();
        assert_eq!(ids(&said), expected);
        // In any order.
        for at in [2, 0, 1] {
            rig.say(&puback(expected[at]));
        }
        assert_eq!(settled(&mut rig), [70_002, 70_000, 70_001]);
        rig.say(&puback(expected[0]));
        assert!(settled(&mut rig).is_empty(), "settled once");
        assert!(!rig.connection.is_closed());
    }
}

#[test]
fn only_what_was_sent_before_goes_out_with_dup() {
    let mut rig = windowed(Version::V311, 10);
    let resent = Delivery { resent: true, ..durable(1) };
    rig.deliver(vec![resent, durable(2)]);
    let dups: Vec<_> = rig
        .said()
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => publish.dup,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(dups, [true, false]);
    assert_eq!(rig.connection.take_counters().deliveries_resent, 1);
}

#[test]
fn the_clients_receive_maximum_bounds_what_is_in_flight() {
    let mut asked = connect(Version::V5);
    asked.properties.receive_max = NonZeroU16::new(2);
    let mut rig = Rig::open_with(Config::default(), asked);
    rig.deliver((1..=5).map(durable).collect());
    assert_eq!(ids(&rig.said()), [2, 3]);
    assert!(rig.said().is_empty());
    rig.say(&puback(3));
    assert_eq!(ids(&rig.said()), [4]);
    rig.say(&puback(2));
    rig.say(&puback(4));
    assert_eq!(ids(&rig.said()), [5, 6]);
    assert_eq!(settled(&mut rig), [2, 1, 3]);
}

#[test]
fn an_error_in_a_puback_is_an_answer_too() {
    let mut rig = windowed(Version::V5, 1);
    rig.deliver(vec![durable(1), durable(2)]);
    assert_eq!(ids(&rig.said()), [2]);
    rig.say(&Packet::PubAck(Ack::new(id(2), Reason::UnspecifiedError)));
    assert_eq!(settled(&mut rig), [1]);
    assert_eq!(ids(&rig.said()), [3]);
}

#[test]
fn qos_0_and_answers_flow_while_the_window_is_full() {
    let mut rig = windowed(Version::V5, 1);
    rig.deliver(vec![durable(1), durable(2), live(QoS::AtMostOnce, b"passing")]);
    rig.say(&Packet::PingReq);
    let said = rig.said();
    assert_eq!(said[0], Packet::PingResp);
    let sent = deliveries(&said);
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[1].0, &sent[1].2[..]), (QoS::AtMostOnce, &b"passing"[..]));
}

#[test]
fn while_the_window_is_open_deliveries_keep_the_order_they_came_in() {
    let mut rig = windowed(Version::V311, 10);
    let mixed = vec![
        live(QoS::AtMostOnce, b"a"),
        durable(1),
        live(QoS::AtMostOnce, b"b"),
        durable(2),
        live(QoS::AtMostOnce, b"c"),
    ];
    rig.deliver(mixed);
    let qos: Vec<_> = deliveries(&rig.said()).into_iter().map(|(qos, ..)| qos as u8).collect();
    assert_eq!(qos, [0, 1, 0, 1, 0]);
}

#[test]
fn an_offset_waits_for_the_one_with_its_id() {
    let mut rig = windowed(Version::V311, 10);
    rig.deliver(vec![durable(1), durable(1 + 65_535), durable(2 + 65_535)]);
    assert_eq!(ids(&rig.said()), [2], "the others keep their order behind it");
    rig.say(&puback(2));
    assert_eq!(ids(&rig.said()), [2, 3]);
    assert_eq!(settled(&mut rig), [1]);
}

#[test]
fn live_deliveries_count_their_own_ids_and_settle_nothing() {
    let mut rig = Rig::open(Version::V311);
    rig.deliver((0..3u8).map(|n| live(QoS::AtLeastOnce, &[n])).collect());
    let sent = deliveries(&rig.said());
    assert_eq!(sent.iter().map(|(_, id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
    for packet_id in 1..=3 {
        rig.say(&puback(packet_id));
    }
    assert!(settled(&mut rig).is_empty());
    assert_eq!(rig.connection.take_counters().deliveries_acked, 3);
}

#[test]
fn live_ids_go_round_past_those_in_flight() {
    let mut rig = windowed(Version::V311, 2);
    for round in 0..65_535u32 {
        rig.deliver(vec![live(QoS::AtLeastOnce, &round.to_be_bytes())]);
        let said = ids(&rig.said());
        assert_eq!(said.len(), 1, "{round}");
        if round > 0 {
            rig.say(&puback(said[0]));
        }
    }
    // The first is still in flight, so its id is not given again.
    rig.deliver(vec![live(QoS::AtLeastOnce, b"waits")]);
    assert!(rig.said().is_empty());
    rig.say(&puback(1));
    assert_eq!(ids(&rig.said()), [1]);
}

#[test]
fn the_live_queue_drops_the_newest_and_counts_them() {
    let config = Config { live_queue_max: 3, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V311));
    rig.connection
        .notice(rig.now, Notice::Deliver((0..5u8).map(|n| live(QoS::AtMostOnce, &[n])).collect()));
    let sent: Vec<u8> = deliveries(&rig.said()).iter().map(|(_, _, body)| body[0]).collect();
    assert_eq!(sent, [0, 1, 2]);
    assert_eq!(rig.connection.take_counters().dropped_queue_full, 2);
    rig.deliver(vec![live(QoS::AtMostOnce, &[9])]);
    assert_eq!(deliveries(&rig.said()).len(), 1, "there is room again");
}

#[test]
fn a_page_of_retained_messages_is_not_dropped_and_the_next_is_asked_for() {
    let config = Config {
        live_queue_max: 3,
        inflight_max: NonZeroU16::new(4).unwrap(),
        ..Config::default()
    };
    for version in VERSIONS {
        let mut rig = Rig::open_with(config.clone(), connect(version));
        let page = |qos| (0..6u8).map(|n| Delivery { retain: true, ..live(qos, &[n]) }).collect();
        rig.connection.notice(rig.now, Notice::Retained(page(QoS::AtMostOnce)));
        assert_eq!(rig.events(), [], "not before it has left");
        let said = rig.said();
        assert_eq!(deliveries(&said).len(), 6);
        let retained = |packet: &Packet| matches!(packet, Packet::Publish(p) if p.retain);
        assert!(said.iter().all(retained));
        assert_eq!(rig.events(), [Event::RetainedTaken]);

        // With QoS 1 the window decides.
        rig.connection.notice(rig.now, Notice::Retained(page(QoS::AtLeastOnce)));
        assert_eq!(deliveries(&rig.said()).len(), 4);
        assert_eq!(rig.events(), []);
        rig.deliver(vec![live(QoS::AtMostOnce, b"x")]);
        assert_eq!(deliveries(&rig.said()).len(), 1, "live ones have their own room");
        rig.say(&puback(1));
        rig.say(&puback(2));
        assert_eq!(deliveries(&rig.said()).len(), 2);
        assert_eq!(rig.events(), [Event::RetainedTaken]);
        assert_eq!(rig.connection.take_counters().dropped_queue_full, 0);
    }
}

#[test]
fn a_retained_copy_never_leaves_behind_a_newer_message_of_qos_0() {
    let of = |topic: &str, qos, payload: &[u8]| {
        let topic = Text::from(topic);
        let message = Arc::new(Message { topic, retain: true, ..message(payload) });
        Delivery { retain: true, ..Delivery::new(None, qos, message) }
    };
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut rig = windowed(Version::V5, 1);
        let page = ["a", "b", "c"].map(|topic| of(topic, qos, b"old"));
        rig.notice(Notice::Retained(page.to_vec()));
        assert_eq!(ids(&rig.said()), [1], "the window is full");
        // What was not published with RETAIN=1 replaces nothing.
        let event = Arc::new(Message { topic: Text::from("c"), ..message(b"x") });
        let event = Delivery::new(None, QoS::AtMostOnce, event);
        rig.deliver(vec![of("b", QoS::AtMostOnce, b"new"), event]);
        assert_eq!(deliveries(&rig.said()).len(), 2);
        assert_eq!(rig.events(), []);
        let ends = if qos == QoS::AtLeastOnce {
            puback(1)
        } else {
            Packet::PubRec(Ack::new(id(1), Reason::UnspecifiedError))
        };
        rig.deliver(vec![of("c", QoS::AtMostOnce, b"new")]);
        assert_eq!(rig.events(), [Event::RetainedTaken], "nothing of the page is left");
        rig.say(&ends);
        let said = deliveries(&rig.said());
        assert_eq!(said, [(QoS::AtMostOnce, 0, Bytes::from_static(b"new"))]);
        assert_eq!(rig.events(), []);
    }
}

#[test]
fn a_newer_message_that_is_dropped_replaces_no_retained_copy() {
    let config = Config {
        live_queue_max: 1,
        inflight_max: NonZeroU16::new(1).unwrap(),
        ..Config::default()
    };
    let retained = |qos| {
        let message = Arc::new(Message { retain: true, ..message(b"t") });
        Delivery::new(None, qos, message)
    };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    rig.deliver(vec![live(QoS::AtLeastOnce, b"1")]);
    rig.said();
    rig.deliver(vec![live(QoS::AtLeastOnce, b"2")]);
    rig.notice(Notice::Retained(vec![retained(QoS::AtLeastOnce)]));
    rig.deliver(vec![retained(QoS::AtMostOnce)]);
    assert_eq!(rig.connection.take_counters().dropped_queue_full, 1);
    rig.say(&puback(1));
    assert_eq!(ids(&rig.said()), [2]);
    rig.say(&puback(2));
    assert_eq!(ids(&rig.said()), [3], "the copy is still there");
}

#[test]
fn the_live_queue_counts_bytes_too() {
    let config = Config { live_queue_bytes_max: 2_000, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V311));
    rig.deliver(vec![live(QoS::AtMostOnce, &[0; 1_000]), live(QoS::AtLeastOnce, &[0; 1_000])]);
    assert_eq!(deliveries(&rig.said()).len(), 1);
    assert_eq!(rig.connection.take_counters().dropped_queue_full, 1);
}

#[test]
fn more_than_the_credit_ends_the_connection_and_loses_nothing() {
    let config =
        Config { inflight_max: NonZeroU16::new(2).unwrap(), prefetch_max: 1, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    rig.deliver((1..=3).map(durable).collect());
    assert_eq!(ids(&rig.said()), [2, 3]);
    rig.say(&puback(2));
    rig.deliver(vec![durable(4)]);
    assert!(!rig.connection.is_closed());
    rig.deliver(vec![durable(5)]);
    assert!(rig.connection.is_closed());
    let events = rig.events();
    let overrun = Closed { close: Close::Failed(Failure::Slow), reason: CloseReason::Overrun };
    assert!(
        matches!(&events[..], [Event::Settled(offsets), Event::Closed(closed)]
        if offsets[..] == [Offset(1)] && *closed == overrun),
        "{events:?}"
    );
}

#[test]
fn what_is_larger_than_the_client_takes_is_dropped_as_if_delivered() {
    let mut asked = connect(Version::V5);
    asked.properties.packet_max = NonZeroU32::new(50);
    let mut rig = Rig::open_with(Config::default(), asked);
    let with = |offset, payload: usize| Delivery {
        message: Arc::new(message(&vec![7; payload])),
        ..durable(offset)
    };
    // Header 2, topic 3, id 2, property length 1: 42 bytes of payload make 50.
    rig.deliver(vec![with(1, 43), with(2, 42), live(QoS::AtLeastOnce, &[0; 43]), with(3, 1)]);
    assert_eq!(ids(&rig.said()), [3, 4]);
    assert_eq!(settled(&mut rig), [1]);
    assert_eq!(rig.connection.take_counters().dropped_too_large, 2);
}

#[test]
fn expired_messages_are_dropped_as_if_delivered_and_the_rest_is_told_what_is_left() {
    let expiring = |offset, ms: u64| Delivery {
        message: Arc::new(Message {
            expires_at: Some(UnixMillis(START.wall.0 + ms)),
            ..message(b"x")
        }),
        ..durable(offset)
    };
    let mut rig = windowed(Version::V5, 10);
    rig.wait(5_000);
    rig.deliver(vec![expiring(1, 5_000), expiring(2, 5_001), expiring(3, 9_500), durable(4)]);
    let left: Vec<_> = rig
        .said()
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => (publish.id.unwrap().get(), publish.expiry_s),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(left, [(3, Some(1)), (4, Some(5)), (5, None)]);
    assert_eq!(settled(&mut rig), [1]);
    assert_eq!(rig.connection.take_counters().expired, 1);
}

#[test]
fn properties_travel_to_mqtt_5_only() {
    for version in VERSIONS {
        let mut rig = windowed(version, 10);
        let properties = Bytes::from_static(b"\x01\x01\x26\x00\x01k\x00\x01v");
        let with =
            Message { properties: properties.clone(), topic: Text::from("été"), ..message(b"x") };
        rig.deliver(vec![Delivery { message: Arc::new(with), ..durable(1) }]);
        let Some(Packet::Publish(publish)) = rig.said().pop() else { panic!() };
        assert_eq!(publish.properties, if version.is_v5() { properties } else { Bytes::new() });
        assert_eq!((publish.topic, publish.retain), (Text::from("été"), false));
    }
}

#[test]
fn a_durable_qos_0_delivery_is_settled_as_soon_as_it_is_sent() {
    let mut rig = windowed(Version::V311, 1);
    rig.deliver(vec![Delivery { qos: QoS::AtMostOnce, ..durable(1) }]);
    assert_eq!(deliveries(&rig.said()).len(), 1);
    assert_eq!(settled(&mut rig), [1]);
}

#[test]
fn a_client_that_does_not_read_is_sent_no_more_than_the_output_limit() {
    let config = Config { output_bytes_max: 1_000, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V311));
    let big = |n: u8| live(QoS::AtMostOnce, &[n; 400]);
    rig.deliver((0..10).map(big).collect());
    for _ in 0..3 {
        rig.transmit();
        assert!((1_000..1_420).contains(&rig.output.len()), "{}", rig.output.len());
    }
    let mut sent = 0;
    while sent < 10 {
        let now = deliveries(&rig.said()).len();
        assert!(now > 0, "it goes on as soon as the client reads");
        sent += now;
        rig.transmit();
    }
}

#[test]
fn wrong_answers_to_a_delivery_end_the_connection() {
    let rec = Packet::PubRec(Ack::new(id(2), Reason::Success));
    let comp = Packet::PubComp(Ack::new(id(2), Reason::Success));
    for wrong in [rec, comp] {
        for version in VERSIONS {
            let mut rig = windowed(version, 10);
            rig.deliver(vec![durable(1)]);
            rig.said();
            rig.say(&wrong);
            let code = version.is_v5().then_some(Reason::ProtocolError);
            assert_eq!(rig.ended(), (CloseReason::ProtocolError, code));
        }
    }
}

#[test]
fn nothing_is_delivered_before_or_after_the_session() {
    let mut rig = Rig::new(Config::default(), Version::V311);
    rig.deliver(vec![live(QoS::AtMostOnce, b"early")]);
    assert!(rig.said().is_empty());
    let mut rig = Rig::open(Version::V311);
    rig.connection.peer_gone(rig.now);
    rig.deliver(vec![live(QoS::AtMostOnce, b"late")]);
    assert!(rig.said().is_empty());
}

#[test]
fn deliveries_carry_what_their_subscriptions_want() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        let ids = [7, 5].into_iter().filter_map(NonZeroU32::new).collect();
        rig.deliver(vec![Delivery { retain: true, ids, ..durable(1) }, durable(2)]);
        let said = rig.said();
        let flags: Vec<_> = said
            .iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => (publish.retain, publish.subscription_ids.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        let sent = if version.is_v5() { vec![5, 7] } else { vec![] };
        assert_eq!(flags, [(true, sent), (false, vec![])]);
    }
}

/// An item that a shared subscription lent.
fn shared(number: u32, offset: u64) -> Delivery {
    Delivery { share: Some(ShareNumber(number)), ..durable(offset) }
}

#[test]
fn what_a_shared_subscription_lent_is_settled_with_it_under_an_id_of_its_own() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        // Both queues have an item of each of these offsets.
        rig.deliver(vec![durable(1), shared(3, 1), shared(4, 1), durable(2), shared(3, 2)]);
        let sent = ids(&rig.said());
        let all: BTreeSet<u16> = sent.iter().copied().collect();
        assert_eq!((sent.len(), all.len()), (5, 5), "{sent:?}");
        assert_eq!((sent[0], sent[3]), (2, 3), "its own queue keeps its ids");
        for at in [1, 2, 3] {
            rig.say(&puback(sent[at]));
        }
        let (own, lent) = (vec![Offset(2)], [(3, 1), (4, 1)]);
        let lent = lent.map(|(number, offset)| (ShareNumber(number), Offset(offset))).to_vec();
        assert_eq!(rig.events(), [Event::Settled(own), Event::SettledShared(lent)]);
    }
}

#[test]
fn shared_deliveries_are_bounded_by_what_was_configured() {
    let lent = || (1..=250).flat_map(|number| (1..=32).map(move |offset| shared(number, offset)));
    let config = Config { shared_max: 250 * 32, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    rig.deliver(lent().collect());
    let said = rig.said();
    assert_eq!(said.len(), 32, "the window");
    rig.say(&puback(ids(&said)[0]));
    assert_eq!(rig.events(), [Event::SettledShared(vec![(ShareNumber(1), Offset(1))])]);
    rig.deliver(vec![shared(1, 33)]);
    assert!(!rig.connection.is_closed(), "its place was free again");
    rig.deliver(vec![shared(1, 34)]);
    assert_eq!(rig.ended().0, CloseReason::Overrun);
}

#[test]
fn ids_of_shared_deliveries_pass_over_those_in_flight() {
    let mut rig = windowed(Version::V5, 3);
    // The first shared delivery would take the id that this one of its own queue has.
    let far = 1 + 65_535 / 2;
    rig.deliver(vec![durable(far), shared(1, 1), shared(1, 2), shared(1, 3)]);
    let sent = ids(&rig.said());
    let own = packet_id_of(Offset(far)).get();
    assert_eq!(sent, [own, own + 1, own + 2], "and the window holds for all");
    rig.say(&puback(own + 1));
    assert_eq!(rig.said().len(), 1);
}

#[test]
fn shared_deliveries_that_are_not_acknowledged_are_settled_as_they_leave_or_are_dropped() {
    let mut rig = Rig::open(Version::V5);
    let expired = Message { expires_at: Some(UnixMillis(1)), ..message(b"late") };
    rig.deliver(vec![
        Delivery { qos: QoS::AtMostOnce, ..shared(1, 1) },
        Delivery { message: Arc::new(expired), ..shared(1, 2) },
        Delivery { offset: None, qos: QoS::AtMostOnce, ..shared(1, 0) },
    ]);
    assert_eq!(rig.said().len(), 2);
    let settled = [1, 2].map(|offset| (ShareNumber(1), Offset(offset))).to_vec();
    let Some(Event::SettledShared(mut items)) = rig.connection.poll_event() else { panic!() };
    items.sort_unstable();
    assert_eq!(items, settled);
}

#[test]
fn the_first_topics_get_aliases_if_the_client_takes_them() {
    let on = |topic: &str| {
        let message = Message { topic: Text::from(topic), ..message(b"x") };
        Delivery::new(None, QoS::AtMostOnce, Arc::new(message))
    };
    let sent = |rig: &mut Rig| -> Vec<(String, Option<u16>)> {
        let said = rig.said();
        said.iter()
            .map(|packet| match packet {
                Packet::Publish(sent) => (sent.topic.to_string(), sent.alias.map(NonZeroU16::get)),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let topics = ["site/1", "site/2", "site/1", "site/3", "a", "site/2", "site/3"];
    let plain: Vec<(String, Option<u16>)> =
        topics.iter().map(|topic| ((*topic).to_owned(), None)).collect();
    for (version, takes, offered, aliased) in [
        (Version::V5, Some(2), 10, true),
        (Version::V5, Some(10), 2, true),
        (Version::V5, None, 10, false),
        (Version::V5, Some(10), 0, false),
        (Version::V311, None, 10, false),
    ] {
        let mut asked = connect(version);
        asked.properties.alias_max = takes;
        let config = Config { topic_alias_max: offered, ..Config::default() };
        let mut rig = Rig::open_with(config, asked);
        rig.deliver(topics.iter().map(|topic| on(topic)).collect());
        let sent = sent(&mut rig);
        if !aliased {
            assert_eq!(sent, plain, "{version:?} {takes:?} {offered}");
            continue;
        }
        let expected = [
            ("site/1", Some(1)),
            ("site/2", Some(2)),
            ("", Some(1)),
            ("site/3", None), // there is no third
            ("a", None),      // an alias would be longer
            ("", Some(2)),
            ("site/3", None),
        ];
        assert_eq!(sent, expected.map(|(topic, alias)| (topic.to_owned(), alias)));
    }
}

#[test]
fn a_new_alias_is_no_reason_to_drop_a_delivery() {
    let delivery = || live(QoS::AtMostOnce, &[0; 20]);
    let mut asked = connect(Version::V5);
    asked.properties.alias_max = Some(5);
    let mut rig = Rig::open_with(Config::default(), asked.clone());
    let topic = Text::from("long/topic");
    let with = |delivery: Delivery| {
        let message = Message { topic: topic.clone(), ..(*delivery.message).clone() };
        Delivery { message: Arc::new(message), ..delivery }
    };
    rig.deliver(vec![with(delivery())]);
    rig.transmit();
    let len = rig.output.len();
    // Three bytes less than the packet with its alias.
    asked.properties.packet_max = NonZeroU32::new(u32::try_from(len - 3).unwrap());
    let mut rig = Rig::open_with(Config::default(), asked);
    rig.deliver(vec![with(delivery())]);
    rig.transmit();
    assert_eq!(rig.output.len(), len - 3);
    assert_eq!(rig.connection.take_counters().dropped_too_large, 0);
}
