//! Linearizability: some order of the requests about one device, in which each takes effect between its question and its answer,
//! explains every answer.
//!
//! A request whose outcome is unknown never ends: it may take effect late, or after everything, which is never. The search is
//! `porcupine-rs`; what a violation is about is found by cutting the history shorter: the first answer that no order explains.

use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use crate::history::Phase;
use crate::requests::Request;
use crate::verdict::Check;

/// A search that takes longer than this is given up: a hundred requests take milliseconds.
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// What a search needs of a model besides its steps.
pub(crate) trait Judged: Model {
    /// What is asked.
    type Ask: Clone;
    /// What is answered.
    type Answer: Clone;

    /// A request as an operation: none if it says nothing (a question without an answer that would have changed nothing).
    fn op(ask: &Self::Ask, answer: Option<&Self::Answer>) -> Option<Self::Op>;
}

/// Looks at all requests about one device.
pub(crate) fn device<M: Judged>(
    check: &mut Check,
    device: &str,
    requests: &[Request<M::Ask, M::Answer>],
    describe: impl Fn(&Request<M::Ask, M::Answer>) -> String,
) {
    match search::<M>(requests, u64::MAX) {
        CheckResult::Ok => {}
        CheckResult::Unknown => check.unclear(|| format!("{device}: no answer in {SEARCH_MAX:?}")),
        CheckResult::Illegal => {
            let at = first_wrong::<M>(requests);
            check.violated(|| match at {
                Some(wrong) => format!(
                    "{device}: no order explains event {}: {}",
                    wrong.returned.unwrap_or(wrong.invoked),
                    describe(wrong)
                ),
                None => format!("{device}: no order explains its answers"),
            });
        }
    }
}

/// The request whose answer is the first that no order explains.
fn first_wrong<M: Judged>(
    requests: &[Request<M::Ask, M::Answer>],
) -> Option<&Request<M::Ask, M::Answer>> {
    let mut ended: Vec<_> = requests.iter().filter(|one| one.returned.is_some()).collect();
    ended.sort_by_key(|one| one.returned);
    // Whatever explains a history explains each of its beginnings: so the answers up to the first wrong one stand in front.
    let at = ended.partition_point(|one| {
        let until = one.returned.unwrap_or(u64::MAX);
        search::<M>(requests, until) != CheckResult::Illegal
    });
    ended.get(at).copied()
}

/// Searches an order for what happened until an event, this one included.
fn search<M: Judged>(requests: &[Request<M::Ask, M::Answer>], until: u64) -> CheckResult {
    let operations: Vec<Operation<M>> =
        requests.iter().filter_map(|one| operation(one, until)).collect();
    check_operations_timeout(&operations, SEARCH_MAX)
}

fn operation<M: Judged>(request: &Request<M::Ask, M::Answer>, until: u64) -> Option<Operation<M>> {
    if request.invoked > until {
        return None;
    }
    let returned = request.returned.filter(|&returned| returned <= until);
    let op = match (returned, &request.answer) {
        (None, _) => M::op(&request.ask, None)?,
        (Some(_), Some(answer)) => M::op(&request.ask, Some(answer))?,
        // Refused in front of everything: it says nothing of the state and changed nothing.
        (Some(_), None) => {
            debug_assert_eq!(request.outcome, Phase::Fail, "an answer that says something");
            return None;
        }
    };
    let time = |event: u64| i64::try_from(event).expect("fewer events than that");
    Some(Operation {
        client_id: None,
        call_time: time(request.invoked),
        return_time: returned.map_or(i64::MAX, time),
        op,
        metadata: None,
    })
}
