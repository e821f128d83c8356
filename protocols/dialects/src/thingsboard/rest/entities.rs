//! Ids, pages and devices in the JSON of the REST API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::thingsboard::query::{Query, WrongParameter};

/// The most entities on a page.
pub const PAGE_SIZE_MAX: u64 = 1_000;
/// The longest name of a device, in characters.
pub const NAME_CHARS_MAX: usize = 255;

/// In what is said about a device: whether it speaks for others.
pub const GATEWAY: &str = "gateway";

/// Kinds of things that have ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names say it")]
pub enum EntityType {
    Tenant,
    Customer,
    User,
    Device,
    DeviceProfile,
    OtaPackage,
    Rpc,
    Asset,
    Alarm,
    Dashboard,
    RuleChain,
}

/// What a thing is known by, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityId {
    /// What it is.
    pub entity_type: EntityType,
    /// Its UUID.
    pub id: Uuid,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// How many pages there are.
    pub total_pages: u64,
    /// How many things there are.
    pub total_elements: u64,
    /// Whether this is not the last one.
    pub has_next: bool,
}

impl<T> Page<T> {
    /// The page that a query asked for, of so many things.
    #[must_use]
    pub fn of(data: Vec<T>, total_elements: u64, query: &PageQuery) -> Self {
        let total_pages = total_elements.div_ceil(query.size.max(1));
        let has_next = query.page.saturating_add(1) < total_pages;
        Self { data, total_pages, total_elements, has_next }
    }
}

/// Which page of which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// How many things are on a page.
    pub size: u64,
    /// Which one, from 0.
    pub page: u64,
    /// What names have to contain.
    pub text_search: Option<String>,
    /// What it is sorted by.
    pub sort_property: Option<String>,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl PageQuery {
    /// Reads `pageSize`, `page`, `textSearch`, `sortProperty` and `sortOrder`.
    ///
    /// # Errors
    ///
    /// What is missing or wrong.
    pub fn read(query: &Query<'_>) -> Result<Self, WrongParameter> {
        let size = query.count("pageSize")?.ok_or(WrongParameter::Missing("pageSize"))?;
        if !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(WrongParameter::Value("pageSize"));
        }
        let text = |name| query.get(name).map(str::to_owned);
        Ok(Self {
            size,
            page: query.count("page")?.ok_or(WrongParameter::Missing("page"))?,
            text_search: text("textSearch"),
            sort_property: text("sortProperty"),
            descending: match query.get("sortOrder") {
                None | Some("ASC") => false,
                Some("DESC") => true,
                Some(_) => return Err(WrongParameter::Value("sortOrder")),
            },
        })
    }

    /// How many things are before the page.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.size.saturating_mul(self.page)
    }
}

/// A device. Fields that nobody here knows are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its id; `None` for one that is to be made.
    pub id: Option<EntityId>,
    /// When it was made, in milliseconds since the epoch.
    #[serde(default)]
    pub created_time: Option<i64>,
    /// Whose it is.
    #[serde(default)]
    pub tenant_id: Option<EntityId>,
    /// Who uses it.
    #[serde(default)]
    pub customer_id: Option<EntityId>,
    /// Its name, unique in its tenant.
    pub name: String,
    /// The name of its profile.
    #[serde(rename = "type", default)]
    pub device_type: Option<String>,
    /// What people call it.
    #[serde(default)]
    pub label: Option<String>,
    /// Its profile.
    #[serde(default)]
    pub device_profile_id: Option<EntityId>,
    /// The firmware it should have.
    #[serde(default)]
    pub firmware_id: Option<EntityId>,
    /// The software it should have.
    #[serde(default)]
    pub software_id: Option<EntityId>,
    /// What is said about it.
    #[serde(default)]
    pub additional_info: Option<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Device {
    /// Whether it speaks for others.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.flag(GATEWAY)
    }

    /// Whether what it says for others counts as its activity, and theirs.
    #[must_use]
    pub fn overwrites_activity_time(&self) -> bool {
        self.flag("overwriteActivityTime")
    }

    /// What is said about it, but for whether it speaks for others.
    #[must_use]
    pub fn about(&self) -> Map<String, Value> {
        let mut about = match &self.additional_info {
            Some(Value::Object(about)) => about.clone(),
            _ => Map::new(),
        };
        about.remove(GATEWAY);
        about
    }

    fn flag(&self, name: &str) -> bool {
        self.additional_info.as_ref().is_some_and(|info| info[name] == Value::Bool(true))
    }

    /// Whether it can be one.
    #[must_use]
    pub fn has_name(&self) -> bool {
        !self.name.trim().is_empty() && self.name.chars().count() <= NAME_CHARS_MAX
    }
}
