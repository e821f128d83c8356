//! Rows of what is kept for later: wills and retained messages, each of which ends in its message, and who awaits those.

use bytes::{BufMut, BytesMut};
use moorline_core::{Message, TenantId, UnixMillis, Will};

use super::Row;
use crate::codec::{Malformed, Reader, encode_message, read_message};

/// What a session leaves behind: `version u8 | delay u32 | message`, its expiry relative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WillRow(pub(crate) Will);

impl Row for WillRow {
    const WHAT: &'static str = "will row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.0.delay_s);
        encode_message(out, &self.0.message);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let delay_s = reader.u32()?;
        Ok(Self(Will { delay_s, message: read_message(reader.take_rest())? }))
    }
}

/// The retained message of a topic: `version u8 | message`, its expiry in log time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetainedRow(pub(crate) Message);

impl Row for RetainedRow {
    const WHAT: &'static str = "retained row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        encode_message(out, &self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        read_message(reader.take_rest()).map(Self)
    }
}

/// A will that is to be published: `version u8 | tenant u32 | message`, its expiry relative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueWillRow {
    pub(crate) tenant: TenantId,
    pub(crate) message: Message,
}

impl Row for DueWillRow {
    const WHAT: &'static str = "due will row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(self.tenant.0);
        encode_message(out, &self.message);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { tenant: reader.tenant()?, message: read_message(reader.take_rest())? })
    }
}

/// That a session awaits retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwaitedRow {
    pub(crate) until: UnixMillis,
    /// The version of the command since which topics are noted without a gap.
    pub(crate) began: u64,
}

impl Row for AwaitedRow {
    const WHAT: &'static str = "awaited row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.until.0);
        out.put_u64(self.began);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { until: reader.millis()?, began: reader.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::QoS;

    use super::*;
    use crate::codec::hex;

    #[test]
    fn rows_of_wills_keep_their_bytes() {
        let message = Message {
            topic: "t".into(),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: Bytes::from_static(b"pp"),
            expires_at: Some(UnixMillis(9)),
            payload: Bytes::from_static(b"xyz"),
        };
        let body = "0e 00000001 74 00000002 7070 0000000000000009 78797a";
        let will = WillRow(Will { message: message.clone(), delay_s: 5 });
        assert_eq!(hex(&will.to_bytes()), format!("01 00000005 {body}").replace(' ', ""));
        assert_eq!(WillRow::from_bytes(&will.to_bytes()).unwrap(), will);
        let retained = RetainedRow(message.clone());
        assert_eq!(hex(&retained.to_bytes()), format!("01 {body}").replace(' ', ""));
        assert_eq!(RetainedRow::from_bytes(&retained.to_bytes()).unwrap(), retained);
        let due = DueWillRow { tenant: TenantId(7), message };
        assert_eq!(hex(&due.to_bytes()), format!("01 00000007 {body}").replace(' ', ""));
        assert_eq!(DueWillRow::from_bytes(&due.to_bytes()).unwrap(), due);
        assert!(DueWillRow::from_bytes(&Bytes::from_static(&[2, 0, 0, 0, 7])).is_err());
        assert!(WillRow::from_bytes(&due.to_bytes().slice(..9)).is_err());
    }
}
