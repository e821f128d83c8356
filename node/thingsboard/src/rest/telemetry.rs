//! Telemetry and attributes of a device: read and written by integrators.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_core::{AttributeScope, TenantId, Text, UnixMillis, Value as Kept};
use moorline_dialects::thingsboard::{
    attributes::Scope,
    json::Json,
    payloads::Encoding,
    rest::{
        aggregation::{Aggregation, Range},
        errors::ErrorCode,
        telemetry::{Attribute, History, Route, attributes, timeseries},
        told::Series,
    },
    values::{self, Rules, Value},
};
use moorline_machine::{
    AggregateQuery, HistoryQuery,
    presence::{PresenceRecord, PresenceState},
    values::{AggregatePage, HistoryPage, POINTS_PER_QUESTION_MAX, aggregate},
};
use moorline_service::registry::{
    AttributeWrite,
    door::{BY_AUTHORITY, By, Guest},
    settings,
};
use uuid::Uuid;

use super::{Failed, Reply, Rest, auth::Integrator, devices::Row};
use crate::{
    convert::{entries, from_core, keys},
    device::Device,
};

/// Pages of a history that are looked at for one answer.
const PAGES_MAX: usize = 64;

fn core_scope(scope: Scope) -> AttributeScope {
    match scope {
        Scope::Client => AttributeScope::Client,
        Scope::Shared => AttributeScope::Shared,
        Scope::Server => AttributeScope::Server,
    }
}

const SCOPES: [Scope; 3] = [Scope::Client, Scope::Shared, Scope::Server];

impl Rest {
    pub(super) async fn telemetry(
        &self,
        who: &Integrator,
        id: Uuid,
        route: Route,
        body: &Bytes,
    ) -> Result<Reply, Failed> {
        let (tenant, row) = (who.tenant, self.find(who.tenant, id).await?);
        let device = &row.0;
        match route {
            Route::TimeseriesKeys => {
                let found = self.door.registry.latest(tenant, device, Vec::new()).await?;
                let found = found.ok_or_else(Failed::not_found)?;
                let names = found.values.iter().map(|(key, ..)| key.as_str());
                Ok(Reply::json(&names.collect::<Vec<_>>()))
            }
            Route::Latest { keys: wanted, strict } => {
                let found = self.door.registry.latest(tenant, device, keys(&wanted)).await?;
                let found = found.ok_or_else(Failed::not_found)?;
                let one = |(key, ts, value): &(Text, i64, Kept)| {
                    (key.to_string(), vec![(*ts, from_core(value))])
                };
                let series: Series = found.values.iter().map(one).collect();
                Ok(Reply::written(&timeseries(&series, strict)))
            }
            Route::History(history) => {
                let series = self.series(tenant, device, &history).await?;
                Ok(Reply::written(&timeseries(&series, history.strict)))
            }
            Route::AttributeKeys(scope) => {
                let found = self.attributes(tenant, &row, scope, &[]).await?;
                let names: Vec<_> = found.iter().map(|one| one.key.as_str()).collect();
                Ok(Reply::json(&names))
            }
            Route::Attributes { scope, keys } => {
                let found = self.attributes(tenant, &row, scope, &keys).await?;
                Ok(Reply::written(&attributes(&found)))
            }
            Route::SaveAttributes(scope) => {
                let said =
                    values::attributes(&Json::read(body).map_err(unread)?, &Rules::default())?;
                let changes = entries(said).into_iter().map(|(key, value)| (key, Some(value)));
                self.write(tenant, &row, scope, changes.collect()).await
            }
            Route::DeleteAttributes { scope, keys: gone } => {
                let changes = keys(&gone).into_iter().map(|key| (key, None));
                self.write(tenant, &row, scope, changes.collect()).await
            }
            Route::SaveTimeseries { ttl_s: _ } => {
                // How long it is kept is the tenant's, for all of it.
                let samples = Encoding::Json.telemetry(body, self.now_ms(), &Rules::default())?;
                self.speaking_for(tenant, row).telemetry(samples, body.clone()).await?;
                Ok(Reply::nothing())
            }
            Route::DeleteTimeseries { keys, range_ms, latest } => {
                self.delete_timeseries(tenant, &row, &keys, range_ms, latest).await
            }
        }
    }

    /// Says something in the place of a device.
    fn speaking_for(&self, tenant: TenantId, (device, record): Row) -> Device {
        let settings = settings::read(&record.settings);
        let guest = Guest::of(tenant, &device, &record, &settings, (BY_AUTHORITY, By::Api));
        Device { door: self.door.clone(), guest }
    }

    // ---- attributes

    pub(super) async fn attributes(
        &self,
        tenant: TenantId,
        row: &Row,
        scope: Option<Scope>,
        wanted: &[String],
    ) -> Result<Vec<Attribute>, Failed> {
        let (mut all, device) = (Vec::new(), &row.0);
        for scope in SCOPES.into_iter().filter(|one| scope.is_none_or(|scope| scope == *one)) {
            let (scope, wanted) = (core_scope(scope), keys(wanted));
            let found = self.door.registry.attributes(tenant, device, scope, wanted, None).await?;
            let found = found.ok_or_else(Failed::not_found)?;
            all.extend(found.set.iter().map(|one| Attribute {
                key: one.key.to_string(),
                value: from_core(&one.value),
                updated_ms: i64::try_from(one.at.0).unwrap_or(i64::MAX),
            }));
        }
        if scope.is_none_or(|scope| scope == Scope::Server) {
            let known = self.presence_of(tenant, device, row.1.born).await?;
            let timeout = self.inactivity_timeout(tenant, device, known.as_ref()).await?;
            let shown = activity(known.as_ref(), timeout, self.now_ms());
            let shown = shown.into_iter().filter(|one| {
                // One that somebody has written counts.
                let is_new = all.iter().all(|other: &Attribute| other.key != one.key);
                is_new && (wanted.is_empty() || wanted.contains(&one.key))
            });
            let shown: Vec<_> = shown.collect();
            all.extend(shown);
        }
        Ok(all)
    }

    /// How long a device may be silent before it is not active any more, if somebody has set that for it and it matters now.
    pub(super) async fn inactivity_timeout(
        &self,
        tenant: TenantId,
        device: &Text,
        known: Option<&PresenceRecord>,
    ) -> Result<Option<i64>, Failed> {
        if known.is_none_or(|known| known.state == PresenceState::Connected) {
            return Ok(None);
        }
        let (scope, keys) = (AttributeScope::Server, vec![Text::from(INACTIVITY_TIMEOUT)]);
        let found = self.door.registry.attributes(tenant, device, scope, keys, None).await?;
        Ok(found.and_then(|found| found.set.first().and_then(|one| positive(&one.value))))
    }

    async fn write(
        &self,
        tenant: TenantId,
        (device, record): &Row,
        scope: Scope,
        changes: Vec<(Text, Option<Kept>)>,
    ) -> Result<Reply, Failed> {
        let (born, scope) = (record.born, core_scope(scope));
        let write = AttributeWrite { born, scope, changes, event: None };
        self.door.registry.write_attributes(tenant, device, write).await?;
        Ok(Reply::nothing())
    }

    // ---- telemetry of a range

    /// Samples of a range, or what is made of them.
    pub(super) async fn series(
        &self,
        tenant: TenantId,
        device: &Text,
        asked: &History,
    ) -> Result<Series, Failed> {
        match aggregation(asked.aggregation) {
            None => self.history(tenant, device, asked).await,
            Some(wanted) => self.aggregated(tenant, device, asked, wanted).await,
        }
    }

    async fn history(
        &self,
        tenant: TenantId,
        device: &Text,
        asked: &History,
    ) -> Result<Series, Failed> {
        let Range { start_ms, end_ms, .. } = asked.range;
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let mut query = HistoryQuery {
            tenant,
            device: device.clone(),
            keys: keys(&asked.keys),
            from_ms: start_ms,
            to_ms: end_ms,
            descending: asked.descending,
            points_max: u16::try_from(POINTS_PER_QUESTION_MAX).unwrap_or(u16::MAX),
        };
        let mut series = BTreeMap::<String, Vec<(i64, Value)>>::new();
        for _ in 0..PAGES_MAX {
            let page = self.door.registry.history(query.clone()).await?;
            let HistoryPage { points, next } = page.ok_or_else(Failed::not_found)?;
            for point in &points {
                for (key, value) in &point.values {
                    let samples = series.entry(key.to_string()).or_default();
                    if samples.len() < limit {
                        samples.push((point.ts_ms, from_core(value)));
                    }
                }
            }
            let full = |key: &String| series.get(key).is_some_and(|found| found.len() >= limit);
            let Some(next) = next.filter(|_| !asked.keys.iter().all(full)) else {
                return Ok(series.into_iter().collect());
            };
            if asked.descending { query.to_ms = next } else { query.from_ms = next }
        }
        Err(too_much())
    }

    async fn aggregated(
        &self,
        tenant: TenantId,
        device: &Text,
        asked: &History,
        wanted: aggregate::Aggregation,
    ) -> Result<Series, Failed> {
        let Range { start_ms, end_ms, interval_ms } = asked.range;
        let query = AggregateQuery {
            tenant,
            device: device.clone(),
            keys: keys(&asked.keys),
            start_ms,
            from_ms: start_ms,
            to_ms: end_ms,
            interval_ms,
        };
        let page = self.door.registry.aggregate(query).await?;
        let AggregatePage { series, next } = page.ok_or_else(Failed::not_found)?;
        if next.is_some() {
            return Err(too_much());
        }
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let shown = series.into_iter().map(|(key, intervals)| {
            let value = |(start, taken): &(i64, aggregate::Taken)| {
                let value = taken.result(wanted)?;
                Some((middle(asked.range, *start), from_core(&value)))
            };
            let mut samples: Vec<_> = intervals.iter().filter_map(value).collect();
            if asked.descending {
                samples.reverse();
            }
            samples.truncate(limit);
            (key.to_string(), samples)
        });
        Ok(shown.collect())
    }
}

/// Whether a device is active, as an attribute.
pub(super) const ACTIVE: &str = "active";
/// For how many milliseconds it may be silent and still be; somebody sets it.
const INACTIVITY_TIMEOUT: &str = "inactivityTimeout";

/// A number of milliseconds that means something.
fn positive(value: &Kept) -> Option<i64> {
    match value {
        Kept::Long(ms) if *ms > 0 => Some(*ms),
        Kept::Long(_) | Kept::Bool(_) | Kept::Double(_) | Kept::Text(_) | Kept::Json(_) => None,
    }
}

/// Since when a device is not active any more; `None`: it is. One with a connection always is. `timeout_ms`: how long it may be silent,
/// in the place of what the tenant says.
pub(super) fn inactive_since(
    known: &PresenceRecord,
    timeout_ms: Option<i64>,
    now_ms: i64,
) -> Option<i64> {
    let ms = |at: UnixMillis| i64::try_from(at.0).unwrap_or(i64::MAX);
    match (known.state, timeout_ms) {
        (PresenceState::Connected, _) | (PresenceState::Active, None) => None,
        (PresenceState::Active | PresenceState::Offline, Some(timeout)) => {
            Some(ms(known.heard).saturating_add(timeout)).filter(|at| *at <= now_ms)
        }
        (PresenceState::Offline, None) => Some(ms(known.since)),
    }
}

/// Attributes of the server that say when a device was there.
fn activity(
    known: Option<&PresenceRecord>,
    timeout_ms: Option<i64>,
    now_ms: i64,
) -> Vec<Attribute> {
    let Some(known) = known else { return Vec::new() };
    let ms = |at: UnixMillis| i64::try_from(at.0).unwrap_or(i64::MAX);
    let attribute =
        |key: &str, value, updated_ms| Attribute { key: key.to_owned(), value, updated_ms };
    let time = |key, at| attribute(key, Value::Long(at), at);
    let inactive = inactive_since(known, timeout_ms, now_ms);
    let active = Value::Bool(inactive.is_none());
    let mut shown = vec![
        attribute(ACTIVE, active, inactive.unwrap_or(ms(known.since))),
        time("lastActivityTime", ms(known.heard)),
    ];
    shown.extend(known.connected.map(|at| time("lastConnectTime", ms(at))));
    shown.extend(known.disconnected.map(|at| time("lastDisconnectTime", ms(at))));
    shown.extend(inactive.map(|at| time("inactivityAlarmTime", at)));
    shown
}

fn unread(why: impl std::fmt::Display) -> Failed {
    Failed::new(ErrorCode::InvalidArguments, why.to_string())
}

fn too_much() -> Failed {
    let why = "more than one answer looks at: ask for a shorter range, or for less of it";
    Failed::new(ErrorCode::BadRequestParams, why)
}

/// The time of what an interval came to: its middle.
fn middle(range: Range, start_ms: i64) -> i64 {
    let end_ms = match i64::try_from(range.interval_ms) {
        Ok(interval) if interval > 0 => start_ms.saturating_add(interval).min(range.end_ms),
        Ok(_) | Err(_) => range.end_ms,
    };
    i64::midpoint(start_ms, end_ms)
}

fn aggregation(asked: Aggregation) -> Option<aggregate::Aggregation> {
    match asked {
        Aggregation::None => None,
        Aggregation::Min => Some(aggregate::Aggregation::Min),
        Aggregation::Max => Some(aggregate::Aggregation::Max),
        Aggregation::Avg => Some(aggregate::Aggregation::Avg),
        Aggregation::Sum => Some(aggregate::Aggregation::Sum),
        Aggregation::Count => Some(aggregate::Aggregation::Count),
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::NodeId;

    use super::*;

    #[test]
    fn a_device_is_active_as_long_as_it_may_be_silent() {
        let known = |state| PresenceRecord {
            born: 1,
            state,
            since: UnixMillis(700),
            links: Vec::new(),
            node: NodeId(1),
            by: 0,
            connected: None,
            disconnected: None,
            heard: UnixMillis(100),
            offline_after_s: 600,
            events: None,
            used: Vec::new(),
        };
        use PresenceState::{Active, Connected, Offline};
        #[rustfmt::skip]
        let table = [
            (Connected, None,      9_000, None),
            (Connected, Some(10),  9_000, None),
            (Active,    None,      9_000, None),
            (Active,    Some(50),  149,   None),
            (Active,    Some(50),  150,   Some(150)),
            (Offline,   None,      9_000, Some(700)),
            (Offline,   Some(10_000), 9_000, None),
        ];
        for (state, timeout_ms, now_ms, expected) in table {
            let since = inactive_since(&known(state), timeout_ms, now_ms);
            assert_eq!(since, expected, "{state:?} {timeout_ms:?} {now_ms}");
        }
        let shown = activity(Some(&known(Offline)), None, 9_000);
        let said = |key: &str| shown.iter().find(|one| one.key == key).map(|one| one.value.clone());
        assert_eq!(said(ACTIVE), Some(Value::Bool(false)));
        assert_eq!(said("inactivityAlarmTime"), Some(Value::Long(700)));
        let there = activity(Some(&known(Active)), None, 9_000);
        assert!(there.iter().all(|one| one.key != "inactivityAlarmTime"));
    }

    #[test]
    fn only_times_are_timeouts() {
        assert_eq!(positive(&Kept::Long(5)), Some(5));
        for other in [Kept::Long(0), Kept::Long(-1), Kept::Bool(true), Kept::Text("5".into())] {
            assert_eq!(positive(&other), None, "{other:?}");
        }
    }

    #[test]
    fn an_interval_has_its_middle_for_a_time() {
        let range = |interval_ms| Range { start_ms: 0, end_ms: 100, interval_ms };
        assert_eq!(middle(range(10), 20), 25);
        assert_eq!(middle(range(30), 90), 95, "the last one ends with the range");
        assert_eq!(middle(range(0), 0), 50, "the whole range is one");
        assert_eq!(middle(range(u64::MAX), 0), 50);
    }
}
