//! A command that is sent many times is applied once: no session has it at two offsets.

use std::collections::BTreeMap;

use moorline_core::Offset;

use super::{Copy, Session, violation};
use crate::Violation;

/// Where each copy was seen in each queue.
#[derive(Debug, Default)]
pub struct Once {
    places: BTreeMap<(Session, Copy), Offset>,
}

impl Once {
    /// A session's queue has this copy at this offset.
    ///
    /// # Errors
    ///
    /// When it has it at another one too.
    pub fn at(&mut self, session: Session, copy: Copy, offset: Offset) -> Result<(), Violation> {
        let first = *self.places.entry((session, copy)).or_insert(offset);
        if first == offset {
            return Ok(());
        }
        let what = format!("{copy:?} is at {first} and at {offset} of {session:?}");
        violation("once", what)
    }
}
