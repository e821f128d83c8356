//! CONNECT: what a client says of itself, and what it is answered.
//!
//! Codes are not documented; the SDKs want one all the same, since a connection that only closes tells them nothing (§2.2).

use moorline_core::Text;
use thiserror::Error;

use super::id::Id;

/// What a client proves itself with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shows<'a> {
    /// An access key, and its secret.
    Key(&'a str, &'a [u8]),
    /// A certificate, which TLS has looked at.
    Certificate,
}

/// By hand: no secret is printed.
impl std::fmt::Debug for Shows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key, _) => write!(f, "Key({key})"),
            Self::Certificate => f.write_str("Certificate"),
        }
    }
}

/// Bytes of an access key: the vendor's are UUIDs of 36.
pub const KEY_BYTES_MAX: usize = 128;

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Another version than 3.1.1.
    #[error("MQTT 3.1.1 is spoken here")]
    Version,
    /// It asks for a session that lasts, which the application does not forgive.
    #[error("clean session 0 is not supported")]
    Session,
    /// The client id is no device's of the application.
    #[error("the client id is no device of the application")]
    Device,
    /// There is no such key, it does not count, or the secret is not its own.
    #[error("the access key or its secret is wrong")]
    Credentials,
    /// The key, or the device, is not for this.
    #[error("the access key is not for this device, or the device not for connections")]
    Forbidden,
    /// Credentials were shown without TLS, which the application does not allow.
    #[error("credentials may be shown with TLS only")]
    Plaintext,
    /// It is banned, or too many come at once.
    #[error("too much was said: not heard for a while")]
    Banned,
    /// Nobody can say now.
    #[error("the cluster is unavailable")]
    Unavailable,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Session,
        Self::Device,
        Self::Credentials,
        Self::Forbidden,
        Self::Plaintext,
        Self::Banned,
        Self::Unavailable,
    ];

    /// The return code of a CONNACK.
    #[must_use]
    pub fn connack(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Session | Self::Device => 2,
            Self::Banned | Self::Unavailable => 3,
            Self::Credentials => 4,
            Self::Forbidden | Self::Plaintext => 5,
        }
    }

    /// For a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Session => "session",
            Self::Device => "unknown_device",
            Self::Credentials => "wrong_secret",
            Self::Forbidden => "forbidden",
            Self::Plaintext => "plaintext",
            Self::Banned => "banned",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What a CONNECT shows, if that may be one of this platform's: a key (user name) with its secret (password), or nothing but a
/// certificate with a device's id.
#[must_use]
pub fn shows<'a>(
    client: &Text,
    user: Option<&'a Text>,
    password: Option<&'a [u8]>,
    certificate: bool,
) -> Option<Shows<'a>> {
    match (user.filter(|user| !user.as_str().is_empty()), password) {
        (Some(user), Some(password)) if user.len() <= KEY_BYTES_MAX => {
            Some(Shows::Key(user.as_str(), password))
        }
        (None, _) if certificate && Id::parse(client.as_bytes()).is_some() => {
            Some(Shows::Certificate)
        }
        (Some(_), _) | (None, _) => None,
    }
}

/// Whether a key has the form of the vendor's: a UUID. Only such a one is looked for when the client id is no device's.
#[must_use]
pub fn is_likely_key(key: &str) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    const CHARS: usize = 36;
    let fits = |(at, byte): (usize, u8)| match DASHES.contains(&at) {
        true => byte == b'-',
        false => byte.is_ascii_hexdigit(),
    };
    key.len() == CHARS && key.bytes().enumerate().all(fits)
}
