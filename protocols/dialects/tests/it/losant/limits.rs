//! Limits and bans, by a clock that is an argument.

use moorline_core::Text;
use moorline_dialects::losant::limits::{
    BAN_MEMORY_MS, BROUGHT_PER_CONNECTION, BROUGHT_PER_TOPIC, Ban, Direction, Meter,
    PER_CONNECTION, PER_TOPIC, Shared, WINDOW_MS, Window, Windows,
};
use proptest::prelude::*;

#[test]
fn thirty_of_a_topic_and_three_hundred_in_all_for_each_fifteen_seconds() {
    let topics: Vec<Text> = (0..11).map(|at| Text::from(format!("t/{at}"))).collect();
    let mut meter = Meter::default();
    for _ in 0..PER_TOPIC {
        assert!(meter.take(Direction::Up, &topics[0], 1_000));
    }
    assert!(!meter.take(Direction::Up, &topics[0], 1_000), "the 31st");
    assert!(meter.take(Direction::Down, &topics[0], 1_000), "the other direction");
    assert!(meter.take(Direction::Up, &topics[1], 1_000), "another topic");
    assert!(!meter.take(Direction::Up, &topics[0], 1_000 + WINDOW_MS - 1));
    assert!(meter.take(Direction::Up, &topics[0], 1_000 + WINDOW_MS));
    let mut meter = Meter::default();
    let taken =
        (0..PER_CONNECTION + 30).filter(|at| meter.take(Direction::Up, &topics[at % 11], 5));
    assert_eq!(taken.count(), PER_CONNECTION);
}

#[test]
fn what_waited_comes_as_fast_as_half_of_the_limits_and_is_counted_by_itself() {
    let topics: Vec<Text> = (0..11).map(|at| Text::from(format!("t/{at}"))).collect();
    let mut meter = Meter::default();
    for at in 0..BROUGHT_PER_TOPIC as u64 {
        assert_eq!(meter.brought_in(&topics[0], at), None);
        assert!(meter.bring(&topics[0], at));
    }
    let now = BROUGHT_PER_TOPIC as u64;
    assert!(!meter.bring(&topics[0], now), "whoever looked at the same time");
    assert_eq!(meter.brought_in(&topics[0], now), Some(WINDOW_MS - now), "as the first goes");
    assert_eq!(meter.brought_in(&topics[0], WINDOW_MS - 1), Some(1));
    assert_eq!(meter.brought_in(&topics[1], now), None, "another topic");
    let told = (0..PER_TOPIC).filter(|_| meter.take(Direction::Down, &topics[0], now)).count();
    assert_eq!(told, PER_TOPIC, "as much is said meanwhile as if nothing had waited");
    assert_eq!(meter.brought_in(&topics[0], WINDOW_MS), None);
    let mut meter = Meter::default();
    for at in 0..PER_CONNECTION {
        assert!(meter.take(Direction::Up, &topics[at % 11], 5));
    }
    let brought = (0..PER_CONNECTION).filter(|at| meter.bring(&topics[at % 11], 6)).count();
    assert_eq!(brought, BROUGHT_PER_CONNECTION, "however much it says itself");
    assert_eq!(meter.brought_in(&topics[0], 7), Some(WINDOW_MS - 1), "of the connection");
}

#[test]
fn a_clock_that_is_set_back_bans_nobody() {
    let (mut window, hour) = (Window::default(), 3_600_000);
    assert!((0..PER_TOPIC).all(|_| window.take(PER_TOPIC, hour)));
    assert!(!window.take(PER_TOPIC, hour - 500), "two have asked for the time at once");
    assert_eq!(window.room_in(PER_TOPIC, hour - 60_000), None);
    assert!((0..PER_TOPIC).all(|_| window.take(PER_TOPIC, hour - 60_000)));
    assert!(!window.take(PER_TOPIC, hour - 60_000));
}

#[test]
fn a_ban_doubles_up_to_an_hour_and_is_forgotten_after_a_quarter_of_one() {
    let mut at = 1_000;
    let (mut ban, mut lasted) = (None, Vec::new());
    for _ in 0..9 {
        let next = Ban::after(ban, at);
        assert!(next.lasts(at) && next.lasts(next.until_ms - 1) && !next.lasts(next.until_ms));
        lasted.push(next.seconds);
        at = next.until_ms + BAN_MEMORY_MS - 1;
        ban = Some(next);
    }
    assert_eq!(lasted, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    assert_eq!(Ban::after(ban, at + 1).seconds, 30, "a quarter of an hour without");
    let kept = serde_json::to_string(&Ban::after(None, 7)).unwrap();
    assert_eq!(kept, r#"{"untilMs":30007,"seconds":30}"#);
}

#[test]
fn windows_are_as_many_as_they_may_be() {
    let mut windows = Windows::new(2);
    assert!(windows.take("a", 1, 0) && windows.take("b", 1, 0));
    assert!(!windows.take("a", 1, 1));
    assert!(windows.take("c", 1, WINDOW_MS), "those of before are over");
    assert!(windows.take("d", 1, WINDOW_MS) && !windows.take("c", 1, WINDOW_MS));
    assert!(windows.take("e", 1, WINDOW_MS + 1), "full of what counts: all is forgotten");
    assert!(windows.take("c", 1, WINDOW_MS + 1));
}

#[test]
fn who_fills_the_room_loses_their_own_windows_alone() {
    let mut shared = Shared::new(4);
    assert!(shared.take(1, "quiet", 1, 0) && !shared.take(1, "quiet", 1, 0));
    for key in ["a", "b", "c"] {
        assert!(shared.take(2, key, 1, 0) && !shared.take(2, key, 1, 0), "{key}");
    }
    assert_eq!(shared.len(), 4);
    assert!(shared.take(2, "d", 1, 1), "one more than there is room for");
    assert!(!shared.take(1, "quiet", 1, 1), "which the other does not feel");
    assert!(shared.take(2, "a", 1, 1), "and who did it is counted anew");
    assert_eq!(shared.len(), 3);
    assert!(shared.take(3, "x", 1, 1) && shared.take(3, "y", 1, WINDOW_MS + 1));
    assert_eq!(shared.len(), 1, "what is over goes first");
    assert!(!shared.is_empty());
}

proptest! {
    #[test]
    fn never_more_than_the_limit_within_any_window(steps in prop::collection::vec(0_u64..2_000, 1..400)) {
        let (mut window, mut at, mut taken) = (Window::default(), 0, Vec::new());
        for step in steps {
            at += step;
            if window.take(5, at) {
                taken.push(at);
            }
        }
        prop_assert!(taken.windows(6).all(|six| six[5] - six[0] >= WINDOW_MS));
    }
}
