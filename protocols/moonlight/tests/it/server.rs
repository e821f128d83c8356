//! The cluster's side: who comes in, what is answered and when, and how a connection ends.

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Millis, Text,
    op::{Answer, Declined, Denial, Event, EventKind, Format, MailId, Op, Settlement},
    port::Refusal,
};
use moorline_moonlight::{
    DecodeError, Packet,
    codec::{PacketType, Pulse, PulseKind, Side},
    server::{
        ANSWER_DEADLINE_MS, AUTHENTICATE_DEADLINE_MS, Action, CONNECT_DEADLINE_MS, CloseReason,
        LINGER_MS, MAIL_OPS_IN_A_ROW_MAX, OUTPUT_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX,
        SILENCE_MAX_MS, STALL_MAX_MS, Server,
    },
};

use crate::support::{MAIL, START, bytes_of, connect, mail, unhex};

/// A server with its socket.
struct Peer {
    server: Server,
    now: Millis,
    input: BytesMut,
    output: BytesMut,
}

impl Peer {
    fn new() -> Self {
        let server = Server::new(START);
        Self { server, now: START, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Let in, without mail.
    fn open() -> Self {
        let mut peer = Self::new();
        peer.says(&Packet::Connect(Box::new(connect())));
        assert_eq!(peer.action(), Some(Action::Authenticate(Box::new(connect()))));
        peer.server.authenticated(peer.now, Ok(false));
        assert_eq!(peer.hears(), unhex("0301"));
        peer
    }

    fn says(&mut self, packet: &Packet) {
        self.input.extend_from_slice(&bytes_of(packet));
        self.server.receive(self.now, &mut self.input);
    }

    fn sends(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.server.receive(self.now, &mut self.input);
    }

    fn hears(&mut self) -> Vec<u8> {
        self.server.poll_transmit(self.now, &mut self.output);
        let heard = self.output.split().to_vec();
        self.server.poll_transmit(self.now, &mut self.output);
        self.server.receive(self.now, &mut self.input);
        heard
    }

    fn action(&mut self) -> Option<Action> {
        self.server.poll_action()
    }

    /// What is asked of the service now.
    fn asked(&mut self) -> (u64, Op) {
        match self.action() {
            Some(Action::Ask { token, op }) => (token, op),
            other => panic!("{other:?}"),
        }
    }

    /// Answers what is asked now.
    fn answers(&mut self, outcome: Result<Answer, Declined>) {
        let (token, _) = self.asked();
        self.server.answered(self.now, token, outcome);
        self.server.receive(self.now, &mut self.input);
    }

    fn passes(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
            self.server.timeout(self.now);
        }
    }
}

fn pulse(txn: u64, kind: PulseKind, payload: &[u8]) -> Packet {
    let payload = Bytes::copy_from_slice(payload);
    Packet::Pulse(Pulse { kind, txn, name: Text::from("env"), payload })
}

fn settled(size: u64) -> Result<Answer, Declined> {
    Ok(Answer::Settled { size })
}

fn fetched(size: u64) -> Result<Answer, Declined> {
    Ok(Answer::Mail { size, mail: (size > 0).then(|| mail("open", b"{\"gate\":1}")) })
}

fn ack(id: MailId) -> Packet {
    Packet::AckMail { id, settlement: Settlement::Ack }
}

const NEXT: Packet = Packet::MailboxNext { txn: 7, header_only: false };
const ACKED: &str = "018f4d1f2a557f0eb4ea5f7c3e6fa001 01";

#[test]
fn who_may_not_come_in_hears_why() {
    #[rustfmt::skip]
    let table = [
        (Denial::Malformed,                     "040001"),
        (Denial::UnknownTenant,                 "040002"),
        (Denial::UnknownDevice,                 "040003"),
        (Denial::WrongSecret,                   "040004"),
        (Denial::Disabled,                      "040005"),
        (Denial::Plaintext,                     "040000"),
        (Denial::Banned { retry_after_s: 900 }, "040006"),
        (Denial::Stopping,                      "050001"),
        (Denial::Unavailable,                   "050002"),
        (Denial::TooOften,                      "050003"),
    ];
    for (denial, hex) in table {
        let mut peer = Peer::new();
        peer.says(&Packet::Connect(Box::new(connect())));
        peer.action();
        peer.server.authenticated(peer.now, Err(denial));
        assert_eq!(peer.hears(), unhex(hex), "{denial}");
        assert_eq!(peer.action(), Some(Action::Close(CloseReason::Denied(denial))));
        assert!(peer.server.is_closed() && peer.action().is_none());

        let mut open = Peer::open();
        open.server.revoke(open.now, denial);
        assert_eq!(open.hears(), unhex(hex), "revoked: {denial}");
    }
}

#[test]
fn the_first_packet_is_connect_and_comes_once() {
    let mut version_2 = connect();
    version_2.version = 2;
    let close = "0101";
    let garbage = DecodeError::UnknownType(b'G').into();
    #[rustfmt::skip]
    let table: [(Vec<u8>, &str, CloseReason); 5] = [
        (unhex("0100"), close, CloseReason::Goodbye),
        (unhex("0800"), close, CloseReason::NotConnect(PacketType::Heartbeat)),
        (b"GET / HTTP/1.1".to_vec(), close, garbage),
        (unhex("0301"), close, DecodeError::WrongSide(PacketType::Connected).into()),
        (bytes_of(&Packet::Connect(Box::new(version_2))).to_vec(), "050000", CloseReason::Version(2)),
    ];
    for (bytes, answer, reason) in table {
        let mut peer = Peer::new();
        peer.sends(&bytes);
        assert_eq!((peer.hears(), peer.action()), (unhex(answer), Some(Action::Close(reason))));
    }
    let mut peer = Peer::open();
    peer.says(&Packet::Connect(Box::new(connect())));
    let expected = (unhex(close), Some(Action::Close(CloseReason::SecondConnect)));
    assert_eq!((peer.hears(), peer.action()), expected);
}

#[test]
fn answers_come_when_the_service_gave_them_and_not_before() {
    let declined = |declined: Declined| Err(declined);
    #[rustfmt::skip]
    let table: [(Packet, Result<Answer, Declined>, &str); 17] = [
        (Packet::Heartbeat, Ok(Answer::Done), "0901"),
        (Packet::Heartbeat, declined(Refusal::Unavailable.into()), "0900"),
        (pulse(7, PulseKind::Datapoint, b"{}"), Ok(Answer::Done), "0b01 0000000000000007"),
        (pulse(7, PulseKind::Message, b""), Ok(Answer::Done), "0b01 0000000000000007"),
        (pulse(7, PulseKind::System, b""), Ok(Answer::Done), "0b01 0000000000000007"),
        (pulse(7, PulseKind::Message, b"{"), declined(Declined::Unreadable("JSON")), "0b00 0000000000000007 01"),
        (pulse(7, PulseKind::Message, b""), declined(Declined::UnknownSchema), "0b00 0000000000000007 02"),
        (pulse(7, PulseKind::Message, b""), declined(Refusal::Quota.into()), "0b00 0000000000000007 00"),
        (NEXT, fetched(0), "1601 0000000000000007 0000"),
        (NEXT, fetched(3), "1601 0000000000000007 0003 018f4d1f2a557f0eb4ea5f7c3e6fa001 04 6f70656e 0000000a 7b2267617465223a317d"),
        (NEXT, fetched(70_000), "1601 0000000000000007 ffff 018f4d1f2a557f0eb4ea5f7c3e6fa001 04 6f70656e 0000000a 7b2267617465223a317d"),
        (NEXT, declined(Refusal::Busy.into()), "1600 0000000000000007 0000"),
        (Packet::MailboxNext { txn: 7, header_only: true }, fetched(3), "1603 0000000000000007 0003 018f4d1f2a557f0eb4ea5f7c3e6fa001 04 6f70656e"),
        (ack(MAIL), settled(2), "1a01 0002 018f4d1f2a557f0eb4ea5f7c3e6fa001 01"),
        (ack(MAIL), settled(65_536), "1a01 ffff 018f4d1f2a557f0eb4ea5f7c3e6fa001 01"),
        (ack(MAIL), declined(Declined::NotNextMail), "1a00 0000 018f4d1f2a557f0eb4ea5f7c3e6fa001 01"),
        (ack(MAIL), declined(Declined::UnknownMail), "1a00 0000 018f4d1f2a557f0eb4ea5f7c3e6fa001 01"),
    ];
    for (packet, outcome, hex) in table {
        let mut peer = Peer::open();
        peer.says(&packet);
        assert_eq!(peer.hears(), [0; 0], "{packet:?} before the answer");
        peer.answers(outcome);
        assert_eq!(peer.hears(), unhex(hex), "{packet:?}");
        assert_eq!(peer.server.unanswered(), 0);
    }
}

#[test]
fn a_pulse_becomes_an_event_in_the_connections_format() {
    let mut peer = Peer::open();
    let kinds = [
        (PulseKind::System, EventKind::System),
        (PulseKind::Datapoint, EventKind::Datapoint),
        (PulseKind::Message, EventKind::Message),
    ];
    for (kind, expected) in kinds {
        peer.says(&pulse(0, kind, b"{\"t\":1}"));
        let body = Bytes::from_static(b"{\"t\":1}");
        let event =
            Event { kind: expected, channel: Text::from("env"), format: Format::Json, body };
        assert_eq!(peer.asked().1, Op::Event(event));
    }
    peer.says(&pulse(9, PulseKind::Unknown, b""));
    assert_eq!((peer.action(), peer.hears()), (None, unhex("0b00 0000000000000009 00")));
}

#[test]
fn repeated_heartbeats_get_one_answer() {
    let mut peer = Peer::open();
    for _ in 0..3 {
        peer.says(&Packet::Heartbeat);
    }
    peer.answers(Ok(Answer::Done));
    assert_eq!((peer.action(), peer.hears()), (None, unhex("0901")));
    peer.says(&Packet::Heartbeat);
    peer.answers(Ok(Answer::Done));
    assert_eq!(peer.hears(), unhex("0901"));
}

#[test]
fn a_second_mail_op_waits_for_the_first() {
    let mut peer = Peer::open();
    peer.says(&NEXT);
    peer.says(&ack(MAIL));
    peer.says(&Packet::Heartbeat);
    let (token, op) = peer.asked();
    assert_eq!((op, peer.action()), (Op::FetchMail { header_only: false }, None));
    assert!(!peer.server.wants_read());
    peer.server.answered(peer.now, token, fetched(0));
    peer.server.receive(peer.now, &mut peer.input);
    assert_eq!(peer.asked().1, Op::SettleMail { id: MAIL, settlement: Settlement::Ack });
    assert_eq!(peer.asked().1, Op::Heartbeat);
    assert!(peer.server.wants_read());
}

#[test]
fn mail_is_announced_once_however_much_arrives() {
    let mut peer = Peer::open();
    for _ in 0..100 {
        peer.server.mail_arrived();
    }
    assert_eq!((peer.hears(), peer.hears()), (unhex("1400"), vec![]));
    peer.says(&NEXT);
    peer.answers(fetched(2));
    peer.hears();
    peer.server.mail_arrived();
    assert_eq!(peer.hears(), [0; 0], "it has one in hand, and hears how many are left");
}

#[test]
fn after_fifty_settlements_the_client_begins_anew() {
    let mut peer = Peer::open();
    for at in 1..=120 {
        peer.says(&NEXT);
        peer.answers(fetched(200));
        peer.hears();
        peer.says(&ack(MAIL));
        peer.answers(settled(199));
        let cure = at % MAIL_OPS_IN_A_ROW_MAX == 0;
        let size = if cure { "0000" } else { "00c7" };
        let event = if cure { "1400" } else { "" };
        assert_eq!(peer.hears(), unhex(&format!("1a01 {size} {ACKED} {event}")), "{at}");
    }
    assert_eq!(peer.server.take_counters().cures, 2);
}

#[test]
fn whoever_is_late_is_let_go() {
    let mut peer = Peer::new();
    peer.passes(CONNECT_DEADLINE_MS - 1);
    peer.sends(&bytes_of(&Packet::Connect(Box::new(connect())))[..57]);
    assert_eq!(peer.action(), None);
    peer.passes(1);
    let expected = (unhex("0101"), Some(Action::Close(CloseReason::NoConnect)));
    assert_eq!((peer.hears(), peer.action()), expected);
    assert_eq!(peer.server.poll_timeout(), Some(peer.now.plus(LINGER_MS)));

    let mut peer = Peer::new();
    peer.says(&Packet::Connect(Box::new(connect())));
    peer.action();
    peer.passes(AUTHENTICATE_DEADLINE_MS);
    assert_eq!(peer.hears(), unhex("050002"));
    peer.server.authenticated(peer.now, Ok(true));
    assert_eq!(peer.hears(), [0; 0], "too late");

    let mut peer = Peer::open();
    peer.passes(SILENCE_MAX_MS - 1);
    peer.says(&Packet::Heartbeat);
    peer.answers(Ok(Answer::Done));
    peer.passes(SILENCE_MAX_MS - 1);
    assert!(!peer.server.is_closed());
    peer.passes(1);
    assert_eq!(peer.action(), Some(Action::Close(CloseReason::Silence)));

    let mut peer = Peer::open();
    peer.says(&pulse(0, PulseKind::Datapoint, b"{}"));
    peer.asked();
    peer.passes(ANSWER_DEADLINE_MS);
    assert_eq!(peer.action(), Some(Action::Close(CloseReason::Unanswered)));
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let mut peer = Peer::open();
    peer.says(&pulse(0, PulseKind::Unknown, b""));
    peer.server.poll_transmit(peer.now, &mut peer.output);
    peer.passes(STALL_MAX_MS - 1);
    // One byte leaves, and the wait begins anew.
    let sent = peer.output.split_to(1);
    peer.server.poll_transmit(peer.now, &mut peer.output);
    peer.passes(STALL_MAX_MS - 1);
    assert!(!peer.server.is_closed(), "{sent:?}");
    peer.passes(1);
    assert_eq!(peer.action(), Some(Action::Close(CloseReason::Stalled)));
}

#[test]
fn whoever_asks_too_much_is_not_read_from() {
    let mut peer = Peer::open();
    for txn in 0..200 {
        peer.says(&pulse(txn, PulseKind::Datapoint, b"{}"));
    }
    assert_eq!((peer.server.unanswered(), peer.server.wants_read()), (REQUESTS_MAX, false));
    // That time is not its silence.
    peer.passes(ANSWER_DEADLINE_MS - 1);
    for _ in 0..200 {
        peer.answers(Ok(Answer::Done));
    }
    assert!(peer.server.wants_read() && peer.input.is_empty());
    assert_eq!(peer.hears().len(), 200 * 10);
    assert_eq!(peer.server.take_counters().paused, 137, "once per request beyond");

    let large = vec![b' '; 60_000];
    let mut peer = Peer::open();
    for txn in 0..10 {
        peer.says(&pulse(txn, PulseKind::Datapoint, &large));
    }
    assert_eq!(peer.server.unanswered(), REQUEST_BYTES_MAX / large.len() + 1);

    let mut peer = Peer::open();
    for txn in 0..20_000 {
        peer.says(&pulse(txn, PulseKind::Unknown, b""));
    }
    peer.server.poll_transmit(peer.now, &mut peer.output);
    assert!(peer.output.len() < OUTPUT_BYTES_MAX + 11 && !peer.server.wants_read());
}

#[test]
fn the_other_ends_are_said() {
    let mut peer = Peer::open();
    peer.server.taken_over(peer.now);
    let expected = (unhex("0101"), Some(Action::Close(CloseReason::TakenOver)));
    assert_eq!((peer.hears(), peer.action()), expected);

    let mut peer = Peer::open();
    peer.says(&pulse(1, PulseKind::Datapoint, b"{}"));
    peer.server.stop(peer.now);
    assert_eq!(peer.hears(), unhex("0101"));
    let (token, _) = peer.asked();
    assert_eq!(peer.action(), Some(Action::Close(CloseReason::Stopping)));
    peer.server.answered(peer.now, token, Ok(Answer::Done));
    assert_eq!((peer.hears(), peer.action()), (vec![], None), "nothing after the end");

    let mut peer = Peer::new();
    peer.says(&Packet::Connect(Box::new(connect())));
    peer.server.stop(peer.now);
    assert_eq!(peer.hears(), unhex("050001"));

    let mut peer = Peer::open();
    peer.says(&Packet::CloseConnection { from: Side::Client });
    let expected = (unhex("0101"), Some(Action::Close(CloseReason::Goodbye)));
    assert_eq!((peer.hears(), peer.action()), expected);
}
