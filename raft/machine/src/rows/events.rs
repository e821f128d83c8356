//! Rows of streams: how far a stream goes, its events, and who has read them.

use bytes::{BufMut, BytesMut};
use moorline_core::{Offset, Text, UnixMillis};

use super::Row;
use crate::{
    codec::{Malformed, Reader, put_event, put_option, put_text, read_event},
    events::{NewEvent, Retention},
};

/// A stream: which of its events are kept. Written once for each batch that appends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamRow {
    /// The first event that is kept; equal to `tail` when none is.
    pub(crate) head: Offset,
    /// The offset that the next event gets.
    pub(crate) tail: Offset,
    /// Bytes of the rows between them.
    pub(crate) bytes: u64,
    /// The time of the first event that is kept; 0 when none is.
    pub(crate) oldest: UnixMillis,
    /// As the last append brought it.
    pub(crate) retention: Retention,
}

impl Row for StreamRow {
    const WHAT: &'static str = "stream row";
    const BYTES: usize = 45;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.head.0);
        out.put_u64(self.tail.0);
        out.put_u64(self.bytes);
        out.put_u64(self.oldest.0);
        out.put_u32(self.retention.keep_s);
        out.put_u64(self.retention.bytes_max);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            head: reader.offset()?,
            tail: reader.offset()?,
            bytes: reader.u64()?,
            oldest: reader.millis()?,
            retention: Retention { keep_s: reader.u32()?, bytes_max: reader.u64()? },
        })
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) at: UnixMillis,
    pub(crate) device: Text,
    pub(crate) born: Option<u64>,
    pub(crate) event: NewEvent,
}

impl Row for EventRow {
    const WHAT: &'static str = "event row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.at.0);
        put_text(out, &self.device);
        put_option(out, self.born, BufMut::put_u64);
        put_event(out, &self.event);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            at: reader.millis()?,
            device: reader.text()?,
            born: reader.option(Reader::u64)?,
            event: read_event(reader)?,
        })
    }
}

/// A consumer group: how far it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConsumerRow {
    /// Up to and including this one.
    pub(crate) offset: Offset,
    /// When it said so, in log time.
    pub(crate) at: UnixMillis,
}

impl Row for ConsumerRow {
    const WHAT: &'static str = "consumer row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.offset.0);
        out.put_u64(self.at.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { offset: reader.offset()?, at: reader.millis()? })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::golden::check, *};
    use crate::events::EventKind;

    #[test]
    fn rows_of_streams_keep_their_bytes() {
        // Frozen: disks hold these.
        let retention = Retention { keep_s: 5, bytes_max: 6 };
        let (head, tail) = (Offset(1), Offset(2));
        check(
            &StreamRow { head, tail, bytes: 3, oldest: UnixMillis(4), retention },
            "01 0000000000000001 0000000000000002 0000000000000003 0000000000000004 \
             00000005 0000000000000006",
        );
        check(
            &ConsumerRow { offset: tail, at: UnixMillis(4) },
            "01 0000000000000002 0000000000000004",
        );
        let event = NewEvent {
            kind: EventKind::State,
            channel: "c".into(),
            content_type: 1,
            body: Bytes::from_static(b"{}"),
            by: 2,
        };
        let row = EventRow { at: UnixMillis(4), device: "d".into(), born: None, event };
        let body = "06 00000001 63 01 02 00000002 7b7d";
        check(&row, &format!("01 0000000000000004 00000001 64 00 {body}"));
        let born = EventRow { born: Some(7), ..row };
        check(&born, &format!("01 0000000000000004 00000001 64 01 0000000000000007 {body}"));
    }
}
