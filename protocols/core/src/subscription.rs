//! What a subscription asks for, and what several matching ones of a session come to.
//!
//! # Invariants
//!
//! - **One copy for a session** however many of its subscriptions match: the highest QoS, every identifier, and RETAIN as
//!   published if one of them asked for that (MQTT 5, 3.3.4). Checked by this file's tests.
//! - **One identifier costs no allocation**: a fan-out makes a copy for each of many sessions.

use std::{num::NonZeroU32, sync::Arc};

use crate::{Message, QoS, topic};

/// When retained messages are sent for a subscription (MQTT 5, 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Always = 0,
    /// If the subscription is new.
    IfNew = 1,
    /// Not at all.
    Never = 2,
}

impl RetainHandling {
    /// Reads the number of the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Always),
            1 => Some(Self::IfNew),
            2 => Some(Self::Never),
            _ => None,
        }
    }
}

/// What is asked for a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SubscriptionOptions {
    /// The highest QoS: wanted in a request, granted once it is answered.
    pub qos: QoS,
    /// Whether messages of the session's own are left out (No Local).
    pub no_local: bool,
    /// Whether copies keep the RETAIN flag they were published with (Retain As Published).
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// What copies carry so that the client knows whom they are for (Subscription Identifier).
    pub id: Option<NonZeroU32>,
}

impl SubscriptionOptions {
    /// A subscription of MQTT 3.1.1, which knows nothing but the QoS.
    #[must_use]
    pub fn of_qos(qos: QoS) -> Self {
        Self { qos, ..Self::default() }
    }

    /// Whether what is retained is sent at a SUBSCRIBE to `filter`; `new` is whether the session did not have the subscription.
    /// Shared ones get nothing that is retained (MQTT 5, 4.8.2).
    #[must_use]
    pub fn wants_retained(self, filter: &[u8], new: bool) -> bool {
        if topic::share(filter).is_some() {
            return false;
        }
        match self.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        }
    }
}

/// The identifiers of the subscriptions that a copy is for, ascending; mostly there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionIds(Ids);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Ids {
    #[default]
    None,
    One(u32),
    Several(Arc<[u32]>),
}

impl SubscriptionIds {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match &self.0 {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Several(ids) => ids,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Ids::None
    }

    /// Adds others. A client may have given the same to several subscriptions, and gets it as often then (3.3.2.3.8).
    pub fn join(&mut self, other: &Self) {
        if !other.is_empty() {
            *self = Self::of([self.as_slice(), other.as_slice()].concat());
        }
    }

    fn of(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        Self(match ids[..] {
            [] => Ids::None,
            [id] => Ids::One(id),
            _ => Ids::Several(ids.into()),
        })
    }
}

impl From<Option<NonZeroU32>> for SubscriptionIds {
    fn from(id: Option<NonZeroU32>) -> Self {
        Self(id.map_or(Ids::None, |id| Ids::One(id.get())))
    }
}

impl FromIterator<NonZeroU32> for SubscriptionIds {
    fn from_iter<I: IntoIterator<Item = NonZeroU32>>(ids: I) -> Self {
        Self::of(ids.into_iter().map(NonZeroU32::get).collect())
    }
}

/// What one session is sent of a message: its matching subscriptions together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The highest QoS of them.
    pub qos: QoS,
    /// Whether one of them keeps the RETAIN flag.
    pub retain: bool,
    /// Their identifiers.
    pub ids: SubscriptionIds,
}

impl Grant {
    /// Of one subscription.
    #[must_use]
    pub fn of(options: SubscriptionOptions) -> Self {
        let SubscriptionOptions { qos, retain_as_published: retain, id, .. } = options;
        Self { qos, retain, ids: id.into() }
    }

    /// More subscriptions of the session match.
    pub fn join(&mut self, other: &Self) {
        self.qos = self.qos.max(other.qos);
        self.retain |= other.retain;
        self.ids.join(&other.ids);
    }

    /// For this message: no higher QoS than it was published with, and RETAIN only if it had it.
    pub fn limit(&mut self, message: &Message) {
        self.qos = self.qos.min(message.qos);
        self.retain &= message.retain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(qos: QoS, retain_as_published: bool, id: u32) -> SubscriptionOptions {
        let id = NonZeroU32::new(id);
        SubscriptionOptions { retain_as_published, id, ..SubscriptionOptions::of_qos(qos) }
    }

    #[test]
    fn overlapping_subscriptions_become_one_copy() {
        let mut grant = Grant::of(options(QoS::AtMostOnce, true, 9));
        grant.join(&Grant::of(options(QoS::ExactlyOnce, false, 0)));
        grant.join(&Grant::of(options(QoS::AtLeastOnce, false, 3)));
        grant.join(&Grant::of(options(QoS::AtLeastOnce, false, 9)));
        assert_eq!((grant.qos, grant.retain), (QoS::ExactlyOnce, true));
        assert_eq!(grant.ids.as_slice(), [3, 9, 9]);

        let published = Message { qos: QoS::AtLeastOnce, ..Message::empty() };
        grant.limit(&published);
        assert_eq!((grant.qos, grant.retain), (QoS::AtLeastOnce, false));
    }

    #[test]
    fn identifiers_are_the_same_however_they_came_together() {
        let ids = |ids: &[u32]| -> SubscriptionIds {
            ids.iter().filter_map(|id| NonZeroU32::new(*id)).collect()
        };
        assert!(ids(&[]).is_empty() && SubscriptionIds::default().as_slice().is_empty());
        assert_eq!(ids(&[4]), SubscriptionIds::from(NonZeroU32::new(4)));
        let mut grown = ids(&[4]);
        grown.join(&ids(&[]));
        grown.join(&ids(&[1]));
        assert_eq!(grown, ids(&[4, 1]));
    }
}
