//! Devices and their credentials.

use moorline_core::{
    ShardId, TenantId, Text,
    shard::{BUCKETS, bucket_of},
};
use moorline_machine::{
    Answer, Command, DeviceCursor, DevicesPage,
    query::{Found as Row, Query},
    registry::{DeleteDevice, DeleteLookup, DeviceRecord, LookupHash, Owner, PutDevice, PutLookup},
};

use super::{DeviceList, Registry, RegistryError, credential::shared, explain};

/// Devices of one page of those that are looked through for one: a tenant of a million has 250 in a bucket.
const BORN_PAGE: u16 = 64;

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The version the device was made with.
    pub born: u64,
    /// Its version now.
    pub version: u64,
    /// Whether it was made by this write.
    pub new: bool,
}

/// A device that was found by what it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// What is known of it.
    pub record: DeviceRecord,
}

impl Registry {
    /// A device; [`None`] if there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn device(
        &self,
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<DeviceRecord>, RegistryError> {
        let query = Query::Device { tenant, device: device.clone() };
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        let Row::Device(record) = found else { return Err(RegistryError::Unavailable) };
        if record.is_some() {
            explain::suspect(tenant, device);
        }
        Ok(record)
    }

    /// The device that was made with a version and whose name is of a bucket, with its name; [`None`] if there is none any more. It is
    /// looked for among the tenant's devices of that bucket.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn device_born(
        &self,
        tenant: TenantId,
        bucket: u16,
        born: u64,
    ) -> Result<Option<(Text, DeviceRecord)>, RegistryError> {
        if bucket >= BUCKETS {
            return Ok(None);
        }
        let shard = self.inner.shards.of_bucket(bucket);
        let mut after = DeviceCursor { bucket, device: Text::default() };
        loop {
            let query = Query::Devices { tenant, after: Some(after), items_max: BORN_PAGE };
            let Row::Devices(DevicesPage { devices, next }) = self.question(shard, &query).await?
            else {
                return Err(RegistryError::Unavailable);
            };
            for (device, record) in devices {
                if bucket_of(tenant, device.as_bytes()) != bucket {
                    return Ok(None);
                }
                if record.born == born {
                    return Ok(Some((device, record)));
                }
            }
            match next.filter(|next| next.bucket == bucket) {
                Some(next) => after = next,
                None => return Ok(None),
            }
        }
    }

    /// The device that a lookup leads to, if it still has that credential.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn find(&self, hash: LookupHash) -> Result<Option<Found>, RegistryError> {
        let query = Query::Lookup { hash };
        let found = self.question(self.shard_of_lookup(hash), &query).await?;
        let Row::Lookup(owner) = found else { return Err(RegistryError::Unavailable) };
        let Some(owner) = owner else { return Ok(None) };
        let Owner { tenant, device, born } = owner;
        let record = self.device(tenant, &device).await?;
        let holds = |record: &DeviceRecord| {
            record.born == born && record.credentials.iter().any(|held| held.lookup == Some(hash))
        };
        Ok(record.filter(holds).map(|record| Found { tenant, device, record }))
    }

    fn shard_of_lookup(&self, hash: LookupHash) -> ShardId {
        self.inner.shards.of(TenantId(0), &hash.0)
    }

    /// A page of a tenant's devices, behind `after`, which is what the page before ended with.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn devices(
        &self,
        tenant: TenantId,
        after: Option<(ShardId, DeviceCursor)>,
        items_max: usize,
    ) -> Result<DeviceList, RegistryError> {
        let mut page = DeviceList::default();
        let first = after.as_ref().map_or(ShardId(1), |(shard, _)| *shard);
        for shard in self.inner.shards.all().filter(|shard| *shard >= first) {
            let mut behind = match &after {
                Some((at, name)) if *at == shard => Some(name.clone()),
                _ => None,
            };
            loop {
                let left = u16::try_from(items_max - page.devices.len()).unwrap_or(u16::MAX);
                let query = Query::Devices { tenant, after: behind, items_max: left };
                let Row::Devices(DevicesPage { devices, next }) =
                    self.question(shard, &query).await?
                else {
                    return Err(RegistryError::Unavailable);
                };
                page.devices.extend(devices);
                let Some(next) = next else { break };
                if page.devices.len() >= items_max {
                    page.next = Some((shard, next));
                    return Ok(page);
                }
                behind = Some(next);
            }
        }
        Ok(page)
    }

    /// Where [`Self::devices`] goes on behind the device of a name, whether there is one or not.
    #[must_use]
    pub fn devices_behind(&self, tenant: TenantId, device: &Text) -> (ShardId, DeviceCursor) {
        let bucket = bucket_of(tenant, device.as_bytes());
        (self.shard_of(tenant, device), DeviceCursor { bucket, device: device.clone() })
    }

    /// Makes or changes a device, with its lookups.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`RegistryError::Taken`] if another device has one of its credentials.
    pub async fn put_device(&self, mut put: PutDevice) -> Result<Change, RegistryError> {
        let (tenant, device) = (put.tenant, put.device.clone());
        let before = self.device(tenant, &device).await?;
        let known = before.as_ref().map(|before| before.credentials.as_slice());
        shared::lead(known.unwrap_or_default(), &mut put.credentials);
        let held = |record: &DeviceRecord, hash| {
            record.credentials.iter().any(|credential| credential.lookup == Some(hash))
        };
        let wanted: Vec<_> = put.credentials.iter().filter_map(|held| held.lookup).collect();
        for hash in &wanted {
            if !before.as_ref().is_some_and(|before| held(before, *hash))
                && let Some(other) = self.find(*hash).await?
            {
                let Found { tenant, device, record } = other;
                let owner = Owner { tenant, device, born: record.born };
                return Err(RegistryError::Taken(owner));
            }
        }
        // First the device: a lookup of one that does not list it leads nowhere.
        let answer = self.ask(self.shard_of(tenant, &device), Command::PutDevice(put)).await?;
        let Answer::Device { born, version, new } = answer else {
            return Err(RegistryError::Unavailable);
        };
        for hash in &wanted {
            self.put_lookup(*hash, Owner { tenant, device: device.clone(), born }).await?;
        }
        if let Some(before) = before {
            let gone = before.credentials.iter().filter_map(|held| held.lookup);
            for hash in gone.filter(|hash| !wanted.contains(hash)) {
                self.delete_lookup(hash, Owner { tenant, device: device.clone(), born }).await?;
            }
        }
        Ok(Change { born, version, new })
    }

    /// Makes or changes a device none of whose credentials, before or after, needs a lookup: one command, and nothing is read
    /// first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    ///
    /// # Panics
    ///
    /// If one of them does.
    pub async fn put_device_plainly(&self, put: PutDevice) -> Result<Change, RegistryError> {
        let plain = put.credentials.iter().all(|held| held.lookup.is_none());
        assert!(plain, "a credential with a lookup needs more than one write");
        let shard = self.shard_of(put.tenant, &put.device);
        let answer = self.ask(shard, Command::PutDevice(put)).await?;
        let Answer::Device { born, version, new } = answer else {
            return Err(RegistryError::Unavailable);
        };
        Ok(Change { born, version, new })
    }

    /// Has the lookups of a device's credentials lead to it, if whoever made it was cut off before they did.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn lead_to(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
    ) -> Result<(), RegistryError> {
        for hash in record.credentials.iter().filter_map(|held| held.lookup) {
            let leads = self.find(hash).await?;
            if leads.is_none_or(|found| (found.tenant, &found.device) != (tenant, device)) {
                let owner = Owner { tenant, device: device.clone(), born: record.born };
                self.put_lookup(hash, owner).await?;
            }
        }
        Ok(())
    }

    /// Has a lookup lead to a device, whoever it led to before, if that one does not have the credential.
    async fn put_lookup(&self, hash: LookupHash, owner: Owner) -> Result<(), RegistryError> {
        let mut takes = None;
        loop {
            let put = PutLookup { hash, owner: owner.clone(), takes: takes.clone() };
            let shard = self.shard_of_lookup(hash);
            let Answer::Taken(other) = self.ask(shard, Command::PutLookup(put)).await? else {
                return Ok(());
            };
            if takes.as_ref() == Some(&other) || self.find(hash).await?.is_some() {
                return Err(RegistryError::Taken(other));
            }
            takes = Some(other);
        }
    }

    async fn delete_lookup(&self, hash: LookupHash, owner: Owner) -> Result<(), RegistryError> {
        let delete = DeleteLookup { hash, owner };
        match self.ask(self.shard_of_lookup(hash), Command::DeleteLookup(delete)).await {
            Ok(_) | Err(RegistryError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets a device with its credentials and its mailbox.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn delete_device(&self, delete: DeleteDevice) -> Result<(), RegistryError> {
        let (tenant, device) = (delete.tenant, delete.device.clone());
        let before = self.device(tenant, &device).await?;
        self.ask(self.shard_of(tenant, &device), Command::DeleteDevice(delete)).await?;
        if let Some(record) = before {
            for hash in record.credentials.iter().filter_map(|held| held.lookup) {
                let owner = Owner { tenant, device: device.clone(), born: record.born };
                self.delete_lookup(hash, owner).await?;
            }
        }
        Ok(())
    }
}
