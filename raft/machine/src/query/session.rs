//! Questions about a client's session: their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::{TenantId, Text};

use super::{Query, begin};
use crate::{
    codec::{Malformed, Reader, put_option, put_text},
    shard::SessionInfo,
};

/// The kind of question and answer.
pub(super) const KIND: u8 = 82;

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStanding {
    /// Whether a connection has it.
    pub held: bool,
    /// Seconds it outlives that; `u32::MAX` never ends.
    pub expiry_s: u32,
}

impl From<SessionInfo<'_>> for SessionStanding {
    fn from(session: SessionInfo<'_>) -> Self {
        Self { held: session.holder.is_some(), expiry_s: session.expiry_s }
    }
}

pub(super) fn put_query(tenant: TenantId, client: &Text) -> BytesMut {
    let mut out = begin(KIND);
    out.put_u32(tenant.0);
    put_text(&mut out, client);
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_query(reader: &mut Reader) -> Result<Query, Malformed> {
    Ok(Query::Session { tenant: reader.tenant()?, client: reader.text()? })
}

pub(super) fn put_found(found: Option<SessionStanding>) -> BytesMut {
    let mut out = begin(KIND);
    put_option(&mut out, found, |out, SessionStanding { held, expiry_s }| {
        out.put_u8(u8::from(held));
        out.put_u32(expiry_s);
    });
    out
}

/// Reads what follows [`KIND`].
pub(super) fn read_found(reader: &mut Reader) -> Result<Option<SessionStanding>, Malformed> {
    reader.option(|reader| Ok(SessionStanding { held: reader.bool()?, expiry_s: reader.u32()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Found;

    #[test]
    fn questions_about_sessions_and_their_answers_come_through() {
        let query = Query::Session { tenant: TenantId(3), client: "d:abc123:pump:p1".into() };
        let asked = query.encode();
        assert_eq!(Query::decode(asked.clone()).unwrap(), query);
        for cut in 0..asked.len() {
            assert!(Query::decode(asked.slice(..cut)).is_err(), "{cut}");
        }
        for standing in [None, Some(SessionStanding { held: true, expiry_s: 60 })] {
            let found = Found::Session(standing);
            let told = found.encode();
            assert_eq!(Found::decode(told.clone()).unwrap(), found);
            for cut in 0..told.len() {
                assert!(Found::decode(told.slice(..cut)).is_err(), "{cut}");
            }
        }
    }
}
