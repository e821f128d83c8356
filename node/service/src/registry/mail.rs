//! Mailboxes of devices.

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_explain::{Note, Stage};
use moorline_machine::{
    Answer, Command, MailPage, MailRefused,
    answer::Refused,
    mail::{
        CancelMail, Mail, MailAnswer, MailCommand, MailInfo, MailOp, NewMail, NoteDelivered,
        PurgeMail, SendMail, SettleIf, SettleMail,
    },
    query::{Found, MailPart, Query},
    registry::DeviceRecord,
};
use uuid::Uuid;

use super::{
    Registry, RegistryError,
    audit::without_record,
    door::Guest,
    settings::{self, DeviceSettings, MailSettings},
};
use crate::rates::Rated;

/// Mails of one page of a list.
const MAILS_PER_PAGE_MAX: u16 = 100;

/// What somebody wants a device to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// A UUIDv7; the same again is a repeat.
    pub id: u128,
    /// What it is about.
    pub name: Text,
    /// See [`NewMail::content_type`].
    pub content_type: u8,
    /// What it says.
    pub payload: Bytes,
    /// Seconds it may wait; without it as long as the settings say.
    pub ttl_s: Option<u64>,
}

impl Registry {
    /// The settings that count for a device's mailbox.
    fn mail_settings(&self, tenant: TenantId, device: &DeviceRecord) -> MailSettings {
        let own = settings::read::<DeviceSettings>(&device.settings).mail;
        own.unwrap_or_else(|| self.settings(tenant).mail)
    }

    /// Puts a letter behind all others of the device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `NotFound` if there is no such device.
    pub async fn send_mail(
        &self,
        tenant: TenantId,
        device: &Text,
        letter: Letter,
    ) -> Result<MailAnswer, RegistryError> {
        self.may_mail(tenant)?;
        let Some(record) = self.device(tenant, device).await? else {
            return Err(RegistryError::Refused(Refused::NotFound));
        };
        self.send_mail_to(tenant, device, &record, letter).await
    }

    /// Takes one of the mails that a tenant may send, for who goes on by [`send_mail_to`](Self::send_mail_to).
    ///
    /// # Errors
    ///
    /// [`RegistryError::Busy`]: it has sent as many as it may in a second.
    pub fn may_mail(&self, tenant: TenantId) -> Result<(), RegistryError> {
        let may = self.inner.may_say(tenant, &[(Rated::Mails, 1)]);
        if may { Ok(()) } else { Err(RegistryError::Busy) }
    }

    /// The same to a device that was read a moment ago, without asking how many mails its tenant may send
    /// ([`may_mail`](Self::may_mail)).
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `DeviceGone` if it is gone since.
    pub async fn send_mail_to(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
        letter: Letter,
    ) -> Result<MailAnswer, RegistryError> {
        let settings = self.mail_settings(tenant, record);
        let ttl_ms = letter.ttl_s.or(settings.ttl_s).map(|seconds| seconds.saturating_mul(1_000));
        let Letter { id, name, content_type, payload, .. } = letter;
        let requeues_max = settings.requeues_max;
        let mail = NewMail { id, name, content_type, payload, ttl_ms, requeues_max };
        let (device, born) = (device.clone(), Some(record.born));
        let send = SendMail { tenant, device, mail, limits: settings.limits(), born };
        let events = self.settings(tenant).events;
        let events = events.mail.then(|| events.retention());
        self.mail(MailCommand::SendKnown(send, events)).await
    }

    /// The device is done with the mail at the front.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `MailRefused::NotNext` if another one is at the front.
    pub async fn settle_mail(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
        op: MailOp,
        by: u8,
    ) -> Result<MailAnswer, RegistryError> {
        let (device, detail) = (device.clone(), Text::default());
        self.mail(MailCommand::Settle(SettleMail { tenant, device, id, op, by, detail })).await
    }

    /// The same, as a device says so that was let in. `if_version`: see [`SettleIf::version`].
    pub(super) async fn settle_as(
        &self,
        guest: &Guest,
        id: u128,
        op: MailOp,
        if_version: Option<u64>,
    ) -> Result<MailAnswer, RegistryError> {
        let delivered = self.notes_with(guest, id);
        let only = SettleIf { version: if_version, delivered };
        let (tenant, device, by) = (guest.tenant, guest.device.clone(), guest.by as u8);
        let settle = SettleMail { tenant, device, id, op, by, detail: Text::default() };
        let settled = self.mail(MailCommand::SettleIf(settle, only)).await;
        if delivered && settled.is_err() {
            self.note_after_all(guest, id);
        }
        settled
    }

    /// Removes a mail, wherever it is in its mailbox.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn cancel_mail(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<MailAnswer, RegistryError> {
        self.mail(MailCommand::Cancel(CancelMail { tenant, device: device.clone(), id })).await
    }

    /// Empties a mailbox, or its dead list: how many were removed.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; some may be removed then.
    pub async fn purge_mail(
        &self,
        tenant: TenantId,
        device: &Text,
        dead: bool,
    ) -> Result<u64, RegistryError> {
        let mut all = 0;
        loop {
            let purge = PurgeMail { tenant, device: device.clone(), dead };
            let purged = self.mail(MailCommand::Purge(purge));
            // One record for all pieces: that of the first.
            let purged = if all > 0 { without_record(purged).await? } else { purged.await? };
            let MailAnswer::Purged { removed, more } = purged else {
                return Err(RegistryError::Unavailable);
            };
            all += u64::from(removed);
            if !more {
                return Ok(all);
            }
        }
    }

    /// The mail at the front, which stays there until it is settled; and how many wait, it included.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `DeviceChanged` if the device's row has not the version that is asked for.
    pub async fn next_mail(
        &self,
        tenant: TenantId,
        device: &Text,
        if_version: Option<u64>,
    ) -> Result<(Option<Mail>, u32), RegistryError> {
        let query = Query::Front { tenant, device: device.clone(), if_version };
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        if found == Found::Changed {
            return Err(RegistryError::Mail(MailRefused::DeviceChanged));
        }
        let Found::Front(front) = found else { return Err(RegistryError::Unavailable) };
        Ok(front.map_or((None, 0), |(mail, size)| (Some(mail), size)))
    }

    /// One mail with its state and history, and its payload as long as it has one; [`None`] if nothing is remembered of it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn mail_info(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<Option<(MailInfo, Option<Bytes>)>, RegistryError> {
        let query = Query::Mail { tenant, device: device.clone(), id };
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        let Found::Mail(mail) = found else { return Err(RegistryError::Unavailable) };
        Ok(mail)
    }

    /// A piece of a part of a mailbox: places above `after`.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn mails(
        &self,
        tenant: TenantId,
        device: &Text,
        part: MailPart,
        after: u64,
    ) -> Result<MailPage, RegistryError> {
        let device = device.clone();
        let shard = self.shard_of(tenant, &device);
        let query = Query::Mails { tenant, device, part, after, items_max: MAILS_PER_PAGE_MAX };
        let found = self.question(shard, &query).await?;
        let Found::Mails(page) = found else { return Err(RegistryError::Unavailable) };
        Ok(page)
    }

    pub(super) async fn mail(&self, command: MailCommand) -> Result<MailAnswer, RegistryError> {
        let (tenant, device) = command.mailbox();
        let shard = self.shard_of(tenant, device);
        let step = self.step(tenant, device, |at| noted(at, &command));
        let asking = async {
            let answer = self.ask(shard, Command::Mail(command)).await?;
            let Answer::Mail(answer) = answer else { return Err(RegistryError::Unavailable) };
            Ok(answer)
        };
        let answered = asking.await;
        step.answered(&answered);
        answered
    }
}

fn word(op: MailOp) -> &'static str {
    match op {
        MailOp::Ack => "acknowledged",
        MailOp::Reject => "rejected",
        MailOp::Requeue => "requeued",
    }
}

/// A command as who asks what became of a mail reads it.
fn noted(at: UnixMillis, command: &MailCommand) -> Note {
    let of = |what: &str, id: u128| {
        Note::new(at, Stage::Mail, &format!("{what} {}", Uuid::from_u128(id)))
    };
    match command {
        MailCommand::Send(SendMail { mail, .. })
        | MailCommand::SendKnown(SendMail { mail, .. }, _) => {
            let bytes = u32::try_from(mail.payload.len()).unwrap_or(u32::MAX);
            Note { bytes, ..of(&format!("sent {}", mail.name), mail.id) }
        }
        MailCommand::Settle(SettleMail { id, op, .. })
        | MailCommand::SettleIf(SettleMail { id, op, .. }, _) => of(word(*op), *id),
        MailCommand::NoteDelivered(NoteDelivered { id, .. }) => of("went out", *id),
        MailCommand::Cancel(CancelMail { id, .. }) => of("cancelled", *id),
        MailCommand::Purge(_) => Note::new(at, Stage::Mail, "purged"),
    }
}
