//! Commands in bytes: `len u32 | kind u8 | body`, where `len` counts the kind and the body.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{Incarnation, NodeId};

use super::{
    Malformed, Reader, TooLarge, encode_message, put_holder, put_list, put_option, put_session,
    put_target, put_text, read_message,
};
use crate::command::{Command, NodeRecord, Subscription};

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
    pub(super) const CREATE_CLUSTER: u8 = 32;
    pub(super) const REGISTER_NODE: u8 = 33;
    pub(super) const SET_ROUTE: u8 = 34;
    pub(super) const DROP_NODE_ROUTES: u8 = 35;
    pub(super) const SET_TENANT: u8 = 36;
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

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Self::OpenSession { tenant, client, clean_start, expiry_s, holder } => {
                out.put_u8(kind::OPEN_SESSION);
                out.put_u32(tenant.0);
                put_text(out, client);
                out.put_u8(u8::from(*clean_start));
                out.put_u32(*expiry_s);
                put_holder(out, *holder);
            }
            Self::CloseSession { session, epoch, expiry_s } => {
                out.put_u8(kind::CLOSE_SESSION);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_option(out, *expiry_s, BufMut::put_u32);
            }
            Self::NodeGone { node, alive } => {
                out.put_u8(kind::NODE_GONE);
                put_process(out, *node, *alive);
            }
            Self::Subscribe { session, epoch, subscriptions } => {
                out.put_u8(kind::SUBSCRIBE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_list(out, subscriptions, |out, subscription| {
                    out.put_u8(subscription.qos as u8);
                    put_text(out, &subscription.filter);
                });
            }
            Self::Unsubscribe { session, epoch, filters } => {
                out.put_u8(kind::UNSUBSCRIBE);
                put_session(out, *session);
                out.put_u64(epoch.0);
                put_list(out, filters, put_text);
            }
            Self::Publish { tenant, message } => {
                out.put_u8(kind::PUBLISH);
                out.put_u32(tenant.0);
                encode_message(out, message);
            }
            Self::Settle { session, upto, also } => {
                out.put_u8(kind::SETTLE);
                put_session(out, *session);
                out.put_u64(upto.0);
                put_list(out, also, |out, offset| out.put_u64(offset.0));
            }
            Self::Tick => out.put_u8(kind::TICK),
            Self::Digest => out.put_u8(kind::DIGEST),
            Self::CreateCluster { .. }
            | Self::RegisterNode(_)
            | Self::SetRoute { .. }
            | Self::DropNodeRoutes { .. }
            | Self::SetTenant { .. } => self.encode_meta_body(out),
        }
    }

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
            Self::DropNodeRoutes { node, alive } => {
                out.put_u8(kind::DROP_NODE_ROUTES);
                put_process(out, *node, *alive);
            }
            Self::SetTenant { tenant, name } => {
                out.put_u8(kind::SET_TENANT);
                out.put_u32(tenant.0);
                put_text(out, name);
            }
            Self::OpenSession { .. }
            | Self::CloseSession { .. }
            | Self::NodeGone { .. }
            | Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Publish { .. }
            | Self::Settle { .. }
            | Self::Tick
            | Self::Digest => unreachable!("encode_body writes these itself"),
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
        let command = match reader.u8()? {
            kind::PUBLISH => {
                let tenant = reader.tenant()?;
                return Ok(Self::Publish { tenant, message: read_message(reader.tail())? });
            }
            kind::SETTLE => Self::Settle {
                session: reader.session()?,
                upto: reader.offset()?,
                also: reader.list(8, Reader::offset)?,
            },
            kind::OPEN_SESSION => Self::OpenSession {
                tenant: reader.tenant()?,
                client: reader.text()?,
                clean_start: reader.bool()?,
                expiry_s: reader.u32()?,
                holder: reader.holder()?,
            },
            kind::CLOSE_SESSION => Self::CloseSession {
                session: reader.session()?,
                epoch: reader.epoch()?,
                expiry_s: reader.option(Reader::u32)?,
            },
            kind::NODE_GONE => {
                let (node, alive) = read_process(&mut reader)?;
                Self::NodeGone { node, alive }
            }
            kind::SUBSCRIBE => Self::Subscribe {
                session: reader.session()?,
                epoch: reader.epoch()?,
                subscriptions: reader.list(5, |reader| {
                    let qos = reader.qos()?;
                    Ok(Subscription { filter: reader.text()?, qos })
                })?,
            },
            kind::UNSUBSCRIBE => Self::Unsubscribe {
                session: reader.session()?,
                epoch: reader.epoch()?,
                filters: reader.list(4, Reader::text)?,
            },
            kind::TICK => Self::Tick,
            kind::DIGEST => Self::Digest,
            other => Self::decode_meta(other, &mut reader)?,
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
                let (node, alive) = read_process(reader)?;
                Self::DropNodeRoutes { node, alive }
            }
            kind::SET_TENANT => Self::SetTenant { tenant: reader.tenant()?, name: reader.text()? },
            _ => return Err(Malformed { what: "command kind" }),
        })
    }
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

fn put_process(out: &mut BytesMut, node: NodeId, alive: Option<Incarnation>) {
    out.put_u64(node.0);
    put_option(out, alive, |out, alive| out.put_u64(alive.0));
}

fn read_process(reader: &mut Reader) -> Result<(NodeId, Option<Incarnation>), Malformed> {
    let node = NodeId(reader.u64()?);
    Ok((node, reader.option(|reader| reader.u64().map(Incarnation))?))
}
