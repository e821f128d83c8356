//! Who waits at this leader for something new in a stream.
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
//! - **At most [`LISTENERS_MAX`] wait**; who comes beyond is answered at once, and asks again after a pause.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use moorline_core::{ShardId, TenantId};
use tokio::sync::watch;

/// Questions that wait at a node: as many as the readers of ten nodes ask of it, when it leads 12 shards.
pub(crate) const LISTENERS_MAX: usize = 16_384;

type Streams = BTreeMap<(ShardId, TenantId), watch::Sender<()>>;

#[derive(Debug, Default)]
pub(crate) struct News {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: Streams,
    listeners: usize,
}

/// Somebody who waits for a stream. Ends with it.
#[derive(Debug)]
pub(crate) struct Listener {
    news: Arc<News>,
    stream: (ShardId, TenantId),
    told: watch::Receiver<()>,
}

impl News {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while it is locked")
    }

    /// Listens from now on; `None` if too many do.
    pub(crate) fn listen(self: &Arc<Self>, shard: ShardId, tenant: TenantId) -> Option<Listener> {
        let mut waiting = self.lock();
        if waiting.listeners >= LISTENERS_MAX {
            return None;
        }
        waiting.listeners += 1;
        let stream = (shard, tenant);
        let told = waiting.streams.entry(stream).or_insert_with(|| watch::Sender::new(()));
        let told = told.subscribe();
        Some(Listener { news: Arc::clone(self), stream, told })
    }

    /// There is more in a stream.
    pub(crate) fn tell(&self, shard: ShardId, tenant: TenantId) {
        if let Some(stream) = self.lock().streams.get(&(shard, tenant)) {
            stream.send_replace(());
        }
    }

    /// Whether this node leads a shard may have changed: whoever waits has to look.
    pub(crate) fn tell_all(&self, shard: ShardId) {
        let all = (shard, TenantId(0))..=(shard, TenantId(u32::MAX));
        self.lock().streams.range(all).for_each(|(_, stream)| stream.send_replace(()));
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().listeners
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
        waiting.listeners -= 1;
        // This one still counts.
        let last = waiting.streams.get(&self.stream).is_some_and(|told| told.receiver_count() <= 1);
        if last {
            waiting.streams.remove(&self.stream);
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

    #[test]
    fn who_listens_hears_what_is_told_since_and_nobody_elses() {
        let news = Arc::new(News::default());
        news.tell(ShardId(1), TenantId(1));
        let mut mine = news.listen(ShardId(1), TenantId(1)).unwrap();
        let mut others = news.listen(ShardId(1), TenantId(2)).unwrap();
        let mut elsewhere = news.listen(ShardId(2), TenantId(1)).unwrap();
        assert!(!has_heard(&mut mine), "that was before");
        news.tell(ShardId(1), TenantId(1));
        news.tell(ShardId(1), TenantId(1));
        assert!(has_heard(&mut mine) && !has_heard(&mut mine), "once is enough");
        assert!(!has_heard(&mut others) && !has_heard(&mut elsewhere));
        news.tell_all(ShardId(1));
        assert!(has_heard(&mut mine) && has_heard(&mut others) && !has_heard(&mut elsewhere));
    }

    #[test]
    fn nothing_is_left_of_who_is_gone_and_there_is_a_limit() {
        let news = Arc::new(News::default());
        let listen = || news.listen(ShardId(1), TenantId(1));
        let mut all: Vec<_> = (0..LISTENERS_MAX).map(|_| listen().unwrap()).collect();
        assert!(listen().is_none());
        all.pop();
        assert!(listen().is_some());
        all.truncate(1);
        news.tell(ShardId(1), TenantId(1));
        assert!(has_heard(&mut all[0]), "one is left, and hears");
        drop(all);
        assert_eq!((news.len(), news.lock().streams.len()), (0, 0));
    }
}
