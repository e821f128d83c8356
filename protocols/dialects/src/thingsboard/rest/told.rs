//! What of its values a subscription was told, and so what it is to be told when they are read again.
//!
//! ```text
//!   values as they are ─► Told::update ─► News ──┬─► between: which samples were said meanwhile?
//!                                                └─► pushes: what goes out, the newest of each key first
//! ```
//!
//! # Invariants
//!
//! - **Each value is told once**, and again only when its time or it itself is another.
//! - **What is not there any more is told as an empty text of the time 0**, as the original does.
//!
//! Checked by `tests/it/thingsboard/told.rs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::thingsboard::values::Value;

/// Samples by key.
pub type Series = Vec<(String, Vec<(i64, Value)>)>;

/// What was told last, by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told(BTreeMap<String, (i64, Value)>);

/// What is new of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Another value, or one of another time.
    Value {
        /// Of which key.
        key: String,
        /// The time of the one before, if there was one.
        before_ms: Option<i64>,
        /// Its time.
        ts_ms: i64,
        /// It.
        value: Value,
    },
    /// It has none any more.
    Gone(String),
}

impl Told {
    /// Of which keys something was told.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is new about values as they are now: all that are wanted, of each key one.
    pub fn update(&mut self, now: Vec<(String, i64, Value)>) -> Vec<News> {
        let mut gone: BTreeSet<String> = self.0.keys().cloned().collect();
        let mut news = Vec::new();
        for (key, ts_ms, value) in now {
            gone.remove(&key);
            let known = self.0.get(&key);
            if known.is_some_and(|(at, known)| *at == ts_ms && *known == value) {
                continue;
            }
            let before_ms = known.map(|(at, _)| *at);
            self.0.insert(key.clone(), (ts_ms, value.clone()));
            news.push(News::Value { key, before_ms, ts_ms, value });
        }
        gone.iter().for_each(|key| drop(self.0.remove(key)));
        news.extend(gone.into_iter().map(News::Gone));
        news
    }
}

/// The keys and the range of time, its end left out, in which samples may lie that nobody was told of: behind the ones before, and
/// before the new ones.
#[must_use]
pub fn between(news: &[News]) -> Option<(Vec<String>, i64, i64)> {
    let (mut keys, mut from, mut to) = (Vec::new(), i64::MAX, i64::MIN);
    for one in news {
        if let News::Value { key, before_ms: Some(before), ts_ms, .. } = one
            && before.saturating_add(1) < *ts_ms
        {
            keys.push(key.clone());
            from = from.min(before.saturating_add(1));
            to = to.max(*ts_ms);
        }
    }
    (!keys.is_empty()).then_some((keys, from, to))
}

/// What goes out: each key with its new value, and behind it the samples before that nobody was told of, the newest first.
#[must_use]
pub fn pushes(news: Vec<News>, between: Series) -> Series {
    let mut between: BTreeMap<String, Vec<(i64, Value)>> = between.into_iter().collect();
    let push = |one| match one {
        News::Gone(key) => (key, vec![(0, Value::Text(String::new()))]),
        News::Value { key, before_ms, ts_ms, value } => {
            let mut samples = between.remove(&key).unwrap_or_default();
            samples.retain(|(at, _)| *at < ts_ms && before_ms.is_some_and(|before| *at > before));
            samples.push((ts_ms, value));
            samples.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            (key, samples)
        }
    };
    news.into_iter().map(push).collect()
}
