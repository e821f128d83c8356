//! `moorline backup create`: asks for the rows of every group, keeps the pieces that are not there, and writes down which they are.
//!
//! Memory: one piece. The shards come first and the meta group last, so that every tenant of a device is in the backup.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use moorline_core::{UnixMillis, calendar};

use super::{
    CreateArgs,
    directory::Directory,
    manifest::{Group, Manifest, Piece, is_name},
};
use crate::{
    cluster::{self, reason},
    http,
    server::{
        backed_up::Ended,
        backup::{Begun, Found},
    },
};

/// How often a group is begun anew when its leader goes: an election takes a second.
const TRIES_MAX: u32 = 10;
/// The pause before that.
const TRY_PAUSE: Duration = Duration::from_secs(2);
/// How long one question may take. Longer than a node gives another one: its rows in memory are written out before the first piece.
const ASK_WAIT: Duration = Duration::from_secs(150);

/// Keeps to a rate: what was read is paid for before more is.
#[derive(Debug)]
struct Throttle {
    bytes_per_second: u64,
    paid: Instant,
}

impl Throttle {
    fn new(mib_s: u32) -> Self {
        Self { bytes_per_second: u64::from(mib_s) << 20, paid: Instant::now() }
    }

    /// How long to wait after so many bytes.
    fn pay(&mut self, bytes: u64, now: Instant) -> Duration {
        let costs = Duration::from_micros(bytes * 1_000_000 / self.bytes_per_second);
        // What was not read earlier can't be read now.
        self.paid = self.paid.max(now) + costs;
        self.paid.duration_since(now)
    }
}

/// One backup while it is made.
struct Backup<'a> {
    admin: &'a str,
    directory: Directory,
    throttle: Throttle,
    /// Hashes of pieces that were not there. Some may be of a try that was given up, and in no manifest.
    new: BTreeSet<String>,
}

/// Why a group's rows stopped coming.
enum Stopped {
    /// Its leader went, most likely: it may be begun anew.
    Later(anyhow::Error),
    /// Trying again would not help.
    Now(anyhow::Error),
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Now(error)
    }
}

pub(super) async fn run(args: CreateArgs) -> anyhow::Result<()> {
    let (begun, begun_ms) = (Instant::now(), now_ms());
    let made = create(&args, begun_ms).await;
    let manifest = made.as_ref().ok();
    let ended = Ended {
        done: manifest.is_some(),
        begun_ms,
        seconds: begun.elapsed().as_secs_f64(),
        bytes: manifest.map_or(0, Manifest::bytes),
        new_bytes: manifest.map_or(0, |manifest| manifest.new_bytes),
    };
    let told = tell(&args.admin.admin, &ended).await;
    made?;
    if let Err(problem) = told {
        // The backup is there all the same.
        eprintln!("the node does not say in its metrics that there is a backup: {problem:#}");
    }
    Ok(())
}

/// Tells the node how it ended, for its metrics.
async fn tell(admin: &str, ended: &Ended) -> anyhow::Result<()> {
    let body = serde_json::to_vec(ended)?;
    let path = "/api/v1/backup/ended";
    let (status, body) = http::request(Method::POST, admin, path, body).await?;
    if status != StatusCode::OK {
        bail!("{admin} answered {status}: {}", reason(&body));
    }
    Ok(())
}

async fn create(args: &CreateArgs, begun_ms: u64) -> anyhow::Result<Manifest> {
    let name = args.name.clone().unwrap_or_else(|| name_of(begun_ms));
    if !is_name(&name) {
        bail!("--name: letters, digits, - and _ only");
    }
    let admin = &args.admin.admin;
    let view = cluster::view(admin).await?;
    if view.cluster.is_empty() {
        bail!("the cluster is not made yet, so there is nothing to keep");
    }
    let directory = Directory::make(&args.to)?;
    let _writing = directory.writing()?;
    if directory.has(&name) {
        bail!("{} has a backup {name:?} already", args.to.display());
    }
    let throttle = Throttle::new(args.mib_s);
    let mut backup = Backup { admin, directory, throttle, new: BTreeSet::new() };
    let shards = view.shards;
    let mut manifest = Manifest::begin(view, begun_ms);
    for group in (1..=shards).chain([0]) {
        manifest.groups.push(backup.group(group).await?);
    }
    let Backup { directory, new, .. } = backup;
    manifest.ended_ms = now_ms();
    let new: BTreeSet<&Piece> =
        manifest.pieces().filter(|piece| new.contains(&piece.sha256)).collect();
    let (new_pieces, new_bytes) = (new.len() as u64, new.iter().map(|piece| piece.bytes).sum());
    manifest = Manifest { new_pieces, new_bytes, ..manifest };
    // What was written must read: a manifest that is refused when it is needed is no backup.
    Manifest::from_json(&manifest.to_json()).context("the backup contradicts itself")?;
    directory.finish(&name, &manifest)?;
    println!(
        "backup {name}: {} groups, {} rows, {} bytes, of which {new_bytes} are new",
        manifest.groups.len(),
        manifest.rows(),
        manifest.bytes()
    );
    Ok(manifest)
}

impl Backup<'_> {
    async fn group(&mut self, group: u16) -> anyhow::Result<Group> {
        let mut tries = 0;
        loop {
            match self.read(group).await {
                Ok(read) => return Ok(read),
                Err(Stopped::Now(problem)) => return Err(problem),
                Err(Stopped::Later(problem)) => {
                    tries += 1;
                    if tries >= TRIES_MAX {
                        return Err(problem.context(format!("group {group}, {tries} times")));
                    }
                    eprintln!("group {group}: {problem:#}; again");
                    tokio::time::sleep(TRY_PAUSE).await;
                }
            }
        }
    }

    /// Reads a group from its first row to its last. Pieces that came before it was begun anew are there then.
    async fn read(&mut self, group: u16) -> Result<Group, Stopped> {
        let begun = self.ask(Method::POST, &format!("begin?group={group}")).await?;
        let begun: Begun = serde_json::from_slice(&begun).context("an answer we do not know")?;
        let Begun { node, session, term, index, time_ms } = begun;
        let of = format!("group={group}&node={node}&session={session}");
        let mut pieces = Vec::new();
        loop {
            let found = self.ask(Method::POST, &format!("next?{of}")).await?;
            if found.is_empty() {
                return Ok(Group { group, term, index, time_ms, pieces });
            }
            let found: Found =
                serde_json::from_slice(&found).context("an answer we do not know")?;
            let Found { sha256, bytes, rows } = found;
            let piece = Piece { sha256, bytes, rows };
            if !self.directory.holds(&piece) {
                let taken = self.ask(Method::GET, &format!("piece?{of}")).await?;
                self.directory.keep(&piece, &taken)?;
                self.new.insert(piece.sha256.clone());
            }
            pieces.push(piece);
            tokio::time::sleep(self.throttle.pay(bytes, Instant::now())).await;
        }
    }

    async fn ask(&self, method: Method, what: &str) -> Result<Bytes, Stopped> {
        let path = format!("/api/v1/backup/{what}");
        let (status, body) = http::request_within(ASK_WAIT, method, self.admin, &path, Vec::new())
            .await
            .map_err(Stopped::Later)?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::SERVICE_UNAVAILABLE => {
                Err(Stopped::Later(anyhow::anyhow!("{}", reason(&body))))
            }
            status => Err(Stopped::Now(anyhow::anyhow!(
                "{} answered {status}: {}",
                self.admin,
                reason(&body)
            ))),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as a name: to the second, and without colons, which some file systems do not take.
fn name_of(ms: u64) -> String {
    let text = calendar::rfc3339(UnixMillis(ms));
    format!("{}Z", text[..19].replace(':', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_called_after_its_beginning() {
        assert_eq!(name_of(1_764_000_123_456), "2025-11-24T16-02-03Z");
        assert!(is_name(&name_of(0)));
    }

    #[test]
    fn a_rate_is_kept_and_not_made_up_for() {
        let mut throttle = Throttle::new(1);
        let begin = throttle.paid;
        let second = Duration::from_secs(1);
        assert_eq!(throttle.pay(1 << 20, begin), second);
        assert_eq!(throttle.pay(1 << 20, begin), 2 * second, "asked at once");
        assert_eq!(throttle.pay(1 << 19, begin + 10 * second), second / 2, "after a pause");
    }
}
