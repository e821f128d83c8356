//! One standing connection to a peer, from the side that made it, and the place where it is found.

use std::sync::{Arc, PoisonError, RwLock};

use moorline_core::{NodeId, ShardId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    error::SendError,
    hello::Identity,
    kind::Lane,
    message::{Header, MESSAGE_BYTES_MAX, Role},
    send_queue::{PushError, SendQueue},
};

/// A connection. A new one is a new `Link`: nothing of an old connection can be mistaken for it.
#[derive(Debug)]
pub(super) struct Link {
    /// Who is there.
    pub(super) peer: Identity,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) calls: Calls,
    /// Cancelled to end the connection from here.
    pub(super) stop: CancellationToken,
}

impl Link {
    /// Queues a message.
    pub(super) fn push(
        &self,
        kind: u8,
        role: Role,
        shard: ShardId,
        correlation: u64,
        body: &[u8],
    ) -> Result<(), SendError> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let header = Header { kind, role, shard, correlation };
        self.send_queue.push(header, body).map_err(|error| match error {
            PushError::Closed => SendError::Unreachable,
            PushError::Full => SendError::Full,
        })
    }
}

/// A peer and the connections to it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// `host:port`
    pub(super) address: String,
    lanes: [LaneSlot; Lane::ALL.len()],
    /// Cancelled when the peer is no peer any more.
    pub(super) stop: CancellationToken,
}

#[derive(Debug, Default)]
struct LaneSlot {
    link: RwLock<Option<Arc<Link>>>,
    nudge: Notify,
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String, stop: CancellationToken) -> Arc<Self> {
        let lanes = std::array::from_fn(|_| LaneSlot::default());
        Arc::new(Self { node, address, lanes, stop })
    }

    pub(super) fn link(&self, lane: Lane) -> Option<Arc<Link>> {
        let slot = &self.lanes[lane.index()];
        slot.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_link(&self, lane: Lane, link: Option<Arc<Link>>) {
        let slot = &self.lanes[lane.index()];
        *slot.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// The peer is there, as it seems: whoever pauses before the next attempt to connect need not.
    pub(super) fn nudge(&self) {
        for slot in &self.lanes {
            slot.nudge.notify_waiters();
        }
    }

    pub(super) async fn nudged(&self, lane: Lane) {
        self.lanes[lane.index()].nudge.notified().await;
    }
}
