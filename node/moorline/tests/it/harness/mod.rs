//! What the tests share: clusters of processes, clients, waiting.

pub(crate) mod api;
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod flow;
pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod node;
pub(crate) mod packet;
pub(crate) mod rumqtt;
pub(crate) mod sse;
pub(crate) mod wait;
pub(crate) mod websocket;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use moorline_core::{ShardId, TenantId, shard::Shards};

use self::cluster::Cluster;

/// The tenant that everybody belongs to who does not say who he is.
pub(crate) const TENANT: TenantId = TenantId(1);

/// A claim and the function that tests it on a cluster it leaves as it found it.
pub(crate) type Scenario<T = Cluster> = (&'static str, fn(&mut T));

/// Tests all claims on one cluster, in order, and fails at the end if one did not hold.
pub(crate) fn scenarios<T>(cluster: &mut T, scenarios: &[Scenario<T>]) {
    let mut failed = Vec::new();
    for (claim, run) in scenarios {
        let since = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| run(cluster))).is_ok();
        let word = if held { "holds" } else { "FAILS" };
        println!("{word} {claim} ({:.1} s)", since.elapsed().as_secs_f64());
        if !held {
            failed.push(*claim);
        }
    }
    assert!(failed.is_empty(), "{} of {} claims fail: {failed:?}", failed.len(), scenarios.len());
}

/// A client id that begins with `prefix` and whose session lives in shard `shard` of `shards`.
pub(crate) fn client_in(shard: u16, shards: u16, prefix: &str) -> String {
    let shards = Shards::new(shards);
    (0_u32..)
        .map(|number| format!("{prefix}-{number}"))
        .find(|id| shards.of(TENANT, id.as_bytes()) == ShardId(shard))
        .expect("there is no end to numbers")
}
