//! One connection's way into the service: [`Link`], and what the service keeps of it.
//!
//! ```text
//!   Idle ──open──► Opening ──Opened──► Clean | Durable ──close──► Closed
//! ```
//!
//! # Invariants
//!
//! - **No call into router or wire while a connection is locked**: what they do at once may come back here.
//! - **A delivery is handed on once per attachment, in order**: pushes of other generations are dropped, a gap in their
//!   numbers makes the connection attach anew. Checked by `pushes_are_taken_in_order_or_asked_for_again`.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
};

use moorline_core::{
    ConnId, Delivery, Epoch, Message, Offset, ShardId, ShareNumber, TenantId, Text,
    port::{Close, Filter, Inbox, Link, Notice, Open, Published, Refusal, SHARE_LENT_MAX, Token},
    rights::Who,
};
use moorline_explain::{Became, Cause, Note, Place, Route, Stage, Trail};
use moorline_machine::{Answer, answer::Refused, command::SessionId, registry::Owner};
use moorline_router::{Answered, At, SubmitError};
use prometheus::IntCounter;

use crate::{
    frames::{Attach, Hold, Publisher, Push},
    leader::LOST_NUMBER,
    member::{Members, Taken},
    refusal_of,
    retained::Retaining,
    rights::Rights,
    service::{Asked, Clock, Inner},
    settle::{Hand, Settled},
};

/// Acknowledgements that are told at once, without waiting for the sweep.
pub(crate) const SETTLE_AT: usize = 256;
/// The part of its credit after whose use an attachment asks for more.
const CREDIT_PART: u32 = 4;

/// What the service keeps of a connection.
pub(crate) struct Conn {
    id: ConnId,
    inbox: Arc<dyn Inbox>,
    /// Subscriptions of a clean session; those of a durable one are counted where its rows are.
    subscriptions_max: AtomicU32,
    state: Mutex<State>,
    members: Mutex<Members>,
    /// The client's Receive Maximum, once it is known.
    window: AtomicU16,
    /// Whether it is in the sweep's list for its shares.
    swept: AtomicBool,
    /// While it is sent retained messages.
    retaining: Mutex<Option<Arc<Retaining>>>,
    known: RwLock<Known>,
    /// Counts what it may not read.
    unread: IntCounter,
    /// Whether some of it is to be settled.
    passed_over: AtomicBool,
    /// Where it is remembered what becomes of what it says and is to be sent, and the clock for that.
    trail: OnceLock<(Trail, Clock)>,
}

/// Who it is and what it may do, once it has said so.
#[derive(Debug, Default)]
struct Known {
    tenant: Option<TenantId>,
    who: Option<Arc<Who>>,
    rights: Option<Rights>,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Idle,
    Opening,
    Clean { tenant: TenantId, shard: ShardId, session: SessionId, epoch: Epoch },
    Durable(Durable),
    Closed,
}

/// An open durable session.
#[derive(Debug)]
struct Durable {
    tenant: TenantId,
    shard: ShardId,
    session: SessionId,
    epoch: Epoch,
    /// The next offset it has not been given.
    next: Offset,
    hand: Hand,
    capacity: u32,
    /// Credit it has used and given back, but not yet told the leader.
    returned: u32,
    generation: u64,
    /// The number of the next push of this generation.
    pushes: u64,
    /// Whether it is in the sweep's list.
    dirty: bool,
}

/// What a session is to commands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) tenant: TenantId,
    pub(crate) shard: ShardId,
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) durable: bool,
}

impl Whose {
    /// As who it publishes.
    pub(crate) fn publisher(self) -> Publisher {
        Publisher { tenant: self.tenant, session: Some(self.session) }
    }
}

/// What has to be told about a session, found under its lock and told without.
#[derive(Debug, Default)]
pub(crate) struct Tell {
    pub(crate) settled: Option<Settled>,
    pub(crate) credit: Option<(u64, u32)>,
}

impl Conn {
    pub(crate) fn new(id: ConnId, inbox: Arc<dyn Inbox>, unread: IntCounter) -> Self {
        Self {
            id,
            inbox,
            subscriptions_max: AtomicU32::new(0),
            state: Mutex::new(State::Idle),
            members: Mutex::default(),
            window: AtomicU16::new(0),
            swept: AtomicBool::new(true),
            retaining: Mutex::default(),
            known: RwLock::default(),
            unread,
            passed_over: AtomicBool::new(false),
            trail: OnceLock::new(),
        }
    }

    // ---- what is remembered

    pub(crate) fn set_trail(&self, trail: Trail, clock: Clock) {
        // It is known once: a connection opens one session.
        self.trail.set((trail, clock)).unwrap_or_default();
    }

    /// A publish went there.
    pub(crate) fn note_route(&self, token: Token, route: impl FnOnce() -> Route) {
        if let Some((trail, _)) = self.trail.get() {
            trail.routed(self.id.0, token, route());
        }
    }

    /// What became of a publish that nobody answers.
    pub(crate) fn note_passed(&self, token: Token, became: Became) {
        if let Some((trail, _)) = self.trail.get() {
            trail.passed(self.id.0, token, became);
        }
    }

    /// Its session was refused, for a more exact reason than the client hears.
    pub(crate) fn note_not_opened(&self, cause: Cause) {
        if let Some((trail, clock)) = self.trail.get() {
            trail.became(self.id.0, Stage::Session, 0, clock(), Became::Refused(cause));
        }
    }

    /// A copy that it was to be sent went nowhere.
    pub(crate) fn note_dropped(&self, topic: &Text, cause: Cause) {
        if let Some((trail, clock)) = self.trail.get() {
            let note = Note::new(clock(), Stage::Deliver, topic.as_str());
            trail.again(Note { conn: self.id.0, became: Became::Dropped(cause), ..note });
        }
    }

    // ---- rights

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no panic while it is locked")
    }

    pub(crate) fn set_rights(
        &self,
        tenant: TenantId,
        who: Option<Arc<Who>>,
        rights: Option<Rights>,
    ) {
        let mut known = self.known.write().expect("no panic while it is locked");
        *known = Known { tenant: Some(tenant), who, rights };
    }

    /// Gives it others; those it had, if these differ.
    pub(crate) fn replace_rights(
        &self,
        who: Option<Arc<Who>>,
        rights: Option<Rights>,
    ) -> Option<Option<Rights>> {
        let mut known = self.known.write().expect("no panic while it is locked");
        known.who = who;
        let before = std::mem::replace(&mut known.rights, rights);
        (before != known.rights).then_some(before)
    }

    pub(crate) fn who(&self) -> Option<Arc<Who>> {
        self.known().who.clone()
    }

    /// Whose what it retains is.
    pub(crate) fn owner(&self, tenant: TenantId) -> Option<Owner> {
        let known = self.known();
        known.who.as_ref().map(|who| Owner { tenant, device: who.device.clone(), born: who.born })
    }

    /// Its tenant and device, once: for who forgets them.
    pub(crate) fn end_rights(&self) -> Option<(TenantId, Option<Arc<Who>>)> {
        let mut known = self.known.write().expect("no panic while it is locked");
        known.tenant.take().map(|tenant| (tenant, known.who.clone()))
    }

    pub(crate) fn is_of(&self, tenant: TenantId) -> bool {
        self.known().tenant == Some(tenant)
    }

    pub(crate) fn may_all(&self) -> bool {
        self.known().rights.is_none()
    }

    pub(crate) fn may_publish(&self, topic: &Text) -> bool {
        self.known().rights.as_ref().is_none_or(|rights| rights.may_publish(topic))
    }

    pub(crate) fn may_subscribe(&self, filter: &Text) -> bool {
        self.known().rights.as_ref().is_none_or(|rights| rights.may_subscribe(filter))
    }

    /// Whether a delivery may go to it; counted if not.
    pub(crate) fn may_read(&self, delivery: &Delivery) -> bool {
        let known = self.known();
        // Of what the client has already only the release goes out, without a topic.
        let may = delivery.released
            || known.rights.as_ref().is_none_or(|rights| rights.may_read(&delivery.message.topic));
        if !may {
            self.unread.inc();
            self.note_dropped(&delivery.message.topic, Cause::ReadForbidden);
        }
        may
    }

    /// Whether it passed over something of its queue, which the sweep settles.
    pub(crate) fn take_passed_over(&self) -> bool {
        self.passed_over.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    /// How many subscriptions a clean session may have.
    pub(crate) fn subscriptions_max(&self) -> usize {
        usize::try_from(self.subscriptions_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a connection is locked")
    }

    /// Its shared subscriptions.
    pub(crate) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("no panic while a connection's shares are locked")
    }

    /// Items that a share lent.
    pub(crate) fn take_shared(&self, mut push: Push) -> Taken {
        let mut members = self.members();
        let taken = members.take(&push);
        if let Taken::Next(number) = taken {
            // Not settled: the connection is about to end, and then others get them.
            push.deliveries.retain(|delivery| self.may_read(delivery));
            push.deliveries.iter_mut().for_each(|delivery| delivery.share = Some(number));
            // Under the lock, so that two pushes can't overtake each other on the way to the edge.
            self.push(Notice::Deliver(push.deliveries));
        }
        taken
    }

    /// The sweep has come by for its shares, or has to. Whether that is news.
    pub(crate) fn mark_swept(&self, swept: bool) -> bool {
        self.swept.swap(swept, Ordering::AcqRel) != swept
    }

    /// Whether it takes part in shares.
    pub(crate) fn has_shares(&self) -> bool {
        self.members().any()
    }

    /// How many items a share may lend it.
    pub(crate) fn share_capacity(&self) -> u32 {
        u32::from(self.window.load(Ordering::Relaxed).min(SHARE_LENT_MAX))
    }

    /// Whether its listener tells it that the node stops.
    pub(crate) fn hears_of_stops_elsewhere(&self) -> bool {
        self.inbox.hears_of_stops_elsewhere()
    }

    /// Tells the edge. One that does not take it closes by itself, and says so by closing its link.
    pub(crate) fn push(&self, notice: Notice) -> bool {
        self.inbox.push(notice).is_ok()
    }

    // ---- retained messages

    fn retaining(&self) -> MutexGuard<'_, Option<Arc<Retaining>>> {
        self.retaining.lock().expect("no panic while it is locked")
    }

    /// A stream of retained messages begins.
    pub(crate) fn begin_retaining<T>(
        &self,
        begin: impl FnOnce(&Retaining) -> T,
    ) -> (Arc<Retaining>, T) {
        let mut retaining = self.retaining();
        let retaining = retaining.get_or_insert_default();
        (Arc::clone(retaining), begin(retaining))
    }

    /// One ends; `end` says whether it was the last.
    pub(crate) fn end_retaining(&self, end: impl FnOnce(&Retaining) -> bool) {
        let mut retaining = self.retaining();
        if retaining.as_deref().is_none_or(end) {
            *retaining = None;
        }
    }

    /// Whoever waits for room for retained messages looks again.
    fn wake_retaining(&self) {
        if let Some(retaining) = &*self.retaining() {
            retaining.taken.notify_one();
        }
    }

    /// Hands on a message that passes by.
    pub(crate) fn pass(&self, delivery: Delivery) -> bool {
        if !self.may_read(&delivery) {
            return true;
        }
        if !delivery.message.retain {
            return self.push(Notice::Deliver(vec![delivery]));
        }
        // Until it is pushed, so that no stream can begin in between and send what is older.
        let retaining = self.retaining();
        if let Some(retaining) = &*retaining {
            retaining.noted().note(&delivery.message.topic);
        }
        self.push(Notice::Deliver(vec![delivery]))
    }

    /// The open session, if there is one.
    pub(crate) fn whose(&self) -> Option<Whose> {
        match &*self.state() {
            State::Clean { tenant, shard, session, epoch } => Some(Whose {
                tenant: *tenant,
                shard: *shard,
                session: *session,
                epoch: *epoch,
                durable: false,
            }),
            State::Durable(durable) => Some(durable.whose()),
            State::Idle | State::Opening | State::Closed => None,
        }
    }

    /// The session is open. `false` if the connection was closed meanwhile.
    pub(crate) fn opened(&self, whose: Whose, first: Offset, capacity: u32) -> bool {
        let mut state = self.state();
        if !matches!(*state, State::Opening) {
            return false;
        }
        let Whose { tenant, shard, session, epoch, durable } = whose;
        *state = if durable {
            State::Durable(Durable {
                tenant,
                shard,
                session,
                epoch,
                next: first,
                hand: Hand::new(first),
                capacity,
                returned: 0,
                generation: 0,
                pushes: 0,
                dirty: false,
            })
        } else {
            State::Clean { tenant, shard, session, epoch }
        };
        true
    }

    /// A new attachment of a durable session.
    pub(crate) fn attach(&self) -> Option<(ShardId, Attach)> {
        match &mut *self.state() {
            State::Durable(durable) => {
                durable.generation += 1;
                durable.pushes = 0;
                durable.returned = 0;
                let used = u32::try_from(durable.hand.unsettled()).unwrap_or(u32::MAX);
                let attach = Attach {
                    session: durable.session,
                    epoch: durable.epoch,
                    conn: self.id,
                    generation: durable.generation,
                    next: durable.next,
                    credit: durable.capacity.saturating_sub(used),
                };
                Some((durable.shard, attach))
            }
            State::Idle | State::Opening | State::Clean { .. } | State::Closed => None,
        }
    }

    /// Who asks whether a clean session is still this connection's.
    pub(crate) fn hold(&self) -> Option<(ShardId, Hold)> {
        match *self.state() {
            State::Clean { tenant: _, shard, session, epoch } => {
                Some((shard, Hold { session, epoch, conn: self.id }))
            }
            State::Idle | State::Opening | State::Durable(_) | State::Closed => None,
        }
    }

    /// Whether this is still the attachment of that generation.
    pub(crate) fn is_generation(&self, generation: u64) -> bool {
        matches!(&*self.state(), State::Durable(durable) if durable.generation == generation)
    }

    /// Deliveries from the shard's leader. `false` if some were lost on the way: attach anew.
    pub(crate) fn take(&self, mut push: Push) -> bool {
        let mut state = self.state();
        let durable = match &mut *state {
            State::Durable(durable) => durable,
            // Nothing is pushed to a clean one but that it is to ask whether its session is still its own.
            State::Clean { .. } => return push.number != LOST_NUMBER,
            State::Idle | State::Opening | State::Closed => return true,
        };
        if push.generation != durable.generation {
            return true;
        }
        if push.number != durable.pushes {
            return false;
        }
        let offsets = || push.deliveries.iter().filter_map(|Delivery { offset, .. }| *offset);
        let ascending = offsets().is_sorted_by(|one, next| one < next);
        if !ascending || offsets().next().is_some_and(|first| first < durable.next) {
            return false;
        }
        durable.pushes += 1;
        for offset in offsets() {
            durable.next = offset.next();
            durable.hand.deliver(offset);
        }
        push.deliveries.retain(|delivery| {
            let may = self.may_read(delivery);
            if let (false, Some(offset)) = (may, delivery.offset) {
                // As if the client had acknowledged it.
                durable.returned += u32::from(durable.hand.settle(offset));
                durable.dirty = true;
                self.passed_over.store(true, Ordering::Release);
            }
            may
        });
        if push.deliveries.is_empty() {
            return true;
        }
        let mut kept = push.deliveries.iter().filter(|delivery| delivery.message.retain).peekable();
        if kept.peek().is_some()
            && let Some(retaining) = &*self.retaining()
        {
            let mut noted = retaining.noted();
            kept.for_each(|delivery| noted.note(&delivery.message.topic));
        }
        // Under the lock, so that two pushes can't overtake each other on the way to the edge.
        self.push(Notice::Deliver(push.deliveries));
        true
    }

    /// The client acknowledged. Says what to tell now, and whether the sweep has to come by.
    fn settle(&self, offsets: &[Offset]) -> Option<(Whose, Tell, bool)> {
        let mut state = self.state();
        let State::Durable(durable) = &mut *state else {
            return None;
        };
        let settled = offsets.iter().filter(|offset| durable.hand.settle(**offset)).count();
        durable.returned += u32::try_from(settled).unwrap_or(u32::MAX);
        let mut tell = Tell::default();
        if durable.hand.fresh() >= SETTLE_AT {
            tell.settled = durable.hand.take();
        }
        if durable.returned >= (durable.capacity / CREDIT_PART).max(1) {
            tell.credit = durable.take_credit();
        }
        let newly_dirty = !durable.dirty && (durable.hand.fresh() > 0 || durable.returned > 0);
        durable.dirty |= newly_dirty;
        Some((durable.whose(), tell, newly_dirty))
    }

    /// The sweep comes by: everything that was not told.
    pub(crate) fn sweep(&self) -> Option<(Whose, Tell)> {
        match &mut *self.state() {
            State::Durable(durable) => {
                durable.dirty = false;
                let tell = Tell { settled: durable.hand.take(), credit: durable.take_credit() };
                Some((durable.whose(), tell))
            }
            State::Idle | State::Opening | State::Clean { .. } | State::Closed => None,
        }
    }

    /// A settlement may not have been heard: the next sweep tells it again. `true` if the sweep has to come by.
    pub(crate) fn tell_again(&self) -> bool {
        match &mut *self.state() {
            State::Durable(durable) => {
                durable.hand.tell_again();
                !std::mem::replace(&mut durable.dirty, true)
            }
            State::Idle | State::Opening | State::Clean { .. } | State::Closed => false,
        }
    }

    /// The end; gives the session it had, and what of it was not told.
    pub(crate) fn end(&self) -> Option<(Whose, Option<Settled>)> {
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        self.wake_retaining();
        match before {
            State::Clean { tenant, shard, session, epoch } => {
                Some((Whose { tenant, shard, session, epoch, durable: false }, None))
            }
            State::Durable(mut durable) => Some((durable.whose(), durable.hand.take())),
            State::Idle | State::Opening | State::Closed => None,
        }
    }
}

impl Durable {
    fn whose(&self) -> Whose {
        Whose {
            tenant: self.tenant,
            shard: self.shard,
            session: self.session,
            epoch: self.epoch,
            durable: true,
        }
    }

    fn take_credit(&mut self) -> Option<(u64, u32)> {
        let more = std::mem::take(&mut self.returned);
        (more > 0).then_some((self.generation, more))
    }
}

/// A publish that went to one shard alone: the common case, without an allocation of its own.
impl Answered for Conn {
    fn answered(&self, token: Token, outcome: Result<Answer, SubmitError>, at: At) {
        self.note_route(token, || route_to(at, &outcome));
        self.push(Notice::Published { token, outcome: published(&outcome) });
    }
}

/// What a shard's answer means to a publisher.
pub(crate) fn published(outcome: &Result<Answer, SubmitError>) -> Result<Published, Refusal> {
    match outcome {
        Ok(Answer::Published { sessions }) => Ok(Published { matched: *sessions > 0 }),
        Ok(Answer::Refused(Refused::QueueFull)) => Err(Refusal::Quota),
        Ok(_) => Err(Refusal::Unavailable),
        Err(error) => Err(refusal_of(error)),
    }
}

/// What a shard's answer means to who asks where a message went.
pub(crate) fn route_to(at: At, outcome: &Result<Answer, SubmitError>) -> Route {
    let sessions = match outcome {
        Ok(Answer::Published { sessions }) => Some(*sessions),
        Ok(_) | Err(_) => None,
    };
    let became = became_of(published(outcome));
    let index = (at.index > 0).then_some(at.index);
    Route { sessions, index, ..Route::to(Place::Shard(at.shard.0), became) }
}

pub(crate) fn became_of(outcome: Result<Published, Refusal>) -> Became {
    match outcome {
        Ok(Published { matched: true }) => Became::Done,
        Ok(Published { matched: false }) => Became::DoneBut(Cause::NobodyListens),
        Err(refusal) => Became::Refused(Cause::of_publish(refusal)),
    }
}

/// The edge's handle.
pub(crate) struct ConnLink {
    pub(crate) conn: Arc<Conn>,
    pub(crate) service: Arc<Inner>,
    pub(crate) closed: bool,
}

impl fmt::Debug for ConnLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conn.fmt(f)
    }
}

impl Link for ConnLink {
    fn conn(&self) -> ConnId {
        self.conn.id()
    }

    fn open(&mut self, open: Open) {
        {
            let mut state = self.conn.state();
            assert!(matches!(*state, State::Idle), "a connection opens one session");
            *state = State::Opening;
            self.conn.subscriptions_max.store(open.limits.subscriptions, Ordering::Relaxed);
        }
        self.conn.window.store(open.window, Ordering::Relaxed);
        self.service.ask(Asked::Open { conn: Arc::clone(&self.conn), open });
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.service.ask(Asked::Publish { conn: Arc::clone(&self.conn), token, message });
    }

    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        self.service.publish_once(&self.conn, token, packet, message);
    }

    fn complete(&mut self, packet: u16) {
        self.service.complete(&self.conn, packet);
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.service.release(&self.conn, offsets);
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.service.subscribe(&self.conn, token, filters);
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.service.unsubscribe(&self.conn, token, filters);
    }

    fn settle(&mut self, offsets: &[Offset]) {
        if let Some((whose, tell, newly_dirty)) = self.conn.settle(offsets) {
            if newly_dirty {
                self.service.mark_dirty(&self.conn);
            }
            self.service.tell(&self.conn, whose, tell);
        }
    }

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        self.service.settle_shared(&self.conn, items);
    }

    fn retained_taken(&mut self) {
        self.conn.wake_retaining();
    }

    fn close(&mut self, close: Close) {
        if !std::mem::replace(&mut self.closed, true) {
            self.service.close(&self.conn, close);
        }
    }
}

impl Drop for ConnLink {
    fn drop(&mut self) {
        self.close(Close::Broken);
    }
}
