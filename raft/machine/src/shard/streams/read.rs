//! What is asked of streams. Nothing here changes anything.

use std::ops::ControlFlow;

use moorline_core::{Offset, TenantId, Text};
use moorline_storage::{StorageError, View};

use super::Streams;
use crate::{
    events::{Consumer, Event},
    keys::each_until,
    rows::{Row, events::EventRow},
};

/// Which events are asked for.
#[derive(Debug, Clone, Copy)]
pub struct EventsQuery<'a> {
    /// Whose stream.
    pub tenant: TenantId,
    /// Only those behind this offset.
    pub after: Offset,
    /// Only those of this device.
    pub device: Option<&'a Text>,
    /// Look at so many events at most.
    pub items_max: usize,
    /// Look at about so many bytes of rows at most; at one event in any case.
    pub bytes_max: usize,
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsPage {
    /// They, in order.
    pub events: Vec<Event>,
    /// Everything up to here was looked at: the next page is behind it.
    pub upto: Offset,
    /// The first event that is kept. Those between a reader and it are gone.
    pub head: Offset,
    /// The offset that the next event will get.
    pub tail: Offset,
}

/// The consumer groups of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumersPage {
    /// They, by name.
    pub consumers: Vec<Consumer>,
    /// The first event that is kept.
    pub head: Offset,
    /// The offset that the next event will get.
    pub tail: Offset,
}

/// What of streams there is in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamTotals {
    /// Tenants with a stream.
    pub streams: u64,
    /// Events that are kept.
    pub events: u64,
    /// Bytes of their rows.
    pub bytes: u64,
    /// Consumer groups.
    pub consumers: u64,
}

impl Streams {
    /// Head and tail of a stream; those of an empty one if there is none.
    fn bounds(&self, tenant: TenantId) -> (Offset, Offset) {
        let row = self.known.get(&tenant).map(|stream| &stream.row);
        row.map_or((Offset(1), Offset(1)), |row| (row.head, row.tail))
    }

    /// The last offset of a stream; 0 if there is none. Reads no row.
    #[must_use]
    pub fn last(&self, tenant: TenantId) -> Offset {
        Offset(self.bounds(tenant).1.0 - 1)
    }

    /// Events behind an offset.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn events(
        &self,
        rows: &(impl View + ?Sized),
        query: &EventsQuery<'_>,
    ) -> Result<EventsPage, StorageError> {
        let EventsQuery { tenant, after, device, items_max, bytes_max } = *query;
        let (head, tail) = self.bounds(tenant);
        let mut page = EventsPage { events: Vec::new(), upto: after, head, tail };
        let from = Offset(after.0.saturating_add(1)).max(head);
        if from >= tail {
            return Ok(page);
        }
        // From the head on: what is gone before it may still have to be stepped over on the disk.
        let range = (self.keys.event(tenant, from), self.keys.event(tenant, tail));
        let (mut items, mut bytes) = (0, 0);
        each_until(rows, &range, |mut suffix, row| {
            if items >= items_max || items > 0 && bytes + row.len() > bytes_max {
                return Ok(ControlFlow::Break(()));
            }
            items += 1;
            bytes += row.len();
            suffix.u32()?;
            page.upto = Offset(suffix.u64()?);
            let EventRow { at, device: whose, born, event } = EventRow::from_bytes(row)?;
            if device.is_none_or(|wanted| *wanted == whose) {
                page.events.push(Event { offset: page.upto, at, device: whose, born, event });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }

    /// A tenant's consumer groups. Reads no row.
    #[must_use]
    pub fn consumers(&self, tenant: TenantId) -> ConsumersPage {
        let (head, tail) = self.bounds(tenant);
        let known = self.known.get(&tenant).into_iter().flat_map(|stream| &stream.consumers);
        let consumers = known
            .map(|(name, row)| Consumer { name: name.clone(), offset: row.offset, at: row.at })
            .collect();
        ConsumersPage { consumers, head, tail }
    }

    /// How much there is, of all tenants.
    #[must_use]
    pub fn totals(&self) -> StreamTotals {
        self.totals
    }

    /// How many events the consumer group that is furthest behind has not committed, of all tenants.
    #[must_use]
    pub fn lag_max(&self) -> u64 {
        let lags = self.known.values().flat_map(|stream| {
            let last = stream.row.last().0;
            stream.consumers.values().map(move |consumer| last.saturating_sub(consumer.offset.0))
        });
        lags.max().unwrap_or(0)
    }
}
