//! What other nodes ask of the groups here. The wire calls in arrival order from its receive task: nothing here waits.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::StreamExt;
use moorline_core::{NodeId, ShardId};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use crate::{
    codec::{Malformed, message},
    group::Group,
    groups::Node,
    receive_snapshot::Piece,
    types::{Raft, Types},
    wire::{Handler, Kind, Peers, Replier},
};

/// Append requests of one group that wait for its core. A leader sends 64 before it waits for answers.
pub(crate) const APPENDS_WAITING: usize = 256;
/// Append requests of one group that are with its core.
const APPENDS_IN_CORE: usize = 64;

/// An append request on its way to the core of its group.
pub(crate) type Append = (AppendEntriesRequest<Types>, Option<Replier>);

/// One kind of message, for all groups.
#[derive(Debug)]
struct Inbound {
    kind: Kind,
    node: Weak<Node>,
}

/// Takes every kind that is the groups' own.
pub(crate) fn register(peers: &Peers, node: &Arc<Node>) {
    for kind in [
        Kind::AppendStream,
        Kind::Heartbeat,
        Kind::Vote,
        Kind::PreVote,
        Kind::TransferLeader,
        Kind::Matched,
        Kind::SnapshotBegin,
        Kind::SnapshotChunk,
        Kind::SnapshotEnd,
    ] {
        peers.register(kind, Arc::new(Inbound { kind, node: Arc::downgrade(node) }));
    }
}

impl Handler for Inbound {
    fn handle(&self, from: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>) {
        let Some(node) = self.node.upgrade() else {
            return refuse(reply, "stopping");
        };
        let Some(group) = node.group(shard) else {
            // Also while the start-up log check goes on: a replica that lost log must not vote.
            return self.without_group(&node, shard, body, reply);
        };
        if let Err(error) = self.take(&node, group, from, body, reply) {
            warn!(%from, %shard, kind = ?self.kind, %error, "a message of another node was not understood");
        }
    }
}

impl Inbound {
    fn without_group(
        &self,
        node: &Node,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        if self.kind == Kind::Matched
            && node.is_opening(shard)
            && message::decode_ask_matched(body).is_ok()
        {
            // Two nodes that start together tell each other that neither leads.
            return answer(reply, message::Matched::default().encode());
        }
        refuse(reply, "no such group here");
    }

    fn take(
        &self,
        node: &Arc<Node>,
        group: Arc<Group>,
        from: NodeId,
        body: Bytes,
        reply: Option<Replier>,
    ) -> Result<(), Malformed> {
        let raft = group.raft.clone();
        match self.kind {
            Kind::AppendStream => {
                let request = message::decode_append(body)?;
                if let Err(full) = group.appends.try_send((request, reply)) {
                    refuse(full.into_inner().1, "too many appends wait");
                }
            }
            Kind::Heartbeat => {
                let request = message::decode_append(body)?;
                node.spawn_request(async move {
                    match raft.append_entries(request).await {
                        Ok(response) => answer(reply, message::encode_appended(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Kind::Vote | Kind::PreVote => {
                let request = message::decode_vote(body)?;
                let real = self.kind == Kind::Vote;
                node.spawn_request(async move {
                    let voted =
                        if real { raft.vote(request).await } else { raft.pre_vote(request).await };
                    match voted {
                        Ok(response) => answer(reply, message::encode_voted(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Kind::TransferLeader => {
                let request = message::decode_transfer(body)?;
                node.spawn_request(async move {
                    match raft.handle_transfer_leader(request).await {
                        Ok(response) => answer(reply, message::encode_moved(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Kind::Matched => {
                message::decode_ask_matched(body)?;
                answer(reply, group.matched(from).encode());
            }
            Kind::SnapshotBegin | Kind::SnapshotChunk | Kind::SnapshotEnd => {
                let piece = Piece { kind: self.kind, from, body, reply };
                if let Err(full) = group.pieces.try_send(piece) {
                    refuse(full.into_inner().reply, "too many pieces wait");
                }
            }
            other => warn!(kind = ?other, "not a message of the groups"),
        }
        Ok(())
    }
}

/// Hands append requests to the core in the order in which they came, and its answers back.
pub(crate) async fn appends(raft: Raft, waiting: mpsc::Receiver<Append>) {
    let mut answered = ReceiverStream::new(waiting)
        .map(|(request, reply)| {
            let raft = raft.clone();
            async move { (raft.append_entries(request).await, reply) }
        })
        .buffered(APPENDS_IN_CORE);
    while let Some((result, reply)) = answered.next().await {
        match result {
            Ok(response) => answer(reply, message::encode_appended(&response)),
            Err(error) => refuse(reply, &error.to_string()),
        }
    }
}

pub(crate) fn answer(reply: Option<Replier>, body: Bytes) {
    if let Some(reply) = reply {
        reply.send(body);
    }
}

pub(crate) fn refuse(reply: Option<Replier>, why: &str) {
    if let Some(reply) = reply {
        reply.refuse(why);
    }
}
