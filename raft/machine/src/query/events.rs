//! Questions about streams: their limits and their bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::{Offset, TenantId, Text};

use super::{Query, begin};
use crate::{
    codec::{Malformed, Reader, put_event, put_option, put_text, read_event},
    events::{Consumer, Event},
    shard::{ConsumersPage, EventsPage, EventsQuery},
};

/// Events that one question may look at.
pub const EVENTS_PER_PAGE_MAX: u16 = 1_024;
/// About the most bytes of events that one question may look at.
pub const EVENTS_PAGE_BYTES_MAX: u32 = 256 * 1024;
/// The least bytes of an event and of a consumer group: let counts be checked before anything is allocated for them.
const EVENT_BYTES_MIN: usize = 32;
const CONSUMER_BYTES_MIN: usize = 20;

/// Within the limits.
pub(super) fn bounded(
    tenant: TenantId,
    after: Offset,
    device: Option<&Text>,
    (items_max, bytes_max): (u16, u32),
) -> EventsQuery<'_> {
    let items_max = usize::from(items_max.min(EVENTS_PER_PAGE_MAX));
    let bytes_max = bytes_max.min(EVENTS_PAGE_BYTES_MAX) as usize;
    EventsQuery { tenant, after, device, items_max, bytes_max }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the match that calls this names every query")]
pub(super) fn put_query(query: &Query) -> BytesMut {
    match query {
        Query::Events { tenant, after, device, items_max, bytes_max, wait_ms } => {
            let mut out = begin(7);
            out.put_u32(tenant.0);
            out.put_u64(after.0);
            put_option(&mut out, device.as_ref(), put_text);
            out.put_u16(*items_max);
            out.put_u32(*bytes_max);
            out.put_u32(*wait_ms);
            out
        }
        Query::Consumers { tenant } => {
            let mut out = begin(8);
            out.put_u32(tenant.0);
            out
        }
        other => unreachable!("encode writes {other:?} itself"),
    }
}

/// Reads what follows the kinds 7 and 8.
pub(super) fn read_query(kind: u8, reader: &mut Reader) -> Result<Query, Malformed> {
    let tenant = reader.tenant()?;
    if kind == 8 {
        return Ok(Query::Consumers { tenant });
    }
    Ok(Query::Events {
        tenant,
        after: reader.offset()?,
        device: reader.option(Reader::text)?,
        items_max: reader.u16()?,
        bytes_max: reader.u32()?,
        wait_ms: reader.u32()?,
    })
}

pub(super) fn put_page(page: &EventsPage) -> BytesMut {
    let mut out = begin(7);
    out.put_u64(page.upto.0);
    out.put_u64(page.head.0);
    out.put_u64(page.tail.0);
    out.put_u32(u32::try_from(page.events.len()).expect("EVENTS_PER_PAGE_MAX fits"));
    for Event { offset, at, device, born, event } in &page.events {
        out.put_u64(offset.0);
        out.put_u64(at.0);
        put_text(&mut out, device);
        put_option(&mut out, *born, BufMut::put_u64);
        put_event(&mut out, event);
    }
    out
}

pub(super) fn read_page(reader: &mut Reader) -> Result<EventsPage, Malformed> {
    Ok(EventsPage {
        upto: reader.offset()?,
        head: reader.offset()?,
        tail: reader.offset()?,
        events: reader.list(EVENT_BYTES_MIN, |reader| {
            Ok(Event {
                offset: reader.offset()?,
                at: reader.millis()?,
                device: reader.text()?,
                born: reader.option(Reader::u64)?,
                event: read_event(reader)?,
            })
        })?,
    })
}

pub(super) fn put_consumers(page: &ConsumersPage) -> BytesMut {
    let mut out = begin(8);
    out.put_u64(page.head.0);
    out.put_u64(page.tail.0);
    out.put_u32(u32::try_from(page.consumers.len()).expect("CONSUMERS_PER_STREAM_MAX fits"));
    for Consumer { name, offset, at } in &page.consumers {
        put_text(&mut out, name);
        out.put_u64(offset.0);
        out.put_u64(at.0);
    }
    out
}

pub(super) fn read_consumers(reader: &mut Reader) -> Result<ConsumersPage, Malformed> {
    Ok(ConsumersPage {
        head: reader.offset()?,
        tail: reader.offset()?,
        consumers: reader.list(CONSUMER_BYTES_MIN, |reader| {
            Ok(Consumer { name: reader.text()?, offset: reader.offset()?, at: reader.millis()? })
        })?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::UnixMillis;

    use super::*;
    use crate::{
        events::{EventKind, NewEvent},
        query::Found,
    };

    #[test]
    fn questions_about_streams_come_through() {
        let (tenant, after) = (TenantId(3), Offset(4));
        let events = |device| Query::Events {
            tenant,
            after,
            device,
            items_max: 5,
            bytes_max: 6,
            wait_ms: 7,
        };
        for query in [events(None), events(Some("pump".into())), Query::Consumers { tenant }] {
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
        }
    }

    #[test]
    fn answers_about_streams_come_through() {
        let event = |born| Event {
            offset: Offset(5),
            at: UnixMillis(6),
            device: "pump".into(),
            born,
            event: NewEvent {
                kind: EventKind::Presence,
                channel: Text::default(),
                content_type: 1,
                body: Bytes::from_static(b"{}"),
                by: 2,
            },
        };
        let (head, tail, upto) = (Offset(4), Offset(9), Offset(7));
        let consumer = Consumer { name: "g".into(), offset: Offset(4), at: UnixMillis(6) };
        for found in [
            Found::Events(EventsPage {
                events: vec![event(None), event(Some(8))],
                upto,
                head,
                tail,
            }),
            Found::Events(EventsPage { events: Vec::new(), upto, head, tail }),
            Found::Consumers(ConsumersPage { consumers: vec![consumer], head, tail }),
        ] {
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
