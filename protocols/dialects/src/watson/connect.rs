//! CONNECT: who it is, which session it gets, and what a CONNACK says (§1.3, §1.4).
//!
//! # Invariants
//!
//! - **A session goes by the client id**, but for `A:org:app` without an instance, whose connections must not take each other
//!   over: the server draws a name for each. Checked by `sessions_are_as_asked`.
//! - **All connections of one `A:org:app…` share**, with an instance or without. Checked by the same.
//!
//! The documentation wants clean session 0 of an `A` without an instance, the vendor's server refuses it. Here both are taken:
//! the share's queue lasts then, the connection's session does not.

use moorline_core::{Text, op::Denial};
use thiserror::Error;

use super::{
    PAYLOAD_BYTES_MAX,
    close::Close,
    identity::{self, Class, ClientId, Misnamed, Misproved, Proof, Who},
    topics::{self, Message},
};

/// How long a durable session lasts when its client names no time (MQTT 3): two days.
pub const SESSION_EXPIRY_S_DEFAULT: u32 = 2 * 24 * 3_600;
/// The longest that a session lasts: seven days.
pub const SESSION_EXPIRY_S_MAX: u32 = 7 * 24 * 3_600;
/// The longest keep-alive of an `A`; a longer one, and none at all, becomes this.
pub const SHARED_KEEP_ALIVE_S_MAX: u16 = 3_600;
/// The largest packet of MQTT 5 that is taken, topic and all.
pub const PACKET_BYTES_MAX: u32 = 131_072;
/// Bytes of a CONNACK with a Reason String and nothing else, without the text: header, flags, reason, lengths.
const CONNACK_BYTES_MIN: usize = 8;
/// The return code for an unknown version of MQTT.
const UNACCEPTABLE_VERSION: u8 = 1;

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 3.1
    V31,
    /// 3.1.1
    V311,
    /// 5.0
    V5,
}

impl Version {
    /// Takes the protocol level of a CONNECT.
    #[must_use]
    pub fn of_level(level: u8) -> Option<Self> {
        match level {
            3 => Some(Self::V31),
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }

    /// The name in presence messages, before `-ws`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V31 => "mqtt3",
            Self::V311 => "mqtt4",
            Self::V5 => "mqtt5",
        }
    }
}

/// What of a CONNECT counts.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The protocol level.
    pub level: u8,
    /// The client id.
    pub client_id: &'a [u8],
    /// The user name.
    pub username: Option<&'a [u8]>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Clean Session, or Clean Start.
    pub clean: bool,
    /// MQTT 5: the Session Expiry Interval, 0 if there is none.
    pub expiry_s: u32,
    /// The keep-alive.
    pub keep_alive_s: u16,
    /// The will. Its retain flag means nothing.
    pub will: Option<WillHello<'a>>,
    /// The server name that TLS asked for.
    pub sni: Option<&'a [u8]>,
}

/// What of a will is looked at.
#[derive(Debug, Clone, Copy)]
pub struct WillHello<'a> {
    /// Its topic.
    pub topic: &'a [u8],
    /// Bytes of its payload.
    pub payload_bytes: usize,
}

/// A CONNECT of the right shape. Whether what it proves is true is for the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Who it says it is.
    pub client: ClientId,
    /// How it speaks.
    pub version: Version,
    /// What it proves that with.
    pub proof: Proof,
    /// The session it wants.
    pub session: Session,
    /// The keep-alive that counts, and whether it is not the one that was asked for (MQTT 5: Server Keep Alive).
    pub keep_alive: Granted<u16>,
    /// What its will means. It is never retained.
    pub will: Option<Message>,
}

/// A value, and whether the client has to be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted<T> {
    /// What counts.
    pub value: T,
    /// Whether it is another than was asked for.
    pub changed: bool,
}

/// The session of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name; `None`: the server draws one ([`Session::drawn`]).
    pub name: Option<Text>,
    /// Whether an earlier one is forgotten.
    pub clean_start: bool,
    /// How long it lasts after the connection; 0: it is clean.
    pub expiry_s: Granted<u32>,
    /// The share that all its subscriptions go to.
    pub share: Option<Share>,
}

/// The connections of one `A`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// `{org}:{app}`
    pub name: Text,
    /// Whether its queue outlives its connections.
    pub durable: bool,
}

impl Session {
    /// Whether it outlives its connection.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.expiry_s.value > 0
    }

    /// The name of a standard gateway's session. It is another one than that of the same gateway when it was privileged, or when its
    /// group was another one (`changed`), or of an earlier gateway of its name (`born`): their subscriptions reach further.
    #[must_use]
    pub fn of_standard(client: &ClientId, born: u64, changed: u64) -> Text {
        Self::drawn(client, &format!("standard:{born}:{changed}"))
    }

    /// The name of a session whose client gave none. `fresh`: what nobody else was given.
    #[must_use]
    pub fn drawn(client: &ClientId, fresh: &str) -> Text {
        Text::from(format!("{client}:{fresh}"))
    }
}

/// Why a CONNECT is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// No version of MQTT that is spoken here.
    #[error("the protocol level is not 3, 4 or 5")]
    Version,
    /// The client id is none.
    #[error(transparent)]
    ClientId(#[from] Misnamed),
    /// User name or password can't be right.
    #[error(transparent)]
    Proof(#[from] Misproved),
    /// The registry says no.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The server name is another organisation's: not even MQTT 5 gets an answer.
    #[error("the server name of TLS is another organisation's")]
    ServerName,
    /// Any other reason.
    #[error("{}", .0.text())]
    Closed(Close),
}

impl Refused {
    /// The reason for logs and presence.
    #[must_use]
    pub fn close(self) -> Close {
        match self {
            Self::Version => Close::BadData,
            Self::ClientId(Misnamed::NotUtf8) => Close::BadUnicode,
            Self::ClientId(Misnamed::Slash | Misnamed::TooLong | Misnamed::Shape) => {
                Close::ClientIdInvalid
            }
            Self::ClientId(Misnamed::UnknownClass) | Self::Proof(_) => Close::NotAuthorised,
            Self::Denied(denial) => match denial {
                Denial::Malformed
                | Denial::UnknownTenant
                | Denial::UnknownDevice
                | Denial::WrongSecret
                | Denial::Disabled
                | Denial::Plaintext => Close::NotAuthorised,
                Denial::Banned { .. } | Denial::TooOften => Close::Throttled,
                Denial::Stopping | Denial::Unavailable => Close::Unavailable,
            },
            Self::ServerName => Close::CertificateWrong,
            Self::Closed(close) => close,
        }
    }

    /// What is told of it to who watches the client, if the client is one that there is; `None`: it says nothing of who came, nobody may
    /// be told, or it came too often already.
    #[must_use]
    pub fn told(self) -> Option<Close> {
        let tells = match self {
            Self::Version | Self::ClientId(_) | Self::ServerName => false,
            Self::Proof(_) => true,
            Self::Denied(denial) => match denial {
                Denial::UnknownDevice
                | Denial::WrongSecret
                | Denial::Disabled
                | Denial::Plaintext => true,
                Denial::Malformed
                | Denial::UnknownTenant
                | Denial::Banned { .. }
                | Denial::TooOften
                | Denial::Stopping
                | Denial::Unavailable => false,
            },
            Self::Closed(_) => true,
        };
        tells.then(|| self.close())
    }

    /// Whether what is told is kept, too. Only what counts as a failure of whoever comes is, so that nobody makes a node write for long:
    /// all else anybody may repeat as often as he likes, for he has shown no secret by then.
    #[must_use]
    pub fn is_kept(self) -> bool {
        match self {
            Self::Version
            | Self::ClientId(_)
            | Self::ServerName
            | Self::Closed(_)
            | Self::Denied(Denial::Plaintext) => false,
            Self::Proof(_) | Self::Denied(_) => self.told().is_some(),
        }
    }

    /// The return code of MQTT 3; `None`: the socket is closed without an answer.
    #[must_use]
    pub fn v3(self) -> Option<u8> {
        match self {
            Self::Version => Some(UNACCEPTABLE_VERSION),
            Self::ServerName => None,
            Self::ClientId(_) | Self::Proof(_) | Self::Denied(_) | Self::Closed(_) => {
                self.close().connack_v3()
            }
        }
    }

    /// The reason of MQTT 5; `None`: the socket is closed without an answer.
    #[must_use]
    pub fn v5(self) -> Option<u8> {
        match self {
            Self::Version => Some(0x84),
            Self::ServerName => None,
            Self::Proof(_) | Self::Denied(Denial::WrongSecret) => Some(0x86),
            Self::ClientId(_) | Self::Denied(_) | Self::Closed(_) => {
                Some(self.close().connack_v5())
            }
        }
    }

    /// MQTT 5: the Reason String, if it fits into what the client takes (its Maximum Packet Size).
    #[must_use]
    pub fn reason_string(self, packet_bytes_max: Option<u32>) -> Option<&'static str> {
        let text = self.close().text();
        let bytes = CONNACK_BYTES_MIN + text.len();
        let fits =
            packet_bytes_max.is_none_or(|max| bytes <= usize::try_from(max).unwrap_or(usize::MAX));
        fits.then_some(text)
    }
}

/// Reads a CONNECT.
///
/// # Errors
///
/// What to answer.
pub fn hello(hello: &Hello<'_>) -> Result<Opening, Refused> {
    let version = Version::of_level(hello.level).ok_or(Refused::Version)?;
    let client = ClientId::parse(hello.client_id)?;
    if hello.sni.is_some_and(|sni| identity::sni_contradicts(sni, &client.org)) {
        return Err(Refused::ServerName);
    }
    if client.is_quickstart()
        && [Class::Gateway, Class::SharedApplication].contains(&client.class())
    {
        return Err(Refused::Closed(Close::NotAuthorised));
    }
    let proof = identity::proof(&client, hello.username, hello.password)?;
    let session = session(&client, version, hello);
    if client.is_quickstart() && session.is_durable() {
        return Err(Refused::Closed(Close::DurableNotAllowed));
    }
    let keep_alive = keep_alive(client.class(), hello.keep_alive_s);
    let will = hello.will.map(|will| read_will(&client, will)).transpose()?;
    Ok(Opening { client, version, proof, session, keep_alive, will })
}

fn read_will(client: &ClientId, will: WillHello<'_>) -> Result<Message, Refused> {
    let message = topics::publish(client, will.topic);
    let message = message.map_err(|_| Refused::Closed(Close::Will))?;
    if will.payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(Refused::Closed(Close::TooLarge));
    }
    Ok(message)
}

fn session(client: &ClientId, version: Version, hello: &Hello<'_>) -> Session {
    let asked_s = match version {
        Version::V5 => hello.expiry_s,
        Version::V31 | Version::V311 if hello.clean => 0,
        Version::V31 | Version::V311 => SESSION_EXPIRY_S_DEFAULT,
    };
    let granted_s = asked_s.min(SESSION_EXPIRY_S_MAX);
    let own = Text::from(client.to_string());
    match &client.who {
        Who::SharedApplication { app, instance } => {
            let name = Text::from(format!("{}:{app}", client.org));
            let share = Some(Share { name, durable: granted_s > 0 });
            // A name that is drawn anew is never found again: what is durable is the share.
            let value = if instance.is_some() { granted_s } else { 0 };
            let expiry_s = Granted { value, changed: value != asked_s };
            let clean_start = hello.clean || instance.is_none();
            Session { name: instance.as_ref().map(|_| own), clean_start, expiry_s, share }
        }
        Who::Device(_) | Who::Gateway(_) | Who::Application { .. } => {
            let expiry_s = Granted { value: granted_s, changed: granted_s != asked_s };
            Session { name: Some(own), clean_start: hello.clean, expiry_s, share: None }
        }
    }
}

fn keep_alive(class: Class, asked_s: u16) -> Granted<u16> {
    let overridden =
        class == Class::SharedApplication && !(1..=SHARED_KEEP_ALIVE_S_MAX).contains(&asked_s);
    let value = if overridden { SHARED_KEEP_ALIVE_S_MAX } else { asked_s };
    Granted { value, changed: overridden }
}

/// How long a client may be silent: one and a half keep-alives. 0: for ever.
#[must_use]
pub fn silence_ms_max(keep_alive_s: u16) -> u64 {
    u64::from(keep_alive_s) * 1_500
}

/// What a client of a class may have at once (§1.3, §1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// MQTT 5: the Receive Maximum that a CONNACK says.
    pub receive_max: u16,
    /// Publishes that it sent and that are not acknowledged; beyond it nothing is read.
    pub unacknowledged_max: u16,
    /// Its subscriptions.
    pub subscriptions_max: u32,
    /// Messages in its queue; the oldest goes first.
    pub queue_items_max: u32,
}

impl Class {
    /// What a client of this class may have at once. The source says nothing of a gateway's subscriptions and queue: it speaks
    /// for many, so it has an application's.
    #[must_use]
    pub fn limits(self) -> Limits {
        let of_application = Limits {
            receive_max: 2_048,
            unacknowledged_max: 2_000,
            subscriptions_max: 500,
            queue_items_max: 5_000,
        };
        match self {
            Self::Device => Limits {
                receive_max: 10,
                unacknowledged_max: 10,
                subscriptions_max: 50,
                queue_items_max: 50,
            },
            Self::Gateway => Limits { unacknowledged_max: 1_000, ..of_application },
            Self::Application => of_application,
            Self::SharedApplication => Limits { queue_items_max: 50_000, ..of_application },
        }
    }
}
