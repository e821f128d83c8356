//! All devices of a tenant as lines of JSON, as an import takes them. Without credentials: what is kept of secrets is of no use
//! anywhere else.

use axum::{extract::State, response::Response};
use moorline_core::{TenantId, Text};
use moorline_machine::registry::DeviceRecord;
use moorline_service::registry::settings::{self, DeviceSettings};
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::Caller,
    extract::Asked,
    lines::{self, Source},
    paging::{Place, is_token},
    tokens::OfTenant,
};

/// Rows of a page: what is held of a client that takes nothing.
const ROWS_PER_PAGE: usize = 256;

/// A device as an import would make it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExportLine {
    /// Unique in its tenant.
    name: String,
    /// Whether it may connect.
    enabled: bool,
    /// What it is, and its limits.
    settings: DeviceSettings,
}

/// All devices, one a line, as an import takes them; in an order of the cluster's own. The last line says that it is the last:
/// an answer without it broke off.
#[utoipa::path(
    get, path = "/api/v1/devices/export", params(OfTenant),
    responses(
        (status = 200, description = "a device each line, and `{\"devices\": <how many>}` at the end", body = ExportLine, content_type = "application/x-ndjson"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
) -> Result<Response, Problem> {
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    Ok(lines::answer(Export { api, tenant, from: Some(None), devices: 0 }))
}

/// How many there were.
#[derive(Debug, Serialize)]
struct Total {
    devices: u64,
}

struct Export {
    api: Api,
    tenant: TenantId,
    /// Where the next page begins; [`None`]: nowhere.
    from: Option<Place>,
    devices: u64,
}

impl Export {
    fn lines(&mut self, rows: Vec<(Text, DeviceRecord)>) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, record) in rows.into_iter().filter(|(name, _)| !is_token(name)) {
            self.devices += 1;
            let settings = settings::read(&record.settings);
            let (name, enabled) = (name.to_string(), record.enabled);
            lines::write(&mut out, &ExportLine { name, enabled, settings });
        }
        out
    }
}

impl Source for Export {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let from = self.from.take()?;
            let page = match self.api.registry.devices(self.tenant, from, ROWS_PER_PAGE).await {
                Ok(page) => page,
                Err(problem) => {
                    warn!(%problem, "an export broke off");
                    return None;
                }
            };
            let mut out = self.lines(page.devices);
            match page.next {
                Some(next) => self.from = Some(Some(next)),
                None => lines::write(&mut out, &Total { devices: self.devices }),
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
    }
}
