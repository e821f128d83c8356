//! Versions grow: one version is one value and one value one version, and what was seen by anybody is not older than what
//! anybody had seen before, on whatever node. Linear, so it is looked for in histories of any length.

use std::collections::BTreeMap;

use super::{VERSIONS, named};
use crate::requests::{RecordAnswer, RecordRequest, Requests};
use crate::verdict::Check;

/// An answer that showed the record: asked, answered, version, value.
type Seen = (u64, u64, u64, u64);

fn seen(requests: &[RecordRequest]) -> Vec<Seen> {
    let seen = requests.iter().filter_map(|one| match (one.answer, one.returned) {
        (Some(RecordAnswer::Is { version, value }), Some(returned)) => {
            Some((one.invoked, returned, version, value))
        }
        _ => None,
    });
    seen.collect()
}

/// Looks for versions that go back or say two things.
pub fn check(requests: &Requests) -> Check {
    let mut check = named(VERSIONS);
    let mut many = 0;
    for (device, all) in &requests.records {
        let seen = seen(all);
        many += seen.len();
        let (mut values, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for &(at, _, version, value) in &seen {
            if *values.entry(version).or_insert(value) != value {
                check.violated(|| format!("{device}: event {at}: version {version} is two values"));
            }
            if *versions.entry(value).or_insert(version) != version {
                check.violated(|| format!("{device}: event {at}: one value has two versions"));
            }
        }
        backwards(&mut check, device, &seen);
    }
    check.detail = format!("{many} records seen");
    check
}

/// Looks for a version that is lower than one that had been answered before it was asked for.
fn backwards(check: &mut Check, device: &str, seen: &[Seen]) {
    let mut answered: Vec<(u64, u64)> =
        seen.iter().map(|&(_, returned, version, _)| (returned, version)).collect();
    answered.sort_unstable();
    let mut answered = answered.into_iter().peekable();
    let mut highest = 0;
    // In the order in which they were asked.
    for &(asked, _, version, _) in seen {
        while let Some((_, before)) = answered.next_if(|&(returned, _)| returned < asked) {
            highest = highest.max(before);
        }
        if version < highest {
            check.violated(|| {
                format!("{device}: event {asked}: version {version} after {highest} was seen")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::checks::VERSIONS;
    use crate::history::Phase;
    use crate::planted::Story;
    use crate::requests::{RecordAnswer, RecordAsk};

    fn found(all: &[(u64, u64)]) -> u64 {
        let mut story = Story::new();
        for &(version, value) in all {
            story.recorded(RecordAsk::Get, RecordAnswer::Is { version, value });
        }
        story.found(VERSIONS)
    }

    #[test]
    fn a_version_that_goes_back_or_means_two_things_is_found() {
        #[rustfmt::skip]
        let table: [(&[(u64, u64)], u64); 4] = [
            (&[(5, 1), (5, 1), (9, 2)], 0),
            (&[(9, 2), (5, 1)],         1),
            (&[(5, 1), (5, 2)],         1),
            (&[(5, 1), (9, 1)],         1),
        ];
        for (seen, violations) in table {
            assert_eq!(found(seen), violations, "{seen:?}");
        }
    }

    #[test]
    fn reads_at_once_may_see_either() {
        let mut story = Story::new();
        story.record(Phase::Invoke, 90, RecordAsk::Get, None);
        story.recorded(RecordAsk::Get, RecordAnswer::Is { version: 9, value: 2 });
        let old = Some(RecordAnswer::Is { version: 5, value: 1 });
        story.record(Phase::Ok, 90, RecordAsk::Get, old);
        assert_eq!(story.found(VERSIONS), 0);
    }
}
