//! The control socket: one command a line in, one JSON object a line out.
//!
//! ```text
//!   lose | torn [SEED] | sync | eio-fsync N | eio-write N | enospc BYTES|off | slow-fsync MS | lie on|off | heal | status
//!   ──► {"ok":true,…status…}   or   {"ok":false,"error":"…"}
//! ```

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use crate::mount::Controller;

/// Longest command line, in bytes.
const LINE_BYTES_MAX: u64 = 256;
/// How long a caller may take to say what it wants, and we to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Drop everything not fsynced.
    Lose,
    /// Keep a random prefix of it.
    Torn(u64),
    /// Make everything durable.
    Sync,
    /// Fail the next fsyncs.
    EioFsync(u64),
    /// Fail the next writes.
    EioWrite(u64),
    /// Be this large, in bytes; none for as large as the backing file system.
    Enospc(Option<u64>),
    /// Let each fsync take this long, in milliseconds.
    SlowFsync(u64),
    /// Let fsync do nothing.
    Lie(bool),
    /// Switch all faults off.
    Heal,
    /// Only answer.
    Status,
}

/// Not a command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "no command is called \"{0}\": lose, torn [SEED], sync, eio-fsync N, eio-write N, enospc BYTES|off, \
     slow-fsync MS, lie on|off, heal, status"
)]
pub struct CommandError(String);

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let wrong = || CommandError(line.to_owned());
        let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["lose"] => Self::Lose,
            ["torn"] => Self::Torn(0),
            ["torn", seed] => Self::Torn(number(seed)?),
            ["sync"] => Self::Sync,
            ["eio-fsync", times] => Self::EioFsync(number(times)?),
            ["eio-write", times] => Self::EioWrite(number(times)?),
            ["enospc", "off"] => Self::Enospc(None),
            ["enospc", bytes] => Self::Enospc(Some(number(bytes)?)),
            ["slow-fsync", ms] => Self::SlowFsync(number(ms)?),
            ["lie", "on"] => Self::Lie(true),
            ["lie", "off"] => Self::Lie(false),
            ["heal"] => Self::Heal,
            ["status"] => Self::Status,
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lose => f.write_str("lose"),
            Self::Torn(seed) => write!(f, "torn {seed}"),
            Self::Sync => f.write_str("sync"),
            Self::EioFsync(times) => write!(f, "eio-fsync {times}"),
            Self::EioWrite(times) => write!(f, "eio-write {times}"),
            Self::Enospc(Some(bytes)) => write!(f, "enospc {bytes}"),
            Self::Enospc(None) => f.write_str("enospc off"),
            Self::SlowFsync(ms) => write!(f, "slow-fsync {ms}"),
            Self::Lie(true) => f.write_str("lie on"),
            Self::Lie(false) => f.write_str("lie off"),
            Self::Heal => f.write_str("heal"),
            Self::Status => f.write_str("status"),
        }
    }
}

impl Controller {
    /// Does what a command says.
    pub fn run(&self, command: Command) -> io::Result<()> {
        match command {
            Command::Lose => self.lose()?,
            Command::Torn(seed) => self.tear(seed)?,
            Command::Sync => self.sync()?,
            Command::EioFsync(times) => self.fail_fsyncs(times),
            Command::EioWrite(times) => self.fail_writes(times),
            Command::Enospc(bytes) => self.set_quota(bytes),
            Command::SlowFsync(ms) => self.slow_fsyncs(ms),
            Command::Lie(lie) => self.set_lie(lie),
            Command::Heal => self.heal(),
            Command::Status => {}
        }
        Ok(())
    }

    fn answer(&self, line: &str) -> Value {
        let done = match line.parse::<Command>() {
            Ok(command) => self.run(command).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = done {
            return json!({ "ok": false, "error": error });
        }
        let mut answer = json!(self.status());
        answer["ok"] = Value::Bool(true);
        answer
    }
}

/// Serves commands until the socket fails. One caller at a time: commands happen in an order.
pub fn serve(listener: &UnixListener, controller: &Controller) -> io::Result<()> {
    for caller in listener.incoming() {
        // A caller that misbehaves or goes away spoils its own command only.
        if let Err(error) = caller.and_then(|caller| answer(&caller, controller)) {
            eprintln!("lossyfs: a command was not answered: {error}");
        }
    }
    Ok(())
}

fn answer(caller: &UnixStream, controller: &Controller) -> io::Result<()> {
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(caller.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    let mut caller = caller;
    writeln!(caller, "{}", controller.answer(line.trim()))
}

/// Asks a control socket and returns its answer, one JSON object.
pub fn ask(socket: &Path, command: Command) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{command}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line)?;
    if answer["ok"] == true {
        return Ok(answer);
    }
    Err(io::Error::other(answer["error"].as_str().unwrap_or("no answer").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_written_and_others_refused() {
        let lines = [
            "lose",
            "torn 7",
            "sync",
            "eio-fsync 1",
            "eio-write 2",
            "enospc 4096",
            "enospc off",
            "slow-fsync 300",
            "lie on",
            "lie off",
            "heal",
            "status",
        ];
        for line in lines {
            assert_eq!(line.parse::<Command>().unwrap().to_string(), line);
        }
        assert_eq!(" torn ".parse(), Ok(Command::Torn(0)));
        for line in ["", "lose all", "torn x", "enospc", "eio-fsync -1", "lie maybe"] {
            assert!(line.parse::<Command>().is_err(), "{line}");
        }
    }
}
