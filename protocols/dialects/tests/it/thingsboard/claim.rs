//! Claims: what a device says, until when it counts, what a customer is told.

use moorline_dialects::thingsboard::claim::{
    Claim, Claimed, DURATION_MS_DEFAULT, SECRET_BYTES_MAX, Standing, claimed, is_allowed,
};

use super::support::{NOW_MS, json};

#[test]
fn both_parts_may_be_missing() {
    let claim = |secret: &str, duration_ms| Claim { secret_key: secret.to_owned(), duration_ms };
    #[rustfmt::skip]
    let table = [
        (r#"{"secretKey":"s","durationMs":60000}"#,  claim("s", Some(60_000))),
        (r#"{"durationMs":60000.7}"#,                claim("", Some(60_000))),
        (r#"{"secretKey":"s"}"#,                     claim("s", None)),
        (r#"{"secretKey":null,"durationMs":null}"#,  claim("", None)),
        (r#"{"durationMs":0}"#,                      claim("", None)),
        (r#"{"durationMs":-5}"#,                     claim("", None)),
        ("{}",                                       claim("", None)),
    ];
    for (written, expected) in table {
        assert_eq!(Claim::read(&json(written)), Ok(expected), "{written}");
    }
    let long = format!("{{\"secretKey\":\"{}\"}}", "s".repeat(SECRET_BYTES_MAX + 1));
    let table =
        ["[]", "1", r#"{"secretKey":1}"#, r#"{"durationMs":"1"}"#, r#"{"durationMs":1e99}"#, &long];
    for written in table {
        assert!(Claim::read(&json(written)).is_err(), "{written}");
    }
}

#[test]
fn a_claim_ends() {
    let ends = |duration_ms| {
        Claim { secret_key: String::new(), duration_ms }.ends_ms(NOW_MS, DURATION_MS_DEFAULT)
    };
    assert_eq!(ends(Some(5)), NOW_MS + 5);
    assert_eq!(ends(None), NOW_MS + 86_400_000);
    assert_eq!(ends(Some(i64::MAX)), i64::MAX);
}

#[test]
fn customers_are_told_and_may_be_forbidden() {
    assert_eq!(Claimed::Success.answer(), (200, "SUCCESS"));
    assert_eq!(Claimed::Failure.answer(), (400, "FAILURE"));
    assert_eq!(Claimed::Already.answer(), (400, "CLAIMED"));
    #[rustfmt::skip]
    let table = [
        (true, None, true), (true, Some(false), true), (false, None, false), (false, Some(false), false), (false, Some(true), true),
    ];
    for (by_default, attribute, expected) in table {
        assert_eq!(is_allowed(by_default, attribute), expected, "{by_default} {attribute:?}");
    }
}

#[test]
fn a_wish_is_granted_once_in_time_and_with_the_secret() {
    let standing = |ends_ms, secret_is_known| Some(Standing { ends_ms, secret_is_known });
    #[rustfmt::skip]
    let table = [
        (false, None,                Claimed::Failure),
        (false, standing(10, true),  Claimed::Success),
        (false, standing(10, false), Claimed::Failure),
        (false, standing(9, true),   Claimed::Failure),
        (true,  standing(10, true),  Claimed::Already),
        (true,  None,                Claimed::Already),
    ];
    for (owned, standing, expected) in table {
        assert_eq!(claimed(owned, standing, 9), expected, "{owned} {standing:?}");
    }
}
