//! Connections to endpoints: a name is looked up once, its addresses are judged, and the connection goes to one of those.
//!
//! # Invariants
//!
//! - **What connects has no other addresses than those that were judged**: hyper's connector gets them from [`Judging`], and asks nobody for an
//!   address that stands in the URL, so that one is judged before. Checked by `tests/it`.
//! - **A connection is there in time, or not at all**, TLS included.
//! - **Bounded**: at most [`LOOKUPS_MAX`] look-ups run, also of those that nobody waits for any more, and of a tenant its share of them
//!   ([`SHARE`]): whose names are slow keeps no other one from asking.

use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use hyper_util::{
    client::legacy::connect::{self, Connection, HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    task::spawn_blocking,
    task_local,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::{
    address::Networks,
    metrics::{Connected, OutwardMetrics},
    unanswered::Unanswered,
};

/// Look-ups of names at once. Each has a thread, for as long as the system takes.
const LOOKUPS_MAX: usize = 64;
task_local! {
    /// Of the tenant for whom is asked: its look-ups.
    pub(crate) static SHARE: Arc<Semaphore>;
}

/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// What comes of a connection or a look-up.
type Doing<T> = Pin<Box<dyn Future<Output = Result<T, Unanswered>> + Send>>;

/// Looks names up, and leaves out what may not be asked.
#[derive(Clone)]
pub(crate) struct Judging {
    networks: Arc<Networks>,
    lookups: Arc<Semaphore>,
}

impl Judging {
    async fn look_up(
        self,
        name: String,
        share: Arc<Semaphore>,
    ) -> Result<std::vec::IntoIter<SocketAddr>, Unanswered> {
        let own = share.acquire_owned().await.map_err(|_| Unanswered::Lookup)?;
        let place = self.lookups.acquire_owned().await.map_err(|_| Unanswered::Lookup)?;
        let found = spawn_blocking(move || {
            // They are held as long as the system looks, whether or not somebody waits.
            let (_own, _place) = (own, place);
            (name.as_str(), 0).to_socket_addrs().map(|all| all.take(ADDRESSES_MAX).collect())
        });
        let found: io::Result<Vec<SocketAddr>> = found.await.map_err(|_| Unanswered::Lookup)?;
        let mut found = found.map_err(|_| Unanswered::Lookup)?;
        if found.is_empty() {
            return Err(Unanswered::Lookup);
        }
        found.retain(|address| self.networks.may(address.ip()));
        if found.is_empty() { Err(Unanswered::Address) } else { Ok(found.into_iter()) }
    }
}

impl Service<Name> for Judging {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unanswered;
    type Future = Doing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // It is called where the request is: what begins there may end in a task of its own.
        let share = SHARE.try_with(Arc::clone);
        let (judging, name) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let share = share.map_err(|_| Unanswered::Lookup)?;
            judging.look_up(name, share).await
        })
    }
}

/// Connects to endpoints.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector<Judging>,
    tls: TlsConnector,
    networks: Arc<Networks>,
    within: Duration,
    metrics: OutwardMetrics,
}

impl Connector {
    pub(crate) fn new(
        networks: Networks,
        tls: ClientConfig,
        within: Duration,
        metrics: OutwardMetrics,
    ) -> Self {
        let networks = Arc::new(networks);
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let judging = Judging { networks: Arc::clone(&networks), lookups };
        let mut tcp = HttpConnector::new_with_resolver(judging);
        // It sees `https`, too.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Of all addresses together: one that is silent leaves time for the next.
        tcp.set_connect_timeout(Some(within));
        Self { tcp, tls: TlsConnector::from(Arc::new(tls)), networks, within, metrics }
    }

    async fn connect(mut self, uri: Uri) -> Result<TokioIo<Line>, Unanswered> {
        let host = uri.host().ok_or(Unanswered::Url)?.trim_matches(['[', ']']).to_owned();
        if let Ok(address) = host.parse::<IpAddr>()
            && !self.networks.may(address)
        {
            return Err(Unanswered::Address);
        }
        let is_secure = uri.scheme_str() == Some("https");
        let stream = self.tcp.call(uri).await.map_err(|error| why(&error))?.into_inner();
        let count = self.metrics.connected();
        if !is_secure {
            return Ok(TokioIo::new(Line { stream: Box::new(stream), _count: count }));
        }
        let name = ServerName::try_from(host).map_err(|_| Unanswered::Url)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| Unanswered::Tls)?;
        Ok(TokioIo::new(Line { stream: Box::new(stream), _count: count }))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Line>;
    type Error = Unanswered;
    type Future = Doing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, within) = (self.clone(), self.within);
        Box::pin(async move {
            let connected = timeout(within, connector.connect(uri)).await;
            connected.map_err(|_| Unanswered::ConnectTimeout)?
        })
    }
}

/// What of ours is among the causes of an error; else what the system says of connecting.
fn why(error: &(dyn Error + 'static)) -> Unanswered {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(why) = ours(error) {
            return why;
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::TimedOut
        {
            return Unanswered::ConnectTimeout;
        }
        next = error.source();
    }
    Unanswered::Connect
}

/// An error that is one of ours.
pub(crate) fn ours(error: &(dyn Error + 'static)) -> Option<Unanswered> {
    error.downcast_ref::<Unanswered>().copied()
}

/// Bytes both ways.
trait Both: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Both for S {}

/// A connection, with TLS or without, and counted.
pub(crate) struct Line {
    stream: Box<dyn Both>,
    _count: Connected,
}

impl Connection for Line {
    fn connected(&self) -> connect::Connected {
        connect::Connected::new()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a name that needs no question.
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_tenant_has_its_share_of_lookups() {
        let networks = Arc::new(Networks::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()));
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let judging = Judging { networks, lookups };
        let look = |share: &Arc<Semaphore>| {
            let mut judging = judging.clone();
            SHARE.scope(Arc::clone(share), async move {
                judging.call("localhost".parse().unwrap()).await.map(Iterator::count)
            })
        };
        let (slow, other) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1)));
        let waits = timeout(Duration::from_millis(50), look(&slow)).await;
        assert!(waits.is_err(), "all of its own are under way");
        assert!(timeout(SOON, look(&other)).await.unwrap().unwrap() > 0, "no other one waits");
        assert_eq!(other.available_permits(), 1, "it is given back");
        let mut judging = judging.clone();
        let nobodys = judging.call("localhost".parse().unwrap()).await.map(Iterator::count);
        assert_eq!(nobodys, Err(Unanswered::Lookup));
    }
}
