//! Which clients are connected: devices and gateways by what their shards know of their presence, applications by their sessions.

use moorline_core::{Text, UnixMillis};
use moorline_dialects::watson::{
    identity::{ClientId, DeviceName, Who as Client},
    rest::{
        error::Error,
        query::{ConnectionFilter, Query},
        response::{ConnectionState, Meta, Page},
    },
};
use moorline_machine::{
    presence::{PresenceRecord, PresenceState},
    registry::DeviceRecord,
};
use moorline_service::registry::settings::{self, Class, DeviceSettings};

use super::{Reply, Rest, Who, Wrong};
use crate::{apps::AppStanding, door::device_name};

/// What bookmarks among applications begin with. No device's name does.
const APPS: &str = "/";

/// What was never heard from has no moment.
fn at(moment: UnixMillis) -> Option<UnixMillis> {
    (moment.0 > 0).then_some(moment)
}

pub(super) fn client(org: &Text, name: &DeviceName, record: &DeviceRecord) -> ClientId {
    let who = match settings::read::<DeviceSettings>(&record.settings).class {
        Class::Device => Client::Device(name.clone()),
        Class::Gateway => Client::Gateway(name.clone()),
    };
    ClientId { org: org.clone(), who }
}

fn is_connected(known: Option<&PresenceRecord>) -> bool {
    known.is_some_and(|known| known.state == PresenceState::Connected)
}

fn state(client: &ClientId, known: Option<&PresenceRecord>) -> ConnectionState {
    let connected = is_connected(known);
    let since = known.and_then(|known| known.connected);
    ConnectionState::new(client, connected, since, known.and_then(|known| at(known.heard)))
}

fn fits(filter: &ConnectionFilter, connected: bool, since: Option<UnixMillis>) -> bool {
    filter.connected.is_none_or(|wanted| wanted == connected)
        && filter.after.is_none_or(|after| since.is_some_and(|since| since > after))
}

fn of_app(client: &ClientId, standing: AppStanding) -> ConnectionState {
    let AppStanding { connected, since, heard } = standing;
    ConnectionState::new(client, connected, Some(since), Some(heard))
}

impl Rest {
    /// How clients stand: devices and gateways, and behind the last of them applications. A page has as many as were looked at and fit.
    pub(super) async fn states(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let filter = ConnectionFilter::of(query)?;
        let behind = query.bookmark.as_deref().and_then(|bookmark| bookmark.strip_prefix(APPS));
        if let Some(behind) = behind {
            return self.app_states(who, &filter, query.limit, (Vec::new(), behind)).await;
        }
        let (mut found, limit) = (Vec::new(), query.limit as usize);
        let bookmark = self
            .each(who.tenant, query, |name, record| {
                let of_kind = filter.kind.as_ref().is_none_or(|kind| *kind == name.kind);
                if of_kind && filter.id.as_ref().is_none_or(|id| *id == name.id) {
                    found.push((name.clone(), record.clone()));
                }
                found.len() >= limit
            })
            .await?;
        let names: Vec<Text> = found.iter().map(|(name, _)| device_name(name)).collect();
        let known = self.judge.door.registry.presence(who.tenant, &names).await?;
        let results = found.iter().zip(known).filter_map(|((name, record), known)| {
            let known = known.filter(|known| known.born == record.born);
            let client = client(&who.org, name, record);
            let connected = is_connected(known.as_ref());
            let since = known.as_ref().and_then(|known| known.connected);
            fits(&filter, connected, since).then(|| state(&client, known.as_ref()))
        });
        let results: Vec<ConnectionState> = results.collect();
        // What a device's type or id is asked for means no application.
        let is_of_devices = filter.kind.is_some() || filter.id.is_some();
        if bookmark.is_none() && !is_of_devices {
            return self.app_states(who, &filter, query.limit, (results, "")).await;
        }
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    /// The page goes on with applications.
    async fn app_states(
        &self,
        who: &Who,
        filter: &ConnectionFilter,
        limit: u32,
        (mut results, behind): (Vec<ConnectionState>, &str),
    ) -> Result<Reply, Wrong> {
        let after = (!behind.is_empty()).then(|| Text::from(behind));
        let room = (limit as usize).saturating_sub(results.len());
        let most = u16::try_from(room).unwrap_or(u16::MAX);
        if most == 0 {
            let bookmark = Some(APPS.to_owned());
            return Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }));
        }
        let (apps, next) = self.judge.door.apps(who.tenant, after.as_ref(), most).await?;
        let fitting = apps.iter().filter(|(_, app)| fits(filter, app.connected, Some(app.since)));
        results.extend(fitting.map(|(client, app)| of_app(client, *app)));
        let bookmark = next.map(|next| format!("{APPS}{next}"));
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    pub(super) async fn state(&self, who: &Who, asked: &ClientId) -> Result<Reply, Wrong> {
        if asked.class().is_application() && asked.org == who.org {
            let app = self.judge.door.app(who.tenant, asked).await?.ok_or(Error::NotFound)?;
            return Ok(Reply::json(200, &of_app(asked, app)));
        }
        let name = asked.device().filter(|_| asked.org == who.org).ok_or(Error::NotFound)?;
        let (registry, device) = (&self.judge.door.registry, device_name(name));
        let record = registry.device(who.tenant, &device).await?.ok_or(Error::NotFound)?;
        if client(&who.org, name, &record) != *asked {
            return Err(Error::NotFound.into());
        }
        let known = registry.presence(who.tenant, &[device]).await?.into_iter().next().flatten();
        let known = known.filter(|known| known.born == record.born);
        Ok(Reply::json(200, &state(asked, known.as_ref())))
    }
}
