//! Who may connect over MQTT: devices of the registry, and anybody where the configuration says so.
//!
//! | user name | password | who |
//! |---|---|---|
//! | `DEVICE@TENANT` | one of the device's secrets | the device, in its tenant |
//! | `FLEET::DEVICE` | the device's secret | a device of Fostrom, to which MQTT is something else |
//! | anything else, or none | | refused; with `security.anonymous` a client of the demo tenant |
//!
//! # Invariants
//!
//! - **A device's sessions are its own**: their names begin with the device's, so no other device can take them over,
//!   whatever client id it says.
//! - **Unknown, disabled and wrong look the same from outside.** Who fails five times in a minute is banned for five.
//! - **A device that is disabled, deleted, or whose credential is, leaves at once**, on whichever node. Checked by the cluster
//!   tests (`registry.rs`).

use std::{sync::Arc, time::SystemTime};

use moorline_core::{
    TenantId, Text, UnixMillis, op,
    port::{Ended, Notice},
};
use moorline_edge::{Attempt, Authenticate, Begin, Denial, Doorkeeper, Identity, Verdict};
use moorline_fostrom::Mqtt;
use moorline_service::registry::{
    RECHECK, Registry, RegistryError, Watch,
    door::{By, Guest},
    secrets::Secrets,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
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

fn denial(error: RegistryError) -> Denial {
    match error {
        RegistryError::Busy
        | RegistryError::Unavailable
        | RegistryError::TooManyReaders
        | RegistryError::DiskFull => Denial::Unavailable,
        RegistryError::Refused(_)
        | RegistryError::Taken(_)
        | RegistryError::Mail(_)
        | RegistryError::Events(_) => Denial::BadCredentials,
    }
}

impl Devices {
    /// Judges who has not failed too often, so that nobody guesses for long.
    async fn judge_unless_banned(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        // Who names nobody is counted with all others of its address that do so.
        let (who, from) = (attempt.username.clone().unwrap_or_default(), attempt.peer.ip());
        let doors = self.doors.clone();
        if doors.banned(&who, from, UnixMillis(now_ms())).is_some() {
            return Err(Denial::Banned);
        }
        let judged = self.judge(attempt).await;
        match &judged {
            Ok(_) => doors.succeeded(&who, from),
            Err(Denial::BadCredentials) => {
                if doors.failed(&who, from, UnixMillis(now_ms())) {
                    info!(%who, %from, "a client failed too often and is banned for a while");
                }
            }
            Err(_) => {}
        }
        judged
    }

    async fn judge(self: Arc<Self>, attempt: Attempt) -> Result<Identity, Denial> {
        if let Some(fostrom) = self.fostrom.clone().filter(|_| Mqtt::is_meant(&attempt)) {
            return fostrom.judge(attempt).await;
        }
        let named = attempt.username.as_ref().and_then(|name| name.as_str().rsplit_once('@'));
        let (Some((device, tenant)), Some(password)) = (named, &attempt.password) else {
            let tenant = self.anonymous.ok_or(Denial::BadCredentials)?;
            return Ok(Identity::of(tenant));
        };
        let secrets = self.secrets.as_ref().ok_or(Denial::NotAuthorised)?;
        let device = Text::from(device);
        let known = self.registry.tenant_by_name(tenant).filter(|(_, record)| record.enabled);
        let (tenant, _) = known.ok_or(Denial::BadCredentials)?;
        // Before its row is read: what changes from then on is told.
        let watch = self.registry.watch(tenant, &device);
        let record = self.registry.device(tenant, &device).await.map_err(denial)?;
        let record = record.filter(|record| record.enabled).ok_or(Denial::BadCredentials)?;
        let credential = secrets.holds(tenant, &device, &record, password, now_ms());
        let credential = credential.filter(|_| !device.as_str().starts_with('~'));
        let credential = credential.ok_or(Denial::BadCredentials)?;
        let session = if attempt.client == device {
            device.clone()
        } else {
            Text::from(format!("{device}{UNIT}{}", attempt.client))
        };
        let who = Some(self.registry.who(&device, &record));
        let guest = Guest::of(tenant, &device, &record, credential, By::Mqtt);
        let begin = self.watching(guest, watch);
        Ok(Identity { session: Some(session), who, begin: Some(begin), ..Identity::of(tenant) })
    }

    /// Ends a connection when its device may not stay.
    fn watching(self: &Arc<Self>, guest: Guest, watch: Watch) -> Begin {
        let devices = Arc::clone(self);
        Box::new(move |inbox| {
            let token = CancellationToken::new();
            let ends = token.clone();
            let tasks = devices.tasks.clone();
            let present = devices.registry.arrive(&guest);
            tasks.spawn(async move {
                let _present = present;
                tokio::select! {
                    () = token.cancelled() => {}
                    () = devices.until_revoked(&guest, &watch) => {
                        // One that takes nothing is ending anyway.
                        inbox.push(Notice::Ended(Ended::Revoked)).unwrap_or_default();
                    }
                }
            });
            ends.drop_guard()
        })
    }

    async fn until_revoked(&self, guest: &Guest, watch: &Watch) {
        loop {
            // Also without news: they may be lost with a connection between nodes.
            let heard = timeout(RECHECK, watch.heard()).await;
            if heard.is_ok_and(|heard| !heard.device) {
                continue;
            }
            match self.registry.still(guest).await {
                Ok(()) | Err(op::Denial::Unavailable) => {}
                Err(_) => return,
            }
        }
    }
}

/// What an edge is given: a shared [`Devices`].
#[derive(Debug, Clone)]
pub(crate) struct ByRegistry(pub(crate) Arc<Devices>);

impl Authenticate for ByRegistry {
    fn authenticate(&self, attempt: Attempt) -> Verdict {
        Box::pin(Arc::clone(&self.0).judge_unless_banned(attempt))
    }

    fn method(&self) -> &'static str {
        "registry"
    }
}
