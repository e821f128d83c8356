//! Many devices at once: each is taken or refused for itself.

use futures_util::{StreamExt as _, stream};
use moorline_core::TenantId;
use moorline_dialects::watson::rest::{
    Resource,
    error::Error,
    query::Query,
    request::{DeviceUid, NewDevice, NewPart},
    response::{Added, Removed, bulk_status},
};
use serde_json::{Value, json};

use super::{Reply, Rest, Who, Wrong};
use crate::managed::DEVICES_AT_ONCE;

impl Rest {
    pub(super) async fn bulk(
        &self,
        who: &Who,
        (resource, success): (Resource, u16),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let parts: Vec<(bool, Value)> = if resource == Resource::BulkAdd {
            let parts = NewDevice::read_all(body, self.now())?;
            let adding = stream::iter(parts).map(|part| Box::pin(self.add(who, part)));
            adding.buffered(DEVICES_AT_ONCE).collect().await
        } else if resource == Resource::BulkRemove {
            let parts = DeviceUid::read_all(body)?;
            let removing =
                stream::iter(parts).map(|part| Box::pin(self.take_out(who.tenant, part)));
            removing.buffered(DEVICES_AT_ONCE).collect().await
        } else {
            return self.list(who, None, query).await;
        };
        let status = bulk_status(success, parts.iter().map(|(success, _)| *success));
        let shown: Vec<Value> = parts.into_iter().map(|(_, shown)| shown).collect();
        Ok(Reply::json(status, &shown))
    }

    async fn add(&self, who: &Who, ((type_id, device_id), read): NewPart) -> (bool, Value) {
        let made = match read {
            Ok(new) => self.create(who, new).await,
            Err(error) => Err(error.into()),
        };
        let (type_id, device_id) = (&*type_id, &*device_id);
        match made {
            Ok((_, _, token)) => {
                let auth_token = Some(&*token);
                let exception = None;
                (true, json!(Added { type_id, device_id, success: true, auth_token, exception }))
            }
            Err(Wrong(error)) => {
                let exception = Some(if let Error::Invalid(violations) = &error {
                    violations.join("; ")
                } else {
                    error.to_string()
                });
                let auth_token = None;
                (false, json!(Added { type_id, device_id, success: false, auth_token, exception }))
            }
        }
    }

    async fn take_out(&self, tenant: TenantId, part: DeviceUid) -> (bool, Value) {
        let (type_id, device_id) = part.parts();
        let success = match part.name() {
            Some(name) => {
                matches!(self.remove(tenant, &name).await, Ok(()) | Err(Wrong(Error::NotFound)))
            }
            // What can't be a name never was a device.
            None => true,
        };
        (success, json!(Removed { type_id, device_id, success }))
    }
}
