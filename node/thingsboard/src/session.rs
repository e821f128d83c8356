//! One connection of a device: what it publishes is written and answered, what it subscribed to is sent.
//!
//! # Invariants
//!
//! - **What one connection writes is written in its order**: its commands are on their way before the next publish is looked at.
//! - **The version of shared attributes is known before a subscription to them is granted**, so that every change that comes later is
//!   told.
//!
//! Checked by the cluster tests (`thingsboard.rs`).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use moorline_core::{
    AttributeScope, Delivery, Message, QoS, Text,
    port::{Ended, Filter, Inbox, Notice, Published, Refusal, Token},
    topic,
};
use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, Wanted},
    calls::{self, DeviceCall},
    filters::{self, Wanted as Subscribed},
    limits::{RateLimits, SessionLimits},
    mqtt::{self, Outcome, PACKET_BYTES_MAX, QUOTA_EXCEEDED, SUCCESS, TOPIC_NAME_INVALID, Version},
    payloads::Payloads,
    requests::Request,
    topics::{self, Form, OwnTopics, Publish, SessionKind, Unpublishable},
    values::{Entries, Rules, Sample},
};
use moorline_edge::asks::{Ask, tell};
use moorline_machine::events::EventKind;
use moorline_machine::values::{NewPoint, POINTS_PER_COMMAND_MAX, VALUES_PER_COMMAND_MAX};
use moorline_service::registry::{
    AttributeWrite, Heard, NewEvent, RECHECK, Recording, RegistryError, Watch,
    door::{Guest, JSON},
};
use prometheus::IntGauge;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    convert::{entries, from_core, keys},
    door::Door,
};

/// Writes of one connection that are under way at once.
const WRITES_MAX: usize = 64;
/// Calls of one device that wait for an answer.
const CALLS_MAX: usize = 32;
/// Filters of one connection: all that mean anything are fewer.
const FILTERS_MAX: usize = 64;
/// The channel of events that are telemetry.
const TELEMETRY: &str = "telemetry";
/// The channel of events that are attributes that a device reported.
const ATTRIBUTES: &str = "attributes";
/// The channel of events that are calls of a device.
const CALLS: &str = "rpc";

/// A filter that was granted.
struct Granted {
    filter: Text,
    wanted: Subscribed,
    qos: QoS,
}

/// A publish that was carried out, or not.
struct Done {
    token: Token,
    qos: QoS,
    what: &'static str,
    result: Result<(), RegistryError>,
}

type Writing = Pin<Box<dyn Future<Output = Done> + Send>>;
type Waiting = Pin<Box<dyn Future<Output = (Form, i32)> + Send>>;

/// What a publish is answered with: it, and whether it waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    token: Token,
    qos: QoS,
    what: &'static str,
}

/// See the module.
pub(crate) struct Session {
    door: Door,
    guest: Guest,
    version: Version,
    inbox: Arc<dyn Inbox>,
    payloads: Payloads,
    filters: Vec<Granted>,
    writes: FuturesUnordered<Writing>,
    /// Calls that nobody answers in time.
    calls: FuturesUnordered<Waiting>,
    /// Up to which version shared attributes were told.
    told: u64,
}

/// Counts a connection.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Session {
    pub(crate) fn new(door: Door, guest: Guest, version: Version, inbox: Arc<dyn Inbox>) -> Self {
        let (writes, calls) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (payloads, filters, told) = (Payloads::Json, Vec::new(), 0);
        Self { door, guest, version, inbox, payloads, filters, writes, calls, told }
    }

    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<Ask>, watch: Watch) {
        let gauge = self.door.metrics.connections.clone();
        gauge.inc();
        let _counted = Counted(gauge);
        let mut recheck_at = Instant::now() + RECHECK;
        loop {
            let goes_on = tokio::select! {
                biased;
                ask = asked.recv(), if self.writes.len() < WRITES_MAX => {
                    let Some(ask) = ask else { return };
                    self.ask(ask).await
                }
                Some(done) = self.writes.next() => self.done(done),
                Some((form, id)) = self.calls.next() => {
                    self.answer_call(form, id, &calls::timed_out().to_string());
                    true
                }
                heard = watch.heard() => self.hear(heard).await,
                () = sleep_until(recheck_at) => {
                    recheck_at = Instant::now() + RECHECK;
                    self.hear(Heard::ANYTHING).await
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Does what was asked; false at the end.
    async fn ask(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Publish(token, message) => self.publish(token, message).await,
            Ask::Subscribe(token, filters) => {
                let mut granted = Vec::with_capacity(filters.len());
                for filter in filters {
                    granted.push(self.grant(filter).await);
                }
                tell(&self.inbox, Notice::Subscribed { token, granted: Ok(granted) });
                true
            }
            Ask::Unsubscribe(token, filters) => {
                let end = |filter: &Text| {
                    let held = self.filters.iter().position(|held| held.filter == *filter);
                    held.map(|at| self.filters.remove(at)).is_some()
                };
                let existed = filters.iter().map(end).collect();
                tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                true
            }
        }
    }

    async fn grant(&mut self, asked: Filter) -> Result<QoS, Refusal> {
        let Filter { filter, options } = asked;
        let wanted =
            filters::subscribe(filter.as_bytes(), SessionKind::Device, OwnTopics::default());
        let wanted = wanted.ok_or(Refusal::Topic)?;
        self.filters.retain(|held| held.filter != filter);
        if self.filters.len() >= FILTERS_MAX {
            return Err(Refusal::Quota);
        }
        if matches!(wanted, Subscribed::Attributes(_)) && self.attributes_form().is_none() {
            let shared = shared(&self.door, &self.guest, None).await;
            self.told = shared.map_err(|_| Refusal::Unavailable)?.0;
        }
        let qos = filters::granted(options.qos);
        self.filters.push(Granted { filter, wanted, qos });
        Ok(qos)
    }

    // ---- what it publishes

    async fn publish(&mut self, token: Token, message: Message) -> bool {
        let Message { topic, qos, payload, .. } = message;
        let of = |what| Asked { token, qos, what };
        let read = topics::publish(topic.as_bytes(), SessionKind::Device, OwnTopics::default());
        let publish = match read {
            Ok(publish) => publish,
            Err(Unpublishable::UnknownTopic) => {
                return self.outcome(of("other"), Outcome::UnknownTopic);
            }
            Err(Unpublishable::NotGateway) => {
                return self.outcome(of("other"), Outcome::NotGateway);
            }
            Err(Unpublishable::RequestId | Unpublishable::Close) => {
                return self.outcome(of("other"), Outcome::Invalid);
            }
        };
        let now_ms = i64::try_from(self.door.clock.wall().0).unwrap_or(i64::MAX);
        let rules = Rules::default();
        let asked = of(what(&publish));
        let read = mqtt::request(&publish, &self.payloads, &payload, None, now_ms, &rules);
        let Ok(request) = read else { return self.outcome(asked, Outcome::Invalid) };
        match (publish, request) {
            (_, Request::Telemetry(samples)) => self.telemetry(asked, samples, payload),
            (_, Request::Attributes(entries)) => self.attributes(asked, entries, payload),
            (Publish::AttributesRequest(form, id), Request::ReadAttributes(wanted)) => {
                return self.read_attributes(asked, form, id, wanted).await;
            }
            (Publish::Call(form, id), Request::Call(call)) => {
                return self.call(asked, form, id, &call, payload);
            }
            // Nothing here asks for it, or serves it yet: taken as a server does that has nothing for it.
            _ => return self.outcome(asked, Outcome::Done),
        }
        true
    }

    fn write(
        &self,
        asked: Asked,
        result: impl Future<Output = Result<(), RegistryError>> + Send + 'static,
    ) {
        let Asked { token, qos, what } = asked;
        self.writes.push(Box::pin(async move { Done { token, qos, what, result: result.await } }));
    }

    fn event(&self, kind: EventKind, channel: &'static str, body: Bytes) -> NewEvent {
        let (channel, by) = (Text::from(channel), self.guest.by as u8);
        NewEvent { born: Some(self.guest.born), kind, channel, content_type: JSON, body, by }
    }

    fn telemetry(&self, asked: Asked, samples: Vec<Sample>, body: Bytes) {
        let (tenant, device, born) = (self.guest.tenant, &self.guest.device, self.guest.born);
        let mut event = Some(self.event(EventKind::Datapoint, TELEMETRY, body));
        let writes: Vec<_> = in_commands(samples)
            .into_iter()
            .map(|points| {
                let recording = Recording { born, points, event: event.take() };
                self.door.registry.record(tenant, device, recording)
            })
            .collect();
        self.write(asked, async move { try_join_all(writes).await.map(drop) });
    }

    fn attributes(&self, asked: Asked, reported: Entries, body: Bytes) {
        let changes = entries(reported).into_iter().map(|(key, value)| (key, Some(value)));
        let write = AttributeWrite {
            born: self.guest.born,
            scope: AttributeScope::Client,
            changes: changes.collect(),
            event: Some(self.event(EventKind::State, ATTRIBUTES, body)),
        };
        let written =
            self.door.registry.write_attributes(self.guest.tenant, &self.guest.device, write);
        self.write(asked, async move { written.await.map(drop) });
    }

    async fn read_attributes(&mut self, asked: Asked, form: Form, id: i32, wanted: Wanted) -> bool {
        // What it wrote before it is to read.
        while let Some(done) = self.writes.next().await {
            if !self.done(done) {
                return false;
            }
        }
        let (client, shared) = match &wanted {
            Wanted::All => (Some(Vec::new()), Some(Vec::new())),
            Wanted::Named { client, shared } => (some(client), some(shared)),
        };
        let (door, guest) = (&self.door, &self.guest);
        let client = of_scope(door, guest, AttributeScope::Client, client).await;
        let shared = of_scope(door, guest, AttributeScope::Shared, shared).await;
        let (Ok(client), Ok(shared)) = (client, shared) else {
            return self.outcome(asked, Outcome::Failed);
        };
        let found = Found { client, shared };
        let payload = self.payloads.down(form).write_found(id, &found);
        self.say(&topics::attributes_response(form, id), payload);
        self.outcome(asked, Outcome::Done)
    }

    fn call(&self, asked: Asked, form: Form, id: i32, call: &DeviceCall, body: Bytes) -> bool {
        if call.method == calls::SESSION_LIMITS_METHOD {
            let limits = SessionLimits {
                payload_bytes_max: PACKET_BYTES_MAX,
                inflight_max: u32::from(self.door.rules.receive_max.get()),
                rate_limits: RateLimits::default(),
                gateway_rate_limits: None,
            };
            self.answer_call(form, id, &limits.to_json().to_string());
            return self.outcome(asked, Outcome::Done);
        }
        if self.calls.len() >= CALLS_MAX {
            return self.outcome(asked, Outcome::RateLimited);
        }
        let event = self.event(EventKind::Message, CALLS, body);
        let (tenant, device) = (self.guest.tenant, &self.guest.device);
        let appended = self.door.registry.append_event(tenant, device, event);
        self.write(asked, async move { appended.await.map(drop) });
        let wait = Duration::from_millis(calls::DEVICE_CALL_TIMEOUT_MS);
        self.calls.push(Box::pin(async move {
            sleep(wait).await;
            (form, id)
        }));
        true
    }

    fn answer_call(&self, form: Form, id: i32, answer: &str) {
        let payload = self.payloads.down(form).write_call_answer(id, answer);
        self.say(&topics::call_reply(form, id), payload);
    }

    // ---- what it hears

    /// Says what became of a write; false if that is the end.
    fn done(&self, done: Done) -> bool {
        let Done { token, qos, what, result } = done;
        let asked = Asked { token, qos, what };
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(RegistryError::Refused(_)) => {
                tell(&self.inbox, Notice::Ended(Ended::Revoked));
                return false;
            }
            // What is too much of it, or too large, is no better the next time.
            Err(RegistryError::Values(_) | RegistryError::Events(_)) => Outcome::Invalid,
            Err(_) => Outcome::Failed,
        };
        self.outcome(asked, outcome)
    }

    /// Answers a publish; false if the connection is over.
    fn outcome(&self, asked: Asked, outcome: Outcome) -> bool {
        let result = match outcome {
            Outcome::Done | Outcome::NotGateway => "done",
            Outcome::UnknownTopic => "unknown_topic",
            Outcome::Invalid => "invalid",
            Outcome::RateLimited | Outcome::GatewayLimited => "limited",
            Outcome::Failed => "failed",
        };
        self.door.metrics.requests.with_label_values(&[asked.what, result]).inc();
        let ack = mqtt::ack(outcome, self.version, false);
        if let Some(reason) = ack.puback.filter(|_| asked.qos > QoS::AtMostOnce) {
            let outcome = match reason {
                SUCCESS => Ok(Published { matched: true }),
                TOPIC_NAME_INVALID => Err(Refusal::Topic),
                QUOTA_EXCEEDED => Err(Refusal::Quota),
                _ => Err(Refusal::Payload),
            };
            tell(&self.inbox, Notice::Published { token: asked.token, outcome });
        }
        if ack.disconnect.is_none() {
            return true;
        }
        let ended = match outcome {
            // It comes again, and asks another node perhaps.
            Outcome::Failed => Notice::Lost,
            Outcome::RateLimited | Outcome::GatewayLimited => Notice::Ended(Ended::Limited),
            Outcome::Done | Outcome::UnknownTopic | Outcome::NotGateway | Outcome::Invalid => {
                Notice::Ended(Ended::Misused)
            }
        };
        tell(&self.inbox, ended);
        false
    }

    /// Publishes to the device: whether it subscribed to it or not.
    fn say(&self, topic: &str, payload: Bytes) {
        let matches = |held: &&Granted| topic::matches(held.filter.as_bytes(), topic.as_bytes());
        let granted = self.filters.iter().filter(matches).map(|held| held.qos).max();
        let qos = filters::downlink_qos(granted);
        let message = Message { topic: Text::from(topic), qos, payload, ..Message::empty() };
        let delivery = Delivery::new(None, qos, Arc::new(message));
        tell(&self.inbox, Notice::Deliver(vec![delivery]));
    }

    async fn hear(&mut self, heard: Heard) -> bool {
        if heard.taken_over {
            tell(&self.inbox, Notice::TakenOver);
            return false;
        }
        if heard.attributes
            && let Some(form) = self.attributes_form()
            // Asked for again after a while, if nobody can say now.
            && let Ok((version, changed)) = shared(&self.door, &self.guest, Some(self.told)).await
        {
            self.told = version;
            if !changed.updated.is_empty() || !changed.deleted.is_empty() {
                let payload = self.payloads.down(form).write_changed(&changed);
                self.say(topics::attributes_update(form), payload);
            }
        }
        true
    }

    /// How the device wants changes of shared attributes: as it asked for them last, if it did.
    fn attributes_form(&self) -> Option<Form> {
        self.filters.iter().rev().find_map(|held| match held.wanted {
            Subscribed::Attributes(form) => Some(form.unwrap_or(Form::V1)),
            Subscribed::Calls(_) | Subscribed::Responses => None,
        })
    }
}

/// Attributes of a scope: all of them if no keys are named, none without a list.
async fn of_scope(
    door: &Door,
    guest: &Guest,
    scope: AttributeScope,
    keys: Option<Vec<Text>>,
) -> Result<Entries, RegistryError> {
    let Some(keys) = keys else { return Ok(Entries::new()) };
    let found = door.registry.attributes(guest.tenant, &guest.device, scope, keys, None).await?;
    let set = found.map(|found| found.set).unwrap_or_default();
    Ok(set.iter().map(|one| (one.key.to_string(), from_core(&one.value))).collect())
}

/// The version of shared attributes, and what changed since one.
async fn shared(
    door: &Door,
    guest: &Guest,
    since: Option<u64>,
) -> Result<(u64, Changed), RegistryError> {
    // Without one the version alone is wanted: no device has such a key.
    let keys = if since.is_none() { vec![Text::from("\0")] } else { Vec::new() };
    let (tenant, device, scope) = (guest.tenant, &guest.device, AttributeScope::Shared);
    let found = door.registry.attributes(tenant, device, scope, keys, since).await?;
    let Some(found) = found else { return Ok((since.unwrap_or(0), Changed::default())) };
    let updated = found.set.iter().map(|one| (one.key.to_string(), from_core(&one.value)));
    let deleted = found.gone.iter().map(Text::to_string).collect();
    Ok((found.version, Changed { updated: updated.collect(), deleted }))
}

fn what(publish: &Publish) -> &'static str {
    match publish {
        Publish::Telemetry(_) => "telemetry",
        Publish::Attributes(_) => "attributes",
        Publish::AttributesRequest(..) => "attributes_request",
        Publish::Call(..) | Publish::CallReply(..) => "call",
        Publish::Claim | Publish::Chunk(_) | Publish::Provision | Publish::Gateway(_) => "other",
    }
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

#[cfg(test)]
mod tests {
    use moorline_dialects::thingsboard::values::Value;

    use super::*;

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
