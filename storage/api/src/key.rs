//! Where a row lies: `shard u16 | bucket u16 | kind u8 | suffix`, all big-endian.
//!
//! Rows of one bucket lie together, and in it rows of one kind, so both can be scanned and a bucket can move to another
//! shard later. What belongs to no bucket lies in [`WHOLE`]. Suffixes are made by the layer whose rows they are, with
//! [`Key`]; the kinds are all listed here, so that no two layers take the same number.
//!
//! # Invariants
//!
//! - **Kinds are never renumbered or reused.** Disks hold them. Frozen by this file's golden test.
//! - **No kind is 255**, so a kind's range ends at the next kind. Checked by the same test.

use bytes::{BufMut, Bytes};
use moorline_core::ShardId;

use crate::StorageError;

/// The bucket of what belongs to the whole shard.
pub const WHOLE: u16 = u16::MAX;
/// Bytes of a key before its suffix.
pub const PREFIX_BYTES: usize = 5;
/// Bytes of a key that name its shard and bucket: what stores may hash to skip files.
pub const BUCKET_PREFIX_BYTES: usize = 4;

/// What a row is about. Frozen: disks hold these numbers; those of removed kinds stay taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// How far the log is applied, and who votes. Whole shard; written by `raft/group`.
    Applied = 1,
    /// The log's time. Whole shard.
    LogTime = 2,
    /// The number the next session of the bucket gets.
    NextSession = 3,
    /// `tenant u32 | client`: a session.
    Session = 4,
    /// `session u64 | offset u64`: one message in one queue.
    Item = 5,
    /// `session u64 | filter`.
    Subscription = 6,
    /// `tenant u32 | filter`: how many sessions of the shard hold it. Whole shard.
    Filter = 7,
    /// `message u64`: a message that several queues share. Whole shard.
    Message = 8,
    /// `message u64`: how many queues still have it. Whole shard.
    MessageRefs = 9,
    /// `producer u64`: how far it has come. Whole shard.
    Producer = 10,
    /// `producer u64 | first sequence u64`: answers it may ask for again. Whole shard.
    ProducerAnswers = 11,
    /// `due ms u64 | what`.
    Deadline = 12,
    /// `session u64`: tenant and client of a session.
    SessionById = 13,
    /// `session u64`: what of a session changes with every message.
    Counters = 14,
    /// `session u64`: what is left to remove of a session that is gone.
    Garbage = 15,
    /// `session u64 | packet id u16`: a publish of QoS 2 that this session's client has not released yet.
    Inbound = 16,
    /// `bucket u16 | session u64`: which publishes of QoS 2 of a session, of any shard, came here. Whole shard.
    Origin = 17,
    /// `session u64`: the will of a session.
    Will = 18,
    /// `number u64`: a will that is due, until it is published. Whole shard.
    DueWill = 19,
    /// `tenant u32 | topic`: the retained message of a topic.
    Retained = 20,
    /// `session u64 | topic`: that a message with RETAIN=1 was queued while retained copies were awaited; without a topic:
    /// since and until when they are.
    Awaited = 21,
    /// The number the next will that is due gets. Whole shard.
    NextWill = 22,
    /// `tenant u32 | filter`: a share, by its whole filter.
    Share = 23,
    /// `share u64 | member's bucket u16 | member's number u64`: a session that takes part in a share.
    ShareMember = 24,
    /// `tenant u32 | member's bucket u16 | member's number u64 | filter`: that a session takes part in a share no more.
    ShareLeft = 25,
    /// `tenant u32 | name`: a device with its credentials.
    Device = 26,
    /// `hash 32 bytes`: the device that has a credential which does not name it. In the hash's own bucket.
    Lookup = 27,
    /// `tenant u32`: how many devices and lookups of a tenant there are. Whole shard.
    RegistryCounts = 28,
    /// `tenant u32 | device`: a device's mailbox.
    Mailbox = 29,
    /// `mailbox u64 | place u64`: a mail that is queued, with its payload.
    Mail = 30,
    /// `mailbox u64 | id u128`: what is known of a mail, wherever it is.
    MailById = 31,
    /// Meta: `tenant u32`.
    Tenant = 32,
    /// Meta: `node u64`.
    Node = 33,
    /// Meta: `shard u16`: its voters.
    Placement = 34,
    /// Meta: `tenant u32 | filter | 0 | target`.
    Route = 35,
    /// Meta: `name`.
    Setting = 36,
    /// Meta: `node u64`: how a node stands, unless it simply takes part.
    Member = 37,
    /// Meta: `token u128`: until when it lets a node join.
    Token = 38,
    /// Meta: `shard u16`: who is to vote, once it is no longer who the group was made with.
    Target = 39,
    /// Meta: `tenant u32`: a tenant with its policy, in the place of its [`Kind::Tenant`].
    TenantRecord = 40,
    /// Meta: the id the next tenant gets, where that is not one more than the highest there is.
    NextTenant = 41,
    /// `mailbox u64 | list u8 | slot u16`: a mail that ended, or died.
    MailDone = 50,
    /// `mailbox u64 | due ms u64 | place u64`: a queued mail that expires.
    MailExpiry = 51,
    /// `mailbox u64`: what is left to remove of a mailbox that is forgotten.
    MailGarbage = 52,
    /// `tenant u32`: how far a tenant's stream goes, and what of it is kept. Whole shard.
    Stream = 60,
    /// `tenant u32 | offset u64`: an event of a stream. Whole shard.
    Event = 61,
    /// `tenant u32 | name`: how far a consumer group has read a stream. Whole shard.
    Consumer = 62,
    /// `tenant u32 | device`: the presence of a device that is connected or active.
    Present = 74,
    /// The same of one that is offline.
    Offline = 75,
    /// `tenant u32`: how events of a tenant's mail are kept. Whole shard.
    MailEvents = 76,
    /// How far the audit of a group goes. Whole shard, and meta.
    AuditEnd = 77,
    /// `number u64`: a record of the audit. Whole shard, and meta.
    AuditRecord = 78,
    /// `tenant u32 | birth u64 | device`: a device, or without a name a tenant, that was deleted, as long as other shards may have
    /// something of it. Whole shard.
    Forgetting = 80,
    /// `tenant u32 | topic`: whose the retained message of a topic is, if a device's.
    RetainedOwner = 81,
    /// `number u64`: whose a will is that is due, if a device's. Whole shard.
    WillOwner = 82,
    /// `birth u64 | part u8`: attributes of one scope of a device, or its latest values, all in one row; with a `time u64` behind
    /// it: what the device said at one time.
    Values = 90,
    /// `tenant u32`: how far a tenant's history goes, and what of it is kept. Whole shard.
    History = 91,
    /// `tenant u32 | number u64`: which points came together, in the order in which they are to go. Whole shard.
    HistoryPart = 92,
    /// `birth u64`: that points of a device that is gone are still to be removed.
    PointGarbage = 93,
    /// `birth u64`: which number the last call to a device got.
    CallLine = 94,
    /// `birth u64 | number u32`: what is known of a call but what was asked and answered.
    CallCard = 95,
    /// `birth u64 | number u32`: what was asked.
    CallAsked = 96,
    /// `birth u64 | number u32`: what was answered.
    CallAnswered = 97,
    /// `birth u64 | id u128`: the number of a call.
    CallById = 98,
    /// `tenant u32 | name`: how much there is in a space of a tenant's documents.
    Space = 100,
    /// `birth u64`: how much there is in all spaces of a device's documents.
    DeviceDocuments = 101,
    /// `tenant u32 | birth u64 | space | 0 | id`: a document. Spaces of a tenant have no birth: 0.
    Document = 102,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Self; 67] = [
        Self::Applied,
        Self::LogTime,
        Self::NextSession,
        Self::Session,
        Self::Item,
        Self::Subscription,
        Self::Filter,
        Self::Message,
        Self::MessageRefs,
        Self::Producer,
        Self::ProducerAnswers,
        Self::Deadline,
        Self::SessionById,
        Self::Counters,
        Self::Garbage,
        Self::Inbound,
        Self::Origin,
        Self::Will,
        Self::DueWill,
        Self::Retained,
        Self::Awaited,
        Self::NextWill,
        Self::Share,
        Self::ShareMember,
        Self::ShareLeft,
        Self::Device,
        Self::Lookup,
        Self::RegistryCounts,
        Self::Mailbox,
        Self::Mail,
        Self::MailById,
        Self::Tenant,
        Self::Node,
        Self::Placement,
        Self::Route,
        Self::Setting,
        Self::Member,
        Self::Token,
        Self::Target,
        Self::TenantRecord,
        Self::NextTenant,
        Self::MailDone,
        Self::MailExpiry,
        Self::MailGarbage,
        Self::Stream,
        Self::Event,
        Self::Consumer,
        Self::Present,
        Self::Offline,
        Self::MailEvents,
        Self::AuditEnd,
        Self::AuditRecord,
        Self::Forgetting,
        Self::RetainedOwner,
        Self::WillOwner,
        Self::Values,
        Self::History,
        Self::HistoryPart,
        Self::PointGarbage,
        Self::CallLine,
        Self::CallCard,
        Self::CallAsked,
        Self::CallAnswered,
        Self::CallById,
        Self::Space,
        Self::DeviceDocuments,
        Self::Document,
    ];
}

/// A key while it is being written.
#[derive(Debug)]
pub struct Key(Vec<u8>);

impl Key {
    /// Begins a key; `suffix_bytes` is how much will follow.
    #[must_use]
    pub fn new(shard: ShardId, bucket: u16, kind: Kind, suffix_bytes: usize) -> Self {
        let mut key = Vec::with_capacity(PREFIX_BYTES + suffix_bytes);
        key.put_u16(shard.0);
        key.put_u16(bucket);
        key.put_u8(kind as u8);
        Self(key)
    }

    /// Appends a byte.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.put_u8(value);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn u16(mut self, value: u16) -> Self {
        self.0.put_u16(value);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    /// Appends bytes as they are: only last, or where what follows can be told apart.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }

    /// The key.
    #[must_use]
    pub fn done(self) -> Bytes {
        self.0.into()
    }
}

/// The row that says how far a shard's log is applied.
#[must_use]
pub fn applied(shard: ShardId) -> Bytes {
    Key::new(shard, WHOLE, Kind::Applied, 0).done()
}

/// From and to of all rows of a shard.
///
/// # Panics
///
/// If the shard is 65,535: `SHARDS_MAX` is far below.
#[must_use]
pub fn range_of_shard(shard: ShardId) -> (Bytes, Bytes) {
    let next = shard.0.checked_add(1).expect("SHARDS_MAX is far below");
    (Bytes::copy_from_slice(&shard.0.to_be_bytes()), Bytes::copy_from_slice(&next.to_be_bytes()))
}

/// From and to of all rows of a kind in a bucket.
#[must_use]
pub fn range_of_kind(shard: ShardId, bucket: u16, kind: Kind) -> (Bytes, Bytes) {
    let from = Key::new(shard, bucket, kind, 0).0;
    let mut to = from.clone();
    to[PREFIX_BYTES - 1] += 1;
    (from.into(), to.into())
}

/// The first key after all that begin with `prefix`; `None` if there is none (all its bytes are 255).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end.into())
}

/// The shard of a key.
///
/// # Errors
///
/// When the key is too short to be one.
pub fn shard_of(key: &[u8]) -> Result<ShardId, StorageError> {
    let (shard, _) = key.split_first_chunk().ok_or_else(short)?;
    Ok(ShardId(u16::from_be_bytes(*shard)))
}

/// The bucket of a key.
///
/// # Errors
///
/// When the key is too short to be one.
pub fn bucket_of(key: &[u8]) -> Result<u16, StorageError> {
    match key {
        [_, _, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(short()),
    }
}

/// The kind of a key.
///
/// # Errors
///
/// When the key is too short to be one, or of a kind that this version does not know.
pub fn kind_of(key: &[u8]) -> Result<Kind, StorageError> {
    let number = *key.get(PREFIX_BYTES - 1).ok_or_else(short)?;
    Kind::ALL.into_iter().find(|&kind| kind as u8 == number).ok_or_else(|| StorageError::Corrupt {
        what: "key".to_owned(),
        why: format!("there is no kind {number}"),
    })
}

/// What follows a key's kind.
///
/// # Errors
///
/// When the key is too short to be one.
pub fn suffix(key: &[u8]) -> Result<&[u8], StorageError> {
    key.get(PREFIX_BYTES..).ok_or_else(short)
}

fn short() -> StorageError {
    StorageError::Corrupt { what: "key".to_owned(), why: "it is too short".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_numbers() {
        // Frozen: a change here would read every stored row as another kind.
        let numbers = Kind::ALL.map(|kind| kind as u8);
        assert_eq!(
            numbers,
            [
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
                24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 50, 51, 52,
                60, 61, 62, 74, 75, 76, 77, 78, 80, 81, 82, 90, 91, 92, 93, 94, 95, 96, 97, 98,
                100, 101, 102,
            ]
        );
    }

    #[test]
    fn keys_keep_their_bytes() {
        let item = Key::new(ShardId(3), 0x0102, Kind::Item, 16).u64(7).u64(9).done();
        assert_eq!(item[..], *b"\0\x03\x01\x02\x05\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09");
        let session = Key::new(ShardId(1), 375, Kind::Session, 5).u32(1).bytes(b"a").done();
        assert_eq!(session[..], *b"\0\x01\x01\x77\x04\0\0\0\x01a");
        let route = Key::new(ShardId(0), WHOLE, Kind::Route, 3).u8(1).u16(2).done();
        assert_eq!(route[..], *b"\0\0\xff\xff\x23\x01\0\x02");
        assert_eq!(applied(ShardId(2))[..], *b"\0\x02\xff\xff\x01");
    }

    #[test]
    fn a_key_can_be_taken_apart() {
        let key = Key::new(ShardId(12), 4095, Kind::Counters, 8).u64(77).done();
        assert_eq!(shard_of(&key).unwrap(), ShardId(12));
        assert_eq!(bucket_of(&key).unwrap(), 4095);
        assert_eq!(kind_of(&key).unwrap(), Kind::Counters);
        assert_eq!(suffix(&key).unwrap(), 77_u64.to_be_bytes());
        for cut in 0..PREFIX_BYTES {
            assert!(suffix(&key[..cut]).is_err() && kind_of(&key[..cut]).is_err());
        }
        assert!(kind_of(b"\0\x01\0\x01\xfe").is_err(), "a kind that nobody has");
    }

    #[test]
    fn ranges_hold_their_keys_and_no_others() {
        let in_bucket = |bucket| Key::new(ShardId(3), bucket, Kind::Item, 8).u64(u64::MAX).done();
        let (from, to) = range_of_kind(ShardId(3), 9, Kind::Item);
        let within = |key: &Bytes| *key >= from && *key < to;
        assert!(within(&in_bucket(9)) && !within(&in_bucket(8)) && !within(&in_bucket(10)));
        let (from, to) = range_of_shard(ShardId(3));
        assert!(from <= applied(ShardId(3)) && applied(ShardId(3)) < to);
        assert!(applied(ShardId(2)) < from && applied(ShardId(4)) >= to);
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        let table: [(&[u8], Option<&[u8]>); 5] = [
            (b"ab", Some(b"ac")),
            (b"a\xff", Some(b"b")),
            (b"\x00\x01\xff\xff", Some(b"\x00\x02")),
            (b"\xff\xff", None),
            (b"", None),
        ];
        for (prefix, end) in table {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
