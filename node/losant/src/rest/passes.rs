//! Keys and certificates: made, changed, shown and forgotten.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::Text;
use moorline_dialects::losant::{
    Invalid,
    access::Access,
    id::Id,
    rest::{
        Error, Kind, Method,
        pass::{Kept, Said},
        route::PassKind,
    },
};
use moorline_service::registry::secrets::is_strong;
use serde_json::{Value, json};

use super::{About, Http, Reply, TRIES_MAX, of_registry};
use crate::pass::{New, fingerprint, new_key};

/// What a certificate begins with in PEM; and what it ends with.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// See [`BEGIN`].
const END: &str = "-----END CERTIFICATE-----";

/// The bytes of the first certificate of a PEM.
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let digits: String = body.split_whitespace().collect();
    STANDARD.decode(digits).ok().filter(|der| !der.is_empty())
}

fn kind_of(kept: &Kept) -> PassKind {
    if kept.key.is_some() { PassKind::Key } else { PassKind::Certificate }
}

impl Http {
    pub(super) async fn passes(
        &self,
        about: &About<'_>,
        kind: PassKind,
        body: &[u8],
    ) -> Result<Reply, Error> {
        if about.method == Method::Post {
            return self.make_pass(about, kind, body).await;
        }
        let (mut items, mut after): (Vec<Value>, Option<Text>) = (Vec::new(), None);
        loop {
            let page = self.door.all_kept(about.tenant, after.as_ref()).await;
            let (page, next) = page.map_err(of_registry)?;
            let of_kind = page.iter().filter(|(_, kept)| kind_of(kept) == kind);
            items.extend(of_kind.map(|(id, kept)| kept.shown(id, &about.application, None)));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Reply::ok(json!({
            "applicationId": about.application.as_str(),
            "items": items, "count": items.len(), "totalCount": items.len(),
        }))
    }

    async fn make_pass(
        &self,
        about: &About<'_>,
        kind: PassKind,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let said = Said::read(kind, body, true)?;
        let access = said.access(&Access::default())?;
        let (new, secret) = new(kind, &said)?;
        let now_ms = self.door.now_ms();
        let (key, fingerprint) = match &new {
            New::Key(key, _) => (Some(key.clone()), None),
            New::Certificate(sha256) => (None, Some(hexadecimal(sha256))),
        };
        let description = said.description.unwrap_or_default();
        let (created_ms, updated_ms) = (now_ms, now_ms);
        let kept = Kept { key, fingerprint, description, access, created_ms, updated_ms };
        let made = self.door.make_pass(about.tenant, &new, &kept).await;
        let id = made.map_err(|error| match of_registry(error) {
            Error { kind: Kind::Conflict, .. } => {
                Error::new(Kind::Validation, "another application, or this one, has it already")
            }
            other => other,
        })?;
        Ok(Reply::Json(201, kept.shown(&id, &about.application, secret.as_deref())))
    }

    pub(super) async fn pass(
        &self,
        about: &About<'_>,
        (kind, id): (PassKind, &Id),
        body: &[u8],
    ) -> Result<Reply, Error> {
        for _ in 0..TRIES_MAX {
            let found = self.door.kept(about.tenant, id).await.map_err(of_registry)?;
            let (version, kept) =
                found.filter(|(_, kept)| kind_of(kept) == kind).ok_or(Kind::NotFound)?;
            match about.method {
                Method::Patch => {}
                Method::Delete => {
                    self.door.forget_pass(about.tenant, id).await.map_err(of_registry)?;
                    return Reply::success();
                }
                Method::Get | Method::Post => {
                    return Reply::ok(kept.shown(id, &about.application, None));
                }
            }
            let said = Said::read(kind, body, false)?;
            let access = said.access(&kept.access)?;
            let description = said.description.unwrap_or_else(|| kept.description.clone());
            let updated_ms = self.door.now_ms();
            let kept = Kept { access, description, updated_ms, ..kept };
            match self.door.change_pass(about.tenant, id, version, &kept).await {
                Ok(()) => return Reply::ok(kept.shown(id, &about.application, None)),
                Err(error) => match of_registry(error) {
                    Error { kind: Kind::Conflict, .. } => {}
                    other => return Err(other),
                },
            }
        }
        Err(Kind::Conflict.into())
    }
}

/// What a new one is, and the secret that is shown with it.
fn new(kind: PassKind, said: &Said) -> Result<(New, Option<String>), Error> {
    match (kind, &said.key, &said.secret, &said.certificate) {
        (PassKind::Certificate, _, _, Some(pem)) => {
            let der = der(pem).ok_or_else(|| Invalid("certificate: no PEM".to_owned()))?;
            Ok((New::Certificate(fingerprint(&der)), None))
        }
        (PassKind::Certificate, _, _, None) => {
            Err(Error::new(Kind::Validation, "certificate is required"))
        }
        (PassKind::Key, Some(key), Some(secret), _) => {
            if !is_strong(secret) {
                let why = "secret: it can be guessed; leave it out, and key, for new ones";
                return Err(Error::new(Kind::Validation, why));
            }
            Ok((New::Key(key.clone(), secret.clone()), Some(secret.clone())))
        }
        (PassKind::Key, ..) => {
            let (key, secret) = new_key();
            Ok((New::Key(key, secret.clone()), Some(secret)))
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_out_of_its_pem() {
        let pem = format!("x\n{BEGIN}\nTUlJ\nQg==\n{END}\n{BEGIN}\nAAAA\n{END}\n");
        assert_eq!(der(&pem).as_deref(), Some(&b"MIIB"[..]));
        for wrong in ["", "TUlJQg==", BEGIN, &format!("{BEGIN}\n{END}"), &format!("{BEGIN}!{END}")]
        {
            assert_eq!(der(wrong), None, "{wrong}");
        }
        assert_eq!(hexadecimal(&[0, 0xab]), "00ab");
    }
}
