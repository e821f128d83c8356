//! The start-up log check: a replica that lost part of its log must not vote.
//!
//! A voter that forgets what it has confirmed can elect a leader without it: an acknowledged write would be gone.
//! RocksDB opens a log whose tail was cut off as if nothing had happened, and openraft does not notice. So before a
//! replica takes part it asks the others how much of its log the leader knows.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use moorline_core::{NodeId, ShardId};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    codec::message::{Matched, encode_ask_matched},
    error::GroupError,
    groups::Node,
    types::RaftLogId,
    wire::{CallError, Kind, Lane, PeerState},
};

/// How long a leader is looked for. Without one nothing can contradict this log yet: the election compares logs itself.
const LOOK_FOR: Duration = Duration::from_secs(3);
/// How long one question may take.
const ASK_DEADLINE: Duration = Duration::from_millis(500);
/// Between questions to the same node.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Compares this replica's log with what the leader knows of it.
pub(crate) async fn check(
    node: &Arc<Node>,
    shard: ShardId,
    last: Option<RaftLogId>,
    voters: BTreeSet<NodeId>,
) -> Result<(), GroupError> {
    let until = Instant::now() + LOOK_FOR;
    let mut open: BTreeSet<NodeId> = voters;
    open.remove(&node.config.node);
    while !open.is_empty() && Instant::now() < until {
        for from in open.clone() {
            match ask(node, shard, from).await {
                Some(answer) if answer.leading => return compare(shard, from, last, answer),
                // It does not lead. Whoever it says does is asked too, if it lives.
                Some(Matched { leader: Some(leader), .. }) if leader != node.config.node.0 => {}
                Some(_) => {
                    open.remove(&from);
                }
                None if is_dead(node, from) => {
                    open.remove(&from);
                }
                None => {}
            }
        }
        if !open.is_empty() {
            sleep(ASK_PAUSE).await;
        }
    }
    if open.is_empty() {
        debug!(%shard, "no leader, so nothing that this log must have");
    } else {
        warn!(%shard, asked = ?open, "could not compare the log with the leader's: going on");
    }
    Ok(())
}

async fn ask(node: &Node, shard: ShardId, from: NodeId) -> Option<Matched> {
    let body = encode_ask_matched();
    let call = node.peers.call(from, Lane::Control, Kind::Matched, shard, body, ASK_DEADLINE);
    match call.await {
        Ok(body) => Matched::decode(body).ok(),
        // It lives and has no such replica open: it cannot be leading it.
        Err(CallError::Refused(_)) => Some(Matched::default()),
        Err(_) => None,
    }
}

/// Its process is not there: it cannot be leading.
fn is_dead(node: &Node, peer: NodeId) -> bool {
    node.peer_state(peer) == Some(PeerState::Down { refused: true })
}

fn compare(
    shard: ShardId,
    leader: NodeId,
    last: Option<RaftLogId>,
    answer: Matched,
) -> Result<(), GroupError> {
    match answer.matched {
        Some(matched) if last.as_ref() < Some(&matched) => Err(GroupError::LostLog {
            shard,
            last: last.map(|last| last.index),
            leader,
            matched: matched.index,
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    fn id(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term, node_id: 1 }, index)
    }

    #[test]
    fn a_log_that_ends_before_what_it_confirmed_was_lost() {
        #[rustfmt::skip]
        let table = [
            // own last,       the leader knows,  lost
            (Some(id(1, 10)),  Some(id(1, 10)),   false),
            (Some(id(1, 12)),  Some(id(1, 10)),   false), // written, not confirmed
            (Some(id(2, 10)),  Some(id(1, 12)),   false), // a newer leader's
            (Some(id(1, 9)),   Some(id(1, 10)),   true),
            (None,             Some(id(1, 0)),    true),  // a wiped log under an old id
            (None,             None,              false),
            (Some(id(1, 9)),   None,              false), // a new leader has not heard from us yet
        ];
        for (last, matched, lost) in table {
            let answer = Matched { leading: true, leader: Some(2), matched };
            let result = compare(ShardId(1), NodeId(2), last, answer);
            assert_eq!(result.is_err(), lost, "{last:?} {matched:?}");
        }
    }
}
