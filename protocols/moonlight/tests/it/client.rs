//! The device agent's side: what it sends when, and what it makes of what it hears.

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Millis, Text,
    op::{Format, Settlement},
};
use moorline_moonlight::{
    DecodeError, EncodeError, Packet,
    client::{
        CONNECT_DEADLINE_MS, Client, Ended, Event, Failure, HEARTBEAT_MS, HEARTBEAT_REPEAT_MS,
        SILENCE_MAX_MS, STALL_MAX_MS, SendError, TRANSACTION_MAX_MS, TRANSACTIONS_MAX,
    },
    codec::{ConnectFailedReason, NAME_BYTES_MAX, PulseError, PulseKind, UnauthorizedReason},
    server::Server,
};

use crate::support::{MAIL, START, bytes_of, connect, credentials, unhex};

struct Agent {
    client: Client,
    now: Millis,
    output: BytesMut,
}

impl Agent {
    fn new() -> Self {
        let client = Client::new(START, credentials(), Format::Json);
        Self { client, now: START, output: BytesMut::new() }
    }

    fn open() -> Self {
        let mut agent = Self::new();
        assert_eq!(agent.says(), bytes_of(&Packet::Connect(Box::new(connect()))).to_vec());
        agent.hears("0301");
        assert_eq!(agent.client.poll_event(), Some(Event::Connected { mail_available: false }));
        agent
    }

    fn hears(&mut self, hex: &str) {
        self.client.receive(self.now, &mut BytesMut::from(&unhex(hex)[..]));
    }

    fn says(&mut self) -> Vec<u8> {
        self.client.poll_transmit(self.now, &mut self.output);
        let said = self.output.split().to_vec();
        self.client.poll_transmit(self.now, &mut self.output);
        said
    }

    fn passes(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        while self.client.poll_timeout().is_some_and(|at| at <= self.now) {
            self.client.timeout(self.now);
        }
    }

    fn pulse(&mut self, name: &str) -> Result<u64, SendError> {
        let payload = Bytes::from_static(b"null");
        self.client.pulse(self.now, PulseKind::Message, Text::from(name), payload)
    }
}

#[test]
fn a_refused_connection_says_why() {
    #[rustfmt::skip]
    let table = [
        ("040004", Ended::Unauthorized(UnauthorizedReason::SecretIncorrect)),
        ("050002", Ended::ConnectFailed(ConnectFailedReason::Unavailable)),
        ("0101",   Ended::Goodbye),
        ("0901",   Ended::OutOfTurn),
        ("1401",   Ended::Malformed(DecodeError::NewMailEvent(1))),
        ("63",     Ended::Malformed(DecodeError::UnknownType(0x63))),
    ];
    for (hex, ended) in table {
        let mut agent = Agent::new();
        agent.hears(hex);
        assert_eq!(agent.client.poll_event(), Some(Event::Closed(ended)));
        assert_eq!((agent.client.poll_event(), agent.client.poll_timeout()), (None, None));
        assert_eq!(agent.pulse("a"), Err(SendError::NotConnected));
    }
    let mut agent = Agent::new();
    agent.says();
    agent.passes(CONNECT_DEADLINE_MS);
    assert_eq!(agent.client.poll_event(), Some(Event::Closed(Ended::NoAnswer)));
}

#[test]
fn transactions_count_from_0_and_get_their_answers() {
    let mut agent = Agent::open();
    assert_eq!((agent.pulse("a"), agent.client.next(agent.now, true)), (Ok(0), Ok(1)));
    assert_eq!((agent.client.next(agent.now, false), agent.pulse("b")), (Ok(2), Ok(3)));
    agent.client.settle(agent.now, MAIL, Settlement::Requeue).unwrap();
    let again = agent.client.settle(agent.now, MAIL, Settlement::Ack);
    assert_eq!(again, Err(SendError::Pending));
    let said = "0a0003 0000000000000000 0161 00000004 6e756c6c 1501 0000000000000001
        1500 0000000000000002 0a0003 0000000000000003 0162 00000004 6e756c6c
        1900 018f4d1f2a557f0eb4ea5f7c3e6fa001 03";
    assert_eq!(agent.says(), unhex(said));
    agent.hears("0b00 0000000000000003 02 0b01 0000000000000000 0b01 0000000000000099");
    agent.hears("1600 0000000000000002 0000 1a01 0002 018f4d1f2a557f0eb4ea5f7c3e6fa001 03 1400");
    let (id, settlement) = (MAIL, Settlement::Requeue);
    let expected = [
        Event::Pulse { txn: 3, result: Err(Failure::Pulse(PulseError::SchemaNotFound)) },
        Event::Pulse { txn: 0, result: Ok(()) },
        Event::Next { txn: 2, result: Err(Failure::Refused) },
        Event::Settled { id, settlement, result: Ok(2) },
        Event::NewMail,
    ];
    for event in expected {
        assert_eq!(agent.client.poll_event(), Some(event));
    }
    agent.passes(TRANSACTION_MAX_MS);
    let timed_out = Event::Next { txn: 1, result: Err(Failure::TimedOut) };
    assert_eq!(agent.client.poll_event(), Some(timed_out));
    agent.hears("1601 0000000000000001 0000");
    assert_eq!(agent.client.poll_event(), None, "too late");
}

#[test]
fn what_can_not_be_sent_takes_no_number() {
    let mut agent = Agent::open();
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(agent.pulse(&long), Err(SendError::Encode(EncodeError::NameTooLong)));
    for txn in 0..TRANSACTIONS_MAX as u64 {
        assert_eq!(agent.pulse("a"), Ok(txn));
    }
    assert_eq!(agent.pulse("a"), Err(SendError::TooMany));
    agent.client.close();
    for txn in 0..TRANSACTIONS_MAX as u64 {
        let lost = Event::Pulse { txn, result: Err(Failure::Lost) };
        assert_eq!(agent.client.poll_event(), Some(lost));
    }
    assert_eq!(agent.client.poll_event(), Some(Event::Closed(Ended::Own)));
    assert_eq!(agent.says().last_chunk(), Some(&[1, 0]));
}

#[test]
fn heartbeats_are_repeated_until_answered_and_then_given_up() {
    let mut agent = Agent::open();
    agent.passes(HEARTBEAT_MS - 1);
    assert_eq!(agent.says(), [0; 0]);
    agent.passes(1);
    assert_eq!(agent.says(), unhex("0800"));
    agent.hears("0901");
    agent.passes(HEARTBEAT_MS);
    assert_eq!(agent.says(), unhex("0800"));
    let mut waited = HEARTBEAT_MS;
    while !agent.client.is_closed() {
        agent.passes(HEARTBEAT_REPEAT_MS);
        waited += HEARTBEAT_REPEAT_MS;
        agent.hears("0900");
        assert_eq!(agent.says() == unhex("0800"), waited < SILENCE_MAX_MS, "{waited}");
    }
    assert_eq!(waited, SILENCE_MAX_MS);
    assert_eq!(agent.client.poll_event(), Some(Event::Closed(Ended::Silence)));
}

#[test]
fn a_server_that_takes_nothing_is_given_up() {
    let mut agent = Agent::open();
    agent.pulse("a").unwrap();
    agent.client.poll_transmit(agent.now, &mut agent.output);
    agent.passes(STALL_MAX_MS);
    let lost = Event::Pulse { txn: 0, result: Err(Failure::Lost) };
    assert_eq!(agent.client.poll_event(), Some(lost));
    assert_eq!(agent.client.poll_event(), Some(Event::Closed(Ended::Stalled)));
}

#[test]
fn no_debug_form_shows_the_secret() {
    let mut server = Server::new(START);
    server.receive(START, &mut bytes_of(&Packet::Connect(Box::new(connect()))));
    let text = format!("{:?} {:?} {server:?} {:?}", credentials(), connect(), Agent::new().client);
    assert!(text.contains("<hidden>") && !text.contains("0123456789abcdef"), "{text}");
    assert!(!text.contains("FOS-"), "{text}");
}
