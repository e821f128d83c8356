//! Calls: who may be asked what, what is refused, what becomes of a call, and how it is read.

use CallState::{Delivered, Expired, Failed, Queued, Sent, Successful, Timeout};
use bytes::Bytes;
use moorline_core::{CallState, Text, UnixMillis};
use moorline_machine::{
    Answer, CallAnswer, CallCommand, CallEffect, CallRefused, CallsFound, CallsQuery, Command,
    Effect, Refused,
    calls::{
        CALL_ANSWER_BYTES_MAX, CALL_INFO_BYTES_MAX, CALL_METHOD_BYTES_MAX, CALL_PARAMS_BYTES_MAX,
        CALLS_KEPT_BYTES_MAX, CALLS_KEPT_MAX, CALLS_OPEN_BYTES_MAX, CALLS_OPEN_MAX,
        CALLS_PAGE_BYTES_MAX, CALLS_PER_PAGE_MAX, CALLS_PER_TICK_MAX, Call, CallLimits, CallNote,
        CallTotals, CallsPage, Deadline, DeleteCall, MakeCall, NewCall, NoteCall,
    },
};

use crate::{
    devices::{delete_plain, put_plain},
    harness::*,
};

/// A device's last number, what is known of a call, what was asked, what was answered, and its number.
const KINDS: [u8; 5] = [94, 95, 96, 97, 98];
const LINE: u8 = 94;
pub(crate) const WAIT_MS: u64 = 10_000;
pub(crate) const KEEP_MS: u64 = 5_000;

pub(crate) fn making(id: u128) -> MakeCall {
    let call = NewCall {
        id,
        method: "reboot".into(),
        params: Bytes::from_static(b"{}"),
        one_way: false,
        info: Bytes::from_static(b"who"),
        resends_max: 1,
        deadline: Deadline::After(WAIT_MS),
        keep_ms: KEEP_MS,
    };
    MakeCall { tenant: TENANT, device: "d".into(), born: None, call, limits: CallLimits::MOST }
}

pub(crate) fn make(make: MakeCall) -> Command {
    Command::Calls(CallCommand::Make(make))
}

pub(crate) fn note(born: u64, number: i32, what: CallNote) -> Command {
    let note = NoteCall { tenant: TENANT, device: "d".into(), born, number, what };
    Command::Calls(CallCommand::Note(note))
}

pub(crate) fn answered(failed: bool, answer: &'static [u8]) -> CallNote {
    CallNote::Answered { failed, answer: Bytes::from_static(answer) }
}

pub(crate) fn delete(id: u128) -> Command {
    Command::Calls(CallCommand::Delete(DeleteCall { tenant: TENANT, device: "d".into(), id }))
}

fn refused(why: CallRefused) -> Answer {
    Answer::Refused(Refused::Calls(why))
}

pub(crate) fn with_device() -> (Group, u64) {
    let mut group = Group::new(SHARD);
    let answer = group.one(put_plain("d"));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    (group, born)
}

/// A call is made: its number.
fn made(group: &mut Group, id: u128) -> i32 {
    let answer = group.one(make(making(id)));
    let Answer::Calls(CallAnswer::Made { number, repeat: false, .. }) = answer else {
        panic!("{answer:?}")
    };
    number
}

fn noted(group: &mut Group, born: u64, number: i32, what: CallNote) -> (CallState, bool) {
    let answer = group.one(note(born, number, what));
    let Answer::Calls(CallAnswer::Noted { state, changed }) = answer else { panic!("{answer:?}") };
    (state, changed)
}

pub(crate) fn found(group: &Group, id: u128) -> Option<Call> {
    let query = CallsQuery::One { tenant: TENANT, device: "d".into(), id };
    let found = group.machine.calls(&group.rows, &query).unwrap();
    let CallsFound::One(call) = found else { panic!("{found:?}") };
    call
}

fn page(group: &Group, query: &CallsQuery) -> CallsPage {
    let found = group.machine.calls(&group.rows, query).unwrap();
    let CallsFound::Page(Some(page)) = found else { panic!("{found:?}") };
    page
}

fn waiting_of(after: i32, calls_max: u16, bytes_max: u32) -> CallsQuery {
    CallsQuery::Waiting { tenant: TENANT, device: "d".into(), after, calls_max, bytes_max }
}

fn all_of(states: &[CallState], before: i32, calls_max: u16) -> CallsQuery {
    let (device, states) = ("d".into(), states.to_vec());
    CallsQuery::All { tenant: TENANT, device, states, before, calls_max }
}

fn numbers(page: &CallsPage) -> Vec<i32> {
    page.calls.iter().map(|call| call.number).collect()
}

pub(crate) fn waiting(group: &Group) -> Vec<i32> {
    numbers(&page(group, &waiting_of(0, u16::MAX, u32::MAX)))
}

pub(crate) fn newest_first(group: &Group) -> Vec<i32> {
    numbers(&page(group, &all_of(&[], 0, u16::MAX)))
}

fn waits() -> Effect {
    Effect::Call(CallEffect::Waits { tenant: TENANT, device: "d".into() })
}

fn changed(id: u128, state: CallState) -> Effect {
    let device = Text::from("d");
    Effect::Call(CallEffect::Changed { tenant: TENANT, device, id, state, one_way: false })
}

fn tick_at(group: &mut Group, now: u64) {
    group.now = now;
    group.one(Command::Tick);
}

#[test]
fn a_call_goes_to_its_device_and_its_answer_is_kept_for_a_while() {
    let (mut group, born) = with_device();
    let at = UnixMillis(group.now);
    let answer = group.one(make(making(7)));
    let expected = CallAnswer::Made { born, number: 1, at, state: Queued, repeat: false };
    assert_eq!(answer, Answer::Calls(expected));
    assert_eq!(group.effects, [waits()]);
    assert_eq!(waiting(&group), [1]);

    assert_eq!(noted(&mut group, born, 1, CallNote::Sent), (Sent, true));
    assert_eq!(group.effects, [changed(7, Sent)]);
    assert_eq!(waiting(&group), [1], "nobody knows whether it has it");
    assert_eq!(noted(&mut group, born, 1, CallNote::Sent), (Sent, false));
    assert_eq!(group.effects, []);
    assert_eq!(noted(&mut group, born, 1, CallNote::Delivered), (Delivered, true));
    assert_eq!(waiting(&group), [0; 0]);
    group.now += 100;
    assert_eq!(noted(&mut group, born, 1, answered(false, b"ok")), (Successful, true));
    assert_eq!(group.effects, [changed(7, Successful)]);
    assert_eq!(noted(&mut group, born, 1, answered(true, b"late")), (Successful, false));

    let call = found(&group, 7).unwrap();
    assert_eq!((call.id, call.number, call.method.as_str()), (7, 1, "reboot"));
    assert_eq!((&call.params[..], &call.info[..], call.one_way), (&b"{}"[..], &b"who"[..], false));
    assert_eq!((call.created, call.until), (at, UnixMillis(at.0 + WAIT_MS)));
    assert_eq!((call.state, call.answer.as_deref()), (Successful, Some(&b"ok"[..])));
    assert_eq!(call.ended, Some(UnixMillis(at.0 + 100)));
    let totals = CallTotals { open: 0, kept: 1, bytes: 13 };
    assert_eq!(group.machine.call_totals(), totals);

    let forgotten = at.0 + 100 + KEEP_MS;
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(forgotten)));
    tick_at(&mut group, forgotten - 1);
    assert!(found(&group, 7).is_some());
    tick_at(&mut group, forgotten);
    assert_eq!((found(&group, 7), group.effects.as_slice()), (None, &[][..]));
    assert_eq!(KINDS.map(|kind| group.rows.count(kind)), [1, 0, 0, 0, 0]);
    assert_eq!(group.machine.call_totals(), CallTotals::default());
    assert_eq!(made(&mut group, 7), 2, "numbers go on");
}

#[test]
fn a_call_is_sent_again_as_often_as_it_may() {
    let (mut group, born) = with_device();
    let number = made(&mut group, 7);
    assert_eq!(noted(&mut group, born, number, CallNote::Unacknowledged), (Queued, false));
    noted(&mut group, born, number, CallNote::Sent);
    assert_eq!(noted(&mut group, born, number, CallNote::Unacknowledged), (Timeout, true));
    assert_eq!(group.effects, [waits(), changed(7, Timeout)]);
    assert_eq!(waiting(&group), [number]);
    assert_eq!(noted(&mut group, born, number, CallNote::Unacknowledged), (Timeout, false));
    assert_eq!(found(&group, 7).unwrap().resends, 1);
    noted(&mut group, born, number, CallNote::Sent);
    assert_eq!(noted(&mut group, born, number, CallNote::Unacknowledged), (Failed, true));
    assert_eq!(group.effects, [changed(7, Failed)]);
    let call = found(&group, 7).unwrap();
    assert_eq!((call.resends, call.ended), (1, Some(UnixMillis(group.now))));
}

#[test]
fn a_one_way_call_ends_when_its_device_has_it() {
    let (mut group, born) = with_device();
    let mut one_way = making(7);
    one_way.call.one_way = true;
    group.one(make(one_way));
    assert_eq!(noted(&mut group, born, 1, CallNote::Delivered), (Delivered, true));
    assert!(found(&group, 7).unwrap().ended.is_some());
    assert_eq!(noted(&mut group, born, 1, answered(true, b"no")), (Delivered, false));
    assert_eq!(found(&group, 7).unwrap().answer, None);
    tick_at(&mut group, 1_000_000 + WAIT_MS);
    assert_eq!(found(&group, 7), None, "it was kept long enough");
}

#[test]
fn what_has_not_ended_by_its_deadline_expires() {
    let (mut group, born) = with_device();
    let until = group.now + WAIT_MS;
    let waits = made(&mut group, 7);
    let mut at = making(8);
    at.call.deadline = Deadline::At(UnixMillis(until));
    group.one(make(at));
    let has = waits + 1;
    noted(&mut group, born, has, CallNote::Delivered);
    tick_at(&mut group, until - 1);
    assert_eq!(found(&group, 7).unwrap().state, Queued);
    tick_at(&mut group, until);
    assert_eq!(group.effects, [changed(7, Expired), changed(8, Expired)]);
    for (id, number) in [(7, waits), (8, has)] {
        let call = found(&group, id).unwrap();
        assert_eq!((call.state, call.ended), (Expired, Some(UnixMillis(until))));
        assert_eq!(noted(&mut group, born, number, answered(false, b"")), (Expired, false));
    }
    tick_at(&mut group, until + KEEP_MS);
    assert_eq!(newest_first(&group), [0; 0]);
}

#[test]
fn a_repeat_of_an_id_makes_nothing() {
    let (mut group, born) = with_device();
    let at = UnixMillis(group.now);
    assert_eq!(made(&mut group, 7), 1);
    noted(&mut group, born, 1, answered(true, b"no"));
    group.now += WAIT_MS - 1;
    let rows = group.rows.clone();
    // As it was made, and whatever else it says.
    let mut other = making(7);
    other.call.deadline = Deadline::At(UnixMillis(0));
    other.limits.calls = 0;
    for again in [making(7), other] {
        let answer = group.one(make(again));
        let expected = CallAnswer::Made { born, number: 1, at, state: Failed, repeat: true };
        assert_eq!(answer, Answer::Calls(expected));
        assert_eq!(group.effects, []);
    }
    let of_calls = |rows: &Map| {
        let calls = rows.0.iter().filter(|(key, _)| KINDS.contains(&key[4]));
        calls.map(|(key, row)| (key.clone(), row.clone())).collect::<Vec<_>>()
    };
    assert_eq!(of_calls(&group.rows), of_calls(&rows));
}

#[test]
fn what_no_device_takes_is_refused() {
    let (mut group, born) = with_device();
    let long = Text::from("m".repeat(CALL_METHOD_BYTES_MAX + 1).as_str());
    let bytes = |len| Bytes::from(vec![b' '; len]);
    let of = |change: &dyn Fn(&mut MakeCall)| {
        let mut making = making(7);
        change(&mut making);
        make(making)
    };
    let malformed = Answer::Refused(Refused::Malformed);
    let large = || refused(CallRefused::TooLarge);
    let answer = CallNote::Answered { failed: false, answer: bytes(CALL_ANSWER_BYTES_MAX + 1) };
    #[rustfmt::skip]
    let table = [
        (of(&|make| make.call.method = Text::default()),                  malformed.clone()),
        (of(&|make| make.device = Text::default()),                       malformed),
        (of(&|make| make.call.method = long.clone()),                     large()),
        (of(&|make| make.call.params = bytes(CALL_PARAMS_BYTES_MAX + 1)), large()),
        (of(&|make| make.call.info = bytes(CALL_INFO_BYTES_MAX + 1)),     large()),
        (note(born, 1, answer),                                           large()),
        (of(&|make| make.device = "other".into()),                        refused(CallRefused::DeviceGone)),
        (of(&|make| make.born = Some(born + 1)),                          refused(CallRefused::DeviceGone)),
        (note(born + 1, 1, CallNote::Sent),                               refused(CallRefused::DeviceGone)),
        (note(born, 1, CallNote::Sent),                                   refused(CallRefused::NoSuchCall)),
        (delete(7),                                                       refused(CallRefused::NoSuchCall)),
        (of(&|make| make.call.deadline = Deadline::At(UnixMillis(1_000_000))), refused(CallRefused::Expired)),
        (of(&|make| make.call.deadline = Deadline::After(0)), refused(CallRefused::Expired)),
        (of(&|make| make.limits.calls = 0),                               refused(CallRefused::Full)),
        (of(&|make| make.limits.bytes = 10),                              refused(CallRefused::Full)),
    ];
    for (command, expected) in table {
        assert_eq!(group.one(command.clone()), expected, "{command:?}");
        assert_eq!(group.effects, [], "{command:?}");
        assert_eq!(KINDS.map(|kind| group.rows.count(kind)), [0; 5], "{command:?}");
    }
    let mut fits = making(7);
    (fits.born, fits.limits) = (Some(born), CallLimits { calls: 1, bytes: 11 });
    assert!(matches!(group.one(make(fits.clone())), Answer::Calls(_)));
    fits.call.id = 8;
    assert_eq!(group.one(make(fits)), refused(CallRefused::Full));
}

#[test]
fn so_many_calls_are_open_and_no_more() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    for id in 0..CALLS_OPEN_MAX {
        made(&mut group, id.into());
    }
    let more = |group: &mut Group| group.one(make(making(u128::MAX)));
    assert_eq!(more(&mut group), refused(CallRefused::Full));
    noted(&mut group, born, 5, CallNote::Delivered);
    assert_eq!(more(&mut group), refused(CallRefused::Full), "it is to be answered");
    noted(&mut group, born, 5, answered(false, b""));
    assert!(matches!(more(&mut group), Answer::Calls(_)));
    group.check();

    let (mut group, _) = with_device();
    group.unchecked = true;
    let large = |id| {
        let mut large = making(id);
        large.call.params = Bytes::from(vec![0; CALL_PARAMS_BYTES_MAX - 9]);
        make(large)
    };
    let fit = CALLS_OPEN_BYTES_MAX / CALL_PARAMS_BYTES_MAX as u64;
    for id in 0..fit {
        assert!(matches!(group.one(large(id.into())), Answer::Calls(_)), "{id}");
    }
    assert_eq!(group.one(large(u128::MAX)), refused(CallRefused::Full));
    let first = waiting_of(0, u16::MAX, u32::MAX);
    let bytes: usize = page(&group, &first).calls.iter().map(|call| call.params.len()).sum();
    assert!((CALLS_PAGE_BYTES_MAX - CALL_PARAMS_BYTES_MAX..=CALLS_PAGE_BYTES_MAX).contains(&bytes));
}

#[test]
fn so_many_calls_are_kept_and_the_oldest_goes_first() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let stays_open = made(&mut group, 0);
    for id in 1..=CALLS_KEPT_MAX {
        let number = made(&mut group, id.into());
        noted(&mut group, born, number, answered(false, b""));
    }
    assert_eq!(group.machine.call_totals().kept, u64::from(CALLS_KEPT_MAX));
    assert!(found(&group, 1).is_some());
    let number = made(&mut group, u128::MAX);
    noted(&mut group, born, number, answered(false, b"new"));
    assert_eq!((found(&group, 1), found(&group, 2).is_some()), (None, true));
    assert_eq!(group.machine.call_totals().kept, u64::from(CALLS_KEPT_MAX));
    assert_eq!(waiting(&group), [stays_open]);
    group.check();

    let (mut group, born) = with_device();
    group.unchecked = true;
    let large = CALL_PARAMS_BYTES_MAX as u64;
    for id in 0..=CALLS_KEPT_BYTES_MAX / large {
        let number = made(&mut group, id.into());
        let answer = Bytes::from(vec![0; CALL_ANSWER_BYTES_MAX]);
        noted(&mut group, born, number, CallNote::Answered { failed: false, answer });
    }
    assert!(group.machine.call_totals().bytes <= CALLS_KEPT_BYTES_MAX);
    assert!(found(&group, 0).is_none() && found(&group, 2).is_some());
    group.check();
}

#[test]
fn numbers_begin_anew_past_those_that_are_there() {
    let (mut group, born) = with_device();
    assert_eq!(made(&mut group, 1), 1);
    assert_eq!(made(&mut group, 2), 2);
    // As if 2^31 - 4 others had been called and were forgotten since.
    let line = group.rows.0.iter().find(|(key, _)| key[4] == LINE);
    let (key, row) = line.map(|(key, row)| (key.clone(), row.to_vec())).unwrap();
    let mut later = row;
    later[5..9].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    group.rows.0.insert(key, later.into());
    group.reopen();
    assert_eq!(made(&mut group, 3), i32::MAX);
    assert_eq!(waiting(&group), [1, 2, i32::MAX]);
    assert_eq!(made(&mut group, 4), 3, "1 and 2 are there");
    noted(&mut group, born, 1, answered(false, b""));
    assert_eq!(made(&mut group, 5), 4);
    assert_eq!(waiting(&group), [i32::MAX, 2, 3, 4], "the highest came before it began anew");
    assert_eq!(newest_first(&group), [4, 3, 2, 1, i32::MAX]);
    assert_eq!(numbers(&page(&group, &waiting_of(i32::MAX, 2, u32::MAX))), [2, 3]);
    assert_eq!(numbers(&page(&group, &waiting_of(4, 2, u32::MAX))), [0; 0]);
    assert_eq!(numbers(&page(&group, &all_of(&[], 2, 9))), [1, i32::MAX]);
}

#[test]
fn calls_are_read_in_pages() {
    let (mut group, born) = with_device();
    for id in 1..=5 {
        made(&mut group, id);
    }
    noted(&mut group, born, 2, CallNote::Sent);
    noted(&mut group, born, 3, CallNote::Delivered);
    noted(&mut group, born, 4, answered(false, b"ok"));
    let first = page(&group, &waiting_of(0, 2, u32::MAX));
    assert_eq!((numbers(&first), first.more, first.born), (vec![1, 2], true, born));
    let rest = page(&group, &waiting_of(2, 2, u32::MAX));
    assert_eq!((numbers(&rest), rest.more), (vec![5], false));
    assert_eq!(numbers(&page(&group, &waiting_of(0, 9, 1))), [1], "one in any case");
    assert_eq!(numbers(&page(&group, &waiting_of(0, 9, 22))), [1, 2]);

    let newest = page(&group, &all_of(&[], 0, 3));
    assert_eq!((numbers(&newest), newest.more), (vec![5, 4, 3], true));
    let rest = page(&group, &all_of(&[], 3, 3));
    assert_eq!((numbers(&rest), rest.more), (vec![2, 1], false));
    let ended = page(&group, &all_of(&[Successful, Delivered], 0, 9));
    assert_eq!(numbers(&ended), [4, 3]);
    assert_eq!(ended.calls[0].answer.as_deref(), Some(&b"ok"[..]));

    for id in 6..=200 {
        made(&mut group, id);
    }
    assert_eq!(page(&group, &all_of(&[], 0, u16::MAX)).calls.len(), CALLS_PER_PAGE_MAX);
    let nobody = CallsQuery::One { tenant: TENANT, device: "other".into(), id: 1 };
    assert_eq!(group.machine.calls(&group.rows, &nobody).unwrap(), CallsFound::One(None));
    let device = Text::from("other");
    let nobody =
        CallsQuery::All { tenant: TENANT, device, states: vec![], before: 0, calls_max: 1 };
    assert_eq!(group.machine.calls(&group.rows, &nobody).unwrap(), CallsFound::Page(None));
}

#[test]
fn a_deleted_call_is_gone() {
    let (mut group, born) = with_device();
    let (open, ended) = (made(&mut group, 7), made(&mut group, 8));
    noted(&mut group, born, ended, answered(false, b"ok"));
    let deleted = |state| Answer::Calls(CallAnswer::Deleted { state });
    assert_eq!(group.one(delete(7)), deleted(Queued));
    assert_eq!(group.effects, [changed(7, CallState::Deleted)]);
    assert_eq!(group.one(delete(7)), refused(CallRefused::NoSuchCall));
    assert_eq!(group.one(note(born, open, CallNote::Sent)), refused(CallRefused::NoSuchCall));
    assert_eq!(group.one(delete(8)), deleted(Successful));
    assert_eq!(KINDS.map(|kind| group.rows.count(kind)), [1, 0, 0, 0, 0]);
    assert_eq!(made(&mut group, 7), 3, "its id is free, its number is not");
}

#[test]
fn calls_of_a_device_go_with_it() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let many = CALLS_OPEN_MAX / 2;
    for id in 0..many {
        let number = made(&mut group, id.into());
        noted(&mut group, born, number, answered(false, b"ok"));
    }
    for id in 0..CALLS_OPEN_MAX {
        made(&mut group, u128::from(id) + 10_000);
    }
    assert_eq!(group.one(delete_plain("d")), Answer::Done);
    group.check();
    assert_eq!(group.machine.call_totals(), CallTotals::default());
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)));
    let gone = refused(CallRefused::DeviceGone);
    assert_eq!(group.one(note(born, 1, CallNote::Sent)), gone);
    assert_eq!(group.one(delete(0)), gone);

    let answer = group.one(put_plain("d"));
    let Answer::Device { born: anew, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(group.one(note(born, 1, answered(false, b"late"))), gone);
    assert_eq!(found(&group, 0), None, "that was of another device");
    assert_eq!(made(&mut group, 0), 1, "it begins with nothing");
    assert_eq!(waiting(&group), [1]);

    let left = (many + CALLS_OPEN_MAX) as usize;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(95), left - CALLS_PER_TICK_MAX + 1);
    group.check();
    group.one(Command::Tick);
    assert_eq!(KINDS.map(|kind| group.rows.count(kind)), [1, 1, 1, 0, 1]);
    assert_eq!(found(&group, 0).map(|call| call.state), Some(Queued));
    assert_eq!(noted(&mut group, anew, 1, CallNote::Sent), (Sent, true));
    group.check();
}

#[test]
fn one_tick_ends_so_many() {
    let (mut group, _) = with_device();
    group.unchecked = true;
    group.one(put_plain("e"));
    let of = |device: &str, id: u32| {
        let mut making = making(id.into());
        making.device = device.into();
        make(making)
    };
    for id in 0..CALLS_OPEN_MAX {
        group.batch(&[of("d", id), of("e", id)]);
    }
    let until = group.now + WAIT_MS;
    tick_at(&mut group, until);
    assert_eq!(group.machine.call_totals().kept, CALLS_PER_TICK_MAX as u64);
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(until)), "there is more");
    tick_at(&mut group, until);
    assert_eq!(group.machine.call_totals().open, 0);
    group.check();
}
