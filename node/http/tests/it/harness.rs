//! One connection to a listener for HTTP, in memory.

use std::{sync::Arc, time::Duration};

use moorline_edge::{Channel, Speaks, Visit};
use moorline_http::{Http, Platform};
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// What either side may be ahead of the other.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The server's side of a connection.
pub(crate) struct Server {
    /// The node stops.
    pub(crate) stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Server {
    /// A connection that these platforms serve, and the client's end of it.
    pub(crate) fn of(platforms: Vec<Arc<dyn Platform>>) -> (Self, DuplexStream) {
        let (stream, near) = duplex(BUFFER_BYTES);
        let (stop, peer) = (CancellationToken::new(), "192.0.2.7:1".parse().unwrap());
        let visit = Visit {
            stream: Box::new(near),
            peer,
            port: 8080,
            channel: Channel::default(),
            stop: stop.clone(),
            stranger: None,
        };
        let mut serving = JoinSet::new();
        serving.spawn(Http::new(platforms).serve(visit));
        (Self { stop, serving }, stream)
    }

    /// Waits until it is done with the connection.
    pub(crate) async fn ends(mut self) {
        timeout(DEADLINE, self.serving.join_next()).await.unwrap().unwrap().unwrap();
    }

    /// All that still comes, until this side closes; and then it is done with the connection.
    pub(crate) async fn rest(self, mut stream: DuplexStream) -> String {
        let mut rest = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
        drop(stream);
        self.ends().await;
        rest
    }
}
