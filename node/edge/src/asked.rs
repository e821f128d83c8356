//! How long the service takes to answer publishes: begun in order, answered in almost any.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use moorline_core::port::Token;

/// Room that an idle connection may keep.
const IDLE_ROOM: usize = 16;

/// Publishes that wait for their answer; the protocol machine's windows bound them.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// By token, which only grow; `None` is answered and waits for those before it.
    since: VecDeque<(Token, Option<Instant>)>,
}

impl Asked {
    /// A publish was handed to the service.
    pub(crate) fn begin(&mut self, token: Token, now: Instant) {
        self.since.push_back((token, Some(now)));
    }

    /// It was answered; says how long it took.
    pub(crate) fn end(&mut self, token: Token, now: Instant) -> Option<Duration> {
        let at = self.since.binary_search_by_key(&token, |(token, _)| *token).ok()?;
        let since = self.since[at].1.take()?;
        while self.since.front().is_some_and(|(_, since)| since.is_none()) {
            self.since.pop_front();
        }
        Some(now.saturating_duration_since(since))
    }

    /// The connection is idle.
    pub(crate) fn rest(&mut self) {
        if self.since.is_empty() && self.since.capacity() > IDLE_ROOM {
            self.since = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_any_order_are_timed_once_each() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut asked = Asked::default();
        [2, 5, 9].into_iter().for_each(|token| asked.begin(token, at(token)));
        assert_eq!(asked.end(5, at(10)), Some(Duration::from_millis(5)));
        assert_eq!(asked.end(5, at(11)), None);
        assert_eq!(asked.end(7, at(11)), None);
        assert_eq!(asked.end(2, at(12)), Some(Duration::from_millis(10)));
        assert_eq!(asked.since.len(), 1, "what is answered is forgotten");
        assert_eq!(asked.end(9, at(9)), Some(Duration::ZERO));
        assert!(asked.since.is_empty());
    }
}
