//! What a committed command means for the outside: acted on by the leader alone, after commit.

use moorline_core::{Delivery, Epoch, Offset, SubscriptionOptions, TenantId, Text};

use crate::{
    answer::RouteChange,
    calls::CallEffect,
    command::{Holder, SessionId},
    mail::MailEffect,
    values::AttributesChanged,
};

/// One thing for the leader to do. Losing all of them (a crash, a leader change) loses no message: rows are the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A session was opened by this connection, which may now be sent what is queued.
    Opened {
        /// Which.
        session: SessionId,
        /// Its epoch.
        epoch: Epoch,
        /// Who has it now.
        holder: Holder,
        /// Who had it before, and must be told.
        previous: Option<Holder>,
    },
    /// A session ended or lost its connection: nothing is sent to it any more.
    Closed {
        /// Which.
        session: SessionId,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// A session lost its connection because the process that has it was given up: if that lives after all, it is to hear it.
    Detached {
        /// Which.
        session: SessionId,
        /// The epoch that ended.
        epoch: Epoch,
        /// Who had it, and is to be told.
        holder: Holder,
    },
    /// A message was put into a session's queue (with its offset), or passes by (without).
    Deliver {
        /// To whom: a session, or a share, which has no session's row.
        session: SessionId,
        /// What.
        delivery: Delivery,
    },
    /// Items of a share were settled: they are with nobody any more.
    Settled {
        /// Whose.
        share: SessionId,
        /// Which; those that were settled before may be among them.
        offsets: Vec<Offset>,
    },
    /// A session began to take part in a share, or does no more.
    Member {
        /// Which share.
        share: SessionId,
        /// The session.
        member: SessionId,
        /// What it is granted, if it takes part.
        options: Option<SubscriptionOptions>,
    },
    /// A shared subscription of a session ended: its share, which is in another shard, has to hear it.
    Left {
        /// Whose topic space.
        tenant: TenantId,
        /// The whole filter.
        filter: Text,
        /// The session.
        member: SessionId,
        /// For `LeaveShare`.
        version: u64,
    },
    /// A session's queue is full and its copy of a message was dropped (docs/guarantees.md); counted in its row.
    QueueFull {
        /// Whose.
        session: SessionId,
        /// Of which tenant.
        tenant: TenantId,
        /// What the session is called; a share's is its filter.
        client: Text,
    },
    /// A will is due: the leader publishes it and then proposes [`crate::Command::WillsDone`].
    WillDue,
    /// A will became due while as many wait as may ([`crate::DUE_WILLS_MAX`]): it is gone.
    WillDropped {
        /// Whose.
        session: SessionId,
    },
    /// A message was not retained: the tenant's quota in this shard is used up.
    RetainedFull,
    /// News of mail.
    Mail(MailEffect),
    /// News of calls.
    Call(CallEffect),
    /// There is more in a tenant's stream than before this batch: who waits for it may read.
    Events {
        /// Whose stream.
        tenant: TenantId,
        /// How many events more.
        appended: u32,
    },
    /// Shared attributes of a device were set or deleted: it is to be told.
    Attributes(Box<AttributesChanged>),
    /// Attributes of another scope than [`Self::Attributes`], or latest values, of a device changed: who looks at them may read.
    Values {
        /// Whose.
        tenant: TenantId,
        /// Which.
        device: Text,
    },
    /// Points of a tenant's devices were recorded in this batch.
    Recorded {
        /// Whose.
        tenant: TenantId,
        /// How many.
        points: u32,
    },
    /// The shard began or ceased to hold filters; the meta group has to know.
    Routes(Vec<RouteChange>),
    /// A device was made, changed or deleted: what is known of its credentials, and its connections, may be wrong now.
    DeviceChanged {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        device: Text,
        /// The version it was made with.
        born: u64,
        /// Its version now, or its last one.
        version: u64,
        /// Whether it was deleted.
        gone: bool,
    },
    /// A tenant was made, changed or deleted. Nodes that do not lead the meta group compare versions instead.
    TenantChanged {
        /// Which.
        tenant: TenantId,
    },
    /// The group's digest as of its index (on every replica).
    Digest {
        /// The log index.
        index: u64,
        /// xxh3-128 over all rows in key order, key and value length-prefixed, but the applied row.
        digest: u128,
    },
}
