//! Enough: a run that saw too little, or whose harness contradicts itself, has shown nothing.

use super::{ENOUGH, Rules, named};
use crate::history::{Fault, Stage};
use crate::model::Model;
use crate::verdict::{Check, Counts};

/// Installed faults that interrupt a node: kills, pauses and cuts.
pub fn installed(model: &Model) -> u64 {
    let of = |fault| model.faults.get(&fault).copied().unwrap_or(0);
    of(Fault::Kill) + of(Fault::Pause) + of(Fault::Cut)
}

/// Looks for reasons not to believe a pass.
pub fn check(model: &Model, counts: &Counts, rules: &Rules) -> Check {
    let mut check = named(ENOUGH);
    for problem in &model.problems {
        check.unclear(|| format!("the harness: {problem}"));
    }
    if counts.acked < rules.acked_min {
        check.unclear(|| format!("{} acknowledged, {} wanted", counts.acked, rules.acked_min));
    }
    if counts.faults < rules.faults_min {
        check
            .unclear(|| format!("{} faults installed, {} wanted", counts.faults, rules.faults_min));
    }
    if counts.unknown * 1000 > counts.attempts * rules.unknown_permille_max {
        check.unclear(|| format!("{} of {} attempts unknown", counts.unknown, counts.attempts));
    }
    match model.stages.last() {
        Some(Stage::Drained) => {}
        Some(Stage::DrainTimedOut) => check.unclear(|| "the drain timed out".to_owned()),
        Some(Stage::Publishing | Stage::Draining) | None => {
            check.unclear(|| "the run did not come to its end".to_owned());
        }
    }
    let missed = model.faults_missed;
    check.detail =
        format!("{} acknowledged, {} faults, {missed} skipped", counts.acked, counts.faults);
    check
}

#[cfg(test)]
mod tests {
    use crate::checks::ENOUGH;
    use crate::history::{Fault, Phase, Stage};
    use crate::planted::Story;
    use crate::{Outcome, Rules, judge};

    fn story() -> Story {
        let mut story = Story::with_clients();
        story.acked(1, 1).taken(2, 1).fault(Fault::Kill, 1);
        story
    }

    fn outcome(story: &Story, rules: Rules) -> Outcome {
        judge(&story.events, &rules).check(ENOUGH).unwrap().outcome
    }

    #[test]
    fn too_little_is_not_a_pass() {
        let rules = Rules { acked_min: 1, faults_min: 1, ..Rules::default() };
        let mut whole = story();
        assert_eq!(outcome(&whole, rules), Outcome::Inconclusive, "no end");
        whole.mark(Stage::Drained);
        assert_eq!(outcome(&whole, rules), Outcome::Pass);
        assert_eq!(outcome(&whole, Rules { acked_min: 2, ..rules }), Outcome::Inconclusive);
        assert_eq!(outcome(&whole, Rules { faults_min: 2, ..rules }), Outcome::Inconclusive);
        let mut slow = story();
        slow.mark(Stage::DrainTimedOut);
        assert_eq!(outcome(&slow, rules), Outcome::Inconclusive);
        let mut murky = story();
        murky.publish(Phase::Invoke, 1, 2).mark(Stage::Drained);
        assert_eq!(outcome(&murky, rules), Outcome::Inconclusive);
        let mut broken = story();
        broken.publish(Phase::Ok, 1, 7).mark(Stage::Drained);
        assert_eq!(outcome(&broken, rules), Outcome::Inconclusive);
    }
}
