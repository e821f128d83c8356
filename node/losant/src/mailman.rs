//! Mail for a device, over the connection that has subscribed to its commands: what [`moorline_service::registry::mailman`] asks of one.
//!
//! # Invariants
//!
//! - **Mail costs no ban and waits for nothing but mail**: it is counted by itself, over all devices of a connection, and comes as fast as
//!   half of the limits, however much of it waits and whatever else is said.
//! - **It comes once the subscription is granted**, and not over one that is refused.
//!
//! Checked by the cluster tests (`losant.rs`, `mail_everywhere.rs`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moorline_core::Message;
use moorline_dialects::losant::{id::Id, mail, topics};
use moorline_machine::mail::Mail;
use moorline_service::registry::mailman::{Fate, Mailman, Says, Unsaid};
use tokio::sync::{Notify, oneshot};

use crate::visit::Visit;

/// Whether a connection hears the commands of a device: once it was granted.
#[derive(Debug, Default)]
pub(crate) struct Hears {
    is: AtomicBool,
    changed: Notify,
}

impl Hears {
    pub(crate) fn is(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    /// From now on, until the mailman ends.
    pub(crate) fn begin(&self) {
        self.is.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

/// How one device is told over a connection.
pub(crate) struct Told {
    visit: Arc<Visit>,
    id: Id,
    hears: Arc<Hears>,
}

/// Who brings a device's mail, which the connection may speak for.
pub(crate) fn mailman(visit: Arc<Visit>, id: Id, hears: Arc<Hears>) -> Mailman<Told> {
    let (registry, by) = (visit.door.registry.clone(), visit.device.by);
    let whose = (visit.device.tenant, id.text().clone());
    Mailman::new(registry, whose, by, Arc::new(Told { visit, id, hears }))
}

impl Says for Told {
    fn listens(&self) -> bool {
        self.hears.is()
    }

    fn pause(&self) -> Option<Duration> {
        self.visit.brought_in(&topics::command(&self.id))
    }

    fn takes_place(&self, message: &Message) -> bool {
        self.visit.brings(&message.topic)
    }

    fn say(&self, mail: &Mail) -> Result<Message, Unsaid> {
        let sent_ms = i64::try_from(mail.created.0).unwrap_or(i64::MAX);
        let payload = mail::said(mail.name.as_str(), &mail.payload, sent_ms);
        let payload = payload.map_err(Unsaid::Never)?.into();
        Ok(Message { topic: topics::command(&self.id), payload, ..Message::empty() })
    }

    fn hand(&self, message: Message) -> Option<oneshot::Receiver<()>> {
        if self.visit.is_over() {
            return None;
        }
        self.visit.handed.over(&*self.visit.inbox, message)
    }

    fn count(&self, fate: Fate) {
        self.visit.door.metrics.mail.with_label_values(&[fate.label()]).inc();
    }

    fn changed(&self) -> &Notify {
        &self.hears.changed
    }
}
