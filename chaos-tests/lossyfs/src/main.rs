//! `moorline-lossyfs`: mounts the file system that loses what was not fsynced, and tells it when to.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use moorline_lossyfs::{Command, Mounted, Names, ask, serve};
use tokio::signal::unix::{SignalKind, signal};

/// How often to look whether somebody unmounted us.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A file system that loses what was not fsynced.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Mount, and serve commands until unmounted (`umount DIR`).
    Mount {
        /// The directory that holds what is durable.
        #[arg(long)]
        backing: PathBuf,
        /// Where to mount.
        #[arg(long)]
        mount: PathBuf,
        /// The control socket to listen on.
        #[arg(long)]
        control: PathBuf,
        /// A name is durable only when its directory was fsynced.
        #[arg(long)]
        strict: bool,
    },
    /// Send a command: lose, torn [SEED], sync, eio-fsync N, eio-write N, enospc BYTES|off, slow-fsync MS,
    /// lie on|off, heal, status.
    Control {
        /// The control socket.
        #[arg(long)]
        control: PathBuf,
        /// The command and its argument.
        #[arg(required = true)]
        command: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().action {
        Action::Mount { backing, mount, control, strict } => {
            let names = if strict { Names::WhenSynced } else { Names::AtOnce };
            let mounted = Mounted::mount(&backing, &mount, names)?;
            let listener = UnixListener::bind(&control)
                .with_context(|| format!("cannot listen on {}", control.display()))?;
            let controller = mounted.controller().clone();
            let commands = thread::Builder::new().name("control".to_owned());
            commands.spawn(move || serve(&listener, &controller))?;
            println!("mounted {} on {}", backing.display(), mount.display());
            let ended = until_told(mounted);
            fs::remove_file(&control).context("the control socket is gone already")?;
            ended
        }
        Action::Control { control, command } => {
            let command: Command = command.join(" ").parse()?;
            println!("{}", ask(&control, command)?);
            Ok(())
        }
    }
}

/// Serves until somebody unmounts, or a signal says to.
fn until_told(mounted: Mounted) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        // Looks now and then: the session's end has no future of its own.
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
                _ = look.tick() => if mounted.has_ended() { break },
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(mounted.unmount()?)
}
