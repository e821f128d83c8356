//! Why a command of the agent failed: `code: text`, as the SDKs take it apart.

use std::fmt;

/// A failure. There is nothing for a caller to do but to pass it on to whoever started the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    code: &'static str,
    text: String,
}

impl Failed {
    pub(crate) fn new(code: &'static str, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Failed {}
