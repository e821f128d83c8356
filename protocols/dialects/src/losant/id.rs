//! Ids of devices, applications, keys: 24 lower-case hexadecimal digits.

use std::fmt;

use moorline_core::Text;

/// Digits of an id.
const DIGITS: usize = 24;
/// Bytes that one is made of.
pub const ID_BYTES: usize = 12;

/// An id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Text);

impl Id {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let fits = text.len() == DIGITS && text.iter().all(is_digit);
        fits.then(|| std::str::from_utf8(text).ok()).flatten().map(|text| Self(Text::from(text)))
    }

    /// A new one, of random bytes.
    #[must_use]
    pub fn of(random: [u8; ID_BYTES]) -> Self {
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(Text::from(digits))
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.0
    }

    /// The same.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}
