//! The stream of server-sent events of one device: mail waits, and the stream lives.
//!
//! # Invariants
//!
//! - **Mail is not told of too seldom**: at the beginning, at every news of it, and asked for after [`RECHECK`] without any.
//! - **A device that may not stay is told why, and the stream ends.**

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use moorline_core::op::Denial;
use moorline_dialects::fostrom::{sse, words};
use moorline_service::registry::{ASK_AGAIN, Heard, RECHECK, Watch, door::Guest};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::door::Door;

/// After how long a device that may not come back yet should try.
const RECONNECT_MS: u64 = 300_000;

struct Feed {
    door: Door,
    guest: Guest,
    watch: Watch,
    stop: CancellationToken,
    begun: bool,
    ended: bool,
    quiet_since: Instant,
    recheck_at: Instant,
}

/// The events of a device, from now on, until `stop`.
pub(crate) fn feed(
    door: Door,
    (guest, watch): (Guest, Watch),
    stop: CancellationToken,
) -> impl Stream<Item = Bytes> + Send {
    let now = Instant::now();
    let feed = Feed {
        door,
        guest,
        watch,
        stop,
        begun: false,
        ended: false,
        quiet_since: now,
        recheck_at: now + RECHECK,
    };
    stream::unfold(feed, |mut feed| async {
        let said = feed.next().await?;
        feed.quiet_since = Instant::now();
        Some((said, feed))
    })
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.begun {
            self.begun = true;
            let waits = self.door.mail_waits(&self.guest).await;
            // A device that fetches in vain loses nothing.
            return Some(sse::opening(waits.unwrap_or(true)));
        }
        loop {
            let quiet_until = self.quiet_since + Duration::from_millis(sse::KEEP_ALIVE_MS);
            let heard = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                heard = self.watch.heard() => heard,
                () = sleep_until(self.recheck_at) => Heard::ANYTHING,
                () = sleep_until(quiet_until) => return Some(sse::keep_alive(self.door.now().0)),
            };
            self.recheck_at = Instant::now() + RECHECK;
            if let Some(said) = self.said(heard).await {
                return Some(said);
            }
        }
    }

    /// What news come to.
    async fn said(&mut self, heard: Heard) -> Option<Bytes> {
        if heard.device {
            match self.door.registry.still(&self.guest).await {
                Ok(()) => {}
                Err(Denial::Unavailable) => self.recheck_at = Instant::now() + ASK_AGAIN,
                Err(denial) => {
                    self.ended = true;
                    return Some(sse::disconnected(&words::denied(denial), RECONNECT_MS));
                }
            }
        }
        if !heard.mail {
            return None;
        }
        match self.door.mail_waits(&self.guest).await {
            Some(true) => Some(Bytes::from_static(sse::NEW_MAIL)),
            Some(false) => None,
            None => {
                self.recheck_at = Instant::now() + ASK_AGAIN;
                None
            }
        }
    }
}
