//! Who an integrator is: logging in, tokens that come of it, API keys.
//!
//! A token is a JWT that names a principal and the version of its row, signed with a key that follows from the cluster's: so every
//! node takes those of every other, and none is kept.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::rest::{
    auth::{
        self, Bearer, Claims, LOGIN_BYTES_MAX, Login, REFRESH_SCOPE, REFRESH_TOKEN_S_DEFAULT,
        Refresh, Route, TOKEN_S_DEFAULT,
    },
    entities::{EntityId, EntityType},
    errors::ErrorCode,
    ids,
};
use moorline_http::{Body, Caller, Head};
use moorline_service::registry::{
    audit::identified,
    principal::{Principal, counted_as},
    secrets::Secrets,
    settings::Role,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::info;

use super::{Failed, Reply, Rest, read_most};

/// What the key of tokens is for.
const PURPOSE: &str = "thingsboard user tokens v1";

/// Makes tokens of users, and reads them.
pub(super) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What is in a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    #[serde(flatten)]
    claims: Claims,
    /// The tenant's number.
    tenant: u32,
    /// The principal's name.
    principal: String,
    /// The version of its row.
    version: u64,
}

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub(super) struct Integrator {
    pub(super) tenant: TenantId,
    role: Role,
    principal: Text,
    email: String,
}

impl Integrator {
    /// Whether it may look, or do more than that.
    pub(super) fn may(&self, only_look: bool) -> Result<(), Failed> {
        let may = only_look || self.role >= Role::App;
        if may { Ok(()) } else { Err(ErrorCode::PermissionDenied.into()) }
    }

    /// Whether it may change which devices there are, and see what lets them in.
    pub(super) fn may_manage(&self) -> Result<(), Failed> {
        if self.manages() { Ok(()) } else { Err(ErrorCode::PermissionDenied.into()) }
    }

    /// The same as an answer.
    pub(super) fn manages(&self) -> bool {
        self.role >= Role::Operator
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        self.principal.as_str()
    }

    pub(super) fn tenant_id(&self) -> EntityId {
        EntityId { entity_type: EntityType::Tenant, id: ids::of_tenant(self.tenant) }
    }

    fn authority(&self) -> &'static str {
        if self.role == Role::ReadOnly { "CUSTOMER_USER" } else { "TENANT_ADMIN" }
    }
}

pub(super) fn no_customer() -> EntityId {
    EntityId { entity_type: EntityType::Customer, id: ids::NOBODY }
}

/// Whoever has claimed a device is its customer.
pub(super) fn customer(tenant: TenantId, principal: &str) -> EntityId {
    EntityId { entity_type: EntityType::Customer, ..user_id(tenant, principal) }
}

fn user_id(tenant: TenantId, principal: &str) -> EntityId {
    let id = ids::of_named(tenant, &format!("~{principal}"));
    EntityId { entity_type: EntityType::User, id }
}

impl Tokens {
    pub(super) fn new(secrets: &Secrets) -> Self {
        let key = secrets.key_for(PURPOSE);
        let mut validation = Validation::new(Algorithm::HS512);
        // By the node's clock, which is an argument here.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(&*key),
            decoding: DecodingKey::from_secret(&*key),
            validation,
        }
    }

    /// A token of a principal, for so long.
    fn make(
        &self,
        principal: &Principal,
        email: &str,
        scope: &str,
        (now_s, for_s): (i64, i64),
    ) -> String {
        let Principal { tenant, name, version, .. } = principal;
        let claims = Claims {
            sub: email.to_owned(),
            user_id: user_id(*tenant, name.as_str()).id.to_string(),
            scopes: vec![scope.to_owned()],
            tenant_id: ids::of_tenant(*tenant).to_string(),
            customer_id: ids::NOBODY.to_string(),
            iat: now_s,
            exp: now_s.saturating_add(for_s),
        };
        let principal = name.to_string();
        let said = Said { claims, tenant: tenant.0, principal, version: *version };
        encode(&Header::new(Algorithm::HS512), &said, &self.encoding)
            .expect("a map with text for keys, and a key of this algorithm")
    }

    /// What a token says that one of the nodes has signed and that counts now; `refresh`: of the sort that gets new ones.
    fn read(&self, token: &str, refresh: bool, now_s: i64) -> Result<Said, ErrorCode> {
        let said = decode::<Said>(token, &self.decoding, &self.validation);
        let said = said.map_err(|_| ErrorCode::Authentication)?.claims;
        let is_refresh = said.claims.scopes.iter().any(|scope| scope == REFRESH_SCOPE);
        if is_refresh != refresh {
            return Err(ErrorCode::Authentication);
        }
        if said.claims.exp <= now_s { Err(ErrorCode::TokenExpired) } else { Ok(said) }
    }
}

impl Rest {
    fn now_s(&self) -> i64 {
        self.now_ms() / 1_000
    }

    pub(super) async fn auth(
        &self,
        caller: &Caller,
        route: Route,
        head: &Head,
        body: Body,
    ) -> Result<Reply, Failed> {
        match route {
            Route::Login => self.log_in(caller, body).await,
            Route::Refresh => {
                let body = read_most(body, LOGIN_BYTES_MAX).await?;
                let Ok(Refresh { refresh_token }) = serde_json::from_slice(&body) else {
                    return Err(Failed::new(ErrorCode::InvalidArguments, "refreshToken is needed"));
                };
                let said = self.tokens.read(&refresh_token, true, self.now_s())?;
                let (principal, email) = self.still(caller, said).await?;
                Ok(self.tokens_of(&principal, &email))
            }
            // No customer is public here.
            Route::PublicLogin => Err(ErrorCode::Authentication.into()),
            Route::User => {
                let who = self.authorise(caller, head).await?;
                Ok(Reply::json(&json!({
                    "id": user_id(who.tenant, who.principal.as_str()),
                    "tenantId": who.tenant_id(),
                    "customerId": no_customer(),
                    "email": who.email,
                    "name": who.email,
                    "authority": who.authority(),
                    "firstName": null,
                    "lastName": null,
                })))
            }
            // Nothing is kept of a token: it counts until its time is over, or its principal is gone.
            Route::Logout => self.authorise(caller, head).await.map(|_| Reply::nothing()),
        }
    }

    async fn log_in(&self, caller: &Caller, body: Body) -> Result<Reply, Failed> {
        let body = read_most(body, LOGIN_BYTES_MAX).await?;
        let Some(Login { username, password }) = Login::read(&body) else {
            return Err(Failed::new(ErrorCode::Authentication, "username and password are needed"));
        };
        let principal = self.judged(caller, &username, &password).await?;
        let wrong = || Failed::new(ErrorCode::Authentication, "Invalid username or password");
        Ok(self.tokens_of(&principal.ok_or_else(wrong)?, &username))
    }

    fn tokens_of(&self, principal: &Principal, email: &str) -> Reply {
        let who = integrator(principal, email);
        let make = |scope, for_s| self.tokens.make(principal, email, scope, (self.now_s(), for_s));
        Reply::json(&auth::Tokens {
            token: make(who.authority(), TOKEN_S_DEFAULT),
            refresh_token: make(REFRESH_SCOPE, REFRESH_TOKEN_S_DEFAULT),
            scope: None,
        })
    }

    /// Whose token of the API this is, unless whoever shows it has failed too often.
    async fn judged(
        &self,
        caller: &Caller,
        who: &str,
        shown: &str,
    ) -> Result<Option<Principal>, Failed> {
        let (who, from, now) = (Text::from(who), caller.peer.ip(), self.door.clock.wall());
        if self.doors.banned(&who, from, now).is_some() {
            return Err(Failed::new(ErrorCode::Authentication, "failed too often: wait a while"));
        }
        let found = self.door.registry.principal(&self.secrets, shown, now.0).await?;
        let found = found.filter(|found| self.door.takes(found.tenant));
        match &found {
            Some(found) => {
                self.checks_tls(caller, found.tenant)?;
                self.doors.succeeded(&who, from);
                known(caller, found);
            }
            None => {
                if self.doors.failed(&who, from, now) {
                    info!(%from, "a user failed too often and is banned for a while");
                }
            }
        }
        Ok(found)
    }

    fn checks_tls(&self, caller: &Caller, tenant: TenantId) -> Result<(), Failed> {
        if caller.tls() || self.door.registry.takes_plaintext(tenant) {
            return Ok(());
        }
        Err(Failed::new(ErrorCode::Authentication, "this tenant wants TLS"))
    }

    /// Whose a token that was read is, if its principal is still what it was.
    async fn still(&self, caller: &Caller, said: Said) -> Result<(Principal, String), Failed> {
        let Said { claims, tenant, principal, version } = said;
        let tenant = TenantId(tenant);
        let found = self.door.registry.principal_again(tenant, &principal, version).await?;
        let found = found.filter(|_| self.door.takes(tenant)).ok_or(ErrorCode::Authentication)?;
        self.checks_tls(caller, tenant)?;
        known(caller, &found);
        Ok((found, claims.sub))
    }

    /// Who asks.
    pub(super) async fn authorise(
        &self,
        caller: &Caller,
        head: &Head,
    ) -> Result<Integrator, Failed> {
        let headers = head.headers();
        let said = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.and_then(|(_, value)| std::str::from_utf8(value).ok()).and_then(Bearer::of)
        };
        let bearer = auth::HEADERS.into_iter().find_map(said).ok_or(ErrorCode::Authentication)?;
        self.authorise_bearer(caller, bearer).await
    }

    /// The same of what was said elsewhere.
    pub(super) async fn authorise_bearer(
        &self,
        caller: &Caller,
        bearer: Bearer,
    ) -> Result<Integrator, Failed> {
        match bearer {
            Bearer::Token(token) => {
                let said = self.tokens.read(&token, false, self.now_s())?;
                let (principal, email) = self.still(caller, said).await?;
                Ok(integrator(&principal, &email))
            }
            Bearer::ApiKey(key) => {
                let who = counted_as(&key);
                let found = self
                    .judged(caller, who.as_str(), &key)
                    .await?
                    .ok_or(ErrorCode::Authentication)?;
                Ok(integrator(&found, found.name.as_str()))
            }
        }
    }
}

fn integrator(principal: &Principal, email: &str) -> Integrator {
    let Principal { tenant, name, role, .. } = principal;
    Integrator { tenant: *tenant, role: *role, principal: name.clone(), email: email.to_owned() }
}

fn known(caller: &Caller, principal: &Principal) {
    caller.is_known();
    identified(&format!("{}/{}", principal.tenant.0, principal.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(key: u8) -> Tokens {
        Tokens::new(&Secrets::new([key; 32]))
    }

    fn principal() -> Principal {
        Principal { tenant: TenantId(7), name: Text::from("ci"), role: Role::App, version: 1 << 60 }
    }

    #[test]
    fn a_token_counts_for_a_while_and_only_where_it_was_signed() {
        let token = tokens(1).make(&principal(), "a@example.com", "TENANT_ADMIN", (1_000, 60));
        let said = tokens(1).read(&token, false, 1_059).unwrap();
        assert_eq!((said.tenant, said.principal.as_str(), said.version), (7, "ci", 1 << 60));
        assert_eq!((said.claims.sub.as_str(), said.claims.exp), ("a@example.com", 1_060));
        let refused = |tokens: &Tokens, token: &str, refresh, now_s| {
            tokens.read(token, refresh, now_s).map(drop).unwrap_err()
        };
        assert_eq!(refused(&tokens(1), &token, false, 1_060), ErrorCode::TokenExpired);
        assert_eq!(refused(&tokens(1), &token, true, 1_000), ErrorCode::Authentication);
        assert_eq!(refused(&tokens(2), &token, false, 1_000), ErrorCode::Authentication);
        let cut = &token[..token.len() - 2];
        assert_eq!(refused(&tokens(1), cut, false, 1_000), ErrorCode::Authentication);
        // {"alg":"none"}
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
        assert_eq!(refused(&tokens(1), &unsigned, false, 1_000), ErrorCode::Authentication);
    }

    #[test]
    fn a_token_that_gets_new_ones_lets_nobody_in() {
        let token = tokens(1).make(&principal(), "a@example.com", REFRESH_SCOPE, (1_000, 60));
        assert!(tokens(1).read(&token, true, 1_000).is_ok());
        assert!(tokens(1).read(&token, false, 1_000).is_err());
    }
}
