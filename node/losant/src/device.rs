//! What is kept of a device, and what it is told: the same for MQTT and requests.
//!
//! All but its ban is values of the device, each with its event in the application's stream: what it reports under the names of its
//! attributes, and under names that no attribute can have what it was told (`$command`) and how it came and went (`$connection`). So
//! the last of each is at hand, and the others are its history. Where they don't fit among its values, there is the event alone.
//!
//! A ban is a document of the device: it must not have to wait for room among values, nor for the rate at which the tenant may write.
//!
//! What writes is on its way when the call returns: whoever calls in an order has it written in that order.

use bytes::Bytes;
use futures_util::future::join_all;
use moorline_core::{Message, TenantId, Text, UnixMillis, Value as Kept, port::Refusal};
use moorline_dialects::losant::{
    command::Command,
    id::Id,
    limits::Ban,
    mail,
    presence::{self, Change},
    state::{self, State, json_of},
    topics,
};
use moorline_machine::{
    HistoryQuery, ValueRefused,
    answer::Refused,
    documents::{Expect, Space},
    events::{EVENT_BODY_BYTES_MAX, EventKind},
    mail::MAIL_PAYLOAD_BYTES_MAX,
    presence::{PresenceRecord, PresenceState},
    values::{LONG_VALUE_BYTES_MAX, NewPoint, Point},
};
use moorline_service::registry::{
    Letter, NewEvent, Recording, RegistryError,
    door::{By, JSON},
};
use serde_json::{Value, json};
use tracing::debug;

use crate::{
    door::{Door, Work},
    pass::Known,
};

/// Channels of events: states, commands, who came and went, and who is not heard for a while.
pub(crate) const STATES: &str = "state";
/// See [`STATES`].
pub(crate) const COMMANDS: &str = "command";
const CONNECTIONS: &str = "connection";
const LIMITS: &str = "limits";
/// Under which names values are that no attribute can have.
const COMMAND_KEY: &str = "$command";
const CONNECTION_KEY: &str = "$connection";
/// The space of a device that has its ban, and what that is called there.
const BANS: &str = "bans";
/// See [`BANS`].
const BAN: &str = "ban";
/// Pages of a history that any question of a program's reads: each looks at some thousand points.
const HISTORY_PAGES_MAX: usize = 16;
/// Pages that few of an application read at once: what a busy device was told stands among all that it reported since.
const FAR_PAGES_MAX: usize = 256;
// What a text of a state may have, a value may.
const _: () = assert!(state::TEXT_BYTES_MAX <= LONG_VALUE_BYTES_MAX);
/// Bytes of a command as its device hears it: a mailbox takes no more.
pub(crate) const COMMAND_BYTES_MAX: usize = MAIL_PAYLOAD_BYTES_MAX;

/// A device that something is kept of.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) tenant: TenantId,
    pub(crate) application: Text,
    pub(crate) id: Id,
    pub(crate) born: u64,
    pub(crate) by: By,
}

/// Which part of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    /// Nothing before it.
    pub(crate) since_ms: Option<i64>,
    /// How much of it.
    pub(crate) most: usize,
    /// Whether the newest is first.
    pub(crate) descending: bool,
}

/// Why a history was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// What is asked for is behind more than one question looks at.
    TooFar,
    /// Others of the application look as far back now.
    Busy,
    /// By what keeps it.
    Registry(RegistryError),
}

impl From<RegistryError> for Unread {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// Why a command was not given.
#[derive(Debug)]
pub(crate) enum NotGiven {
    /// It has more bytes than it may.
    TooLarge,
    /// By what keeps it.
    Registry(RegistryError),
    /// By what passes it on.
    Refused(Refusal),
}

/// The event of what was reported would have more bytes than one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl From<RegistryError> for NotGiven {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl Device {
    pub(crate) fn new(tenant: TenantId, application: &Text, known: &Known, by: By) -> Self {
        let (application, id, born) = (application.clone(), known.id.clone(), known.record.born);
        Self { tenant, application, id, born, by }
    }

    fn event(&self, kind: EventKind, channel: &'static str, body: &Value) -> NewEvent {
        NewEvent {
            born: Some(self.born),
            kind,
            channel: Text::from(channel),
            content_type: JSON,
            body: Bytes::from(body.to_string()),
            by: self.by as u8,
        }
    }
}

fn point(at_ms: Option<i64>, values: Vec<(Text, Kept)>) -> NewPoint {
    NewPoint { ts_ms: at_ms, values }
}

fn of_json(key: &str, value: &Value) -> (Text, Kept) {
    (Text::from(key), Kept::Json(Text::from(value.to_string())))
}

impl Door {
    fn record(
        &self,
        device: &Device,
        points: Vec<NewPoint>,
        event: NewEvent,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let (registry, tenant, id) = (self.registry.clone(), device.tenant, device.id.clone());
        let (born, values_only) = (device.born, self.metrics.events_alone.clone());
        // What has a time of its own needs no other.
        let apart = points.iter().any(|point| point.ts_ms.is_none());
        let event = Some(event);
        let alone = Recording { born, points: Vec::new(), apart: false, event: event.clone() };
        let may_be_alone = !points.is_empty();
        let recording = Recording { born, points, apart, event };
        let written = registry.record(tenant, id.text(), recording);
        async move {
            match written.await {
                Err(RegistryError::Values(why)) if may_be_alone && has_no_room(why) => {
                    values_only.inc();
                    registry.record(tenant, id.text(), alone).await.map(drop)
                }
                other => other.map(drop),
            }
        }
    }

    /// Keeps what a device reported: latest values, history, and an event for each. Where there is no room for values, there is the
    /// event alone. All that can be is kept, whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// [`TooLarge`]: nothing is kept. The future says what kept the first of them from being written, one that may be tried again
    /// before one that is for good.
    pub(crate) fn keep_states(
        &self,
        device: &Device,
        states: Vec<State>,
    ) -> Result<impl Future<Output = Result<(), RegistryError>> + Send + use<>, TooLarge> {
        let event = |state: &State| {
            let event = state.event(&device.application, &device.id);
            let event = device.event(EventKind::Datapoint, STATES, &event);
            if event.body.len() > EVENT_BODY_BYTES_MAX { Err(TooLarge) } else { Ok(event) }
        };
        let events = states.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let mut writes = Vec::with_capacity(states.len());
        for (state, event) in states.into_iter().zip(events) {
            let at_ms = state.at_ms;
            let has_values = !state.values.is_empty();
            let points = has_values.then(|| point(Some(at_ms), state.values));
            writes.push(self.record(device, Vec::from_iter(points), event));
        }
        Ok(async move { of_all(join_all(writes).await) })
    }

    /// Notes that a device came or went.
    pub(crate) fn note_connection(
        &self,
        device: &Device,
        change: &Change,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let event = change.event(device.application.as_str(), device.id.as_str());
        let event = device.event(EventKind::State, CONNECTIONS, &event);
        let values = vec![of_json(CONNECTION_KEY, &change.kept())];
        self.record(device, vec![point(None, values)], event)
    }

    /// Keeps it with a device that it is not heard for a while.
    pub(crate) async fn keep_ban(&self, device: &Device, ban: Ban) -> Result<(), RegistryError> {
        let body = Bytes::from(json!(ban).to_string());
        let (space, id) = (bans(device), Text::from(BAN));
        self.registry.put_document(&space, &id, body, Expect::Any).await.map(drop)
    }

    /// Tells whoever follows the application's events of it.
    pub(crate) fn tell_ban(
        &self,
        device: &Device,
        ban: Ban,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let until_ms = i64::try_from(ban.until_ms).unwrap_or(i64::MAX);
        let event = json!({
            "deviceId": device.id.as_str(), "until": state::time(until_ms), "seconds": ban.seconds,
        });
        let event = device.event(EventKind::State, LIMITS, &event);
        self.record(device, Vec::new(), event)
    }

    async fn last(&self, device: &Device, key: &str) -> Result<Option<Value>, RegistryError> {
        let keys = vec![Text::from(key)];
        let latest = self.registry.latest(device.tenant, device.id.text(), keys).await?;
        let value = latest.and_then(|latest| latest.values.into_iter().next());
        Ok(value.map(|(_, _, value)| json_of(&value)))
    }

    /// The last ban of a device.
    pub(crate) async fn ban(&self, device: &Device) -> Result<Option<Ban>, RegistryError> {
        let kept = self.registry.document(&bans(device), &Text::from(BAN)).await?;
        Ok(kept.and_then(|kept| serde_json::from_slice(&kept.body).ok()))
    }

    /// Whether a device is connected, and since when. What nobody but a connection said is so as long as there is one.
    pub(crate) async fn connection_info(&self, device: &Device) -> Result<Value, RegistryError> {
        let kept = self.last(device, CONNECTION_KEY).await?;
        let change = kept.as_ref().and_then(Change::read);
        if let Some(change) = change.as_ref().filter(|change| change.said) {
            return Ok(change.info());
        }
        let names = [device.id.text().clone()];
        let presence = self.registry.presence(device.tenant, &names).await?;
        let present = presence.into_iter().next().flatten().filter(|it| it.born == device.born);
        Ok(info(change, present))
    }

    /// Points of some keys of a device.
    async fn points(
        &self,
        device: &Device,
        keys: Vec<Text>,
        slice: Slice,
    ) -> Result<Vec<Point>, Unread> {
        let Slice { since_ms, most, descending } = slice;
        let mut query = Some(HistoryQuery {
            tenant: device.tenant,
            device: device.id.text().clone(),
            keys,
            from_ms: since_ms.unwrap_or(0),
            to_ms: i64::MAX,
            descending,
            points_max: u16::try_from(most).unwrap_or(u16::MAX),
        });
        let (mut found, mut far) = (Vec::new(), None);
        for pages in 0.. {
            let Some(asked) = query.take().filter(|_| found.len() < most) else { break };
            if pages == HISTORY_PAGES_MAX {
                far = Some(self.may_work(device.tenant, Work::Look).ok_or(Unread::Busy)?);
            }
            if pages == FAR_PAGES_MAX {
                return Err(Unread::TooFar);
            }
            let Some(page) = self.registry.history(asked.clone()).await? else { break };
            found.extend(page.points);
            query = page.next.map(|next| match descending {
                true => HistoryQuery { to_ms: next, ..asked },
                false => HistoryQuery { from_ms: next, ..asked },
            });
        }
        drop(far);
        found.truncate(most);
        Ok(found)
    }

    /// Values of a name of ours.
    async fn history(
        &self,
        device: &Device,
        key: &str,
        slice: Slice,
    ) -> Result<Vec<Value>, Unread> {
        if slice.most == 1 && slice.since_ms.is_none() && slice.descending {
            // The last one is at hand.
            return Ok(self.last(device, key).await?.into_iter().collect());
        }
        let points = self.points(device, vec![Text::from(key)], slice).await?;
        let values = points.into_iter().flat_map(|point| point.values);
        let mut found: Vec<_> = values.map(|(_, value)| json_of(&value)).collect();
        if found.is_empty() && slice.since_ms.is_none() && slice.most > 0 {
            // Where no history is kept, the last one is.
            found.extend(self.last(device, key).await?);
        }
        Ok(found)
    }

    /// What a device was told.
    pub(crate) async fn commands(
        &self,
        device: &Device,
        slice: Slice,
    ) -> Result<Vec<Value>, Unread> {
        self.history(device, COMMAND_KEY, slice).await
    }

    /// When a device came and went.
    pub(crate) async fn connections(
        &self,
        device: &Device,
        slice: Slice,
    ) -> Result<Vec<Value>, Unread> {
        let kept = self.history(device, CONNECTION_KEY, slice).await?;
        Ok(kept.iter().filter_map(Change::read).map(|change| change.entry()).collect())
    }

    /// What a device reported.
    pub(crate) async fn states(
        &self,
        device: &Device,
        keys: Vec<Text>,
        slice: Slice,
    ) -> Result<Vec<Value>, Unread> {
        // No keys are all keys there, ours too.
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let points = self.points(device, keys, slice).await?;
        Ok(points.iter().map(|point| state::shown(point.ts_ms, &point.values)).collect())
    }

    /// Tells a device something: it is noted, and goes to whoever has subscribed to its commands, or into its mailbox, as its tenant
    /// wants. What has no place in the mailbox is noted nowhere; what is in it counts as given, noted or not: said again it would be
    /// done twice.
    pub(crate) async fn command(
        &self,
        device: &Device,
        known: &Known,
        command: &Command,
    ) -> Result<(), NotGiven> {
        let now_ms = self.now_ms();
        let payload = command.written(now_ms).to_string();
        if payload.len() > COMMAND_BYTES_MAX {
            self.metrics.commands.with_label_values(&["too_large"]).inc();
            return Err(NotGiven::TooLarge);
        }
        let event = command.event(&device.application, &device.id, now_ms);
        let event = device.event(EventKind::Message, COMMANDS, &event);
        let shown = of_json(COMMAND_KEY, &command.shown(now_ms));
        let fits = shown.1.len_bytes() <= LONG_VALUE_BYTES_MAX;
        let points = if fits { vec![point(None, vec![shown])] } else { vec![] };
        let payload = Bytes::from(payload);
        let keep = self.registry.settings(device.tenant).commands.keep;
        let how = if keep { "kept" } else { "live" };
        if keep {
            let (name, content_type) = (Text::from(mail::KEPT), JSON);
            let letter = Letter { id: mail_id(now_ms), name, content_type, payload, ttl_s: None };
            let (tenant, id) = (device.tenant, device.id.text());
            self.registry.may_mail(tenant)?;
            self.registry.send_mail_to(tenant, id, &known.record, letter).await?;
            if let Err(error) = self.record(device, points, event).await {
                self.metrics.notes_failed.with_label_values(&["command"]).inc();
                debug!(device = %device.id, %error, "a command that was given is not noted");
            }
        } else {
            self.record(device, points, event).await?;
            let topic = topics::command_inside(&device.id);
            let message = Message { topic, payload, ..Message::empty() };
            let published = self.service.publish(device.tenant, message).await;
            published.map_err(NotGiven::Refused)?;
        }
        self.metrics.commands.with_label_values(&[how]).inc();
        Ok(())
    }
}

fn bans(device: &Device) -> Space {
    Space::of_device(device.tenant, device.id.text(), device.born, BANS)
}

/// Whether values were refused because there is no room for them, and not because there is nobody whose they are.
fn has_no_room(why: ValueRefused) -> bool {
    match why {
        ValueRefused::TooLarge
        | ValueRefused::TooManyAtOnce
        | ValueRefused::TooManyKeys
        | ValueRefused::Full
        | ValueRefused::TooManyHistories => true,
        ValueRefused::DeviceGone | ValueRefused::Key => false,
    }
}

/// What became of several writes: as bad as the worst of them, and what may be tried again is worse than what is refused for good.
fn of_all(results: Vec<Result<(), RegistryError>>) -> Result<(), RegistryError> {
    let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    // The sort keeps their order otherwise.
    errors.sort_by_key(is_for_good);
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// How a device is of which nobody but connections said something: they may have said it in another order than it was, and one whose node
/// died says nothing.
fn info(change: Option<Change>, present: Option<PresenceRecord>) -> Value {
    let ms = |at: Option<UnixMillis>| at.and_then(|at| i64::try_from(at.0).ok());
    let is = present.as_ref().is_some_and(|present| present.state == PresenceState::Connected);
    let (came, went) = present.map_or((None, None), |it| (it.connected, it.disconnected));
    match change {
        Some(change) if change.connected == is => change.info(),
        Some(change) => {
            let at_ms = ms(if is { came } else { went }).unwrap_or(change.at_ms);
            Change { connected: is, at_ms, ..change }.info()
        }
        None => presence::unknown(),
    }
}

/// A UUID of version 7.
fn mail_id(now_ms: i64) -> u128 {
    let ms = u128::from(now_ms.unsigned_abs()) & ((1 << 48) - 1);
    let (high, low) = (u128::from(rand::random::<u16>() & 0xfff), rand::random::<u64>() >> 2);
    ms << 80 | 7 << 76 | high << 64 | 0b10 << 62 | u128::from(low)
}

/// Whether a refusal is one for good: the same again is refused again.
pub(crate) fn is_for_good(error: &RegistryError) -> bool {
    match error {
        RegistryError::Refused(Refused::NotFound | Refused::TooLarge | Refused::TooMany)
        | RegistryError::Values(_)
        | RegistryError::Events(_)
        | RegistryError::Mail(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => true,
        RegistryError::Refused(_)
        | RegistryError::Busy
        | RegistryError::Unavailable
        | RegistryError::Taken(_)
        | RegistryError::TooManyReaders
        | RegistryError::DiskFull => false,
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::op::MailId;

    use super::*;

    #[test]
    fn what_may_be_tried_again_is_said_before_what_is_refused_for_good() {
        let gone = || Err(RegistryError::Values(ValueRefused::DeviceGone));
        let (busy, unavailable) = (|| Err(RegistryError::Busy), || Err(RegistryError::Unavailable));
        #[rustfmt::skip]
        let table = [
            (vec![],                                    Ok(())),
            (vec![Ok(()), Ok(())],                      Ok(())),
            (vec![Ok(()), gone(), Ok(())],              gone()),
            (vec![gone(), Ok(()), busy()],              busy()),
            (vec![gone(), unavailable(), busy()],       unavailable()),
        ];
        for (results, expected) in table {
            assert_eq!(of_all(results.clone()), expected, "{results:?}");
        }
    }

    #[test]
    fn only_where_there_is_no_room_an_event_stands_alone() {
        use ValueRefused::{
            DeviceGone, Full, Key, TooLarge, TooManyAtOnce, TooManyHistories, TooManyKeys,
        };
        for why in [TooLarge, TooManyAtOnce, TooManyKeys, Full, TooManyHistories] {
            assert!(has_no_room(why), "{why:?}");
        }
        assert!(!has_no_room(DeviceGone) && !has_no_room(Key));
    }

    #[test]
    fn ids_of_mail_are_uuids_of_version_7() {
        let (first, second) = (mail_id(1_767_323_045_678), mail_id(1_767_323_045_678));
        assert_ne!(first, second);
        for id in [first, second] {
            assert!(MailId(id).is_v7(), "{}", MailId(id));
            assert_eq!(id >> 80, 1_767_323_045_678);
        }
    }
}
