//! The local API on its sockets: connections of SDKs, one request each.
//!
//! # Invariants
//!
//! - **Bounded**: connections ([`CONNECTIONS_MAX`]), event streams among them ([`STREAMS_MAX`]), how long a request may take
//!   to come ([`SOCKET_DEADLINE`]) and an answer to leave.
//! - **An event stream is never closed at once.** SDKs open it again without a pause; so what they did wrong is told after
//!   one ([`REFUSAL_PAUSE`]). Checked by `tests/it/local.rs`.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, EVENTS, Identity, Reader, Request, Response, Route, Standing},
    clock::unix_ms,
    log::log,
    question::{Question, Reply, Unanswered},
    stream::stream,
    uplink::{Event, Uplink},
};

/// Connections at once. A device runs a few programs, each with a stream and a request or two.
const CONNECTIONS_MAX: usize = 128;
/// Event streams at once; the rest is for requests.
pub(crate) const STREAMS_MAX: usize = 64;
/// How long a request may take to come, and an answer to leave.
pub(crate) const SOCKET_DEADLINE: Duration = Duration::from_secs(5);
/// How long a refused event stream waits for its answer.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much is read at once: a whole request in most cases.
const READ_BYTES: usize = 4 * 1024;
/// What a refused request may still send, so that it hears why and not that its socket broke.
const IGNORED_BYTES_MAX: usize = 1024 * 1024;
const SECOND_MS: u64 = 1_000;

/// What connections share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) uplink: Uplink,
    /// Ends the agent.
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// What every answer says.
    pub(crate) fn standing(&self) -> Standing<'_> {
        let unix_s = unix_ms() / SECOND_MS;
        Standing { identity: &self.identity, connected: self.uplink.is_up(), unix_s }
    }
}

/// Where SDKs connect.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Serves until the agent stops. Owns its connections: dropping this closes them all.
    pub(crate) async fn run(self, agent: Arc<Agent>) {
        let mut connections = JoinSet::new();
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        loop {
            tokio::select! {
                biased; // once told to stop, accept nobody
                () = agent.stop.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                accepted = self.accept(), if connections.len() < CONNECTIONS_MAX => {
                    let (agent, streams) = (Arc::clone(&agent), Arc::clone(&streams));
                    match accepted {
                        Ok(Accepted::Unix(socket)) => {
                            connections.spawn(async move { serve(socket, &agent, &streams).await });
                        }
                        Ok(Accepted::Tcp(socket)) => {
                            connections.spawn(async move { serve(socket, &agent, &streams).await });
                        }
                        Err(error) => {
                            log(&format!("can't accept a connection: {error}"));
                            sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// Cancel-safe, because the sockets' own is.
    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
        })
    }
}

/// One connection, whose errors are the SDK's to see.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    agent: &Agent,
    streams: &Semaphore,
) {
    let request = tokio::select! {
        () = agent.stop.cancelled() => return,
        request = request(&mut socket) => request,
    };
    let (response, then_stop) = match request {
        Ok(None) => return,
        Err(refused) => (refused, false),
        Ok(Some(request)) => {
            let is_events = request.path == EVENTS;
            match api::route(request, &agent.identity) {
                Ok(Route::Events) => match streams.try_acquire() {
                    Ok(_place) => return stream(socket, agent).await,
                    Err(_full) => {
                        pause(agent).await;
                        (Response::error(500, "failed: too many event streams"), false)
                    }
                },
                Ok(route) => (answer(&route, agent).await, route == Route::Stop),
                Err(refused) => {
                    if is_events {
                        pause(agent).await;
                    }
                    (refused, false)
                }
            }
        }
    };
    // Whoever left does not hear it.
    let _left = timeout(SOCKET_DEADLINE, say(&mut socket, &response, agent)).await;
    if then_stop {
        agent.stop.cancel();
    }
}

async fn pause(agent: &Agent) {
    tokio::select! {
        () = agent.stop.cancelled() => {}
        () = sleep(REFUSAL_PAUSE) => {}
    }
}

/// The request; none if whoever connected left without one.
async fn request<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Option<Request>, Response> {
    let mut reader = Reader::default();
    let reading = async {
        let mut bytes = [0; READ_BYTES];
        loop {
            match socket.read(&mut bytes).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(read) => {
                    if let Some(request) = reader.take(&bytes[..read])? {
                        return Ok(Some(request));
                    }
                }
            }
        }
    };
    match timeout(SOCKET_DEADLINE, reading).await {
        Ok(read) => read,
        Err(_) if reader.is_empty() => Ok(None),
        Err(_) => Err(Response::error(408, "Operation timed out")),
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    response: &Response,
    agent: &Agent,
) -> io::Result<()> {
    socket.write_all(&response.encode(agent.standing())).await?;
    socket.shutdown().await?;
    if response.status < 400 {
        return Ok(());
    }
    // A request that was refused early may not be all sent yet.
    let mut bytes = [0; READ_BYTES];
    let mut ignored = 0;
    while ignored < IGNORED_BYTES_MAX {
        match socket.read(&mut bytes).await? {
            0 => break,
            read => ignored += read,
        }
    }
    Ok(())
}

async fn answer(route: &Route, agent: &Agent) -> Response {
    let question = match route.clone() {
        Route::Status => return status(agent),
        Route::Ping => return Response::empty(),
        Route::Stop => return api::done(),
        // A stream has no one answer.
        Route::Events => return Response::error(500, "Internal Server Error"),
        Route::Next { header_only } => Question::Next { header_only },
        Route::Settle { id, settlement } => Question::Settle { id, settlement },
        Route::Pulse { kind, name, payload } => Question::Pulse { kind, name, payload },
    };
    let reply = tokio::select! {
        reply = agent.uplink.ask(&question) => reply,
        () = agent.stop.cancelled() => Err(Unanswered::NotConnected(None)),
    };
    match reply {
        Ok(Reply::Taken) => api::done(),
        Ok(Reply::Mail(next)) => api::shown(next),
        Ok(Reply::Settled(left)) => api::settled(agent.uplink.settled(left)),
        Err(unanswered) => api::not_done(&question, &unanswered),
    }
}

fn status(agent: &Agent) -> Response {
    match agent.uplink.state() {
        Event::Disconnected(down) => {
            api::status(false, down.as_ref().map(|(why, wait_ms)| (why, *wait_ms)))
        }
        Event::Connected | Event::NewMail => api::status(true, None),
    }
}
