//! Forgets requests that are too old to be repeated (`Idempotency-Key`). Every node does, since none knows of the others; who comes
//! second finds nothing.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::node::Node;

/// How often: far more often than they are kept for, so that what is too old is a small part.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Until the node stops.
pub(super) async fn forget_old(node: Arc<Node>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let Some(api) = node.api_state() else { continue };
        match moorline_api::forget_old_repeats(api).await {
            Ok(gone) => debug!(gone, "requests that are too old to be repeated"),
            // The next hour comes.
            Err(problem) => debug!(?problem, "could not forget old requests"),
        }
    }
}
