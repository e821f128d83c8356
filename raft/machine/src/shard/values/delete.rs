//! Telemetry of some keys is deleted, a piece of time with each command.
//!
//! # Invariants
//!
//! - **A point stays in its part**: what is left of it has the part's number; one of which nothing is left is a point that the part
//!   names and that is not there, which it lets be when it goes.
//! - **The newest time that a sheet has had stays**, whatever is deleted: points behind it are new for the rows below.
//!
//! Checked by `tests/rules/values_model.rs`.

use bytes::Bytes;
use moorline_core::Text;
use moorline_storage::{Rows, StorageError};

use super::{check_key, record::newest_of, refused};
use crate::{
    answer::Answer,
    effect::Effect,
    keys::Place,
    rows::{
        Row,
        values::{Merge, PointRow, SheetRow, merge, number},
    },
    shard::ShardState,
    step::Step,
    values::{
        DELETE_BYTES_MAX, DeleteSeries, KEYS_PER_DELETE_MAX, POINTS_PER_DELETE_MAX, Part,
        ValueAnswer, ValueRefused,
    },
};

/// What becomes of a point: its time, the bytes that it had, and what is left of it.
type Rest = (i64, usize, Option<Bytes>);

impl DeleteSeries {
    fn check(&self) -> Result<(), ValueRefused> {
        if self.keys.len() > KEYS_PER_DELETE_MAX {
            return Err(ValueRefused::TooManyAtOnce);
        }
        self.keys.iter().try_for_each(check_key)
    }

    /// In order, each once.
    fn sorted(&self) -> Vec<&[u8]> {
        let mut keys: Vec<_> = self.keys.iter().map(Text::as_bytes).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl ShardState {
    pub(super) fn delete_series<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteSeries,
    ) -> Result<Answer, StorageError> {
        if let Err(why) = delete.check() {
            return Ok(refused(why));
        }
        let DeleteSeries { tenant, device, born, from_ms, to_ms, .. } = delete;
        let Some(of) = self.place(&*step.rows, *tenant, device, Some(*born))? else {
            return Ok(refused(ValueRefused::DeviceGone));
        };
        let keys = delete.sorted();
        let is_nothing = keys.is_empty() || from_ms >= to_ms;
        let mut next = None;
        if !is_nothing
            && delete.latest
            && self.delete_latest(step, of, &keys, (*from_ms, *to_ms))?
        {
            step.effects.push(Effect::Values { tenant: *tenant, device: device.clone() });
        }
        if !is_nothing && self.histories.known.contains_key(tenant) {
            next = self.delete_points(step, delete, of, &keys)?;
        }
        Ok(Answer::Values(ValueAnswer::Deleted { at: step.time, next }))
    }

    /// Deletes latest values whose times are in the range; whether there were some.
    fn delete_latest<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        of: Place,
        keys: &[&[u8]],
        (from_ms, to_ms): (i64, i64),
    ) -> Result<bool, StorageError> {
        let Some(sheet) = self.sheet(&*step.rows, of, Part::Latest)? else { return Ok(false) };
        let (mut out, mut failed) = (SheetRow::begin(sheet.entries.len()), None);
        let keys = keys.iter().map(|key| (*key, ()));
        let more = merge(&mut out, &sheet.entries, keys, |_, known, ()| {
            match known.map(number).transpose() {
                Ok(Some((mark, _))) if (from_ms..to_ms).contains(&newest_of(mark)) => Merge::Drop,
                Ok(_) => Merge::Keep,
                Err(error) => {
                    failed = Some(error);
                    Merge::Keep
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if more != 0 {
            let len = u32::try_from(i64::from(sheet.len) + more).expect("it had as many");
            step.put(self.keys.sheet(of, Part::Latest), SheetRow::finish(out, sheet.mark, 0, len));
        }
        Ok(more != 0)
    }

    /// Deletes values of points from the start of the range on; where to go on, if there may be more.
    fn delete_points<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteSeries,
        of: Place,
        keys: &[&[u8]],
    ) -> Result<Option<i64>, StorageError> {
        let (mut points, mut bytes, mut rests) = (0, 0, Vec::<Rest>::new());
        let range = (delete.from_ms, delete.to_ms);
        let next = self.walk(&*step.rows, of, range, &mut |ts_ms, row| {
            if points >= POINTS_PER_DELETE_MAX || bytes >= DELETE_BYTES_MAX {
                return Ok(false);
            }
            points += 1;
            bytes += row.len();
            if let Some(rest) = PointRow::from_bytes(row)?.without(keys)? {
                rests.push((ts_ms, row.len(), rest));
            }
            Ok(true)
        })?;
        if rests.is_empty() {
            return Ok(next);
        }
        let history = self.histories.known.get_mut(&delete.tenant).expect("it was just there");
        for (ts_ms, before, rest) in rests {
            let key = self.keys.point(of, ts_ms);
            history.shrink(before)?;
            match rest {
                Some(rest) => {
                    history.row.bytes += rest.len() as u64;
                    step.put(key, rest);
                }
                None => step.delete(key),
            }
        }
        self.histories.dirty.insert(delete.tenant);
        Ok(next)
    }
}
