//! A link that asks a task: for platforms to which MQTT is something else than sessions and topics, and each connection a task.
//!
//! ```text
//!   edge ──Link──► asks (bounded) ──► one task per connection
//!        ◄─Inbox─────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **A connection asks no more than `ASKS_MAX` ahead**: one that does is closed. Nothing of it was promised: what is promised
//!   is bounded by the edge's windows, which are smaller.
//! - **There are no queues behind it.** What its task sends with a share and an offset ([`numbered`]) is told when the client has it.

use std::{fmt, sync::Arc};

use moorline_core::{
    ConnId, Delivery, Message, Offset, QoS, ShareNumber, Text, Will,
    port::{Close, Ended, Filter, Inbox, Link, Notice, Open, Opened, Token, UserProperties},
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// What a connection may ask before it is answered: the edge's own windows are smaller for all but QoS 0.
const ASKS_MAX: usize = 2_048;

/// What a connection asks of its task.
#[derive(Debug)]
pub enum Ask {
    /// The first of all: [`Link::open`], which is answered already. What of the CONNECT counts beyond it.
    Open(Box<Opening>),
    /// [`Link::publish`], and [`Link::publish_once`] where that is taken ([`Platform::once`]).
    Publish(Token, Message),
    /// [`Link::subscribe_saying`].
    Subscribe(Token, Vec<Filter>, UserProperties),
    /// [`Link::unsubscribe`].
    Unsubscribe(Token, Vec<Text>),
    /// The client has these of what was sent [`numbered`]; what it was granted with QoS 0 it has when it is sent.
    Taken(Vec<u64>),
}

/// What of a CONNECT counts as long as its connection.
#[derive(Debug)]
pub struct Opening {
    /// Whether it wants no earlier session.
    pub clean: bool,
    /// What is to be said if it ends without a goodbye.
    pub will: Option<Will>,
}

/// What is sent [`numbered`] goes out as a shared subscription's: those take whichever packet id is free. The service's begin with 1.
pub const SHARE: ShareNumber = ShareNumber(0);

/// A message to the client of which the task is told when the client has it ([`Ask::Taken`]). Not more than the edge lends of shared
/// subscriptions may be out at once.
#[must_use]
pub fn numbered(number: u64, qos: QoS, message: Message) -> Delivery {
    Delivery { share: Some(SHARE), ..Delivery::new(Some(Offset(number)), qos, Arc::new(message)) }
}

/// How a platform takes what it has nothing of its own for.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// What a CONNACK says of an earlier session, by whether a clean one was asked for.
    pub present: fn(bool) -> bool,
    /// Whether QoS 2 is taken, as publishes that may be written twice; otherwise it ends the connection.
    pub once: bool,
}

/// Tells a connection. One that takes nothing is ending anyway.
pub fn tell(inbox: &Arc<dyn Inbox>, notice: Notice) {
    inbox.push(notice).unwrap_or_default();
}

/// A link, and what its task reads. The receiver ends when the link is dropped.
#[must_use]
pub fn link(platform: Platform, inbox: Arc<dyn Inbox>) -> (Box<dyn Link>, mpsc::Receiver<Ask>) {
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    (Box::new(Asks { platform, asks, inbox }), asked)
}

struct Asks {
    platform: Platform,
    asks: mpsc::Sender<Ask>,
    inbox: Arc<dyn Inbox>,
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks").field("platform", &self.platform).finish_non_exhaustive()
    }
}

impl Asks {
    fn ask(&self, ask: Ask) {
        match self.asks.try_send(ask) {
            Ok(()) => {}
            // It asks faster than it can be served, with QoS 0: nothing of it was promised.
            Err(TrySendError::Full(_)) => tell(&self.inbox, Notice::Lost),
            // The task has said why it ended.
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

impl Link for Asks {
    fn conn(&self) -> ConnId {
        ConnId(0)
    }

    fn open(&mut self, open: Open) {
        let present = (self.platform.present)(open.clean_start);
        let opened = Opened { present, first: Offset(0), end: Offset(0) };
        // Before anything that the task says of it.
        tell(&self.inbox, Notice::Opened(Ok(opened)));
        let opening = Opening { clean: open.clean_start, will: open.will };
        self.ask(Ask::Open(Box::new(opening)));
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.ask(Ask::Publish(token, message));
    }

    fn publish_once(&mut self, token: Token, _: u16, message: Message) {
        if self.platform.once {
            self.ask(Ask::Publish(token, message));
        } else {
            tell(&self.inbox, Notice::Ended(Ended::Misused));
        }
    }

    fn complete(&mut self, packet: u16) {
        tell(&self.inbox, Notice::Completed { packet, known: self.platform.once });
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        tell(&self.inbox, Notice::Released(offsets));
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.subscribe_saying(token, filters, UserProperties::new());
    }

    fn subscribe_saying(&mut self, token: Token, filters: Vec<Filter>, user: UserProperties) {
        self.ask(Ask::Subscribe(token, filters, user));
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.ask(Ask::Unsubscribe(token, filters));
    }

    fn settle(&mut self, _: &[Offset]) {}

    fn settle_shared(&mut self, taken: &[(ShareNumber, Offset)]) {
        self.ask(Ask::Taken(taken.iter().map(|(_, number)| number.0).collect()));
    }

    fn retained_taken(&mut self) {}

    fn close(&mut self, _: Close) {}
}
