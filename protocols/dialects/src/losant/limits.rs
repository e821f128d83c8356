//! How much is said and heard in how long, and what is too much (§2.5).
//!
//! # Invariants
//!
//! - **Never more than the limit within any 15 seconds**: windows slide. Checked by `tests/it/losant/limits.rs`.
//! - **What waited for a device is counted by itself, and half as much of it comes**: it costs no ban, and waits for nothing but its own.
//!   Checked by the same.
//! - **A clock that is set back forgets what was said behind it**: it bans nobody, and nothing waits for it. Checked by the same.
//! - **A ban doubles when the next comes within 15 minutes of its end, up to an hour**, and begins anew otherwise. Checked by the same.
//! - **Bounded**: a connection has as many topics in its window as messages; of all that is counted by tenants, the one with the most is
//!   forgotten when there is no room. Checked by the same.

use std::collections::{BTreeMap, HashMap, VecDeque};

use moorline_core::Text;
use serde::{Deserialize, Serialize};

/// How long what was said counts.
pub const WINDOW_MS: u64 = 15_000;
/// Messages of a topic, for each direction.
pub const PER_TOPIC: usize = 30;
/// Messages of a connection, in both together.
pub const PER_CONNECTION: usize = 300;
/// Beside those to a topic, such as were waiting for the device.
pub const BROUGHT_PER_TOPIC: usize = PER_TOPIC / 2;
/// The same of a connection.
pub const BROUGHT_PER_CONNECTION: usize = PER_CONNECTION / 2;
/// Connections of an application.
pub const CONNECTIONS: usize = 300;
/// Requests of a kind of a device.
pub const REQUESTS: usize = 30;
/// The first ban.
pub const BAN_S: u32 = 30;
/// The longest.
pub const BAN_S_MAX: u32 = 3_600;
/// How long a ban is remembered behind its end.
pub const BAN_MEMORY_MS: u64 = 15 * 60_000;
const MS_PER_S: u64 = 1_000;
/// How far ahead what was said may be, because two have asked for the time at once: what is further was said before a clock was set back.
const AHEAD_MS_MAX: u64 = MS_PER_S;

/// When something was, within a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window(VecDeque<u64>);

impl Window {
    /// Takes one more, if there are fewer than `most` in the window.
    pub fn take(&mut self, most: usize, now_ms: u64) -> bool {
        self.forget(now_ms);
        let has_room = self.0.len() < most;
        if has_room {
            self.0.push_back(now_ms);
        }
        has_room
    }

    /// In how many milliseconds there are fewer than `most` in the window; [`None`]: there are now.
    pub fn room_in(&mut self, most: usize, now_ms: u64) -> Option<u64> {
        self.forget(now_ms);
        let before = self.0.len().checked_sub(most)?;
        self.0.get(before).map(|at| (at + WINDOW_MS).saturating_sub(now_ms))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&mut self, now_ms: u64) -> bool {
        self.forget(now_ms);
        self.0.is_empty()
    }

    fn forget(&mut self, now_ms: u64) {
        while self.0.back().is_some_and(|at| *at > now_ms.saturating_add(AHEAD_MS_MAX)) {
            self.0.pop_back();
        }
        while self.0.front().is_some_and(|at| at + WINDOW_MS <= now_ms) {
            self.0.pop_front();
        }
    }
}

/// Windows by what they are of.
#[derive(Debug, Clone)]
pub struct Windows<K> {
    all: HashMap<K, Window>,
    keys_max: usize,
}

/// Windows of several owners, which share the room and nothing else: who fills it loses their own windows, and no one else's.
#[derive(Debug, Clone)]
pub struct Shared<O, K> {
    owners: BTreeMap<O, HashMap<K, Window>>,
    /// In all of them.
    keys: usize,
    keys_max: usize,
}

impl<O: Copy + Ord, K: Eq + std::hash::Hash> Shared<O, K> {
    /// For so many keys at most, of all owners together.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self { owners: BTreeMap::new(), keys: 0, keys_max }
    }

    /// Keys that are counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Takes one more of an owner's key, if there are fewer than `most` in its window.
    pub fn take(&mut self, owner: O, key: K, most: usize, now_ms: u64) -> bool {
        let is_known = self.owners.get(&owner).is_some_and(|keys| keys.contains_key(&key));
        if !is_known && self.keys >= self.keys_max {
            self.make_room(now_ms);
        }
        self.keys += usize::from(!is_known);
        self.owners.entry(owner).or_default().entry(key).or_default().take(most, now_ms)
    }

    /// Forgets what is over; and if that is not enough, all of whoever has the most.
    fn make_room(&mut self, now_ms: u64) {
        self.owners.retain(|_, keys| {
            keys.retain(|_, window| !window.is_empty(now_ms));
            !keys.is_empty()
        });
        let most = self.owners.iter().max_by_key(|(_, keys)| keys.len()).map(|(owner, _)| *owner);
        self.keys = self.owners.values().map(HashMap::len).sum();
        if let Some(most) = most.filter(|_| self.keys >= self.keys_max) {
            self.keys -= self.owners.remove(&most).map_or(0, |keys| keys.len());
        }
    }
}

impl<K: Eq + std::hash::Hash> Windows<K> {
    /// For so many at most: when there are more, those in which nothing is are forgotten, and if that is not enough all are.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self { all: HashMap::new(), keys_max }
    }

    /// Takes one more of a key, if there are fewer than `most` in its window.
    pub fn take(&mut self, key: K, most: usize, now_ms: u64) -> bool {
        if self.all.len() >= self.keys_max && !self.all.contains_key(&key) {
            self.all.retain(|_, window| !window.is_empty(now_ms));
            if self.all.len() >= self.keys_max {
                self.all.clear();
            }
        }
        self.all.entry(key).or_default().take(most, now_ms)
    }

    /// In how many milliseconds there are fewer than `most` in the window of a key; [`None`]: there are now.
    pub fn room_in(&mut self, key: &K, most: usize, now_ms: u64) -> Option<u64> {
        self.all.get_mut(key)?.room_in(most, now_ms)
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the device.
    Up,
    /// To it.
    Down,
}

/// What one connection says and hears.
#[derive(Debug, Clone)]
pub struct Meter {
    all: Window,
    topics: Windows<(Direction, Text)>,
    /// What was waiting for the device, in all and by topic.
    brought: Window,
    brought_topics: Windows<Text>,
}

impl Default for Meter {
    fn default() -> Self {
        // No more than this are in a window; the rest are forgotten.
        Self {
            all: Window::default(),
            topics: Windows::new(2 * PER_CONNECTION),
            brought: Window::default(),
            brought_topics: Windows::new(2 * BROUGHT_PER_CONNECTION),
        }
    }
}

impl Meter {
    /// Counts a message: whether it is within the limits.
    pub fn take(&mut self, direction: Direction, topic: &Text, now_ms: u64) -> bool {
        self.all.take(PER_CONNECTION, now_ms)
            && self.topics.take((direction, topic.clone()), PER_TOPIC, now_ms)
    }

    /// In how many milliseconds one more may be brought that nobody waits for; [`None`]: now.
    pub fn brought_in(&mut self, topic: &Text, now_ms: u64) -> Option<u64> {
        let of_topic = self.brought_topics.room_in(topic, BROUGHT_PER_TOPIC, now_ms);
        of_topic.max(self.brought.room_in(BROUGHT_PER_CONNECTION, now_ms))
    }

    /// Counts one that nobody waits for, if it may be brought now.
    pub fn bring(&mut self, topic: &Text, now_ms: u64) -> bool {
        self.brought_in(topic, now_ms).is_none()
            && self.brought.take(BROUGHT_PER_CONNECTION, now_ms)
            && self.brought_topics.take(topic.clone(), BROUGHT_PER_TOPIC, now_ms)
    }
}

/// A while in which a device is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
    /// How long it lasts, in all.
    pub seconds: u32,
}

impl Ban {
    /// The next one, after `before`.
    #[must_use]
    pub fn after(before: Option<Self>, now_ms: u64) -> Self {
        let again = before.filter(|before| now_ms < before.until_ms + BAN_MEMORY_MS);
        let seconds = again.map_or(BAN_S, |before| (before.seconds * 2).min(BAN_S_MAX));
        Self { until_ms: now_ms + u64::from(seconds) * MS_PER_S, seconds }
    }

    /// Whether it lasts.
    #[must_use]
    pub fn lasts(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}
