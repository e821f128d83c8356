//! Rows of queues: an item for each message in each queue, and messages that several of them have.

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes};
use moorline_core::{Grant, Message, QoS, SubscriptionIds};
use moorline_storage::StorageError;

use super::{VERSION, corrupt};
use crate::codec::{encode_message, message_len, read_message};

/// One message in one queue: the message itself, or the number of a row that several queues share.
///
/// `version u8 | flags u8 | [ids u8, u32 each] | message`, or `… | message id u64 | message bytes u32`, or nothing more when
/// released
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// How it is sent.
    pub(crate) grant: Grant,
    /// What it counts against its session's quota: the encoded message.
    pub(crate) bytes: u64,
    /// The shared row, if the message is not in the item.
    pub(crate) shared: Option<u64>,
    /// The client has the message: only its release is left, and no message.
    pub(crate) released: bool,
    /// Where the message begins in the row, if it is there.
    at: usize,
}

impl Item {
    const WHAT: &'static str = "queue item row";
    const HEADER_BYTES: usize = 2;
    const QOS_BITS: u8 = 0b11;
    const SHARED: u8 = 1 << 2;
    const RELEASED: u8 = 1 << 3;
    const RETAIN: u8 = 1 << 4;
    const WITH_IDS: u8 = 1 << 5;

    /// The row of an item with its message in it.
    pub(crate) fn inline(grant: &Grant, message: &Message) -> Bytes {
        let mut row = Self::begin(grant, 0, message_len(message));
        encode_message(&mut row, message);
        row.into()
    }

    /// The row of an item whose message, of so many encoded bytes, is in the shared row `message`.
    pub(crate) fn shared(grant: &Grant, message: u64, bytes: usize) -> Bytes {
        let mut row = Self::begin(grant, Self::SHARED, 12);
        row.put_u64(message);
        row.put_u32(u32::try_from(bytes).expect("a command is at most COMMAND_BYTES_MAX"));
        row.into()
    }

    fn begin(grant: &Grant, mut flags: u8, body_bytes: usize) -> Vec<u8> {
        let ids = grant.ids.as_slice();
        let mut row = Vec::with_capacity(Self::HEADER_BYTES + 1 + 4 * ids.len() + body_bytes);
        flags |= grant.qos as u8;
        for (on, bit) in [(grant.retain, Self::RETAIN), (!ids.is_empty(), Self::WITH_IDS)] {
            flags |= if on { bit } else { 0 };
        }
        row.put_u8(VERSION);
        row.put_u8(flags);
        if !ids.is_empty() {
            row.put_u8(u8::try_from(ids.len()).expect("SUBSCRIPTIONS_PER_SESSION_MAX fits"));
            ids.iter().for_each(|id| row.put_u32(*id));
        }
        row
    }

    /// The row of an item of QoS 2 whose message the client has.
    pub(crate) fn released() -> Bytes {
        Bytes::from_static(&[VERSION, QoS::ExactlyOnce as u8 | Self::RELEASED])
    }

    /// Reads all but the message.
    pub(crate) fn read(row: &[u8]) -> Result<Self, StorageError> {
        Self::parse(row).ok_or_else(|| corrupt(Self::WHAT, &"it is not what was written"))
    }

    fn parse(row: &[u8]) -> Option<Self> {
        let (&[version, flags], mut rest) = row.split_first_chunk()?;
        let known = Self::QOS_BITS | Self::SHARED | Self::RELEASED | Self::RETAIN | Self::WITH_IDS;
        if version != VERSION || flags & !known != 0 {
            return None;
        }
        let mut ids = SubscriptionIds::default();
        if flags & Self::WITH_IDS != 0 {
            let (&[count], after) = rest.split_first_chunk()?;
            let (encoded, after) = after.split_at_checked(4 * usize::from(count))?;
            let read = |id: &[u8; 4]| NonZeroU32::new(u32::from_be_bytes(*id));
            ids = encoded.as_chunks().0.iter().map(read).collect::<Option<_>>()?;
            rest = after;
        }
        let grant = Grant {
            qos: QoS::from_bits(flags & Self::QOS_BITS)?,
            retain: flags & Self::RETAIN != 0,
            ids,
        };
        let item =
            Self { grant, bytes: 0, shared: None, released: false, at: row.len() - rest.len() };
        match flags & (Self::SHARED | Self::RELEASED) {
            0 => Some(Self { bytes: rest.len() as u64, ..item }),
            Self::RELEASED if flags == QoS::ExactlyOnce as u8 | Self::RELEASED => {
                rest.is_empty().then_some(Self { released: true, ..item })
            }
            Self::SHARED => {
                let (message, rest) = rest.split_first_chunk()?;
                let bytes = u32::from_be_bytes(<[u8; 4]>::try_from(rest).ok()?);
                let shared = Some(u64::from_be_bytes(*message));
                Some(Self { bytes: u64::from(bytes), shared, ..item })
            }
            _ => None,
        }
    }

    /// The message of an inline item, read from `row`; shares the row's buffer.
    pub(crate) fn message(&self, row: &Bytes) -> Result<Message, StorageError> {
        read_message(row.slice(self.at..)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

/// A message that several queues have.
#[derive(Debug)]
pub(crate) struct SharedMessage;

impl SharedMessage {
    const WHAT: &'static str = "message row";

    pub(crate) fn to_bytes(message: &Message) -> Bytes {
        let mut row = Vec::with_capacity(1 + message_len(message));
        row.put_u8(VERSION);
        encode_message(&mut row, message);
        row.into()
    }

    pub(crate) fn from_bytes(row: &Bytes) -> Result<Message, StorageError> {
        if row.first() != Some(&VERSION) {
            return Err(corrupt(Self::WHAT, &"row version"));
        }
        read_message(row.slice(1..)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex;

    #[test]
    fn items_keep_their_bytes() {
        let message = Message {
            topic: "t".into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::from_static(b"xyz"),
        };
        let grant = |qos, retain, ids: &[u32]| Grant {
            qos,
            retain,
            ids: ids.iter().filter_map(|id| NonZeroU32::new(*id)).collect(),
        };
        let plain = grant(QoS::AtLeastOnce, false, &[]);
        let inline = Item::inline(&plain, &message);
        assert_eq!(hex(&inline), "0101010000000174000000007879 7a".replace(' ', ""));
        let read = Item::read(&inline).unwrap();
        let bytes = message_len(&message) as u64;
        let expected = Item { grant: plain, bytes, shared: None, released: false, at: 2 };
        assert_eq!((&read, read.message(&inline).unwrap()), (&expected, message.clone()));

        let wanted = grant(QoS::AtLeastOnce, true, &[7, 6]);
        let inline = Item::inline(&wanted, &message);
        let expected = "0131 02 00000006 00000007 01 00000001 74 00000000 78797a";
        assert_eq!(hex(&inline), expected.replace(' ', ""));
        let read = Item::read(&inline).unwrap();
        assert_eq!((&read.grant, read.bytes), (&wanted, bytes));
        assert_eq!(read.message(&inline).unwrap(), message);

        let plain = grant(QoS::ExactlyOnce, false, &[]);
        let shared = Item::shared(&plain, 5, 6);
        assert_eq!(hex(&shared), "0106 0000000000000005 00000006".replace(' ', ""));
        let read = Item::read(&shared).unwrap();
        let expected = Item { grant: plain, bytes: 6, shared: Some(5), released: false, at: 2 };
        assert_eq!(read, expected);
        for len in 0..shared.len() {
            assert!(Item::read(&shared[..len]).is_err());
        }
        for flags in [0x03, 0x08, 0x1a, 0x20, 0x40, 0xFF] {
            assert!(Item::read(&[1, flags]).is_err());
        }

        let row = SharedMessage::to_bytes(&message);
        assert_eq!(hex(&row), "0101 00000001 74 00000000 78797a".replace(' ', ""));
        assert_eq!(SharedMessage::from_bytes(&row).unwrap(), message);
        assert!(SharedMessage::from_bytes(&Bytes::from_static(&[2, 1])).is_err());
    }
}
