//! The log of a simulated node: bytes with checksums in a file that knows what was synced.
//!
//! # Invariants
//!
//! - **What a crash leaves is what the first *n* operations made of it**, as `moorline_storage::log` promises of every
//!   engine; every synced operation that was answered is among them unless a mutant breaks that. Counted here at every
//!   opening, judged by `invariants/promises.rs`.
//! - **Reads see what is done**, and nothing that waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use moorline_core::ShardId;
use moorline_storage::{
    StorageError,
    log::{Done, LogEngine, LogOp, LogRecord, Mark},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::Notify, time::sleep};

use super::switches::{Failure, Switches};
use crate::{
    mutant::Mutant,
    witness::{Event, Witness},
};

/// A sync takes from here …
const SYNC_MS_MIN: u64 = 1;
/// … to here, unless the disk stalls.
const SYNC_MS_MAX: u64 = 4;
/// Bytes in front of an operation: its length and its checksum.
const FRAME_BYTES: usize = 8;

/// Bytes of the smallest operation: its group and its kind.
const BODY_BYTES_MIN: usize = 3;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Killed: the system still writes out what it was given.
    Process,
    /// Without power: of what was not synced a part is left, perhaps, and its end may be garbage.
    Power,
}

/// What outlives the process.
#[derive(Debug, Default)]
pub(crate) struct LogFile {
    durable: Vec<u8>,
    /// Written, not synced.
    cached: Vec<u8>,
    /// Operations in both, and how many of them were answered as synced.
    operations: u64,
    promised: u64,
    /// What the last promised operation was.
    last_promise: String,
}

impl LogFile {
    /// The process or the machine ends.
    pub(crate) fn crash(&mut self, how: Crash, random: &mut StdRng) {
        if how == Crash::Process || self.cached.is_empty() {
            return;
        }
        let kept = random.random_range(0..=self.cached.len());
        self.cached.truncate(kept);
        match random.random_range(0..3) {
            0 => self.cached.clear(),
            1 => {
                let garbled = kept - random.random_range(0..=kept.min(64));
                for byte in &mut self.cached[garbled..] {
                    *byte = random.random();
                }
            }
            _ => {}
        }
    }

    /// A bit of what was synced is another one from now on: not in the last quarter, whose loss would look like a write that was
    /// torn. Whether there was enough.
    pub(crate) fn damage(&mut self, random: &mut StdRng) -> bool {
        let mut rest = Bytes::copy_from_slice(&self.durable);
        let mut ends = Vec::new();
        while take_op(&mut rest).is_some() {
            ends.push(self.durable.len() - rest.len());
        }
        let Some(&upto) = ends.get(ends.len() * 3 / 4).filter(|_| ends.len() > 8) else {
            return false;
        };
        self.durable[random.random_range(0..upto)] ^= 1 << random.random_range(0..8);
        true
    }
}

/// The entries and marks of one group.
#[derive(Debug, Default)]
struct Group {
    entries: BTreeMap<u64, Bytes>,
    marks: BTreeMap<Mark, Bytes>,
}

type Groups = BTreeMap<ShardId, Group>;

struct Queued {
    group: ShardId,
    op: LogOp,
    done: Option<Done>,
}

#[derive(Default)]
struct Inner {
    queued: VecDeque<Queued>,
    queued_bytes: usize,
    /// What reads see.
    done: Groups,
    /// With what waits: what the process believes.
    newest: Groups,
}

/// The engine of one process.
pub(crate) struct SimLog {
    node: u64,
    file: Arc<Mutex<LogFile>>,
    inner: Mutex<Inner>,
    work: Notify,
    random: Mutex<StdRng>,
    switches: Arc<Switches>,
    mutant: Option<Mutant>,
    witness: Witness,
}

impl SimLog {
    /// Reads what the crash left; nothing if it is damaged: behind what does not check there is something that does, so no
    /// write was torn there. [`Self::write`] must run for anything to be written.
    pub(crate) fn open(
        node: u64,
        file: Arc<Mutex<LogFile>>,
        seed: u64,
        switches: Arc<Switches>,
        mutant: Option<Mutant>,
        witness: Witness,
    ) -> Option<Arc<Self>> {
        let mut inner = Inner::default();
        let (read, promised, last_promise) = {
            let mut file = file.lock().expect("no panic while it is locked");
            let mut bytes = std::mem::take(&mut file.durable);
            bytes.append(&mut file.cached);
            let mut rest = Bytes::from(bytes.clone());
            let mut operations = 0;
            while let Some((group, op)) = take_op(&mut rest) {
                change(&mut inner.done, group, &op);
                change(&mut inner.newest, group, &op);
                operations += 1;
            }
            if is_damaged(&rest) {
                file.durable = bytes;
                return None;
            }
            bytes.truncate(bytes.len() - rest.len());
            // An engine writes out anew what it read before anybody may rely on it.
            file.durable = bytes;
            file.operations = operations;
            let promised = std::mem::replace(&mut file.promised, operations);
            (operations, promised, std::mem::take(&mut file.last_promise))
        };
        witness.tell(Event::Reopened { node, read, promised, last_promise });
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let (inner, work) = (Mutex::new(inner), Notify::new());
        switches.installing.store(false, Ordering::Relaxed);
        switches.take_granted();
        Some(Arc::new(Self { node, file, inner, work, random, switches, mutant, witness }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is locked")
    }

    fn file(&self) -> MutexGuard<'_, LogFile> {
        self.file.lock().expect("no panic while it is locked")
    }

    /// Writes what is queued until the process ends: all that waits at once, with one sync for it.
    pub(crate) async fn write(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            loop {
                let batch: Vec<Queued> = self.inner().queued.drain(..).collect();
                if batch.is_empty() {
                    break;
                }
                if let Some(how) = self.switches.take_failure() {
                    return self.fail(how, batch);
                }
                self.write_batch(batch).await;
            }
        }
    }

    /// The log has failed. As in `storage/rocks`: the process ends, nothing is tried again, and nobody is told that it is done.
    fn fail(&self, how: Failure, batch: Vec<Queued>) {
        {
            let mut file = self.file();
            let written = file.cached.len();
            for Queued { group, op, .. } in &batch {
                put_op(&mut file.cached, *group, op);
            }
            let mut random = self.random.lock().expect("no panic while it is locked");
            let kept = random
                .random_range(if how == Failure::Full { written } else { 0 }..=file.cached.len());
            file.cached.truncate(kept);
        }
        self.witness.tell(Event::DiskFailed { node: self.node, how });
        self.switches.failed.store(true, Ordering::Relaxed);
        let waiting: Vec<Queued> = self.inner().queued.drain(..).collect();
        let error = Arc::new(StorageError::Io {
            doing: "writing the log",
            source: std::io::Error::other(format!("{how:?}")),
        });
        for done in batch.into_iter().chain(waiting).filter_map(|queued| queued.done) {
            done(Err(Arc::clone(&error)));
        }
    }

    async fn write_batch(&self, mut batch: Vec<Queued>) {
        let synced = {
            let mut file = self.file();
            for Queued { group, op, .. } in &batch {
                put_op(&mut file.cached, *group, op);
                file.operations += 1;
            }
            batch.iter().any(|queued| self.syncs(&queued.op))
        };
        if self.mutant == Some(Mutant::AckBeforeFsync) {
            self.finish(&mut batch);
        }
        if synced {
            let ms = self.random.lock().expect("no panic while it is locked");
            let ms = { ms }.random_range(SYNC_MS_MIN..=SYNC_MS_MAX);
            sleep(Duration::from_millis(ms + self.switches.stall.load(Ordering::Relaxed))).await;
            let mut file = self.file();
            let mut cached = std::mem::take(&mut file.cached);
            file.durable.append(&mut cached);
        }
        self.finish(&mut batch);
    }

    fn syncs(&self, op: &LogOp) -> bool {
        let is_vote = matches!(op, LogOp::Mark { mark: Mark::Vote, .. });
        op.synced() && !(is_vote && self.mutant == Some(Mutant::SkipVoteFsync))
    }

    /// Answers all of a batch, in order.
    fn finish(&self, batch: &mut Vec<Queued>) {
        for Queued { group, op, done } in batch.drain(..) {
            {
                let mut inner = self.inner();
                inner.queued_bytes -= op.bytes();
                change(&mut inner.done, group, &op);
            }
            self.notice(group, &op);
            let Some(done) = done else { continue };
            if op.synced() {
                let mut file = self.file();
                // One writer, no batch after this one: all operations so far are written.
                file.promised = file.operations;
                file.last_promise = describe(group, &op);
            }
            done(Ok(()));
        }
    }

    /// What whoever makes faults wants to know.
    fn notice(&self, group: ShardId, op: &LogOp) {
        let LogOp::Mark { mark, value } = op else { return };
        match mark {
            Mark::Vote => {
                let to = candidate(value).filter(|to| *to != self.node);
                to.into_iter().for_each(|to| self.switches.grant(group, to));
            }
            Mark::Installing => {
                let begins = !value.is_empty();
                if !begins && self.switches.installing.load(Ordering::Relaxed) {
                    self.witness.tell(Event::Installed { node: self.node });
                }
                self.switches.installing.store(begins, Ordering::Relaxed);
            }
            Mark::Committed | Mark::Purged | Mark::DurableApplied | Mark::Cleared => {}
        }
    }

    /// A fingerprint of the entry at a place, as the process believes it to be; none while a snapshot is being installed.
    pub(crate) fn entry(&self, group: ShardId, place: u64) -> Option<Bytes> {
        let inner = self.inner();
        let group = inner.newest.get(&group)?;
        if group.marks.get(&Mark::Installing).is_some_and(|mark| !mark.is_empty()) {
            return None;
        }
        group.entries.get(&place).cloned()
    }
}

fn describe(group: ShardId, op: &LogOp) -> String {
    match op {
        LogOp::Append(records) => {
            format!(
                "{} entries of shard {group} up to {:?}",
                records.len(),
                records.last().map(|r| r.index)
            )
        }
        LogOp::Mark { mark, .. } => format!("mark {mark:?} of shard {group}"),
        LogOp::TruncateAfter(after) => format!("a cut of shard {group} after {after}"),
        LogOp::PurgeUpTo(upto) => format!("a purge of shard {group} up to {upto}"),
    }
}

impl LogEngine for SimLog {
    fn submit(&self, group: ShardId, op: LogOp, done: Option<Done>) {
        op.assert_consecutive();
        if let LogOp::Append(records) = &op {
            for LogRecord { index, body } in records {
                let (node, entry, place) = (self.node, body.clone(), *index);
                self.witness.tell(Event::Appended { node, shard: group, place, entry });
            }
        }
        if let LogOp::Mark { mark: Mark::Installing, value } = &op
            && !value.is_empty()
        {
            self.witness.tell(Event::Installing { node: self.node });
        }
        let mut inner = self.inner();
        inner.queued_bytes += op.bytes();
        change(&mut inner.newest, group, &op);
        inner.queued.push_back(Queued { group, op, done });
        drop(inner);
        self.work.notify_one();
    }

    fn read(
        &self,
        group: ShardId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        let inner = self.inner();
        let mut records: Vec<LogRecord> = Vec::new();
        let Some(group) = inner.done.get(&group).filter(|_| from < to) else {
            return Ok(records);
        };
        let mut bytes = 0_usize;
        for (next, (&index, body)) in (from..).zip(group.entries.range(from..to)) {
            bytes = bytes.saturating_add(body.len());
            if index != next || (bytes > bytes_max && !records.is_empty()) {
                break;
            }
            records.push(LogRecord { index, body: body.clone() });
        }
        Ok(records)
    }

    fn mark(&self, group: ShardId, mark: Mark) -> Result<Option<Bytes>, StorageError> {
        Ok(self.inner().done.get(&group).and_then(|group| group.marks.get(&mark).cloned()))
    }

    fn bounds(&self, group: ShardId) -> Result<Option<(u64, u64)>, StorageError> {
        let inner = self.inner();
        let Some(Group { entries, .. }) = inner.done.get(&group) else { return Ok(None) };
        Ok(entries.first_key_value().zip(entries.last_key_value()).map(|((a, _), (b, _))| (*a, *b)))
    }

    fn queued_bytes(&self) -> usize {
        self.inner().queued_bytes
    }
}

fn change(groups: &mut Groups, group: ShardId, op: &LogOp) {
    let group = groups.entry(group).or_default();
    match op {
        LogOp::Append(records) => {
            for LogRecord { index, body } in records {
                group.entries.insert(*index, body.clone());
            }
        }
        LogOp::TruncateAfter(last) => group.entries.retain(|index, _| index <= last),
        LogOp::PurgeUpTo(upto) => group.entries.retain(|index, _| index > upto),
        LogOp::Mark { mark, value } => {
            group.marks.insert(*mark, value.clone());
        }
    }
}

/// `length u32 | crc32c u32 | group u16 | kind u8 | …`
fn put_op(file: &mut Vec<u8>, group: ShardId, op: &LogOp) {
    let mut body = Vec::new();
    body.put_u16(group.0);
    match op {
        LogOp::Append(records) => {
            body.put_u8(1);
            for record in records {
                body.put_u64(record.index);
                body.put_u32(u32::try_from(record.body.len()).expect("entries are small"));
                body.put_slice(&record.body);
            }
        }
        LogOp::TruncateAfter(after) => {
            body.put_u8(2);
            body.put_u64(*after);
        }
        LogOp::PurgeUpTo(upto) => {
            body.put_u8(3);
            body.put_u64(*upto);
        }
        LogOp::Mark { mark, value } => {
            body.put_u8(4);
            body.put_u8(*mark as u8);
            body.put_slice(value);
        }
    }
    file.put_u32(u32::try_from(body.len()).expect("operations are small"));
    file.put_u32(crc32c::crc32c(&body));
    file.put_slice(&body);
}

/// For whom a vote is that does not say that its leader is elected already (`raft/group/src/codec/disk.rs`): version, term, node,
/// committed.
fn candidate(vote: &[u8]) -> Option<u64> {
    let node = vote.get(9..17)?.try_into().ok()?;
    (vote.get(17) == Some(&0)).then(|| u64::from_be_bytes(node))
}

/// Whether something that checks lies behind what does not.
fn is_damaged(rest: &Bytes) -> bool {
    (1..rest.len()).any(|at| take_op(&mut rest.slice(at..)).is_some())
}

/// The next operation, if it is whole.
fn take_op(rest: &mut Bytes) -> Option<(ShardId, LogOp)> {
    if rest.len() < FRAME_BYTES {
        return None;
    }
    let mut ahead = rest.clone();
    let (length, sum) = (ahead.get_u32() as usize, ahead.get_u32());
    if length < BODY_BYTES_MIN || ahead.len() < length {
        return None;
    }
    let mut body = ahead.split_to(length);
    if crc32c::crc32c(&body) != sum {
        return None;
    }
    let group = ShardId(body.get_u16());
    let op = match body.get_u8() {
        1 => {
            let mut records = Vec::new();
            while !body.is_empty() {
                let (index, length) = (body.get_u64(), body.get_u32() as usize);
                records.push(LogRecord { index, body: body.split_to(length) });
            }
            LogOp::Append(records)
        }
        2 => LogOp::TruncateAfter(body.get_u64()),
        3 => LogOp::PurgeUpTo(body.get_u64()),
        _ => {
            let number = body.get_u8();
            let mark = Mark::ALL.into_iter().find(|mark| *mark as u8 == number)?;
            LogOp::Mark { mark, value: body }
        }
    };
    *rest = ahead;
    Some((group, op))
}
