//! A mailbox is a strict queue: mail goes out in the order it came, the same mail until it is settled, each settled once
//! (docs/decisions/016-mailbox.md), in some order that respects who had heard before whom asked.

use std::collections::BTreeSet;

use porcupine_rs::Model as Steps;

use super::linear::{self, Judged};
use super::{MAILBOX, named};
use crate::requests::{How, MailAnswer, MailAsk, MailRequest, MailState, Requests};
use crate::verdict::Check;

/// How many mails that ended a mailbox knows: the id of one that is older may be used again.
const KNOWN_MAX: usize = 100;

/// The queue.
#[derive(Debug, Clone)]
struct Queue;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Waiting {
    mail: u64,
    requeues_left: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct State {
    queue: Vec<Waiting>,
    dead: Vec<u64>,
    done: Vec<u64>,
    /// The last settlement: its repeat is answered as it was.
    last: Option<(u64, How)>,
}

/// A request and its answer; none if that is not known.
type Act = (MailAsk, Option<MailAnswer>);

fn remember(list: &mut Vec<u64>, mail: u64) {
    list.push(mail);
    if list.len() > KNOWN_MAX {
        list.remove(0);
    }
}

impl State {
    fn size(&self) -> u32 {
        u32::try_from(self.queue.len()).expect("few mails")
    }

    fn front(&self) -> Option<u64> {
        self.queue.first().map(|front| front.mail)
    }

    fn knows(&self, mail: u64) -> bool {
        self.queue.iter().any(|one| one.mail == mail)
            || self.dead.contains(&mail)
            || self.done.contains(&mail)
    }

    /// Whether it was known.
    fn send(&mut self, mail: u64, requeues_left: u16) -> bool {
        if self.knows(mail) {
            return true;
        }
        self.queue.push(Waiting { mail, requeues_left });
        self.last = self.last.filter(|(last, _)| *last != mail);
        false
    }

    /// Whether it was done, or had been.
    fn settle(&mut self, mail: u64, how: How) -> bool {
        if self.front() != Some(mail) {
            return self.last == Some((mail, how));
        }
        let front = self.queue.remove(0);
        match how {
            How::Ack | How::Reject => remember(&mut self.done, mail),
            How::Requeue => match front.requeues_left.checked_sub(1) {
                Some(requeues_left) => self.queue.push(Waiting { requeues_left, ..front }),
                None => remember(&mut self.dead, mail),
            },
        }
        self.last = Some((mail, how));
        true
    }
}

impl Steps for Queue {
    type State = State;
    type Op = Act;
    type Metadata = ();

    fn init() -> State {
        State::default()
    }

    fn step(state: &State, (ask, answer): &Act) -> (bool, State) {
        let mut state = state.clone();
        let so = match *ask {
            MailAsk::Send { mail, requeues_max } => {
                let repeat = state.send(mail, requeues_max);
                let size = state.size();
                answer.is_none_or(|answer| answer == MailAnswer::Sent { size, repeat })
            }
            MailAsk::Settle { mail, how } => {
                let settled = state.settle(mail, how);
                let expected = if settled { MailAnswer::Settled } else { MailAnswer::NotNext };
                answer.is_none_or(|answer| answer == expected)
            }
            MailAsk::Next => *answer == Some(MailAnswer::Front { mail: state.front() }),
            MailAsk::Size => *answer == Some(MailAnswer::Size { size: state.size() }),
            MailAsk::State { .. } => true,
        };
        (so, state)
    }
}

impl Judged for Queue {
    type Ask = MailAsk;
    type Answer = MailAnswer;

    fn op(ask: &MailAsk, answer: Option<&MailAnswer>) -> Option<Act> {
        match ask {
            // How a mail ended is looked at by `conservation`, who was turned away by `revocation`.
            MailAsk::State { .. } => None,
            _ if answer == Some(&MailAnswer::Denied) => None,
            MailAsk::Next | MailAsk::Size => Some((*ask, Some(*answer?))),
            MailAsk::Send { .. } | MailAsk::Settle { .. } => Some((*ask, answer.copied())),
        }
    }
}

/// The requests without those of which nothing was heard and that change no order: a send of a mail that nobody knows at the end, or
/// that another send is told to have brought; and repeats of what counts once. Each left in would double what is searched.
fn telling(requests: &[MailRequest]) -> Vec<MailRequest> {
    let (mut elsewhere, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for one in requests {
        match (one.ask, one.answer) {
            (MailAsk::Send { mail, .. }, Some(MailAnswer::Sent { repeat: false, .. }))
            | (MailAsk::State { mail }, Some(MailAnswer::State { state: MailState::Unknown })) => {
                elsewhere.insert(mail);
            }
            _ => {}
        }
    }
    let mut tells = |one: &&MailRequest| match one.ask {
        _ if one.answer.is_some() || !one.is_unknown() => true,
        MailAsk::Send { mail, .. } => !elsewhere.contains(&mail) && asked.insert((mail, None)),
        MailAsk::Settle { mail, how: how @ (How::Ack | How::Reject) } => {
            asked.insert((mail, Some(how)))
        }
        MailAsk::Settle { how: How::Requeue, .. }
        | MailAsk::Next
        | MailAsk::Size
        | MailAsk::State { .. } => true,
    };
    // The earliest of what counts once may take effect whenever a later one may.
    let mut sorted: Vec<&MailRequest> = requests.iter().collect();
    sorted.sort_by_key(|one| one.invoked);
    sorted.into_iter().filter(|one| tells(one)).cloned().collect()
}

/// Looks for answers that no order explains.
pub fn check(requests: &Requests) -> Check {
    let mut check = named(MAILBOX);
    let mut many = 0;
    for (device, all) in &requests.mails {
        many += all.len();
        linear::device::<Queue>(&mut check, device, &telling(all), |one| {
            format!("{} asked {:?} and heard {:?}", one.client, one.ask, one.answer)
        });
    }
    check.detail = format!("{many} requests about {} mailboxes", requests.mails.len());
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Phase;
    use crate::planted::Story;
    use MailAnswer::{NotNext, Settled};
    use MailAsk::Next;

    fn send(mail: u64) -> MailAsk {
        MailAsk::Send { mail, requeues_max: 1 }
    }

    fn sent(size: u32) -> MailAnswer {
        MailAnswer::Sent { size, repeat: false }
    }

    fn front(mail: u64) -> MailAnswer {
        MailAnswer::Front { mail: Some(mail) }
    }

    const NONE: MailAnswer = MailAnswer::Front { mail: None };

    fn settle(mail: u64, how: How) -> MailAsk {
        MailAsk::Settle { mail, how }
    }

    fn found(all: &[(MailAsk, MailAnswer)]) -> u64 {
        let mut story = Story::new();
        // Two mails wait.
        story.mailed(send(1), sent(1)).mailed(send(2), sent(2));
        for &(ask, answer) in all {
            story.mailed(ask, answer);
        }
        story.found(MAILBOX)
    }

    #[test]
    fn one_after_the_other_only_what_a_strict_queue_does_is_right() {
        let [ack, reject, requeue] = [How::Ack, How::Reject, How::Requeue];
        let repeat = MailAnswer::Sent { size: 2, repeat: true };
        let size = |size| (MailAsk::Size, MailAnswer::Size { size });
        let first = (settle(1, ack), Settled);
        #[rustfmt::skip]
        let table: [(&[(MailAsk, MailAnswer)], u64); 18] = [
            (&[(Next, front(1)), (Next, front(1)), first, (Next, front(2))],                0), // idempotent
            (&[first, first, (settle(2, reject), Settled), (Next, NONE), size(0)],          0), // a repeat
            (&[(settle(1, requeue), Settled), (Next, front(2)), size(2)],                   0),
            (&[(settle(2, ack), NotNext), (Next, front(1))],                                0),
            (&[(send(1), repeat), size(2)],                                                 0),
            (&[(settle(1, requeue), Settled), (settle(2, ack), Settled), (settle(1, requeue), Settled), (Next, NONE)], 0), // dead
            (&[(settle(1, requeue), Settled), (settle(1, requeue), Settled), (Next, front(2))], 0), // a repeated requeue
            (&[(Next, front(2))],                                                           1), // overtaken
            (&[(Next, NONE)],                                                               1), // lost
            (&[first, (Next, front(1))],                                                    1), // back again
            (&[first, (settle(1, reject), Settled)],                                        1), // settled twice
            (&[(settle(1, ack), NotNext)],                                                  1), // refused without reason
            (&[(settle(2, ack), Settled)],                                                  1), // not the front
            (&[(settle(1, requeue), Settled), (Next, front(1))],                            1), // not behind the others
            (&[(send(1), sent(3))],                                                         1), // stored twice
            (&[(send(3), sent(2))],                                                         1), // a wrong count
            (&[first, (settle(2, ack), Settled), (settle(1, ack), Settled)],                1), // not the last any more
            (&[(settle(1, requeue), Settled), (settle(2, ack), Settled), (settle(1, requeue), Settled), (Next, front(1))], 1), // not dead
        ];
        for (at, (story, violations)) in table.into_iter().enumerate() {
            assert_eq!(found(story), violations, "story {at}");
        }
    }

    #[test]
    fn what_is_unknown_may_have_happened_once() {
        let second = (settle(2, How::Ack), Settled);
        #[rustfmt::skip]
        let table: [(&[(MailAsk, MailAnswer)], u64); 5] = [
            (&[(Next, front(1)), (Next, front(2))],                      0), // settled late
            (&[(Next, front(2)), second, (Next, NONE)],                  0), // and once
            (&[(settle(1, How::Ack), Settled), (Next, front(2))],        0), // asked again
            (&[(Next, front(2)), (Next, front(1))],                      1), // taken back
            (&[(Next, front(2)), second, (Next, front(1))],              1),
        ];
        for (at, (later, violations)) in table.into_iter().enumerate() {
            let mut story = Story::new();
            story.mailed(send(1), sent(1)).mailed(send(2), sent(2));
            let ack = settle(1, How::Ack);
            story.mail(Phase::Invoke, 90, ack, None).mail(Phase::Info, 90, ack, None);
            for &(ask, answer) in later {
                story.mailed(ask, answer);
            }
            assert_eq!(story.found(MAILBOX), violations, "story {at}");
        }
    }

    #[test]
    fn sends_at_once_may_come_in_either_order() {
        let story = |fronts: [u64; 2]| {
            let mut story = Story::new();
            story.mail(Phase::Invoke, 90, send(1), None).mail(Phase::Invoke, 91, send(2), None);
            story.mail(Phase::Ok, 90, send(1), Some(sent(2)));
            story.mail(Phase::Ok, 91, send(2), Some(sent(1)));
            story.mailed(Next, front(fronts[0])).mailed(settle(fronts[0], How::Ack), Settled);
            story.mailed(Next, front(fronts[1]));
            story.found(MAILBOX)
        };
        assert_eq!((story([2, 1]), story([1, 2])), (0, 1), "by the counts they were told");
    }
}
