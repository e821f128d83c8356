//! What clients publish: answers in order, windows, refusals.

use std::num::NonZeroU16;

use bytes::Bytes;
use moorline_core::{
    QoS, Text, UnixMillis,
    port::{Notice, Published, Refusal, Token},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{Ack, Publish},
    server::{CloseReason, Config, Counters, Event, Fate},
};
use proptest::prelude::*;

use crate::support::{Rig, START, VERSIONS, connect, id, puback, publish, publish1};

fn small(receive_max: u16) -> Config {
    Config { receive_max: NonZeroU16::new(receive_max).unwrap(), ..Config::default() }
}

/// The tokens of all publishes handed out.
fn tokens(rig: &mut Rig) -> Vec<Token> {
    rig.events()
        .into_iter()
        .map(|event| match event {
            Event::Publish { token, .. } => token,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Packet ids and reasons of the PUBACKs said.
fn pubacks(rig: &mut Rig) -> Vec<(u16, Reason)> {
    rig.said()
        .into_iter()
        .map(|packet| match packet {
            Packet::PubAck(ack) => (ack.id.get(), ack.reason),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn outcome(rig: &mut Rig, token: Token, outcome: Result<bool, Refusal>) {
    let outcome = outcome.map(|matched| Published { matched });
    rig.notice(Notice::Published { token, outcome });
}

#[test]
fn a_publish_is_handed_out_as_it_came() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        let mut sent = publish("a/b", QoS::AtMostOnce, 0);
        if version.is_v5() {
            sent.expiry_s = Some(3);
            sent.properties = Bytes::from_static(b"\x03\x00\x01x");
        }
        rig.say(&Packet::Publish(sent.clone()));
        let (_, message) = rig.publish();
        assert_eq!((message.topic, message.payload), (sent.topic, sent.payload));
        assert_eq!((message.qos, message.retain), (QoS::AtMostOnce, false));
        assert_eq!(message.properties, sent.properties);
        let expires_at = version.is_v5().then_some(UnixMillis(START.wall.0 + 3_000));
        assert_eq!(message.expires_at, expires_at);
        assert!(rig.said().is_empty(), "QoS 0 has no answer");
    }
}

#[test]
fn a_puback_waits_for_the_service() {
    let mut rig = Rig::open(Version::V311);
    rig.say(&publish1(7));
    let (token, _) = rig.publish();
    assert!(rig.said().is_empty());
    rig.published(token);
    assert_eq!(rig.said(), [puback(7)]);
    rig.published(token);
    assert!(rig.said().is_empty(), "answered once");
}

#[test]
fn pubacks_leave_in_the_order_of_their_publishes() {
    let mut rig = Rig::open(Version::V5);
    for packet_id in [5, 3, 9, 4] {
        rig.say(&publish1(packet_id));
    }
    let tokens = tokens(&mut rig);
    outcome(&mut rig, tokens[2], Ok(true));
    outcome(&mut rig, tokens[1], Err(Refusal::NotAuthorised));
    assert!(pubacks(&mut rig).is_empty(), "the first is not answered");
    outcome(&mut rig, tokens[0], Ok(false));
    let said =
        [(5, Reason::NoMatchingSubscribers), (3, Reason::NotAuthorized), (9, Reason::Success)];
    assert_eq!(pubacks(&mut rig), said);
    outcome(&mut rig, tokens[3], Ok(true));
    assert_eq!(pubacks(&mut rig), [(4, Reason::Success)]);
}

#[test]
fn before_mqtt_5_nobody_is_told_that_nothing_matched() {
    let mut rig = Rig::open(Version::V311);
    rig.say(&publish1(1));
    let (token, _) = rig.publish();
    outcome(&mut rig, token, Ok(false));
    assert_eq!(rig.said(), [puback(1)]);
}

#[test]
fn refusals_are_said_in_mqtt_5_and_never_look_like_success_before() {
    #[rustfmt::skip]
    let table = [
        (Refusal::Busy,          Some(Reason::QuotaExceeded)),
        (Refusal::Quota,         Some(Reason::QuotaExceeded)),
        (Refusal::DiskFull,      Some(Reason::QuotaExceeded)),
        (Refusal::TooLarge,      Some(Reason::QuotaExceeded)),
        (Refusal::NotAuthorised, Some(Reason::NotAuthorized)),
        (Refusal::Unavailable,   None),
    ];
    for (refusal, reason) in table {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            rig.say(&publish1(1));
            let (token, _) = rig.publish();
            outcome(&mut rig, token, Err(refusal));
            match (version.is_v5(), reason) {
                (true, Some(reason)) => assert_eq!(pubacks(&mut rig), [(1, reason)]),
                // Nobody knows whether it happened: the client has to ask again.
                (true, None) => {
                    let ended = (CloseReason::PublishRefused, Some(Reason::ServerBusy));
                    assert_eq!(rig.ended(), ended);
                }
                // All queues are full, or it may not say that, and nothing the client does helps: docs/decisions/009 and 022.
                (false, _) if matches!(refusal, Refusal::Quota | Refusal::NotAuthorised) => {
                    assert_eq!(rig.said(), [puback(1)]);
                }
                (false, _) => assert_eq!(rig.ended(), (CloseReason::PublishRefused, None)),
            }
        }
    }
}

#[test]
fn a_reason_string_explains_a_refusal_unless_it_is_not_wanted_or_does_not_fit() {
    for (wanted, packet_max, explained) in
        [(None, 0, true), (Some(false), 0, false), (None, 34, false)]
    {
        let mut asked = connect(Version::V5);
        asked.properties.request_problem = wanted;
        asked.properties.packet_max = std::num::NonZeroU32::new(packet_max);
        let mut rig = Rig::open_with(Config::default(), asked);
        rig.say(&publish1(1));
        let (token, _) = rig.publish();
        outcome(&mut rig, token, Err(Refusal::DiskFull));
        let Some(Packet::PubAck(ack)) = rig.said().pop() else { panic!() };
        assert_eq!(ack.reason, Reason::QuotaExceeded);
        assert_eq!(ack.properties.is_some(), explained, "{wanted:?} {packet_max}");
    }
}

#[test]
fn mqtt_5_clients_that_ignore_the_receive_maximum_are_cut_off() {
    let mut rig = Rig::open_with(small(2), connect(Version::V5));
    rig.say(&publish1(1));
    rig.say(&publish1(2));
    assert!(rig.connection.wants_read(), "it must be read from to be caught");
    let tokens = tokens(&mut rig);
    rig.published(tokens[0]);
    rig.say(&publish1(3));
    assert!(!rig.connection.is_closed(), "one place was free");
    rig.say(&publish1(4));
    let code = Some(Reason::ReceiveMaximumExceeded);
    assert_eq!(rig.ended(), (CloseReason::ReceiveMaximumExceeded, code));
}

#[test]
fn qos_0_needs_no_place_in_the_window() {
    let mut rig = Rig::open_with(small(1), connect(Version::V5));
    rig.say(&publish1(1));
    for _ in 0..5 {
        rig.say(&Packet::Publish(publish("t", QoS::AtMostOnce, 0)));
    }
    assert_eq!(tokens(&mut rig).len(), 6);
}

#[test]
fn older_clients_are_not_read_from_while_their_window_is_full() {
    for version in [Version::V31, Version::V311] {
        let mut rig = Rig::open_with(small(2), connect(version));
        for packet_id in 1..=4 {
            rig.say(&publish1(packet_id));
        }
        assert!(!rig.connection.wants_read());
        let first = tokens(&mut rig);
        assert_eq!(first.len(), 2, "the rest stays in the buffer");
        rig.published(first[1]);
        assert!(tokens(&mut rig).is_empty(), "its answer waits for the one before");
        rig.published(first[0]);
        assert_eq!(tokens(&mut rig).len(), 2);
        assert_eq!(pubacks(&mut rig).len(), 2);
    }
}

#[test]
fn nobody_is_read_from_while_too_many_bytes_wait() {
    for version in VERSIONS {
        let config = Config { unanswered_bytes_max: 1_000, ..Config::default() };
        let mut rig = Rig::open_with(config, connect(version));
        let big =
            Publish { payload: Bytes::from(vec![0; 600]), ..publish("t", QoS::AtLeastOnce, 1) };
        rig.say(&Packet::Publish(big.clone()));
        assert!(rig.connection.wants_read());
        rig.say(&Packet::Publish(Publish { id: Some(id(2)), ..big.clone() }));
        assert!(!rig.connection.wants_read());
        rig.say(&Packet::PingReq);
        assert!(rig.said().is_empty());
        let tokens = tokens(&mut rig);
        rig.published(tokens[0]);
        assert!(rig.connection.wants_read());
        assert_eq!(rig.said(), [puback(1), Packet::PingResp]);
    }
}

#[test]
fn a_copy_of_what_is_not_answered_yet_is_not_published_again() {
    let mut rig = Rig::open_with(small(2), connect(Version::V5));
    rig.say(&publish1(1));
    let (token, _) = rig.publish();
    for _ in 0..5 {
        let again = Publish { dup: true, ..publish("t", QoS::AtLeastOnce, 1) };
        rig.say(&Packet::Publish(again));
    }
    assert_eq!(rig.connection.poll_event(), None);
    rig.published(token);
    assert_eq!(pubacks(&mut rig), [(1, Reason::Success)], "one answer for all copies");
    assert_eq!(rig.connection.take_counters().publishes_repeated, 5);
}

#[test]
fn dup_says_nothing_by_itself() {
    let mut rig = Rig::open(Version::V311);
    rig.say(&Packet::Publish(Publish { dup: true, ..publish("t", QoS::AtLeastOnce, 1) }));
    let (token, _) = rig.publish();
    rig.published(token);
    assert_eq!(rig.said(), [puback(1)]);
    // After the answer the id is free: the same id is a new message.
    rig.say(&Packet::Publish(Publish { dup: true, ..publish("t", QoS::AtLeastOnce, 1) }));
    rig.publish();
}

#[test]
fn what_this_server_does_not_have_is_refused_with_its_code() {
    let retained = Publish { retain: true, ..publish("t", QoS::AtMostOnce, 0) };
    #[rustfmt::skip]
    let table = [
        (publish("t", QoS::ExactlyOnce, 1), Reason::QoSNotSupported),
        (retained,                          Reason::RetainNotSupported),
    ];
    let mut config = Config::default();
    config.capabilities.qos_max = QoS::AtLeastOnce;
    config.capabilities.retain = false;
    for (publish, reason) in table {
        for version in VERSIONS {
            let mut rig = Rig::open_with(config.clone(), connect(version));
            rig.say(&Packet::Publish(publish.clone()));
            let code = version.is_v5().then_some(reason);
            assert_eq!(rig.ended(), (CloseReason::NotSupported, code));
        }
    }
}

#[test]
fn topics_over_the_limits_are_refused_without_recursion() {
    let config = Config { packet_bytes_max: 1 << 20, ..Config::default() };
    let slashes = "/".repeat(65_535);
    for (topic, fits) in [("a/".repeat(15), true), ("a/".repeat(16), false), (slashes, false)] {
        for (version, qos) in [
            (Version::V5, QoS::AtLeastOnce),
            (Version::V5, QoS::AtMostOnce),
            (Version::V311, QoS::AtLeastOnce),
        ] {
            let mut rig = Rig::open_with(config.clone(), connect(version));
            let packet_id = u16::from(qos == QoS::AtLeastOnce);
            rig.say(&Packet::Publish(publish(&topic, qos, packet_id)));
            match (fits, version, qos) {
                (true, _, _) => _ = rig.publish(),
                (false, Version::V5, QoS::AtLeastOnce) => {
                    assert_eq!(pubacks(&mut rig), [(1, Reason::TopicNameInvalid)]);
                    assert_eq!(rig.connection.poll_event(), None);
                }
                (false, version, _) => {
                    let code = version.is_v5().then_some(Reason::TopicNameInvalid);
                    assert_eq!(rig.ended(), (CloseReason::TopicNotAccepted, code));
                }
            }
        }
    }
}

#[test]
fn a_refused_topic_is_answered_in_its_turn() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&publish1(1));
    rig.say(&Packet::Publish(publish(&"/".repeat(99), QoS::AtLeastOnce, 2)));
    assert!(pubacks(&mut rig).is_empty());
    let (token, _) = rig.publish();
    rig.published(token);
    assert_eq!(pubacks(&mut rig), [(1, Reason::Success), (2, Reason::TopicNameInvalid)]);
}

#[test]
fn topic_aliases_are_refused_while_none_are_offered() {
    let config = Config { topic_alias_max: 0, ..Config::default() };
    let mut rig = Rig::open_with(config, connect(Version::V5));
    let alias = NonZeroU16::new(1);
    rig.say(&Packet::Publish(Publish { alias, ..publish("t", QoS::AtMostOnce, 0) }));
    let code = Some(Reason::TopicAliasInvalid);
    assert_eq!(rig.ended(), (CloseReason::TopicAliasInvalid, code));
}

#[test]
fn topic_aliases_stand_for_their_last_topic_on_this_connection_only() {
    let config = Config { topic_alias_max: 2, ..Config::default() };
    let aliased = |alias: u16, topic: &str| {
        let alias = NonZeroU16::new(alias);
        Packet::Publish(Publish { alias, ..publish(topic, QoS::AtMostOnce, 0) })
    };
    let mut rig = Rig::open_with(config.clone(), connect(Version::V5));
    for (alias, topic, expected) in [
        (2, "two", "two"),
        (2, "", "two"),
        (1, "one", "one"),
        (2, "", "two"),
        (2, "new", "new"),
        (2, "", "new"),
        (1, "", "one"),
    ] {
        rig.say(&aliased(alias, topic));
        assert_eq!(rig.publish().1.topic, Text::from(expected), "{alias} {topic}");
    }
    rig.say(&aliased(3, "x"));
    assert_eq!(rig.ended().1, Some(Reason::TopicAliasInvalid));

    let mut rig = Rig::open_with(config, connect(Version::V5));
    rig.say(&aliased(2, ""));
    assert_eq!(rig.ended(), (CloseReason::ProtocolError, Some(Reason::ProtocolError)));
}

#[test]
fn one_subscription_identifier_from_a_client_is_dropped_and_two_are_refused() {
    let mut rig = Rig::open(Version::V5);
    let with = |subscription_ids| {
        Packet::Publish(Publish { subscription_ids, ..publish("t", QoS::AtMostOnce, 0) })
    };
    rig.say(&with(vec![7]));
    assert!(rig.publish().1.properties.is_empty());
    rig.say(&with(vec![7, 8]));
    assert_eq!(rig.ended().1, Some(Reason::ProtocolError));
}

#[test]
fn qos_2_packets_for_nothing_are_answered_and_change_nothing() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        let ack = |reason| Ack::new(id(9), reason);
        rig.say(&Packet::PubRel(ack(Reason::Success)));
        assert_eq!(rig.said(), [Packet::PubComp(ack(Reason::Success))]);
        rig.say(&Packet::PubRec(ack(Reason::Success)));
        assert_eq!(rig.said(), [Packet::PubRel(ack(Reason::Success))]);
        rig.say(&Packet::PubComp(ack(Reason::Success)));
        rig.say(&Packet::PubAck(ack(Reason::Success)));
        assert!(rig.said().is_empty() && !rig.connection.is_closed());
        assert_eq!(rig.connection.take_counters().unknown_acks, 4);
    }
    let mut rig = Rig::open(Version::V5);
    rig.say(&Packet::PubRec(Ack::new(id(9), Reason::UnspecifiedError)));
    assert!(rig.said().is_empty(), "the flow has ended");
}

#[test]
fn answers_for_nothing_are_ignored() {
    let mut rig = Rig::open(Version::V5);
    outcome(&mut rig, 77, Ok(true));
    outcome(&mut rig, 78, Err(Refusal::Unavailable));
    assert!(rig.said().is_empty() && !rig.connection.is_closed());
}

#[test]
fn what_was_read_before_a_fatal_packet_is_still_handed_out() {
    let mut rig = Rig::open(Version::V311);
    rig.input.extend_from_slice(b"\x32\x06\x00\x01t\x00\x01a\xc1\x00");
    rig.connection.receive(rig.now, &mut rig.input);
    let events = rig.events();
    assert!(matches!(&events[..], [Event::Publish { .. }, Event::Closed(_)]), "{events:?}");
}

/// What a client and the service do to a connection.
#[derive(Debug, Clone)]
enum Did {
    Publish { qos: u8, id: u16, dup: bool, bad: bool },
    Release(u16),
    Answer(usize, Result<bool, Refusal>),
    End,
}

fn did() -> impl Strategy<Value = Did> {
    let refusals =
        vec![Refusal::Busy, Refusal::Quota, Refusal::Unavailable, Refusal::NotAuthorised];
    let outcome = prop_oneof![
        4 => any::<bool>().prop_map(Ok),
        1 => prop::sample::select(refusals).prop_map(Err),
    ];
    prop_oneof![
        8 => (0..3_u8, 1..6_u16, any::<bool>(), prop::bool::weighted(0.03))
            .prop_map(|(qos, id, dup, bad)| Did::Publish { qos, id, dup, bad }),
        2 => (1..6_u16).prop_map(Did::Release),
        8 => (0..9_usize, outcome).prop_map(|(nth, outcome)| Did::Answer(nth, outcome)),
        1 => Just(Did::End),
    ]
}

/// Takes what was handed out into `asked`, and adds what was counted to `sums`.
fn look(rig: &mut Rig, asked: &mut Vec<Token>, sums: &mut Counters) {
    for event in rig.events() {
        match event {
            Event::Publish { token, message } if message.qos > QoS::AtMostOnce => asked.push(token),
            Event::PublishOnce { token, .. } => asked.push(token),
            Event::Complete(packet) => {
                rig.notice(Notice::Completed { packet: packet.get(), known: true });
            }
            _ => {}
        }
    }
    let counted = rig.connection.take_counters();
    for (sum, more) in sums.publishes_received.iter_mut().zip(counted.publishes_received) {
        *sum += more;
    }
    sums.fates.iter_mut().zip(counted.fates).for_each(|(sum, more)| *sum += more);
    rig.said();
}

proptest! {
    /// Whatever comes: what was received is what waits and what it came to.
    #[test]
    fn every_publish_comes_to_one_thing(v5 in any::<bool>(), steps in prop::collection::vec(did(), 0..60)) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let mut rig = Rig::open_with(small(4), connect(version));
        rig.connection.take_counters();
        let (mut asked, mut sums) = (Vec::new(), Counters::default());
        for step in steps {
            match step {
                Did::Publish { qos, id, dup, bad } => {
                    let qos = QoS::from_bits(qos).unwrap();
                    let topic = if bad { "x/".repeat(200) + "x" } else { "a/b".to_owned() };
                    let id = if qos == QoS::AtMostOnce { 0 } else { id };
                    let mut sent = publish(&topic, qos, id);
                    sent.dup = dup && id > 0;
                    rig.say(&Packet::Publish(sent));
                }
                Did::Release(packet) => {
                    rig.say(&Packet::PubRel(Ack::new(id(packet), Reason::Success)));
                }
                Did::Answer(nth, given) => {
                    // Some twice: the second answer is to nobody.
                    if let Some(token) = asked.get(nth).copied() {
                        outcome(&mut rig, token, given);
                    }
                }
                Did::End => rig.connection.peer_gone(rig.now),
            }
            prop_assert_eq!(rig.connection.imbalance(), 0);
            look(&mut rig, &mut asked, &mut sums);
            let [_, once, exactly] = sums.publishes_received;
            let ended: u64 = sums.fates.iter().sum();
            let waiting = rig.connection.publishes_waiting() as u64;
            prop_assert_eq!(once + exactly, ended + waiting);
            prop_assert!(waiting == 0 || !rig.connection.is_closed());
        }
    }
}

#[test]
fn what_became_of_publishes_is_counted_by_what_the_service_said() {
    let mut rig = Rig::open(Version::V311);
    (1..=4).for_each(|id| rig.say(&publish1(id)));
    let asked = tokens(&mut rig);
    outcome(&mut rig, asked[0], Ok(true));
    outcome(&mut rig, asked[1], Ok(false));
    // A version without refusals is told of none: it counts all the same.
    outcome(&mut rig, asked[2], Err(Refusal::Quota));
    assert_eq!((rig.connection.publishes_waiting(), rig.connection.imbalance()), (1, 0));
    rig.connection.peer_gone(rig.now);
    let fates = rig.connection.take_counters().fates;
    let of = |fate: Fate| fates[fate as usize];
    let came = [Fate::Matched, Fate::Unmatched, Fate::Quota, Fate::Unanswered].map(of);
    assert_eq!((came, fates.iter().sum::<u64>()), ([1; 4], 4));
}
