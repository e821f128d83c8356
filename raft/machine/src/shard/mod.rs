//! What a shard knows: sessions with their queues, and which filters they hold.
//!
//! ```text
//!   sessions.rs       open, close, node gone, the end of a session
//!   subscriptions.rs  filters of sessions, filters of the shard
//!   queue.rs          publish, settle, read
//!   once.rs           QoS 2: numbers of publishes, what was heard of them, releases
//!   numbers.rs        which numbers came from one publisher
//!   wills.rs          what is published when a client is gone without a goodbye
//!   shares.rs         sessions that take turns at one queue
//!   left.rs           those that did until a while ago
//!   retained.rs       what is kept of topics for those who subscribe later
//!   awaited.rs        sessions that are still to get what is retained
//!   mailbox.rs        mail, which waits for its device
//!   devices.rs        devices with their credentials, and how they are found
//!   forget.rs         what deleted devices and tenants left here
//!   streams.rs        events, which devices send up
//!   values.rs         attributes, latest values and history of devices
//!   calls.rs          what devices are asked to do, and what they answer
//!   documents.rs      what is kept for others to understand
//!   presence.rs       who is connected, and who is silent for how long
//!   tally.rs          what came into queues and left them
//!   shared.rs         messages that several queues have, and who still refers to them
//!   (here)            the state, how it is derived from rows, what is written at the end of a batch, deadlines
//! ```
//!
//! # Invariants
//!
//! - **Derived.** Everything here but the scratch space comes from rows; checked by [`ShardState::assert_same`] in
//!   `tests/rules/replicas.rs` and the simulator.
//! - **Head and tail never go back**, and every offset is handed out once. Checked by `tests/rules/queues.rs`.
//! - **One batch does a bounded amount of removing**; the rest waits for a `Tick`. See the limits below.

mod awaited;
mod calls;
mod devices;
mod documents;
mod forget;
mod left;
mod mailbox;
mod numbers;
mod once;
mod presence;
mod queue;
mod retained;
mod sessions;
mod shared;
mod shares;
mod streams;
mod subscriptions;
mod tally;
mod values;
mod wills;

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{
    Epoch, Grant, NodeId, Offset, ShardId, SubscriptionOptions, TenantId, Text, UnixMillis,
    port::SessionLimits, topic, trie::Trie,
};
use moorline_storage::{
    Rows, StorageError, View,
    key::{self, Kind},
};

pub use self::calls::{CallsFound, CallsQuery};
pub use self::mailbox::{MailPage, Mailboxes};
pub use self::presence::PresenceCounts;
pub(crate) use self::sessions::Opening;
pub use self::shares::{SHARE_MEMBERS_MAX, SHARES_PER_SHARD_MAX, ShareInfo};
pub use self::streams::{ConsumersPage, EventsPage, EventsQuery, StreamTotals, Streams};
pub use self::tally::{MailTally, QueueTally};
pub use self::values::{AggregateQuery, HistoryQuery, HistoryTotals};
pub use self::wills::{DUE_WILLS_MAX, DueWill};
use self::{
    awaited::Awaited, left::Left, once::Origins, retained::Retained, shared::SharedRefs,
    shares::Share, wills::Wills,
};
pub use self::{
    awaited::{AWAIT_MS, AWAITED_TOPICS_MAX, AWAITED_TOPICS_PER_SHARD_MAX},
    devices::{
        DEVICE_BUCKETS_PER_PAGE_MAX, DEVICES_PER_SHARD_MAX, DeviceCursor, DevicesPage,
        DevicesQuery, LOOKUPS_PER_SHARD_MAX, RegistryCounts,
    },
    retained::{
        RETAINED_BYTES_PER_TENANT_MAX, RETAINED_PER_TENANT_MAX, RetainedPage, RetainedQuery,
    },
};
pub use self::{
    left::{LEFT_MAX, LEFT_MS},
    numbers::{NUMBERS_SPAN_MAX, Numbers},
    once::{ORIGIN_IDLE_MS_MAX, ORIGINS_MAX},
};
use crate::{
    answer::Answer,
    command::{Holder, SessionId},
    forget::Forgetting,
    keys::{Keys, Suffix, each},
    registry::Owner,
    rows::{
        AwaitedRow, CountersRow, GarbageRow, LeftRow, MembershipRow, NumberRow, OriginRow,
        RetainedRow, Row, SessionRow, SubscriptionRow, WillRow, corrupt,
    },
    step::Step,
};

/// Messages in one session's queue, whatever its opening asked for. Beyond it new ones are dropped for this session, and
/// counted.
pub const SESSION_QUEUE_ITEMS_MAX: u32 = 100_000;
/// Bytes of messages in one session's queue; as above.
pub const SESSION_QUEUE_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Subscriptions of one session, whatever its opening asked for: they go with it in one `Tick`.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: u32 = 1_000;
/// The most that any session may take.
pub const SESSION_LIMITS_MAX: SessionLimits = SessionLimits {
    queue_items: SESSION_QUEUE_ITEMS_MAX,
    queue_bytes: SESSION_QUEUE_BYTES_MAX,
    subscriptions: SUBSCRIPTIONS_PER_SESSION_MAX,
};
/// Sessions of one shard: they are held in memory, about 300 bytes each.
pub const SESSIONS_PER_SHARD_MAX: usize = 1_000_000;
/// Sessions that one `NodeGone` detaches: a row each, so about 30 ms. Their wills, and those that end with their connection,
/// are left to `Tick`.
pub const SESSIONS_PER_NODE_GONE_MAX: usize = 20_000;
/// Sessions that one `Tick` ends.
pub const DEADLINES_PER_TICK_MAX: usize = 1_024;
/// Rows that go with them at once, about 100 ms: beyond it no further session ends in this `Tick`. A single one may have up to
/// 65,535 open publishes and twice [`SUBSCRIPTIONS_PER_SESSION_MAX`] rows for what it is subscribed to.
const ENDED_ROWS_PER_TICK_MAX: usize = 65_536;
/// Queue rows of ended sessions that one `Tick` removes: a few milliseconds.
pub const GARBAGE_ROWS_PER_TICK_MAX: usize = 4096;
/// Queue rows that go together with their session; a longer queue is left to `Tick`.
const GARBAGE_ROWS_AT_ONCE_MAX: u64 = 64;

#[derive(Debug)]
pub(crate) struct ShardState {
    keys: Keys,
    /// Those of clients, and a queue for each of `shares`.
    sessions: BTreeMap<SessionId, Session>,
    /// Those of clients, by name: what a deleted device left is found by it.
    names: BTreeSet<(TenantId, Text, SessionId)>,
    /// Devices deleted here of which other shards may have something.
    pub(crate) forgetting: Forgetting,
    shares: BTreeMap<SessionId, Share>,
    left: Left,
    /// What sessions are subscribed to by shares, which may be in other shards.
    shared_filters: BTreeMap<(SessionId, Text), MembershipRow>,
    /// Which sessions hold which filters, per tenant: tenants never meet.
    tries: BTreeMap<TenantId, Trie<SessionId, SubscriptionOptions>>,
    /// Sessions with a connection, by its node.
    held: BTreeSet<(NodeId, SessionId)>,
    /// Sessions without one, by when they end; not those that never do.
    expiring: BTreeSet<(UnixMillis, SessionId)>,
    /// Queues whose session is gone.
    garbage: BTreeMap<SessionId, GarbageRow>,
    counts: Counts,
    tally: QueueTally,
    /// Sessions whose counters changed in this batch.
    dirty: Vec<SessionId>,
    shared: SharedRefs,
    /// Publishes of QoS 2 that clients have not released yet: their numbers, by packet id.
    inbound: BTreeMap<(SessionId, u16), u64>,
    /// The same by number: the lowest is told with each publish.
    open: BTreeSet<(SessionId, u64)>,
    /// Publishes of QoS 2 that came here, by the session they came from.
    origins: Origins,
    wills: Wills,
    retained: Retained,
    awaited: Awaited,
    mailboxes: Mailboxes,
    streams: Streams,
    histories: values::Histories,
    calls: calls::Calls,
    documents: documents::Documents,
    registry: devices::Registry,
    presence: presence::Presences,
    /// Space for the matches of one message.
    found: Vec<(SessionId, Grant)>,
}

#[derive(Debug, PartialEq)]
struct Session {
    tenant: TenantId,
    client: Text,
    row: SessionRow,
    counters: CountersRow,
    subscriptions: u32,
    /// The delay of its will in seconds, if it has one.
    will: Option<u32>,
    /// Whether it is in `dirty`.
    dirty: bool,
}

/// How many of each thing a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sessions, with or without a connection.
    pub sessions: usize,
    /// Sessions with a connection.
    pub held: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Messages in all queues.
    pub queued_items: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Wills of sessions, with or without a connection.
    pub wills: usize,
    /// Wills that are due and not published yet.
    pub due_wills: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: u64,
    /// Devices and lookups, of all tenants.
    pub registry: RegistryCounts,
    /// Devices that are connected, and active.
    pub presence: PresenceCounts,
    /// Producers whose answers are remembered.
    pub producers: usize,
}

/// What is known of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionInfo<'a> {
    /// Its row id.
    pub id: SessionId,
    /// Whose.
    pub tenant: TenantId,
    /// The client id.
    pub client: &'a Text,
    /// How often it was opened.
    pub epoch: Epoch,
    /// The connection that has it.
    pub holder: Option<Holder>,
    /// The first offset that is not settled.
    pub head: Offset,
    /// The offset that the next message gets.
    pub tail: Offset,
    /// Messages queued.
    pub queued_items: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Copies that found the queue full, ever.
    pub dropped: u64,
    /// Seconds it outlives its connection; `u32::MAX` never ends.
    pub expiry_s: u32,
    /// Since when it has no connection, in log time.
    pub detached_at: Option<UnixMillis>,
    /// How many subscriptions it has.
    pub subscriptions: u32,
}

impl Session {
    /// When it ends, if it has no connection and does not last for ever.
    fn ends_at(&self) -> Option<UnixMillis> {
        let detached_at = self.row.detached_at?;
        let lasts_ms = u64::from(self.row.expiry_s) * 1000;
        (self.row.expiry_s != u32::MAX).then(|| UnixMillis(detached_at.0.saturating_add(lasts_ms)))
    }

    fn mark(&mut self, id: SessionId, dirty: &mut Vec<SessionId>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(id);
        }
    }
}

impl ShardState {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            sessions: BTreeMap::new(),
            names: BTreeSet::new(),
            forgetting: Forgetting::default(),
            shares: BTreeMap::new(),
            left: Left::default(),
            shared_filters: BTreeMap::new(),
            tries: BTreeMap::new(),
            held: BTreeSet::new(),
            expiring: BTreeSet::new(),
            garbage: BTreeMap::new(),
            counts: Counts::default(),
            tally: QueueTally::default(),
            dirty: Vec::new(),
            shared: SharedRefs::default(),
            inbound: BTreeMap::new(),
            open: BTreeSet::new(),
            origins: Origins::default(),
            wills: Wills::default(),
            retained: Retained::default(),
            awaited: Awaited::default(),
            mailboxes: Mailboxes::new(keys),
            streams: Streams::new(keys),
            histories: values::Histories::new(keys),
            calls: calls::Calls::new(keys),
            documents: documents::Documents::new(keys),
            registry: devices::Registry::default(),
            presence: presence::Presences::new(keys),
            found: Vec::new(),
        }
    }

    pub(crate) fn open(keys: Keys, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let mut state = Self::new(keys);
        if keys.group() == ShardId::META {
            return Ok(state);
        }
        // From bucket to bucket by their first rows: a queue is long and must not be walked.
        let mut next = Some(0);
        while let Some(bucket) = next {
            let Some(bucket) = first_bucket(keys, rows, bucket)? else { break };
            state.open_bucket(rows, bucket)?;
            state.mailboxes.open_bucket(rows, bucket)?;
            state.presence.open_bucket(rows, bucket)?;
            state.histories.open_bucket(rows, bucket)?;
            state.calls.open_bucket(rows, bucket)?;
            state.documents.open_bucket(rows, bucket)?;
            next = bucket.checked_add(1);
        }
        state.open_origins(rows)?;
        state.open_wills(rows)?;
        state.streams.open(rows)?;
        state.histories.open(rows)?;
        state.open_registry(rows)?;
        state.forgetting = Forgetting::open(keys, rows)?;
        state.tally.opened_with = state.counts.queued_items;
        state.mailboxes.begin_tally();
        Ok(state)
    }

    fn open_origins(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        each(rows, &self.keys.range(Kind::Origin), |mut suffix, row| {
            let id = SessionId { bucket: suffix.u16()?, number: suffix.u64()? };
            self.origins.insert(id, OriginRow::from_bytes(row)?);
            Ok(())
        })
    }

    #[expect(clippy::too_many_lines, reason = "a table: a few lines for each kind of row")]
    fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        let keys = self.keys;
        let scan = |kind, read: &mut dyn FnMut(Suffix<'_>, &_) -> Result<(), StorageError>| {
            each(rows, &keys.range_in(bucket, kind), read)
        };
        scan(Kind::Session, &mut |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let (client, row) = (suffix.text()?, SessionRow::from_bytes(row)?);
            let id = SessionId { bucket, number: row.number };
            self.names.insert((tenant, client.clone(), id));
            self.add(id, tenant, client, row);
            Ok(())
        })?;
        scan(Kind::Share, &mut |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let (filter, number) = (suffix.text()?, NumberRow::from_bytes(row)?.0);
            let inner = shares::inner_filter(&filter)
                .ok_or_else(|| corrupt("share", &"its filter is none"))?;
            self.add_share(SessionId { bucket, number }, tenant, filter, &inner);
            Ok(())
        })?;
        scan(Kind::ShareMember, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            let member = SessionId { bucket: suffix.u16()?, number: suffix.u64()? };
            let share = self.shares.get_mut(&id);
            let share = share.ok_or_else(|| corrupt("share member", &"there is no such share"))?;
            share.members.insert(member, MembershipRow::from_bytes(row)?);
            Ok(())
        })?;
        scan(Kind::ShareLeft, &mut |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let member = SessionId { bucket: suffix.u16()?, number: suffix.u64()? };
            self.left.insert((tenant, suffix.text()?, member), LeftRow::from_bytes(row)?);
            Ok(())
        })?;
        scan(Kind::Counters, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            let counters = CountersRow::from_bytes(row)?;
            self.known(id)?.counters = counters;
            self.counts.queued_items += counters.items;
            self.counts.queued_bytes += counters.bytes;
            Ok(())
        })?;
        scan(Kind::Subscription, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            let filter = suffix.text()?;
            let session = self.known(id)?;
            session.subscriptions += 1;
            let tenant = session.tenant;
            self.counts.subscriptions += 1;
            if topic::share(filter.as_bytes()).is_some() {
                self.shared_filters.insert((id, filter), MembershipRow::from_bytes(row)?);
                return Ok(());
            }
            let SubscriptionRow(options) = SubscriptionRow::from_bytes(row)?;
            self.tries.entry(tenant).or_default().insert(filter.as_bytes(), id, options);
            Ok(())
        })?;
        scan(Kind::Will, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            let WillRow(will) = WillRow::from_bytes(row)?;
            self.known(id)?;
            self.set_will(id, Some(will.delay_s));
            Ok(())
        })?;
        scan(Kind::Retained, &mut |mut suffix, row| {
            let (tenant, topic) = (TenantId(suffix.u32()?), suffix.text()?);
            self.open_retained(tenant, &topic, &RetainedRow::from_bytes(row)?);
            Ok(())
        })?;
        scan(Kind::RetainedOwner, &mut |mut suffix, row| {
            suffix.u32()?;
            self.open_retained_owner(suffix.text()?, &Owner::from_bytes(row)?);
            Ok(())
        })?;
        scan(Kind::Awaited, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            let topic = suffix.text()?;
            if topic.is_empty() {
                self.open_awaited(id, AwaitedRow::from_bytes(row)?);
            } else {
                self.open_noted(id, topic, NumberRow::from_bytes(row)?.0);
            }
            Ok(())
        })?;
        scan(Kind::Inbound, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            self.insert_inbound(id, suffix.u16()?, NumberRow::from_bytes(row)?.0);
            Ok(())
        })?;
        scan(Kind::Garbage, &mut |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            self.garbage.insert(id, GarbageRow::from_bytes(row)?);
            Ok(())
        })
    }

    fn known(&mut self, id: SessionId) -> Result<&mut Session, StorageError> {
        self.sessions
            .get_mut(&id)
            .ok_or_else(|| corrupt("rows of a session", &"there is no such session"))
    }

    /// Takes a session into memory.
    fn add(&mut self, id: SessionId, tenant: TenantId, client: Text, row: SessionRow) {
        let counters = CountersRow::default();
        let session =
            Session { tenant, client, row, counters, subscriptions: 0, will: None, dirty: false };
        self.index(id, &session);
        self.sessions.insert(id, session);
    }

    /// Enters a session where its holder, or its end, is looked up.
    fn index(&mut self, id: SessionId, session: &Session) {
        if let Some(holder) = session.row.holder {
            self.held.insert((holder.node, id));
        }
        if let Some(at) = session.ends_at() {
            self.expiring.insert((at, id));
        }
        if let Some(at) = session.will_due_at() {
            self.wills.pending.insert((at, id));
        }
    }

    fn unindex(&mut self, id: SessionId, session: &Session) {
        if let Some(holder) = session.row.holder {
            self.held.remove(&(holder.node, id));
        }
        if let Some(at) = session.ends_at() {
            self.expiring.remove(&(at, id));
        }
        if let Some(at) = session.will_due_at() {
            self.wills.pending.remove(&(at, id));
        }
    }

    /// Changes what a session's row says, in memory and in rows.
    fn update<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        change: impl FnOnce(&mut SessionRow),
    ) {
        let mut session = self.sessions.remove(&id).expect("the caller found it");
        self.unindex(id, &session);
        change(&mut session.row);
        step.put(
            self.keys.session(id.bucket, session.tenant, &session.client),
            session.row.to_bytes(),
        );
        self.index(id, &session);
        self.sessions.insert(id, session);
    }

    /// Writes what changed often in this batch: each row once.
    pub(crate) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for id in self.dirty.drain(..) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.dirty = false;
                step.put(self.keys.counters(id), session.counters.to_bytes());
            }
        }
        self.shared.flush(step);
        self.origins.flush(step);
        self.registry.flush(step);
        self.histories.flush(step);
        self.streams.flush(step);
    }

    pub(crate) fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.garbage.is_empty() {
            return Some(UnixMillis(0));
        }
        let expires = self.expiring.first().map(|(at, _)| *at);
        let will = self.wills.pending.first().map(|(at, _)| *at);
        let (retained, awaited) = (self.retained.next_deadline(), self.awaited.next_deadline());
        let (origin, left) = (self.origin_deadline(), self.left.next_deadline());
        let (mail, events) = (self.mailboxes.next_deadline(), self.streams.next_deadline());
        let (presence, history) = (self.presence.next_deadline(), self.histories.next_deadline());
        let of_devices = [mail, events, presence, history, self.calls.next_deadline()];
        let of_sessions = [expires, will, retained, awaited, origin, left];
        of_sessions.into_iter().chain(of_devices).flatten().min()
    }

    /// Ends sessions whose time has come, and removes a piece of what ended ones left.
    pub(crate) fn tick<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<Answer, StorageError> {
        self.fire_due(step)?;
        let mut released = Vec::new();
        let (mut sessions, mut rows) = (0, 0);
        while let Some(&(at, id)) = self.expiring.first()
            && at <= step.time
            && sessions < DEADLINES_PER_TICK_MAX
            && rows < ENDED_ROWS_PER_TICK_MAX
        {
            rows += self.remove(step, id, &mut released)?;
            sessions += 1;
        }
        self.forget_origins(step);
        self.expire_left(step);
        self.expire_retained(step);
        self.expire_awaited(step);
        self.mailboxes.tick(step)?;
        self.say_mail(step);
        self.tick_presence(step)?;
        self.streams.tick(step)?;
        self.histories.tick(step)?;
        self.calls.tick(step)?;
        self.collect_garbage(step)?;
        self.announce(step, &released);
        Ok(Answer::Released(released))
    }

    fn collect_garbage<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut budget = GARBAGE_ROWS_PER_TICK_MAX;
        while let (Some((&id, &row)), true) = (self.garbage.first_key_value(), budget > 0) {
            let (next, removed) = self.remove_items(step, id, row.from, row.tail, budget)?;
            // An empty rest counts too, so that many of them end.
            budget -= removed.max(1);
            if next == row.tail {
                self.garbage.remove(&id);
                step.delete(self.keys.garbage(id));
            } else {
                let row = GarbageRow { from: next, tail: row.tail };
                self.garbage.insert(id, row);
                step.put(self.keys.garbage(id), row.to_bytes());
            }
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        let sessions = self.sessions.len() - self.shares.len();
        let (held, due_wills, registry) =
            (self.held.len(), self.wills.due_len(), self.registry_total());
        let presence = self.presence.counts();
        Counts { sessions, held, due_wills, registry, presence, ..self.counts }
    }

    pub(crate) fn tally(&self) -> &QueueTally {
        &self.tally
    }

    /// By how much what was counted of queues differs from what is in them.
    pub(crate) fn imbalance(&self) -> u64 {
        self.tally.imbalance(self.counts.queued_items)
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<SessionInfo<'_>> {
        let of_client = !self.shares.contains_key(&id);
        self.sessions.get(&id).filter(|_| of_client).map(|session| session.info(id))
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionInfo<'_>> {
        let of_clients = self.sessions.iter().filter(|(id, _)| !self.shares.contains_key(id));
        of_clients.map(|(id, session)| session.info(*id))
    }

    /// # Panics
    ///
    /// If the two differ. `rows` are those of both.
    pub(crate) fn assert_same(
        &self,
        other: &Self,
        rows: &(impl View + ?Sized),
    ) -> Result<(), StorageError> {
        assert_eq!(self.sessions, other.sessions);
        assert_eq!(self.names, other.names);
        assert_eq!(self.forgetting, other.forgetting);
        assert_eq!(self.shares, other.shares);
        assert_eq!(self.left, other.left);
        assert_eq!(self.shared_filters, other.shared_filters);
        assert_eq!(self.held, other.held);
        assert_eq!(self.expiring, other.expiring);
        assert_eq!(self.garbage, other.garbage);
        assert_eq!(self.inbound, other.inbound);
        assert_eq!(self.open, other.open);
        assert_eq!(self.origins, other.origins);
        assert_eq!(self.wills, other.wills);
        assert_eq!(self.retained, other.retained);
        assert_eq!(self.awaited, other.awaited);
        self.mailboxes.assert_same(&other.mailboxes);
        assert_eq!(self.streams, other.streams);
        assert_eq!(self.histories, other.histories);
        assert_eq!(self.calls, other.calls);
        assert_eq!(self.documents, other.documents);
        assert_eq!(self.presence, other.presence);
        assert_eq!(self.registry, other.registry);
        self.assert_registry(rows)?;
        assert_eq!(self.counts(), other.counts());
        for (id, session) in &self.sessions {
            for subscription in self.subscriptions(rows, *id)? {
                if topic::share(subscription.filter.as_bytes()).is_some() {
                    continue;
                }
                for state in [self, other] {
                    let trie = state.tries.get(&session.tenant);
                    let held = trie.and_then(|trie| trie.get(subscription.filter.as_bytes(), id));
                    assert_eq!(held, Some(&subscription.options), "{:?}", subscription.filter);
                }
            }
        }
        let subscribers = |state: &Self| -> Vec<_> {
            state.tries.iter().map(|(tenant, trie)| (*tenant, trie.len())).collect()
        };
        assert_eq!(subscribers(self), subscribers(other));
        let all: usize = self.tries.values().map(Trie::len).sum();
        let plain = self.counts.subscriptions - self.shared_filters.len();
        assert_eq!(all, plain + self.shares.len());
        Ok(())
    }
}

impl Session {
    fn info(&self, id: SessionId) -> SessionInfo<'_> {
        SessionInfo {
            id,
            tenant: self.tenant,
            client: &self.client,
            epoch: self.row.epoch,
            holder: self.row.holder,
            head: self.counters.head,
            tail: self.counters.tail,
            queued_items: self.counters.items,
            queued_bytes: self.counters.bytes,
            dropped: self.counters.dropped,
            expiry_s: self.row.expiry_s,
            detached_at: self.row.detached_at,
            subscriptions: self.subscriptions,
        }
    }
}

/// The first bucket from `bucket` on that has rows.
fn first_bucket(
    keys: Keys,
    rows: &(impl View + ?Sized),
    bucket: u16,
) -> Result<Option<u16>, StorageError> {
    debug_assert!(bucket < key::WHOLE);
    let (from, to) = keys.buckets_from(bucket);
    let mut first = None;
    rows.scan(&from, &to, &mut |key, _| {
        first = Some(key::bucket_of(key));
        std::ops::ControlFlow::Break(())
    })?;
    first.transpose()
}
