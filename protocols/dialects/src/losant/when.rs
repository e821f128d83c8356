//! When something was: the forms in which devices write times (§2.3).
//!
//! Invariant: **what can't be read as a time is now**, and what is too old or too far ahead is no time. Checked by
//! `tests/it/losant/when.rs`.

use moorline_core::calendar;
use serde_json::Value;

use crate::moments;

/// A number below it is seconds since 1970, one from it on milliseconds: 1e11 ms are in 1973, 1e11 s in the year 5138.
const SECONDS_BELOW: f64 = 1e11;
/// How old what a device reports may be: 30 days.
pub const AGE_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// How far ahead: a day.
pub const AHEAD_MS_MAX: i64 = 24 * 3_600_000;
/// Bytes of a time as text.
const TEXT_BYTES_MAX: usize = 64;
const MS_PER_S: f64 = 1_000.0;

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It was not said.
    Now,
    /// So many milliseconds ago.
    Ago(i64),
    /// Milliseconds since 1970.
    At(i64),
}

impl When {
    /// Reads a time.
    #[must_use]
    pub fn read(said: Option<&Value>) -> Self {
        match said {
            None | Some(Value::Null | Value::Bool(_) | Value::Array(_)) => Self::Now,
            Some(Value::Number(number)) => number.as_f64().map_or(Self::Now, Self::of_number),
            Some(Value::String(text)) => text_ms(text).map_or(Self::Now, Self::At),
            Some(Value::Object(object)) => match object.get("$date") {
                Some(Value::Object(inner)) => {
                    let long = inner.get("$numberLong").and_then(Value::as_str);
                    long.and_then(|long| long.parse().ok()).map_or(Self::Now, Self::At)
                }
                // Milliseconds, whatever their number.
                Some(Value::Number(ms)) => ms.as_f64().map_or(Self::Now, |ms| Self::At(whole(ms))),
                Some(date) => Self::read(Some(date)),
                None => Self::Now,
            },
        }
    }

    fn of_number(number: f64) -> Self {
        if number < 0.0 {
            return Self::Ago(whole(-number));
        }
        Self::At(whole(if number < SECONDS_BELOW { number * MS_PER_S } else { number }))
    }

    /// As milliseconds since 1970.
    #[must_use]
    pub fn ms(self, now_ms: i64) -> i64 {
        match self {
            Self::Now => now_ms,
            Self::Ago(ms) => now_ms.saturating_sub(ms),
            Self::At(ms) => ms,
        }
    }

    /// The same, if what was reported then is still to be kept.
    #[must_use]
    pub fn kept_ms(self, now_ms: i64) -> Option<i64> {
        let at = self.ms(now_ms);
        let range = now_ms.saturating_sub(AGE_MS_MAX)..=now_ms.saturating_add(AHEAD_MS_MAX);
        range.contains(&at).then_some(at)
    }
}

/// The whole number next to it.
#[allow(clippy::cast_possible_truncation, reason = "a cast saturates, and so far away is no time")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

/// What JavaScript's `Date.parse` reads, as far as devices write it: ISO 8601, a date alone, and the forms of mail and of `Date`
/// itself (`Sun, 06 Nov 1994 08:49:37 GMT`, `Sun Nov 06 1994 08:49:37 GMT+0000 (UTC)`). Without a zone it is UTC.
fn text_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let iso = moments::parse(text).or_else(|| moments::parse(&format!("{text}T00:00:00Z")));
    iso.and_then(|at| i64::try_from(at.0).ok()).or_else(|| words_ms(text))
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Letters of a name of a month or a day that count.
const NAME_CHARS: usize = 3;

fn words_ms(text: &str) -> Option<i64> {
    let (mut month, mut day, mut year) = (None, None, None);
    let (mut clock, mut zone_ms) = ((0, 0, 0), 0);
    let bare = text.split('(').next().unwrap_or_default();
    for word in bare.split([' ', ',']).filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        let name = lower.get(..NAME_CHARS).unwrap_or_default();
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(at) = MONTHS.iter().position(|month| *month == name) {
            month = u8::try_from(at + 1).ok();
        } else if DAYS.contains(&name) {
            // It says nothing more.
        } else if word.contains(':') {
            clock = clock_of(word)?;
        } else if digits && word.len() == 4 {
            year = word.parse::<i32>().ok();
        } else if digits && word.len() <= 2 {
            day = word.parse::<u8>().ok();
        } else {
            zone_ms = zone_of(&lower)?;
        }
    }
    calendar::unix_ms((year?, month?, day?), clock).map(|ms| ms - zone_ms)
}

fn clock_of(word: &str) -> Option<(u8, u8, u8)> {
    let mut parts = word.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    parts.next().is_none().then_some((hour, minute, second))
}

/// `gmt`, `utc`, `z`, `+0100`, `gmt+0100`, `-05:00`.
fn zone_of(word: &str) -> Option<i64> {
    let rest = ["gmt", "utc", "z"].iter().find_map(|name| word.strip_prefix(name)).unwrap_or(word);
    if rest.is_empty() {
        return Some(0);
    }
    let (sign, digits) = (rest.get(..1)?, rest.get(1..)?.replace(':', ""));
    let fits = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = digits.parse().ok().filter(|_| fits)?;
    let ms = (number / 100 * 60 + number % 100) * 60_000;
    match sign {
        "+" => Some(ms),
        "-" => Some(-ms),
        _ => None,
    }
}
