//! What a commit of the log costs beside a bare `fdatasync` on the same disk:
//! `cargo run --release -p moorline-storage-rocks --example log_speed [directory]`.

use std::{
    error::Error,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::log::{LogEngine, LogOp, LogRecord};
use moorline_storage_rocks::{Create, LogConfig, RocksLog, abort};
use prometheus::Registry;

const ROUNDS: u64 = 1_000;
const ENTRY_BYTES: usize = 400;
const GROUPS: u64 = 6;
const WINDOW: u64 = 8;
const LARGE_BYTES: usize = 32 * 1024;
const LARGE_ENTRIES: u64 = 12_000;

type Outcome = Result<(), Box<dyn Error>>;

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn bare(dir: &Path) -> Result<Duration, Box<dyn Error>> {
    let mut file = File::create(dir.join("bare"))?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let since = Instant::now();
        file.write_all(&[1; ENTRY_BYTES])?;
        file.sync_data()?;
        times.push(since.elapsed());
    }
    Ok(middle(times))
}

fn append(index: u64, bytes: usize) -> LogOp {
    LogOp::Append(vec![LogRecord { index, body: Bytes::from(vec![7; bytes]) }])
}

fn one_at_a_time(log: &RocksLog) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    let (tell, told) = mpsc::sync_channel(1);
    for index in 1..=ROUNDS {
        let tell = tell.clone();
        let since = Instant::now();
        let done = Box::new(move |result: Result<(), _>| drop(tell.send(result)));
        log.submit(ShardId(1), append(index, ENTRY_BYTES), Some(done));
        told.recv()??;
        times.push(since.elapsed());
    }
    Ok(middle(times))
}

/// Entries as a busy node writes them; answers entries per second.
fn together(log: &RocksLog) -> Result<f64, Box<dyn Error>> {
    let (tell, told) = mpsc::sync_channel((GROUPS * WINDOW) as usize);
    let since = Instant::now();
    for step in 0..LARGE_ENTRIES {
        let group = ShardId(2 + (step % GROUPS) as u16);
        let index = 1 + step / GROUPS;
        let tell = tell.clone();
        let done = Box::new(move |result: Result<(), _>| drop(tell.send(result)));
        log.submit(group, append(index, LARGE_BYTES), Some(done));
        if index.is_multiple_of(1_000) {
            log.submit(group, LogOp::PurgeUpTo(index - 500), None);
        }
        if step >= GROUPS * WINDOW {
            told.recv()??;
        }
    }
    for _ in 0..GROUPS * WINDOW {
        told.recv()??;
    }
    Ok(LARGE_ENTRIES as f64 / since.elapsed().as_secs_f64())
}

fn main() -> Outcome {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("log-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let registry = Registry::new();
    let log = RocksLog::open(
        &dir.join("log"),
        Create::IfMissing,
        &LogConfig::default(),
        abort(),
        &registry,
    )?;
    println!("bare write and sync      {:>8.0?}", bare(&dir)?);
    println!("one entry at a time      {:>8.0?}", one_at_a_time(&log)?);
    println!("32 KiB entries together  {:>8.0} per second", together(&log)?);
    println!("{}", prometheus::TextEncoder::new().encode_to_string(&registry.gather())?);
    drop(log);
    Ok(std::fs::remove_dir_all(dir)?)
}
