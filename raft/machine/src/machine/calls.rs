//! What is read of calls, handed on to the shard.

use moorline_storage::{StorageError, View};

use super::Machine;
use crate::{
    calls::CallTotals,
    shard::{CallsFound, CallsQuery},
};

impl Machine {
    /// Calls of a device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn calls(
        &self,
        rows: &(impl View + ?Sized),
        query: &CallsQuery,
    ) -> Result<CallsFound, StorageError> {
        self.shard.calls(rows, query)
    }

    /// How many calls there are, of all tenants.
    #[must_use]
    pub fn call_totals(&self) -> CallTotals {
        self.shard.call_totals()
    }
}
