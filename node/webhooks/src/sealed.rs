//! What is secret of a webhook, and the requests that are made with it.
//!
//! # Invariants
//!
//! - **Sealed for its place**: tenant, webhook, number and header; what is moved elsewhere does not open.
//! - **No secret is printed.** Checked below.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_outward::{Request, Unanswered};
use moorline_service::registry::credential::password::Place;
use zeroize::Zeroizing;

use crate::{
    batch::content_type,
    hooks::{WebhookError, Webhooks},
    kept::{Kept, Settings},
    signature::signature,
};

/// Headers of a webhook.
const HEADERS_MAX: usize = 16;
/// Bytes of all that is kept of a webhook: all of a tenant are read at once.
const KEPT_BYTES_MAX: usize = 7 * 1024;
/// What our own headers begin with.
const OWN_HEADERS: &str = "moorline-";
/// Headers that say what we know better.
const RESERVED_HEADERS: [&str; 2] = ["content-type", "content-encoding"];
/// Milliseconds of a second.
const MS_PER_S: u64 = 1_000;

/// What opens a request to its receiver.
pub(crate) struct Opened {
    secret: Zeroizing<Vec<u8>>,
    headers: Vec<(String, String)>,
}

/// By hand: what is secret is not printed.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Where a secret of a webhook is sealed for.
fn sealed_for(name: &str, what: &str) -> Text {
    Text::from(format!("~webhook/{name}/{what}"))
}

pub(crate) fn secret_of(name: &str) -> Text {
    sealed_for(name, "secret")
}

fn header_of(name: &str, header: &str) -> Text {
    sealed_for(name, &format!("header/{header}"))
}

impl Webhooks {
    pub(crate) fn seal(&self, tenant: TenantId, device: &Text, id: u32, bytes: &[u8]) -> String {
        let place = Place { tenant, device, id: id.into() };
        STANDARD.encode(self.secrets.seal(place, rand::random(), bytes))
    }

    fn open(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u32,
        sealed: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = STANDARD.decode(sealed).ok()?;
        self.secrets.open(Place { tenant, device, id: id.into() }, &sealed)
    }

    pub(crate) fn sealed_headers(
        &self,
        tenant: TenantId,
        name: &str,
        id: u32,
        headers: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, WebhookError> {
        let mut sealed = BTreeMap::new();
        for (header, value) in headers {
            let header = header.to_ascii_lowercase();
            if header.starts_with(OWN_HEADERS) || RESERVED_HEADERS.contains(&&*header) {
                return Err(WebhookError::Wrong(format!(
                    "headers: {header} is set by the cluster"
                )));
            }
            let value = self.seal(tenant, &header_of(name, &header), id, value.as_bytes());
            sealed.insert(header, value);
        }
        Ok(sealed)
    }

    /// What is sealed of a webhook. [`None`]: it was sealed with another key.
    pub(crate) fn opened(&self, tenant: TenantId, name: &str, kept: &Kept) -> Option<Opened> {
        let secret = self.open(tenant, &secret_of(name), kept.id, &kept.secret)?;
        let mut headers = Vec::new();
        for (header, sealed) in &kept.headers {
            let value = self.open(tenant, &header_of(name, header), kept.id, sealed)?;
            headers.push((header.clone(), String::from_utf8(value.to_vec()).ok()?));
        }
        Some(Opened { secret, headers })
    }

    /// A request as it is sent now. `id`: what tells it from all others but its repeats.
    pub(crate) fn request(
        &self,
        name: &str,
        settings: &Settings,
        opened: &Opened,
        (id, attempt): (&str, u32),
        body: &str,
    ) -> Request {
        let mut headers = opened.headers.clone();
        let own = [
            ("content-type", content_type(settings.batch_max).to_owned()),
            ("moorline-webhook", name.to_owned()),
            ("moorline-delivery", id.to_owned()),
            ("moorline-attempt", attempt.to_string()),
            (
                "moorline-signature",
                signature(&opened.secret, (self.now)() / MS_PER_S, body.as_bytes()),
            ),
        ];
        headers.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Request {
            method: "POST".to_owned(),
            url: settings.url.clone(),
            headers,
            body: Bytes::from(body.to_owned()),
            within: Duration::from_millis(settings.timeout_ms.into()),
        }
    }

    /// Whether requests may be sent, and it fits what is kept.
    pub(crate) fn check(
        &self,
        tenant: TenantId,
        name: &str,
        kept: &Kept,
    ) -> Result<(), WebhookError> {
        kept.settings.check()?;
        if kept.headers.len() > HEADERS_MAX || kept.body().len() > KEPT_BYTES_MAX {
            let why = format!("it is too large: at most {HEADERS_MAX} headers, and 7 KiB in all");
            return Err(WebhookError::Wrong(why));
        }
        let opened = self.opened(tenant, name, kept);
        let opened = opened.ok_or_else(|| {
            WebhookError::Wrong("its secrets were sealed with another key: make it anew".to_owned())
        })?;
        let request = self.request(name, &kept.settings, &opened, ("check", 1), "");
        match self.outward.judge(&request) {
            Ok(()) => Ok(()),
            Err(Unanswered::Header) => {
                Err(WebhookError::Wrong("headers: one can't be sent, or is the node's".to_owned()))
            }
            Err(why) => Err(WebhookError::Blocked(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let secret = Zeroizing::new(b"canary".to_vec());
        let opened = Opened { secret, headers: vec![("a".to_owned(), "canary".to_owned())] };
        assert!(!format!("{opened:?}").contains("canary"));
    }
}
