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
    /// Retained messages (W6).
    Retained(Retained),
    /// Credentials that come and go (W8).
    Churn(Churn),
    /// Records of the audit, counted when everything is over.
    Audited(Audited),
    /// What is said of devices when everything is over.
    Last(Last),
    /// What a node uses.
    Usage(Usage),
    /// By how much counts of a node differ that must be equal.
    Accounts {
        /// So many messages or mails are nowhere, or twice.
        off: u64,
    },
}

/// What of a workload counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Messages that members of shares were given.
    Shares,
    /// Wills that were seen.
    Wills,
    /// Requests about retained messages that were answered.
    Retained,
    /// Credentials issued and revoked, devices disabled and enabled.
    Churn,
}

impl Kind {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shares => "messages of shares",
            Self::Wills => "wills",
            Self::Retained => "requests about retained messages",
            Self::Churn => "changes of credentials",
        }
    }
}

impl Load {
    /// What of a workload is done by an event of this phase, if anything is.
    pub fn done(&self, ph: Phase) -> Option<Kind> {
        let is = match self {
            Self::Share(share) => (Kind::Shares, matches!(share.act, ShareAct::Deliver { .. })),
            Self::Will(will) => (Kind::Wills, matches!(will.act, WillAct::Seen { .. })),
            Self::Retained(_) => (Kind::Retained, true),
            Self::Churn(churn) => (Kind::Churn, matches!(churn.act, ChurnAct::Change { .. })),
            Self::Audited(_) | Self::Last(_) | Self::Usage(_) | Self::Accounts { .. } => {
                return None;
            }
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

/// A request about what a topic retains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    /// Number of the request, unique in the run.
    pub op: u64,
    /// Which topic.
    pub topic: String,
    /// What is asked.
    pub ask: RetainAsk,
    /// What a fresh subscriber was given; in the `ok` of a read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What is asked. Values are unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetainAsk {
    /// Publish with RETAIN=1.
    Set {
        /// What.
        value: u64,
    },
    /// Publish nothing with RETAIN=1.
    Clear,
    /// Subscribe, in a new session.
    Read,
}

/// The retained message that a fresh subscriber was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which, if there was one; 0 if it is damaged.
    pub value: Option<u64>,
}

/// An event of a device whose credentials come and go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Churn {
    /// Which device.
    pub device: String,
    /// What.
    pub act: ChurnAct,
}

/// What happens to a device. Credentials have the numbers that the registry gave them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChurnAct {
    /// One request that changes the device: asked, then answered. `ok` if it did, `fail` if it surely did not.
    Change {
        /// Whether it is deleted.
        deletes: bool,
    },
    /// A credential was made for it.
    Issued {
        /// Which.
        credential: String,
    },
    /// A credential is to be of no use any more; `ok` once it is answered that it is.
    Revoke {
        /// Which; none means all, as the device is deleted.
        credential: Option<String>,
    },
    /// It is to be let in no more, for a while; `ok` once it is answered that it is.
    Disable,
    /// It is to be let in again; `ok` once it is answered that it is.
    Enable,
    /// A client connects with a credential: `ok` if it is let in, `fail` if it is turned away.
    Login {
        /// Number of the connection, unique in the run.
        conn: u64,
        /// With which.
        credential: String,
    },
    /// A node served a connection: a PUBACK or a delivery.
    Served {
        /// Which connection.
        conn: u64,
    },
    /// A connection is over.
    Close {
        /// Which.
        conn: u64,
    },
}

/// How many records of the audit are about a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Which.
    pub device: String,
    /// Of its making and its changes, those of its credentials among them.
    pub puts: u64,
    /// Of its deletion.
    pub deletes: u64,
}

/// What is said of a device when nothing changes any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Last {
    /// It is in the list of all.
    Listed {
        /// Which.
        device: String,
        /// Its version.
        version: u64,
        /// Its credentials.
        credentials: Vec<String>,
    },
    /// It was asked for.
    Got {
        /// Which.
        device: String,
        /// Its version; none if there is no such device.
        version: Option<u64>,
        /// Its credentials.
        credentials: Vec<String>,
    },
    /// It was deleted, and another one of its name was made.
    Reborn {
        /// Which.
        device: String,
        /// Whether it had a mailbox before there was another.
        mailbox_before: bool,
        /// How many credentials the new one has.
        credentials: u64,
        /// How many mails wait for it.
        mails: u64,
        /// Whether a client of the new one found a session.
        present: bool,
    },
}

/// What a node uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whether all clients are gone; before they came, if not.
    pub drained: bool,
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Connections of clients.
    pub connections: u64,
}
