//! Events: reported on behalf of a device, and streamed to applications.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body as StreamBody,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use moorline_core::{TenantId, Text};
use moorline_machine::events::{EVENT_CHANNEL_BYTES_MAX, EventKind};
use moorline_service::registry::{
    Cursor, NewEvent,
    cloud_event::{self, JSON, NOTHING},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    consumers::group_name,
    devices::{device_name, found},
    extract::{Asked, At, Body},
    tail::{Filter, Tail},
    tokens::OfTenant,
};

/// What comes in front of a kind in the `type` of a CloudEvent.
const TYPE_PREFIX: &str = "moorline.";
/// By which protocol: see [`moorline_service::registry::door::By`].
const BY_API: u8 = 0;

/// What may be reported on behalf of a device; the rest only the cluster itself says.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReportedKind {
    /// Telemetry.
    Datapoint,
    /// A message to applications.
    Message,
    /// How the device is.
    State,
}

/// An event to be reported.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// What kind of news.
    #[serde(rename = "type")]
    kind: ReportedKind,
    /// Which of that kind: a schema's name, a topic; or none.
    #[serde(default)]
    #[schema(example = "env")]
    channel: String,
    /// Any JSON.
    #[serde(default)]
    data: Option<Value>,
}

/// An event that is synced on a majority.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reported {
    /// Its id in the stream.
    #[schema(example = "3-17")]
    id: String,
    /// Its time, in milliseconds since 1970.
    time_ms: u64,
}

/// Which events, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Only those of this device.
    device: Option<String>,
    /// Only `datapoint`, `message`, `system`, `presence`, `mail` or `state`; also `presence.offline`, `mail.acked`, ….
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those of this channel.
    channel: Option<String>,
    /// From where this consumer group has committed; from the oldest event, if it never did.
    group: Option<String>,
    /// From behind this cursor, as the header `Last-Event-ID` says it otherwise; before `group`.
    after: Option<String>,
}

/// Reports an event on behalf of a device: 201 when it is synced on a majority.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/events",
    params(("device" = String, Path, description = "its name"), OfTenant), request_body = Report,
    responses(
        (status = 201, description = "it is in the stream", body = Reported),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn report(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    Body(report): Body<Report>,
) -> Result<(StatusCode, Json<Reported>), Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let Report { kind, channel, data } = report;
    if channel.len() > EVENT_CHANNEL_BYTES_MAX || channel.chars().any(char::is_control) {
        let why = "a channel has at most 1024 bytes, and no control characters";
        return Err(Problem::malformed(why));
    }
    let record = found(&api, tenant, &device).await?;
    if !record.enabled {
        return Err(Problem::forbidden("the device is disabled"));
    }
    let (content_type, body) = match data {
        None | Some(Value::Null) => (NOTHING, Vec::new()),
        Some(data) => (JSON, serde_json::to_vec(&data).expect("it was JSON")),
    };
    let event = NewEvent {
        born: Some(record.born),
        kind: match kind {
            ReportedKind::Datapoint => EventKind::Datapoint,
            ReportedKind::Message => EventKind::Message,
            ReportedKind::State => EventKind::State,
        },
        channel: Text::from(channel),
        content_type,
        body: body.into(),
        by: BY_API,
    };
    let place = api.registry.append_event(tenant, &device, event).await?;
    let id = cloud_event::id(place.shard, place.offset.0);
    Ok((StatusCode::CREATED, Json(Reported { id, time_ms: place.at.0 })))
}

/// A tenant's events as they come, as server-sent events: each a CloudEvent in JSON, its `id` the cursor behind it. Goes on
/// behind `Last-Event-ID`, else behind `after`, else where `group` has committed, else with what comes from now on.
#[utoipa::path(
    get, path = "/api/v1/events", params(Which),
    responses(
        (status = 200, description = "it lasts; a comment every 15 s says that it lives", body = String, content_type = "text/event-stream"),
        (status = 503, description = "too many read events at this node", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream(
    State(api): State<Api>,
    caller: Caller,
    Asked(which): Asked<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, record) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    if !caller.scope.is_all() {
        let wanted = || Problem::forbidden("?device=… says which of its devices this token means");
        // A consumer group is all devices' of its tenant.
        let one = which.device.as_deref().filter(|_| which.group.is_none()).ok_or_else(wanted)?;
        caller.device(&api, tenant, one).await?;
    }
    let filter = filter(&which)?;
    let reading = api.registry.begin_reading(tenant)?;
    let from = match headers.get("last-event-id") {
        Some(id) => Some(id.to_str().unwrap_or_default()),
        None => which.after.as_deref(),
    };
    let cursor = first(&api, tenant, from, which.group.as_deref()).await?;
    let name = record.name.to_string();
    let tail = Tail::begin(api, caller, (tenant, name), filter, cursor, reading);
    let chunks = stream::unfold(tail, |mut tail| async {
        let chunk = tail.next().await?;
        Some((Ok::<_, Infallible>(chunk), tail))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, StreamBody::from_stream(chunks)).into_response())
}

fn filter(which: &Which) -> Result<Filter, Problem> {
    let mut channel = which.channel.as_deref().map(Text::from);
    let kind = match &which.kind {
        None => None,
        Some(name) => {
            let mut name = name.strip_prefix(TYPE_PREFIX).unwrap_or(name);
            // `presence.offline`, as the cluster's own events are called.
            if let Some((kind, what)) = name.split_once('.') {
                name = kind;
                channel = Some(Text::from(what));
            }
            let known = EventKind::ALL.into_iter().find(|kind| kind.name() == name);
            Some(known.ok_or_else(|| Problem::malformed("type: there is no such kind of event"))?)
        }
    };
    let device = which.device.as_deref().map(device_name).transpose()?;
    Ok(Filter { device, kind, channel })
}

/// Where a stream begins.
async fn first(
    api: &Api,
    tenant: TenantId,
    from: Option<&str>,
    group: Option<&str>,
) -> Result<Cursor, Problem> {
    if let Some(text) = from {
        let cursor = api.registry.cursor(text);
        let cursor =
            cursor.ok_or_else(|| Problem::malformed("a cursor is the `id` of an event"))?;
        // Behind the end it would say nothing for a long time, and leave out what comes.
        let newest = api.registry.newest(tenant).await?;
        if cursor.shards().any(|(shard, offset)| offset > newest.of(shard)) {
            return Err(Problem::malformed("the cursor is behind the last event of this tenant"));
        }
        return Ok(cursor);
    }
    match group {
        Some(name) => Ok(api.registry.committed(tenant, &group_name(name)?).await?),
        None => Ok(api.registry.newest(tenant).await?),
    }
}
