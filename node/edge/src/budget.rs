//! What a node spends on newcomers: so many handshakes of TLS and so many authentications at once and in a second, by its cores.
//! Who is beyond waits in a line, in order of arrival and for a short time, and else is told so before any costly work is done.
//!
//! ```text
//!   TCP ──► line of handshakes ──► TLS ──► CONNECT ──► line of authentications ──► who it is ──► its session, CONNACK
//!              │ full, or too long                        │ full, or too long
//!              ▼                                          ▼
//!           closed, counted                            server busy (MQTT), 503 with Retry-After (HTTP), counted
//! ```
//!
//! So a storm takes a known part of each core, whatever it is made of, and those who are connected have the rest.
//!
//! # Invariants
//!
//! - **Bounded**: `admission-waiting-max` wait in each line, none for longer than `admission-wait-ms`. Checked below.
//! - **Fair**: turns are given in order of arrival; nobody overtakes. Checked below.
//! - **Who is refused, or leaves, has cost nothing and takes nothing**: no turn, no place. Checked below.
//! - **Who says nothing has no place**: that of a handshake is taken when its first byte is there. Checked by `tests/budget.rs`.
//! - **A place is free again however its holder ends**: it is a permit that is dropped.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use moorline_mqtt::Millis;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    bucket::{Buckets, Rate, Turn},
    clock::Clock,
    config::EdgeConfig,
    limit::EdgeLimit,
    metrics::EdgeMetrics,
};

/// The part of a second whose turns may be taken at once: what a quiet node does not notice.
const BURST_PART: u32 = 5;

/// What newcomers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// A handshake of TLS.
    Handshakes,
    /// To be judged.
    Authentications,
}

impl Gate {
    /// All of them, by number.
    pub(crate) const ALL: [Self; 2] = [Self::Handshakes, Self::Authentications];

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Authentications => "authentications",
        }
    }

    /// Too many are under way.
    fn at_once(self) -> EdgeLimit {
        match self {
            Self::Handshakes => EdgeLimit::HandshakesPerCore,
            Self::Authentications => EdgeLimit::AuthenticationsPerCore,
        }
    }

    /// Too many come in a second.
    fn per_s(self) -> EdgeLimit {
        match self {
            Self::Handshakes => EdgeLimit::HandshakesPerCoreS,
            Self::Authentications => EdgeLimit::AuthenticationsPerCoreS,
        }
    }
}

/// What a line allows.
#[derive(Debug, Clone, Copy)]
struct Plan {
    at_once: usize,
    /// 0 for any number.
    per_s: u32,
    waiting_max: usize,
    wait_ms: u64,
}

/// Both lines of an edge.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) handshakes: Arc<Line>,
    pub(crate) authentications: Arc<Line>,
}

impl Budget {
    pub(crate) fn new(config: &EdgeConfig, clock: Clock, metrics: &Arc<EdgeMetrics>) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let line = |gate, at_once: u32, per_s: u32| {
            let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).saturating_mul(cores);
            let plan = Plan {
                at_once: at_once.min(Semaphore::MAX_PERMITS),
                per_s: per_s.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)),
                waiting_max: usize::try_from(config.admission_waiting_max).unwrap_or(usize::MAX),
                wait_ms: config.admission_wait_ms,
            };
            Arc::new(Line::new(gate, plan, clock, Arc::clone(metrics)))
        };
        Self {
            handshakes: line(
                Gate::Handshakes,
                config.handshakes_per_core,
                config.handshakes_per_core_s,
            ),
            authentications: line(
                Gate::Authentications,
                config.authentications_per_core,
                config.authentications_per_core_s,
            ),
        }
    }
}

/// Newcomers in order of arrival.
#[derive(Debug)]
pub(crate) struct Line {
    gate: Gate,
    plan: Plan,
    places: Arc<Semaphore>,
    pace: Mutex<Buckets<()>>,
    waiting: AtomicUsize,
    clock: Clock,
    metrics: Arc<EdgeMetrics>,
}

/// One that may go ahead. Its place is free when this is dropped.
#[derive(Debug)]
pub struct Pass {
    _place: OwnedSemaphorePermit,
}

/// One that waits. It leaves the line when this is dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    turn: Taken,
    /// In the line.
    place: InLine,
    since: Instant,
    /// Its turn, by what may come in a second.
    after_ms: u64,
}

/// A turn of the pace, which is put back when this is dropped, unless it was used.
#[derive(Debug)]
struct Taken {
    line: Arc<Line>,
    used: bool,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.used {
            self.line.pace().put_back(&());
        }
    }
}

/// Counts one that waits.
#[derive(Debug)]
struct InLine(Arc<Line>);

impl InLine {
    /// At the end of the line, and how many are in it then.
    fn new(line: &Arc<Line>) -> (Self, usize) {
        let before = line.waiting.fetch_add(1, Ordering::Relaxed);
        line.metrics.waits(line.gate);
        (Self(Arc::clone(line)), before.saturating_add(1))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.waits_no_more(self.0.gate);
    }
}

impl Line {
    fn new(gate: Gate, plan: Plan, clock: Clock, metrics: Arc<EdgeMetrics>) -> Self {
        let Plan { at_once, per_s, wait_ms, .. } = plan;
        let rate = Rate { per_s, burst: (per_s / BURST_PART).max(1), wait_ms_max: wait_ms };
        Self {
            gate,
            plan,
            places: Arc::new(Semaphore::new(at_once)),
            pace: Mutex::new(Buckets::new(rate, 1)),
            waiting: AtomicUsize::new(0),
            clock,
            metrics,
        }
    }

    /// A place in the line, or at once why there is none. Whoever has none is counted.
    pub(crate) fn queue(self: &Arc<Self>) -> Result<Queued, EdgeLimit> {
        let queued = self.queue_at(self.clock.now().at);
        queued.inspect_err(|limit| self.metrics.turned_away(*limit))
    }

    fn queue_at(self: &Arc<Self>, now: Millis) -> Result<Queued, EdgeLimit> {
        let (place, waiting) = InLine::new(self);
        if waiting > self.plan.waiting_max {
            return Err(EdgeLimit::AdmissionWaiting);
        }
        let turn = self.pace().take((), now);
        let after_ms = match turn {
            Turn::Now => 0,
            Turn::After(ms) => ms,
            Turn::Refused => return Err(self.gate.per_s()),
        };
        let turn = Taken { line: Arc::clone(self), used: false };
        Ok(Queued { turn, place, since: Instant::now(), after_ms })
    }

    fn pace(&self) -> MutexGuard<'_, Buckets<()>> {
        // Every change is complete before anything can panic.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both steps for those who have nothing to say in between.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Pass, EdgeLimit> {
        self.queue()?.pass().await
    }
}

impl Queued {
    /// Waits for a turn, then for a place. Whoever waits in vain is counted.
    pub(crate) async fn pass(self) -> Result<Pass, EdgeLimit> {
        let Self { mut turn, place, since, after_ms } = self;
        let line = Arc::clone(&place.0);
        if after_ms > 0 {
            sleep(Duration::from_millis(after_ms)).await;
        }
        let deadline = since + Duration::from_millis(line.plan.wait_ms);
        let permit = timeout_at(deadline, Arc::clone(&line.places).acquire_owned()).await;
        drop(place);
        turn.used = permit.is_ok();
        let Ok(permit) = permit else {
            let limit = line.gate.at_once();
            line.metrics.turned_away(limit);
            return Err(limit);
        };
        line.metrics.admitted(line.gate, since.elapsed());
        Ok(Pass { _place: permit.expect("nobody closes it") })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use prometheus::Registry;

    use super::*;

    const PLAN: Plan = Plan { at_once: 2, per_s: 0, waiting_max: 100, wait_ms: 60_000 };

    fn line(plan: Plan) -> Arc<Line> {
        let metrics = EdgeMetrics::register(&Registry::new()).unwrap();
        Arc::new(Line::new(Gate::Handshakes, plan, Clock::start(), Arc::new(metrics)))
    }

    fn waiting(line: &Line) -> usize {
        line.waiting.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn as_many_as_may_are_at_it_and_others_have_their_turn_in_order() {
        let line = line(PLAN);
        let one = line.enter().await.unwrap();
        let _two = line.enter().await.unwrap();
        let mut third = Box::pin(line.queue().unwrap().pass());
        let mut fourth = Box::pin(line.queue().unwrap().pass());
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        assert_eq!(waiting(&line), 2);
        drop(one);
        assert!((&mut fourth).now_or_never().is_none(), "it is the third one's turn");
        let third = third.now_or_never().unwrap().unwrap();
        drop(third);
        assert!(fourth.now_or_never().unwrap().is_ok());
        assert_eq!(waiting(&line), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_longer_than_he_may_and_who_leaves_makes_room() {
        let line = line(Plan { at_once: 1, waiting_max: 2, wait_ms: 50, ..PLAN });
        let _one = line.enter().await.unwrap();
        let (left, late) = (line.queue().unwrap(), line.queue().unwrap());
        assert_eq!(line.queue().unwrap_err(), EdgeLimit::AdmissionWaiting);
        drop(left);
        assert_eq!(waiting(&line), 1);
        let since = late.since;
        assert_eq!(late.pass().await.unwrap_err(), EdgeLimit::HandshakesPerCore);
        assert!(since.elapsed() >= Duration::from_millis(50));
        assert_eq!(waiting(&line), 0);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_in_vain_has_taken_no_turn() {
        let line = line(Plan { at_once: 1, per_s: 1, wait_ms: 0, ..PLAN });
        let _one = line.queue_at(Millis(0)).unwrap().pass().await.unwrap();
        let vain = line.queue_at(Millis(1_000)).unwrap();
        assert_eq!(vain.pass().await.unwrap_err(), EdgeLimit::HandshakesPerCore);
        assert_eq!(line.queue_at(Millis(1_000)).unwrap().after_ms, 0);
    }

    #[tokio::test]
    async fn a_second_has_so_many_turns_and_who_would_wait_too_long_is_told_at_once() {
        let line = line(Plan { at_once: 1_000, per_s: 10, wait_ms: 2_000, ..PLAN });
        // A burst of two, and those whose turn is within two seconds.
        let queued: Vec<_> = (0..30).map(|_| line.queue_at(Millis(5_000))).collect();
        let after: Vec<_> = queued.iter().flatten().map(|one| one.after_ms).collect();
        assert_eq!(after[..4], [0, 0, 100, 200]);
        assert_eq!((after.len(), after[21]), (22, 2_000));
        let refused: Vec<_> = queued.iter().filter_map(|one| one.as_ref().err()).collect();
        assert_eq!(refused, [&EdgeLimit::HandshakesPerCoreS; 8]);
        assert_eq!(waiting(&line), 22);
        // Two leave: their turns are for who comes next.
        let mut queued: Vec<_> = queued.into_iter().flatten().collect();
        queued.truncate(20);
        let next: Vec<_> = (0..3).map(|_| line.queue_at(Millis(5_000))).collect();
        let after: Vec<_> = next.iter().flatten().map(|one| one.after_ms).collect();
        assert_eq!(after, [1_900, 2_000]);
        queued.extend(next.into_iter().flatten());
        // Who was refused has taken nothing: a tenth of a second later there is one turn more.
        assert_eq!(line.queue_at(Millis(5_100)).unwrap().after_ms, 2_000);
        let third = queued.swap_remove(2);
        let since = third.since;
        assert!(third.pass().await.is_ok());
        assert!(since.elapsed() >= Duration::from_millis(100));
        let off = self::line(Plan { at_once: 1_000, ..PLAN });
        assert!((0..50).all(|_| off.queue().is_ok_and(|one| one.after_ms == 0)));
    }
}
