//! Device profiles: made, changed, found and listed; and which one a device has.

use moorline_core::TenantId;
use moorline_dialects::thingsboard::{
    credentials::certificate_id,
    ota::PackageKind,
    profile::Profile,
    provision::Strategy,
    rest::{
        entities::{Device, EntityId, EntityType, Page, PageQuery},
        errors::ErrorCode,
        ids,
        profiles::{DEFAULT_NAME, Route, info, read, shown},
    },
};
use moorline_service::registry::{RegistryError, settings};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Failed, Reply, Rest, auth::Integrator, parsed};
use crate::{
    enrol::authority,
    marks::kind,
    profiles::{Keys, Known, Leaving, PROFILES_MAX},
    provision::letters,
};

fn wrong(why: impl Into<String>) -> Failed {
    Failed::new(ErrorCode::BadRequestParams, why)
}

impl Rest {
    pub(super) async fn profiles(
        &self,
        who: &Integrator,
        route: Route,
        body: &[u8],
    ) -> Result<Reply, Failed> {
        let tenant = who.tenant;
        match route {
            Route::Save => {
                who.may_manage()?;
                let known = self.save_profile(tenant, parsed(body)?).await?;
                self.reply_with(who, &known).await
            }
            Route::Get(id) => {
                let known = self.profile(tenant, id).await?;
                self.reply_with(who, &known).await
            }
            Route::Delete(id) => {
                who.may_manage()?;
                self.remove_profile(tenant, id).await?;
                Ok(Reply::nothing())
            }
            Route::SetDefault(id) => {
                who.may_manage()?;
                let known = self.profile(tenant, id).await?;
                self.door.set_default_profile(tenant, &known.profile.name).await?;
                self.reply_with(who, &known).await
            }
            Route::Info(id) => {
                let known = self.profile(tenant, id).await?;
                Ok(Reply::json(&info(&known.profile, &known.shown(tenant, DEFAULT_NAME))))
            }
            Route::DefaultInfo => {
                let default = self.door.default_profile(tenant).await?;
                let known = self.door.profile_now(tenant, &default).await?;
                Ok(Reply::json(&info(&known.profile, &known.shown(tenant, &default))))
            }
            Route::List { page, transport, infos } => {
                self.list_profiles(who, &page, transport.as_deref(), infos).await
            }
            Route::Names => {
                let mut all = self.door.all_profiles(tenant).await?;
                all.sort_by(|a, b| a.profile.name.cmp(&b.profile.name));
                let shown = all.iter().map(|known| {
                    let id = ids::of_named(tenant, &known.profile.name);
                    let id = EntityId { entity_type: EntityType::DeviceProfile, id };
                    json!({ "id": id, "name": known.profile.name })
                });
                Ok(Reply::json(&shown.collect::<Vec<_>>()))
            }
        }
    }

    /// The profile of an id: one that was written, or the default one.
    pub(super) async fn profile(&self, tenant: TenantId, id: Uuid) -> Result<Known, Failed> {
        match self.door.profile_by_id(tenant, id).await? {
            Some(known) => Ok(known),
            None if id == ids::of_named(tenant, DEFAULT_NAME) => Ok(Known::unwritten(DEFAULT_NAME)),
            None => Err(Failed::not_found()),
        }
    }

    /// A profile as this user may see it: what lets devices in, if it may see that.
    fn seen(&self, who: &Integrator, known: &Known, default: &str) -> Value {
        let profile = if who.manages() { known.with_keys() } else { known.profile.clone() };
        shown(&profile, &known.shown(who.tenant, default))
    }

    async fn reply_with(&self, who: &Integrator, known: &Known) -> Result<Reply, Failed> {
        let default = self.door.default_profile(who.tenant).await?;
        Ok(Reply::json(&self.seen(who, known, &default)))
    }

    async fn list_profiles(
        &self,
        who: &Integrator,
        page: &PageQuery,
        transport: Option<&str>,
        infos: bool,
    ) -> Result<Reply, Failed> {
        let tenant = who.tenant;
        let default = self.door.default_profile(tenant).await?;
        let mut all = self.door.all_profiles(tenant).await?;
        let text = page.text_search.as_ref().map(|text| text.to_lowercase());
        all.retain(|known| {
            let is_found = |text: &String| known.profile.name.to_lowercase().contains(text);
            let of = json!(known.profile.transport_type);
            text.as_ref().is_none_or(is_found) && transport.is_none_or(|wanted| of == wanted)
        });
        match page.sort_property.as_deref() {
            Some("createdTime") => all.sort_by_key(|known| known.created_ms),
            Some(_) | None => all.sort_by(|a, b| a.profile.name.cmp(&b.profile.name)),
        }
        if page.descending {
            all.reverse();
        }
        let at = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let on_page = all.iter().skip(at(page.offset())).take(at(page.size));
        let data = on_page.map(|known| match infos {
            true => info(&known.profile, &known.shown(tenant, &default)),
            false => self.seen(who, known, &default),
        });
        Ok(Reply::json(&Page::of(data.collect(), all.len() as u64, page)))
    }

    // ---- writing

    async fn save_profile(&self, tenant: TenantId, body: Value) -> Result<Known, Failed> {
        let invalid = |why: String| Failed::new(ErrorCode::InvalidArguments, why);
        let (mut profile, id, version) = read(body).map_err(invalid)?;
        let name = profile.name.clone();
        let before = match id {
            Some(id) => Some(self.profile(tenant, id.id).await?),
            None => self.door.profile_by_id(tenant, ids::of_named(tenant, &name)).await?,
        };
        match (&before, id) {
            (Some(_), None) => return Err(wrong("Device profile with such name already exists!")),
            (None, _) if name == DEFAULT_NAME => {
                return Err(wrong("Device profile with such name already exists!"));
            }
            (Some(before), Some(_)) if before.profile.name != name => {
                return Err(wrong("a profile keeps its name, which is its devices' type"));
            }
            _ => {}
        }
        if version.zip(before.as_ref()).is_some_and(|(version, before)| version != before.version) {
            return Err(ErrorCode::VersionConflict.into());
        }
        if before.is_none() && self.door.all_profiles(tenant).await?.len() >= PROFILES_MAX {
            return Err(ErrorCode::EntitiesLimit.into());
        }
        let keys = keys(&profile, before.as_ref())?;
        profile.provision_device_key = None;
        profile.profile_data.provision_configuration.provision_device_secret = None;
        let id = ids::of_named(tenant, &name);
        for kind in PackageKind::ALL {
            if let Some(package) = profile.package(kind) {
                self.assignable(tenant, id, kind, package).await?;
            }
        }
        let leaving = leaving(before.as_ref(), &profile);
        // The default one may be there without being written.
        let created_ms = before.as_ref().map(|before| before.created_ms).filter(|at| *at > 0);
        let created_ms = created_ms.unwrap_or_else(|| self.now_ms());
        let version = before.as_ref().map_or(0, |before| before.version);
        let mut known = Known::new(profile, keys, created_ms, leaving);
        known.version = version;
        // The key leads there before it counts.
        if let Some(keys) = &known.keys {
            match self.door.lead(tenant, &name, &keys.key).await {
                Err(RegistryError::Taken(_)) => {
                    let why = "Device profile with such provision device key already exists!";
                    return Err(wrong(why));
                }
                led => led?,
            }
        }
        let put = self.door.put_profile(tenant, &known).await;
        // Also if somebody else's write came between.
        let led = self.door.lead_as_written(tenant, &name).await;
        known.version = put?;
        led?;
        if known.brings_packages() || before.is_some_and(|before| before.brings_packages()) {
            self.door.clone().roll_out(tenant, known.clone());
        }
        Ok(known)
    }

    async fn remove_profile(&self, tenant: TenantId, id: Uuid) -> Result<(), Failed> {
        let known = self.profile(tenant, id).await?;
        let name = known.profile.name.as_str();
        if name == self.door.default_profile(tenant).await? || name == DEFAULT_NAME {
            return Err(wrong("Deletion of Default Device Profile is prohibited!"));
        }
        let mut after = None;
        loop {
            let (rows, next) = self.some(tenant, after).await?;
            let is_used = |settings: &settings::DeviceSettings| kind(settings) == name;
            if rows.iter().any(|(_, record)| is_used(&settings::read(&record.settings))) {
                let why = "The device profile referenced by the devices cannot be deleted!";
                return Err(wrong(why));
            }
            let Some(next) = next else { break };
            after = Some(next);
        }
        self.door.delete_profile(tenant, &known).await?;
        self.door.lead_as_written(tenant, name).await?;
        Ok(())
    }

    // ---- devices

    /// A device that somebody wrote, with the type that its profile says; a profile that nobody has written yet is.
    pub(super) async fn of_profile(
        &self,
        tenant: TenantId,
        device: &Device,
        before: Option<&str>,
    ) -> Result<Device, Failed> {
        let said = device.device_type.as_deref().filter(|said| !said.is_empty());
        let name = match device.device_profile_id {
            Some(EntityId { id, .. }) => {
                let known = [said, before, Some(DEFAULT_NAME)].into_iter().flatten();
                let mut of_id = known.filter(|name| ids::of_named(tenant, name) == id);
                match (of_id.next(), self.door.profile_by_id(tenant, id).await?) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some(known)) => known.profile.name,
                    (None, None) => {
                        return Err(wrong("Device is referencing to non-existent device profile!"));
                    }
                }
            }
            None => match said.or(before) {
                Some(name) => name.to_owned(),
                None => self.door.default_profile(tenant).await?,
            },
        };
        let known = self.door.profile_of(tenant, &name).await?;
        if known.version == 0 && name != DEFAULT_NAME && Some(&*name) != before {
            let new = json!({ "name": name });
            match self.save_profile(tenant, new).await {
                // Somebody else was faster.
                Err(failed) if self.door.profile_now(tenant, &name).await?.version == 0 => {
                    return Err(failed);
                }
                Ok(_) | Err(_) => {}
            }
        }
        let id = ids::of_named(tenant, &name);
        for kind in PackageKind::ALL {
            let assigned = match kind {
                PackageKind::Firmware => device.firmware_id,
                PackageKind::Software => device.software_id,
            };
            if let Some(package) = assigned {
                self.assignable(tenant, id, kind, package.id).await?;
            }
        }
        Ok(Device { device_type: Some(name), ..device.clone() })
    }
}

/// What devices prove that ask for credentials: what was written, else what was there, else something new.
fn keys(profile: &Profile, before: Option<&Known>) -> Result<Option<Keys>, Failed> {
    match profile.provision_type {
        None | Some(Strategy::Disabled) => return Ok(None),
        Some(Strategy::AllowCreate | Strategy::CheckPreProvisioned) => {}
        Some(Strategy::CertificateChain) => return authority_of(profile, before).map(Some),
    }
    let shows = |before: &&Known| before.strategy() != Strategy::CertificateChain;
    let old = before.filter(shows).and_then(|before| before.keys.clone());
    let (old_key, old_secret) = old.map_or((None, None), |old| (Some(old.key), Some(old.secret)));
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let secret = &profile.profile_data.provision_configuration.provision_device_secret;
    let key = said(&profile.provision_device_key).or(old_key).unwrap_or_else(letters);
    let secret = said(secret).or(old_secret).unwrap_or_else(letters);
    let fits = |text: &str| text.len() <= KEY_BYTES_MAX;
    if !fits(&key) || !fits(&secret) {
        let why = "provisionDeviceKey and provisionDeviceSecret have at most 255 bytes";
        return Err(Failed::new(ErrorCode::InvalidArguments, why));
    }
    Ok(Some(Keys { key, secret }))
}

/// The authority whose devices have the profile: it is the secret, and what it is found by the key.
fn authority_of(profile: &Profile, before: Option<&Known>) -> Result<Keys, Failed> {
    let invalid = |why: &str| Failed::new(ErrorCode::InvalidArguments, why);
    let config = &profile.profile_data.provision_configuration;
    let said = config.provision_device_secret.clone().filter(|said| !said.is_empty());
    let chains = |known: &&Known| known.strategy() == Strategy::CertificateChain;
    let old = || before.filter(chains)?.keys.clone().map(|keys| keys.secret);
    let secret = said.or_else(old).unwrap_or_default();
    if secret.len() > AUTHORITY_BYTES_MAX {
        return Err(invalid("provisionDeviceSecret: a certificate has at most 8 KiB"));
    }
    authority(&secret).map_err(|why| invalid(&format!("provisionDeviceSecret: {why}")))?;
    Ok(Keys { key: certificate_id(&secret), secret })
}

/// Bytes of an authority's certificate.
const AUTHORITY_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a key or secret: devices can show no longer ones.
const KEY_BYTES_MAX: usize = 255;

/// Packages that devices have from the profile as it was, and are to have no more.
fn leaving(before: Option<&Known>, after: &Profile) -> Leaving {
    let mut leaving = Leaving::default();
    for kind in PackageKind::ALL {
        let had = before.and_then(|before| {
            before.profile.package(kind).or_else(|| *before.leaving.clone().of(kind))
        });
        *leaving.of(kind) = had.filter(|_| after.package(kind).is_none());
    }
    leaving
}
