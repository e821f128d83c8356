//! Waiting for changes of shared attributes by one request after the other.
//!
//! # Invariants
//!
//! - **No change is lost between two polls**, whichever nodes they come to: up to where a device was told is remembered beside its
//!   attributes, and what changed since is told at once. The first poll of a device begins with what changes from then on.
//! - **A device is told again of what it may not have heard**: it is remembered when the answer was taken.
//!
//! Checked by the cluster tests (`thingsboard_http.rs`).

use std::time::Duration;

use moorline_dialects::thingsboard::attributes::Changed;
use moorline_service::registry::{ASK_AGAIN, RECHECK, RegistryError};
use tokio::time::{Instant, timeout_at};

use crate::device::Device;

/// What came of a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// These changes, up to that version.
    Changed(u64, Changed),
    /// Nothing in time.
    Nothing,
}

/// Waits for a change.
pub(crate) async fn changed(device: &Device, wait: Duration) -> Result<Polled, RegistryError> {
    let ends = Instant::now() + wait;
    // Before anything is read: what changes from then on is heard.
    let watch = device.door.registry.watch(device.guest.tenant, &device.guest.device);
    let known = device.news(None).await?;
    let since = match known.told {
        Some(told) => told,
        None => {
            device.was_told(known.version).await?;
            known.version
        }
    };
    loop {
        let look_again = match device.news(Some(since)).await {
            Ok(news) if !news.is_empty() => return Ok(Polled::Changed(news.version, news.changed)),
            Ok(_) => RECHECK,
            // A leader is elected, for instance: it waits anyway.
            Err(RegistryError::Unavailable) => ASK_AGAIN,
            Err(error) => return Err(error),
        };
        let again_at = ends.min(Instant::now() + look_again);
        let heard = async { while !watch.heard().await.attributes {} };
        // News may be lost: then it looks by itself.
        if timeout_at(again_at, heard).await.is_err() && Instant::now() >= ends {
            return Ok(Polled::Nothing);
        }
    }
}
