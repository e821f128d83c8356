//! Where the registry's rows are.

use bytes::Bytes;
use moorline_core::{TenantId, Text, shard::bucket_of};
use moorline_storage::key::Kind;

use super::Keys;
use crate::registry::{LOOKUP_TENANT, LookupHash, Owner};

impl Keys {
    pub(crate) fn device(self, tenant: TenantId, device: &Text) -> Bytes {
        let bucket = bucket_of(tenant, device.as_bytes());
        let key = self.key(bucket, Kind::Device, 4 + device.len());
        key.u32(tenant.0).bytes(device.as_bytes()).done()
    }

    /// From and to of a tenant's devices in a bucket, behind a name; no name is empty.
    pub(crate) fn devices_behind(
        self,
        bucket: u16,
        tenant: TenantId,
        device: &[u8],
    ) -> (Bytes, Bytes) {
        let from = self.key(bucket, Kind::Device, 4 + device.len() + 1);
        // Nothing lies between a key and the same with a zero behind it.
        let from = from.u32(tenant.0).bytes(device).u8(0).done();
        let to = match tenant.0.checked_add(1) {
            Some(next) => self.key(bucket, Kind::Device, 4).u32(next).done(),
            None => self.range_in(bucket, Kind::Device).1,
        };
        (from, to)
    }

    pub(crate) fn lookup(self, hash: LookupHash) -> Bytes {
        let bucket = bucket_of(LOOKUP_TENANT, &hash.0);
        self.key(bucket, Kind::Lookup, hash.0.len()).bytes(&hash.0).done()
    }

    pub(crate) fn registry_counts(self, tenant: TenantId) -> Bytes {
        self.whole(Kind::RegistryCounts, 4).u32(tenant.0).done()
    }

    pub(crate) fn forgetting(self, owner: &Owner) -> Bytes {
        let key = self.whole(Kind::Forgetting, 12 + owner.device.len());
        key.u32(owner.tenant.0).u64(owner.born).bytes(owner.device.as_bytes()).done()
    }

    pub(crate) fn retained_owner(self, tenant: TenantId, topic: &Text) -> Bytes {
        let bucket = bucket_of(tenant, topic.as_bytes());
        let key = self.key(bucket, Kind::RetainedOwner, 4 + topic.len());
        key.u32(tenant.0).bytes(topic.as_bytes()).done()
    }

    pub(crate) fn will_owner(self, number: u64) -> Bytes {
        self.whole(Kind::WillOwner, 8).u64(number).done()
    }

    pub(crate) fn tenant_record(self, tenant: TenantId) -> Bytes {
        self.whole(Kind::TenantRecord, 4).u32(tenant.0).done()
    }

    pub(crate) fn next_tenant(self) -> Bytes {
        self.whole(Kind::NextTenant, 0).done()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_the_registry_keep_their_bytes() {
        // Frozen: disks hold these.
        let keys = Keys::new(ShardId(2));
        let tenant = TenantId(5);
        let (from, to) = keys.devices_behind(3, tenant, b"d");
        let (_, last) = keys.devices_behind(3, TenantId(u32::MAX), b"");
        #[rustfmt::skip]
        let table = [
            (keys.device(tenant, &Text::from("d")), "0002 01e5 1a 00000005 64"),
            (from,                                  "0002 0003 1a 00000005 64 00"),
            (to,                                    "0002 0003 1a 00000006"),
            (last,                                  "0002 0003 1b"),
            (keys.lookup(LookupHash([0xAB; 32])),
                "0002 09d1 1b abababababababababababababababababababababababababababababababab"),
            (keys.registry_counts(tenant),          "0002 ffff 1c 00000005"),
            (keys.tenant_record(tenant),            "0002 ffff 28 00000005"),
            (keys.next_tenant(),                    "0002 ffff 29"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }
}
