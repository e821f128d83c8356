//! Fostrom over MQTT 3.1.1: a [`Port`] of its own for each device, in the place of the service. The device has no topics, no
//! sessions and no other clients: what it publishes are ops, what it hears is mail and refusals.
//!
//! ```text
//!   edge ──Link──► asks (bounded) ──► one task per connection ──► door
//!        ◄─Inbox─────────────────────────┘   ▲ news of the device
//! ```
//!
//! # Invariants
//!
//! - **A PUBACK means that the op was answered**, and never that the cluster could not be asked: then the connection ends, and
//!   the device sends again. What is wrong with an op is acknowledged and said on `resp/error`.
//! - **Events of one connection are appended in their order**: their futures begin in it.
//! - **One mail is out at a time**, and is pushed once until it is settled.
//!
//! Checked by the cluster tests (`fostrom_mqtt.rs`).

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    Delivery, Message, QoS, Text,
    op::{Answer, Declined, Denial, Format, MailId, Op},
    port::{Ended, Filter, Inbox, Link, Notice, Port, Published, Refusal, Token},
};
use moorline_dialects::fostrom::mqtt::{
    self, Connack, Hello, MailForm, Outgoing, SHORT_LIVED_IDLE_MS, Unpublishable, Wanted,
};
use moorline_edge::{
    Attempt, Identity,
    asks::{self, Ask, Platform, tell},
};
use moorline_service::registry::{
    ASK_AGAIN, Heard, RECHECK, Watch,
    door::{By, Guest},
};
use prometheus::IntGauge;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::door::{Door, From};

/// No session lasts, and there is no QoS 2.
const HERE: Platform = Platform { present: |_| false, once: false };
/// Events of one connection that are under way at once.
const EVENTS_MAX: usize = 64;
/// Filters of one connection: all that mean anything are five.
const FILTERS_MAX: usize = 16;
/// MQTT 3.1.1's protocol level.
const LEVEL_3_1_1: u8 = 4;
/// What no level of Fostrom's is.
const ANOTHER_LEVEL: u8 = 0;
/// Between a fleet and a device in a user name.
const SEPARATOR: &str = "::";

/// Fostrom's devices among the clients of an MQTT edge. Clones are the same.
#[derive(Debug, Clone)]
pub struct Mqtt(Door);

impl Mqtt {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// Whether a client says that it is a device of Fostrom.
    #[must_use]
    pub fn is_meant(attempt: &Attempt) -> bool {
        attempt.username.as_ref().is_some_and(|name| name.as_str().contains(SEPARATOR))
    }

    /// Judges one.
    ///
    /// # Errors
    ///
    /// Why it may not come in.
    pub async fn judge(self, attempt: Attempt) -> Result<Identity, moorline_edge::Denial> {
        let is_3_1_1 = attempt.version == moorline_mqtt::Version::V311;
        let hello = Hello {
            level: if is_3_1_1 { LEVEL_3_1_1 } else { ANOTHER_LEVEL },
            client_id: attempt.client.as_bytes(),
            username: attempt.username.as_ref().map(Text::as_bytes),
            password: attempt.password.as_deref(),
            keep_alive_s: attempt.keep_alive_s,
        };
        let opening = mqtt::hello(&hello).map_err(denial)?;
        let from = From { address: attempt.peer.ip(), tls: attempt.channel.tls };
        let admitted = self.0.admit_to_stay(&opening.credentials, from, By::Mqtt).await;
        let (guest, watch) = admitted.map_err(|why| denial(mqtt::denied(why)))?;
        let (tenant, session) = (guest.tenant, Some(guest.device.clone()));
        let device = Device {
            door: self.0,
            guest,
            watch: Mutex::new(Some(watch)),
            format: opening.format,
            short_lived: opening.short_lived,
        };
        Ok(Identity { session, port: Some(Arc::new(device)), ..Identity::of(tenant) })
    }
}

fn denial(connack: Connack) -> moorline_edge::Denial {
    match connack {
        Connack::UnsupportedVersion => moorline_edge::Denial::Version,
        Connack::IdentifierRejected => moorline_edge::Denial::ClientId,
        Connack::Unavailable => moorline_edge::Denial::Unavailable,
        Connack::NotAuthorised => moorline_edge::Denial::NotAuthorised,
    }
}

/// A device that was let in, before its connection takes it up.
struct Device {
    door: Door,
    guest: Guest,
    watch: Mutex<Option<Watch>>,
    format: Format,
    short_lived: bool,
}

impl Port for Device {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (link, asked) = asks::link(HERE, Arc::clone(&inbox));
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watch) = &watch {
            watch.take_over();
        }
        let session = Session {
            door: self.door.clone(),
            guest: self.guest.clone(),
            inbox,
            format: self.format,
            short_lived: self.short_lived,
            filters: Vec::new(),
            in_hand: None,
            unsure: false,
            events: FuturesUnordered::new(),
        };
        self.door.tasks.spawn(session.run(asked, watch));
        link
    }
}

/// A filter that was granted.
struct Granted {
    filter: Text,
    wanted: Wanted,
    qos: QoS,
}

/// An event that was answered: the publish it answers, and where it came.
struct Appended {
    token: Token,
    topic: Text,
    qos: QoS,
    outcome: Result<Answer, Declined>,
}

type Appending = Pin<Box<dyn Future<Output = Appended> + Send>>;

/// One connection's task.
struct Session {
    door: Door,
    guest: Guest,
    inbox: Arc<dyn Inbox>,
    format: Format,
    short_lived: bool,
    filters: Vec<Granted>,
    /// The mail that was sent out last and is not settled.
    in_hand: Option<MailId>,
    /// The shard could not say whether the device may stay.
    unsure: bool,
    events: FuturesUnordered<Appending>,
}

/// Counts a connection.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Session {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>, watch: Option<Watch>) {
        // A short visit is heard, and is no connection that speaks for the device.
        let present = (!self.short_lived).then(|| self.door.registry.arrive(&self.guest));
        if self.short_lived {
            self.door.registry.heard(&self.guest);
        }
        let _present = present;
        let gauge = self.door.metrics.connections.with_label_values(&["mqtt"]);
        gauge.inc();
        let _counted = Counted(gauge);
        let mut recheck_at = Instant::now() + RECHECK;
        let mut idle_since = Instant::now();
        loop {
            let idle_until = idle_since + Duration::from_millis(SHORT_LIVED_IDLE_MS);
            let is_idle = self.short_lived && self.events.is_empty();
            let goes_on = tokio::select! {
                biased;
                ask = asked.recv(), if self.events.len() < EVENTS_MAX => {
                    let Some(ask) = ask else { return };
                    let goes_on = self.ask(ask).await;
                    idle_since = Instant::now();
                    goes_on
                }
                Some(appended) = self.events.next() => {
                    idle_since = Instant::now();
                    let Appended { token, topic, qos, outcome } = appended;
                    self.answer(token, &topic, qos, outcome)
                }
                heard = heard(watch.as_ref(), recheck_at) => {
                    let goes_on = self.hear(heard).await;
                    let wait = if self.unsure { ASK_AGAIN } else { RECHECK };
                    recheck_at = Instant::now() + wait;
                    goes_on
                }
                () = sleep_until(idle_until), if is_idle => {
                    tell(&self.inbox, Notice::Ended(Ended::Finished));
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Does what was asked; false at the end.
    async fn ask(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Publish(token, message) => self.publish(token, message).await,
            Ask::Subscribe(token, filters, _) => {
                let granted = filters.into_iter().map(|filter| self.grant(filter)).collect();
                tell(&self.inbox, Notice::Subscribed { token, granted: Ok(granted) });
                self.push_front().await
            }
            // Nothing is sent so that it is told.
            Ask::Open(_) | Ask::Taken(_) => true,
            Ask::Unsubscribe(token, filters) => {
                let end = |filter: &Text| {
                    let held = self.filters.iter().position(|held| held.filter == *filter);
                    held.map(|at| self.filters.remove(at)).is_some()
                };
                let existed = filters.iter().map(end).collect();
                tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                true
            }
        }
    }

    fn grant(&mut self, asked: Filter) -> Result<QoS, Refusal> {
        let Filter { filter, options } = asked;
        let wanted = mqtt::subscribe(filter.as_bytes()).ok_or(Refusal::NotAuthorised)?;
        let qos = options.qos.min(QoS::AtLeastOnce);
        self.filters.retain(|held| held.filter != filter);
        if self.filters.len() >= FILTERS_MAX {
            return Err(Refusal::Quota);
        }
        self.filters.push(Granted { filter, wanted, qos });
        Ok(qos)
    }

    async fn publish(&mut self, token: Token, message: Message) -> bool {
        let Message { topic, qos, payload, .. } = message;
        let outcome = match mqtt::publish(self.format, qos, topic.as_bytes(), payload) {
            Err(Unpublishable::Close(_)) => {
                tell(&self.inbox, Notice::Ended(Ended::Misused));
                return false;
            }
            Err(Unpublishable::Declined(declined)) => {
                self.door.declined(&self.guest, topic.as_str(), &declined);
                Err(declined)
            }
            Ok(op @ Op::Event(_)) => {
                let (door, guest) = (self.door.clone(), self.guest.clone());
                self.events.push(Box::pin(async move {
                    let outcome = door.run(&guest, op).await;
                    Appended { token, topic, qos, outcome }
                }));
                return true;
            }
            Ok(op) => self.door.run(&self.guest, op).await,
        };
        let was_settled = matches!(outcome, Ok(Answer::Settled { .. }));
        if !self.answer(token, &topic, qos, outcome) {
            return false;
        }
        if was_settled {
            self.in_hand = None;
            return self.push_front().await;
        }
        true
    }

    /// Says what became of a publish; false if that is the end.
    fn answer(
        &mut self,
        token: Token,
        topic: &Text,
        qos: QoS,
        outcome: Result<Answer, Declined>,
    ) -> bool {
        match &outcome {
            Err(Declined::Denied(Denial::Unavailable)) | Ok(_) => {}
            Err(Declined::Denied(_)) => {
                tell(&self.inbox, Notice::Ended(Ended::Revoked));
                return false;
            }
            Err(Declined::Refused(
                refusal @ (Refusal::Busy | Refusal::Unavailable | Refusal::DiskFull),
            )) if qos > QoS::AtMostOnce => {
                tell(&self.inbox, Notice::Published { token, outcome: Err(*refusal) });
                return true;
            }
            Err(_) => {}
        }
        if let Ok(Answer::Mail { mail, .. }) = &outcome {
            self.in_hand = mail.as_ref().map(|mail| mail.id);
        }
        let form = self.mail().map(|(form, _)| form);
        let said =
            mqtt::answer(form.unwrap_or(MailForm::Current), self.format, topic.as_bytes(), outcome);
        if let Some(said) = said {
            self.say(said);
        }
        if qos > QoS::AtMostOnce {
            tell(
                &self.inbox,
                Notice::Published { token, outcome: Ok(Published { matched: true }) },
            );
        }
        true
    }

    /// How the device wants its mail, if it does.
    fn mail(&self) -> Option<(MailForm, QoS)> {
        self.filters.iter().find_map(|held| Some((held.wanted.mail?, held.qos)))
    }

    /// Publishes to the device what it subscribed to.
    fn say(&self, said: Outgoing) {
        let Outgoing { topic, payload } = said;
        let is_error = topic == mqtt::ERROR_TOPIC;
        let qos = if is_error {
            self.filters.iter().find_map(|held| held.wanted.errors.then_some(held.qos))
        } else {
            self.mail().map(|(_, qos)| qos)
        };
        let Some(qos) = qos else { return };
        let message = Message { topic: Text::from(topic), qos, payload, ..Message::empty() };
        let delivery = Delivery::new(None, qos, Arc::new(message));
        tell(&self.inbox, Notice::Deliver(vec![delivery]));
    }

    /// Pushes the front mail, if the device wants that and does not have it.
    async fn push_front(&mut self) -> bool {
        let Some((form, _)) = self.mail().filter(|_| !self.short_lived) else { return true };
        let front = self.door.run(&self.guest, Op::FetchMail { header_only: false }).await;
        // It is asked for again after a while.
        let Ok(Answer::Mail { size, mail: Some(mail) }) = front else { return true };
        if self.in_hand == Some(mail.id) {
            return true;
        }
        self.in_hand = Some(mail.id);
        if let Some(said) = mqtt::mail(form, self.format, size, Some(mail)) {
            self.say(said);
        }
        true
    }

    async fn hear(&mut self, heard: Heard) -> bool {
        if heard.taken_over {
            tell(&self.inbox, Notice::TakenOver);
            return false;
        }
        if heard.device {
            let stays = self.door.registry.still(&self.guest).await;
            self.unsure = stays == Err(Denial::Unavailable);
            if stays.is_err() && !self.unsure {
                tell(&self.inbox, Notice::Ended(Ended::Revoked));
                return false;
            }
        }
        !heard.mail || self.push_front().await
    }
}

async fn heard(watch: Option<&Watch>, recheck_at: Instant) -> Heard {
    let Some(watch) = watch else { return pending().await };
    tokio::select! {
        heard = watch.heard() => heard,
        () = sleep_until(recheck_at) => Heard::ANYTHING,
    }
}
