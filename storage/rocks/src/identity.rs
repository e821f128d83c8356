//! Whose directory this is: `node.json`, written twice, with a checksum.
//!
//! # Invariants
//!
//! - **One copy is enough, none is too few.** A missing or damaged copy is written again from the other; two damaged
//!   ones, or two that differ, are for a person to judge. Checked by this file's tests.
//! - **Of two copies that differ in the level alone the higher is right**: a level is never lowered, and a crash came between
//!   the two. Checked by this file's tests.
//! - **Replaced, never changed.** Each copy is written beside, synced, renamed, and the directory synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use moorline_core::NodeId;
use moorline_storage::StorageError;
use serde::{Deserialize, Serialize};

use crate::error::{ADVICE, io_failed};

const NAMES: [&str; 2] = ["node.json", "node.json.copy"];

/// Who a data directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The highest level of the cluster that this node has known ([`moorline_core::level`]). Programs of before there were levels
    /// take it for the number of a format, know 1, and refuse every other.
    pub format: u16,
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// This directory: random, made with it. A node with another one has lost its disk.
    pub store: u128,
    /// Into how many shards the cluster's data is divided.
    pub shards: u16,
}

/// 128-bit ids are text: JSON's numbers end at 2⁵³.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    format: u16,
    cluster: String,
    node: u64,
    store: String,
    shards: u16,
    crc32c: String,
}

impl Identity {
    fn checksum(&self) -> String {
        let Self { format, cluster, node, store, shards } = self;
        let text = format!("{format} {cluster:032x} {node} {store:032x} {shards}");
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }

    fn to_json(self) -> String {
        let fields = Fields {
            format: self.format,
            cluster: format!("{:032x}", self.cluster),
            node: self.node.0,
            store: format!("{:032x}", self.store),
            shards: self.shards,
            crc32c: self.checksum(),
        };
        serde_json::to_string_pretty(&fields).expect("numbers and strings")
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        let fields: Fields = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let id = |hex: &str| u128::from_str_radix(hex, 16).map_err(|error| error.to_string());
        let identity = Self {
            format: fields.format,
            cluster: id(&fields.cluster)?,
            node: NodeId(fields.node),
            store: id(&fields.store)?,
            shards: fields.shards,
        };
        match identity.checksum() {
            sum if sum == fields.crc32c => Ok(identity),
            sum => Err(format!("its checksum is {sum}, not {}", fields.crc32c)),
        }
    }
}

/// One copy on disk.
enum Copy {
    Missing,
    Damaged(String),
    Whole(Identity),
}

fn read_copy(path: &Path) -> Result<Copy, StorageError> {
    match fs::read(path) {
        Ok(json) => Ok(match Identity::from_json(&json) {
            Ok(identity) => Copy::Whole(identity),
            Err(why) => Copy::Damaged(why),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Copy::Missing),
        Err(error) => Err(io_failed("reading node.json")(error)),
    }
}

/// Whose directory it is; `None` if nobody's. Writes a copy again that is not whole.
pub(crate) fn read(dir: &Path) -> Result<Option<Identity>, StorageError> {
    let [first, second] = NAMES.map(|name| dir.join(name));
    match (read_copy(&first)?, read_copy(&second)?) {
        (Copy::Whole(one), Copy::Whole(other)) if one == other => Ok(Some(one)),
        (Copy::Whole(one), Copy::Whole(other))
            if one == (Identity { format: one.format, ..other }) =>
        {
            let format = one.format.max(other.format);
            let behind = if one.format < format { first } else { second };
            repair(&behind, Identity { format, ..one }).map(Some)
        }
        (Copy::Whole(_), Copy::Whole(_)) => Err(StorageError::Identity {
            path: first,
            why: "it differs from node.json.copy: parts of two directories were mixed".to_owned(),
        }),
        (Copy::Whole(identity), Copy::Missing | Copy::Damaged(_)) => {
            repair(&second, identity).map(Some)
        }
        (Copy::Missing | Copy::Damaged(_), Copy::Whole(identity)) => {
            repair(&first, identity).map(Some)
        }
        (Copy::Missing, Copy::Missing) => Ok(None),
        (Copy::Damaged(why), Copy::Missing | Copy::Damaged(_))
        | (Copy::Missing, Copy::Damaged(why)) => Err(StorageError::Corrupt {
            what: first.display().to_string(),
            why: format!("{why}; its copy does not help; {ADVICE}"),
        }),
    }
}

fn repair(path: &Path, identity: Identity) -> Result<Identity, StorageError> {
    tracing::warn!(path = %path.display(), "missing or damaged; written again from its copy");
    replace(path, identity).map_err(io_failed("writing node.json"))?;
    Ok(identity)
}

/// Notes the level of the cluster, if it is above what the directory says: the higher of the two. For the process that has it open.
///
/// # Errors
///
/// If the directory is nobody's, or can't be read or written.
pub fn note_level(dir: &Path, level: u16) -> Result<u16, StorageError> {
    let Some(identity) = read(dir)? else {
        let path = dir.join(NAMES[0]);
        return Err(StorageError::Identity { path, why: "it is gone".to_owned() });
    };
    if identity.format >= level {
        return Ok(identity.format);
    }
    write(dir, Identity { format: level, ..identity })?;
    Ok(level)
}

/// Writes both copies.
pub(crate) fn write(dir: &Path, identity: Identity) -> Result<(), StorageError> {
    let both = NAMES.iter().try_for_each(|name| replace(&dir.join(name), identity));
    both.map_err(io_failed("writing node.json"))
}

fn replace(path: &Path, identity: Identity) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(identity.to_json().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names durable: a new file is not there after a power failure until its directory was synced.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity { format: 1, cluster: 0xabc, node: NodeId(3), store: u128::MAX, shards: 12 }
    }

    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), sample()).unwrap();
        dir
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = written();
        assert_eq!(read(dir.path()).unwrap(), Some(sample()));
        assert_eq!(read(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn the_file_keeps_its_form() {
        let json = r#"{ "format": 1, "cluster": "00000000000000000000000000000abc", "node": 3,
            "store": "ffffffffffffffffffffffffffffffff", "shards": 12, "crc32c": "FROZEN" }"#;
        let json = json.replace("FROZEN", FROZEN);
        assert_eq!(Identity::from_json(json.as_bytes()).unwrap(), sample());
    }

    const FROZEN: &str = "3e7a2104";

    #[test]
    fn one_whole_copy_is_enough_and_repairs_the_other() {
        for name in NAMES {
            for damage in [None, Some("{"), Some(""), Some(r#"{"format":1}"#)] {
                let dir = written();
                match damage {
                    None => fs::remove_file(dir.path().join(name)).unwrap(),
                    Some(bytes) => fs::write(dir.path().join(name), bytes).unwrap(),
                }
                assert_eq!(read(dir.path()).unwrap(), Some(sample()), "{name} {damage:?}");
                let copies = NAMES.map(|name| fs::read(dir.path().join(name)).unwrap());
                assert_eq!(copies[0], copies[1]);
            }
        }
    }

    #[test]
    fn a_level_is_noted_and_never_lowered() {
        let dir = written();
        let format = || read(dir.path()).unwrap().unwrap().format;
        assert_eq!(note_level(dir.path(), 3).unwrap(), 3);
        assert_eq!(format(), 3);
        assert_eq!(note_level(dir.path(), 2).unwrap(), 3, "never back");
        assert_eq!(format(), 3);
        // A crash between the two copies, whichever of them was written.
        for (at, name) in NAMES.iter().enumerate() {
            let level = 4 + u16::try_from(at).unwrap();
            replace(&dir.path().join(name), Identity { format: level, ..sample() }).unwrap();
            assert_eq!(format(), level);
            let copies = NAMES.map(|name| fs::read(dir.path().join(name)).unwrap());
            assert_eq!(copies[0], copies[1], "the other was mended");
        }
        assert!(note_level(tempfile::tempdir().unwrap().path(), 2).is_err());
    }

    #[test]
    fn a_changed_digit_does_not_check() {
        let json = sample().to_json().replace("\"node\": 3", "\"node\": 4");
        assert!(Identity::from_json(json.as_bytes()).unwrap_err().contains("checksum"));
    }

    #[test]
    fn damage_to_both_and_two_owners_are_refused() {
        let dir = written();
        for name in NAMES {
            fs::write(dir.path().join(name), "{").unwrap();
        }
        assert!(matches!(read(dir.path()), Err(StorageError::Corrupt { .. })));
        let dir = written();
        let other = Identity { node: NodeId(4), ..sample() };
        replace(&dir.path().join(NAMES[1]), other).unwrap();
        assert!(matches!(read(dir.path()), Err(StorageError::Identity { .. })));
    }
}
