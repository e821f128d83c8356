//! Server-sent events.

use serde_json::Value;

/// The type of such an answer.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// A sign of life.
pub const ALIVE: &str = ":\n\n";

/// What a stream brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What a device reports.
    States,
    /// What it is told.
    Commands,
}

impl Stream {
    /// What its events are called.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Self::States => "deviceState",
            Self::Commands => "deviceCommand",
        }
    }
}

/// An event. JSON has no line ends but in texts, where they are written otherwise.
#[must_use]
pub fn event(stream: Stream, data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", stream.event())
}
