//! Which path and method ask for what.

use super::{Error, Kind};
use crate::losant::id::Id;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It is read.
    Get,
    /// It is made, or sent.
    Post,
    /// It is changed.
    Patch,
    /// It is deleted.
    Delete,
}

/// What clients are let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// An access key.
    Key,
    /// A certificate.
    Certificate,
    /// Who issues certificates.
    Authority,
}

impl PassKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Key, Self::Certificate, Self::Authority];

    /// As paths name several.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Certificate => "certificates",
            Self::Authority => "certificate-authorities",
        }
    }
}

/// What a request is about, within its application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The application itself.
    Application,
    /// Its devices.
    Devices,
    /// A command to several of them.
    CommandToMany,
    /// One of them.
    Device(Id),
    /// What it reported.
    State(Id),
    /// What it was told.
    Command(Id),
    /// The last value of each attribute.
    CompositeState(Id),
    /// When it came and went.
    Logs(Id),
    /// What it reports from now on.
    StateStream(Id),
    /// What it is told from now on.
    CommandStream(Id),
    /// Whether it is connected, said by somebody.
    ConnectionStatus(Id),
    /// A message to custom topics.
    Publish,
    /// What devices reported over a while.
    TimeSeries,
    /// What they reported last.
    LastValues,
    /// What clients are let in by.
    Passes(PassKind),
    /// One of these.
    Pass(PassKind, Id),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A token for a device.
    AuthDevice,
    /// A token for whoever has one of the API.
    AuthUser,
    /// Something of an application.
    Of(Id, Resource),
}

/// Whether paths like this are the platform's.
#[must_use]
pub fn claims(path: &str) -> bool {
    path == "/auth/device" || path == "/auth/user" || path.starts_with("/applications/")
}

/// What a method and a path ask for.
///
/// # Errors
///
/// There is no such thing.
pub fn route(method: &str, path: &str) -> Result<(Method, Asked), Error> {
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => return Err(Kind::NotFound.into()),
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let asked = match parts[..] {
        ["auth", "device"] => Asked::AuthDevice,
        ["auth", "user"] => Asked::AuthUser,
        ["applications", application, ref rest @ ..] => {
            Asked::Of(id(application)?, resource(rest).ok_or(Kind::NotFound)?)
        }
        _ => return Err(Kind::NotFound.into()),
    };
    if takes(&asked, method) { Ok((method, asked)) } else { Err(Kind::NotFound.into()) }
}

fn id(text: &str) -> Result<Id, Error> {
    Id::parse(text.as_bytes()).ok_or_else(|| Kind::NotFound.into())
}

fn resource(parts: &[&str]) -> Option<Resource> {
    let of = |text: &str| Id::parse(text.as_bytes());
    let pass = |text: &str| PassKind::ALL.into_iter().find(|kind| kind.path() == text);
    Some(match *parts {
        [] => Resource::Application,
        ["devices"] => Resource::Devices,
        ["devices", "command"] => Resource::CommandToMany,
        ["devices", device] => Resource::Device(of(device)?),
        ["devices", device, what] => {
            let device = of(device)?;
            match what {
                "state" => Resource::State(device),
                "command" => Resource::Command(device),
                "compositeState" => Resource::CompositeState(device),
                "logs" => Resource::Logs(device),
                "stateStream" => Resource::StateStream(device),
                "commandStream" => Resource::CommandStream(device),
                "setConnectionStatus" => Resource::ConnectionStatus(device),
                _ => return None,
            }
        }
        ["mqttPublishMessage"] => Resource::Publish,
        ["data", "time-series-query"] => Resource::TimeSeries,
        ["data", "last-value-query"] => Resource::LastValues,
        [passes] => Resource::Passes(pass(passes)?),
        [passes, one] => Resource::Pass(pass(passes)?, of(one)?),
        _ => return None,
    })
}

fn takes(asked: &Asked, method: Method) -> bool {
    let methods: &[Method] = match asked {
        Asked::AuthDevice | Asked::AuthUser => &[Method::Post],
        Asked::Of(_, resource) => match resource {
            Resource::Application
            | Resource::CompositeState(_)
            | Resource::Logs(_)
            | Resource::StateStream(_)
            | Resource::CommandStream(_) => &[Method::Get],
            Resource::Devices | Resource::State(_) | Resource::Command(_) | Resource::Passes(_) => {
                &[Method::Get, Method::Post]
            }
            Resource::CommandToMany
            | Resource::ConnectionStatus(_)
            | Resource::Publish
            | Resource::TimeSeries
            | Resource::LastValues => &[Method::Post],
            Resource::Device(_) | Resource::Pass(..) => {
                &[Method::Get, Method::Patch, Method::Delete]
            }
        },
    };
    methods.contains(&method)
}

impl Resource {
    /// The device it is about.
    #[must_use]
    pub fn device(&self) -> Option<&Id> {
        match self {
            Self::Device(id)
            | Self::State(id)
            | Self::Command(id)
            | Self::CompositeState(id)
            | Self::Logs(id)
            | Self::StateStream(id)
            | Self::CommandStream(id)
            | Self::ConnectionStatus(id) => Some(id),
            Self::Application
            | Self::Devices
            | Self::CommandToMany
            | Self::Publish
            | Self::TimeSeries
            | Self::LastValues
            | Self::Passes(_)
            | Self::Pass(..) => None,
        }
    }

    /// Whether a request changes nothing.
    #[must_use]
    pub fn reads(&self, method: Method) -> bool {
        method == Method::Get || matches!(self, Self::TimeSeries | Self::LastValues)
    }

    /// What a token has to be for, as the vendor calls it, and whether all that a device may includes it.
    #[must_use]
    pub fn action(&self, method: Method) -> (&'static str, bool) {
        let get = method == Method::Get;
        match self {
            Self::Application => ("application.get", false),
            Self::Devices => (if get { "devices.get" } else { "devices.post" }, get),
            Self::CommandToMany => ("devices.sendCommand", true),
            Self::Device(_) => match method {
                Method::Get => ("device.get", true),
                Method::Post | Method::Patch => ("device.patch", false),
                Method::Delete => ("device.delete", false),
            },
            Self::State(_) => (if get { "device.getState" } else { "device.sendState" }, true),
            Self::Command(_) => {
                (if get { "device.getCommand" } else { "device.sendCommand" }, true)
            }
            Self::CompositeState(_) => ("device.getCompositeState", true),
            Self::Logs(_) => ("device.getLogEntries", true),
            Self::StateStream(_) => ("device.stateStream", true),
            Self::CommandStream(_) => ("device.commandStream", true),
            Self::ConnectionStatus(_) => ("device.setConnectionStatus", true),
            Self::Publish => ("application.mqttPublishMessage", false),
            Self::TimeSeries => ("data.timeSeriesQuery", true),
            Self::LastValues => ("data.lastValueQuery", true),
            Self::Passes(_) => ("applicationKeys.get", false),
            Self::Pass(..) => ("applicationKey.get", false),
        }
    }

    /// For a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Devices => "devices",
            Self::CommandToMany => "command_to_many",
            Self::Device(_) => "device",
            Self::State(_) => "state",
            Self::Command(_) => "command",
            Self::CompositeState(_) => "composite_state",
            Self::Logs(_) => "logs",
            Self::StateStream(_) => "state_stream",
            Self::CommandStream(_) => "command_stream",
            Self::ConnectionStatus(_) => "connection_status",
            Self::Publish => "publish",
            Self::TimeSeries | Self::LastValues => "data",
            Self::Passes(_) | Self::Pass(..) => "passes",
        }
    }
}

/// All labels that requests may have.
pub const LABELS: [&str; 16] = [
    "none",
    "auth",
    "application",
    "devices",
    "command_to_many",
    "device",
    "state",
    "command",
    "composite_state",
    "logs",
    "state_stream",
    "command_stream",
    "connection_status",
    "publish",
    "data",
    "passes",
];

impl Asked {
    /// For a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::AuthDevice | Self::AuthUser => "auth",
            Self::Of(_, resource) => resource.label(),
        }
    }
}
