//! Retained messages: the last message of each topic that asked to be kept (MQTT 3.3.1.3), in the bucket of the topic.
//!
//! Messages are rows. Memory holds the topics, in order, so that a filter is answered by a walk over those that begin with
//! what stands before its first wildcard: about 150 bytes and its topic for each.
//!
//! # Invariants
//!
//! - **One row for each topic that memory knows, and the other way round.** Checked by [`ShardState::assert_same`].
//! - **What has expired is neither given nor counted for long**: reads leave it out, `Tick` removes it.
//!
//! # Deliberately absent
//!
//! What a subscriber gets of it, and when (`node/service`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use moorline_core::{
    Message, TenantId, Text, UnixMillis,
    shard::bucket_of,
    topic::{levels, matches},
};
use moorline_storage::{Rows, StorageError, View};

use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    codec::message_len,
    command::{Origin, SessionId},
    effect::Effect,
    registry::Owner,
    rows::{RetainedRow, Row, corrupt},
    step::Step,
};

/// Retained messages of one tenant in one shard: a walk over all of their topics takes a millisecond or two.
pub const RETAINED_PER_TENANT_MAX: usize = 10_000;
/// Bytes of those.
pub const RETAINED_BYTES_PER_TENANT_MAX: u64 = 256 * 1024 * 1024;
/// Retained messages that one `Tick` removes.
const RETAINED_PER_TICK_MAX: usize = 1_024;
/// Marks the numbers of a session's publishes as heard for what they retain: the same shard may hear the publish itself too,
/// for its sessions. Above every bucket.
const HEARD_TO_RETAIN: u16 = 0x8000;

/// The topics of a shard that have a retained message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Retained {
    tenants: BTreeMap<TenantId, Topics>,
    /// Those that will expire, by when.
    expiring: BTreeSet<(UnixMillis, TenantId, Text)>,
    /// Which device retained what, and the same by device.
    owners: BTreeMap<(TenantId, Text), (Text, u64)>,
    owned: BTreeSet<(TenantId, Text, u64, Text)>,
}

#[derive(Debug, Default, PartialEq)]
struct Topics {
    known: BTreeMap<Text, Kept>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    bytes: u64,
    expires_at: Option<UnixMillis>,
}

/// A piece of what is retained for a filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetainedPage {
    /// By ascending topic. They expire in log time.
    pub messages: Vec<Message>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

/// What is asked of the retained messages of a shard.
#[derive(Debug, Clone, Copy)]
pub struct RetainedQuery<'a> {
    /// Whose topic space.
    pub tenant: TenantId,
    /// Of which topics.
    pub filter: &'a Text,
    /// Only topics behind this one.
    pub after: Option<&'a Text>,
    /// What has expired by then is left out; log time.
    pub now: UnixMillis,
    /// At most so many messages.
    pub items_max: usize,
    /// At most so many bytes, but at least one message.
    pub bytes_max: usize,
}

impl Retained {
    /// Takes note of a topic's message; gives what it replaced.
    fn insert(&mut self, tenant: TenantId, topic: &Text, kept: Kept) -> Option<Kept> {
        if let Some(at) = kept.expires_at {
            self.expiring.insert((at, tenant, topic.clone()));
        }
        let topics = self.tenants.entry(tenant).or_default();
        topics.bytes += kept.bytes;
        topics.known.insert(topic.clone(), kept)
    }

    fn remove(&mut self, tenant: TenantId, topic: &Text) -> Option<Kept> {
        if let Some((device, born)) = self.owners.remove(&(tenant, topic.clone())) {
            self.owned.remove(&(tenant, device, born, topic.clone()));
        }
        let topics = self.tenants.get_mut(&tenant)?;
        let kept = topics.known.remove(topic)?;
        topics.bytes -= kept.bytes;
        if topics.known.is_empty() {
            self.tenants.remove(&tenant);
        }
        if let Some(at) = kept.expires_at {
            self.expiring.remove(&(at, tenant, topic.clone()));
        }
        Some(kept)
    }

    /// Takes note of who retained a topic's message, which is there.
    fn own(&mut self, topic: Text, owner: &Owner) {
        // A copy: the text is a slice of the whole log entry.
        let (tenant, device, born) = (owner.tenant, Text::from(owner.device.as_str()), owner.born);
        self.owners.insert((tenant, topic.clone()), (device.clone(), born));
        self.owned.insert((tenant, device, born, topic));
    }

    /// What devices retained: tenant, device, birth, topic.
    pub(super) fn owned(&self) -> &BTreeSet<(TenantId, Text, u64, Text)> {
        &self.owned
    }

    /// A topic of a tenant.
    pub(super) fn first_of(&self, tenant: TenantId) -> Option<Text> {
        self.tenants.get(&tenant)?.known.keys().next().cloned()
    }

    /// Whether a message of so many bytes can take the place of `before`.
    fn has_room(&self, tenant: TenantId, before: Option<Kept>, bytes: u64) -> bool {
        let Some(topics) = self.tenants.get(&tenant) else { return true };
        let (items, freed) = match before {
            Some(kept) => (topics.known.len() - 1, kept.bytes),
            None => (topics.known.len(), 0),
        };
        items < RETAINED_PER_TENANT_MAX
            && topics.bytes - freed + bytes <= RETAINED_BYTES_PER_TENANT_MAX
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.expiring.first().map(|(at, ..)| *at)
    }

    /// Topics behind `after` that match, in order, with what they hold.
    fn matching<'a>(
        &'a self,
        tenant: TenantId,
        filter: &'a Text,
        after: Option<&Text>,
    ) -> impl Iterator<Item = (&'a Text, &'a Kept)> {
        let prefix = fixed_prefix(filter.as_bytes());
        let exact = prefix.len() == filter.len();
        let from = match after {
            Some(after) if after.as_bytes() >= prefix => Bound::Excluded(after.clone()),
            Some(_) | None => Bound::Included(Text::from(&filter.as_str()[..prefix.len()])),
        };
        let known = self.tenants.get(&tenant).map(|topics| &topics.known);
        known
            .into_iter()
            .flat_map(move |known| known.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(topic, _)| {
                let topic = topic.as_bytes();
                if exact { topic == prefix } else { topic.starts_with(prefix) }
            })
            .filter(|(topic, _)| matches(filter.as_bytes(), topic.as_bytes()))
    }
}

/// What every topic that matches begins with: the levels before the first wildcard, without the last `/`, since `a/#` also
/// matches `a`.
fn fixed_prefix(filter: &[u8]) -> &[u8] {
    let mut end = 0;
    for (place, level) in levels(filter).enumerate() {
        if matches!(level, b"+" | b"#") {
            break;
        }
        end += level.len() + usize::from(place > 0);
    }
    &filter[..end]
}

impl ShardState {
    /// Takes a row into memory.
    pub(super) fn open_retained(&mut self, tenant: TenantId, topic: &Text, row: &RetainedRow) {
        let bytes = message_len(&row.0) as u64;
        let kept = Kept { bytes, expires_at: row.0.expires_at };
        self.retained.insert(tenant, topic, kept);
        self.counts.retained += 1;
        self.counts.retained_bytes += bytes;
    }

    /// Takes a row into memory that says whose a retained message is.
    pub(super) fn open_retained_owner(&mut self, topic: Text, owner: &Owner) {
        self.retained.own(topic, owner);
    }

    /// Keeps a message for later subscribers, or forgets the topic's if it is empty. With an origin: once.
    pub(crate) fn retain<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        owner: Option<Owner>,
        origin: Option<Origin>,
        message: Message,
    ) -> Answer {
        let Some(origin) = origin else { return self.keep(step, tenant, owner, message) };
        let SessionId { bucket, number } = origin.session;
        let session = SessionId { bucket: bucket | HEARD_TO_RETAIN, number };
        self.once(step, Origin { session, ..origin }, |state, step| {
            state.keep(step, tenant, owner, message)
        })
    }

    fn keep<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        owner: Option<Owner>,
        mut message: Message,
    ) -> Answer {
        if let Some(UnixMillis(in_ms)) = message.expires_at {
            message.expires_at = Some(UnixMillis(step.time.0.saturating_add(in_ms)));
        }
        // A copy: the text is a slice of the whole log entry.
        let topic = Text::from(message.topic.as_str());
        if message.payload.is_empty() || message.expires_at.is_some_and(|at| at <= step.time) {
            self.forget_retained(step, tenant, &topic);
            return Answer::Done;
        }
        let bytes = message_len(&message) as u64;
        let topics = self.retained.tenants.get(&tenant);
        let before = topics.and_then(|topics| topics.known.get(&topic)).copied();
        if !self.retained.has_room(tenant, before, bytes) {
            step.effects.push(Effect::RetainedFull);
            return Answer::Refused(Refused::RetainedFull);
        }
        let was_owned = self.retained.owners.contains_key(&(tenant, topic.clone()));
        if before.is_some() {
            self.uncount_retained(tenant, &topic);
        }
        self.retained.insert(tenant, &topic, Kept { bytes, expires_at: message.expires_at });
        self.counts.retained += 1;
        self.counts.retained_bytes += bytes;
        match owner {
            Some(owner) => {
                step.put(self.keys.retained_owner(tenant, &topic), owner.to_bytes());
                self.retained.own(topic.clone(), &owner);
            }
            None if was_owned => step.delete(self.keys.retained_owner(tenant, &topic)),
            None => {}
        }
        let bucket = bucket_of(tenant, topic.as_bytes());
        let key = self.keys.retained(bucket, tenant, &topic);
        step.put(key, RetainedRow(Message { topic, retain: true, ..message }).to_bytes());
        Answer::Done
    }

    pub(super) fn forget_retained<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        topic: &Text,
    ) {
        if self.retained.owners.contains_key(&(tenant, topic.clone())) {
            step.delete(self.keys.retained_owner(tenant, topic));
        }
        if self.uncount_retained(tenant, topic) {
            let bucket = bucket_of(tenant, topic.as_bytes());
            step.delete(self.keys.retained(bucket, tenant, topic));
        }
    }

    /// Takes a topic out of memory; whether it was there.
    fn uncount_retained(&mut self, tenant: TenantId, topic: &Text) -> bool {
        let Some(kept) = self.retained.remove(tenant, topic) else { return false };
        self.counts.retained -= 1;
        self.counts.retained_bytes -= kept.bytes;
        true
    }

    /// Removes what has expired: a piece of it.
    pub(super) fn expire_retained<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..RETAINED_PER_TICK_MAX {
            match self.retained.expiring.first() {
                Some((at, tenant, topic)) if *at <= step.time => {
                    let (tenant, topic) = (*tenant, topic.clone());
                    self.forget_retained(step, tenant, &topic);
                }
                Some(_) | None => return,
            }
        }
    }

    pub(crate) fn retained(
        &self,
        rows: &(impl View + ?Sized),
        query: &RetainedQuery<'_>,
    ) -> Result<RetainedPage, StorageError> {
        let RetainedQuery { tenant, filter, after, now, items_max, bytes_max } = *query;
        let mut page = RetainedPage::default();
        let mut bytes = 0;
        for (topic, kept) in self.retained.matching(tenant, filter, after) {
            if kept.expires_at.is_some_and(|at| at <= now) {
                continue;
            }
            bytes += kept.bytes;
            let full = page.messages.len() >= items_max || bytes > bytes_max as u64;
            if full && !page.messages.is_empty() {
                page.more = true;
                break;
            }
            let bucket = bucket_of(tenant, topic.as_bytes());
            let row = rows.get(&self.keys.retained(bucket, tenant, topic))?;
            let row = row.ok_or_else(|| corrupt(RetainedRow::WHAT, &"it is missing"))?;
            page.messages.push(RetainedRow::from_bytes(&row)?.0);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::fixed_prefix;

    #[test]
    fn a_prefix_ends_before_the_first_wildcard() {
        #[rustfmt::skip]
        let table = [
            ("#", ""), ("+", ""), ("+/a", ""), ("a/#", "a"), ("a/+", "a"), ("a/b/+/c", "a/b"),
            ("/+", ""), ("/a/#", "/a"), ("a//#", "a/"), ("a/b", "a/b"),
        ];
        for (filter, prefix) in table {
            assert_eq!(fixed_prefix(filter.as_bytes()), prefix.as_bytes(), "{filter}");
        }
    }
}
