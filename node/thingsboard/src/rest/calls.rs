//! Calls to devices: made and waited for, or kept and asked for later.

use std::time::Duration;

use bytes::Bytes;
use moorline_core::{CallState, TenantId, Text};
use moorline_dialects::thingsboard::query::{Query, WrongParameter};
use moorline_dialects::thingsboard::rest::{
    calls::{Kept, Outcome, Request, Route, respond, state_by_name},
    entities::{Page, PageQuery},
    errors::ErrorCode,
    ids::{self, DevicePlace},
};
use moorline_http::Head;
use moorline_machine::calls::{
    CALL_INFO_BYTES_MAX, CALL_PARAMS_BYTES_MAX, CALLS_PER_PAGE_MAX, Call, Deadline, NewCall,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Failed, Reply, Rest,
    auth::Integrator,
    devices::{Row, device_id, place},
    telemetry::inactive_since,
};

/// How long a call that is kept stays after its end.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The same of one that somebody waited for.
const WAITED: Duration = Duration::from_secs(60);
/// How long any call may take.
const WAIT_MAX_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How long a call may take that is waited for: a connection is held for it.
const WAITED_MS_MAX: u64 = 300_000;

impl Rest {
    pub(super) async fn calls(
        &self,
        who: &Integrator,
        route: Route,
        head: &Head,
        body: &Bytes,
    ) -> Result<Reply, Failed> {
        match route {
            Route::Call { version, one_way, device } => {
                let row = self.find(who.tenant, device).await?;
                let request = Request::read(body, self.now_ms())?;
                let outcome = self.call(who.tenant, row, one_way, request).await?;
                let (status, body) = respond(version, &outcome);
                Ok(Reply::of(status, body))
            }
            Route::Get(id) => {
                let (row, call) = self.kept(who.tenant, id).await?;
                Ok(Reply::json(&shown(who.tenant, &row, &call).to_json()))
            }
            Route::List(device) => {
                let row = self.find(who.tenant, device).await?;
                let query = Query::of(head.query().unwrap_or_default())?;
                self.calls_of(who.tenant, &row, &query).await
            }
            Route::Delete(id) => {
                let ((device, _), call) = self.kept(who.tenant, id).await?;
                self.door.registry.delete_call(who.tenant, &device, call.id).await?;
                Ok(Reply::nothing())
            }
        }
    }

    async fn call(
        &self,
        tenant: TenantId,
        (device, record): Row,
        one_way: bool,
        request: Request,
    ) -> Result<Outcome, Failed> {
        let id = ids::of_part(place(tenant, &device, &record), rand::random());
        let (persistent, born) = (request.persistent, Some(record.born));
        let call = self.new_call(id, one_way, request)?;
        if persistent {
            self.door.registry.make_call(tenant, &device, born, call).await?;
            return Ok(Outcome::Kept(id));
        }
        let call = self.door.registry.call_and_wait(tenant, &device, born, call).await?;
        let outcome = outcome(&call);
        if outcome != Outcome::TimedOut {
            return Ok(outcome);
        }
        let known = self.presence_of(tenant, &device, record.born).await?;
        let is_there =
            known.is_some_and(|known| inactive_since(&known, None, self.now_ms()).is_none());
        Ok(if is_there { outcome } else { Outcome::NoConnection })
    }

    fn new_call(&self, id: Uuid, one_way: bool, request: Request) -> Result<NewCall, Failed> {
        let too_large = |why: &str| Failed::new(ErrorCode::InvalidArguments, why);
        let params = Bytes::from(request.params.to_string());
        if params.len() > CALL_PARAMS_BYTES_MAX {
            return Err(too_large("params: at most 64 KiB"));
        }
        let info = match request.additional_info.is_null() {
            true => Bytes::new(),
            false => Bytes::from(request.additional_info.to_string()),
        };
        if info.len() > CALL_INFO_BYTES_MAX {
            return Err(too_large("additionalInfo: at most 16 KiB"));
        }
        let left = request.expires_ms.saturating_sub(self.now_ms());
        let most = if request.persistent { WAIT_MAX_MS } else { WAITED_MS_MAX };
        // One whose time is over already is given no time at all: it ends by the next tick.
        let left = u64::try_from(left).unwrap_or(0).clamp(1, most);
        let keep = if request.persistent { KEPT } else { WAITED };
        Ok(NewCall {
            id: id.as_u128(),
            method: Text::from(request.method),
            params,
            one_way,
            info,
            resends_max: request.retries,
            deadline: Deadline::After(left),
            keep_ms: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// A call that is kept, and its device.
    async fn kept(&self, tenant: TenantId, id: Uuid) -> Result<(Row, Call), Failed> {
        let place: DevicePlace = ids::device_of_part(id).ok_or_else(Failed::not_found)?;
        let row = self.find_at(tenant, place).await?;
        let found = self.door.registry.call(tenant, &row.0, id.as_u128()).await?;
        Ok((row, found.ok_or_else(Failed::not_found)?))
    }

    async fn calls_of(
        &self,
        tenant: TenantId,
        row: &Row,
        query: &Query<'_>,
    ) -> Result<Reply, Failed> {
        let page = PageQuery::read(query)?;
        let state = match query.get("rpcStatus") {
            None => Vec::new(),
            Some(name) => {
                vec![state_by_name(name).ok_or(WrongParameter::Value("rpcStatus"))?]
            }
        };
        let at_once = u16::try_from(CALLS_PER_PAGE_MAX).unwrap_or(u16::MAX);
        let (mut all, mut before) = (Vec::new(), 0);
        loop {
            let found = self.door.registry.calls_of(tenant, &row.0, state.clone(), before, at_once);
            let found = found.await?.ok_or_else(Failed::not_found)?;
            let last = found.calls.last().map(|call| call.number);
            all.extend(found.calls);
            match last.filter(|_| found.more) {
                Some(last) => before = last,
                None => break,
            }
        }
        if query.get("sortOrder").is_some() && !page.descending {
            all.reverse();
        }
        let at = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let on_page = all.iter().skip(at(page.offset())).take(at(page.size));
        let on_page = on_page.map(|call| shown(tenant, row, call).to_json()).collect();
        Ok(Reply::json(&Page::of(on_page, all.len() as u64, &page)))
    }
}

/// What became of a call that somebody waited for.
fn outcome(call: &Call) -> Outcome {
    let answer = || {
        let answer = call.answer.as_deref().unwrap_or_default();
        Outcome::Answered(String::from_utf8_lossy(answer).into_owned())
    };
    match call.state {
        CallState::Successful | CallState::Failed if !call.one_way => answer(),
        CallState::Sent | CallState::Delivered if !call.one_way => Outcome::TimedOut,
        CallState::Sent | CallState::Delivered | CallState::Successful | CallState::Failed => {
            Outcome::Sent
        }
        CallState::Queued | CallState::Timeout | CallState::Expired | CallState::Deleted => {
            Outcome::TimedOut
        }
    }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)))
}

fn shown(tenant: TenantId, (device, record): &Row, call: &Call) -> Kept {
    let ms = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    Kept {
        id: Uuid::from_u128(call.id),
        created_ms: ms(call.created.0),
        tenant: ids::of_tenant(tenant),
        device: device_id(tenant, device, record).id,
        expires_ms: ms(call.until.0),
        request: json!({
            "method": call.method.as_str(),
            "params": json_of(&call.params),
            "oneway": call.one_way,
            "retries": call.resends_max,
        }),
        response: call.answer.as_deref().map(json_of),
        state: call.state,
        additional_info: if call.info.is_empty() { Value::Null } else { json_of(&call.info) },
    }
}
