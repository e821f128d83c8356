//! Posts events to webhooks, on nodes that have the cluster's key.

use std::sync::Arc;

use moorline_webhooks::{Runner, WebhookMetrics};
use tokio_util::sync::CancellationToken;

use super::node::Node;

/// Until the node stops.
pub(super) async fn run(
    node: Arc<Node>,
    metrics: WebhookMetrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(api) = node.api_state() {
        let hooks = api.webhooks.clone();
        Runner::new(hooks, metrics, node.config().node_id().0).run(stop).await;
    } else {
        stop.cancelled().await;
    }
    Ok(())
}
