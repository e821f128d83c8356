//! Replicas agree: at one log index of one shard every node reports the same digest.

use std::collections::BTreeSet;

use super::{DIGESTS, Rules, named};
use crate::model::Model;
use crate::verdict::Check;

/// Looks for replicas that differ; too few reports make the run inconclusive.
pub fn check(model: &Model, rules: &Rules) -> Check {
    let mut check = named(DIGESTS);
    let mut compared = BTreeSet::new();
    for (&(shard, index), reports) in &model.digests {
        let digests: BTreeSet<&str> = reports.iter().map(|one| one.digest.as_str()).collect();
        if digests.len() > 1 {
            check.violated(|| {
                let who: Vec<_> = reports
                    .iter()
                    .map(|one| format!("node {}: {}", one.node.unwrap_or(0), one.digest))
                    .collect();
                format!("shard {shard} at {index}: {}", who.join(", "))
            });
        }
        let nodes: BTreeSet<_> = reports.iter().map(|one| one.node).collect();
        if nodes.len() >= usize::try_from(rules.replicas).unwrap_or(usize::MAX) {
            compared.insert(shard);
        }
    }
    let shards: BTreeSet<u32> = model.digests.keys().map(|&(shard, _)| shard).collect();
    for shard in shards.difference(&compared) {
        check.unclear(|| format!("shard {shard}: fewer than {} replicas reported", rules.replicas));
    }
    if shards.is_empty() {
        check.unclear(|| "no digest was reported".to_owned());
    }
    check.detail = format!("{} of {} shards on all replicas", compared.len(), shards.len());
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::DIGESTS;
    use crate::planted::Story;
    use crate::{Outcome, Rules, judge};

    /// Node, index, digest.
    type Report = (u32, u64, &'static str);

    fn outcome(reports: &[Report]) -> Outcome {
        let mut story = Story::new();
        for &(node, index, digest) in reports {
            story.digest(node, index, digest);
        }
        judge(&story.events, &Rules::default()).check(DIGESTS).unwrap().outcome
    }

    #[test]
    fn replicas_must_agree_and_all_must_speak() {
        use Outcome::{Fail, Inconclusive, Pass};
        #[rustfmt::skip]
        let table: [(&[Report], Outcome); 5] = [
            (&[(1, 9, "a"), (2, 9, "a"), (3, 9, "a")],              Pass),
            (&[(1, 8, "b"), (1, 9, "a"), (2, 9, "a"), (3, 9, "a")], Pass),
            (&[(1, 9, "a"), (2, 9, "a"), (3, 9, "b")],              Fail),
            (&[(1, 9, "a"), (2, 9, "a")],                           Inconclusive),
            (&[],                                                   Inconclusive),
        ];
        for (reports, expected) in table {
            assert_eq!(outcome(reports), expected, "{reports:?}");
        }
    }
}
