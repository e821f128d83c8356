//! Who a client says it is: organisation, class and names, by their shapes. Whether it is true is for the registry.
//!
//! ```text
//!   d:ORG:TYPE:ID    a device           a:ORG:APP              an application, one connection per id
//!   g:ORG:TYPE:ID    a gateway          A:ORG:APP[:INSTANCE]   one of several that take turns
//! ```
//!
//! # Invariants
//!
//! - **Names hold no separator.** No `/`, `:`, `+` or `#` gets into a topic, a client id or a filter by way of a name. Checked by
//!   `only_names_of_the_right_shape_get_in`.
//! - **A client id is written as it was read.** Checked by `a_client_id_is_written_as_it_was_read`.

mod credentials;
mod host;

use std::fmt;

use moorline_core::Text;
use thiserror::Error;

pub use credentials::{
    ApiKey, BasicUser, CertificateNames, Demand, Inadmissible, Misproved, Policy, Proof,
    TOKEN_BYTES_MAX, TOKEN_CHARS_MAX, TOKEN_CHARS_MIN, USE_TOKEN_AUTH, basic, is_issuable_token,
    names_client, proof,
};
pub use host::{Host, host, sni_contradicts};

/// Characters of an organisation's id (§1.2).
pub const ORG_CHARS: usize = 6;
/// The most characters of a type, an id, an application, an instance, an event and a format (§1.2, §1.5).
pub const NAME_CHARS_MAX: usize = 36;
/// The most bytes of a client id (§1.2).
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// The organisation without registration: its devices show no credentials, and can do little (§1.5).
pub const QUICKSTART: &str = "quickstart";
/// The most parts of a client id.
const PARTS_MAX: usize = 4;

/// Whether this can be an organisation's id, [`QUICKSTART`] among them.
#[must_use]
pub fn is_org(org: &[u8]) -> bool {
    let of_customer = org.len() == ORG_CHARS
        && org.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    of_customer || org == QUICKSTART.as_bytes()
}

/// Whether this can be a type, an id, an application, an instance, an event, a command or a format.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.iter().all(allowed)
}

/// A name as text.
pub(super) fn name(name: &[u8]) -> Option<Text> {
    is_name(name).then(|| ascii(name))
}

/// Bytes that are known to be ASCII.
pub(super) fn ascii(bytes: &[u8]) -> Text {
    Text::from(String::from_utf8_lossy(bytes).into_owned())
}

/// A device within an organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// Its type.
    pub kind: Text,
    /// Its id, of its own within the type.
    pub id: Text,
}

impl DeviceName {
    /// Takes both parts as they came.
    #[must_use]
    pub fn new(kind: &[u8], id: &[u8]) -> Option<Self> {
        Some(Self { kind: name(kind)?, id: name(id)? })
    }
}

impl fmt::Display for DeviceName {
    /// `type/T/id/D`, as it stands in topics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type/{}/id/{}", self.kind, self.id)
    }
}

/// What sort of client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `d`
    Device,
    /// `g`
    Gateway,
    /// `a`
    Application,
    /// `A`
    SharedApplication,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] =
        [Self::Device, Self::Gateway, Self::Application, Self::SharedApplication];

    /// The first part of a client id.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Device => 'd',
            Self::Gateway => 'g',
            Self::Application => 'a',
            Self::SharedApplication => 'A',
        }
    }

    /// Whether it is `a` or `A`.
    #[must_use]
    pub fn is_application(self) -> bool {
        match self {
            Self::Device | Self::Gateway => false,
            Self::Application | Self::SharedApplication => true,
        }
    }
}

/// Who a client is, by its class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A device.
    Device(DeviceName),
    /// A gateway.
    Gateway(DeviceName),
    /// An application.
    Application {
        /// Its name.
        app: Text,
    },
    /// One of several connections that share what an application is sent.
    SharedApplication {
        /// The application's name.
        app: Text,
        /// Which one it is, if it says so.
        instance: Option<Text>,
    },
}

/// A client id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId {
    /// Its organisation: the tenant's alias.
    pub org: Text,
    /// Who of it.
    pub who: Who,
}

/// Why bytes are no client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Misnamed {
    /// They are not UTF-8.
    #[error("the client id is not UTF-8")]
    NotUtf8,
    /// There is a `/` in them.
    #[error("there is a / in the client id")]
    Slash,
    /// There are more than [`CLIENT_ID_BYTES_MAX`].
    #[error("the client id has more than {CLIENT_ID_BYTES_MAX} bytes")]
    TooLong,
    /// They do not begin with `d:`, `g:`, `a:` or `A:`.
    #[error("the client id begins with no known class (d, g, a, A)")]
    UnknownClass,
    /// The class has other client ids.
    #[error("the client id has not the form of its class")]
    Shape,
}

impl ClientId {
    /// Reads a client id.
    ///
    /// # Errors
    ///
    /// [`Misnamed`]; its order is the order of the checks.
    pub fn parse(bytes: &[u8]) -> Result<Self, Misnamed> {
        if std::str::from_utf8(bytes).is_err() {
            return Err(Misnamed::NotUtf8);
        }
        if bytes.contains(&b'/') {
            return Err(Misnamed::Slash);
        }
        if bytes.len() > CLIENT_ID_BYTES_MAX {
            return Err(Misnamed::TooLong);
        }
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b':').take(PARTS_MAX + 1).collect();
        let (class, rest) = parts.split_first().expect("split gives at least one part");
        if !Class::ALL.iter().any(|known| *class == [known.letter() as u8]) {
            return Err(Misnamed::UnknownClass);
        }
        let (org, who) = match (*class, rest) {
            (b"d", [org, kind, id]) => (org, DeviceName::new(kind, id).map(Who::Device)),
            (b"g", [org, kind, id]) => (org, DeviceName::new(kind, id).map(Who::Gateway)),
            (b"a", [org, app]) => (org, name(app).map(|app| Who::Application { app })),
            (b"A", [org, app]) => {
                (org, name(app).map(|app| Who::SharedApplication { app, instance: None }))
            }
            (b"A", [org, app, instance]) => {
                let both = name(app).zip(name(instance));
                let who =
                    |(app, instance)| Who::SharedApplication { app, instance: Some(instance) };
                (org, both.map(who))
            }
            _ => return Err(Misnamed::Shape),
        };
        if !is_org(org) {
            return Err(Misnamed::Shape);
        }
        Ok(Self { org: ascii(org), who: who.ok_or(Misnamed::Shape)? })
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> Class {
        match &self.who {
            Who::Device(_) => Class::Device,
            Who::Gateway(_) => Class::Gateway,
            Who::Application { .. } => Class::Application,
            Who::SharedApplication { .. } => Class::SharedApplication,
        }
    }

    /// Whether it needs no registration.
    #[must_use]
    pub fn is_quickstart(&self) -> bool {
        self.org.as_bytes() == QUICKSTART.as_bytes()
    }

    /// The device or gateway it is.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceName> {
        match &self.who {
            Who::Device(device) | Who::Gateway(device) => Some(device),
            Who::Application { .. } | Who::SharedApplication { .. } => None,
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.class().letter(), self.org)?;
        match &self.who {
            Who::Device(device) | Who::Gateway(device) => {
                write!(f, "{}:{}", device.kind, device.id)
            }
            Who::Application { app } | Who::SharedApplication { app, instance: None } => {
                write!(f, "{app}")
            }
            Who::SharedApplication { app, instance: Some(instance) } => {
                write!(f, "{app}:{instance}")
            }
        }
    }
}
