//! Why something did not arrive: what the nodes remember of a device, or of a message, with words.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use moorline_core::{UnixMillis, calendar::rfc3339};
use moorline_explain::{Fingerprint, Note, Place, Route};
use moorline_service::registry::explain::{About, Explained, Noted};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    auth::Caller,
    devices::found,
    extract::{Asked, At},
};

/// How far back it is looked, if nothing is said: an hour.
const BACK_S: u64 = 3_600;

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// The tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// For so many seconds back; an hour without it.
    back_s: Option<u64>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    /// When it began.
    time: String,
    /// When the same happened last, if it happened again.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<String>,
    /// The node that remembers it.
    node: u64,
    /// The device.
    device: String,
    /// `authenticate`, `session`, `publish`, `subscribe`, `unsubscribe`, `deliver`, `settle`, `event`, `mail`, `request` or `end`.
    stage: &'static str,
    /// `done`, `refused`, `dropped`, or `waiting` while it has no answer.
    result: &'static str,
    /// Why, for machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
    /// The topic, filter, session, address or reason.
    about: String,
    /// By what the message is found again at others: see `/api/v1/messages/{message}/explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Which connection of the node's.
    connection: u64,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    /// Bytes of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u32>,
    /// The quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    /// Its offset in the session's queue, or in the tenant's stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Where it went: the first eight places; `count` says how many there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<PlaceView>,
    /// From its beginning to its answer, or its acknowledgement, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
}

/// A place that a message went to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceView {
    /// `shard`: the durable sessions of a shard; `node`: the clean sessions of a node; `kept`: the shard that keeps it for later
    /// subscribers.
    to: &'static str,
    /// Which shard or node.
    id: u64,
    /// As of a note.
    result: &'static str,
    /// Why, for machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
    /// Sessions that wanted it; not known of a node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u32>,
    /// The index of the shard's log at which it is; where the answer had to be asked for again, or before.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
}

impl PlaceView {
    fn of(route: Route) -> Self {
        let Route { place, became, sessions, index } = route;
        let (to, id) = match place {
            Place::Shard(shard) => ("shard", shard.into()),
            Place::Node(node) => ("node", node),
            Place::Kept(shard) => ("kept", shard.into()),
        };
        let cause = became.cause();
        Self {
            to,
            id,
            result: became.label(),
            cause: cause.map(|cause| cause.label()),
            what: cause.map(|cause| cause.what()),
            fix: cause.map(|cause| cause.fix()),
            sessions,
            log_index: index,
        }
    }
}

impl StepView {
    fn of(node: u64, noted: Noted) -> Self {
        let Noted { device, note } = noted;
        let last_time = (note.last().0 > note.at_ms).then(|| rfc3339(note.last()));
        let Note { at_ms, conn, stage, became, about, message, count, bytes, qos, .. } = note;
        let cause = became.cause();
        Self {
            time: rfc3339(UnixMillis(at_ms)),
            last_time,
            node,
            device,
            stage: stage.label(),
            result: became.label(),
            cause: cause.map(|cause| cause.label()),
            what: cause.map(|cause| cause.what()),
            fix: cause.map(|cause| cause.fix()),
            about,
            bytes: message.map(|_| bytes),
            message: message.map(|message| message.to_string()),
            connection: conn,
            count: (count > 0).then_some(count),
            qos,
            offset: note.offset,
            routes: note.routes.into_iter().map(PlaceView::of).collect(),
            took_ms: note.took_us.map(|took| f64::from(took) / 1_000.0),
        }
    }
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainView {
    /// The oldest first, of all nodes.
    notes: Vec<StepView>,
    /// Nodes that did not answer: what they remember is missing.
    silent: Vec<u64>,
    /// Nodes that remember more than fits into an answer.
    more: Vec<MoreView>,
}

/// What is missing of one node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MoreView {
    /// The node.
    node: u64,
    /// How many more notes it has: ask for less time.
    notes: u64,
}

impl ExplainView {
    fn of(explained: Explained) -> Self {
        let Explained { nodes, silent, more } = explained;
        let mut all = Vec::new();
        for (node, notes) in nodes {
            // Of one node's they stay in their order, though parts of a node read its clock at different moments.
            let mut latest: BTreeMap<String, u64> = BTreeMap::new();
            all.extend(notes.into_iter().map(|noted| {
                let latest = latest.entry(noted.device.clone()).or_default();
                *latest = noted.note.at_ms.max(*latest);
                (*latest, node.0, noted)
            }));
        }
        // Stable.
        all.sort_by_key(|(at, ..)| *at);
        let notes = all.into_iter().map(|(_, node, noted)| StepView::of(node, noted)).collect();
        let more = more.into_iter().map(|(node, notes)| MoreView { node: node.0, notes });
        let silent = silent.into_iter().map(|node| node.0).collect();
        Self { notes, silent, more: more.collect() }
    }
}

impl Since {
    fn at(&self, api: &Api) -> UnixMillis {
        let back_ms = self.back_s.unwrap_or(BACK_S).saturating_mul(1_000);
        UnixMillis((api.now)().saturating_sub(back_ms))
    }
}

/// What happened to a device lately: each node remembers its last steps, in memory.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/explain",
    params(("device" = String, Path, description = "its name; of a client without a device its client id"), Since),
    responses(
        (status = 200, description = "what the nodes remember", body = ExplainView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn device(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(since): Asked<Since>,
) -> Result<Json<ExplainView>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, since.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let about = About::Device(device.clone());
    let explained = api.registry.explain(tenant, &about, since.at(&api)).await?;
    let told = ExplainView::of(explained);
    if told.notes.is_empty() {
        // A client of MQTT without a device has notes; a name of which nothing is known is a wrong one.
        found(&api, tenant, &device).await?;
    }
    Ok(Json(told))
}

/// Whom a message touched: who published it, who was sent it, and what became of that.
#[utoipa::path(
    get, path = "/api/v1/messages/{message}/explain",
    params(("message" = String, Path, description = "the `message` of a note: sixteen hexadecimal digits"), Since),
    responses(
        (status = 200, description = "what the nodes remember", body = ExplainView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn message(
    State(api): State<Api>,
    caller: Caller,
    At(message): At<String>,
    Asked(since): Asked<Since>,
) -> Result<Json<ExplainView>, Problem> {
    let (tenant, _) = caller.tenant(&api, since.tenant.as_deref()).await?;
    let why = "message: sixteen hexadecimal digits, as a note of a device says them";
    let message = Fingerprint::read(&message).ok_or_else(|| Problem::malformed(why))?;
    let about = About::Message(message);
    let explained = api.registry.explain(tenant, &about, since.at(&api)).await?;
    Ok(Json(ExplainView::of(explained)))
}
