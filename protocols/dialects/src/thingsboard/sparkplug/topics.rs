//! Sparkplug's topics: `spBv1.0/{group}/{kind}/{node}`, and `/{device}` behind it for a device of the node.
//!
//! Invariant: a connection is one node's. What names another group or node means nothing there. Checked by
//! `tests/it/thingsboard/sparkplug/topics.rs`.

use crate::thingsboard::gateway::NAME_BYTES_MAX;

/// What all topics begin with.
pub const NAMESPACE: &str = "spBv1.0";
/// What stands in a group's place in topics that say whether an application is there; alone in front of them before Sparkplug 3.
const STATE: &str = "STATE";

/// What a node says of itself, or of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is there, and these are its metrics.
    Birth,
    /// Values.
    Data,
    /// It is gone.
    Death,
}

impl Kind {
    /// As a topic has it, of a node.
    #[must_use]
    pub fn of_node(self) -> &'static str {
        match self {
            Self::Birth => "NBIRTH",
            Self::Data => "NDATA",
            Self::Death => "NDEATH",
        }
    }

    /// As a topic has it, of a device.
    #[must_use]
    pub fn of_device(self) -> &'static str {
        match self {
            Self::Birth => "DBIRTH",
            Self::Data => "DDATA",
            Self::Death => "DDEATH",
        }
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its group.
    group: String,
    /// Its own name.
    node: String,
}

impl Place {
    /// The place that the topic of a will names: that of a node's death certificate.
    #[must_use]
    pub fn of_will(topic: &str) -> Option<Self> {
        match *topic.split('/').collect::<Vec<_>>().as_slice() {
            [NAMESPACE, group, "NDEATH", node] if is_id(group) && is_id(node) => {
                Some(Self { group: group.to_owned(), node: node.to_owned() })
            }
            _ => None,
        }
    }

    /// What a topic says: what of it, and of which device if not of the node. `None` if it is none of this node's.
    #[must_use]
    pub fn read<'a>(&self, topic: &'a [u8]) -> Option<(Kind, Option<&'a str>)> {
        let topic = std::str::from_utf8(topic).ok()?;
        let levels: Vec<&str> = topic.split('/').collect();
        let (kind, device) = match *levels.as_slice() {
            [NAMESPACE, group, kind, node] if self.is(group, node) => (kind, None),
            [NAMESPACE, group, kind, node, device] if self.is(group, node) && is_id(device) => {
                (kind, Some(device))
            }
            _ => return None,
        };
        let kind = match (kind, device) {
            ("NBIRTH", None) | ("DBIRTH", Some(_)) => Kind::Birth,
            ("NDATA", None) | ("DDATA", Some(_)) => Kind::Data,
            ("NDEATH", None) | ("DDEATH", Some(_)) => Kind::Death,
            _ => return None,
        };
        Some((kind, device))
    }

    /// Whether the node may subscribe to a filter: to commands to it and to its devices, and to whether applications are there. It is told
    /// commands whether it did or not; of applications nothing is told.
    #[must_use]
    pub fn grants(&self, filter: &[u8]) -> bool {
        let Ok(filter) = std::str::from_utf8(filter) else { return false };
        let one = |level: &str| level == "+" || level == "#" || is_id(level);
        match *filter.split('/').collect::<Vec<_>>().as_slice() {
            [NAMESPACE, STATE, host] | [STATE, host] => one(host),
            [NAMESPACE, group, "NCMD", node] => self.is(group, node),
            [NAMESPACE, group, "NCMD", node, "#"] => self.is(group, node),
            [NAMESPACE, group, "DCMD", node, device] => self.is(group, node) && one(device),
            _ => false,
        }
    }

    /// Where a command to the node goes, or to a device.
    #[must_use]
    pub fn command(&self, device: Option<&str>) -> String {
        let Self { group, node } = self;
        let kind = command_kind(device.is_some());
        match device {
            None => format!("{NAMESPACE}/{group}/{kind}/{node}"),
            Some(device) => format!("{NAMESPACE}/{group}/{kind}/{node}/{device}"),
        }
    }

    fn is(&self, group: &str, node: &str) -> bool {
        (self.group.as_str(), self.node.as_str()) == (group, node)
    }
}

/// What a topic has for a command, to a device or to a node: also the method of the call that makes one.
#[must_use]
pub fn command_kind(to_device: bool) -> &'static str {
    if to_device { "DCMD" } else { "NCMD" }
}

/// Whether a level can be a name. A device's is its name everywhere else, too.
fn is_id(level: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&level.len()) && !level.contains(['+', '#'])
}
