//! What lies in the log and beside the rows.
//!
//! ```text
//!   entry     version 1 | kind u8 (0 blank, 1 commands, 2 membership) | term u64 | leader u64 | payload
//!   vote      version 1 | term u64 | node u64 | committed u8
//!   log id    version 1 | term u64 | leader u64 | index u64
//!   applied   version 1 | log id? | membership: log id? | configs | nodes
//! ```
//!
//! The log engine counts from 1 and knows no term; openraft counts from 0 ([`position`], [`index`]).

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Malformed,
    parts::{
        Reader, put_leader_id, put_log_id, put_membership, put_option, put_stored_membership,
        put_vote,
    },
};
use crate::types::{Commands, RaftEntry, RaftLogId, RaftPayload, RaftStoredMembership, RaftVote};

const ENTRY_VERSION: u8 = 1;
const VOTE_VERSION: u8 = 1;
const LOG_ID_VERSION: u8 = 1;
const APPLIED_VERSION: u8 = 1;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes in front of an entry's payload.
pub(crate) const ENTRY_HEADER_BYTES: usize = 18;

/// Where the entry with this Raft index lies in the log engine, whose 0 means "nothing".
pub(crate) fn position(index: u64) -> u64 {
    index + 1
}

/// The Raft index of a place in the log engine.
///
/// # Panics
///
/// If it is 0, which no entry has.
pub(crate) fn index(position: u64) -> u64 {
    position.checked_sub(1).expect("the log engine counts from 1")
}

/// How many bytes an entry's payload takes.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> usize {
    match &entry.payload {
        RaftPayload::Blank => ENTRY_HEADER_BYTES,
        RaftPayload::Normal(Commands(bytes)) => ENTRY_HEADER_BYTES + bytes.len(),
        RaftPayload::Membership(membership) => {
            ENTRY_HEADER_BYTES
                + membership.nodes().map(|(_, node)| 32 + node.0.len()).sum::<usize>()
        }
    }
}

/// Appends an entry without its index.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &RaftEntry) {
    out.put_u8(ENTRY_VERSION);
    out.put_u8(match entry.payload {
        RaftPayload::Blank => BLANK,
        RaftPayload::Normal(_) => COMMANDS,
        RaftPayload::Membership(_) => MEMBERSHIP,
    });
    put_leader_id(out, &entry.log_id.leader_id);
    match &entry.payload {
        RaftPayload::Blank => {}
        RaftPayload::Normal(Commands(bytes)) => out.put_slice(bytes),
        RaftPayload::Membership(membership) => put_membership(out, membership),
    }
}

pub(crate) fn encode_entry(entry: &RaftEntry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_bytes(entry));
    put_entry(&mut out, entry);
    out.freeze()
}

/// The commands stay a slice of `bytes`.
pub(crate) fn decode_entry(index: u64, bytes: Bytes) -> Result<RaftEntry, Malformed> {
    let mut reader = Reader::versioned(bytes, ENTRY_VERSION, "log entry")?;
    let kind = reader.u8()?;
    let log_id = RaftLogId::new(reader.leader_id()?, index);
    let payload = match kind {
        BLANK => {
            reader.end()?;
            RaftPayload::Blank
        }
        COMMANDS => RaftPayload::Normal(Commands(reader.rest())),
        MEMBERSHIP => {
            let membership = reader.membership()?;
            reader.end()?;
            RaftPayload::Membership(membership)
        }
        _ => return Err(Malformed("log entry")),
    };
    Ok(RaftEntry { log_id, payload })
}

pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VOTE_VERSION);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<RaftVote, Malformed> {
    let mut reader = Reader::versioned(bytes, VOTE_VERSION, "vote")?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

pub(crate) fn encode_log_id(id: &RaftLogId) -> Bytes {
    let mut out = BytesMut::with_capacity(25);
    out.put_u8(LOG_ID_VERSION);
    put_log_id(&mut out, id);
    out.freeze()
}

pub(crate) fn decode_log_id(bytes: Bytes) -> Result<RaftLogId, Malformed> {
    let mut reader = Reader::versioned(bytes, LOG_ID_VERSION, "log id")?;
    let id = reader.log_id()?;
    reader.end()?;
    Ok(id)
}

/// How far a group's rows are, and who its members were then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub(crate) log_id: Option<RaftLogId>,
    pub(crate) membership: RaftStoredMembership,
}

impl Applied {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(APPLIED_VERSION);
        put_option(&mut out, self.log_id.as_ref(), put_log_id);
        put_stored_membership(&mut out, &self.membership);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, APPLIED_VERSION, "applied row")?;
        let log_id = reader.option(Reader::log_id)?;
        let membership = reader.stored_membership()?;
        reader.end()?;
        Ok(Self { log_id, membership })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::{Address, LeaderId, RaftMembership};

    fn log_id(term: u64, node: u64, index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term, node_id: node }, index)
    }

    fn membership() -> RaftMembership {
        let nodes = BTreeMap::from([(1, Address("a:1".into())), (2, Address(String::new()))]);
        RaftMembership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn entries_lie_on_disk_as_they_always_did() {
        let entry = |payload| RaftEntry { log_id: log_id(3, 2, 9), payload };
        #[rustfmt::skip]
        let table = [
            (entry(RaftPayload::Blank),
             "010000000000000000030000000000000002"),
            (entry(RaftPayload::Normal(Commands(Bytes::from_static(b"xyz")))),
             "01010000000000000003000000000000000278797a"),
            (entry(RaftPayload::Membership(membership())),
             "0102000000000000000300000000000000020002000200000000000000010000000000000002\
              00010000000000000002000200000000000000010003613a3100000000000000020000"),
        ];
        for (entry, golden) in table {
            let bytes = encode_entry(&entry);
            assert_eq!(hex(&bytes), golden.replace(' ', ""), "{entry}");
            assert_eq!(decode_entry(9, bytes), Ok(entry));
        }
    }

    #[test]
    fn marks_and_the_applied_row_lie_on_disk_as_they_always_did() {
        let vote = RaftVote::new_committed(5, 3);
        assert_eq!(hex(&encode_vote(&vote)), "010000000000000005000000000000000301");
        assert_eq!(decode_vote(encode_vote(&vote)), Ok(vote));

        let id = log_id(1, 2, 3);
        let golden = "01000000000000000100000000000000020000000000000003";
        assert_eq!(hex(&encode_log_id(&id)), golden);
        assert_eq!(decode_log_id(encode_log_id(&id)), Ok(id));

        let applied =
            Applied { log_id: Some(id), membership: RaftStoredMembership::new(None, membership()) };
        let golden = "0101000000000000000100000000000000020000000000000003000002000200000000000000\
                      01000000000000000200010000000000000002000200000000000000010003613a31\
                      00000000000000020000";
        assert_eq!(hex(&applied.encode()), golden.replace(' ', ""));
        assert_eq!(Applied::decode(applied.encode()), Ok(applied));
        assert_eq!(Applied::decode(Applied::default().encode()), Ok(Applied::default()));
    }

    #[test]
    fn whatever_is_cut_off_or_unknown_is_malformed() {
        let whole = encode_entry(&RaftEntry {
            log_id: log_id(3, 2, 9),
            payload: RaftPayload::Membership(membership()),
        });
        for end in 0..whole.len() {
            assert!(decode_entry(9, whole.slice(..end)).is_err(), "{end} bytes");
        }
        let mut other = whole.to_vec();
        other.push(0);
        assert!(decode_entry(9, Bytes::from(other)).is_err(), "trailing bytes");
        for (at, value) in [(0, 2), (1, 3)] {
            let mut other = whole.to_vec();
            other[at] = value;
            assert!(decode_entry(9, Bytes::from(other)).is_err(), "byte {at} = {value}");
        }
        let vote = encode_vote(&RaftVote::new(1, 1));
        for end in 0..vote.len() {
            assert!(decode_vote(vote.slice(..end)).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn the_first_entry_of_raft_is_the_first_of_the_engine() {
        assert_eq!((position(0), index(1)), (1, 0));
    }
}
