//! Retained messages on their way to those who subscribe: read from the shards of their topics, handed on page by page.
//!
//! ```text
//!   SUBSCRIBE ─► subscription, route known everywhere ─► each shard's leader: barrier (shared), page ─► …
//!      clean session:   live deliveries with RETAIN=1, the next page when the client has taken this one
//!      durable session: QoS > 0 into its queue by Enqueue, before the SUBACK; QoS 0 as for a clean one
//! ```
//!
//! # Invariants
//!
//! - **What was acknowledged before a SUBSCRIBE began is seen by it, on any node**: a page is read by a leader that confirmed
//!   its leadership afterwards. Whoever asks while a barrier is under way shares the next one. Checked by the cluster tests
//!   (`retained.rs`).
//! - **No older copy behind a newer one**: topics that came with RETAIN=1 since the subscription began are left out, here
//!   ([`Retaining`]) and in queues (`raft/machine`, `awaited.rs`). Checked by the tests below.
//! - **One page in memory for each connection**, one stream at a time, [`READS_MAX`] reads at a time for the node.
//!
//! # Deliberately absent
//!
//! What is retained, and for how long (`raft/machine`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    Delivery, Message, NodeId, QoS, ShardId, SubscriptionOptions, TenantId, Text,
    port::{Notice, Refusal},
    topic,
};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_machine::{
    Answer, COMMAND_BYTES_MAX, Command, RetainedPage, RetainedQuery, answer::Refused,
    command::Enqueued,
};
use moorline_router::SubmitError;
use tokio::{
    sync::{Notify, SemaphorePermit, oneshot},
    time::{sleep, timeout_at},
};
use tracing::{debug, error, warn};

use crate::{
    conn::{Conn, Whose},
    expiry,
    frames::{self, RetainedQuestion},
    refusal_of,
    service::Inner,
};

/// Pages that a node reads for its connections at a time: each counts until it is handed on. Who asks in vain, or only waits
/// for its own queue or client, takes nobody's turn.
pub(crate) const READS_MAX: usize = 64;
/// Most messages of one page.
const PAGE_ITEMS_MAX: usize = 256;
/// About the most bytes of one page. With its largest message, a command that brings it into a queue must fit.
const PAGE_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of messages in one `Enqueue`; a larger single one goes alone.
const ENQUEUE_BYTES_MAX: usize = 256 * 1024;
/// What a message needs in an `Enqueue` besides its bytes.
const ENQUEUED_BYTES: usize = 64;
/// Who may wait for barriers of one shard: pages of all nodes that are read at a time.
const GATE_WAITERS_MAX: usize = 8_192;
/// Topics noted for one connection while it is sent retained messages. More end the connection: what it has could not be
/// told from what is older.
const NOTED_TOPICS_MAX: usize = 10_000;
/// How long one question to a leader may take.
const ASK_WAIT: Duration = Duration::from_secs(3);
/// The pause before it is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// How long all tries for one page may take, with the wait for a place.
const PAGE_WAIT: Duration = Duration::from_secs(20);

const _: () = assert!(ENQUEUE_BYTES_MAX < COMMAND_BYTES_MAX);

/// Who waits for the next barrier of a shard led here.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    running: bool,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// A filter of which a subscriber wants what is retained.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) filter: Text,
    /// As granted.
    pub(crate) options: SubscriptionOptions,
}

impl Want {
    fn qos(&self, message: &Message) -> QoS {
        message.qos.min(self.options.qos)
    }

    /// A copy that goes to the connection.
    fn passing(&self, message: Message) -> Delivery {
        let qos = self.qos(&message);
        let ids = self.options.id.into();
        Delivery { retain: true, ids, ..Delivery::new(None, qos, Arc::new(message)) }
    }
}

/// What a connection notes while it is sent retained messages.
#[derive(Debug, Default)]
pub(crate) struct Retaining {
    noted: Mutex<Noted>,
    /// One stream after the other, in the order of the SUBSCRIBEs.
    turn: tokio::sync::Mutex<()>,
    /// The client has taken a page, or is gone.
    pub(crate) taken: Notify,
}

/// Topics that came with RETAIN=1, by when they last did.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    clock: u64,
    /// When the streams under way began.
    streams: BTreeSet<u64>,
    topics: HashMap<Text, u64>,
    overrun: bool,
}

impl Noted {
    fn begin(&mut self) -> u64 {
        self.clock += 1;
        self.streams.insert(self.clock);
        self.clock
    }

    /// A stream is over; whether it was the last.
    fn end(&mut self, began: u64) -> bool {
        self.streams.remove(&began);
        if self.streams.is_empty() {
            self.topics = HashMap::new();
            self.overrun = false;
        }
        self.streams.is_empty()
    }

    pub(crate) fn note(&mut self, topic: &Text) {
        if self.streams.is_empty() {
            return;
        }
        self.clock += 1;
        if self.topics.len() >= NOTED_TOPICS_MAX && !self.topics.contains_key(topic) {
            self.overrun = true;
            return;
        }
        self.topics.insert(topic.clone(), self.clock);
    }

    /// Whether a stream may still send what was retained of a topic.
    fn admits(&self, began: u64, topic: &Text) -> bool {
        self.topics.get(topic).is_none_or(|last| *last < began)
    }
}

impl Retaining {
    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("no panic while it is locked")
    }
}

/// One SUBSCRIBE's stream of retained messages. Its notes end with it.
pub(crate) struct Stream {
    conn: Arc<Conn>,
    retaining: Arc<Retaining>,
    began: u64,
}

impl Stream {
    /// Begins before the subscription does, so that nothing live is missed.
    pub(crate) fn begin(conn: &Arc<Conn>) -> Self {
        let (retaining, began) = conn.begin_retaining(|retaining| retaining.noted().begin());
        Self { conn: Arc::clone(conn), retaining, began }
    }

    /// Hands a page on, without what the client has newer; whether any of it was. `Err` if the connection can't go on.
    fn push(&self, page: Vec<Delivery>) -> Result<bool, Refusal> {
        let noted = self.retaining.noted();
        if noted.overrun {
            return Err(Refusal::Unavailable);
        }
        let admitted: Vec<_> = page
            .into_iter()
            .filter(|delivery| noted.admits(self.began, &delivery.message.topic))
            .filter(|delivery| self.conn.may_read(delivery))
            .collect();
        let any = !admitted.is_empty();
        // Under the lock, so that what is noted comes behind it.
        if any && !self.conn.push(Notice::Retained(admitted)) {
            return Err(Refusal::Unavailable);
        }
        Ok(any)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.conn.end_retaining(|retaining| retaining.noted().end(self.began));
    }
}

/// Where the copies of a SUBSCRIBE go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// To the connection, whatever their QoS.
    Connection,
    /// Those with QoS > 0 into the queue of a session that subscribed at this version, the others to the connection.
    Queue(Whose, u64),
}

/// Whether a session's shard has queued copies.
fn is_queued(answer: Result<Answer, SubmitError>) -> Result<(), Refusal> {
    match answer {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused(why @ (Refused::TooLate | Refused::NotYours))) => {
            debug!(?why, "retained messages came too late for their session");
            Err(Refusal::Unavailable)
        }
        Ok(other) => {
            warn!(?other, "retained messages were not queued");
            Err(Refusal::Unavailable)
        }
        Err(error) => Err(refusal_of(&error)),
    }
}

impl Inner {
    /// Sends a subscriber what is retained for these filters.
    pub(crate) async fn send_retained(
        self: &Arc<Self>,
        stream: &Stream,
        tenant: TenantId,
        wants: &[Want],
        goal: Goal,
    ) -> Result<(), Refusal> {
        let _turn = stream.retaining.turn.lock().await;
        for want in wants {
            for shard in self.shards_of(tenant, &want.filter) {
                self.send_retained_of(stream, tenant, want, shard, goal).await?;
            }
        }
        Ok(())
    }

    /// The shards in which topics of a filter are.
    fn shards_of(&self, tenant: TenantId, filter: &Text) -> Vec<ShardId> {
        if topic::has_wildcard(filter.as_bytes()) {
            self.shards.all().collect()
        } else {
            vec![self.shards.of(tenant, filter.as_bytes())]
        }
    }

    async fn send_retained_of(
        self: &Arc<Self>,
        stream: &Stream,
        tenant: TenantId,
        want: &Want,
        shard: ShardId,
        goal: Goal,
    ) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let (page, reading) = self.ask_retained(shard, tenant, &want.filter, after).await?;
            let last = page.messages.last().map(|message| message.topic.clone());
            let mut passing = Vec::new();
            let mut queued = Vec::new();
            let more = page.more;
            for message in page.messages {
                if matches!(goal, Goal::Queue(..)) && want.qos(&message) > QoS::AtMostOnce {
                    queued.push(self.enqueued(want, message));
                } else {
                    passing.push(want.passing(message));
                }
            }
            let queueing = match goal {
                Goal::Queue(whose, since) => self.enqueue_retained(whose, since, queued),
                Goal::Connection => Vec::new(),
            };
            // What is to be queued is with the router now, and within its limits.
            drop(reading);
            for queued in queueing {
                is_queued(queued.await)?;
            }
            let pushed = stream.push(passing)?;
            if pushed {
                // At its own pace: what the client has not taken takes no more than a page of memory.
                stream.retaining.taken.notified().await;
            }
            if !more || stream.conn.whose().is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    fn enqueued(&self, want: &Want, message: Message) -> Enqueued {
        let qos = want.qos(&message);
        let message = expiry::for_log(message, self.now());
        Enqueued { qos, ids: want.options.id.into(), message }
    }

    /// Has the shard of a session queue these; gives the answers to come.
    fn enqueue_retained(
        &self,
        whose: Whose,
        since: u64,
        copies: Vec<Enqueued>,
    ) -> Vec<impl Future<Output = Result<Answer, SubmitError>> + Send + use<>> {
        let mut answers = Vec::new();
        let mut rest = copies.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            let mut piece = Vec::new();
            while let Some(next) = rest.peek() {
                let message = &next.message;
                bytes += ENQUEUED_BYTES + message.topic.len() + message.properties.len();
                bytes += message.payload.len();
                if bytes > ENQUEUE_BYTES_MAX && !piece.is_empty() {
                    break;
                }
                piece.extend(rest.next());
            }
            let Whose { shard, session, epoch, .. } = whose;
            let command = Command::Enqueue { session, epoch, since, copies: piece };
            answers.push(self.below().router.ask(shard, &command));
        }
        answers
    }

    /// A page, from whoever leads the shard by now, and its place among [`READS_MAX`].
    async fn ask_retained(
        &self,
        shard: ShardId,
        tenant: TenantId,
        filter: &Text,
        after: Option<Text>,
    ) -> Result<(RetainedPage, SemaphorePermit<'_>), Refusal> {
        let deadline = Instant::now() + PAGE_WAIT;
        let body = RetainedQuestion { tenant, filter: filter.clone(), after }.encode();
        let below = self.below();
        loop {
            if let Some(leader) = below.router.leader(shard) {
                let reading = timeout_at(deadline.into(), self.reads.acquire()).await;
                let Ok(Ok(reading)) = reading else { return Err(Refusal::Unavailable) };
                let kind = Kind::Retained;
                let asked =
                    below.peers.call(leader, Lane::Data, kind, shard, body.clone(), ASK_WAIT);
                if let Ok(answer) = asked.await {
                    match frames::decode_page(answer, self.now()) {
                        Ok(page) => return Ok((page, reading)),
                        Err(problem) => self.bad_frame(leader, &problem),
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Unavailable);
            }
            sleep(ASK_PAUSE).await;
        }
    }

    // ---- the leader's side

    pub(crate) fn on_retained(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let question = match RetainedQuestion::decode(body) {
            Ok(question) => question,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let Some(reply) = reply else { return };
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            if !service.pass_gate(shard).await {
                return reply.refuse("not the leader");
            }
            match service.read_retained(shard, &question) {
                Some(page) => reply.send(page),
                None => reply.refuse("the shard is not here"),
            }
        });
    }

    fn read_retained(&self, shard: ShardId, question: &RetainedQuestion) -> Option<Bytes> {
        let RetainedQuestion { tenant, filter, after } = question;
        let now = self.log_time(shard);
        let query = RetainedQuery {
            tenant: *tenant,
            filter,
            after: after.as_ref(),
            now,
            items_max: PAGE_ITEMS_MAX,
            bytes_max: PAGE_BYTES_MAX,
        };
        self.metrics.kept.retained_reads.inc();
        let groups = &self.below().groups;
        let read = groups.read(shard, |machine, rows| machine.retained(rows, &query))?;
        match read {
            Ok(page) => Some(frames::encode_page(&page, now)),
            Err(problem) => {
                error!(%shard, %problem, "cannot read retained messages");
                (self.fatal)("rows can't be read");
                None
            }
        }
    }

    /// Waits until this node has confirmed, after this call, that it leads the shard, and has applied what was committed
    /// before. To be called by tasks that nobody cancels: the first one asks for itself, those who come meanwhile ask together.
    pub(crate) async fn pass_gate(self: &Arc<Self>, shard: ShardId) -> bool {
        let passed = {
            let Some(mut gate) = self.gate(shard) else { return false };
            if gate.waiting.len() >= GATE_WAITERS_MAX {
                return false;
            }
            if std::mem::replace(&mut gate.running, true) {
                let (sender, passed) = oneshot::channel();
                gate.waiting.push(sender);
                Some(passed)
            } else {
                None
            }
        };
        if let Some(passed) = passed {
            return passed.await.unwrap_or(false);
        }
        let passed = self.below().groups.barrier(shard).await.is_ok();
        if let Some(mut gate) = self.gate(shard) {
            gate.running = !gate.waiting.is_empty();
            if gate.running {
                let service = Arc::clone(self);
                self.tasks.spawn(async move { service.run_gate(shard).await });
            }
        }
        passed
    }

    async fn run_gate(&self, shard: ShardId) {
        loop {
            let waiting = {
                let Some(mut gate) = self.gate(shard) else { return };
                if gate.waiting.is_empty() {
                    gate.running = false;
                    return;
                }
                std::mem::take(&mut gate.waiting)
            };
            let passed = self.below().groups.barrier(shard).await.is_ok();
            // Nobody waits any more: then nobody misses it.
            waiting.into_iter().for_each(|waiter| _ = waiter.send(passed));
        }
    }

    fn gate(&self, shard: ShardId) -> Option<MutexGuard<'_, Gate>> {
        let gate = self.gates.get(usize::from(shard.0))?;
        Some(gate.lock().expect("no panic while it is locked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_a_stream_began_is_not_sent_again_by_it() {
        let (mut noted, topic) = (Noted::default(), Text::from("t"));
        noted.note(&topic);
        let first = noted.begin();
        assert!(noted.admits(first, &topic), "before it began nothing counts");
        noted.note(&topic);
        let second = noted.begin();
        assert!(!noted.admits(first, &topic));
        assert!(noted.admits(second, &topic), "a later SUBSCRIBE gets it again");
        assert!(noted.admits(first, &Text::from("u")));
        assert!(!noted.end(first));
        noted.note(&topic);
        assert!(!noted.admits(second, &topic));
        assert!(noted.end(second), "it was the last");
        let third = noted.begin();
        assert!(noted.admits(third, &topic), "and its notes are gone");
    }

    #[test]
    fn too_many_notes_are_noticed() {
        let mut noted = Noted::default();
        let began = noted.begin();
        for number in 0..NOTED_TOPICS_MAX {
            noted.note(&Text::from(format!("t/{number}")));
        }
        noted.note(&Text::from("t/0"));
        assert!(!noted.overrun);
        noted.note(&Text::from("one more"));
        assert!(noted.overrun);
        noted.end(began);
        assert!(!noted.overrun);
    }
}
