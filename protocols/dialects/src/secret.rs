//! What a device or an integrator proves itself with, between what was read and who compares it.
//!
//! Invariant: its `Debug` form hides it. Checked by the tests of the dialects (`tests/it/identity.rs`, `tests/it/watson/identity.rs`).

use std::fmt;

use bytes::Bytes;

/// A secret. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// A copy: the packet it came in need not stay.
    #[must_use]
    pub fn copied(secret: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(secret))
    }

    /// The secret itself, to be compared in constant time.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}
