//! Who speaks over HTTP, as messages of the organisation: when a connection has let somebody in, and when it is over. Unlike those of
//! MQTT's clients they are not retained (§1.6 of the vendor's wire).
//!
//! Invariant: what was announced is announced as gone once, after it. Checked by the cluster tests (`watson_http.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use moorline_core::{Message, TenantId, Text, UnixMillis};
use moorline_dialects::watson::{
    close::Close,
    identity::ClientId,
    presence::{Action, News, Protocol, Published, Traffic, published},
};
use moorline_http::Caller;
use moorline_service::Service;

use crate::door::Door;

/// A connection that somebody speaks by, until it is dropped.
pub(crate) struct Visiting {
    door: Door,
    service: Arc<Service>,
    caller: Arc<Caller>,
    tenant: TenantId,
    client: ClientId,
    user: Text,
    since: UnixMillis,
    read: Counted,
    written: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Visiting {
    /// Announces it.
    pub(crate) fn begin(
        door: Door,
        service: Arc<Service>,
        caller: Arc<Caller>,
        (tenant, client, user): (TenantId, ClientId, Text),
    ) -> Self {
        let since = door.clock.wall();
        let (read, written) = (Counted::default(), Counted::default());
        let visiting = Self { door, service, caller, tenant, client, user, since, read, written };
        visiting.tell(Action::Connect);
        visiting
    }

    pub(crate) fn count_read(&self, message: &Message) {
        self.read.add(message.topic.len() + message.payload.len());
    }

    pub(crate) fn count_written(&self, bytes: usize) {
        self.written.add(bytes);
    }

    fn tell(&self, action: Action) {
        let address = self.caller.peer.ip().to_canonical().to_string();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let news = News {
            action,
            at: self.door.clock.wall(),
            client: &self.client,
            address: &address,
            port: self.caller.port,
            secure: self.caller.tls(),
            protocol: Protocol::Http,
            user: self.user.as_str(),
            certificate: "",
            connected: Some(self.since),
            close: Close::Normal,
            traffic: Traffic {
                read_bytes: of(&self.read.bytes),
                read_messages: of(&self.read.messages),
                written_bytes: of(&self.written.bytes),
                written_messages: of(&self.written.messages),
            },
        };
        for Published { topic, payload, retained } in published(&news) {
            assert!(!retained, "nothing of HTTP is retained");
            let message = Message { topic, payload: payload.into(), ..Message::empty() };
            self.service.pass(self.tenant, &message);
        }
    }
}

impl Drop for Visiting {
    fn drop(&mut self) {
        self.tell(Action::Disconnect);
    }
}
