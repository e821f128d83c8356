//! Calls (the vendor's RPC) as devices see them, in both directions.
//!
//! A call from the server and its answer, and a call from the device and its answer, each have a decimal id: the first is
//! chosen by the server and counts per device, the second by the device, which may repeat it.

use super::{invalid::Invalid, json::Json};

/// How long a device's call waits for its answer; then [`timed_out`] is the answer.
pub const DEVICE_CALL_TIMEOUT_MS: u64 = 60_000;
/// How long a transport waits until a device acknowledges a call.
pub const DELIVERY_TIMEOUT_MS: u64 = 10_000;
/// The method that the transport answers itself: [`super::limits::SessionLimits`].
pub const SESSION_LIMITS_METHOD: &str = "getSessionLimits";
/// The longest name of a method, in bytes.
pub const METHOD_BYTES_MAX: usize = 255;

/// A call from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCall {
    /// Its id.
    pub id: i32,
    /// What to do.
    pub method: String,
    /// With what: any JSON.
    pub params: Json,
}

impl ServerCall {
    /// `{"method","params"}`, where the address has the id.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let method = Json::from(self.method.as_str());
        Json::object([("method", method), ("params", self.params.clone())])
    }

    /// `{"id","method","params"}`, where nothing else has it.
    #[must_use]
    pub fn to_json_with_id(&self) -> Json {
        Json::object([
            ("id", Json::from(i64::from(self.id))),
            ("method", Json::from(self.method.as_str())),
            ("params", self.params.clone()),
        ])
    }
}

/// Which calls of a device may be out at once (the vendor's submit strategy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// `BURST`: all.
    #[default]
    Burst,
    /// `SEQUENTIAL_ON_ACK_FROM_DEVICE`: one, until the device has acknowledged it.
    OnAck,
    /// `SEQUENTIAL_ON_RESPONSE_FROM_DEVICE`: one, until the device has answered it, where an answer is wanted.
    OnResponse,
}

impl Strategy {
    /// How many of the calls that are ready go out now, the oldest first. `out`: those that are on their way; `unanswered`: whether the
    /// device has one that it has not answered.
    #[must_use]
    pub fn go(self, ready: usize, out: usize, unanswered: bool) -> usize {
        let blocked = match self {
            Self::Burst => return ready,
            Self::OnAck => out > 0,
            Self::OnResponse => out > 0 || unanswered,
        };
        if blocked { 0 } else { ready.min(1) }
    }
}

/// A call from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCall {
    /// What to do.
    pub method: String,
    /// With what: any JSON; `null` if nothing was said.
    pub params: Json,
}

impl DeviceCall {
    /// Reads `{"method","params"}`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(json: &Json) -> Result<Self, Invalid> {
        let method = json.get("method").and_then(Json::as_str);
        let method = method.ok_or(Invalid::Shape("a call has a method, which is a text"))?;
        Self::new(method, json.get("params").cloned().unwrap_or(Json::Null))
    }

    /// A call, if this can be its method.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn new(method: &str, params: Json) -> Result<Self, Invalid> {
        if method.is_empty() || method.len() > METHOD_BYTES_MAX {
            return Err(Invalid::Shape("a method has 1 to 255 bytes"));
        }
        Ok(Self { method: method.to_owned(), params })
    }
}

impl DeviceCall {
    /// `{"id","method","params"}`: as applications hear of it. `id`: what they answer it by.
    #[must_use]
    pub fn to_event(&self, id: &str) -> Json {
        let method = Json::from(self.method.as_str());
        Json::object([("id", Json::from(id)), ("method", method), ("params", self.params.clone())])
    }
}

/// A device's answer as text: any JSON, as the device wrote it. What is no JSON is taken all the same, and is an error for
/// who has asked ([`super::rest::calls`]).
///
/// # Errors
///
/// It is not UTF-8.
pub fn reply(payload: &[u8]) -> Result<String, Invalid> {
    let text = std::str::from_utf8(payload);
    Ok(text.map_err(|_| super::json::NotJson::Utf8)?.to_owned())
}

/// What a device hears when its call was not answered in time.
#[must_use]
pub fn timed_out() -> Json {
    failed("timeout")
}

/// What a device hears when its call failed.
#[must_use]
pub fn failed(why: &str) -> Json {
    Json::object([("error", Json::from(why))])
}
