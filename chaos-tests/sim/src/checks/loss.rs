//! What was acknowledged to its publisher reaches everyone who had been told of a subscription before it was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::violation;
use crate::Violation;

/// A message: its publisher and number.
type Message = (usize, u64);

/// Who was promised what.
#[derive(Debug, Default)]
pub struct Loss {
    /// When each message was sent first.
    sent: BTreeMap<Message, u64>,
    acknowledged: BTreeSet<Message>,
    /// Since when each subscriber relies on its subscription.
    relies: BTreeMap<usize, u64>,
    received: BTreeSet<(usize, Message)>,
}

impl Loss {
    /// A publisher begins to send a message.
    pub fn sent(&mut self, publisher: usize, number: u64, step: u64) {
        self.sent.entry((publisher, number)).or_insert(step);
    }

    /// A publisher was told that its message is safe.
    pub fn acknowledged(&mut self, publisher: usize, number: u64) {
        self.acknowledged.insert((publisher, number));
    }

    /// A subscriber was told that its subscription holds.
    pub fn relies(&mut self, subscriber: usize, step: u64) {
        self.relies.entry(subscriber).or_insert(step);
    }

    /// A subscriber has asked for the end of its session or subscription.
    pub fn gives_up(&mut self, subscriber: usize) {
        self.relies.remove(&subscriber);
    }

    /// Whether a subscriber relies on its subscription.
    #[must_use]
    pub fn is_relying(&self, subscriber: usize) -> bool {
        self.relies.contains_key(&subscriber)
    }

    /// A subscriber was given a message.
    pub fn received(&mut self, subscriber: usize, publisher: usize, number: u64) {
        self.received.insert((subscriber, (publisher, number)));
    }

    /// How many messages were acknowledged.
    #[must_use]
    pub fn acknowledged_len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Everything has been drained: `wants(subscriber, publisher)` says whose messages a subscriber asked for.
    ///
    /// # Errors
    ///
    /// When somebody misses a message.
    pub fn drained(&self, wants: impl Fn(usize, usize) -> bool) -> Result<(), Violation> {
        for (&subscriber, &since) in &self.relies {
            for message @ (publisher, number) in &self.acknowledged {
                let promised = wants(subscriber, *publisher) && self.sent[message] > since;
                if promised && !self.received.contains(&(subscriber, *message)) {
                    let what = format!(
                        "subscriber {subscriber} never got number {number} of publisher {publisher}"
                    );
                    violation("loss", what)?;
                }
            }
        }
        Ok(())
    }
}
