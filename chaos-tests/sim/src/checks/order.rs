//! A session gets the messages of one publisher in the order in which they were published: each for the first time after
//! those before it.
//!
//! Not judged: messages that were published more than once. A late copy of an earlier attempt may be the first that a
//! session, newly subscribed, gets.

use std::collections::{BTreeMap, BTreeSet};

use super::{Copy, violation};
use crate::Violation;

/// What each subscriber got last of each publisher.
#[derive(Debug, Default)]
pub struct Order {
    last: BTreeMap<(usize, usize), u64>,
    seen: BTreeSet<(usize, usize, u64)>,
    repeated: BTreeSet<(usize, u64)>,
}

impl Order {
    /// A message is published once more.
    pub fn repeated(&mut self, publisher: usize, number: u64) {
        self.repeated.insert((publisher, number));
    }

    /// A subscriber gets a copy; whether it had the message before.
    ///
    /// # Errors
    ///
    /// When it had a later one of the same publisher before, and not this one.
    pub fn received(&mut self, subscriber: usize, copy: Copy) -> Result<bool, Violation> {
        let Copy { publisher, number, .. } = copy;
        if !self.seen.insert((subscriber, publisher, number)) {
            return Ok(true);
        }
        let last = self.last.entry((subscriber, publisher)).or_default();
        if number < *last && !self.repeated.contains(&(publisher, number)) {
            let what = format!("subscriber {subscriber} got {copy:?} after number {last}");
            violation("order", what)?;
        }
        *last = number.max(*last);
        Ok(false)
    }
}
