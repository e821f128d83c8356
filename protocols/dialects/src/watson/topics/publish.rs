//! What a publish means.

use std::fmt;

use moorline_core::Text;

use super::{Forbidden, Permissions, levels};
use crate::watson::{
    identity::{ClientId, DeviceName, Who, name},
    management::address::Upward,
};

/// The one format of quickstart.
const QUICKSTART_FORMAT: &[u8] = b"json";

/// What is said, by MQTT or HTTP. Its `Display` form is the canonical topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// News of a device.
    Event {
        /// Whose.
        device: DeviceName,
        /// Which.
        event: Text,
        /// How the payload is written. Any name; nobody looks into the payload for it.
        format: Text,
    },
    /// A command for a device.
    Command {
        /// For whom.
        device: DeviceName,
        /// Which.
        command: Text,
        /// How the payload is written.
        format: Text,
    },
    /// A managed device's side of the device-management protocol. The server takes it; nobody else hears it.
    Management {
        /// Whose.
        device: DeviceName,
        /// What it says.
        address: Upward,
    },
}

impl Message {
    /// Whom it is about.
    #[must_use]
    pub fn device(&self) -> &DeviceName {
        match self {
            Self::Event { device, .. }
            | Self::Command { device, .. }
            | Self::Management { device, .. } => device,
        }
    }

    /// What an application's key needs to publish it.
    #[must_use]
    pub fn needs(&self) -> Permissions {
        match self {
            Self::Event { .. } => Permissions::EVENT_SEND,
            Self::Command { .. } => Permissions::COMMAND_SEND,
            Self::Management { .. } => Permissions::MANAGEMENT,
        }
    }

    /// The canonical topic.
    #[must_use]
    pub fn topic(&self) -> Text {
        Text::from(self.to_string())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { device, event, format } => {
                write!(f, "iot-2/{device}/evt/{event}/fmt/{format}")
            }
            Self::Command { device, command, format } => {
                write!(f, "iot-2/{device}/cmd/{command}/fmt/{format}")
            }
            Self::Management { device, address } => write!(f, "iotdevice-1/{device}/{address}"),
        }
    }
}

/// What a publish to this topic means.
///
/// # Errors
///
/// [`Forbidden`]. Whether a gateway may speak for the device, and an application for anybody, is not asked here
/// ([`super::standing`], [`Message::needs`]).
pub fn publish(client: &ClientId, topic: &[u8]) -> Result<Message, Forbidden> {
    let levels = levels(topic);
    let message = match &client.who {
        Who::Device(own) => device(own, &levels),
        Who::Gateway(_) => gateway(&levels),
        Who::Application { .. } | Who::SharedApplication { .. } => application(&levels),
    };
    let message = message.ok_or(Forbidden::Topic)?;
    if client.is_quickstart() && !is_for_quickstart(client, &message) {
        return Err(Forbidden::NotAuthorised);
    }
    Ok(message)
}

fn device(own: &DeviceName, levels: &[&[u8]]) -> Option<Message> {
    match levels {
        [b"iot-2", b"evt", event, b"fmt", format] => {
            Some(Message::Event { device: own.clone(), event: name(event)?, format: name(format)? })
        }
        [b"iotdevice-1", rest @ ..] => {
            Some(Message::Management { device: own.clone(), address: Upward::parse(rest)? })
        }
        _ => None,
    }
}

fn gateway(levels: &[&[u8]]) -> Option<Message> {
    match levels {
        [b"iotdevice-1", b"type", kind, b"id", id, rest @ ..] => Some(Message::Management {
            device: DeviceName::new(kind, id)?,
            address: Upward::parse(rest)?,
        }),
        _ => application(levels).filter(|message| matches!(message, Message::Event { .. })),
    }
}

fn application(levels: &[&[u8]]) -> Option<Message> {
    let [b"iot-2", b"type", kind, b"id", id, what, word, b"fmt", format] = levels else {
        return None;
    };
    let (device, word, format) = (DeviceName::new(kind, id)?, name(word)?, name(format)?);
    match *what {
        b"evt" => Some(Message::Event { device, event: word, format }),
        b"cmd" => Some(Message::Command { device, command: word, format }),
        _ => None,
    }
}

/// Quickstart's devices publish JSON events, and nobody else publishes.
fn is_for_quickstart(client: &ClientId, message: &Message) -> bool {
    let json = match message {
        Message::Event { format, .. } => format.as_bytes() == QUICKSTART_FORMAT,
        Message::Command { .. } | Message::Management { .. } => false,
    };
    json && matches!(client.who, Who::Device(_))
}
