//! Which clients are connected, by what their shards know of their presence.

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
use crate::door::device_name;

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

fn state(client: &ClientId, known: Option<&PresenceRecord>) -> ConnectionState {
    let connected = known.is_some_and(|known| known.state == PresenceState::Connected);
    let since = known.and_then(|known| known.connected);
    ConnectionState::new(client, connected, since, known.and_then(|known| at(known.heard)))
}

fn fits(filter: &ConnectionFilter, known: Option<&PresenceRecord>) -> bool {
    let connected = known.is_some_and(|known| known.state == PresenceState::Connected);
    let since = known.and_then(|known| known.connected);
    filter.connected.is_none_or(|wanted| wanted == connected)
        && filter.after.is_none_or(|after| since.is_some_and(|since| since > after))
}

impl Rest {
    /// How devices and gateways stand. A page has as many as were looked at and fit; applications are not among them.
    pub(super) async fn states(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let filter = ConnectionFilter::of(query)?;
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
            fits(&filter, known.as_ref()).then(|| state(&client, known.as_ref()))
        });
        let results = results.collect();
        Ok(Reply::json(200, &Page::<ConnectionState> { results, bookmark, meta: Meta::default() }))
    }

    pub(super) async fn state(&self, who: &Who, asked: &ClientId) -> Result<Reply, Wrong> {
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
