//! Presence: whether a device is connected, was heard from a while ago, or is silent for too long. The types that commands,
//! answers, events and reads share.
//!
//! ```text
//!   connected ──last connection gone──► active ──nothing heard for its threshold──► offline
//!       ▲                                  ▲                                           │
//!       └────── a connection ──────────────┴────────── heard from ◄────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Numbers are never given twice.** Rows and answers hold those of [`PresenceState`]. Frozen by the golden tests of
//!   `codec/presence.rs` and `rows/presence.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::presence`), who notices connections and collects reports (`node/service`).

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, TenantId, Text, UnixMillis};

use crate::events::Retention;

/// Reports of one command: each reads two rows and writes up to three, so a few milliseconds.
pub const PRESENCE_REPORTS_MAX: usize = 256;
/// Devices of one shard that are connected or active: they are held in memory, about 150 bytes and the name each. Of more
/// nothing is noted until others are offline.
pub const PRESENT_PER_SHARD_MAX: usize = 1_000_000;
/// Processes that may hold a device connected at once; beyond it the first is forgotten, and repaired by its next report.
pub const PRESENCE_LINKS_MAX: usize = 8;
/// Devices that one `Tick` finds offline.
pub const OFFLINE_PER_TICK_MAX: usize = 4_096;
/// Devices that one `NodeGone` disconnects.
pub const PRESENCE_PER_NODE_GONE_MAX: usize = 4_096;
/// Credentials of a device whose last use is kept: as many as it may have.
pub const PRESENCE_USED_MAX: usize = crate::registry::CREDENTIALS_MAX;
/// Names that one question may have.
pub const PRESENCE_PER_QUESTION_MAX: usize = 256;

/// What a leader proposes about presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportPresence {
    /// The node that serves these devices.
    pub node: NodeId,
    /// Its process.
    pub incarnation: Incarnation,
    /// At most [`PRESENCE_REPORTS_MAX`]; more are refused.
    pub reports: Vec<PresenceReport>,
}

/// How a device stands with one process. As it is, not what changed: the same again changes nothing. Of a device that is
/// gone, or of a later one of its name, it is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceReport {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version it was made with.
    pub born: u64,
    /// It has a connection there now.
    pub open: bool,
    /// It got one since the last report, which may be gone again.
    pub came: bool,
    /// It was heard from so long before this was proposed.
    pub heard_ago_ms: Option<u32>,
    /// By which protocol; opaque here.
    pub by: u8,
    /// What it proved its identity with; 0 if that is not known.
    pub credential: u64,
    /// Silent for so many seconds, it is offline.
    pub offline_after_s: u32,
    /// How events of its changes are kept; without it there are none.
    pub events: Option<Retention>,
}

/// How a device is. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PresenceState {
    /// It has a connection.
    Connected = 1,
    /// It has none, and was heard from within its threshold.
    Active = 2,
    /// It is silent for longer.
    Offline = 3,
}

impl PresenceState {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::Connected, Self::Active, Self::Offline];

    /// The state of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Its name, for eyes and filters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Active => "active",
            Self::Offline => "offline",
        }
    }
}

/// What its shard knows of a device's presence. Times are log time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRecord {
    /// The version the device was made with.
    pub born: u64,
    /// How it is.
    pub state: PresenceState,
    /// Since when.
    pub since: UnixMillis,
    /// The processes that serve it.
    pub links: Vec<(NodeId, Incarnation)>,
    /// Where it connected last, or was heard.
    pub node: NodeId,
    /// By which protocol.
    pub by: u8,
    /// When a connection was opened last.
    pub connected: Option<UnixMillis>,
    /// When the last connection was gone.
    pub disconnected: Option<UnixMillis>,
    /// When it was heard from; as coarse as its node reports.
    pub heard: UnixMillis,
    /// As the last report said.
    pub offline_after_s: u32,
    /// As the last report said.
    pub events: Option<Retention>,
    /// When which credential was used last, as coarse as `heard`.
    pub used: Vec<(u64, UnixMillis)>,
}

impl PresenceRecord {
    pub(crate) fn new(born: u64) -> Self {
        Self {
            born,
            state: PresenceState::Offline,
            since: UnixMillis(0),
            links: Vec::new(),
            node: NodeId(0),
            by: 0,
            connected: None,
            disconnected: None,
            heard: UnixMillis(0),
            offline_after_s: 0,
            events: None,
            used: Vec::new(),
        }
    }

    /// When it is offline if nothing is heard until then; a connected device never is.
    #[must_use]
    pub fn offline_at(&self) -> Option<UnixMillis> {
        let after_ms = u64::from(self.offline_after_s) * 1_000;
        let at = UnixMillis(self.heard.0.saturating_add(after_ms));
        (self.state == PresenceState::Active).then_some(at)
    }

    /// When a credential was used last.
    #[must_use]
    pub fn used_at(&self, credential: u64) -> Option<UnixMillis> {
        self.used.iter().find(|(id, _)| *id == credential).map(|(_, at)| *at)
    }
}

/// The body of an event of presence; its channel says what happened (`connected`, `disconnected`, `active`, `offline`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceNews {
    /// As in [`PresenceRecord`].
    pub node: NodeId,
    /// As in [`PresenceRecord`].
    pub connected: Option<UnixMillis>,
    /// As in [`PresenceRecord`].
    pub disconnected: Option<UnixMillis>,
    /// As in [`PresenceRecord`].
    pub heard: UnixMillis,
}

impl PresenceNews {
    /// As the body of an event of the content type [`crate::events::NEWS`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        crate::codec::encode_presence_news(self)
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When it is none of this version.
    pub fn decode(body: Bytes) -> Result<Self, crate::Malformed> {
        crate::codec::decode_presence_news(body)
    }
}
