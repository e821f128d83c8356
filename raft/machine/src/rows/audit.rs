//! Rows of the audit.

use bytes::{BufMut, BytesMut};

use super::Row;
use crate::{
    audit::{AuditAction, AuditRecord},
    codec::{Malformed, Reader, put_audited_by, put_option, put_text, read_audited_by},
};

/// Which records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditEndRow {
    /// The number of the oldest that is kept; equal to `tail` when none is.
    pub(crate) head: u64,
    /// The number that the next one gets.
    pub(crate) tail: u64,
}

impl Row for AuditEndRow {
    const WHAT: &'static str = "end of the audit";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.head);
        out.put_u64(self.tail);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { head: reader.u64()?, tail: reader.u64()? })
    }
}

impl Row for AuditRecord {
    const WHAT: &'static str = "audit record";
    const BYTES: usize = 192;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.at.0);
        put_audited_by(out, &self.by);
        out.put_u8(self.action as u8);
        out.put_u32(self.tenant.0);
        put_text(out, &self.object);
        put_option(out, self.mail, BufMut::put_u128);
        put_option(out, self.before, BufMut::put_u64);
        put_option(out, self.after, BufMut::put_u64);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            at: reader.millis()?,
            by: read_audited_by(reader)?,
            action: AuditAction::from_number(reader.u8()?).ok_or(reader.malformed())?,
            tenant: reader.tenant()?,
            object: reader.text()?,
            mail: reader.option(Reader::u128)?,
            before: reader.option(Reader::u64)?,
            after: reader.option(Reader::u64)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::{NodeId, TenantId, UnixMillis};

    use super::{super::golden::check, *};
    use crate::audit::AuditedBy;

    #[test]
    fn rows_of_the_audit_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&AuditEndRow { head: 1, tail: 2 }, "01 0000000000000001 0000000000000002");
        let by = AuditedBy {
            actor: "a".into(),
            request: "r".into(),
            request_id: 3,
            address: "x".into(),
            node: NodeId(4),
        };
        let record = AuditRecord {
            at: UnixMillis(1),
            by,
            action: AuditAction::PutDevice,
            tenant: TenantId(2),
            object: "d".into(),
            mail: None,
            before: None,
            after: Some(5),
        };
        check(
            &record,
            "01 0000000000000001 00000001 61 00000001 72 00000000000000000000000000000003 \
             00000001 78 0000000000000004 03 00000002 00000001 64 00 00 01 0000000000000005",
        );
    }
}
