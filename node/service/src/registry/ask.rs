//! Questions about a shard's rows, answered by its leader after it has confirmed that it leads: linearizable, without a log
//! entry. The node that asks confirms it with the question if it can ([`Confirmation`]); else many questions share one barrier
//! ([`Inner::pass_gate`]).
//!
//! ```text
//!   question   version 1 | confirmed u8 | (term u64 | leader u64)? | query
//! ```
//!
//! Checked by the cluster tests (`registry.rs`).

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, TenantId, Text};
use moorline_group::{
    Confirmation,
    wire::{Kind, Lane, Replier},
};
use moorline_machine::{
    DeviceCursor,
    query::{Found, Query, SessionStanding},
    registry::DeviceRecord,
};
use moorline_router::{Leader, Leaders};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::error;

use super::{Registry, RegistryError};
use crate::{news::Listener, service::Inner};

/// How long a question may take, all repeats together: longer than an election.
pub(super) const QUESTION_WAIT: Duration = Duration::from_secs(5);
/// How long one try may take.
const TRY_WAIT: Duration = Duration::from_secs(2);
/// How long a question may wait at a leader for something new.
const EVENTS_WAIT_MAX: Duration = Duration::from_secs(30);
/// Of a question's frame.
const VERSION: u8 = 1;
/// What it has beside the query.
const CONFIRMATION_BYTES: usize = 17;
/// The pause before the next.
pub(super) const TRY_PAUSE: Duration = Duration::from_millis(20);

/// A piece of a tenant's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// In the order of shards, buckets and names.
    pub devices: Vec<(Text, DeviceRecord)>,
    /// Where the next page begins, if there may be one.
    pub next: Option<(ShardId, DeviceCursor)>,
}

impl Registry {
    pub(crate) async fn question(
        &self,
        shard: ShardId,
        query: &Query,
    ) -> Result<Found, RegistryError> {
        self.question_waiting(shard, query, Duration::ZERO).await
    }

    /// The same of a question that may wait at the leader for so long before it is answered.
    pub(super) async fn question_waiting(
        &self,
        shard: ShardId,
        query: &Query,
        wait: Duration,
    ) -> Result<Found, RegistryError> {
        let deadline = Instant::now() + wait + QUESTION_WAIT;
        let query = query.encode();
        let below = self.inner.below();
        loop {
            // Before it is asked who leads: what changes from then on is news.
            let news = below.router.leaders();
            let known = news.borrow().get(&shard).copied();
            if let Some(leader) = below.router.leader(shard) {
                let (lane, kind, try_wait) = (Lane::Data, Kind::Question, wait + TRY_WAIT);
                // Not before the question was asked: see there.
                let body = encode(below.groups.confirmation(shard), &query);
                let asked = below.peers.call(leader, lane, kind, shard, body, try_wait);
                let answer = tokio::select! {
                    answer = asked => answer.ok(),
                    // It may stand still, and another has taken over.
                    () = another_leads(news, shard, known, leader) => None,
                };
                match answer.map(Found::decode) {
                    Some(Ok(found)) => return Ok(found),
                    Some(Err(problem)) => self.inner.bad_frame(leader, &problem),
                    None => {}
                }
            }
            if Instant::now() >= deadline {
                return Err(RegistryError::Unavailable);
            }
            sleep(TRY_PAUSE).await;
        }
    }

    /// How a client's session stands; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unavailable`].
    pub async fn session(
        &self,
        tenant: TenantId,
        client: &Text,
    ) -> Result<Option<SessionStanding>, RegistryError> {
        let shard = self.shard_of(tenant, client);
        let query = Query::Session { tenant, client: client.clone() };
        let Found::Session(found) = self.question(shard, &query).await? else {
            return Err(RegistryError::Unavailable);
        };
        Ok(found)
    }
}

/// Waits until it is news that another node than this one leads: something else than was `known` before it was asked.
async fn another_leads(
    mut news: watch::Receiver<Leaders>,
    shard: ShardId,
    known: Option<Leader>,
    leader: NodeId,
) {
    let other = |now: &Leaders| {
        let now = now.get(&shard).copied();
        now != known && now.is_some_and(|now| now.node.is_some_and(|node| node != leader))
    };
    if news.wait_for(other).await.is_err() {
        // The router stops: then so does everything that waits.
        pending::<()>().await;
    }
}

fn encode(said: Option<Confirmation>, query: &[u8]) -> Bytes {
    let mut out = Writer::new(VERSION, CONFIRMATION_BYTES + query.len());
    out.u8(u8::from(said.is_some()));
    if let Some(Confirmation { term, leader }) = said {
        out.u64(term);
        out.u64(leader.0);
    }
    out.rest(query);
    out.done()
}

fn decode(frame: Bytes) -> Result<(Option<Confirmation>, Bytes), StorageError> {
    let mut from = Reader::new(frame, VERSION, "question")?;
    let said = match from.u8()? {
        0 => None,
        1 => Some(Confirmation { term: from.u64()?, leader: NodeId(from.u64()?) }),
        other => return Err(from.corrupt(format!("confirmed {other}"))),
    };
    Ok((said, from.rest()))
}

impl Inner {
    /// The leader's side.
    pub(crate) fn on_question(
        self: &Arc<Self>,
        from: NodeId,
        shard: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let (said, query) = match decode(body) {
            Ok(decoded) => decoded,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let query = match Query::decode(query) {
            Ok(query) => query,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let Some(reply) = reply else { return };
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            // Before it reads, so that nothing is missed in between.
            let listener = service.listener_for(shard, &query);
            let groups = &service.below().groups;
            if said.is_some_and(|said| groups.is_confirmed(shard, from, said)) {
                service.metrics.questions_confirmed.inc();
            } else if !service.pass_gate(shard).await {
                return reply.refuse("not the leader");
            }
            let answered = match listener {
                Some((listener, until)) => service.read_newer(shard, query, listener, until).await,
                None => service.read_query(shard, &query),
            };
            match answered {
                Ok(found) => reply.send(found.encode()),
                Err(why) => reply.refuse(why),
            }
        });
    }

    fn read_query(&self, shard: ShardId, query: &Query) -> Result<Found, &'static str> {
        let read = self.below().groups.read(shard, |machine, rows| machine.query(rows, query));
        match read {
            Some(Ok(found)) => Ok(found),
            None => Err("the shard is not here"),
            Some(Err(problem)) => {
                error!(%shard, %problem, "cannot read what was asked for");
                (self.fatal)("rows can't be read");
                Err("rows can't be read")
            }
        }
    }

    // ---- questions that wait

    /// For a question that may wait: what wakes it, and until when it may. `None` if it is to be answered at once.
    fn listener_for(&self, shard: ShardId, query: &Query) -> Option<(Listener, Instant)> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other question waits")]
        let (wait_ms, news, tenant, device) = match query {
            Query::Events { tenant, wait_ms, .. } => {
                (*wait_ms, &self.news, *tenant, Text::default())
            }
            Query::Marks { tenant, device, wait_ms, .. } => {
                (*wait_ms, &self.value_news, *tenant, device.clone())
            }
            _ => return None,
        };
        if wait_ms == 0 {
            return None;
        }
        let wait = Duration::from_millis(u64::from(wait_ms)).min(EVENTS_WAIT_MAX);
        Some((news.listen(shard, tenant, device)?, Instant::now() + wait))
    }

    /// Answers when there is something else than who asks knows, or in the end that there is nothing.
    async fn read_newer(
        &self,
        shard: ShardId,
        mut query: Query,
        mut listener: Listener,
        until: Instant,
    ) -> Result<Found, &'static str> {
        loop {
            let found = self.read_query(shard, &query)?;
            let Some(at_tail) = waits(&mut query, &found) else { return Ok(found) };
            if Instant::now() >= until {
                return Ok(found);
            }
            if !at_tail {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err("the node stops"),
                () = sleep_until(until.into()) => return Ok(found),
                () = listener.changed() => {}
            }
            if !self.delivery(shard).is_some_and(|delivery| delivery.is_leading()) {
                return Err("not the leader");
            }
        }
    }
}

/// Whether what was found is nothing new to who asks. `Some(false)`: but there is more to look at, from where the question says now.
fn waits(query: &mut Query, found: &Found) -> Option<bool> {
    match (query, found) {
        (Query::Events { after, .. }, Found::Events(page)) if page.events.is_empty() => {
            // Those that were looked at are of other devices.
            *after = page.upto;
            Some(page.upto.next() >= page.tail)
        }
        (Query::Marks { known, .. }, Found::Marks(marks)) => (known == marks).then_some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use moorline_core::Offset;
    use moorline_machine::{EventsPage, values::Marks};

    use super::*;

    #[test]
    fn who_asks_waits_as_long_as_it_knows_all_there_is() {
        let marks = |latest| Marks { born: 1, attributes: [0; 3], latest };
        let (tenant, device, wait_ms) = (TenantId(1), Text::from("d"), 9);
        let asking = |known, found| {
            let device = device.clone();
            waits(&mut Query::Marks { tenant, device, known, wait_ms }, &Found::Marks(found))
        };
        assert_eq!(asking(Some(marks(1)), Some(marks(1))), Some(true));
        assert_eq!(asking(Some(marks(1)), Some(marks(2))), None);
        assert_eq!(asking(None, Some(marks(2))), None);
        assert_eq!(asking(Some(marks(1)), None), None, "it is gone");
        let (after, items_max, bytes_max) = (Offset(3), 9, 9);
        let mut query =
            Query::Events { tenant, after, device: None, items_max, bytes_max, wait_ms };
        let (upto, head) = (Offset(5), Offset(1));
        let mut page = EventsPage { events: Vec::new(), upto, head, tail: Offset(9) };
        assert_eq!(waits(&mut query, &Found::Events(page.clone())), Some(false));
        assert!(matches!(query, Query::Events { after: Offset(5), .. }));
        page.tail = Offset(6);
        assert_eq!(waits(&mut query, &Found::Events(page)), Some(true));
    }

    #[test]
    fn news_of_a_leader_count_from_before_it_was_asked_who_leads() {
        let by = |node, term| Some(Leader { node: Some(NodeId(node)), term });
        let leaders = |of: Option<Leader>| {
            Arc::new(of.map(|of| (ShardId(1), of)).into_iter().collect::<BTreeMap<_, _>>())
        };
        #[rustfmt::skip]
        let table = [
            // What was known, who was asked, what is known by then.
            (by(1, 1), 1, by(1, 1), false),
            (by(1, 1), 1, by(2, 2), true),
            (by(1, 1), 1, by(1, 3), false),
            (by(1, 1), 2, by(2, 2), false),
            (by(1, 1), 2, by(1, 1), false),
            (None,     1, by(2, 2), true),
        ];
        for (known, asked, now, expected) in table {
            let (_sender, news) = watch::channel(leaders(now));
            let waits = pin!(another_leads(news, ShardId(1), known, NodeId(asked)));
            let polled = waits.poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled == Poll::Ready(()), expected, "{known:?} {asked} {now:?}");
        }
    }

    #[test]
    fn a_question_says_whom_the_asker_votes_for() {
        let said = Confirmation { term: 7, leader: NodeId(3) };
        for said in [None, Some(said)] {
            let frame = encode(said, b"query");
            assert_eq!(decode(frame).unwrap(), (said, Bytes::from_static(b"query")));
        }
        let frame = encode(Some(said), b"");
        for length in 0..frame.len() {
            assert!(decode(frame.slice(..length)).is_err(), "{length}");
        }
        assert!(decode(Bytes::from_static(&[VERSION, 2])).is_err());
    }
}
