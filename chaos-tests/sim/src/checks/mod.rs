//! What must hold, one file per invariant.

pub mod agreement;
pub mod loss;
pub mod once;
pub mod order;
pub mod settled;

use moorline_machine::command::SessionId;

use crate::Violation;

/// A session of a group.
pub type Session = (usize, SessionId);

/// One message as its publisher counts it, and the attempt to publish it that this copy came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Who published.
    pub publisher: usize,
    /// The publisher's count.
    pub number: u64,
    /// An attempt is a command of its own; only a repeat within an attempt is the same command.
    pub attempt: u64,
}

impl Copy {
    /// The payload that carries it.
    #[must_use]
    pub fn payload(self, padding: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(24 + padding);
        for number in [self.publisher as u64, self.number, self.attempt] {
            payload.extend_from_slice(&number.to_be_bytes());
        }
        payload.resize(24 + padding, 0xAA);
        payload
    }

    /// Reads it from a payload.
    ///
    /// # Panics
    ///
    /// If the payload is not one of ours: nothing else is ever published.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let number = |at: usize| {
            u64::from_be_bytes(payload[at * 8..at * 8 + 8].try_into().expect("eight bytes"))
        };
        let publisher = usize::try_from(number(0)).expect("a small number");
        Self { publisher, number: number(1), attempt: number(2) }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Checks {
    /// Replicas hold the same rows.
    pub agreement: agreement::Agreement,
    /// A command is applied once.
    pub once: once::Once,
    /// What is settled never comes back.
    pub settled: settled::Settled,
    /// First deliveries keep a publisher's order.
    pub order: order::Order,
    /// What was acknowledged arrives.
    pub loss: loss::Loss,
}

fn violation(invariant: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { invariant, what })
}
