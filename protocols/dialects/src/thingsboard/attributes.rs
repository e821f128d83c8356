//! Attributes: which a device asks for, what it is answered, what it is told of changes.
//!
//! Invariant: a device never sees [`Scope::Server`]; nothing here can say one. Checked by
//! `tests/it/thingsboard/attributes.rs`.

use moorline_core::AttributeScope;

use super::{
    invalid::Invalid,
    json::Json,
    values::{self, Entries},
};

/// The most keys of one request.
pub const KEYS_MAX: usize = 1_024;

/// Who may write an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The device; both may read.
    Client,
    /// The server; the device reads, and is told of changes.
    Shared,
    /// The server, for itself.
    Server,
}

impl From<Scope> for AttributeScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Client => Self::Client,
            Scope::Shared => Self::Shared,
            Scope::Server => Self::Server,
        }
    }
}

impl Scope {
    /// Its name in URLs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "CLIENT_SCOPE",
            Self::Shared => "SHARED_SCOPE",
            Self::Server => "SERVER_SCOPE",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Client, Self::Shared, Self::Server].into_iter().find(|scope| scope.name() == name)
    }
}

/// Which attributes a device asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All client and shared ones.
    All,
    /// These; at least one. Those that are not there are left out of the answer.
    Named {
        /// Client attributes.
        client: Vec<String>,
        /// Shared attributes.
        shared: Vec<String>,
    },
}

impl Wanted {
    /// Reads two lists of keys, as `a,b`. Both missing or empty: all.
    ///
    /// # Errors
    ///
    /// Too many keys.
    pub fn of(client: Option<&str>, shared: Option<&str>) -> Result<Self, Invalid> {
        let (client, shared) = (keys(client)?, keys(shared)?);
        Ok(if client.is_empty() && shared.is_empty() {
            Self::All
        } else {
            Self::Named { client, shared }
        })
    }

    /// Reads `{"clientKeys":"a,b","sharedKeys":"c"}`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(json: &Json) -> Result<Self, Invalid> {
        if json.as_object().is_none() {
            return Err(Invalid::Shape("a request for attributes is an object"));
        }
        let list = |key| match json.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(keys)) => Ok(Some(keys.as_str())),
            Some(_) => Err(Invalid::Shape("clientKeys and sharedKeys are texts")),
        };
        Self::of(list("clientKeys")?, list("sharedKeys")?)
    }
}

/// Keys between commas.
///
/// # Errors
///
/// More than [`KEYS_MAX`].
pub fn keys(list: Option<&str>) -> Result<Vec<String>, Invalid> {
    let keys = list.unwrap_or_default().split(',').filter(|key| !key.is_empty());
    let keys: Vec<String> = keys.take(KEYS_MAX + 1).map(str::to_owned).collect();
    if keys.len() > KEYS_MAX { Err(Invalid::Shape("too many keys")) } else { Ok(keys) }
}

/// Attributes of a device, as far as they were asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// Client attributes.
    pub client: Entries,
    /// Shared attributes.
    pub shared: Entries,
}

impl Found {
    /// `{"client":{…},"shared":{…}}`. A group without values is left out.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let groups = [("client", &self.client), ("shared", &self.shared)];
        let groups = groups.into_iter().filter(|(_, entries)| !entries.is_empty());
        let groups = groups.map(|(name, entries)| (name.to_owned(), values::object(entries)));
        Json::Object(groups.collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client.is_empty() && self.shared.is_empty()
    }
}

/// A change of shared attributes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changed {
    /// Set, perhaps to what they were.
    pub updated: Entries,
    /// Deleted.
    pub deleted: Vec<String>,
}

impl Changed {
    /// `{"k":v}` and `{"deleted":["k"]}`; both in one, if both happened at once.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let updated = self.updated.iter().map(|(key, value)| (key.clone(), value.to_json()));
        let mut entries: Vec<(String, Json)> = updated.collect();
        if !self.deleted.is_empty() {
            let keys = self.deleted.iter().map(|key| Json::from(key.as_str())).collect();
            // An attribute of this name would be a second key.
            entries.retain(|(key, _)| key != "deleted");
            entries.push(("deleted".to_owned(), Json::Array(keys)));
        }
        Json::Object(entries)
    }
}
