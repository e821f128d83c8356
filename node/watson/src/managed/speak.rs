//! What managed devices hear: answers, which are said once, and what is owed to them, which is said until it was.
//!
//! Invariant: nothing is said that is not in a document which a majority has. Checked by the cluster tests (`watson_managed.rs`).

use std::time::Duration;

use bytes::Bytes;
use moorline_core::{Message, QoS, TenantId, Text, port};
use moorline_dialects::watson::{
    identity::DeviceName,
    management::{
        address::{Channel, Downward},
        kept::{Kept, Owed, Owing},
    },
};
use moorline_machine::documents::Expect;
use moorline_service::registry::RegistryError;
use tokio::time::sleep;
use tracing::debug;

use super::{Came, Failed, Manager, STATE, TRIES_MAX};

/// How often what is owed is tried before it is left to whoever comes later.
const CARRY_TRIES_MAX: usize = 5;
/// How often an answer is tried before it is lost: longer than an election takes.
const ANSWER_TRIES_MAX: usize = 50;
/// The pause before.
pub(super) const CARRY_PAUSE: Duration = Duration::from_millis(200);

impl Manager {
    /// Says what is said once. What it answers is saved, and would count twice if it were heard again: so an answer is tried for itself,
    /// and lost in the end. Its device asks again then.
    pub(super) async fn answer(
        &self,
        tenant: TenantId,
        channel: &Channel,
        answers: &[(Downward, Bytes)],
    ) {
        for (address, payload) in answers {
            let mut tries = 0;
            while let Err(why) = self.publish(tenant, channel.topic(address), payload.clone()).await
            {
                tries += 1;
                if tries >= ANSWER_TRIES_MAX {
                    debug!(%why, "a managed device did not get its answer");
                    self.door.metrics.dropped.with_label_values(&["unheard"]).inc();
                    return;
                }
                sleep(CARRY_PAUSE).await;
            }
        }
    }

    async fn publish(&self, tenant: TenantId, topic: Text, payload: Bytes) -> Result<(), Failed> {
        let message = Message { topic, qos: QoS::AtLeastOnce, payload, ..Message::empty() };
        match self.service.publish(tenant, message).await {
            Ok(_) => Ok(()),
            Err(port::Refusal::Busy) => Err(RegistryError::Busy.into()),
            Err(port::Refusal::DiskFull) => Err(RegistryError::DiskFull.into()),
            // Its session has as much as it may, or its operator allows no such topic: it was published, and does not arrive.
            Err(
                port::Refusal::Quota
                | port::Refusal::NotAuthorised
                | port::Refusal::TooLarge
                | port::Refusal::Topic
                | port::Refusal::Payload
                | port::Refusal::Platform(_),
            ) => {
                self.door.metrics.dropped.with_label_values(&["unheard"]).inc();
                Ok(())
            }
            Err(port::Refusal::Unavailable) => Err(RegistryError::Unavailable.into()),
        }
    }

    /// Does what is owed, and says in the document that it was done. What can't be done is left to whoever comes later.
    pub(super) async fn carry(&self, tenant: TenantId, device: &DeviceName, came: &mut Came) {
        let now = self.door.clock.wall();
        let due: Vec<Owed> = came.kept.due(came.fresh, now).cloned().collect();
        if due.is_empty() {
            return;
        }
        let (mut done, mut is_stuck) = (Vec::with_capacity(due.len()), false);
        for owed in due {
            let is_said = matches!(owed.what, Owing::Send { .. });
            // What a device hears keeps its order. A note has none, and holds nobody up.
            if is_stuck && is_said {
                continue;
            }
            match self.pay(tenant, (device, &came.channel), &owed).await {
                Ok(()) => done.push(owed.number),
                Err(why) => {
                    debug!(%device, %why, "what a managed device is to hear waits");
                    is_stuck |= is_said;
                }
            }
        }
        if let Err(why) = self.paid(came, &done).await {
            debug!(%device, %why, "what a managed device has heard may come again");
        }
    }

    async fn pay(
        &self,
        tenant: TenantId,
        (device, channel): (&DeviceName, &Channel),
        owed: &Owed,
    ) -> Result<(), Failed> {
        let mut tries = 0;
        loop {
            let paid = match &owed.what {
                Owing::Send { to, payload, .. } => {
                    self.publish(tenant, channel.topic(to), Bytes::from(payload.clone())).await
                }
                Owing::Note { id, progress } => {
                    self.note(tenant, *id, device, progress, owed.since).await
                }
            };
            tries += 1;
            match paid {
                Err(Failed::Registry(_)) if tries < CARRY_TRIES_MAX => sleep(CARRY_PAUSE).await,
                paid => return paid,
            }
        }
    }

    /// These were done: the document owes them no more.
    async fn paid(&self, came: &mut Came, done: &[u64]) -> Result<(), Failed> {
        if done.is_empty() {
            return Ok(());
        }
        let (registry, id) = (&self.door.registry, Text::from(STATE));
        let (mut kept, mut version) = (came.kept.clone(), came.version);
        for _ in 0..TRIES_MAX {
            let before = kept.owed.len();
            kept.paid(done);
            if kept.owed.len() < before {
                let put = registry.put_document(
                    &came.space,
                    &id,
                    kept.written(),
                    Expect::Version(version),
                );
                match put.await.map_err(Failed::from) {
                    Err(Failed::Conflict) => {}
                    put => {
                        came.version = put?;
                        came.kept.paid(done);
                        return Ok(());
                    }
                }
            } else {
                came.kept.paid(done);
                return Ok(());
            }
            let found = registry.document(&came.space, &id).await?.ok_or(Failed::Gone)?;
            (kept, version) = (Kept::read(&found.body)?, found.version);
        }
        Err(Failed::Conflict)
    }
}
