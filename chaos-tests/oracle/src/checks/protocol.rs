//! The protocol is kept: no client had to leave because a node said what it must not say.

use super::{PROTOCOL, named};
use crate::history::{Event, Leave, Op};
use crate::verdict::Check;

/// Looks for connections that ended that way.
pub fn check(events: &[Event]) -> Check {
    let mut check = named(PROTOCOL);
    let mut connections = 0_u64;
    for event in events {
        if let Op::Leave { why, .. } = &event.op {
            connections += 1;
            if *why == Leave::Protocol {
                check.violated(|| {
                    let err = event.err.as_deref().unwrap_or("no reason noted");
                    format!("event {}: {}: {err}", event.i, event.p)
                });
            }
        }
    }
    check.detail = format!("{connections} connections");
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::PROTOCOL;
    use crate::history::{Leave, Op, Phase};
    use crate::planted::Story;

    #[test]
    fn a_node_that_breaks_the_protocol_is_found() {
        let mut story = Story::with_clients();
        story.leave("p0", 1);
        assert_eq!(story.found(PROTOCOL), 0);
        story.push("s0", Phase::Ok, Some(2), Op::Leave { conn: 2, why: Leave::Protocol });
        assert_eq!(story.found(PROTOCOL), 1);
    }
}
