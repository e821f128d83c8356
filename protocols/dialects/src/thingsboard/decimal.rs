//! Decimal numbers as text: which of them are integers, doubles, or too exact for either.
//!
//! Invariant: nothing here is as large as a number is, only as its text is, up to [`PLAIN_DIGITS_MAX`]: `1e999999999`
//! takes eleven bytes. Checked by `tests/it/thingsboard/decimal.rs`.

use super::{invalid::Invalid, values::Value};

/// The most digits that an exponent may stand for when a number is written out.
pub const PLAIN_DIGITS_MAX: usize = 1_024;
/// More decimals than these are not kept in a double: the number stays text.
pub const DOUBLE_DECIMALS_MAX: usize = 16;

/// The parts of a number: `-12.50e3` is negative, `12`, `50`, 3.
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: Option<&'a str>,
    exponent: Option<&'a str>,
}

impl<'a> Decimal<'a> {
    fn of(text: &'a str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        Self { negative, whole, fraction, exponent }
    }

    /// Without an exponent, leading zeros, and the sign of zero.
    fn plain(&self, whole: &str, fraction: &str) -> String {
        let whole = whole.trim_start_matches('0');
        let is_zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
        let sign = if self.negative && !is_zero { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}")
    }

    /// The digits of an integer: the number's, if it is one.
    fn integer(&self) -> Result<Option<String>, Invalid> {
        let digits = format!("{}{}", self.whole, self.fraction.unwrap_or_default());
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Ok(Some("0".to_owned()));
        }
        // An exponent of more digits than an i64 has is out of every range.
        let exponent = self.exponent.map(|exponent| (exponent.starts_with('-'), exponent.parse()));
        let exponent: i64 = match exponent {
            None => 0,
            Some((_, Ok(exponent))) => exponent,
            Some((true, Err(_))) => return Ok(None),
            Some((false, Err(_))) => return Err(Invalid::Number),
        };
        // value = significant * 10^zeros
        let cut = digits.len() - significant.len();
        let decimals = self.fraction.map_or(0, str::len);
        let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let zeros = exponent.saturating_add(length(cut)).saturating_sub(length(decimals));
        let Ok(zeros) = usize::try_from(zeros) else { return Ok(None) };
        if self.exponent.is_some() && zeros > PLAIN_DIGITS_MAX {
            return Err(Invalid::Number);
        }
        Ok(Some(self.plain(&format!("{significant}{}", "0".repeat(zeros)), "")))
    }
}

/// What a number of JSON is kept as: how it is written decides.
///
/// # Errors
///
/// [`Invalid::Number`].
pub fn value(text: &str) -> Result<Value, Invalid> {
    let decimal = Decimal::of(text);
    if let (Some(fraction), None) = (decimal.fraction, decimal.exponent) {
        let plain = decimal.plain(decimal.whole, fraction);
        return Ok(match plain.parse::<f64>() {
            Ok(value) if fraction.len() <= DOUBLE_DECIMALS_MAX && value.is_finite() => {
                Value::Double(value)
            }
            _ => Value::Text(plain),
        });
    }
    Ok(match decimal.integer()? {
        Some(integer) => match integer.parse() {
            Ok(value) => Value::Long(value),
            Err(_) => Value::Text(integer),
        },
        // It has decimals, so it is infinite only if its text has some hundred digits before them.
        None => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Value::Double(if value == 0.0 { 0.0 } else { value }),
            _ => Value::Text(text.to_owned()),
        },
    })
}

/// Whether a text is a plain number: an optional `-`, digits, one `.` at most and not at the end.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let points = digits.bytes().filter(|byte| *byte == b'.').count();
    let allowed = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    points <= 1
        && digits.ends_with(|last: char| last.is_ascii_digit())
        && digits.bytes().all(allowed)
}

/// A number as an integer, cut off at its point; `None` if it fits no `i64`.
#[must_use]
pub fn truncated(text: &str) -> Option<i64> {
    let decimal = Decimal::of(text);
    let fraction = decimal.fraction.unwrap_or_default();
    let exponent: i64 = match decimal.exponent {
        None => 0,
        Some(exponent) => exponent.parse().ok()?,
    };
    let digits = format!("{}{fraction}", decimal.whole);
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    let whole = i64::try_from(decimal.whole.len()).ok()?.checked_add(exponent)?;
    let Ok(whole) = usize::try_from(whole) else { return Some(0) };
    if whole > PLAIN_DIGITS_MAX.max(digits.len()) {
        return None;
    }
    let kept = &digits[..whole.min(digits.len())];
    let zeros = "0".repeat(whole - kept.len());
    let sign = if decimal.negative { "-" } else { "" };
    match format!("{kept}{zeros}").as_str() {
        "" => Some(0),
        digits => format!("{sign}{digits}").parse().ok(),
    }
}
