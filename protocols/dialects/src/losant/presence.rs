//! Who is connected and who was: entries of the connection log, and how a device that has no connection says how it is (§2.7, §2.8).
//!
//! Invariant: **what is kept is read as the same**. Checked by `tests/it/losant/presence.rs`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Invalid, state::time, when::When};

/// Why a connection is over. The vendor documents the first; the others are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It broke.
    Lost,
    /// Nothing was heard for longer than its keep-alive allows.
    Silent,
    /// The client said goodbye.
    Client,
    /// It said or heard too much.
    Limited,
    /// It said something where it may not.
    Topic,
    /// It said something that cannot be said here.
    Misused,
    /// It said too much at once.
    TooLarge,
    /// It came again elsewhere.
    Elsewhere,
    /// It may not be here any more.
    Revoked,
    /// The node takes leave.
    Stopping,
    /// What it said could not be kept, or sent on, and there was no other way to say so.
    Refused,
}

impl Reason {
    /// As it is logged.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Lost => "Connection Lost",
            Self::Silent => "Keep Alive Timeout",
            Self::Client => "Client Disconnected",
            Self::Limited => "Rate Limit Exceeded",
            Self::Topic => "Unauthorized Topic",
            Self::Misused => "Protocol Violation",
            Self::TooLarge => "Payload Too Large",
            Self::Elsewhere => "Connected Elsewhere",
            Self::Revoked => "Access Revoked",
            Self::Stopping => "Server Restarting",
            Self::Refused => "Message Not Accepted",
        }
    }
}

/// That a device came, or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Whether it is connected from now on.
    pub connected: bool,
    /// When.
    pub at_ms: i64,
    /// When the connection that is over began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at_ms: Option<i64>,
    /// Why it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came over it.
    #[serde(default)]
    pub from_device: u64,
    /// What went over it.
    #[serde(default)]
    pub to_device: u64,
    /// Whether somebody said so, and no connection did it.
    #[serde(default)]
    pub said: bool,
}

impl Change {
    /// Reads what was kept.
    #[must_use]
    pub fn read(kept: &Value) -> Option<Self> {
        Deserialize::deserialize(kept).ok()
    }

    /// As it is kept.
    #[must_use]
    pub fn kept(&self) -> Value {
        json!(self)
    }

    /// An entry of the log.
    #[must_use]
    pub fn entry(&self) -> Value {
        let mut entry = json!({ "connected": self.connected, "time": time(self.at_ms) });
        if !self.connected {
            entry["disconnectReason"] = json!(self.reason);
            entry["messagesFromClient"] = json!(self.from_device);
            entry["messagesToClient"] = json!(self.to_device);
            if let Some(began) = self.connected_at_ms {
                entry["connectedAt"] = json!(time(began));
            }
        }
        entry
    }

    /// For who hears of it, in the words of the vendor's triggers.
    #[must_use]
    pub fn event(&self, application: &str, device: &str) -> Value {
        let mut event = json!({
            "applicationId": application, "deviceId": device,
            "connected": self.connected, "time": time(self.at_ms),
        });
        if !self.connected {
            event["disconnectReason"] = json!(self.reason);
            event["messagesFromDevice"] = json!(self.from_device);
            event["messagesToDevice"] = json!(self.to_device);
            if let Some(began) = self.connected_at_ms {
                event["connectedAt"] = json!(time(began));
            }
        }
        event
    }

    /// How the device is, for its description.
    #[must_use]
    pub fn info(&self) -> Value {
        json!({ "time": time(self.at_ms), "connected": u8::from(self.connected) })
    }
}

/// How a device is of which nothing is known.
#[must_use]
pub fn unknown() -> Value {
    json!({ "time": null, "connected": null })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    status: String,
    #[serde(default)]
    connected_at: Option<Value>,
    #[serde(default)]
    disconnected_at: Option<Value>,
    #[serde(default)]
    disconnect_reason: Option<String>,
    #[serde(default)]
    messages_from_client: Option<u64>,
    #[serde(default)]
    messages_to_client: Option<u64>,
}

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 255;

/// Reads what somebody says of a device without a connection.
///
/// # Errors
///
/// Why it can't be.
pub fn said(body: &[u8], now_ms: i64) -> Result<Change, Invalid> {
    let said: Said = serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))?;
    let connected = match said.status.as_str() {
        "connected" => true,
        "disconnected" => false,
        other => return Err(Invalid(format!("status: connected or disconnected, not {other:?}"))),
    };
    let at = |when: &Option<Value>| When::read(when.as_ref()).ms(now_ms);
    let reason = said.disconnect_reason.filter(|_| !connected);
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
        return Err(Invalid::new("disconnectReason: 255 characters at most"));
    }
    Ok(Change {
        connected,
        at_ms: if connected { at(&said.connected_at) } else { at(&said.disconnected_at) },
        connected_at_ms: said
            .connected_at
            .as_ref()
            .filter(|_| !connected)
            .map(|when| When::read(Some(when)).ms(now_ms)),
        reason,
        from_device: said.messages_from_client.unwrap_or_default(),
        to_device: said.messages_to_client.unwrap_or_default(),
        said: true,
    })
}
