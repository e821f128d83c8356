//! A connection's inbox: what the service pushes, taken by the connection's task in one go.
//!
//! Not a channel: a push into a box that is not empty wakes nobody, deliveries pushed one after the other become one
//! notice, and an empty box keeps room for a few notices at most. So a burst costs one wake-up, and an idle connection next to nothing.
//!
//! # Invariants
//!
//! - **Bounded.** Deliveries that are only passing by are dropped (and counted) beyond [`LIVE_MAX`]; anything else
//!   beyond [`NOTICES_MAX`] or [`DELIVERIES_MAX`] ends the connection ([`Overflow`]). Checked by this file's tests.
//! - **In order.** Notices come out as they went in; an ending notice is the last, but for
//!   `Stopping`, after which answers may follow. Checked by this file's tests.

use std::{
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use moorline_core::{
    Delivery,
    port::{Inbox, Notice, Overflow},
};
use prometheus::IntCounter;

/// Answers that wait: a connection asks no more than its windows allow, which is far less.
pub(crate) const NOTICES_MAX: usize = 8_192;
/// Deliveries that wait. Stored ones are bounded by the credit that the session announced, which is far less.
pub(crate) const DELIVERIES_MAX: usize = 65_536;
/// Deliveries that wait when one more that is not stored anywhere is dropped: about what a client can be behind
/// before its own outgoing queue would drop it as well.
pub(crate) const LIVE_MAX: usize = 2_048;
/// Room for notices that an idle box may keep.
const IDLE_NOTICES: usize = 4;

/// The inbox of one connection.
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    dropped: IntCounter,
}

#[derive(Default)]
struct Queue {
    notices: Vec<Notice>,
    deliveries: usize,
    /// Dropped since it was asked for.
    lost: usize,
    closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    /// An empty one that counts what it drops in `dropped`.
    pub(crate) fn new(dropped: IntCounter) -> Self {
        Self { queue: Mutex::default(), dropped }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything there is into `taken`, which must be empty; waits if there is nothing.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, taken: &mut Vec<Notice>) -> Poll<()> {
        assert!(taken.is_empty(), "{} notices were not handled", taken.len());
        let mut queue = self.queue();
        if queue.notices.is_empty() {
            // They change places, so the room that a burst needed may be with either.
            for idle in [taken, &mut queue.notices] {
                if idle.capacity() > IDLE_NOTICES {
                    *idle = Vec::new();
                }
            }
            match &mut queue.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                empty @ None => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        mem::swap(&mut queue.notices, taken);
        queue.deliveries = 0;
        Poll::Ready(())
    }

    /// How many deliveries were dropped since this was asked last.
    pub(crate) fn take_lost(&self) -> usize {
        mem::take(&mut self.queue().lost)
    }

    /// Nobody takes anything any more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        *queue = Queue { closed: true, ..Queue::default() };
    }
}

impl Queue {
    fn push(&mut self, notice: Notice, dropped: &IntCounter) -> Result<(), Overflow> {
        if self.closed {
            return Err(Overflow);
        }
        match notice {
            Notice::Deliver(list) => self.deliver(list, dropped),
            Notice::Opened(_)
            | Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Subscribed { .. }
            | Notice::Unsubscribed { .. }
            | Notice::Retained(_)
            | Notice::TakenOver
            | Notice::Stopping { .. }
            | Notice::Lost
            | Notice::Ended(_) => self.notices.push(notice),
        }
        if self.notices.len() > NOTICES_MAX || self.deliveries > DELIVERIES_MAX {
            // What is lost now is found again by a durable session that comes back; nothing else was promised.
            self.notices.clear();
            self.notices.push(Notice::Lost);
            self.closed = true;
            return Err(Overflow);
        }
        // A connection that is told to stop may still take the answers it waits for.
        self.closed = self
            .notices
            .last()
            .is_some_and(|last| last.ends() && !matches!(last, Notice::Stopping { .. }));
        Ok(())
    }

    fn deliver(&mut self, mut list: Vec<Delivery>, dropped: &IntCounter) {
        if self.deliveries + list.len() > LIVE_MAX {
            let before = list.len();
            let mut room = LIVE_MAX.saturating_sub(self.deliveries);
            list.retain(|delivery| {
                let kept = delivery.offset.is_some() || room > 0;
                room = room.saturating_sub(1);
                kept
            });
            dropped.inc_by((before - list.len()) as u64);
            self.lost += before - list.len();
        }
        self.deliveries += list.len();
        match self.notices.last_mut() {
            Some(Notice::Deliver(last)) => last.append(&mut list),
            _ if list.is_empty() => {}
            _ => self.notices.push(Notice::Deliver(list)),
        }
    }
}

impl Inbox for Mailbox {
    /// Its listener tells them one after the other.
    fn hears_of_stops_elsewhere(&self) -> bool {
        true
    }

    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        let (result, waker) = {
            let mut queue = self.queue();
            (queue.push(notice, &self.dropped), queue.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("waiting", &self.queue().notices.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use bytes::Bytes;
    use moorline_core::{Message, Offset, QoS, Text};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mailbox() -> Mailbox {
        Mailbox::new(IntCounter::new("dropped", "dropped").unwrap())
    }

    fn deliveries(offsets: impl IntoIterator<Item = Option<u64>>) -> Notice {
        let message = Arc::new(Message {
            topic: Text::from("t"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::new(),
        });
        let delivery = |offset: Option<u64>| {
            Delivery::new(offset.map(Offset), QoS::AtLeastOnce, Arc::clone(&message))
        };
        Notice::Deliver(offsets.into_iter().map(delivery).collect())
    }

    fn take(mailbox: &Mailbox) -> Vec<Notice> {
        let mut taken = Vec::new();
        let ready = mailbox.poll_take(&Context::from_waker(Waker::noop()), &mut taken);
        assert_eq!(ready.is_ready(), !taken.is_empty());
        taken
    }

    #[test]
    fn a_burst_wakes_once_and_deliveries_become_one_notice() {
        let (mailbox, wakes) = (mailbox(), Arc::new(Wakes::default()));
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(mailbox.poll_take(&Context::from_waker(&waker), &mut Vec::new()).is_pending());
        for offset in 1..=3 {
            mailbox.push(deliveries([Some(offset)])).unwrap();
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(take(&mailbox), [deliveries([Some(1), Some(2), Some(3)])]);
    }

    #[test]
    fn after_a_burst_an_empty_box_keeps_no_room_for_one() {
        let (mailbox, cx) = (mailbox(), Context::from_waker(Waker::noop()));
        let mut taken = Vec::new();
        // More often than once before it is found empty.
        for _ in 0..3 {
            (0..100).for_each(|_| mailbox.push(Notice::Released(Vec::new())).unwrap());
            assert!(mailbox.poll_take(&cx, &mut taken).is_ready());
            assert_eq!(taken.drain(..).count(), 100);
        }
        assert!(mailbox.poll_take(&cx, &mut taken).is_pending());
        let kept = [taken.capacity(), mailbox.queue().notices.capacity()];
        assert!(kept.iter().all(|room| *room <= IDLE_NOTICES), "{kept:?}");
    }

    #[test]
    fn what_is_not_stored_is_dropped_and_counted_before_the_box_is_full() {
        let mailbox = mailbox();
        mailbox.push(deliveries((0..LIVE_MAX as u64).map(Some))).unwrap();
        mailbox.push(deliveries([None, Some(9_999), None])).unwrap();
        assert_eq!((mailbox.dropped.get(), mailbox.take_lost(), mailbox.take_lost()), (2, 2, 0));
        let [Notice::Deliver(list)] = &take(&mailbox)[..] else { panic!("one notice") };
        assert_eq!((list.len(), list.last().unwrap().offset), (LIVE_MAX + 1, Some(Offset(9_999))));
        mailbox.push(deliveries([None])).unwrap();
        assert_eq!(take(&mailbox).len(), 1, "there is room again");
    }

    #[test]
    fn an_overflow_ends_the_connection() {
        let mailbox = mailbox();
        mailbox.push(deliveries((0..DELIVERIES_MAX as u64).map(Some))).unwrap();
        assert_eq!(mailbox.push(deliveries([Some(0)])), Err(Overflow));
        assert_eq!(take(&mailbox), [Notice::Lost]);
        assert_eq!(mailbox.push(Notice::TakenOver), Err(Overflow));
    }

    #[test]
    fn nothing_follows_an_ending_notice() {
        let mailbox = mailbox();
        mailbox.push(Notice::TakenOver).unwrap();
        assert_eq!(mailbox.push(Notice::Lost), Err(Overflow));
        assert_eq!(take(&mailbox), [Notice::TakenOver]);
    }

    #[test]
    fn answers_may_follow_a_call_to_stop_until_the_box_is_closed() {
        let mailbox = mailbox();
        mailbox.push(Notice::Stopping { instead: None }).unwrap();
        mailbox.push(deliveries([Some(1)])).unwrap();
        assert_eq!(take(&mailbox).len(), 2);
        mailbox.close();
        assert_eq!(mailbox.push(deliveries([Some(1)])), Err(Overflow));
    }
}
