//! What is known of one device: where it is, what it reported, and how it is managed.

use moorline_core::Text;
use moorline_dialects::watson::{
    identity::DeviceName,
    management::{
        address::Upward,
        attributes::LogEntry,
        device::{Change, Event},
    },
    rest::{Method, Resource, error::Error, request, response},
};
use serde_json::json;

use super::{Reply, Rest, Who, Wrong};

impl Rest {
    pub(super) async fn managed(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        match (method, resource) {
            (Method::Get, Resource::Location(name)) => {
                let seen = manager.seen(tenant, &name).await?;
                let location = seen.kept.device.location.ok_or(Error::NotFound)?;
                Ok(Reply::json(success, &location))
            }
            (_, Resource::Location(name)) => {
                let location = request::location(body, self.now())?;
                let changed = Event::Changed(Change::Location(location.clone()));
                Box::pin(manager.happens(tenant, &name, changed)).await?;
                Ok(Reply::json(success, &location))
            }
            (_, Resource::Management(name)) => {
                let seen = manager.seen(tenant, &name).await?;
                let managed = response::managed(&seen.kept.device).ok_or(Error::NotFound)?;
                Ok(Reply::json(success, &managed))
            }
            (method, Resource::ErrorCodes(name)) => {
                self.error_codes(who, &name, (method, success), body).await
            }
            (method, Resource::Logs(name)) => self.logs(who, &name, (method, success), body).await,
            (Method::Get, Resource::Log(name, id)) => {
                let log = manager.log(tenant, &name).await?.log;
                let entry = log.iter().find(|entry| entry.id == id.as_str());
                Ok(Reply::json(success, entry.ok_or(Error::NotFound)?))
            }
            (_, Resource::Log(name, id)) => {
                self.delete_entry(who, &name, &id).await?;
                Ok(Reply::nothing(success))
            }
            (_, _) => Err(Error::Method.into()),
        }
    }

    async fn error_codes(
        &self,
        who: &Who,
        name: &DeviceName,
        (method, success): (Method, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let says = |address, payload: &str| {
            let payload = payload.to_owned();
            async move {
                let bundles = Default::default();
                let payload = payload.as_bytes();
                let said = Event::Said { address: &address, payload, bundles: &bundles };
                Box::pin(self.manager.happens(who.tenant, name, said)).await
            }
        };
        match method {
            Method::Get => {
                let seen = self.manager.seen(who.tenant, name).await?;
                Ok(Reply::json(success, &seen.kept.device.error_codes))
            }
            Method::Delete => {
                says(Upward::ClearErrorCodes, "{}").await?;
                Ok(Reply::nothing(success))
            }
            Method::Post | Method::Put => {
                let new = request::error_code(body, self.now())?;
                // As if the device had said so: nobody waits for an answer.
                let said =
                    json!({ "d": { "errorCode": new.error_code, "timestamp": new.timestamp } });
                let kept = says(Upward::AddErrorCode, &said.to_string()).await?;
                Ok(Reply::json(success, &kept.device.error_codes.front()))
            }
        }
    }

    async fn logs(
        &self,
        who: &Who,
        name: &DeviceName,
        (method, success): (Method, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        match method {
            Method::Get => Ok(Reply::json(success, &manager.log(tenant, name).await?.log)),
            Method::Delete => {
                let cleared = manager.logs(tenant, name, |mut log| {
                    log.log.clear();
                    (log, ())
                });
                cleared.await?;
                Ok(Reply::nothing(success))
            }
            Method::Post | Method::Put => {
                let now = self.now();
                let new = request::log_entry(body, now)?;
                let reported = manager.logs(tenant, name, |mut log| {
                    let entry = log.report_log_entry(now, new.clone()).then(|| log.log.front());
                    let entry: Option<LogEntry> = entry.flatten().cloned();
                    (log, entry)
                });
                // One that is larger than the whole log is gone at once.
                let entry = reported.await?.ok_or(Error::TooLarge)?;
                Ok(Reply::json(success, &entry))
            }
        }
    }

    async fn delete_entry(&self, who: &Who, name: &DeviceName, id: &Text) -> Result<(), Wrong> {
        let deleted = self.manager.logs(who.tenant, name, |mut log| {
            let before = log.log.len();
            log.log.retain(|entry| entry.id != id.as_str());
            let was_there = log.log.len() < before;
            (log, was_there)
        });
        if deleted.await? { Ok(()) } else { Err(Error::NotFound.into()) }
    }
}
