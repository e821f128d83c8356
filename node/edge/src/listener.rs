//! Accepts sockets and owns their connections.
//!
//! # Invariants
//!
//! - **No more than `connections_max`** at all listeners of an edge together, and no more strangers from one address than
//!   `unauthenticated_per_address_max`: a socket beyond it is closed at once, counted. Checked by `tests/tcp.rs`.
//! - **A stop makes no storm**: connections, of all listeners, are told one after the other, [`TOLD_PER_S`] in a second or all
//!   within half of `drain_ms`. Checked by `tests/budget.rs`.
//! - **A stop ends**: every connection is told, those that do not end within `drain_ms` are dropped and their number is
//!   logged. Checked by `tests/tcp.rs`.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use moorline_core::port::{Inbox, Notice};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admission::Stranger,
    connection::Shared,
    edge::Edge,
    limit::EdgeLimit,
    mailbox::Mailbox,
    room::Place,
    transport::{Accepted, Transport, carry},
};

/// How long to wait after a failed accept: mostly "too many open files", which passes as connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections a stopping node tells in a second, of all its listeners together, if that is done in half of the time it
/// has: where they go next they are newcomers.
const TOLD_PER_S: usize = 1_000;
/// How many are told at a time.
const TOLD_EVERY: Duration = Duration::from_millis(20);

/// A bound listener. The kernel takes connections from now on; nobody is served before [`Listener::run`].
pub struct Listener {
    socket: TcpListener,
    shared: Arc<Shared>,
    boxes: Boxes,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The mailboxes of the open connections: how a stop reaches them without every connection watching for it.
#[derive(Clone, Default)]
struct Boxes(Arc<Mutex<HashMap<u64, Arc<Mailbox>>>>);

impl Boxes {
    fn with<R>(&self, change: impl FnOnce(&mut HashMap<u64, Arc<Mailbox>>) -> R) -> R {
        // Every change is one insertion or removal.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes a mailbox out and gives its room back when its connection ends, however it ends.
struct Registered {
    boxes: Boxes,
    key: u64,
    _room: Place,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.boxes.with(|boxes| boxes.remove(&self.key));
    }
}

impl Listener {
    /// Binds `address` (port 0 lets the system choose, see [`Listener::address`]).
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr, transport: Transport, edge: &Edge) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restarted node takes its port back at once.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(edge.settings.now().config.backlog.into())?;
        let socket = TcpListener::from_std(socket.into())?;
        let (name, port) = (transport.name(), socket.local_addr()?.port());
        edge.metrics.listens(name);
        let shared = Arc::new(Shared { name, port, transport, edge: edge.clone() });
        Ok(Self { socket, shared, boxes: Boxes::default() })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Runs until `stop` is cancelled and every connection is gone.
    ///
    /// Owns its connections: dropping this future closes them all.
    pub async fn run(self, stop: CancellationToken) {
        let Self { socket, shared, boxes } = self;
        let edge = &shared.edge;
        let mut connections = JoinSet::new();
        let mut key = 0;
        loop {
            tokio::select! {
                biased; // once told to stop, accept nobody
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => note(ended),
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => {
                        // Nobody: turned away by dropping it.
                        if let Some((room, stranger)) = admit(edge, accepted.1) {
                            key += 1;
                            let registered = Registered { boxes: boxes.clone(), key, _room: room };
                            begin(&mut connections, registered, (accepted, stranger), &shared, &stop);
                        }
                    }
                    Err(error) => {
                        edge.metrics.accept_failed();
                        warn!(%error, "could not accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(socket);
        let wait = Duration::from_millis(edge.settings.now().config.drain_ms);
        drain(connections, edge, &boxes, wait).await;
    }
}

/// Room for one connection more, and for one stranger more from where it comes.
pub(crate) fn admit(edge: &Edge, peer: SocketAddr) -> Option<(Place, Stranger)> {
    let most = edge.settings.now().config.connections_max;
    let Some(room) = edge.room.take(most) else {
        edge.metrics.turned_away(EdgeLimit::Connections);
        return None;
    };
    let Ok(stranger) = edge.admission.stranger(peer.ip()) else {
        edge.metrics.turned_away(EdgeLimit::UnauthenticatedPerAddress);
        return None;
    };
    Some((room, stranger))
}

fn begin(
    connections: &mut JoinSet<()>,
    registered: Registered,
    ((stream, peer), stranger): ((TcpStream, SocketAddr), Stranger),
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) {
    let edge = &shared.edge;
    edge.metrics.opened(shared.name);
    // Without it a small packet could wait 40 ms for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        warn!(%error, "could not set TCP_NODELAY");
    }
    let mailbox = Arc::new(Mailbox::new(edge.metrics.dropped_slow()));
    let key = registered.key;
    registered.boxes.with(|boxes| boxes.insert(key, Arc::clone(&mailbox)));
    let (at, shared) = (edge.clock.now(), Arc::clone(shared));
    let (websocket, beginning) = (false, BytesMut::new());
    let accepted =
        Accepted { peer, stranger, mailbox, channel: None, at, websocket, beginning, shared };
    let stop = stop.clone();
    connections.spawn(async move {
        let _registered = registered;
        carry(stream, accepted, stop).await;
    });
}

/// Tells every connection that the node stops, and waits for them.
async fn drain(mut connections: JoinSet<()>, edge: &Edge, boxes: &Boxes, wait: Duration) {
    info!(connections = connections.len(), "draining");
    let boxes: Vec<_> = boxes.with(|boxes| boxes.values().cloned().collect());
    let drained = async {
        let ended = async {
            while let Some(ended) = connections.join_next().await {
                note(ended);
            }
        };
        tokio::join!(tell(edge, &boxes, wait / 2), ended);
    };
    if timeout(wait, drained).await.is_err() {
        warn!(connections = connections.len(), "closing connections that did not finish");
        connections.shutdown().await;
    }
}

/// Tells connections one after the other that the node stops, in turns with other listeners. In no order: they are from a map with a
/// key of its own.
async fn tell(edge: &Edge, boxes: &[Arc<Mailbox>], within: Duration) {
    let turns = (within.as_millis() / TOLD_EVERY.as_millis()).max(1);
    let turns = usize::try_from(turns).unwrap_or(usize::MAX);
    let at_pace = TOLD_PER_S / usize::try_from(1_000 / TOLD_EVERY.as_millis()).unwrap_or(1);
    // So that all listeners' are told in time.
    let all = usize::try_from(edge.room.taken()).unwrap_or(usize::MAX).max(boxes.len());
    for some in boxes.chunks(at_pace.max(all.div_ceil(turns))) {
        sleep_until(turn_to_tell(edge)).await;
        for mailbox in some {
            // A box that takes nothing belongs to a connection that is ending anyway.
            mailbox.push(Notice::Stopping { instead: None }).unwrap_or_default();
        }
    }
}

/// When the next turn of all is; it is taken.
fn turn_to_tell(edge: &Edge) -> Instant {
    let mut next = edge.telling.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
    *next = Some(turn + TOLD_EVERY);
    turn
}

/// A panic in one connection is that connection's end, and a bug to be seen.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
