//! How long a replica takes per command: publishes of 256 bytes to durable sessions, settled some batches later, in an
//! overlay over a store in memory, with a checkpoint now and then.
//!
//! `cargo run --release --example apply_speed -p moorline-machine`

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Incarnation, Message, NodeId, Offset, QoS, ShardId, SubscriptionOptions, TenantId,
    UnixMillis,
};
use moorline_machine::{
    Answer, BatchBuilder, Command, Machine, RunBuilder,
    command::{Holder, ProducerId, SessionId, Subscription},
};
use moorline_storage::{Store, mem::MemStore, overlay::Overlay};

const TENANT: TenantId = TenantId(1);
const PAYLOAD_BYTES: usize = 256;
/// Batches between a publish and its settlement.
const BEHIND: u64 = 4;
const CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;

type Failed = Box<dyn Error>;

struct Bench {
    machine: Machine,
    rows: Overlay<Arc<MemStore>>,
    run: RunBuilder,
    index: u64,
    spent: Duration,
    effects: usize,
}

impl Bench {
    fn new() -> Result<Self, Failed> {
        let rows = Overlay::new(Arc::new(MemStore::new()));
        let machine = Machine::open(ShardId(1), &rows)?;
        let run = RunBuilder::new(ProducerId(1), 1);
        Ok(Self { machine, rows, run, index: 0, spent: Duration::ZERO, effects: 0 })
    }

    fn apply(&mut self, commands: &[Command]) -> Result<Vec<Answer>, Failed> {
        for command in commands {
            self.run.push(command)?;
        }
        let confirmed = self.run.next_seq() - commands.len() as u64;
        let mut batch = BatchBuilder::new();
        batch.push(&self.run.take(confirmed).ok_or("no commands")?);
        self.index += 1;
        let batch = batch.finish(UnixMillis(self.index));
        let mut effects = Vec::new();

        let begun = Instant::now();
        let mut answers = self.machine.apply(&mut self.rows, self.index, &batch, &mut effects)?;
        self.effects += effects.len();
        drop(effects);
        self.spent += begun.elapsed();

        if self.rows.active_bytes() > CHECKPOINT_BYTES {
            let frozen = self.rows.freeze();
            self.rows.base().write(frozen.to_batch())?;
            self.rows.thaw_done();
        }
        Ok(answers.pop().ok_or("no answers")?.answers)
    }

    fn subscriber(&mut self, n: u64, topic: &str) -> Result<SessionId, Failed> {
        let holder = Holder { node: NodeId(1), incarnation: Incarnation(1), conn: ConnId(n) };
        let answers = self.apply(&[Command::OpenSession {
            tenant: TENANT,
            client: format!("client-{n}").as_str().into(),
            clean_start: false,
            expiry_s: 3600,
            holder,
            limits: moorline_core::port::SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        }])?;
        let [Answer::Opened { session, epoch, .. }] = answers[..] else {
            return Err("open".into());
        };
        let qos = QoS::AtLeastOnce;
        let subscriptions =
            vec![Subscription { filter: topic.into(), options: SubscriptionOptions::of_qos(qos) }];
        self.apply(&[Command::Subscribe { session, epoch, subscriptions }])?;
        Ok(session)
    }
}

/// One line: `sessions` subscribers with a topic each, batches of `batch` commands.
fn measure(sessions: u64, batch: u64, batches: u64) -> Result<(), Failed> {
    let mut bench = Bench::new()?;
    let topics: Vec<String> = (0..sessions).map(|n| format!("plant/line/{n}/state")).collect();
    let mut ids = Vec::new();
    for (n, topic) in (0..).zip(&topics) {
        ids.push(bench.subscriber(n, topic)?);
    }
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let publish = |n: u64| Command::Publish {
        tenant: TENANT,
        from: None,
        message: Message {
            topic: topics[usize::try_from(n % sessions).expect("an index")].as_str().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: payload.clone(),
        },
    };
    let settle = |n: u64| Command::Settle {
        session: ids[usize::try_from(n % sessions).expect("an index")],
        upto: Offset(n / sessions + 1),
        also: Vec::new(),
    };

    let (mut publishing, mut settling) = (Duration::ZERO, Duration::ZERO);
    for n in 0..batches {
        let commands: Vec<_> = (n * batch..(n + 1) * batch).map(publish).collect();
        bench.spent = Duration::ZERO;
        bench.apply(&commands)?;
        publishing += bench.spent;
        if n >= BEHIND {
            let settled = (n - BEHIND) * batch..(n - BEHIND + 1) * batch;
            let commands: Vec<_> = settled.map(settle).collect();
            bench.spent = Duration::ZERO;
            bench.apply(&commands)?;
            settling += bench.spent;
        }
    }
    let per = |spent: Duration| spent.as_nanos() / u128::from(batches * batch);
    println!(
        "{sessions:>6} sessions, {batch:>3} commands a batch: publish {:>5} ns, settle {:>5} ns",
        per(publishing),
        per(settling),
    );
    assert!(bench.effects as u64 >= batches * batch);
    Ok(())
}

fn main() -> Result<(), Failed> {
    for sessions in [1, 64, 10_000] {
        for batch in [1, 16, 256] {
            measure(sessions, batch, 512_000 / batch / if batch == 1 { 4 } else { 1 })?;
        }
    }
    Ok(())
}
