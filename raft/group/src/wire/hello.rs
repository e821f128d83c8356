//! The first message of each direction: who is there, and whether the two may talk at all.
//!
//! ```text
//!   hello   version u16 | cluster u128 | from u64 | to u64 | store u128 | incarnation u64 | lane u8
//!   answer  status u8 | version u16 | cluster u128 | node u64 | store u128 | incarnation u64
//! ```
//!
//! # Invariants
//!
//! - **Wrong company is refused before anything else is read**: another version, another cluster, another node than was
//!   meant, a node whose data directory is not the one the cluster knows. Both sides check. Checked by
//!   `super::tests::refusals`.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::{Incarnation, NodeId};

/// The version of everything that travels between nodes. Two versions do not talk.
pub(super) const VERSION: u16 = 1;

/// Why two nodes will not talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefusalReason {
    /// The other speaks another version of the protocol.
    Version = 1,
    /// The other belongs to another cluster.
    Cluster = 2,
    /// The other is not the node it was taken for, or uses the id of this node.
    Node = 3,
    /// The other's data directory is not the one that is registered for its id.
    Store = 4,
    /// The other is no node of this cluster.
    Unknown = 5,
    /// The other was removed from this cluster.
    Removed = 6,
    /// The other's certificate is not that of the node it says it is.
    Certificate = 7,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Version,
        Self::Cluster,
        Self::Node,
        Self::Store,
        Self::Unknown,
        Self::Removed,
        Self::Certificate,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Store => "store",
            Self::Unknown => "unknown",
            Self::Removed => "removed",
            Self::Certificate => "certificate",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "it speaks another version of the protocol",
            Self::Cluster => "it belongs to another cluster",
            Self::Node => "it is not the node its address is configured for",
            Self::Store => "its data directory is not the one registered for its node id",
            Self::Unknown => "its node id is not part of the cluster",
            Self::Removed => "its node id was removed from the cluster",
            Self::Certificate => "its certificate is not that of its node id",
        })
    }
}

/// Two nodes will not talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The other node.
    pub peer: NodeId,
    /// Why.
    pub reason: RefusalReason,
    /// Whether the peer refused this node, rather than this node the peer.
    pub by_peer: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, reason, by_peer } = self;
        if *by_peer {
            write!(f, "node {peer} refuses this node: {reason}")
        } else {
            write!(f, "this node refuses node {peer}: {reason}")
        }
    }
}

/// Who a node says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: u16,
    pub(super) cluster: u128,
    pub(super) node: NodeId,
    pub(super) store: u128,
    pub(super) incarnation: Incarnation,
}

/// What the one that connects says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) from: Identity,
    /// Whom it means to reach.
    pub(super) to: NodeId,
    /// Number of a lane.
    pub(super) lane: u8,
}

/// What the other one answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) from: Identity,
    pub(super) refused: Option<RefusalReason>,
}

const HELLO_BYTES: usize = 2 + 16 + 8 + 8 + 16 + 8 + 1;
const ANSWER_BYTES: usize = 1 + 2 + 16 + 8 + 16 + 8;

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_BYTES);
        out.put_u16(self.from.version);
        out.put_u128(self.from.cluster);
        out.put_u64(self.from.node.0);
        out.put_u64(self.to.0);
        out.put_u128(self.from.store);
        out.put_u64(self.from.incarnation.0);
        out.put_u8(self.lane);
        out.freeze()
    }

    /// `None` if the bytes are no hello. Later versions may append to it, so that they can be refused by version.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HELLO_BYTES {
            return None;
        }
        let (version, cluster) = (bytes.get_u16(), bytes.get_u128());
        let (node, to) = (NodeId(bytes.get_u64()), NodeId(bytes.get_u64()));
        let (store, incarnation) = (bytes.get_u128(), Incarnation(bytes.get_u64()));
        let lane = bytes.get_u8();
        Some(Self { from: Identity { version, cluster, node, store, incarnation }, to, lane })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ANSWER_BYTES);
        out.put_u8(self.refused.map_or(0, |reason| reason as u8));
        out.put_u16(self.from.version);
        out.put_u128(self.from.cluster);
        out.put_u64(self.from.node.0);
        out.put_u128(self.from.store);
        out.put_u64(self.from.incarnation.0);
        out.freeze()
    }

    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < ANSWER_BYTES {
            return None;
        }
        let refused = match bytes.get_u8() {
            0 => None,
            // A reason that only a later version knows.
            number => Some(RefusalReason::from_number(number).unwrap_or(RefusalReason::Version)),
        };
        let (version, cluster) = (bytes.get_u16(), bytes.get_u128());
        let (node, store) = (NodeId(bytes.get_u64()), bytes.get_u128());
        let incarnation = Incarnation(bytes.get_u64());
        Some(Self { from: Identity { version, cluster, node, store, incarnation }, refused })
    }
}

/// What a node knows about those it may talk to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) own: Identity,
    /// The store that is registered for the other; 0 if none is known.
    pub(super) store: u128,
    /// Whether the other is a node of the cluster.
    pub(super) known: bool,
    /// Whether it was one, and never will be again.
    pub(super) removed: bool,
}

impl Expected {
    /// Whether to refuse the one that connects.
    pub(super) fn check_hello(&self, hello: &Hello) -> Option<RefusalReason> {
        let from = &hello.from;
        if from.version != self.own.version {
            Some(RefusalReason::Version)
        } else if from.cluster != self.own.cluster {
            Some(RefusalReason::Cluster)
        } else if hello.to != self.own.node || from.node == self.own.node {
            Some(RefusalReason::Node)
        } else if self.removed {
            Some(RefusalReason::Removed)
        } else if !self.known {
            Some(RefusalReason::Unknown)
        } else {
            self.check_store(from.store)
        }
    }

    /// Whether to refuse the one that answered, which was taken for `node`.
    pub(super) fn check_answer(&self, answer: &Answer, node: NodeId) -> Option<RefusalReason> {
        let from = &answer.from;
        if from.version != self.own.version {
            Some(RefusalReason::Version)
        } else if from.cluster != self.own.cluster {
            Some(RefusalReason::Cluster)
        } else if from.node != node {
            Some(RefusalReason::Node)
        } else {
            self.check_store(from.store)
        }
    }

    fn check_store(&self, store: u128) -> Option<RefusalReason> {
        (self.store != 0 && self.store != store).then_some(RefusalReason::Store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64) -> Identity {
        Identity {
            version: VERSION,
            cluster: 7,
            node: NodeId(node),
            store: u128::from(node) * 100,
            incarnation: Incarnation(9),
        }
    }

    #[test]
    fn hellos_survive_the_wire_and_keep_their_layout() {
        let hello = Hello { from: identity(1), to: NodeId(2), lane: 1 };
        assert_eq!(Hello::decode(hello.encode()), Some(hello));
        assert_eq!(hello.encode().len(), 59);
        assert_eq!(hello.encode()[..2], [0, 1], "the version stands first, for ever");
        for refused in [None, Some(RefusalReason::Store)] {
            let answer = Answer { from: identity(2), refused };
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        assert_eq!(Hello::decode(hello.encode().slice(1..)), None);
        assert_eq!(Answer::decode(Bytes::new()), None);
    }

    #[test]
    fn only_the_right_company_is_let_in() {
        let expected = Expected { own: identity(2), store: 100, known: true, removed: false };
        let good = Hello { from: identity(1), to: NodeId(2), lane: 0 };
        #[rustfmt::skip]
        let table = [
            (good, None),
            (Hello { from: Identity { version: 2, ..good.from }, ..good }, Some(RefusalReason::Version)),
            (Hello { from: Identity { cluster: 8, ..good.from }, ..good }, Some(RefusalReason::Cluster)),
            (Hello { to: NodeId(3), ..good }, Some(RefusalReason::Node)),
            (Hello { from: identity(2), ..good }, Some(RefusalReason::Node)),
            (Hello { from: Identity { store: 1, ..good.from }, ..good }, Some(RefusalReason::Store)),
        ];
        for (hello, refused) in table {
            assert_eq!(expected.check_hello(&hello), refused, "{hello:?}");
        }
        let stranger = Expected { known: false, ..expected };
        assert_eq!(stranger.check_hello(&good), Some(RefusalReason::Unknown));
        let removed = Expected { removed: true, ..stranger };
        assert_eq!(removed.check_hello(&good), Some(RefusalReason::Removed));
        let unregistered = Expected { store: 0, ..expected };
        let wiped = Hello { from: Identity { store: 1, ..good.from }, ..good };
        assert_eq!(unregistered.check_hello(&wiped), None, "not registered yet");
    }

    #[test]
    fn the_one_that_answers_is_checked_too() {
        let expected = Expected { own: identity(1), store: 200, known: true, removed: false };
        let good = Answer { from: identity(2), refused: None };
        let other = |from| Answer { from, refused: None };
        #[rustfmt::skip]
        let table = [
            (good, None),
            (other(Identity { version: 2, ..good.from }), Some(RefusalReason::Version)),
            (other(Identity { cluster: 8, ..good.from }), Some(RefusalReason::Cluster)),
            (other(identity(3)), Some(RefusalReason::Node)),
            (other(Identity { store: 1, ..good.from }), Some(RefusalReason::Store)),
        ];
        for (answer, refused) in table {
            assert_eq!(expected.check_answer(&answer, NodeId(2)), refused, "{answer:?}");
        }
    }
}
