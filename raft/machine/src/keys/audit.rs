//! Where the rows of the audit are: in no bucket, also in the meta group.

use bytes::Bytes;
use moorline_storage::key::Kind;

use super::Keys;

impl Keys {
    pub(crate) fn audit_end(self) -> Bytes {
        self.whole(Kind::AuditEnd, 0).done()
    }

    pub(crate) fn audit_record(self, number: u64) -> Bytes {
        self.whole(Kind::AuditRecord, 8).u64(number).done()
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_of_the_audit_keep_their_bytes() {
        // Frozen: disks hold these.
        let keys = Keys::new(ShardId(2));
        assert_eq!(hex(&keys.audit_end()), "0002ffff4d");
        assert_eq!(hex(&keys.audit_record(3)), "0002ffff4e0000000000000003");
    }
}
