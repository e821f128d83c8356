//! The nodes' wire over turmoil's network.
//!
//! turmoil says "connection refused" also when a packet was dropped. To the wire that means "the process there is dead" and
//! starts a failover at once, so it is told apart here: a dead process on a living machine refuses; a machine without power
//! and a cut link are silent.

use std::{
    collections::BTreeSet,
    fmt,
    future::pending,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use moorline_group::wire::{Connecting, Listener, Socket, Transport};
use turmoil::net::{TcpListener, TcpStream};

use crate::devices;

/// Where every node listens.
pub(crate) const PORT: u16 = 7000;

/// The name of a node's machine, or of the one that devices are on.
pub(crate) fn host(node: u64) -> String {
    if node == devices::MACHINE {
        return "devices".to_owned();
    }
    format!("n{node}")
}

/// What is cut and what is dead, as the one who does it knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ground(Arc<Mutex<Facts>>);

/// See [`Ground`].
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// From, to: nothing arrives.
    pub(crate) cuts: BTreeSet<(u64, u64)>,
    /// Processes that do not run.
    pub(crate) dead: BTreeSet<u64>,
    /// Machines without power.
    pub(crate) dark: BTreeSet<u64>,
}

impl Ground {
    /// To read or to change.
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().expect("no panic while it is locked")
    }

    fn refuses(&self, from: u64, to: u64) -> bool {
        let facts = self.facts();
        let silent = facts.dark.contains(&to)
            || facts.cuts.contains(&(from, to))
            || facts.cuts.contains(&(to, from));
        !silent
    }

    fn is_dead(&self, node: u64) -> bool {
        self.facts().dead.contains(&node)
    }
}

/// Connects from one node.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Which.
    pub(crate) from: u64,
    /// What is cut.
    pub(crate) ground: Ground,
}

impl Transport for Dialer {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a> {
        let to = address.trim_start_matches('n').split(':').next().and_then(|n| n.parse().ok());
        Box::pin(async move {
            let to: u64 = to.ok_or(io::ErrorKind::InvalidInput)?;
            if self.ground.is_dead(to) {
                return self.silence_or_refusal(to).await;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Socket>),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.silence_or_refusal(to).await
                }
                Err(error) => Err(error),
            }
        })
    }
}

impl Dialer {
    async fn silence_or_refusal(&self, to: u64) -> io::Result<Box<dyn Socket>> {
        if self.ground.refuses(self.from, to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        pending().await
    }
}

/// Takes connections on one node.
pub(crate) struct Door(TcpListener);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// Opens the node's port.
    pub(crate) async fn open() -> io::Result<Self> {
        Ok(Self(TcpListener::bind(("0.0.0.0", PORT)).await?))
    }
}

impl Listener for Door {
    fn accept(&mut self) -> Connecting<'_> {
        Box::pin(async move {
            let (stream, _) = self.0.accept().await?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}
