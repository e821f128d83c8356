//! Numbers as text: integers, doubles, and what is too exact for either.

use moorline_dialects::thingsboard::{
    decimal::{PLAIN_DIGITS_MAX, is_plain, truncated, value},
    invalid::Invalid,
    values::Value,
};
use proptest::prelude::*;

use super::support::text;

#[test]
fn how_it_is_written_decides_what_it_is() {
    let (long, double) = (Value::Long, Value::Double);
    #[rustfmt::skip]
    let table = [
        ("0",                        long(0)),
        ("-0",                       long(0)),
        ("42",                       long(42)),
        ("9223372036854775807",      long(i64::MAX)),
        ("-9223372036854775808",     long(i64::MIN)),
        ("9223372036854775808",      text("9223372036854775808")),
        ("-9223372036854775809",     text("-9223372036854775809")),
        ("42.0",                     double(42.0)),
        ("-0.0",                     double(0.0)),
        ("25.5",                     double(25.5)),
        ("0.1234567890123456",       double(0.123_456_789_012_345_6)),
        ("0.12345678901234567",      text("0.12345678901234567")),
        ("0.00000000000000000",      text("0.00000000000000000")),
        ("-0.00000000000000000",     text("0.00000000000000000")),
        ("1e3",                      long(1000)),
        ("1E+3",                     long(1000)),
        ("1.5e3",                    long(1500)),
        ("1500e-2",                  long(15)),
        ("0e99999999999999999999",   long(0)),
        ("1e18",                     long(1_000_000_000_000_000_000)),
        ("1e19",                     text("10000000000000000000")),
        ("-1.25e20",                 text("-125000000000000000000")),
        ("1.5e0",                    double(1.5)),
        ("15e-1",                    double(1.5)),
        ("1e-20",                    double(1e-20)),
        ("1e-99999999999999999999",  double(0.0)),
        ("-1e-400",                  double(0.0)),
        ("2.50e1",                   long(25)),
        ("2.55e1",                   double(25.5)),
        // Not JSON, but texts that are taken as numbers.
        ("007",                      long(7)),
        ("-007.5",                   double(-7.5)),
        (".5",                       double(0.5)),
        ("00123456789012345678901",  text("123456789012345678901")),
        ("00.12345678901234567",     text("0.12345678901234567")),
    ];
    for (number, expected) in table {
        assert_eq!(value(number), Ok(expected), "{number}");
    }
    let zeros = "0".repeat(400);
    assert_eq!(value(&format!("1{zeros}.5")), Ok(text(&format!("1{zeros}.5"))), "no infinity");
    assert_eq!(value(&format!("1{zeros}")), Ok(text(&format!("1{zeros}"))));
}

#[test]
fn an_exponent_does_not_take_more_memory_than_it_may() {
    let fits = format!("1e{PLAIN_DIGITS_MAX}");
    assert_eq!(value(&fits), Ok(text(&format!("1{}", "0".repeat(PLAIN_DIGITS_MAX)))));
    for number in ["1e1025", "1e999999999", "-1.5e99999999999999999999"] {
        assert_eq!(value(number), Err(Invalid::Number), "{number}");
    }
}

#[test]
fn plain_numbers_have_no_exponent_and_no_sign_but_minus() {
    for number in ["0", "007", "-1", "1.5", "-0.5", ".5", "-.5"] {
        assert!(is_plain(number), "{number}");
    }
    #[rustfmt::skip]
    let others = [
        "", "-", ".", "-.", "5.", "1.2.3", "+1", "1e3", "0x10", " 1", "1 ", "1,5", "--1", "1-", "NaN", "٣",
    ];
    for text in others {
        assert!(!is_plain(text), "{text}");
    }
}

#[test]
fn a_time_is_cut_off_at_its_point() {
    #[rustfmt::skip]
    let table = [
        ("1451649600512",          Some(1_451_649_600_512)),
        ("1795227218578.032",      Some(1_795_227_218_578)),
        ("1795227218578.999",      Some(1_795_227_218_578)),
        ("-1.9",                   Some(-1)),
        ("0.9",                    Some(0)),
        ("1.451649600512E12",      Some(1_451_649_600_512)),
        ("1.4516496005129E12",     Some(1_451_649_600_512)),
        ("1e3",                    Some(1000)),
        ("1e-3",                   Some(0)),
        ("12345e-3",               Some(12)),
        ("0e999999999999",         Some(0)),
        ("9223372036854775807.9",  Some(i64::MAX)),
        ("-9223372036854775808",   Some(i64::MIN)),
        ("9223372036854775808",    None),
        ("1e19",                   None),
        ("1e999999999",            None),
        ("1e99999999999999999999", None),
    ];
    for (number, expected) in table {
        assert_eq!(truncated(number), expected, "{number}");
    }
}

proptest! {
    #[test]
    fn integers_are_longs_however_they_are_written(number: i64, zeros in 0usize..3) {
        prop_assert_eq!(value(&number.to_string()), Ok(Value::Long(number)));
        prop_assert_eq!(value(&format!("{number}.{}e0", "0".repeat(zeros + 1))), Ok(Value::Long(number)));
        prop_assert_eq!(truncated(&number.to_string()), Some(number));
    }

    #[test]
    fn no_number_makes_it_panic(number in r"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,21})?") {
        drop(value(&number));
        // A sign changes nothing but the sign.
        let positive = number.trim_start_matches('-');
        if let (Some(cut), Some(other)) = (truncated(&number), truncated(positive)) {
            prop_assert_eq!(cut.abs(), other);
        }
    }
}
