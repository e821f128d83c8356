//! What messages are about, and on which connection they travel: numbers that two versions of the product share.

/// Which of the three connections to a peer carries a message. Messages of one lane keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats, votes, leadership: small, and never behind anything large.
    Control = 0,
    /// Log entries, commands, deliveries.
    Data = 1,
    /// Snapshots.
    Bulk = 2,
}

impl Lane {
    /// All lanes, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Bulk];

    /// The lane of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Data => "data",
            Self::Bulk => "bulk",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self as u8)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message is about: picks its handler. Variants are added, never renumbered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind of a number; `None` for one that only a later version knows.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

// 0 is the hello, which no handler sees.
kinds! {
    /// Raft: entries for a follower.
    AppendStream = 1,
    /// Raft: the leader lives.
    Heartbeat = 2,
    /// Raft: a candidate asks for a vote.
    Vote = 3,
    /// Raft: would you vote for me?
    PreVote = 4,
    /// Raft: take over the leadership.
    TransferLeader = 5,
    /// Raft: how far does the leader know the asking replica's log?
    Matched = 6,
    /// A snapshot begins.
    SnapshotBegin = 7,
    /// A piece of a snapshot.
    SnapshotChunk = 8,
    /// A snapshot is whole.
    SnapshotEnd = 9,
    /// The router: a run of commands for a shard's leader.
    Submit = 16,
    /// Delivery, upwards: attach, detach, credit.
    Attachment = 17,
    /// Delivery, downwards: messages for attached sessions.
    Deliver = 18,
    /// A QoS 0 message for the durable sessions of a shard.
    Passing = 19,
    /// A message for the clean sessions of a node.
    LiveForward = 20,
    /// A node tells the meta leader how far it has applied the meta log.
    LeaseReport = 21,
    /// Asks the meta leader when every node has applied a route.
    RouteBarrier = 22,
    /// A session was taken over from a connection of the node.
    TakenOver = 23,
    /// The router: who leads the shard?
    Leader = 24,
    /// A QoS 2 message for the clean sessions of a node.
    LiveOnce = 25,
    /// Asks a shard's leader for a page of its retained messages.
    Retained = 26,
    /// Asks a shard's leader about devices, mail or events; the last may wait for something new.
    Question = 27,
    /// A shard's leader tells of devices: mail is ready, or they were changed.
    News = 28,
    /// A member of a share can take messages: to the leader of the share's shard.
    ShareAttach = 30,
    /// Messages that a share lends to members.
    ShareDeliver = 31,
    /// Which of these sessions are not subscribed to their shares?
    ShareCheck = 32,
    /// A member of a share takes no more.
    ShareDetach = 33,
    /// A snapshot goes on: what of it is there already?
    SnapshotResume = 34,
    /// An application has answered a call of a device that waits at the node.
    OwnCall = 35,
    /// What does the node remember of a device, or of a message?
    Explain = 36,
    /// Asks a group's leader for its rows, for a backup.
    Backup = 37,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_what_they_were() {
        // Frozen: nodes of two versions talk to each other during an upgrade.
        #[rustfmt::skip]
        let table = [
            (Kind::AppendStream, 1), (Kind::Heartbeat, 2), (Kind::Vote, 3), (Kind::PreVote, 4),
            (Kind::TransferLeader, 5), (Kind::Matched, 6), (Kind::SnapshotBegin, 7),
            (Kind::SnapshotChunk, 8), (Kind::SnapshotEnd, 9), (Kind::Submit, 16),
            (Kind::Attachment, 17), (Kind::Deliver, 18), (Kind::Passing, 19),
            (Kind::LiveForward, 20), (Kind::LeaseReport, 21), (Kind::RouteBarrier, 22),
            (Kind::TakenOver, 23), (Kind::Leader, 24), (Kind::LiveOnce, 25),
            (Kind::SnapshotResume, 34),
            (Kind::ShareAttach, 30),
            (Kind::ShareDeliver, 31), (Kind::ShareCheck, 32), (Kind::ShareDetach, 33),
            (Kind::Retained, 26), (Kind::Question, 27), (Kind::News, 28), (Kind::OwnCall, 35),
            (Kind::Explain, 36), (Kind::Backup, 37),
        ];
        assert_eq!(table.len(), Kind::ALL.len(), "a new kind gets its row here");
        for (kind, number) in table {
            assert_eq!(kind as u8, number);
            assert_eq!(Kind::from_number(number), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(255), None);
        assert_eq!(Lane::ALL.map(|lane| lane as u8), [0, 1, 2]);
        assert_eq!(Lane::from_number(3), None);
    }
}
