//! Revocation: once it is answered that a device's credential is revoked, no request that shows it is let in, on any node, from
//! the next request on (docs/decisions/016-mailbox.md). And before anybody asked for that, no device is turned away.

use super::{REVOCATION, named};
use crate::requests::{MailAnswer, MailAsk, Requests};
use crate::verdict::Check;

/// Looks for requests that were let in too late. Sends are the applications', who show another credential.
pub fn check(requests: &Requests) -> Check {
    let mut check = named(REVOCATION);
    let mut refused = 0_u64;
    let by_device = |ask: &MailAsk| match ask {
        MailAsk::Next | MailAsk::Size | MailAsk::Settle { .. } => true,
        // The application's, which shows another credential.
        MailAsk::Send { .. } | MailAsk::State { .. } => false,
    };
    for (device, all) in &requests.mails {
        let wanted = requests.revoking.get(device).copied().unwrap_or(u64::MAX);
        let done = requests.revoked.get(device).copied().unwrap_or(u64::MAX);
        for one in all.iter().filter(|one| by_device(&one.ask)) {
            let (asked, node) = (one.invoked, one.node.unwrap_or(0));
            let denied = one.answer == Some(MailAnswer::Denied);
            refused += u64::from(denied);
            if denied && one.returned.is_some_and(|returned| returned < wanted) {
                check.violated(|| {
                    format!(
                        "{device}: event {asked}: node {node} turned it away, which nobody wanted"
                    )
                });
            }
            // That another mail is at the front is told to whom was let in, and to nobody else.
            if asked > done && one.answer.is_some() && !denied {
                check.violated(|| {
                    format!("{device}: event {asked}: node {node} let it in, revoked at {done}")
                });
            }
        }
    }
    check.detail = format!("{} revoked, {refused} requests turned away", requests.revoked.len());
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::REVOCATION;
    use crate::history::{Op, Phase};
    use crate::planted::Story;
    use crate::requests::{MailAnswer, MailAsk};

    fn revoke(story: &mut Story, ph: Phase) {
        story.push("w3", ph, Some(2), Op::Revoke { op: 80, device: "d".into() });
    }

    #[test]
    fn who_is_let_in_after_its_revocation_is_found() {
        let none = MailAnswer::Front { mail: None };
        let mut story = Story::new();
        story.mailed(MailAsk::Next, none);
        revoke(&mut story, Phase::Invoke);
        // While it is under way either is right.
        story.mailed(MailAsk::Next, none);
        story.mail(Phase::Invoke, 90, MailAsk::Next, None);
        revoke(&mut story, Phase::Ok);
        story.mail(Phase::Ok, 90, MailAsk::Next, Some(none));
        story.mail(Phase::Invoke, 91, MailAsk::Next, None);
        story.mail(Phase::Fail, 91, MailAsk::Next, Some(MailAnswer::Denied));
        assert_eq!(story.found(REVOCATION), 0);
        story.mailed(MailAsk::Next, none);
        assert_eq!(story.found(REVOCATION), 1);
    }

    #[test]
    fn who_is_turned_away_before_anybody_wanted_it_is_found() {
        let mut story = Story::new();
        story.mail(Phase::Invoke, 90, MailAsk::Next, None);
        story.mail(Phase::Fail, 90, MailAsk::Next, Some(MailAnswer::Denied));
        revoke(&mut story, Phase::Invoke);
        assert_eq!(story.found(REVOCATION), 1);
    }

    #[test]
    fn a_revocation_nobody_answered_promises_nothing() {
        let mut story = Story::new();
        revoke(&mut story, Phase::Invoke);
        revoke(&mut story, Phase::Info);
        story.mailed(MailAsk::Next, MailAnswer::Front { mail: None });
        assert_eq!(story.found(REVOCATION), 0);
    }
}
