//! Claiming: a device says that, and for how long, a customer may take it.

use std::fmt;

use super::{decimal, invalid::Invalid, json::Json};

/// For how long a claim counts that does not say it.
pub const DURATION_MS_DEFAULT: i64 = 24 * 60 * 60 * 1_000;
/// The server attribute that says whether its device may be claimed.
pub const CLAIMING_ALLOWED: &str = "claimingAllowed";
/// The longest secret of a claim, in bytes.
pub const SECRET_BYTES_MAX: usize = 255;

/// A device may be claimed. Its `Debug` form hides the secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// What its customer has to know; empty if nothing.
    pub secret_key: String,
    /// For how long, from now; `None`: [`DURATION_MS_DEFAULT`], or what the server is set to.
    pub duration_ms: Option<i64>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("duration_ms", &self.duration_ms).finish_non_exhaustive()
    }
}

impl Claim {
    /// Reads `{"secretKey","durationMs"}`, both of which may be missing.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(json: &Json) -> Result<Self, Invalid> {
        if json.as_object().is_none() {
            return Err(Invalid::Shape("a claim is an object"));
        }
        let secret_key = match json.get("secretKey") {
            None | Some(Json::Null) => "",
            Some(Json::String(secret)) => secret.as_str(),
            Some(_) => return Err(Invalid::Shape("secretKey is a text")),
        };
        let wrong = Invalid::Shape("durationMs is a number");
        let duration_ms = match json.get("durationMs") {
            None | Some(Json::Null) => None,
            Some(Json::Number(number)) => Some(decimal::truncated(number.as_str()).ok_or(wrong)?),
            Some(_) => return Err(wrong),
        };
        Self::new(secret_key, duration_ms)
    }

    /// A claim. A duration of 0 or less is none.
    ///
    /// # Errors
    ///
    /// The secret is too long.
    pub fn new(secret_key: &str, duration_ms: Option<i64>) -> Result<Self, Invalid> {
        if secret_key.len() > SECRET_BYTES_MAX {
            return Err(Invalid::Shape("secretKey is too long"));
        }
        let duration_ms = duration_ms.filter(|duration| *duration > 0);
        Ok(Self { secret_key: secret_key.to_owned(), duration_ms })
    }

    /// Until when it counts.
    #[must_use]
    pub fn ends_ms(&self, now_ms: i64, default_ms: i64) -> i64 {
        now_ms.saturating_add(self.duration_ms.unwrap_or(default_ms))
    }
}

/// What became of a customer's wish to have a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is the customer's.
    Success,
    /// It may not be claimed, or not with this secret.
    Failure,
    /// It is a customer's already.
    Already,
}

impl Claimed {
    /// Its status, and its word: alone as a text of JSON unless it is a success.
    #[must_use]
    pub fn answer(self) -> (u16, &'static str) {
        match self {
            Self::Success => (200, "SUCCESS"),
            Self::Failure => (400, "FAILURE"),
            Self::Already => (400, "CLAIMED"),
        }
    }
}

/// A claim that a device has made, as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Until when it counts.
    pub ends_ms: i64,
    /// Whether who wishes to have the device knows its secret.
    pub secret_is_known: bool,
}

/// What becomes of a wish. `owned`: the device is somebody's.
#[must_use]
pub fn claimed(owned: bool, standing: Option<Standing>, now_ms: i64) -> Claimed {
    if owned {
        return Claimed::Already;
    }
    let counts = |standing: Standing| standing.secret_is_known && now_ms < standing.ends_ms;
    if standing.is_some_and(counts) { Claimed::Success } else { Claimed::Failure }
}

/// Whether a device may be claimed at all: by its server attribute `claimingAllowed`, else by the server's setting.
#[must_use]
pub fn is_allowed(by_default: bool, attribute: Option<bool>) -> bool {
    by_default || attribute == Some(true)
}
