//! One application that reads a tenant's events: asks every shard, and writes down what comes as server-sent events.
//!
//! ```text
//!   shard 1 ── question that waits ──┐
//!   shard 2 ── question that waits ──┼──► next() ──► id: 3f.0.1z ⏎ data: {…} ⏎⏎
//!   shard 3 ── question that waits ──┘
//! ```
//!
//! # Invariants
//!
//! - **Events of one shard are in order, and none is left out that is kept**: each question asks from where the page before
//!   ended. What retention took first is said (`event: missed`). Checked by the cluster tests (`events.rs`).
//! - **A page of each shard is in memory, no more**: a shard is asked again when its page is written, and nothing goes on
//!   while the client takes nothing. All of it goes with the connection.
//! - **A token that is revoked ends its streams**, within [`CHECK_INTERVAL`] and a question's time.

use std::{fmt::Write, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::{
    EventsPage,
    events::{Event, EventKind},
};
use moorline_service::registry::{Cursor, Reading, RegistryError, cloud_event};
use tokio::time::{Instant, timeout_at};

use crate::{Api, auth::Caller};

/// How long a shard's leader may wait for something new before it answers.
const WAIT: Duration = Duration::from_secs(10);
/// After how much silence a comment is sent: proxies close what says nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the token is looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a client is to wait before it connects again, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// Which events a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) device: Option<Text>,
    pub(crate) kind: Option<EventKind>,
    pub(crate) channel: Option<Text>,
}

impl Filter {
    fn admits(&self, event: &Event) -> bool {
        self.device.as_ref().is_none_or(|device| *device == event.device)
            && self.kind.is_none_or(|kind| kind == event.event.kind)
            && self.channel.as_ref().is_none_or(|channel| *channel == event.event.channel)
    }
}

/// What is written, and where it has come to.
#[derive(Debug)]
struct Script {
    tenant: String,
    filter: Filter,
    cursor: Cursor,
}

impl Script {
    /// The beginning: a client that hears nothing else knows where to go on.
    fn greeting(&self) -> String {
        format!("retry: {RETRY_MS}\n: events\nid: {}\n\n", self.cursor)
    }

    /// For a client that would hear nothing; what did not pass the filter is behind it too.
    fn sign_of_life(&self) -> String {
        format!(": alive\nid: {}\n\n", self.cursor)
    }

    /// A page of a shard, as far as the filter admits it.
    fn page(&mut self, shard: ShardId, page: &EventsPage) -> String {
        let mut out = String::new();
        let after = self.cursor.of(shard).0;
        // Who begins at the beginning was promised nothing.
        let missed = page.head.0.saturating_sub(after + 1);
        if after > 0 && missed > 0 {
            let data = format!(r#"{{"shard":{shard},"missed":{missed}}}"#);
            write!(out, "event: missed\ndata: {data}\n\n").expect("a string takes everything");
        }
        for event in &page.events {
            self.cursor.set(shard, event.offset);
            if self.filter.admits(event) {
                write!(out, "id: {}\ndata: ", self.cursor).expect("a string takes everything");
                cloud_event::write(&mut out, &self.tenant, shard, event);
                out.push_str("\n\n");
            }
        }
        self.cursor.set(shard, page.upto);
        out
    }
}

type Answer = (ShardId, Result<EventsPage, RegistryError>);
type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// See the module.
pub(crate) struct Tail {
    api: Api,
    caller: Caller,
    tenant: TenantId,
    script: Script,
    /// What is to be said first.
    greeting: Option<String>,
    /// One question for each shard.
    asking: FuturesUnordered<Asking>,
    silent_until: Instant,
    check_at: Instant,
    _reading: Reading,
}

impl Tail {
    /// Begins behind a cursor.
    pub(crate) fn begin(
        api: Api,
        caller: Caller,
        (tenant, name): (TenantId, String),
        filter: Filter,
        cursor: Cursor,
        reading: Reading,
    ) -> Self {
        let shards = api.registry.event_shards(tenant, filter.device.as_ref());
        let script = Script { tenant: name, filter, cursor };
        let now = Instant::now();
        let tail = Self {
            api,
            caller,
            tenant,
            greeting: Some(script.greeting()),
            script,
            asking: FuturesUnordered::new(),
            silent_until: now + KEEP_ALIVE,
            check_at: now + CHECK_INTERVAL,
            _reading: reading,
        };
        shards.into_iter().for_each(|shard| tail.ask(shard));
        tail
    }

    /// Asks a shard for what is behind what was read of it.
    fn ask(&self, shard: ShardId) {
        let (registry, tenant) = (self.api.registry.clone(), self.tenant);
        let (after, device) = (self.script.cursor.of(shard), self.script.filter.device.clone());
        self.asking.push(Box::pin(async move {
            (shard, registry.events(shard, tenant, after, device, WAIT).await)
        }));
    }

    /// What is to be written next; `None` ends the stream.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let text = match self.greeting.take() {
            Some(greeting) => greeting,
            None => self.news().await?,
        };
        self.silent_until = Instant::now() + KEEP_ALIVE;
        Some(Bytes::from(text))
    }

    async fn news(&mut self) -> Option<String> {
        loop {
            if Instant::now() >= self.check_at {
                if !self.caller.still_counts(&self.api).await {
                    return None;
                }
                self.check_at = Instant::now() + CHECK_INTERVAL;
            }
            let until = self.silent_until.min(self.check_at);
            let Ok(answer) = timeout_at(until, self.asking.next()).await else {
                if Instant::now() >= self.silent_until {
                    return Some(self.script.sign_of_life());
                }
                continue;
            };
            let (shard, page) = answer?;
            // A shard that does not answer has no leader now: the others go on meanwhile.
            let text = page.map(|page| self.script.page(shard, &page)).unwrap_or_default();
            self.ask(shard);
            if !text.is_empty() {
                return Some(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::{Offset, UnixMillis, shard::Shards};
    use moorline_machine::events::NewEvent;

    use super::*;

    fn page(from: u64, to: u64, head: u64) -> EventsPage {
        let event = |offset| Event {
            offset: Offset(offset),
            at: UnixMillis(0),
            device: if offset % 2 == 0 { "even".into() } else { "odd".into() },
            born: None,
            event: NewEvent {
                kind: if offset % 3 == 0 { EventKind::Message } else { EventKind::Datapoint },
                channel: "c".into(),
                content_type: 0,
                body: Bytes::new(),
                by: 0,
            },
        };
        let events = (from..=to).map(event).collect();
        EventsPage { events, upto: Offset(to), head: Offset(head), tail: Offset(to + 1) }
    }

    fn script(filter: Filter) -> Script {
        let cursor = Cursor::begin(Shards::new(2));
        Script { tenant: "t".into(), filter, cursor }
    }

    fn ids(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
    }

    #[test]
    fn each_event_has_the_cursor_behind_it() {
        let mut script = script(Filter::default());
        assert!(script.greeting().ends_with("id: 0.0\n\n"));
        assert_eq!(ids(&script.page(ShardId(2), &page(1, 2, 1))), ["0.1", "0.2"]);
        let text = script.page(ShardId(1), &page(1, 1, 1));
        assert_eq!(ids(&text), ["1.2"]);
        assert!(text.contains("\ndata: {\"specversion\"") && text.ends_with("}\n\n"), "{text}");
        assert_eq!(script.page(ShardId(1), &page(2, 1, 1)), "", "nothing new");
    }

    #[test]
    fn what_the_filter_leaves_out_is_read_all_the_same() {
        let filter = |text: &str| Filter {
            device: text.contains('d').then(|| "odd".into()),
            kind: text.contains('k').then_some(EventKind::Message),
            channel: text.contains('c').then(|| "other".into()),
        };
        for (what, expected) in [("", 6), ("d", 3), ("k", 2), ("dk", 1), ("c", 0)] {
            let mut script = script(filter(what));
            assert_eq!(ids(&script.page(ShardId(1), &page(1, 6, 1))).len(), expected, "{what}");
            assert_eq!(ids(&script.sign_of_life()), ["6.0"], "{what}");
        }
    }

    #[test]
    fn who_comes_too_late_is_told() {
        let mut script = script(Filter::default());
        assert!(!script.page(ShardId(1), &page(5, 5, 5)).contains("missed"), "it began there");
        let text = script.page(ShardId(1), &page(9, 9, 9));
        assert!(text.starts_with("event: missed\ndata: {\"shard\":1,\"missed\":3}\n\n"), "{text}");
    }
}
