//! Refusals: `{"type", "message"}` with a status. The vendor documents `NotFound`; the other names are ours.

use serde_json::json;

use crate::losant::Invalid;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request.
    Validation,
    /// Nobody, or nobody any more, asks.
    Unauthorized,
    /// Who asks may not.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Somebody else's change came between.
    Conflict,
    /// It has more bytes than it may.
    TooLarge,
    /// It is asked too often.
    TooManyRequests,
    /// Nobody can say now.
    Unavailable,
}

impl Kind {
    fn of(self) -> (u16, &'static str) {
        match self {
            Self::Validation => (400, "Validation"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "NotFound"),
            Self::Conflict => (409, "Conflict"),
            Self::TooLarge => (413, "PayloadTooLarge"),
            Self::TooManyRequests => (429, "TooManyRequests"),
            Self::Unavailable => (503, "Unavailable"),
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: Kind,
    /// The same, in words.
    pub message: String,
}

impl Error {
    /// One with these words.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.kind.of().0
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> String {
        json!({ "type": self.kind.of().1, "message": self.message }).to_string()
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        let message = match kind {
            Kind::Validation => "the request is not as it should be",
            Kind::Unauthorized => "Unauthorized",
            Kind::Forbidden => "not allowed",
            Kind::NotFound => "Not Found",
            Kind::Conflict => "it was changed meanwhile",
            Kind::TooLarge => "too many bytes",
            Kind::TooManyRequests => "Over rate limit, request throttled",
            Kind::Unavailable => "the cluster is unavailable",
        };
        Self::new(kind, message)
    }
}

impl From<Invalid> for Error {
    fn from(Invalid(why): Invalid) -> Self {
        Self::new(Kind::Validation, why)
    }
}
