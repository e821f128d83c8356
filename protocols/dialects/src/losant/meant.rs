//! Which devices are meant: by id, by tag, or by a query, as lists, commands to several and questions about data say it.
//!
//! # Invariants
//!
//! - **What is not understood means nobody**: an unknown field or operator is refused, never skipped.
//! - **Bounded**: so many terms with all that they compare with, and no deeper.
//!
//! Checked by `tests/it/losant/meant.rs`.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{
    Invalid,
    access::{DEVICES_MAX, TAGS_MAX, Tag},
    device::About,
    id::Id,
    when::When,
};

/// How deep queries are within each other.
const DEPTH_MAX: usize = 8;
/// Terms of one list, and of all lists together ten times as many; values of lists count as terms.
const TERMS_MAX: usize = 100;
/// See [`TERMS_MAX`].
const ALL_TERMS_MAX: usize = 10 * TERMS_MAX;

/// Devices that somebody means: all that are named in any way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meant {
    /// By id.
    pub ids: Vec<Id>,
    /// By any of these tags.
    pub tags: Vec<Tag>,
    /// By a query.
    pub query: Option<Query>,
}

impl Meant {
    /// Reads what a body says: ids, tags, and a query.
    ///
    /// # Errors
    ///
    /// Why it is none, or nobody.
    pub fn read(
        ids: Option<Vec<String>>,
        tags: Option<Vec<Tag>>,
        query: Option<&Value>,
    ) -> Result<Self, Invalid> {
        let (ids, tags) = (ids.unwrap_or_default(), tags.unwrap_or_default());
        let query = query.filter(|query| !query.is_null());
        if ids.is_empty() && tags.is_empty() && query.is_none() {
            return Err(Invalid::new("deviceIds, deviceTags or deviceQuery are required"));
        }
        if ids.len() > DEVICES_MAX || tags.len() > TAGS_MAX {
            let why = format!("at most {DEVICES_MAX} deviceIds and {TAGS_MAX} deviceTags");
            return Err(Invalid(why));
        }
        let id = |id: String| {
            Id::parse(id.as_bytes()).ok_or_else(|| Invalid(format!("deviceIds: {id:?} is no id")))
        };
        let ids = ids.into_iter().map(id).collect::<Result<_, _>>()?;
        if !tags.iter().all(Tag::is_well_formed) {
            return Err(Invalid::new("deviceTags: each has a key or a value"));
        }
        let query = query.map(Query::read).transpose()?;
        Ok(Self { ids, tags, query })
    }

    /// Whether somebody who is not named has to be looked for.
    #[must_use]
    pub fn searches(&self) -> bool {
        !self.tags.is_empty() || self.query.is_some()
    }

    /// Whether a device is meant otherwise than by its id.
    #[must_use]
    pub fn finds(&self, subject: &Subject<'_>) -> bool {
        let has = |wanted: &Tag| subject.about.tags.iter().any(|tag| wanted.is_met_by(tag));
        self.tags.iter().any(has) || self.query.as_ref().is_some_and(|query| query.finds(subject))
    }
}

/// What queries ask about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The device's id.
    pub id: &'a Id,
    /// What is known of it.
    pub about: &'a About,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was changed.
    pub updated_ms: i64,
}

/// A query, as the vendor's API describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Term);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    All(Vec<Self>),
    Any(Vec<Self>),
    Neither(Vec<Self>),
    Field { field: Field, tests: Vec<Test>, any_case: bool },
    Tags { all: Vec<Tag>, not: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Gateway,
    Name,
    Class,
    Attribute,
    Created,
    Updated,
}

const FIELDS: [(&str, Field); 8] = [
    ("id", Field::Id),
    ("deviceId", Field::Id),
    ("gatewayId", Field::Gateway),
    ("name", Field::Name),
    ("deviceClass", Field::Class),
    ("attributeName", Field::Attribute),
    ("creationDate", Field::Created),
    ("lastUpdated", Field::Updated),
];

/// A value of a field, or what it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scalar {
    Text(String),
    Ms(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// One of these; without any of them, that there is none.
    In(Vec<Scalar>),
    NotIn(Vec<Scalar>),
    /// So it compares, or as the second does.
    Than(Ordering, bool, Scalar),
    Starts(String),
    Ends(String),
    Contains(String),
}

impl Query {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// What of it is not understood, or too much.
    pub fn read(said: &Value) -> Result<Self, Invalid> {
        let mut left = ALL_TERMS_MAX;
        all(said, 0, &mut left).map(Self)
    }

    /// The same of a text.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let said = serde_json::from_str(text).map_err(|why| wrong(&why.to_string()))?;
        Self::read(&said)
    }

    /// Whether a device is meant.
    #[must_use]
    pub fn finds(&self, subject: &Subject<'_>) -> bool {
        self.0.is_met(subject)
    }
}

fn wrong(why: &str) -> Invalid {
    Invalid(format!("query: {why}"))
}

fn all(said: &Value, depth: usize, left: &mut usize) -> Result<Term, Invalid> {
    let said = said.as_object().ok_or_else(|| wrong("an object is wanted"))?;
    if depth > DEPTH_MAX || said.len() > TERMS_MAX || said.len() > *left {
        return Err(wrong("too much"));
    }
    *left -= said.len();
    let terms = said.iter().map(|(key, value)| term(key, value, depth, left));
    terms.collect::<Result<_, _>>().map(Term::All)
}

fn term(key: &str, value: &Value, depth: usize, left: &mut usize) -> Result<Term, Invalid> {
    let mut several = || {
        let list = value.as_array().filter(|list| list.len() <= TERMS_MAX);
        let list = list.ok_or_else(|| wrong(&format!("{key}: a list of at most {TERMS_MAX}")))?;
        list.iter().map(|one| all(one, depth + 1, left)).collect::<Result<Vec<_>, _>>()
    };
    match key {
        "$and" => several().map(Term::All),
        "$or" => several().map(Term::Any),
        "$nor" => several().map(Term::Neither),
        "tags" => tags(value, left),
        _ => match (key.strip_prefix("tags."), FIELDS.iter().find(|(name, _)| *name == key)) {
            (Some(name), _) => {
                let tag = pair(name, value)?;
                Ok(Term::Tags { all: vec![tag], not: false })
            }
            (None, Some((_, field))) => tests(*field, key, value, left),
            (None, None) => Err(wrong(&format!("{key:?} is nothing that is asked about here"))),
        },
    }
}

fn pair(key: &str, value: &Value) -> Result<Tag, Invalid> {
    let value = value.as_str().ok_or_else(|| wrong("a tag's value is a text"))?;
    let tag = Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) };
    if tag.is_well_formed() { Ok(tag) } else { Err(wrong("a tag is too long")) }
}

fn tags(said: &Value, left: &mut usize) -> Result<Term, Invalid> {
    let said = said.as_object().ok_or_else(|| wrong("tags: an object is wanted"))?;
    let (operator, wanted) = match said.iter().next() {
        Some((key, Value::Object(wanted))) if said.len() == 1 => (key.as_str(), wanted),
        Some(_) | None => ("$eq", said),
    };
    let (not, names) = match operator {
        "$eq" => (false, ["$tagKey", "$tagValue"]),
        "$ne" => (true, ["$tagKey", "$tagValue"]),
        "$elemMatch" => (false, ["key", "value"]),
        other => return Err(wrong(&format!("tags: {other:?} is no operator"))),
    };
    let text = |name: &str| match wanted.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong("tags: texts are wanted")),
    };
    let (key, value) = (text(names[0])?, text(names[1])?);
    let all = if key.is_none() && value.is_none() {
        wanted.iter().map(|(key, value)| pair(key, value)).collect::<Result<Vec<_>, _>>()?
    } else if wanted.len() == usize::from(key.is_some()) + usize::from(value.is_some()) {
        vec![Tag { key, value }]
    } else {
        return Err(wrong("tags: a key and a value, and nothing besides"));
    };
    *left = left.checked_sub(all.len()).ok_or_else(|| wrong("too much"))?;
    if all.is_empty() || !all.iter().all(Tag::is_well_formed) {
        return Err(wrong("tags: a key or a value is wanted"));
    }
    Ok(Term::Tags { all, not })
}

fn tests(field: Field, key: &str, said: &Value, left: &mut usize) -> Result<Term, Invalid> {
    let one = Map::from_iter([("$eq".to_owned(), said.clone())]);
    let is_date = said.get("$date").is_some();
    let said = said.as_object().filter(|_| !is_date).unwrap_or(&one);
    let mut any_case = false;
    let mut tests = Vec::with_capacity(said.len());
    for (operator, value) in said {
        if operator == "$ci" {
            any_case = value.as_bool().ok_or_else(|| wrong("$ci: true or false"))?;
            continue;
        }
        // Each device is compared with all of them.
        let values = value.as_array().map_or(1, Vec::len);
        *left = left.checked_sub(values).ok_or_else(|| wrong("too much"))?;
        let test = test(field, operator, value);
        tests.push(test.map_err(|Invalid(why)| Invalid(format!("{why} ({key})")))?);
    }
    if tests.is_empty() {
        return Err(wrong(&format!("{key}: nothing is asked")));
    }
    if any_case {
        // Once, and not for each device.
        tests = tests.into_iter().map(Test::folded).collect();
    }
    Ok(Term::Field { field, tests, any_case })
}

fn test(field: Field, operator: &str, value: &Value) -> Result<Test, Invalid> {
    let one = || scalar(field, value);
    let list = || {
        let list = value.as_array().filter(|list| list.len() <= TERMS_MAX && !list.is_empty());
        let list = list.ok_or_else(|| wrong(&format!("{operator}: 1 to {TERMS_MAX} values")))?;
        list.iter().map(|value| scalar(field, value)).collect::<Result<Vec<_>, _>>()
    };
    // A value, or that there is none.
    let some = || if value.is_null() { Ok(Vec::new()) } else { one().map(|one| vec![one]) };
    let part = || {
        let part = value.as_str().filter(|part| !part.is_empty() && !field.is_time());
        part.map(str::to_owned).ok_or_else(|| wrong(&format!("{operator}: a text")))
    };
    let than = |order, or_equal| one().map(|one| Test::Than(order, or_equal, one));
    match operator {
        "$eq" => some().map(Test::In),
        "$ne" => some().map(Test::NotIn),
        "$in" => list().map(Test::In),
        "$nin" => list().map(Test::NotIn),
        "$gt" => than(Ordering::Greater, false),
        "$gte" => than(Ordering::Greater, true),
        "$lt" => than(Ordering::Less, false),
        "$lte" => than(Ordering::Less, true),
        "$startsWith" => part().map(Test::Starts),
        "$endsWith" => part().map(Test::Ends),
        "$contains" => part().map(Test::Contains),
        other => Err(wrong(&format!("{other:?} is no operator"))),
    }
}

fn scalar(field: Field, value: &Value) -> Result<Scalar, Invalid> {
    if field.is_time() {
        return match When::read(Some(value)) {
            When::At(ms) => Ok(Scalar::Ms(ms)),
            When::Now | When::Ago(_) => Err(wrong("a time is wanted")),
        };
    }
    match value {
        Value::String(text) => Ok(Scalar::Text(text.clone())),
        Value::Number(number) => Ok(Scalar::Text(number.to_string())),
        Value::Bool(is) => Ok(Scalar::Text(is.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(wrong("a text is wanted")),
    }
}

impl Field {
    fn is_time(self) -> bool {
        matches!(self, Self::Created | Self::Updated)
    }

    /// What a device has there: none, one, or of its attributes many.
    fn of(self, subject: &Subject<'_>) -> Vec<Scalar> {
        let about = subject.about;
        let text = |text: &str| vec![Scalar::Text(text.to_owned())];
        match self {
            Self::Id => text(subject.id.as_str()),
            Self::Gateway => about.gateway.as_ref().map_or_else(Vec::new, |id| text(id.as_str())),
            Self::Name => text(&about.name),
            Self::Class => text(about.class.name()),
            Self::Attribute => about.attributes.keys().cloned().map(Scalar::Text).collect(),
            Self::Created => vec![Scalar::Ms(subject.created_ms)],
            Self::Updated => vec![Scalar::Ms(subject.updated_ms)],
        }
    }
}

impl Scalar {
    fn folded(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.to_lowercase()),
            Self::Ms(ms) => Self::Ms(ms),
        }
    }

    fn compared(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Ms(one), Self::Ms(other)) => Some(one.cmp(other)),
            (Self::Text(_), Self::Ms(_)) | (Self::Ms(_), Self::Text(_)) => None,
        }
    }
}

impl Term {
    fn is_met(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(terms) => terms.iter().all(|term| term.is_met(subject)),
            Self::Any(terms) => terms.iter().any(|term| term.is_met(subject)),
            Self::Neither(terms) => !terms.iter().any(|term| term.is_met(subject)),
            Self::Tags { all, not } => {
                let has = |wanted: &Tag| subject.about.tags.iter().any(|tag| wanted.is_met_by(tag));
                all.iter().all(has) != *not
            }
            Self::Field { field, tests, any_case } => {
                let mut has = field.of(subject);
                if *any_case {
                    has = has.into_iter().map(Scalar::folded).collect();
                }
                tests.iter().all(|test| test.is_met(&has))
            }
        }
    }
}

impl Test {
    fn folded(self) -> Self {
        let folded = |all: Vec<Scalar>| all.into_iter().map(Scalar::folded).collect();
        match self {
            Self::In(all) => Self::In(folded(all)),
            Self::NotIn(all) => Self::NotIn(folded(all)),
            Self::Than(order, or_equal, one) => Self::Than(order, or_equal, one.folded()),
            Self::Starts(part) => Self::Starts(part.to_lowercase()),
            Self::Ends(part) => Self::Ends(part.to_lowercase()),
            Self::Contains(part) => Self::Contains(part.to_lowercase()),
        }
    }

    fn is_met(&self, has: &[Scalar]) -> bool {
        let is_in = |all: &[Scalar]| match all.is_empty() {
            true => has.is_empty(),
            false => has.iter().any(|one| all.contains(one)),
        };
        let text = |fits: &dyn Fn(&str) -> bool| {
            has.iter().any(|one| match one {
                Scalar::Text(text) => fits(text),
                Scalar::Ms(_) => false,
            })
        };
        match self {
            Self::In(all) => is_in(all),
            Self::NotIn(all) => !is_in(all),
            Self::Than(order, or_equal, than) => has.iter().any(|one| {
                let compared = one.compared(than);
                compared == Some(*order) || *or_equal && compared == Some(Ordering::Equal)
            }),
            Self::Starts(part) => text(&|text| text.starts_with(part.as_str())),
            Self::Ends(part) => text(&|text| text.ends_with(part.as_str())),
            Self::Contains(part) => text(&|text| text.contains(part.as_str())),
        }
    }
}
