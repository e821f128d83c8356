//! Logs: no thread of a node panicked, and no log holds a secret. Whoever ran the nodes looked through the logs when they had ended.

use super::{LOGS, named};
use crate::history::{Event, Op};
use crate::verdict::Check;

/// Looks for lines that must not be there.
pub fn check(events: &[Event]) -> Check {
    let mut check = named(LOGS);
    for event in events {
        if let Op::Log { why, line } = &event.op {
            check.violated(|| format!("node {}: {why:?}: {line}", event.node.unwrap_or(0)));
        }
    }
    check.detail = "panics and secrets".to_owned();
    check
}

#[cfg(test)]
mod tests {
    use crate::Rules;
    use crate::checks::{LOGS, Wanted, judge_with};
    use crate::history::{Op, Phase, Unwanted};
    use crate::planted::Story;

    #[test]
    fn a_panic_and_a_secret_are_found() {
        let found = |story: &Story| {
            let verdict = judge_with(&story.events, &Rules::default(), Some(&Wanted::default()));
            verdict.check(LOGS).unwrap().found
        };
        let mut story = Story::with_clients();
        assert_eq!(found(&story), 0);
        for why in [Unwanted::Panic, Unwanted::Secret] {
            story.push("harness", Phase::Ok, Some(1), Op::Log { why, line: "x".into() });
        }
        assert_eq!(found(&story), 2);
    }
}
