//! The side that is connected to: checks the hello, hands messages to their handlers in order, sends the answers.
//!
//! # Invariants
//!
//! - **One stream per peer and lane.** A newer one ends the older, and begins only when the older's last handler has
//!   returned: so order holds across a reconnect.
//! - **A stranger gets nothing.** No handler sees a message of a stream before its hello was checked.

use std::{
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use moorline_core::{NodeId, ShardId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use tracing::{debug, warn};

use super::{
    Replier, Shared,
    config::{
        CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, HELLO_DEADLINE, HTTP2_FRAME_BYTES,
        INCOMING_KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES, limits,
    },
    hello::{Answer, Hello, Refusal, RefusalReason},
    incoming::{Shown, connections},
    kind::Lane,
    message::{self, HELLO_KIND, Header, MalformedFrame, Message, Role},
    proto::{Frame, peer_server},
    send_queue::{Drain, SendQueue},
    transport::Listener,
};

/// What stands between a peer's streams of one lane.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Ends the stream that stands now.
    pub(super) stop: CancellationToken,
    /// The data directory of the process at its other end.
    pub(super) store: u128,
    /// Held while a stream's messages are handled.
    order: Arc<tokio::sync::Mutex<()>>,
}

/// A stream that was let in.
struct Accepted {
    from: NodeId,
    lane: Lane,
    inbound: Streaming<Frame>,
    /// What came in one frame with the hello.
    rest: Bytes,
    send_queue: Arc<SendQueue>,
    stop: CancellationToken,
    order: Arc<tokio::sync::Mutex<()>>,
}

/// The gRPC service.
#[derive(Debug, Clone)]
struct Accept {
    shared: Arc<Shared>,
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

#[tonic::async_trait]
impl peer_server::Peer for Accept {
    type ControlStream = Frames;
    type DataStream = Frames;
    type BulkStream = Frames;

    async fn control(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Frames>, Status> {
        self.accept(Lane::Control, request).await
    }

    async fn data(&self, request: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        self.accept(Lane::Data, request).await
    }

    async fn bulk(&self, request: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        self.accept(Lane::Bulk, request).await
    }
}

impl Accept {
    async fn accept(
        &self,
        lane: Lane,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Frames>, Status> {
        let shown = request.extensions().get::<Shown>().and_then(|shown| shown.0.clone());
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_DEADLINE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let (hello, rest) = first
            .and_then(|frame| read_hello(frame.body))
            .filter(|(hello, _)| hello.lane == lane as u8)
            .ok_or_else(|| Status::invalid_argument("no hello"))?;

        let shared = &self.shared;
        let (from, own) = (hello.from.node, shared.own);
        let refused = match &shared.tls {
            Some(tls) if !shown.is_some_and(|shown| tls.now().is_of(from, &shown)) => {
                Some(RefusalReason::Certificate)
            }
            Some(_) | None => shared.expected(from).check_hello(&hello),
        };
        let send_queue = SendQueue::new(limits(lane), shared.metrics.lane(lane).sent.clone());
        let header =
            Header { kind: HELLO_KIND, role: Role::Response, shard: ShardId(0), correlation: 0 };
        let answer = Answer { from: own, refused };
        send_queue.push(header, &answer.encode()).map_err(|_| Status::internal("no answer"))?;
        match refused {
            Some(reason) => {
                self.refuse(from, reason);
                send_queue.finish();
            }
            None => {
                shared.heard(&hello.from);
                let (stop, order) = self.supersede(from, lane, hello.from.store);
                let send_queue = send_queue.clone();
                let accepted = Accepted { from, lane, inbound, rest, send_queue, stop, order };
                shared.tracker.spawn(receive(shared.clone(), accepted));
                shared.nudge(from);
            }
        }
        let frames = Drain(send_queue).map(|body| Ok(Frame { body }));
        Ok(Response::new(Box::pin(frames)))
    }

    fn refuse(&self, peer: NodeId, reason: RefusalReason) {
        self.shared.refused(Refusal { peer, reason, by_peer: false });
    }

    /// Ends the older stream of this peer and lane, if there is one.
    fn supersede(
        &self,
        from: NodeId,
        lane: Lane,
        store: u128,
    ) -> (CancellationToken, Arc<tokio::sync::Mutex<()>>) {
        let mut incoming = self.shared.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        // At most three per known node: strangers were refused before.
        let slot = incoming.entry((from, lane)).or_default();
        slot.stop.cancel();
        slot.stop = self.shared.stop.child_token();
        slot.store = store;
        (slot.stop.clone(), slot.order.clone())
    }
}

fn read_hello(mut frame: Bytes) -> Option<(Hello, Bytes)> {
    let message = message::take(&mut frame).ok()??;
    let header = message.header;
    if header.kind != HELLO_KIND || header.role != Role::Request {
        return None;
    }
    Some((Hello::decode(message.body)?, frame))
}

/// Handles a stream's messages until it ends.
async fn receive(shared: Arc<Shared>, mut accepted: Accepted) {
    let Accepted { from, lane, .. } = accepted;
    let _order = accepted.order.clone().lock_owned().await;
    let metrics = shared.metrics.lane(lane);
    let stop = accepted.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    let mut frame = std::mem::take(&mut accepted.rest);
    loop {
        let bytes = frame.len();
        match handle_all(&shared, from, &accepted.send_queue, frame) {
            Ok(0) => {}
            Ok(messages) => metrics.received.count(bytes, messages),
            Err(MalformedFrame) => {
                metrics.malformed.inc();
                warn!(peer = %from, lane = lane.name(), "a frame is malformed: closing");
                accepted.send_queue.close();
                return;
            }
        }
        tokio::task::coop::consume_budget().await;
        let next = tokio::select! {
            biased;
            () = &mut stopped => break,
            next = accepted.inbound.message() => next,
        };
        match next {
            Ok(Some(next)) => frame = next.body,
            Ok(None) => break,
            Err(status) => {
                debug!(peer = %from, lane = lane.name(), %status, "incoming stream ended");
                break;
            }
        }
    }
    // Answers that are ready still leave; who asked for others hears that the connection ended.
    accepted.send_queue.finish();
}

/// How many messages the frame held.
fn handle_all(
    shared: &Shared,
    from: NodeId,
    send_queue: &Arc<SendQueue>,
    mut frame: Bytes,
) -> Result<usize, MalformedFrame> {
    let mut messages = 0;
    while let Some(Message { header, body }) = message::take(&mut frame)? {
        messages += 1;
        let reply = match header.role {
            Role::Oneway => None,
            Role::Request => Some(Replier::over(send_queue.clone(), header)),
            Role::Response | Role::Failure => return Err(MalformedFrame),
        };
        match shared.handler(header.kind) {
            Some(handler) => handler.handle(from, header.shard, body, reply),
            None => {
                if let Some(reply) = reply {
                    reply.refuse(&format!("no handler for kind {}", header.kind));
                }
            }
        }
    }
    Ok(messages)
}

/// Serves the listener until the wire stops.
pub(super) async fn run(shared: Arc<Shared>, listener: Box<dyn Listener>) {
    let stop = shared.stop.clone().cancelled_owned();
    let connections = connections(shared.clone(), listener);
    let service = peer_server::PeerServer::new(Accept { shared: shared.clone() })
        .max_decoding_message_size(FRAME_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(1)
        .http2_keepalive_interval(Some(INCOMING_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let served = server.serve_with_incoming_shutdown(service, connections, stop).await;
    if let Err(error) = served {
        warn!(?error, "the listener for peers ended");
    }
}
