//! Moments as text, written and read.

use moorline_core::{UnixMillis, calendar::rfc3339};
use moorline_dialects::moments::parse;
use proptest::prelude::*;

#[test]
fn moments_have_one_form_and_are_read_in_several() {
    #[rustfmt::skip]
    let table = [
        ("1970-01-01T00:00:00.000Z", 0),
        ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
        ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
    ];
    for (text, ms) in table {
        assert_eq!(rfc3339(UnixMillis(ms)), text);
        assert_eq!(parse(text), Some(UnixMillis(ms)));
    }
    let at = Some(UnixMillis(1_767_323_045_000));
    for text in [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05.0",
        "2026-01-02T03:04:05.000000+00:00",
        "2026-01-02T05:34:05+02:30",
        "2026-01-01T22:04:05-0500",
        "2026-01-01T22:04:05-05",
    ] {
        assert_eq!(parse(text), at, "{text}");
    }
    let long = format!("2026-01-02T03:04:05.{}Z", "0".repeat(40));
    for text in [
        "",
        "now",
        "2026-01-02",
        "2026-01-02T",
        "2026-13-02T03:04:05Z",
        "2026-02-29T03:04:05Z",
        "2026-01-00T03:04:05Z",
        "2026-01-02T24:04:05Z",
        "2026-01-02T03:60:05Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.xZ",
        "2026-01-02T03Z",
        "2026-01-02T03:04:05:06Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "26-01-02T03:04:05Z",
        "+026-01-02T03:04:05Z",
        "2026-1-2T03:04:05Z",
        "2026-01-02T03:04:05+x",
        "2026-01-02T03:04:05é",
        &long,
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn moments_are_read_as_they_were_written(ms in 0_u64..253_402_300_800_000) {
        prop_assert_eq!(parse(&rfc3339(UnixMillis(ms))), Some(UnixMillis(ms)));
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[0-9TZ:.+ é-]{0,45}") {
        prop_assert!(parse(&text).is_none_or(|at| parse(&rfc3339(at)) == Some(at)));
    }
}
