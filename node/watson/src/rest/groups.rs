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
        Method, Resource,
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
use serde_json::{Value, json};

use super::{Reply, Rest, TRIES_MAX, Who, Wrong, devices::shown, states::client};
use crate::{
    door::{device_name, registered_as},
    gateway::about,
    managed::{DEVICES_AT_ONCE, Failed},
};

impl Rest {
    pub(super) async fn groups(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        match (method, resource) {
            (_, Resource::Groups) => self.list_groups(who, query).await,
            (_, Resource::Group(group)) => {
                self.gateway_of(who, &group).await?;
                Ok(Reply::json(success, &ResourceGroup::of(&group)))
            }
            (_, Resource::GroupDevices(group)) => {
                let whole =
                    |name: &DeviceName, record: &DeviceRecord| shown(&who.org, name, record, None);
                self.members(who, &group, query, whole).await
            }
            (_, Resource::GroupIds(group)) => {
                let id = |name: &DeviceName, _: &DeviceRecord| {
                    let (type_id, device_id) = (name.kind.as_str(), name.id.as_str());
                    json!(DeviceId { type_id, device_id })
                };
                self.members(who, &group, query, id).await
            }
            (_, Resource::GroupAdd(group)) => {
                self.regroup(who, &group, success, body, |about, group| {
                    about.groups.contains(group) || about.join(group)
                })
                .await
            }
            (_, Resource::GroupRemove(group)) => {
                let left = self.regroup(who, &group, success, body, |about, group| {
                    about.groups.remove(group);
                    true
                });
                let left = left.await?;
                // What it has subscribed to before goes with its session, also of those that an earlier try took out.
                self.change_bounds(who, &group.gateway, |_| true).await?;
                Ok(left)
            }
            (_, Resource::Authorization(asked)) => {
                let record = self.named(who, &asked).await?;
                let about = about(&record.settings);
                let shown = Authorization::of(&asked, &about, record.enabled);
                let results = vec![shown.ok_or(Error::NotFound)?];
                let meta = Meta { total_rows: Some(1) };
                Ok(Reply::json(success, &Page { results, bookmark: None, meta }))
            }
            (Method::Put, Resource::Roles(asked)) => {
                self.set_role(who, &asked, success, body).await
            }
            (_, Resource::Roles(asked)) => {
                let record = self.named(who, &asked).await?;
                Ok(Reply::json(success, &roles(&asked, about(&record.settings).role)?))
            }
            (_, _) => Err(Error::Method.into()),
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

    async fn list_groups(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let (mut results, limit) = (Vec::new(), query.limit as usize);
        let bookmark = self
            .each(who.tenant, query, |name, record| {
                if client(&who.org, name, record).class() == Class::Gateway {
                    let group = Group { org: who.org.clone(), gateway: name.clone() };
                    results.push(ResourceGroup::of(&group));
                }
                results.len() >= limit
            })
            .await?;
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    async fn members(
        &self,
        who: &Who,
        group: &Group,
        query: &Query,
        shown: impl Fn(&DeviceName, &DeviceRecord) -> Value,
    ) -> Result<Reply, Wrong> {
        self.gateway_of(who, group).await?;
        let (mut results, limit, group) = (Vec::new(), query.limit as usize, group.name());
        let bookmark = self
            .each(who.tenant, query, |name, record| {
                if about(&record.settings).groups.contains(&group) {
                    results.push(shown(name, record));
                }
                results.len() >= limit
            })
            .await?;
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    /// Puts devices into a group, or takes them out: each is done or not for itself.
    async fn regroup(
        &self,
        who: &Who,
        group: &Group,
        success: u16,
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
        let status = bulk_status(success, parts.iter().map(|(done, _)| *done));
        let shown = parts.iter().map(|(success, uid)| {
            let (type_id, device_id) = uid.parts();
            json!(Removed { type_id, device_id, success: *success })
        });
        Ok(Reply::json(status, &shown.collect::<Vec<Value>>()))
    }

    async fn set_role(
        &self,
        who: &Who,
        asked: &ClientId,
        success: u16,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        self.named(who, asked).await?;
        let device = gateway(asked)?;
        let group = Group { org: asked.org.clone(), gateway: device.clone() };
        let role = request::role(body, &group.name())?;
        self.change_bounds(who, device, |about| std::mem::replace(&mut about.role, role) != role)
            .await?;
        Ok(Reply::json(success, &roles(asked, role)?))
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
