//! Our bytes for openraft's words: on disk ([`disk`]) and between nodes ([`message`]).
//!
//! openraft may be upgraded without a disk or a wire changing, because none of its types is ever serialized by itself.
//! All numbers are big-endian; every record and message begins with a version byte.
//!
//! # Invariants
//!
//! - **Frozen.** Golden-bytes tests in both modules hold the formats still; a new version is a new version byte.
//! - **No trust.** Decoding never panics and allocates no more than the bytes at hand; truncated or trailing bytes are
//!   [`Malformed`].

pub(crate) mod disk;
pub(crate) mod message;
pub(crate) mod parts;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}
