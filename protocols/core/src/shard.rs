//! Where data lives: identity → bucket → shard.
//!
//! Buckets are fixed for ever ([`BUCKETS`]); shards are counted when a cluster is made. Keys carry the bucket, so a
//! bucket can move to another shard later. The golden tests below freeze the arithmetic: disks depend on it.

use xxhash_rust::xxh3::xxh3_64;

use crate::{ShardId, TenantId};

/// How many buckets all identities fall into.
pub const BUCKETS: u16 = 4096;
/// The most shards a cluster may have: each is a Raft group, and a round costs the same for one command as for 400.
pub const SHARDS_MAX: u16 = 128;

/// The bucket of an identity (a device id, a client id): `xxh3_64(tenant big-endian ‖ identity) & 4095`.
#[must_use]
pub fn bucket_of(tenant: TenantId, identity: &[u8]) -> u16 {
    let mut key = Vec::with_capacity(4 + identity.len());
    key.extend_from_slice(&tenant.0.to_be_bytes());
    key.extend_from_slice(identity);
    (xxh3_64(&key) & u64::from(BUCKETS - 1)) as u16
}

/// How many shards this cluster has, and which bucket is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    count: u16,
}

impl Shards {
    /// # Panics
    ///
    /// If `count` is not in `1..=SHARDS_MAX`: the config and the admin API check it before.
    #[must_use]
    pub fn new(count: u16) -> Self {
        assert!((1..=SHARDS_MAX).contains(&count), "{count} shards");
        Self { count }
    }

    /// How many shards there are, the meta group not counted.
    #[must_use]
    pub fn count(self) -> u16 {
        self.count
    }

    /// The shard of a bucket: ranges of buckets, as even as they divide.
    #[must_use]
    pub fn of_bucket(self, bucket: u16) -> ShardId {
        assert!(bucket < BUCKETS, "bucket {bucket}");
        let shard = u32::from(bucket) * u32::from(self.count) / u32::from(BUCKETS);
        ShardId(u16::try_from(shard).expect("less than count") + 1)
    }

    /// The shard of an identity.
    #[must_use]
    pub fn of(self, tenant: TenantId, identity: &[u8]) -> ShardId {
        self.of_bucket(bucket_of(tenant, identity))
    }

    /// All shards, the meta group not among them.
    pub fn all(self) -> impl Iterator<Item = ShardId> {
        (1..=self.count).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stay_where_they_were() {
        // Frozen: a change here would lose every stored session.
        let table = [(1, "device-1"), (1, "device-2"), (2, "device-1"), (1, "")];
        let buckets = table.map(|(tenant, id)| bucket_of(TenantId(tenant), id.as_bytes()));
        assert_eq!(buckets, FROZEN);
    }

    const FROZEN: [u16; 4] = [375, 388, 1675, 1295];

    #[test]
    fn every_shard_gets_its_even_part_of_the_buckets() {
        for count in [1, 3, 6, 12, 128] {
            let shards = Shards::new(count);
            let mut sizes = vec![0_u32; usize::from(count)];
            for bucket in 0..BUCKETS {
                sizes[usize::from(shards.of_bucket(bucket).0) - 1] += 1;
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1, "{count} shards: {least} to {most} buckets each");
        }
    }
}
