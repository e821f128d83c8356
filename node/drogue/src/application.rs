//! An application over MQTT: who it is, its subscriptions to events, and the commands that it sends.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use moorline_core::{
    ConnId, Message, Offset, QoS, ShareNumber, Text,
    op::Denial,
    port::{
        Close, Ended, Filter, Inbox, Link, Notice, Open, PlatformReason, Port, Published, Refusal,
        Token, UserProperties,
    },
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
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::{
    door::{Door, Turned},
    feed::{Feed, Tap},
    groups::Ungrouped,
    link::locked,
    metrics::Counted,
    mqtt::HERE,
};

/// What an API token begins with.
const TOKEN: &str = "mlt_";
/// What a client id begins with that the edge made up, before so many hexadecimal digits.
const MADE_UP: &str = "auto-";
/// See [`MADE_UP`].
const MADE_UP_DIGITS: usize = 32;
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
        let client = Some(client).filter(|client| !is_made_up(client.as_str()));
        let rules = Some(door.application_rules.now());
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
        let feeds = Feeds::default();
        let session = Session {
            door: self.door.clone(),
            principal: self.principal.clone(),
            client: self.client.clone(),
            is_v5: self.is_v5,
            inbox,
            feeds: Arc::clone(&feeds),
            next: 0,
        };
        self.door.tasks.spawn(session.run(asked));
        Box::new(AppLink { asks: link, feeds })
    }
}

/// Subscriptions of a connection, by filter.
type Feeds = Arc<Mutex<HashMap<Text, Tap>>>;

/// A link whose feeds hear at once what the client has: what it asks besides takes its turn, and endpoints of commands take their time.
struct AppLink {
    asks: Box<dyn Link>,
    feeds: Feeds,
}

impl fmt::Debug for AppLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppLink").finish_non_exhaustive()
    }
}

impl Link for AppLink {
    fn conn(&self) -> ConnId {
        self.asks.conn()
    }

    fn open(&mut self, open: Open) {
        self.asks.open(open);
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.asks.publish(token, message);
    }

    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        self.asks.publish_once(token, packet, message);
    }

    fn complete(&mut self, packet: u16) {
        self.asks.complete(packet);
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.asks.release(offsets);
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.asks.subscribe(token, filters);
    }

    fn subscribe_saying(&mut self, token: Token, filters: Vec<Filter>, user: UserProperties) {
        self.asks.subscribe_saying(token, filters, user);
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.asks.unsubscribe(token, filters);
    }

    fn settle(&mut self, _: &[Offset]) {}

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        let numbers: Vec<_> = items.iter().map(|(_, number)| number.0).collect();
        for tap in locked(&self.feeds).values() {
            tap.taken(&numbers);
        }
    }

    fn retained_taken(&mut self) {}

    fn close(&mut self, close: Close) {
        self.asks.close(close);
    }
}

/// One connection's task.
struct Session {
    door: Door,
    principal: Principal,
    client: Option<Text>,
    is_v5: bool,
    inbox: Arc<dyn Inbox>,
    feeds: Feeds,
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
                    let mut feeds = locked(&self.feeds);
                    let existed =
                        filters.iter().map(|filter| feeds.remove(filter).is_some()).collect();
                    drop(feeds);
                    tell(&self.inbox, Notice::Unsubscribed { token, existed: Ok(existed) });
                }
                // What the client has its link says.
                Ask::Open(_) | Ask::Taken(_) => {}
            }
        }
        // Its link may be there for a moment yet.
        locked(&self.feeds).clear();
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
        let others = locked(&self.feeds).keys().filter(|other| **other != filter).count();
        if others >= FEEDS_MAX {
            return Err(Refusal::Quota);
        }
        let group = wanted.group.or_else(|| self.client.as_ref().map(group_of));
        if group.as_ref().is_some_and(|group| group.len() > CONSUMER_NAME_BYTES_MAX) {
            return Err(Refusal::Topic);
        }
        let reading = self.door.registry.begin_reading(tenant).map_err(|_| Refusal::Busy)?;
        let start = self.door.begins(tenant, group.as_ref()).await.map_err(|why| match why {
            Ungrouped::Full => Refusal::Quota,
            Ungrouped::Unavailable => Refusal::Platform(PlatformReason::Unspecified),
        })?;
        // The one before stays if there is no other. Without a group this one goes on where that was.
        let before = locked(&self.feeds).remove(&filter);
        let place = match before {
            Some(before) => before.end().await,
            None => None,
        };
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
            start: start.map(|start| place.unwrap_or(start)),
            _reading: reading,
        };
        self.next = self.next.wrapping_add(1);
        locked(&self.feeds).insert(filter, feed.begin(self.next));
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

/// Whether a client id is one that the edge made up: no other connection has it, so nobody shares by it.
fn is_made_up(client: &str) -> bool {
    let digits = client.strip_prefix(MADE_UP);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.is_some_and(|digits| digits.len() == MADE_UP_DIGITS && digits.bytes().all(is_digit))
}

/// The group of those who have the same client id: of its name, if that can be one; else of a name made of it.
fn group_of(client: &Text) -> Text {
    if client.len() <= CONSUMER_NAME_BYTES_MAX {
        return client.clone();
    }
    let digest = Sha256::digest(client.as_str().as_bytes());
    let half = digest.first_chunk::<16>().expect("it has 32 bytes");
    Text::from(format!("long-{:032x}", u128::from_be_bytes(*half)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_that_were_made_up_are_no_groups() {
        let made_up = format!("auto-{:032x}", 0xabc_def_u128);
        #[rustfmt::skip]
        let table = [
            (made_up.as_str(), true), ("auto-", false), ("auto-parts", false), ("dashboard", false),
            ("auto-0123456789ABCDEF0123456789ABCDEF", false), ("", false),
        ];
        for (client, expected) in table {
            assert_eq!(is_made_up(client), expected, "{client}");
        }
    }

    #[test]
    fn a_client_id_of_any_length_is_a_group() {
        let of = |length: usize, last: &str| {
            group_of(&Text::from(format!("{}{last}", "x".repeat(length))))
        };
        assert_eq!(of(63, "a").as_str(), format!("{}a", "x".repeat(63)));
        for length in [64, 1_000] {
            assert!(of(length, "a").len() <= CONSUMER_NAME_BYTES_MAX);
            assert_eq!(of(length, "a"), of(length, "a"));
            assert_ne!(of(length, "a"), of(length, "b"));
        }
    }
}
