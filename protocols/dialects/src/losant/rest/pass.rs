//! Keys and certificates: as requests say them, as they are kept, and as answers show them.
//!
//! Invariant: **no answer but the one that makes it shows a secret**, and nothing keeps it here. Checked by `tests/it/losant/rest.rs`.

use std::fmt;

use moorline_core::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::auth::SECRET_BYTES_MAX;
use super::route::PassKind;
use crate::losant::{Invalid, access::Access, connect::KEY_BYTES_MAX, id::Id, state::time};

/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 1_024;
/// Characters of a key.
const KEY_CHARS_MIN: usize = 4;

/// A key or a certificate, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Of a key: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of a certificate: its SHA-256, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What it is for, in words.
    #[serde(default)]
    pub description: String,
    /// What it is for.
    pub access: Access,
    /// When it was made.
    pub created_ms: i64,
    /// When it was changed.
    pub updated_ms: i64,
}

impl Kept {
    /// Reads what was kept.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// As it is kept.
    ///
    /// # Panics
    ///
    /// Never: it is a map with texts for keys.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a map with texts for keys")
    }

    /// As answers show it; `secret`: to whoever made it.
    #[must_use]
    pub fn shown(&self, id: &Id, application: &Text, secret: Option<&str>) -> Value {
        let mut shown = json!(self.access);
        let mut say = |key: &str, value: Value| shown[key] = value;
        say("id", json!(id.as_str()));
        say("applicationId", json!(application.as_str()));
        say("description", json!(self.description));
        say("creationDate", json!(time(self.created_ms)));
        say("lastUpdated", json!(time(self.updated_ms)));
        if let Some(key) = &self.key {
            say("applicationKeyId", json!(id.as_str()));
            say("key", json!(key));
        }
        if let Some(fingerprint) = &self.fingerprint {
            say("applicationCertificateId", json!(id.as_str()));
            say("certificateInfo", json!({ "fingerprint": fingerprint }));
        }
        if let Some(secret) = secret {
            say("secret", json!(secret));
        }
        shown
    }
}

/// A new one, or a change of one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The name of a key that somebody brings.
    pub key: Option<String>,
    /// Its secret.
    pub secret: Option<String>,
    /// A certificate, in PEM.
    pub certificate: Option<String>,
    /// What it is for, in words.
    pub description: Option<String>,
    /// What is said of [`Access`].
    access: Map<String, Value>,
}

/// By hand: no secret is printed.
impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Said {
    /// Reads a body; `new`: of what does not exist yet.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(kind: PassKind, body: &[u8], new: bool) -> Result<Self, Invalid> {
        let mut access: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| Invalid::new("an object is wanted"))?;
        let mut text = |name: &str| match access.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Invalid(format!("{name}: a text"))),
        };
        let (key, secret) = (text("key")?, text("secret")?);
        let (certificate, description) = (text("certificate")?, text("description")?);
        let said = Self { key, secret, certificate, description, access };
        let brings = said.key.is_some() || said.secret.is_some() || said.certificate.is_some();
        if brings && !new {
            return Err(Invalid::new("what it is shown by does not change"));
        }
        match kind {
            PassKind::Key => said.check_key()?,
            PassKind::Certificate if said.key.is_some() || said.secret.is_some() => {
                return Err(Invalid::new("a certificate has no key and secret"));
            }
            PassKind::Certificate if new && said.certificate.is_none() => {
                return Err(Invalid::new("certificate is required, in PEM"));
            }
            PassKind::Certificate => {}
        }
        let long = |text: &String| text.chars().count() > DESCRIPTION_CHARS_MAX;
        if said.description.as_ref().is_some_and(long) {
            return Err(Invalid::new("description: too long"));
        }
        Ok(said)
    }

    fn check_key(&self) -> Result<(), Invalid> {
        if self.certificate.is_some() {
            return Err(Invalid::new("a key has no certificate"));
        }
        if self.key.is_some() != self.secret.is_some() {
            return Err(Invalid::new("key and secret come together, or neither"));
        }
        if self.secret.as_ref().is_some_and(|secret| secret.len() > SECRET_BYTES_MAX) {
            return Err(Invalid::new("secret: 128 bytes at most"));
        }
        let fits = |key: &String| {
            (KEY_CHARS_MIN..=KEY_BYTES_MAX).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if self.key.as_ref().is_some_and(|key| !fits(key)) {
            return Err(Invalid::new("key: 4 to 128 letters, digits, and - _ ."));
        }
        Ok(())
    }

    /// What comes of it, on top of what there was.
    ///
    /// # Errors
    ///
    /// What of it cannot be.
    pub fn access(&self, before: &Access) -> Result<Access, Invalid> {
        let Value::Object(mut whole) = json!(before) else {
            return Err(Invalid::new("an object is wanted"));
        };
        whole.extend(self.access.clone());
        let access: Access =
            serde_json::from_value(Value::Object(whole)).map_err(|why| Invalid(why.to_string()))?;
        access.check()?;
        Ok(access)
    }
}
