//! Linearizability: some order of the requests about one device, in which each takes effect between its question and its answer,
//! explains every answer.
//!
//! A request whose outcome is unknown never ends: it may take effect late, or after everything, which is never. Where it would
//! change nothing it is not tried: each place would be the same as never, and twenty of them a million orders. The search is
//! `porcupine-rs`; what a violation is about is found by cutting the history shorter: the first answer that no order explains.

use std::marker::PhantomData;
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

/// A model in which there is an end: what is unknown takes effect before it, or never.
#[derive(Clone)]
struct Ending<M>(PhantomData<M>);

/// What happens in it.
#[derive(Clone, Debug)]
enum Step<O> {
    /// Was answered.
    Answered(O),
    /// Was not.
    Unknown(O),
    /// All that was answered has happened.
    End,
}

impl<M: Judged> Model for Ending<M> {
    /// And whether it has come.
    type State = (M::State, bool);
    type Op = Step<M::Op>;
    type Metadata = ();

    fn init() -> Self::State {
        (M::init(), false)
    }

    fn step((state, ended): &Self::State, op: &Self::Op) -> (bool, Self::State) {
        match op {
            Step::Answered(op) => {
                let (so, after) = M::step(state, op);
                (so, (after, *ended))
            }
            Step::Unknown(_) if *ended => (true, (state.clone(), true)),
            Step::Unknown(op) => {
                let (so, after) = M::step(state, op);
                (so && !M::equal(state, &after), (after, false))
            }
            Step::End => (true, (state.clone(), true)),
        }
    }
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
    let steps = requests.iter().filter_map(|one| operation(one, until));
    let operations: Vec<Operation<Ending<M>>> =
        steps.chain([between(i64::MAX - 1, i64::MAX, Step::End)]).collect();
    check_operations_timeout(&operations, SEARCH_MAX)
}

fn between<M: Judged>(call_time: i64, return_time: i64, op: Step<M::Op>) -> Operation<Ending<M>> {
    Operation { client_id: None, call_time, return_time, op, metadata: None }
}

fn operation<M: Judged>(
    request: &Request<M::Ask, M::Answer>,
    until: u64,
) -> Option<Operation<Ending<M>>> {
    if request.invoked > until {
        return None;
    }
    let returned = request.returned.filter(|&returned| returned <= until);
    let op = match (returned, &request.answer) {
        (None, _) => Step::Unknown(M::op(&request.ask, None)?),
        (Some(_), Some(answer)) => Step::Answered(M::op(&request.ask, Some(answer))?),
        // Refused in front of everything: it says nothing of the state and changed nothing.
        (Some(_), None) => {
            debug_assert_eq!(request.outcome, Phase::Fail, "an answer that says something");
            return None;
        }
    };
    let time = |event: u64| i64::try_from(event).expect("fewer events than that");
    Some(between(time(request.invoked), returned.map_or(i64::MAX, time), op))
}
