//! Commands in bytes: `len u32 | kind u8 | body`, where `len` counts the kind and the body.

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{
    Incarnation, NodeId, ShardId, Will,
    level::{Levels, Program},
};

use super::{
    Malformed, Reader, TooLarge, audit, calls, documents, encode_message, events, mail,
    message_len, presence, put_holder, put_limits, put_list, put_option, put_options, put_owner,
    put_session, put_target, put_text, read_message, read_owner, registry, values,
};
use crate::{
    command::{Command, Enqueued, MemberState, NodeRecord, Origin, Subscription},
    forget::{Forget, Forgotten},
    registry::Owner,
};

/// The largest command, its kind included: half a batch. Whoever takes a message in refuses larger ones before.
pub const COMMAND_BYTES_MAX: usize = 512 * 1024;
/// The length in front of a command.
pub(crate) const FRAME_HEADER_BYTES: usize = 4;

/// Frozen: logs hold these numbers.
mod kind {
    pub(super) const OPEN_SESSION: u8 = 1;
    pub(super) const CLOSE_SESSION: u8 = 2;
    pub(super) const NODE_GONE: u8 = 3;
    pub(super) const SUBSCRIBE: u8 = 4;
    pub(super) const UNSUBSCRIBE: u8 = 5;
    pub(super) const PUBLISH: u8 = 6;
    pub(super) const SETTLE: u8 = 7;
    pub(super) const TICK: u8 = 8;
    pub(super) const DIGEST: u8 = 9;
    pub(super) const RECEIVE: u8 = 10;
    pub(super) const PUBLISH_ONCE: u8 = 11;
    pub(super) const COMPLETE: u8 = 12;
    pub(super) const RELEASE: u8 = 13;
    /// `Release` by the connection of an epoch.
    pub(super) const RELEASE_BY: u8 = 22;
    /// `OpenSession` with a will.
    pub(super) const OPEN_WITH_WILL: u8 = 14;
    /// `CloseSession` that forgets the will.
    pub(super) const SAY_GOODBYE: u8 = 15;
    pub(super) const WILLS_DONE: u8 = 16;
    pub(super) const JOIN_SHARE: u8 = 20;
    pub(super) const LEAVE_SHARE: u8 = 21;
    pub(super) const RETAIN: u8 = 17;
    pub(super) const ENQUEUE: u8 = 18;
    pub(super) const CREATE_CLUSTER: u8 = 32;
    pub(super) const REGISTER_NODE: u8 = 33;
    pub(super) const SET_ROUTE: u8 = 34;
    pub(super) const DROP_NODE_ROUTES: u8 = 35;
    pub(super) const SET_TENANT: u8 = 36;
    pub(super) const ADD_TOKEN: u8 = 37;
    pub(super) const JOIN_NODE: u8 = 38;
    pub(super) const SET_MEMBER: u8 = 39;
    pub(super) const PLACE: u8 = 40;
    pub(super) const PLACED: u8 = 41;
    pub(super) const SET_LEVEL: u8 = 48;
    pub(super) const SET_REPLICAS: u8 = 49;
    /// `Retain` with an owner.
    pub(super) const RETAIN_OWNED: u8 = 80;
    pub(super) const FORGET: u8 = 81;
    pub(super) const FORGOTTEN: u8 = 82;
}

/// The whole length of the frame at the front of `bytes`, if it is all there.
pub(crate) fn frame_len(bytes: &[u8]) -> Result<usize, Malformed> {
    const WHAT: Malformed = Malformed { what: "command frame" };
    let (len, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(WHAT)?;
    let len = u32::from_be_bytes(*len) as usize;
    if len == 0 || len > COMMAND_BYTES_MAX || len > rest.len() {
        return Err(WHAT);
    }
    Ok(FRAME_HEADER_BYTES + len)
}

fn put_gone(out: &mut BytesMut, node: NodeId, gone: Incarnation) {
    out.put_u8(kind::NODE_GONE);
    put_process(out, node, gone);
}

fn put_owners(out: &mut BytesMut, kind: u8, owners: &[Owner]) {
    out.put_u8(kind);
    put_list(out, owners, put_owner);
}

impl Command {
    /// Appends the command's frame to `out`.
    ///
    /// # Errors
    ///
    /// When it is larger than [`COMMAND_BYTES_MAX`]; `out` is as before then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), TooLarge> {
        let start = out.len();
        out.put_u32(0);
        self.encode_body(out);
        let bytes = out.len() - start - FRAME_HEADER_BYTES;
        if bytes > COMMAND_BYTES_MAX {
            out.truncate(start);
            return Err(TooLarge { bytes });
        }
        let len = u32::try_from(bytes).expect("COMMAND_BYTES_MAX fits").to_be_bytes();
        out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&len);
        Ok(())
    }

    /// The same of a command within another, whose length is checked with it.
    pub(super) fn encode_framed(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32(0);
        self.encode_body(out);
        let len = u32::try_from(out.len() - start - FRAME_HEADER_BYTES).unwrap_or(u32::MAX);
        out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&len.to_be_bytes());
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Self::OpenSession { .. } | Self::CloseSession { .. } => self.encode_life(out),
            Self::WillsDone { .. } | Self::Retain { .. } | Self::Enqueue { .. } => {
                self.encode_kept(out);
            }
            Self::NodeGone { node, gone } => put_gone(out, *node, *gone),
            Self::Subscribe { session, epoch, subscriptions } => {
                out.put_u8(kind::SUBSCRIBE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_list(out, subscriptions, |out, subscription| {
                    put_options(out, subscription.options);
                    put_text(out, &subscription.filter);
                });
            }
            Self::Unsubscribe { session, epoch, filters } => {
                out.put_u8(kind::UNSUBSCRIBE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_list(out, filters, put_text);
            }
            Self::Publish { tenant, from, message } => {
                out.put_u8(kind::PUBLISH);
                out.put_u32(tenant.0);
                put_option(out, *from, put_session);
                encode_message(out, message);
            }
            Self::Receive { .. }
            | Self::PublishOnce { .. }
            | Self::Complete { .. }
            | Self::Release { .. } => self.encode_exactly_once(out),
            Self::Settle { session, upto, also } => {
                out.put_u8(kind::SETTLE);
                put_session(out, *session);
                out.put_u64(upto.0);
                put_list(out, also, |out, offset| out.put_u64(offset.0));
            }
            Self::JoinShare { .. } | Self::LeaveShare { .. } => self.encode_share(out),
            Self::Mail(command) => mail::put_command(out, command),
            Self::Events(command) => events::put_command(out, command),
            Self::Values(command) => values::put_command(out, command),
            Self::Calls(command) => calls::put_command(out, command),
            Self::Documents(command) => documents::put_command(out, command),
            Self::Presence(report) => presence::put_command(out, report),
            Self::Tick => out.put_u8(kind::TICK),
            Self::Digest => out.put_u8(kind::DIGEST),
            Self::CreateCluster { .. }
            | Self::RegisterNode(_)
            | Self::SetRoute { .. }
            | Self::DropNodeRoutes { .. }
            | Self::SetTenant { .. } => self.encode_meta_body(out),
            Self::AddToken { .. }
            | Self::JoinNode { .. }
            | Self::SetMember { .. }
            | Self::Place { .. }
            | Self::Placed { .. }
            | Self::SetLevel { .. }
            | Self::SetReplicas { .. } => self.encode_member_body(out),
            Self::PutTenant(_)
            | Self::DeleteTenant(_)
            | Self::PutDevice(_)
            | Self::DeleteDevice(_)
            | Self::PutLookup(_)
            | Self::DeleteLookup(_) => registry::encode(self, out),
            Self::Forget(Forget { owners }) => put_owners(out, kind::FORGET, owners),
            Self::Forgotten(Forgotten { owners }) => put_owners(out, kind::FORGOTTEN, owners),
            Self::Audited(audited) => audit::put_command(out, audited),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_life(&self, out: &mut BytesMut) {
        match self {
            Self::OpenSession {
                tenant,
                client,
                clean_start,
                expiry_s,
                holder,
                limits,
                sessions_max,
                will,
            } => {
                let with_will = will.is_some();
                out.put_u8(if with_will { kind::OPEN_WITH_WILL } else { kind::OPEN_SESSION });
                out.put_u32(tenant.0);
                put_text(out, client);
                out.put_u8(u8::from(*clean_start));
                out.put_u32(*expiry_s);
                put_holder(out, *holder);
                put_limits(out, *limits);
                out.put_u32(*sessions_max);
                if let Some(will) = will {
                    out.put_u32(will.delay_s);
                    encode_message(out, &will.message);
                }
            }
            Self::CloseSession { session, epoch, expiry_s, forget_will } => {
                out.put_u8(if *forget_will { kind::SAY_GOODBYE } else { kind::CLOSE_SESSION });
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_option(out, *expiry_s, BufMut::put_u32);
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_kept(&self, out: &mut BytesMut) {
        match self {
            Self::WillsDone { numbers } => {
                out.put_u8(kind::WILLS_DONE);
                put_list(out, numbers, |out, number| out.put_u64(*number));
            }
            Self::Retain { tenant, owner, origin, message } => {
                out.put_u8(if owner.is_some() { kind::RETAIN_OWNED } else { kind::RETAIN });
                out.put_u32(tenant.0);
                owner.iter().for_each(|owner| put_owner(out, owner));
                put_option(out, *origin, |out, origin| {
                    put_session(out, origin.session);
                    out.put_u64(origin.number);
                    out.put_u64(origin.floor);
                });
                encode_message(out, message);
            }
            Self::Enqueue { session, epoch, since, copies } => {
                out.put_u8(kind::ENQUEUE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                out.put_u64(*since);
                put_list(out, copies, put_copy);
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_exactly_once(&self, out: &mut BytesMut) {
        match self {
            Self::Receive { session, epoch, packet } => {
                out.put_u8(kind::RECEIVE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                out.put_u16(*packet);
            }
            Self::PublishOnce { tenant, origin, message } => {
                out.put_u8(kind::PUBLISH_ONCE);
                out.put_u32(tenant.0);
                put_session(out, origin.session);
                out.put_u64(origin.number);
                out.put_u64(origin.floor);
                encode_message(out, message);
            }
            Self::Complete { session, epoch, packets } => {
                out.put_u8(kind::COMPLETE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_list(out, packets, |out, packet| out.put_u16(*packet));
            }
            Self::Release { session, epoch, offsets } => {
                out.put_u8(if epoch.is_some() { kind::RELEASE_BY } else { kind::RELEASE });
                put_session(out, *session);
                if let Some(epoch) = epoch {
                    out.put_u64(epoch.0);
                }
                put_list(out, offsets, |out, offset| out.put_u64(offset.0));
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_share(&self, out: &mut BytesMut) {
        match self {
            Self::JoinShare { tenant, filter, member, options, version } => {
                out.put_u8(kind::JOIN_SHARE);
                out.put_u32(tenant.0);
                put_text(out, filter);
                put_session(out, *member);
                put_options(out, *options);
                out.put_u64(*version);
            }
            Self::LeaveShare { tenant, filter, member, version } => {
                out.put_u8(kind::LEAVE_SHARE);
                out.put_u32(tenant.0);
                put_text(out, filter);
                put_session(out, *member);
                out.put_u64(*version);
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_meta_body(&self, out: &mut BytesMut) {
        match self {
            Self::CreateCluster { cluster, shards, nodes, replicas } => {
                out.put_u8(kind::CREATE_CLUSTER);
                out.put_u128(*cluster);
                out.put_u16(*shards);
                out.put_u8(*replicas);
                put_list(out, nodes, put_node);
            }
            Self::RegisterNode(record) => {
                out.put_u8(kind::REGISTER_NODE);
                put_node(out, record);
            }
            Self::SetRoute { tenant, filter, target, version, present } => {
                out.put_u8(kind::SET_ROUTE);
                out.put_u32(tenant.0);
                put_text(out, filter);
                put_target(out, *target);
                out.put_u64(*version);
                out.put_u8(u8::from(*present));
            }
            Self::DropNodeRoutes { node, gone } => {
                out.put_u8(kind::DROP_NODE_ROUTES);
                put_process(out, *node, *gone);
            }
            Self::SetTenant { tenant, name } => {
                out.put_u8(kind::SET_TENANT);
                out.put_u32(tenant.0);
                put_text(out, name);
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the match that calls this names every command"
    )]
    fn encode_member_body(&self, out: &mut BytesMut) {
        match self {
            Self::AddToken { token_hash, lifetime_ms } => {
                out.put_u8(kind::ADD_TOKEN);
                out.put_u128(*token_hash);
                out.put_u64(*lifetime_ms);
            }
            Self::JoinNode { token_hash, record } => {
                out.put_u8(kind::JOIN_NODE);
                out.put_u128(*token_hash);
                put_node(out, record);
            }
            Self::SetMember { node, state } => {
                out.put_u8(kind::SET_MEMBER);
                out.put_u64(node.0);
                out.put_u8(*state as u8);
            }
            Self::Place { group, from, to } => {
                out.put_u8(kind::PLACE);
                out.put_u16(group.0);
                put_list(out, from, |out, node| out.put_u64(node.0));
                put_list(out, to, |out, node| out.put_u64(node.0));
            }
            Self::Placed { group, voters } => {
                out.put_u8(kind::PLACED);
                out.put_u16(group.0);
                put_list(out, voters, |out, node| out.put_u64(node.0));
            }
            Self::SetLevel { level, programs } => {
                out.put_u8(kind::SET_LEVEL);
                out.put_u16(*level);
                put_list(out, programs, put_program);
            }
            Self::SetReplicas { replicas } => {
                out.put_u8(kind::SET_REPLICAS);
                out.put_u8(*replicas);
            }
            other => unreachable!("encode_body writes {other:?} itself"),
        }
    }

    /// Reads one frame: exactly one command, with its length in front.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`Command::encode`] of this version writes.
    pub fn decode(frame: &Bytes) -> Result<Self, Malformed> {
        if frame_len(frame)? != frame.len() {
            return Err(Malformed { what: "command frame" });
        }
        let mut reader = Reader::new(frame.slice(FRAME_HEADER_BYTES..), "command");
        let kind = reader.u8()?;
        let command = match kind {
            kind::PUBLISH => {
                let (tenant, from) = (reader.tenant()?, reader.option(Reader::session)?);
                return Ok(Self::Publish { tenant, from, message: read_message(reader.tail())? });
            }
            kind::PUBLISH_ONCE => {
                let tenant = reader.tenant()?;
                let session = reader.session()?;
                let origin = Origin { session, number: reader.u64()?, floor: reader.u64()? };
                let message = read_message(reader.tail())?;
                return Ok(Self::PublishOnce { tenant, origin, message });
            }
            kind::RECEIVE | kind::COMPLETE | kind::RELEASE | kind::RELEASE_BY => {
                Self::decode_exactly_once(kind, &mut reader)?
            }
            kind::SETTLE => Self::Settle {
                session: reader.session()?,
                upto: reader.offset()?,
                also: reader.list(8, Reader::offset)?,
            },
            kind @ (kind::OPEN_SESSION | kind::OPEN_WITH_WILL) => {
                return read_open(reader, kind == kind::OPEN_WITH_WILL);
            }
            kind @ (kind::CLOSE_SESSION | kind::SAY_GOODBYE) => Self::CloseSession {
                session: reader.session()?,
                epoch: reader.epoch()?,
                expiry_s: reader.option(Reader::u32)?,
                forget_will: kind == kind::SAY_GOODBYE,
            },
            kind @ (kind::RETAIN | kind::RETAIN_OWNED | kind::ENQUEUE | kind::WILLS_DONE) => {
                return Self::decode_kept(kind, reader);
            }
            audit::AUDITED => return Ok(Self::Audited(Box::new(audit::read_command(reader)?))),
            kind::NODE_GONE => read_node_gone(&mut reader)?,
            kind::SUBSCRIBE => Self::Subscribe {
                session: reader.session()?,
                epoch: reader.epoch()?,
                subscriptions: reader.list(5, |reader| {
                    let options = reader.options()?;
                    Ok(Subscription { filter: reader.text()?, options })
                })?,
            },
            kind::UNSUBSCRIBE => Self::Unsubscribe {
                session: reader.session()?,
                epoch: reader.epoch()?,
                filters: reader.list(4, Reader::text)?,
            },
            kind::JOIN_SHARE | kind::LEAVE_SHARE => Self::decode_share(kind, &mut reader)?,
            presence::REPORT => Self::Presence(presence::read_command(&mut reader)?),
            mail::FIRST_KIND..=mail::LAST_KIND | mail::SEND_KNOWN | mail::SETTLE_IF => {
                Self::Mail(mail::read_command(kind, &mut reader)?)
            }
            events::FIRST_KIND..=events::LAST_KIND
            | values::FIRST_KIND..=values::LAST_KIND
            | calls::FIRST_KIND..=calls::LAST_KIND
            | documents::FIRST_KIND..=documents::LAST_KIND => Self::decode_said(kind, &mut reader)?,
            kind::TICK => Self::Tick,
            kind::DIGEST => Self::Digest,
            registry::kind::PUT_TENANT..=registry::kind::DELETE_LOOKUP => {
                registry::decode(kind, &mut reader)?
            }
            other => Self::decode_meta(other, &mut reader)?,
        };
        reader.end()?;
        Ok(command)
    }

    fn decode_said(kind: u8, reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(match kind {
            values::FIRST_KIND..=values::LAST_KIND => {
                Self::Values(values::read_command(kind, reader)?)
            }
            calls::FIRST_KIND..=calls::LAST_KIND => Self::Calls(calls::read_command(kind, reader)?),
            documents::FIRST_KIND..=documents::LAST_KIND => {
                Self::Documents(documents::read_command(kind, reader)?)
            }
            _ => Self::Events(events::read_command(kind, reader)?),
        })
    }

    fn decode_forget(kind: u8, reader: &mut Reader) -> Result<Self, Malformed> {
        let owners = reader.list(OWNER_BYTES_MIN, read_owner)?;
        Ok(match kind {
            kind::FORGET => Self::Forget(Forget { owners }),
            _ => Self::Forgotten(Forgotten { owners }),
        })
    }

    fn decode_exactly_once(kind: u8, reader: &mut Reader) -> Result<Self, Malformed> {
        let session = reader.session()?;
        if kind == kind::RELEASE {
            let offsets = reader.list(8, Reader::offset)?;
            return Ok(Self::Release { session, epoch: None, offsets });
        }
        let epoch = reader.epoch()?;
        if kind == kind::RELEASE_BY {
            let offsets = reader.list(8, Reader::offset)?;
            return Ok(Self::Release { session, epoch: Some(epoch), offsets });
        }
        Ok(if kind == kind::RECEIVE {
            Self::Receive { session, epoch, packet: reader.u16()? }
        } else {
            Self::Complete { session, epoch, packets: reader.list(2, Reader::u16)? }
        })
    }

    fn decode_share(kind: u8, reader: &mut Reader) -> Result<Self, Malformed> {
        let (tenant, filter, member) = (reader.tenant()?, reader.text()?, reader.session()?);
        Ok(if kind == kind::JOIN_SHARE {
            let (options, version) = (reader.options()?, reader.u64()?);
            Self::JoinShare { tenant, filter, member, options, version }
        } else {
            Self::LeaveShare { tenant, filter, member, version: reader.u64()? }
        })
    }

    fn decode_kept(kind: u8, mut reader: Reader) -> Result<Self, Malformed> {
        let command = match kind {
            kind::RETAIN | kind::RETAIN_OWNED => {
                let tenant = reader.tenant()?;
                let owned = kind == kind::RETAIN_OWNED;
                let owner = owned.then(|| read_owner(&mut reader)).transpose()?;
                let origin = reader.option(|reader| {
                    let session = reader.session()?;
                    Ok(Origin { session, number: reader.u64()?, floor: reader.u64()? })
                })?;
                let message = read_message(reader.tail())?;
                return Ok(Self::Retain { tenant, owner, origin, message });
            }
            kind::ENQUEUE => Self::Enqueue {
                session: reader.session()?,
                epoch: reader.epoch()?,
                since: reader.u64()?,
                copies: reader.list(COPY_BYTES_MIN, read_copy)?,
            },
            kind::WILLS_DONE => Self::WillsDone { numbers: reader.list(8, Reader::u64)? },
            _ => return Err(Malformed { what: "command kind" }),
        };
        reader.end()?;
        Ok(command)
    }

    fn decode_meta(kind: u8, reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(match kind {
            kind::CREATE_CLUSTER => Self::CreateCluster {
                cluster: reader.u128()?,
                shards: reader.u16()?,
                replicas: reader.u8()?,
                nodes: reader.list(36, read_node)?,
            },
            kind::REGISTER_NODE => Self::RegisterNode(read_node(reader)?),
            kind::SET_ROUTE => Self::SetRoute {
                tenant: reader.tenant()?,
                filter: reader.text()?,
                target: reader.target()?,
                version: reader.u64()?,
                present: reader.bool()?,
            },
            kind::DROP_NODE_ROUTES => {
                let (node, gone) = read_process(reader)?;
                Self::DropNodeRoutes { node, gone }
            }
            kind::SET_TENANT => Self::SetTenant { tenant: reader.tenant()?, name: reader.text()? },
            kind::ADD_TOKEN => {
                Self::AddToken { token_hash: reader.u128()?, lifetime_ms: reader.u64()? }
            }
            kind::JOIN_NODE => {
                Self::JoinNode { token_hash: reader.u128()?, record: read_node(reader)? }
            }
            kind::SET_MEMBER => {
                let (node, state) = (NodeId(reader.u64()?), reader.u8()?);
                let malformed = Malformed { what: "member state" };
                Self::SetMember { node, state: MemberState::from_number(state).ok_or(malformed)? }
            }
            kind::PLACE => Self::Place {
                group: ShardId(reader.u16()?),
                from: reader.list(8, read_node_id)?,
                to: reader.list(8, read_node_id)?,
            },
            kind::PLACED => Self::Placed {
                group: ShardId(reader.u16()?),
                voters: reader.list(8, read_node_id)?,
            },
            kind::SET_LEVEL => Self::SetLevel {
                level: reader.u16()?,
                programs: reader.list(PROGRAM_BYTES, read_program)?,
            },
            kind::SET_REPLICAS => Self::SetReplicas { replicas: reader.u8()? },
            kind::FORGET | kind::FORGOTTEN => Self::decode_forget(kind, reader)?,
            _ => return Err(Malformed { what: "command kind" }),
        })
    }
}

/// The least bytes of an owner: as below.
const OWNER_BYTES_MIN: usize = 16;

/// The least bytes of a copy: lets a count be checked before anything is allocated for it.
const COPY_BYTES_MIN: usize = 15;

/// `QoS u8 | ids u8, u32 each | len u32 | message`
fn put_copy(out: &mut BytesMut, copy: &Enqueued) {
    let Enqueued { qos, ids, message } = copy;
    let ids = ids.as_slice();
    out.put_u8(*qos as u8);
    out.put_u8(u8::try_from(ids.len()).expect("SUBSCRIPTIONS_PER_SESSION_MAX fits"));
    ids.iter().for_each(|id| out.put_u32(*id));
    out.put_u32(u32::try_from(message_len(message)).expect("no packet of 4 GiB passed any edge"));
    encode_message(out, message);
}

fn read_copy(reader: &mut Reader) -> Result<Enqueued, Malformed> {
    let qos = reader.qos()?;
    let count = reader.u8()?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(NonZeroU32::new(reader.u32()?).ok_or(reader.malformed())?);
    }
    if !ids.is_sorted() {
        return Err(reader.malformed());
    }
    let bytes = reader.u32()? as usize;
    let message = read_message(reader.slice(bytes)?)?;
    Ok(Enqueued { qos, ids: ids.into_iter().collect(), message })
}

fn read_open(mut reader: Reader, with_will: bool) -> Result<Command, Malformed> {
    let (tenant, client) = (reader.tenant()?, reader.text()?);
    let (clean_start, expiry_s, holder) = (reader.bool()?, reader.u32()?, reader.holder()?);
    let (limits, sessions_max) = (reader.limits()?, reader.u32()?);
    let will = if with_will {
        let delay_s = reader.u32()?;
        Some(Box::new(Will { delay_s, message: read_message(reader.tail())? }))
    } else {
        reader.end()?;
        None
    };
    Ok(Command::OpenSession {
        tenant,
        client,
        clean_start,
        expiry_s,
        holder,
        limits,
        sessions_max,
        will,
    })
}

pub(crate) fn put_node(out: &mut BytesMut, record: &NodeRecord) {
    out.put_u64(record.node.0);
    out.put_u128(record.store);
    out.put_u64(record.incarnation.0);
    put_text(out, &record.address);
}

pub(crate) fn read_node(reader: &mut Reader) -> Result<NodeRecord, Malformed> {
    Ok(NodeRecord {
        node: NodeId(reader.u64()?),
        store: reader.u128()?,
        incarnation: Incarnation(reader.u64()?),
        address: reader.text()?,
    })
}

/// Of a node and its program.
pub(crate) const PROGRAM_BYTES: usize = 8 + 5 * 2;

/// `node u64 | lowest u16 | highest u16 | major u16 | minor u16 | patch u16`
pub(crate) fn put_program(out: &mut BytesMut, (node, program): &(NodeId, Program)) {
    let Program { levels: Levels { min, max }, version } = program;
    out.put_u64(node.0);
    [*min, *max].iter().chain(version).for_each(|number| out.put_u16(*number));
}

pub(crate) fn read_program(reader: &mut Reader) -> Result<(NodeId, Program), Malformed> {
    let node = NodeId(reader.u64()?);
    let levels = Levels { min: reader.u16()?, max: reader.u16()? };
    let version = [reader.u16()?, reader.u16()?, reader.u16()?];
    Ok((node, Program { levels, version }))
}

fn read_node_id(reader: &mut Reader) -> Result<NodeId, Malformed> {
    reader.u64().map(NodeId)
}

fn put_process(out: &mut BytesMut, node: NodeId, process: Incarnation) {
    out.put_u64(node.0);
    out.put_u64(process.0);
}

fn read_node_gone(reader: &mut Reader) -> Result<Command, Malformed> {
    let (node, gone) = read_process(reader)?;
    Ok(Command::NodeGone { node, gone })
}

fn read_process(reader: &mut Reader) -> Result<(NodeId, Incarnation), Malformed> {
    Ok((NodeId(reader.u64()?), Incarnation(reader.u64()?)))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
