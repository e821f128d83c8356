//! Calls that devices make themselves: answered by applications that read of them in the stream.

use axum::{extract::State, http::StatusCode};
use bytes::Bytes;
use moorline_service::registry::OWN_ANSWER_BYTES_MAX;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::{Asked, At, Body},
    tokens::OfTenant,
};

/// The answer as the device gets it.
fn checked(answer: &Value) -> Result<Bytes, Problem> {
    let bytes = serde_json::to_vec(answer).expect("it was JSON");
    if bytes.len() > OWN_ANSWER_BYTES_MAX {
        let why = "an answer has at most 60 KiB";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why));
    }
    Ok(bytes.into())
}

/// Answers a call that a device has made: the event of it says its id. The answer is any JSON.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/own-calls/{call}",
    params(("device" = String, Path, description = "its name"), ("call" = String, Path, description = "the `id` in the data of its event"), OfTenant),
    request_body(content = Value, description = "what the device is to hear", example = json!({ "time": 1 })),
    responses(
        (status = 204, description = "the node that the device is connected to has it; nothing of it is kept"),
        (status = 404, description = "nobody waits for it: the device has gone, its time is over, or it was answered", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn answer(
    State(api): State<Api>,
    caller: Caller,
    At((name, call)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
    Body(answer): Body<Value>,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let none = || Problem::not_found("call that waits for an answer");
    let id = Uuid::parse_str(&call).map_err(|_| none())?.as_u128();
    let taken = api.registry.answer_own_call(tenant, &device, id, checked(&answer)?).await?;
    if taken { Ok(StatusCode::NO_CONTENT) } else { Err(none()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_any_json_of_some_size() {
        for answer in [json!(null), json!(7), json!("t"), json!({ "a": [1] })] {
            assert_eq!(checked(&answer).unwrap(), answer.to_string());
        }
        assert!(checked(&json!("x".repeat(OWN_ANSWER_BYTES_MAX - 2))).is_ok());
        assert!(checked(&json!("x".repeat(OWN_ANSWER_BYTES_MAX - 1))).is_err());
    }
}
