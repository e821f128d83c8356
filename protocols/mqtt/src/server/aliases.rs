//! Topic aliases of deliveries (MQTT 5, 3.3.2.3.4): the first topics that a client is sent get one each.
//!
//! # Invariants
//!
//! - **An alias means one topic** for as long as the connection lasts, and none is above what the client allowed. Checked
//!   by `mqtt_session` and by `tests/it/session_deliver.rs`.
//! - **It was sent before it is used**: a topic counts as known only once its packet is on its way.

use std::{collections::BTreeMap, num::NonZeroU16};

use moorline_core::Text;

/// An alias costs as many bytes as such a topic.
const TOPIC_BYTES_MIN: usize = 4;

/// The aliases of one connection.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    max: u16,
    known: BTreeMap<Text, NonZeroU16>,
}

/// How a topic is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// As it is.
    Plain,
    /// As it is, with an alias for the next time.
    Named(NonZeroU16),
    /// Only by its alias.
    Alias(NonZeroU16),
}

impl Aliases {
    /// What the client and this server allow.
    pub(super) fn allow(&mut self, max: u16) {
        self.max = max;
    }

    /// How a topic is to be sent.
    pub(super) fn of(&self, topic: &Text) -> Sent {
        if self.max == 0 || topic.len() < TOPIC_BYTES_MIN {
            return Sent::Plain;
        }
        if let Some(alias) = self.known.get(topic) {
            return Sent::Alias(*alias);
        }
        let next = u16::try_from(self.known.len() + 1).ok().filter(|next| *next <= self.max);
        next.and_then(NonZeroU16::new).map_or(Sent::Plain, Sent::Named)
    }

    /// A topic went out with an alias.
    pub(super) fn keep(&mut self, topic: &Text, alias: NonZeroU16) {
        // A copy: the topic shares a buffer, which must not stay for as long as the alias.
        self.known.insert(Text::from(topic.as_str()), alias);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
