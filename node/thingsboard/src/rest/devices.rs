//! Devices: made, changed, found and listed.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use moorline_core::{ShardId, TenantId, Text, shard::bucket_of};
use moorline_dialects::thingsboard::{
    ota::PackageKind,
    rest::{
        devices::{Route, info, with_credentials},
        entities::{Device, EntityId, EntityType, GATEWAY, Page, PageQuery},
        errors::ErrorCode,
        ids::{self, DevicePlace},
    },
};
use moorline_machine::{
    DeviceCursor,
    answer::Refused,
    presence::PresenceRecord,
    registry::{Credential, DEVICE_NAME_BYTES_MAX, DeleteDevice, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    principal::is_principal,
    settings::{self, Class, DeviceSettings},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Failed, Reply, Rest,
    auth::{Integrator, customer, no_customer},
    credentials::Shows,
    parsed,
    telemetry::inactive_since,
};
use crate::marks::{self, kind};

/// Devices that are read at once for a list.
const PAGE: usize = 1_000;
/// Devices that a list which is sorted may have.
const SORTED_MAX: usize = 100_000;
/// Devices that are asked about at once.
pub(super) const FOUND_AT_ONCE: usize = 16;
/// How often a change is tried again after somebody else's came between.
const TRIES_MAX: usize = 5;
/// A device and its row.
pub(super) type Row = (Text, DeviceRecord);

pub(super) fn place(tenant: TenantId, device: &Text, record: &DeviceRecord) -> DevicePlace {
    DevicePlace { bucket: bucket_of(tenant, device.as_bytes()), born: record.born }
}

pub(super) fn device_id(tenant: TenantId, device: &Text, record: &DeviceRecord) -> EntityId {
    let id = ids::of_device(place(tenant, device, record));
    EntityId { entity_type: EntityType::Device, id }
}

/// A device as the API shows it.
pub(super) fn shown(tenant: TenantId, (device, record): &Row) -> Device {
    let settings: DeviceSettings = settings::read(&record.settings);
    let profile = ids::of_named(tenant, kind(&settings));
    let mut about = marks::said(&settings);
    let package = |kind| {
        let id = marks::package(&settings, kind)?;
        Some(EntityId { entity_type: EntityType::OtaPackage, id })
    };
    let owner = marks::owner(&settings).map(|owner| customer(tenant, owner));
    if settings.class == Class::Gateway {
        about.insert(GATEWAY.to_owned(), Value::Bool(true));
    }
    let id = |entity_type, id| Some(EntityId { entity_type, id });
    Device {
        id: Some(device_id(tenant, device, record)),
        created_time: i64::try_from(record.created.0).ok(),
        tenant_id: id(EntityType::Tenant, ids::of_tenant(tenant)),
        customer_id: Some(owner.unwrap_or_else(no_customer)),
        name: device.to_string(),
        device_type: Some(kind(&settings).to_owned()),
        label: settings.labels.first().cloned(),
        device_profile_id: id(EntityType::DeviceProfile, profile),
        firmware_id: package(PackageKind::Firmware),
        software_id: package(PackageKind::Software),
        additional_info: (!about.is_empty()).then_some(Value::Object(about)),
        others: Map::from_iter([("version".to_owned(), Value::from(record.version))]),
    }
}

/// A device's settings as somebody wrote it.
fn changed(mut settings: DeviceSettings, device: &Device) -> DeviceSettings {
    settings.class = if device.is_gateway() { Class::Gateway } else { Class::Device };
    settings.kind = device.device_type.clone().or(settings.kind);
    // One label of possibly more is shown.
    let label = device.label.clone().filter(|label| !label.is_empty());
    if label.as_ref() != settings.labels.first() {
        settings.labels.pop_first();
        settings.labels.extend(label);
    }
    marks::say(&mut settings, device.about());
    let id = |said: &Option<EntityId>| said.map(|said| said.id);
    marks::set_package(&mut settings, PackageKind::Firmware, id(&device.firmware_id));
    marks::set_package(&mut settings, PackageKind::Software, id(&device.software_id));
    settings
}

fn name(device: &Device) -> Result<Text, Failed> {
    let name = device.name.as_str();
    let wrong = name.starts_with('~') || name.chars().any(char::is_control);
    if !device.has_name() || name.len() > DEVICE_NAME_BYTES_MAX || wrong {
        let why = "Device name: 1 to 160 bytes, no control characters, no ~ in front";
        return Err(Failed::new(ErrorCode::InvalidArguments, why));
    }
    Ok(Text::from(name))
}

fn device_of(body: &Value) -> Result<Device, Failed> {
    let device = serde_json::from_value(body.clone());
    device.map_err(|why| Failed::new(ErrorCode::InvalidArguments, format!("no device: {why}")))
}

/// What makes a device out of a row that was read.
pub(super) struct Change {
    pub(super) credentials: Vec<Credential>,
    pub(super) settings: Bytes,
}

impl Rest {
    pub(super) async fn devices(
        &self,
        who: &Integrator,
        route: Route,
        body: &[u8],
    ) -> Result<Reply, Failed> {
        let shows = |row: &Row| Reply::json(&shown(who.tenant, row));
        match route {
            Route::Save { access_token } => {
                who.may_manage()?;
                let device = device_of(&parsed(body)?)?;
                match &device.id {
                    None => {
                        let token = Shows::token(access_token);
                        Ok(shows(&self.create(who, &device, token).await?))
                    }
                    Some(id) => Ok(shows(&self.update(who, id.id, &device).await?)),
                }
            }
            Route::SaveWithCredentials => {
                who.may_manage()?;
                let body = parsed(body)?;
                let parts = with_credentials(&body).ok_or(ErrorCode::InvalidArguments)?;
                let device = device_of(parts.0)?;
                let credentials = Shows::read(parts.1)?;
                Ok(shows(&self.create(who, &device, credentials).await?))
            }
            Route::Get(id) => Ok(shows(&self.find(who.tenant, id).await?)),
            Route::Info(id) => {
                let row = self.find(who.tenant, id).await?;
                let infos = self.infos(who.tenant, vec![row]).await?;
                Ok(Reply::json(infos.first().ok_or(ErrorCode::General)?))
            }
            Route::Delete(id) => {
                who.may_manage()?;
                let (device, _) = self.find(who.tenant, id).await?;
                let delete = DeleteDevice { tenant: who.tenant, device, if_version: None };
                self.door.registry.delete_device(delete).await?;
                Ok(Reply::nothing())
            }
            Route::Credentials(id) => {
                who.may_manage()?;
                let row = self.find(who.tenant, id).await?;
                Ok(Reply::json(&self.credentials_of(who.tenant, &row)))
            }
            Route::SaveCredentials => {
                who.may_manage()?;
                let row = self.save_credentials(who.tenant, &parsed(body)?).await?;
                Ok(Reply::json(&self.credentials_of(who.tenant, &row)))
            }
            Route::List { page, kind, infos } => self.list(who, &page, kind, infos).await,
            Route::ByName(name) => {
                let device = Text::from(name);
                let found = self.named(who.tenant, &device).await?;
                Ok(shows(&(device, found)))
            }
            Route::ByIds(ids) => {
                let mut found = Vec::new();
                for id in ids {
                    match self.find(who.tenant, id).await {
                        Ok(row) => found.push(shown(who.tenant, &row)),
                        Err(failed) if failed.code == ErrorCode::ItemNotFound => {}
                        Err(failed) => return Err(failed),
                    }
                }
                Ok(Reply::json(&found))
            }
            Route::Types => self.types(who).await,
        }
    }

    /// The device of an id.
    pub(super) async fn find(&self, tenant: TenantId, id: Uuid) -> Result<Row, Failed> {
        let place = ids::device(id).ok_or_else(Failed::not_found)?;
        self.find_at(tenant, place).await
    }

    pub(super) async fn find_at(
        &self,
        tenant: TenantId,
        place: DevicePlace,
    ) -> Result<Row, Failed> {
        let DevicePlace { bucket, born } = place;
        let found = self.door.registry.device_born(tenant, bucket, born).await?;
        found.filter(|(device, _)| !is_principal(device)).ok_or_else(Failed::not_found)
    }

    pub(super) async fn named(
        &self,
        tenant: TenantId,
        device: &Text,
    ) -> Result<DeviceRecord, Failed> {
        if is_principal(device) {
            return Err(Failed::not_found());
        }
        self.door.registry.device(tenant, device).await?.ok_or_else(Failed::not_found)
    }

    // ---- writing

    async fn create(
        &self,
        who: &Integrator,
        device: &Device,
        credentials: Shows,
    ) -> Result<Row, Failed> {
        let (tenant, name) = (who.tenant, name(device)?);
        let device = &self.of_profile(tenant, device, None).await?;
        let credential = self.credential(tenant, &name, credentials).await?;
        let settings = changed(DeviceSettings::default(), device);
        let put = PutDevice {
            tenant,
            device: name.clone(),
            enabled: true,
            credentials: vec![credential],
            settings: settings::written(&settings),
            if_version: Some(0),
            devices_max: self.door.registry.settings(tenant).devices_per_shard_max,
        };
        match self.door.registry.put_device(put).await {
            Err(RegistryError::Refused(Refused::Exists)) => {
                let why = "Device with such name already exists!";
                Err(Failed::new(ErrorCode::BadRequestParams, why))
            }
            Err(RegistryError::Taken(_)) => Err(taken()),
            made => {
                made?;
                let record = self.named(tenant, &name).await?;
                self.bring_packages(tenant, &name, &record).await?;
                Ok((name, record))
            }
        }
    }

    async fn update(&self, who: &Integrator, id: Uuid, device: &Device) -> Result<Row, Failed> {
        let tenant = who.tenant;
        let (name, record) = self.find(tenant, id).await?;
        if name.as_str() != device.name {
            let why = "a device keeps its name: make another one";
            return Err(Failed::new(ErrorCode::BadRequestParams, why));
        }
        let wanted = device.others.get("version").and_then(Value::as_u64);
        if wanted.is_some_and(|wanted| wanted != record.version) {
            return Err(ErrorCode::VersionConflict.into());
        }
        let before: DeviceSettings = settings::read(&record.settings);
        let device = &self.of_profile(tenant, device, Some(kind(&before))).await?;
        let row = self
            .change(tenant, name, record.born, |record| {
                let settings = changed(settings::read(&record.settings), device);
                let settings = settings::written(&settings);
                Ok(Change { credentials: record.credentials.clone(), settings })
            })
            .await?;
        self.bring_packages(tenant, &row.0, &row.1).await?;
        Ok(row)
    }

    /// Writes a device as `change` says, from what it is; again if somebody else's write came between.
    pub(super) async fn change(
        &self,
        tenant: TenantId,
        device: Text,
        born: u64,
        change: impl Fn(&DeviceRecord) -> Result<Change, Failed>,
    ) -> Result<Row, Failed> {
        for _ in 0..TRIES_MAX {
            let record = self.named(tenant, &device).await?;
            if record.born != born {
                return Err(Failed::not_found());
            }
            let Change { credentials, settings } = change(&record)?;
            let put = PutDevice {
                tenant,
                device: device.clone(),
                enabled: record.enabled,
                credentials,
                settings,
                if_version: Some(record.version),
                devices_max: self.door.registry.settings(tenant).devices_per_shard_max,
            };
            match self.door.registry.put_device(put).await {
                Err(RegistryError::Refused(Refused::VersionMismatch { .. })) => {}
                Err(RegistryError::Taken(_)) => return Err(taken()),
                put => {
                    put?;
                    let record = self.named(tenant, &device).await?;
                    return Ok((device, record));
                }
            }
        }
        Err(ErrorCode::VersionConflict.into())
    }

    // ---- lists

    /// A page of a tenant's devices, principals left out, and where the next one begins.
    pub(super) async fn some(
        &self,
        tenant: TenantId,
        after: Option<(ShardId, DeviceCursor)>,
    ) -> Result<(Vec<Row>, Option<(ShardId, DeviceCursor)>), Failed> {
        let mut page = self.door.registry.devices(tenant, after, PAGE).await?;
        page.devices.retain(|(device, _)| !is_principal(device));
        Ok((page.devices, page.next))
    }

    async fn list(
        &self,
        who: &Integrator,
        page: &PageQuery,
        wanted: Option<String>,
        infos: bool,
    ) -> Result<Reply, Failed> {
        let fits = |_: &Row, of: &str| wanted.as_deref().is_none_or(|wanted| wanted == of);
        let (rows, total) = self.on_page(who.tenant, page, fits).await?;
        let data = match infos {
            true => self.infos(who.tenant, rows).await?,
            false => rows.iter().map(|row| json!(shown(who.tenant, row))).collect(),
        };
        Ok(Reply::json(&Page::of(data, total, page)))
    }

    /// The devices on a page of those that fit, by themselves and their types, and how many fit.
    async fn on_page(
        &self,
        tenant: TenantId,
        page: &PageQuery,
        fits: impl Fn(&Row, &str) -> bool,
    ) -> Result<(Vec<Row>, u64), Failed> {
        let mut window = Window::of(page);
        let mut after = None;
        loop {
            let (mut rows, next) = self.some(tenant, after).await?;
            rows.retain(|row| Window::wants(page, row, &fits));
            rows.into_iter().try_for_each(|row| window.add(row))?;
            let Some(next) = next else { break };
            after = Some(next);
        }
        Ok(window.page(page))
    }

    /// Devices with whether they are there.
    async fn infos(&self, tenant: TenantId, rows: Vec<Row>) -> Result<Vec<Value>, Failed> {
        let names: Vec<_> = rows.iter().map(|(device, _)| device.clone()).collect();
        let presences = self.door.registry.presence(tenant, &names).await?;
        let shows = stream::iter(rows.into_iter().zip(presences)).map(|(row, known)| async move {
            let known = known.filter(|known| known.born == row.1.born);
            let timeout = self.inactivity_timeout(tenant, &row.0, known.as_ref()).await?;
            let active =
                known.is_some_and(|known| inactive_since(&known, timeout, self.now_ms()).is_none());
            Ok(info(&shown(tenant, &row), active))
        });
        shows.buffered(FOUND_AT_ONCE).try_collect().await
    }

    /// What is known of the presence of a device of this birth.
    pub(super) async fn presence_of(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
    ) -> Result<Option<PresenceRecord>, Failed> {
        let known = self.door.registry.presence(tenant, std::slice::from_ref(device)).await?;
        Ok(known.into_iter().next().flatten().filter(|known| known.born == born))
    }

    async fn types(&self, who: &Integrator) -> Result<Reply, Failed> {
        let (mut kinds, mut after) = (BTreeSet::new(), None);
        loop {
            let (rows, next) = self.some(who.tenant, after).await?;
            for (_, record) in rows {
                kinds.insert(kind(&settings::read(&record.settings)).to_owned());
            }
            let Some(next) = next else { break };
            after = Some(next);
        }
        let shown = kinds.into_iter().map(|kind| {
            json!({ "tenantId": who.tenant_id(), "entityType": EntityType::Device, "type": kind })
        });
        Ok(Reply::json(&shown.collect::<Vec<_>>()))
    }
}

fn taken() -> Failed {
    let why = "Device credentials are already assigned to another device!";
    Failed::new(ErrorCode::BadRequestParams, why)
}

/// Whether a device is one of those that are looked for.
fn is_found(page: &PageQuery, (device, _): &Row, settings: &DeviceSettings) -> bool {
    let Some(text) = &page.text_search else { return true };
    let text = text.to_lowercase();
    let label = settings.labels.first().map_or("", String::as_str);
    [device.as_str(), kind(settings), label].iter().any(|said| said.to_lowercase().contains(&text))
}

/// Those of a list that are on a page.
pub(super) struct Window {
    rows: Vec<Row>,
    total: u64,
    /// How many are kept from which one on; a list that is sorted keeps all.
    kept: Option<(u64, u64)>,
}

impl Window {
    pub(super) fn of(page: &PageQuery) -> Self {
        let kept = page.sort_property.is_none().then(|| (page.offset(), page.size));
        Self { rows: Vec::new(), total: 0, kept }
    }

    /// Whether a device is of a list, by itself and its type.
    pub(super) fn wants(page: &PageQuery, row: &Row, fits: impl Fn(&Row, &str) -> bool) -> bool {
        let settings: DeviceSettings = settings::read(&row.1.settings);
        fits(row, kind(&settings)) && is_found(page, row, &settings)
    }

    /// Those on the page, and how many there are in all.
    pub(super) fn page(self, page: &PageQuery) -> (Vec<Row>, u64) {
        let total = self.total;
        (self.rows(page), total)
    }

    /// Takes in one of the list.
    pub(super) fn add(&mut self, row: Row) -> Result<(), Failed> {
        let at = self.total;
        self.total += 1;
        match self.kept {
            Some((from, many)) if at < from || at - from >= many => Ok(()),
            None if self.rows.len() >= SORTED_MAX => {
                let why = "sortProperty: a list of at most 100000 devices is sorted";
                Err(Failed::new(ErrorCode::BadRequestParams, why))
            }
            Some(_) | None => {
                self.rows.push(row);
                Ok(())
            }
        }
    }

    fn rows(mut self, page: &PageQuery) -> Vec<Row> {
        let Some(property) = page.sort_property.as_deref() else { return self.rows };
        let settings = |row: &Row| settings::read::<DeviceSettings>(&row.1.settings);
        match property {
            "createdTime" => self.rows.sort_by_key(|(_, record)| record.created),
            "type" | "deviceProfileName" => {
                self.rows.sort_by_cached_key(|row| kind(&settings(row)).to_owned());
            }
            "label" => self.rows.sort_by_cached_key(|row| settings(row).labels.first().cloned()),
            _ => self.rows.sort_by(|a, b| a.0.cmp(&b.0)),
        }
        if page.descending {
            self.rows.reverse();
        }
        let (from, many) = (page.offset(), page.size);
        let at = |count| usize::try_from(count).unwrap_or(usize::MAX);
        self.rows.into_iter().skip(at(from)).take(at(many)).collect()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;

    use super::*;

    fn device(json: Value) -> Device {
        serde_json::from_value(json).unwrap()
    }

    fn row(name: &str, settings: &DeviceSettings) -> Row {
        let record = DeviceRecord {
            born: 3,
            version: 4,
            enabled: true,
            created: UnixMillis(5),
            updated: UnixMillis(6),
            credentials: Vec::new(),
            settings: settings::written(settings),
        };
        (Text::from(name), record)
    }

    #[test]
    fn a_device_comes_back_as_it_was_written() {
        let said = device(json!({
            "name": "Dev A", "type": "pump", "label": "roof",
            "additionalInfo": { "gateway": true, "description": "d" },
        }));
        let settings = changed(DeviceSettings::default(), &said);
        assert_eq!((settings.class, settings.kind.as_deref()), (Class::Gateway, Some("pump")));
        let back = shown(TenantId(7), &row("Dev A", &settings));
        assert_eq!(
            (&back.name, &back.device_type, &back.label),
            (&said.name, &said.device_type, &said.label)
        );
        assert_eq!(back.additional_info, said.additional_info);
        assert_eq!(back.others["version"], json!(4));
        // What it is shown as is what it is afterwards.
        assert_eq!(changed(settings.clone(), &back), settings);
    }

    #[test]
    fn a_label_takes_the_place_of_the_one_that_is_shown() {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let settings = DeviceSettings { labels: labels(&["a", "b"]), ..DeviceSettings::default() };
        let after = |label: Value| {
            changed(settings.clone(), &device(json!({ "name": "d", "label": label }))).labels
        };
        assert_eq!(after(json!("a")), labels(&["a", "b"]));
        assert_eq!(after(json!("c")), labels(&["b", "c"]));
        assert_eq!(after(Value::Null), labels(&["b"]));
    }

    #[test]
    fn a_page_is_cut_out_of_a_list() {
        let rows = || ["b", "c", "a"].map(|name| row(name, &DeviceSettings::default()));
        let names = |sort: Option<&str>, descending, page| {
            let sort_property = sort.map(str::to_owned);
            let page = PageQuery { size: 2, page, text_search: None, sort_property, descending };
            let mut window = Window::of(&page);
            rows().into_iter().for_each(|row| window.add(row).unwrap());
            assert_eq!(window.total, 3);
            window.rows(&page).iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None, false, 0), ["b", "c"]);
        assert_eq!(names(None, false, 1), ["a"]);
        assert_eq!(names(None, false, 2), Vec::<String>::new());
        assert_eq!(names(Some("name"), false, 0), ["a", "b"]);
        assert_eq!(names(Some("name"), true, 1), ["a"]);
    }

    #[test]
    fn names_that_are_no_devices_are_refused() {
        let fits = |text: &str| name(&device(json!({ "name": text }))).is_ok();
        assert!(fits("Dev A") && fits("ü") && fits(&"n".repeat(160)));
        for wrong in ["", "  ", "~root", "a\u{7}", &"n".repeat(161)] {
            assert!(!fits(wrong), "{wrong:?}");
        }
    }
}
