//! Exactly once: a message that was published with QoS 2 is delivered with QoS 2 at most once to each subscriber, whatever
//! was killed, however often its publisher had to send it again. That it is delivered at all is the check of loss.

use std::collections::BTreeSet;

use super::{EXACTLY_ONCE, named};
use crate::model::Model;
use crate::verdict::Check;

/// Looks for second deliveries.
pub fn check(model: &Model) -> Check {
    let mut check = named(EXACTLY_ONCE);
    let (mut delivered, mut retried) = (0_u64, 0_u64);
    for (name, client) in &model.clients {
        let mut seen = BTreeSet::new();
        for delivery in client.deliveries.iter().filter(|delivery| delivery.once) {
            let Some(message) = delivery.message else { continue };
            let Some(published) = model.published.get(&message).filter(|one| one.once) else {
                continue;
            };
            delivered += 1;
            retried += u64::from(published.attempts.len() > 1);
            if !seen.insert(message) {
                check.violated(|| format!("{name}: event {}: {message} again", delivery.at));
            }
        }
    }
    check.detail = format!("{delivered} delivered, {retried} of them sent more than once");
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::EXACTLY_ONCE;
    use crate::history::{MessageId, Op, Phase};
    use crate::planted::Story;

    const MESSAGE: MessageId = MessageId { publisher: 0, seq: 1 };

    fn publish(story: &mut Story, ph: Phase, conn: u64, once: bool) {
        let topic = "t/a".into();
        story.push("p0", ph, Some(1), Op::Publish { conn, message: MESSAGE, topic, once });
    }

    fn deliver(story: &mut Story, conn: u64, once: bool) {
        let (message, topic) = (Some(MESSAGE), "t/a".into());
        let op = Op::Deliver { conn, message, topic, packet: 1, dup: true, intact: true, once };
        story.push("s0", Phase::Ok, Some(2), op);
        story.ack("s0", conn, 1);
    }

    fn found(published: bool, delivered: bool) -> u64 {
        let mut story = Story::with_clients();
        publish(&mut story, Phase::Invoke, 1, published);
        deliver(&mut story, 2, delivered);
        story.leave("p0", 1).connect("p0", 3, 2);
        publish(&mut story, Phase::Invoke, 3, published);
        publish(&mut story, Phase::Ok, 3, published);
        story.leave("s0", 2).connect("s0", 4, 3);
        deliver(&mut story, 4, delivered);
        story.found(EXACTLY_ONCE)
    }

    #[test]
    fn a_retry_that_is_delivered_again_is_found_where_both_ends_have_qos_2() {
        for (published, delivered, violations) in
            [(true, true, 1), (true, false, 0), (false, true, 0)]
        {
            assert_eq!(found(published, delivered), violations, "{published} {delivered}");
        }
    }
}
