//! The independent client: `rumqttc`, 3.1.1 and 5, behind one face.

use std::{net::SocketAddr, time::Duration};

use rumqttc::{mqttbytes::v4, v5, v5::mqttbytes::v5 as p5};

use super::{packet::Version, wait::SOON};

/// Requests that the library buffers.
const REQUESTS_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connected client.
pub(crate) enum Device {
    V4(rumqttc::Client, Box<rumqttc::Connection>),
    V5(v5::Client, Box<v5::Connection>),
}

/// What a client is told, whatever the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Connected,
    Subscribed,
    Acked,
    /// A publish was written.
    Wrote,
    Message {
        topic: String,
        payload: String,
        qos: u8,
    },
    Other,
}

impl Device {
    /// Connects with a clean session and waits for the CONNACK.
    #[track_caller]
    pub(crate) fn connect(version: Version, client: &str, to: SocketAddr) -> Self {
        let (host, port) = (to.ip().to_string(), to.port());
        let mut device = match version {
            Version::V4 => {
                let mut options = rumqttc::MqttOptions::new(client, host, port);
                options.set_keep_alive(KEEP_ALIVE);
                let (client, connection) = rumqttc::Client::new(options, REQUESTS_MAX);
                Self::V4(client, Box::new(connection))
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(client, host, port);
                options.set_keep_alive(KEEP_ALIVE);
                let (client, connection) = v5::Client::new(options, REQUESTS_MAX);
                Self::V5(client, Box::new(connection))
            }
        };
        device.wait_for(&Told::Connected);
        device
    }

    /// Subscribes with QoS 1 and waits for the SUBACK.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str) {
        match self {
            Self::V4(client, _) => client.subscribe(filter, rumqttc::QoS::AtLeastOnce).unwrap(),
            Self::V5(client, _) => {
                client.subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).unwrap();
            }
        }
        self.wait_for(&Told::Subscribed);
    }

    /// Publishes; with QoS 1 waits for the PUBACK, with QoS 0 until it is written.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        match self {
            Self::V4(client, _) => {
                let qos = rumqttc::qos(qos).unwrap();
                client.publish(topic, qos, false, payload).unwrap();
            }
            Self::V5(client, _) => {
                let qos = v5::mqttbytes::qos(qos).unwrap();
                client.publish(topic, qos, false, payload.to_owned()).unwrap();
            }
        }
        // The library writes only while it is asked for events.
        self.wait_for(if qos > 0 { &Told::Acked } else { &Told::Wrote });
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Told {
        loop {
            match self.told() {
                message @ Told::Message { .. } => return message,
                Told::Connected | Told::Subscribed | Told::Acked | Told::Wrote | Told::Other => {}
            }
        }
    }

    #[track_caller]
    fn wait_for(&mut self, wanted: &Told) {
        while self.told() != *wanted {}
    }

    #[track_caller]
    fn told(&mut self) -> Told {
        match self {
            Self::V4(_, connection) => {
                told_v4(connection.recv_timeout(SOON).expect("something in time").unwrap())
            }
            Self::V5(_, connection) => {
                told_v5(connection.recv_timeout(SOON).expect("something in time").unwrap())
            }
        }
    }
}

fn told_v4(event: rumqttc::Event) -> Told {
    let packet = match event {
        rumqttc::Event::Incoming(packet) => packet,
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(_)) => return Told::Wrote,
        rumqttc::Event::Outgoing(_) => return Told::Other,
    };
    match packet {
        v4::Packet::ConnAck(ack) => {
            assert_eq!(ack.code, v4::ConnectReturnCode::Success);
            Told::Connected
        }
        v4::Packet::SubAck(ack) => {
            let granted = v4::SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce);
            assert_eq!(ack.return_codes, [granted]);
            Told::Subscribed
        }
        v4::Packet::PubAck(_) => Told::Acked,
        v4::Packet::Publish(publish) => {
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            Told::Message { topic: publish.topic, payload, qos: publish.qos as u8 }
        }
        _ => Told::Other,
    }
}

fn told_v5(event: v5::Event) -> Told {
    let packet = match event {
        v5::Event::Incoming(packet) => packet,
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(_)) => return Told::Wrote,
        v5::Event::Outgoing(_) => return Told::Other,
    };
    match packet {
        p5::Packet::ConnAck(ack) => {
            assert_eq!(ack.code, p5::ConnectReturnCode::Success);
            Told::Connected
        }
        p5::Packet::SubAck(ack) => {
            let granted = p5::SubscribeReasonCode::Success(v5::mqttbytes::QoS::AtLeastOnce);
            assert_eq!(ack.return_codes, [granted]);
            Told::Subscribed
        }
        p5::Packet::PubAck(ack) => {
            assert_eq!(ack.reason, p5::PubAckReason::Success);
            Told::Acked
        }
        p5::Packet::Publish(publish) => {
            let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            Told::Message { topic, payload, qos: publish.qos as u8 }
        }
        _ => Told::Other,
    }
}
