//! `moorline demo --fleet`: five devices, each of another platform, on one cluster; one tenant, one consumer group, one mail to all, and a
//! node that dies in the middle. At the end it says what everybody saw, and fails if something is missing.
//!
//! ```text
//!   devices ── MQTT, each in its platform's words ──► nodes 1, 2, 3 ──► moorline events --group: all events in one form
//!      ◄── the same mail, in each one's words ── moorline mail send --label
//! ```
//!
//! # Invariants
//!
//! - **It ends**: each wait has a limit.
//! - **Nothing is told beside what was seen** from outside: by devices' connections and by what the command line prints.
//!
//! Checked by `scripts/verify fleet`.

mod board;
mod device;
mod reader;
mod speaks;

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail, ensure};
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{
    board::Board,
    device::{Living, Places},
    reader::Group,
    speaks::{Device, LABEL, TENANT},
};
use super::{RESTART_PAUSE, ReadyNode, Stop, nodes::Nodes, screen, wait_ready, watch, write_ready};
use crate::cli::DemoArgs;

/// How long devices speak before anything happens, and how long after the last of it.
const CALM: Duration = Duration::from_secs(4);
/// How long devices may take until all are connected, and what is said to get everywhere.
const SETTLE_WAIT: Duration = Duration::from_secs(45);
/// How often it is looked whether that is so.
const PAUSE: Duration = Duration::from_millis(50);
/// Attempts to send a mail while a leader is elected, and the pause between them.
const MAIL_TRIES: usize = 20;
/// See there.
const MAIL_PAUSE: Duration = Duration::from_millis(500);
/// What is sent to all, before the node dies and just after.
const MAILS: [(&str, &str); 2] = [("open-gate", r#"{"gate":1}"#), ("close-gate", r#"{"gate":1}"#)];
/// The node that dies: two of five devices are there, and the consumer group.
const VICTIM: u64 = 2;

/// Runs it.
pub(super) async fn run(mut args: DemoArgs) -> anyhow::Result<()> {
    ensure!(args.nodes >= 3, "--fleet: a node dies, so that there have to be three");
    // A cluster of its own, each time.
    args.dir = args.dir.join("fleet");
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir)
            .with_context(|| format!("cannot remove {}", args.dir.display()))?;
    }
    let mut stop = Stop::new(args.stop_with_stdin)?;
    let mut nodes = Nodes::prepare(&args)?;
    nodes.start_all()?;
    let shown = tokio::select! {
        shown = show(&args, &mut nodes) => shown,
        () = stop.wait() => Err(anyhow::anyhow!("stopped before the end")),
    };
    if args.stay && shown.is_ok() {
        print!("{}", screen::hello(&nodes.ready_nodes(), &args.dir));
        watch(&args, &mut nodes, &mut stop).await?;
    }
    nodes.stop().await?;
    shown
}

async fn show(args: &DemoArgs, nodes: &mut Nodes) -> anyhow::Result<()> {
    wait_ready(nodes).await?;
    write_ready(&args.dir, nodes)?;
    let ready = nodes.ready_nodes();
    println!("A cluster of {} is ready; its files are in {}.", ready.len(), args.dir.display());
    let mut fleet = Fleet::begin(&ready).await?;
    until(SETTLE_WAIT, || fleet.board.all_came()).await.context("a device can't connect")?;
    println!(
        "Five devices of five platforms speak, and a consumer group reads all events at node {VICTIM}."
    );
    sleep(CALM).await;
    fleet.mail(MAILS[0]).await?;
    sleep(CALM / 4).await;
    fleet.die(nodes).await?;
    fleet.mail(MAILS[1]).await?;
    sleep(RESTART_PAUSE).await;
    nodes.restart_dead(Duration::ZERO)?;
    println!("Node {VICTIM} is started again.");
    sleep(CALM).await;
    write_ready(&args.dir, nodes)?;
    fleet.end().await
}

/// Whoever takes part.
struct Fleet {
    board: Board,
    token: String,
    ready: Vec<ReadyNode>,
    group: Option<Group>,
    devices: JoinSet<()>,
    quiet: CancellationToken,
    leave: CancellationToken,
}

impl Fleet {
    async fn begin(ready: &[ReadyNode]) -> anyhow::Result<Self> {
        let (token, all) = speaks::make(&ready[0]).await?;
        let names = all.iter().map(|Device { platform, name, .. }| (platform.name(), name.clone()));
        let board = Board::new(names);
        let at = ready.iter().find(|node| node.id == VICTIM).context("no such node")?;
        let group = Some(Group::start(&at.admin.to_string(), &token, &board)?);
        let places: Places = ready.iter().map(|node| (node.id, node.mqtt.to_string())).collect();
        let (quiet, leave) = (CancellationToken::new(), CancellationToken::new());
        let mut devices = JoinSet::new();
        for (line, device) in all.into_iter().enumerate() {
            let living = Living {
                device,
                line,
                board: board.clone(),
                places: places.clone(),
                quiet: quiet.clone(),
                leave: leave.clone(),
            };
            devices.spawn(living.live(line));
        }
        Ok(Self { board, token, ready: ready.to_vec(), group, devices, quiet, leave })
    }

    /// Where requests go: to a node that lives.
    fn admin(&self) -> String {
        self.ready[0].admin.to_string()
    }

    /// One command, to all devices. Said again with the same id while the cluster can't take it: who has it does not get it twice.
    async fn mail(&self, (name, payload): (&'static str, &str)) -> anyhow::Result<()> {
        println!("$ moorline mail send --label {LABEL} {name} '{payload}'");
        let id = mail_id();
        let mut said = String::new();
        for _ in 0..MAIL_TRIES {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["mail", "send", "--label", LABEL, name, payload, "--id", &id]);
            command.env("MOORLINE_ADMIN", self.admin()).env("MOORLINE_TOKEN", &self.token);
            command.env("MOORLINE_TENANT", TENANT).stdin(Stdio::null()).kill_on_drop(true);
            let done = command.output().await?;
            if done.status.success() {
                self.board.mailed(name);
                return Ok(());
            }
            said = String::from_utf8_lossy(&done.stderr).into_owned();
            sleep(MAIL_PAUSE).await;
        }
        bail!("the mail could not be sent: {said}")
    }

    /// A node dies, and the consumer group goes on at another one.
    async fn die(&mut self, nodes: &mut Nodes) -> anyhow::Result<()> {
        println!("Node {VICTIM} is killed (SIGKILL), with two devices and the consumer.");
        nodes.kill(VICTIM).await?;
        if let Some(group) = self.group.take() {
            group.kill().await?;
        }
        let last = self.ready.last().context("no node")?;
        self.group = Some(Group::start(&last.admin.to_string(), &self.token, &self.board)?);
        Ok(())
    }

    /// Waits until all is where it should be, and says so.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.quiet.cancel();
        let settled = until(SETTLE_WAIT, || self.board.missing().is_empty()).await;
        self.leave.cancel();
        while self.devices.join_next().await.is_some() {}
        println!("\n{}", self.board.table());
        let missing = self.board.missing();
        if !missing.is_empty() {
            return Err(settled.err().unwrap_or_else(|| anyhow::anyhow!("it is gone again")))
                .context(missing.join("; "))
                .context("something is missing");
        }
        let (events, mails) = self.board.totals();
        println!(
            "Nothing is missing: {events} events acknowledged and read, {mails} mails heard in their order, while a node died."
        );
        Ok(())
    }
}

/// Waits until something is so.
async fn until(wait: Duration, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + wait;
    while !is_so() {
        ensure!(Instant::now() < deadline, "not within {wait:?}");
        sleep(PAUSE).await;
    }
    Ok(())
}

/// A UUID of version 7.
fn mail_id() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ms = since.as_millis() & ((1 << 48) - 1);
    let (high, low) = (rand::random::<u16>() & 0xfff, rand::random::<u64>() >> 2);
    let (first, second) = (ms >> 16, ms & 0xffff);
    let low = low | 1 << 63;
    format!(
        "{first:08x}-{second:04x}-7{high:03x}-{:04x}-{:012x}",
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_of_mail_are_of_version_7() {
        let id = super::mail_id();
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
        assert!(id[14..].starts_with('7') && matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    }
}
