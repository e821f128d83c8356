//! A log in memory that knows what is queued, what is written and what is synced.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use moorline_core::ShardId;

use crate::{
    StorageError,
    log::{Done, LogEngine, LogOp, LogRecord, Mark},
};

/// The entries and marks of one group.
#[derive(Debug, Clone, Default)]
struct Group {
    entries: BTreeMap<u64, Bytes>,
    marks: BTreeMap<Mark, Bytes>,
}

impl Group {
    fn change(&mut self, op: LogOp) {
        match op {
            LogOp::Append(records) => {
                for LogRecord { index, body } in records {
                    self.entries.insert(index, body);
                }
            }
            LogOp::TruncateAfter(last) => self.entries.retain(|&index, _| index <= last),
            LogOp::PurgeUpTo(upto) => self.entries.retain(|&index, _| index > upto),
            LogOp::Mark { mark, value } => {
                self.marks.insert(mark, value);
            }
        }
    }
}

type Groups = BTreeMap<ShardId, Group>;

fn change(groups: &mut Groups, group: ShardId, op: LogOp) {
    groups.entry(group).or_default().change(op);
}

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
    written: Groups,
    /// What was written, but not synced, in order.
    unsynced: Vec<(ShardId, LogOp)>,
    /// What a crash leaves at least.
    durable: Groups,
}

impl Inner {
    /// Writes the oldest operation; the answer is for the caller to give, without the lock.
    fn write(&mut self) -> Option<Done> {
        let Queued { group, op, done } = self.queued.pop_front()?;
        self.queued_bytes -= op.bytes();
        change(&mut self.written, group, op.clone());
        let synced = op.synced();
        self.unsynced.push((group, op));
        if synced {
            for (group, op) in self.unsynced.drain(..) {
                change(&mut self.durable, group, op);
            }
        }
        done
    }
}

/// A [`LogEngine`] without a disk.
pub struct MemLog {
    inner: Mutex<Inner>,
    /// Whether operations wait for [`MemLog::write`].
    held: bool,
}

impl MemLog {
    /// A log that completes each operation inside `submit`.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Mutex::default(), held: false }
    }

    /// A log whose operations wait for [`MemLog::write`].
    #[must_use]
    pub fn held() -> Self {
        Self { inner: Mutex::default(), held: true }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is locked")
    }

    /// Operations that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner().queued.len()
    }

    /// Completes the `count` oldest operations.
    pub fn write(&self, count: usize) {
        for _ in 0..count {
            let mut inner = self.inner();
            if inner.queued.is_empty() {
                return;
            }
            let done = inner.write();
            drop(inner);
            if let Some(done) = done {
                done(Ok(()));
            }
        }
    }

    /// What a power failure leaves: everything up to the last synced operation, and the first `lucky` of those after it.
    /// Nobody hears of the others any more.
    pub fn crash(&self, lucky: usize) {
        let mut inner = self.inner();
        let unsynced = std::mem::take(&mut inner.unsynced);
        let queued = std::mem::take(&mut inner.queued);
        inner.queued_bytes = 0;
        let after = unsynced.into_iter().chain(queued.into_iter().map(|q| (q.group, q.op)));
        for (group, op) in after.take(lucky) {
            change(&mut inner.durable, group, op);
        }
        inner.written = inner.durable.clone();
    }
}

impl Default for MemLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemLog").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl LogEngine for MemLog {
    fn submit(&self, group: ShardId, op: LogOp, done: Option<Done>) {
        op.assert_consecutive();
        let mut inner = self.inner();
        inner.queued_bytes += op.bytes();
        inner.queued.push_back(Queued { group, op, done });
        drop(inner);
        if !self.held {
            self.write(1);
        }
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
        let Some(group) = inner.written.get(&group).filter(|_| from < to) else {
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
        Ok(self.inner().written.get(&group).and_then(|group| group.marks.get(&mark).cloned()))
    }

    fn bounds(&self, group: ShardId) -> Result<Option<(u64, u64)>, StorageError> {
        let inner = self.inner();
        let Some(Group { entries, .. }) = inner.written.get(&group) else {
            return Ok(None);
        };
        Ok(entries.first_key_value().zip(entries.last_key_value()).map(|((a, _), (b, _))| (*a, *b)))
    }

    fn queued_bytes(&self) -> usize {
        self.inner().queued_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const GROUP: ShardId = ShardId(1);

    /// Entries whose bodies are their indexes.
    fn append(from: u64, to: u64) -> LogOp {
        let record = |index: u64| LogRecord { index, body: Bytes::from(index.to_string()) };
        LogOp::Append((from..=to).map(record).collect())
    }

    fn told() -> (Arc<Mutex<Vec<u32>>>, impl Fn(u32) -> Option<Done>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        let done = move |number| {
            let list = Arc::clone(&list);
            let done: Done = Box::new(move |result| {
                result.unwrap();
                list.lock().unwrap().push(number);
            });
            Some(done)
        };
        (told, done)
    }

    fn indexes(log: &MemLog) -> Vec<u64> {
        let records = log.read(GROUP, 0, u64::MAX, usize::MAX).unwrap();
        assert!(records.is_empty(), "nothing lies at 0");
        match log.bounds(GROUP).unwrap() {
            Some((first, last)) => {
                let records = log.read(GROUP, first, last + 1, usize::MAX).unwrap();
                records.into_iter().map(|record| record.index).collect()
            }
            None => Vec::new(),
        }
    }

    #[test]
    fn operations_take_effect_in_order_and_are_told_in_order() {
        let (told, done) = told();
        let log = MemLog::held();
        log.submit(GROUP, append(1, 5), done(1));
        log.submit(GROUP, LogOp::TruncateAfter(3), done(2));
        log.submit(GROUP, append(4, 4), done(3));
        log.submit(GROUP, LogOp::PurgeUpTo(1), done(4));
        assert_eq!((indexes(&log).len(), log.waiting()), (0, 4));
        assert!(log.queued_bytes() > 0);
        log.write(2);
        assert_eq!((indexes(&log), told.lock().unwrap().clone()), (vec![1, 2, 3], vec![1, 2]));
        log.write(9);
        assert_eq!(
            (indexes(&log), told.lock().unwrap().clone()),
            (vec![2, 3, 4], vec![1, 2, 3, 4])
        );
        assert_eq!(log.queued_bytes(), 0);
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        for (lucky, expected) in
            [(0, vec![1, 2]), (1, vec![1]), (2, vec![1, 2, 3]), (9, vec![2, 3])]
        {
            let (told, done) = told();
            let log = MemLog::held();
            log.submit(GROUP, append(1, 2), done(1));
            log.submit(GROUP, LogOp::TruncateAfter(1), done(2));
            log.write(2);
            log.submit(GROUP, append(2, 3), done(3));
            log.submit(GROUP, LogOp::PurgeUpTo(1), done(4));
            log.crash(lucky);
            assert_eq!(indexes(&log), expected, "{lucky} lucky");
            assert_eq!(*told.lock().unwrap(), [1, 2], "nobody hears of what the crash took");
        }
    }

    #[test]
    fn a_synced_operation_takes_all_before_it_along() {
        let log = MemLog::held();
        let committed = LogOp::Mark { mark: Mark::Committed, value: Bytes::from_static(b"7") };
        log.submit(GROUP, committed, None);
        log.submit(ShardId(2), append(1, 1), None);
        log.write(2);
        log.crash(0);
        assert_eq!(log.mark(GROUP, Mark::Committed).unwrap().as_deref(), Some(&b"7"[..]));
    }

    #[test]
    fn reading_stops_at_its_limit_and_before_a_gap() {
        let log = MemLog::new();
        log.submit(GROUP, append(1, 3), None);
        log.submit(GROUP, append(6, 7), None);
        let read = |from, to, bytes| log.read(GROUP, from, to, bytes).unwrap().len();
        assert_eq!((read(1, 9, 99), read(1, 3, 99), read(2, 9, 1), read(2, 9, 0)), (3, 2, 1, 1));
        assert_eq!((read(4, 9, 99), read(6, 9, 99), read(3, 1, 99)), (0, 2, 0));
        log.submit(GROUP, LogOp::PurgeUpTo(u64::MAX), None);
        assert_eq!(log.bounds(GROUP).unwrap(), None);
    }

    #[test]
    #[should_panic(expected = "follow each other")]
    fn an_append_with_a_hole_is_a_bug() {
        let hole = [1, 3].map(|index| LogRecord { index, body: Bytes::new() });
        MemLog::new().submit(GROUP, LogOp::Append(hole.to_vec()), None);
    }
}
