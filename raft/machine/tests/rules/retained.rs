//! Retained messages: what is kept, for how long, and that a queue never gets an older one behind a newer one.

use moorline_core::{Epoch, Message, QoS, Text, UnixMillis};
use moorline_machine::{
    AWAIT_MS, AWAITED_TOPICS_MAX, Answer, Command, Effect, GARBAGE_ROWS_PER_TICK_MAX,
    RETAINED_PER_TENANT_MAX, Refused, RetainedQuery,
    command::{Enqueued, Origin, SessionId},
};

use crate::harness::*;

const KIND_RETAINED: u8 = 20;
const KIND_AWAITED: u8 = 21;

fn kept(topic: &str, payload: &[u8]) -> Message {
    Message { retain: true, ..message(topic, QoS::AtLeastOnce, payload) }
}

fn retain(topic: &str, payload: &[u8]) -> Command {
    Command::Retain { tenant: TENANT, owner: None, origin: None, message: kept(topic, payload) }
}

/// What is retained for a filter, page by page.
fn read(group: &Group, filter: &str, items_max: usize) -> Vec<(String, Vec<u8>)> {
    let filter = Text::from(filter);
    let mut found: Vec<Message> = Vec::new();
    loop {
        let after = found.last().map(|message| message.topic.clone());
        let query = RetainedQuery {
            tenant: TENANT,
            filter: &filter,
            after: after.as_ref(),
            now: UnixMillis(group.now),
            items_max,
            bytes_max: 10_000,
        };
        let page = group.machine.retained(&group.rows, &query).unwrap();
        found.extend(page.messages);
        if !page.more {
            break;
        }
    }
    assert!(found.iter().all(|message| message.retain));
    let pair = |message: Message| (message.topic.as_str().to_owned(), message.payload.to_vec());
    found.into_iter().map(pair).collect()
}

fn topics(group: &Group, filter: &str) -> Vec<String> {
    let found = read(group, filter, 2);
    assert_eq!(found, read(group, filter, usize::MAX), "{filter}: the same in any pieces");
    found.into_iter().map(|(topic, _)| topic).collect()
}

#[test]
fn the_last_message_of_a_topic_is_kept_and_an_empty_one_removes_it() {
    let mut group = Group::new(SHARD);
    group.batch(&[retain("t", b"1"), retain("t", b"2"), retain("u", b"3")]);
    group.reopen();
    assert_eq!(read(&group, "t", 9), [("t".to_owned(), b"2".to_vec())]);
    let counts = group.machine.counts();
    assert_eq!((counts.retained, group.rows.count(KIND_RETAINED)), (2, 2));
    assert_eq!(group.one(retain("t", b"")), Answer::Done);
    assert_eq!(group.one(retain("nothing there", b"")), Answer::Done);
    assert!(read(&group, "t", 9).is_empty(), "and the empty one is not kept");
    group.one(retain("u", b""));
    let counts = group.machine.counts();
    assert_eq!((counts.retained, counts.retained_bytes), (0, 0));
    assert_eq!(group.rows.count(KIND_RETAINED), 0);
}

#[test]
fn a_publish_alone_keeps_nothing() {
    let mut group = Group::new(SHARD);
    group.one(retain("t", b"kept"));
    group.one(publish("t", b"passes"));
    assert_eq!(read(&group, "t", 9), [("t".to_owned(), b"kept".to_vec())]);
}

#[test]
fn a_filter_finds_its_topics_in_order() {
    let mut group = Group::new(SHARD);
    let all = ["$sys/a", "/", "/a", "a", "a b", "a/", "a/b", "a/b/c", "ab", "b/b"];
    for topic in all.iter().rev() {
        group.one(retain(topic, b"x"));
    }
    for filter in
        ["#", "+", "+/+", "a", "a/#", "a/+", "a/b", "a/b/#", "+/b", "+/b/#", "/#", "$sys/#", "c/#"]
    {
        let expected: Vec<_> = all
            .into_iter()
            .filter(|topic| moorline_core::topic::matches(filter.as_bytes(), topic.as_bytes()))
            .collect();
        assert_eq!(topics(&group, filter), expected, "{filter}");
    }
}

#[test]
fn what_has_expired_is_not_given_and_goes() {
    let mut group = Group::new(SHARD);
    let expiring = |topic, in_ms| {
        let message = Message { expires_at: Some(UnixMillis(in_ms)), ..kept(topic, b"x") };
        Command::Retain { tenant: TENANT, owner: None, origin: None, message }
    };
    group.batch(&[retain("gone", b"x"), expiring("gone", 0), expiring("t", 500), retain("u", b"")]);
    assert_eq!(topics(&group, "#"), ["t"], "a lifetime of 0 is over at once");
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(group.now + 500)));
    group.now += 500;
    assert!(topics(&group, "#").is_empty());
    assert_eq!(group.rows.count(KIND_RETAINED), 1);
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_RETAINED), 0);
    // A newer one without an end takes its place.
    group.batch(&[expiring("t", 500), retain("t", b"stays")]);
    group.now += 500;
    group.one(Command::Tick);
    assert_eq!(topics(&group, "#"), ["t"]);
}

#[test]
fn a_quota_refuses_new_topics_and_takes_new_values() {
    let mut group = Group::new(SHARD);
    for piece in (0..RETAINED_PER_TENANT_MAX).collect::<Vec<_>>().chunks(1_000) {
        let commands: Vec<_> = piece.iter().map(|n| retain(&format!("t/{n}"), b"x")).collect();
        assert!(group.batch(&commands).iter().all(|answer| *answer == Answer::Done));
    }
    assert_eq!(group.one(retain("more", b"x")), Answer::Refused(Refused::RetainedFull));
    assert!(group.effects.contains(&Effect::RetainedFull));
    assert_eq!(group.one(retain("t/7", b"y")), Answer::Done);
    group.batch(&[retain("t/7", b""), retain("more", b"x")]);
    assert_eq!(read(&group, "more", 9).len(), 1);
}

#[test]
fn with_an_origin_it_counts_once() {
    let mut group = Group::new(SHARD);
    let origin = Origin { session: SessionId { bucket: 3, number: 9 }, number: 4, floor: 1 };
    let message = kept("t", b"gone");
    let will = Command::Retain {
        tenant: TENANT,
        owner: None,
        origin: Some(origin),
        message: message.clone(),
    };
    let publish = Command::PublishOnce { tenant: TENANT, origin, message };
    let (session, _) = group.subscriber("s", 1, "t");
    group.batch(&[publish, will.clone()]);
    assert_eq!(group.queue(session).len(), 1, "publishing and keeping it are two things");
    group.one(retain("t", b"back"));
    group.reopen();
    group.one(will);
    assert_eq!(read(&group, "t", 9), [("t".to_owned(), b"back".to_vec())]);
}

fn enqueue(session: SessionId, epoch: Epoch, since: u64, copies: &[(&str, &[u8])]) -> Command {
    let copy = |(topic, payload): &(&str, &[u8])| Enqueued {
        qos: QoS::AtLeastOnce,
        ids: None.into(),
        message: kept(topic, payload),
    };
    Command::Enqueue { session, epoch, since, copies: copies.iter().map(copy).collect() }
}

fn publish_kept(topic: &str, payload: &[u8]) -> Command {
    Command::Publish { tenant: TENANT, from: None, message: kept(topic, payload) }
}

/// Subscribes, and says when that was.
fn subscribed(group: &mut Group, session: SessionId, epoch: Epoch, filter: &str) -> u64 {
    let answer = group.one(subscribe(session, epoch, &[(filter, QoS::AtLeastOnce)]));
    let Answer::Subscribed { at, .. } = answer else { panic!("{answer:?}") };
    at
}

#[test]
fn retained_copies_are_queued_but_not_behind_newer_ones() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("s", 1, 3600);
    let since = subscribed(&mut group, session, epoch, "#");
    group.batch(&[publish_kept("t", b"new"), publish("u", b"does not count")]);
    group.reopen();
    let copies: [(&str, &[u8]); 3] = [("t", b"old"), ("u", b"kept"), ("v", b"kept")];
    assert_eq!(group.one(enqueue(session, epoch, since, &copies)), Answer::Done);
    let queue = group.machine.queue_read(&group.rows, session, moorline_core::Offset(1), 9, 9999);
    let queue = queue.unwrap();
    let queued: Vec<_> =
        queue.iter().map(|delivery| (delivery.message.topic.as_str(), delivery.retain)).collect();
    assert_eq!(queued, [("t", false), ("u", false), ("u", true), ("v", true)]);
    assert_eq!(&queue[0].message.payload[..], b"new");

    // Whoever subscribes again gets it again: what came before does not count.
    let again = subscribed(&mut group, session, epoch, "#");
    group.one(enqueue(session, epoch, again, &[("t", b"new")]));
    assert_eq!(group.queue(session).len(), 5);
}

#[test]
fn copies_that_come_too_late_or_to_another_are_refused() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("s", 1, 3600);
    let copies: [(&str, &[u8]); 1] = [("t", b"x")];
    let late = Answer::Refused(Refused::TooLate);
    assert_eq!(group.one(enqueue(session, epoch, 0, &copies)), late, "nobody subscribed");
    let since = subscribed(&mut group, session, epoch, "t");
    group.one(publish_kept("t", b"y"));
    assert_eq!(group.rows.count(KIND_AWAITED), 2);
    let other = Answer::Refused(Refused::NotYours);
    assert_eq!(group.one(enqueue(session, Epoch(epoch.0 + 1), since, &copies)), other);
    group.now += AWAIT_MS;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_AWAITED), 0);
    assert_eq!(group.one(enqueue(session, epoch, since, &copies)), late);
    // Copies in time keep the notes alive; the end of the session ends them.
    let since = subscribed(&mut group, session, epoch, "t");
    group.now += AWAIT_MS - 1;
    assert_eq!(group.one(enqueue(session, epoch, since, &copies)), Answer::Done);
    group.now += AWAIT_MS - 1;
    group.one(Command::Tick);
    assert_eq!(group.one(enqueue(session, epoch, since, &copies)), Answer::Done);
    group.one(open("s", 2, true, 0));
    assert_eq!(group.rows.count(KIND_AWAITED), 0);
}

#[test]
fn a_shared_subscription_awaits_nothing() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("s", 1, 3600);
    subscribed(&mut group, session, epoch, "$share/g/t");
    assert_eq!(group.rows.count(KIND_AWAITED), 0);
    group.one(subscribe(
        session,
        epoch,
        &[("$share/g/t", QoS::AtLeastOnce), ("t", QoS::AtLeastOnce)],
    ));
    assert_eq!(group.rows.count(KIND_AWAITED), 1);
}

#[test]
fn copies_from_before_the_notes_began_are_refused() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("s", 1, 3600);
    let before = subscribed(&mut group, session, epoch, "#");
    group.now += AWAIT_MS;
    group.one(Command::Tick);
    // Nobody notes this one, and it is newer than what is on its way for the first SUBSCRIBE.
    group.one(publish_kept("t", b"new"));
    let since = subscribed(&mut group, session, epoch, "u");
    group.reopen();
    let late = Answer::Refused(Refused::TooLate);
    assert_eq!(group.one(enqueue(session, epoch, before, &[("t", b"old")])), late);
    assert_eq!(group.one(enqueue(session, epoch, since, &[("u", b"kept")])), Answer::Done);
    let again = subscribed(&mut group, session, epoch, "v");
    group.one(publish_kept("u", b"new"));
    for of in [since, again] {
        assert_eq!(group.one(enqueue(session, epoch, of, &[("u", b"old")])), Answer::Done);
    }
    let payloads: Vec<_> = group.queue(session).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [&b"new"[..], b"kept", b"new"]);
}

/// Notes so many topics for a session.
fn note_topics(group: &mut Group, many: usize) {
    for piece in (0..many).collect::<Vec<_>>().chunks(5_000) {
        let commands: Vec<_> =
            piece.iter().map(|number| publish_kept(&format!("t/{number}"), b"x")).collect();
        group.batch(&commands);
    }
}

#[test]
fn many_notes_are_removed_in_pieces() {
    let ends: [fn(&mut Group); 3] = [
        |group| group.now += AWAIT_MS,
        |group| _ = group.one(open("s", 2, true, 0)),
        |group| _ = group.one(publish_kept("one more", b"x")),
    ];
    for end in ends {
        let mut group = Group::new(SHARD);
        let (session, epoch) = group.open("s", 1, 3600);
        let since = subscribed(&mut group, session, epoch, "#");
        note_topics(&mut group, AWAITED_TOPICS_MAX);
        assert_eq!(group.rows.count(KIND_AWAITED), AWAITED_TOPICS_MAX + 1);
        end(&mut group);
        let mut left = group.rows.count(KIND_AWAITED);
        let mut ticks = 0;
        while left > 0 {
            assert!(group.machine.next_deadline().is_some_and(|at| at.0 <= group.now));
            group.one(Command::Tick);
            assert!(group.one(enqueue(session, epoch, since, &[])) != Answer::Done);
            let now = group.rows.count(KIND_AWAITED);
            assert!(left - now <= GARBAGE_ROWS_PER_TICK_MAX);
            group.reopen();
            (left, ticks) = (now, ticks + 1);
        }
        assert_eq!(ticks, 3);
    }
}

#[test]
fn a_session_that_awaits_again_is_noted_for_again() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("s", 1, 3600);
    subscribed(&mut group, session, epoch, "#");
    note_topics(&mut group, AWAITED_TOPICS_MAX);
    group.one(publish_kept("one more", b"x"));
    // Its notes are given up, and still there when it subscribes again.
    let since = subscribed(&mut group, session, epoch, "u");
    assert_eq!(group.rows.count(KIND_AWAITED), AWAITED_TOPICS_MAX + 1);
    group.one(publish_kept("t/7", b"new"));
    let count = group.queue(session).len();
    group.one(enqueue(session, epoch, since, &[("t/7", b"old"), ("t/8", b"kept")]));
    assert_eq!(group.queue(session).len(), count + 1);
}
