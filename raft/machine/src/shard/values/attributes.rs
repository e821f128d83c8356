//! Attributes are written and deleted.
//!
//! Deleted shared attributes stay in their sheet without a value for a while, so that a connection that missed it can be told.

use bytes::BytesMut;
use moorline_core::{AttributeScope, Text, Value};
use moorline_storage::{Rows, StorageError, View};

use super::{check_key, check_value, refused};
use crate::{
    answer::Answer,
    codec::put_value,
    effect::Effect,
    keys::Place,
    rows::{
        NumberRow, Row,
        values::{Entries, Merge, STAMP_BYTES, SheetRow, Stamp, merge},
    },
    shard::ShardState,
    step::Step,
    values::{
        ATTRIBUTES_GONE_KEPT, ATTRIBUTES_PER_COMMAND_MAX, AttributesChanged, Part, SHEET_BYTES_MAX,
        SHEET_KEYS_MAX, TellAttributes, VALUE_BYTES_MAX, ValueAnswer, ValueRefused,
        WriteAttributes,
    },
};

impl WriteAttributes {
    fn check(&self) -> Result<(), ValueRefused> {
        if self.changes.len() > ATTRIBUTES_PER_COMMAND_MAX {
            return Err(ValueRefused::TooManyAtOnce);
        }
        self.changes.iter().try_for_each(|(key, value)| {
            check_key(key)?;
            value.as_ref().map_or(Ok(()), |value| check_value(value, VALUE_BYTES_MAX))
        })
    }
}

impl ShardState {
    pub(super) fn write_attributes<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        write: WriteAttributes,
    ) -> Result<Answer, StorageError> {
        if let Err(why) = write.check() {
            return Ok(refused(why));
        }
        let WriteAttributes { tenant, device, born, scope, mut changes, event } = write;
        let Some(of) = self.place(&*step.rows, tenant, &device, Some(born))? else {
            return Ok(refused(ValueRefused::DeviceGone));
        };
        let append = match self.event_of((tenant, &device, born), event) {
            Ok(append) => append,
            Err(why) => return Ok(Answer::Refused(why)),
        };
        last_of_each(&mut changes);
        let stamp = Stamp { at: step.time, version: step.version() };
        if !changes.is_empty() {
            let part = Part::Attributes(scope);
            let before = self.sheet(&*step.rows, of, part)?.unwrap_or_default();
            let write = Write { before, scope, stamp, changes };
            let written = match write.apply()? {
                Ok(written) => written,
                Err(why) => return Ok(refused(why)),
            };
            let key = self.keys.sheet(of, part);
            match written.row {
                Some(row) => step.put(key, row),
                None => step.delete(key),
            }
            if !written.changes.is_empty() {
                let (version, changes) = (stamp.version, written.changes);
                let device = device.clone();
                step.effects.push(match scope {
                    AttributeScope::Shared => {
                        let changed = AttributesChanged { tenant, device, born, version, changes };
                        Effect::Attributes(Box::new(changed))
                    }
                    AttributeScope::Client | AttributeScope::Server => {
                        Effect::Values { tenant, device }
                    }
                });
            }
        }
        let event = append.map(|append| self.append_with(step, append));
        let (at, version) = (stamp.at, stamp.version);
        Ok(Answer::Values(ValueAnswer::Written { at, version, event }))
    }
}

impl ShardState {
    /// Notes that a device was told of its shared attributes.
    pub(super) fn tell_attributes<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        tell: &TellAttributes,
    ) -> Result<Answer, StorageError> {
        let TellAttributes { tenant, device, born, version } = tell;
        let Some(of) = self.place(&*step.rows, *tenant, device, Some(*born))? else {
            return Ok(refused(ValueRefused::DeviceGone));
        };
        let known = self.told(&*step.rows, of)?;
        let version = known.map_or(*version, |known| known.max(*version));
        if known != Some(version) {
            step.put(self.keys.told(of), NumberRow(version).to_bytes());
        }
        Ok(Answer::Values(ValueAnswer::Written { at: step.time, version, event: None }))
    }

    /// Up to which version of its shared attributes a device was told, if it ever asked.
    pub(super) fn told(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
    ) -> Result<Option<u64>, StorageError> {
        let row = rows.get(&self.keys.told(of))?;
        row.map(|row| Ok(NumberRow::from_bytes(&row)?.0)).transpose()
    }
}

/// Orders changes by key; of each key the last stays.
fn last_of_each(changes: &mut Vec<(Text, Option<Value>)>) {
    changes.reverse();
    changes.sort_by(|(a, _), (b, _)| a.cmp(b));
    changes.dedup_by(|(later, _), (earlier, _)| later == earlier);
}

struct Write {
    before: SheetRow,
    scope: AttributeScope,
    stamp: Stamp,
    changes: Vec<(Text, Option<Value>)>,
}

struct Written {
    /// The sheet, unless nothing is left in it.
    row: Option<bytes::Bytes>,
    /// What is not as it was: all but deletions of what was not there.
    changes: Vec<(Text, Option<Value>)>,
}

impl Write {
    fn apply(mut self) -> Result<Result<Written, ValueRefused>, StorageError> {
        let (before, keeps_gone, stamp) =
            (&self.before, self.scope == AttributeScope::Shared, self.stamp);
        let size = |(key, value): &(Text, Option<Value>)| {
            key.len() + value.as_ref().map_or(0, Value::len_bytes) + 32
        };
        let more = self.changes.iter().map(size).sum::<usize>();
        let mut out = SheetRow::begin(before.entries.len() + more);
        let mut noops = Vec::new();
        let changes = self.changes.iter().enumerate();
        let changes = changes.map(|(at, (key, value))| (key.as_bytes(), (at, value)));
        let more = merge(&mut out, &before.entries, changes, |out, known, (at, value)| {
            let is_set = known.is_some_and(|rest| rest.len() > STAMP_BYTES);
            match value {
                Some(value) => {
                    stamp.put(out);
                    put_value(out, value);
                    Merge::Put
                }
                None if is_set && keeps_gone => {
                    stamp.put(out);
                    Merge::Put
                }
                None if is_set => Merge::Drop,
                None => {
                    noops.push(at);
                    if known.is_some() { Merge::Keep } else { Merge::Drop }
                }
            }
        })?;
        let len = i64::from(before.len) + more;
        let (out, len, forgotten) = trim(out, len, before.forgotten)?;
        let (set, bytes) = (counted(&out)?.0, SheetRow::written(&out).len());
        if set > SHEET_KEYS_MAX {
            return Ok(Err(ValueRefused::TooManyKeys));
        }
        if bytes > SHEET_BYTES_MAX {
            return Ok(Err(ValueRefused::Full));
        }
        for at in noops.into_iter().rev() {
            self.changes.remove(at);
        }
        let is_empty = len == 0 && forgotten == 0;
        let row = (!is_empty).then(|| SheetRow::finish(out, stamp.version, forgotten, len));
        Ok(Ok(Written { row, changes: self.changes }))
    }
}

/// How many attributes of a sheet that was written are set, and how many were deleted.
fn counted(out: &BytesMut) -> Result<(usize, usize), StorageError> {
    let (mut set, mut gone) = (0, 0);
    for entry in Entries::of(SheetRow::written(out)) {
        if entry?.rest.len() > STAMP_BYTES { set += 1 } else { gone += 1 }
    }
    Ok((set, gone))
}

/// Forgets the first of the deleted attributes while there are too many of them, or too many bytes.
fn trim(out: BytesMut, len: i64, mut forgotten: u64) -> Result<(BytesMut, u32, u64), StorageError> {
    let counted_len = |len: i64| u32::try_from(len).expect("entries fit SHEET_BYTES_MAX");
    let (_, gone) = counted(&out)?;
    let mut bytes = SheetRow::written(&out).len();
    if gone == 0 || gone <= ATTRIBUTES_GONE_KEPT && bytes <= SHEET_BYTES_MAX {
        return Ok((out, counted_len(len), forgotten));
    }
    let mut deleted = Vec::with_capacity(gone);
    for entry in Entries::of(SheetRow::written(&out)) {
        let entry = entry?;
        if entry.rest.len() <= STAMP_BYTES {
            deleted.push((Stamp::split(entry.rest)?.0.version, entry.key));
        }
    }
    deleted.sort_unstable();
    let mut keys = Vec::new();
    for (version, key) in deleted {
        if gone - keys.len() <= ATTRIBUTES_GONE_KEPT && bytes <= SHEET_BYTES_MAX {
            break;
        }
        bytes -= key.len() + STAMP_BYTES;
        forgotten = forgotten.max(version);
        keys.push(key);
    }
    let forgets = i64::try_from(keys.len()).expect("ATTRIBUTES_PER_COMMAND_MAX fits");
    keys.sort_unstable();
    let mut trimmed = SheetRow::begin(bytes);
    let keys = keys.into_iter().map(|key| (key, ()));
    merge(&mut trimmed, SheetRow::written(&out), keys, |_, _, ()| Merge::Drop)?;
    Ok((trimmed, counted_len(len - forgets), forgotten))
}
