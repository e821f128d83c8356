//! The task of a device's connection: what it publishes becomes events, in its order; what it subscribes to is its inbox; when it is
//! gone without a goodbye, its will is said.
//!
//! # Invariants
//!
//! - **It begins when the client is let in**, and when the device's connection before, if it was at this node, has said all.
//! - **Who may not be here any more, or is another connection by now, says nothing more of what waits**; the latter says its will at once.
//!
//! Checked by the tests of `link.rs` and `places.rs`, and by the cluster tests (`drogue.rs`, `drogue_mends.rs`).

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    Message, QoS, SubscriptionOptions, Text,
    port::{Ended, Filter, Notice, PlatformReason, Published, Refusal, Token},
};
use moorline_dialects::drogue::{
    inbox::{self, Inbox as Wanted},
    outcome::{Answer, Outcome},
    properties,
    topics::Dialect,
};
use moorline_edge::asks::Ask;
use moorline_service::registry::{
    explain::{Cause, Stage},
    mailman::Mailman,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    inbox::Shared,
    link::{Below, End, locked},
    metrics::Counted,
    speaker::{Said, Saying, Speaker},
};

/// Events of one connection that are under way at once.
const EVENTS_MAX: usize = 64;
/// Filters of one connection.
const FILTERS_MAX: usize = 64;
/// How long the inbox may take to be there.
const INBOX_WAIT: Duration = Duration::from_secs(10);
/// Of the one subscription.
const SUBSCRIBE: Token = 1;

/// A publish that was answered.
struct Done {
    token: Token,
    qos: QoS,
    said: Said,
}

type Appending = Pin<Box<dyn Future<Output = Done> + Send>>;

/// See the module.
pub(crate) struct Session {
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) dialect: Dialect,
    pub(crate) is_v5: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) below: Below,
    pub(crate) end: Arc<Mutex<End>>,
}

impl Session {
    pub(crate) async fn run(self, opened: oneshot::Receiver<()>, mut asked: mpsc::Receiver<Ask>) {
        if opened.await.is_err() {
            // It was not let in: it was never here.
            return;
        }
        let guest = &self.speaker.guest;
        let mut turn = self.speaker.door.places.turn(guest.tenant, &guest.device);
        let _counted =
            Counted::of(&self.speaker.door.metrics.connections.with_label_values(&["device"]));
        // It goes behind the will.
        let _present = self.speaker.door.registry.arrive(&self.speaker.guest);
        let (mut appending, mut has_inbox) = (FuturesUnordered::<Appending>::new(), false);
        turn.comes().await;
        // Ends with this task.
        let _mailman = self.bring_mail();
        loop {
            tokio::select! {
                biased;
                ask = asked.recv(), if appending.len() < EVENTS_MAX => match ask {
                    None => break,
                    Some(_) if locked(&self.end).drops_all() => break,
                    Some(Ask::Publish(token, message)) => {
                        let qos = message.qos;
                        match self.publish(message).await {
                            Ok(said) => appending.push(Box::pin(async move {
                                Done { token, qos, said: said.await }
                            })),
                            Err(said) => self.answer(&Done { token, qos, said }),
                        }
                    }
                    Some(Ask::Subscribe(token, filters, _)) => {
                        self.subscribe(token, filters, &mut has_inbox).await;
                    }
                    Some(Ask::Unsubscribe(token, filters)) => self.unsubscribe(token, &filters),
                    // Nothing is sent so that it is told.
                    Some(Ask::Open(_) | Ask::Taken(_)) => {}
                },
                Some(done) = appending.next() => self.answer(&done),
            }
        }
        // What was on its way is, and comes before the will.
        while appending.next().await.is_some() {}
        self.say_will().await;
    }

    /// What waits for the device comes as soon as it listens for it, until the guard is dropped.
    fn bring_mail(&self) -> DropGuard {
        let (stop, guest) = (CancellationToken::new(), &self.speaker.guest);
        let registry = self.speaker.door.registry.clone();
        let whose = (guest.tenant, guest.device.clone());
        let mailman = Mailman::new(registry, whose, guest.by, Arc::clone(&self.shared));
        self.speaker.door.tasks.spawn(mailman.run(stop.clone()));
        stop.drop_guard()
    }

    async fn publish(&self, message: Message) -> Result<crate::speaker::Appending, Said> {
        let refused = |outcome| (outcome, String::new());
        let topic = message.topic.as_str();
        let said = self.dialect.publish(topic).ok_or_else(|| refused(Outcome::Topic))?;
        let target = self.speaker.target(said.device).await.map_err(refused)?;
        let properties = properties::read(&message.properties);
        let saying = Saying {
            channel: said.channel,
            content_type: properties.content_type.as_deref(),
            data_schema: None,
            extensions: &[],
            data: &message.payload,
        };
        self.speaker.say(&target, &saying).await
    }

    /// Says what became of a publish.
    fn answer(&self, done: &Done) {
        let Done { token, qos, said: (outcome, _) } = done;
        let told = match outcome.mqtt(self.is_v5, *qos) {
            Answer::Acknowledged => Ok(Published { matched: true }),
            Answer::Reason(_) => Err(refusal(*outcome)),
            Answer::Dropped => return self.note_dropped(*outcome),
            Answer::Closed => return self.shared.tell(Notice::Ended(Ended::Misused)),
        };
        if *qos > QoS::AtMostOnce {
            self.shared.tell(Notice::Published { token: *token, outcome: told });
        }
    }

    /// Nobody answers it; whoever asks later why it did not arrive hears of it.
    fn note_dropped(&self, outcome: Outcome) {
        let guest = &self.speaker.guest;
        let (whose, cause) = ((guest.tenant, &guest.device), Cause::of_publish(refusal(outcome)));
        if outcome != Outcome::Accepted {
            self.speaker.door.registry.note_dropped(whose, Stage::Publish, "", cause);
        }
    }

    async fn subscribe(&self, token: Token, filters: Vec<Filter>, has_inbox: &mut bool) {
        let wanted: Vec<_> = filters
            .into_iter()
            .map(|Filter { filter, .. }| (Wanted::parse(filter.as_str()), filter))
            .collect();
        if !*has_inbox && wanted.iter().any(|(wanted, _)| wanted.is_some()) {
            *has_inbox = self.has_inbox().await;
        }
        let grant = |(wanted, filter): (Option<Wanted>, Text)| {
            let Some(wanted) = wanted else {
                let refused = &self.speaker.door.metrics.filters_refused;
                refused.with_label_values(&["device"]).inc();
                return Err(Refusal::Platform(PlatformReason::Unspecified));
            };
            if !*has_inbox {
                return Err(Refusal::Unavailable);
            }
            let held = self.shared.hold(wanted, filter, FILTERS_MAX);
            if held { Ok(QoS::AtMostOnce) } else { Err(Refusal::Quota) }
        };
        let granted = wanted.into_iter().map(grant).collect();
        self.shared.tell(Notice::Subscribed { token, granted: Ok(granted) });
    }

    /// Has all commands come that this device may hear: which of them it does, its filters say.
    async fn has_inbox(&self) -> bool {
        let granted = self.shared.subscribes();
        let filter = inbox::canonical_filter(self.speaker.guest.device.as_str(), None);
        let options = SubscriptionOptions::default();
        locked(&self.below).subscribe(SUBSCRIBE, vec![Filter { filter, options }]);
        timeout(INBOX_WAIT, granted).await.is_ok_and(|granted| granted.unwrap_or(false))
    }

    fn unsubscribe(&self, token: Token, filters: &[Text]) {
        let end = |filter: &Text| {
            let wanted = Wanted::parse(filter.as_str());
            wanted.is_some_and(|wanted| self.shared.let_go(&wanted, filter))
        };
        let existed = filters.iter().map(end).collect();
        self.shared.tell(Notice::Unsubscribed { token, existed: Ok(existed) });
    }

    /// Its topic is the channel as it stands there.
    async fn say_will(&self) {
        let Some(will) = locked(&self.end).will() else { return };
        let properties = properties::read(&will.message.properties);
        let saying = Saying {
            channel: will.message.topic.as_str(),
            content_type: properties.content_type.as_deref(),
            data_schema: None,
            extensions: &[],
            data: &will.message.payload,
        };
        if let Ok(said) = self.speaker.say_last(self.speaker.own(), &saying).await {
            said.await;
        }
    }
}

/// An outcome as the core says it.
pub(crate) fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::NotAllowed => Refusal::NotAuthorised,
        Outcome::Full => Refusal::Quota,
        Outcome::Topic => Refusal::Topic,
        Outcome::Payload => Refusal::Payload,
        Outcome::Unsupported => Refusal::Platform(PlatformReason::Unsupported),
        Outcome::Accepted | Outcome::Rejected | Outcome::Failed | Outcome::Misconfigured => {
            Refusal::Platform(PlatformReason::Unspecified)
        }
    }
}
