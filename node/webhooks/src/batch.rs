//! Requests out of events: one CloudEvent each, or an array of some. Pure.

use moorline_core::{Offset, ShardId};
use moorline_machine::events::Event;
use moorline_service::registry::cloud_event;

/// Bytes of a request with several events. One event alone may have more, as long as it is ([`moorline_machine::events`] bounds it).
pub(crate) const BATCH_BYTES_MAX: usize = 256 * 1024;

/// A request's body, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Of `application/cloudevents+json` or `application/cloudevents-batch+json`.
    pub(crate) body: String,
    /// Its first event, by which a receiver knows it again.
    pub(crate) first: Offset,
    /// Its last one.
    pub(crate) last: Offset,
    /// How many.
    pub(crate) events: u64,
}

/// What a body with so many events at most is.
pub(crate) fn content_type(batch_max: u16) -> &'static str {
    if batch_max > 1 {
        "application/cloudevents-batch+json"
    } else {
        "application/cloudevents+json"
    }
}

/// Events of one shard in requests, in their order.
pub(crate) fn batches(
    tenant: &str,
    shard: ShardId,
    events: &[&Event],
    batch_max: u16,
) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let mut text = String::new();
        cloud_event::write(&mut text, tenant, shard, event);
        let (first, last) = (event.offset, event.offset);
        if batch_max <= 1 {
            batches.push(Batch { body: text, first, last, events: 1 });
            continue;
        }
        let fits = |batch: &&mut Batch| {
            batch.events < u64::from(batch_max) && batch.body.len() + text.len() < BATCH_BYTES_MAX
        };
        match batches.last_mut().filter(fits) {
            Some(batch) => {
                batch.body.pop();
                batch.body = format!("{},{text}]", batch.body);
                (batch.last, batch.events) = (last, batch.events + 1);
            }
            None => batches.push(Batch { body: format!("[{text}]"), first, last, events: 1 }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::UnixMillis;
    use moorline_machine::events::{EventKind, NewEvent};
    use serde_json::Value;

    use super::*;

    fn events(many: u64, bytes: usize) -> Vec<Event> {
        let body = Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
        let event = |offset| Event {
            offset: Offset(offset),
            at: UnixMillis(0),
            device: "d".into(),
            born: None,
            event: NewEvent {
                kind: EventKind::Datapoint,
                channel: "c".into(),
                content_type: 1,
                body: body.clone(),
                by: 1,
            },
        };
        (1..=many).map(event).collect()
    }

    fn cut(many: u64, bytes: usize, batch_max: u16) -> Vec<(u64, u64, u64)> {
        let events = events(many, bytes);
        let all: Vec<_> = events.iter().collect();
        let batches = batches("acme", ShardId(3), &all, batch_max);
        for batch in &batches {
            let body: Value = serde_json::from_str(&batch.body).unwrap();
            match body.as_array() {
                Some(list) => assert_eq!(list.len() as u64, batch.events),
                None => assert_eq!(body["id"], format!("3-{}", batch.first.0)),
            }
            assert_eq!(body.is_array(), batch_max > 1);
        }
        batches.iter().map(|batch| (batch.first.0, batch.last.0, batch.events)).collect()
    }

    #[test]
    fn events_are_cut_into_requests() {
        assert_eq!(cut(0, 1, 5), []);
        assert_eq!(cut(2, 1, 1), [(1, 1, 1), (2, 2, 1)]);
        assert_eq!(cut(5, 1, 2), [(1, 2, 2), (3, 4, 2), (5, 5, 1)]);
        assert_eq!(cut(3, 1, 100), [(1, 3, 3)]);
        assert_eq!(cut(3, 100_000, 100), [(1, 2, 2), (3, 3, 1)], "bytes");
        assert_eq!(cut(2, BATCH_BYTES_MAX, 100), [(1, 1, 1), (2, 2, 1)], "one alone goes");
    }
}
