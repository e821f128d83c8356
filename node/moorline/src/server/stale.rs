//! What this node's own replicas have, without asking whether that is what there is: for when there is no leader to ask.
//!
//! # Invariants
//!
//! - **It says what it is**: every answer names the node and the index up to which it has applied; the header is the admin API's.
//! - **No secret is in it**: of credentials only how many there are.
//!
//! # Deliberately absent
//!
//! Anything for who is not on the node's own machine: whether a token still counts can't be confirmed without a majority, so a revoked one
//! would read.

use anyhow::Context;
use moorline_core::{ShardId, Text, shard::Shards};
use moorline_machine::query::{Found, Query};
use serde::Serialize;

use super::node::Node;

/// Tenants in one answer.
const TENANTS_PER_PAGE_MAX: usize = 200;

/// A page of tenants as this node has them.
#[derive(Debug, Serialize)]
pub(crate) struct StaleTenants {
    node: u64,
    applied: u64,
    tenants: Vec<String>,
}

/// A device as this node has it.
#[derive(Debug, Serialize)]
pub(crate) struct StaleDevice {
    node: u64,
    applied: u64,
    shard: u16,
    device: String,
    enabled: bool,
    version: u64,
    created_ms: u64,
    updated_ms: u64,
    credentials: usize,
}

impl Node {
    /// Tenants behind a name, in the order of names.
    pub(crate) fn stale_tenants(&self, after: &str) -> StaleTenants {
        let names = self.groups().read(ShardId::META, |machine, _| {
            let all = machine.meta().tenants().values();
            let mut names: Vec<String> = all
                .map(|tenant| tenant.name.to_string())
                .filter(|name| name.as_str() > after)
                .collect();
            names.sort_unstable();
            names.truncate(TENANTS_PER_PAGE_MAX);
            names
        });
        let tenants = names.unwrap_or_default();
        StaleTenants {
            node: self.config().node.id,
            applied: self.applied_here(ShardId::META),
            tenants,
        }
    }

    /// A device, if this node has a replica of its shard and knows it.
    pub(crate) fn stale_device(
        &self,
        tenant: &str,
        device: &str,
    ) -> anyhow::Result<Option<StaleDevice>> {
        let (tenant, device) = (Text::from(tenant), Text::from(device));
        let found = self.groups().read(ShardId::META, |machine, _| {
            machine.meta().tenant_by_name(&tenant).map(|(tenant, _)| tenant)
        });
        let Some(Some(tenant)) = found else { return Ok(None) };
        let shard = Shards::new(self.config().cluster.shards).of(tenant, device.as_bytes());
        let query = Query::Device { tenant, device: device.clone() };
        let found = self.groups().read(shard, |machine, rows| machine.query(rows, &query));
        let found = found.with_context(|| {
            format!("this node has no replica of shard {shard}: ask one that has")
        })??;
        #[expect(clippy::wildcard_enum_match_arm, reason = "a question has one kind of answer")]
        let record = match found {
            Found::Device(record) => record,
            other => anyhow::bail!("asked for a device, found {other:?}"),
        };
        Ok(record.map(|record| StaleDevice {
            node: self.config().node.id,
            applied: self.applied_here(shard),
            shard: shard.0,
            device: device.to_string(),
            enabled: record.enabled,
            version: record.version,
            created_ms: record.created.0,
            updated_ms: record.updated.0,
            credentials: record.credentials.len(),
        }))
    }

    /// How far a replica here has applied its log.
    fn applied_here(&self, group: ShardId) -> u64 {
        let status = self.groups().status();
        let of = status.iter().find(|status| status.shard == group);
        of.and_then(|status| status.applied).unwrap_or(0)
    }
}
