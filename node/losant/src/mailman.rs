//! Commands that wait in a device's mailbox, brought over the connection that has subscribed to them.
//!
//! # Invariants
//!
//! - **One after the other, in the order in which they were given.**
//! - **A command leaves the mailbox when it was handed to the network**, not before: what a connection had no time for, the next has.
//!
//! Checked by the cluster tests (`losant.rs`).

use std::sync::Arc;

use moorline_core::{Message, QoS, port::Notice};
use moorline_dialects::losant::{id::Id, limits::Direction, topics};
use moorline_edge::asks;
use moorline_machine::{MailRefused, mail::Mail, mail::MailOp};
use moorline_service::registry::{ASK_AGAIN, RECHECK, RegistryError, Watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::visit::Visit;

/// See the module.
pub(crate) struct Mailman {
    visit: Arc<Visit>,
    id: Id,
    watch: Watch,
}

impl Mailman {
    /// For a device that the connection may speak for. News of it are heard from now on.
    pub(crate) fn new(visit: Arc<Visit>, id: Id) -> Self {
        let watch = visit.door.registry.watch(visit.device.tenant, id.text());
        Self { visit, id, watch }
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.bring() => {}
        }
    }

    async fn bring(&self) {
        let (registry, tenant) = (&self.visit.door.registry, self.visit.device.tenant);
        loop {
            match registry.next_mail(tenant, self.id.text(), None).await {
                Ok((Some(mail), _)) => {
                    if !self.deliver(mail).await {
                        return;
                    }
                }
                Ok((None, _)) => self.wait().await,
                Err(RegistryError::Mail(MailRefused::DeviceGone)) => return,
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Until there may be mail.
    async fn wait(&self) {
        let mail = async { while !self.watch.heard().await.mail {} };
        // Also without news: they may be lost with a connection between nodes.
        timeout(RECHECK, mail).await.unwrap_or_default();
    }

    /// Hands a command to the connection, and settles it when the network has it; false if the connection is over.
    async fn deliver(&self, mail: Mail) -> bool {
        let topic = topics::command(&self.id);
        if !self.visit.may(Direction::Down, &topic) {
            return false;
        }
        let (number, taken) = self.visit.numbered();
        let message = Message { topic, payload: mail.payload, ..Message::empty() };
        let delivery = asks::numbered(number, QoS::AtMostOnce, message);
        self.visit.tell(Notice::Deliver(vec![delivery]));
        if taken.await.is_err() {
            return false;
        }
        let (registry, device) = (&self.visit.door.registry, &self.visit.device);
        loop {
            let by = device.by as u8;
            let settled =
                registry.settle_mail(device.tenant, self.id.text(), mail.id, MailOp::Ack, by).await;
            match settled {
                // Somebody else has settled it, or it is over.
                Ok(_) | Err(RegistryError::Mail(_) | RegistryError::Refused(_)) => return true,
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }
}
