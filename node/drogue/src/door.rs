//! Who a client is: from what it shows to a device of an application, and whether it may stay.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use moorline_core::{TenantId, Text, op::Denial, port::SessionLimits};
use moorline_dialects::drogue::{
    PACKET_BYTES_MAX,
    identity::{Credentials, DeviceId},
    registry::device::{Kept, is_disabled},
};
use moorline_edge::{Channel, Clock, Doorkeeper, EdgeConfig, Made, Proof, PskHolder, Settings};
use moorline_machine::registry::{DEVICE_NAME_BYTES_MAX, DeviceRecord, TenantRecord};
use moorline_mqtt::server;
use moorline_outward::Outward;
use moorline_service::{
    Service,
    registry::{
        Registry, RegistryError, Watch,
        credential::{
            certificate,
            prove::{Chain, Claim, Holder, Possession, Proven, Stay, Unproven},
        },
        door::{By, Certified, Guest},
        explain::Cause,
        principal::{ApiToken, Principal, is_principal},
        secrets::Secrets,
    },
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::{
    kept::kept_of,
    metrics::DrogueMetrics,
    places::Places,
    speaker::Speaker,
    spec::{Specs, Unknown},
};

/// What an application's tenant is called, before its name, and before the subject of an authority of its.
const ALIAS: &str = "drogue:";
/// How long it counts that there are applications, and that there are none.
const FOUND_FOR: Duration = Duration::from_secs(5);
/// See [`FOUND_FOR`].
const NOT_FOUND_FOR: Duration = Duration::from_millis(250);
/// How long tasks of connections may take to end, when these have ended.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// In distinguished names, and in no application's name.
const EQUALS: char = '=';
/// The longest that a name is under which failures are counted: what is longer names nobody, and so costs no more than others.
const WHO_BYTES_MAX: usize = 2 * DEVICE_NAME_BYTES_MAX;

/// Where clients are let in. Clones are the same.
#[derive(Clone)]
pub struct Door {
    pub(crate) registry: Registry,
    pub(crate) secrets: Secrets,
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Clock,
    /// What MQTT allows devices.
    pub(crate) rules: Made<server::Config>,
    /// What it allows applications.
    pub(crate) application_rules: Made<server::Config>,
    /// For sessions of requests: what they may take, and how many there may be.
    pub(crate) sessions: Made<(SessionLimits, u32)>,
    pub(crate) metrics: DrogueMetrics,
    pub(crate) specs: Specs,
    /// Asks endpoints of applications.
    pub(crate) outward: Outward,
    /// Who failed too often: the same for MQTT and HTTP.
    doors: Doorkeeper,
    /// Whether there is any application, and when that was looked up.
    found: Arc<Mutex<Option<(bool, Instant)>>>,
    /// Connections of devices, and requests that wait.
    pub(crate) places: Places,
    /// Tasks of connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// How a client comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coming<'a> {
    pub(crate) by: By,
    pub(crate) from: IpAddr,
    pub(crate) channel: &'a Channel,
}

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It is nobody, or may not come.
    Away,
    /// Nobody can say.
    Unavailable,
    /// What the registry says of it can't be read.
    Misconfigured,
}

impl Turned {
    /// The same to who asks later.
    fn cause(self) -> Cause {
        match self {
            Self::Away => Cause::WrongCredentials,
            Self::Unavailable => Cause::AuthUnavailable,
            Self::Misconfigured => Cause::PlatformRefused,
        }
    }
}

impl From<Unknown> for Turned {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Unreadable => Self::Misconfigured,
            Unknown::Unavailable => Self::Unavailable,
        }
    }
}

/// Who was let in.
pub(crate) struct Entered {
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) standing: Standing,
}

/// What it depends on that a device may stay.
pub(crate) struct Standing {
    by: Shown,
    until_ms: Option<u64>,
    watch: Watch,
}

/// Who somebody says to be.
struct Named {
    tenant: TenantId,
    /// The device, which is the client id of its logins.
    device: Text,
    user: Text,
}

/// By what it is in.
enum Shown {
    /// What the registry checks again by itself.
    Words(Stay),
    /// A certificate of an authority of its application.
    Certificate(Guest, Chain),
}

impl Door {
    /// A door before a service. `doors`: who failed too often, counted with all others. `outward`: asks endpoints of applications.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        secrets: Secrets,
        clock: Clock,
        settings: Settings,
        metrics: DrogueMetrics,
        doors: Doorkeeper,
        outward: Outward,
    ) -> Self {
        Self {
            registry: service.registry(),
            secrets,
            service,
            clock,
            rules: Made::of(settings.clone(), rules),
            application_rules: Made::of(settings.clone(), application_rules),
            sessions: Made::of(settings, sessions),
            metrics,
            specs: Specs::default(),
            outward,
            doors,
            found: Arc::default(),
            places: Places::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until what connections have said is written: wills, and how far groups are. Their listeners have ended; no other connection
    /// comes.
    pub async fn stop(&self) {
        self.tasks.close();
        if timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "connections of Drogue's did not end in time");
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.wall().0
    }

    /// Whether there is any application, as of a moment ago: strangers ask, and all tenants are looked at.
    pub(crate) fn has_applications(&self) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((has, at)) = *found
            && at.elapsed() < if has { FOUND_FOR } else { NOT_FOUND_FOR }
        {
            return has;
        }
        // Others look for themselves meanwhile.
        drop(found);
        let has = self.registry.any_tenant(|of| of.enabled && name_of(of).is_some());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((has, Instant::now()));
        has
    }

    /// Whether a tenant is an application, by all that is known here.
    #[must_use]
    pub fn takes(&self, tenant: TenantId) -> bool {
        self.registry.tenant(tenant).is_some_and(|of| name_of(&of).is_some())
    }

    /// The name of the application that a tenant is.
    pub(crate) fn name(&self, tenant: TenantId) -> Option<Text> {
        self.registry.tenant(tenant).as_ref().and_then(name_of)
    }

    /// Whether there is an application of this name, by all that is known here.
    pub(crate) fn knows(&self, application: &str) -> bool {
        self.registry.tenant_by_alias(&format!("{ALIAS}{application}")).is_some()
    }

    /// Whether keys may be shown without TLS that are for this application, by all that is known here.
    pub(crate) fn takes_plaintext_for(&self, application: &str) -> bool {
        let meant = self.registry.tenant_by_alias(&format!("{ALIAS}{application}"));
        meant.is_some_and(|(tenant, _)| self.registry.takes_plaintext(tenant))
    }

    /// The application that an authority of a chain belongs to: its alias.
    pub(crate) fn authority_of(&self, chain: &Chain) -> Option<String> {
        let issuers = chain.iter().filter_map(certificate::issuer);
        issuers
            .map(|issuer| format!("{ALIAS}{issuer}"))
            .find(|alias| self.registry.tenant_by_alias(alias).is_some())
    }

    /// An application by its name.
    pub(crate) async fn application(&self, name: &str) -> Result<(TenantId, Text), Turned> {
        let meant = self.registry.tenant_meant(&format!("{ALIAS}{name}")).await;
        let (tenant, of) = meant.map_err(turned)?;
        let name = name_of(&of).filter(|_| of.enabled).ok_or(Turned::Away)?;
        Ok((tenant, name))
    }

    /// Lets a device in that has not failed too often.
    pub(crate) async fn admit(
        &self,
        credentials: &Credentials,
        coming: Coming<'_>,
    ) -> Result<Entered, Turned> {
        let who = who(credentials, coming.channel);
        let result = if self.doors.banned(&who, coming.from, self.clock.wall()).is_some() {
            Err(Turned::Away)
        } else {
            let judging = Box::pin(self.judge(credentials, &coming));
            let why = |turned: &Turned| Some(turned.cause());
            let judged = self.registry.remembering(coming.from, why, judging).await;
            match &judged {
                Ok(_) => self.doors.succeeded(&who, coming.from),
                Err(Turned::Away) => {
                    if self.doors.failed(&who, coming.from, self.clock.wall()) {
                        let from = coming.from;
                        info!(%from, "a client failed too often and is banned for a while");
                    }
                }
                Err(Turned::Unavailable | Turned::Misconfigured) => {}
            }
            judged
        };
        self.count(coming.by, result.as_ref().err().copied());
        result
    }

    /// Whose key that is, who has not failed too often from there.
    pub(crate) async fn principal(
        &self,
        key: &str,
        by: By,
        from: IpAddr,
    ) -> Result<Principal, Turned> {
        let who = named_by(key);
        let banned = self.doors.banned(&who, from, self.clock.wall()).is_some();
        let result = if banned {
            Err(Turned::Away)
        } else {
            let found = self.registry.principal(&self.secrets, key, self.now_ms()).await;
            found.map_err(|_| Turned::Unavailable).and_then(|found| found.ok_or(Turned::Away))
        };
        match &result {
            Ok(_) => self.doors.succeeded(&who, from),
            Err(Turned::Away) if !banned => drop(self.doors.failed(&who, from, self.clock.wall())),
            Err(_) => {}
        }
        self.count(by, result.as_ref().err().copied());
        result
    }

    /// Counts an attempt.
    pub(crate) fn count(&self, by: By, turned: Option<Turned>) {
        let result = match turned {
            None => "accepted",
            Some(Turned::Away) => "refused",
            Some(Turned::Unavailable) => "unavailable",
            Some(Turned::Misconfigured) => "misconfigured",
        };
        self.metrics.admitted.with_label_values(&[By::name(by as u8), result]).inc();
    }

    async fn judge(
        &self,
        credentials: &Credentials,
        coming: &Coming<'_>,
    ) -> Result<Entered, Turned> {
        match credentials {
            Credentials::Password { id, password } => {
                let proven = self.by_words(id, None, password.expose(), coming).await?;
                self.entered(proven, None).await
            }
            Credentials::User { id, user, password } => {
                let proven = self.by_words(id, Some(user), password.expose(), coming).await?;
                self.entered(proven, Some(id)).await
            }
            Credentials::Proven => match &coming.channel.proof {
                Some(Proof::Certificates(chain)) => self.by_certificate(chain, coming).await,
                Some(Proof::Psk(holder)) => self.by_key(holder, coming).await,
                None => Err(Turned::Away),
            },
        }
    }

    /// By a name and a password. Logins of a device have its name as client id, so that many devices may have one user name. Who is
    /// nobody by the name that it says may be a device that has this as an alias.
    async fn by_words(
        &self,
        id: &DeviceId,
        user: Option<&Text>,
        password: &[u8],
        coming: &Coming<'_>,
    ) -> Result<Proven, Turned> {
        let meant = self.registry.tenant_meant(&format!("{ALIAS}{}", id.application)).await;
        let (tenant, of) = meant.map_err(turned)?;
        let named = |device: &Text| Named {
            tenant,
            user: Text::from(format!("{}@{}", user.unwrap_or(device), of.name)),
            device: device.clone(),
        };
        match self.by_name(named(&id.device), password, coming).await {
            Err(Turned::Away) => {}
            other => return other,
        }
        let called = self.registry.device_called(&self.secrets, tenant, &id.device).await;
        match called.map_err(|_| Turned::Unavailable)? {
            Some((device, _)) => self.by_name(named(&device), password, coming).await,
            // Whether there is such an alias is not to be told by how long a refusal takes.
            None if self.registry.settings(tenant).chosen_passwords => {
                let pretended = self.secrets.passwords().pretend(password).await;
                Err(if pretended.is_ok() { Turned::Away } else { Turned::Unavailable })
            }
            None => Err(Turned::Away),
        }
    }

    async fn by_name(
        &self,
        named: Named,
        password: &[u8],
        coming: &Coming<'_>,
    ) -> Result<Proven, Turned> {
        let claim = Claim {
            by: coming.by,
            tls: coming.channel.tls,
            server_name: coming.channel.server_name.as_ref(),
            client: &named.device,
            user: Some(&named.user),
            password: Some(password),
            possession: Possession::Nothing,
        };
        let proven = self.registry.prove(&self.secrets, &claim, self.now_ms()).await;
        let proven = proven.map_err(unproven)?;
        if proven.stay.guest.tenant != named.tenant {
            return Err(Turned::Away);
        }
        Ok(proven)
    }

    /// A device by its name, or by an alias, with its name.
    pub(crate) async fn device_named(
        &self,
        tenant: TenantId,
        name: &Text,
    ) -> Result<Option<(Text, DeviceRecord)>, RegistryError> {
        if is_principal(name) {
            return Ok(None);
        }
        match self.registry.device(tenant, name).await? {
            Some(record) => Ok(Some((name.clone(), record))),
            None => self.registry.device_called(&self.secrets, tenant, name).await,
        }
    }

    async fn by_key(&self, holder: &PskHolder, coming: &Coming<'_>) -> Result<Entered, Turned> {
        let PskHolder { tenant, device, born, credential } = holder.clone();
        let claim = Claim {
            by: coming.by,
            tls: coming.channel.tls,
            server_name: coming.channel.server_name.as_ref(),
            client: &Text::default(),
            user: None,
            password: None,
            possession: Possession::Psk(Holder { tenant, device, born, credential }),
        };
        let proven = self.registry.prove(&self.secrets, &claim, self.now_ms()).await;
        self.entered(proven.map_err(unproven)?, None).await
    }

    /// By what an authority of the application calls it: the subject, or its common name.
    async fn by_certificate(&self, chain: &Chain, coming: &Coming<'_>) -> Result<Entered, Turned> {
        let alias = self.authority_of(chain).ok_or(Turned::Away)?;
        let (tenant, _) = self.registry.tenant_meant(&alias).await.map_err(turned)?;
        let called = self.registry.vouched(tenant, chain, self.now_ms()).ok_or(Turned::Away)?;
        let subject = chain.first().and_then(certificate::subject).map(Text::from);
        for said in [subject, called.common].into_iter().flatten() {
            let named = self.device_named(tenant, &said).await;
            let Some((device, _)) = named.map_err(|_| Turned::Unavailable)? else { continue };
            let certified = Certified {
                alias: &alias,
                device: &device,
                chain,
                is_it: &|_| true,
                by: coming.by,
            };
            let admitted = match self.registry.admit_certified(certified, self.now_ms()).await {
                Ok(admitted) => admitted,
                Err(Denial::UnknownDevice) => continue,
                Err(why) => return Err(turned(why)),
            };
            let watch = admitted.watch.expect("it was asked for");
            let by = Shown::Certificate(admitted.guest.clone(), Arc::clone(chain));
            let standing = Standing { by, until_ms: admitted.until_ms, watch };
            let kept = kept_of(&admitted.settings).map_err(|_| Turned::Misconfigured)?;
            let speaker = self.speaker(admitted.guest, kept).await?;
            return Ok(Entered { speaker, standing });
        }
        Err(Turned::Away)
    }

    async fn entered(&self, proven: Proven, named: Option<&DeviceId>) -> Result<Entered, Turned> {
        let Proven { stay, watch, settings, .. } = proven;
        let kept = kept_of(&settings).map_err(|_| Turned::Misconfigured)?;
        let is_it = |id: &DeviceId| {
            id.device == stay.guest.device
                || kept.aliases().any(|alias| alias == id.device.as_str())
        };
        if !named.is_none_or(is_it) {
            // Somebody else has this user name and password.
            return Err(Turned::Away);
        }
        let speaker = self.speaker(stay.guest.clone(), kept).await?;
        let until_ms = stay.until_ms;
        Ok(Entered { speaker, standing: Standing { by: Shown::Words(stay), until_ms, watch } })
    }

    async fn speaker(&self, guest: Guest, kept: Kept) -> Result<Arc<Speaker>, Turned> {
        let of = self.registry.tenant(guest.tenant).ok_or(Turned::Away)?;
        let application = name_of(&of).ok_or(Turned::Away)?;
        let spec = self.specs.of(&self.registry, guest.tenant).await?;
        if is_disabled(&kept.spec) || is_disabled(&spec.spec) {
            return Err(Turned::Away);
        }
        Ok(Arc::new(Speaker::new(self.clone(), guest, application, kept)))
    }

    /// Returns when a device may not stay.
    pub(crate) async fn until_revoked(&self, standing: &Standing) {
        let stays = || self.stays(&standing.by);
        standing.watch.until_revoked(standing.until_ms, || self.now_ms(), stays).await;
    }

    async fn stays(&self, by: &Shown) -> Result<(), Denial> {
        match by {
            Shown::Words(stay) => self.registry.stays(stay, self.now_ms()).await,
            Shown::Certificate(guest, chain) => {
                let vouched = self.registry.vouched(guest.tenant, chain, self.now_ms());
                vouched.ok_or(Denial::WrongSecret)?;
                self.registry.still(guest).await
            }
        }
    }
}

/// By what the failures of a device are counted: so that those of one ban no other one of its address.
fn who(credentials: &Credentials, channel: &Channel) -> Text {
    bounded(said(credentials, channel))
}

fn bounded(who: String) -> Text {
    if who.len() > WHO_BYTES_MAX { Text::default() } else { Text::from(who) }
}

fn said(credentials: &Credentials, channel: &Channel) -> String {
    if let Some(id) = credentials.id() {
        return format!("{}@{}", id.device, id.application);
    }
    match &channel.proof {
        // A chain that names nobody is nobody's.
        Some(Proof::Certificates(chain)) => {
            let subject = chain.first().and_then(certificate::subject);
            format!("certificate {}", subject.unwrap_or_default())
        }
        Some(Proof::Psk(holder)) => format!("key {}/{}", holder.tenant.0, holder.device),
        None => String::new(),
    }
}

/// The same of a token: by the name that it says, which is no secret. What is no token names nobody.
fn named_by(key: &str) -> Text {
    let token = ApiToken::parse(key);
    let name = token.filter(|token| token.name.len() <= DEVICE_NAME_BYTES_MAX);
    name.map_or_else(Text::default, |token| {
        Text::from(format!("token {}/{}", token.tenant.0, token.name))
    })
}

/// The name of an application; [`None`] for a tenant that is none.
fn name_of(of: &TenantRecord) -> Option<Text> {
    let names = of.aliases.iter().filter_map(|alias| alias.as_str().strip_prefix(ALIAS));
    let mut names = names.filter(|name| !name.is_empty() && !name.contains(EQUALS));
    names.next().map(Text::from)
}

fn turned(denial: Denial) -> Turned {
    match denial {
        Denial::Unavailable | Denial::Stopping => Turned::Unavailable,
        Denial::Malformed
        | Denial::UnknownTenant
        | Denial::UnknownDevice
        | Denial::WrongSecret
        | Denial::Disabled
        | Denial::Plaintext
        | Denial::Banned { .. }
        | Denial::TooOften => Turned::Away,
    }
}

fn unproven(why: Unproven) -> Turned {
    match why {
        Unproven::Busy | Unproven::Unavailable => Turned::Unavailable,
        Unproven::Nothing | Unproven::Wrong | Unproven::Expired | Unproven::Plaintext => {
            Turned::Away
        }
    }
}

/// MQTT as it is there: packets of 16 KiB, no session that lasts, no shares and no subscription ids.
fn rules(edge: &EdgeConfig) -> server::Config {
    let mut config = edge.protocol();
    config.packet_bytes_max = config.packet_bytes_max.min(PACKET_BYTES_MAX);
    config.session_expiry_max_s = 0;
    config.capabilities.shared = false;
    config.capabilities.subscription_ids = false;
    config.stays_with_subscription_id = true;
    config
}

/// For sessions of requests.
fn sessions(edge: &EdgeConfig) -> (SessionLimits, u32) {
    (edge.session_limits(), edge.sessions_per_shard_max)
}

/// For applications: what comes to them may be large, and nothing is retained.
fn application_rules(edge: &EdgeConfig) -> server::Config {
    let mut config = edge.protocol();
    config.session_expiry_max_s = 0;
    config.capabilities.retain = false;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_counted_under_short_ones() {
        let of = |length: usize| bounded("x".repeat(length)).len();
        let table = [(0, 0), (9, 9), (WHO_BYTES_MAX, WHO_BYTES_MAX), (WHO_BYTES_MAX + 1, 0)];
        for (length, expected) in table {
            assert_eq!(of(length), expected, "{length}");
        }
    }
}
