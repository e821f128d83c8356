//! What nodes count adds up: by their own metrics nothing came into queues, mailboxes or the edge that is nowhere now.

use super::{ACCOUNTS, named};
use crate::history::Event;
use crate::loads::Load;
use crate::verdict::Check;

/// Looks what every node said in the end.
pub fn check(events: &[Event]) -> Option<Check> {
    let said = |event| match Load::of(event) {
        Some(Load::Accounts { off }) => Some(*off),
        Some(_) | None => None,
    };
    let said: Vec<_> = events.iter().filter_map(|event| Some((event.node, said(event)?))).collect();
    if said.is_empty() {
        return None;
    }
    let mut check = named(ACCOUNTS);
    for (node, off) in said.iter().filter(|(_, off)| *off > 0) {
        check.violated(|| format!("node {}: counts differ by {off}", node.unwrap_or(0)));
    }
    check.detail = format!("{} nodes said it", said.len());
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Op, Phase};
    use crate::planted::Story;

    #[test]
    fn a_node_whose_counts_differ_is_found() {
        for (said, violations) in [(&[0_u64, 0][..], 0), (&[0, 3], 1), (&[1, 2], 2)] {
            let mut story = Story::new();
            for (node, &off) in (1..).zip(said) {
                story.push("harness", Phase::Ok, Some(node), Op::Load(Load::Accounts { off }));
            }
            assert_eq!(story.found(ACCOUNTS), violations, "{said:?}");
        }
    }
}
