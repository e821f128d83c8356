//! What openraft sends: appends pipelined on the data lane, heartbeats, votes and transfers on the control lane,
//! snapshots on the bulk lane.

use std::{fmt, future::Future, sync::Weak, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use moorline_core::{NodeId, ShardId};
use openraft::{
    OptionalSend, RPCTypes,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RaftNetworkFactory, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};

use tokio::task::yield_now;

use crate::{
    codec::{Malformed, message},
    groups::Node,
    send_snapshot,
    snapshot::SnapshotData,
    types::{Address, RaftSnapshot, RaftVote, Types},
    wire::{CallError, Kind, Lane, Peers},
};

/// Append requests that are sent before the first is answered.
const APPENDS_IN_FLIGHT: usize = 64;
/// A disk that stalls longer than this makes a follower lag: the stream is begun anew, with a pause.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// Makes openraft's clients of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) shard: ShardId,
    pub(crate) me: NodeId,
    pub(crate) peers: Peers,
    pub(crate) node: Weak<Node>,
}

/// One group's way to one node.
pub(crate) struct Client {
    network: Network,
    to: NodeId,
    /// How appends travel: a heartbeat must not wait behind data.
    appends: (Lane, Kind),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client of shard {} to node {}", self.network.shard, self.to)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _: &Address) -> Client {
        let appends = (Lane::Data, Kind::AppendStream);
        Client { network: self.clone(), to: NodeId(target), appends }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &Address) -> Client {
        let appends = (Lane::Control, Kind::Heartbeat);
        Client { network: self.clone(), to: NodeId(target), appends }
    }
}

impl Client {
    fn append(
        &self,
        request: &AppendEntriesRequest<Types>,
        deadline: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<Types>, RPCError<Types>>> + Send + use<>
    {
        let (lane, kind) = self.appends;
        let call = self.call(lane, kind, message::encode_append(request), deadline);
        let failed = self.failed(RPCTypes::AppendEntries, deadline);
        async move {
            let body = call.await.map_err(failed)?;
            message::decode_appended(body).map_err(malformed)
        }
    }

    fn call(
        &self,
        lane: Lane,
        kind: Kind,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        self.network.peers.call(self.to, lane, kind, self.network.shard, body, deadline)
    }

    async fn control<T>(
        &self,
        kind: Kind,
        action: RPCTypes,
        body: Bytes,
        decode: impl FnOnce(Bytes) -> Result<T, Malformed> + Send,
        option: &RPCOption,
    ) -> Result<T, RPCError<Types>> {
        let deadline = option.soft_ttl();
        let answer = self.call(Lane::Control, kind, body, deadline).await;
        decode(answer.map_err(self.failed(action, deadline))?).map_err(malformed)
    }

    fn failed(
        &self,
        action: RPCTypes,
        timeout: Duration,
    ) -> impl FnOnce(CallError) -> RPCError<Types> + Send + use<> {
        let (id, target) = (self.network.me.0, self.to.0);
        move |error| match error {
            CallError::Deadline => RPCError::Timeout(Timeout { action, id, target, timeout }),
            // The lane is being made anew: at once again.
            CallError::Closed => RPCError::Network(NetworkError::new(&error)),
            CallError::Unreachable
            | CallError::Full
            | CallError::TooLarge
            | CallError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

/// Lets whatever can run now run before news of a commit alone: the answer to whoever waits for that commit, above all. Followers are in no
/// such hurry. A heartbeat may be what a barrier waits for.
async fn in_turn(lane: Lane, request: AppendEntriesRequest<Types>) -> AppendEntriesRequest<Types> {
    if request.entries.is_empty() && lane != Lane::Control {
        yield_now().await;
    }
    request
}

fn malformed(error: Malformed) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(&request, APPEND_DEADLINE).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let deadline = match self.appends.0 {
            Lane::Control => option.soft_ttl(),
            Lane::Data | Lane::Bulk => APPEND_DEADLINE,
        };
        let lane = self.appends.0;
        let answers = input
            .then(move |request| in_turn(lane, request))
            .map(move |request| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id);
                let last = last.or(previous);
                let answer = self.append(&request, deadline);
                async move { result_of(answer.await?, previous, last) }
            })
            .buffered(APPENDS_IN_FLIGHT);
        let answers: BoxStream<'s, _> = Box::pin(answers);
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = message::encode_vote(&request);
        self.control(Kind::Vote, RPCTypes::Vote, body, message::decode_voted, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = message::encode_vote(&request);
        self.control(Kind::PreVote, RPCTypes::Vote, body, message::decode_voted, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Some(node) = self.network.node.upgrade() else {
            return Err(StreamingError::Closed(ReplicationClosed::new("the node is stopping")));
        };
        // When it is done openraft believes that the follower has this, so it must be sent no less.
        let told = snapshot.meta.last_log_id;
        let to = send_snapshot::To { shard: self.network.shard, node: self.to };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot::send(&node, to, vote, told) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = message::encode_transfer(&request);
        let action = RPCTypes::TransferLeader;
        self.control(Kind::TransferLeader, action, body, message::decode_moved, &option).await
    }
}

fn result_of(
    response: AppendEntriesResponse<Types>,
    previous: Option<crate::types::RaftLogId>,
    last: Option<crate::types::RaftLogId>,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    // openraft would panic: nothing conflicts with the beginning of the log.
    if response.is_conflict() && previous.is_none() {
        return Err(malformed(Malformed("append response: a conflict with nothing")));
    }
    Ok(response.into_stream_result(previous, last))
}
