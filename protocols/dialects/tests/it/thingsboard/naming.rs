//! Names of devices out of common names.

use moorline_dialects::thingsboard::naming::{NamePattern, PATTERN_BYTES_MAX};

#[test]
fn the_first_group_is_the_name_or_all_that_matches() {
    #[rustfmt::skip]
    let table = [
        (r"(.*)\.example\.com", "dev-1.example.com", Some("dev-1")),
        (r"^[^.]+",            "dev-1.example.com", Some("dev-1")),
        (r".*",                "dev-1",             Some("dev-1")),
        (r"id=(\w+)|(\w+)",    "dev",               Some("dev")),
        (r"(\d+)$",            "dev-42",            Some("42")),
        (r"(\d+)$",            "dev",               None),
        (r"(.*)\.com",         ".com",              None),
        (r"x*",                "dev",               None),
    ];
    for (pattern, common_name, expected) in table {
        let pattern = NamePattern::read(pattern).unwrap();
        assert_eq!(pattern.device_name(common_name), expected, "{pattern:?} {common_name}");
    }
}

#[test]
fn what_is_no_pattern_is_refused() {
    let long = "a".repeat(PATTERN_BYTES_MAX + 1);
    for pattern in ["(", "[", "a{99999}{99999}", r"(?=a)", r"(a)\1", &long] {
        assert!(NamePattern::read(pattern).is_err(), "{pattern:.40}");
    }
}
