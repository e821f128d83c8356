//! Mailboxes: one for each device that was ever sent mail, in the bucket of (tenant, device).
//!
//! ```text
//!   Mailbox (tenant, device)          how much, which mail is at the front, when the first expires
//!   Mail (mailbox, place)             id and payload, in order of place
//!   MailById (mailbox, id)            the card: state and history, all but the payload
//!   MailExpiry (mailbox, due, place)  of those that expire
//!   MailDone (mailbox, list, slot)    two rings: those that ended, and the dead
//!
//!   send.rs     mail comes in; mailboxes come and go
//!   settle.rs   mail goes: settle, cancel, purge; notes
//!   line.rs     the line itself, and the two rings
//!   expire.rs   what time does: expiries, pieces of forgotten mailboxes
//!   read.rs     what is asked
//!   (here)      the state, how it is derived from rows, opening and closing a mailbox around a change
//! ```
//!
//! A settlement reads the card and the next place, and writes the mailbox, the card, a slot and, in the end, the end of what
//! was in the slot before: no payload moves, unless the mail is requeued.
//!
//! # Invariants
//!
//! - **Strict order, one outstanding.** Only the front can be settled; places only grow, so a requeued mail is behind all
//!   others. Checked by `tests/rules/mail_model.rs`.
//! - **One card for each mail, and one row where its card says it is.** Checked by the same test after each command.
//! - **What memory holds is the row of each mailbox that is not empty**, and sums of all. Checked by
//!   [`Mailboxes::assert_same`].
//! - **Whatever happens to a mail is one event**, in the same step, where the tenant wants events. Checked by
//!   `tests/rules/mail_events.rs`.
//! - **Ready is said whenever another mail is at the front.** Only [`Mailboxes::close`] says it.
//!
//! # Deliberately absent
//!
//! Whether there is such a device (the registry's rows), to whom it is connected and what it is told (`node/service`).

mod expire;
mod line;
mod read;
mod send;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_storage::{Rows, StorageError, View, key::Kind};

pub use self::read::MailPage;
use super::{ShardState, tally::MailTally};
use crate::{
    answer::{Answer, Refused},
    command::SessionId,
    effect::Effect,
    events::{AppendEvent, EventKind, NEWS, NewEvent},
    keys::{Keys, each},
    mail::{MailCommand, MailCounts, MailEffect, MailNews, MailRefused, Noted},
    rows::{
        Row, corrupt,
        mail::{MailCard, MailGarbageRow, MailboxRow},
    },
    step::Step,
};

/// What a shard knows of mail without reading rows.
#[derive(Debug, PartialEq)]
pub struct Mailboxes {
    keys: Keys,
    /// Those that are not empty.
    known: BTreeMap<TenantId, BTreeMap<Text, MailboxRow>>,
    /// How many that are.
    len: usize,
    /// Those with mail that will expire, by when the first does.
    expiring: BTreeSet<(UnixMillis, TenantId, Text)>,
    /// Those that were forgotten.
    garbage: BTreeMap<SessionId, MailGarbageRow>,
    counts: BTreeMap<TenantId, MailCounts>,
    /// What happened in this step, and is not among the events yet.
    happened: Vec<Happened>,
    tally: MailTally,
}

/// Something that happened to a mail.
#[derive(Debug, PartialEq)]
struct Happened {
    tenant: TenantId,
    device: Text,
    born: u64,
    what: Noted,
    by: u8,
    news: MailNews,
}

/// A mailbox while it is being changed: between [`Mailboxes::find`] and [`Mailboxes::close`].
#[derive(Debug)]
struct Mailbox {
    tenant: TenantId,
    device: Text,
    id: SessionId,
    /// As rows and memory have it; `None` if it is new.
    before: Option<MailboxRow>,
    row: MailboxRow,
}

impl Mailboxes {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            known: BTreeMap::new(),
            len: 0,
            expiring: BTreeSet::new(),
            garbage: BTreeMap::new(),
            counts: BTreeMap::new(),
            happened: Vec::new(),
            tally: MailTally::default(),
        }
    }

    pub(super) fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        let keys = self.keys;
        each(rows, &keys.range_in(bucket, Kind::Mailbox), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            self.insert(tenant, suffix.text()?, MailboxRow::from_bytes(row)?);
            Ok(())
        })?;
        each(rows, &keys.range_in(bucket, Kind::MailGarbage), |mut suffix, row| {
            let id = SessionId { bucket, number: suffix.u64()? };
            self.garbage.insert(id, MailGarbageRow::from_bytes(row)?);
            Ok(())
        })
    }

    /// Takes a mailbox into memory, if it is not empty, and into the sums.
    fn insert(&mut self, tenant: TenantId, device: Text, row: MailboxRow) {
        let counts = self.counts.entry(tenant).or_default();
        counts.mailboxes += u64::from(row.size > 0);
        counts.mails += u64::from(row.size);
        counts.bytes += row.bytes;
        counts.dead += u64::from(row.dead);
        if *counts == MailCounts::default() {
            self.counts.remove(&tenant);
        }
        if row.size == 0 {
            return;
        }
        if let Some(at) = row.expires_at {
            self.expiring.insert((at, tenant, device.clone()));
        }
        self.len += 1;
        self.known.entry(tenant).or_default().insert(device, row);
    }

    /// The reverse of [`Self::insert`].
    fn remove(&mut self, tenant: TenantId, device: &Text, row: &MailboxRow) {
        if let Some(counts) = self.counts.get_mut(&tenant) {
            counts.mailboxes -= u64::from(row.size > 0);
            counts.mails -= u64::from(row.size);
            counts.bytes -= row.bytes;
            counts.dead -= u64::from(row.dead);
            if *counts == MailCounts::default() {
                self.counts.remove(&tenant);
            }
        }
        if row.size == 0 {
            return;
        }
        if let Some(at) = row.expires_at {
            self.expiring.remove(&(at, tenant, device.clone()));
        }
        self.len -= 1;
        let devices = self.known.get_mut(&tenant).expect("what is not empty is known");
        devices.remove(device);
        if devices.is_empty() {
            self.known.remove(&tenant);
        }
    }

    fn row(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<MailboxRow>, StorageError> {
        if let Some(row) = self.known.get(&tenant).and_then(|devices| devices.get(device)) {
            return Ok(Some(*row));
        }
        let bucket = bucket_of(tenant, device.as_bytes());
        let row = rows.get(&self.keys.mailbox(bucket, tenant, device))?;
        row.map(|row| MailboxRow::from_bytes(&row)).transpose()
    }

    fn find(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<Mailbox>, StorageError> {
        let Some(row) = self.row(rows, tenant, device)? else { return Ok(None) };
        // A copy: the text is a slice of the whole log entry.
        let device = Text::from(device.as_str());
        let id = SessionId { bucket: bucket_of(tenant, device.as_bytes()), number: row.number };
        Ok(Some(Mailbox { tenant, device, id, before: Some(row), row }))
    }

    /// Writes what was changed, in rows and in memory, and says whether another mail is at the front.
    fn close<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, mailbox: Mailbox) {
        let Mailbox { tenant, device, id, before, mut row } = mailbox;
        assert_eq!(row.size > 0, row.front.is_some(), "the front of {device:?}");
        row.version = step.version();
        step.put(self.keys.mailbox(id.bucket, tenant, &device), row.to_bytes());
        if let Some(before) = &before {
            self.remove(tenant, &device, before);
        }
        self.insert(tenant, device.clone(), row);
        if row.front.is_some() && row.front != before.and_then(|before| before.front) {
            let ready = MailEffect::Ready { tenant, device, size: row.size };
            step.effects.push(Effect::Mail(ready));
        }
    }

    /// The card of a mail.
    fn card(
        &self,
        rows: &(impl View + ?Sized),
        mailbox: SessionId,
        id: u128,
    ) -> Result<Option<MailCard>, StorageError> {
        let row = rows.get(&self.keys.mail_by_id(mailbox, id))?;
        row.map(|row| MailCard::from_bytes(&row)).transpose()
    }

    /// The card of a mail that some row names.
    fn card_of(
        &self,
        rows: &(impl View + ?Sized),
        mailbox: SessionId,
        id: u128,
    ) -> Result<MailCard, StorageError> {
        let card = self.card(rows, mailbox, id)?;
        card.ok_or_else(|| corrupt(MailCard::WHAT, &"it is missing"))
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.garbage.is_empty() {
            return Some(UnixMillis(0));
        }
        self.expiring.first().map(|(at, ..)| *at)
    }

    /// What happened to mail since the replica was opened.
    #[must_use]
    pub fn tally(&self) -> &MailTally {
        &self.tally
    }

    /// What waits now is what there was at the beginning.
    pub(super) fn begin_tally(&mut self) {
        self.tally = MailTally::begin(self.waits());
    }

    fn waits(&self) -> u64 {
        self.counts.values().map(|counts| counts.mails).sum()
    }

    /// By how much what was counted differs from what waits: 0, unless something is wrong here.
    #[must_use]
    pub fn imbalance(&self) -> u64 {
        self.tally.imbalance(self.waits())
    }

    /// # Panics
    ///
    /// If the two differ.
    pub(super) fn assert_same(&self, other: &Self) {
        assert_eq!(self.known, other.known);
        assert_eq!(self.expiring, other.expiring);
        assert_eq!(self.garbage, other.garbage);
        assert_eq!(self.counts, other.counts);
        assert_eq!(self.len, other.len);
    }
}

impl ShardState {
    pub(crate) fn mail<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: MailCommand,
    ) -> Result<Answer, StorageError> {
        let mailboxes = &mut self.mailboxes;
        let answer = match command {
            MailCommand::Send(send) => self.send_mail(step, send),
            MailCommand::SendKnown(send, events) => self.send_known(step, send, events),
            MailCommand::Settle(settle) => mailboxes.settle(step, settle, false),
            MailCommand::SettleIf(settle, only) => self.settle_if(step, settle, only),
            MailCommand::NoteDelivered(delivered) => mailboxes.note_delivered(step, delivered),
            MailCommand::Cancel(cancel) => mailboxes.cancel(step, &cancel),
            MailCommand::Purge(purge) => mailboxes.purge(step, &purge),
        };
        self.say_mail(step);
        answer
    }

    /// Appends an event for each thing that happened to mail in this step, where the tenant wants that.
    pub(super) fn say_mail<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for happened in std::mem::take(&mut self.mailboxes.happened) {
            let Happened { tenant, device, born, what, by, news } = happened;
            let Some(retention) = self.streams.of_mail(tenant) else { continue };
            let event = NewEvent {
                kind: EventKind::Mail,
                channel: Text::from(what.name()),
                content_type: NEWS,
                body: news.encode(),
                by,
            };
            let born = (born > 0).then_some(born);
            // A shard with too many streams keeps none of it, as it does for what devices say.
            self.streams.append(step, AppendEvent { tenant, device, born, event, retention });
        }
    }

    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }
}

fn refused(why: MailRefused) -> Answer {
    Answer::Refused(Refused::Mail(why))
}
