//! What a device measured: its latest values, its history, and values taken together by interval.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use moorline_core::{TenantId, Text, Value};
use moorline_machine::{
    AggregateQuery, HistoryQuery,
    values::{
        HistoryPage,
        aggregate::{Aggregation, interval_start},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value as AnyJson;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    attributes::{keys, shown},
    auth::Caller,
    extract::{Asked, At},
};

/// Points of one answer, if the question does not say.
const POINTS_DEFAULT: u16 = 100;

/// In which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// The newest first.
    #[default]
    Desc,
    /// The oldest first.
    Asc,
}

/// What is made of the values of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Aggregate {
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The mean of numbers.
    Avg,
    /// The sum of numbers.
    Sum,
    /// How many.
    Count,
}

impl From<Aggregate> for Aggregation {
    fn from(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::Min => Self::Min,
            Aggregate::Max => Self::Max,
            Aggregate::Avg => Self::Avg,
            Aggregate::Sum => Self::Sum,
            Aggregate::Count => Self::Count,
        }
    }
}

/// Which values.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Only these, with commas between them.
    keys: Option<String>,
    /// From this time on, in milliseconds since 1970. Without it and `to_ms`: the latest value of each key.
    from_ms: Option<i64>,
    /// The first time behind it; without it until now and beyond.
    to_ms: Option<i64>,
    /// The newest first if it is not said; with `aggregate` the oldest.
    #[param(inline)]
    order: Option<Order>,
    /// How many points, or intervals of each key, at most: 100 if it is not said.
    limit: Option<u16>,
    /// Taken together, by interval.
    #[param(inline)]
    aggregate: Option<Aggregate>,
    /// How long an interval is; without it there is only one.
    interval_ms: Option<u64>,
}

/// A value and its time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// In milliseconds since 1970; of an interval, its start.
    time_ms: i64,
    /// What it was.
    value: AnyJson,
}

/// Values of a device.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TelemetryView {
    /// By key.
    values: BTreeMap<String, Vec<Sample>>,
    /// Where to go on, if there may be more: in the place of `from_ms`, or of `to_ms` when the newest come first.
    next_ms: Option<i64>,
}

impl TelemetryView {
    fn push(&mut self, key: &Text, time_ms: i64, value: &Value) {
        let samples = self.values.entry(key.to_string()).or_default();
        samples.push(Sample { time_ms, value: shown(value) });
    }
}

/// Latest values of a device; with a time, its history; with `aggregate`, that taken together.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/telemetry",
    params(("device" = String, Path, description = "its name"), Which),
    responses(
        (status = 200, description = "they; keys without any are left out", body = TelemetryView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<TelemetryView>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    if which.limit == Some(0) {
        return Err(Problem::malformed("limit: at least 1"));
    }
    let has_range = which.from_ms.is_some() || which.to_ms.is_some();
    let view = match which.aggregate {
        Some(aggregate) => aggregated(&api, (tenant, device), &which, aggregate.into()).await?,
        None if which.interval_ms.is_some() => {
            return Err(Problem::malformed("interval_ms: aggregate says what to make of it"));
        }
        None if has_range => history(&api, (tenant, device), &which).await?,
        None => latest(&api, (tenant, device), &which).await?,
    };
    Ok(Json(view))
}

async fn latest(
    api: &Api,
    (tenant, device): (TenantId, Text),
    which: &Which,
) -> Result<TelemetryView, Problem> {
    let latest = api.registry.latest(tenant, &device, keys(which.keys.as_deref())).await?;
    let latest = latest.ok_or_else(|| Problem::not_found("device"))?;
    let mut view = TelemetryView::default();
    latest.values.iter().for_each(|(key, time_ms, value)| view.push(key, *time_ms, value));
    Ok(view)
}

async fn history(
    api: &Api,
    (tenant, device): (TenantId, Text),
    which: &Which,
) -> Result<TelemetryView, Problem> {
    let query = HistoryQuery {
        tenant,
        device,
        keys: keys(which.keys.as_deref()),
        from_ms: which.from_ms.unwrap_or(i64::MIN),
        to_ms: which.to_ms.unwrap_or(i64::MAX),
        descending: which.order.unwrap_or_default() == Order::Desc,
        points_max: which.limit.unwrap_or(POINTS_DEFAULT),
    };
    let page = api.registry.history(query).await?;
    let HistoryPage { points, next } = page.ok_or_else(|| Problem::not_found("device"))?;
    let mut view = TelemetryView { next_ms: next, ..TelemetryView::default() };
    for point in &points {
        point.values.iter().for_each(|(key, value)| view.push(key, point.ts_ms, value));
    }
    Ok(view)
}

async fn aggregated(
    api: &Api,
    (tenant, device): (TenantId, Text),
    which: &Which,
    aggregation: Aggregation,
) -> Result<TelemetryView, Problem> {
    if which.order == Some(Order::Desc) {
        return Err(Problem::malformed("order: intervals come with the oldest first"));
    }
    let Some(start_ms) = which.from_ms else {
        return Err(Problem::malformed("from_ms: intervals begin somewhere"));
    };
    let interval_ms = which.interval_ms.unwrap_or(0);
    let query = AggregateQuery {
        tenant,
        device,
        keys: keys(which.keys.as_deref()),
        start_ms,
        from_ms: start_ms,
        to_ms: which.to_ms.unwrap_or(i64::MAX),
        interval_ms,
    };
    let page = api.registry.aggregate(query).await?;
    let page = page.ok_or_else(|| Problem::not_found("device"))?;
    // An interval that is not over is told as a whole when it is asked for again.
    let mut next_ms = page.next.map(|next| interval_start(start_ms, interval_ms, next));
    if next_ms == Some(start_ms) {
        let why = "an interval has more points than one answer looks at: ask for shorter ones";
        return Err(Problem::malformed(why));
    }
    let limit = usize::from(which.limit.unwrap_or(POINTS_DEFAULT));
    for (_, intervals) in &page.series {
        let beyond = intervals.get(limit).map(|(start, _)| *start);
        next_ms = next_ms.into_iter().chain(beyond).min();
    }
    let mut view = TelemetryView { next_ms, ..TelemetryView::default() };
    for (key, intervals) in &page.series {
        let within = intervals.iter().filter(|(start, _)| next_ms.is_none_or(|next| *start < next));
        for (start, taken) in within {
            if let Some(value) = taken.result(aggregation) {
                view.push(key, *start, &value);
            }
        }
    }
    Ok(view)
}
