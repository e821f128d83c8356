//! What a command came to. Refusals are values: every replica must agree on them.

use moorline_core::{Epoch, Offset, QoS, ShardId, TenantId, Text};

use crate::{
    calls::{CallAnswer, CallRefused},
    command::{Holder, RouteTarget, SessionId},
    documents::{DocumentAnswer, DocumentRefused},
    events::{EventAnswer, EventRefused},
    mail::{MailAnswer, MailRefused},
    registry::Owner,
    values::{ValueAnswer, ValueRefused},
};

/// The answer to one command. Variants are added, never renumbered: producer rows hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// To `OpenSession`.
    Opened {
        /// The session's row id.
        session: SessionId,
        /// Its epoch from now on.
        epoch: Epoch,
        /// Whether an earlier session goes on.
        present: bool,
        /// The first offset that is not settled.
        head: Offset,
        /// The offset that the next message will get.
        tail: Offset,
        /// The connection it was taken from, if it had one.
        previous: Option<Holder>,
        /// Filters of a session that was wiped by a clean start and are no longer held by any session of the shard.
        released: Vec<RouteChange>,
    },
    /// To `CloseSession`, `NodeGone` and `Tick`: filters that no session of the shard holds any more. What ends with a node ends
    /// by `Tick`.
    Released(Vec<RouteChange>),
    /// To `NodeGone`, `DropNodeRoutes` and `RegisterNode`: as `Released`, but there was more than one command may do: propose it again.
    Partly(Vec<RouteChange>),
    /// To `Subscribe`: the granted QoS per filter, and the filters the shard did not hold before.
    Subscribed {
        /// Per subscription, in order.
        granted: Vec<QoS>,
        /// Per subscription, in order: whether the session did not have it.
        new: Vec<bool>,
        /// When, as `Enqueue` wants to know it.
        at: u64,
        /// Every filter asked for, with the version the shard has for it: the proposer makes sure the meta group
        /// knows it before it answers the client. A shared filter's is no route, and orders what its share hears.
        routes: Vec<RouteChange>,
    },
    /// To `Unsubscribe`.
    Unsubscribed {
        /// Per filter, in order: whether there was such a subscription.
        existed: Vec<bool>,
        /// Filters that no session of the shard holds any more.
        released: Vec<RouteChange>,
    },
    /// To `JoinShare`.
    Joined {
        /// The row id of the share, and of its queue.
        share: SessionId,
        /// Where its messages go: the proposer makes sure the meta group knows it before it answers the client.
        route: RouteChange,
    },
    /// To `Receive`.
    Received {
        /// The publish's number: counts up within the session.
        number: u64,
        /// The lowest number that is not completed, this one among them.
        floor: u64,
    },
    /// To `Complete`.
    Completed {
        /// Per packet id, in order: whether there was such a publish.
        known: Vec<bool>,
    },
    /// To `Publish` and `PublishOnce`. A repeat of the latter says one session, whatever it was.
    Published {
        /// How many sessions have a matching subscription, whether the message was queued for them, passed by, or
        /// found their queue full while another had room.
        sessions: u32,
    },
    /// To commands about mail.
    Mail(MailAnswer),
    /// To commands about events.
    Events(EventAnswer),
    /// To commands about values.
    Values(ValueAnswer),
    /// To commands about calls.
    Calls(CallAnswer),
    /// To commands about documents.
    Documents(DocumentAnswer),
    /// To `PutTenant`.
    Tenant {
        /// Which, also when the group chose it.
        tenant: TenantId,
        /// Its version from now on.
        version: u64,
    },
    /// To `PutDevice`.
    Device {
        /// The version it was made with, for its lookups.
        born: u64,
        /// Its version from now on.
        version: u64,
        /// Whether it was made.
        new: bool,
    },
    /// To `PutLookup`: it leads to this device, which is not the one it may be taken from; nothing changed.
    Taken(Owner),
    /// To `SetRoute`, `RegisterNode`, …: the log index at which it became true. To `Digest`: the one it is as of.
    At(u64),
    /// The command was refused; nothing changed.
    Refused(Refused),
    /// The sequence number is neither the next one nor one whose answer is remembered. The producer has to send again
    /// from `expected`; if that is below what it has answers for, the group has forgotten the producer, and the outcome
    /// of what it has not heard of is unknown. Nothing changed.
    OutOfOrder {
        /// The next sequence number.
        expected: u64,
    },
}

/// A filter that a shard began or ceased to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// Whose topic space.
    pub tenant: TenantId,
    /// The filter.
    pub filter: Text,
    /// Where it leads.
    pub target: RouteTarget,
    /// The version: grows with every change in that shard (log index, then the command's place in its batch).
    pub version: u64,
    /// Whether the shard holds it now.
    pub present: bool,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such session, or another connection has it now.
    NotYours,
    /// The session holds as many subscriptions as it may.
    TooManySubscriptions,
    /// The shard holds as many sessions, or as many shares, as it may.
    TooManySessions,
    /// The meta group holds as many routes, nodes or tenants as it may.
    TooManyRoutes,
    /// The share has as many members as it may.
    TooManyMembers,
    /// Every session that wants the message has a full queue. When others have room, theirs alone is dropped and counted.
    QueueFull,
    /// The command's values do not fit together: a filter that is none, a cluster without nodes.
    Malformed,
    /// The cluster exists already, or does not exist yet.
    WrongState,
    /// The node id is known with another data directory.
    NodeIdTaken,
    /// The node was removed from the cluster: its id is never used again.
    NodeRemoved,
    /// There is no such token, it was used, or its time is over.
    NoToken,
    /// The tenant retains as much in this shard as it may.
    RetainedFull,
    /// It is not known any more what came meanwhile.
    TooLate,
    /// The membership of the share, or a later one of the same session, has ended already.
    Left,
    /// A publish of QoS 2 of this publisher has been open for as long as [`crate::NUMBERS_SPAN_MAX`] others took: it comes
    /// first.
    TooFarAhead,
    /// A command about mail.
    Mail(MailRefused),
    /// A command about events.
    Events(EventRefused),
    /// A command about values.
    Values(ValueRefused),
    /// A command about calls.
    Calls(CallRefused),
    /// A command about documents.
    Documents(DocumentRefused),
    /// There is one already: a tenant with this name or alias, or what a condition says must not be there.
    Exists,
    /// A condition names another version.
    VersionMismatch {
        /// The version it has.
        version: u64,
    },
    /// There is no such tenant, device or lookup.
    NotFound,
    /// There are as many tenants, devices, lookups, aliases or credentials as there may be.
    TooMany,
    /// A name, settings or a verifier has more bytes than it may.
    TooLarge,
    /// The command does not belong in this group.
    WrongGroup {
        /// The group it came to.
        group: ShardId,
    },
}
