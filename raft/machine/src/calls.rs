//! Calls: what a device is asked to do by a deadline, and what it answered. The types that commands, answers, effects and reads
//! share.
//!
//! ```text
//!   Make ──► waits ──► Note: sent, delivered ──► Note: answered ──► ended, kept for a while ──► forgotten
//!              ▲            └─ Note: unacknowledged, while it may be sent again ─┐      ▲
//!              └─────────────────────────────────────────────────────────────────┘      └── its deadline
//! ```
//!
//! Which state follows which says [`moorline_core::call`].
//!
//! # Invariants
//!
//! - **Numbers are never given twice.** Logs and rows hold those of [`CallState`]. Frozen by the golden tests of `codec/calls.rs`
//!   and `rows/calls.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::calls`), their bytes (`codec::calls`, `rows::calls`), and what the parameters, an answer and `info`
//! say (`protocols/dialects`).

use bytes::Bytes;
use moorline_core::{CallState, TenantId, Text, UnixMillis};

/// Bytes of a method's name.
pub const CALL_METHOD_BYTES_MAX: usize = 255;
/// Bytes of the parameters: as of a mail's payload.
pub const CALL_PARAMS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of what its maker adds for itself.
pub const CALL_INFO_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer.
pub const CALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Calls of one device that have not ended, whatever a command's limits say.
pub const CALLS_OPEN_MAX: u32 = 1_000;
/// Bytes of them, whatever a command's limits say.
pub const CALLS_OPEN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Calls of one device that have ended and are kept. Beyond it the oldest is forgotten, whatever its time.
pub const CALLS_KEPT_MAX: u32 = 1_000;
/// Bytes of them; likewise.
pub const CALLS_KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Calls of one shard, open or kept: what is to be done with each by when is in memory, about 150 bytes.
pub const CALLS_PER_SHARD_MAX: usize = 1_000_000;
/// Calls that one `Tick` lets expire or forgets: a row read and up to four written each, so some ten milliseconds.
pub const CALLS_PER_TICK_MAX: usize = 1_024;
/// Calls of one page.
pub const CALLS_PER_PAGE_MAX: usize = 100;
/// About the most bytes of one page.
pub const CALLS_PAGE_BYTES_MAX: usize = 256 * 1024;

/// What a leader proposes about calls. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallCommand {
    /// Makes a call. A repeat of an id that is known changes nothing.
    Make(MakeCall),
    /// Something befell a call.
    Note(NoteCall),
    /// Removes a call, however it stands.
    Delete(DeleteCall),
}

impl CallCommand {
    /// Which device it is about.
    #[must_use]
    pub fn device(&self) -> (TenantId, &Text) {
        match self {
            Self::Make(MakeCall { tenant, device, .. })
            | Self::Note(NoteCall { tenant, device, .. })
            | Self::Delete(DeleteCall { tenant, device, .. }) => (*tenant, device),
        }
    }
}

/// See [`CallCommand::Make`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeCall {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with, if the proposer knows: nothing is asked of one that is gone.
    pub born: Option<u64>,
    /// What is asked.
    pub call: NewCall,
    /// How much may be open of the device, this one included.
    pub limits: CallLimits,
}

/// A call that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCall {
    /// Chosen by the proposer.
    pub id: u128,
    /// 1 to [`CALL_METHOD_BYTES_MAX`] bytes. Which characters: the rim's business.
    pub method: Text,
    /// At most [`CALL_PARAMS_BYTES_MAX`] bytes, opaque here.
    pub params: Bytes,
    /// Whether no answer is wanted: it ends when the device has it.
    pub one_way: bool,
    /// What its maker wants to find with it: at most [`CALL_INFO_BYTES_MAX`] bytes, opaque here.
    pub info: Bytes,
    /// How often it may be sent again when the device does not acknowledge it.
    pub resends_max: u32,
    /// When it ends by itself: by the first `Tick` from then on.
    pub deadline: Deadline,
    /// How long it is kept after its end.
    pub keep_ms: u64,
}

/// When a call ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// At this log time: it was said as a time.
    At(UnixMillis),
    /// So many milliseconds of log time after it was made: the proposer's clock does not matter.
    After(u64),
}

impl Deadline {
    /// In log time, of what is made now.
    #[must_use]
    pub fn from(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(at) => at,
            Self::After(ms) => UnixMillis(now.0.saturating_add(ms)),
        }
    }
}

/// How much may be open of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls. At most [`CALLS_OPEN_MAX`] counts.
    pub calls: u32,
    /// Bytes of what is asked. At most [`CALLS_OPEN_BYTES_MAX`] counts.
    pub bytes: u64,
}

impl CallLimits {
    /// As much as there may be.
    pub const MOST: Self = Self { calls: CALLS_OPEN_MAX, bytes: CALLS_OPEN_BYTES_MAX };
}

/// See [`CallCommand::Note`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteCall {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with.
    pub born: u64,
    /// The call's number.
    pub number: i32,
    /// What.
    pub what: CallNote,
}

/// What can befall a call at its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallNote {
    /// It was given to a connection.
    Sent,
    /// The device has acknowledged it.
    Delivered,
    /// The device has not acknowledged it in time.
    Unacknowledged,
    /// The device has answered.
    Answered {
        /// Whether it says that it could not.
        failed: bool,
        /// What it says: at most [`CALL_ANSWER_BYTES_MAX`] bytes, opaque here.
        answer: Bytes,
    },
}

/// See [`CallCommand::Delete`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteCall {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The call.
    pub id: u128,
}

/// What a command about calls came to. Variants are added, never renumbered: producer rows hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAnswer {
    /// To `Make`.
    Made {
        /// The version the device was made with.
        born: u64,
        /// The call's number: above 0, and of no other call of the device that is there.
        number: i32,
        /// When it was made, in log time.
        at: UnixMillis,
        /// How it stands.
        state: CallState,
        /// Its id was known: nothing changed.
        repeat: bool,
    },
    /// To `Note`.
    Noted {
        /// How the call stands now.
        state: CallState,
        /// Whether that is by this note; otherwise it came too late, or again.
        changed: bool,
    },
    /// To `Delete`.
    Deleted {
        /// How the call stood.
        state: CallState,
    },
}

/// Why a command about calls changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallRefused {
    /// There is no such device, or a later one of its name.
    DeviceGone,
    /// As much is open of the device as may be.
    Full,
    /// The method, the parameters, what was added or the answer is larger than it may be.
    TooLarge,
    /// Its deadline has passed.
    Expired,
    /// There is no such call, or it is forgotten.
    NoSuchCall,
    /// The shard holds as many calls as it may ([`CALLS_PER_SHARD_MAX`]).
    TooManyCalls,
}

/// What the leader of a device's shard tells others. Losing it loses no call: rows are the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEffect {
    /// A call waits for its device: it was made, or is to be sent again.
    Waits {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
    },
    /// A call stands otherwise than before.
    Changed {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// The call.
        id: u128,
        /// How it stands now.
        state: CallState,
        /// Whether no answer is wanted.
        one_way: bool,
    },
}

/// A call as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its id.
    pub id: u128,
    /// Its number.
    pub number: i32,
    /// What to do.
    pub method: Text,
    /// With what.
    pub params: Bytes,
    /// Whether no answer is wanted.
    pub one_way: bool,
    /// What its maker added.
    pub info: Bytes,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// Its deadline, in log time.
    pub until: UnixMillis,
    /// How it stands.
    pub state: CallState,
    /// How often it was to be sent again.
    pub resends: u32,
    /// How often it may be.
    pub resends_max: u32,
    /// When it ended, in log time.
    pub ended: Option<UnixMillis>,
    /// What the device said.
    pub answer: Option<Bytes>,
}

/// Some calls of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallsPage {
    /// The version their device was made with.
    pub born: u64,
    /// They, in the order that was asked for.
    pub calls: Vec<Call>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How many calls there are in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallTotals {
    /// Calls that have not ended.
    pub open: u64,
    /// Calls that have, and are kept.
    pub kept: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}
