//! Who reads events at this node: a limited number, and each tenant its part.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use moorline_core::TenantId;
use prometheus::IntGauge;

/// Event streams that a node serves at a time. Each asks every shard, and holds a page of each (64 KiB) when its client does
/// not take them: with 12 shards about 100 MiB in all, if no client takes anything.
pub const EVENT_READERS_MAX: usize = 128;
/// Those of one tenant, so that it leaves room for others.
pub const EVENT_READERS_PER_TENANT_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Readers {
    tenants: Mutex<BTreeMap<TenantId, usize>>,
}

/// A place among the readers; it is free again when this goes.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    tenant: TenantId,
    count: IntGauge,
}

impl Readers {
    /// A place, if there is one.
    pub(crate) fn begin(self: &Arc<Self>, tenant: TenantId, count: IntGauge) -> Option<Reading> {
        let mut tenants = self.tenants.lock().expect("no panic while it is locked");
        let all: usize = tenants.values().sum();
        let own = tenants.get(&tenant).copied().unwrap_or(0);
        if all >= EVENT_READERS_MAX || own >= EVENT_READERS_PER_TENANT_MAX {
            return None;
        }
        tenants.insert(tenant, own + 1);
        count.inc();
        Some(Reading { readers: Arc::clone(self), tenant, count })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut tenants = self.readers.tenants.lock().expect("no panic while it is locked");
        if let Some(own) = tenants.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                tenants.remove(&self.tenant);
            }
        }
        self.count.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_so_many_readers_and_a_tenant_its_part() {
        let (readers, count) = (Arc::new(Readers::default()), IntGauge::new("n", "h").unwrap());
        let begin = |tenant| readers.begin(TenantId(tenant), count.clone());
        let mut held: Vec<_> =
            (0..EVENT_READERS_PER_TENANT_MAX).map(|_| begin(1).unwrap()).collect();
        assert!(begin(1).is_none());
        held.pop();
        held.push(begin(1).unwrap());
        let rest = EVENT_READERS_MAX - EVENT_READERS_PER_TENANT_MAX;
        held.extend((0..rest).map(|number| begin(2 + number as u32 / 32).unwrap()));
        assert_eq!(count.get(), EVENT_READERS_MAX as i64);
        assert!(begin(99).is_none());
        drop(held);
        assert_eq!(count.get(), 0);
        assert!(readers.tenants.lock().unwrap().is_empty());
        assert!(begin(99).is_some());
    }
}
