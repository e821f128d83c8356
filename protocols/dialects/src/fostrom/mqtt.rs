//! Fostrom over MQTT 3.1.1: who may connect how, what a publish means, and what is published back.
//!
//! The vendor's present topic names are not known, so the ones here are proposed; they stand in [`publish`], [`subscribe`]
//! and the constants, and nowhere else. `d`, `m` and `a` are the SDK's of 2024, and always MessagePack.
//!
//! Invariant: a topic that is not in the table ends the connection, because MQTT 3.1.1 has no other refusal; what is wrong
//! with a payload, or refused by the cluster, is acknowledged and said on [`ERROR_TOPIC`]. Checked by `tests/it/mqtt.rs`.

use bytes::Bytes;
use moorline_core::{
    QoS, Text,
    op::{Answer, Declined, Denial, Event, EventKind, Format, Mail, MailId, Op, Settlement},
    topic,
};
use serde_json::{Value, json};

use super::{identity::Credentials, is_name, payload, words};

/// Keep-alives below this (and 0) mean that the connection ends once everything is answered.
pub const SHORT_LIVED_BELOW_S: u16 = 11;
/// How long a short-lived connection may be silent once everything is answered; the server closes it then.
pub const SHORT_LIVED_IDLE_MS: u64 = 5_000;
/// Where mail is published to a device.
pub const MAIL_TOPIC: &str = "mailbox/mail";
/// Where refusals are published to a device.
pub const ERROR_TOPIC: &str = "resp/error";
/// Where mail is published to a device of 2024; there it publishes messages, too.
pub const LEGACY_MAIL_TOPIC: &str = "m";
/// The packet schema of a datapoint of 2024, which names none.
pub const LEGACY_SCHEMA: &str = "d";

/// The protocol level of MQTT 3.1.1.
const LEVEL_3_1_1: u8 = 4;

/// What of a CONNECT counts. Its clean session flag and its will do not: each session is clean.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The protocol level: 4 for MQTT 3.1.1.
    pub level: u8,
    /// The client id: `JSON` or `MSGPACK`. No identity.
    pub client_id: &'a [u8],
    /// `FLEET::DEVICE`.
    pub username: Option<&'a [u8]>,
    /// The device's secret.
    pub password: Option<&'a [u8]>,
    /// The keep-alive, in seconds.
    pub keep_alive_s: u16,
}

/// A CONNECT of the right shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Who it says it is. The session and takeovers go by this.
    pub credentials: Credentials,
    /// How this connection writes payloads.
    pub format: Format,
    /// Whether it will end by itself: it counts as no open socket, is pushed no mail, and is closed after
    /// [`SHORT_LIVED_IDLE_MS`].
    pub short_lived: bool,
}

/// The return code of a CONNACK that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Connack {
    /// Not MQTT 3.1.1.
    UnsupportedVersion = 1,
    /// The client id is neither `JSON` nor `MSGPACK`.
    IdentifierRejected = 2,
    /// Try again later.
    Unavailable = 3,
    /// The credentials are wrong, or the device may not come in. SDKs stop at this one, and try again after any other.
    NotAuthorised = 5,
}

/// Reads a CONNECT.
///
/// # Errors
///
/// What to answer.
pub fn hello(hello: &Hello<'_>) -> Result<Opening, Connack> {
    if hello.level != LEVEL_3_1_1 {
        return Err(Connack::UnsupportedVersion);
    }
    let format = match hello.client_id {
        b"JSON" => Format::Json,
        b"MSGPACK" => Format::MsgPack,
        _ => return Err(Connack::IdentifierRejected),
    };
    let (username, password) =
        (hello.username.unwrap_or_default(), hello.password.unwrap_or_default());
    let credentials = Credentials::from_username(username, password);
    let credentials = credentials.map_err(|_| Connack::NotAuthorised)?;
    Ok(Opening { credentials, format, short_lived: hello.keep_alive_s < SHORT_LIVED_BELOW_S })
}

/// How a denial is answered.
#[must_use]
pub fn denied(denial: Denial) -> Connack {
    match denial {
        Denial::Malformed
        | Denial::UnknownTenant
        | Denial::UnknownDevice
        | Denial::WrongSecret
        | Denial::Disabled
        | Denial::Plaintext
        | Denial::Banned { .. } => Connack::NotAuthorised,
        Denial::Stopping | Denial::Unavailable | Denial::TooOften => Connack::Unavailable,
    }
}

/// Why a publish is no op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpublishable {
    /// The connection has to end: why.
    Close(&'static str),
    /// It is acknowledged, and refused on [`ERROR_TOPIC`].
    Declined(Declined),
}

impl From<Declined> for Unpublishable {
    fn from(declined: Declined) -> Self {
        Self::Declined(declined)
    }
}

/// What a publish asks. The retain flag means nothing. QoS 1 is acknowledged once the op is answered.
///
/// # Errors
///
/// [`Unpublishable`].
pub fn publish(format: Format, qos: QoS, topic: &[u8], body: Bytes) -> Result<Op, Unpublishable> {
    if qos == QoS::ExactlyOnce {
        return Err(Unpublishable::Close("QoS 2"));
    }
    let levels: Vec<&[u8]> = topic::levels(topic).take(LEVELS_MAX + 1).collect();
    let op = match *levels.as_slice() {
        [b"heartbeat"] => Op::Heartbeat,
        [b"datapoint", name] => event(EventKind::Datapoint, format, name, body)?,
        [b"msg", name] => event(EventKind::Message, format, name, body)?,
        [b"mailbox", b"next"] => Op::FetchMail { header_only: header_only(format, &body)? },
        [b"mailbox", b"ack", id] => settle(id, Settlement::Ack)?,
        [b"mailbox", b"reject", id] => settle(id, Settlement::Reject)?,
        [b"mailbox", b"requeue", id] => settle(id, Settlement::Requeue)?,
        [b"d"] => event(EventKind::Datapoint, Format::MsgPack, LEGACY_SCHEMA.as_bytes(), body)?,
        [b"m"] => legacy_message(&body)?,
        [b"a"] => legacy_ack(&body)?,
        _ => return Err(Unpublishable::Close("no such topic")),
    };
    Ok(op)
}

/// The most levels of a topic in the table.
const LEVELS_MAX: usize = 3;

fn event(kind: EventKind, format: Format, name: &[u8], body: Bytes) -> Result<Op, Unpublishable> {
    if !is_name(name) {
        return Err(Unpublishable::Close("no name of a packet schema"));
    }
    let channel = Text::from(String::from_utf8_lossy(name).into_owned());
    Ok(Op::Event(payload::event(Event { kind, channel, format, body })?))
}

fn header_only(format: Format, body: &[u8]) -> Result<bool, Declined> {
    let wrong = Declined::Unreadable("only header_only may be asked for, with true or false");
    match payload::read(format, body)? {
        Value::Null => Ok(false),
        Value::Object(map) if map.is_empty() => Ok(false),
        Value::Object(map) if map.len() == 1 => {
            map.get("header_only").and_then(Value::as_bool).ok_or(wrong)
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => Err(wrong),
    }
}

fn settle(id: &[u8], settlement: Settlement) -> Result<Op, Declined> {
    let id = std::str::from_utf8(id).ok().and_then(MailId::parse);
    Ok(Op::SettleMail { id: id.ok_or(Declined::InvalidMailId)?, settlement })
}

/// `[name, payload]`.
fn legacy_message(body: &[u8]) -> Result<Op, Declined> {
    let wrong = Declined::Unreadable("a message is [name, payload]");
    let rmpv::Value::Array(items) = payload::read_msgpack(body)? else { return Err(wrong) };
    let mut items = items.into_iter();
    let (Some(rmpv::Value::String(name)), payload, None) =
        (items.next(), items.next().unwrap_or(rmpv::Value::Nil), items.next())
    else {
        return Err(wrong);
    };
    let channel = Text::from(name.into_str().ok_or(wrong)?);
    let value = payload::json_of(payload, payload::DEPTH_MAX)?;
    let body = payload::write(Format::Json, value);
    let event = Event { kind: EventKind::Message, channel, format: Format::Json, body };
    Ok(Op::Event(payload::event(event)?))
}

/// `[id]`.
fn legacy_ack(body: &[u8]) -> Result<Op, Declined> {
    let wrong = Declined::Unreadable("an ack is [id]");
    let rmpv::Value::Array(items) = payload::read_msgpack(body)? else { return Err(wrong) };
    let [rmpv::Value::String(id)] = items.as_slice() else { return Err(wrong) };
    settle(id.as_bytes(), Settlement::Ack)
}

/// How a connection wants its mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailForm {
    /// On [`MAIL_TOPIC`], as an object.
    Current,
    /// On [`LEGACY_MAIL_TOPIC`], as `[id, name, payload]` in MessagePack.
    Legacy,
}

/// What a filter asks for. Granted QoS is 1 at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Mail, in this form.
    pub mail: Option<MailForm>,
    /// Refusals.
    pub errors: bool,
}

/// What a well-formed filter asks for; `None` is refused (0x80), as nothing would ever match it.
#[must_use]
pub fn subscribe(filter: &[u8]) -> Option<Wanted> {
    let matches = |name: &str| topic::matches(filter, name.as_bytes());
    let mail = match (matches(MAIL_TOPIC), matches(LEGACY_MAIL_TOPIC)) {
        (true, _) => Some(MailForm::Current),
        (false, true) => Some(MailForm::Legacy),
        (false, false) => None,
    };
    let errors = matches(ERROR_TOPIC);
    (mail.is_some() || errors).then_some(Wanted { mail, errors })
}

/// A message to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where.
    pub topic: &'static str,
    /// What.
    pub payload: Bytes,
}

/// The front mail, pushed or asked for. An empty mailbox has no legacy form.
#[must_use]
pub fn mail(form: MailForm, format: Format, size: u64, mail: Option<Mail>) -> Option<Outgoing> {
    match (form, mail) {
        (MailForm::Legacy, None) => None,
        (MailForm::Legacy, Some(mail)) => {
            let value = payload_of(&mail);
            let items = [json!(mail.id.to_string()), json!(mail.name.as_str()), value];
            let payload = payload::write(Format::MsgPack, Value::Array(items.into()));
            Some(Outgoing { topic: LEGACY_MAIL_TOPIC, payload })
        }
        (MailForm::Current, None) => {
            let payload = payload::write(format, json!({ "id": null, "mailbox_size": size }));
            Some(Outgoing { topic: MAIL_TOPIC, payload })
        }
        (MailForm::Current, Some(mail)) => {
            let value = json!({
                "id": mail.id.to_string(),
                "name": mail.name.as_str(),
                "payload": payload_of(&mail),
                "mailbox_size": size,
            });
            Some(Outgoing { topic: MAIL_TOPIC, payload: payload::write(format, value) })
        }
    }
}

fn payload_of(mail: &Mail) -> Value {
    payload::read(mail.format, &mail.payload).unwrap_or(Value::Null)
}

/// A refusal of what was published to `topic`.
#[must_use]
pub fn error(format: Format, topic: &[u8], declined: &Declined) -> Outgoing {
    let op = String::from_utf8_lossy(topic);
    let value = json!({ "op": op, "error": words::declined(declined) });
    Outgoing { topic: ERROR_TOPIC, payload: payload::write(format, value) }
}

/// What an answered op sends back, beside the PUBACK.
#[must_use]
pub fn answer(
    form: MailForm,
    format: Format,
    topic: &[u8],
    outcome: Result<Answer, Declined>,
) -> Option<Outgoing> {
    match outcome {
        Ok(Answer::Done | Answer::Settled { .. } | Answer::MailboxSize(_)) => None,
        Ok(Answer::Mail { size, mail: front }) => mail(form, format, size, front),
        Err(declined) => Some(error(format, topic, &declined)),
    }
}
