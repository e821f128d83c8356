//! Lists: which of all are shown, in which order, and how many on a page.
//!
//! # Invariants
//!
//! - **An order or a filter that there is not is refused**, and nothing else is shown in its place.
//! - **No more is held than what comes before a page's end**, however much is looked through.
//!
//! Checked by `tests/it/losant/list.rs`.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use serde_json::{Value, json};

use super::query::Query;
use crate::losant::Invalid;

/// Which fields a list is sorted and filtered by, as the vendor's API says it.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// The first is what it is sorted by if nothing is said.
    pub sorted: &'static [&'static str],
    /// Whether it is then the other way round.
    pub descending: bool,
    /// What it may be filtered by; the first if no field is said.
    pub filtered: &'static [&'static str],
}

/// Devices.
pub const DEVICES: Fields = Fields {
    sorted: &["name", "id", "creationDate", "lastUpdated"],
    descending: false,
    filtered: &["name"],
};
/// Access keys.
pub const KEYS: Fields = Fields {
    sorted: &["creationDate", "key", "status", "id", "lastUpdated"],
    descending: true,
    filtered: &["key", "status"],
};
/// Certificates.
pub const CERTIFICATES: Fields = Fields {
    sorted: &["certificateInfo.commonName", "status", "id", "creationDate", "lastUpdated"],
    descending: false,
    filtered: &["certificateInfo.commonName", "status"],
};
/// Authorities.
pub const AUTHORITIES: Fields = Fields {
    sorted: &["name", "status", "id", "creationDate", "lastUpdated"],
    descending: false,
    filtered: &["name", "status"],
};

/// How one list is to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    sorted: &'static str,
    descending: bool,
    filter: Option<(&'static str, Glob)>,
    page: usize,
    per_page: usize,
}

/// A page of a list, and what is said of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: usize,
}

/// A page while all that there is comes by, in any order: what stands on it and before it so far.
#[derive(Debug)]
pub struct Gathered<'a, T> {
    shape: &'a Shape,
    /// How many may stand on the page and before it.
    most: usize,
    /// The last of them first.
    kept: BinaryHeap<Kept<T>>,
    total: usize,
}

/// Something with its place in the order: by what it is sorted by, and then by its id.
#[derive(Debug)]
struct Kept<T> {
    place: Place,
    item: T,
}

/// Those of one list are all of one sort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Ascending(String, String),
    Descending(Reverse<(String, String)>),
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl<T> Eq for Kept<T> {}

impl<T> PartialOrd for Kept<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Kept<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

impl<T> Gathered<'_, T> {
    /// Takes the next one, with what a field says of it.
    pub fn push(&mut self, item: T, field: impl Fn(&T, &str) -> String) {
        self.total += 1;
        let (by, id) = (field(&item, self.shape.sorted), field(&item, "id"));
        let place = match self.shape.descending {
            false => Place::Ascending(by, id),
            true => Place::Descending(Reverse((by, id))),
        };
        if self.kept.len() >= self.most {
            if self.kept.peek().is_none_or(|last| last.place <= place) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Kept { place, item });
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kept.len()
    }

    /// The page, when all have come by.
    #[must_use]
    pub fn page(self) -> Page<T> {
        let before = self.shape.page.saturating_mul(self.shape.per_page);
        let kept = self.kept.into_sorted_vec();
        let items = kept.into_iter().skip(before).map(|one| one.item).collect();
        Page { items, total: self.total }
    }
}

impl Shape {
    /// What a query says of it.
    ///
    /// # Errors
    ///
    /// It names a field or an order that there is not.
    pub fn of(query: &Query, fields: &Fields) -> Result<Self, Invalid> {
        let known = |what: &str, all: &[&'static str], said: &Option<String>| {
            let Some(said) = said.as_ref().filter(|said| !said.is_empty()) else {
                return Ok(all[0]);
            };
            let found = all.iter().find(|name| *name == said).copied();
            found.ok_or_else(|| Invalid(format!("{what}: one of {}", all.join(", "))))
        };
        let sorted = known("sortField", fields.sorted, &query.sort_field)?;
        let descending = match query.sort_direction.as_deref() {
            None | Some("") => fields.descending,
            Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(Invalid::new("sortDirection: asc or desc")),
        };
        let field = known("filterField", fields.filtered, &query.filter_field)?;
        let filter = query.filter.as_ref().filter(|filter| !filter.is_empty());
        let filter = filter.map(|filter| (field, Glob::new(filter)));
        Ok(Self { sorted, descending, filter, page: query.page, per_page: query.per_page })
    }

    /// The same without its filter: where a query takes the filter's place.
    #[must_use]
    pub fn unfiltered(self) -> Self {
        Self { filter: None, ..self }
    }

    /// Whether something is to be shown, by what a field of it says.
    pub fn wants<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.filter.as_ref().is_none_or(|(name, glob)| glob.fits(field(name)))
    }

    /// Its page, of what is to come.
    #[must_use]
    pub fn gathered<T>(&self) -> Gathered<'_, T> {
        let most = self.page.saturating_add(1).saturating_mul(self.per_page);
        Gathered { shape: self, most, kept: BinaryHeap::new(), total: 0 }
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self, application: &str, items: &[Value], total: usize) -> Value {
        let mut answer = json!({
            "applicationId": application,
            "items": items, "count": items.len(), "totalCount": total,
            "page": self.page, "perPage": self.per_page,
            "sortField": self.sorted, "sortDirection": if self.descending { "desc" } else { "asc" },
        });
        if let Some((field, glob)) = &self.filter {
            answer["filterField"] = json!(field);
            answer["filter"] = json!(glob.text);
        }
        answer
    }
}

/// What a field of an answer says, as text: a path with points.
#[must_use]
pub fn field<'a>(shown: &'a Value, path: &str) -> &'a str {
    let found = path.split('.').try_fold(shown, |within, name| within.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}

/// A text in which `*` stands for anything, in any case of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<String>,
}

impl Glob {
    /// Reads one: every text is.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let parts = text.to_lowercase().split('*').map(str::to_owned).collect();
        Self { text: text.to_owned(), parts }
    }

    /// Whether all of a text is this.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let [first, between @ .., last] = self.parts.as_slice() else {
            // Without a star there is one part.
            return self.parts.first().is_some_and(|all| *all == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in between {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last.as_str())
    }
}
