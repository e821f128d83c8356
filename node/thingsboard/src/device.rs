//! What a device asks, done: the same for all transports.
//!
//! What writes is on its way when the call returns, so that whoever calls in an order has it written in that order.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use moorline_core::{AttributeScope, Text};
use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Wanted},
    calls::{self, DEVICE_CALL_TIMEOUT_MS, DeviceCall},
    json::Json,
    limits::SessionLimits,
    mqtt::PACKET_BYTES_MAX,
    values::{self, Entries, Sample},
};
use moorline_machine::{
    events::EventKind,
    values::{
        ATTRIBUTES_PER_COMMAND_MAX, NewPoint, POINTS_PER_COMMAND_MAX, VALUES_PER_COMMAND_MAX,
    },
};
use moorline_service::registry::{
    AttributeWrite, NewEvent, OwnCall, Recording, RegistryError,
    door::{Guest, JSON},
};
use uuid::Uuid;

use crate::{
    convert::{entries, from_core, keys},
    door::Door,
    limits,
};

/// The channel of events that are telemetry.
const TELEMETRY: &str = "telemetry";
/// The channel of events that are attributes that a device reported.
const ATTRIBUTES: &str = "attributes";
/// The channel of events that are refusals for a limit.
const LIMITS: &str = "limits";
/// The channel of events that are calls of a device.
const CALLS: &str = "rpc";
/// How long a device's call waits for its answer.
pub(crate) const CALL_WAIT: Duration = Duration::from_millis(DEVICE_CALL_TIMEOUT_MS);

/// A device that was let in.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) door: Door,
    pub(crate) guest: Guest,
}

/// Shared attributes that a device is told of.
#[derive(Debug)]
pub(crate) struct News {
    /// Up to which version these are.
    pub(crate) version: u64,
    /// Up to which version the device was told by polls, if it ever asked.
    pub(crate) told: Option<u64>,
    pub(crate) changed: Changed,
}

impl News {
    /// Nothing but how far it is known.
    pub(crate) fn nothing(version: u64) -> Self {
        Self { version, told: None, changed: Changed::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changed.updated.is_empty() && self.changed.deleted.is_empty()
    }
}

impl Device {
    fn event(&self, kind: EventKind, channel: &'static str, body: Bytes) -> NewEvent {
        let (channel, by) = (Text::from(channel), self.guest.by as u8);
        NewEvent { born: Some(self.guest.born), kind, channel, content_type: JSON, body, by }
    }

    /// Keeps telemetry: latest values, history, and `body` as an event.
    pub(crate) fn telemetry(
        &self,
        samples: Vec<Sample>,
        body: Bytes,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let (tenant, device, born) = (self.guest.tenant, &self.guest.device, self.guest.born);
        let mut event = Some(self.event(EventKind::Datapoint, TELEMETRY, body));
        let writes: Vec<_> = in_commands(samples)
            .into_iter()
            .map(|points| {
                let recording = Recording { born, points, apart: false, event: event.take() };
                self.door.registry.record(tenant, device, recording)
            })
            .collect();
        async move { try_join_all(writes).await.map(drop) }
    }

    /// Keeps attributes that the device reported, and `body` as an event.
    pub(crate) fn attributes(
        &self,
        reported: Entries,
        body: Bytes,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        self.attributes_in(AttributeScope::Client, reported, body)
    }

    /// The same in another scope than a device's own. What is more than one command takes is written in parts.
    pub(crate) fn attributes_in(
        &self,
        scope: AttributeScope,
        reported: Entries,
        body: Bytes,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let (tenant, device, born) = (self.guest.tenant, &self.guest.device, self.guest.born);
        let mut event = Some(self.event(EventKind::State, ATTRIBUTES, body));
        let writes: Vec<_> = in_parts(reported)
            .into_iter()
            .map(|part| {
                let changes = entries(part).into_iter().map(|(key, value)| (key, Some(value)));
                let (changes, event) = (changes.collect(), event.take());
                let write = AttributeWrite { born, scope, changes, event };
                self.door.registry.write_attributes(tenant, device, write)
            })
            .collect();
        async move { try_join_all(writes).await.map(drop) }
    }

    /// The device calls, and waits for what an application answers. `None`: too many do.
    pub(crate) fn calls(&self) -> Option<OwnCall> {
        self.door.registry.await_answer(self.guest.tenant, &self.guest.device)
    }

    /// Lets applications know of a call of the device.
    pub(crate) fn called(
        &self,
        call: &DeviceCall,
        own: &OwnCall,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let body = Bytes::from(call.to_event(&Uuid::from_u128(own.id()).to_string()).to_string());
        let event = self.event(EventKind::Message, CALLS, body);
        let appended =
            self.door.registry.append_event(self.guest.tenant, &self.guest.device, event);
        async move { appended.await.map(drop) }
    }

    /// What a device may send; and a gateway, for others.
    pub(crate) fn limits(&self, is_gateway: bool) -> SessionLimits {
        let settings = self.door.registry.settings(self.guest.tenant);
        let limits = &settings.rate_limits;
        SessionLimits {
            payload_bytes_max: PACKET_BYTES_MAX,
            inflight_max: u32::from(self.door.rules.now().receive_max.get()),
            rate_limits: limits::read(&limits.device),
            gateway_rate_limits: is_gateway.then(|| limits::read(&limits.gateway)),
        }
    }

    /// Lets applications know that a limit was reached. Nobody waits for it.
    pub(crate) fn tell_of_limits(&self, body: Bytes) {
        let event = self.event(EventKind::State, LIMITS, body);
        let told = self.door.registry.append_event(self.guest.tenant, &self.guest.device, event);
        self.door.tasks.spawn(async move { drop(told.await) });
    }

    /// The attributes that it asks for.
    pub(crate) async fn read(&self, wanted: &Wanted) -> Result<Found, RegistryError> {
        let (client, shared) = match wanted {
            Wanted::All => (Some(Vec::new()), Some(Vec::new())),
            Wanted::Named { client, shared } => (some(client), some(shared)),
        };
        let client = self.of_scope(AttributeScope::Client, client).await?;
        let shared = self.of_scope(AttributeScope::Shared, shared).await?;
        Ok(Found { client, shared })
    }

    /// Attributes of a scope: all of them if no keys are named, none without a list.
    pub(crate) async fn of_scope(
        &self,
        scope: AttributeScope,
        keys: Option<Vec<Text>>,
    ) -> Result<Entries, RegistryError> {
        let Some(keys) = keys else { return Ok(Entries::new()) };
        let Guest { tenant, device, .. } = &self.guest;
        let found = self.door.registry.attributes(*tenant, device, scope, keys, None).await?;
        let set = found.map(|found| found.set).unwrap_or_default();
        Ok(set.iter().map(|one| (one.key.to_string(), from_core(&one.value))).collect())
    }

    /// What changed of its shared attributes since a version; without one nothing, and how they stand.
    pub(crate) async fn news(&self, since: Option<u64>) -> Result<News, RegistryError> {
        // No device has such a key.
        let keys = if since.is_none() { vec![Text::from("\0")] } else { Vec::new() };
        let (tenant, device, scope) =
            (self.guest.tenant, &self.guest.device, AttributeScope::Shared);
        let found = self.door.registry.attributes(tenant, device, scope, keys, since).await?;
        let Some(found) = found else {
            return Ok(News::nothing(since.unwrap_or(0)));
        };
        let updated = found.set.iter().map(|one| (one.key.to_string(), from_core(&one.value)));
        let deleted = found.gone.iter().map(Text::to_string).collect();
        let changed = Changed { updated: updated.collect(), deleted };
        Ok(News { version: found.version, told: found.told, changed })
    }

    /// Has something done that nobody waits for: a failure has the device told again.
    pub(crate) fn spawn(
        &self,
        noted: impl Future<Output = Result<(), RegistryError>> + Send + 'static,
    ) {
        self.door.tasks.spawn(async move { drop(noted.await) });
    }

    /// Notes that it was told of its shared attributes.
    pub(crate) fn was_told(
        &self,
        version: u64,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let Guest { tenant, device, born, .. } = &self.guest;
        let told = self.door.registry.tell_attributes(*tenant, device, *born, version);
        async move { told.await.map(drop) }
    }
}

/// What a device hears of its call: what was answered in time, or that nothing was.
pub(crate) async fn answer_to(own: OwnCall) -> String {
    let answer = own.answered(CALL_WAIT).await;
    let text = answer.and_then(|answer| String::from_utf8(answer.to_vec()).ok());
    text.unwrap_or_else(|| calls::timed_out().to_string())
}

/// What a device measured, as an event says it: what it wrote, if that is JSON.
pub(crate) fn telemetry_body(said: Option<&Bytes>, samples: &[Sample]) -> Bytes {
    let sample = |Sample { ts_ms, values: said }: &Sample| {
        Json::object([("ts", Json::from(*ts_ms)), ("values", values::object(said))])
    };
    let written = || Bytes::from(Json::Array(samples.iter().map(sample).collect()).to_string());
    said.cloned().unwrap_or_else(written)
}

/// What a device reported, the same way.
pub(crate) fn attributes_body(said: Option<&Bytes>, reported: &Entries) -> Bytes {
    said.cloned().unwrap_or_else(|| Bytes::from(values::object(reported).to_string()))
}

/// A list of keys that names some.
fn some(named: &[String]) -> Option<Vec<Text>> {
    (!named.is_empty()).then(|| keys(named))
}

/// Points in as many parts as commands have to take them.
fn in_commands(samples: Vec<Sample>) -> Vec<Vec<NewPoint>> {
    let (mut all, mut part, mut values) = (Vec::new(), Vec::new(), 0);
    for Sample { ts_ms, values: said } in samples {
        if part.len() >= POINTS_PER_COMMAND_MAX || values + said.len() > VALUES_PER_COMMAND_MAX {
            all.push(std::mem::take(&mut part));
            values = 0;
        }
        values += said.len();
        part.push(NewPoint { ts_ms: Some(ts_ms), values: entries(said) });
    }
    all.push(part);
    all
}

/// Attributes in as many parts as commands have to take them.
fn in_parts(mut reported: Entries) -> Vec<Entries> {
    let mut all = Vec::new();
    while reported.len() > ATTRIBUTES_PER_COMMAND_MAX {
        let rest = reported.split_off(ATTRIBUTES_PER_COMMAND_MAX);
        all.push(std::mem::replace(&mut reported, rest));
    }
    all.push(reported);
    all
}

#[cfg(test)]
mod tests {
    use moorline_dialects::thingsboard::values::Value;

    use super::*;

    #[test]
    fn many_attributes_are_taken_in_parts() {
        let reported = |count: usize| -> Entries {
            (0..count).map(|key| (key.to_string(), Value::Bool(true))).collect()
        };
        let sizes = |count| in_parts(reported(count)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(0), [0], "an event alone");
        assert_eq!(sizes(256), [256]);
        assert_eq!(sizes(1_024), [256; 4]);
        assert_eq!(sizes(257), [256, 1]);
        assert_eq!(in_parts(reported(300)).concat(), reported(300));
    }

    #[test]
    fn many_points_are_taken_in_parts() {
        let sample = |keys: usize| Sample {
            ts_ms: 1,
            values: (0..keys).map(|key| (key.to_string(), Value::Bool(true))).collect(),
        };
        let sizes = |samples| in_commands(samples).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0], "an event alone");
        assert_eq!(sizes(vec![sample(1); 1_001]), [1_000, 1]);
        assert_eq!(sizes(vec![sample(5_000), sample(5_000), sample(1)]), [1, 2]);
    }
}
