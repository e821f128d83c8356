//! Mail: what is sent down to one device, one after the other. The types that commands, answers, effects and reads share.
//!
//! ```text
//!   Send ──► tail … front ──► Settle: ack, reject ──► done (the last 100, without payload)
//!              ▲        └──── Settle: requeue, too often ──► dead (the last 100, with payload)
//!              └───────────── Settle: requeue
//!            expired, cancelled, purged: from anywhere ──► done
//! ```
//!
//! # Invariants
//!
//! - **Numbers are never given twice.** Logs and rows hold those of [`Noted`] and [`MailOp`]. Frozen by the golden tests of
//!   `codec/mail.rs` and `rows/mail.rs`.
//!
//! # Deliberately absent
//!
//! What becomes of them (`shard::mailbox`), their bytes (`codec::mail`, `rows::mail`), what ids look like and how platforms
//! call all this (`protocols/dialects`).

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};

use crate::events::Retention;

/// Mail in one mailbox, whatever a command's limits say: what a Moonlight frame can count (`mailbox_size` is 16 bits).
pub const MAILBOX_ITEMS_MAX: u32 = 65_535;
/// Bytes of mail in one mailbox, names and payloads, whatever a command's limits say.
pub const MAILBOX_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a payload: what the agents of devices take.
pub const MAIL_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a mail's name.
pub const MAIL_NAME_BYTES_MAX: usize = 255;
/// Bytes of the name of the device it is for.
pub const MAIL_DEVICE_BYTES_MAX: usize = 160;
/// Bytes of what a note says in words.
pub const MAIL_DETAIL_BYTES_MAX: usize = 64;
/// Notes kept of one mail: the first and the latest; those between are counted.
pub const MAIL_NOTES_MAX: usize = 32;
/// Mails of one device that are remembered after they ended, without their payload. Until then a repeat of their id is one.
pub const MAIL_DONE_KEPT: u64 = 100;
/// Mails of one device that were requeued too often and are kept whole. Beyond it the oldest is forgotten.
pub const MAIL_DEAD_KEPT: u64 = 100;
/// Mails that one `Purge` removes: about six rows each, so a few milliseconds.
pub const PURGED_PER_COMMAND_MAX: u32 = 512;
/// Mails that one `Tick` lets expire.
pub const MAIL_PER_TICK_MAX: usize = 1_024;
/// Rows of forgotten mailboxes that one `Tick` removes: a few milliseconds.
pub const MAIL_GARBAGE_ROWS_PER_TICK_MAX: usize = 4_096;
/// Mailboxes of one shard with something in them: they are held in memory, about 300 bytes and the device's name each.
pub const MAILBOXES_PER_SHARD_MAX: usize = 1_000_000;

/// What a leader proposes about mail. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailCommand {
    /// Puts a mail behind all others. A repeat of an id that is known changes nothing.
    Send(SendMail),
    /// The device is done with the mail at the front.
    Settle(SettleMail),
    /// Takes note that a mail went out to the device. Changes nothing else.
    NoteDelivered(NoteDelivered),
    /// Removes a mail, wherever it is.
    Cancel(CancelMail),
    /// Empties a mailbox, or its dead list: a piece of it ([`MailAnswer::Purged`]).
    Purge(PurgeMail),
    /// As `Send`, to a device whose row says that it was made with that version: mail for one that is gone is refused, also when
    /// it had no mailbox. With how events of this tenant's mail are kept from now on; without it there are none.
    SendKnown(SendMail, Option<Retention>),
    /// As `Settle`, with more that is to be so, or to be noted, in the same command.
    SettleIf(SettleMail, SettleIf),
}

impl MailCommand {
    /// Whose mailbox it is about.
    #[must_use]
    pub fn mailbox(&self) -> (TenantId, &Text) {
        match self {
            Self::Send(SendMail { tenant, device, .. })
            | Self::SendKnown(SendMail { tenant, device, .. }, _)
            | Self::Settle(SettleMail { tenant, device, .. })
            | Self::SettleIf(SettleMail { tenant, device, .. }, _)
            | Self::NoteDelivered(NoteDelivered { tenant, device, .. })
            | Self::Cancel(CancelMail { tenant, device, .. })
            | Self::Purge(PurgeMail { tenant, device, .. }) => (*tenant, device),
        }
    }
}

/// See [`MailCommand::Send`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMail {
    /// Whose device.
    pub tenant: TenantId,
    /// To whom: 1 to [`MAIL_DEVICE_BYTES_MAX`] bytes.
    pub device: Text,
    /// What.
    pub mail: NewMail,
    /// How much may wait there, this one included.
    pub limits: MailLimits,
    /// Which device of that name, if the proposer knows: the log index that made it. Mail for one that is gone is refused, and
    /// the first mail for a later one forgets what the earlier one left.
    pub born: Option<u64>,
}

/// A mail that is not in its mailbox yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMail {
    /// Chosen by the proposer: a UUIDv7 on the platforms that show it.
    pub id: u128,
    /// 1 to [`MAIL_NAME_BYTES_MAX`] bytes. Which characters: the rim's business.
    pub name: Text,
    /// How the payload is to be read; opaque here (0: there is none, 1: JSON, 2: bytes).
    pub content_type: u8,
    /// At most [`MAIL_PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
    /// How long it may wait, in milliseconds of log time; without it for ever.
    pub ttl_ms: Option<u64>,
    /// How often it may be requeued before it is dead; `u16::MAX`: as often as it takes.
    pub requeues_max: u16,
}

/// How much may wait in a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailLimits {
    /// Mails. At most [`MAILBOX_ITEMS_MAX`] counts.
    pub items: u32,
    /// Bytes of names and payloads. At most [`MAILBOX_BYTES_MAX`] counts.
    pub bytes: u64,
}

/// See [`MailCommand::Settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettleMail {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The mail at the front; anything else is refused.
    pub id: u128,
    /// How it is settled.
    pub op: MailOp,
    /// Who says so: opaque here, a protocol.
    pub by: u8,
    /// Why, at most [`MAIL_DETAIL_BYTES_MAX`] bytes.
    pub detail: Text,
}

/// See [`MailCommand::SettleIf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleIf {
    /// Only if this is the version of the device's row: then whoever was let in by that row still may.
    pub version: Option<u64>,
    /// That the mail went out to the device, by the same protocol, is noted with this: a note of its own would be one more sync,
    /// which the settlement would wait for.
    pub delivered: bool,
}

/// What a device can do with the mail at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MailOp {
    /// It is done.
    Ack = 1,
    /// It could not be done. It is removed too.
    Reject = 2,
    /// It goes behind all others; too often, and it is dead.
    Requeue = 3,
}

impl MailOp {
    /// The op of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Ack, Self::Reject, Self::Requeue].into_iter().find(|op| *op as u8 == number)
    }
}

/// See [`MailCommand::NoteDelivered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteDelivered {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The mail.
    pub id: u128,
    /// By which protocol it went out; opaque here.
    pub by: u8,
    /// More about that, at most [`MAIL_DETAIL_BYTES_MAX`] bytes.
    pub detail: Text,
}

/// See [`MailCommand::Cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelMail {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The mail.
    pub id: u128,
}

/// See [`MailCommand::Purge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeMail {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// The dead list instead of what is queued.
    pub dead: bool,
}

/// What a command about mail came to. Variants are added, never renumbered: producer rows hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailAnswer {
    /// To `Send`.
    Mailed {
        /// Mails queued now.
        size: u32,
        /// Whether this one is at the front.
        front: bool,
        /// Its id was known: nothing changed.
        repeat: bool,
    },
    /// To `Settle` and `Cancel`.
    Settled {
        /// Mails queued now.
        size: u32,
        /// Whether there is a next one.
        next: bool,
        /// It was settled (cancelled) so before: nothing changed.
        repeat: bool,
    },
    /// To `Purge`.
    Purged {
        /// Mails removed.
        removed: u32,
        /// There is more than one command may remove: propose it again.
        more: bool,
    },
}

/// Why a command about mail changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailRefused {
    /// As much is queued as may be.
    Full,
    /// The payload is larger than [`MAIL_PAYLOAD_BYTES_MAX`].
    TooLarge,
    /// Another mail is at the front, or none.
    NotNext {
        /// The one at the front.
        front: Option<u128>,
    },
    /// There is no such mail, or it ended some other way.
    NoSuchMail,
    /// The shard holds as many mailboxes with mail in them as it may ([`MAILBOXES_PER_SHARD_MAX`]).
    TooManyMailboxes,
    /// It is for a device that is gone: a later one has its name.
    DeviceGone,
    /// The device's row has another version than was asked for, or is gone.
    DeviceChanged,
}

/// What the leader of a mailbox's shard tells others. Losing it loses no mail: rows are the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailEffect {
    /// Another mail is at the front than before this command (or batch of expiries): the device may be told.
    Ready {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Mails queued.
        size: u32,
    },
    /// A mail has ended, or is dead. Once for each, but those of a mailbox that is forgotten with its device.
    Finished {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// The mail.
        id: u128,
        /// How.
        what: Noted,
        /// Who said so; 0 where nobody had to.
        by: u8,
        /// How long it was in the mailbox, in log time.
        waited_ms: u64,
    },
}

/// What can happen to a mail. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Noted {
    /// It came into the mailbox.
    Queued = 1,
    /// It went out to the device.
    Delivered = 2,
    /// The device put it behind all others.
    Requeued = 3,
    /// The device is done with it.
    Acked = 4,
    /// The device could not do it.
    Rejected = 5,
    /// Its time was over.
    Expired = 6,
    /// Somebody took it back.
    Cancelled = 7,
    /// The mailbox was emptied.
    Purged = 8,
    /// It was requeued too often.
    Dead = 9,
}

impl Noted {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Delivered,
        Self::Requeued,
        Self::Acked,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
        Self::Purged,
        Self::Dead,
    ];

    /// What a number stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|noted| *noted as u8 == number)
    }

    /// Whether a mail that was queued is not any more.
    #[must_use]
    pub fn ends(self) -> bool {
        match self {
            Self::Queued | Self::Delivered | Self::Requeued => false,
            Self::Acked
            | Self::Rejected
            | Self::Expired
            | Self::Cancelled
            | Self::Purged
            | Self::Dead => true,
        }
    }

    /// Its name, for eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Requeued => "requeued",
            Self::Acked => "acked",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Purged => "purged",
            Self::Dead => "dead",
        }
    }
}

/// One line of a mail's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailNote {
    /// When, in log time.
    pub at: UnixMillis,
    /// What.
    pub what: Noted,
    /// Who said so; opaque here, a protocol; 0 where nobody had to.
    pub by: u8,
    /// More about it.
    pub detail: Text,
}

/// A mail as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its id.
    pub id: u128,
    /// Its name.
    pub name: Text,
    /// As it was sent.
    pub content_type: u8,
    /// What it says.
    pub payload: Bytes,
    /// When it came, in log time.
    pub created: UnixMillis,
    /// When it ends by itself, in log time: by the first `Tick` from then on.
    pub expires_at: Option<UnixMillis>,
    /// How often it was requeued.
    pub requeues: u16,
}

/// What is known of a mail: all but its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailInfo {
    /// Its id.
    pub id: u128,
    /// [`Noted::Queued`], [`Noted::Dead`], or how it ended.
    pub state: Noted,
    /// Its place among those of its state (the queue, the dead, those that ended): grows, has gaps.
    pub place: u64,
    /// Its name.
    pub name: Text,
    /// As it was sent.
    pub content_type: u8,
    /// Bytes of its payload.
    pub payload_bytes: u32,
    /// When it came, in log time.
    pub created: UnixMillis,
    /// When it ends by itself, in log time.
    pub expires_at: Option<UnixMillis>,
    /// How often it was requeued.
    pub requeues: u16,
    /// How often it may be.
    pub requeues_max: u16,
    /// What happened to it, the oldest first.
    pub notes: Vec<MailNote>,
    /// Notes that were dropped behind the first one.
    pub notes_dropped: u32,
}

/// What is known of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Mails queued.
    pub size: u32,
    /// Bytes of their names and payloads.
    pub bytes: u64,
    /// The first of them.
    pub front: Option<u128>,
    /// Mails on the dead list.
    pub dead: u32,
    /// Mails that ever ended, but by dying.
    pub finished: u64,
    /// Grows with each change but a note.
    pub version: u64,
}

/// How much mail there is, of one tenant in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailCounts {
    /// Mailboxes with something in them.
    pub mailboxes: u64,
    /// Mails queued.
    pub mails: u64,
    /// Bytes of their names and payloads.
    pub bytes: u64,
    /// Mails on dead lists.
    pub dead: u64,
}

/// The body of an event of mail; its channel says what happened ([`Noted::name`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailNews {
    /// Which mail.
    pub id: u128,
    /// Its name.
    pub name: Text,
    /// How often it was requeued by then.
    pub requeues: u16,
    /// More about what happened.
    pub detail: Text,
}

impl MailNews {
    /// As the body of an event of the content type [`crate::events::NEWS`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        crate::codec::encode_mail_news(self)
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When it is none of this version.
    pub fn decode(body: Bytes) -> Result<Self, crate::Malformed> {
        crate::codec::decode_mail_news(body)
    }
}
