//! What a device may do once it has proved who it is, whichever protocol it speaks: [`Op`]s in, answers out.
//!
//! # Invariants
//!
//! - **Who asks is the [`Guest`], never the op**: tenant and device come from the credentials alone.
//! - **A credential that is deleted lets nobody in, and nobody stay**: [`Registry::still`] reads the device's row anew. Checked
//!   by the cluster tests (`fostrom.rs`).
//! - **Disabled is said only to who knows the secret.** Checked by the same.

use std::fmt;

use bytes::Bytes;
use moorline_core::{
    TenantId, Text,
    op::{self, Answer, Declined, Denial, Format, MailId, Op, Settlement},
    port::Refusal,
};
use moorline_explain::Cause;
use moorline_machine::{
    CallRefused, DocumentRefused, EventRefused, MailRefused, ValueRefused,
    answer::Refused,
    events::EventKind,
    mail::{Mail, MailAnswer, MailOp},
    registry::{Credential, DeviceRecord, TenantRecord},
};

use super::{
    NewEvent, Registry, RegistryError, Watch,
    credential::{
        certificate::{self, Called},
        prove::Chain,
    },
    explain::{because, meant},
    secrets::Secrets,
    settings::{self, DeviceSettings},
};

/// How a payload is to be read, in rows: there is none.
pub const NOTHING: u8 = 0;
/// JSON.
pub const JSON: u8 = 1;
/// Bytes.
pub const BYTES: u8 = 2;
/// The credential of a device that is named by a certificate of its tenant's authorities: no credential of its own.
pub const BY_AUTHORITY: u64 = 0;

/// By which protocol something was done. Rows hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum By {
    /// The API of the cluster.
    Api = 0,
    /// MQTT.
    Mqtt = 1,
    /// HTTP.
    Http = 2,
    /// Moonlight.
    Moonlight = 3,
}

impl By {
    /// Its name, for eyes; `cluster` for numbers that nobody has.
    #[must_use]
    pub fn name(number: u8) -> &'static str {
        match number {
            0 => "api",
            1 => "mqtt",
            2 => "http",
            3 => "moonlight",
            _ => "cluster",
        }
    }
}

/// A device that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// Which device of that name.
    pub born: u64,
    /// What it proved it with.
    pub credential: u64,
    /// How it came.
    pub by: By,
    /// Silent for so many seconds, it is offline; without it as its tenant says.
    pub offline_after_s: Option<u32>,
}

impl Guest {
    /// A device that proved with one of its credentials, by a protocol, that it is the one of a record with these settings.
    #[must_use]
    pub fn of(
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
        settings: &DeviceSettings,
        (credential, by): (u64, By),
    ) -> Self {
        let offline_after_s = settings.offline_after_s;
        let (device, born) = (device.clone(), record.born);
        Self { tenant, device, born, credential, by, offline_after_s }
    }
}

/// A device that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Who it is.
    pub guest: Guest,
    /// The version of its row that says so.
    pub version: u64,
    /// What else that row says, as it is stored.
    pub settings: Bytes,
    /// Until when its credential counts, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// News of it, if that was asked for.
    pub watch: Option<Watch>,
}

/// What a device shows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// What its platform calls the tenant.
    pub alias: &'a str,
    /// Its name there.
    pub device: &'a Text,
    /// What it proves that with.
    pub secret: &'a [u8],
    /// How it comes.
    pub by: By,
    /// Whether it comes by TLS.
    pub tls: bool,
}

/// What a device shows of itself that has a certificate of one of its tenant's authorities.
pub struct Certified<'a> {
    /// What its platform calls the tenant.
    pub alias: &'a str,
    /// Its name there.
    pub device: &'a Text,
    /// What TLS proved that it has the key of.
    pub chain: &'a Chain,
    /// Whether what an authority calls it is this device, by the platform's rules.
    pub is_it: &'a (dyn Fn(&Called) -> bool + Sync),
    /// How it comes.
    pub by: By,
}

impl fmt::Debug for Certified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certified").field("device", &self.device).finish_non_exhaustive()
    }
}

fn refusal(error: &RegistryError) -> Declined {
    match error {
        RegistryError::Busy => Refusal::Busy.into(),
        RegistryError::Unavailable | RegistryError::Taken(_) => Refusal::Unavailable.into(),
        RegistryError::Refused(Refused::NotFound) => Denial::UnknownDevice.into(),
        RegistryError::Refused(_) => Refusal::Quota.into(),
        RegistryError::Mail(refused) => match refused {
            MailRefused::Full | MailRefused::TooManyMailboxes => Refusal::Quota.into(),
            MailRefused::TooLarge => Refusal::TooLarge.into(),
            MailRefused::NotNext { .. } => Declined::NotNextMail,
            MailRefused::NoSuchMail => Declined::UnknownMail,
            MailRefused::DeviceGone => Denial::UnknownDevice.into(),
            // Asked again, it is another version that is asked for.
            MailRefused::DeviceChanged => Refusal::Unavailable.into(),
        },
        RegistryError::Events(refused) => match refused {
            EventRefused::TooLarge => Refusal::TooLarge.into(),
            EventRefused::DeviceGone => Denial::UnknownDevice.into(),
            EventRefused::TooManyStreams
            | EventRefused::BeyondTail { .. }
            | EventRefused::TooManyConsumers
            | EventRefused::NoSuchConsumer => Refusal::Quota.into(),
        },
        RegistryError::Values(refused) => match refused {
            ValueRefused::Key | ValueRefused::TooLarge | ValueRefused::TooManyAtOnce => {
                Refusal::TooLarge.into()
            }
            ValueRefused::DeviceGone => Denial::UnknownDevice.into(),
            ValueRefused::TooManyKeys | ValueRefused::Full | ValueRefused::TooManyHistories => {
                Refusal::Quota.into()
            }
        },
        RegistryError::Calls(refused) => match refused {
            CallRefused::TooLarge => Refusal::TooLarge.into(),
            CallRefused::DeviceGone => Denial::UnknownDevice.into(),
            CallRefused::Full | CallRefused::TooManyCalls => Refusal::Quota.into(),
            // A device that answers too late has nothing to mend.
            CallRefused::Expired | CallRefused::NoSuchCall => Refusal::Unavailable.into(),
        },
        RegistryError::Documents(refused) => match refused {
            DocumentRefused::TooLarge | DocumentRefused::BadName => Refusal::TooLarge.into(),
            DocumentRefused::DeviceGone => Denial::UnknownDevice.into(),
            DocumentRefused::Full => Refusal::Quota.into(),
            // Somebody else was faster: the same again may do.
            DocumentRefused::Conflict { .. } => Refusal::Busy.into(),
        },
        RegistryError::TooManyReaders => Refusal::Busy.into(),
        RegistryError::DiskFull => Refusal::DiskFull.into(),
    }
}

fn denial(error: &RegistryError) -> Denial {
    if let Declined::Denied(denial) = refusal(error) { denial } else { Denial::Unavailable }
}

fn new_event(guest: &Guest, event: op::Event) -> NewEvent {
    let op::Event { kind, channel, format, body } = event;
    let kind = match kind {
        op::EventKind::Datapoint => EventKind::Datapoint,
        op::EventKind::Message => EventKind::Message,
        op::EventKind::System => EventKind::System,
    };
    let content_type = match format {
        _ if body.is_empty() => NOTHING,
        Format::Json => JSON,
        Format::MsgPack => BYTES,
    };
    NewEvent { born: Some(guest.born), kind, channel, content_type, body, by: guest.by as u8 }
}

fn mail_of(mail: Mail) -> op::Mail {
    let Mail { id, name, content_type, payload, .. } = mail;
    let payload = if content_type == NOTHING { Bytes::new() } else { payload };
    op::Mail { id: MailId(id), name, format: Format::Json, payload }
}

impl Registry {
    /// Lets a device in that shows one of its secrets. `watched`: with news of it from now on.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn admit(
        &self,
        secrets: &Secrets,
        shown: Shown<'_>,
        watched: bool,
        now_ms: u64,
    ) -> Result<Admitted, Denial> {
        let Shown { alias, device, secret, by, tls } = shown;
        let (tenant, of) = self.tenant_meant(alias).await?;
        meant(tenant, device);
        if !tls && !self.takes_plaintext(tenant) {
            return Err(Denial::Plaintext);
        }
        // Before its row is read: what changes from then on is told.
        let watch = watched.then(|| self.watch(tenant, device));
        let record = self.device(tenant, device).await.map_err(|error| denial(&error))?;
        let record = record.ok_or(Denial::UnknownDevice)?;
        let held = secrets.holds(tenant, device, &record, secret, now_ms);
        if held.is_none() && record.credentials.is_empty() {
            because(Cause::NoCredential);
        }
        let held = held.ok_or(Denial::WrongSecret)?;
        if !record.enabled || !of.enabled {
            return Err(Denial::Disabled);
        }
        let settings = settings::read(&record.settings);
        let guest = Guest::of(tenant, device, &record, &settings, (held.id, by));
        let until_ms = held.not_after.map(|until| until.0);
        Ok(Admitted { guest, version: record.version, settings: record.settings, until_ms, watch })
    }

    /// The tenant of an alias.
    ///
    /// # Errors
    ///
    /// There is none, or nobody can say.
    pub async fn tenant_meant(&self, alias: &str) -> Result<(TenantId, TenantRecord), Denial> {
        let known = match self.tenant_by_alias(alias) {
            // It may have been made on another node a moment ago.
            None if self.refresh().await => self.tenant_by_alias(alias),
            None => return Err(Denial::Unavailable),
            known => known,
        };
        known.ok_or(Denial::UnknownTenant)
    }

    /// Lets a device in that has a certificate of one of its tenant's authorities, with news of it from now on.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn admit_certified(
        &self,
        certified: Certified<'_>,
        now_ms: u64,
    ) -> Result<Admitted, Denial> {
        let Certified { alias, device, chain, is_it, by } = certified;
        let (tenant, of) = self.tenant_meant(alias).await?;
        let watch = Some(self.watch(tenant, device));
        let record = self.device(tenant, device).await.map_err(|error| denial(&error))?;
        let record = record.ok_or(Denial::UnknownDevice)?;
        self.vouched(tenant, chain, now_ms)
            .filter(|called| is_it(called))
            .ok_or(Denial::WrongSecret)?;
        if !record.enabled || !of.enabled {
            return Err(Denial::Disabled);
        }
        let settings = settings::read(&record.settings);
        let guest = Guest::of(tenant, device, &record, &settings, (BY_AUTHORITY, by));
        let until = chain.first().and_then(certificate::validity);
        let until_ms = until.map(|(_, until)| until.0);
        Ok(Admitted { guest, version: record.version, settings: record.settings, until_ms, watch })
    }

    /// What one of a tenant's authorities calls the owner of a chain; [`None`] if none of them vouches for it now.
    #[must_use]
    pub fn vouched(&self, tenant: TenantId, chain: &Chain, now_ms: u64) -> Option<Called> {
        self.settings(tenant).trust_anchors.called(chain, now_ms)
    }

    /// Whether a device that was let in before might be again, by all that is known here. Whether its row is still the one that
    /// let it in is for [`run_if`](Self::run_if).
    #[must_use]
    pub fn may_return(&self, admitted: &Admitted, alias: &str, tls: bool, now_ms: u64) -> bool {
        let tenant = admitted.guest.tenant;
        let known = self.tenant_by_alias(alias);
        known.is_some_and(|(id, of)| id == tenant && of.enabled)
            && (tls || self.takes_plaintext(tenant))
            && admitted.until_ms.is_none_or(|until| now_ms < until)
    }

    /// Whether a device that was let in may stay.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn still(&self, guest: &Guest) -> Result<(), Denial> {
        let record =
            self.device(guest.tenant, &guest.device).await.map_err(|error| denial(&error))?;
        let record = record.filter(|record| record.born == guest.born);
        let record = record.ok_or(Denial::UnknownDevice)?;
        let held = |held: &Credential| held.id == guest.credential;
        if guest.credential != BY_AUTHORITY && !record.credentials.iter().any(held) {
            return Err(Denial::WrongSecret);
        }
        let enabled = self.tenant(guest.tenant).is_some_and(|tenant| tenant.enabled);
        if record.enabled && enabled { Ok(()) } else { Err(Denial::Disabled) }
    }

    /// Has something done for a device.
    ///
    /// # Errors
    ///
    /// Why it was not done.
    pub async fn run(&self, guest: &Guest, op: Op) -> Result<Answer, Declined> {
        self.heard(guest);
        self.done(guest, op, None).await.map_err(|error| refusal(&error))
    }

    /// The same about its mail, for a device that is not told of changes: only if its row has still the version that let it in,
    /// asked along with the rest. [`None`]: it has another, or this is about something else than its mail; nothing was done.
    ///
    /// # Errors
    ///
    /// Why it was not done.
    pub async fn run_if(
        &self,
        guest: &Guest,
        version: u64,
        op: Op,
    ) -> Result<Option<Answer>, Declined> {
        if !is_about_mail(&op) {
            return Ok(None);
        }
        match self.done(guest, op, Some(version)).await {
            Ok(answer) => {
                self.heard(guest);
                Ok(Some(answer))
            }
            Err(RegistryError::Mail(MailRefused::DeviceChanged)) => Ok(None),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn done(
        &self,
        guest: &Guest,
        op: Op,
        if_version: Option<u64>,
    ) -> Result<Answer, RegistryError> {
        let (tenant, device) = (guest.tenant, &guest.device);
        match op {
            Op::Heartbeat => Ok(Answer::Done),
            Op::Event(event) => {
                // On its way before anything is waited for: events of one device keep their order.
                self.append_event(tenant, device, new_event(guest, event)).await?;
                Ok(Answer::Done)
            }
            Op::CountMail => {
                let (_, size) = self.next_mail(tenant, device, if_version).await?;
                Ok(Answer::MailboxSize(size.into()))
            }
            Op::FetchMail { header_only } => {
                let (mail, size) = self.next_mail(tenant, device, if_version).await?;
                if let Some(mail) = &mail {
                    self.note_delivered(guest, mail.id);
                }
                let mail = mail.map(mail_of).map(|mail| match header_only {
                    true => op::Mail { payload: Bytes::new(), ..mail },
                    false => mail,
                });
                Ok(Answer::Mail { size: size.into(), mail })
            }
            Op::SettleMail { id, settlement } => {
                let op = match settlement {
                    Settlement::Ack => MailOp::Ack,
                    Settlement::Reject => MailOp::Reject,
                    Settlement::Requeue => MailOp::Requeue,
                };
                match self.settle_as(guest, id.0, op, if_version).await? {
                    MailAnswer::Settled { size, .. } => Ok(Answer::Settled { size: size.into() }),
                    MailAnswer::Mailed { .. } | MailAnswer::Purged { .. } => {
                        Err(RegistryError::Unavailable)
                    }
                }
            }
        }
    }
}

fn is_about_mail(op: &Op) -> bool {
    match op {
        Op::CountMail | Op::FetchMail { .. } | Op::SettleMail { .. } => true,
        Op::Heartbeat | Op::Event(_) => false,
    }
}
