//! What a deleted device or tenant left in this shard: removed, a piece at a time.
//!
//! Sessions are found by the order of their names, which begin with the device ([`moorline_core::session_name`]); retained
//! messages by who retained them. Checked by `tests/rules/forget.rs`.

use std::ops::Bound;

use moorline_core::{TenantId, Text, session_name};
use moorline_storage::{Rows, StorageError};

use super::{DEADLINES_PER_TICK_MAX, ENDED_ROWS_PER_TICK_MAX, ShardState, documents::Room};
use crate::{
    answer::Answer,
    command::SessionId,
    events::{DeleteConsumer, Retention},
    forget::Forget,
    registry::Owner,
    step::Step,
};

/// Retained messages that go with one `Forget`: three rows each.
const RETAINED_PER_FORGET_MAX: usize = 1_024;
/// The lowest id.
const FIRST: SessionId = SessionId { bucket: 0, number: 0 };

/// What one `Forget` may still remove.
struct Budget {
    sessions: usize,
    rows: usize,
    retained: usize,
    documents: Room,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.sessions == 0 || self.rows == 0 || self.retained == 0
    }
}

impl ShardState {
    pub(crate) fn forget<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        forget: &Forget,
    ) -> Result<Answer, StorageError> {
        let mut budget = Budget {
            sessions: DEADLINES_PER_TICK_MAX,
            rows: ENDED_ROWS_PER_TICK_MAX,
            retained: RETAINED_PER_FORGET_MAX,
            documents: Room::WHOLE,
        };
        let (mut released, mut more) = (Vec::new(), false);
        for owner in &forget.owners {
            while !budget.is_spent()
                && let Some(id) = self.session_of_owner(owner)
            {
                // Whoever is deleted has nothing to say.
                self.put_will(step, id, None);
                let rows = self.remove(step, id, &mut released)?;
                budget.rows = budget.rows.saturating_sub(rows);
                budget.sessions -= 1;
            }
            while !budget.is_spent()
                && let Some(topic) = self.retained.of_owner(owner)
            {
                self.forget_retained(step, owner.tenant, &topic);
                budget.retained -= 1;
            }
            if owner.device.is_empty() {
                self.forget_stream(step, owner.tenant);
                more |= self.forget_spaces(step, owner.tenant, &mut budget.documents)?;
            }
        }
        self.announce(step, &released);
        more |= budget.is_spent();
        Ok(if more { Answer::Partly(released) } else { Answer::Released(released) })
    }

    fn session_of_owner(&self, owner: &Owner) -> Option<SessionId> {
        let Owner { tenant, device, born } = owner;
        let all = device.is_empty();
        let prefix = if all { Text::default() } else { session_name::all_of(device) };
        let names = self.names.range((*tenant, prefix.clone(), FIRST)..);
        let mut own = names.take_while(|(of, name, _)| {
            of == tenant && name.as_bytes().starts_with(prefix.as_bytes())
        });
        let is_meant = |name: &Text| {
            all || session_name::device_of(name)
                .is_some_and(|(of, at)| of == *device && at <= *born)
        };
        own.find(|(_, name, _)| is_meant(name)).map(|(_, _, id)| *id)
    }

    /// What is left of a stream and a history is their rows: their events and points are too many at once from now on, and go by `Tick`.
    fn forget_stream<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, tenant: TenantId) {
        for consumer in self.streams.consumers(tenant).consumers {
            let delete = DeleteConsumer { tenant, consumer: consumer.name };
            self.streams.delete_consumer(step, &delete);
        }
        let nothing = Retention { keep_s: 0, bytes_max: 0 };
        self.streams.retire(step, tenant, nothing);
        self.histories.retire(tenant, nothing);
    }
}

impl super::retained::Retained {
    /// A topic that was retained by an owner, or one of a whole tenant.
    fn of_owner(&self, owner: &Owner) -> Option<Text> {
        let Owner { tenant, device, born } = owner;
        if device.is_empty() {
            return self.first_of(*tenant);
        }
        let from = (*tenant, device.clone(), 0, Text::default());
        let to = (*tenant, device.clone(), *born, Text::default());
        let below = self.owned().range(from..to).next();
        let at = || {
            let from = Bound::Included((*tenant, device.clone(), *born, Text::default()));
            let mut of = self.owned().range((from, Bound::Unbounded));
            of.next().filter(|(of, name, at, _)| of == tenant && name == device && at == born)
        };
        below.or_else(at).map(|(.., topic)| topic.clone())
    }
}
