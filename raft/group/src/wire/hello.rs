//! The first message of each direction: who is there, and whether the two may talk at all.
//!
//! ```text
//!   hello   version u16 | cluster u128 | from u64 | to u64 | store u128 | incarnation u64 | lane u8 | program
//!   answer  status u8 | version u16 | cluster u128 | node u64 | store u128 | incarnation u64 | program
//!   program levels it knows: lowest u16, highest u16 | its version: major u16, minor u16, patch u16
//! ```
//!
//! Who sends no program is of before there were levels, and knows the first; such a one ignores what stands behind its own hello.
//!
//! # Invariants
//!
//! - **Wrong company is refused before anything else is read**: another version, another cluster, another node than was
//!   meant, a node whose data directory is not the one the cluster knows, a program that does not know the cluster's level. Both sides check. Checked by
//!   `super::tests::refusals`.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::{
    Incarnation, NodeId,
    level::{Levels, Program},
};

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
    /// The other's program does not know the level of the cluster.
    Level = 8,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Cluster,
        Self::Node,
        Self::Store,
        Self::Unknown,
        Self::Removed,
        Self::Certificate,
        Self::Level,
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
            Self::Level => "level",
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
            Self::Level => "its program does not know the level that the cluster is at",
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
    pub(super) program: Program,
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
const PROGRAM_BYTES: usize = 5 * 2;

fn put_program(out: &mut BytesMut, program: &Program) {
    let Program { levels: Levels { min, max }, version } = program;
    [*min, *max].iter().chain(version).for_each(|number| out.put_u16(*number));
}

/// What stands behind the rest, if anything does.
fn take_program(bytes: &mut Bytes) -> Program {
    if bytes.len() < PROGRAM_BYTES {
        return Program::SILENT;
    }
    let levels = Levels { min: bytes.get_u16(), max: bytes.get_u16() };
    Program { levels, version: [bytes.get_u16(), bytes.get_u16(), bytes.get_u16()] }
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HELLO_BYTES + PROGRAM_BYTES);
        out.put_u16(self.from.version);
        out.put_u128(self.from.cluster);
        out.put_u64(self.from.node.0);
        out.put_u64(self.to.0);
        out.put_u128(self.from.store);
        out.put_u64(self.from.incarnation.0);
        out.put_u8(self.lane);
        put_program(&mut out, &self.from.program);
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
        let program = take_program(&mut bytes);
        let from = Identity { version, cluster, node, store, incarnation, program };
        Some(Self { from, to, lane })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ANSWER_BYTES + PROGRAM_BYTES);
        out.put_u8(self.refused.map_or(0, |reason| reason as u8));
        out.put_u16(self.from.version);
        out.put_u128(self.from.cluster);
        out.put_u64(self.from.node.0);
        out.put_u128(self.from.store);
        out.put_u64(self.from.incarnation.0);
        put_program(&mut out, &self.from.program);
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
        let program = take_program(&mut bytes);
        let from = Identity { version, cluster, node, store, incarnation, program };
        Some(Self { from, refused })
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
    /// The level of the cluster; 0 while it is not known.
    pub(super) level: u16,
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
            self.check_store(from.store).or_else(|| self.check_level(&from.program))
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
            self.check_store(from.store).or_else(|| self.check_level(&from.program))
        }
    }

    /// Only who knows too little: a node whose rows are behind must not end those of a majority that has gone on. That a program does not
    /// know so low a level any more, that program says itself.
    fn check_level(&self, program: &Program) -> Option<RefusalReason> {
        (program.levels.max < self.level).then_some(RefusalReason::Level)
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
            program: Program { levels: Levels { min: 1, max: 2 }, version: [3, 4, 5] },
        }
    }

    #[test]
    fn hellos_survive_the_wire_and_keep_their_layout() {
        let hello = Hello { from: identity(1), to: NodeId(2), lane: 1 };
        assert_eq!(Hello::decode(hello.encode()), Some(hello));
        assert_eq!(hello.encode().len(), 69);
        assert_eq!(hello.encode()[..2], [0, 1], "the version stands first, for ever");
        for refused in [None, Some(RefusalReason::Store)] {
            let answer = Answer { from: identity(2), refused };
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        assert_eq!(Hello::decode(hello.encode().slice(..58)), None);
        assert_eq!(Answer::decode(Bytes::new()), None);
    }

    #[test]
    fn only_the_right_company_is_let_in() {
        let expected =
            Expected { own: identity(2), store: 100, known: true, removed: false, level: 2 };
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
    fn a_program_that_does_not_know_the_level_is_refused() {
        let bare =
            |level| Expected { own: identity(2), store: 100, known: true, removed: false, level };
        let knows = |min, max| Program { levels: Levels { min, max }, ..Program::SILENT };
        let level = Some(RefusalReason::Level);
        let table = [
            (0, Program::SILENT, None),
            (1, Program::SILENT, None),
            (2, Program::SILENT, level),
            (2, knows(1, 2), None),
            (2, knows(3, 4), None),
            (3, knows(1, 2), level),
        ];
        for (at, program, refused) in table {
            let from = Identity { program, ..identity(1) };
            let hello = Hello { from, to: NodeId(2), lane: 0 };
            assert_eq!(bare(at).check_hello(&hello), refused, "{at} {program:?}");
            let back = Expected { own: identity(2), ..bare(at) };
            let answer = Answer { from, refused: None };
            assert_eq!(back.check_answer(&answer, NodeId(1)), refused, "{at} {program:?}");
        }
    }

    #[test]
    fn who_says_no_program_knows_the_first_level() {
        let hello = Hello { from: identity(1), to: NodeId(2), lane: 1 };
        let before = Hello::decode(hello.encode().slice(..HELLO_BYTES)).unwrap();
        assert_eq!(before.from, Identity { program: Program::SILENT, ..hello.from });
        let answer = Answer { from: identity(2), refused: None };
        let before = Answer::decode(answer.encode().slice(..ANSWER_BYTES)).unwrap();
        assert_eq!(before.from, Identity { program: Program::SILENT, ..answer.from });
        let program = &hello.encode()[HELLO_BYTES..];
        assert_eq!(program, [0, 1, 0, 2, 0, 3, 0, 4, 0, 5], "frozen: other programs read it");
    }

    #[test]
    fn the_one_that_answers_is_checked_too() {
        let expected =
            Expected { own: identity(1), store: 200, known: true, removed: false, level: 2 };
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
