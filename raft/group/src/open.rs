//! Opening a replica, in the order that keeps it honest: finish what a crash interrupted, compare the log with the
//! leader's, apply what was committed, and only then take part.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use futures_util::FutureExt;
use moorline_core::{NodeId, ShardId};
use moorline_storage::{StorageError, log::Mark};
use tokio::{
    sync::{mpsc, watch},
    task::unconstrained,
};

use crate::{
    blocking::spawn_blocking,
    clear,
    codec::disk::decode_log_id,
    config::Clock,
    error::GroupError,
    group::Group,
    groups::{Node, clean_staging},
    log_clock::ReplicaClock,
    log_store::LogStore,
    network::Network,
    proposer::{Hand, Handed, Proposer},
    receive,
    receive_snapshot::{self, PIECES_WAITING},
    role::Role,
    snapshot::{self, Snapshots},
    startup,
    state::{State, StateMachine},
    types::Raft,
};

/// See the module.
pub(crate) async fn open(node: &Arc<Node>, shard: ShardId) -> Result<(), GroupError> {
    let storage = |source| GroupError::Storage { shard, source };
    let metrics = node.metrics.of(shard);
    // What it must have again before it votes.
    let floor = clear::finish(shard, &node.disk).await.map_err(storage)?;
    let OnDisk { state, log } = {
        let (node, metrics) = (Arc::clone(node), metrics.clone());
        let work = move || open_disk(&node, shard, metrics);
        spawn_blocking(work).await.expect("opening a replica does not panic").map_err(storage)?
    };
    let cleared = log.set_mark(Mark::Installing, Bytes::new()).await;
    cleared.map_err(|source| storage(StorageError::Io { doing: "clearing a mark", source }))?;
    clean_staging(&node.config.staging, shard).map_err(GroupError::Staging)?;
    compare_log(node, shard, &state, &log).await?;

    let snapshots = Snapshots {
        state: Arc::clone(&state),
        log: log.clone(),
        maintenance: Arc::default(),
        staging: node.config.staging.clone(),
        metrics: node.metrics.clone(),
        kept: Arc::default(),
        keep: node.config.snapshots.keep,
    };
    let me = node.config.node;
    let (peers, weak) = (node.peers.clone(), Arc::downgrade(node));
    let network = Network { shard, me, peers, node: weak };
    let machine = StateMachine { state: Arc::clone(&state), snapshots: snapshots.clone() };
    let config = Arc::clone(&node.raft);
    let raft = Raft::build(me.0, config, network, log.clone(), machine)
        .await
        .map_err(|error| GroupError::Raft { shard, why: error.to_string() })?;

    let limits = node.config.batcher;
    let stamps = Arc::clone(&state);
    let clock: Clock = Arc::new(move || stamps.log_time());
    let proposer = Proposer::new(shard, limits, clock, hand(raft.clone()), metrics.clone());
    let (appends, appends_waiting) = mpsc::channel(receive::APPENDS_WAITING);
    let (pieces, pieces_waiting) = mpsc::channel(PIECES_WAITING);
    let receiver = receive_snapshot::Receiver {
        shard,
        raft: raft.clone(),
        staging: node.config.staging.clone(),
        metrics: node.metrics.clone(),
        begun: 0,
        transfer: None,
    };
    let group = Arc::new(Group {
        shard,
        me,
        state,
        log,
        raft: raft.clone(),
        proposer,
        snapshots,
        appends,
        pieces,
        role: watch::Sender::new(Role::default()),
        ready: watch::Sender::new(false),
        metrics,
        preferred: AtomicU64::new(0),
        floor,
        closing: node.stopping.child_token(),
    });
    wait_for_floor(node, &group);
    raft.run();
    node.insert(Arc::clone(&group));
    node.spawn(receive::appends(raft, appends_waiting));
    node.spawn(receiver.run(pieces_waiting));
    node.spawn(Arc::clone(&group).follow_role());
    node.spawn(group.follow_recovery());
    Ok(())
}

/// A replica that was deleted here once does not ask for votes until it has again what it had.
fn wait_for_floor(node: &Arc<Node>, group: &Arc<Group>) {
    if group.has_caught_up() {
        return;
    }
    group.raft.runtime_config().elect(false);
    let (weak, group) = (Arc::downgrade(node), Arc::clone(group));
    node.spawn(async move {
        group.wait_caught_up().await;
        if weak.upgrade().is_some_and(|node| !node.is_handing_over()) {
            group.raft.runtime_config().elect(true);
        }
    });
}

/// What is on this node's disk.
struct OnDisk {
    state: Arc<State>,
    log: LogStore,
}

/// What needs only this node's disk.
fn open_disk(
    node: &Node,
    shard: ShardId,
    metrics: crate::metrics::ShardMetrics,
) -> Result<OnDisk, StorageError> {
    let engine = Arc::clone(&node.disk.log);
    let store = &node.disk.store;
    let mark = engine.mark(shard, Mark::Installing)?;
    snapshot::redo(shard, &**store, mark, &node.config.staging)?;
    let durable = engine.mark(shard, Mark::DurableApplied)?.filter(|mark| !mark.is_empty());
    let log = LogStore::open(shard, engine, node.ring_share.clone(), metrics.clone())?;
    let clock = ReplicaClock::new(Arc::clone(&node.config.clock), log.last_log_id());
    let (sink, fatal) = (Arc::clone(&node.sink), Arc::clone(&node.config.fatal));
    let (store, pressure) = (Arc::clone(store), node.pressure.clone());
    let state = State::open(shard, store, clock, sink, fatal, pressure, metrics)?;

    let corrupt =
        |why: String| StorageError::Corrupt { what: format!("the rows of shard {shard}"), why };
    let durable =
        durable.map(decode_log_id).transpose().map_err(|error| corrupt(error.to_string()))?;
    let applied = state.applied_log_id();
    if durable > applied {
        return Err(corrupt(format!(
            "they are at {applied:?}, but were at {durable:?} when log was purged: remove this node from the cluster, \
             wipe its data directory and join it under a new node id"
        )));
    }
    Ok(OnDisk { state, log })
}

async fn compare_log(
    node: &Arc<Node>,
    shard: ShardId,
    state: &State,
    log: &LogStore,
) -> Result<(), GroupError> {
    let last = log.last_log_id().max(state.applied_log_id());
    let membership = state.durable().membership;
    let mut voters: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    if voters.is_empty() {
        voters = node.peers.peers().into_iter().collect();
    }
    startup::check(node, shard, last, voters).await
}

/// Hands entries to a Raft core without waiting.
fn hand(raft: Raft) -> Hand {
    Box::new(move |commands, ticket| {
        // The core's queue has room unless the core hangs, so the future is ready at once; `unconstrained`, because tokio
        // would otherwise make it wait for the sake of other tasks.
        match unconstrained(raft.client_write_ff(commands, Some(ticket))).now_or_never() {
            Some(Ok(())) => Handed::Taken,
            Some(Err(_)) => Handed::Stopped,
            None => Handed::Full,
        }
    })
}
