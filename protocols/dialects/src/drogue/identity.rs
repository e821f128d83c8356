//! Who a device says that it is: the exact shapes of credentials that there are, and no other (§3.2).
//!
//! | MQTT: user name | password | client id | TLS proved | |
//! |---|---|---|---|---|
//! | `DEVICE@APP` | set | any | nothing | [`Credentials::Password`] |
//! | `USER` | set | `DEVICE@APP` | nothing | [`Credentials::User`] |
//! | absent | absent | any | a certificate, a pre-shared key | [`Credentials::Proven`] |
//!
//! Over HTTP, `application` and `device` of the query stand in the place of the client id.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::Text;

use super::words::unescaped;
use crate::secret::Secret;

/// Between a device and its application.
const AT: char = '@';
/// What an Authorization begins with, in any case.
const BASIC: &str = "basic ";
/// The most bytes of an Authorization that is looked at.
const AUTHORIZATION_BYTES_MAX: usize = 8 * 1024;

/// A device of an application: its name, or one of its aliases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// The application's name.
    pub application: Text,
    /// The device's name.
    pub device: Text,
}

impl DeviceId {
    /// Reads `DEVICE@APP`: up to the first `@`, with `%xx` in the device's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (device, application) = text.split_once(AT)?;
        Self::new(application, &unescaped(device)?)
    }

    /// Of two names, neither of which is empty.
    #[must_use]
    pub fn new(application: &str, device: &str) -> Option<Self> {
        let is_any = !application.is_empty() && !device.is_empty();
        is_any.then(|| Self { application: Text::from(application), device: Text::from(device) })
    }
}

/// What a device shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A password of the device.
    Password {
        /// Which device.
        id: DeviceId,
        /// Its password.
        password: Secret,
    },
    /// A user name and password of the device.
    User {
        /// Which device.
        id: DeviceId,
        /// Its user name.
        user: Text,
        /// Its password.
        password: Secret,
    },
    /// What TLS proved: a certificate, whose issuer is the application and whose subject is the device, or a pre-shared key, whose
    /// identity is `DEVICE@APP`.
    Proven,
}

impl Credentials {
    /// Which device they name; [`None`] if TLS says it.
    #[must_use]
    pub fn id(&self) -> Option<&DeviceId> {
        match self {
            Self::Password { id, .. } | Self::User { id, .. } => Some(id),
            Self::Proven => None,
        }
    }
}

/// What a CONNECT says of its client.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// Its client id.
    pub client: &'a str,
    /// Its user name.
    pub username: Option<&'a str>,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Whether TLS proved a certificate or a pre-shared key of it.
    pub proven: bool,
}

/// Reads a CONNECT; [`None`] for a shape that there is not.
#[must_use]
pub fn mqtt(hello: &Hello<'_>) -> Option<Credentials> {
    match (hello.username, hello.password, hello.proven) {
        (Some(username), Some(password), false) => {
            let password = Secret::copied(password);
            if username.contains(AT) {
                return Some(Credentials::Password { id: DeviceId::parse(username)?, password });
            }
            let user = Some(username).filter(|user| !user.is_empty()).map(Text::from)?;
            Some(Credentials::User { id: DeviceId::parse(hello.client)?, user, password })
        }
        (None, None, true) => Some(Credentials::Proven),
        _ => None,
    }
}

/// Reads a request of HTTP: its `application` and `device` parameters and its Authorization; [`None`] for a shape that there is not.
#[must_use]
pub fn http(
    application: Option<&str>,
    device: Option<&str>,
    authorization: Option<&[u8]>,
    proven: bool,
) -> Option<Credentials> {
    let Some(authorization) = authorization else {
        let says_nothing = application.is_none() && device.is_none();
        return (proven && says_nothing).then_some(Credentials::Proven);
    };
    if proven {
        return None;
    }
    let (user, password) = basic(authorization)?;
    match (application, device) {
        (None, None) => Some(Credentials::Password { id: DeviceId::parse(&user)?, password }),
        (Some(application), None) => {
            Some(Credentials::Password { id: DeviceId::new(application, &user)?, password })
        }
        (Some(application), Some(device)) => {
            let id = DeviceId::new(application, device)?;
            let user = Some(user).filter(|user| !user.is_empty()).map(Text::from)?;
            Some(Credentials::User { id, user, password })
        }
        (None, Some(device)) => {
            let DeviceId { application, device: user } = DeviceId::parse(&user)?;
            let id = DeviceId::new(application.as_str(), device)?;
            Some(Credentials::User { id, user, password })
        }
    }
}

/// User name and password of `Basic …`.
pub(super) fn basic(authorization: &[u8]) -> Option<(String, Secret)> {
    if authorization.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    let (scheme, encoded) = authorization.split_at_checked(BASIC.len())?;
    if !scheme.eq_ignore_ascii_case(BASIC.as_bytes()) {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let at = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..at].to_vec()).ok()?;
    Some((user, Secret::copied(&decoded[at + 1..])))
}
