//! Refusals of the management API: a status, an id and a sentence (§1.9).
//!
//! The vendor's ids are known for two of them; the others follow their form, with `ML` for the part of the platform.

use bytes::Bytes;
use serde::Serialize;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// What was sent can't be read.
    #[error("The request is malformed: {0}")]
    Malformed(&'static str),
    /// It can be read, and these parts of it are wrong.
    #[error("The request is not valid")]
    Invalid(Vec<String>),
    /// There are no credentials, or they are wrong.
    #[error("The API key or its token is wrong")]
    Unauthorised,
    /// The key may not do that, or is another organisation's.
    #[error("The API key may not do that")]
    Forbidden,
    /// The last event cache is switched off.
    #[error("The last event cache is disabled")]
    CacheDisabled,
    /// There is no such thing.
    #[error("There is no such resource")]
    NotFound,
    /// The thing has no such method.
    #[error("The resource has no such method")]
    Method,
    /// There is such a thing already, or it is in use.
    #[error("The resource exists already, or is in use")]
    Conflict,
    /// There are as many as there may be.
    #[error("The organization has as many of these as it may")]
    Full,
    /// The body has more than [`super::BODY_BYTES_MAX`].
    #[error("The body is too large")]
    TooLarge,
    /// Too many requests.
    #[error("Too many requests")]
    TooOften,
    /// Something broke.
    #[error("The request failed")]
    Failed,
    /// Whoever decides does not answer.
    #[error("The service is not available")]
    Unavailable,
}

#[derive(Serialize)]
struct Exception<'a> {
    id: &'a str,
    properties: &'a [String],
}

#[derive(Serialize)]
struct Violation<'a> {
    message: &'a str,
    exception: Exception<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    exception: Exception<'a>,
    violations: Vec<Violation<'a>>,
}

impl Error {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Invalid(_) => 400,
            Self::Unauthorised => 401,
            Self::Forbidden | Self::CacheDisabled | Self::Full => 403,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooOften => 429,
            Self::Failed => 500,
            Self::Unavailable => 503,
        }
    }

    /// The id that programs look at.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "CUDRS0007E",
            Self::CacheDisabled => "CUDCS0105E",
            Self::Malformed(_) => "CUDML0001E",
            Self::Unauthorised => "CUDML0002E",
            Self::Forbidden => "CUDML0003E",
            Self::NotFound => "CUDML0004E",
            Self::Method => "CUDML0005E",
            Self::Conflict => "CUDML0006E",
            Self::TooLarge => "CUDML0007E",
            Self::TooOften => "CUDML0008E",
            Self::Failed => "CUDML0009E",
            Self::Unavailable => "CUDML0010E",
            Self::Full => "CUDML0011E",
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let found: &[String] = if let Self::Invalid(violations) = self { violations } else { &[] };
        let exception = || Exception { id: self.id(), properties: &[] };
        let violations = found.iter().map(|message| Violation { message, exception: exception() });
        let message = self.to_string();
        let violations = violations.collect();
        let body = Body { message: &message, exception: exception(), violations };
        Bytes::from(serde_json::to_vec(&body).expect("texts have a form in JSON"))
    }
}
