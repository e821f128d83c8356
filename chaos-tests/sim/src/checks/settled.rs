//! What a client has acknowledged, and the cluster has taken note of, is never sent again: not by any leader.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::Offset;

use super::{Session, violation};
use crate::Violation;

/// What each session has settled.
#[derive(Debug, Default)]
pub struct Settled {
    sessions: BTreeMap<Session, Line>,
}

#[derive(Debug, Default)]
struct Line {
    upto: Offset,
    also: BTreeSet<Offset>,
}

impl Settled {
    /// The cluster has acknowledged a settlement.
    pub fn settle(&mut self, session: Session, upto: Offset, also: &[Offset]) {
        let line = self.sessions.entry(session).or_default();
        line.upto = line.upto.max(upto);
        line.also.extend(also);
    }

    /// An offset is sent to a client.
    ///
    /// # Errors
    ///
    /// When it was settled.
    pub fn sent(&self, session: Session, offset: Offset) -> Result<(), Violation> {
        match self.sessions.get(&session) {
            Some(line) if offset <= line.upto || line.also.contains(&offset) => {
                violation("settled", format!("{offset} of {session:?} was settled and came again"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
