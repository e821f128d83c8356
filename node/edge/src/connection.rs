//! Drives one connection: the socket, the protocol machine, and the link into the service.
//!
//! ```text
//!   socket ──read──► input ──► machine ──event──► link (service)
//!   socket ◄─write── output ◄── machine ◄─notice── mailbox ◄── service
//! ```
//!
//! One round takes all notices there are, reads once, hands every whole packet on and writes once: under load many
//! messages share each system call and each wake-up. Between rounds an idle connection owns no buffer.
//!
//! # Invariants
//!
//! - **What the service answered is all that is acknowledged**: the machine decides, this file moves bytes.
//! - **Every wait has a deadline**, the machine's (`poll_timeout`); the alarm is only moved when it has to ring earlier,
//!   so a packet costs no timer. Checked by `tests/tcp.rs` (`a_silent_client_is_closed_in_time`).

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use moorline_core::{
    Message, QoS, TenantId, Text, UnixMillis, Will,
    port::{Link, Notice, Open},
};
use moorline_mqtt::{
    Millis, Now, Reason, Version, codec,
    server::{self, Closed, ConnectRequest, Event},
};
use tokio::{
    io::AsyncReadExt,
    task::coop,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::DropGuard;
use tracing::{debug, info};

use crate::{
    accounts::Told,
    admission::Stranger,
    asked::Asked,
    authenticate::{Attempt, Denial, Identity},
    bucket::Turn,
    channel::Channel,
    edge::Edge,
    linger::linger,
    mailbox::Mailbox,
    noting::Noting,
    socket::Socket,
    transport::{Accepted, Opening, Transport},
};

/// The first read of a quiet connection: a device's usual packet and then some.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The largest read of a busy one: some hundred messages per system call.
const READ_BYTES_MAX: usize = 64 * 1024;
/// A read smaller than this part of the room was more room than needed.
const READ_SHRINK: usize = 8;
/// How long a stopping node waits for the answers that one connection's publishes are owed.
const STOP_ANSWERS_MS: u64 = 1_000;
/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The listener's name, for metrics.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    pub(crate) edge: Edge,
}

/// Serves a stream of MQTT until it is over.
pub(crate) async fn serve<S: Socket>(stream: S, accepted: Accepted, shaking: Opening<'_>) {
    accepted.shared.edge.metrics.opening();
    drop(shaking);
    // In a box of its own and by reference: a future has room for each place its parts are moved through.
    let mut connection = Box::new(Connection::new(stream, accepted));
    connection.run().await;
    connection.tell();
    linger(&mut connection.stream, connection.peer).await;
}

/// What came of a judgement.
type Judged = Result<Identity, Denied>;

/// Why there is no identity.
enum Denied {
    /// It was judged.
    No(Denial),
    /// It was not: the node judges as many as it may.
    Busy,
}

/// What the log calls a client that was let in. What it called itself only if it is no device: to some that is all they need to be
/// let in. A platform that serves its clients itself calls their sessions like their devices.
fn named(identity: &Identity, client: &Text) -> Option<Text> {
    let Identity { who, session, port, .. } = identity;
    match (who, port) {
        (Some(who), _) => Some(who.device.clone()),
        (None, Some(_)) => session.clone(),
        (None, None) => Some(client.clone()),
    }
}

/// A judgement that is waited for, and what it is about.
struct Judging {
    verdict: Pin<Box<dyn Future<Output = Judged> + Send>>,
    request: Box<ConnectRequest>,
    /// It was judged, and waits only for its turn.
    waits: bool,
}

struct Connection<S> {
    stream: S,
    peer: SocketAddr,
    /// Until it is known who it is.
    stranger: Option<Stranger>,
    mailbox: Arc<Mailbox>,
    /// What its TLS proved, until it is asked who it is.
    channel: Option<Box<Channel>>,
    /// It came over a WebSocket.
    websocket: bool,
    shared: Arc<Shared>,
    machine: server::Connection,
    link: Box<dyn Link>,
    /// Somebody watches over it until this is dropped.
    watched: Option<DropGuard>,
    notices: Vec<Notice>,
    input: BytesMut,
    output: BytesMut,
    /// The stream took bytes that are not on their way yet.
    unflushed: bool,
    /// Room for the next read.
    chunk: usize,
    alarm: Pin<Box<Sleep>>,
    /// When the alarm rings; `None` if it need not.
    alarm_at: Option<Millis>,
    judging: Option<Judging>,
    asked: Asked,
    /// What its accounts of publishes have told.
    told: Told,
    /// For who asks later what became of what it said.
    noting: Noting,
    /// The node stops: by when the answers must be there.
    stopping: Option<Millis>,
    /// The socket can't be written to any more.
    broken: bool,
    /// The protocol this connection is counted under as connected.
    counted: Option<Version>,
    /// Which device it was found to be; who is none is called as it says.
    device: Option<Text>,
    /// Whose it is, once it was let in.
    tenant: Option<TenantId>,
    since: Millis,
    received_bytes: u64,
    sent_bytes: u64,
    /// Why it ended.
    ended: &'static str,
}

/// Why [`Connection::wait`] came back.
#[derive(Default)]
struct Woke {
    read: bool,
    write: bool,
    notices: bool,
    alarm: bool,
    judged: Option<Judged>,
}

impl Woke {
    fn any(&self) -> bool {
        self.read || self.write || self.notices || self.alarm || self.judged.is_some()
    }
}

impl<S: Socket> Connection<S> {
    fn new(stream: S, accepted: Accepted) -> Self {
        let Accepted { peer, stranger, mailbox, channel, at, websocket, beginning, shared } =
            accepted;
        // 128 random bits: nobody else's id, on any node, and nobody can guess it to take the session over.
        let spare_id = Text::from(format!("auto-{:032x}", rand::random::<u128>()));
        let machine =
            server::Connection::new(Arc::clone(&shared.edge.settings.now().protocol), at, spare_id);
        let link = shared.edge.port.connect(mailbox.clone());
        Self {
            stream,
            peer,
            stranger: Some(stranger),
            mailbox,
            channel,
            machine,
            link,
            watched: None,
            websocket,
            notices: Vec::new(),
            input: beginning,
            output: BytesMut::new(),
            unflushed: false,
            chunk: READ_BYTES_MIN,
            alarm: Box::pin(sleep_until(Instant::now())),
            alarm_at: None,
            judging: None,
            asked: Asked::default(),
            told: Told::default(),
            noting: Noting::default(),
            stopping: None,
            broken: false,
            counted: None,
            device: None,
            tenant: None,
            since: at.at,
            received_bytes: 0,
            sent_bytes: 0,
            ended: "broken off",
            shared,
        }
    }

    async fn run(&mut self) {
        loop {
            let now = self.shared.edge.clock.now();
            self.take_notices(now);
            if self.stopping.is_none() {
                self.machine.receive(now, &mut self.input);
            }
            self.handle_events();
            self.transmit(now).await;
            // What was written may have made room.
            self.handle_events();
            let counters = self.machine.take_counters();
            let metrics = &self.shared.edge.metrics;
            metrics.add(self.machine.version(), &counters);
            let (waiting, imbalance) = (self.machine.publishes_waiting(), self.machine.imbalance());
            metrics.account(&mut self.told, waiting, imbalance);
            self.noting.refused(now.wall, &counters);
            self.noting.dropped(now.wall, &counters, self.mailbox.take_lost());
            if self.machine.is_closed() {
                // What breaking the socket meant is an event too.
                self.handle_events();
                if self.output.is_empty() && !self.unflushed || self.broken {
                    break;
                }
            }
            let woke = self.wait().await;
            if !self.act(woke).await {
                break;
            }
        }
    }

    /// Does what the wait was for. `false` if a closed connection's time is up.
    async fn act(&mut self, woke: Woke) -> bool {
        let now = self.shared.edge.clock.now();
        if let Some(judged) = woke.judged {
            self.open(now, judged);
        }
        if woke.read {
            self.read().await;
        }
        if woke.alarm {
            let was_closed = self.machine.is_closed();
            self.machine.handle_timeout(now);
            let is_due = self.machine.poll_timeout().is_some_and(|due| due <= now.at);
            return !(was_closed && is_due);
        }
        true
    }

    fn take_notices(&mut self, now: Now) {
        // Once for all of a burst.
        let instant = std::time::Instant::now();
        for notice in self.notices.drain(..) {
            if matches!(notice, Notice::Stopping { .. }) && self.machine.unanswered() > 0 {
                // What was published deserves its answer: the client would have to send it again.
                self.stopping.get_or_insert(now.at.plus(STOP_ANSWERS_MS));
                continue;
            }
            if let Notice::Published { token, .. } = notice
                && let Some(took) = self.asked.end(token, instant)
            {
                self.shared.edge.metrics.publish_answered(took);
            }
            self.noting.notice(now.wall, &notice);
            let opened = matches!(notice, Notice::Opened(Ok(_)));
            self.machine.notice(now, notice);
            if let (true, Some(version), false) =
                (opened, self.machine.version(), self.machine.is_closed())
            {
                self.shared.edge.metrics.connected(self.shared.name, version);
                self.counted = Some(version);
            }
        }
        if let Some(deadline) = self.stopping
            && (self.machine.unanswered() == 0 || deadline <= now.at)
        {
            self.machine.stop(now, None);
        }
    }

    fn handle_events(&mut self) {
        let instant = std::time::Instant::now();
        let at = self.shared.edge.clock.now().wall;
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Connect(request) => self.judge(request),
                Event::Publish { token, message } => {
                    if message.qos != QoS::AtMostOnce {
                        self.asked.begin(token, instant);
                    }
                    self.noting.publish(at, token, &message);
                    self.link.publish(token, message);
                }
                Event::PublishOnce { token, packet, message } => {
                    self.asked.begin(token, instant);
                    self.noting.publish(at, token, &message);
                    self.link.publish_once(token, packet.get(), message);
                }
                Event::Complete(packet) => self.link.complete(packet.get()),
                Event::Release(offsets) => self.link.release(offsets),
                Event::Subscribe { token, filters, user } => {
                    self.noting.subscribe(at, token, &filters);
                    self.link.subscribe_saying(token, filters, user);
                }
                Event::Unsubscribe { token, filters } => {
                    self.noting.unsubscribe(at, token, &filters);
                    self.link.unsubscribe(token, filters);
                }
                Event::Settled(offsets) => {
                    self.noting.settled(at, &offsets);
                    self.link.settle(&offsets);
                }
                Event::SettledShared(items) => {
                    self.noting.settled_shared(at, &items);
                    self.link.settle_shared(&items);
                }
                Event::RetainedTaken => self.link.retained_taken(),
                Event::Closed(closed) => self.close(closed),
            }
        }
    }

    fn judge(&mut self, request: Box<ConnectRequest>) {
        let attempt = Attempt {
            peer: self.peer,
            version: request.version,
            keep_alive_s: request.keep_alive_sent_s,
            clean_start: request.clean_start,
            expiry_s: request.expiry_s,
            will: request.will.as_ref().map(|will| (will.topic.clone(), will.payload.len())),
            client: request.client.clone(),
            username: request.username.clone(),
            password: request.password.clone(),
            channel: self.channel.take().map_or_else(Channel::default, |channel| *channel),
            port: self.shared.port,
            websocket: self.websocket,
        };
        let Ok(queued) = self.shared.edge.admission.budget.authentications.queue() else {
            // Nothing was asked of anybody.
            let now = self.shared.edge.clock.now();
            return self.machine.reject(now, Reason::ServerBusy);
        };
        let authenticate = Arc::clone(&self.shared.edge.authenticate);
        let verdict = Box::pin(async move {
            // Until it is judged: a shard that can't open its session must not keep others from being judged.
            let _place = queued.pass().await.map_err(|_limit| Denied::Busy)?;
            authenticate.authenticate(attempt).await.map_err(Denied::No)
        });
        self.judging = Some(Judging { verdict, request, waits: false });
    }

    fn open(&mut self, now: Now, judged: Judged) {
        let Some(Judging { request, waits, .. }) = self.judging.take() else { return };
        let edge = &self.shared.edge;
        if !waits {
            let method = edge.authenticate.method();
            match &judged {
                Ok(_) => edge.metrics.judged(method, None),
                Err(Denied::No(denial)) => edge.metrics.judged(method, Some(*denial)),
                Err(Denied::Busy) => {}
            }
        }
        if self.machine.is_closed() {
            return;
        }
        match judged {
            Ok(identity) if waits => self.enter(identity, *request),
            Ok(identity) => self.take_turn(now, identity, request),
            Err(Denied::Busy) => self.machine.reject(now, Reason::ServerBusy),
            Err(Denied::No(denial)) => {
                edge.metrics.rejected(denial.label());
                match reason_of(denial) {
                    Some(reason) => self.machine.reject(now, reason),
                    None => self.machine.ignore(now),
                }
            }
        }
    }

    /// A client is who it says, and may come in if it and its tenant do not come too often.
    fn take_turn(&mut self, now: Now, identity: Identity, request: Box<ConnectRequest>) {
        let edge = &self.shared.edge;
        let client = match &identity.session {
            Some(session) => Some(session.as_str()),
            None => (!request.assigned).then_some(request.client.as_str()),
        };
        let (turn, limit) = edge.admission.turn(identity.tenant, client, now.at);
        match turn {
            Turn::Now => self.enter(identity, *request),
            Turn::After(wait_ms) => {
                edge.metrics.connect_delayed();
                let verdict = Box::pin(async move {
                    sleep(Duration::from_millis(wait_ms)).await;
                    Ok(identity)
                });
                self.judging = Some(Judging { verdict, request, waits: true });
            }
            Turn::Refused => {
                edge.metrics.turned_away(limit);
                let called = identity.session.as_ref().unwrap_or(&request.client);
                Noting::too_often(identity.trail.as_ref(), now.wall, called);
                self.machine.reject(now, Reason::ConnectionRateExceeded);
            }
        }
    }

    fn enter(&mut self, identity: Identity, request: ConnectRequest) {
        self.device = named(&identity, &request.client);
        let Identity { tenant, session, who, port, rules, begin, trail } = identity;
        self.stranger = None;
        self.tenant = Some(tenant);
        let expiry_s = rules.map_or(request.expiry_s, |rules| self.machine.adopt(rules));
        self.watched = begin.map(|begin| begin(self.mailbox.clone()));
        if let Some(port) = port {
            self.link = port.connect(self.mailbox.clone());
        }
        let settings = self.shared.edge.settings.now();
        let config = &settings.config;
        let called = session.as_ref().unwrap_or(&request.client);
        self.noting.begin(trail, self.link.conn(), self.shared.edge.clock.now().wall, called);
        self.link.open(Open {
            tenant,
            client: session.unwrap_or(request.client),
            who,
            clean_start: request.clean_start,
            expiry_s,
            credit: request.credit,
            window: request.window,
            limits: config.session_limits(),
            sessions_max: config.sessions_per_shard_max,
            will: request.will.map(will_of),
        });
    }

    fn close(&mut self, closed: Closed) {
        self.noting.closed(self.shared.edge.clock.now().wall, closed.reason);
        self.link.close(closed.close);
        self.mailbox.close();
        self.watched = None;
        self.judging = None;
        if closed.reason == server::CloseReason::Stopping {
            self.stream.node_stops();
        }
        let (peer, reason) = (self.peer, closed.reason.label());
        self.ended = reason;
        debug!(%peer, device = ?self.device, reason, "connection closed");
        self.shared.edge.metrics.closed(closed.reason);
    }

    /// A line for whoever looks for it later. Who was not let in is not named: it may have said a secret in the wrong place.
    /// See [`named`].
    fn tell(&self) {
        let edge = &self.shared.edge;
        let now = edge.clock.now().at;
        let Some(left_out) = edge.settings.ended().may_log(now, self.tenant.is_some()) else {
            return;
        };
        let tenant = self.tenant.map(|tenant| tenant.0);
        let device = self.device.as_ref().map(Text::as_str);
        info!(
            tenant,
            device,
            conn = self.link.conn().0,
            peer = %self.peer,
            listener = self.shared.name,
            reason = self.ended,
            received_bytes = self.received_bytes,
            sent_bytes = self.sent_bytes,
            lasted_ms = now.0.saturating_sub(self.since.0),
            left_out,
            "connection ended"
        );
    }

    /// Writes as much as there is and the socket takes.
    async fn transmit(&mut self, now: Now) {
        self.write(now).await;
        if !self.broken {
            let stream = &mut self.stream;
            let flushed = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_flush(cx))).await;
            self.unflushed = flushed.is_pending();
            if matches!(flushed, Poll::Ready(Err(_))) {
                self.break_off(now);
            }
        }
    }

    async fn write(&mut self, now: Now) {
        while !self.broken {
            self.machine.poll_transmit(now, &mut self.output);
            if self.output.is_empty() {
                return;
            }
            let (stream, output) = (&mut self.stream, &self.output);
            let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, output)));
            match written.await {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.output.advance(written);
                    self.sent_bytes += written as u64;
                    self.shared.edge.metrics.wrote(written);
                    if !self.output.is_empty() {
                        return; // the socket is full
                    }
                }
                Poll::Ready(Ok(0) | Err(_)) => self.break_off(now),
                Poll::Pending => return,
            }
        }
    }

    fn break_off(&mut self, now: Now) {
        self.broken = true;
        self.machine.peer_gone(now);
    }

    /// Reads once, if there is something.
    async fn read(&mut self) {
        let spare = self.input.capacity() - self.input.len();
        if spare < self.chunk / READ_SHRINK {
            self.input.reserve(self.chunk);
        }
        let room = self.input.capacity() - self.input.len();
        let read = poll_once(self.stream.read_buf(&mut self.input)).await;
        match read {
            Some(Ok(0) | Err(_)) => {
                let now = self.shared.edge.clock.now();
                // What came before the end still counts.
                self.machine.receive(now, &mut self.input);
                self.handle_events();
                self.break_off(now);
            }
            Some(Ok(bytes)) => {
                self.received_bytes += bytes as u64;
                self.shared.edge.metrics.read(bytes);
                if bytes == room {
                    self.chunk = (self.chunk * 2).min(READ_BYTES_MAX);
                } else if bytes < self.chunk / READ_SHRINK {
                    self.chunk = (self.chunk / 2).max(READ_BYTES_MIN);
                }
            }
            None => {}
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) -> Woke {
        let due = self.machine.poll_timeout().into_iter().chain(self.stopping).min();
        if let Some(due) = due
            && self.alarm_at.is_none_or(|armed| due < armed)
        {
            self.alarm.as_mut().reset(self.shared.edge.clock.instant(due).into());
            self.alarm_at = Some(due);
        }
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Woke> {
        if !coop::has_budget_remaining() {
            // A busy connection shares its thread with the others.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let wants_read = self.machine.wants_read() && self.stopping.is_none();
        let mut woke = Woke {
            notices: self.mailbox.poll_take(cx, &mut self.notices).is_ready(),
            // An error is seen by the read or write that follows.
            read: wants_read && self.stream.poll_readable(cx).is_ready(),
            write: self.poll_write(cx),
            alarm: self.alarm_at.is_some() && self.alarm.as_mut().poll(cx).is_ready(),
            judged: None,
        };
        if woke.alarm {
            self.alarm_at = None;
        }
        if let Some(judging) = &mut self.judging
            && let Poll::Ready(judged) = judging.verdict.as_mut().poll(cx)
        {
            woke.judged = Some(judged);
        }
        if woke.any() {
            return Poll::Ready(woke);
        }
        // Idle from here on: give the buffers back.
        self.asked.rest();
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > 0 {
                *buffer = BytesMut::new();
            }
        }
        Poll::Pending
    }

    /// Whether there is something to write and the stream would take it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken {
            return false;
        }
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx).is_pending() {
            return false;
        }
        self.unflushed || !self.output.is_empty() && self.stream.poll_writable(cx).is_ready()
    }
}

/// However it ends, also by being dropped, nobody counts it or pushes to it any more.
impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.mailbox.close();
        self.shared.edge.metrics.account_closed(self.told);
        match self.counted {
            Some(version) => self.shared.edge.metrics.disconnected(self.shared.name, version),
            None => self.shared.edge.metrics.never_opened(),
        }
    }
}

/// Polls a cancel-safe future once.
async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A will as the service takes it: its message's lifetime begins when it is published.
fn will_of(will: codec::Will) -> Will {
    let lifetime = will.expiry_s.map(|seconds| UnixMillis(u64::from(seconds) * 1_000));
    Will {
        message: Message {
            topic: will.topic,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            expires_at: lifetime,
            payload: will.payload,
        },
        delay_s: will.delay_s.unwrap_or(0),
    }
}

/// What a CONNACK says; `None`: there is none.
fn reason_of(denial: Denial) -> Option<Reason> {
    Some(match denial {
        Denial::BadCredentials => Reason::BadUserNameOrPassword,
        Denial::NotAuthorised | Denial::Expired | Denial::Plaintext => Reason::NotAuthorized,
        Denial::Busy | Denial::BannedAsBusy | Denial::Crowded => Reason::ServerBusy,
        Denial::Banned => Reason::Banned,
        Denial::Unavailable => Reason::ServerUnavailable,
        Denial::ClientId => Reason::ClientIdentifierNotValid,
        Denial::Version => Reason::UnsupportedProtocolVersion,
        Denial::Unanswered => return None,
    })
}

#[cfg(test)]
mod tests {
    use moorline_core::rights::Who;

    use super::*;

    #[test]
    fn the_log_does_not_say_what_a_device_called_itself() {
        let said = Text::from("its-only-secret");
        let device = Text::from("pump-1");
        let who = Who { device: device.clone(), born: 1, kind: None, class: "device", own: None };
        let session = Some(Text::from(format!("pump-1\u{1f}{said}")));
        let of = || Identity::of(TenantId(1));
        let known = Identity { session, who: Some(Arc::new(who)), ..of() };
        assert_eq!(named(&known, &said), Some(device));
        assert_eq!(named(&of(), &said), Some(said), "it is nobody's device");
    }
}
