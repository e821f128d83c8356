//! Statements of the standard about sessions that no other test is about: docs/mqtt-conformance.md names them.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Delivery, Message, Offset, QoS, Text,
    port::{Notice, Refusal},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{Connect, ConnectProperties, Publish, Will, encode},
    server::{CloseReason, Config, Event},
};

use crate::support::{
    Rig, VERSIONS, connect, disconnect, durable, ids, live, message, puback, publish, publish1,
    subscribe, unsubscribe,
};

fn publishes(rig: &mut Rig) -> Vec<Publish> {
    let of = |packet| if let Packet::Publish(publish) = packet { Some(publish) } else { None };
    rig.said().into_iter().filter_map(of).collect()
}

fn asked(properties: ConnectProperties) -> Connect {
    Connect { properties, ..connect(Version::V5) }
}

#[test]
fn nothing_behind_a_refused_connect_is_looked_at() {
    let will = Will {
        topic: Text::from("w"),
        qos: QoS::AtMostOnce,
        retain: false,
        delay_s: None,
        expiry_s: None,
        properties: Bytes::new(),
        payload: Bytes::new(),
    };
    let mut config = Config::default();
    config.capabilities.wills = false;
    for version in VERSIONS {
        let mut rig = Rig::new(config.clone(), version);
        let refused = Connect { will: Some(will.clone()), ..connect(version) };
        let mut bytes = BytesMut::new();
        for packet in [Packet::Connect(Box::new(refused)), publish1(1), Packet::PingReq] {
            encode(&packet, version, &mut bytes).unwrap();
        }
        rig.bytes(&bytes);
        assert!(matches!(&rig.said()[..], [Packet::ConnAck(_)]), "one answer, to the CONNECT");
        assert!(matches!(&rig.events()[..], [Event::Closed(_)]));
        assert!(!rig.connection.wants_read());
    }
}

#[test]
fn the_connack_comes_first_and_once() {
    for version in VERSIONS {
        let mut rig = Rig::new(Config::default(), version);
        rig.say(&Packet::Connect(Box::new(connect(version))));
        rig.request();
        rig.say(&Packet::PingReq);
        rig.deliver(vec![live(QoS::AtMostOnce, b"early")]);
        assert!(rig.said().is_empty());
        rig.opened(false);
        rig.opened(false);
        rig.deliver(vec![live(QoS::AtMostOnce, b"x")]);
        let said = rig.said();
        assert!(
            matches!(&said[..], [Packet::ConnAck(_), Packet::PingResp, Packet::Publish(_)]),
            "{said:?}"
        );
    }
}

#[test]
fn what_would_make_an_answer_too_large_is_left_out_of_it() {
    // Wide enough for each answer without its reason string, and not with it.
    let packet_max = NonZeroU32::new(21);
    let small = ConnectProperties { packet_max, ..ConnectProperties::default() };
    let config = Config { topic_alias_max: 0, ..Config::default() };
    let mut rig = Rig::new(config.clone(), Version::V5);
    rig.say(&Packet::Connect(Box::new(asked(small.clone()))));
    rig.request();
    rig.notice(Notice::Opened(Err(Refusal::Unavailable)));
    let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
    assert_eq!(
        (connack.reason, connack.properties.reason_string),
        (Reason::ServerUnavailable, None)
    );

    let mut rig = Rig::open_with(config, asked(small));
    rig.bytes(b"\xc1\x00");
    let Some(Packet::Disconnect(goodbye)) = rig.said().pop() else { panic!() };
    assert_eq!((goodbye.reason, &goodbye.reason_string), (Reason::MalformedPacket, &None));
    assert_eq!(goodbye.session_expiry_s, None, "only clients say it");
}

#[test]
fn a_goodbye_of_the_server_names_no_session_expiry() {
    let notices = [Notice::TakenOver, Notice::Lost, Notice::Stopping { instead: None }];
    for notice in notices {
        let session_expiry_s = Some(60);
        let properties = ConnectProperties { session_expiry_s, ..ConnectProperties::default() };
        let mut rig = Rig::open_with(Config::default(), asked(properties));
        rig.notice(notice);
        let Some(Packet::Disconnect(goodbye)) = rig.said().pop() else { panic!() };
        assert_eq!(goodbye.session_expiry_s, None);
    }
}

#[test]
fn what_was_not_asked_for_is_not_said() {
    for request_response in [None, Some(false), Some(true)] {
        let properties = ConnectProperties { request_response, ..ConnectProperties::default() };
        let mut rig = Rig::new(Config::default(), Version::V5);
        rig.say(&Packet::Connect(Box::new(asked(properties))));
        rig.request();
        rig.opened(false);
        let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
        let told = connack.properties;
        assert_eq!(
            (told.response_information, told.auth_method, told.auth_data),
            (None, None, None)
        );
    }
    let request_problem = Some(false);
    let properties = ConnectProperties { request_problem, ..ConnectProperties::default() };
    let mut rig = Rig::open_with(Config::default(), asked(properties));
    rig.say(&Packet::Subscribe(subscribe(1, &[("a#", QoS::AtMostOnce)])));
    rig.say(&unsubscribe(2, &["a#"]));
    for packet in rig.said() {
        match packet {
            Packet::SubAck(ack) => assert_eq!(ack.properties, None),
            Packet::UnsubAck(ack) => assert_eq!(ack.properties, None),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_copy_has_no_alias_no_retain_flag_and_dup_only_if_it_was_sent_before() {
    for alias_max in [None, Some(0), Some(10)] {
        let properties = ConnectProperties { alias_max, ..ConnectProperties::default() };
        let mut rig = Rig::open_with(Config::default(), asked(properties));
        let retained = Arc::new(Message { retain: true, ..message(b"x") });
        let copy = |of: Delivery, resent| {
            let message = Arc::clone(&retained);
            Delivery { resent, message, ..of }
        };
        rig.deliver(vec![
            copy(durable(1), true),
            copy(durable(2), false),
            copy(live(QoS::AtMostOnce, b""), true),
        ]);
        let said = publishes(&mut rig);
        assert_eq!(said.iter().map(|p| p.dup).collect::<Vec<_>>(), [true, false, false]);
        assert!(said.iter().all(|p| p.alias.is_none() && !p.retain && !p.topic.is_empty()));
        assert_eq!(said[2].id, None);
    }
}

#[test]
fn the_dup_flag_of_a_publisher_goes_no_further() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::Publish(Publish { dup: true, ..publish("t", QoS::AtLeastOnce, 1) }));
    let (_, message) = rig.publish();
    let copy = Delivery { message: Arc::new(message), ..live(QoS::AtLeastOnce, b"") };
    rig.deliver(vec![copy]);
    assert!(!publishes(&mut rig)[0].dup);
}

#[test]
fn all_properties_of_a_message_arrive_as_they_were_sent_and_in_their_order() {
    let properties: &[u8] = b"\x26\x00\x01b\x00\x011\x03\x00\x03a/b\x26\x00\x01a\x00\x012\x01\x01\
        \x08\x00\x02r/\x09\x00\x03\x00\xff\x01\x26\x00\x01b\x00\x011\x26\x00\x00\x00\x00";
    let sent = Publish {
        properties: Bytes::from_static(properties),
        subscription_ids: vec![3],
        expiry_s: Some(9),
        ..publish("t", QoS::AtLeastOnce, 1)
    };
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::Publish(sent.clone()));
    let (_, message) = rig.publish();
    rig.deliver(vec![Delivery { message: Arc::new(message), ..durable(1) }]);
    let arrived = publishes(&mut rig).pop().unwrap();
    assert_eq!(arrived.properties, sent.properties);
    assert_eq!((arrived.topic, arrived.payload), (sent.topic, sent.payload));
    assert_eq!((arrived.expiry_s, arrived.subscription_ids), (Some(9), Vec::new()));
}

#[test]
fn what_was_begun_before_an_unsubscribe_is_completed() {
    for version in VERSIONS {
        let asked = Connect { clean_start: false, ..connect(version) };
        let config = Config { keep_alive_max_s: 0, ..Config::default() };
        let mut rig = Rig::open_with(config, asked);
        rig.deliver(vec![durable(1), durable(2)]);
        assert_eq!(ids(&rig.said()), [2, 3]);
        rig.say(&unsubscribe(7, &["t"]));
        let Some(Event::Unsubscribe { token, .. }) = rig.connection.poll_event() else { panic!() };
        rig.notice(Notice::Unsubscribed { token, existed: Ok(vec![true]) });
        assert!(matches!(&rig.said()[..], [Packet::UnsubAck(_)]));
        rig.say(&puback(3));
        rig.say(&puback(2));
        assert_eq!(rig.events(), [Event::Settled(vec![Offset(2), Offset(1)])]);
    }
}

#[test]
fn nothing_is_sent_again_while_a_connection_lasts() {
    for version in VERSIONS {
        let asked = Connect { keep_alive_s: 0, clean_start: false, ..connect(version) };
        let mut rig = Rig::open_with(Config::default(), asked);
        rig.deliver(vec![durable(1), live(QoS::AtLeastOnce, b"x")]);
        assert_eq!(rig.said().len(), 2);
        for _ in 0..100 {
            rig.wait(60_000);
            assert!(rig.said().is_empty(), "not by time");
        }
        assert!(!rig.connection.is_closed());
    }
}

#[test]
fn without_a_server_keep_alive_the_clients_own_counts() {
    let mut rig = Rig::new(Config::default(), Version::V5);
    rig.say(&Packet::Connect(Box::new(Connect { keep_alive_s: 7, ..connect(Version::V5) })));
    assert_eq!(rig.request().keep_alive_s, 7);
    rig.opened(false);
    let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
    assert_eq!(connack.properties.server_keep_alive_s, None);
    rig.wait(10_500);
    assert_eq!(rig.closed().reason, CloseReason::KeepAliveTimeout);
}

#[test]
fn every_topic_alias_up_to_the_maximum_is_taken() {
    let config = Config { topic_alias_max: 300, ..Config::default() };
    let mut rig = Rig::new(config, Version::V5);
    rig.say(&Packet::Connect(Box::new(connect(Version::V5))));
    rig.request();
    rig.opened(false);
    let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
    assert_eq!(connack.properties.alias_max, Some(300));
    for alias in 1..=300 {
        let alias = NonZeroU16::new(alias);
        rig.say(&Packet::Publish(Publish { alias, ..publish("t", QoS::AtMostOnce, 0) }));
        rig.publish();
        rig.say(&Packet::Publish(Publish { alias, ..publish("", QoS::AtMostOnce, 0) }));
        assert_eq!(rig.publish().1.topic, Text::from("t"));
    }
}

#[test]
fn after_a_goodbye_nothing_follows_from_either_side() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.deliver(vec![live(QoS::AtMostOnce, b"x")]);
        rig.say(&disconnect(Reason::Success, None));
        rig.say(&publish1(1));
        rig.deliver(vec![live(QoS::AtMostOnce, b"y")]);
        assert!(rig.said().is_empty());
        assert!(matches!(&rig.events()[..], [Event::Closed(_)]));
    }
}
