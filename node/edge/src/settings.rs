//! How a node treats its clients now: what `[mqtt]` says, part of which may change while it runs.
//!
//! # Invariants
//!
//! - **One at a time**: whoever asks gets one whole configuration, and asks again for the next connection.
//! - **Platforms are no exception**: what they make of it is made again when it changes. Checked below.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use moorline_mqtt::server;

use crate::{bucket::Rate, config::EdgeConfig, ended::Ended};

/// How a node treats its clients now. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Settings(Arc<Inner>);

struct Inner {
    current: RwLock<Arc<Current>>,
    ended: Ended,
}

/// What counts for who comes now.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) config: EdgeConfig,
    /// The same, as the protocol machine wants it.
    pub(crate) protocol: Arc<server::Config>,
}

impl From<EdgeConfig> for Current {
    fn from(config: EdgeConfig) -> Self {
        Self { protocol: Arc::new(config.protocol()), config }
    }
}

impl From<EdgeConfig> for Settings {
    fn from(config: EdgeConfig) -> Self {
        let current = RwLock::new(Arc::new(config.into()));
        Self(Arc::new(Inner { current, ended: Ended::default() }))
    }
}

impl Settings {
    pub(crate) fn now(&self) -> Arc<Current> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes them for whoever comes from now on. The configuration was checked; `backlog` counts for listeners that are bound
    /// later.
    pub fn change(&self, config: EdgeConfig) {
        let next = Arc::new(config.into());
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Changes how many connections' ends are told in the log in a second; 0 for none.
    pub fn log_connections(&self, per_s: u32) {
        self.0.ended.set(per_s);
    }

    pub(crate) fn ended(&self) -> &Ended {
        &self.0.ended
    }

    /// How often one client may connect.
    #[must_use]
    pub fn client_rate(&self) -> Rate {
        self.now().config.client_rate()
    }
}

/// What a platform makes of the settings: again when they have changed, and once for all who ask. Clones are the same.
pub struct Made<T>(Arc<Making<T>>);

struct Making<T> {
    settings: Settings,
    make: fn(&EdgeConfig) -> T,
    /// What was made last, and of what.
    made: Mutex<(Arc<Current>, Arc<T>)>,
}

impl<T> Made<T> {
    /// What `make` makes of these.
    #[must_use]
    pub fn of(settings: Settings, make: fn(&EdgeConfig) -> T) -> Self {
        let current = settings.now();
        let made = Arc::new(make(&current.config));
        Self(Arc::new(Making { settings, make, made: Mutex::new((current, made)) }))
    }

    /// What counts for who comes now.
    #[must_use]
    pub fn now(&self) -> Arc<T> {
        let Making { settings, make, made } = &*self.0;
        let current = settings.now();
        // Every change is complete before anything can panic.
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.0, &current) {
            let new = Arc::new(make(&current.config));
            *made = (current, new);
        }
        Arc::clone(&made.1)
    }
}

impl<T> Clone for Made<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Made<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("of", &self.0.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().config.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_settings_is_made_again_when_they_change() {
        let config = |session_queue_max| EdgeConfig { session_queue_max, ..EdgeConfig::default() };
        let settings = Settings::from(config(1_000));
        let made = Made::of(settings.clone(), |config| config.session_queue_max);
        let (first, again) = (made.now(), made.clone().now());
        assert!(*first == 1_000 && Arc::ptr_eq(&first, &again));
        settings.change(config(100));
        assert_eq!((*made.now(), *first), (100, 1_000));
    }
}
