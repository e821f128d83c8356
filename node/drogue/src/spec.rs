//! What an application says of all its devices: a document, remembered for moments.
//!
//! # Invariants
//!
//! - **Doubt refuses**: what can't be read lets no device in. What was known not long ago counts while nobody answers.
//! - **One asks for an application**, and while nobody answers the others do not wait. Checked below.
//! - **Bounded**: [`KNOWN_MAX`] applications are remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::registry::device::Kept;
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::{Registry, RegistryError};

/// The space of a tenant that has it, and its name there.
const SPACE: &str = "drogue";
/// See [`SPACE`].
const DOCUMENT: &str = "application";
/// How long it counts what was said, and that nobody could say.
const FOR: Duration = Duration::from_secs(5);
/// How long it counts while nobody can say: longer than an election takes.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);
/// Applications of which it is known; when there are more, all are asked anew.
const KNOWN_MAX: usize = 4_096;

/// Why nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It can't be read.
    Unreadable,
    /// Nobody can say.
    Unavailable,
}

/// What one application said, and when; and when it was last asked in vain since.
#[derive(Debug, Default)]
struct Said {
    last: Option<(Arc<Kept>, Instant)>,
    in_vain: Option<Instant>,
}

/// What may be done without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// This counts.
    Said(Arc<Kept>),
    /// It has to be asked, and this counts if nobody answers, or while somebody else asks to whom nobody may answer.
    Ask { fallback: Option<Arc<Kept>>, in_vain: bool },
    /// Nobody answered a moment ago.
    Nobody,
}

impl Said {
    fn known(&self, now: Instant) -> Known {
        let within = |at: &Instant, age| now.duration_since(*at) < age;
        let last = self.last.as_ref();
        let fresh = last.filter(|(_, at)| within(at, FOR));
        let fallback = last.filter(|(_, at)| within(at, UNANSWERED_FOR));
        let fallback = fallback.map(|(said, _)| Arc::clone(said));
        match (fresh, self.in_vain) {
            (Some((said, _)), _) => Known::Said(Arc::clone(said)),
            (None, Some(at)) if within(&at, FOR) => fallback.map_or(Known::Nobody, Known::Said),
            (None, in_vain) => Known::Ask { fallback, in_vain: in_vain.is_some() },
        }
    }

    /// What was read: the same as before stays the same, so that what was made of it counts on.
    fn is(&mut self, said: Kept, now: Instant) -> Arc<Kept> {
        let same = self.last.take().map(|(last, _)| last).filter(|last| **last == said);
        let said = same.unwrap_or_else(|| Arc::new(said));
        (self.last, self.in_vain) = (Some((Arc::clone(&said), now)), None);
        said
    }
}

/// One application.
#[derive(Debug, Default)]
struct Application {
    said: Mutex<Said>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
}

impl Application {
    fn said(&self) -> MutexGuard<'_, Said> {
        // Every change is all of it.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts, asked for with `ask` if need be.
    async fn of(
        &self,
        ask: impl Future<Output = Result<Kept, Unknown>>,
    ) -> Result<Arc<Kept>, Unknown> {
        let asks = match self.said().known(Instant::now()) {
            Known::Said(said) => return Ok(said),
            Known::Nobody => return Err(Unknown::Unavailable),
            Known::Ask { fallback: Some(said), in_vain: true } => match self.asking.try_lock() {
                Ok(asks) => Some(asks),
                // Somebody asks to whom nobody may answer.
                Err(_) => return Ok(said),
            },
            Known::Ask { .. } => None,
        };
        let _asks = match asks {
            Some(asks) => asks,
            None => self.asking.lock().await,
        };
        // It may have been answered meanwhile.
        let fallback = match self.said().known(Instant::now()) {
            Known::Said(said) => return Ok(said),
            Known::Nobody => return Err(Unknown::Unavailable),
            Known::Ask { fallback, .. } => fallback,
        };
        match ask.await {
            Ok(kept) => Ok(self.said().is(kept, Instant::now())),
            Err(Unknown::Unreadable) => Err(Unknown::Unreadable),
            Err(Unknown::Unavailable) => {
                self.said().in_vain = Some(Instant::now());
                fallback.ok_or(Unknown::Unavailable)
            }
        }
    }
}

/// What is known. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Specs(Arc<Mutex<HashMap<TenantId, Arc<Application>>>>);

impl Specs {
    fn all(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Application>>> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn application(&self, tenant: TenantId) -> Arc<Application> {
        let mut all = self.all();
        if all.len() >= KNOWN_MAX && !all.contains_key(&tenant) {
            all.clear();
        }
        Arc::clone(all.entry(tenant).or_default())
    }

    /// What an application says now, and its version.
    pub(crate) async fn read(
        &self,
        registry: &Registry,
        tenant: TenantId,
    ) -> Result<(Kept, Option<u64>), Unknown> {
        let space = Space::of_tenant(tenant, SPACE);
        let found = registry.document(&space, &Text::from(DOCUMENT)).await;
        let Some(found) = found.map_err(|_| Unknown::Unavailable)? else {
            return Ok((Kept::default(), None));
        };
        let kept = serde_json::from_slice(&found.body).map_err(|_| Unknown::Unreadable)?;
        Ok((kept, Some(found.version)))
    }

    /// Has an application say this, in the place of what is expected: here at once, on other nodes within [`FOR`].
    pub(crate) async fn write(
        &self,
        registry: &Registry,
        tenant: TenantId,
        body: Bytes,
        expect: Expect,
    ) -> Result<(), RegistryError> {
        let space = Space::of_tenant(tenant, SPACE);
        registry.put_document(&space, &Text::from(DOCUMENT), body, expect).await?;
        self.all().remove(&tenant);
        Ok(())
    }

    /// What an application says, at most [`FOR`] ago.
    pub(crate) async fn of(
        &self,
        registry: &Registry,
        tenant: TenantId,
    ) -> Result<Arc<Kept>, Unknown> {
        let ask = async { self.read(registry, tenant).await.map(|(kept, _)| kept) };
        self.application(tenant).of(ask).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

    fn kept(labels: &serde_json::Value) -> Kept {
        serde_json::from_value(json!({ "labels": labels })).unwrap()
    }

    #[test]
    fn what_was_said_counts_for_a_moment_and_longer_while_nobody_answers() {
        let began = Instant::now();
        let at = |s: u64| began + Duration::from_secs(s);
        let mut said = Said::default();
        assert_eq!(said.known(at(0)), Known::Ask { fallback: None, in_vain: false });
        said.in_vain = Some(at(0));
        assert_eq!(said.known(at(1)), Known::Nobody);
        assert_eq!(said.known(at(5)), Known::Ask { fallback: None, in_vain: true });
        let first = said.is(kept(&json!({})), at(10));
        assert_eq!(said.known(at(14)), Known::Said(Arc::clone(&first)));
        let fallback = || Some(Arc::clone(&first));
        assert_eq!(said.known(at(15)), Known::Ask { fallback: fallback(), in_vain: false });
        said.in_vain = Some(at(20));
        assert_eq!(said.known(at(24)), Known::Said(Arc::clone(&first)), "nobody is asked");
        assert_eq!(said.known(at(25)), Known::Ask { fallback: fallback(), in_vain: true });
        assert_eq!(said.known(at(70)), Known::Ask { fallback: None, in_vain: true });
        assert!(Arc::ptr_eq(&first, &said.is(kept(&json!({})), at(71))), "it says the same");
        assert!(!Arc::ptr_eq(&first, &said.is(kept(&json!({ "a": "b" })), at(72))));
    }

    #[test]
    fn one_asks_and_nobody_waits_behind_one_who_is_not_answered() {
        let application = Application::default();
        let ago = |s| Instant::now().checked_sub(Duration::from_secs(s)).unwrap();
        let known = application.said().is(kept(&json!({})), ago(10));
        application.said().in_vain = Some(ago(6));
        let mut first = Box::pin(application.of(pending()));
        assert!(first.as_mut().now_or_never().is_none(), "it asks");
        for _ in 0..3 {
            let other = application.of(ready(Err(Unknown::Unreadable))).now_or_never().unwrap();
            assert_eq!(other, Ok(Arc::clone(&known)), "the others do not");
        }
        drop(first);
        let answered = application.of(ready(Ok(kept(&json!({ "a": "b" }))))).now_or_never();
        assert_eq!(answered.unwrap().unwrap().labels["a"], "b");
    }
}
