//! Where the rows of presence are: in the device's bucket. Those that are connected or active apart from those that are
//! offline, so that a shard opens without reading all of them.

use bytes::Bytes;
use moorline_core::{TenantId, Text, shard::bucket_of};
use moorline_storage::key::Kind;

use super::Keys;

impl Keys {
    pub(crate) fn present(self, tenant: TenantId, device: &Text) -> Bytes {
        self.presence(Kind::Present, tenant, device)
    }

    pub(crate) fn offline(self, tenant: TenantId, device: &Text) -> Bytes {
        self.presence(Kind::Offline, tenant, device)
    }

    fn presence(self, kind: Kind, tenant: TenantId, device: &Text) -> Bytes {
        let key = self.key(bucket_of(tenant, device.as_bytes()), kind, 4 + device.len());
        key.u32(tenant.0).bytes(device.as_bytes()).done()
    }

    pub(crate) fn mail_events(self, tenant: TenantId) -> Bytes {
        self.whole(Kind::MailEvents, 4).u32(tenant.0).done()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_presence_keep_their_bytes() {
        // Frozen: disks hold these.
        let (keys, tenant) = (Keys::new(ShardId(2)), TenantId(5));
        #[rustfmt::skip]
        let table = [
            (keys.present(tenant, &"d".into()), "0002 01e5 4a 00000005 64"),
            (keys.offline(tenant, &"d".into()), "0002 01e5 4b 00000005 64"),
            (keys.mail_events(tenant),          "0002 ffff 4c 00000005"),
        ];
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
        }
    }
}
