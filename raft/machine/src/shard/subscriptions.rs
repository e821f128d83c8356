//! Filters of sessions, and so of the shard: the first session of a filter makes a route, the last one ends it.
//!
//! # Invariants
//!
//! - **A route's version grows with every change**, also within one log entry. Checked by `tests/rules/subscriptions.rs`.

use std::collections::BTreeSet;

use moorline_core::{
    Epoch, Grant, SubscriptionOptions, TenantId, Text,
    topic::{is_filter, share},
};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::{Session, ShardState, shares::inner_filter};
use crate::{
    answer::{Answer, Refused, RouteChange},
    command::{RouteTarget, SessionId, Subscription},
    effect::Effect,
    keys::each,
    rows::{FilterRow, MembershipRow, Row, SubscriptionRow, corrupt},
    step::Step,
};

impl ShardState {
    /// The session, if this epoch's connection still has it.
    fn mine(&self, id: SessionId, epoch: Epoch) -> Option<&Session> {
        self.sessions
            .get(&id)
            .filter(|session| session.row.epoch == epoch && session.row.holder.is_some())
    }

    pub(crate) fn subscribe<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        subscriptions: &[Subscription],
    ) -> Result<Answer, StorageError> {
        let Some(session) = self.mine(id, epoch) else {
            return Ok(Answer::Refused(Refused::NotYours));
        };
        let tenant = session.tenant;
        let fits = |filter: &Text| match share(filter.as_bytes()) {
            Some(_) => inner_filter(filter).is_some(),
            None => is_filter(filter.as_bytes()),
        };
        if !subscriptions.iter().all(|subscription| fits(&subscription.filter)) {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        let trie = self.tries.get(&tenant);
        let is_known = |filter: &Text| {
            trie.is_some_and(|trie| trie.get(filter.as_bytes(), &id).is_some())
                || self.shared_filters.contains_key(&(id, filter.clone()))
        };
        let filters = subscriptions.iter().map(|subscription| &subscription.filter);
        let unknown: BTreeSet<&Text> = filters.filter(|filter| !is_known(filter)).collect();
        if session.subscriptions as usize + unknown.len()
            > session.row.limits.subscriptions as usize
        {
            return Ok(Answer::Refused(Refused::TooManySubscriptions));
        }

        let mut routes = Vec::with_capacity(subscriptions.len());
        let mut begun = Vec::new();
        let mut new = Vec::with_capacity(subscriptions.len());
        for Subscription { filter, options } in subscriptions {
            new.push(self.insert(step, id, tenant, filter, *options));
            let version = if share(filter.as_bytes()).is_some() {
                step.version()
            } else if new.last() == Some(&true) {
                let (version, first) = self.hold_filter(step, tenant, filter)?;
                if first {
                    begun.push(self.route(tenant, filter, version, true));
                }
                version
            } else {
                self.filter_row(step.rows, tenant, filter)?.version
            };
            routes.push(self.route(tenant, filter, version, true));
        }
        self.announce(step, &begun);
        let wants_retained = |(asked, new): (&Subscription, &bool)| {
            asked.options.wants_retained(asked.filter.as_bytes(), *new)
        };
        if subscriptions.iter().zip(&new).any(wants_retained) {
            self.await_retained(step, id);
        }
        let granted = subscriptions.iter().map(|subscription| subscription.options.qos).collect();
        Ok(Answer::Subscribed { granted, new, at: step.version(), routes })
    }

    pub(crate) fn unsubscribe<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        filters: &[Text],
    ) -> Result<Answer, StorageError> {
        let Some(tenant) = self.mine(id, epoch).map(|session| session.tenant) else {
            return Ok(Answer::Refused(Refused::NotYours));
        };
        let mut existed = Vec::with_capacity(filters.len());
        let mut released = Vec::new();
        for filter in filters {
            existed.push(self.end_subscription(step, id, tenant, filter, &mut released)?);
        }
        self.announce(step, &released);
        Ok(Answer::Unsubscribed { existed, released })
    }

    /// Sets a subscription; whether the session did not have it.
    fn insert<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        tenant: TenantId,
        filter: &Text,
        options: SubscriptionOptions,
    ) -> bool {
        let new = if share(filter.as_bytes()).is_some() {
            self.insert_shared(step, id, filter, options)
        } else {
            let trie = self.tries.entry(tenant).or_default();
            let replaced = trie.insert(filter.as_bytes(), id, options);
            if replaced != Some(options) {
                step.put(self.keys.subscription(id, filter), SubscriptionRow(options).to_bytes());
            }
            replaced.is_none()
        };
        if new {
            self.counts.subscriptions += 1;
            self.sessions.get_mut(&id).expect("the caller found it").subscriptions += 1;
        }
        new
    }

    /// Ends a subscription, if there is one.
    fn end_subscription<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        tenant: TenantId,
        filter: &Text,
        released: &mut Vec<RouteChange>,
    ) -> Result<bool, StorageError> {
        let shared = self.remove_shared(step, id, tenant, filter);
        if !shared {
            let Some(trie) = self.tries.get_mut(&tenant) else { return Ok(false) };
            if trie.remove(filter.as_bytes(), &id).is_none() {
                return Ok(false);
            }
            if trie.is_empty() {
                self.tries.remove(&tenant);
            }
            step.delete(self.keys.subscription(id, filter));
            self.let_filter_go(step, tenant, filter, released)?;
        }
        self.counts.subscriptions -= 1;
        self.sessions.get_mut(&id).expect("the caller found it").subscriptions -= 1;
        Ok(true)
    }

    /// One session less holds the filter.
    pub(super) fn let_filter_go<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
        released: &mut Vec<RouteChange>,
    ) -> Result<(), StorageError> {
        let mut row = self.filter_row(step.rows, tenant, filter)?;
        row.sessions -= 1;
        let key = self.keys.filter(tenant, filter);
        if row.sessions == 0 {
            step.delete(key);
            released.push(self.route(tenant, filter, step.version(), false));
        } else {
            step.put(key, row.to_bytes());
        }
        Ok(())
    }

    pub(super) fn remove_subscriptions<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        released: &mut Vec<RouteChange>,
    ) -> Result<(), StorageError> {
        let session = &self.sessions[&id];
        if session.subscriptions == 0 {
            return Ok(());
        }
        let tenant = session.tenant;
        for Subscription { filter, .. } in self.subscriptions(step.rows, id)? {
            self.end_subscription(step, id, tenant, &filter, released)?;
        }
        Ok(())
    }

    /// One more session holds the filter: its version, and whether it is the first.
    pub(super) fn hold_filter<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        filter: &Text,
    ) -> Result<(u64, bool), StorageError> {
        let key = self.keys.filter(tenant, filter);
        let mut row = match step.rows.get(&key)? {
            Some(row) => FilterRow::from_bytes(&row)?,
            None => FilterRow { sessions: 0, version: step.version() },
        };
        row.sessions += 1;
        step.put(key, row.to_bytes());
        Ok((row.version, row.sessions == 1))
    }

    /// The row of a filter that some session holds.
    pub(super) fn filter_row(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        filter: &Text,
    ) -> Result<FilterRow, StorageError> {
        match rows.get(&self.keys.filter(tenant, filter))? {
            Some(row) => FilterRow::from_bytes(&row),
            None => Err(corrupt(FilterRow::WHAT, &"a session holds the filter, but it is missing")),
        }
    }

    pub(super) fn route(
        &self,
        tenant: TenantId,
        filter: &Text,
        version: u64,
        present: bool,
    ) -> RouteChange {
        let target = RouteTarget::Shard(self.keys.group());
        RouteChange { tenant, filter: filter.clone(), target, version, present }
    }

    /// Tells the leader which routes changed.
    pub(super) fn announce<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        changes: &[RouteChange],
    ) {
        if !changes.is_empty() {
            step.effects.push(Effect::Routes(changes.to_vec()));
        }
    }

    pub(crate) fn subscriptions(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
    ) -> Result<Vec<Subscription>, StorageError> {
        let mut found = Vec::new();
        each(rows, &self.keys.subscriptions(id), |mut suffix, row| {
            suffix.u64()?;
            let filter = suffix.text()?;
            let options = match share(filter.as_bytes()) {
                Some(_) => MembershipRow::from_bytes(row)?.options,
                None => SubscriptionRow::from_bytes(row)?.0,
            };
            found.push(Subscription { filter, options });
            Ok(())
        })?;
        Ok(found)
    }

    pub(crate) fn held_filters(
        &self,
        rows: &(impl View + ?Sized),
    ) -> Result<Vec<RouteChange>, StorageError> {
        let mut held = Vec::new();
        each(rows, &self.keys.range(Kind::Filter), |mut suffix, row| {
            let (tenant, filter) = (TenantId(suffix.u32()?), suffix.text()?);
            let version = FilterRow::from_bytes(row)?.version;
            held.push(self.route(tenant, &filter, version, true));
            Ok(())
        })?;
        Ok(held)
    }

    /// Every session of `tenant` with a filter that matches and that takes messages of `from`, once, with what its
    /// subscriptions come to, by ascending id.
    pub(crate) fn matching(
        &self,
        tenant: TenantId,
        topic: &Text,
        from: Option<SessionId>,
        found: &mut Vec<(SessionId, Grant)>,
    ) {
        found.clear();
        let Some(trie) = self.tries.get(&tenant) else { return };
        trie.matches(topic.as_bytes(), |id, options| {
            if !(options.no_local && from == Some(*id)) {
                found.push((*id, Grant::of(*options)));
            }
        });
        if found.len() > 1 {
            found.sort_unstable_by_key(|(id, _)| *id);
            found.dedup_by(|(next, more), (id, grant)| {
                let same = next == id;
                if same {
                    grant.join(more);
                }
                same
            });
        }
    }
}
