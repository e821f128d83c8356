//! How long one decision about a topic takes: `cargo run --release -p moorline-core --example rights_speed`.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{hint::black_box, time::Instant};

use moorline_core::{
    Text,
    rights::{Lists, PATTERNS_MAX, Pattern, Rules, Who},
};

const ROUNDS: u32 = 2_000_000;

fn main() {
    let who = Who { device: Text::from("pump-1"), born: 1, kind: None, class: "device", own: None };
    let pattern = |text: &str| Pattern::parse(text).expect("it is a pattern");
    let one = Rules::own_subtree();
    let mut publish: Vec<_> =
        (1..PATTERNS_MAX).map(|number| pattern(&format!("plant/{number}/{{device}}/+"))).collect();
    publish.push(pattern("{device}/#"));
    let many = Rules::of(Lists { publish, ..Lists::default() }).expect("as many as may be");
    for (name, rules) in [("1 pattern", one), ("64 patterns, the last fits", many)] {
        let began = Instant::now();
        let mut allowed = 0_u32;
        for _ in 0..ROUNDS {
            let topic = black_box(&b"pump-1/sensors/temperature"[..]);
            allowed += u32::from(rules.may_publish(Some(&who), topic));
        }
        assert_eq!(allowed, ROUNDS);
        println!("{name}: {} ns", began.elapsed().as_nanos() / u128::from(ROUNDS));
    }
}
