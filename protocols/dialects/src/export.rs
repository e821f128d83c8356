//! What a platform's export says of its devices, as lines of an import.
//!
//! # Invariants
//!
//! - **Nothing is left behind in silence**: what can't be moved is named, with why. Checked by `tests/it/export.rs`.
//! - **`Debug` prints no secret**: exports hold them.

use std::fmt;

use moorline_core::UnixMillis;
use serde_json::{Map, Value, json};

/// Reads an export: the values of its files, one after the other.
pub type Reader = fn(&[Value]) -> Export;

/// Who can be moved from, and how their exports are read.
pub const READERS: &[(&str, Reader)] = &[
    ("drogue", crate::drogue::export::read),
    ("losant", crate::losant::export::read),
    #[cfg(feature = "thingsboard")]
    ("thingsboard", crate::thingsboard::export::read),
    ("watson", crate::watson::export::read),
];

/// An export, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Export {
    /// Devices, in the order in which they came.
    pub devices: Vec<Moved>,
    /// What can't be moved.
    pub left: Vec<Left>,
}

/// Something that can't be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What: a device's name, or which value of the export.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    /// Its name here.
    pub name: String,
    /// What sort of thing it is.
    pub kind: Option<String>,
    /// Whether it speaks for others.
    pub gateway: bool,
    /// What people call it.
    pub labels: Vec<String>,
    /// Whatever else is said of it.
    pub metadata: Map<String, Value>,
    /// What it proves itself with.
    pub credentials: Vec<Carried>,
    /// Whether nobody is let in as it.
    pub disabled: bool,
}

/// From when on something counts, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Validity {
    /// Not before it.
    pub not_before: Option<UnixMillis>,
    /// Not from then on.
    pub not_after: Option<UnixMillis>,
}

/// A credential that a device keeps.
#[derive(Clone, PartialEq, Eq)]
pub enum Carried {
    /// A secret that is shown with the device's name.
    Secret(String),
    /// A token that says by itself whose it is, and that its platform shows again.
    Token(String),
    /// What an MQTT client says: client id, user name, password.
    Login(Option<String>, Option<String>, Option<String>),
    /// The same, whose password another system hashed: the hash, as it writes it.
    Hashed(Option<String>, Option<String>, String),
    /// All of a certificate, in PEM.
    Certificate(String),
    /// A pre-shared key: what the client calls it, its bytes, and when it counts.
    Psk(String, Vec<u8>, Validity),
    /// Another name of the device.
    Alias(String),
}

/// By hand: what is secret is not printed.
impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret(…)",
            Self::Token(_) => "Token(…)",
            Self::Login(..) => "Login(…)",
            Self::Hashed(..) => "Hashed(…)",
            Self::Certificate(_) => "Certificate(…)",
            Self::Psk(..) => "Psk(…)",
            Self::Alias(_) => "Alias(…)",
        })
    }
}

impl Carried {
    fn to_json(&self) -> Value {
        match self {
            Self::Secret(secret) => json!({ "secret": secret }),
            Self::Token(token) => json!({ "token": token, "readable": true }),
            Self::Login(client, user, password) => {
                said([("client_id", client), ("user", user), ("password", password)])
            }
            Self::Hashed(client, user, hash) => {
                let hash = Some(hash.clone());
                said([("client_id", client), ("user", user), ("password_hash", &hash)])
            }
            Self::Certificate(pem) => json!({ "certificate": pem, "pin": "certificate" }),
            Self::Psk(identity, key, Validity { not_before, not_after }) => {
                let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                let mut psk = json!({ "identity": identity, "key": key });
                let dates = [("not_before_ms", not_before), ("not_after_ms", not_after)];
                for (field, moment) in dates {
                    if let Some(moment) = moment {
                        psk[field] = Value::from(moment.0);
                    }
                }
                psk
            }
            Self::Alias(name) => json!({ "alias": name }),
        }
    }
}

/// Those fields that are there.
fn said(fields: [(&str, &Option<String>); 3]) -> Value {
    let there = fields
        .into_iter()
        .filter_map(|(field, text)| Some((field.to_owned(), Value::from(text.as_deref()?))));
    Value::Object(there.collect())
}

impl Moved {
    /// A line of an import.
    #[must_use]
    pub fn to_line(&self) -> Value {
        let class = if self.gateway { "gateway" } else { "device" };
        let credentials: Vec<_> = self.credentials.iter().map(Carried::to_json).collect();
        let mut settings = json!({ "type": self.kind, "class": class, "labels": self.labels });
        if !self.metadata.is_empty() {
            settings["metadata"] = Value::from(self.metadata.clone());
        }
        let mut line =
            json!({ "name": self.name, "settings": settings, "credentials": credentials });
        if self.disabled {
            line["enabled"] = Value::from(false);
        }
        line
    }
}

/// A text that says something.
pub(crate) fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
