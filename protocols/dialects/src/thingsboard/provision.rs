//! Provisioning: somebody who knows a profile's key and secret asks for a device's credentials.
//!
//! Invariant: no secret of a profile is ever part of an answer. Checked by `tests/it/thingsboard/provision.rs`.

use std::fmt;

use subtle::ConstantTimeEq;

use super::{
    credentials::{Basic, Credentials},
    invalid::Invalid,
    json::Json,
};

/// How long after the answer a session may stay that was opened to ask for credentials.
pub const LINGER_MS: u64 = 60_000;
/// Characters of the name of a device that did not bring one.
pub const NAME_CHARS: usize = 20;
/// The server attribute of a device that was made in advance and has asked.
pub const STATE_ATTRIBUTE: &str = "provisionState";
/// What it holds then.
pub const STATE_PROVISIONED: &str = "provisioned";
/// The longest text of a request, in bytes; certificates may be longer.
const TEXT_BYTES_MAX: usize = 255;

/// A request for credentials. Its `Debug` form hides the profile's key and secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The device's name; `None`: one of [`NAME_CHARS`] random letters and digits.
    pub device_name: Option<String>,
    /// The profile's key.
    pub key: String,
    /// The profile's secret.
    pub secret: String,
    /// Credentials the device has chosen; `None`: a token.
    pub credentials: Option<Credentials>,
    /// Whether it is to be a gateway.
    pub gateway: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown.field("device_name", &self.device_name).field("credentials", &self.credentials);
        shown.field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(json: &Json) -> Result<Self, Invalid> {
        if json.as_object().is_none() {
            return Err(Invalid::Shape("a provision request is an object"));
        }
        let text = |key| text(json, key);
        let needed =
            |key| text(key)?.ok_or(Invalid::Shape("provisionDeviceKey and …Secret are needed"));
        let credentials = match text("credentialsType")?.as_deref() {
            None => None,
            Some("ACCESS_TOKEN") => text("token")?.map(Credentials::AccessToken),
            Some("MQTT_BASIC") => Some(Credentials::MqttBasic(Basic {
                client_id: text("clientId")?,
                user_name: text("username")?,
                password: text("password")?,
            })),
            Some("X509_CERTIFICATE") => match json.get("hash").and_then(Json::as_str) {
                None => return Err(Invalid::Shape("hash is needed: the certificate")),
                Some(pem) => Some(Credentials::X509Certificate(pem.to_owned())),
            },
            Some(_) => return Err(Invalid::Shape("unknown credentialsType")),
        };
        let request = Self {
            device_name: text("deviceName")?,
            key: needed("provisionDeviceKey")?,
            secret: needed("provisionDeviceSecret")?,
            credentials,
            gateway: json.get("gateway").and_then(Json::as_bool).unwrap_or(false),
        };
        request.checked()
    }

    /// The request, if its credentials can be any.
    pub(super) fn checked(self) -> Result<Self, Invalid> {
        match self.credentials.as_ref().map(Credentials::check) {
            Some(Err(_)) => Err(Invalid::Shape("the credentials are incomplete or too long")),
            Some(Ok(())) | None => Ok(self),
        }
    }

    /// Whether key and secret are a profile's.
    #[must_use]
    pub fn proves(&self, key: &str, secret: &str) -> bool {
        let same = |a: &str, b: &str| a.as_bytes().ct_eq(b.as_bytes());
        bool::from(same(&self.key, key) & same(&self.secret, secret))
    }
}

/// A text that may be missing; an empty one is.
fn text(json: &Json, key: &str) -> Result<Option<String>, Invalid> {
    match json.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if text.is_empty() => Ok(None),
        Some(Json::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text.clone())),
        Some(_) => Err(Invalid::Shape("a field is no text, or too long")),
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The device's credentials.
    Success(Credentials),
    /// There is no such profile, or it takes nobody.
    NotFound,
    /// The device exists and may not, or does not exist and should, or has asked before.
    Failure,
}

impl Answer {
    /// What the device is told.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let failed = |why, status| {
            Json::object([("errorMsg", Json::from(why)), ("status", Json::from(status))])
        };
        let credentials = match self {
            Self::Success(credentials) => credentials,
            Self::NotFound => return failed("Provision data was not found!", "NOT_FOUND"),
            Self::Failure => return failed("Failed to provision device!", "FAILURE"),
        };
        let (kind, value) = match credentials {
            Credentials::AccessToken(token) => ("ACCESS_TOKEN", Json::from(token.as_str())),
            Credentials::MqttBasic(basic) => ("MQTT_BASIC", basic_json(basic)),
            Credentials::X509Certificate(pem) => ("X509_CERTIFICATE", Json::from(pem.as_str())),
            Credentials::Lwm2m { config, .. } => ("LWM2M_CREDENTIALS", Json::from(config.as_str())),
        };
        Json::object([
            ("credentialsType", Json::from(kind)),
            ("credentialsValue", value),
            ("status", Json::from("SUCCESS")),
        ])
    }
}

/// The parts of basic credentials that there are.
pub(super) fn basic_json(basic: &Basic) -> Json {
    let parts = [
        ("clientId", &basic.client_id),
        ("userName", &basic.user_name),
        ("password", &basic.password),
    ];
    let parts = parts.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    Json::Object(parts.map(|(key, value)| (key.to_owned(), Json::from(value))).collect())
}

/// What a profile does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Strategy {
    /// It takes nobody.
    #[serde(rename = "DISABLED")]
    Disabled,
    /// Devices are made.
    #[serde(rename = "ALLOW_CREATE_NEW_DEVICES")]
    AllowCreate,
    /// Devices were made in advance, and ask once.
    #[serde(rename = "CHECK_PRE_PROVISIONED_DEVICES")]
    CheckPreProvisioned,
    /// Devices are made when they show a certificate of the profile's authority; nobody asks.
    #[serde(rename = "X509_CERTIFICATE_CHAIN")]
    CertificateChain,
}

/// The device that a request names, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// There is none.
    Nothing,
    /// It has not asked yet.
    Fresh,
    /// It has asked: its [`STATE_ATTRIBUTE`] says so.
    Provisioned,
}

/// What is to be done for a request whose key and secret are a profile's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the device and answer its credentials.
    Create,
    /// Set [`STATE_ATTRIBUTE`] and answer the device's credentials, or those it has chosen.
    Provision,
    /// Answer [`Answer::NotFound`].
    NotFound,
    /// Answer [`Answer::Failure`].
    Fail,
}

/// What is to be done for who shows a certificate of a profile's authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// Make the device, with this certificate.
    Create,
    /// The device's certificate is this one from now on.
    Renew,
    /// Nothing: it is nobody.
    Refuse,
}

/// What is to be done. `existing`: the profile of the device that the certificate names, if there is one; `may_create`: the profile's
/// `allowCreateNewDevicesByX509Certificate`.
#[must_use]
pub fn enrolment(profile: &str, existing: Option<&str>, may_create: bool) -> Enrolment {
    match existing {
        None if may_create => Enrolment::Create,
        Some(of) if of == profile => Enrolment::Renew,
        // Another profile's authority does not speak for it.
        None | Some(_) => Enrolment::Refuse,
    }
}

/// What is to be done. The tenant's limit on devices may still make [`Answer::Failure`] of [`Step::Create`].
#[must_use]
pub fn step(strategy: Strategy, existing: Existing) -> Step {
    match (strategy, existing) {
        (Strategy::Disabled | Strategy::CertificateChain, _) => Step::NotFound,
        (Strategy::AllowCreate, Existing::Nothing) => Step::Create,
        (Strategy::CheckPreProvisioned, Existing::Fresh) => Step::Provision,
        (Strategy::AllowCreate, Existing::Fresh | Existing::Provisioned)
        | (Strategy::CheckPreProvisioned, Existing::Nothing | Existing::Provisioned) => Step::Fail,
    }
}
