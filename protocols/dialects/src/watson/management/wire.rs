//! Requests and responses of the device-management protocol, as JSON (§1.8).
//!
//! ```text
//!   request    {"reqId":"…","d":{…}}                         no reqId: nobody waits for an answer
//!   response   {"rc":200,"message":"…","d":{…},"reqId":"…"}
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::address::Upward;
use crate::watson::PAYLOAD_BYTES_MAX;

/// The longest request id that is given back. UUIDs have 36 bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// What an answer to a device says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Rc {
    /// Done.
    Done = 200,
    /// The request can't be read.
    Malformed = 400,
    /// It claims an extension that the organisation does not have.
    UnknownBundle = 403,
    /// There is no such device, or no such attribute.
    NotFound = 404,
    /// Another change came between.
    Conflict = 409,
    /// Something broke.
    Failed = 500,
}

impl Rc {
    /// The answer as text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Malformed => "The request is malformed",
            Self::UnknownBundle => "The organization has no such extension bundle",
            Self::NotFound => "There is no such device or attribute",
            Self::Conflict => "Another change came between",
            Self::Failed => "The request failed",
        }
    }
}

/// A request of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Request {
    /// What ties the answer to it.
    #[serde(default, rename = "reqId")]
    pub id: Option<String>,
    /// What it says.
    #[serde(default, rename = "d")]
    pub data: Value,
}

impl Request {
    /// Reads a request; `None` if it is none, so that there is nobody to answer.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() > PAYLOAD_BYTES_MAX || payload.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let request: Self = serde_json::from_slice(payload).ok()?;
        let fits = request.id.as_ref().is_none_or(|id| id.len() <= REQUEST_ID_BYTES_MAX);
        fits.then_some(request)
    }

    /// What it says as `T`; of a missing `d`, what `T` is without any fields.
    #[must_use]
    pub fn data<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        let data = match &self.data {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => self.data.clone(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
        };
        serde_json::from_value(data).ok()
    }
}

/// The answer to a request; `None` if nobody waits for one.
#[must_use]
pub fn answer(request: &Request, rc: Rc) -> Option<Bytes> {
    #[derive(Serialize)]
    struct Answer<'a> {
        rc: u16,
        message: &'a str,
        #[serde(rename = "reqId")]
        id: &'a str,
    }
    let id = request.id.as_deref()?;
    let answer = Answer { rc: rc as u16, message: rc.text(), id };
    Some(write(&answer))
}

/// The answer to a payload that is not looked into: its device is not registered ([`Rc::NotFound`]), or its change met
/// another one ([`Rc::Conflict`]). What is an answer itself gets none: its id is one of ours, and not one of the device's requests.
#[must_use]
pub fn answer_unread(address: &Upward, payload: &[u8], rc: Rc) -> Option<Bytes> {
    if *address == Upward::Response { None } else { answer(&Request::read(payload)?, rc) }
}

/// A device's answer to the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Response {
    /// What became of it. Numbers beyond the table are failures.
    pub rc: u16,
    /// Why.
    #[serde(default)]
    pub message: Option<String>,
    /// What was asked for.
    #[serde(default, rename = "d")]
    pub data: Value,
    /// Which request it answers.
    #[serde(rename = "reqId")]
    pub id: String,
}

impl Response {
    /// Reads an answer.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() > PAYLOAD_BYTES_MAX || payload.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        serde_json::from_slice(payload).ok()
    }
}

/// A changed attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Which.
    pub field: String,
    /// Its value, or those parts of it that changed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
}

/// Reads the fields of a `notify`, or of the answer to an `observe`: a list, or a single one as older clients send it.
#[must_use]
pub fn fields(data: &Value) -> Option<Vec<Field>> {
    let Value::Object(data) = data else { return None };
    match data.get("fields") {
        Some(list) => Vec::deserialize(list).ok(),
        None => Field::deserialize(&Value::Object(data.clone())).ok().map(|field| vec![field]),
    }
}

/// What the server asks. `id`: what ties the answer to it, if one is wanted.
#[must_use]
pub fn ask(id: Option<&str>, fields: &[Field]) -> Bytes {
    #[derive(Serialize)]
    struct Fields<'a> {
        fields: &'a [Field],
    }
    #[derive(Serialize)]
    struct Ask<'a> {
        #[serde(rename = "reqId", skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
        data: Option<Fields<'a>>,
    }
    let data = (!fields.is_empty()).then_some(Fields { fields });
    write(&Ask { id, data })
}

fn write(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("texts, numbers and values have a form in JSON"))
}
