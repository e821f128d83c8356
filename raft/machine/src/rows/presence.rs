//! Rows of presence, and what becomes of mail as events.

use bytes::{BufMut, BytesMut};
use moorline_core::{Incarnation, NodeId};

use super::Row;
use crate::{
    codec::{Malformed, Reader, put_list, put_option, put_retention, put_time, read_retention},
    events::Retention,
    presence::{PresenceRecord, PresenceState},
};

/// The bytes of a link and of a used credential.
const PAIR_BYTES: usize = 16;

impl Row for PresenceRecord {
    const WHAT: &'static str = "presence row";
    const BYTES: usize = 128;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.born);
        out.put_u8(self.state as u8);
        out.put_u64(self.since.0);
        put_list(out, &self.links, |out, (node, incarnation)| {
            out.put_u64(node.0);
            out.put_u64(incarnation.0);
        });
        out.put_u64(self.node.0);
        out.put_u8(self.by);
        put_option(out, self.connected, put_time);
        put_option(out, self.disconnected, put_time);
        out.put_u64(self.heard.0);
        out.put_u32(self.offline_after_s);
        put_option(out, self.events, put_retention);
        put_list(out, &self.used, |out, (credential, at)| {
            out.put_u64(*credential);
            out.put_u64(at.0);
        });
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            born: reader.u64()?,
            state: PresenceState::from_number(reader.u8()?).ok_or(reader.malformed())?,
            since: reader.millis()?,
            links: reader.list(PAIR_BYTES, |reader| {
                Ok((NodeId(reader.u64()?), Incarnation(reader.u64()?)))
            })?,
            node: NodeId(reader.u64()?),
            by: reader.u8()?,
            connected: reader.option(Reader::millis)?,
            disconnected: reader.option(Reader::millis)?,
            heard: reader.millis()?,
            offline_after_s: reader.u32()?,
            events: reader.option(read_retention)?,
            used: reader.list(PAIR_BYTES, |reader| Ok((reader.u64()?, reader.millis()?)))?,
        })
    }
}

/// How the events of a tenant's mail are kept; without it there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailEventsRow(pub(crate) Option<Retention>);

impl Row for MailEventsRow {
    const WHAT: &'static str = "row of mail events";
    const BYTES: usize = 14;

    fn write(&self, out: &mut BytesMut) {
        put_option(out, self.0, put_retention);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self(reader.option(read_retention)?))
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::UnixMillis;

    use super::{super::golden::check, *};

    #[test]
    fn rows_of_presence_keep_their_bytes() {
        // Frozen: disks hold these.
        let retention = Some(Retention { keep_s: 1, bytes_max: 2 });
        let record = PresenceRecord {
            state: PresenceState::Connected,
            since: UnixMillis(2),
            links: vec![(NodeId(3), Incarnation(4))],
            node: NodeId(5),
            by: 6,
            connected: Some(UnixMillis(7)),
            heard: UnixMillis(8),
            offline_after_s: 9,
            events: retention,
            used: vec![(10, UnixMillis(11))],
            ..PresenceRecord::new(1)
        };
        check(
            &record,
            "01 0000000000000001 01 0000000000000002 00000001 0000000000000003 0000000000000004 \
             0000000000000005 06 01 0000000000000007 00 0000000000000008 00000009 \
             01 00000001 0000000000000002 00000001 000000000000000a 000000000000000b",
        );
        check(&MailEventsRow(retention), "01 01 00000001 0000000000000002");
        check(&MailEventsRow(None), "01 00");
    }
}
