//! The history: one JSON line per event, in the order one recorder saw them.
//!
//! The clients all live in one process, so one lock and one monotonic clock give a real-time order that can be
//! trusted. An operation has an `invoke` and then `ok`, `fail` or `info`; what has no answer (a delivery, a fault)
//! is a single `ok`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checks::Wanted;
use crate::loads::Load;
use crate::requests::{MailAnswer, MailAsk, RecordAnswer, RecordAsk};

/// Which half of an operation an event is, or how it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asked; no answer yet.
    Invoke,
    /// Acknowledged, or simply seen.
    Ok,
    /// Refused with an answer that promises no effect.
    Fail,
    /// Unknown: it may have happened.
    Info,
}

/// A message by who published it and its place among that publisher's messages, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId {
    /// Number of the publisher.
    pub publisher: u32,
    /// Counter of the publisher, from 1, without holes.
    pub seq: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}#{}", self.publisher, self.seq)
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// The peer or the network ended it.
    Lost,
    /// The client gave up waiting for an answer.
    TimedOut,
    /// The client left on purpose, to come back elsewhere.
    Churn,
    /// The peer broke the protocol.
    Protocol,
    /// The run is over.
    Stopped,
}

/// What was done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// The network drops everything from and to the node.
    Cut,
    /// The network is whole again.
    Heal,
    /// What was not fsynced is gone.
    PowerLoss,
    /// Of what was not fsynced a random prefix is left.
    TornWrites,
    /// A node was started again.
    Restart,
    /// A node answered that it is ready.
    Ready,
    /// A node was let into the cluster.
    Join,
    /// A node was told to leave for good.
    Leave,
    /// A dead node was given up.
    Remove,
    /// A node that must not run did not: its id was removed, or its directory is another.
    Refuse,
    /// SIGTERM: a node stops as it does for an upgrade.
    Terminate,
    /// Nothing reaches the node any more; it still reaches the others.
    CutIn,
    /// The node reaches nobody any more; the others still reach it.
    CutOut,
    /// Every fsync takes long.
    FsyncStall,
    /// One fsync fails.
    FsyncError,
    /// There is no room on the disk.
    DiskFull,
    /// The disk is whole again.
    DiskHealed,
    /// A node ended by itself, as it has to after what was done to it.
    Ended,
    /// Packets from and to the other nodes are late, lost and out of order.
    Slow,
    /// The other nodes, and it, get a reset for whatever they send each other.
    Reset,
    /// Clients do not reach the node; the other nodes do.
    CutClients,
    /// Off the network and on it again, every second.
    Flap,
    /// The wall clock jumped.
    Clock,
    /// A bit of what the node had synced is another.
    Damage,
    /// It was killed while it took a snapshot.
    SnapshotCut,
    /// Cut off, another one's power gone, then the third cut off: all steps of it.
    PartKill,
    /// The same with nodes that are stopped instead of cut off.
    PauseKill,
}

impl Fault {
    /// Whether a node is not itself from this fault on, until it is ready again or no member any more.
    pub fn strikes(self) -> bool {
        match self {
            Self::Kill
            | Self::Pause
            | Self::Cut
            | Self::CutIn
            | Self::CutOut
            | Self::CutClients
            | Self::Flap
            | Self::Slow
            | Self::Reset
            | Self::Terminate
            | Self::FsyncStall
            | Self::FsyncError
            | Self::DiskFull => true,
            Self::Resume
            | Self::Heal
            | Self::PowerLoss
            | Self::TornWrites
            | Self::Restart
            | Self::Ready
            | Self::Join
            | Self::Leave
            | Self::Remove
            | Self::Refuse
            | Self::DiskHealed
            | Self::Clock
            | Self::Damage
            | Self::SnapshotCut
            | Self::PartKill
            | Self::PauseKill
            | Self::Ended => false,
        }
    }

    /// Whether what struck a node is over for it.
    pub fn ends(self) -> bool {
        matches!(self, Self::Ready | Self::Leave | Self::Remove)
    }
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "v", rename_all = "kebab-case")]
pub enum Op {
    /// CONNECT; the `ok` says whether the node had the session.
    Connect {
        /// Number of the connection, unique in the run.
        conn: u64,
        /// Whether the client asked for a new session.
        clean: bool,
        /// CONNACK's session present flag; false in the `invoke`.
        present: bool,
        /// Most QoS 1 messages the client takes unacknowledged; 65,535 if it did not say.
        receive_max: u16,
    },
    /// A connection is over.
    Leave {
        /// Which connection.
        conn: u64,
        /// Why.
        why: Leave,
    },
    /// SUBSCRIBE and its SUBACK.
    Subscribe {
        /// Which connection.
        conn: u64,
        /// The topic filters; in the `ok`, those that were granted.
        filters: Vec<String>,
    },
    /// One attempt to publish, and its PUBACK or PUBREC.
    Publish {
        /// Which connection.
        conn: u64,
        /// Which message.
        message: MessageId,
        /// Where to.
        topic: String,
        /// Whether with QoS 2, in a session that outlives its connections.
        #[serde(default, skip_serializing_if = "is_false")]
        once: bool,
    },
    /// A PUBLISH reached a subscriber.
    Deliver {
        /// Which connection.
        conn: u64,
        /// Which message its payload says it is; none if the payload is damaged.
        message: Option<MessageId>,
        /// The topic on the packet.
        topic: String,
        /// The packet id.
        packet: u16,
        /// The DUP flag.
        dup: bool,
        /// Whether payload and topic belong together and the checksum holds.
        intact: bool,
        /// Whether with QoS 2: then what repeats a PUBLISH whose PUBREL has not come is no delivery (MQTT 4.3.3).
        #[serde(default, skip_serializing_if = "is_false")]
        once: bool,
    },
    /// A subscriber's PUBACK or PUBCOMP is about to be written.
    Ack {
        /// Which connection.
        conn: u64,
        /// The packet id.
        packet: u16,
    },
    /// Something was done to a node.
    Fault {
        /// What.
        fault: Fault,
        /// Whether it led a group then.
        leader: bool,
    },
    /// The state digest one replica reported.
    Digest {
        /// Which shard.
        shard: u32,
        /// The log index it was taken at.
        index: u64,
        /// The digest, hex.
        digest: String,
    },
    /// The run reached a stage.
    Mark {
        /// Which.
        stage: Stage,
    },
    /// A request about a device's record in the registry.
    Record {
        /// Number of the request, unique in the run.
        op: u64,
        /// Which device.
        device: String,
        /// What was asked.
        ask: RecordAsk,
        /// What was answered; with `fail` what it promises is that nothing was changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<RecordAnswer>,
    },
    /// A request about a device's mailbox.
    Mail {
        /// Number of the request, unique in the run.
        op: u64,
        /// Whose mailbox.
        device: String,
        /// What was asked.
        ask: MailAsk,
        /// What was answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<MailAnswer>,
    },
    /// A device's credential is revoked.
    Revoke {
        /// Number of the request, unique in the run.
        op: u64,
        /// Whose.
        device: String,
    },
    /// A group was seen to have another leader than before.
    Leads {
        /// Which shard.
        shard: u32,
        /// Who leads.
        leader: u32,
        /// In which term.
        term: u64,
    },
    /// A node wrote a line that must not be in its log.
    Log {
        /// Why not.
        why: Unwanted,
        /// The line, without what is secret.
        line: String,
    },
    /// A node was seen to have installed snapshots that others sent.
    Snapshots {
        /// How many more than when it was last asked.
        installed: u64,
    },
    /// An event of a workload with words of its own.
    Load(Load),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Why a line must not be in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unwanted {
    /// A thread panicked.
    Panic,
    /// It holds a secret: a key, a token, a device's secret.
    Secret,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Subscribers hold their sessions; publishing begins.
    Publishing,
    /// No new messages; faults are over.
    Draining,
    /// Every subscriber saw the last acknowledged message of each of its publishers.
    Drained,
    /// The deadline passed before that.
    DrainTimedOut,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the event, from 0, without holes.
    pub i: u64,
    /// Nanoseconds since the run began, on the recorder's monotonic clock.
    pub ns: u64,
    /// Who: a client id, `nemesis` or `harness`.
    pub p: String,
    /// Which half, or how it came out.
    pub ph: Phase,
    /// What.
    #[serde(flatten)]
    pub op: Op,
    /// The node spoken to or acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
}

/// The first line: what is needed to run the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this format.
    pub format: u32,
    /// The seed everything was drawn from.
    pub seed: u64,
    /// The command line.
    pub command: Vec<String>,
    /// The machine: cores, kernel, load.
    pub machine: String,
    /// What the run has to reach for its pass to mean something, if it says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
}

/// The version of the format this code reads and writes.
pub const FORMAT: u32 = 1;

/// Why a history cannot be read.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// A line is not what it should be.
    #[error("line {line} of the history is not readable")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// There is no header.
    #[error("the history is empty")]
    Empty,
    /// Another version wrote it.
    #[error("the history has format {found}, this build reads {FORMAT}")]
    Format {
        /// What the header says.
        found: u32,
    },
    /// Events are missing or out of order.
    #[error("event {found} stands where event {expected} should")]
    Hole {
        /// The number due.
        expected: u64,
        /// The number found.
        found: u64,
    },
}

/// Reads a whole history.
pub fn read(text: &str) -> Result<(Header, Vec<Event>), HistoryError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let (_, first) = lines.next().ok_or(HistoryError::Empty)?;
    let header: Header =
        serde_json::from_str(first).map_err(|source| HistoryError::Line { line: 1, source })?;
    if header.format != FORMAT {
        return Err(HistoryError::Format { found: header.format });
    }
    let mut events = Vec::new();
    for (expected, (at, line)) in (0..).zip(lines) {
        let event: Event = serde_json::from_str(line)
            .map_err(|source| HistoryError::Line { line: at + 1, source })?;
        if event.i != expected {
            return Err(HistoryError::Hole { expected, found: event.i });
        }
        events.push(event);
    }
    Ok((header, events))
}

/// One event as a line, without the newline.
pub fn line(event: &Event) -> String {
    serde_json::to_string(event).expect("an event holds only strings and numbers")
}

/// The header as a line, without the newline.
pub fn header_line(header: &Header) -> String {
    serde_json::to_string(header).expect("a header holds only strings and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT,
            seed: 7,
            command: vec!["kill".into()],
            machine: "2 cores".into(),
            wanted: None,
        }
    }

    fn event(i: u64, op: Op) -> Event {
        Event { i, ns: i * 10, p: "c".into(), ph: Phase::Ok, op, node: Some(1), err: None }
    }

    #[test]
    fn a_history_reads_back_as_written() {
        let message = MessageId { publisher: 3, seq: 9 };
        let events = vec![
            event(0, Op::Publish { conn: 1, message, topic: "t/1".into(), once: true }),
            event(1, Op::Fault { fault: Fault::PowerLoss, leader: true }),
            event(2, Op::Mark { stage: Stage::DrainTimedOut }),
        ];
        let mut text = header_line(&header());
        for event in &events {
            text.push('\n');
            text.push_str(&line(event));
        }
        let (read_header, read_events) = read(&text).unwrap();
        assert_eq!(read_header, header());
        assert_eq!(read_events, events);
    }

    #[test]
    fn the_line_format_is_frozen() {
        let message = MessageId { publisher: 3, seq: 9 };
        let op = Op::Publish { conn: 1, message, topic: "t".into(), once: false };
        assert_eq!(
            line(&event(4, op)),
            r#"{"i":4,"ns":40,"p":"c","ph":"ok","f":"publish","v":{"conn":1,"message":{"publisher":3,"seq":9},"topic":"t"},"node":1}"#
        );
    }

    #[test]
    fn holes_and_strangers_are_refused() {
        let head = header_line(&header());
        let second = line(&event(1, Op::Mark { stage: Stage::Drained }));
        assert!(matches!(read(""), Err(HistoryError::Empty)));
        assert!(matches!(read("{}"), Err(HistoryError::Line { line: 1, .. })));
        let hole = read(&format!("{head}\n{second}"));
        assert!(matches!(hole, Err(HistoryError::Hole { expected: 0, found: 1 })));
        let other = header_line(&Header { format: 99, ..header() });
        assert!(matches!(read(&other), Err(HistoryError::Format { found: 99 })));
    }
}
