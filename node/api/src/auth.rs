//! Who calls the API: a bearer token, which is a credential of a principal in the registry.
//!
//! ```text
//!   mlt_<tenant>_<name>_<secret>      tenant 0: the cluster's administrators
//! ```
//!
//! Principals are kept as devices are, under names that no device can have (`~name`): so a token has a validity, is replicated,
//! and is refused everywhere as soon as it is deleted, since each request reads it anew.
//!
//! # Invariants
//!
//! - **A principal of a tenant sees nothing of another**: every handler asks [`Caller::tenant`] which one it is. What it may
//!   not see is answered as what does not exist.
//! - **Without a token in the cluster, whoever is on the same machine may make the first one**, and nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{header::AUTHORIZATION, request::Parts},
};
use moorline_core::{TenantId, Text};
use moorline_machine::registry::TenantRecord;
use moorline_service::registry::{
    RegistryError,
    audit::identified,
    principal::ApiToken,
    settings::{self, DeviceSettings},
};
use serde::{Deserialize, Serialize};

use crate::{
    Api, Problem,
    devices::{device_name, found},
    scope::Scope,
};

/// Tenant 0 is nobody's: administrators of the cluster are kept there.
pub(crate) const CLUSTER: TenantId = TenantId(0);

pub(crate) use moorline_service::registry::{principal::kept_as, settings::Role};

/// Whoever asked.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// Which devices it is for.
    pub(crate) scope: Scope,
    /// [`None`]: of the cluster.
    tenant: Option<TenantId>,
    /// Where the token is kept, under which name and in which version.
    kept: (TenantId, Text, u64),
}

/// What is kept in the settings of a principal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Principal {
    pub(crate) role: Role,
    #[serde(default, skip_serializing_if = "Scope::is_all")]
    pub(crate) scope: Scope,
}

impl Caller {
    /// The tenant that is meant: the caller's own, or for the cluster's administrators the one they name. Refused for a token
    /// that is for some of its devices.
    pub(crate) async fn tenant(
        &self,
        api: &Api,
        named: Option<&str>,
    ) -> Result<(TenantId, TenantRecord), Problem> {
        if !self.scope.is_all() {
            return Err(Problem::forbidden("this token is for some devices of its tenant only"));
        }
        self.tenant_of_some(api, named).await
    }

    /// The same, also for a token that is for some devices: for routes that ask [`Self::device`] or [`Self::covers`] next.
    pub(crate) async fn tenant_of_some(
        &self,
        api: &Api,
        named: Option<&str>,
    ) -> Result<(TenantId, TenantRecord), Problem> {
        if self.tenant.is_none() && named.is_none() {
            return Err(Problem::malformed("?tenant=… says which tenant is meant"));
        }
        if let Some(found) = self.find_tenant(api, named) {
            return Ok(found);
        }
        // It may have been made on another node a moment ago.
        if !api.registry.refresh().await {
            return Err(RegistryError::Unavailable.into());
        }
        self.find_tenant(api, named).ok_or_else(|| Problem::not_found("tenant"))
    }

    /// A device's name, if the token is for it.
    pub(crate) async fn device(
        &self,
        api: &Api,
        tenant: TenantId,
        name: &str,
    ) -> Result<Text, Problem> {
        let device = device_name(name)?;
        if self.scope.is_all() {
            return Ok(device);
        }
        let record = found(api, tenant, &device).await?;
        self.covers(&device, &settings::read(&record.settings))?;
        Ok(device)
    }

    /// Whether the token is for a device that is, or is to be, like this.
    pub(crate) fn covers(&self, device: &Text, settings: &DeviceSettings) -> Result<(), Problem> {
        match self.scope.covers(device.as_str(), settings) {
            true => Ok(()),
            false => Err(Problem::not_found("device")),
        }
    }

    fn find_tenant(&self, api: &Api, named: Option<&str>) -> Option<(TenantId, TenantRecord)> {
        let Some(own) = self.tenant else { return api.registry.tenant_by_name(named?) };
        let record = api.registry.tenant(own)?;
        let meant = named.is_none_or(|named| named == record.name.as_str());
        meant.then_some((own, record))
    }

    /// Whether the token is still what it was, for requests that last. `true` also if nobody can say.
    pub(crate) async fn still_counts(&self, api: &Api) -> bool {
        let (tenant, name, version) = &self.kept;
        match api.registry.device(*tenant, name).await {
            Ok(record) => record.is_some_and(|record| record.enabled && record.version == *version),
            Err(_) => true,
        }
    }

    /// What tells its token from all others.
    pub(crate) fn id(&self) -> Vec<u8> {
        let (tenant, name, _) = &self.kept;
        [&tenant.0.to_be_bytes()[..], name.as_bytes(), b"\0"].concat()
    }

    /// Whether it may do at least what a role may.
    pub(crate) fn at_least(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let detail = format!("this token has the role {:?}; {role:?} is wanted", self.role);
        Err(Problem::forbidden(&detail))
    }

    /// Whether it is an administrator of the whole cluster.
    pub(crate) fn of_cluster(&self, role: Role) -> Result<(), Problem> {
        self.at_least(role)?;
        match self.tenant {
            None => Ok(()),
            Some(_) => Err(Problem::forbidden("only a token of the cluster may do that")),
        }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(shown) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(Problem::unauthorised());
        };
        let ApiToken { tenant, name, secret } =
            ApiToken::parse(shown.trim()).ok_or_else(Problem::unauthorised)?;
        let name = kept_as(name);
        let record = api.registry.device(tenant, &name).await?;
        let record = record.filter(|record| record.enabled).ok_or_else(Problem::unauthorised)?;
        let verified = api.holds(tenant, &name, &record, secret.as_bytes());
        let principal: Option<Principal> = serde_json::from_slice(&record.settings).ok();
        match principal {
            Some(Principal { role, scope }) if verified => {
                identified(&format!("{}/{}", tenant.0, name.as_str().trim_start_matches('~')));
                let kept = (tenant, name, record.version);
                Ok(Self { role, scope, tenant: (tenant != CLUSTER).then_some(tenant), kept })
            }
            _ => Err(Problem::unauthorised()),
        }
    }
}

/// Goes with requests of a listener that other machines reach: whoever asks there is nobody of this machine, whatever address it has. A
/// proxy that runs beside the node has this machine's.
#[derive(Debug, Clone, Copy)]
pub struct Remote;

/// Where a request comes from.
pub(crate) struct From(pub(crate) IpAddr);

impl FromRequestParts<Api> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        if parts.extensions.get::<Remote>().is_some() {
            return Ok(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        }
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        from.map(|ConnectInfo(address)| Self(address.ip())).ok_or_else(Problem::unauthorised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_in_order() {
        assert!(Role::ReadOnly < Role::App && Role::App < Role::Operator);
        assert!(Role::Operator < Role::Admin);
    }
}
