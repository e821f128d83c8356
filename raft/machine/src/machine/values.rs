//! What is read of values, handed on to the shard.

use moorline_core::{AttributeScope, TenantId, Text};
use moorline_storage::{StorageError, View};

use super::Machine;
use crate::{
    shard::{AggregateQuery, HistoryQuery, HistoryTotals},
    values::{AggregatePage, Attributes, HistoryPage, Latest, Marks},
};

impl Machine {
    /// Attributes of one scope of a device: those of these keys, or all. With `since` only those that were set or deleted by a
    /// later version. `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn attributes(
        &self,
        rows: &(impl View + ?Sized),
        (tenant, device): (TenantId, &Text),
        scope: AttributeScope,
        keys: &[Text],
        since: Option<u64>,
    ) -> Result<Option<Attributes>, StorageError> {
        self.shard.attributes(rows, (tenant, device), scope, keys, since)
    }

    /// Latest values of a device: those of these keys, or all. `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn latest(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        keys: &[Text],
    ) -> Result<Option<Latest>, StorageError> {
        self.shard.latest(rows, tenant, device, keys)
    }

    /// What a device's values are by now. `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn marks(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<Marks>, StorageError> {
        self.shard.marks(rows, tenant, device)
    }

    /// A piece of a device's history. `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn history(
        &self,
        rows: &(impl View + ?Sized),
        query: &HistoryQuery,
    ) -> Result<Option<HistoryPage>, StorageError> {
        self.shard.history(rows, query)
    }

    /// The same, taken together interval by interval. `None` if there is no such device.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn aggregate(
        &self,
        rows: &(impl View + ?Sized),
        query: &AggregateQuery,
    ) -> Result<Option<AggregatePage>, StorageError> {
        self.shard.aggregate(rows, query)
    }

    /// How much history there is, of all tenants.
    #[must_use]
    pub fn history_totals(&self) -> HistoryTotals {
        self.shard.history_totals()
    }
}
