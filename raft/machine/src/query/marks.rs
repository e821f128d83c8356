//! The question whether a device's values have changed: its bytes.

use bytes::{BufMut, BytesMut};

use super::{Query, begin};
use crate::{
    codec::{Malformed, Reader, put_option, put_text},
    values::Marks,
};

/// The kind of question and answer.
pub(super) const KIND: u8 = 94;

#[expect(clippy::wildcard_enum_match_arm, reason = "the match that calls this names every query")]
pub(super) fn put_query(query: &Query) -> BytesMut {
    match query {
        Query::Marks { tenant, device, known, wait_ms } => {
            let mut out = begin(KIND);
            out.put_u32(tenant.0);
            put_text(&mut out, device);
            put_option(&mut out, *known, put_marks);
            out.put_u32(*wait_ms);
            out
        }
        other => unreachable!("encode writes {other:?} itself"),
    }
}

/// Reads what follows [`KIND`].
pub(super) fn read_query(reader: &mut Reader) -> Result<Query, Malformed> {
    Ok(Query::Marks {
        tenant: reader.tenant()?,
        device: reader.text()?,
        known: reader.option(read_marks)?,
        wait_ms: reader.u32()?,
    })
}

pub(super) fn put_found(found: Option<Marks>) -> BytesMut {
    let mut out = begin(KIND);
    put_option(&mut out, found, put_marks);
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_found(reader: &mut Reader) -> Result<Option<Marks>, Malformed> {
    reader.option(read_marks)
}

fn put_marks(out: &mut BytesMut, Marks { born, attributes, latest }: Marks) {
    out.put_u64(born);
    attributes.into_iter().for_each(|mark| out.put_u64(mark));
    out.put_u64(latest);
}

fn read_marks(reader: &mut Reader) -> Result<Marks, Malformed> {
    Ok(Marks {
        born: reader.u64()?,
        attributes: [reader.u64()?, reader.u64()?, reader.u64()?],
        latest: reader.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use moorline_core::TenantId;

    use super::*;
    use crate::query::Found;

    #[test]
    fn questions_and_answers_come_through() {
        let marks = Marks { born: 1, attributes: [2, 3, 4], latest: 5 };
        for known in [None, Some(marks)] {
            let (tenant, device) = (TenantId(3), "pump".into());
            let query = Query::Marks { tenant, device, known, wait_ms: 7 };
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
            let found = Found::Marks(known);
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
