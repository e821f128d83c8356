//! The rows of one shard as files: out of a leader's store, into a follower's.
//!
//! # Invariants
//!
//! - **One moment.** All files of an export come from one view, its applied row among them.
//! - **All or again.** What is replaced in part by a crash is replaced again from the same files, which the caller keeps
//!   until the end (mark `Installing`): [`ShardStore::install`] may be repeated. Checked by `tests/snapshots.rs`.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{ShardStore, SstFile, StorageError, Store, View, key};
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter, WriteBatch};

use crate::{
    error::{failed, io_failed},
    options,
    store::RocksStore,
};

/// A file is closed at this size: small enough to send again, large enough to be few.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes read at a time while a checksum is computed.
const READ_BYTES: usize = 256 * 1024;

/// Whether a file is what it is said to be.
fn check(file: &SstFile) -> Result<(), StorageError> {
    let (bytes, crc32c) = measure(&file.path)?;
    if (bytes, crc32c) == (file.bytes, file.crc32c) {
        return Ok(());
    }
    Err(StorageError::Corrupt {
        what: file.path.display().to_string(),
        why: format!(
            "{bytes} bytes with checksum {crc32c:08x}, not {} with {:08x}",
            file.bytes, file.crc32c
        ),
    })
}

fn measure(path: &Path) -> Result<(u64, u32), StorageError> {
    let sum = || -> io::Result<(u64, u32)> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; READ_BYTES];
        let (mut bytes, mut crc) = (0, 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((bytes, crc)),
                read => {
                    bytes += read as u64;
                    crc = crc32c::crc32c_append(crc, &buffer[..read]);
                }
            }
        }
    };
    sum().map_err(io_failed("reading a snapshot's file"))
}

/// Writes rows into files, a new one when the last is full.
struct Exporter<'a> {
    dir: &'a Path,
    options: &'a Options,
    open: Option<(SstFileWriter<'a>, PathBuf, u64)>,
    files: Vec<SstFile>,
}

impl<'a> Exporter<'a> {
    fn put(&mut self, key: &[u8], value: &Bytes) -> Result<(), StorageError> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        let (writer, _, keys) = &mut file;
        writer.put(key, value).map_err(|error| failed("writing a snapshot", error))?;
        *keys += 1;
        let full = writer.file_size() >= FILE_BYTES_MAX;
        self.open = Some(file);
        if full { self.finish() } else { Ok(()) }
    }

    fn begin(&self) -> Result<(SstFileWriter<'a>, PathBuf, u64), StorageError> {
        let path = self.dir.join(format!("rows-{:05}.sst", self.files.len()));
        let mut writer = SstFileWriter::create(self.options);
        writer.open(&path).map_err(|error| failed("writing a snapshot", error))?;
        Ok((writer, path, 0))
    }

    fn finish(&mut self) -> Result<(), StorageError> {
        if let Some((mut writer, path, keys)) = self.open.take() {
            writer.finish().map_err(|error| failed("writing a snapshot", error))?;
            let (bytes, crc32c) = measure(&path)?;
            self.files.push(SstFile { path, bytes, crc32c, keys });
        }
        Ok(())
    }
}

impl ShardStore for RocksStore {
    fn export(&self, shard: ShardId, dir: &Path) -> Result<Vec<SstFile>, StorageError> {
        let options = options::rows(&self.config);
        let mut exporter = Exporter { dir, options: &options, open: None, files: Vec::new() };
        let mut result = Ok(());
        let (from, to) = key::range_of_shard(shard);
        self.snapshot().scan(&from, &to, &mut |key, value| match exporter.put(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        })?;
        result?;
        exporter.finish()?;
        Ok(exporter.files)
    }

    fn remove(&self, shard: ShardId) -> Result<(), StorageError> {
        self.install(shard, &[])?;
        let (from, to) = key::range_of_shard(shard);
        self.database.compact_range_cf(self.family(), Some(&from), Some(&to));
        Ok(())
    }

    fn install(&self, shard: ShardId, files: &[SstFile]) -> Result<(), StorageError> {
        files.iter().try_for_each(check)?;
        let (from, to) = key::range_of_shard(shard);
        let mut removal = WriteBatch::default();
        removal.delete_range_cf(self.family(), &from, &to);
        self.write_unlogged(&removal)?;
        self.flush()?;
        if files.is_empty() {
            return Ok(());
        }
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(false);
        how.set_verify_checksums_before_ingest(true);
        let paths = files.iter().map(|file| &file.path).collect();
        self.database
            .ingest_external_file_cf_opts(self.family(), &how, paths)
            .map_err(|error| failed("installing a snapshot", error))
    }
}
