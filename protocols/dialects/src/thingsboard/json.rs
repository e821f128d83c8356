//! JSON as devices write it: read with limits, and every number kept as the text it came as.
//!
//! What a number becomes depends on how it was written (`42` and `42.0` are of two types), so a reader that makes a float
//! of it would lose what counts. Hence a small reader of our own (RFC 8259) over the text.
//!
//! # Invariants
//!
//! - **Bounded.** No text is deeper than [`DEPTH_MAX`], or has more than [`VALUES_MAX`] values. Its bytes are limited by
//!   whoever received them. Checked by `tests/it/thingsboard/json.rs`.
//! - **One value per key.** Of a key that stands twice, the last value counts, at the place of the first. Checked by the
//!   same.
//! - **What was read is written the same**, but for white space and escapes. Checked by the same, with chance.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;

/// The most levels of arrays and objects in each other: readings have three or four, and each costs stack.
pub const DEPTH_MAX: usize = 64;
/// The most values in one text, keys not counted. A value takes some ten times the memory of its shortest text.
pub const VALUES_MAX: usize = 262_144;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as it was written.
    Number(Number),
    /// A text.
    String(String),
    /// `[…]`
    Array(Vec<Self>),
    /// `{…}`, in the order it was written; each key once.
    Object(Vec<(String, Self)>),
}

/// A number as text. Always one that JSON allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// How it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A double, always with a `.` or an exponent; `None` for what JSON has no number for.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self(format!("{value:?}")))
    }

    /// The same of a single float, which needs fewer digits.
    #[must_use]
    pub fn from_f32(value: f32) -> Option<Self> {
        value.is_finite().then(|| Self(format!("{value:?}")))
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(value.to_string())
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotJson {
    /// It is not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// It is not JSON; the place of the byte that is wrong.
    #[error("not JSON at byte {0}")]
    At(usize),
    /// Deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More than [`VALUES_MAX`] values.
    #[error("more than {VALUES_MAX} values")]
    TooMany,
}

impl Json {
    /// Reads one value that is all there is.
    ///
    /// # Errors
    ///
    /// [`NotJson`].
    pub fn read(bytes: &[u8]) -> Result<Self, NotJson> {
        let text = std::str::from_utf8(bytes).map_err(|_| NotJson::Utf8)?;
        let mut reader = Reader { text, at: 0, values: 0 };
        reader.skip_space();
        let value = reader.value(DEPTH_MAX)?;
        reader.skip_space();
        if reader.at < text.len() { Err(NotJson::At(reader.at)) } else { Ok(value) }
    }

    /// The entry of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries, if it is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(entries) => Some(entries),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// The items, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Object(_) => {
                None
            }
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Null | Self::Number(_) | Self::String(_) | Self::Array(_) | Self::Object(_) => {
                None
            }
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// An object of these entries. Their keys have to be different.
    #[must_use]
    pub fn object<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Object(entries.map(|(key, value)| (key.to_owned(), value)).into())
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

/// Compact: no white space, no escapes but the needed ones.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => f.write_str(number.as_str()),
            Self::String(text) => write_text(f, text),
            Self::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { '[' } else { ',' })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Self::Object(entries) => {
                for (at, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if at == 0 { "{" } else { "," })?;
                    write_text(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_str(if entries.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        f.write_str(&text[plain_from..at])?;
        plain_from = at + 1;
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            b'\n' => f.write_str("\\n")?,
            b'\r' => f.write_str("\\r")?,
            b'\t' => f.write_str("\\t")?,
            control => write!(f, "\\u{control:04x}")?,
        }
    }
    f.write_str(&text[plain_from..])?;
    f.write_str("\"")
}

/// Four hexadecimal digits of a `\u` escape.
const ESCAPE_DIGITS: usize = 4;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong<T>(&self) -> Result<T, NotJson> {
        Err(NotJson::At(self.at))
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn eat(&mut self, expected: u8) -> bool {
        let there = self.peek() == Some(expected);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, levels: usize) -> Result<Json, NotJson> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(NotJson::TooMany);
        }
        match self.peek() {
            Some(b'{') => self.object(levels.checked_sub(1).ok_or(NotJson::TooDeep)?),
            Some(b'[') => self.array(levels.checked_sub(1).ok_or(NotJson::TooDeep)?),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.wrong(),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, NotJson> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.wrong();
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, levels: usize) -> Result<Json, NotJson> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.eat(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(levels)?);
            self.skip_space();
            if self.eat(b']') {
                return Ok(Json::Array(items));
            }
            if !self.eat(b',') {
                return self.wrong();
            }
        }
    }

    fn object(&mut self, levels: usize) -> Result<Json, NotJson> {
        self.at += 1;
        let mut entries = Vec::new();
        self.skip_space();
        if self.eat(b'}') {
            return Ok(Json::Object(entries));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.wrong();
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(b':') {
                return self.wrong();
            }
            self.skip_space();
            entries.push((key, self.value(levels)?));
            self.skip_space();
            if self.eat(b'}') {
                return Ok(Json::Object(each_key_once(entries)));
            }
            if !self.eat(b',') {
                return self.wrong();
            }
        }
    }

    fn number(&mut self) -> Result<Json, NotJson> {
        let from = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'-') {
                self.eat(b'+');
            }
            self.digits()?;
        }
        Ok(Json::Number(Number(self.text[from..self.at].to_owned())))
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let from = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == from { self.wrong() } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, NotJson> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|b| b >= b' ' && b != b'"' && b != b'\\') {
                self.at += 1;
            }
            text.push_str(&self.text[from..self.at]);
            if self.eat(b'"') {
                return Ok(text);
            }
            if !self.eat(b'\\') {
                return self.wrong();
            }
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let Some(kind) = self.peek() else { return self.wrong() };
        let char = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return self.wrong(),
        };
        self.at += 1;
        Ok(char)
    }

    /// A character, or two halves of one. Half a one has no UTF-8 and is shown as U+FFFD.
    fn unicode_escape(&mut self) -> Result<char, NotJson> {
        let first = self.four_digits()?;
        if (0xd800..0xdc00).contains(&first) && self.text.as_bytes()[self.at..].starts_with(b"\\u")
        {
            let back = self.at;
            self.at += 1;
            let second = self.four_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// The digits behind the `u` that is here.
    fn four_digits(&mut self) -> Result<u32, NotJson> {
        let from = self.at + 1;
        let digits = self.text.as_bytes().get(from..from + ESCAPE_DIGITS);
        let Some(digits) = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)) else {
            return self.wrong();
        };
        let digit = |code, byte: &u8| code * 16 + char::from(*byte).to_digit(16).unwrap_or(0);
        self.at = from + ESCAPE_DIGITS;
        Ok(digits.iter().fold(0, digit))
    }
}

/// Keeps the last value of each key, at the key's first place.
fn each_key_once(entries: Vec<(String, Json)>) -> Vec<(String, Json)> {
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).all(|pair| pair[0] != pair[1]) {
        return entries;
    }
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<(String, Json)> = Vec::new();
    for (key, value) in entries {
        match places.get(&key) {
            Some(place) => kept[*place].1 = value,
            None => {
                places.insert(key.clone(), kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}
