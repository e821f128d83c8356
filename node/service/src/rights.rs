//! Which topics a connection may use, as its tenant's and device's settings say now.
//!
//! ```text
//!   settings of the device, else of its tenant, else the default ─► Rights of a connection
//!     asked at: PUBLISH · SUBSCRIBE · CONNECT with a will · each delivery · resuming a session · a will that is due
//!   settings change ─► news (device) or a look at versions (tenant) ─► new Rights ─► what it holds and may not: closed (0x87)
//! ```
//!
//! # Invariants
//!
//! - **A delivery is compared again**, whatever was granted before: so a subscription that is wider than its right, one from before the
//!   rights changed, and one of a resumed session bring nothing that may not be read. Checked by the cluster tests (`rights.rs`).
//! - **A connection that holds what it may not any more is closed**: what was on its way to the client goes with it. When it
//!   comes again, the subscriptions that its session may not have are ended before it is let in.
//! - **A change is seen within [`LOOK_INTERVAL`] of being applied here** (tenants), or with its news (devices), whose loss costs as
//!   much as it costs revocation (`registry/watch.rs`).
//!
//! # Deliberately absent
//!
//! How patterns are compared (`protocols/core`, `rights.rs`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use moorline_core::{
    ConnId, ShardId, TenantId, Text,
    port::{Ended, Notice, Refusal},
    rights::{Rules, Who},
};
use moorline_machine::{
    Answer, Command,
    query::{Found, Query},
    registry::{DeviceRecord, Owner},
};
use tokio::{sync::Notify, time::timeout};
use tracing::debug;

use crate::{
    conn::{Conn, Whose},
    refusal_of,
    registry::{
        Registry,
        settings::{self, DeviceSettings, TopicRules},
        watch::DeviceNews,
    },
    service::Inner,
};

/// How often versions of tenants are looked at: rules reach connections within a second of being written.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Connections and devices that are looked at again at a time: each is a question to a shard.
const LOOKS_AT_ONCE: usize = 32;

/// What a connection may do. Without any it may use every topic of its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    rules: Rules,
    who: Option<Arc<Who>>,
}

impl Rights {
    pub(crate) fn may_publish(&self, topic: &Text) -> bool {
        self.rules.may_publish(self.who.as_deref(), topic.as_bytes())
    }

    pub(crate) fn may_read(&self, topic: &Text) -> bool {
        self.rules.may_read(self.who.as_deref(), topic.as_bytes())
    }

    pub(crate) fn may_subscribe(&self, filter: &Text) -> bool {
        self.rules.may_subscribe(self.who.as_deref(), filter.as_bytes())
    }

    /// Whether a subscription from before must end its connection.
    fn is_cut(&self, before: Option<&Self>, filter: &Text) -> bool {
        let denied = |rights: &Self| rights.rules.lists().deny_subscribe.clone();
        let fewer = before.map(denied).unwrap_or_default() != denied(self);
        !self.may_subscribe(filter)
            || fewer && self.rules.denies_part_of(self.who.as_deref(), filter.as_bytes())
    }
}

/// Whose connections are here, so that a change finds them.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    tables: Mutex<Tables>,
    /// Devices of which there is news.
    changed: Mutex<BTreeSet<(TenantId, Text)>>,
    pub(crate) bell: Notify,
}

#[derive(Debug, Default)]
struct Tables {
    devices: HashMap<(TenantId, Text), BTreeSet<ConnId>>,
    /// By tenant: the version its connections have their rights of, and how many connections.
    tenants: BTreeMap<TenantId, (u64, usize)>,
}

impl Holders {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no panic while it is locked")
    }

    /// `false` if the tenant has as many connections here as it may; then nothing was noted.
    fn enter(
        &self,
        conn: ConnId,
        tenant: TenantId,
        who: Option<&Who>,
        (version, connections_max): (u64, Option<usize>),
    ) -> bool {
        let mut tables = self.tables();
        let here = tables.tenants.get(&tenant).map_or(0, |(_, count)| *count);
        if connections_max.is_some_and(|max| here >= max) {
            return false;
        }
        // An older version is found out at the next look.
        let (known, count) = tables.tenants.entry(tenant).or_insert((version, 0));
        *known = version.min(*known);
        *count += 1;
        if let Some(who) = who {
            tables.devices.entry((tenant, who.device.clone())).or_default().insert(conn);
        }
        true
    }

    pub(crate) fn leave(&self, conn: ConnId, tenant: TenantId, who: Option<&Who>) {
        let mut tables = self.tables();
        if let Some((_, count)) = tables.tenants.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                tables.tenants.remove(&tenant);
            }
        }
        let Some(who) = who else { return };
        let whose = (tenant, who.device.clone());
        if let Some(conns) = tables.devices.get_mut(&whose) {
            conns.remove(&conn);
            if conns.is_empty() {
                tables.devices.remove(&whose);
            }
        }
    }

    fn of(&self, whose: &(TenantId, Text)) -> Vec<ConnId> {
        self.tables().devices.get(whose).into_iter().flatten().copied().collect()
    }

    /// News of devices came: those of which connections are here are looked at.
    pub(crate) fn hear(&self, of_shard: impl Fn(TenantId, &Text) -> bool, news: &[DeviceNews]) {
        let mut found = Vec::new();
        {
            let tables = self.tables();
            for one in news {
                match one {
                    DeviceNews::Device(tenant, device) => {
                        let whose = (*tenant, device.clone());
                        found.extend(tables.devices.contains_key(&whose).then_some(whose));
                    }
                    DeviceNews::Anew => {
                        let there = tables.devices.keys();
                        found.extend(
                            there.filter(|(tenant, device)| of_shard(*tenant, device)).cloned(),
                        );
                    }
                    DeviceNews::Mail(..)
                    | DeviceNews::Claim(..)
                    | DeviceNews::Here(..)
                    | DeviceNews::Attributes(..)
                    | DeviceNews::Calls(..)
                    | DeviceNews::Outcome(..) => {}
                }
            }
        }
        if !found.is_empty() {
            self.changed.lock().expect("no panic while it is locked").extend(found);
            self.bell.notify_one();
        }
    }

    fn take_changed(&self) -> BTreeSet<(TenantId, Text)> {
        std::mem::take(&mut *self.changed.lock().expect("no panic while it is locked"))
    }
}

fn who_in(device: &Text, record: &DeviceRecord) -> Arc<Who> {
    who_of(device, record.born, settings::read(&record.settings))
}

/// What of a device's row patterns are compared with.
pub(crate) fn who_of(device: &Text, born: u64, settings: DeviceSettings) -> Arc<Who> {
    Arc::new(Who {
        device: device.clone(),
        born,
        kind: settings.kind.map(Text::from),
        class: settings.class.name(),
        own: settings.topics.map(|TopicRules(rules)| rules),
    })
}

impl Inner {
    /// The rights of a client of a tenant by now, and the tenant's version.
    pub(crate) fn rights_of(
        &self,
        tenant: TenantId,
        who: Option<&Arc<Who>>,
    ) -> (Option<Rights>, u64) {
        let read = self.below().groups.read(ShardId::META, |machine, _| {
            let record = machine.meta().tenant(tenant)?;
            let settings = self.parsed.get(tenant, record.version, &record.settings);
            Some((settings.topics.clone(), record.version))
        });
        let (topics, version) = read.flatten().unwrap_or_default();
        let own = who.and_then(|who| who.own.clone());
        let rules = own.or(topics.map(|TopicRules(rules)| rules));
        let rules = rules.or_else(|| who.map(|_| self.own_subtree.clone()));
        (rules.map(|rules| Rights { rules, who: who.cloned() }), version)
    }

    /// A connection says who it is: from now on changes reach it. `false` if its tenant has as many here as it may.
    pub(crate) fn begin_rights(
        &self,
        conn: &Arc<Conn>,
        tenant: TenantId,
        who: Option<Arc<Who>>,
    ) -> bool {
        let (_, version) = self.rights_of(tenant, who.as_ref());
        let as_of = (version, self.connections_max(tenant));
        if !self.holders.enter(conn.id(), tenant, who.as_deref(), as_of) {
            return false;
        }
        // Read after it was entered: a change in between is one of a later version.
        let (rights, _) = self.rights_of(tenant, who.as_ref());
        conn.set_rights(tenant, who, rights);
        true
    }

    fn connections_max(&self, tenant: TenantId) -> Option<usize> {
        let read = self.below().groups.read(ShardId::META, |machine, _| {
            let record = machine.meta().tenant(tenant)?;
            let settings = self.parsed.get(tenant, record.version, &record.settings);
            Some(settings.quotas.connections_max)
        });
        let max = read.flatten().filter(|max| *max > 0)?;
        usize::try_from(max).ok()
    }

    /// A connection is gone.
    pub(crate) fn end_rights(&self, conn: &Conn) {
        if let Some((tenant, who)) = conn.end_rights() {
            self.holders.leave(conn.id(), tenant, who.as_deref());
        }
    }

    /// Whether a will may be published now. `None` if nobody can say.
    pub(crate) async fn may_will(
        self: &Arc<Self>,
        tenant: TenantId,
        owner: Option<&Owner>,
        topic: &Text,
    ) -> Option<bool> {
        let registry = Registry::new(Arc::clone(self));
        if registry.tenant(tenant).is_some_and(|record| !record.enabled) {
            return Some(false);
        }
        let who = match owner {
            None => None,
            Some(owner) => match registry.device(tenant, &owner.device).await {
                Ok(Some(record)) if record.born == owner.born && record.enabled => {
                    Some(who_in(&owner.device, &record))
                }
                Ok(_) => return Some(false),
                Err(_) => return None,
            },
        };
        let (rights, _) = self.rights_of(tenant, who.as_ref());
        Some(rights.is_none_or(|rights| rights.may_publish(topic)))
    }

    // ---- changes

    /// Looks at tenants and devices that changed, for ever.
    pub(crate) async fn keep_rights(self: Arc<Self>) {
        loop {
            drop(timeout(LOOK_INTERVAL, self.holders.bell.notified()).await);
            for tenant in self.changed_tenants() {
                // It may have been disabled: who watches one of its devices asks.
                self.watchers.tell_tenant(tenant);
                let conns = self.all_conns().into_iter();
                let of_tenant = conns.filter(|conn| conn.is_of(tenant));
                let looks = of_tenant.map(|conn| {
                    let who = conn.who();
                    self.look_again(conn, tenant, who)
                });
                stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect::<()>().await;
            }
            let looks = self.holders.take_changed().into_iter();
            let looks = looks.map(|(tenant, device)| self.look_at_device(tenant, device));
            stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect::<()>().await;
        }
    }

    /// Tenants of connections here that have another version than those know of.
    fn changed_tenants(&self) -> Vec<TenantId> {
        let mut tables = self.holders.tables();
        let mut changed = Vec::new();
        self.below().groups.read(ShardId::META, |machine, _| {
            for (tenant, (known, _)) in &mut tables.tenants {
                let version = machine.meta().tenant(*tenant).map_or(0, |record| record.version);
                if std::mem::replace(known, version) != version {
                    changed.push(*tenant);
                }
            }
        });
        changed
    }

    async fn look_at_device(self: &Arc<Self>, tenant: TenantId, device: Text) {
        let registry = Registry::new(Arc::clone(self));
        let conns = self.holders.of(&(tenant, device.clone()));
        let record = match registry.device(tenant, &device).await {
            // Who watches it ends its connections.
            Ok(None) => return,
            Ok(Some(record)) => record,
            Err(problem) => {
                debug!(%problem, "the rights of a device are looked at again");
                let mut changed = self.holders.changed.lock().expect("no panic while it is locked");
                changed.insert((tenant, device));
                return;
            }
        };
        let who = who_in(&device, &record);
        for conn in conns.into_iter().filter_map(|conn| self.conn(conn)) {
            if conn.who().is_some_and(|known| known.born == who.born) {
                self.look_again(conn, tenant, Some(Arc::clone(&who))).await;
            }
        }
    }

    /// Gives a connection its rights of now, and ends it if it holds what it may not any more.
    async fn look_again(
        self: &Arc<Self>,
        conn: Arc<Conn>,
        tenant: TenantId,
        who: Option<Arc<Who>>,
    ) {
        let (rights, _) = self.rights_of(tenant, who.as_ref());
        let Some(before) = conn.replace_rights(who, rights.clone()) else { return };
        let (Some(rights), Some(whose)) = (rights, conn.whose()) else { return };
        let is_cut = |filter: &Text| rights.is_cut(before.as_ref(), filter);
        let held = self.live.filters_of(conn.id());
        let mut cut = held.iter().any(is_cut);
        if !cut && (whose.durable || conn.has_shares()) {
            // Nobody can say: it finds out when it comes again.
            cut = self.filters_of(whose).await.is_none_or(|held| held.iter().any(is_cut));
        }
        if cut {
            self.metrics.rights.narrowed.inc();
            conn.push(Notice::Ended(Ended::Revoked));
        }
    }

    /// What a session's rows say that it is subscribed to.
    async fn filters_of(self: &Arc<Self>, whose: Whose) -> Option<Vec<Text>> {
        let registry = Registry::new(Arc::clone(self));
        let query = Query::Subscriptions { session: whose.session };
        match registry.question(whose.shard, &query).await {
            Ok(Found::Subscriptions(filters)) => Some(filters),
            Ok(other) => {
                debug!(?other, "a question was answered with something else");
                None
            }
            Err(_) => None,
        }
    }

    /// Ends the subscriptions that a resumed session may not have any more, before its client hears of it.
    pub(crate) async fn prune(self: &Arc<Self>, conn: &Conn, whose: Whose) -> Result<(), Refusal> {
        if conn.may_all() {
            return Ok(());
        }
        let mut filters = self.filters_of(whose).await.ok_or(Refusal::Unavailable)?;
        filters.retain(|filter| !conn.may_subscribe(filter));
        if filters.is_empty() {
            return Ok(());
        }
        self.metrics.rights.pruned.inc_by(filters.len() as u64);
        let command = Command::Unsubscribe { session: whose.session, epoch: whose.epoch, filters };
        match self.below().router.ask(whose.shard, &command).await {
            Ok(Answer::Unsubscribed { .. }) => Ok(()),
            Ok(_) => Err(Refusal::Unavailable),
            Err(problem) => Err(refusal_of(&problem)),
        }
    }
}
