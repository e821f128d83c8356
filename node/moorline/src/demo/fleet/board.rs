//! What everybody saw, and what follows from it.
//!
//! Invariant: **what was acknowledged and not read is missing, and so is mail that was sent and not heard in its order.** Checked below.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

/// Of a payload that is shown.
const SHOWN_CHARS_MAX: usize = 96;

/// A mail as a device heard it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// Its name there.
    pub(super) name: String,
    pub(super) topic: String,
    pub(super) payload: String,
}

/// What is known of one device.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) platform: &'static str,
    pub(super) device: String,
    /// Nodes that it was at, one after the other.
    pub(super) places: Vec<u64>,
    /// Events that it began to say, numbered from 1.
    pub(super) sent: u64,
    pub(super) acked: BTreeSet<u64>,
    /// Events that the consumer group read.
    pub(super) read: BTreeSet<u64>,
    pub(super) heard: Vec<Heard>,
}

impl Line {
    /// Acknowledged, and not read.
    fn missing(&self) -> usize {
        self.acked.difference(&self.read).count()
    }

    /// What it heard, each mail once, in order.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for heard in &self.heard {
            if !names.contains(&heard.name.as_str()) {
                names.push(&heard.name);
            }
        }
        names
    }
}

/// All of them, and the mail that was sent. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Board(Arc<Mutex<(Vec<Line>, Vec<&'static str>)>>);

impl Board {
    /// Of devices, by platform and name.
    pub(super) fn new(devices: impl Iterator<Item = (&'static str, String)>) -> Self {
        let line = |(platform, device)| Line { platform, device, ..Line::default() };
        Self(Arc::new(Mutex::new((devices.map(line).collect(), Vec::new()))))
    }

    fn all(&self) -> MutexGuard<'_, (Vec<Line>, Vec<&'static str>)> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something about a device.
    pub(super) fn note<T>(&self, device: usize, note: impl FnOnce(&mut Line) -> T) -> T {
        note(&mut self.all().0[device])
    }

    /// A mail was sent to all.
    pub(super) fn mailed(&self, name: &'static str) {
        self.all().1.push(name);
    }

    /// An event came to the consumer group: a line of `moorline events`.
    pub(super) fn read(&self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return };
        let (Some(device), Some(number)) = (event["device"].as_str(), number(&event["data"]))
        else {
            return;
        };
        let mut all = self.all();
        if let Some(line) = all.0.iter_mut().find(|line| line.device == device) {
            line.read.insert(number);
        }
    }

    /// Whether all devices are somewhere.
    pub(super) fn all_came(&self) -> bool {
        self.all().0.iter().all(|line| !line.places.is_empty())
    }

    /// What is missing still, in words; nothing if nothing is.
    pub(super) fn missing(&self) -> Vec<String> {
        let all = self.all();
        let (lines, mailed) = &*all;
        let mut missing = Vec::new();
        for line in lines {
            let (device, lost) = (&line.device, line.missing());
            if line.acked.is_empty() {
                missing.push(format!("{device}: no event was acknowledged"));
            }
            if lost > 0 {
                missing.push(format!("{device}: {lost} acknowledged events were not read"));
            }
            if line.names() != *mailed {
                let heard = line.names();
                missing.push(format!("{device}: heard mail {heard:?} instead of {mailed:?}"));
            }
        }
        missing
    }

    /// For eyes.
    pub(super) fn table(&self) -> String {
        let all = self.all();
        let (lines, mailed) = &*all;
        let mut out = format!(
            "{:<13}{:<26}{:<10}{:>7}{:>14}{:>7}{:>9}{:>7}\n",
            "platform", "device", "at node", "events", "acknowledged", "read", "missing", "mail"
        );
        for line in lines {
            let places: Vec<_> = line.places.iter().map(u64::to_string).collect();
            writeln!(
                out,
                "{:<13}{:<26}{:<10}{:>7}{:>14}{:>7}{:>9}{:>7}",
                line.platform,
                line.device,
                places.join(" > "),
                line.sent,
                line.acked.len(),
                line.read.len(),
                line.missing(),
                format!("{}/{}", line.names().len(), mailed.len()),
            )
            .expect(STRING);
        }
        out += "\nThe same mail, as each of them heard it:\n";
        for line in lines {
            for heard in &line.heard {
                let Heard { topic, payload, .. } = heard;
                let short: String = payload.chars().take(SHOWN_CHARS_MAX).collect();
                let rest = if short.len() < payload.len() { "…" } else { "" };
                writeln!(out, "  {:<13}{topic}   {short}{rest}", line.platform).expect(STRING);
            }
        }
        out
    }

    /// Events that were acknowledged, and mails that were heard.
    pub(super) fn totals(&self) -> (usize, usize) {
        let all = self.all();
        let acked = all.0.iter().map(|line| line.acked.len()).sum();
        (acked, all.0.iter().map(|line| line.names().len()).sum())
    }
}

const STRING: &str = "a string takes everything";

/// What a device calls its event: each platform has put it somewhere else in the body.
fn number(data: &Value) -> Option<u64> {
    match data {
        Value::Object(fields) => match fields.get("seq").and_then(Value::as_f64) {
            // Small whole numbers, whichever way they came.
            Some(seq) => Some(seq as u64),
            None => fields.values().find_map(number),
        },
        Value::Array(items) => items.iter().find_map(number),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(name: &str) -> Heard {
        Heard { name: name.to_owned(), topic: "t".to_owned(), payload: "1".to_owned() }
    }

    #[test]
    fn what_was_acknowledged_and_not_read_is_missing() {
        let board = Board::new([("one", "a".to_owned()), ("two", "b".to_owned())].into_iter());
        assert!(!board.all_came());
        for device in 0..2 {
            board.note(device, |line| {
                line.places.push(1);
                line.acked.extend([1, 2]);
                line.sent = 3;
            });
        }
        assert!(board.all_came());
        for body in [
            r#"{"device":"a","data":{"seq":1,"t":2}}"#,
            r#"{"device":"a","data":{"data":{"seq":2.0}}}"#,
            r#"{"device":"b","data":[{"d":{"seq":1}}]}"#,
            r#"{"device":"c","data":{"seq":1}}"#,
            r#"{"device":"b","data":{"name":"seq"}}"#,
            "no JSON",
        ] {
            board.read(body.as_bytes());
        }
        assert_eq!(board.missing(), ["b: 1 acknowledged events were not read"]);
        board.read(br#"{"device":"b","data":{"seq":2}}"#);
        assert!(board.missing().is_empty());

        board.mailed("open");
        board.mailed("close");
        assert_eq!(board.missing().len(), 2);
        for device in 0..2 {
            board.note(device, |line| {
                line.heard.extend([heard("open"), heard("open"), heard("close")])
            });
        }
        assert!(board.missing().is_empty(), "twice is not missing");
        assert_eq!(board.totals(), (4, 4));
        board.note(1, |line| line.heard = vec![heard("close"), heard("open")]);
        assert_eq!(board.missing().len(), 1, "in another order");
        assert!(board.table().contains("2/2"));
    }
}
