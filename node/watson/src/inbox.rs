//! What the service tells a connection, with topics as its client sees them, and what its filters are called there; and what waits in
//! the mailbox of its device, as a command.
//!
//! Invariant: every filter that was asked for is answered, in its place. Checked by `answers_find_their_places`. Mail comes by a filter
//! that was granted on this connection. Checked by `mail_comes_by_a_filter_that_was_granted`.

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
    topic,
};
use moorline_dialects::watson::{
    close::Close,
    connect::Version,
    identity::ClientId,
    mail,
    presence::Traffic,
    topics::{Consequence, Violation, consequence, seen_by},
};
use moorline_edge::Handed;
use moorline_machine::mail::Mail;
use moorline_service::registry::mailman::{Fate, Says, Unsaid};
use prometheus::IntCounterVec;
use tokio::sync::{Notify, oneshot};

use crate::stream::{Both, Outcome};

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
    /// Publishes that are appended to a stream, too.
    pub(crate) both: Both,
    /// Mail that is on its way to the client.
    pub(crate) handed: Handed,
    /// The client listens for other commands than before.
    changed: Notify,
    /// What became of mail.
    mail: IntCounterVec,
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
    /// Of the filters that a subscribe asked the service for: those for commands.
    asking: BTreeMap<Token, Vec<Option<Text>>>,
    /// Filters for commands that were granted on this connection, canonical.
    commands: BTreeMap<Text, QoS>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Shared {
    /// `mail`: counts what becomes of mail.
    pub(crate) fn new(
        client: ClientId,
        version: Version,
        inbox: Arc<dyn Inbox>,
        mail: IntCounterVec,
    ) -> Self {
        Self {
            client,
            version,
            inbox,
            read: Counted::default(),
            written: Counted::default(),
            words: Mutex::default(),
            why: Mutex::new(None),
            opened: Notify::new(),
            both: Both::default(),
            handed: Handed::default(),
            changed: Notify::new(),
            mail,
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

    /// Answers a publish that was told of by both: published and appended.
    pub(crate) fn answered(&self, token: Token, outcome: Outcome) {
        self.inbox.push(Notice::Published { token, outcome }).unwrap_or_default();
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

    /// The same: which of the filters that the service is asked for are for commands, by their canonical names.
    pub(crate) fn asks_for(&self, token: Token, commands: Vec<Option<Text>>) {
        self.words().asking.insert(token, commands);
    }

    /// The client does not listen for these commands any more, also if what it asked for before is answered later.
    pub(crate) fn listens_no_more(&self, canonical: &Text) {
        let mut words = self.words();
        words.commands.remove(canonical);
        for asked in words.asking.values_mut().flatten() {
            asked.take_if(|filter| filter == canonical);
        }
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

    /// Remembers which commands the client listens for now.
    fn learn(&self, token: Token, granted: &Granted) {
        let mut words = self.words();
        let Some(asked) = words.asking.remove(&token) else { return };
        let answers = granted.iter().flatten();
        for (commands, answer) in asked.into_iter().zip(answers) {
            if let (Some(filter), Ok(qos)) = (commands, answer) {
                words.commands.insert(filter, (*qos).min(QoS::AtLeastOnce));
                self.changed.notify_one();
            }
        }
    }

    fn subscribed(&self, token: Token, granted: Granted) -> Granted {
        self.learn(token, &granted);
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

impl Says for Shared {
    fn listens(&self) -> bool {
        !self.words().commands.is_empty()
    }

    fn say(&self, mail: &Mail) -> Result<Message, Unsaid> {
        let device = self.client.device().ok_or(Unsaid::Unheard)?;
        let said = mail::said(device, &mail.name, &mail.payload);
        let (command, payload) = said.map_err(Unsaid::Never)?;
        let canonical = command.topic();
        let qos = {
            let words = self.words();
            let hears = |(filter, qos): (&Text, &QoS)| {
                topic::matches(filter.as_bytes(), canonical.as_bytes()).then_some(*qos)
            };
            words.commands.iter().filter_map(hears).max()
        };
        let qos = qos.ok_or(Unsaid::Unheard)?;
        let topic = seen_by(&self.client, canonical.as_bytes()).ok_or(Unsaid::Unheard)?;
        Ok(Message { topic, qos, payload, ..Message::empty() })
    }

    fn hand(&self, message: Message) -> Option<oneshot::Receiver<()>> {
        self.written.add(&message);
        self.handed.over(&*self.inbox, message)
    }

    fn count(&self, fate: Fate) {
        self.mail.with_label_values(&[fate.label()]).inc();
    }

    fn changed(&self) -> &Notify {
        &self.changed
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
            Notice::Published { token, outcome } => match self.both.published(token, outcome) {
                Some(outcome) => Notice::Published { token, outcome },
                // Not before it is appended, too.
                None => return Ok(()),
            },
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
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Ended(_)) => same,
        };
        self.inbox.push(notice)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::UnixMillis;
    use prometheus::Opts;

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
        let mail = IntCounterVec::new(Opts::new("mail", "mail"), &["result"]).unwrap();
        (Shared::new(client, version, Arc::clone(&heard) as Arc<dyn Inbox>, mail), heard)
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
    fn mail_comes_by_a_filter_that_was_granted() {
        let (shared, heard) = shared("d:abc123:t:d");
        let mail = |name: &str, payload: &'static str| Mail {
            id: 7,
            name: Text::from(name),
            content_type: 1,
            payload: Bytes::from(payload),
            created: UnixMillis(0),
            expires_at: None,
            requeues: 0,
        };
        assert!(!shared.listens());
        assert_eq!(shared.say(&mail("go", "1")), Err(Unsaid::Unheard));
        let filter = |command: &str| Text::from(format!("iot-2/type/t/id/d/cmd/{command}/fmt/+"));
        shared.begin_subscribe(1, vec![None, Some(Err(Refusal::NotAuthorised)), None, None]);
        shared.asks_for(1, vec![Some(filter("go")), None, Some(filter("stop"))]);
        let granted = vec![Ok(QoS::ExactlyOnce), Ok(QoS::AtLeastOnce), Err(Refusal::Busy)];
        shared.tell(Notice::Subscribed { token: 1, granted: Ok(granted) });
        assert!(shared.listens());
        let said = shared.say(&mail("go", "1")).unwrap();
        assert_eq!((said.topic.as_str(), said.qos), ("iot-2/cmd/go/fmt/json", QoS::AtLeastOnce));
        assert_eq!(shared.say(&mail("stop", "1")), Err(Unsaid::Unheard), "it was refused");
        assert!(matches!(shared.say(&mail("go", "no JSON")), Err(Unsaid::Never(_))));
        let mut taken = shared.hand(said).unwrap();
        let number = {
            let heard = heard.0.lock().unwrap();
            let Some(Notice::Deliver(deliveries)) = heard.last() else { panic!("{heard:?}") };
            deliveries[0].offset.unwrap().0
        };
        assert!(taken.try_recv().is_err() && shared.handed.has(number));
        assert!(taken.try_recv().is_ok());
        shared.listens_no_more(&filter("go"));
        assert!(!shared.listens());
        // An unsubscribe goes out before the subscribe is answered.
        shared.asks_for(2, vec![Some(filter("go"))]);
        shared.listens_no_more(&filter("go"));
        shared.tell(Notice::Subscribed { token: 2, granted: Ok(vec![Ok(QoS::AtMostOnce)]) });
        assert!(!shared.listens());
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
