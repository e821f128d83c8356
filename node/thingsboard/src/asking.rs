//! A connection of somebody without credentials, who wants some: nothing else is done on it.
//!
//! # Invariants
//!
//! - **It ends**: [`WAIT`] after it came if nothing was asked, and [`LINGER`] after the first answer.
//! - **It may subscribe to the answer and publish the request**, and is closed for anything else that it publishes.
//!
//! Checked by the cluster tests (`thingsboard_profiles.rs`).

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moorline_core::{
    Delivery, Message, QoS, TenantId, Text,
    port::{Ended, Filter, Inbox, Link, Notice, Port, Published, Refusal, Token},
};
use moorline_dialects::thingsboard::{
    connect::{self, Hello},
    filters::{self, downlink_qos},
    payloads,
    provision::LINGER_MS,
    topics::{self, OwnTopics, PROVISION_RESPONSE, SessionKind},
};
use moorline_edge::{
    Attempt, Denial, Doorkeeper, Identity,
    asks::{self, Ask, tell},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    door::Door,
    mqtt::{HERE, Mqtt},
    places::Place,
    provision::{Asker, letters},
};

/// How long it may say nothing.
const WAIT: Duration = Duration::from_secs(60);
/// How long it may stay once it has its answer.
const LINGER: Duration = Duration::from_millis(LINGER_MS);

impl Mqtt {
    /// Lets somebody in who wants credentials; [`None`] if that is not what it wants. A client that shows a password is somebody.
    #[must_use]
    pub fn asking(
        &self,
        attempt: &Attempt,
        doors: &Doorkeeper,
    ) -> Option<Result<Identity, Denial>> {
        let hello = Hello {
            client_id: attempt.client.as_str(),
            user_name: attempt.username.as_ref().map(Text::as_str),
            ..Hello::default()
        };
        let shows = attempt.password.as_ref().is_some_and(|password| !password.is_empty());
        let asks = connect::attempts(&hello) == [connect::Attempt::Provision];
        if shows || !asks || !self.0.has_tenants() {
            return None;
        }
        let Some(place) = self.0.provisioning.take(attempt.peer.ip().to_canonical()) else {
            return Some(Err(Denial::Crowded));
        };
        let asking = Asking {
            door: self.0.clone(),
            doors: doors.clone(),
            from: attempt.peer.ip(),
            tls: attempt.channel.tls,
            place: Mutex::new(Some(place)),
        };
        let port = Some(Arc::new(asking) as Arc<dyn Port>);
        let rules = Some(self.0.rules.now());
        // Many come by the same client id: none of them is another one's.
        let session = Some(Text::from(format!("provision {}", letters())));
        // Nobody's: which tenant it belongs to is not known before it has asked.
        Some(Ok(Identity { session, port, rules, ..Identity::of(TenantId(0)) }))
    }
}

/// Somebody who was let in, before its connection takes it up.
struct Asking {
    door: Door,
    doors: Doorkeeper,
    from: IpAddr,
    tls: bool,
    place: Mutex<Option<Place<IpAddr>>>,
}

impl Port for Asking {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (link, asked) = asks::link(HERE, Arc::clone(&inbox));
        // A port is taken up once.
        if let Some(place) = self.place.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let asker = Asker { from: self.from, tls: self.tls };
            let (door, doors) = (self.door.clone(), self.doors.clone());
            let session = Session { door, doors, asker, inbox, granted: None, _place: place };
            self.door.tasks.spawn(session.run(asked));
        }
        link
    }
}

struct Session {
    door: Door,
    doors: Doorkeeper,
    asker: Asker,
    inbox: Arc<dyn Inbox>,
    /// How it wants to be answered.
    granted: Option<QoS>,
    _place: Place<IpAddr>,
}

impl Session {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let (mut ends, mut answered) = (Instant::now() + WAIT, false);
        loop {
            let ask = tokio::select! {
                ask = asked.recv() => ask,
                () = sleep_until(ends) => {
                    tell(&self.inbox, Notice::Ended(Ended::Finished));
                    return;
                }
            };
            let Some(ask) = ask else { return };
            match ask {
                Ask::Publish(token, message) => {
                    if !self.publish(token, &message).await {
                        tell(&self.inbox, Notice::Ended(Ended::Misused));
                        return;
                    }
                    if !answered {
                        (ends, answered) = (Instant::now() + LINGER, true);
                    }
                }
                Ask::Subscribe(token, filters, _) => {
                    let granted = filters.into_iter().map(|filter| self.grant(&filter)).collect();
                    tell(&self.inbox, Notice::Subscribed { token, granted: Ok(granted) });
                }
                Ask::Unsubscribe(token, filters) => {
                    let had = |filter: &Text| filter.as_str() == PROVISION_RESPONSE;
                    let existed: Vec<_> = filters
                        .iter()
                        .map(|filter| had(filter) && self.granted.take().is_some())
                        .collect();
                    tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                }
                Ask::Open(_) | Ask::Taken(_) => {}
            }
        }
    }

    fn grant(&mut self, asked: &Filter) -> Result<QoS, Refusal> {
        let kind = SessionKind::Provisioning;
        let known = filters::subscribe(asked.filter.as_bytes(), kind, OwnTopics::default());
        known.ok_or(Refusal::Topic)?;
        let qos = filters::granted(asked.options.qos);
        self.granted = Some(qos);
        Ok(qos)
    }

    /// Answers a request; false if it is none.
    async fn publish(&self, token: Token, message: &Message) -> bool {
        let kind = SessionKind::Provisioning;
        let asks = topics::publish(message.topic.as_bytes(), kind, OwnTopics::default());
        let Ok((request, encoding)) = asks
            .map_err(drop)
            .and_then(|_| payloads::provision_request(&message.payload).map_err(drop))
        else {
            return false;
        };
        let answer = self.door.provision(&self.doors, self.asker, &request).await;
        let payload = payloads::provision_answer(encoding, &answer);
        let qos = downlink_qos(self.granted);
        let topic = Text::from(PROVISION_RESPONSE);
        let message_down = Message { topic, qos, payload, ..Message::empty() };
        let delivery = Delivery::new(None, qos, Arc::new(message_down));
        tell(&self.inbox, Notice::Deliver(vec![delivery]));
        if message.qos > QoS::AtMostOnce {
            let outcome = Ok(Published { matched: true });
            tell(&self.inbox, Notice::Published { token, outcome });
        }
        true
    }
}
