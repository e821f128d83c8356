//! `moorline bench mailbox`: how long `next` and `ack` of a mail take together on a quiet cluster of three, in multiples of one
//! sync on a majority of three disks, both measured in turn in one run.
//!
//! The sync is what no cluster can do without: three threads, one for each replica's disk, append and fdatasync at once; it is over
//! when the second is done. There is no network and no Raft in it.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Fact, caller::Caller, peers, registry::prepare, report::Quantiles};
use crate::{cli::MailboxArgs, demo::ReadyNode, http};

/// Bytes that are synced: about what the log gets for one small command.
const SYNC_BYTES: usize = 512;
/// Replicas, and how many of them are a majority.
const REPLICAS: usize = 3;
/// See there.
const MAJORITY: usize = 2;
/// The longest time that is told apart: a minute, in nanoseconds.
const TOOK_MAX_NS: u64 = 60_000_000_000;
/// Mails before it is measured.
const WARM: u64 = 50;

/// Runs it.
pub(crate) fn run(args: &MailboxArgs) -> anyhow::Result<()> {
    let dir = args.dir.join(format!("moorline-mailbox-{}", std::process::id()));
    let (running, nodes) = peers::demo(args.shards, &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = runtime.block_on(measure(args, &nodes[0], &dir));
    let facts = facts.with_context(|| format!("its logs are in {}", dir.display()))?;
    drop(running);
    std::fs::remove_dir_all(&dir)?;
    if args.json {
        println!("{}", serde_json::to_string(&facts)?);
    } else {
        facts.iter().for_each(|fact| println!("{:>10.3} {}", fact.value, fact.name));
    }
    Ok(())
}

async fn measure(args: &MailboxArgs, node: &ReadyNode, dir: &Path) -> anyhow::Result<Vec<Fact>> {
    let admin = node.admin.to_string();
    let token = prepare(&admin).await?;
    let mut operator = Caller::connect(&admin, http::bearer(Some(&token))).await?;
    let of_bench = |path: &str| format!("/api/v1/devices{path}?tenant=bench");
    operator.done(Method::POST, &of_bench(""), &json!({ "name": "DEVICE0001" })).await?;
    let credentials = of_bench("/DEVICE0001/credentials");
    let made = operator.done(Method::POST, &credentials, &json!({ "style": "fostrom" })).await?;
    let secret = made["secret"].as_str().context("no secret")?.to_owned();
    for number in 0..args.mails + WARM {
        let mail = json!({ "name": "open-gate", "payload": { "n": number } });
        operator.done(Method::POST, &of_bench("/DEVICE0001/mailbox"), &mail).await?;
    }
    let http = node.http.context("the demo has no listener for HTTP")?.to_string();
    let headers = vec![
        ("x-fleet-id", "BENCH001".to_owned()),
        ("x-device-id", "DEVICE0001".to_owned()),
        ("x-device-secret", secret),
    ];
    let mut device = Caller::connect(&http, headers).await?;
    let disks = Disks::start(dir)?;
    let new = || Histogram::<u64>::new_with_bounds(1_000, TOOK_MAX_NS, 3);
    let (mut syncs, mut nexts, mut acks, mut both) = (new()?, new()?, new()?, new()?);
    for number in 0..args.mails + WARM {
        let sync = disks.sync()?;
        let (next, ack) = one(&mut device).await?;
        if number >= WARM {
            for (histogram, took) in
                [(&mut syncs, sync), (&mut nexts, next), (&mut acks, ack), (&mut both, next + ack)]
            {
                histogram.saturating_record(u64::try_from(took.as_nanos())?);
            }
        }
    }
    let [syncs, nexts, acks, both] = [syncs, nexts, acks, both].map(|times| Quantiles::of(&times));
    Ok(vec![
        Fact::cost("ms p50 of a sync on two of three disks", syncs.p50),
        Fact::cost("ms p99 of a sync on two of three disks", syncs.p99),
        Fact::cost("ms p50 of next", nexts.p50),
        Fact::cost("ms p99 of next", nexts.p99),
        Fact::cost("ms p50 of ack", acks.p50),
        Fact::cost("ms p99 of ack", acks.p99),
        Fact::cost("ms p50 of next + ack", both.p50),
        Fact::cost("ms p99 of next + ack", both.p99),
        Fact::cost("x a sync, p50", both.p50 / syncs.p50),
        Fact::cost("x a sync, p99", both.p99 / syncs.p99),
    ])
}

async fn one(device: &mut Caller) -> anyhow::Result<(Duration, Duration)> {
    let before = Instant::now();
    let (status, _, body) = device.ask(Method::GET, "/v1/mailbox/next", &Value::Null).await?;
    let next = before.elapsed();
    let text = String::from_utf8_lossy(&body);
    ensure!(status == StatusCode::OK, "next was answered with {status}: {text}");
    let mail: Value = serde_json::from_slice(&body)?;
    let id = mail["id"].as_str().context("a mail without an id")?;
    let before = Instant::now();
    device.done(Method::PUT, &format!("/v1/mailbox/ack/{id}"), &Value::Null).await?;
    Ok((next, before.elapsed()))
}

/// A thread for each replica's disk.
struct Disks {
    begin: Vec<mpsc::SyncSender<()>>,
    synced: mpsc::Receiver<std::io::Result<()>>,
}

impl Disks {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let (done, synced) = mpsc::sync_channel(REPLICAS);
        let mut begin = Vec::new();
        for replica in 0..REPLICAS {
            let path = dir.join(format!("sync-{replica}"));
            let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
            let (sender, told) = mpsc::sync_channel(1);
            let done = done.clone();
            begin.push(sender);
            // Ends with the sender.
            thread::Builder::new().spawn(move || {
                while told.recv().is_ok() {
                    if done.send(append(&mut file)).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { begin, synced })
    }

    /// Until a majority has it; and then until all have, so that the next one begins with quiet disks.
    fn sync(&self) -> anyhow::Result<Duration> {
        let before = Instant::now();
        self.begin.iter().try_for_each(|begin| begin.send(()))?;
        let mut took = Duration::ZERO;
        for count in 1..=REPLICAS {
            self.synced.recv()??;
            if count == MAJORITY {
                took = before.elapsed();
            }
        }
        Ok(took)
    }
}

fn append(file: &mut File) -> std::io::Result<()> {
    file.write_all(&[0x5a; SYNC_BYTES])?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_over_when_a_majority_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::start(dir.path()).unwrap();
        for _ in 0..3 {
            assert!(disks.sync().unwrap() > Duration::ZERO);
        }
        for replica in 0..REPLICAS {
            let file = dir.path().join(format!("sync-{replica}"));
            assert_eq!(std::fs::metadata(file).unwrap().len(), 3 * SYNC_BYTES as u64);
        }
    }
}
