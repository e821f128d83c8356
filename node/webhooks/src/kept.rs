//! What is kept of a webhook, and what may be said of one. Nothing here asks anybody.
//!
//! # Invariants
//!
//! - **A webhook begins with what comes after it was made**: its document says where that is, before anybody commits for it.
//! - **Its consumer group is its own**: a number of the webhook is in its name, which nobody can commit or delete by the API (`:`).

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_machine::documents::{Document, Space};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{filter::Filter, hooks::WebhookError};

/// Bytes of a name: it stands in that of the consumer group, which has 64.
const NAME_BYTES_MAX: usize = 40;
/// Bytes of a URL, as `node/outward` takes it.
const URL_BYTES_MAX: usize = 2_048;
/// Events of one request.
const BATCH_MAX: u16 = 100;
/// How long a receiver may take, in milliseconds; the node's configuration may allow less.
const TIMEOUT_MS_MIN: u32 = 100;
const TIMEOUT_MS_MAX: u32 = 30_000;
/// The spaces of a tenant where webhooks are, and how they go.
pub(crate) const SPACE: &str = "webhooks";
const STATES: &str = "webhook-states";
/// What the name of each webhook's consumer group begins with.
pub(crate) const GROUP_PREFIX: &str = "webhook:";

/// What happens to a request that its receiver refuses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = WebhookRefused)]
pub enum Refused {
    /// The webhook pauses, and says why. Nothing is left out.
    #[default]
    Pause,
    /// Its events are left out and counted.
    Skip,
}

/// What an operator says of a webhook, but for its name and headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookSettings)]
pub struct Settings {
    /// Where: `https://` or `http://`.
    #[schema(example = "https://hooks.example.org/moorline")]
    pub url: String,
    /// Which events; all, if it says nothing.
    #[serde(default)]
    pub filter: Filter,
    /// Events of one request at most: 1 to 100. With more than 1 a body is an array.
    #[serde(default = "one")]
    pub batch_max: u16,
    /// How long the receiver may take, in milliseconds: 100 to 30,000.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// What happens when it refuses an event again and again.
    #[serde(default)]
    pub refused: Refused,
    /// Whether nothing is sent for now. Events wait, as long as the stream keeps them.
    #[serde(default)]
    pub paused: bool,
}

fn one() -> u16 {
    1
}

fn timeout_ms() -> u32 {
    10_000
}

/// A webhook to be made.
#[derive(Clone)]
pub struct NewHook {
    /// Its name.
    pub name: String,
    /// What it does.
    pub settings: Settings,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
}

/// A webhook, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub settings: Settings,
    /// Names of its headers.
    pub headers: Vec<String>,
    /// Why it is paused, if not because an operator said so.
    pub paused_because: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// For `If-Match`.
    pub version: u64,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Tells it from others that had its name.
    pub(crate) id: u32,
    pub(crate) settings: Settings,
    pub(crate) because: Option<String>,
    /// Behind which events it begins.
    pub(crate) begins: String,
    /// Sealed, in base64, as values of headers are.
    pub(crate) secret: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) created_ms: u64,
}

/// By hand: what is secret is not printed.
impl fmt::Debug for NewHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewHook").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

pub(crate) fn states(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, STATES)
}

impl Kept {
    /// What a document says, if it can be read.
    pub(crate) fn read(document: &Document) -> Option<Self> {
        serde_json::from_slice(&document.body).ok()
    }

    pub(crate) fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("a map with string keys").into()
    }

    /// Its consumer group.
    pub(crate) fn group(&self, name: &str) -> Text {
        Text::from(format!("{GROUP_PREFIX}{name}:{:08x}", self.id))
    }

    pub(crate) fn view(self, document: &Document) -> Hook {
        Hook {
            name: document.id.to_string(),
            settings: self.settings,
            headers: self.headers.into_keys().collect(),
            paused_because: self.because,
            created_ms: self.created_ms,
            version: document.version,
        }
    }
}

pub(crate) fn checked_name(name: &str) -> Result<Text, WebhookError> {
    let is_of = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_of) {
        let why = format!("name: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -");
        return Err(WebhookError::Wrong(why));
    }
    Ok(Text::from(name))
}

impl Settings {
    /// With the defaults of all else.
    #[must_use]
    pub fn of(url: String) -> Self {
        Self {
            url,
            filter: Filter::default(),
            batch_max: one(),
            timeout_ms: timeout_ms(),
            refused: Refused::default(),
            paused: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), WebhookError> {
        let wrong = |why: String| Err(WebhookError::Wrong(why));
        if self.url.len() > URL_BYTES_MAX {
            return wrong(format!("url: at most {URL_BYTES_MAX} bytes"));
        }
        if !(1..=BATCH_MAX).contains(&self.batch_max) {
            return wrong(format!("batch_max: 1 to {BATCH_MAX}"));
        }
        if !(TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return wrong(format!("timeout_ms: {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX}"));
        }
        self.filter.check().map_err(WebhookError::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::of("https://a.example/".to_owned())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let said: Settings = serde_json::from_str(r#"{"url":"https://a.example/"}"#).unwrap();
        assert_eq!(said, settings());
        let unknown = r#"{"url":"https://a.example/","secret":"x"}"#;
        assert!(serde_json::from_str::<Settings>(unknown).is_err());
    }

    #[test]
    fn what_can_not_be_is_refused() {
        type Change = fn(&mut Settings);
        #[rustfmt::skip]
        let table: [(Change, Option<&str>); 8] = [
            (|_| {},                                    None),
            (|s| s.batch_max = 100,                     None),
            (|s| s.batch_max = 0,                       Some("batch_max")),
            (|s| s.batch_max = 101,                     Some("batch_max")),
            (|s| s.timeout_ms = 99,                     Some("timeout_ms")),
            (|s| s.timeout_ms = 30_001,                 Some("timeout_ms")),
            (|s| s.url = "x".repeat(URL_BYTES_MAX + 1), Some("url")),
            (|s| s.filter.types = vec!["x".to_owned()], Some("filter.types")),
        ];
        for (change, expected) in table {
            let mut settings = settings();
            change(&mut settings);
            let said = settings.check().err().map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().starts_with(expected.unwrap_or_default()));
        }
        for (name, expected) in [("a-1", true), ("", false), ("A", false), ("a:b", false)] {
            assert_eq!(checked_name(name).is_ok(), expected, "{name}");
        }
        assert!(checked_name(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_group_of_the_longest_name_is_one_that_streams_take() {
        let kept = Kept {
            id: u32::MAX,
            settings: settings(),
            because: None,
            begins: String::new(),
            secret: String::new(),
            headers: BTreeMap::new(),
            created_ms: 0,
        };
        let group = kept.group(&"n".repeat(NAME_BYTES_MAX));
        assert!(group.len() <= moorline_machine::events::CONSUMER_NAME_BYTES_MAX, "{group}");
    }

    #[test]
    fn nothing_secret_is_printed() {
        let headers = [("authorization".to_owned(), "canary".to_owned())].into();
        let new = NewHook { name: "a".to_owned(), settings: settings(), headers };
        assert!(!format!("{new:?}").contains("canary"));
    }
}
