//! Gaps: how long clients on the surviving nodes waited when a node was killed, stopped, paused or cut off.
//!
//! A publisher's progress is a PUBACK, a subscriber's a delivery. The gap of a client at a fault is the longest time
//! between two steps of progress that the fault, or the [`WINDOW_NS`] after it, falls into. A client counts if it was
//! connected to another node, was making progress before, and did not leave of its own will; a subscriber only if a
//! publisher that feeds it was on a surviving node too (else it waits for the publisher, not for the cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Event, Fault, Leave, Op, Phase, Stage};

/// How long after a fault gaps are put down to it, in nanoseconds.
pub const WINDOW_NS: u64 = 4_000_000_000;
/// A fault followed by the next one sooner than this has no gap of its own: all nodes killed at once, for one.
pub const WINDOW_NS_MIN: u64 = 500_000_000;
/// A client without progress for this long before a fault was already waiting for something else.
pub const IDLE_NS: u64 = 1_000_000_000;

/// The gaps around one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultGaps {
    /// When, in nanoseconds since the run began.
    pub ns: u64,
    /// What.
    pub fault: Fault,
    /// The node it hit.
    pub node: Option<u32>,
    /// Whether that node led a group.
    pub leader: bool,
    /// One gap a publisher, in nanoseconds, sorted.
    pub publishers: Vec<u64>,
    /// One gap a subscriber, in nanoseconds, sorted.
    pub subscribers: Vec<u64>,
}

/// The gaps of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// Fault by fault.
    pub faults: Vec<FaultGaps>,
}

/// Median and worst of some gaps, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there are.
    pub samples: usize,
    /// The median.
    pub p50_ns: u64,
    /// The worst.
    pub max_ns: u64,
}

impl Spread {
    /// Of these gaps, in any order.
    pub fn of(mut gaps: Vec<u64>) -> Self {
        gaps.sort_unstable();
        let p50_ns = gaps.get(gaps.len().saturating_sub(1) / 2).copied().unwrap_or(0);
        Self { samples: gaps.len(), p50_ns, max_ns: gaps.last().copied().unwrap_or(0) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10);
        write!(f, "p50 {:>10}  max {:>10}  n {}", ms(self.p50_ns), ms(self.max_ns), self.samples)
    }
}

impl Gaps {
    /// All publishers' gaps; `leaders` keeps only faults that hit a leader.
    pub fn publishers(&self, leaders: bool) -> Spread {
        Spread::of(self.pick(leaders).flat_map(|one| one.publishers.clone()).collect())
    }

    /// All subscribers' gaps; `leaders` keeps only faults that hit a leader.
    pub fn subscribers(&self, leaders: bool) -> Spread {
        Spread::of(self.pick(leaders).flat_map(|one| one.subscribers.clone()).collect())
    }

    fn pick(&self, leaders: bool) -> impl Iterator<Item = &FaultGaps> {
        self.faults.iter().filter(move |one| one.leader || !leaders)
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.faults {
            writeln!(
                f,
                "{:>8.1} s  {:?} node {}{}: publishers {}  subscribers {}",
                std::time::Duration::from_nanos(one.ns).as_secs_f64(),
                one.fault,
                one.node.unwrap_or(0),
                if one.leader { " (leader)" } else { "" },
                Spread::of(one.publishers.clone()),
                Spread::of(one.subscribers.clone()),
            )?;
        }
        writeln!(f, "publishers,  all faults:     {}", self.publishers(false))?;
        writeln!(f, "publishers,  leader faults:  {}", self.publishers(true))?;
        writeln!(f, "subscribers, all faults:     {}", self.subscribers(false))?;
        write!(f, "subscribers, leader faults:  {}", self.subscribers(true))
    }
}

/// Measures the gaps around every fault of a history.
pub fn measure(events: &[Event]) -> Gaps {
    let tracks = Track::of(events);
    let mut ends: Vec<u64> =
        events.iter().filter(|event| ends_window(event)).map(|e| e.ns).collect();
    ends.push(events.last().map_or(0, |event| event.ns));
    let mut faults = Vec::new();
    for event in events {
        let Op::Fault { fault, leader } = event.op else { continue };
        if !interrupts(fault) || event.ph != Phase::Ok {
            continue;
        }
        let until = ends.iter().copied().find(|&end| end > event.ns).unwrap_or(event.ns);
        if until < event.ns + WINDOW_NS_MIN {
            continue;
        }
        let window =
            Window { from: event.ns, until: until.min(event.ns + WINDOW_NS), node: event.node };
        let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
        for track in tracks.values() {
            publishers.extend(window.gap(track, &track.acks));
            if track.fed_by(&window, &tracks) {
                subscribers.extend(window.gap(track, &track.deliveries));
            }
        }
        publishers.sort_unstable();
        subscribers.sort_unstable();
        let node = event.node;
        faults.push(FaultGaps { ns: event.ns, fault, node, leader, publishers, subscribers });
    }
    Gaps { faults }
}

/// Whether such a fault has gaps of its own: a node that served does not from one moment to the next.
fn interrupts(fault: Fault) -> bool {
    matches!(fault, Fault::Kill | Fault::Terminate | Fault::Pause | Fault::Cut)
}

/// Another interruption, or the end of publishing, ends what a fault is answerable for.
fn ends_window(event: &Event) -> bool {
    match event.op {
        Op::Fault { fault, .. } if interrupts(fault) => event.ph == Phase::Ok,
        Op::Mark { stage: Stage::Draining } => true,
        Op::Fault { .. }
        | Op::Mark { .. }
        | Op::Connect { .. }
        | Op::Leave { .. }
        | Op::Subscribe { .. }
        | Op::Publish { .. }
        | Op::Deliver { .. }
        | Op::Ack { .. }
        | Op::Digest { .. }
        | Op::Record { .. }
        | Op::Mail { .. }
        | Op::Revoke { .. }
        | Op::Log { .. }
        | Op::Leads { .. }
        | Op::Snapshots { .. }
        | Op::Load(_) => false,
    }
}

struct Window {
    from: u64,
    until: u64,
    node: Option<u32>,
}

/// What one client did, by time.
#[derive(Default)]
struct Track {
    /// When it was connected to which node; none from the moment it was not.
    nodes: Vec<(u64, Option<u32>)>,
    /// When it left of its own will.
    churn: Vec<u64>,
    acks: Vec<u64>,
    deliveries: Vec<u64>,
    /// Which publisher fed it when.
    fed: Vec<(u64, u32)>,
    /// The number under which it publishes.
    publisher: Option<u32>,
}

impl Track {
    fn of(events: &[Event]) -> BTreeMap<&str, Self> {
        let mut tracks: BTreeMap<&str, Self> = BTreeMap::new();
        let mut current: BTreeMap<&str, u64> = BTreeMap::new();
        for event in events {
            let track = tracks.entry(event.p.as_str()).or_default();
            match &event.op {
                Op::Connect { conn, .. } if event.ph == Phase::Ok => {
                    current.insert(event.p.as_str(), *conn);
                    track.nodes.push((event.ns, event.node));
                }
                Op::Leave { conn, why } => {
                    if current.get(event.p.as_str()) == Some(conn) {
                        track.nodes.push((event.ns, None));
                    }
                    if matches!(why, Leave::Churn | Leave::Stopped) {
                        track.churn.push(event.ns);
                    }
                }
                Op::Publish { message, .. } => {
                    track.publisher = Some(message.publisher);
                    if event.ph == Phase::Ok {
                        track.acks.push(event.ns);
                    }
                }
                Op::Deliver { message, .. } => {
                    track.deliveries.push(event.ns);
                    track.fed.extend(message.map(|message| (event.ns, message.publisher)));
                }
                Op::Connect { .. }
                | Op::Subscribe { .. }
                | Op::Ack { .. }
                | Op::Fault { .. }
                | Op::Digest { .. }
                | Op::Mark { .. }
                | Op::Record { .. }
                | Op::Mail { .. }
                | Op::Revoke { .. }
                | Op::Log { .. }
                | Op::Leads { .. }
                | Op::Snapshots { .. }
                | Op::Load(_) => {}
            }
        }
        tracks
    }

    /// Whether the client was connected to a node the fault did not hit.
    fn survives(&self, window: &Window) -> bool {
        let before = self.nodes.partition_point(|&(ns, _)| ns <= window.from);
        let node = before.checked_sub(1).and_then(|at| self.nodes[at].1);
        node.is_some() && node != window.node
    }

    /// Whether a publisher that fed the client just before the fault survived it.
    fn fed_by(&self, window: &Window, tracks: &BTreeMap<&str, Self>) -> bool {
        let start = self.fed.partition_point(|&(ns, _)| ns + IDLE_NS < window.from);
        let end = self.fed.partition_point(|&(ns, _)| ns <= window.from);
        let sources: BTreeSet<u32> = self.fed[start..end].iter().map(|&(_, by)| by).collect();
        tracks.values().any(|track| {
            track.publisher.is_some_and(|publisher| sources.contains(&publisher))
                && track.survives(window)
                && track.stays(window)
        })
    }

    fn stays(&self, window: &Window) -> bool {
        !self.churn.iter().any(|ns| (window.from..=window.until).contains(ns))
    }
}

impl Window {
    fn gap(&self, track: &Track, progress: &[u64]) -> Option<u64> {
        let next = progress.partition_point(|&ns| ns <= self.from);
        let mut last = *progress.get(next.checked_sub(1)?)?;
        if last + IDLE_NS < self.from || !track.survives(self) || !track.stays(self) {
            return None;
        }
        let mut longest = 0;
        for &ns in progress[next..].iter().take_while(|&&ns| ns <= self.until) {
            longest = longest.max(ns - last);
            last = ns;
        }
        // Still waiting when the window closed: the gap is at least this long.
        Some(longest.max(self.until.saturating_sub(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::{MS, Story};

    /// Publisher on node 1, subscriber on node 2; the fault hits `node`; 300 ms of silence follow.
    fn silence(node: u32) -> Gaps {
        let mut story = Story::with_clients();
        for seq in 1..=10 {
            story.acked(1, seq).taken(2, seq).wait(16);
        }
        story.fault(Fault::Kill, node).wait(300);
        for seq in 11..=220 {
            story.acked(1, seq).taken(2, seq).wait(16);
        }
        measure(&story.events)
    }

    #[test]
    fn a_gap_is_the_longest_wait_around_a_fault() {
        let gaps = silence(3);
        let one = &gaps.faults[0];
        // 2 events and 16 ms of pause after the last PUBACK, the fault, 300 ms of silence, 2 events to the next.
        assert_eq!(one.publishers, [321 * MS]);
        assert_eq!(one.subscribers, [321 * MS]);
        assert_eq!(
            gaps.publishers(true),
            Spread { samples: 1, p50_ns: 321 * MS, max_ns: 321 * MS }
        );
    }

    #[test]
    fn clients_of_the_node_that_was_hit_do_not_count() {
        let one = &silence(1).faults[0];
        assert!(one.publishers.is_empty());
        assert!(one.subscribers.is_empty(), "its only publisher was hit");
        let one = &silence(2).faults[0];
        assert_eq!((one.publishers.len(), one.subscribers.len()), (1, 0));
    }

    #[test]
    fn a_wait_that_outlasts_the_window_is_not_forgotten() {
        let mut story = Story::with_clients();
        story.acked(1, 1).fault(Fault::Pause, 3).wait(9_000).mark(Stage::Publishing);
        let gaps = measure(&story.events);
        assert!(gaps.faults[0].publishers[0] >= WINDOW_NS);
    }

    #[test]
    fn a_client_that_left_by_itself_does_not_count() {
        let mut story = Story::with_clients();
        story.acked(1, 1).fault(Fault::Cut, 3).wait(100);
        story.push("p0", Phase::Ok, None, Op::Leave { conn: 1, why: Leave::Churn });
        story.wait(5_000).mark(Stage::Draining);
        assert!(measure(&story.events).faults[0].publishers.is_empty());
    }

    #[test]
    fn faults_that_come_together_have_no_gap_of_their_own() {
        let mut story = Story::with_clients();
        story.acked(1, 1).fault(Fault::Kill, 2).fault(Fault::Kill, 3).wait(900);
        story.mark(Stage::Draining);
        let gaps = measure(&story.events);
        assert_eq!(gaps.faults.iter().map(|one| one.node).collect::<Vec<_>>(), [Some(3)]);
    }

    #[test]
    fn the_median_is_the_lower_middle() {
        #[rustfmt::skip]
        let table = [
            (vec![],           (0, 0, 0)),
            (vec![7],          (1, 7, 7)),
            (vec![9, 1],       (2, 1, 9)),
            (vec![3, 9, 1, 2], (4, 2, 9)),
        ];
        for (gaps, expected) in table {
            let spread = Spread::of(gaps);
            assert_eq!((spread.samples, spread.p50_ns, spread.max_ns), expected);
        }
    }
}
