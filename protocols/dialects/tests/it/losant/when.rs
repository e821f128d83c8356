//! Each form of a time, and what is none.

use moorline_dialects::losant::when::{AGE_MS_MAX, AHEAD_MS_MAX, When};
use serde_json::{Value, json};

use super::NOW;

#[test]
fn times_have_many_forms() {
    #[rustfmt::skip]
    let table = [
        (json!({ "$date": "2026-01-02T03:04:05.678Z" }),  When::At(NOW)),
        (json!({ "$date": "2026-01-02T04:04:05.678+01:00" }), When::At(NOW)),
        (json!({ "$date": NOW }),                         When::At(NOW)),
        (json!({ "$date": { "$numberLong": NOW.to_string() } }), When::At(NOW)),
        (json!(NOW),                                      When::At(NOW)),
        (json!(1_767_323_045),                            When::At(1_767_323_045_000)),
        (json!(1_767_323_045.678),                        When::At(NOW)),
        (json!(99_999_999_999_i64),                       When::At(99_999_999_999_000)),
        (json!(100_000_000_000_i64),                      When::At(100_000_000_000)),
        (json!(0),                                        When::At(0)),
        (json!(-1500),                                    When::Ago(1500)),
        (json!(-0.4),                                     When::Ago(0)),
        (json!("2026-01-02T03:04:05.678Z"),               When::At(NOW)),
        (json!("2026-01-02 03:04:05.678"),                When::At(NOW)),
        (json!("2026-01-02"),                             When::At(1_767_312_000_000)),
        (json!("Sun, 06 Nov 1994 08:49:37 GMT"),          When::At(784_111_777_000)),
        (json!("Sun Nov 06 1994 09:49:37 GMT+0100 (CET)"), When::At(784_111_777_000)),
        (json!("6 Nov 1994 08:49:37 -0000"),              When::At(784_111_777_000)),
        (json!("November 6, 1994 08:49:37"),              When::At(784_111_777_000)),
        (json!("Nov 6 1994"),                             When::At(784_080_000_000)),
        (json!(null),                                     When::Now),
        (json!(true),                                     When::Now),
        (json!([1]),                                      When::Now),
        (json!({}),                                       When::Now),
        (json!({ "$date": "soon" }),                      When::Now),
        (json!({ "$date": { "$numberLong": "x" } }),      When::Now),
        (json!("tomorrow"),                               When::Now),
        (json!("2026-02-30T00:00:00Z"),                   When::Now),
        (json!("Nov 31 1994"),                            When::Now),
        (json!("1767323045678"),                          When::Now),
        (json!("x".repeat(65)),                           When::Now),
        (json!("été"),                                    When::Now),
    ];
    for (said, expected) in table {
        assert_eq!(When::read(Some(&said)), expected, "{said}");
    }
    assert_eq!(When::read(None), When::Now);
}

#[test]
fn what_is_too_old_or_too_far_ahead_is_not_kept() {
    let kept = |said: Value| When::read(Some(&said)).kept_ms(NOW);
    #[rustfmt::skip]
    let table = [
        (json!(null),                       Some(NOW)),
        (json!(-1000),                      Some(NOW - 1_000)),
        (json!({ "$date": NOW - AGE_MS_MAX }),       Some(NOW - AGE_MS_MAX)),
        (json!({ "$date": NOW - AGE_MS_MAX - 1 }),   None),
        (json!({ "$date": NOW + AHEAD_MS_MAX }),     Some(NOW + AHEAD_MS_MAX)),
        (json!({ "$date": NOW + AHEAD_MS_MAX + 1 }), None),
        (json!(-(AGE_MS_MAX + 1)),          None),
        (json!(-1e300),                     None),
        (json!(1e300),                      None),
        (json!(0),                          None),
    ];
    for (said, expected) in table {
        assert_eq!(kept(said.clone()), expected, "{said}");
    }
}
