//! QoS 2 on one connection: four packets each way, in order, whatever is repeated, refused or left by an earlier one.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use moorline_core::{
    Delivery, Message, Offset, QoS, UnixMillis,
    port::{Notice, Published, Refusal, Token},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{Ack, Publish},
    server::{CloseReason, Config, Event, packet_id_of},
};

use crate::support::{
    Rig, START, VERSIONS, connect, deliveries, durable, id, ids, live, puback, publish, publish1,
};

fn publish2(packet_id: u16) -> Packet {
    Packet::Publish(publish("t", QoS::ExactlyOnce, packet_id))
}

fn again(packet_id: u16) -> Packet {
    Packet::Publish(Publish { dup: true, ..publish("t", QoS::ExactlyOnce, packet_id) })
}

fn ack(packet_id: u16) -> Ack {
    Ack::new(id(packet_id), Reason::Success)
}

fn pubrec(packet_id: u16) -> Packet {
    Packet::PubRec(ack(packet_id))
}

fn pubrel(packet_id: u16) -> Packet {
    Packet::PubRel(ack(packet_id))
}

fn pubcomp(packet_id: u16) -> Packet {
    Packet::PubComp(ack(packet_id))
}

/// The token of the QoS 2 publish that was handed out next, under this packet id.
fn once(rig: &mut Rig, packet_id: u16) -> Token {
    match rig.connection.poll_event() {
        Some(Event::PublishOnce { token, packet, message }) => {
            assert_eq!((packet, message.qos), (id(packet_id), QoS::ExactlyOnce));
            token
        }
        other => panic!("no QoS 2 publish but {other:?}"),
    }
}

fn refused(rig: &mut Rig, token: Token, refusal: Refusal) {
    rig.notice(Notice::Published { token, outcome: Err(refusal) });
}

fn completed(rig: &mut Rig, packet: u16, known: bool) {
    rig.notice(Notice::Completed { packet, known });
}

/// The first three packets of a publish.
fn receive(rig: &mut Rig, packet_id: u16) {
    rig.say(&publish2(packet_id));
    let token = once(rig, packet_id);
    rig.published(token);
    assert_eq!(rig.said(), [pubrec(packet_id)]);
}

/// An open session that goes on from an earlier connection.
fn resumed(version: Version) -> Rig {
    let mut rig = Rig::new(Config::default(), version);
    rig.say(&Packet::Connect(Box::new(connect(version))));
    rig.request();
    rig.opened(true);
    let said = rig.said();
    let [Packet::ConnAck(connack)] = &said[..] else { panic!("{said:?}") };
    // MQTT 3.1 has no word for it.
    assert_eq!(connack.session_present, version != Version::V31);
    rig
}

fn with_window(window: u16) -> Rig {
    let mut asked = connect(Version::V5);
    asked.properties.receive_max = NonZeroU16::new(window);
    Rig::open_with(Config::default(), asked)
}

fn durable2(offset: u64) -> Delivery {
    Delivery { qos: QoS::ExactlyOnce, ..durable(offset) }
}

fn released(offset: u64) -> Delivery {
    Delivery {
        released: true,
        resent: true,
        message: Arc::new(Message::empty()),
        ..durable2(offset)
    }
}

// ---- what a client publishes

#[test]
fn a_publish_goes_through_its_four_packets_when_the_service_says_so() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        assert!(rig.said().is_empty(), "not stored yet");
        rig.published(token);
        assert_eq!(rig.said(), [pubrec(7)]);
        rig.say(&pubrel(7));
        assert_eq!(rig.events(), [Event::Complete(id(7))]);
        assert!(rig.said().is_empty(), "the packet id is not free yet");
        completed(&mut rig, 7, true);
        assert_eq!(rig.said(), [pubcomp(7)]);
        completed(&mut rig, 7, true);
        assert!(rig.said().is_empty(), "answered once");
        // The packet id stands for another message now, also where the client says that it sent it before.
        rig.say(&again(7));
        once(&mut rig, 7);
    }
}

#[test]
fn a_publish_that_nobody_wants_is_received_all_the_same() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        rig.notice(Notice::Published { token, outcome: Ok(Published { matched: false }) });
        // A repeat could not be told that nobody wants it.
        let reason = Reason::Success;
        assert_eq!(rig.said(), [Packet::PubRec(Ack::new(id(7), reason))]);
        rig.say(&pubrel(7));
        assert_eq!(rig.events(), [Event::Complete(id(7))]);
    }
}

#[test]
fn answers_of_both_qos_leave_in_the_order_of_the_publishes() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&publish2(5));
    rig.say(&publish1(3));
    rig.say(&publish2(9));
    let five = once(&mut rig, 5);
    let (three, _) = rig.publish();
    let nine = once(&mut rig, 9);
    rig.published(nine);
    rig.published(three);
    assert!(rig.said().is_empty(), "the first is not answered");
    rig.published(five);
    assert_eq!(rig.said(), [pubrec(5), puback(3), pubrec(9)]);
}

#[test]
fn a_publish_sent_again_before_its_release_is_answered_and_not_handed_out() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        rig.say(&again(7));
        rig.say(&publish2(7));
        assert!(rig.events().is_empty() && rig.said().is_empty());
        rig.published(token);
        assert_eq!(rig.said(), [pubrec(7)], "one answer for all copies");
        rig.say(&again(7));
        assert_eq!(rig.said(), [pubrec(7)]);
        assert!(rig.events().is_empty());
        assert_eq!(rig.connection.take_counters().publishes_repeated, 3);
    }
}

#[test]
fn an_answer_to_a_repeat_waits_its_turn_and_frees_nothing() {
    let mut rig = Rig::open(Version::V311);
    receive(&mut rig, 7);
    rig.say(&publish1(8));
    let (token, _) = rig.publish();
    rig.say(&again(7));
    rig.say(&pubrel(7));
    assert_eq!(rig.events(), [Event::Complete(id(7))]);
    completed(&mut rig, 7, true);
    rig.say(&publish2(7));
    let next = once(&mut rig, 7);
    rig.published(token);
    assert_eq!(rig.said(), [pubcomp(7), puback(8), pubrec(7)]);
    rig.say(&again(7));
    assert!(rig.said().is_empty(), "the new one is not stored");
    rig.published(next);
    assert_eq!(rig.said(), [pubrec(7)]);
}

#[test]
fn repeats_behind_an_unanswered_publish_take_one_place() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        receive(&mut rig, 7);
        rig.say(&publish1(8));
        let (token, _) = rig.publish();
        let before = rig.connection.unanswered();
        for _ in 0..10_000 {
            rig.say(&again(7));
        }
        assert_eq!(rig.connection.unanswered(), before + 1);
        rig.published(token);
        assert_eq!(rig.said(), [puback(8), pubrec(7)]);
        rig.say(&again(7));
        assert_eq!(rig.said(), [pubrec(7)]);
        assert_eq!(rig.connection.take_counters().publishes_repeated, 10_001);
    }
}

#[test]
fn a_refusal_frees_the_packet_id() {
    for refusal in [Refusal::Quota, Refusal::Busy, Refusal::DiskFull] {
        let mut rig = Rig::open(Version::V5);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        refused(&mut rig, token, refusal);
        let said = rig.said();
        let [Packet::PubRec(ack)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((ack.id, ack.reason), (id(7), Reason::QuotaExceeded));
        rig.say(&publish2(7));
        once(&mut rig, 7);
    }
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::Publish(publish(&"/".repeat(99), QoS::ExactlyOnce, 7)));
    assert_eq!(rig.said(), [Packet::PubRec(Ack::new(id(7), Reason::TopicNameInvalid))]);
    rig.say(&publish2(7));
    once(&mut rig, 7);
}

#[test]
fn a_reason_string_explains_a_refusal_if_it_fits() {
    for (packet_max, explained) in [(0, true), (34, false)] {
        let mut asked = connect(Version::V5);
        asked.properties.packet_max = NonZeroU32::new(packet_max);
        let mut rig = Rig::open_with(Config::default(), asked);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        refused(&mut rig, token, Refusal::DiskFull);
        let said = rig.said();
        let [Packet::PubRec(ack)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(ack.properties.is_some(), explained, "{packet_max}");
    }
}

#[test]
fn before_mqtt_5_and_where_nobody_knows_a_refusal_ends_the_connection() {
    for (version, refusal) in [
        (Version::V311, Refusal::Busy),
        (Version::V31, Refusal::Unavailable),
        (Version::V5, Refusal::Unavailable),
    ] {
        let mut rig = Rig::open(version);
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        refused(&mut rig, token, refusal);
        let code = version.is_v5().then_some(Reason::ServerBusy);
        assert_eq!(rig.ended(), (CloseReason::PublishRefused, code));
    }
    // All queues are full: docs/decisions/009.
    let mut rig = Rig::open(Version::V311);
    rig.say(&publish2(7));
    let token = once(&mut rig, 7);
    refused(&mut rig, token, Refusal::Quota);
    assert_eq!(rig.said(), [pubrec(7)]);
}

#[test]
fn a_release_of_what_an_earlier_connection_received_is_for_the_service() {
    for version in VERSIONS {
        let mut rig = resumed(version);
        rig.say(&pubrel(7));
        rig.say(&pubrel(8));
        rig.say(&pubrel(7));
        assert_eq!(rig.events(), [Event::Complete(id(7)), Event::Complete(id(8))]);
        assert!(rig.said().is_empty());
        completed(&mut rig, 7, true);
        completed(&mut rig, 8, false);
        assert_eq!(rig.said(), [pubcomp(7), pubcomp(8)]);
        assert_eq!(rig.connection.take_counters().unknown_acks, 1);
        rig.say(&again(7));
        once(&mut rig, 7);
    }
}

#[test]
fn packets_out_of_turn_break_the_protocol() {
    let unanswered: fn(&mut Rig) = |rig| {
        rig.say(&publish2(7));
        rig.say(&pubrel(7));
    };
    let releasing: fn(&mut Rig) = |rig| {
        receive(rig, 7);
        rig.say(&pubrel(7));
        rig.say(&again(7));
    };
    for breaks in [unanswered, releasing] {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            breaks(&mut rig);
            let code = version.is_v5().then_some(Reason::ProtocolError);
            assert_eq!(rig.ended(), (CloseReason::ProtocolError, code));
        }
    }
}

#[test]
fn the_receive_maximum_counts_a_publish_until_its_pubcomp() {
    let config = Config { receive_max: NonZeroU16::new(2).unwrap(), ..Config::default() };
    let mut rig = Rig::open_with(config.clone(), connect(Version::V5));
    receive(&mut rig, 1);
    receive(&mut rig, 2);
    rig.say(&pubrel(1));
    completed(&mut rig, 1, true);
    rig.events();
    assert_eq!(rig.said(), [pubcomp(1)]);
    rig.say(&publish1(3));
    rig.publish();
    rig.say(&publish2(4));
    let code = Some(Reason::ReceiveMaximumExceeded);
    assert_eq!(rig.ended(), (CloseReason::ReceiveMaximumExceeded, code));

    // Older clients know no maximum, and their PUBRELs have to be read.
    let mut rig = Rig::open_with(config, connect(Version::V311));
    for packet_id in 1..=5 {
        receive(&mut rig, packet_id);
    }
    for packet_id in 1..=5 {
        rig.say(&pubrel(packet_id));
    }
    let asked = [Event::Complete(id(1)), Event::Complete(id(2))];
    assert_eq!(rig.events(), asked, "no more than that at once");
    assert!(!rig.connection.wants_read());
    completed(&mut rig, 1, true);
    assert_eq!(rig.events(), [Event::Complete(id(3))]);
}

#[test]
fn a_refused_publish_does_not_count_any_more() {
    let config = Config { receive_max: NonZeroU16::MIN, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    for _ in 0..3 {
        rig.say(&publish2(7));
        let token = once(&mut rig, 7);
        refused(&mut rig, token, Refusal::Quota);
        assert!(matches!(&rig.said()[..], [Packet::PubRec(_)]));
    }
}

// ---- what a client is sent

#[test]
fn a_delivery_goes_through_its_four_packets_when_the_service_says_so() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.deliver(vec![durable2(6)]);
        let packet_id = packet_id_of(Offset(6)).get();
        let said = rig.said();
        assert_eq!(deliveries(&said)[0].0, QoS::ExactlyOnce);
        assert_eq!(ids(&said), [packet_id]);
        rig.say(&pubrec(packet_id));
        assert_eq!(rig.events(), [Event::Release(vec![Offset(6)])]);
        assert!(rig.said().is_empty(), "it could still go out again");
        rig.say(&pubrec(packet_id));
        assert!(rig.said().is_empty() && rig.events().is_empty());
        rig.notice(Notice::Released(vec![Offset(6)]));
        assert_eq!(rig.said(), [pubrel(packet_id)]);
        rig.notice(Notice::Released(vec![Offset(6), Offset(99)]));
        assert!(rig.said().is_empty(), "said once");
        rig.say(&pubrec(packet_id));
        assert_eq!(rig.said(), [pubrel(packet_id)], "unless it is asked for again");
        assert!(rig.events().is_empty(), "not settled yet");
        rig.say(&pubcomp(packet_id));
        assert_eq!(rig.events(), [Event::Settled(vec![Offset(6)])]);
        assert_eq!(rig.connection.take_counters().deliveries_acked, 1);
    }
}

#[test]
fn a_delivery_that_is_stored_nowhere_goes_through_them_here() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.deliver(vec![live(QoS::ExactlyOnce, b"a")]);
        assert_eq!(ids(&rig.said()), [1]);
        rig.say(&pubrec(1));
        assert_eq!(rig.said(), [pubrel(1)]);
        rig.say(&pubcomp(1));
        assert!(rig.events().is_empty() && rig.said().is_empty());
        assert_eq!(rig.connection.take_counters().deliveries_acked, 1);
    }
}

#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut rig = Rig::open(Version::V5);
    rig.deliver((1..=3).map(durable2).collect());
    assert_eq!(ids(&rig.said()), [2, 3, 4]);
    rig.say(&pubrec(3));
    rig.say(&pubrec(2));
    rig.say(&pubrec(4));
    assert_eq!(rig.events(), [Event::Release(vec![Offset(2), Offset(1), Offset(3)])]);
    rig.notice(Notice::Released(vec![Offset(2), Offset(1), Offset(3)]));
    assert_eq!(rig.said(), [pubrel(3), pubrel(2), pubrel(4)]);
}

#[test]
fn a_client_may_refuse_a_delivery() {
    let mut rig = Rig::open(Version::V5);
    rig.deliver(vec![durable2(1)]);
    rig.said();
    rig.say(&Packet::PubRec(Ack::new(id(2), Reason::UnspecifiedError)));
    assert_eq!(rig.events(), [Event::Settled(vec![Offset(1)])]);
    assert!(rig.said().is_empty(), "no PUBREL");
}

#[test]
fn of_what_arrived_before_only_the_pubrel_is_sent() {
    let mut rig = with_window(3);
    rig.deliver(vec![released(1), durable2(2), released(3), durable2(4)]);
    let said = rig.said();
    assert_eq!((said[0].clone(), said[2].clone(), said.len()), (pubrel(2), pubrel(4), 3));
    assert_eq!(ids(&said), [3], "and each holds its slot");
    rig.say(&pubcomp(2));
    assert_eq!(rig.events(), [Event::Settled(vec![Offset(1)])]);
    assert_eq!(ids(&rig.said()), [5]);
}

/// What a client repeats of an earlier connection before the service has pushed what it is about.
#[test]
fn a_pubrec_is_not_answered_while_its_publish_is_still_to_come_again() {
    for version in VERSIONS {
        let mut rig = resumed(version);
        rig.say(&pubrec(5));
        assert!(rig.said().is_empty(), "its PUBLISH may go out again");
        rig.deliver(vec![durable2(3), Delivery { resent: true, ..durable2(4) }]);
        assert_eq!(ids(&rig.said()), [4, 5]);
        rig.say(&pubrec(5));
        assert!(rig.said().is_empty());
        assert_eq!(rig.events(), [Event::Release(vec![Offset(4)])]);
        rig.notice(Notice::Released(vec![Offset(4)]));
        assert_eq!(rig.said(), [pubrel(5)]);
        rig.say(&pubcomp(5));
        assert_eq!(rig.events(), [Event::Settled(vec![Offset(4)])]);

        // It is over, as is what was settled before; and what was queued later was never sent.
        for packet_id in [5, 2, 10, 65_535] {
            rig.say(&pubrec(packet_id));
            assert_eq!(rig.said(), [pubrel(packet_id)], "{packet_id}");
        }
        assert_eq!(rig.connection.take_counters().unknown_acks, 5);
    }
}

#[test]
fn nor_is_one_whose_publish_waits_for_a_slot_or_was_released() {
    let mut asked = connect(Version::V5);
    asked.properties.receive_max = NonZeroU16::new(1);
    let mut rig = Rig::new(Config::default(), Version::V5);
    rig.say(&Packet::Connect(Box::new(asked)));
    rig.request();
    rig.opened(true);
    rig.said();
    rig.deliver(vec![durable(1), released(2)]);
    assert_eq!(ids(&rig.said()), [2]);
    rig.say(&pubrec(3));
    assert!(rig.said().is_empty());
    rig.say(&puback(2));
    assert_eq!(rig.said(), [pubrel(3)]);
}

#[test]
fn a_slot_is_held_until_the_pubcomp() {
    let mut rig = with_window(1);
    rig.deliver(vec![durable2(1), durable(2)]);
    assert_eq!(ids(&rig.said()), [2]);
    rig.say(&pubrec(2));
    rig.notice(Notice::Released(vec![Offset(1)]));
    assert_eq!(rig.said(), [pubrel(2)]);
    rig.say(&pubcomp(2));
    assert_eq!(ids(&rig.said()), [3]);
}

#[test]
fn acknowledgements_of_the_other_qos_break_the_protocol() {
    let sent: fn(&mut Rig) = |_| {};
    let received: fn(&mut Rig) = |rig| rig.say(&pubrec(2));
    #[rustfmt::skip]
    let table = [
        (durable(1),  sent,     pubrec(2)),
        (durable(1),  sent,     pubcomp(2)),
        (durable2(1), sent,     puback(2)),
        (durable2(1), sent,     pubcomp(2)),
        (durable2(1), received, puback(2)),
        (durable2(1), received, pubcomp(2)),
        (released(1), sent,     puback(2)),
    ];
    for (delivery, before, packet) in table {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            rig.deliver(vec![delivery.clone()]);
            rig.said();
            before(&mut rig);
            rig.say(&packet);
            let code = version.is_v5().then_some(Reason::ProtocolError);
            assert_eq!(rig.ended(), (CloseReason::ProtocolError, code), "{delivery:?} {packet:?}");
        }
    }
}

#[test]
fn what_was_sent_once_is_sent_again_also_when_it_has_expired() {
    let expired = |resent| {
        let mut message = Message::clone(&durable2(1).message);
        message.expires_at = Some(UnixMillis(START.wall.0 - 1));
        Delivery { resent, message: Arc::new(message), ..durable2(1) }
    };
    let mut rig = Rig::open(Version::V5);
    rig.deliver(vec![expired(false)]);
    assert!(rig.said().is_empty());
    assert_eq!(rig.events(), [Event::Settled(vec![Offset(1)])]);

    let mut rig = Rig::open(Version::V5);
    rig.deliver(vec![expired(true)]);
    let said = rig.said();
    let [Packet::Publish(sent)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((sent.dup, sent.expiry_s), (true, Some(0)));
}
