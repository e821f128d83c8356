//! An application over MQTT: who it is, its subscriptions to events, and the commands that it sends.

use std::{collections::HashMap, sync::Arc};

use moorline_core::{
    Message, QoS, Text,
    op::Denial,
    port::{Ended, Filter, Inbox, Link, Notice, PlatformReason, Port, Published, Refusal, Token},
};
use moorline_dialects::drogue::{
    application::{self, Form, Unwanted},
    command::Outcome,
};
use moorline_edge::{
    Attempt, Identity,
    asks::{self, Ask, tell},
    watch_over,
};
use moorline_machine::events::CONSUMER_NAME_BYTES_MAX;
use moorline_service::registry::{
    door::By,
    principal::{ApiToken, Principal, kept_as},
    settings::Role,
};
use tokio::sync::mpsc;

use crate::{
    door::{Door, Turned},
    feed::{Feed, Tap},
    groups::Ungrouped,
    metrics::Counted,
    mqtt::HERE,
};

/// What an API token begins with.
const TOKEN: &str = "mlt_";
/// What a client id begins with that the edge made up.
const MADE_UP: &str = "auto-";
/// Subscriptions of one connection: each reads all events of the application.
const FEEDS_MAX: usize = 8;

/// The token that a client shows, if it is one of an application: as password, or alone as user name.
pub(crate) fn token(
    door: &Door,
    username: Option<&Text>,
    password: Option<&[u8]>,
) -> Option<String> {
    let shown = match (username, password) {
        (_, Some(password)) => std::str::from_utf8(password).ok()?,
        (Some(username), None) => username.as_str(),
        (None, None) => return None,
    };
    let token = ApiToken::parse(shown).filter(|_| shown.starts_with(TOKEN))?;
    door.takes(token.tenant).then(|| shown.to_owned())
}

/// An application that was let in, before its connection takes it up.
pub(crate) struct Application {
    door: Door,
    principal: Principal,
    /// With whom it shares events that it does not share by a group.
    client: Option<Text>,
    is_v5: bool,
}

impl Application {
    /// Lets one in.
    pub(crate) async fn enter(
        door: Door,
        token: &str,
        attempt: &Attempt,
    ) -> Result<Identity, Turned> {
        let asked = ApiToken::parse(token).ok_or(Turned::Away)?;
        let (tenant, kept) = (asked.tenant, kept_as(asked.name));
        if !attempt.channel.tls && !door.registry.takes_plaintext(tenant) {
            return Err(Turned::Away);
        }
        // Before its row is read: what changes from then on is told.
        let watch = door.registry.watch(tenant, &kept);
        let from = attempt.peer.ip().to_canonical();
        let principal = door.principal(token, By::Mqtt, from).await?;
        if !door.registry.tenant(tenant).is_some_and(|of| of.enabled) {
            return Err(Turned::Away);
        }
        let watched = (door.clone(), principal.clone());
        let begin = watch_over(door.tasks.clone(), move || async move {
            let (door, principal) = watched;
            let stays = || stays(&door, &principal);
            watch.until_revoked(None, || door.now_ms(), stays).await;
        });
        let client = attempt.client.clone();
        let client = Some(client).filter(|client| !client.as_str().starts_with(MADE_UP));
        let rules = Some(Arc::clone(&door.application_rules));
        let is_v5 = attempt.version.is_v5();
        let application = Self { door, principal, client, is_v5 };
        let port = Some(Arc::new(application) as Arc<dyn Port>);
        Ok(Identity { port, rules, begin: Some(begin), ..Identity::of(tenant) })
    }
}

/// Whether it may stay.
pub(crate) async fn stays(door: &Door, principal: &Principal) -> Result<(), Denial> {
    let Principal { tenant, name, version, .. } = principal;
    let again = door.registry.principal_again(*tenant, name.as_str(), *version).await;
    match again {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Denial::WrongSecret),
        Err(_) => return Err(Denial::Unavailable),
    }
    let enabled = door.registry.tenant(*tenant).is_some_and(|of| of.enabled);
    if enabled { Ok(()) } else { Err(Denial::Disabled) }
}

impl Port for Application {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let (link, asked) = asks::link(HERE, Arc::clone(&inbox));
        let session = Session {
            door: self.door.clone(),
            principal: self.principal.clone(),
            client: self.client.clone(),
            is_v5: self.is_v5,
            inbox,
            feeds: HashMap::new(),
            next: 0,
        };
        self.door.tasks.spawn(session.run(asked));
        link
    }
}

/// One connection's task.
struct Session {
    door: Door,
    principal: Principal,
    client: Option<Text>,
    is_v5: bool,
    inbox: Arc<dyn Inbox>,
    /// By filter.
    feeds: HashMap<Text, Tap>,
    /// The number of the next feed.
    next: u16,
}

impl Session {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let _counted =
            Counted::of(&self.door.metrics.connections.with_label_values(&["application"]));
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Publish(token, message) => self.publish(token, message).await,
                Ask::Subscribe(token, filters, user) => {
                    let user = user.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    let form = if self.is_v5 { Form::of(user) } else { Form::V3 };
                    let mut granted = Vec::with_capacity(filters.len());
                    for filter in filters {
                        granted.push(self.subscribe(filter, form).await);
                    }
                    tell(&self.inbox, Notice::Subscribed { token, granted: Ok(granted) });
                }
                Ask::Unsubscribe(token, filters) => {
                    let existed =
                        filters.iter().map(|filter| self.feeds.remove(filter).is_some()).collect();
                    tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                }
                Ask::Open(_) => {}
                Ask::Taken(numbers) => {
                    for tap in self.feeds.values() {
                        tap.taken(&numbers);
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self, asked: Filter, form: Form) -> Result<QoS, Refusal> {
        let Filter { filter, options } = asked;
        let wanted = application::subscribe(filter.as_str()).map_err(|why| {
            self.door.metrics.filters_refused.with_label_values(&["application"]).inc();
            match why {
                Unwanted::Wildcard => Refusal::Platform(PlatformReason::Wildcard),
                Unwanted::Form => Refusal::Topic,
            }
        })?;
        let tenant = self.principal.tenant;
        let application = match self.door.application(wanted.application.as_str()).await {
            Ok((found, name)) if found == tenant => name,
            Ok(_) | Err(Turned::Away) => return Err(Refusal::NotAuthorised),
            Err(Turned::Unavailable | Turned::Misconfigured) => {
                return Err(Refusal::Platform(PlatformReason::Unspecified));
            }
        };
        self.feeds.remove(&filter);
        if self.feeds.len() >= FEEDS_MAX {
            return Err(Refusal::Quota);
        }
        let group = wanted.group.or_else(|| self.client.clone());
        if group.as_ref().is_some_and(|group| group.len() > CONSUMER_NAME_BYTES_MAX) {
            return Err(Refusal::Topic);
        }
        let reading = self.door.registry.begin_reading(tenant).map_err(|_| Refusal::Busy)?;
        self.door.begins(tenant, group.as_ref()).await.map_err(|why| match why {
            Ungrouped::Full => Refusal::Quota,
            Ungrouped::Unavailable => Refusal::Platform(PlatformReason::Unspecified),
        })?;
        let qos = options.qos.min(QoS::AtLeastOnce);
        let feed = Feed {
            door: self.door.clone(),
            tenant,
            application,
            group,
            channel: None,
            topic: wanted.topic,
            form,
            qos,
            id: options.id,
            inbox: Arc::clone(&self.inbox),
            _reading: reading,
        };
        self.next = self.next.wrapping_add(1);
        self.feeds.insert(filter, feed.begin(self.next));
        Ok(qos)
    }

    async fn publish(&self, token: Token, message: Message) {
        let outcome = self.command(&message).await;
        let wants_answer = message.qos > QoS::AtMostOnce;
        match outcome {
            Ok(()) if wants_answer => {
                let outcome = Ok(Published { matched: true });
                tell(&self.inbox, Notice::Published { token, outcome });
            }
            Err(refusal) if self.is_v5 && wants_answer => {
                tell(&self.inbox, Notice::Published { token, outcome: Err(refusal) });
            }
            Err(_) if !self.is_v5 => tell(&self.inbox, Notice::Ended(Ended::Misused)),
            Ok(()) | Err(_) => {}
        }
    }

    async fn command(&self, message: &Message) -> Result<(), Refusal> {
        let unsupported = Refusal::Platform(PlatformReason::Unsupported);
        let asked = application::publish(message.topic.as_str()).ok_or(unsupported)?;
        if self.principal.role == Role::ReadOnly {
            return Err(Refusal::NotAuthorised);
        }
        let tenant = self.principal.tenant;
        let known = self.door.application(asked.application.as_str()).await;
        if !known.is_ok_and(|(found, _)| found == tenant) {
            return Err(Refusal::NotAuthorised);
        }
        let (name, payload) = (asked.name.as_str(), message.payload.clone());
        match self.door.command(tenant, &asked.device, name, payload, By::Mqtt).await {
            Outcome::Sent => Ok(()),
            Outcome::Nobody => Err(Refusal::NotAuthorised),
            Outcome::Unavailable | Outcome::Failed => {
                Err(Refusal::Platform(PlatformReason::Unspecified))
            }
        }
    }
}
