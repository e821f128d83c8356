//! What the meta group knows: nodes, who votes where, tenants, and where each filter leads.
//!
//! # Invariants
//!
//! - **A route's version never goes back**: late news of an older change does nothing, also after the route is gone (its
//!   row stays for [`TOMBSTONE_MS`]). Checked by `tests/rules/meta.rs`.
//! - **No route leads to a process that is known to be dead.** Checked by `tests/rules/meta.rs`.

mod levels;
mod members;
mod tenants;

pub(crate) use levels::LEVEL;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use moorline_core::{
    Incarnation, NodeId, ShardId, TenantId, Text, UnixMillis,
    level::{FIRST, Program},
    planted,
    shard::SHARDS_MAX,
    topic::is_filter,
    trie::Trie,
};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use crate::{
    answer::{Answer, Refused},
    command::{MemberState, NodeRecord, RouteTarget},
    forget::Forgetting,
    keys::{Keys, Suffix, each},
    rows::{ClusterRow, NodeRow, PlacementRow, RouteRow, Row, corrupt},
    step::Step,
};

/// Routes in the cluster: each node holds them in memory, about 200 bytes each.
const ROUTES_MAX: usize = 1_000_000;
/// Nodes of a cluster, dead ones included.
const NODES_MAX: usize = 1024;
/// Voters of a group: more make every write slower and no cluster safer.
const VOTERS_MAX: usize = 5;
/// How many copies a shard may be asked to have.
pub const REPLICAS: [u8; 3] = [1, 3, 5];
/// How long a removed route is remembered, in log time: longer than any news of it can be under way.
const TOMBSTONE_MS: u64 = 10 * 60 * 1000;
/// About what a removed route takes in memory besides its filter: its place in a tree that is filled two thirds, and the filter's
/// own allocation.
const TOMBSTONE_BYTES: usize = 200;
/// Removed routes that are remembered, about 200 bytes each. Beyond it the oldest are forgotten: should old news of one of
/// them still come, messages go to somebody who does not take them, and nothing is lost.
pub const TOMBSTONES_MAX: usize = 100_000;
/// Removed routes that one `Tick` forgets.
const TOMBSTONES_PER_TICK_MAX: usize = 1024;
/// Routes that one `DropNodeRoutes` removes: a row each, so about 30 ms.
const ROUTES_PER_DROP_MAX: usize = 20_000;

pub use self::{
    members::Target,
    tenants::{TENANTS_BYTES_MAX, TENANTS_MAX},
};

pub(crate) const CLUSTER: &[u8] = b"cluster";

/// The cluster itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its id.
    pub cluster: u128,
    /// How many shards it has.
    pub shards: u16,
    /// How many voters each shard is to have, once there are so many nodes.
    pub replicas: u8,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Who and where it is.
    pub record: NodeRecord,
    /// Whether the process in `record` is dead (`DropNodeRoutes` said so, and it has not registered since).
    pub gone: bool,
}

/// A route that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteState {
    /// The version at its source.
    pub version: u64,
    /// The meta log index at which it became true: who has applied it knows the route.
    pub index: u64,
}

/// Everything the meta group knows, in memory. Every node has it and asks it without waiting.
#[derive(Debug)]
pub struct MetaState {
    keys: Keys,
    cluster: Option<ClusterRecord>,
    nodes: BTreeMap<NodeId, NodeState>,
    placement: BTreeMap<ShardId, Vec<NodeId>>,
    /// Who is to vote, where that is not who the group was made with any more.
    targets: BTreeMap<ShardId, Target>,
    /// Nodes that are not simply active.
    members: BTreeMap<NodeId, MemberState>,
    /// What lets a node join, and until when.
    tokens: BTreeMap<u128, UnixMillis>,
    /// By which rules the cluster works.
    level: u16,
    /// What nodes said last of their programs, since the first level.
    programs: BTreeMap<NodeId, Program>,
    tenants: tenants::Tenants,
    /// Deleted tenants of which shards may have something.
    pub(crate) forgetting: Forgetting,
    routes: BTreeMap<TenantId, Trie<RouteTarget, RouteState>>,
    routes_len: usize,
    /// Present routes that lead to a process, so that they can be dropped with it.
    of_nodes: BTreeSet<(NodeId, Incarnation, TenantId, Text)>,
    /// Removed routes, by when.
    tombstones: BTreeSet<(UnixMillis, TenantId, Text, RouteTarget)>,
    /// Of their filters.
    tombstone_bytes: usize,
}

impl MetaState {
    pub(crate) fn open(keys: Keys, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let mut state = Self {
            keys,
            cluster: None,
            nodes: BTreeMap::new(),
            placement: BTreeMap::new(),
            targets: BTreeMap::new(),
            members: BTreeMap::new(),
            tokens: BTreeMap::new(),
            level: FIRST,
            programs: BTreeMap::new(),
            tenants: tenants::Tenants::default(),
            forgetting: Forgetting::default(),
            routes: BTreeMap::new(),
            routes_len: 0,
            of_nodes: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            tombstone_bytes: 0,
        };
        if keys.group() != ShardId::META {
            return Ok(state);
        }
        state.forgetting = Forgetting::open(keys, rows)?;
        if let Some(row) = rows.get(&keys.setting(CLUSTER))? {
            let ClusterRow { cluster, shards, replicas } = ClusterRow::from_bytes(&row)?;
            state.cluster = Some(ClusterRecord { cluster, shards, replicas });
        }
        state.open_lists(rows)?;
        state.open_members(rows)?;
        state.open_level(rows)?;
        state.open_tenants(rows)?;
        Ok(state)
    }

    fn open_lists(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let keys = self.keys;
        let scan = |kind, read: &mut Read<'_>| scan(keys, rows, kind, read);
        scan(Kind::Node, &mut |mut suffix, row| {
            let NodeRow { record, gone } = NodeRow::from_bytes(row)?;
            self.nodes.insert(NodeId(suffix.u64()?), NodeState { record, gone });
            Ok(())
        })?;
        scan(Kind::Placement, &mut |mut suffix, row| {
            self.placement.insert(ShardId(suffix.u16()?), PlacementRow::from_bytes(row)?.0);
            Ok(())
        })?;
        scan(Kind::Route, &mut |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let ((filter, target), row) = (suffix.route()?, RouteRow::from_bytes(row)?);
            if planted::is(planted::Bug::LostRoute) && matches!(target, RouteTarget::Shard(_)) {
                return Ok(());
            }
            self.learn(tenant, &filter, target, row);
            Ok(())
        })
    }

    /// The cluster, once it has been created.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.cluster.as_ref()
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeState> {
        &self.nodes
    }

    /// The voters of a group, the preferred leader first.
    #[must_use]
    pub fn voters(&self, group: ShardId) -> &[NodeId] {
        let target = self.targets.get(&group).map(|target| target.voters.as_slice());
        target.unwrap_or_else(|| self.founders(group))
    }

    /// Where a message goes: each target once, ascending. `targets` is cleared first.
    pub fn routes(&self, tenant: TenantId, topic: &[u8], targets: &mut Vec<RouteTarget>) {
        targets.clear();
        let Some(trie) = self.routes.get(&tenant) else { return };
        trie.matches(topic, |target, _| targets.push(*target));
        if targets.len() > 1 {
            targets.sort_unstable();
            targets.dedup();
        }
    }

    /// A route, if it is there.
    #[must_use]
    pub fn route(
        &self,
        tenant: TenantId,
        filter: &[u8],
        target: RouteTarget,
    ) -> Option<RouteState> {
        self.routes.get(&tenant)?.get(filter, &target).copied()
    }

    /// How many routes there are.
    #[must_use]
    pub fn routes_len(&self) -> usize {
        self.routes_len
    }

    /// About how many bytes removed routes take that are still remembered.
    #[must_use]
    pub fn removed_routes_bytes(&self) -> usize {
        self.tombstones.len() * TOMBSTONE_BYTES + self.tombstone_bytes
    }

    pub(crate) fn create<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        cluster: u128,
        shards: u16,
        nodes: &[NodeRecord],
        replicas: u8,
    ) -> Answer {
        let ids: Vec<NodeId> = nodes.iter().map(|record| record.node).collect();
        let distinct = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        let sensible = distinct
            && (1..=NODES_MAX).contains(&ids.len())
            && (1..=SHARDS_MAX).contains(&shards)
            && (1..=VOTERS_MAX).contains(&usize::from(replicas));
        if !sensible {
            return Answer::Refused(Refused::Malformed);
        }
        if self.cluster.is_some() {
            return Answer::Refused(Refused::WrongState);
        }
        self.cluster = Some(ClusterRecord { cluster, shards, replicas });
        let row = ClusterRow { cluster, shards, replicas };
        step.put(self.keys.setting(CLUSTER), row.to_bytes());
        for record in nodes {
            self.put_node(step, record, false);
        }
        self.place(step, ShardId::META, ids.iter().take(VOTERS_MAX).copied().collect());
        for shard in 1..=shards {
            let first = usize::from(shard - 1) % ids.len();
            let around = ids.iter().cycle().skip(first).take(ids.len());
            let voters = around.take(usize::from(replicas)).copied().collect();
            self.place(step, ShardId(shard), voters);
        }
        Answer::At(step.index)
    }

    fn place<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        group: ShardId,
        voters: Vec<NodeId>,
    ) {
        let row = PlacementRow(voters);
        step.put(self.keys.placement(group), row.to_bytes());
        self.placement.insert(group, row.0);
    }

    fn put_node<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        record: &NodeRecord,
        gone: bool,
    ) {
        // A copy of the address: the text is a slice of the whole log entry.
        let record = NodeRecord { address: Text::from(record.address.as_str()), ..*record };
        let row = NodeRow { record, gone };
        step.put(self.keys.node(row.record.node), row.to_bytes());
        self.nodes.insert(row.record.node, NodeState { record: row.record, gone });
    }

    pub(crate) fn register<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        record: &NodeRecord,
    ) -> Result<Answer, StorageError> {
        if self.cluster.is_none() {
            return Ok(Answer::Refused(Refused::WrongState));
        }
        if self.members.get(&record.node) == Some(&MemberState::Removed) {
            return Ok(Answer::Refused(Refused::NodeRemoved));
        }
        match self.nodes.get(&record.node) {
            // 0: the cluster was created before this node had said which directory it has.
            Some(known) if known.record.store != 0 && known.record.store != record.store => {
                return Ok(Answer::Refused(Refused::NodeIdTaken));
            }
            None if self.nodes.len() >= NODES_MAX => {
                return Ok(Answer::Refused(Refused::TooManyRoutes));
            }
            Some(known) if known.record == *record && !known.gone => {}
            Some(_) | None => self.put_node(step, record, false),
        }
        // Whatever ran there before has ended.
        self.drop_node(step, record.node, |process| process != record.incarnation)
    }

    /// Whether a route may lead there: a process only while it is the one that runs.
    fn alive(&self, target: RouteTarget) -> bool {
        match target {
            RouteTarget::Shard(_) => true,
            RouteTarget::Node(node, incarnation) => self
                .nodes
                .get(&node)
                .is_some_and(|node| !node.gone && node.record.incarnation == incarnation),
        }
    }

    pub(crate) fn set_route<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
        target: RouteTarget,
        version: u64,
        present: bool,
    ) -> Result<Answer, StorageError> {
        if !is_filter(filter.as_bytes()) {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        if !self.alive(target) {
            return Ok(Answer::Refused(Refused::NotYours));
        }
        let key = self.keys.route(tenant, filter, target);
        let known = step.rows.get(&key)?.map(|row| RouteRow::from_bytes(&row)).transpose()?;
        match known {
            Some(known) if known.version > version => return Ok(Answer::At(known.index)),
            Some(known) if known.version == version && known.present == present => {
                return Ok(Answer::At(known.index));
            }
            Some(known) => self.unlearn(tenant, filter, target, known),
            None => {}
        }
        if present && self.routes_len >= ROUTES_MAX {
            if let Some(known) = known {
                self.learn(tenant, filter, target, known);
            }
            return Ok(Answer::Refused(Refused::TooManyRoutes));
        }
        let row = RouteRow { version, present, index: step.index, at: step.time };
        self.learn(tenant, filter, target, row);
        step.put(key, row.to_bytes());
        if self.tombstones.len() > TOMBSTONES_MAX {
            self.forget_route(step);
        }
        Ok(Answer::At(step.index))
    }

    pub(crate) fn drop_node<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        node: NodeId,
        is_gone: impl Fn(Incarnation) -> bool,
    ) -> Result<Answer, StorageError> {
        if let Some(known) = self.nodes.get(&node)
            && !known.gone
            && is_gone(known.record.incarnation)
        {
            let record = known.record.clone();
            self.put_node(step, &record, true);
        }
        let first = (node, Incarnation(0), TenantId(0), Text::default());
        let mut dead: Vec<_> = self
            .of_nodes
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(of, ..)| *of == node)
            .filter(|(_, incarnation, ..)| is_gone(*incarnation))
            .take(ROUTES_PER_DROP_MAX + 1)
            .cloned()
            .collect();
        let more = dead.len() > ROUTES_PER_DROP_MAX;
        dead.truncate(ROUTES_PER_DROP_MAX);
        for (node, incarnation, tenant, filter) in dead {
            // No tombstone: nothing may lead to that process again.
            let target = RouteTarget::Node(node, incarnation);
            let key = self.keys.route(tenant, &filter, target);
            let row = step.rows.get(&key)?;
            let row = row.ok_or_else(|| corrupt(RouteRow::WHAT, &"it is missing"))?;
            self.unlearn(tenant, &filter, target, RouteRow::from_bytes(&row)?);
            step.delete(key);
        }
        Ok(if more { Answer::Partly(Vec::new()) } else { Answer::At(step.index) })
    }

    pub(crate) fn next_deadline(&self) -> Option<UnixMillis> {
        let tombstone = self.tombstones.first().map(|(at, ..)| forgotten_at(*at));
        [tombstone, self.token_deadline()].into_iter().flatten().min()
    }

    /// Forgets routes that were removed long ago.
    pub(crate) fn tick<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        self.tick_tokens(step);
        for _ in 0..TOMBSTONES_PER_TICK_MAX {
            match self.tombstones.first() {
                Some((at, ..)) if forgotten_at(*at) <= step.time => {}
                Some(_) | None => return,
            }
            self.forget_route(step);
        }
    }

    /// Forgets the route that was removed first.
    fn forget_route<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        let (_, tenant, filter, target) = self.tombstones.pop_first().expect("there is one");
        self.tombstone_bytes -= filter.len();
        step.delete(self.keys.route(tenant, &filter, target));
    }

    /// Takes what a row says into memory.
    fn learn(&mut self, tenant: TenantId, filter: &Text, target: RouteTarget, row: RouteRow) {
        // A copy: the text may be a slice of the whole log entry.
        let own = || Text::from(filter.as_str());
        if !row.present {
            if self.tombstones.insert((row.at, tenant, own(), target)) {
                self.tombstone_bytes += filter.len();
            }
            return;
        }
        let state = RouteState { version: row.version, index: row.index };
        self.routes.entry(tenant).or_default().insert(filter.as_bytes(), target, state);
        self.routes_len += 1;
        if let RouteTarget::Node(node, incarnation) = target {
            self.of_nodes.insert((node, incarnation, tenant, own()));
        }
    }

    fn unlearn(&mut self, tenant: TenantId, filter: &Text, target: RouteTarget, row: RouteRow) {
        if !row.present {
            if self.tombstones.remove(&(row.at, tenant, filter.clone(), target)) {
                self.tombstone_bytes -= filter.len();
            }
            return;
        }
        let trie = self.routes.get_mut(&tenant).expect("a present route is in the trie");
        trie.remove(filter.as_bytes(), &target).expect("a present route is in the trie");
        if trie.is_empty() {
            self.routes.remove(&tenant);
        }
        self.routes_len -= 1;
        if let RouteTarget::Node(node, incarnation) = target {
            self.of_nodes.remove(&(node, incarnation, tenant, filter.clone()));
        }
    }

    /// # Panics
    ///
    /// If the two differ. `rows` are those of both.
    pub(crate) fn assert_same(
        &self,
        other: &Self,
        rows: &(impl View + ?Sized),
    ) -> Result<(), StorageError> {
        assert_eq!(self.cluster, other.cluster);
        assert_eq!(self.nodes, other.nodes);
        assert_eq!(self.placement, other.placement);
        assert_eq!(self.targets, other.targets);
        assert_eq!(self.members, other.members);
        assert_eq!(self.tokens, other.tokens);
        assert_eq!(self.level, other.level);
        assert_eq!(self.programs, other.programs);
        assert_eq!(self.tenants, other.tenants);
        assert_eq!(self.forgetting, other.forgetting);
        assert_eq!(self.routes_len, other.routes_len);
        assert_eq!(self.of_nodes, other.of_nodes);
        assert_eq!(self.tombstones, other.tombstones);
        assert_eq!(self.tombstone_bytes, other.tombstone_bytes);
        each(rows, &self.keys.range(Kind::Route), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let ((filter, target), row) = (suffix.route()?, RouteRow::from_bytes(row)?);
            let state = RouteState { version: row.version, index: row.index };
            for side in [self, other] {
                let found = side.route(tenant, filter.as_bytes(), target);
                assert_eq!(found, row.present.then_some(state), "{filter:?}");
            }
            Ok(())
        })
    }
}

/// Takes one row into memory.
type Read<'a> = dyn FnMut(Suffix<'_>, &Bytes) -> Result<(), StorageError> + 'a;

/// Reads all rows of a kind.
fn scan(
    keys: Keys,
    rows: &(impl View + ?Sized),
    kind: Kind,
    read: &mut Read<'_>,
) -> Result<(), StorageError> {
    each(rows, &keys.range(kind), read)
}

fn forgotten_at(removed_at: UnixMillis) -> UnixMillis {
    UnixMillis(removed_at.0.saturating_add(TOMBSTONE_MS))
}
