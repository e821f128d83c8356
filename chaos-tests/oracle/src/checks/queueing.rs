//! What a mailbox promises, rule by rule: what the search for an order (`mailbox`) finds as well, said so that a person sees at
//! once what went wrong, and for histories too large to search.
//!
//! - **Head of line**: a mail is not shown while one that was sent before it waits, whose settlement nobody asked for.
//! - **No resurrection**: what was acknowledged or rejected is not shown again.
//! - **One end**: no mail is acknowledged and rejected.

use std::collections::{BTreeMap, BTreeSet};

use super::{ONE_END, QUEUE_ORDER, RESURRECTION, named};
use crate::history::Phase;
use crate::requests::{How, MailAnswer, MailAsk, MailRequest, Requests};
use crate::verdict::Check;

/// What is known of a mail.
#[derive(Debug, Default)]
struct Known {
    /// Event numbers of its first acknowledged send: asked, answered.
    sent: Option<(u64, u64)>,
    /// When its first settlement was asked for, whatever became of it.
    touched: Option<u64>,
    /// When its ack or reject was answered with success.
    ended: Option<u64>,
    /// How it was settled with success.
    ends: BTreeSet<How>,
}

fn known(requests: &[MailRequest]) -> BTreeMap<u64, Known> {
    let mut all: BTreeMap<u64, Known> = BTreeMap::new();
    for one in requests {
        match one.ask {
            MailAsk::Send { mail, .. } => {
                if let (Phase::Ok, Some(returned)) = (one.outcome, one.returned) {
                    all.entry(mail).or_default().sent.get_or_insert((one.invoked, returned));
                }
            }
            MailAsk::Settle { mail, how } => {
                let known = all.entry(mail).or_default();
                // What was refused has settled nothing.
                if one.outcome != Phase::Fail {
                    known.touched = Some(known.touched.unwrap_or(u64::MAX).min(one.invoked));
                }
                if one.outcome == Phase::Ok && how != How::Requeue {
                    let returned = one.returned.unwrap_or(u64::MAX);
                    known.ended = Some(known.ended.unwrap_or(u64::MAX).min(returned));
                    known.ends.insert(how);
                }
            }
            MailAsk::Next | MailAsk::Size | MailAsk::State { .. } => {}
        }
    }
    all
}

/// Shown mails: asked, answered, which.
fn shown(requests: &[MailRequest]) -> impl Iterator<Item = (&MailRequest, u64, u64)> {
    requests.iter().filter_map(|one| match (one.answer, one.returned) {
        (Some(MailAnswer::Front { mail: Some(mail) }), Some(returned)) => {
            Some((one, returned, mail))
        }
        _ => None,
    })
}

/// Looks for mail that was shown too early, or again.
pub fn check(requests: &Requests) -> [Check; 3] {
    let [mut order, mut again, mut ends] = [QUEUE_ORDER, RESURRECTION, ONE_END].map(named);
    let (mut looked, mut settled) = (0_u64, 0_u64);
    for (device, all) in &requests.mails {
        let known = known(all);
        for (one, returned, mail) in shown(all) {
            looked += 1;
            let this = known.get(&mail);
            if let Some(before) = overtaken(&known, this, one.invoked, returned) {
                let at = one.invoked;
                order.violated(|| format!("{device}: event {at}: #{mail} shown before #{before}"));
            }
            if this.and_then(|this| this.ended).is_some_and(|ended| ended < one.invoked) {
                let at = one.invoked;
                again.violated(|| format!("{device}: event {at}: #{mail} shown after its end"));
            }
        }
        for (mail, known) in &known {
            settled += u64::from(!known.ends.is_empty());
            if known.ends.len() > 1 {
                ends.violated(|| format!("{device}: #{mail} was acknowledged and rejected"));
            }
        }
    }
    order.detail = format!("{looked} mails shown");
    again.detail.clone_from(&order.detail);
    ends.detail = format!("{settled} mails ended");
    [order, again, ends]
}

/// A mail that was sent before this one, and that nobody had tried to settle when this one was shown.
fn overtaken(
    known: &BTreeMap<u64, Known>,
    this: Option<&Known>,
    asked: u64,
    returned: u64,
) -> Option<u64> {
    // When a mail's send was only unknown it may have come to the mailbox at any time.
    let (began, _) = this?.sent?;
    let found = known.iter().find(|(_, other)| {
        other.sent.is_some_and(|(_, sent)| sent < began && sent < asked)
            && other.touched.is_none_or(|touched| touched > returned)
    });
    found.map(|(mail, _)| *mail)
}

#[cfg(test)]
mod tests {
    use crate::checks::{ONE_END, QUEUE_ORDER, RESURRECTION};
    use crate::history::Phase;
    use crate::planted::Story;
    use crate::requests::{How, MailAnswer, MailAsk};

    fn waiting() -> Story {
        let mut story = Story::new();
        for mail in 1..=2 {
            let sent = MailAnswer::Sent { size: u32::try_from(mail).unwrap(), repeat: false };
            story.mailed(MailAsk::Send { mail, requeues_max: 1 }, sent);
        }
        story
    }

    fn next(story: &mut Story, mail: u64) -> &mut Story {
        story.mailed(MailAsk::Next, MailAnswer::Front { mail: Some(mail) })
    }

    fn settle(story: &mut Story, mail: u64, how: How) -> &mut Story {
        story.mailed(MailAsk::Settle { mail, how }, MailAnswer::Settled)
    }

    #[test]
    fn mail_that_overtakes_is_found() {
        let mut story = waiting();
        settle(next(&mut story, 1), 1, How::Requeue);
        assert_eq!(next(&mut story, 2).found(QUEUE_ORDER), 0);
        assert_eq!(next(&mut waiting(), 2).found(QUEUE_ORDER), 1);
        // Somebody tried, and nobody knows.
        let mut story = waiting();
        let ask = MailAsk::Settle { mail: 1, how: How::Ack };
        story.mail(Phase::Invoke, 90, ask, None).mail(Phase::Info, 90, ask, None);
        assert_eq!(next(&mut story, 2).found(QUEUE_ORDER), 0);
    }

    #[test]
    fn mail_that_comes_back_from_its_end_is_found() {
        let mut story = waiting();
        settle(next(&mut story, 1), 1, How::Ack);
        assert_eq!(next(&mut story, 2).found(RESURRECTION), 0);
        assert_eq!(next(&mut story, 1).found(RESURRECTION), 1);
    }

    #[test]
    fn two_ends_of_one_mail_are_found() {
        let mut story = waiting();
        settle(&mut story, 1, How::Ack);
        assert_eq!(settle(&mut story, 1, How::Ack).found(ONE_END), 0, "a repeat");
        assert_eq!(settle(&mut story, 1, How::Reject).found(ONE_END), 1);
    }
}
