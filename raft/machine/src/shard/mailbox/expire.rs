//! What time does to mailboxes: mail expires, and what is left of forgotten mailboxes goes, both in pieces, by `Tick`.

use std::ops::ControlFlow;

use bytes::Bytes;
use moorline_core::{Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::{Mailbox, Mailboxes, line::What};
use crate::{
    command::SessionId,
    keys::{Suffix, each_until},
    mail::{MAIL_GARBAGE_ROWS_PER_TICK_MAX, MAIL_PER_TICK_MAX, Noted},
    rows::{
        Row, corrupt,
        mail::{MailExpiryRow, MailGarbageRow, MailboxRow},
    },
    step::Step,
};

/// Where a mailbox has rows under its number. [`MailGarbageRow::parts`] counts them: only ever added to, at the end.
const PARTS: [Kind; 4] = [Kind::Mail, Kind::MailById, Kind::MailDone, Kind::MailExpiry];
/// Bytes of a key's suffix before what [`MailGarbageRow::rest`] holds: the mailbox's number.
const NUMBER_BYTES: usize = 8;

/// Sees a row: its key from behind the mailbox's number on, and its value; says whether to go on.
pub(super) type VisitPart<'a> = dyn FnMut(Suffix<'_>, &Bytes) -> Result<bool, StorageError> + 'a;

impl Mailboxes {
    /// The rows of one kind of a mailbox, from the one whose key ends in `rest` on.
    pub(super) fn visit_part(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        kind: Kind,
        rest: &[u8],
        visit: &mut VisitPart<'_>,
    ) -> Result<(), StorageError> {
        each_until(rows, &self.keys.mail_part(id, kind, rest), |mut suffix, row| {
            suffix.u64()?;
            let goes_on = visit(suffix, row)?;
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
    }

    pub(in crate::shard) fn tick<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut left = MAIL_PER_TICK_MAX;
        while left > 0
            && let Some((at, tenant, device)) = self.expiring.first()
            && *at <= step.time
        {
            let (at, tenant, device) = (*at, *tenant, device.clone());
            let mailbox = self.find(step.rows, tenant, &device)?;
            let mailbox = mailbox.ok_or_else(|| corrupt(MailboxRow::WHAT, &"it is missing"))?;
            let expired = self.expire(step, mailbox, at, left)?;
            // What is due and not there would come up for ever.
            if expired == 0 {
                return Err(corrupt(MailExpiryRow::WHAT, &"it is missing"));
            }
            left -= expired;
        }
        self.collect_garbage(step)
    }

    /// Ends mail of one mailbox whose time is over, at most `max` of it: how many.
    fn expire<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mut mailbox: Mailbox,
        from: UnixMillis,
        max: usize,
    ) -> Result<usize, StorageError> {
        let (mut due, time, id) = (Vec::new(), step.time, mailbox.id);
        let rest = from.0.to_be_bytes();
        self.visit_part(step.rows, id, Kind::MailExpiry, &rest, &mut |mut suffix, row| {
            let is_due = UnixMillis(suffix.u64()?) <= time;
            if is_due {
                due.push(MailExpiryRow::from_bytes(row)?.0);
            }
            Ok(is_due && due.len() < max)
        })?;
        let how = What { what: Noted::Expired, by: 0, detail: &Text::default() };
        for mail in &due {
            let card = self.card_of(step.rows, id, *mail)?;
            self.finish(step, &mut mailbox, *mail, card, &how)?;
        }
        self.close(step, mailbox);
        Ok(due.len())
    }

    fn collect_garbage<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut budget = MAIL_GARBAGE_ROWS_PER_TICK_MAX;
        while let (Some((&id, row)), true) = (self.garbage.first_key_value(), budget > 0) {
            let Some(&kind) = PARTS.get(usize::from(row.parts)) else {
                self.garbage.remove(&id);
                step.delete(self.keys.mail_garbage(id));
                continue;
            };
            let (parts, (from, to)) = (row.parts, self.keys.mail_part(id, kind, &row.rest));
            let mut keys = Vec::new();
            step.rows.scan(&from, &to, &mut |key, _| {
                keys.push(Bytes::copy_from_slice(key));
                let more = keys.len() < budget;
                if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            // A part without rows counts too, so that many of them end.
            let next = match keys.last() {
                Some(last) if keys.len() >= budget => {
                    let rest = moorline_storage::key::suffix(last)?;
                    let rest = Bytes::copy_from_slice(&rest[NUMBER_BYTES..]);
                    MailGarbageRow { parts, rest }
                }
                Some(_) | None => MailGarbageRow { parts: parts + 1, rest: Bytes::new() },
            };
            budget -= keys.len().max(1);
            keys.into_iter().for_each(|key| step.delete(key));
            step.put(self.keys.mail_garbage(id), next.to_bytes());
            self.garbage.insert(id, next);
        }
        Ok(())
    }
}
