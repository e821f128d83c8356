//! Mail in the words of this platform: a command in JSON.
//!
//! Invariant: a command has a name that its topic can carry, and a payload that is JSON. Checked by `tests/it/watson/mail.rs`.

use bytes::Bytes;
use moorline_core::Text;
use serde::de::IgnoredAny;

use super::{
    identity::{DeviceName, is_name},
    topics::Message,
};

/// How it is written.
const FORMAT: &str = "json";
/// What a mail without a body says: an SDK reads JSON.
const NOTHING: &[u8] = b"{}";

/// A mail as its device or gateway hears it, under its canonical name.
///
/// # Errors
///
/// Why it can't be said.
pub fn said(
    device: &DeviceName,
    name: &Text,
    payload: &Bytes,
) -> Result<(Message, Bytes), &'static str> {
    if !is_name(name.as_bytes()) {
        return Err("a command's name has 1 to 36 of A-Z, a-z, 0-9, . _ and -");
    }
    let payload = if payload.is_empty() { Bytes::from_static(NOTHING) } else { payload.clone() };
    serde_json::from_slice::<IgnoredAny>(&payload).map_err(|_| "its body is no JSON")?;
    let (device, command, format) = (device.clone(), name.clone(), Text::from(FORMAT));
    Ok((Message::Command { device, command, format }, payload))
}
