//! One connection's way into the service: what its client says, under canonical names.
//!
//! # Invariants
//!
//! - **What no table of its class has does not get through**, and costs what the platform says (`topics::consequence`).
//! - **Retain flags mean nothing**: nothing of a client is retained.
//!
//! Checked by the cluster tests (`watson.rs`).

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Message, Offset, QoS, ShareNumber, TenantId, Text, Will,
    port::{Close, Ended, Filter, Link, Notice, Open, Published, Refusal, Token},
};
use moorline_dialects::watson::{
    close,
    connect::Opening,
    identity::{ClientId, DeviceName},
    management::address::Upward,
    notice::{self, Request},
    topics::{
        self, Consequence, Forbidden, Message as Said, Permissions, Violation, consequence, fits,
    },
};

use moorline_edge::Clock;
use moorline_service::registry::{
    door::By,
    explain::{Cause, Stage},
    mailman::Mailman,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    asking::{Asking, Looking},
    door::{Door, device_name},
    gateway::{Held, Registrar, Turn},
    inbox::Shared,
    managed::{Desk, Letter, Manager},
    metrics::label,
    mqtt::About,
    presence::{self, Announced},
    quickstart::{self, Seat},
};

/// Bytes of a PUBLISH of MQTT 5 besides topic, properties and payload, at most: header, lengths, packet id.
const PUBLISH_BYTES: usize = 13;

/// The service's link, also for who announces its client.
pub(crate) type Below = Arc<Mutex<Box<dyn Link>>>;
/// The same, for who must not keep it.
pub(crate) type WeakBelow = Weak<Mutex<Box<dyn Link>>>;

/// See the module.
pub(crate) struct WatsonLink {
    door: Door,
    tenant: TenantId,
    opening: Opening,
    asking: Asking,
    /// Of a gateway.
    looking: Option<Looking>,
    /// Of a client of quickstart.
    seat: Option<Arc<Seat>>,
    shared: Arc<Shared>,
    link: Below,
    announced: Arc<Announced>,
    notices: Notices,
    /// Of a gateway.
    registrar: Option<Arc<Registrar>>,
    desk: Desk,
    /// Who brings the device's mail, since it has subscribed to something.
    mailman: OnceLock<DropGuard>,
}

impl fmt::Debug for WatsonLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatsonLink").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// A message that may go on, or what became of it.
enum Read {
    On(Said, Message),
    /// It is for the server.
    Management(DeviceName, Upward, Message),
    /// It is dropped; whoever waits for an answer hears this.
    Dropped(Result<Published, Refusal>),
    /// The connection ends.
    Ended,
}

impl WatsonLink {
    pub(crate) fn new(
        manager: Manager,
        (opening, may, seat): (Opening, Permissions, Option<Arc<Seat>>),
        registrar: Option<Arc<Registrar>>,
        about: About,
        (shared, link): (Arc<Shared>, Box<dyn Link>),
    ) -> Self {
        let (link, client) = (Arc::new(Mutex::new(link)), opening.client.clone());
        let door = manager.door.clone();
        let address = Text::from(about.peer.ip().to_canonical().to_string());
        let (tenant, of_desk) = (about.tenant, registrar.clone());
        let desk = Desk::new(manager, tenant, Arc::clone(&shared), of_desk, address.clone());
        let notices = Notices { client: client.clone(), clock: door.clock, address };
        let asking = Asking {
            door: door.clone(),
            client: client.clone(),
            version: opening.version,
            may,
            stranger: seat.is_some(),
            shared: Arc::clone(&shared),
            notices: notices.clone(),
        };
        let looking = registrar.as_ref();
        let looking = looking.map(|of| Looking::new(asking.clone(), Arc::clone(of), &link));
        let announced = Arc::new(Announced::new(door.clone(), about, client));
        Self {
            door,
            tenant,
            opening,
            asking,
            looking,
            seat,
            shared,
            link,
            announced,
            notices,
            registrar,
            desk,
            mailman: OnceLock::new(),
        }
    }

    /// From now on what waits in the mailbox of a device or gateway comes as soon as it listens for it.
    fn bring_mail(&self) {
        let device = self.opening.client.device().filter(|_| self.seat.is_none());
        let Some(device) = device else { return };
        self.mailman.get_or_init(|| {
            let (stop, registry) = (CancellationToken::new(), self.door.registry.clone());
            let whose = (self.tenant, device_name(device));
            let mailman = Mailman::new(registry, whose, By::Mqtt, Arc::clone(&self.shared));
            self.door.tasks.spawn(mailman.run(stop.clone()));
            stop.drop_guard()
        });
    }

    fn link(&self) -> MutexGuard<'_, Box<dyn Link>> {
        locked(&self.link)
    }

    fn read(&self, message: Message) -> Read {
        self.shared.count_read(&message);
        let (topic, payload) = (message.topic.len(), message.payload.len());
        let packet = PUBLISH_BYTES + topic + message.properties.len() + payload;
        if !fits(self.opening.version, topic, payload, packet) {
            self.shared.end(Ended::TooLarge, close::Close::TooLarge);
            return Read::Ended;
        }
        let said = topics::publish(&self.opening.client, message.topic.as_bytes());
        let said = said.and_then(|said| match self.asking.allows(said.needs()) {
            true => Ok(said),
            false => Err(Forbidden::NotAuthorised),
        });
        match said {
            Ok(Said::Management { device, address }) => Read::Management(device, address, message),
            Ok(said) => {
                let message = Message { topic: said.topic(), retain: false, ..message };
                if let Some(seat) = &self.seat {
                    return self.pass_stranger(seat, message);
                }
                Read::On(said, message)
            }
            Err(why) => self.refuse(&message, why),
        }
    }

    /// What a client of quickstart says goes on at once and with QoS 0, or nowhere. It is acknowledged either way.
    fn pass_stranger(&self, seat: &Seat, message: Message) -> Read {
        if seat.may_say(self.door.clock.wall(), message.payload.len()) {
            let message = Message { qos: quickstart::QOS, ..message };
            self.link().publish(presence::UNANSWERED, message);
        } else {
            self.door.metrics.dropped.with_label_values(&["quickstart"]).inc();
        }
        Read::Dropped(Ok(Published { matched: true }))
    }

    fn refuse(&self, message: &Message, why: Forbidden) -> Read {
        let (class, version) = (self.opening.client.class(), self.opening.version);
        self.door.metrics.violations.with_label_values(&[label(class), "publish"]).inc();
        match consequence(class, version, Violation::Publish { why, qos: message.qos }) {
            Consequence::Close { close, .. } => {
                self.shared.end(Ended::Misused, close);
                Read::Ended
            }
            Consequence::DropAndNotify => {
                self.note_dropped(&message.topic, why);
                self.notify(Request::Publish, &message.topic, why);
                Read::Dropped(Ok(Published { matched: true }))
            }
            Consequence::Drop { .. } | Consequence::Refuse { .. } => {
                Read::Dropped(Err(Refusal::NotAuthorised))
            }
        }
    }

    /// The client hears that it was taken; whoever asks later hears more.
    fn note_dropped(&self, topic: &Text, why: Forbidden) {
        let Some(device) = self.opening.client.device().map(device_name) else { return };
        let cause = match why {
            Forbidden::Topic => Cause::UnknownTopic,
            Forbidden::NotAuthorised => Cause::PublishForbidden,
        };
        let whose = (self.tenant, &device);
        self.door.registry.note_dropped(whose, Stage::Publish, topic.as_str(), cause);
    }

    fn notify(&self, request: Request, refused: &Text, why: Forbidden) {
        self.notices.tell(&self.link, request, refused, why);
    }

    /// A message goes on, as soon as its device is registered.
    fn go(&self, held: Held) {
        let to = (&self.door, self.tenant, &self.shared, &self.link);
        let Some(registrar) = &self.registrar else { return pass(to, held) };
        match registrar.turn(held) {
            Turn::Now(held) => pass(to, held),
            Turn::Held => {}
            Turn::Full(held) => refuse(&self.door, &self.shared, &held),
            Turn::Begin => {
                let bringing = Bringing {
                    door: self.door.clone(),
                    tenant: self.tenant,
                    registrar: Arc::clone(registrar),
                    shared: Arc::clone(&self.shared),
                    link: Arc::downgrade(&self.link),
                    notices: self.notices.clone(),
                };
                self.door.tasks.spawn(bringing.run());
            }
        }
    }

    fn gone(&self, why: close::Close) {
        self.announced.gone(why, self.shared.traffic(), &self.link);
        // Nobody has to wait for its session any more.
        self.shared.opened.notify_one();
    }
}

/// Who registers what a gateway brings along, and then lets its messages go on. Ends with the connection, or when nothing is held.
struct Bringing {
    door: Door,
    tenant: TenantId,
    registrar: Arc<Registrar>,
    shared: Arc<Shared>,
    link: WeakBelow,
    notices: Notices,
}

impl Bringing {
    async fn run(self) {
        let (client, address) = (self.shared.client.to_string(), self.notices.address.clone());
        let by = (&*client, address.as_str());
        while let Some(device) = self.registrar.front() {
            let registered = self.registrar.registered(&self.door.registry, &device, by).await;
            let Some(link) = self.link.upgrade() else { return self.lose() };
            let Some(held) = self.registrar.take() else { continue };
            match registered {
                Ok(true) => pass((&self.door, self.tenant, &self.shared, &link), held),
                Ok(false) => {
                    let why = Forbidden::NotAuthorised;
                    self.notices.tell(&link, Request::Publish, &held.message.topic, why);
                    answer(&self.shared, &held, Ok(Published { matched: true }));
                }
                Err(_) => refuse(&self.door, &self.shared, &held),
            }
        }
    }
}

impl Bringing {
    /// The connection is over: what was held is lost, if it was promised nothing. Its client sends the rest again.
    fn lose(&self) {
        while let Some(held) = self.registrar.take() {
            count_lost(&self.door, &held);
        }
    }
}

fn held(token: Token, packet: Option<u16>, said: Said, message: Message) -> Held {
    Held { device: said.device().clone(), token, packet, said, message }
}

fn letter(token: Token, device: DeviceName, address: Upward, message: Message) -> Letter {
    let Message { qos, payload, .. } = message;
    Letter { device, address, payload, qos, token }
}

fn pass((door, tenant, shared, link): (&Door, TenantId, &Arc<Shared>, &Below), held: Held) {
    let Held { token, packet, said, message, .. } = held;
    door.note_event(tenant, &said, &message.payload);
    append((door, tenant, shared), &said, &message, token);
    match packet {
        Some(packet) => locked(link).publish_once(token, packet, message),
        None => locked(link).publish(token, message),
    }
}

/// Into the tenant's stream, too, if it wants that: then the publish is answered when both are done.
fn append(
    (door, tenant, shared): (&Door, TenantId, &Arc<Shared>),
    said: &Said,
    message: &Message,
    token: Token,
) {
    let answered = message.qos > QoS::AtMostOnce;
    let once = message.qos == QoS::ExactlyOnce;
    if !answered && !shared.both.may_unasked() {
        return door.count_unkept();
    }
    let Some(appending) = door.append(tenant, said, &message.payload, By::Mqtt) else {
        if !answered {
            shared.both.unasked_done();
        }
        return;
    };
    if answered {
        shared.both.begin(token);
    }
    let (of, door) = (Arc::clone(shared), door.clone());
    let tasks = door.tasks.clone();
    tasks.spawn(async move {
        let appended = appending.await;
        if !answered {
            of.both.unasked_done();
            if appended.is_err() {
                door.count_unkept();
            }
            return;
        }
        // It may be published: the client has to say it again, under the same packet id if it is to come once.
        let appended = appended.map_err(|why| if once { Refusal::Unavailable } else { why });
        if let Some(outcome) = of.both.appended(token, appended) {
            of.answered(token, outcome);
        }
    });
}

/// Nobody says again what was promised nothing.
fn count_lost(door: &Door, held: &Held) {
    if held.message.qos == QoS::AtMostOnce {
        door.metrics.dropped.with_label_values(&["unregistered"]).inc();
    }
}

/// It may come again, if it is promised anything.
fn refuse(door: &Door, shared: &Shared, held: &Held) {
    count_lost(door, held);
    answer(shared, held, Err(Refusal::Busy));
}

fn answer(shared: &Shared, held: &Held, outcome: Result<Published, Refusal>) {
    if held.message.qos > QoS::AtMostOnce {
        shared.tell(Notice::Published { token: held.token, outcome });
    }
}

/// What a gateway is told of its failures.
#[derive(Clone)]
pub(crate) struct Notices {
    client: ClientId,
    clock: Clock,
    pub(crate) address: Text,
}

impl Notices {
    /// Tells it, if it has subscribed to that.
    pub(crate) fn tell(&self, link: &Below, request: Request, refused: &Text, why: Forbidden) {
        let Some(own) = self.client.device() else { return };
        let why = match why {
            Forbidden::Topic => close::Close::BadTopic,
            Forbidden::NotAuthorised => close::Close::NotAuthorised,
        };
        let (device, now) = (notice::named(refused.as_str()), self.clock.wall());
        let refused = refused.as_str();
        let payload = notice::payload(&self.client, request, refused, device.as_ref(), why, now);
        let payload = Bytes::from(payload);
        let message = Message { topic: notice::topic(own), payload, ..Message::empty() };
        locked(link).publish(presence::UNANSWERED, message);
    }
}

pub(crate) fn locked(link: &Below) -> MutexGuard<'_, Box<dyn Link>> {
    // What it holds is the service's own, and whole after every call.
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link for WatsonLink {
    fn conn(&self) -> ConnId {
        self.link().conn()
    }

    fn open(&mut self, open: Open) {
        let session = &self.opening.session;
        let will = match (&self.opening.will, open.will) {
            (Some(said), Some(will)) => {
                let qos = self.asking.most_qos(will.message.qos);
                let message = Message { topic: said.topic(), retain: false, qos, ..will.message };
                Some(Will { message, ..will })
            }
            _ => None,
        };
        let open = Open {
            clean_start: session.clean_start,
            expiry_s: open.expiry_s.min(session.expiry_s.value),
            limits: self.door.rules.now().session(&self.opening.client),
            will,
            ..open
        };
        presence::announce(&self.announced, &self.shared, &self.link);
        self.link().open(open);
    }

    fn publish(&mut self, token: Token, message: Message) {
        let answered = message.qos > QoS::AtMostOnce;
        match self.read(message) {
            Read::On(said, message) => self.go(held(token, None, said, message)),
            Read::Management(device, address, message) => {
                self.desk.take(letter(token, device, address, message));
            }
            Read::Dropped(outcome) if answered => {
                self.shared.tell(Notice::Published { token, outcome });
            }
            Read::Dropped(_) | Read::Ended => {}
        }
    }

    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        match self.read(message) {
            Read::On(said, message) => self.go(held(token, Some(packet), said, message)),
            Read::Management(device, address, message) => {
                self.desk.take(letter(token, device, address, message));
            }
            Read::Dropped(outcome) => self.shared.tell(Notice::Published { token, outcome }),
            Read::Ended => {}
        }
    }

    fn complete(&mut self, packet: u16) {
        // What a client of quickstart said is kept nowhere.
        if self.seat.is_some() {
            return self.shared.tell(Notice::Completed { packet, known: true });
        }
        self.link().complete(packet);
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.link().release(offsets);
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.bring_mail();
        match &self.looking {
            Some(looking) => looking.subscribe(token, filters),
            None => self.asking.subscribe(&self.link, (token, filters), &HashSet::new()),
        }
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        match &self.looking {
            Some(looking) => looking.unsubscribe(token, filters),
            None => self.asking.unsubscribe(&self.link, (token, filters)),
        }
    }

    fn settle(&mut self, offsets: &[Offset]) {
        self.link().settle(offsets);
    }

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        let items = self.shared.handed.others(items);
        if !items.is_empty() {
            self.link().settle_shared(&items);
        }
    }

    fn retained_taken(&mut self) {
        self.link().retained_taken();
    }

    fn close(&mut self, close: Close) {
        let why = match close {
            Close::Clean { .. } => close::Close::Normal,
            Close::Broken => self.shared.why_or(close::Close::ByClient),
            Close::Failed(failure) => self.shared.why_or(failure.into()),
        };
        self.gone(why);
        self.link().close(close);
    }
}

impl Drop for WatsonLink {
    fn drop(&mut self) {
        self.gone(self.shared.why_or(close::Close::ByClient));
    }
}
