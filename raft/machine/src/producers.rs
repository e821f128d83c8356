//! Who proposes, how far each has come, and what it was answered: so that a command counts once, however often it comes.
//!
//! # Invariants
//!
//! - **Each sequence number is applied once, in order.** Checked by `tests/rules/dedupe.rs`.
//! - **Bounded.** At most [`PRODUCERS_MAX`] producers with about [`ANSWERS_PER_PRODUCER_MAX`] answers each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::UnixMillis;
use moorline_storage::{Rows, StorageError, View, key::Kind};

use crate::{
    answer::Answer,
    codec::Reader,
    command::{ProducerId, Run},
    keys::{Keys, each},
    rows::{ProducerRow, Row, corrupt},
    step::Step,
};

/// Producers a group remembers. Each process is one, so only abandoned ones can fill it; the one that was idle the
/// longest makes room.
pub const PRODUCERS_MAX: usize = 4096;
/// Answers a producer can ask for again: twice what a router keeps outstanding.
pub const ANSWERS_PER_PRODUCER_MAX: usize = 8192;
/// How long a producer is remembered, in log time. A router gives a command up long before (30 s).
pub const PRODUCER_IDLE_MS_MAX: u64 = 15 * 60 * 1000;
/// Producers that one `Tick` forgets.
const PRODUCERS_PER_TICK_MAX: usize = 64;

const ANSWERS_VERSION: u8 = 1;
const ANSWERS_WHAT: &str = "producer answers row";

#[derive(Debug, PartialEq)]
pub(crate) struct Producers {
    keys: Keys,
    known: BTreeMap<ProducerId, Producer>,
    /// Those of `known`, the longest idle first.
    idle: BTreeSet<(UnixMillis, ProducerId)>,
}

#[derive(Debug, PartialEq)]
struct Producer {
    last_seq: u64,
    last_seen: UnixMillis,
    /// First sequence number and count of each row of answers, ascending.
    remembered: VecDeque<(u64, u16)>,
    /// The sum of those counts.
    answers: usize,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// From this sequence number on it is new; what comes before is answered.
    From(u64),
    /// Nothing of it is new, or nothing may be applied; all of it is answered.
    Answered,
}

impl Producers {
    pub(crate) fn open(keys: Keys, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let mut producers = Self { keys, known: BTreeMap::new(), idle: BTreeSet::new() };
        each(rows, &keys.range(Kind::Producer), |mut suffix, row| {
            let id = ProducerId(suffix.u64()?);
            let ProducerRow { last_seq, last_seen } = ProducerRow::from_bytes(row)?;
            producers.idle.insert((last_seen, id));
            let remembered = VecDeque::new();
            producers.known.insert(id, Producer { last_seq, last_seen, remembered, answers: 0 });
            Ok(())
        })?;
        each(rows, &keys.range(Kind::ProducerAnswers), |mut suffix, row| {
            let (id, first) = (ProducerId(suffix.u64()?), suffix.u64()?);
            let (count, _) = open_answers(row)?;
            let producer = producers
                .known
                .get_mut(&id)
                .ok_or_else(|| corrupt(ANSWERS_WHAT, &"its producer is not known"))?;
            producer.remembered.push_back((first, count));
            producer.answers += usize::from(count);
            Ok(())
        })?;
        Ok(producers)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<UnixMillis> {
        self.idle.first().map(|(seen, _)| due(*seen))
    }

    /// Finds what of a run is new and answers the rest.
    pub(crate) fn place<R: Rows + ?Sized>(
        &mut self,
        step: &Step<'_, R>,
        run: &Run,
        answers: &mut Vec<Answer>,
    ) -> Result<Place, StorageError> {
        let producer = self.known.get(&run.producer);
        let last_seq = producer.map_or(0, |producer| producer.last_seq);
        let next = last_seq + 1;
        if let Some(producer) = producer.filter(|_| run.first_seq <= last_seq) {
            self.answer_again(step.rows, producer, run, answers)?;
        }
        let reached = run.first_seq + answers.len() as u64;
        if reached == run.end_seq() {
            return Ok(Place::Answered);
        }
        if reached == next {
            // Before the commands: one of them may be the `Tick` that would forget this producer.
            self.seen(run.producer, step.time);
            return Ok(Place::From(next));
        }
        // A gap, or a repeat of what the producer said it has.
        answers.resize(usize::from(run.count), Answer::OutOfOrder { expected: next });
        Ok(Place::Answered)
    }

    /// Gives the remembered answers from the run's first number on, as far as they go.
    fn answer_again<R: Rows + ?Sized>(
        &self,
        rows: &R,
        producer: &Producer,
        run: &Run,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StorageError> {
        let mut seq = run.first_seq;
        let at =
            producer.remembered.partition_point(|&(first, count)| first + u64::from(count) <= seq);
        for &(first, count) in producer.remembered.range(at..) {
            if first > seq || seq >= run.end_seq() {
                break;
            }
            let key = self.keys.answers(run.producer, first);
            let row = rows.get(&key)?.ok_or_else(|| corrupt(ANSWERS_WHAT, &"it is missing"))?;
            let (_, mut reader) = open_answers(&row)?;
            for answered in first..first + u64::from(count) {
                let answer =
                    Answer::read(&mut reader).map_err(|error| corrupt(ANSWERS_WHAT, &error))?;
                if answered == seq && seq < run.end_seq() {
                    answers.push(answer);
                    seq += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes note of what was applied: `answers` from `first_seq` on.
    pub(crate) fn remember<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        run: &Run,
        first_seq: u64,
        answers: &[Answer],
    ) {
        let (keys, id, time) = (self.keys, run.producer, step.time);
        if !self.known.contains_key(&id) && self.known.len() >= PRODUCERS_MAX {
            let oldest = self.idle.first().map(|&(_, oldest)| oldest);
            self.forget(step, oldest.expect("as many are idle as are known"));
        }
        let producer = self.known.entry(id).or_insert_with(|| {
            self.idle.insert((time, id));
            Producer { last_seq: 0, last_seen: time, remembered: VecDeque::new(), answers: 0 }
        });
        assert_eq!(first_seq, producer.last_seq + 1, "{id:?} skipped a command");

        let count = u16::try_from(answers.len()).expect("a run counts so far");
        step.put_fresh(keys.answers(id, first_seq), answers_row(count, answers));
        producer.remembered.push_back((first_seq, count));
        producer.answers += answers.len();
        while let Some(&(first, count)) = producer.remembered.front() {
            let asked_for = first + u64::from(count) > run.answered_below;
            if asked_for && producer.answers <= ANSWERS_PER_PRODUCER_MAX {
                break;
            }
            if producer.remembered.len() == 1 && asked_for {
                break;
            }
            producer.remembered.pop_front();
            producer.answers -= usize::from(count);
            step.delete(keys.answers(id, first));
        }

        producer.last_seq = run.end_seq() - 1;
        let row = ProducerRow { last_seq: producer.last_seq, last_seen: time };
        step.put(keys.producer(id), row.to_bytes());
    }

    fn seen(&mut self, id: ProducerId, time: UnixMillis) {
        let Some(producer) = self.known.get_mut(&id) else { return };
        if producer.last_seen != time {
            self.idle.remove(&(producer.last_seen, id));
            self.idle.insert((time, id));
            producer.last_seen = time;
        }
    }

    /// Forgets who has not been heard of for long.
    pub(crate) fn expire<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..PRODUCERS_PER_TICK_MAX {
            match self.idle.first() {
                Some(&(seen, id)) if due(seen) <= step.time => self.forget(step, id),
                Some(_) | None => return,
            }
        }
    }

    fn forget<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, id: ProducerId) {
        let producer = self.known.remove(&id).expect("only known producers are idle");
        self.idle.remove(&(producer.last_seen, id));
        for (first, _) in producer.remembered {
            step.delete(self.keys.answers(id, first));
        }
        step.delete(self.keys.producer(id));
    }
}

fn due(seen: UnixMillis) -> UnixMillis {
    UnixMillis(seen.0.saturating_add(PRODUCER_IDLE_MS_MAX))
}

/// `version u8 | count u16 | answers`
fn answers_row(count: u16, answers: &[Answer]) -> Bytes {
    // Most answers are to publishes and settlements: at most five bytes.
    let mut row = BytesMut::with_capacity(3 + 5 * answers.len());
    row.put_u8(ANSWERS_VERSION);
    row.put_u16(count);
    for answer in answers {
        answer.encode(&mut row);
    }
    row.freeze()
}

fn open_answers(row: &Bytes) -> Result<(u16, Reader), StorageError> {
    let mut reader = Reader::new(row.clone(), ANSWERS_WHAT);
    let head = reader.u8().and_then(|version| Ok((version, reader.u16()?)));
    match head {
        Ok((ANSWERS_VERSION, count)) => Ok((count, reader)),
        Ok(_) => Err(corrupt(ANSWERS_WHAT, &"row version")),
        Err(error) => Err(corrupt(ANSWERS_WHAT, &error)),
    }
}
