//! Where each row of a group is: the keys of `moorline_storage::key` with this crate's types in them, and the way back.
//!
//! Rows of one bucket lie together, and of one session in it, in order of offset or filter.

mod audit;
mod calls;
mod documents;
mod events;
mod mail;
mod presence;
mod registry;
mod values;

use std::ops::ControlFlow;

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, Offset, ShardId, TenantId, Text};
use moorline_storage::{
    StorageError, View,
    key::{self, Key, Kind, WHOLE},
};

use crate::{
    command::{ProducerId, RouteTarget, SessionId},
    rows::corrupt,
};

pub(crate) use self::values::Place;

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

    fn key(self, bucket: u16, kind: Kind, suffix_bytes: usize) -> Key {
        Key::new(self.group, bucket, kind, suffix_bytes)
    }

    fn whole(self, kind: Kind, suffix_bytes: usize) -> Key {
        self.key(WHOLE, kind, suffix_bytes)
    }

    pub(crate) fn applied(self) -> Bytes {
        key::applied(self.group)
    }

    pub(crate) fn log_time(self) -> Bytes {
        self.whole(Kind::LogTime, 0).done()
    }

    pub(crate) fn next_session(self, bucket: u16) -> Bytes {
        self.key(bucket, Kind::NextSession, 0).done()
    }

    pub(crate) fn session(self, bucket: u16, tenant: TenantId, client: &Text) -> Bytes {
        let key = self.key(bucket, Kind::Session, 4 + client.len());
        key.u32(tenant.0).bytes(client.as_bytes()).done()
    }

    pub(crate) fn counters(self, id: SessionId) -> Bytes {
        self.key(id.bucket, Kind::Counters, 8).u64(id.number).done()
    }

    pub(crate) fn garbage(self, id: SessionId) -> Bytes {
        self.key(id.bucket, Kind::Garbage, 8).u64(id.number).done()
    }

    pub(crate) fn item(self, id: SessionId, offset: Offset) -> Bytes {
        self.key(id.bucket, Kind::Item, 16).u64(id.number).u64(offset.0).done()
    }

    pub(crate) fn inbound(self, id: SessionId, packet: u16) -> Bytes {
        self.key(id.bucket, Kind::Inbound, 10).u64(id.number).u16(packet).done()
    }

    pub(crate) fn will(self, id: SessionId) -> Bytes {
        self.key(id.bucket, Kind::Will, 8).u64(id.number).done()
    }

    pub(crate) fn due_will(self, number: u64) -> Bytes {
        self.whole(Kind::DueWill, 8).u64(number).done()
    }

    pub(crate) fn next_will(self) -> Bytes {
        self.whole(Kind::NextWill, 0).done()
    }

    pub(crate) fn retained(self, bucket: u16, tenant: TenantId, topic: &Text) -> Bytes {
        let key = self.key(bucket, Kind::Retained, 4 + topic.len());
        key.u32(tenant.0).bytes(topic.as_bytes()).done()
    }

    pub(crate) fn awaited(self, id: SessionId, topic: &Text) -> Bytes {
        let key = self.key(id.bucket, Kind::Awaited, 8 + topic.len());
        key.u64(id.number).bytes(topic.as_bytes()).done()
    }

    pub(crate) fn origin(self, id: SessionId) -> Bytes {
        self.whole(Kind::Origin, 10).u16(id.bucket).u64(id.number).done()
    }

    pub(crate) fn subscription(self, id: SessionId, filter: &Text) -> Bytes {
        let key = self.key(id.bucket, Kind::Subscription, 8 + filter.len());
        key.u64(id.number).bytes(filter.as_bytes()).done()
    }

    pub(crate) fn share(self, bucket: u16, tenant: TenantId, filter: &Text) -> Bytes {
        let key = self.key(bucket, Kind::Share, 4 + filter.len());
        key.u32(tenant.0).bytes(filter.as_bytes()).done()
    }

    pub(crate) fn share_member(self, share: SessionId, member: SessionId) -> Bytes {
        let key = self.key(share.bucket, Kind::ShareMember, 18).u64(share.number);
        key.u16(member.bucket).u64(member.number).done()
    }

    pub(crate) fn share_left(
        self,
        bucket: u16,
        tenant: TenantId,
        member: SessionId,
        filter: &Text,
    ) -> Bytes {
        let key = self.key(bucket, Kind::ShareLeft, 14 + filter.len()).u32(tenant.0);
        key.u16(member.bucket).u64(member.number).bytes(filter.as_bytes()).done()
    }

    /// From and to of a session's subscriptions.
    pub(crate) fn subscriptions(self, id: SessionId) -> (Bytes, Bytes) {
        let of = |number| self.key(id.bucket, Kind::Subscription, 8).u64(number).done();
        (of(id.number), of(id.number + 1))
    }

    pub(crate) fn filter(self, tenant: TenantId, filter: &Text) -> Bytes {
        let key = self.whole(Kind::Filter, 4 + filter.len());
        key.u32(tenant.0).bytes(filter.as_bytes()).done()
    }

    pub(crate) fn message(self, id: u64) -> Bytes {
        self.whole(Kind::Message, 8).u64(id).done()
    }

    pub(crate) fn message_refs(self, id: u64) -> Bytes {
        self.whole(Kind::MessageRefs, 8).u64(id).done()
    }

    pub(crate) fn producer(self, id: ProducerId) -> Bytes {
        self.whole(Kind::Producer, 8).u64(id.0).done()
    }

    pub(crate) fn answers(self, id: ProducerId, first_seq: u64) -> Bytes {
        self.whole(Kind::ProducerAnswers, 16).u64(id.0).u64(first_seq).done()
    }

    pub(crate) fn tenant(self, id: TenantId) -> Bytes {
        self.whole(Kind::Tenant, 4).u32(id.0).done()
    }

    pub(crate) fn node(self, id: NodeId) -> Bytes {
        self.whole(Kind::Node, 8).u64(id.0).done()
    }

    pub(crate) fn placement(self, shard: ShardId) -> Bytes {
        self.whole(Kind::Placement, 2).u16(shard.0).done()
    }

    pub(crate) fn member(self, id: NodeId) -> Bytes {
        self.whole(Kind::Member, 8).u64(id.0).done()
    }

    pub(crate) fn token(self, token: u128) -> Bytes {
        self.whole(Kind::Token, 16).bytes(&token.to_be_bytes()).done()
    }

    pub(crate) fn target(self, shard: ShardId) -> Bytes {
        self.whole(Kind::Target, 2).u16(shard.0).done()
    }

    pub(crate) fn setting(self, name: &[u8]) -> Bytes {
        self.whole(Kind::Setting, name.len()).bytes(name).done()
    }

    /// A filter has no zero byte, so one ends it.
    pub(crate) fn route(self, tenant: TenantId, filter: &Text, target: RouteTarget) -> Bytes {
        let key = self.whole(Kind::Route, 4 + filter.len() + 18);
        let key = key.u32(tenant.0).bytes(filter.as_bytes()).u8(0);
        match target {
            RouteTarget::Shard(shard) => key.u8(TARGET_SHARD).u16(shard.0),
            RouteTarget::Node(node, incarnation) => {
                key.u8(TARGET_NODE).u64(node.0).u64(incarnation.0)
            }
        }
        .done()
    }

    /// From and to of all rows of a kind in a bucket.
    pub(crate) fn range_in(self, bucket: u16, kind: Kind) -> (Bytes, Bytes) {
        key::range_of_kind(self.group, bucket, kind)
    }

    /// From and to of all rows of a kind of the whole group.
    pub(crate) fn range(self, kind: Kind) -> (Bytes, Bytes) {
        self.range_in(WHOLE, kind)
    }

    /// From `bucket` on to the last one, [`WHOLE`] not among them.
    pub(crate) fn buckets_from(self, bucket: u16) -> (Bytes, Bytes) {
        let edge = |bucket| self.range_in(bucket, Kind::Applied).0;
        (edge(bucket), edge(WHOLE))
    }

    /// From and to of all rows of the group.
    pub(crate) fn all(self) -> (Bytes, Bytes) {
        key::range_of_shard(self.group)
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
        Ok(Self { rest: key::suffix(key)? })
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

    pub(crate) fn u128(&mut self) -> Result<u128, StorageError> {
        self.take().map(u128::from_be_bytes)
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

/// Reads the rows of a range in order: what is behind the kind of each key, and its value. Ends with the first that can't be read.
pub(crate) fn each(
    rows: &(impl View + ?Sized),
    range: &(Bytes, Bytes),
    mut read: impl FnMut(Suffix<'_>, &Bytes) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    each_until(rows, range, |suffix, row| read(suffix, row).map(ControlFlow::Continue))
}

/// The same, until `read` has enough.
pub(crate) fn each_until(
    rows: &(impl View + ?Sized),
    (from, to): &(Bytes, Bytes),
    mut read: impl FnMut(Suffix<'_>, &Bytes) -> Result<ControlFlow<()>, StorageError>,
) -> Result<(), StorageError> {
    let mut failed = None;
    rows.scan(from, to, &mut |key, row| {
        let read = Suffix::of(key).and_then(|suffix| read(suffix, row));
        read.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex;

    #[test]
    fn keys_keep_their_bytes() {
        // Frozen: disks hold these.
        let keys = Keys::new(ShardId(2));
        let id = SessionId { bucket: 3, number: 4 };
        let tenant = TenantId(5);
        let text = Text::from("t");
        #[rustfmt::skip]
        let table = [
            (keys.applied(),                      "0002 ffff 01"),
            (keys.log_time(),                     "0002 ffff 02"),
            (keys.next_session(3),                "0002 0003 03"),
            (keys.session(3, tenant, &text),      "0002 0003 04 00000005 74"),
            (keys.item(id, Offset(6)),            "0002 0003 05 0000000000000004 0000000000000006"),
            (keys.subscription(id, &text),        "0002 0003 06 0000000000000004 74"),
            (keys.filter(tenant, &text),          "0002 ffff 07 00000005 74"),
            (keys.message(7),                     "0002 ffff 08 0000000000000007"),
            (keys.message_refs(7),                "0002 ffff 09 0000000000000007"),
            (keys.producer(ProducerId(8)),        "0002 ffff 0a 0000000000000008"),
            (keys.answers(ProducerId(8), 9),      "0002 ffff 0b 0000000000000008 0000000000000009"),
            (keys.share(3, tenant, &text),        "0002 0003 17 00000005 74"),
            (keys.share_member(id, SessionId { bucket: 1, number: 2 }),
                "0002 0003 18 0000000000000004 0001 0000000000000002"),
            (keys.share_left(3, tenant, SessionId { bucket: 1, number: 2 }, &text),
                "0002 0003 19 00000005 0001 0000000000000002 74"),
            (keys.counters(id),                   "0002 0003 0e 0000000000000004"),
            (keys.garbage(id),                    "0002 0003 0f 0000000000000004"),
            (keys.will(id),                       "0002 0003 12 0000000000000004"),
            (keys.due_will(7),                    "0002 ffff 13 0000000000000007"),
            (keys.retained(3, tenant, &text),     "0002 0003 14 00000005 74"),
            (keys.awaited(id, &text),             "0002 0003 15 0000000000000004 74"),
            (keys.next_will(),                    "0002 ffff 16"),
            (keys.tenant(tenant),                 "0002 ffff 20 00000005"),
            (keys.node(NodeId(1)),                "0002 ffff 21 0000000000000001"),
            (keys.placement(ShardId(1)),          "0002 ffff 22 0001"),
            (keys.route(tenant, &text, RouteTarget::Shard(ShardId(1))),
                                                  "0002 ffff 23 00000005 74 00 01 0001"),
            (keys.route(tenant, &text, RouteTarget::Node(NodeId(1), Incarnation(2))),
                "0002 ffff 23 00000005 74 00 02 0000000000000001 0000000000000002"),
            (keys.setting(b"s"),                  "0002 ffff 24 73"),
            (keys.member(NodeId(1)),              "0002 ffff 25 0000000000000001"),
            (keys.token(1),                       "0002 ffff 26 00000000000000000000000000000001"),
            (keys.target(ShardId(1)),             "0002 ffff 27 0001"),
        ];
        let (from, to) = keys.all();
        for (key, expected) in table {
            assert_eq!(hex(&key), expected.replace(' ', ""));
            assert!(from <= key && key < to);
        }
    }

    #[test]
    fn a_route_is_found_in_its_key() {
        let keys = Keys::new(ShardId::META);
        for target in [RouteTarget::Shard(ShardId(1)), RouteTarget::Node(NodeId(1), Incarnation(0))]
        {
            let key = keys.route(TenantId(5), &Text::from("a/+"), target);
            let mut suffix = Suffix::of(&key).unwrap();
            assert_eq!(suffix.u32().unwrap(), 5);
            assert_eq!(suffix.route().unwrap(), (Text::from("a/+"), target));
            let mut short = Suffix::of(&key[..key.len() - 1]).unwrap();
            short.u32().unwrap();
            assert!(short.route().is_err());
        }
    }
}
