//! What services say to each other about shares, as bytes. Versioned, as all frames (`frames`); pushes for members are
//! written as those for sessions are.

use bytes::Bytes;
use moorline_core::{ConnId, Offset, TenantId, Text};
use moorline_machine::command::SessionId;
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};

use crate::frames::{read_session, session};

const VERSION: u8 = 1;
/// Room that most frames fit into.
const FRAME_BYTES: usize = 256;

/// A member's connection can take messages: to the leader of the share's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareAttach {
    pub(crate) tenant: TenantId,
    /// The whole filter.
    pub(crate) filter: Text,
    pub(crate) member: SessionId,
    pub(crate) conn: ConnId,
    /// Tells this attachment from earlier ones of the same connection, and from those to other shares.
    pub(crate) generation: u64,
    /// How many messages it can hold unsettled.
    pub(crate) capacity: u32,
    /// The share that lent it what it holds.
    pub(crate) share: Option<SessionId>,
    /// What it holds already, ascending: nobody else gets it meanwhile.
    pub(crate) held: Vec<Offset>,
}

impl ShareAttach {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(VERSION, FRAME_BYTES + 8 * self.held.len());
        out.u32(self.tenant.0);
        out.text(&self.filter);
        session(&mut out, self.member);
        out.u64(self.conn.0);
        out.u64(self.generation);
        out.u32(self.capacity);
        out.u8(u8::from(self.share.is_some()));
        if let Some(share) = self.share {
            session(&mut out, share);
        }
        out.u32(u32::try_from(self.held.len()).expect("no more than the capacity"));
        self.held.iter().for_each(|offset| out.u64(offset.0));
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "share attachment frame")?;
        let mut attach = Self {
            tenant: TenantId(from.u32()?),
            filter: from.text()?,
            member: read_session(&mut from)?,
            conn: ConnId(from.u64()?),
            generation: from.u64()?,
            capacity: from.u32()?,
            share: read_share(&mut from)?,
            held: Vec::new(),
        };
        for _ in 0..from.u32()? {
            attach.held.push(Offset(from.u64()?));
        }
        from.end()?;
        Ok(attach)
    }
}

/// A leader's answer to a [`ShareAttach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareAttached {
    /// The id of the share, to settle with.
    Yes(SessionId),
    /// This node does not lead the shard (any more, or yet).
    NotLeader,
    /// The share does not know this member.
    Unknown,
}

impl ShareAttached {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Writer::new(VERSION, 16);
        match self {
            Self::Yes(share) => {
                out.u8(1);
                session(&mut out, share);
            }
            Self::NotLeader => out.u8(2),
            Self::Unknown => out.u8(3),
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "share answer frame")?;
        let attached = match from.u8()? {
            1 => Self::Yes(read_session(&mut from)?),
            2 => Self::NotLeader,
            3 => Self::Unknown,
            other => return Err(from.corrupt(format!("kind {other}"))),
        };
        from.end()?;
        Ok(attached)
    }
}

fn read_share(from: &mut Reader) -> Result<Option<SessionId>, StorageError> {
    match from.u8()? {
        0 => Ok(None),
        1 => Ok(Some(read_session(from)?)),
        other => Err(from.corrupt(format!("share {other}"))),
    }
}

/// A member's connection takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareDetach {
    /// Where it was attached, if that was heard: a connection may end before.
    pub(crate) share: Option<SessionId>,
    pub(crate) conn: ConnId,
    pub(crate) generation: u64,
}

impl ShareDetach {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Writer::new(VERSION, 32);
        out.u64(self.conn.0);
        out.u64(self.generation);
        out.u8(u8::from(self.share.is_some()));
        if let Some(share) = self.share {
            session(&mut out, share);
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "share detachment frame")?;
        let (conn, generation) = (ConnId(from.u64()?), from.u64()?);
        let share = read_share(&mut from)?;
        let detach = Self { share, conn, generation };
        from.end()?;
        Ok(detach)
    }
}

/// Asks the leader of sessions which of these are not subscribed; the answer says so for each, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareCheck {
    pub(crate) memberships: Vec<(SessionId, Text)>,
}

impl ShareCheck {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(VERSION, FRAME_BYTES);
        for (member, filter) in &self.memberships {
            session(&mut out, *member);
            out.text(filter);
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "share check frame")?;
        let mut memberships = Vec::new();
        while !from.is_empty() {
            memberships.push((read_session(&mut from)?, from.text()?));
        }
        Ok(Self { memberships })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: SessionId = SessionId { bucket: 1, number: 2 };
    const MEMBER: SessionId = SessionId { bucket: 3, number: 4 };

    #[test]
    fn frames_of_shares_come_back_and_cut_ones_do_not() {
        let attach = ShareAttach {
            tenant: TenantId(1),
            filter: Text::from("$share/g/a"),
            member: MEMBER,
            conn: ConnId(5),
            generation: 6,
            capacity: 7,
            share: Some(SHARE),
            held: vec![Offset(8), Offset(9)],
        };
        let bytes = attach.encode();
        assert_eq!(ShareAttach::decode(bytes.clone()).unwrap(), attach);
        assert!((1..bytes.len()).all(|cut| ShareAttach::decode(bytes.slice(..cut)).is_err()));

        for attached in
            [ShareAttached::Yes(SHARE), ShareAttached::NotLeader, ShareAttached::Unknown]
        {
            assert_eq!(ShareAttached::decode(attached.encode()).unwrap(), attached);
        }
        for share in [None, Some(SHARE)] {
            let detach = ShareDetach { share, conn: ConnId(5), generation: 3 };
            assert_eq!(ShareDetach::decode(detach.encode()).unwrap(), detach);
        }
        let check = ShareCheck {
            memberships: vec![(MEMBER, "$share/g/a".into()), (SHARE, "$share/g/b".into())],
        };
        assert_eq!(ShareCheck::decode(check.encode()).unwrap(), check);
    }
}
