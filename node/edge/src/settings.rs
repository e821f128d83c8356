//! How a node treats its clients now: what `[mqtt]` says, part of which may change while it runs.
//!
//! # Invariants
//!
//! - **One at a time**: whoever asks gets one whole configuration, and asks again for the next connection.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
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

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().config.fmt(f)
    }
}
