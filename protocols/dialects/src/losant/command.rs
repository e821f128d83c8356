//! What a device is told.
//!
//! Invariant: **the time is `{"$date": …}` with milliseconds and `Z`**: an SDK falls out of its network loop otherwise. Checked by
//! `tests/it/losant/command.rs`.

use moorline_core::Text;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Invalid, access::Tag, id::Id, meant::Meant, state::time, when::When};

/// Characters of a command's name.
pub const NAME_CHARS_MAX: usize = 255;

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What is to be done.
    pub name: String,
    /// With what.
    pub payload: Option<Value>,
    /// When it was given.
    pub when: When,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    name: String,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    time: Option<Value>,
    #[serde(default)]
    device_ids: Option<Vec<String>>,
    #[serde(default)]
    device_tags: Option<Vec<Tag>>,
    #[serde(default)]
    device_query: Option<Value>,
}

fn said(body: &[u8]) -> Result<Said, Invalid> {
    let said: Said = serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))?;
    if !(1..=NAME_CHARS_MAX).contains(&said.name.chars().count()) {
        return Err(Invalid::new("name: 1 to 255 characters"));
    }
    Ok(said)
}

impl Command {
    /// Reads one for one device.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let said = said(body)?;
        if said.device_ids.is_some() || said.device_tags.is_some() || said.device_query.is_some() {
            return Err(Invalid::new("this is a command for one device"));
        }
        Ok(Self { name: said.name, payload: said.payload, when: When::read(said.time.as_ref()) })
    }

    /// Reads one for several.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read_for_many(body: &[u8]) -> Result<(Self, Meant), Invalid> {
        let said = said(body)?;
        let meant = Meant::read(said.device_ids, said.device_tags, said.device_query.as_ref())?;
        let command =
            Self { name: said.name, payload: said.payload, when: When::read(said.time.as_ref()) };
        Ok((command, meant))
    }

    /// As a device hears it.
    #[must_use]
    pub fn written(&self, now_ms: i64) -> Value {
        let mut written =
            json!({ "name": self.name, "time": { "$date": time(self.when.ms(now_ms)) } });
        if let Some(payload) = &self.payload {
            written["payload"] = payload.clone();
        }
        written
    }

    /// As lists and streams show it.
    #[must_use]
    pub fn shown(&self, now_ms: i64) -> Value {
        let mut shown = self.written(now_ms);
        shown["time"] = json!(time(self.when.ms(now_ms)));
        shown
    }

    /// For who hears of it.
    #[must_use]
    pub fn event(&self, application: &Text, device: &Id, now_ms: i64) -> Value {
        let mut event = self.shown(now_ms);
        event["applicationId"] = json!(application.as_str());
        event["deviceId"] = json!(device.as_str());
        event
    }
}
