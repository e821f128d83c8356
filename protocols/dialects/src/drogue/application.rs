//! Applications over MQTT: which events they get, in which form, and which commands they send (§3.9).
//!
//! | filter | |
//! |---|---|
//! | `app/APP`, `a/APP`, `application/APP` | its events; who has the same client id shares them |
//! | `$share/GROUP/app/APP`, `$shared/GROUP/app/APP` | its events, shared in the group |
//!
//! | topic | |
//! |---|---|
//! | `command/APP/DEVICE/COMMAND` | a command |

use bytes::Bytes;
use moorline_core::{Text, port::Refusal};

use super::{
    event::{CloudEvent, STRUCTURED},
    properties,
};

/// In which user property of a SUBSCRIBE the form is asked for.
pub const CONTENT_MODE: &str = "content-mode";

/// A subscription to events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Of which application.
    pub application: Text,
    /// With whom they are shared, if not with those of the same client id.
    pub group: Option<Text>,
    /// Their topic: the filter without its share.
    pub topic: Text,
}

/// Why a filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unwanted {
    /// It has wildcards: 0xA2.
    Wildcard,
    /// It is of no such form: 0x8F.
    Form,
}

impl Unwanted {
    /// The reason of MQTT 5.
    #[must_use]
    pub fn reason(self) -> u8 {
        match self {
            Self::Wildcard => 0xA2,
            Self::Form => 0x8F,
        }
    }

    /// As the core says it.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::Topic
    }
}

/// Reads a filter.
///
/// # Errors
///
/// [`Unwanted`].
pub fn subscribe(filter: &str) -> Result<Events, Unwanted> {
    let shared = filter.strip_prefix("$share/").or_else(|| filter.strip_prefix("$shared/"));
    let (group, topic) = match shared {
        None => (None, filter),
        Some(shared) => {
            let (group, topic) = shared.split_once('/').ok_or(Unwanted::Form)?;
            (Some(group), topic)
        }
    };
    if topic.contains(['+', '#']) {
        return Err(Unwanted::Wildcard);
    }
    let (word, application) = topic.split_once('/').ok_or(Unwanted::Form)?;
    let is_word = matches!(word, "app" | "a" | "application");
    let is_named = !application.is_empty() && !application.contains('/');
    if !is_word || !is_named || group.is_some_and(str::is_empty) {
        return Err(Unwanted::Form);
    }
    let (application, group) = (Text::from(application), group.map(Text::from));
    Ok(Events { application, group, topic: Text::from(topic) })
}

/// A command that an application sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Of which application.
    pub application: Text,
    /// For which device.
    pub device: Text,
    /// Its name.
    pub name: Text,
}

/// Reads a topic; [`None`] for one that there is not.
#[must_use]
pub fn publish(topic: &str) -> Option<Command> {
    let parts: Vec<&str> = topic.split('/').collect();
    let [word, application, device, name] = parts[..] else { return None };
    let is_any = ![application, device, name].iter().any(|part| part.is_empty());
    let named = || Command {
        application: Text::from(application),
        device: Text::from(device),
        name: Text::from(name),
    };
    (word.eq_ignore_ascii_case("command") && is_any).then(named)
}

/// In which form an application gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// MQTT 3.1.1: JSON.
    V3,
    /// MQTT 5: JSON, with its content type.
    Structured,
    /// MQTT 5: what the device said, with attributes as user properties.
    Binary,
}

impl Form {
    /// What a SUBSCRIBE of MQTT 5 asks for by its user properties.
    #[must_use]
    pub fn of<'a>(user: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let asks = |(name, value): (&str, &str)| {
            name == CONTENT_MODE && value.eq_ignore_ascii_case("binary")
        };
        if user.into_iter().any(asks) { Self::Binary } else { Self::Structured }
    }

    /// An event in it: properties and payload. `structured`: the event as it is kept.
    #[must_use]
    pub fn of_event(self, structured: &Bytes) -> (Bytes, Bytes) {
        let whole = || properties::write(Some(STRUCTURED), &[], true);
        match self {
            Self::V3 => (Bytes::new(), structured.clone()),
            Self::Structured => (whole(), structured.clone()),
            Self::Binary => match CloudEvent::kept(structured) {
                Some(event) => {
                    let user: Vec<_> = event.attributes().collect();
                    let properties = properties::write(event.get("datacontenttype"), &user, false);
                    (properties, event.data().clone())
                }
                None => (whole(), structured.clone()),
            },
        }
    }
}
