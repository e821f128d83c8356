//! A node: Moonlight's server machine on a socket, and a cluster behind it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use moorline_moonlight::{
    Millis,
    server::{Action, Server},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep_until,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    cluster::{Cluster, Outcome},
    until,
};

/// Longer than any test.
const FAR: Duration = Duration::from_secs(3600);

/// How a node speaks.
#[derive(Clone)]
pub(crate) struct Manner {
    /// Bytes it reads and writes at once.
    pub(crate) step: usize,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { step: 4096, tls: None }
    }
}

/// A node that runs until it is dropped, which ends its connections without a word.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
    goodbye: CancellationToken,
}

impl Node {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        Self::with(cluster, Manner::default(), "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn with(cluster: &Cluster, manner: Manner, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let goodbye = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(
            listener,
            cluster.clone(),
            manner,
            Arc::clone(&connections),
            goodbye.clone(),
        ));
        Self { address, connections, _tasks: tasks, goodbye }
    }

    /// Connections that are open now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Ends them with a goodbye, as a node that stops.
    pub(crate) async fn say_goodbye(&self) {
        self.goodbye.cancel();
        until("the connections end", || self.connections() == 0).await;
    }
}

async fn accept(
    listener: TcpListener,
    cluster: Cluster,
    manner: Manner,
    connections: Arc<AtomicUsize>,
    goodbye: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (cluster, manner, goodbye) = (cluster.clone(), manner.clone(), goodbye.clone());
        let connections = Arc::clone(&connections);
        open.spawn(async move {
            connections.fetch_add(1, Ordering::SeqCst);
            // An agent that leaves is none of the node's errors.
            let _left = connection(stream, &cluster, &manner, &goodbye).await;
            connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(
    stream: TcpStream,
    cluster: &Cluster,
    manner: &Manner,
    goodbye: &CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &manner.tls {
        None => converse(stream, cluster, manner.step, goodbye).await,
        Some(tls) => converse(tls.accept(stream).await?, cluster, manner.step, goodbye).await,
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    cluster: &Cluster,
    step: usize,
    goodbye: &CancellationToken,
) -> io::Result<()> {
    let origin = Instant::now();
    let now = || Millis(u64::try_from(origin.elapsed().as_millis()).unwrap());
    let mut server = Server::new(now());
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut arrivals = cluster.arrivals.subscribe();
    let mut bytes = vec![0; step];
    loop {
        let mut closed = false;
        server.receive(now(), &mut input);
        while let Some(action) = server.poll_action() {
            match action {
                Action::Authenticate(connect) => {
                    let outcome = cluster.authenticate(&connect.credentials);
                    server.authenticated(now(), outcome);
                }
                Action::Ask { token, op } => match cluster.ask(op) {
                    Outcome::Answer(answer) => server.answered(now(), token, answer),
                    Outcome::Silence => {}
                    Outcome::Cut => return Ok(()),
                },
                Action::Close(_) => closed = true,
            }
            server.receive(now(), &mut input);
        }
        server.poll_transmit(now(), &mut output);
        while !output.is_empty() {
            let wrote = stream.write(&output[..step.min(output.len())]).await?;
            stream.flush().await?;
            output.advance(wrote);
            // It wants to know that the agent takes what it is sent.
            server.poll_transmit(now(), &mut output);
        }
        if closed {
            return stream.shutdown().await;
        }
        let wakes = server.poll_timeout().map_or(FAR, |at| Duration::from_millis(at.0));
        tokio::select! {
            read = stream.read(&mut bytes) => match read? {
                0 => return Ok(()),
                read => input.extend_from_slice(&bytes[..read]),
            },
            Ok(()) = arrivals.changed() => server.mail_arrived(),
            () = goodbye.cancelled() => server.stop(now()),
            () = sleep_until((origin + wakes).into()) => server.timeout(now()),
        }
    }
}
