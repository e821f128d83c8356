//! Credentials of devices: their four types, their JSON, and the ids they are found by.
//!
//! The credential is the identity: two connections with one token are one device, whatever their client ids say.
//!
//! Invariant: two credentials of one id are the same for a device that shows them, but for what [`super::connect`]
//! compares then. Checked by `tests/it/thingsboard/credentials.rs`.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha3::{Digest, Sha3_256};
use thiserror::Error;

/// Characters of a token that the server makes.
pub const TOKEN_CHARS: usize = 20;
/// The longest credentials id we take, in characters. The vendor documents 32 for tokens and does not enforce it.
pub const CREDENTIALS_ID_CHARS_MAX: usize = 255;
/// The longest certificate as text, in bytes: a chain of a few, with room.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// What stands between client id and user name before they are hashed.
const SEPARATOR: &str = "|";

/// Types of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialsType {
    /// A token, which is the id.
    #[serde(rename = "ACCESS_TOKEN")]
    AccessToken,
    /// Any of client id, user name and password.
    #[serde(rename = "MQTT_BASIC")]
    MqttBasic,
    /// A certificate.
    #[serde(rename = "X509_CERTIFICATE")]
    X509Certificate,
    /// What an LwM2M client has.
    #[serde(rename = "LWM2M_CREDENTIALS")]
    Lwm2m,
}

/// Client id, user name and password, where there are any. Their `Debug` form hides the password; a user name may be a
/// token, and is hidden, too.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Basic {
    /// The MQTT client id.
    pub client_id: Option<String>,
    /// The user name.
    pub user_name: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Credentials of a device. Their `Debug` form says their type only.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A token.
    AccessToken(String),
    /// What MQTT's CONNECT shows.
    MqttBasic(Basic),
    /// A certificate: PEM, or its base64 alone.
    X509Certificate(String),
    /// An LwM2M client's, by its endpoint name. What is inside belongs to that transport.
    Lwm2m {
        /// The name it registers with.
        endpoint: String,
        /// The rest, as JSON.
        config: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, <hidden>)", self.credentials_type())
    }
}

/// Credentials that can't be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotCredentials {
    /// No such type.
    #[error("unknown credentials type")]
    Type,
    /// A token is missing or too long.
    #[error("an access token has 1 to {CREDENTIALS_ID_CHARS_MAX} characters")]
    Token,
    /// Neither client id nor user name.
    #[error("a client id or a user name is needed")]
    NothingToFindBy,
    /// A password and no user name.
    #[error("a password needs a user name")]
    PasswordAlone,
    /// No certificate, or too long a one.
    #[error("the certificate is missing or too long")]
    Certificate,
    /// `credentialsValue` is not what the type wants.
    #[error("credentialsValue is not what its type wants")]
    Value,
}

impl Credentials {
    /// Their type.
    #[must_use]
    pub fn credentials_type(&self) -> CredentialsType {
        match self {
            Self::AccessToken(_) => CredentialsType::AccessToken,
            Self::MqttBasic(_) => CredentialsType::MqttBasic,
            Self::X509Certificate(_) => CredentialsType::X509Certificate,
            Self::Lwm2m { .. } => CredentialsType::Lwm2m,
        }
    }

    /// What a device that shows them is found by. Unique among all tenants.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::AccessToken(token) => token.clone(),
            Self::MqttBasic(basic) => {
                match (non_empty(&basic.client_id), non_empty(&basic.user_name)) {
                    (Some(client_id), Some(user_name)) => basic_id(client_id, user_name),
                    (Some(client_id), None) => hash(client_id),
                    (None, user_name) => user_name.unwrap_or_default().to_owned(),
                }
            }
            Self::X509Certificate(pem) => certificate_id(pem),
            Self::Lwm2m { endpoint, .. } => endpoint.clone(),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), NotCredentials> {
        let is_id = |text: &str| {
            let chars = text.chars().take(CREDENTIALS_ID_CHARS_MAX + 1).count();
            (1..=CREDENTIALS_ID_CHARS_MAX).contains(&chars)
        };
        match self {
            Self::AccessToken(token) if !is_id(token) => Err(NotCredentials::Token),
            Self::MqttBasic(basic) => {
                let (client_id, user_name) =
                    (non_empty(&basic.client_id), non_empty(&basic.user_name));
                match (client_id, user_name, non_empty(&basic.password)) {
                    (None, None, _) => Err(NotCredentials::NothingToFindBy),
                    (Some(_), None, Some(_)) => Err(NotCredentials::PasswordAlone),
                    (None, Some(user_name), _) if !is_id(user_name) => Err(NotCredentials::Token),
                    _ => Ok(()),
                }
            }
            Self::X509Certificate(pem)
                if pem.len() > CERTIFICATE_BYTES_MAX || certificate_text(pem).is_empty() =>
            {
                Err(NotCredentials::Certificate)
            }
            Self::Lwm2m { endpoint, .. } if !is_id(endpoint) => Err(NotCredentials::Token),
            Self::AccessToken(_) | Self::X509Certificate(_) | Self::Lwm2m { .. } => Ok(()),
        }
    }

    /// `credentialsType`, `credentialsId` and `credentialsValue` of the REST API. The id is never `null`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let value = match self {
            Self::AccessToken(_) => Value::Null,
            Self::MqttBasic(basic) => json!(json!(basic).to_string()),
            Self::X509Certificate(pem) => json!(pem),
            Self::Lwm2m { config, .. } => json!(config),
        };
        json!({
            "credentialsType": self.credentials_type(),
            "credentialsId": self.id(),
            "credentialsValue": value,
        })
    }

    /// Reads what [`Credentials::to_json`] writes, among other fields. The id of a certificate or of
    /// [`CredentialsType::MqttBasic`] is not asked for: it follows from the value.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn from_json(json: &Value) -> Result<Self, NotCredentials> {
        let kind = CredentialsType::deserialize(&json["credentialsType"]);
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let credentials = match kind.map_err(|_| NotCredentials::Type)? {
            CredentialsType::AccessToken => {
                Self::AccessToken(text("credentialsId").unwrap_or_default())
            }
            CredentialsType::MqttBasic => {
                let basic = text("credentialsValue").ok_or(NotCredentials::Value)?;
                let basic = serde_json::from_str(&basic);
                Self::MqttBasic(basic.map_err(|_| NotCredentials::Value)?)
            }
            CredentialsType::X509Certificate => {
                Self::X509Certificate(text("credentialsValue").ok_or(NotCredentials::Certificate)?)
            }
            CredentialsType::Lwm2m => Self::Lwm2m {
                endpoint: text("credentialsId").unwrap_or_default(),
                config: text("credentialsValue").ok_or(NotCredentials::Value)?,
            },
        };
        credentials.check()?;
        Ok(credentials)
    }
}

/// A text that says something.
pub(super) fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// SHA3-256, in hexadecimal digits of lower case.
#[must_use]
pub fn hash(text: &str) -> String {
    Sha3_256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of credentials with both.
#[must_use]
pub fn basic_id(client_id: &str, user_name: &str) -> String {
    hash(&format!("{client_id}{SEPARATOR}{user_name}"))
}

/// The id of a certificate as text.
#[must_use]
pub fn certificate_id(pem: &str) -> String {
    hash(&certificate_text(pem))
}

/// The id of a certificate that a client has shown.
#[must_use]
pub fn certificate_id_of_der(der: &[u8]) -> String {
    hash(&STANDARD.encode(der))
}

/// A certificate's DER; `None` if the text holds none.
#[must_use]
pub fn certificate_der(pem: &str) -> Option<Vec<u8>> {
    STANDARD.decode(certificate_text(pem)).ok().filter(|der| !der.is_empty())
}

/// Characters of a line of PEM.
const PEM_LINE: usize = 64;

/// A certificate as PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (at, char) in text.chars().enumerate() {
        if at > 0 && at % PEM_LINE == 0 {
            pem.push('\n');
        }
        pem.push(char);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// A certificate's base64 alone: no header, no footer, no white space. Of a chain, the first one's.
fn certificate_text(pem: &str) -> String {
    let body = pem.split_once("-----BEGIN CERTIFICATE-----").map_or(pem, |(_, body)| body);
    let body = body.split_once("-----END CERTIFICATE-----").map_or(body, |(body, _)| body);
    body.chars().filter(|char| !char.is_whitespace()).collect()
}
