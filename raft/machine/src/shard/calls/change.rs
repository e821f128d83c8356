//! Calls are made, something befalls them, they end and are forgotten.

use moorline_core::{CallEvent, CallState, Text, UnixMillis, shard::bucket_of};
use moorline_storage::{Rows, StorageError};

use super::{Calls, Known, Line, Sum, refused};
use crate::{
    answer::{Answer, Refused},
    calls::{
        CALL_ANSWER_BYTES_MAX, CALL_INFO_BYTES_MAX, CALL_METHOD_BYTES_MAX, CALL_PARAMS_BYTES_MAX,
        CALLS_KEPT_BYTES_MAX, CALLS_KEPT_MAX, CALLS_OPEN_BYTES_MAX, CALLS_OPEN_MAX,
        CALLS_PER_SHARD_MAX, CALLS_PER_TICK_MAX, CallAnswer, CallEffect, CallNote, CallRefused,
        DeleteCall, MakeCall, NewCall, NoteCall,
    },
    effect::Effect,
    keys::Place,
    registry::DEVICE_NAME_BYTES_MAX,
    rows::{
        NumberRow, Row,
        calls::{CallAnsweredRow, CallAskedRow, CallCardRow, CallLineRow},
    },
    shard::ShardState,
    step::Step,
};

impl MakeCall {
    /// What no device takes.
    fn refusal(&self) -> Option<Refused> {
        let NewCall { method, params, info, .. } = &self.call;
        let no_name = self.device.is_empty() || self.device.len() > DEVICE_NAME_BYTES_MAX;
        if no_name || method.is_empty() {
            return Some(Refused::Malformed);
        }
        let too_large = method.len() > CALL_METHOD_BYTES_MAX
            || params.len() > CALL_PARAMS_BYTES_MAX
            || info.len() > CALL_INFO_BYTES_MAX;
        too_large.then_some(Refused::Calls(CallRefused::TooLarge))
    }

    /// Whether a device of which so much is open takes one more.
    fn has_room(&self, open: Sum, bytes: u32) -> bool {
        open.calls < self.limits.calls.min(CALLS_OPEN_MAX)
            && open.bytes + u64::from(bytes) <= self.limits.bytes.min(CALLS_OPEN_BYTES_MAX)
    }
}

/// Lengths that were looked at before.
fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the limits of a call fit")
}

impl ShardState {
    pub(super) fn make_call<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        make: MakeCall,
    ) -> Result<Answer, StorageError> {
        if let Some(why) = make.refusal() {
            return Ok(Answer::Refused(why));
        }
        let Some(of) = self.place(&*step.rows, make.tenant, &make.device, make.born)? else {
            return Ok(refused(CallRefused::DeviceGone));
        };
        let calls = &mut self.calls;
        if let Some(number) = calls.number_of(&*step.rows, of, make.call.id)? {
            let CallCardRow { created: at, state, .. } = calls.card(&*step.rows, of, number)?;
            let made = CallAnswer::Made { born: of.born, number, at, state, repeat: true };
            return Ok(Answer::Calls(made));
        }
        if make.call.deadline.from(step.time) <= step.time {
            return Ok(refused(CallRefused::Expired));
        }
        let NewCall { method, params, info, .. } = &make.call;
        let bytes = counted(method.len() + params.len() + info.len());
        let open = calls.lines.get(&of).map_or(Sum::default(), |line| line.open);
        if !make.has_room(open, bytes) {
            return Ok(refused(CallRefused::Full));
        }
        if calls.len() >= CALLS_PER_SHARD_MAX {
            return Ok(refused(CallRefused::TooManyCalls));
        }
        let number = calls.make(step, of, make, bytes)?;
        let (at, state) = (step.time, CallState::Queued);
        let made = CallAnswer::Made { born: of.born, number, at, state, repeat: false };
        Ok(Answer::Calls(made))
    }

    pub(super) fn note_call<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        noted: NoteCall,
    ) -> Result<Answer, StorageError> {
        let NoteCall { tenant, device, born, number, what } = noted;
        if let CallNote::Answered { answer, .. } = &what
            && answer.len() > CALL_ANSWER_BYTES_MAX
        {
            return Ok(refused(CallRefused::TooLarge));
        }
        let of = Place { bucket: bucket_of(tenant, device.as_bytes()), born };
        if self.calls.known(of, number).is_none() {
            let is_there = self.place(&*step.rows, tenant, &device, Some(born))?.is_some();
            let why = if is_there { CallRefused::NoSuchCall } else { CallRefused::DeviceGone };
            return Ok(refused(why));
        }
        self.calls.note(step, of, number, what)
    }

    pub(super) fn delete_call<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteCall,
    ) -> Result<Answer, StorageError> {
        let DeleteCall { tenant, device, id } = delete;
        let Some(of) = self.place(&*step.rows, *tenant, device, None)? else {
            return Ok(refused(CallRefused::DeviceGone));
        };
        let Some(number) = self.calls.number_of(&*step.rows, of, *id)? else {
            return Ok(refused(CallRefused::NoSuchCall));
        };
        let card = self.calls.card(&*step.rows, of, number)?;
        let state = card.state;
        let gone = CallCardRow { state: state.after(CallEvent::Deleted, card.one_way), ..card };
        self.calls.say_changed(step, of, &gone);
        self.calls.forget(step, of, number, &gone);
        Ok(Answer::Calls(CallAnswer::Deleted { state }))
    }
}

impl Calls {
    /// The number it gets.
    fn make<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Place,
        make: MakeCall,
        bytes: u32,
    ) -> Result<i32, StorageError> {
        let MakeCall { tenant, device, born: _, call, limits: _ } = make;
        if !self.lines.contains_key(&of) {
            let row = step.rows.get(&self.keys.call_line(of))?;
            let row = match row {
                Some(row) => CallLineRow::from_bytes(&row)?,
                // A copy: the text is a slice of the whole log entry.
                None => CallLineRow { tenant, device: Text::from(device.as_str()), last: 0 },
            };
            self.lines.insert(of, Line::new(row));
        }
        let line = self.lines.get_mut(&of).expect("it was just put there");
        let number = line.next_number();
        line.row.last = number;
        step.put(self.keys.call_line(of), line.row.to_bytes());
        let device = line.row.device.clone();
        let NewCall { id, method, params, one_way, info, resends_max, deadline, keep_ms } = call;
        let card = CallCardRow {
            id,
            state: CallState::Queued,
            one_way,
            answered: false,
            created: step.time,
            until: deadline.from(step.time),
            keep_ms,
            resends: 0,
            resends_max,
            ended: None,
            bytes,
        };
        step.put(self.keys.call_card(of, number), card.to_bytes());
        let asked = CallAskedRow { method, params, info };
        step.put(self.keys.call_asked(of, number), asked.to_bytes());
        let by_id = NumberRow(u64::from(number.cast_unsigned()));
        step.put(self.keys.call_by_id(of, id), by_id.to_bytes());
        self.know(of, number, Known::from(&card));
        step.effects.push(Effect::Call(CallEffect::Waits { tenant, device }));
        Ok(number)
    }

    fn note<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Place,
        number: i32,
        what: CallNote,
    ) -> Result<Answer, StorageError> {
        let mut card = self.card(&*step.rows, of, number)?;
        let again = card.resends < card.resends_max;
        let event = match &what {
            CallNote::Sent => CallEvent::Sent,
            CallNote::Delivered => CallEvent::Delivered,
            CallNote::Unacknowledged => CallEvent::Unacknowledged { again },
            CallNote::Answered { failed, .. } => CallEvent::Answered { failed: *failed },
        };
        let state = card.state.after(event, card.one_way);
        let changed = state != card.state;
        if changed {
            card.resends += u32::from(state == CallState::Timeout);
            if let CallNote::Answered { answer, .. } = what {
                card.answered = true;
                card.bytes += counted(answer.len());
                let answered = CallAnsweredRow(answer);
                step.put(self.keys.call_answered(of, number), answered.to_bytes());
            }
            self.change(step, of, number, card, state)?;
        }
        Ok(Answer::Calls(CallAnswer::Noted { state, changed }))
    }

    /// Writes how a call stands now, in rows and in memory, and says it.
    fn change<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Place,
        number: i32,
        mut card: CallCardRow,
        state: CallState,
    ) -> Result<(), StorageError> {
        card.state = state;
        card.ended = (!card.is_open()).then_some(step.time);
        step.put(self.keys.call_card(of, number), card.to_bytes());
        self.unknow(of, number);
        self.know(of, number, Known::from(&card));
        self.say_changed(step, of, &card);
        if card.ended.is_some() { self.forget_oldest(step, of, number) } else { Ok(()) }
    }

    fn say_changed<R: Rows + ?Sized>(&self, step: &mut Step<'_, R>, of: Place, card: &CallCardRow) {
        let row = &self.lines.get(&of).expect("the caller found it").row;
        let (tenant, device) = (row.tenant, row.device.clone());
        if card.state == CallState::Timeout {
            let device = device.clone();
            step.effects.push(Effect::Call(CallEffect::Waits { tenant, device }));
        }
        let (id, state, one_way) = (card.id, card.state, card.one_way);
        let changed = CallEffect::Changed { tenant, device, id, state, one_way };
        step.effects.push(Effect::Call(changed));
    }

    /// A device has no more than so many calls that have ended; the one that just did is not the one to go.
    fn forget_oldest<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Place,
        ended: i32,
    ) -> Result<(), StorageError> {
        while let Some(line) = self.lines.get(&of)
            && (line.kept.calls > CALLS_KEPT_MAX || line.kept.bytes > CALLS_KEPT_BYTES_MAX)
        {
            let may_go = |(number, known): &(i32, Known)| !known.is_open && *number != ended;
            let oldest = line.by_age(0).find(may_go).map(|(number, _)| number);
            let Some(oldest) = oldest else { break };
            let card = self.card(&*step.rows, of, oldest)?;
            self.forget(step, of, oldest, &card);
        }
        Ok(())
    }

    /// Removes a call. The row of its device's last number stays.
    fn forget<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        of: Place,
        number: i32,
        card: &CallCardRow,
    ) {
        self.unknow(of, number);
        if self.lines.get(&of).is_some_and(|line| line.calls.is_empty()) {
            self.lines.remove(&of);
        }
        self.delete_rows(step, of, number, card);
    }

    fn delete_rows<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        of: Place,
        number: i32,
        card: &CallCardRow,
    ) {
        step.delete(self.keys.call_card(of, number));
        step.delete(self.keys.call_asked(of, number));
        step.delete(self.keys.call_by_id(of, card.id));
        if card.answered {
            step.delete(self.keys.call_answered(of, number));
        }
    }

    pub(in crate::shard) fn tick<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let now: UnixMillis = step.time;
        for _ in 0..CALLS_PER_TICK_MAX {
            if let Some(&(at, of, number)) = self.due.first()
                && at <= now
            {
                let card = self.card(&*step.rows, of, number)?;
                if card.is_open() {
                    let state = card.state.after(CallEvent::Expired, card.one_way);
                    self.change(step, of, number, card, state)?;
                } else {
                    self.forget(step, of, number, &card);
                }
            } else if let Some((of, number)) = self.gone.pop_first() {
                let card = self.card(&*step.rows, of, number)?;
                self.delete_rows(step, of, number, &card);
            } else {
                break;
            }
        }
        Ok(())
    }
}
