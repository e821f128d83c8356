//! Devices that another one brings along: a gateway speaks for them, and those that nobody has made are made.
//!
//! # Invariants
//!
//! - **A gateway speaks for devices of its own tenant**, and never for a principal of the API, whose rows have names of their own
//!   sort.
//! - **Who is made is audited** as made by the gateway, from where that spoke.
//!
//! Checked by the cluster tests (`watson.rs`, `thingsboard_gateway.rs`).

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_machine::{answer::Refused, registry::PutDevice};

use super::{
    Registry, RegistryError,
    audit::{Actor, as_actor, identified},
    door::{BY_AUTHORITY, Guest},
    principal::is_principal,
    settings::{self, DeviceSettings},
};

/// Who brings a device along.
#[derive(Debug, Clone, Copy)]
pub struct Bringer<'a> {
    /// Whose device and gateway are.
    pub tenant: TenantId,
    /// What the gateway is called, for the audit.
    pub gateway: &'a str,
    /// Where it spoke from, for the audit.
    pub address: &'a str,
}

impl Registry {
    /// Makes a device of a kind, unless there is one of that name.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `Refused` if it can't be made: its name, or the tenant has as many as it may.
    pub async fn bring(
        &self,
        by: Bringer<'_>,
        device: &Text,
        kind: Option<&str>,
    ) -> Result<(), RegistryError> {
        let kind = kind.map(str::to_owned);
        self.bring_as(by, device, &DeviceSettings { kind, ..DeviceSettings::default() }).await
    }

    /// The same of a device of which more is known.
    ///
    /// # Errors
    ///
    /// As of [`Registry::bring`].
    pub async fn bring_as(
        &self,
        by: Bringer<'_>,
        device: &Text,
        known: &DeviceSettings,
    ) -> Result<(), RegistryError> {
        let is_name = !is_principal(device) && !device.as_str().chars().any(char::is_control);
        if !is_name {
            return Err(RegistryError::Refused(Refused::Malformed));
        }
        let settings: Bytes = settings::written(known);
        let put = PutDevice {
            tenant: by.tenant,
            device: device.clone(),
            enabled: true,
            credentials: Vec::new(),
            settings,
            if_version: Some(0),
            devices_max: self.settings(by.tenant).devices_per_shard_max,
        };
        let actor = Actor::of("registration by a gateway", rand::random(), by.address);
        let made = as_actor(Some(actor), async {
            identified(by.gateway);
            self.put_device_plainly(put).await
        });
        match made.await {
            Ok(_) | Err(RegistryError::Refused(Refused::Exists)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A device that a gateway speaks for, made if nobody has made it; [`None`] if it is disabled.
    ///
    /// # Errors
    ///
    /// As of [`Registry::bring`].
    pub async fn brought(
        &self,
        by: Bringer<'_>,
        gateway: &Guest,
        device: &Text,
        kind: Option<&str>,
    ) -> Result<Option<Guest>, RegistryError> {
        // Most are there.
        let mut known = self.device(by.tenant, device).await?;
        if known.is_none() || is_principal(device) {
            self.bring(by, device, kind).await?;
            known = self.device(by.tenant, device).await?;
        }
        let Some(record) = known else { return Err(RegistryError::Refused(Refused::NotFound)) };
        let settings = settings::read(&record.settings);
        let guest = || Guest::of(by.tenant, device, &record, &settings, (BY_AUTHORITY, gateway.by));
        Ok(record.enabled.then(guest))
    }
}
