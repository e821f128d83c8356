//! What this node does as the leader of shards and of the meta group: effects become deliveries, questions of other
//! nodes are answered.
//!
//! # Invariants
//!
//! - **Locks in one order**: a shard's deliveries, then its rows (reading), then a connection. Nothing below calls up.
//! - **Pushes leave under the shard's lock**, so that they arrive in the order in which they were decided.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{ConnId, Delivery, Epoch, NodeId, ShardId, Text, planted};
use moorline_group::{
    Role, Sink,
    wire::{Kind, Lane, Peers, Replier},
};
use moorline_machine::{
    CallEffect, Command, Effect, MailEffect, answer::RouteChange, command::Holder, mail::Noted,
};
use moorline_router::Done;
use tracing::{debug, error, warn};

use crate::{
    delivery::{Collected, READ_BYTES_MAX, ShardDelivery, Wanted},
    expiry,
    frames::{
        self, Attach, Attached, Hold, LeaseReport, Place, Push, PushWriter, Report, TakenOver,
        Upward,
    },
    lease::Leases,
    registry::{self, watch::DeviceNews},
    service::Inner,
};

/// Message bytes in one delivery frame; more make a new one.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How often a node is told that a session was taken over, until it answers.
const TAKEOVER_TRIES: usize = 20;
/// How long one of those may take, and the pause between them.
const TAKEOVER_WAIT: Duration = Duration::from_millis(250);
/// The number of a push that only says that others were lost.
pub(crate) const LOST_NUMBER: u64 = u64::MAX;
/// The generation in such a push to a connection that has no attachment.
const UNATTACHED: u64 = 0;

impl Sink for Inner {
    fn applied(&self, shard: ShardId, _index: u64, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        self.tell_of_tenants(&effects);
        let Some(mut delivery) = self.delivery(shard) else { return };
        if !delivery.is_leading() {
            return;
        }
        let (mut out, mut lent) = (Collected::new(), Collected::new());
        let (mut taken, mut left, mut news) = (Vec::new(), Vec::new(), Vec::new());
        let (mut detached, mut full) = (Vec::new(), Vec::new());
        for effect in effects {
            let Some(effect) = Self::share_effect(&mut delivery, effect, &mut lent, &mut left)
            else {
                continue;
            };
            match effect {
                Effect::Deliver { session, delivery: queued } => {
                    delivery.deliver(session, queued, &mut out);
                }
                Effect::Opened { session, epoch, holder: _, previous } => {
                    delivery.supersede(session, epoch);
                    taken.extend(previous);
                }
                Effect::Closed { session, epoch } => drop(delivery.close(session, epoch)),
                Effect::Detached { session, epoch, holder } => {
                    // One that is not attached here is told all the same: clean ones never are.
                    let place = Place { node: holder.node, conn: holder.conn };
                    let attached = delivery.close(session, epoch);
                    detached.push(attached.unwrap_or((place, UNATTACHED)));
                }
                Effect::Routes(changes) => self.release_routes(changes),
                Effect::QueueFull { session, tenant, client } => {
                    debug!(?session, "a full queue dropped its copy");
                    self.metrics.dropped_queue_full.inc();
                    full.push((tenant, client));
                }
                Effect::WillDue => self.wills_due.notify_one(),
                Effect::WillDropped { session } => {
                    debug!(?session, "a will was dropped: too many are due");
                    self.metrics.dropped_wills.inc();
                }
                Effect::RetainedFull => self.metrics.dropped_retained.inc(),
                said @ (Effect::Mail(_)
                | Effect::DeviceChanged { .. }
                | Effect::Events { .. }
                | Effect::Attributes(_)
                | Effect::Values { .. }
                | Effect::Call(_)
                | Effect::Recorded { .. }) => self.note_said(shard, said, &mut news),
                Effect::Digest { .. }
                | Effect::TenantChanged { .. }
                | Effect::Settled { .. }
                | Effect::Member { .. }
                | Effect::Left { .. } => {}
            }
        }
        self.send(shard, &mut delivery, out);
        self.send_shared(shard, &mut delivery, lent);
        self.wake_reader(shard, &delivery);
        drop(delivery);
        full.into_iter().for_each(|(tenant, client)| self.note_full(tenant, &client));
        for (place, generation) in detached {
            self.tell_lost_place(shard, place, generation);
        }
        self.spread_news_soon(shard, news);
        self.tell_left(left);
        for holder in taken {
            self.tell_taken_over(holder);
        }
    }

    fn role(&self, shard: ShardId, role: Role) {
        debug!(%shard, ?role, "role");
        let leading = role.leading.then_some(role.term);
        if let Some(mut delivery) = self.delivery(shard)
            && delivery.set_leading(leading)
        {
            self.begin_shares(shard, &mut delivery);
        }
        if shard == ShardId::META {
            let nodes = if role.leading { self.known_nodes() } else { Vec::new() };
            let mut leases = self.leases.lock().expect("no panic while leases are locked");
            if leases.as_ref().map(Leases::term) != leading {
                let begin =
                    |term| Leases::begin(Instant::now(), self.node, term, nodes.into_iter());
                *leases = leading.map(begin);
            }
        }
        // Who waits here looks whether it waits at the right node.
        self.news.tell_all(shard);
        self.value_news.tell_all(shard);
        if role.leading {
            self.leading_began.notify_one();
            self.wills_due.notify_one();
            self.spread_news(shard, vec![DeviceNews::Anew]);
        }
    }
}

impl Inner {
    /// What was said of devices, or by them: counted, and told to whoever waits for it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every effect"
    )]
    fn note_said(&self, shard: ShardId, said: Effect, news: &mut Vec<DeviceNews>) {
        let values = &self.metrics.registry.values;
        match said {
            Effect::Mail(MailEffect::Ready { tenant, device, size: _ }) => {
                news.push(DeviceNews::Mail(tenant, device));
            }
            Effect::Mail(MailEffect::Finished { what: Noted::Acked, waited_ms, .. }) => {
                let waited = Duration::from_millis(waited_ms).as_secs_f64();
                self.metrics.accounts.mail_waited.observe(waited);
            }
            Effect::DeviceChanged { tenant, device, .. } => {
                self.value_news.tell(shard, tenant, &device);
                news.push(DeviceNews::Device(tenant, device));
            }
            Effect::Events { tenant, appended } => {
                self.metrics.events.appended.inc_by(u64::from(appended));
                self.news.tell(shard, tenant, &Text::default());
            }
            Effect::Attributes(changed) => {
                values.attributes.inc_by(changed.changes.len() as u64);
                self.value_news.tell(shard, changed.tenant, &changed.device);
                news.push(DeviceNews::Attributes(changed.tenant, changed.device));
            }
            Effect::Values { tenant, device } => self.value_news.tell(shard, tenant, &device),
            Effect::Call(of_call) => self.note_call_effect(of_call, news),
            Effect::Recorded { tenant: _, points } => values.points.inc_by(u64::from(points)),
            _ => {}
        }
    }

    fn note_call_effect(&self, effect: CallEffect, news: &mut Vec<DeviceNews>) {
        match effect {
            CallEffect::Waits { tenant, device } => news.push(DeviceNews::Calls(tenant, device)),
            CallEffect::Changed { tenant, device, id, state, one_way } => {
                let calls = &self.metrics.registry.calls;
                if state.is_final(one_way) {
                    calls.ended.with_label_values(&[state.name()]).inc();
                }
                if registry::calls::is_outcome(state, one_way) {
                    news.push(DeviceNews::Outcome(tenant, device, id));
                }
            }
        }
    }

    pub(crate) fn known_nodes(&self) -> Vec<NodeId> {
        let nodes =
            |machine: &moorline_machine::Machine| machine.meta().nodes().keys().copied().collect();
        self.below().groups.read(ShardId::META, |machine, _| nodes(machine)).unwrap_or_default()
    }

    /// Tenants that changed. Every node has the meta group: none has to be told.
    fn tell_of_tenants(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::TenantChanged { tenant } = effect {
                self.watchers.tell_tenant(*tenant);
            }
        }
    }

    /// Filters the shard ceased to hold leave the meta group; nobody waits for it.
    fn release_routes(&self, changes: Vec<RouteChange>) {
        for change in changes.into_iter().filter(|change| !change.present) {
            self.below().router.submit(ShardId::META, &route_command(change), Done::Ignore);
        }
    }

    // ---- deliveries

    /// Sends what was collected, under the shard's lock. Expiries in it are log time.
    fn send(&self, shard: ShardId, delivery: &mut ShardDelivery, out: Collected) {
        let lost = self.send_pushes(shard, Kind::Deliver, out, |push| self.take_push(push));
        lost.into_iter().for_each(|place| delivery.lose(place));
    }

    /// Sends pushes, those for this node to `take`. Gives the places that could not be sent to.
    pub(crate) fn send_pushes(
        &self,
        shard: ShardId,
        kind: Kind,
        out: Collected,
        take: impl Fn(Push),
    ) -> Vec<Place> {
        let mut lost = Vec::new();
        if out.is_empty() {
            return lost;
        }
        let (log_time, now) = (self.log_time(shard), self.now());
        let mut remote: BTreeMap<NodeId, (PushWriter, Vec<Place>)> = BTreeMap::new();
        for (place, pushes) in out {
            if place.node == self.node {
                for mut push in pushes {
                    expiry::to_process_clock(&mut push.deliveries, log_time, now);
                    take(push);
                }
                continue;
            }
            let (writer, places) =
                remote.entry(place.node).or_insert_with(|| (PushWriter::new(log_time), Vec::new()));
            pushes.iter().for_each(|push| writer.push(push));
            places.push(place);
            if writer.bytes() >= FRAME_BYTES_MAX {
                let full = std::mem::replace(writer, PushWriter::new(log_time));
                let places = std::mem::take(places);
                lost.extend(self.send_frame(shard, kind, place.node, full, places));
            }
        }
        for (node, (writer, places)) in remote {
            if !writer.is_empty() {
                lost.extend(self.send_frame(shard, kind, node, writer, places));
            }
        }
        lost
    }

    /// Sends one frame; gives its places back if it could not be sent.
    fn send_frame(
        &self,
        shard: ShardId,
        kind: Kind,
        node: NodeId,
        frame: PushWriter,
        places: Vec<Place>,
    ) -> Vec<Place> {
        let peers = &self.below().peers;
        if peers.send(node, Lane::Data, kind, shard, frame.done()).is_ok() {
            return Vec::new();
        }
        self.metrics.pushes_lost.inc_by(places.len() as u64);
        places
    }

    /// A push for a connection of this node.
    fn take_push(&self, push: Push) {
        let Some(conn) = self.conn(push.conn) else { return };
        self.metrics.pushed.inc_by(push.deliveries.len() as u64);
        if !conn.take(push) {
            self.mark_unattached(&conn);
        }
        if conn.take_passed_over() {
            self.mark_dirty(&conn);
        }
    }

    pub(crate) fn wake_reader(&self, shard: ShardId, delivery: &ShardDelivery) {
        if (delivery.has_line() || delivery.shares.has_line(Instant::now()))
            && let Some(reader) = self.readers.get(usize::from(shard.0))
        {
            reader.notify_one();
        }
    }

    /// Reads rows for the attachments of a shard that are behind, one after the other.
    pub(crate) async fn read_rows(self: Arc<Self>, shard: ShardId) {
        loop {
            self.readers[usize::from(shard.0)].notified().await;
            while self.read_next(shard) || self.read_next_share(shard) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads for the next one; false if nobody is in line.
    fn read_next(&self, shard: ShardId) -> bool {
        let wanted = self.delivery(shard).and_then(|mut delivery| delivery.next_wanted());
        let Some(wanted) = wanted else { return false };
        let Wanted { session, from, items, .. } = wanted;
        let read = self.below().groups.read(shard, |machine, rows| {
            let tail = machine.session(session).map(|info| info.tail)?;
            let read = machine.queue_read(rows, session, from, items, READ_BYTES_MAX);
            Some(read.map(|deliveries| (deliveries, tail)))
        });
        match read.flatten() {
            // The session ended, or a snapshot takes the rows' place: then this node does not lead any more.
            None => {
                if let Some(mut delivery) = self.delivery(shard) {
                    delivery.unread(wanted);
                }
            }
            Some(Err(problem)) => {
                error!(%shard, %problem, "cannot read a session's queue");
                (self.fatal)("rows can't be read");
            }
            Some(Ok((deliveries, tail))) => {
                let Some(mut delivery) = self.delivery(shard) else { return false };
                let mut out = Collected::new();
                delivery.read(wanted, deliveries, tail, &mut out);
                self.send(shard, &mut delivery, out);
            }
        }
        true
    }

    /// Tells attachments whose pushes were lost to attach anew.
    pub(crate) fn tell_lost(&self) {
        for shard in self.shards.all() {
            let Some(mut delivery) = self.delivery(shard) else { continue };
            for (place, generation) in delivery.take_lost() {
                let lost = self.tell_lost_place(shard, place, generation);
                lost.into_iter().for_each(|place| delivery.lose(place));
            }
        }
    }

    /// Tells one attachment to attach anew. Gives the place if it could not be told: then its node's connection is broken, and when
    /// there is another it attaches anew by itself.
    fn tell_lost_place(&self, shard: ShardId, place: Place, generation: u64) -> Vec<Place> {
        let (conn, number, deliveries) = (place.conn, LOST_NUMBER, Vec::new());
        let push = Push { conn, generation, number, deliveries };
        if place.node == self.node {
            self.take_push(push);
            return Vec::new();
        }
        let mut frame = PushWriter::new(self.log_time(shard));
        frame.push(&push);
        self.send_frame(shard, Kind::Deliver, place.node, frame, vec![place])
    }

    fn tell_taken_over(&self, holder: Holder) {
        let Some(service) = self.myself.upgrade() else { return };
        if planted::is(planted::Bug::StaleEpoch) {
            return;
        }
        self.tasks.spawn(async move {
            let over = TakenOver { incarnation: holder.incarnation, conn: holder.conn }.encode();
            for _ in 0..TAKEOVER_TRIES {
                let (kind, meta) = (Kind::TakenOver, ShardId::META);
                let told = service.below().peers.call(
                    holder.node,
                    Lane::Control,
                    kind,
                    meta,
                    over.clone(),
                    TAKEOVER_WAIT,
                );
                if told.await.is_ok() || service.is_dead(holder.node, holder.incarnation) {
                    return;
                }
                tokio::time::sleep(TAKEOVER_WAIT).await;
            }
        });
    }

    // ---- questions of other nodes

    /// Registers every handler.
    pub(crate) fn register(self: &Arc<Self>, peers: &Peers) {
        self.handle(peers, Kind::Attachment, Self::on_upward);
        self.handle(peers, Kind::Deliver, Self::on_deliver);
        self.handle(peers, Kind::Passing, Self::on_passing);
        self.handle(peers, Kind::LiveForward, Self::on_live);
        self.handle(peers, Kind::LiveOnce, Self::on_live_once);
        self.handle(peers, Kind::LeaseReport, Self::on_report);
        self.handle(peers, Kind::RouteBarrier, Self::on_barrier);
        self.handle(peers, Kind::Retained, Self::on_retained);
        self.handle(peers, Kind::Question, Self::on_question);
        self.handle(peers, Kind::News, Self::on_news);
        self.handle(peers, Kind::OwnCall, Self::on_own_call);
        self.handle(peers, Kind::Explain, Self::on_explain);
        self.handle(peers, Kind::TakenOver, Self::on_taken_over);
        self.handle(peers, Kind::ShareAttach, Self::on_share_attach);
        self.handle(peers, Kind::ShareDeliver, Self::on_share_deliver);
        self.handle(peers, Kind::ShareDetach, Self::on_share_detach);
        self.handle(peers, Kind::ShareCheck, Self::on_share_check);
    }

    fn handle(
        self: &Arc<Self>,
        peers: &Peers,
        kind: Kind,
        handler: fn(&Arc<Self>, NodeId, ShardId, Bytes, Option<Replier>),
    ) {
        let service = Arc::clone(self);
        let handle = move |from: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>| {
            handler(&service, from, shard, body, reply);
        };
        peers.register(kind, Arc::new(handle));
    }

    fn on_upward(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        match Upward::decode(body) {
            Ok(Upward::Attach(attach)) => {
                let attached = self.on_attach(from, shard, &attach);
                if let Some(reply) = reply {
                    reply.send(attached.encode());
                }
            }
            Ok(Upward::Hold(hold)) => {
                if let Some(reply) = reply {
                    reply.send(self.on_hold(from, shard, hold).encode());
                }
            }
            Ok(Upward::Credit { session, generation, more }) => {
                if let Some(mut delivery) = self.delivery(shard) {
                    delivery.credit(session, generation, more);
                    self.wake_reader(shard, &delivery);
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    fn on_attach(&self, from: NodeId, shard: ShardId, attach: &Attach) -> Attached {
        let Some(mut delivery) = self.delivery(shard) else { return Attached::NotLeader };
        if !delivery.is_leading() {
            return Attached::NotLeader;
        }
        let known = self.below().groups.read(shard, |machine, _| {
            let shared = machine.shared_by(attach.session);
            let shared: Vec<_> = shared
                .map(|(filter, options, version)| (filter.clone(), options, version))
                .collect();
            machine.session(attach.session).map(|info| ((info.epoch, info.holder), shared))
        });
        let (known, shared) = known.flatten().unzip();
        if let Some(lost) = lost_by(from, (attach.epoch, attach.conn), known) {
            return lost;
        }
        delivery.attach(from, attach);
        self.wake_reader(shard, &delivery);
        Attached::Yes(shared.unwrap_or_default())
    }

    fn on_hold(&self, from: NodeId, shard: ShardId, hold: Hold) -> Attached {
        if !self.delivery(shard).is_some_and(|delivery| delivery.is_leading()) {
            return Attached::NotLeader;
        }
        let known = self.below().groups.read(shard, |machine, _| {
            machine.session(hold.session).map(|info| (info.epoch, info.holder))
        });
        match lost_by(from, (hold.epoch, hold.conn), known.flatten()) {
            None => Attached::Yes(Vec::new()),
            Some(lost) => lost,
        }
    }

    fn on_deliver(self: &Arc<Self>, from: NodeId, _: ShardId, body: Bytes, _: Option<Replier>) {
        if let Err(problem) = frames::read_pushes(body, self.now(), |push| self.take_push(push)) {
            self.bad_frame(from, &problem);
        }
    }

    fn on_passing(self: &Arc<Self>, from: NodeId, shard: ShardId, body: Bytes, _: Option<Replier>) {
        // In log time, as everything that this shard delivers.
        let (publisher, message) = match frames::decode_live(body, self.log_time(shard)) {
            Ok(decoded) => decoded,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let Some(mut delivery) = self.delivery(shard) else { return };
        if !delivery.is_leading() {
            self.metrics.dropped_passing.inc();
            return;
        }
        let mut found = Vec::new();
        self.below().groups.read(shard, |machine, _| {
            let frames::Publisher { tenant, session } = publisher;
            machine.passing(tenant, &message.topic, session, &mut found);
        });
        let message = Arc::new(frames::owned(&message));
        let (mut out, mut lent) = (Collected::new(), Collected::new());
        for (session, mut grant) in found {
            grant.limit(&message);
            let passing = Delivery::granted(None, &grant, Arc::clone(&message));
            if delivery.shares.has(session) {
                delivery.shares.deliver(session, passing, &mut lent);
            } else {
                delivery.deliver(session, passing, &mut out);
            }
        }
        self.send(shard, &mut delivery, out);
        self.send_shared(shard, &mut delivery, lent);
    }

    fn on_live(self: &Arc<Self>, from: NodeId, _: ShardId, body: Bytes, reply: Option<Replier>) {
        match frames::decode_live(body, self.now()) {
            Ok((publisher, message)) => {
                let message = Arc::new(frames::owned(&message));
                let matched = self.live.deliver(publisher, &message) > 0;
                if let Some(reply) = reply {
                    reply.send(Bytes::from_static(if matched { &[1] } else { &[0] }));
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    fn on_live_once(
        self: &Arc<Self>,
        from: NodeId,
        _: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        match frames::decode_live_once(body, self.now()) {
            Ok((tenant, origin, message)) => {
                let message = Arc::new(frames::owned(&message));
                let matched = self.deliver_once(tenant, origin, &message);
                if let Some(reply) = reply {
                    reply.send(Bytes::from_static(if matched { &[1] } else { &[0] }));
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    fn on_report(self: &Arc<Self>, from: NodeId, _: ShardId, body: Bytes, reply: Option<Replier>) {
        let (Some(report), Some(reply)) = (LeaseReport::decode(&body), reply) else {
            return;
        };
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            let term = service.lease_term();
            // Whoever was deposed without knowing must not grant anything.
            let confirmed = match service.below().groups.barrier(ShardId::META).await {
                Ok(index) => index,
                Err(problem) => return reply.refuse(&problem.to_string()),
            };
            let now = Instant::now();
            let (granted, served) = {
                let mut leases = service.leases.lock().expect("no panic while leases are locked");
                match leases.as_mut().filter(|leases| Some(leases.term()) == term) {
                    Some(leases) => {
                        (leases.report(now, from, report, confirmed), leases.served(now))
                    }
                    None => return reply.refuse("not the meta leader"),
                }
            };
            if granted {
                reply.send(Report { applied: confirmed }.encode());
            } else {
                reply.refuse("behind a barrier that was passed");
            }
            served.into_iter().for_each(|waiter| waiter.send(Bytes::new()));
        });
    }

    fn on_barrier(self: &Arc<Self>, _: NodeId, _: ShardId, body: Bytes, reply: Option<Replier>) {
        let (Some(Report { applied: index }), Some(reply)) = (Report::decode(&body), reply) else {
            return;
        };
        let served = {
            let mut leases = self.leases.lock().expect("no panic while leases are locked");
            match leases.as_mut() {
                None => vec![Err(reply)],
                Some(leases) => match leases.wait(index, reply) {
                    Some(reply) => vec![Err(reply)],
                    None => leases.served(Instant::now()).into_iter().map(Ok).collect(),
                },
            }
        };
        for waiter in served {
            match waiter {
                Ok(waiter) => waiter.send(Bytes::new()),
                Err(refused) => refused.refuse("not the meta leader, or too many wait"),
            }
        }
    }

    /// The term of this node's meta leadership, if it has one.
    fn lease_term(&self) -> Option<u64> {
        let leases = self.leases.lock().expect("no panic while leases are locked");
        leases.as_ref().map(Leases::term)
    }

    /// Serves barriers that wait for leases to run out.
    pub(crate) fn serve_barriers(&self) {
        let served = {
            let mut leases = self.leases.lock().expect("no panic while leases are locked");
            leases.as_mut().map(|leases| leases.served(Instant::now())).unwrap_or_default()
        };
        served.into_iter().for_each(|waiter| waiter.send(Bytes::new()));
    }

    fn on_taken_over(
        self: &Arc<Self>,
        from: NodeId,
        _: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        match TakenOver::decode(body) {
            Ok(over) => {
                if over.incarnation == self.incarnation
                    && let Some(conn) = self.conn(over.conn)
                {
                    conn.push(moorline_core::port::Notice::TakenOver);
                }
                if let Some(reply) = reply {
                    reply.send(Bytes::new());
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }

    pub(crate) fn bad_frame(&self, from: NodeId, problem: &dyn std::fmt::Display) {
        warn!(%from, %problem, "a frame does not read");
        self.metrics.bad_frames.inc();
    }
}

/// What a connection of a node hears that says it has a session, by what is known of that: none if it has.
fn lost_by(
    from: NodeId,
    (epoch, conn): (Epoch, ConnId),
    known: Option<(Epoch, Option<Holder>)>,
) -> Option<Attached> {
    match known {
        Some((now, Some(holder)))
            if now == epoch && holder.node == from && holder.conn == conn
                || planted::is(planted::Bug::StaleEpoch) =>
        {
            None
        }
        Some((now, _)) if now != epoch => Some(Attached::TakenOver),
        Some(_) | None => Some(Attached::Gone),
    }
}

/// The command that makes a change of a shard's filters known.
pub(crate) fn route_command(change: RouteChange) -> Command {
    let RouteChange { tenant, filter, target, version, present } = change;
    Command::SetRoute { tenant, filter, target, version, present }
}
