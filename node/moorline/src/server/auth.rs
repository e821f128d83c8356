//! Who may connect over MQTT: devices of the registry, and anybody where the configuration says so.
//!
//! | user name | password | who |
//! |---|---|---|
//! | `DEVICE@TENANT` | one of the device's secrets | the device, in its tenant |
//! | anything else, or none | | refused; with `security.anonymous` a client of the demo tenant |
//!
//! # Invariants
//!
//! - **A device's sessions are its own**: their names begin with the device's, so no other device can take them over,
//!   whatever client id it says.
//! - **Unknown, disabled and wrong look the same from outside.**

use std::{sync::Arc, time::SystemTime};

use moorline_core::{TenantId, Text};
use moorline_edge::{Attempt, Authenticate, Denial, Identity, Verdict};
use moorline_service::registry::{Registry, RegistryError, secrets::Secrets};

/// Between a device's name and its client id; no name has it.
const UNIT: char = '\u{1F}';

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Devices {
    pub(crate) registry: Registry,
    pub(crate) secrets: Option<Secrets>,
    /// Whose client everybody else is.
    pub(crate) anonymous: Option<TenantId>,
}

/// Wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn denial(error: RegistryError) -> Denial {
    match error {
        RegistryError::Busy | RegistryError::Unavailable => Denial::Unavailable,
        RegistryError::Refused(_) | RegistryError::Taken(_) | RegistryError::Mail(_) => {
            Denial::BadCredentials
        }
    }
}

impl Devices {
    async fn judge(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        let named = attempt.username.as_ref().and_then(|name| name.as_str().rsplit_once('@'));
        let (Some((device, tenant)), Some(password)) = (named, &attempt.password) else {
            let tenant = self.anonymous.ok_or(Denial::BadCredentials)?;
            return Ok(Identity { tenant, session: None });
        };
        let secrets = self.secrets.as_ref().ok_or(Denial::NotAuthorised)?;
        let device = Text::from(device);
        let known = self.registry.tenant_by_name(tenant).filter(|(_, record)| record.enabled);
        let (tenant, _) = known.ok_or(Denial::BadCredentials)?;
        let record = self.registry.device(tenant, &device).await.map_err(denial)?;
        let record = record.filter(|record| record.enabled).ok_or(Denial::BadCredentials)?;
        let holds = |record| secrets.holds(tenant, &device, record, password, now_ms()).is_some();
        if device.as_str().starts_with('~') || !holds(&record) {
            return Err(Denial::BadCredentials);
        }
        let session = if attempt.client == device {
            device
        } else {
            Text::from(format!("{device}{UNIT}{}", attempt.client))
        };
        Ok(Identity { tenant, session: Some(session) })
    }
}

/// What an edge is given: a shared [`Devices`].
#[derive(Debug, Clone)]
pub(crate) struct ByRegistry(pub(crate) Arc<Devices>);

impl Authenticate for ByRegistry {
    fn authenticate(&self, attempt: Attempt) -> Verdict {
        Box::pin(Arc::clone(&self.0).judge(attempt))
    }

    fn method(&self) -> &'static str {
        "registry"
    }
}
