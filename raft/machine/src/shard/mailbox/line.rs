//! The line itself: into it at the tail, out of it from anywhere, and what is remembered of what went out.

use bytes::Bytes;
use moorline_core::{Offset, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::{Happened, Mailbox, Mailboxes};
use crate::{
    command::SessionId,
    effect::Effect,
    keys::Suffix,
    mail::{MAIL_DEAD_KEPT, MAIL_DONE_KEPT, MAIL_NOTES_MAX, MailEffect, MailNews, MailNote, Noted},
    rows::{
        Row, corrupt,
        mail::{MailCard, MailEndedRow, MailExpiryRow, MailRow},
    },
    step::Step,
};

/// What is remembered of mail that is not queued: a ring of slots each. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ring {
    Done = 0,
    Dead = 1,
}

impl Ring {
    pub(super) fn kept(self) -> u64 {
        match self {
            Self::Done => MAIL_DONE_KEPT,
            Self::Dead => MAIL_DEAD_KEPT,
        }
    }

    /// Where the mail of a number is.
    pub(super) fn slot(self, number: u64) -> u16 {
        u16::try_from(number % self.kept()).expect("a ring has fewer slots")
    }
}

/// How a mail ended, or what else happened to it.
pub(super) struct What<'a> {
    pub(super) what: Noted,
    pub(super) by: u8,
    pub(super) detail: &'a Text,
}

impl MailCard {
    pub(super) fn note(&mut self, at: UnixMillis, happened: &What<'_>) {
        if self.notes.len() >= MAIL_NOTES_MAX {
            self.notes.remove(1);
            self.notes_dropped = self.notes_dropped.saturating_add(1);
        }
        let What { what, by, detail } = *happened;
        self.notes.push(MailNote { at, what, by, detail: detail.clone() });
    }

    /// What it counts against the mailbox's limit.
    fn bytes(&self) -> u64 {
        self.name.len() as u64 + u64::from(self.payload_bytes)
    }
}

impl Mailboxes {
    /// Takes note of what is to be an event.
    pub(super) fn happened(
        &mut self,
        mailbox: &Mailbox,
        id: u128,
        card: &MailCard,
        how: &What<'_>,
    ) {
        self.tally.note(card.state, how.what);
        let (name, requeues, detail) = (card.name.clone(), card.requeues, how.detail.clone());
        self.happened.push(Happened {
            tenant: mailbox.tenant,
            device: mailbox.device.clone(),
            born: mailbox.row.born,
            what: how.what,
            by: how.by,
            news: MailNews { id, name, requeues, detail },
        });
    }

    /// Puts a mail behind all others, and its card.
    pub(super) fn enqueue<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
        id: u128,
        mut card: MailCard,
        payload: Bytes,
    ) {
        let row = &mut mailbox.row;
        let place = row.next;
        row.next = place.next();
        row.size += 1;
        row.bytes += card.bytes();
        row.front = row.front.or(Some((place, id)));
        if let Some(at) = card.expires_at {
            row.expires_at = Some(row.expires_at.map_or(at, |first| first.min(at)));
            let key = self.keys.mail_expiry(mailbox.id, at, place);
            step.put_fresh(key, MailExpiryRow(id).to_bytes());
        }
        card.place = place.0;
        step.put_fresh(self.keys.mail(mailbox.id, place), MailRow { id, payload }.to_bytes());
        step.put(self.keys.mail_by_id(mailbox.id, id), card.to_bytes());
    }

    /// Takes a mail out of the queue, its card not among it: what comes next is at the front then.
    pub(super) fn take<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
        card: &MailCard,
    ) -> Result<(), StorageError> {
        let (id, place) = (mailbox.id, Offset(card.place));
        let row = &mut mailbox.row;
        step.delete(self.keys.mail(id, place));
        row.size -= 1;
        row.bytes -= card.bytes();
        if row.front.is_some_and(|(front, _)| front == place) {
            row.front = match row.size {
                0 => None,
                _ => Some(self.first_mail(step.rows, id, place.next())?),
            };
        }
        if let Some(at) = card.expires_at {
            step.delete(self.keys.mail_expiry(id, at, place));
            if row.expires_at == Some(at) {
                row.expires_at = self.first_expiry(step.rows, id, at)?;
            }
        }
        Ok(())
    }

    /// The first mail from a place on: there is one.
    fn first_mail(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        from: Offset,
    ) -> Result<(Offset, u128), StorageError> {
        let mut first = None;
        self.visit_part(rows, id, Kind::Mail, &from.0.to_be_bytes(), &mut |mut suffix, row| {
            first = Some((Offset(suffix.u64()?), MailRow::from_bytes(row)?.id));
            Ok(false)
        })?;
        first.ok_or_else(|| corrupt(MailRow::WHAT, &"mail is missing"))
    }

    fn first_expiry(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        from: UnixMillis,
    ) -> Result<Option<UnixMillis>, StorageError> {
        let mut first = None;
        let mut visit = |mut suffix: Suffix<'_>, _: &Bytes| {
            first = Some(UnixMillis(suffix.u64()?));
            Ok(false)
        };
        self.visit_part(rows, id, Kind::MailExpiry, &from.0.to_be_bytes(), &mut visit)?;
        Ok(first)
    }

    /// Ends a queued mail: nobody gets it any more. Its card stays for a while.
    pub(super) fn finish<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
        id: u128,
        mut card: MailCard,
        how: &What<'_>,
    ) -> Result<(), StorageError> {
        self.take(step, mailbox, &card)?;
        card.note(step.time, how);
        self.happened(mailbox, id, &card, how);
        mailbox.row.finished += 1;
        let number = mailbox.row.finished;
        self.end(step, mailbox, id, card, (Ring::Done, number, Bytes::new()), how)?;
        Ok(())
    }

    /// Gives a mail that is queued no more its slot, and its card its state. Whether that took the slot from another.
    pub(super) fn end<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        mailbox: &Mailbox,
        id: u128,
        card: MailCard,
        (ring, number, payload): (Ring, u64, Bytes),
        how: &What<'_>,
    ) -> Result<bool, StorageError> {
        let key = self.keys.mail_ended(mailbox.id, ring as u8, ring.slot(number));
        let oldest = step.rows.get(&key)?.map(|row| MailEndedRow::from_bytes(&row)).transpose()?;
        if let Some(oldest) = &oldest {
            step.delete(self.keys.mail_by_id(mailbox.id, oldest.id));
        }
        step.put(key, MailEndedRow { number, id, payload }.to_bytes());
        let waited_ms = step.time.0.saturating_sub(card.created.0);
        let card = MailCard { state: how.what, place: number, ..card };
        step.put(self.keys.mail_by_id(mailbox.id, id), card.to_bytes());
        let (tenant, device) = (mailbox.tenant, mailbox.device.clone());
        let (what, by) = (how.what, how.by);
        let finished = MailEffect::Finished { tenant, device, id, what, by, waited_ms };
        step.effects.push(Effect::Mail(finished));
        Ok(oldest.is_some())
    }
}
