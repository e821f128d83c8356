//! Tenants: who they are, what they are called, whether they may connect. Every node has all of them in memory.
//!
//! A tenant is one row: `TenantRecord`, or the older `Tenant` (a name) as long as nobody but [`crate::Command::SetTenant`]
//! wrote it. The first `PutTenant` moves it.
//!
//! # Invariants
//!
//! - **A name and an alias belong to one tenant.** Checked by `tests/rules/tenants.rs`.
//! - **An id is never used again**: what a deleted tenant left in shards is nobody's. Checked by the same.
//! - **Derived.** [`Tenants`] comes from rows; checked by `MetaState::assert_same`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::MetaState;
use crate::{
    answer::{Answer, Refused},
    effect::Effect,
    forget,
    registry::{DeleteTenant, PutTenant, TenantRecord, check_version},
    rows::{NumberRow, Row, TenantRow},
    step::Step,
};

/// Tenants of a cluster.
pub const TENANTS_MAX: usize = 100_000;
/// Bytes of all tenants' names, aliases and settings: every node holds them in memory.
pub const TENANTS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The first id that is given away: 1 is the tenant that a cluster is made with, 0 nobody's.
const FIRST_TENANT: u64 = 2;
/// The version of a tenant that was only ever named.
const NAMED_VERSION: u64 = 1;

/// All tenants, as their rows say.
#[derive(Debug, PartialEq)]
pub(super) struct Tenants {
    known: BTreeMap<TenantId, TenantRecord>,
    /// Those whose row is the older one.
    named: BTreeSet<TenantId>,
    /// By name. A set of pairs: disks of before names were unique may hold one twice.
    names: BTreeSet<(Text, TenantId)>,
    aliases: BTreeMap<Text, TenantId>,
    bytes: usize,
    /// The id the next one gets.
    next: u64,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            named: BTreeSet::new(),
            names: BTreeSet::new(),
            aliases: BTreeMap::new(),
            bytes: 0,
            next: FIRST_TENANT,
        }
    }
}

impl Tenants {
    /// In the place of what was known of the tenant. Nothing of `record` is a slice of a log entry.
    fn insert(&mut self, tenant: TenantId, record: TenantRecord) {
        self.remove(tenant);
        self.names.insert((record.name.clone(), tenant));
        for alias in &record.aliases {
            self.aliases.insert(alias.clone(), tenant);
        }
        self.bytes += bytes_of(&record);
        self.next = self.next.max(u64::from(tenant.0) + 1);
        self.known.insert(tenant, record);
    }

    fn remove(&mut self, tenant: TenantId) {
        self.named.remove(&tenant);
        let Some(record) = self.known.remove(&tenant) else { return };
        self.bytes -= bytes_of(&record);
        for alias in &record.aliases {
            self.aliases.remove(alias);
        }
        self.names.remove(&(record.name, tenant));
    }

    fn of_name(&self, name: &Text) -> Option<TenantId> {
        let mut from = self.names.range((name.clone(), TenantId(0))..);
        from.next().filter(|(found, _)| found == name).map(|(_, tenant)| *tenant)
    }

    /// Whether another tenant has this name.
    fn name_taken(&self, tenant: TenantId, name: &Text) -> bool {
        self.of_name(name).is_some_and(|holder| holder != tenant)
    }

    fn alias_taken(&self, tenant: TenantId, alias: &Text) -> bool {
        self.aliases.get(alias).is_some_and(|holder| *holder != tenant)
    }
}

fn bytes_of(record: &TenantRecord) -> usize {
    let aliases: usize = record.aliases.iter().map(Text::len).sum();
    record.name.len() + aliases + record.settings.len()
}

/// A copy: the text is a slice of the whole log entry.
fn own(text: &Text) -> Text {
    Text::from(text.as_str())
}

impl MetaState {
    pub(super) fn open_tenants(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let keys = self.keys;
        super::scan(keys, rows, Kind::Tenant, &mut |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            self.tenants.insert(tenant, named(TenantRow::from_bytes(row)?.0));
            self.tenants.named.insert(tenant);
            Ok(())
        })?;
        super::scan(keys, rows, Kind::TenantRecord, &mut |mut suffix, row| {
            self.tenants.insert(TenantId(suffix.u32()?), TenantRecord::from_bytes(row)?);
            Ok(())
        })?;
        if let Some(row) = rows.get(&keys.next_tenant())? {
            self.tenants.next = self.tenants.next.max(NumberRow::from_bytes(&row)?.0);
        }
        Ok(())
    }

    /// All tenants, by ascending id.
    #[must_use]
    pub fn tenants(&self) -> &BTreeMap<TenantId, TenantRecord> {
        &self.tenants.known
    }

    /// A tenant by its id.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> Option<&TenantRecord> {
        self.tenants.known.get(&tenant)
    }

    /// A tenant by its name.
    #[must_use]
    pub fn tenant_by_name(&self, name: &Text) -> Option<(TenantId, &TenantRecord)> {
        let tenant = self.tenants.of_name(name)?;
        Some((tenant, self.tenant(tenant)?))
    }

    /// A tenant by what a platform calls it.
    #[must_use]
    pub fn tenant_by_alias(&self, alias: &Text) -> Option<(TenantId, &TenantRecord)> {
        let tenant = *self.tenants.aliases.get(alias)?;
        Some((tenant, self.tenant(tenant)?))
    }

    /// Names a tenant, and makes it if it is not known: what clusters before the registry had.
    pub(crate) fn set_tenant<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        name: &Text,
    ) -> Answer {
        let known = self.tenants.known.get(&tenant);
        if known.is_none() && self.tenants.known.len() >= TENANTS_MAX {
            return Answer::Refused(Refused::TooManyRoutes);
        }
        if self.tenants.name_taken(tenant, name) {
            return Answer::Refused(Refused::Exists);
        }
        let name = own(name);
        match known.filter(|_| !self.tenants.named.contains(&tenant)) {
            Some(record) => {
                let (version, updated) = (step.version(), step.time);
                let record = TenantRecord { name, version, updated, ..record.clone() };
                step.put(self.keys.tenant_record(tenant), record.to_bytes());
                self.tenants.insert(tenant, record);
            }
            None => {
                step.put(self.keys.tenant(tenant), TenantRow(name.clone()).to_bytes());
                self.tenants.insert(tenant, named(name));
                self.tenants.named.insert(tenant);
            }
        }
        step.effects.push(Effect::TenantChanged { tenant });
        Answer::At(step.index)
    }

    pub(crate) fn put_tenant<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        put: &PutTenant,
    ) -> Answer {
        let tenant = match self.check_put(put) {
            Ok(tenant) => tenant,
            Err(refused) => return Answer::Refused(refused),
        };
        let version = step.version();
        let record = TenantRecord {
            name: own(&put.name),
            aliases: put.aliases.iter().map(own).collect(),
            enabled: put.enabled,
            version,
            created: self.tenant(tenant).map_or(step.time, |before| before.created),
            updated: step.time,
            settings: Bytes::copy_from_slice(&put.settings),
        };
        if self.tenants.named.contains(&tenant) {
            step.delete(self.keys.tenant(tenant));
        }
        step.put(self.keys.tenant_record(tenant), record.to_bytes());
        self.tenants.insert(tenant, record);
        step.effects.push(Effect::TenantChanged { tenant });
        Answer::Tenant { tenant, version }
    }

    /// Which tenant a `PutTenant` writes.
    fn check_put(&self, put: &PutTenant) -> Result<TenantId, Refused> {
        put.check()?;
        let tenants = &self.tenants;
        let (tenant, before) = if put.tenant == TenantId(0) {
            check_version(None, put.if_version)?;
            let free = u32::try_from(tenants.next).ok();
            let free = free.filter(|_| tenants.known.len() < TENANTS_MAX);
            (free.map(TenantId).ok_or(Refused::TooMany)?, 0)
        } else {
            let known = self.tenant(put.tenant).ok_or(Refused::NotFound)?;
            check_version(Some(known.version), put.if_version)?;
            (put.tenant, bytes_of(known))
        };
        let aliases = put.aliases.iter().any(|alias| tenants.alias_taken(tenant, alias));
        if aliases || tenants.name_taken(tenant, &put.name) {
            return Err(Refused::Exists);
        }
        let aliases: usize = put.aliases.iter().map(Text::len).sum();
        let bytes = put.name.len() + aliases + put.settings.len();
        if tenants.bytes - before + bytes > TENANTS_BYTES_MAX {
            return Err(Refused::TooMany);
        }
        Ok(tenant)
    }

    pub(crate) fn delete_tenant<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: DeleteTenant,
    ) -> Answer {
        let DeleteTenant { tenant, if_version } = delete;
        let Some(known) = self.tenant(tenant) else { return Answer::Refused(Refused::NotFound) };
        if let Err(refused) = check_version(Some(known.version), if_version) {
            return Answer::Refused(refused);
        }
        if self.forgetting.is_full() {
            return Answer::Refused(Refused::TooMany);
        }
        self.forgetting.begin(step, &forget::whole(tenant));
        let named = self.tenants.named.contains(&tenant);
        let key = if named { self.keys.tenant(tenant) } else { self.keys.tenant_record(tenant) };
        step.delete(key);
        // It may have had the highest id, which its row said.
        step.put(self.keys.next_tenant(), NumberRow(self.tenants.next).to_bytes());
        self.tenants.remove(tenant);
        step.effects.push(Effect::TenantChanged { tenant });
        Answer::Done
    }
}

/// What is known of a tenant with a name and no more.
fn named(name: Text) -> TenantRecord {
    TenantRecord {
        name,
        aliases: Vec::new(),
        enabled: true,
        version: NAMED_VERSION,
        created: UnixMillis(0),
        updated: UnixMillis(0),
        settings: Bytes::new(),
    }
}
