//! Events come in; consumer groups come, go and commit.

use std::collections::BTreeMap;

use moorline_core::{Offset, TenantId, Text};
use moorline_storage::{Rows, StorageError};

use super::{Stream, Streams, refused};
use crate::{
    answer::{Answer, Refused},
    events::{
        AppendEvent, CONSUMER_NAME_BYTES_MAX, CONSUMERS_PER_STREAM_MAX, CommitEvents,
        DeleteConsumer, EVENT_BODY_BYTES_MAX, EVENT_CHANNEL_BYTES_MAX, EVENT_DEVICE_BYTES_MAX,
        EventAnswer, EventRefused, STREAM_BYTES_MAX, STREAMS_PER_SHARD_MAX,
    },
    rows::{
        Row,
        events::{ConsumerRow, EventRow, StreamRow},
    },
    shard::ShardState,
    step::Step,
};

impl AppendEvent {
    /// What no stream takes.
    pub(in crate::shard) fn refusal(&self) -> Option<Refused> {
        let named = !self.device.is_empty() && self.device.len() <= EVENT_DEVICE_BYTES_MAX;
        if !named || self.event.channel.len() > EVENT_CHANNEL_BYTES_MAX {
            return Some(Refused::Malformed);
        }
        let too_large = self.event.body.len() > EVENT_BODY_BYTES_MAX;
        too_large.then_some(Refused::Events(EventRefused::TooLarge))
    }
}

impl ShardState {
    pub(super) fn append_event<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        append: AppendEvent,
    ) -> Result<Answer, StorageError> {
        if let Some(why) = append.refusal() {
            return Ok(Answer::Refused(why));
        }
        if let Some(born) = append.born {
            let there = self.born(&*step.rows, append.tenant, &append.device)?;
            if there != Some(born) {
                return Ok(refused(EventRefused::DeviceGone));
            }
        }
        Ok(self.streams.append(step, append))
    }
}

impl Streams {
    /// Why a tenant's event could not be appended.
    pub(in crate::shard) fn refusal(&self, tenant: TenantId) -> Option<Refused> {
        let full = self.known.len() >= STREAMS_PER_SHARD_MAX && !self.known.contains_key(&tenant);
        full.then_some(Refused::Events(EventRefused::TooManyStreams))
    }

    pub(in crate::shard) fn append<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        append: AppendEvent,
    ) -> Answer {
        let AppendEvent { tenant, device, born, event, mut retention } = append;
        retention.bytes_max = retention.bytes_max.min(STREAM_BYTES_MAX);
        if !self.known.contains_key(&tenant) {
            if self.known.len() >= STREAMS_PER_SHARD_MAX {
                return refused(EventRefused::TooManyStreams);
            }
            let row = StreamRow::new(retention);
            self.insert(tenant, Stream { row, consumers: BTreeMap::new(), appended: 0 });
        }
        let stream = self.known.get_mut(&tenant).expect("it was just made");
        if stream.appended == 0 {
            self.dirty.push(tenant);
        }
        stream.appended += 1;

        let (mut row, at) = (stream.row, step.time);
        let offset = row.tail;
        let event = EventRow { at, device, born, event }.to_bytes();
        if row.len() == 0 {
            row.oldest = at;
        }
        row.tail = offset.next();
        row.bytes += event.len() as u64;
        row.retention = retention;
        step.put_fresh(self.keys.event(tenant, offset), event);
        self.change(tenant, row);
        Answer::Events(EventAnswer::Appended { offset, at })
    }

    pub(super) fn commit<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        commit: &CommitEvents,
    ) -> Answer {
        let CommitEvents { tenant, consumer, offset } = commit;
        if consumer.is_empty() || consumer.len() > CONSUMER_NAME_BYTES_MAX {
            return Answer::Refused(Refused::Malformed);
        }
        let stream = self.known.get_mut(tenant);
        let last = stream.as_ref().map_or(Offset(0), |stream| stream.row.last());
        if *offset > last {
            return refused(EventRefused::BeyondTail { last });
        }
        let known = stream.as_ref().and_then(|stream| stream.consumers.get(consumer));
        let before = known.map(|known| known.offset);
        // Who has read nothing is as who was never there: no row for that.
        let at_least = before.unwrap_or_default();
        let Some(stream) = stream.filter(|_| *offset > at_least) else {
            return Answer::Events(EventAnswer::Committed { offset: at_least });
        };
        if before.is_none() {
            if stream.consumers.len() >= CONSUMERS_PER_STREAM_MAX {
                return refused(EventRefused::TooManyConsumers);
            }
            self.totals.consumers += 1;
        }
        let row = ConsumerRow { offset: *offset, at: step.time };
        // A copy: the text is a slice of the whole log entry.
        stream.consumers.insert(Text::from(consumer.as_str()), row);
        step.put(self.keys.consumer(*tenant, consumer), row.to_bytes());
        Answer::Events(EventAnswer::Committed { offset: *offset })
    }

    pub(in crate::shard) fn delete_consumer<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteConsumer,
    ) -> Answer {
        let DeleteConsumer { tenant, consumer } = delete;
        let stream = self.known.get_mut(tenant);
        if stream.and_then(|stream| stream.consumers.remove(consumer)).is_none() {
            return refused(EventRefused::NoSuchConsumer);
        }
        self.totals.consumers -= 1;
        step.delete(self.keys.consumer(*tenant, consumer));
        Answer::Done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use moorline_core::{ShardId, UnixMillis};
    use moorline_storage::{mem::MemStore, overlay::Overlay};

    use super::*;
    use crate::{
        events::{EventKind, NewEvent, Retention},
        keys::Keys,
    };

    #[test]
    fn a_shard_has_so_many_streams_and_no_more() {
        let keys = Keys::new(ShardId(1));
        let (mut streams, mut effects) = (Streams::new(keys), Vec::new());
        let mut rows = Overlay::new(Arc::new(MemStore::new()));
        let mut step = Step {
            rows: &mut rows,
            keys,
            index: 1,
            ordinal: 0,
            time: UnixMillis(1),
            effects: &mut effects,
            digest_wanted: &mut false,
        };
        let append = |tenant| AppendEvent {
            tenant: TenantId(tenant),
            device: "d".into(),
            born: None,
            event: NewEvent {
                kind: EventKind::Message,
                channel: Text::default(),
                content_type: 0,
                body: Bytes::new(),
                by: 0,
            },
            retention: Retention { keep_s: 1, bytes_max: 1 },
        };
        let full = u32::try_from(STREAMS_PER_SHARD_MAX).unwrap();
        for tenant in 0..full {
            let answer = streams.append(&mut step, append(tenant));
            assert!(matches!(answer, Answer::Events(_)), "{answer:?}");
        }
        assert_eq!(streams.append(&mut step, append(full)), refused(EventRefused::TooManyStreams));
        assert!(matches!(streams.append(&mut step, append(0)), Answer::Events(_)), "it has one");
    }
}
