//! What one file holds: its bytes on the backing file, and over them the changes not yet synced, in order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use crate::random::Random;

/// Writes that follow one another are kept as one change up to this many bytes, so that a log of small writes is not a
/// list of a million.
const CHANGE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate { len: u64 },
}

/// Where a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Waits for a sync.
    Pending,
    /// Its sync failed: readable, but never to be written.
    Doomed,
    /// On the backing file; kept because a doomed change before it would else cover it.
    Applied,
}

/// A file's unsynced changes. The backing file is passed to each call that needs it.
#[derive(Debug)]
pub(crate) struct Content {
    changes: Vec<(Change, Fate)>,
    backing_len: u64,
    len: u64,
    /// When the file was last changed, if later than the backing file says.
    changed: Option<SystemTime>,
}

impl Content {
    pub(crate) fn new(backing_len: u64) -> Self {
        Self { changes: Vec::new(), backing_len, len: backing_len, changed: None }
    }

    /// The length readers see.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn changed(&self) -> Option<SystemTime> {
        self.changed
    }

    /// Whether something here is not on the backing file.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Bytes held in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.changes.iter().map(|(change, _)| match change {
            Change::Write { bytes, .. } => bytes.len() as u64,
            Change::Truncate { .. } => 0,
        });
        sizes.sum()
    }

    pub(crate) fn write(&mut self, at: u64, data: &[u8], now: SystemTime) {
        self.changed = Some(now);
        self.len = self.len.max(at + data.len() as u64);
        if let Some((Change::Write { at: start, bytes }, Fate::Pending)) = self.changes.last_mut()
            && *start + bytes.len() as u64 == at
            && bytes.len() + data.len() <= CHANGE_BYTES_MAX
        {
            bytes.extend_from_slice(data);
            return;
        }
        self.changes.push((Change::Write { at, bytes: data.to_vec() }, Fate::Pending));
    }

    pub(crate) fn truncate(&mut self, len: u64, now: SystemTime) {
        self.changed = Some(now);
        self.len = len;
        self.changes.push((Change::Truncate { len }, Fate::Pending));
    }

    /// Up to `size` bytes from `at`: short only at the end of the file.
    pub(crate) fn read(&self, backing: &File, at: u64, size: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; size.min(left)];
        let below = usize::try_from(self.backing_len.saturating_sub(at)).unwrap_or(usize::MAX);
        let below = below.min(buffer.len());
        backing.read_exact_at(&mut buffer[..below], at)?;
        for (change, _) in &self.changes {
            overlay(&mut buffer, at, change);
        }
        Ok(buffer)
    }

    /// Puts every pending change on the backing file.
    pub(crate) fn sync(&mut self, backing: &File) -> io::Result<()> {
        for at in 0..self.changes.len() {
            if self.changes[at].1 == Fate::Pending {
                self.apply(at, None, backing)?;
                self.changes[at].1 = Fate::Applied;
            }
        }
        let doomed = self.changes.iter().position(|(_, fate)| *fate == Fate::Doomed);
        self.changes.drain(..doomed.unwrap_or(self.changes.len()));
        if self.changes.is_empty() {
            self.changed = None;
        }
        Ok(())
    }

    /// A sync that fails: what was pending will never be written.
    pub(crate) fn fail_sync(&mut self) {
        for (_, fate) in self.changes.iter_mut().filter(|(_, fate)| *fate == Fate::Pending) {
            *fate = Fate::Doomed;
        }
    }

    /// Power failure: only the backing file is left.
    pub(crate) fn lose(&mut self) {
        self.changes.clear();
        self.len = self.backing_len;
        self.changed = None;
    }

    /// Power failure in the middle of a write: a random prefix of the pending changes is left, the last one cut.
    pub(crate) fn tear(&mut self, backing: &File, random: &mut Random) -> io::Result<()> {
        let pending: Vec<usize> =
            (0..self.changes.len()).filter(|&at| self.changes[at].1 == Fate::Pending).collect();
        let whole = random.up_to(pending.len());
        for &at in &pending[..whole] {
            self.apply(at, None, backing)?;
        }
        if let Some(&at) = pending.get(whole)
            && let Change::Write { bytes, .. } = &self.changes[at].0
        {
            let cut = random.up_to(bytes.len());
            self.apply(at, Some(cut), backing)?;
        }
        self.lose();
        Ok(())
    }

    /// Puts one change, or the first `cut` bytes of it, on the backing file.
    fn apply(&mut self, at: usize, cut: Option<usize>, backing: &File) -> io::Result<()> {
        match &self.changes[at].0 {
            Change::Write { at, bytes } => {
                let bytes = &bytes[..cut.unwrap_or(bytes.len())];
                if !bytes.is_empty() {
                    backing.write_all_at(bytes, *at)?;
                    self.backing_len = self.backing_len.max(at + bytes.len() as u64);
                }
            }
            Change::Truncate { len } => {
                backing.set_len(*len)?;
                self.backing_len = *len;
            }
        }
        Ok(())
    }
}

/// Plays one change onto what was read from `at`.
fn overlay(buffer: &mut [u8], at: u64, change: &Change) {
    let within = |offset: u64| {
        usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len())
    };
    match change {
        Change::Write { at: start, bytes } => {
            let (from, to) = (within(*start), within(start + bytes.len() as u64));
            if from < to {
                let skip = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
                buffer[from..to].copy_from_slice(&bytes[skip..skip + (to - from)]);
            }
        }
        // Beyond a cut there are zeros, also where the file grew again.
        Change::Truncate { len } => {
            let from = within(*len);
            buffer[from..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn backing(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn on(backing: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(backing.metadata().unwrap().len()).unwrap()];
        backing.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn seen(content: &Content, backing: &File) -> Vec<u8> {
        content.read(backing, 0, 1 << 20).unwrap()
    }

    #[test]
    fn a_write_is_seen_at_once_and_written_by_the_sync() {
        let file = backing(b"old");
        let mut content = Content::new(3);
        content.write(3, b" new", NOW);
        assert_eq!((seen(&content, &file), on(&file)), (b"old new".to_vec(), b"old".to_vec()));
        content.sync(&file).unwrap();
        assert_eq!(on(&file), b"old new");
        assert!(!content.is_dirty());
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        let file = backing(b"old");
        let mut content = Content::new(3);
        content.truncate(0, NOW);
        content.write(0, b"other", NOW);
        content.lose();
        assert_eq!((seen(&content, &file), content.len()), (b"old".to_vec(), 3));
    }

    #[test]
    fn a_failed_sync_forgets_what_a_later_one_does_not_bring_back() {
        let file = backing(b"");
        let mut content = Content::new(0);
        content.write(0, b"doomed", NOW);
        content.fail_sync();
        content.write(6, b" kept", NOW);
        content.write(0, b"D", NOW);
        content.sync(&file).unwrap();
        assert_eq!(seen(&content, &file), b"Doomed kept");
        assert_eq!(on(&file), b"D\0\0\0\0\0 kept");
        content.lose();
        assert_eq!(seen(&content, &file), b"D\0\0\0\0\0 kept");
    }

    #[test]
    fn a_torn_file_is_a_prefix_of_what_was_written() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let file = backing(b"");
            let mut content = Content::new(0);
            content.write(0, b"abcdefgh", NOW);
            content.truncate(8, NOW);
            content.write(8, b"ijklmnop", NOW);
            content.tear(&file, &mut Random::new(seed)).unwrap();
            assert!(b"abcdefghijklmnop".starts_with(&on(&file)), "{:?}", on(&file));
            assert_eq!(seen(&content, &file), on(&file));
            lengths.insert(on(&file).len());
        }
        assert_eq!(lengths.first(), Some(&0));
        assert_eq!(lengths.last(), Some(&16));
        assert!(lengths.len() > 10, "{lengths:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Truncate(u64),
        Sync,
        FailSync,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40_u64, proptest::collection::vec(any::<u8>(), 1..20))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            1 => (0..40_u64).prop_map(Step::Truncate),
            1 => Just(Step::Sync),
            1 => Just(Step::FailSync),
        ]
    }

    proptest! {
        #[test]
        fn reads_see_what_a_plain_file_would_hold(
            steps in proptest::collection::vec(step(), 0..30),
            at in 0..50_u64,
            size in 0..50_usize,
        ) {
            let file = backing(b"0123456789");
            let mut content = Content::new(10);
            let mut plain = b"0123456789".to_vec();
            let mut synced = plain.clone();
            let mut clean = true;
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        content.write(at, &bytes, NOW);
                        let at = usize::try_from(at).unwrap();
                        plain.resize(plain.len().max(at + bytes.len()), 0);
                        plain[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    Step::Truncate(len) => {
                        content.truncate(len, NOW);
                        plain.resize(usize::try_from(len).unwrap(), 0);
                    }
                    Step::Sync => {
                        content.sync(&file).unwrap();
                        synced.clone_from(&plain);
                    }
                    Step::FailSync => {
                        clean &= !content.is_dirty();
                        content.fail_sync();
                    }
                }
            }
            prop_assert_eq!(content.len(), plain.len() as u64);
            let from = usize::try_from(at).unwrap().min(plain.len());
            let expected = &plain[from..(from + size).min(plain.len())];
            prop_assert_eq!(content.read(&file, at, size).unwrap(), expected);
            content.lose();
            let len = content.len();
            prop_assert_eq!(len, file.metadata().unwrap().len());
            if clean {
                prop_assert_eq!(on(&file), synced);
            }
        }
    }
}
