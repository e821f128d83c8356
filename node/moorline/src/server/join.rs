//! How a node finds the others: in its configuration, in what the cluster told it before, or by joining with a token.
//!
//! ```text
//!   cluster.peers ──┐
//!   members.json  ──┼─► the nodes that the wire connects to at start; from then on the meta group says who there is
//!   cluster.join  ──┘   (asked once, with the token: the answer is members.json)
//! ```
//!
//! `moorline cluster join` does the last by hand: it makes the data directory, asks, writes `members.json`, and starts
//! nothing. So the token need not stand in a file.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, bail};
use hyper::Method;
use moorline_core::{
    Incarnation, NodeId,
    level::{FIRST, Levels},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::known;
use crate::{cli::JoinArgs, cluster::reason, config::Config, http, logging};

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
    /// How many shards its file says, so that a wrong number costs no token.
    #[serde(default)]
    pub(crate) shards: Option<u16>,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    /// How many shards the cluster has.
    pub(crate) shards: u16,
    /// Where every node is.
    pub(crate) members: BTreeMap<u64, String>,
    /// The level of the cluster; 0 of a member that knows no levels.
    #[serde(default)]
    pub(crate) level: u16,
}

/// The name of the file with where the others are, in the data directory.
pub(super) const MEMBERS_FILE: &str = "members.json";

/// `moorline cluster join`: lets the node of this file in. Answers its id, and whether it was a member already.
pub(crate) async fn by_command(args: &JoinArgs) -> anyhow::Result<(u64, bool)> {
    let mut config = Config::load(&args.config)?;
    let cluster = &mut config.cluster;
    if !cluster.peers.is_empty() {
        bail!(
            "cluster.peers: for the nodes a cluster is made with; a node that joins has cluster.address instead"
        );
    }
    if u128::from_str_radix(&args.token, 16).is_err() {
        bail!("--token: not what `moorline cluster token` printed");
    }
    cluster.join.clone_from(&args.members);
    cluster.token = Some(args.token.clone());
    logging::start(&config.log, config.node.id);
    let registry = prometheus::Registry::new();
    let disk = super::open_disk(&config, &registry)?;
    let file = config.node.data_dir.join(MEMBERS_FILE);
    let already = !known::read_addresses(&file)?.is_empty();
    if !already {
        // The process that will run has another incarnation, and says so when it is there.
        addresses(&config, disk.identity.store, Incarnation(rand::random()), &file).await?;
    }
    Ok((config.node.id, already))
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
        shards: Some(cluster.shards),
    };
    let body = serde_json::to_vec(&request)?;
    // Beside the request: a member of before there were levels refuses one with a field that it does not know.
    let Levels { min, max } = cluster.levels();
    let path = format!("/api/v1/cluster/join?level-min={min}&level-max={max}");
    let give_up = tokio::time::Instant::now() + JOIN_WAIT;
    loop {
        for member in &cluster.join {
            match http::request(Method::POST, member, &path, body.clone()).await {
                Ok((status, answer)) if status.is_success() => {
                    let answer: JoinAnswer = serde_json::from_slice(&answer)?;
                    if answer.shards != cluster.shards {
                        bail!(
                            "cluster.shards is {} here, and the cluster has {}: correct this node's file, and empty \
                             its data directory",
                            cluster.shards,
                            answer.shards
                        );
                    }
                    // A member of before there were levels says none, and asks for none.
                    cluster.fits(answer.level.max(FIRST))?;
                    info!(member, "this node has joined");
                    return Ok(answer
                        .members
                        .into_iter()
                        .map(|(id, at)| (NodeId(id), at))
                        .collect());
                }
                // Asking again would not help.
                Ok((status, answer)) if status.is_client_error() => {
                    bail!("{member} does not let this node in: {}", reason(&answer));
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
