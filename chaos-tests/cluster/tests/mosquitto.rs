//! The harness's MQTT against a broker that others wrote, where one is installed: mosquitto.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use moorline_chaos::mqtt::packet::RECEIVE_MAX_DEFAULT;
use moorline_chaos::mqtt::{Connect, Connection, Extras, Packet, Version};
use moorline_chaos::ports;
use tokio::time::{Instant, sleep};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Broker {
    child: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn mosquitto() -> Option<Broker> {
    let home = tempfile::tempdir().unwrap();
    let address = ports::free(1).unwrap()[0];
    let configuration = home.path().join("mosquitto.conf");
    let text = format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port());
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        println!("skipped: mosquitto is not installed");
        return None;
    };
    Some(Broker { child, address, _home: home })
}

fn connect(version: Version, client: &str, clean: bool) -> Connect {
    let client = client.to_owned();
    let receive_max = if version == Version::V5 { 2 } else { RECEIVE_MAX_DEFAULT };
    Connect {
        version,
        client,
        clean,
        keep_alive_s: 30,
        expiry_s: 600,
        receive_max,
        extras: Extras::default(),
    }
}

async fn open(address: SocketAddr, connect: Connect) -> Connection {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Connection::open(address, connect.clone()).await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn next(connection: &mut Connection) -> Packet {
    connection.reader.next_until(Instant::now() + PATIENCE).await.unwrap()
}

#[tokio::test]
async fn a_session_is_resumed_and_everything_comes_in_both_versions() {
    let Some(broker) = mosquitto() else { return };
    for (version, name) in [(Version::V4, "four"), (Version::V5, "five")] {
        let topic = format!("{name}/t");
        let mut subscriber = open(broker.address, connect(version, name, false)).await;
        assert!(!subscriber.present);
        let filters = vec![format!("{name}/+"), "unused/#".to_owned()];
        subscriber.writer.send(&[Packet::Subscribe { packet: 1, filters }]).await.unwrap();
        let suback = Packet::SubAck { packet: 1, codes: vec![2, 2] };
        assert_eq!(next(&mut subscriber).await, suback);
        drop(subscriber);

        let mut publisher = open(broker.address, connect(version, "publisher", true)).await;
        for packet in 1..=3 {
            let payload = vec![7; usize::from(packet) * 1000].into();
            let (topic, packet) = (topic.clone(), Some(packet));
            let publish =
                Packet::Publish { topic, packet, dup: false, once: false, retain: false, payload };
            publisher.writer.send(&[publish]).await.unwrap();
        }
        for packet in 1..=3 {
            assert_eq!(next(&mut publisher).await, Packet::PubAck { packet, reason: 0 });
        }
        publisher.writer.send(&[Packet::PingReq]).await.unwrap();
        assert_eq!(next(&mut publisher).await, Packet::PingResp);

        let mut subscriber = open(broker.address, connect(version, name, false)).await;
        assert!(subscriber.present);
        for many in 1..=3 {
            let Packet::Publish { packet: Some(packet), payload, .. } = next(&mut subscriber).await
            else {
                panic!("a QoS 1 message")
            };
            assert_eq!(payload.len(), many * 1000);
            subscriber.writer.send(&[Packet::PubAck { packet, reason: 0 }]).await.unwrap();
        }
        subscriber.writer.send(&[Packet::Disconnect { reason: 0 }]).await.unwrap();
    }
}
