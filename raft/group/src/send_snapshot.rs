//! Sending a snapshot: write the rows out, export them, stream the files.

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
    task::spawn_blocking,
    time::sleep_until,
};
use tracing::info;

use crate::{
    codec::{
        Malformed,
        message::{
            SnapshotChunk, SnapshotFile, SnapshotHead, decode_installed, decode_transfer_id,
            encode_ask_matched, encode_transfer_id,
        },
    },
    groups::Node,
    snapshot::{Exported, StagedDir},
    types::RaftVote,
    wire::{CallError, Kind, Lane},
};

/// Snapshots that this node sends at the same time.
const SENDS_MAX: usize = 2;
/// Bytes per second that this node sends of all snapshots together, so that they do not crowd out everything else.
const BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
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

/// Why a snapshot was not sent. openraft begins anew after a pause.
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
    /// When what was sent so far is paid for.
    paid: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self { sends: Semaphore::new(SENDS_MAX), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may be sent.
    async fn pay(&self, bytes: u64) {
        let wait_until = {
            let mut paid = self.paid.lock().await;
            let now = Instant::now();
            let start = (*paid).max(now);
            *paid = start + Duration::from_micros(bytes * 1_000_000 / BYTES_PER_SECOND);
            start
        };
        sleep_until(wait_until.into()).await;
    }
}

/// Sends the rows of a group to `to`, which installs them. Answers the vote that it has.
pub(crate) async fn send(
    node: &Arc<Node>,
    shard: ShardId,
    to: NodeId,
    vote: RaftVote,
) -> Result<RaftVote, SendError> {
    let group = node.group(shard).ok_or(SendError::NoGroup)?;
    let _slot = node.throttle.sends.acquire().await.map_err(|_| SendError::NoGroup)?;
    // Exporting is dear, and openraft tries again every second: first see whether anybody is there to take it.
    let body = encode_ask_matched();
    node.peers.call(to, Lane::Control, Kind::Matched, shard, body, ASK_DEADLINE).await?;
    let since = Instant::now();
    let Exported { dir, meta, files } = group.snapshots.export().await?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    info!(%shard, %to, bytes, "sending a snapshot");
    let head = SnapshotHead { vote, meta, files };
    let body = head.encode();
    let answer = call(node, to, Kind::SnapshotBegin, shard, body, CHUNK_DEADLINE).await?;
    let transfer = decode_transfer_id(answer)?;

    let pieces: Vec<(u32, PathBuf, u64, u64)> = pieces(&dir, &head.files);
    let mut sent = stream::iter(pieces)
        .map(|(file, path, offset, length)| async move {
            node.throttle.pay(length).await;
            let data = spawn_blocking(move || read_piece(&path, offset, length))
                .await
                .map_err(io::Error::other)??;
            let chunk = SnapshotChunk { transfer, file, offset, data };
            call(node, to, Kind::SnapshotChunk, shard, chunk.encode(), CHUNK_DEADLINE).await?;
            node.metrics.snapshot_bytes.with_label_values(&["sent"]).inc_by(length);
            Ok::<(), SendError>(())
        })
        .buffered(CHUNKS_IN_FLIGHT);
    while let Some(result) = sent.next().await {
        result?;
    }
    drop(sent);

    let body = encode_transfer_id(transfer);
    let answer = call(node, to, Kind::SnapshotEnd, shard, body, INSTALL_DEADLINE).await?;
    let took = since.elapsed();
    node.metrics.snapshot_seconds.with_label_values(&["sent"]).observe(took.as_secs_f64());
    info!(%shard, %to, bytes, ?took, "snapshot sent");
    Ok(decode_installed(answer)?)
}

async fn call(
    node: &Node,
    to: NodeId,
    kind: Kind,
    shard: ShardId,
    body: Bytes,
    deadline: Duration,
) -> Result<Bytes, CallError> {
    node.peers.call(to, Lane::Bulk, kind, shard, body, deadline).await
}

/// Which bytes of which file, in the order in which they are sent.
fn pieces(dir: &StagedDir, files: &[SnapshotFile]) -> Vec<(u32, PathBuf, u64, u64)> {
    let mut pieces = Vec::new();
    for (number, file) in (0_u32..).zip(files) {
        let path = dir.path().join(&file.name);
        let mut offset = 0;
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
