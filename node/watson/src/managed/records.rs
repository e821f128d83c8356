//! What became of management requests: a document for each request, and a space with a document for each of its devices.
//!
//! # Invariants
//!
//! - **A request is known before a device hears of it**, and each device's part of it, too.
//! - **Bounded**: an organisation has as many requests as a space has room for; the oldest that are over make way.
//! - **A request ends**: what no device said by its deadline is over when somebody looks.
//!
//! Checked by the cluster tests (`watson_managed.rs`).

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_dialects::watson::{
    identity::DeviceName,
    management::{
        device::Event,
        kept,
        record::{DeviceRecord, Progress, Record, completed},
        task::{Outcome, RequestId},
    },
    rest::request::NewRequest,
};
use moorline_machine::{
    DocumentRefused,
    documents::{DocumentsPage, Expect, Space},
};
use moorline_service::registry::RegistryError;
use tokio::time::sleep;

use super::{Failed, Manager, TRIES_MAX, speak::CARRY_PAUSE};
use crate::door::{device_name, name_of};

/// An organisation's space for requests; behind a slash and an id, that for one's devices.
const REQUESTS: &str = "watson/request";
/// Devices of one request that are written or asked at once.
pub(crate) const DEVICES_AT_ONCE: usize = 32;
/// Documents that are read at once.
const PAGE: u16 = 500;
/// Old requests that make way at once.
const FORGOTTEN_AT_ONCE: u16 = 50;
/// How often a device is asked while its shard has no leader.
const ASK_TRIES_MAX: usize = 10;
/// Bits of an id behind its moment.
const RANDOM_BITS: u32 = 80;

/// A request that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: RequestId,
    pub(crate) asked: NewRequest,
    pub(crate) record: Record,
}

impl Made {
    /// As of now. Ids are in the order of time, so that lists are.
    pub(crate) fn new(asked: NewRequest, now: UnixMillis, random: u128) -> Self {
        let id =
            RequestId::new(u128::from(now.0) << RANDOM_BITS | random & ((1 << RANDOM_BITS) - 1));
        let deadline = UnixMillis(now.0.saturating_add(asked.timeout_s.saturating_mul(1_000)));
        let devices = u32::try_from(asked.devices.len()).expect("there are some thousands at most");
        let (action, parameters) = (asked.action.clone(), asked.parameters.clone());
        let record =
            Record { action, parameters, initiated: now, deadline, devices, completed: None };
        Self { id, asked, record }
    }
}

/// A device of a request.
pub(crate) type Part = (DeviceName, DeviceRecord);

fn requests(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, REQUESTS)
}

fn parts(tenant: TenantId, id: RequestId) -> Space {
    Space::of_tenant(tenant, &format!("{REQUESTS}/{id}"))
}

/// Behind which id the next page begins, by what was on this one, whether or not it could be read.
fn next(page: &DocumentsPage) -> Option<Text> {
    page.documents.last().filter(|_| page.more).map(|last| last.id.clone())
}

fn key(id: RequestId) -> Text {
    Text::from(id.to_string())
}

/// What a request's record says of a device that could not be asked.
fn why(failed: &Failed) -> &'static str {
    match failed {
        Failed::Gone => "The device is not registered",
        Failed::Conflict => "Other changes of the device came between",
        Failed::TooLarge => "There is no room for the request",
        Failed::Unreadable => "The state of the device can't be read",
        Failed::Registry(_) => "The cluster did not answer in time: the device may do it",
    }
}

impl Manager {
    // ---- making

    /// Keeps a request and asks its devices. Done: all of them have been asked, or it is known why not.
    pub(crate) async fn initiate(&self, tenant: TenantId, made: Made) -> Result<(), Failed> {
        self.keep(tenant, &made).await?;
        let (id, now) = (made.id, made.record.initiated);
        let (space, pending) = (parts(tenant, id), kept::write(&DeviceRecord::pending(now)));
        let made = Arc::new(made);
        stream::iter(0..made.asked.devices.len())
            .map(|at| {
                let (space, pending, made) = (space.clone(), pending.clone(), Arc::clone(&made));
                async move {
                    let name = device_name(&made.asked.devices[at]);
                    let put = self.door.registry.put_document(&space, &name, pending, Expect::Any);
                    put.await.map(drop).map_err(Failed::from)
                }
            })
            .buffer_unordered(DEVICES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        stream::iter(0..made.asked.devices.len())
            .for_each_concurrent(DEVICES_AT_ONCE, |at| {
                let made = Arc::clone(&made);
                async move { Box::pin(self.ask(tenant, &made, &made.asked.devices[at])).await }
            })
            .await;
        Ok(())
    }

    /// Keeps a request's record; the oldest make way for it.
    async fn keep(&self, tenant: TenantId, made: &Made) -> Result<(), Failed> {
        let (space, id, body) = (requests(tenant), key(made.id), kept::write(&made.record));
        for _ in 0..TRIES_MAX {
            let registry = &self.door.registry;
            let put = registry.put_document(&space, &id, body.clone(), Expect::Absent);
            match put.await {
                Err(RegistryError::Documents(DocumentRefused::Full)) => {
                    if self.forget_oldest(tenant).await? == 0 {
                        break;
                    }
                }
                put => return put.map(drop).map_err(Failed::from),
            }
        }
        Err(Failed::TooLarge)
    }

    /// Forgets the oldest requests that are over; says how many.
    async fn forget_oldest(&self, tenant: TenantId) -> Result<usize, Failed> {
        let now = self.door.clock.wall();
        let (mut after, mut forgotten) = (None, 0);
        loop {
            let (page, next) = self.requests(tenant, after.as_ref(), FORGOTTEN_AT_ONCE).await?;
            for (id, record) in &page {
                if record.completed.is_some() || record.deadline <= now {
                    self.forget(tenant, *id).await?;
                    forgotten += 1;
                }
            }
            after = next;
            if forgotten > 0 || after.is_none() {
                return Ok(forgotten);
            }
        }
    }

    async fn ask(&self, tenant: TenantId, made: &Made, device: &DeviceName) {
        let mut tries = 0;
        let failed = loop {
            let left = made.record.deadline.0.saturating_sub(self.door.clock.wall().0);
            let event = Event::Asked {
                id: made.id,
                action: &made.asked.action,
                parameters: &made.asked.parameters,
                timeout_ms: left,
                overrides: made.asked.overrides,
            };
            tries += 1;
            // Asked again, the same request is the same.
            match Box::pin(self.happens(tenant, device, event)).await {
                Ok(_) => return,
                Err(Failed::Registry(_)) if tries < ASK_TRIES_MAX => sleep(CARRY_PAUSE).await,
                Err(failed) => break failed,
            }
        };
        let over = Progress::Ended(Outcome::failed(None, why(&failed)));
        let noted = self.note(tenant, made.id, device, &over, self.door.clock.wall()).await;
        if noted.is_err() {
            self.door.metrics.dropped.with_label_values(&["unnoted"]).inc();
        }
    }

    // ---- noting

    /// Notes how a request stands at a device. What is not there any more is not noted.
    pub(crate) async fn note(
        &self,
        tenant: TenantId,
        id: RequestId,
        device: &DeviceName,
        progress: &Progress,
        at: UnixMillis,
    ) -> Result<(), Failed> {
        let (space, name, registry) = (parts(tenant, id), device_name(device), &self.door.registry);
        for _ in 0..TRIES_MAX {
            let Some(found) = registry.document(&space, &name).await? else { return Ok(()) };
            let part: DeviceRecord = kept::read(&found.body)?;
            let Some(noted) = part.noted(progress, at) else { return Ok(()) };
            let (body, expect) = (kept::write(&noted), Expect::Version(found.version));
            match registry.put_document(&space, &name, body, expect).await.map_err(Failed::from) {
                Err(Failed::Conflict) => {}
                put => return put.map(drop),
            }
        }
        Err(Failed::Conflict)
    }

    // ---- reading

    /// A request's record, as it was written.
    pub(crate) async fn request(
        &self,
        tenant: TenantId,
        id: RequestId,
    ) -> Result<Option<(Record, u64)>, Failed> {
        let found = self.door.registry.document(&requests(tenant), &key(id)).await?;
        found.map(|found| Ok((kept::read(&found.body)?, found.version))).transpose()
    }

    /// A page of requests, the oldest first, and behind which id the next one begins. What a later node wrote is not in it.
    pub(crate) async fn requests(
        &self,
        tenant: TenantId,
        after: Option<&Text>,
        most: u16,
    ) -> Result<(Vec<(RequestId, Record)>, Option<Text>), Failed> {
        let page = self.door.registry.documents(&requests(tenant), after, most).await?;
        let read = page.documents.iter().filter_map(|found| {
            let id = RequestId::parse(found.id.as_str())?;
            Some((id, kept::read(&found.body).ok()?))
        });
        Ok((read.collect(), next(&page)))
    }

    /// The same of a request's devices.
    pub(crate) async fn parts(
        &self,
        tenant: TenantId,
        id: RequestId,
        after: Option<&Text>,
        most: u16,
    ) -> Result<(Vec<Part>, Option<Text>), Failed> {
        let page = self.door.registry.documents(&parts(tenant, id), after, most).await?;
        let read = page
            .documents
            .iter()
            .filter_map(|found| Some((name_of(&found.id)?, kept::read(&found.body).ok()?)));
        Ok((read.collect(), next(&page)))
    }

    /// A request's part at a device, as of now.
    pub(crate) async fn part(
        &self,
        tenant: TenantId,
        id: RequestId,
        device: &DeviceName,
    ) -> Result<Option<DeviceRecord>, Failed> {
        let read = || self.part_as_written(tenant, id, device);
        let Some(part) = read().await?.filter(|part| !part.has_ended()) else {
            return read().await;
        };
        self.look(tenant, id, device, part.at).await?;
        read().await
    }

    async fn part_as_written(
        &self,
        tenant: TenantId,
        id: RequestId,
        device: &DeviceName,
    ) -> Result<Option<DeviceRecord>, Failed> {
        let found = self.door.registry.document(&parts(tenant, id), &device_name(device)).await?;
        Ok(found.map(|found| kept::read(&found.body)).transpose()?)
    }

    /// Looks how a device stands that has not ended by all that is noted, and notes what time made of it.
    pub(crate) async fn look(
        &self,
        tenant: TenantId,
        id: RequestId,
        device: &DeviceName,
        since: UnixMillis,
    ) -> Result<(), Failed> {
        let seen = Box::pin(self.seen(tenant, device)).await;
        let now = self.door.clock.wall();
        let over = match seen {
            Ok(seen) if seen.kept.device.task.as_ref().is_some_and(|task| task.id == id) => {
                return Ok(());
            }
            Ok(_) => {
                let late = |(record, _): &(Record, u64)| record.deadline <= now;
                if !self.request(tenant, id).await?.as_ref().is_some_and(late) {
                    return Ok(());
                }
                Outcome::TimedOut
            }
            Err(gone @ Failed::Gone) => Outcome::failed(None, why(&gone)),
            Err(failed) => return Err(failed),
        };
        self.note(tenant, id, device, &Progress::Ended(over), now.max(since)).await
    }

    /// A request as of now: over if it is at all its devices.
    pub(crate) async fn looked(
        &self,
        tenant: TenantId,
        id: RequestId,
        (mut record, version): (Record, Option<u64>),
    ) -> Result<Record, Failed> {
        if record.completed.is_some() {
            return Ok(record);
        }
        let is_late = record.deadline <= self.door.clock.wall();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.parts(tenant, id, after.as_ref(), PAGE).await?;
            let open = page.iter().any(|(_, part)| !part.has_ended());
            if open && !is_late {
                return Ok(record);
            }
            let looked: Vec<DeviceRecord> = stream::iter(page)
                .map(|part| Box::pin(self.looked_part(tenant, id, part)))
                .buffer_unordered(DEVICES_AT_ONCE)
                .try_collect()
                .await?;
            all.extend(looked);
            after = next;
            if after.is_none() {
                break;
            }
        }
        // While it is being made, not all of its devices are there.
        let whole = all.len() >= usize::try_from(record.devices).unwrap_or(usize::MAX);
        record.completed = completed(&all).filter(|_| whole || is_late);
        if let (Some(_), Some(version)) = (record.completed, version) {
            let (body, expect) = (kept::write(&record), Expect::Version(version));
            let (space, id) = (requests(tenant), key(id));
            let put = self.door.registry.put_document(&space, &id, body, expect);
            // It is only remembered, so that nobody has to count again.
            drop(put.await);
        }
        Ok(record)
    }

    /// A part of a request as of now.
    async fn looked_part(
        &self,
        tenant: TenantId,
        id: RequestId,
        (device, part): Part,
    ) -> Result<DeviceRecord, Failed> {
        if part.has_ended() {
            return Ok(part);
        }
        let part = Box::pin(self.part(tenant, id, &device)).await?;
        part.ok_or(Failed::Gone)
    }

    // ---- ending

    /// Calls a request off, where it is not over.
    pub(crate) async fn call_off(&self, tenant: TenantId, id: RequestId) -> Result<(), Failed> {
        let mut after = None;
        loop {
            let (page, next) = self.parts(tenant, id, after.as_ref(), PAGE).await?;
            stream::iter(page)
                .map(|part| Box::pin(self.call_off_part(tenant, id, part)))
                .buffer_unordered(DEVICES_AT_ONCE)
                .try_collect::<()>()
                .await?;
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn call_off_part(
        &self,
        tenant: TenantId,
        id: RequestId,
        (device, part): Part,
    ) -> Result<(), Failed> {
        if part.has_ended() {
            return Ok(());
        }
        match Box::pin(self.happens(tenant, &device, Event::Called { off: id })).await {
            Ok(_) | Err(Failed::Gone) => {}
            Err(failed) => return Err(failed),
        }
        // One that nobody had asked yet has nothing to end.
        let over = Progress::Ended(Outcome::Cancelled);
        self.note(tenant, id, &device, &over, self.door.clock.wall()).await
    }

    /// Forgets a request. What its devices do for it goes on.
    pub(crate) async fn forget(&self, tenant: TenantId, id: RequestId) -> Result<(), Failed> {
        self.door.registry.delete_documents(&parts(tenant, id)).await?;
        let (space, id) = (requests(tenant), key(id));
        let gone = self.door.registry.delete_document(&space, &id, Expect::Any);
        gone.await.map(drop).map_err(Failed::from)
    }
}

#[cfg(test)]
mod tests {
    use moorline_machine::documents::Document;

    use super::*;

    #[test]
    fn pages_go_on_behind_what_can_not_be_read() {
        let unread = |id: &str| Document {
            id: Text::from(id),
            version: 1,
            changed: UnixMillis(0),
            body: b"of a later form".to_vec().into(),
        };
        let page = |more| DocumentsPage { documents: vec![unread("a"), unread("b")], more };
        assert_eq!(next(&page(true)), Some(Text::from("b")));
        assert_eq!(next(&page(false)), None);
        assert_eq!(next(&DocumentsPage { documents: Vec::new(), more: true }), None);
    }
}
