//! Acknowledgements: how long publishers waited for them before, during and after something that took a while.
//!
//! A message counts from when it was first sent to when it was acknowledged, through lost connections and repeats, and belongs to the
//! part of the run in which it was first sent. What was never acknowledged is for other checks.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Event, MessageId, Op, Phase};

/// How long acknowledgements took in one part of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many there are.
    pub samples: usize,
    /// The median, in nanoseconds.
    pub p50_ns: u64,
    /// What 99 of 100 don't exceed.
    pub p99_ns: u64,
    /// The worst.
    pub max_ns: u64,
    /// How long that part was: from its first message to its last, in nanoseconds.
    pub lasted_ns: u64,
}

/// The three parts of a run in which something took a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks {
    /// Of messages sent before it began.
    pub before: Quantiles,
    /// Of messages sent while it went on.
    pub during: Quantiles,
    /// Of messages sent when it was over.
    pub after: Quantiles,
}

impl Quantiles {
    /// Of when messages were sent and how long they waited, in any order.
    fn of(mut all: Vec<(u64, u64)>) -> Self {
        let first = all.iter().map(|(sent, _)| *sent).min().unwrap_or(0);
        let last = all.iter().map(|(sent, _)| *sent).max().unwrap_or(0);
        all.sort_unstable_by_key(|(_, waited)| *waited);
        // The least that so many of a hundred don't exceed.
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100).max(1);
            all.get(rank - 1).map_or(0, |(_, waited)| *waited)
        };
        let (p50_ns, p99_ns, max_ns) = (at(50), at(99), at(100));
        Self { samples: all.len(), p50_ns, p99_ns, max_ns, lasted_ns: last - first }
    }

    /// Messages in a second.
    fn rate(&self) -> u64 {
        let ms = (self.lasted_ns / 1_000_000).max(1);
        self.samples as u64 * 1_000 / ms
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10);
        let (p50, p99, max) = (ms(self.p50_ns), ms(self.p99_ns), ms(self.max_ns));
        write!(f, "p50 {p50:>9}  p99 {p99:>10}  max {max:>10}  n {} ", self.samples)?;
        write!(f, "({}/s)", self.rate())
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, part) in
            [("before", &self.before), ("during", &self.during), ("after", &self.after)]
        {
            writeln!(f, "acknowledged {name:<6}  {part}")?;
        }
        let tenths = |part: u64, of: u64| {
            let tenths = part * 10 / of.max(1);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let (p50, p99) = (self.before.p50_ns, self.before.p99_ns);
        write!(
            f,
            "times before: during p50 {} p99 {}, after p50 {} p99 {}",
            tenths(self.during.p50_ns, p50),
            tenths(self.during.p99_ns, p99),
            tenths(self.after.p50_ns, p50),
            tenths(self.after.p99_ns, p99),
        )
    }
}

/// Measures what publishers waited before `from_ns`, until `until_ns`, and from then on.
pub fn measure(events: &[Event], from_ns: u64, until_ns: u64) -> Acks {
    let mut sent: BTreeMap<MessageId, u64> = BTreeMap::new();
    let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        let Op::Publish { message, .. } = event.op else { continue };
        match event.ph {
            Phase::Invoke => {
                sent.entry(message).or_insert(event.ns);
            }
            Phase::Ok => {
                let Some(first) = sent.remove(&message) else { continue };
                let part = match first {
                    _ if first < from_ns => &mut before,
                    _ if first < until_ns => &mut during,
                    _ => &mut after,
                };
                part.push((first, event.ns - first));
            }
            // Unknown: it is sent again. Refused: nobody waits any more.
            Phase::Info => {}
            Phase::Fail => {
                sent.remove(&message);
            }
        }
    }
    let [before, during, after] = [before, during, after].map(Quantiles::of);
    Acks { before, during, after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::{MS, Story};

    #[test]
    fn a_message_belongs_to_when_it_was_sent_and_waits_through_repeats() {
        let mut story = Story::with_clients();
        story.acked(1, 1);
        let from = story.events.last().unwrap().ns + 1;
        story.publish(Phase::Invoke, 1, 2).wait(100).publish(Phase::Info, 1, 2);
        story.publish(Phase::Invoke, 1, 2);
        let until = story.events.last().unwrap().ns + 1;
        story.wait(49).publish(Phase::Ok, 1, 2).wait(10).acked(1, 3);
        story.publish(Phase::Invoke, 1, 4).publish(Phase::Fail, 1, 4);
        let acks = measure(&story.events, from, until);
        let of = |part: Quantiles| (part.samples, part.p50_ns, part.max_ns);
        assert_eq!(of(acks.before), (1, MS, MS));
        assert_eq!(of(acks.during), (1, 152 * MS, 152 * MS));
        assert_eq!(of(acks.after), (1, MS, MS));
        let said = acks.to_string();
        assert!(said.ends_with("during p50 152.0 p99 152.0, after p50 1.0 p99 1.0"), "{said}");
    }

    #[test]
    fn quantiles_are_of_the_samples_and_nothing_is_divided_by_zero() {
        let hundred = Quantiles::of((1..=100).rev().map(|wait| (wait * MS * 10, wait)).collect());
        assert_eq!((hundred.p50_ns, hundred.p99_ns, hundred.max_ns), (50, 99, 100));
        assert_eq!(hundred.rate(), 101);
        let two = Quantiles::of(vec![(5, 9), (5, 1)]);
        assert_eq!((two.p50_ns, two.p99_ns), (1, 9));
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
        assert!(measure(&[], 0, 0).to_string().contains("n 0"));
    }
}
