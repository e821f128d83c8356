//! The inbox: which commands a device hears, and under which names (§3.4).
//!
//! | filter | hears |
//! |---|---|
//! | `command/inbox/#`, `command/inbox/+/#` | its own commands, and those of all devices that it is a gateway of |
//! | `command/inbox//#` | its own |
//! | `command/inbox/DEVICE/#` | those of this device, be it itself or another |
//!
//! Between nodes a command goes once to each who may hear it: on `$command/RECIPIENT/DEVICE/COMMAND`.
//!
//! # Invariants
//!
//! - **A command has one recipient's name in its canonical topic**, so no device hears what was for another. Checked by
//!   `tests/it/drogue/inbox.rs`.

use moorline_core::Text;

use super::words::{escaped, unescaped};

/// What every filter begins with.
const PREFIX: &str = "command/inbox/";
/// What every canonical topic begins with: no wildcard of a client reaches it.
const CANONICAL: &str = "$command";

/// What a subscription is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inbox {
    /// Its own commands, and those it is a gateway of.
    All,
    /// Its own.
    Own,
    /// Those of this device.
    Device(Text),
}

/// A command on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// Who hears it.
    pub recipient: String,
    /// Whom it is for.
    pub device: String,
    /// Its name.
    pub command: String,
}

impl Inbox {
    /// Reads a filter; [`None`] for one that there is not.
    #[must_use]
    pub fn parse(filter: &str) -> Option<Self> {
        match filter.strip_prefix(PREFIX)? {
            "#" | "+/#" => Some(Self::All),
            "/#" => Some(Self::Own),
            named => {
                let device = named.strip_suffix("/#")?;
                let is_plain = !device.contains(['/', '+', '#']);
                is_plain.then(|| Self::Device(Text::from(device)))
            }
        }
    }

    /// The topic by which a command for a device comes to `own`, if this subscription is for it.
    #[must_use]
    pub fn topic(&self, own: &str, device: &str, command: &str) -> Option<String> {
        let is_own = device == own;
        let named = match self {
            Self::All if is_own => "",
            Self::All => device,
            Self::Own if is_own => "",
            Self::Device(wanted) if wanted.as_str() == device => device,
            Self::Own | Self::Device(_) => return None,
        };
        Some(format!("{PREFIX}{named}/{command}"))
    }
}

/// Whether a command may have this name: it stands in a topic.
#[must_use]
pub fn is_command(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '\0'])
}

fn level(name: &str) -> String {
    escaped(name, |byte| matches!(byte, b'/' | b'+' | b'#' | b'%') || byte.is_ascii_control())
}

/// Where a command for a device goes that this one hears.
#[must_use]
pub fn canonical(recipient: &str, device: &str, command: &str) -> Text {
    let [recipient, device, command] = [recipient, device, command].map(level);
    Text::from(format!("{CANONICAL}/{recipient}/{device}/{command}"))
}

/// What hears all commands of a recipient, or those for one device.
#[must_use]
pub fn canonical_filter(recipient: &str, device: Option<&str>) -> Text {
    let recipient = level(recipient);
    Text::from(match device {
        None => format!("{CANONICAL}/{recipient}/#"),
        Some(device) => format!("{CANONICAL}/{recipient}/{}/+", level(device)),
    })
}

/// Reads a canonical topic.
#[must_use]
pub fn read(topic: &str) -> Option<Addressed> {
    let mut levels = topic.split('/');
    if levels.next() != Some(CANONICAL) {
        return None;
    }
    let mut next = || levels.next().and_then(unescaped);
    let (recipient, device, command) = (next()?, next()?, next()?);
    levels.next().is_none().then_some(Addressed { recipient, device, command })
}
