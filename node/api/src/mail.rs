//! Mail to devices: sent, looked at, taken back.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use moorline_core::Text;
use moorline_machine::{
    mail::{MAIL_NAME_BYTES_MAX, MailAnswer, MailInfo, MailNote, MailOp},
    query::MailPart,
};
use moorline_service::registry::{
    Letter, RegistryError,
    door::{By, JSON, NOTHING},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    devices::found,
    extract::{Asked, At, Body},
    paging::checked,
    repeats::OfKey,
    tokens::OfTenant,
};

/// A mail to be sent.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMail {
    /// What it is about: letters, digits, `_` and `-`.
    #[schema(example = "open-gate")]
    name: String,
    /// Any JSON.
    #[serde(default)]
    payload: Option<Value>,
    /// Seconds it may wait; without it as long as the settings say.
    #[serde(default)]
    ttl_s: Option<u64>,
    /// A UUIDv7 of the sender's: the same again is a repeat and changes nothing. Without it one is made.
    #[serde(default)]
    id: Option<Uuid>,
}

/// A mail that is synced on a majority.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sent {
    /// Its id.
    id: Uuid,
    /// Mails that wait for the device, this one included.
    mailbox_size: u32,
    /// The id was known: nothing changed.
    repeat: bool,
}

/// A mail with its state and history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MailView {
    /// Its id.
    id: Uuid,
    /// What it is about.
    name: String,
    /// `queued`, `dead`, `acked`, `rejected`, `expired`, `cancelled` or `purged`.
    state: &'static str,
    /// What it says, if one mail was asked for and it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    /// How large that is.
    payload_bytes: u32,
    /// When it was sent, in milliseconds since 1970.
    created_ms: u64,
    /// When it expires.
    expires_ms: Option<u64>,
    /// How often it was requeued.
    requeues: u16,
    /// What happened to it, in order.
    history: Vec<NoteView>,
    /// How much of that is not kept, between the first and the latest.
    history_left_out: u32,
}

/// Something that happened to a mail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NoteView {
    /// When, in milliseconds since 1970.
    at_ms: u64,
    /// What.
    what: &'static str,
    /// By which protocol.
    by: &'static str,
    /// More about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// A piece of a mailbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MailList {
    /// In the order the device gets them.
    mails: Vec<MailView>,
    /// `?after=` for the next page; absent in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// Which mails.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Those that were requeued too often, instead of those that wait.
    #[serde(default)]
    dead: bool,
    /// `next` of the page before.
    after: Option<u64>,
}

/// How many mails were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Purged {
    removed: u64,
}

fn view(info: &MailInfo, payload: Option<&Bytes>) -> MailView {
    let note = |note: &MailNote| NoteView {
        at_ms: note.at.0,
        what: note.what.name(),
        by: By::name(note.by),
        detail: note.detail.to_string(),
    };
    MailView {
        id: Uuid::from_u128(info.id),
        name: info.name.to_string(),
        state: info.state.name(),
        payload: payload.and_then(|payload| serde_json::from_slice(payload).ok()),
        payload_bytes: info.payload_bytes,
        created_ms: info.created.0,
        expires_ms: info.expires_at.map(|at| at.0),
        requeues: info.requeues,
        history: info.notes.iter().map(note).collect(),
        history_left_out: info.notes_dropped,
    }
}

fn id(text: &str) -> Result<u128, Problem> {
    Uuid::parse_str(text).map(|id| id.as_u128()).map_err(|_| Problem::not_found("mail"))
}

/// Sends a mail to a device: 201 when it is synced on a majority.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/mailbox",
    params(("device" = String, Path, description = "its name"), OfTenant), request_body = NewMail,
    responses(
        (status = 201, description = "it waits for the device", body = Sent),
        (status = 507, description = "too much waits already", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn send(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    key: OfKey,
    headers: HeaderMap,
    Body(new): Body<NewMail>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let id = mail_id(&api, new.id(), key, &headers)?;
    let letter = new.letter(id)?;
    let answer = api.registry.send_mail(tenant, &device, letter).await?;
    let MailAnswer::Mailed { size, repeat, .. } = answer else {
        return Err(RegistryError::Unavailable.into());
    };
    Ok((StatusCode::CREATED, Json(Sent { id, mailbox_size: size, repeat })))
}

impl NewMail {
    /// The id that its sender gave it.
    pub(crate) fn id(&self) -> Option<Uuid> {
        self.id
    }

    /// As the mailbox takes it.
    pub(crate) fn letter(self, id: Uuid) -> Result<Letter, Problem> {
        let is_of = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let why = "a mail's name has 1 to 255 of A-Z, a-z, 0-9, _ and -";
        checked(&self.name, MAIL_NAME_BYTES_MAX, is_of, why)?;
        let (content_type, payload) = match self.payload {
            None | Some(Value::Null) => (NOTHING, Vec::new()),
            Some(payload) => (JSON, serde_json::to_vec(&payload).expect("it was JSON")),
        };
        let (id, name, ttl_s) = (id.as_u128(), Text::from(self.name), self.ttl_s);
        Ok(Letter { id, name, content_type, payload: payload.into(), ttl_s })
    }
}

/// The id of a mail: as its sender says, or its key if that is one, or one that follows from the key; else a new one.
pub(crate) fn mail_id(
    api: &Api,
    said: Option<Uuid>,
    OfKey(key): OfKey,
    headers: &HeaderMap,
) -> Result<Uuid, Problem> {
    let is_id = |id: &Uuid| id.get_version_num() == 7;
    if let Some(said) = said {
        return Some(said).filter(is_id).ok_or_else(|| Problem::malformed("id: a UUIDv7"));
    }
    let text = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let own = text.and_then(|key| Uuid::parse_str(key).ok()).filter(is_id);
    Ok(own.or(key.map(|key| key.id())).unwrap_or_else(|| {
        let random: [u8; 10] = rand::random();
        uuid::Builder::from_unix_timestamp_millis((api.now)(), &random).into_uuid()
    }))
}

/// What a device is to have said of a mail.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settlement {
    op: SettleOp,
}

/// See [`MailOp`].
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum SettleOp {
    /// It is done.
    Ack,
    /// It could not be done, and is removed.
    Reject,
    /// It goes behind all others.
    Requeue,
}

/// What waits after a mail was settled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settled {
    /// Mails that wait.
    mailbox_size: u32,
    /// It was settled so before: nothing changed.
    repeat: bool,
}

/// Settles the mail at the front in the place of the device, which cannot.
#[utoipa::path(
    post, path = "/api/v1/devices/{device}/mailbox/{mail}/settle",
    params(("device" = String, Path, description = "its name"), ("mail" = String, Path, description = "its id"), OfTenant),
    request_body = Settlement,
    responses(
        (status = 200, description = "it is settled", body = Settled),
        (status = 409, description = "another mail is at the front", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn settle(
    State(api): State<Api>,
    caller: Caller,
    At((name, mail)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
    Body(settlement): Body<Settlement>,
) -> Result<Json<Settled>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    found(&api, tenant, &device).await?;
    let op = match settlement.op {
        SettleOp::Ack => MailOp::Ack,
        SettleOp::Reject => MailOp::Reject,
        SettleOp::Requeue => MailOp::Requeue,
    };
    let answer = api.registry.settle_mail(tenant, &device, id(&mail)?, op, By::Api as u8).await?;
    let MailAnswer::Settled { size, repeat, .. } = answer else {
        return Err(RegistryError::Unavailable.into());
    };
    Ok(Json(Settled { mailbox_size: size, repeat }))
}

/// The mails that wait for a device, or those that are dead.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/mailbox",
    params(("device" = String, Path, description = "its name"), Which),
    responses(
        (status = 200, description = "a page", body = MailList),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<MailList>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    found(&api, tenant, &device).await?;
    let part = if which.dead { MailPart::Dead } else { MailPart::Queued };
    let page = api.registry.mails(tenant, &device, part, which.after.unwrap_or(0)).await?;
    let next = page.mails.last().map(|info| info.place).filter(|_| page.more);
    let mails = page.mails.iter().map(|info| view(info, None)).collect();
    Ok(Json(MailList { mails, next }))
}

/// Removes all mails that wait for a device, or those that are dead.
#[utoipa::path(
    delete, path = "/api/v1/devices/{device}/mailbox",
    params(("device" = String, Path, description = "its name"), Which),
    responses(
        (status = 200, description = "how many", body = Purged),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn purge(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<Purged>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    found(&api, tenant, &device).await?;
    Ok(Json(Purged { removed: api.registry.purge_mail(tenant, &device, which.dead).await? }))
}

/// One mail with its history, also a while after it is done.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/mailbox/{mail}",
    params(("device" = String, Path, description = "its name"), ("mail" = String, Path, description = "its id"), OfTenant),
    responses(
        (status = 200, description = "it", body = MailView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At((name, mail)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<MailView>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let found = api.registry.mail_info(tenant, &device, id(&mail)?).await?;
    let (info, payload) = found.ok_or_else(|| Problem::not_found("mail"))?;
    Ok(Json(view(&info, payload.as_ref())))
}

/// Takes a mail back that the device has not settled.
#[utoipa::path(
    delete, path = "/api/v1/devices/{device}/mailbox/{mail}",
    params(("device" = String, Path, description = "its name"), ("mail" = String, Path, description = "its id"), OfTenant),
    responses(
        (status = 204, description = "the device will not get it again"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    At((name, mail)): At<(String, String)>,
    Asked(of): Asked<OfTenant>,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    api.registry.cancel_mail(tenant, &device, id(&mail)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
