//! What is asked about calls.

use moorline_core::{CallState, TenantId, Text};
use moorline_storage::{StorageError, View};

use super::{Calls, Line};
use crate::{
    calls::{CALLS_PAGE_BYTES_MAX, CALLS_PER_PAGE_MAX, Call, CallsPage},
    keys::Place,
    rows::{
        Row,
        calls::{CallAnsweredRow, CallAskedRow},
        corrupt,
    },
    shard::ShardState,
};

/// Which calls of a device are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallsQuery {
    /// Those that wait for it, the oldest first.
    Waiting {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Only those that came later than this one; 0: all.
        after: i32,
        /// At most so many; [`CALLS_PER_PAGE_MAX`] in any case.
        calls_max: u16,
        /// About so many bytes at most, but one call; [`CALLS_PAGE_BYTES_MAX`] in any case.
        bytes_max: u32,
    },
    /// One.
    One {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// The call.
        id: u128,
    },
    /// All, the newest first.
    All {
        /// Whose device.
        tenant: TenantId,
        /// Which.
        device: Text,
        /// Only those that stand so; none: all.
        states: Vec<CallState>,
        /// Only those that came earlier than this one; 0: all.
        before: i32,
        /// At most so many; [`CALLS_PER_PAGE_MAX`] in any case.
        calls_max: u16,
    },
}

/// What was found of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallsFound {
    /// To [`CallsQuery::One`]; `None` if there is no such device or call.
    One(Option<Call>),
    /// To the others; `None` if there is no such device.
    Page(Option<CallsPage>),
}

impl ShardState {
    pub(crate) fn calls(
        &self,
        rows: &(impl View + ?Sized),
        query: &CallsQuery,
    ) -> Result<CallsFound, StorageError> {
        let calls = &self.calls;
        Ok(match query {
            CallsQuery::One { tenant, device, id } => {
                let of = self.place(rows, *tenant, device, None)?;
                let number = of.map(|of| calls.number_of(rows, of, *id)).transpose()?.flatten();
                let found = of.zip(number);
                CallsFound::One(found.map(|(of, number)| calls.read(rows, of, number)).transpose()?)
            }
            CallsQuery::Waiting { tenant, device, after, calls_max, bytes_max } => {
                let Some(of) = self.place(rows, *tenant, device, None)? else {
                    return Ok(CallsFound::Page(None));
                };
                let line = calls.lines.get(&of);
                let waiting = line.into_iter().flat_map(|line: &Line| line.by_age(*after));
                let waiting = waiting.filter(|(_, known)| known.state.is_waiting());
                let most = (*calls_max, *bytes_max);
                calls.page(rows, of, waiting.map(|(number, _)| number), most)?
            }
            CallsQuery::All { tenant, device, states, before, calls_max } => {
                let Some(of) = self.place(rows, *tenant, device, None)? else {
                    return Ok(CallsFound::Page(None));
                };
                let line = calls.lines.get(&of);
                let all = line.into_iter().flat_map(|line: &Line| line.by_youth(*before));
                let all =
                    all.filter(|(_, known)| states.is_empty() || states.contains(&known.state));
                calls.page(rows, of, all.map(|(number, _)| number), (*calls_max, u32::MAX))?
            }
        })
    }
}

impl Calls {
    fn page(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        numbers: impl Iterator<Item = i32>,
        (calls_max, bytes_max): (u16, u32),
    ) -> Result<CallsFound, StorageError> {
        let calls_max = usize::from(calls_max).clamp(1, CALLS_PER_PAGE_MAX);
        let bytes_max = (bytes_max as usize).min(CALLS_PAGE_BYTES_MAX);
        let mut page = CallsPage { born: of.born, calls: Vec::new(), more: false };
        let mut bytes = 0;
        for number in numbers {
            let known = self.known(of, number);
            bytes += known.map_or(0, |known| known.bytes as usize);
            let full = page.calls.len() >= calls_max || bytes > bytes_max;
            if full && !page.calls.is_empty() {
                page.more = true;
                break;
            }
            page.calls.push(self.read(rows, of, number)?);
        }
        Ok(CallsFound::Page(Some(page)))
    }

    fn read(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        number: i32,
    ) -> Result<Call, StorageError> {
        let card = self.card(rows, of, number)?;
        let asked = rows.get(&self.keys.call_asked(of, number))?;
        let asked = asked.ok_or_else(|| corrupt(CallAskedRow::WHAT, &"it is missing"))?;
        let CallAskedRow { method, params, info } = CallAskedRow::from_bytes(&asked)?;
        let answered = rows.get(&self.keys.call_answered(of, number))?;
        let answered = answered.as_ref().map(CallAnsweredRow::from_bytes).transpose()?;
        Ok(Call {
            id: card.id,
            number,
            method,
            params,
            one_way: card.one_way,
            info,
            created: card.created,
            until: card.until,
            state: card.state,
            resends: card.resends,
            resends_max: card.resends_max,
            ended: card.ended,
            answer: answered.map(|CallAnsweredRow(answer)| answer),
        })
    }
}
