//! Custom actions: the bundles of an organisation (§1.8, REST side).
//!
//! Invariant: the platform's own words (`device`, `firmware`, `deviceActions`, `firmwareActions`) are no bundle's id, so that an
//! action or a claim has one meaning. Checked by `bundles_have_their_shape`.
//!
//! Regular expressions of parameters are kept and given back, and not applied: the device knows what it can do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::task::{PARAMETERS_MAX, Parameter};
use crate::watson::identity::is_name;

/// The most actions of a bundle.
pub const ACTIONS_MAX: usize = 64;
/// Ids that mean something else.
const RESERVED: [&str; 4] = ["device", "firmware", "deviceActions", "firmwareActions"];

/// A text per language.
pub type Texts = BTreeMap<String, String>;

/// Custom actions, as integrators write them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Its id, of its own in the organisation.
    pub bundle_id: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What people call it.
    #[serde(default)]
    pub display_name: Texts,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub description: Texts,
    /// Its actions, by id.
    pub actions: BTreeMap<String, BundleAction>,
}

/// One action of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleAction {
    /// What people call it.
    #[serde(default)]
    pub action_display_name: Texts,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub description: Texts,
    /// What it takes.
    #[serde(default)]
    pub parameters: Vec<BundleParameter>,
}

/// One parameter of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleParameter {
    /// Its name.
    pub name: String,
    /// An example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Whether it has to be given: a boolean, or SDKs' `"true"`.
    #[serde(default)]
    pub required: Value,
    /// What it is when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_value: Option<Value>,
    /// What it has to look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

impl BundleParameter {
    fn is_required(&self) -> bool {
        matches!(&self.required, Value::Bool(true))
            || matches!(&self.required, Value::String(text) if text == "true")
    }
}

/// What is wrong with a bundle or with parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The id is no name, or means something else.
    #[error("{0} can't be a bundle's id")]
    Id(String),
    /// An action's id is no name.
    #[error("{0} can't be an action's id")]
    Action(String),
    /// There are no actions, or more than [`ACTIONS_MAX`].
    #[error("a bundle has between 1 and {ACTIONS_MAX} actions")]
    Actions,
    /// There are more than [`PARAMETERS_MAX`].
    #[error("an action has at most {PARAMETERS_MAX} parameters")]
    Parameters,
    /// A parameter is missing.
    #[error("the parameter {0} is required")]
    Missing(String),
    /// The bundle has no such action.
    #[error("the bundle has no action {0}")]
    NoAction(String),
}

impl Bundle {
    /// Checks what the types can't.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        if !is_name(self.bundle_id.as_bytes()) || RESERVED.contains(&&*self.bundle_id) {
            return Err(Invalid::Id(self.bundle_id.clone()));
        }
        if !(1..=ACTIONS_MAX).contains(&self.actions.len()) {
            return Err(Invalid::Actions);
        }
        for (id, action) in &self.actions {
            if !is_name(id.as_bytes()) {
                return Err(Invalid::Action(id.clone()));
            }
            if action.parameters.len() > PARAMETERS_MAX {
                return Err(Invalid::Parameters);
            }
        }
        Ok(())
    }

    /// The parameters that a device is given: those of the request, and defaults for those that are missing.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn parameters(&self, action: &str, given: &[Parameter]) -> Result<Vec<Parameter>, Invalid> {
        let found = self.actions.get(action);
        let found = found.ok_or_else(|| Invalid::NoAction(action.to_owned()))?;
        let mut all = given.to_vec();
        for parameter in &found.parameters {
            if given.iter().any(|given| given.name == parameter.name) {
                continue;
            }
            match &parameter.default_value {
                Some(value) => {
                    let name = parameter.name.clone();
                    all.push(Parameter { name, value: value.clone() });
                }
                None if parameter.is_required() => {
                    return Err(Invalid::Missing(parameter.name.clone()));
                }
                None => {}
            }
        }
        Ok(all)
    }
}
