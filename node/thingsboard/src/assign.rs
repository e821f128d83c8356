//! Packages brought to devices: shared attributes that say what to load, and telemetry that says how far it is.
//!
//! ```text
//!   a device or its profile was written ─► what it is to have ─► target_…, fw_state QUEUED ─► fw_… ─► fw_state INITIATED
//!                                      └─► nothing any more ──────────────────────────────► fw_… deleted
//!   a device of a profile with packages comes ─► the same, if its attributes say something else
//! ```
//!
//! # Invariants
//!
//! - **What a device has already is not told again**: only attributes that differ are written.
//! - **A device comes to what was written last**, whoever brings it what at the same time: who has brought something looks again.
//! - **All devices of a profile come to what it says**: at once those that are there, at [`AT_ONCE`] at a time; those that a
//!   node which died had not come to when they connect, or when the profile is written again.
//!
//! Checked by the cluster tests (`thingsboard_packages.rs`).

use std::time::Duration;

use futures_util::{StreamExt, stream};
use moorline_core::{AttributeScope, TenantId, Text};
use moorline_dialects::thingsboard::{
    ota::{self, Package, PackageKind},
    values::{Entries, Value},
};
use moorline_machine::values::NewPoint;
use moorline_service::registry::{
    AttributeWrite, Recording, RegistryError,
    principal::is_principal,
    settings::{self, DeviceSettings},
};
use tokio::time::sleep;
use tracing::warn;

use crate::{
    convert::{entries, from_core},
    door::Door,
    marks,
    profiles::Known,
};

/// Devices that are brought a package at once.
const AT_ONCE: usize = 16;
/// Devices of a tenant that are looked through at once.
const PAGE: usize = 500;
/// How long it waits when the cluster is busy, or nobody answers.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a device is looked at that is written again and again.
const SETTLE_TRIES_MAX: usize = 5;
/// How often it is tried again for one device.
const TRIES_MAX: usize = 30;

/// Which device.
#[derive(Debug, Clone)]
pub(crate) struct Bearer {
    pub(crate) tenant: TenantId,
    pub(crate) device: Text,
    pub(crate) born: u64,
}

impl Door {
    /// Has a device's attributes say that it is to have a package, unless they do.
    pub(crate) async fn bring(&self, to: &Bearer, package: &Package) -> Result<(), RegistryError> {
        let Bearer { tenant, device, born } = to;
        let keys = ota::attribute_keys(package.kind);
        let keys = keys.iter().map(|key| Text::from(key.as_str())).collect();
        let scope = AttributeScope::Shared;
        let found = self.registry.attributes(*tenant, device, scope, keys, None).await?;
        let held: Entries = found
            .map(|found| found.set)
            .unwrap_or_default()
            .iter()
            .map(|one| (one.key.to_string(), from_core(&one.value)))
            .collect();
        let Some((set, stale)) = package.missing(&held) else { return Ok(()) };
        let now_ms = i64::try_from(self.clock.wall().0).unwrap_or(i64::MAX);
        self.say(to, package.target_telemetry(now_ms)).await?;
        let set = entries(set).into_iter().map(|(key, value)| (key, Some(value)));
        let stale = stale.into_iter().map(|key| (Text::from(key), None));
        let changes = set.chain(stale).collect();
        let write = AttributeWrite { born: *born, scope, changes, event: None };
        self.registry.write_attributes(*tenant, device, write).await?;
        self.say(to, ota::initiated(package.kind)).await
    }

    /// Deletes what a device's attributes say of packages of a kind, if it was said here: who sets such attributes by hand keeps them.
    pub(crate) async fn take_away(
        &self,
        from: &Bearer,
        kind: PackageKind,
    ) -> Result<(), RegistryError> {
        let Bearer { tenant, device, born } = from;
        let keys: Vec<Text> = ota::attribute_keys(kind).into_iter().map(Text::from).collect();
        let scope = AttributeScope::Shared;
        let found = self.registry.attributes(*tenant, device, scope, keys, None).await?;
        let set = found.map(|found| found.set).unwrap_or_default();
        let title = format!("{}_title", kind.prefix());
        let Some(title) = set.iter().find(|one| one.key.as_str() == title) else { return Ok(()) };
        let target = vec![Text::from(format!("target_{}_title", kind.prefix()))];
        let target = self.registry.latest(*tenant, device, target).await?;
        let was_brought = |(_, _, value): &(Text, i64, _)| *value == title.value;
        if !target.is_some_and(|target| target.values.iter().any(was_brought)) {
            return Ok(());
        }
        let changes: Vec<_> = set.iter().map(|one| (one.key.clone(), None)).collect();
        let write = AttributeWrite { born: *born, scope, changes, event: None };
        self.registry.write_attributes(*tenant, device, write).await.map(drop)
    }

    /// Telemetry that the platform says of a device.
    async fn say(&self, of: &Bearer, values: Vec<(String, Value)>) -> Result<(), RegistryError> {
        let points = vec![NewPoint { ts_ms: None, values: entries(values) }];
        let recording = Recording { born: of.born, points, apart: false, event: None };
        self.registry.record(of.tenant, &of.device, recording).await.map(drop)
    }

    /// Has a device come to what it is to have, by what is said of it and of its profile now. What is written meanwhile counts: whoever
    /// writes it does the same, and the last one that looks finds it as it should be.
    pub(crate) async fn settle(&self, to: &Bearer) -> Result<(), RegistryError> {
        let mut done = None;
        for _ in 0..SETTLE_TRIES_MAX {
            let record = self.registry.device(to.tenant, &to.device).await?;
            let Some(record) = record.filter(|record| record.born == to.born) else {
                return Ok(());
            };
            let settings: DeviceSettings = settings::read(&record.settings);
            let [firmware, software] = PackageKind::ALL;
            let wanted = [
                self.assigned_by(to.tenant, &settings, firmware).await?,
                self.assigned_by(to.tenant, &settings, software).await?,
            ]
            .map(|held| held.and_then(|held| held.package()));
            if done.as_ref() == Some(&wanted) {
                return Ok(());
            }
            for (kind, package) in PackageKind::ALL.into_iter().zip(&wanted) {
                match package {
                    Some(package) => self.bring(to, package).await?,
                    None => self.take_away(to, kind).await?,
                }
            }
            done = Some(wanted);
        }
        Err(RegistryError::Busy)
    }

    /// A device has come: it hears of its profile's packages, if it has not yet. Nobody waits for it.
    pub(crate) fn bring_to_who_comes(&self, to: Bearer, kind: &str) {
        let (door, kind) = (self.clone(), kind.to_owned());
        self.tasks.spawn(async move {
            let Ok(known) = door.profile_of(to.tenant, &kind).await else { return };
            if known.brings_packages() {
                // Who comes again is looked at again.
                drop(door.settle(&to).await);
            }
        });
    }

    /// Has all devices of a profile come to what it says, a few at a time, while whoever wrote it has its answer.
    pub(crate) fn roll_out(self, tenant: TenantId, known: Known) {
        let door = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = door.roll_out_to_all(tenant, &known).await {
                let profile = known.profile.name;
                warn!(%error, %profile, "not all devices of a profile were told of its packages: write it again");
            }
        });
    }

    async fn roll_out_to_all(&self, tenant: TenantId, known: &Known) -> Result<(), RegistryError> {
        let (mut after, mut tries) = (None, 0);
        loop {
            let page = match self.registry.devices(tenant, after.clone(), PAGE).await {
                Ok(page) => page,
                Err(error) if tries >= TRIES_MAX => return Err(error),
                Err(_) => {
                    tries += 1;
                    sleep(PAUSE).await;
                    continue;
                }
            };
            tries = 0;
            // Whoever writes the profile after this one has all devices come to that.
            let now = self.profile_now(tenant, &known.profile.name).await;
            if now.is_ok_and(|now| now.version != known.version) {
                return Ok(());
            }
            let of_it = page.devices.into_iter().filter(|(device, record)| {
                let settings: DeviceSettings = settings::read(&record.settings);
                !is_principal(device) && marks::kind(&settings) == known.profile.name
            });
            let brought = stream::iter(of_it)
                .map(|(device, record)| {
                    self.settle_again(Bearer { tenant, device, born: record.born })
                })
                .buffer_unordered(AT_ONCE);
            let all: Vec<_> = brought.collect().await;
            all.into_iter().collect::<Result<Vec<()>, _>>()?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn settle_again(&self, to: Bearer) -> Result<(), RegistryError> {
        let mut tries = 0;
        loop {
            match self.settle(&to).await {
                // It is gone, or has as many attributes as it may: no more is to be done for it.
                Ok(()) | Err(RegistryError::Values(_)) => return Ok(()),
                Err(error) if tries >= TRIES_MAX => return Err(error),
                Err(_) => {
                    tries += 1;
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
