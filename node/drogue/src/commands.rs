//! Commands to devices: once to the device, and once to each of its gateways, whoever of them listens now.

use bytes::Bytes;
use moorline_core::{Message, TenantId, Text, port::Refusal};
use moorline_dialects::drogue::{
    command::{Outcome, external},
    inbox,
    registry::device::{Kept, is_disabled},
};
use moorline_service::registry::{
    RegistryError,
    door::By,
    settings::{self, DeviceSettings},
};

use crate::door::Door;

/// Gateways of one device that hear its commands.
const GATEWAYS_MAX: usize = 64;

impl Door {
    /// Sends a command, and counts it.
    pub(crate) async fn command(
        &self,
        tenant: TenantId,
        device: &Text,
        name: &str,
        payload: Bytes,
        by: By,
    ) -> Outcome {
        let outcome = self.send(tenant, device, name, payload).await;
        let result = match outcome {
            Outcome::Sent => "sent",
            Outcome::Nobody => "nobody",
            Outcome::Unavailable => "unavailable",
            Outcome::Failed => "failed",
        };
        self.metrics.commands.with_label_values(&[By::name(by as u8), result]).inc();
        outcome
    }

    async fn send(&self, tenant: TenantId, device: &Text, name: &str, payload: Bytes) -> Outcome {
        let record = match self.registry.device(tenant, device).await {
            Ok(record) => record.filter(|record| record.enabled),
            Err(RegistryError::Refused(_)) => None,
            Err(_) => return Outcome::Unavailable,
        };
        let Some(record) = record.filter(|_| inbox::is_command(name)) else {
            return Outcome::Nobody;
        };
        let kept = Kept::of(&settings::read::<DeviceSettings>(&record.settings).metadata);
        if is_disabled(&kept.spec) {
            return Outcome::Nobody;
        }
        if external(&kept.spec).is_some() {
            // No endpoint is asked by this node: it would not be the device that hears it.
            return Outcome::Failed;
        }
        let own = device.as_str();
        let gateways = kept.gateways().filter(|gateway| *gateway != own).take(GATEWAYS_MAX);
        for recipient in std::iter::once(own).chain(gateways) {
            let topic = inbox::canonical(recipient, own, name);
            let message = Message { topic, payload: payload.clone(), ..Message::empty() };
            match self.service.publish(tenant, message).await {
                Ok(_) => {}
                Err(Refusal::Quota | Refusal::NotAuthorised) => return Outcome::Failed,
                Err(_) => return Outcome::Unavailable,
            }
        }
        Outcome::Sent
    }
}
