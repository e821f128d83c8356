//! No loss: what was acknowledged after a subscriber's SUBACK is delivered to it, once the run has drained.
//!
//! Where the missing messages lie says what broke. A lost *prefix* is a queue that started over, a *middle* a definite
//! hole, a *postfix* perhaps only a slow reader (after a drain it is a loss all the same).

use std::collections::{BTreeMap, BTreeSet};

use super::{NO_LOSS, named};
use crate::history::MessageId;
use crate::model::{Answer, Client, Model, Published};
use crate::verdict::Check;

#[derive(Default)]
struct Tally {
    expected: u64,
    prefix: u64,
    middle: u64,
    postfix: u64,
    whole: u64,
    by_node: BTreeMap<Option<u32>, u64>,
}

/// Looks for acknowledged messages that did not arrive.
pub fn check(model: &Model) -> Check {
    let mut check = named(NO_LOSS);
    let mut tally = Tally::default();
    for (name, client) in model.clients.iter().filter(|(_, client)| !client.filters.is_empty()) {
        look(model, name, client, &mut tally, &mut check);
    }
    check.detail = format!("{} expected", tally.expected);
    if check.found > 0 {
        let Tally { prefix, middle, postfix, whole, .. } = tally;
        check.detail +=
            &format!(", lost: prefix {prefix}, middle {middle}, postfix {postfix}, whole {whole}");
        for (node, lost) in &tally.by_node {
            let node = node.map_or("?".to_owned(), |node| node.to_string());
            check.detail += &format!(", acknowledged by node {node}: {lost}");
        }
    }
    check
}

fn look(model: &Model, name: &str, client: &Client, tally: &mut Tally, check: &mut Check) {
    let got: BTreeSet<MessageId> =
        client.deliveries.iter().filter_map(|delivery| delivery.message).collect();
    for (&message, published) in &model.published {
        let Some(node) = owed(client, published) else { continue };
        tally.expected += 1;
        if got.contains(&message) {
            continue;
        }
        *tally.by_node.entry(node).or_default() += 1;
        let publisher = message.publisher;
        let mine = MessageId { publisher, seq: 0 }..=MessageId { publisher, seq: u64::MAX };
        let mut mine = got.range(mine);
        let (first, last) = (mine.next(), mine.next_back());
        let place = match (first, last.or(first)) {
            (Some(first), _) if message < *first => ("prefix", &mut tally.prefix),
            (_, Some(last)) if message > *last => ("postfix", &mut tally.postfix),
            (Some(_), _) => ("middle", &mut tally.middle),
            (None, _) => ("whole", &mut tally.whole),
        };
        *place.1 += 1;
        check.violated(|| {
            let node = node.map_or("?".to_owned(), |node| node.to_string());
            format!("{name}: {message} acknowledged by node {node}, never delivered ({})", place.0)
        });
    }
}

/// The node whose acknowledgement obliges the cluster to deliver, if there is one: that of an attempt begun after the
/// subscriber's SUBACK.
fn owed(client: &Client, published: &Published) -> Option<Option<u32>> {
    let subscribed = client.subscribed(&published.topic)?;
    published
        .attempts
        .iter()
        .find(|attempt| attempt.answer == Answer::Acked && attempt.invoked > subscribed)
        .map(|attempt| attempt.node)
}

#[cfg(test)]
mod tests {
    use crate::history::Phase;
    use crate::planted::Story;
    use crate::{Outcome, checks::NO_LOSS};

    fn story(delivered: &[u64]) -> Story {
        let mut story = Story::with_clients();
        for seq in 1..=5 {
            story.acked(1, seq);
        }
        for &seq in delivered {
            story.taken(2, seq);
        }
        story
    }

    #[test]
    fn every_place_of_a_loss_is_named() {
        #[rustfmt::skip]
        let table: [(&[u64], &str); 5] = [
            (&[1, 2, 3, 4, 5], "5 expected"),
            (&[3, 4, 5],       "prefix 2, middle 0, postfix 0, whole 0"),
            (&[1, 5],          "prefix 0, middle 3, postfix 0, whole 0"),
            (&[1, 2, 3],       "prefix 0, middle 0, postfix 2, whole 0"),
            (&[],              "prefix 0, middle 0, postfix 0, whole 5"),
        ];
        for (delivered, detail) in table {
            let verdict = story(delivered).judged();
            let check = verdict.check(NO_LOSS).unwrap();
            assert_eq!(check.found, 5 - delivered.len() as u64, "{delivered:?}");
            assert!(check.detail.contains(detail), "{delivered:?}: {}", check.detail);
            assert_eq!(verdict.caught_loss(), delivered.len() < 5);
            assert_eq!(verdict.outcome == Outcome::Pass, delivered.len() == 5, "{verdict}");
        }
    }

    #[test]
    fn a_lost_message_names_the_node_that_acknowledged_it() {
        let verdict = story(&[1, 2, 3, 4]).judged();
        let check = verdict.check(NO_LOSS).unwrap();
        assert!(check.detail.contains("acknowledged by node 1: 1"), "{}", check.detail);
    }

    #[test]
    fn what_was_not_acknowledged_may_be_lost() {
        let mut story = Story::with_clients();
        story.publish(Phase::Invoke, 1, 1).publish(Phase::Info, 1, 1);
        story.publish(Phase::Invoke, 1, 2).publish(Phase::Fail, 1, 2);
        story.publish(Phase::Invoke, 1, 3);
        assert_eq!(story.found(NO_LOSS), 0);
    }

    #[test]
    fn only_what_began_after_the_suback_is_owed() {
        let mut story = Story::new();
        story.connect("p0", 1, 1).connect("s0", 2, 2);
        story.acked(1, 1).publish(Phase::Invoke, 1, 2);
        story.subscribe("s0", 2, "t/#").publish(Phase::Ok, 1, 2);
        assert_eq!(story.found(NO_LOSS), 0);
        // A retry begun after the SUBACK is a promise again.
        story.connect("p0", 3, 2).acked(3, 2);
        assert_eq!(story.found(NO_LOSS), 1);
    }

    #[test]
    fn another_topic_is_not_owed() {
        let mut story = Story::new();
        story.connect("p0", 1, 1).connect("s0", 2, 2).subscribe("s0", 2, "u/#").acked(1, 1);
        assert_eq!(story.found(NO_LOSS), 0);
    }
}
