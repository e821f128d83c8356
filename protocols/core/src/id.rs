//! Ids and other numbers that must not be mixed up: one newtype each, all plain integers on the wire.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A node of the cluster. Never reused, also not after its disk was lost.
    NodeId(u64)
}
number! {
    /// One start of one node's process: random, so that what an earlier process left behind can be told apart.
    Incarnation(u64)
}
number! {
    /// A shard, and the Raft group that holds it. 0 is the meta group, shards count from 1.
    ShardId(u16)
}
number! {
    /// A tenant (Fostrom fleet, Watson org, Drogue application, …). Tenants never meet.
    TenantId(u32)
}
number! {
    /// One network connection of one node process. Unique together with its [`Incarnation`].
    ConnId(u64)
}
number! {
    /// How often a session was opened. A higher epoch has taken the session over from every lower one.
    Epoch(u64)
}
number! {
    /// A place in a queue. Counts from 1, without gaps when handed out; 0 means "before the first".
    Offset(u64)
}
number! {
    /// Milliseconds since the Unix epoch, of a process clock or in log time (stamped by leaders, monotone per shard).
    UnixMillis(u64)
}

impl ShardId {
    /// The meta group: nodes, placement, tenants, routes.
    pub const META: Self = Self(0);
}

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
