//! Ports at which a node speaks MQTT, MQTT over WebSocket and HTTP: `mixed` of `[listen]`.

use std::net::{SocketAddr, TcpStream};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    client::{IntoClientRequest, client},
};

use crate::{
    harness::{
        http,
        packet::{self, Connect, Version},
        wait::SOON,
    },
    watson::{APP_KEY, Org, device},
};

/// Connects over a WebSocket: the first packet that comes.
#[track_caller]
fn over_websocket(to: SocketAddr, connect: &Connect) -> (impl Drop + use<>, Vec<u8>) {
    let mut request = format!("ws://{to}/mqtt").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (mut socket, _) = client(request, stream).unwrap();
    socket.send(Message::binary(packet::connect(connect))).unwrap();
    let answer = socket.read().unwrap().into_data();
    (Box::new(socket), answer.to_vec())
}

#[test]
fn every_port_speaks_what_a_device_was_built_for() {
    let org = Org::start_as(&["http", "mixed"]);
    let token = org.register("pump", "p1", "device");
    let (mut watch, _) = org.application(Version::V4, "watch").to(org.at(2));
    watch.subscribe_1("iot-2/type/pump/id/p1/mon");
    let key = format!("Basic {}", STANDARD.encode(format!("{APP_KEY}:{}", org.app)));
    let pump = device(Version::V4, "pump", "p1", &token);
    for to in [org.at(1), org.api.at(1, "http")] {
        let mut said = |action: &str| {
            let message = watch.message();
            watch.ack(&message);
            let said: Value = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!(said["Action"], json!(action), "{said}");
            (said["Protocol"].clone(), said["Port"].clone())
        };
        let (client, _) = pump.to(to);
        assert_eq!(said("Connect"), (json!("mqtt4"), json!(to.port())));
        client.disconnect();
        said("Disconnect");

        let (socket, answer) = over_websocket(to, &pump);
        assert_eq!(answer, [0x20, 2, 0, 0]);
        assert_eq!(said("Connect"), (json!("mqtt4-ws"), json!(to.port())));
        drop(socket);
        said("Disconnect");

        let types = "/api/v0002/device/types";
        let answer = http::api("GET", to, types, &[("authorization", &key)], "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}
