//! Messaging over HTTP, at the listener that all platforms share: what `moorline_dialects::watson::http` decides, done. The management API
//! has the same paths before it, and a host name of its own: `rest`.
//!
//! ```text
//!   head ─► route ─► who is it? (door) ─► body ─► event, command ─► a publish of QoS 1 by no session ─► 200
//!                                             └─► fetch.rs: one queued command ─────────────────────► 200, 204
//! ```
//!
//! # Invariants
//!
//! - **200 means what a PUBACK means**: the message is where it was to go, synced on a majority. A command is settled when its answer was
//!   taken.
//! - **Nobody is let in by what an earlier request showed**: each is judged, and none may show something else than the first of its
//!   connection did.
//! - **A refusal has no body and ends the connection.**
//!
//! Checked by the cluster tests (`watson_http.rs`).

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join;
use moorline_core::{Message, QoS, Text, port};
use moorline_dialects::watson::{
    PAYLOAD_BYTES_MAX,
    about::Bounds,
    close::Close,
    http::{self, Head, Outcome, Refusal, Route, Routed, WAIT_BODY_BYTES_MAX},
    identity::{ClientId, Proof, USE_TOKEN_AUTH, Who, sni_contradicts},
    presence::Protocol,
    rest,
    topics::{self, Asks, Role as GatewayRole, standard_reach},
};
use moorline_edge::Doorkeeper;
use moorline_http::{Answer, Answered, Body, Caller, Conversation, Platform, Request, Unread};
use moorline_service::{
    Service,
    registry::{
        door::By,
        explain::{Cause, Stage},
    },
};
use prometheus::IntGauge;

use crate::{
    door::{Door, Entered, Stay, device_name},
    failed::Failed,
    fetch::{self, Fetched, Wanted},
    gateway::Registrar,
    judge::{Judge, Turned},
    managed::Manager,
    post::{self, Post},
    rest::Rest,
    visits::Visiting,
};

/// HTTP messaging for Watson's clients.
#[derive(Clone)]
pub struct Http {
    door: Door,
    service: Arc<Service>,
    judge: Judge,
    manager: Manager,
    rest: Rest,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Behind this door, before this service. `doors`: who failed too often, the same that counts those of MQTT.
    #[must_use]
    pub fn new(door: Door, service: Arc<Service>, doors: Doorkeeper) -> Self {
        let judge = Judge::new(door.clone(), doors);
        let manager = Manager { door: door.clone(), service: Arc::clone(&service) };
        let rest = Rest::new(manager.clone(), judge.clone());
        Self { door, service, judge, manager, rest }
    }
}

impl Platform for Http {
    fn claims(&self, path: &str) -> bool {
        http::is_path(path)
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Connection { http: self.clone(), caller, speaker: OnceLock::new() })
    }
}

/// What the requests of one connection share.
struct Connection {
    http: Http,
    caller: Arc<Caller>,
    /// Who speaks by it, once somebody was let in.
    speaker: OnceLock<Speaker>,
}

/// Who speaks by a connection, to its end.
struct Speaker {
    client: ClientId,
    proof: Proof,
    /// Of a gateway.
    registrar: Option<Registrar>,
    /// What it might when it came, if it is one.
    bounds: Bounds,
    /// Told of when it comes and goes.
    visiting: Visiting,
}

impl Conversation for Connection {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, body) = request.split();
            let headers = head.headers();
            let query = head.query().unwrap_or_default();
            let head = Head { method: head.method(), path: head.path(), headers: &headers };
            if rest::is_meant(&head) {
                return Box::pin(self.http.rest.answer(&self.caller, &head, query, body)).await;
            }
            let routed = http::route(&head);
            let what = routed.as_ref().map_or("none", |routed| label(&routed.route));
            let answered = match routed {
                Ok(routed) => self.outcome(routed, &head, body).await,
                Err(refusal) => Err(refusal),
            };
            let answer = answered.unwrap_or_else(|refusal| Found::of(Outcome::Refused(refusal)));
            let status = answer.status.to_string();
            self.http.door.metrics.requests.with_label_values(&[what, &status]).inc();
            answer.answer
        })
    }
}

/// An answer, and what is counted of it.
struct Found {
    status: u16,
    answer: Answer,
}

impl Found {
    fn of(outcome: Outcome) -> Self {
        let http::Response { status, headers, body, .. } = http::respond(outcome);
        Self { status, answer: Answer::whole(status, &headers, body) }
    }
}

impl Connection {
    async fn outcome(&self, routed: Routed, head: &Head<'_>, body: Body) -> Result<Found, Refusal> {
        let entered = self.enter(&routed).await?;
        let done = self.done(&entered, routed.route, head, body).await;
        if let Err(refusal) = &done {
            self.note_refused(&entered, head.path, refusal);
        }
        done
    }

    /// Whoever asks later why it did not arrive hears of it.
    fn note_refused(&self, entered: &Entered, path: &str, refusal: &Refusal) {
        let Some(device) = self.known().client.device().map(device_name) else { return };
        let cause = match refusal {
            Refusal::Forbidden => Cause::PublishForbidden,
            Refusal::NotFound => Cause::UnknownTopic,
            Refusal::TooLarge => Cause::TooLarge,
            Refusal::Unavailable => Cause::PublishUnavailable,
            Refusal::BadRequest | Refusal::Method | Refusal::MediaType => Cause::UnreadablePayload,
            Refusal::Failed => Cause::PlatformRefused,
        };
        let whose = (entered.tenant, &device);
        self.http.door.registry.note_refused(whose, Stage::Request, path, cause);
    }

    async fn done(
        &self,
        entered: &Entered,
        route: Route,
        head: &Head<'_>,
        body: Body,
    ) -> Result<Found, Refusal> {
        if let Some(filter) = route.filter() {
            let body = read(body, WAIT_BODY_BYTES_MAX, Refusal::BadRequest).await?;
            let wait = Duration::from_secs(http::wait_s(&body)?.into());
            return self.fetch(entered, filter, wait).await;
        }
        let body = read(body, PAYLOAD_BYTES_MAX, Refusal::TooLarge).await?;
        self.publish(entered, &route, head, body).await?;
        Ok(Found::of(Outcome::Published))
    }

    // ---- who it is

    /// Lets a request in.
    async fn enter(&self, routed: &Routed) -> Result<Entered, Refusal> {
        let secret = routed.secret.clone();
        let proof = match &routed.key {
            Some(key) => Proof::Key { key: key.clone(), token: secret },
            None => Proof::Token(secret),
        };
        let org = routed.speakers.first().map(|client| &client.org);
        let server_name = self.caller.channel.server_name.as_ref();
        if org.zip(server_name).is_some_and(|(org, name)| sni_contradicts(name.as_bytes(), org)) {
            return Err(Refusal::Forbidden);
        }
        let known = self.speaker.get();
        let is_known =
            |known: &Speaker| known.proof == proof && routed.speakers.contains(&known.client);
        if known.is_some_and(|known| !is_known(known)) {
            return Err(Refusal::Forbidden);
        }
        let readings =
            known.map_or(&routed.speakers[..], |known| std::slice::from_ref(&known.client));
        let let_in = self.http.judge.let_in(&self.caller, readings, &proof).await;
        let (client, entered) = let_in.map_err(|turned| match turned {
            Turned::Wrong | Turned::Forbidden => {
                self.failed(readings, &proof, turned);
                Refusal::Forbidden
            }
            Turned::Banned => Refusal::Forbidden,
            Turned::Unavailable => Refusal::Unavailable,
        })?;
        // Its connection has to begin anew with what it may now.
        if self.speaker.get().is_some_and(|known| known.bounds != entered.bounds) {
            return Err(Refusal::Forbidden);
        }
        self.caller.is_known();
        if let Some(guest) = entered.stay.device() {
            self.http.door.registry.heard(guest);
        }
        self.speaker.get_or_init(|| self.speaker(client, proof, &entered));
        Ok(entered)
    }

    /// Nobody was let in: those who watch whom it said it was hear so.
    fn failed(&self, readings: &[ClientId], proof: &Proof, turned: Turned) {
        self.http.manager.failed(Failed {
            readings: readings.to_vec(),
            close: Close::NotAuthorised,
            peer: self.caller.peer.ip(),
            port: self.caller.port,
            secure: self.caller.tls(),
            protocol: Protocol::Http,
            user: user_of(proof),
            // Who comes so too often is banned.
            is_kept: turned == Turned::Wrong,
        });
    }

    fn speaker(&self, client: ClientId, proof: Proof, entered: &Entered) -> Speaker {
        let registrar = match &client.who {
            Who::Gateway(own) => {
                Some(Registrar::new(entered.tenant, &client.org, own, entered.bounds.role))
            }
            Who::Device(_) | Who::Application { .. } | Who::SharedApplication { .. } => None,
        };
        let user = user_of(&proof);
        let (door, service) = (self.http.door.clone(), Arc::clone(&self.http.service));
        let caller = Arc::clone(&self.caller);
        let visiting =
            Visiting::begin(door, service, caller, (entered.tenant, client.clone(), user));
        Speaker { client, proof, registrar, bounds: entered.bounds, visiting }
    }

    /// Who was let in.
    fn known(&self) -> &Speaker {
        self.speaker.get().expect("somebody was let in before anything is done")
    }

    // ---- what is asked for

    async fn publish(
        &self,
        entered: &Entered,
        route: &Route,
        head: &Head<'_>,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let speaker = self.known();
        let said = http::message(route, head, &body)?.ok_or(Refusal::NotFound)?;
        let is_application = speaker.client.class().is_application();
        if is_application && !entered.may.allow(said.needs()) {
            return Err(Refusal::Forbidden);
        }
        if let Some(registrar) = &speaker.registrar {
            let address = self.caller.peer.ip().to_canonical().to_string();
            let client = speaker.client.to_string();
            let registry = &self.http.door.registry;
            let registered = registrar.registered(registry, said.device(), (&client, &address));
            match registered.await {
                Ok(true) => {}
                Ok(false) => return Err(Refusal::Forbidden),
                Err(_) => return Err(Refusal::Unavailable),
            }
        }
        let topic = said.topic();
        let message = Message { topic, qos: QoS::AtLeastOnce, payload: body, ..Message::empty() };
        speaker.visiting.count_read(&message);
        self.http.door.note_event(entered.tenant, &said, &message.payload);
        let door = &self.http.door;
        let appending = door.append(entered.tenant, &said, &message.payload, By::Http);
        let appended = async {
            match appending {
                Some(appending) => appending.await,
                None => Ok(()),
            }
        };
        let published = self.http.service.publish(entered.tenant, message);
        let (published, appended) = join(published, appended).await;
        published.map(drop).and(appended).map_err(refused)
    }

    /// A standard gateway may ask for commands of devices of its group, one by one.
    async fn may_fetch(&self, speaker: &Speaker, filter: &Text) -> Result<(), Refusal> {
        let standard =
            speaker.registrar.as_ref().filter(|known| known.role() == GatewayRole::Standard);
        let Some(registrar) = standard else { return Ok(()) };
        let wanted = topics::subscribe(&speaker.client, filter.as_bytes());
        let asks = wanted.ok().and_then(|wanted| standard_reach(&wanted));
        let grouped = match asks.ok_or(Refusal::Forbidden)? {
            Asks::Itself => Ok(true),
            Asks::Of(device) => registrar.grouped(&self.http.door.registry, &device).await,
        };
        match grouped {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Forbidden),
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    async fn fetch(
        &self,
        entered: &Entered,
        filter: Text,
        wait: Duration,
    ) -> Result<Found, Refusal> {
        let Entered { tenant, stay, .. } = entered;
        let (speaker, door) = (self.known(), &self.http.door);
        let client = &speaker.client;
        self.may_fetch(speaker, &filter).await?;
        let wanted = Wanted {
            tenant: *tenant,
            session: entered
                .session_of_standard(client)
                .unwrap_or_else(|| Text::from(client.to_string())),
            filter,
            requested: door.rules.now().session_of_requests(client.class()),
            wait,
        };
        let post = match client.device() {
            Some(device) => Post::new(door, &self.http.service, device, &wanted).await,
            None => None,
        };
        let post = match post {
            Some(post) => match post.look().await.ok().flatten() {
                Some(mail) => return Ok(self.mail(post, mail)),
                None => Some(post),
            },
            None => None,
        };
        let _waiting = Waiting::begin(&door.metrics.waiting);
        // As long as it waits it is a connection that speaks for the device.
        let _present = stay.device().map(|guest| door.registry.arrive(guest));
        let fetching = Box::pin(fetch::fetch(&self.http.service, wanted, &self.caller.stop));
        let fetched = tokio::select! {
            fetched = fetching => fetched.map_err(refused)?,
            mail = post::comes(post.as_ref()) => match post {
                Some(post) => return Ok(self.mail(post, mail)),
                None => Fetched::Nothing,
            },
            () = revoked(door, stay, wait) => return Err(Refusal::Forbidden),
        };
        let (command, settling) = match fetched {
            Fetched::Nothing => return Ok(Found::of(Outcome::Nothing)),
            Fetched::Elsewhere => return Ok(Found::of(Outcome::ConnectedElsewhere)),
            Fetched::Command(command, settling) => (command, settling),
        };
        Ok(self.told(command, Box::new(move || settling.settle())))
    }

    /// A command that waited in the device's mailbox.
    fn mail(&self, post: Post, (command, id): (fetch::Command, u128)) -> Found {
        self.told(command, Box::new(move || post.taken(id)))
    }

    fn told(&self, command: fetch::Command, taken: Box<dyn FnOnce() + Send>) -> Found {
        let fetch::Command { device, name: command, format, payload } = command;
        self.known().visiting.count_written(payload.len());
        let came = Outcome::Command { device, command, format, payload };
        let http::Response { status, headers, body, .. } = http::respond(came);
        Found { status, answer: Answer::told(status, &headers, body, taken) }
    }
}

fn user_of(proof: &Proof) -> Text {
    match proof {
        Proof::Key { key, .. } => Text::from(key.to_string()),
        Proof::Token(_) | Proof::Nothing => Text::from(USE_TOKEN_AUTH),
    }
}

/// Returns when a client that waits may not stay. One that does not wait was judged a moment ago.
async fn revoked(door: &Door, stay: &Stay, wait: Duration) {
    if wait.is_zero() {
        return std::future::pending().await;
    }
    door.until_revoked(stay).await;
}

/// Counts a request that is not answered yet.
struct Waiting(IntGauge);

impl Waiting {
    fn begin(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn read(body: Body, bytes_max: usize, too_large: Refusal) -> Result<Bytes, Refusal> {
    body.read(bytes_max).await.map_err(|unread| match unread {
        Unread::TooLarge => too_large,
        Unread::BrokeOff => Refusal::BadRequest,
    })
}

/// What the service's refusal means to a client of HTTP.
fn refused(refusal: port::Refusal) -> Refusal {
    match refusal {
        port::Refusal::NotAuthorised => Refusal::Forbidden,
        port::Refusal::TooLarge => Refusal::TooLarge,
        port::Refusal::Topic => Refusal::NotFound,
        port::Refusal::Payload | port::Refusal::Platform(_) => Refusal::BadRequest,
        port::Refusal::Busy
        | port::Refusal::Unavailable
        | port::Refusal::Quota
        | port::Refusal::DiskFull => Refusal::Unavailable,
    }
}

/// What is asked for, as a label.
fn label(route: &Route) -> &'static str {
    match route {
        Route::Event { .. } => "event",
        Route::Command { .. } => "command",
        Route::FetchCommand { .. } => "fetch",
    }
}
