//! UTF-8 text that shares the buffer it was read from.
//!
//! Invariant: the bytes are valid UTF-8, checked by the only constructors. Checked by this file's tests.

use std::{fmt, str::Utf8Error};

use bytes::Bytes;

/// A cheap-to-clone string: a slice of the packet it came in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes that are valid UTF-8.
    ///
    /// # Errors
    ///
    /// When they are not.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }

    /// The text as bytes: free.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text as a shared buffer: free.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text as `str`. Walks it once (this workspace forbids `unsafe`), so prefer [`Text::as_bytes`] on hot paths.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the constructors checked it")
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf8_gets_in() {
        assert!(Text::from_utf8(Bytes::from_static(b"\xc3\x28")).is_err());
        assert!(Text::from_utf8(Bytes::from_static(b"\xed\xa0\x80")).is_err(), "a surrogate");
        assert_eq!(
            Text::from_utf8(Bytes::from_static("été".as_bytes())).unwrap(),
            Text::from("été")
        );
    }
}
