//! How long a replica takes per command: publishes of 256 bytes to durable sessions, settled some batches later, in an
//! overlay over a store in memory, with a checkpoint now and then.
//!
//! `cargo run --release --example apply_speed -p moorline-machine`

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod bench;

use std::time::Duration;

use bytes::Bytes;
use moorline_core::{ConnId, Incarnation, Message, NodeId, Offset, QoS, SubscriptionOptions};
use moorline_machine::{
    Answer, Command,
    command::{Holder, SessionId, Subscription},
};

use bench::{Bench, Failed, TENANT};

const PAYLOAD_BYTES: usize = 256;
/// Batches between a publish and its settlement.
const BEHIND: u64 = 4;

fn subscriber(bench: &mut Bench, n: u64, topic: &str) -> Result<SessionId, Failed> {
    let holder = Holder { node: NodeId(1), incarnation: Incarnation(1), conn: ConnId(n) };
    let answers = bench.apply(&[Command::OpenSession {
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
    bench.apply(&[Command::Subscribe { session, epoch, subscriptions }])?;
    Ok(session)
}

/// One line: `sessions` subscribers with a topic each, batches of `batch` commands.
fn measure(sessions: u64, batch: u64, batches: u64) -> Result<(), Failed> {
    let mut bench = Bench::new()?;
    let topics: Vec<String> = (0..sessions).map(|n| format!("plant/line/{n}/state")).collect();
    let mut ids = Vec::new();
    for (n, topic) in (0..).zip(&topics) {
        ids.push(subscriber(&mut bench, n, topic)?);
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
