//! Sending a snapshot: write the rows out, export them, stream the files. One that breaks off goes on where it stopped, as
//! long as the files are kept and the receiver has the same begun.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use moorline_core::{NodeId, ShardId};
use moorline_storage::StorageError;
use tokio::{
    sync::{Mutex, Semaphore},
    time::sleep_until,
};
use tracing::info;

use crate::{
    blocking::spawn_blocking,
    codec::{
        Malformed,
        message::{
            Resumed, SnapshotChunk, SnapshotFile, SnapshotHead, decode_installed,
            decode_transfer_id, encode_ask_matched, encode_transfer_id,
        },
    },
    groups::Node,
    snapshot::StagedDir,
    types::{RaftLogId, RaftVote},
    wire::{CallError, Kind, Lane},
};

/// Snapshots that this node sends at the same time.
const SENDS_MAX: usize = 2;
/// Bytes of a file in one message.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// Chunks that are sent before the first is answered.
const CHUNKS_IN_FLIGHT: usize = 4;
/// A receiver that does not say by then that its replica is open gets nothing.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// A receiver that takes longer for a chunk is given up.
const CHUNK_DEADLINE: Duration = Duration::from_secs(20);
/// A receiver that takes longer to sync and install is given up.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);

/// Why a snapshot was not sent. openraft asks again after a pause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("no such group here")]
    NoGroup,
    #[error("reading the rows")]
    Storage(#[from] StorageError),
    #[error("reading a staged file")]
    Io(#[from] io::Error),
    #[error("the receiver")]
    Call(#[from] CallError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Keeps snapshots from crowding out everything else.
#[derive(Debug)]
pub(crate) struct Throttle {
    sends: Semaphore,
    bytes_per_second: u64,
    /// When what was sent so far is paid for.
    paid: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let paid = Mutex::new(Instant::now());
        Self { sends: Semaphore::new(SENDS_MAX), bytes_per_second: bytes_per_second.max(1), paid }
    }

    /// Waits until `bytes` may be sent.
    async fn pay(&self, bytes: u64) {
        let wait_until = {
            let mut paid = self.paid.lock().await;
            let now = Instant::now();
            let start = (*paid).max(now);
            *paid = start + Duration::from_micros(bytes * 1_000_000 / self.bytes_per_second);
            start
        };
        sleep_until(wait_until.into()).await;
    }
}

/// Whom a group's rows are for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct To {
    pub(crate) shard: ShardId,
    pub(crate) node: NodeId,
}

/// Sends the rows of a group, as of `told` or later, to a node that installs them. Answers the vote that it has.
pub(crate) async fn send(
    node: &Arc<Node>,
    to: To,
    vote: RaftVote,
    told: Option<RaftLogId>,
) -> Result<RaftVote, SendError> {
    let To { shard, node: receiver } = to;
    let group = node.group(shard).ok_or(SendError::NoGroup)?;
    let _slot = node.throttle.sends.acquire().await.map_err(|_| SendError::NoGroup)?;
    // Exporting is dear, and openraft tries again every second: first see whether anybody is there to take it.
    let body = encode_ask_matched();
    node.peers.call(receiver, Lane::Control, Kind::Matched, shard, body, ASK_DEADLINE).await?;
    let since = Instant::now();
    let (exported, again) = group.snapshots.kept_or_export(told).await?;
    let bytes: u64 = exported.files.iter().map(|file| file.bytes).sum();
    let head = SnapshotHead { vote, meta: exported.meta.clone(), files: exported.files.clone() };
    let from = begin(node, to, &head, again).await?;
    info!(%shard, to = %receiver, bytes, file = from.file, offset = from.offset, "sending a snapshot");

    let transfer = from.transfer;
    let mut sent = stream::iter(pieces(&exported.dir, &exported.files, from))
        .map(|(file, path, offset, length)| async move {
            node.throttle.pay(length).await;
            let data = spawn_blocking(move || read_piece(&path, offset, length))
                .await
                .map_err(io::Error::other)??;
            let chunk = SnapshotChunk { transfer, file, offset, data };
            call(node, to, Kind::SnapshotChunk, chunk.encode(), CHUNK_DEADLINE).await?;
            node.metrics.snapshot_bytes.with_label_values(&["sent"]).inc_by(length);
            Ok::<(), SendError>(())
        })
        .buffered(CHUNKS_IN_FLIGHT);
    while let Some(result) = sent.next().await {
        result?;
    }
    drop(sent);

    let body = encode_transfer_id(transfer);
    let answer = call(node, to, Kind::SnapshotEnd, body, INSTALL_DEADLINE).await?;
    let took = since.elapsed();
    node.metrics.snapshot_seconds.with_label_values(&["sent"]).observe(took.as_secs_f64());
    info!(%shard, to = %receiver, bytes, ?took, "snapshot sent");
    group.snapshots.release(exported);
    Ok(decode_installed(answer)?)
}

/// Where to go on: with what the receiver has of the same files, if it has, else at the beginning.
async fn begin(
    node: &Node,
    to: To,
    head: &SnapshotHead,
    again: bool,
) -> Result<Resumed, SendError> {
    if again {
        match call(node, to, Kind::SnapshotResume, head.encode(), CHUNK_DEADLINE).await {
            Ok(answer) => return Ok(Resumed::decode(answer)?),
            // It was started again, or had nothing of it.
            Err(CallError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = call(node, to, Kind::SnapshotBegin, head.encode(), CHUNK_DEADLINE).await?;
    Ok(Resumed { transfer: decode_transfer_id(answer)?, file: 0, offset: 0 })
}

async fn call(
    node: &Node,
    to: To,
    kind: Kind,
    body: Bytes,
    deadline: Duration,
) -> Result<Bytes, CallError> {
    node.peers.call(to.node, Lane::Bulk, kind, to.shard, body, deadline).await
}

/// Which bytes of which file, in the order in which they are sent, from where the receiver is.
fn pieces(dir: &StagedDir, files: &[SnapshotFile], from: Resumed) -> Vec<(u32, PathBuf, u64, u64)> {
    let mut pieces = Vec::new();
    for (number, file) in (0_u32..).zip(files).filter(|(number, _)| *number >= from.file) {
        let path = dir.path().join(&file.name);
        let mut offset = if number == from.file { from.offset } else { 0 };
        while offset < file.bytes {
            let length = CHUNK_BYTES.min(file.bytes - offset);
            pieces.push((number, path.clone(), offset, length));
            offset += length;
        }
    }
    pieces
}

fn read_piece(path: &PathBuf, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut data = vec![0; usize::try_from(length).expect("a chunk is small")];
    File::open(path)?.read_exact_at(&mut data, offset)?;
    Ok(data.into())
}
