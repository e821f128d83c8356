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
    collections::{BTreeMap, BTreeSet, HashMap},
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
    registry::Owner,
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

/// Wills that are published at once: they wait on each other for nothing, but each holds its message in memory. A shard led
/// here always has its part of so many places, so there may be twice as many while one shard's wait for somebody silent.
const WILLS_AT_ONCE: usize = 256;
/// How often due wills are looked for without being told of any: a node gets its lease, a shard its rows.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before a part of a will is tried again.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// How long a node with live sessions may take to answer one try.
const LIVE_WAIT: Duration = Duration::from_secs(2);

/// Whose a will is.
struct Whose {
    tenant: TenantId,
    owner: Option<Owner>,
}

/// Wills on their way.
#[derive(Debug, Default)]
struct AtHand {
    /// Each says whether its will is forgotten.
    tasks: JoinSet<bool>,
    names: HashMap<Id, (ShardId, u64)>,
    begun: Begun,
}

impl AtHand {
    fn ended(&mut self, ended: Result<(Id, bool), JoinError>) {
        let (id, done) = match ended {
            Ok(ended) => ended,
            Err(problem) => {
                error!(%problem, "a will was not published, and is tried again");
                (problem.id(), false)
            }
        };
        if let Some((shard, number)) = self.names.remove(&id) {
            self.begun.end(shard, number, done);
        }
    }
}

/// Which wills were begun, by shard.
#[derive(Debug, Default)]
struct Begun {
    shards: BTreeMap<ShardId, BegunOf>,
    at_hand: usize,
}

#[derive(Debug, Default)]
struct BegunOf {
    /// On their way.
    numbers: BTreeSet<u64>,
    /// All that are due below were begun, and are on their way or forgotten.
    next: u64,
}

impl Begun {
    /// How many more of a shard's may begin, with `led` shards that want their part.
    fn room(&self, shard: ShardId, led: usize) -> usize {
        let own = self.shards.get(&shard).map_or(0, |begun| begun.numbers.len());
        let part = (WILLS_AT_ONCE / led.max(1)).max(1);
        WILLS_AT_ONCE.saturating_sub(self.at_hand).max(part.saturating_sub(own))
    }

    /// From where to look for `room` that were not begun, and at how many.
    fn to_read(&self, shard: ShardId, room: usize) -> (u64, usize) {
        match self.shards.get(&shard).filter(|begun| !begun.numbers.is_empty()) {
            // One before them may have failed, and stands between those on their way.
            Some(begun) => (begun.next, room + begun.numbers.range(begun.next..).count()),
            None => (0, room),
        }
    }

    /// Whether nobody is at it yet.
    fn begin(&mut self, shard: ShardId, number: u64) -> bool {
        let begun = self.shards.entry(shard).or_default();
        begun.next = number + 1;
        let new = begun.numbers.insert(number);
        self.at_hand += usize::from(new);
        new
    }

    fn end(&mut self, shard: ShardId, number: u64, done: bool) {
        let Some(begun) = self.shards.get_mut(&shard) else { return };
        self.at_hand -= usize::from(begun.numbers.remove(&number));
        if !done {
            begun.next = begun.next.min(number);
        }
        if begun.numbers.is_empty() {
            self.shards.remove(&shard);
        }
    }
}

impl Inner {
    pub(crate) async fn keep_wills(self: Arc<Self>) {
        let mut at_hand = AtHand::default();
        loop {
            if self.has_lease() {
                let led = self.led_here();
                for &shard in &led {
                    self.begin_wills(shard, led.len(), &mut at_hand);
                }
            }
            tokio::select! {
                Some(ended) = at_hand.tasks.join_next_with_id() => at_hand.ended(ended),
                () = self.wills_due.notified() => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Begins with the oldest wills of a shard that nobody is at. `led` shards share the places.
    fn begin_wills(self: &Arc<Self>, shard: ShardId, led: usize, at_hand: &mut AtHand) {
        let room = at_hand.begun.room(shard, led);
        if shard == ShardId::META || room == 0 {
            return;
        }
        let (from, most) = at_hand.begun.to_read(shard, room);
        let read = self.below().groups.read(shard, |machine, rows| {
            machine.due_wills(rows, from, most).and_then(|due| {
                let first = machine.due_wills(rows, 0, due.len().min(1))?;
                Ok((due, first.first().map(|will| will.number)))
            })
        });
        let (due, floor) = match read {
            None => return,
            Some(Ok((due, floor))) => (due, floor),
            Some(Err(problem)) => {
                error!(%shard, %problem, "cannot read wills");
                return (self.fatal)("rows can't be read");
            }
        };
        let Some(floor) = floor else { return };
        for will in due {
            let name = (shard, will.number);
            // Too far above the lowest, nobody would remember it: it waits until that one is published.
            let fits = will.number - floor < NUMBERS_SPAN_MAX;
            if !fits || at_hand.begun.room(shard, led) == 0 {
                break;
            }
            if at_hand.begun.begin(shard, will.number) {
                let service = Arc::clone(self);
                let origin = Origin::of_wills(shard, will.number, floor);
                let task = at_hand.tasks.spawn(service.publish_will(shard, origin, will));
                at_hand.names.insert(task.id(), name);
            }
        }
    }

    /// Publishes a will to everybody who wants it now, and then has it forgotten; false if it is still due.
    async fn publish_will(self: Arc<Self>, shard: ShardId, origin: Origin, will: DueWill) -> bool {
        let DueWill { number, tenant, owner, message } = will;
        debug!(%shard, number, "a will is due");
        match self.may_will(tenant, owner.as_ref(), &message.topic).await {
            None => {
                sleep(AGAIN_PAUSE).await;
                return false;
            }
            // Its device was deleted or disabled meanwhile, or may not say that any more.
            Some(false) => self.metrics.rights.wills_due.inc(),
            Some(true) => {
                if !self.spread(shard, Whose { tenant, owner }, origin, message).await {
                    return false;
                }
                self.metrics.kept.wills_published.inc();
            }
        }
        let done = Command::WillsDone { numbers: vec![number] };
        while self.leads(shard) {
            match self.below().router.ask(shard, &done).await {
                Ok(_) => return true,
                Err(problem) => debug!(%shard, %problem, "a published will is still due"),
            }
            sleep(AGAIN_PAUSE).await;
        }
        false
    }

    /// Gets a message to every route; false if the leadership of its shard ended before.
    async fn spread(
        self: &Arc<Self>,
        shard: ShardId,
        whose: Whose,
        origin: Origin,
        message: Message,
    ) -> bool {
        let Whose { tenant, owner } = whose;
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
            let (origin, message) = (Some(origin), message.clone());
            let retain = Command::Retain { tenant, owner, origin, message };
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

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ShardId = ShardId(1);
    const OTHER: ShardId = ShardId(2);

    /// Begins what there is room for; gives the numbers begun and how many rows that took.
    fn look(begun: &mut Begun, shard: ShardId, due: &BTreeSet<u64>) -> (Vec<u64>, usize) {
        let (from, most) = begun.to_read(shard, begun.room(shard, 2));
        let read: Vec<u64> = due.range(from..).take(most).copied().collect();
        let new = read.iter().copied().filter(|number| begun.begin(shard, *number)).collect();
        (new, read.len())
    }

    #[test]
    fn each_will_is_read_once_and_again_if_it_failed() {
        let (mut begun, mut rows) = (Begun::default(), 0);
        let mut due: BTreeSet<u64> = (1..=2_000).collect();
        let mut on_their_way = BTreeSet::new();
        let mut failed = BTreeSet::new();
        while !due.is_empty() {
            let (new, read) = look(&mut begun, ONE, &due);
            rows += read;
            for number in new {
                assert!(on_their_way.insert(number), "{number} is on its way");
            }
            assert!(on_their_way.len() <= WILLS_AT_ONCE);
            // The middle one ends: every hundredth in vain, once.
            let at = on_their_way.len() / 2;
            let number = *on_their_way.iter().nth(at).unwrap();
            on_their_way.remove(&number);
            let done = !number.is_multiple_of(100) || !failed.insert(number);
            if done {
                due.remove(&number);
            }
            begun.end(ONE, number, done);
        }
        assert_eq!((failed.len(), begun.at_hand, begun.shards.len()), (20, 0, 0));
        assert!(rows <= 2_000 + 20 * (WILLS_AT_ONCE + 1), "{rows}");
    }

    #[test]
    fn a_shard_whose_wills_wait_leaves_others_their_part() {
        let mut begun = Begun::default();
        let due: BTreeSet<u64> = (1..=1_000).collect();
        assert_eq!(look(&mut begun, ONE, &due), ((1..=256).collect(), WILLS_AT_ONCE));
        assert_eq!(look(&mut begun, ONE, &due), (vec![], 0));
        assert_eq!(look(&mut begun, OTHER, &due).0.len(), WILLS_AT_ONCE / 2);
        begun.end(OTHER, 1, true);
        assert_eq!(look(&mut begun, OTHER, &due), (vec![129], 1));
    }
}
