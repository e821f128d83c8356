//! What a key, or a certificate, is for: which devices, and which custom topics.
//!
//! # Invariants
//!
//! - **Without devices and tags it is for all devices; with any, for those alone.** Checked by `tests/it/losant/access.rs`.
//! - **What an allow list does not have is denied; what a deny list has is neither said nor heard**, also where a wider filter was
//!   granted. Checked by the same.

use moorline_core::rights::{Lists, Pattern, Rules};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Invalid, id::Id};

/// Devices that a key names.
pub const DEVICES_MAX: usize = 1_000;
/// Tags that it names.
pub const TAGS_MAX: usize = 100;
/// Characters of a tag's key or value.
pub const TAG_CHARS_MAX: usize = 255;

/// A tag of a device. In a restriction, either part may be missing: then any will do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Tag {
    /// Whether a device's tag is one of these.
    #[must_use]
    pub fn is_met_by(&self, tag: &Self) -> bool {
        let fits =
            |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        fits(&self.key, &tag.key) && fits(&self.value, &tag.value)
    }

    /// Whether it says anything, in no more characters than it may.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let fits = |part: &Option<String>| {
            part.as_ref().is_none_or(|part| part.chars().count() <= TAG_CHARS_MAX)
        };
        (self.key.is_some() || self.value.is_some()) && fits(&self.key) && fits(&self.value)
    }
}

/// Which custom topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topics {
    /// All.
    #[default]
    All,
    /// Those of the lists.
    Allowed,
    /// All but those of the lists.
    Denied,
    /// None.
    None,
}

/// As the vendor writes them. Its words are put together, because they are not ours.
const NAMES: [(Topics, &str); 4] = [
    (Topics::All, "all"),
    (Topics::Allowed, concat!("white", "list")),
    (Topics::Denied, concat!("black", "list")),
    (Topics::None, "none"),
];

impl Topics {
    /// As the vendor writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(topics, _)| *topics == self).map_or("all", |(_, name)| name)
    }
}

impl Serialize for Topics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said = String::deserialize(deserializer)?;
        let known = NAMES.iter().find(|(_, name)| *name == said).map(|(topics, _)| *topics);
        known.ok_or_else(|| D::Error::custom("filterType: not one that there is"))
    }
}

/// Whether it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    #[default]
    Active,
    /// It does not.
    Inactive,
}

/// What a key or a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Access {
    /// See [`Status`].
    pub status: Status,
    /// Which devices, by id.
    pub device_ids: Vec<String>,
    /// Which devices, by any of these tags.
    pub device_tags: Vec<Tag>,
    /// See [`Topics`].
    pub filter_type: Topics,
    /// Topics, or filters of topics, to publish to.
    pub pub_topics: Vec<String>,
    /// The same to subscribe to.
    pub sub_topics: Vec<String>,
}

impl Access {
    /// Its rules of custom topics.
    ///
    /// # Errors
    ///
    /// What of it is not well-formed, or too much.
    pub fn rules(&self) -> Result<Rules, Invalid> {
        let said = |list: &[String]| {
            let one = |text: &String| {
                Pattern::parse(text).map_err(|why| Invalid(format!("the topic {text:?}: {why}")))
            };
            list.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let all = || vec![Pattern::parse("#").expect("it is a pattern")];
        let (publish, subscribe) = (said(&self.pub_topics)?, said(&self.sub_topics)?);
        let lists = match self.filter_type {
            Topics::All => Lists { publish: all(), subscribe: all(), ..Lists::default() },
            Topics::Allowed => Lists { publish, subscribe, ..Lists::default() },
            Topics::Denied => Lists {
                publish: all(),
                subscribe: all(),
                deny_publish: publish,
                deny_subscribe: subscribe,
            },
            Topics::None => Lists::default(),
        };
        Rules::of(lists).map_err(|why| Invalid(why.to_string()))
    }

    /// Whether it is well-formed.
    ///
    /// # Errors
    ///
    /// What is not.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.device_ids.len() > DEVICES_MAX || self.device_tags.len() > TAGS_MAX {
            let why = format!("at most {DEVICES_MAX} deviceIds and {TAGS_MAX} deviceTags");
            return Err(Invalid(why));
        }
        if let Some(wrong) = self.device_ids.iter().find(|id| Id::parse(id.as_bytes()).is_none()) {
            return Err(Invalid(format!("deviceIds: {wrong:?} is no id")));
        }
        if !self.device_tags.iter().all(Tag::is_well_formed) {
            return Err(Invalid::new("deviceTags: each has a key or a value, of 255 characters"));
        }
        self.rules().map(drop)
    }

    /// Whether it is for a device with these tags.
    #[must_use]
    pub fn is_for(&self, device: &Id, tags: &[Tag]) -> bool {
        let everybody = self.device_ids.is_empty() && self.device_tags.is_empty();
        let by_tag = |wanted: &Tag| tags.iter().any(|tag| wanted.is_met_by(tag));
        everybody
            || self.device_ids.iter().any(|id| id == device.as_str())
            || self.device_tags.iter().any(by_tag)
    }
}
