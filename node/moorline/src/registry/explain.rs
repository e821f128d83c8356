//! `moorline explain …`: why something did not arrive.

use clap::{Args, Subcommand};
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::{ApiArgs, Declined, encode, exit_code};
use crate::{cluster::reason, http};

/// `moorline explain …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// What happened to a device lately: how it connected, what it said, what it was told and sent, and why something was refused.
    Device {
        /// Its name; of a client without a device its client id.
        name: String,
        #[command(flatten)]
        of: ExplainArgs,
    },
    /// Whom a message touched: who published it, and who was sent it.
    Message {
        /// The message's number, as `explain device` shows it.
        message: String,
        #[command(flatten)]
        of: ExplainArgs,
    },
}

/// How far back, and whom to ask.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// How far back: `90s`, `10m`, `1h`, `2d`.
    #[arg(long, default_value = "1h", value_parser = seconds)]
    since: u64,
    #[command(flatten)]
    api: ApiArgs,
}

/// Reads a time that has passed.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: 90s, 10m, 1h, 2d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(each).ok_or_else(wrong)
}

/// Runs it.
pub(crate) async fn run(command: ExplainCommand) -> anyhow::Result<()> {
    let (what, name, of) = match command {
        ExplainCommand::Device { name, of } => ("devices", name, of),
        ExplainCommand::Message { message, of } => ("messages", message, of),
    };
    let ExplainArgs { since, api } = of;
    let mut path = format!("/api/v1/{what}/{}/explain?back_s={since}", encode(&name));
    if let Some(tenant) = &api.tenant {
        path.push_str(&format!("&tenant={}", encode(tenant)));
    }
    let (token, target) = (api.token()?, api.target()?);
    let (status, answer) =
        http::request_as(Method::GET, &target, &path, Vec::new(), token.as_deref()).await?;
    if status != StatusCode::OK {
        return Err(Declined { code: exit_code(status), why: reason(&answer) }.into());
    }
    let answer: Value = serde_json::from_slice(&answer)?;
    if api.json {
        println!("{answer}");
        return Ok(());
    }
    print!("{}", text(&answer));
    for node in answer["silent"].as_array().into_iter().flatten() {
        eprintln!("node {node} did not answer: what it remembers is missing");
    }
    for more in answer["more"].as_array().into_iter().flatten() {
        let (node, notes) = (&more["node"], &more["notes"]);
        eprintln!("and {notes} more at node {node}: ask for less time, with --since");
    }
    Ok(())
}

/// For eyes: a line for each note, and under what was refused, dropped or ended why, and what to do.
fn text(answer: &Value) -> String {
    let notes = answer["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if notes.is_empty() {
        return "nothing is remembered: it was not here since then, or all its nodes were restarted\n"
            .to_owned();
    }
    notes.iter().map(lines).collect()
}

/// Topics and client ids are what strangers say: no control character of theirs reaches a terminal. Between the parts of a session's
/// name there is one.
fn printable(text: &str) -> String {
    let shown = |of: char| match of {
        '\u{1F}' => '/',
        of if of.is_control() => char::REPLACEMENT_CHARACTER,
        of => of,
    };
    text.chars().map(shown).collect()
}

fn lines(note: &Value) -> String {
    let word = |field: &str| printable(note[field].as_str().unwrap_or("-"));
    let mut out = format!(
        "{}  node {}  {:<12} {:<8}",
        word("time"),
        note["node"],
        word("stage"),
        word("result")
    );
    for field in ["device", "about"] {
        out.push_str(&format!("  {}", word(field)));
    }
    for (field, name) in [
        ("qos", "qos"),
        ("bytes", "bytes"),
        ("offset", "offset"),
        ("count", "count"),
        ("took_ms", "ms"),
    ] {
        if !note[field].is_null() {
            out.push_str(&format!("  {name} {}", note[field]));
        }
    }
    if !note["last_time"].is_null() {
        out.push_str(&format!("  last {}", word("last_time")));
    }
    if let Some(message) = note["message"].as_str() {
        out.push_str(&format!("  message {message}"));
    }
    out.push('\n');
    for route in note["routes"].as_array().into_iter().flatten() {
        out.push_str(&line_of(route));
    }
    let (named, all) = (note["routes"].as_array().map_or(0, Vec::len), note["count"].as_u64());
    let more = all.filter(|_| named > 0).map_or(0, |all| all.saturating_sub(named as u64));
    if more > 0 {
        out.push_str(&format!("    to {more} more places\n"));
    }
    if let (Some(cause), Some(what), Some(fix)) =
        (note["cause"].as_str(), note["what"].as_str(), note["fix"].as_str())
    {
        out.push_str(&format!("    {cause}: {what}\n    do: {fix}\n"));
    }
    out
}

/// One place that a message went to.
fn line_of(route: &Value) -> String {
    let word = |field: &str| route[field].as_str().unwrap_or("-").to_owned();
    let place = match route["to"].as_str() {
        Some("shard") => format!("queues of shard {}", route["id"]),
        Some("node") => format!("clean sessions at node {}", route["id"]),
        Some("kept") => format!("kept in shard {} for later subscribers", route["id"]),
        Some(_) | None => format!("{} {}", word("to"), route["id"]),
    };
    let mut out = format!("    to {place}: {}", word("result"));
    for (field, name) in [("sessions", "sessions"), ("log_index", "log index")] {
        if !route[field].is_null() {
            out.push_str(&format!(", {name} {}", route[field]));
        }
    }
    if let (Some(cause), Some(what)) = (route["cause"].as_str(), route["what"].as_str()) {
        out.push_str(&format!(", {cause}: {what}"));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read() {
        let table =
            [("90s", Some(90)), ("10m", Some(600)), ("1h", Some(3_600)), ("2d", Some(172_800))];
        let wrong = ["", "h", "1", "1w", "-1h", "1.5h", "99999999999999999d", "1ä"];
        for (text, expected) in table.into_iter().chain(wrong.map(|text| (text, None))) {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_was_refused_says_why_and_what_to_do() {
        let notes = json!({ "notes": [
            { "time": "T", "node": 2, "device": "d", "stage": "publish", "result": "refused", "about": "a/b", "qos": 1,
              "bytes": 3, "message": "00ff", "took_ms": 0.5, "cause": "queue_full", "what": "full", "fix": "take",
              "count": 4, "routes": [
                { "to": "shard", "id": 3, "result": "done", "sessions": 2, "log_index": 77 },
                { "to": "node", "id": 1, "result": "done", "cause": "nobody_listens", "what": "nobody" },
                { "to": "kept", "id": 4, "result": "refused", "cause": "retained_full", "what": "full" } ] },
            { "time": "U", "node": 1, "device": "d", "stage": "end", "result": "done", "about": "peer_gone" },
            { "time": "V", "last_time": "W", "node": 1, "device": "d", "stage": "settle", "result": "done",
              "about": "", "count": 9 },
        ] });
        let expected = "T  node 2  publish      refused   d  a/b  qos 1  bytes 3  count 4  ms 0.5  message 00ff\n    \
                        to queues of shard 3: done, sessions 2, log index 77\n    \
                        to clean sessions at node 1: done, nobody_listens: nobody\n    \
                        to kept in shard 4 for later subscribers: refused, retained_full: full\n    \
                        to 1 more places\n    \
                        queue_full: full\n    do: take\n\
                        U  node 1  end          done      d  peer_gone\n\
                        V  node 1  settle       done      d    count 9  last W\n";
        assert_eq!(text(&notes), expected);
        assert!(text(&json!({ "notes": [] })).starts_with("nothing is remembered"));
    }

    #[test]
    fn what_strangers_say_moves_no_cursor() {
        let notes = json!({ "notes": [{ "time": "T", "node": 1, "device": "d", "stage": "publish",
            "result": "done", "about": "a\u{1B}[2J\u{1F}b" }] });
        assert_eq!(text(&notes), "T  node 1  publish      done      d  a\u{FFFD}[2J/b\n");
    }
}
