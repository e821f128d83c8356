//! Last events, as integrators read them.

use moorline_core::{Text, UnixMillis};
use moorline_dialects::watson::{
    identity::DeviceName,
    rest::{Method, error::Error, kept::KeptEvent, request::CacheSettings, response::LastEvent},
};

use super::{Reply, Rest, Who, Wrong};
use crate::door::device_name;

fn shown(name: &DeviceName, event: &Text, kept: &KeptEvent) -> LastEvent {
    LastEvent::new(name, event.as_str(), kept.format.as_str(), &kept.payload, kept.at)
}

impl Rest {
    pub(super) async fn cache_settings(
        &self,
        who: &Who,
        (method, success): (Method, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let door = &self.judge.door;
        if method == Method::Get {
            return Ok(Reply::json(success, &door.cache_settings(who.tenant).await?));
        }
        let settings = CacheSettings::read(body)?;
        door.set_cache(who.tenant, settings).await?;
        Ok(Reply::json(success, &settings))
    }

    /// From when on events are shown.
    async fn cached_since(&self, who: &Who) -> Result<UnixMillis, Wrong> {
        let settings = self.judge.door.cache_settings(who.tenant).await?;
        if !settings.enabled {
            return Err(Error::CacheDisabled.into());
        }
        Ok(self.judge.door.shown_since(settings))
    }

    pub(super) async fn last_event(
        &self,
        who: &Who,
        name: &DeviceName,
        event: &Text,
    ) -> Result<Reply, Wrong> {
        let since = self.cached_since(who).await?;
        let (door, device) = (&self.judge.door, device_name(name));
        let record = door.registry.device(who.tenant, &device).await?.ok_or(Error::NotFound)?;
        let found = door.last_event(who.tenant, (&device, &record), event).await?;
        let found = found.filter(|kept| kept.at > since).ok_or(Error::NotFound)?;
        Ok(Reply::json(200, &shown(name, event, &found)))
    }

    pub(super) async fn last_events(&self, who: &Who, name: &DeviceName) -> Result<Reply, Wrong> {
        let since = self.cached_since(who).await?;
        let (door, device) = (&self.judge.door, device_name(name));
        let record = door.registry.device(who.tenant, &device).await?.ok_or(Error::NotFound)?;
        let found = door.last_events(who.tenant, (&device, &record)).await?;
        let found = found.iter().filter(|(_, kept)| kept.at > since);
        let all: Vec<LastEvent> = found.map(|(event, kept)| shown(name, event, kept)).collect();
        Ok(Reply::json(200, &all))
    }
}
