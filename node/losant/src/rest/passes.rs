//! Keys, certificates and authorities: made, changed, shown and forgotten.

use moorline_core::{Text, UnixMillis};
use moorline_dialects::losant::{
    Invalid,
    access::Access,
    id::Id,
    rest::{
        Error, Kind, Method,
        list::{AUTHORITIES, CERTIFICATES, KEYS, Shape, field},
        pass::{Info, Kept, Said},
        route::PassKind,
    },
};
use moorline_service::registry::{
    RegistryError,
    credential::{
        certificate,
        prove::Chain,
        trust::{CHAIN_MAX, TrustSettings},
    },
    secrets::is_strong,
};
use serde_json::Value;

use super::{About, Http, Reply, TRIES_MAX, of_registry};
use crate::pass::{AUTHORITIES_MAX, BUNDLE_MAX, New, fingerprint, new_key};

/// What is known of something new.
struct Made {
    new: New,
    /// What is shown with it, and never again.
    secret: Option<String>,
    /// Its certificates, if it has any.
    chain: Option<Chain>,
    /// Of a certificate: with those behind it, which say who issued it.
    issued: Option<Chain>,
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
        let fields = match kind {
            PassKind::Key => &KEYS,
            PassKind::Certificate => &CERTIFICATES,
            PassKind::Authority => &AUTHORITIES,
        };
        let shape = Shape::of(about.query, fields)?;
        let (mut listed, mut after): (_, Option<Text>) = (shape.gathered::<Value>(), None);
        loop {
            let page = self.door.all_kept((about.tenant, kind), after.as_ref()).await;
            let (page, next) = page.map_err(of_registry)?;
            let of_kind = page.iter().filter(|(_, kept)| kept.kind() == kind);
            let shown = of_kind.map(|(id, kept)| kept.shown(id, &about.application, None));
            for one in shown.filter(|one| shape.wants(|name| field(one, name))) {
                listed.push(one, |one, name| field(one, name).to_owned());
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let page = listed.page();
        Reply::ok(shape.answer(about.application.as_str(), &page.items, page.total))
    }

    async fn make_pass(
        &self,
        about: &About<'_>,
        kind: PassKind,
        body: &[u8],
    ) -> Result<Reply, Error> {
        let said = Said::read(kind, body, true)?;
        let access = said.access(&Access::default())?;
        let Made { new, secret, chain, issued } = new(kind, &said)?;
        let now_ms = self.door.now_ms();
        if kind == PassKind::Authority {
            self.has_room(about).await?;
        }
        let authority = match &issued {
            Some(chain) => {
                self.door.authority_of(about.tenant, chain).await.map_err(of_registry)?
            }
            None => None,
        };
        let (key, fingerprint) = match &new {
            New::Key(key, _) => (Some(key.clone()), None),
            New::Certificate(sha256) => (None, Some(hexadecimal(sha256))),
            New::Authority(_) => (None, None),
        };
        let kept = Kept {
            key,
            fingerprint,
            authority: authority.map(|id| id.to_string()),
            lets_in: kind == PassKind::Authority && said.restricts(),
            info: chain.as_ref().map(infos).unwrap_or_default(),
            ca_bundle: said.ca_bundle,
            name: said.name.unwrap_or_default(),
            description: said.description.unwrap_or_default(),
            access,
            created_ms: now_ms,
            updated_ms: now_ms,
        };
        let made = self.door.make_pass(about.tenant, &new, &kept).await;
        let id = made.map_err(taken)?;
        Ok(Reply::Json(201, kept.shown(&id, &about.application, secret.as_deref())))
    }

    /// Whether one more authority may be.
    async fn has_room(&self, about: &About<'_>) -> Result<(), Error> {
        let (of, mut after, mut there) = ((about.tenant, PassKind::Authority), None, 0);
        loop {
            let page = self.door.all_kept(of, after.as_ref()).await;
            let (page, next) = page.map_err(of_registry)?;
            there += page.len();
            if there >= AUTHORITIES_MAX {
                let why = format!("there are {AUTHORITIES_MAX} authorities, and no more may be");
                return Err(Error::new(Kind::Validation, why));
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    pub(super) async fn pass(
        &self,
        about: &About<'_>,
        (kind, id): (PassKind, &Id),
        body: &[u8],
    ) -> Result<Reply, Error> {
        for _ in 0..TRIES_MAX {
            let found = self.door.kept(about.tenant, (kind, id)).await.map_err(of_registry)?;
            let (version, kept) =
                found.filter(|(_, kept)| kept.kind() == kind).ok_or(Kind::NotFound)?;
            match about.method {
                Method::Patch => {}
                Method::Delete => {
                    self.door.forget_pass(about.tenant, (kind, id)).await.map_err(of_registry)?;
                    return Reply::success();
                }
                Method::Get | Method::Post => {
                    return Reply::ok(kept.shown(id, &about.application, None));
                }
            }
            let said = Said::read(kind, body, false)?;
            let access = said.access(&kept.access)?;
            let lets_in = kept.lets_in || kind == PassKind::Authority && said.restricts();
            let description = said.description.unwrap_or_else(|| kept.description.clone());
            let name = said.name.unwrap_or_else(|| kept.name.clone());
            let updated_ms = self.door.now_ms();
            let mut kept = Kept { access, lets_in, description, name, updated_ms, ..kept };
            let mut new = None;
            if let Some(pem) = said.ca_bundle {
                let chain = bundle(&pem)?;
                (new, kept.info) = (Some(authority(&chain)), infos(&chain));
                kept.ca_bundle = Some(pem);
            }
            let changed = (version, &kept);
            match self.door.change_pass(about.tenant, id, changed, new.as_ref()).await {
                Ok(()) => return Reply::ok(kept.shown(id, &about.application, None)),
                Err(error @ RegistryError::Taken(_)) => return Err(taken(error)),
                Err(error) => match of_registry(error) {
                    Error { kind: Kind::Conflict, .. } => {}
                    other => return Err(other),
                },
            }
        }
        Err(Kind::Conflict.into())
    }
}

fn taken(error: RegistryError) -> Error {
    match of_registry(error) {
        Error { kind: Kind::Conflict, .. } => {
            Error::new(Kind::Validation, "another application, or this one, has it already")
        }
        other => other,
    }
}

/// The certificates of an authority.
fn bundle(pem: &str) -> Result<Chain, Error> {
    let chain = certificate::of_pem(pem).filter(|chain| chain.len() <= BUNDLE_MAX);
    let why = || Invalid(format!("caBundle: 1 to {BUNDLE_MAX} certificates, in PEM"));
    let chain = chain.ok_or_else(why)?;
    let mut trust = TrustSettings::default();
    trust.certificates = pem.to_owned();
    trust.check().map_err(|why| Invalid(format!("caBundle: {why}")))?;
    Ok(chain)
}

/// Each of its certificates once.
fn authority(chain: &Chain) -> New {
    let mut all: Vec<_> = chain.iter().map(|one| fingerprint(one)).collect();
    all.sort_unstable();
    all.dedup();
    New::Authority(all)
}

/// What certificates say of themselves.
fn infos(chain: &Chain) -> Vec<Info> {
    let ms = |at: UnixMillis| i64::try_from(at.0).unwrap_or(i64::MAX);
    chain
        .iter()
        .map(|one| {
            let validity = certificate::validity(one);
            Info {
                serial_number: certificate::serial(one).unwrap_or_default(),
                fingerprint: hexadecimal(&fingerprint(one)),
                common_name: certificate::common(one).map(|it| it.to_string()).unwrap_or_default(),
                issuer_name: certificate::issuer(one).unwrap_or_default(),
                from_ms: validity.map_or(0, |(from, _)| ms(from)),
                until_ms: validity.map_or(0, |(_, until)| ms(until)),
            }
        })
        .collect()
}

/// What a new one is, and the secret that is shown with it.
fn new(kind: PassKind, said: &Said) -> Result<Made, Error> {
    let required = |what: &str| Error::new(Kind::Validation, format!("{what} is required"));
    match kind {
        PassKind::Certificate => {
            let pem = said.certificate.as_ref().ok_or_else(|| required("certificate"))?;
            let chain = certificate::of_pem(pem);
            let chain = chain.ok_or_else(|| Invalid("certificate: no PEM".to_owned()))?;
            let some = |most| chain.iter().take(most).cloned().collect::<Chain>();
            let (own, issued) = (some(1), some(1 + CHAIN_MAX));
            let new = New::Certificate(fingerprint(&own[0]));
            Ok(Made { new, secret: None, chain: Some(own), issued: Some(issued) })
        }
        PassKind::Authority => {
            let pem = said.ca_bundle.as_ref().ok_or_else(|| required("caBundle"))?;
            let chain = bundle(pem)?;
            let new = authority(&chain);
            Ok(Made { new, secret: None, chain: Some(chain), issued: None })
        }
        PassKind::Key => {
            let (key, secret) = match (&said.key, &said.secret) {
                (Some(key), Some(secret)) => (key.clone(), secret.clone()),
                (Some(_), None) | (None, _) => new_key(),
            };
            if !is_strong(&secret) {
                let why = "secret: it can be guessed; leave it out, and key, for new ones";
                return Err(Error::new(Kind::Validation, why));
            }
            let new = New::Key(key, secret.clone());
            Ok(Made { new, secret: Some(secret), chain: None, issued: None })
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
