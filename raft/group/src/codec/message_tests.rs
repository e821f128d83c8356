//! The wire's bytes, frozen: nodes of two versions talk to each other during a rolling upgrade.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use super::*;
use crate::types::{
    Address, Commands, LeaderId, RaftEntry, RaftMembership, RaftPayload, RaftStoredMembership,
};

fn log_id(term: u64, node: u64, index: u64) -> RaftLogId {
    RaftLogId::new(LeaderId { term, node_id: node }, index)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes are golden, decode to the same, and nothing shorter or longer decodes.
fn check<T: Debug + PartialEq>(
    value: &T,
    bytes: Bytes,
    golden: &str,
    decode: impl Fn(Bytes) -> Result<T, Malformed>,
) {
    assert_eq!(hex(&bytes), golden.replace(' ', ""), "{value:?}");
    assert_eq!(decode(bytes.clone()).as_ref(), Ok(value));
    for end in 0..bytes.len() {
        assert!(decode(bytes.slice(..end)).is_err(), "{end} bytes of {value:?}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(decode(Bytes::from(longer)).is_err(), "a byte more than {value:?}");
    let mut newer = bytes.to_vec();
    newer[0] = 2;
    assert!(decode(Bytes::from(newer)).is_err(), "version 2 of {value:?}");
}

/// openraft's requests cannot be compared; what they say can.
fn parts(request: &AppendEntriesRequest<Types>) -> String {
    format!("{request:?}")
}

#[test]
fn appends_are_what_they_always_were() {
    let payload = RaftPayload::Normal(Commands(Bytes::from_static(b"ab")));
    let entry = |index, payload| RaftEntry { log_id: log_id(2, 1, index), payload };
    let request = AppendEntriesRequest::<Types> {
        vote: RaftVote::new_committed(2, 1),
        prev_log_id: Some(log_id(1, 3, 4)),
        entries: vec![entry(5, RaftPayload::Blank), entry(6, payload)],
        leader_commit: None,
    };
    let golden = "01 0000000000000002 0000000000000001 01 \
                  01 0000000000000001 0000000000000003 0000000000000004 00 00000002 \
                  0000000000000005 00000012 01 00 0000000000000002 0000000000000001 \
                  0000000000000006 00000014 01 01 0000000000000002 0000000000000001 6162";
    let bytes = encode_append(&request);
    let decode = |bytes| decode_append(bytes).map(|request| parts(&request));
    check(&parts(&request), bytes, golden, decode);
    let decoded = decode_append(encode_append(&request)).unwrap();
    assert_eq!(decoded.entries, request.entries);
}

#[test]
fn append_answers_are_what_they_always_were() {
    #[rustfmt::skip]
    let table = [
        (AppendEntriesResponse::Success,              "01 00"),
        (AppendEntriesResponse::PartialSuccess(None), "01 01 00"),
        (AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2, 3))),
         "01 01 01 0000000000000001 0000000000000002 0000000000000003"),
        (AppendEntriesResponse::Conflict,             "01 02"),
        (AppendEntriesResponse::HigherVote(RaftVote::new(7, 2)),
         "01 03 0000000000000007 0000000000000002 00"),
    ];
    for (response, golden) in table {
        check(&response, encode_appended(&response), golden, decode_appended);
    }
}

#[test]
fn votes_are_what_they_always_were() {
    let mut request = VoteRequest::new(RaftVote::new(7, 2), Some(log_id(1, 2, 3)));
    request.leadership_transfer = true;
    let golden = "01 0000000000000007 0000000000000002 00 \
                  01 0000000000000001 0000000000000002 0000000000000003 01";
    check(&request, encode_vote(&request), golden, decode_vote);

    let response = VoteResponse::new(RaftVote::new(7, 2), None, true);
    let golden = "01 0000000000000007 0000000000000002 00 01 00";
    check(&response, encode_voted(&response), golden, decode_voted);
}

#[test]
fn transfers_are_what_they_always_were() {
    let vote = RaftVote::new_committed(7, 2);
    let request = TransferLeaderRequest::new(vote, 3, Some(log_id(1, 2, 3)));
    let golden = "01 0000000000000007 0000000000000002 01 0000000000000003 \
                  01 0000000000000001 0000000000000002 0000000000000003";
    check(&request, encode_transfer(&request), golden, decode_transfer);

    let changed =
        Err(TransferLeaderError::VoteChanged { expected: vote, actual: RaftVote::new(8, 1) });
    let behind =
        Err(TransferLeaderError::LogNotFlushed { expected: None, actual: Some(log_id(1, 2, 3)) });
    #[rustfmt::skip]
    let table = [
        (Ok(()),  "01 00"),
        (changed, "01 01 0000000000000007 0000000000000002 01 0000000000000008 0000000000000001 00"),
        (behind,  "01 02 00 01 0000000000000001 0000000000000002 0000000000000003"),
    ];
    for (response, golden) in table {
        check(&response, encode_moved(&response), golden, decode_moved);
    }
}

#[test]
fn start_up_questions_are_what_they_always_were() {
    check(&(), encode_ask_matched(), "01", decode_ask_matched);
    let answer = Matched { leading: true, leader: Some(2), matched: Some(log_id(1, 2, 3)) };
    let golden = "01 01 01 0000000000000002 01 0000000000000001 0000000000000002 0000000000000003";
    check(&answer, answer.encode(), golden, Matched::decode);
    check(&Matched::default(), Matched::default().encode(), "01 00 00 00", Matched::decode);
}

#[test]
fn snapshots_are_what_they_always_were() {
    let nodes = BTreeMap::from([(1, Address("a".into()))]);
    let membership = RaftMembership::new(vec![BTreeSet::from([1])], nodes).unwrap();
    let head = SnapshotHead {
        vote: RaftVote::new_committed(2, 1),
        meta: RaftSnapshotMeta {
            last_log_id: Some(log_id(2, 1, 9)),
            last_membership: RaftStoredMembership::new(None, membership),
        },
        files: vec![SnapshotFile { name: "s".into(), bytes: 5, crc32c: 6, keys: 7 }],
    };
    let golden = "01 0000000000000002 0000000000000001 01 \
                  01 0000000000000002 0000000000000001 0000000000000009 \
                  00 0001 0001 0000000000000001 0001 0000000000000001 0001 61 \
                  00000001 0001 73 0000000000000005 00000006 0000000000000007";
    check(&head, head.encode(), golden, SnapshotHead::decode);

    check(&7, encode_transfer_id(7), "01 0000000000000007", decode_transfer_id);
    let vote = RaftVote::new(7, 2);
    let golden = "01 0000000000000007 0000000000000002 00";
    check(&vote, encode_installed(&vote), golden, decode_installed);
}

#[test]
fn a_chunk_that_was_changed_on_its_way_is_refused() {
    let data = Bytes::from_static(b"xyz");
    let chunk = SnapshotChunk { transfer: 1, file: 2, offset: 3, data };
    let golden = "01 0000000000000001 00000002 0000000000000003 25236885 78797a";
    let bytes = chunk.encode();
    assert_eq!(hex(&bytes), golden.replace(' ', ""));
    assert_eq!(SnapshotChunk::decode(bytes.clone()).as_ref(), Ok(&chunk));
    let mut changed = bytes.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(SnapshotChunk::decode(Bytes::from(changed)).is_err());
    for end in 0..bytes.len() {
        assert!(SnapshotChunk::decode(bytes.slice(..end)).is_err(), "{end} bytes");
    }
}
