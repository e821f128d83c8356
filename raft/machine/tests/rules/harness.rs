//! One group in memory, fed command by command, and checked after each.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use moorline_core::{
    ConnId, Epoch, Incarnation, Message, NodeId, Offset, QoS, ShardId, SubscriptionOptions,
    TenantId, Text, UnixMillis, port::SessionLimits,
};
use moorline_machine::{
    Answer, BatchBuilder, Command, Effect, Machine, Run, RunAnswers, RunBuilder,
    command::{Holder, ProducerId, SessionId, Subscription},
};
use moorline_storage::{Rows, StorageError, View};

pub(crate) const TENANT: TenantId = TenantId(7);
pub(crate) const SHARD: ShardId = ShardId(1);

/// Rows in a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Map(pub(crate) BTreeMap<Bytes, Bytes>);

impl View for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let range = Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to);
        for (key, value) in self.0.range(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Rows for Map {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn put_fresh(&mut self, key: Bytes, value: Bytes) {
        assert!(self.0.insert(key, value).is_none(), "a fresh key was there");
    }

    fn delete(&mut self, key: Bytes) {
        self.0.remove(&key);
    }
}

impl Map {
    /// How many rows of a kind there are.
    pub(crate) fn count(&self, kind: u8) -> usize {
        self.0.keys().filter(|key| key[4] == kind).count()
    }
}

pub(crate) const KIND_ITEM: u8 = 5;
pub(crate) const KIND_MESSAGE: u8 = 8;
pub(crate) const KIND_REFS: u8 = 9;
pub(crate) const KIND_PRODUCER: u8 = 10;
pub(crate) const KIND_ANSWERS: u8 = 11;

/// One replica with its rows.
pub(crate) struct Group {
    pub(crate) machine: Machine,
    pub(crate) rows: Map,
    pub(crate) index: u64,
    pub(crate) now: u64,
    pub(crate) effects: Vec<Effect>,
    /// For tests with so many rows that looking at all of them after each batch takes too long.
    pub(crate) unchecked: bool,
    run: RunBuilder,
}

impl Group {
    pub(crate) fn new(shard: ShardId) -> Self {
        let rows = Map::default();
        let machine = Machine::open(shard, &rows).unwrap();
        let run = RunBuilder::new(ProducerId(1), 1);
        Self { machine, rows, index: 0, now: 1_000_000, effects: Vec::new(), unchecked: false, run }
    }

    /// One batch with these commands.
    pub(crate) fn batch(&mut self, commands: &[Command]) -> Vec<Answer> {
        for command in commands {
            self.run.push(command).unwrap();
        }
        let answered_below = self.run.next_seq() - commands.len() as u64;
        let run = self.run.take(answered_below).unwrap();
        let mut answers = self.runs(&[run]);
        answers.pop().unwrap().answers
    }

    /// One batch with these runs.
    pub(crate) fn runs(&mut self, runs: &[Run]) -> Vec<RunAnswers> {
        let mut batch = BatchBuilder::new();
        for run in runs {
            batch.push(run);
        }
        let batch = batch.finish(UnixMillis(self.now));
        self.index += 1;
        self.effects.clear();
        let answers =
            self.machine.apply(&mut self.rows, self.index, &batch, &mut self.effects).unwrap();
        if !self.unchecked {
            self.check();
        }
        answers
    }

    pub(crate) fn one(&mut self, command: Command) -> Answer {
        self.batch(&[command]).pop().unwrap()
    }

    /// What must hold after every batch.
    pub(crate) fn check(&self) {
        self.machine.assert_derived(&self.rows).unwrap();
        let mut items = BTreeMap::<SessionId, Vec<u64>>::new();
        for key in self.rows.0.keys().filter(|key| key[4] == KIND_ITEM) {
            let bucket = u16::from_be_bytes([key[2], key[3]]);
            let number = u64::from_be_bytes(key[5..13].try_into().unwrap());
            let offset = u64::from_be_bytes(key[13..21].try_into().unwrap());
            items.entry(SessionId { bucket, number }).or_default().push(offset);
        }
        for session in self.machine.sessions() {
            let there = items.remove(&session.id).unwrap_or_default();
            assert_eq!(there.len() as u64, session.queued_items, "{:?}", session.id);
            match there.as_slice() {
                [] => assert_eq!(session.head, session.tail),
                [first, .., last] | [first @ last] => {
                    assert_eq!(Offset(*first), session.head);
                    assert!(Offset(*last) < session.tail);
                }
            }
        }
        assert_eq!(self.rows.count(KIND_MESSAGE), self.rows.count(KIND_REFS));
    }

    pub(crate) fn open(&mut self, client: &str, conn: u64, expiry_s: u32) -> (SessionId, Epoch) {
        let answer = self.one(open(client, conn, false, expiry_s));
        let Answer::Opened { session, epoch, .. } = answer else { panic!("{answer:?}") };
        (session, epoch)
    }

    /// A durable session with one QoS 1 subscription.
    pub(crate) fn subscriber(
        &mut self,
        client: &str,
        conn: u64,
        filter: &str,
    ) -> (SessionId, Epoch) {
        let (session, epoch) = self.open(client, conn, 3600);
        let answer = self.one(subscribe(session, epoch, &[(filter, QoS::AtLeastOnce)]));
        assert!(matches!(answer, Answer::Subscribed { .. }), "{answer:?}");
        (session, epoch)
    }

    /// Payloads in a session's queue, with their offsets.
    pub(crate) fn queue(&self, session: SessionId) -> Vec<(u64, Vec<u8>)> {
        self.machine
            .queue_read(&self.rows, session, Offset(0), usize::MAX, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|delivery| (delivery.offset.unwrap().0, delivery.message.payload.to_vec()))
            .collect()
    }

    /// A machine opened from the rows as they are, with a copy of them.
    pub(crate) fn reopen(&mut self) {
        self.machine = Machine::open(SHARD, &self.rows).unwrap();
    }
}

pub(crate) fn holder(conn: u64) -> Holder {
    Holder { node: NodeId(1), incarnation: Incarnation(11), conn: ConnId(conn) }
}

pub(crate) fn open(client: &str, conn: u64, clean_start: bool, expiry_s: u32) -> Command {
    open_with(client, conn, clean_start, expiry_s, SessionLimits::none())
}

pub(crate) fn open_with(
    client: &str,
    conn: u64,
    clean_start: bool,
    expiry_s: u32,
    limits: SessionLimits,
) -> Command {
    Command::OpenSession {
        tenant: TENANT,
        client: Text::from(client),
        clean_start,
        expiry_s,
        holder: holder(conn),
        limits,
        sessions_max: u32::MAX,
        will: None,
    }
}

pub(crate) fn close(session: SessionId, epoch: Epoch) -> Command {
    Command::CloseSession { session, epoch, expiry_s: None, forget_will: false }
}

pub(crate) fn subscribe(session: SessionId, epoch: Epoch, filters: &[(&str, QoS)]) -> Command {
    let subscriptions = filters
        .iter()
        .map(|(filter, qos)| Subscription {
            filter: Text::from(*filter),
            options: SubscriptionOptions::of_qos(*qos),
        })
        .collect();
    Command::Subscribe { session, epoch, subscriptions }
}

pub(crate) fn unsubscribe(session: SessionId, epoch: Epoch, filters: &[&str]) -> Command {
    let filters = filters.iter().map(|filter| Text::from(*filter)).collect();
    Command::Unsubscribe { session, epoch, filters }
}

pub(crate) fn message(topic: &str, qos: QoS, payload: &[u8]) -> Message {
    Message {
        topic: Text::from(topic),
        qos,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: Bytes::copy_from_slice(payload),
    }
}

pub(crate) fn publish(topic: &str, payload: &[u8]) -> Command {
    Command::Publish {
        tenant: TENANT,
        from: None,
        message: message(topic, QoS::AtLeastOnce, payload),
    }
}

pub(crate) fn settle(session: SessionId, upto: u64, also: &[u64]) -> Command {
    Command::Settle {
        session,
        upto: Offset(upto),
        also: also.iter().copied().map(Offset).collect(),
    }
}
