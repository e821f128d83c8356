//! Queries of the management API: pages, order and filters (§1.9).

use std::collections::BTreeMap;

use moorline_core::{Text, UnixMillis};

use super::error::Error;
use crate::{moments, watson::identity::name};

/// The most bytes of a query.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// The most results of a page; whoever asks for more gets these.
pub const PAGE_RESULTS_MAX: u32 = 100;
/// Results of a page whose size nobody chose.
pub const PAGE_RESULTS_DEFAULT: u32 = 25;
/// The most fields that a list is sorted by.
const SORT_FIELDS_MAX: usize = 8;
/// The most filters.
const FILTERS_MAX: usize = 16;

/// What a query asks. Names with `_` are the platform's; those that it does not know mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `_limit`
    pub limit: u32,
    /// `_bookmark`: where the page before ended, as its answer said.
    pub bookmark: Option<String>,
    /// `_sort`: fields, the first counts most; `-` before one turns it round.
    pub sort: Vec<Sort>,
    /// Everything else. The first of several of one name counts.
    pub filters: BTreeMap<String, String>,
}

/// A field that a list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// Its name.
    pub field: String,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Query {
    /// Reads what stands behind `?`.
    ///
    /// # Errors
    ///
    /// What can't be read.
    pub fn parse(query: &str) -> Result<Self, Error> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Error::Malformed("the query is too long"));
        }
        let mut read = Self {
            limit: PAGE_RESULTS_DEFAULT,
            bookmark: None,
            sort: Vec::new(),
            filters: BTreeMap::new(),
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "_limit" => {
                    let limit: Option<u32> = value.parse().ok().filter(|limit| *limit > 0);
                    let limit = limit.ok_or(Error::Malformed("_limit is no number above 0"))?;
                    read.limit = limit.min(PAGE_RESULTS_MAX);
                }
                "_bookmark" if !value.is_empty() => read.bookmark = Some(value.into_owned()),
                "_sort" => {
                    let fields = value.split(',').map(str::trim).filter(|field| !field.is_empty());
                    let sort = |field: &str| match field.strip_prefix('-') {
                        Some(field) => Sort { field: field.to_owned(), descending: true },
                        None => Sort { field: field.to_owned(), descending: false },
                    };
                    read.sort = fields.take(SORT_FIELDS_MAX).map(sort).collect();
                }
                of_platform if of_platform.starts_with('_') => {}
                _ if read.filters.len() >= FILTERS_MAX => {
                    return Err(Error::Malformed("there are too many filters"));
                }
                _ => {
                    let (key, value) = (key.into_owned(), value.into_owned());
                    read.filters.entry(key).or_insert(value);
                }
            }
        }
        Ok(read)
    }

    /// A filter, unless it is empty.
    #[must_use]
    pub fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Whose connection states are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionFilter {
    /// `deviceType`
    pub kind: Option<Text>,
    /// `deviceId`
    pub id: Option<Text>,
    /// `connectionStatus`: whether connected.
    pub connected: Option<bool>,
    /// `connectedAfter`
    pub after: Option<UnixMillis>,
}

impl ConnectionFilter {
    /// Reads the filters of `clientconnectionstates`.
    ///
    /// # Errors
    ///
    /// What means nothing.
    pub fn of(query: &Query) -> Result<Self, Error> {
        let names = |key, wrong| match query.filter(key) {
            None => Ok(None),
            Some(value) => name(value.as_bytes()).map(Some).ok_or(Error::Malformed(wrong)),
        };
        let connected = match query.filter("connectionStatus") {
            None => None,
            Some("connected") => Some(true),
            Some("disconnected") => Some(false),
            Some(_) => {
                return Err(Error::Malformed("connectionStatus is connected or disconnected"));
            }
        };
        let after = match query.filter("connectedAfter") {
            None => None,
            Some(text) => {
                Some(moments::parse(text).ok_or(Error::Malformed("connectedAfter is no moment"))?)
            }
        };
        Ok(Self {
            kind: names("deviceType", "deviceType is no type")?,
            id: names("deviceId", "deviceId is no id")?,
            connected,
            after,
        })
    }
}
