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
    receive_snapshot::{Part, Piece},
    types::{Raft, Types},
    wire::{Handler, Kind, Peers, Replier},
};

/// Append requests of one group that wait for its core. A leader sends 64 before it waits for answers.
pub(crate) const APPENDS_WAITING: usize = 256;
/// Append requests of one group that are with its core.
const APPENDS_IN_CORE: usize = 64;

/// An append request on its way to the core of its group.
pub(crate) type Append = (AppendEntriesRequest<Types>, Option<Replier>);

/// What another node may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Append,
    Heartbeat,
    Vote,
    PreVote,
    Transfer,
    Matched,
    Snapshot(Part),
}

/// One kind of message, for all groups.
#[derive(Debug)]
struct Inbound {
    ask: Ask,
    node: Weak<Node>,
}

/// Takes every kind that is the groups' own.
pub(crate) fn register(peers: &Peers, node: &Arc<Node>) {
    for (kind, ask) in [
        (Kind::AppendStream, Ask::Append),
        (Kind::Heartbeat, Ask::Heartbeat),
        (Kind::Vote, Ask::Vote),
        (Kind::PreVote, Ask::PreVote),
        (Kind::TransferLeader, Ask::Transfer),
        (Kind::Matched, Ask::Matched),
        (Kind::SnapshotBegin, Ask::Snapshot(Part::Begin)),
        (Kind::SnapshotChunk, Ask::Snapshot(Part::Chunk)),
        (Kind::SnapshotEnd, Ask::Snapshot(Part::End)),
        (Kind::SnapshotResume, Ask::Snapshot(Part::Resume)),
    ] {
        peers.register(kind, Arc::new(Inbound { ask, node: Arc::downgrade(node) }));
    }
}

impl Handler for Inbound {
    fn handle(&self, from: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>) {
        let Some(node) = self.node.upgrade() else {
            return refuse(reply, "stopping");
        };
        let Some(group) = node.group(shard) else {
            // Also while the start-up log check goes on: a replica that lost log must not vote.
            return refuse(reply, "no such group is open here");
        };
        if let Err(error) = self.take(&node, group, from, body, reply) {
            warn!(%from, %shard, ask = ?self.ask, %error, "a message of another node was not understood");
        }
    }
}

impl Inbound {
    fn take(
        &self,
        node: &Arc<Node>,
        group: Arc<Group>,
        from: NodeId,
        body: Bytes,
        reply: Option<Replier>,
    ) -> Result<(), Malformed> {
        let raft = group.raft.clone();
        let about_leadership = matches!(self.ask, Ask::Vote | Ask::PreVote | Ask::Transfer);
        if about_leadership && !group.has_caught_up() {
            refuse(reply, "this replica was deleted once and does not have again what it had");
            return Ok(());
        }
        match self.ask {
            Ask::Append => {
                let request = message::decode_append(body)?;
                if let Err(full) = group.appends.try_send((request, reply)) {
                    refuse(full.into_inner().1, "too many appends wait");
                }
            }
            Ask::Heartbeat => {
                let request = message::decode_append(body)?;
                node.spawn_request(async move {
                    match raft.append_entries(request).await {
                        Ok(response) => answer(reply, message::encode_appended(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Ask::Vote | Ask::PreVote => {
                let request = message::decode_vote(body)?;
                let real = self.ask == Ask::Vote;
                node.spawn_request(async move {
                    let voted =
                        if real { raft.vote(request).await } else { raft.pre_vote(request).await };
                    match voted {
                        Ok(response) => answer(reply, message::encode_voted(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Ask::Transfer => {
                let request = message::decode_transfer(body)?;
                node.spawn_request(async move {
                    match raft.handle_transfer_leader(request).await {
                        Ok(response) => answer(reply, message::encode_moved(&response)),
                        Err(error) => refuse(reply, &error.to_string()),
                    }
                });
            }
            Ask::Matched => {
                message::decode_ask_matched(body)?;
                answer(reply, group.matched(from).encode());
            }
            Ask::Snapshot(part) => {
                let piece = Piece { part, from, body, reply };
                if let Err(full) = group.pieces.try_send(piece) {
                    refuse(full.into_inner().reply, "too many pieces wait");
                }
            }
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
