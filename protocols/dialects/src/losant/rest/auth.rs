//! Who logs in, and what a token is for.
//!
//! Invariant: **a device's token is for its own platform's device actions alone**, and for no more than it asked for. Checked by
//! `tests/it/losant/rest.rs`.

use std::fmt;

use serde::Deserialize;

use crate::losant::{Invalid, connect::KEY_BYTES_MAX, id::Id};

/// All that a device may.
pub const ALL_DEVICE: &str = "all.Device";
/// The same, but to look only.
pub const ALL_DEVICE_READ: &str = "all.Device.read";
/// Bytes of a login: an address or an id, a secret and scopes. It is read before it is known whose it is.
pub const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an address: it is counted by it who fails too often, so it is remembered.
pub const EMAIL_BYTES_MAX: usize = 254;
/// Bytes of a key's secret: those that are made here have 43.
pub const SECRET_BYTES_MAX: usize = 128;
/// Bytes of a token of the API: its tenant, its name and its secret.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Scopes of one token.
const SCOPES_MAX: usize = 64;
/// How long a token counts that names no time: a day.
pub const TOKEN_S: u64 = 24 * 3_600;
/// The longest: a year.
pub const TOKEN_S_MAX: u64 = 365 * 24 * 3_600;

/// What a device logs in with.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceLogin {
    /// Who it is.
    pub device: Id,
    /// By which key.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// How long the token is to count, in seconds.
    pub token_s: u64,
    /// What it is to be for.
    pub scopes: Vec<String>,
}

/// By hand: no secret is printed.
impl fmt::Debug for DeviceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLogin").field("device", &self.device).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidByDevice {
    device_id: String,
    key: String,
    secret: String,
    #[serde(default, rename = "tokenTTL")]
    token_ttl: Option<u64>,
    #[serde(default)]
    requested_scopes: Option<Vec<String>>,
}

impl DeviceLogin {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Why it is none. Never with what it says.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let wanted = || Invalid::new("deviceId, key and secret are required");
        let said: SaidByDevice = serde_json::from_slice(body).map_err(|_| wanted())?;
        let device = Id::parse(said.device_id.as_bytes());
        let device = device.ok_or_else(|| Invalid::new("deviceId: 24 hexadecimal digits"))?;
        if said.key.len() > KEY_BYTES_MAX || said.secret.len() > SECRET_BYTES_MAX {
            return Err(Invalid::new("key and secret: 128 bytes at most"));
        }
        let scopes = said.requested_scopes.filter(|scopes| !scopes.is_empty());
        let scopes = scopes.unwrap_or_else(|| vec![ALL_DEVICE.to_owned()]);
        if scopes.len() > SCOPES_MAX || !scopes.iter().all(|scope| is_device_scope(scope)) {
            return Err(Invalid::new("requestedScopes: all.Device, or actions of devices"));
        }
        let token_s = said.token_ttl.unwrap_or(TOKEN_S).clamp(1, TOKEN_S_MAX);
        Ok(Self { device, key: said.key, secret: said.secret, token_s, scopes })
    }
}

fn is_device_scope(scope: &str) -> bool {
    [ALL_DEVICE, ALL_DEVICE_READ].contains(&scope)
        || scope.starts_with("device.")
        || scope.starts_with("devices.")
        || scope.starts_with("data.")
}

/// Whether a token with these scopes is for an action; `reads`: it changes nothing; `is_devices`: a device may it at all.
#[must_use]
pub fn allows(scopes: &[String], (action, is_devices): (&str, bool), reads: bool) -> bool {
    let allows = |scope: &String| match scope.as_str() {
        ALL_DEVICE => true,
        ALL_DEVICE_READ => reads,
        "device.*" => action.starts_with("device."),
        "devices.*" => action.starts_with("devices."),
        "data.*" => action.starts_with("data."),
        scope => scope == action,
    };
    is_devices && scopes.iter().any(allows)
}

/// What somebody logs in with who has a token of the API.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct UserLogin {
    /// Whatever they are called.
    pub email: String,
    /// The token.
    pub password: String,
}

/// By hand: no secret is printed.
impl fmt::Debug for UserLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserLogin").field("email", &self.email).finish_non_exhaustive()
    }
}

impl UserLogin {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let wanted = |_| Invalid::new("email and password are required");
        let said: Self = serde_json::from_slice(body).map_err(wanted)?;
        if said.email.len() > EMAIL_BYTES_MAX || said.password.len() > PASSWORD_BYTES_MAX {
            return Err(Invalid::new("email: 254 bytes at most; password: 1,024"));
        }
        Ok(said)
    }
}

/// The token of an `Authorization` header.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
