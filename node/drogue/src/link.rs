//! One connection of a device: its session is the service's, so that a later one anywhere takes it over; what it says and wants goes to
//! its task.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    ConnId, Message, Offset, ShareNumber, Text, Will,
    port::{Close, Filter, Link, Open, Token},
};

use crate::speaker::Speaker;

/// The service's link, also for the task.
pub(crate) type Below = Arc<Mutex<Box<dyn Link>>>;

/// What is known of how a connection ends.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What it wants to be said then.
    pub(crate) will: Option<Will>,
    /// It said goodbye, and wants nothing to be said.
    pub(crate) clean: bool,
}

pub(crate) fn locked<T: ?Sized>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one call.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(crate) struct DeviceLink {
    asks: Box<dyn Link>,
    below: Below,
    end: Arc<Mutex<End>>,
    speaker: Arc<Speaker>,
}

impl fmt::Debug for DeviceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLink").finish_non_exhaustive()
    }
}

impl DeviceLink {
    pub(crate) fn new(
        asks: Box<dyn Link>,
        below: Below,
        end: Arc<Mutex<End>>,
        speaker: Arc<Speaker>,
    ) -> Self {
        Self { asks, below, end, speaker }
    }
}

impl Link for DeviceLink {
    fn conn(&self) -> ConnId {
        locked(&self.below).conn()
    }

    fn open(&mut self, open: Open) {
        locked(&self.end).will.clone_from(&open.will);
        let open = Open { who: None, clean_start: true, expiry_s: 0, will: None, ..open };
        locked(&self.below).open(open);
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.asks.publish(token, message);
    }

    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        self.asks.publish_once(token, packet, message);
    }

    fn complete(&mut self, packet: u16) {
        self.asks.complete(packet);
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.asks.release(offsets);
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.asks.subscribe(token, filters);
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.asks.unsubscribe(token, filters);
    }

    fn settle(&mut self, _: &[Offset]) {}

    fn settle_shared(&mut self, _: &[(ShareNumber, Offset)]) {}

    fn retained_taken(&mut self) {}

    fn close(&mut self, close: Close) {
        self.speaker.gone.say();
        locked(&self.end).clean = matches!(close, Close::Clean { with_will: false, .. });
        // No will is the service's.
        let close = match close {
            Close::Clean { .. } => Close::Clean { expiry_s: None, with_will: false },
            other @ (Close::Broken | Close::Failed(_)) => other,
        };
        locked(&self.below).close(close);
    }
}
