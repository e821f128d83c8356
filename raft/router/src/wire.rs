//! What routers of two nodes say to each other.
//!
//! ```text
//!   Submit   run                       → status u8 | leader u64 (NotLeader; 0: unknown) | answers (Answered)
//!   Leader   (nothing)                 → leader u64 (0: none) | term u64
//! ```
//!
//! # Invariants
//!
//! - **Nothing unreadable is proposed.** Every command that comes over the wire is read once before: replicas stop at a
//!   batch they can't read.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::{NodeId, ShardId};
use moorline_group::{
    ProposeError, Role,
    wire::{CallError, Kind, Lane, Peers, Replier},
};
use moorline_machine::{Malformed, Run, RunAnswers};
use tracing::error;

use crate::{forwarder::Failure, replicas::Replicas};

/// How long a leader may take for a run. A leader that lives and can't commit is found out by it; one that died, by its
/// closed connection.
const RUN_DEADLINE: Duration = Duration::from_secs(5);

const ANSWERED: u8 = 0;
const NOT_LEADER: u8 = 1;
const BUSY: u8 = 2;
const NOT_TAKEN: u8 = 3;
const UNKNOWN: u8 = 4;

/// Takes what other nodes' routers send.
pub(crate) fn register(peers: &Peers, replicas: &Arc<dyn Replicas>) {
    let proposing = replicas.clone();
    let submit = move |from, shard, body, reply: Option<Replier>| {
        let Some(reply) = reply else { return };
        match read_run(body) {
            Ok(run) => {
                let reply = move |outcome| reply.send(encode(outcome));
                proposing.propose(shard, run, Box::new(reply));
            }
            Err(malformed) => {
                error!(%from, %shard, %malformed, "a run of another node is not readable");
                reply.refuse("the run is not readable");
            }
        }
    };
    peers.register(Kind::Submit, Arc::new(submit));

    let replicas = replicas.clone();
    let leader = move |_, shard, _, reply: Option<Replier>| {
        let Some(reply) = reply else { return };
        match replicas.role(shard) {
            Some(role) => {
                let role = *role.borrow();
                let mut out = BytesMut::with_capacity(16);
                out.put_u64(role.leader.map_or(0, |leader| leader.0));
                out.put_u64(role.term);
                reply.send(out.freeze());
            }
            None => reply.refuse("there is no replica here"),
        }
    };
    peers.register(Kind::Leader, Arc::new(leader));
}

fn read_run(mut body: Bytes) -> Result<Run, Malformed> {
    let run = Run::decode(&mut body)?;
    run.check()?;
    Ok(run)
}

/// Sends a run to the replica on another node.
pub(crate) fn submit(
    peers: &Peers,
    to: NodeId,
    shard: ShardId,
    run: &Run,
    done: impl FnOnce(Result<RunAnswers, Failure>) + Send + 'static,
) {
    let mut body = BytesMut::with_capacity(run.encoded_len());
    run.encode(&mut body);
    let done = move |answer| done(read_outcome(answer));
    peers.request(to, Lane::Data, Kind::Submit, shard, body.freeze(), RUN_DEADLINE, done);
}

/// Asks another node who leads.
pub(crate) async fn ask_leader(peers: &Peers, node: NodeId, shard: ShardId) -> Option<Role> {
    const DEADLINE: Duration = Duration::from_millis(500);
    let call = peers.call(node, Lane::Control, Kind::Leader, shard, Bytes::new(), DEADLINE);
    let mut answer = call.await.ok()?;
    let leader = NodeId(answer.try_get_u64().ok()?);
    let term = answer.try_get_u64().ok()?;
    let leader = Some(leader).filter(|leader| leader.0 != 0);
    Some(Role { leader, term, leading: leader == Some(peers.node()) })
}

fn encode(outcome: Result<RunAnswers, ProposeError>) -> Bytes {
    let mut out = BytesMut::new();
    match outcome {
        Ok(answers) => {
            out.put_u8(ANSWERED);
            answers.encode(&mut out);
        }
        Err(error) => match failure(error) {
            Failure::NotLeader { leader } => {
                out.put_u8(NOT_LEADER);
                out.put_u64(leader.map_or(0, |leader| leader.0));
            }
            Failure::Busy => out.put_u8(BUSY),
            Failure::NotTaken => out.put_u8(NOT_TAKEN),
            Failure::Unknown => out.put_u8(UNKNOWN),
        },
    }
    out.freeze()
}

/// What a leader's error means for the run.
pub(crate) fn failure(error: ProposeError) -> Failure {
    match error {
        ProposeError::NotLeader { leader } => Failure::NotLeader { leader },
        ProposeError::Busy => Failure::Busy,
        ProposeError::Stopped | ProposeError::NoGroup | ProposeError::TooLarge => Failure::NotTaken,
        ProposeError::Unknown => Failure::Unknown,
    }
}

fn read_outcome(answer: Result<Bytes, CallError>) -> Result<RunAnswers, Failure> {
    match answer {
        Ok(mut body) => match body.try_get_u8() {
            Ok(ANSWERED) => RunAnswers::decode(&mut body).map_err(|malformed| {
                error!(%malformed, "a leader's answers are not readable");
                Failure::Unknown
            }),
            Ok(NOT_LEADER) => {
                let leader = body.try_get_u64().ok().filter(|leader| *leader != 0).map(NodeId);
                Err(Failure::NotLeader { leader })
            }
            Ok(BUSY) => Err(Failure::Busy),
            Ok(NOT_TAKEN) => Err(Failure::NotTaken),
            // Also what only a later version says.
            Ok(UNKNOWN..) | Err(_) => Err(Failure::Unknown),
        },
        Err(CallError::Full) => Err(Failure::Busy),
        Err(CallError::Unreachable | CallError::TooLarge) => Err(Failure::NotTaken),
        Err(CallError::Closed | CallError::Deadline | CallError::Refused(_)) => {
            Err(Failure::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_machine::{Answer, command::ProducerId};

    use super::*;

    #[test]
    fn outcomes_survive_the_wire() {
        let (producer, answers) = (ProducerId(1), vec![Answer::Done]);
        let answers = RunAnswers { producer, first_seq: 2, answers, index: 7 };
        #[rustfmt::skip]
        let table = [
            (Ok(answers.clone()), Ok(answers)),
            (Err(ProposeError::NotLeader { leader: None }), Err(Failure::NotLeader { leader: None })),
            (Err(ProposeError::NotLeader { leader: Some(NodeId(3)) }), Err(Failure::NotLeader { leader: Some(NodeId(3)) })),
            (Err(ProposeError::Busy), Err(Failure::Busy)),
            (Err(ProposeError::Unknown), Err(Failure::Unknown)),
            (Err(ProposeError::Stopped), Err(Failure::NotTaken)),
            (Err(ProposeError::NoGroup), Err(Failure::NotTaken)),
        ];
        for (outcome, expected) in table {
            assert_eq!(read_outcome(Ok(encode(outcome))), expected);
        }
    }

    #[test]
    fn answers_of_a_program_that_says_no_index_are_read() {
        let (producer, answers) = (ProducerId(1), vec![Answer::Done]);
        let answers = RunAnswers { producer, first_seq: 2, answers, index: 7 };
        let written = encode(Ok(answers.clone()));
        let before = written.slice(..written.len() - 8);
        assert_eq!(read_outcome(Ok(before)), Ok(RunAnswers { index: 0, ..answers }));
    }

    #[test]
    fn an_unreadable_answer_leaves_the_outcome_open() {
        for body in [&[][..], &[0], &[0, 1, 2], &[9], &[255]] {
            let answer = Ok(Bytes::copy_from_slice(body));
            assert_eq!(read_outcome(answer), Err(Failure::Unknown), "{body:?}");
        }
    }

    #[test]
    fn only_what_was_not_sent_is_known_not_to_have_happened() {
        let refused = CallError::Refused("why".to_owned());
        let table = [
            (CallError::Unreachable, Failure::NotTaken),
            (CallError::TooLarge, Failure::NotTaken),
            (CallError::Full, Failure::Busy),
            (CallError::Closed, Failure::Unknown),
            (CallError::Deadline, Failure::Unknown),
            (refused, Failure::Unknown),
        ];
        for (error, expected) in table {
            assert_eq!(read_outcome(Err(error)), Err(expected));
        }
    }
}
