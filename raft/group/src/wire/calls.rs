//! Requests of one connection that wait for their answers.
//!
//! # Invariants
//!
//! - **Each is ended once**: by its answer, its deadline, the end of the connection, or by nobody waiting any more.
//! - **Nobody is called with the lock held**, so an answer may cause the next request.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::CallError;

/// Requests that may wait for an answer, per peer and lane.
const CALLS_MAX: usize = 65_536;

/// What becomes of an answer.
pub(super) enum Done {
    /// Somebody awaits it, and watches the deadline.
    Future(oneshot::Sender<Result<Bytes, CallError>>),
    /// It is handed over; the sweep watches the deadline.
    Callback { call: Box<dyn FnOnce(Result<Bytes, CallError>) + Send>, deadline: Instant },
}

impl Done {
    pub(super) fn end(self, outcome: Result<Bytes, CallError>) {
        match self {
            // Nobody waits any more: then nobody misses it.
            Self::Future(sender) => drop(sender.send(outcome)),
            Self::Callback { call, deadline: _ } => call(outcome),
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Future",
            Self::Callback { .. } => "Callback",
        })
    }
}

#[derive(Debug)]
struct Pending {
    done: Done,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Calls {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: bool,
    last: u64,
    pending: HashMap<u64, Pending>,
    callbacks: usize,
}

impl Calls {
    pub(super) fn new() -> Self {
        let inner = Inner { open: true, last: 0, pending: HashMap::new(), callbacks: 0 };
        Self { inner: Mutex::new(inner) }
    }

    /// Takes note of a request; the correlation to send it with. Gives `done` back if there can be none.
    pub(super) fn begin(&self, done: Done, now: Instant) -> Result<u64, (Done, CallError)> {
        let mut inner = self.lock();
        if !inner.open {
            return Err((done, CallError::Unreachable));
        }
        if inner.pending.len() >= CALLS_MAX {
            return Err((done, CallError::Full));
        }
        inner.last += 1;
        inner.callbacks += usize::from(matches!(done, Done::Callback { .. }));
        let correlation = inner.last;
        inner.pending.insert(correlation, Pending { done, since: now });
        Ok(correlation)
    }

    /// Nobody waits for this one any more, or it could not be sent.
    pub(super) fn forget(&self, correlation: u64) -> Option<Done> {
        self.take(correlation).map(|pending| pending.done)
    }

    /// An answer came. How long it took, if somebody waited for it.
    pub(super) fn end(
        &self,
        correlation: u64,
        outcome: Result<Bytes, CallError>,
        now: Instant,
    ) -> Option<f64> {
        let pending = self.take(correlation)?;
        let took = now.saturating_duration_since(pending.since).as_secs_f64();
        pending.done.end(outcome);
        Some(took)
    }

    /// The connection is gone.
    pub(super) fn close(&self) {
        let pending = {
            let mut inner = self.lock();
            inner.open = false;
            inner.callbacks = 0;
            std::mem::take(&mut inner.pending)
        };
        // In the order they were sent, so that who sends them again elsewhere keeps it.
        let mut pending: Vec<_> = pending.into_iter().collect();
        pending.sort_unstable_by_key(|(correlation, _)| *correlation);
        for (_, pending) in pending {
            pending.done.end(Err(CallError::Closed));
        }
    }

    /// Ends the callbacks whose deadline has passed. Whether others still wait.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut late = Vec::new();
        let waiting = {
            let mut inner = self.lock();
            if inner.callbacks > 0 {
                let is_late = |_: &u64, pending: &mut Pending| match &pending.done {
                    Done::Callback { deadline, .. } => *deadline <= now,
                    Done::Future(_) => false,
                };
                late.extend(inner.pending.extract_if(is_late));
                inner.callbacks -= late.len();
            }
            inner.callbacks > 0
        };
        late.sort_unstable_by_key(|(correlation, _)| *correlation);
        for (_, pending) in late {
            pending.done.end(Err(CallError::Deadline));
        }
        waiting
    }

    fn take(&self, correlation: u64) -> Option<Pending> {
        let mut inner = self.lock();
        let pending = inner.pending.remove(&correlation)?;
        inner.callbacks -= usize::from(matches!(pending.done, Done::Callback { .. }));
        Some(pending)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use super::*;

    fn callback(
        answers: &mpsc::SyncSender<(u32, Result<Bytes, CallError>)>,
        name: u32,
        deadline: Instant,
    ) -> Done {
        let answers = answers.clone();
        let call = Box::new(move |outcome| answers.send((name, outcome)).unwrap());
        Done::Callback { call, deadline }
    }

    #[test]
    fn each_request_is_ended_once() {
        let (answers, ended) = mpsc::sync_channel(10);
        let (calls, now) = (Calls::new(), Instant::now());
        let soon = now + Duration::from_secs(1);
        let first = calls.begin(callback(&answers, 1, soon), now).unwrap();
        let second = calls.begin(callback(&answers, 2, soon), now).unwrap();
        assert!(first < second, "correlations count up");
        calls.begin(callback(&answers, 3, soon + Duration::from_secs(1)), now).unwrap();

        assert!(calls.end(second, Ok(Bytes::from("b")), now).is_some());
        assert!(calls.end(second, Ok(Bytes::from("b")), now).is_none(), "answered before");
        assert!(calls.sweep(now), "nothing is late");
        assert!(calls.sweep(soon), "the third still waits");
        calls.close();
        calls.close();
        assert!(!calls.sweep(soon));
        drop(answers);
        let ended: Vec<_> = ended.into_iter().collect();
        let expected =
            [(2, Ok(Bytes::from("b"))), (1, Err(CallError::Deadline)), (3, Err(CallError::Closed))];
        assert_eq!(ended, expected);
    }

    #[test]
    fn after_the_end_nothing_begins() {
        let (answers, _ended) = mpsc::sync_channel(1);
        let (calls, now) = (Calls::new(), Instant::now());
        calls.close();
        let (_, error) = calls.begin(callback(&answers, 1, now), now).unwrap_err();
        assert_eq!(error, CallError::Unreachable);
    }

    #[test]
    fn an_answer_may_cause_the_next_request() {
        let calls = Arc::new(Calls::new());
        let now = Instant::now();
        let again = calls.clone();
        let call = Box::new(move |_| {
            let (sender, _receiver) = oneshot::channel();
            again.begin(Done::Future(sender), now).unwrap();
        });
        let correlation = calls.begin(Done::Callback { call, deadline: now }, now).unwrap();
        calls.end(correlation, Ok(Bytes::new()), now).unwrap();
        assert_eq!(calls.lock().pending.len(), 1);
    }
}
