//! The registry's commands and reads, handed on to the meta group's tenants and the shards' devices.

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View};

use super::Machine;
use crate::{
    answer::Answer,
    command::Command,
    forget::Forgotten,
    registry::{DeviceRecord, LookupHash, Owner},
    shard::{DevicesPage, DevicesQuery, RegistryCounts},
    step::Step,
};

impl Machine {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    pub(super) fn apply_registry<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: Command,
    ) -> Result<Answer, StorageError> {
        match command {
            Command::PutTenant(put) => Ok(self.meta.put_tenant(step, &put)),
            Command::DeleteTenant(delete) => Ok(self.meta.delete_tenant(step, delete)),
            Command::PutDevice(put) => self.shard.put_device(step, put),
            Command::DeleteDevice(delete) => self.shard.delete_device(step, delete),
            Command::PutLookup(put) => self.shard.put_lookup(step, put),
            Command::DeleteLookup(delete) => self.shard.delete_lookup(step, &delete),
            Command::Forget(forget) => self.shard.forget(step, &forget),
            Command::Forgotten(Forgotten { owners }) => {
                self.meta.forgetting.end(step, &owners);
                self.shard.forgetting.end(step, &owners);
                Ok(Answer::Done)
            }
            other => unreachable!("{other:?} is not about the registry"),
        }
    }

    /// Devices and tenants deleted in this group of which other shards may have something, and when they were deleted.
    pub fn forgetting(&self) -> impl Iterator<Item = (Owner, UnixMillis)> {
        self.meta.forgetting.all().chain(self.shard.forgetting.all())
    }

    /// What is known of a device of this shard.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn device(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<DeviceRecord>, StorageError> {
        self.shard.device(rows, tenant, device)
    }

    /// Which device a lookup of this shard leads to, probably: its row decides ([`Owner`]).
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn lookup(
        &self,
        rows: &(impl View + ?Sized),
        hash: LookupHash,
    ) -> Result<Option<Owner>, StorageError> {
        self.shard.lookup(rows, hash)
    }

    /// Some of a tenant's devices in this shard, in order of bucket and name. A page ends early when it has looked into
    /// [`crate::DEVICE_BUCKETS_PER_PAGE_MAX`] buckets.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn devices(
        &self,
        rows: &(impl View + ?Sized),
        query: &DevicesQuery<'_>,
    ) -> Result<DevicesPage, StorageError> {
        self.shard.devices(rows, query)
    }

    /// What a tenant has of the registry in this shard.
    #[must_use]
    pub fn registry_counts(&self, tenant: TenantId) -> RegistryCounts {
        self.shard.registry_counts(tenant)
    }
}
