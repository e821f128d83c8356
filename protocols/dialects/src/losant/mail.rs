//! Mail in the words of this platform: a command.
//!
//! A command that its tenant has kept is mail already, and whole: it goes out as it is, or with its time in the form that SDKs read. All
//! other mail becomes one, with the time when it was sent.
//!
//! Invariant: what a device hears is an object with a name and a time, whatever was sent. Checked by `tests/it/losant/mail.rs`.

use serde_json::{Value, json};

use super::{
    command::{Command, NAME_CHARS_MAX},
    state::time,
    when::When,
};

/// What mail is called that is a command already.
pub const KEPT: &str = "command";

/// The time of a command as a device hears it, and whether it has the form in which all of them are; [`None`] if a payload is none.
fn time_of(payload: &Value) -> Option<(String, bool)> {
    payload.get("name").filter(|name| name.is_string())?;
    let said = payload.get("time")?;
    let date = said.get("$date")?;
    match When::read(Some(said)) {
        When::At(ms) => {
            let written = time(ms);
            let same = date.as_str() == Some(&*written);
            Some((written, same))
        }
        When::Now | When::Ago(_) => None,
    }
}

/// A mail as its device hears it. `sent_ms`: when it was sent, in milliseconds since 1970.
///
/// # Errors
///
/// Why it can't be said.
pub fn said(name: &str, payload: &[u8], sent_ms: i64) -> Result<Vec<u8>, &'static str> {
    let read = || serde_json::from_slice::<Value>(payload).map_err(|_| "its body is no JSON");
    let body = if payload.is_empty() { None } else { Some(read()?) };
    if name == KEPT
        && let Some((command, (time, same))) =
            body.as_ref().and_then(|body| Some((body, time_of(body)?)))
    {
        if same {
            return Ok(payload.to_vec());
        }
        let mut command = command.clone();
        command["time"] = json!({ "$date": time });
        return Ok(command.to_string().into_bytes());
    }
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        return Err("a command's name has 1 to 255 characters");
    }
    let command = Command { name: name.to_owned(), payload: body, when: When::read(None) };
    Ok(command.written(sent_ms).to_string().into_bytes())
}
