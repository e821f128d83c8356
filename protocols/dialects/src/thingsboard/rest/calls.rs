//! Calls to devices over the REST API: bodies, names of states, and what is answered in its two versions.

use moorline_core::CallState;
use serde_json::{Value, json};
use uuid::Uuid;

use super::entities::{EntityId, EntityType};
use crate::thingsboard::{
    calls::METHOD_BYTES_MAX, decimal, invalid::Invalid, json::Json, query::WrongParameter,
};

/// How long a call waits that does not say it.
pub const TIMEOUT_MS_DEFAULT: i64 = 10_000;
/// How long a call waits at least.
pub const TIMEOUT_MS_MIN: i64 = 5_000;
/// How often a call is sent again that does not say it.
pub const RETRIES_DEFAULT: u32 = 5;
/// How often a call may be sent again.
pub const RETRIES_MAX: u32 = 100;

/// Versions of the API's paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `/api/plugins/rpc/…`
    V1,
    /// `/api/rpc/…`
    V2,
}

/// A path of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST {oneway|twoway}/{deviceId}`
    Call {
        /// By which path.
        version: Version,
        /// Whether no answer is waited for.
        one_way: bool,
        /// Whom.
        device: Uuid,
    },
    /// `GET persistent/{rpcId}`
    Get(Uuid),
    /// `GET persistent/device/{deviceId}`
    List(Uuid),
    /// `DELETE persistent/{rpcId}`
    Delete(Uuid),
}

/// Reads a path; `None` if it is none of calls.
///
/// # Errors
///
/// An id is none.
pub fn route(method: &str, path: &str) -> Result<Option<Route>, WrongParameter> {
    let v1 = path.strip_prefix("/api/plugins/rpc/").map(|rest| (Version::V1, rest));
    let v2 = || path.strip_prefix("/api/rpc/").map(|rest| (Version::V2, rest));
    let Some((version, rest)) = v1.or_else(v2) else { return Ok(None) };
    let parts: Vec<&str> = rest.split('/').collect();
    let id = |text: &str| text.parse().map_err(|_| WrongParameter::Value("the id"));
    Ok(Some(match (method, version, parts.as_slice()) {
        ("POST", version, [way @ ("oneway" | "twoway"), device]) => {
            Route::Call { version, one_way: *way == "oneway", device: id(device)? }
        }
        ("GET", Version::V2, ["persistent", "device", device]) => Route::List(id(device)?),
        ("GET", Version::V2, ["persistent", call]) => Route::Get(id(call)?),
        ("DELETE", Version::V2, ["persistent", call]) => Route::Delete(id(call)?),
        _ => return Ok(None),
    }))
}

/// A call as an integrator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: String,
    /// With what: any JSON; `null` if nothing was said.
    pub params: Json,
    /// Until when it waits, in milliseconds since the epoch.
    pub expires_ms: i64,
    /// Whether it is kept, and answered with its id at once.
    pub persistent: bool,
    /// How often it may be sent again.
    pub retries: u32,
    /// Whatever its sender added.
    pub additional_info: Json,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(body: &[u8], now_ms: i64) -> Result<Self, Invalid> {
        let json = Json::read(body)?;
        let method = json.get("method").and_then(Json::as_str);
        let method = method.ok_or(Invalid::Shape("a call has a method, which is a text"))?;
        if method.is_empty() || method.len() > METHOD_BYTES_MAX {
            return Err(Invalid::Shape("a method has 1 to 255 bytes"));
        }
        let number = |key| match json.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Number(number)) => Ok(decimal::truncated(number.as_str())),
            Some(_) => Err(Invalid::Shape("timeout, expirationTime and retries are numbers")),
        };
        let timeout_ms = number("timeout")?.unwrap_or(TIMEOUT_MS_DEFAULT).max(TIMEOUT_MS_MIN);
        let retries = number("retries")?.map(|retries| u32::try_from(retries).unwrap_or(0));
        Ok(Self {
            method: method.to_owned(),
            params: json.get("params").cloned().unwrap_or(Json::Null),
            expires_ms: number("expirationTime")?
                .unwrap_or_else(|| now_ms.saturating_add(timeout_ms)),
            persistent: json.get("persistent").and_then(Json::as_bool).unwrap_or(false),
            retries: retries.unwrap_or(RETRIES_DEFAULT).min(RETRIES_MAX),
            additional_info: json.get("additionalInfo").cloned().unwrap_or(Json::Null),
        })
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One-way: it was sent to a session.
    Sent,
    /// The device has answered this.
    Answered(String),
    /// It is kept, by this id.
    Kept(Uuid),
    /// No answer in time.
    TimedOut,
    /// The device was not connected all the time.
    NoConnection,
}

/// A status and a body of JSON, which may be empty.
#[must_use]
pub fn respond(version: Version, outcome: &Outcome) -> (u16, String) {
    match (outcome, version) {
        (Outcome::Sent, _) => (200, String::new()),
        (Outcome::Kept(id), _) => (200, json!({ "rpcId": id }).to_string()),
        (Outcome::Answered(answer), _) => match Json::read(answer.as_bytes()) {
            Ok(_) => (200, answer.clone()),
            Err(_) if answer.is_empty() => (200, String::new()),
            Err(_) => (406, String::new()),
        },
        (Outcome::TimedOut | Outcome::NoConnection, Version::V2) => (504, String::new()),
        (Outcome::TimedOut, Version::V1) => (408, String::new()),
        (Outcome::NoConnection, Version::V1) => (409, String::new()),
    }
}

/// What a state of a call that is kept is called.
#[must_use]
pub fn state_name(state: CallState) -> &'static str {
    match state {
        CallState::Queued => "QUEUED",
        CallState::Sent => "SENT",
        CallState::Delivered => "DELIVERED",
        CallState::Successful => "SUCCESSFUL",
        CallState::Timeout => "TIMEOUT",
        CallState::Expired => "EXPIRED",
        CallState::Failed => "FAILED",
        CallState::Deleted => "DELETED",
    }
}

/// The state of this name.
#[must_use]
pub fn state_by_name(name: &str) -> Option<CallState> {
    CallState::ALL.into_iter().find(|state| state_name(*state) == name)
}

/// A call that is kept, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: Uuid,
    /// When it was made.
    pub created_ms: i64,
    /// Whose it is.
    pub tenant: Uuid,
    /// Whom it is for.
    pub device: Uuid,
    /// Until when it waits.
    pub expires_ms: i64,
    /// What was asked, as JSON.
    pub request: Value,
    /// What was answered; `None` until then.
    pub response: Option<Value>,
    /// How it stands.
    pub state: CallState,
    /// Whatever its sender added.
    pub additional_info: Value,
}

impl Kept {
    /// The JSON of the API.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": EntityId { entity_type: EntityType::Rpc, id: self.id },
            "createdTime": self.created_ms,
            "tenantId": EntityId { entity_type: EntityType::Tenant, id: self.tenant },
            "deviceId": EntityId { entity_type: EntityType::Device, id: self.device },
            "expirationTime": self.expires_ms,
            "request": self.request,
            "response": self.response,
            "status": state_name(self.state),
            "additionalInfo": self.additional_info,
        })
    }
}
