//! Requests about devices and their mail: what was asked, what was answered, and each question paired with its answer.
//!
//! Answers are typed here once, so that no checker knows a status code. A request is known by its number: its client may have
//! asked other things meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{Event, Op, Phase};

/// What is asked about a device's record. Values are unique in a run, so that whoever sees one knows who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordAsk {
    /// Make it.
    Create {
        /// What it shall hold.
        value: u64,
    },
    /// Show it.
    Get,
    /// Write it.
    Update {
        /// What it shall hold.
        value: u64,
        /// Only if it has this version.
        if_version: Option<u64>,
    },
    /// Forget it.
    Delete {
        /// Only if it has this version.
        if_version: Option<u64>,
    },
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordAnswer {
    /// It is there, and so.
    Is {
        /// Its version.
        version: u64,
        /// What it holds.
        value: u64,
    },
    /// It is deleted.
    Deleted,
    /// There is none.
    Absent,
    /// There is one already.
    Exists,
    /// It has another version.
    OtherVersion,
}

/// How a device settles a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is done.
    Ack,
    /// It cannot be done.
    Reject,
    /// Behind all others.
    Requeue,
}

/// What is asked about a mailbox. Mails have numbers that are unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailAsk {
    /// Put a mail at the tail; one whose number is known is a repeat.
    Send {
        /// Which.
        mail: u64,
        /// How often it may be requeued.
        requeues_max: u16,
    },
    /// Show the mail at the front; nothing changes.
    Next,
    /// Say how many wait.
    Size,
    /// Settle the mail at the front.
    Settle {
        /// Which it has to be.
        mail: u64,
        /// How.
        how: How,
    },
    /// Say what became of a mail; asked when everything is over.
    State {
        /// Which.
        mail: u64,
    },
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailState {
    /// It waits.
    Queued,
    /// Done.
    Acked,
    /// It could not be done.
    Rejected,
    /// Requeued too often.
    Dead,
    /// Nobody knows it.
    Unknown,
    /// Something that no client of the run asked for: expired, cancelled, purged.
    Other,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailAnswer {
    /// It waits.
    Sent {
        /// How many wait, it included.
        size: u32,
        /// Its number was known.
        repeat: bool,
    },
    /// This mail is at the front, or none waits.
    Front {
        /// Which.
        mail: Option<u64>,
    },
    /// So many wait.
    Size {
        /// How many.
        size: u32,
    },
    /// It is settled.
    Settled,
    /// Another mail is at the front.
    NotNext,
    /// Nobody with such a credential is let in.
    Denied,
    /// That became of it.
    State {
        /// What.
        state: MailState,
    },
}

/// A question with its answer.
#[derive(Debug, Clone)]
pub struct Request<A, B> {
    /// Number of the `invoke` event.
    pub invoked: u64,
    /// Number of the event that ended it; none if nothing was heard of it.
    pub returned: Option<u64>,
    /// How it came out; [`Phase::Info`] if nothing was heard of it.
    pub outcome: Phase,
    /// Who asked.
    pub client: String,
    /// The node asked.
    pub node: Option<u32>,
    /// When it was asked, in nanoseconds.
    pub asked_ns: u64,
    /// When it ended, in nanoseconds.
    pub ended_ns: Option<u64>,
    /// What was asked.
    pub ask: A,
    /// What was answered, if the answer says something of the state.
    pub answer: Option<B>,
}

/// A request about a record.
pub type RecordRequest = Request<RecordAsk, RecordAnswer>;
/// A request about a mailbox.
pub type MailRequest = Request<MailAsk, MailAnswer>;

impl<A, B> Request<A, B> {
    /// Whether its outcome is unknown.
    pub fn is_unknown(&self) -> bool {
        self.outcome == Phase::Info
    }

    /// Whether it had ended before another began.
    pub fn is_before<C, D>(&self, other: &Request<C, D>) -> bool {
        self.returned.is_some_and(|returned| returned < other.invoked)
    }

    /// The same with another question.
    pub fn asking<C>(&self, ask: C) -> Request<C, B>
    where
        B: Clone,
    {
        Request {
            invoked: self.invoked,
            returned: self.returned,
            outcome: self.outcome,
            client: self.client.clone(),
            node: self.node,
            asked_ns: self.asked_ns,
            ended_ns: self.ended_ns,
            ask,
            answer: self.answer.clone(),
        }
    }

    fn of(event: &Event, ask: A) -> Self {
        Self {
            invoked: event.i,
            returned: None,
            outcome: Phase::Info,
            client: event.p.clone(),
            node: event.node,
            asked_ns: event.ns,
            ended_ns: None,
            ask,
            answer: None,
        }
    }

    fn end(&mut self, event: &Event, answer: Option<B>) {
        self.outcome = event.ph;
        self.ended_ns = Some(event.ns);
        // What is unknown may still happen: it has no end.
        if event.ph != Phase::Info {
            self.returned = Some(event.i);
            self.answer = answer;
        }
    }
}

/// All requests of a history, by device, in the order they were asked.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// About records.
    pub records: BTreeMap<String, Vec<RecordRequest>>,
    /// About mailboxes.
    pub mails: BTreeMap<String, Vec<MailRequest>>,
    /// Devices whose credential was revoked, with the number of the event that says so.
    pub revoked: BTreeMap<String, u64>,
    /// Devices whose credential somebody wanted to be revoked, with the number of the first event that asks for it.
    pub revoking: BTreeMap<String, u64>,
    /// What the harness did wrong.
    pub problems: Vec<String>,
}

impl Requests {
    /// Pairs what is in a history.
    pub fn of(events: &[Event]) -> Self {
        let mut all = Self::default();
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        for event in events {
            let found = match &event.op {
                Op::Record { op, device, ask, answer } => {
                    let list = all.records.entry(device.clone()).or_default();
                    take(list, &mut places, event, *op, (*ask, *answer))
                }
                Op::Mail { op, device, ask, answer } => {
                    let list = all.mails.entry(device.clone()).or_default();
                    take(list, &mut places, event, *op, (*ask, *answer))
                }
                Op::Revoke { device, .. } if event.ph == Phase::Ok => {
                    all.revoked.entry(device.clone()).or_insert(event.i);
                    true
                }
                Op::Revoke { device, .. } if event.ph == Phase::Invoke => {
                    all.revoking.entry(device.clone()).or_insert(event.i);
                    true
                }
                Op::Revoke { .. }
                | Op::Connect { .. }
                | Op::Leave { .. }
                | Op::Subscribe { .. }
                | Op::Publish { .. }
                | Op::Deliver { .. }
                | Op::Ack { .. }
                | Op::Fault { .. }
                | Op::Digest { .. }
                | Op::Mark { .. }
                | Op::Log { .. }
                | Op::Leads { .. }
                | Op::Snapshots { .. }
                | Op::Load(_) => true,
            };
            if !found {
                all.problems.push(format!("event {}: an answer without a question", event.i));
            }
        }
        all
    }
}

/// Notes a question, or ends one. Whether that question was there.
pub(crate) fn take<A, B>(
    list: &mut Vec<Request<A, B>>,
    places: &mut BTreeMap<u64, usize>,
    event: &Event,
    op: u64,
    (ask, answer): (A, Option<B>),
) -> bool {
    if event.ph == Phase::Invoke {
        list.push(Request::of(event, ask));
        return places.insert(op, list.len() - 1).is_none();
    }
    let Some(request) = places.remove(&op).and_then(|place| list.get_mut(place)) else {
        return false;
    };
    request.end(event, answer);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;

    #[test]
    fn questions_meet_their_answers_and_what_was_not_heard_of_is_unknown() {
        let mut story = Story::new();
        let (create, get) = (RecordAsk::Create { value: 1 }, RecordAsk::Get);
        let is = RecordAnswer::Is { version: 7, value: 1 };
        story.record(Phase::Invoke, 1, create, None).record(Phase::Invoke, 2, get, None);
        story.record(Phase::Ok, 2, get, Some(is)).record(Phase::Invoke, 3, get, None);
        story.record(Phase::Info, 3, get, None);
        let all = Requests::of(&story.events);
        let records = &all.records["d"];
        assert_eq!(records.len(), 3);
        assert!(records[0].is_unknown() && records[0].returned.is_none());
        assert_eq!((records[1].answer, records[1].returned), (Some(is), Some(2)));
        assert!(records[1].is_before(&records[2]) && !records[2].is_before(&records[1]));
        assert!(records[2].is_unknown() && all.problems.is_empty());
        story.record(Phase::Ok, 9, get, None);
        assert_eq!(Requests::of(&story.events).problems.len(), 1);
    }
}
