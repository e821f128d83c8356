//! A node reads its configuration file again while it runs, when somebody asks: SIGHUP, or `moorline config reload`.
//!
//! The file is not watched. Certificates are exchanged by programs, and are ([`super::tls`]); settings are written by people,
//! who save half of what they mean.
//!
//! # Invariants
//!
//! - **All or nothing**: the file is read and checked as a whole, as when a node starts; with any error nothing changes.
//!   Checked by `tests/it/reload.rs`.
//! - **Nothing is silently ignored**: a setting that differs and has to wait for a restart is named each time.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use moorline_edge::Settings;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::task::block_in_place;
use tracing::{error, info, warn};

use super::node::Node;
use crate::{
    config::{Changes, Config, ConfigError},
    logging,
};

/// What of a node's configuration can change while it runs.
#[derive(Debug)]
pub(crate) struct Reloading {
    path: PathBuf,
    /// What counts now. Held while a file is taken: one after the other.
    running: Mutex<Config>,
    settings: Settings,
    metrics: ReloadMetrics,
}

#[derive(Debug)]
struct ReloadMetrics {
    done: IntCounter,
    failed: IntCounter,
    revision: IntGauge,
    waiting: IntGauge,
}

impl ReloadMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "moorline_config_reloads_total",
                "How often the configuration file was read again, by result",
            ),
            &["result"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let revision = gauge(
            "moorline_config_revision",
            "1 when the node starts, one more each time settings were changed by a reload",
        )?;
        revision.set(1);
        Ok(Self {
            done: reloads.with_label_values(&["done"]),
            failed: reloads.with_label_values(&["failed"]),
            revision,
            waiting: gauge(
                "moorline_config_needs_restart",
                "Settings of the file, as it was read last, that count when the node is started again",
            )?,
        })
    }
}

impl Reloading {
    /// Of the file that a node was started with.
    pub(crate) fn new(
        path: PathBuf,
        config: &Config,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let settings = Settings::from(config.mqtt.clone());
        settings.log_connections(config.log.connections_s);
        Ok(Self {
            path,
            running: Mutex::new(config.clone()),
            settings,
            metrics: ReloadMetrics::register(registry)?,
        })
    }

    /// How clients are treated now.
    pub(crate) fn settings(&self) -> Settings {
        self.settings.clone()
    }

    /// What counts now.
    pub(crate) fn running(&self) -> Config {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file, and takes what can be taken.
    fn reload(&self, service: Option<&moorline_service::Service>) -> Result<Changes, ConfigError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let file = Config::load(&self.path)?;
        let changes = running.changes(&file);
        let next = running.taking(&file);
        if next.log.level != running.log.level {
            logging::set_level(&next.log.level).map_err(|why| ConfigError::Wrong {
                path: self.path.clone(),
                problems: vec![format!("log.level: {why}")],
            })?;
        }
        // Nothing below can fail.
        self.settings.log_connections(next.log.connections_s);
        self.settings.change(next.mqtt.clone());
        if let Some(service) = service {
            service.set_deliveries_per_tenant(next.mqtt.deliveries_per_tenant_s);
        }
        *running = next;
        Ok(changes)
    }
}

impl Node {
    /// Reads the configuration file again: what was taken, and what has to wait.
    ///
    /// # Errors
    ///
    /// If the file is not what a node could start with: then nothing has changed.
    pub(crate) fn reload(&self) -> Result<Changes, ConfigError> {
        let reloading = self.reloading();
        // A few small files; others of this thread's tasks go on elsewhere meanwhile.
        let reloaded = block_in_place(|| reloading.reload(self.service()));
        let metrics = &reloading.metrics;
        match &reloaded {
            Ok(Changes { taken, needs_restart }) => {
                metrics.done.inc();
                if !taken.is_empty() {
                    metrics.revision.inc();
                }
                metrics.waiting.set(i64::try_from(needs_restart.len()).unwrap_or(i64::MAX));
                let (revision, settings) = (metrics.revision.get(), taken.join(", "));
                info!(revision, settings, "the configuration was read again");
                if !needs_restart.is_empty() {
                    let settings = needs_restart.join(", ");
                    warn!(settings, "these settings need a restart: the old values still count");
                }
            }
            Err(problem) => {
                metrics.failed.inc();
                error!(%problem, "the configuration is not usable: nothing was changed");
            }
        }
        reloaded
    }
}
