//! The parts that records and messages are made of: log ids, votes, memberships.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Malformed;
use crate::types::{Address, LeaderId, RaftLogId, RaftMembership, RaftStoredMembership, RaftVote};

/// Reads big-endian parts from the front of `rest`; `what` is said in errors.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    /// Checks the version byte, which must be `version`.
    pub(crate) fn versioned(
        bytes: Bytes,
        version: u8,
        what: &'static str,
    ) -> Result<Self, Malformed> {
        let mut reader = Self { rest: bytes, what };
        if reader.u8()? != version {
            return Err(Malformed(what));
        }
        Ok(reader)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.rest.try_get_u8().map_err(|_| Malformed(self.what))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed(self.what)),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.rest.try_get_u16().map_err(|_| Malformed(self.what))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.rest.try_get_u32().map_err(|_| Malformed(self.what))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.rest.try_get_u64().map_err(|_| Malformed(self.what))
    }

    /// `n` bytes, without copying.
    pub(crate) fn bytes(&mut self, n: usize) -> Result<Bytes, Malformed> {
        if self.rest.len() < n {
            return Err(Malformed(self.what));
        }
        Ok(self.rest.split_to(n))
    }

    /// Bytes behind their length as u32.
    pub(crate) fn sized(&mut self) -> Result<Bytes, Malformed> {
        let n = self.u32()?;
        self.bytes(n as usize)
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let n = self.u16()?;
        let bytes = self.bytes(usize::from(n))?;
        String::from_utf8(bytes.into()).map_err(|_| Malformed(self.what))
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn leader_id(&mut self) -> Result<LeaderId, Malformed> {
        Ok(LeaderId { term: self.u64()?, node_id: self.u64()? })
    }

    pub(crate) fn log_id(&mut self) -> Result<RaftLogId, Malformed> {
        Ok(RaftLogId::new(self.leader_id()?, self.u64()?))
    }

    pub(crate) fn vote(&mut self) -> Result<RaftVote, Malformed> {
        Ok(RaftVote { leader_id: self.leader_id()?, committed: self.flag()? })
    }

    pub(crate) fn membership(&mut self) -> Result<RaftMembership, Malformed> {
        let mut configs = Vec::new();
        for _ in 0..self.u16()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.u16()? {
                voters.insert(self.u64()?);
            }
            configs.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u16()? {
            nodes.insert(self.u64()?, Address(self.text()?));
        }
        RaftMembership::new(configs, nodes).map_err(|_| Malformed(self.what))
    }

    pub(crate) fn stored_membership(&mut self) -> Result<RaftStoredMembership, Malformed> {
        let log_id = self.option(Self::log_id)?;
        Ok(RaftStoredMembership::new(log_id, self.membership()?))
    }

    /// What was not read.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(self.what)) }
    }
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    put: impl FnOnce(&mut BytesMut, &T),
) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_leader_id(out: &mut BytesMut, id: &LeaderId) {
    out.put_u64(id.term);
    out.put_u64(id.node_id);
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: &RaftLogId) {
    put_leader_id(out, &id.leader_id);
    out.put_u64(id.index);
}

pub(crate) fn put_vote(out: &mut BytesMut, vote: &RaftVote) {
    put_leader_id(out, &vote.leader_id);
    out.put_u8(u8::from(vote.committed));
}

/// # Panics
///
/// If there are more than 65,535 voters or nodes, or an address is longer: the config refuses both.
pub(crate) fn put_membership(out: &mut BytesMut, membership: &RaftMembership) {
    let count = |n: usize| u16::try_from(n).expect("fewer nodes than 65,536");
    let configs = membership.get_joint_config();
    out.put_u16(count(configs.len()));
    for voters in configs {
        out.put_u16(count(voters.len()));
        for voter in voters {
            out.put_u64(*voter);
        }
    }
    out.put_u16(count(membership.nodes().count()));
    for (id, Address(address)) in membership.nodes() {
        out.put_u64(*id);
        put_text(out, address);
    }
}

pub(crate) fn put_stored_membership(out: &mut BytesMut, stored: &RaftStoredMembership) {
    put_option(out, stored.log_id().as_ref(), put_log_id);
    put_membership(out, stored.membership());
}

/// # Panics
///
/// If it is longer than 65,535 bytes.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).expect("addresses and file names are short"));
    out.put_slice(text.as_bytes());
}
