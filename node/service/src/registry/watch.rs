//! News of devices for those who serve one: mail is ready, a call waits, shared attributes changed, or the device was changed or
//! deleted. And for those who have called one: the call has ended.
//!
//! ```text
//!   effect at the shard's leader ─► pending, a moment ─► a frame to every node ─► whoever watches the device there
//! ```
//!
//! They are pending until nothing else can run: whoever waits for the answer to the command behind them has it first, and
//! news of a busy shard go out together.
//!
//! # Invariants
//!
//! - **News are hints.** Whoever hears them asks the shard ([`Registry::next_mail`], [`Registry::device`]); losing one loses
//!   nothing but time. A new leader says so to everybody ([`DeviceNews::Anew`]), since its predecessor may have died with news
//!   untold, and watchers ask again by themselves after [`RECHECK`].
//! - **Of a device's connections the last stays.** Which is the last says the shard's leader, which gives each that asks a place:
//!   nodes may be asked by one device faster than they tell each other. Who hears of a later place than its own ends; who hears of
//!   an earlier one says its own, so the order of what nodes hear does not matter. While a shard has no leader, nobody ends.
//! - **Bounded**: one entry for each connection that watches, a few flags each; a frame tells of [`NEWS_PER_FRAME_MAX`] devices, and
//!   so many are pending at most.
//!
//! Checked by the tests below and by the cluster tests (`fostrom.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, TenantId, Text, op::Denial, shard::Shards};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, timeout},
};
use tracing::debug;

use super::Registry;
use crate::service::Inner;

/// After how long without news a watcher should ask by itself: news may be lost with a connection between nodes.
pub const RECHECK: Duration = Duration::from_secs(60);
/// After how long it should ask again when the shard could not answer.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Devices that one frame tells of; more go in several.
const NEWS_PER_FRAME_MAX: usize = 1_024;
const VERSION: u8 = 1;
/// Room that most frames fit into.
const FRAME_BYTES: usize = 128;

/// News that wait until nothing else can run, by shard.
#[derive(Debug, Default)]
pub(crate) struct PendingNews(Mutex<BTreeMap<ShardId, Vec<DeviceNews>>>);

/// What is to be done about news that were added.
#[derive(Debug, PartialEq, Eq)]
enum Added {
    /// They are the first: somebody has to spread them in a moment.
    First,
    /// Somebody will.
    More,
    /// There is no room for more: they are to be spread now.
    Full,
}

impl PendingNews {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ShardId, Vec<DeviceNews>>> {
        // Every change is one list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, shard: ShardId, news: Vec<DeviceNews>) -> Added {
        let mut all = self.all();
        let first = all.is_empty();
        all.entry(shard).or_default().extend(news);
        if all.values().map(Vec::len).sum::<usize>() >= NEWS_PER_FRAME_MAX {
            return Added::Full;
        }
        if first { Added::First } else { Added::More }
    }

    fn take(&self) -> BTreeMap<ShardId, Vec<DeviceNews>> {
        mem::take(&mut *self.all())
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Another mail may be at the front.
    pub mail: bool,
    /// The device may have been changed or deleted.
    pub device: bool,
    /// Another connection is the device now.
    pub taken_over: bool,
    /// Shared attributes may have been set or deleted: ask for what changed since the version that was read last.
    pub attributes: bool,
    /// A call may wait for the device.
    pub calls: bool,
    /// The call that is watched may have ended.
    pub outcome: bool,
    /// A call to the device may have ended: for who sends the next one then.
    pub ended: bool,
}

impl Heard {
    /// For who has heard nothing for long: all but who the device is may be otherwise.
    pub const ANYTHING: Self = Self {
        mail: true,
        device: true,
        taken_over: false,
        attributes: true,
        calls: true,
        outcome: true,
        ended: true,
    };
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeviceNews {
    /// Another mail is at the front.
    Mail(TenantId, Text),
    /// A device was made, changed or deleted.
    Device(TenantId, Text),
    /// The shard has a new leader: anything may have happened to its devices.
    Anew,
    /// A connection asks the shard's leader for its place: it wants to be the device, and no other.
    Claim(TenantId, Text, u128),
    /// From the leader: this connection is the device now, and those with a lower place are not.
    Here(TenantId, Text, u128, Place),
    /// Shared attributes of a device were set or deleted.
    Attributes(TenantId, Text),
    /// A call waits for a device.
    Calls(TenantId, Text),
    /// A call to a device has ended, or went out and wants no answer.
    Outcome(TenantId, Text, u128),
}

/// Which of a device's connections came last: the leader's term, and its count. Only one leader gives places in a term.
type Place = (u64, u64);

pub(crate) fn encode(news: &[DeviceNews]) -> Bytes {
    let mut out = Writer::new(VERSION, FRAME_BYTES);
    for one in news {
        let (kind, whose) = match one {
            DeviceNews::Mail(tenant, device) => (1, Some((tenant, device))),
            DeviceNews::Device(tenant, device) => (2, Some((tenant, device))),
            DeviceNews::Anew => (3, None),
            DeviceNews::Claim(tenant, device, _) => (4, Some((tenant, device))),
            DeviceNews::Here(tenant, device, ..) => (6, Some((tenant, device))),
            DeviceNews::Attributes(tenant, device) => (5, Some((tenant, device))),
            DeviceNews::Calls(tenant, device) => (7, Some((tenant, device))),
            DeviceNews::Outcome(tenant, device, _) => (8, Some((tenant, device))),
        };
        out.u8(kind);
        if let Some((tenant, device)) = whose {
            out.u32(tenant.0);
            out.text(device);
        }
        match one {
            DeviceNews::Claim(_, _, id) | DeviceNews::Outcome(_, _, id) => out.u128(*id),
            DeviceNews::Here(_, _, id, (term, count)) => {
                out.u128(*id);
                out.u64(*term);
                out.u64(*count);
            }
            DeviceNews::Mail(..)
            | DeviceNews::Device(..)
            | DeviceNews::Anew
            | DeviceNews::Attributes(..)
            | DeviceNews::Calls(..) => {}
        }
    }
    out.done()
}

pub(crate) fn decode(bytes: Bytes) -> Result<Vec<DeviceNews>, StorageError> {
    let mut from = Reader::new(bytes, VERSION, "news frame")?;
    let mut news = Vec::new();
    while !from.is_empty() {
        if news.len() == NEWS_PER_FRAME_MAX {
            return Err(from.corrupt("more news than a frame may have".to_owned()));
        }
        news.push(match from.u8()? {
            1 => DeviceNews::Mail(TenantId(from.u32()?), from.text()?),
            2 => DeviceNews::Device(TenantId(from.u32()?), from.text()?),
            3 => DeviceNews::Anew,
            4 => DeviceNews::Claim(TenantId(from.u32()?), from.text()?, from.u128()?),
            5 => DeviceNews::Attributes(TenantId(from.u32()?), from.text()?),
            6 => {
                let (tenant, device) = (TenantId(from.u32()?), from.text()?);
                DeviceNews::Here(tenant, device, from.u128()?, (from.u64()?, from.u64()?))
            }
            7 => DeviceNews::Calls(TenantId(from.u32()?), from.text()?),
            8 => DeviceNews::Outcome(TenantId(from.u32()?), from.text()?, from.u128()?),
            other => return Err(from.corrupt(format!("news {other}"))),
        });
    }
    Ok(news)
}

/// What a connection knows of being the device.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claim {
    /// It wants to be the only one.
    made: bool,
    /// Its own place, once the leader gave it one.
    own: Option<Place>,
    /// The last of the others.
    other: Option<Place>,
}

/// What is to be done about a place that was heard of.
#[derive(Debug, PartialEq, Eq)]
enum Placed {
    /// Nothing yet.
    Waits,
    /// Another came later.
    Yields,
    /// Another came earlier, and may not know.
    Stays(Place),
}

impl Claim {
    /// A place was given, to this connection or to another one.
    fn hear(&mut self, is_own: bool, place: Place) -> Placed {
        if !self.made {
            return Placed::Waits;
        }
        let known = if is_own { &mut self.own } else { &mut self.other };
        *known = (*known).max(Some(place));
        match (self.own, self.other) {
            (Some(own), Some(other)) if own < other => Placed::Yields,
            (Some(own), Some(_)) if !is_own => Placed::Stays(own),
            _ => Placed::Waits,
        }
    }

    fn is_unplaced(&self) -> bool {
        self.made && self.own.is_none()
    }
}

#[derive(Debug)]
struct Flags {
    /// The process, and which watch of it.
    id: u128,
    /// Whose outcome is watched, by who has called the device; such a one does not serve it.
    call: Option<u128>,
    mail: AtomicBool,
    device: AtomicBool,
    claim: Mutex<Claim>,
    taken_over: AtomicBool,
    attributes: AtomicBool,
    calls: AtomicBool,
    outcome: AtomicBool,
    ended: AtomicBool,
    bell: Notify,
}

impl Flags {
    fn new(id: u128, call: Option<u128>) -> Self {
        Self {
            id,
            call,
            mail: AtomicBool::default(),
            device: AtomicBool::default(),
            claim: Mutex::default(),
            taken_over: AtomicBool::default(),
            attributes: AtomicBool::default(),
            calls: AtomicBool::default(),
            outcome: AtomicBool::default(),
            ended: AtomicBool::default(),
            bell: Notify::default(),
        }
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        // Every change is one field.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, heard: Heard) {
        if heard.mail {
            self.mail.store(true, Ordering::Relaxed);
        }
        if heard.device {
            self.device.store(true, Ordering::Relaxed);
        }
        if heard.taken_over {
            self.taken_over.store(true, Ordering::Relaxed);
        }
        if heard.attributes {
            self.attributes.store(true, Ordering::Relaxed);
        }
        if heard.calls {
            self.calls.store(true, Ordering::Relaxed);
        }
        if heard.outcome {
            self.outcome.store(true, Ordering::Relaxed);
        }
        if heard.ended {
            self.ended.store(true, Ordering::Relaxed);
        }
        // A permit is kept for a watcher that is busy.
        self.bell.notify_one();
    }
}

type Whose = (TenantId, Text);

/// Who watches which device on this node.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<Whose, Vec<Arc<Flags>>>>);

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<Whose, Vec<Arc<Flags>>>> {
        self.0.lock().expect("no panic while watchers are locked")
    }

    /// A tenant was changed, disabled or deleted: all who watch a device of it ask.
    pub(crate) fn tell_tenant(&self, tenant: TenantId) {
        let all = self.all();
        let of_tenant = all.iter().filter(|((of, _), _)| *of == tenant);
        let heard = Heard { device: true, ..Heard::default() };
        of_tenant.flat_map(|(_, watching)| watching).for_each(|flags| flags.raise(heard));
    }

    /// Tells who watches. Gives what is to be said in return: who has a later place says so to one with an earlier, which may have
    /// come after that was told.
    fn tell(&self, shard: ShardId, shards: Shards, news: Vec<DeviceNews>) -> Vec<DeviceNews> {
        let (all, mut stay) = (self.all(), Vec::new());
        if all.is_empty() {
            return stay;
        }
        for one in news {
            let (whose, heard) = match one {
                DeviceNews::Mail(tenant, device) => {
                    ((tenant, device), Heard { mail: true, ..Heard::default() })
                }
                DeviceNews::Device(tenant, device) => {
                    ((tenant, device), Heard { device: true, ..Heard::default() })
                }
                DeviceNews::Attributes(tenant, device) => {
                    ((tenant, device), Heard { attributes: true, ..Heard::default() })
                }
                DeviceNews::Calls(tenant, device) => {
                    ((tenant, device), Heard { calls: true, ..Heard::default() })
                }
                DeviceNews::Outcome(tenant, device, id) => {
                    for flags in all.get(&(tenant, device)).into_iter().flatten() {
                        match flags.call {
                            None => flags.raise(Heard { ended: true, ..Heard::default() }),
                            Some(of) if of == id => {
                                flags.raise(Heard { outcome: true, ..Heard::default() });
                            }
                            Some(_) => {}
                        }
                    }
                    continue;
                }
                // For the leader.
                DeviceNews::Claim(..) => continue,
                DeviceNews::Here(tenant, device, id, place) => {
                    let whose = (tenant, device);
                    let taken_over = Heard { taken_over: true, ..Heard::default() };
                    for flags in all.get(&whose).into_iter().flatten() {
                        let placed = flags.claim().hear(flags.id == id, place);
                        match placed {
                            Placed::Waits => {}
                            Placed::Yields => flags.raise(taken_over),
                            Placed::Stays(own) => {
                                let (tenant, device) = whose.clone();
                                stay.push(DeviceNews::Here(tenant, device, flags.id, own));
                            }
                        }
                    }
                    continue;
                }
                DeviceNews::Anew => {
                    let of_shard =
                        |(tenant, device): &Whose| shards.of(*tenant, device.as_bytes()) == shard;
                    let there = all.iter().filter(|(whose, _)| of_shard(whose));
                    there
                        .flat_map(|(_, watching)| watching)
                        .for_each(|flags| flags.raise(Heard::ANYTHING));
                    continue;
                }
            };
            all.get(&whose).into_iter().flatten().for_each(|flags| flags.raise(heard));
        }
        stay
    }
}

/// One who watches a device, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    whose: Whose,
    flags: Arc<Flags>,
}

impl Watch {
    /// Waits for news. Losing the future loses none.
    pub async fn heard(&self) -> Heard {
        loop {
            let take = |flag: &AtomicBool| flag.swap(false, Ordering::Relaxed);
            let heard = Heard {
                mail: take(&self.flags.mail),
                device: take(&self.flags.device),
                taken_over: take(&self.flags.taken_over),
                attributes: take(&self.flags.attributes),
                calls: take(&self.flags.calls),
                outcome: take(&self.flags.outcome),
                ended: take(&self.flags.ended),
            };
            if heard != Heard::default() {
                return heard;
            }
            let bell = self.flags.bell.notified();
            if !self.flags.claim().is_unplaced() {
                bell.await;
            } else if timeout(ASK_AGAIN, bell).await.is_err() {
                self.claim();
            }
        }
    }

    /// Returns when a connection of the device may not stay: when its time is up (milliseconds since 1970), or when `stays`, which is
    /// asked when the device may have changed, and from time to time whatever else is heard, says so for sure.
    pub async fn until_revoked<F>(
        &self,
        until_ms: Option<u64>,
        now_ms: impl Fn() -> u64,
        stays: impl Fn() -> F,
    ) where
        F: Future<Output = Result<(), Denial>>,
    {
        let mut again_at = Instant::now() + RECHECK;
        loop {
            let left_ms = until_ms.map(|until| until.saturating_sub(now_ms()));
            if left_ms == Some(0) {
                return;
            }
            let left = left_ms.map_or(RECHECK, Duration::from_millis);
            // Also without news: they may be lost with a connection between nodes.
            let until_again = again_at.saturating_duration_since(Instant::now());
            let heard = timeout(left.min(until_again), self.heard()).await;
            if heard.is_ok_and(|heard| !heard.device) && Instant::now() < again_at {
                continue;
            }
            let later = match stays().await {
                Ok(()) => RECHECK,
                Err(Denial::Unavailable) => ASK_AGAIN,
                Err(_) => return,
            };
            again_at = Instant::now() + later;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.inner.watchers.all();
        let Some(watching) = all.get_mut(&self.whose) else { return };
        watching.retain(|flags| !Arc::ptr_eq(flags, &self.flags));
        if watching.is_empty() {
            all.remove(&self.whose);
        }
    }
}

impl Registry {
    /// Watches a device from now on. Ask for its state afterwards: news from before are not told.
    #[must_use]
    pub fn watch(&self, tenant: TenantId, device: &Text) -> Watch {
        self.watch_as(tenant, device, None)
    }

    /// Watches what becomes of a call to a device. Ask for it afterwards, as of [`watch`](Self::watch).
    #[must_use]
    pub fn watch_call(&self, tenant: TenantId, device: &Text, id: u128) -> Watch {
        self.watch_as(tenant, device, Some(id))
    }

    fn watch_as(&self, tenant: TenantId, device: &Text, call: Option<u128>) -> Watch {
        let whose = (tenant, device.clone());
        let process = u128::from(self.inner.incarnation.0) << 64;
        let number = self.inner.watches.fetch_add(1, Ordering::Relaxed);
        let flags = Arc::new(Flags::new(process | u128::from(number), call));
        let mut all = self.inner.watchers.all();
        all.entry(whose.clone()).or_default().push(Arc::clone(&flags));
        drop(all);
        Watch { inner: Arc::clone(&self.inner), whose, flags }
    }
}

impl Watch {
    /// From now on this connection is the device: others that said so before, on whichever node, hear that they are not any more.
    pub fn take_over(&self) {
        self.flags.claim().made = true;
        self.claim();
    }

    /// Asks the leader for a place. It may be lost, and there may be no leader: [`Watch::heard`] asks again.
    fn claim(&self) {
        let (tenant, device) = self.whose.clone();
        let shard = self.inner.shards.of(tenant, device.as_bytes());
        let frame = encode(&[DeviceNews::Claim(tenant, device, self.flags.id)]);
        let told = self.inner.below().router.tell_leader(shard, Kind::News, frame);
        debug!(%shard, device = %self.whose.1, ?told, "asked to be the device");
    }
}

impl Inner {
    /// The same in a moment: see the module.
    pub(crate) fn spread_news_soon(&self, shard: ShardId, news: Vec<DeviceNews>) {
        if news.is_empty() {
            return;
        }
        match self.pending_news.add(shard, news) {
            Added::More => {}
            Added::Full => self.spread_pending(),
            Added::First => {
                let Some(service) = self.myself.upgrade() else { return };
                self.tasks.spawn(async move {
                    yield_now().await;
                    service.spread_pending();
                });
            }
        }
    }

    fn spread_pending(&self) {
        self.pending_news
            .take()
            .into_iter()
            .for_each(|(shard, news)| self.spread_news(shard, news));
    }

    /// Tells all nodes, this one included. Those that can't be reached hear from the next leader, or ask by themselves.
    pub(crate) fn spread_news(&self, shard: ShardId, mut news: Vec<DeviceNews>) {
        while !news.is_empty() {
            let rest = news.split_off(news.len().min(NEWS_PER_FRAME_MAX));
            let below = self.below();
            let frame = encode(&news);
            for node in self.known_nodes().into_iter().filter(|node| *node != self.node) {
                if below.peers.send(node, Lane::Data, Kind::News, shard, frame.clone()).is_err() {
                    self.metrics.news_lost.inc();
                }
            }
            self.hear_news(shard, mem::replace(&mut news, rest));
        }
    }

    fn hear_news(&self, shard: ShardId, mut news: Vec<DeviceNews>) {
        for one in &mut news {
            if let DeviceNews::Claim(tenant, device, id) = one
                && let Some(place) = self.place(shard)
            {
                let here = DeviceNews::Here(*tenant, mem::take(device), *id, place);
                self.spread_news(shard, vec![here]);
            }
        }
        let of_shard = |tenant, device: &Text| self.shards.of(tenant, device.as_bytes()) == shard;
        self.holders.hear(of_shard, &news);
        let stay = self.watchers.tell(shard, self.shards, news);
        // Ends: each that says so in return has a later place.
        self.spread_news(shard, stay);
    }

    /// The next place in a shard; `None` unless this node leads it. Another leader's are of another term.
    fn place(&self, shard: ShardId) -> Option<Place> {
        let role = *self.below().groups.role(shard)?.borrow();
        let count = || self.places.fetch_add(1, Ordering::Relaxed);
        role.leading.then(|| (role.term, count()))
    }

    /// From a shard's leader, or a node where a device has come.
    pub(crate) fn on_news(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        _: Option<Replier>,
    ) {
        match decode(body) {
            Ok(news) => self.hear_news(shard, news),
            Err(problem) => self.bad_frame(from, &problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(device: &str) -> (TenantId, Text) {
        (TenantId(7), Text::from(device))
    }

    fn watching(watchers: &Watchers, device: &str) -> Arc<Flags> {
        let id = watchers.all().values().flatten().count() as u128;
        let flags = Arc::new(Flags::new(id, None));
        watchers.all().entry(whose(device)).or_default().push(Arc::clone(&flags));
        flags
    }

    fn heard(flags: &Flags) -> (bool, bool) {
        let take = |flag: &AtomicBool| flag.swap(false, Ordering::Relaxed);
        (take(&flags.mail), take(&flags.device))
    }

    #[test]
    fn pending_news_are_spread_together_and_so_many_at_most() {
        let pending = PendingNews::default();
        let one = || vec![DeviceNews::Mail(TenantId(7), "d".into())];
        assert_eq!(pending.add(ShardId(1), one()), Added::First);
        assert_eq!(pending.add(ShardId(1), one()), Added::More);
        assert_eq!(pending.add(ShardId(2), one()), Added::More);
        let taken: Vec<_> =
            pending.take().into_iter().map(|(shard, news)| (shard.0, news.len())).collect();
        assert_eq!(taken, [(1, 2), (2, 1)]);
        assert_eq!(pending.add(ShardId(2), one()), Added::First, "there was nothing left");
        let rest = (1..NEWS_PER_FRAME_MAX).map(|_| pending.add(ShardId(1), one()));
        assert_eq!(rest.last(), Some(Added::Full));
    }

    #[test]
    fn news_reach_who_watches_that_device_and_a_new_leader_all_of_its_shard() {
        let (watchers, shards) = (Watchers::default(), Shards::new(3));
        let (pump, valve) = (watching(&watchers, "pump"), watching(&watchers, "valve"));
        let again = watching(&watchers, "pump");
        let of = |device: &str| shards.of(TenantId(7), device.as_bytes());
        let (tenant, name) = whose("pump");
        let news = vec![DeviceNews::Mail(tenant, name.clone())];
        watchers.tell(of("pump"), shards, decode(encode(&news)).unwrap());
        assert_eq!(
            [heard(&pump), heard(&again), heard(&valve)],
            [(true, false), (true, false), (false, false)]
        );
        watchers.tell(
            of("pump"),
            shards,
            decode(encode(&[DeviceNews::Device(tenant, name)])).unwrap(),
        );
        assert_eq!([heard(&pump), heard(&valve)], [(false, true), (false, false)]);
        let (tenant, name) = whose("valve");
        let attributes = [DeviceNews::Attributes(tenant, name)];
        watchers.tell(of("valve"), shards, decode(encode(&attributes)).unwrap());
        let changed = |flags: &Flags| flags.attributes.swap(false, Ordering::Relaxed);
        assert_eq!([changed(&pump), changed(&valve)], [false, true]);
        watchers.tell(of("valve"), shards, decode(encode(&[DeviceNews::Anew])).unwrap());
        assert!(changed(&valve));
        let same = of("pump") == of("valve");
        assert_eq!([heard(&pump), heard(&valve)], [(same, same), (true, true)]);
    }

    #[test]
    fn a_call_is_told_to_who_serves_the_device_and_its_outcome_to_who_made_it() {
        let (watchers, shards) = (Watchers::default(), Shards::new(1));
        let serves = watching(&watchers, "pump");
        let callers = [7, 8].map(|id| {
            let flags = Arc::new(Flags::new(id, Some(id)));
            watchers.all().entry(whose("pump")).or_default().push(Arc::clone(&flags));
            flags
        });
        let (tenant, name) = whose("pump");
        let tell = |one: DeviceNews| {
            let news = one.clone();
            watchers.tell(ShardId(1), shards, decode(encode(&[one])).unwrap());
            let take = |flag: &AtomicBool| flag.swap(false, Ordering::Relaxed);
            let outcomes = [&serves, &callers[0], &callers[1]].map(|flags| take(&flags.outcome));
            assert!(!callers.iter().any(|flags| take(&flags.ended)) || news == DeviceNews::Anew);
            (take(&serves.calls), take(&serves.ended), outcomes)
        };
        assert_eq!(tell(DeviceNews::Calls(tenant, name.clone())), (true, false, [false; 3]));
        let outcome = |id| DeviceNews::Outcome(tenant, name.clone(), id);
        assert_eq!(tell(outcome(8)), (false, true, [false, false, true]));
        assert_eq!(tell(outcome(9)), (false, true, [false; 3]));
        assert_eq!(tell(DeviceNews::Anew), (true, true, [true; 3]), "whoever leads now knows more");
    }

    #[test]
    fn a_change_of_a_tenant_reaches_all_who_watch_its_devices() {
        let watchers = Watchers::default();
        let (pump, valve) = (watching(&watchers, "pump"), watching(&watchers, "valve"));
        watchers.tell_tenant(TenantId(8));
        assert_eq!([heard(&pump), heard(&valve)], [(false, false), (false, false)]);
        watchers.tell_tenant(TenantId(7));
        assert_eq!([heard(&pump), heard(&valve)], [(false, true), (false, true)]);
    }

    /// Two connections that claim a device, and one that only listens.
    struct Two {
        watchers: Watchers,
        flags: [Arc<Flags>; 3],
    }

    impl Two {
        fn new() -> Self {
            let watchers = Watchers::default();
            let flags = [(); 3].map(|()| watching(&watchers, "pump"));
            flags[..2].iter().for_each(|flags| flags.claim().made = true);
            Self { watchers, flags }
        }

        /// Who is taken over when a place is told of, and what is said in return.
        fn hear(&self, id: u128, place: Place) -> ([bool; 3], Vec<DeviceNews>) {
            let (tenant, name) = whose("pump");
            let news = decode(encode(&[DeviceNews::Here(tenant, name, id, place)])).unwrap();
            let said = self.watchers.tell(ShardId(1), Shards::new(1), news);
            let taken = |flags: &Arc<Flags>| flags.taken_over.swap(false, Ordering::Relaxed);
            (self.flags.each_ref().map(taken), said)
        }
    }

    #[test]
    fn of_connections_that_are_one_device_the_last_stays_in_whatever_order_they_are_heard_of() {
        let (tenant, name) = whose("pump");
        let here = |id, place| DeviceNews::Here(tenant, name.clone(), id, place);
        let two = Two::new();
        let [first, second, _] = two.flags.each_ref().map(|flags| flags.id);
        assert_eq!(two.hear(first, (3, 1)), ([false; 3], vec![]), "it is alone");
        assert_eq!(two.hear(second, (3, 2)), ([true, false, false], vec![]));
        assert_eq!(two.hear(u128::MAX, (4, 0)), ([true, true, false], vec![]), "of another node");
        // The other way around: who came last says so to who came first.
        let two = Two::new();
        assert_eq!(two.hear(second, (3, 2)), ([false; 3], vec![]));
        let stays = vec![here(second, (3, 2))];
        assert_eq!(two.hear(first, (3, 1)), ([true, false, false], stays));
        // An old leader's place is an early one, however many it gave.
        assert_eq!(two.hear(u128::MAX, (2, 9)).0, [true, false, false], "the second stays");
        assert_eq!(two.hear(u128::MAX, (2, 9)).1.last(), Some(&here(second, (3, 2))));
    }

    #[test]
    fn a_connection_without_a_place_asks_again_and_yields_to_nobody() {
        let two = Two::new();
        let [first, ..] = two.flags.each_ref().map(|flags| flags.id);
        assert_eq!(two.hear(u128::MAX, (3, 1)), ([false; 3], vec![]));
        assert!(two.flags[0].claim().is_unplaced());
        assert!(!two.flags[2].claim().is_unplaced(), "it never asked");
        assert_eq!(two.hear(first, (3, 2)), ([false; 3], vec![]), "it came later");
        assert!(!two.flags[0].claim().is_unplaced());
    }

    #[test]
    fn a_frame_that_is_no_news_is_refused() {
        for wrong in [&b""[..], &[1, 9], &[1, 1, 0, 0], &[2]] {
            assert!(decode(Bytes::copy_from_slice(wrong)).is_err(), "{wrong:?}");
        }
    }
}
