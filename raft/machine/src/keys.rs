//! Where each row of a group is: typed keys, and the way back.
//!
//! `shard u16 | bucket u16 | kind u8 | suffix`, big-endian, so that rows of one bucket, and of one session in it, lie
//! together in order. [`WHOLE`] is the bucket of what belongs to the whole group.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes};
use moorline_core::{Incarnation, NodeId, Offset, ShardId, TenantId, Text};
use moorline_storage::StorageError;

use crate::{
    command::{ProducerId, RouteTarget, SessionId},
    rows::corrupt,
};

/// The bucket of rows that belong to no bucket.
pub(crate) const WHOLE: u16 = u16::MAX;
const PREFIX_BYTES: usize = 5;

/// Frozen: disks hold these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Applied = 1,
    LogTime = 2,
    NextSession = 3,
    Session = 4,
    Item = 5,
    Subscription = 6,
    Filter = 7,
    Message = 8,
    MessageRefs = 9,
    Producer = 10,
    ProducerAnswers = 11,
    Counters = 14,
    Garbage = 15,
    Tenant = 32,
    Node = 33,
    Placement = 34,
    Route = 35,
    Setting = 36,
}

/// Makes the keys of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    group: ShardId,
}

impl Keys {
    pub(crate) fn new(group: ShardId) -> Self {
        Self { group }
    }

    pub(crate) fn group(self) -> ShardId {
        self.group
    }

    fn key(self, bucket: u16, kind: Kind, suffix_bytes: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(PREFIX_BYTES + suffix_bytes);
        key.put_u16(self.group.0);
        key.put_u16(bucket);
        key.put_u8(kind as u8);
        key
    }

    fn number(self, bucket: u16, kind: Kind, number: u64) -> Bytes {
        let mut key = self.key(bucket, kind, 8);
        key.put_u64(number);
        key.into()
    }

    fn named(self, bucket: u16, kind: Kind, tenant: TenantId, name: &[u8]) -> Bytes {
        let mut key = self.key(bucket, kind, 4 + name.len());
        key.put_u32(tenant.0);
        key.put_slice(name);
        key.into()
    }

    pub(crate) fn applied(self) -> Bytes {
        self.key(WHOLE, Kind::Applied, 0).into()
    }

    pub(crate) fn log_time(self) -> Bytes {
        self.key(WHOLE, Kind::LogTime, 0).into()
    }

    pub(crate) fn next_session(self, bucket: u16) -> Bytes {
        self.key(bucket, Kind::NextSession, 0).into()
    }

    pub(crate) fn session(self, bucket: u16, tenant: TenantId, client: &Text) -> Bytes {
        self.named(bucket, Kind::Session, tenant, client.as_bytes())
    }

    pub(crate) fn counters(self, id: SessionId) -> Bytes {
        self.number(id.bucket, Kind::Counters, id.number)
    }

    pub(crate) fn garbage(self, id: SessionId) -> Bytes {
        self.number(id.bucket, Kind::Garbage, id.number)
    }

    pub(crate) fn item(self, id: SessionId, offset: Offset) -> Bytes {
        let mut key = self.key(id.bucket, Kind::Item, 16);
        key.put_u64(id.number);
        key.put_u64(offset.0);
        key.into()
    }

    pub(crate) fn subscription(self, id: SessionId, filter: &Text) -> Bytes {
        let mut key = self.key(id.bucket, Kind::Subscription, 8 + filter.len());
        key.put_u64(id.number);
        key.put_slice(filter.as_bytes());
        key.into()
    }

    /// From and to of a session's subscriptions.
    pub(crate) fn subscriptions(self, id: SessionId) -> (Bytes, Bytes) {
        let kind = Kind::Subscription;
        (self.number(id.bucket, kind, id.number), self.number(id.bucket, kind, id.number + 1))
    }

    pub(crate) fn filter(self, tenant: TenantId, filter: &Text) -> Bytes {
        self.named(WHOLE, Kind::Filter, tenant, filter.as_bytes())
    }

    pub(crate) fn message(self, id: u64) -> Bytes {
        self.number(WHOLE, Kind::Message, id)
    }

    pub(crate) fn message_refs(self, id: u64) -> Bytes {
        self.number(WHOLE, Kind::MessageRefs, id)
    }

    pub(crate) fn producer(self, id: ProducerId) -> Bytes {
        self.number(WHOLE, Kind::Producer, id.0)
    }

    pub(crate) fn answers(self, id: ProducerId, first_seq: u64) -> Bytes {
        let mut key = self.key(WHOLE, Kind::ProducerAnswers, 16);
        key.put_u64(id.0);
        key.put_u64(first_seq);
        key.into()
    }

    pub(crate) fn tenant(self, id: TenantId) -> Bytes {
        let mut key = self.key(WHOLE, Kind::Tenant, 4);
        key.put_u32(id.0);
        key.into()
    }

    pub(crate) fn node(self, id: NodeId) -> Bytes {
        self.number(WHOLE, Kind::Node, id.0)
    }

    pub(crate) fn placement(self, shard: ShardId) -> Bytes {
        let mut key = self.key(WHOLE, Kind::Placement, 2);
        key.put_u16(shard.0);
        key.into()
    }

    pub(crate) fn setting(self, name: &[u8]) -> Bytes {
        let mut key = self.key(WHOLE, Kind::Setting, name.len());
        key.put_slice(name);
        key.into()
    }

    /// A filter has no zero byte, so one ends it.
    pub(crate) fn route(self, tenant: TenantId, filter: &Text, target: RouteTarget) -> Bytes {
        let mut key = self.key(WHOLE, Kind::Route, 4 + filter.len() + 18);
        key.put_u32(tenant.0);
        key.put_slice(filter.as_bytes());
        key.put_u8(0);
        match target {
            RouteTarget::Shard(shard) => {
                key.put_u8(TARGET_SHARD);
                key.put_u16(shard.0);
            }
            RouteTarget::Node(node, incarnation) => {
                key.put_u8(TARGET_NODE);
                key.put_u64(node.0);
                key.put_u64(incarnation.0);
            }
        }
        key.into()
    }

    /// From and to of all rows of a kind in a bucket.
    pub(crate) fn range_in(self, bucket: u16, kind: Kind) -> (Bytes, Bytes) {
        let from = self.key(bucket, kind, 0);
        let mut to = from.clone();
        // The kind is the last byte, and none is 255.
        *to.last_mut().expect("a prefix is five bytes") += 1;
        (from.into(), to.into())
    }

    /// From and to of all rows of a kind of the whole group.
    pub(crate) fn range(self, kind: Kind) -> (Bytes, Bytes) {
        self.range_in(WHOLE, kind)
    }

    /// From `bucket` on to the last one, [`WHOLE`] not among them.
    pub(crate) fn buckets_from(self, bucket: u16) -> (Bytes, Bytes) {
        let edge = |bucket: u16| {
            let mut key = Vec::with_capacity(4);
            key.put_u16(self.group.0);
            key.put_u16(bucket);
            key.into()
        };
        (edge(bucket), edge(WHOLE))
    }

    /// From and to of all rows of the group.
    pub(crate) fn all(self) -> (Bytes, Bytes) {
        let next = self.group.0.checked_add(1).expect("SHARDS_MAX is far below");
        (
            Bytes::copy_from_slice(&self.group.0.to_be_bytes()),
            Bytes::copy_from_slice(&next.to_be_bytes()),
        )
    }
}

const TARGET_SHARD: u8 = 1;
const TARGET_NODE: u8 = 2;

/// What comes after a key's kind, taken off the front.
#[derive(Debug)]
pub(crate) struct Suffix<'a> {
    rest: &'a [u8],
}

impl<'a> Suffix<'a> {
    pub(crate) fn of(key: &'a [u8]) -> Result<Self, StorageError> {
        match key.get(PREFIX_BYTES..) {
            Some(rest) => Ok(Self { rest }),
            None => Err(Self::short()),
        }
    }

    fn short() -> StorageError {
        corrupt("key", &"it is too short")
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(Self::short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, StorageError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, StorageError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StorageError> {
        self.take().map(u64::from_be_bytes)
    }

    /// The rest as text.
    pub(crate) fn text(self) -> Result<Text, StorageError> {
        Text::from_utf8(Bytes::copy_from_slice(self.rest)).map_err(|error| corrupt("key", &error))
    }

    /// The filter and target of a route's key.
    pub(crate) fn route(mut self) -> Result<(Text, RouteTarget), StorageError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or_else(Self::short)?;
        let filter = Self { rest: &self.rest[..end] }.text()?;
        self.rest = &self.rest[end + 1..];
        let target = match self.take()? {
            [TARGET_SHARD] => RouteTarget::Shard(ShardId(self.u16()?)),
            [TARGET_NODE] => RouteTarget::Node(NodeId(self.u64()?), Incarnation(self.u64()?)),
            [_] => return Err(corrupt("key", &"a route leads nowhere")),
        };
        Ok((filter, target))
    }
}

/// The bucket of a key.
pub(crate) fn bucket_of_key(key: &[u8]) -> Result<u16, StorageError> {
    match key {
        [_, _, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(Suffix::short()),
    }
}

/// Keeps the first error of a scan and ends it there.
pub(crate) fn note(
    failed: &mut Option<StorageError>,
    read: Result<(), StorageError>,
) -> ControlFlow<()> {
    match read {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *failed = Some(error);
            ControlFlow::Break(())
        }
    }
}
