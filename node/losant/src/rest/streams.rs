//! Streams of what a device reports, or is told, from now on: its events, out of its application's stream.
//!
//! # Invariants
//!
//! - **What was written after the answer began is in it, in order**, as long as the stream goes on; nothing from before is.
//! - **Bounded**: a stream has a place among those who read events at this node, and holds a page; one device has no more than a few.
//! - **It ends when whoever asked for it may no more**: a key or token that is changed, a login whose time is over, a device that is moved.
//!
//! Checked by the cluster tests (`losant.rs`, `losant_limits.rs`).

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{Stream as Streaming, stream};
use moorline_core::{Offset, ShardId};
use moorline_dialects::losant::rest::sse::{self, Stream};
use moorline_machine::events::EventKind;
use moorline_service::registry::{ASK_AGAIN, Reading, RegistryError};
use prometheus::IntGauge;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::auth::{LetIn, Who};
use crate::{
    device::{COMMANDS, Device, STATES},
    door::{Door, Streaming as Places},
};

/// Behind everything: such a page is empty, and says where the stream ends.
const BEHIND: Offset = Offset(u64::MAX - 1);

/// What happens to a device from now on, for whoever may know.
pub(super) struct Feed {
    let_in: LetIn,
    rest: Following,
}

/// What happens to a device from now on.
struct Following {
    door: Door,
    device: Device,
    stream: Stream,
    keep_alive: Duration,
    shard: ShardId,
    after: Offset,
    ready: VecDeque<Bytes>,
    quiet_since: Instant,
    _reading: Reading,
    /// Its places among those of the device that asked, if one did.
    _place: Option<Places>,
    _open: Open,
}

/// Counts a stream that is open.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Feed {
    pub(super) async fn begin(
        door: &Door,
        device: &Device,
        (stream, keep_alive_s): (Stream, u64),
        who: &Who,
    ) -> Result<Self, RegistryError> {
        let (registry, tenant) = (&door.registry, device.tenant);
        // What changes from now on is told; what did before is judged once, when it is read.
        let let_in = who.let_in(door, device);
        let place = match who.device() {
            None => None,
            Some(own) => {
                let place = door.may_stream(tenant, own.id.text());
                Some(place.ok_or(RegistryError::TooManyReaders)?)
            }
        };
        let reading = registry.begin_reading(tenant)?;
        let shards = registry.event_shards(tenant, Some(device.id.text()));
        let shard = shards.first().copied().ok_or(RegistryError::Unavailable)?;
        let of = Some(device.id.text().clone());
        let page = registry.events(shard, tenant, BEHIND, of, Duration::ZERO).await?;
        let open = Open(door.metrics.streams.clone());
        open.0.inc();
        let rest = Following {
            door: door.clone(),
            device: device.clone(),
            stream,
            keep_alive: Duration::from_secs(keep_alive_s),
            shard,
            after: Offset(page.tail.0.saturating_sub(1)),
            // The answer begins at once.
            ready: VecDeque::from([Bytes::from_static(sse::ALIVE.as_bytes())]),
            quiet_since: Instant::now(),
            _reading: reading,
            _place: place,
            _open: open,
        };
        Ok(Self { let_in, rest })
    }

    /// Its events, until `stop`, or until nothing more may be told.
    pub(super) fn events(self, stop: CancellationToken) -> impl Streaming<Item = Bytes> + Send {
        let Self { let_in, rest: feed } = self;
        let (door, device) = (feed.door.clone(), feed.device.clone());
        let over = Box::pin(async move { let_in.until_over(&door, &device).await });
        stream::unfold((feed, over, stop), |(mut feed, mut over, stop)| async move {
            let said = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = &mut over => return None,
                said = feed.next() => said,
            };
            Some((said, (feed, over, stop)))
        })
    }
}

impl Following {
    async fn next(&mut self) -> Bytes {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                self.quiet_since = Instant::now();
                return ready;
            }
            let left = self.keep_alive.saturating_sub(self.quiet_since.elapsed());
            if left.is_zero() {
                self.ready.push_back(Bytes::from_static(sse::ALIVE.as_bytes()));
                continue;
            }
            let of = Some(self.device.id.text().clone());
            let (registry, tenant) = (&self.door.registry, self.device.tenant);
            match registry.events(self.shard, tenant, self.after, of, left).await {
                Ok(page) => {
                    self.after = self.after.max(page.upto);
                    let born = self.device.born;
                    let wanted = page.events.iter().filter(|event| {
                        let (kind, channel) = (event.event.kind, event.event.channel.as_str());
                        is_of(self.stream, kind, channel) && event.born.is_none_or(|of| of == born)
                    });
                    let said = wanted.filter_map(|event| {
                        let data: Value = serde_json::from_slice(&event.event.body).ok()?;
                        Some(Bytes::from(sse::event(self.stream, &data)))
                    });
                    self.ready.extend(said);
                }
                Err(_) => sleep(ASK_AGAIN.min(left)).await,
            }
        }
    }
}

fn is_of(stream: Stream, kind: EventKind, channel: &str) -> bool {
    match stream {
        Stream::States => (kind, channel) == (EventKind::Datapoint, STATES),
        Stream::Commands => (kind, channel) == (EventKind::Message, COMMANDS),
    }
}
