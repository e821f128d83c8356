//! Asking endpoints: those of publish rules, about an event, and those of devices that want their commands there.
//!
//! # Invariants
//!
//! - **An event waits for its own endpoints only**: who says several in an order has them judged in that order, and nobody else waits
//!   ([`moorline_outward`] bounds what a tenant may have under way).
//! - **Bounded**: [`ENDPOINTS_MAX`] endpoints of one event, [`EVENT_MAX`] for all of them; [`AFTER_MAX`] for all that a connection has said
//!   when it ends.
//! - **What an endpoint should decide and did not, does not get through.**
//!
//! Checked by the cluster tests (`drogue_outward.rs`).

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use moorline_core::TenantId;
use moorline_dialects::drogue::{
    binding::{Outgoing, of_command, of_rule},
    command::{self, Asked, External, is_taken},
    event::CloudEvent,
    outcome::Outcome,
    rules::{Answered, Endpoint, Mode, Next, Place, Rules},
};
use moorline_outward::{Answer, Request, Unanswered};

use crate::door::Door;

/// Endpoints that are asked about one event.
const ENDPOINTS_MAX: usize = 8;
/// How long all of them may take.
const EVENT_MAX: Duration = Duration::from_secs(30);
/// How long what a connection said may wait for endpoints when it is gone, all of it together.
const AFTER_MAX: Duration = Duration::from_secs(30);

/// When a connection ended, if it did, and whether what it has said and is not written counts no more. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gone(Arc<Ending>);

#[derive(Debug, Default)]
struct Ending {
    at: OnceLock<Instant>,
    void: AtomicBool,
}

impl Gone {
    pub(crate) fn say(&self) {
        self.0.at.get_or_init(Instant::now);
    }

    /// It may not be here any more, or another connection is the device.
    pub(crate) fn is_void(&self) -> bool {
        self.0.void.load(Ordering::Acquire)
    }

    /// See [`Self::is_void`].
    pub(crate) fn void(&self) {
        self.0.void.store(true, Ordering::Release);
    }

    /// Until when endpoints may answer that are asked now.
    fn until(&self) -> Instant {
        let until = Instant::now() + EVENT_MAX;
        self.0.at.get().map_or(until, |gone| until.min(*gone + AFTER_MAX))
    }
}

impl Door {
    async fn ask(
        &self,
        tenant: TenantId,
        outgoing: Outgoing,
        most: Duration,
    ) -> Result<Answer, Unanswered> {
        let Outgoing { method, url, headers, body, timeout_ms } = outgoing;
        let within = Duration::from_millis(timeout_ms).min(most);
        let request = Request { method, url, headers, body, within };
        // On the heap: what waits for a moment only should not make all futures large.
        Box::pin(self.outward.ask(tenant, &request)).await
    }

    /// Takes an event through rules, and asks those whom they want to be asked.
    pub(crate) async fn ruled(
        &self,
        tenant: TenantId,
        rules: &Rules,
        channel: &str,
        event: &mut CloudEvent,
        gone: &Gone,
    ) -> Result<Next, Outcome> {
        let mut next = rules.run(Place::default(), channel, event);
        let until = gone.until();
        for _ in 0..ENDPOINTS_MAX {
            let Next::Ask(at, mode, endpoint) = next else { return Ok(next) };
            let answered = self.about(tenant, &endpoint, mode, event, until).await?;
            next = rules.answered(at, &answered, channel, event);
        }
        if matches!(next, Next::Ask(..)) { Ok(Next::Invalid) } else { Ok(next) }
    }

    async fn about(
        &self,
        tenant: TenantId,
        endpoint: &Endpoint,
        mode: Mode,
        event: &CloudEvent,
        until: Instant,
    ) -> Result<Answered, Outcome> {
        let outgoing = of_rule(endpoint, mode, event).map_err(|_| Outcome::Failed)?;
        let left = until.saturating_duration_since(Instant::now());
        match self.ask(tenant, outgoing, left).await {
            Ok(Answer { status, headers, body }) => {
                Ok(Answered { status, headers: headers.into_iter().collect(), body })
            }
            Err(Unanswered::Busy) => Err(Outcome::Full),
            Err(_) => Err(Outcome::Failed),
        }
    }

    /// Has an external endpoint take a command.
    pub(crate) async fn external_command(
        &self,
        tenant: TenantId,
        external: &External,
        asked: &Asked,
        payload: &[u8],
    ) -> command::Outcome {
        let outgoing = of_command(external, asked, payload);
        match self.ask(tenant, outgoing, EVENT_MAX).await {
            Ok(answer) if is_taken(answer.status) => command::Outcome::Sent,
            Err(Unanswered::Busy) => command::Outcome::Unavailable,
            Ok(_) | Err(_) => command::Outcome::Failed,
        }
    }
}
