//! Who this node is to its peers, and how connections behave.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use moorline_core::{Incarnation, NodeId, level::Program};

use super::{kind::Lane, send_queue::QueueLimits};

/// How long a TCP connection may take to be made.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How long TLS, HTTP/2 and the hello may take after that; also how long a stranger may stay silent.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(2);
/// The first pause between two attempts to connect. The attempt after a loss comes at once, to tell a dead process
/// (refused) from a silent one.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest pause. A peer that comes back and connects to us cuts it short.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection without traffic is asked for life this often …
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// … and is lost when there is no answer for so long. A stopped or cut-off peer is noticed after both together.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The side that is connected to asks less often: it only has to get rid of connections whose other end is gone.
pub(super) const INCOMING_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// HTTP/2 flow control of a stream: the default of 64 KiB stalls log batches.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// HTTP/2 flow control of a connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// HTTP/2 DATA frames: the default of 16 KiB costs a syscall's worth of work per 16 KiB.
pub(super) const HTTP2_FRAME_BYTES: u32 = 256 * 1024;
/// The largest gRPC message: one of our messages, or a frame of many.
pub(super) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Connections taken from all peers and strangers together: three per peer are needed, with room for half-dead ones.
pub(super) const INCOMING_CONNECTIONS_MAX: usize = 1024;
/// The pause after the system refused to accept (no file descriptors), so that it is not asked in a circle.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How exact the deadline of a `request` is.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// What may wait for a peer that does not take it, per lane.
pub(super) fn limits(lane: Lane) -> QueueLimits {
    let mebibytes = match lane {
        Lane::Control => 8,
        Lane::Data => 64,
        Lane::Bulk => 32,
    };
    QueueLimits { bytes: mebibytes * 1024 * 1024, messages: 65_536 }
}

/// Who this node is to its peers.
#[derive(Debug, Clone)]
pub struct WireConfig {
    /// This node.
    pub node: NodeId,
    /// This process.
    pub incarnation: Incarnation,
    /// The cluster: nodes of another one are refused.
    pub cluster: u128,
    /// This data directory.
    pub store: u128,
    /// What this node runs: which levels of the cluster it takes part in.
    pub program: Program,
    /// Where the nodes are (`host:port`). The own one may be among them.
    pub peers: BTreeMap<NodeId, String>,
    /// Mutual TLS. Without it anybody who reaches the port is trusted.
    pub tls: Option<TlsFiles>,
}

/// PEM files for mutual TLS between nodes.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authorities that sign nodes' certificates: one, or two while one takes the other's place.
    pub ca: PathBuf,
    /// This node's certificate, good for both sides of a connection.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A DNS name that every node's certificate carries, beside [its own](node_name).
    pub server_name: String,
}

/// The name that only the certificate of one node has, so that no other node's passes for it: `node-N.DOMAIN`.
#[must_use]
pub fn node_name(node: u64, domain: &str) -> String {
    format!("node-{node}.{domain}")
}
