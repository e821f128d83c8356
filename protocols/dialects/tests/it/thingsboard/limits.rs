//! Rate limits: their notation, the bucket, and what a device is told.

use moorline_dialects::thingsboard::limits::{
    Bucket, Limit, RateLimits, SEGMENTS_MAX, SessionLimits,
};
use proptest::prelude::*;

fn limit(text: &str) -> Limit {
    Limit::read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_notation_is_read_and_written() {
    for text in ["", "1:1", "100:1,3000:60,7000:3600", "4294967295:4294967295"] {
        assert_eq!(limit(text).to_string(), text);
    }
    assert_eq!(limit(" 5 : 1 , 6:2").to_string(), "5:1,6:2");
    let many = ["1:1"; SEGMENTS_MAX + 1].join(",");
    #[rustfmt::skip]
    let table = [
        "1", ":", "1:", ":1", "0:1", "1:0", "-1:1", "1:-1", "1:1:1", "1:1,", ",1:1", "a:b", "1.5:1", "1:1;2:2",
        "4294967296:1", " ", &many,
    ];
    for text in table {
        assert!(Limit::read(text).is_err(), "{text}");
    }
}

#[test]
fn a_bucket_gives_its_capacity_at_once_and_refills_by_time() {
    #[rustfmt::skip]
    let table: [(&str, &[(u64, u64, bool)]); 5] = [
        ("",            &[(0, u64::MAX, true), (0, u64::MAX, true)]),
        ("2:1",         &[(0, 2, true), (0, 1, false), (499, 1, false), (500, 1, true), (500, 1, false), (1_500, 2, true)]),
        ("2:1",         &[(0, 3, false), (9_999, 3, false), (9_999, 2, true)]),
        // Both segments have to agree, and a refusal takes nothing of either.
        ("2:1,3:60",    &[(0, 2, true), (1_000, 2, false), (1_000, 1, true), (2_000, 1, false), (21_000, 1, true)]),
        // Time that runs backwards gives nothing, now or later.
        ("1:1",         &[(5_000, 1, true), (0, 1, false), (5_999, 1, false), (6_000, 1, true)]),
    ];
    for (text, steps) in table {
        let mut bucket = Bucket::new(limit(text), 0);
        for (now_ms, tokens, expected) in steps {
            assert_eq!(bucket.take(*tokens, *now_ms), *expected, "{text} {tokens} at {now_ms}");
        }
    }
}

#[test]
fn a_device_is_told_what_its_sdk_waits_for() {
    let rate_limits = RateLimits {
        messages: limit("200:1,6000:60"),
        telemetry_messages: limit("100:1"),
        telemetry_data_points: Limit::default(),
    };
    let mut limits = SessionLimits {
        payload_bytes_max: 65_536,
        inflight_max: 100,
        rate_limits: rate_limits.clone(),
        gateway_rate_limits: None,
    };
    let device = r#"{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":{"messages":"200:1,6000:60","telemetryMessages":"100:1","telemetryDataPoints":null}}"#;
    assert_eq!(limits.to_json().to_string(), device);
    limits.gateway_rate_limits = Some(RateLimits::default());
    let gateway = r#","gatewayRateLimits":{"messages":null,"telemetryMessages":null,"telemetryDataPoints":null}}"#;
    assert_eq!(limits.to_json().to_string(), format!("{}{gateway}", &device[..device.len() - 1]));
}

proptest! {
    #[test]
    fn no_more_is_given_than_promised(
        capacity in 1u64..100, seconds in 1u64..100, steps in prop::collection::vec((0u64..5_000, 1u64..50), 1..100),
    ) {
        let mut bucket = Bucket::new(limit(&format!("{capacity}:{seconds}")), 0);
        let (mut now_ms, mut given) = (0, 0);
        for (wait_ms, tokens) in steps {
            now_ms += wait_ms;
            given += if bucket.take(tokens, now_ms) { tokens } else { 0 };
            prop_assert!(given <= capacity + capacity * now_ms / (seconds * 1_000) );
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9:, ]{0,40}") {
        if let Ok(limit) = Limit::read(&text) {
            let mut bucket = Bucket::new(limit, u64::MAX);
            bucket.take(u64::MAX, u64::MAX);
        }
    }
}
