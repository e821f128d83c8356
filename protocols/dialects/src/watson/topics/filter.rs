//! Which filters may be subscribed to, and what canonical filter each stands for.

use moorline_core::{Text, topic};

use super::{Forbidden, Permissions, levels};
use crate::watson::{
    identity::{ClientId, DeviceName, Who, is_name},
    management::address,
};

/// What a subscription is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Events.
    Events,
    /// Commands.
    Commands,
    /// What the server says to managed devices.
    Management,
    /// Who is connected, of devices: retained.
    Presence,
    /// Who is connected, of applications: retained.
    AppPresence,
    /// What a gateway is told of its failures.
    Notices,
    /// States of digital twins and their errors. Nobody publishes these here.
    State,
}

impl Wanted {
    /// What an application's key needs to subscribe to it.
    #[must_use]
    pub fn needs(self) -> Permissions {
        match self {
            Self::Events | Self::State => Permissions::EVENT_RECEIVE,
            Self::Commands => Permissions::COMMAND_RECEIVE,
            Self::Management | Self::Notices => Permissions::MANAGEMENT,
            Self::Presence | Self::AppPresence => Permissions::STATUS,
        }
    }
}

/// How far a filter's wildcards go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// To the client itself: its name is in the canonical filter.
    Itself,
    /// To the gateway, and the devices it may speak for. The filter alone would match more.
    Gateway,
    /// To the whole organisation.
    Org,
}

/// A filter that may be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// What it is to.
    pub wanted: Wanted,
    /// The canonical filter. Several filters of a client may have the same one: a message comes once, and the subscription
    /// lasts until the last of them is unsubscribed.
    pub filter: Text,
    /// How far its wildcards go.
    pub reach: Reach,
    /// The share it goes to, for an `A`.
    pub share: Option<Text>,
}

/// What a filter asks for.
///
/// # Errors
///
/// [`Forbidden`]. An application's key is not asked here ([`Wanted::needs`]).
pub fn subscribe(client: &ClientId, filter: &[u8]) -> Result<Subscription, Forbidden> {
    if !topic::is_filter(filter) {
        return Err(Forbidden::Topic);
    }
    let levels = levels(filter);
    let found = match &client.who {
        Who::Device(own) => device(own, &levels, filter),
        Who::Gateway(own) => gateway(own, &levels, filter),
        Who::Application { .. } | Who::SharedApplication { .. } => {
            application(&levels).map(|wanted| (wanted, text(filter), Reach::Org))
        }
    };
    let (wanted, filter, reach) = found.ok_or(Forbidden::Topic)?;
    if client.is_quickstart() && !is_for_quickstart(client, wanted, &levels) {
        return Err(Forbidden::NotAuthorised);
    }
    let share = match &client.who {
        Who::SharedApplication { app, .. } => Some(Text::from(format!("{}:{app}", client.org))),
        Who::Device(_) | Who::Gateway(_) | Who::Application { .. } => None,
    };
    Ok(Subscription { wanted, filter, reach, share })
}

/// A filter whose levels were all compared, so that it is ASCII.
fn text(filter: &[u8]) -> Text {
    Text::from(String::from_utf8_lossy(filter).into_owned())
}

/// Whether these levels are each a name or `+`.
fn any(levels: &[&[u8]]) -> bool {
    levels.iter().all(|level| *level == b"+" || is_name(level))
}

fn device(own: &DeviceName, levels: &[&[u8]], filter: &[u8]) -> Option<(Wanted, Text, Reach)> {
    let (wanted, filter) = match levels {
        // iot-c asks for commands so.
        [b"iot-2", b"cmd", b"#"] => (Wanted::Commands, format!("iot-2/{own}/cmd/+/fmt/+")),
        [b"iot-2", b"cmd", command, b"fmt", format] if any(&[command, format]) => {
            let (command, format) = (text(command), text(format));
            (Wanted::Commands, format!("iot-2/{own}/cmd/{command}/fmt/{format}"))
        }
        [b"iot-2", b"mon"] => (Wanted::Presence, format!("iot-2/{own}/mon")),
        [b"iot-2", b"notify"] => (Wanted::Notices, format!("iot-2/{own}/notify")),
        [b"iotdm-1", _, ..] => {
            let rest = std::str::from_utf8(&filter[b"iotdm-1/".len()..]).ok()?;
            (Wanted::Management, format!("iotdm-1/{own}/{rest}"))
        }
        _ => return None,
    };
    Some((wanted, Text::from(filter), Reach::Itself))
}

fn gateway(own: &DeviceName, levels: &[&[u8]], filter: &[u8]) -> Option<(Wanted, Text, Reach)> {
    match levels {
        [b"iot-2", b"type", kind, b"id", id, b"cmd", command, b"fmt", format]
            if any(&[kind, id, command, format]) =>
        {
            Some((Wanted::Commands, text(filter), Reach::Gateway))
        }
        [b"iot-2", b"type", kind, b"id", id, b"mon"] if any(&[kind, id]) => {
            Some((Wanted::Presence, text(filter), Reach::Gateway))
        }
        [b"iot-2", b"type", kind, b"id", id, b"notify"]
            if *kind == own.kind.as_bytes() && *id == own.id.as_bytes() =>
        {
            Some((Wanted::Notices, text(filter), Reach::Itself))
        }
        [b"iotdm-1", b"#"] | [b"iotdm-1", b"type", b"#"] => Some(all_management(own)),
        [b"iotdm-1", b"type", kind, b"id", id, _, ..] if any(&[kind, id]) => {
            Some(all_management(own))
        }
        _ => None,
    }
}

/// Every filter of a gateway for this is the same one: what is said through it, to itself and to devices that it spoke for last.
fn all_management(own: &DeviceName) -> (Wanted, Text, Reach) {
    (
        Wanted::Management,
        Text::from(format!("{}/{own}/type/+/id/+/#", address::THROUGH)),
        Reach::Itself,
    )
}

fn application(levels: &[&[u8]]) -> Option<Wanted> {
    let (names, wanted): (&[&[u8]], _) = match levels {
        [b"iot-2", b"type", t, b"id", d, b"evt", e, b"fmt", f] => (&[t, d, e, f], Wanted::Events),
        [b"iot-2", b"type", t, b"id", d, b"cmd", c, b"fmt", f] => (&[t, d, c, f], Wanted::Commands),
        [b"iot-2", b"type", t, b"id", d, b"mon"] => (&[t, d], Wanted::Presence),
        [b"iot-2", b"app", app, b"mon"] => (&[app], Wanted::AppPresence),
        [b"iot-2", b"type", t, b"id", d, b"intf", i, b"evt", b"state"]
        | [b"iot-2", b"thing", b"type", t, b"id", d, b"intf", i, b"evt", b"state"] => {
            (&[t, d, i], Wanted::State)
        }
        [b"iot-2", b"type", t, b"id", d, b"err", b"data"]
        | [b"iot-2", b"thing", b"type", t, b"id", d, b"err", b"data"] => (&[t, d], Wanted::State),
        _ => return None,
    };
    any(names).then_some(wanted)
}

/// Quickstart's applications watch one device at a time, and nobody else subscribes.
fn is_for_quickstart(client: &ClientId, wanted: Wanted, levels: &[&[u8]]) -> bool {
    let exact = |at: usize| levels.get(at).is_some_and(|level| *level != b"+");
    let watched = match wanted {
        Wanted::Events | Wanted::Presence => exact(4),
        Wanted::AppPresence => exact(2),
        Wanted::Commands | Wanted::Management | Wanted::Notices | Wanted::State => false,
    };
    watched && matches!(client.who, Who::Application { .. })
}
