//! What a device's topic means: a channel, and for whom it is said (§3.3).
//!
//! | dialect | topic | refused |
//! |---|---|---|
//! | `drogue/v1` | `CHANNEL`, `CHANNEL/DEVICE` | an empty part, three parts and more |
//! | `plainTopic` | all of it is the channel | nothing in it |
//! | `plainTopic` with `devicePrefix` | `DEVICE/CHANNEL…`, `/CHANNEL…` of itself | one part, no channel |

use serde_json::{Map, Value};
use thiserror::Error;

/// Which section of a `spec` says it.
const SECTION: &str = "mqtt";

/// How topics are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// `drogue/v1`
    #[default]
    V1,
    /// `plainTopic`
    PlainTopic {
        /// Whether the first part is a device.
        device_prefix: bool,
    },
}

/// A section that can't be read: nobody is let in by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("spec.mqtt can't be read")]
pub struct InvalidSection;

/// What a publish is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// The channel.
    pub channel: &'a str,
    /// For which device, if not for the one that says it.
    pub device: Option<&'a str>,
}

impl Dialect {
    /// That of a device: what its own `spec.mqtt` says, if it has any; else what its application's says.
    ///
    /// # Errors
    ///
    /// [`InvalidSection`].
    pub fn of(
        device: &Map<String, Value>,
        application: &Map<String, Value>,
    ) -> Result<Self, InvalidSection> {
        let section = device.get(SECTION).or_else(|| application.get(SECTION));
        let Some(section) = section else { return Ok(Self::default()) };
        let Some(dialect) = section.as_object().ok_or(InvalidSection)?.get("dialect") else {
            return Ok(Self::default());
        };
        match dialect["type"].as_str() {
            Some("drogue/v1") => Ok(Self::V1),
            Some("plainTopic") => match dialect.get("devicePrefix") {
                None => Ok(Self::PlainTopic { device_prefix: false }),
                Some(Value::Bool(device_prefix)) => {
                    Ok(Self::PlainTopic { device_prefix: *device_prefix })
                }
                Some(_) => Err(InvalidSection),
            },
            _ => Err(InvalidSection),
        }
    }

    /// What a topic means; [`None`] if it means nothing.
    #[must_use]
    pub fn publish(self, topic: &str) -> Option<Said<'_>> {
        let said = match self {
            Self::V1 => match topic.split_once('/') {
                None => Said { channel: topic, device: None },
                Some((channel, device)) if !device.is_empty() && !device.contains('/') => {
                    Said { channel, device: Some(device) }
                }
                Some(_) => return None,
            },
            Self::PlainTopic { device_prefix: false } => Said { channel: topic, device: None },
            Self::PlainTopic { device_prefix: true } => {
                let (device, channel) = topic.split_once('/')?;
                Said { channel, device: Some(device).filter(|device| !device.is_empty()) }
            }
        };
        (!said.channel.is_empty()).then_some(said)
    }
}
