//! Calls: what the devices of this shard are asked to do, and what they answered.
//!
//! ```text
//!   CallLine (device)              the last number; whose it is
//!   CallCard (device, number)      how the call stands: all but what was asked and answered
//!   CallAsked (device, number)     method and parameters
//!   CallAnswered (device, number)  what the device said
//!   CallById (device, id)          the number
//!
//!   change.rs  they are made, noted, deleted; deadlines
//!   read.rs    what is asked
//!   (here)     the state, and how it is derived from rows
//! ```
//!
//! A call's state changes a few times, and each time one small row: what was asked is written once. A device's rows are under its
//! birth: one that is made anew begins with nothing, and what the earlier one left goes by `Tick` without being seen.
//!
//! # Invariants
//!
//! - **A number is of one call.** The next one counts up from the last, from 2^31 - 1 to 1, past those of calls that are there. So
//!   their order from behind the last one on is that of their age. Checked by `tests/rules/calls_model.rs`.
//! - **What memory holds of a call is in its card.** Checked by `PartialEq` of [`Calls`] wherever replicas are tested.
//! - **Each call is due once**: when its deadline comes or, once it has ended, when it is forgotten.
//!
//! # Deliberately absent
//!
//! Who sends calls to devices, and who waits for answers (`node/service`).

mod change;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_storage::{Rows, StorageError, View, key::Kind};

pub use self::read::{CallsFound, CallsQuery};
use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    calls::{CallCommand, CallRefused, CallTotals},
    keys::{Keys, Place, each},
    rows::{
        NumberRow, Row,
        calls::{CallCardRow, CallLineRow},
        corrupt,
    },
    step::Step,
};

/// What a shard knows of calls without reading rows.
#[derive(Debug, PartialEq)]
pub(super) struct Calls {
    keys: Keys,
    /// Devices that have calls.
    lines: BTreeMap<Place, Line>,
    /// All calls of them, by when something is to be done.
    due: BTreeSet<(UnixMillis, Place, i32)>,
    /// Calls of devices that are gone.
    gone: BTreeSet<(Place, i32)>,
    totals: CallTotals,
}

/// The calls of a device.
#[derive(Debug, PartialEq)]
struct Line {
    row: CallLineRow,
    calls: BTreeMap<i32, Known>,
    open: Sum,
    kept: Sum,
}

/// How many, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    calls: u32,
    bytes: u64,
}

/// What of a card is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    state: moorline_core::CallState,
    is_open: bool,
    due: UnixMillis,
    bytes: u32,
}

impl From<&CallCardRow> for Known {
    fn from(card: &CallCardRow) -> Self {
        let (is_open, due) = (card.is_open(), card.due());
        Self { state: card.state, is_open, due, bytes: card.bytes }
    }
}

impl Line {
    fn new(row: CallLineRow) -> Self {
        Self { row, calls: BTreeMap::new(), open: Sum::default(), kept: Sum::default() }
    }

    fn sum(&mut self, known: Known) -> &mut Sum {
        if known.is_open { &mut self.open } else { &mut self.kept }
    }

    /// The number that the next call gets.
    fn next_number(&self) -> i32 {
        let mut number = self.row.last;
        loop {
            number = if number == i32::MAX { 1 } else { number + 1 };
            if !self.calls.contains_key(&number) {
                return number;
            }
        }
    }

    /// Those behind a number, the oldest first; behind 0: all.
    fn by_age(&self, after: i32) -> impl Iterator<Item = (i32, Known)> {
        let last = self.row.last;
        // Numbers above the last one are from before they began anew.
        let before = self.calls.range(last.saturating_add(1)..).filter(move |_| last < i32::MAX);
        let all = before.chain(self.calls.range(..=last));
        let age = move |number: i32| number.wrapping_sub(last).wrapping_sub(1) & i32::MAX;
        all.filter(move |(number, _)| after == 0 || age(**number) > age(after))
            .map(|(number, known)| (*number, *known))
    }

    /// Those before a number, the newest first; before 0: all.
    fn by_youth(&self, before: i32) -> impl Iterator<Item = (i32, Known)> {
        let last = self.row.last;
        let older = self.calls.range(last.saturating_add(1)..).filter(move |_| last < i32::MAX);
        let all = self.calls.range(..=last).rev().chain(older.rev());
        let age = move |number: i32| number.wrapping_sub(last).wrapping_sub(1) & i32::MAX;
        all.filter(move |(number, _)| before == 0 || age(**number) < age(before))
            .map(|(number, known)| (*number, *known))
    }
}

impl Calls {
    pub(super) fn new(keys: Keys) -> Self {
        let (lines, due, gone) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { keys, lines, due, gone, totals: CallTotals::default() }
    }

    pub(super) fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        let mut lines = BTreeMap::new();
        each(rows, &self.keys.range_in(bucket, Kind::CallLine), |mut suffix, row| {
            lines.insert(suffix.u64()?, CallLineRow::from_bytes(row)?);
            Ok(())
        })?;
        each(rows, &self.keys.range_in(bucket, Kind::CallCard), |suffix, row| {
            let (born, number) = suffix.call()?;
            let of = Place { bucket, born };
            if let Some(row) = lines.remove(&born) {
                self.lines.insert(of, Line::new(row));
            }
            if self.lines.contains_key(&of) {
                self.know(of, number, Known::from(&CallCardRow::from_bytes(row)?));
            } else {
                self.gone.insert((of, number));
            }
            Ok(())
        })
    }

    /// Takes a call of a device that has a line into memory.
    fn know(&mut self, of: Place, number: i32, known: Known) {
        let line = self.lines.get_mut(&of).expect("the caller found it");
        let sum = line.sum(known);
        sum.calls += 1;
        sum.bytes += u64::from(known.bytes);
        let before = line.calls.insert(number, known);
        assert!(before.is_none(), "call {number} of {of:?} is there");
        self.due.insert((known.due, of, number));
        self.totals.bytes += u64::from(known.bytes);
        *self.total(known) += 1;
    }

    /// The reverse of [`Self::know`].
    fn unknow(&mut self, of: Place, number: i32) {
        let line = self.lines.get_mut(&of).expect("the caller found it");
        let known = line.calls.remove(&number).expect("the caller found it");
        let sum = line.sum(known);
        sum.calls -= 1;
        sum.bytes -= u64::from(known.bytes);
        self.due.remove(&(known.due, of, number));
        self.totals.bytes -= u64::from(known.bytes);
        *self.total(known) -= 1;
    }

    fn total(&mut self, known: Known) -> &mut u64 {
        if known.is_open { &mut self.totals.open } else { &mut self.totals.kept }
    }

    fn known(&self, of: Place, number: i32) -> Option<Known> {
        self.lines.get(&of)?.calls.get(&number).copied()
    }

    /// All calls, of devices that are gone too.
    fn len(&self) -> usize {
        self.due.len() + self.gone.len()
    }

    fn card(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        number: i32,
    ) -> Result<CallCardRow, StorageError> {
        let row = rows.get(&self.keys.call_card(of, number))?;
        let row = row.ok_or_else(|| corrupt(CallCardRow::WHAT, &"it is missing"))?;
        CallCardRow::from_bytes(&row)
    }

    fn number_of(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        id: u128,
    ) -> Result<Option<i32>, StorageError> {
        let Some(row) = rows.get(&self.keys.call_by_id(of, id))? else { return Ok(None) };
        let number = i32::try_from(NumberRow::from_bytes(&row)?.0);
        number.map(Some).map_err(|error| corrupt("number of a call", &error))
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.gone.is_empty() {
            return Some(UnixMillis(0));
        }
        self.due.first().map(|(at, ..)| *at)
    }
}

impl ShardState {
    pub(crate) fn call<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: CallCommand,
    ) -> Result<Answer, StorageError> {
        match command {
            CallCommand::Make(make) => self.make_call(step, make),
            CallCommand::Note(what) => self.note_call(step, what),
            CallCommand::Delete(delete) => self.delete_call(step, &delete),
        }
    }

    /// Calls of a device that is deleted are none any more for whoever asks; their rows go by `Tick`.
    pub(super) fn forget_calls<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
        born: u64,
    ) -> Result<(), StorageError> {
        let of = Place { bucket: bucket_of(tenant, device.as_bytes()), born };
        let key = self.keys.call_line(of);
        if step.rows.get(&key)?.is_none() {
            return Ok(());
        }
        step.delete(key);
        let calls = &mut self.calls;
        let numbers =
            calls.lines.get(&of).map(|line| line.calls.keys().copied().collect::<Vec<_>>());
        for number in numbers.unwrap_or_default() {
            calls.unknow(of, number);
            calls.gone.insert((of, number));
        }
        calls.lines.remove(&of);
        Ok(())
    }

    pub(crate) fn call_totals(&self) -> CallTotals {
        self.calls.totals
    }
}

fn refused(why: CallRefused) -> Answer {
    Answer::Refused(Refused::Calls(why))
}
