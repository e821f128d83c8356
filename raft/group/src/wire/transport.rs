//! What connections between nodes are made of: TCP, or what a simulation gives in its place.

use std::{fmt, future::Future, io, pin::Pin};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// The bytes of one connection, in both directions.
pub trait Socket: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Socket for S {}

/// A connection that is being made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send + 'a>>;

/// Makes connections.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Connects to `host:port`. [`io::ErrorKind::ConnectionRefused`] means that the machine lives and nobody listens
    /// there: the peer's process is taken for dead.
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a>;
}

/// Takes connections.
pub trait Listener: fmt::Debug + Send + 'static {
    /// The next one. Dropping the future loses none.
    fn accept(&mut self) -> Connecting<'_>;
}

/// TCP, without waiting for more to send.
#[derive(Debug)]
pub(super) struct Tcp;

impl Transport for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a> {
        Box::pin(async move { without_delay(TcpStream::connect(address).await?) })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> Connecting<'_> {
        Box::pin(async move { without_delay(Self::accept(self).await?.0) })
    }
}

fn without_delay(tcp: TcpStream) -> io::Result<Box<dyn Socket>> {
    tcp.set_nodelay(true)?;
    Ok(Box::new(tcp))
}
