//! Shares: sessions that take turns at the messages of one filter (`$share/name/filter`), whatever shard each is in.
//!
//! ```text
//!   session's shard   a subscription row `$share/name/filter`, matched by nothing: what the session asked for
//!   share's shard     members, the filter's route, and a queue like a session's: what is to be delivered to one of them
//! ```
//!
//! Who of the members gets an item is the leader's affair and in no row: an item is in the queue until somebody settles it.
//!
//! # Invariants
//!
//! - **A share is there as long as it has a member**, and its queue with it. Checked by `tests/rules/shares.rs`.
//! - **The newest news of a membership counts**, in whatever order it comes (`left.rs`). Checked by `tests/rules/shares.rs`.

use std::collections::BTreeMap;

use moorline_core::{
    Epoch, Offset, QoS, SubscriptionOptions, TenantId, Text,
    shard::bucket_of,
    topic::{is_filter, share},
};
use moorline_storage::{Rows, StorageError, View};

use super::{SESSION_LIMITS_MAX, Session, ShardState};
use crate::{
    answer::{Answer, Refused, RouteChange},
    command::SessionId,
    effect::Effect,
    rows::{MembershipRow, NumberRow, Row, SessionRow},
    step::Step,
};

/// Shares of one shard: each is held in memory with a queue like a session's, about 500 bytes.
pub const SHARES_PER_SHARD_MAX: usize = 100_000;
/// Members of one share: each is held in memory by every replica, about 60 bytes.
pub const SHARE_MEMBERS_MAX: usize = 4_096;
/// The highest QoS of a share: its items are lent to one member after the other, which can't be exactly once.
const SHARE_QOS_MAX: QoS = QoS::AtLeastOnce;

/// What a share has beside its queue, which is that of a session without a client.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(super) members: BTreeMap<SessionId, MembershipRow>,
}

/// What is known of a share.
#[derive(Debug, Clone, Copy)]
pub struct ShareInfo<'a> {
    /// Its row id, and that of its queue.
    pub id: SessionId,
    /// Whose topic space.
    pub tenant: TenantId,
    /// The whole filter.
    pub filter: &'a Text,
    /// The first offset that is not settled.
    pub head: Offset,
    /// The offset that the next message gets.
    pub tail: Offset,
    /// Messages queued, lent ones among them.
    pub queued_items: u64,
    members: &'a BTreeMap<SessionId, MembershipRow>,
}

impl ShareInfo<'_> {
    /// Its members by ascending id, each with what it was granted and the version of its membership.
    pub fn members(&self) -> impl Iterator<Item = (SessionId, SubscriptionOptions, u64)> {
        self.members.iter().map(|(id, row)| (*id, row.options, row.version))
    }

    /// What a member was granted.
    #[must_use]
    pub fn member(&self, id: SessionId) -> Option<SubscriptionOptions> {
        self.members.get(&id).map(|row| row.options)
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none: never, outside of a command that ends it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// What its messages have to match, if `filter` is a well-formed shared one.
pub(super) fn inner_filter(filter: &Text) -> Option<Text> {
    let (name, inner) = share(filter.as_bytes())?;
    let name_fits = !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'+' | b'#'));
    (name_fits && is_filter(inner)).then(|| {
        let begin = filter.len() - inner.len();
        Text::from_utf8(filter.bytes().slice(begin..)).expect("it begins behind a slash")
    })
}

/// What a share asks for: everything that any member might.
fn share_options() -> SubscriptionOptions {
    let options = SubscriptionOptions::of_qos(SHARE_QOS_MAX);
    SubscriptionOptions { retain_as_published: true, ..options }
}

impl ShardState {
    pub(crate) fn find_share(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        filter: &Text,
    ) -> Result<Option<SessionId>, StorageError> {
        let bucket = bucket_of(tenant, filter.as_bytes());
        let Some(row) = rows.get(&self.keys.share(bucket, tenant, filter))? else {
            return Ok(None);
        };
        Ok(Some(SessionId { bucket, number: NumberRow::from_bytes(&row)?.0 }))
    }

    pub(crate) fn join_share<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
        member: SessionId,
        membership: MembershipRow,
    ) -> Result<Answer, StorageError> {
        let Some(inner) = inner_filter(filter) else {
            return Ok(Answer::Refused(Refused::Malformed));
        };
        // A copy: the text is a slice of the whole log entry.
        let of = (tenant, Text::from(filter.as_str()), member);
        if self.has_left(&of, membership.version) {
            return Ok(Answer::Refused(Refused::Left));
        }
        let known = self.find_share(step.rows, tenant, filter)?;
        let (id, route) = match known {
            Some(id) => {
                let version = self.filter_row(step.rows, tenant, &inner)?.version;
                (id, self.route(tenant, &inner, version, true))
            }
            None if self.shares.len() >= SHARES_PER_SHARD_MAX => {
                return Ok(Answer::Refused(Refused::TooManySessions));
            }
            None => self.create_share(step, tenant, filter, &inner)?,
        };
        let share = self.shares.get_mut(&id).expect("its row is there");
        let before = share.members.get(&member);
        if before.is_none() && share.members.len() >= SHARE_MEMBERS_MAX {
            return Ok(Answer::Refused(Refused::TooManyMembers));
        }
        if before.is_none_or(|before| before.version <= membership.version) {
            share.members.insert(member, membership);
            step.put(self.keys.share_member(id, member), membership.to_bytes());
            let options = Some(membership.options);
            step.effects.push(Effect::Member { share: id, member, options });
            self.forget_left(step, &of);
        }
        Ok(Answer::Joined { share: id, route })
    }

    fn create_share<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
        inner: &Text,
    ) -> Result<(SessionId, RouteChange), StorageError> {
        let bucket = bucket_of(tenant, filter.as_bytes());
        let number = self.take_number(step, bucket)?;
        let id = SessionId { bucket, number };
        step.put(self.keys.share(bucket, tenant, filter), NumberRow(number).to_bytes());
        self.add_share(id, tenant, Text::from(filter.as_str()), inner);
        let (version, first) = self.hold_filter(step, tenant, inner)?;
        let route = self.route(tenant, inner, version, true);
        if first {
            self.announce(step, std::slice::from_ref(&route));
        }
        Ok((id, route))
    }

    /// Takes a share into memory.
    pub(super) fn add_share(
        &mut self,
        id: SessionId,
        tenant: TenantId,
        filter: Text,
        inner: &Text,
    ) {
        let row = SessionRow {
            limits: SESSION_LIMITS_MAX,
            number: id.number,
            epoch: Epoch(0),
            holder: None,
            expiry_s: u32::MAX,
            detached_at: None,
            offered_below: Offset(0),
            present: false,
        };
        self.add(id, tenant, filter, row);
        self.shares.insert(id, Share::default());
        self.tries.entry(tenant).or_default().insert(inner.as_bytes(), id, share_options());
    }

    pub(crate) fn leave_share<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
        member: SessionId,
        version: u64,
    ) -> Result<Answer, StorageError> {
        let mut released = Vec::new();
        if inner_filter(filter).is_none() {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        let known = self.find_share(step.rows, tenant, filter)?;
        let share = known.and_then(|id| Some((id, self.shares.get_mut(&id)?)));
        if let Some((id, share)) = share
            && let Some(row) = share.members.get(&member)
        {
            if row.version > version {
                return Ok(Answer::Released(released));
            }
            share.members.remove(&member);
            let last = share.members.is_empty();
            step.delete(self.keys.share_member(id, member));
            step.effects.push(Effect::Member { share: id, member, options: None });
            if last {
                self.end_share(step, id, &mut released)?;
                self.announce(step, &released);
            }
        }
        self.note_left(step, (tenant, Text::from(filter.as_str()), member), version);
        Ok(Answer::Released(released))
    }

    fn end_share<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        released: &mut Vec<RouteChange>,
    ) -> Result<(), StorageError> {
        let Session { tenant, client: filter, .. } = &self.sessions[&id];
        let (tenant, filter) = (*tenant, filter.clone());
        let inner = inner_filter(&filter).expect("only well-formed ones are made");
        if let Some(trie) = self.tries.get_mut(&tenant) {
            trie.remove(inner.as_bytes(), &id);
            if trie.is_empty() {
                self.tries.remove(&tenant);
            }
        }
        self.let_filter_go(step, tenant, &inner, released)?;
        step.delete(self.keys.share(id.bucket, tenant, &filter));
        self.remove(step, id, released)?;
        Ok(())
    }

    /// A session's shared subscription: sets it, and says whether the session did not have it.
    pub(super) fn insert_shared<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        filter: &Text,
        options: SubscriptionOptions,
    ) -> bool {
        let membership = MembershipRow { options, version: step.version() };
        step.put(self.keys.subscription(id, filter), membership.to_bytes());
        let filter = Text::from(filter.as_str());
        self.shared_filters.insert((id, filter), membership).is_none()
    }

    pub(super) fn remove_shared<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        tenant: TenantId,
        filter: &Text,
    ) -> bool {
        let Some(_) = self.shared_filters.remove(&(id, filter.clone())) else { return false };
        step.delete(self.keys.subscription(id, filter));
        let version = step.version();
        // A copy: the text may be a slice of the whole log entry.
        let filter = Text::from(filter.as_str());
        step.effects.push(Effect::Left { tenant, filter, member: id, version });
        true
    }

    pub(crate) fn shared_by(
        &self,
        id: SessionId,
    ) -> impl Iterator<Item = (&Text, SubscriptionOptions, u64)> {
        self.shared_filters
            .range((id, Text::default())..)
            .take_while(move |((of, _), _)| *of == id)
            .map(|((_, filter), row)| (filter, row.options, row.version))
    }

    pub(crate) fn share(&self, id: SessionId) -> Option<ShareInfo<'_>> {
        let (share, queue) = (self.shares.get(&id)?, self.sessions.get(&id)?);
        Some(ShareInfo {
            id,
            tenant: queue.tenant,
            filter: &queue.client,
            head: queue.counters.head,
            tail: queue.counters.tail,
            queued_items: queue.counters.items,
            members: &share.members,
        })
    }

    pub(crate) fn shares(&self) -> impl Iterator<Item = ShareInfo<'_>> {
        self.shares.keys().filter_map(|id| self.share(*id))
    }
}
