//! Mailboxes against a naive model: the same answers, the same effects, the same order, whatever comes. So nothing is lost, nothing
//! ends twice, a requeued mail is behind all others, and whenever another mail is at the front that is said.

use std::collections::BTreeMap;

use moorline_core::UnixMillis;
use moorline_machine::{
    Answer, Command, Effect, MailAnswer, MailCommand, MailEffect, MailRefused,
    mail::{MailOp, Noted},
};
use proptest::prelude::*;

use crate::{harness::*, mail::*};

#[derive(Debug, Clone)]
enum Do {
    Send {
        id: u128,
        ttl_ms: Option<u64>,
        requeues_max: u16,
        items: u32,
    },
    /// The front, or with an id that one.
    Settle {
        id: Option<u128>,
        op: MailOp,
    },
    Cancel(u128),
    Delivered(u128),
    Purge {
        dead: bool,
    },
    Pass(u64),
    Tick,
    Reopen,
}

fn what() -> impl Strategy<Value = Do> {
    let id = || 0..12_u128;
    let op =
        prop::sample::select(&[MailOp::Ack, MailOp::Reject, MailOp::Requeue, MailOp::Requeue][..]);
    prop_oneof![
        8 => (id(), prop::option::of(0..400_u64), 0..3_u16, 4..9_u32).prop_map(
            |(id, ttl_ms, requeues_max, items)| Do::Send { id, ttl_ms, requeues_max, items }),
        6 => op.clone().prop_map(|op| Do::Settle { id: None, op }),
        3 => (id(), op).prop_map(|(id, op)| Do::Settle { id: Some(id), op }),
        2 => id().prop_map(Do::Cancel),
        1 => id().prop_map(Do::Delivered),
        1 => prop::sample::select(&[false, true, true][..]).prop_map(|dead| Do::Purge { dead }),
        2 => (0..200_u64).prop_map(Do::Pass),
        3 => Just(Do::Tick),
        1 => Just(Do::Reopen),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Queued {
    id: u128,
    /// Counts up with every mail that is put at the tail.
    place: u64,
    expires_at: Option<u64>,
    requeues_left: u16,
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    queue: Vec<Queued>,
    dead: Vec<u128>,
    done: Vec<(u128, Noted)>,
    last: Option<(u128, MailOp)>,
    places: u64,
    effects: Vec<Effect>,
    /// When the mail of an id came last.
    came: BTreeMap<u128, u64>,
}

impl Model {
    fn front(&self) -> Option<(u128, u64)> {
        self.queue.first().map(|mail| (mail.id, mail.place))
    }

    fn size(&self) -> u32 {
        self.queue.len() as u32
    }

    fn say(&mut self, id: u128, what: Noted, by: u8) {
        let (tenant, device, waited_ms) = (TENANT, device(), self.now - self.came[&id]);
        let finished = MailEffect::Finished { tenant, device, id, what, by, waited_ms };
        self.effects.push(Effect::Mail(finished));
    }

    fn push(&mut self, mail: Queued) {
        self.places += 1;
        self.queue.push(Queued { place: self.places, ..mail });
    }

    fn finish(&mut self, id: u128, what: Noted, by: u8) {
        assert!(self.done.iter().all(|(done, _)| *done != id), "{id} ended already");
        self.queue.retain(|mail| mail.id != id);
        self.done.push((id, what));
        self.say(id, what, by);
    }

    /// Does it, and says what is to be answered; for a command.
    fn apply(&mut self, what: &Do) -> Option<Answer> {
        self.effects.clear();
        let before = self.front();
        let answer = match *what {
            Do::Send { id, ttl_ms, requeues_max, items } => {
                Some(self.send(id, ttl_ms, requeues_max, items))
            }
            Do::Settle { id, op } => Some(self.settle(id, op)),
            Do::Cancel(id) => Some(self.cancel(id)),
            Do::Delivered(id) if self.knows(id) => Some(Answer::Done),
            Do::Delivered(_) => Some(refused(MailRefused::NoSuchMail)),
            Do::Purge { dead } => Some(self.purge(dead)),
            Do::Pass(ms) => {
                self.now += ms;
                None
            }
            Do::Tick => {
                self.tick();
                Some(Answer::Released(Vec::new()))
            }
            Do::Reopen => None,
        };
        if self.front().is_some() && self.front() != before {
            self.effects.push(ready(self.size()));
        }
        answer
    }

    fn knows(&self, id: u128) -> bool {
        self.queue.iter().any(|mail| mail.id == id)
            || self.dead.contains(&id)
            || self.done.iter().any(|(done, _)| *done == id)
    }

    fn send(&mut self, id: u128, ttl_ms: Option<u64>, requeues_max: u16, items: u32) -> Answer {
        let repeat = self.knows(id);
        if !repeat {
            if self.size() >= items {
                return refused(MailRefused::Full);
            }
            let expires_at = ttl_ms.map(|ttl| self.now + ttl);
            self.came.insert(id, self.now);
            self.push(Queued { id, place: 0, expires_at, requeues_left: requeues_max });
            self.last = self.last.filter(|(last, _)| *last != id);
        }
        let front = self.front().is_some_and(|(front, _)| front == id);
        Answer::Mail(MailAnswer::Mailed { size: self.size(), front, repeat })
    }

    fn settle(&mut self, id: Option<u128>, op: MailOp) -> Answer {
        let front = self.front().map(|(front, _)| front);
        let id = id.or(front).unwrap_or(99);
        if front != Some(id) {
            return match self.last {
                Some(last) if last == (id, op) => settled(self.size(), true),
                _ => refused(MailRefused::NotNext { front }),
            };
        }
        match op {
            MailOp::Ack => self.finish(id, Noted::Acked, 3),
            MailOp::Reject => self.finish(id, Noted::Rejected, 3),
            MailOp::Requeue => {
                let mail = self.queue.remove(0);
                match mail.requeues_left.checked_sub(1) {
                    Some(requeues_left) => self.push(Queued { requeues_left, ..mail }),
                    None => {
                        self.dead.push(id);
                        self.say(id, Noted::Dead, 3);
                    }
                }
            }
        }
        self.last = Some((id, op));
        settled(self.size(), false)
    }

    fn cancel(&mut self, id: u128) -> Answer {
        if self.queue.iter().any(|mail| mail.id == id) {
            self.finish(id, Noted::Cancelled, 0);
        } else if self.dead.contains(&id) {
            self.dead.retain(|dead| *dead != id);
        } else if self.done.contains(&(id, Noted::Cancelled)) {
            return settled(self.size(), true);
        } else {
            return refused(MailRefused::NoSuchMail);
        }
        settled(self.size(), false)
    }

    fn purge(&mut self, dead: bool) -> Answer {
        let removed = if dead { self.dead.len() as u32 } else { self.size() };
        if dead {
            self.dead.clear();
        } else {
            let ids: Vec<_> = self.queue.iter().map(|mail| mail.id).collect();
            ids.into_iter().for_each(|id| self.finish(id, Noted::Purged, 0));
        }
        Answer::Mail(MailAnswer::Purged { removed, more: false })
    }

    fn tick(&mut self) {
        let due = |mail: &Queued| mail.expires_at.filter(|at| *at <= self.now);
        let due = self.queue.iter().filter_map(|mail| Some((due(mail)?, mail.place, mail.id)));
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        due.into_iter().for_each(|(.., id)| self.finish(id, Noted::Expired, 0));
    }

    /// The machine holds what the model does, in rows as in memory.
    fn compare(&self, group: &Group) {
        let ids: Vec<_> = self.queue.iter().map(|mail| mail.id).collect();
        assert_eq!(queued(group, 3), ids);
        assert_eq!(front(group), self.front().map(|(id, _)| (id, self.size())));
        assert_eq!(dead(group), self.dead);
        assert_eq!(done(group), self.done.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        for (id, state) in &self.done {
            assert_eq!(info(group, *id).unwrap().state, *state);
        }
        let bytes: usize = ids.iter().map(|id| 1 + id.to_string().len()).sum();
        let counts = group.machine.mailboxes().counts(TENANT);
        assert_eq!((counts.mails, counts.bytes), (ids.len() as u64, bytes as u64));
        assert_eq!(
            (counts.mailboxes, counts.dead),
            (u64::from(!ids.is_empty()), self.dead.len() as u64)
        );

        let ended = self.dead.len() + self.done.len();
        let expiring = self.queue.iter().filter_map(|mail| mail.expires_at);
        let rows: BTreeMap<_, _> = [
            (KIND_MAIL, ids.len()),
            (KIND_CARD, ids.len() + ended),
            (KIND_ENDED, ended),
            (KIND_EXPIRY, expiring.clone().count()),
        ]
        .into();
        for (kind, count) in rows {
            assert_eq!(group.rows.count(kind), count, "rows of kind {kind}");
        }
        if let Some(first) = expiring.min() {
            assert!(group.machine.next_deadline().is_some_and(|at| at <= UnixMillis(first)));
        }
    }
}

fn command(what: &Do, front: Option<u128>) -> Option<Command> {
    Some(match *what {
        Do::Send { id, ttl_ms, requeues_max, items } => {
            let mut send = send_mail(id);
            (send.mail.ttl_ms, send.mail.requeues_max) = (ttl_ms, requeues_max);
            send.limits.items = items;
            Command::Mail(MailCommand::Send(send))
        }
        Do::Settle { id, op } => settle_mail(id.or(front).unwrap_or(99), op),
        Do::Cancel(id) => cancel(id),
        Do::Delivered(id) => delivered(id),
        Do::Purge { dead } => purge(dead),
        Do::Tick => Command::Tick,
        Do::Pass(_) | Do::Reopen => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_mailbox_does_what_a_naive_one_does(all in prop::collection::vec(what(), 1..80)) {
        let mut group = Group::new(SHARD);
        let mut model = Model { now: group.now, ..Model::default() };
        for what in &all {
            let command = command(what, model.front().map(|(id, _)| id));
            let expected = model.apply(what);
            group.now = model.now;
            if let Some(command) = command {
                prop_assert_eq!(Some(group.one(command)), expected, "{:?}", what);
                prop_assert_eq!(&group.effects, &model.effects, "{:?}", what);
            } else if matches!(what, Do::Reopen) {
                group.reopen();
            }
            model.compare(&group);
        }
    }
}
