//! Replicas fed the same log hold the same rows, whatever happens to one of them on the way.

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use moorline_core::{
    AttributeScope, ConnId, Epoch, Incarnation, Message, NodeId, Offset, QoS, ShardId,
    SubscriptionOptions, TenantId, Text, UnixMillis, Value, Will,
    level::{Levels, Program},
    port::SessionLimits,
    session_name,
};
use moorline_machine::{
    Answer, Batch, BatchBuilder, Effect, Machine, MailCommand, RunAnswers, RunBuilder,
    ValueCommand,
    command::{
        Command, Enqueued, Holder, NodeRecord, Origin, ProducerId, RouteTarget, SessionId,
        Subscription,
    },
    documents::{DeleteDocument, DocumentCommand, Expect, PutDocument, Space, SpaceOwner},
    events::{AppendEvent, Retention},
    forget::{Forget, Forgotten, whole},
    mail::{MailOp, SendMail},
    presence::PresenceReport,
    registry::Owner,
    values::{DeleteSeries, NewPoint, Record, RecordRules, TellAttributes, WriteAttributes},
};
use moorline_storage::{Rows, Store, mem::MemStore, overlay::Overlay};
use proptest::prelude::*;

use crate::{audit, devices, events, harness::*, mail, presence, tenants, values};

fn session_id() -> impl Strategy<Value = SessionId> {
    // The buckets of the clients below, so that some of them meet.
    let buckets: Vec<u16> = CLIENTS
        .iter()
        .map(|client| moorline_core::shard::bucket_of(TenantId(1), client.as_bytes()))
        .collect();
    (prop::sample::select(buckets), 1..4_u64)
        .prop_map(|(bucket, number)| SessionId { bucket, number })
}

const CLIENTS: [&str; 3] = ["a", "b", "c"];
const FILTERS: [&str; 6] = ["t", "t/+", "#", "u/#", "t/1", SHARED];
const SHARED: &str = "$share/g/t/+";
const TOPICS: [&str; 4] = ["t", "t/1", "u", "u/2/3"];

fn holder() -> impl Strategy<Value = Holder> {
    (1..3_u64, 1..3_u64, 1..4_u64).prop_map(|(node, incarnation, conn)| Holder {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        conn: ConnId(conn),
    })
}

fn text(from: &'static [&'static str]) -> impl Strategy<Value = Text> {
    prop::sample::select(from).prop_map(Text::from)
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn publishing() -> impl Strategy<Value = Command> {
    let len = prop::sample::select(&[0, 20, 300][..]);
    (text(&TOPICS), qos(), len, prop::option::of(session_id()), any::<bool>()).prop_map(
        |(topic, qos, len, from, retain)| {
            let message = message(topic.as_str(), qos, &vec![7; len]);
            Command::Publish { tenant: TenantId(1), from, message: Message { retain, ..message } }
        },
    )
}

fn options() -> impl Strategy<Value = SubscriptionOptions> {
    (qos(), any::<bool>(), any::<bool>(), 0..3_u32).prop_map(
        |(qos, no_local, retain_as_published, id)| SubscriptionOptions {
            no_local,
            retain_as_published,
            id: NonZeroU32::new(id),
            ..SubscriptionOptions::of_qos(qos)
        },
    )
}

fn will() -> impl Strategy<Value = Option<Box<Will>>> {
    let will = (text(&TOPICS), qos(), prop::sample::select(&[0, 1, 100][..])).prop_map(
        |(topic, qos, delay_s)| {
            Box::new(Will { message: message(topic.as_str(), qos, b"gone"), delay_s })
        },
    );
    prop::option::of(will)
}

fn mail_command() -> impl Strategy<Value = Command> {
    let id = || 0..6_u128;
    let ttl_ms = prop::option::of(0..400_000_u64);
    let op = prop::sample::select(&[MailOp::Ack, MailOp::Requeue][..]);
    let born = prop::option::of(1..4_u64);
    prop_oneof![
        6 => (id(), ttl_ms, 0..2_u16, born).prop_map(|(id, ttl_ms, requeues_max, born)| {
            let mut send = SendMail { born, ..mail::send_mail(id) };
            (send.mail.ttl_ms, send.mail.requeues_max) = (ttl_ms, requeues_max);
            Command::Mail(MailCommand::Send(send))
        }),
        2 => (id(), early_birth(), any::<bool>()).prop_map(|(id, born, says)| {
            let send = SendMail { tenant: TenantId(1), born: Some(born), ..mail::send_mail(id) };
            let events = says.then_some(Retention { keep_s: 300, bytes_max: 400 });
            Command::Mail(MailCommand::SendKnown(send, events))
        }),
        4 => (id(), op).prop_map(|(id, op)| mail::settle_mail(id, op)),
        1 => id().prop_map(mail::cancel),
        1 => id().prop_map(mail::delivered),
        1 => any::<bool>().prop_map(mail::purge),
    ]
}

fn event_command() -> impl Strategy<Value = Command> {
    let tenant = || (1..3_u32).prop_map(TenantId);
    let retention =
        (0..400_u32, 60..400_u64).prop_map(|(keep_s, bytes_max)| Retention { keep_s, bytes_max });
    let born = prop::option::weighted(0.1, 1..4_u64);
    prop_oneof![
        6 => (tenant(), text(&CLIENTS), born, retention).prop_map(
            |(tenant, device, born, retention)| events::append(AppendEvent {
                tenant, born, retention, ..events::event(device.as_str(), b"{}")
            })),
        2 => (tenant(), text(&CLIENTS), 0..9_u64).prop_map(
            |(tenant, consumer, offset)| events::commit(tenant, consumer.as_str(), offset)),
        1 => (tenant(), text(&CLIENTS)).prop_map(
            |(tenant, consumer)| events::delete(tenant, consumer.as_str())),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    (text(&CLIENTS), 1..4_u64).prop_map(|(device, born)| Owner {
        tenant: TenantId(1),
        device,
        born,
    })
}

/// A client's session, or a device's.
fn client() -> impl Strategy<Value = Text> {
    let device = owner().prop_map(|of| session_name::of_device(&of.device, of.born, &of.device));
    prop_oneof![text(&CLIENTS), device]
}

fn forgotten() -> impl Strategy<Value = Vec<Owner>> {
    let whole = (1..4_u32).prop_map(|tenant| whole(TenantId(tenant)));
    prop::collection::vec(prop_oneof![4 => owner(), 1 => whole], 1..3)
}

fn shard_command() -> impl Strategy<Value = Command> {
    let expiry = prop::sample::select(&[0, 1, 60, u32::MAX][..]);
    let epoch = (1..4_u64).prop_map(Epoch);
    let subscription =
        (text(&FILTERS), options()).prop_map(|(filter, options)| Subscription { filter, options });
    prop_oneof![
        6 => publishing(),
        2 => (session_id(), options(), 0..9_u64).prop_map(|(member, options, version)| {
            let (tenant, filter) = (TenantId(1), SHARED.into());
            Command::JoinShare { tenant, filter, member, options, version }
        }),
        1 => (session_id(), 0..9_u64).prop_map(|(member, version)| Command::LeaveShare {
            tenant: TenantId(1), filter: SHARED.into(), member, version,
        }),
        4 => (client(), any::<bool>(), expiry.clone(), holder(), will()).prop_map(
            |(client, clean_start, expiry_s, holder, will)| Command::OpenSession {
                tenant: TenantId(1), client, clean_start, expiry_s, holder, will,
                limits: SessionLimits { queue_items: 3 + expiry_s % 2, ..SessionLimits::none() },
                sessions_max: 4,
            }),
        3 => (publishing(), prop::option::of(0..9_u64), any::<bool>(), prop::option::of(owner())).prop_map(
            |(publish, number, empty, owner)| {
                let Command::Publish { tenant, message, .. } = publish else { unreachable!() };
                let payload = if empty { Bytes::new() } else { Bytes::from_static(b"kept") };
                let session = SessionId { bucket: 9, number: 1 };
                let origin = number.map(|number| Origin { session, number, floor: number / 2 });
                Command::Retain { tenant, owner, origin, message: Message { payload, ..message } }
            }),
        2 => (session_id(), epoch.clone(), 0..1_000_000_u64, publishing()).prop_map(
            |(session, epoch, since, publish)| {
                let Command::Publish { message, .. } = publish else { unreachable!() };
                let copy = Enqueued { qos: QoS::AtLeastOnce, ids: None.into(), message };
                Command::Enqueue { session, epoch, since, copies: vec![copy] }
            }),
        1 => prop::collection::vec(0..9_u64, 1..4)
            .prop_map(|numbers| Command::WillsDone { numbers }),
        4 => (session_id(), epoch.clone(), prop::collection::vec(subscription, 1..4)).prop_map(
            |(session, epoch, subscriptions)| Command::Subscribe { session, epoch, subscriptions }),
        1 => (session_id(), epoch.clone(), prop::collection::vec(text(&FILTERS), 1..3)).prop_map(
            |(session, epoch, filters)| Command::Unsubscribe { session, epoch, filters }),
        4 => (session_id(), 0..20_u64, prop::collection::vec(0..30_u64, 0..4)).prop_map(
            |(session, upto, also)| Command::Settle {
                session, upto: Offset(upto), also: also.into_iter().map(Offset).collect(),
            }),
        1 => (session_id(), epoch, prop::option::of(expiry), any::<bool>()).prop_map(
            |(session, epoch, expiry_s, forget_will)| Command::CloseSession {
                session, epoch, expiry_s, forget_will,
            }),
        1 => (1..3_u64, 1..3_u64).prop_map(|(node, gone)| Command::NodeGone {
            node: NodeId(node), gone: Incarnation(gone),
        }),
        5 => devices::change(),
        1 => forgotten().prop_map(|owners| Command::Forget(Forget { owners })),
        1 => forgotten().prop_map(|owners| Command::Forgotten(Forgotten { owners })),
        2 => devices::change().prop_map(audit::audited),
        6 => mail_command(),
        6 => event_command(),
        4 => presence_command(),
        6 => value_command(),
        4 => document_command(),
        1 => Just(Command::Tick),
        1 => Just(Command::Digest),
    ]
}

/// Births of devices that were made first in an early batch: some of them are met.
fn early_birth() -> impl Strategy<Value = u64> {
    (1..8_u64, 0..3_u64).prop_map(|(index, ordinal)| index << 16 | ordinal)
}

fn presence_command() -> impl Strategy<Value = Command> {
    let device = prop::sample::select(&["a", "b", "d"][..]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let report = (1..3_u32, device, early_birth(), flags, 0..300_u32).prop_map(
        |(tenant, device, born, (open, came, says), offline_after_s)| PresenceReport {
            tenant: TenantId(tenant),
            open,
            came,
            heard_ago_ms: came.then_some(7),
            credential: born & 3,
            offline_after_s,
            events: says.then_some(Retention { keep_s: 300, bytes_max: 400 }),
            ..presence::report(device, born)
        },
    );
    (1..3_u64, 1..3_u64, prop::collection::vec(report, 1..5))
        .prop_map(|(node, process, reports)| presence::from((node, process), reports))
}

fn value_command() -> impl Strategy<Value = Command> {
    let device = || (1..3_u32, prop::sample::select(&["a", "b", "d"][..]), early_birth());
    let key = || prop::sample::select(&["k", "l"][..]);
    let change = (key(), prop::option::of(0..9_i64));
    let scope = prop::sample::select(AttributeScope::ALL.as_slice());
    let value = (key(), 0..9_i64).prop_map(|(key, value)| (key.into(), Value::Long(value)));
    let point = (prop::option::of(0..4_i64), prop::collection::vec(value, 0..3))
        .prop_map(|(ts_ms, values)| NewPoint { ts_ms, values });
    let retention =
        (0..400_u32, 60..400_u64).prop_map(|(keep_s, bytes_max)| Retention { keep_s, bytes_max });
    let rules = prop::sample::select(&[RecordRules::First, RecordRules::Second][..]);
    prop_oneof![
        1 => (device(), scope, prop::collection::vec(change, 0..3)).prop_map(
            |((tenant, device, born), scope, changes)| {
                let (tenant, device) = (TenantId(tenant), device.into());
                let changes = changes.into_iter();
                let changes = changes.map(|(key, value)| (key.into(), value.map(Value::Long)));
                let writing = values::writing(born, changes.collect());
                values::write(WriteAttributes { tenant, device, scope, ..writing })
            }),
        2 => (device(), prop::collection::vec(point, 0..3), prop::option::of(retention), rules).prop_map(
            |((tenant, device, born), points, history, rules)| {
                let (tenant, device) = (TenantId(tenant), device.into());
                let recording = values::recording(born, points);
                values::record(Record { tenant, device, rules, history, ..recording })
            }),
        1 => (device(), 0..9_u64).prop_map(|((tenant, device, born), version)| {
            let (tenant, device) = (TenantId(tenant), device.into());
            Command::Values(ValueCommand::Tell(TellAttributes { tenant, device, born, version }))
        }),
        1 => (device(), prop::collection::vec(key(), 0..3), -3..3_i64, any::<bool>()).prop_map(
            |((tenant, device, born), keys, from_ms, latest)| {
                let (tenant, device) = (TenantId(tenant), device.into());
                let keys = keys.into_iter().map(Text::from).collect();
                Command::Values(ValueCommand::Delete(DeleteSeries {
                    tenant, device, born, keys, from_ms, to_ms: 3, latest,
                }))
            }),
    ]
}

fn document_command() -> impl Strategy<Value = Command> {
    let space = || {
        let own = (1..3_u32, text(&CLIENTS)).prop_map(|(tenant, name)| Space {
            tenant: TenantId(tenant),
            owner: SpaceOwner::Tenant,
            name,
        });
        let device = prop::sample::select(&["a", "b", "d"][..]);
        let of_device = (1..3_u32, device, early_birth(), text(&CLIENTS)).prop_map(
            |(tenant, device, born, name)| {
                Space::of_device(TenantId(tenant), &Text::from(device), born, name.as_str())
            },
        );
        prop_oneof![own, of_device]
    };
    let expect = || {
        let version = early_birth().prop_map(Expect::Version);
        prop_oneof![2 => Just(Expect::Any), 1 => Just(Expect::Absent), 1 => version]
    };
    let body = (0..300_usize).prop_map(|len| Bytes::from(vec![7; len]));
    prop_oneof![
        6 => (space(), text(&CLIENTS), body, expect()).prop_map(|(space, id, body, expect)| {
            Command::Documents(DocumentCommand::Put(PutDocument { space, id, body, expect }))
        }),
        2 => (space(), text(&CLIENTS), expect()).prop_map(|(space, id, expect)| {
            Command::Documents(DocumentCommand::Delete(DeleteDocument { space, id, expect }))
        }),
        1 => space().prop_map(|of| Command::Documents(DocumentCommand::DeleteSome(of))),
    ]
}

fn meta_command() -> impl Strategy<Value = Command> {
    let record = || {
        (1..4_u64, 0..3_u128, 1..3_u64).prop_map(|(node, store, incarnation)| NodeRecord {
            node: NodeId(node),
            store,
            incarnation: Incarnation(incarnation),
            address: Text::from("x:1"),
        })
    };
    let target = prop_oneof![
        (1..3_u16).prop_map(|shard| RouteTarget::Shard(ShardId(shard))),
        (1..3_u64, 1..3_u64)
            .prop_map(|(node, process)| RouteTarget::Node(NodeId(node), Incarnation(process))),
    ];
    prop_oneof![
        1 => (1..4_u16, prop::collection::vec(record(), 1..4)).prop_map(|(shards, nodes)| {
            Command::CreateCluster { cluster: 1, shards, nodes, replicas: 3 }
        }),
        3 => record().prop_map(Command::RegisterNode),
        8 => (text(&FILTERS), target, 1..9_u64, any::<bool>()).prop_map(
            |(filter, target, version, present)| Command::SetRoute {
                tenant: TenantId(1), filter, target, version, present,
            }),
        1 => (1..4_u64, 1..3_u64).prop_map(|(node, gone)| Command::DropNodeRoutes {
            node: NodeId(node), gone: Incarnation(gone),
        }),
        1 => (1..3_u32, text(&CLIENTS)).prop_map(|(tenant, name)| Command::SetTenant {
            tenant: TenantId(tenant), name,
        }),
        4 => tenants::put(),
        1 => forgotten().prop_map(|owners| Command::Forgotten(Forgotten { owners })),
        2 => tenants::delete(),
        2 => (1..4_u16, prop::collection::vec((1..4_u64, 1..4_u16), 0..4)).prop_map(
            |(level, said)| Command::SetLevel {
                level,
                programs: said.into_iter().map(|(node, max)| {
                    let levels = Levels { min: 1, max };
                    (NodeId(node), Program { levels, ..Program::SILENT })
                }).collect(),
            }),
        1 => (0..6_u8).prop_map(|replicas| Command::SetReplicas { replicas }),
        1 => Just(Command::Tick),
        1 => Just(Command::Digest),
    ]
}

/// A log: batches of runs of two producers, some of which come twice, with time going by.
fn log(command: impl Strategy<Value = Command>) -> impl Strategy<Value = Vec<Bytes>> {
    let run = (0..2_usize, prop::collection::vec(command, 1..6), 0..4_u8);
    let batch = (prop::collection::vec(run, 1..4), 0..200_000_u64);
    prop::collection::vec(batch, 1..25).prop_map(|batches| {
        let mut producers = [1, 2].map(|id| RunBuilder::new(ProducerId(id), 1));
        let mut now = 1_000_000;
        let mut sent = Vec::new();
        batches
            .into_iter()
            .map(|(runs, passed)| {
                let mut batch = BatchBuilder::new();
                for (producer, commands, fate) in runs {
                    let producer = &mut producers[producer];
                    for command in &commands {
                        producer.push(command).unwrap();
                    }
                    let answered_below = producer.next_seq().saturating_sub(8);
                    let run = producer.take(answered_below).unwrap();
                    batch.push(&run);
                    match (fate, sent.last()) {
                        (0, Some(earlier)) => batch.push(earlier),
                        (1, _) => batch.push(&run),
                        _ => {}
                    }
                    sent.push(run);
                }
                now += passed;
                batch.finish(UnixMillis(now))
            })
            .collect()
    })
}

/// A replica and everything it said.
struct Replica<R> {
    machine: Machine,
    rows: R,
    said: Vec<(Vec<RunAnswers>, Vec<Effect>)>,
}

impl<R: Rows> Replica<R> {
    fn new(group: ShardId, rows: R) -> Self {
        Self { machine: Machine::open(group, &rows).unwrap(), rows, said: Vec::new() }
    }

    fn apply(&mut self, index: u64, batch: &Bytes) {
        let mut effects = Vec::new();
        let answers = self.machine.apply(&mut self.rows, index, batch, &mut effects).unwrap();
        self.machine.assert_derived(&self.rows).unwrap();
        self.said.push((answers, effects));
    }

    fn all(&self) -> Vec<(Bytes, Bytes)> {
        let mut rows = Vec::new();
        self.rows
            .scan(b"", &[0xFF; 8], &mut |key, value| {
                rows.push((Bytes::copy_from_slice(key), value.clone()));
                ControlFlow::Continue(())
            })
            .unwrap();
        rows
    }
}

/// What happens to one replica: each at its index of the log.
#[derive(Debug, Clone)]
struct Fate {
    /// Rows are frozen here …
    freeze_at: usize,
    /// … and are in the store, and flushed, so many entries later.
    written_after: usize,
    /// The process dies: what is not in the store is gone, and the log is applied again from there.
    crash_at: usize,
    /// It gets a copy of the other replica's rows instead of the entry.
    install_at: usize,
}

fn fate() -> impl Strategy<Value = Fate> {
    (0..25_usize, 0..6_usize, 0..25_usize, 0..25_usize).prop_map(
        |(freeze_at, written_after, crash_at, install_at)| Fate {
            freeze_at,
            written_after,
            crash_at,
            install_at,
        },
    )
}

fn agree(group: ShardId, log: &[Bytes], fate: &Fate) -> Result<(), TestCaseError> {
    let mut steady = Replica::new(group, Map::default());
    let store = Arc::new(MemStore::new());
    let mut tried = Replica::new(group, Overlay::new(Arc::clone(&store)));
    let (mut durable, mut frozen) = (0, None);
    for (at, batch) in log.iter().enumerate() {
        if at == fate.freeze_at {
            frozen = Some((at, tried.rows.freeze()));
        }
        if at == fate.freeze_at + fate.written_after
            && let Some((index, frozen)) = frozen.take()
        {
            store.write(frozen.to_batch()).unwrap();
            store.flush().unwrap();
            tried.rows.thaw_done();
            durable = index;
        }
        if at == fate.crash_at {
            store.crash();
            frozen = None;
            tried = Replica {
                said: tried.said[..durable].to_vec(),
                ..Replica::new(group, Overlay::new(Arc::clone(&store)))
            };
            for (again, batch) in log[..at].iter().enumerate().skip(durable) {
                tried.apply(again as u64, batch);
            }
        }
        steady.apply(at as u64, batch);
        if at == fate.install_at {
            tried.rows = Overlay::new(Arc::new(MemStore::new()));
            steady.all().into_iter().for_each(|(key, value)| tried.rows.put(key, value));
            tried.machine = Machine::open(group, &tried.rows).unwrap();
            tried.said.push(steady.said[at].clone());
            // What was in the other store is of no use any more.
            return finish(steady, tried, &log[at + 1..], at + 1);
        }
        tried.apply(at as u64, batch);
    }
    finish(steady, tried, &[], log.len())
}

/// Applies the rest to both, and compares.
fn finish(
    mut steady: Replica<Map>,
    mut tried: Replica<Overlay<Arc<MemStore>>>,
    rest: &[Bytes],
    from: usize,
) -> Result<(), TestCaseError> {
    for (index, batch) in (from as u64..).zip(rest) {
        steady.apply(index, batch);
        tried.apply(index, batch);
    }
    prop_assert_eq!(steady.all(), tried.all());
    prop_assert_eq!(&steady.said, &tried.said);
    let digest = steady.machine.digest(&steady.rows).unwrap();
    prop_assert_eq!(digest, tried.machine.digest(&tried.rows).unwrap());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn shards_agree_through_checkpoints_crashes_and_snapshots(
        log in log(shard_command()), fate in fate(),
    ) {
        agree(SHARD, &log, &fate)?;
    }

    #[test]
    fn meta_groups_agree_through_checkpoints_crashes_and_snapshots(
        log in log(meta_command()), fate in fate(),
    ) {
        agree(ShardId::META, &log, &fate)?;
    }

    #[test]
    fn logs_and_answers_survive_their_bytes(log in log(shard_command())) {
        let mut replica = Replica::new(SHARD, Map::default());
        for (index, batch) in (1..).zip(&log) {
            let read = Batch::decode(batch).unwrap();
            let mut again = BatchBuilder::new();
            read.runs.iter().for_each(|run| again.push(run));
            prop_assert_eq!(&again.finish(read.ts), batch);
            replica.apply(index, batch);
        }
        for answers in replica.said.iter().flat_map(|(answers, _)| answers) {
            let mut bytes = bytes::BytesMut::new();
            answers.encode(&mut bytes);
            let mut bytes = bytes.freeze();
            prop_assert_eq!(&RunAnswers::decode(&mut bytes).unwrap(), answers);
            prop_assert!(bytes.is_empty());
        }
    }
}

#[test]
fn a_machine_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Machine>();
}

#[test]
fn a_digest_is_over_all_rows_but_the_applied_one() {
    let mut group = Group::new(SHARD);
    group.subscriber("a", 1, "t");
    let before = group.machine.digest(&group.rows).unwrap();
    let applied = Bytes::from_static(&[0, 1, 0xFF, 0xFF, 1]);
    group.rows.0.insert(applied, Bytes::from_static(b"whatever"));
    assert_eq!(group.machine.digest(&group.rows).unwrap(), before);
    group.rows.0.insert(Bytes::from_static(&[0, 2, 0, 0, 4, 1]), Bytes::new());
    assert_eq!(group.machine.digest(&group.rows).unwrap(), before, "another group's row");

    let answer = group.one(Command::Digest);
    let Some(Effect::Digest { index, digest }) = group.effects.last().cloned() else { panic!() };
    assert_eq!(answer, Answer::At(index));
    assert_eq!(index, group.index);
    assert_eq!(digest, group.machine.digest(&group.rows).unwrap());
}

#[test]
#[should_panic(expected = "again")]
fn an_index_that_comes_again_stops_the_replica() {
    let mut group = Group::new(SHARD);
    group.one(Command::Tick);
    group.machine.blank(group.index);
}

#[test]
fn bytes_that_no_leader_made_stop_the_replica() {
    let mut group = Group::new(SHARD);
    for (n, entry) in [&b""[..], &b"\x01"[..], &[9; 11][..]].into_iter().enumerate() {
        let entry = Bytes::copy_from_slice(entry);
        let index = n as u64 + 1;
        assert!(group.machine.apply(&mut group.rows, index, &entry, &mut Vec::new()).is_err());
    }
}

/// Random logs as the last program without levels wrote them (8d5c28e), in hex, and how many rows with which digest it made of them.
const LOGS_OF_LEVEL_1: &str = include_str!("logs_of_level_1.txt");

#[test]
fn logs_of_the_first_level_make_the_rows_that_they_made() {
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let (mut replica, mut index, mut logs) = (None, 0, 0);
    for line in LOGS_OF_LEVEL_1.lines() {
        if let Some(group) = line.strip_prefix("group ") {
            replica = Some(Replica::new(ShardId(group.parse().unwrap()), Map::default()));
            index = 0;
        } else if let Some(made) = line.strip_prefix("makes ") {
            let replica: Replica<Map> = replica.take().unwrap();
            let digest = replica.machine.digest(&replica.rows).unwrap();
            assert_eq!(format!("{} {digest:032x}", replica.all().len()), made);
            logs += 1;
        } else {
            index += 1;
            let batch: Bytes = line.as_bytes().chunks_exact(2).map(byte).collect();
            replica.as_mut().unwrap().apply(index, &batch);
        }
    }
    assert_eq!(logs, 4);
}
