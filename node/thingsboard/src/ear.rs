//! What one device listens for of its mail, and in which words: a call that wants no answer, over the connection on which it has subscribed to
//! calls.
//!
//! Invariant: mail goes out as calls do at that moment. Checked by the cluster tests (`mail_everywhere.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moorline_core::{Message, QoS, Text, port::Inbox};
use moorline_dialects::thingsboard::{
    mail,
    payloads::Payloads,
    topics::{self, Form},
};
use moorline_edge::Handed;
use moorline_machine::mail::Mail;
use moorline_service::registry::mailman::{Fate, Says, Unsaid};
use prometheus::IntCounterVec;
use tokio::sync::{Notify, oneshot};

/// How calls go out.
#[derive(Debug, Clone)]
pub(crate) struct How {
    /// By which topics.
    pub(crate) form: Form,
    /// As what.
    pub(crate) payloads: Arc<Payloads>,
    /// What their subscription was granted.
    pub(crate) qos: QoS,
}

/// See the module.
pub(crate) struct Ear {
    how: Mutex<Option<How>>,
    inbox: Arc<dyn Inbox>,
    /// Mail that is on its way to the client.
    pub(crate) handed: Handed,
    changed: Notify,
    mail: IntCounterVec,
}

impl Ear {
    /// Of a connection that has not subscribed to anything. `mail`: counts what becomes of mail.
    pub(crate) fn new(inbox: Arc<dyn Inbox>, mail: IntCounterVec) -> Self {
        let (how, handed, changed) = (Mutex::new(None), Handed::default(), Notify::new());
        Self { how, inbox, handed, changed, mail }
    }

    fn how(&self) -> MutexGuard<'_, Option<How>> {
        // Every change is one value.
        self.how.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it listens so, or not at all.
    pub(crate) fn listen(&self, how: Option<How>) {
        *self.how() = how;
        self.changed.notify_one();
    }
}

impl Says for Ear {
    fn listens(&self) -> bool {
        self.how().is_some()
    }

    fn say(&self, mail: &Mail) -> Result<Message, Unsaid> {
        let How { form, payloads, qos } = self.how().clone().ok_or(Unsaid::Unheard)?;
        let call = mail::said(mail.id, mail.name.as_str(), &mail.payload);
        let call = call.map_err(Unsaid::Never)?;
        let payload = payloads.down(form).write_call(&call);
        let payload =
            payload.map_err(|_| Unsaid::Never("it does not fit the schema of the profile"))?;
        Ok(Message {
            topic: Text::from(topics::call(form, call.id)),
            qos,
            payload,
            ..Message::empty()
        })
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
