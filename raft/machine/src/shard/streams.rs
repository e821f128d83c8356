//! Streams: one for each tenant of which a device of this shard ever sent an event up.
//!
//! ```text
//!   Stream (tenant)            head, tail, bytes, the time of the oldest event, what is to be kept
//!   Event (tenant, offset)     an event, never rewritten
//!   Consumer (tenant, name)    up to where a consumer group has read
//!   MailEvents (tenant)        how events of its mail are kept, as the last mail said
//!
//!   append.rs   events come in; consumer groups come, go and commit
//!   expire.rs   what time does: the oldest go, in pieces
//!   read.rs     what is asked
//!   (here)      the state, how it is derived from rows, what is written at the end of a batch
//! ```
//!
//! A device's events are all in the stream of its shard, and so in the order in which they were appended. Between the
//! streams of two shards there is no order.
//!
//! # Invariants
//!
//! - **No gaps.** From head to tail there is a row for each offset; an offset is given once. Checked by
//!   `tests/rules/events_model.rs` after each command.
//! - **A consumer group never goes back, and never beyond the tail.** Checked by the same test.
//! - **What memory holds is the row of each stream and consumer group**, and sums of all; checked by `PartialEq` of
//!   [`Streams`] wherever replicas are tested.
//!
//! # Deliberately absent
//!
//! Who waits for something new (`node/service`), and what a reader has not committed: it reads again.

mod append;
mod expire;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Offset, TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

pub use self::read::{ConsumersPage, EventsPage, EventsQuery, StreamTotals};
use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    effect::Effect,
    events::{EventCommand, EventRefused, Retention},
    keys::{Keys, each},
    rows::{
        Row, corrupt,
        events::{ConsumerRow, StreamRow},
        presence::MailEventsRow,
    },
    step::Step,
};

/// What a shard knows of events without reading rows.
#[derive(Debug, PartialEq)]
pub struct Streams {
    keys: Keys,
    known: BTreeMap<TenantId, Stream>,
    /// Those of which something is to go, by when.
    due: BTreeSet<(UnixMillis, TenantId)>,
    /// Those that were appended to in this batch.
    dirty: Vec<TenantId>,
    totals: StreamTotals,
    /// How events of mail are kept, by tenant; only of those that ever had mail.
    mail: BTreeMap<TenantId, MailEventsRow>,
}

/// A tenant's stream.
#[derive(Debug, PartialEq)]
struct Stream {
    row: StreamRow,
    consumers: BTreeMap<Text, ConsumerRow>,
    /// Events of this batch.
    appended: u32,
}

impl StreamRow {
    pub(in crate::shard) fn new(retention: Retention) -> Self {
        let (head, tail, oldest) = (Offset(1), Offset(1), UnixMillis(0));
        Self { head, tail, bytes: 0, oldest, retention }
    }

    /// Events that are kept.
    fn len(&self) -> u64 {
        self.tail.0 - self.head.0
    }

    /// The last offset that was given; 0 if none was.
    fn last(&self) -> Offset {
        Offset(self.tail.0 - 1)
    }
}

impl Streams {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            dirty: Vec::new(),
            totals: StreamTotals::default(),
            mail: BTreeMap::new(),
        }
    }

    pub(super) fn open(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let keys = self.keys;
        each(rows, &keys.range(Kind::Stream), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let row = StreamRow::from_bytes(row)?;
            if row.head > row.tail || row.head == Offset(0) {
                return Err(corrupt(StreamRow::WHAT, &"it ends before it begins"));
            }
            self.insert(tenant, Stream { row, consumers: BTreeMap::new(), appended: 0 });
            Ok(())
        })?;
        each(rows, &keys.range(Kind::Consumer), |mut suffix, row| {
            let stream = self.known.get_mut(&TenantId(suffix.u32()?));
            let stream = stream.ok_or_else(|| corrupt("consumer row", &"it has no stream"))?;
            stream.consumers.insert(suffix.text()?, ConsumerRow::from_bytes(row)?);
            self.totals.consumers += 1;
            Ok(())
        })?;
        each(rows, &keys.range(Kind::MailEvents), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            self.mail.insert(tenant, MailEventsRow::from_bytes(row)?);
            Ok(())
        })
    }

    /// From now on events of a tenant's mail are kept so, or there are none.
    pub(super) fn keep_mail<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        events: Option<Retention>,
    ) {
        let row = MailEventsRow(events);
        if self.mail.get(&tenant) != Some(&row) {
            self.mail.insert(tenant, row);
            step.put(self.keys.mail_events(tenant), row.to_bytes());
        }
    }

    /// How events of a tenant's mail are kept, if there are to be any.
    pub(super) fn of_mail(&self, tenant: TenantId) -> Option<Retention> {
        self.mail.get(&tenant).and_then(|row| row.0)
    }

    /// Takes a stream without consumer groups into memory.
    fn insert(&mut self, tenant: TenantId, stream: Stream) {
        self.totals.streams += 1;
        self.totals.events += stream.row.len();
        self.totals.bytes += stream.row.bytes;
        self.due.extend(stream.row.due_at().map(|at| (at, tenant)));
        self.known.insert(tenant, stream);
    }

    /// Changes a stream's row in memory; the caller sees to the rows.
    fn change(&mut self, tenant: TenantId, row: StreamRow) {
        let stream = self.known.get_mut(&tenant).expect("the caller found it");
        let before = std::mem::replace(&mut stream.row, row);
        self.totals.events = self.totals.events - before.len() + row.len();
        self.totals.bytes = self.totals.bytes - before.bytes + row.bytes;
        if before.due_at() != row.due_at() {
            before.due_at().map(|at| self.due.remove(&(at, tenant)));
            self.due.extend(row.due_at().map(|at| (at, tenant)));
        }
    }

    /// Other retention for a stream that gets no more events.
    pub(super) fn retire<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        retention: Retention,
    ) {
        let Some(stream) = self.known.get(&tenant) else { return };
        let row = StreamRow { retention, ..stream.row };
        if row != stream.row {
            step.put(self.keys.stream(tenant), row.to_bytes());
            self.change(tenant, row);
        }
    }

    /// Writes each stream that was appended to, once, and says that there is more in it.
    pub(super) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for tenant in self.dirty.drain(..) {
            let stream = self.known.get_mut(&tenant).expect("streams stay");
            step.put(self.keys.stream(tenant), stream.row.to_bytes());
            let appended = std::mem::take(&mut stream.appended);
            step.effects.push(Effect::Events { tenant, appended });
        }
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl ShardState {
    pub(crate) fn events<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: EventCommand,
    ) -> Result<Answer, StorageError> {
        match command {
            EventCommand::Append(append) => self.append_event(step, append),
            EventCommand::Commit(commit) => Ok(self.streams.commit(step, &commit)),
            EventCommand::DeleteConsumer(delete) => Ok(self.streams.delete_consumer(step, &delete)),
        }
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }
}

fn refused(why: EventRefused) -> Answer {
    Answer::Refused(Refused::Events(why))
}
