//! Who is connected, as retained messages of the organisation (§1.6 of the vendor's wire).
//!
//! Invariant: a connection that was announced is announced as gone once, after it; one whose session never opened is not
//! announced. Checked by the cluster tests (`watson.rs`). A node that dies announces nothing.

use std::sync::{Arc, Mutex, PoisonError};

use moorline_core::{Message, UnixMillis, port::Token};
use moorline_dialects::watson::{
    close::Close,
    identity::ClientId,
    presence::{Action, News, Published, RETAINED_S, Traffic, published},
};
use prometheus::IntGauge;

use crate::{
    door::Door,
    inbox::Shared,
    link::{Below, locked},
    metrics::label,
    mqtt::About,
};

/// What is published with it has no answer: QoS 0.
pub(crate) const UNANSWERED: Token = 0;
/// Milliseconds of a second.
const SECOND_MS: u64 = 1_000;

/// How far it has got.
#[derive(Debug)]
enum State {
    Waiting,
    Here(UnixMillis, IntGauge),
    Gone,
}

/// What is said of one connection.
#[derive(Debug)]
pub(crate) struct Announced {
    door: Door,
    about: About,
    client: ClientId,
    state: Mutex<State>,
}

/// Announces a connection as soon as its session is open; never if it is gone before.
pub(crate) fn announce(announced: &Arc<Announced>, shared: &Arc<Shared>, link: &Below) {
    let (announced, shared, link) =
        (Arc::clone(announced), Arc::clone(shared), Arc::downgrade(link));
    let tasks = announced.door.tasks.clone();
    tasks.spawn(async move {
        // Its end is told the same way.
        shared.opened.notified().await;
        if let Some(link) = link.upgrade() {
            announced.here(&link);
        }
    });
}

impl Announced {
    pub(crate) fn new(door: Door, about: About, client: ClientId) -> Self {
        Self { door, about, client, state: Mutex::new(State::Waiting) }
    }

    fn here(&self, link: &Below) {
        let now = self.door.clock.wall();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Waiting) {
            return;
        }
        let gauge = self.door.metrics.connections.with_label_values(&[label(self.client.class())]);
        gauge.inc();
        *state = State::Here(now, gauge);
        self.publish(&News { connected: Some(now), ..self.news(Action::Connect, now) }, link);
        drop(state);
        self.door.note_app(&self.about, &self.client, now, None);
    }

    /// The connection is over.
    pub(crate) fn gone(&self, close: Close, traffic: Traffic, link: &Below) {
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Gone)
        };
        let State::Here(connected, gauge) = before else { return };
        gauge.dec();
        let news = self.news(Action::Disconnect, self.door.clock.wall());
        let left = news.at;
        self.publish(&News { connected: Some(connected), close, traffic, ..news }, link);
        self.door.note_app(&self.about, &self.client, connected, Some(left));
    }

    fn news(&self, action: Action, at: UnixMillis) -> News<'_> {
        News {
            action,
            at,
            client: &self.client,
            address: "",
            port: self.about.port,
            secure: self.about.secure,
            protocol: self.about.protocol,
            user: self.about.user.as_str(),
            certificate: self.about.certificate.as_str(),
            connected: None,
            close: Close::Normal,
            traffic: Traffic::default(),
        }
    }

    fn publish(&self, news: &News<'_>, link: &Below) {
        let address = self.about.peer.ip().to_canonical().to_string();
        let until = UnixMillis(news.at.0 + u64::from(RETAINED_S) * SECOND_MS);
        for said in published(&News { address: &address, ..*news }) {
            let Published { topic, payload, retained } = said;
            let expires_at = retained.then_some(until);
            let payload = payload.into();
            let message =
                Message { topic, retain: retained, expires_at, payload, ..Message::empty() };
            locked(link).publish(UNANSWERED, message);
        }
    }
}
