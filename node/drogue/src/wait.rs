//! A request that waits for a command: a session of its own listens for as long as it does.
//!
//! # Invariants
//!
//! - **It listens before the event is said** that the command may answer.
//! - **Every wait ends**: the cluster's within [`ANSWER_WAIT`], the request's when it says, or when the node takes leave.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::{
    Delivery, SubscriptionOptions, Text,
    port::{Close, Filter, Inbox, Link, Notice, Open, Overflow, Port, Token},
};
use moorline_dialects::drogue::{http::fits_header, inbox};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::speaker::Speaker;

/// How long the session may take to be open and subscribed.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Notices that wait to be looked at; what is more is lost, as commands are that nobody listens to.
const NOTICES_MAX: usize = 32;
/// Deliveries that the service may send ahead.
const AHEAD_MAX: u16 = 16;
/// Of the one subscribe.
const SUBSCRIBE: Token = 1;
const GOODBYE: Close = Close::Clean { expiry_s: None, with_will: false };
/// Between a device's name and what its sessions are called besides; no name has it. The core's own is not for us to use.
const BESIDES: char = '\u{1E}';

/// Where the session's notices go.
#[derive(Debug)]
struct Heard(mpsc::Sender<Notice>);

impl Inbox for Heard {
    fn push(&self, notice: Notice) -> Result<(), Overflow> {
        self.0.try_send(notice).map_err(|_| Overflow)
    }
}

/// A command.
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) payload: Bytes,
}

/// See the module. Dropped, it listens no more.
pub(crate) struct Listening {
    link: Box<dyn Link>,
    notices: mpsc::Receiver<Notice>,
}

impl Listening {
    /// Listens for commands to `device`, or to the speaker and all that it is a gateway of. [`None`]: nobody can say.
    pub(crate) async fn begin(speaker: &Speaker, device: Option<&str>) -> Option<Self> {
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let door = &speaker.door;
        let own = &speaker.guest.device;
        let link = door.service.connect(Arc::new(Heard(sender)));
        let mut listening = Self { link, notices };
        let (limits, sessions_max) = *door.sessions.now();
        listening.link.open(Open {
            tenant: speaker.guest.tenant,
            client: session(own, Uuid::from_u128(rand::random())),
            who: None,
            clean_start: true,
            expiry_s: 0,
            credit: AHEAD_MAX.into(),
            limits,
            sessions_max,
            will: None,
            window: AHEAD_MAX,
        });
        let filter = inbox::canonical_filter(own.as_str(), device);
        let begun = timeout(ANSWER_WAIT, listening.subscribed(filter)).await;
        begun.unwrap_or(false).then_some(listening)
    }

    async fn subscribed(&mut self, filter: Text) -> bool {
        while let Some(notice) = self.notices.recv().await {
            if notice.ends() {
                return false;
            }
            if let Notice::Opened(Ok(_)) = notice {
                let options = SubscriptionOptions::default();
                let filter = Filter { filter: filter.clone(), options };
                self.link.subscribe(SUBSCRIBE, vec![filter]);
            } else if let Notice::Subscribed { granted, .. } = notice {
                return granted.is_ok_and(|granted| granted.iter().all(Result::is_ok));
            }
        }
        false
    }

    /// The first command within a time.
    pub(crate) async fn command(
        &mut self,
        wait: Duration,
        stop: &CancellationToken,
    ) -> Option<Command> {
        let until = Instant::now() + wait;
        loop {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice?,
                () = stop.cancelled() => return None,
                () = sleep_until(until) => return None,
            };
            if notice.ends() {
                return None;
            }
            if let Notice::Deliver(deliveries) = notice
                && let Some(command) = deliveries.iter().find_map(command_of)
            {
                return Some(command);
            }
        }
    }
}

/// What the session of one request is called: no other's, and not the device's own.
fn session(device: &Text, request: Uuid) -> Text {
    Text::from(format!("{device}{BESIDES}wait{BESIDES}{request}"))
}

/// A delivery as a command, if its name can be said over HTTP.
fn command_of(delivery: &Delivery) -> Option<Command> {
    let addressed = inbox::read(delivery.message.topic.as_str())?;
    let payload = delivery.message.payload.clone();
    fits_header(&addressed.command).then_some(Command { name: addressed.command, payload })
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.link.close(GOODBYE);
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::session_name;

    use super::*;

    #[test]
    fn a_requests_session_is_one_that_the_core_lets_anybody_open() {
        let name = session(&Text::from("gate-7"), Uuid::from_u128(7));
        assert!(session_name::is_free(&name), "{name}");
    }
}
