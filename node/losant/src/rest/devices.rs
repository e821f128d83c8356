//! Devices: made, changed, found and listed; and commands to several.

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use moorline_core::{UnixMillis, calendar::rfc3339};
use moorline_dialects::losant::{
    access::Tag,
    command::Command,
    device::{self, Change, Shown},
    id::{ID_BYTES, Id},
    meant::{Meant, Subject},
    presence::unknown,
    rest::{
        Error, Kind, Method,
        list::{DEVICES, Shape},
    },
};
use moorline_machine::registry::{DEVICE_SETTINGS_BYTES_MAX, DeleteDevice, PutDevice};
use moorline_service::registry::{
    door::By,
    settings::{self, Class, DeviceSettings},
};
use serde_json::Value;
use tokio::task::yield_now;

use super::{About, Http, Reply, TRIES_MAX, of_command, of_registry};
use crate::{device::Device, door::Work, pass::Known};

/// Devices that are read at once.
const PAGE: usize = 1_000;
/// Devices that one request looks through; who has more is told.
const SCANNED_MAX: usize = 100_000;
/// Devices that are looked at before anything else has its turn.
const LOOKED_AT_ONCE: usize = 16;
/// Devices of one list whose connections are asked for at a time.
const ASKED_AT_ONCE: usize = 16;
/// Devices that a command reaches at a time.
const TOLD_AT_ONCE: usize = 16;

impl Http {
    fn shown(&self, about: &About<'_>, known: &Known, connection: &Value) -> Value {
        known.about.shown(&Shown {
            id: &known.id,
            application: &about.application,
            created: known.record.created,
            updated: known.record.updated,
            connection,
        })
    }

    async fn shown_whole(&self, about: &About<'_>, known: &Known) -> Result<Value, Error> {
        let device = Device::new(about.tenant, &about.application, known, By::Http);
        let connection = self.door.connection_info(&device).await.map_err(of_registry)?;
        Ok(self.shown(about, known, &connection))
    }

    /// The same of a device that was found before; [`None`] if it is gone meanwhile, or another's.
    async fn shown_again(&self, about: &About<'_>, id: &Id) -> Result<Option<Value>, Error> {
        let known = self.door.known(about.tenant, id).await.map_err(of_registry)?;
        match known.filter(|known| about.who.may_have(known).is_ok()) {
            Some(known) => self.shown_whole(about, &known).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn one_device(
        &self,
        about: &About<'_>,
        id: &Id,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let known = self.found(about, id).await?;
        match about.method {
            Method::Get => Reply::ok(self.shown_whole(about, &known).await?),
            Method::Patch => self.change_device(about, known, body).await,
            Method::Delete => {
                let (tenant, device) = (about.tenant, id.text().clone());
                let delete = DeleteDevice { tenant, device, if_version: None };
                self.door.registry.delete_device(delete).await.map_err(of_registry)?;
                Reply::success()
            }
            Method::Post => Err(Kind::NotFound.into()),
        }
    }

    pub(super) async fn create_device(
        &self,
        about: &About<'_>,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let described = Change::read(body)?.made(device::About::default())?;
        let id = Id::of(rand::random::<[u8; ID_BYTES]>());
        let settings = described_in(DeviceSettings::default(), &described);
        self.put(about, &id, (settings, Vec::new(), true), Some(0)).await?;
        let known = self.found(about, &id).await?;
        Ok(Reply::Json(201, self.shown(about, &known, &unknown())))
    }

    async fn change_device(
        &self,
        about: &About<'_>,
        mut known: Known,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let change = Change::read(body)?;
        for _ in 0..TRIES_MAX {
            let described = change.clone().made(known.about.clone())?;
            let settings = described_in(known.settings.clone(), &described);
            let (credentials, enabled) = (known.record.credentials.clone(), known.record.enabled);
            let version = Some(known.record.version);
            let id = known.id.clone();
            match self.put(about, &id, (settings, credentials, enabled), version).await {
                Ok(()) => {
                    let known = self.found(about, &id).await?;
                    return Reply::ok(self.shown_whole(about, &known).await?);
                }
                Err(error) if error.kind == Kind::Conflict => {
                    known = self.found(about, &id).await?
                }
                Err(error) => return Err(error),
            }
        }
        Err(Kind::Conflict.into())
    }

    async fn put(
        &self,
        about: &About<'_>,
        id: &Id,
        (settings, credentials, enabled): (
            DeviceSettings,
            Vec<moorline_machine::registry::Credential>,
            bool,
        ),
        if_version: Option<u64>,
    ) -> Result<(), Error> {
        let settings = settings::written(&settings);
        if settings.len() > DEVICE_SETTINGS_BYTES_MAX {
            let why = format!("a device is described in {DEVICE_SETTINGS_BYTES_MAX} bytes");
            return Err(Error::new(Kind::Validation, why));
        }
        let (tenant, device) = (about.tenant, id.text().clone());
        let devices_max = self.door.registry.settings(tenant).devices_per_shard_max;
        let put =
            PutDevice { tenant, device, enabled, credentials, settings, if_version, devices_max };
        self.door.registry.put_device(put).await.map(drop).map_err(of_registry)
    }

    /// Looks through all devices of an application, and takes those that are wanted. At most [`PAGE`] of the others are held.
    async fn scan(
        &self,
        about: &About<'_>,
        wanted: impl Fn(&Known) -> bool,
        take: impl FnMut(Known),
    ) -> Result<(), Error> {
        if let Some(own) = about.who.alone() {
            Some(own).filter(|own| wanted(own)).cloned().into_iter().for_each(take);
            return Ok(());
        }
        let place = self.door.may_work(about.tenant, Work::Scan);
        let _place = place.ok_or(Kind::TooManyRequests)?;
        let (mut take, mut after, mut scanned) = (take, None, 0);
        loop {
            let page = self.door.registry.devices(about.tenant, after, PAGE).await;
            let page = page.map_err(of_registry)?;
            scanned += page.devices.len();
            for (at, (name, record)) in page.devices.into_iter().enumerate() {
                // A query may compare with much, and others wait for this thread.
                if at % LOOKED_AT_ONCE == 0 {
                    yield_now().await;
                }
                let known = Id::parse(name.as_bytes()).map(|id| Known::new(&id, record));
                let may = |known: &Known| about.who.may_have(known).is_ok() && wanted(known);
                known.filter(may).into_iter().for_each(&mut take);
            }
            match page.next {
                None => return Ok(()),
                Some(_) if scanned >= SCANNED_MAX => {
                    let why = format!("more than {SCANNED_MAX} devices: name them");
                    return Err(Error::new(Kind::Validation, why));
                }
                next => after = next,
            }
        }
    }

    pub(super) async fn list_devices(&self, about: &About<'_>) -> Result<Reply, Error> {
        let query = about.query;
        let mut shape = Shape::of(query, &DEVICES)?;
        if query.meant.is_some() {
            shape = shape.unfiltered();
        }
        let wanted = |known: &Known| match &query.meant {
            Some(meant) => meant.finds(&subject(known)),
            None => {
                let class = known.about.class.name();
                let has = |wanted: &Tag| known.about.tags.iter().any(|tag| wanted.is_met_by(tag));
                query.class.as_ref().is_none_or(|wanted| wanted == class)
                    && query.tags.iter().all(has)
                    && shape.wants(|_| &known.about.name)
            }
        };
        // Their names alone: those of the page are read again, and what they are like then is shown.
        let mut listed = shape.gathered();
        let take = |known: Known| {
            let Known { id, record, about, .. } = known;
            listed.push(id, |id, field| match field {
                "name" => about.name.clone(),
                "creationDate" => rfc3339(record.created),
                "lastUpdated" => rfc3339(record.updated),
                _ => id.to_string(),
            });
        };
        self.scan(about, wanted, take).await?;
        let page = listed.page();
        let shown: Vec<_> = page.items.iter().map(|id| self.shown_again(about, id)).collect();
        let items = stream::iter(shown).buffered(ASKED_AT_ONCE);
        let items: Vec<Option<Value>> = items.try_collect().await?;
        let items: Vec<Value> = items.into_iter().flatten().collect();
        Reply::ok(shape.answer(about.application.as_str(), &items, page.total))
    }

    /// Devices that are meant, and that whoever asks may have: each once, in the order of their ids.
    pub(super) async fn those_meant(
        &self,
        about: &About<'_>,
        meant: &Meant,
    ) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for id in &meant.ids {
            let known = self.door.known(about.tenant, id).await.map_err(of_registry)?;
            all.extend(known.filter(|known| about.who.may_have(known).is_ok()));
        }
        if meant.searches() {
            let finds = |known: &Known| meant.finds(&subject(known));
            self.scan(about, finds, |known| all.push(known)).await?;
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        Ok(all)
    }

    pub(super) async fn command_many(
        &self,
        about: &About<'_>,
        body: &[u8],
    ) -> Result<Reply, Error> {
        self.limited(about.tenant, &about.who.name(), "command_to_many")?;
        let (command, meant) = Command::read_for_many(body)?;
        // Until all are told: they are held so long.
        let place = self.door.may_work(about.tenant, Work::Tell);
        let _place = place.ok_or(Kind::TooManyRequests)?;
        let all = self.those_meant(about, &meant).await?;
        let mut told = Vec::with_capacity(all.len());
        for some in all.chunks(TOLD_AT_ONCE) {
            let some: Vec<_> = some.iter().map(|known| self.tell(about, known, &command)).collect();
            told.extend(join_all(some).await);
        }
        of_all_told(told)?;
        Reply::success()
    }

    async fn tell(&self, about: &About<'_>, known: &Known, command: &Command) -> Result<(), Error> {
        self.limited(about.tenant, known.id.text(), "command")?;
        let device = Device::new(about.tenant, &about.application, known, By::Http);
        self.door.command(&device, known, command).await.map_err(of_command)
    }
}

/// What a command to several devices came to. One that is gone meanwhile was none of them.
fn of_all_told(told: Vec<Result<(), Error>>) -> Result<(), Error> {
    let all = told.len();
    let not_told = told.into_iter().filter_map(Result::err);
    let not_told: Vec<_> = not_told.filter(|error| error.kind != Kind::NotFound).collect();
    match not_told.first() {
        None => Ok(()),
        Some(Error { kind, message }) => {
            let count = not_told.len();
            Err(Error::new(*kind, format!("{count} of {all} devices were not told: {message}")))
        }
    }
}

/// What a query asks about.
fn subject(known: &Known) -> Subject<'_> {
    let ms = |at: UnixMillis| i64::try_from(at.0).unwrap_or(i64::MAX);
    let (created_ms, updated_ms) = (ms(known.record.created), ms(known.record.updated));
    Subject { id: &known.id, about: &known.about, created_ms, updated_ms }
}

/// Settings with a device's description in them.
fn described_in(mut settings: DeviceSettings, described: &device::About) -> DeviceSettings {
    described.write(&mut settings.metadata);
    let speaks = described.class.speaks_for_others();
    settings.class = if speaks { Class::Gateway } else { Class::Device };
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_told_is_counted_and_who_is_gone_is_not() {
        let no = |kind: Kind| Err(Error::from(kind));
        assert_eq!(of_all_told(vec![]), Ok(()));
        assert_eq!(of_all_told(vec![Ok(()), no(Kind::NotFound)]), Ok(()));
        let told = vec![no(Kind::NotFound), no(Kind::Unavailable), Ok(()), no(Kind::TooLarge)];
        let error = of_all_told(told).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.starts_with("2 of 4 devices"), "{}", error.message);
    }
}
