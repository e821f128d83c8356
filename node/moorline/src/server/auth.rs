//! Who may connect over MQTT: devices of the registry, and anybody where the configuration says so.
//!
//! | user name | password | who |
//! |---|---|---|
//! | `FLEET::DEVICE` | the device's secret | a device of Fostrom, to which MQTT is something else |
//! | an access key of an application of Losant's | its secret | the device of the client id: `moorline_losant` |
//! | none, with a device's id and a certificate of such an application | | the same |
//! | a client id of Watson's, with its token or key | | a device, gateway or application of an organisation: `moorline_watson` |
//! | `DEVICE@APP`, or another with the client id `DEVICE@APP`, of an application of Drogue's; none, with its certificate or key | as is proper there | that device, or an application with its token: `moorline_drogue` |
//! | `provision`, or that client id | none | somebody who asks a profile of ThingsBoard's for credentials, and for nothing else |
//! | none, and a certificate of an authority of a profile of ThingsBoard's | | the device that it names, which has it from then on |
//! | whatever a device of a tenant of ThingsBoard's shows | | that device, to which MQTT is something else: `moorline_thingsboard` |
//! | anything else | | a device of the registry, by whatever it shows: `moorline_service::registry::credential::prove` |
//! | nothing that means anything, or none | | refused; with `security.anonymous` a client of the demo tenant |
//!
//! # Invariants
//!
//! - **A device's sessions are its own**: their names begin with the device's, so no other device can take them over,
//!   whatever client id it says. Checked by the cluster tests (`credentials.rs`).
//! - **Unknown, disabled and wrong look the same from outside.** Who fails five times in a minute is banned for five.
//! - **A device that is disabled, deleted, or whose credential is, leaves at once**, on whichever node. Checked by the cluster
//!   tests (`registry.rs`, `credentials.rs`).

use std::{sync::Arc, time::SystemTime};

use moorline_core::{TenantId, Text, UnixMillis};
use moorline_edge::{
    Attempt, Authenticate, Begin, Denial, Doorkeeper, FoundPsk, Identity, Proof, PskHolder,
    PskKeys, PskOffer, Verdict, watch_over,
};
use moorline_explain::{Cause, Note, Stage};
use moorline_fostrom::Mqtt;
use moorline_service::registry::{
    Registry, Watch,
    credential::prove::{Claim, Holder, Possession, Proven, Stay, Unproven},
    door::By,
    explain,
    secrets::Secrets,
};
use tokio_util::task::TaskTracker;
use tracing::info;

/// Between a device's name and its client id; no name has it.
const UNIT: char = '\u{1F}';

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Devices {
    pub(crate) registry: Registry,
    pub(crate) secrets: Option<Secrets>,
    /// Who judges devices of Fostrom.
    pub(crate) fostrom: Option<Mqtt>,
    /// Who judges clients of Watson.
    pub(crate) watson: Option<moorline_watson::Mqtt>,
    /// Who judges clients of Drogue.
    pub(crate) drogue: Option<moorline_drogue::Mqtt>,
    /// Who judges devices of Losant.
    pub(crate) losant: Option<moorline_losant::Mqtt>,
    /// Who serves devices of ThingsBoard.
    pub(crate) thingsboard: Option<moorline_thingsboard::Mqtt>,
    /// Those that watch over connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
    /// Whose client everybody else is.
    pub(crate) anonymous: Option<TenantId>,
    /// Who failed too often. Devices of Fostrom are counted at their own door.
    pub(crate) doors: Doorkeeper,
}

/// Wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn denial(unproven: Unproven) -> Denial {
    match unproven {
        Unproven::Nothing | Unproven::Wrong => Denial::BadCredentials,
        Unproven::Expired => Denial::Expired,
        Unproven::Plaintext => Denial::Plaintext,
        Unproven::Busy => Denial::Busy,
        Unproven::Unavailable => Denial::Unavailable,
    }
}

/// Why it was, for who asks later.
fn cause(denial: Denial) -> Cause {
    match denial {
        Denial::BadCredentials => Cause::WrongCredentials,
        Denial::NotAuthorised => Cause::NotAuthorised,
        Denial::Banned | Denial::BannedAsBusy => Cause::Banned,
        Denial::Expired => Cause::CredentialExpired,
        Denial::Plaintext => Cause::PlaintextForbidden,
        Denial::Busy | Denial::Crowded => Cause::CheckersBusy,
        Denial::Unavailable => Cause::AuthUnavailable,
        Denial::ClientId => Cause::ClientIdRefused,
        Denial::Version => Cause::VersionRefused,
        Denial::Unanswered => Cause::Unanswered,
    }
}

/// Whether somebody says `NAME@TENANT` and a password: if that is nobody, it is a mistake.
fn names_a_tenant(attempt: &Attempt) -> bool {
    let names = attempt.username.as_ref().is_some_and(|name| name.as_str().contains('@'));
    names && attempt.password.is_some()
}

fn possession(proof: Option<&Proof>) -> Possession {
    match proof {
        None => Possession::Nothing,
        Some(Proof::Certificates(chain)) => Possession::Certificates(Arc::clone(chain)),
        Some(Proof::Psk(holder)) => {
            let PskHolder { tenant, device, born, credential } = PskHolder::clone(holder);
            Possession::Psk(Holder { tenant, device, born, credential })
        }
    }
}

impl Devices {
    /// Judges, and remembers what came of it with the device that the client was looked up as.
    async fn judge_and_remember(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        let registry = self.registry.clone();
        let (peer, client) = (attempt.peer, attempt.client.clone());
        let (mut judged, suspect) =
            explain::suspecting(Box::pin(self.judge_unless_banned(attempt))).await;
        match (&mut judged, suspect) {
            (Ok(identity), suspect) => {
                // Nobody's device: it is known by its client id.
                let found = suspect.filter(|suspect| suspect.is_there);
                let device = found.map_or(client, |suspect| suspect.device);
                identity.trail = registry.trail(identity.tenant, &device);
                if let Some(trail) = &identity.trail {
                    let about = peer.to_string();
                    trail.add(Note::new(UnixMillis(now_ms()), Stage::Authenticate, &about));
                }
            }
            (Err(denial), Some(suspect)) => {
                // Without its port: the same over and over is one note.
                let from = peer.ip().to_canonical().to_string();
                registry.note_not_let_in(suspect, &from, cause(*denial));
            }
            (Err(_), None) => {}
        }
        judged
    }

    /// Judges who has not failed too often, so that nobody guesses for long.
    async fn judge_unless_banned(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        if let Some(drogue) = self.drogue.clone().filter(|drogue| drogue.is_meant(&attempt)) {
            // Who failed too often is counted at its door, where all that is no is one answer.
            return drogue.judge(attempt).await;
        }
        // Who names nobody is counted with all others of its address that do so.
        let from = attempt.peer.ip();
        // Watson's devices have all the same user name, and hear "not authorised" for all that is no.
        let of_watson = self.watson_of(&attempt).is_some();
        // All devices of an application of Losant's may have one key.
        let of_losant = self.losant.as_ref().is_some_and(|of| of.is_meant(&attempt));
        let who = match of_watson || of_losant {
            true => attempt.client.clone(),
            false => attempt.username.clone().unwrap_or_default(),
        };
        let doors = self.doors.clone();
        if doors.banned(&who, from, UnixMillis(now_ms())).is_some() {
            self.suspect(&who);
            explain::because(Cause::Banned);
            // Losant's hear 3 of a ban, which is the edge's word for being busy.
            return Err(if of_losant { Denial::BannedAsBusy } else { Denial::Banned });
        }
        let is_wrong = |denial| {
            denial == Denial::BadCredentials || of_watson && denial == Denial::NotAuthorised
        };
        let judged = self.judge(attempt).await;
        match &judged {
            Ok(_) => doors.succeeded(&who, from),
            Err(denial) if is_wrong(*denial) => {
                if doors.failed(&who, from, UnixMillis(now_ms())) {
                    explain::because(Cause::Banned);
                    // Not who: that may be a token.
                    info!(%from, "a client failed too often and is banned for a while");
                }
            }
            Err(_) => {}
        }
        judged
    }

    /// Who says `NAME@TENANT` and is not looked at means that device.
    fn suspect(&self, who: &Text) {
        let called = who.as_str().rsplit_once('@');
        let meant = called.and_then(|(name, tenant)| {
            Some((self.registry.tenant_by_name(tenant)?.0, Text::from(name)))
        });
        if let Some((tenant, device)) = meant {
            explain::meant(tenant, &device);
        }
    }

    fn watson_of(&self, attempt: &Attempt) -> Option<moorline_watson::Mqtt> {
        self.watson.clone().filter(|watson| watson.is_meant(attempt))
    }

    async fn judge(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        if let Some(watson) = self.watson_of(&attempt) {
            return watson.judge(attempt).await;
        }
        if let Some(losant) = &self.losant
            && let Some(judged) = losant.judge(&attempt).await
        {
            return judged;
        }
        let asking = self.thingsboard.as_ref().and_then(|of| of.asking(&attempt, &self.doors));
        if let Some(asking) = asking {
            return asking;
        }
        if let Some(fostrom) = self.fostrom.clone().filter(|_| Mqtt::is_meant(&attempt)) {
            return fostrom.judge(attempt).await;
        }
        let mut proven = self.prove(&attempt).await;
        if let (Err(Unproven::Nothing | Unproven::Wrong), Some(of)) = (&proven, &self.thingsboard)
            && of.enrol(&attempt).await
        {
            proven = self.prove(&attempt).await;
        }
        let Proven { stay, watch, who, .. } = match (proven, self.anonymous) {
            (Ok(proven), _) => proven,
            (Err(Unproven::Nothing), Some(tenant))
                if !names_a_tenant(&attempt) && !self.is_drogues(tenant) =>
            {
                return Ok(Identity::of(tenant));
            }
            (Err(unproven), _) => return Err(denial(unproven)),
        };
        let (tenant, device) = (stay.guest.tenant, &stay.guest.device);
        let session = if attempt.client == *device {
            device.clone()
        } else {
            Text::from(format!("{device}{UNIT}{}", attempt.client))
        };
        let guest = stay.guest.clone();
        if let Some(thingsboard) = &self.thingsboard {
            thingsboard.admits(&guest, &who).await?;
        }
        let mut begin = self.watching(stay, watch);
        if let Some(thingsboard) = &self.thingsboard {
            begin = match thingsboard.identity(&guest, &who, &attempt, begin) {
                Ok(identity) => return Ok(identity),
                Err(begin) => begin,
            };
        }
        if self.is_drogues(tenant) {
            // It has shown what is right in a shape that no platform of its tenant has.
            return Err(Denial::BadCredentials);
        }
        let who = Some(who);
        Ok(Identity { session: Some(session), who, begin: Some(begin), ..Identity::of(tenant) })
    }

    /// Whether only Drogue's doors lead to a tenant: its topics are not anybody's.
    fn is_drogues(&self, tenant: TenantId) -> bool {
        self.drogue.as_ref().is_some_and(|drogue| drogue.takes(tenant))
    }

    async fn prove(&self, attempt: &Attempt) -> Result<Proven, Unproven> {
        let secrets = self.secrets.as_ref().ok_or(Unproven::Nothing)?;
        let claim = Claim {
            by: By::Mqtt,
            tls: attempt.channel.tls,
            server_name: attempt.channel.server_name.as_ref(),
            client: &attempt.client,
            user: attempt.username.as_ref(),
            password: attempt.password.as_deref(),
            possession: possession(attempt.channel.proof.as_ref()),
        };
        self.registry.prove(secrets, &claim, now_ms()).await
    }

    /// Ends a connection when its device may not stay.
    fn watching(self: &Arc<Self>, stay: Stay, watch: Watch) -> Begin {
        let devices = Arc::clone(self);
        watch_over(self.tasks.clone(), move || {
            let present = devices.registry.arrive(&stay.guest);
            async move {
                let _present = present;
                let stays = || devices.registry.stays(&stay, now_ms());
                watch.until_revoked(stay.until_ms, now_ms, stays).await;
            }
        })
    }
}

/// What an edge is given: a shared [`Devices`].
#[derive(Debug, Clone)]
pub(crate) struct ByRegistry(pub(crate) Arc<Devices>);

impl Authenticate for ByRegistry {
    fn authenticate(&self, attempt: Attempt) -> Verdict {
        Box::pin(Arc::clone(&self.0).judge_and_remember(attempt))
    }

    fn method(&self) -> &'static str {
        "registry"
    }
}

impl PskKeys for ByRegistry {
    fn find(&self, identity: &[u8]) -> FoundPsk {
        let (devices, identity) = (Arc::clone(&self.0), identity.to_vec());
        Box::pin(async move {
            let secrets = devices.secrets.as_ref()?;
            let (key, holder) = devices.registry.psk(secrets, &identity, now_ms()).await?;
            let Holder { tenant, device, born, credential } = holder;
            Some(PskOffer { key, holder: PskHolder { tenant, device, born, credential } })
        })
    }
}
