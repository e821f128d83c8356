//! One subscription of an application: events out of all shards' streams, as the consumer group has read them so far.
//!
//! # Invariants
//!
//! - **At least once**: what was not taken by the client is not committed, and comes again to whoever reads next.
//! - **In order of each device**, and with QoS 1 one at a time: the next goes out when the client has acknowledged the last. What a
//!   member of a group gives back to another is behind where the group's document says that it is, and none of it is on its way.
//! - **Nothing is passed over in silence**: an event that can't be read is counted, and logged.
//! - **Bounded**: a page of each shard is in memory.
//!
//! Checked by the cluster tests (`drogue.rs`).

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    Delivery, Message, Offset, QoS, ShardId, SubscriptionIds, TenantId, Text,
    port::{Inbox, Notice},
};
use moorline_dialects::drogue::{
    application::Form,
    event::{CONNECTION, CloudEvent, Names},
};
use moorline_edge::asks::{numbered, tell};
use moorline_machine::{
    EventsPage,
    events::{Event, EventKind},
};
use moorline_service::registry::{Cursor, Reading, RegistryError};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use crate::{
    door::Door,
    groups::{LOOK, Member, RENEW},
    link::locked,
};

/// How long a shard's leader may wait for something new before it answers.
const WAIT: Duration = Duration::from_secs(10);
/// How long is waited before a shard is asked again that did not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Events with QoS 0 that are on their way at once; with QoS 1 it is one.
pub(crate) const AHEAD_MAX: usize = 32;
/// Where the number of a feed stands in those of its events.
const FEED_SHIFT: u32 = 48;

/// A subscription that begins.
pub(crate) struct Feed {
    pub(crate) door: Door,
    pub(crate) tenant: TenantId,
    pub(crate) application: Text,
    /// With whom it shares; without one it reads what is new, and nobody else does so for it.
    pub(crate) group: Option<Text>,
    /// Of which channel it wants events, if not of all.
    pub(crate) channel: Option<Text>,
    pub(crate) topic: Text,
    pub(crate) form: Form,
    pub(crate) qos: QoS,
    pub(crate) id: Option<NonZeroU32>,
    pub(crate) inbox: Arc<dyn Inbox>,
    /// Where it begins without a group.
    pub(crate) start: Option<Cursor>,
    pub(crate) _reading: Reading,
}

/// Numbers of what the client has, of those that are waited for: no more than are out.
#[derive(Debug, Default)]
struct Taken {
    /// Those from here on are waited for, and these were taken of them.
    numbers: Mutex<(u64, BTreeSet<u64>)>,
    told: Notify,
}

impl Taken {
    fn put(&self, number: u64) {
        let mut numbers = locked(&self.numbers);
        // What was sent before the feed began again comes again: nobody waits for it.
        if number >= numbers.0 {
            numbers.1.insert(number);
            self.told.notify_one();
        }
    }

    fn take(&self) -> Option<u64> {
        locked(&self.numbers).1.pop_first()
    }

    async fn next(&self) -> u64 {
        loop {
            if let Some(number) = self.take() {
                return number;
            }
            self.told.notified().await;
        }
    }

    /// Only these are waited for from now on.
    fn waits_from(&self, number: u64) {
        *locked(&self.numbers) = (number, BTreeSet::new());
    }
}

/// A subscription, until it is dropped.
pub(crate) struct Tap {
    number: u64,
    taken: Arc<Taken>,
    /// Where it was, when it has ended.
    place: oneshot::Receiver<Option<Cursor>>,
    ends: DropGuard,
}

impl Tap {
    /// The client has these: as far as they are its own.
    pub(crate) fn taken(&self, numbers: &[u64]) {
        for number in numbers.iter().filter(|number| **number >> FEED_SHIFT == self.number) {
            self.taken.put(*number);
        }
    }

    /// Ends it: what it has read, and its client has. Who goes on there misses nothing.
    pub(crate) async fn end(self) -> Option<Cursor> {
        drop(self.ends);
        self.place.await.ok().flatten()
    }
}

/// An event that is on its way.
struct Out {
    number: u64,
    shard: ShardId,
    offset: Offset,
    taken: bool,
}

type Asking = Pin<Box<dyn Future<Output = (ShardId, Result<EventsPage, RegistryError>)> + Send>>;

/// It does not read any more.
struct Lost;

struct Reader {
    feed: Feed,
    member: Option<Member>,
    /// The shards that it reads.
    own: BTreeSet<ShardId>,
    /// Those that were its own when they were asked for what they have: another member may have read on since.
    left: BTreeSet<ShardId>,
    /// It said that it reads while something was on its way, so that it could not give shards back.
    owes: bool,
    taken: Arc<Taken>,
    place: Option<oneshot::Sender<Option<Cursor>>>,
    cursor: Option<Cursor>,
    out: VecDeque<Out>,
    next: u64,
    renew_at: Instant,
    /// Something was taken that is not committed.
    moved: bool,
    /// It was said that there is an event that can't be read.
    warned: bool,
}

impl Feed {
    /// Begins. `number`: another one for each feed of a connection.
    pub(crate) fn begin(mut self, number: u16) -> Tap {
        let taken = Arc::<Taken>::default();
        let (place, ended_at) = oneshot::channel();
        let start = self.start.take();
        let (token, tasks) = (CancellationToken::new(), self.door.tasks.clone());
        let number = u64::from(number);
        let member = self.group.clone().map(|group| Member::new(self.tenant, group));
        let mut reader = Reader {
            feed: self,
            member,
            own: BTreeSet::new(),
            left: BTreeSet::new(),
            owes: false,
            taken: Arc::clone(&taken),
            place: Some(place),
            cursor: start,
            out: VecDeque::new(),
            next: number << FEED_SHIFT,
            renew_at: Instant::now(),
            moved: false,
            warned: false,
        };
        let ended = token.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = reader.work() => {}
            }
            reader.end().await;
        });
        Tap { number, taken, place: ended_at, ends: token.drop_guard() }
    }
}

impl Reader {
    async fn work(&mut self) {
        loop {
            self.commit().await;
            let Feed { door, tenant, .. } = &self.feed;
            self.own = match &mut self.member {
                Some(member) => member.renew(door, self.cursor.as_ref(), true).await,
                None => door.registry.event_shards(*tenant, None).into_iter().collect(),
            };
            if self.own.is_empty() {
                sleep(LOOK).await;
                continue;
            }
            self.renew_at = Instant::now() + RENEW;
            self.out.clear();
            self.taken.waits_from(self.next + 1);
            match self.start().await {
                Ok(cursor) => self.cursor = Some(cursor),
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            }
            let Err(Lost) = self.read().await;
        }
    }

    /// Where it begins: where its group is, or where it was told to.
    async fn start(&mut self) -> Result<Cursor, RegistryError> {
        let Feed { door, tenant, .. } = &self.feed;
        match (&mut self.member, &self.cursor) {
            (Some(member), _) => member.place(door).await,
            // It goes on where it was.
            (None, Some(cursor)) => Ok(cursor.clone()),
            (None, None) => door.registry.newest(*tenant).await,
        }
    }

    async fn read(&mut self) -> Result<std::convert::Infallible, Lost> {
        let (mut asking, mut asked) = (FuturesUnordered::new(), self.own.clone());
        self.left.clear();
        for shard in &asked {
            asking.push(self.ask(*shard, Duration::ZERO));
        }
        loop {
            let renew_at = self.renew_at;
            tokio::select! {
                Some((shard, page)) = asking.next() => {
                    asked.remove(&shard);
                    let pause = if page.is_err() { PAUSE } else { Duration::ZERO };
                    if !self.left.remove(&shard) && self.own.contains(&shard) {
                        if let Ok(page) = page {
                            self.page(shard, page).await?;
                        }
                        asked.insert(shard);
                        asking.push(self.ask(shard, pause));
                    }
                    if self.owes {
                        self.renew(true).await?;
                    }
                }
                // Nothing is on its way between two pages.
                () = sleep_until(renew_at) => self.renew(true).await?,
            }
            let new: Vec<_> = self.own.difference(&asked).copied().collect();
            if !new.is_empty() && self.take_over(&new).await {
                for shard in new {
                    asked.insert(shard);
                    asking.push(self.ask(shard, Duration::ZERO));
                }
            }
        }
    }

    /// It reads these shards from now on, behind what others have read. `false`: nobody says how far that is; later perhaps.
    async fn take_over(&mut self, shards: &[ShardId]) -> bool {
        let (Some(member), Some(cursor)) = (&mut self.member, &mut self.cursor) else {
            return false;
        };
        let Ok(place) = member.place(&self.feed.door).await else { return false };
        for shard in shards {
            cursor.set(*shard, place.of(*shard));
        }
        true
    }

    fn ask(&self, shard: ShardId, pause: Duration) -> Asking {
        let (registry, tenant) = (self.feed.door.registry.clone(), self.feed.tenant);
        let after = self.cursor.as_ref().map(|cursor| cursor.of(shard)).unwrap_or_default();
        Box::pin(async move {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            (shard, registry.events(shard, tenant, after, None, WAIT).await)
        })
    }

    /// Has the client have a page.
    async fn page(&mut self, shard: ShardId, page: EventsPage) -> Result<(), Lost> {
        let most = if self.feed.qos == QoS::AtMostOnce { AHEAD_MAX } else { 1 };
        for event in page.events {
            let Some(body) = self.cloud_event(shard, &event) else { continue };
            while self.out.len() >= most {
                self.wait(shard).await?;
            }
            self.deliver(shard, event.offset, &body);
        }
        while !self.out.is_empty() {
            self.wait(shard).await?;
        }
        if let Some(cursor) = &mut self.cursor
            && cursor.of(shard) < page.upto
        {
            cursor.set(shard, page.upto);
            self.moved = true;
        }
        Ok(())
    }

    /// Waits until the client has something of a shard, or it is time to say that this one reads.
    async fn wait(&mut self, shard: ShardId) -> Result<(), Lost> {
        let renew_at = self.renew_at;
        let number = tokio::select! {
            number = self.taken.next() => number,
            () = sleep_until(renew_at) => {
                self.renew(false).await?;
                return if self.own.contains(&shard) { Ok(()) } else { Err(Lost) };
            }
        };
        if let Some(out) = self.out.iter_mut().find(|out| out.number == number) {
            out.taken = true;
        }
        while let Some(out) = self.out.front().filter(|out| out.taken) {
            if let Some(cursor) = &mut self.cursor {
                cursor.set(out.shard, out.offset);
                self.moved = true;
            }
            self.out.pop_front();
        }
        Ok(())
    }

    fn deliver(&mut self, shard: ShardId, offset: Offset, body: &Bytes) {
        let Feed { topic, form, qos, id, inbox, .. } = &self.feed;
        let (properties, payload) = form.of_event(body);
        let (topic, qos) = (topic.clone(), *qos);
        let message = Message { topic, qos, properties, payload, ..Message::empty() };
        self.next += 1;
        let delivery =
            Delivery { ids: SubscriptionIds::from(*id), ..numbered(self.next, qos, message) };
        self.out.push_back(Out { number: self.next, shard, offset, taken: false });
        tell(inbox, Notice::Deliver(vec![delivery]));
    }

    /// Whether events of a channel are wanted.
    fn wants(&self, channel: Option<&str>) -> bool {
        self.feed.channel.as_ref().is_none_or(|wanted| channel == Some(wanted.as_str()))
    }

    /// An event as applications get it; [`None`] for what they have no word for, or do not want.
    fn cloud_event(&mut self, shard: ShardId, event: &Event) -> Option<Bytes> {
        if event.event.kind == EventKind::Message {
            let Some(said) = CloudEvent::read(&event.event.body) else {
                self.is_unreadable(shard, event);
                return None;
            };
            return self.wants(said.get("subject")).then(|| event.event.body.clone());
        }
        if !self.wants(Some(CONNECTION)) || event.event.kind != EventKind::Presence {
            return None;
        }
        let connected = match event.event.channel.as_str() {
            "connected" => true,
            "disconnected" => false,
            _ => return None,
        };
        let id = format!("{}-{}", shard.0, event.offset.0);
        let tenant = self.feed.tenant.0.to_string();
        let device = format!("{tenant}-{}", event.born.unwrap_or_default());
        let named = (event.device.as_str(), device.as_str());
        let names = Names {
            application: (self.feed.application.as_str(), &tenant),
            device: named,
            sender: named,
        };
        Some(CloudEvent::connection(&id, event.at, &names, connected).structured())
    }

    fn is_unreadable(&mut self, shard: ShardId, event: &Event) {
        self.feed.door.metrics.unreadable.inc();
        if !std::mem::replace(&mut self.warned, true) {
            let (tenant, shard, offset) = (self.feed.tenant.0, shard.0, event.offset.0);
            warn!(
                tenant,
                shard, offset, "an event is no CloudEvent: its application is not sent it"
            );
        }
    }

    /// Says that it reads, and how far it is. `between`: nothing is on its way, so that it may give shards back.
    async fn renew(&mut self, between: bool) -> Result<(), Lost> {
        self.renew_at = Instant::now() + RENEW;
        let Some(member) = &mut self.member else { return Ok(()) };
        // Before its streams are told, which may take a while: others measure how long it says nothing.
        let own = member.renew(&self.feed.door, self.cursor.as_ref(), between).await;
        self.commit().await;
        self.left.extend(self.own.difference(&own));
        (self.own, self.owes) = (own, !between);
        if self.own.is_empty() { Err(Lost) } else { Ok(()) }
    }

    async fn commit(&mut self) {
        let (Some(member), Some(cursor), true) = (&mut self.member, &self.cursor, self.moved)
        else {
            return;
        };
        // Otherwise the next time.
        self.moved = !member.commit(&self.feed.door, cursor).await;
    }

    async fn end(mut self) {
        while let Some(number) = self.taken.take() {
            if let Some(out) = self.out.iter().find(|out| out.number == number)
                && let Some(cursor) = &mut self.cursor
            {
                cursor.set(out.shard, out.offset);
                self.moved = true;
            }
        }
        if let Some(place) = self.place.take() {
            // Perhaps nobody goes on there.
            place.send(self.cursor.clone()).unwrap_or_default();
        }
        self.commit().await;
        if let Some(member) = &mut self.member {
            member.leave(&self.feed.door, self.cursor.as_ref()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_never_lost_and_nothing_else_is_kept() {
        let taken = Taken::default();
        taken.waits_from(100);
        // However much was out when the feed began again.
        (0..100).for_each(|number| taken.put(number));
        assert_eq!(taken.take(), None);
        (100..200).rev().for_each(|number| taken.put(number));
        assert_eq!((taken.take(), taken.take()), (Some(100), Some(101)));
        taken.waits_from(200);
        assert_eq!(taken.take(), None);
    }
}
