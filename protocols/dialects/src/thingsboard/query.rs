//! Queries of URLs, and percent signs.

use std::borrow::Cow;

use thiserror::Error;

/// The longest query that is looked at, in bytes.
pub const QUERY_BYTES_MAX: usize = 64 * 1024;

/// The parameters of a query. Of one that stands twice, the first counts; of a list all do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// What is wrong with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WrongParameter {
    /// It is longer than [`QUERY_BYTES_MAX`].
    #[error("the query is too long")]
    TooLong,
    /// A parameter is not what it should be.
    #[error("{0} is not valid")]
    Value(&'static str),
    /// A parameter is missing.
    #[error("{0} is needed")]
    Missing(&'static str),
}

impl<'a> Query<'a> {
    /// Reads a query, without its `?`.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn of(query: &'a str) -> Result<Self, WrongParameter> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(WrongParameter::TooLong);
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decoded(name), form_decoded(value))
        });
        Ok(Self(pairs.collect()))
    }

    /// A parameter that says something.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// A list with commas. One that stands several times goes on where it ended before: the vendor's SDK says lists so.
    #[must_use]
    pub fn list(&self, name: &str) -> Option<Cow<'_, str>> {
        let all = self.0.iter().filter(|(other, value)| other == name && !value.is_empty());
        let mut all = all.map(|(_, value)| &**value);
        let first = all.next()?;
        Some(all.fold(Cow::Borrowed(first), |list, more| Cow::Owned(format!("{list},{more}"))))
    }

    /// A parameter that is no less than 0.
    ///
    /// # Errors
    ///
    /// It is no such number.
    pub fn count(&self, name: &'static str) -> Result<Option<u64>, WrongParameter> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| WrongParameter::Value(name))
    }

    /// A time, in milliseconds since the epoch.
    ///
    /// # Errors
    ///
    /// It is no integer.
    pub fn time(&self, name: &'static str) -> Result<Option<i64>, WrongParameter> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| WrongParameter::Value(name))
    }

    /// A parameter that is true or false; `false` if it is not there.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn flag(&self, name: &'static str) -> Result<bool, WrongParameter> {
        self.flag_or(name, false)
    }

    /// A parameter that is true or false, and what it is if it is not there.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn flag_or(&self, name: &'static str, usual: bool) -> Result<bool, WrongParameter> {
        match self.get(name) {
            None => Ok(usual),
            Some(text) => truth(text).ok_or(WrongParameter::Value(name)),
        }
    }
}

/// As the original reads it, whose SDK for Python says `True`.
fn truth(text: &str) -> Option<bool> {
    let is_one = |of: [&str; 4]| of.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_one(["true", "on", "yes", "1"]) {
        return Some(true);
    }
    is_one(["false", "off", "no", "0"]).then_some(false)
}

/// A part of a query: `+` is a space there.
fn form_decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        Cow::Owned(decoded(&text.replace('+', " ")).into_owned())
    } else {
        decoded(text)
    }
}

/// Two hexadecimal digits after a `%`.
const ESCAPE_DIGITS: usize = 2;

/// Percent signs taken out (RFC 3986, 2.1). What is no escape stays; what is no UTF-8 then is shown as U+FFFD.
pub(in crate::thingsboard) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..=at + ESCAPE_DIGITS).filter(|_| bytes[at] == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 1 + ESCAPE_DIGITS;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}
