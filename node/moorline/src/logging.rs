//! Log lines: to standard error, text for eyes and JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. The level was checked to be non-empty; a directive that does not parse falls back to `info` and says so.
pub(crate) fn start(config: &LogConfig) {
    let (filter, problem) = match EnvFilter::try_new(&config.level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    if let Err(error) = started {
        eprintln!("moorline: logging was started before: {error}");
    }
    if let Some(error) = problem {
        tracing::warn!(%error, level = config.level, "log.level does not parse; using info");
    }
}
