//! CONNECT and CONNACK: who gets a session, what both sides are told.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use moorline_core::{
    NodeId, QoS, Text,
    port::{Close, Failure, Notice, Refusal},
};
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{Connect, ConnectProperties, Will},
    server::{CloseReason, Config, Event},
};

use crate::support::{Rig, VERSIONS, connect, publish1, unhex};

fn say_connect(rig: &mut Rig, connect: Connect) {
    rig.say(&Packet::Connect(Box::new(connect)));
}

fn rig(version: Version) -> Rig {
    Rig::new(Config::default(), version)
}

#[test]
fn a_connect_is_handed_out_and_answered_when_the_session_is_open() {
    for version in VERSIONS {
        let mut rig = rig(version);
        let mut asked = connect(version);
        asked.username = Some(Text::from("user"));
        asked.password = Some(Bytes::from_static(b"\xff\xfe"));
        say_connect(&mut rig, asked);
        let request = rig.request();
        assert_eq!(request.version, version);
        assert_eq!(request.client, Text::from("c"));
        assert_eq!(request.username, Some(Text::from("user")));
        assert_eq!(request.password, Some(Bytes::from_static(b"\xff\xfe")));
        assert_eq!((request.clean_start, request.keep_alive_s), (true, 60));
        assert!(rig.said().is_empty() && !rig.connection.wants_read(), "nothing before the answer");

        rig.opened(true);
        let said = rig.said();
        let [Packet::ConnAck(connack)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(connack.reason, Reason::Success);
        assert_eq!(connack.session_present, version != Version::V31, "3.1 has no such flag");
        assert!(rig.connection.wants_read());
    }
}

#[test]
fn packets_sent_before_the_connack_wait_for_it() {
    let mut rig = rig(Version::V311);
    say_connect(&mut rig, connect(Version::V311));
    rig.request();
    rig.say(&publish1(7));
    assert_eq!(rig.connection.poll_event(), None);
    rig.opened(false);
    rig.publish();
}

#[test]
fn mqtt_5_is_told_what_this_server_has_and_has_not() {
    let config = Config { session_expiry_max_s: 3_600, keep_alive_max_s: 30, ..Config::default() };
    let mut rig = Rig::new(config, Version::V5);
    let mut asked = connect(Version::V5);
    asked.properties.session_expiry_s = Some(u32::MAX);
    say_connect(&mut rig, asked);
    let request = rig.request();
    assert_eq!((request.expiry_s, request.keep_alive_s), (3_600, 30));
    rig.opened(false);
    let said = rig.said();
    let [Packet::ConnAck(connack)] = &said[..] else { panic!("{said:?}") };
    let told = &connack.properties;
    assert_eq!(told.session_expiry_s, Some(3_600));
    assert_eq!(told.server_keep_alive_s, Some(30));
    assert_eq!(told.receive_max, NonZeroU16::new(1_024));
    assert_eq!(told.packet_max, NonZeroU32::new(256 * 1_024));
    assert_eq!(told.qos_max, None, "which means 2");
    assert_eq!((told.retain, told.shared, told.subscription_ids), (None, None, None));
    assert_eq!((told.wildcards, told.alias_max, &told.assigned_client_id), (None, Some(10), &None));
}

#[test]
fn what_is_as_the_client_asked_is_not_said_again() {
    let mut rig = rig(Version::V5);
    let mut asked = connect(Version::V5);
    asked.properties.session_expiry_s = Some(7);
    say_connect(&mut rig, asked);
    assert_eq!(rig.request().expiry_s, 7);
    rig.opened(false);
    let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
    assert_eq!(connack.properties.session_expiry_s, None);
    assert_eq!(connack.properties.server_keep_alive_s, None);
}

#[test]
fn session_expiry_follows_from_version_and_clean_start() {
    #[rustfmt::skip]
    let table = [
        (Version::V311, true,  None,           u32::MAX, 0),
        (Version::V311, false, None,           u32::MAX, u32::MAX),
        (Version::V311, false, None,           60,       60),
        (Version::V31,  false, None,           u32::MAX, u32::MAX),
        (Version::V5,   true,  None,           u32::MAX, 0),
        (Version::V5,   false, None,           u32::MAX, 0),
        (Version::V5,   true,  Some(9),        u32::MAX, 9),
        (Version::V5,   false, Some(u32::MAX), u32::MAX, u32::MAX),
        (Version::V5,   false, Some(u32::MAX), 60,       60),
    ];
    for (version, clean_start, sent, max, expected) in table {
        let config = Config { session_expiry_max_s: max, ..Config::default() };
        let mut rig = Rig::new(config, version);
        let mut asked = connect(version);
        asked.clean_start = clean_start;
        asked.properties.session_expiry_s = sent;
        say_connect(&mut rig, asked);
        assert_eq!(rig.request().expiry_s, expected, "{version:?} {clean_start} {sent:?} {max}");
    }
}

#[test]
fn credit_is_the_clients_window_and_the_prefetch() {
    for (theirs, expected) in [(None, 32 + 256), (Some(10), 10 + 256), (Some(65_535), 32 + 256)] {
        let mut rig = rig(Version::V5);
        let mut asked = connect(Version::V5);
        asked.properties.receive_max = theirs.and_then(NonZeroU16::new);
        say_connect(&mut rig, asked);
        assert_eq!(rig.request().credit, expected);
    }
}

#[test]
fn a_client_without_an_id_gets_the_spare_one_where_its_version_allows() {
    #[rustfmt::skip]
    let table = [
        (Version::V5,   true,  None),
        (Version::V5,   false, None),
        (Version::V311, true,  None),
        (Version::V311, false, Some(Reason::ClientIdentifierNotValid)),
        (Version::V31,  true,  Some(Reason::ClientIdentifierNotValid)),
    ];
    for (version, clean_start, refused) in table {
        let mut rig = rig(version);
        let asked = Connect { client_id: Text::default(), clean_start, ..connect(version) };
        say_connect(&mut rig, asked);
        if let Some(reason) = refused {
            assert_eq!(rig.ended(), (CloseReason::ConnectRefused, Some(reason)), "{version:?}");
            continue;
        }
        let request = rig.request();
        assert_eq!((request.client, request.assigned), (Text::from("spare"), true));
        rig.opened(false);
        let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
        let told = version.is_v5().then(|| Text::from("spare"));
        assert_eq!(connack.properties.assigned_client_id, told);
    }
}

#[test]
fn a_client_id_over_the_limit_is_refused_and_never_cut() {
    for version in VERSIONS {
        for (len, fits) in [(1_024, true), (1_025, false)] {
            let mut rig = rig(version);
            let client_id = Text::from("x".repeat(len).as_str());
            say_connect(&mut rig, Connect { client_id: client_id.clone(), ..connect(version) });
            if fits {
                assert_eq!(rig.request().client, client_id);
            } else {
                let refused = Some(Reason::ClientIdentifierNotValid);
                assert_eq!(rig.ended(), (CloseReason::ConnectRefused, refused));
            }
        }
    }
}

#[test]
fn wills_and_enhanced_authentication_are_refused_with_a_reason() {
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
        say_connect(&mut rig, Connect { will: Some(will.clone()), ..connect(version) });
        let said = rig.said();
        let [Packet::ConnAck(connack)] = &said[..] else { panic!("{said:?}") };
        if version.is_v5() {
            assert_eq!(connack.reason, Reason::ImplementationSpecificError);
            assert!(connack.properties.reason_string.is_some());
        } else {
            assert_eq!(connack.reason.connack_v3(), 3);
        }
        assert_eq!(rig.closed().reason, CloseReason::ConnectRefused);
    }
    let mut rig = rig(Version::V5);
    let auth_method = Some(Text::from("SCRAM-SHA-1"));
    let properties = ConnectProperties { auth_method, ..ConnectProperties::default() };
    say_connect(&mut rig, Connect { properties, ..connect(Version::V5) });
    let refused = Some(Reason::BadAuthenticationMethod);
    assert_eq!(rig.ended(), (CloseReason::ConnectRefused, refused));
}

#[test]
fn with_wills_switched_on_they_are_handed_out_or_refused_by_what_they_need() {
    let mut config = Config::default();
    config.capabilities.qos_max = QoS::AtLeastOnce;
    config.capabilities.retain = false;
    config.topic_levels_max = 3;
    #[rustfmt::skip]
    let table = [
        ("w",       QoS::AtLeastOnce, false, None),
        ("w",       QoS::ExactlyOnce, false, Some(Reason::QoSNotSupported)),
        ("w",       QoS::AtMostOnce,  true,  Some(Reason::RetainNotSupported)),
        ("w/w/w/w", QoS::AtMostOnce,  false, Some(Reason::TopicNameInvalid)),
    ];
    for (topic, qos, retain, refused) in table {
        let mut rig = Rig::new(config.clone(), Version::V5);
        let will = Will {
            topic: Text::from(topic),
            qos,
            retain,
            delay_s: Some(5),
            expiry_s: None,
            properties: Bytes::new(),
            payload: Bytes::from_static(b"gone"),
        };
        say_connect(&mut rig, Connect { will: Some(will.clone()), ..connect(Version::V5) });
        match refused {
            None => assert_eq!(rig.request().will, Some(will)),
            refused => assert_eq!(rig.ended(), (CloseReason::ConnectRefused, refused)),
        }
    }
}

#[test]
fn mqtt_31_can_be_switched_off() {
    let mut config = Config::default();
    config.capabilities.mqtt31 = false;
    let mut rig = Rig::new(config, Version::V31);
    say_connect(&mut rig, connect(Version::V31));
    assert_eq!(
        &rig.said()[..],
        [Packet::ConnAck(Box::new(crate::support::refusal(Reason::UnsupportedProtocolVersion)))]
    );
    assert_eq!(rig.closed().reason, CloseReason::UnsupportedVersion);
}

#[test]
fn first_packets_that_are_no_connect_get_no_answer() {
    let table = [
        "30030001740a",
        "8206000100016100",
        "c000",
        "f000",
        "0000",
        "e000",
        "40020001",
        "20020000",
        "100d00044d5154580402003c000163",
        "474554202f20485454502f312e310d0a",
    ];
    for hex in table {
        let mut rig = rig(Version::V5);
        rig.bytes(&unhex(hex));
        let (reason, code) = rig.ended();
        assert_eq!((reason, code), (CloseReason::NotMqtt, None), "{hex}");
    }
}

#[test]
fn unknown_versions_are_told_so_in_the_form_most_clients_read() {
    for hex in [
        "100d00044d5154540602000a000170",
        "100d00044d5154540302000a000170",
        "100d00044d515454ff02000a000170",
        "100f00064d51497364700202000a000170",
    ] {
        let mut rig = rig(Version::V311);
        rig.bytes(&unhex(hex));
        rig.transmit();
        assert_eq!(&rig.output[..], [0x20, 2, 0, 1], "{hex}");
        assert_eq!(rig.closed().reason, CloseReason::UnsupportedVersion);
    }
}

#[test]
fn a_broken_connect_is_answered_in_mqtt_5_and_closed_before() {
    #[rustfmt::skip]
    let table = [
        (Version::V5,   "100e00044d5154540503003c00000163",         Some(Reason::MalformedPacket)),
        (Version::V5,   "101100044d5154540502003c03210000000163",   Some(Reason::ProtocolError)),
        (Version::V5,   "10ffff0300044d5154540502003c",             Some(Reason::PacketTooLarge)),
        // A client id or user name that can't be read; too much or too little of it.
        (Version::V5,   "101200044d5154540502000a000005746f700000", None),
        (Version::V5,   "101500044d5154540582000a000001700005746feda080", None),
        (Version::V5,   "101000044d5154540502000a000001700001",  None),
        (Version::V5,   "101200044d5154540502000a0000017000017000", None),
        (Version::V5,   "100e00044d5154540582000a00000170",         None),
        (Version::V311, "100d00044d5154540403003c000163",           None),
        (Version::V311, "10ffff0300044d5154540402003c",             None),
        (Version::V311, "1001",                                     None),
    ];
    for (version, hex, code) in table {
        let mut rig = rig(version);
        rig.bytes(&unhex(hex));
        if hex == "1001" {
            rig.bytes(&[0]);
        }
        assert_eq!(rig.ended().1, code, "{hex}");
    }
}

#[test]
fn a_refused_session_is_refused_in_the_clients_words() {
    #[rustfmt::skip]
    let table = [
        (Refusal::Busy,          Reason::ServerBusy,        3),
        (Refusal::Unavailable,   Reason::ServerUnavailable, 3),
        (Refusal::Quota,         Reason::QuotaExceeded,     3),
        (Refusal::DiskFull,      Reason::QuotaExceeded,     3),
        (Refusal::NotAuthorised, Reason::NotAuthorized,     5),
        (Refusal::TooLarge,      Reason::PacketTooLarge,    3),
    ];
    for (refusal, reason, code) in table {
        for version in VERSIONS {
            let mut rig = rig(version);
            say_connect(&mut rig, connect(version));
            rig.request();
            rig.notice(Notice::Opened(Err(refusal)));
            let said = rig.said();
            let [Packet::ConnAck(connack)] = &said[..] else { panic!("{said:?}") };
            assert!(!connack.session_present);
            if version.is_v5() {
                assert_eq!(connack.reason, reason);
            } else {
                assert_eq!(connack.reason.connack_v3(), code);
            }
            assert_eq!(rig.closed().reason, CloseReason::ConnectRefused);
        }
    }
}

#[test]
fn the_edge_may_refuse_who_it_does_not_know() {
    for (version, code) in [(Version::V5, 0x86), (Version::V311, 0x86)] {
        let mut rig = rig(version);
        say_connect(&mut rig, connect(version));
        rig.request();
        rig.connection.reject(rig.now, Reason::BadUserNameOrPassword);
        assert_eq!(rig.ended().1.map(Reason::code), Some(code));
    }
}

#[test]
fn a_refused_connect_is_told_why_where_there_are_words() {
    let why = Some(Text::from("the user name or the password is wrong"));
    // Larger than a client takes, it has no words.
    for (packet_max, expected) in [(None, why), (NonZeroU32::new(20), None)] {
        let mut rig = rig(Version::V5);
        let properties = ConnectProperties { packet_max, ..ConnectProperties::default() };
        say_connect(&mut rig, Connect { properties, ..connect(Version::V5) });
        rig.request();
        rig.connection.reject(rig.now, Reason::BadUserNameOrPassword);
        let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!("no CONNACK") };
        assert_eq!(connack.properties.reason_string, expected);
        assert_eq!(connack.reason, Reason::BadUserNameOrPassword);
    }
}

#[test]
fn what_happens_while_the_session_opens_is_said_in_a_connack() {
    #[rustfmt::skip]
    let table = [
        (Notice::TakenOver,                             CloseReason::TakenOver, Reason::ServerUnavailable),
        (Notice::Lost,                                  CloseReason::Lost,      Reason::ServerBusy),
        (Notice::Stopping { instead: Some(NodeId(2)) }, CloseReason::Stopping,  Reason::ServerUnavailable),
    ];
    for (notice, closed, reason) in table {
        for version in VERSIONS {
            let mut rig = rig(version);
            say_connect(&mut rig, connect(version));
            rig.request();
            rig.notice(notice.clone());
            let reason = if version.is_v5() { reason } else { Reason::ServerUnavailable };
            assert_eq!(rig.ended(), (closed, Some(reason)), "{version:?}");
        }
    }
    let mut rig = rig(Version::V5);
    say_connect(&mut rig, connect(Version::V5));
    rig.request();
    rig.connection.stop(rig.now, Some("other:1883"));
    let Some(Packet::ConnAck(connack)) = rig.said().pop() else { panic!() };
    assert_eq!(connack.reason, Reason::UseAnotherServer);
    assert_eq!(connack.properties.server_reference, Some(Text::from("other:1883")));
}

#[test]
fn a_connect_and_its_session_have_deadlines() {
    let mut rig = rig(Version::V5);
    rig.bytes(b"\x10");
    rig.wait(4_999);
    assert!(!rig.connection.is_closed());
    rig.wait(1);
    assert_eq!(rig.ended(), (CloseReason::ConnectTimeout, None));

    let mut rig = Rig::new(Config::default(), Version::V5);
    say_connect(&mut rig, connect(Version::V5));
    rig.request();
    rig.wait(29_999);
    assert!(!rig.connection.is_closed());
    rig.wait(1);
    assert_eq!(rig.ended(), (CloseReason::OpenTimeout, Some(Reason::ServerUnavailable)));
    // The service's answer comes too late.
    rig.opened(false);
    assert!(rig.said().is_empty());
}

#[test]
fn a_client_that_takes_no_connack_gets_none() {
    let mut rig = rig(Version::V5);
    let packet_max = NonZeroU32::new(2);
    let properties = ConnectProperties { packet_max, ..ConnectProperties::default() };
    say_connect(&mut rig, Connect { properties, ..connect(Version::V5) });
    rig.request();
    rig.opened(false);
    let closed = rig.closed();
    let too_large = Close::Failed(Failure::TooLarge);
    assert_eq!((closed.reason, closed.close), (CloseReason::PacketTooLarge, too_large));
    assert!(rig.said().is_empty());
}

#[test]
fn a_second_connect_ends_the_connection() {
    for (version, code) in [(Version::V311, None), (Version::V5, Some(Reason::ProtocolError))] {
        let mut rig = Rig::open(version);
        say_connect(&mut rig, connect(version));
        assert_eq!(rig.ended(), (CloseReason::ProtocolError, code));
    }
}

#[test]
fn an_opened_notice_out_of_place_does_nothing() {
    let mut rig = Rig::open(Version::V311);
    rig.opened(true);
    rig.notice(Notice::Opened(Err(Refusal::Busy)));
    assert!(rig.said().is_empty() && !rig.connection.is_closed());
    assert_eq!(rig.events(), Vec::<Event>::new());
}

#[test]
fn passwords_do_not_show_when_packets_are_logged() {
    let asked = Connect {
        username: Some(Text::from("user")),
        password: Some(Bytes::from_static(b"canary")),
        ..connect(Version::V5)
    };
    let mut rig = rig(Version::V5);
    say_connect(&mut rig, asked.clone());
    let waiting = format!("{:?}", rig.connection);
    let request = rig.request();
    let options = moorline_mqtt::client::Options {
        password: asked.password.clone(),
        ..moorline_mqtt::client::Options::default()
    };
    for shown in [format!("{asked:?}"), format!("{request:?}"), format!("{options:?}"), waiting] {
        assert!(shown.contains("hidden") && !shown.contains("canary"), "{shown}");
    }
}
