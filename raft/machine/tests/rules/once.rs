//! QoS 2: a publish counts once, however often it comes; a delivery that has arrived never goes out again.

use moorline_core::{Epoch, Message, Offset, QoS};
use moorline_machine::{
    Answer, Command, NUMBERS_SPAN_MAX, ORIGIN_IDLE_MS_MAX, ORIGINS_MAX,
    answer::Refused,
    command::{Origin, SessionId},
};

use crate::harness::*;

const KIND_INBOUND: u8 = 16;
const KIND_ORIGIN: u8 = 17;
/// A publisher's session in another shard.
const FAR: SessionId = SessionId { bucket: 9, number: 77 };

fn receive(session: SessionId, epoch: Epoch, packet: u16) -> Command {
    Command::Receive { session, epoch, packet }
}

fn complete(session: SessionId, epoch: Epoch, packets: &[u16]) -> Command {
    Command::Complete { session, epoch, packets: packets.to_vec() }
}

fn once(number: u64, floor: u64, payload: &[u8]) -> Command {
    let origin = Origin { session: FAR, number, floor };
    let message = message("t", QoS::ExactlyOnce, payload);
    Command::PublishOnce { tenant: TENANT, origin, message }
}

fn received(number: u64, floor: u64) -> Answer {
    Answer::Received { number, floor }
}

fn payloads(group: &Group, session: SessionId) -> Vec<Vec<u8>> {
    group.queue(session).into_iter().map(|(_, payload)| payload).collect()
}

/// A durable session that takes QoS 2.
fn subscriber(group: &mut Group, client: &str, conn: u64) -> SessionId {
    let (session, epoch) = group.open(client, conn, 3600);
    group.one(subscribe(session, epoch, &[("t", QoS::ExactlyOnce)]));
    session
}

#[test]
fn a_packet_id_keeps_its_number_until_it_is_completed() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("p", 1, 3600);
    assert_eq!(group.one(receive(session, epoch, 7)), received(1, 1));
    assert_eq!(group.one(receive(session, epoch, 8)), received(2, 1));
    assert_eq!(group.one(receive(session, epoch, 7)), received(1, 1), "sent again");
    group.reopen();
    assert_eq!(group.one(receive(session, epoch, 8)), received(2, 1), "after a restart");
    let known = |known: &[bool]| Answer::Completed { known: known.to_vec() };
    assert_eq!(group.one(complete(session, epoch, &[7, 99])), known(&[true, false]));
    assert_eq!(group.one(receive(session, epoch, 7)), received(3, 2), "another publish");
    assert_eq!(group.one(complete(session, epoch, &[7, 8])), known(&[true, true]));
    assert_eq!(group.rows.count(KIND_INBOUND), 0);
    group.reopen();
    assert_eq!(group.one(receive(session, epoch, 7)), received(4, 4), "numbers never come again");
}

#[test]
fn a_session_taken_over_goes_on_and_one_that_ends_leaves_nothing() {
    let mut group = Group::new(SHARD);
    let (session, old) = group.open("p", 1, 3600);
    group.one(receive(session, old, 7));
    let (_, epoch) = group.open("p", 2, 3600);
    for command in [receive(session, old, 7), complete(session, old, &[7])] {
        assert_eq!(group.one(command), Answer::Refused(Refused::NotYours));
    }
    assert_eq!(group.one(receive(session, epoch, 7)), received(1, 1));
    group.one(open("p", 3, true, 0));
    assert_eq!(group.rows.count(KIND_INBOUND), 0);
}

#[test]
fn a_publish_counts_once_whatever_comes_between() {
    let mut group = Group::new(SHARD);
    let session = subscriber(&mut group, "s", 1);
    let answers = group.batch(&[once(1, 1, b"a"), once(2, 1, b"b"), once(1, 1, b"a")]);
    assert_eq!(answers, vec![Answer::Published { sessions: 1 }; 3]);
    group.reopen();
    group.batch(&[once(2, 1, b"b"), once(4, 2, b"d"), once(3, 2, b"c"), once(4, 3, b"d")]);
    // Completed by its publisher long ago: a straggler.
    group.one(once(1, 1, b"a"));
    group.one(once(2, 1, b"b"));
    assert_eq!(payloads(&group, session), [b"a", b"b", b"d", b"c"]);
    assert_eq!(group.rows.count(KIND_ORIGIN), 1);
}

#[test]
fn what_nobody_could_take_may_be_asked_again() {
    let mut group = Group::new(SHARD);
    let session = subscriber(&mut group, "s", 1);
    let piece: Vec<_> = (0..10_000).map(|_| publish("t", b"")).collect();
    for _ in 0..moorline_machine::SESSION_QUEUE_ITEMS_MAX / 10_000 {
        group.batch(&piece);
    }
    assert_eq!(group.one(once(1, 1, b"a")), Answer::Refused(Refused::QueueFull));
    let answers = group.batch(&[settle(session, 1, &[]), once(1, 1, b"a"), once(1, 1, b"a")]);
    assert_eq!(
        answers[1..],
        [Answer::Published { sessions: 1 }, Answer::Published { sessions: 1 }]
    );
    assert_eq!(payloads(&group, session).iter().filter(|payload| *payload == b"a").count(), 1);
}

#[test]
fn an_origin_that_is_silent_for_long_is_forgotten() {
    let mut group = Group::new(SHARD);
    group.one(once(1, 1, b"a"));
    let due = group.now + ORIGIN_IDLE_MS_MAX;
    group.now = due - 1;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_ORIGIN), 1);
    group.now = due;
    group.one(Command::Tick);
    assert_eq!(group.rows.count(KIND_ORIGIN), 0);
    group.reopen();
}

#[test]
fn what_has_arrived_is_only_released() {
    let mut group = Group::new(SHARD);
    let session = subscriber(&mut group, "s", 1);
    let other = subscriber(&mut group, "o", 2);
    // Small ones lie in the queues, large ones in a row that both share.
    group.batch(&[once(1, 1, b"small"), once(2, 1, &[7; 1000])]);
    let release = |offsets: &[u64]| Command::Release {
        session,
        epoch: None,
        offsets: offsets.iter().copied().map(Offset).collect(),
    };
    assert_eq!(group.one(release(&[1, 2, 99])), Answer::Done);
    assert_eq!(group.one(release(&[2])), Answer::Done, "again");
    group.reopen();
    let queue = group.machine.queue_read(&group.rows, session, Offset(1), 9, 9999).unwrap();
    assert!(
        queue.iter().all(|delivery| delivery.released && *delivery.message == Message::empty())
    );
    assert_eq!(queue.len(), 2, "in order still, until the client has completed them");
    let info = group.machine.session(session).unwrap();
    assert_eq!((info.queued_items, info.queued_bytes), (2, 0));
    assert_eq!(payloads(&group, other), [b"small".to_vec(), vec![7; 1000]], "others have theirs");
    group.batch(&[settle(session, 2, &[]), settle(other, 2, &[])]);
    assert!(group.queue(session).is_empty() && group.rows.count(KIND_MESSAGE) == 0);
}

#[test]
fn who_has_lost_the_session_releases_nothing() {
    let mut group = Group::new(SHARD);
    let session = subscriber(&mut group, "s", 1);
    group.one(once(1, 1, b"x"));
    let epoch = group.machine.session(session).unwrap().epoch;
    let release = |epoch: u64| Command::Release {
        session,
        epoch: Some(Epoch(epoch)),
        offsets: vec![Offset(1)],
    };
    // Its client would forget the packet id, and the owner of now has sent the message under it again.
    assert_eq!(group.one(release(epoch.0 - 1)), Answer::Refused(Refused::NotYours));
    assert_eq!(payloads(&group, session), [b"x"]);
    assert_eq!(group.one(release(epoch.0)), Answer::Done);
    assert_eq!(payloads(&group, session), [b""]);
}

#[test]
fn only_qos_2_is_released() {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("s", 1, "t");
    group.one(publish("t", b"x"));
    group.one(Command::Release { session, epoch: None, offsets: vec![Offset(1)] });
    assert_eq!(payloads(&group, session), [b"x"]);
}

#[test]
fn a_publish_that_is_never_released_takes_a_bounded_row_and_stops_its_client_in_the_end() {
    let mut group = Group::new(SHARD);
    let (session, epoch) = group.open("p", 1, 3600);
    assert_eq!(group.one(receive(session, epoch, 1)), received(1, 1));
    let others: Vec<_> = (0..8_192)
        .flat_map(|_| [receive(session, epoch, 2), complete(session, epoch, &[2])])
        .collect();
    for _ in 0..7 {
        group.batch(&others);
    }
    group.batch(&others[4..]);
    assert_eq!(group.one(receive(session, epoch, 2)), received(NUMBERS_SPAN_MAX, 1));
    let refused = Answer::Refused(Refused::TooFarAhead);
    assert_eq!(group.one(receive(session, epoch, 3)), refused);
    assert_eq!(group.one(receive(session, epoch, 2)), received(NUMBERS_SPAN_MAX, 1), "a repeat");
    group.reopen();
    assert_eq!(group.one(receive(session, epoch, 3)), refused);
    group.one(complete(session, epoch, &[1]));
    let next = NUMBERS_SPAN_MAX + 1;
    assert_eq!(group.one(receive(session, epoch, 3)), received(next, next - 1));
}

#[test]
fn what_a_shard_remembers_of_one_publisher_is_bounded() {
    let mut group = Group::new(SHARD);
    let numbers: Vec<u64> = (1..=NUMBERS_SPAN_MAX).collect();
    for piece in numbers.chunks(8_192) {
        let commands: Vec<_> = piece.iter().map(|number| once(*number, 1, b"x")).collect();
        group.batch(&commands);
    }
    let row = group.rows.0.iter().find(|(key, _)| key[4] == KIND_ORIGIN).unwrap().1;
    assert!(row.len() <= 8 * 1024 + 64, "{}", row.len());
    let refused = Answer::Refused(Refused::TooFarAhead);
    assert_eq!(group.one(once(NUMBERS_SPAN_MAX + 1, 1, b"x")), refused);
    group.one(once(NUMBERS_SPAN_MAX + 1, 3, b"x"));
    assert_eq!(
        group.one(once(NUMBERS_SPAN_MAX + 1, 3, b"x")),
        Answer::Published { sessions: 1 },
        "a repeat"
    );
}

#[test]
fn the_publisher_that_was_silent_the_longest_is_forgotten_when_there_are_too_many() {
    let mut group = Group::new(SHARD);
    let from = |publisher: u64| {
        let session = SessionId { bucket: 9, number: publisher };
        let origin = Origin { session, number: 1, floor: 1 };
        let message = message("t", QoS::ExactlyOnce, b"");
        Command::PublishOnce { tenant: TENANT, origin, message }
    };
    let publishers: Vec<u64> = (0..ORIGINS_MAX as u64).collect();
    for piece in publishers.chunks(12_500) {
        group.batch(&piece.iter().map(|publisher| from(*publisher)).collect::<Vec<_>>());
    }
    group.now += 1;
    group.one(from(0));
    group.one(from(ORIGINS_MAX as u64));
    assert_eq!(group.rows.count(KIND_ORIGIN), ORIGINS_MAX);
    let session = subscriber(&mut group, "s", 1);
    for publisher in [0, 1] {
        group.one(from(publisher));
    }
    assert_eq!(group.queue(session).len(), 1, "of 1, which was silent for longer than 0");
}
