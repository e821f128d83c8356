//! Replicas fed the same log hold the same rows, whatever happens to one of them on the way.

use bytes::Bytes;
use moorline_core::{
    ConnId, Epoch, Incarnation, NodeId, Offset, QoS, ShardId, TenantId, Text, UnixMillis,
};
use moorline_machine::{
    Answer, Batch, BatchBuilder, Effect, Machine, RunAnswers, RunBuilder,
    command::{Command, Holder, NodeRecord, ProducerId, RouteTarget, SessionId, Subscription},
};
use proptest::prelude::*;

use crate::common::*;

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
const FILTERS: [&str; 5] = ["t", "t/+", "#", "u/#", "t/1"];
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
    (text(&TOPICS), qos(), prop::sample::select(&[0, 20, 300][..])).prop_map(
        |(topic, qos, len)| Command::Publish {
            tenant: TenantId(1),
            message: message(topic.as_str(), qos, &vec![7; len]),
        },
    )
}

fn shard_command() -> impl Strategy<Value = Command> {
    let expiry = prop::sample::select(&[0, 1, 60, u32::MAX][..]);
    let epoch = (1..4_u64).prop_map(Epoch);
    let subscription =
        (text(&FILTERS), qos()).prop_map(|(filter, qos)| Subscription { filter, qos });
    prop_oneof![
        6 => publishing(),
        4 => (text(&CLIENTS), any::<bool>(), expiry.clone(), holder()).prop_map(
            |(client, clean_start, expiry_s, holder)| Command::OpenSession {
                tenant: TenantId(1), client, clean_start, expiry_s, holder,
            }),
        4 => (session_id(), epoch.clone(), prop::collection::vec(subscription, 1..4)).prop_map(
            |(session, epoch, subscriptions)| Command::Subscribe { session, epoch, subscriptions }),
        1 => (session_id(), epoch.clone(), prop::collection::vec(text(&FILTERS), 1..3)).prop_map(
            |(session, epoch, filters)| Command::Unsubscribe { session, epoch, filters }),
        4 => (session_id(), 0..20_u64, prop::collection::vec(0..30_u64, 0..4)).prop_map(
            |(session, upto, also)| Command::Settle {
                session, upto: Offset(upto), also: also.into_iter().map(Offset).collect(),
            }),
        1 => (session_id(), epoch, prop::option::of(expiry)).prop_map(
            |(session, epoch, expiry_s)| Command::CloseSession { session, epoch, expiry_s }),
        1 => (1..3_u64, prop::option::of((1..3_u64).prop_map(Incarnation))).prop_map(
            |(node, alive)| Command::NodeGone { node: NodeId(node), alive }),
        1 => Just(Command::Tick),
        1 => Just(Command::Digest),
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
        1 => (1..4_u64, prop::option::of((1..3_u64).prop_map(Incarnation))).prop_map(
            |(node, alive)| Command::DropNodeRoutes { node: NodeId(node), alive }),
        1 => Just(Command::SetTenant { tenant: TenantId(1), name: Text::from("n") }),
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
struct Replica {
    machine: Machine,
    rows: Map,
    said: Vec<(Vec<RunAnswers>, Vec<Effect>)>,
}

impl Replica {
    fn new(group: ShardId) -> Self {
        let rows = Map::default();
        Self { machine: Machine::open(group, &rows).unwrap(), rows, said: Vec::new() }
    }

    fn apply(&mut self, index: u64, batch: &Bytes) {
        let mut effects = Vec::new();
        let answers =
            self.machine.apply(&mut self.rows, index, batch, &mut effects).unwrap();
        self.machine.assert_derived(&self.rows).unwrap();
        self.said.push((answers, effects));
    }
}

fn agree(group: ShardId, log: &[Bytes], break_at: usize) -> Result<(), TestCaseError> {
    let (mut steady, mut broken) = (Replica::new(group), Replica::new(group));
    let mut checkpoint = (0, Map::default());
    for (index, batch) in (1..).zip(log) {
        steady.apply(index, batch);
        broken.apply(index, batch);
        if index == break_at as u64 / 2 {
            checkpoint = (index, broken.rows.clone());
        }
        if index == break_at as u64 {
            // A crash: what came after the checkpoint is applied again.
            broken.rows = checkpoint.1.clone();
            broken.machine = Machine::open(group, &broken.rows).unwrap();
            broken.said.truncate(usize::try_from(checkpoint.0).unwrap());
            for again in checkpoint.0 + 1..=index {
                broken.apply(again, &log[usize::try_from(again).unwrap() - 1]);
            }
        }
    }
    prop_assert_eq!(&steady.rows, &broken.rows);
    prop_assert_eq!(&steady.said, &broken.said);
    let digests = [&steady, &broken].map(|replica| replica.machine.digest(&replica.rows).unwrap());
    prop_assert_eq!(digests[0], digests[1]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn shards_agree_through_a_crash_in_the_middle(
        log in log(shard_command()), break_at in 0..25_usize,
    ) {
        agree(SHARD, &log, break_at)?;
    }

    #[test]
    fn meta_groups_agree_through_a_crash_in_the_middle(
        log in log(meta_command()), break_at in 0..25_usize,
    ) {
        agree(ShardId::META, &log, break_at)?;
    }

    #[test]
    fn logs_and_answers_survive_their_bytes(log in log(shard_command())) {
        let mut replica = Replica::new(SHARD);
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
fn a_digest_is_over_all_rows_but_the_applied_one() {
    let mut group = Group::new(SHARD);
    group.subscriber("a", 1, "t");
    let before = group.machine.digest(&group.rows).unwrap();
    let applied = bytes::Bytes::from_static(&[0, 1, 0xFF, 0xFF, 1]);
    group.rows.0.insert(applied, Bytes::from_static(b"whatever"));
    assert_eq!(group.machine.digest(&group.rows).unwrap(), before);
    group.rows.0.insert(Bytes::from_static(&[0, 2, 0, 0, 5, 1]), Bytes::new());
    assert_eq!(group.machine.digest(&group.rows).unwrap(), before, "another group's row");

    assert_eq!(group.one(Command::Digest), Answer::Done);
    let Some(Effect::Digest { index, digest }) = group.effects.last().cloned() else { panic!() };
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
