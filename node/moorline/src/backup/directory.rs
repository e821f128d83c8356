//! Where backups are: manifests with their checksums, and the pieces that they share.
//!
//! ```text
//!   DIR/2026-11-24T00-20-00Z.json           what the backup consists of
//!   DIR/2026-11-24T00-20-00Z.json.sha256    of that file, as sha256sum writes and checks it
//!   DIR/pieces/0a/0a3f….rows                rows; the name is the SHA-256 of the bytes
//! ```
//!
//! # Invariants
//!
//! - **Files are written once and never changed**: beside, synced, renamed. A copy of the directory by any tool that copies what is
//!   new is a copy of all its backups.
//! - **A manifest comes when all of its pieces are on the disk**, and its checksum behind it: what broke off is no backup.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use bytes::Bytes;

use super::manifest::{Manifest, Piece, is_name};
use crate::server::backup::sha256;

/// See the module.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

/// What is wrong with a piece.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadPiece {
    #[error("is missing")]
    Missing,
    #[error("can't be read: {0}")]
    Unreadable(String),
    #[error("is damaged: its bytes are not those of its name")]
    Damaged,
}

impl Directory {
    /// One that is there, or is made.
    pub(super) fn make(dir: &Path) -> anyhow::Result<Self> {
        let pieces = dir.join("pieces");
        // What devices said and what is kept of their secrets is nobody else's.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pieces);
        made.with_context(|| pieces.display().to_string())?;
        Ok(Self(dir.to_owned()))
    }

    /// One that has to be there.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        if !dir.join("pieces").is_dir() {
            bail!("{}: there are no backups", dir.display());
        }
        Ok(Self(dir.to_owned()))
    }

    /// Every backup that was finished, the last one last.
    pub(super) fn names(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).with_context(|| self.0.display().to_string())? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let name = name.strip_suffix(".json.sha256").filter(|name| is_name(name));
            if let Some(name) = name {
                // One that does not read counts as the last: who wants that hears of it, and does not get an older one unawares.
                let begun = self.manifest(name).map_or(u64::MAX, |manifest| manifest.begun_ms);
                found.push((begun, name.to_owned()));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// The backup of this name, or the last one.
    pub(super) fn choose(&self, name: Option<&str>) -> anyhow::Result<(String, Manifest)> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => self.names()?.pop().context("there is no finished backup in this directory")?,
        };
        let manifest = self.manifest(&name)?;
        Ok((name, manifest))
    }

    /// Reads a manifest and compares it with its checksum.
    pub(super) fn manifest(&self, name: &str) -> anyhow::Result<Manifest> {
        if !is_name(name) {
            bail!("no backup is called {name:?}");
        }
        let file = self.file(name);
        let at = || file.display().to_string();
        let json = fs::read(&file).with_context(at)?;
        let checksum = self.0.join(format!("{name}.json.sha256"));
        let wanted = fs::read_to_string(&checksum)
            .with_context(|| format!("{}: the backup was not finished", checksum.display()))?;
        if wanted.split_whitespace().next() != Some(&*sha256(&json)) {
            bail!("{} is damaged: its checksum is another", file.display());
        }
        Manifest::from_json(&json).with_context(at)
    }

    /// Ends a backup.
    pub(super) fn finish(&self, name: &str, manifest: &Manifest) -> anyhow::Result<()> {
        let json = manifest.to_json();
        let checksum = format!("{}  {name}.json\n", sha256(&json));
        let write = |file: &Path, bytes: &[u8]| {
            put(file, bytes).with_context(|| file.display().to_string())
        };
        write(&self.file(name), &json)?;
        write(&self.0.join(format!("{name}.json.sha256")), checksum.as_bytes())
    }

    /// Whether a backup of this name was begun to be written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// Where a piece is.
    pub(super) fn path(&self, piece: &Piece) -> PathBuf {
        let hash = &piece.sha256;
        self.0.join("pieces").join(&hash[..2]).join(format!("{hash}.rows"))
    }

    /// Whether a piece is there. Its bytes are believed: `verify` reads them.
    pub(super) fn holds(&self, piece: &Piece) -> bool {
        fs::metadata(self.path(piece)).is_ok_and(|found| found.len() == piece.bytes)
    }

    /// Keeps a piece.
    pub(super) fn keep(&self, piece: &Piece, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path(piece);
        if sha256(bytes) != piece.sha256 {
            bail!("a piece came with other bytes than were announced: {}", piece.sha256);
        }
        let kept = || -> io::Result<()> {
            fs::create_dir_all(path.parent().expect("it is below `pieces`"))?;
            put(&path, bytes)
        };
        kept().with_context(|| path.display().to_string())
    }

    /// A piece as it was kept.
    pub(super) fn read(&self, piece: &Piece) -> Result<Bytes, BadPiece> {
        let bytes = match fs::read(self.path(piece)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BadPiece::Missing),
            Err(error) => return Err(BadPiece::Unreadable(error.to_string())),
        };
        if bytes.len() as u64 == piece.bytes && sha256(&bytes) == piece.sha256 {
            Ok(bytes.into())
        } else {
            Err(BadPiece::Damaged)
        }
    }
}

/// Writes a file, whole or not at all, and synced with its name.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_what_was_kept_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::make(dir.path()).unwrap();
        let piece = Piece { sha256: sha256(b"rows"), bytes: 4, rows: 1 };
        assert_eq!(directory.read(&piece), Err(BadPiece::Missing));
        assert!(!directory.holds(&piece));
        assert!(directory.keep(&piece, b"wors").is_err(), "other bytes");
        directory.keep(&piece, b"rows").unwrap();
        assert!(directory.holds(&piece));
        assert_eq!(directory.read(&piece), Ok(Bytes::from_static(b"rows")));
        fs::write(directory.path(&piece), b"wors").unwrap();
        assert_eq!(directory.read(&piece), Err(BadPiece::Damaged));
        fs::write(directory.path(&piece), b"row").unwrap();
        assert!(!directory.holds(&piece), "it is fetched again");
        assert_eq!(directory.read(&piece), Err(BadPiece::Damaged));
    }

    #[test]
    fn a_backup_counts_when_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Directory::open(dir.path()).is_err());
        let directory = Directory::make(dir.path()).unwrap();
        assert!(directory.choose(None).is_err());
        let mut manifest = Manifest::begin("here".into(), "ab".into(), 1, 2000);
        let group = |group| super::super::manifest::Group {
            group,
            term: 1,
            index: 1,
            time_ms: 1,
            pieces: vec![],
        };
        manifest.groups = vec![group(1), group(0)];
        directory.finish("later", &manifest).unwrap();
        manifest.begun_ms = 1000;
        directory.finish("zz-earlier", &manifest).unwrap();
        assert_eq!(directory.names().unwrap(), ["zz-earlier", "later"]);
        assert_eq!(directory.choose(None).unwrap().0, "later");
        assert_eq!(directory.choose(Some("zz-earlier")).unwrap().1, manifest);
        assert!(directory.choose(Some("../later")).is_err());

        // Copied by half.
        fs::remove_file(dir.path().join("later.json.sha256")).unwrap();
        assert_eq!(directory.names().unwrap(), ["zz-earlier"]);
        let file = dir.path().join("zz-earlier.json");
        let text = fs::read_to_string(&file).unwrap().replace("1000", "1001");
        fs::write(file, text).unwrap();
        let problem = directory.choose(None).unwrap_err().to_string();
        assert!(problem.contains("damaged"), "{problem}");
    }
}
