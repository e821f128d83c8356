//! Shared subscriptions, wired: a session's row, its membership, its attachment to the share's leader, and back.
//!
//! ```text
//!   SUBSCRIBE $share/g/f ─► session's shard: row ─► share's shard: JoinShare ─► route, barrier ─► SUBACK
//!                                                        │ leader: `shares` lends
//!   client ◄── `member` ◄──────── ShareDeliver ◄─────────┘        PUBACK ─► Settle in the share's shard
//! ```
//!
//! # Invariants
//!
//! - **A membership ends with its subscription**: the leader of the session's shard tells the share's, and what it could not
//!   tell the share's leader finds out ([`Inner::check_members`]).
//! - **An UNSUBSCRIBE that comes before its SUBSCRIBE is answered ends it too**: nothing is added then, and the share refuses
//!   what it hears of the SUBSCRIBE after its end. Checked by the cluster tests (`shares.rs`).
//! - **Locks as in `leader`**; a connection's shares are locked like the connection.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, NodeId, Offset, QoS, ShardId, ShareNumber, Text,
    port::{Filter, Refusal},
    topic,
};
use moorline_group::wire::{CallError, Kind, Lane, PeerState, Replier};
use moorline_machine::{Answer, Command, Effect, answer::Refused, command::SessionId};
use moorline_router::{Done, SubmitError};
use tokio::time::sleep;
use tracing::{debug, error};

use crate::{
    conn::{Conn, Whose},
    delivery::{Collected, READ_BYTES_MAX, ShardDelivery},
    frames::{self, Place, Push},
    leader::LOST_NUMBER,
    member::{Leaving, SettledShared, Taken, Ticket, Wanting},
    refusal_of,
    service::Inner,
    share_frames::{ShareAttach, ShareAttached, ShareCheck, ShareDetach},
    shares::Attaching,
    subscribe::{Granted, subscription},
};

/// How long an attachment may take.
const ATTACH_WAIT: Duration = Duration::from_secs(2);
/// The pause before attachments are tried again.
const ATTACH_PAUSE: Duration = Duration::from_millis(50);
/// How often members that are not attached are asked after: a membership whose end was not heard of lasts so long.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How long one question may take.
const CHECK_WAIT: Duration = Duration::from_secs(3);
/// Memberships in one question.
const CHECK_ITEMS_MAX: usize = 256;
/// Memberships of one shard that are asked after at a time.
const CHECKS_PER_SHARD_MAX: usize = 4_096;
/// The highest QoS of a shared subscription: one item may be lent to several members, one after the other.
const SHARE_QOS_MAX: QoS = QoS::AtLeastOnce;

pub(crate) fn is_shared(filter: &Text) -> bool {
    topic::share(filter.as_bytes()).is_some()
}

/// A membership that may have ended without its share hearing of it.
struct Suspect {
    tenant: moorline_core::TenantId,
    filter: Text,
    member: SessionId,
    version: u64,
}

// ---- the member's side

impl Inner {
    /// Subscribes to shared filters, and only to such.
    pub(crate) fn subscribe_shared(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        whose: Whose,
        filters: Vec<Filter>,
        deadline: Instant,
    ) -> impl Future<Output = Granted> + Send + use<> {
        let mut subscriptions: Vec<_> = filters.into_iter().map(subscription).collect();
        for asked in &mut subscriptions {
            asked.options.qos = asked.options.qos.min(SHARE_QOS_MAX);
        }
        let (session, epoch) = (whose.session, whose.epoch);
        let command = Command::Subscribe { session, epoch, subscriptions: subscriptions.clone() };
        let asked = self.below().router.ask(whose.shard, &command);
        let tickets: Vec<Ticket> = {
            let mut members = conn.members();
            subscriptions.iter().map(|asked| members.ask(&asked.filter)).collect()
        };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        async move {
            let answer = asked.await.map_err(|error| refusal_of(&error));
            let versions = match answer {
                Ok(Answer::Subscribed { routes, .. }) => routes,
                other => {
                    tickets.into_iter().for_each(|ticket| _ = conn.members().answered(ticket));
                    return Err(other.map_or_else(|refusal| refusal, |answer| refused(&answer)));
                }
            };
            let joins = subscriptions.iter().zip(versions).map(|(asked, of)| {
                let command = Command::JoinShare {
                    tenant: whose.tenant,
                    filter: asked.filter.clone(),
                    member: whose.session,
                    options: asked.options,
                    version: of.version,
                };
                let shard = service.shards.of(whose.tenant, asked.filter.as_bytes());
                (asked, shard, of.version, service.below().router.ask(shard, &command))
            });
            let (mut routes, mut granted) = (Vec::new(), Vec::new());
            for ((asked, shard, version, joined), ticket) in
                joins.collect::<Vec<_>>().into_iter().zip(tickets)
            {
                let joined = joined.await;
                let mut members = conn.members();
                let wanted = members.answered(ticket);
                match joined {
                    Ok(Answer::Joined { route, .. }) => {
                        routes.push(route);
                        if wanted {
                            members.add(&asked.filter, shard, asked.options, version);
                        }
                        granted.push(Ok(asked.options.qos));
                    }
                    // It was unsubscribed behind this, and the share heard of that first.
                    Ok(Answer::Refused(Refused::Left)) => granted.push(Ok(asked.options.qos)),
                    Ok(other) => granted.push(Err(refused(&other))),
                    Err(problem) => granted.push(Err(refusal_of(&problem))),
                }
            }
            service.make_known(routes, deadline).await?;
            service.attach_shares(&conn);
            Ok(granted)
        }
    }

    /// Ends the memberships of a connection in these shares.
    pub(crate) fn leave_shares(self: &Arc<Self>, conn: &Arc<Conn>, whose: Whose, filters: &[Text]) {
        for filter in filters.iter().filter(|filter| is_shared(filter)) {
            let leaving = {
                let mut members = conn.members();
                if whose.durable {
                    members.forget(filter);
                }
                members.remove(filter)
            };
            if let Some(leaving) = leaving {
                self.tell_leaving(conn.id(), leaving);
            }
        }
    }

    /// The connection ends: what it holds goes to others.
    pub(crate) fn end_shares(self: &Arc<Self>, conn: &Arc<Conn>) {
        let ended = conn.members().end();
        for leaving in ended {
            self.tell_leaving(conn.id(), leaving);
        }
    }

    /// Settles what was acknowledged, and then gives the rest back: in this order, or it would be lent again.
    fn tell_leaving(self: &Arc<Self>, conn: ConnId, leaving: Leaving) {
        let Leaving { shard, settled, share, generation } = leaving;
        let service = Arc::clone(self);
        let detach = move || {
            if generation > 0 {
                service.tell_detach(shard, ShareDetach { share, conn, generation });
            }
        };
        match settled {
            None => detach(),
            Some(settled) => {
                let done = move |_| detach();
                self.below().router.submit(shard, &settle(&settled), Done::Call(Box::new(done)));
            }
        }
    }

    fn tell_detach(&self, shard: ShardId, detach: ShareDetach) {
        let told = self.below().router.tell_leader(shard, Kind::ShareDetach, detach.encode());
        if let Err(problem) = told {
            // A leader that can't be told loses this node's attachments as well.
            debug!(%shard, ?problem, "a share's leader was not told of a member's end");
        }
    }

    /// A session was resumed with these shared subscriptions.
    pub(crate) fn resume_shares(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        shared: Vec<(Text, moorline_core::SubscriptionOptions, u64)>,
    ) {
        let Some(whose) = conn.whose() else { return };
        let at = |filter: &Text| self.shards.of(whose.tenant, filter.as_bytes());
        let shared = shared.into_iter();
        let shared = shared
            .map(|(filter, options, version)| (filter.clone(), at(&filter), options, version));
        conn.members().resume(shared);
        self.attach_shares(conn);
    }

    /// Attaches a connection to those of its shares where it is not.
    pub(crate) fn attach_shares(self: &Arc<Self>, conn: &Arc<Conn>) {
        let Some(whose) = conn.whose() else { return };
        let wanting = conn.members().wanting(|_| true);
        for wanting in wanting {
            self.attach_share(conn, whose, wanting);
        }
    }

    fn attach_share(self: &Arc<Self>, conn: &Arc<Conn>, whose: Whose, wanting: Wanting) {
        let Wanting { number, shard, filter, generation, share, held } = wanting;
        let Some(leader) = self.below().router.leader(shard) else {
            return self.attach_share_later(conn, number, generation);
        };
        let attach = ShareAttach {
            tenant: whose.tenant,
            filter,
            member: whose.session,
            conn: conn.id(),
            generation,
            capacity: conn.share_capacity(),
            share,
            held,
        };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<Bytes, CallError>| match outcome
            .ok()
            .and_then(|answer| ShareAttached::decode(answer).ok())
        {
            Some(ShareAttached::Yes(share)) => {
                let tell = conn.members().attached(number, generation, share);
                if tell && conn.mark_swept(false) {
                    service.mark_dirty(&conn);
                }
            }
            Some(ShareAttached::Unknown) => service.join_again(&conn, number, generation),
            Some(ShareAttached::NotLeader) | None => {
                service.attach_share_later(&conn, number, generation);
            }
        };
        let (peers, body) = (&self.below().peers, attach.encode());
        peers.request(leader, Lane::Data, Kind::ShareAttach, shard, body, ATTACH_WAIT, done);
    }

    fn attach_share_later(&self, conn: &Arc<Conn>, number: ShareNumber, generation: u64) {
        if conn.members().failed(number, generation) {
            self.mark_unattached_shares(conn);
        }
    }

    /// The share does not know the member: it ended while nobody of it was heard of, or never heard of this one.
    fn join_again(self: &Arc<Self>, conn: &Arc<Conn>, number: ShareNumber, generation: u64) {
        let Some(whose) = conn.whose() else { return };
        let command = conn.members().get(number).map(|held| {
            let (filter, options, version) = (held.filter.clone(), held.options, held.version);
            let (tenant, member) = (whose.tenant, whose.session);
            (held.shard, version, Command::JoinShare { tenant, filter, member, options, version })
        });
        let Some((shard, version, command)) = command else { return };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<Answer, SubmitError>| {
            let left = matches!(outcome, Ok(Answer::Refused(Refused::Left)));
            if !(left && conn.members().ended(number, version)) {
                service.attach_share_later(&conn, number, generation);
            }
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    pub(crate) async fn keep_share_attachments(self: Arc<Self>) {
        loop {
            self.unattached_shares_added.notified().await;
            sleep(ATTACH_PAUSE).await;
            for conn in self.take_unattached_shares() {
                self.attach_shares(&conn);
            }
        }
    }

    /// The client acknowledged items of shares.
    pub(crate) fn settle_shared(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        items: &[(ShareNumber, Offset)],
    ) {
        let mut now = Vec::new();
        {
            let mut members = conn.members();
            for (number, offset) in items {
                if members.settle(*number, *offset) {
                    now.extend(members.take_settled(*number));
                }
            }
        }
        now.into_iter().for_each(|settled| self.tell_settled_shared(conn, settled));
        if conn.mark_swept(false) {
            self.mark_dirty(conn);
        }
    }

    /// The sweep comes by.
    pub(crate) fn sweep_shares(self: &Arc<Self>, conn: &Arc<Conn>) {
        conn.mark_swept(true);
        let settled = conn.members().sweep();
        settled.into_iter().for_each(|settled| self.tell_settled_shared(conn, settled));
    }

    fn tell_settled_shared(self: &Arc<Self>, conn: &Arc<Conn>, settled: SettledShared) {
        let (command, shard) = (settle(&settled), settled.shard);
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<Answer, SubmitError>| {
            let again = conn.members().told(&settled, outcome.is_ok());
            if again && conn.mark_swept(false) {
                service.mark_dirty(&conn);
            }
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    /// Items for a member that is connected here.
    fn take_shared_push(&self, shard: ShardId, push: Push) {
        let (id, generation, items) = (push.conn, push.generation, push.deliveries.len());
        let conn = self.conn(id);
        match conn.as_ref().map_or(Taken::Unknown, |conn| conn.take_shared(push)) {
            Taken::Next(_) => self.metrics.pushed.inc_by(items as u64),
            Taken::Stale => {}
            Taken::Gap => {
                if let Some(conn) = &conn {
                    self.mark_unattached_shares(conn);
                }
            }
            // An attachment may overtake the end of its connection: what it is lent goes back. Later, since a leader on
            // this node pushes under its lock.
            Taken::Unknown => {
                let Some(service) = self.myself.upgrade() else { return };
                self.tasks.spawn(async move {
                    service.tell_detach(shard, ShareDetach { share: None, conn: id, generation });
                });
            }
        }
    }
}

fn settle(settled: &SettledShared) -> Command {
    Command::Settle { session: settled.share, upto: Offset(0), also: settled.offsets.clone() }
}

fn refused(answer: &Answer) -> Refusal {
    debug!(?answer, "a shared subscribe was refused");
    let used_up =
        [Refused::TooManySubscriptions, Refused::TooManySessions, Refused::TooManyMembers];
    let is_used_up = used_up.into_iter().any(|quota| *answer == Answer::Refused(quota));
    if is_used_up { Refusal::Quota } else { Refusal::Unavailable }
}

// ---- the leader's side

impl Inner {
    /// Takes what concerns shares out of an effect; gives the rest back. `left` collects what other shards are to hear.
    pub(crate) fn share_effect(
        delivery: &mut ShardDelivery,
        effect: Effect,
        out: &mut Collected,
        left: &mut Vec<Command>,
    ) -> Option<Effect> {
        match effect {
            Effect::Deliver { session, delivery: queued } if delivery.shares.has(session) => {
                delivery.shares.deliver(session, queued, out);
            }
            Effect::Settled { share, offsets } => delivery.shares.settled(share, &offsets),
            Effect::Member { share, member, options } => {
                if options.is_some() {
                    delivery.shares.add(share, Offset(1), Offset(1));
                }
                delivery.shares.member(share, member, options);
            }
            Effect::Left { tenant, filter, member, version } => {
                left.push(Command::LeaveShare { tenant, filter, member, version });
            }
            Effect::Closed { session, .. } if delivery.shares.has(session) => {
                delivery.shares.remove(session);
            }
            other @ (Effect::Deliver { .. }
            | Effect::Opened { .. }
            | Effect::Closed { .. }
            | Effect::Detached { .. }
            | Effect::QueueFull { .. }
            | Effect::Routes(_)
            | Effect::WillDue
            | Effect::RetainedFull
            | Effect::WillDropped { .. }
            | Effect::Mail(_)
            | Effect::Attributes(_)
            | Effect::Values { .. }
            | Effect::Call(_)
            | Effect::Recorded { .. }
            | Effect::Events { .. }
            | Effect::DeviceChanged { .. }
            | Effect::TenantChanged { .. }
            | Effect::Digest { .. }) => return Some(other),
        }
        None
    }

    /// Tells shares that members left them; what gets lost is found by [`Inner::check_members`].
    pub(crate) fn tell_left(&self, left: Vec<Command>) {
        for command in left {
            if let Command::LeaveShare { tenant, filter, .. } = &command {
                let shard = self.shards.of(*tenant, filter.as_bytes());
                self.below().router.submit(shard, &command, Done::Ignore);
            }
        }
    }

    /// A leadership of a shard began.
    pub(crate) fn begin_shares(&self, shard: ShardId, delivery: &mut ShardDelivery) {
        let known = self.below().groups.read(shard, |machine, _| {
            machine.shares().map(|share| (share.id, share.head, share.tail)).collect::<Vec<_>>()
        });
        delivery.shares.begin(Instant::now(), known.unwrap_or_default().into_iter());
    }

    /// Sends what was lent, under the shard's lock.
    pub(crate) fn send_shared(&self, shard: ShardId, delivery: &mut ShardDelivery, out: Collected) {
        self.metrics.shares.redeliveries.inc_by(delivery.shares.take_redelivered());
        let lost = self.send_pushes(shard, Kind::ShareDeliver, out, |push| {
            self.take_shared_push(shard, push);
        });
        lost.into_iter().for_each(|place| delivery.shares.lose(place));
    }

    /// Reads rows for the next share in line; false if there is none.
    pub(crate) fn read_next_share(&self, shard: ShardId) -> bool {
        let now = Instant::now();
        let wanted = self.delivery(shard).and_then(|mut led| led.shares.next_wanted(now));
        let Some(wanted) = wanted else { return false };
        let read = self.below().groups.read(shard, |machine, rows| {
            let tail = machine.share(wanted.share).map(|share| share.tail)?;
            let (from, items) = (wanted.from, wanted.items);
            let read = machine.queue_read(rows, wanted.share, from, items, READ_BYTES_MAX);
            Some(read.map(|deliveries| (deliveries, tail)))
        });
        match read.flatten() {
            None => {
                if let Some(mut delivery) = self.delivery(shard) {
                    delivery.shares.unread(wanted);
                }
            }
            Some(Err(problem)) => {
                error!(%shard, %problem, "cannot read a share's queue");
                (self.fatal)("rows can't be read");
            }
            Some(Ok((deliveries, tail))) => {
                let Some(mut delivery) = self.delivery(shard) else { return false };
                let mut out = Collected::new();
                delivery.shares.read(wanted, deliveries, tail, &mut out);
                self.send_shared(shard, &mut delivery, out);
            }
        }
        true
    }

    pub(crate) fn on_share_attach(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        match ShareAttach::decode(body) {
            Ok(attach) => {
                let attached = self.attach_member(from, shard, &attach);
                if let Some(reply) = reply {
                    reply.send(attached.encode());
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    fn attach_member(&self, node: NodeId, shard: ShardId, attach: &ShareAttach) -> ShareAttached {
        let Some(mut delivery) = self.delivery(shard) else { return ShareAttached::NotLeader };
        if !delivery.is_leading() {
            return ShareAttached::NotLeader;
        }
        let known = self.below().groups.read(shard, |machine, rows| {
            let share = machine.share_of(rows, attach.tenant, &attach.filter).ok().flatten()?;
            Some((share.id, share.head, share.tail, share.member(attach.member)?))
        });
        let Some((share, head, tail, options)) = known.flatten() else {
            return ShareAttached::Unknown;
        };
        delivery.shares.add(share, head, tail);
        let attaching = Attaching {
            share,
            member: attach.member,
            node,
            conn: attach.conn,
            generation: attach.generation,
            capacity: attach.capacity,
            options,
            held: if attach.share == Some(share) { &attach.held } else { &[] },
        };
        delivery.shares.attach(Instant::now(), &attaching);
        self.wake_reader(shard, &delivery);
        ShareAttached::Yes(share)
    }

    pub(crate) fn on_share_deliver(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        _: Option<Replier>,
    ) {
        let take = |push| self.take_shared_push(shard, push);
        let read = frames::read_pushes(body, self.now(), take);
        if let Err(problem) = read {
            self.bad_frame(from, &problem);
        }
    }

    pub(crate) fn on_share_detach(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        _: Option<Replier>,
    ) {
        match ShareDetach::decode(body) {
            Ok(ShareDetach { share, conn, generation }) => {
                if let Some(mut delivery) = self.delivery(shard) {
                    let place = Place { node: from, conn };
                    delivery.shares.detach(share, place, generation);
                    self.wake_reader(shard, &delivery);
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    /// What members on nodes that are not connected hold goes to others.
    pub(crate) fn detach_members(&self, shard: ShardId, states: &[(NodeId, PeerState)]) {
        let Some(mut delivery) = self.delivery(shard) else { return };
        for (node, state) in states {
            let before = match state {
                PeerState::Up { since, .. } => Some(*since),
                PeerState::Suspect | PeerState::Down { .. } => None,
            };
            delivery.shares.detach_node(*node, before);
        }
        self.wake_reader(shard, &delivery);
    }

    /// Tells members whose attachments ended here to attach anew, if they still can.
    pub(crate) fn tell_detached(&self, shard: ShardId) {
        let untold = self.delivery(shard).map(|mut led| led.shares.take_untold());
        for (place, generation) in untold.unwrap_or_default() {
            let push =
                Push { conn: place.conn, generation, number: LOST_NUMBER, deliveries: Vec::new() };
            let out = Collected::from([(place, vec![push])]);
            // A node that is not there attaches its members anew once it is.
            let take = |push| self.take_shared_push(shard, push);
            drop(self.send_pushes(shard, Kind::ShareDeliver, out, take));
        }
    }

    // ---- memberships whose end was not heard of

    /// Asks after the members that are not attached, of the shares led here.
    pub(crate) async fn check_members(self: Arc<Self>) {
        // By shard: where the next round begins.
        let mut begins: BTreeMap<ShardId, usize> = BTreeMap::new();
        loop {
            sleep(CHECK_INTERVAL).await;
            for shard in self.led_here() {
                let at = begins.entry(shard).or_default();
                let suspects = self.suspects(shard, *at);
                *at = if suspects.len() < CHECKS_PER_SHARD_MAX { 0 } else { *at + suspects.len() };
                for some in suspects.chunks(CHECK_ITEMS_MAX) {
                    self.check_some(shard, some).await;
                }
            }
        }
    }

    fn suspects(&self, shard: ShardId, at: usize) -> Vec<Suspect> {
        let Some(delivery) = self.delivery(shard) else { return Vec::new() };
        let suspects = self.below().groups.read(shard, |machine, _| {
            let shares = machine.shares();
            let members = shares.flat_map(|share| {
                let away = |id| !delivery.shares.is_attached(share.id, id);
                let members = share.members().filter(move |(member, ..)| away(*member));
                let (tenant, filter) = (share.tenant, share.filter.clone());
                let suspect = move |(member, _, version)| {
                    let filter = filter.clone();
                    Suspect { tenant, filter, member, version }
                };
                members.map(suspect).collect::<Vec<_>>()
            });
            members.skip(at).take(CHECKS_PER_SHARD_MAX).collect()
        });
        suspects.unwrap_or_default()
    }

    async fn check_some(&self, shard: ShardId, suspects: &[Suspect]) {
        for of in self.shards.all() {
            let there: Vec<&Suspect> = suspects
                .iter()
                .filter(|suspect| self.shards.of_bucket(suspect.member.bucket) == of)
                .collect();
            let (Some(leader), false) = (self.below().router.leader(of), there.is_empty()) else {
                continue;
            };
            let memberships = there.iter().map(|of| (of.member, of.filter.clone())).collect();
            let (peers, body) = (&self.below().peers, ShareCheck { memberships }.encode());
            let asked = peers.call(leader, Lane::Data, Kind::ShareCheck, of, body, CHECK_WAIT);
            let Ok(answer) = asked.await else { continue };
            for (suspect, subscribed) in there.iter().zip(answer) {
                if subscribed == 0 {
                    let Suspect { tenant, filter, member, version } = *suspect;
                    let (tenant, filter) = (*tenant, filter.clone());
                    let (member, version) = (*member, *version);
                    let command = Command::LeaveShare { tenant, filter, member, version };
                    self.below().router.submit(shard, &command, Done::Ignore);
                }
            }
        }
    }

    pub(crate) fn on_share_check(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let (check, reply) = match (ShareCheck::decode(body), reply) {
            (Ok(check), Some(reply)) => (check, reply),
            (Err(problem), _) => return self.bad_frame(from, &problem),
            (Ok(_), None) => return,
        };
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            // Whoever was deposed without knowing would miss what was subscribed since.
            if let Err(problem) = service.below().groups.barrier(shard).await {
                return reply.refuse(&problem.to_string());
            }
            let answer = service.below().groups.read(shard, |machine, _| {
                let is_there = |(member, filter): &(SessionId, Text)| {
                    u8::from(machine.shared_by(*member).any(|(known, ..)| known == filter))
                };
                check.memberships.iter().map(is_there).collect::<Vec<_>>()
            });
            match answer {
                Some(answer) => reply.send(answer.into()),
                None => reply.refuse("the replica is not open"),
            }
        });
    }
}
