//! Two tenants in one shard and one meta group, with the same client ids, filters, shares and topics: nothing of one is ever delivered,
//! routed or given to the other.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Incarnation, Message, NodeId, QoS, ShardId, TenantId, Text, UnixMillis, Will};
use moorline_machine::{
    Answer, Command, Effect, RetainedQuery,
    command::{NodeRecord, RouteTarget, SessionId},
};
use proptest::prelude::*;

use crate::harness::*;

const TENANTS: [TenantId; 2] = [TenantId(1), TenantId(2)];
const FILTERS: [&str; 6] = ["#", "a/#", "+/b", "$share/g/#", "$share/g/a/+", "x"];
const TOPICS: [&str; 4] = ["a", "a/b", "x", "b/b"];

/// A thing that one of them does.
#[derive(Debug, Clone)]
enum Act {
    Open { client: u8, will: bool },
    Subscribe { client: u8, filter: usize },
    Publish { topic: usize, retain: bool },
    Break { client: u8 },
}

fn act() -> impl Strategy<Value = (usize, Act)> {
    let act = prop_oneof![
        3 => (0..3_u8, any::<bool>()).prop_map(|(client, will)| Act::Open { client, will }),
        4 => (0..3_u8, 0..FILTERS.len()).prop_map(|(client, filter)| Act::Subscribe { client, filter }),
        5 => (0..TOPICS.len(), any::<bool>()).prop_map(|(topic, retain)| Act::Publish { topic, retain }),
        1 => (0..3_u8).prop_map(|client| Act::Break { client }),
    ];
    (0..2_usize, act)
}

fn canary(tenant: TenantId) -> Vec<u8> {
    format!("of tenant {}", tenant.0).into_bytes()
}

fn said(topic: &str, tenant: TenantId, retain: bool) -> Message {
    Message { retain, ..message(topic, QoS::AtLeastOnce, &canary(tenant)) }
}

struct Both {
    group: Group,
    meta: Group,
    /// Whose a session or share is.
    owners: BTreeMap<SessionId, TenantId>,
    open: BTreeMap<(TenantId, u8), (SessionId, moorline_core::Epoch)>,
    /// Who opened a session once.
    known: BTreeSet<(TenantId, u8)>,
    conns: u64,
}

impl Both {
    fn new() -> Self {
        let (group, mut meta) = (Group::new(SHARD), Group::new(ShardId::META));
        let (node, incarnation, address) = (NodeId(1), Incarnation(1), Text::from("x:1"));
        let nodes = vec![NodeRecord { node, store: 1, incarnation, address }];
        meta.one(Command::CreateCluster { cluster: 1, shards: 1, nodes, replicas: 1 });
        Self {
            group,
            meta,
            owners: BTreeMap::new(),
            open: BTreeMap::new(),
            known: BTreeSet::new(),
            conns: 0,
        }
    }

    fn act(&mut self, tenant: TenantId, act: Act) {
        match act {
            Act::Open { client, will } => {
                self.conns += 1;
                let Command::OpenSession {
                    clean_start,
                    expiry_s,
                    holder,
                    limits,
                    sessions_max,
                    ..
                } = open("", self.conns, false, 60)
                else {
                    unreachable!()
                };
                let client_id = Text::from(format!("c{client}"));
                let will =
                    will.then(|| Box::new(Will { message: said("a", tenant, false), delay_s: 0 }));
                let answer = self.group.one(Command::OpenSession {
                    tenant,
                    client: client_id,
                    clean_start,
                    expiry_s,
                    holder,
                    limits,
                    sessions_max,
                    will,
                });
                let Answer::Opened { session, epoch, previous, present, .. } = answer else {
                    panic!()
                };
                self.open.insert((tenant, client), (session, epoch));
                if self.known.insert((tenant, client)) {
                    assert!(previous.is_none() && !present, "a namesake is somebody else");
                }
                assert_eq!(*self.owners.entry(session).or_insert(tenant), tenant);
            }
            Act::Subscribe { client, filter } => self.subscribe(tenant, client, FILTERS[filter]),
            Act::Publish { topic, retain } => {
                let message = said(TOPICS[topic], tenant, retain);
                self.group.one(Command::Publish { tenant, from: None, message: message.clone() });
                self.heard();
                if retain {
                    let (owner, origin) = (None, None);
                    self.group.one(Command::Retain { tenant, owner, origin, message });
                }
            }
            Act::Break { client } => {
                let Some((session, epoch)) = self.open.remove(&(tenant, client)) else { return };
                self.group.one(close(session, epoch));
            }
        }
        self.heard();
    }

    fn subscribe(&mut self, tenant: TenantId, client: u8, filter: &str) {
        let Some(&(session, epoch)) = self.open.get(&(tenant, client)) else { return };
        let asked = subscribe(session, epoch, &[(filter, QoS::AtLeastOnce)]);
        let Answer::Subscribed { routes, .. } = self.group.one(asked) else { return };
        let mut route = routes[0].clone();
        if filter.starts_with("$share") {
            let join = Command::JoinShare {
                tenant,
                filter: Text::from(filter),
                member: session,
                options: moorline_core::SubscriptionOptions::of_qos(QoS::AtLeastOnce),
                version: route.version,
            };
            let Answer::Joined { share, route: to } = self.group.one(join) else { return };
            assert_eq!(*self.owners.entry(share).or_insert(tenant), tenant, "its own group");
            route = to;
        }
        assert_eq!(route.tenant, tenant);
        let (target, present) = (RouteTarget::Shard(SHARD), true);
        let (filter, version) = (route.filter, route.version);
        self.meta.one(Command::SetRoute { tenant, filter, target, version, present });
    }

    /// What was handed out just now.
    fn heard(&self) {
        for effect in &self.group.effects {
            if let Effect::Deliver { session, delivery } = effect {
                assert_eq!(delivery.message.payload, canary(self.owners[session]));
            }
        }
    }

    /// What there is to be found at the end.
    fn look(&self) {
        for (session, tenant) in &self.owners {
            for (_, payload) in self.group.queue(*session) {
                assert_eq!(payload, canary(*tenant));
            }
        }
        for tenant in TENANTS {
            let filter = Text::from("#");
            let page = self.group.machine.retained(
                &self.group.rows,
                &RetainedQuery {
                    tenant,
                    filter: &filter,
                    after: None,
                    now: UnixMillis(self.group.now),
                    items_max: 99,
                    bytes_max: 99_999,
                },
            );
            let kept = page.unwrap().messages;
            assert!(kept.iter().all(|kept| kept.payload == canary(tenant)));
            for topic in TOPICS {
                let mut targets = Vec::new();
                self.meta.machine.meta().routes(tenant, topic.as_bytes(), &mut targets);
                let wanted = self.owners.values().any(|owner| *owner == tenant);
                assert!(wanted || targets.is_empty(), "a route of the other");
            }
        }
        for will in self.group.machine.due_wills(&self.group.rows, 0, 99).unwrap() {
            assert_eq!(will.message.payload, canary(will.tenant));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_of_one_tenant_reaches_the_other(acts in prop::collection::vec(act(), 1..60)) {
        let mut both = Both::new();
        for (tenant, act) in acts {
            both.act(TENANTS[tenant], act);
        }
        both.look();
    }
}
