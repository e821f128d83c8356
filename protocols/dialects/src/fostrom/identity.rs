//! Who a device says it is: fleet, device and secret, by their shapes. Whether it is true is for the registry.
//!
//! Ids are case-sensitive. The vendor's SDK of 2024 puts them in upper case before it sends them, so only such are issued
//! ([`Credentials::is_issuable`]); others are well-formed and belong to nobody.

use moorline_core::Text;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::secret::Secret;

/// Characters of a fleet's id.
pub const FLEET_CHARS: usize = 8;
/// Characters of a device's id.
pub const DEVICE_CHARS: usize = 10;
/// Characters of a device's secret, with its prefix.
pub const SECRET_CHARS: usize = 36;
/// What every secret begins with.
pub const SECRET_PREFIX: &[u8] = b"FOS-";
/// What stands between fleet and device in a user name.
const SEPARATOR: &[u8] = b"::";

/// A device within a fleet. Takeovers go by it, never by an MQTT client id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The fleet's id: the tenant.
    pub fleet: Text,
    /// The device's id.
    pub device: Text,
}

/// Well-formed credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who it says it is.
    pub identity: Identity,
    /// What it proves that with.
    pub secret: Secret,
}

/// Which part of the credentials is missing or has the wrong shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Misshapen {
    /// There is no fleet id.
    #[error("Fleet ID is missing")]
    FleetMissing,
    /// The fleet id is not 8 letters and digits.
    #[error("Fleet ID is invalid")]
    Fleet,
    /// There is no device id.
    #[error("Device ID is missing")]
    DeviceMissing,
    /// The device id is not 10 letters and digits.
    #[error("Device ID is invalid")]
    Device,
    /// There is no secret.
    #[error("Device Secret is missing")]
    SecretMissing,
    /// The secret is not `FOS-` and 32 letters and digits.
    #[error("Device Secret is invalid")]
    Secret,
}

impl Credentials {
    /// Takes the three parts as they came: bytes of a Moonlight Connect, or HTTP headers.
    ///
    /// # Errors
    ///
    /// The first part that has not its shape.
    pub fn new(fleet: &[u8], device: &[u8], secret: &[u8]) -> Result<Self, Misshapen> {
        let wrong = |part: &[u8], missing, invalid| if part.is_empty() { missing } else { invalid };
        if !is_id(fleet, FLEET_CHARS) {
            return Err(wrong(fleet, Misshapen::FleetMissing, Misshapen::Fleet));
        }
        if !is_id(device, DEVICE_CHARS) {
            return Err(wrong(device, Misshapen::DeviceMissing, Misshapen::Device));
        }
        let random = secret.strip_prefix(SECRET_PREFIX);
        if !random.is_some_and(|random| is_id(random, SECRET_CHARS - SECRET_PREFIX.len())) {
            return Err(wrong(secret, Misshapen::SecretMissing, Misshapen::Secret));
        }
        let text = |ascii| Text::from(String::from_utf8_lossy(ascii).into_owned());
        let identity = Identity { fleet: text(fleet), device: text(device) };
        Ok(Self { identity, secret: Secret::copied(secret) })
    }

    /// Takes MQTT's user name, `FLEET::DEVICE`, and password.
    ///
    /// # Errors
    ///
    /// The first part that has not its shape.
    pub fn from_username(username: &[u8], password: &[u8]) -> Result<Self, Misshapen> {
        let at = username.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let at =
            at.ok_or(if username.is_empty() { Misshapen::FleetMissing } else { Misshapen::Fleet })?;
        Self::new(&username[..at], &username[at + SEPARATOR.len()..], password)
    }

    /// Whether the others are the same; the secrets are compared in constant time.
    #[must_use]
    pub fn are_same(&self, others: &Self) -> bool {
        self.identity == others.identity
            && bool::from(self.secret.expose().ct_eq(others.secret.expose()))
    }

    /// Whether a registry may give these to a device: nothing in them is changed by upper-casing.
    #[must_use]
    pub fn is_issuable(&self) -> bool {
        let parts = [self.identity.fleet.as_bytes(), self.identity.device.as_bytes()];
        let mut all = parts.into_iter().chain([self.secret.expose()]).flatten();
        !all.any(u8::is_ascii_lowercase)
    }
}

fn is_id(id: &[u8], chars: usize) -> bool {
    id.len() == chars && id.iter().all(u8::is_ascii_alphanumeric)
}
