//! Devices with their credentials, and lookups: which device a token, certificate or PSK identity belongs to.
//!
//! ```text
//!   client names its device ──────────────► Device row: does a credential fit?
//!   client shows a token ──► Lookup row ──► Device row: same birth, same hash, does it fit?
//! ```
//!
//! Neither is in memory: a shard may have millions. Memory holds how many each tenant has.
//!
//! # Invariants
//!
//! - **The device's row decides.** A lookup is a hint and may lead to a device that is gone or lists it no more: nobody gets in
//!   by it, and who proposes another owner finds out by [`Answer::Taken`]. Checked by `tests/rules/devices.rs`.
//! - **Counts are those of the rows.** They have rows of their own, written once for each batch, so that opening a shard
//!   does not read a million devices. Checked by [`ShardState::assert_same`].
//!
//! # Deliberately absent
//!
//! What a credential's verifier is compared with, and putting and deleting the lookups of a device, which are in other
//! shards (`node/service`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_storage::{
    Rows, StorageError, View,
    key::{self, Kind},
};

use super::{ShardState, first_bucket};
use crate::{
    answer::{Answer, Refused},
    effect::Effect,
    keys::{each, each_until},
    registry::{
        Credential, DEVICE_NAME_BYTES_MAX, DeleteDevice, DeleteLookup, DeviceRecord, LookupHash,
        NOBODY, Owner, PutDevice, PutLookup, check_text, check_version,
    },
    rows::{RegistryCountsRow, Row},
    step::Step,
};

/// Devices of one shard, whatever the commands' quotas say: a snapshot of them has to get through.
pub const DEVICES_PER_SHARD_MAX: u64 = 4_000_000;
/// Lookups of one shard: as above, when each device has several.
pub const LOOKUPS_PER_SHARD_MAX: u64 = 16_000_000;
/// Buckets that are looked into for one page of devices: two seeks each, so some ten milliseconds.
pub const DEVICE_BUCKETS_PER_PAGE_MAX: usize = 512;

/// How many devices and lookups there are.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Registry {
    /// By tenant; only those that have any.
    tenants: BTreeMap<TenantId, RegistryCountsRow>,
    /// Of all tenants.
    total: RegistryCountsRow,
    /// Tenants whose counts changed in this batch.
    dirty: BTreeSet<TenantId>,
}

impl Registry {
    fn of(&self, tenant: TenantId) -> RegistryCountsRow {
        self.tenants.get(&tenant).copied().unwrap_or_default()
    }

    /// Changes a tenant's counts, and the total with them.
    fn count(&mut self, tenant: TenantId, change: impl Fn(&mut RegistryCountsRow)) {
        change(&mut self.total);
        change(self.tenants.entry(tenant).or_default());
        self.dirty.insert(tenant);
    }

    pub(super) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for tenant in std::mem::take(&mut self.dirty) {
            let key = step.keys.registry_counts(tenant);
            let counts = self.of(tenant);
            if counts == RegistryCountsRow::default() {
                self.tenants.remove(&tenant);
                step.delete(key);
            } else {
                step.put(key, counts.to_bytes());
            }
        }
    }
}

/// What of the registry is in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegistryCounts {
    /// Devices.
    pub devices: u64,
    /// Bytes of their names and rows.
    pub device_bytes: u64,
    /// Lookups that lead to devices, of whichever shard.
    pub lookups: u64,
}

impl From<RegistryCountsRow> for RegistryCounts {
    fn from(row: RegistryCountsRow) -> Self {
        let RegistryCountsRow { devices, device_bytes, lookups } = row;
        Self { devices, device_bytes, lookups }
    }
}

/// A place in the order of a tenant's devices: by bucket, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceCursor {
    /// The bucket.
    pub bucket: u16,
    /// Behind this name; empty: from the first of the bucket on.
    pub device: Text,
}

/// Which devices are asked for.
#[derive(Debug, Clone, Copy)]
pub struct DevicesQuery<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// From here on; `None`: all.
    pub after: Option<&'a DeviceCursor>,
    /// How many at most.
    pub items_max: usize,
    /// How many bytes of names and rows at most; one device is given in any case.
    pub bytes_max: usize,
}

/// Some of a tenant's devices in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DevicesPage {
    /// They, in order. May be empty although there are more.
    pub devices: Vec<(Text, DeviceRecord)>,
    /// Where to go on, if there may be more.
    pub next: Option<DeviceCursor>,
}

impl ShardState {
    pub(super) fn open_registry(
        &mut self,
        rows: &(impl View + ?Sized),
    ) -> Result<(), StorageError> {
        each(rows, &self.keys.range(Kind::RegistryCounts), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let row = RegistryCountsRow::from_bytes(row)?;
            self.registry.total.devices += row.devices;
            self.registry.total.device_bytes += row.device_bytes;
            self.registry.total.lookups += row.lookups;
            self.registry.tenants.insert(tenant, row);
            Ok(())
        })
    }

    pub(crate) fn put_device<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        put: PutDevice,
    ) -> Result<Answer, StorageError> {
        if let Err(refused) = put.check() {
            return Ok(Answer::Refused(refused));
        }
        let PutDevice { tenant, device, .. } = &put;
        let (tenant, device) = (*tenant, device.clone());
        let key = self.keys.device(tenant, &device);
        let row = step.rows.get(&key)?;
        let before = row.as_ref().map(DeviceRecord::from_bytes).transpose()?;
        let known = before.as_ref().map(|before| before.version);
        if let Err(refused) = check_version(known, put.if_version) {
            return Ok(Answer::Refused(refused));
        }
        let full = self.registry.of(tenant).devices >= u64::from(put.devices_max)
            || self.registry.total.devices >= DEVICES_PER_SHARD_MAX;
        if before.is_none() && full {
            return Ok(Answer::Refused(Refused::TooMany));
        }
        let version = step.version();
        let record = DeviceRecord {
            born: before.as_ref().map_or(version, |before| before.born),
            version,
            enabled: put.enabled,
            created: before.as_ref().map_or(step.time, |before| before.created),
            updated: step.time,
            credentials: stamped(put.credentials, step.time),
            settings: put.settings,
        };
        let bytes = record.to_bytes();
        let held = |row: &Bytes| (device.len() + row.len()) as u64;
        let (new, after) = (row.is_none(), held(&bytes));
        let gone = row.as_ref().map_or(0, held);
        self.registry.count(tenant, |counts| {
            counts.devices += u64::from(new);
            counts.device_bytes = counts.device_bytes + after - gone;
        });
        step.put(key, bytes);
        let born = record.born;
        step.effects.push(Effect::DeviceChanged { tenant, device, born, version, gone: false });
        Ok(Answer::Device { born, version, new })
    }

    pub(crate) fn delete_device<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: DeleteDevice,
    ) -> Result<Answer, StorageError> {
        let DeleteDevice { tenant, device, if_version } = delete;
        let key = self.keys.device(tenant, &device);
        let Some(row) = step.rows.get(&key)? else {
            return Ok(Answer::Refused(Refused::NotFound));
        };
        let DeviceRecord { born, version, .. } = DeviceRecord::from_bytes(&row)?;
        if let Err(refused) = check_version(Some(version), if_version) {
            return Ok(Answer::Refused(refused));
        }
        if tenant != NOBODY {
            if self.forgetting.is_full() {
                return Ok(Answer::Refused(Refused::TooMany));
            }
            let owner = Owner { tenant, device: device.clone(), born };
            self.forgetting.begin(step, &owner);
        }
        let bytes = (device.len() + row.len()) as u64;
        self.registry.count(tenant, |counts| {
            counts.devices -= 1;
            counts.device_bytes -= bytes;
        });
        step.delete(key);
        self.forget_mailbox(step, tenant, &device)?;
        self.forget_presence(step, tenant, &device)?;
        self.forget_values(step, tenant, &device, born)?;
        self.forget_calls(step, tenant, &device, born)?;
        self.forget_documents(step, tenant, &device, born)?;
        step.effects.push(Effect::DeviceChanged { tenant, device, born, version, gone: true });
        Ok(Answer::Done)
    }

    pub(crate) fn put_lookup<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        put: PutLookup,
    ) -> Result<Answer, StorageError> {
        let PutLookup { hash, owner, takes } = put;
        if let Err(refused) = check_text(&owner.device, DEVICE_NAME_BYTES_MAX) {
            return Ok(Answer::Refused(refused));
        }
        let before = self.lookup(&*step.rows, hash)?;
        match before {
            Some(before) if before == owner => return Ok(Answer::Done),
            Some(before) if takes.as_ref() != Some(&before) => return Ok(Answer::Taken(before)),
            Some(before) => self.registry.count(before.tenant, |counts| counts.lookups -= 1),
            None if self.registry.total.lookups >= LOOKUPS_PER_SHARD_MAX => {
                return Ok(Answer::Refused(Refused::TooMany));
            }
            None => {}
        }
        self.registry.count(owner.tenant, |counts| counts.lookups += 1);
        step.put(self.keys.lookup(hash), owner.to_bytes());
        Ok(Answer::Done)
    }

    pub(crate) fn delete_lookup<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteLookup,
    ) -> Result<Answer, StorageError> {
        let DeleteLookup { hash, owner } = delete;
        if self.lookup(&*step.rows, *hash)?.as_ref() != Some(owner) {
            return Ok(Answer::Refused(Refused::NotFound));
        }
        self.registry.count(owner.tenant, |counts| counts.lookups -= 1);
        step.delete(self.keys.lookup(*hash));
        Ok(Answer::Done)
    }

    pub(crate) fn device(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<DeviceRecord>, StorageError> {
        let row = rows.get(&self.keys.device(tenant, device))?;
        row.map(|row| DeviceRecord::from_bytes(&row)).transpose()
    }

    /// A device's birth, if it is there.
    pub(super) fn born(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<u64>, StorageError> {
        let row = rows.get(&self.keys.device(tenant, device))?;
        row.as_ref().map(DeviceRecord::born_of).transpose()
    }

    pub(crate) fn lookup(
        &self,
        rows: &(impl View + ?Sized),
        hash: LookupHash,
    ) -> Result<Option<Owner>, StorageError> {
        let row = rows.get(&self.keys.lookup(hash))?;
        row.map(|row| Owner::from_bytes(&row)).transpose()
    }

    pub(crate) fn devices(
        &self,
        rows: &(impl View + ?Sized),
        query: &DevicesQuery<'_>,
    ) -> Result<DevicesPage, StorageError> {
        let mut page = DevicesPage::default();
        if query.items_max == 0 {
            page.next = query.after.cloned().or(Some(first_of(0)));
            return Ok(page);
        }
        let start = query.after.map_or(0, |after| after.bucket);
        let mut bytes = 0;
        let mut next = (start < key::WHOLE).then_some(start);
        for _ in 0..DEVICE_BUCKETS_PER_PAGE_MAX {
            let Some(from) = next else { return Ok(page) };
            let Some(bucket) = first_bucket(self.keys, rows, from)? else { return Ok(page) };
            let behind = query.after.filter(|after| after.bucket == bucket);
            let behind = behind.map_or(&[][..], |after| after.device.as_bytes());
            let before = page.devices.len();
            if self.devices_in(rows, query, (bucket, behind), &mut bytes, &mut page)? {
                let last = page.devices[before..].last().map(|(device, _)| device.clone());
                // Without one the page was full before this bucket.
                page.next = Some(DeviceCursor { bucket, device: last.unwrap_or_default() });
                return Ok(page);
            }
            next = bucket.checked_add(1).filter(|bucket| *bucket < key::WHOLE);
        }
        page.next = next.map(first_of);
        Ok(page)
    }

    /// Adds the devices of one bucket to a page; whether it is full before they are all in it.
    fn devices_in(
        &self,
        rows: &(impl View + ?Sized),
        query: &DevicesQuery<'_>,
        (bucket, behind): (u16, &[u8]),
        bytes: &mut usize,
        page: &mut DevicesPage,
    ) -> Result<bool, StorageError> {
        let range = self.keys.devices_behind(bucket, query.tenant, behind);
        let mut full = false;
        each_until(rows, &range, |mut suffix, row| {
            suffix.u32()?;
            let device = suffix.text()?;
            *bytes = bytes.saturating_add(device.len() + row.len());
            full = page.devices.len() >= query.items_max
                || *bytes > query.bytes_max && !page.devices.is_empty();
            if full {
                return Ok(ControlFlow::Break(()));
            }
            page.devices.push((device, DeviceRecord::from_bytes(row)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(full)
    }

    pub(crate) fn registry_counts(&self, tenant: TenantId) -> RegistryCounts {
        self.registry.of(tenant).into()
    }

    pub(super) fn registry_total(&self) -> RegistryCounts {
        self.registry.total.into()
    }

    /// Counts are those of the rows.
    pub(super) fn assert_registry(&self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let mut counted: BTreeMap<TenantId, RegistryCountsRow> = BTreeMap::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let Some(bucket) = first_bucket(self.keys, rows, from)? else { break };
            next = bucket.checked_add(1).filter(|bucket| *bucket < key::WHOLE);
            each(rows, &self.keys.range_in(bucket, Kind::Device), |mut suffix, row| {
                let counts = counted.entry(TenantId(suffix.u32()?)).or_default();
                counts.devices += 1;
                counts.device_bytes += (suffix.text()?.len() + row.len()) as u64;
                Ok(())
            })?;
            each(rows, &self.keys.range_in(bucket, Kind::Lookup), |_, row| {
                counted.entry(Owner::from_bytes(row)?.tenant).or_default().lookups += 1;
                Ok(())
            })?;
        }
        assert_eq!(self.registry.tenants, counted);
        Ok(())
    }
}

/// From the first device of a bucket on.
fn first_of(bucket: u16) -> DeviceCursor {
    DeviceCursor { bucket, device: Text::default() }
}

/// Those that are new get the time.
fn stamped(mut credentials: Vec<Credential>, now: UnixMillis) -> Vec<Credential> {
    for credential in &mut credentials {
        if credential.created == UnixMillis(0) {
            credential.created = now;
        }
    }
    credentials
}
