//! Moments as people write them: dates of the Gregorian calendar, in UTC.
//!
//! Invariant: what is written is read as the same moment. Checked by `moments_are_read_as_they_were_written`. What there is no date
//! for (years beyond 9999) is written as the last that there is.

use ::time::{Date, Month, OffsetDateTime, Time};

use crate::UnixMillis;

/// Nanoseconds of a millisecond.
const MS_NS: i128 = 1_000_000;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn moment(at: UnixMillis) -> OffsetDateTime {
    let last = Date::MAX.with_time(Time::MAX).assume_utc();
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * MS_NS).unwrap_or(last)
}

/// `2026-01-02T03:04:05.678Z` (RFC 3339; also an ISO 8601 form)
#[must_use]
pub fn rfc3339(at: UnixMillis) -> String {
    let at = moment(at);
    let ((year, month, day), (hour, minute, second, ms)) =
        (at.to_calendar_date(), at.to_hms_milli());
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7)
#[must_use]
pub fn http_date(at: UnixMillis) -> String {
    let at = moment(at);
    let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.to_hms());
    let weekday = DAYS[usize::from(at.weekday().number_days_from_monday())];
    let month = MONTHS[usize::from(u8::from(month)) - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Milliseconds since 1970 (before it: less than 0) of a day and a time of it; none if there is no such moment. A leap second is
/// the one after it.
#[must_use]
pub fn unix_ms(
    (year, month, day): (i32, u8, u8),
    (hour, minute, second): (u8, u8, u8),
) -> Option<i64> {
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let (second, leap) = if second == 60 { (59, 1) } else { (second, 0) };
    let at = date.with_hms(hour, minute, second).ok()?.assume_utc();
    Some((at.unix_timestamp() + leap) * 1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_as_each_reader_wants_them() {
        #[rustfmt::skip]
        let table = [
            (0,                   "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000,     "1994-11-06T08:49:37.000Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399_000,     "2000-02-28T23:59:59.000Z", "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_868_799_999,     "2000-02-29T23:59:59.999Z", "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_709_164_800_000,   "2024-02-29T00:00:00.000Z", "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599_000,   "2024-12-31T23:59:59.000Z", "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_790_000_000_123,   "2026-09-21T14:13:20.123Z", "Mon, 21 Sep 2026 14:13:20 GMT"),
            (4_107_542_400_000,   "2100-03-01T00:00:00.000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX,            "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (ms, json, http) in table {
            assert_eq!(rfc3339(UnixMillis(ms)), json);
            assert_eq!(http_date(UnixMillis(ms)), http);
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        let table = [
            ((2026, 1, 2), (3, 4, 5), Some(1_767_323_045_000)),
            ((2024, 2, 29), (23, 59, 60), Some(1_709_251_200_000)),
            ((1969, 12, 31), (23, 59, 59), Some(-1_000)),
            ((2026, 2, 29), (0, 0, 0), None),
            ((2026, 13, 1), (0, 0, 0), None),
            ((2026, 1, 0), (0, 0, 0), None),
            ((2026, 1, 1), (24, 0, 0), None),
            ((2026, 1, 1), (0, 0, 61), None),
            ((10_000, 1, 1), (0, 0, 0), None),
        ];
        for (date, time, expected) in table {
            assert_eq!(unix_ms(date, time), expected, "{date:?} {time:?}");
        }
    }

    proptest! {
        #[test]
        fn moments_are_read_as_they_were_written(second in 0_u64..253_402_300_800) {
            let ms = second * 1_000;
            let text = rfc3339(UnixMillis(ms));
            let part = |range: std::ops::Range<usize>| text[range].parse::<u8>().unwrap();
            let date = (text[..4].parse().unwrap(), part(5..7), part(8..10));
            let read = unix_ms(date, (part(11..13), part(14..16), part(17..19)));
            prop_assert_eq!(read, i64::try_from(ms).ok());
        }
    }
}
