//! The watch over free space: refuse new messages before the disk is full, stop cleanly before it is too late.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moorline_storage_rocks::space::{self, Reserve, SpaceLimits, SpaceState};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How often free space is looked at. At 500 MB/s of writes a second costs half a gigabyte, which is what the default
/// thresholds leave.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What the last look found; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<SpaceState>,
    free: AtomicU64,
}

impl DiskState {
    /// Nothing was looked at yet.
    pub(crate) fn new() -> Self {
        let state = Mutex::new(SpaceState::Ok);
        Self { inner: Arc::new(Inner { state, free: AtomicU64::new(0) }) }
    }

    /// Whether new messages are taken.
    pub(crate) fn accepts(&self) -> bool {
        self.state() == SpaceState::Ok
    }

    /// Free bytes at the last look.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.inner.free.load(Ordering::Relaxed)
    }

    /// What the last look came to.
    pub(crate) fn state(&self) -> SpaceState {
        *self.inner.state.lock().expect("no panic while it is locked")
    }
}

/// Looks every second and acts on changes.
pub(crate) struct Watch {
    pub(crate) dir: PathBuf,
    pub(crate) limits: SpaceLimits,
    pub(crate) reserve: Reserve,
    pub(crate) state: DiskState,
    pub(crate) service: Arc<moorline_service::Service>,
    /// Cancelled when the node has to stop.
    pub(crate) stop_node: CancellationToken,
}

impl Watch {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.look();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_PAUSE) => {}
            }
        }
    }

    fn look(&mut self) {
        let before = self.state.state();
        let measured = match space::measure(&self.dir) {
            Ok(measured) => measured,
            Err(problem) => {
                error!(%problem, "cannot tell how full the disk is");
                return;
            }
        };
        self.state.inner.free.store(measured.free, Ordering::Relaxed);
        let now = space::decide(before, measured, &self.limits);
        if now == before {
            return;
        }
        *self.state.inner.state.lock().expect("no panic while it is locked") = now;
        match now {
            SpaceState::Ok => {
                info!(free = measured.free, "disk space is back: new messages are taken again");
                self.service.set_accepting(true);
            }
            SpaceState::Low => {
                warn!(free = measured.free, "the disk is nearly full: new messages are refused");
                self.service.set_accepting(false);
            }
            SpaceState::Critical => {
                error!(
                    free = measured.free,
                    "the disk is full: giving up the reserve and stopping"
                );
                self.service.set_accepting(false);
                if let Err(problem) = self.reserve.release() {
                    error!(%problem, "could not give up the reserve");
                }
                self.stop_node.cancel();
            }
        }
    }
}
