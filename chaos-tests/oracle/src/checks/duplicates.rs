//! Duplicates only where allowed: the subscriber had not acknowledged when its session was interrupted, or the
//! publisher sent the message again because it did not know the outcome.
//!
//! Each attempt to publish stores at most one copy; a copy is handed out at most once on a connection, and never again
//! once its PUBACK is surely settled. So on one connection a message may come at most *attempts so far − PUBACKs
//! settled before the connection began* times.

use std::collections::BTreeMap;

use super::{DUPLICATES, Rules, named};
use crate::history::MessageId;
use crate::model::{Client, Delivery, Model};
use crate::verdict::Check;

/// What one subscriber's history says of one message so far.
#[derive(Default)]
struct Copies {
    /// On the connection looked at.
    here: u64,
    conn: u64,
    /// Copies whose PUBACK was written long enough before its connection ended.
    settled: u64,
    /// The same, counting those of the connection looked at.
    settled_next: u64,
    total: u64,
}

/// Looks for copies without a reason.
pub fn check(model: &Model, rules: &Rules) -> Check {
    let mut check = named(DUPLICATES);
    let mut allowed = 0_u64;
    for (name, client) in &model.clients {
        let mut messages: BTreeMap<MessageId, Copies> = BTreeMap::new();
        for delivery in &client.deliveries {
            let Some(message) = delivery.message else { continue };
            let copies = messages.entry(message).or_default();
            let attempts = model.published.get(&message).map_or(0, |published| {
                published.attempts.iter().filter(|one| one.invoked < delivery.at).count() as u64
            });
            copies.count(delivery, settled(client, delivery, rules));
            // A first copy that nobody sent is a phantom, not a duplicate.
            if copies.total == 1 {
                continue;
            }
            if copies.here + copies.settled > attempts {
                check.violated(|| {
                    format!(
                        "{name}: event {}: copy {} of {message}, {} on this connection, \
                         {} settled before, sent {attempts} times",
                        delivery.at, copies.total, copies.here, copies.settled
                    )
                });
            } else {
                allowed += 1;
            }
        }
    }
    check.detail = format!("{allowed} allowed");
    check
}

impl Copies {
    fn count(&mut self, delivery: &Delivery, settled: bool) {
        if self.conn != delivery.conn {
            self.conn = delivery.conn;
            self.here = 0;
            self.settled = self.settled_next;
        }
        self.here += 1;
        self.total += 1;
        self.settled_next += u64::from(settled);
    }
}

/// Whether the PUBACK of a delivery cannot have been lost with its connection.
fn settled(client: &Client, delivery: &Delivery, rules: &Rules) -> bool {
    let Some(acked_ns) = delivery.acked_ns else { return false };
    // A taken-over connection may never be seen to end: the next one ended it.
    let mut later = client.connections.iter().skip_while(|one| one.conn != delivery.conn);
    let ended = later.next().and_then(|connection| connection.closed).map(|(ns, _)| ns);
    let next = later.next().map(|connection| connection.opened.1);
    let end = match (ended, next) {
        (Some(ended), Some(next)) => ended.min(next),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return true,
    };
    acked_ns.saturating_add(rules.ack_grace_ns) <= end
}

#[cfg(test)]
mod tests {
    use crate::checks::DUPLICATES;
    use crate::history::Phase;
    use crate::planted::Story;

    fn found(tell: impl FnOnce(&mut Story)) -> u64 {
        let mut story = Story::with_clients();
        story.acked(1, 1);
        tell(&mut story);
        story.found(DUPLICATES)
    }

    fn retry(story: &mut Story) {
        story.connect("p0", 3, 2).acked(3, 1);
    }

    #[test]
    fn an_unacknowledged_message_may_come_again_after_an_interruption() {
        let story = |story: &mut Story| {
            story.deliver(2, 1).leave("s0", 2).connect("s0", 4, 3);
            story.deliver(4, 1).leave("s0", 4).connect("s0", 5, 1).taken(5, 1);
        };
        assert_eq!(found(story), 0);
    }

    #[test]
    fn a_puback_may_be_lost_with_its_connection_but_not_later() {
        let acked_long_before = |ms: u64| {
            move |story: &mut Story| {
                story.taken(2, 1).wait(ms).leave("s0", 2).connect("s0", 4, 3).deliver(4, 1);
            }
        };
        assert_eq!(found(acked_long_before(100)), 0);
        assert_eq!(found(acked_long_before(5_000)), 1);
    }

    #[test]
    fn a_taken_over_connection_ends_with_the_next_one() {
        let story = |story: &mut Story| {
            story.taken(2, 1).connect("s0", 4, 3).wait(9_000).leave("s0", 2).deliver(4, 1);
        };
        assert_eq!(found(story), 0);
    }

    #[test]
    fn a_copy_without_an_interruption_is_a_violation() {
        assert_eq!(found(|story| _ = story.deliver(2, 1).deliver(2, 1)), 1);
        assert_eq!(found(|story| _ = story.taken(2, 1).taken(2, 1).taken(2, 1)), 2);
    }

    #[test]
    fn a_publishers_retry_allows_one_copy_more() {
        let twice = |story: &mut Story| {
            retry(story);
            story.taken(2, 1).taken(2, 1);
        };
        let thrice = |story: &mut Story| {
            retry(story);
            story.taken(2, 1).taken(2, 1).taken(2, 1);
        };
        let both_again = |story: &mut Story| {
            retry(story);
            story.deliver(2, 1).deliver_as(2, 1, 9, "t/a", true).leave("s0", 2);
            story.connect("s0", 4, 3).deliver(4, 1).deliver_as(4, 1, 9, "t/a", true);
        };
        let settled_once = |story: &mut Story| {
            retry(story);
            story.taken(2, 1).deliver_as(2, 1, 9, "t/a", true).wait(9_000).leave("s0", 2);
            story.connect("s0", 4, 3).deliver(4, 1).deliver_as(4, 1, 9, "t/a", true);
        };
        assert_eq!(found(twice), 0);
        assert_eq!(found(thrice), 1);
        assert_eq!(found(both_again), 0);
        assert_eq!(found(settled_once), 1);
    }

    #[test]
    fn a_retry_that_begins_later_excuses_nothing() {
        let story = |story: &mut Story| {
            story.deliver(2, 1).deliver(2, 1);
            story.publish(Phase::Info, 1, 1);
            retry(story);
        };
        assert_eq!(found(story), 1);
    }
}
