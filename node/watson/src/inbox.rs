//! What the service tells a connection, with topics as its client sees them, and what its filters are called there.
//!
//! Invariant: every filter that was asked for is answered, in its place. Checked by `answers_find_their_places`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use moorline_core::{
    Delivery, Message, QoS, Text,
    port::{Ended, Inbox, Notice, Overflow, Refusal, Token},
};
use moorline_dialects::watson::{
    close::Close,
    connect::Version,
    identity::ClientId,
    presence::Traffic,
    topics::{Consequence, Violation, consequence, seen_by},
};
use tokio::sync::Notify;

/// What both directions of a connection share.
pub(crate) struct Shared {
    pub(crate) client: ClientId,
    pub(crate) inbox: Arc<dyn Inbox>,
    read: Counted,
    written: Counted,
    words: Mutex<Words>,
    /// Why the connection ends, if that is known.
    why: Mutex<Option<Close>>,
    version: Version,
    /// The session is open: whoever announces it may begin.
    pub(crate) opened: Notify,
}

#[derive(Debug, Default)]
struct Counted {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn add(&self, message: &Message) {
        let bytes = (message.topic.len() + message.payload.len()) as u64;
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn all(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Filters of this connection: several of a client's may be one of the service's.
#[derive(Debug, Default)]
struct Words {
    subscribing: BTreeMap<Token, Vec<Option<Result<QoS, Refusal>>>>,
    unsubscribing: BTreeMap<Token, Vec<Option<bool>>>,
    /// By canonical filter.
    held: BTreeMap<Text, BTreeSet<Text>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(client: ClientId, version: Version, inbox: Arc<dyn Inbox>) -> Self {
        Self {
            client,
            version,
            inbox,
            read: Counted::default(),
            written: Counted::default(),
            words: Mutex::default(),
            why: Mutex::new(None),
            opened: Notify::new(),
        }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // Every change is one entry.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the client's connection. One that takes nothing is ending anyway.
    pub(crate) fn tell(&self, notice: Notice) {
        self.push(notice).unwrap_or_default();
    }

    /// The connection is to end, and why.
    pub(crate) fn end(&self, ended: Ended, why: Close) {
        self.ends(why);
        self.inbox.push(Notice::Ended(ended)).unwrap_or_default();
    }

    fn ends(&self, why: Close) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why it ended: by what was said to it, else by this.
    pub(crate) fn why_or(&self, else_by: Close) -> Close {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(else_by)
    }

    /// What went over it.
    pub(crate) fn traffic(&self) -> Traffic {
        let ((read_messages, read_bytes), (written_messages, written_bytes)) =
            (self.read.all(), self.written.all());
        Traffic { read_bytes, read_messages, written_bytes, written_messages }
    }

    pub(crate) fn count_read(&self, message: &Message) {
        self.read.add(message);
    }

    /// A subscribe is on its way: what is known of its answer by now.
    pub(crate) fn begin_subscribe(&self, token: Token, known: Vec<Option<Result<QoS, Refusal>>>) {
        self.words().subscribing.insert(token, known);
    }

    /// The same of an unsubscribe.
    pub(crate) fn begin_unsubscribe(&self, token: Token, known: Vec<Option<bool>>) {
        self.words().unsubscribing.insert(token, known);
    }

    /// The client has this filter, which the service calls `canonical`. At most `most` of the latter are remembered.
    pub(crate) fn hold(&self, canonical: &Text, filter: &Text, most: usize) {
        let mut words = self.words();
        if words.held.len() < most || words.held.contains_key(canonical) {
            let held = words.held.entry(canonical.clone()).or_default();
            if held.len() < most {
                held.insert(filter.clone());
            }
        }
    }

    /// It has it no more: whether another one of its filters means the same.
    pub(crate) fn let_go(&self, canonical: &Text, filter: &Text) -> bool {
        let mut words = self.words();
        let Some(held) = words.held.get_mut(canonical) else { return false };
        held.remove(filter);
        let others = !held.is_empty();
        if !others {
            words.held.remove(canonical);
        }
        others
    }

    fn subscribed(&self, token: Token, granted: Granted) -> Granted {
        let Some(known) = self.words().subscribing.remove(&token) else { return granted };
        let asked = known.iter().filter(|known| known.is_none()).count();
        let mut answers = granted.unwrap_or_else(|refusal| vec![Err(refusal); asked]).into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| answers.next())).collect())
    }

    /// Whether it has too many subscriptions now, and its version of MQTT can't say so (§1.5 of the vendor's wire).
    fn is_too_much(&self, granted: &Granted) -> bool {
        let (class, version) = (self.client.class(), self.version);
        let costs = || consequence(class, version, Violation::Subscriptions);
        let is_quota = |granted: &Result<QoS, Refusal>| *granted == Err(Refusal::Quota);
        granted.as_ref().is_ok_and(|granted| granted.iter().any(is_quota))
            && matches!(costs(), Consequence::Close { .. })
    }

    fn unsubscribed(
        &self,
        token: Token,
        existed: Result<Vec<bool>, Refusal>,
    ) -> Result<Vec<bool>, Refusal> {
        let Some(known) = self.words().unsubscribing.remove(&token) else { return existed };
        let mut answers = existed?.into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| answers.next())).collect())
    }

    /// A delivery as the client sees it.
    fn seen(&self, mut delivery: Delivery) -> Delivery {
        if delivery.released {
            return delivery;
        }
        // What its own filters match always has a name for it.
        if let Some(topic) = seen_by(&self.client, delivery.message.topic.as_bytes())
            && topic != delivery.message.topic
        {
            delivery.message = Arc::new(Message { topic, ..Message::clone(&delivery.message) });
        }
        self.written.add(&delivery.message);
        delivery
    }
}

type Granted = Result<Vec<Result<QoS, Refusal>>, Refusal>;

impl Inbox for Shared {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        let notice = match notice {
            Notice::Opened(Ok(opened)) => {
                self.opened.notify_one();
                Notice::Opened(Ok(opened))
            }
            Notice::Subscribed { token, granted } => {
                let granted = self.subscribed(token, granted);
                if self.is_too_much(&granted) {
                    self.ends(Close::Subscriptions);
                    return self.inbox.push(Notice::Ended(Ended::Misused));
                }
                Notice::Subscribed { token, granted }
            }
            Notice::Unsubscribed { token, existed } => {
                Notice::Unsubscribed { token, existed: self.unsubscribed(token, existed) }
            }
            Notice::Deliver(deliveries) => Notice::Deliver(
                deliveries.into_iter().map(|delivery| self.seen(delivery)).collect(),
            ),
            Notice::Retained(deliveries) => Notice::Retained(
                deliveries.into_iter().map(|delivery| self.seen(delivery)).collect(),
            ),
            Notice::TakenOver => {
                self.ends(Close::ClientIdReused);
                Notice::TakenOver
            }
            Notice::Stopping { instead } => {
                self.ends(Close::Stopping);
                Notice::Stopping { instead }
            }
            Notice::Lost => {
                self.ends(Close::ByServer);
                Notice::Lost
            }
            same @ (Notice::Opened(Err(_))
            | Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Ended(_)) => same,
        };
        self.inbox.push(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<Notice>>);

    impl Inbox for Heard {
        fn push(&self, notice: Notice) -> Result<(), Overflow> {
            self.0.lock().unwrap().push(notice);
            Ok(())
        }
    }

    fn shared(client: &str) -> (Shared, Arc<Heard>) {
        shared_by(client, Version::V311)
    }

    fn shared_by(client: &str, version: Version) -> (Shared, Arc<Heard>) {
        let heard = Arc::new(Heard::default());
        let client = ClientId::parse(client.as_bytes()).unwrap();
        (Shared::new(client, version, Arc::clone(&heard) as Arc<dyn Inbox>), heard)
    }

    #[test]
    fn answers_find_their_places() {
        let (shared, heard) = shared("d:abc123:t:d");
        let refused = Err(Refusal::NotAuthorised);
        shared.begin_subscribe(7, vec![None, Some(refused), None]);
        shared.tell(Notice::Subscribed {
            token: 7,
            granted: Ok(vec![Ok(QoS::AtLeastOnce), Err(Refusal::Busy)]),
        });
        shared.begin_subscribe(8, vec![Some(refused), None]);
        shared.tell(Notice::Subscribed { token: 8, granted: Err(Refusal::Busy) });
        shared.begin_unsubscribe(9, vec![Some(true), None]);
        shared.tell(Notice::Unsubscribed { token: 9, existed: Ok(vec![false]) });
        let heard = heard.0.lock().unwrap();
        let subscribed = |token, granted| Notice::Subscribed { token, granted: Ok(granted) };
        assert_eq!(
            *heard,
            [
                subscribed(7, vec![Ok(QoS::AtLeastOnce), refused, Err(Refusal::Busy)]),
                subscribed(8, vec![refused, Err(Refusal::Busy)]),
                Notice::Unsubscribed { token: 9, existed: Ok(vec![true, false]) },
            ]
        );
    }

    #[test]
    fn a_device_sees_its_own_names() {
        let (shared, heard) = shared("d:abc123:t:d");
        let topic = Text::from("iot-2/type/t/id/d/cmd/reset/fmt/json");
        let message = Arc::new(Message { topic, ..Message::empty() });
        let mut released = Delivery::new(None, QoS::ExactlyOnce, Arc::new(Message::empty()));
        released.released = true;
        shared.tell(Notice::Deliver(vec![
            Delivery::new(None, QoS::AtLeastOnce, message),
            released.clone(),
        ]));
        let heard = heard.0.lock().unwrap();
        let [Notice::Deliver(deliveries)] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(deliveries[0].message.topic.as_str(), "iot-2/cmd/reset/fmt/json");
        assert_eq!(deliveries[1], released);
        assert_eq!(shared.traffic().written_messages, 1);
    }

    #[test]
    fn one_subscription_too_many_is_said_or_ends_the_connection() {
        for (client, version, closes) in [
            ("d:abc123:t:d", Version::V311, true),
            ("a:abc123:app", Version::V31, true),
            ("d:abc123:t:d", Version::V5, false),
            ("g:abc123:t:d", Version::V311, false),
        ] {
            let (shared, heard) = shared_by(client, version);
            shared.begin_subscribe(1, vec![None]);
            shared.tell(Notice::Subscribed { token: 1, granted: Ok(vec![Err(Refusal::Quota)]) });
            let ended = heard.0.lock().unwrap()[0] == Notice::Ended(Ended::Misused);
            let why = if closes { Close::Subscriptions } else { Close::ByClient };
            assert_eq!((ended, shared.why_or(Close::ByClient)), (closes, why), "{client}");
        }
    }

    #[test]
    fn a_filter_is_gone_when_all_that_mean_it_are() {
        let (shared, _) = shared("d:abc123:t:d");
        let (canonical, one, two) = (Text::from("c"), Text::from("1"), Text::from("2"));
        shared.hold(&canonical, &one, 50);
        shared.hold(&canonical, &two, 50);
        assert!(shared.let_go(&canonical, &one));
        assert!(!shared.let_go(&canonical, &two));
        assert!(!shared.let_go(&canonical, &two), "one from an earlier connection");
    }
}
