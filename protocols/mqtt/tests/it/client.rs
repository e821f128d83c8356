//! The client helper against the server machine.

use std::num::NonZeroU16;

use bytes::BytesMut;
use moorline_core::{
    QoS, Text,
    port::{Notice, Refusal},
};
use moorline_mqtt::{
    Millis, Packet, Reason, Version,
    client::{Client, ClientError, Event, Options},
    codec::{Ack, ConnAck, Outgoing, encode},
    server,
};

use crate::support::{Rig, START, VERSIONS, id, live, puback, publish, refusal};

fn options(version: Version) -> Options {
    Options { version, client_id: Text::from("c"), ..Options::default() }
}

fn client(version: Version) -> Client {
    Client::new(options(version), START.at).unwrap()
}

fn say(client: &mut Client, packet: &Packet, version: Version) -> Result<(), ClientError> {
    let mut bytes = BytesMut::new();
    encode(packet, version, &mut bytes).unwrap();
    client.receive(START.at, &mut bytes)
}

fn connected(options: Options) -> Client {
    let version = options.version;
    let mut client = Client::new(options, START.at).unwrap();
    let connack: ConnAck = refusal(Reason::Success);
    say(&mut client, &Packet::ConnAck(Box::new(connack)), version).unwrap();
    assert!(matches!(client.poll_event(), Some(Event::Connected(_))));
    client.output().clear();
    client
}

/// Carries bytes both ways until nothing moves.
fn exchange(client: &mut Client, rig: &mut Rig) {
    loop {
        rig.input.unsplit(client.output().split());
        rig.connection.receive(rig.now, &mut rig.input);
        rig.transmit();
        if rig.output.is_empty() {
            return;
        }
        client.receive(rig.now.at, &mut rig.output).unwrap();
    }
}

#[test]
fn client_and_server_understand_each_other() {
    for version in VERSIONS {
        let mut client = client(version);
        let mut rig = Rig::new(server::Config::default(), version);
        exchange(&mut client, &mut rig);
        rig.request();
        rig.opened(false);
        exchange(&mut client, &mut rig);
        assert!(matches!(client.poll_event(), Some(Event::Connected(_))));

        let subscribed = client.subscribe(&[("t", QoS::AtLeastOnce)]).unwrap();
        exchange(&mut client, &mut rig);
        let Some(server::Event::Subscribe { token, .. }) = rig.connection.poll_event() else {
            panic!()
        };
        rig.notice(Notice::Subscribed { token, granted: Ok(vec![Ok(QoS::AtLeastOnce)]) });
        rig.deliver(vec![live(QoS::AtLeastOnce, b"first"), live(QoS::AtMostOnce, b"second")]);
        exchange(&mut client, &mut rig);
        let reasons = vec![Reason::GrantedQoS1];
        assert_eq!(client.poll_event(), Some(Event::Subscribed { id: subscribed, reasons }));
        for body in [&b"first"[..], b"second"] {
            let Some(Event::Message(message)) = client.poll_event() else { panic!() };
            assert_eq!(&message.payload[..], body);
        }
        assert_eq!(rig.connection.take_counters().deliveries_acked, 1, "acknowledged by itself");

        let outgoing =
            Outgoing { topic: b"t", qos: QoS::AtLeastOnce, payload: b"x", ..Outgoing::default() };
        let sent = client.publish(&outgoing).unwrap().unwrap();
        exchange(&mut client, &mut rig);
        let (token, _) = rig.publish();
        rig.published(token);
        exchange(&mut client, &mut rig);
        let reason = Reason::Success;
        assert_eq!(client.poll_event(), Some(Event::Published { id: sent, reason }));

        client.unsubscribe(&["t"]).unwrap();
        exchange(&mut client, &mut rig);
        let Some(server::Event::Unsubscribe { token, .. }) = rig.connection.poll_event() else {
            panic!()
        };
        rig.notice(Notice::Unsubscribed { token, existed: Ok(vec![true]) });
        exchange(&mut client, &mut rig);
        assert!(matches!(client.poll_event(), Some(Event::Unsubscribed { .. })));
        client.disconnect();
        exchange(&mut client, &mut rig);
        assert_eq!(rig.closed().reason, server::CloseReason::ClientDisconnect);
    }
}

#[test]
fn qos_2_goes_both_ways_and_is_answered_at_its_end() {
    for version in VERSIONS {
        let mut client = client(version);
        let mut rig = Rig::new(server::Config::default(), version);
        exchange(&mut client, &mut rig);
        rig.request();
        rig.opened(false);
        exchange(&mut client, &mut rig);
        client.poll_event();

        let outgoing = Outgoing { topic: b"t", qos: QoS::ExactlyOnce, ..Outgoing::default() };
        let sent = client.publish(&outgoing).unwrap().unwrap();
        exchange(&mut client, &mut rig);
        let Some(server::Event::PublishOnce { token, packet, .. }) = rig.connection.poll_event()
        else {
            panic!()
        };
        rig.published(token);
        exchange(&mut client, &mut rig);
        assert_eq!((client.poll_event(), client.in_flight()), (None, 1), "not complete yet");
        assert_eq!(rig.connection.poll_event(), Some(server::Event::Complete(packet)));
        rig.notice(Notice::Completed { packet: packet.get(), known: true });
        exchange(&mut client, &mut rig);
        let reason = Reason::Success;
        assert_eq!(client.poll_event(), Some(Event::Published { id: sent, reason }));
        assert_eq!(client.in_flight(), 0);

        rig.deliver(vec![live(QoS::ExactlyOnce, b"once")]);
        exchange(&mut client, &mut rig);
        let Some(Event::Message(message)) = client.poll_event() else { panic!() };
        assert_eq!(&message.payload[..], b"once");
        assert_eq!(rig.connection.take_counters().deliveries_acked, 1, "all four packets");
    }
}

#[test]
fn a_qos_2_delivery_that_comes_again_is_no_message() {
    let mut client = connected(options(Version::V5));
    let delivery = Packet::Publish(publish("t", QoS::ExactlyOnce, 7));
    for expected in [true, false] {
        say(&mut client, &delivery, Version::V5).unwrap();
        assert_eq!(client.poll_event().is_some(), expected);
        let mut pubrec = BytesMut::new();
        encode(&Packet::PubRec(Ack::new(id(7), Reason::Success)), Version::V5, &mut pubrec)
            .unwrap();
        assert_eq!(client.output().split(), pubrec);
    }
    say(&mut client, &Packet::PubRel(Ack::new(id(7), Reason::Success)), Version::V5).unwrap();
    say(&mut client, &delivery, Version::V5).unwrap();
    assert!(client.poll_event().is_some(), "another message");
}

#[test]
fn no_more_publishes_wait_than_both_sides_allow() {
    let window = NonZeroU16::new(3).unwrap();
    let mut client = connected(Options { window, ..options(Version::V311) });
    let outgoing = Outgoing { topic: b"t", qos: QoS::AtLeastOnce, ..Outgoing::default() };
    let ids: Vec<_> = (0..3).map(|_| client.publish(&outgoing).unwrap().unwrap().get()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(!client.can_publish());
    assert_eq!(client.publish(&outgoing), Err(ClientError::WindowFull));
    let qos0 = Outgoing { qos: QoS::AtMostOnce, ..outgoing };
    assert_eq!(client.publish(&qos0), Ok(None), "QoS 0 needs no place");
    say(&mut client, &puback(2), Version::V311).unwrap();
    assert_eq!(client.publish(&outgoing), Ok(Some(id(4))));
    assert_eq!(client.in_flight(), 3);

    let mut client = Client::new(options(Version::V5), START.at).unwrap();
    let mut connack = refusal(Reason::Success);
    connack.properties.receive_max = NonZeroU16::new(1);
    say(&mut client, &Packet::ConnAck(Box::new(connack)), Version::V5).unwrap();
    client.publish(&outgoing).unwrap();
    assert!(!client.can_publish());
}

#[test]
fn packet_ids_go_round_past_those_that_wait() {
    let mut client = connected(options(Version::V311));
    let outgoing = Outgoing { topic: b"t", qos: QoS::AtLeastOnce, ..Outgoing::default() };
    let subscribed = client.subscribe(&[("a", QoS::AtMostOnce)]).unwrap();
    assert_eq!(subscribed, id(1));
    for _ in 0..65_534 {
        let sent = client.publish(&outgoing).unwrap().unwrap();
        say(&mut client, &puback(sent.get()), Version::V311).unwrap();
    }
    assert_eq!(client.publish(&outgoing), Ok(Some(id(2))), "1 still waits for its SUBACK");
}

#[test]
fn answers_to_what_was_never_asked_are_an_error() {
    for packet in [puback(1), crate::support::suback(1, &[Reason::Success])] {
        let mut client = connected(options(Version::V311));
        assert!(matches!(say(&mut client, &packet, Version::V311), Err(ClientError::Protocol(_))));
    }
    let mut client = connected(options(Version::V311));
    client.subscribe(&[("a", QoS::AtMostOnce)]).unwrap();
    let wrong = say(&mut client, &puback(1), Version::V311);
    assert!(matches!(wrong, Err(ClientError::Protocol(_))), "a PUBACK is no SUBACK");
}

#[test]
fn nothing_is_sent_before_the_connack_or_after_the_end() {
    let mut client = client(Version::V5);
    assert_eq!(client.subscribe(&[("a", QoS::AtMostOnce)]), Err(ClientError::NotConnected));
    let early = Packet::Publish(publish("t", QoS::AtMostOnce, 0));
    assert!(say(&mut client, &early, Version::V5).is_err());

    let mut client = connected(options(Version::V5));
    client.disconnect();
    client.disconnect();
    assert_eq!(client.output().len(), 2, "said once");
    assert_eq!(client.publish(&Outgoing::default()), Err(ClientError::NotConnected));
}

#[test]
fn a_refusal_and_a_goodbye_are_handed_out() {
    let mut client = client(Version::V5);
    let refused = Packet::ConnAck(Box::new(refusal(Reason::NotAuthorized)));
    say(&mut client, &refused, Version::V5).unwrap();
    assert!(matches!(client.poll_event(), Some(Event::Refused(_))));
    assert!(!client.is_connected());

    let mut client = connected(options(Version::V5));
    say(&mut client, &crate::support::disconnect(Reason::SessionTakenOver, None), Version::V5)
        .unwrap();
    assert!(matches!(client.poll_event(), Some(Event::Disconnected(_))));
    assert!(!client.is_connected() && client.poll_timeout().is_none());
}

#[test]
fn acknowledgements_can_be_held_back() {
    let mut client = connected(Options { auto_ack: false, ..options(Version::V311) });
    say(&mut client, &Packet::Publish(publish("t", QoS::AtLeastOnce, 9)), Version::V311).unwrap();
    assert!(client.output().is_empty());
    client.acknowledge(id(9));
    assert_eq!(&client.output()[..], [0x40, 2, 0, 9]);
}

#[test]
fn a_silent_server_is_pinged_and_then_given_up() {
    let mut client = connected(Options { keep_alive_s: 10, ..options(Version::V311) });
    let due = client.poll_timeout().unwrap();
    assert_eq!(due, Millis(START.at.0 + 7_500));
    client.handle_timeout(Millis(due.0 - 1)).unwrap();
    assert!(client.output().is_empty());
    client.handle_timeout(due).unwrap();
    assert_eq!(&client.output()[..], [0xc0, 0]);
    say(&mut client, &Packet::PingResp, Version::V311).unwrap();
    client.handle_timeout(client.poll_timeout().unwrap()).unwrap();
    let given_up = client.handle_timeout(client.poll_timeout().unwrap());
    assert_eq!(given_up, Err(ClientError::Silent));

    let mut unanswered = Client::new(options(Version::V5), START.at).unwrap();
    let due = unanswered.poll_timeout().unwrap();
    assert_eq!(unanswered.handle_timeout(due), Err(ClientError::Silent));
}

#[test]
fn a_refused_publish_is_an_answer_in_mqtt_5() {
    let mut client = connected(options(Version::V5));
    let mut rig = Rig::open(Version::V5);
    let outgoing = Outgoing { topic: b"t", qos: QoS::AtLeastOnce, ..Outgoing::default() };
    client.publish(&outgoing).unwrap();
    exchange(&mut client, &mut rig);
    let (token, _) = rig.publish();
    rig.notice(Notice::Published { token, outcome: Err(Refusal::DiskFull) });
    exchange(&mut client, &mut rig);
    let Some(Event::Published { reason, .. }) = client.poll_event() else { panic!() };
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(client.can_publish());
}
