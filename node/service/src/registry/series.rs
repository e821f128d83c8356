//! Telemetry of some keys is deleted: command after command, until nothing of the range is left.
//!
//! # Invariants
//!
//! - **To say it again is safe**, also after it broke off: what is gone is not there to be deleted, and a latest value that is to be
//!   renewed is renewed then.
//! - **Bounded**: [`DELETE_STEPS_MAX`] commands for one deletion. Who wants more says it again from where that ended.

use moorline_core::{TenantId, Text, Value};
use moorline_machine::{
    Answer, Command, HistoryQuery, ValueAnswer, ValueCommand,
    answer::Refused,
    values::{DeleteSeries, NewPoint, POINTS_PER_DELETE_MAX, POINTS_PER_QUESTION_MAX, Record},
};

use super::{Registry, RegistryError};
use crate::rates::Rated;

/// Commands of one deletion: four million points, in some tens of seconds.
pub const DELETE_STEPS_MAX: usize = 4_096;
/// Pages that are looked at for the newest point of a key: as many points as one deletion goes over.
const NEWEST_PAGES_MAX: usize = DELETE_STEPS_MAX * POINTS_PER_DELETE_MAX / POINTS_PER_QUESTION_MAX;
/// About the most bytes of latest values that are renewed with one command.
const RENEWED_BYTES_MAX: usize = 64 * 1024;

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
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other answer is one to it")]
        match self.inner.below().router.ask(shard, &command).await? {
            Answer::Values(ValueAnswer::Deleted { next, .. }) => Ok(next),
            Answer::Refused(Refused::Values(refused)) => Err(RegistryError::Values(refused)),
            Answer::Refused(refused) => Err(RegistryError::Refused(refused)),
            _ => Err(RegistryError::Unavailable),
        }
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
        let missing =
            keys.iter().filter(|key| known.values.iter().all(|(other, ..)| other != *key));
        let (mut points, mut bytes) = (Vec::new(), 0);
        for key in missing {
            let Some((ts_ms, value)) = self.newest_of(tenant, device, key).await? else { continue };
            bytes += key.len() + value.len_bytes();
            points.push(NewPoint { ts_ms: Some(ts_ms), values: vec![(key.clone(), value)] });
            if bytes >= RENEWED_BYTES_MAX {
                self.put_latest(tenant, device, born, std::mem::take(&mut points)).await?;
                bytes = 0;
            }
        }
        self.put_latest(tenant, device, born, points).await
    }

    /// The newest value of a key in a device's history.
    async fn newest_of(
        &self,
        tenant: TenantId,
        device: &Text,
        key: &Text,
    ) -> Result<Option<(i64, Value)>, RegistryError> {
        let mut query = HistoryQuery {
            tenant,
            device: device.clone(),
            keys: vec![key.clone()],
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            descending: true,
            points_max: 1,
        };
        for _ in 0..NEWEST_PAGES_MAX {
            let Some(page) = self.history(query.clone()).await? else { return Ok(None) };
            let found = page.points.into_iter().next();
            let value = found.and_then(|mut point| Some((point.ts_ms, point.values.pop()?.1)));
            match (value, page.next) {
                (Some(found), _) => return Ok(Some(found)),
                (None, Some(next)) => query.to_ms = next,
                (None, None) => return Ok(None),
            }
        }
        Ok(None)
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
        let record = Record { tenant, device, born, points, history, event };
        self.write_values(ValueCommand::Record(record)).await.map(drop)
    }
}
