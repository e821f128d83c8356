//! A session that lasts is there whenever its device comes back.
//!
//! Source: MQTT 5.0, 3.2.2-2 and 4.1 (session state is kept until it expires; no session here expires within a run).

use std::collections::BTreeSet;

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SessionPresent {
    known: BTreeSet<String>,
    resumed: u64,
}

impl Invariant for SessionPresent {
    fn name(&self) -> &'static str {
        "session-present"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let Event::Resumed { device, node, present } = event else { return Ok(()) };
        self.resumed += 1;
        if !self.known.insert(device.clone()) && !present {
            return Err(format!("the session of {device} is gone at node {node}"));
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} sessions resumed", self.resumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_gone_is_seen() {
        let resumed =
            |device: &str, present| Event::Resumed { device: device.to_owned(), node: 1, present };
        let mut sessions = SessionPresent::default();
        assert_eq!(sessions.see(&resumed("a", false)), Ok(()));
        assert_eq!(sessions.see(&resumed("b", true)), Ok(()), "its first CONNACK was lost");
        assert_eq!(sessions.see(&resumed("a", true)), Ok(()));
        assert!(sessions.see(&resumed("b", false)).is_err());
    }
}
