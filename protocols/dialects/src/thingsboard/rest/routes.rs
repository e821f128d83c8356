//! Which path asks for what.

use uuid::Uuid;

use super::{auth, calls, claims, devices, packages, profiles, telemetry};
use crate::thingsboard::query::{Query, WrongParameter};

/// What telemetry and attributes are below.
const TELEMETRY: &str = "/api/plugins/telemetry/";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To be let in.
    Auth(auth::Route),
    /// Devices and their credentials.
    Devices(devices::Route),
    /// Telemetry and attributes of a device.
    Telemetry(Uuid, telemetry::Route),
    /// Calls.
    Calls(calls::Route),
    /// Device profiles.
    Profiles(profiles::Route),
    /// Packages.
    Packages(packages::Route),
    /// Claiming of devices.
    Claims(claims::Route),
}

/// Reads the head of a request; `query`: without its `?`. `None`: nobody serves it.
///
/// # Errors
///
/// A parameter is wrong.
pub fn route(method: &str, path: &str, query: &str) -> Result<Option<Route>, WrongParameter> {
    let query = Query::of(query)?;
    if let Some(rest) = path.strip_prefix(TELEMETRY) {
        let found = telemetry::route(method, rest, &query)?;
        return Ok(found.map(|(device, route)| Route::Telemetry(device, route)));
    }
    if let Some(found) = auth::route(method, path) {
        return Ok(Some(Route::Auth(found)));
    }
    if let Some(found) = calls::route(method, path)? {
        return Ok(Some(Route::Calls(found)));
    }
    if let Some(found) = claims::route(method, path) {
        return Ok(Some(Route::Claims(found)));
    }
    if let Some(found) = profiles::route(method, path, &query)? {
        return Ok(Some(Route::Profiles(found)));
    }
    if let Some(found) = packages::route(method, path, &query)? {
        return Ok(Some(Route::Packages(found)));
    }
    Ok(devices::route(method, path, &query)?.map(Route::Devices))
}

impl Route {
    /// What is asked for, as a label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Auth(_) => "rest_auth",
            Self::Devices(_) => "rest_devices",
            Self::Telemetry(..) => "rest_telemetry",
            Self::Calls(_) => "rest_calls",
            Self::Profiles(_) => "rest_profiles",
            Self::Packages(_) => "rest_packages",
            Self::Claims(_) => "rest_claims",
        }
    }

    /// Whether it only looks.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Auth(_) => true,
            Self::Devices(route) => match route {
                devices::Route::Get(_)
                | devices::Route::Info(_)
                | devices::Route::List { .. }
                | devices::Route::ByName(_)
                | devices::Route::ByIds(_)
                | devices::Route::Types => true,
                // What it shows lets devices in.
                devices::Route::Credentials(_)
                | devices::Route::Save { .. }
                | devices::Route::SaveWithCredentials
                | devices::Route::Delete(_)
                | devices::Route::SaveCredentials => false,
            },
            Self::Telemetry(_, route) => match route {
                telemetry::Route::TimeseriesKeys
                | telemetry::Route::Latest { .. }
                | telemetry::Route::History(_)
                | telemetry::Route::AttributeKeys(_)
                | telemetry::Route::Attributes { .. } => true,
                telemetry::Route::SaveAttributes(_)
                | telemetry::Route::DeleteAttributes { .. }
                | telemetry::Route::SaveTimeseries { .. }
                | telemetry::Route::DeleteTimeseries { .. } => false,
            },
            Self::Calls(route) => match route {
                calls::Route::Get(_) | calls::Route::List(_) => true,
                calls::Route::Call { .. } | calls::Route::Delete(_) => false,
            },
            Self::Profiles(route) => match route {
                profiles::Route::Get(_)
                | profiles::Route::Info(_)
                | profiles::Route::DefaultInfo
                | profiles::Route::List { .. }
                | profiles::Route::Names => true,
                profiles::Route::Save
                | profiles::Route::Delete(_)
                | profiles::Route::SetDefault(_) => false,
            },
            Self::Packages(route) => match route {
                packages::Route::Get(_)
                | packages::Route::Download(_)
                | packages::Route::List { .. } => true,
                packages::Route::Save
                | packages::Route::Upload { .. }
                | packages::Route::Delete(_) => false,
            },
            Self::Claims(_) => false,
        }
    }
}
