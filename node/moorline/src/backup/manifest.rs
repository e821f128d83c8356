//! What a backup consists of, as a file: which pieces, in which order, of which moments. Pure.
//!
//! # Invariants
//!
//! - **A version that this program does not know is refused**, and so is a manifest that contradicts itself: groups that are missing
//!   or there twice, hashes that are none. Checked by this file's tests.

use anyhow::{Context, bail};
use moorline_core::{level::FIRST, shard::SHARDS_MAX};
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterView;

/// What this version writes, and the newest it reads.
const FORMAT: u16 = 1;
/// A name is a part of a file's name.
const NAME_BYTES_MAX: usize = 100;

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u16,
    /// Of which cluster it is: its name, and its random id.
    pub(crate) cluster: String,
    pub(crate) cluster_id: String,
    /// The version of the program that wrote it.
    pub(crate) program: String,
    pub(crate) shards: u16,
    /// The cluster's level when it was begun: some rows may need a program that knows it.
    pub(crate) level: u16,
    /// Everything that was acknowledged before this is in it; Unix time in milliseconds, as the machine with the command had it.
    pub(crate) begun_ms: u64,
    pub(crate) ended_ms: u64,
    /// What of it was not in the directory before.
    pub(crate) new_pieces: u64,
    pub(crate) new_bytes: u64,
    /// In the order in which they were read: the meta group last.
    pub(crate) groups: Vec<Group>,
}

/// The rows of one group, of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) group: u16,
    /// The last entry in the rows.
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Log time then.
    pub(crate) time_ms: u64,
    /// In order of the rows.
    pub(crate) pieces: Vec<Piece>,
}

/// Some rows, in a file that is called after its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

impl Manifest {
    /// A backup that begins.
    pub(crate) fn begin(view: ClusterView, begun_ms: u64) -> Self {
        Self {
            format: FORMAT,
            cluster: view.name,
            cluster_id: view.cluster,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            shards: view.shards,
            // 0 is said by a node of before there were levels.
            level: view.level.max(FIRST),
            begun_ms,
            ended_ms: begun_ms,
            new_pieces: 0,
            new_bytes: 0,
            groups: Vec::new(),
        }
    }

    /// Reads one.
    pub(crate) fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u16,
        }
        let Format { format } = serde_json::from_slice(json).context("it is no manifest")?;
        if format != FORMAT {
            bail!("its format is {format}, and this version of moorline reads {FORMAT}");
        }
        let manifest: Self = serde_json::from_slice(json).context("it is no manifest")?;
        manifest.check()?;
        Ok(manifest)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and strings")
    }

    fn check(&self) -> anyhow::Result<()> {
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            bail!("it is of {} shards", self.shards);
        }
        let mut groups: Vec<u16> = self.groups.iter().map(|group| group.group).collect();
        groups.sort_unstable();
        if !groups.iter().copied().eq(0..=self.shards) {
            bail!(
                "it has the groups {groups:?}, and of {} shards it should be 0 to that",
                self.shards
            );
        }
        let bad = self.pieces().find(|piece| !is_hash(&piece.sha256));
        bad.map_or(Ok(()), |bad| bail!("{:?} is no hash", bad.sha256))
    }

    /// All pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.groups.iter().flat_map(|group| &group.pieces)
    }

    pub(crate) fn rows(&self) -> u64 {
        self.pieces().map(|piece| piece.rows).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.bytes).sum()
    }
}

/// Whether it is a SHA-256 in hex, as we write it: it becomes a part of a path.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a backup may be called that.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of a cluster with as many shards, without groups.
    pub(crate) fn begun(shards: u16, begun_ms: u64) -> Manifest {
        Manifest {
            format: FORMAT,
            cluster: "here".to_owned(),
            cluster_id: "ab".to_owned(),
            program: "1.2.3".to_owned(),
            shards,
            level: FIRST,
            begun_ms,
            ended_ms: begun_ms,
            new_pieces: 0,
            new_bytes: 0,
            groups: Vec::new(),
        }
    }

    fn sample() -> Manifest {
        let piece = Piece { sha256: "0a".repeat(32), bytes: 10, rows: 1 };
        let group = |group, pieces| Group { group, term: 2, index: 3, time_ms: 4, pieces };
        let mut manifest = begun(2, 1000);
        manifest.groups =
            vec![group(1, vec![piece.clone()]), group(2, vec![]), group(0, vec![piece])];
        manifest
    }

    #[test]
    fn what_was_written_is_read() {
        let manifest = sample();
        assert_eq!(Manifest::from_json(&manifest.to_json()).unwrap(), manifest);
        assert_eq!((manifest.rows(), manifest.bytes()), (2, 20));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        type Change = fn(&mut Manifest);
        let table: [(&str, Change); 7] = [
            ("format is 2", |manifest| manifest.format = 2),
            ("0 shards", |manifest| manifest.shards = 0),
            ("should be", |manifest| manifest.shards = 3),
            ("should be", |manifest| drop(manifest.groups.pop())),
            ("should be", |manifest| manifest.groups[0].group = 0),
            ("no hash", |manifest| manifest.groups[0].pieces[0].sha256 = "../../etc".into()),
            ("no hash", |manifest| manifest.groups[0].pieces[0].sha256 = "0A".repeat(32)),
        ];
        for (why, change) in table {
            let mut manifest = sample();
            change(&mut manifest);
            let problem = Manifest::from_json(&manifest.to_json()).unwrap_err().to_string();
            assert!(problem.contains(why), "{problem}");
        }
        assert!(Manifest::from_json(b"{}").is_err());
        assert!(Manifest::from_json(&sample().to_json()[..100]).is_err(), "cut off");
    }

    #[test]
    fn names_are_no_paths() {
        for (name, fine) in [
            ("2026-11-24T00-20-00Z", true),
            ("before_upgrade", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a.json", false),
        ] {
            assert_eq!(is_name(name), fine, "{name:?}");
        }
    }
}
