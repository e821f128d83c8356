//! What all listeners of a node share, and streams that come by none of them.

use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use moorline_core::port::{Inbox, Notice, Port};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    authenticate::Authenticate,
    buffered::Buffered,
    clock::Clock,
    connection::{Shared, serve},
    foreign::Stream,
    listener::admit,
    mailbox::Mailbox,
    metrics::EdgeMetrics,
    room::Room,
    settings::Settings,
    transport::{Accepted, Opening, Transport},
};

/// A node's edge: the service behind it, the rules of its clients, and room for so many of them, whichever listener
/// they come to. Cheap to clone; every clone is the same edge.
#[derive(Clone)]
pub struct Edge {
    pub(crate) settings: Settings,
    /// A place for each connection, from accept to end.
    pub(crate) room: Room,
    /// When the next connections are told that the node stops, whichever listener's they are.
    pub(crate) telling: Arc<Mutex<Option<Instant>>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clock: Clock,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) metrics: Arc<EdgeMetrics>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge that nobody can reach yet; see [`Listener::bind`](crate::Listener::bind). What changes of its settings counts for who comes then.
    pub fn new(
        settings: impl Into<Settings>,
        port: Arc<dyn Port>,
        authenticate: Arc<dyn Authenticate>,
        metrics: EdgeMetrics,
        clock: Clock,
    ) -> Self {
        let settings = settings.into();
        let metrics = Arc::new(metrics);
        Self {
            room: Room::default(),
            telling: Arc::default(),
            admission: Arc::new(Admission::new(settings.clone(), clock, &metrics)),
            clock,
            settings,
            port,
            authenticate,
            metrics,
        }
    }
    /// Serves a stream of plain MQTT that somebody else accepted: over whatever carries it, under the same limits as those of a
    /// [`Listener`](crate::Listener). Returns when it is over, at the latest `drain_ms` after `stop`; at once if there is no room.
    ///
    /// Dropping the future closes the connection.
    pub async fn serve(
        &self,
        stream: impl Stream + 'static,
        peer: SocketAddr,
        stop: CancellationToken,
    ) {
        let Some((_room, stranger)) = admit(self, peer) else { return };
        let transport = Transport::default();
        let shared =
            Arc::new(Shared { name: transport.name(), port: 0, transport, edge: self.clone() });
        self.metrics.opened(shared.name);
        let mailbox = Arc::new(Mailbox::new(self.metrics.dropped_slow()));
        let (at, told) = (self.clock.now(), Arc::clone(&mailbox));
        let (websocket, beginning) = (false, BytesMut::new());
        let accepted =
            Accepted { peer, stranger, mailbox, channel: None, at, websocket, beginning, shared };
        let mut served = pin!(serve(Buffered::new(stream), accepted, Opening::new(self)));
        tokio::select! {
            biased;
            () = &mut served => return,
            () = stop.cancelled() => {}
        }
        // A box that takes nothing belongs to a connection that is ending anyway.
        told.push(Notice::Stopping { instead: None }).unwrap_or_default();
        // Whether it ended in time or is dropped now, it is over.
        drop(timeout(Duration::from_millis(self.settings.now().config.drain_ms), served).await);
    }
}
