//! Clean sessions of this node: who gets what is published now. Nothing here outlives the process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use moorline_core::{
    ConnId, Delivery, Grant, Message, SubscriptionOptions, TenantId, Text, port::Filter, trie::Trie,
};
use moorline_explain::Cause;
use moorline_machine::command::SessionId;

use crate::{
    conn::{Conn, Whose},
    frames::Publisher,
    quota::Quota,
};

/// The node's live subscriptions.
#[derive(Debug)]
pub(crate) struct Live {
    tables: RwLock<Tables>,
    quota: Quota,
    /// SUBSCRIBEs whose routes may not be known here yet.
    announcing: Arc<AtomicUsize>,
}

/// Held while the routes of a SUBSCRIBE are made known.
#[derive(Debug)]
pub(crate) struct Announcing(Arc<AtomicUsize>);

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Tables {
    tries: BTreeMap<TenantId, Trie<ConnId, SubscriptionOptions>>,
    conns: HashMap<ConnId, Holder>,
    /// How many connections hold a filter: the node has a route while there is one.
    held: HashMap<(TenantId, Text), u64>,
}

/// A connection with live subscriptions.
#[derive(Debug)]
struct Holder {
    conn: Arc<Conn>,
    tenant: TenantId,
    session: SessionId,
    filters: BTreeSet<Text>,
}

impl Live {
    pub(crate) fn new(quota: Quota) -> Self {
        Self { tables: RwLock::default(), quota, announcing: Arc::default() }
    }

    /// How many copies the messages of a tenant may be.
    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Before subscriptions are added; until it is dropped, [`Live::wants_early`] looks at them.
    pub(crate) fn announce(&self) -> Announcing {
        self.announcing.fetch_add(1, Ordering::AcqRel);
        Announcing(Arc::clone(&self.announcing))
    }

    /// Whether somebody here wants a topic whose route may still be on its way. Most of the time no SUBSCRIBE is, and
    /// the routes say all.
    pub(crate) fn wants_early(&self, tenant: TenantId, topic: &[u8]) -> bool {
        if self.announcing.load(Ordering::Acquire) == 0 {
            return false;
        }
        let tables = self.tables.read().expect("no panic while it is locked");
        let mut wanted = false;
        if let Some(trie) = tables.tries.get(&tenant) {
            trie.matches(topic, |_, _| wanted = true);
        }
        wanted
    }

    /// Whether a connection would have at most `max` subscriptions with these.
    pub(crate) fn has_room(&self, conn: ConnId, filters: &[Filter], max: usize) -> bool {
        let tables = self.tables.read().expect("no panic while it is locked");
        let held = tables.conns.get(&conn).map(|holder| &holder.filters);
        let is_new = |filter: &&Filter| held.is_none_or(|held| !held.contains(&filter.filter));
        let new: BTreeSet<&Text> =
            filters.iter().filter(is_new).map(|filter| &filter.filter).collect();
        held.map_or(0, BTreeSet::len) + new.len() <= max
    }

    /// Adds or replaces a subscription; says whether the connection did not have it.
    pub(crate) fn subscribe(
        &self,
        conn: &Arc<Conn>,
        whose: Whose,
        filter: &Text,
        options: SubscriptionOptions,
    ) -> bool {
        let Whose { tenant, session, .. } = whose;
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let trie = tables.tries.entry(tenant).or_default();
        if trie.insert(filter.as_bytes(), conn.id(), options).is_some() {
            return false;
        }
        let holder = tables.conns.entry(conn.id()).or_insert_with(|| {
            let conn = Arc::clone(conn);
            Holder { conn, tenant, session, filters: BTreeSet::new() }
        });
        holder.filters.insert(filter.clone());
        *tables.held.entry((tenant, filter.clone())).or_default() += 1;
        true
    }

    /// Ends a subscription: whether it existed, and whether nobody on this node holds the filter any more.
    pub(crate) fn unsubscribe(
        &self,
        conn: ConnId,
        tenant: TenantId,
        filter: &Text,
    ) -> (bool, bool) {
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let Some(holder) = tables.conns.get_mut(&conn) else {
            return (false, false);
        };
        if !holder.filters.remove(filter) {
            return (false, false);
        }
        (true, tables.release(conn, tenant, filter))
    }

    /// What a connection holds.
    pub(crate) fn filters_of(&self, conn: ConnId) -> Vec<Text> {
        let tables = self.tables.read().expect("no panic while it is locked");
        let filters = tables.conns.get(&conn).map(|held| &held.filters);
        filters.into_iter().flatten().cloned().collect()
    }

    /// Ends all of a connection; gives the filters nobody on this node holds any more.
    pub(crate) fn leave(&self, conn: ConnId) -> Vec<(TenantId, Text)> {
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let Some(Holder { tenant, filters, .. }) = tables.conns.remove(&conn) else {
            return Vec::new();
        };
        filters
            .into_iter()
            .filter(|filter| tables.release(conn, tenant, filter))
            .map(|filter| (tenant, filter))
            .collect()
    }

    /// Whether anybody on this node holds the filter.
    pub(crate) fn holds(&self, tenant: TenantId, filter: &Text) -> bool {
        let tables = self.tables.read().expect("no panic while it is locked");
        tables.held.contains_key(&(tenant, filter.clone()))
    }

    /// Hands a message to everybody here who wants it; each gets it once, with what its subscriptions come to. To nobody, if
    /// its tenant has had as much as it may have now; they count as if they had it.
    pub(crate) fn deliver(&self, publisher: Publisher, message: &Arc<Message>) -> usize {
        let Publisher { tenant, session: from } = publisher;
        let tables = self.tables.read().expect("no panic while it is locked");
        let Some(trie) = tables.tries.get(&tenant) else {
            return 0;
        };
        let mut wanted: BTreeMap<ConnId, Grant> = BTreeMap::new();
        trie.matches(message.topic.as_bytes(), |conn, options| {
            let own = || from.is_some() && tables.conns.get(conn).map(|held| held.session) == from;
            if options.no_local && own() {
                return;
            }
            let grant = Grant::of(*options);
            match wanted.entry(*conn) {
                Entry::Vacant(first) => _ = first.insert(grant),
                Entry::Occupied(mut known) => known.get_mut().join(&grant),
            }
        });
        if !self.quota.take(tenant, wanted.len()) {
            let held = wanted.keys().filter_map(|conn| tables.conns.get(conn));
            held.for_each(|held| held.conn.note_dropped(&message.topic, Cause::DeliveryQuota));
            return wanted.len();
        }
        for (conn, grant) in &mut wanted {
            let Some(Holder { conn, .. }) = tables.conns.get(conn) else {
                continue;
            };
            grant.limit(message);
            let delivery = Delivery::granted(None, grant, Arc::clone(message));
            conn.pass(delivery);
        }
        wanted.len()
    }

    /// Every connection that holds one.
    pub(crate) fn conns(&self) -> Vec<Arc<Conn>> {
        let tables = self.tables.read().expect("no panic while it is locked");
        tables.conns.values().map(|held| Arc::clone(&held.conn)).collect()
    }

    /// Every filter held by anybody here.
    pub(crate) fn filters(&self) -> Vec<(TenantId, Text)> {
        let tables = self.tables.read().expect("no panic while it is locked");
        let mut filters: Vec<_> = tables.held.keys().cloned().collect();
        filters.sort();
        filters
    }

    /// Subscriptions held.
    pub(crate) fn len(&self) -> usize {
        let tables = self.tables.read().expect("no panic while it is locked");
        tables.tries.values().map(Trie::len).sum()
    }
}

impl Tables {
    /// One holder less; true if it was the last.
    fn release(&mut self, conn: ConnId, tenant: TenantId, filter: &Text) -> bool {
        if let Some(trie) = self.tries.get_mut(&tenant) {
            trie.remove(filter.as_bytes(), &conn);
        }
        let key = (tenant, filter.clone());
        let Some(held) = self.held.get_mut(&key) else {
            return false;
        };
        *held -= 1;
        if *held > 0 {
            return false;
        }
        self.held.remove(&key);
        true
    }
}
