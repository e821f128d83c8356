//! Who looks at a device's values is told that there is something else than it knows: a question waits at the leader of the device's
//! shard, which is woken by what is written there. Nothing is sent of devices that nobody looks at, and nothing is kept of who looks.
//!
//! ```text
//!   marks ─► read ─► marks, unless they are these, or for so long ─► read again ─► …
//! ```

use std::time::{Duration, Instant};

use moorline_core::{TenantId, Text};
use moorline_machine::{
    query::{Found, Query},
    values::Marks,
};
use tokio::time::sleep;

use super::{Registry, RegistryError};

/// The pause before a leader that did not let a question wait is asked again.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(500);

impl Registry {
    /// What a device's values are by now: at once, or when they are something else than `known`, or when `wait` is over. [`None`]:
    /// there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn marks(
        &self,
        tenant: TenantId,
        device: &Text,
        known: Option<Marks>,
        wait: Duration,
    ) -> Result<Option<Marks>, RegistryError> {
        let (began, shard) = (Instant::now(), self.shard_of(tenant, device));
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let query = Query::Marks { tenant, device: device.clone(), known, wait_ms };
        let found = self.question_waiting(shard, &query, wait).await?;
        let Found::Marks(marks) = found else { return Err(RegistryError::Unavailable) };
        if marks == known && began.elapsed() < wait / 2 {
            // Too many wait there: not at once again.
            sleep(TURNED_AWAY_PAUSE.min(wait)).await;
        }
        Ok(marks)
    }
}
