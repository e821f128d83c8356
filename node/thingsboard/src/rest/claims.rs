//! Claiming: an integrator who knows a claim's secret has the device from then on, until it lets it go.
//!
//! There are no customers here. Whoever claims is a token of the API: it is noted with the device, and shown as its customer.

use moorline_core::{AttributeScope, TenantId, Text, Value};
use moorline_dialects::thingsboard::{
    claim::{CLAIMING_ALLOWED, Claimed, claimed, is_allowed},
    rest::{
        claims::{Route, secret},
        errors::ErrorCode,
    },
};
use moorline_service::registry::settings::{self, DeviceSettings};
use serde_json::json;

use super::{
    Failed, Reply, Rest,
    auth::Integrator,
    devices::{Change, Row, shown},
};
use crate::marks;

impl Rest {
    pub(super) async fn claims(
        &self,
        who: &Integrator,
        route: Route,
        body: &[u8],
    ) -> Result<Reply, Failed> {
        match route {
            Route::Claim(name) => {
                let invalid = |why: &str| Failed::new(ErrorCode::InvalidArguments, why);
                let secret = secret(body).map_err(invalid)?;
                self.claim(who, &Text::from(name), &secret).await
            }
            Route::Release(name) => self.release(who, Text::from(name)).await,
        }
    }

    async fn claim(&self, who: &Integrator, device: &Text, secret: &str) -> Result<Reply, Failed> {
        let tenant = who.tenant;
        let record = self.named(tenant, device).await?;
        let settings: DeviceSettings = settings::read(&record.settings);
        let standing = match self.may_be_claimed(tenant, device).await? {
            true => self.door.claim_of(tenant, device, record.born, secret).await?,
            false => None,
        };
        let owned = marks::owner(&settings).is_some();
        let outcome = claimed(owned, standing, self.now_ms());
        let (status, word) = outcome.answer();
        if outcome != Claimed::Success {
            return Ok(Reply::of(status, json!(word).to_string()));
        }
        let taken = self.owned_by(tenant, device.clone(), record.born, Some(who.name())).await;
        let row = match taken {
            // Somebody else was faster.
            Err(failed) if failed.code == ErrorCode::InvalidArguments => {
                let (status, word) = Claimed::Already.answer();
                return Ok(Reply::of(status, json!(word).to_string()));
            }
            taken => taken?,
        };
        self.door.forget_claim(tenant, device, record.born).await?;
        let device = shown(tenant, &row);
        Ok(Reply::of(status, json!({ "device": device, "response": word }).to_string()))
    }

    /// Whether a device may be claimed that says so.
    async fn may_be_claimed(&self, tenant: TenantId, device: &Text) -> Result<bool, Failed> {
        let by_default = self.door.registry.settings(tenant).claims.by_default;
        if by_default {
            return Ok(true);
        }
        let (scope, keys) = (AttributeScope::Server, vec![Text::from(CLAIMING_ALLOWED)]);
        let found = self.door.registry.attributes(tenant, device, scope, keys, None).await?;
        let said = found.and_then(|found| match found.set.first()?.value {
            Value::Bool(said) => Some(said),
            Value::Long(_) | Value::Double(_) | Value::Text(_) | Value::Json(_) => None,
        });
        Ok(is_allowed(by_default, said))
    }

    async fn release(&self, who: &Integrator, device: Text) -> Result<Reply, Failed> {
        let record = self.named(who.tenant, &device).await?;
        let settings: DeviceSettings = settings::read(&record.settings);
        match marks::owner(&settings) {
            None => return Ok(Reply::nothing()),
            Some(owner) if owner == who.name() => {}
            Some(_) => who.may_manage()?,
        }
        self.owned_by(who.tenant, device, record.born, None).await?;
        Ok(Reply::nothing())
    }

    /// Notes whose a device is: somebody's who was nobody's, or nobody's.
    async fn owned_by(
        &self,
        tenant: TenantId,
        device: Text,
        born: u64,
        owner: Option<&str>,
    ) -> Result<Row, Failed> {
        self.change(tenant, device, born, |record| {
            let mut settings: DeviceSettings = settings::read(&record.settings);
            if owner.is_some() && marks::owner(&settings).is_some() {
                return Err(Failed::new(ErrorCode::InvalidArguments, "it is claimed already"));
            }
            marks::set_owner(&mut settings, owner);
            let settings = settings::written(&settings);
            Ok(Change { credentials: record.credentials.clone(), settings })
        })
        .await
    }
}
