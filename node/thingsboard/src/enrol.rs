//! Devices that show a certificate nobody knows, whose authority is a profile's: they are those that the certificate names.
//!
//! ```text
//!   an authority of the chain ─► lookup ─► a row of a profile, as of keys ─► its document: is that its authority?
//!       ─► does the chain lead there now? ─► common name ─► the profile's pattern ─► the device has this certificate
//! ```
//!
//! From then on the certificate is one of the device's credentials, and lets it in as any other: what is done here is done once for each.
//!
//! # Invariants
//!
//! - **A copied name is not enough**: the chain has to lead to the profile's authority, by signatures, now.
//! - **An authority speaks for its profile's devices only.** Checked by `tests/it/thingsboard/provision.rs` of the dialects.
//! - **The certificate is the device's before it is let in.**
//!
//! Checked by the cluster tests (`thingsboard_chain.rs`).

use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    credentials::{certificate_der, certificate_id_of_der, certificate_pem},
    provision::{Enrolment, Strategy, enrolment},
};
use moorline_edge::{Attempt, Proof};
use moorline_machine::{
    answer::Refused,
    registry::{Credential, DEVICE_NAME_BYTES_MAX, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    audit::{Actor, as_actor, identified},
    credential::{
        kind::{CERTIFICATE, Pin, Pinned},
        make::Wanted,
        prove::Chain,
        trust::{CHAIN_MAX, TrustSettings},
    },
    principal::is_principal,
    settings::{self, DeviceSettings},
};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::{door::Door, marks, mqtt::Mqtt, profiles::Known, provision::Asker};

/// A profile's authority, as webpki takes it; why it is none.
pub(crate) fn authority(pem: &str) -> Result<TrustSettings, String> {
    let der = certificate_der(pem).ok_or("the certificate of the authority is needed, as PEM")?;
    let mut trust = TrustSettings::default();
    trust.certificates = certificate_pem(&der);
    trust.check()?;
    Ok(trust)
}

impl Mqtt {
    /// Somebody has shown a certificate that is nobody's: whether it is a device's now, so that it is judged again.
    pub async fn enrol(&self, attempt: &Attempt) -> bool {
        let Some(Proof::Certificates(chain)) = &attempt.channel.proof else { return false };
        if chain.len() < 2 || !self.0.has_tenants() {
            return false;
        }
        let asker = Asker { from: attempt.peer.ip(), tls: attempt.channel.tls };
        match self.0.enrol(asker, chain).await {
            Ok(done) => done,
            Err(error) => {
                let from = asker.from;
                info!(%from, %error, "a certificate of a profile's authority was shown, and could not be taken");
                false
            }
        }
    }
}

impl Door {
    async fn enrol(&self, asker: Asker, chain: &Chain) -> Result<bool, RegistryError> {
        let Some((own, authorities)) = chain.split_first() else { return Ok(false) };
        for shown in authorities.iter().take(CHAIN_MAX) {
            let key = certificate_id_of_der(shown);
            let Some((tenant, known)) = self.led_to(asker, &key).await? else { continue };
            let is_its = known.keys.as_ref().is_some_and(|keys| keys.key == key);
            if !is_its || known.strategy() != Strategy::CertificateChain {
                continue;
            }
            let Some(device) = self.named_by(&known, chain) else { continue };
            let address = asker.from.to_canonical().to_string();
            let actor = Actor::of("provisioning", rand::random(), &address);
            let done = as_actor(Some(actor), async {
                identified(&format!("profile {}", known.profile.name));
                self.enrol_as(tenant, &known, &device, own).await
            });
            let done = done.await?;
            let result = if done { "success" } else { "failure" };
            self.metrics.provisions.with_label_values(&[result]).inc();
            return Ok(done);
        }
        Ok(false)
    }

    /// The device that a chain names, if it leads to the profile's authority.
    fn named_by(&self, known: &Known, chain: &Chain) -> Option<Text> {
        let trust = authority(&known.keys.as_ref()?.secret).ok()?;
        let common = trust.device_of(chain, self.clock.wall().0)?;
        let name = match known.profile.name_pattern().ok()? {
            Some(pattern) => Text::from(pattern.device_name(common.as_str())?),
            None => common,
        };
        let wrong = name.as_str().chars().any(char::is_control) || is_principal(&name);
        let fits = !name.is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX;
        (fits && !wrong).then_some(name)
    }

    async fn enrol_as(
        &self,
        tenant: TenantId,
        known: &Known,
        device: &Text,
        certificate: &[u8],
    ) -> Result<bool, RegistryError> {
        let record = self.registry.device(tenant, device).await?;
        let before: DeviceSettings =
            record.as_ref().map(|record| settings::read(&record.settings)).unwrap_or_default();
        let existing = record.as_ref().map(|_| marks::kind(&before));
        let config = &known.profile.profile_data.provision_configuration;
        let may_create = config.allow_create_new_devices_by_x509_certificate;
        let step = enrolment(&known.profile.name, existing, may_create);
        let is_disabled = record.as_ref().is_some_and(|record| !record.enabled);
        if step == Enrolment::Refuse || is_disabled {
            return Ok(false);
        }
        let sha256 = Sha256::digest(certificate).into();
        let wanted = Wanted::Certificate(Pin { what: Pinned::Certificate, sha256 });
        let Ok(made) = self.make(tenant, device, wanted).await else { return Ok(false) };
        let held = record.iter().flat_map(|record| record.credentials.iter());
        // The one before goes, as it does when a device chooses another.
        let others = held.filter(|held: &&Credential| held.kind != CERTIFICATE).cloned();
        let settings = match &record {
            Some(record) => record.settings.clone(),
            None => settings::written(&DeviceSettings {
                kind: Some(known.profile.name.clone()),
                ..DeviceSettings::default()
            }),
        };
        let put = PutDevice {
            tenant,
            device: device.clone(),
            enabled: true,
            credentials: std::iter::once(made.credential).chain(others).collect(),
            settings,
            if_version: Some(record.as_ref().map_or(0, |record| record.version)),
            devices_max: self.registry.settings(tenant).devices_per_shard_max,
        };
        match self.registry.put_device(put).await {
            Ok(_) => Ok(true),
            // Somebody was faster, perhaps itself: it is judged again, and comes again if that was not it.
            Err(RegistryError::Refused(Refused::VersionMismatch { .. } | Refused::Exists)) => {
                Ok(true)
            }
            Err(RegistryError::Refused(_) | RegistryError::Taken(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
