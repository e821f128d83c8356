//! What the service tells a connection, as its device sees it: topics by their names outside, no more than it may read and hear, and
//! the answers to its subscribes in their places.
//!
//! Invariant: every filter that was asked for is answered, in its place. Checked by `answers_find_their_places`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    Delivery, Message, QoS,
    port::{Inbox, Notice, Overflow, Refusal, Token},
    rights::Rules,
};
use moorline_dialects::losant::{limits::Direction, presence::Reason, topics};

use crate::{mailman::Hears, visit::Visit};

/// Answers that are known before the service's, by place.
pub(crate) type Answers<T> = Vec<Option<T>>;

/// What is known of answers to what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    subscribing: BTreeMap<Token, Answers<Result<QoS, Refusal>>>,
    unsubscribing: BTreeMap<Token, Answers<bool>>,
    /// Of those filters that the service is asked for: whom it tells that they are granted.
    granting: BTreeMap<Token, Vec<Option<Arc<Hears>>>>,
}

type Granted = Result<Vec<Result<QoS, Refusal>>, Refusal>;

impl Pending {
    pub(crate) fn subscribe(&mut self, token: Token, known: Answers<Result<QoS, Refusal>>) {
        self.subscribing.insert(token, known);
    }

    /// The same, by the filters that the service is asked for: whose commands each is for.
    pub(crate) fn asks_for(&mut self, token: Token, commands: Vec<Option<Arc<Hears>>>) {
        self.granting.insert(token, commands);
    }

    pub(crate) fn unsubscribe(&mut self, token: Token, known: Answers<bool>) {
        self.unsubscribing.insert(token, known);
    }

    fn subscribed(&mut self, token: Token, granted: Granted) -> Granted {
        let asked = self.granting.remove(&token).unwrap_or_default();
        for (commands, answer) in asked.iter().zip(granted.iter().flatten()) {
            if let (Some(hears), Ok(_)) = (commands, answer) {
                hears.begin();
            }
        }
        let Some(known) = self.subscribing.remove(&token) else { return granted };
        let asked = known.iter().filter(|known| known.is_none()).count();
        let mut answers = granted.unwrap_or_else(|refusal| vec![Err(refusal); asked]).into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| answers.next())).collect())
    }

    fn unsubscribed(
        &mut self,
        token: Token,
        existed: Result<Vec<bool>, Refusal>,
    ) -> Result<Vec<bool>, Refusal> {
        let Some(known) = self.unsubscribing.remove(&token) else { return existed };
        let mut answers = existed?.into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| answers.next())).collect())
    }
}

/// See the module.
pub(crate) struct Outside {
    visit: Arc<Visit>,
    pending: Mutex<Pending>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("visit", &self.visit).finish_non_exhaustive()
    }
}

/// A message as a device sees it; [`None`] if it may not read it.
fn seen(rules: &Rules, message: Arc<Message>) -> Option<Arc<Message>> {
    match topics::seen(&message.topic) {
        Some(topic) => Some(Arc::new(Message { topic, ..Message::clone(&message) })),
        None => rules.may_read(None, message.topic.as_bytes()).then_some(message),
    }
}

impl Outside {
    pub(crate) fn new(visit: Arc<Visit>) -> Self {
        Self { visit, pending: Mutex::default() }
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        // Every change is one entry.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries that it may have. All are of QoS 0 and in no queue: nobody waits for those that are left out.
    fn deliveries(&self, deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let one = |delivery: Delivery| {
            let message = seen(&self.visit.rules, delivery.message.clone())?;
            let may = self.visit.may(Direction::Down, &message.topic);
            may.then_some(Delivery { message, retain: false, ..delivery })
        };
        deliveries.into_iter().filter_map(one).collect()
    }
}

impl Inbox for Outside {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        let notice = match notice {
            Notice::Opened(Ok(opened)) => {
                self.visit.opened();
                Notice::Opened(Ok(opened))
            }
            Notice::Subscribed { token, granted } => {
                let granted = self.pending().subscribed(token, granted);
                Notice::Subscribed { token, granted }
            }
            Notice::Unsubscribed { token, existed } => {
                let existed = self.pending().unsubscribed(token, existed);
                Notice::Unsubscribed { token, existed }
            }
            Notice::Deliver(deliveries) => Notice::Deliver(self.deliveries(deliveries)),
            Notice::Retained(_) => {
                // Nothing is retained here, and nobody is told what is: as if it had been taken.
                return Ok(());
            }
            Notice::TakenOver => {
                self.visit.ends(Reason::Elsewhere);
                Notice::TakenOver
            }
            Notice::Stopping { instead } => {
                self.visit.ends(Reason::Stopping);
                Notice::Stopping { instead }
            }
            same @ (Notice::Opened(Err(_))
            | Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Lost
            | Notice::Ended(_)) => same,
        };
        self.visit.inbox.push(notice)
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::Text;
    use moorline_dialects::losant::{
        access::Access,
        id::Id,
        topics::{command, command_inside},
    };

    use super::*;

    #[test]
    fn answers_find_their_places() {
        let (mut pending, refused) = (Pending::default(), Err(Refusal::NotAuthorised));
        pending.subscribe(7, vec![None, Some(refused), None]);
        let granted = pending.subscribed(7, Ok(vec![Ok(QoS::AtMostOnce), Err(Refusal::Quota)]));
        assert_eq!(granted, Ok(vec![Ok(QoS::AtMostOnce), refused, Err(Refusal::Quota)]));
        pending.subscribe(8, vec![Some(refused), None]);
        let granted = pending.subscribed(8, Err(Refusal::Busy));
        assert_eq!(granted, Ok(vec![refused, Err(Refusal::Busy)]));
        pending.unsubscribe(9, vec![Some(false), None]);
        assert_eq!(pending.unsubscribed(9, Ok(vec![true])), Ok(vec![false, true]));
        assert_eq!(pending.unsubscribed(9, Ok(vec![true])), Ok(vec![true]), "of nobody");
    }

    #[test]
    fn mail_comes_over_what_is_granted() {
        let hears = [(); 4].map(|()| Arc::new(Hears::default()));
        let asked = |of: &[usize]| of.iter().map(|at| Some(Arc::clone(&hears[*at]))).collect();
        let mut pending = Pending::default();
        pending.subscribe(7, vec![None, None, None]);
        let mut several: Vec<_> = asked(&[0, 1]);
        several.insert(1, None);
        pending.asks_for(7, several);
        let granted = [Ok(QoS::AtMostOnce), Ok(QoS::AtMostOnce), Err(Refusal::Quota)];
        drop(pending.subscribed(7, Ok(granted.to_vec())));
        pending.asks_for(8, asked(&[2]));
        drop(pending.subscribed(8, Err(Refusal::Busy)));
        assert_eq!(hears.each_ref().map(|hears| hears.is()), [true, false, false, false]);
        assert!(pending.granting.is_empty());
    }

    #[test]
    fn a_device_sees_its_commands_and_what_it_may_read() {
        let rules = Access { sub_topics: vec!["plant/#".into()], ..denying() }.rules().unwrap();
        let message = |topic: Text| Arc::new(Message { topic, ..Message::empty() });
        let id = Id::parse(b"5f0c9a1b2c3d4e5f60718293").unwrap();
        let commanded = seen(&rules, message(command_inside(&id))).unwrap();
        assert_eq!(commanded.topic, command(&id));
        assert!(seen(&rules, message(Text::from("plant/1"))).is_none());
        assert!(seen(&rules, message(Text::from("office"))).is_some());
    }

    fn denying() -> Access {
        let said = serde_json::json!({ "filterType": format!("{}list", "black") });
        serde_json::from_value(said).unwrap()
    }
}
