//! The one recorder of a run: every event gets its number and time under one lock, and goes to the file at once.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moorline_oracle::history::{self, Header};
use moorline_oracle::{Event, Op, Phase};

/// Most events of a run. Beyond it the run ends with an error: a judge that forgets is worse than none. At 300 bytes
/// each this is 6 GB of memory, and hours of a run.
const EVENTS_MAX: usize = 20_000_000;

/// Where events are noted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    began: Instant,
    file: BufWriter<File>,
    events: Vec<Event>,
    failed: Option<io::Error>,
}

/// Who did something, and to which node.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// A client id, `nemesis` or `harness`.
    pub name: &'a str,
    /// The node.
    pub node: Option<u32>,
}

impl Recorder {
    /// Begins a history in a file.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", history::header_line(header))?;
        let notes = Notes { began: Instant::now(), file, events: Vec::new(), failed: None };
        Ok(Self(Arc::new(Mutex::new(notes))))
    }

    /// Notes an event.
    pub fn note(&self, actor: Actor<'_>, ph: Phase, op: Op) {
        self.note_error(actor, ph, op, None);
    }

    /// Notes an event and what went wrong.
    pub fn note_error(&self, actor: Actor<'_>, ph: Phase, op: Op, err: Option<String>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.events.len() == EVENTS_MAX {
            notes.failed.get_or_insert_with(|| io::Error::other("the run has too many events"));
        }
        if notes.failed.is_some() {
            return;
        }
        let ns = u64::try_from(notes.began.elapsed().as_nanos()).expect("584 years");
        let i = notes.events.len() as u64;
        let event = Event { i, ns, p: actor.name.to_owned(), ph, op, node: actor.node, err };
        let line = history::line(&event);
        notes.events.push(event);
        if let Err(error) = writeln!(notes.file, "{line}") {
            notes.failed = Some(error);
        }
    }

    /// How long the run has gone on.
    pub fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).began.elapsed()
    }

    /// Ends the history and gives it back; an error if any event could not be noted.
    pub fn finish(&self) -> io::Result<Vec<Event>> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.file.flush()?;
        match notes.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut notes.events)),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_oracle::history::{FORMAT, Stage};

    use super::*;

    #[test]
    fn the_file_holds_what_the_judge_gets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let (command, machine) = (vec![], "m".to_owned());
        let header = Header { format: FORMAT, seed: 1, command, machine, wanted: None };
        let recorder = Recorder::create(&path, &header).unwrap();
        let actor = Actor { name: "harness", node: None };
        for stage in [Stage::Publishing, Stage::Draining, Stage::Drained] {
            recorder.note(actor, Phase::Ok, Op::Mark { stage });
        }
        let events = recorder.finish().unwrap();
        let (read_header, read) = history::read(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((read_header, read), (header, events.clone()));
        assert!(events.windows(2).all(|pair| pair[0].ns <= pair[1].ns));
    }
}
