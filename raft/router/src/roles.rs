//! Keeps up with who leads which shard.
//!
//! Where this node has a replica, the replica says so at once. Where it has none, others are asked: each second, and
//! soon after a failure.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use moorline_core::{NodeId, ShardId};
use moorline_group::Role;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    router::{Inner, Slot},
    wire::ask_leader,
};

/// How often others are asked while all is well.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How often they are asked while no leader is known.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// Who leads a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// The node, if there is a leader.
    pub node: Option<NodeId>,
    /// The Raft term it was heard of in. A higher one is newer.
    pub term: u64,
}

/// Who leads each shard that this node has had to do with.
pub type Leaders = Arc<BTreeMap<ShardId, Leader>>;

/// Watches one shard until the router is gone or stops.
pub(crate) async fn watch(inner: Weak<Inner>, slot: Arc<Slot>) {
    let mut turn = 0;
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let stop = strong.stop.clone();
        let replica = strong.replicas.role(slot.shard);
        let step = async {
            match replica {
                Some(role) => {
                    drop(strong);
                    follow(&inner, &slot, role).await;
                }
                None => ask(strong, &slot, &mut turn).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = step => {}
        }
    }
}

/// Passes on what the replica says, until it is gone.
async fn follow(inner: &Weak<Inner>, slot: &Arc<Slot>, mut role: watch::Receiver<Role>) {
    loop {
        let now = *role.borrow_and_update();
        match inner.upgrade() {
            Some(inner) => inner.heard(slot, now),
            None => return,
        }
        if role.changed().await.is_err() {
            // The replica was closed; there may be another, or none.
            return sleep(SEARCH_INTERVAL).await;
        }
    }
}

/// Asks one other node, and pauses.
async fn ask(inner: Arc<Inner>, slot: &Arc<Slot>, turn: &mut usize) {
    let others = inner.peers.peers();
    *turn = turn.wrapping_add(1);
    let role = match others.get(*turn % others.len().max(1)) {
        Some(node) => ask_leader(&inner.peers, *node, slot.shard).await,
        None => None,
    };
    if let Some(role) = role {
        inner.heard(slot, role);
    }
    drop(inner);
    match role {
        Some(Role { leader: Some(_), .. }) => {
            // Nothing new, unless a run fails.
            drop(timeout(ASK_INTERVAL, slot.failed.notified()).await);
        }
        Some(_) | None => sleep(SEARCH_INTERVAL).await,
    }
}
