//! Events: what devices send up, in one stream for each tenant and shard. The types that commands, answers, effects and
//! reads share.
//!
//! ```text
//!   Append ──► tail … head ──► gone: too old, or too many bytes      offsets count up, one for each event
//!                 ▲
//!                 └── Commit: a consumer group has read up to here
//! ```
//!
//! # Invariants
//!
//! - **Numbers are never given twice.** Logs and rows hold those of [`EventKind`]. Frozen by the golden tests of
//!   `codec/events.rs` and `rows/events.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::streams`), their bytes (`codec::events`, `rows::events`), what bodies mean and how
//! applications read them (`node/service`, `node/api`).

use bytes::Bytes;
use moorline_core::{Offset, TenantId, Text, UnixMillis};

use crate::registry::DEVICE_NAME_BYTES_MAX;

/// Bytes of the name of the device an event is of.
pub const EVENT_DEVICE_BYTES_MAX: usize = DEVICE_NAME_BYTES_MAX;
/// Bytes of a channel: a schema's name, or a topic.
pub const EVENT_CHANNEL_BYTES_MAX: usize = 1_024;
/// Bytes of a body: as much as the largest packet that edges take unless they are told otherwise.
pub const EVENT_BODY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a stream's rows, whatever an append's retention says: a snapshot of it has to get through.
pub const STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Streams of one shard: they are held in memory, about 200 bytes each. As many as there may be tenants.
pub const STREAMS_PER_SHARD_MAX: usize = 100_000;
/// Consumer groups of one tenant, in each shard: they are held in memory, about 150 bytes each.
pub const CONSUMERS_PER_STREAM_MAX: usize = 64;
/// Bytes of a consumer group's name.
pub const CONSUMER_NAME_BYTES_MAX: usize = 64;
/// Events that one `Tick` removes: some milliseconds. Ten ticks a second keep up with 80,000 events a second.
pub const EVENTS_PER_TICK_MAX: usize = 8_192;
/// About the most bytes of events that one `Tick` reads to remove them.
pub const EVENT_BYTES_PER_TICK_MAX: u64 = 8 * 1024 * 1024;
/// Retention is not kept to the event but to one part in so many: otherwise each append to a full stream, and each event
/// that becomes too old, would cost an entry of the log to remove one event.
pub const RETENTION_SLACK: u64 = 16;

/// The content type of a body that the machine wrote itself: [`crate::presence::PresenceNews`], [`crate::mail::MailNews`].
pub const NEWS: u8 = 3;

/// What a leader proposes about events. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventCommand {
    /// Puts an event behind all others of its tenant in this shard.
    Append(AppendEvent),
    /// A consumer group has read everything up to an offset.
    Commit(CommitEvents),
    /// Forgets a consumer group.
    DeleteConsumer(DeleteConsumer),
}

/// See [`EventCommand::Append`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEvent {
    /// Whose device.
    pub tenant: TenantId,
    /// Which: 1 to [`EVENT_DEVICE_BYTES_MAX`] bytes.
    pub device: Text,
    /// The version that device was made with, if the proposer knows it: an event of one that is gone is refused.
    pub born: Option<u64>,
    /// What it says.
    pub event: NewEvent,
    /// What is to be kept of the stream, from now on.
    pub retention: Retention,
}

/// An event that is not in its stream yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What kind of news.
    pub kind: EventKind,
    /// Which of that kind: a schema's name, a topic; at most [`EVENT_CHANNEL_BYTES_MAX`] bytes, or none. Opaque here.
    pub channel: Text,
    /// How the body is to be read; opaque here (0: there is none, 1: JSON, 2: bytes) but for [`NEWS`].
    pub content_type: u8,
    /// At most [`EVENT_BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// By which protocol it came; opaque here.
    pub by: u8,
}

/// Kinds of events. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// Telemetry.
    Datapoint = 1,
    /// A message to applications.
    Message = 2,
    /// What a vendor's agent says about itself.
    System = 3,
    /// The device came, or went.
    Presence = 4,
    /// Something became of a mail to the device.
    Mail = 5,
    /// How the device is.
    State = 6,
}

impl EventKind {
    /// All of them, by number.
    pub const ALL: [Self; 6] =
        [Self::Datapoint, Self::Message, Self::System, Self::Presence, Self::Mail, Self::State];

    /// The kind of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Its name, for eyes and filters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Datapoint => "datapoint",
            Self::Message => "message",
            Self::System => "system",
            Self::Presence => "presence",
            Self::Mail => "mail",
            Self::State => "state",
        }
    }
}

/// What is kept of a tenant's stream in one shard. The last append's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events are kept at least so many seconds of log time, and a sixteenth of that longer at most.
    pub keep_s: u32,
    /// Bytes of rows. When there are more, the oldest go until there are a sixteenth less. At most [`STREAM_BYTES_MAX`]
    /// counts.
    pub bytes_max: u64,
}

/// See [`EventCommand::Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitEvents {
    /// Whose stream.
    pub tenant: TenantId,
    /// The consumer group: 1 to [`CONSUMER_NAME_BYTES_MAX`] bytes.
    pub consumer: Text,
    /// Up to and including this one; less than before changes nothing.
    pub offset: Offset,
}

/// See [`EventCommand::DeleteConsumer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteConsumer {
    /// Whose stream.
    pub tenant: TenantId,
    /// The consumer group.
    pub consumer: Text,
}

/// What a command about events came to. Variants are added, never renumbered: producer rows hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventAnswer {
    /// To `Append`.
    Appended {
        /// Its place in the stream.
        offset: Offset,
        /// Its time, in log time.
        at: UnixMillis,
    },
    /// To `Commit`.
    Committed {
        /// Up to where the consumer group has read: at least what was committed.
        offset: Offset,
    },
}

/// Why a command about events changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventRefused {
    /// The body is larger than [`EVENT_BODY_BYTES_MAX`].
    TooLarge,
    /// There is no such device, or a later one of its name.
    DeviceGone,
    /// The shard holds as many streams as it may ([`STREAMS_PER_SHARD_MAX`]).
    TooManyStreams,
    /// There is no such offset yet.
    BeyondTail {
        /// The last one there is; 0 if there is none.
        last: Offset,
    },
    /// The tenant has as many consumer groups as it may ([`CONSUMERS_PER_STREAM_MAX`]).
    TooManyConsumers,
    /// The shard knows no such consumer group.
    NoSuchConsumer,
}

/// An event as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the stream.
    pub offset: Offset,
    /// When it came, in log time.
    pub at: UnixMillis,
    /// Whose it is.
    pub device: Text,
    /// The version that device was made with, if it was said.
    pub born: Option<u64>,
    /// What it says.
    pub event: NewEvent,
}

/// A consumer group in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: Text,
    /// Up to where it has read.
    pub offset: Offset,
    /// When it last said so, in log time.
    pub at: UnixMillis,
}
