//! A bad line: what a node sends to the others is held back, lost and put out of order, packet by packet.
//!
//! The kernel hands each packet to a thread of ours (`NFQUEUE`) and waits for its verdict. Which packets are lost and how long each
//! waits is drawn from a seed; which packets there are is not.
//!
//! # Invariants
//!
//! - **A packet that was taken gets a verdict**: when a line is mended, those that wait go out at once.
//! - **The queue has a limit** (`PACKETS_MAX`); what comes on top is lost, as on a real line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nfq::{Message, Queue, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

/// The number of the queue; each namespace has its own.
pub const QUEUE: u16 = 7;
/// Most packets that wait in the kernel or here.
const PACKETS_MAX: u32 = 4_096;
/// How long the thread sleeps when nothing is due.
const NAP: Duration = Duration::from_millis(1);

/// How bad a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// How long a packet takes at least, in milliseconds.
    pub least_ms: u64,
    /// And at most. Each draws for itself, so they overtake each other.
    pub most_ms: u64,
    /// How many of a thousand are lost.
    pub lost_permille: u32,
}

/// What became of the packets.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
}

/// A line that is bad until it is mended, or dropped.
#[derive(Debug)]
pub struct Shaper {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Shaper {
    /// Takes what a rule of the namespace puts into [`QUEUE`].
    pub fn begin(space: &Path, line: Line, seed: u64) -> Result<Self> {
        let space = File::open(space).with_context(|| format!("{}", space.display()))?;
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let (told, ready) = std::sync::mpsc::sync_channel(1);
        let (halt, count) = (Arc::clone(&stop), Arc::clone(&counts));
        // A thread of its own: being in a namespace is a property of a thread, and a socket keeps the one it was made in.
        let thread = std::thread::Builder::new().name("shaper".into()).spawn(move || {
            let queue = open(&space);
            let failed = queue.as_ref().err().map(|error| format!("{error:#}"));
            told.send(failed).ok();
            work(queue?, line, StdRng::seed_from_u64(seed), &halt, &count)
        })?;
        let begun = ready.recv().context("the shaper's thread ended")?;
        if let Some(error) = begun {
            return Err(anyhow!(error));
        }
        Ok(Self { stop, counts, thread: Some(thread) })
    }

    /// Mends the line: what waits goes out. How many packets went through, and how many were lost.
    pub fn end(mut self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the shaper panicked"))??;
        }
        let Counts { passed, lost } = &*self.counts;
        Ok((passed.load(Ordering::Relaxed), lost.load(Ordering::Relaxed)))
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wants to know asks `end`.
            drop(thread.join());
        }
    }
}

fn open(space: &File) -> Result<Queue> {
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .context("a namespace can be entered by root only")?;
    let mut queue = Queue::open().context("the kernel has no NFQUEUE")?;
    queue.bind(QUEUE)?;
    queue.set_queue_max_len(QUEUE, PACKETS_MAX)?;
    queue.set_recv_enobufs(false)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// A packet that waits; the first that is due is the greatest.
struct Held {
    due: Reverse<Instant>,
    /// Those due at once go in the order they came.
    number: Reverse<u64>,
    message: Message,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

fn work(
    mut queue: Queue,
    line: Line,
    mut random: StdRng,
    stop: &AtomicBool,
    counts: &Counts,
) -> Result<()> {
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    let mut number = 0;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let idle = match queue.recv() {
            Ok(mut message) => {
                number += 1;
                if random.random_ratio(line.lost_permille.min(1_000), 1_000) {
                    message.set_verdict(Verdict::Drop);
                    queue.verdict(message)?;
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                } else {
                    let wait = random.random_range(line.least_ms..=line.most_ms.max(line.least_ms));
                    let due = Reverse(Instant::now() + Duration::from_millis(wait));
                    held.push(Held { due, number: Reverse(number), message });
                }
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => return Err(error).context("packets can't be read"),
        };
        let now = Instant::now();
        while held.peek().is_some_and(|first| stopping || first.due.0 <= now) {
            let Held { mut message, .. } = held.pop().expect("it was looked at");
            message.set_verdict(Verdict::Accept);
            queue.verdict(message)?;
            counts.passed.fetch_add(1, Ordering::Relaxed);
        }
        if idle && stopping {
            return Ok(());
        }
        if idle {
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let line = Line { least_ms: 40, most_ms: 120, lost_permille: 20 };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }
}
