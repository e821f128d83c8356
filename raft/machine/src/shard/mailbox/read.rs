//! What is asked of mailboxes. Nothing here changes anything: the mail at the front stays there until it is settled.

use bytes::Bytes;
use moorline_core::{Offset, TenantId, Text};
use moorline_storage::{StorageError, View, key::Kind};

use super::{Mailbox, Mailboxes, line::Ring};
use crate::{
    mail::{Mail, MailCounts, MailInfo, MailboxInfo, Noted},
    rows::{
        Row, corrupt,
        mail::{MailCard, MailEndedRow, MailRow},
    },
};

/// A piece of a list of mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailPage {
    /// By ascending place.
    pub mails: Vec<MailInfo>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

impl Mailboxes {
    /// The mail at the front, and how many are queued, this one included. The same one until it is settled, expires or is
    /// removed; it may have expired in log time and wait for the next `Tick`.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn front(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<(Mail, u32)>, StorageError> {
        let known = self.known.get(&tenant).is_some_and(|devices| devices.contains_key(device));
        let found = if known { self.find(rows, tenant, device)? } else { None };
        let Some(mailbox) = found else { return Ok(None) };
        let Some((_, id)) = mailbox.row.front else { return Ok(None) };
        let card = self.card_of(rows, mailbox.id, id)?;
        Ok(Some((self.whole(rows, &mailbox, id, card)?, mailbox.row.size)))
    }

    /// A mailbox, as long as there is one: it stays when it is empty, until it is forgotten.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn mailbox(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<MailboxInfo>, StorageError> {
        Ok(self.row(rows, tenant, device)?.map(|row| MailboxInfo {
            size: row.size,
            bytes: row.bytes,
            front: row.front.map(|(_, id)| id),
            dead: row.dead,
            finished: row.finished,
            version: row.version,
        }))
    }

    /// How many mails are queued. Reads no row.
    #[must_use]
    pub fn size(&self, tenant: TenantId, device: &Text) -> u32 {
        let row = self.known.get(&tenant).and_then(|devices| devices.get(device));
        row.map_or(0, |row| row.size)
    }

    /// The id of the mail at the front. Reads no row.
    #[must_use]
    pub fn front_id(&self, tenant: TenantId, device: &Text) -> Option<u128> {
        let row = self.known.get(&tenant).and_then(|devices| devices.get(device))?;
        row.front.map(|(_, id)| id)
    }

    /// What is known of a mail, wherever it is: also of the last [`crate::MAIL_DONE_KEPT`] that ended.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn mail(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<Option<MailInfo>, StorageError> {
        let Some(mailbox) = self.find(rows, tenant, device)? else { return Ok(None) };
        Ok(self.card(rows, mailbox.id, id)?.map(|card| info(id, card)))
    }

    /// A mail with its payload, as long as it has one: while it is queued, or dead.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn payload(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<Option<Mail>, StorageError> {
        let Some(mailbox) = self.find(rows, tenant, device)? else { return Ok(None) };
        match self.card(rows, mailbox.id, id)? {
            Some(card) if matches!(card.state, Noted::Queued | Noted::Dead) => {
                self.whole(rows, &mailbox, id, card).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Mails that are queued, those with a place above `after`: at most `max`.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn queued(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        after: u64,
        max: usize,
    ) -> Result<MailPage, StorageError> {
        let Some(mailbox) = self.find(rows, tenant, device)? else {
            return Ok(MailPage::default());
        };
        let Some((front, _)) = mailbox.row.front else { return Ok(MailPage::default()) };
        let from = after.saturating_add(1).max(front.0).to_be_bytes();
        let (mut ids, mut more) = (Vec::new(), false);
        self.visit_part(rows, mailbox.id, Kind::Mail, &from, &mut |_, row| {
            more = ids.len() >= max;
            if !more {
                ids.push(MailRow::from_bytes(row)?.id);
            }
            Ok(!more)
        })?;
        let card = |id| Ok(info(id, self.card_of(rows, mailbox.id, id)?));
        let mails = ids.into_iter().map(card).collect::<Result<_, StorageError>>()?;
        Ok(MailPage { mails, more })
    }

    /// Mails that were requeued too often, those with a place above `after`: at most `max`.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn dead(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        after: u64,
        max: usize,
    ) -> Result<MailPage, StorageError> {
        self.ring(rows, (tenant, device), Ring::Dead, after, max)
    }

    /// Mails that ended and are remembered, those with a place above `after`: at most `max`.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn done(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        after: u64,
        max: usize,
    ) -> Result<MailPage, StorageError> {
        self.ring(rows, (tenant, device), Ring::Done, after, max)
    }

    fn ring(
        &self,
        rows: &(impl View + ?Sized),
        (tenant, device): (TenantId, &Text),
        ring: Ring,
        after: u64,
        max: usize,
    ) -> Result<MailPage, StorageError> {
        let mut page = MailPage::default();
        let Some(mailbox) = self.find(rows, tenant, device)? else { return Ok(page) };
        let last = match ring {
            Ring::Done => mailbox.row.finished,
            Ring::Dead => mailbox.row.died,
        };
        let first = after.max(last.saturating_sub(ring.kept())).saturating_add(1);
        for number in first..=last {
            // Some of the dead were cancelled or purged.
            let Some(row) = self.ended(rows, &mailbox, ring, number)? else { continue };
            if page.mails.len() >= max {
                page.more = true;
                break;
            }
            page.mails.push(info(row.id, self.card_of(rows, mailbox.id, row.id)?));
        }
        Ok(page)
    }

    fn ended(
        &self,
        rows: &(impl View + ?Sized),
        mailbox: &Mailbox,
        ring: Ring,
        number: u64,
    ) -> Result<Option<MailEndedRow>, StorageError> {
        let row = rows.get(&self.keys.mail_ended(mailbox.id, ring as u8, ring.slot(number)))?;
        let row = row.map(|row| MailEndedRow::from_bytes(&row)).transpose()?;
        Ok(row.filter(|row| row.number == number))
    }

    /// A mail that is queued or dead, with its payload.
    fn whole(
        &self,
        rows: &(impl View + ?Sized),
        mailbox: &Mailbox,
        id: u128,
        card: MailCard,
    ) -> Result<Mail, StorageError> {
        let payload: Option<Bytes> = if card.state == Noted::Dead {
            self.ended(rows, mailbox, Ring::Dead, card.place)?.map(|row| row.payload)
        } else {
            let row = rows.get(&self.keys.mail(mailbox.id, Offset(card.place)))?;
            row.map(|row| MailRow::from_bytes(&row)).transpose()?.map(|row| row.payload)
        };
        let payload = payload.ok_or_else(|| corrupt(MailRow::WHAT, &"it is missing"))?;
        let MailCard { name, content_type, created, expires_at, requeues, .. } = card;
        Ok(Mail { id, name, content_type, payload, created, expires_at, requeues })
    }

    /// How much mail of a tenant there is in this shard.
    #[must_use]
    pub fn counts(&self, tenant: TenantId) -> MailCounts {
        self.counts.get(&tenant).copied().unwrap_or_default()
    }

    /// The same for each tenant that has some, by ascending id.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantId, MailCounts)> {
        self.counts.iter().map(|(tenant, counts)| (*tenant, *counts))
    }

    /// Devices with mail, of all tenants, and how much: for a new leader, who tells those that are connected.
    pub fn waiting(&self) -> impl Iterator<Item = (TenantId, &Text, u32)> {
        self.known.iter().flat_map(|(tenant, devices)| {
            devices.iter().map(|(device, row)| (*tenant, device, row.size))
        })
    }
}

fn info(id: u128, card: MailCard) -> MailInfo {
    MailInfo {
        id,
        state: card.state,
        place: card.place,
        name: card.name,
        content_type: card.content_type,
        payload_bytes: card.payload_bytes,
        created: card.created,
        expires_at: card.expires_at,
        requeues: card.requeues,
        requeues_max: card.requeues_max,
        notes: card.notes,
        notes_dropped: card.notes_dropped,
    }
}
