//! The registry's API: devices of applications, with the key of one.
//!
//! # Invariants
//!
//! - **A change is made to what was read**: of two at once one fails with 409, or is made again to what the other left.
//! - **Every change of a device has its record** in the audit, and is an event, too (`changes.rs`). What an application says is a document,
//!   which has none.
//! - **What is written can be read later, and is bounded** (`moorline_dialects::drogue::registry`).
//!
//! Checked by the cluster tests (`drogue.rs`, `drogue_mends.rs`).
//!
//! # Deliberately absent
//!
//! Making and deleting applications: they are tenants, which administrators of the cluster make.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_dialects::{
    drogue::{
        event,
        http::{Head, Response},
        outcome::Refusal,
        registry::{
            credentials::{CREDENTIALS_MAX, Credential, Logins, NoPlace, Password},
            device::{Kept, is_disabled},
            labels::Selector,
            patch::{merge, patched},
            resource::{self, Known, Written},
            route::{Action, Place},
        },
    },
    moments,
};
use moorline_machine::{
    DocumentRefused,
    answer::Refused,
    documents::Expect,
    registry::{self, DEVICE_NAME_BYTES_MAX, DeleteDevice, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    Change, RegistryError,
    audit::{Actor, as_actor, identified},
    credential::{
        kind,
        make::{self, Secret, Unmakeable, Wanted, WantedPassword},
        password,
    },
    principal::{Principal, is_principal},
    settings::{self, DeviceSettings, Role},
};
use serde_json::Value;

use crate::{
    changes::Changed,
    door::{Door, Turned},
    http::{EVERYBODYS, refusal_of},
    kept::kept_of,
};

/// Devices that are read at once for a list.
const PAGE: usize = 1_000;
/// Devices that one list looks at.
const LOOKED_AT_MAX: usize = 100_000;
/// How often a patch is tried again after somebody else's change came between.
const TRIES_MAX: usize = 5;

/// What a request is about, and who makes it.
pub(crate) struct Request<'a> {
    pub(crate) door: &'a Door,
    pub(crate) principal: &'a Principal,
    pub(crate) head: &'a Head<'a>,
    pub(crate) address: &'a str,
}

fn not_there(error: &RegistryError) -> Refusal {
    match error {
        RegistryError::Refused(Refused::NotFound) => Refusal::NotFound,
        RegistryError::Refused(Refused::VersionMismatch { .. } | Refused::Exists)
        | RegistryError::Documents(DocumentRefused::Conflict { .. }) => {
            Refusal::Conflict("Somebody else wrote it meanwhile, or it is there already".to_owned())
        }
        RegistryError::Taken(_) => {
            Refusal::Conflict("Another device has one of these credentials, or aliases".to_owned())
        }
        RegistryError::Refused(_) => {
            Refusal::Request("It is too large, or there are too many".to_owned())
        }
        RegistryError::Busy
        | RegistryError::Unavailable
        | RegistryError::DiskFull
        | RegistryError::TooManyReaders
        | RegistryError::Mail(_)
        | RegistryError::Events(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => Refusal::Unavailable,
    }
}

fn parsed(body: &Bytes) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::Format("The body is not JSON".to_owned()))
}

fn uid(tenant: TenantId, record: &DeviceRecord) -> String {
    format!("{}-{}", tenant.0, record.born)
}

impl Request<'_> {
    /// Answers it.
    pub(crate) async fn answer(
        &self,
        (place, action): (Place, Action),
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let reads = matches!(action, Action::Get | Action::List(..));
        if !reads && self.principal.role < Role::Operator {
            return Err(Refusal::Authentication);
        }
        let asked = format!("{} {}", self.head.method, self.head.path);
        let actor = Actor::of(&asked, rand::random(), self.address);
        as_actor(Some(actor), async {
            identified(&format!("{}/{}", self.principal.tenant.0, self.principal.name));
            match place {
                Place::Applications => self.applications(action).await,
                Place::Application(name) => self.application(&name, action, &body).await,
                Place::Devices(application) => self.devices(&application, action, &body).await,
                Place::Device(application, device) => {
                    self.device(&application, &device, action, &body).await
                }
            }
        })
        .await
    }

    /// An application that the key is for.
    async fn tenant(&self, application: &str) -> Result<(TenantId, Text), Refusal> {
        match self.door.application(application).await {
            Ok((tenant, name)) if [tenant, EVERYBODYS].contains(&self.principal.tenant) => {
                Ok((tenant, name))
            }
            // Whether there is such a one is nobody else's business.
            Ok(_) | Err(Turned::Away) => Err(Refusal::NotFound),
            Err(Turned::Unavailable | Turned::Misconfigured) => Err(Refusal::Unavailable),
        }
    }

    // ---- applications

    async fn applications(&self, action: Action) -> Result<Response, Refusal> {
        let Action::List(selector, limit, offset) = action else { return Err(Refusal::Method) };
        let own = self.principal.tenant;
        let all = if own == EVERYBODYS {
            self.door.registry.tenants().into_keys().collect()
        } else {
            vec![own]
        };
        let mut found = Vec::new();
        for tenant in all {
            // One that can't be read has no devices, and is shown so.
            let shown = match self.shown_application(tenant).await {
                Err(Refusal::Configuration) => {
                    self.shown_as(tenant, (Kept::default(), None), false)
                }
                shown => shown?,
            };
            let Some((shown, kept, _)) = shown else { continue };
            if selector.selects(&kept.labels) {
                found.push(shown);
            }
            if found.len() >= limit.saturating_add(offset) {
                break;
            }
        }
        let listed: Vec<_> = found.into_iter().skip(offset).take(limit).collect();
        Ok(Response::json(200, Bytes::from(Value::Array(listed).to_string())))
    }

    async fn shown_application(
        &self,
        tenant: TenantId,
    ) -> Result<Option<(Value, Kept, Option<u64>)>, Refusal> {
        if self.door.name(tenant).is_none() {
            return Ok(None);
        }
        let read = self.door.specs.read(&self.door.registry, tenant).await;
        let read = read.map_err(|why| refusal_of(why.into()))?;
        let enabled = !is_disabled(&read.0.spec);
        Ok(self.shown_as(tenant, read, enabled))
    }

    fn shown_as(
        &self,
        tenant: TenantId,
        (kept, version): (Kept, Option<u64>),
        enabled: bool,
    ) -> Option<(Value, Kept, Option<u64>)> {
        let name = self.door.name(tenant)?;
        let of = self.door.registry.tenant(tenant)?;
        let uid = tenant.0.to_string();
        let known = Known {
            application: None,
            name: name.as_str(),
            uid: &uid,
            created: of.created,
            version: version.unwrap_or_default(),
            enabled: of.enabled && enabled,
        };
        Some((resource::shown(&known, &kept), kept, version))
    }

    async fn application(
        &self,
        name: &str,
        action: Action,
        body: &Bytes,
    ) -> Result<Response, Refusal> {
        let (tenant, name) = self.tenant(name).await?;
        let found = self.shown_application(tenant).await?;
        let (shown, _, version) = found.ok_or(Refusal::NotFound)?;
        let wanted = match action {
            Action::Get => return Ok(Response::json(200, Bytes::from(shown.to_string()))),
            Action::Create | Action::Delete | Action::List(..) => return Err(Refusal::Method),
            Action::Replace => parsed(body)?,
            Action::Patch | Action::Merge => changed(&shown, &action, &parsed(body)?)?,
        };
        let written = resource::read(&wanted).map_err(Refusal::Request)?;
        is_meant(&written, (name.as_str(), None), version.unwrap_or_default())?;
        is_it(&written, &tenant.0.to_string())?;
        let kept = written.of_application();
        let body = serde_json::to_vec(&kept).expect("maps with string keys");
        let expect = version.map_or(Expect::Absent, Expect::Version);
        let write = self.door.specs.write(&self.door.registry, tenant, body.into(), expect);
        write.await.map_err(|error| not_there(&error))?;
        Ok(Response::empty(204))
    }

    // ---- devices

    async fn devices(
        &self,
        application: &str,
        action: Action,
        body: &Bytes,
    ) -> Result<Response, Refusal> {
        let (tenant, application) = self.tenant(application).await?;
        match action {
            Action::List(selector, limit, offset) => {
                let found = self.list(tenant, &application, &selector, limit, offset).await?;
                Ok(Response::json(200, Bytes::from(Value::Array(found).to_string())))
            }
            Action::Create => {
                let written = resource::read(&parsed(body)?).map_err(Refusal::Request)?;
                let name = written.name.clone();
                is_meant(&written, (&name, Some(&application)), 0)?;
                self.put(tenant, &application, &written, None, Some(0)).await?;
                let mut response = Response::empty(201);
                let place = format!("/api/registry/v1alpha1/apps/{application}/devices/{name}");
                response.headers.push(("location", place));
                Ok(response)
            }
            Action::Get | Action::Replace | Action::Patch | Action::Merge | Action::Delete => {
                Err(Refusal::Method)
            }
        }
    }

    async fn list(
        &self,
        tenant: TenantId,
        application: &Text,
        selector: &Selector,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Value>, Refusal> {
        let (mut found, mut skipped, mut looked, mut after) = (Vec::new(), 0, 0, None);
        while looked < LOOKED_AT_MAX && found.len() < limit {
            let page = self.door.registry.devices(tenant, after, PAGE).await;
            let page = page.map_err(|error| not_there(&error))?;
            looked += page.devices.len();
            for (device, record) in page.devices.iter().filter(|(name, _)| !is_principal(name)) {
                // One that can't be read is let in nowhere, and is shown so.
                let read = kept_of(&record.settings);
                let enabled = record.enabled && read.is_ok();
                let kept = read.unwrap_or_default();
                if !selector.selects(&kept.labels) {
                    continue;
                }
                if skipped < offset {
                    skipped += 1;
                } else if found.len() < limit {
                    let record = DeviceRecord { enabled, ..record.clone() };
                    found.push(shown(tenant, application, device, &record, &kept));
                }
            }
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        Ok(found)
    }

    async fn device(
        &self,
        application: &str,
        device: &str,
        action: Action,
        body: &Bytes,
    ) -> Result<Response, Refusal> {
        let (tenant, application) = self.tenant(application).await?;
        let name = Text::from(device);
        for _ in 0..TRIES_MAX {
            let record = self.row(tenant, &name).await?;
            // Written anew it can be read again.
            let before = kept_of(&record.settings).map_err(|_| Refusal::Configuration);
            let before = before.map(|kept| shown(tenant, &application, &name, &record, &kept));
            let wanted = match action {
                Action::Get => return Ok(Response::json(200, Bytes::from(before?.to_string()))),
                Action::Delete => {
                    let delete = DeleteDevice { tenant, device: name.clone(), if_version: None };
                    let deleted = self.door.registry.delete_device(delete).await;
                    deleted.map_err(|error| not_there(&error))?;
                    let (application, device, born) = (&application, &name, record.born);
                    let gone = Changed { tenant, application, device, born };
                    self.door.tell(gone, event::Change::Deleted).await;
                    return Ok(Response::empty(204));
                }
                Action::List(..) | Action::Create => return Err(Refusal::Method),
                Action::Replace => parsed(body)?,
                Action::Patch | Action::Merge => changed(&before?, &action, &parsed(body)?)?,
            };
            let written = resource::read(&wanted).map_err(Refusal::Request)?;
            is_meant(&written, (device, Some(&application)), record.version)?;
            is_it(&written, &uid(tenant, &record))?;
            let version = Some(record.version);
            let put = self.put(tenant, &application, &written, Some(&record), version).await;
            let again = matches!(action, Action::Patch | Action::Merge);
            match put {
                Err(Refusal::Conflict(_)) if again && written.version.is_none() => {}
                put => return put.map(|()| Response::empty(204)),
            }
        }
        Err(Refusal::Conflict("Others write it all the time".to_owned()))
    }

    async fn row(&self, tenant: TenantId, device: &Text) -> Result<DeviceRecord, Refusal> {
        if is_principal(device) {
            return Err(Refusal::NotFound);
        }
        let found = self.door.registry.device(tenant, device).await;
        found.map_err(|error| not_there(&error))?.ok_or(Refusal::NotFound)
    }

    async fn put(
        &self,
        tenant: TenantId,
        application: &Text,
        written: &Written,
        before: Option<&DeviceRecord>,
        if_version: Option<u64>,
    ) -> Result<(), Refusal> {
        let name = written.name.as_str();
        let wrong = name.starts_with('~') || name.chars().any(char::is_control);
        if name.len() > DEVICE_NAME_BYTES_MAX || wrong {
            let why = "A name has 1 to 160 bytes, no control characters, and no ~ in front";
            return Err(Refusal::Request(why.to_owned()));
        }
        let device = Text::from(name);
        let mut credentials = match (&written.credentials, before) {
            (Some(listed), _) => self.credentials(tenant, application, &device, listed).await?,
            (None, Some(before)) => before.credentials.clone(),
            (None, None) => Vec::new(),
        };
        credentials.retain(|held| held.kind != kind::ALIAS);
        let aliases = self.aliases(tenant, &device, &written.kept, before).await?;
        credentials.extend(aliases);
        if credentials.len() > CREDENTIALS_MAX {
            let why = "More than 8 credentials, of which each alias is one";
            return Err(Refusal::Request(why.to_owned()));
        }
        let mut settings: DeviceSettings =
            before.map(|before| settings::read(&before.settings)).unwrap_or_default();
        written.kept.put(&mut settings.metadata);
        settings.labels = labels(&written.kept.labels);
        let put = PutDevice {
            tenant,
            device: device.clone(),
            enabled: written.enabled,
            credentials,
            settings: settings::written(&settings),
            if_version,
            devices_max: self.door.registry.settings(tenant).devices_per_shard_max,
        };
        let put = self.door.registry.put_device(put).await;
        let Change { born, new, .. } = put.map_err(|error| not_there(&error))?;
        let change = if new { event::Change::Created } else { event::Change::Changed };
        let device = &device;
        self.door.tell(Changed { tenant, application, device, born }, change).await;
        Ok(())
    }

    /// Other names of a device: those that it has stay, and no other is another device's name.
    async fn aliases(
        &self,
        tenant: TenantId,
        device: &Text,
        kept: &Kept,
        before: Option<&DeviceRecord>,
    ) -> Result<Vec<registry::Credential>, Refusal> {
        let registry = &self.door.registry;
        let taken = || Refusal::Conflict("Another device has this name".to_owned());
        if before.is_none() {
            let called = registry.device_called(&self.door.secrets, tenant, device).await;
            if called.map_err(|error| not_there(&error))?.is_some() {
                return Err(taken());
            }
        }
        let names: BTreeSet<&str> =
            kept.aliases().filter(|alias| *alias != device.as_str()).collect();
        if names.len() > CREDENTIALS_MAX {
            return Err(Refusal::Request("More than 8 aliases".to_owned()));
        }
        let held = before.map(|before| before.credentials.as_slice()).unwrap_or_default();
        let mut aliases = Vec::with_capacity(names.len());
        for name in names.into_iter().map(Text::from) {
            let is_it = |held: &&registry::Credential| {
                let kept = kind::Kept::read(held.kind, &held.verifier);
                kept.is_some_and(|kept| kept == kind::Kept::Alias(name.clone()))
            };
            if let Some(held) = held.iter().find(is_it) {
                aliases.push(held.clone());
                continue;
            }
            if registry.device(tenant, &name).await.map_err(|error| not_there(&error))?.is_some() {
                return Err(taken());
            }
            aliases.push(self.made(tenant, device, Wanted::Alias(name)).await?);
        }
        Ok(aliases)
    }

    async fn made(
        &self,
        tenant: TenantId,
        device: &Text,
        wanted: Wanted,
    ) -> Result<registry::Credential, Refusal> {
        let place = password::Place { tenant, device, id: rand::random() };
        let made = make::make(&self.door.secrets, place, wanted, rand::random::<u8>).await;
        let made = made.map_err(|why| match why {
            Unmakeable::Busy => Refusal::Unavailable,
            Unmakeable::Malformed(why) => Refusal::Request(why.to_owned()),
            Unmakeable::NoHash(why) => Refusal::Request(why.to_string()),
        })?;
        Ok(made.credential)
    }

    /// What a device shows, as the import has it.
    async fn credentials(
        &self,
        tenant: TenantId,
        application: &Text,
        device: &Text,
        listed: &[Credential],
    ) -> Result<Vec<registry::Credential>, Refusal> {
        let (mut wanted, mut logins) = (Vec::new(), Logins::default());
        let no_place = |why: NoPlace| Refusal::Request(why.to_string());
        let secret = |password: &Password| match password {
            Password::Plain(plain) => WantedPassword::Chosen(Secret::new(plain.as_bytes())),
            Password::Hashed(hash) => WantedPassword::Hashed(Secret::new(hash.as_bytes())),
        };
        for credential in listed {
            match credential {
                Credential::Password(password) => {
                    let client =
                        logins.password(device.as_str()).map_err(no_place)?.map(Text::from);
                    let user = Some(device.clone());
                    let password = secret(password);
                    wanted.push((Wanted::Login { client, user, password }, (None, None)));
                }
                Credential::User { user, password, unique } => {
                    let client = (!unique).then_some(device.as_str());
                    let client = logins.user(client, user).map_err(no_place)?.map(Text::from);
                    let (user, password) = (Some(Text::from(user.as_str())), secret(password));
                    wanted.push((Wanted::Login { client, user, password }, (None, None)));
                }
                Credential::Psk { key, not_before, not_after } => {
                    let dates = (moment(not_before.as_ref())?, moment(not_after.as_ref())?);
                    let identity = Bytes::from(format!("{device}@{application}"));
                    let key = Some(Secret::new(key.0.clone()));
                    wanted.push((Wanted::Psk { identity, key }, dates));
                }
            }
        }
        let chosen = wanted.iter().any(|(wanted, _)| matches!(wanted, Wanted::Login { .. }));
        if chosen && !self.door.registry.settings(tenant).chosen_passwords {
            let why = "The application's tenant takes no passwords that people chose";
            return Err(Refusal::Request(why.to_owned()));
        }
        if wanted.len() > CREDENTIALS_MAX {
            return Err(Refusal::Request("More than 8 credentials".to_owned()));
        }
        let mut made = Vec::with_capacity(wanted.len());
        for (wanted, (not_before, not_after)) in wanted {
            let one = self.made(tenant, device, wanted).await?;
            made.push(registry::Credential { not_before, not_after, ..one });
        }
        Ok(made)
    }
}

fn moment(said: Option<&String>) -> Result<Option<UnixMillis>, Refusal> {
    let unreadable = || Refusal::Request("A key's validity has moments of RFC 3339".to_owned());
    said.map(|said| moments::parse(said).ok_or_else(unreadable)).transpose()
}

fn labels(labels: &BTreeMap<String, String>) -> BTreeSet<String> {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn shown(
    tenant: TenantId,
    application: &Text,
    device: &Text,
    record: &DeviceRecord,
    kept: &Kept,
) -> Value {
    let known = Known {
        application: Some(application.as_str()),
        name: device.as_str(),
        uid: &uid(tenant, record),
        created: record.created,
        version: record.version,
        enabled: record.enabled,
    };
    resource::shown(&known, kept)
}

/// Whether what was written is about the one that there is now.
fn is_it(written: &Written, uid: &str) -> Result<(), Refusal> {
    if written.uid.as_ref().is_some_and(|meant| meant != uid) {
        return Err(Refusal::Conflict("It is another one of that name".to_owned()));
    }
    Ok(())
}

fn changed(before: &Value, action: &Action, patch: &Value) -> Result<Value, Refusal> {
    let mut wanted = before.clone();
    // Not shown where there is nothing in it that is shown, and there for whoever adds something to it.
    if let Some(members) = wanted.as_object_mut() {
        members.entry("spec").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    // Which version is meant only the patch can say.
    if let Some(metadata) = wanted["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    if *action == Action::Merge {
        merge(&mut wanted, patch);
        return Ok(wanted);
    }
    patched(&wanted, patch).map_err(|why| Refusal::Request(why.to_string()))
}

/// Whether what was written is about this resource, as it is.
fn is_meant(
    written: &Written,
    (name, application): (&str, Option<&Text>),
    version: u64,
) -> Result<(), Refusal> {
    if written.name != name {
        return Err(Refusal::Request("metadata.name is another one".to_owned()));
    }
    let other = |meant: &String| application.is_some_and(|of| of.as_str() != meant.as_str());
    if written.application.as_ref().is_some_and(other) {
        return Err(Refusal::Request("metadata.application is another one".to_owned()));
    }
    if written.version.as_ref().is_some_and(|meant| *meant != version.to_string()) {
        return Err(Refusal::Conflict("It has another version".to_owned()));
    }
    Ok(())
}
