//! Who a client is: from what its CONNECT says and proves to a device or API token of its organisation.

use std::sync::Arc;

use bytes::Bytes;
use moorline_core::{TenantId, Text, op::Denial};
use moorline_dialects::{
    secret::Secret,
    watson::{
        about::Bounds,
        close::Close,
        connect::{Opening, Refused, Session},
        identity::{
            CertificateNames, Class, ClientId, Demand, DeviceName, Inadmissible, Policy, Proof,
            Who, names_client,
        },
        topics::{Permissions, Role as GatewayRole},
    },
};
use moorline_edge::{Begin, Channel, Clock, Made, Proof as Shows, Settings, watch_over};
use moorline_service::registry::{
    Registry, Watch,
    credential::{certificate::Called, prove::Chain},
    door::{Admitted, By, Certified, Guest, Shown},
    explain::meant,
    principal::{self, is_principal, kept_as},
    secrets::Secrets,
    settings::{self, Class as Kind, DeviceSettings, Role},
};
use tokio_util::task::TaskTracker;

use crate::{
    apps::Noting,
    failed::Failures,
    gateway::about,
    last_events::LastEvents,
    metrics::{WatsonMetrics, label},
    quickstart::{self, Quickstart, Seat},
    rules::Rules,
    security::Policies,
};

/// What an organisation's tenant is called, before its id.
const ALIAS: &str = "watson:";

/// Where clients are let in. Clones are the same.
#[derive(Debug, Clone)]
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Clock,
    pub(crate) rules: Made<Rules>,
    pub(crate) metrics: WatsonMetrics,
    pub(crate) last_events: LastEvents,
    quickstart: Quickstart,
    pub(crate) policies: Policies,
    pub(crate) failures: Failures,
    pub(crate) noting: Noting,
    /// Those that watch over connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
}

/// How a client comes.
#[derive(Debug, Clone)]
pub(crate) struct Coming {
    by: By,
    tls: bool,
    /// What TLS proved that it has the key of.
    chain: Option<Chain>,
}

impl Coming {
    pub(crate) fn new(by: By, channel: &Channel) -> Self {
        let chain = match &channel.proof {
            Some(Shows::Certificates(chain)) => Some(Arc::clone(chain)),
            Some(Shows::Psk(_)) | None => None,
        };
        Self { by, tls: channel.tls, chain }
    }
}

/// Who was let in.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) tenant: TenantId,
    /// What its authority calls it, if it has shown a certificate.
    pub(crate) certificate: Text,
    /// What an application's key is for; nothing of a device or gateway.
    pub(crate) role: Option<Role>,
    /// What an application's key may; a device or gateway may what its class may.
    pub(crate) may: Permissions,
    /// What a gateway may; nothing of anybody else.
    pub(crate) bounds: Bounds,
    /// Turns it out when it may not stay.
    pub(crate) stay: Stay,
    /// The place of a client of quickstart.
    pub(crate) seat: Option<Seat>,
}

/// What it depends on that a client may stay.
#[derive(Debug)]
pub(crate) struct Stay {
    by: Standing,
    /// What it is as a gateway, as it came in: if that changes, it comes anew.
    gateway: Option<Bounds>,
    until_ms: Option<u64>,
    watch: Watch,
}

/// By what a client is in.
#[derive(Debug)]
enum Standing {
    /// It has proved who it is.
    Proven(Guest, Option<Vouched>),
    /// Nobody knows it, and quickstart is on in this tenant.
    Stranger(TenantId),
}

/// What is to stay true of a certificate.
#[derive(Debug)]
struct Vouched {
    client: ClientId,
    chain: Chain,
}

impl Stay {
    /// The device or gateway it is, whose presence counts.
    pub(crate) fn device(&self) -> Option<&Guest> {
        match &self.by {
            Standing::Proven(guest, _) => Some(guest).filter(|guest| !is_principal(&guest.device)),
            Standing::Stranger(_) => None,
        }
    }
}

impl Entered {
    /// The name of its session if it is a standard gateway.
    pub(crate) fn session_of_standard(&self, client: &ClientId) -> Option<Text> {
        let guest = self.stay.device()?;
        match self.bounds.role {
            GatewayRole::Standard => {
                Some(Session::of_standard(client, guest.born, self.bounds.changed))
            }
            GatewayRole::Privileged => None,
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
        settings: Settings,
        metrics: WatsonMetrics,
    ) -> Self {
        let (rules, tasks) = (Made::of(settings, Rules::new), TaskTracker::new());
        let last_events = LastEvents::default();
        let quickstart = Quickstart::new(metrics.quickstart.clone());
        let (policies, failures) = (Policies::default(), Failures::default());
        Self {
            registry,
            secrets,
            clock,
            rules,
            metrics,
            last_events,
            quickstart,
            policies,
            failures,
            noting: Noting::default(),
            tasks,
        }
    }

    /// Whether there is such an organisation, by all that is known here.
    pub(crate) fn knows(&self, client: &ClientId) -> bool {
        self.registry.tenant_by_alias(&alias_of(client)).is_some()
    }

    /// Lets a client in that stays.
    pub(crate) async fn admit(
        &self,
        opening: &Opening,
        channel: &Channel,
    ) -> Result<Entered, Refused> {
        let client = &opening.client;
        let entered = if client.is_quickstart() {
            self.judge_stranger(client)
        } else {
            self.judge(client, &opening.proof, &Coming::new(By::Mqtt, channel)).await
        };
        self.count(client.class(), entered.as_ref().err().copied());
        entered
    }

    /// Lets one in that makes a request: the one of these that there is and that has shown its secret.
    pub(crate) async fn admit_one_of(
        &self,
        clients: &[ClientId],
        proof: &Proof,
        channel: &Channel,
    ) -> Result<(ClientId, Entered), Denial> {
        let (mut refused, coming) =
            (Refused::Denied(Denial::UnknownDevice), Coming::new(By::Http, channel));
        for client in clients {
            match self.judge(client, proof, &coming).await {
                Ok(entered) => {
                    self.count(client.class(), None);
                    return Ok((client.clone(), entered));
                }
                // Another reading of its name may be somebody.
                Err(why @ Refused::Denied(Denial::UnknownDevice | Denial::WrongSecret)) => {
                    refused = why;
                }
                Err(why) => {
                    refused = why;
                    break;
                }
            }
        }
        if let Some(client) = clients.first() {
            self.count(client.class(), Some(refused));
        }
        // HTTP has one answer for a wrong certificate and a wrong token.
        Err(if let Refused::Denied(denied) = refused { denied } else { Denial::WrongSecret })
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
            Some(Refused::Closed(Close::CertificateMissing | Close::CertificateWrong)) => {
                "certificate"
            }
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
        coming: &Coming,
    ) -> Result<Entered, Refused> {
        if client.is_quickstart() {
            return Err(Denial::UnknownTenant.into());
        }
        if client.class().is_application() {
            return Ok(self.judge_application(client, proof, coming).await?);
        }
        self.judge_device(client, proof, coming).await
    }

    async fn judge_application(
        &self,
        client: &ClientId,
        proof: &Proof,
        coming: &Coming,
    ) -> Result<Entered, Denial> {
        let Proof::Key { key, token } = proof else { return Err(Denial::WrongSecret) };
        let admitted = self.by_token(client, &kept_as(&key.to_string()), token, coming).await?;
        let role = principal::role(&admitted.settings).ok_or(Denial::WrongSecret)?;
        let entered = entered(admitted, None, Text::default());
        Ok(Entered { role: Some(role), may: permissions(role), ..entered })
    }

    /// By its token, its certificate or both, as its organisation asks of its type.
    async fn judge_device(
        &self,
        client: &ClientId,
        proof: &Proof,
        coming: &Coming,
    ) -> Result<Entered, Refused> {
        let name = client.device().ok_or(Denial::UnknownDevice)?;
        let alias = alias_of(client);
        let (tenant, _) = self.registry.tenant_meant(&alias).await?;
        meant(tenant, &device_name(name));
        let (now, plaintext) = (self.clock.wall().0, self.registry.takes_plaintext(tenant));
        if !coming.tls && !plaintext {
            return Err(Denial::Plaintext.into());
        }
        let chain = coming.chain.as_ref().filter(|_| coming.tls);
        let called = chain.and_then(|chain| self.registry.vouched(tenant, chain, now));
        let names = called.as_ref().map(|called| is_called(client, called));
        if names == Some(false) {
            // One of its organisation says that it is somebody else.
            return Err(Refused::Closed(Close::CertificateWrong));
        }
        let policies = self.policies(tenant).await.map_err(|_| Denial::Unavailable)?;
        let authorities = self.registry.settings(tenant).trust_anchors.is_any();
        let policy = policies.of(name.kind.as_str());
        let policy = policy.unwrap_or(Policy::unsaid(coming.tls, plaintext, authorities));
        let demand = policy.admits(coming.tls, names, proof).map_err(|why| match why {
            Inadmissible::Plaintext => Refused::Denied(Denial::Plaintext),
            Inadmissible::NoToken => Refused::Denied(Denial::WrongSecret),
            Inadmissible::NoCertificate => Refused::Closed(Close::CertificateMissing),
        })?;
        let (device, is_it) = (device_name(name), |called: &Called| is_called(client, called));
        let admitted = match (demand, proof, chain) {
            (Demand::Token, Proof::Token(token), _) => {
                self.by_token(client, &device, token, coming).await?
            }
            (Demand::Nothing, _, Some(chain)) => {
                let (alias, device, is_it, by) = (&*alias, &device, &is_it, coming.by);
                let certified = Certified { alias, device, chain, is_it, by };
                self.registry.admit_certified(certified, now).await?
            }
            (Demand::Token | Demand::Nothing, ..) => return Err(Denial::WrongSecret.into()),
        };
        if !registered_as(client, &admitted.settings) {
            return Err(Denial::UnknownDevice.into());
        }
        // What was not needed may go.
        let counted = chain.filter(|_| names.is_some() && needs_certificate(policy, demand));
        let vouched =
            counted.map(|chain| Vouched { client: client.clone(), chain: Arc::clone(chain) });
        let certificate = called.map(|_| Text::from(certificate_name(client, name)));
        let is_gateway = client.class() == Class::Gateway;
        let bounds = is_gateway.then(|| about(&admitted.settings).bounds());
        let entered = entered(admitted, vouched, certificate.unwrap_or_default());
        let stay = Stay { gateway: bounds, ..entered.stay };
        Ok(Entered { bounds: bounds.unwrap_or_default(), stay, ..entered })
    }

    async fn by_token(
        &self,
        client: &ClientId,
        device: &Text,
        token: &Secret,
        coming: &Coming,
    ) -> Result<Admitted, Denial> {
        let (alias, now, Coming { by, tls, .. }) = (alias_of(client), self.clock.wall(), coming);
        let secret = token.expose();
        let shown = Shown { alias: &alias, device, secret, by: *by, tls: *tls };
        self.registry.admit(&self.secrets, shown, true, now.0).await
    }

    /// Lets in one that needs no registration, where that is switched on and there is room. It shows nothing, so that nobody asks for
    /// TLS.
    fn judge_stranger(&self, client: &ClientId) -> Result<Entered, Refused> {
        let is_on = || quickstart::tenant(&self.registry).ok_or(Denial::UnknownTenant);
        let tenant = is_on()?;
        let seat = self.quickstart.seat().ok_or(Refused::Closed(Close::Connections))?;
        let looks = [Permissions::EVENT_RECEIVE, Permissions::STATUS];
        let may = Permissions(looks.iter().fold(0, |all, one| all | one.0));
        // News of the tenant come to whoever watches any name in it, from now on.
        let watch = self.registry.watch(tenant, &Text::from(client.to_string()));
        if is_on()? != tenant {
            return Err(Denial::UnknownTenant.into());
        }
        let stay = Stay { by: Standing::Stranger(tenant), gateway: None, until_ms: None, watch };
        let (role, certificate, bounds) = (None, Text::default(), Bounds::default());
        Ok(Entered { tenant, certificate, role, may, bounds, stay, seat: Some(seat) })
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
        let stays = || self.stays(stay);
        stay.watch.until_revoked(stay.until_ms, now_ms, stays).await;
    }

    async fn stays(&self, stay: &Stay) -> Result<(), Denial> {
        match &stay.by {
            Standing::Proven(guest, vouched) => {
                let now = self.clock.wall().0;
                let is_vouched = |vouched: &Vouched| {
                    let called = self.registry.vouched(guest.tenant, &vouched.chain, now);
                    called.is_some_and(|called| is_called(&vouched.client, &called))
                };
                if !vouched.as_ref().is_none_or(is_vouched) {
                    return Err(Denial::WrongSecret);
                }
                self.registry.still(guest).await?;
                match stay.gateway {
                    Some(bounds) => self.still_is(guest, bounds).await,
                    None => Ok(()),
                }
            }
            Standing::Stranger(tenant) => {
                let is_on = quickstart::tenant(&self.registry) == Some(*tenant);
                if is_on { Ok(()) } else { Err(Denial::UnknownTenant) }
            }
        }
    }
}

impl Door {
    /// Whether a gateway may still what it might when it came.
    async fn still_is(&self, guest: &Guest, bounds: Bounds) -> Result<(), Denial> {
        let record = self.registry.device(guest.tenant, &guest.device).await;
        let record = record.map_err(|_| Denial::Unavailable)?.ok_or(Denial::UnknownDevice)?;
        if about(&record.settings).bounds() == bounds { Ok(()) } else { Err(Denial::Disabled) }
    }
}

fn entered(admitted: Admitted, vouched: Option<Vouched>, certificate: Text) -> Entered {
    let Admitted { guest, until_ms, watch, .. } = admitted;
    let (tenant, watch) = (guest.tenant, watch.expect("it was asked for"));
    let stay = Stay { by: Standing::Proven(guest, vouched), gateway: None, until_ms, watch };
    let (may, bounds) = (Permissions::default(), Bounds::default());
    Entered { tenant, certificate, role: None, may, bounds, stay, seat: None }
}

/// Whether a client is in by its certificate, alone or beside its token.
fn needs_certificate(policy: Policy, demand: Demand) -> bool {
    demand == Demand::Nothing || policy == Policy::CertificateAndToken
}

/// Whether what an authority says is this client.
fn is_called(client: &ClientId, called: &Called) -> bool {
    let alternative: Vec<&str> = called.alternative.iter().map(Text::as_str).collect();
    let common = called.common.as_ref().map(Text::as_str);
    names_client(CertificateNames { common, alternative: &alternative }, client)
}

/// What a client's certificate calls it.
fn certificate_name(client: &ClientId, device: &DeviceName) -> String {
    format!("{}:{}:{}", client.class().letter(), device.kind, device.id)
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

/// Whether a row is that of this device or gateway: a device of a gateway's name is no gateway.
pub(crate) fn registered_as(client: &ClientId, settings: &Bytes) -> bool {
    kind_of(client) == kind(settings)
}

fn kind(settings: &Bytes) -> Kind {
    settings::read::<DeviceSettings>(settings).class
}

pub(crate) fn alias_of(client: &ClientId) -> String {
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
