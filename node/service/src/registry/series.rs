//! Telemetry of some keys is deleted: command after command, until nothing of the range is left.
//!
//! # Invariants
//!
//! - **To say it again is safe**, also after it broke off: what is gone is not there to be deleted, and a latest value that is to be
//!   renewed is renewed then.
//! - **Bounded**: [`DELETE_STEPS_MAX`] commands for one deletion. Who wants more says it again from where that ended.

use std::collections::BTreeSet;

use moorline_core::{TenantId, Text};
use moorline_machine::{
    Answer, COMMAND_BYTES_MAX, Command, HistoryQuery, ValueAnswer, ValueCommand,
    values::{
        DeleteSeries, NewPoint, POINT_BYTES_MAX, POINTS_PAGE_BYTES_MAX, POINTS_PER_COMMAND_MAX,
        POINTS_PER_DELETE_MAX, POINTS_PER_QUESTION_MAX, Point, Record,
    },
};

use super::{Registry, RegistryError, accepted};
use crate::rates::Rated;

/// Commands of one deletion: four million points, in some tens of seconds.
pub const DELETE_STEPS_MAX: usize = 4_096;
/// Pages that are looked at for the newest point of a key: as many points as one deletion goes over.
const NEWEST_PAGES_MAX: usize = DELETE_STEPS_MAX * POINTS_PER_DELETE_MAX / POINTS_PER_QUESTION_MAX;
/// Points of one of them: what they bring fits into one command.
const NEWEST_POINTS_PER_PAGE: u16 = 64;
const _: () = assert!(
    // A page may have one point more than its bytes.
    NEWEST_POINTS_PER_PAGE as usize <= POINTS_PER_COMMAND_MAX
        && POINTS_PAGE_BYTES_MAX + POINT_BYTES_MAX < COMMAND_BYTES_MAX
);

/// What of a device's telemetry is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesDelete {
    /// The version the device was made with.
    pub born: u64,
    /// Of which keys.
    pub keys: Vec<Text>,
    /// The first time, in milliseconds since 1970.
    pub from_ms: i64,
    /// The first time behind it.
    pub to_ms: i64,
    /// Whether latest values of that range go as well.
    pub latest: bool,
}

impl Registry {
    /// Deletes telemetry: where to go on, if it was more than one deletion goes over. It is synced on a majority then.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; some of it may be deleted all the same.
    pub async fn delete_series(
        &self,
        tenant: TenantId,
        device: &Text,
        delete: SeriesDelete,
    ) -> Result<Option<i64>, RegistryError> {
        if !self.inner.may_say(tenant, &[(Rated::Events, 1)]) {
            return Err(RegistryError::Busy);
        }
        let SeriesDelete { born, keys, from_ms, to_ms, latest } = delete;
        let device = device.clone();
        let mut step = DeleteSeries { tenant, device, born, keys, from_ms, to_ms, latest };
        for _ in 0..DELETE_STEPS_MAX {
            match self.delete_step(&step).await? {
                Some(next) => step.from_ms = next,
                None => return Ok(None),
            }
        }
        Ok(Some(step.from_ms))
    }

    async fn delete_step(&self, step: &DeleteSeries) -> Result<Option<i64>, RegistryError> {
        let shard = self.shard_of(step.tenant, &step.device);
        let command = Command::Values(ValueCommand::Delete(step.clone()));
        let answer = accepted(self.inner.below().router.ask(shard, &command).await?)?;
        let Answer::Values(ValueAnswer::Deleted { next, .. }) = answer else {
            return Err(RegistryError::Unavailable);
        };
        Ok(next)
    }

    /// Gives keys of a device that have no latest value the newest of their history. Of what is said meanwhile the newest counts.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; some may have theirs all the same.
    pub async fn renew_latest(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
        keys: &[Text],
    ) -> Result<(), RegistryError> {
        let Some(known) = self.latest(tenant, device, keys.to_vec()).await? else { return Ok(()) };
        let mut missing: BTreeSet<Text> = keys.iter().cloned().collect();
        for (key, ..) in known.values {
            missing.remove(&key);
        }
        // All of them in one walk: it may be a long one.
        let mut to_ms = i64::MAX;
        for _ in 0..NEWEST_PAGES_MAX {
            if missing.is_empty() {
                break;
            }
            let query = HistoryQuery {
                tenant,
                device: device.clone(),
                keys: missing.iter().cloned().collect(),
                from_ms: i64::MIN,
                to_ms,
                descending: true,
                points_max: NEWEST_POINTS_PER_PAGE,
            };
            let Some(page) = self.history(query).await? else { return Ok(()) };
            let points = newest(page.points, &mut missing);
            self.put_latest(tenant, device, born, points).await?;
            let Some(next) = page.next else { break };
            to_ms = next;
        }
        Ok(())
    }

    async fn put_latest(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
        points: Vec<NewPoint>,
    ) -> Result<(), RegistryError> {
        if points.is_empty() {
            return Ok(());
        }
        let (device, history, event) = (device.clone(), None, None);
        let rules = self.rules(&points);
        let record = Record { tenant, device, born, rules, points, history, event };
        self.write_values(ValueCommand::Record(record)).await.map(drop)
    }
}

/// Of points, the newest first, those that have a value of a key that is missing, with nothing else. They are missing no more.
fn newest(points: Vec<Point>, missing: &mut BTreeSet<Text>) -> Vec<NewPoint> {
    let of_point = |Point { ts_ms, mut values }: Point| {
        values.retain(|(key, _)| missing.remove(key));
        (!values.is_empty()).then_some(NewPoint { ts_ms: Some(ts_ms), values })
    };
    points.into_iter().filter_map(of_point).collect()
}

#[cfg(test)]
mod tests {
    use moorline_core::Value;

    use super::*;

    #[test]
    fn each_key_gets_the_newest_value_that_is_there() {
        let value = |key: &str, value| (Text::from(key), Value::Long(value));
        let point = |ts_ms, values| Point { ts_ms, values };
        let mut missing = ["a", "b", "c", "d"].map(Text::from).into();
        let points = vec![
            point(9, vec![value("a", 1), value("x", 2)]),
            point(8, vec![value("a", 3)]),
            point(7, vec![value("a", 4), value("b", 5), value("c", 6)]),
        ];
        let new = |ts_ms, values| NewPoint { ts_ms: Some(ts_ms), values };
        let expected = [new(9, vec![value("a", 1)]), new(7, vec![value("b", 5), value("c", 6)])];
        assert_eq!(newest(points, &mut missing), expected);
        assert_eq!(missing, ["d"].map(Text::from).into());
        assert_eq!(newest(vec![point(6, vec![value("b", 7)])], &mut missing), []);
    }
}
