//! One mail to every device with a label.
//!
//! # Invariants
//!
//! - **The id of each device's mail follows from the broadcast's id and the device**: a repeat finds what was sent, as long as the
//!   mailboxes know it (`raft/machine`, `mail.rs`), and sends what was not. Checked by the cluster tests (`bulk.rs`).

use std::{pin::Pin, sync::Arc};

use axum::{extract::State, response::Response};
use futures_util::{FutureExt, StreamExt, stream::FuturesOrdered};
use moorline_core::{TenantId, Text};
use moorline_machine::{mail::MailAnswer, registry::DeviceRecord};
use moorline_service::registry::{
    Letter, RegistryError,
    settings::{self, DeviceSettings},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::{Asked, Body},
    lines::{self, PIECE_BYTES, Source},
    mail::{NewMail, mail_id},
    paging::{Place, is_token},
    repeats::OfKey,
    tokens::OfTenant,
};

/// Mails that are being sent at once.
const WINDOW: usize = 1_024;
/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 255;

/// A mail to many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBroadcast {
    /// To whom.
    selector: Selector,
    /// What. Its id is the broadcast's: the same again is a repeat.
    mail: NewMail,
}

/// Which devices.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selector {
    /// Those with this label.
    #[schema(example = "north")]
    label: String,
}

/// What became of one mail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BroadcastResult {
    /// To whom.
    device: String,
    /// Its own id.
    mail: Uuid,
    /// `sent`, `repeat` or `failed`.
    result: &'static str,
    /// If it failed: which problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// The last line.
#[derive(Debug, Default, Clone, Copy, Serialize, ToSchema)]
struct Total {
    id: Uuid,
    devices: u64,
    sent: u64,
    repeats: u64,
    failed: u64,
    /// All devices were looked at.
    complete: bool,
}

/// Sends a mail to each device with a label: a result each line, and at the end how many. An answer without that last line
/// broke off: the same again with its id sends only what was not sent.
#[utoipa::path(
    post, path = "/api/v1/mail", params(OfTenant), request_body = NewBroadcast,
    responses(
        (status = 200, description = "a result each line, and the totals at the end", body = BroadcastResult, content_type = "application/x-ndjson"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn send(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
    key: OfKey,
    headers: axum::http::HeaderMap,
    Body(new): Body<NewBroadcast>,
) -> Result<Response, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let label = new.selector.label;
    if label.is_empty() || label.len() > LABEL_BYTES_MAX {
        return Err(Problem::malformed("label: 1 to 255 bytes"));
    }
    let id = mail_id(&api, new.mail.id(), key, &headers)?;
    let letter = new.mail.letter(id)?;
    let rows = Rows { tenant, from: Some(None) };
    let plan = Arc::new(Plan { api, tenant, label, id, letter });
    let total = Total { id, ..Total::default() };
    Ok(lines::answer(Broadcast { plan, rows, sending: FuturesOrdered::new(), total, ended: false }))
}

struct Plan {
    api: Api,
    tenant: TenantId,
    label: String,
    id: Uuid,
    letter: Letter,
}

/// The pages of devices that were not looked at yet.
struct Rows {
    tenant: TenantId,
    from: Option<Place>,
}

impl Rows {
    async fn next(
        &mut self,
        api: &Api,
    ) -> Result<Option<Vec<(Text, DeviceRecord)>>, RegistryError> {
        let Some(from) = self.from.clone() else { return Ok(None) };
        let page = api.registry.devices(self.tenant, from, WINDOW).await?;
        self.from = page.next.map(Some);
        Ok(Some(page.devices))
    }
}

type Sending = Pin<Box<dyn Future<Output = BroadcastResult> + Send>>;

struct Broadcast {
    plan: Arc<Plan>,
    rows: Rows,
    sending: FuturesOrdered<Sending>,
    total: Total,
    ended: bool,
}

impl Plan {
    fn is_meant(&self, name: &Text, record: &DeviceRecord) -> bool {
        let labels = || settings::read::<DeviceSettings>(&record.settings).labels;
        !is_token(name) && labels().contains(&self.label)
    }

    async fn one(&self, device: Text, record: DeviceRecord) -> BroadcastResult {
        let id = self.id_for(&device, record.born);
        let letter = Letter { id: id.as_u128(), ..self.letter.clone() };
        let sent = self.api.registry.send_mail_to(self.tenant, &device, &record, letter).await;
        let (result, code) = match sent {
            Ok(MailAnswer::Mailed { repeat: true, .. }) => ("repeat", None),
            Ok(_) => ("sent", None),
            Err(error) => ("failed", Some(Problem::from(error).into_parts().0)),
        };
        BroadcastResult { device: device.to_string(), mail: id, result, code }
    }

    /// With the time of the broadcast's own.
    fn id_for(&self, device: &Text, born: u64) -> Uuid {
        let (broadcast, born) = (self.id.as_u128().to_be_bytes(), born.to_be_bytes());
        let shown = [&broadcast[..], &born[..], device.as_bytes()].concat();
        let hash = self.api.secrets.lookup("broadcast mail", &shown).0;
        let mut random = [0; 10];
        random.copy_from_slice(&hash[..10]);
        let at_ms = u64::try_from(self.id.as_u128() >> 80).expect("48 bits");
        uuid::Builder::from_unix_timestamp_millis(at_ms, &random).into_uuid()
    }
}

impl Broadcast {
    fn count(&mut self, result: &BroadcastResult) {
        self.total.devices += 1;
        match result.result {
            "sent" => self.total.sent += 1,
            "repeat" => self.total.repeats += 1,
            _ => self.total.failed += 1,
        }
    }

    fn end(&mut self, complete: bool) -> Vec<u8> {
        self.ended = true;
        self.total.complete = complete;
        let mut out = Vec::new();
        lines::write(&mut out, &self.total);
        out
    }
}

impl Source for Broadcast {
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        loop {
            if self.sending.is_empty() {
                let page = match self.rows.next(&self.plan.api).await {
                    Ok(Some(page)) => page,
                    Ok(None) => return Some(self.end(true)),
                    Err(_) => return Some(self.end(false)),
                };
                for (device, record) in page {
                    if self.plan.is_meant(&device, &record) {
                        let plan = Arc::clone(&self.plan);
                        self.sending
                            .push_back(Box::pin(async move { plan.one(device, record).await }));
                    }
                }
                continue;
            }
            let mut out = Vec::new();
            let mut next = self.sending.next().await;
            while let Some(result) = next {
                self.count(&result);
                lines::write(&mut out, &result);
                next = if out.len() < PIECE_BYTES {
                    self.sending.next().now_or_never().flatten()
                } else {
                    None
                };
            }
            return Some(out);
        }
    }
}
