//! Attributes and telemetry of devices: written and read in the shard of their device.
//!
//! A connection that is to tell its device of changed attributes reads, and reads again what changed since:
//!
//! ```text
//!   watch ─► attributes: version ─► heard.attributes ─► attributes since that version: what was set, what is gone ─┐
//!                                        ▲                                                                         │
//!                                        └────────────── tell the device; its version from now on ◄────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **No change is lost between two reads**: the second has all that a later version than the first one's set or deleted. Of
//!   several changes of one key in between, the last is told. Checked by `raft/machine`, `tests/rules/values_model.rs`.
//! - **Order is kept**: what one node writes of a device is on its way when the call returns, as of events.

use std::sync::atomic::Ordering;

use moorline_core::{
    AttributeScope, Offset, ShardId, TenantId, Text, UnixMillis, Value, level::RECORD_BY_SECOND,
};
use moorline_explain::{Note, Stage};
use moorline_machine::{
    AggregateQuery, Answer, Command, HistoryQuery, ValueAnswer, ValueCommand,
    events::NewEvent as MachineEvent,
    query::{Found, Query},
    values::{
        AggregatePage, Attributes, HistoryPage, Latest, NewPoint, Record, RecordRules,
        TellAttributes, WithEvent, WriteAttributes,
    },
};

use super::{EventPlace, NewEvent, Registry, RegistryError, accepted};
use crate::rates::Rated;

/// Pages of a history that are taken together for one answer: about 260,000 points. Who wants more asks again from there.
const AGGREGATE_PAGES_MAX: usize = 64;

/// What is to become of attributes of one scope of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeWrite {
    /// The version the device was made with.
    pub born: u64,
    /// Which.
    pub scope: AttributeScope,
    /// Keys with their new values; without one it is deleted.
    pub changes: Vec<(Text, Option<Value>)>,
    /// What is to be in the tenant's stream as well. Its birth is that of the device.
    pub event: Option<NewEvent>,
}

/// What a device measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The version the device was made with.
    pub born: u64,
    /// In the order in which they were said.
    pub points: Vec<NewPoint>,
    /// Whether what has no time of its own is a point of its own even if the device's clock is ahead: [`RecordRules::Second`]. Not
    /// while a node may have a program that can't read these rules.
    pub apart: bool,
    /// What is to be in the tenant's stream as well. Its birth is that of the device.
    pub event: Option<NewEvent>,
}

/// What a write of values came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValuesWritten {
    /// When, in log time.
    pub at: UnixMillis,
    /// Of attributes: the version that reads of changes may begin behind.
    pub version: u64,
    /// Where the event is, if there was one.
    pub event: Option<EventPlace>,
}

impl Registry {
    /// Writes and deletes attributes of one scope of a device, all or none. They are synced on a majority when the future says
    /// so; they are on their way when this returns, as of [`Registry::append_event`].
    ///
    /// # Errors
    ///
    /// The future gives [`RegistryError`]; after [`RegistryError::Unavailable`] they may be written all the same.
    pub fn write_attributes(
        &self,
        tenant: TenantId,
        device: &Text,
        write: AttributeWrite,
    ) -> impl Future<Output = Result<ValuesWritten, RegistryError>> + Send + use<> {
        let AttributeWrite { born, scope, changes, event } = write;
        let (device, event) = (device.clone(), self.with_event(tenant, event));
        let write = WriteAttributes { tenant, device, born, scope, changes, event };
        self.write_values(ValueCommand::WriteAttributes(write))
    }

    /// Notes up to which version of its shared attributes a device was told: for one that asks for changes, and is not there in
    /// between. As [`Registry::append_event`] otherwise.
    ///
    /// # Errors
    ///
    /// As of [`Registry::write_attributes`].
    pub fn tell_attributes(
        &self,
        tenant: TenantId,
        device: &Text,
        born: u64,
        version: u64,
    ) -> impl Future<Output = Result<ValuesWritten, RegistryError>> + Send + use<> {
        let tell = TellAttributes { tenant, device: device.clone(), born, version };
        self.write_values(ValueCommand::Tell(tell))
    }

    /// Takes in what a device measured: latest values, history as the tenant's settings say, and an event, with one command.
    /// As [`Registry::append_event`] otherwise.
    ///
    /// # Errors
    ///
    /// As of [`Registry::write_attributes`].
    pub fn record(
        &self,
        tenant: TenantId,
        device: &Text,
        recording: Recording,
    ) -> impl Future<Output = Result<ValuesWritten, RegistryError>> + Send + use<> {
        let Recording { born, points, apart, event } = recording;
        let (device, event) = (device.clone(), self.with_event(tenant, event));
        let history = self.settings(tenant).telemetry.retention();
        let rules = rules(self.level(), apart, &points);
        let record = Record { tenant, device, born, rules, points, history, event };
        self.write_values(ValueCommand::Record(record))
    }

    /// By which rules points are recorded that are not to be kept apart.
    pub(super) fn rules(&self, points: &[NewPoint]) -> RecordRules {
        rules(self.level(), false, points)
    }

    fn with_event(&self, tenant: TenantId, event: Option<NewEvent>) -> Option<WithEvent> {
        let NewEvent { born: _, kind, channel, content_type, body, by } = event?;
        let retention = self.settings(tenant).events.retention();
        Some(WithEvent { event: MachineEvent { kind, channel, content_type, body, by }, retention })
    }

    pub(super) fn write_values(
        &self,
        command: ValueCommand,
    ) -> impl Future<Output = Result<ValuesWritten, RegistryError>> + Send + use<> {
        let (tenant, device) = command.device();
        let shard = self.shard_of(tenant, device);
        let accepting = self.inner.accepting.load(Ordering::Acquire);
        let may = self.inner.may_say(tenant, &[(Rated::Events, 1)]);
        let step = self.step(tenant, device, |at| Note::new(at, Stage::Event, "values"));
        let command = Command::Values(command);
        let asked = (accepting && may).then(|| self.inner.below().router.ask(shard, &command));
        async move {
            let answered = match asked {
                Some(asked) => match asked.await {
                    Ok(answer) => written(shard, answer),
                    Err(error) => Err(error.into()),
                },
                None if may => Err(RegistryError::DiskFull),
                None => Err(RegistryError::Busy),
            };
            step.answered(&answered);
            answered
        }
    }

    /// Attributes of one scope of a device: those of these keys, or all if there are none. With `since` only what was set or
    /// deleted by a later version. [`None`] if there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn attributes(
        &self,
        tenant: TenantId,
        device: &Text,
        scope: AttributeScope,
        keys: Vec<Text>,
        since: Option<u64>,
    ) -> Result<Option<Attributes>, RegistryError> {
        let query = Query::Attributes { tenant, device: device.clone(), scope, keys, since };
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        let Found::Attributes(found) = found else { return Err(RegistryError::Unavailable) };
        Ok(found)
    }

    /// Latest values of a device: those of these keys, or all if there are none. [`None`] if there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn latest(
        &self,
        tenant: TenantId,
        device: &Text,
        keys: Vec<Text>,
    ) -> Result<Option<Latest>, RegistryError> {
        let query = Query::Latest { tenant, device: device.clone(), keys };
        let found = self.question(self.shard_of(tenant, device), &query).await?;
        let Found::Latest(found) = found else { return Err(RegistryError::Unavailable) };
        Ok(found)
    }

    /// A page of a device's history; it says where the next one begins. [`None`] if there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn history(&self, query: HistoryQuery) -> Result<Option<HistoryPage>, RegistryError> {
        let shard = self.shard_of(query.tenant, &query.device);
        let found = self.question(shard, &Query::History(query)).await?;
        let Found::History(found) = found else { return Err(RegistryError::Unavailable) };
        Ok(found)
    }

    /// Values of a device's history, taken together interval by interval. It says where to go on if that is more than one
    /// answer looks at; the last interval of each key may then go on there. [`None`] if there is no such device.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn aggregate(
        &self,
        mut query: AggregateQuery,
    ) -> Result<Option<AggregatePage>, RegistryError> {
        let shard = self.shard_of(query.tenant, &query.device);
        let mut all = AggregatePage::default();
        for _ in 0..AGGREGATE_PAGES_MAX {
            let found = self.question(shard, &Query::Aggregate(query.clone())).await?;
            let Found::Aggregate(page) = found else { return Err(RegistryError::Unavailable) };
            let Some(page) = page else { return Ok(None) };
            join(&mut all, page);
            match all.next {
                Some(next) => query.from_ms = next,
                None => break,
            }
        }
        Ok(Some(all))
    }
}

/// By which rules points are recorded at a level of the cluster: by the first ones that do; by the second only if every node knows
/// them. Below that level a long text is refused, and what is to be kept apart is kept apart unless the device's clock is ahead.
fn rules(level: u16, apart: bool, points: &[NewPoint]) -> RecordRules {
    if level < RECORD_BY_SECOND {
        RecordRules::First
    } else if apart {
        RecordRules::Second
    } else {
        RecordRules::least(points)
    }
}

/// Adds the next page.
fn join(all: &mut AggregatePage, page: AggregatePage) {
    all.next = page.next;
    for (key, intervals) in page.series {
        let at = match all.series.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => at,
            Err(at) => {
                all.series.insert(at, (key, Vec::new()));
                at
            }
        };
        let known = &mut all.series[at].1;
        for (start, taken) in intervals {
            match known.last_mut().filter(|(last, _)| *last == start) {
                Some((_, last)) => last.join(&taken),
                None => known.push((start, taken)),
            }
        }
    }
}

fn written(shard: ShardId, answer: Answer) -> Result<ValuesWritten, RegistryError> {
    let Answer::Values(ValueAnswer::Written { at, version, event }) = accepted(answer)? else {
        return Err(RegistryError::Unavailable);
    };
    let event = event.map(|offset: Offset| EventPlace { shard, offset, at });
    Ok(ValuesWritten { at, version, event })
}

#[cfg(test)]
mod tests {
    use moorline_machine::values::aggregate::{Aggregation, Taken};

    use super::*;

    #[test]
    fn the_second_rules_wait_for_their_level() {
        let text = |bytes: usize| {
            let value = Value::Text("x".repeat(bytes).as_str().into());
            vec![NewPoint { ts_ms: None, values: vec![("k".into(), value)] }]
        };
        let (short, long) = (text(10), text(40_000));
        let (first, second) = (RecordRules::First, RecordRules::Second);
        for (level, apart, points, expected) in [
            (1, false, &short, first),
            (1, true, &short, first),
            (1, false, &long, first),
            (2, false, &short, first),
            (2, true, &short, second),
            (2, false, &long, second),
            (3, true, &long, second),
        ] {
            assert_eq!(rules(level, apart, points), expected, "{level} {apart}");
        }
    }

    fn page(key: &str, start: i64, values: &[i64], next: Option<i64>) -> AggregatePage {
        let mut taken = Taken::default();
        values.iter().for_each(|value| taken.add(&Value::Long(*value)));
        AggregatePage { series: vec![(key.into(), vec![(start, taken)])], next }
    }

    #[test]
    fn an_interval_that_goes_on_in_the_next_page_is_one() {
        let mut all = AggregatePage::default();
        join(&mut all, page("t", 0, &[1, 2], Some(5)));
        join(&mut all, page("a", 0, &[9], Some(6)));
        join(&mut all, page("t", 0, &[3], Some(10)));
        join(&mut all, page("t", 10, &[4], None));
        let keys: Vec<_> = all.series.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!((keys, all.next), (vec!["a".to_owned(), "t".to_owned()], None));
        let sums = all.series[1].1.iter();
        let sums: Vec<_> =
            sums.map(|(start, taken)| (*start, taken.result(Aggregation::Sum))).collect();
        assert_eq!(sums, [(0, Some(Value::Long(6))), (10, Some(Value::Long(4)))]);
    }
}
