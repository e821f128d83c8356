//! Cases 31 to 33 and 37: clients that hold on, are silent, do not listen, or ask much of one message.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{P99_MAX, Raw, Target, is_full, last_words, limit_metric, opened};
use crate::harness::{
    packet::{Connect, Version, publish, subscribe},
    wait::{SOON, until_true},
};

const V5: Version = Version::V5;
/// As many as one address may have that are not known.
const PER_ADDRESS: usize = 50;
/// The beginning of a ClientHello that says it has 512 bytes.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01";
/// What one that never reads takes in before its system says stop, at least.
const DEAF_BYTES: usize = 4096;
/// Between two messages for many: a hundred a second.
const BOMB_PAUSE: Duration = Duration::from_millis(10);

/// Sockets from many addresses, as many from each as may be there.
fn crowd(target: std::net::SocketAddr, many: usize, net: u8) -> Vec<Raw> {
    (0..many)
        .map(|number| {
            let address = number / PER_ADDRESS;
            let [high, low] = u16::try_from(address).unwrap().to_be_bytes();
            let source = Ipv4Addr::new(127, net, high, low + 1);
            Raw::from(source, target).unwrap()
        })
        .collect()
}

/// Somebody who comes meanwhile is served soon.
#[track_caller]
fn others_come_in(target: &Target, name: &str) {
    let began = Instant::now();
    let (mut client, _) = Connect::clean(V5, name).to(target.mqtt);
    client.ping();
    assert!(began.elapsed() < P99_MAX, "{name} waited {:?}", began.elapsed());
}

#[test]
fn who_only_holds_a_place_loses_it_and_has_few() {
    let (idle, shaking) = if is_full() { (5_000, 2_000) } else { (300, 200) };
    let mut target = Target::start_secure("first-packet-ms = 2000\ntls-handshake-ms = 2000\n");
    let limit = limit_metric("unauthenticated_per_address_max");
    target.abused("case 31, one address", &limit, |target| {
        let raws: Vec<_> = (0..200)
            .map(|_| Raw::from(Ipv4Addr::new(127, 80, 0, 1), target.mqtt).unwrap())
            .collect();
        others_come_in(target, "beside one address");
        let held = target.metric("moorline_connections_opening");
        assert!(held <= PER_ADDRESS as u64, "{held} of one address");
        for raw in raws {
            assert_eq!(last_words(&raw.rest()), "closed");
        }
    });
    target.abused("case 31, idle", &limit_metric("first_packet_ms"), |target| {
        let raws = crowd(target.mqtt, idle, 81);
        others_come_in(target, "beside the idle");
        for raw in raws {
            assert_eq!(last_words(&raw.rest()), "closed");
        }
    });
    target.abused("case 31, half handshakes", &limit_metric("tls_handshake_ms"), |target| {
        let mut raws = crowd(target.mqtts, shaking, 82);
        for (number, raw) in raws.iter_mut().enumerate() {
            raw.say(&HALF_HELLO[..1 + number % HALF_HELLO.len()]);
        }
        others_come_in(target, "beside the shaking");
        for raw in raws {
            // Perhaps an alert, and the end.
            raw.rest();
        }
    });
    until_true("all places are free", SOON, || target.metric("moorline_connections_opening") == 0);
}

#[test]
fn silence_ends_by_the_nodes_keep_alive_whatever_the_client_says() {
    let mut target = Target::start("keep-alive-max-s = 1\n", "");
    let closed = "moorline_connections_closed_total{reason=\"keep_alive_timeout\"}";
    target.abused("case 32", closed, |target| {
        let mut raws = Vec::new();
        for (number, keep_alive_s) in [0, u16::MAX].into_iter().enumerate() {
            for version in [Version::V4, V5] {
                let name = format!("silent-{number}-{version:?}");
                let connect = Connect { keep_alive_s, ..Connect::clean(version, &name) };
                let mut raw = Raw::to(target.mqtt);
                raw.say(&crate::harness::packet::connect(&connect));
                let connack = raw.packet();
                let told = connack.windows(3).any(|part| part == [0x13, 0, 1]);
                assert_eq!(told, version == V5, "{connack:x?}");
                raws.push((raw, if told { "disconnect 0x8d" } else { "closed" }));
            }
        }
        for (raw, expected) in raws {
            assert_eq!(last_words(&raw.rest()), expected);
        }
    });
    assert!(target.reached("keep_alive_max_s") >= 4);
}

#[test]
fn who_never_reads_is_closed_and_holds_nobody_up() {
    let mut target = Target::start("write-stall-ms = 1000\n", "");
    target.abused("case 33", &limit_metric("write_stall_ms"), |target| {
        let mut deaf = opened(target, V5, "deaf");
        SockRef::from(&deaf.0).set_recv_buffer_size(DEAF_BYTES).unwrap();
        deaf.say(&subscribe(V5, 1, &[("flood", 0)]));
        deaf.packet();
        let mut sender = opened(target, V5, "flooder");
        let burst = publish(V5, 0, "flood", &[7; 1_000], None).repeat(100);
        let began = Instant::now();
        while target.reached("write_stall_ms") == 0 {
            sender.say(&burst);
            sender.say(&[0xC0, 0]);
            assert_eq!(sender.packet(), [0xD0, 0], "the sender is served");
            assert!(began.elapsed() < SOON, "the deaf one is closed");
        }
        others_come_in(target, "beside the deaf");
    });
    assert!(target.reached("live_queue_max") > 0);
    let dropped = "moorline_messages_dropped_total{layer=\"edge\",reason=\"slow_client\"}";
    assert!(target.metric(dropped) > 0);
}

#[test]
fn one_message_for_many_is_theirs_and_others_go_between() {
    let (subscribers, messages) = if is_full() { (5_000, 100) } else { (150, 50) };
    // Full, more come than a tenant's may in a second.
    let mut target = Target::start("connects-per-tenant-s = 0\n", "");
    let sent = "moorline_messages_delivered_total{protocol=\"mqtt5\",qos=\"0\"}";
    let bomb = |target: &Target| {
        let mut all: Vec<_> = (0..subscribers)
            .map(|number| {
                let mut raw = opened(target, V5, &format!("many-{number}"));
                raw.say(&subscribe(V5, 1, &[("bomb", 0)]));
                assert_eq!(*raw.packet().last().unwrap(), 0);
                raw
            })
            .collect();
        let mut sender = opened(target, V5, "bomber");
        for _ in 0..messages {
            sender.say(&publish(V5, 0, "bomb", b"x", None));
            std::thread::sleep(BOMB_PAUSE);
        }
        let expected = publish(V5, 0, "bomb", b"x", None);
        for raw in &mut all {
            for _ in 0..messages {
                assert_eq!(raw.packet(), expected);
            }
        }
    };
    target.warm("case 37", bomb);
    target.abused("case 37", sent, bomb);
}
