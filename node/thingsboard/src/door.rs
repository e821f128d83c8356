//! Which devices are ThingsBoard's, and what all their connections share.

use std::{net::IpAddr, sync::Arc};

use moorline_core::TenantId;
use moorline_dialects::thingsboard::mqtt::PACKET_BYTES_MAX;
use moorline_edge::{Clock, EdgeConfig, Made, Settings};
use moorline_machine::registry::TenantRecord;
use moorline_mqtt::{Reason, server};
use moorline_service::registry::{Registry, secrets::Secrets};
use tokio_util::task::TaskTracker;

use crate::{limits::Limiter, metrics::ThingsboardMetrics, places::Places, profiles::Cache};

/// What tenants of ThingsBoard are called, before a name.
const ALIAS: &str = "thingsboard:";

/// Connections at once of those who ask for credentials: nobody knows them, and each may stay for a minute.
const PROVISIONING_MAX: usize = 1_000;
/// Those of one address: many devices may stand behind it, and it is not to hold all.
const PROVISIONING_PER_ADDRESS_MAX: usize = 100;

/// Where devices are let in. Clones are the same.
#[derive(Debug, Clone)]
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Clock,
    pub(crate) rules: Made<server::Config>,
    pub(crate) metrics: ThingsboardMetrics,
    /// Tasks of connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
    /// Profiles that were read a moment ago.
    pub(crate) profiles: Arc<Cache>,
    /// How much of their limits devices have left.
    pub(crate) limiter: Arc<Limiter>,
    /// Who may be here at once to ask for credentials.
    pub(crate) provisioning: Places<IpAddr>,
}

impl Door {
    /// A door to a registry.
    #[must_use]
    pub fn new(
        registry: Registry,
        secrets: Secrets,
        clock: Clock,
        settings: Settings,
        metrics: ThingsboardMetrics,
    ) -> Self {
        Self {
            registry,
            secrets,
            clock,
            rules: Made::of(settings, rules),
            metrics,
            tasks: TaskTracker::new(),
            profiles: Arc::default(),
            limiter: Arc::default(),
            provisioning: Places::new(PROVISIONING_PER_ADDRESS_MAX, PROVISIONING_MAX),
        }
    }

    /// Whether there is any tenant of ThingsBoard's.
    pub(crate) fn has_tenants(&self) -> bool {
        let is = |of: &TenantRecord| {
            of.enabled && of.aliases.iter().any(|alias| alias.as_str().starts_with(ALIAS))
        };
        self.registry.any_tenant(is)
    }

    /// Whether a tenant's devices are ThingsBoard's, by all that is known here.
    #[must_use]
    pub fn takes(&self, tenant: TenantId) -> bool {
        let of = self.registry.tenant(tenant);
        of.is_some_and(|of| of.aliases.iter().any(|alias| alias.as_str().starts_with(ALIAS)))
    }
}

/// MQTT as it is there: packets of 64 KiB, no session that lasts, and who is deleted hears that somebody did that.
fn rules(edge: &EdgeConfig) -> server::Config {
    let config = edge.protocol();
    let packet = usize::try_from(PACKET_BYTES_MAX).expect("it fits any machine");
    server::Config {
        packet_bytes_max: config.packet_bytes_max.min(packet),
        session_expiry_max_s: 0,
        revoked: Reason::AdministrativeAction,
        ..config
    }
}
