//! The WebSocket of the API: commands, in the present form and an older one, and what is pushed.

use serde::Deserialize;
use serde_json::Value as AnyValue;
use thiserror::Error;

use super::{
    aggregation::{Aggregation, Range},
    finding::{self, DataCommand, Sought},
    telemetry::{LIMIT_DEFAULT, LIMIT_MAX, shown},
};
use crate::thingsboard::{
    attributes::{Scope, keys},
    json::Json,
    values::Value,
};

/// The most commands of one message.
pub const COMMANDS_MAX: usize = 1_000;
/// The close code for who did not say who it is, or asks for more than it may.
pub const CLOSE_POLICY: u16 = 1008;
/// The close code for when the server goes.
pub const CLOSE_AWAY: u16 = 1001;
/// Where it is.
pub const PATH: &str = "/api/ws";
/// Where the older form is, whose URL says who connects (`?token=`).
pub const PATH_OLD: &str = "/api/ws/plugins/telemetry";
/// The id of what is no command, in a failure.
pub const NO_COMMAND: i64 = 0;

/// Why a subscription gets nothing. The numbers are the vendor's: they are others than those of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SubscriptionError {
    /// Something failed.
    Internal = 1,
    /// What was asked for can't be.
    BadRequest = 2,
    /// Not for this user.
    Unauthorized = 3,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Echoed nowhere; there because all commands have one.
    #[serde(default)]
    pub cmd_id: i64,
    /// A token of the API.
    pub token: Option<String>,
    /// Or a key.
    pub api_key: Option<String>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who connects. Needed first, unless the URL has said it.
    pub auth: Option<Auth>,
    /// What is wanted.
    pub commands: Vec<Command>,
}

/// Something that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What its pushes are known by.
    pub id: i64,
    /// What it is.
    pub kind: Kind,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Attributes, and their changes.
    Attributes {
        /// Of whom.
        entity: Entity,
        /// Of which scope; `None`: of all.
        scope: Option<Scope>,
        /// Which; none: all.
        keys: Vec<String>,
    },
    /// The last samples, and new ones.
    Timeseries {
        /// Of whom.
        entity: Entity,
        /// Of which keys; none: of all.
        keys: Vec<String>,
        /// Past ones first.
        past: Option<Past>,
    },
    /// Past samples, once.
    History {
        /// Of whom.
        entity: Entity,
        /// Of which keys.
        keys: Vec<String>,
        /// Which.
        past: Past,
    },
    /// A page of devices, and what changes of them.
    Data(Box<DataCommand>),
    /// How many devices there are, and how many there are then.
    Count(Sought),
    /// Devices that can't be found so.
    Unfound {
        /// Whether it wanted to know how many there are.
        counts: bool,
        /// Why not.
        why: String,
    },
    /// No more of the command with this id.
    Unsubscribe,
    /// Something that is not offered; its type.
    Unsupported(String),
}

/// Whom a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// `DEVICE`
    pub entity_type: String,
    /// Its UUID as text.
    pub id: String,
}

/// Which past samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// From when until when.
    pub range: Range,
    /// What is made of an interval's samples.
    pub aggregation: Aggregation,
    /// How many of a key.
    pub limit: u64,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotAMessage {
    /// It is no JSON, or of another shape.
    #[error("Failed to parse the command")]
    Shape,
    /// More than [`COMMANDS_MAX`] commands.
    #[error("too many commands")]
    TooMany,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawMessage {
    auth_cmd: Option<Auth>,
    cmds: Option<Vec<RawCommand>>,
    ts_sub_cmds: Option<Vec<RawCommand>>,
    history_cmds: Option<Vec<RawCommand>>,
    attr_sub_cmds: Option<Vec<RawCommand>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawCommand {
    cmd_id: Option<i64>,
    #[serde(rename = "type")]
    kind: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
    scope: Option<String>,
    keys: Option<String>,
    start_ts: Option<i64>,
    end_ts: Option<i64>,
    time_window: Option<i64>,
    interval: Option<u64>,
    limit: Option<u64>,
    agg: Option<String>,
    unsubscribe: Option<bool>,
    query: Option<AnyValue>,
    latest_cmd: Option<AnyValue>,
    ts_cmd: Option<AnyValue>,
    history_cmd: Option<AnyValue>,
    agg_history_cmd: Option<AnyValue>,
    agg_ts_cmd: Option<AnyValue>,
}

/// The time that a command wants, as it stands in it or in a part of it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawWindow {
    start_ts: Option<i64>,
    end_ts: Option<i64>,
    time_window: Option<i64>,
    interval: Option<u64>,
    limit: Option<u64>,
    agg: Option<String>,
}

impl RawCommand {
    fn window(&self) -> RawWindow {
        let Self { start_ts, end_ts, time_window, interval, limit, .. } = *self;
        RawWindow { start_ts, end_ts, time_window, interval, limit, agg: self.agg.clone() }
    }
}

/// Reads a message of text. `now_ms`: where a time window ends.
///
/// # Errors
///
/// [`NotAMessage`].
pub fn read(text: &str, now_ms: i64) -> Result<Message, NotAMessage> {
    // As a value first: of a key that stands twice the last counts, as everywhere.
    let json: AnyValue = serde_json::from_str(text).map_err(|_| NotAMessage::Shape)?;
    // Serde would take an array for the fields in their order.
    if !json.is_object() {
        return Err(NotAMessage::Shape);
    }
    let raw: RawMessage = serde_json::from_value(json).map_err(|_| NotAMessage::Shape)?;
    let typed = |kind: &str, commands: Option<Vec<RawCommand>>| {
        let kind = kind.to_owned();
        commands.into_iter().flatten().map(move |command| (Some(kind.clone()), command))
    };
    let present = raw.cmds.into_iter().flatten().map(|command| (command.kind.clone(), command));
    let all = present
        .chain(typed("TIMESERIES", raw.ts_sub_cmds))
        .chain(typed("TIMESERIES_HISTORY", raw.history_cmds))
        .chain(typed("ATTRIBUTES", raw.attr_sub_cmds));
    let commands = all.take(COMMANDS_MAX + 1).map(|(kind, raw)| command(kind, raw, now_ms));
    let commands = commands.collect::<Result<Vec<_>, _>>()?;
    if commands.len() > COMMANDS_MAX {
        return Err(NotAMessage::TooMany);
    }
    Ok(Message { auth: raw.auth_cmd, commands })
}

fn command(kind: Option<String>, raw: RawCommand, now_ms: i64) -> Result<Command, NotAMessage> {
    let id = raw.cmd_id.unwrap_or(0);
    if raw.unsubscribe == Some(true) {
        return Ok(Command { id, kind: Kind::Unsubscribe });
    }
    let keys = keys(raw.keys.as_deref()).map_err(|_| NotAMessage::Shape)?;
    let kind = kind.ok_or(NotAMessage::Shape)?;
    if let Some(kind) = found(&kind, &raw, now_ms) {
        return Ok(Command { id, kind });
    }
    let entity = match (&raw.entity_type, &raw.entity_id) {
        (Some(entity_type), Some(id)) => {
            Some(Entity { entity_type: entity_type.clone(), id: id.clone() })
        }
        _ => None,
    };
    let entity = entity.ok_or(NotAMessage::Shape);
    let kind = match kind.as_str() {
        "ATTRIBUTES" => Kind::Attributes {
            entity: entity?,
            scope: match raw.scope.as_deref() {
                None | Some("" | "ANY_SCOPE") => None,
                Some(name) => Some(Scope::by_name(name).ok_or(NotAMessage::Shape)?),
            },
            keys,
        },
        "TIMESERIES" => {
            Kind::Timeseries { entity: entity?, keys, past: window(&raw.window(), now_ms)? }
        }
        "TIMESERIES_HISTORY" => {
            let past = window(&raw.window(), now_ms)?.ok_or(NotAMessage::Shape)?;
            Kind::History { entity: entity?, keys, past }
        }
        _ => Kind::Unsupported(kind),
    };
    Ok(Command { id, kind })
}

/// A command that finds devices; `None` if it is another one.
fn found(kind: &str, raw: &RawCommand, now_ms: i64) -> Option<Kind> {
    let counts = match kind {
        "ENTITY_DATA" => false,
        "ENTITY_COUNT" => true,
        "ENTITY_DATA_UNSUBSCRIBE" | "ENTITY_COUNT_UNSUBSCRIBE" => return Some(Kind::Unsubscribe),
        _ => return None,
    };
    let read = match counts {
        true => {
            let query = raw.query.as_ref().ok_or_else(|| "query is needed".to_owned());
            query.and_then(finding::sought).map(Kind::Count)
        }
        false => data(raw, now_ms).map(|data| Kind::Data(Box::new(data))),
    };
    Some(read.unwrap_or_else(|why| Kind::Unfound { counts, why }))
}

/// Of which keys samples are wanted, and of which time.
fn series(json: Option<AnyValue>, now_ms: i64) -> Result<Option<(Vec<String>, Past)>, String> {
    let Some(json) = json else { return Ok(None) };
    let keys = finding::series_keys(&json)?;
    let unread = "the time of a command can't be read";
    let raw: RawWindow = serde_json::from_value(json).map_err(|_| unread.to_owned())?;
    let past = window(&raw, now_ms).map_err(|_| unread.to_owned())?;
    let past = past.ok_or("startTs and endTs, or timeWindow, are needed")?;
    Ok(Some((keys, past)))
}

fn data(raw: &RawCommand, now_ms: i64) -> Result<DataCommand, String> {
    let said = |json: &Option<AnyValue>| json.clone().filter(|json| !json.is_null());
    if said(&raw.agg_history_cmd).or(said(&raw.agg_ts_cmd)).is_some() {
        return Err("aggHistoryCmd and aggTsCmd are not served".to_owned());
    }
    let latest = said(&raw.latest_cmd);
    let command = DataCommand {
        finding: said(&raw.query).as_ref().map(finding::finding).transpose()?,
        latest: finding::wanted(latest.as_ref().and_then(|latest| latest.get("keys")))?,
        series: series(said(&raw.ts_cmd), now_ms)?,
        past: series(said(&raw.history_cmd), now_ms)?,
    };
    let nothing = command.latest.is_empty() && command.series.is_none() && command.past.is_none();
    if command.finding.is_none() && nothing {
        return Err("query is needed".to_owned());
    }
    Ok(command)
}

/// The past that a command wants: a time window up to now, or from and until when.
fn window(raw: &RawWindow, now_ms: i64) -> Result<Option<Past>, NotAMessage> {
    let window = raw.time_window.filter(|window| *window > 0);
    let (start_ms, end_ms) = match (raw.start_ts.filter(|start| *start > 0), raw.end_ts, window) {
        (Some(start), Some(end), _) if end > 0 => (start, end),
        (Some(start), _, Some(window)) => (start, start.saturating_add(window)),
        (None, _, Some(window)) => (now_ms.saturating_sub(window), now_ms),
        _ => return Ok(None),
    };
    let name = raw.agg.as_deref().filter(|name| !name.is_empty()).unwrap_or("NONE");
    let limit = raw.limit.filter(|limit| *limit > 0).unwrap_or(LIMIT_DEFAULT);
    Ok(Some(Past {
        range: Range { start_ms, end_ms, interval_ms: raw.interval.unwrap_or(0) },
        aggregation: Aggregation::by_name(name).ok_or(NotAMessage::Shape)?,
        limit: limit.min(LIMIT_MAX),
    }))
}

/// Samples for a subscription: `{"subscriptionId":1,"errorCode":0,"errorMsg":null,"data":{"t":[[1,"25"]]}}`.
#[must_use]
pub fn push(id: i64, series: &[(String, Vec<(i64, Value)>)]) -> Json {
    let sample =
        |(ts_ms, value): &(i64, Value)| Json::Array(vec![Json::from(*ts_ms), shown(value, false)]);
    let series = series
        .iter()
        .map(|(key, samples)| (key.clone(), Json::Array(samples.iter().map(sample).collect())));
    update(id, 0, Json::Null, Json::Object(series.collect()))
}

/// Why a subscription gets nothing.
#[must_use]
pub fn refused(id: i64, code: SubscriptionError, message: &str) -> Json {
    update(id, i64::from(code as u8), Json::from(message), Json::Object(Vec::new()))
}

fn update(id: i64, code: i64, message: Json, data: Json) -> Json {
    Json::object([
        ("subscriptionId", Json::from(id)),
        ("errorCode", Json::from(code)),
        ("errorMsg", message),
        ("data", data),
    ])
}
