//! Cases 12, 16 to 18 and 34 to 36: sessions that are many, subscribe to much, keep much, or come and go.

use super::{Raw, Target, is_full, last_words, limit_metric, opened};
use crate::harness::{
    mqtt::AN_HOUR_S,
    packet::{Connect, Version, frame, publish, put_text, subscribe, unsubscribe},
    wait::{READY, SOON, until, until_true},
};

const V5: Version = Version::V5;
/// Subscriptions of one session, by default.
const SUBSCRIPTIONS: usize = 100;

/// SUBSCRIBE to `base/0`, `base/1`, …
fn subscribe_to(base: &str, filters: std::ops::Range<usize>) -> Vec<u8> {
    let names: Vec<String> = filters.map(|number| format!("{base}/{number}")).collect();
    let filters: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    subscribe(V5, 1, &filters)
}

#[test]
fn subscriptions_have_a_number_and_go_when_they_are_ended() {
    let rounds = if is_full() { 1_000 } else { 20 };
    let mut target = Target::start("", "");
    target.abused("case 17", &limit_metric("subscriptions_max"), |target| {
        let mut raw = opened(target, V5, "five thousand");
        raw.say(&subscribe_to("s", 0..5_000));
        assert_eq!(last_words(&raw.rest()), "disconnect 0x97");
        for durable in [false, true] {
            let connect = Connect::clean(V5, &format!("many-{durable}"));
            let connect = if durable { connect.expiring(AN_HOUR_S) } else { connect };
            let mut raw = Raw::to(target.mqtt);
            raw.say(&crate::harness::packet::connect(&connect));
            raw.packet();
            for (filters, reason) in [
                (0..SUBSCRIPTIONS + 1, 0x97),
                (0..SUBSCRIPTIONS, 0),
                (0..SUBSCRIPTIONS, 0),
                (SUBSCRIPTIONS..SUBSCRIPTIONS + 1, 0x97),
            ] {
                let many = filters.len();
                raw.say(&subscribe_to("s", filters));
                let suback = raw.packet();
                assert_eq!(suback[suback.len() - many..], vec![reason; many], "{durable}");
            }
            // Overlapping filters are one copy.
            raw.say(&unsubscribe(V5, 2, "s/0"));
            raw.packet();
            raw.say(&subscribe(V5, 3, &[("s/#", 0)]));
            raw.packet();
            raw.say(&publish(V5, 0, "s/7", b"once", None));
            assert_eq!(raw.packet(), publish(V5, 0, "s/7", b"once", None));
            raw.say(&[0xC0, 0]);
            assert_eq!(raw.packet(), [0xD0, 0], "not twice");
        }
        let mut raw = opened(target, V5, "churn");
        for round in 0..rounds {
            let base = format!("churn/{round}");
            raw.say(&subscribe_to(&base, 0..SUBSCRIPTIONS));
            assert_eq!(*raw.packet().last().unwrap(), 0);
            let mut body = vec![0, 2, 0];
            (0..SUBSCRIPTIONS).for_each(|n| put_text(&mut body, &format!("{base}/{n}")));
            raw.say(&frame(0xA2, &body));
            assert_eq!(*raw.packet().last().unwrap(), 0);
        }
    });
    until_true("no subscription is left of those that are gone", SOON, || {
        target.metric("moorline_live_subscriptions") == 0
    });
}

#[test]
fn one_client_that_comes_again_and_again_has_its_rate() {
    let times = if is_full() { 5_000 } else { 200 };
    let mut target = Target::start("unauthenticated-per-address-max = 0\n", "");
    let session = Connect::durable(V5, "storm").expiring(AN_HOUR_S);
    target.abused("case 34", &limit_metric("connects_per_client_s"), |target| {
        let connect = crate::harness::packet::connect(&session);
        let mut passed = 0;
        for number in 0..times {
            let mut raw = Raw::to(target.mqtt);
            raw.say(&connect);
            // Subscribes and unsubscribes go on however it ends.
            let filter = format!("storm/{}", number % 7);
            raw.say(&subscribe(V5, 1, &[(&filter, 1)]));
            raw.say(&unsubscribe(V5, 2, &filter));
            if number % 3 == 0 {
                // Gone before the answer.
                continue;
            }
            // Who waits for its turn is left alone as well: the next one is here already.
            raw.0.set_read_timeout(Some(std::time::Duration::from_millis(2))).unwrap();
            let mut heard = [0; 4];
            let whole = std::io::Read::read_exact(&mut raw.0, &mut heard).is_ok();
            passed += u32::from(whole && heard[3] == 0);
        }
        assert!(passed <= times / 10 + 10, "{passed} of {times} passed");
    });
    // It is nobody's but the next one's, which has all of it.
    let (mut client, present) =
        until("the storm is over for this client", READY, || session.attempt(target.mqtt).ok());
    assert!(present);
    client.subscribe_1("storm/last");
    client.publish_acked("storm/last", b"mine");
    assert_eq!(client.take(1), ["mine"]);
    assert!(target.metric("moorline_connects_delayed_total") > 0);
    client.disconnect();
}

#[test]
fn sessions_and_what_waits_for_them_have_an_end() {
    let clients = if is_full() { 4_000 } else { 200 };
    let limits = format!(
        "connects-per-tenant-s = 0\nsession-queue-max = 20\nsessions-per-shard-max = {}\n",
        clients / 5
    );
    let mut target = Target::start(&limits, "");
    let for_ever = |name: &str| Connect::durable(V5, name).expiring(u32::MAX);
    let fill = |target: &Target| {
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        // While there is room.
        let patient = Connect { keep_alive_s: 3_600, ..Connect::clean(V5, "kept-publisher") };
        let (mut publisher, _) = patient.to(target.mqtt);
        for number in 0..clients {
            let name = format!("kept-{number}");
            let mut raw = Raw::to(target.mqtt);
            raw.say(&crate::harness::packet::connect(&for_ever(&name)));
            let connack = raw.packet();
            if connack[3] == 0x97 {
                refused.push(name);
                continue;
            }
            assert_eq!(connack[3], 0, "{connack:x?}");
            raw.say(&subscribe(V5, 1, &[("kept/all", 1)]));
            raw.packet();
            raw.say(&[0xE0, 0]);
            kept.push(name);
        }
        assert!(kept.len() <= clients * 3 / 5, "{} of {clients} were kept", kept.len());
        let answers: Vec<u8> = (0..25)
            .map(|number: u8| {
                let id = publisher.publish("kept/all", &[b'a' + number]);
                publisher.puback(id)
            })
            .collect();
        assert_eq!(answers[..20], [0; 20]);
        assert_eq!(answers[20..], [0x97; 5], "all queues are full");
        // Who was let in is as it was.
        for name in &kept[..kept.len().min(10)] {
            let (mut client, present) = for_ever(name).to(target.mqtt);
            assert!(present, "{name} is as it was");
            assert_eq!(client.take(20).len(), 20);
            client.hears_nothing();
            client.disconnect();
        }
        // When they end there is room for those that were refused, and nothing is left of them.
        for name in &kept {
            let ended = Connect { keep_alive_s: 3_600, ..Connect::clean(V5, name) };
            ended.to(target.mqtt).0.disconnect();
        }
        for name in &refused[..refused.len().min(10)] {
            Connect::clean(V5, name).to(target.mqtt).0.disconnect();
        }
    };
    target.warm("cases 16 and 35", fill);
    target.abused("cases 16 and 35", &limit_metric("sessions_per_shard_max"), fill);
    assert!(target.reached("session_queue_max") >= 5);
}

#[test]
fn qos_2_publishes_that_are_never_released_are_bounded() {
    let mut target = Target::start("receive-max = 100\n", "");
    target.abused("case 12", &limit_metric("receive_max"), |target| {
        let mut hearer = opened(target, V5, "released-in");
        hearer.say(&subscribe(V5, 1, &[("released", 0)]));
        hearer.packet();
        let qos_2 = |id: u16, payload: u8| {
            let mut packet = publish(V5, id, "released", &[payload], None);
            packet[0] = 0x34;
            packet
        };
        let mut raw = opened(target, V5, "released-out");
        for id in 1..=100 {
            raw.say(&qos_2(id, 1));
            assert_eq!(raw.packet()[..4], [0x50, 2, 0, u8::try_from(id).unwrap()]);
        }
        // The same id with something else in it is the same publish.
        raw.say(&qos_2(100, 2));
        raw.packet();
        raw.say(&qos_2(101, 1));
        assert_eq!(last_words(&raw.rest()), "disconnect 0x93");
        for _ in 1..=100 {
            assert_eq!(hearer.packet(), publish(V5, 0, "released", &[1], None));
        }
        hearer.say(&[0xC0, 0]);
        assert_eq!(hearer.packet(), [0xD0, 0], "no copy more");
    });
}

#[test]
fn many_wills_fire_once_each_also_after_a_kill() {
    let wills = if is_full() { 10_000 } else { 100 };
    let limits = format!("connects-per-tenant-s = 0\nsession-queue-max = {wills}\n");
    let mut target = Target::start(&limits, "");
    let hearer = Connect::durable(V5, "wills-in");
    let (mut client, _) = hearer.to(target.mqtt);
    client.subscribe_1("wills/#");
    client.disconnect();
    for number in 0..wills {
        // A will after an hour, of a session that ends after a second: the earlier of the two counts (3.1.3.2.2).
        let mut more = vec![5, 0x18];
        more.extend(AN_HOUR_S.to_be_bytes());
        put_text(&mut more, &format!("wills/{number}"));
        put_text(&mut more, "gone");
        let name = format!("will-{number}");
        let expiry = [0x11, 0, 0, 0, 1];
        let mut raw = Raw::to(target.mqtt);
        raw.say(&super::connect_with(V5, 0x0E, &expiry, name.as_bytes(), &more));
        assert_eq!(raw.packet()[3], 0);
    }
    target.cluster.node_mut(1).kill();
    target.cluster.node_mut(1).start_ready();
    let (mut client, present) = hearer.to(target.mqtt);
    assert!(present);
    let mut heard: Vec<String> = (0..wills)
        .map(|_| {
            let message = client.message();
            client.ack(&message);
            message.topic
        })
        .collect();
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), wills, "each once");
    client.hears_nothing();
}
