//! Where the rows of streams are: in no bucket, since a stream is of its shard.

use bytes::Bytes;
use moorline_core::{Offset, TenantId, Text};
use moorline_storage::key::Kind;

use super::Keys;

impl Keys {
    pub(crate) fn stream(self, tenant: TenantId) -> Bytes {
        self.whole(Kind::Stream, 4).u32(tenant.0).done()
    }

    pub(crate) fn event(self, tenant: TenantId, offset: Offset) -> Bytes {
        self.whole(Kind::Event, 12).u32(tenant.0).u64(offset.0).done()
    }

    pub(crate) fn consumer(self, tenant: TenantId, name: &Text) -> Bytes {
        let key = self.whole(Kind::Consumer, 4 + name.len());
        key.u32(tenant.0).bytes(name.as_bytes()).done()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_streams_keep_their_bytes() {
        // Frozen: disks hold these.
        let (keys, tenant) = (Keys::new(ShardId(2)), TenantId(5));
        #[rustfmt::skip]
        let table = [
            (keys.stream(tenant),                "0002 ffff 3c 00000005"),
            (keys.event(tenant, Offset(6)),      "0002 ffff 3d 00000005 0000000000000006"),
            (keys.consumer(tenant, &"g".into()), "0002 ffff 3e 00000005 67"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }
}
