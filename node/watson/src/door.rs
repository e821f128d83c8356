//! Who a client is: from what its CONNECT says and proves to a device or API token of its organisation.

use std::sync::Arc;

use bytes::Bytes;
use moorline_core::{TenantId, Text, op::Denial};
use moorline_dialects::watson::{
    close::Close,
    connect::{Opening, Refused},
    identity::{Class, ClientId, DeviceName, Proof, Who},
    topics::Permissions,
};
use moorline_edge::{Begin, Clock, EdgeConfig, watch_over};
use moorline_service::registry::{
    Registry, Watch,
    door::{Admitted, By, Guest, Shown},
    principal::{self, is_principal, kept_as},
    secrets::Secrets,
    settings::{self, Class as Kind, DeviceSettings, Role},
};
use tokio_util::task::TaskTracker;

use crate::{
    last_events::LastEvents,
    metrics::{WatsonMetrics, label},
    quickstart::{self, Quickstart, Seat},
    rules::Rules,
};

/// What an organisation's tenant is called, before its id.
const ALIAS: &str = "watson:";

/// Where clients are let in. Clones are the same.
#[derive(Debug, Clone)]
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Clock,
    pub(crate) rules: Arc<Rules>,
    pub(crate) metrics: WatsonMetrics,
    pub(crate) last_events: LastEvents,
    quickstart: Quickstart,
    /// Those that watch over connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
}

/// Who was let in.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) tenant: TenantId,
    /// What an application's key is for; nothing of a device or gateway.
    pub(crate) role: Option<Role>,
    /// What an application's key may; a device or gateway may what its class may.
    pub(crate) may: Permissions,
    /// Turns it out when it may not stay.
    pub(crate) stay: Stay,
    /// The place of a client of quickstart.
    pub(crate) seat: Option<Seat>,
}

/// What it depends on that a client may stay.
#[derive(Debug)]
pub(crate) struct Stay {
    by: Standing,
    until_ms: Option<u64>,
    watch: Watch,
}

/// By what a client is in.
#[derive(Debug)]
enum Standing {
    /// It has proved who it is.
    Proven(Guest),
    /// Nobody knows it, and quickstart is on in this tenant.
    Stranger(TenantId),
}

impl Stay {
    /// The device or gateway it is, whose presence counts.
    pub(crate) fn device(&self) -> Option<&Guest> {
        match &self.by {
            Standing::Proven(guest) => Some(guest).filter(|guest| !is_principal(&guest.device)),
            Standing::Stranger(_) => None,
        }
    }
}

/// The name of a device in its organisation's tenant.
pub(crate) fn device_name(device: &DeviceName) -> Text {
    Text::from(format!("{}:{}", device.kind, device.id))
}

/// Whose name that is; [`None`] if it is no device of an organisation.
pub(crate) fn name_of(device: &Text) -> Option<DeviceName> {
    let (kind, id) = device.as_str().split_once(':')?;
    DeviceName::new(kind.as_bytes(), id.as_bytes())
}

impl Door {
    /// A door to a registry.
    #[must_use]
    pub fn new(
        registry: Registry,
        secrets: Secrets,
        clock: Clock,
        edge: &EdgeConfig,
        metrics: WatsonMetrics,
    ) -> Self {
        let (rules, tasks) = (Arc::new(Rules::new(edge)), TaskTracker::new());
        let last_events = LastEvents::default();
        let quickstart = Quickstart::new(metrics.quickstart.clone());
        Self { registry, secrets, clock, rules, metrics, last_events, quickstart, tasks }
    }

    /// Whether there is such an organisation, by all that is known here.
    pub(crate) fn knows(&self, client: &ClientId) -> bool {
        self.registry.tenant_by_alias(&alias_of(client)).is_some()
    }

    /// Lets a client in that stays.
    pub(crate) async fn admit(&self, opening: &Opening, tls: bool) -> Result<Entered, Refused> {
        let client = &opening.client;
        let entered = if client.is_quickstart() {
            self.judge_stranger(client)
        } else {
            self.judge(client, &opening.proof, (By::Mqtt, tls)).await.map_err(Refused::Denied)
        };
        self.count(client.class(), entered.as_ref().err().copied());
        entered
    }

    /// Lets one in that makes a request: the one of these that there is and that has shown its secret.
    pub(crate) async fn admit_one_of(
        &self,
        clients: &[ClientId],
        proof: &Proof,
        tls: bool,
    ) -> Result<(ClientId, Entered), Denial> {
        let mut denied = Denial::UnknownDevice;
        for client in clients {
            match self.judge(client, proof, (By::Http, tls)).await {
                Ok(entered) => {
                    self.count(client.class(), None);
                    return Ok((client.clone(), entered));
                }
                // Another reading of its name may be somebody.
                Err(denial @ (Denial::UnknownDevice | Denial::WrongSecret)) => denied = denial,
                Err(denial) => {
                    denied = denial;
                    break;
                }
            }
        }
        if let Some(client) = clients.first() {
            self.count(client.class(), Some(Refused::Denied(denied)));
        }
        Err(denied)
    }

    fn count(&self, class: Class, refused: Option<Refused>) {
        let result = match refused {
            None => "accepted",
            Some(Refused::Denied(denied)) => match denied {
                Denial::UnknownTenant => "unknown_tenant",
                Denial::UnknownDevice => "unknown_device",
                Denial::WrongSecret => "wrong_secret",
                Denial::Disabled => "disabled",
                Denial::Plaintext => "plaintext",
                Denial::Banned { .. } => "banned",
                Denial::Stopping | Denial::Unavailable => "unavailable",
                Denial::Malformed | Denial::TooOften => "malformed",
            },
            Some(Refused::Closed(Close::Connections)) => "full",
            Some(
                Refused::Version
                | Refused::ClientId(_)
                | Refused::Proof(_)
                | Refused::ServerName
                | Refused::Closed(_),
            ) => "malformed",
        };
        self.metrics.admitted.with_label_values(&[label(class), result]).inc();
    }

    /// One that has failed too often is not judged.
    pub(crate) fn count_banned(&self, class: Class, retry_after_s: u32) {
        self.count(class, Some(Refused::Denied(Denial::Banned { retry_after_s })));
    }

    async fn judge(
        &self,
        client: &ClientId,
        proof: &Proof,
        (by, tls): (By, bool),
    ) -> Result<Entered, Denial> {
        if client.is_quickstart() {
            return Err(Denial::UnknownTenant);
        }
        let (device, secret) = match (&client.who, proof) {
            (Who::Device(device) | Who::Gateway(device), Proof::Token(token)) => {
                (device_name(device), token)
            }
            (
                Who::Application { .. } | Who::SharedApplication { .. },
                Proof::Key { key, token },
            ) => (kept_as(&key.to_string()), token),
            _ => return Err(Denial::WrongSecret),
        };
        let (alias, now) = (alias_of(client), self.clock.wall());
        let shown = Shown { alias: &alias, device: &device, secret: secret.expose(), by, tls };
        let admitted = self.registry.admit(&self.secrets, shown, true, now.0).await?;
        let Admitted { guest, until_ms, watch, settings, .. } = admitted;
        let role = match &client.who {
            Who::Application { .. } | Who::SharedApplication { .. } => principal::role(&settings),
            Who::Device(_) | Who::Gateway(_) => None,
        };
        let may = match &client.who {
            Who::Application { .. } | Who::SharedApplication { .. } => {
                role.map(permissions).ok_or(Denial::WrongSecret)?
            }
            // A device of a gateway's name is no gateway, and the other way round.
            Who::Device(_) | Who::Gateway(_) if kind_of(client) != kind(&settings) => {
                return Err(Denial::UnknownDevice);
            }
            Who::Device(_) | Who::Gateway(_) => Permissions::default(),
        };
        let watch = watch.expect("it was asked for");
        let tenant = guest.tenant;
        let stay = Stay { by: Standing::Proven(guest), until_ms, watch };
        Ok(Entered { tenant, role, may, stay, seat: None })
    }

    /// Lets in one that needs no registration, where that is switched on and there is room. It shows nothing, so that nobody asks for
    /// TLS.
    fn judge_stranger(&self, client: &ClientId) -> Result<Entered, Refused> {
        let tenant = quickstart::tenant(&self.registry).ok_or(Denial::UnknownTenant)?;
        let seat = self.quickstart.seat().ok_or(Refused::Closed(Close::Connections))?;
        let looks = [Permissions::EVENT_RECEIVE, Permissions::STATUS];
        let may = Permissions(looks.iter().fold(0, |all, one| all | one.0));
        // News of the tenant come to whoever watches any name in it.
        let watch = self.registry.watch(tenant, &Text::from(client.to_string()));
        let stay = Stay { by: Standing::Stranger(tenant), until_ms: None, watch };
        Ok(Entered { tenant, role: None, may, stay, seat: Some(seat) })
    }

    /// Watches over a connection that was let in: ends it when its client may not stay.
    pub(crate) fn watching(&self, stay: Stay) -> Begin {
        let door = self.clone();
        watch_over(self.tasks.clone(), move || {
            let present = stay.device().map(|guest| door.registry.arrive(guest));
            async move {
                let _present = present;
                door.until_revoked(&stay).await;
            }
        })
    }

    /// Returns when a client that was let in may not stay.
    pub(crate) async fn until_revoked(&self, stay: &Stay) {
        let now_ms = || self.clock.wall().0;
        let stays = || self.stays(&stay.by);
        stay.watch.until_revoked(stay.until_ms, now_ms, stays).await;
    }

    async fn stays(&self, by: &Standing) -> Result<(), Denial> {
        match by {
            Standing::Proven(guest) => self.registry.still(guest).await,
            Standing::Stranger(tenant) => {
                let is_on = quickstart::tenant(&self.registry) == Some(*tenant);
                if is_on { Ok(()) } else { Err(Denial::UnknownTenant) }
            }
        }
    }
}

/// What whoever has a token of the API may do here. One for some devices is no application's: its topics are for all of them.
fn permissions(role: Role) -> Permissions {
    let looks = [Permissions::EVENT_RECEIVE, Permissions::COMMAND_RECEIVE, Permissions::STATUS];
    let acts = [Permissions::EVENT_SEND, Permissions::COMMAND_SEND, Permissions::MANAGEMENT];
    let acts = if role == Role::ReadOnly { &[][..] } else { &acts };
    Permissions(looks.iter().chain(acts).fold(0, |all, one| all | one.0))
}

/// What a device has to be registered as.
fn kind_of(client: &ClientId) -> Kind {
    match &client.who {
        Who::Gateway(_) => Kind::Gateway,
        Who::Device(_) | Who::Application { .. } | Who::SharedApplication { .. } => Kind::Device,
    }
}

fn kind(settings: &Bytes) -> Kind {
    settings::read::<DeviceSettings>(settings).class
}

fn alias_of(client: &ClientId) -> String {
    format!("{ALIAS}{}", client.org)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_role_says_what_it_may() {
        let may = |settings: &str| principal::role(settings.as_bytes()).map(permissions);
        let looks = may(r#"{"role":"read-only"}"#).unwrap();
        assert!(looks.allow(Permissions::EVENT_RECEIVE) && looks.allow(Permissions::STATUS));
        assert!(!looks.allow(Permissions::COMMAND_SEND) && !looks.allow(Permissions::EVENT_SEND));
        assert!(may(r#"{"role":"app"}"#).unwrap().allow(Permissions::COMMAND_SEND));
        assert_eq!(may(r#"{"role":"app","scope":{"devices":["a*"]}}"#), None);
        assert_eq!(may("{}"), None, "a device's settings");
    }
}
