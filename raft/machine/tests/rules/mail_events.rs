//! What happens to mail is an event, once, in the step in which it happens.

use moorline_machine::{
    Answer, Command, MailAnswer, MailCommand, MailRefused, Refused,
    events::{EventKind, NEWS, Retention},
    mail::{MailNews, MailOp, SendMail},
};

use crate::{devices, events, harness::*, mail};

const KEEP_ALL: Retention = Retention { keep_s: u32::MAX, bytes_max: u64::MAX };

fn group() -> (Group, u64) {
    let mut group = Group::new(SHARD);
    let answer = group.one(devices::put_plain("d"));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    (group, born)
}

fn send(id: u128, born: u64) -> SendMail {
    SendMail { born: Some(born), ..mail::send_mail(id) }
}

fn known(send: SendMail) -> Command {
    Command::Mail(MailCommand::SendKnown(send, Some(KEEP_ALL)))
}

/// What was said of mail, in order: `1 queued`.
fn said(group: &Group) -> Vec<String> {
    let page = events::page(group, TENANT, 0, 10_000);
    page.events
        .into_iter()
        .map(|event| {
            let what = event.event;
            assert_eq!((what.kind, what.content_type), (EventKind::Mail, NEWS));
            assert_eq!(event.device.as_str(), "d");
            let MailNews { id, .. } = MailNews::decode(what.body).unwrap();
            format!("{id} {}", what.channel)
        })
        .collect()
}

#[test]
fn every_change_of_a_mail_is_one_event() {
    let (mut group, born) = group();
    for id in 1..=7 {
        group.one(known(send(id, born)));
    }
    group.one(known(send(1, born)));
    group.one(mail::delivered(1));
    group.one(mail::settle_mail(1, MailOp::Ack));
    group.one(mail::settle_mail(1, MailOp::Ack));
    group.one(mail::settle_mail(2, MailOp::Reject));
    group.one(mail::settle_mail(3, MailOp::Requeue));
    group.one(mail::cancel(5));
    group.one(mail::cancel(5));
    group.one(mail::settle_mail(4, MailOp::Ack));
    for id in [6, 7, 3] {
        group.one(mail::settle_mail(id, MailOp::Requeue));
    }
    for id in [6, 7, 3] {
        group.one(mail::settle_mail(id, MailOp::Requeue));
    }
    group.one(mail::purge(false));
    group.one(mail::purge(true));
    #[rustfmt::skip]
    assert_eq!(said(&group), [
        "1 queued", "2 queued", "3 queued", "4 queued", "5 queued", "6 queued", "7 queued",
        "1 delivered", "1 acked", "2 rejected", "3 requeued", "5 cancelled", "4 acked",
        "6 requeued", "7 requeued", "3 requeued", "6 requeued", "7 requeued", "3 dead",
        "6 purged", "7 purged", "3 purged",
    ]);
}

#[test]
fn mail_that_expires_says_so_and_the_device_s_end_says_nothing() {
    let (mut group, born) = group();
    let mut expiring = send(1, born);
    expiring.mail.ttl_ms = Some(1_000);
    group.one(known(expiring));
    group.now += 1_000;
    group.one(Command::Tick);
    group.one(known(send(2, born)));
    group.one(devices::delete_plain("d"));
    assert_eq!(said(&group), ["1 queued", "1 expired", "2 queued"]);
}

#[test]
fn a_tenant_that_wants_no_events_of_mail_has_none_from_its_next_mail_on() {
    let (mut group, born) = group();
    group.one(known(send(1, born)));
    group.one(Command::Mail(MailCommand::SendKnown(send(2, born), None)));
    group.one(mail::settle_mail(1, MailOp::Ack));
    assert_eq!(said(&group), ["1 queued"]);
    group.one(known(send(3, born)));
    group.one(mail::settle_mail(2, MailOp::Ack));
    assert_eq!(said(&group), ["1 queued", "3 queued", "2 acked"]);
}

#[test]
fn mail_for_a_device_that_is_gone_is_refused() {
    let (mut group, born) = group();
    let gone = Answer::Refused(Refused::Mail(MailRefused::DeviceGone));
    group.one(devices::delete_plain("d"));
    assert_eq!(group.one(known(send(1, born))), gone);
    let Answer::Device { born: second, .. } = group.one(devices::put_plain("d")) else { panic!() };
    assert_eq!(group.one(known(send(1, born))), gone, "of the one before");
    assert_eq!(group.one(known(SendMail { born: None, ..send(1, second) })), gone);
    let first = Answer::Mail(MailAnswer::Mailed { size: 1, front: true, repeat: false });
    assert_eq!(group.one(known(send(1, second))), first);
}
