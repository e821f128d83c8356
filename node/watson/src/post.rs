//! Mail for a device or gateway that asks for its commands by requests: the front of its mailbox, if that is what it asks for.
//!
//! # Invariants
//!
//! - **A mail is settled when its answer was taken**, and is there again for the next request if it was not.
//! - **While MQTT has the client's session, its mail comes there.**
//!
//! Checked by the cluster tests (`mail_everywhere.rs`).

use std::future::pending;

use moorline_core::{TenantId, Text, topic};
use moorline_dialects::watson::{identity::DeviceName, mail, topics::Message as Said};
use moorline_machine::mail::{Mail, MailOp};
use moorline_service::{
    Service,
    registry::{RECHECK, RegistryError, Watch, door::By, mailman::Fate},
};
use tokio::time::timeout;

use crate::{
    door::{Door, device_name},
    fetch::{Command, Wanted, is_elsewhere},
};

/// Who asks for what.
pub(crate) struct Post {
    door: Door,
    tenant: TenantId,
    device: DeviceName,
    filter: Text,
    watch: Watch,
}

impl Post {
    /// [`None`]: its mail comes by MQTT, or nobody can say.
    pub(crate) async fn new(
        door: &Door,
        service: &Service,
        device: &DeviceName,
        wanted: &Wanted,
    ) -> Option<Self> {
        let (tenant, watch) =
            (wanted.tenant, door.registry.watch(wanted.tenant, &device_name(device)));
        let standing = service.registry().session(tenant, &wanted.session).await.ok()?;
        if standing.is_some_and(|standing| is_elsewhere(&standing, &wanted.requested)) {
            return None;
        }
        let (door, device, filter) = (door.clone(), device.clone(), wanted.filter.clone());
        Some(Self { door, tenant, device, filter, watch })
    }

    fn whose(&self) -> (TenantId, Text) {
        (self.tenant, device_name(&self.device))
    }

    /// What is at the front and asked for, with the id of its mail.
    pub(crate) async fn look(&self) -> Result<Option<(Command, u128)>, RegistryError> {
        let (tenant, name) = self.whose();
        loop {
            let (front, _) = self.door.registry.next_mail(tenant, &name, None).await?;
            let Some(Mail { id, name: called, payload, .. }) = front else { return Ok(None) };
            match mail::said(&self.device, &called, &payload) {
                Ok((said, payload)) => {
                    let is_it = topic::matches(self.filter.as_bytes(), said.topic().as_bytes());
                    let Said::Command { device, command: name, format } = said else {
                        return Ok(None);
                    };
                    let command = Command { device, name, format, payload };
                    return Ok(is_it.then_some((command, id)));
                }
                Err(why) => {
                    settle(&self.door, self.whose(), id, MailOp::Reject, why).await?;
                    self.count(Fate::Rejected);
                }
            }
        }
    }

    /// Waits for it.
    pub(crate) async fn comes(&self) -> (Command, u128) {
        loop {
            let mail = async { while !self.watch.heard().await.mail {} };
            timeout(RECHECK, mail).await.unwrap_or_default();
            if let Ok(Some(found)) = self.look().await {
                return found;
            }
        }
    }

    /// The client has it. In a task, since whoever is told this waits for nothing.
    pub(crate) fn taken(self, id: u128) {
        self.count(Fate::Taken);
        let tasks = self.door.tasks.clone();
        tasks.spawn(async move {
            // What could not be settled comes again.
            drop(settle(&self.door, self.whose(), id, MailOp::Ack, "").await);
        });
    }

    fn count(&self, fate: Fate) {
        self.door.metrics.mail.with_label_values(&[fate.label()]).inc();
    }
}

/// The same of who may have no mail: never.
pub(crate) async fn comes(post: Option<&Post>) -> (Command, u128) {
    match post {
        Some(post) => post.comes().await,
        None => pending().await,
    }
}

async fn settle(
    door: &Door,
    whose: (TenantId, Text),
    id: u128,
    op: MailOp,
    why: &'static str,
) -> Result<(), RegistryError> {
    match door.registry.settle_said(whose, id, op, By::Http, why).await {
        // Somebody else has settled it, or it is over.
        Ok(()) | Err(RegistryError::Mail(_) | RegistryError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
