//! Moments as HTTP writes them: `Sun, 06 Nov 1994 08:49:37 GMT`.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_S: u64 = 24 * 60 * 60;
/// Days of 400 years, after which the calendar repeats itself.
const ERA_DAYS: u64 = 146_097;
/// Days from the first of March of the year 0 to the first day of 1970.
const EPOCH_DAYS: u64 = 719_468;

/// Seconds since 1970, in words.
pub(crate) fn http_date(unix_s: u64) -> String {
    let (days, second) = (unix_s / DAY_S, unix_s % DAY_S);
    let (year, month, day) = date(days);
    let weekday = DAYS[index(days % 7)];
    let month = MONTHS[index(month - 1)];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month and day. Counted in years that begin with March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    // What leap days have put off: one in 4 years, none in 100, one in 400.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, however they begin.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("below 12")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_http_wants_them() {
        #[rustfmt::skip]
        let table = [
            (0,              "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777,    "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399,    "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400,    "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800,    "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800,  "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599,  "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_790_000_000,  "Mon, 21 Sep 2026 14:13:20 GMT"),
            (4_107_542_400,  "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (unix_s, expected) in table {
            assert_eq!(http_date(unix_s), expected);
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let (mut year, mut month, mut day) = date(0);
        for days in 1..=ERA_DAYS {
            let next = date(days);
            let same_month = next == (year, month, day + 1);
            let next_month = next == (year, month + 1, 1);
            let next_year = next == (year + 1, 1, 1) && (month, day) == (12, 31);
            assert!(same_month || next_month || next_year, "{days}: {next:?}");
            assert!(next.2 <= 31);
            (year, month, day) = next;
        }
        assert_eq!((year, month, day), (2370, 1, 1));
    }
}
