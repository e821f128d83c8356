//! How device types, last events, applications and failed connects are kept.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{Text, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::request::{ClassId, NewType, TypeChange};
use crate::watson::management::{
    attributes::DeviceInfo,
    kept::{self, Unreadable},
};

/// The most bytes of a type, as it is kept.
pub const TYPE_BYTES_MAX: usize = 64 * 1024;
/// What ends the head of a last event.
const HEAD_END: u8 = b'\n';

/// A device type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptType {
    /// What sort its devices are.
    #[serde(default)]
    pub class: ClassId,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What its devices are, unless they say otherwise when they are registered.
    #[serde(default)]
    pub info: DeviceInfo,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// When it was made.
    #[serde(with = "kept::moment")]
    pub created: UnixMillis,
    /// When it was changed.
    #[serde(with = "kept::moment")]
    pub updated: UnixMillis,
}

impl KeptType {
    /// A new one.
    #[must_use]
    pub fn new(new: NewType, now: UnixMillis) -> Self {
        Self {
            class: new.class_id.unwrap_or_default(),
            description: new.description,
            info: new.device_info.unwrap_or_default(),
            metadata: new.metadata.unwrap_or_default(),
            created: now,
            updated: now,
        }
    }

    /// Takes over what a change says.
    pub fn change(&mut self, change: TypeChange, now: UnixMillis) {
        let TypeChange { description, device_info, metadata } = change;
        self.description = description.or(self.description.take());
        self.info.merge(device_info.unwrap_or_default());
        self.metadata = metadata.unwrap_or(std::mem::take(&mut self.metadata));
        self.updated = now;
    }
}

/// The last event of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// How its payload is written.
    pub format: Text,
    /// When it came.
    pub at: UnixMillis,
    /// It.
    pub payload: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    #[serde(with = "kept::moment")]
    at: UnixMillis,
}

impl KeptEvent {
    /// As it is kept: a head of JSON, a new line, and the payload as it came.
    #[must_use]
    pub fn written(&self) -> Bytes {
        let head = kept::write(&Head { format: self.format.to_string(), at: self.at });
        let mut body = BytesMut::with_capacity(head.len() + 1 + self.payload.len());
        body.put(head);
        body.put_u8(HEAD_END);
        body.put_slice(&self.payload);
        body.freeze()
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn read(body: &Bytes) -> Result<Self, Unreadable> {
        let end = body.iter().position(|byte| *byte == HEAD_END).ok_or(Unreadable)?;
        let Head { format, at } = kept::read(&body[..end])?;
        Ok(Self { format: Text::from(format), at, payload: body.slice(end + 1..) })
    }
}

/// When an application was there last. Whether it is there now, its session says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptApp {
    /// Its session.
    pub session: String,
    /// When it came.
    #[serde(with = "kept::moment")]
    pub since: UnixMillis,
    /// When it went.
    #[serde(default, with = "kept::moment_if_any")]
    pub left: Option<UnixMillis>,
}

impl KeptApp {
    /// Whether this is what is known later than `other`: of a later connection, or the end of the same one.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let is_same = self.since == other.since && self.session == other.session;
        self.since > other.since || is_same && self.left.is_some() && other.left.is_none()
    }
}

/// The most failed connects of a device that are kept.
pub const FAILURES_MAX: usize = 20;

/// A connect that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptFailure {
    /// When.
    #[serde(with = "kept::moment")]
    pub at: UnixMillis,
    /// The number of its close code.
    pub close: u16,
    /// From where.
    pub address: String,
}

/// A device's failed connects, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeptFailures {
    /// They.
    pub failures: VecDeque<KeptFailure>,
}

impl KeptFailures {
    /// One more.
    pub fn note(&mut self, failure: KeptFailure) {
        self.failures.push_front(failure);
        self.failures.truncate(FAILURES_MAX);
    }
}
