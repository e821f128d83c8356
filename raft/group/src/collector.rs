//! Which commands go into the next log entry, and when: the self-clocking batcher, pure.
//!
//! A Raft round costs the same for one command as for four hundred. While fewer than [`AT_ONCE_BELOW`] entries are in
//! flight a run is sent at once (so that a lone client waits for nothing); else runs are collected until an entry is
//! full or a slot is free. No timer.
//!
//! # Invariants
//!
//! - **First in, first out.** Runs leave in the order in which they came; a run is never split.
//! - **Bounded.** At most [`BatcherLimits::waiting_commands_max`] commands and [`BatcherLimits::waiting_bytes_max`]
//!   bytes wait, at most [`BatcherLimits::in_flight_max`] entries are in flight.

use std::collections::VecDeque;

use moorline_machine::command::Run;

/// With fewer entries in flight than this, nothing is held back.
pub(crate) const AT_ONCE_BELOW: usize = 2;

/// How the batcher of each group collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatcherLimits {
    /// Commands in one entry. A single run may be bigger.
    pub entry_commands_max: usize,
    /// Bytes in one entry. A single run may be bigger.
    pub entry_bytes_max: usize,
    /// Entries that are proposed and not yet answered.
    pub in_flight_max: usize,
    /// Commands that wait for a slot; beyond it the caller hears `Busy`.
    pub waiting_commands_max: usize,
    /// Bytes that wait for a slot; beyond it the caller hears `Busy`.
    pub waiting_bytes_max: usize,
}

impl Default for BatcherLimits {
    fn default() -> Self {
        Self {
            entry_commands_max: 256,
            entry_bytes_max: 128 * 1024,
            in_flight_max: 8,
            waiting_commands_max: 4096,
            waiting_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// Runs that wait for an entry, each with what to call when it is answered.
#[derive(Debug)]
pub(crate) struct Collector<R> {
    limits: BatcherLimits,
    waiting: VecDeque<(Run, R)>,
    commands: usize,
    bytes: usize,
}

impl<R> Collector<R> {
    pub(crate) fn new(limits: BatcherLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), commands: 0, bytes: 0 }
    }

    /// Puts a run at the end, or gives `reply` back if it would have to wait behind too many.
    pub(crate) fn push(&mut self, run: Run, reply: R) -> Result<(), R> {
        let commands = self.commands + usize::from(run.count);
        let bytes = self.bytes + run.commands.len();
        // An empty queue takes any run, so that the biggest one is not refused for ever.
        let over =
            commands > self.limits.waiting_commands_max || bytes > self.limits.waiting_bytes_max;
        if over && !self.waiting.is_empty() {
            return Err(reply);
        }
        (self.commands, self.bytes) = (commands, bytes);
        self.waiting.push_back((run, reply));
        Ok(())
    }

    /// The runs of the entry to propose now, if there is one to propose with so many in flight.
    pub(crate) fn next_entry(&mut self, in_flight: usize) -> Option<Vec<(Run, R)>> {
        let full = self.commands >= self.limits.entry_commands_max
            || self.bytes >= self.limits.entry_bytes_max;
        let may = in_flight < AT_ONCE_BELOW || (full && in_flight < self.limits.in_flight_max);
        if !may || self.waiting.is_empty() {
            return None;
        }
        let mut entry = Vec::new();
        let (mut commands, mut bytes) = (0, 0);
        while let Some((run, _)) = self.waiting.front() {
            let (more_commands, more_bytes) = (usize::from(run.count), run.commands.len());
            let fits = commands + more_commands <= self.limits.entry_commands_max
                && bytes + more_bytes <= self.limits.entry_bytes_max;
            if !fits && !entry.is_empty() {
                break;
            }
            commands += more_commands;
            bytes += more_bytes;
            entry.extend(self.waiting.pop_front());
        }
        self.commands -= commands;
        self.bytes -= bytes;
        Some(entry)
    }

    /// Commands that wait.
    #[cfg(test)]
    pub(crate) fn commands(&self) -> usize {
        self.commands
    }

    /// Everything that waits, in order; nothing waits afterwards.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (Run, R)> + use<R> {
        (self.commands, self.bytes) = (0, 0);
        std::mem::take(&mut self.waiting).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_machine::command::ProducerId;

    use super::*;

    fn run(first_seq: u64, count: u16, bytes: usize) -> Run {
        Run {
            producer: ProducerId(1),
            first_seq,
            answered_below: 0,
            count,
            commands: Bytes::from(vec![0; bytes]),
        }
    }

    fn limits() -> BatcherLimits {
        BatcherLimits {
            entry_commands_max: 4,
            entry_bytes_max: 1000,
            in_flight_max: 8,
            waiting_commands_max: 10,
            waiting_bytes_max: 3000,
        }
    }

    fn firsts(entry: Option<Vec<(Run, u32)>>) -> Vec<u64> {
        entry.into_iter().flatten().map(|(run, _)| run.first_seq).collect()
    }

    #[test]
    fn a_lone_command_waits_for_nothing_and_a_second_one_neither() {
        let mut collector = Collector::new(limits());
        for in_flight in 0..AT_ONCE_BELOW {
            collector.push(run(1, 1, 10), 0).unwrap();
            assert_eq!(firsts(collector.next_entry(in_flight)), [1]);
        }
        collector.push(run(2, 1, 10), 0).unwrap();
        assert_eq!(firsts(collector.next_entry(AT_ONCE_BELOW)), [] as [u64; 0]);
        assert_eq!(firsts(collector.next_entry(AT_ONCE_BELOW - 1)), [2]);
    }

    #[test]
    fn with_two_in_flight_an_entry_is_filled_before_it_leaves() {
        let mut collector = Collector::new(limits());
        for seq in 1..=3 {
            collector.push(run(seq, 1, 10), 0).unwrap();
            assert!(collector.next_entry(2).is_none());
        }
        collector.push(run(4, 1, 10), 0).unwrap();
        assert_eq!(firsts(collector.next_entry(7)), [1, 2, 3, 4]);
        for seq in 5..=8 {
            collector.push(run(seq, 1, 10), 0).unwrap();
        }
        assert!(collector.next_entry(8).is_none(), "eight are in flight");
    }

    #[test]
    fn bytes_fill_an_entry_too_and_a_big_run_goes_alone() {
        let mut collector = Collector::new(limits());
        collector.push(run(1, 1, 600), 0).unwrap();
        collector.push(run(2, 1, 600), 0).unwrap();
        collector.push(run(3, 1, 1500), 0).unwrap();
        assert_eq!(firsts(collector.next_entry(3)), [1]);
        assert_eq!(firsts(collector.next_entry(3)), [2]);
        assert_eq!(firsts(collector.next_entry(3)), [3]);
        assert!(collector.next_entry(0).is_none());
    }

    #[test]
    fn beyond_the_limits_the_reply_comes_back() {
        let mut collector = Collector::new(limits());
        collector.push(run(1, 9, 10), 1).unwrap();
        collector.push(run(10, 1, 10), 2).unwrap();
        assert_eq!(collector.push(run(11, 1, 10), 3), Err(3));
        let mut collector = Collector::new(limits());
        collector.push(run(1, 1, 2990), 1).unwrap();
        assert_eq!(collector.push(run(2, 1, 11), 2), Err(2));
        let mut collector = Collector::new(limits());
        assert_eq!(collector.push(run(1, 200, 5000), 1), Ok(()), "an empty queue takes any run");
    }

    #[test]
    fn taking_all_leaves_nothing_and_counts_from_zero() {
        let mut collector = Collector::new(limits());
        collector.push(run(1, 6, 10), 1).unwrap();
        collector.push(run(7, 3, 10), 2).unwrap();
        let replies: Vec<u32> = collector.take_all().map(|(_, reply)| reply).collect();
        assert_eq!((replies, collector.commands()), (vec![1, 2], 0));
        assert_eq!(collector.push(run(1, 10, 10), 3), Ok(()));
    }
}
