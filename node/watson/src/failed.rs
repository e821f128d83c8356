//! Who was not let in: told to those who watch it, as news that are not retained (§1.6 of the vendor's wire), and kept for the log of
//! connections.
//!
//! # Invariants
//!
//! - **Only of clients that there are**: a registered device or gateway, an application with a key that exists. So nobody fills topics
//!   or disks with names of his own.
//! - **Bounded**: [`LOOKS`] of an address and [`TELLING_MAX`] at once are looked into at a node, whoever they may mean, and [`RATE`] of an
//!   organisation told: so names that there are not use up nobody's turns. What is not told is counted.
//! - **Nobody makes a node write for long**: a device's last failures are kept, as many as the dialect says, but only such that lead to a
//!   ban when there are too many of them: who shows something wrong. Who is turned away before he has shown anything may come again at
//!   once (a will that is none, no TLS, no certificate): that is told, and not kept.
//! - **Nothing of what a stranger says is told on** but the name of a key; a user name may be anything, and a secret by mistake.
//!
//! Checked by the cluster tests (`watson_gateways.rs`).

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_core::{Message, TenantId, Text, UnixMillis};
use moorline_dialects::watson::{
    close::Close,
    identity::{ApiKey, ClientId, DeviceName, USE_TOKEN_AUTH},
    management::kept,
    presence::{Action, News, Protocol, Published, Traffic, published},
    rest::kept::{KeptFailure, KeptFailures},
};
use moorline_edge::{Buckets, Rate, Turn};
use moorline_machine::{
    documents::{Expect, Space},
    registry::DeviceRecord,
};
use moorline_mqtt::Millis;
use moorline_service::registry::{RegistryError, documents::is_conflict, principal::kept_as};
use tokio::sync::Semaphore;

use crate::{
    door::{alias_of, device_name, registered_as},
    managed::Manager,
};

/// Failures from an address that a node looks into.
const LOOKS: Rate = Rate { per_s: 10, burst: 20, wait_ms_max: 0 };
/// Failures of an organisation that a node tells of.
const RATE: Rate = Rate { per_s: 10, burst: 20, wait_ms_max: 0 };
/// Organisations, and addresses, whose failures are counted.
const COUNTED_MAX: usize = 4_096;
/// Failures that are looked into at once, of all organisations: those of one may take the places of another's for a moment.
const TELLING_MAX: usize = 32;
/// A device's space for them, and the one document in it.
const SPACE: &str = "watson/failed";
const FAILURES: &str = "connects";
/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 4;

/// How many are told of. Clones are the same.
#[derive(Clone)]
pub(crate) struct Failures {
    looks: Arc<Mutex<Buckets<IpAddr>>>,
    turns: Arc<Mutex<Buckets<TenantId>>>,
    telling: Arc<Semaphore>,
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

impl Default for Failures {
    fn default() -> Self {
        let looks = Arc::new(Mutex::new(Buckets::new(LOOKS, COUNTED_MAX)));
        let turns = Arc::new(Mutex::new(Buckets::new(RATE, COUNTED_MAX)));
        Self { looks, turns, telling: Arc::new(Semaphore::new(TELLING_MAX)) }
    }
}

impl Failures {
    fn may_look(&self, from: IpAddr, now: UnixMillis) -> bool {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.take(from.to_canonical(), Millis(now.0)) == Turn::Now
    }

    fn may_tell(&self, tenant: TenantId, now: UnixMillis) -> bool {
        // Every change is one entry.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.take(tenant, Millis(now.0)) == Turn::Now
    }
}

/// A connect that failed, or a request.
pub(crate) struct Failed {
    /// Whom it may have meant by its name.
    pub(crate) readings: Vec<ClientId>,
    /// Why.
    pub(crate) close: Close,
    pub(crate) peer: IpAddr,
    pub(crate) port: u16,
    pub(crate) secure: bool,
    pub(crate) protocol: Protocol,
    /// The user name it gave.
    pub(crate) user: Text,
    /// It is kept for the log, too.
    pub(crate) is_kept: bool,
}

impl Failed {
    /// The user name as it may be told on: what is no key's name is the stranger's own.
    fn told_user(&self) -> &str {
        let is_name = ApiKey::parse(self.user.as_bytes()).is_some();
        if is_name || self.user.as_str() == USE_TOKEN_AUTH { self.user.as_str() } else { "" }
    }
}

fn space(tenant: TenantId, name: &Text, record: &DeviceRecord) -> Space {
    Space::of_device(tenant, name, record.born, SPACE)
}

impl Manager {
    /// Somebody was not let in. Whoever watches it hears so in a moment.
    pub(crate) fn failed(&self, failed: Failed) {
        let Some(first) = failed.readings.first().filter(|first| !first.is_quickstart()) else {
            return;
        };
        let Some((tenant, _)) = self.door.registry.tenant_by_alias(&alias_of(first)) else {
            return;
        };
        let (now, failures) = (self.door.clock.wall(), &self.door.failures);
        let permit = Arc::clone(&failures.telling).try_acquire_owned().ok();
        let Some(permit) = permit.filter(|_| failures.may_look(failed.peer, now)) else {
            return self.untold();
        };
        let manager = self.clone();
        self.door.tasks.spawn(async move {
            if Box::pin(manager.tell_failed(tenant, now, failed)).await.is_err() {
                manager.untold();
            }
            drop(permit);
        });
    }

    fn untold(&self) {
        self.door.metrics.dropped.with_label_values(&["failed_connect"]).inc();
    }

    async fn tell_failed(
        &self,
        tenant: TenantId,
        at: UnixMillis,
        failed: Failed,
    ) -> Result<(), RegistryError> {
        let Some((client, record)) = self.meant(tenant, &failed).await? else { return Ok(()) };
        if !self.door.failures.may_tell(tenant, at) {
            self.untold();
            return Ok(());
        }
        let address = failed.peer.to_canonical().to_string();
        let news = News {
            action: Action::FailedConnect,
            at,
            client: &client,
            address: &address,
            port: failed.port,
            secure: failed.secure,
            protocol: failed.protocol,
            user: failed.told_user(),
            certificate: "",
            connected: None,
            close: failed.close,
            traffic: Traffic::default(),
        };
        for Published { topic, payload, retained } in published(&news) {
            assert!(!retained, "nothing of a connect that failed is retained");
            let message = Message { topic, payload: payload.into(), ..Message::empty() };
            self.service.pass(tenant, &message);
        }
        let failure = KeptFailure { at, close: failed.close.number(), address };
        match client.device().zip(record).filter(|_| failed.is_kept) {
            Some((name, record)) => self.keep_failure(tenant, (name, &record), failure).await,
            None => Ok(()),
        }
    }

    /// Who of those that it may have meant there is, with the row of a device or gateway.
    async fn meant(
        &self,
        tenant: TenantId,
        failed: &Failed,
    ) -> Result<Option<(ClientId, Option<DeviceRecord>)>, RegistryError> {
        let registry = &self.door.registry;
        for client in &failed.readings {
            let Some(name) = client.device() else {
                // An application is known by its key alone.
                let key = ApiKey::parse(failed.user.as_bytes());
                let Some(key) = key.filter(|key| key.org == client.org) else { continue };
                if registry.device(tenant, &kept_as(&key.to_string())).await?.is_some() {
                    return Ok(Some((client.clone(), None)));
                }
                continue;
            };
            let record = registry.device(tenant, &device_name(name)).await?;
            let is_it = |record: &DeviceRecord| registered_as(client, &record.settings);
            if let Some(record) = record.filter(is_it) {
                return Ok(Some((client.clone(), Some(record))));
            }
        }
        Ok(None)
    }

    async fn keep_failure(
        &self,
        tenant: TenantId,
        (name, record): (&DeviceName, &DeviceRecord),
        failure: KeptFailure,
    ) -> Result<(), RegistryError> {
        let space = space(tenant, &device_name(name), record);
        let (id, registry) = (Text::from(FAILURES), &self.door.registry);
        for _ in 0..TRIES_MAX {
            let found = registry.document(&space, &id).await?;
            let expect =
                found.as_ref().map_or(Expect::Absent, |found| Expect::Version(found.version));
            // What can't be read is begun anew.
            let read = found.and_then(|found| kept::read::<KeptFailures>(&found.body).ok());
            let mut all = read.unwrap_or_default();
            all.note(failure.clone());
            match registry.put_document(&space, &id, kept::write(&all), expect).await {
                Err(error) if is_conflict(&error) => {}
                put => return put.map(drop),
            }
        }
        Err(RegistryError::Busy)
    }

    /// A device's last failures, the newest first.
    pub(crate) async fn failures(
        &self,
        tenant: TenantId,
        name: &DeviceName,
        record: &DeviceRecord,
    ) -> Result<Vec<KeptFailure>, RegistryError> {
        let space = space(tenant, &device_name(name), record);
        let found = self.door.registry.document(&space, &Text::from(FAILURES)).await?;
        let read = found.and_then(|found| kept::read::<KeptFailures>(&found.body).ok());
        Ok(read.unwrap_or_default().failures.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organisation_has_its_turns() {
        let (failures, now) = (Failures::default(), UnixMillis(1_000));
        let told = (0..100).filter(|_| failures.may_tell(TenantId(1), now)).count();
        assert_eq!(told, usize::try_from(RATE.burst).unwrap());
        assert!(failures.may_tell(TenantId(2), now), "others have their own");
        assert!(failures.may_tell(TenantId(1), UnixMillis(1_100)));
    }

    #[test]
    fn who_looks_for_names_uses_up_his_own_turns() {
        let (failures, now) = (Failures::default(), UnixMillis(1_000));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let looked = (0..100).filter(|_| failures.may_look(one, now)).count();
        assert_eq!(looked, usize::try_from(LOOKS.burst).unwrap());
        assert!(failures.may_look(other, now) && failures.may_tell(TenantId(1), now));
    }

    #[test]
    fn nothing_of_a_strangers_own_is_told_on() {
        for (user, told) in [
            ("a-abc123-k3yk3yk3yk", "a-abc123-k3yk3yk3yk"),
            (USE_TOKEN_AUTH, USE_TOKEN_AUTH),
            ("Zk3vQ9xLw2RtY7uPb5", ""),
            ("", ""),
        ] {
            let failed = Failed {
                readings: Vec::new(),
                close: Close::NotAuthorised,
                peer: IpAddr::from([10, 0, 0, 1]),
                port: 1883,
                secure: false,
                protocol: Protocol::Http,
                user: Text::from(user),
                is_kept: false,
            };
            assert_eq!(failed.told_user(), told);
        }
    }
}
