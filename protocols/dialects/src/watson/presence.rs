//! Who is connected, as JSON on `mon` topics (§1.6).
//!
//! # Invariants
//!
//! - **One order of keys, nothing empty.** Programs compare these texts. Checked by `presence_has_its_form`.
//! - **A takeover says nothing that stays.** The older connection's end comes late and would cover the newer one's beginning.
//!   Checked by `what_stays_is_by_the_table`.

use moorline_core::{Text, UnixMillis, calendar::rfc3339};
use serde::Serialize;

use super::{
    close::Close,
    connect::Version,
    identity::{ClientId, USE_TOKEN_AUTH, Who},
};

/// How long a retained presence message lasts: eight days.
pub const RETAINED_S: u32 = 8 * 24 * 3_600;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    /// It connected.
    Connect,
    /// It is gone.
    Disconnect,
    /// It was not let in.
    FailedConnect,
    /// It was heard from without a connection.
    Active,
}

/// How it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT.
    Mqtt {
        /// Its version.
        version: Version,
        /// Whether over WebSocket.
        websocket: bool,
    },
    /// HTTP.
    Http,
}

impl Protocol {
    fn name(self) -> String {
        match self {
            Self::Mqtt { version, websocket: false } => version.name().to_owned(),
            Self::Mqtt { version, websocket: true } => format!("{}-ws", version.name()),
            Self::Http => "http".to_owned(),
        }
    }
}

/// What went over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes from the client.
    pub read_bytes: u64,
    /// Messages from the client.
    pub read_messages: u64,
    /// Bytes to the client.
    pub written_bytes: u64,
    /// Messages to the client.
    pub written_messages: u64,
}

/// News of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News<'a> {
    /// What happened.
    pub action: Action,
    /// When.
    pub at: UnixMillis,
    /// To whom.
    pub client: &'a ClientId,
    /// From which address.
    pub address: &'a str,
    /// To which port of ours.
    pub port: u16,
    /// Whether over TLS.
    pub secure: bool,
    /// How it speaks.
    pub protocol: Protocol,
    /// The user name it gave.
    pub user: &'a str,
    /// The name in its certificate.
    pub certificate: &'a str,
    /// When it connected.
    pub connected: Option<UnixMillis>,
    /// Why it ended, or was not let in.
    pub close: Close,
    /// What went over it; only for [`Action::Disconnect`].
    pub traffic: Traffic,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    action: Action,
    time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_addr: &'a str,
    #[serde(rename = "ClientID")]
    client_id: String,
    port: u16,
    secure: bool,
    protocol: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cert_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(flatten)]
    traffic: Option<WrittenTraffic>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenTraffic {
    read_bytes: u64,
    read_msg: u64,
    write_bytes: u64,
    write_msg: u64,
}

/// A presence message: QoS 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its canonical topic.
    pub topic: Text,
    /// Its payload; empty to clear what is retained.
    pub payload: String,
    /// Whether it is retained, for [`RETAINED_S`].
    pub retained: bool,
}

/// Where a client's presence is published.
#[must_use]
pub fn topic(client: &ClientId) -> Text {
    Text::from(match &client.who {
        Who::Device(device) | Who::Gateway(device) => format!("iot-2/{device}/mon"),
        Who::Application { app } | Who::SharedApplication { app, .. } => {
            format!("iot-2/app/{app}/mon")
        }
    })
}

/// The payload.
#[must_use]
pub fn payload(news: &News<'_>) -> String {
    let ended = news.close != Close::Normal;
    let traffic = (news.action == Action::Disconnect).then_some(WrittenTraffic {
        read_bytes: news.traffic.read_bytes,
        read_msg: news.traffic.read_messages,
        write_bytes: news.traffic.written_bytes,
        write_msg: news.traffic.written_messages,
    });
    let written = Written {
        action: news.action,
        time: rfc3339(news.at),
        client_addr: news.address,
        client_id: news.client.to_string(),
        port: news.port,
        secure: news.secure,
        protocol: news.protocol.name(),
        // What every device says tells nothing.
        user: if news.user == USE_TOKEN_AUTH { "" } else { news.user },
        cert_name: news.certificate,
        connect_time: news.connected.map(rfc3339),
        close_code: ended.then(|| news.close.number()),
        reason: if ended { news.close.text() } else { "" },
        traffic,
    };
    serde_json::to_string(&written).expect("texts and numbers have a form in JSON")
}

/// What is published about it, in order.
#[must_use]
pub fn published(news: &News<'_>) -> Vec<Published> {
    let application = news.client.class().is_application();
    let http = news.protocol == Protocol::Http;
    let taken_over = news.close == Close::ClientIdReused;
    // Names of quickstart are anybody's, and there is no end of them: nothing of those stays.
    let stays = !http && !news.client.is_quickstart();
    let retained = match news.action {
        Action::Connect => stays,
        Action::Disconnect => stays && !application && !taken_over,
        Action::FailedConnect | Action::Active => false,
    };
    let clears = news.action == Action::Disconnect && application && !taken_over && stays;
    let topic = topic(news.client);
    let mut all = vec![Published { topic: topic.clone(), payload: payload(news), retained }];
    if clears {
        all.push(Published { topic, payload: String::new(), retained: true });
    }
    all
}
