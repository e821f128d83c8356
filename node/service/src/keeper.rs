//! What the service does on its own: leases, registration, attachments, settlements, and what dead nodes leave behind.
//!
//! Each loop waits for something to do; none of them costs anything while nothing happens but the lease's, four times a
//! second, and one entry per group and minute that carries time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use moorline_group::wire::{CallError, Kind, Lane, PeerState};
use moorline_machine::{Answer, Command, answer::Refused};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::{
    conn::Conn,
    frames::{Attached, LeaseReport, Report, Upward},
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
/// The first pause before attachments are tried again; a change of the leader cuts it short.
const ATTACH_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest: it doubles while attachments fail one time after the other.
const ATTACH_PAUSE_MAX: Duration = Duration::from_millis(160);
/// How long an attachment may take.
const ATTACH_WAIT: Duration = Duration::from_secs(2);
/// Sessions whose closing is tried again at a time.
const CLOSES_PER_TICK: usize = 256;
/// How often deadlines, lost pushes and barriers are looked after.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// How often gauges are brought up to date: every so many ticks.
const OBSERVE_TICKS: u64 = 20;
/// A group in which something will be due hears what time it is at least this often: should all its nodes go down, their
/// wall clocks can be wrong by any amount, and log time goes on from the last stamp.
const SILENCE_MAX: Duration = Duration::from_secs(60);

impl Inner {
    /// Starts all of it.
    pub(crate) fn start_keeping(self: &Arc<Self>) {
        self.keep(Self::keep_lease);
        self.keep(Self::keep_settlements);
        self.keep(Self::keep_attachments);
        self.keep(Self::keep_share_attachments);
        self.keep(Self::check_members);
        self.keep(Self::follow_leaders);
        self.keep(Self::follow_peers);
        self.keep(Self::detach_the_gone);
        self.keep(Self::keep_ticking);
        self.keep(Self::keep_deadlines);
        self.keep(Self::keep_wills);
        self.keep(Self::keep_rights);
        self.keep(Self::keep_forgetting);
        for shard in self.shards.all() {
            self.keep(move |service| service.read_rows(shard));
            self.keep(move |service| service.keep_presence(shard));
        }
    }

    fn keep<F>(self: &Arc<Self>, keep: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (kept, stop) = (keep(Arc::clone(self)), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = kept => {}
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
            self.see_to_registration().await;
            let index = *applied.borrow_and_update();
            // Whoever has a lease is known: a process that the meta group does not name holds nothing, or is dead (`gone`).
            let renewed = self.is_registered() && self.report(index).await;
            if renewed {
                self.unpark();
                self.unpark_onces();
                // An error means that the group is closed; the pause bounds what is left of this task.
                drop(timeout(REPORT_INTERVAL, applied.changed()).await);
            } else {
                sleep(REPORT_PAUSE).await;
            }
        }
    }

    /// Whether the cluster knows this process, by the meta group's rows here.
    fn is_registered(&self) -> bool {
        let below = self.below();
        let own = below.groups.read(ShardId::META, |machine, _| {
            let own = machine.meta().nodes().get(&self.node)?;
            Some(!own.gone && own.record == below.record)
        });
        own.flatten().unwrap_or(false)
    }

    async fn report(&self, applied: u64) -> bool {
        let Some(leader) = self.below().router.leader(ShardId::META) else {
            return false;
        };
        let sent = Instant::now();
        if let Err(problem) = self.report_to(leader, applied).await {
            debug!(?problem, "the lease was not renewed");
            self.metrics.lease_failures.inc();
            return false;
        }
        *self.lease_until.lock().expect("no panic while it is locked") = Some(sent + LEASE);
        true
    }

    /// Reports to the meta leader. Gives what it answers once a majority has confirmed it: up to where the meta log was
    /// committed at least when it was asked.
    async fn report_to(&self, leader: NodeId, applied: u64) -> Result<Bytes, CallError> {
        let body = LeaseReport { incarnation: self.incarnation, applied }.encode();
        let (kind, meta) = (Kind::LeaseReport, ShardId::META);
        self.below().peers.call(leader, Lane::Control, kind, meta, body, REPORT_WAIT).await
    }

    /// Whether the meta group's rows here hold everything that was committed when this was asked. A lease says less: it
    /// may be one of the process before, which had applied more than this one has yet.
    pub(crate) async fn is_meta_current(&self) -> bool {
        let below = self.below();
        let applied = below.groups.applied(ShardId::META).map(|applied| *applied.borrow());
        let (Some(leader), Some(applied)) = (below.router.leader(ShardId::META), applied) else {
            return false;
        };
        let answer = self.report_to(leader, applied).await.ok();
        match answer.as_deref().and_then(Report::decode) {
            Some(Report { applied: committed }) => {
                below.groups.wait_applied(ShardId::META, committed, REPORT_WAIT).await
            }
            None => false,
        }
    }

    /// Makes sure that the cluster knows this process and its live routes.
    async fn see_to_registration(self: &Arc<Self>) {
        let below = self.below();
        let own = below.groups.read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            meta.cluster().map(|_| {
                let own = meta.nodes().get(&self.node);
                own.map(|own| (own.gone, own.record == below.record))
            })
        });
        match own.flatten() {
            None | Some(Some((false, true))) => return,
            Some(Some((true, true))) => self.end_live_sessions(),
            Some(None | Some((_, false))) => {}
        }
        let register = Command::RegisterNode(below.record.clone());
        match below.router.ask(ShardId::META, &register).await {
            Ok(Answer::At(index)) => {
                info!("this process is registered");
                self.report_presence_anew();
                self.announce_live_routes().await;
                // The rows here may be behind: registering again would not bring them on.
                below.groups.wait_applied(ShardId::META, index, REPORT_WAIT).await;
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

    /// The cluster went on without this process for a while: what it acknowledged meanwhile the clean sessions here have
    /// missed, or another connection has them. They begin anew, and know that they do.
    fn end_live_sessions(&self) {
        let conns = self.live.conns();
        if !conns.is_empty() {
            warn!(
                sessions = conns.len(),
                "clean sessions end: the cluster went on without this node"
            );
        }
        for conn in conns {
            conn.push(moorline_core::port::Notice::Lost);
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
                self.sweep_shares(&conn);
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

    /// Attaches a durable session at its shard's leader, or notes that it has to be. For a clean one it asks whether that
    /// is still this connection's: what a leader says of a takeover can be lost with it, and so can that of an entry that
    /// its successor finds committed.
    pub(crate) fn attach(self: &Arc<Self>, conn: &Arc<Conn>) {
        let (shard, upward, generation) = match (conn.hold(), conn.attach()) {
            (Some((shard, hold)), _) => (shard, Upward::Hold(hold), None),
            (None, Some((shard, attach))) => {
                let generation = attach.generation;
                (shard, Upward::Attach(attach), Some(generation))
            }
            (None, None) => return,
        };
        let Some(leader) = self.below().router.leader(shard) else {
            self.mark_unattached(conn);
            return;
        };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<Bytes, CallError>| {
            let attached = outcome.ok().and_then(|answer| Attached::decode(answer).ok());
            let latest = generation.is_none_or(|generation| conn.is_generation(generation));
            match attached {
                Some(Attached::Yes(shared)) if generation.is_some() => {
                    service.resume_shares(&conn, shared);
                }
                Some(Attached::Yes(_)) => {}
                Some(Attached::TakenOver) => {
                    conn.push(moorline_core::port::Notice::TakenOver);
                }
                Some(Attached::Gone) => {
                    conn.push(moorline_core::port::Notice::Lost);
                }
                Some(Attached::NotLeader) | None if latest => service.mark_unattached(&conn),
                Some(Attached::NotLeader) | None => {}
            }
        };
        let (peers, body) = (&self.below().peers, upward.encode());
        peers.request(leader, Lane::Data, Kind::Attachment, shard, body, ATTACH_WAIT, done);
    }

    async fn keep_attachments(self: Arc<Self>) {
        let (mut pause, mut last) = (ATTACH_PAUSE_FIRST, Instant::now());
        loop {
            self.unattached_added.notified().await;
            // What failed in the last round comes at once again.
            let again = last.elapsed() < pause * 2;
            pause = if again { (pause * 2).min(ATTACH_PAUSE_MAX) } else { ATTACH_PAUSE_FIRST };
            sleep(pause).await;
            for conn in self.take_unattached() {
                self.attach(&conn);
            }
            last = Instant::now();
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
            if conn.whose().is_some_and(|whose| shards.contains(&whose.shard)) {
                self.attach(&conn);
            }
            let lost = conn.members().lose(|shard| shards.contains(&shard));
            if lost {
                self.attach_shares(&conn);
            }
        }
    }

    /// Attaches anew what was attached at a node whose connection broke.
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
            if peers.changed().await.is_err() {
                return;
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

    // ---- time

    async fn keep_ticking(self: Arc<Self>) {
        let mut ticks = 0_u64;
        loop {
            sleep(TICK_INTERVAL).await;
            ticks += 1;
            self.tell_lost();
            for shard in self.shards.all() {
                self.tell_detached(shard);
                if let Some(delivery) = self.delivery(shard) {
                    self.wake_reader(shard, &delivery);
                }
            }
            self.serve_barriers();
            self.refuse_late();
            self.refuse_late_onces();
            self.close_again(CLOSES_PER_TICK);
            if ticks.is_multiple_of(OBSERVE_TICKS) {
                self.account();
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

    /// Proposes `Tick` to the groups led here in which something is due, or that were silent for so long that replicas may
    /// not know what time it is.
    async fn propose_ticks(&self) {
        let silence_max = self.youngest_peer().map_or(SILENCE_MAX, |age| age.min(SILENCE_MAX));
        for shard in self.led_here() {
            let now = self.log_time(shard);
            let due = self.below().groups.read(shard, |machine, _| {
                let silence = Duration::from_millis(now.0.saturating_sub(machine.time().0));
                machine.next_deadline().is_some_and(|at| at <= now || silence > silence_max)
            });
            if due == Some(true)
                && let Err(problem) = self.below().router.ask(shard, &Command::Tick).await
            {
                debug!(%shard, %problem, "a tick was not taken");
            }
        }
    }

    /// For how long the node that came last has been connected. It may have been started anew, and goes by its wall clock
    /// until it has heard a stamp.
    fn youngest_peer(&self) -> Option<Duration> {
        let peers = self.below().peers.state();
        let states = peers.borrow();
        let began = states.iter().filter_map(|(_, state)| match state {
            PeerState::Up { since, .. } => Some(since),
            PeerState::Down { .. } | PeerState::Suspect => None,
        });
        began.max().map(|since| since.elapsed())
    }
}
