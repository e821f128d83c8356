//! One thing that happened to a device.

use std::fmt;

use moorline_core::{Text, UnixMillis};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::Cause;

/// The most bytes that a note keeps of a topic, a name or an address.
pub const TEXT_BYTES_MAX: usize = 128;
/// Shards and nodes that a note names of those that a message went to; of more it keeps how many.
pub const ROUTES_MAX: usize = 8;

/// Where on its way something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Who is it? `about` is where it came from.
    Authenticate,
    /// Its session is opened. `about` is what the session is called.
    Session,
    /// It published something. `about` is the topic, `count` how many shards and nodes it went to, `routes` the first of them.
    Publish,
    /// It asked for a filter. `about` is the filter.
    Subscribe,
    /// It gave a filter back. `about` is the filter.
    Unsubscribe,
    /// It was sent something, or a copy for it went nowhere. `about` is the topic. It waits while the client has not acknowledged it.
    Deliver,
    /// It acknowledged deliveries that are not remembered one by one any more. `count` is how many.
    Settle,
    /// An event of it, however it was sent, was put into its tenant's stream. `about` is the channel.
    Event,
    /// Mail from its mailbox. `about` is the mail's id.
    Mail,
    /// A request that it made or answered. `about` says which.
    Request,
    /// Its connection ended. `about` is the reason.
    End,
}

impl Stage {
    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Session => "session",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Deliver => "deliver",
            Self::Settle => "settle",
            Self::Event => "event",
            Self::Mail => "mail",
            Self::Request => "request",
            Self::End => "end",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "cause")]
pub enum Became {
    /// It was not known when the note was read.
    Waiting,
    /// Done, and where it is promised: on the disks of a majority.
    Done,
    /// Done, with something that whoever looks for a message wants to know.
    DoneBut(Cause),
    /// It was refused, and its sender was told so if the protocol can.
    Refused(Cause),
    /// A copy of it went nowhere.
    Dropped(Cause),
}

impl Became {
    /// Why, if there is something to say.
    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Waiting | Self::Done => None,
            Self::DoneBut(cause) | Self::Refused(cause) | Self::Dropped(cause) => Some(cause),
        }
    }

    /// One word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done | Self::DoneBut(_) => "done",
            Self::Refused(_) => "refused",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "to", content = "id")]
pub enum Place {
    /// The durable sessions of a shard: into their queues.
    Shard(u16),
    /// The clean sessions of a node.
    Node(u64),
    /// The shard that keeps it for later subscribers.
    Kept(u16),
}

/// A place that a message went to, and what became of it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What became of it.
    #[serde(flatten)]
    pub became: Became,
    /// Sessions that wanted it; of a node's it is known only whether there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// The index of the shard's log at which it is, on the disks of a majority. Where the answer had to be asked for again, it is at
    /// this or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

impl Route {
    /// To a place, and done there as far as is known.
    #[must_use]
    pub fn to(place: Place, became: Became) -> Self {
        Self { place, became, sessions: None, index: None }
    }
}

/// By what a message is found again at whoever it went to: 64 bits of its topic and payload. Two messages that are alike have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Of a message.
    #[must_use]
    pub fn of(topic: &[u8], payload: &[u8]) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&(topic.len() as u64).to_le_bytes());
        hasher.update(topic);
        hasher.update(payload);
        Self(hasher.digest())
    }

    /// Reads sixteen hexadecimal digits.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::read(&text).ok_or("a fingerprint has sixteen hexadecimal digits")
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it began, by this node's clock: milliseconds since 1970.
    pub at_ms: u64,
    /// When the same happened last, if it happened again: see [`Note::last`].
    #[serde(default, skip_serializing_if = "is_never")]
    pub last_ms: u64,
    /// Which connection of this node's; 0 for none.
    pub conn: u64,
    /// Where on its way.
    pub stage: Stage,
    /// What became of it.
    #[serde(flatten)]
    pub became: Became,
    /// What it was about: see [`Stage`]. At most [`TEXT_BYTES_MAX`] bytes of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Which message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Fingerprint>,
    /// How many: see [`Stage`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u32,
    /// Bytes of its payload.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u32,
    /// The quality of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// Its offset in the session's queue, or in its tenant's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Where it went: at most [`ROUTES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// How long it took until it was answered or acknowledged, in microseconds. Clocks count milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u32>,
    /// What its answer is found by; means nothing to anybody else.
    #[serde(skip)]
    pub token: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_never(at_ms: &u64) -> bool {
    *at_ms == 0
}

impl Note {
    /// A note with nothing but when, where and what about.
    #[must_use]
    pub fn new(at: UnixMillis, stage: Stage, about: &str) -> Self {
        Self {
            at_ms: at.0,
            last_ms: 0,
            conn: 0,
            stage,
            became: Became::Done,
            about: cut(about).to_owned(),
            message: None,
            count: 0,
            bytes: 0,
            qos: None,
            offset: None,
            routes: Vec::new(),
            took_us: None,
            token: 0,
        }
    }

    /// The same, with a message: its topic, and of its payload a fingerprint and the size.
    #[must_use]
    pub fn of_message(at: UnixMillis, stage: Stage, topic: &Text, payload: &[u8], qos: u8) -> Self {
        Self {
            message: Some(Fingerprint::of(topic.as_bytes(), payload)),
            bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            qos: Some(qos),
            ..Self::new(at, stage, topic.as_str())
        }
    }
}

impl Note {
    /// When it happened last: of what goes on over and over this is not when it began.
    #[must_use]
    pub fn last(&self) -> UnixMillis {
        UnixMillis(self.last_ms.max(self.at_ms))
    }

    /// What it takes beside its own size.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.about.capacity() + self.routes.capacity() * size_of::<Route>()
    }

    /// The same happened again. A clock that was set back moves nothing back.
    pub(crate) fn take_in(&mut self, again: &Self) {
        self.count = self.count.saturating_add(again.count);
        self.last_ms = self.last().0.max(again.last().0);
    }

    /// Whether another one says the same, but for when.
    pub(crate) fn says_as(&self, other: &Self) -> bool {
        (self.conn, self.stage, self.became) == (other.conn, other.stage, other.became)
            && self.about == other.about
    }
}

/// The beginning of a text, at a character's border.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()))]
}
