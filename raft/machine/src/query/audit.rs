//! Questions about the audit: their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::TenantId;

use super::{Query, begin, put_row, read_row};
use crate::{
    audit::AuditPage,
    codec::{Malformed, Reader, put_list, put_option},
};

/// The kind of question and answer.
pub(super) const KIND: u8 = 75;
/// The least bytes of a record: lets a count be checked before anything is allocated for it.
const RECORD_BYTES_MIN: usize = 40;

pub(super) fn put_query(tenant: Option<TenantId>, after: u64, items_max: u16) -> BytesMut {
    let mut out = begin(KIND);
    put_option(&mut out, tenant, |out, tenant| out.put_u32(tenant.0));
    out.put_u64(after);
    out.put_u16(items_max);
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_query(reader: &mut Reader) -> Result<Query, Malformed> {
    let tenant = reader.option(Reader::tenant)?;
    Ok(Query::Audit { tenant, after: reader.u64()?, items_max: reader.u16()? })
}

pub(super) fn put_page(page: &AuditPage) -> BytesMut {
    let mut out = begin(KIND);
    put_list(&mut out, &page.records, |out, (number, record)| {
        out.put_u64(*number);
        put_row(out, record);
    });
    out.put_u64(page.upto);
    out.put_u8(u8::from(page.more));
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_page(reader: &mut Reader) -> Result<AuditPage, Malformed> {
    Ok(AuditPage {
        records: reader.list(RECORD_BYTES_MIN, |reader| Ok((reader.u64()?, read_row(reader)?)))?,
        upto: reader.u64()?,
        more: reader.bool()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Found;

    #[test]
    fn questions_about_the_audit_come_through() {
        for tenant in [None, Some(TenantId(3))] {
            let query = Query::Audit { tenant, after: 4, items_max: 5 };
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{cut}");
            }
        }
        let found = Found::Audit(AuditPage { records: Vec::new(), upto: 3, more: true });
        assert_eq!(Found::decode(found.encode()).unwrap(), found);
    }
}
