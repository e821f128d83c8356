//! Calls to devices: made and waited for, or kept and looked at later; taken back.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use moorline_core::{CallState, Text};
use moorline_machine::calls::{
    CALL_INFO_BYTES_MAX, CALL_METHOD_BYTES_MAX, CALL_PARAMS_BYTES_MAX, CALLS_PER_PAGE_MAX, Call,
    Deadline, NewCall as Making,
};
use moorline_service::registry::CallMade;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    devices::found,
    extract::{Asked, At, Body},
    mail::mail_id,
    repeats::OfKey,
    tokens::OfTenant,
};

/// How long a call may take that does not say it.
const TIMEOUT_MS: u64 = 10_000;
/// How long a call may take that is waited for: a connection is held for it.
const WAITED_MS_MAX: u64 = 60_000;
/// How long any call may take: 30 days.
const TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// How long a call is kept after its end that does not say it: a minute if it was waited for, a day if not.
const KEEP_WAITED_S: u64 = 60;
const KEEP_S: u64 = 24 * 3_600;
/// How long any call may be kept: 30 days.
const KEEP_S_MAX: u64 = 30 * 24 * 3_600;
/// How often a call is sent again that does not say it.
const RESENDS: u32 = 5;
/// How often any call may be sent again.
const RESENDS_MAX: u32 = 100;

/// A call to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCall {
    /// What to do: 1 to 255 bytes.
    #[schema(example = "reboot")]
    method: String,
    /// With what: any JSON of at most 64 KiB.
    #[serde(default)]
    params: Option<Value>,
    /// Whether no answer is wanted: it ends when the device has it.
    #[serde(default)]
    one_way: bool,
    /// Milliseconds until it expires: 10,000 if it is not said. At most 60,000 if it is waited for, 30 days if not.
    #[serde(default)]
    #[schema(minimum = 1)]
    timeout_ms: Option<u64>,
    /// Wait for the outcome; otherwise it is kept, and asked for later.
    #[serde(default)]
    wait: bool,
    /// Seconds it is kept after its end: a minute if it is waited for, a day if not, at most 30 days.
    #[serde(default)]
    keep_s: Option<u64>,
    /// How often it is sent again if the device does not acknowledge it: 5 if it is not said, at most 100.
    #[serde(default)]
    resends: Option<u32>,
    /// Any JSON of at most 16 KiB, for who asks for the call later.
    #[serde(default)]
    info: Option<Value>,
    /// A UUIDv7 of the maker's: the same again is a repeat and changes nothing. Without it one is made.
    #[serde(default)]
    id: Option<Uuid>,
}

/// A call that is synced on a majority.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeCall {
    /// Its id.
    id: Uuid,
    /// Its number at the device.
    number: i32,
    /// How it stands: see `CallView`.
    state: &'static str,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// The id was known: nothing changed.
    repeat: bool,
}

/// A call, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallView {
    /// Its id.
    id: Uuid,
    /// Its number at the device.
    number: i32,
    /// What to do.
    method: String,
    /// With what.
    params: Value,
    /// Whether no answer is wanted.
    one_way: bool,
    /// `queued`, `sent`, `timeout` (it is sent again), `delivered`, `successful`, `failed` or `expired`.
    state: &'static str,
    /// What the device answered, if it did; a text if that is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Value>,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// When it expires.
    expires_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    /// How often it was sent again.
    resends: u32,
    /// What its maker added.
    #[serde(skip_serializing_if = "Value::is_null")]
    info: Value,
}

/// Some calls of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallList {
    /// The newest first.
    calls: Vec<CallView>,
    /// `?before=` for the next page; absent in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i32>,
}

/// Which calls.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Only those that stand so, with commas between the states.
    #[param(example = "queued,sent")]
    states: Option<String>,
    /// `next` of the page before.
    #[param(minimum = 1)]
    before: Option<i32>,
    /// At most so many: 1 to 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u16>,
}

impl Which {
    fn states(&self) -> Result<Vec<CallState>, Problem> {
        let names = self.states.as_deref().into_iter().flat_map(|names| names.split(','));
        let state = |name| {
            let wrong = || Problem::malformed("states: queued, sent, timeout, delivered, …");
            CallState::by_name(name).ok_or_else(wrong)
        };
        names.map(state).collect()
    }

    fn limit(&self) -> Result<u16, Problem> {
        let most = u16::try_from(CALLS_PER_PAGE_MAX).unwrap_or(u16::MAX);
        let limit = self.limit.unwrap_or(most);
        let fits = (1..=most).contains(&limit);
        if fits { Ok(limit) } else { Err(Problem::malformed("limit: 1 to 100")) }
    }

    fn before(&self) -> Result<i32, Problem> {
        let wrong = || Problem::malformed("before: what the page before said under `next`");
        match self.before {
            None => Ok(0),
            Some(before) => Some(before).filter(|before| *before > 0).ok_or_else(wrong),
        }
    }
}

/// JSON as it is kept; nothing of `null`.
fn bytes_of(json: Option<&Value>) -> Bytes {
    let json = json.filter(|json| !json.is_null());
    json.map_or_else(Bytes::new, |json| serde_json::to_vec(json).expect("it was JSON").into())
}

/// What was kept as JSON, or a text.
fn json_of(bytes: &Bytes) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    let text = || Value::from(String::from_utf8_lossy(bytes));
    serde_json::from_slice(bytes).unwrap_or_else(|_| text())
}

impl NewCall {
    fn checked(&self, id: Uuid) -> Result<Making, Problem> {
        let (method, params) = (Text::from(self.method.as_str()), bytes_of(self.params.as_ref()));
        let info = bytes_of(self.info.as_ref());
        if method.is_empty() || method.len() > CALL_METHOD_BYTES_MAX {
            return Err(Problem::malformed("method: 1 to 255 bytes"));
        }
        let too_large =
            |what: &str| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", what.to_owned());
        if params.len() > CALL_PARAMS_BYTES_MAX {
            return Err(too_large("params: at most 64 KiB"));
        }
        if info.len() > CALL_INFO_BYTES_MAX {
            return Err(too_large("info: at most 16 KiB"));
        }
        let within = |value, max, why| match value {
            value if value <= max => Ok(value),
            _ => Err(Problem::malformed(why)),
        };
        let (most, keep_s, why) = match self.wait {
            true => (WAITED_MS_MAX, KEEP_WAITED_S, "timeout_ms: 1 to 60,000 for who waits"),
            false => (TIMEOUT_MS_MAX, KEEP_S, "timeout_ms: at least 1, at most 30 days"),
        };
        let timeout_ms = within(self.timeout_ms.unwrap_or(TIMEOUT_MS), most, why)?;
        if timeout_ms == 0 {
            return Err(Problem::malformed(why));
        }
        let why = "keep_s: at most 30 days";
        let keep_s = within(self.keep_s.unwrap_or(keep_s), KEEP_S_MAX, why)?;
        let resends = u64::from(self.resends.unwrap_or(RESENDS));
        let resends = within(resends, u64::from(RESENDS_MAX), "resends: at most 100")?;
        Ok(Making {
            id: id.as_u128(),
            method,
            params,
            one_way: self.one_way,
            info,
            resends_max: u32::try_from(resends).unwrap_or(RESENDS_MAX),
            deadline: Deadline::After(timeout_ms),
            keep_ms: keep_s * 1_000,
        })
    }
}

fn view(call: &Call) -> CallView {
    CallView {
        id: Uuid::from_u128(call.id),
        number: call.number,
        method: call.method.to_string(),
        params: json_of(&call.params),
        one_way: call.one_way,
        state: call.state.name(),
        answer: call.answer.as_ref().map(json_of),
        created_ms: call.created.0,
        expires_ms: call.until.0,
        ended_ms: call.ended.map(|at| at.0),
        resends: call.resends,
        info: json_of(&call.info),
    }
}

fn id(text: &str) -> Result<u128, Problem> {
    Uuid::parse_str(text).map(|id| id.as_u128()).map_err(|_| Problem::not_found("call"))
}

/// Calls a device: 201 when that is synced on a majority; with `wait`, 200 with its outcome.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/calls",
    params(("device" = String, Path, description = "its name"), OfTenant), request_body = NewCall,
    responses(
        (status = 200, description = "it has ended, also when it failed or expired: see its state", body = CallView),
        (status = 201, description = "it waits for the device", body = MadeCall),
        (status = 507, description = "too many calls are open already", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn make(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    key: OfKey,
    headers: HeaderMap,
    Body(new): Body<NewCall>,
) -> Result<Response, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let record = found(&api, tenant, &device).await?;
    let id = mail_id(&api, new.id, key, &headers)?;
    let call = new.checked(id)?;
    if new.wait {
        let call = api.registry.call_and_wait(tenant, &device, Some(record.born), call).await?;
        return Ok(Json(view(&call)).into_response());
    }
    let made = api.registry.make_call(tenant, &device, Some(record.born), call).await?;
    let CallMade { number, at, state, repeat, .. } = made;
    let made = MadeCall { id, number, state: state.name(), created_ms: at.0, repeat };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// The calls of a device that are open or kept, the newest first.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/calls",
    params(("device" = String, Path, description = "its name"), Which),
    responses(
        (status = 200, description = "a page", body = CallList),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<CallList>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let (states, before, limit) = (which.states()?, which.before()?, which.limit()?);
    let page = api.registry.calls_of(tenant, &device, states, before, limit).await?;
    let page = page.ok_or_else(|| Problem::not_found("device"))?;
    let next = page.calls.last().map(|call| call.number).filter(|_| page.more);
    Ok(Json(CallList { calls: page.calls.iter().map(view).collect(), next }))
}

/// One call, as long as it is open or kept.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/calls/{call}",
    params(("device" = String, Path, description = "its name"), ("call" = String, Path, description = "its id"), OfTenant),
    responses(
        (status = 200, description = "it", body = CallView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At((name, call)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<CallView>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let found = api.registry.call(tenant, &device, id(&call)?).await?;
    Ok(Json(view(&found.ok_or_else(|| Problem::not_found("call"))?)))
}

/// Takes a call back, however it stands. A device that has it may carry it out all the same.
#[utoipa::path(
    delete, path = "/api/v1/devices/{device}/calls/{call}",
    params(("device" = String, Path, description = "its name"), ("call" = String, Path, description = "its id"), OfTenant),
    responses(
        (status = 204, description = "nothing is remembered of it"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    At((name, call)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    api.registry.delete_call(tenant, &device, id(&call)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(body: Value) -> Result<Making, Problem> {
        let new: NewCall = serde_json::from_value(body).unwrap();
        new.checked(Uuid::from_u128(7))
    }

    #[test]
    fn a_call_that_says_little_is_one() {
        let call = checked(json!({ "method": "reboot" })).unwrap();
        assert_eq!((call.id, call.method.as_str(), call.one_way), (7, "reboot", false));
        assert_eq!((call.params.len(), call.info.len(), call.resends_max), (0, 0, 5));
        assert_eq!((call.deadline, call.keep_ms), (Deadline::After(10_000), 86_400_000));
        let waited = checked(json!({ "method": "m", "params": [1], "wait": true })).unwrap();
        assert_eq!((&waited.params[..], waited.keep_ms), (&b"[1]"[..], 60_000));
    }

    #[test]
    fn what_a_call_may_not_say_is_refused() {
        let of = |more: Value| {
            let mut body = json!({ "method": "m" });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            checked(body)
        };
        #[rustfmt::skip]
        let table = [
            (json!({ "method": "m".repeat(255) }),                 true),
            (json!({ "method": "" }),                              false),
            (json!({ "method": "m".repeat(256) }),                 false),
            (json!({ "timeout_ms": 0 }),                           false),
            (json!({ "timeout_ms": 60_000, "wait": true }),        true),
            (json!({ "timeout_ms": 60_001, "wait": true }),        false),
            (json!({ "timeout_ms": 60_001 }),                      true),
            (json!({ "timeout_ms": TIMEOUT_MS_MAX + 1 }),          false),
            (json!({ "keep_s": KEEP_S_MAX }),                      true),
            (json!({ "keep_s": u64::MAX }),                        false),
            (json!({ "resends": 100 }),                            true),
            (json!({ "resends": 101 }),                            false),
            (json!({ "params": "p".repeat(64 * 1024 - 2) }),       true),
            (json!({ "params": "p".repeat(64 * 1024 - 1) }),       false),
            (json!({ "info": "i".repeat(16 * 1024 - 1) }),         false),
        ];
        for (more, fits) in table {
            assert_eq!(of(more.clone()).is_ok(), fits, "{more}");
        }
    }

    #[test]
    fn what_is_no_json_is_shown_as_text() {
        let shown = |bytes: &'static [u8]| json_of(&Bytes::from_static(bytes));
        assert_eq!(shown(b""), Value::Null);
        assert_eq!(shown(b"{\"ok\":1}"), json!({ "ok": 1 }));
        assert_eq!(shown(b"it is done"), json!("it is done"));
    }

    #[test]
    fn a_page_of_calls_is_asked_for_with_sense() {
        let which = |states: Option<&str>, before, limit| Which {
            tenant: None,
            states: states.map(str::to_owned),
            before,
            limit,
        };
        let both = which(Some("queued,sent"), Some(3), Some(5));
        assert_eq!(both.states().unwrap(), [CallState::Queued, CallState::Sent]);
        assert_eq!((both.before().unwrap(), both.limit().unwrap()), (3, 5));
        let all = which(None, None, None);
        assert_eq!((all.states().unwrap(), all.before().unwrap()), (Vec::new(), 0));
        assert_eq!(all.limit().unwrap(), 100);
        let wrong = which(Some("QUEUED"), Some(0), Some(101));
        assert!(wrong.states().is_err() && wrong.before().is_err() && wrong.limit().is_err());
    }
}
