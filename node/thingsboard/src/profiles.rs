//! Device profiles as they are kept: a document of the tenant each, by the id that follows from its name.
//!
//! ```text
//!   space "thingsboard/profile"    id ─► the profile, its key and secret sealed, and what is still to be done with its devices
//!   space "thingsboard/settings"   "default-profile" ─► the name of the profile of devices that say no other
//! ```
//!
//! A device's profile is the one whose name is the device's type. There need not be one: then it is as a new one is.
//!
//! # Invariants
//!
//! - **Two who change a profile at once do not lose each other's change**: who read another version is refused.
//! - **No key or secret is kept as it is**, and no `Debug` form shows one.
//! - **A device that comes hears of a profile no older than [`KEPT`]**; at the node that changed it, of the newest.
//!
//! Checked by the cluster tests (`thingsboard_profiles.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    ota::PackageKind,
    payloads::Payloads,
    profile::Profile,
    provision::Strategy,
    rest::{
        ids,
        profiles::{DEFAULT_NAME, Shown, unwritten},
    },
};
use moorline_machine::documents::{Document, Expect, Space};
use moorline_service::registry::{RegistryError, credential::password::Place, secrets::Secrets};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::door::Door;

/// Where profiles are.
const SPACE: &str = "thingsboard/profile";
/// Where what else is set of a tenant is.
const SETTINGS_SPACE: &str = "thingsboard/settings";
/// Which of that says the default profile.
const DEFAULT_PROFILE: &str = "default-profile";
/// Profiles of a tenant: all are read for a list.
pub(crate) const PROFILES_MAX: usize = 1_000;
/// Profiles that are read at once.
const PAGE: u16 = 100;
/// How long a profile that was read is taken for what it is. Devices come by thousands after a power cut, each wants its profile, and
/// seldom does one change.
pub(crate) const KEPT: Duration = Duration::from_secs(10);
/// Profiles that are kept so at one node: all are read again when there are more.
const KEPT_MAX: usize = 4_096;
/// Numbers of what is sealed, for its place.
const KEY: u64 = 1;
/// See [`KEY`].
const SECRET: u64 = 2;

/// A profile as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// Its key and secret are not in it.
    pub(crate) profile: Profile,
    /// Its key and secret, if it has any.
    pub(crate) keys: Option<Keys>,
    /// When it was made, in milliseconds since the epoch.
    pub(crate) created_ms: i64,
    /// Packages that some of its devices may still have which should not.
    pub(crate) leaving: Leaving,
    /// Its document's; 0 for one that nobody has written.
    pub(crate) version: u64,
    /// Its schemas, once somebody has asked for them: many devices share them.
    payloads: OnceLock<Arc<Payloads>>,
}

/// Packages that are being taken from a profile's devices, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Leaving {
    /// Firmware.
    pub(crate) firmware: Option<Uuid>,
    /// Software.
    pub(crate) software: Option<Uuid>,
}

impl Leaving {
    /// Of one kind.
    pub(crate) fn of(&mut self, kind: PackageKind) -> &mut Option<Uuid> {
        match kind {
            PackageKind::Firmware => &mut self.firmware,
            PackageKind::Software => &mut self.software,
        }
    }
}

/// What requests for credentials prove.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(<hidden>)")
    }
}

/// The bytes of a document.
#[derive(Serialize, Deserialize)]
struct Kept {
    profile: Profile,
    created_ms: i64,
    #[serde(default)]
    sealed: Option<Sealed>,
    #[serde(default)]
    leaving: Leaving,
}

/// Key and secret, sealed, in base64.
#[derive(Serialize, Deserialize)]
struct Sealed {
    key: String,
    secret: String,
}

/// Which default profile a tenant has.
#[derive(Serialize, Deserialize)]
struct DefaultProfile {
    name: String,
}

/// Profiles that were read a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Read>);

#[derive(Debug, Default)]
struct Read {
    /// By tenant and name: when each was read.
    by_name: HashMap<(TenantId, Text), (Instant, Arc<Known>)>,
    /// How many were written at this node: what was asked for before is perhaps not what is there now.
    writes: u64,
}

impl Cache {
    fn get(&self, tenant: TenantId, name: &str) -> Option<Arc<Known>> {
        let kept = self.lock();
        let (read, known) = kept.by_name.get(&(tenant, Text::from(name)))?;
        (read.elapsed() < KEPT).then(|| Arc::clone(known))
    }

    /// `writes`: how many there were when it was asked for.
    fn put(&self, tenant: TenantId, name: &str, known: &Arc<Known>, writes: u64) {
        let mut kept = self.lock();
        if kept.writes != writes {
            return;
        }
        if kept.by_name.len() >= KEPT_MAX {
            kept.by_name.clear();
        }
        kept.by_name.insert((tenant, Text::from(name)), (Instant::now(), Arc::clone(known)));
    }

    fn forget(&self, tenant: TenantId, name: &str) {
        let mut kept = self.lock();
        kept.writes += 1;
        kept.by_name.remove(&(tenant, Text::from(name)));
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        // Nothing is changed in two steps that could be torn.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, SPACE)
}

fn place_of(id: Uuid) -> Text {
    Text::from(format!("{SPACE}/{id}"))
}

impl Known {
    /// One that nobody has written.
    pub(crate) fn unwritten(name: &str) -> Self {
        let (profile, leaving) = (unwritten(name), Leaving::default());
        Self::new(profile, None, 0, leaving)
    }

    /// One that is to be written.
    pub(crate) fn new(
        profile: Profile,
        keys: Option<Keys>,
        created_ms: i64,
        leaving: Leaving,
    ) -> Self {
        Self { profile, keys, created_ms, leaving, version: 0, payloads: OnceLock::new() }
    }

    /// How its devices write payloads. As JSON, if its schemas can't be read any more: they were, when it was written.
    pub(crate) fn payloads(&self) -> Arc<Payloads> {
        let read = || Arc::new(self.profile.payloads().unwrap_or(Payloads::Json));
        Arc::clone(self.payloads.get_or_init(read))
    }

    /// What is said of it beside what was written.
    pub(crate) fn shown(&self, tenant: TenantId, default: &str) -> Shown {
        Shown {
            id: ids::of_named(tenant, &self.profile.name),
            tenant: ids::of_tenant(tenant),
            created_ms: self.created_ms,
            default: self.profile.name == default,
            version: self.version,
        }
    }

    /// With its key and secret where they stand in JSON.
    pub(crate) fn with_keys(&self) -> Profile {
        let mut profile = self.profile.clone();
        if let Some(Keys { key, secret }) = self.keys.clone() {
            profile.provision_device_key = Some(key);
            profile.profile_data.provision_configuration.provision_device_secret = Some(secret);
        }
        profile
    }

    /// Whether its devices are to be told of packages.
    pub(crate) fn brings_packages(&self) -> bool {
        let has = |kind: &PackageKind| self.profile.package(*kind).is_some();
        PackageKind::ALL.iter().any(has) || self.leaving != Leaving::default()
    }

    /// What it does with requests for credentials.
    pub(crate) fn strategy(&self) -> Strategy {
        self.profile.provision_type.unwrap_or(Strategy::Disabled)
    }
}

impl Seals<'_> {
    fn seal(&self, number: u64, text: &str) -> String {
        let place = Place { tenant: self.tenant, device: &self.place, id: number };
        STANDARD.encode(self.secrets.seal_again(place, text.as_bytes()))
    }

    fn open(&self, number: u64, sealed: &str) -> Option<String> {
        let place = Place { tenant: self.tenant, device: &self.place, id: number };
        let sealed = STANDARD.decode(sealed).ok()?;
        let text = self.secrets.open(place, &sealed)?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// What seals a profile's key and secret, for it alone.
struct Seals<'a> {
    secrets: &'a Secrets,
    tenant: TenantId,
    place: Text,
}

impl Door {
    fn seals(&self, tenant: TenantId, id: Uuid) -> Seals<'_> {
        Seals { secrets: &self.secrets, tenant, place: place_of(id) }
    }

    fn read_profile(&self, tenant: TenantId, id: Uuid, document: &Document) -> Option<Known> {
        let Kept { profile, created_ms, sealed, leaving } =
            serde_json::from_slice(&document.body).ok()?;
        let seals = self.seals(tenant, id);
        let keys = sealed.and_then(|Sealed { key, secret }| {
            Some(Keys { key: seals.open(KEY, &key)?, secret: seals.open(SECRET, &secret)? })
        });
        let known = Known::new(profile, keys, created_ms, leaving);
        Some(Known { version: document.version, ..known })
    }

    /// A profile by its id, if somebody has written it.
    pub(crate) async fn profile_by_id(
        &self,
        tenant: TenantId,
        id: Uuid,
    ) -> Result<Option<Known>, RegistryError> {
        let found = self.registry.document(&space(tenant), &Text::from(id.to_string())).await?;
        Ok(found.and_then(|found| self.read_profile(tenant, id, &found)))
    }

    /// The profile of a name, as it is now.
    pub(crate) async fn profile_now(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<Known, RegistryError> {
        let found = self.profile_by_id(tenant, ids::of_named(tenant, name)).await?;
        Ok(found.unwrap_or_else(|| Known::unwritten(name)))
    }

    /// The profile of devices of a type, as it was a moment ago.
    pub(crate) async fn profile_of(
        &self,
        tenant: TenantId,
        kind: &str,
    ) -> Result<Arc<Known>, RegistryError> {
        if let Some(known) = self.profiles.get(tenant, kind) {
            return Ok(known);
        }
        let writes = self.profiles.lock().writes;
        let known = Arc::new(self.profile_now(tenant, kind).await?);
        self.profiles.put(tenant, kind, &known, writes);
        Ok(known)
    }

    /// All profiles that somebody has written, and the default one.
    pub(crate) async fn all_profiles(&self, tenant: TenantId) -> Result<Vec<Known>, RegistryError> {
        let (space, mut all, mut after) = (space(tenant), Vec::new(), None);
        loop {
            let page = self.registry.documents(&space, after.as_ref(), PAGE).await?;
            for document in &page.documents {
                let id = document.id.as_str().parse().ok();
                all.extend(id.and_then(|id| self.read_profile(tenant, id, document)));
            }
            after = page.documents.last().map(|last| last.id.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        if !all.iter().any(|known| known.profile.name == DEFAULT_NAME) {
            all.push(Known::unwritten(DEFAULT_NAME));
        }
        Ok(all)
    }

    /// Writes a profile in the place of the version it was read with: its version from now on.
    pub(crate) async fn put_profile(
        &self,
        tenant: TenantId,
        known: &Known,
    ) -> Result<u64, RegistryError> {
        let name = known.profile.name.as_str();
        let id = ids::of_named(tenant, name);
        let seals = self.seals(tenant, id);
        let sealed = known.keys.as_ref().map(|Keys { key, secret }| Sealed {
            key: seals.seal(KEY, key),
            secret: seals.seal(SECRET, secret),
        });
        let (profile, created_ms) = (known.profile.clone(), known.created_ms);
        let kept = Kept { profile, created_ms, sealed, leaving: known.leaving.clone() };
        let body = serde_json::to_vec(&kept).expect("maps have text for keys");
        let expect = match known.version {
            0 => Expect::Absent,
            version => Expect::Version(version),
        };
        let id = Text::from(id.to_string());
        let put = self.registry.put_document(&space(tenant), &id, Bytes::from(body), expect).await;
        self.profiles.forget(tenant, name);
        put
    }

    /// Deletes a profile, if it is still of this version.
    pub(crate) async fn delete_profile(
        &self,
        tenant: TenantId,
        known: &Known,
    ) -> Result<bool, RegistryError> {
        let name = known.profile.name.as_str();
        let id = Text::from(ids::of_named(tenant, name).to_string());
        let expect = Expect::Version(known.version);
        let deleted = self.registry.delete_document(&space(tenant), &id, expect).await;
        self.profiles.forget(tenant, name);
        deleted
    }

    /// The name of the profile of devices that say no other.
    pub(crate) async fn default_profile(&self, tenant: TenantId) -> Result<String, RegistryError> {
        let space = Space::of_tenant(tenant, SETTINGS_SPACE);
        let found = self.registry.document(&space, &Text::from(DEFAULT_PROFILE)).await?;
        let read = |found: Document| serde_json::from_slice::<DefaultProfile>(&found.body).ok();
        Ok(found.and_then(read).map_or_else(|| DEFAULT_NAME.to_owned(), |found| found.name))
    }

    /// Has devices that say no other have this profile from now on.
    pub(crate) async fn set_default_profile(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<(), RegistryError> {
        let body = serde_json::to_vec(&DefaultProfile { name: name.to_owned() });
        let body = Bytes::from(body.expect("text for keys"));
        let space = Space::of_tenant(tenant, SETTINGS_SPACE);
        let id = Text::from(DEFAULT_PROFILE);
        self.registry.put_document(&space, &id, body, Expect::Any).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_a_write_is_not_kept_after_it() {
        let (cache, tenant) = (Cache::default(), TenantId(7));
        let known = Arc::new(Known::unwritten("pump"));
        let before = cache.lock().writes;
        cache.forget(tenant, "pump");
        cache.put(tenant, "pump", &known, before);
        assert!(cache.get(tenant, "pump").is_none());
        let now = cache.lock().writes;
        cache.put(tenant, "pump", &known, now);
        assert!(cache.get(tenant, "pump").is_some());
        assert!(cache.get(TenantId(8), "pump").is_none(), "another tenant's is its own");
        (0..KEPT_MAX).for_each(|name| cache.put(tenant, &name.to_string(), &known, now));
        assert!(cache.lock().by_name.len() <= KEPT_MAX);
    }
}
