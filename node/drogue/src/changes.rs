//! What was changed in the registry is an event of the device, when the change is made.
//!
//! # Invariants
//!
//! - **What is said is so**: a change is synced on a majority before its event is written. A node that dies between the two says nothing
//!   of it, and neither does one that finds no room for the event: that is counted.
//!
//! Checked by the cluster tests (`drogue_applications.rs`).

use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::event::{Change, CloudEvent, DEVICES, Names};
use moorline_machine::events::EventKind;
use moorline_service::registry::{
    NewEvent,
    door::{By, JSON},
};
use tracing::debug;
use uuid::Uuid;

use crate::door::Door;

/// A device that was changed.
pub(crate) struct Changed<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) application: &'a Text,
    pub(crate) device: &'a Text,
    /// The version it was made with.
    pub(crate) born: u64,
}

impl Door {
    /// Says what became of a device.
    pub(crate) async fn tell(&self, of: Changed<'_>, change: Change) {
        let Changed { tenant, application, device, born } = of;
        let (uid, device_uid) = (tenant.0.to_string(), format!("{}-{born}", tenant.0));
        let named = (device.as_str(), device_uid.as_str());
        let names =
            Names { application: (application.as_str(), &uid), device: named, sender: named };
        let id = Uuid::from_u128(rand::random()).to_string();
        let said = CloudEvent::registry(&id, self.clock.wall(), &names, change);
        let event = NewEvent {
            // One that is gone has this event all the same.
            born: (change != Change::Deleted).then_some(born),
            kind: EventKind::Message,
            channel: Text::from(DEVICES),
            content_type: JSON,
            body: said.structured(),
            by: By::Http as u8,
        };
        let appended = self.registry.append_event(tenant, device, event).await;
        if let Err(error) = &appended {
            debug!(%error, "what was changed in the registry was not said");
        }
        let result = if appended.is_ok() { "accepted" } else { "failed" };
        self.metrics.changes.with_label_values(&[result]).inc();
    }
}
