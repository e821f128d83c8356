//! Log lines: to standard error, text for eyes and JSON for machines; and which of them, which changes while a node runs.

mod lines;

use std::{io::IsTerminal, sync::OnceLock};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, registry::LookupSpan, reload,
    util::SubscriberInitExt,
};

use self::lines::{Fields, Lines};
use crate::config::{LogConfig, LogFormat};

/// Of this process, which has one log.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging. The level was checked to be non-empty; a directive that does not parse falls back to `info` and says so.
pub(crate) fn start(config: &LogConfig, node: u64) {
    let (filter, problem) = match EnvFilter::try_new(&config.level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = writes(json.then_some(Lines { node }));
    if let Err(error) = tracing_subscriber::registry().with(filter).with(lines).try_init() {
        eprintln!("moorline: logging was started before: {error}");
    } else {
        // The first to start is the only one that counts.
        drop(LEVEL.set(handle));
    }
    if let Some(error) = problem {
        tracing::warn!(%error, level = config.level, "log.level does not parse; using info");
    }
}

/// What writes lines: JSON, or text.
fn writes<S>(json: Option<Lines>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    match json {
        Some(lines) => {
            let layer = fmt::layer().fmt_fields(Fields::new()).event_format(lines);
            layer.with_writer(std::io::stderr).boxed()
        }
        None => fmt::layer().with_writer(std::io::stderr).boxed(),
    }
}

/// Changes what is logged from now on; says why it can't be.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let handle = LEVEL.get().ok_or("this process has no log")?;
    handle.reload(filter).map_err(|error| error.to_string())
}
