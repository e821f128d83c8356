//! How a device stands: connected, active or offline, and since when.

use moorline_core::{TenantId, Text};
use moorline_machine::{
    presence::{PresenceRecord, PresenceState},
    registry::DeviceRecord,
};
use moorline_service::registry::door::By;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Api, Problem};

/// How a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It has a connection.
    Connected,
    /// It has none, and was heard from within its threshold.
    Active,
    /// It was not, or never.
    Offline,
}

/// Its presence. Times are as coarse as its node reports: a minute, for one that comes and goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PresenceView {
    /// How it is.
    pub(crate) state: State,
    /// Since when, in milliseconds since 1970; absent for one that never came.
    since_ms: Option<u64>,
    /// When a connection was opened last.
    connected_ms: Option<u64>,
    /// When the last connection was gone.
    disconnected_ms: Option<u64>,
    /// When it was heard from last.
    heard_ms: Option<u64>,
    /// By which protocol it came last.
    protocol: Option<&'static str>,
    /// To which node.
    node: Option<u64>,
}

impl PresenceView {
    /// Of what is known; [`None`] of a device that never came.
    pub(crate) fn of(record: Option<&PresenceRecord>) -> Self {
        let state = match record.map(|record| record.state) {
            Some(PresenceState::Connected) => State::Connected,
            Some(PresenceState::Active) => State::Active,
            Some(PresenceState::Offline) | None => State::Offline,
        };
        Self {
            state,
            since_ms: record.map(|record| record.since.0),
            connected_ms: record.and_then(|record| record.connected).map(|at| at.0),
            disconnected_ms: record.and_then(|record| record.disconnected).map(|at| at.0),
            heard_ms: record.map(|record| record.heard.0),
            protocol: record.map(|record| By::name(record.by)),
            node: record.map(|record| record.node.0),
        }
    }
}

/// What is known of these devices, in order; of an earlier one of a name nothing is.
pub(crate) async fn of_devices(
    api: &Api,
    tenant: TenantId,
    devices: &[(Text, DeviceRecord)],
) -> Result<Vec<Option<PresenceRecord>>, Problem> {
    let names: Vec<_> = devices.iter().map(|(name, _)| name.clone()).collect();
    let found = api.registry.presence(tenant, &names).await?;
    let of_its_own = |(found, (_, record)): (Option<PresenceRecord>, &(Text, DeviceRecord))| {
        found.filter(|found| found.born == record.born)
    };
    Ok(found.into_iter().zip(devices).map(of_its_own).collect())
}
