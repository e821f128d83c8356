//! Principals: whoever has a token of the API, `mlt_TENANT_NAME_SECRET`. Platforms let their integrators in by the same tokens.
//!
//! Principals are kept as devices are, under names that no device can have ([`kept_as`]); tenant 0 is nobody's, and has the
//! administrators of the cluster.

use std::fmt;

use moorline_core::{TenantId, Text};
use moorline_machine::registry::DeviceRecord;
use serde::{Deserialize, de::IgnoredAny};

use super::{Registry, RegistryError, secrets::Secrets, settings::Role};

/// What every token begins with, so that secret scanners find lost ones.
const PREFIX: &str = "mlt_";
/// What names of principals begin with, and no device's.
const MARK: char = '~';

/// Bytes of a name by which failures are counted: what is counted is remembered.
const COUNTED_NAME_BYTES_MAX: usize = 128;

/// The name under which a principal is kept.
#[must_use]
pub fn kept_as(name: &str) -> Text {
    Text::from(format!("{MARK}{name}"))
}

/// Whether a row's name is a principal's.
#[must_use]
pub fn is_principal(name: &Text) -> bool {
    name.as_str().starts_with(MARK)
}

/// The principal's name of such a row.
#[must_use]
pub fn named(row: &Text) -> Option<&str> {
    row.as_str().strip_prefix(MARK)
}

/// A token in its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiToken<'a> {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: &'a str,
    /// What proves it.
    pub secret: &'a str,
}

impl fmt::Debug for ApiToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}/{})", self.tenant.0, self.name)
    }
}

impl<'a> ApiToken<'a> {
    /// Takes one apart.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (tenant, rest) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let (name, secret) = rest.split_once('_')?;
        Some(Self { tenant: TenantId(tenant.parse().ok()?), name, secret })
    }

    /// As it is shown to whom it is for.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}_{}_{}", self.tenant.0, self.name, self.secret)
    }
}

/// What whoever shows a token is counted as, if it is wrong: by tenant and name, so that a program that has an old one keeps out no
/// other of its address. What is no token is counted as one; so is what has no name that may be.
#[must_use]
pub fn counted_as(shown: &str) -> Text {
    let token = ApiToken::parse(shown.trim());
    let token = token.filter(|token| token.name.len() <= COUNTED_NAME_BYTES_MAX);
    token.map(|of| Text::from(format!("{PREFIX}{}_{}", of.tenant.0, of.name))).unwrap_or_default()
}

/// What is looked at of a principal's settings.
#[derive(Deserialize)]
struct Kept {
    role: Role,
    /// Which devices it is for, if not for all.
    scope: Option<IgnoredAny>,
}

/// What a principal may do, whose settings these are; [`None`] for one that is for some devices only, and for what is no principal.
#[must_use]
pub fn role(settings: &[u8]) -> Option<Role> {
    let kept: Kept = serde_json::from_slice(settings).ok()?;
    kept.scope.is_none().then_some(kept.role)
}

/// A principal of a tenant that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose.
    pub tenant: TenantId,
    /// Its name, without the mark.
    pub name: Text,
    /// What it may do, with all devices of the tenant.
    pub role: Role,
    /// The version of its row: another one is another token.
    pub version: u64,
}

fn principal(tenant: TenantId, name: &str, record: &DeviceRecord) -> Option<Principal> {
    let role = role(&record.settings).filter(|_| record.enabled)?;
    Some(Principal { tenant, name: Text::from(name), role, version: record.version })
}

impl Registry {
    /// Whose a token is; [`None`] for what is no token of a tenant, or of one that is for some devices only.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn principal(
        &self,
        secrets: &Secrets,
        token: &str,
        now_ms: u64,
    ) -> Result<Option<Principal>, RegistryError> {
        let Some(ApiToken { tenant, name, secret }) = ApiToken::parse(token.trim()) else {
            return Ok(None);
        };
        let kept = kept_as(name);
        let Some(record) = self.device(tenant, &kept).await? else { return Ok(None) };
        let held = secrets.holds(tenant, &kept, &record, secret.as_bytes(), now_ms).is_some();
        Ok(principal(tenant, name, &record).filter(|_| held))
    }

    /// The principal of this name, if its row has still this version and its tenant is not disabled: for whoever it was let in as before.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn principal_again(
        &self,
        tenant: TenantId,
        name: &str,
        version: u64,
    ) -> Result<Option<Principal>, RegistryError> {
        if self.tenant(tenant).is_some_and(|of| !of.enabled) {
            return Ok(None);
        }
        let Some(record) = self.device(tenant, &kept_as(name)).await? else { return Ok(None) };
        Ok(principal(tenant, name, &record).filter(|found| found.version == version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_apart_as_they_were_made() {
        let token = ApiToken { tenant: TenantId(7), name: "ci", secret: "s_e-c" };
        assert_eq!(ApiToken::parse(&token.text()), Some(token));
        assert!(!format!("{token:?}").contains("s_e-c"));
        for wrong in ["", "mlt_", "mlt_7_ci", "mlt_x_ci_s", "7_ci_s"] {
            assert_eq!(ApiToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn wrong_tokens_are_counted_by_whose_they_are() {
        let long = "n".repeat(COUNTED_NAME_BYTES_MAX + 1);
        let (fits, long) = (&long[1..], format!("mlt_7_{long}_s"));
        #[rustfmt::skip]
        let table = [
            ("mlt_7_ci_secret",            "mlt_7_ci".to_owned()),
            (" mlt_7_ci_other ",           "mlt_7_ci".to_owned()),
            ("mlt_8_ci_secret",            "mlt_8_ci".to_owned()),
            ("mlt_7_web_secret",           "mlt_7_web".to_owned()),
            (&format!("mlt_7_{fits}_s"),   format!("mlt_7_{fits}")),
            (&long,                        String::new()),
            ("nonsense",                   String::new()),
        ];
        for (shown, expected) in table {
            assert_eq!(counted_as(shown).as_str(), expected, "{shown}");
        }
    }

    #[test]
    fn a_token_for_some_devices_has_no_role_here() {
        assert_eq!(role(br#"{"role":"app"}"#), Some(Role::App));
        assert_eq!(role(br#"{"role":"app","scope":{"devices":["a*"]}}"#), None);
        assert_eq!(role(b"{}"), None, "a device's settings");
    }
}
