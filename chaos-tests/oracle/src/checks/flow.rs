//! Flow: packet ids in flight are unique on a connection, and never more than the client's receive maximum.
//!
//! A delivery is recorded after its packet was read, an acknowledgement before it is written. So an id is freed here no
//! later than the node can know, and what this check finds is never the recorder's doing.

use std::collections::{BTreeMap, BTreeSet};

use super::{FLOW, named};
use crate::history::{Event, Op, Phase};
use crate::verdict::Check;

/// Looks for reused packet ids and overrun windows.
pub fn check(events: &[Event]) -> Check {
    let mut check = named(FLOW);
    let mut limits: BTreeMap<u64, usize> = BTreeMap::new();
    let mut in_flight: BTreeMap<u64, BTreeSet<u16>> = BTreeMap::new();
    let mut most = 0;
    for event in events {
        match &event.op {
            Op::Connect { conn, receive_max, .. } => {
                if event.ph == Phase::Ok {
                    limits.insert(*conn, usize::from(*receive_max));
                }
            }
            Op::Deliver { conn, packet, .. } => {
                let ids = in_flight.entry(*conn).or_default();
                if !ids.insert(*packet) {
                    check.violated(|| format!("event {}: packet id {packet} in use", event.i));
                }
                most = most.max(ids.len());
                let limit = limits.get(conn).copied().unwrap_or(usize::from(u16::MAX));
                if ids.len() > limit {
                    check.violated(|| format!("event {}: {} > {limit}", event.i, ids.len()));
                }
            }
            Op::Ack { conn, packet } => {
                in_flight.entry(*conn).or_default().remove(packet);
            }
            Op::Leave { conn, .. } => {
                in_flight.remove(conn);
            }
            Op::Subscribe { .. }
            | Op::Publish { .. }
            | Op::Fault { .. }
            | Op::Digest { .. }
            | Op::Mark { .. }
            | Op::Record { .. }
            | Op::Mail { .. }
            | Op::Revoke { .. }
            | Op::Log { .. }
            | Op::Leads { .. }
            | Op::Snapshots { .. }
            | Op::Load(_) => {}
        }
    }
    check.detail = format!("at most {most} in flight");
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::FLOW;
    use crate::planted::Story;

    fn found(tell: impl FnOnce(&mut Story)) -> u64 {
        let mut story = Story::with_clients();
        story.acked(1, 1).acked(1, 2).acked(1, 3);
        tell(&mut story);
        story.found(FLOW)
    }

    #[test]
    fn reused_ids_and_overrun_windows_are_found() {
        let full = |story: &mut Story| _ = story.deliver(2, 1).deliver(2, 2);
        let freed = |story: &mut Story| {
            _ = story.taken(2, 1).deliver(2, 2).deliver_as(2, 3, 1, "t/a", true)
        };
        let reused = |story: &mut Story| _ = story.deliver(2, 1).deliver_as(2, 2, 1, "t/a", true);
        let overrun = |story: &mut Story| _ = story.deliver(2, 1).deliver(2, 2).deliver(2, 3);
        let elsewhere =
            |story: &mut Story| _ = story.deliver(2, 1).connect("s0", 4, 1).deliver(4, 1);
        assert_eq!(found(full), 0);
        assert_eq!(found(freed), 0);
        assert_eq!(found(elsewhere), 0);
        assert_eq!(found(reused), 1);
        assert_eq!(found(overrun), 1);
    }
}
