//! What all nodes of a test share: one device's mailbox, and what it sent up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Answer, Declined, Denial, EventKind, Format, Mail, MailId, Op, Settlement},
};
use moorline_moonlight::codec::Credentials;
use tokio::sync::watch;

pub(crate) const FLEET: &str = "FLEET001";
pub(crate) const DEVICE: &str = "DEVICE0001";
pub(crate) const SECRET: &str = "FOS-0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// The only packet schema there is.
pub(crate) const SCHEMA: &str = "env";

/// A mail's id by its number.
pub(crate) fn mail_id(number: u128) -> MailId {
    MailId(0x018f_4d1f_2a55_7f0e_b4ea_0000_0000_0000 + number)
}

/// What became of the cluster so far.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) mailbox: VecDeque<MailId>,
    pub(crate) settled: Vec<(MailId, Settlement)>,
    pub(crate) events: Vec<(EventKind, String, Bytes)>,
    /// Nobody is let in.
    pub(crate) denial: Option<Denial>,
    /// Nothing is answered but who may come in.
    pub(crate) silent: bool,
    /// The next settlement is done, and the connection lost before its answer leaves.
    pub(crate) cut_settlement: bool,
    /// The same for an event.
    pub(crate) cut_event: bool,
}

/// What a node does about a question.
pub(crate) enum Outcome {
    Answer(Result<Answer, Declined>),
    Silence,
    Cut,
}

#[derive(Clone)]
pub(crate) struct Cluster {
    world: Arc<Mutex<World>>,
    /// Counts mail that came.
    pub(crate) arrivals: watch::Sender<u64>,
}

impl Cluster {
    /// With so many mails, numbered from 0.
    pub(crate) fn new(mails: u128) -> Self {
        let world = World { mailbox: (0..mails).map(mail_id).collect(), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), arrivals: watch::Sender::new(0) }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    /// Mail for the device.
    pub(crate) fn send(&self, number: u128) {
        self.with(|world| world.mailbox.push_back(mail_id(number)));
        self.arrivals.send_modify(|count| *count += 1);
    }

    /// What was settled so, in order.
    pub(crate) fn settled(&self, how: Settlement) -> Vec<MailId> {
        let settled = self.with(|world| world.settled.clone());
        settled.into_iter().filter(|(_, other)| *other == how).map(|(id, _)| id).collect()
    }

    pub(crate) fn authenticate(&self, credentials: &Credentials) -> Result<bool, Denial> {
        self.with(|world| {
            if let Some(denial) = world.denial {
                return Err(denial);
            }
            assert_eq!(
                (&credentials.fleet[..], &credentials.device[..]),
                (FLEET.as_bytes(), DEVICE.as_bytes())
            );
            if credentials.secret != SECRET.as_bytes() {
                return Err(Denial::WrongSecret);
            }
            Ok(!world.mailbox.is_empty())
        })
    }

    pub(crate) fn ask(&self, op: Op) -> Outcome {
        self.with(|world| {
            if world.silent {
                return Outcome::Silence;
            }
            let cut = match op {
                Op::SettleMail { .. } => std::mem::take(&mut world.cut_settlement),
                Op::Event(_) => std::mem::take(&mut world.cut_event),
                Op::Heartbeat | Op::FetchMail { .. } | Op::CountMail => false,
            };
            let answer = world.answer(op);
            if cut { Outcome::Cut } else { Outcome::Answer(answer) }
        })
    }
}

impl World {
    fn answer(&mut self, op: Op) -> Result<Answer, Declined> {
        match op {
            Op::Heartbeat => Ok(Answer::Done),
            Op::Event(event) => {
                if event.kind != EventKind::System && event.channel.as_str() != SCHEMA {
                    return Err(Declined::UnknownSchema);
                }
                self.events.push((event.kind, event.channel.to_string(), event.body));
                Ok(Answer::Done)
            }
            Op::FetchMail { .. } => Ok(Answer::Mail { size: self.size(), mail: self.front() }),
            Op::CountMail => Ok(Answer::MailboxSize(self.size())),
            Op::SettleMail { id, settlement } => {
                // The last one may be repeated: its answer may be lost.
                let repeated = self.settled.last() == Some(&(id, settlement));
                if self.mailbox.front() == Some(&id) {
                    self.mailbox.pop_front();
                    if settlement == Settlement::Requeue {
                        self.mailbox.push_back(id);
                    }
                    self.settled.push((id, settlement));
                } else if !repeated {
                    return Err(Declined::NotNextMail);
                }
                Ok(Answer::Settled { size: self.size() })
            }
        }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.mailbox.len()).unwrap()
    }

    fn front(&self) -> Option<Mail> {
        self.mailbox.front().map(|id| Mail {
            id: *id,
            name: Text::from("open-gate"),
            format: Format::Json,
            payload: Bytes::from(format!("{{\"gate\":{}}}", id.0 & 0xffff)),
        })
    }
}
