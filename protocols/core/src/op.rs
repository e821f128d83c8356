//! Ops: what devices ask of the cluster, in one form for all protocols and dialects.
//!
//! A dialect reads a packet, topic or request into an [`Op`]; the service answers each with [`Answer`] or [`Declined`];
//! the dialect writes that as its platform says it. Who asks is never part of an op: that is the connection's identity.
//!
//! # Invariants
//!
//! - An answer of success means the promise of docs/guarantees.md was kept first.
//! - One front mail per mailbox: [`Op::FetchMail`] answers the same one until an [`Op::SettleMail`] names it.
//!
//! # Deliberately absent
//!
//! MQTT's free topics and sessions ([`crate::port`]), packets and formats (`protocols/`).

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::{Text, port::Refusal};

/// What a device asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// It lives. Counts for presence.
    Heartbeat,
    /// It has something to say.
    Event(Event),
    /// What is the front mail? Answer: [`Answer::Mail`].
    FetchMail {
        /// Whether its payload may stay where it is.
        header_only: bool,
    },
    /// How many mails wait? Answer: [`Answer::MailboxSize`].
    CountMail,
    /// What became of the front mail. Answer: [`Answer::Settled`].
    SettleMail {
        /// The front mail's id; any other is refused.
        id: MailId,
        /// What became of it.
        settlement: Settlement,
    },
}

/// What a device sends up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What kind of news.
    pub kind: EventKind,
    /// The name it goes by: Fostrom's packet schema, Watson's event, Drogue's channel.
    pub channel: Text,
    /// How the body is written.
    pub format: Format,
    /// The body; empty for an event that is its name only.
    pub body: Bytes,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Telemetry.
    Datapoint,
    /// A message to applications.
    Message,
    /// What a vendor's agent says about itself. Has no schema.
    System,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JSON, UTF-8.
    Json,
    /// MessagePack.
    MsgPack,
}

/// A mail's id, a UUIDv7. Shown with dashes, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailId(pub u128);

/// Where the dashes of a UUID stand.
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];
/// Length of a UUID with its dashes.
const UUID_CHARS: usize = 36;

impl MailId {
    /// Reads a dashed UUID of version 7, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let digits = |(at, byte): (usize, &u8)| match UUID_DASHES.contains(&at) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        if bytes.len() != UUID_CHARS || !bytes.iter().enumerate().all(digits) {
            return None;
        }
        let id = Self(u128::from_str_radix(&text.replace('-', ""), 16).ok()?);
        id.is_v7().then_some(id)
    }

    /// Whether version and variant are those of a UUIDv7 (RFC 9562, 5.7).
    #[must_use]
    pub fn is_v7(self) -> bool {
        self.0 >> 76 & 0xf == 7 && self.0 >> 62 & 0b11 == 0b10
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

/// What became of a mail. The numbers are Moonlight's and for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settlement {
    /// Done: it leaves the mailbox.
    Ack = 1,
    /// It could not be handled: it leaves the mailbox, and its sender can see that.
    Reject = 2,
    /// Later: it goes to the mailbox's end.
    Requeue = 3,
}

/// A mail as a device gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its id.
    pub id: MailId,
    /// Its name: Fostrom's packet schema, Watson's command.
    pub name: Text,
    /// How the payload is written.
    pub format: Format,
    /// The payload; empty if it has none, or only the header was asked for.
    pub payload: Bytes,
}

/// An op that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Op::Heartbeat`] and [`Op::Event`].
    Done,
    /// To [`Op::FetchMail`].
    Mail {
        /// How many wait, the front one among them.
        size: u64,
        /// The front one; `None` exactly if `size` is 0.
        mail: Option<Mail>,
    },
    /// To [`Op::CountMail`].
    MailboxSize(u64),
    /// To [`Op::SettleMail`].
    Settled {
        /// How many wait now.
        size: u64,
    },
}

/// Why an op was not done. Nothing happened, but for [`Refusal::Unavailable`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Declined {
    /// The body can't be read as its format.
    #[error("{0}")]
    Unreadable(&'static str),
    /// The tenant has no schema of that name and kind.
    #[error("the tenant has no such packet schema")]
    UnknownSchema,
    /// What should name a mail is no mail's id.
    #[error("not a mail's id")]
    InvalidMailId,
    /// The mail is not at the front of the mailbox.
    #[error("the mail is not the next one")]
    NotNextMail,
    /// The mailbox has no such mail.
    #[error("the mailbox has no such mail")]
    UnknownMail,
    /// The device may not speak any more.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// What befalls any op.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a device is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Denial {
    /// What it says about itself has the wrong shape.
    #[error("the credentials are malformed")]
    Malformed,
    /// There is no such tenant.
    #[error("there is no such tenant")]
    UnknownTenant,
    /// The tenant has no such device.
    #[error("there is no such device")]
    UnknownDevice,
    /// The secret is not the device's.
    #[error("the secret is wrong")]
    WrongSecret,
    /// The device is disabled.
    #[error("the device is disabled")]
    Disabled,
    /// It showed its secret without TLS, which its tenant does not allow.
    #[error("credentials may be shown with TLS only")]
    Plaintext,
    /// It failed too often, or from where others failed.
    #[error("too many failed attempts: banned for {retry_after_s} s")]
    Banned {
        /// Seconds the ban still lasts.
        retry_after_s: u32,
    },
    /// This node stops: another one is ready.
    #[error("the node is stopping")]
    Stopping,
    /// Whether it may come in can't be found out now.
    #[error("the cluster is unavailable")]
    Unavailable,
    /// It may come in, but not as often as it tries: two connections chase each other for one identity.
    #[error("the device connects too often")]
    TooOften,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_id_is_a_dashed_uuid_of_version_7() {
        let id = MailId(0x018f_4d1f_2a55_7f0e_b4ea_5f7c_3e6f_a001);
        let text = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";
        assert_eq!((id.to_string().as_str(), MailId::parse(text)), (text, Some(id)));
        assert_eq!(MailId::parse(&text.to_uppercase()), Some(id));
        let table = [
            ("", "empty"),
            ("018f4d1f2a557f0eb4ea5f7c3e6fa001", "no dashes"),
            ("018f4d1f-2a55-4f0e-b4ea-5f7c3e6fa001", "version 4"),
            ("018f4d1f-2a55-7f0e-c4ea-5f7c3e6fa001", "another variant"),
            ("018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa00", "short"),
            ("018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa0011", "long"),
            ("+18f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001", "a sign"),
            ("018f4d1f-2a55-7f0e-b4ea_5f7c3e6fa001", "another dash"),
            ("018f4d1f-2a55-7f0e-b4ea-5f7c3e6fé01", "not ASCII"),
        ];
        for (text, what) in table {
            assert_eq!(MailId::parse(text), None, "{what}");
        }
    }
}
