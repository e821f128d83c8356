//! Mail goes: settled, taken back, purged. And what is noted of it meanwhile.

use moorline_core::{Offset, Text};
use moorline_storage::{Rows, StorageError, key::Kind};

use super::{
    Mailbox, Mailboxes,
    line::{Ring, What},
    refused,
};
use crate::{
    answer::{Answer, Refused},
    mail::{
        CancelMail, MAIL_DETAIL_BYTES_MAX, MailAnswer, MailNote, MailOp, MailRefused,
        NoteDelivered, Noted, PURGED_PER_COMMAND_MAX, PurgeMail, SettleIf, SettleMail,
    },
    rows::{
        Row, corrupt,
        mail::{MailCard, MailEndedRow, MailRow, MailboxRow},
    },
    shard::ShardState,
    step::Step,
};

fn settled(mailbox: &Mailbox, repeat: bool) -> Answer {
    let size = mailbox.row.size;
    Answer::Mail(MailAnswer::Settled { size, next: size > 0, repeat })
}

impl ShardState {
    pub(super) fn settle_if<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        settle: SettleMail,
        only: SettleIf,
    ) -> Result<Answer, StorageError> {
        let SettleIf { version, delivered } = only;
        if let Some(version) = version {
            let record = self.device(&*step.rows, settle.tenant, &settle.device)?;
            if record.is_none_or(|record| record.version != version) {
                return Ok(refused(MailRefused::DeviceChanged));
            }
        }
        self.mailboxes.settle(step, settle, delivered)
    }
}

impl Mailboxes {
    /// `delivered`: see [`SettleIf::delivered`].
    pub(super) fn settle<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        settle: SettleMail,
        delivered: bool,
    ) -> Result<Answer, StorageError> {
        let SettleMail { tenant, device, id, op, by, detail } = settle;
        if detail.len() > MAIL_DETAIL_BYTES_MAX {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        let Some(mut mailbox) = self.find(step.rows, tenant, &device)? else {
            return Ok(refused(MailRefused::NotNext { front: None }));
        };
        let front = mailbox.row.front.map(|(_, front)| front);
        if front != Some(id) {
            let repeat = mailbox.row.last == Some((id, op));
            let not_next = refused(MailRefused::NotNext { front });
            return Ok(if repeat { settled(&mailbox, true) } else { not_next });
        }
        let mut card = self.card_of(step.rows, mailbox.id, id)?;
        if delivered {
            let how = What { what: Noted::Delivered, by, detail: &Text::default() };
            card.note(step.time, &how);
            self.happened(&mailbox, id, &card, &how);
        }
        let how = |what| What { what, by, detail: &detail };
        match op {
            MailOp::Ack => self.finish(step, &mut mailbox, id, card, &how(Noted::Acked))?,
            MailOp::Reject => self.finish(step, &mut mailbox, id, card, &how(Noted::Rejected))?,
            MailOp::Requeue => {
                self.requeue(step, &mut mailbox, id, card, &how(Noted::Requeued))?;
            }
        }
        mailbox.row.last = Some((id, op));
        let answer = settled(&mailbox, false);
        self.close(step, mailbox);
        Ok(answer)
    }

    /// Puts the front behind all others, or on the dead list.
    fn requeue<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
        id: u128,
        mut card: MailCard,
        how: &What<'_>,
    ) -> Result<(), StorageError> {
        let row = step.rows.get(&self.keys.mail(mailbox.id, Offset(card.place)))?;
        let row = row.ok_or_else(|| corrupt(MailRow::WHAT, &"it is missing"))?;
        let MailRow { payload, .. } = MailRow::from_bytes(&row)?;
        self.take(step, mailbox, &card)?;
        card.note(step.time, how);
        // Stays below `u16::MAX`: that many are never too many.
        card.requeues = card.requeues.saturating_add(1);
        if card.requeues <= card.requeues_max {
            self.happened(mailbox, id, &card, how);
            self.enqueue(step, mailbox, id, card, payload);
            return Ok(());
        }
        let dead = What { what: Noted::Dead, by: how.by, detail: &Text::default() };
        card.note(step.time, &dead);
        self.happened(mailbox, id, &card, &dead);
        mailbox.row.died += 1;
        let place = (Ring::Dead, mailbox.row.died, payload);
        let replaced = self.end(step, mailbox, id, card, place, &dead)?;
        mailbox.row.dead += u32::from(!replaced);
        Ok(())
    }

    pub(super) fn note_delivered<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delivered: NoteDelivered,
    ) -> Result<Answer, StorageError> {
        let NoteDelivered { tenant, device, id, by, detail } = delivered;
        if detail.len() > MAIL_DETAIL_BYTES_MAX {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        let found = match self.find(step.rows, tenant, &device)? {
            Some(mailbox) => self.card(step.rows, mailbox.id, id)?.map(|card| (mailbox, card)),
            None => None,
        };
        let Some((mailbox, mut card)) = found else {
            return Ok(refused(MailRefused::NoSuchMail));
        };
        let how = What { what: Noted::Delivered, by, detail: &detail };
        if card.state == Noted::Queued {
            card.note(step.time, &how);
            self.happened(&mailbox, id, &card, &how);
        } else {
            // It waited somewhere while the mail ended: it stands in front of the end, and is no event any more. Whoever does not
            // know whether a settlement with this note was carried out says it again.
            let known = |note: &MailNote| (note.what, note.by) == (Noted::Delivered, by);
            if let [.., before, _] = &card.notes[..]
                && known(before)
            {
                return Ok(Answer::Done);
            }
            let end = card.notes.last().map_or(step.time, |end| end.at);
            card.note(end, &how);
            if let [.., end, late] = &mut card.notes[..] {
                std::mem::swap(end, late);
            }
        }
        step.put(self.keys.mail_by_id(mailbox.id, id), card.to_bytes());
        Ok(Answer::Done)
    }

    pub(super) fn cancel<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        cancel: &CancelMail,
    ) -> Result<Answer, StorageError> {
        let CancelMail { tenant, device, id } = cancel;
        let found = match self.find(step.rows, *tenant, device)? {
            Some(mailbox) => self.card(step.rows, mailbox.id, *id)?.map(|card| (mailbox, card)),
            None => None,
        };
        let Some((mut mailbox, card)) = found else {
            return Ok(refused(MailRefused::NoSuchMail));
        };
        match card.state {
            Noted::Queued => {
                let how = What { what: Noted::Cancelled, by: 0, detail: &Text::default() };
                self.finish(step, &mut mailbox, *id, card, &how)?;
            }
            Noted::Dead => {
                let how = What { what: Noted::Cancelled, by: 0, detail: &Text::default() };
                self.happened(&mailbox, *id, &card, &how);
                let slot = Ring::Dead.slot(card.place);
                step.delete(self.keys.mail_ended(mailbox.id, Ring::Dead as u8, slot));
                step.delete(self.keys.mail_by_id(mailbox.id, *id));
                mailbox.row.dead -= 1;
            }
            Noted::Cancelled => return Ok(settled(&mailbox, true)),
            Noted::Delivered
            | Noted::Requeued
            | Noted::Acked
            | Noted::Rejected
            | Noted::Expired
            | Noted::Purged => return Ok(refused(MailRefused::NoSuchMail)),
        }
        let answer = settled(&mailbox, false);
        self.close(step, mailbox);
        Ok(answer)
    }

    pub(super) fn purge<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        purge: &PurgeMail,
    ) -> Result<Answer, StorageError> {
        let PurgeMail { tenant, device, dead } = purge;
        let found = self.find(step.rows, *tenant, device)?;
        let there = |row: &MailboxRow| if *dead { row.dead > 0 } else { row.size > 0 };
        let Some(mut mailbox) = found.filter(|mailbox| there(&mailbox.row)) else {
            return Ok(Answer::Mail(MailAnswer::Purged { removed: 0, more: false }));
        };
        let mut removed = 0;
        if *dead {
            removed = self.purge_dead(step, &mut mailbox)?;
        } else {
            let how = What { what: Noted::Purged, by: 0, detail: &Text::default() };
            while let Some((_, id)) = mailbox.row.front
                && removed < PURGED_PER_COMMAND_MAX
            {
                let card = self.card_of(step.rows, mailbox.id, id)?;
                self.finish(step, &mut mailbox, id, card, &how)?;
                removed += 1;
            }
        }
        let more = there(&mailbox.row);
        self.close(step, mailbox);
        Ok(Answer::Mail(MailAnswer::Purged { removed, more }))
    }

    fn purge_dead<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
    ) -> Result<u32, StorageError> {
        let mut dead = Vec::new();
        let list = [Ring::Dead as u8];
        self.visit_part(step.rows, mailbox.id, Kind::MailDone, &list, &mut |mut suffix, row| {
            let ring = suffix.byte()?;
            dead.push((suffix.u16()?, MailEndedRow::from_bytes(row)?.id));
            Ok(ring == Ring::Dead as u8)
        })?;
        let how = What { what: Noted::Purged, by: 0, detail: &Text::default() };
        for (slot, id) in &dead {
            let card = self.card_of(step.rows, mailbox.id, *id)?;
            self.happened(mailbox, *id, &card, &how);
            step.delete(self.keys.mail_ended(mailbox.id, Ring::Dead as u8, *slot));
            step.delete(self.keys.mail_by_id(mailbox.id, *id));
        }
        let removed = u32::try_from(dead.len()).expect("MAIL_DEAD_KEPT fits");
        mailbox.row.dead -= removed;
        Ok(removed)
    }
}
