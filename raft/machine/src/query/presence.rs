//! Questions about presence: their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::{TenantId, Text};

use super::{Query, begin, put_row, read_row};
use crate::{
    codec::{Malformed, Reader, put_list, put_option, put_text},
    presence::PresenceRecord,
};

/// The kind of question and answer.
pub(super) const KIND: u8 = 74;

pub(super) fn put_query(tenant: TenantId, devices: &[Text]) -> BytesMut {
    let mut out = begin(KIND);
    out.put_u32(tenant.0);
    put_list(&mut out, devices, put_text);
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_query(reader: &mut Reader) -> Result<Query, Malformed> {
    let tenant = reader.tenant()?;
    Ok(Query::Presence { tenant, devices: reader.list(4, Reader::text)? })
}

pub(super) fn put_found(found: &[Option<PresenceRecord>]) -> BytesMut {
    let mut out = begin(KIND);
    put_list(&mut out, found, |out, record| put_option(out, record.as_ref(), put_row));
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_found(reader: &mut Reader) -> Result<Vec<Option<PresenceRecord>>, Malformed> {
    reader.list(1, |reader| reader.option(read_row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Found;

    #[test]
    fn questions_about_presence_and_their_answers_come_through() {
        let query = Query::Presence { tenant: TenantId(3), devices: vec!["a".into(), "b".into()] };
        let found = Found::Presence(vec![Some(PresenceRecord::new(4)), None]);
        let (asked, told) = (query.encode(), found.encode());
        assert_eq!(Query::decode(asked.clone()).unwrap(), query);
        assert_eq!(Found::decode(told.clone()).unwrap(), found);
        for cut in 0..asked.len() {
            assert!(Query::decode(asked.slice(..cut)).is_err(), "{cut}");
        }
        for cut in 0..told.len() {
            assert!(Found::decode(told.slice(..cut)).is_err(), "{cut}");
        }
    }
}
