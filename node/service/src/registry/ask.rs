//! Questions about a shard's rows, answered by its leader after it has confirmed that it leads: linearizable, without a log
//! entry. Many questions share one confirmation ([`Inner::pass_gate`]).
//!
//! Checked by the cluster tests (`registry.rs`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, Text};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_machine::{
    DeviceCursor,
    query::{Found, Query},
    registry::DeviceRecord,
};
use tokio::time::sleep;
use tracing::error;

use super::{Registry, RegistryError};
use crate::service::Inner;

/// How long a question may take, all repeats together: longer than an election.
const QUESTION_WAIT: Duration = Duration::from_secs(5);
/// How long one try may take.
const TRY_WAIT: Duration = Duration::from_secs(2);
/// The pause before the next.
const TRY_PAUSE: Duration = Duration::from_millis(20);

/// A piece of a tenant's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// In the order of shards, buckets and names.
    pub devices: Vec<(Text, DeviceRecord)>,
    /// Where the next page begins, if there may be one.
    pub next: Option<(ShardId, DeviceCursor)>,
}

impl Registry {
    pub(super) async fn question(
        &self,
        shard: ShardId,
        query: &Query,
    ) -> Result<Found, RegistryError> {
        let deadline = Instant::now() + QUESTION_WAIT;
        let body = query.encode();
        let below = self.inner.below();
        loop {
            if let Some(leader) = below.router.leader(shard) {
                let (lane, kind) = (Lane::Data, Kind::Question);
                let asked = below.peers.call(leader, lane, kind, shard, body.clone(), TRY_WAIT);
                if let Ok(answer) = asked.await {
                    match Found::decode(answer) {
                        Ok(found) => return Ok(found),
                        Err(problem) => self.inner.bad_frame(leader, &problem),
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(RegistryError::Unavailable);
            }
            sleep(TRY_PAUSE).await;
        }
    }
}

impl Inner {
    /// The leader's side.
    pub(crate) fn on_question(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let query = match Query::decode(body) {
            Ok(query) => query,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let Some(reply) = reply else { return };
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            if !service.pass_gate(shard).await {
                return reply.refuse("not the leader");
            }
            let read = service.below().groups.read(shard, |machine, rows| {
                machine.query(rows, &query).map(|found| found.encode())
            });
            match read {
                Some(Ok(found)) => reply.send(found),
                None => reply.refuse("the shard is not here"),
                Some(Err(problem)) => {
                    error!(%shard, %problem, "cannot read the registry");
                    (service.fatal)("rows can't be read");
                }
            }
        });
    }
}
