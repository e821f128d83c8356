//! Mail for a device, over the connection that has subscribed to its commands: what [`moorline_service::registry::mailman`] asks of one.
//!
//! # Invariants
//!
//! - **Mail counts as what is sent to a connection, and costs no ban**: it comes as fast as half of the limits, however much of it waits.
//!
//! Checked by the cluster tests (`losant.rs`, `mail_everywhere.rs`).

use std::{sync::Arc, time::Duration};

use moorline_core::Message;
use moorline_dialects::losant::{id::Id, limits::Direction, mail, topics};
use moorline_machine::mail::Mail;
use moorline_service::registry::mailman::{Fate, Mailman, Says, Unsaid};
use tokio::sync::{Notify, oneshot};

use crate::visit::Visit;

/// How one device is told over a connection.
pub(crate) struct Told {
    visit: Arc<Visit>,
    id: Id,
    changed: Notify,
}

/// Who brings a device's mail, which the connection may speak for.
pub(crate) fn mailman(visit: Arc<Visit>, id: Id) -> Mailman<Told> {
    let (registry, by) = (visit.door.registry.clone(), visit.device.by);
    let whose = (visit.device.tenant, id.text().clone());
    Mailman::new(registry, whose, by, Arc::new(Told { visit, id, changed: Notify::new() }))
}

impl Says for Told {
    fn listens(&self) -> bool {
        // That is why it is here.
        true
    }

    fn pause(&self) -> Option<Duration> {
        self.visit.brought_in(&topics::command(&self.id))
    }

    fn say(&self, mail: &Mail) -> Result<Message, Unsaid> {
        let sent_ms = i64::try_from(mail.created.0).unwrap_or(i64::MAX);
        let payload = mail::said(mail.name.as_str(), &mail.payload, sent_ms);
        let payload = payload.map_err(Unsaid::Never)?.into();
        Ok(Message { topic: topics::command(&self.id), payload, ..Message::empty() })
    }

    fn hand(&self, message: Message) -> Option<oneshot::Receiver<()>> {
        if !self.visit.may(Direction::Down, &message.topic) {
            return None;
        }
        self.visit.handed.over(&*self.visit.inbox, message)
    }

    fn count(&self, fate: Fate) {
        self.visit.door.metrics.mail.with_label_values(&[fate.label()]).inc();
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }
}
