//! No replica gives up: no fatal error, no log that its leader knows to have been longer.
//!
//! Source: invariant 23 of the chaos tests (no abort but injected ones). Nothing here breaks what a disk has synced, so there
//! is no reason to give up; with a lying disk it is the right thing to do, and so how such a disk is noticed.

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    started: u64,
}

impl Invariant for Standing {
    fn name(&self) -> &'static str {
        "standing"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Started { .. } => self.started += 1,
            Event::Fatal { node, why } => return Err(format!("node {node} gave up: {why}")),
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} processes", self.started)
    }
}
