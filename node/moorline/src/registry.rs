//! `moorline token|tenant|device|cred|mail|events …`: requests to the API of a node, as JSON on standard output.
//!
//! Standard output is what the API answered, one line of JSON, or one field of it with `--only`. Exit codes: 3 not found, 4 refused, 5 nobody there.

mod audit;
mod events;

use std::{fmt, fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) use self::audit::{AuditArgs, run as read_audit};
pub(crate) use self::events::{EventsArgs, run as read_events};
use crate::{
    cli::AdminArgs,
    cluster::reason,
    http::{self, Target},
};

/// Where to ask, and as whom.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// `https://HOST:PORT` of a node's `listen.api`, instead of --admin.
    #[arg(long, env = "MOORLINE_API")]
    api: Option<String>,
    /// Whose certificates are trusted there, in PEM; without it those this machine trusts.
    #[arg(long, env = "MOORLINE_CA")]
    ca: Option<PathBuf>,
    /// An API token. On the command line others see it: prefer the environment, or --token-file.
    #[arg(long, env = "MOORLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token.
    #[arg(long, env = "MOORLINE_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The tenant's name; not needed with a token of that tenant.
    #[arg(long, env = "MOORLINE_TENANT")]
    tenant: Option<String>,
    /// Print only this field of the answer, as it is: for scripts.
    #[arg(long, value_name = "FIELD")]
    only: Option<String>,
}

/// `moorline token …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; the first one of a cluster needs none, on the node's own machine.
    Create {
        /// Its name.
        name: String,
        /// `admin`, `operator`, `app` or `read-only`.
        #[arg(long, default_value = "admin")]
        role: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show the tokens, without their secrets.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Forget a token: it is refused from then on.
    Revoke {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `moorline tenant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant.
    Create {
        /// Its name.
        name: String,
        /// How a platform calls it (`fostrom:FLEET001`); may be given again.
        #[arg(long = "alias")]
        aliases: Vec<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show all tenants.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `moorline device …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Make a device.
    Create {
        /// Its name.
        name: String,
        /// What sort of thing it is.
        #[arg(long = "type")]
        kind: Option<String>,
        /// A label; may be given again.
        #[arg(long = "label")]
        labels: Vec<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show a page of devices.
    List {
        /// What the page before said under `next`.
        #[arg(long)]
        after: Option<String>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one device.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Forget a device with its credentials and mail.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print what a device sends up, from now on.
    Tail {
        /// Its name.
        name: String,
        /// Print each event as CloudEvent in JSON, one a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `moorline cred …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CredCommand {
    /// Make a secret for a device. It is shown once.
    Create {
        /// The device.
        device: String,
        /// `plain`, or `fostrom` as its devices want it.
        #[arg(long, default_value = "plain")]
        style: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Revoke a secret.
    Revoke {
        /// The device.
        device: String,
        /// The credential's id, as `device show` has it.
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `moorline mail …`.
#[derive(Debug, Subcommand)]
pub(crate) enum MailCommand {
    /// Send a mail to a device.
    Send {
        /// The device.
        device: String,
        /// What it is about.
        name: String,
        /// Any JSON.
        payload: Option<String>,
        /// Seconds it may wait.
        #[arg(long)]
        ttl_s: Option<u64>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show what waits for a device.
    List {
        /// The device.
        device: String,
        /// What was requeued too often instead.
        #[arg(long)]
        dead: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one mail with its history.
    Show {
        /// The device.
        device: String,
        /// The mail's id.
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take a mail back.
    Cancel {
        /// The device.
        device: String,
        /// The mail's id.
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Empty a mailbox.
    Purge {
        /// The device.
        device: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// The API said no.
#[derive(Debug)]
pub(crate) struct Declined {
    /// What the process ends with.
    pub(crate) code: u8,
    why: String,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Declined {}

fn exit_code(status: StatusCode) -> u8 {
    match status {
        StatusCode::NOT_FOUND => 3,
        StatusCode::SERVICE_UNAVAILABLE => 5,
        _ => 4,
    }
}

impl ApiArgs {
    /// The token, wherever it is.
    fn token(&self) -> anyhow::Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => {
                let text = fs::read_to_string(file);
                let text = text.with_context(|| file.display().to_string())?;
                Ok(Some(text.trim().to_owned()))
            }
            (None, None) => Ok(None),
        }
    }
}

/// A request, ready to be made.
struct Asked {
    api: ApiArgs,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Value,
}

fn asked(api: ApiArgs, method: Method, path: &[&str]) -> Asked {
    let encoded = path.iter().map(|part| encode(part)).collect::<Vec<_>>().join("/");
    Asked { api, method, path: format!("/api/v1/{encoded}"), query: Vec::new(), body: Value::Null }
}

/// As a path wants it: a device's name may have a slash in it.
fn encode(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    part.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl ApiArgs {
    fn target(&self) -> anyhow::Result<Target> {
        match &self.api {
            Some(url) => {
                Target::parse(url, self.ca.as_deref()).with_context(|| format!("--api {url}"))
            }
            None => Ok(Target::plain(&self.admin.admin)),
        }
    }
}

impl Asked {
    fn with(self, body: Value) -> Self {
        Self { body, ..self }
    }

    fn and(mut self, key: &'static str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (key, value)));
        self
    }

    async fn run(self) -> anyhow::Result<()> {
        let Self { api, method, path, query, body } = self.of_tenant();
        let token = api.token()?;
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        query.iter().for_each(|(key, value)| _ = pairs.append_pair(key, value));
        let query = pairs.finish();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let target = api.target()?;
        let (status, answer) =
            http::request_as(method, &target, &path, body, token.as_deref()).await?;
        if !status.is_success() {
            let code = exit_code(status);
            return Err(Declined { code, why: reason(&answer) }.into());
        }
        if let Some(field) = &api.only {
            let answer: Value = serde_json::from_slice(&answer).context("the answer is no JSON")?;
            let found = answer.get(field).with_context(|| format!("no {field} in the answer"))?;
            println!("{}", found.as_str().map_or_else(|| found.to_string(), str::to_owned));
        } else if !answer.is_empty() {
            println!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }

    fn of_tenant(self) -> Self {
        let tenant = self.api.tenant.clone();
        self.and("tenant", tenant)
    }
}

/// Runs it.
pub(crate) async fn token(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, role, api } => {
            let body = json!({ "name": name, "role": role });
            asked(api, Method::POST, &["tokens"]).with(body).run().await
        }
        TokenCommand::List { api } => asked(api, Method::GET, &["tokens"]).run().await,
        TokenCommand::Revoke { name, api } => {
            asked(api, Method::DELETE, &["tokens", &name]).run().await
        }
    }
}

/// Runs it.
pub(crate) async fn tenant(command: TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create { name, aliases, api } => {
            let body = json!({ "name": name, "aliases": aliases });
            asked(api, Method::POST, &["tenants"]).with(body).run().await
        }
        TenantCommand::List { api } => asked(api, Method::GET, &["tenants"]).run().await,
    }
}

/// Runs it.
pub(crate) async fn device(command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Create { name, kind, labels, api } => {
            let settings = json!({ "type": kind, "labels": labels });
            let body = json!({ "name": name, "settings": settings });
            asked(api, Method::POST, &["devices"]).with(body).run().await
        }
        DeviceCommand::List { after, api } => {
            asked(api, Method::GET, &["devices"]).and("after", after).run().await
        }
        DeviceCommand::Show { name, api } => {
            asked(api, Method::GET, &["devices", &name]).run().await
        }
        DeviceCommand::Delete { name, api } => {
            asked(api, Method::DELETE, &["devices", &name]).run().await
        }
        DeviceCommand::Tail { name, json, api } => {
            read_events(EventsArgs::of_device(name, json, api)).await
        }
    }
}

/// Runs it.
pub(crate) async fn cred(command: CredCommand) -> anyhow::Result<()> {
    match command {
        CredCommand::Create { device, style, api } => {
            let path = ["devices", &device, "credentials"];
            asked(api, Method::POST, &path).with(json!({ "style": style })).run().await
        }
        CredCommand::Revoke { device, id, api } => {
            asked(api, Method::DELETE, &["devices", &device, "credentials", &id]).run().await
        }
    }
}

/// Runs it.
pub(crate) async fn mail(command: MailCommand) -> anyhow::Result<()> {
    match command {
        MailCommand::Send { device, name, payload, ttl_s, api } => {
            let payload: Value = match payload {
                Some(text) => serde_json::from_str(&text).context("the payload is no JSON")?,
                None => Value::Null,
            };
            let body = json!({ "name": name, "payload": payload, "ttl_s": ttl_s });
            asked(api, Method::POST, &["devices", &device, "mailbox"]).with(body).run().await
        }
        MailCommand::List { device, dead, api } => {
            let asked = asked(api, Method::GET, &["devices", &device, "mailbox"]);
            asked.and("dead", dead.then(|| "true".to_owned())).run().await
        }
        MailCommand::Show { device, id, api } => {
            asked(api, Method::GET, &["devices", &device, "mailbox", &id]).run().await
        }
        MailCommand::Cancel { device, id, api } => {
            asked(api, Method::DELETE, &["devices", &device, "mailbox", &id]).run().await
        }
        MailCommand::Purge { device, api } => {
            asked(api, Method::DELETE, &["devices", &device, "mailbox"]).run().await
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_go_into_a_path_as_they_are() {
        assert_eq!(super::encode("pump-1_a.b"), "pump-1_a.b");
        assert_eq!(super::encode("type/id ü"), "type%2Fid%20%C3%BC");
    }
}
