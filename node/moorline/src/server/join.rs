//! How a node finds the others: in its configuration, in what the cluster told it before, or by joining with a token.
//!
//! ```text
//!   cluster.peers ──┐
//!   members.json  ──┼─► the nodes that the wire connects to at start; from then on the meta group says who there is
//!   cluster.join  ──┘   (asked once, with the token: the answer is members.json)
//! ```

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, bail};
use hyper::Method;
use moorline_core::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::known;
use crate::{config::Config, http};

/// How long a node that joins looks for a member that lets it in.
const JOIN_WAIT: Duration = Duration::from_secs(60);
/// The pause between two rounds over the members.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// What `POST /api/v1/cluster/join` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinRequest {
    /// The cluster that is meant.
    pub(crate) cluster: String,
    /// The token, in hex.
    pub(crate) token: String,
    /// The id the node wants.
    pub(crate) node: u64,
    /// Its data directory's id, in hex.
    pub(crate) store: String,
    /// Its process.
    pub(crate) incarnation: u64,
    /// Where the others reach it.
    pub(crate) address: String,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    /// How many shards the cluster has.
    pub(crate) shards: u16,
    /// Where every node is.
    pub(crate) members: BTreeMap<u64, String>,
}

/// Where the nodes of the cluster are, as far as is known before the meta group was read.
pub(crate) async fn addresses(
    config: &Config,
    store: u128,
    incarnation: Incarnation,
    file: &Path,
) -> anyhow::Result<BTreeMap<NodeId, String>> {
    let mut addresses = known::read_addresses(file)?;
    if addresses.is_empty() && !config.cluster.join.is_empty() {
        addresses = join(config, store, incarnation).await?;
        known::write_addresses(file, &addresses)?;
    }
    if addresses.is_empty() && config.cluster.peers.is_empty() {
        bail!("this node knows no other: cluster.peers or cluster.join must name some");
    }
    // What the file says is newer than what the cluster remembers: an operator moved a node.
    addresses.extend(config.cluster.addresses());
    Ok(addresses)
}

async fn join(
    config: &Config,
    store: u128,
    incarnation: Incarnation,
) -> anyhow::Result<BTreeMap<NodeId, String>> {
    let cluster = &config.cluster;
    let request = JoinRequest {
        cluster: cluster.name.clone(),
        token: cluster.token.clone().context("cluster.token: needed to join")?,
        node: config.node.id,
        store: format!("{store:032x}"),
        incarnation: incarnation.0,
        address: cluster.address.clone().context("cluster.address: needed to join")?,
    };
    let body = serde_json::to_vec(&request)?;
    let give_up = tokio::time::Instant::now() + JOIN_WAIT;
    loop {
        for member in &cluster.join {
            let path = "/api/v1/cluster/join";
            match http::request(Method::POST, member, path, body.clone()).await {
                Ok((status, answer)) if status.is_success() => {
                    let answer: JoinAnswer = serde_json::from_slice(&answer)?;
                    if answer.shards != cluster.shards {
                        bail!(
                            "cluster.shards is {} here, and the cluster has {}: correct this node's file",
                            cluster.shards,
                            answer.shards
                        );
                    }
                    info!(member, "this node has joined");
                    return Ok(answer
                        .members
                        .into_iter()
                        .map(|(id, at)| (NodeId(id), at))
                        .collect());
                }
                // Asking again would not help.
                Ok((status, answer)) if status.is_client_error() => {
                    bail!(
                        "{member} does not let this node in: {}",
                        String::from_utf8_lossy(&answer)
                    );
                }
                Ok((status, _)) => warn!(member, %status, "could not join yet"),
                Err(error) => warn!(member, error = format!("{error:#}"), "could not join yet"),
            }
        }
        if tokio::time::Instant::now() > give_up {
            bail!("no member of cluster.join let this node in within {JOIN_WAIT:?}");
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}
