//! What openraft is told to work with: our entry payload, our node, our way of answering. Stays inside this crate.

use std::fmt;

use bytes::Bytes;
use moorline_machine::RunAnswers;
use openraft::{
    Entry, EntryPayload, LogId, Membership, OptionalSend, RaftTypeConfig, SnapshotMeta,
    StoredMembership, Vote,
    impls::{BoxedErrorSource, InlineBatch, TokioRuntime, leader_id_adv},
    raft::responder::Responder,
};

use crate::snapshot::SnapshotData;

/// One encoded batch of commands: the same bytes in the log, on the wire and in `apply`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a voter is reached, as the one who made the group knew it. The wire has the current addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Address(pub(crate) String);

/// Answers a proposal by calling back: no channel, no task.
pub(crate) struct Ticket<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Ticket<T> {
    /// `answer` is called once, or dropped if the replica stops before there is an answer.
    pub(crate) fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }
}

impl<T: Send + 'static> Responder<Types, T> for Ticket<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Commands;
    type R = Vec<RunAnswers>;
    type NodeId = u64;
    type Node = Address;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = RaftPayload;
    type Entry = RaftEntry;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Ticket<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type RaftLogId = LogId<LeaderId>;
pub(crate) type RaftVote = Vote<LeaderId>;
pub(crate) type RaftMembership = Membership<u64, Address>;
pub(crate) type RaftStoredMembership = StoredMembership<LeaderId, u64, Address>;
pub(crate) type RaftPayload = EntryPayload<Commands, u64, Address>;
pub(crate) type RaftEntry = Entry<LeaderId, RaftPayload>;
pub(crate) type RaftSnapshotMeta = SnapshotMeta<LeaderId, u64, Address>;
pub(crate) type RaftSnapshot = openraft::Snapshot<LeaderId, u64, Address, SnapshotData>;
pub(crate) type Raft = openraft::Raft<Types, crate::state::StateMachine>;
