//! `moorline device import|export` and `moorline mail broadcast`: many devices in one request, lines of JSON both ways.
//!
//! # Invariants
//!
//! - **A broken connection is no end**: results come in the order of the lines, so an import goes on behind the last line that
//!   was answered, at the same or a restarted node. Checked by `tests/it/bulk.rs`.
//! - **Whoever reads the exit code knows**: 0 only if each line was done.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use hyper::{Method, body::Bytes};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use super::{ApiArgs, Declined, exit_code};
use crate::{
    EXIT_UNAVAILABLE,
    cluster::reason,
    http::{self, Unreachable},
};

/// What is read of the file at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for the connection.
const PIECES_MAX: usize = 8;
/// For how long it tries to go on after the connection broke, and the pause between.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// See there.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Nobody is told how it goes before it takes so long.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// How often they are.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Failed lines that are printed; all of them with `--json`.
const FAILED_SHOWN_MAX: u64 = 20;
/// Bytes of a line of results.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// `moorline device import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Lines of JSON: `{"name": "pump-1", "settings": {…}, "credentials": [{"generate": "plain"}]}`.
    file: PathBuf,
    /// Change devices that are there and differ; otherwise such lines fail.
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// `moorline device export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to write; standard output if absent.
    #[arg(long, short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArgs,
}

/// `moorline mail broadcast`.
#[derive(Debug, Args)]
pub(crate) struct BroadcastArgs {
    /// To all devices with this label.
    #[arg(long)]
    label: String,
    /// What it is about.
    name: String,
    /// Any JSON.
    payload: Option<String>,
    /// Seconds it may wait.
    #[arg(long)]
    ttl_s: Option<u64>,
    /// The id of a broadcast that broke off: only what was not sent is.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

impl BroadcastArgs {
    /// A mail, by name and payload, to all with a label.
    pub(super) fn to(
        label: String,
        (name, payload): (String, Option<String>),
        (ttl_s, id): (Option<u64>, Option<String>),
        api: ApiArgs,
    ) -> Self {
        Self { label, name, payload, ttl_s, id, api }
    }
}

/// Lines of an answer.
struct Answers {
    stream: http::Stream,
    held: Vec<u8>,
}

impl Answers {
    fn new(stream: http::Stream) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// The next one; [`None`] at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.held.iter().position(|byte| *byte == b'\n') {
                let rest = self.held.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.held, rest);
                line.pop();
                return Ok(Some(line));
            }
            let Some(piece) = self.stream.chunk().await? else {
                if !self.held.is_empty() {
                    bail!("the answer broke off within a line");
                }
                return Ok(None);
            };
            self.held.extend_from_slice(&piece);
            if self.held.len() > LINE_BYTES_MAX + PIECE_BYTES {
                bail!("a line of the answer does not end");
            }
        }
    }
}

/// How an import stands.
#[derive(Debug, Default)]
struct Tally {
    /// Lines that were answered, or are empty.
    lines: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
}

impl Tally {
    fn done(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.failed
    }
}

/// Says how it goes, on a terminal.
struct Progress {
    began: Instant,
    said_at: Instant,
    shown: bool,
    total: Option<u64>,
}

impl Progress {
    fn begin(total: Option<u64>) -> Self {
        let began = Instant::now();
        Self { began, said_at: began + PROGRESS_AFTER, shown: false, total }
    }

    fn say(&mut self, tally: &Tally) {
        if Instant::now() < self.said_at || !io::stderr().is_terminal() {
            return;
        }
        self.said_at = Instant::now() + PROGRESS_INTERVAL;
        self.shown = true;
        let rate = tally.done() as f64 / self.began.elapsed().as_secs_f64();
        let part = self.total.map_or_else(String::new, |total| {
            format!(" of {total} ({} %)", tally.lines.saturating_mul(100) / total.max(1))
        });
        eprint!("\r\x1b[K{}{part} lines, {rate:.0}/s, {} failed", tally.lines, tally.failed);
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Lines of an import. They are read again where a connection broke.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Lines(Bytes),
}

impl Source {
    fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        match self {
            Self::File(file) => {
                let opened = File::open(file).with_context(|| file.display().to_string())?;
                Ok(Box::new(opened))
            }
            Self::Lines(lines) => Ok(Box::new(io::Cursor::new(lines.clone()))),
        }
    }
}

/// Runs `moorline device import`.
pub(crate) async fn import(args: ImportArgs) -> anyhow::Result<()> {
    import_from(Source::File(args.file), args.update, args.api).await
}

/// Imports lines from anywhere.
pub(super) async fn import_from(source: Source, update: bool, api: ApiArgs) -> anyhow::Result<()> {
    let total = count_lines(&source)?;
    let mut import = Import {
        token: api.token()?,
        progress: Progress::begin(Some(total)),
        tally: Tally::default(),
        reached: false,
        source,
        update,
        api,
    };
    let mut give_up_at = None;
    loop {
        let before = import.tally.lines;
        match import.attempt().await {
            Ok(()) => break,
            Err(error) if import.is_final(&error) => return Err(error),
            Err(error) => {
                if import.tally.lines > before {
                    give_up_at = None;
                }
                if Instant::now() >= *give_up_at.get_or_insert(Instant::now() + RETRY_FOR) {
                    let said =
                        format!("{} lines are done; the same command goes on", import.tally.lines);
                    return Err(error.context(said));
                }
                import.progress.clear();
                eprintln!("moorline: {error:#}; going on behind line {}", import.tally.lines);
                sleep(RETRY_PAUSE).await;
            }
        }
    }
    import.end()
}

fn count_lines(source: &Source) -> anyhow::Result<u64> {
    let mut reader = BufReader::new(source.open()?);
    let (mut lines, mut piece, mut last) = (0, vec![0; PIECE_BYTES], b'\n');
    loop {
        let read = reader.read(&mut piece)?;
        if read == 0 {
            return Ok(lines + u64::from(last != b'\n'));
        }
        lines += piece[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        last = piece[read - 1];
    }
}

/// An import, over several connections.
struct Import {
    source: Source,
    update: bool,
    api: ApiArgs,
    token: Option<String>,
    progress: Progress,
    tally: Tally,
    /// A node took a line once.
    reached: bool,
}

impl Import {
    /// Whether to try again would not help: what was never there, and what was refused for another reason than an election.
    fn is_final(&self, error: &anyhow::Error) -> bool {
        match error.downcast_ref::<Declined>() {
            Some(declined) => !self.reached || declined.code != EXIT_UNAVAILABLE,
            None => !self.reached && error.is::<Unreachable>(),
        }
    }

    /// One connection: from behind the last line that was answered to the end of the file.
    async fn attempt(&mut self) -> anyhow::Result<()> {
        let first = self.tally.lines;
        let (sender, body) = mpsc::channel(PIECES_MAX);
        let file = self.source.open()?;
        let reading = tokio::task::spawn_blocking(move || send_file(file, first, &sender));
        let update = self.update.then(|| ("update", "true".to_owned()));
        let path = self.api.path(&["devices", "import"], update.into_iter().collect());
        let target = self.api.target()?;
        let mut stream = http::upload(&target, &path, self.token.as_deref(), body).await?;
        if !stream.status.is_success() {
            let code = exit_code(stream.status);
            let why = reason(&stream.rest().await?);
            return Err(Declined { code, why }.into());
        }
        self.reached = true;
        let mut answers = Answers::new(stream);
        while let Some(line) = answers.next().await? {
            self.take(first, &line)?;
        }
        drop(answers);
        let sent = reading.await.context("the file's reader panicked")??;
        if !sent {
            bail!("the connection broke");
        }
        // Empty lines at the end have no result.
        Ok(())
    }

    fn take(&mut self, first: u64, line: &[u8]) -> anyhow::Result<()> {
        let mut result: Value = serde_json::from_slice(line).context("the answer is no JSON")?;
        let number = first + result["line"].as_u64().unwrap_or(0);
        self.tally.lines = number;
        result["line"] = json!(number);
        match result["result"].as_str() {
            Some("created") => self.tally.created += 1,
            Some("updated") => self.tally.updated += 1,
            Some("unchanged") => self.tally.unchanged += 1,
            _ => self.failed(&result),
        }
        if self.api.json {
            println!("{result}");
        } else {
            for secret in result["secrets"].as_array().into_iter().flatten() {
                let (name, secret) = (&result["name"], secret.as_str().unwrap_or_default());
                println!("{}\t{secret}", name.as_str().unwrap_or_default());
            }
        }
        self.progress.say(&self.tally);
        Ok(())
    }

    fn failed(&mut self, result: &Value) {
        self.tally.failed += 1;
        if !self.api.json && self.tally.failed <= FAILED_SHOWN_MAX {
            self.progress.clear();
            let (code, detail) = (result["code"].as_str(), result["detail"].as_str());
            let (code, detail) = (code.unwrap_or("failed"), detail.unwrap_or_default());
            eprintln!("line {}: {code}: {detail}", result["line"]);
        }
    }

    fn end(self) -> anyhow::Result<()> {
        self.progress.clear();
        let Tally { created, updated, unchanged, failed, .. } = self.tally;
        let took = self.progress.began.elapsed().as_secs_f64();
        let rate = self.tally.done() as f64 / took.max(f64::EPSILON);
        eprintln!(
            "{created} created, {updated} updated, {unchanged} unchanged, {failed} failed in {took:.1} s ({rate:.0}/s)"
        );
        if failed > 0 {
            bail!("{failed} lines failed");
        }
        Ok(())
    }
}

/// Sends a file from behind a line on. `false` if nobody takes it any more.
fn send_file(
    file: Box<dyn Read + Send>,
    behind: u64,
    to: &mpsc::Sender<Bytes>,
) -> io::Result<bool> {
    let mut reader = BufReader::with_capacity(PIECE_BYTES, file);
    let mut skipped = Vec::new();
    for _ in 0..behind {
        skipped.clear();
        reader.read_until(b'\n', &mut skipped)?;
    }
    loop {
        let piece = Bytes::copy_from_slice(reader.fill_buf()?);
        if piece.is_empty() {
            return Ok(true);
        }
        reader.consume(piece.len());
        if to.blocking_send(piece).is_err() {
            return Ok(false);
        }
    }
}

/// Runs `moorline device export`.
pub(crate) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let token = args.api.token()?;
    let path = args.api.path(&["devices", "export"], Vec::new());
    let target = args.api.target()?;
    let (none, body) = mpsc::channel(1);
    drop(none);
    let mut answers =
        begun(http::exchange_lines(Method::GET, &target, &path, token.as_deref(), body).await?)
            .await?;
    let mut out: Box<dyn Write> = match &args.output {
        Some(file) => Box::new(io::BufWriter::new(
            File::create(file).with_context(|| file.display().to_string())?,
        )),
        None => Box::new(io::BufWriter::new(io::stdout().lock())),
    };
    let mut devices = 0_u64;
    let mut total = None;
    while let Some(line) = answers.next().await? {
        if let Some(said) = total_of(&line) {
            total = Some(said);
            continue;
        }
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        devices += 1;
    }
    out.flush()?;
    if total != Some(devices) {
        bail!("the export broke off after {devices} devices");
    }
    eprintln!("{devices} devices");
    Ok(())
}

/// The last line says how many there were.
fn total_of(line: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(line).ok()?;
    value.get("name").is_none().then(|| value.get("devices")?.as_u64())?
}

async fn begun(mut stream: http::Stream) -> anyhow::Result<Answers> {
    if stream.status.is_success() {
        return Ok(Answers::new(stream));
    }
    let code = exit_code(stream.status);
    let why = reason(&stream.rest().await?);
    Err(Declined { code, why }.into())
}

/// Runs `moorline mail broadcast`.
pub(crate) async fn broadcast(args: BroadcastArgs) -> anyhow::Result<()> {
    let payload: Value = match &args.payload {
        Some(text) => serde_json::from_str(text).context("the payload is no JSON")?,
        None => Value::Null,
    };
    let mail = json!({ "name": args.name, "payload": payload, "ttl_s": args.ttl_s, "id": args.id });
    let body = json!({ "selector": { "label": args.label }, "mail": mail }).to_string();
    let token = args.api.token()?;
    let path = args.api.path(&["mail"], Vec::new());
    let (sender, pieces) = mpsc::channel(1);
    sender.send(Bytes::from(body)).await?;
    drop(sender);
    let target = args.api.target()?;
    let began =
        http::exchange_lines(Method::POST, &target, &path, token.as_deref(), pieces).await?;
    let mut answers = begun(began).await?;
    let mut total = Value::Null;
    while let Some(line) = answers.next().await? {
        let value: Value = serde_json::from_slice(&line).context("the answer is no JSON")?;
        if value.get("device").is_none() {
            total = value;
        } else if args.api.json {
            println!("{value}");
        } else if value["result"] == "failed" {
            eprintln!("{}: {}", value["device"], value["code"]);
        }
    }
    println!("{total}");
    let complete = total["complete"] == true;
    if !complete || total["failed"] != 0 {
        bail!("not all was sent: the same with --id {} sends the rest", total["id"]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_sent_from_behind_the_line_that_was_answered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("devices");
        std::fs::write(&file, "one\ntwo\n\nfour").unwrap();
        let source = Source::File(file);
        assert_eq!(count_lines(&source).unwrap(), 4);
        for (behind, rest) in [(0, "one\ntwo\n\nfour"), (1, "two\n\nfour"), (3, "four"), (4, "")] {
            let (sender, mut receiver) = mpsc::channel(8);
            assert!(send_file(source.open().unwrap(), behind, &sender).unwrap());
            drop(sender);
            let mut sent = Vec::new();
            while let Some(piece) = receiver.blocking_recv() {
                sent.extend_from_slice(&piece);
            }
            assert_eq!(String::from_utf8(sent).unwrap(), rest, "{behind}");
        }
    }

    #[test]
    fn the_total_is_no_device() {
        assert_eq!(total_of(br#"{"devices":3}"#), Some(3));
        assert_eq!(total_of(br#"{"name":"a","devices":3}"#), None);
        assert_eq!(total_of(b"{"), None);
    }
}
