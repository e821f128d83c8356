//! `moorline bench mailbox`: how long `next` and `ack` of a mail take together on a quiet cluster of three, in multiples of a
//! sync on a majority, all measured in turn in one run.
//!
//! A sync on a majority is measured in two ways, neither with Raft or HTTP in it; either is over when the second of three is done:
//!
//! - **of disks**: three threads append to a file each and fdatasync it at once. Nothing is sent anywhere.
//! - **of a quorum**: one appends and syncs here, two more get the same bytes by TCP, append and sync them, and say so. It is what
//!   no cluster can do without.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
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
/// They.
const ENTRY: [u8; SYNC_BYTES] = [0x5a; SYNC_BYTES];
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
    peers::measure_demo("mailbox", &args.dir, args.shards, args.json, |_, nodes, dir, runtime| {
        runtime.block_on(measure(args, &nodes[0], dir))
    })
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
    let disks = Replicas::start(dir, Far::None)?;
    let quorum = Replicas::start(dir, Far::AllButOne)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(Histogram::<u64>::new_with_bounds(1_000, TOOK_MAX_NS, 3)?);
    }
    for number in 0..args.mails + WARM {
        let (disks, quorum) = (disks.sync()?, quorum.sync()?);
        let (next, ack) = one(&mut device).await?;
        if number >= WARM {
            for (histogram, took) in times.iter_mut().zip([disks, quorum, next, ack, next + ack]) {
                histogram.saturating_record(u64::try_from(took.as_nanos())?);
            }
        }
    }
    let times: Vec<_> = times.iter().map(Quantiles::of).collect();
    let [disks, quorum, nexts, acks, both] = &times[..] else { unreachable!("five of them") };
    Ok(vec![
        Fact::cost("ms p50 of a sync on two of three disks", disks.p50),
        Fact::cost("ms p99 of a sync on two of three disks", disks.p99),
        Fact::cost("ms p50 of a sync on a quorum, by TCP", quorum.p50),
        Fact::cost("ms p99 of a sync on a quorum, by TCP", quorum.p99),
        Fact::cost("ms p50 of next", nexts.p50),
        Fact::cost("ms p99 of next", nexts.p99),
        Fact::cost("ms p50 of ack", acks.p50),
        Fact::cost("ms p99 of ack", acks.p99),
        Fact::cost("ms p50 of next + ack", both.p50),
        Fact::cost("ms p99 of next + ack", both.p99),
        Fact::cost("x a sync on disks, p50", both.p50 / disks.p50),
        Fact::cost("x a sync on disks, p99", both.p99 / disks.p99),
        Fact::cost("x a sync on a quorum, p50", both.p50 / quorum.p50),
        Fact::cost("x a sync on a quorum, p99", both.p99 / quorum.p99),
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

/// Which replicas are reached by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    None,
    AllButOne,
}

/// A thread for each replica, which appends to its file and syncs it, or has somebody else do that.
struct Replicas {
    begin: Vec<mpsc::SyncSender<()>>,
    synced: mpsc::Receiver<std::io::Result<()>>,
}

impl Replicas {
    fn start(dir: &Path, far: Far) -> anyhow::Result<Self> {
        let (done, synced) = mpsc::sync_channel(REPLICAS);
        let mut begin = Vec::new();
        for replica in 0..REPLICAS {
            let path = dir.join(format!("sync-{far:?}-{replica}"));
            let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
            let mut sync: Box<dyn FnMut() -> std::io::Result<()> + Send> =
                if far == Far::AllButOne && replica > 0 {
                    let mut replica = elsewhere(file)?;
                    Box::new(move || {
                        replica.write_all(&ENTRY)?;
                        replica.read_exact(&mut [0])
                    })
                } else {
                    Box::new(move || append(&mut file, &ENTRY))
                };
            let (sender, told) = mpsc::sync_channel(1);
            let done = done.clone();
            begin.push(sender);
            // Ends with the sender.
            thread::Builder::new().spawn(move || {
                while told.recv().is_ok() {
                    if done.send(sync()).is_err() {
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

/// A connection to a thread that appends and syncs what it hears, and then sends a byte.
fn elsewhere(mut file: File) -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    // Ends with the connection.
    thread::Builder::new().spawn(move || -> std::io::Result<()> {
        let mut heard = [0; SYNC_BYTES];
        loop {
            far.read_exact(&mut heard)?;
            append(&mut file, &heard)?;
            far.write_all(&[1])?;
        }
    })?;
    Ok(near)
}

fn append(file: &mut File, entry: &[u8]) -> std::io::Result<()> {
    file.write_all(entry)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_over_when_a_majority_has_it() {
        let dir = tempfile::tempdir().unwrap();
        for far in [Far::None, Far::AllButOne] {
            let replicas = Replicas::start(dir.path(), far).unwrap();
            for _ in 0..3 {
                assert!(replicas.sync().unwrap() > Duration::ZERO);
            }
            for replica in 0..REPLICAS {
                let file = dir.path().join(format!("sync-{far:?}-{replica}"));
                assert_eq!(std::fs::read(file).unwrap(), [0x5a; 3 * SYNC_BYTES]);
            }
        }
    }
}
