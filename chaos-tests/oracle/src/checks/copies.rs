//! Copies of a QoS 1 message: what has a reason, and what has none.
//!
//! While nobody is lost a message is handed out once. Another copy needs the loss of the connection that had the one before, or
//! of a node, or another leader; and what had been acknowledged long before that is settled, and does not come again
//! (docs/guarantees.md).

use super::Rules;
use super::disturbed::{Disturbed, NOTICE_NS};

/// A message that somebody was given.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// Number of the event.
    pub(crate) at: u64,
    /// When, in nanoseconds.
    pub(crate) ns: u64,
    /// On which connection.
    pub(crate) conn: u64,
    /// The DUP flag.
    pub(crate) dup: bool,
    /// When it was acknowledged, in nanoseconds.
    pub(crate) acked_ns: Option<u64>,
}

/// Why the last of these copies, in their order, should not be there; none if it may.
///
/// `closed` says when a connection ended, in nanoseconds.
pub(crate) fn without_reason(
    copies: &[Copy],
    closed: impl Fn(u64) -> Option<u64>,
    disturbed: &Disturbed,
    rules: &Rules,
) -> Option<&'static str> {
    let (last, before) = copies.split_last()?;
    let (first, previous) = (before.first()?, before.last()?);
    // Only what was not handed out before has no DUP; it may be seen late.
    if !last.dup && before.iter().any(|copy| !copy.dup) {
        return Some("it says that it was never sent before");
    }
    let fresh = |ns: u64| {
        previous.acked_ns.is_none_or(|acked| ns <= acked.saturating_add(rules.ack_grace_ns))
    };
    let until = previous
        .acked_ns
        .map_or(last.ns, |acked| last.ns.min(acked.saturating_add(rules.ack_grace_ns)));
    let lost = before.iter().filter_map(|copy| closed(copy.conn)).any(|ns| {
        ns >= first.ns.min(previous.ns) && ns <= last.ns.saturating_add(NOTICE_NS) && fresh(ns)
    });
    // A copy may have been on its way before the fault, and be read after it.
    let from = first.ns.saturating_sub(NOTICE_NS);
    if lost || disturbed.within(from, until) {
        return None;
    }
    Some("nobody had been interrupted")
}
