//! The machine itself: opens from rows, applies batches, remembers what producers were answered.
//!
//! ```text
//!   Machine ── dedupe (producers) ──► ShardState  sessions, queues, subscriptions   groups 1..
//!                                └──► MetaState   nodes, placement, tenants, routes  group 0
//! ```
//!
//! # Invariants
//!
//! - **Rows are the truth.** What is held in memory is derived from rows: [`Machine::open`] on the rows of a live machine
//!   gives an equal one. Checked by `tests/rules/replicas.rs`.
//! - **A sequence number counts once.** Checked by `producers`' tests and `tests/rules/dedupe.rs`.
//! - **Indexes only grow.** Asserted in [`Machine::apply`] and [`Machine::blank`].

mod calls;
mod documents;
mod registry;
mod values;

use std::collections::BTreeSet;

use bytes::Bytes;
use moorline_core::{
    Delivery, Grant, Incarnation, NodeId, Offset, ShardId, SubscriptionOptions, TenantId, Text,
    UnixMillis,
};
use moorline_storage::{Rows, StorageError, View};

use crate::{
    answer::{Answer, Refused, RouteChange},
    audit::{AuditPage, Audits},
    batch::Batch,
    codec::RunAnswers,
    command::{Command, Run, Scope, SessionId, Subscription},
    digest::digest,
    effect::Effect,
    keys::Keys,
    meta::MetaState,
    presence::PresenceRecord,
    producers::{Place, Producers},
    rows::{MembershipRow, NumberRow, Row, corrupt},
    shard::{
        Counts, DueWill, Mailboxes, Opening, QueueTally, RetainedPage, RetainedQuery,
        SESSION_LIMITS_MAX, SessionInfo, ShardState, ShareInfo, Streams,
    },
    step::Step,
};

/// One replica of one group: what [`Machine::apply`] needs beside the rows.
#[derive(Debug)]
pub struct Machine {
    keys: Keys,
    /// The last index seen since this was opened, to notice one that comes twice.
    last_index: Option<u64>,
    time: UnixMillis,
    producers: Producers,
    shard: ShardState,
    meta: MetaState,
    audits: Audits,
}

impl Machine {
    /// Derives everything from the rows of the group.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn open(group: ShardId, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let keys = Keys::new(group);
        let time = match rows.get(&keys.log_time())? {
            Some(row) => UnixMillis(NumberRow::from_bytes(&row)?.0),
            None => UnixMillis(0),
        };
        Ok(Self {
            keys,
            last_index: None,
            time,
            producers: Producers::open(keys, rows)?,
            shard: ShardState::open(keys, rows)?,
            meta: MetaState::open(keys, rows)?,
            audits: Audits::open(keys, rows)?,
        })
    }

    /// Applies one committed batch. The caller writes the applied index beside what `rows` got.
    ///
    /// # Errors
    ///
    /// When rows or the batch can't be read. The replica must stop: rows and memory may differ now.
    ///
    /// # Panics
    ///
    /// If an index comes again.
    pub fn apply(
        &mut self,
        rows: &mut impl Rows,
        index: u64,
        batch: &Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<Vec<RunAnswers>, StorageError> {
        self.advance(index);
        let batch = Batch::decode(batch).map_err(|error| corrupt("log entry", &error))?;
        if batch.ts > self.time {
            self.time = batch.ts;
            rows.put(self.keys.log_time(), NumberRow(self.time.0).to_bytes());
        }

        let mut digest_wanted = false;
        let mut step = Step {
            rows,
            keys: self.keys,
            index,
            ordinal: 0,
            time: self.time,
            effects,
            digest_wanted: &mut digest_wanted,
        };
        let mut answers = Vec::with_capacity(batch.runs.len());
        for run in &batch.runs {
            answers.push(self.apply_run(&mut step, run)?);
        }
        self.shard.flush(&mut step);

        if digest_wanted {
            effects.push(Effect::Digest { index, digest: digest(self.keys, rows)? });
        }
        Ok(answers)
    }

    /// Takes note of an entry without commands (a new leader's first, a membership change).
    ///
    /// # Panics
    ///
    /// If an index comes again.
    pub fn blank(&mut self, index: u64) {
        self.advance(index);
    }

    fn advance(&mut self, index: u64) {
        let group = self.keys.group();
        assert!(self.last_index < Some(index), "index {index} came to {group} again");
        self.last_index = Some(index);
    }

    fn apply_run<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        run: &Run,
    ) -> Result<RunAnswers, StorageError> {
        let mut answers = Vec::with_capacity(usize::from(run.count));
        if let Place::From(first_new) = self.producers.place(step, run, &mut answers)? {
            let skipped = answers.len();
            for frame in run.frames().skip(skipped) {
                let command = frame
                    .and_then(|frame| Command::decode(&frame))
                    .map_err(|error| corrupt("command", &error))?;
                answers.push(self.apply_command(step, command)?);
                step.ordinal += 1;
            }
            self.producers.remember(step, run, first_new, &answers[skipped..]);
        }
        let (producer, first_seq, index) = (run.producer, run.first_seq, step.index);
        Ok(RunAnswers { producer, first_seq, answers, index })
    }

    #[expect(clippy::too_many_lines, reason = "a table: a few lines for each command")]
    pub(crate) fn apply_command<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: Command,
    ) -> Result<Answer, StorageError> {
        let group = self.keys.group();
        let fits = match command.scope() {
            Scope::Any => true,
            Scope::Shard => group != ShardId::META,
            Scope::Meta => group == ShardId::META,
        };
        if !fits {
            return Ok(Answer::Refused(Refused::WrongGroup { group }));
        }
        let shard = &mut self.shard;
        match command {
            Command::Publish { tenant, from, message } => {
                Ok(shard.publish(step, tenant, from, message))
            }
            Command::Receive { session, epoch, packet } => {
                Ok(shard.receive(step, session, epoch, packet))
            }
            Command::PublishOnce { tenant, origin, message } => {
                Ok(shard.publish_once(step, tenant, origin, message))
            }
            Command::Complete { session, epoch, packets } => {
                Ok(shard.complete(step, session, epoch, &packets))
            }
            Command::Release { session, epoch, offsets } => {
                shard.release(step, session, epoch, &offsets)
            }
            Command::Settle { session, upto, also } => shard.settle(step, session, upto, &also),
            Command::OpenSession {
                tenant,
                client,
                clean_start,
                expiry_s,
                holder,
                limits,
                sessions_max,
                will,
            } => {
                let limits = limits.min(SESSION_LIMITS_MAX);
                let opening = Opening {
                    tenant,
                    client,
                    clean_start,
                    expiry_s,
                    holder,
                    limits,
                    sessions_max,
                    will,
                };
                shard.open_session(step, opening)
            }
            Command::CloseSession { session, epoch, expiry_s, forget_will } => {
                shard.close_session(step, session, epoch, expiry_s, forget_will)
            }
            Command::Retain { tenant, owner, origin, message } => {
                Ok(shard.retain(step, tenant, owner, origin, message))
            }
            Command::Enqueue { session, epoch, since, copies } => {
                Ok(shard.enqueue_retained(step, session, epoch, since, copies))
            }
            Command::Mail(command) => shard.mail(step, command),
            Command::Events(command) => shard.events(step, command),
            Command::Values(command) => shard.values(step, command),
            Command::Calls(command) => shard.call(step, command),
            Command::Documents(command) => shard.document(step, command),
            Command::Presence(report) => shard.report_presence(step, &report),
            Command::WillsDone { numbers } => Ok(shard.wills_done(step, &numbers)),
            Command::NodeGone { node, gone } => {
                let sessions = shard.node_gone(step, node, gone);
                let more = shard.presence_gone(step, (node, gone))?;
                Ok(if more { Answer::Partly(Vec::new()) } else { sessions })
            }
            Command::Subscribe { session, epoch, subscriptions } => {
                shard.subscribe(step, session, epoch, &subscriptions)
            }
            Command::Unsubscribe { session, epoch, filters } => {
                shard.unsubscribe(step, session, epoch, &filters)
            }
            Command::JoinShare { tenant, filter, member, options, version } => {
                shard.join_share(step, tenant, &filter, member, MembershipRow { options, version })
            }
            Command::LeaveShare { tenant, filter, member, version } => {
                shard.leave_share(step, tenant, &filter, member, version)
            }
            Command::Tick => {
                self.producers.expire(step);
                self.meta.tick(step);
                shard.tick(step)
            }
            Command::Digest => {
                *step.digest_wanted = true;
                Ok(Answer::At(step.index))
            }
            Command::CreateCluster { cluster, shards, nodes, replicas } => {
                Ok(self.meta.create(step, cluster, shards, &nodes, replicas))
            }
            Command::RegisterNode(record) => self.meta.register(step, &record),
            Command::SetRoute { tenant, filter, target, version, present } => {
                self.meta.set_route(step, tenant, &filter, target, version, present)
            }
            Command::DropNodeRoutes { node, gone } => {
                self.meta.drop_node(step, node, |process| process == gone)
            }
            Command::SetTenant { tenant, name } => Ok(self.meta.set_tenant(step, tenant, &name)),
            other @ (Command::AddToken { .. }
            | Command::JoinNode { .. }
            | Command::SetMember { .. }
            | Command::Place { .. }
            | Command::Placed { .. }
            | Command::SetLevel { .. }
            | Command::SetReplicas { .. }) => self.apply_membership(step, other),
            other @ (Command::PutTenant(_)
            | Command::DeleteTenant(_)
            | Command::PutDevice(_)
            | Command::DeleteDevice(_)
            | Command::PutLookup(_)
            | Command::DeleteLookup(_)
            | Command::Forget(_)
            | Command::Forgotten(_)) => self.apply_registry(step, other),
            Command::Audited(audited) => self.apply_audited(step, *audited),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn apply_membership<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: Command,
    ) -> Result<Answer, StorageError> {
        let meta = &mut self.meta;
        match command {
            Command::AddToken { token_hash, lifetime_ms } => {
                Ok(meta.add_token(step, token_hash, lifetime_ms))
            }
            Command::JoinNode { token_hash, record } => meta.join(step, token_hash, &record),
            Command::SetMember { node, state } => meta.set_member(step, node, state),
            Command::Place { group, from, to } => Ok(meta.place_voters(step, group, &from, to)),
            Command::Placed { group, voters } => Ok(meta.placed(step, group, &voters)),
            Command::SetLevel { level, programs } => Ok(meta.set_level(step, level, &programs)),
            Command::SetReplicas { replicas } => Ok(meta.set_replicas(step, replicas)),
            other => unreachable!("{other:?} is not about members"),
        }
    }

    pub(crate) fn audits(&mut self) -> &mut Audits {
        &mut self.audits
    }

    /// Records of this group's audit behind a number, of one tenant or of all.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn audit(
        &self,
        rows: &(impl View + ?Sized),
        tenant: Option<TenantId>,
        after: u64,
        items_max: usize,
    ) -> Result<AuditPage, StorageError> {
        self.audits.read(rows, tenant, after, items_max)
    }

    /// Log time: the highest time of any batch so far.
    #[must_use]
    pub fn time(&self) -> UnixMillis {
        self.time
    }

    /// When the leader should propose a `Tick`, at the latest: something is due then. Stays due while there is more.
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMillis> {
        [self.shard.next_deadline(), self.producers.next_deadline(), self.meta.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// A digest over all rows of the group, but the applied row, which is the caller's.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn digest(&self, rows: &(impl View + ?Sized)) -> Result<u128, StorageError> {
        digest(self.keys, rows)
    }

    /// Reads a session's queue: the items from `from` on, at most `items_max` of them and about `bytes_max` bytes, but at
    /// least one if there is one.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn queue_read(
        &self,
        rows: &(impl View + ?Sized),
        session: SessionId,
        from: Offset,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Delivery>, StorageError> {
        self.shard.queue_read(rows, session, from, items_max, bytes_max)
    }

    /// A session by its row id.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<SessionInfo<'_>> {
        self.shard.session(id)
    }

    /// A session by its client.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn session_of(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        client: &Text,
    ) -> Result<Option<SessionInfo<'_>>, StorageError> {
        Ok(self.shard.find(rows, tenant, client)?.and_then(|id| self.shard.session(id)))
    }

    /// What is known of a device's presence.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn presence(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<PresenceRecord>, StorageError> {
        self.shard.presence(rows, tenant, device)
    }

    /// The processes of a node that hold sessions here, or devices connected.
    #[must_use]
    pub fn processes_of(&self, node: NodeId) -> BTreeSet<Incarnation> {
        self.shard.processes_of(node)
    }

    /// All sessions, by ascending id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionInfo<'_>> {
        self.shard.sessions()
    }

    /// A share by its row id.
    #[must_use]
    pub fn share(&self, id: SessionId) -> Option<ShareInfo<'_>> {
        self.shard.share(id)
    }

    /// A share by its whole filter.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn share_of(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        filter: &Text,
    ) -> Result<Option<ShareInfo<'_>>, StorageError> {
        Ok(self.shard.find_share(rows, tenant, filter)?.and_then(|id| self.shard.share(id)))
    }

    /// All shares, by ascending id.
    pub fn shares(&self) -> impl Iterator<Item = ShareInfo<'_>> {
        self.shard.shares()
    }

    /// The shared subscriptions of a session, by ascending filter: each with the version for its share.
    pub fn shared_by(
        &self,
        session: SessionId,
    ) -> impl Iterator<Item = (&Text, SubscriptionOptions, u64)> {
        self.shard.shared_by(session)
    }

    /// What a session is subscribed to, by ascending filter.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn subscriptions(
        &self,
        rows: &(impl View + ?Sized),
        session: SessionId,
    ) -> Result<Vec<Subscription>, StorageError> {
        self.shard.subscriptions(rows, session)
    }

    /// Every filter that the shard holds, as the route the meta group should know. A new leader compares the two.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn held_filters(
        &self,
        rows: &(impl View + ?Sized),
    ) -> Result<Vec<RouteChange>, StorageError> {
        self.shard.held_filters(rows)
    }

    /// How many of each thing there are, for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { producers: self.producers.len(), ..self.shard.counts() }
    }

    /// What came into queues and left them since this replica was opened.
    #[must_use]
    pub fn queue_tally(&self) -> &QueueTally {
        self.shard.tally()
    }

    /// By how much that differs from what is in the queues: 0, unless something is wrong here.
    #[must_use]
    pub fn queue_imbalance(&self) -> u64 {
        self.shard.imbalance()
    }

    /// Which sessions want a message of the session `from` that is not in the log (QoS 0): each once, with what its
    /// subscriptions come to, by ascending id. `found` is cleared first.
    pub fn passing(
        &self,
        tenant: TenantId,
        topic: &Text,
        from: Option<SessionId>,
        found: &mut Vec<(SessionId, Grant)>,
    ) {
        self.shard.matching(tenant, topic, from, found);
    }

    /// What is retained for a filter, by ascending topic, from behind `after` on; not what has expired at `now`, in log time.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn retained(
        &self,
        rows: &(impl View + ?Sized),
        question: &RetainedQuery<'_>,
    ) -> Result<RetainedPage, StorageError> {
        self.shard.retained(rows, question)
    }

    /// Wills that are due, from the number `from` on, ascending: at most `max` of them.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn due_wills(
        &self,
        rows: &(impl View + ?Sized),
        from: u64,
        max: usize,
    ) -> Result<Vec<DueWill>, StorageError> {
        self.shard.due_wills(rows, from, max)
    }

    /// What waits for devices, and what became of it.
    #[must_use]
    pub fn mailboxes(&self) -> &Mailboxes {
        self.shard.mailboxes()
    }

    /// What devices sent up, and who has read it.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        self.shard.streams()
    }

    /// Opens the rows anew and compares, and sees that what was counted adds up: for tests and simulations.
    ///
    /// # Errors
    ///
    /// When the rows can't be read.
    ///
    /// # Panics
    ///
    /// If what this machine holds is not what the rows say.
    pub fn assert_derived(&self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let opened = Self::open(self.keys.group(), rows)?;
        assert_eq!(self.time, opened.time);
        assert_eq!(self.queue_imbalance(), 0, "{:?}", self.queue_tally());
        let mail = self.mailboxes();
        assert_eq!(mail.imbalance(), 0, "{:?}", mail.tally());
        assert_eq!(self.producers, opened.producers);
        assert_eq!(self.audits, opened.audits);
        self.shard.assert_same(&opened.shard, rows)?;
        self.meta.assert_same(&opened.meta, rows)
    }

    /// What the meta group knows; empty in a shard.
    #[must_use]
    pub fn meta(&self) -> &MetaState {
        &self.meta
    }
}
