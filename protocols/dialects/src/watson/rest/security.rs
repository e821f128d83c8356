//! What an organisation asks of its devices' and gateways' connections, by type (§1.1): `/config/connection-security`, an address of
//! ours. The vendor has the same policies, and no documented address for them.
//!
//! ```text
//!   {"default":"token","types":{"pump":"certificate-and-token"}}
//! ```
//!
//! Invariant: **what can't be read asks for nothing less**: it is refused where it is written, and a document of a later form is an
//! error to whoever reads it. Checked by `tests/it/watson/rest.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{error::Error, request::read};
use crate::watson::identity::{Policy, is_name};

/// Types with a policy of their own (§1.10: types of an organisation).
pub const TYPES_MAX: usize = 1_000;
/// All that can be said.
const KEYS: [&str; 2] = ["default", "types"];

/// An organisation's policies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSecurity {
    /// For every type that says nothing; without it what follows from the tenant ([`Policy::unsaid`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Policy>,
    /// By type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Policy>,
}

impl ConnectionSecurity {
    /// Reads new policies.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        let said: Map<String, Value> = read(body)?;
        // A word that is not understood must not look as if it counted.
        let mut violations: Vec<String> = said
            .keys()
            .filter(|key| !KEYS.contains(&key.as_str()))
            .map(|key| format!("{key} means nothing"))
            .collect();
        let policies: Self = serde_json::from_value(Value::Object(said)).map_err(|_| {
            let policies = Policy::ALL.map(Policy::name).join(", ");
            Error::Invalid(vec![format!("policies are {policies}")])
        })?;
        let misnamed = policies.types.keys().filter(|kind| !is_name(kind.as_bytes()));
        violations.extend(misnamed.map(|kind| format!("{kind} is no type")));
        if policies.types.len() > TYPES_MAX {
            violations.push(format!("there are at most {TYPES_MAX} types"));
        }
        if violations.is_empty() { Ok(policies) } else { Err(Error::Invalid(violations)) }
    }

    /// What is asked of a type, if anything was said.
    #[must_use]
    pub fn of(&self, kind: &str) -> Option<Policy> {
        self.types.get(kind).copied().or(self.default)
    }
}
