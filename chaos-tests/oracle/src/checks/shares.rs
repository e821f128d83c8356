//! Shared subscriptions: the members of a share together get everything that was acknowledged after the first of its durable
//! members had its SUBACK, and each message goes to one member, unless that was interrupted (docs/guarantees.md).
//!
//! Every share of a run has a member with a durable session, so it is never without one.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::{Copy, without_reason};
use super::disturbed::Disturbed;
use super::{Rules, SHARE_LOSS, SHARE_ONCE, named};
use crate::history::{Event, Phase};
use crate::loads::{Load, Share, ShareAct};
use crate::verdict::Check;

/// What is known of a message.
#[derive(Debug, Default)]
struct Message {
    /// Number of the event that asked for it; none of a message that nobody sent.
    invoked: Option<u64>,
    acked: bool,
    refused: bool,
    copies: Vec<Copy>,
}

/// What is known of a share.
#[derive(Debug, Default)]
struct Shared {
    /// Number of the first SUBACK of a member with a durable session.
    since: Option<u64>,
    messages: BTreeMap<u64, Message>,
    durable: BTreeSet<u64>,
    closed_ns: BTreeMap<u64, u64>,
    /// Members that had a SUBACK in a durable session.
    members: BTreeSet<String>,
    damaged: Vec<u64>,
    /// Durable members that came back and found no session.
    forgotten: Vec<(u64, String)>,
}

impl Shared {
    fn take(&mut self, event: &Event, act: ShareAct) {
        match act {
            ShareAct::Publish { message } => {
                let message = self.messages.entry(message).or_default();
                match event.ph {
                    Phase::Invoke => message.invoked = Some(event.i),
                    Phase::Ok => message.acked = true,
                    Phase::Fail => message.refused = true,
                    Phase::Info => {}
                }
            }
            ShareAct::Open { conn, durable, present } => {
                if durable {
                    self.durable.insert(conn);
                    if !present && self.members.contains(&event.p) {
                        self.forgotten.push((event.i, event.p.clone()));
                    }
                }
            }
            ShareAct::Granted { conn } => {
                if self.durable.contains(&conn) {
                    self.since.get_or_insert(event.i);
                    self.members.insert(event.p.clone());
                }
            }
            ShareAct::Deliver { conn, message: Some(message), dup } => {
                let copy = Copy { at: event.i, ns: event.ns, conn, dup, acked_ns: None };
                self.messages.entry(message).or_default().copies.push(copy);
            }
            ShareAct::Deliver { message: None, .. } => self.damaged.push(event.i),
            ShareAct::Ack { conn, message } => {
                let copies = self.messages.entry(message).or_default().copies.iter_mut().rev();
                for copy in copies.filter(|copy| copy.conn == conn).take(1) {
                    copy.acked_ns = Some(event.ns);
                }
            }
            ShareAct::Close { conn } => {
                self.closed_ns.entry(conn).or_insert(event.ns);
            }
        }
    }
}

/// Looks for messages that no member got, and for those that more than one got without a reason.
pub fn check(events: &[Event], rules: &Rules) -> Vec<Check> {
    let mut shares: BTreeMap<u32, Shared> = BTreeMap::new();
    for event in events {
        if let Some(Load::Share(Share { group, act })) = Load::of(event) {
            shares.entry(*group).or_default().take(event, *act);
        }
    }
    if shares.is_empty() {
        return Vec::new();
    }
    let disturbed = Disturbed::of(events);
    vec![loss(&shares), once(&shares, &disturbed, rules)]
}

fn loss(shares: &BTreeMap<u32, Shared>) -> Check {
    let mut check = named(SHARE_LOSS);
    let (mut owed, mut sent) = (0_u64, 0_u64);
    for (group, shared) in shares {
        for (number, message) in &shared.messages {
            sent += u64::from(message.invoked.is_some());
            let after = message.invoked.zip(shared.since).is_some_and(|(at, since)| at > since);
            if message.acked && after {
                owed += 1;
                if message.copies.is_empty() {
                    check.violated(|| format!("share {group}: #{number} came to no member"));
                }
            }
            if let Some(copy) = message.copies.first()
                && (message.refused || message.invoked.is_none_or(|at| at > copy.at))
            {
                check.violated(|| {
                    format!("share {group}: event {}: nobody had published #{number}", copy.at)
                });
            }
        }
        for at in &shared.damaged {
            check.violated(|| format!("share {group}: event {at}: a message that is damaged"));
        }
        for (at, member) in &shared.forgotten {
            check.violated(|| format!("share {group}: event {at}: {member}'s session is gone"));
        }
    }
    check.detail = format!("{owed} expected of {sent} in {} shares", shares.len());
    check
}

fn once(shares: &BTreeMap<u32, Shared>, disturbed: &Disturbed, rules: &Rules) -> Check {
    let mut check = named(SHARE_ONCE);
    let (mut first, mut more) = (0_u64, 0_u64);
    for (group, shared) in shares {
        for (number, message) in &shared.messages {
            first += u64::from(!message.copies.is_empty());
            for many in 2..=message.copies.len() {
                more += 1;
                let copies = &message.copies[..many];
                let closed = |conn| shared.closed_ns.get(&conn).copied();
                if let Some(why) = without_reason(copies, closed, disturbed, rules) {
                    let at = message.copies[many - 1].at;
                    check.violated(|| {
                        format!("share {group}: event {at}: copy {many} of #{number}: {why}")
                    });
                }
            }
        }
    }
    check.detail = format!("{first} messages, {more} more copies");
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Fault;
    use crate::planted::Story;
    use ShareAct::{Ack, Close, Deliver, Granted, Open, Publish};

    /// Members on connections 1, of a durable session, and 2.
    fn story() -> Story {
        let mut story = Story::new();
        for (name, conn) in [("m1", 1), ("m2", 2)] {
            let open = Open { conn, durable: conn == 1, present: false };
            story.share(Phase::Ok, name, open).share(Phase::Ok, name, Granted { conn });
        }
        story.wait(10_000);
        story
    }

    fn publish(story: &mut Story, message: u64, outcome: Phase) {
        story.share(Phase::Invoke, "p", Publish { message });
        story.share(outcome, "p", Publish { message });
    }

    fn deliver(story: &mut Story, conn: u64, message: u64, dup: bool) {
        story.share(Phase::Ok, "m", Deliver { conn, message: Some(message), dup });
    }

    fn taken(story: &mut Story, conn: u64, message: u64, dup: bool) {
        deliver(story, conn, message, dup);
        story.share(Phase::Ok, "m", Ack { conn, message });
    }

    #[test]
    fn what_no_member_got_is_lost_and_either_will_do() {
        let mut story = story();
        for (message, outcome) in [(1, Phase::Ok), (2, Phase::Ok), (3, Phase::Info)] {
            publish(&mut story, message, outcome);
        }
        taken(&mut story, 1, 1, false);
        taken(&mut story, 2, 2, false);
        assert_eq!((story.found(SHARE_LOSS), story.found(SHARE_ONCE)), (0, 0));
        publish(&mut story, 4, Phase::Ok);
        assert_eq!(story.found(SHARE_LOSS), 1);
    }

    #[test]
    fn what_was_published_before_there_was_a_member_is_not_owed() {
        let mut story = Story::new();
        publish(&mut story, 1, Phase::Ok);
        let open = Open { conn: 2, durable: false, present: false };
        story.share(Phase::Ok, "m", open).share(Phase::Ok, "m", Granted { conn: 2 });
        publish(&mut story, 2, Phase::Ok);
        assert_eq!(story.found(SHARE_LOSS), 0);
    }

    #[test]
    fn strangers_damage_and_lost_sessions_are_found() {
        let mut story = story();
        publish(&mut story, 1, Phase::Fail);
        deliver(&mut story, 1, 1, false);
        deliver(&mut story, 1, 9, false);
        story.share(Phase::Ok, "m", Deliver { conn: 1, message: None, dup: false });
        story.share(Phase::Ok, "m2", Open { conn: 5, durable: false, present: false });
        assert_eq!(story.found(SHARE_LOSS), 3);
        story.share(Phase::Ok, "m1", Open { conn: 6, durable: true, present: false });
        assert_eq!(story.found(SHARE_LOSS), 4);
    }

    #[test]
    fn a_second_copy_needs_an_interruption_of_who_had_the_first() {
        type Tell = fn(&mut Story);
        #[rustfmt::skip]
        let table: [(Tell, u64); 6] = [
            (|_| (),                                                        1),
            (|story| { story.share(Phase::Ok, "m1", Close { conn: 1 }); },  0),
            (|story| { story.share(Phase::Ok, "m2", Close { conn: 2 }); },  1),
            (|story| { story.fault(Fault::Kill, 3); },                      0),
            // The PUBACK is settled long before.
            (|story| { story.share(Phase::Ok, "m", Ack { conn: 1, message: 1 }).wait(9_000).share(Phase::Ok, "m1", Close { conn: 1 }); }, 1),
            (|story| { story.share(Phase::Ok, "m", Ack { conn: 1, message: 1 }).wait(9_000).fault(Fault::Kill, 3); },                     1),
        ];
        for (at, (tell, violations)) in table.into_iter().enumerate() {
            let mut story = story();
            publish(&mut story, 1, Phase::Ok);
            deliver(&mut story, 1, 1, false);
            tell(&mut story);
            deliver(&mut story, 2, 1, true);
            assert_eq!(story.found(SHARE_ONCE), violations, "story {at}");
            assert_eq!(story.found(SHARE_LOSS), 0, "story {at}");
        }
    }

    #[test]
    fn a_copy_that_says_it_is_the_first_is_found_whatever_happened() {
        let mut story = story();
        publish(&mut story, 1, Phase::Ok);
        deliver(&mut story, 1, 1, false);
        story.fault(Fault::Kill, 3).share(Phase::Ok, "m1", Close { conn: 1 });
        deliver(&mut story, 2, 1, false);
        assert_eq!(story.found(SHARE_ONCE), 1);
    }
}
