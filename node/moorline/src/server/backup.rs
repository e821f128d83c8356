//! A node's part in a backup: it reads the rows of a group that it leads, piece by piece, as fast as somebody asks.
//!
//! ```text
//!   moorline backup ─ HTTP ─► any node ─ wire ─► the group's leader: a thread that reads rows, cuts a piece, waits
//!                     begin     of which moment, and a session
//!                     next      the next piece's hash and size       one that is there already is not taken
//!                     piece     its bytes
//! ```
//!
//! # Invariants
//!
//! - **One piece in memory** per session, and [`SESSIONS_MAX`] sessions: who asks slowly makes the thread wait.
//! - **What nobody asks for ends**: a session of which nothing is heard for [`IDLE_MAX`] lets go of its view of the rows.
//!
//! # Deliberately absent
//!
//! Files and manifests: the command has them (`crate::backup`).

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use moorline_group::{
    RowsAt,
    wire::{CallError, Kind, Lane, Peers, Replier},
};
use moorline_storage::pieces::{Cutter, Piece};
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::node::Node;

/// Questions to a reader that wait: the one that is answered, and the one that ends it.
const QUESTIONS_MAX: usize = 2;
/// Groups that are read at once on a node: each keeps what was deleted meanwhile on the disk.
const SESSIONS_MAX: usize = 4;
/// How long a session waits for the next question.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long one question may take: before the first row all rows in memory are written out.
const ASK_DEADLINE: Duration = Duration::from_secs(60);

/// What is asked of a group's leader. Nodes of two versions may talk to each other: fields are added, never changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Begin a session.
    Begin,
    /// What is the next piece?
    Next { session: u64 },
    /// The piece that was named last.
    Piece { session: u64 },
}

/// The answer to [`Ask::Begin`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Who leads.
    pub(crate) node: u64,
    pub(crate) session: u64,
    /// The last entry in the rows: its term and index.
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Log time then.
    pub(crate) time_ms: u64,
}

/// The answer to [`Ask::Next`]; nothing at all at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// A question to the thread that reads.
enum Question {
    Next(oneshot::Sender<Option<Found>>),
    Piece(oneshot::Sender<Bytes>),
}

/// What this node reads for backups.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    sessions: Mutex<Sessions>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Sessions {
    begun: u64,
    open: BTreeMap<u64, SyncSender<Question>>,
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reading end of a session, on its thread.
struct Reader {
    questions: Receiver<Question>,
    cutter: Cutter,
    /// What was cut.
    read_bytes: IntCounter,
    /// Who waits for the next piece.
    waits: Option<oneshot::Sender<Option<Found>>>,
}

impl Reader {
    /// Takes the next row, or that there is none.
    fn visit(&mut self, row: Option<(&[u8], &Bytes)>) -> ControlFlow<()> {
        let piece = match row {
            Some((key, row)) => self.cutter.push(key, row),
            None => self.cutter.finish(),
        };
        if let Some(piece) = piece {
            self.offer(&piece)?;
        }
        if row.is_none() { self.tell(None) } else { ControlFlow::Continue(()) }
    }

    /// Names a piece to whoever asks for the next one, and gives it until the one behind it is asked for.
    fn offer(&mut self, piece: &Piece) -> ControlFlow<()> {
        let bytes = piece.bytes.len() as u64;
        self.read_bytes.inc_by(bytes);
        let found = Found { sha256: sha256(&piece.bytes), bytes, rows: piece.rows };
        self.tell(Some(found))?;
        loop {
            match self.questions.recv_timeout(IDLE_MAX) {
                Ok(Question::Piece(reply)) => drop(reply.send(piece.bytes.clone())),
                Ok(Question::Next(reply)) => {
                    self.waits = Some(reply);
                    return ControlFlow::Continue(());
                }
                Err(_) => return ControlFlow::Break(()),
            }
        }
    }

    /// Answers who asked for the next piece, or asks for it first.
    fn tell(&mut self, found: Option<Found>) -> ControlFlow<()> {
        loop {
            if let Some(reply) = self.waits.take() {
                // Who went away asks no more, and the session ends for that.
                drop(reply.send(found));
                return ControlFlow::Continue(());
            }
            match self.questions.recv_timeout(IDLE_MAX) {
                Ok(Question::Next(reply)) => self.waits = Some(reply),
                // Nothing was named yet: its asker hears that the question was dropped.
                Ok(Question::Piece(reply)) => drop(reply),
                Err(_) => return ControlFlow::Break(()),
            }
        }
    }
}

impl Backups {
    fn sessions<R>(&self, with: impl FnOnce(&mut Sessions) -> R) -> R {
        // Every change is complete before anything can panic.
        with(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ask(&self, session: u64, question: Question) -> anyhow::Result<()> {
        let asked = self.sessions(|sessions| {
            let open = sessions.open.get(&session);
            open.map(|questions| questions.try_send(question))
        });
        match asked {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => bail!("questions come faster than answers"),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                bail!("there is no such session any more: begin the backup again")
            }
        }
    }
}

/// Takes what other nodes ask. Before the wire is started.
pub(crate) fn register(peers: &Peers, node: &Arc<Node>) {
    let node = Arc::downgrade(node);
    let handle = move |_: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>| {
        if let (Some(node), Some(reply)) = (Weak::upgrade(&node), reply) {
            let asked = Arc::clone(&node);
            let answered = async move {
                match answer(&asked, shard, &body).await {
                    Ok(body) => reply.send(body),
                    Err(problem) => reply.refuse(&format!("{problem:#}")),
                }
            };
            drop(node.backups().tasks.spawn(answered));
        }
    };
    peers.register(Kind::Backup, Arc::new(handle));
}

async fn answer(node: &Arc<Node>, shard: ShardId, body: &Bytes) -> anyhow::Result<Bytes> {
    let gone = "the rows could not be read to the end";
    match serde_json::from_slice(body).context("not a question of a backup")? {
        Ask::Begin => Ok(serde_json::to_vec(&begin(node, shard).await?)?.into()),
        Ask::Next { session } => {
            let (reply, answer) = oneshot::channel();
            node.backups().ask(session, Question::Next(reply))?;
            Ok(match answer.await.context(gone)? {
                Some(found) => serde_json::to_vec(&found)?.into(),
                None => Bytes::new(),
            })
        }
        Ask::Piece { session } => {
            let (reply, answer) = oneshot::channel();
            node.backups().ask(session, Question::Piece(reply))?;
            answer.await.context(gone)
        }
    }
}

async fn begin(node: &Arc<Node>, shard: ShardId) -> anyhow::Result<Begun> {
    let (questions, asked) = sync_channel(QUESTIONS_MAX);
    let session = node.backups().sessions(|sessions| {
        if sessions.open.len() >= SESSIONS_MAX {
            return None;
        }
        // Not to be mistaken for one of the process before.
        let session = (u64::from(rand::random::<u32>()) << 16) | (sessions.begun & 0xffff);
        sessions.begun += 1;
        sessions.open.insert(session, questions);
        Some(session)
    });
    let session = session.context("as many backups are read here as may be")?;
    let (begun, at) = oneshot::channel::<RowsAt>();
    let task = Arc::clone(node);
    drop(node.backups().tasks.spawn(async move {
        let read_bytes = task.metrics().backups.read_bytes.clone();
        let mut reader =
            Reader { questions: asked, cutter: Cutter::default(), read_bytes, waits: None };
        let began = move |at: RowsAt| {
            // Who asked may have gone: then nobody asks for a piece either.
            let _told: bool = begun.send(at).is_ok();
        };
        let visit = move |row: Option<(&[u8], &Bytes)>| reader.visit(row);
        let read = task.groups().read_rows(shard, began, visit).await;
        task.backups().sessions(|sessions| sessions.open.remove(&session));
        match read {
            Ok(true) => info!(%shard, "rows were read for a backup"),
            Ok(false) => warn!(%shard, "nobody asks for the rest of the rows: the backup ends"),
            Err(problem) => warn!(%shard, %problem, "rows could not be read for a backup"),
        }
    }));
    let RowsAt { term, index, time } =
        at.await.context("this node does not lead the group, or can't read its rows")?;
    info!(%shard, index, "rows are read for a backup");
    Ok(Begun { node: node.config().node.id, session, term, index, time_ms: time.0 })
}

impl Node {
    /// Asks a group's leader, which may be this node.
    pub(crate) async fn ask_for_rows(
        &self,
        shard: ShardId,
        to: NodeId,
        ask: &Ask,
    ) -> Result<Bytes, CallError> {
        let body = serde_json::to_vec(ask).expect("numbers and names").into();
        self.peers().call(to, Lane::Bulk, Kind::Backup, shard, body, ASK_DEADLINE).await
    }

    /// Begins to read a group's rows, wherever it is led.
    pub(crate) async fn begin_rows(&self, shard: ShardId) -> anyhow::Result<Bytes> {
        let meta =
            |machine: &moorline_machine::Machine, _: &_| machine.meta().voters(shard).to_vec();
        let mut voters = self.groups().read(ShardId::META, meta).unwrap_or_default();
        if voters.is_empty() {
            bail!("there is no group {shard}");
        }
        // Who led a moment ago most likely leads now, also while its vote moves to another node.
        if let Some(leader) = self.router().leader(shard) {
            voters.retain(|voter| *voter != leader);
            voters.insert(0, leader);
        }
        let mut why = Vec::new();
        for voter in voters {
            match self.ask_for_rows(shard, voter, &Ask::Begin).await {
                Ok(begun) => return Ok(begun),
                Err(problem) => why.push(format!("node {voter}: {problem}")),
            }
        }
        bail!("nobody gives the rows of group {shard}: {}", why.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn reader(questions: Receiver<Question>) -> Reader {
        let read_bytes = IntCounter::new("read", "so many").unwrap();
        Reader { questions, cutter: Cutter::default(), read_bytes, waits: None }
    }

    fn next(to: &SyncSender<Question>) -> Option<Found> {
        let (reply, answer) = oneshot::channel();
        to.send(Question::Next(reply)).unwrap();
        answer.blocking_recv().unwrap()
    }

    fn piece(to: &SyncSender<Question>) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        to.send(Question::Piece(reply)).unwrap();
        answer.blocking_recv().ok()
    }

    #[test]
    fn pieces_are_named_given_as_often_as_asked_for_and_end() {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        let rows = 20_000_u32;
        let reading = thread::spawn(move || {
            let mut reader = reader(asked);
            for row in 0..rows {
                let value = Bytes::from(vec![7; 500]);
                if reader.visit(Some((&row.to_be_bytes(), &value))).is_break() {
                    return;
                }
            }
            assert!(reader.visit(None).is_continue());
        });
        assert_eq!(piece(&questions), None, "none was named yet");
        let (mut named, mut found) = (0, 0);
        while let Some(Found { sha256: hash, bytes, rows }) = next(&questions) {
            named += 1;
            found += rows;
            if named == 2 {
                continue; // it is there already
            }
            let taken = piece(&questions).unwrap();
            assert_eq!((sha256(&taken), taken.len() as u64), (hash, bytes));
            assert_eq!(piece(&questions), Some(taken), "a question that is asked again");
        }
        assert!(named > 3, "{named} pieces");
        assert_eq!(found, u64::from(rows));
        reading.join().unwrap();
    }

    #[test]
    fn who_asks_no_more_ends_it() {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        drop(questions);
        let mut reader = reader(asked);
        let value = Bytes::from(vec![7; 8 * 1024 * 1024]);
        assert!(reader.visit(Some((b"k", &value))).is_break());
    }

    #[test]
    fn questions_between_nodes_keep_their_form() {
        // Frozen: nodes of two versions ask each other during an upgrade.
        let text = |ask: &Ask| serde_json::to_string(ask).unwrap();
        assert_eq!(text(&Ask::Begin), r#"{"ask":"begin"}"#);
        assert_eq!(text(&Ask::Next { session: 7 }), r#"{"ask":"next","session":7}"#);
        assert_eq!(text(&Ask::Piece { session: 7 }), r#"{"ask":"piece","session":7}"#);
    }
}
