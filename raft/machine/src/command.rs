//! What is in the log: the commands of shards and of the meta group.

use bytes::Bytes;
use moorline_core::{
    ConnId, Epoch, Incarnation, Message, NodeId, Offset, QoS, ShardId, SubscriptionIds,
    SubscriptionOptions, TenantId, Text, Will, level::Program, port::SessionLimits,
};

use crate::{
    audit::Audited,
    calls::CallCommand,
    documents::DocumentCommand,
    events::EventCommand,
    forget::{Forget, Forgotten},
    mail::MailCommand,
    presence::ReportPresence,
    registry::{DeleteDevice, DeleteLookup, DeleteTenant, Owner, PutDevice, PutLookup, PutTenant},
    values::ValueCommand,
};

/// Who proposes: one random number per process and shard, so that sequence numbers of two processes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u64);

/// A session's row id: its bucket and a number counted in that bucket, so that it survives moves of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The bucket of the client identity.
    pub bucket: u16,
    /// Counts up within the bucket, never reused.
    pub number: u64,
}

/// The connection that holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The node the client is connected to.
    pub node: NodeId,
    /// That node's process.
    pub incarnation: Incarnation,
    /// The connection in that process.
    pub conn: ConnId,
}

/// Where a publish of QoS 2 comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The publisher's session, which lives in a shard of its own. For wills: [`Origin::of_wills`].
    pub session: SessionId,
    /// What [`Command::Receive`] answered, or a will's number.
    pub number: u64,
    /// The lowest number that this session has not completed: what is below is not asked about again.
    pub floor: u64,
}

impl Origin {
    /// The origin of a will of `shard`. Wills outlive their sessions, so each shard counts its own, under an id that no
    /// session has; `floor` is the lowest number that is still due there.
    #[must_use]
    pub fn of_wills(shard: ShardId, number: u64, floor: u64) -> Self {
        let session = SessionId { bucket: NO_BUCKET, number: u64::from(shard.0) };
        Self { session, number, floor }
    }
}

/// The first number that no bucket has.
const NO_BUCKET: u16 = moorline_core::shard::BUCKETS;

/// A filter and what was asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The well-formed filter.
    pub filter: Text,
    /// What was granted.
    pub options: SubscriptionOptions,
}

/// A copy of a retained message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// With this QoS: not 0.
    pub qos: QoS,
    /// The identifiers of the subscriptions it is for.
    pub ids: SubscriptionIds,
    /// What. `expires_at` as in `Publish`.
    pub message: Message,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// A shard with a durable session that holds the filter.
    Shard(ShardId),
    /// A process with a live clean session that holds the filter.
    Node(NodeId, Incarnation),
}

/// What a leader proposes. Variants are added, never renumbered: old logs hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    // ---- shards
    /// Opens, resumes or takes over a session.
    OpenSession {
        /// Whose session.
        tenant: TenantId,
        /// The client id.
        client: Text,
        /// Forget what was there.
        clean_start: bool,
        /// Seconds it outlives its connection; 0 ends with it, `u32::MAX` never.
        expiry_s: u32,
        /// The connection that wants it. A repeat with the same holder changes nothing.
        holder: Holder,
        /// What the session may take, until it is opened again. At most [`crate::SESSION_LIMITS_MAX`] counts.
        limits: SessionLimits,
        /// How many sessions the shard may have, this one included if it is new. At most
        /// [`crate::SESSIONS_PER_SHARD_MAX`] counts.
        sessions_max: u32,
        /// In the place of the session's will; without one it has none.
        will: Option<Box<Will>>,
    },
    /// The connection of a session is gone. Does nothing if `epoch` is not the session's.
    CloseSession {
        /// Whose session.
        session: SessionId,
        /// The epoch that `OpenSession` answered.
        epoch: Epoch,
        /// A new expiry, if the client said one.
        expiry_s: Option<u32>,
        /// The client said goodbye: its will is forgotten. Otherwise it becomes due, when its delay or the session is over.
        forget_will: bool,
    },
    /// Every session held by this process has lost its connection. It names who is dead, not who lives: whoever proposes it may have
    /// slept meanwhile, and the dead stay dead.
    NodeGone {
        /// The node.
        node: NodeId,
        /// Its process that is gone.
        gone: Incarnation,
    },
    /// Adds or replaces subscriptions of a durable session.
    Subscribe {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's.
        epoch: Epoch,
        /// What.
        subscriptions: Vec<Subscription>,
    },
    /// Ends subscriptions of a durable session.
    Unsubscribe {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's.
        epoch: Epoch,
        /// Which.
        filters: Vec<Text>,
    },
    /// Puts a message into the queue of every matching session of this shard.
    Publish {
        /// Whose topic space.
        tenant: TenantId,
        /// The session that published it, for subscriptions that do not want their own messages.
        from: Option<SessionId>,
        /// The message. Only here `expires_at` is relative: milliseconds from the stamp of the entry, so that the publisher's
        /// clock does not matter. `apply` makes log time of it.
        message: Message,
    },
    /// A publish of QoS 2 came from a session's client: gives it a number that stays the same however often it is sent,
    /// until it is completed. The message itself goes to the shards that want it, with that number.
    Receive {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's.
        epoch: Epoch,
        /// The packet id it came with.
        packet: u16,
    },
    /// [`Command::Publish`], but only once for each number of an origin.
    PublishOnce {
        /// Whose topic space.
        tenant: TenantId,
        /// Where it comes from.
        origin: Origin,
        /// As in `Publish`.
        message: Message,
    },
    /// A session's client has released these publishes: their packet ids are free.
    Complete {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's.
        epoch: Epoch,
        /// Which. Unknown ones do nothing.
        packets: Vec<u16>,
    },
    /// A session's client has received these deliveries of QoS 2: their messages never go out again, only their release.
    Release {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's; logs of earlier versions name none.
        epoch: Option<Epoch>,
        /// Which, ascending. Unknown ones do nothing.
        offsets: Vec<Offset>,
    },
    /// A session's client has acknowledged these offsets. They never come back.
    Settle {
        /// Whose.
        session: SessionId,
        /// Everything up to and including this offset.
        upto: Offset,
        /// And these, above `upto`, ascending.
        also: Vec<Offset>,
    },
    /// These wills were published: they are due no more. Unknown ones do nothing.
    WillsDone {
        /// Their numbers ([`crate::DueWill::number`]).
        numbers: Vec<u64>,
    },
    /// A session takes part in a share: gets some of the messages that match its filter, others get the rest. The first
    /// member makes the share. Nothing changes if a later version of the membership is known.
    JoinShare {
        /// Whose topic space.
        tenant: TenantId,
        /// The whole filter, `$share/name/filter`.
        filter: Text,
        /// The session, of any shard.
        member: SessionId,
        /// What it is granted.
        options: SubscriptionOptions,
        /// The version of the session's subscription, as its shard answered it.
        version: u64,
    },
    /// A session takes part no more; its share ends with the last one. Does nothing if a later version of the membership
    /// is known. A `JoinShare` of this version or an earlier one that comes afterwards is refused.
    LeaveShare {
        /// Whose topic space.
        tenant: TenantId,
        /// The whole filter.
        filter: Text,
        /// The session.
        member: SessionId,
        /// The version of the end of its subscription, or of the membership that is to end.
        version: u64,
    },
    /// Keeps a message for those who subscribe later, in the shard of its topic; an empty one removes what is kept.
    Retain {
        /// Whose topic space.
        tenant: TenantId,
        /// The device that retains it: the message goes with it.
        owner: Option<Owner>,
        /// As in `PublishOnce`, if it is to count once.
        origin: Option<Origin>,
        /// As in `Publish`.
        message: Message,
    },
    /// Puts copies of retained messages into the queue of a session that subscribed, but for those whose topic has come with
    /// RETAIN=1 since. Refused if too much time has passed since then.
    Enqueue {
        /// Whose.
        session: SessionId,
        /// Refused if it is not the session's.
        epoch: Epoch,
        /// What `Subscribe` answered as its time.
        since: u64,
        /// Which.
        copies: Vec<Enqueued>,
    },
    /// About mail, which waits for its device.
    Mail(MailCommand),
    /// About events, which devices send up.
    Events(EventCommand),
    /// About values: attributes and telemetry of devices.
    Values(ValueCommand),
    /// About calls: what devices are asked to do, and what they answer.
    Calls(CallCommand),
    /// About documents: what is kept for others to understand.
    Documents(DocumentCommand),
    /// How devices stand with a process of a node. Answered with `Done`.
    Presence(ReportPresence),
    /// Time passes: sessions and producers whose deadline is not after the batch's time end, and what they left is
    /// removed: a piece of it, so that no entry takes long ([`crate::Machine::next_deadline`] says when there is more).
    Tick,
    /// Every replica computes a digest over all rows of the group as of this index.
    Digest,

    // ---- meta group
    /// The cluster comes into being: once.
    CreateCluster {
        /// Random id of the cluster.
        cluster: u128,
        /// How many shards.
        shards: u16,
        /// Nodes that vote, with the address and store id of each.
        nodes: Vec<NodeRecord>,
        /// Voters per shard: 3, or fewer in a smaller cluster.
        replicas: u8,
    },
    /// A node says who and where it is. Refused if the id is known with another store id.
    RegisterNode(NodeRecord),
    /// Sets or removes a route, unless a higher version of it is known.
    SetRoute {
        /// Whose topic space.
        tenant: TenantId,
        /// The filter.
        filter: Text,
        /// Where it leads.
        target: RouteTarget,
        /// Grows with every change at the source (a shard's log index, a process's counter).
        version: u64,
        /// Whether it is there.
        present: bool,
    },
    /// Removes every route to this process.
    DropNodeRoutes {
        /// The node.
        node: NodeId,
        /// Its process that is gone.
        gone: Incarnation,
    },
    /// Names a tenant, and creates it if need be: what there was before [`Command::PutTenant`].
    SetTenant {
        /// The id.
        tenant: TenantId,
        /// Its name.
        name: Text,
    },
    /// Lets one node join: whoever shows the token first.
    AddToken {
        /// A hash of it: who reads the log or the rows cannot join.
        token_hash: u128,
        /// For how long, in log time.
        lifetime_ms: u64,
    },
    /// A node that the cluster does not know comes in. A repeat by the same data directory changes nothing.
    JoinNode {
        /// A hash of the token it was given.
        token_hash: u128,
        /// Who and where it is.
        record: NodeRecord,
    },
    /// Changes how a node stands. Nothing brings a removed one back.
    SetMember {
        /// Which.
        node: NodeId,
        /// What it is to be.
        state: MemberState,
    },
    /// Says who is to vote in a group. Its leader goes there step by step ([`crate::placement::next_step`]).
    Place {
        /// Which group.
        group: ShardId,
        /// What the proposer took the target to be: refused if it is another one by now.
        from: Vec<NodeId>,
        /// The new target, the preferred leader first.
        to: Vec<NodeId>,
    },
    /// A group's leader says that these vote, and nobody else. Refused if they are not the target.
    Placed {
        /// Which group.
        group: ShardId,
        /// Who votes, in any order.
        voters: Vec<NodeId>,
    },

    /// Raises the cluster's level, or takes note of what nodes say of their programs. Refused if a member that is not removed
    /// does not know the level, by what it said last. Programs that know only the first level can't read it: until it raises the
    /// level it is proposed by nobody ([`crate::MetaState::level_step`]).
    SetLevel {
        /// What it is to be; not below what it is.
        level: u16,
        /// What nodes said last. Those that the cluster does not know are left out.
        programs: Vec<(NodeId, Program)>,
    },
    /// Says how many copies each shard is to have: 1, 3 or 5. What is planned from then on follows it. Refused below the level
    /// [`moorline_core::level::REPLICAS_CHANGE`]: programs of before can't read it.
    SetReplicas {
        /// So many.
        replicas: u8,
    },

    // ---- the registry: [`crate::registry`] says what each does
    /// Meta group.
    PutTenant(PutTenant),
    /// Meta group.
    DeleteTenant(DeleteTenant),
    /// The device's shard.
    PutDevice(PutDevice),
    /// The device's shard.
    DeleteDevice(DeleteDevice),
    /// The shard of ([`crate::registry::LOOKUP_TENANT`], hash).
    PutLookup(PutLookup),
    /// As `PutLookup`.
    DeleteLookup(DeleteLookup),
    /// Every shard.
    Forget(Forget),
    /// The group that deleted them.
    Forgotten(Forgotten),
    /// One of the registry or of mail, with who wants it: it leaves a record if it changes anything.
    Audited(Box<Audited>),
}

/// How a node stands in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MemberState {
    /// It takes part: votes are placed on it, clients are served.
    Active = 0,
    /// It keeps its place, holds no votes and serves no clients, until it is active again.
    Draining = 1,
    /// As draining; once no group has a vote there it is removed.
    Leaving = 2,
    /// It is no part of the cluster any more, and its id never will be again.
    Removed = 3,
}

impl MemberState {
    /// All of them, by number.
    pub const ALL: [Self; 4] = [Self::Active, Self::Draining, Self::Leaving, Self::Removed];

    /// The state of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name, for eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
        }
    }
}

/// Which groups take a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Any,
    Shard,
    Meta,
}

impl Command {
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Tick | Self::Digest | Self::Forgotten(_) => Scope::Any,
            Self::Audited(audited) => audited.command.scope(),
            Self::OpenSession { .. }
            | Self::CloseSession { .. }
            | Self::NodeGone { .. }
            | Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Publish { .. }
            | Self::Receive { .. }
            | Self::PublishOnce { .. }
            | Self::Complete { .. }
            | Self::Release { .. }
            | Self::Settle { .. }
            | Self::WillsDone { .. }
            | Self::JoinShare { .. }
            | Self::LeaveShare { .. }
            | Self::Retain { .. }
            | Self::Mail(_)
            | Self::Events(_)
            | Self::Values(_)
            | Self::Calls(_)
            | Self::Documents(_)
            | Self::Presence(_)
            | Self::Enqueue { .. }
            | Self::PutDevice(_)
            | Self::DeleteDevice(_)
            | Self::PutLookup(_)
            | Self::DeleteLookup(_)
            | Self::Forget(_) => Scope::Shard,
            Self::CreateCluster { .. }
            | Self::RegisterNode(_)
            | Self::SetRoute { .. }
            | Self::DropNodeRoutes { .. }
            | Self::SetTenant { .. }
            | Self::AddToken { .. }
            | Self::JoinNode { .. }
            | Self::SetMember { .. }
            | Self::Place { .. }
            | Self::Placed { .. }
            | Self::SetLevel { .. }
            | Self::SetReplicas { .. }
            | Self::PutTenant(_)
            | Self::DeleteTenant(_) => Scope::Meta,
        }
    }
}

/// What the cluster knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its id, never reused.
    pub node: NodeId,
    /// Random id of its data directory: a wiped directory with an old id is refused.
    pub store: u128,
    /// The process that runs now.
    pub incarnation: Incarnation,
    /// Where other nodes reach it.
    pub address: Text,
}

/// Commands of one producer with consecutive sequence numbers, encoded once: the same bytes go over the wire, into the
/// log and into `apply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Who proposes.
    pub producer: ProducerId,
    /// The sequence number of the first command; the others follow by one.
    pub first_seq: u64,
    /// The producer has the answers of all below this one, so they can be forgotten.
    pub answered_below: u64,
    /// How many commands.
    pub count: u16,
    /// The encoded commands, one after the other ([`Command::encode`]).
    pub commands: Bytes,
}
