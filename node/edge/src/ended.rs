//! A line in the log for each connection that ends, as long as they are not too many.
//!
//! # Invariants
//!
//! - **A storm makes no log**: so many lines a second as are configured, and the next one says how many were left out.
//!   Checked by this file's tests.
//! - **Strangers hide nobody**: who was not let in is told of in the lines of a budget of its own, as large. Checked by the same.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use moorline_mqtt::Millis;

/// Lines a second that a node writes if nothing else is said.
const PER_S: u32 = 10;
const SECOND_MS: u64 = 1_000;

/// How many lines there may be.
#[derive(Debug)]
pub(crate) struct Ended {
    per_s: AtomicU32,
    /// Of those who were let in, and of the others.
    written: [Mutex<Written>; 2],
}

#[derive(Debug, Default)]
struct Written {
    /// The second that `lines` are of.
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Default for Ended {
    fn default() -> Self {
        Self { per_s: AtomicU32::new(PER_S), written: Default::default() }
    }
}

impl Ended {
    pub(crate) fn set(&self, per_s: u32) {
        self.per_s.store(per_s, Ordering::Relaxed);
    }

    /// Whether one more may be written now, and how many of its sort were left out since the last. `known`: it was let in.
    pub(crate) fn may_log(&self, now: Millis, known: bool) -> Option<u64> {
        let per_s = self.per_s.load(Ordering::Relaxed);
        if per_s == 0 {
            return None;
        }
        let second = now.0 / SECOND_MS;
        let mut written =
            self.written[usize::from(!known)].lock().unwrap_or_else(PoisonError::into_inner);
        if written.second != second {
            (written.second, written.lines) = (second, 0);
        }
        if written.lines >= per_s {
            written.left_out += 1;
            return None;
        }
        written.lines += 1;
        Some(std::mem::take(&mut written.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_the_next_says_how_many_were_left_out() {
        let ended = Ended::default();
        ended.set(2);
        let at = |ms| ended.may_log(Millis(ms), true);
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!(ended.may_log(Millis(999), false), Some(0), "strangers have their own");
        assert_eq!([at(1_000), at(1_001), at(1_002)], [Some(2), Some(0), None]);
        ended.set(0);
        assert_eq!(at(9_000), None);
        ended.set(1);
        assert_eq!(at(10_000), Some(1));
    }
}
