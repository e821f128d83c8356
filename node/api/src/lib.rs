//! `/api/v1` of a node: tenants, devices, credentials, mail, calls, events and API tokens, over any node, for people and applications.
//!
//! ```text
//!   HTTP ──► auth (bearer token) ──► handlers ──► moorline_service::registry ──► the shards
//! ```
//!
//! # Invariants
//!
//! - **What is answered with 2xx is synced on a majority**, and read back by whoever asks next, on any node.
//! - **The document at `/api/v1/openapi.json` is what the handlers do**: it is made from them, and checked in
//!   (`docs/openapi.json`); CI fails when they differ.
//!
//! # Deliberately absent
//!
//! Sockets and TLS (`node/moorline`), what a device may do (`node/service`), rows (`raft/machine`).

#![expect(unused_qualifications, reason = "`utoipa::path` repeats what stands in it")]

mod attributes;
mod audit;
mod auth;
mod broadcast;
mod calls;
mod consumers;
mod credentials;
mod devices;
mod document;
mod events;
mod explain;
mod export;
mod extract;
mod import;
mod lines;
mod mail;
mod own_calls;
mod paging;
mod patch;
mod presence;
mod problem;
mod provisioning;
mod repeats;
mod scope;
mod tail;
mod telemetry;
mod tenants;
mod tokens;
mod versions;
mod webhooks;

use axum::{Json, Router, extract::DefaultBodyLimit, http::StatusCode, middleware, routing::get};
use moorline_core::{TenantId, Text};
use moorline_edge::Doorkeeper;
use moorline_machine::registry::{Credential, DeviceRecord};
use moorline_service::registry::{
    Registry,
    secrets::{SECRET, Secrets, Style, generate},
};
use moorline_webhooks::Webhooks;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use auth::Remote;
pub use import::Imports;
pub use problem::Problem;
pub use repeats::forget_old_repeats;

/// The largest request body: a mail's payload in base64 and what stands around it.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the handlers need.
#[derive(Debug, Clone)]
pub struct Api {
    /// The cluster's registry.
    pub registry: Registry,
    /// The cluster's key.
    pub secrets: Secrets,
    /// Wall time in milliseconds since 1970.
    pub now: fn() -> u64,
    /// How many imports may begin.
    pub imports: Imports,
    /// What is done with webhooks.
    pub webhooks: Webhooks,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Moorline",
    description = "Tenants, devices, credentials, mail and events of a Moorline cluster. Any node answers for all."
))]
struct Document;

fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show, tenants::replace, tenants::patch, tenants::delete))
        .routes(routes!(devices::list, devices::create))
        .routes(routes!(devices::show, devices::replace, devices::patch, devices::delete))
        .routes(routes!(credentials::list, credentials::create))
        .routes(routes!(credentials::delete))
        .routes(routes!(mail::list, mail::send, mail::purge))
        .routes(routes!(mail::show, mail::cancel))
        .routes(routes!(mail::settle))
        .routes(routes!(calls::list, calls::make))
        .routes(routes!(calls::show, calls::delete))
        .routes(routes!(own_calls::answer))
        .routes(routes!(broadcast::send))
        .routes(routes!(import::import))
        .routes(routes!(export::export))
        .routes(routes!(events::report))
        .routes(routes!(events::stream))
        .routes(routes!(attributes::show, attributes::patch))
        .routes(routes!(telemetry::show))
        .routes(routes!(consumers::list))
        .routes(routes!(consumers::delete))
        .routes(routes!(consumers::commit))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::show, webhooks::patch, webhooks::delete))
        .routes(routes!(webhooks::status))
        .routes(routes!(webhooks::test))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(audit::list))
        .routes(routes!(explain::device))
        .routes(routes!(explain::message))
        .routes(routes!(provisioning::list, provisioning::create))
        .routes(routes!(provisioning::delete))
        .routes(routes!(provisioning::provision))
}

/// The document, as it is served.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    document::finished(routes().into_openapi())
}

/// The same as text, as it is checked in.
///
/// # Panics
///
/// Never: it is a map with string keys.
#[must_use]
pub fn openapi_text() -> String {
    serde_json::to_string_pretty(&openapi()).expect("a map with string keys") + "\n"
}

/// Everything below `/api/v1` that is described here.
pub fn router(api: Api) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = document::finished(document);
    let around = audit::Around { api: api.clone(), doors: Doorkeeper::default() };
    router
        .route("/api/v1/openapi.json", get(move || async move { Json(document) }))
        .fallback(|| async { Problem::not_found("path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "another method is wanted here")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), repeats::once))
        .layer(middleware::from_fn_with_state(around, audit::noted))
        .with_state(api)
}

impl Api {
    /// Whether one of a device's secrets is this one, and counts now.
    pub(crate) fn holds(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
        secret: &[u8],
    ) -> bool {
        self.secrets.holds(tenant, device, record, secret, (self.now)()).is_some()
    }

    /// A new secret for a device, and what is kept of it.
    pub(crate) fn new_secret(
        &self,
        tenant: TenantId,
        device: &Text,
        style: Style,
    ) -> (String, Credential) {
        let secret = generate(style, &mut rand::random::<u8>);
        let id = rand::random();
        let verifier = self.secrets.verifier(tenant, device, id, secret.as_bytes());
        let credential = Credential {
            id,
            kind: SECRET,
            lookup: None,
            verifier: verifier.to_vec().into(),
            not_before: None,
            not_after: None,
            created: moorline_core::UnixMillis(0),
        };
        (secret, credential)
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    #[test]
    fn the_document_is_checked_in() {
        // Asked when it runs: clones that share a target directory share this test's binary.
        let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this crate is");
        let file = Path::new(&here).join("../../docs/openapi.json");
        let text = super::openapi_text();
        if env::var_os("MOORLINE_WRITE_OPENAPI").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == text, "docs/openapi.json differs: MOORLINE_WRITE_OPENAPI=1 writes it anew");
    }

    #[test]
    fn every_operation_says_what_a_problem_looks_like() {
        let document = serde_json::to_value(super::openapi()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let problem = &operation["responses"]["default"]["content"];
                assert!(problem.get("application/problem+json").is_some(), "{method} {path}");
            }
        }
    }
}
