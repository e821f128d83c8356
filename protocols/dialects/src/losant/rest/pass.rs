//! Keys, certificates, and authorities that issue them: as requests say them, as they are kept, and as answers show them.
//!
//! # Invariants
//!
//! - **No answer but the one that makes it shows a secret**, and nothing keeps it here.
//! - **An authority lets nobody in by itself unless somebody said whom**: without any of a key's restrictions it vouches for
//!   certificates that are registered, and that is all.
//!
//! Checked by `tests/it/losant/rest.rs`.

use std::fmt;

use moorline_core::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::auth::SECRET_BYTES_MAX;
use super::route::PassKind;
use crate::losant::{Invalid, access::Access, connect::KEY_BYTES_MAX, id::Id, state::time};

/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 1_024;
/// Characters of the name of an authority.
const NAME_CHARS_MAX: usize = 255;
/// Bytes of an authority's certificates, in PEM.
pub const BUNDLE_BYTES_MAX: usize = 32_767;
/// What of a body says whom an authority lets in.
const RESTRICTIONS: [&str; 5] = ["deviceIds", "deviceTags", "filterType", "pubTopics", "subTopics"];
/// Characters of a key.
const KEY_CHARS_MIN: usize = 4;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Info {
    /// Its number, in hexadecimal digits.
    pub serial_number: String,
    /// Its SHA-256, likewise.
    pub fingerprint: String,
    /// Whose it is.
    pub common_name: String,
    /// Who issued it.
    pub issuer_name: String,
    /// From when on it counts, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when.
    pub until_ms: i64,
}

impl Info {
    fn shown(&self) -> Value {
        json!({
            "serialNumber": self.serial_number, "fingerprint": self.fingerprint,
            "commonName": self.common_name, "issuerName": self.issuer_name,
            "notValidBefore": time(self.from_ms), "notValidAfter": time(self.until_ms),
        })
    }
}

/// A key, a certificate or an authority, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Of a key: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of a certificate: its SHA-256, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Of a certificate: the authority of the application that issued it. It counts as long as that one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Of an authority: its certificates, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Of an authority: what it is called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of an authority: whether what it issued lets devices in, registered or not.
    #[serde(default)]
    pub lets_in: bool,
    /// What its certificates say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<Info>,
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

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PassKind {
        match (&self.key, &self.ca_bundle) {
            (Some(_), _) => PassKind::Key,
            (None, Some(_)) => PassKind::Authority,
            (None, None) => PassKind::Certificate,
        }
    }

    /// As answers show it; `secret`: to whoever made it.
    #[must_use]
    pub fn shown(&self, id: &Id, application: &Text, secret: Option<&str>) -> Value {
        let mut shown = json!(self.access);
        if self.kind() == PassKind::Authority && !self.lets_in {
            shown = json!({ "status": self.access.status });
        }
        let mut say = |key: &str, value: Value| shown[key] = value;
        say("id", json!(id.as_str()));
        say("applicationId", json!(application.as_str()));
        say("description", json!(self.description));
        say("creationDate", json!(time(self.created_ms)));
        say("lastUpdated", json!(time(self.updated_ms)));
        match self.kind() {
            PassKind::Key => {
                say("applicationKeyId", json!(id.as_str()));
                say("key", json!(self.key));
            }
            PassKind::Certificate => {
                let info = self.info.first().map(Info::shown);
                let bare = || json!({ "fingerprint": self.fingerprint });
                say("applicationCertificateId", json!(id.as_str()));
                say("certificateInfo", info.unwrap_or_else(bare));
            }
            PassKind::Authority => {
                let info: Vec<_> = self.info.iter().map(Info::shown).collect();
                say("applicationCertificateAuthorityId", json!(id.as_str()));
                say("name", json!(self.name));
                say("caBundle", json!(self.ca_bundle));
                say("caInfo", json!(info));
            }
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
    /// Certificates of an authority, in PEM.
    pub ca_bundle: Option<String>,
    /// What an authority is called.
    pub name: Option<String>,
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
        let (ca_bundle, name) = (text("caBundle")?, text("name")?);
        let said = Self { key, secret, certificate, ca_bundle, name, description, access };
        let brings = said.key.is_some() || said.secret.is_some() || said.certificate.is_some();
        if brings && !new {
            return Err(Invalid::new("what it is shown by does not change"));
        }
        match kind {
            PassKind::Key => said.check_key()?,
            PassKind::Certificate => said.check_certificate(new)?,
            PassKind::Authority => said.check_authority(new)?,
        }
        let long = |text: &String| text.chars().count() > DESCRIPTION_CHARS_MAX;
        if said.description.as_ref().is_some_and(long) {
            return Err(Invalid::new("description: too long"));
        }
        Ok(said)
    }

    fn check_certificate(&self, new: bool) -> Result<(), Invalid> {
        if self.key.is_some() || self.secret.is_some() || self.ca_bundle.is_some() {
            return Err(Invalid::new("a certificate has no key, secret and caBundle"));
        }
        if new && self.certificate.is_none() {
            return Err(Invalid::new("certificate is required, in PEM"));
        }
        self.check_nameless()
    }

    fn check_nameless(&self) -> Result<(), Invalid> {
        let has = self.name.is_some();
        if has { Err(Invalid::new("only an authority has a name")) } else { Ok(()) }
    }

    fn check_authority(&self, new: bool) -> Result<(), Invalid> {
        if self.key.is_some() || self.secret.is_some() || self.certificate.is_some() {
            return Err(Invalid::new("an authority has no key, secret and certificate"));
        }
        if new && (self.name.is_none() || self.ca_bundle.is_none()) {
            return Err(Invalid::new("name and caBundle are required, caBundle in PEM"));
        }
        let fits = |name: &String| (1..=NAME_CHARS_MAX).contains(&name.chars().count());
        if !self.name.as_ref().is_none_or(fits) {
            return Err(Invalid::new("name: 1 to 255 characters"));
        }
        if self.ca_bundle.as_ref().is_some_and(|bundle| bundle.len() > BUNDLE_BYTES_MAX) {
            return Err(Invalid(format!("caBundle: at most {BUNDLE_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Whether it says whom an authority lets in.
    #[must_use]
    pub fn restricts(&self) -> bool {
        RESTRICTIONS.iter().any(|name| self.access.get(*name).is_some_and(|it| !it.is_null()))
    }

    fn check_key(&self) -> Result<(), Invalid> {
        if self.certificate.is_some() || self.ca_bundle.is_some() {
            return Err(Invalid::new("a key has no certificate and caBundle"));
        }
        self.check_nameless()?;
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
