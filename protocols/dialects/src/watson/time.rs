//! Moments as text: ISO 8601 in UTC, to the millisecond, as presence, notices and the management API write them.
//!
//! Reading is lenient, because devices and the Python SDK leave out fractions, seconds' fractions of any length, and the zone.
//!
//! Invariant: what is written is read as the same moment. Checked by `moments_are_read_as_they_were_written`.

use moorline_core::UnixMillis;

const DAY_MS: u64 = 86_400_000;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: u64 = 146_097;
/// The most bytes of a moment that is read.
const BYTES_MAX: usize = 40;
/// The last year that is read.
const YEAR_MAX: u64 = 9_999;

/// `2026-01-02T03:04:05.678Z`
#[must_use]
pub fn iso8601(at: UnixMillis) -> String {
    let (days, rest) = (at.0 / DAY_MS + EPOCH_DAYS, at.0 % DAY_MS);
    // In eras of 400 years that begin in March: a leap day is the last of its year then.
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (year + 400 * era, month + 3),
        _ => (year + 400 * era + 1, month - 9),
    };
    let (seconds, ms) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Reads a moment from 1970 on: a date, `T` or a space, a time, and `Z`, `+hh:mm`, `-hh:mm` or nothing (UTC).
#[must_use]
pub fn parse(text: &str) -> Option<UnixMillis> {
    if text.len() > BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let days = days(date)?;
    let zone = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
    let mut parts = time.split(':');
    let hour = number(parts.next()?, 23)?;
    let minute = number(parts.next()?, 59)?;
    // A leap second is the first one after it.
    let second = parts.next().map_or(Some(0), |second| number(second, 60))?;
    if parts.next().is_some()
        || fraction.is_empty()
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let ms: u64 = format!("{:0<3}", fraction.get(..3).unwrap_or(fraction)).parse().ok()?;
    let at =
        i64::try_from(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + ms).ok()?;
    let at = at.checked_sub(offset_ms(zone)?)?;
    u64::try_from(at).ok().map(UnixMillis)
}

/// Exactly two digits, at most `max`.
fn number(text: &str, max: u64) -> Option<u64> {
    let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| fits && *number <= max)
}

/// Days since 1970-01-01.
fn days(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let year: u64 = year.parse().ok().filter(|year| digits && (1_970..=YEAR_MAX).contains(year))?;
    let (month, day) = (number(month, 12)?, number(day, 31)?);
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || day == 0 || day > last {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let day = (153 * month + 2) / 5 + day - 1 + 365 * of_era + of_era / 4 - of_era / 100;
    Some(era * ERA_DAYS + day - EPOCH_DAYS)
}

fn offset_ms(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let (hours, minutes) = rest.split_once(':').or_else(|| rest.split_at_checked(2))?;
    let minutes = if minutes.is_empty() { "00" } else { minutes };
    let minutes = number(hours, 23)? * 60 + number(minutes, 59)?;
    let ms = i64::try_from(minutes * 60_000).expect("less than a day");
    match sign {
        "+" => Some(ms),
        "-" => Some(-ms),
        _ => None,
    }
}
