//! Who waits at this leader for something new: in a tenant's stream, or of a device's values.
//!
//! ```text
//!   question ──► listen ──► read: nothing ──► changed ──► read: something
//!                  ▲                             ▲
//!                  └ before it reads             └ Effect::Events, or another leader
//! ```
//!
//! # Invariants
//!
//! - **Nothing is missed between reading and waiting**: who listens does so before it reads, and hears everything that was
//!   told since. Checked below.
//! - **Where nobody waits, to tell costs a look at a number.** A device says something a thousand times for each time that somebody
//!   looks at it.
//! - **At most [`LISTENERS_MAX`] wait** for each of both; who comes beyond is answered at once, and asks again after a pause.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use moorline_core::{ShardId, TenantId, Text};
use tokio::sync::watch;

/// Questions that wait at a node: as many as the readers of ten nodes ask of it, when it leads 12 shards.
pub(crate) const LISTENERS_MAX: usize = 16_384;

/// What is waited for: of a tenant in a shard, a device, or nothing more.
type Subject = (ShardId, TenantId, Text);

/// Who waits for a subject.
#[derive(Debug, Default)]
struct Waiting {
    told: watch::Sender<()>,
    /// How many. The channel counts its receivers too, but only when one is gone, which is after the lock is.
    listeners: usize,
}

#[derive(Debug, Default)]
pub(crate) struct News {
    waiting: Mutex<BTreeMap<Subject, Waiting>>,
    /// Changed under the lock, and looked at without it.
    listeners: AtomicUsize,
}

/// Somebody who waits for a subject. Ends with it.
#[derive(Debug)]
pub(crate) struct Listener {
    news: Arc<News>,
    subject: Subject,
    told: watch::Receiver<()>,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Subject, Waiting>> {
        self.waiting.lock().expect("no panic while it is locked")
    }

    /// Listens from now on; `None` if too many do. `device` is empty where the whole tenant is meant.
    pub(crate) fn listen(
        self: &Arc<Self>,
        shard: ShardId,
        tenant: TenantId,
        device: Text,
    ) -> Option<Listener> {
        let mut waiting = self.lock();
        if self.len() >= LISTENERS_MAX {
            return None;
        }
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let subject = (shard, tenant, device);
        let of_subject = waiting.entry(subject.clone()).or_default();
        of_subject.listeners += 1;
        let told = of_subject.told.subscribe();
        drop(waiting);
        // Who tells looks at the number after it has written, and who listens reads after it has counted itself: one sees the other.
        fence(Ordering::SeqCst);
        Some(Listener { news: Arc::clone(self), subject, told })
    }

    /// There is something new.
    pub(crate) fn tell(&self, shard: ShardId, tenant: TenantId, device: &Text) {
        fence(Ordering::SeqCst);
        if self.len() == 0 {
            return;
        }
        if let Some(waiting) = self.lock().get(&(shard, tenant, device.clone())) {
            waiting.told.send_replace(());
        }
    }

    /// Whether this node leads a shard may have changed: whoever waits has to look.
    pub(crate) fn tell_all(&self, shard: ShardId) {
        let from = Bound::Included((shard, TenantId(0), Text::default()));
        let waiting = self.lock();
        let all = waiting.range((from, Bound::Unbounded));
        let all = all.take_while(|((of, ..), _)| *of == shard);
        all.for_each(|(_, waiting)| waiting.told.send_replace(()));
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }
}

impl Listener {
    /// Waits until there was something to tell since the last call.
    pub(crate) async fn changed(&mut self) {
        // The sender is there as long as somebody listens.
        drop(self.told.changed().await);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut waiting = self.news.lock();
        self.news.listeners.fetch_sub(1, Ordering::Relaxed);
        let Some(of_subject) = waiting.get_mut(&self.subject) else { return };
        of_subject.listeners -= 1;
        if of_subject.listeners == 0 {
            waiting.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn has_heard(listener: &mut Listener) -> bool {
        let changed = std::pin::pin!(listener.changed());
        changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn whole() -> Text {
        Text::default()
    }

    #[test]
    fn who_listens_hears_what_is_told_since_and_nobody_elses() {
        let news = Arc::new(News::default());
        news.tell(ShardId(1), TenantId(1), &whole());
        let mut mine = news.listen(ShardId(1), TenantId(1), whole()).unwrap();
        let mut others = news.listen(ShardId(1), TenantId(2), whole()).unwrap();
        let mut elsewhere = news.listen(ShardId(2), TenantId(1), whole()).unwrap();
        let mut device = news.listen(ShardId(1), TenantId(1), "pump".into()).unwrap();
        assert!(!has_heard(&mut mine), "that was before");
        news.tell(ShardId(1), TenantId(1), &whole());
        news.tell(ShardId(1), TenantId(1), &whole());
        assert!(has_heard(&mut mine) && !has_heard(&mut mine), "once is enough");
        assert!(!has_heard(&mut others) && !has_heard(&mut elsewhere) && !has_heard(&mut device));
        news.tell(ShardId(1), TenantId(1), &"pump".into());
        assert!(has_heard(&mut device) && !has_heard(&mut mine));
        news.tell_all(ShardId(1));
        assert!(has_heard(&mut mine) && has_heard(&mut others) && !has_heard(&mut elsewhere));
        assert!(has_heard(&mut device));
    }

    #[test]
    fn nothing_is_left_of_who_is_gone_and_there_is_a_limit() {
        let news = Arc::new(News::default());
        let listen = || news.listen(ShardId(1), TenantId(1), whole());
        let mut all: Vec<_> = (0..LISTENERS_MAX).map(|_| listen().unwrap()).collect();
        assert!(listen().is_none());
        all.pop();
        assert!(listen().is_some());
        all.truncate(1);
        news.tell(ShardId(1), TenantId(1), &whole());
        assert!(has_heard(&mut all[0]), "one is left, and hears");
        drop(all);
        assert_eq!((news.len(), news.lock().len()), (0, 0));
    }

    #[test]
    fn nothing_is_left_of_two_who_go_at_once() {
        let news = Arc::new(News::default());
        for _ in 0..10_000 {
            let listen = || news.listen(ShardId(1), TenantId(1), whole()).unwrap();
            let both = [listen(), listen()];
            std::thread::scope(|scope| {
                for one in both {
                    scope.spawn(move || drop(one));
                }
            });
            assert_eq!(news.lock().len(), 0);
        }
    }
}
