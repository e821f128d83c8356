//! Work that waits for a disk, beside the runtime's threads.
//!
//! A simulation has one thread and its own time, and its disks answer at once: with the feature `simulated` the work runs in
//! place, so that the same seed gives the same order, and takes some of that time, so that a crash may come before or after.

#[cfg(not(feature = "simulated"))]
pub(crate) use tokio::task::spawn_blocking;

/// How long it takes to get to the disk, and back from it.
#[cfg(feature = "simulated")]
const WAY: std::time::Duration = std::time::Duration::from_millis(1);

/// The same, in place.
#[cfg(feature = "simulated")]
pub(crate) async fn spawn_blocking<T>(
    work: impl FnOnce() -> T,
) -> Result<T, tokio::task::JoinError> {
    tokio::time::sleep(WAY).await;
    let done = work();
    tokio::time::sleep(WAY).await;
    Ok(done)
}
