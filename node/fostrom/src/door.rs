//! Who a device is, and what it may have done: what HTTP and Moonlight share.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_core::{
    Millis, Text, UnixMillis,
    op::{Answer, Declined, Denial, Op},
};
use moorline_dialects::fostrom::identity::{Credentials, Identity};
use moorline_edge::{BanRule, Bans, Buckets, Clock, Settings, Turn};
use moorline_service::registry::{
    Registry, Watch,
    door::{Admitted, By, Guest, Shown},
    explain::{Cause, Stage, meant},
    secrets::Secrets,
};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::metrics::FostromMetrics;

/// What a fleet's tenant is called, before its id.
const ALIAS: &str = "fostrom:";
/// Devices whose connects are counted, in each generation.
const DEVICES_MAX: usize = 65_536;
/// Ten failures in five minutes, of a device id from one address, are a ban for fifteen: as Fostrom's agents expect it.
const RULE: BanRule =
    BanRule { failures_max: 10, window_ms: 5 * 60 * 1_000, ban_ms: 15 * 60 * 1_000 };

/// Where a device comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From {
    pub(crate) address: IpAddr,
    pub(crate) tls: bool,
}

/// Where devices are let in. Clones are the same.
#[derive(Debug, Clone)]
pub struct Door {
    pub(crate) registry: Registry,
    secrets: Secrets,
    clock: Clock,
    bans: Arc<Mutex<Bans<(Text, IpAddr)>>>,
    /// How often a device comes by Moonlight. MQTT's edge counts its own, and a request by HTTP is no connection.
    turns: Arc<Mutex<Buckets<Identity>>>,
    /// Which say how often that may be.
    settings: Settings,
    pub(crate) metrics: FostromMetrics,
    /// Tasks of MQTT connections; each ends with its connection.
    pub(crate) tasks: TaskTracker,
}

impl Door {
    /// A door to a registry.
    #[must_use]
    pub fn new(
        registry: Registry,
        secrets: Secrets,
        clock: Clock,
        settings: Settings,
        metrics: FostromMetrics,
    ) -> Self {
        Self {
            registry,
            secrets,
            clock,
            bans: Arc::new(Mutex::new(Bans::new(RULE))),
            turns: Arc::new(Mutex::new(Buckets::new(settings.client_rate(), DEVICES_MAX))),
            settings,
            metrics,
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.wall()
    }

    fn bans(&self) -> MutexGuard<'_, Bans<(Text, IpAddr)>> {
        // Every change is one entry.
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a device in for one request.
    pub(crate) async fn admit(
        &self,
        credentials: &Credentials,
        from: From,
        by: By,
    ) -> Result<Admitted, Denial> {
        self.judged(credentials, from, by, false).await
    }

    /// Whether a device that was let in for a request before might be again, by all that is known here: for
    /// [`run_if`](Self::run_if).
    pub(crate) fn may_return(
        &self,
        admitted: &Admitted,
        credentials: &Credentials,
        from: From,
    ) -> bool {
        let (identity, now) = (&credentials.identity, self.now());
        let who = (identity.device.clone(), from.address.to_canonical());
        self.bans().banned(&who, now).is_none()
            && self.registry.may_return(admitted, &alias_of(identity), from.tls, now.0)
    }

    /// Lets a device in that stays: with news of it from now on. By Moonlight it has to [wait for its turn](Self::wait_for_turn) then.
    pub(crate) async fn admit_to_stay(
        &self,
        credentials: &Credentials,
        from: From,
        by: By,
    ) -> Result<(Guest, Watch), Denial> {
        let Admitted { guest, watch, .. } = self.judged(credentials, from, by, true).await?;
        Ok((guest, watch.expect("it was asked for")))
    }

    /// Two connections that chase each other for one device do so no faster than this.
    pub(crate) async fn wait_for_turn(&self, identity: &Identity) -> Result<(), Denial> {
        let now = Millis(self.now().0);
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.set_rate(self.settings.client_rate());
            turns.take(identity.clone(), now)
        };
        match turn {
            Turn::Now => Ok(()),
            Turn::After(wait_ms) => {
                sleep(Duration::from_millis(wait_ms)).await;
                Ok(())
            }
            Turn::Refused => Err(Denial::TooOften),
        }
    }

    async fn judged(
        &self,
        credentials: &Credentials,
        from: From,
        by: By,
        stays: bool,
    ) -> Result<Admitted, Denial> {
        let from = From { address: from.address.to_canonical(), ..from };
        let judging = Box::pin(self.judge(credentials, from, by, stays));
        let admitted = self.registry.remembering_denial(from.address, judging).await;
        let result = match admitted {
            Ok(_) => "accepted",
            Err(Denial::Malformed) => "malformed",
            Err(Denial::UnknownTenant) => "unknown_tenant",
            Err(Denial::UnknownDevice) => "unknown_device",
            Err(Denial::WrongSecret) => "wrong_secret",
            Err(Denial::Disabled) => "disabled",
            Err(Denial::Plaintext) => "plaintext",
            Err(Denial::Banned { .. }) => "banned",
            Err(Denial::Stopping | Denial::Unavailable) => "unavailable",
            Err(Denial::TooOften) => "too_often",
        };
        self.metrics.admitted.with_label_values(&[By::name(by as u8), result]).inc();
        admitted
    }

    async fn judge(
        &self,
        credentials: &Credentials,
        from: From,
        by: By,
        stays: bool,
    ) -> Result<Admitted, Denial> {
        let From { address: from, tls } = from;
        let identity = &credentials.identity;
        let device = &identity.device;
        let who = (device.clone(), from);
        let banned = self.bans().banned(&who, self.now());
        if let Some(retry_after_s) = banned {
            if let Some((tenant, _)) = self.registry.tenant_by_alias(&alias_of(identity)) {
                meant(tenant, device);
            }
            return Err(Denial::Banned { retry_after_s });
        }
        let alias = alias_of(identity);
        let shown = Shown { alias: &alias, device, secret: credentials.secret.expose(), by, tls };
        let now = self.now();
        let admitted = self.registry.admit(&self.secrets, shown, stays, now.0).await;
        match admitted {
            Ok(_) => self.bans().succeeded(&who),
            Err(Denial::UnknownTenant | Denial::UnknownDevice | Denial::WrongSecret) => {
                if self.bans().failed(who, now) {
                    info!(fleet = %identity.fleet, %device, %from, "a device failed too often and is banned for a while");
                }
            }
            Err(_) => {}
        }
        admitted
    }

    /// Has something done for a device that was let in for another request: [`None`] if it has to be let in anew.
    pub(crate) async fn run_if(
        &self,
        admitted: &Admitted,
        op: Op,
    ) -> Option<Result<Answer, Declined>> {
        let (guest, name) = (&admitted.guest, name_of(&op));
        let outcome = self.registry.run_if(guest, admitted.version, op).await.transpose()?;
        self.metrics.admitted.with_label_values(&[By::name(guest.by as u8), "accepted"]).inc();
        self.count(guest, name, &outcome);
        Some(outcome)
    }

    /// Has something done for a device.
    pub(crate) async fn run(&self, guest: &Guest, op: Op) -> Result<Answer, Declined> {
        let name = name_of(&op);
        let about = match &op {
            Op::Event(event) => event.channel.clone(),
            Op::Heartbeat | Op::FetchMail { .. } | Op::CountMail | Op::SettleMail { .. } => {
                Text::default()
            }
        };
        let op = match self.checked(guest, op) {
            Ok(Some(op)) => op,
            // A device in the field can't mend it: it hears success, and its people see the count.
            Ok(None) => {
                self.metrics.mismatched.inc();
                let whose = (guest.tenant, &guest.device);
                let (stage, cause) = (Stage::Event, Cause::SchemaMismatch);
                self.registry.note_dropped(whose, stage, about.as_str(), cause);
                return Ok(Answer::Done);
            }
            Err(declined) => {
                let protocol = By::name(guest.by as u8);
                self.metrics.ops.with_label_values(&[protocol, name, "declined"]).inc();
                self.declined(guest, about.as_str(), &declined);
                return Err(declined);
            }
        };
        let outcome = self.registry.run(guest, op).await;
        self.count(guest, name, &outcome);
        outcome
    }

    /// Something of a device was declined before any shard heard of it.
    pub(crate) fn declined(&self, guest: &Guest, about: &str, why: &Declined) {
        let whose = (guest.tenant, &guest.device);
        self.registry.note_refused(whose, Stage::Request, about, Cause::of_declined(why));
    }

    fn count(&self, guest: &Guest, name: &str, outcome: &Result<Answer, Declined>) {
        let result = match outcome {
            Ok(_) => "done",
            Err(Declined::Refused(_)) => "refused",
            Err(Declined::Denied(_)) => "denied",
            Err(why) => {
                debug!(%why, device = %guest.device, "declined");
                "declined"
            }
        };
        self.metrics.ops.with_label_values(&[By::name(guest.by as u8), name, result]).inc();
    }

    /// An op that may be done; `None` for an event that does not match its schema.
    fn checked(&self, guest: &Guest, op: Op) -> Result<Option<Op>, Declined> {
        let Op::Event(event) = &op else { return Ok(Some(op)) };
        let settings = self.registry.settings(guest.tenant);
        let schemas = &settings.fostrom.schemas;
        if schemas.0.is_empty() {
            return Ok(Some(op));
        }
        match schemas.check(event)? {
            Ok(()) => Ok(Some(op)),
            Err(mismatch) => {
                info!(device = %guest.device, schema = %event.channel, %mismatch, "a packet was dropped");
                Ok(None)
            }
        }
    }

    /// How many mails wait; [`None`] if nobody can say.
    pub(crate) async fn mail_waits(&self, guest: &Guest) -> Option<bool> {
        match self.registry.run(guest, Op::CountMail).await {
            Ok(Answer::MailboxSize(size)) => Some(size > 0),
            _ => None,
        }
    }
}

fn alias_of(identity: &Identity) -> String {
    format!("{ALIAS}{}", identity.fleet)
}

fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Heartbeat => "heartbeat",
        Op::Event(_) => "event",
        Op::FetchMail { .. } => "fetch_mail",
        Op::CountMail => "count_mail",
        Op::SettleMail { .. } => "settle_mail",
    }
}
