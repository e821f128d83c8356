//! The edge over real sockets, with a double of the service behind it.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    Offset, Text,
    port::{Close, Failure, Notice},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use support::{
    CONNACK_V311, CONNECT_V5, CONNECT_V311, Call, DEADLINE, DISCONNECT_V311, Refuses, TENANT,
    answer, delivery, edge, edge_with, expect, puback, publish, rest,
};

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_acknowledged_in_order_and_only_once_the_service_has_answered() {
    let edge = edge(|_| {});
    let (mut client, inbox) = edge.connected().await;
    client.write_all(&[publish(1), publish(2), publish(3)].concat()).await.unwrap();
    let tokens = [edge.published().0, edge.published().0, edge.published().0];
    answer(&inbox, tokens[2]);
    answer(&inbox, tokens[1]);
    let early = timeout(Duration::from_millis(50), client.read_u8()).await;
    assert!(early.is_err(), "the first is not answered: {early:?}");
    answer(&inbox, tokens[0]);
    expect(&mut client, &[puback(1), puback(2), puback(3)].concat()).await;
    edge.shows("moorline_publish_ack_seconds_count 3").await;
    edge.shows("moorline_messages_received_total{protocol=\"mqtt311\",qos=\"1\"} 3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_in_pieces_is_one_packet() {
    let edge = edge(|_| {});
    let (mut client, _) = edge.connected().await;
    client.set_nodelay(true).unwrap();
    for byte in publish(9) {
        client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(&edge.published().1.payload[..], b"hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_out_and_their_acknowledgements_come_back() {
    let edge = edge(|_| {});
    let (mut client, inbox) = edge.connected().await;
    inbox.push(delivery(Some(1), Bytes::from_static(b"yo"))).unwrap();
    expect(&mut client, b"\x32\x07\x00\x01t\x00\x02yo").await;
    client.write_all(&puback(2)).await.unwrap();
    let settled = edge.call(|call| match call {
        Call::Settle(offsets) => Some(offsets),
        _ => None,
    });
    assert_eq!(settled, [Offset(1)]);
    edge.shows("moorline_deliveries_acked_total 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_hears_how_a_connection_ended() {
    let edge = edge(|_| {});
    let (mut client, _) = edge.connected().await;
    let line = "moorline_connections{listener=\"mqtt\",protocol=\"mqtt311\"}";
    edge.shows(&format!("{line} 1")).await;
    client.write_all(DISCONNECT_V311).await.unwrap();
    assert_eq!(edge.closed(), Close::Clean { expiry_s: None, with_will: false });
    assert!(rest(&mut client).await.is_empty());
    let (client, _) = edge.connected().await;
    drop(client);
    assert_eq!(edge.closed(), Close::Broken);
    edge.shows(&format!("{line} 0")).await;
    edge.shows("moorline_connections_opening 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_the_end_still_counts() {
    let edge = edge(|_| {});
    let (mut client, _) = edge.connected().await;
    client.write_all(&publish(1)).await.unwrap();
    drop(client);
    edge.published();
    assert_eq!(edge.closed(), Close::Broken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed_in_time() {
    let edge = edge(|config| config.first_packet_ms = 100);
    let began = Instant::now();
    let mut client = edge.client().await;
    assert!(rest(&mut client).await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(100));
    edge.shows("moorline_connections_closed_total{reason=\"connect_timeout\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_too_many_is_turned_away() {
    let edge = edge(|config| config.connections_max = 1);
    let (first, _) = edge.connected().await;
    let mut second = edge.client().await;
    // Closed or reset, whichever the kernel makes of it: nothing is said.
    let read = timeout(DEADLINE, second.read_u8()).await.expect("an end in time");
    assert!(read.is_err());
    edge.shows("moorline_admission_rejected_total{reason=\"connections_max\"} 1").await;
    drop(first);
    edge.closed();
    edge.shows("moorline_connections_closed_total{reason=\"peer_gone\"} 1").await;
    let again = async {
        loop {
            let mut third = edge.client().await;
            // Until the first one's task has ended, this one is turned away as well.
            if third.write_all(CONNECT_V311).await.is_ok() && third.read_u8().await.is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_too_many_is_turned_away_until_another_is_known() {
    let edge = edge(|config| config.unauthenticated_per_address_max = 1);
    let mut first = edge.client().await;
    edge.shows("moorline_connections_opening 1").await;
    let mut second = edge.client().await;
    assert!(timeout(DEADLINE, second.read_u8()).await.expect("an end in time").is_err());
    let limit = "limit=\"unauthenticated_per_address_max\"";
    edge.shows(&format!("moorline_limits_reached_total{{{limit}}} 1")).await;
    first.write_all(CONNECT_V311).await.unwrap();
    expect(&mut first, CONNACK_V311).await;
    edge.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_connects_too_often_waits_and_then_is_refused() {
    let edge = edge(|config| {
        (config.connects_per_client_s, config.connects_per_client_burst) = (1, 1);
    });
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = edge.client().await;
        client.write_all(CONNECT_V5).await.unwrap();
        clients.push(client);
        // One after the other, so that it is known whose turn is when.
        let judged = clients.len();
        edge.shows(&format!(
            "moorline_auth_attempts_total{{method=\"anonymous\",result=\"accepted\"}} {judged}"
        ))
        .await;
    }
    // 0x9F, connection rate exceeded, and a reason string.
    expect(&mut clients[3], b"\x20\x1b\x00\x9f\x18\x1f\x00\x15it connects too often").await;
    edge.shows("moorline_connects_delayed_total 2").await;
    edge.shows("moorline_limits_reached_total{limit=\"connects_per_client_s\"} 1").await;
    assert_eq!(clients[2].read_u8().await.unwrap(), 0x20);
    assert!(began.elapsed() >= Duration::from_millis(1_900), "the third waited for two seconds");
    let mut older = edge.client().await;
    older.write_all(CONNECT_V311).await.unwrap();
    expect(&mut older, CONNACK_V311).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_bad_credentials_is_told_so() {
    let edge = edge_with(|_| {}, Arc::new(Refuses));
    let mut client = edge.client().await;
    client.write_all(CONNECT_V311).await.unwrap();
    assert_eq!(rest(&mut client).await, b"\x20\x02\x00\x04");
    let line = "moorline_auth_attempts_total{method=\"refuses\",result=\"bad_credentials\"} 1";
    edge.shows(line).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_taken_over_is_told_so() {
    let edge = edge(|_| {});
    let mut client = edge.client().await;
    client.write_all(CONNECT_V5).await.unwrap();
    let inbox = edge.call(|call| match call {
        Call::Connect(inbox) => Some(inbox),
        _ => None,
    });
    let open = edge.call(|call| match call {
        Call::Open(open) => Some(open),
        _ => None,
    });
    assert_eq!((open.tenant, open.client, open.clean_start), (TENANT, Text::from("c"), true));
    inbox.push(Notice::TakenOver).unwrap();
    let said = rest(&mut client).await;
    assert_eq!((said[0], &said[said.len() - 2..]), (0x20, &b"\x01\x8e"[..]), "{said:x?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed_and_holds_up_nobody() {
    let edge = edge(|config| config.write_stall_ms = 300);
    let (deaf, inbox) = edge.connected().await;
    let payload = Bytes::from(vec![0; 200 * 1024]);
    for offset in 1..=200 {
        inbox.push(delivery(Some(offset), payload.clone())).unwrap();
    }
    let (mut other, inbox) = edge.connected().await;
    other.write_all(&publish(1)).await.unwrap();
    answer(&inbox, edge.published().0);
    expect(&mut other, &puback(1)).await;
    edge.shows("moorline_connections_closed_total{reason=\"write_timeout\"} 1").await;
    assert_eq!(edge.closed(), Close::Failed(Failure::Slow));
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_answers_it_owes_and_then_ends() {
    let edge = edge(|_| {});
    let (mut client, inbox) = edge.connected().await;
    client.write_all(&publish(1)).await.unwrap();
    let token = edge.published().0;
    edge.stop.cancel();
    let refused = async { while TcpStream::connect(edge.address).await.is_ok() {} };
    timeout(DEADLINE, refused).await.expect("nobody is accepted any more");
    answer(&inbox, token);
    assert_eq!(rest(&mut client).await, puback(1));
    drop(client);
    edge.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_also_with_connections_that_do_not() {
    let edge = edge(|config| config.drain_ms = 200);
    let (client, inbox) = edge.connected().await;
    // More than the socket holds, to a client that reads nothing.
    for offset in 1..=200 {
        inbox.push(delivery(Some(offset), Bytes::from(vec![0; 200 * 1024]))).unwrap();
    }
    let took = edge.stopped().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_says_so_in_mqtt_5() {
    let edge = edge(|_| {});
    let mut client = edge.client().await;
    client.write_all(CONNECT_V5).await.unwrap();
    edge.call(|call| matches!(call, Call::Open(_)).then_some(()));
    edge.shows("moorline_connections{listener=\"mqtt\",protocol=\"mqtt5\"} 1").await;
    edge.stop.cancel();
    let said = rest(&mut client).await;
    assert!(said.ends_with(b"\x01\x8b"), "{said:x?}");
    drop(client);
    edge.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_maker_publishes_subscribes_and_receives() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet};

    let edge = edge(|_| {});
    let mut options = MqttOptions::new("other", "127.0.0.1", edge.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 16);
    client.subscribe("a/+", rumqttc::QoS::AtLeastOnce).await.unwrap();
    client.publish("a/b", rumqttc::QoS::AtLeastOnce, false, "hello").await.unwrap();
    let seen = async {
        let (mut inbox, mut seen) = (None, Vec::new());
        while seen.len() < 3 {
            while let Ok(call) = edge.calls.try_recv() {
                match call {
                    Call::Connect(new) => inbox = Some(new),
                    Call::Subscribe(token, filters) => {
                        let granted =
                            Ok(filters.iter().map(|filter| Ok(filter.options.qos)).collect());
                        let notice = Notice::Subscribed { token, granted };
                        inbox.as_ref().unwrap().push(notice).unwrap();
                    }
                    Call::Publish(token, message) => {
                        answer(inbox.as_ref().unwrap(), token);
                        let copy = delivery(None, message.payload);
                        inbox.as_ref().unwrap().push(copy).unwrap();
                    }
                    Call::PublishOnce(..)
                    | Call::Complete(_)
                    | Call::Release(_)
                    | Call::Open(_)
                    | Call::Settle(_)
                    | Call::RetainedTaken
                    | Call::Close(_) => {}
                }
            }
            let polled = timeout(Duration::from_millis(5), events.poll()).await;
            let Ok(Ok(Event::Incoming(packet))) = polled else { continue };
            match packet {
                Packet::SubAck(_) => seen.push("suback".to_owned()),
                Packet::PubAck(_) => seen.push("puback".to_owned()),
                Packet::Publish(got) => seen.push(String::from_utf8(got.payload.to_vec()).unwrap()),
                _ => {}
            }
        }
        seen
    };
    let mut seen = timeout(DEADLINE, seen).await.expect("all three in time");
    seen.sort();
    assert_eq!(seen, ["hello", "puback", "suback"]);
}
