//! Keeps one connection to one peer: makes it, says hello, takes its answers, and makes it again.
//!
//! After a loss the first attempt comes at once: if TCP refuses it, the peer's process is dead, and everybody who
//! watches [`PeerStates`](super::PeerStates) knows within a millisecond or two.

use std::{
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use moorline_core::ShardId;
use thiserror::Error;
use tokio::time::timeout;
use tonic::{
    Streaming,
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};
use tracing::{debug, info, warn};

use super::{
    Shared,
    calls::Calls,
    config::{
        BACKOFF_FIRST, BACKOFF_MAX, CONNECT_DEADLINE, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX,
        HELLO_DEADLINE, HTTP2_FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
        STREAM_WINDOW_BYTES, limits,
    },
    error::CallError,
    hello::{Answer, Hello, Identity, Refusal, RefusalReason},
    kind::Lane,
    link::{Link, Peer},
    message::{self, HELLO_KIND, Header, MalformedFrame, Message, Role},
    proto::{Frame, peer_client::PeerClient},
    send_queue::{Drain, SendQueue},
    state::LaneState,
    tls::{Kept, Tls},
    transport::Socket,
};

/// Why there is no connection.
#[derive(Debug, Error)]
enum ConnectError {
    #[error("refused: no process listens there")]
    Refused,
    #[error("no connection")]
    Tcp(#[source] io::Error),
    #[error("no connection in time")]
    Deadline,
    #[error("the wire is not started")]
    NotStarted,
    #[error("no HTTP/2 connection")]
    Http(#[source] tonic::transport::Error),
    #[error("no stream")]
    Stream(#[source] Box<tonic::Status>),
    #[error("the other side does not say hello")]
    NoHello,
    #[error("the TLS files were read again meanwhile")]
    OldTls,
    #[error("{0}")]
    Refusal(Refusal),
}

/// A connection that stands.
struct Connected {
    link: Arc<Link>,
    inbound: Streaming<Frame>,
    /// What came in one frame with the hello.
    rest: Bytes,
    /// Keeps the connection open.
    _client: PeerClient<Channel>,
}

/// Runs until the peer is no peer any more.
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane) {
    let stopped = peer.stop.clone();
    let work = async {
        let mut pause = BACKOFF_FIRST;
        loop {
            match connect(&shared, &peer, lane).await {
                Ok(connected) => {
                    serve(&shared, &peer, lane, connected).await;
                    pause = BACKOFF_FIRST;
                }
                Err(error) => {
                    failed(&shared, &peer, lane, &error);
                    // Nudged by the peer's own hello: it is back.
                    let nudged = timeout(pause, peer.nudged(lane)).await.is_ok();
                    pause = if nudged { BACKOFF_FIRST } else { BACKOFF_MAX.min(pause * 2) };
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stopped.cancelled() => {}
        () = work => {}
    }
    if let Some(link) = peer.link(lane) {
        end(&peer, lane, &link);
    }
}

fn failed(shared: &Shared, peer: &Peer, lane: Lane, error: &ConnectError) {
    let state = match error {
        ConnectError::Refused => LaneState::Refused,
        ConnectError::Tcp(_)
        | ConnectError::Deadline
        | ConnectError::NotStarted
        | ConnectError::Http(_)
        | ConnectError::Stream(_)
        | ConnectError::NoHello
        | ConnectError::OldTls
        | ConnectError::Refusal(_) => LaneState::Silent,
    };
    if let ConnectError::Refusal(refusal) = error {
        shared.refused(*refusal);
    }
    shared.metrics.lane(lane).failed_connects.inc();
    let lane_name = lane.name();
    debug!(peer = %peer.node, address = peer.address, lane = lane_name, ?error, "not connected");
    shared.states.report(peer.node, lane, state, Instant::now());
}

/// Serves a connection until it ends.
async fn serve(shared: &Shared, peer: &Peer, lane: Lane, mut connected: Connected) {
    let link = connected.link.clone();
    let metrics = shared.metrics.lane(lane);
    metrics.connects.inc();
    peer.set_link(lane, Some(link.clone()));
    let incarnation = link.peer.incarnation;
    shared.states.report(peer.node, lane, LaneState::Up(incarnation), Instant::now());
    info!(peer = %peer.node, lane = lane.name(), %incarnation, "connected");

    let why = receive(shared, lane, &link, &mut connected).await;

    end(peer, lane, &link);
    metrics.losses.inc();
    shared.states.report(peer.node, lane, LaneState::Silent, Instant::now());
    warn!(peer = %peer.node, lane = lane.name(), why, "connection lost");
}

fn end(peer: &Peer, lane: Lane, link: &Link) {
    peer.set_link(lane, None);
    link.send_queue.close();
    link.calls.close();
}

/// Takes answers until the connection ends; says why it did.
async fn receive(shared: &Shared, lane: Lane, link: &Link, connected: &mut Connected) -> String {
    let metrics = shared.metrics.lane(lane);
    let mut frame = std::mem::take(&mut connected.rest);
    let mut stopped = pin!(link.stop.cancelled());
    loop {
        let (now, bytes, mut messages) = (Instant::now(), frame.len(), 0);
        loop {
            let good = match message::take(&mut frame) {
                Ok(Some(message)) => answer(link, message, now, &metrics.call_seconds),
                Ok(None) => break,
                Err(MalformedFrame) => false,
            };
            if !good {
                metrics.malformed.inc();
                return "a frame is malformed".to_owned();
            }
            messages += 1;
        }
        if messages > 0 {
            metrics.received.count(bytes, messages);
        }
        tokio::task::coop::consume_budget().await;
        let next = tokio::select! {
            biased;
            () = &mut stopped => return "closed from here".to_owned(),
            next = connected.inbound.message() => next,
        };
        match next {
            Ok(Some(next)) => frame = next.body,
            Ok(None) => return "closed by the peer".to_owned(),
            Err(status) => return reason(&status),
        }
    }
}

/// Hands an answer to whom it concerns; false if it is none.
fn answer(link: &Link, message: Message, now: Instant, seconds: &prometheus::Histogram) -> bool {
    let Message { header, body } = message;
    let outcome = match header.role {
        Role::Response => Ok(body),
        Role::Failure => Err(CallError::Refused(String::from_utf8_lossy(&body).into_owned())),
        Role::Oneway | Role::Request => return false,
    };
    if let Some(took) = link.calls.end(header.correlation, outcome, now) {
        seconds.observe(took);
    }
    true
}

/// The innermost cause: what a person wants to read.
fn reason(status: &tonic::Status) -> String {
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut reason = status.message().to_owned();
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason
}

async fn connect(shared: &Shared, peer: &Peer, lane: Lane) -> Result<Connected, ConnectError> {
    let Some(transport) = shared.transport.get() else { return Err(ConnectError::NotStarted) };
    let tcp = match timeout(CONNECT_DEADLINE, transport.connect(&peer.address)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Ok(Err(error)) => return Err(ConnectError::Tcp(error)),
        Err(_) => return Err(ConnectError::Deadline),
    };
    match timeout(HELLO_DEADLINE, greet(shared, peer, lane, tcp)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Deadline),
    }
}

async fn greet(
    shared: &Shared,
    peer: &Peer,
    lane: Lane,
    tcp: Box<dyn Socket>,
) -> Result<Connected, ConnectError> {
    let tls = shared.tls.as_ref().map(Kept::now);
    let endpoint = endpoint(tls.as_deref(), peer).map_err(ConnectError::Http)?;
    let connector = Once(Some(TokioIo::new(tcp)));
    let channel = endpoint.connect_with_connector(connector).await.map_err(ConnectError::Http)?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);

    let send_queue = SendQueue::new(limits(lane), shared.metrics.lane(lane).sent.clone());
    let hello = Hello { from: shared.own, to: peer.node, lane: lane as u8 };
    let header =
        Header { kind: HELLO_KIND, role: Role::Request, shard: ShardId(0), correlation: 0 };
    send_queue.push(header, &hello.encode()).map_err(|_| ConnectError::NoHello)?;
    let outbound = Drain(send_queue.clone()).map(|body| Frame { body });
    let response = match lane {
        Lane::Control => client.control(outbound).await,
        Lane::Data => client.data(outbound).await,
        Lane::Bulk => client.bulk(outbound).await,
    };
    let no_stream = |status| ConnectError::Stream(Box::new(status));
    let mut inbound = response.map_err(no_stream)?.into_inner();

    let first = inbound.message().await.map_err(no_stream)?;
    let (answer, rest) =
        first.and_then(|frame| read_answer(frame.body)).ok_or(ConnectError::NoHello)?;
    // Begun with files that do not count any more: what is made from now on is made with the new ones.
    let is_old = |kept: &Kept| tls.is_some_and(|tls| !Arc::ptr_eq(&tls, &kept.now()));
    if shared.tls.as_ref().is_some_and(is_old) {
        return Err(ConnectError::OldTls);
    }
    let peer = check(shared, peer, &answer).map_err(ConnectError::Refusal)?;
    let stop = shared.stop.child_token();
    let link = Arc::new(Link { peer, send_queue, calls: Calls::new(), stop });
    Ok(Connected { link, inbound, rest, _client: client })
}

fn read_answer(mut frame: Bytes) -> Option<(Answer, Bytes)> {
    let message = message::take(&mut frame).ok()??;
    let header = message.header;
    if header.kind != HELLO_KIND || header.role != Role::Response {
        return None;
    }
    Some((Answer::decode(message.body)?, frame))
}

fn check(shared: &Shared, peer: &Peer, answer: &Answer) -> Result<Identity, Refusal> {
    let refusal = |reason: RefusalReason, by_peer| Refusal { peer: peer.node, reason, by_peer };
    if let Some(reason) = shared.expected(peer.node).check_answer(answer, peer.node) {
        return Err(refusal(reason, false));
    }
    match answer.refused {
        Some(reason) => Err(refusal(reason, true)),
        None => {
            shared.heard(&answer.from);
            Ok(answer.from)
        }
    }
}

fn endpoint(tls: Option<&Tls>, peer: &Peer) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", peer.address))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match tls {
        Some(tls) => endpoint.tls_config(tls.client(peer.node)),
        None => Ok(endpoint),
    }
}

/// Gives the connection that is already made. tonic must not make another by itself: that would be a second stream
/// that nobody said hello on.
struct Once(Option<TokioIo<Box<dyn Socket>>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Box<dyn Socket>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
