//! Rows of a simulated node: those of `moorline_storage::mem`, which forget what was not flushed, and their files.

use std::{
    fmt, fs,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{Batch, ShardStore, SstFile, StorageError, Store, View, key, mem::MemStore};

/// A file is closed at this size: small here, so that a snapshot has several.
const FILE_BYTES_MAX: usize = 16 * 1024;

/// See the module. The rows outlive the process; what was not flushed does not ([`MemStore::crash`]).
#[derive(Clone, Default)]
pub(crate) struct SimRows(Arc<MemStore>);

impl fmt::Debug for SimRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRows").field("rows", &self.0.len()).finish()
    }
}

impl SimRows {
    /// The process ends.
    pub(crate) fn crash(&self) {
        self.0.crash();
    }
}

impl View for SimRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.0.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.0.scan(from, to, visit)
    }
}

impl Store for SimRows {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        self.0.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.0.flush()
    }
}

fn failed(source: io::Error) -> StorageError {
    StorageError::Io { doing: "a snapshot's file", source }
}

impl ShardStore for SimRows {
    fn export(&self, shard: ShardId, dir: &Path) -> Result<Vec<SstFile>, StorageError> {
        let (from, to) = key::range_of_shard(shard);
        let mut files: Vec<(Vec<u8>, u64)> = Vec::new();
        self.scan(&from, &to, &mut |key, value| {
            if files.last().is_none_or(|(bytes, _)| bytes.len() >= FILE_BYTES_MAX) {
                files.push((Vec::new(), 0));
            }
            if let Some((bytes, keys)) = files.last_mut() {
                for part in [key, value.as_ref()] {
                    let length = u32::try_from(part.len()).expect("rows are small");
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(part);
                }
                *keys += 1;
            }
            ControlFlow::Continue(())
        })?;
        let write = |(number, (bytes, keys)): (usize, (Vec<u8>, u64))| {
            let path = dir.join(format!("rows-{number:05}.sim"));
            fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).map_err(failed)?;
            let crc32c = crc32c::crc32c(&bytes);
            Ok(SstFile { path, bytes: bytes.len() as u64, crc32c, keys })
        };
        files.into_iter().enumerate().map(write).collect()
    }

    fn remove(&self, shard: ShardId) -> Result<(), StorageError> {
        self.install(shard, &[])
    }

    fn install(&self, shard: ShardId, files: &[SstFile]) -> Result<(), StorageError> {
        let mut changes = Vec::new();
        let (from, to) = key::range_of_shard(shard);
        self.scan(&from, &to, &mut |key, _| {
            changes.push((Bytes::copy_from_slice(key), None));
            ControlFlow::Continue(())
        })?;
        for file in files {
            let bytes = fs::read(&file.path).map_err(failed)?;
            if (bytes.len() as u64, crc32c::crc32c(&bytes)) != (file.bytes, file.crc32c) {
                let what = file.path.display().to_string();
                return Err(StorageError::Corrupt { what, why: "not what was sent".to_owned() });
            }
            let mut rest = Bytes::from(bytes);
            while !rest.is_empty() {
                let (key, value) = (take(&mut rest)?, take(&mut rest)?);
                changes.push((key, Some(value)));
            }
        }
        self.write(Batch { changes })?;
        self.flush()
    }
}

fn take(bytes: &mut Bytes) -> Result<Bytes, StorageError> {
    let short = || failed(io::ErrorKind::UnexpectedEof.into());
    let length = bytes.get(..4).and_then(|length| length.try_into().ok()).ok_or_else(short)?;
    let length = u32::from_be_bytes(length) as usize;
    if bytes.len() < 4 + length {
        return Err(short());
    }
    drop(bytes.split_to(4));
    Ok(bytes.split_to(length))
}
