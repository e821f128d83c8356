//! Order: the messages of one publisher reach a subscriber in the order they were sent, first deliveries compared.
//!
//! The publishers of a run send again everything unanswered, in order, before anything new (the model checks that they
//! do). So order must hold across reconnects and unknown outcomes too. Copies after the first may come late.

use std::collections::{BTreeMap, BTreeSet};

use super::{ORDER, named};
use crate::model::Model;
use crate::verdict::Check;

/// Looks for first deliveries that overtook one another.
pub fn check(model: &Model) -> Check {
    let mut check = named(ORDER);
    let mut pairs = BTreeSet::new();
    for (name, client) in &model.clients {
        let mut seen = BTreeSet::new();
        let mut highest: BTreeMap<u32, u64> = BTreeMap::new();
        for delivery in &client.deliveries {
            let Some(message) = delivery.message.filter(|&message| seen.insert(message)) else {
                continue;
            };
            pairs.insert((name, message.publisher));
            let before = highest.entry(message.publisher).or_default();
            if message.seq < *before {
                check.violated(|| {
                    format!("{name}: event {}: {message} came after #{before}", delivery.at)
                });
            }
            *before = message.seq.max(*before);
        }
    }
    check.detail = format!("{} publisher-subscriber pairs", pairs.len());
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::ORDER;
    use crate::planted::Story;

    fn found(delivered: &[u64]) -> u64 {
        let mut story = Story::with_clients();
        for seq in 1..=5 {
            story.acked(1, seq);
        }
        for &seq in delivered {
            story.deliver(2, seq);
        }
        story.found(ORDER)
    }

    #[test]
    fn first_deliveries_must_not_overtake() {
        #[rustfmt::skip]
        let table: [(&[u64], u64); 6] = [
            (&[1, 2, 3, 4, 5],    0),
            (&[1, 2, 1, 2, 3],    0), // redelivery from the start
            (&[1, 3, 5],          0), // holes are a loss, not a disorder
            (&[1, 3, 2, 4, 5],    1),
            (&[5, 4, 3, 2, 1],    4),
            (&[2, 3, 1, 1, 4, 5], 1), // a first delivery that came late; its copy counts no more
        ];
        for (delivered, expected) in table {
            assert_eq!(found(delivered), expected, "{delivered:?}");
        }
    }
}
