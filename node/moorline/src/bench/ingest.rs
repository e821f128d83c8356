//! `moorline bench ingest`: telemetry of ThingsBoard's devices by MQTT with QoS 1, each message of five keys, acknowledged when its latest values,
//! its history and its event are on a majority, while a consumer group reads the events; and plain QoS 1 publishes of as many pairs
//! on the same cluster, in turn, in one run.

use std::{
    io::{BufRead, BufReader},
    num::NonZeroU16,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use hyper::Method;
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Version,
    client::{Event, Options},
    codec::Outgoing,
};
use serde_json::json;
use tokio::{
    task::{JoinSet, LocalSet},
    time::sleep,
};

use super::{Fact, caller::Caller, load, peers, registry::prepare, wire::Wire};
use crate::{cli::IngestArgs, demo::ReadyNode, http};

/// How long telemetry runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Payload bytes of a plain publish: about those of a message of telemetry.
const PLAIN_BYTES: usize = 100;
/// Where devices say it.
const TOPIC: &[u8] = b"v1/devices/me/telemetry";

/// Runs it.
pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<()> {
    peers::measure_demo(
        "ingest",
        &args.dir,
        args.shards,
        args.json,
        |running, nodes, _, runtime| measure(args, runtime, &running.targets, &running.pids, nodes),
    )
}

fn measure(
    args: &IngestArgs,
    runtime: &tokio::runtime::Runtime,
    targets: &[String],
    pids: &[u32],
    nodes: &[ReadyNode],
) -> anyhow::Result<Vec<Fact>> {
    ensure!(args.rounds > 0 && args.devices > 0, "a round and a device at least");
    let admin = nodes[0].admin.to_string();
    let (token, tokens) = runtime.block_on(devices(&admin, args.devices))?;
    let group = Group::start(&admin, &token)?;
    let plain = load::Load {
        targets: targets.to_vec(),
        publishers: args.devices,
        window: NonZeroU16::new(args.window).unwrap_or(NonZeroU16::MIN),
        size: PLAIN_BYTES,
        time: Duration::from_secs(args.seconds),
        qos: QoS::AtLeastOnce,
        durable: true,
        pids: pids.to_vec(),
    };
    let (mut plains, mut ingests, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let result = load::run(&plain)?;
        ensure!(result.broken == 0, "{} clients of plain publishes broke", result.broken);
        plains.push(result.acked_per_s);
        let began = group.read.load(Ordering::Relaxed);
        let clock = Instant::now();
        let telemetry = LocalSet::new().block_on(runtime, telemetry(args, targets, &tokens))?;
        ingests.push(telemetry);
        let read = group.read.load(Ordering::Relaxed) - began;
        reads.push(read as f64 / clock.elapsed().as_secs_f64());
    }
    ensure!(group.read.load(Ordering::Relaxed) > 0, "the consumer group read nothing");
    let (plain, ingest) = (median(&mut plains), median(&mut ingests));
    Ok(vec![
        Fact::rate("plain publishes/s, QoS 1, each to a durable session", plain),
        Fact::rate("messages of telemetry/s, QoS 1, of five keys", ingest),
        Fact::rate("values/s of them", 5.0 * ingest),
        Fact::rate("events/s that a consumer group read meanwhile", median(&mut reads)),
        Fact::rate("x plain publishes", ingest / plain),
    ])
}

/// A tenant of ThingsBoard's, and devices: the API's token, and those of the devices.
async fn devices(admin: &str, count: usize) -> anyhow::Result<(String, Vec<String>)> {
    let token = prepare(admin).await?;
    let mut operator = Caller::connect(admin, http::bearer(Some(&token))).await?;
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"], "settings": { "plaintext": true },
    });
    operator.done(Method::POST, "/api/v1/tenants", &tenant).await?;
    let mut tokens = Vec::with_capacity(count);
    for number in 0..count {
        let path = "/api/v1/devices?tenant=plant";
        operator.done(Method::POST, path, &json!({ "name": format!("meter-{number}") })).await?;
        let path = format!("/api/v1/devices/meter-{number}/credentials?tenant=plant");
        let made = operator.done(Method::POST, &path, &json!({ "kind": "token" })).await?;
        tokens.push(made["secret"].as_str().context("no token")?.to_owned());
    }
    Ok((token, tokens))
}

/// A consumer group that reads as an application does: `moorline events`, whose lines are counted.
struct Group {
    child: Child,
    read: Arc<AtomicU64>,
}

impl Group {
    fn start(admin: &str, token: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["events", "--group", "billing", "--tenant", "plant", "--json"]);
        command.env("MOORLINE_ADMIN", admin).env("MOORLINE_TOKEN", token);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output is piped")?);
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        // Ends with the child.
        std::thread::Builder::new().spawn(move || {
            for _ in lines.split(b'\n').map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { child, read })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Messages acknowledged per second.
async fn telemetry(
    args: &IngestArgs,
    targets: &[String],
    tokens: &[String],
) -> anyhow::Result<f64> {
    let acked = Rc::new(std::cell::Cell::new(0_u64));
    let mut clients = JoinSet::new();
    for (number, token) in tokens.iter().enumerate() {
        let target = targets[number % targets.len()].clone();
        let options = Options {
            version: Version::V311,
            client_id: Text::from(format!("meter-{number}")),
            clean_start: true,
            username: Some(Text::from(token.as_str())),
            window: NonZeroU16::new(args.window).unwrap_or(NonZeroU16::MIN),
            ..Options::default()
        };
        clients.spawn_local(meter(target, options, number, Rc::clone(&acked)));
    }
    let counted = async {
        sleep(WARM_UP).await;
        let (before, began) = (acked.get(), Instant::now());
        sleep(Duration::from_secs(args.seconds)).await;
        (acked.get() - before) as f64 / began.elapsed().as_secs_f64()
    };
    tokio::select! {
        rate = counted => Ok(rate),
        Some(ended) = clients.join_next() => match ended? {
            Ok(()) => bail!("a device ended"),
            Err(error) => Err(error.context("a device broke")),
        },
    }
}

async fn meter(
    target: String,
    options: Options,
    number: usize,
    acked: Rc<std::cell::Cell<u64>>,
) -> anyhow::Result<()> {
    let mut wire = Wire::open(&target, options, Instant::now()).await?;
    let mut count = 0_u64;
    loop {
        while wire.client.can_publish() {
            count += 1;
            let payload = format!(
                r#"{{"temperature":{}.5,"humidity":{},"pressure":{},"state":"on-{}","alarm":{}}}"#,
                count % 90,
                count % 100,
                90_000 + count,
                number,
                count.is_multiple_of(2)
            );
            wire.client.publish(&Outgoing {
                topic: TOPIC,
                qos: QoS::AtLeastOnce,
                payload: payload.as_bytes(),
                ..Outgoing::default()
            })?;
        }
        wire.turn().await?;
        while let Some(event) = wire.client.poll_event() {
            match event {
                Event::Published { .. } => acked.set(acked.get() + 1),
                other @ (Event::Connected(_)
                | Event::Refused(_)
                | Event::Message(_)
                | Event::Subscribed { .. }
                | Event::Unsubscribed { .. }
                | Event::Disconnected(_)) => bail!("a device was sent {other:?}"),
            }
        }
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
