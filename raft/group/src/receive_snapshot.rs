//! Receiving a snapshot: pieces in order into a staging directory, then the whole to openraft.
//!
//! A sender that comes again with the same files is told what of them is there. A receiver that is started again has
//! nothing, and the sender begins anew.
//!
//! One task per group takes the messages in the order of their arrival. One transfer at a time: a new one takes the
//! place of the one before, whose pieces are refused from then on.

use std::{
    fs::File,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use tokio::{sync::mpsc, time::timeout};
use tracing::{info, warn};

use crate::{
    blocking::spawn_blocking,
    codec::message::{
        Resumed, SnapshotChunk, SnapshotHead, decode_transfer_id, encode_installed,
        encode_transfer_id,
    },
    metrics::GroupMetrics,
    receive::{answer, refuse},
    snapshot::{SnapshotData, Staged, StagedDir},
    types::{Raft, RaftSnapshot},
    wire::Replier,
};

/// Messages of one group's transfer that wait: the sender has four pieces of 1 MiB under way.
pub(crate) const PIECES_WAITING: usize = 16;
/// Files that one snapshot may have: 4,096 of 32 MiB are 128 GiB.
const FILES_MAX: usize = 4096;
/// A transfer of which nothing comes for this long is given up, and what is there of it deleted: as long as a sender keeps
/// its files.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Which part of a transfer a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Begin,
    Chunk,
    End,
    Resume,
}

/// One message of a transfer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) part: Part,
    pub(crate) from: NodeId,
    pub(crate) body: Bytes,
    pub(crate) reply: Option<Replier>,
}

/// Why a piece was not taken. The sender begins anew.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Malformed(#[from] crate::codec::Malformed),
    #[error("the disk: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Unexpected(&'static str),
    /// What is there stays as it is.
    #[error("{0}")]
    NotThis(&'static str),
    #[error("{0}")]
    Raft(String),
}

/// What one group receives.
pub(crate) struct Receiver {
    pub(crate) shard: ShardId,
    pub(crate) raft: Raft,
    pub(crate) staging: PathBuf,
    pub(crate) metrics: GroupMetrics,
    pub(crate) begun: u64,
    pub(crate) transfer: Option<Transfer>,
}

/// A snapshot that is not all there yet.
#[derive(Debug)]
pub(crate) struct Transfer {
    number: u64,
    from: NodeId,
    dir: StagedDir,
    head: SnapshotHead,
    /// The file that is being written, how long it is so far, and its checksum so far.
    open: Option<(File, u64, u32)>,
    /// How many files are whole and synced.
    whole: usize,
}

impl Receiver {
    /// Until the group is closed.
    pub(crate) async fn run(mut self, mut pieces: mpsc::Receiver<Piece>) {
        loop {
            let piece = match timeout(SILENCE_MAX, pieces.recv()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(_) => {
                    self.transfer = None;
                    continue;
                }
            };
            let Piece { part, from, body, reply } = piece;
            let taken = match part {
                Part::Begin => self.begin(from, body).await,
                Part::Chunk => self.chunk(from, body).await,
                Part::End => self.end(from, body).await,
                Part::Resume => self.resume(from, body),
            };
            match taken {
                Ok(body) => answer(reply, body),
                Err(error) => {
                    warn!(shard = %self.shard, %from, %error, "a snapshot could not be received");
                    if !matches!(error, TakeError::NotThis(_)) {
                        self.transfer = None;
                    }
                    refuse(reply, &error.to_string());
                }
            }
        }
    }

    async fn begin(&mut self, from: NodeId, body: Bytes) -> Result<Bytes, TakeError> {
        let head = SnapshotHead::decode(body)?;
        if head.files.len() > FILES_MAX || !head.files.iter().all(|file| is_plain(&file.name)) {
            return Err(TakeError::Unexpected("too many files, or names that are paths"));
        }
        self.transfer = None; // its directory goes first
        let (staging, name) = (self.staging.clone(), format!("in-{}", self.shard));
        let dir = blocking(move || StagedDir::create(&staging, &name)).await?;
        self.begun += 1;
        info!(shard = %self.shard, %from, files = head.files.len(), "receiving a snapshot");
        let number = self.begun;
        self.transfer = Some(Transfer { number, from, dir, head, open: None, whole: 0 });
        Ok(encode_transfer_id(number))
    }

    /// Goes on with the transfer that broke off. It gets another number: late pieces from before the break are refused.
    fn resume(&mut self, from: NodeId, body: Bytes) -> Result<Bytes, TakeError> {
        let SnapshotHead { vote, meta, files } = SnapshotHead::decode(body)?;
        let same = |known: &&mut Transfer| {
            known.from == from && known.head.meta == meta && known.head.files == files
        };
        let Some(transfer) = self.transfer.as_mut().filter(same) else {
            return Err(TakeError::NotThis("nothing of this snapshot is here"));
        };
        self.begun += 1;
        transfer.number = self.begun;
        transfer.head.vote = vote;
        let file = u32::try_from(transfer.whole).expect("not more than FILES_MAX");
        let offset = transfer.open.as_ref().map_or(0, |(_, length, _)| *length);
        info!(shard = %self.shard, %from, file, offset, "receiving the rest of a snapshot");
        Ok(Resumed { transfer: self.begun, file, offset }.encode())
    }

    async fn chunk(&mut self, from: NodeId, body: Bytes) -> Result<Bytes, TakeError> {
        let chunk = SnapshotChunk::decode(body)?;
        let mut transfer = self.current(from, chunk.transfer)?;
        let bytes = chunk.data.len() as u64;
        let written = blocking(move || transfer.write(&chunk).map(|()| transfer)).await?;
        self.metrics.snapshot_bytes.with_label_values(&["received"]).inc_by(bytes);
        self.transfer = Some(written);
        Ok(Bytes::new())
    }

    async fn end(&mut self, from: NodeId, body: Bytes) -> Result<Bytes, TakeError> {
        let Transfer { dir, head, open, whole, .. } =
            self.current(from, decode_transfer_id(body)?)?;
        if open.is_some() || whole != head.files.len() {
            return Err(TakeError::Unexpected("a snapshot ended before it was all there"));
        }
        let dir = blocking(move || dir.sync().map(|()| dir)).await?;
        let (vote, meta) = (head.vote, head.meta.clone());
        let snapshot = RaftSnapshot { meta, snapshot: SnapshotData::Staged(Staged { dir, head }) };
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(response) => Ok(encode_installed(&response.vote)),
            Err(error) => Err(TakeError::Raft(error.to_string())),
        }
    }

    /// Takes the transfer out: it is put back if all goes well.
    fn current(&mut self, from: NodeId, number: u64) -> Result<Transfer, TakeError> {
        match self.transfer.take() {
            Some(transfer) if transfer.number == number && transfer.from == from => Ok(transfer),
            // A late piece of an older transfer does not end the current one.
            other => {
                self.transfer = other;
                Err(TakeError::NotThis("no such transfer"))
            }
        }
    }
}

impl Transfer {
    /// Appends a piece to its file; a file that is whole is checked and synced.
    fn write(&mut self, chunk: &SnapshotChunk) -> io::Result<()> {
        let bad = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let file = self.head.files.get(self.whole).ok_or_else(|| bad("more than there is"))?;
        if chunk.file as usize != self.whole {
            return Err(bad("a piece of another file"));
        }
        let (mut handle, mut length, mut crc) = match self.open.take() {
            Some(open) => open,
            None => (File::create_new(self.dir.path().join(&file.name))?, 0, 0),
        };
        if chunk.offset != length || length + chunk.data.len() as u64 > file.bytes {
            return Err(bad("a piece out of order"));
        }
        handle.write_all(&chunk.data)?;
        length += chunk.data.len() as u64;
        crc = crc32c::crc32c_append(crc, &chunk.data);
        if length < file.bytes {
            self.open = Some((handle, length, crc));
            return Ok(());
        }
        if crc != file.crc32c {
            return Err(bad("a file's checksum is not what the head says"));
        }
        handle.sync_all()?;
        self.whole += 1;
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_of_others_stay_in_the_directory() {
        let table = [
            ("000001.sst", true),
            ("", false),
            ("..", false),
            (".", false),
            ("a/b", false),
            ("/etc/passwd", false),
            ("../a", false),
        ];
        for (name, plain) in table {
            assert_eq!(is_plain(name), plain, "{name:?}");
        }
    }
}
