//! `keyFilters` of queries: which of the devices that a query names are meant, by what they say and what is said of them.
//!
//! # Invariants
//!
//! - **A predicate looks at values of its own kind**, as the original's does: a text is no number, whatever stands in it. A value of
//!   another kind counts as none. Checked by `tests/it/thingsboard/filtering.rs`.
//! - **Of series and attributes only devices pass that have the key**, whatever is asked of it: also not to be something. Checked by the
//!   same.
//! - **What is not understood is refused**, so that nobody takes a list for a narrower one. Checked by the same.
//! - **Bounded**: [`FILTERS_MAX`] filters, [`PREDICATES_MAX`] predicates, [`DEPTH_MAX`] of them in each other. Checked by the same.

use moorline_core::Double;
use serde_json::Value as AnyValue;

use super::{
    aggregation::number,
    finding::{Wanted, one_wanted, text},
};
use crate::thingsboard::values::Value;

/// Filters of one query: each may be a question for each device.
pub const FILTERS_MAX: usize = 16;
/// Predicates of one query, those that join others too.
pub const PREDICATES_MAX: usize = 128;
/// How deep predicates stand in each other.
pub const DEPTH_MAX: usize = 8;
/// What parts a list of texts.
const LIST: char = ',';
/// What may stand around each of them.
const QUOTES: [char; 2] = ['\'', '"'];
/// Fields of devices.
const FIELDS: [&str; 6] = ["name", "type", "label", "createdTime", "entityType", "additionalInfo"];

/// What a device has to say under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    /// Where it is looked for.
    pub key: Wanted,
    predicate: Predicate,
}

/// What is asked of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Predicate {
    Text { operation: OfTexts, ignores_case: bool },
    Number { operation: OfNumbers, than: Double },
    Truth { is: bool },
    Every(Vec<Self>),
    Any(Vec<Self>),
}

/// What may be asked of a text. What is not so is so, too, of a value that is no text, and of a field that is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OfTexts {
    Is(String),
    IsNot(String),
    Begins(String),
    Ends(String),
    Contains(String),
    ContainsNot(String),
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// What may be asked of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OfNumbers {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

/// Reads filters. All of them have to let a device pass.
///
/// # Errors
///
/// Why they are none.
pub fn filters(list: Option<&AnyValue>) -> Result<Vec<KeyFilter>, String> {
    let list = match list {
        None | Some(AnyValue::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().ok_or("keyFilters: a list is needed")?,
    };
    if list.len() > FILTERS_MAX {
        return Err(format!("keyFilters: at most {FILTERS_MAX}"));
    }
    let (mut read, mut all) = (Reading { left: PREDICATES_MAX }, Vec::new());
    for one in list {
        let key = one.get("key").ok_or("keyFilters: key is needed")?;
        let key = one_wanted(key).map_err(|why| format!("keyFilters: {why}"))?;
        if let Wanted::Field(name) = &key
            && !FIELDS.contains(&name.as_str())
        {
            return Err(format!("keyFilters: devices have no field {name:?}"));
        }
        let predicate = one.get("predicate").ok_or("keyFilters: predicate is needed")?;
        let predicate = read.predicate(predicate, DEPTH_MAX);
        let predicate = predicate.map_err(|why| format!("keyFilters: {why}"))?;
        all.extend(predicate.map(|predicate| KeyFilter { key, predicate }));
    }
    Ok(all)
}

/// How many predicates may still come.
struct Reading {
    left: usize,
}

impl Reading {
    /// Reads a predicate; `None` if anything passes it.
    fn predicate(&mut self, json: &AnyValue, depth: usize) -> Result<Option<Predicate>, String> {
        self.left =
            self.left.checked_sub(1).ok_or(format!("at most {PREDICATES_MAX} predicates"))?;
        let depth =
            depth.checked_sub(1).ok_or(format!("at most {DEPTH_MAX} predicates in each other"))?;
        let operation = text(json, "operation").unwrap_or_default();
        let unknown = || format!("the operation {operation:?} is not served");
        Ok(match text(json, "type").unwrap_or_default() {
            "COMPLEX" => {
                let parts = json.get("predicates").and_then(AnyValue::as_array);
                let parts = parts.ok_or("predicates are needed")?;
                let parts = parts.iter().map(|part| self.predicate(part, depth));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                let parts: Vec<_> = parts.into_iter().flatten().collect();
                let whole = match operation {
                    "AND" => Predicate::Every,
                    "OR" => Predicate::Any,
                    _ => return Err(unknown()),
                };
                (!parts.is_empty()).then(|| whole(parts))
            }
            "STRING" => {
                let ignores_case = json.get("ignoreCase") == Some(&AnyValue::Bool(true));
                let than = value(json)?.and_then(AnyValue::as_str).unwrap_or_default();
                let than = if ignores_case { than.to_lowercase() } else { than.to_owned() };
                let is_nothing = than.is_empty();
                let operation = OfTexts::of(operation, than).ok_or_else(unknown)?;
                // The form that people fill in has it like that as long as they have written nothing.
                (!is_nothing).then_some(Predicate::Text { operation, ignores_case })
            }
            "NUMERIC" => {
                let than = value(json)?.and_then(AnyValue::as_f64).and_then(Double::new);
                let than = than.ok_or("a number is needed")?;
                let operation = OfNumbers::of(operation).ok_or_else(unknown)?;
                Some(Predicate::Number { operation, than })
            }
            "BOOLEAN" => {
                let than = value(json)?.and_then(AnyValue::as_bool).ok_or("true or false")?;
                match operation {
                    "EQUAL" => Some(Predicate::Truth { is: than }),
                    "NOT_EQUAL" => Some(Predicate::Truth { is: !than }),
                    _ => return Err(unknown()),
                }
            }
            other => return Err(format!("predicates of the type {other:?} are not served")),
        })
    }
}

/// What a value is compared with: the user's own, or else what it is without one.
fn value(predicate: &AnyValue) -> Result<Option<&AnyValue>, String> {
    let of = predicate.get("value").ok_or("value is needed")?;
    let said = |name| of.get(name).filter(|said| !said.is_null());
    let source = said("dynamicValue").and_then(|source| text(source, "sourceType"));
    match said("userValue") {
        Some(own) => Ok(Some(own)),
        None if source.is_some() => Err("dynamicValue is not served".to_owned()),
        None => Ok(said("defaultValue")),
    }
}

/// A part of a list, without what stands around it.
fn unquoted(part: &str) -> &str {
    let part = part.trim();
    let inner = |quote: char| part.strip_prefix(quote)?.strip_suffix(quote);
    QUOTES.into_iter().find_map(inner).unwrap_or(part)
}

impl OfTexts {
    fn of(name: &str, than: String) -> Option<Self> {
        let list = |than: String| than.split(LIST).map(|one| unquoted(one).to_owned()).collect();
        Some(match name {
            "EQUAL" => Self::Is(than),
            "NOT_EQUAL" => Self::IsNot(than),
            "STARTS_WITH" => Self::Begins(than),
            "ENDS_WITH" => Self::Ends(than),
            "CONTAINS" => Self::Contains(than),
            "NOT_CONTAINS" => Self::ContainsNot(than),
            "IN" => Self::In(list(than)),
            "NOT_IN" => Self::NotIn(list(than)),
            _ => return None,
        })
    }

    fn passes(&self, said: Option<&str>) -> bool {
        match self {
            Self::Is(than) => said == Some(than),
            Self::IsNot(than) => said != Some(than),
            Self::Begins(than) => said.is_some_and(|said| said.starts_with(than)),
            Self::Ends(than) => said.is_some_and(|said| said.ends_with(than)),
            Self::Contains(than) => said.is_some_and(|said| said.contains(than)),
            Self::ContainsNot(than) => said.is_none_or(|said| !said.contains(than)),
            Self::In(all) => said.is_some_and(|said| all.iter().any(|than| than == said)),
            Self::NotIn(all) => said.is_none_or(|said| all.iter().all(|than| than != said)),
        }
    }
}

impl OfNumbers {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "EQUAL" => Self::Equal,
            "NOT_EQUAL" => Self::NotEqual,
            "GREATER" => Self::Greater,
            "LESS" => Self::Less,
            "GREATER_OR_EQUAL" => Self::GreaterOrEqual,
            "LESS_OR_EQUAL" => Self::LessOrEqual,
            _ => return None,
        })
    }

    fn passes(self, said: f64, than: f64) -> bool {
        let Some(order) = said.partial_cmp(&than) else { return false };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::Less => order.is_lt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

impl Predicate {
    fn passes(&self, said: Option<&Value>) -> bool {
        match self {
            Self::Text { operation, ignores_case } => {
                let text = match said {
                    Some(Value::Text(text)) => Some(text),
                    Some(Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Json(_))
                    | None => None,
                };
                match text.filter(|_| *ignores_case) {
                    Some(text) => operation.passes(Some(&text.to_lowercase())),
                    None => operation.passes(text.map(String::as_str)),
                }
            }
            Self::Number { operation, than } => {
                said.and_then(number).is_some_and(|said| operation.passes(said, than.get()))
            }
            Self::Truth { is } => said == Some(&Value::Bool(*is)),
            Self::Every(all) => all.iter().all(|one| one.passes(said)),
            Self::Any(all) => all.iter().any(|one| one.passes(said)),
        }
    }
}

impl KeyFilter {
    /// Whether a device passes with this under the key; `None`: it has nothing there.
    #[must_use]
    pub fn passes(&self, said: Option<&Value>) -> bool {
        let may_be_empty = match self.key {
            Wanted::Field(_) => true,
            Wanted::Series(_) | Wanted::Attribute(..) => false,
        };
        (may_be_empty || said.is_some()) && self.predicate.passes(said)
    }
}
