//! Whatever happens to an entry, each of its runs is answered once, and in order.

use std::collections::VecDeque;

use bytes::Bytes;
use moorline_machine::{Answer, Batch, command::ProducerId};
use openraft::{
    errors::{ForwardReason, ForwardToLeader},
    raft::ClientWriteResponse,
};
use prometheus::Registry;

use super::*;
use crate::{
    metrics::GroupMetrics,
    types::{LeaderId, RaftLogId},
};

/// What reached "openraft", and what it does with it.
#[derive(Default)]
struct Core {
    takes: Mutex<Option<Handed>>,
    taken: Mutex<VecDeque<(Commands, EntryTicket)>>,
}

/// A sequence number and what its reply was called with.
type Outcome = (u64, Result<RunAnswers, ProposeError>);

struct Rig {
    proposer: Arc<Proposer>,
    core: Arc<Core>,
    answers: Arc<Mutex<Vec<Outcome>>>,
}

const LEADING: Role = Role { leader: Some(NodeId(1)), term: 3, leading: true };
const FOLLOWING: Role = Role { leader: Some(NodeId(2)), term: 4, leading: false };

impl Rig {
    fn new() -> Self {
        let core = Arc::new(Core::default());
        let hand: Hand = {
            let core = Arc::clone(&core);
            Box::new(move |commands, ticket| {
                let handed = core.takes.lock().unwrap().unwrap_or(Handed::Taken);
                if handed == Handed::Taken {
                    core.taken.lock().unwrap().push_back((commands, ticket));
                }
                handed
            })
        };
        let metrics = GroupMetrics::register(&Registry::new()).unwrap().of(ShardId(1));
        let clock: Clock = Arc::new(|| UnixMillis(7));
        let limits = BatcherLimits { entry_commands_max: 2, ..BatcherLimits::default() };
        let proposer = Proposer::new(ShardId(1), limits, clock, hand, metrics);
        proposer.set_role(LEADING);
        Self { proposer, core, answers: Arc::default() }
    }

    fn propose(&self, seq: u64) {
        let run = Run {
            producer: ProducerId(1),
            first_seq: seq,
            answered_below: 0,
            count: 1,
            commands: Bytes::from_static(&[0, 0, 0, 1, 9]),
        };
        let answers = Arc::clone(&self.answers);
        let reply = move |answer| answers.lock().unwrap().push((seq, answer));
        self.proposer.propose(run, Box::new(reply));
    }

    fn take(&self) -> (Commands, EntryTicket) {
        self.core.taken.lock().unwrap().pop_front().unwrap()
    }

    /// The oldest entry is applied. Answers the sequence numbers of its runs.
    fn apply(&self) -> Vec<u64> {
        let (Commands(batch), ticket) = self.take();
        let batch = Batch::decode(&batch).unwrap();
        let answers: Vec<RunAnswers> = batch
            .runs
            .iter()
            .map(|run| RunAnswers {
                producer: run.producer,
                first_seq: run.first_seq,
                answers: vec![Answer::Done],
                index: 1,
            })
            .collect();
        let log_id = RaftLogId::new(LeaderId { term: 3, node_id: 1 }, 1);
        let response = ClientWriteResponse { log_id, data: answers, membership: None };
        openraft::raft::responder::Responder::on_complete(ticket, Ok(response));
        batch.runs.iter().map(|run| run.first_seq).collect()
    }

    fn refuse(&self, error: ClientWriteError<Types>) {
        let (_, ticket) = self.take();
        openraft::raft::responder::Responder::on_complete(ticket, Err(error));
    }

    fn outcomes(&self) -> Vec<(u64, Option<ProposeError>)> {
        let answers = self.answers.lock().unwrap();
        answers.iter().map(|(seq, answer)| (*seq, answer.as_ref().err().copied())).collect()
    }
}

#[test]
fn two_entries_leave_at_once_and_what_collects_meanwhile_leaves_together() {
    let rig = Rig::new();
    for seq in 1..=5 {
        rig.propose(seq);
    }
    assert_eq!(rig.apply(), [1]);
    assert_eq!(rig.apply(), [2]);
    assert_eq!(rig.apply(), [3, 4], "full with two commands");
    assert_eq!(rig.apply(), [5]);
    let seqs: Vec<u64> = rig.outcomes().iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert!(rig.outcomes().iter().all(|(_, error)| error.is_none()));
}

#[test]
fn only_a_leader_proposes() {
    let rig = Rig::new();
    rig.proposer.set_role(FOLLOWING);
    rig.propose(1);
    let refused = ProposeError::NotLeader { leader: Some(NodeId(2)) };
    assert_eq!(rig.outcomes(), [(1, Some(refused))]);
    assert!(rig.core.taken.lock().unwrap().is_empty());
}

#[test]
fn losing_the_leadership_makes_sent_ones_unknown_and_waiting_ones_unsent() {
    let rig = Rig::new();
    for seq in 1..=3 {
        rig.propose(seq);
    }
    rig.proposer.set_role(FOLLOWING);
    let unknown = Some(ProposeError::Unknown);
    let unsent = Some(ProposeError::NotLeader { leader: Some(NodeId(2)) });
    assert_eq!(rig.outcomes(), [(1, unknown), (2, unknown), (3, unsent)]);
    // What openraft says later reaches nobody.
    rig.apply();
    rig.refuse(ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty()));
    assert_eq!(rig.outcomes().len(), 3);
}

#[test]
fn a_leadership_in_a_new_term_begins_with_nothing_under_way() {
    let rig = Rig::new();
    rig.propose(1);
    rig.proposer.set_role(Role { term: 5, ..LEADING });
    assert_eq!(rig.outcomes(), [(1, Some(ProposeError::Unknown))]);
    rig.propose(2);
    rig.take();
    assert_eq!(rig.apply(), [2]);
}

#[test]
fn refusals_tell_whether_it_may_have_happened() {
    let to = ForwardToLeader::<Types> {
        leader_id: Some(3),
        leader_node: None,
        reason: ForwardReason::LeaseExpired,
    };
    let refused = ProposeError::NotLeader { leader: Some(NodeId(3)) };
    let table = [
        (ClientWriteError::ForwardToLeader(to.clone()), refused, false),
        (ClientWriteError::LogEntryDiscarded(to), ProposeError::Unknown, true),
    ];
    for (error, expected, may) in table {
        let rig = Rig::new();
        rig.propose(1);
        rig.refuse(error);
        assert_eq!(rig.outcomes(), [(1, Some(expected))]);
        assert_eq!(expected.may_have_happened(), may);
    }
}

#[test]
fn a_ticket_that_is_dropped_is_an_unknown_outcome() {
    let rig = Rig::new();
    rig.propose(1);
    drop(rig.take());
    assert_eq!(rig.outcomes(), [(1, Some(ProposeError::Unknown))]);
}

#[test]
fn a_core_that_takes_nothing_is_busy_or_stopped() {
    for (handed, expected) in
        [(Handed::Full, ProposeError::Busy), (Handed::Stopped, ProposeError::Stopped)]
    {
        let rig = Rig::new();
        *rig.core.takes.lock().unwrap() = Some(handed);
        rig.propose(1);
        assert_eq!(rig.outcomes(), [(1, Some(expected))]);
        *rig.core.takes.lock().unwrap() = None;
        rig.propose(2);
        assert_eq!(rig.apply(), [2], "no slot was lost");
    }
}

#[test]
fn a_reply_may_propose_again() {
    let rig = Rig::new();
    *rig.core.takes.lock().unwrap() = Some(Handed::Full);
    let (proposer, again) = (Arc::clone(&rig.proposer), Arc::clone(&rig.answers));
    let run = Run {
        producer: ProducerId(1),
        first_seq: 1,
        answered_below: 0,
        count: 1,
        commands: Bytes::from_static(&[0, 0, 0, 1, 9]),
    };
    let next = run.clone();
    let reply: Reply = Box::new(move |_| {
        proposer.propose(next, Box::new(move |answer| again.lock().unwrap().push((2, answer))));
    });
    rig.proposer.propose(run, reply);
    assert_eq!(rig.outcomes(), [(2, Some(ProposeError::Busy))]);
}

#[test]
fn a_run_that_no_entry_can_hold_is_refused() {
    let rig = Rig::new();
    let answers = Arc::clone(&rig.answers);
    let run = Run {
        producer: ProducerId(1),
        first_seq: 1,
        answered_below: 0,
        count: 1,
        commands: Bytes::from(vec![0; BATCH_BYTES_MAX]),
    };
    let reply = move |answer| answers.lock().unwrap().push((1, answer));
    rig.proposer.propose(run, Box::new(reply));
    assert_eq!(rig.outcomes(), [(1, Some(ProposeError::TooLarge))]);
}

#[test]
fn stopping_answers_everything() {
    let rig = Rig::new();
    for seq in 1..=3 {
        rig.propose(seq);
    }
    rig.proposer.stop();
    rig.propose(4);
    let (unknown, stopped) = (Some(ProposeError::Unknown), Some(ProposeError::Stopped));
    assert_eq!(rig.outcomes(), [(1, unknown), (2, unknown), (3, stopped), (4, stopped)]);
}
