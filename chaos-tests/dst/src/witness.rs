//! What happened, told by the parts of the simulation as it happens: to the trace, and to every invariant.
//!
//! # Invariants
//!
//! - **The trace is all that happened**: every event, with its virtual time, in order. Two runs of a seed give the same
//!   bytes (`run --twice`).

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_group::Role;
use moorline_machine::placement::Next;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    devices::Key,
    disk::Failure,
    invariants::{Invariants, Violation},
    os,
    tally::Tally,
};

/// Something that happened.
#[expect(dead_code, reason = "some of it only the trace tells")]
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A fault begins or ends.
    Fault(String),
    /// A process begins.
    Started { node: u64, process: u64 },
    /// A bit of what a node had synced is another from now on.
    Damaged { node: u64 },
    /// A log was opened: operations read, and how many had been answered as synced before.
    Reopened { node: u64, read: u64, promised: u64, last_promise: String },
    /// An entry is appended to a node's log.
    Appended { node: u64, shard: ShardId, place: u64, entry: Bytes },
    /// A replica begins to install a snapshot.
    Installing { node: u64 },
    /// It is installed.
    Installed { node: u64 },
    /// A disk failed: the process must end.
    DiskFailed { node: u64, how: Failure },
    /// A log cannot be opened: its node takes no part any more.
    Quarantined { node: u64 },
    /// A leader took a step with the membership of its group, or tried to.
    Step { leader: u64, shard: ShardId, next: Next, taken: bool },
    /// A node deleted what a group had left there.
    Deleted { node: u64, shard: ShardId },
    /// What a replica is now.
    Role { node: u64, shard: ShardId, role: Role },
    /// A replica has applied everything up to `index`.
    Applied { node: u64, process: u64, shard: ShardId, index: u64 },
    /// What is committed at an index, as one node's log has it.
    Committed { node: u64, shard: ShardId, index: u64, entry: Bytes },
    /// The digest of a replica's rows as of an index.
    Digest { node: u64, shard: ShardId, index: u64, digest: u128 },
    /// A client sends a message.
    Sent { client: u64, number: u64 },
    /// It was acknowledged.
    Acked { client: u64, number: u64 },
    /// It was not, and what that means.
    Failed { client: u64, number: u64, maybe: bool, why: String },
    /// A linearizable read begins.
    ReadBegan { reader: u64 },
    /// It saw so many messages.
    ReadEnded { reader: u64, seen: u64 },
    /// A device's session was resumed, or made.
    Resumed { device: String, node: u64, present: bool },
    /// A subscriber's connection is the newest from now on; whether it took over from one that lives.
    Attached { subscriber: u64, link: u64, over: bool },
    /// It is gone.
    Detached { subscriber: u64, link: u64 },
    /// A subscriber was told for the first time that its subscription holds.
    Subscribed { subscriber: u64 },
    /// A device publishes a message, perhaps again.
    Published { key: Key, again: bool },
    /// That was answered; whether with yes.
    Answered { key: Key, yes: bool },
    /// A message came on a connection: whether it is whole, and whether it is known by its packet id.
    Got { subscriber: u64, link: u64, key: Key, id: u16, whole: bool, known: bool },
    /// The subscriber took it, and acknowledges; whether with QoS 2.
    Took { subscriber: u64, link: u64, key: Key, once: bool },
    /// A node releases what the subscriber took with QoS 2, by its packet id.
    Released { subscriber: u64, link: u64, id: u16 },
    /// All that was promised has had time to come.
    Drained,
    /// A replica's queue at the end, all applied: the messages, as `(client, number)`.
    Final { node: u64, queue: Vec<(u64, u64)>, applied: u64, digest: u128 },
    /// A replica gives up.
    Fatal { node: u64, why: String },
    /// What should have come did not.
    Stuck { why: String },
    /// Faults are over: from now on everybody must be served. `whole`: and no link is cut.
    Calm { whole: bool },
    /// The end: of each of these lists one client at least had to be served in calm.
    /// `whole`: and no link is cut.
    End { clients: Vec<Vec<u64>>, whole: bool },
}

struct Inner {
    invariants: Invariants,
    hash: Xxh3,
    events: u64,
    file: Option<BufWriter<File>>,
    line: String,
    violation: Option<Violation>,
    tally: Tally,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witness(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

impl Witness {
    /// Writes the trace to `file`, too, and looks at all invariants but those of these names.
    pub(crate) fn new(file: Option<File>, blind: &[String]) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            invariants: Invariants::without(blind),
            hash: Xxh3::new(),
            events: 0,
            file: file.map(BufWriter::new),
            line: String::new(),
            violation: None,
            tally: Tally::default(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while it is locked")
    }

    /// Something happened. The first violation is kept.
    pub(crate) fn tell(&self, event: Event) {
        let mut inner = self.inner();
        let Inner { invariants, hash, events, file, line, violation, tally } = &mut *inner;
        tally.see(&event);
        line.clear();
        let ms = os::elapsed().as_millis();
        writeln!(line, "{ms} {}", Short(&event)).expect("a string takes everything");
        hash.update(line.as_bytes());
        *events += 1;
        if let Some(out) = file
            && let Err(error) = out.write_all(line.as_bytes())
        {
            panic!("the trace cannot be written: {error}");
        }
        if let Err(found) = invariants.see(&event)
            && violation.is_none()
        {
            *violation = Some(found);
        }
    }

    /// The first violation, if there was one.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    /// A fault of this kind begins.
    pub(crate) fn count(&self, fault: &str) {
        *self.inner().tally.faults.entry(fault.to_owned()).or_default() += 1;
    }

    /// What the run was made of.
    pub(crate) fn tally(&self) -> Tally {
        self.inner().tally.clone()
    }

    /// How many deliveries are promised that have not come.
    pub(crate) fn owed(&self) -> usize {
        self.inner().invariants.owed()
    }

    /// What was covered: for judging whether a run says anything.
    pub(crate) fn coverage(&self) -> String {
        self.inner().invariants.coverage()
    }

    /// Events and their hash.
    pub(crate) fn finish(&self) -> (u64, u64) {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file
            && let Err(error) = file.flush()
        {
            panic!("the trace cannot be written: {error}");
        }
        (inner.events, inner.hash.digest())
    }
}

/// An event on one line; bodies as their hashes.
struct Short<'a>(&'a Event);

impl std::fmt::Display for Short<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are short")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Event::Appended { node, shard, place, entry } => {
                write!(f, "appended n{node} {shard} {place} {:016x}", xxh3_64(entry))
            }
            Event::Committed { node, shard, index, entry } => {
                write!(f, "committed n{node} {shard} {index} {:016x}", xxh3_64(entry))
            }
            Event::Final { node, queue, applied, digest } => {
                write!(f, "final n{node} {} messages {applied} {digest:032x}", queue.len())
            }
            other => write!(f, "{other:?}"),
        }
    }
}
