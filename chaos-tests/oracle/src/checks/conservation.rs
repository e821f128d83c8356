//! Conservation: when everything is over, every mail that was accepted is acknowledged, rejected or dead, as its receivers were
//! told, or waits; none is lost, and none is there that was refused.

use std::collections::{BTreeMap, BTreeSet};

use super::{CONSERVATION, named};
use crate::history::Phase;
use crate::requests::{How, MailAnswer, MailAsk, MailRequest, MailState, Requests};
use crate::verdict::Check;

/// What clients know of a mail.
#[derive(Debug, Default)]
struct Told {
    accepted: bool,
    /// A send of it may have been accepted.
    maybe: bool,
    /// Settlements that were answered with success.
    settled: BTreeSet<How>,
    /// Settlements that were not refused.
    tried: BTreeSet<How>,
    /// What it was found to be at the end.
    state: Option<MailState>,
}

/// Looks for mails that are not what they should be at the end.
pub fn check(requests: &Requests) -> Check {
    let mut check = named(CONSERVATION);
    let mut ends: BTreeMap<MailState, u64> = BTreeMap::new();
    let mut unasked = 0_u64;
    for (device, all) in &requests.mails {
        for (mail, told) in told(all) {
            let Some(state) = told.state else {
                unasked += u64::from(told.accepted);
                continue;
            };
            *ends.entry(state).or_default() += 1;
            if let Some(why) = wrong(&told, state) {
                check.violated(|| format!("{device}: #{mail} is {state:?}: {why}"));
            }
        }
    }
    if unasked > 0 {
        check.unclear(|| format!("of {unasked} accepted mails nobody asked what became of them"));
    }
    let ends: Vec<_> = ends.iter().map(|(state, many)| format!("{many} {state:?}")).collect();
    check.detail = ends.join(", ").to_lowercase();
    check
}

fn told(requests: &[MailRequest]) -> BTreeMap<u64, Told> {
    let mut all: BTreeMap<u64, Told> = BTreeMap::new();
    for one in requests {
        match (one.ask, one.answer) {
            (MailAsk::Send { mail, .. }, _) => {
                let told = all.entry(mail).or_default();
                told.accepted |= one.outcome == Phase::Ok;
                told.maybe |= one.outcome == Phase::Info;
            }
            (MailAsk::Settle { mail, how }, _) => {
                let told = all.entry(mail).or_default();
                if one.outcome == Phase::Ok {
                    told.settled.insert(how);
                }
                if one.outcome != Phase::Fail {
                    told.tried.insert(how);
                }
            }
            (MailAsk::State { mail }, Some(MailAnswer::State { state })) => {
                all.entry(mail).or_default().state = Some(state);
            }
            (MailAsk::State { .. } | MailAsk::Next | MailAsk::Size, _) => {}
        }
    }
    all
}

fn wrong(told: &Told, state: MailState) -> Option<&'static str> {
    match state {
        MailState::Unknown => told.accepted.then_some("it was accepted, and is lost"),
        MailState::Other => Some("nobody asked for that"),
        _ if !told.accepted && !told.maybe => Some("it was refused"),
        MailState::Acked if !told.tried.contains(&How::Ack) => Some("nobody acknowledged it"),
        MailState::Rejected if !told.tried.contains(&How::Reject) => Some("nobody rejected it"),
        MailState::Dead if !told.tried.contains(&How::Requeue) => Some("nobody requeued it"),
        MailState::Acked => {
            told.settled.contains(&How::Reject).then_some("it was rejected with success")
        }
        MailState::Rejected => {
            told.settled.contains(&How::Ack).then_some("it was acknowledged with success")
        }
        MailState::Queued | MailState::Dead => {
            let ended = told.settled.iter().any(|how| *how != How::Requeue);
            ended.then_some("it was settled with success")
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Outcome;
    use crate::checks::CONSERVATION;
    use crate::history::Phase;
    use crate::planted::Story;
    use crate::requests::{How, MailAnswer, MailAsk, MailState};

    /// One mail: how its send came out, how it was settled with success, and what it is at the end.
    fn outcome(sent: Phase, settled: Option<How>, state: Option<MailState>) -> Outcome {
        let mut story = Story::new();
        let send = MailAsk::Send { mail: 1, requeues_max: 0 };
        let answer = MailAnswer::Sent { size: 1, repeat: false };
        story.mail(Phase::Invoke, 90, send, None);
        story.mail(sent, 90, send, (sent == Phase::Ok).then_some(answer));
        if let Some(how) = settled {
            story.mailed(MailAsk::Settle { mail: 1, how }, MailAnswer::Settled);
        }
        if let Some(state) = state {
            story.mailed(MailAsk::State { mail: 1 }, MailAnswer::State { state });
        }
        story.judged().check(CONSERVATION).unwrap().outcome
    }

    #[test]
    fn what_was_accepted_is_somewhere_and_only_there() {
        use How::{Ack, Reject, Requeue};
        use MailState::{Acked, Dead, Other, Queued, Rejected, Unknown};
        use Outcome::{Fail, Inconclusive, Pass};
        use Phase::{Info, Ok};
        #[rustfmt::skip]
        let table = [
            (Ok,          Some(Ack),     Some(Acked),    Pass),
            (Ok,          Some(Reject),  Some(Rejected), Pass),
            (Ok,          Some(Requeue), Some(Dead),     Pass),
            (Ok,          None,          Some(Queued),   Pass),
            (Info,        None,          Some(Unknown),  Pass),
            (Info,        None,          Some(Queued),   Pass),
            (Phase::Fail, None,          Some(Unknown),  Pass),
            (Ok,          None,          None,           Inconclusive),
            (Ok,          None,          Some(Unknown),  Fail), // lost
            (Ok,          None,          Some(Acked),    Fail), // by nobody
            (Ok,          Some(Ack),     Some(Queued),   Fail), // back again
            (Ok,          Some(Ack),     Some(Rejected), Fail),
            (Ok,          None,          Some(Other),    Fail),
            (Phase::Fail, None,          Some(Queued),   Fail), // refused, and there
        ];
        for (sent, settled, state, expected) in table {
            assert_eq!(outcome(sent, settled, state), expected, "{sent:?} {settled:?} {state:?}");
        }
    }
}
