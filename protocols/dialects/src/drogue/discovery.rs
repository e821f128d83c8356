//! Where the endpoints are, for clients that ask (§3.1): `/.well-known/drogue-endpoints` and `/.well-known/drogue-version`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Where the endpoints are said.
pub const ENDPOINTS_PATH: &str = "/.well-known/drogue-endpoints";
/// Where the version is said.
pub const VERSION_PATH: &str = "/.well-known/drogue-version";
/// Whose behaviour this is: the vendor's last release.
const VERSION: &str = "0.11.0";

/// Whether a path is one of these.
#[must_use]
pub fn is_path(path: &str) -> bool {
    matches!(path, ENDPOINTS_PATH | VERSION_PATH)
}

/// What listens on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listening {
    /// MQTT by TLS, or without.
    pub mqtt: Option<u16>,
    /// MQTT over WebSocket: its port, and whether by TLS.
    pub websocket: Option<(u16, bool)>,
}

/// The endpoints by the host and scheme by which they were asked for. Who has shown nothing is told where the API is, and no more.
#[must_use]
pub fn endpoints(host: &str, tls: bool, listening: Option<&Listening>) -> Bytes {
    let base = format!("{}://{host}", if tls { "https" } else { "http" });
    let mut said = Map::new();
    said.insert("api".to_owned(), Value::from(base.as_str()));
    said.insert("registry".to_owned(), json!({ "url": base }));
    if let Some(listening) = listening {
        said.insert("http".to_owned(), json!({ "url": base }));
        said.insert("command_url".to_owned(), Value::from(base.as_str()));
        let url = format!("{}://{host}", if tls { "wss" } else { "ws" });
        said.insert("websocket_integration".to_owned(), json!({ "url": url }));
        let name = name_of(host);
        if let Some(port) = listening.mqtt {
            let mqtt = json!({ "host": name, "port": port });
            said.insert("mqtt".to_owned(), mqtt.clone());
            said.insert("mqtt_integration".to_owned(), mqtt);
        }
        if let Some((port, tls)) = listening.websocket {
            let scheme = if tls { "wss" } else { "ws" };
            let url = json!({ "url": format!("{scheme}://{name}:{port}/mqtt") });
            for key in ["mqtt_ws", "mqtt_ws_browser"] {
                said.insert(key.to_owned(), url.clone());
            }
            for key in ["mqtt_integration_ws", "mqtt_integration_ws_browser"] {
                said.insert(key.to_owned(), url.clone());
            }
        }
    }
    Bytes::from(Value::Object(said).to_string())
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The version.
#[must_use]
pub fn version() -> Bytes {
    Bytes::from(json!({ "version": VERSION }).to_string())
}
