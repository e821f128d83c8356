//! Mailboxes: what each command about mail does, and what it refuses.

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_machine::{
    Answer, Command, Effect, MAIL_DEAD_KEPT, MAIL_DONE_KEPT, MailAnswer, MailCommand, MailEffect,
    MailRefused, Refused,
    mail::{
        CancelMail, MAIL_DETAIL_BYTES_MAX, MAIL_DEVICE_BYTES_MAX, MAIL_GARBAGE_ROWS_PER_TICK_MAX,
        MAIL_NAME_BYTES_MAX, MAIL_NOTES_MAX, MAIL_PAYLOAD_BYTES_MAX, MAIL_PER_TICK_MAX,
        MAILBOX_BYTES_MAX, MAILBOX_ITEMS_MAX, MailInfo, MailLimits, MailOp, NewMail, NoteDelivered,
        Noted, PURGED_PER_COMMAND_MAX, PurgeMail, SendMail, SettleIf, SettleMail,
    },
    query::{Found, Query},
};

use crate::{
    devices::{delete_plain, put_plain},
    harness::*,
};

pub(crate) const KIND_MAILBOX: u8 = 29;
pub(crate) const KIND_MAIL: u8 = 30;
pub(crate) const KIND_CARD: u8 = 31;
pub(crate) const KIND_ENDED: u8 = 50;
pub(crate) const KIND_EXPIRY: u8 = 51;
const KIND_GARBAGE: u8 = 52;

const NO_LIMITS: MailLimits = MailLimits { items: u32::MAX, bytes: u64::MAX };

pub(crate) fn device() -> Text {
    "d".into()
}

pub(crate) fn send_mail(id: u128) -> SendMail {
    let mail = NewMail {
        id,
        name: "n".into(),
        content_type: 1,
        payload: Bytes::copy_from_slice(format!("{id}").as_bytes()),
        ttl_ms: None,
        requeues_max: 2,
    };
    SendMail { tenant: TENANT, device: device(), mail, limits: NO_LIMITS, born: None }
}

pub(crate) fn send(id: u128) -> Command {
    Command::Mail(MailCommand::Send(send_mail(id)))
}

fn send_with(id: u128, change: impl FnOnce(&mut SendMail)) -> Command {
    let mut send = send_mail(id);
    change(&mut send);
    Command::Mail(MailCommand::Send(send))
}

fn expiring(id: u128, ttl_ms: u64) -> Command {
    send_with(id, |send| send.mail.ttl_ms = Some(ttl_ms))
}

fn settlement(id: u128, op: MailOp) -> SettleMail {
    let (device, detail) = (device(), "why".into());
    SettleMail { tenant: TENANT, device, id, op, by: 3, detail }
}

pub(crate) fn settle_mail(id: u128, op: MailOp) -> Command {
    Command::Mail(MailCommand::Settle(settlement(id, op)))
}

fn ack_if(id: u128, version: Option<u64>, delivered: bool) -> Command {
    let only = SettleIf { version, delivered };
    Command::Mail(MailCommand::SettleIf(settlement(id, MailOp::Ack), only))
}

fn ack(id: u128) -> Command {
    settle_mail(id, MailOp::Ack)
}

fn requeue(id: u128) -> Command {
    settle_mail(id, MailOp::Requeue)
}

pub(crate) fn cancel(id: u128) -> Command {
    Command::Mail(MailCommand::Cancel(CancelMail { tenant: TENANT, device: device(), id }))
}

pub(crate) fn purge(dead: bool) -> Command {
    Command::Mail(MailCommand::Purge(PurgeMail { tenant: TENANT, device: device(), dead }))
}

pub(crate) fn delivered(id: u128) -> Command {
    delivered_by(id, 4)
}

fn delivered_by(id: u128, by: u8) -> Command {
    let (device, detail) = (device(), Text::default());
    let delivered = NoteDelivered { tenant: TENANT, device, id, by, detail };
    Command::Mail(MailCommand::NoteDelivered(delivered))
}

fn mailed(size: u32, front: bool, repeat: bool) -> Answer {
    Answer::Mail(MailAnswer::Mailed { size, front, repeat })
}

pub(crate) fn settled(size: u32, repeat: bool) -> Answer {
    Answer::Mail(MailAnswer::Settled { size, next: size > 0, repeat })
}

pub(crate) fn refused(why: MailRefused) -> Answer {
    Answer::Refused(Refused::Mail(why))
}

fn not_next(front: Option<u128>) -> Answer {
    refused(MailRefused::NotNext { front })
}

pub(crate) fn ready(size: u32) -> Effect {
    Effect::Mail(MailEffect::Ready { tenant: TENANT, device: device(), size })
}

fn finished(id: u128, what: Noted, by: u8) -> Effect {
    finished_after(0, id, what, by)
}

fn finished_after(waited_ms: u64, id: u128, what: Noted, by: u8) -> Effect {
    let (tenant, device) = (TENANT, device());
    Effect::Mail(MailEffect::Finished { tenant, device, id, what, by, waited_ms })
}

pub(crate) fn front(group: &Group) -> Option<(u128, u32)> {
    let front = group.machine.mailboxes().front(&group.rows, TENANT, &device()).unwrap();
    front.map(|(mail, size)| (mail.id, size))
}

pub(crate) fn info(group: &Group, id: u128) -> Option<MailInfo> {
    group.machine.mailboxes().mail(&group.rows, TENANT, &device(), id).unwrap()
}

/// What is queued, page by page.
pub(crate) fn queued(group: &Group, max: usize) -> Vec<u128> {
    let mut found: Vec<MailInfo> = Vec::new();
    loop {
        let after = found.last().map_or(0, |mail| mail.place);
        let boxes = group.machine.mailboxes();
        let page = boxes.queued(&group.rows, TENANT, &device(), after, max).unwrap();
        found.extend(page.mails);
        if !page.more {
            break found.into_iter().map(|mail| mail.id).collect();
        }
    }
}

pub(crate) fn dead(group: &Group) -> Vec<u128> {
    let page = group.machine.mailboxes().dead(&group.rows, TENANT, &device(), 0, usize::MAX);
    page.unwrap().mails.into_iter().map(|mail| mail.id).collect()
}

pub(crate) fn done(group: &Group) -> Vec<u128> {
    let page = group.machine.mailboxes().done(&group.rows, TENANT, &device(), 0, usize::MAX);
    page.unwrap().mails.into_iter().map(|mail| mail.id).collect()
}

fn history(group: &Group, id: u128) -> Vec<Noted> {
    info(group, id).unwrap().notes.into_iter().map(|note| note.what).collect()
}

fn with_mail(ids: impl IntoIterator<Item = u128>) -> Group {
    let mut group = Group::new(SHARD);
    for id in ids {
        group.one(send(id));
    }
    group
}

fn tick(group: &mut Group, passed_ms: u64) {
    group.now += passed_ms;
    group.one(Command::Tick);
}

#[test]
fn the_front_stays_until_it_is_settled() {
    let mut group = Group::new(SHARD);
    assert_eq!(front(&group), None);
    assert_eq!(group.one(send(1)), mailed(1, true, false));
    assert_eq!(group.effects, [ready(1)]);
    assert_eq!(group.one(send(2)), mailed(2, false, false));
    assert!(group.effects.is_empty(), "one is outstanding");
    for _ in 0..3 {
        let boxes = group.machine.mailboxes();
        let (mail, size) = boxes.front(&group.rows, TENANT, &device()).unwrap().unwrap();
        assert_eq!((mail.id, size, &mail.payload[..], mail.content_type), (1, 2, &b"1"[..], 1));
        assert_eq!((mail.name, mail.created), ("n".into(), UnixMillis(group.now)));
        assert_eq!(boxes.front_id(TENANT, &device()), Some(1));
        group.reopen();
    }
    assert_eq!(group.one(ack(1)), settled(1, false));
    assert_eq!(group.effects, [finished(1, Noted::Acked, 3), ready(1)]);
    assert_eq!(front(&group), Some((2, 1)));
    assert_eq!(group.one(settle_mail(2, MailOp::Reject)), settled(0, false));
    assert_eq!(group.effects, [finished(2, Noted::Rejected, 3)]);
    assert_eq!(front(&group), None);
    assert_eq!(done(&group), [1, 2]);
    assert_eq!(history(&group, 2), [Noted::Queued, Noted::Rejected]);
    assert_eq!(info(&group, 2).unwrap().notes[1].detail, "why".into());
    assert_eq!(group.rows.count(KIND_MAIL), 0);
}

#[test]
fn only_the_front_can_be_settled() {
    for op in [MailOp::Ack, MailOp::Reject, MailOp::Requeue] {
        let mut group = Group::new(SHARD);
        assert_eq!(group.one(settle_mail(1, op)), not_next(None), "no mailbox");
        group.batch(&[send(1), send(2)]);
        let before = group.rows.clone();
        for other in [2, 9] {
            assert_eq!(group.one(settle_mail(other, op)), not_next(Some(1)), "{op:?}");
            assert!(group.effects.is_empty());
        }
        let mailboxes = |rows: &Map| rows.0.iter().filter(|(key, _)| key[4] >= 29).count();
        assert_eq!(mailboxes(&before), mailboxes(&group.rows));
        group.batch(&[ack(1), ack(2)]);
        assert_eq!(group.one(settle_mail(1, op)), not_next(None), "an empty one");
    }
}

#[test]
fn a_requeued_mail_is_behind_all_others_until_it_is_dead() {
    let mut group = with_mail([1, 2, 3]);
    assert_eq!(group.one(requeue(1)), settled(3, false));
    assert_eq!(group.effects, [ready(3)], "it has not ended");
    assert_eq!(queued(&group, 2), [2, 3, 1]);
    group.one(send(4));
    group.batch(&[ack(2), ack(3)]);
    assert_eq!(queued(&group, 1), [1, 4]);
    group.one(requeue(1));
    assert_eq!(queued(&group, 9), [4, 1]);
    group.one(ack(4));
    assert_eq!(info(&group, 1).unwrap().requeues, 2);
    assert_eq!(group.one(requeue(1)), settled(0, false), "the third time is too often");
    assert_eq!(group.effects, [finished(1, Noted::Dead, 3)]);
    assert_eq!((dead(&group), queued(&group, 9), done(&group)), (vec![1], vec![], vec![2, 3, 4]));
    assert_eq!(
        history(&group, 1),
        [Noted::Queued, Noted::Requeued, Noted::Requeued, Noted::Requeued, Noted::Dead]
    );
    let boxes = group.machine.mailboxes();
    let whole = boxes.payload(&group.rows, TENANT, &device(), 1).unwrap().unwrap();
    assert_eq!(&whole.payload[..], b"1", "the dead are kept whole");
    assert_eq!(boxes.payload(&group.rows, TENANT, &device(), 2).unwrap(), None);
    assert_eq!(boxes.counts(TENANT).dead, 1);
}

#[test]
fn the_only_mail_is_at_the_front_again_and_never_dies_without_a_limit() {
    let mut group = Group::new(SHARD);
    group.one(send_with(1, |send| send.mail.requeues_max = u16::MAX));
    for _ in 0..40 {
        assert_eq!(group.one(requeue(1)), settled(1, false));
        assert_eq!(group.effects, [ready(1)]);
    }
    let known = info(&group, 1).unwrap();
    assert_eq!((known.requeues, known.notes.len()), (40, MAIL_NOTES_MAX));
    assert_eq!(known.notes_dropped as usize, 41 - MAIL_NOTES_MAX);
    assert_eq!(known.notes[0].what, Noted::Queued, "the first is kept");
    group.one(send_with(2, |send| send.mail.requeues_max = 0));
    group.batch(&[ack(1), requeue(2)]);
    assert_eq!(dead(&group), [2]);
}

#[test]
fn what_no_mailbox_takes_is_refused() {
    let long = |bytes: usize| Text::from("x".repeat(bytes).as_str());
    #[rustfmt::skip]
    let table = [
        (send_with(1, |send| send.device = long(0)),                             Refused::Malformed),
        (send_with(1, |send| send.device = long(MAIL_DEVICE_BYTES_MAX + 1)),     Refused::Malformed),
        (send_with(1, |send| send.mail.name = long(0)),                          Refused::Malformed),
        (send_with(1, |send| send.mail.name = long(MAIL_NAME_BYTES_MAX + 1)),    Refused::Malformed),
        (send_with(1, |send| send.mail.payload = vec![0; MAIL_PAYLOAD_BYTES_MAX + 1].into()),
                                                                     Refused::Mail(MailRefused::TooLarge)),
        (send_with(1, |send| send.limits.items = 0),                 Refused::Mail(MailRefused::Full)),
        (send_with(1, |send| send.limits.bytes = 1),                 Refused::Mail(MailRefused::Full)),
    ];
    let mut group = Group::new(SHARD);
    for (command, why) in table {
        assert_eq!(group.one(command), Answer::Refused(why));
        assert_eq!(group.rows.count(KIND_MAILBOX), 0, "nothing changed");
    }
    let whole = [
        send_with(1, |send| send.device = long(MAIL_DEVICE_BYTES_MAX)),
        send_with(1, |send| send.mail.name = long(MAIL_NAME_BYTES_MAX)),
        send_with(2, |send| send.mail.payload = vec![0; MAIL_PAYLOAD_BYTES_MAX].into()),
        send_with(3, |send| send.limits.items = 3),
    ];
    for command in whole {
        let answer = group.one(command);
        assert!(matches!(answer, Answer::Mail(MailAnswer::Mailed { .. })), "{answer:?}");
    }
    let detail = long(MAIL_DETAIL_BYTES_MAX + 1);
    let settle = SettleMail {
        tenant: TENANT,
        device: device(),
        id: 1,
        op: MailOp::Ack,
        by: 0,
        detail: detail.clone(),
    };
    let note = NoteDelivered { tenant: TENANT, device: device(), id: 1, by: 0, detail };
    for command in [MailCommand::Settle(settle), MailCommand::NoteDelivered(note)] {
        assert_eq!(group.one(Command::Mail(command)), Answer::Refused(Refused::Malformed));
    }
    let mut meta = Group::new(moorline_core::ShardId::META);
    assert!(matches!(meta.one(send(1)), Answer::Refused(Refused::WrongGroup { .. })));
}

#[test]
fn a_full_mailbox_refuses_and_a_lower_limit_takes_nothing_away() {
    let mut group = with_mail([1, 2]);
    let two = |id| send_with(id, |send| send.limits.items = 2);
    assert_eq!(group.one(two(3)), refused(MailRefused::Full));
    assert_eq!(group.one(two(2)), mailed(2, false, true), "a repeat needs no room");
    let bytes = |id, bytes| send_with(id, |send| send.limits.bytes = bytes);
    assert_eq!(group.one(bytes(3, 5)), refused(MailRefused::Full), "two bytes each");
    assert_eq!(group.one(bytes(3, 6)), mailed(3, false, false));
    assert_eq!(group.one(send_with(4, |send| send.limits.items = 1)), refused(MailRefused::Full));
    assert_eq!(queued(&group, 9), [1, 2, 3]);
    let counts = group.machine.mailboxes().counts(TENANT);
    assert_eq!((counts.mailboxes, counts.mails, counts.bytes, counts.dead), (1, 3, 6, 0));
}

#[test]
fn no_command_can_ask_for_more_than_the_machine_allows() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    for first in (0..MAILBOX_ITEMS_MAX).step_by(1_000) {
        let last = (first + 1_000).min(MAILBOX_ITEMS_MAX);
        let all: Vec<_> = (first..last).map(|id| send(u128::from(id))).collect();
        group.batch(&all);
    }
    assert_eq!(group.machine.mailboxes().size(TENANT, &device()), MAILBOX_ITEMS_MAX);
    assert_eq!(group.one(send(u128::MAX)), refused(MailRefused::Full));
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let large = Bytes::from(vec![0; MAIL_PAYLOAD_BYTES_MAX]);
    let fitting = MAILBOX_BYTES_MAX / (MAIL_PAYLOAD_BYTES_MAX as u64 + 1);
    for id in 0..=u128::from(fitting) {
        let answer = group.one(send_with(id, |send| send.mail.payload = large.clone()));
        let full = id == u128::from(fitting);
        assert_eq!(answer == refused(MailRefused::Full), full, "{id}");
    }
}

#[test]
fn an_id_that_is_known_is_a_repeat_wherever_its_mail_is() {
    let mut group = with_mail([1, 2, 3]);
    let other = send_with(1, |send| send.mail.payload = Bytes::from_static(b"another"));
    assert_eq!(group.one(other.clone()), mailed(3, true, true));
    assert!(group.effects.is_empty());
    group.one(ack(1));
    assert_eq!(group.one(other), mailed(2, false, true), "it ended");
    group.batch(&[requeue(2), requeue(3), requeue(2), requeue(3), requeue(2)]);
    assert_eq!(dead(&group), [2]);
    group.reopen();
    assert_eq!(group.one(send(2)), mailed(1, false, true), "it is dead");
    assert_eq!(group.one(send(3)), mailed(1, true, true));
    assert_eq!(queued(&group, 9), [3]);
}

#[test]
fn a_settlement_whose_answer_was_lost_can_be_repeated() {
    for op in [MailOp::Ack, MailOp::Reject, MailOp::Requeue] {
        let mut group = with_mail([1, 2]);
        let size = if op == MailOp::Requeue { 2 } else { 1 };
        assert_eq!(group.one(settle_mail(1, op)), settled(size, false));
        let before = group.rows.count(KIND_ENDED);
        group.reopen();
        assert_eq!(group.one(settle_mail(1, op)), settled(size, true), "{op:?}");
        assert!(group.effects.is_empty() && group.rows.count(KIND_ENDED) == before);
        for another in [MailOp::Ack, MailOp::Reject, MailOp::Requeue] {
            if another != op {
                assert_eq!(group.one(settle_mail(1, another)), not_next(Some(2)));
            }
        }
        // Only the last one: after it, nobody can still wait for the answer.
        group.one(ack(2));
        if op != MailOp::Requeue {
            assert_eq!(group.one(settle_mail(1, op)), not_next(None));
            assert_eq!(group.one(ack(2)), settled(0, true));
        }
    }
}

#[test]
fn a_mail_expires_by_log_time_wherever_it_is() {
    let mut group = Group::new(SHARD);
    group.batch(&[expiring(1, 1_000), send(2), expiring(3, 500), expiring(4, 1_000), send(5)]);
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(group.now + 500)));
    tick(&mut group, 499);
    assert_eq!(queued(&group, 9), [1, 2, 3, 4, 5]);
    tick(&mut group, 1);
    let expired = finished_after(500, 3, Noted::Expired, 0);
    assert_eq!(group.effects, [expired], "in the middle: the front stays");
    assert_eq!(queued(&group, 9), [1, 2, 4, 5]);
    group.reopen();
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(group.now + 500)));
    group.now += 500;
    assert_eq!(front(&group), Some((1, 4)), "until somebody ticks");
    tick(&mut group, 0);
    let expired = |id| finished_after(1_000, id, Noted::Expired, 0);
    assert_eq!(
        group.effects,
        [expired(1), expired(4), ready(2)],
        "at the front: the next one is ready"
    );
    assert_eq!(queued(&group, 9), [2, 5]);
    assert_eq!((done(&group), group.rows.count(KIND_EXPIRY)), (vec![3, 1, 4], 0));
    assert_eq!(history(&group, 1), [Noted::Queued, Noted::Expired]);
    assert_eq!(group.machine.next_deadline().filter(|at| at.0 <= group.now), None);
}

#[test]
fn what_is_settled_or_requeued_takes_its_expiry_along() {
    let mut group = Group::new(SHARD);
    group.batch(&[expiring(1, 100), expiring(2, 300), expiring(3, 200), expiring(4, 0)]);
    group.batch(&[requeue(1), ack(2)]);
    assert_eq!((queued(&group, 9), group.rows.count(KIND_EXPIRY)), (vec![3, 4, 1], 3));
    tick(&mut group, 0);
    assert_eq!(queued(&group, 9), [3, 1], "a lifetime of 0 is over by the next tick");
    tick(&mut group, 100);
    assert_eq!(queued(&group, 9), [3]);
    group.one(cancel(3));
    assert_eq!(group.rows.count(KIND_EXPIRY), 0);
    tick(&mut group, 1_000);
    assert_eq!(done(&group), [2, 4, 1, 3]);
}

#[test]
fn a_tick_ends_so_much_mail_and_no_more() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let all: Vec<_> = (0..MAIL_PER_TICK_MAX as u128 + 5).map(|id| expiring(id, 9)).collect();
    group.batch(&all);
    tick(&mut group, 9);
    assert_eq!(queued(&group, 99).len(), 5);
    assert_eq!(group.effects.last(), Some(&ready(5)));
    assert!(group.machine.next_deadline().is_some_and(|at| at.0 <= group.now), "there is more");
    group.unchecked = false;
    tick(&mut group, 0);
    assert_eq!(front(&group), None);
    assert_eq!(done(&group).len() as u64, MAIL_DONE_KEPT);
}

#[test]
fn a_mail_is_taken_back_wherever_it_is() {
    let mut group = with_mail([1, 2, 3, 4]);
    assert_eq!(group.one(cancel(9)), refused(MailRefused::NoSuchMail));
    assert_eq!(group.one(cancel(2)), settled(3, false));
    assert_eq!(group.effects, [finished(2, Noted::Cancelled, 0)]);
    assert_eq!(group.one(cancel(2)), settled(3, true));
    assert_eq!(group.one(cancel(1)), settled(2, false));
    assert_eq!(group.effects, [finished(1, Noted::Cancelled, 0), ready(2)]);
    group.one(ack(3));
    assert_eq!(group.one(cancel(3)), refused(MailRefused::NoSuchMail), "it ended another way");
    group.batch(&[requeue(4), requeue(4), requeue(4)]);
    assert_eq!(dead(&group), [4]);
    assert_eq!(group.one(cancel(4)), settled(0, false));
    assert!(group.effects.is_empty(), "it was said when it died");
    assert_eq!((dead(&group), info(&group, 4)), (vec![], None));
    let mut empty = Group::new(SHARD);
    assert_eq!(empty.one(cancel(1)), refused(MailRefused::NoSuchMail));
}

#[test]
fn a_delivery_is_noted_and_changes_nothing_else() {
    let mut group = with_mail([1]);
    assert_eq!(group.one(delivered(9)), refused(MailRefused::NoSuchMail));
    assert_eq!(group.one(delivered(1)), Answer::Done);
    assert!(group.effects.is_empty());
    assert_eq!(history(&group, 1), [Noted::Queued, Noted::Delivered]);
    group.one(ack(1));
    for late in 1..=MAIL_NOTES_MAX {
        let by = 4 + u8::from(late % 2 == 0);
        assert_eq!(group.one(delivered_by(1, by)), Answer::Done, "a note may come late");
        let once = history(&group, 1);
        assert_eq!(group.one(delivered_by(1, by)), Answer::Done);
        assert_eq!(history(&group, 1), once, "the same note stands there");
        let (mail, notes) = (info(&group, 1).unwrap(), history(&group, 1));
        assert_eq!((mail.state, notes.last()), (Noted::Acked, Some(&Noted::Acked)), "{late}");
        assert_eq!(notes[0], Noted::Queued);
        assert!(notes.len() <= MAIL_NOTES_MAX && mail.notes.is_sorted_by_key(|note| note.at));
    }
    let mut empty = Group::new(SHARD);
    assert_eq!(empty.one(delivered(1)), refused(MailRefused::NoSuchMail));
}

#[test]
fn a_settlement_notes_the_delivery_before_it() {
    let mut group = with_mail([1, 2]);
    assert_eq!(group.one(ack_if(2, None, true)), not_next(Some(1)));
    assert_eq!(history(&group, 2), [Noted::Queued], "it was not settled");
    for _ in 0..2 {
        let repeat = front(&group).is_some_and(|(id, _)| id == 2);
        assert_eq!(group.one(ack_if(1, None, true)), settled(1, repeat));
        assert_eq!(history(&group, 1), [Noted::Queued, Noted::Delivered, Noted::Acked]);
    }
    let notes = info(&group, 1).unwrap().notes;
    let [_, delivered, acked] = &notes[..] else { panic!("{notes:?}") };
    assert_eq!((delivered.by, &delivered.detail), (3, &Text::default()));
    assert_eq!((acked.by, &acked.detail), (3, &"why".into()));
    assert_eq!(group.one(ack_if(2, None, false)), settled(0, false));
    assert_eq!(history(&group, 2), [Noted::Queued, Noted::Acked]);
}

#[test]
fn whom_an_earlier_version_of_the_row_let_in_gets_and_settles_nothing() {
    let mut group = Group::new(SHARD);
    let version = |answer: Answer| {
        let Answer::Device { version, .. } = answer else { panic!("{answer:?}") };
        Some(version)
    };
    let found = |group: &Group, if_version| {
        let query = Query::Front { tenant: TENANT, device: device(), if_version };
        let found = group.machine.query(&group.rows, &query).unwrap();
        if found == Found::Changed {
            return Some(0);
        }
        let Found::Front(front) = found else { panic!("{found:?}") };
        front.map(|(mail, _)| mail.id)
    };
    let gone = refused(MailRefused::DeviceChanged);
    group.one(send(1));
    assert_eq!((found(&group, Some(7)), found(&group, None)), (Some(0), Some(1)), "no device");
    assert_eq!(group.one(ack_if(1, Some(7), false)), gone);
    let first = version(group.one(put_plain("d")));
    assert_eq!(found(&group, first), Some(1));
    let second = version(group.one(put_plain("d")));
    assert_eq!((found(&group, first), found(&group, second)), (Some(0), Some(1)));
    assert_eq!(group.one(ack_if(1, first, true)), gone);
    assert_eq!(history(&group, 1), [Noted::Queued]);
    assert!(group.effects.is_empty());
    assert_eq!(group.one(ack_if(1, second, false)), settled(0, false));
    group.one(send(2));
    group.one(delete_plain("d"));
    assert_eq!(group.one(ack_if(2, second, false)), gone);
    assert_eq!(found(&group, second), Some(0));
}

#[test]
fn a_mailbox_is_purged_in_pieces() {
    let purged = |removed, more| Answer::Mail(MailAnswer::Purged { removed, more });
    let mut group = Group::new(SHARD);
    for dead in [false, true] {
        assert_eq!(group.one(purge(dead)), purged(0, false), "no mailbox");
    }
    group.unchecked = true;
    let all: Vec<_> = (0..u128::from(PURGED_PER_COMMAND_MAX) + 3).map(send).collect();
    group.batch(&all);
    group.unchecked = false;
    assert_eq!(group.one(purge(false)), purged(PURGED_PER_COMMAND_MAX, true));
    assert_eq!(group.effects.len() as u32, PURGED_PER_COMMAND_MAX + 1);
    assert_eq!(group.effects.last(), Some(&ready(3)));
    assert_eq!(group.one(purge(false)), purged(3, false));
    assert_eq!(group.one(purge(false)), purged(0, false));
    assert_eq!(info(&group, u128::from(PURGED_PER_COMMAND_MAX)).unwrap().state, Noted::Purged);
    assert_eq!(group.rows.count(KIND_MAIL), 0);
    assert_eq!(group.one(purge(true)), purged(0, false));
    for id in [9_001, 9_002, 9_003] {
        group.batch(&[send_with(id, |send| send.mail.requeues_max = 0), requeue(id)]);
    }
    assert_eq!(dead(&group), [9_001, 9_002, 9_003]);
    assert_eq!(group.one(purge(true)), purged(3, false));
    assert_eq!(group.rows.count(KIND_ENDED) as u64, MAIL_DONE_KEPT);
    assert_eq!((dead(&group), info(&group, 9_001)), (vec![], None));
}

#[test]
fn only_the_last_that_ended_or_died_are_remembered() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let done_max = u128::from(MAIL_DONE_KEPT) + 3;
    for id in 0..done_max {
        group.batch(&[send(id), ack(id)]);
    }
    let dead_max = u128::from(MAIL_DEAD_KEPT) + 2;
    for id in (0..dead_max).map(|id| id + 1_000) {
        group.batch(&[send_with(id, |send| send.mail.requeues_max = 0), requeue(id)]);
    }
    group.check();
    assert_eq!(done(&group), (3..done_max).collect::<Vec<_>>());
    assert_eq!(dead(&group), (1_002..1_000 + dead_max).collect::<Vec<_>>());
    assert_eq!(group.rows.count(KIND_CARD) as u64, MAIL_DONE_KEPT + MAIL_DEAD_KEPT);
    assert_eq!(group.machine.mailboxes().counts(TENANT).dead, MAIL_DEAD_KEPT);
    assert_eq!(group.one(send(2)), mailed(1, true, false), "its id is forgotten");
    let page = group.machine.mailboxes().done(&group.rows, TENANT, &device(), 3, 2).unwrap();
    assert_eq!(page.mails.iter().map(|mail| mail.id).collect::<Vec<_>>(), [3, 4]);
    assert!(page.more);
}

#[test]
fn mail_for_a_device_that_is_gone_is_refused_and_its_own_is_forgotten() {
    let of = |id, born| send_with(id, |send| send.born = Some(born));
    let mut group = Group::new(SHARD);
    group.batch(&[send(1), of(2, 5), send(3), of(4, 5)]);
    assert_eq!(queued(&group, 9), [1, 2, 3, 4], "who does not know means the one that is there");
    assert_eq!(group.one(of(5, 4)), refused(MailRefused::DeviceGone));
    let full = |send: &mut SendMail| (send.born, send.limits.items) = (Some(6), 0);
    assert_eq!(group.one(send_with(6, full)), refused(MailRefused::Full));
    assert_eq!(queued(&group, 9), [1, 2, 3, 4], "a refusal changes nothing");
    assert_eq!(group.one(of(1, 6)), mailed(1, true, false));
    assert_eq!(group.effects, [ready(1)]);
    assert_eq!((queued(&group, 9), info(&group, 2)), (vec![1], None));
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)), "rows are left to remove");
    group.reopen();
    tick(&mut group, 0);
    assert_eq!([KIND_MAIL, KIND_CARD, KIND_GARBAGE].map(|kind| group.rows.count(kind)), [1, 1, 0]);
    assert_eq!(front(&group), Some((1, 1)));
}

#[test]
fn a_long_mailbox_is_forgotten_in_pieces() {
    let of = |id: usize, born| send_with(id as u128, |send| send.born = Some(born));
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let many = MAIL_GARBAGE_ROWS_PER_TICK_MAX + 10;
    group.batch(&(0..many).map(|id| of(id, 1)).collect::<Vec<_>>());
    group.batch(&(0..20).flat_map(|id| [of(many + id, 1), ack(id as u128)]).collect::<Vec<_>>());
    group.one(of(7, 2));
    let rows = |group: &Group| group.rows.count(KIND_MAIL) + group.rows.count(KIND_CARD);
    let (mut ticks, before) = (0, rows(&group));
    assert!(before > 2 * MAIL_GARBAGE_ROWS_PER_TICK_MAX);
    while group.machine.next_deadline() == Some(UnixMillis(0)) {
        let before = rows(&group);
        tick(&mut group, 0);
        assert!(before - rows(&group) <= MAIL_GARBAGE_ROWS_PER_TICK_MAX);
        group.check();
        group.reopen();
        ticks += 1;
    }
    assert!((3..6).contains(&ticks), "{ticks}");
    assert_eq!([KIND_MAIL, KIND_CARD, KIND_ENDED].map(|kind| group.rows.count(kind)), [1, 1, 0]);
    assert_eq!(front(&group), Some((7, 1)));
}

#[test]
fn tenants_and_devices_never_meet() {
    let mut group = Group::new(SHARD);
    let for_other = send_with(1, |send| send.tenant = TenantId(8));
    let for_longer = send_with(1, |send| send.device = "dd".into());
    group.batch(&[for_other, for_longer, send(2)]);
    assert_eq!(front(&group), Some((2, 1)));
    let boxes = group.machine.mailboxes();
    assert_eq!(boxes.size(TenantId(8), &device()), 1);
    assert_eq!(boxes.counts(TENANT).mailboxes, 2);
    let tenants: Vec<_> = boxes.tenants().map(|(tenant, counts)| (tenant, counts.mails)).collect();
    assert_eq!(tenants, [(TENANT, 2), (TenantId(8), 1)]);
    let known = boxes.mailbox(&group.rows, TENANT, &device()).unwrap().unwrap();
    assert_eq!((known.size, known.bytes, known.front, known.finished), (1, 2, Some(2), 0));
    let waiting: Vec<_> = boxes.waiting().map(|(tenant, device, _)| (tenant, device)).collect();
    let longer = Text::from("dd");
    assert_eq!(waiting, [(TENANT, &device()), (TENANT, &longer), (TenantId(8), &device())]);
}

#[test]
fn a_settlement_changes_a_handful_of_rows() {
    let mut group = with_mail(0..150);
    for id in 0..120 {
        let before = group.rows.clone();
        group.one(ack(id));
        let touched = |rows: &Map, of: &Map| {
            let other = |(key, row): &(&Bytes, &Bytes)| of.0.get(*key) != Some(*row);
            rows.0.iter().filter(|entry| entry.0[4] >= 29).filter(other).count()
        };
        let (written, removed) = (touched(&group.rows, &before), touched(&before, &group.rows));
        assert!(written <= 3 && removed <= 5, "{written} {removed}");
    }
}
