//! Calls to devices: made, served and answered in the shard of their device, on whichever node either side is.
//!
//! ```text
//!   who calls     call_and_wait: watch ─► make ─► ask ◄───────────────── heard.outcome, or a while later ─┐
//!                                                  └─► it has ended (one way: it went out) ─► answer      │
//!   who serves    watch ─► heard.calls ─► waiting_calls ─► send, note: sent, delivered, answered ─────────┘
//! ```
//!
//! # Invariants
//!
//! - **News are hints.** Who waits asks again by itself after [`OUTCOME_RECHECK`], and when the shard has another leader: a call's
//!   row is what became of it. Checked by the tests below and by those of `watch`.
//! - **Asking again makes one call**: its id makes a repeat of it one, so what nobody knows the end of is asked once more.
//! - **Order is kept**: what one node notes of a device is on its way when the call returns.
//! - **Every wait ends**: a little after the deadline, whoever leads or not.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use moorline_core::{CallState, ShardId, TenantId, Text, UnixMillis};
use moorline_machine::{
    Answer, CallAnswer, CallCommand, CallRefused, CallsFound, CallsQuery, Command,
    calls::{
        CALLS_PAGE_BYTES_MAX, Call, CallLimits, CallNote, CallsPage, Deadline, DeleteCall,
        MakeCall, NewCall, NoteCall,
    },
    query::{Found, Query},
};
use tokio::time::{sleep, timeout};

use super::{Registry, RegistryError, Watch, accepted, ask::QUESTION_WAIT, door::Guest};
use crate::rates::Rated;

/// After how long without news who waits for a call asks by itself: news may be lost with a connection between nodes.
const OUTCOME_RECHECK: Duration = Duration::from_secs(5);
/// The pause before a question that could not be answered is asked again.
const OUTCOME_ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long who waits stays beyond the deadline: a leader may have to be found, and its `Tick` ends the call.
const DEADLINE_GRACE: Duration = QUESTION_WAIT;
/// Who waits for an answer stays no longer than this; the call goes on.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// What became of making a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallMade {
    /// The version its device was made with.
    pub born: u64,
    /// Its number at the device.
    pub number: i32,
    /// When it was made, in log time.
    pub at: UnixMillis,
    /// How it stands.
    pub state: CallState,
    /// It was there already.
    pub repeat: bool,
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallNoted {
    /// How the call stands now.
    pub state: CallState,
    /// Whether that is by this note.
    pub changed: bool,
}

/// Whether who waits for a call of this state has what there is to wait for: its end or, where no answer is wanted, that it went
/// out.
pub(crate) fn is_outcome(state: CallState, one_way: bool) -> bool {
    state.is_final(one_way) || one_way && state == CallState::Sent
}

impl Registry {
    /// Makes a call. It is synced on a majority when the future says so; it is on its way when this returns. The same id again is
    /// the same call.
    ///
    /// # Errors
    ///
    /// The future gives [`RegistryError`]; after [`RegistryError::Unavailable`] it may be made all the same.
    pub fn make_call(
        &self,
        tenant: TenantId,
        device: &Text,
        born: Option<u64>,
        call: NewCall,
    ) -> impl Future<Output = Result<CallMade, RegistryError>> + Send + use<> {
        let accepting = self.inner.accepting.load(Ordering::Acquire);
        let may = self.inner.may_say(tenant, &[(Rated::Mails, 1)]);
        let asked = (accepting && may).then(|| {
            let (device, limits) = (device.clone(), CallLimits::MOST);
            let make = MakeCall { tenant, device, born, call, limits };
            self.ask_of_call(CallCommand::Make(make))
        });
        async move {
            let Some(asked) = asked else {
                return Err(if may { RegistryError::DiskFull } else { RegistryError::Busy });
            };
            match asked.await? {
                CallAnswer::Made { born, number, at, state, repeat } => {
                    Ok(CallMade { born, number, at, state, repeat })
                }
                CallAnswer::Noted { .. } | CallAnswer::Deleted { .. } => {
                    Err(RegistryError::Unavailable)
                }
            }
        }
    }

    /// Notes what befell a call at its device. Notes of one node are taken in the order in which this was called.
    ///
    /// # Errors
    ///
    /// The future gives [`RegistryError`]; `NoSuchCall` if it was deleted, or forgotten since.
    pub fn note_call(
        &self,
        guest: &Guest,
        number: i32,
        what: CallNote,
    ) -> impl Future<Output = Result<CallNoted, RegistryError>> + Send + use<> {
        let (tenant, device, born) = (guest.tenant, guest.device.clone(), guest.born);
        let note = NoteCall { tenant, device, born, number, what };
        let asked = self.ask_of_call(CallCommand::Note(note));
        async move {
            match asked.await? {
                CallAnswer::Noted { state, changed } => Ok(CallNoted { state, changed }),
                CallAnswer::Made { .. } | CallAnswer::Deleted { .. } => {
                    Err(RegistryError::Unavailable)
                }
            }
        }
    }

    /// Calls that wait for a device, the oldest first: those that came later than the one with the number `after`; 0: all. A page
    /// of them.
    ///
    /// What went out on this connection is among them until it is delivered or answered; one that is to go out again has a lower
    /// number than later ones, and one resend more. So who serves a device reads from 0 on, and knows what it has sent.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `DeviceGone` if the device is gone, or another one has its name.
    pub async fn waiting_calls(
        &self,
        guest: &Guest,
        after: i32,
    ) -> Result<CallsPage, RegistryError> {
        let (tenant, device) = (guest.tenant, guest.device.clone());
        let bytes_max = u32::try_from(CALLS_PAGE_BYTES_MAX).unwrap_or(u32::MAX);
        let query = CallsQuery::Waiting { tenant, device, after, calls_max: u16::MAX, bytes_max };
        let page = self.page_of_calls(tenant, &guest.device, query).await?;
        let page = page.filter(|page| page.born == guest.born);
        page.ok_or(RegistryError::Calls(CallRefused::DeviceGone))
    }

    /// A call; [`None`] if there is no such device or call, or nothing is remembered of it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn call(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<Option<Call>, RegistryError> {
        let query = Query::Calls(CallsQuery::One { tenant, device: device.clone(), id });
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        let Found::Calls(CallsFound::One(call)) = found else {
            return Err(RegistryError::Unavailable);
        };
        Ok(call)
    }

    /// Calls of a device, the newest first, that stand so (none: all of them): those that came earlier than the one with the
    /// number `before`; 0: all. A page of them; [`None`] if there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn calls_of(
        &self,
        tenant: TenantId,
        device: &Text,
        states: Vec<CallState>,
        before: i32,
        calls_max: u16,
    ) -> Result<Option<CallsPage>, RegistryError> {
        let query = CallsQuery::All { tenant, device: device.clone(), states, before, calls_max };
        self.page_of_calls(tenant, device, query).await
    }

    async fn page_of_calls(
        &self,
        tenant: TenantId,
        device: &Text,
        query: CallsQuery,
    ) -> Result<Option<CallsPage>, RegistryError> {
        let found = self.question(self.shard_of(tenant, device), &Query::Calls(query)).await?;
        let Found::Calls(CallsFound::Page(page)) = found else {
            return Err(RegistryError::Unavailable);
        };
        Ok(page)
    }

    /// Takes a call back: how it stood. Nothing is remembered of it. A device that has it may carry it out all the same.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn delete_call(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
    ) -> Result<CallState, RegistryError> {
        let delete = DeleteCall { tenant, device: device.clone(), id };
        match self.ask_of_call(CallCommand::Delete(delete)).await? {
            CallAnswer::Deleted { state } => Ok(state),
            CallAnswer::Made { .. } | CallAnswer::Noted { .. } => Err(RegistryError::Unavailable),
        }
    }

    /// Makes a call and waits until it has ended or, where no answer is wanted, went out; at the latest until a little after its
    /// deadline: how it stands then. So an open state is that of a call of which nothing was heard in time.
    ///
    /// Its maker should keep it for longer than that takes (`keep_ms`), or it may be forgotten before it is read.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `NoSuchCall` if it was deleted meanwhile or is forgotten already, `DeviceGone` if its device is gone.
    pub async fn call_and_wait(
        &self,
        tenant: TenantId,
        device: &Text,
        born: Option<u64>,
        call: NewCall,
    ) -> Result<Call, RegistryError> {
        let id = call.id;
        let until = Instant::now() + self.time_left(tenant, device, call.deadline) + DEADLINE_GRACE;
        // Before it is made: what becomes of it from then on is told.
        let watch = self.watch_call(tenant, device, id);
        loop {
            match self.make_call(tenant, device, born, call.clone()).await {
                Ok(_) => break,
                Err(RegistryError::Unavailable) if Instant::now() < until => {
                    sleep(OUTCOME_ASK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            let last = Instant::now() >= until;
            match next(self.call(tenant, device, id).await, last) {
                Next::Done(done) => return done,
                Next::Gone => return Err(self.why_none(tenant, device, born).await),
                Next::Again => sleep(OUTCOME_ASK_AGAIN).await,
                Next::Wait => {
                    let left = until.saturating_duration_since(Instant::now());
                    // Whatever was heard, and if nothing was: it is asked again.
                    drop(timeout(left.min(OUTCOME_RECHECK), heard_of_call(&watch)).await);
                }
            }
        }
    }

    /// Why there is no call that was made.
    async fn why_none(&self, tenant: TenantId, device: &Text, born: Option<u64>) -> RegistryError {
        let record = match self.device(tenant, device).await {
            Ok(record) => record,
            Err(error) => return error,
        };
        let is_there = record.is_some_and(|record| born.is_none_or(|born| born == record.born));
        let why = if is_there { CallRefused::NoSuchCall } else { CallRefused::DeviceGone };
        RegistryError::Calls(why)
    }

    /// How long it is to a deadline, by what this node knows of the shard's log time.
    fn time_left(&self, tenant: TenantId, device: &Text, deadline: Deadline) -> Duration {
        match deadline {
            Deadline::After(ms) => Duration::from_millis(ms).min(WAIT_MAX),
            Deadline::At(at) => {
                let now = self.inner.log_time(self.shard_of(tenant, device));
                Duration::from_millis(at.0.saturating_sub(now.0)).min(WAIT_MAX)
            }
        }
    }

    /// Sends a command about a call at once.
    fn ask_of_call(
        &self,
        command: CallCommand,
    ) -> impl Future<Output = Result<CallAnswer, RegistryError>> + Send + use<> {
        let (tenant, device) = command.device();
        let shard: ShardId = self.shard_of(tenant, device);
        let asked = self.inner.below().router.ask(shard, &Command::Calls(command));
        async move {
            let Answer::Calls(answer) = accepted(asked.await?)? else {
                return Err(RegistryError::Unavailable);
            };
            Ok(answer)
        }
    }
}

/// What who waits for a call does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It has what there is.
    Done(Result<Call, RegistryError>),
    /// There is no such call any more.
    Gone,
    /// It waits for news.
    Wait,
    /// It asks once more: nobody could say.
    Again,
}

/// What follows from what was found of a call; `last`: its time is over.
fn next(found: Result<Option<Call>, RegistryError>, last: bool) -> Next {
    match found {
        Ok(Some(call)) if last || is_outcome(call.state, call.one_way) => Next::Done(Ok(call)),
        Ok(Some(_)) => Next::Wait,
        Ok(None) => Next::Gone,
        Err(RegistryError::Unavailable) if !last => Next::Again,
        Err(error) => Next::Done(Err(error)),
    }
}

/// What was heard of a call, or of its device; not that other calls wait.
async fn heard_of_call(watch: &Watch) {
    loop {
        let heard = watch.heard().await;
        if heard.outcome || heard.device {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn who_waits_asks_until_there_is_an_outcome_or_its_time_is_over() {
        let call = |state| Call {
            id: 7,
            number: 1,
            method: "m".into(),
            params: Bytes::new(),
            one_way: false,
            info: Bytes::new(),
            created: UnixMillis(1),
            until: UnixMillis(2),
            state,
            resends: 0,
            resends_max: 0,
            ended: None,
            answer: None,
        };
        let (open, ended) = (|| call(CallState::Sent), || call(CallState::Expired));
        let (unknown, busy) = (RegistryError::Unavailable, RegistryError::Busy);
        #[rustfmt::skip]
        let table = [
            (Ok(Some(ended())),    false, Next::Done(Ok(ended()))),
            (Ok(Some(open())),     false, Next::Wait),
            (Ok(Some(open())),     true,  Next::Done(Ok(open()))),
            (Ok(None),             false, Next::Gone),
            (Ok(None),             true,  Next::Gone),
            (Err(unknown.clone()), false, Next::Again),
            (Err(unknown.clone()), true,  Next::Done(Err(unknown))),
            (Err(busy.clone()),    false, Next::Done(Err(busy))),
        ];
        for (found, last, expected) in table {
            assert_eq!(next(found.clone(), last), expected, "{found:?} {last}");
        }
    }

    #[test]
    fn who_wants_no_answer_waits_until_the_call_went_out() {
        use CallState::{Deleted, Delivered, Expired, Failed, Queued, Sent, Successful, Timeout};
        for state in [Successful, Expired, Failed, Deleted] {
            assert!(is_outcome(state, true) && is_outcome(state, false), "{state:?}");
        }
        for state in [Queued, Timeout] {
            assert!(!is_outcome(state, true) && !is_outcome(state, false), "{state:?}");
        }
        for state in [Sent, Delivered] {
            assert!(is_outcome(state, true) && !is_outcome(state, false), "{state:?}");
        }
    }
}
