//! `moorline bench registry`: many devices into a cluster of three by bulk import, what they cost, and how fast one is found among
//! them, by the API and by a device that connects.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use hyper::{Method, body::Bytes};
use moorline_core::Text;
use moorline_mqtt::client::Options;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Fact, caller::Caller, peers, process, queueing, report::Quantiles, wire::Wire};
use crate::{cli::RegistryArgs, demo::ReadyNode, http};

/// Lines that are sent in one piece, and pieces that wait for a connection.
const LINES_PER_PIECE: u64 = 256;
/// See there.
const PIECES_MAX: usize = 8;
/// Clients that look devices up, or connect, at once.
const CLIENTS: u64 = 8;
/// The longest one that is told apart: a minute, in nanoseconds.
const TOOK_MAX_NS: u64 = 60_000_000_000;

/// Runs it.
pub(crate) fn run(args: &RegistryArgs) -> anyhow::Result<()> {
    process::raise_descriptors();
    peers::measure_demo(
        "registry",
        &args.dir,
        args.shards,
        args.json,
        |running, nodes, dir, runtime| runtime.block_on(measure(args, nodes, &running.pids, dir)),
    )
}

async fn measure(
    args: &RegistryArgs,
    nodes: &[ReadyNode],
    pids: &[u32],
    dir: &Path,
) -> anyhow::Result<Vec<Fact>> {
    let token = prepare(&nodes[0].admin.to_string()).await?;
    let resting = process::resident_bytes(pids)?;
    let disk_before = queueing::disk_bytes(dir)?;
    let began = Instant::now();
    let mut imports = JoinSet::new();
    for (at, node) in (0_u64..).zip(nodes) {
        let share = Share { first: at, step: nodes.len() as u64, devices: args.devices };
        imports.spawn(import(node.admin.to_string(), token.clone(), "bench".to_owned(), share));
    }
    let mut done = 0;
    while let Some(ended) = imports.join_next().await {
        done += ended??;
    }
    ensure!(done == args.devices, "{done} devices were made");
    let took = began.elapsed().as_secs_f64();
    eprintln!("{done} devices in {took:.1} s; the disk comes to rest");
    let resident = process::resident_bytes(pids)?;
    let disk = queueing::settled_disk_bytes(dir).await?.saturating_sub(disk_before);
    let gets = Quantiles::of(&lookups(args, nodes, &token).await?);
    let (connects, connects_per_s) = connects(args, nodes).await?;
    let connects = Quantiles::of(&connects);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let per_device = |bytes: u64| bytes as f64 / args.devices as f64;
    Ok(vec![
        Fact::rate("devices imported", args.devices as f64),
        Fact::cost("s for that", took),
        Fact::rate("devices/s", args.devices as f64 / took),
        Fact::cost("MiB on the disk of all nodes, at rest", mib(disk)),
        Fact::cost("bytes on disk per device and replica", per_device(disk) / nodes.len() as f64),
        Fact::cost("MiB resident, all nodes, when it was done", mib(resident)),
        Fact::cost("MiB resident, all nodes, before", mib(resting)),
        Fact::cost("ms p50 of GET of a random device", gets.p50),
        Fact::cost("ms p99 of GET of a random device", gets.p99),
        Fact::cost("ms p50 of CONNECT of a random device", connects.p50),
        Fact::cost("ms p99 of CONNECT of a random device", connects.p99),
        Fact::rate("CONNECTs/s with 8 clients", connects_per_s),
    ])
}

/// The first token, and a tenant; the token.
pub(super) async fn prepare(admin: &str) -> anyhow::Result<String> {
    let mut nobody = Caller::connect(admin, Vec::new()).await?;
    let first = json!({ "name": "bench", "role": "admin" });
    let made = nobody.done(Method::POST, "/api/v1/tokens", &first).await?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    let mut caller = Caller::connect(admin, http::bearer(Some(&token))).await?;
    let mail =
        json!({ "items-max": 60_000, "bytes-max": 67_108_864, "requeues-max": 100, "ttl-s": null });
    let settings = json!({ "mail": mail, "plaintext": true });
    let tenant = json!({ "name": "bench", "aliases": ["fostrom:BENCH001"], "settings": settings });
    caller.done(Method::POST, "/api/v1/tenants", &tenant).await?;
    Ok(token)
}

/// A device's name.
pub(super) fn name(number: u64) -> String {
    format!("device-{number:08}")
}

/// Its secret: nobody would guess it who does not read this.
pub(super) fn secret(number: u64) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&number.to_be_bytes()))
}

/// Which of the devices one connection imports.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) first: u64,
    pub(super) step: u64,
    pub(super) devices: u64,
}

/// Imports them into a tenant; how many were made.
pub(super) async fn import(
    admin: String,
    token: String,
    tenant: String,
    share: Share,
) -> anyhow::Result<u64> {
    let (sender, body) = mpsc::channel(PIECES_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { send(share, &sender).await });
    let path = format!("/api/v1/devices/import?tenant={tenant}");
    let mut stream = http::upload(&http::Target::plain(&admin), &path, Some(&token), body).await?;
    ensure!(stream.status.is_success(), "an import was answered with {}", stream.status);
    // Whole lines are of no interest: only those that begin a result.
    let (mut made, mut rest) = (0, Vec::new());
    while let Some(piece) = stream.chunk().await? {
        rest.extend_from_slice(&piece);
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let result: Value = serde_json::from_slice(line)?;
            ensure!(result["result"] == "created", "{result}");
            made += 1;
        }
        rest.drain(..end);
    }
    Ok(made)
}

async fn send(share: Share, to: &mpsc::Sender<Bytes>) {
    let mut number = share.first;
    while number < share.devices {
        let mut piece = String::new();
        for _ in 0..LINES_PER_PIECE {
            if number >= share.devices {
                break;
            }
            let line = json!({
                "name": name(number), "settings": { "type": "sensor", "labels": ["bench"] },
                "credentials": [{ "secret": secret(number) }],
            });
            piece += &line.to_string();
            piece.push('\n');
            number += share.step;
        }
        if to.send(Bytes::from(piece)).await.is_err() {
            // The import ends with an error, and says which.
            return;
        }
    }
}

/// Times of so many, by [`CLIENTS`] at once.
async fn timed<F: Future<Output = anyhow::Result<Vec<Duration>>> + Send + 'static>(
    client: impl Fn(u64) -> F,
) -> anyhow::Result<Histogram<u64>> {
    let mut clients = JoinSet::new();
    (0..CLIENTS).for_each(|at| _ = clients.spawn(client(at)));
    let mut histogram = Histogram::new_with_bounds(1_000, TOOK_MAX_NS, 3)?;
    while let Some(ended) = clients.join_next().await {
        for took in ended?? {
            histogram.saturating_record(u64::try_from(took.as_nanos())?);
        }
    }
    Ok(histogram)
}

async fn lookups(
    args: &RegistryArgs,
    nodes: &[ReadyNode],
    token: &str,
) -> anyhow::Result<Histogram<u64>> {
    let (devices, count) = (args.devices, args.lookups / CLIENTS);
    timed(|at| {
        let admin = nodes[usize::try_from(at).unwrap_or(0) % nodes.len()].admin.to_string();
        let token = token.to_owned();
        async move {
            let mut caller = Caller::connect(&admin, http::bearer(Some(&token))).await?;
            let mut times = Vec::new();
            for _ in 0..count {
                let path = format!(
                    "/api/v1/devices/{}?tenant=bench",
                    name(rand::random_range(0..devices))
                );
                let before = Instant::now();
                caller.done(Method::GET, &path, &Value::Null).await?;
                times.push(before.elapsed());
            }
            Ok(times)
        }
    })
    .await
}

async fn connects(
    args: &RegistryArgs,
    nodes: &[ReadyNode],
) -> anyhow::Result<(Histogram<u64>, f64)> {
    let (devices, count) = (args.devices, args.connects / CLIENTS);
    let began = Instant::now();
    let histogram = timed(|at| {
        let mqtt = nodes[usize::try_from(at).unwrap_or(0) % nodes.len()].mqtt.to_string();
        async move {
            let mut times = Vec::new();
            for _ in 0..count {
                let number = rand::random_range(0..devices);
                let options = Options {
                    client_id: Text::from(name(number)),
                    username: Some(Text::from(format!("{}@bench", name(number)))),
                    password: Some(Bytes::from(secret(number))),
                    ..Options::default()
                };
                let before = Instant::now();
                let wire = Wire::open(&mqtt, options, before).await?;
                times.push(before.elapsed());
                wire.close().await?;
            }
            Ok(times)
        }
    })
    .await?;
    Ok((histogram, (count * CLIENTS) as f64 / began.elapsed().as_secs_f64()))
}
