//! `moorline events` and `moorline device tail`: prints events as they come, and goes on where it was when the connection
//! breaks.
//!
//! With `--group` it commits what it has printed, a second later at the latest: whoever runs it next with that group goes on
//! there, and prints again what was not committed. What was read and where commits have come to is in `Reader`; what
//! server-sent events look like, in `Parser`.

use std::{
    io::{self, ErrorKind, Write},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{ApiArgs, Declined, encode};
use crate::{cluster::reason, http};

/// How long printed events wait to be committed together.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before it connects again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// For how long it tries to, before it gives up.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The longest line of a stream: the largest event in base64, and what stands around it.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// `moorline events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on where this consumer group has committed, and commit what is printed.
    #[arg(long)]
    group: Option<String>,
    /// Only those of this device.
    #[arg(long)]
    device: Option<String>,
    /// Only `datapoint`, `message`, `system`, `presence`, `mail` or `state`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only those of this channel.
    #[arg(long)]
    channel: Option<String>,
    /// From behind this cursor, as `id:` of the stream says it.
    #[arg(long, conflicts_with = "group")]
    after: Option<String>,
    /// End after so many events.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    api: ApiArgs,
}

impl EventsArgs {
    /// Those of one device, from now on.
    pub(super) fn of_device(device: String, api: ApiArgs) -> Self {
        let (group, kind, channel, after, count) = (None, None, None, None, None);
        Self { group, device: Some(device), kind, channel, after, count, api }
    }
}

/// Runs it.
pub(crate) async fn run(args: EventsArgs) -> anyhow::Result<()> {
    let token = args.api.token()?;
    let left = args.count.unwrap_or(u64::MAX);
    let mut reader = Reader { cursor: args.after.clone(), token, args, left, commit_at: None };
    let mut given_up_at = None;
    loop {
        let before = reader.cursor.clone();
        let error = tokio::select! {
            read = reader.read() => match read {
                Ok(()) if reader.left == 0 => return reader.commit().await,
                Ok(()) => anyhow::anyhow!("the stream ended"),
                Err(error) if error.is::<Declined>() => return Err(error),
                // Nobody takes what it prints any more: `| head`.
                Err(error) if is_broken_pipe(&error) => return Ok(()),
                Err(error) => error,
            },
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                return reader.commit().await;
            }
        };
        if reader.cursor.is_none() {
            // It never began.
            return Err(error);
        }
        if reader.cursor != before {
            given_up_at = None;
        }
        if Instant::now() >= *given_up_at.get_or_insert(Instant::now() + RETRY_FOR) {
            return Err(error);
        }
        eprintln!("moorline: {error:#}; connecting again");
        sleep(RETRY_PAUSE).await;
    }
}

/// One who reads, over several connections.
struct Reader {
    args: EventsArgs,
    token: Option<String>,
    /// Behind what was printed.
    cursor: Option<String>,
    /// How many events are still to be printed.
    left: u64,
    /// When what was printed is to be committed.
    commit_at: Option<Instant>,
}

impl Reader {
    /// Reads until the connection ends, or enough was printed.
    async fn read(&mut self) -> anyhow::Result<()> {
        let target = self.args.api.target()?;
        let path = self.path();
        let mut stream =
            http::stream(&target, &path, self.token.as_deref(), self.cursor.as_deref()).await?;
        if !stream.status.is_success() {
            return Err(declined(stream.status, &stream.rest().await?));
        }
        let mut parser = Parser::default();
        while self.left > 0 {
            let commit_at = self.commit_at;
            let chunk = tokio::select! {
                chunk = stream.chunk() => chunk?,
                () = async { sleep_until(commit_at.expect("checked")).await }, if commit_at.is_some() => {
                    self.commit().await?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            for said in parser.feed(&chunk)? {
                if self.left > 0 {
                    self.hear(said)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        let EventsArgs { group, device, kind, channel, api, .. } = &self.args;
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for (key, value) in [
            ("tenant", &api.tenant),
            ("group", group),
            ("device", device),
            ("type", kind),
            ("channel", channel),
        ] {
            value.as_ref().map(|value| pairs.append_pair(key, value));
        }
        format!("/api/v1/events?{}", pairs.finish())
    }

    fn hear(&mut self, said: Said) -> anyhow::Result<()> {
        match said.event.as_deref() {
            _ if said.data.is_empty() => {}
            Some("missed") => eprintln!("moorline: some events are gone: {}", said.data),
            Some(_) => {}
            None => {
                writeln!(io::stdout(), "{}", self.shown(&said.data)?)?;
                self.left -= 1;
            }
        }
        if said.id.is_some() && said.id != self.cursor {
            self.cursor = said.id;
            if self.args.group.is_some() {
                self.commit_at.get_or_insert(Instant::now() + COMMIT_INTERVAL);
            }
        }
        Ok(())
    }

    fn shown(&self, data: &str) -> anyhow::Result<String> {
        if self.args.api.json {
            return Ok(data.to_owned());
        }
        let event: Value = serde_json::from_str(data).context("an event is no JSON")?;
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        if let Some(field) = &self.args.api.only {
            let found = event.get(field).with_context(|| format!("no {field} in an event"))?;
            return Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned));
        }
        let kind = text("type").trim_start_matches("moorline.");
        let body = match event.get("data") {
            Some(data) => data.to_string(),
            None => text("data_base64").to_owned(),
        };
        let parts = [text("time"), text("device"), kind, text("subject"), &body];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
    }

    /// Commits what was printed, if there is a group to do it for.
    async fn commit(&mut self) -> anyhow::Result<()> {
        if self.commit_at.take().is_none() {
            return Ok(());
        }
        let (Some(group), Some(cursor)) = (&self.args.group, &self.cursor) else { return Ok(()) };
        let tenant = self.args.api.tenant.as_ref();
        let query = tenant.map(|tenant| {
            form_urlencoded::Serializer::new("?".to_owned()).append_pair("tenant", tenant).finish()
        });
        let path =
            format!("/api/v1/consumers/{}/commit{}", encode(group), query.unwrap_or_default());
        let body = serde_json::to_vec(&json!({ "cursor": cursor }))?;
        let target = self.args.api.target()?;
        let (status, answer) =
            http::request_as(Method::POST, &target, &path, body, self.token.as_deref()).await?;
        if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE {
            // What was not taken is committed with what comes.
            return Ok(());
        }
        Err(declined(status, &answer))
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn declined(status: StatusCode, answer: &[u8]) -> anyhow::Error {
    Declined { code: super::exit_code(status), why: reason(answer) }.into()
}

/// What a stream said, from one empty line to the next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    event: Option<String>,
    data: String,
    id: Option<String>,
}

/// Takes server-sent events apart.
#[derive(Debug, Default)]
struct Parser {
    rest: Vec<u8>,
    said: Said,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) -> anyhow::Result<Vec<Said>> {
        let mut all = Vec::new();
        self.rest.extend_from_slice(chunk);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line).context("the stream is no text")?;
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                all.push(std::mem::take(&mut self.said));
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.said.event = Some(value.to_owned()),
                "id" => self.said.id = Some(value.to_owned()),
                "data" => self.said.data.push_str(value),
                _ => {}
            }
        }
        anyhow::ensure!(self.rest.len() <= LINE_BYTES_MAX, "a line of the stream has no end");
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_comes_apart_wherever_it_is_cut() {
        let text = "retry: 1000\n: hello\nid: 1.2\n\nid: 1.3\r\ndata: {\"a\":1}\r\n\r\nevent: missed\ndata:x\n\n";
        let said = |event: Option<&str>, data: &str, id: Option<&str>| Said {
            event: event.map(str::to_owned),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        };
        let expected = [
            said(None, "", Some("1.2")),
            said(None, "{\"a\":1}", Some("1.3")),
            said(Some("missed"), "x", None),
        ];
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let (first, second) = text.split_at(cut);
            let mut all = parser.feed(first.as_bytes()).unwrap();
            all.extend(parser.feed(second.as_bytes()).unwrap());
            assert_eq!(all, expected, "cut at {cut}");
        }
        assert!(Parser::default().feed(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
