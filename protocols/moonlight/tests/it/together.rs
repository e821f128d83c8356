//! Both machines and a mailbox, with bytes cut at random places: nothing is lost, doubled or out of order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Millis, Text,
    op::{Answer, Declined, Format, Mail, MailId, Op, Settlement},
};
use moorline_moonlight::{
    client::{Client, Event},
    codec::{Next, PulseKind},
    server::{Action, Server},
};
use proptest::prelude::*;

use crate::support::{START, credentials};

/// The service: a mailbox, and what was sent up.
#[derive(Default)]
struct Service {
    mailbox: VecDeque<u128>,
    events: Vec<Bytes>,
    /// Mail that arrives before the answer goes out.
    arriving: VecDeque<u128>,
}

impl Service {
    fn answer(&mut self, op: Op) -> Result<Answer, Declined> {
        let size = |mailbox: &VecDeque<u128>| mailbox.len() as u64;
        match op {
            Op::Heartbeat => Ok(Answer::Done),
            Op::Event(event) => {
                self.events.push(event.body);
                Ok(Answer::Done)
            }
            Op::FetchMail { .. } => {
                let mail = self.mailbox.front().map(|id| Mail {
                    id: MailId(*id),
                    name: Text::from("m"),
                    format: Format::Json,
                    payload: Bytes::from(id.to_string()),
                });
                Ok(Answer::Mail { size: size(&self.mailbox), mail })
            }
            Op::CountMail => Ok(Answer::MailboxSize(size(&self.mailbox))),
            Op::SettleMail { id, settlement } => {
                if self.mailbox.front() != Some(&id.0) {
                    return Err(Declined::NotNextMail);
                }
                self.mailbox.pop_front();
                if settlement == Settlement::Requeue {
                    self.mailbox.push_back(id.0);
                }
                Ok(Answer::Settled { size: size(&self.mailbox) })
            }
        }
    }
}

/// Carries at most `cut` bytes.
fn carry(from: &mut BytesMut, to: &mut BytesMut, cut: usize) {
    let cut = cut.min(from.len());
    to.extend_from_slice(&from.split_to(cut));
}

/// Drains the mailbox as the SDKs do: fetch, settle, and fetch again if something is left.
fn react(client: &mut Client, now: Millis, event: Event, handled: &mut Vec<u128>) {
    match event {
        Event::Connected { mail_available: true } | Event::NewMail => {
            client.next(now, false).unwrap();
        }
        Event::Connected { mail_available: false } | Event::Pulse { result: Ok(()), .. } => {}
        Event::Next { result: Ok(Next::Empty), .. } => {}
        Event::Next { result: Ok(Next::Mail { id, .. }), .. } => {
            handled.push(id.0);
            // A NewMailEvent may have led to a second fetch of the same mail.
            let _pending = client.settle(now, id, Settlement::Ack);
        }
        Event::Settled { result: Ok(left), .. } if left > 0 => {
            client.next(now, false).unwrap();
        }
        Event::Settled { .. } => {}
        other => panic!("{other:?}"),
    }
}

fn run(mail: usize, later: usize, cuts: &[usize]) -> (Service, Vec<u128>) {
    let mut service = Service { mailbox: (0..mail as u128).collect(), ..Service::default() };
    service.arriving = (mail as u128..(mail + later) as u128).collect();
    let (mut server, mut client) =
        (Server::new(START), Client::new(START, credentials(), Format::Json));
    let [mut up, mut down, mut in_up, mut in_down] = [(); 4].map(|()| BytesMut::new());
    let mut handled = Vec::new();
    let mut cuts = cuts.iter().copied().cycle();
    let mut waiting: VecDeque<Action> = VecDeque::new();
    // Enough for every byte of every packet on its own.
    for round in 0..(mail + later + 4) * 400 {
        let now = START;
        client.poll_transmit(now, &mut up);
        carry(&mut up, &mut in_up, cuts.next().unwrap());
        server.receive(now, &mut in_up);
        waiting.extend(std::iter::from_fn(|| server.poll_action()));
        if round % 3 == 0
            && let Some(id) = service.arriving.pop_front()
        {
            service.mailbox.push_back(id);
            server.mail_arrived();
        }
        match waiting.pop_front() {
            Some(Action::Authenticate(_)) => {
                server.authenticated(now, Ok(!service.mailbox.is_empty()));
            }
            Some(Action::Ask { token, op }) => {
                let outcome = service.answer(op);
                server.answered(now, token, outcome);
            }
            Some(Action::Close(reason)) => panic!("{reason}"),
            None => {}
        }
        server.poll_transmit(now, &mut down);
        carry(&mut down, &mut in_down, cuts.next().unwrap());
        client.receive(now, &mut in_down);
        while let Some(event) = client.poll_event() {
            if matches!(event, Event::Connected { .. }) {
                let payload = Bytes::from_static(b"{}");
                client.pulse(now, PulseKind::Datapoint, Text::from("up"), payload).unwrap();
            }
            react(&mut client, now, event, &mut handled);
        }
    }
    (service, handled)
}

fn is_drained(mail: usize, later: usize, cuts: &[usize]) {
    let (service, mut handled) = run(mail, later, cuts);
    assert!(service.mailbox.is_empty(), "left: {:?}", service.mailbox);
    assert_eq!(service.events, [Bytes::from_static(b"{}")]);
    handled.dedup();
    assert_eq!(handled, (0..(mail + later) as u128).collect::<Vec<_>>());
}

#[test]
fn four_hundred_mails_are_drained() {
    is_drained(400, 0, &[usize::MAX]);
}

#[test]
fn byte_by_byte_too() {
    is_drained(7, 3, &[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mailbox_is_drained_in_order_however_bytes_are_cut(
        mail in 0..120usize,
        later in 0..20usize,
        cuts in proptest::collection::vec(1..40usize, 1..30),
    ) {
        is_drained(mail, later, &cuts);
    }
}
