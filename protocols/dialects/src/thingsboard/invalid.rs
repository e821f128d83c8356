//! Why a payload on a known address is not taken.

use thiserror::Error;

use super::json::NotJson;

/// What is wrong with a payload. How a transport says it: `mqtt`, `http`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// It should be JSON.
    #[error("the payload is {0}")]
    Json(#[from] NotJson),
    /// It should be this protobuf message.
    #[error("the payload is no {0} of protobuf")]
    Protobuf(&'static str),
    /// It should have another shape.
    #[error("{0}")]
    Shape(&'static str),
    /// A key that can't be one.
    #[error("a key has 1 to {} characters", super::values::KEY_CHARS_MAX)]
    Key,
    /// A number that would take too many digits.
    #[error("a number of more than {} digits", super::decimal::PLAIN_DIGITS_MAX)]
    Number,
    /// A text is longer than the server allows.
    #[error("a text is longer than {bytes_max} bytes")]
    TextTooLong {
        /// What is allowed.
        bytes_max: usize,
    },
}
