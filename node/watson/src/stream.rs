//! Events in the stream of their organisation, too, where its tenant wants that (`events.published`): then whoever reads the tenant's
//! events finds those of all platforms in one form.
//!
//! ```text
//!   event ─┬─► published, to whoever has subscribed ─┐
//!          └─► appended, in the shard of its device ─┴─► acknowledged when both are
//! ```
//!
//! # Invariants
//!
//! - **What is acknowledged is in the stream**, synced on a majority. What comes twice is there twice, also with QoS 2.
//! - **In the order in which a connection says it**: it is on its way before the next is looked at.
//! - **Bounded**: of QoS 0, which nothing else bounds, [`UNASKED_MAX`] of a connection are under way; what is more is not kept, and counted.
//!
//! Checked by the tests below and by the cluster tests (`mail_everywhere.rs`).

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use moorline_core::{
    TenantId,
    port::{Published, Refusal, Token},
};
use moorline_dialects::watson::topics::Message as Said;
use moorline_machine::events::EventKind;
use moorline_service::registry::{
    NewEvent, RegistryError,
    door::{BYTES, By, JSON},
};

use crate::door::{Door, device_name};

/// Appends of QoS 0 that are under way on one connection.
const UNASKED_MAX: usize = 64;
/// The one format of which readers are shown what is in it.
const READABLE: &[u8] = b"json";

/// What came of a publish.
pub(crate) type Outcome = Result<Published, Refusal>;

/// One of both answers, of a publish that waits for the other.
#[derive(Debug, Clone, Copy)]
enum Half {
    Neither,
    Published(Outcome),
    Appended(Result<(), Refusal>),
}

/// Publishes of a connection that are appended, too.
#[derive(Debug, Default)]
pub(crate) struct Both {
    waiting: Mutex<HashMap<Token, Half>>,
    unasked: AtomicUsize,
}

fn both(published: Outcome, appended: Result<(), Refusal>) -> Outcome {
    appended.and(published)
}

impl Both {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Token, Half>> {
        // Every change is one entry.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A publish is answered when both are.
    pub(crate) fn begin(&self, token: Token) {
        self.waiting().insert(token, Half::Neither);
    }

    /// It was published, or not: what its client is told, if that is known now. What is not appended is told as it is.
    pub(crate) fn published(&self, token: Token, outcome: Outcome) -> Option<Outcome> {
        let mut waiting = self.waiting();
        match waiting.get(&token) {
            None => Some(outcome),
            Some(Half::Appended(appended)) => {
                let appended = *appended;
                waiting.remove(&token);
                Some(both(outcome, appended))
            }
            Some(Half::Neither | Half::Published(_)) => {
                waiting.insert(token, Half::Published(outcome));
                None
            }
        }
    }

    /// It was appended, or not: what its client is told, if that is known now.
    pub(crate) fn appended(&self, token: Token, result: Result<(), Refusal>) -> Option<Outcome> {
        let mut waiting = self.waiting();
        match waiting.get(&token) {
            None => None,
            Some(Half::Published(outcome)) => {
                let outcome = *outcome;
                waiting.remove(&token);
                Some(both(outcome, result))
            }
            Some(Half::Neither | Half::Appended(_)) => {
                waiting.insert(token, Half::Appended(result));
                None
            }
        }
    }

    /// Whether one more of QoS 0 may be under way. [`Self::unasked_done`] ends it.
    pub(crate) fn may_unasked(&self) -> bool {
        let more = |now: usize| (now < UNASKED_MAX).then_some(now + 1);
        self.unasked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One of QoS 0 is done.
    pub(crate) fn unasked_done(&self) {
        self.unasked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    /// Appends an event to its tenant's stream, if that wants it: it is on its way when this returns.
    pub(crate) fn append(
        &self,
        tenant: TenantId,
        said: &Said,
        payload: &Bytes,
        by: By,
    ) -> Option<impl Future<Output = Result<(), Refusal>> + Send + use<>> {
        let Said::Event { device, event, format } = said else { return None };
        if !self.registry.settings(tenant).events.published {
            return None;
        }
        let content_type = if format.as_bytes() == READABLE { JSON } else { BYTES };
        let event = NewEvent {
            born: None,
            kind: EventKind::Datapoint,
            channel: event.clone(),
            content_type,
            body: payload.clone(),
            by: by as u8,
        };
        let appended = self.registry.append_event(tenant, &device_name(device), event);
        Some(async move { appended.await.map(drop).map_err(|error| refusal(&error)) })
    }

    /// An event went to those who have subscribed and not into the stream: its client was promised nothing.
    pub(crate) fn count_unkept(&self) {
        self.metrics.dropped.with_label_values(&["unkept"]).inc();
    }
}

fn refusal(error: &RegistryError) -> Refusal {
    match error {
        RegistryError::Busy | RegistryError::TooManyReaders => Refusal::Busy,
        RegistryError::DiskFull => Refusal::DiskFull,
        RegistryError::Events(_) => Refusal::Quota,
        RegistryError::Unavailable
        | RegistryError::Refused(_)
        | RegistryError::Taken(_)
        | RegistryError::Mail(_)
        | RegistryError::Values(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => Refusal::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_answered_when_both_are() {
        let done: Outcome = Ok(Published { matched: true });
        let (busy, quota) = (Refusal::Busy, Refusal::Quota);
        #[rustfmt::skip]
        let table = [
            (done,       Ok(()),     done),
            (done,       Err(busy),  Err(busy)),
            (Err(quota), Ok(()),     Err(quota)),
            (Err(quota), Err(busy),  Err(busy)),
        ];
        for (published, appended, told) in table {
            let both = Both::default();
            both.begin(1);
            assert_eq!(both.published(1, published), None);
            assert_eq!(both.appended(1, appended), Some(told));
            both.begin(2);
            assert_eq!(both.appended(2, appended), None);
            assert_eq!(both.published(2, published), Some(told));
            assert_eq!(both.published(2, published), Some(published), "of a later one");
            assert_eq!(both.appended(1, appended), None, "nobody waits");
        }
    }

    #[test]
    fn of_qos_0_no_more_are_under_way_than_may_be() {
        let both = Both::default();
        assert!((0..UNASKED_MAX).all(|_| both.may_unasked()));
        assert!(!both.may_unasked());
        both.unasked_done();
        assert!(both.may_unasked() && !both.may_unasked());
    }
}
