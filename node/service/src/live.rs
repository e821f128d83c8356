//! Clean sessions of this node: who gets what is published now. Nothing here outlives the process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock},
};

use moorline_core::{
    ConnId, Delivery, Message, QoS, TenantId, Text,
    port::{Filter, Notice},
    trie::Trie,
};

use crate::conn::Conn;

/// The node's live subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Live {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    tries: BTreeMap<TenantId, Trie<ConnId, QoS>>,
    conns: HashMap<ConnId, (Arc<Conn>, TenantId, BTreeSet<Text>)>,
    /// How many connections hold a filter: the node has a route while there is one.
    held: HashMap<(TenantId, Text), u64>,
}

impl Live {
    /// Whether a connection would have at most `max` subscriptions with these.
    pub(crate) fn has_room(&self, conn: ConnId, filters: &[Filter], max: usize) -> bool {
        let tables = self.tables.read().expect("no panic while it is locked");
        let held = tables.conns.get(&conn).map(|(_, _, held)| held);
        let is_new = |filter: &&Filter| held.is_none_or(|held| !held.contains(&filter.filter));
        let new: BTreeSet<&Text> =
            filters.iter().filter(is_new).map(|filter| &filter.filter).collect();
        held.map_or(0, BTreeSet::len) + new.len() <= max
    }

    /// Adds or replaces a subscription; says whether the node did not hold the filter before.
    pub(crate) fn subscribe(
        &self,
        conn: &Arc<Conn>,
        tenant: TenantId,
        filter: &Text,
        qos: QoS,
    ) -> bool {
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let trie = tables.tries.entry(tenant).or_default();
        if trie.insert(filter.as_bytes(), conn.id(), qos).is_some() {
            return false;
        }
        let entry = tables.conns.entry(conn.id());
        entry
            .or_insert_with(|| (Arc::clone(conn), tenant, BTreeSet::new()))
            .2
            .insert(filter.clone());
        let held = tables.held.entry((tenant, filter.clone())).or_default();
        *held += 1;
        *held == 1
    }

    /// Ends a subscription: whether it existed, and whether nobody on this node holds the filter any more.
    pub(crate) fn unsubscribe(
        &self,
        conn: ConnId,
        tenant: TenantId,
        filter: &Text,
    ) -> (bool, bool) {
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let Some((_, _, filters)) = tables.conns.get_mut(&conn) else {
            return (false, false);
        };
        if !filters.remove(filter) {
            return (false, false);
        }
        (true, tables.release(conn, tenant, filter))
    }

    /// Ends all of a connection; gives the filters nobody on this node holds any more.
    pub(crate) fn leave(&self, conn: ConnId) -> Vec<(TenantId, Text)> {
        let mut tables = self.tables.write().expect("no panic while it is locked");
        let Some((_, tenant, filters)) = tables.conns.remove(&conn) else {
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

    /// Hands a message to everybody here who wants it; each gets it once, at the highest QoS it asked for.
    pub(crate) fn deliver(&self, tenant: TenantId, message: &Arc<Message>) -> usize {
        let tables = self.tables.read().expect("no panic while it is locked");
        let Some(trie) = tables.tries.get(&tenant) else {
            return 0;
        };
        let mut wanted: BTreeMap<ConnId, QoS> = BTreeMap::new();
        trie.matches(message.topic.as_bytes(), |conn, qos| {
            let granted = wanted.entry(*conn).or_insert(*qos);
            *granted = (*granted).max(*qos);
        });
        for (conn, granted) in &wanted {
            let Some((conn, _, _)) = tables.conns.get(conn) else {
                continue;
            };
            let qos = message.qos.min(*granted);
            let message = Arc::clone(message);
            let delivery = Delivery { offset: None, qos, resent: false, released: false, message };
            conn.push(Notice::Deliver(vec![delivery]));
        }
        wanted.len()
    }

    /// Every connection that holds one.
    pub(crate) fn conns(&self) -> Vec<Arc<Conn>> {
        let tables = self.tables.read().expect("no panic while it is locked");
        tables.conns.values().map(|(conn, ..)| Arc::clone(conn)).collect()
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
