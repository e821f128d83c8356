//! What may be published and subscribed, by class, and under which names (§1.5).
//!
//! Inside, every message has one name, the *canonical* one, in which its device is always spelt out. Each client sees the
//! canonical names that concern it in its own way:
//!
//! ```text
//!   a device says      iot-2/evt/temp/fmt/json          iotdevice-1/mgmt/manage
//!   canonical      iot-2/type/T/id/D/evt/temp/fmt/json  iotdevice-1/type/T/id/D/mgmt/manage
//!   others see     iot-2/type/T/id/D/evt/temp/fmt/json  (nobody: the server takes it)
//! ```
//!
//! What the server says to a device goes to `iotdm-1/type/T/id/D/…`, which the device sees as `iotdm-1/…`; or to
//! `iotdm-1/via/type/G/id/I/type/T/id/D/…` if a gateway spoke for it last and still may, which that gateway alone sees, as
//! `iotdm-1/type/T/id/D/…`.
//!
//! # Invariants
//!
//! - **What is not in a table is refused.** Checked by `what_is_not_in_a_table_is_refused`.
//! - **A device or gateway can subscribe to no name that it can publish to**, so nothing it says comes back to it. An
//!   application that subscribes to events and publishes some for a device hears them, as it does there. Checked by
//!   `nothing_that_a_device_or_gateway_publishes_comes_back`.
//! - **A name is one level.** Checked by [`super::identity`].
//! - **Retain flags mean nothing**: they are cleared, and that is no error. The caller clears them.

mod filter;
mod publish;
mod registration;
mod violation;

use std::fmt;

use moorline_core::{Text, topic};

pub use filter::{Reach, Subscription, Wanted, subscribe};
pub use publish::{Message, publish};
pub use registration::{
    Asks, Group, HELD_MESSAGES_MAX, Role, Standing, resource_group, standard_reach, standing,
};
pub use violation::{Consequence, Violation, consequence, fits};

use super::{
    identity::{ClientId, Who},
    management::address,
};

/// The most levels of a topic that are looked at; more than any topic in the tables has.
const LEVELS_MAX: usize = 16;

/// Why something may not be published or subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    /// No client of this class has such a topic.
    #[error("there is no such topic")]
    Topic,
    /// There is, and this client may not use it.
    #[error("not authorized")]
    NotAuthorised,
}

/// What the role of an API key allows, as bits (§1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(pub u32);

impl Permissions {
    /// Publish events, as a device.
    pub const EVENT_SEND: Self = Self(1);
    /// Hear events.
    pub const EVENT_RECEIVE: Self = Self(2);
    /// Send commands.
    pub const COMMAND_SEND: Self = Self(4);
    /// Hear commands.
    pub const COMMAND_RECEIVE: Self = Self(8);
    /// Speak the device-management protocol. No topic of an application needs it.
    pub const MANAGEMENT: Self = Self(32);
    /// Hear who is connected. That it is this bit is inferred from its name, `dm_status`.
    pub const STATUS: Self = Self(128);

    /// Whether these contain all of `needed`.
    #[must_use]
    pub fn allow(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels of a topic; one more than [`LEVELS_MAX`] if there are more.
fn levels(topic: &[u8]) -> Vec<&[u8]> {
    topic::levels(topic).take(LEVELS_MAX + 1).collect()
}

/// A canonical name as this client sees it; `None` if no filter of its class ever stands for it.
///
/// # Panics
///
/// If the name is not UTF-8: canonical names are ours.
#[must_use]
pub fn seen_by(client: &ClientId, canonical: &[u8]) -> Option<Text> {
    let name = std::str::from_utf8(canonical).expect("canonical names are ours, and ASCII");
    let whole = Some(Text::from(name));
    if name.starts_with("iotdevice-1/") {
        return None;
    }
    match &client.who {
        Who::Application { .. } | Who::SharedApplication { .. } => {
            (!name.starts_with("iotdm-1/")).then_some(whole?)
        }
        Who::Gateway(own) => match name.strip_prefix(address::THROUGH) {
            Some(through) => {
                let rest = through.strip_prefix(&format!("/{own}/"))?;
                Some(Text::from(format!("iotdm-1/{rest}")))
            }
            None => whole,
        },
        Who::Device(device) => {
            let (root, rest) = name.split_once('/')?;
            let rest = rest.strip_prefix(&format!("{device}/"))?;
            let hears =
                root == "iotdm-1" || rest.starts_with("cmd/") || matches!(rest, "mon" | "notify");
            hears.then(|| Text::from(format!("{root}/{rest}")))
        }
    }
}
