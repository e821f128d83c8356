//! Waiting for what stays true, with a deadline.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// For everything that takes a healthy machine well under a second.
pub(crate) const SOON: Duration = Duration::from_secs(15);
/// For a node to start or a cluster to recover.
pub(crate) const READY: Duration = Duration::from_secs(30);
/// For what should not come: if it did, it would in milliseconds.
pub(crate) const A_WHILE: Duration = Duration::from_millis(700);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something, and returns it.
#[track_caller]
pub(crate) fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < within, "not within {within:?}: {what}");
        sleep(PAUSE);
    }
}

/// Looks until it is true.
#[track_caller]
pub(crate) fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    until(what, within, || look().then_some(()));
}
