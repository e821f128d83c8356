//! Names of devices out of the common names of their certificates, by a pattern of their profile.
//!
//! The pattern is a regular expression. Ours has no look-around and no references back, so that no pattern takes longer
//! than its text; patterns with them are refused when the profile is checked.

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;
/// How much memory a pattern may take once it is read.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A pattern, ready to be used.
#[derive(Debug, Clone)]
pub struct NamePattern(Regex);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a regular expression, or too large: {0}")]
pub struct NotAPattern(String);

impl NamePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`NotAPattern`].
    pub fn read(text: &str) -> Result<Self, NotAPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(NotAPattern("too long".to_owned()));
        }
        let regex = RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        Ok(Self(regex.map_err(|error| NotAPattern(error.to_string()))?))
    }

    /// The device's name: what the first group matches, or all of it if there is no group. `None`: nothing matches.
    #[must_use]
    pub fn device_name<'a>(&self, common_name: &'a str) -> Option<&'a str> {
        let captures = self.0.captures(common_name)?;
        let found = captures.get(1).or_else(|| captures.get(0))?.as_str();
        (!found.is_empty()).then_some(found)
    }
}
