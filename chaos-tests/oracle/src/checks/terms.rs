//! Terms: in one term a group has one leader (Ongaro's thesis, section 3.2, Election Safety), by what nodes say of themselves.

use std::collections::BTreeMap;

use super::{TERMS, named};
use crate::history::{Event, Op};
use crate::verdict::Check;

/// Looks for two nodes that led a group in the same term.
pub fn check(events: &[Event]) -> Check {
    let mut check = named(TERMS);
    let mut led: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    for event in events {
        let Op::Leads { shard, leader, term } = event.op else { continue };
        let known = *led.entry((shard, term)).or_insert(leader);
        if known != leader {
            check.violated(|| {
                format!(
                    "shard {shard}: in term {term} node {known} led, and node {leader} (event {})",
                    event.i
                )
            });
        }
    }
    check.detail = format!("{} terms that somebody led in", led.len());
    check
}

#[cfg(test)]
mod tests {
    use crate::Rules;
    use crate::checks::{TERMS, Wanted, judge_with};
    use crate::history::{Op, Phase};
    use crate::planted::Story;

    #[test]
    fn two_leaders_of_one_term_are_found_and_of_two_terms_are_none() {
        let found = |leaders: &[(u32, u64, u32)]| {
            let mut story = Story::with_clients();
            for &(shard, term, leader) in leaders {
                story.push("watch", Phase::Ok, Some(leader), Op::Leads { shard, leader, term });
            }
            let verdict = judge_with(&story.events, &Rules::default(), Some(&Wanted::default()));
            verdict.check(TERMS).unwrap().found
        };
        assert_eq!(found(&[(1, 1, 1), (1, 2, 2), (2, 1, 3), (1, 2, 2)]), 0);
        assert_eq!(found(&[(1, 1, 1), (1, 2, 2), (1, 2, 3)]), 1);
    }
}
