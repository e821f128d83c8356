//! The agent's connection to the cluster: kept up over all nodes, and shared by everybody who asks.
//!
//! ```text
//!   ask ──► Link::Up ──► Conversation ──► Moonlight ──► a node
//!                            │ over: Link::Down, and the next attempt
//!   events ◄── Connected, NewMail, Disconnected
//! ```
//!
//! # Invariants
//!
//! - **A state and its event are one**: they change under one lock, so an event stream that begins with the state misses
//!   none and hears none twice.
//! - **A pulse is sent once.** What may be repeated is asked again on the next connection while its time lasts.
//!   Checked by `tests/it/failures.rs`.

mod attempts;
mod conversation;
mod dial;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moorline_moonlight::{Millis, client::Failure, codec::Credentials};
use rand::seq::SliceRandom;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, oneshot, watch,
    },
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::NodeAddress,
    log::log,
    question::{Question, Reply, Unanswered, Why},
    row::{Row, Told},
};

use self::{
    attempts::{Attempt, Attempts},
    conversation::{Asked, Conversation, News, Over},
};

pub(crate) use self::dial::Dial;

/// How long a request waits for a connection, as the vendor's agent does it.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Questions that wait for the conversation to take them, which it does at once.
const QUESTIONS_MAX: usize = 64;
/// Events that a stream may be behind. Then it begins anew, with the state as it is.
const EVENTS_MAX: usize = 64;

/// Whether the uplink is up.
#[derive(Debug, Clone)]
enum Link {
    /// No; why, and when it is tried again, if there was an attempt.
    Down(Option<(Why, Millis)>),
    /// Yes, and it takes questions.
    Up(mpsc::Sender<Asked>),
}

impl Link {
    fn questions(&self) -> Option<mpsc::Sender<Asked>> {
        match self {
            Self::Up(questions) => Some(questions.clone()),
            Self::Down(_) => None,
        }
    }
}

/// What event streams hear.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The uplink is up.
    Connected,
    /// Mail waits.
    NewMail,
    /// The uplink is down; why, if somebody knows, and milliseconds until it is tried again.
    Disconnected(Option<(Why, u64)>),
}

/// A handle on the uplink.
#[derive(Debug, Clone)]
pub(crate) struct Uplink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    link: watch::Sender<Link>,
    events: broadcast::Sender<Event>,
    row: Mutex<Row>,
}

/// Events from the present state on.
#[derive(Debug)]
pub(crate) struct Events {
    uplink: Uplink,
    received: broadcast::Receiver<Event>,
    /// What a stream begins with, last first: the state and, if the uplink is up, that there may be mail.
    opening: Vec<Event>,
}

impl Uplink {
    pub(crate) fn new(clock: Clock) -> Self {
        let (link, events) =
            (watch::Sender::new(Link::Down(None)), broadcast::Sender::new(EVENTS_MAX));
        Self(Arc::new(Shared { clock, link, events, row: Mutex::default() }))
    }

    /// [`Event::Connected`] or [`Event::Disconnected`].
    pub(crate) fn state(&self) -> Event {
        self.event_of(&self.0.link.borrow())
    }

    fn event_of(&self, link: &Link) -> Event {
        match link {
            Link::Up(_) => Event::Connected,
            Link::Down(down) => Event::Disconnected(
                down.as_ref().map(|(why, at)| (why.clone(), at.since(self.0.clock.now()))),
            ),
        }
    }

    /// Whether it is up.
    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.0.link.borrow(), Link::Up(_))
    }

    /// Events. The first is the state, and mail is fetched once however long ago it came.
    pub(crate) fn events(&self) -> Events {
        // The state can't change while it is borrowed.
        let link = self.0.link.borrow();
        let received = self.0.events.subscribe();
        let mail = matches!(*link, Link::Up(_)).then_some(Event::NewMail);
        let opening = mail.into_iter().chain([self.event_of(&link)]).collect();
        Events { uplink: self.clone(), received, opening }
    }

    /// Asks the cluster. Waits for a connection for 10 s at most, and for the answer as long again.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Reply, Unanswered> {
        let deadline = Instant::now() + CONNECTION_WAIT;
        let mut link = self.0.link.subscribe();
        let mut lost = false;
        loop {
            let up = timeout_at(deadline, link.wait_for(|link| link.questions().is_some())).await;
            let Some(questions) = up.ok().and_then(Result::ok).and_then(|link| link.questions())
            else {
                let lost = lost.then_some(Unanswered::Failed(Failure::Lost));
                return Err(lost.unwrap_or_else(|| self.not_connected()));
            };
            let (reply, answer) = oneshot::channel();
            let asked = Asked { question: question.clone(), reply };
            match timeout_at(deadline, questions.send(asked)).await {
                Err(_) => return Err(Unanswered::Busy),
                // The conversation has ended since; the next one has not begun.
                Ok(Err(_)) => continue,
                Ok(Ok(())) => {}
            }
            // The machine sees to it that this does not take longer than a transaction may.
            match answer.await.unwrap_or(Err(Unanswered::Failed(Failure::Lost))) {
                Err(Unanswered::Failed(Failure::Lost)) if question.may_repeat() => lost = true,
                // The first time it may have been done: then the mail is not the next one any more.
                Err(Unanswered::Failed(Failure::Refused)) if lost => {
                    return Err(Unanswered::Failed(Failure::Lost));
                }
                answer => return answer,
            }
        }
    }

    /// A mail op was done. Whether whoever asked should fetch the next mail at once.
    pub(crate) fn settled(&self, left: u16) -> bool {
        let told = self.0.row.lock().unwrap_or_else(PoisonError::into_inner).settled(left);
        match told {
            Told::More => true,
            Told::Nothing => false,
            Told::BeginAnew => {
                self.tell(Event::NewMail);
                false
            }
        }
    }

    fn not_connected(&self) -> Unanswered {
        match self.state() {
            Event::Disconnected(Some((why, _))) => Unanswered::NotConnected(Some(why)),
            Event::Disconnected(None) | Event::Connected | Event::NewMail => {
                Unanswered::NotConnected(None)
            }
        }
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _listeners = self.0.events.send(event);
    }

    /// Changes the state, and tells.
    fn change(&self, link: Link, event: Option<Event>) {
        self.0.link.send_modify(|state| {
            *state = link;
            if let Some(event) = event {
                self.tell(event);
            }
        });
    }

    /// Keeps the uplink up until the agent stops.
    pub(crate) async fn keep(
        &self,
        dial: &Dial,
        mut nodes: Vec<NodeAddress>,
        credentials: &Credentials,
        stop: &CancellationToken,
    ) {
        // Devices of a node that dies do not all go to the same next one.
        nodes.shuffle(&mut rand::rng());
        let mut attempts = Attempts::new(nodes.len());
        let mut next = attempts.next(rand::random());
        let mut said: Vec<Option<Why>> = vec![None; nodes.len()];
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_millis(next.wait_ms)) => {}
            }
            let node = &nodes[next.node];
            let over = tokio::select! {
                () = stop.cancelled() => break,
                dialled = dial.dial(node) => match dialled {
                    Ok(socket) => {
                        let conversation = Conversation::new(socket, credentials.clone(), self.0.clock);
                        self.converse(conversation, node, stop).await
                    }
                    Err(error) => {
                        let why = Why::failed(format!("no connection to {node}: {error}"));
                        Over { ended: None, why, open_ms: None }
                    }
                }
            };
            attempts.ended(over.ended.as_ref(), over.open_ms);
            let tried = next.node;
            next = attempts.next(rand::random());
            // Not the same of the same node again and again.
            if over.open_ms.is_some() || said[tried].as_ref() != Some(&over.why) {
                log(&format!(
                    "not connected: {}; next attempt in {} ms",
                    over.why.line(),
                    next.wait_ms
                ));
            }
            said[tried] = Some(over.why.clone());
            self.down(over, next);
        }
    }

    async fn converse<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        &self,
        mut conversation: Conversation<S>,
        node: &NodeAddress,
        stop: &CancellationToken,
    ) -> Over {
        let (sender, mut questions) = mpsc::channel(QUESTIONS_MAX);
        let tell = |news| match news {
            News::Connected { mail_available } => {
                log(&format!("connected to {node}"));
                self.change(Link::Up(sender.clone()), Some(Event::Connected));
                if mail_available {
                    self.tell(Event::NewMail);
                }
            }
            News::NewMail => self.tell(Event::NewMail),
        };
        let over = conversation.run(&mut questions, stop, tell).await;
        // Before the receiver is gone, so that nobody asks who can't be heard.
        self.0.link.send_if_modified(|link| {
            let was_up = matches!(link, Link::Up(_));
            if was_up {
                *link = Link::Down(None);
            }
            was_up
        });
        over
    }

    fn down(&self, over: Over, next: Attempt) {
        let was_open = over.open_ms.is_some();
        let at = self.0.clock.now().plus(next.wait_ms);
        // Between two nodes of one round there is nothing to tell.
        let event = (was_open || next.wait_ms > 0)
            .then(|| Event::Disconnected(Some((over.why.clone(), next.wait_ms))));
        self.change(Link::Down(Some((over.why, at))), event);
    }
}

impl Events {
    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.opening.pop() {
                return event;
            }
            match self.received.recv().await {
                Ok(event) => return event,
                // It can't be closed: this holds the uplink, which sends.
                Err(RecvError::Lagged(_) | RecvError::Closed) => *self = self.uplink.events(),
            }
        }
    }
}
