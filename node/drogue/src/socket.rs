//! Events to applications over a WebSocket, at the HTTP listeners that all platforms share.
//!
//! ```text
//!   handshake ─► who is it? (door.rs) ─► feed.rs ─► Mailbox ─► messages, and behind them a ping with their number
//!                                            ▲────────── taken ◄────────── its answer
//! ```
//!
//! Each path is an application there, so whoever else has a path for WebSockets has it before ([`Sockets`] is asked last), and
//! MQTT's are told by their subprotocol before that (`node/edge`).
//!
//! # Invariants
//!
//! - **Nothing is said to who has not shown a key of the application**: that is looked at before the handshake is answered. A key that
//!   does not count any more closes the connection.
//! - **At least once**: what the client has not heard is not committed. It has heard what lies before a ping that it answers.
//! - **Bounded**: [`AHEAD_MAX`] events are on their way. Who does not take them gets no more, and after [`SILENCE_MAX`] is gone.
//!
//! Checked by the cluster tests (`drogue_applications.rs`).

use std::{collections::VecDeque, fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::{
    Delivery, QoS, TenantId, Text,
    port::{Inbox, Notice, Overflow},
};
use moorline_dialects::{
    drogue::{
        application::Form,
        http::{Head, Response},
        outcome::Refusal,
        socket::{
            self, Asked, CLOSE_AWAY, CLOSE_INVALID, CLOSE_POLICY, CLOSE_UNSUPPORTED, refreshed,
        },
    },
    secret::Secret,
};
use moorline_http::{Answer, Answered, Caller, Conversation, Heard, Platform, Request, WebSocket};
use moorline_machine::events::CONSUMER_NAME_BYTES_MAX;
use moorline_service::registry::{
    door::By,
    principal::{ApiToken, kept_as},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    application::stays,
    door::{Door, Turned},
    feed::{AHEAD_MAX, Feed, Tap},
    groups::Ungrouped,
    http::refusal_of,
    metrics::{Counted, SOCKET},
};

/// What has a header of this name is a handshake.
const HANDSHAKE: &str = "sec-websocket-key";
/// How often a client is asked whether it is there.
const ASKS_EVERY: Duration = Duration::from_secs(5);
/// After how long without a word it is gone; and if it takes nothing for as long.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Events after which a client is asked whether it has heard them, if there are more: a few questions are on their way at once.
const PROBE_EVERY: usize = AHEAD_MAX / 4;
/// Events that wait for their connection: those of a feed, and of the same one as it was before.
const MAILBOX_MAX: usize = 2 * AHEAD_MAX;
/// Each connection has one feed.
const FEED: u16 = 1;

/// WebSockets for Drogue's applications. To be asked behind all others.
#[derive(Clone)]
pub struct Sockets(Door);

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").finish_non_exhaustive()
    }
}

impl Sockets {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }
}

impl Platform for Sockets {
    fn claims(&self, _: &str) -> bool {
        false
    }

    fn claims_with(&self, path: &str, has: &dyn Fn(&str) -> bool) -> bool {
        // Whether there is the application that a path names is told to nobody who has no key.
        has(HANDSHAKE) && socket::is_path(path) && self.0.has_applications()
    }

    fn speaks_websocket(&self, path: &str) -> bool {
        socket::is_path(path)
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Connection { door: self.0.clone(), caller })
    }
}

struct Connection {
    door: Door,
    caller: Arc<Caller>,
}

/// Returns when a key does not count any more.
type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who was let in.
struct Entered {
    tenant: TenantId,
    application: Text,
    revoked: Revoked,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, _) = request.split();
            let headers = head.headers();
            let (query, path) = (head.query().unwrap_or_default(), head.path());
            let asked = Head { method: head.method(), path, query, headers: &headers };
            let begun = match socket::route(&asked) {
                Ok(asked) => self.begin(asked).await,
                Err(refusal) => Err(refusal),
            };
            let count = |status: &str| {
                self.door.metrics.requests.with_label_values(&[SOCKET, status]).inc();
            };
            match begun {
                Ok(session) => {
                    count("101");
                    let talk = move |socket| -> Pin<Box<dyn Future<Output = ()> + Send>> {
                        Box::pin(session.talk(socket))
                    };
                    Answer::websocket(&head, Box::new(talk))
                }
                Err(refusal) => {
                    count(&refusal.status().to_string());
                    let response = Response::refused(&refusal);
                    Answer::whole(response.status, &response.headers, response.body)
                }
            }
        })
    }
}

/// Lets somebody in who shows a key of an application.
async fn enter(
    door: &Door,
    caller: &Caller,
    application: &str,
    key: &Secret,
) -> Result<Entered, Turned> {
    let key = std::str::from_utf8(key.expose()).map_err(|_| Turned::Away)?;
    // Before its row is read: what changes from then on is told.
    let token = ApiToken::parse(key.trim());
    let watch = token.map(|token| door.registry.watch(token.tenant, &kept_as(token.name)));
    let from = caller.peer.ip().to_canonical();
    let principal = door.principal(key, By::Http, from).await?;
    let watch = watch.ok_or(Turned::Away)?;
    if !caller.tls() && !door.registry.takes_plaintext(principal.tenant) {
        return Err(Turned::Away);
    }
    caller.is_known();
    let (tenant, application) = door.application(application).await?;
    if tenant != principal.tenant {
        return Err(Turned::Away);
    }
    let door = door.clone();
    let revoked: Revoked = Box::pin(async move {
        let stays = || stays(&door, &principal);
        watch.until_revoked(None, || door.now_ms(), stays).await;
    });
    Ok(Entered { tenant, application, revoked })
}

impl Connection {
    /// Whoever asks is let in, and has a place among those who read.
    async fn begin(&self, asked: Asked) -> Result<Session, Refusal> {
        let Asked { application, channel, group, key } = asked;
        let entered = enter(&self.door, &self.caller, &application, &key).await;
        let Entered { tenant, application, revoked } = entered.map_err(refusal_of)?;
        let group = group.map(Text::from);
        if group.as_ref().is_some_and(|group| group.len() > CONSUMER_NAME_BYTES_MAX) {
            return Err(Refusal::Request("The name of the group is too long".to_owned()));
        }
        let reading = self.door.registry.begin_reading(tenant).map_err(|_| Refusal::Full)?;
        let start = self.door.begins(tenant, group.as_ref()).await.map_err(|why| match why {
            Ungrouped::Full => Refusal::Full,
            Ungrouped::Unavailable => Refusal::Unavailable,
        })?;
        let (sender, events) = mpsc::channel(MAILBOX_MAX);
        let full = CancellationToken::new();
        let feed = Feed {
            door: self.door.clone(),
            tenant,
            application: application.clone(),
            group,
            channel: channel.map(Text::from),
            topic: Text::default(),
            form: Form::V3,
            qos: QoS::AtMostOnce,
            id: None,
            inbox: Arc::new(Mailbox { events: sender, full: full.clone() }),
            start,
            _reading: reading,
        };
        let (door, caller) = (self.door.clone(), Arc::clone(&self.caller));
        Ok(Session { door, caller, application, revoked, feed, events, full })
    }
}

/// Where a feed puts events: it has no more on their way than there is room for, unless it begins anew while its client takes
/// nothing of what it had before.
#[derive(Debug)]
struct Mailbox {
    events: mpsc::Sender<Delivery>,
    full: CancellationToken,
}

impl Inbox for Mailbox {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        let Notice::Deliver(deliveries) = notice else { return Ok(()) };
        let put = deliveries.into_iter().try_for_each(|one| self.events.try_send(one));
        put.map_err(|_| {
            // What found no room would never be taken.
            self.full.cancel();
            Overflow
        })
    }
}

/// Why a connection is over.
enum Over {
    /// There is nobody any more.
    Gone,
    /// It takes nothing.
    Slow,
    /// Its key does not count any more.
    Revoked,
    /// It says what there is not, and is told so by this code.
    Invalid(u16),
    /// The node takes leave.
    Stopping,
}

impl Over {
    fn name(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::Revoked => "revoked",
            Self::Invalid(_) => "invalid",
            Self::Stopping => "stopping",
        }
    }

    /// What the client is told, if there is anybody to tell.
    fn goodbye(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::Gone | Self::Slow => None,
            Self::Revoked => Some((CLOSE_POLICY, "the token does not count any more")),
            Self::Invalid(code) => Some((*code, "there is no such message")),
            Self::Stopping => Some((CLOSE_AWAY, "the node stops")),
        }
    }
}

/// A connection that was let in.
struct Session {
    door: Door,
    caller: Arc<Caller>,
    application: Text,
    revoked: Revoked,
    feed: Feed,
    events: mpsc::Receiver<Delivery>,
    full: CancellationToken,
}

/// What is on its way.
struct Sending {
    tap: Tap,
    /// Numbers of events that the client has not said to have heard.
    out: VecDeque<u64>,
    /// Of them, behind the last that it was asked for.
    unprobed: usize,
}

impl Session {
    async fn talk(self, mut socket: WebSocket) {
        let Self { door, caller, application, mut revoked, feed, mut events, full } = self;
        let _counted = Counted::of(&door.metrics.connections.with_label_values(&["application"]));
        socket.ask_every(ASKS_EVERY, SILENCE_MAX);
        let mut sending = Sending { tap: feed.begin(FEED), out: VecDeque::new(), unprobed: 0 };
        let over = loop {
            let heard = tokio::select! {
                () = caller.stop.cancelled() => break Over::Stopping,
                () = &mut revoked => break Over::Revoked,
                () = full.cancelled() => break Over::Slow,
                Some(event) = events.recv() => {
                    let more = !events.is_empty();
                    let sent = timeout(SILENCE_MAX, sending.send(&mut socket, &event, more)).await;
                    match sent {
                        Ok(true) => continue,
                        Ok(false) => break Over::Gone,
                        Err(_) => break Over::Slow,
                    }
                }
                heard = socket.hear() => heard,
            };
            match heard {
                Heard::Upto(number) => sending.heard(number),
                Heard::Bytes => break Over::Invalid(CLOSE_UNSUPPORTED),
                Heard::Gone => break Over::Gone,
                Heard::Text(text) => {
                    let Some(key) = refreshed(&text) else {
                        break Over::Invalid(CLOSE_INVALID);
                    };
                    match enter(&door, &caller, application.as_str(), &key).await {
                        Ok(entered) => revoked = entered.revoked,
                        Err(Turned::Away) => break Over::Revoked,
                        // The key that it has shown before counts as long as it does.
                        Err(Turned::Unavailable | Turned::Misconfigured) => {}
                    }
                }
            }
        };
        debug!(peer = %caller.peer, why = over.name(), "a WebSocket of an application is over");
        door.metrics.sockets_closed.with_label_values(&[over.name()]).inc();
        // What was heard is committed, and another member may read, before the client is waited for.
        drop(sending);
        if let Some((code, reason)) = over.goodbye() {
            socket.close(code, reason).await;
        }
    }
}

impl Sending {
    /// Sends an event, and asks whether it was heard, unless `more` come at once. `false`: nobody is there.
    async fn send(&mut self, socket: &mut WebSocket, event: &Delivery, more: bool) -> bool {
        let Some(number) = event.offset.map(|offset| offset.0) else { return true };
        let said = text(&event.message.payload);
        if !socket.say(said).await {
            return false;
        }
        self.out.push_back(number);
        self.unprobed += 1;
        if more && self.unprobed < PROBE_EVERY {
            return true;
        }
        self.unprobed = 0;
        socket.probe(number).await
    }

    fn heard(&mut self, upto: u64) {
        let many = self.out.partition_point(|number| *number <= upto);
        let taken: Vec<_> = self.out.drain(..many).collect();
        self.tap.taken(&taken);
    }
}

/// An event as it is kept is JSON, and so is UTF-8.
fn text(event: &Bytes) -> String {
    String::from_utf8_lossy(event).into_owned()
}
