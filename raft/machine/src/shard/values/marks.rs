//! Whether a device's values are what somebody knows: by the hashes of its sheets, which are others after each change.
//!
//! A sheet has no version of its own for latest values: the newest time counts, not the last write. Who watches pays for the hash
//! (at most 128 KiB a sheet, some ten microseconds), and whoever writes pays nothing.

use moorline_core::{AttributeScope, TenantId, Text};
use moorline_storage::{StorageError, View};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    keys::Place,
    shard::ShardState,
    values::{Marks, Part},
};

impl ShardState {
    pub(crate) fn marks(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<Marks>, StorageError> {
        let Some(of) = self.place(rows, tenant, device, None)? else { return Ok(None) };
        let mut attributes = [0; AttributeScope::ALL.len()];
        for (mark, scope) in attributes.iter_mut().zip(AttributeScope::ALL) {
            *mark = self.mark(rows, of, Part::Attributes(scope))?;
        }
        let latest = self.mark(rows, of, Part::Latest)?;
        Ok(Some(Marks { born: of.born, attributes, latest }))
    }

    /// 0 of a sheet that is not there.
    fn mark(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        part: Part,
    ) -> Result<u64, StorageError> {
        let row = rows.get(&self.keys.sheet(of, part))?;
        Ok(row.map_or(0, |row| xxh3_64(&row)))
    }
}
