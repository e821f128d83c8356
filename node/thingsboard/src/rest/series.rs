//! Telemetry of some keys is deleted by integrators.

use moorline_core::TenantId;
use moorline_dialects::thingsboard::rest::{errors::ErrorCode, telemetry::DeletedLatest};
use moorline_service::registry::SeriesDelete;

use super::{Failed, Reply, Rest, devices::Row};
use crate::convert;

impl Rest {
    /// 200 when nothing of it is left, on the disks of a majority.
    pub(super) async fn delete_timeseries(
        &self,
        tenant: TenantId,
        (device, record): &Row,
        keys: &[String],
        range_ms: Option<(i64, i64)>,
        latest: DeletedLatest,
    ) -> Result<Reply, Failed> {
        let (registry, born, keys) = (&self.door.registry, record.born, convert::keys(keys));
        let (from_ms, to_ms) = range_ms.unwrap_or((i64::MIN, i64::MAX));
        let goes = latest != DeletedLatest::Stay;
        let delete = SeriesDelete { born, keys: keys.clone(), from_ms, to_ms, latest: goes };
        if let Some(next) = registry.delete_series(tenant, device, delete).await? {
            let why = format!("more than one request deletes: ask again, from {next} on");
            return Err(Failed::new(ErrorCode::BadRequestParams, why));
        }
        if latest == DeletedLatest::Renew {
            registry.renew_latest(tenant, device, born, &keys).await?;
        }
        Ok(Reply::nothing())
    }
}
