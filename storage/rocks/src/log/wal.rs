//! RocksDB's write-ahead log, looked at before RocksDB opens it.
//!
//! RocksDB takes some damage in the middle of the last file for its end, and opens without what follows: a sector that
//! reads as zeros, a length that points behind the end. Our writer syncs every commit before it begins the next, so
//! **a commit that begins whole behind damaged bytes proves that those were synced**: that is damage, and refused. On
//! the other side RocksDB refuses a last commit that ends in zeros, as a power failure leaves it: that one was never
//! acknowledged, and is cut off here.
//!
//! # Invariants
//!
//! - **Only the last commit is ever cut off**, and only if it stops short or ends in zeros. Everything else is for
//!   RocksDB to judge, which refuses what does not check. Checked by this file's tests and `tests/damage.rs`.
//! - **Found by chance is not whole.** A record found behind damage counts if what follows it checks up to the end of
//!   its block: bytes inside a payload that look like a record do not.
//!
//! The format: blocks of 32 KiB, in them fragments `masked crc32c u32 | length u16 | type u8 | bytes`, little-endian.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use moorline_storage::StorageError;

use crate::error::{ADVICE, io_failed};

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
/// The least that a disk writes or loses at once.
const SECTOR_BYTES: usize = 512;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Records about the log itself have the highest bit.
const ABOUT: u8 = 0x80;

/// Looks at every file of the log in `dir`, cuts off a torn last commit, and refuses damage that RocksDB would not see.
pub(super) fn check(dir: &Path) -> Result<(), StorageError> {
    let mut files = files(dir).map_err(io_failed("looking at the log"))?;
    files.sort_unstable();
    // From the newest on: what was written after a file shows that all of it was synced.
    let mut followed = false;
    for (_, path) in files.into_iter().rev() {
        let bytes = fs::read(&path).map_err(io_failed("looking at the log"))?;
        match judge(&bytes) {
            Verdict::Whole => {}
            Verdict::Torn { at } if !followed => cut(&path, at, bytes.len())?,
            Verdict::Torn { at } | Verdict::Damaged { at } => {
                return Err(StorageError::Corrupt {
                    what: path.display().to_string(),
                    why: format!("damaged at byte {at}, and synced entries follow; {ADVICE}"),
                });
            }
            Verdict::Unclear => {}
        }
        followed |= has_commits(&bytes);
    }
    Ok(())
}

fn files(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|extension| extension == "log")
        {
            files.push((number, path));
        }
    }
    Ok(files)
}

fn cut(path: &Path, at: usize, bytes: usize) -> Result<(), StorageError> {
    tracing::warn!(
        path = %path.display(),
        bytes = bytes - at,
        "the last write of an earlier run did not reach the disk whole; nobody was told that it did; cut off"
    );
    let cut = || {
        let file = File::options().write(true).open(path)?;
        file.set_len(at as u64)?;
        file.sync_all()
    };
    cut().map_err(io_failed("cutting off a torn write"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Every commit checks.
    Whole,
    /// The last commit, beginning here, did not reach the disk.
    Torn { at: usize },
    /// Bytes here are not what was written, and later ones are.
    Damaged { at: usize },
    /// Something in the last commit does not check. RocksDB refuses that.
    Unclear,
}

/// What is at a place of the file.
enum Fragment {
    /// A fragment that checks, and where the next one is.
    Whole { kind: u8, next: usize },
    /// The file ends inside it.
    Cut,
    /// Zeros, or bytes that do not check.
    Bad,
}

fn fragment(bytes: &[u8], at: usize) -> Fragment {
    let block_end = at / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES;
    let end = block_end.min(bytes.len());
    let Some(&[c0, c1, c2, c3, l0, l1, kind]) = bytes[at..end].first_chunk::<HEADER_BYTES>() else {
        return Fragment::Cut;
    };
    let next = at + HEADER_BYTES + usize::from(u16::from_le_bytes([l0, l1]));
    if next > end {
        return if end == bytes.len() { Fragment::Cut } else { Fragment::Bad };
    }
    let known = matches!(kind, FULL | FIRST | MIDDLE | LAST) || kind & ABOUT != 0;
    if !known
        || masked(crc32c::crc32c(&bytes[at + 6..next])) != u32::from_le_bytes([c0, c1, c2, c3])
    {
        return Fragment::Bad;
    }
    // The rest of a block that holds no header is left out.
    let next = if block_end - next < HEADER_BYTES { block_end } else { next };
    Fragment::Whole { kind, next }
}

/// How RocksDB stores checksums of data that may hold checksums.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn judge(bytes: &[u8]) -> Verdict {
    let mut at = 0;
    // Where the commit that is being read begins.
    let mut begun = None;
    while at < bytes.len() {
        match fragment(bytes, at) {
            Fragment::Whole { kind, next } => {
                match (kind, begun) {
                    (FIRST, None) => begun = Some(at),
                    (MIDDLE, Some(_)) => {}
                    (LAST, Some(_)) => begun = None,
                    (FULL, None) => {}
                    (about, None) if about & ABOUT != 0 => {}
                    _ => return damaged(bytes, begun.unwrap_or(at), at, false),
                }
                at = next;
            }
            Fragment::Cut => return damaged(bytes, begun.unwrap_or(at), at, true),
            Fragment::Bad => return damaged(bytes, begun.unwrap_or(at), at, false),
        }
    }
    match begun {
        Some(at) => Verdict::Torn { at },
        None => Verdict::Whole,
    }
}

/// `commit` is where the commit begins that is bad at `at`.
fn damaged(bytes: &[u8], commit: usize, at: usize, cut: bool) -> Verdict {
    if (at + 1..bytes.len()).any(|later| begins_whole(bytes, later)) {
        return Verdict::Damaged { at };
    }
    let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let zeros_from = written.next_multiple_of(SECTOR_BYTES);
    let ends_in_zeros = written <= at || zeros_from < bytes.len();
    if cut || ends_in_zeros { Verdict::Torn { at: commit } } else { Verdict::Unclear }
}

/// Whether a commit begins here and everything checks from here to the end of the block, or of the file.
fn begins_whole(bytes: &[u8], at: usize) -> bool {
    if !matches!(bytes.get(at + HEADER_BYTES - 1), Some(&(FULL | FIRST))) {
        return false;
    }
    let block_end = at / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES;
    let end = block_end.min(bytes.len());
    let mut next = at;
    while next < end {
        match fragment(bytes, next) {
            Fragment::Whole { next: after, .. } => next = after,
            Fragment::Cut | Fragment::Bad => return false,
        }
    }
    true
}

/// Whether a commit is in a file that may be damaged.
fn has_commits(bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        match fragment(bytes, at) {
            Fragment::Whole { kind: FULL | FIRST, .. } => return true,
            Fragment::Whole { next, .. } => at = next,
            Fragment::Cut | Fragment::Bad => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    /// Writes commits as RocksDB does, and tells where each begins.
    fn wal(commits: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes: Vec<u8> = Vec::new();
        let mut begins = Vec::new();
        for commit in commits {
            let mut rest = &commit[..];
            let mut first = true;
            loop {
                let mut room = BLOCK_BYTES - bytes.len() % BLOCK_BYTES;
                if room < HEADER_BYTES {
                    bytes.extend(vec![0; room]);
                    room = BLOCK_BYTES;
                }
                if first {
                    begins.push(bytes.len());
                }
                let (now, later) = rest.split_at(rest.len().min(room - HEADER_BYTES));
                let kind = match (first, later.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                let crc = masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), now));
                bytes.extend(crc.to_le_bytes());
                bytes.extend(u16::try_from(now.len()).unwrap().to_le_bytes());
                bytes.push(kind);
                bytes.extend(now);
                (rest, first) = (later, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        (bytes, begins)
    }

    /// Some commits, none of them empty, some over several blocks.
    fn commits() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let bytes = prop_oneof![5 => 1..600_usize, 1 => 30_000..100_000_usize];
        let commit = (bytes, any::<u8>()).prop_map(|(bytes, seed)| {
            let noise = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
            (0..bytes).map(|at| noise(at) as u8 ^ seed | 1).collect()
        });
        vec(commit, 2..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn whole_logs_are_whole(commits in commits()) {
            prop_assert_eq!(judge(&wal(&commits).0), Verdict::Whole);
        }

        #[test]
        fn a_cut_takes_the_commit_it_is_in(commits in commits(), cut in any::<Index>()) {
            let (bytes, begins) = wal(&commits);
            let cut = cut.index(bytes.len());
            match judge(&bytes[..cut]) {
                Verdict::Whole => {}
                Verdict::Torn { at } => {
                    prop_assert!(at < cut);
                    let begin = *begins.iter().rfind(|&&begin| begin < cut).unwrap_or(&0);
                    // Or in the zeros that end a block.
                    prop_assert!(at == begin || bytes[at..cut].iter().all(|&byte| byte == 0));
                }
                other @ (Verdict::Damaged { .. } | Verdict::Unclear) => {
                    prop_assert!(false, "{:?}", other);
                }
            }
        }

        #[test]
        fn a_last_commit_that_ends_in_zeros_is_torn(commits in commits(), from in any::<Index>()) {
            let (mut bytes, begins) = wal(&commits);
            let last = *begins.last().unwrap();
            let from = (last + from.index(bytes.len() - last)).next_multiple_of(SECTOR_BYTES);
            prop_assume!(from < bytes.len());
            bytes[from..].fill(0);
            prop_assert_eq!(judge(&bytes), Verdict::Torn { at: last });
        }

        #[test]
        fn damage_before_the_last_commit_is_never_taken_for_a_torn_tail(
            commits in commits(), at in any::<Index>(), flip in 1..=255_u8, zeros in 0..2_000_usize
        ) {
            let (mut bytes, begins) = wal(&commits);
            let last = *begins.last().unwrap();
            // The zeros that fill a block up are nobody's.
            let at = at.index(last);
            bytes[at] ^= flip;
            bytes[at + 1..(at + zeros).min(last).max(at + 1)].fill(0);
            let verdict = judge(&bytes);
            prop_assert!(
                matches!(verdict, Verdict::Damaged { .. } | Verdict::Whole),
                "{:?} at {} of {}", verdict, at, bytes.len()
            );
            if verdict == Verdict::Whole {
                let block_end = at.next_multiple_of(BLOCK_BYTES);
                prop_assert!(block_end - at < HEADER_BYTES, "only filling may differ");
            }
        }
    }

    #[test]
    fn a_payload_that_looks_like_a_commit_proves_nothing() {
        let (fake, _) = wal(&[b"not a commit".to_vec()]);
        let noise = vec![0x55; 200];
        let (mut bytes, begins) = wal(&[b"first".to_vec(), [&noise[..], &fake, &noise].concat()]);
        let last = begins[1];
        bytes.truncate(bytes.len() - 50);
        assert_eq!(judge(&bytes), Verdict::Torn { at: last });
        bytes[last] ^= 1;
        assert_eq!(judge(&bytes), Verdict::Torn { at: last }, "its length points behind the end");
    }

    #[test]
    fn a_flipped_bit_in_the_last_commit_is_for_rocksdb_to_refuse() {
        let (mut bytes, begins) = wal(&[b"first".to_vec(), vec![0x55; 300]]);
        bytes[begins[1] + 100] ^= 1;
        assert_eq!(judge(&bytes), Verdict::Unclear);
    }

    #[test]
    fn an_empty_log_and_zeros_behind_a_whole_one_are_no_damage() {
        assert_eq!(judge(b""), Verdict::Whole);
        let (mut bytes, _) = wal(&[b"first".to_vec(), b"second".to_vec()]);
        let end = bytes.len();
        bytes.resize(end + 70_000, 0);
        assert_eq!(judge(&bytes), Verdict::Torn { at: end });
        assert!(has_commits(&bytes) && !has_commits(b"") && !has_commits(&[0; 99]));
    }

    #[test]
    fn an_earlier_file_may_not_be_torn_once_commits_follow() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, begins) = wal(&[b"first".to_vec(), vec![0x55; 300]]);
        let path = |number: u32| dir.path().join(format!("{number:06}.log"));
        fs::write(path(9), &whole[..whole.len() - 1]).unwrap();
        fs::write(path(10), b"").unwrap();
        check(dir.path()).unwrap();
        assert_eq!(
            fs::read(path(9)).unwrap(),
            whole[..begins[1]],
            "cut off where its last commit began"
        );
        fs::write(path(9), &whole[..whole.len() - 1]).unwrap();
        fs::write(path(10), &whole).unwrap();
        assert!(matches!(check(dir.path()), Err(StorageError::Corrupt { .. })));
        check(&dir.path().join("none")).unwrap();
    }
}
