//! Queries: what of them means something here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::losant::{
    Invalid,
    access::{TAGS_MAX, Tag},
    meant,
    when::When,
};

/// Results of a list, if nothing is said, and the most.
pub const PER_PAGE: usize = 100;
/// See [`PER_PAGE`].
pub const PER_PAGE_MAX: usize = 1_000;
/// Seconds between two signs of life of a stream.
const KEEP_ALIVE_S: u64 = 2;
/// See [`KEEP_ALIVE_S`].
const KEEP_ALIVE_S_MAX: u64 = 60;

/// What a query says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// How many, of states, commands and entries of a log.
    pub limit: Option<usize>,
    /// Nothing before it: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Which page of a list, from 0.
    pub page: usize,
    /// How many on a page.
    pub per_page: usize,
    /// By what a list is sorted.
    pub sort_field: Option<String>,
    /// `asc` or `desc`, as it was said.
    pub sort_direction: Option<String>,
    /// By what a list is filtered.
    pub filter_field: Option<String>,
    /// What that has to be; see [`super::list::Glob`].
    pub filter: Option<String>,
    /// Devices of this class.
    pub class: Option<String>,
    /// Devices with all of these tags.
    pub tags: Vec<Tag>,
    /// Devices that this finds: it stands in the place of what filters besides.
    pub meant: Option<meant::Query>,
    /// Seconds between two signs of life of a stream.
    pub keep_alive_s: u64,
    /// Only these attributes of states; none: all.
    pub attributes: Vec<String>,
}

impl Query {
    /// Reads one. Unknown keys mean nothing, nor does a number that is none; what says which of all are wanted has to be understood.
    ///
    /// # Errors
    ///
    /// What is not.
    pub fn read(text: &str, now_ms: i64) -> Result<Self, Invalid> {
        let mut query = Self {
            limit: None,
            since_ms: None,
            page: 0,
            per_page: PER_PAGE,
            sort_field: None,
            sort_direction: None,
            filter_field: None,
            filter: None,
            class: None,
            tags: Vec::new(),
            meant: None,
            keep_alive_s: KEEP_ALIVE_S,
            attributes: Vec::new(),
        };
        let mut tags: BTreeMap<usize, Tag> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "limit" => query.limit = value.parse().ok(),
                "since" => query.since_ms = moment(&value, now_ms),
                "page" => query.page = value.parse().unwrap_or(0),
                "perPage" => {
                    let most = value.parse().unwrap_or(PER_PAGE);
                    query.per_page = most.clamp(1, PER_PAGE_MAX);
                }
                "sortField" => query.sort_field = Some(value.into_owned()),
                "sortDirection" => query.sort_direction = Some(value.into_owned()),
                "filterField" => query.filter_field = Some(value.into_owned()),
                "filter" => query.filter = Some(value.into_owned()),
                "deviceClass" => query.class = Some(value.into_owned()),
                "query" if !value.is_empty() => query.meant = Some(meant::Query::parse(&value)?),
                "keepAliveInterval" => {
                    let seconds = value.parse().unwrap_or(KEEP_ALIVE_S);
                    query.keep_alive_s = seconds.clamp(1, KEEP_ALIVE_S_MAX);
                }
                "attributes" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    query.attributes.extend(names.map(str::to_owned));
                }
                key if key.starts_with("tagFilter") => tag(&mut tags, key, &value)?,
                _ => {}
            }
        }
        query.tags = tags.into_values().collect();
        Ok(query)
    }

    /// Whether the newest of a history is first, as it is unless something else is said.
    ///
    /// # Errors
    ///
    /// What is said is no order.
    pub fn descending(&self) -> Result<bool, Invalid> {
        match self.sort_direction.as_deref() {
            None | Some("" | "desc") => Ok(true),
            Some("asc") => Ok(false),
            Some(_) => Err(Invalid::new("sortDirection: asc or desc")),
        }
    }
}

/// `tagFilter[0][key]=…`, `tagFilter[0][value]=…`.
fn tag(tags: &mut BTreeMap<usize, Tag>, key: &str, value: &str) -> Result<(), Invalid> {
    let wrong = || Invalid::new("tagFilter: a list of keys and values");
    let inner = key.strip_prefix("tagFilter[").and_then(|rest| rest.strip_suffix(']'));
    let (at, part) = inner.and_then(|inner| inner.split_once("][")).ok_or_else(wrong)?;
    let at: usize = at.parse().ok().filter(|at| *at < TAGS_MAX).ok_or_else(wrong)?;
    let tag = tags.entry(at).or_default();
    match part {
        "key" => tag.key = Some(value.to_owned()),
        "value" => tag.value = Some(value.to_owned()),
        _ => return Err(wrong()),
    }
    if tag.is_well_formed() { Ok(()) } else { Err(wrong()) }
}

/// A number is milliseconds, or as many before now if it is negative; anything else a time as text.
fn moment(text: &str, now_ms: i64) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(ms) if ms < 0 => Some(now_ms.saturating_add(ms)),
        Ok(ms) => Some(ms),
        Err(_) => match When::read(Some(&Value::from(text))) {
            When::Now => None,
            said @ (When::Ago(_) | When::At(_)) => Some(said.ms(now_ms)),
        },
    }
}
