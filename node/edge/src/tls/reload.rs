//! Reads the files of `[tls]` again when they change, or when somebody asks.
//!
//! # Invariants
//!
//! - **All or nothing**: what is read is checked first, also that it counts now; with any error the old stays. Connections that
//!   are there go on with what they have. Checked by `tests/tls_reload.rs`.
//! - **A failure is seen**: a count for each try, a line in the log when something else is wrong.
//! - **A failure lasts no longer than its cause**: after one files are read each time they are looked at, since what mends them may not
//!   show in them: rights, or a clock that was behind.

use std::{sync::Arc, time::Duration};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Tls, TlsConfigError};

/// How often files are looked at: soon enough for somebody who watches, and four `stat` calls a minute.
pub const TLS_FILES_POLL: Duration = Duration::from_secs(10);
/// From when before its end a certificate is complained about, each time it is read, in seconds.
const EXPIRES_SOON_S: i64 = 14 * 24 * 60 * 60;

/// What is counted of the certificates a node shows.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    done: IntCounter,
    failed: IntCounter,
    expires: IntGauge,
}

impl TlsMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If the registry has such names.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "moorline_tls_reloads_total",
                "How often the files of [tls] were read again, by result",
            ),
            &["result"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        let expires = IntGauge::new(
            "moorline_cert_expiry_timestamp_seconds",
            "When the certificate shown to clients expires; 0 without TLS",
        )?;
        registry.register(Box::new(expires.clone()))?;
        Ok(Self {
            done: reloads.with_label_values(&["done"]),
            failed: reloads.with_label_values(&["failed"]),
            expires,
        })
    }
}

impl Tls {
    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// If they are not what they should be, or do not count now: then nothing has changed.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let loaded = self.files.config.read()?;
        if let Some(why) = loaded.valid.complaint() {
            let path = self.files.config.cert.clone();
            return Err(TlsConfigError::Cert { path, why: why.to_owned() });
        }
        self.files.put(loaded);
        Ok(())
    }

    /// Keeps to the files until `stop`: they are read again when one of them changes, and whenever `asked`.
    pub async fn keep_fresh(
        self,
        metrics: TlsMetrics,
        asked: Arc<Notify>,
        stop: CancellationToken,
    ) {
        let mut seen = self.tell(&metrics);
        // What was wrong with them, if they could not be used.
        let mut failed: Option<String> = None;
        loop {
            let was_asked = tokio::select! {
                () = stop.cancelled() => return,
                () = asked.notified() => true,
                () = sleep(TLS_FILES_POLL) => false,
            };
            let now = self.files.config.stamps();
            if now == seen && !was_asked && failed.is_none() {
                continue;
            }
            seen = now;
            let tls = self.clone();
            match spawn_blocking(move || tls.reload()).await {
                Ok(Ok(())) => {
                    metrics.done.inc();
                    failed = None;
                    info!(cert = %self.files.config.cert.display(), "TLS files were read again");
                    seen = self.tell(&metrics);
                }
                Ok(Err(why)) => {
                    metrics.failed.inc();
                    let now = why.to_string();
                    if was_asked || failed.as_ref() != Some(&now) {
                        error!(%why, "TLS files are not usable: the old certificate stays");
                    }
                    failed = Some(now);
                }
                Err(why) => {
                    error!(%why, "TLS files could not be read again");
                    failed = Some(why.to_string());
                }
            }
        }
    }

    /// Shows when the certificate expires; says what the files were.
    fn tell(&self, metrics: &TlsMetrics) -> super::config::Stamps {
        let (valid, stamps) = self.files.state();
        metrics.expires.set(valid.until_s);
        let cert = self.files.config.cert.display();
        if let Some(why) = valid.complaint() {
            error!(%cert, why, "clients will not trust this node's certificate");
        } else if valid.complaint_in(EXPIRES_SOON_S).is_some() {
            warn!(%cert, "this node's certificate expires soon");
        }
        stamps
    }
}
