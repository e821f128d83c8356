//! Moments as text: ISO 8601, to the millisecond, as several platforms and their devices write them.
//!
//! Reading is lenient, because devices leave out fractions, seconds' fractions of any length, and the zone.
//!
//! Invariant: what is written is read as the same moment. Checked by `moments_are_read_as_they_were_written`.

use moorline_core::{UnixMillis, calendar};

/// The most bytes of a moment that is read.
const BYTES_MAX: usize = 40;
/// Before it no device wrote anything.
const YEAR_MIN: i32 = 1_970;

/// Reads a moment from 1970 on: a date, `T` or a space, a time, and `Z`, `+hh:mm`, `-hh:mm` or nothing (UTC).
#[must_use]
pub fn parse(text: &str) -> Option<UnixMillis> {
    if text.len() > BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let date = self::date(date)?;
    let zone = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
    let mut parts = time.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let second = parts.next().map_or(Some(0), number)?;
    if parts.next().is_some()
        || fraction.is_empty()
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let ms: i64 = format!("{:0<3}", fraction.get(..3).unwrap_or(fraction)).parse().ok()?;
    let at = calendar::unix_ms(date, (hour, minute, second))? + ms;
    u64::try_from(at - offset_ms(zone)?).ok().map(UnixMillis)
}

/// Exactly two digits.
fn number(text: &str) -> Option<u8> {
    let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

/// Year, month and day, of which the calendar says whether there is such a day.
fn date(text: &str) -> Option<(i32, u8, u8)> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let year = year.parse().ok().filter(|year| digits && *year >= YEAR_MIN)?;
    parts.next().is_none().then_some((year, number(month)?, number(day)?))
}

fn offset_ms(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let (hours, minutes) = rest.split_once(':').or_else(|| rest.split_at_checked(2))?;
    let minutes = if minutes.is_empty() { "00" } else { minutes };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let ms = (i64::from(hours) * 60 + i64::from(minutes)) * 60_000;
    match sign {
        "+" => Some(ms),
        "-" => Some(-ms),
        _ => None,
    }
}
