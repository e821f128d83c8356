//! What a device hears: commands, by the names that its subscriptions have for them; and its mail, as a command.
//!
//! # Invariants
//!
//! - **A command comes once for each subscription that is for it**, and never without one; mail comes once. Checked below, and by the
//!   cluster tests (`mail_everywhere.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    Delivery, Message, QoS, Text,
    port::{Inbox, Notice, Overflow},
};
use moorline_dialects::drogue::{
    inbox::{self, Inbox as Wanted},
    mail,
};
use moorline_edge::Handed;
use moorline_machine::mail::Mail;
use moorline_service::registry::mailman::{Fate, Says, Unsaid};
use prometheus::IntCounterVec;
use tokio::sync::{Notify, oneshot};

/// What both directions of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    own: Text,
    pub(crate) inbox: Arc<dyn Inbox>,
    /// By what they are for: filters of the client.
    held: Mutex<BTreeMap<Wanted, BTreeSet<Text>>>,
    /// Who waits for the one subscription of the connection.
    subscribing: Mutex<Option<oneshot::Sender<bool>>>,
    /// Mail that is on its way to the client.
    pub(crate) handed: Handed,
    /// The client listens for something else than before.
    changed: Notify,
    /// What became of mail.
    mail: IntCounterVec,
}

impl Shared {
    /// Of the device of this name.
    pub(crate) fn new(own: Text, inbox: Arc<dyn Inbox>, mail: IntCounterVec) -> Self {
        Self {
            own,
            inbox,
            held: Mutex::default(),
            subscribing: Mutex::default(),
            handed: Handed::default(),
            changed: Notify::new(),
            mail,
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Wanted, BTreeSet<Text>>> {
        // Every change is one entry.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the client's connection. One that takes nothing is ending anyway.
    pub(crate) fn tell(&self, notice: Notice) {
        self.inbox.push(notice).unwrap_or_default();
    }

    /// The client has this filter, unless it has `most` of them: whether it has.
    pub(crate) fn hold(&self, wanted: Wanted, filter: Text, most: usize) -> bool {
        let mut held = self.held();
        let all: usize = held.values().map(BTreeSet::len).sum();
        let has = held.get(&wanted).is_some_and(|filters| filters.contains(&filter));
        if all >= most && !has {
            return false;
        }
        held.entry(wanted).or_default().insert(filter);
        self.changed.notify_one();
        true
    }

    /// It has it no more: whether it had.
    pub(crate) fn let_go(&self, wanted: &Wanted, filter: &Text) -> bool {
        let mut held = self.held();
        let Some(filters) = held.get_mut(wanted) else { return false };
        let had = filters.remove(filter);
        if filters.is_empty() {
            held.remove(wanted);
        }
        had
    }

    /// The subscription is asked for: whether it was granted, when that is known.
    pub(crate) fn subscribes(&self) -> oneshot::Receiver<bool> {
        let (sender, granted) = oneshot::channel();
        *self.subscribing.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        granted
    }

    fn subscribed(&self, granted: bool) {
        let waits = self.subscribing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waits) = waits {
            waits.send(granted).unwrap_or_default();
        }
    }

    /// A command as the client wants it.
    fn copies(&self, message: &Message) -> Vec<Delivery> {
        let Some(addressed) = inbox::read(message.topic.as_str()) else { return Vec::new() };
        let held = self.held();
        let topics = held.keys().filter_map(|wanted| {
            wanted.topic(self.own.as_str(), &addressed.device, &addressed.command)
        });
        let copy = |topic: String| {
            let (topic, payload) = (Text::from(topic), message.payload.clone());
            let message = Message { topic, payload, ..Message::empty() };
            Delivery::new(None, QoS::AtMostOnce, Arc::new(message))
        };
        topics.map(copy).collect()
    }
}

impl Says for Shared {
    fn listens(&self) -> bool {
        !self.held().is_empty()
    }

    fn say(&self, mail: &Mail) -> Result<Message, Unsaid> {
        let topic = mail::topic(self.held().keys(), self.own.as_str(), mail.name.as_str());
        let topic = topic.map_err(Unsaid::Never)?.ok_or(Unsaid::Unheard)?;
        let (topic, payload) = (Text::from(topic), mail.payload.clone());
        Ok(Message { topic, payload, ..Message::empty() })
    }

    fn hand(&self, message: Message) -> Option<oneshot::Receiver<()>> {
        self.handed.over(&*self.inbox, message)
    }

    fn count(&self, fate: Fate) {
        self.mail.with_label_values(&[fate.label()]).inc();
    }

    fn changed(&self) -> &Notify {
        &self.changed
    }
}

impl Inbox for Shared {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        match notice {
            Notice::Deliver(deliveries) => {
                let copies: Vec<_> =
                    deliveries.iter().flat_map(|delivery| self.copies(&delivery.message)).collect();
                if copies.is_empty() { Ok(()) } else { self.inbox.push(Notice::Deliver(copies)) }
            }
            Notice::Subscribed { granted, .. } => {
                self.subscribed(granted.is_ok_and(|all| all.iter().all(Result::is_ok)));
                Ok(())
            }
            // Nothing of it was asked for.
            Notice::Retained(_)
            | Notice::Unsubscribed { .. }
            | Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_) => Ok(()),
            same @ (Notice::Opened(_)
            | Notice::TakenOver
            | Notice::Stopping { .. }
            | Notice::Lost
            | Notice::Ended(_)) => self.inbox.push(same),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Inbox for Heard {
        fn push(&self, notice: Notice) -> Result<(), Overflow> {
            let Notice::Deliver(deliveries) = notice else { return Err(Overflow) };
            let topics = deliveries.iter().map(|delivery| delivery.message.topic.to_string());
            self.0.lock().unwrap().extend(topics);
            Ok(())
        }
    }

    #[test]
    fn a_command_comes_once_for_each_subscription_that_is_for_it() {
        let heard = Arc::new(Heard::default());
        let mail = IntCounterVec::new(Opts::new("mail", "mail"), &["result"]).unwrap();
        let shared = Shared::new(Text::from("gw"), Arc::clone(&heard) as Arc<dyn Inbox>, mail);
        let comes = |device: &str| {
            let topic = inbox::canonical("gw", device, "SET");
            let message = Arc::new(Message { topic, ..Message::empty() });
            shared
                .push(Notice::Deliver(vec![Delivery::new(None, QoS::AtMostOnce, message)]))
                .unwrap();
            std::mem::take(&mut *heard.0.lock().unwrap())
        };
        let hold =
            |filter: &str| shared.hold(Wanted::parse(filter).unwrap(), Text::from(filter), 4);
        assert!(comes("gw").is_empty(), "without a subscription");
        assert!(hold("command/inbox/#") && hold("command/inbox/#") && hold("command/inbox/+/#"));
        assert_eq!(comes("gw"), ["command/inbox//SET"], "the same twice is no second stream");
        assert_eq!(comes("d1"), ["command/inbox/d1/SET"]);
        assert!(hold("command/inbox/gw/#"));
        assert_eq!(comes("gw"), ["command/inbox//SET", "command/inbox/gw/SET"]);
        assert!(hold("command/inbox//#"));
        assert!(!hold("command/inbox/d2/#"), "more than it may have");
        let all = Wanted::All;
        assert!(shared.let_go(&all, &Text::from("command/inbox/#")));
        assert!(!shared.let_go(&all, &Text::from("command/inbox/#")));
        assert_eq!(comes("d1"), ["command/inbox/d1/SET"], "the other one is still there");
        assert!(shared.let_go(&all, &Text::from("command/inbox/+/#")));
        assert!(comes("d1").is_empty());
        assert_eq!(comes("gw").len(), 2);
    }
}
