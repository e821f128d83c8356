//! No phantom: what arrives was sent, was not refused, is whole, and belongs to the subscription.

use super::{NO_PHANTOM, named};
use crate::model::{Answer, Client, Delivery, Model};
use crate::verdict::Check;

/// Looks for deliveries that should not be.
pub fn check(model: &Model) -> Check {
    let mut check = named(NO_PHANTOM);
    let mut looked = 0_u64;
    for (name, client) in &model.clients {
        for delivery in &client.deliveries {
            looked += 1;
            if let Some(fault) = wrong(model, client, delivery) {
                check.violated(|| format!("{name}: event {}: {fault}", delivery.at));
            }
        }
    }
    check.detail = format!("{looked} deliveries");
    check
}

fn wrong(model: &Model, client: &Client, delivery: &Delivery) -> Option<String> {
    let topic = &delivery.topic;
    let Some(message) = delivery.message else {
        return Some(format!("a payload nobody sent on {topic}"));
    };
    if !delivery.intact {
        return Some(format!("{message} came damaged on {topic}"));
    }
    // A node may deliver before its SUBACK (MQTT 5.0, 3.8.4), so when the filter was granted does not matter.
    if client.subscribed(topic).is_none() {
        return Some(format!("{message} on {topic}, to which nobody subscribed here"));
    }
    let Some(published) = model.published.get(&message) else {
        return Some(format!("{message} was never sent"));
    };
    if published.topic != *topic {
        return Some(format!("{message} was sent to {}, came on {topic}", published.topic));
    }
    let mut before = published.attempts.iter().filter(|one| one.invoked < delivery.at).peekable();
    if before.peek().is_none() {
        return Some(format!("{message} came before it was sent"));
    }
    before
        .all(|attempt| attempt.answer == Answer::Refused)
        .then(|| format!("{message} was refused and came all the same"))
}

#[cfg(test)]
mod tests {
    use crate::checks::NO_PHANTOM;
    use crate::history::{Op, Phase};
    use crate::planted::Story;

    fn found(plant: impl FnOnce(&mut Story)) -> u64 {
        let mut story = Story::with_clients();
        story.acked(1, 1);
        plant(&mut story);
        story.found(NO_PHANTOM)
    }

    #[test]
    fn a_message_that_was_sent_is_no_phantom() {
        assert_eq!(found(|story| _ = story.deliver(2, 1)), 0);
        // An unknown outcome may surface.
        let unknown = |story: &mut Story| {
            story.publish(Phase::Invoke, 1, 2).publish(Phase::Info, 1, 2).deliver(2, 2);
        };
        assert_eq!(found(unknown), 0);
    }

    #[test]
    fn planted_phantoms_are_found() {
        let refused = |story: &mut Story| {
            story.publish(Phase::Invoke, 1, 2).publish(Phase::Fail, 1, 2).deliver(2, 2);
        };
        let early = |story: &mut Story| {
            story.deliver(2, 2).acked(1, 2);
        };
        let nameless = |story: &mut Story| {
            let topic = "t/a".to_owned();
            let op = Op::Deliver {
                conn: 2,
                message: None,
                topic,
                packet: 1,
                dup: false,
                intact: false,
                once: false,
            };
            story.push("s0", Phase::Ok, None, op);
        };
        assert_eq!(found(|story| _ = story.deliver(2, 9)), 1, "never sent");
        assert_eq!(found(refused), 1, "refused");
        assert_eq!(found(early), 1, "before it was sent");
        assert_eq!(found(nameless), 1, "foreign payload");
        assert_eq!(found(|story| _ = story.deliver_as(2, 1, 1, "t/a", false)), 1, "damaged");
        assert_eq!(found(|story| _ = story.deliver_as(2, 1, 1, "t/b", true)), 1, "other topic");
        assert_eq!(found(|story| _ = story.deliver_as(2, 1, 1, "u/a", true)), 1, "no subscription");
    }
}
