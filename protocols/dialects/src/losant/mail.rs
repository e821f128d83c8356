//! Mail in the words of this platform: a command.
//!
//! A command that its tenant has kept is mail already, and whole: it goes out as it is. All other mail becomes one, with the time when it
//! was sent.
//!
//! Invariant: what a device hears is an object with a name and a time, whatever was sent. Checked by `tests/it/losant/mail.rs`.

use serde_json::Value;

use super::{
    command::{Command, NAME_CHARS_MAX},
    when::When,
};

/// What mail is called that is a command already.
pub const KEPT: &str = "command";

/// Whether a payload is a command as a device hears it.
fn is_command(payload: &Value) -> bool {
    payload.get("name").is_some_and(Value::is_string)
        && payload.get("time").and_then(|time| time.get("$date")).is_some_and(Value::is_string)
}

/// A mail as its device hears it. `sent_ms`: when it was sent, in milliseconds since 1970.
///
/// # Errors
///
/// Why it can't be said.
pub fn said(name: &str, payload: &[u8], sent_ms: i64) -> Result<Vec<u8>, &'static str> {
    let read = || serde_json::from_slice::<Value>(payload).map_err(|_| "its body is no JSON");
    let body = if payload.is_empty() { None } else { Some(read()?) };
    if name == KEPT && body.as_ref().is_some_and(is_command) {
        return Ok(payload.to_vec());
    }
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        return Err("a command's name has 1 to 255 characters");
    }
    let command = Command { name: name.to_owned(), payload: body, when: When::read(None) };
    Ok(command.written(sent_ms).to_string().into_bytes())
}
