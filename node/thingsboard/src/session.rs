//! One connection of a device: what it publishes is written and answered, what it subscribed to is sent.
//!
//! # Invariants
//!
//! - **What one connection writes is written in its order**: its commands are on their way before the next publish is looked at.
//! - **The version of shared attributes is known before a subscription to them is granted**, so that every change that comes later is
//!   told.
//!
//! Checked by the cluster tests (`thingsboard.rs`).

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use moorline_core::{
    Delivery, Message, QoS, Text,
    port::{Ended, Filter, Inbox, Notice, Published, Refusal, Token},
};
use moorline_dialects::thingsboard::{
    attributes::Wanted,
    calls::{self, DeviceCall},
    filters::{self, Wanted as Subscribed},
    mqtt::{self, Outcome, QUOTA_EXCEEDED, SUCCESS, TOPIC_NAME_INVALID, Unreadable, Version},
    payloads::{Encoding, Payloads},
    profile::TransportType,
    requests::Request,
    sparkplug::node::Node,
    topics::{self, Form, Publish, SessionKind, Unpublishable},
    values::Rules,
};
use moorline_edge::asks::{Ask, numbered, tell};
use moorline_service::registry::{
    ASK_AGAIN, Heard, RECHECK, RegistryError, Watch,
    explain::{Cause, Stage},
    mailman::Mailman,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    children::{ChildHeard, Children},
    device::{Device, answer_to, attributes_body, telemetry_body},
    downloads::Downloads,
    ear::{Ear, How},
    granted::Granted,
    metrics::Counted,
    outgoing::{self, Outgoing},
    profiles::Known,
};

/// Writes of one connection that are under way at once.
const WRITES_MAX: usize = 64;
/// Calls of one device that wait for an answer.
const CALLS_MAX: usize = 32;

/// A publish that was carried out, or not.
struct Done {
    asked: Asked,
    result: Result<(), RegistryError>,
}

type Writing = Pin<Box<dyn Future<Output = Done> + Send>>;
type Waiting = Pin<Box<dyn Future<Output = (Form, i32, String)> + Send>>;

/// What a publish is answered with: it, and whether it waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    token: Token,
    qos: QoS,
    what: &'static str,
    /// Whether a part of it was refused already, by a limit on those whom it is about.
    in_part: bool,
}

impl Asked {
    /// The same, of which a part was refused or not.
    pub(crate) fn in_part(self, in_part: bool) -> Self {
        Self { in_part, ..self }
    }
}

/// See the module.
pub(crate) struct Session {
    pub(crate) device: Device,
    pub(crate) version: Version,
    pub(crate) inbox: Arc<dyn Inbox>,
    /// What it is: the name of its profile.
    pub(crate) kind: Text,
    /// Where it speaks from.
    pub(crate) address: Text,
    pub(crate) profile: Arc<Known>,
    pub(crate) payloads: Arc<Payloads>,
    /// Of a gateway, and of a node.
    pub(crate) children: Option<Children>,
    /// If it speaks Sparkplug.
    pub(crate) node: Option<Box<Node>>,
    filters: Granted,
    writes: FuturesUnordered<Writing>,
    /// Calls of the device that wait for their answers.
    calls: FuturesUnordered<Waiting>,
    /// Calls to it, and to those it speaks for.
    pub(crate) outgoing: Outgoing,
    /// Something could not be asked: it is looked again soon.
    pub(crate) ask_again: bool,
    /// Another connection of the device has come.
    pub(crate) taken_over: bool,
    /// When a node said something last, in milliseconds since the epoch.
    pub(crate) said_ms: i64,
    /// Up to which version shared attributes were told.
    pub(crate) told: u64,
    /// Packages that it loads.
    pub(crate) downloads: Downloads,
    /// How it hears its mail.
    ear: Arc<Ear>,
}

impl Session {
    /// `children`: of a gateway; `kind`: its type, `address`: where it speaks from.
    pub(crate) fn new(
        device: Device,
        (kind, address): (Text, Text),
        version: Version,
        children: Option<Children>,
        inbox: Arc<dyn Inbox>,
    ) -> Self {
        let (writes, calls) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (payloads, filters, told) = (Arc::new(Payloads::Json), Granted::default(), 0);
        let profile = Arc::new(Known::unwritten(kind.as_str()));
        let (outgoing, ask_again) = (Outgoing::default(), false);
        let ear = Ear::new(Arc::clone(&inbox), device.door.metrics.mail.clone());
        Self {
            device,
            version,
            inbox,
            outgoing,
            ask_again,
            taken_over: false,
            said_ms: 0,
            kind,
            address,
            profile,
            payloads,
            children,
            node: None,
            filters,
            writes,
            calls,
            told,
            downloads: Downloads::default(),
            ear: Arc::new(ear),
        }
    }

    /// Whose it is.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<Ask>, watch: Watch) {
        let _counted = Counted::of(&self.device.door.metrics.connections);
        if self.begin(&mut asked).await.unwrap_or_else(|_| self.lose()) {
            // Ends with this task. Nodes have no calls of their own.
            let _mailman = self.node.is_none().then(|| self.bring_mail());
            self.serve(asked, watch).await;
        }
        self.end_node();
    }

    /// What waits for the device comes as soon as it has subscribed to calls, until the guard is dropped.
    fn bring_mail(&self) -> DropGuard {
        let (stop, Device { door, guest }) = (CancellationToken::new(), &self.device);
        let whose = (guest.tenant, guest.device.clone());
        let mailman = Mailman::new(door.registry.clone(), whose, guest.by, Arc::clone(&self.ear));
        door.tasks.spawn(mailman.run(stop.clone()));
        stop.drop_guard()
    }

    /// Mail goes out as calls do now.
    fn listen(&self) {
        let how = self.calls_form().map(|form| {
            // Whichever call it is: the last level is its id.
            let qos = filters::downlink_qos(self.filters.qos(&Text::from(topics::call(form, 0))));
            How { form, payloads: Arc::clone(&self.payloads), qos }
        });
        self.ear.listen(how);
    }

    /// False at the end.
    async fn begin(&mut self, asked: &mut mpsc::Receiver<Ask>) -> Result<bool, RegistryError> {
        let goes_on = self.take_profile().await?;
        if !goes_on || self.profile.profile.sparkplug().is_none() {
            return Ok(goes_on);
        }
        match asked.recv().await {
            Some(Ask::Open(opening)) => self.begin_node(*opening).await,
            // It has gone already.
            Some(Ask::Publish(..) | Ask::Subscribe(..) | Ask::Unsubscribe(..) | Ask::Taken(_))
            | None => Ok(false),
        }
    }

    async fn serve(&mut self, mut asked: mpsc::Receiver<Ask>, watch: Watch) {
        let mut recheck_at = Instant::now() + RECHECK;
        loop {
            let goes_on = tokio::select! {
                biased;
                ask = asked.recv(), if self.writes.len() < WRITES_MAX => {
                    let Some(ask) = ask else {
                        // Perhaps because another one has come: that is heard of at about the same moment.
                        let heard = watch.heard().now_or_never();
                        self.taken_over = heard.is_some_and(|heard| heard.taken_over);
                        return;
                    };
                    self.ask(ask).await
                }
                Some(done) = self.writes.next() => self.done(done),
                Some((form, id, answer)) = self.calls.next() => {
                    self.answer_call(form, id, &answer);
                    true
                }
                heard = watch.heard() => self.hear(heard).await,
                device = self.outgoing.changed() => {
                    self.send_calls(&device).await;
                    true
                }
                heard = next_of(&mut self.children) => {
                    self.hear_of_child(heard).await;
                    true
                }
                () = sleep_until(recheck_at) => {
                    recheck_at = Instant::now() + RECHECK;
                    // Without an answer it stays as it was until the next look.
                    self.take_profile().await.unwrap_or(true)
                        && self.speaks_as_it_did()
                        && self.hear(Heard::ANYTHING).await
                }
            };
            if !goes_on {
                return;
            }
            if std::mem::take(&mut self.ask_again) {
                recheck_at = recheck_at.min(Instant::now() + ASK_AGAIN);
            }
        }
    }

    /// Learns what its profile says, or what it says now; false at the end.
    async fn take_profile(&mut self) -> Result<bool, RegistryError> {
        let Device { door, guest } = &self.device;
        let profile = door.profile_of(guest.tenant, self.kind.as_str()).await?;
        if !profile.profile.allows(TransportType::Mqtt) {
            tell(&self.inbox, Notice::Ended(Ended::Revoked));
            return Ok(false);
        }
        (self.payloads, self.profile) = (profile.payloads(), profile);
        self.listen();
        Ok(true)
    }

    /// It comes again, and asks another node perhaps.
    fn lose(&self) -> bool {
        tell(&self.inbox, Notice::Lost);
        false
    }

    /// Does what was asked; false at the end.
    async fn ask(&mut self, ask: Ask) -> bool {
        match ask {
            // Only a node's counts.
            Ask::Open(_) => true,
            Ask::Publish(token, message) => self.publish(token, message).await,
            Ask::Subscribe(token, filters, _) => {
                let (mut granted, had) = (Vec::with_capacity(filters.len()), self.calls_form());
                for filter in filters {
                    granted.push(self.grant(filter).await);
                }
                tell(&self.inbox, Notice::Subscribed { token, granted: Ok(granted) });
                self.listen();
                if had != self.calls_form() {
                    self.send_calls(&self.device.clone()).await;
                }
                true
            }
            Ask::Taken(names) => {
                let is_call = |name: &u64| !self.ear.handed.has(*name);
                let calls: Vec<_> = names.into_iter().filter(is_call).collect();
                self.outgoing.taken(&calls);
                true
            }
            Ask::Unsubscribe(token, filters) => {
                let existed = filters.iter().map(|filter| self.filters.remove(filter)).collect();
                self.listen();
                tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                true
            }
        }
    }

    async fn grant(&mut self, asked: Filter) -> Result<QoS, Refusal> {
        let Filter { filter, options } = asked;
        let own = self.profile.profile.own_topics();
        let wanted = match &self.node {
            Some(node) => node.grants(filter.as_bytes()).then_some(Subscribed::Responses),
            None => filters::subscribe(filter.as_bytes(), self.kind(), own),
        };
        let wanted = wanted.ok_or(Refusal::Topic)?;
        self.filters.remove(&filter);
        if matches!(wanted, Subscribed::Attributes(_)) && self.attributes_form().is_none() {
            let news = self.device.news(None).await;
            self.told = news.map_err(|_| Refusal::Unavailable)?.version;
        }
        let qos = filters::granted(options.qos);
        let has_room = match self.node {
            Some(_) => self.filters.add_of_node(filter, qos),
            None => self.filters.add(filter, wanted, qos),
        };
        has_room.then_some(qos).ok_or(Refusal::Quota)
    }

    // ---- what it publishes

    async fn publish(&mut self, token: Token, message: Message) -> bool {
        let Message { topic, qos, payload, .. } = message;
        let of = |what| Asked { token, qos, what, in_part: false };
        if self.node.is_some() {
            return self.node_says(of("sparkplug"), &topic, &payload).await;
        }
        let own = self.profile.profile.own_topics();
        let read = topics::publish(topic.as_bytes(), self.kind(), own);
        let publish = match read {
            Ok(publish) => publish,
            Err(Unpublishable::UnknownTopic) => {
                return self.outcome(of("other"), Outcome::UnknownTopic);
            }
            Err(Unpublishable::NotGateway) => {
                return self.outcome(of("other"), Outcome::NotGateway);
            }
            Err(Unpublishable::RequestId | Unpublishable::Close) => {
                return self.outcome(of("other"), Outcome::Invalid);
            }
        };
        let now_ms = self.now_ms();
        let rules = Rules::default();
        let asked = of(what(&publish));
        let earlier = self.downloads.earlier(&publish);
        let read = mqtt::request(&publish, &self.payloads, &payload, earlier, now_ms, &rules);
        let request = match read {
            Ok(request) => request,
            Err(Unreadable::Invalid(_)) => return self.outcome(asked, Outcome::Invalid),
            Err(Unreadable::Chunk(error)) => return self.no_part(asked, error),
        };
        if request.cost().is_some_and(|cost| self.device.admitted(cost).is_err()) {
            return self.outcome(asked, Outcome::RateLimited);
        }
        match (publish, request) {
            (Publish::Telemetry(form), Request::Telemetry(samples)) => {
                let body = telemetry_body(self.said(form, &payload), &samples);
                self.write(asked, self.device.telemetry(samples, body));
            }
            (Publish::Attributes(form), Request::Attributes(entries)) => {
                let body = attributes_body(self.said(form, &payload), &entries);
                self.write(asked, self.device.attributes(entries, body));
            }
            (Publish::AttributesRequest(form, id), Request::ReadAttributes(wanted)) => {
                return self.read_attributes(asked, form, id, wanted).await;
            }
            (Publish::Call(form, id), Request::Call(call)) => {
                return self.call(asked, form, id, &call);
            }
            (_, Request::CallReply { id, data }) => {
                self.write(asked, outgoing::answered(&self.device, id, data));
            }
            (_, Request::Gateway(request)) => return self.gateway(asked, request).await,
            (Publish::Chunk(topic), Request::Package(request)) => {
                return self.part(asked, &topic, request).await;
            }
            (_, Request::Claim(claim)) => self.write(asked, self.device.claim(&claim)),
            // Nothing here asks for it, or serves it yet: taken as a server does that has nothing for it.
            _ => return self.outcome(asked, Outcome::Done),
        }
        true
    }

    /// The server's time, in milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.device.door.clock.wall().0).unwrap_or(i64::MAX)
    }

    /// A payload as applications read it, if it is JSON.
    fn said<'a>(&self, form: Form, payload: &'a Bytes) -> Option<&'a Bytes> {
        (self.payloads.up(form) == Encoding::Json).then_some(payload)
    }

    pub(crate) fn write(
        &self,
        asked: Asked,
        result: impl Future<Output = Result<(), RegistryError>> + Send + 'static,
    ) {
        self.writes.push(Box::pin(async move { Done { asked, result: result.await } }));
    }

    async fn read_attributes(&mut self, asked: Asked, form: Form, id: i32, wanted: Wanted) -> bool {
        if !self.written().await {
            return false;
        }
        let Ok(found) = self.device.read(&wanted).await else {
            return self.outcome(asked, Outcome::Failed);
        };
        let payload = self.payloads.down(form).write_found(id, &found);
        self.say(&topics::attributes_response(form, id), payload);
        self.outcome(asked, Outcome::Done)
    }

    /// Waits until all is written that was said before: it is to be read. False at the end.
    pub(crate) async fn written(&mut self) -> bool {
        while let Some(done) = self.writes.next().await {
            if !self.done(done) {
                return false;
            }
        }
        true
    }

    fn call(&self, asked: Asked, form: Form, id: i32, call: &DeviceCall) -> bool {
        if call.method == calls::SESSION_LIMITS_METHOD {
            self.answer_call(
                form,
                id,
                &self.device.limits(self.children.is_some()).to_json().to_string(),
            );
            return self.outcome(asked, Outcome::Done);
        }
        let has_room = self.calls.len() < CALLS_MAX;
        let Some(own) = has_room.then(|| self.device.calls()).flatten() else {
            return self.outcome(asked, Outcome::RateLimited);
        };
        self.write(asked, self.device.called(call, &own));
        self.calls.push(Box::pin(async move { (form, id, answer_to(own).await) }));
        true
    }

    fn answer_call(&self, form: Form, id: i32, answer: &str) {
        let payload = self.payloads.down(form).write_call_answer(id, answer);
        self.say(&topics::call_reply(form, id), payload);
    }

    // ---- what it hears

    /// Says what became of a write; false if that is the end.
    fn done(&self, done: Done) -> bool {
        let Done { asked, result } = done;
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(RegistryError::Refused(_)) => {
                tell(&self.inbox, Notice::Ended(Ended::Revoked));
                return false;
            }
            // What is too much of it, or too large, is no better the next time.
            Err(
                RegistryError::Values(_)
                | RegistryError::Events(_)
                | RegistryError::Calls(_)
                | RegistryError::Documents(_),
            ) => Outcome::Invalid,
            Err(_) => Outcome::Failed,
        };
        self.outcome(asked, outcome)
    }

    pub(crate) fn count(&self, asked: Asked, result: &str) {
        self.device.door.metrics.requests.with_label_values(&[asked.what, result]).inc();
    }

    /// Answers a publish; false if the connection is over.
    pub(crate) fn outcome(&self, asked: Asked, outcome: Outcome) -> bool {
        let refused_in_part = outcome == Outcome::Done && asked.in_part;
        let outcome = if refused_in_part { Outcome::ChildLimited } else { outcome };
        let result = match outcome {
            Outcome::Done | Outcome::NotGateway => "done",
            Outcome::UnknownTopic => "unknown_topic",
            Outcome::Invalid | Outcome::TooEarly => "invalid",
            Outcome::RateLimited | Outcome::GatewayLimited | Outcome::ChildLimited => "limited",
            Outcome::Failed => "failed",
        };
        self.count(asked, result);
        self.note_outcome(asked, outcome);
        let transport = &self.profile.profile.profile_data.transport_configuration;
        let ack = mqtt::ack(outcome, self.version, transport.send_ack_on_validation_exception);
        if let Some(reason) = ack.puback.filter(|_| asked.qos > QoS::AtMostOnce) {
            let outcome = match reason {
                SUCCESS => Ok(Published { matched: true }),
                TOPIC_NAME_INVALID => Err(Refusal::Topic),
                QUOTA_EXCEEDED => Err(Refusal::Quota),
                _ => Err(Refusal::Payload),
            };
            tell(&self.inbox, Notice::Published { token: asked.token, outcome });
        }
        if ack.disconnect.is_none() {
            return true;
        }
        let ended = match outcome {
            // It comes again, and asks another node perhaps.
            Outcome::Failed => Notice::Lost,
            Outcome::RateLimited | Outcome::GatewayLimited | Outcome::ChildLimited => {
                Notice::Ended(Ended::Limited)
            }
            Outcome::Done
            | Outcome::UnknownTopic
            | Outcome::NotGateway
            | Outcome::Invalid
            | Outcome::TooEarly => Notice::Ended(Ended::Misused),
        };
        tell(&self.inbox, ended);
        false
    }

    /// What is not kept is noted: of QoS 0 nobody hears it, and some of it is acknowledged all the same. What a shard said has its note.
    fn note_outcome(&self, asked: Asked, outcome: Outcome) {
        let cause = match outcome {
            Outcome::Done | Outcome::Failed => return,
            Outcome::UnknownTopic => Cause::UnknownTopic,
            Outcome::NotGateway => Cause::PublishForbidden,
            Outcome::Invalid | Outcome::TooEarly => Cause::UnreadablePayload,
            Outcome::RateLimited | Outcome::GatewayLimited | Outcome::ChildLimited => {
                Cause::TooOften
            }
        };
        let Device { door, guest } = &self.device;
        let whose = (guest.tenant, &guest.device);
        door.registry.note_dropped(whose, Stage::Request, asked.what, cause);
    }

    /// Publishes to the device: whether it subscribed to it or not.
    pub(crate) fn say(&self, topic: &str, payload: Bytes) {
        self.deliver(topic, payload, None);
    }

    /// The same; with a name it is told when the device has it.
    pub(crate) fn deliver(&self, topic: &str, payload: Bytes, name: Option<u64>) {
        let topic = Text::from(topic);
        let qos = filters::downlink_qos(self.filters.qos(&topic));
        let message = Message { topic, qos, payload, ..Message::empty() };
        let delivery = match name {
            Some(name) => numbered(name, qos, message),
            None => Delivery::new(None, qos, Arc::new(message)),
        };
        tell(&self.inbox, Notice::Deliver(vec![delivery]));
    }

    /// Sends calls that wait for a device: the connection's own, or one that it speaks for.
    pub(crate) async fn send_calls(&mut self, device: &Device) {
        if self.node.is_some() {
            return self.send_commands(device).await;
        }
        let is_own = device.guest.device == self.device.guest.device;
        let own_form = match self.calls_form() {
            // It has not asked for them.
            None if is_own => return,
            form => form,
        };
        let Ok(ready) = self.outgoing.room(device).ready(device).await else {
            self.ask_again = true;
            return;
        };
        for call in &ready {
            let said = outgoing::server_call(call);
            let (topic, payload) = match own_form.filter(|_| is_own) {
                Some(form) => {
                    // What does not fit a profile's schema is not sent, and fails when its time is over.
                    let Ok(payload) = self.payloads.down(form).write_call(&said) else { continue };
                    (topics::call(form, said.id), payload)
                }
                None => {
                    let name = device.guest.device.as_str();
                    let payload = self.payloads.down(Form::V1).write_gateway_call(name, &said);
                    (topics::GATEWAY_RPC.to_owned(), payload)
                }
            };
            let name = self.outgoing.sent(device, call.number);
            self.deliver(&topic, payload, Some(name));
        }
    }

    async fn hear(&mut self, heard: Heard) -> bool {
        if heard.taken_over {
            self.taken_over = true;
            tell(&self.inbox, Notice::TakenOver);
            return false;
        }
        if heard.calls || heard.ended && outgoing::goes_in_turn(&self.device) {
            self.send_calls(&self.device.clone()).await;
        }
        if heard.attributes {
            self.downloads.forget();
            self.tell_node().await;
        }
        if heard.attributes
            && let Some(form) = self.attributes_form()
            // Asked for again after a while, if nobody can say now.
            && let Ok(news) = self.device.news(Some(self.told)).await
        {
            self.told = news.version;
            if !news.is_empty() {
                let payload = self.payloads.down(form.unwrap_or(Form::V1));
                let payload = payload.write_changed(&news.changed);
                self.say(self.attributes_topic(form), payload);
            }
        }
        true
    }

    /// How the device wants calls: as it asked for them last, if it did.
    fn calls_form(&self) -> Option<Form> {
        self.filters.wanted().find_map(|wanted| match *wanted {
            Subscribed::Calls(form) => Some(form),
            Subscribed::Attributes(_) | Subscribed::Responses => None,
        })
    }

    fn kind(&self) -> SessionKind {
        if self.children.is_some() { SessionKind::Gateway } else { SessionKind::Device }
    }

    /// Where changes of shared attributes go; without a form to the profile's own topic, if something can be sent there.
    fn attributes_topic(&self, form: Option<Form>) -> &str {
        let own = self.profile.profile.own_topics().attributes_subscribe;
        match form {
            None if !own.is_empty() && !own.contains(['+', '#']) => own,
            form => topics::attributes_update(form.unwrap_or(Form::V1)),
        }
    }

    /// How the device wants changes of shared attributes: as it asked for them last, if it did.
    fn attributes_form(&self) -> Option<Option<Form>> {
        self.filters.wanted().find_map(|wanted| match *wanted {
            Subscribed::Attributes(form) => Some(form),
            Subscribed::Calls(_) | Subscribed::Responses => None,
        })
    }
}

/// The next child of which something is heard, of a gateway.
async fn next_of(children: &mut Option<Children>) -> ChildHeard {
    match children {
        Some(children) => children.heard().await,
        None => pending().await,
    }
}

fn what(publish: &Publish) -> &'static str {
    match publish {
        Publish::Telemetry(_) => "telemetry",
        Publish::Attributes(_) => "attributes",
        Publish::AttributesRequest(..) => "attributes_request",
        Publish::Call(..) | Publish::CallReply(..) => "call",
        Publish::Gateway(_) => "gateway",
        Publish::Claim => "claim",
        Publish::Chunk(_) => "package",
        Publish::Provision => "other",
    }
}
