//! Devices: registered, changed, found and listed.

use moorline_core::{ShardId, TenantId, Text, UnixMillis, calendar::rfc3339};
use moorline_dialects::watson::{
    about::{About, Registrar},
    identity::{DeviceName, TOKEN_CHARS_MAX},
    management::{
        attributes::Location,
        device::{Change, Event},
    },
    rest::{
        Method, Resource,
        error::Error,
        kept::KeptType,
        query::Query,
        request::{self, ClassId, DeviceChange, NewDevice},
        response::{self, Known, Meta, Page, Registration},
    },
};
use moorline_machine::{
    DeviceCursor,
    answer::Refused,
    registry::{Credential, DEVICE_SETTINGS_BYTES_MAX, DeleteDevice, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    DeviceList, RegistryError,
    principal::is_principal,
    secrets::{SECRET, Style, generate, is_strong},
    settings::{self, Class, DeviceSettings},
};
use serde_json::{Value, json};

use super::{Reply, Rest, TRIES_MAX, Who, Wrong};
use crate::{
    door::{device_name, name_of},
    managed::Failed,
};

/// Devices that are read at once for a list.
const PAGE: usize = 1_000;
/// Devices that one request looks through: a page may have fewer results than it should, and a bookmark all the same.
pub(super) const SCANNED_MAX: usize = 10_000;

/// A device as the API shows it.
pub(super) fn shown(
    org: &Text,
    name: &DeviceName,
    record: &DeviceRecord,
    token: Option<&str>,
) -> Value {
    let settings: DeviceSettings = settings::read(&record.settings);
    let about = About::read(settings.metadata);
    let nobody = || Registrar { id: String::new(), kind: "person".to_owned() };
    let groups: Vec<String> = about.groups.iter().cloned().collect();
    let (auth, gateway) = (about.registered_by.clone().unwrap_or_else(nobody), about.gateway());
    json!(response::Device::from(Known {
        org,
        name,
        class: match settings.class {
            Class::Device => ClassId::Device,
            Class::Gateway => ClassId::Gateway,
        },
        info: &about.info,
        metadata: &about.metadata,
        registration: Registration { auth, date: rfc3339(record.created) },
        groups: &groups,
        status: &about.status,
        gateway: gateway.as_ref(),
        token,
    }))
}

/// What a list asks of a device.
struct Wanted<'a> {
    kind: Option<&'a str>,
    query: &'a Query,
}

impl Wanted<'_> {
    fn is(&self, name: &DeviceName, shown: &Value) -> bool {
        let of_kind = self.kind.is_none_or(|kind| kind == name.kind.as_str());
        of_kind
            && self.query.filters.iter().all(|(path, wanted)| {
                let found = path.split('.').try_fold(shown, |value, key| value.get(key));
                wanted.is_empty() || found.and_then(Value::as_str) == Some(wanted)
            })
    }
}

impl Rest {
    pub(super) async fn devices(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        match (method, resource) {
            (Method::Get, Resource::Devices(kind)) => {
                self.list(who, Some(kind.as_str()), query).await
            }
            (Method::Post, Resource::Devices(kind)) => {
                let new = NewDevice::read(kind.as_str(), body, self.now())?;
                let (name, record, token) = self.create(who, new).await?;
                Ok(Reply::json(success, &shown(&who.org, &name, &record, Some(&token))))
            }
            (Method::Get, Resource::Device(name)) => {
                let record = self.found(who.tenant, &name).await?;
                Ok(Reply::json(success, &shown(&who.org, &name, &record, None)))
            }
            (Method::Put, Resource::Device(name)) => {
                let record = self.change(who, &name, request::read(body)?).await?;
                Ok(Reply::json(success, &shown(&who.org, &name, &record, None)))
            }
            (Method::Delete, Resource::Device(name)) => {
                self.remove(who.tenant, &name).await?;
                Ok(Reply::nothing(success))
            }
            (Method::Get | Method::Post | Method::Put | Method::Delete, _) => {
                Err(Error::Method.into())
            }
        }
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.judge.door.clock.wall()
    }

    async fn found(&self, tenant: TenantId, name: &DeviceName) -> Result<DeviceRecord, Wrong> {
        let found = self.judge.door.registry.device(tenant, &device_name(name)).await?;
        Ok(found.ok_or(Error::NotFound)?)
    }

    // ---- writing

    /// Registers a device: its row and its token.
    pub(super) async fn create(
        &self,
        who: &Who,
        new: NewDevice,
    ) -> Result<(DeviceName, DeviceRecord, String), Wrong> {
        let name = new.name().ok_or(Error::Malformed("the device has no name"))?;
        let kind = self.kind_for_new(who.tenant, &name.kind).await?;
        let (token, credential) = self.token(who.tenant, &name, new.auth_token.clone())?;
        let location = new.location.clone();
        let settings = settings::written(&settings_of(who, &name, kind, new));
        if settings.len() > DEVICE_SETTINGS_BYTES_MAX {
            return Err(Error::TooLarge.into());
        }
        let registry = &self.judge.door.registry;
        registry
            .put_device(PutDevice {
                tenant: who.tenant,
                device: device_name(&name),
                enabled: true,
                credentials: vec![credential],
                settings,
                if_version: Some(0),
                devices_max: registry.settings(who.tenant).devices_per_shard_max,
            })
            .await?;
        match self.finished(who.tenant, &name, location).await {
            Ok(record) => Ok((name, record, token)),
            Err(wrong) => {
                // Nobody would ever hear its token.
                drop(self.remove(who.tenant, &name).await);
                Err(wrong)
            }
        }
    }

    /// A new device's row, when all that was said of it is kept.
    async fn finished(
        &self,
        tenant: TenantId,
        name: &DeviceName,
        location: Option<Location>,
    ) -> Result<DeviceRecord, Wrong> {
        if let Some(location) = location {
            let changed = Event::Changed(Change::Location(location));
            Box::pin(self.manager.happens(tenant, name, changed)).await?;
        }
        self.found(tenant, name).await
    }

    /// A device's first token, and what is kept of it.
    fn token(
        &self,
        tenant: TenantId,
        name: &DeviceName,
        brought: Option<String>,
    ) -> Result<(String, Credential), Wrong> {
        if brought.as_deref().is_some_and(|token| !is_strong(token)) {
            let why =
                "authToken can be guessed: leave it out, or have 18 random letters and digits";
            return Err(Error::Invalid(vec![why.to_owned()]).into());
        }
        let token = brought.unwrap_or_else(|| {
            let secret = generate(Style::Plain, &mut rand::random::<u8>);
            secret.chars().take(TOKEN_CHARS_MAX).collect()
        });
        let (id, device) = (rand::random_range(1..=u64::MAX), device_name(name));
        let verifier = self.judge.door.secrets.verifier(tenant, &device, id, token.as_bytes());
        let credential = Credential {
            id,
            kind: SECRET,
            lookup: None,
            verifier: verifier.to_vec().into(),
            not_before: None,
            not_after: None,
            created: UnixMillis(0),
        };
        Ok((token, credential))
    }

    async fn change(
        &self,
        who: &Who,
        name: &DeviceName,
        change: DeviceChange,
    ) -> Result<DeviceRecord, Wrong> {
        let DeviceChange { device_info, metadata, status } = change;
        if let Some(wrong) = request::check_metadata(metadata.as_ref()) {
            return Err(Error::Invalid(vec![wrong]).into());
        }
        self.found(who.tenant, name).await?;
        let changes = [device_info.map(Change::Info), metadata.map(Change::Metadata)];
        for change in changes.into_iter().flatten() {
            let changed = Event::Changed(change);
            Box::pin(self.manager.happens(who.tenant, name, changed)).await?;
        }
        let Some(status) = status else { return self.found(who.tenant, name).await };
        for _ in 0..TRIES_MAX {
            let loaded = self.manager.load(who.tenant, name).await?;
            let about = About { status: status.clone(), ..loaded.about };
            let (row, settings) = (&loaded.row, loaded.settings);
            let put = self.manager.register(who.tenant, &loaded.name, row, settings, &about);
            match put.await {
                Err(Failed::Conflict) => {}
                put => {
                    put?;
                    return self.found(who.tenant, name).await;
                }
            }
        }
        Err(Error::Conflict.into())
    }

    pub(super) async fn remove(&self, tenant: TenantId, name: &DeviceName) -> Result<(), Wrong> {
        let device = device_name(name);
        let delete = DeleteDevice { tenant, device, if_version: None };
        match self.judge.door.registry.delete_device(delete).await {
            Err(RegistryError::Refused(Refused::NotFound)) => Err(Error::NotFound.into()),
            deleted => Ok(deleted?),
        }
    }

    // ---- lists

    /// A page of an organisation's rows, principals left out, and where the next one begins.
    pub(super) async fn page(
        &self,
        tenant: TenantId,
        after: Option<(ShardId, DeviceCursor)>,
    ) -> Result<DeviceList, Wrong> {
        let mut page = self.judge.door.registry.devices(tenant, after, PAGE).await?;
        page.devices.retain(|(device, _)| !is_principal(device));
        Ok(page)
    }

    /// Devices in the registry's order, which is always the same and none that anybody asks for: `_sort` means nothing.
    pub(super) async fn list(
        &self,
        who: &Who,
        kind: Option<&str>,
        query: &Query,
    ) -> Result<Reply, Wrong> {
        let (wanted, limit) = (Wanted { kind, query }, query.limit as usize);
        let mut results = Vec::new();
        let bookmark = self
            .each(who.tenant, query, |name, record| {
                let shown = shown(&who.org, name, record, None);
                if wanted.is(name, &shown) {
                    results.push(shown);
                }
                results.len() >= limit
            })
            .await?;
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    /// Looks through an organisation's devices from where a bookmark says, until `is_enough`: the bookmark for the rest.
    pub(super) async fn each(
        &self,
        tenant: TenantId,
        query: &Query,
        mut is_enough: impl FnMut(&DeviceName, &DeviceRecord) -> bool,
    ) -> Result<Option<String>, Wrong> {
        let registry = &self.judge.door.registry;
        let behind = |name: &str| registry.devices_behind(tenant, &Text::from(name));
        let (mut after, mut scanned) = (query.bookmark.as_deref().map(behind), 0);
        loop {
            let page = self.page(tenant, after).await?;
            let count = page.devices.len();
            scanned += count;
            for (at, (device, record)) in page.devices.iter().enumerate() {
                let Some(name) = name_of(device) else { continue };
                let is_last = at + 1 == count && page.next.is_none();
                if is_enough(&name, record) && !is_last {
                    return Ok(Some(device.to_string()));
                } else if is_last {
                    return Ok(None);
                }
            }
            let last = page.devices.last().map(|(device, _)| device.to_string());
            match page.next {
                None => return Ok(None),
                Some(_) if scanned >= SCANNED_MAX && last.is_some() => return Ok(last),
                Some(next) => after = Some(next),
            }
        }
    }
}

/// What is kept of a device that is registered now. What its type says is copied.
fn settings_of(who: &Who, name: &DeviceName, kind: KeptType, new: NewDevice) -> DeviceSettings {
    let mut info = kind.info;
    info.merge(new.device_info.unwrap_or_default());
    let about = About {
        info,
        metadata: new.metadata.unwrap_or(kind.metadata),
        registered_by: Some(Registrar { id: who.key.clone(), kind: "app".to_owned() }),
        ..About::default()
    };
    DeviceSettings {
        kind: Some(name.kind.to_string()),
        class: match kind.class {
            ClassId::Device => Class::Device,
            ClassId::Gateway => Class::Gateway,
        },
        metadata: about.written(),
        ..DeviceSettings::default()
    }
}
