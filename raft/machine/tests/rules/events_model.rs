//! Streams against a naive model: the same answers, the same effects, the same events, whatever comes. So nothing is lost
//! before its time, offsets have no gaps, and consumer groups only go forwards.

use std::collections::BTreeMap;

use moorline_core::{TenantId, UnixMillis};
use moorline_machine::{
    Answer, Command, Effect, EventRefused,
    events::{AppendEvent, RETENTION_SLACK, Retention},
};
use proptest::prelude::*;

use crate::{events::*, harness::*};

const TENANTS: [TenantId; 2] = [TENANT, TenantId(8)];

#[derive(Debug, Clone)]
enum Do {
    Append { tenant: usize, device: usize, len: usize, keep_s: u32, bytes_max: u64 },
    Commit { tenant: usize, consumer: usize, offset: u64 },
    Delete { tenant: usize, consumer: usize },
    Pass(u64),
    Tick,
    Reopen,
}

fn what() -> impl Strategy<Value = Do> {
    let tenant = || 0..TENANTS.len();
    prop_oneof![
        8 => (tenant(), 0..2_usize, 0..40_usize, 0..4_u32, 60..400_u64).prop_map(
            |(tenant, device, len, keep_s, bytes_max)| Do::Append { tenant, device, len, keep_s, bytes_max }),
        4 => (tenant(), 0..3_usize, 0..20_u64).prop_map(
            |(tenant, consumer, offset)| Do::Commit { tenant, consumer, offset }),
        1 => (tenant(), 0..3_usize).prop_map(|(tenant, consumer)| Do::Delete { tenant, consumer }),
        2 => (0..1_500_u64).prop_map(Do::Pass),
        3 => Just(Do::Tick),
        1 => Just(Do::Reopen),
    ]
}

fn device(number: usize) -> &'static str {
    ["a", "b"][number]
}

fn consumer(number: usize) -> &'static str {
    ["x", "y", "z"][number]
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    offset: u64,
    at: u64,
    device: usize,
    body: Vec<u8>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        // A device and a channel of one byte each.
        ROW_BYTES + 2 + self.body.len() as u64
    }
}

#[derive(Debug, Default)]
struct Stream {
    events: Vec<Kept>,
    last: u64,
    keep_ms: u64,
    bytes_max: u64,
    consumers: BTreeMap<usize, u64>,
}

impl Stream {
    fn bytes(&self) -> u64 {
        self.events.iter().map(Kept::bytes).sum()
    }

    fn due_at(&self) -> Option<u64> {
        let oldest = self.events.first()?.at;
        let full = self.bytes() > self.bytes_max;
        Some(if full { 0 } else { oldest + self.keep_ms + self.keep_ms / RETENTION_SLACK })
    }

    fn tick(&mut self, now: u64) {
        if self.due_at().is_none_or(|at| at > now) {
            return;
        }
        let full = self.bytes() > self.bytes_max;
        let target = self.bytes_max - self.bytes_max / RETENTION_SLACK;
        while let Some(first) = self.events.first()
            && (first.at + self.keep_ms <= now || full && self.bytes() > target)
        {
            self.events.remove(0);
        }
    }
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    streams: [Stream; 2],
    effects: Vec<Effect>,
}

impl Model {
    /// Does it, and says what is to be answered; for a command.
    fn apply(&mut self, what: &Do) -> Option<Answer> {
        self.effects.clear();
        match *what {
            Do::Append { tenant, device, len, keep_s, bytes_max } => {
                let stream = &mut self.streams[tenant];
                stream.last += 1;
                (stream.keep_ms, stream.bytes_max) = (u64::from(keep_s) * 1_000, bytes_max);
                let (offset, at, body) = (stream.last, self.now, vec![7; len]);
                stream.events.push(Kept { offset, at, device, body });
                self.effects.push(Effect::Events { tenant: TENANTS[tenant], appended: 1 });
                Some(appended(offset, at))
            }
            Do::Commit { tenant, consumer, offset } => {
                let stream = &mut self.streams[tenant];
                if offset > stream.last {
                    let last = moorline_core::Offset(stream.last);
                    return Some(refused(EventRefused::BeyondTail { last }));
                }
                let before = stream.consumers.get(&consumer).copied().unwrap_or(0);
                if offset > before {
                    stream.consumers.insert(consumer, offset);
                }
                Some(committed(offset.max(before)))
            }
            Do::Delete { tenant, consumer } => {
                Some(match self.streams[tenant].consumers.remove(&consumer) {
                    Some(_) => Answer::Done,
                    None => refused(EventRefused::NoSuchConsumer),
                })
            }
            Do::Pass(ms) => {
                self.now += ms;
                None
            }
            Do::Tick => {
                self.streams.iter_mut().for_each(|stream| stream.tick(self.now));
                Some(Answer::Released(Vec::new()))
            }
            Do::Reopen => None,
        }
    }

    /// The machine holds what the model does, in rows as in memory.
    fn compare(&self, group: &Group) {
        let (mut events, mut bytes, mut consumers, mut due) = (0, 0, 0, None);
        for (tenant, stream) in TENANTS.into_iter().zip(&self.streams) {
            let there = all(group, tenant).into_iter();
            let kept = stream.events.iter();
            let kept: Vec<_> = kept
                .map(|kept| (kept.offset, device(kept.device).into(), kept.body.clone().into()))
                .collect();
            assert_eq!(there.collect::<Vec<_>>(), kept);
            let page = group.machine.streams().consumers(tenant);
            let there = page.consumers.iter().map(|known| (known.name.to_string(), known.offset.0));
            let known = stream.consumers.iter().map(|(name, at)| (consumer(*name).to_owned(), *at));
            assert_eq!(there.collect::<Vec<_>>(), known.collect::<Vec<_>>());
            assert_eq!(page.tail.0, stream.last + 1);
            assert_eq!(page.head.0, stream.events.first().map_or(page.tail.0, |kept| kept.offset));
            events += stream.events.len();
            bytes += stream.bytes();
            consumers += stream.consumers.len();
            due = [due, stream.due_at()].into_iter().flatten().min();
        }
        let totals = group.machine.streams().totals();
        assert_eq!((totals.events, totals.bytes), (events as u64, bytes));
        assert_eq!(totals.consumers, consumers as u64);
        assert_eq!(group.rows.count(KIND_EVENT), events);
        assert_eq!(group.rows.count(KIND_CONSUMER), consumers);
        assert_eq!(group.rows.count(KIND_STREAM) as u64, totals.streams);
        if let Some(due) = due {
            assert!(group.machine.next_deadline().is_some_and(|at| at <= UnixMillis(due)));
        }
    }
}

fn command(what: &Do) -> Option<Command> {
    Some(match *what {
        Do::Append { tenant, device: number, len, keep_s, bytes_max } => append(AppendEvent {
            tenant: TENANTS[tenant],
            retention: Retention { keep_s, bytes_max },
            ..event(device(number), &vec![7; len])
        }),
        Do::Commit { tenant, consumer: number, offset } => {
            commit(TENANTS[tenant], consumer(number), offset)
        }
        Do::Delete { tenant, consumer: number } => delete(TENANTS[tenant], consumer(number)),
        Do::Tick => Command::Tick,
        Do::Pass(_) | Do::Reopen => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_stream_does_what_a_naive_one_does(whats in prop::collection::vec(what(), 1..80)) {
        let mut group = Group::new(SHARD);
        let mut model = Model { now: group.now, ..Model::default() };
        for what in &whats {
            let expected = model.apply(what);
            group.now = model.now;
            if let Some(command) = command(what) {
                prop_assert_eq!(Some(group.one(command)), expected, "{:?}", what);
                prop_assert_eq!(&group.effects, &model.effects, "{:?}", what);
            } else if matches!(what, Do::Reopen) {
                group.reopen();
            }
            model.compare(&group);
        }
    }
}
