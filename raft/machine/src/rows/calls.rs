//! Rows of calls: the last number of a device, and of each call its card, what was asked and what was answered.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{CallState, TenantId, Text, UnixMillis};

use super::Row;
use crate::codec::{
    Malformed, Reader, put_bytes, put_option, put_text, put_time, read_bytes, read_call_state,
};

/// A device that was ever called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallLineRow {
    pub(crate) tenant: TenantId,
    pub(crate) device: Text,
    /// The number that the last call got.
    pub(crate) last: i32,
}

impl Row for CallLineRow {
    const WHAT: &'static str = "call line row";
    const BYTES: usize = 48;

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.tenant.0);
        out.put_i32(self.last);
        put_text(out, &self.device);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let (tenant, last) = (reader.tenant()?, reader.u32()?.cast_signed());
        Ok(Self { tenant, last, device: reader.text()? })
    }
}

/// What is known of a call but what was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallCardRow {
    pub(crate) id: u128,
    pub(crate) state: CallState,
    pub(crate) one_way: bool,
    /// Whether there is a row of its answer.
    pub(crate) answered: bool,
    pub(crate) created: UnixMillis,
    pub(crate) until: UnixMillis,
    pub(crate) keep_ms: u64,
    pub(crate) resends: u32,
    pub(crate) resends_max: u32,
    pub(crate) ended: Option<UnixMillis>,
    /// Of what was asked and answered.
    pub(crate) bytes: u32,
}

impl CallCardRow {
    /// When it ends by itself or, once it has ended, is forgotten.
    pub(crate) fn due(&self) -> UnixMillis {
        match self.ended {
            Some(ended) => UnixMillis(ended.0.saturating_add(self.keep_ms)),
            None => self.until,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.state.is_final(self.one_way)
    }
}

impl Row for CallCardRow {
    const WHAT: &'static str = "call card row";
    const BYTES: usize = 72;

    fn write(&self, out: &mut BytesMut) {
        out.put_u128(self.id);
        out.put_u8(self.state as u8);
        out.put_u8(u8::from(self.one_way));
        out.put_u8(u8::from(self.answered));
        out.put_u64(self.created.0);
        out.put_u64(self.until.0);
        out.put_u64(self.keep_ms);
        out.put_u32(self.resends);
        out.put_u32(self.resends_max);
        put_option(out, self.ended, put_time);
        out.put_u32(self.bytes);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.u128()?,
            state: read_call_state(reader)?,
            one_way: reader.bool()?,
            answered: reader.bool()?,
            created: reader.millis()?,
            until: reader.millis()?,
            keep_ms: reader.u64()?,
            resends: reader.u32()?,
            resends_max: reader.u32()?,
            ended: reader.option(Reader::millis)?,
            bytes: reader.u32()?,
        })
    }
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallAskedRow {
    pub(crate) method: Text,
    pub(crate) params: Bytes,
    pub(crate) info: Bytes,
}

impl Row for CallAskedRow {
    const WHAT: &'static str = "call asked row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.method);
        put_bytes(out, &self.params);
        put_bytes(out, &self.info);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let (method, params) = (reader.text()?, read_bytes(reader)?);
        Ok(Self { method, params, info: read_bytes(reader)? })
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallAnsweredRow(pub(crate) Bytes);

impl Row for CallAnsweredRow {
    const WHAT: &'static str = "call answered row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self(reader.take_rest()))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::golden::{check, check_open},
        *,
    };

    #[test]
    fn rows_of_calls_keep_their_bytes() {
        // Frozen: disks hold these.
        check(
            &CallLineRow { tenant: TenantId(7), device: "d".into(), last: i32::MAX },
            "01 00000007 7fffffff 00000001 64",
        );
        let card = CallCardRow {
            id: 1,
            state: CallState::Sent,
            one_way: true,
            answered: false,
            created: UnixMillis(2),
            until: UnixMillis(3),
            keep_ms: 4,
            resends: 5,
            resends_max: 6,
            ended: None,
            bytes: 7,
        };
        let front = "01 00000000000000000000000000000001";
        let rest = "0000000000000002 0000000000000003 0000000000000004 00000005 00000006";
        check(&card, &format!("{front} 02 01 00 {rest} 00 00000007"));
        let (state, ended) = (CallState::Successful, Some(UnixMillis(8)));
        let ended = CallCardRow { state, one_way: false, answered: true, ended, ..card };
        check(&ended, &format!("{front} 04 00 01 {rest} 01 0000000000000008 00000007"));
        let (params, info) = (Bytes::from_static(b"[]"), Bytes::from_static(b"i"));
        check(
            &CallAskedRow { method: "m".into(), params, info },
            "01 00000001 6d 00000002 5b5d 00000001 69",
        );
        check_open(&CallAnsweredRow(Bytes::from_static(b"{}")), 2, "01 7b7d");
        check_open(&CallAnsweredRow(Bytes::new()), 0, "01");
    }

    #[test]
    fn a_call_is_due_at_its_deadline_or_when_it_was_kept_long_enough() {
        let bytes = CallCardRow {
            id: 1,
            state: CallState::Delivered,
            one_way: false,
            answered: false,
            created: UnixMillis(2),
            until: UnixMillis(30),
            keep_ms: 4,
            resends: 0,
            resends_max: 0,
            ended: None,
            bytes: 0,
        };
        assert!(bytes.is_open() && bytes.due() == UnixMillis(30));
        let ended = CallCardRow { ended: Some(UnixMillis(10)), one_way: true, ..bytes.clone() };
        assert!(!ended.is_open() && ended.due() == UnixMillis(14));
        let for_ever = CallCardRow { ended: Some(UnixMillis(10)), keep_ms: u64::MAX, ..bytes };
        assert_eq!(for_ever.due(), UnixMillis(u64::MAX));
    }
}
