//! Queries: what of them means something here.

use serde_json::Value;

use crate::losant::when::When;

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
    /// Names of devices with this in them.
    pub name: Option<String>,
    /// Devices of this class.
    pub class: Option<String>,
    /// Seconds between two signs of life of a stream.
    pub keep_alive_s: u64,
    /// Only these attributes of states; none: all.
    pub attributes: Vec<String>,
}

impl Query {
    /// Reads one. What can't be read is as if it were not there.
    #[must_use]
    pub fn read(text: &str, now_ms: i64) -> Self {
        let mut query = Self {
            limit: None,
            since_ms: None,
            page: 0,
            per_page: PER_PAGE,
            name: None,
            class: None,
            keep_alive_s: KEEP_ALIVE_S,
            attributes: Vec::new(),
        };
        let (mut field, mut wanted) = (None, None);
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "limit" => query.limit = value.parse().ok(),
                "since" => query.since_ms = moment(&value, now_ms),
                "page" => query.page = value.parse().unwrap_or(0),
                "perPage" => {
                    let most = value.parse().unwrap_or(PER_PAGE);
                    query.per_page = most.clamp(1, PER_PAGE_MAX);
                }
                "filterField" => field = Some(value.into_owned()),
                "filter" => wanted = Some(value.into_owned()),
                "deviceClass" => query.class = Some(value.into_owned()),
                "keepAliveInterval" => {
                    let seconds = value.parse().unwrap_or(KEEP_ALIVE_S);
                    query.keep_alive_s = seconds.clamp(1, KEEP_ALIVE_S_MAX);
                }
                "attributes" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    query.attributes.extend(names.map(str::to_owned));
                }
                _ => {}
            }
        }
        query.name = wanted.filter(|_| field.as_deref().is_none_or(|field| field == "name"));
        query
    }
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
