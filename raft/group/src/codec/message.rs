//! What the groups of two nodes say to each other. The shard and the kind are in the wire's header.
//!
//! ```text
//!   append     version 1 | vote | previous log id? | committed log id? | n u32 | n × (index u64 | len u32 | entry)
//!   appended   version 1 | 0 | 1 log id? (partly) | 2 (conflict) | 3 vote (higher)
//!   vote       version 1 | vote | last log id? | transfer u8        voted     version 1 | vote | granted u8 | last log id?
//!   transfer   version 1 | vote | to u64 | last log id?             moved     version 1 | 0 | 1 vote vote | 2 log id? log id?
//!   matched    version 1                                            matches   version 1 | leading u8 | leader? | matched log id?
//!   begin      version 1 | vote | last log id? | membership | n u32 | n × (name | bytes u64 | crc u32)
//!   chunk      version 1 | transfer u64 | file u32 | offset u64 | crc u32 | data
//!   end        version 1 | transfer u64                             installed version 1 | vote
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::{
    Malformed,
    disk::{decode_entry, entry_bytes, put_entry},
    parts::{Reader, put_log_id, put_option, put_stored_membership, put_text, put_vote},
};
use crate::types::{RaftLogId, RaftSnapshotMeta, RaftVote, Types};

const VERSION: u8 = 1;

fn begin(bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(bytes);
    out.put_u8(VERSION);
    out
}

pub(crate) fn encode_append(request: &AppendEntriesRequest<Types>) -> Bytes {
    let entries: usize = request.entries.iter().map(|entry| 12 + entry_bytes(entry)).sum();
    let mut out = begin(80 + entries);
    put_vote(&mut out, &request.vote);
    put_option(&mut out, request.prev_log_id.as_ref(), put_log_id);
    put_option(&mut out, request.leader_commit.as_ref(), put_log_id);
    out.put_u32(u32::try_from(request.entries.len()).expect("limited by APPEND_ENTRIES_MAX"));
    for entry in &request.entries {
        out.put_u64(entry.log_id.index);
        let length_at = out.len();
        out.put_u32(0);
        put_entry(&mut out, entry);
        let length = u32::try_from(out.len() - length_at - 4).expect("limited by BATCH_BYTES_MAX");
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
    out.freeze()
}

pub(crate) fn decode_append(bytes: Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "append request")?;
    let vote = reader.vote()?;
    let prev_log_id = reader.option(Reader::log_id)?;
    let leader_commit = reader.option(Reader::log_id)?;
    let mut entries = Vec::new();
    for _ in 0..reader.u32()? {
        let index = reader.u64()?;
        entries.push(decode_entry(index, reader.sized()?)?);
    }
    reader.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn encode_appended(response: &AppendEntriesResponse<Types>) -> Bytes {
    let mut out = begin(32);
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(last) => {
            out.put_u8(1);
            put_option(&mut out, last.as_ref(), put_log_id);
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(crate) fn decode_appended(bytes: Bytes) -> Result<AppendEntriesResponse<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "append response")?;
    let response = match reader.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(reader.option(Reader::log_id)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(reader.vote()?),
        _ => return Err(Malformed("append response")),
    };
    reader.end()?;
    Ok(response)
}

pub(crate) fn encode_vote(request: &VoteRequest<Types>) -> Bytes {
    let mut out = begin(48);
    put_vote(&mut out, &request.vote);
    put_option(&mut out, request.last_log_id.as_ref(), put_log_id);
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<VoteRequest<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "vote request")?;
    let mut request = VoteRequest::new(reader.vote()?, reader.option(Reader::log_id)?);
    request.leadership_transfer = reader.flag()?;
    reader.end()?;
    Ok(request)
}

pub(crate) fn encode_voted(response: &VoteResponse<Types>) -> Bytes {
    let mut out = begin(48);
    put_vote(&mut out, &response.vote);
    out.put_u8(u8::from(response.vote_granted));
    put_option(&mut out, response.last_log_id.as_ref(), put_log_id);
    out.freeze()
}

pub(crate) fn decode_voted(bytes: Bytes) -> Result<VoteResponse<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "vote response")?;
    let vote = reader.vote()?;
    let vote_granted = reader.flag()?;
    let last_log_id = reader.option(Reader::log_id)?;
    reader.end()?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut out = begin(56);
    put_vote(&mut out, request.from_leader());
    out.put_u64(*request.to_node_id());
    put_option(&mut out, request.last_log_id(), put_log_id);
    out.freeze()
}

pub(crate) fn decode_transfer(bytes: Bytes) -> Result<TransferLeaderRequest<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "transfer request")?;
    let (vote, to) = (reader.vote()?, reader.u64()?);
    let last = reader.option(Reader::log_id)?;
    reader.end()?;
    Ok(TransferLeaderRequest::new(vote, to, last))
}

pub(crate) fn encode_moved(response: &TransferLeaderResponse<Types>) -> Bytes {
    let mut out = begin(64);
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_option(&mut out, expected.as_ref(), put_log_id);
            put_option(&mut out, actual.as_ref(), put_log_id);
        }
    }
    out.freeze()
}

pub(crate) fn decode_moved(bytes: Bytes) -> Result<TransferLeaderResponse<Types>, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "transfer response")?;
    let response = match reader.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: reader.vote()?,
            actual: reader.vote()?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: reader.option(Reader::log_id)?,
            actual: reader.option(Reader::log_id)?,
        }),
        _ => return Err(Malformed("transfer response")),
    };
    reader.end()?;
    Ok(response)
}

/// "How much log do I have, as you know it?", asked at start-up.
pub(crate) fn encode_ask_matched() -> Bytes {
    begin(1).freeze()
}

pub(crate) fn decode_ask_matched(bytes: Bytes) -> Result<(), Malformed> {
    Reader::versioned(bytes, VERSION, "matched request")?.end()
}

/// What another voter knows about the asker's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Matched {
    /// The answering node leads the group.
    pub(crate) leading: bool,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<u64>,
    /// The last entry that the asker has confirmed to this leader.
    pub(crate) matched: Option<RaftLogId>,
}

impl Matched {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(48);
        out.put_u8(u8::from(self.leading));
        put_option(&mut out, self.leader.as_ref(), |out, leader| out.put_u64(*leader));
        put_option(&mut out, self.matched.as_ref(), put_log_id);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "matched answer")?;
        let leading = reader.flag()?;
        let leader = reader.option(Reader::u64)?;
        let matched = reader.option(Reader::log_id)?;
        reader.end()?;
        Ok(Self { leading, leader, matched })
    }
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
    pub(crate) keys: u64,
}

/// A snapshot that is about to be sent, or that lies staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: RaftVote,
    pub(crate) meta: RaftSnapshotMeta,
    pub(crate) files: Vec<SnapshotFile>,
}

impl SnapshotHead {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(256);
        put_vote(&mut out, &self.vote);
        put_option(&mut out, self.meta.last_log_id.as_ref(), put_log_id);
        put_stored_membership(&mut out, &self.meta.last_membership);
        out.put_u32(u32::try_from(self.files.len()).expect("files of 32 MiB"));
        for file in &self.files {
            put_text(&mut out, &file.name);
            out.put_u64(file.bytes);
            out.put_u32(file.crc32c);
            out.put_u64(file.keys);
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "snapshot head")?;
        let vote = reader.vote()?;
        let last_log_id = reader.option(Reader::log_id)?;
        let last_membership = reader.stored_membership()?;
        let mut files = Vec::new();
        for _ in 0..reader.u32()? {
            files.push(SnapshotFile {
                name: reader.text()?,
                bytes: reader.u64()?,
                crc32c: reader.u32()?,
                keys: reader.u64()?,
            });
        }
        reader.end()?;
        Ok(Self { vote, meta: RaftSnapshotMeta { last_log_id, last_membership }, files })
    }
}

/// A piece of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotChunk {
    pub(crate) transfer: u64,
    pub(crate) file: u32,
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
}

impl SnapshotChunk {
    /// The checksum is made here.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = begin(25 + self.data.len());
        out.put_u64(self.transfer);
        out.put_u32(self.file);
        out.put_u64(self.offset);
        out.put_u32(crc32c::crc32c(&self.data));
        out.put_slice(&self.data);
        out.freeze()
    }

    /// And checked here.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "snapshot chunk")?;
        let transfer = reader.u64()?;
        let (file, offset, crc) = (reader.u32()?, reader.u64()?, reader.u32()?);
        let data = reader.rest();
        if crc32c::crc32c(&data) != crc {
            return Err(Malformed("snapshot chunk"));
        }
        Ok(Self { transfer, file, offset, data })
    }
}

/// The number of a transfer: the answer to its head, and its end.
pub(crate) fn encode_transfer_id(transfer: u64) -> Bytes {
    let mut out = begin(9);
    out.put_u64(transfer);
    out.freeze()
}

pub(crate) fn decode_transfer_id(bytes: Bytes) -> Result<u64, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "transfer number")?;
    let transfer = reader.u64()?;
    reader.end()?;
    Ok(transfer)
}

/// How far a transfer has come that goes on: the answer to [`crate::wire::Kind::SnapshotResume`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// Its number from now on.
    pub(crate) transfer: u64,
    /// The file that is not whole; as many are.
    pub(crate) file: u32,
    /// How much of that one is there.
    pub(crate) offset: u64,
}

impl Resumed {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = begin(21);
        out.put_u64(self.transfer);
        out.put_u32(self.file);
        out.put_u64(self.offset);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "resumed transfer")?;
        let (transfer, file, offset) = (reader.u64()?, reader.u32()?, reader.u64()?);
        reader.end()?;
        Ok(Self { transfer, file, offset })
    }
}

/// The vote of whoever answers: to the end of a snapshot.
pub(crate) fn encode_installed(vote: &RaftVote) -> Bytes {
    let mut out = begin(18);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn decode_installed(bytes: Bytes) -> Result<RaftVote, Malformed> {
    let mut reader = Reader::versioned(bytes, VERSION, "snapshot answer")?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
