//! Events: appended in the shard of their device, read from the leaders of all shards, committed by consumer groups.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use moorline_core::{Offset, ShardId, TenantId, Text, UnixMillis};
use moorline_explain::{Note, Stage};
use moorline_machine::{
    Answer, Command, ConsumersPage, EventAnswer, EventCommand, EventRefused, EventsPage,
    events::{
        AppendEvent, CommitEvents, DeleteConsumer, EventKind, NewEvent as MachineEvent, Retention,
    },
    query::{EVENTS_PER_PAGE_MAX, Found, Query},
};
use tokio::time::{Instant, sleep};

use super::{Cursor, Reading, Registry, RegistryError, accepted};
use crate::rates::Rated;

/// About the most bytes of one page: a reader holds one of each shard.
const PAGE_BYTES_MAX: u32 = 64 * 1024;
/// The pause before a leader that did not let a question wait is asked again.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(250);

/// What a device has to say, or somebody on its behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The version the device was made with, if it is known: what one that is gone says is refused then.
    pub born: Option<u64>,
    /// What kind of news.
    pub kind: EventKind,
    /// Which of that kind: a schema's name, a topic, or nothing.
    pub channel: Text,
    /// As of mail: 0 nothing, 1 JSON, 2 bytes.
    pub content_type: u8,
    /// What it says.
    pub body: Bytes,
    /// By which protocol, as of mail.
    pub by: u8,
}

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    /// Its shard.
    pub shard: ShardId,
    /// Its place in the tenant's stream there.
    pub offset: Offset,
    /// Its time, in log time.
    pub at: UnixMillis,
}

/// A consumer group and how far it is, in all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroup {
    /// Its name.
    pub name: Text,
    /// What it has committed.
    pub cursor: Cursor,
    /// Events that it has not committed.
    pub lag: u64,
    /// Of those, events that are gone.
    pub missed: u64,
    /// When it last committed, in log time.
    pub committed: UnixMillis,
}

impl Registry {
    fn event_retention(&self, tenant: TenantId) -> Retention {
        self.settings(tenant).events.retention()
    }

    /// Appends an event to its tenant's stream, in the shard of its device. It is synced on a majority when the future says so.
    ///
    /// It is on its way when this returns, so the order of the calls at one node is the order in the stream, whichever future is
    /// awaited first.
    ///
    /// # Errors
    ///
    /// The future gives [`RegistryError`]; after [`RegistryError::Unavailable`] it may be in the stream all the same.
    pub fn append_event(
        &self,
        tenant: TenantId,
        device: &Text,
        event: NewEvent,
    ) -> impl Future<Output = Result<EventPlace, RegistryError>> + Send + use<> {
        let shard = self.shard_of(tenant, device);
        let accepting = self.inner.accepting.load(Ordering::Acquire);
        let may = self.inner.may_say(tenant, &[(Rated::Events, 1)]);
        let step = self.step(tenant, device, |at| {
            Note::of_message(at, Stage::Event, &event.channel, &event.body, 1)
        });
        let asked = (accepting && may).then(|| {
            let NewEvent { born, kind, channel, content_type, body, by } = event;
            let append = AppendEvent {
                tenant,
                device: device.clone(),
                born,
                event: MachineEvent { kind, channel, content_type, body, by },
                retention: self.event_retention(tenant),
            };
            let command = Command::Events(EventCommand::Append(append));
            self.inner.below().router.ask(shard, &command)
        });
        async move {
            let appended = async {
                let Some(asked) = asked else {
                    return Err(if may { RegistryError::DiskFull } else { RegistryError::Busy });
                };
                let Answer::Events(EventAnswer::Appended { offset, at }) = accepted(asked.await?)?
                else {
                    return Err(RegistryError::Unavailable);
                };
                Ok(EventPlace { shard, offset, at })
            };
            let appended = appended.await;
            step.appended(&appended);
            appended
        }
    }

    /// A page of a tenant's stream in one shard, behind an offset, of one device or of all. With `wait` the leader answers
    /// when it has something newer than `after`, or when that time is over.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn events(
        &self,
        shard: ShardId,
        tenant: TenantId,
        after: Offset,
        device: Option<Text>,
        wait: Duration,
    ) -> Result<EventsPage, RegistryError> {
        let began = Instant::now();
        let query = Query::Events {
            tenant,
            after,
            device,
            items_max: EVENTS_PER_PAGE_MAX,
            bytes_max: PAGE_BYTES_MAX,
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        };
        let found = self.question_waiting(shard, &query, wait).await?;
        let Found::Events(page) = found else { return Err(RegistryError::Unavailable) };
        if page.events.is_empty() && began.elapsed() < wait / 2 {
            // Too many wait there, or the leader changed: not at once again.
            sleep(TURNED_AWAY_PAUSE.min(wait)).await;
        }
        Ok(page)
    }

    /// Head, tail and consumer groups of each shard, all asked at once.
    async fn consumers_pages(
        &self,
        tenant: TenantId,
    ) -> Result<Vec<(ShardId, ConsumersPage)>, RegistryError> {
        let query = Query::Consumers { tenant };
        let ask = |shard| {
            let query = &query;
            async move {
                let found = self.question(shard, query).await?;
                let Found::Consumers(page) = found else { return Err(RegistryError::Unavailable) };
                Ok((shard, page))
            }
        };
        try_join_all(self.inner.shards.all().map(ask)).await
    }

    /// Behind everything that was appended before this was called.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn newest(&self, tenant: TenantId) -> Result<Cursor, RegistryError> {
        let mut cursor = Cursor::begin(self.inner.shards);
        for (shard, page) in self.consumers_pages(tenant).await? {
            cursor.set(shard, Offset(page.tail.0 - 1));
        }
        Ok(cursor)
    }

    /// Up to where a consumer group has committed: the beginning, for one that never did.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn committed(
        &self,
        tenant: TenantId,
        consumer: &Text,
    ) -> Result<Cursor, RegistryError> {
        let groups = self.consumers(tenant).await?;
        let found = groups.into_iter().find(|group| group.name == *consumer);
        Ok(found.map_or_else(|| Cursor::begin(self.inner.shards), |group| group.cursor))
    }

    /// A tenant's consumer groups, by name.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn consumers(&self, tenant: TenantId) -> Result<Vec<ConsumerGroup>, RegistryError> {
        let pages = self.consumers_pages(tenant).await?;
        let all = pages.iter().flat_map(|(_, page)| &page.consumers);
        let mut names: Vec<_> = all.map(|consumer| consumer.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let group = |name: Text| {
            let cursor = Cursor::begin(self.inner.shards);
            let (lag, missed, committed) = (0, 0, UnixMillis(0));
            let mut group = ConsumerGroup { name, cursor, lag, missed, committed };
            for (shard, page) in &pages {
                let known = page.consumers.iter().find(|consumer| consumer.name == group.name);
                let offset = known.map(|known| known.offset).unwrap_or_default();
                group.cursor.set(*shard, offset);
                group.lag += page.tail.0.saturating_sub(offset.0 + 1);
                group.missed += known.map_or(0, |_| page.head.0.saturating_sub(offset.0 + 1));
                group.committed =
                    group.committed.max(known.map(|known| known.at).unwrap_or_default());
            }
            group
        };
        Ok(names.into_iter().map(group).collect())
    }

    /// A consumer group has read everything up to a cursor: what it has committed now, which is never less than before.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; some shards may have taken it then, and to commit it again is safe.
    pub async fn commit_events(
        &self,
        tenant: TenantId,
        consumer: &Text,
        cursor: &Cursor,
    ) -> Result<Cursor, RegistryError> {
        let (begun, rest): (Vec<_>, Vec<_>) =
            cursor.shards().partition(|(_, offset)| *offset > Offset(0));
        let mut committed = cursor.clone();
        for (shard, offset) in self.commit_shards(tenant, consumer, begun).await? {
            committed.set(shard, offset);
        }
        if !rest.is_empty() {
            let known = self.committed(tenant, consumer).await?;
            rest.iter().for_each(|(shard, _)| committed.set(*shard, known.of(*shard)));
        }
        Ok(committed)
    }

    /// The same of some shards, up to an offset each; 0 commits nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_events`].
    pub async fn commit_shards(
        &self,
        tenant: TenantId,
        consumer: &Text,
        read: Vec<(ShardId, Offset)>,
    ) -> Result<Vec<(ShardId, Offset)>, RegistryError> {
        // All are on their way before the first is waited for.
        let begun = read.into_iter().filter(|(_, offset)| *offset > Offset(0));
        let asked: Vec<_> = begun
            .map(|(shard, offset)| {
                let commit = CommitEvents { tenant, consumer: consumer.clone(), offset };
                let command = Command::Events(EventCommand::Commit(commit));
                (shard, self.inner.below().router.ask(shard, &command))
            })
            .collect();
        let mut committed = Vec::with_capacity(asked.len());
        for (shard, asked) in asked {
            let Answer::Events(EventAnswer::Committed { offset }) = accepted(asked.await?)? else {
                return Err(RegistryError::Unavailable);
            };
            committed.push((shard, offset));
        }
        Ok(committed)
    }

    /// A consumer group has read a shard up to an offset: what it has committed there now, which is never less than before.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; it may have been taken then, and to commit it again is safe.
    pub async fn commit_shard(
        &self,
        tenant: TenantId,
        consumer: &Text,
        shard: ShardId,
        offset: Offset,
    ) -> Result<Offset, RegistryError> {
        let commit = CommitEvents { tenant, consumer: consumer.clone(), offset };
        let command = Command::Events(EventCommand::Commit(commit));
        let answer = accepted(self.inner.below().router.ask(shard, &command).await?)?;
        let Answer::Events(EventAnswer::Committed { offset }) = answer else {
            return Err(RegistryError::Unavailable);
        };
        Ok(offset)
    }

    /// Forgets a consumer group.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`EventRefused::NoSuchConsumer`] if no shard knows it. Some shards may have forgotten it otherwise,
    /// and to say it again is safe.
    pub async fn delete_consumer(
        &self,
        tenant: TenantId,
        consumer: &Text,
    ) -> Result<(), RegistryError> {
        let asked: Vec<_> = self
            .inner
            .shards
            .all()
            .map(|shard| {
                let delete = DeleteConsumer { tenant, consumer: consumer.clone() };
                let command = Command::Events(EventCommand::DeleteConsumer(delete));
                self.inner.below().router.ask(shard, &command)
            })
            .collect();
        let mut known = false;
        for asked in asked {
            match accepted(asked.await?) {
                Ok(_) => known = true,
                Err(RegistryError::Events(EventRefused::NoSuchConsumer)) => {}
                Err(error) => return Err(error),
            }
        }
        if known { Ok(()) } else { Err(RegistryError::Events(EventRefused::NoSuchConsumer)) }
    }

    /// A cursor that somebody gives back; `None` if it is none of this cluster.
    #[must_use]
    pub fn cursor(&self, text: &str) -> Option<Cursor> {
        Cursor::parse(text, self.inner.shards)
    }

    /// The shards in which a reader has to look: all, or that of one device.
    #[must_use]
    pub fn event_shards(&self, tenant: TenantId, device: Option<&Text>) -> Vec<ShardId> {
        match device {
            Some(device) => vec![self.shard_of(tenant, device)],
            None => self.inner.shards.all().collect(),
        }
    }

    /// A place among those who read events at this node.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooManyReaders`].
    pub fn begin_reading(&self, tenant: TenantId) -> Result<Reading, RegistryError> {
        let metrics = &self.inner.metrics.events;
        let reading = self.inner.event_readers.begin(tenant, metrics.readers.clone());
        reading.ok_or_else(|| {
            metrics.readers_refused.inc();
            RegistryError::TooManyReaders
        })
    }
}
