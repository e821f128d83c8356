//! Questions about calls: their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::{CallState, TenantId, Text};

use super::{begin, put_bytes, read_bytes};
use crate::{
    calls::{Call, CallsPage},
    codec::{
        Malformed, Reader, put_list, put_option, put_text, put_time, read_call_number,
        read_call_state,
    },
    shard::{CallsFound, CallsQuery},
};

/// The kinds of questions and answers.
pub(super) const WAITING: u8 = 100;
pub(super) const ONE: u8 = 101;
pub(super) const ALL: u8 = 102;
/// The least bytes of a call: lets a count be checked before anything is allocated for it.
const CALL_BYTES_MIN: usize = 60;

pub(super) fn put_query(query: &CallsQuery) -> BytesMut {
    let named = |kind, tenant: &TenantId, device: &Text| {
        let mut out = begin(kind);
        out.put_u32(tenant.0);
        put_text(&mut out, device);
        out
    };
    match query {
        CallsQuery::Waiting { tenant, device, after, calls_max, bytes_max } => {
            let mut out = named(WAITING, tenant, device);
            out.put_i32(*after);
            out.put_u16(*calls_max);
            out.put_u32(*bytes_max);
            out
        }
        CallsQuery::One { tenant, device, id } => {
            let mut out = named(ONE, tenant, device);
            out.put_u128(*id);
            out
        }
        CallsQuery::All { tenant, device, states, before, calls_max } => {
            let mut out = named(ALL, tenant, device);
            put_list(&mut out, states, |out, state: &CallState| out.put_u8(*state as u8));
            out.put_i32(*before);
            out.put_u16(*calls_max);
            out
        }
    }
}

/// Reads what follows the kinds from [`WAITING`] to [`ALL`].
pub(super) fn read_query(kind: u8, reader: &mut Reader) -> Result<CallsQuery, Malformed> {
    let (tenant, device) = (reader.tenant()?, reader.text()?);
    let place = |reader: &mut Reader| reader.u32().map(u32::cast_signed);
    Ok(match kind {
        WAITING => CallsQuery::Waiting {
            tenant,
            device,
            after: place(reader)?,
            calls_max: reader.u16()?,
            bytes_max: reader.u32()?,
        },
        ONE => CallsQuery::One { tenant, device, id: reader.u128()? },
        _ => CallsQuery::All {
            tenant,
            device,
            states: reader.list(1, read_call_state)?,
            before: place(reader)?,
            calls_max: reader.u16()?,
        },
    })
}

pub(super) fn put_found(found: &CallsFound) -> BytesMut {
    match found {
        CallsFound::One(call) => {
            let mut out = begin(ONE);
            put_option(&mut out, call.as_ref(), put_call);
            out
        }
        CallsFound::Page(page) => {
            let mut out = begin(ALL);
            put_option(&mut out, page.as_ref(), |out, CallsPage { born, calls, more }| {
                out.put_u64(*born);
                put_list(out, calls, put_call);
                out.put_u8(u8::from(*more));
            });
            out
        }
    }
}

/// Reads what follows [`ONE`] or [`ALL`].
pub(super) fn read_found(kind: u8, reader: &mut Reader) -> Result<CallsFound, Malformed> {
    if kind == ONE {
        return Ok(CallsFound::One(reader.option(read_call)?));
    }
    let page = reader.option(|reader| {
        let (born, calls) = (reader.u64()?, reader.list(CALL_BYTES_MIN, read_call)?);
        Ok(CallsPage { born, calls, more: reader.bool()? })
    });
    Ok(CallsFound::Page(page?))
}

fn put_call(out: &mut BytesMut, call: &Call) {
    out.put_u128(call.id);
    out.put_i32(call.number);
    put_text(out, &call.method);
    put_bytes(out, &call.params);
    out.put_u8(u8::from(call.one_way));
    put_bytes(out, &call.info);
    out.put_u64(call.created.0);
    out.put_u64(call.until.0);
    out.put_u8(call.state as u8);
    out.put_u32(call.resends);
    out.put_u32(call.resends_max);
    put_option(out, call.ended, put_time);
    put_option(out, call.answer.as_ref(), put_bytes);
}

fn read_call(reader: &mut Reader) -> Result<Call, Malformed> {
    Ok(Call {
        id: reader.u128()?,
        number: read_call_number(reader)?,
        method: reader.text()?,
        params: read_bytes(reader)?,
        one_way: reader.bool()?,
        info: read_bytes(reader)?,
        created: reader.millis()?,
        until: reader.millis()?,
        state: read_call_state(reader)?,
        resends: reader.u32()?,
        resends_max: reader.u32()?,
        ended: reader.option(Reader::millis)?,
        answer: reader.option(read_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::UnixMillis;

    use super::*;
    use crate::query::{Found, Query};

    fn call(ended: Option<UnixMillis>, answer: Option<Bytes>) -> Call {
        Call {
            id: 1 << 100,
            number: i32::MAX,
            method: "reboot".into(),
            params: Bytes::from_static(b"[]"),
            one_way: true,
            info: Bytes::from_static(b"i"),
            created: UnixMillis(1),
            until: UnixMillis(2),
            state: CallState::Failed,
            resends: 3,
            resends_max: 4,
            ended,
            answer,
        }
    }

    #[test]
    fn questions_about_calls_and_their_answers_come_through() {
        let (tenant, device) = (TenantId(3), || Text::from("pump"));
        let states = vec![CallState::Queued, CallState::Deleted];
        let (calls_max, bytes_max) = (5, 6);
        for query in [
            CallsQuery::Waiting { tenant, device: device(), after: 7, calls_max, bytes_max },
            CallsQuery::One { tenant, device: device(), id: 1 << 100 },
            CallsQuery::All { tenant, device: device(), states, before: 7, calls_max },
        ] {
            let query = Query::Calls(query);
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
        }
        let calls = vec![call(None, None), call(Some(UnixMillis(5)), Some(Bytes::new()))];
        for found in [
            CallsFound::One(None),
            CallsFound::One(Some(call(None, Some(Bytes::from_static(b"{}"))))),
            CallsFound::Page(None),
            CallsFound::Page(Some(CallsPage { born: 9, calls, more: true })),
        ] {
            let found = Found::Calls(found);
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
