//! Publishes the wills that are due in the shards led here, and tells each shard which it can forget.
//!
//! # Invariants
//!
//! - **A will stays due until everybody who wants it has it.** What fails is tried again, by this leader or the next one.
//!   Checked by the cluster tests (`wills.rs`).
//! - **Twice is once**: a will is published with its number, and shards and live sessions count each once. One of QoS 0 may be
//!   heard twice, when a leader died between publishing it and saying so.
//!
//! # Deliberately absent
//!
//! When a will is due (`raft/machine`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{Incarnation, Message, NodeId, QoS, ShardId, TenantId, UnixMillis};
use moorline_group::wire::{Kind, Lane};
use moorline_machine::{
    Answer, Command, DueWill, NUMBERS_SPAN_MAX,
    answer::Refused,
    command::{Origin, RouteTarget},
};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use tracing::{debug, error, warn};

use crate::{
    expiry,
    frames::{self, Publisher},
    service::Inner,
};

/// Wills that are published at once: they wait on each other for nothing, but each holds its message in memory.
const WILLS_AT_ONCE: usize = 256;
/// How often due wills are looked for without being told of any: a node gets its lease, a shard its rows.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before a part of a will is tried again.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// How long a node with live sessions may take to answer one try.
const LIVE_WAIT: Duration = Duration::from_secs(2);

/// Wills on their way.
#[derive(Debug, Default)]
struct AtHand {
    tasks: JoinSet<()>,
    names: HashMap<Id, (ShardId, u64)>,
    numbers: BTreeSet<(ShardId, u64)>,
}

impl AtHand {
    fn room(&self) -> usize {
        WILLS_AT_ONCE.saturating_sub(self.numbers.len())
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(problem) => {
                error!(%problem, "a will was not published, and is tried again");
                problem.id()
            }
        };
        if let Some(name) = self.names.remove(&id) {
            self.numbers.remove(&name);
        }
    }
}

impl Inner {
    pub(crate) async fn keep_wills(self: Arc<Self>) {
        let mut at_hand = AtHand::default();
        loop {
            if self.has_lease() {
                for shard in self.led_here() {
                    self.begin_wills(shard, &mut at_hand);
                }
            }
            tokio::select! {
                Some(ended) = at_hand.tasks.join_next_with_id() => at_hand.ended(ended),
                () = self.wills_due.notified() => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Begins with the oldest wills of a shard that nobody is at.
    fn begin_wills(self: &Arc<Self>, shard: ShardId, at_hand: &mut AtHand) {
        if shard == ShardId::META || at_hand.room() == 0 {
            return;
        }
        let read = self.below().groups.read(shard, |machine, rows| {
            if machine.counts().due_wills == 0 {
                return Ok(Vec::new());
            }
            machine.due_wills(rows, 0, WILLS_AT_ONCE)
        });
        let due = match read {
            None => return,
            Some(Ok(due)) => due,
            Some(Err(problem)) => {
                error!(%shard, %problem, "cannot read wills");
                return (self.fatal)("rows can't be read");
            }
        };
        let Some(floor) = due.first().map(|will| will.number) else { return };
        for will in due {
            let name = (shard, will.number);
            // Too far above the lowest, nobody would remember it: it waits until that one is published.
            let fits = will.number - floor < NUMBERS_SPAN_MAX;
            if fits && at_hand.room() > 0 && at_hand.numbers.insert(name) {
                let service = Arc::clone(self);
                let origin = Origin::of_wills(shard, will.number, floor);
                let task = at_hand.tasks.spawn(service.publish_will(shard, origin, will));
                at_hand.names.insert(task.id(), name);
            }
        }
    }

    /// Publishes a will to everybody who wants it now, and then has it forgotten.
    async fn publish_will(self: Arc<Self>, shard: ShardId, origin: Origin, will: DueWill) {
        let DueWill { number, tenant, message } = will;
        debug!(%shard, number, "a will is due");
        if !self.spread(shard, tenant, origin, message).await {
            return;
        }
        self.metrics.kept.wills_published.inc();
        let done = Command::WillsDone { numbers: vec![number] };
        while self.leads(shard) {
            match self.below().router.ask(shard, &done).await {
                Ok(_) => return,
                Err(problem) => debug!(%shard, %problem, "a published will is still due"),
            }
            sleep(AGAIN_PAUSE).await;
        }
    }

    /// Gets a message to every route; false if the leadership of its shard ended before.
    async fn spread(
        self: &Arc<Self>,
        shard: ShardId,
        tenant: TenantId,
        origin: Origin,
        message: Message,
    ) -> bool {
        let mut targets = Vec::new();
        self.below().groups.read(ShardId::META, |machine, _| {
            machine.meta().routes(tenant, message.topic.as_bytes(), &mut targets);
        });
        let now = self.now();
        let expires_at = message.expires_at.map(|UnixMillis(left)| expiry::over(left, now));
        let live = Message { expires_at, ..message.clone() };
        let mut parts = JoinSet::new();
        if message.retain {
            let to = self.shards.of(tenant, message.topic.as_bytes());
            let retain = Command::Retain { tenant, origin: Some(origin), message: message.clone() };
            parts.spawn(Arc::clone(self).tell_shard(shard, to, Arc::new(retain)));
        }
        // Its client may want to know that it was published: No Local does not keep it from it.
        let publisher = Publisher { tenant, session: None };
        if message.qos == QoS::AtMostOnce {
            self.pass(publisher, &targets, &live);
            targets.clear();
        }
        let live = Arc::new(frames::owned(&live));
        let command = Arc::new(Command::PublishOnce { tenant, origin, message });
        for target in targets {
            match target {
                RouteTarget::Shard(to) => {
                    parts.spawn(Arc::clone(self).tell_shard(shard, to, Arc::clone(&command)));
                }
                RouteTarget::Node(node, incarnation) if node == self.node => {
                    if incarnation == self.incarnation {
                        self.deliver_once(tenant, origin, &live);
                    }
                }
                RouteTarget::Node(node, incarnation) => {
                    let body = frames::encode_live_once(tenant, origin, &live, now);
                    parts.spawn(Arc::clone(self).tell_live(shard, node, incarnation, body));
                }
            }
        }
        let mut all = true;
        while let Some(part) = parts.join_next().await {
            all &= part.unwrap_or(false);
        }
        all
    }

    /// Has a shard apply a command, as often as it takes while this node leads the shard of the will.
    async fn tell_shard(self: Arc<Self>, of: ShardId, to: ShardId, command: Arc<Command>) -> bool {
        while self.leads(of) {
            match self.below().router.ask(to, &command).await {
                Ok(Answer::Refused(why)) => {
                    // As for every publisher that can't be told: counted where it happened.
                    if !matches!(why, Refused::QueueFull | Refused::RetainedFull) {
                        warn!(%to, ?why, "a will was refused");
                    }
                    return true;
                }
                Ok(_) => return true,
                Err(problem) => debug!(%to, %problem, "a will waits for a shard"),
            }
            sleep(AGAIN_PAUSE).await;
        }
        false
    }

    /// Has a node hand a message to its live sessions, unless it is dead.
    async fn tell_live(
        self: Arc<Self>,
        of: ShardId,
        node: NodeId,
        incarnation: Incarnation,
        body: Bytes,
    ) -> bool {
        while self.leads(of) {
            let (kind, meta) = (Kind::LiveOnce, ShardId::META);
            let peers = &self.below().peers;
            let told = peers.call(node, Lane::Data, kind, meta, body.clone(), LIVE_WAIT).await;
            if told.is_ok() || self.is_dead(node, incarnation) {
                return true;
            }
            sleep(AGAIN_PAUSE).await;
        }
        false
    }

    fn leads(&self, shard: ShardId) -> bool {
        self.delivery(shard).is_some_and(|delivery| delivery.is_leading())
    }
}
