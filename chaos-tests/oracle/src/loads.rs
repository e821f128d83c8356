//! What the workloads beside messages, mailboxes and records note: members of shared subscriptions, and what comes to them.
//!
//! Each has its own words here, and its own checks; what one workload notes no other check has to know.

use serde::{Deserialize, Serialize};

use crate::history::{Event, Op, Phase};

/// An event of one of these workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", content = "v", rename_all = "kebab-case")]
pub enum Load {
    /// Shared subscriptions (W7).
    Share(Share),
    /// Wills (W6).
    Will(Will),
}

/// What of a workload counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Messages that members of shares were given.
    Shares,
    /// Wills that were seen.
    Wills,
}

impl Kind {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shares => "messages of shares",
            Self::Wills => "wills",
        }
    }
}

impl Load {
    /// What of a workload is done by an event of this phase, if anything is.
    pub fn done(&self, ph: Phase) -> Option<Kind> {
        let is = match self {
            Self::Share(share) => (Kind::Shares, matches!(share.act, ShareAct::Deliver { .. })),
            Self::Will(will) => (Kind::Wills, matches!(will.act, WillAct::Seen { .. })),
        };
        (is.1 && ph == Phase::Ok).then_some(is.0)
    }

    /// What an event of a history is of these, if it is any.
    pub fn of(event: &Event) -> Option<&Self> {
        if let Op::Load(load) = &event.op { Some(load) } else { None }
    }
}

/// An event of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which share.
    pub group: u32,
    /// What.
    pub act: ShareAct,
}

/// What happens to a share. Messages have numbers that are unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareAct {
    /// A message is published to it: asked, then answered. No message is published twice.
    Publish {
        /// Which.
        message: u64,
    },
    /// A member connected.
    Open {
        /// Number of the connection, unique in the run.
        conn: u64,
        /// Whether its session outlives its connections.
        durable: bool,
        /// Whether the node had the session.
        present: bool,
    },
    /// It has had a SUBACK.
    Granted {
        /// On which connection.
        conn: u64,
    },
    /// It was given a message.
    Deliver {
        /// On which connection.
        conn: u64,
        /// Which; none if the payload is damaged or of another topic.
        message: Option<u64>,
        /// The DUP flag.
        dup: bool,
    },
    /// Its PUBACK is about to be written.
    Ack {
        /// On which connection.
        conn: u64,
        /// For which message.
        message: u64,
    },
    /// Its connection is over: lost, or dropped without a word.
    Close {
        /// Which.
        conn: u64,
    },
}

/// An event of a client that leaves wills, or of one that watches for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// Which life: each attempt to connect has its own, unique in the run, and so its own will. 0 if the event is of none.
    pub life: u64,
    /// What.
    pub act: WillAct,
}

/// What happens to a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WillAct {
    /// It connects, with a will: asked, then answered.
    Connect {
        /// Whether the session of the life before is to end.
        clean: bool,
        /// How long after the connection's end the will is due, in milliseconds. More than 0 only if the session lasts longer.
        delay_ms: u64,
    },
    /// Its connection is over.
    End {
        /// How.
        how: Ending,
    },
    /// A watcher connected.
    Open {
        /// Number of the connection, unique in the run.
        conn: u64,
        /// Whether the node had its session.
        present: bool,
    },
    /// A watcher has had its SUBACK.
    Granted,
    /// A watcher was given the will.
    Seen {
        /// On which connection.
        conn: u64,
        /// The DUP flag.
        dup: bool,
    },
    /// Its PUBACK is about to be written.
    Ack {
        /// On which connection.
        conn: u64,
    },
    /// A watcher's connection is over.
    Close {
        /// Which.
        conn: u64,
    },
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The client dies: a reset.
    Reset,
    /// The node or the network ended it.
    Lost,
    /// The client said DISCONNECT.
    Goodbye {
        /// Whether the node then closed the connection, and so had read it.
        heard: bool,
    },
    /// The client connected elsewhere while this connection stood.
    TakenOver,
}
