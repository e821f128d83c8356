//! Where backups are: manifests with their checksums, and the pieces that they share.
//!
//! ```text
//!   DIR/2026-11-24T00-20-00Z.json           what the backup consists of
//!   DIR/2026-11-24T00-20-00Z.json.sha256    of that file, as sha256sum writes and checks it
//!   DIR/pieces/0a/0a3f….rows                rows; the name is the SHA-256 of the bytes
//!   DIR/lock                                empty; held while a command works here
//! ```
//!
//! # Invariants
//!
//! - **Files are written once and never changed**: beside, synced, renamed. A copy of the directory by any tool that copies what is
//!   new is a copy of all its backups.
//! - **A manifest comes when all of its pieces are on the disk**, with the directories that name them, and its checksum behind it:
//!   what broke off is no backup.
//! - **Nobody else reads them**: files are 0600, directories 0700, whatever the umask is.
//! - **One command writes or deletes at a time**, and none deletes while another reads: [`Directory::writing`],
//!   [`Directory::reading`].
//! - **No piece is deleted that a backup names**, whenever `prune` dies: a backup stops counting before its pieces go, and no
//!   piece goes while a backup that counts can't be read. Checked by this file's tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use bytes::Bytes;

use super::manifest::{Manifest, Piece, is_name};
use crate::server::backup::sha256;

/// Held while a command works here.
const LOCK: &str = "lock";
/// How a file ends that is being written.
const BESIDE: &str = "new";

/// See the module.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

/// What [`Directory::prune`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pruned {
    /// The backups that are there no more, the oldest first.
    pub(super) backups: Vec<String>,
    /// Pieces that went with them.
    pub(super) pieces: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

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
        make_dir(&pieces).with_context(|| pieces.display().to_string())?;
        Ok(Self(dir.to_owned()))
    }

    /// One that has to be there.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        if !dir.join("pieces").is_dir() {
            bail!("{}: there are no backups", dir.display());
        }
        Ok(Self(dir.to_owned()))
    }

    /// Locks the directory for a command that writes or deletes. It ends with what is answered.
    pub(super) fn writing(&self) -> anyhow::Result<File> {
        let path = self.0.join(LOCK);
        let at = || path.display().to_string();
        let options = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let lock = options.with_context(at)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => bail!(
                "{} is held: another `moorline backup` writes, deletes or reads here; wait until it has ended",
                at()
            ),
            Err(TryLockError::Error(problem)) => Err(problem).with_context(at),
        }
    }

    /// Keeps others from deleting here while it is read. A copy of a directory may have no lock, or be read-only: then nobody
    /// deletes there.
    pub(super) fn reading(&self) -> anyhow::Result<Option<File>> {
        let path = self.0.join(LOCK);
        let at = || path.display().to_string();
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(at),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => bail!(
                "{} is held: another `moorline backup` writes or deletes here; wait until it has ended",
                at()
            ),
            // Some mounted file systems know no locks: who only reads there goes on.
            Err(TryLockError::Error(problem)) if problem.kind() == io::ErrorKind::Unsupported => {
                Ok(None)
            }
            Err(TryLockError::Error(problem)) => Err(problem).with_context(at),
        }
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
            None => self.last()?,
        };
        let manifest = self.manifest(&name)?;
        Ok((name, manifest))
    }

    /// The last backup. Of two clusters nobody can say which is meant.
    fn last(&self) -> anyhow::Result<String> {
        let names = self.names()?;
        let mut last: BTreeMap<String, &str> = BTreeMap::new();
        for name in &names {
            // One that does not read ends it where it is the last; what was before it says of which clusters there are some.
            if let Ok(manifest) = self.manifest(name) {
                let of = format!("{} ({})", manifest.cluster, manifest.cluster_id);
                last.insert(of, name);
            }
        }
        if last.len() > 1 {
            let each: Vec<String> =
                last.iter().map(|(of, name)| format!("of cluster {of} {name}")).collect();
            bail!(
                "there are backups of {} clusters, the last ones {}: say which with --name",
                last.len(),
                each.join(", ")
            );
        }
        names.last().cloned().context("there is no finished backup in this directory")
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
        // A piece that was there already may be of a `create` that was killed before its name was synced.
        let pieces = self.0.join("pieces");
        let parts: BTreeSet<&str> = manifest.pieces().map(|piece| &piece.sha256[..2]).collect();
        for part in parts {
            sync(&pieces.join(part))?;
        }
        sync(&pieces)?;
        let json = manifest.to_json();
        let checksum = format!("{}  {name}.json\n", sha256(&json));
        let write = |file: &Path, bytes: &[u8]| {
            put(file, bytes).with_context(|| file.display().to_string())
        };
        write(&self.file(name), &json)?;
        write(&self.0.join(format!("{name}.json.sha256")), checksum.as_bytes())
    }

    /// Deletes all backups but the last so many of each cluster, then every piece that none of those names, and what broken commands left.
    ///
    /// Whoever dies in the middle leaves whole backups, and pieces that the next `prune` finds. A backup that counts and can't be
    /// read ends it before anything is deleted: which pieces it needs is not known.
    pub(super) fn prune(&self, keep: usize) -> anyhow::Result<Pruned> {
        let read = |name: &String| {
            let why = || format!("backup {name} can't be read, so nothing is deleted");
            self.manifest(name).with_context(why)
        };
        // A trial's backups must not take the places of those that count.
        let mut of_clusters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in self.names()? {
            of_clusters.entry(read(&name)?.cluster_id).or_default().push(name);
        }
        let (mut kept, mut needed) = (Vec::new(), BTreeSet::new());
        let mut pruned = Pruned::default();
        for mut names in of_clusters.into_values() {
            kept.extend(names.split_off(names.len().saturating_sub(keep)));
            pruned.backups.extend(names);
        }
        for name in &kept {
            let manifest = read(name)?;
            needed.extend(manifest.pieces().map(|piece| format!("{}.rows", piece.sha256)));
        }
        for name in &pruned.backups {
            // From here on it counts no more.
            remove(&self.0.join(format!("{name}.json.sha256")))?;
        }
        sync(&self.0)?;
        for path in files(&self.0)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let finished = |name: &str| kept.iter().any(|kept| kept == name);
            // Others may have files here: a manifest is known by what is in it, one that was not written whole by its name alone.
            let is_manifest =
                || fs::read(&path).is_ok_and(|json| Manifest::from_json(&json).is_ok());
            let left = match name.rsplit_once('.') {
                Some((name, "json")) => is_name(name) && !finished(name) && is_manifest(),
                Some((name, end)) => {
                    end == BESIDE && is_name(name.strip_suffix(".json").unwrap_or(name))
                }
                None => false,
            };
            if left {
                remove(&path)?;
            }
        }
        sync(&self.0)?;
        for dir in files(&self.0.join("pieces"))?.into_iter().filter(|path| path.is_dir()) {
            for path in files(&dir)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let ours = name.ends_with(".rows") || name.ends_with(&format!(".{BESIDE}"));
                if ours && !needed.contains(&name) {
                    let bytes = fs::metadata(&path).map_or(0, |found| found.len());
                    remove(&path)?;
                    pruned.pieces += 1;
                    pruned.bytes += bytes;
                }
            }
        }
        Ok(pruned)
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
            make_dir(path.parent().expect("it is below `pieces`"))?;
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

/// Makes a directory and those above it that are missing, and syncs their names.
fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_dir(above)?;
    }
    // What devices said and what is kept of their secrets is nobody else's.
    DirBuilder::new().mode(0o700).create(path)?;
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a file, whole or not at all, and synced with its name.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(BESIDE);
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What is in a directory.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().with_context(|| dir.display().to_string())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| path.display().to_string())
}

fn sync(dir: &Path) -> anyhow::Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| dir.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{
        super::manifest::{Group, tests::begun},
        *,
    };

    fn piece(text: &str) -> Piece {
        Piece { sha256: sha256(text.as_bytes()), bytes: text.len() as u64, rows: 1 }
    }

    /// One of two groups, with these pieces.
    fn of_pieces(begun_ms: u64, texts: &[&str]) -> Manifest {
        let group = |group, pieces| Group { group, term: 1, index: 1, time_ms: 1, pieces };
        let pieces = texts.iter().map(|text| piece(text)).collect();
        Manifest { groups: vec![group(1, pieces), group(0, vec![])], ..begun(1, begun_ms) }
    }

    /// Three backups, of which each shares a piece with the next.
    fn three(dir: &Path) -> Directory {
        let directory = Directory::make(dir).unwrap();
        for (at, name, texts) in
            [(1, "one", ["a", "ab"]), (2, "two", ["ab", "abc"]), (3, "three", ["abc", "abcd"])]
        {
            for text in texts {
                directory.keep(&piece(text), text.as_bytes()).unwrap();
            }
            directory.finish(name, &of_pieces(at, &texts)).unwrap();
        }
        directory
    }

    #[test]
    fn what_no_kept_backup_names_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let directory = three(dir.path());
        // What a `create` left that died, and what is nobody's business.
        directory.keep(&piece("left"), b"left").unwrap();
        fs::write(dir.path().join("left.new"), "{").unwrap();
        fs::write(dir.path().join("inventory.json"), "{}").unwrap();
        fs::write(directory.path(&piece("a")).with_extension(BESIDE), "a").unwrap();
        fs::write(dir.path().join("README"), "mine").unwrap();

        let pruned = directory.prune(9).unwrap();
        assert_eq!(pruned, Pruned { backups: vec![], pieces: 2, bytes: 5 });
        let pruned = directory.prune(2).unwrap();
        assert_eq!(pruned, Pruned { backups: vec!["one".into()], pieces: 1, bytes: 1 });
        assert_eq!(directory.names().unwrap(), ["two", "three"]);
        for text in ["ab", "abc", "abcd"] {
            assert_eq!(directory.read(&piece(text)), Ok(Bytes::from(text.to_owned())));
        }
        assert_eq!(directory.prune(2).unwrap(), Pruned::default(), "once is enough");
        assert!(dir.path().join("README").exists() && dir.path().join("inventory.json").exists());
        assert!(!dir.path().join("left.new").exists() && !dir.path().join("one.json").exists());
    }

    #[test]
    fn each_cluster_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let directory = three(dir.path());
        for (at, name) in [(4, "trial-1"), (5, "trial-2")] {
            let trial = Manifest { cluster_id: "cd".to_owned(), ..of_pieces(at, &["abc"]) };
            directory.finish(name, &trial).unwrap();
        }
        let problem = directory.choose(None).unwrap_err().to_string();
        assert!(problem.contains("three") && problem.contains("trial-2"), "{problem}");
        assert_eq!(directory.choose(Some("two")).unwrap().0, "two");
        let pruned = directory.prune(2).unwrap();
        assert_eq!(pruned, Pruned { backups: vec!["one".into()], pieces: 1, bytes: 1 });
        assert_eq!(directory.names().unwrap(), ["two", "three", "trial-1", "trial-2"]);
    }

    #[test]
    fn nothing_is_deleted_while_a_backup_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let directory = three(dir.path());
        fs::write(dir.path().join("two.json"), "{}").unwrap();
        // It counts as the last one, since nobody knows when it was made.
        let problem = format!("{:#}", directory.prune(1).unwrap_err());
        assert!(problem.contains("two can't be read"), "{problem}");
        assert_eq!(directory.names().unwrap(), ["one", "three", "two"]);
        assert!(directory.holds(&piece("a")));
    }

    #[test]
    fn a_prune_that_died_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let directory = three(dir.path());
        // It died when the first backup counted no more.
        fs::remove_file(dir.path().join("one.json.sha256")).unwrap();
        assert_eq!(directory.names().unwrap(), ["two", "three"]);
        let pruned = directory.prune(2).unwrap();
        assert_eq!(pruned, Pruned { backups: vec![], pieces: 1, bytes: 1 });
        assert!(!dir.path().join("one.json").exists());
    }

    #[test]
    fn one_writes_or_many_read() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::make(dir.path()).unwrap();
        assert!(directory.reading().unwrap().is_none(), "a copy without a lock");
        let writes = directory.writing().unwrap();
        assert!(directory.writing().is_err() && directory.reading().is_err());
        drop(writes);
        let (reads, too) = (directory.reading().unwrap(), directory.reading().unwrap());
        assert!(reads.is_some() && too.is_some());
        assert!(directory.writing().is_err());
        drop((reads, too));
        directory.writing().unwrap();
    }

    #[test]
    fn nobody_else_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let directory = three(&dir.path().join("deep/er"));
        let _lock = directory.writing().unwrap();
        let mut all = vec![dir.path().join("deep")];
        while let Some(path) = all.pop() {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
            if path.is_dir() {
                all.extend(files(&path).unwrap());
            }
        }
    }

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
        let mut manifest = of_pieces(2000, &[]);
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
