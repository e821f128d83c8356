//! Work that waits for a disk, beside the runtime's threads.
//!
//! A simulation has one thread and its own time, and its disks answer at once: with the feature `simulated` the work runs as
//! a task of the runtime, so that the same seed gives the same order.

#[cfg(not(feature = "simulated"))]
pub(crate) use tokio::task::spawn_blocking;

/// The same, on the runtime's own thread.
#[cfg(feature = "simulated")]
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(async move { work() })
}
