//! Commands to devices: once to the device, and once to each of its gateways, whoever of them listens now; or to its endpoint outside.

use bytes::Bytes;
use moorline_core::{Message, TenantId, Text, port::Refusal};
use moorline_dialects::drogue::{
    command::{Asked, InvalidExternal, Outcome, external},
    inbox,
    registry::device::{GATEWAYS_MAX, is_disabled},
};
use moorline_service::registry::{RegistryError, door::By};

use crate::{door::Door, kept::kept_of, spec::Unknown};

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
        let spec = match self.specs.of(&self.registry, tenant).await {
            Ok(spec) => spec,
            Err(Unknown::Unavailable) => return Outcome::Unavailable,
            Err(Unknown::Unreadable) => return Outcome::Failed,
        };
        let Ok(kept) = kept_of(&record.settings) else { return Outcome::Failed };
        if is_disabled(&kept.spec) || is_disabled(&spec.spec) {
            return Outcome::Nobody;
        }
        match external(&kept.spec) {
            Ok(None) => {}
            Ok(Some(external)) => {
                let Some(application) = self.name(tenant) else { return Outcome::Nobody };
                let asked = Asked {
                    application: application.to_string(),
                    device: device.to_string(),
                    command: name.to_owned(),
                };
                return self.external_command(tenant, &external, &asked, &payload).await;
            }
            // It is meant for somebody else than who listens.
            Err(InvalidExternal) => return Outcome::Failed,
        }
        let own = device.as_str();
        // What was written before that was checked may name more: those hear nothing.
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
