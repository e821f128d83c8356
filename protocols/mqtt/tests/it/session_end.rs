//! How connections end: who says what, and when time is up.

use std::num::NonZeroU16;

use moorline_core::{
    NodeId, QoS, Text,
    port::{Close, Ended, Failure, Notice},
};
use moorline_mqtt::{
    Millis, Packet, Reason, Version,
    codec::{Auth, Connect, ConnectProperties},
    server::{CloseReason, Closed, Config, Event},
};

use crate::support::{
    Rig, VERSIONS, connect, disconnect, durable, live, publish, publish1, subscribe, unhex,
};

#[test]
fn a_goodbye_is_clean_and_has_no_answer() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&disconnect(Reason::Success, None));
        let reason = CloseReason::ClientDisconnect;
        assert_eq!(
            rig.closed(),
            Closed { close: Close::Clean { expiry_s: None, with_will: false }, reason }
        );
        assert!(rig.said().is_empty());
        assert!(!rig.connection.wants_read());
    }
}

#[test]
fn a_goodbye_with_a_code_keeps_the_will() {
    for bytes in ["e00104", "e0020400", "e00180"] {
        let mut rig = Rig::open(Version::V5);
        rig.bytes(&unhex(bytes));
        let reason = CloseReason::ClientDisconnectWithWill;
        assert_eq!(
            rig.closed(),
            Closed { close: Close::Clean { expiry_s: None, with_will: true }, reason }
        );
    }
}

#[test]
fn a_goodbye_may_change_an_expiry_that_was_not_zero() {
    #[rustfmt::skip]
    let table = [
        (Some(9),  Some(u32::MAX), Ok(Some(3_600))),
        (Some(9),  Some(0),        Ok(Some(0))),
        (Some(9),  None,           Ok(None)),
        (Some(0),  Some(0),        Ok(Some(0))),
        (Some(0),  Some(1),        Err(Reason::ProtocolError)),
        (None,     Some(0),        Ok(Some(0))),
        (None,     Some(1),        Err(Reason::ProtocolError)),
    ];
    for (sent, changed, expected) in table {
        let config = Config { session_expiry_max_s: 3_600, ..Config::default() };
        let properties = ConnectProperties { session_expiry_s: sent, ..Default::default() };
        let mut rig = Rig::open_with(config, Connect { properties, ..connect(Version::V5) });
        rig.say(&disconnect(Reason::Success, changed));
        match expected {
            Ok(expiry_s) => {
                let close = Close::Clean { expiry_s, with_will: false };
                assert_eq!(rig.closed().close, close, "{sent:?}");
            }
            Err(reason) => {
                assert_eq!(rig.ended(), (CloseReason::ProtocolError, Some(reason)), "{sent:?}");
            }
        }
    }
}

#[test]
fn a_refused_goodbye_is_no_clean_end() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&disconnect(Reason::Success, Some(1)));
    assert_eq!(rig.closed().close, Close::Failed(Failure::Malformed));
}

/// What ends a connection.
type End = fn(&mut Rig);

#[test]
fn the_service_hears_why_a_connection_was_ended() {
    #[rustfmt::skip]
    let table: [(End, Close); 5] = [
        (|rig| rig.wait(90_000),                                 Close::Failed(Failure::Silent)),
        (|rig| rig.bytes(&unhex("f100")),                        Close::Failed(Failure::Malformed)),
        (|rig| rig.notice(Notice::Ended(Ended::Revoked)),        Close::Failed(Failure::Revoked)),
        (|rig| rig.notice(Notice::Ended(Ended::Misused)),        Close::Broken),
        (|rig| rig.notice(Notice::TakenOver),                    Close::Broken),
    ];
    for version in VERSIONS {
        for (ends, close) in table {
            let mut rig = Rig::open(version);
            ends(&mut rig);
            assert_eq!(rig.closed().close, close, "{version:?}");
        }
    }
}

#[test]
fn endings_of_the_service_are_said_in_mqtt_5() {
    #[rustfmt::skip]
    let table = [
        (Notice::TakenOver,                             CloseReason::TakenOver, Reason::SessionTakenOver),
        (Notice::Lost,                                  CloseReason::Lost,      Reason::ServerBusy),
        (Notice::Stopping { instead: None },            CloseReason::Stopping,  Reason::ServerShuttingDown),
        (Notice::Stopping { instead: Some(NodeId(2)) }, CloseReason::Stopping,  Reason::ServerShuttingDown),
    ];
    for (notice, closed, reason) in table {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            rig.notice(notice.clone());
            assert_eq!(rig.ended(), (closed, version.is_v5().then_some(reason)));
        }
    }
}

#[test]
fn a_stopping_node_says_where_to_go() {
    let mut rig = Rig::open(Version::V5);
    rig.connection.stop(rig.now, Some("node-2:1883"));
    let Some(Packet::Disconnect(said)) = rig.said().pop() else { panic!() };
    assert_eq!(said.reason, Reason::UseAnotherServer);
    assert_eq!(said.server_reference, Some(Text::from("node-2:1883")));
    assert_eq!(rig.closed(), Closed { close: Close::Broken, reason: CloseReason::Stopping });
}

#[test]
fn answers_given_before_the_end_are_sent_before_it() {
    let mut rig = Rig::open(Version::V5);
    rig.say(&publish1(7));
    let (token, _) = rig.publish();
    rig.say(&Packet::PingReq);
    rig.published(token);
    rig.notice(Notice::TakenOver);
    rig.notice(Notice::Lost);
    let said = rig.said();
    assert!(
        matches!(&said[..], [Packet::PingResp, Packet::PubAck(_), Packet::Disconnect(_)]),
        "{said:?}"
    );
    assert!(matches!(&rig.events()[..], [Event::Closed(_)]), "exactly once");
}

#[test]
fn who_is_told_why_before_it_is_closed_hears_it() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.deliver(vec![live(QoS::AtMostOnce, b"why")]);
        rig.notice(Notice::Ended(Ended::Misused));
        let said = rig.said();
        let told = matches!(said.first(), Some(Packet::Publish(why)) if why.payload == "why");
        assert!(told, "{version:?}: {said:?}");
        assert_eq!(said.len(), if version.is_v5() { 2 } else { 1 }, "{said:?}");
        // Who may not hear anything any more does not.
        let mut rig = Rig::open(version);
        rig.deliver(vec![live(QoS::AtMostOnce, b"secret")]);
        rig.notice(Notice::Ended(Ended::Revoked));
        assert!(!rig.said().iter().any(|packet| matches!(packet, Packet::Publish(_))));
    }
}

#[test]
fn a_platform_says_in_its_own_way_that_a_right_has_ended() {
    let revoked = [Reason::NotAuthorized, Reason::AdministrativeAction];
    for (version, revoked) in VERSIONS.into_iter().flat_map(|one| revoked.map(|two| (one, two))) {
        let config = Config { revoked, ..Config::default() };
        let mut rig = Rig::open_with(config, connect(version));
        rig.notice(Notice::Ended(Ended::Revoked));
        assert_eq!(rig.ended(), (CloseReason::Revoked, version.is_v5().then_some(revoked)));
    }
}

#[test]
fn protocol_breaches_name_their_code_in_mqtt_5_and_just_close_before() {
    let auth = Packet::Auth(Box::new(Auth {
        reason: Reason::ReAuthenticate,
        method: Some(Text::from("m")),
        ..Auth::default()
    }));
    let mut rig = Rig::open(Version::V5);
    rig.say(&auth);
    assert_eq!(rig.ended(), (CloseReason::ProtocolError, Some(Reason::ProtocolError)));
    #[rustfmt::skip]
    let table = [
        ("d000",         CloseReason::ProtocolError, Reason::ProtocolError),
        ("20020000",     CloseReason::ProtocolError, Reason::ProtocolError),
        ("9003000100",   CloseReason::ProtocolError, Reason::ProtocolError),
        ("b0020001",     CloseReason::ProtocolError, Reason::ProtocolError),
        ("c100",         CloseReason::Malformed,     Reason::MalformedPacket),
        ("d100",         CloseReason::ProtocolError, Reason::ProtocolError),
        ("0000",         CloseReason::ProtocolError, Reason::ProtocolError),
        ("30ffffff7f",   CloseReason::PacketTooLarge, Reason::PacketTooLarge),
        ("30ffffffff",   CloseReason::Malformed,     Reason::MalformedPacket),
    ];
    for (hex, closed, reason) in table {
        for version in VERSIONS {
            let mut rig = Rig::open(version);
            rig.bytes(&unhex(hex));
            let said = rig.ended();
            assert_eq!(said, (closed, version.is_v5().then_some(reason)), "{hex} {version:?}");
        }
    }
}

#[test]
fn a_lost_socket_is_a_broken_end_and_nothing_more_is_said() {
    for version in VERSIONS {
        let mut rig = Rig::open(version);
        rig.say(&Packet::PingReq);
        rig.connection.peer_gone(rig.now);
        rig.connection.peer_gone(rig.now);
        assert_eq!(rig.closed(), Closed { close: Close::Broken, reason: CloseReason::PeerGone });
        assert!(rig.said().is_empty() && rig.events().is_empty());
    }
}

#[test]
fn silence_ends_after_one_and_a_half_keep_alives() {
    for version in VERSIONS {
        let mut rig =
            Rig::open_with(Config::default(), Connect { keep_alive_s: 10, ..connect(version) });
        rig.wait(14_999);
        rig.say(&Packet::PingReq);
        rig.said();
        assert_eq!(rig.connection.poll_timeout(), Some(Millis(rig.now.at.0 + 15_000)));
        rig.wait(14_999);
        assert!(!rig.connection.is_closed());
        rig.wait(1);
        let code = version.is_v5().then_some(Reason::KeepAliveTimeout);
        assert_eq!(rig.ended(), (CloseReason::KeepAliveTimeout, code));
    }
}

#[test]
fn a_part_of_a_packet_breaks_no_silence_and_what_we_send_does_not_either() {
    let mut rig =
        Rig::open_with(Config::default(), Connect { keep_alive_s: 10, ..connect(Version::V311) });
    rig.wait(14_000);
    rig.bytes(b"\x30\x20\x00");
    rig.deliver(vec![live(QoS::AtMostOnce, b"x")]);
    rig.said();
    rig.wait(1_000);
    assert_eq!(rig.closed().reason, CloseReason::KeepAliveTimeout);
}

#[test]
fn keep_alive_zero_is_no_deadline_where_the_server_has_none() {
    let config = Config { keep_alive_max_s: 0, ..Config::default() };
    let mut rig = Rig::open_with(config, Connect { keep_alive_s: 0, ..connect(Version::V5) });
    assert_eq!(rig.connection.poll_timeout(), None);
    rig.wait(1 << 40);
    assert!(!rig.connection.is_closed());
}

#[test]
fn the_servers_keep_alive_binds_everybody() {
    #[rustfmt::skip]
    let table = [
        (Version::V5,   0,      Some(30)),
        (Version::V5,   65_535, Some(30)),
        (Version::V5,   10,     Some(10)),
        (Version::V311, 0,      Some(30)),
        (Version::V311, 100,    Some(30)),
        (Version::V31,  20,     Some(20)),
    ];
    for (version, sent, expected) in table {
        let config = Config { keep_alive_max_s: 30, ..Config::default() };
        let rig = Rig::open_with(config, Connect { keep_alive_s: sent, ..connect(version) });
        let due = expected.map(|keep_alive: u64| Millis(rig.now.at.0 + keep_alive * 1_500));
        assert_eq!(rig.connection.poll_timeout(), due, "{version:?} {sent}");
    }
}

#[test]
fn while_we_do_not_read_the_clients_silence_does_not_count() {
    let config = Config { receive_max: NonZeroU16::new(1).unwrap(), ..Config::default() };
    let mut rig = Rig::open_with(config, Connect { keep_alive_s: 10, ..connect(Version::V311) });
    rig.say(&publish1(1));
    let (token, _) = rig.publish();
    assert!(!rig.connection.wants_read());
    assert_eq!(rig.connection.poll_timeout(), None);
    rig.wait(100_000);
    assert!(!rig.connection.is_closed());
    rig.published(token);
    rig.said();
    rig.wait(14_999);
    assert!(!rig.connection.is_closed(), "it counts from when we read again");
    rig.wait(1);
    assert_eq!(rig.closed().reason, CloseReason::KeepAliveTimeout);
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let config = Config { output_bytes_max: 100, ..Config::default() };
    let mut rig = Rig::open_with(config, Connect { keep_alive_s: 0, ..connect(Version::V5) });
    rig.deliver((0..9u8).map(|n| live(QoS::AtMostOnce, &[n; 90])).collect());
    rig.transmit();
    rig.wait(9_000);
    // It takes a little, and gets as long again.
    _ = rig.output.split_to(10);
    rig.transmit();
    assert_eq!(rig.connection.poll_timeout(), Some(Millis(rig.now.at.0 + 10_000)));
    rig.wait(9_999);
    rig.transmit();
    assert!(!rig.connection.is_closed());
    rig.wait(1);
    let slow = Closed { close: Close::Failed(Failure::Slow), reason: CloseReason::WriteTimeout };
    assert_eq!(rig.closed(), slow);
}

#[test]
fn a_client_that_only_asks_is_not_read_from() {
    let mut rig = Rig::open(Version::V311);
    let pings = unhex(&"c000".repeat(100_000));
    rig.bytes(&pings);
    assert!(!rig.connection.wants_read(), "its answers pile up");
    assert!(rig.input.len() > 100_000, "most of it stays where it is");
    rig.said();
    assert!(rig.connection.wants_read());
}

#[test]
fn a_closed_connection_has_a_moment_to_write_and_then_none() {
    let mut rig = Rig::open(Version::V5);
    rig.deliver(vec![durable(1)]);
    rig.notice(Notice::TakenOver);
    assert_eq!(rig.connection.poll_timeout(), Some(Millis(rig.now.at.0 + 1_000)));
    rig.wait(5_000);
    assert_eq!(rig.closed().reason, CloseReason::TakenOver);
    // Packets that come now are not looked at.
    rig.say(&Packet::PingReq);
    assert!(matches!(&rig.said()[..], [Packet::Disconnect(_)]));
}

#[test]
fn too_many_of_something_in_one_packet_is_a_quota() {
    let filters: Vec<_> = (0..257).map(|n| format!("f/{n}")).collect();
    let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), QoS::AtMostOnce)).collect();
    let mut with_user = publish("t", QoS::AtMostOnce, 0);
    with_user.properties = b"\x26\x00\x01k\x00\x01v".repeat(65).into();
    for packet in [Packet::Subscribe(subscribe(1, &filters)), Packet::Publish(with_user)] {
        let mut rig = Rig::open(Version::V5);
        rig.say(&packet);
        assert_eq!(rig.ended(), (CloseReason::QuotaExceeded, Some(Reason::QuotaExceeded)));
    }
}
