//! Durable sessions are kept: once a SUBACK was given to a session that is not clean, every later CONNACK that asks
//! for it says session present.

use super::{SESSIONS, named};
use crate::model::Model;
use crate::verdict::Check;

/// Looks for forgotten sessions.
pub fn check(model: &Model) -> Check {
    let mut check = named(SESSIONS);
    let mut resumed = 0_u64;
    for (name, client) in &model.clients {
        let Some(&since) = client.filters.values().min() else { continue };
        let durable = client.connections.iter().any(|one| !one.clean && one.opened.0 < since);
        let later = client.connections.iter().filter(|one| durable && one.opened.0 > since);
        for connection in later.filter(|one| !one.clean) {
            resumed += 1;
            if !connection.present {
                check.violated(|| {
                    let node = connection.node.map_or("?".to_owned(), |node| node.to_string());
                    format!("{name}: event {}: node {node} forgot it", connection.opened.0)
                });
            }
        }
    }
    check.detail = format!("{resumed} resumptions");
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::SESSIONS;
    use crate::planted::Story;

    #[test]
    fn a_forgotten_session_is_found_and_a_kept_or_new_one_is_not() {
        let mut story = Story::with_clients();
        story.leave("s0", 2).connect_with("s0", 3, 1, true);
        story.connect_with("s1", 4, 1, false);
        story.leave("p0", 1).connect_with("p0", 5, 1, false);
        assert_eq!(story.found(SESSIONS), 0);
        story.leave("s0", 3).connect_with("s0", 6, 3, false);
        assert_eq!(story.found(SESSIONS), 1);
    }
}
