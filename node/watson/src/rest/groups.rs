//! Gateways' groups and roles. Each gateway has one group; which devices are in it stands with the devices.
//!
//! # Invariants
//!
//! - **A group goes by its gateway**, and there is no other.
//! - **Who leaves a group is heard of no more**: its gateway, if it is a standard one, is turned out then, and what it has subscribed to
//!   goes with its session.
//!
//! Checked by the cluster tests (`watson_gateways.rs`).

use futures_util::{StreamExt as _, stream};
use moorline_core::{TenantId, Text};
use moorline_dialects::watson::{
    about::About,
    identity::{Class, ClientId, DeviceName},
    rest::{
        GroupPath, Method,
        error::Error,
        query::Query,
        request::{self, DeviceUid},
        response::{
            Authorization, DeviceId, Meta, Page, Removed, ResourceGroup, Roles, bulk_status,
        },
    },
    topics::{Group, Role},
};
use moorline_machine::registry::DeviceRecord;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Reply, Rest, TRIES_MAX, Who, Wrong, devices::shown, states::client};
use crate::{
    door::{device_name, registered_as},
    gateway::about,
    managed::{DEVICES_AT_ONCE, Failed},
};

/// The status of all that succeeds here.
const OK: u16 = 200;

impl Rest {
    pub(super) async fn groups(
        &self,
        who: &Who,
        (method, path): (Method, GroupPath),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        match path {
            GroupPath::All => self.list_groups(who, query).await,
            GroupPath::One(group) => {
                self.gateway_of(who, &group).await?;
                Ok(Reply::json(OK, &ResourceGroup::of(&group)))
            }
            GroupPath::Devices(group) => {
                let whole =
                    |name: &DeviceName, record: &DeviceRecord| shown(&who.org, name, record, None);
                self.members(who, &group, query, whole).await
            }
            GroupPath::Ids(group) => {
                let id = |name: &DeviceName, _: &DeviceRecord| {
                    let (type_id, device_id) = (name.kind.as_str(), name.id.as_str());
                    json!(DeviceId { type_id, device_id })
                };
                self.members(who, &group, query, id).await
            }
            GroupPath::Add(group) => {
                self.regroup(who, &group, body, |about, group| {
                    about.groups.contains(group) || about.join(group)
                })
                .await
            }
            GroupPath::Remove(group) => {
                let left = self.regroup(who, &group, body, |about, group| {
                    about.groups.remove(group);
                    true
                });
                let left = left.await?;
                // What it has subscribed to before goes with its session, also of those that an earlier try took out.
                self.change_bounds(who, &group.gateway, |_| true).await?;
                Ok(left)
            }
            GroupPath::Authorization(asked) => {
                let record = self.named(who, &asked).await?;
                let about = about(&record.settings);
                let shown = Authorization::of(&asked, &about, record.enabled);
                let results = vec![shown.ok_or(Error::NotFound)?];
                let meta = Meta { total_rows: Some(1) };
                Ok(Reply::json(OK, &Page { results, bookmark: None, meta }))
            }
            GroupPath::Roles(asked) if method == Method::Put => {
                self.set_role(who, &asked, body).await
            }
            GroupPath::Roles(asked) => {
                let record = self.named(who, &asked).await?;
                Ok(Reply::json(OK, &roles(&asked, about(&record.settings).role)?))
            }
        }
    }

    /// The row of a device or gateway of this client id.
    async fn named(&self, who: &Who, asked: &ClientId) -> Result<DeviceRecord, Wrong> {
        let name = asked.device().filter(|_| asked.org == who.org).ok_or(Error::NotFound)?;
        let found = self.judge.door.registry.device(who.tenant, &device_name(name)).await?;
        let found = found.filter(|record| registered_as(asked, &record.settings));
        Ok(found.ok_or(Error::NotFound)?)
    }

    /// A group is there if its gateway is.
    async fn gateway_of(&self, who: &Who, group: &Group) -> Result<DeviceRecord, Wrong> {
        let Group { org, gateway } = group.clone();
        let gateway = moorline_dialects::watson::identity::Who::Gateway(gateway);
        self.named(who, &ClientId { org, who: gateway }).await
    }

    /// Those of an organisation of whom there is something to show, some at a time.
    async fn each_shown<T: Serialize>(
        &self,
        who: &Who,
        query: &Query,
        shown: impl Fn(&DeviceName, &DeviceRecord) -> Option<T>,
    ) -> Result<Reply, Wrong> {
        let (mut results, limit) = (Vec::new(), query.limit as usize);
        let bookmark = self
            .each(who.tenant, query, |name, record| {
                results.extend(shown(name, record));
                results.len() >= limit
            })
            .await?;
        Ok(Reply::json(OK, &Page { results, bookmark, meta: Meta::default() }))
    }

    async fn list_groups(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let group = |name: &DeviceName, record: &DeviceRecord| {
            let is_gateway = client(&who.org, name, record).class() == Class::Gateway;
            let group = || Group { org: who.org.clone(), gateway: name.clone() };
            is_gateway.then(|| ResourceGroup::of(&group()))
        };
        self.each_shown(who, query, group).await
    }

    async fn members(
        &self,
        who: &Who,
        group: &Group,
        query: &Query,
        shown: impl Fn(&DeviceName, &DeviceRecord) -> Value,
    ) -> Result<Reply, Wrong> {
        self.gateway_of(who, group).await?;
        let group = group.name();
        let member = |name: &DeviceName, record: &DeviceRecord| {
            let is_in_it = about(&record.settings).groups.contains(&group);
            is_in_it.then(|| shown(name, record))
        };
        self.each_shown(who, query, member).await
    }

    /// Puts devices into a group, or takes them out: each is done or not for itself.
    async fn regroup(
        &self,
        who: &Who,
        group: &Group,
        body: &[u8],
        change: impl Fn(&mut About, &str) -> bool + Copy,
    ) -> Result<Reply, Wrong> {
        self.gateway_of(who, group).await?;
        let (all, name) = (DeviceUid::read_all(body)?, group.name());
        let doing = stream::iter(all).map(|uid| {
            let group = &name;
            async move {
                let done = match uid.name() {
                    Some(device) => {
                        let changing =
                            self.change_about(who.tenant, &device, |about| change(about, group));
                        Box::pin(changing).await.unwrap_or(false)
                    }
                    None => false,
                };
                (done, uid)
            }
        });
        let parts: Vec<(bool, DeviceUid)> = doing.buffered(DEVICES_AT_ONCE).collect().await;
        let status = bulk_status(OK, parts.iter().map(|(done, _)| *done));
        let shown = parts.iter().map(|(success, uid)| {
            let (type_id, device_id) = uid.parts();
            json!(Removed { type_id, device_id, success: *success })
        });
        Ok(Reply::json(status, &shown.collect::<Vec<Value>>()))
    }

    async fn set_role(&self, who: &Who, asked: &ClientId, body: &[u8]) -> Result<Reply, Wrong> {
        self.named(who, asked).await?;
        let device = gateway(asked)?;
        let group = Group { org: asked.org.clone(), gateway: device.clone() };
        let role = request::role(body, &group.name())?;
        self.change_bounds(who, device, |about| std::mem::replace(&mut about.role, role) != role)
            .await?;
        Ok(Reply::json(OK, &roles(asked, role)?))
    }

    /// Changes what a gateway may. If that is something else now it is turned out, and comes anew to a session that is empty.
    async fn change_bounds(
        &self,
        who: &Who,
        gateway: &DeviceName,
        change: impl Fn(&mut About) -> bool,
    ) -> Result<(), Wrong> {
        let now = self.judge.door.clock.wall();
        let changing = self.change_about(who.tenant, gateway, |about| {
            let is_changed = change(about);
            if is_changed {
                about.change_bounds(now);
            }
            is_changed
        });
        changing.await.map(drop)
    }

    /// Changes what a registration keeps; `false` if the change said that it is none to be made.
    async fn change_about(
        &self,
        tenant: TenantId,
        device: &DeviceName,
        change: impl Fn(&mut About) -> bool,
    ) -> Result<bool, Wrong> {
        for _ in 0..TRIES_MAX {
            let loaded = self.manager.load(tenant, device).await?;
            let mut about = loaded.about;
            if !change(&mut about) {
                return Ok(false);
            }
            let (name, row, settings): (&Text, _, _) = (&loaded.name, &loaded.row, loaded.settings);
            match self.manager.register(tenant, name, row, settings, &about).await {
                Err(Failed::Conflict) => {}
                put => return Ok(put.map(|()| true)?),
            }
        }
        Err(Error::Conflict.into())
    }
}

/// Only gateways have roles.
fn gateway(asked: &ClientId) -> Result<&DeviceName, Error> {
    let is_gateway = asked.class() == Class::Gateway;
    let invalid = || Error::Invalid(vec!["only a gateway has a role".to_owned()]);
    asked.device().filter(|_| is_gateway).ok_or_else(invalid)
}

fn roles(asked: &ClientId, role: Role) -> Result<Roles, Error> {
    let name = asked.device().ok_or(Error::NotFound)?;
    let group = Group { org: asked.org.clone(), gateway: name.clone() };
    Ok(Roles::of((asked.class() == Class::Gateway).then_some((role, &group))))
}
