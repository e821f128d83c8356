//! What the tests share: nodes, agents, SDKs, waiting.

pub(crate) mod agent;
pub(crate) mod bare;
pub(crate) mod cluster;
pub(crate) mod node;
pub(crate) mod sdk;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Everything here takes milliseconds, or what the agent's own deadlines say; a loaded machine takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits for an answer.
pub(crate) async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    timeout(DEADLINE, step).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// Waits until something holds, which then must go on to hold.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(PAUSE).await;
    }
}
