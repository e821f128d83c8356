//! What the service does on its own: leases, registration, attachments, settlements, and what dead nodes leave behind.
//!
//! Each loop waits for something to do; none of them costs anything while nothing happens but the lease's, four times a
//! second.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{Incarnation, NodeId, ShardId};
use moorline_group::wire::{CallError, Kind, Lane, PeerState};
use moorline_machine::{Answer, Command, answer::Refused};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::{
    conn::Conn,
    frames::{Attached, Report, Upward},
    leader::route_command,
    lease::LEASE,
    service::Inner,
};

/// How often a node renews its lease when nothing happens.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// How long one renewal may take.
const REPORT_WAIT: Duration = Duration::from_millis(1000);
/// The pause after a renewal that failed.
const REPORT_PAUSE: Duration = Duration::from_millis(20);
/// How long acknowledgements are collected.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);
/// The pause before attachments are tried again.
const ATTACH_PAUSE: Duration = Duration::from_millis(10);
/// How long an attachment may take.
const ATTACH_WAIT: Duration = Duration::from_secs(2);
/// How often deadlines, lost pushes and barriers are looked after.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// How often gauges are brought up to date: every so many ticks.
const OBSERVE_TICKS: u64 = 20;
/// The pause between two tries to tell the groups about a dead node.
const GONE_PAUSE: Duration = Duration::from_millis(100);

impl Inner {
    /// Starts all of it.
    pub(crate) fn start_keeping(self: &Arc<Self>) {
        self.keep(Self::keep_lease);
        self.keep(Self::keep_settlements);
        self.keep(Self::keep_attachments);
        self.keep(Self::follow_leaders);
        self.keep(Self::follow_peers);
        self.keep(Self::keep_ticking);
        self.keep(Self::keep_deadlines);
    }

    fn keep<F>(self: &Arc<Self>, keep: fn(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (service, stop) = (Arc::clone(self), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep(service) => {}
            }
        });
    }

    // ---- leases and registration

    async fn keep_lease(self: Arc<Self>) {
        let mut applied = loop {
            match self.below().groups.applied(ShardId::META) {
                Some(applied) => break applied,
                None => sleep(REPORT_PAUSE).await,
            }
        };
        loop {
            let index = *applied.borrow_and_update();
            let renewed = self.report(index).await;
            self.see_to_registration().await;
            if renewed {
                self.unpark();
                // An error means that the group is closed; the pause bounds what is left of this task.
                drop(timeout(REPORT_INTERVAL, applied.changed()).await);
            } else {
                sleep(REPORT_PAUSE).await;
            }
        }
    }

    async fn report(&self, applied: u64) -> bool {
        let below = self.below();
        let Some(leader) = below.router.leader(ShardId::META) else {
            return false;
        };
        let sent = Instant::now();
        let body = Report { applied }.encode();
        let (kind, meta) = (Kind::LeaseReport, ShardId::META);
        let confirmed =
            below.peers.call(leader, Lane::Control, kind, meta, body, REPORT_WAIT).await;
        if let Err(problem) = &confirmed {
            debug!(?problem, "the lease was not renewed");
            self.metrics.lease_failures.inc();
            return false;
        }
        *self.lease_until.lock().expect("no panic while it is locked") = Some(sent + LEASE);
        true
    }

    /// Makes sure that the cluster knows this process and its live routes.
    async fn see_to_registration(self: &Arc<Self>) {
        let below = self.below();
        let known = below.groups.read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            meta.cluster().map(|_| {
                let own = meta.nodes().get(&self.node);
                own.is_some_and(|own| !own.gone && own.record == below.record)
            })
        });
        if known.flatten() != Some(false) {
            return;
        }
        let register = Command::RegisterNode(below.record.clone());
        match below.router.ask(ShardId::META, &register).await {
            Ok(Answer::At(_) | Answer::Done) => {
                info!("this process is registered");
                self.announce_live_routes().await;
            }
            Ok(Answer::Partly(_)) => {}
            Ok(Answer::Refused(Refused::NodeIdTaken)) => {
                (self.fatal)(
                    "this node's id is known with another data directory: give the node a new id",
                );
            }
            Ok(other) => warn!(?other, "the registration was answered with something else"),
            Err(problem) => debug!(%problem, "not registered yet"),
        }
    }

    /// Routes of this process were dropped while it was thought dead: set them again.
    async fn announce_live_routes(self: &Arc<Self>) {
        for (tenant, filter) in self.live.filters() {
            let command = route_command(self.live_route(tenant, filter));
            if let Err(problem) = self.below().router.ask(ShardId::META, &command).await {
                warn!(%problem, "a live route was not set again");
            }
        }
    }

    // ---- settlements

    async fn keep_settlements(self: Arc<Self>) {
        loop {
            self.dirty_added.notified().await;
            sleep(SWEEP_INTERVAL).await;
            for conn in self.take_dirty() {
                if let Some((whose, tell)) = conn.sweep() {
                    self.tell(&conn, whose, tell);
                }
            }
        }
    }

    pub(crate) fn send_credit(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        whose: crate::conn::Whose,
        generation: u64,
        more: u32,
    ) {
        let credit = Upward::Credit { session: whose.session, generation, more };
        let told = self.below().router.tell_leader(whose.shard, Kind::Attachment, credit.encode());
        if told.is_err() {
            // The credit is lost; a new attachment counts it anew.
            self.mark_unattached(conn);
        }
    }

    // ---- attachments

    /// Attaches a durable session at its shard's leader, or notes that it has to be.
    pub(crate) fn attach(self: &Arc<Self>, conn: &Arc<Conn>) {
        let Some((shard, attach)) = conn.attach() else { return };
        let Some(leader) = self.below().router.leader(shard) else {
            self.mark_unattached(conn);
            return;
        };
        let generation = attach.generation;
        let body = Upward::Attach(attach).encode();
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<bytes::Bytes, CallError>| {
            let attached = outcome.ok().and_then(|answer| Attached::decode(&answer));
            match attached {
                Some(Attached::Yes) => {}
                Some(Attached::TakenOver) => {
                    conn.push(moorline_core::port::Notice::TakenOver);
                }
                Some(Attached::Gone) => {
                    conn.push(moorline_core::port::Notice::Lost);
                }
                Some(Attached::NotLeader) | None if conn.is_generation(generation) => {
                    service.mark_unattached(&conn);
                }
                Some(Attached::NotLeader) | None => {}
            }
        };
        let peers = &self.below().peers;
        peers.request(leader, Lane::Data, Kind::Attachment, shard, body, ATTACH_WAIT, done);
    }

    async fn keep_attachments(self: Arc<Self>) {
        loop {
            self.unattached_added.notified().await;
            sleep(ATTACH_PAUSE).await;
            for conn in self.take_unattached() {
                self.attach(&conn);
            }
        }
    }

    /// Attaches the sessions of every shard whose leader changed.
    async fn follow_leaders(self: Arc<Self>) {
        let mut leaders = self.below().router.leaders();
        let mut before = BTreeMap::new();
        loop {
            let now = leaders.borrow_and_update().clone();
            let changed: Vec<ShardId> = now
                .iter()
                .filter(|(shard, leader)| {
                    leader.node.is_some() && before.get(*shard) != Some(*leader)
                })
                .map(|(shard, _)| *shard)
                .collect();
            self.attach_all(&changed);
            before.clone_from(&*now);
            if leaders.changed().await.is_err() {
                return;
            }
        }
    }

    fn attach_all(self: &Arc<Self>, shards: &[ShardId]) {
        if shards.is_empty() {
            return;
        }
        for conn in self.all_conns() {
            if conn.whose().is_some_and(|whose| whose.durable && shards.contains(&whose.shard)) {
                self.attach(&conn);
            }
        }
    }

    // ---- nodes that come and go

    /// Attaches anew what was attached at a node whose connection broke, and tells the groups led here about nodes that
    /// died or began again.
    async fn follow_peers(self: Arc<Self>) {
        let mut peers = self.below().peers.state();
        let mut since: BTreeMap<NodeId, Instant> = BTreeMap::new();
        loop {
            let states: Vec<(NodeId, PeerState)> = peers.borrow_and_update().iter().collect();
            for (node, state) in &states {
                if let PeerState::Up { since: began, .. } = state
                    && since.insert(*node, *began) != Some(*began)
                {
                    self.attach_all(&self.led_by(*node));
                }
            }
            self.tell_groups(&states).await;
            tokio::select! {
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.leading_began.notified() => {}
            }
        }
    }

    fn led_by(&self, node: NodeId) -> Vec<ShardId> {
        let leaders = self.below().router.leaders();
        let leaders = leaders.borrow();
        leaders
            .iter()
            .filter(|(_, leader)| leader.node == Some(node))
            .map(|(shard, _)| *shard)
            .collect()
    }

    /// Detaches what died with a process, in every group led here.
    async fn tell_groups(self: &Arc<Self>, states: &[(NodeId, PeerState)]) {
        let mut news: Vec<(NodeId, Option<Incarnation>)> = states
            .iter()
            .filter_map(|(node, state)| match state {
                PeerState::Up { incarnation, .. } => Some((*node, Some(*incarnation))),
                PeerState::Down { refused: true } => Some((*node, None)),
                PeerState::Down { refused: false } | PeerState::Suspect => None,
            })
            .collect();
        news.push((self.node, Some(self.incarnation)));
        for shard in self.led_here() {
            for (node, alive) in &news {
                if self.has_left_behind(shard, *node, *alive) {
                    self.tell_group(shard, *node, *alive).await;
                }
            }
        }
    }

    fn led_here(&self) -> Vec<ShardId> {
        let all = (0..=self.shards.count()).map(ShardId);
        all.filter(|shard| self.delivery(*shard).is_some_and(|led| led.is_leading())).collect()
    }

    /// Whether a group holds anything of processes of a node other than the one that lives.
    fn has_left_behind(&self, shard: ShardId, node: NodeId, alive: Option<Incarnation>) -> bool {
        let left = self.below().groups.read(shard, |machine, _| {
            if shard == ShardId::META {
                let known = machine.meta().nodes().get(&node);
                return known.is_some_and(|known| !known.gone && alive.is_none());
            }
            machine.sessions().any(|session| {
                let of_node = session.holder.filter(|holder| holder.node == node);
                of_node.is_some_and(|holder| Some(holder.incarnation) != alive)
            })
        });
        left.unwrap_or(false)
    }

    async fn tell_group(&self, shard: ShardId, node: NodeId, alive: Option<Incarnation>) {
        let command = if shard == ShardId::META {
            Command::DropNodeRoutes { node, alive }
        } else {
            Command::NodeGone { node, alive }
        };
        loop {
            match self.below().router.ask(shard, &command).await {
                Ok(Answer::Partly(_)) => {}
                Ok(_) => {
                    info!(%shard, %node, "what a process held was detached");
                    return;
                }
                Err(problem) => {
                    debug!(%shard, %problem, "a dead process is still held");
                    if !self.led_here().contains(&shard) {
                        return;
                    }
                    sleep(GONE_PAUSE).await;
                }
            }
        }
    }

    // ---- time

    async fn keep_ticking(self: Arc<Self>) {
        let mut ticks = 0_u64;
        loop {
            sleep(TICK_INTERVAL).await;
            ticks += 1;
            self.tell_lost();
            self.serve_barriers();
            self.refuse_late();
            if ticks.is_multiple_of(OBSERVE_TICKS) {
                self.observe();
            }
        }
    }

    async fn keep_deadlines(self: Arc<Self>) {
        loop {
            sleep(TICK_INTERVAL).await;
            self.propose_ticks().await;
        }
    }

    /// Proposes `Tick` to the groups led here in which something is due.
    async fn propose_ticks(&self) {
        let now = (self.clock)();
        for shard in self.led_here() {
            let due = self.below().groups.read(shard, |machine, _| {
                machine.next_deadline().is_some_and(|deadline| deadline <= now)
            });
            if due == Some(true)
                && let Err(problem) = self.below().router.ask(shard, &Command::Tick).await
            {
                debug!(%shard, %problem, "a tick was not taken");
            }
        }
    }
}
