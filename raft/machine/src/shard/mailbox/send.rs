//! Mail comes in, and mailboxes come and go.

use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_storage::{Rows, StorageError};

use super::{Mailbox, Mailboxes, line::What, refused};
use crate::{
    answer::{Answer, Refused},
    command::SessionId,
    events::Retention,
    mail::{
        MAIL_DEVICE_BYTES_MAX, MAIL_NAME_BYTES_MAX, MAIL_PAYLOAD_BYTES_MAX, MAILBOX_BYTES_MAX,
        MAILBOX_ITEMS_MAX, MAILBOXES_PER_SHARD_MAX, MailAnswer, MailRefused, NewMail, Noted,
        SendMail,
    },
    rows::{
        Row,
        mail::{MailCard, MailGarbageRow, MailboxRow},
    },
    shard::ShardState,
    step::Step,
};

impl SendMail {
    /// What no mailbox takes.
    fn refusal(&self) -> Option<Refused> {
        let NewMail { name, payload, .. } = &self.mail;
        let fits = |text: &Text, max| !text.is_empty() && text.len() <= max;
        if !fits(&self.device, MAIL_DEVICE_BYTES_MAX) || !fits(name, MAIL_NAME_BYTES_MAX) {
            return Some(Refused::Malformed);
        }
        let too_large = payload.len() > MAIL_PAYLOAD_BYTES_MAX;
        too_large.then_some(Refused::Mail(MailRefused::TooLarge))
    }

    /// What a mailbox that holds so much says.
    fn room(&self, row: &MailboxRow) -> Result<(), MailRefused> {
        let bytes = (self.mail.name.len() + self.mail.payload.len()) as u64;
        let has_room = row.size < self.limits.items.min(MAILBOX_ITEMS_MAX)
            && row.bytes + bytes <= self.limits.bytes.min(MAILBOX_BYTES_MAX);
        if has_room { Ok(()) } else { Err(MailRefused::Full) }
    }
}

impl ShardState {
    pub(super) fn send_known<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        send: SendMail,
        events: Option<Retention>,
    ) -> Result<Answer, StorageError> {
        let there = self.born(&*step.rows, send.tenant, &send.device)?;
        if there.is_none() || there != send.born {
            return Ok(refused(MailRefused::DeviceGone));
        }
        self.streams.keep_mail(step, send.tenant, events);
        self.send_mail(step, send)
    }

    pub(super) fn send_mail<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        send: SendMail,
    ) -> Result<Answer, StorageError> {
        if let Some(why) = send.refusal() {
            return Ok(Answer::Refused(why));
        }
        let (tenant, born) = (send.tenant, send.born.unwrap_or_default());
        let mut found = self.mailboxes.find(step.rows, tenant, &send.device)?;
        let was_born = found.as_ref().map_or(0, |mailbox| mailbox.row.born);
        if send.born.is_some_and(|born| born < was_born) {
            return Ok(refused(MailRefused::DeviceGone));
        }
        let of_earlier = if was_born > 0 && born > was_born { found.take() } else { None };
        if let Some(mailbox) = &found
            && self.mailboxes.card(step.rows, mailbox.id, send.mail.id)?.is_some()
        {
            let size = mailbox.row.size;
            let front = mailbox.row.front.is_some_and(|(_, id)| id == send.mail.id);
            return Ok(Answer::Mail(MailAnswer::Mailed { size, front, repeat: true }));
        }
        let row = found.as_ref().map_or(MailboxRow::new(0, 0), |mailbox| mailbox.row);
        if let Err(why) = send.room(&row) {
            return Ok(refused(why));
        }
        if row.size == 0 && self.mailboxes.len >= MAILBOXES_PER_SHARD_MAX {
            return Ok(refused(MailRefused::TooManyMailboxes));
        }
        if let Some(mailbox) = of_earlier {
            self.mailboxes.forget(step, &mailbox);
        }
        let mut mailbox = match found {
            Some(mailbox) => mailbox,
            None => {
                let bucket = bucket_of(tenant, send.device.as_bytes());
                let number = self.take_number(step, bucket)?;
                let device = Text::from(send.device.as_str());
                let id = SessionId { bucket, number };
                Mailbox { tenant, device, id, before: None, row: MailboxRow::new(number, born) }
            }
        };
        mailbox.row.born = mailbox.row.born.max(born);
        let id = send.mail.id;
        self.mailboxes.queue_new(step, &mut mailbox, send.mail);
        let size = mailbox.row.size;
        let front = mailbox.row.front.is_some_and(|(_, front)| front == id);
        self.mailboxes.close(step, mailbox);
        Ok(Answer::Mail(MailAnswer::Mailed { size, front, repeat: false }))
    }

    /// Forgets the mailbox of a device that is gone: at once for whoever asks, its rows by `Tick`, in pieces. Nothing is said of
    /// the mail in it. To be called where the device's row goes.
    pub(crate) fn forget_mailbox<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
    ) -> Result<(), StorageError> {
        if let Some(mailbox) = self.mailboxes.find(step.rows, tenant, device)? {
            self.mailboxes.forget(step, &mailbox);
        }
        Ok(())
    }
}

impl Mailboxes {
    fn forget<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, mailbox: &Mailbox) {
        let Mailbox { tenant, device, id, row, .. } = mailbox;
        step.delete(self.keys.mailbox(id.bucket, *tenant, device));
        self.remove(*tenant, device, row);
        self.tally.forgotten += u64::from(row.size);
        let garbage = MailGarbageRow::default();
        step.put_fresh(self.keys.mail_garbage(*id), garbage.to_bytes());
        self.garbage.insert(*id, garbage);
    }

    fn queue_new<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mailbox: &mut Mailbox,
        mail: NewMail,
    ) {
        let NewMail { id, name, content_type, payload, ttl_ms, requeues_max } = mail;
        let mut card = MailCard {
            state: Noted::Queued,
            place: 0,
            name,
            content_type,
            payload_bytes: u32::try_from(payload.len()).expect("COMMAND_BYTES_MAX fits"),
            created: step.time,
            expires_at: ttl_ms.map(|ttl| UnixMillis(step.time.0.saturating_add(ttl))),
            requeues: 0,
            requeues_max,
            notes_dropped: 0,
            notes: Vec::new(),
        };
        let how = What { what: Noted::Queued, by: 0, detail: &Text::default() };
        card.note(step.time, &how);
        self.happened(mailbox, id, &card, &how);
        // A mail of this id that was settled and has been forgotten since is another.
        mailbox.row.last = mailbox.row.last.filter(|(last, _)| *last != id);
        self.enqueue(step, mailbox, id, card, payload);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use moorline_core::ShardId;
    use moorline_storage::{mem::MemStore, overlay::Overlay};

    use super::*;
    use crate::{effect::Effect, keys::Keys, mail::MailLimits};

    const TENANT: TenantId = TenantId(7);

    type Rows = Overlay<Arc<MemStore>>;

    /// A shard, its rows, and what it says to commands.
    struct Group {
        state: ShardState,
        rows: Rows,
        index: u64,
        effects: Vec<Effect>,
        /// Mailboxes of which there are no rows.
        others: usize,
    }

    impl Group {
        fn new() -> Self {
            let state = ShardState::new(Keys::new(ShardId(1)));
            let rows = Overlay::new(Arc::new(MemStore::new()));
            Self { state, rows, index: 0, effects: Vec::new(), others: 0 }
        }

        fn apply<T>(&mut self, what: impl FnOnce(&mut ShardState, &mut Step<'_, Rows>) -> T) -> T {
            self.index += 1;
            self.effects.clear();
            let mut step = Step {
                rows: &mut self.rows,
                keys: Keys::new(ShardId(1)),
                index: self.index,
                ordinal: 0,
                time: UnixMillis(1),
                effects: &mut self.effects,
                digest_wanted: &mut false,
            };
            self.state.mailboxes.len += self.others;
            let done = what(&mut self.state, &mut step);
            self.state.mailboxes.len -= self.others;
            let opened = ShardState::open(Keys::new(ShardId(1)), &self.rows).unwrap();
            self.state.mailboxes.assert_same(&opened.mailboxes);
            done
        }

        fn send(&mut self, device: &str, id: u128) -> Answer {
            let mail = NewMail {
                id,
                name: "n".into(),
                content_type: 0,
                payload: Bytes::new(),
                ttl_ms: None,
                requeues_max: 0,
            };
            let limits = MailLimits { items: 9, bytes: 9 };
            let send = SendMail { tenant: TENANT, device: device.into(), mail, limits, born: None };
            self.apply(|state, step| state.send_mail(step, send).unwrap())
        }
    }

    #[test]
    fn a_shard_has_so_many_mailboxes_with_mail_and_no_more() {
        let mut group = Group::new();
        group.send("a", 1);
        group.others = MAILBOXES_PER_SHARD_MAX - 1;
        assert_eq!(group.send("b", 2), refused(MailRefused::TooManyMailboxes));
        assert!(matches!(group.send("a", 2), Answer::Mail(_)), "it has mail already");
        group.others -= 1;
        assert!(matches!(group.send("b", 2), Answer::Mail(_)));
    }

    #[test]
    fn a_forgotten_mailbox_is_empty_at_once_and_nothing_is_said() {
        let mut group = Group::new();
        let device = Text::from("a");
        let forget = |group: &mut Group| {
            group
                .apply(|state, step| state.forget_mailbox(step, TENANT, &Text::from("a")).unwrap());
            assert!(group.effects.is_empty());
        };
        forget(&mut group);
        assert_eq!(group.state.next_deadline(), None, "there was none");
        for id in 1..=3 {
            group.send("a", id);
        }
        forget(&mut group);
        assert_eq!(group.state.mailboxes.size(TENANT, &device), 0);
        assert_eq!(group.state.mailboxes.mail(&group.rows, TENANT, &device, 1).unwrap(), None);
        // Whoever has the name next begins anew, while rows are left to remove.
        let first = Answer::Mail(MailAnswer::Mailed { size: 1, front: true, repeat: false });
        assert_eq!(group.send("a", 1), first);
        group.apply(|state, step| state.mailboxes.tick(step).unwrap());
        assert_eq!(group.state.next_deadline(), None);
        assert!(group.state.mailboxes.front(&group.rows, TENANT, &device).unwrap().is_some());
    }
}
