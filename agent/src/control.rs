//! `start`, `stop` and `status`: commands that talk to the agent in the background and wait for it. No runtime: they have
//! one thing to do.
//!
//! An agent in the background is this program again, with `run`, a session of its own, and its words in files. It is asked
//! over its socket; when it does not answer, it is ended by signals.

use std::{
    env,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    config::{Config, Security},
    directory::{self, Directory, LOG},
    failed::Failed,
};

/// How long an agent may take from its start to its first answer. It takes milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long another `start` or `stop` may take.
const TURN_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent may take to end when it was asked to: more than its own deadline for that.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to end after a signal.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(3);
/// How long an agent may take to answer what it knows.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// The most bytes of such an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// How often a starting agent is looked at.
const PAUSE: Duration = Duration::from_millis(1);
/// How often one that is to end is asked.
const LONG_PAUSE: Duration = Duration::from_millis(50);

/// Starts an agent in the background, unless one runs with this configuration. What to print.
pub(crate) fn start(tcp: Option<&str>) -> Result<String, Failed> {
    let config = Config::from_env()?;
    let directory = Directory::from_env()?;
    directory.prepare()?;
    let _turn = turn(&directory)?;
    // One that was started a moment ago, by hand, may not answer yet.
    if is_running(&directory)? {
        let same = directory.hash().as_deref() == Some(config.hash().as_str());
        if same && status_of(&directory).is_ok() {
            return Ok(format!("already_started: {}", who(&directory)));
        }
        end(&directory)?;
    } else {
        send_away(&directory)?;
    }
    let failed = |error: io::Error| Failed::new("start_failed", error);
    let (log, said) = directory.log(LOG).map_err(failed)?;
    let mut child = spawn(&directory, &config, tcp, log).map_err(failed)?;
    let deadline = Instant::now() + START_DEADLINE;
    while status_of(&directory).is_err() {
        if child.try_wait().map_err(failed)?.is_some() {
            return Err(ended_early(&directory, said));
        }
        if Instant::now() >= deadline {
            return Err(Failed::new("start_failed", "the agent does not answer"));
        }
        sleep(PAUSE);
    }
    Ok(format!("started: {}", who(&directory)))
}

/// Ends the agent. What to print.
pub(crate) fn stop() -> Result<String, Failed> {
    let directory = Directory::from_env()?;
    if !directory.path().exists() {
        return Ok("stopped: no agent was running".to_owned());
    }
    directory.prepare()?;
    let _turn = turn(&directory)?;
    if !is_running(&directory)? {
        return Ok("stopped: no agent was running".to_owned());
    }
    let who = who(&directory);
    end(&directory)?;
    Ok(format!("stopped: {who}"))
}

/// What the agent says of itself. What to print.
pub(crate) fn status() -> Result<String, Failed> {
    let directory = Directory::from_env()?;
    Ok(match status_of(&directory) {
        Ok(answer) => format!("running\n\n{answer}"),
        Err(_) => "not_running".to_owned(),
    })
}

fn turn(directory: &Directory) -> Result<std::fs::File, Failed> {
    let turn = directory
        .lock_start(TURN_DEADLINE)
        .map_err(|error| Failed::new("directory_failed", error))?;
    turn.ok_or_else(|| Failed::new("busy", "another command starts or stops the agent"))
}

fn is_running(directory: &Directory) -> Result<bool, Failed> {
    directory.is_running(Duration::ZERO).map_err(|error| Failed::new("directory_failed", error))
}

fn who(directory: &Directory) -> String {
    directory.pid().map_or("the agent".to_owned(), |pid| format!("the agent is process {pid}"))
}

fn spawn(
    directory: &Directory,
    config: &Config,
    tcp: Option<&str>,
    log: std::fs::File,
) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["run", "--detached"]);
    command.args(tcp.map(|address| format!("--tcp={address}")));
    // Its working directory may be one that somebody wants to unmount; so no path may depend on it.
    command.current_dir("/").env(directory::VARIABLE, directory.path());
    if let Security::Tls { authorities: Some(path) } = &config.reach.security {
        command.env("MOORLINE_CA", path);
    }
    // The SDKs read `start`'s output to its end: the agent must not hold it.
    let (out, _) = directory.log("stdout.log")?;
    command.stdin(Stdio::null()).stdout(out).stderr(log).spawn()
}

fn ended_early(directory: &Directory, said: u64) -> Failed {
    let line = directory.last_line(said);
    Failed::new("start_failed", line.unwrap_or_else(|| "the agent ended at once".to_owned()))
}

/// Ends the agent that runs: first it is asked to.
fn end(directory: &Directory) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new("stop_failed", error);
    let gone = |patience| directory.is_running(patience).map(|running| !running).map_err(failed);
    let asked = exchange(directory, "DELETE /stop-agent").is_ok();
    if asked && gone(STOP_DEADLINE)? {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        // It still runs, so the id is its own.
        let pid = directory.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failed::new("stop_failed", "its process id is not known"))?;
        kill_process(pid, signal).map_err(|error| failed(error.into()))?;
        if gone(SIGNAL_DEADLINE)? {
            return Ok(());
        }
    }
    Err(Failed::new("stop_failed", "it does not end"))
}

/// Asks an agent to end that holds no lock of ours: the vendor's. When it ends it may remove the socket, so that ours must
/// not be there yet.
fn send_away(directory: &Directory) -> Result<(), Failed> {
    let deadline = Instant::now() + STOP_DEADLINE;
    while exchange(directory, "DELETE /stop-agent").is_ok() {
        if Instant::now() >= deadline {
            return Err(Failed::new("stop_failed", "another agent is there and does not end"));
        }
        sleep(LONG_PAUSE);
    }
    Ok(())
}

fn status_of(directory: &Directory) -> io::Result<String> {
    let answer = exchange(directory, "GET /")?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other("this is no agent"));
    }
    Ok(answer)
}

/// Asks over the socket, and returns all of the answer.
fn exchange(directory: &Directory, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(directory.socket())?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
