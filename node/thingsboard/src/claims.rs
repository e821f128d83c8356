//! Claims: a device says that it may be claimed, with which secret, and for how long.
//!
//! ```text
//!   space "thingsboard/claim" of the device    "claim" ─► until when, and a keyed hash of the secret
//! ```
//!
//! Invariant: no secret of a claim is kept as it is. Checked by reading.

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::claim::{Claim, DURATION_MS_DEFAULT, Standing};
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::RegistryError;
use serde::{Deserialize, Serialize};

use crate::{device::Device, door::Door};

/// Where a device's claim is.
const SPACE: &str = "thingsboard/claim";
/// What it is called there.
const CLAIM: &str = "claim";
/// In the place of a credential's number, for the hash of the secret: no credential has it.
const NUMBER: u64 = 0;

/// The bytes of a document.
#[derive(Serialize, Deserialize)]
struct Kept {
    ends_ms: i64,
    /// Of the secret, in hexadecimal digits.
    verifier: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Device {
    /// It may be claimed from now on.
    pub(crate) fn claim(
        &self,
        claim: &Claim,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
        let now_ms = i64::try_from(self.door.clock.wall().0).unwrap_or(i64::MAX);
        let (tenant, device) = (self.guest.tenant, self.guest.device.clone());
        let secret = claim.secret_key.as_bytes();
        let kept = Kept {
            ends_ms: claim.ends_ms(now_ms, DURATION_MS_DEFAULT),
            verifier: hex(&self.door.secrets.verifier(tenant, &device, NUMBER, secret)),
        };
        let body = Bytes::from(serde_json::to_vec(&kept).expect("text for keys"));
        let space = Space::of_device(tenant, &device, self.guest.born, SPACE);
        let registry = self.door.registry.clone();
        async move {
            registry.put_document(&space, &Text::from(CLAIM), body, Expect::Any).await.map(drop)
        }
    }
}

impl Door {
    /// How a device's claim stands for somebody who says this secret.
    pub(crate) async fn claim_of(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
        secret: &str,
    ) -> Result<Option<Standing>, RegistryError> {
        let space = Space::of_device(tenant, device, born, SPACE);
        let found = self.registry.document(&space, &Text::from(CLAIM)).await?;
        let kept = found.and_then(|found| serde_json::from_slice::<Kept>(&found.body).ok());
        Ok(kept.map(|Kept { ends_ms, verifier }| {
            let kept: Option<Vec<u8>> = (0..verifier.len() / 2)
                .map(|at| u8::from_str_radix(verifier.get(2 * at..2 * at + 2)?, 16).ok())
                .collect();
            let kept = kept.unwrap_or_default();
            let secret = secret.as_bytes();
            let secret_is_known = self.secrets.verify(tenant, device, NUMBER, secret, &kept);
            Standing { ends_ms, secret_is_known }
        }))
    }

    /// A device's claim has had its way.
    pub(crate) async fn forget_claim(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
    ) -> Result<(), RegistryError> {
        let space = Space::of_device(tenant, device, born, SPACE);
        self.registry.delete_document(&space, &Text::from(CLAIM), Expect::Any).await.map(drop)
    }
}
