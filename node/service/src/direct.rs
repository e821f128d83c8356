//! Messages of a tenant that come by no session: from clients that have no connection of their own for them, as a request over HTTP.
//!
//! # Invariants
//!
//! - **Success means what a PUBACK means**: it is the same publish, to the same targets, by the same rights and quotas.
//! - **A node without its lease publishes nothing**: it waits for it, up to [`PARKED_WAIT`].
//!
//! Checked by the cluster tests (`watson_http.rs`).

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use moorline_core::{
    Message, QoS, TenantId,
    port::{Published, Refusal},
};
use tokio::{sync::oneshot, time::sleep};

use crate::{Service, frames::Publisher, parked::PARKED_WAIT, publish::Waits, service::Inner};

/// How often somebody who waits for the lease looks again.
const LEASE_PAUSE: Duration = Duration::from_millis(20);

/// Who waits for the one answer to a publish.
#[derive(Debug)]
pub(crate) struct Direct(Mutex<Option<oneshot::Sender<Result<Published, Refusal>>>>);

impl Direct {
    fn new() -> (Self, oneshot::Receiver<Result<Published, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// Tells it. One that is gone hears nothing.
    pub(crate) fn tell(&self, outcome: Result<Published, Refusal>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            sender.send(outcome).unwrap_or_default();
        }
    }
}

impl Service {
    /// Publishes a message of a tenant with QoS 1 that comes by no session. It is not retained.
    ///
    /// Whoever drops this does not take the message back.
    ///
    /// # Errors
    ///
    /// Why it was not accepted.
    pub async fn publish(&self, tenant: TenantId, message: Message) -> Result<Published, Refusal> {
        let begun = self.inner.metrics.accounts.direct.begin();
        let outcome = self.publish_when_leased(tenant, message).await;
        begun.end(outcome)
    }

    async fn publish_when_leased(
        &self,
        tenant: TenantId,
        message: Message,
    ) -> Result<Published, Refusal> {
        let deadline = Instant::now() + PARKED_WAIT;
        while !self.inner.has_lease() {
            if Instant::now() >= deadline {
                return Err(Refusal::Unavailable);
            }
            sleep(LEASE_PAUSE).await;
        }
        let (direct, answer) = Direct::new();
        self.inner.publish_direct(tenant, message, direct)?;
        answer.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Hands a message of a tenant to whoever is there now (QoS 0).
    pub fn pass(&self, tenant: TenantId, message: &Message) {
        let inner = &self.inner;
        if !inner.has_lease() {
            inner.metrics.dropped_passing.inc();
            return;
        }
        let targets = inner.targets(tenant, message);
        inner.pass(Publisher { tenant, session: None }, &targets, message);
    }
}

impl Inner {
    fn publish_direct(
        self: &Arc<Self>,
        tenant: TenantId,
        message: Message,
        direct: Direct,
    ) -> Result<(), Refusal> {
        let (rights, _) = self.rights_of(tenant, None);
        if rights.is_some_and(|rights| !rights.may_publish(&message.topic)) {
            self.metrics.rights.publishes.inc();
            return Err(Refusal::NotAuthorised);
        }
        if !self.accepting.load(Ordering::Acquire) {
            return Err(Refusal::DiskFull);
        }
        if !self.may_publish(tenant, &message) {
            return Err(Refusal::Busy);
        }
        let message = Message { qos: QoS::AtLeastOnce, retain: false, ..message };
        self.publish_to_all(Publisher { tenant, session: None }, message, Waits::Direct(direct));
        Ok(())
    }
}
