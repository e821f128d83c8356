//! What was answered as synced is there after every restart; so no vote and no log goes back.
//!
//! Source: Ongaro & Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2 (currentTerm, votedFor and
//! log are on stable storage before an RPC is answered); Alagappan et al., "Protocol-Aware Recovery", FAST 2018.

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    reopened: u64,
    installed: u64,
}

impl Invariant for Promises {
    fn name(&self) -> &'static str {
        "promises"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Reopened { node, read, promised, last_promise } => {
                self.reopened += u64::from(*promised > 0);
                if read < promised {
                    return Err(format!(
                        "node {node} had answered {promised} operations as synced, the last of them {last_promise}, and \
                         came back with {read}"
                    ));
                }
                Ok(())
            }
            Event::Installing { .. } => {
                self.installed += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn judged(&self) -> String {
        format!("{} restarts, {} snapshots begun to install", self.reopened, self.installed)
    }
}
