//! Values: attributes and telemetry of devices. The types that commands, answers, effects and reads share.
//!
//! ```text
//!   WriteAttributes ──► a sheet for each scope of a device     key → value, when it was set, and by which version
//!   Record ──┬────────► the sheet of latest values             key → value, its time: the newest wins
//!            ├────────► history: a row for each point          kept by age and size, as the tenant's stream is
//!            └────────► the tenant's stream, if there is an event with it
//! ```
//!
//! # Invariants
//!
//! - **Numbers are never given twice.** Logs and rows hold those of `Part`. Frozen by the golden tests of
//!   `codec/values.rs` and `rows/values.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::values`), their bytes (`codec::values`, `rows::values`), what a platform calls them and which
//! numbers it takes for which (`protocols/dialects`).

pub mod aggregate;

use moorline_core::{AttributeScope, Offset, TenantId, Text, UnixMillis, Value};

use crate::events::{NewEvent, Retention};

/// Bytes of a key: 255 characters of four bytes each.
pub const VALUE_KEY_BYTES_MAX: usize = 1_020;
/// Bytes of a text or of JSON, of an attribute and of what is recorded by [`RecordRules::First`].
pub const VALUE_BYTES_MAX: usize = 32 * 1024;
/// The same of what is recorded by [`RecordRules::Second`]: half of a sheet.
pub const LONG_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Keys of one scope of a device, and keys of which it has latest values.
pub const SHEET_KEYS_MAX: usize = 1_024;
/// Bytes of the same: keys, values and 22 bytes for each; or 14 of a latest value. A write copies them all.
pub const SHEET_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a point: as of a sheet.
pub const POINT_BYTES_MAX: usize = SHEET_BYTES_MAX;
/// Keys that one command writes or deletes.
pub const ATTRIBUTES_PER_COMMAND_MAX: usize = 256;
/// Deleted shared attributes of a device that are remembered, so that it can be told of them.
pub const ATTRIBUTES_GONE_KEPT: usize = 256;
/// Points of one command.
pub const POINTS_PER_COMMAND_MAX: usize = 1_000;
/// Values of all points of one command.
pub const VALUES_PER_COMMAND_MAX: usize = 8_192;
/// A point without a time of its own comes behind the last one of its device, if that is no further ahead than this.
pub const UNTIMED_AHEAD_MS_MAX: i64 = 1_000;
/// Points that are looked at for a millisecond in which there is none, of [`RecordRules::Second`].
pub const UNTIMED_POINTS_LOOKED_MAX: usize = 256;
/// About the most bytes of these.
pub const UNTIMED_BYTES_LOOKED_MAX: usize = 256 * 1024;
/// Tenants with a history in one shard: they are held in memory, about 200 bytes each. As many as there may be tenants.
pub const HISTORIES_PER_SHARD_MAX: usize = 100_000;
/// Points that one part of a history names; a part is what one batch brought.
pub const POINTS_PER_PART_MAX: usize = 1_024;
/// Points that one `Tick` removes, or a part of them more: a look and a removal each, so some ten milliseconds. Ten ticks a second
/// keep up with 40,000 points a second.
pub const POINTS_PER_TICK_MAX: usize = 4_096;
/// Points of devices that are gone that one `Tick` removes beside those.
pub const POINT_GARBAGE_PER_TICK_MAX: usize = 4_096;
/// Keys whose values one command deletes: as many as a device may have.
pub const KEYS_PER_DELETE_MAX: usize = SHEET_KEYS_MAX;
/// Points that one command that deletes looks at. A command is applied while others wait, so it may take some milliseconds.
pub const POINTS_PER_DELETE_MAX: usize = 1_024;
/// About the most bytes of points that it looks at: it writes what stays of them anew.
pub const DELETE_BYTES_MAX: usize = 256 * 1024;
/// Keys that one question may name.
pub const KEYS_PER_QUESTION_MAX: usize = 1_024;
/// Points that one question looks at.
pub const POINTS_PER_QUESTION_MAX: usize = 4_096;
/// About the most bytes of points that one question looks at, and of what it answers.
pub const POINTS_PAGE_BYTES_MAX: usize = 256 * 1024;
/// Intervals, of all keys, in one answer.
pub const INTERVALS_PER_PAGE_MAX: usize = 2_048;

/// What a leader proposes about values. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueCommand {
    /// Writes and deletes attributes of one scope of a device, all or none.
    WriteAttributes(WriteAttributes),
    /// Takes in what a device measured: latest values, history, and an event of it.
    Record(Record),
    /// Notes that a device that asks for changes of its shared attributes was told of them.
    Tell(TellAttributes),
    /// Deletes telemetry of some keys and a range of time, a piece at a time.
    Delete(DeleteSeries),
}

impl ValueCommand {
    /// Which device it is about.
    #[must_use]
    pub fn device(&self) -> (TenantId, &Text) {
        match self {
            Self::WriteAttributes(WriteAttributes { tenant, device, .. })
            | Self::Record(Record { tenant, device, .. })
            | Self::Tell(TellAttributes { tenant, device, .. })
            | Self::Delete(DeleteSeries { tenant, device, .. }) => (*tenant, device),
        }
    }
}

/// See [`ValueCommand::WriteAttributes`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAttributes {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with: nothing is written for one that is gone.
    pub born: u64,
    /// Which of its attributes.
    pub scope: AttributeScope,
    /// Keys with their new values; without one it is deleted. At most [`ATTRIBUTES_PER_COMMAND_MAX`]; of a key that comes more
    /// than once the last counts.
    pub changes: Vec<(Text, Option<Value>)>,
    /// What is to be in the tenant's stream as well.
    pub event: Option<WithEvent>,
}

/// See [`ValueCommand::Record`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with: nothing is recorded for one that is gone.
    pub born: u64,
    /// By which rules.
    pub rules: RecordRules,
    /// In the order in which they were said: 1 to [`POINTS_PER_COMMAND_MAX`], or none with an event.
    pub points: Vec<NewPoint>,
    /// What is to be kept of the tenant's history in this shard, from now on; without it these points are not.
    pub history: Option<Retention>,
    /// What is to be in the tenant's stream as well.
    pub event: Option<WithEvent>,
}

/// By which rules a [`Record`] is judged. Each has a number of its own in logs: a replica that does not know the later ones stops
/// at such a command, and never decides it otherwise than the others do. Rules are added, and none is ever changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordRules {
    /// A value has up to [`VALUE_BYTES_MAX`]. What has no time of its own is now, in log time; or a millisecond behind the newest point of
    /// its device, if that is less than [`UNTIMED_AHEAD_MS_MAX`] ahead. Where that is further ahead, two of one millisecond are one point.
    First,
    /// A value has up to [`LONG_VALUE_BYTES_MAX`]. What has no time of its own is now, or behind the last of its own keys, if that is no
    /// more than [`UNTIMED_AHEAD_MS_MAX`] ahead; and from there the first millisecond in which its device has no point. Where
    /// [`UNTIMED_POINTS_LOOKED_MAX`] or [`UNTIMED_BYTES_LOOKED_MAX`] follow one another without a gap it is behind all points.
    Second,
}

impl RecordRules {
    /// The first ones that take points: what needs no later rules is understood by every replica.
    #[must_use]
    pub fn least(points: &[NewPoint]) -> Self {
        let mut values = points.iter().flat_map(|point| &point.values);
        let long = values.any(|(_, value)| value.len_bytes() > VALUE_BYTES_MAX);
        if long { Self::Second } else { Self::First }
    }

    /// Bytes of a value.
    #[must_use]
    pub fn value_bytes_max(self) -> usize {
        match self {
            Self::First => VALUE_BYTES_MAX,
            Self::Second => LONG_VALUE_BYTES_MAX,
        }
    }
}

/// See [`ValueCommand::Tell`]. To the shard of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TellAttributes {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with: nothing is noted for one that is gone.
    pub born: u64,
    /// Up to which version of its shared attributes. An earlier one than is noted changes nothing.
    pub version: u64,
}

/// See [`ValueCommand::Delete`]. To the shard of the device.
///
/// Looks at [`POINTS_PER_DELETE_MAX`] points and about [`DELETE_BYTES_MAX`] bytes, and says where the next such command has to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteSeries {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version that device was made with: nothing is deleted of one that is gone, nor of the one behind it.
    pub born: u64,
    /// Of which keys; none: nothing. At most [`KEYS_PER_DELETE_MAX`].
    pub keys: Vec<Text>,
    /// The first time, in milliseconds since 1970.
    pub from_ms: i64,
    /// The first time behind it.
    pub to_ms: i64,
    /// Whether latest values of that range go as well.
    pub latest: bool,
}

/// An event that comes with values: in the same command, so that there are both or neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithEvent {
    /// What it says.
    pub event: NewEvent,
    /// What is to be kept of the stream, from now on.
    pub retention: Retention,
}

/// Values of one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPoint {
    /// In milliseconds since 1970, as the device says it; without it, about now in log time ([`RecordRules`]).
    pub ts_ms: Option<i64>,
    /// At least one; of a key that comes more than once the last counts.
    pub values: Vec<(Text, Value)>,
}

/// What a command about values came to. Variants are added, never renumbered: producer rows hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueAnswer {
    /// To all of them but [`ValueCommand::Delete`].
    Written {
        /// When, in log time.
        at: UnixMillis,
        /// The version of what was written: see [`Attributes::version`]. Of telemetry 0. To [`ValueCommand::Tell`] what is noted now.
        version: u64,
        /// The place of the event in the stream, if there was one.
        event: Option<Offset>,
    },
    /// To [`ValueCommand::Delete`].
    Deleted {
        /// When, in log time.
        at: UnixMillis,
        /// In place of the start of the next command, if there may be more.
        next: Option<i64>,
    },
}

/// Why a command about values changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueRefused {
    /// There is no such device, or a later one of its name.
    DeviceGone,
    /// A key is empty or longer than [`VALUE_KEY_BYTES_MAX`].
    Key,
    /// A value is larger than [`VALUE_BYTES_MAX`], or than its [`RecordRules`] say.
    TooLarge,
    /// More keys, points or values than one command may have.
    TooManyAtOnce,
    /// The device would have more than [`SHEET_KEYS_MAX`] keys there.
    TooManyKeys,
    /// The device would have more than [`SHEET_BYTES_MAX`] bytes there, or a point of it more than [`POINT_BYTES_MAX`].
    Full,
    /// The shard holds as many histories as it may ([`HISTORIES_PER_SHARD_MAX`]).
    TooManyHistories,
}

/// Shared attributes of a device that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesChanged {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The version it was made with.
    pub born: u64,
    /// The version of the change.
    pub version: u64,
    /// Keys with their new values, in order; without one it was deleted.
    pub changes: Vec<(Text, Option<Value>)>,
}

/// Where the points of a device are, among its sheets: in front of its latest values, so that the newest is beside them.
pub(crate) const POINTS: u8 = 4;

/// Where it is noted which shared attributes a device was told of, among its sheets.
pub(crate) const TOLD: u8 = POINTS + 2;

/// What a device has sheets of. Disks hold the numbers; those of attributes are those of their scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Attributes.
    Attributes(AttributeScope),
    /// Latest values.
    Latest,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Attributes(AttributeScope::Client),
        Self::Attributes(AttributeScope::Shared),
        Self::Attributes(AttributeScope::Server),
        Self::Latest,
    ];

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Attributes(scope) => scope as u8,
            Self::Latest => POINTS + 1,
        }
    }
}

/// Attributes as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The version their device was made with.
    pub born: u64,
    /// Above that of every change until now: who has read up to here asks for what came behind it.
    pub version: u64,
    /// Deletions up to this version may be forgotten: who asks for changes from before it can't be told of all of them.
    pub forgotten: u64,
    /// Of [`AttributeScope::Shared`]: up to which version the device was told ([`ValueCommand::Tell`]), if it ever asked.
    pub told: Option<u64>,
    /// They, by key.
    pub set: Vec<Attribute>,
    /// Keys that were deleted since; only of [`AttributeScope::Shared`], and when changes were asked for.
    pub gone: Vec<Text>,
}

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its key.
    pub key: Text,
    /// What it holds.
    pub value: Value,
    /// When it was set, in log time.
    pub at: UnixMillis,
}

/// Latest values as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The version their device was made with.
    pub born: u64,
    /// They, by key: each with its time.
    pub values: Vec<(Text, i64, Value)>,
}

/// What a device's values are by now: numbers that are others after each change, and the same otherwise. Made for comparing: those
/// of different nodes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The version the device was made with.
    pub born: u64,
    /// Of attributes, in the order of [`AttributeScope::ALL`].
    pub attributes: [u64; 3],
    /// Of latest values.
    pub latest: u64,
}

/// A point as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its time, in milliseconds since 1970.
    pub ts_ms: i64,
    /// What was asked for of it, by key. At least one.
    pub values: Vec<(Text, Value)>,
}

/// A piece of a device's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// Points, in the order that was asked for.
    pub points: Vec<Point>,
    /// Where to go on, if there may be more: in place of the start, or of the end when the newest come first.
    pub next: Option<i64>,
}

/// Values of a piece of a device's history, taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AggregatePage {
    /// By key and by the start of the interval. The last interval may go on in the next page: [`aggregate::Taken::join`].
    pub series: Vec<(Text, Vec<(i64, aggregate::Taken)>)>,
    /// In place of the start, if there may be more.
    pub next: Option<i64>,
}
