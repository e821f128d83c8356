//! The port between a node's edges (sockets, protocol sessions) and its service (who may do what, which shard, which
//! command).
//!
//! Everything is a message: an edge calls [`Link`], which never waits, and is answered through its [`Inbox`] by
//! [`Notice`]s that carry the edge's own `token`. So the edge knows no Raft and the service knows no socket, and either
//! side can be tested against a double of the other.
//!
//! ```text
//!   edge task ── Link::publish(token, message) ──► service ──► router ──► shard leader ──► log
//!             ◄─ Inbox::push(Notice::Published { token, outcome }) ◄────────────────────────
//! ```
//!
//! # Invariants
//!
//! - Exactly one [`Notice`] answers each `open`, `publish` with QoS > 0, `publish_once`, `complete`, `release`,
//!   `subscribe` and `unsubscribe`, unless the link was dropped or an ending notice came ([`Notice::ends`]). Checked by `node/service`'s tests.
//! - An answer of success means the promise of docs/guarantees.md was kept first.
//! - Deliveries of one session come in queue order. Checked by `chaos-tests/oracle`.

use std::{fmt, sync::Arc};

use crate::{
    ConnId, Delivery, Message, NodeId, Offset, QoS, ShareNumber, SubscriptionOptions, TenantId,
    Text, Will, rights::Who,
};

/// User properties of MQTT 5, in their order.
pub type UserProperties = Vec<(Text, Text)>;

/// Names an answer's question. Chosen by the edge; the service only gives it back.
pub type Token = u64;

/// What a node's service offers its edges.
pub trait Port: Send + Sync + 'static {
    /// Takes note of a new connection. Nothing is sent anywhere until [`Link::open`].
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link>;
}

/// One connection's way into the service. Dropping it means the connection broke ([`Close::Broken`]).
pub trait Link: Send + fmt::Debug {
    /// The connection's id, for logs.
    fn conn(&self) -> ConnId;

    /// Opens (or resumes, or takes over) a session. Answer: [`Notice::Opened`].
    fn open(&mut self, open: Open);

    /// Publishes with QoS 0 or 1. Answer: [`Notice::Published`], but for QoS 0, which has none.
    fn publish(&mut self, token: Token, message: Message);

    /// Publishes with QoS 2: whatever comes again under this packet id of the session, by this connection or a later one,
    /// counts once until [`Link::complete`]. Answer: [`Notice::Published`]; after a refusal the packet id is free, unless
    /// the outcome is unknown ([`Refusal::Unavailable`]).
    fn publish_once(&mut self, token: Token, packet: u16, message: Message);

    /// The client has released what it published under this packet id. Answer: [`Notice::Completed`].
    fn complete(&mut self, packet: u16);

    /// The client has received these QoS 2 deliveries of its durable queue: from the answer on only their release goes
    /// out, whatever happens. Answer: [`Notice::Released`].
    fn release(&mut self, offsets: Vec<Offset>);

    /// Subscribes to well-formed filters. Answer: [`Notice::Subscribed`].
    fn subscribe(&mut self, token: Token, filters: Vec<Filter>);

    /// The same, with the user properties of the SUBSCRIBE: to some platforms they mean something, all others take no notice.
    fn subscribe_saying(&mut self, token: Token, filters: Vec<Filter>, _user: UserProperties) {
        self.subscribe(token, filters);
    }

    /// Ends subscriptions. Answer: [`Notice::Unsubscribed`].
    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>);

    /// The client has acknowledged these offsets of its durable queue, in any order. No answer: a lost settlement costs
    /// a duplicate, never a message.
    fn settle(&mut self, offsets: &[Offset]);

    /// The client has acknowledged these items of shared subscriptions, in any order. No answer, as with `settle`.
    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]);
    /// The client has taken what the last [`Notice::Retained`] brought, or will never get it: there is room for the next.
    fn retained_taken(&mut self);

    /// Says goodbye. The link takes no more calls after it.
    fn close(&mut self, close: Close);
}

/// Where a connection hears from the service.
pub trait Inbox: Send + Sync + fmt::Debug {
    /// Hands over a notice without waiting.
    ///
    /// # Errors
    ///
    /// [`Overflow`] when the connection is gone or has not taken what it was sent before. The notice is lost then, so
    /// the connection must be closed; a durable session finds everything again when it comes back.
    fn push(&self, notice: Notice) -> Result<(), Overflow>;

    /// Whether somebody else tells it that the node stops, in its own time: the service need not then.
    fn hears_of_stops_elsewhere(&self) -> bool {
        false
    }
}

/// An [`Inbox`] did not take a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not take what it is sent")]
pub struct Overflow;

/// Who wants a session, and which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Whose session. Comes from the authenticated identity, never from the client's words.
    pub tenant: TenantId,
    /// The client's id within the tenant; of a device, among the ids of its own.
    pub client: Text,
    /// Which device of the tenant it is: the session is bound to it, and it has that device's rights. `None`: any client, which
    /// has the tenant's.
    pub who: Option<Arc<Who>>,
    /// Whether to forget what an earlier session left (MQTT Clean Start; 3.1.1 Clean Session).
    pub clean_start: bool,
    /// Seconds the session outlives its connection: 0 ends with it (a clean session), `u32::MAX` never ends.
    pub expiry_s: u32,
    /// How many deliveries the edge can hold unsettled: the service sends no more than this ahead.
    pub credit: u32,
    /// What the session may take of its shard.
    pub limits: SessionLimits,
    /// How many sessions its shard may have: refused if this would be one more.
    pub sessions_max: u32,
    /// What is published when this connection is gone without a goodbye.
    pub will: Option<Will>,
    /// How many deliveries the client takes unacknowledged (MQTT Receive Maximum): no shared subscription of it is lent
    /// more.
    pub window: u16,
}

/// What one session may take of its shard. Every opening brings it, in the log, so that all replicas agree on it whatever
/// their nodes are configured to; the session keeps it until it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Messages in its queue.
    pub queue_items: u32,
    /// Bytes of them.
    pub queue_bytes: u32,
    /// Its subscriptions.
    pub subscriptions: u32,
}

impl Default for SessionLimits {
    /// A device that is away for a while, not an archive.
    fn default() -> Self {
        Self { queue_items: 1_000, queue_bytes: 4 * 1024 * 1024, subscriptions: 100 }
    }
}

impl SessionLimits {
    /// As much as a shard lets any session have.
    #[must_use]
    pub fn none() -> Self {
        Self { queue_items: u32::MAX, queue_bytes: u32::MAX, subscriptions: u32::MAX }
    }

    /// The lower one of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            queue_items: self.queue_items.min(other.queue_items),
            queue_bytes: self.queue_bytes.min(other.queue_bytes),
            subscriptions: self.subscriptions.min(other.subscriptions),
        }
    }
}

/// The most that one shared subscription lends to one connection: enough to keep a client busy for the time a settlement
/// takes to come back, and little enough that others get their part.
pub const SHARE_LENT_MAX: u16 = 64;

/// How a session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Whether an earlier session goes on (MQTT Session Present).
    pub present: bool,
    /// The first offset the session will be sent; those before it are settled. Meaningless for a clean session.
    pub first: Offset,
    /// The offset after the last that is queued by now. Equal to `first` if nothing is. Meaningless for a clean session.
    pub end: Offset,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The well-formed filter.
    pub filter: Text,
    /// What is asked for it.
    pub options: SubscriptionOptions,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The client said goodbye; MQTT 5 may change the expiry then.
    Clean {
        /// The new session expiry in seconds, if it was given.
        expiry_s: Option<u32>,
        /// Whether the will counts all the same (MQTT 5: DISCONNECT 0x04). Otherwise it is forgotten.
        with_will: bool,
    },
    /// It broke, or ended for a reason that was told otherwise.
    Broken,
    /// It was ended from this side, for this. In all else it is as if it broke.
    Failed(Failure),
}

/// Why a connection was ended from this side. Platforms say so to who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nothing was heard for longer than its keep-alive allows.
    Silent,
    /// What it sent can't be read, or breaks the rules.
    Malformed,
    /// A packet is larger than may be.
    TooLarge,
    /// It may not be here any more.
    Revoked,
    /// What it asked was refused, and there was no other way to say so.
    Refused,
    /// It does not take what it is sent.
    Slow,
}

/// What the service tells a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The answer to [`Link::open`].
    Opened(Result<Opened, Refusal>),
    /// The answer to [`Link::publish`] and [`Link::publish_once`].
    Published {
        /// The publish it answers.
        token: Token,
        /// What became of it.
        outcome: Result<Published, Refusal>,
    },
    /// The answer to [`Link::complete`]: the packet id is free.
    Completed {
        /// The packet id.
        packet: u16,
        /// Whether anything had been published under it.
        known: bool,
    },
    /// The answer to [`Link::release`]: the same offsets.
    Released(Vec<Offset>),
    /// The answer to [`Link::subscribe`].
    Subscribed {
        /// The subscribe it answers.
        token: Token,
        /// Per filter, in order: the QoS granted.
        granted: Result<Vec<Result<QoS, Refusal>>, Refusal>,
    },
    /// The answer to [`Link::unsubscribe`].
    Unsubscribed {
        /// The unsubscribe it answers.
        token: Token,
        /// Per filter, in order: whether there was such a subscription.
        existed: Result<Vec<bool>, Refusal>,
    },
    /// Messages for the client, in order.
    Deliver(Vec<Delivery>),
    /// Retained messages for the client, beside its queues: the next come after [`Link::retained_taken`].
    Retained(Vec<Delivery>),
    /// Another connection has the session now (MQTT 5: 0x8E).
    TakenOver,
    /// The node stops and the client should go elsewhere (MQTT 5: 0x8B or 0x9C).
    Stopping {
        /// Another node, if one is known to be ready.
        instead: Option<NodeId>,
    },
    /// The service can't keep the session's promise here any longer; the client should connect again.
    Lost,
    /// The connection is over for a reason of its platform.
    Ended(Ended),
}

/// Why a platform ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The device may not be here any more (MQTT 5: 0x87, unless its platform says it otherwise).
    Revoked,
    /// It did something that its platform does not have (MQTT 5: 0x83).
    Misused,
    /// It sent a message that its platform does not take, for its size (MQTT 5: 0x95).
    TooLarge,
    /// It says more than it may (MQTT 5: 0x97).
    Limited,
    /// All it asked is answered, and it said that it would not stay (MQTT 5: 0x00).
    Finished,
}

impl Notice {
    /// Whether the connection has to end after this notice.
    #[must_use]
    pub fn ends(&self) -> bool {
        match self {
            Self::TakenOver
            | Self::Stopping { .. }
            | Self::Lost
            | Self::Ended(_)
            | Self::Opened(Err(_)) => true,
            Self::Opened(Ok(_))
            | Self::Published { .. }
            | Self::Completed { .. }
            | Self::Released(_)
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::Deliver(_)
            | Self::Retained(_) => false,
        }
    }
}

/// A publish that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Whether anybody wanted it (MQTT 5 answers 0x10 if not).
    pub matched: bool,
}

/// Why something was not done. Each is a different thing for a client to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The queues in front of the shard are full: try again later. Nothing happened.
    #[error("the cluster is busy")]
    Busy,
    /// No leader, no quorum, or no lease within the deadline: the outcome is unknown, a repeat is safe for QoS 1.
    #[error("the shard did not answer in time")]
    Unavailable,
    /// The session's or tenant's quota is used up. Nothing happened.
    #[error("a quota is used up")]
    Quota,
    /// The disk of too many nodes is nearly full. Nothing happened.
    #[error("the cluster is out of disk space")]
    DiskFull,
    /// This identity may not do that. Nothing happened.
    #[error("not authorised")]
    NotAuthorised,
    /// The message or filter is larger than a limit allows. Nothing happened.
    #[error("too large")]
    TooLarge,
    /// Its platform has no such topic. Nothing happened.
    #[error("there is no such topic")]
    Topic,
    /// Its platform can't read that payload there. Nothing happened.
    #[error("the payload can't be read")]
    Payload,
    /// Its platform has a reason of its own. Nothing happened.
    #[error("refused by its platform")]
    Platform(PlatformReason),
}

/// Which reason of MQTT 5 a platform gives in a refusal of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlatformReason {
    /// None that it would say (0x80).
    Unspecified,
    /// There is no such thing there (0x83).
    Unsupported,
    /// There are no wildcards there (0xA2).
    Wildcard,
}
