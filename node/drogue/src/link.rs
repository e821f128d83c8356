//! One connection of a device: its session is the service's, so that a later one anywhere takes it over; what it says and wants goes to
//! its task.
//!
//! # Invariants
//!
//! - **Who was not let in says nothing**: neither that it came, nor its will. Checked by the tests below.
//! - **Who may not be here any more says nothing more**, not even what it has said and is not written. Checked by the same, and by the
//!   cluster tests (`drogue_mends.rs`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    ConnId, Message, Offset, ShareNumber, Text, Will,
    port::{Close, Failure, Filter, Inbox, Link, Notice, Open, Overflow, Token},
};
use tokio::sync::oneshot;

use crate::{endpoints::Gone, inbox::Shared, speaker::Speaker};

/// The service's link, also for the task.
pub(crate) type Below = Arc<Mutex<Box<dyn Link>>>;

/// What is known of how a connection begins and ends.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What it wants to be said when it ends.
    will: Option<Will>,
    /// It said goodbye, and wants nothing to be said.
    clean: bool,
    /// It may not be here any more.
    revoked: bool,
    /// Whether that, or that another connection is the device: what waits is not said any more.
    gone: Gone,
    /// Who waits until it is let in; dropped if it is not.
    opened: Option<oneshot::Sender<()>>,
}

impl End {
    /// Of a connection that is not let in yet. The receiver hears when it is, or that it is not.
    pub(crate) fn new(gone: Gone) -> (Self, oneshot::Receiver<()>) {
        let (sender, opened) = oneshot::channel();
        (Self { opened: Some(sender), gone, ..Self::default() }, opened)
    }

    /// Whether what waits is not said any more.
    pub(crate) fn drops_all(&self) -> bool {
        self.gone.is_void()
    }

    /// What is to be said when it has ended.
    pub(crate) fn will(&mut self) -> Option<Will> {
        self.will.take().filter(|_| !self.clean && !self.revoked)
    }

    fn hears(&mut self, notice: &Notice) {
        match notice {
            Notice::Opened(Ok(_)) => {
                if let Some(opened) = self.opened.take() {
                    // Whoever waited is gone otherwise.
                    opened.send(()).unwrap_or_default();
                }
            }
            Notice::Opened(Err(_)) => self.opened = None,
            Notice::TakenOver => self.gone.void(),
            Notice::Published { .. }
            | Notice::Completed { .. }
            | Notice::Released(_)
            | Notice::Subscribed { .. }
            | Notice::Unsubscribed { .. }
            | Notice::Deliver(_)
            | Notice::Retained(_)
            | Notice::Stopping { .. }
            | Notice::Lost
            | Notice::Ended(_) => {}
        }
    }

    fn closes(&mut self, close: Close) {
        self.clean = matches!(close, Close::Clean { with_will: false, .. });
        if matches!(close, Close::Failed(Failure::Revoked)) {
            self.revoked = true;
            self.gone.void();
        }
        self.opened = None;
    }
}

/// Hears what the client hears, for who has to know how its connection begins and ends.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) shared: Arc<Shared>,
    pub(crate) end: Arc<Mutex<End>>,
}

impl Inbox for Witness {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        locked(&self.end).hears(&notice);
        self.shared.push(notice)
    }
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
    shared: Arc<Shared>,
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
        shared: Arc<Shared>,
    ) -> Self {
        Self { asks, below, end, speaker, shared }
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

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        // There are no shares here: this is mail.
        for (_, number) in items {
            self.shared.handed.has(number.0);
        }
    }

    fn retained_taken(&mut self) {}

    fn close(&mut self, close: Close) {
        self.speaker.gone.say();
        locked(&self.end).closes(close);
        // No will is the service's.
        let close = match close {
            Close::Clean { .. } => Close::Clean { expiry_s: None, with_will: false },
            other @ (Close::Broken | Close::Failed(_)) => other,
        };
        locked(&self.below).close(close);
    }
}

impl Drop for DeviceLink {
    fn drop(&mut self) {
        // It was never opened, or nobody has answered.
        locked(&self.end).opened = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use moorline_core::port::{Opened, Refusal};

    use super::*;

    const GOODBYE: Close = Close::Clean { expiry_s: None, with_will: false };
    const WITH_WILL: Close = Close::Clean { expiry_s: None, with_will: true };

    fn opened() -> Notice {
        Notice::Opened(Ok(Opened { present: false, first: Offset(0), end: Offset(0) }))
    }

    #[test]
    fn who_is_not_let_in_says_nothing() {
        let refused = || Notice::Opened(Err(Refusal::Unavailable));
        #[rustfmt::skip]
        let table = [
            (vec![opened()], None, Some(true)),
            (vec![refused()], None, Some(false)),
            (vec![], Some(Close::Broken), Some(false)),
            (vec![], None, None),
            (vec![opened()], Some(Close::Broken), Some(true)),
        ];
        for (notices, close, expected) in table {
            let (mut end, heard) = End::new(Gone::default());
            notices.iter().for_each(|notice| end.hears(notice));
            if let Some(close) = close {
                end.closes(close);
            }
            let is_in = heard.now_or_never().map(|heard| heard.is_ok());
            assert_eq!(is_in, expected, "{notices:?} {close:?}");
        }
    }

    #[test]
    fn a_will_is_said_of_who_broke_off_and_might_have_stayed() {
        let will = Will { message: Message::empty(), delay_s: 0 };
        #[rustfmt::skip]
        let table = [
            (false, Close::Broken,                    true,  false),
            (false, GOODBYE,                          false, false),
            (false, WITH_WILL,                        true,  false),
            (false, Close::Failed(Failure::Silent),   true,  false),
            (false, Close::Failed(Failure::Revoked),  false, true),
            (true,  Close::Broken,                    true,  true),
        ];
        for (taken_over, close, says, drops) in table {
            let gone = Gone::default();
            let (mut end, _heard) = End::new(gone.clone());
            end.will = Some(will.clone());
            if taken_over {
                end.hears(&Notice::TakenOver);
            }
            end.closes(close);
            assert_eq!(gone.is_void(), drops, "what waits for an endpoint, too");
            let found = (end.drops_all(), end.will().is_some());
            assert_eq!(found, (drops, says), "{taken_over} {close:?}");
        }
    }
}
