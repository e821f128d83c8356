//! What a device may do once it has proved who it is, whichever protocol it speaks: [`Op`]s in, answers out.
//!
//! # Invariants
//!
//! - **Who asks is the [`Guest`], never the op**: tenant and device come from the credentials alone.
//! - **A credential that is deleted lets nobody in, and nobody stay**: [`Registry::still`] reads the device's row anew. Checked
//!   by the cluster tests (`fostrom.rs`).
//! - **Disabled is said only to who knows the secret.** Checked by the same.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use moorline_core::{
    TenantId, Text,
    op::{self, Answer, Declined, Denial, Format, MailId, Op, Settlement},
    port::Refusal,
};
use moorline_machine::{
    Command, EventRefused, MailRefused,
    answer::Refused,
    events::EventKind,
    mail::{Mail, MailAnswer, MailCommand, MailOp, NoteDelivered},
    registry::{Credential, DeviceRecord},
};
use moorline_router::Done;

use super::{
    NewEvent, Registry, RegistryError, Watch,
    secrets::Secrets,
    settings::{self, DeviceSettings},
};

/// How a payload is to be read, in rows: there is none.
pub const NOTHING: u8 = 0;
/// JSON.
pub const JSON: u8 = 1;
/// Bytes.
const BYTES: u8 = 2;
/// Devices of which it is remembered which mail went out to them last, so that a device that asks again and again does not
/// write history each time. When there are more, all are forgotten: each costs one note more.
const NOTED_MAX: usize = 65_536;

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
    /// A device that proved with one of its credentials that it is the one of a record.
    #[must_use]
    pub fn of(
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
        credential: u64,
        by: By,
    ) -> Self {
        let offline_after_s = settings::read::<DeviceSettings>(&record.settings).offline_after_s;
        let (device, born) = (device.clone(), record.born);
        Self { tenant, device, born, credential, by, offline_after_s }
    }
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

/// Which mail went out to whom last.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<HashMap<(TenantId, Text), u128>>);

impl Noted {
    /// Whether this is another than last time.
    fn is_news(&self, tenant: TenantId, device: &Text, id: u128) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= NOTED_MAX {
            all.clear();
        }
        all.insert((tenant, device.clone()), id) != Some(id)
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
        },
        RegistryError::Events(refused) => match refused {
            EventRefused::TooLarge => Refusal::TooLarge.into(),
            EventRefused::DeviceGone => Denial::UnknownDevice.into(),
            EventRefused::TooManyStreams
            | EventRefused::BeyondTail { .. }
            | EventRefused::TooManyConsumers
            | EventRefused::NoSuchConsumer => Refusal::Quota.into(),
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
    ) -> Result<(Guest, Option<Watch>), Denial> {
        let Shown { alias, device, secret, by, tls } = shown;
        let known = match self.tenant_by_alias(alias) {
            // It may have been made on another node a moment ago.
            None if self.refresh().await => self.tenant_by_alias(alias),
            None => return Err(Denial::Unavailable),
            known => known,
        };
        let (tenant, of) = known.ok_or(Denial::UnknownTenant)?;
        if !tls && !self.takes_plaintext(tenant) {
            return Err(Denial::Plaintext);
        }
        // Before its row is read: what changes from then on is told.
        let watch = watched.then(|| self.watch(tenant, device));
        let record = self.device(tenant, device).await.map_err(|error| denial(&error))?;
        let record = record.ok_or(Denial::UnknownDevice)?;
        let holds = secrets.holds(tenant, device, &record, secret, now_ms);
        let credential = holds.ok_or(Denial::WrongSecret)?;
        if !record.enabled || !of.enabled {
            return Err(Denial::Disabled);
        }
        Ok((Guest::of(tenant, device, &record, credential, by), watch))
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
        let (tenant, device) = (guest.tenant, &guest.device);
        self.heard(guest);
        match op {
            Op::Heartbeat => Ok(Answer::Done),
            Op::Event(event) => {
                // On its way before anything is waited for: events of one device keep their order.
                let appended = self.append_event(tenant, device, new_event(guest, event));
                appended.await.map(|_| Answer::Done).map_err(|error| refusal(&error))
            }
            Op::CountMail => {
                let (_, size) = self.front(guest).await?;
                Ok(Answer::MailboxSize(size))
            }
            Op::FetchMail { header_only } => {
                let (mail, size) = self.front(guest).await?;
                if let Some(mail) = &mail {
                    self.note_delivered(guest, mail.id);
                }
                let mail = mail.map(mail_of).map(|mail| match header_only {
                    true => op::Mail { payload: Bytes::new(), ..mail },
                    false => mail,
                });
                Ok(Answer::Mail { size, mail })
            }
            Op::SettleMail { id, settlement } => {
                let op = match settlement {
                    Settlement::Ack => MailOp::Ack,
                    Settlement::Reject => MailOp::Reject,
                    Settlement::Requeue => MailOp::Requeue,
                };
                let settled = self.settle_mail(tenant, device, id.0, op, guest.by as u8).await;
                match settled.map_err(|error| refusal(&error))? {
                    MailAnswer::Settled { size, .. } => Ok(Answer::Settled { size: size.into() }),
                    MailAnswer::Mailed { .. } | MailAnswer::Purged { .. } => {
                        Err(Refusal::Unavailable.into())
                    }
                }
            }
        }
    }

    async fn front(&self, guest: &Guest) -> Result<(Option<Mail>, u64), Declined> {
        let front = self.next_mail(guest.tenant, &guest.device).await;
        front.map(|(mail, size)| (mail, size.into())).map_err(|error| refusal(&error))
    }

    /// Takes note in a mail's history that it went out. Nobody waits for it.
    fn note_delivered(&self, guest: &Guest, id: u128) {
        let (tenant, device) = (guest.tenant, guest.device.clone());
        if !self.inner.noted.is_news(tenant, &device, id) {
            return;
        }
        let shard = self.shard_of(tenant, &device);
        let (by, detail) = (guest.by as u8, Text::default());
        let note = MailCommand::NoteDelivered(NoteDelivered { tenant, device, id, by, detail });
        self.inner.below().router.submit(shard, &Command::Mail(note), Done::Ignore);
    }
}
