//! `moorline token|tenant|device|cred|mail|events …`: requests to the API of a node, as JSON on standard output.
//!
//! Standard output is what the API answered: a table or lines on a terminal, JSON elsewhere and with `--json`, one field of it
//! with `--only`. Exit codes: 3 not found, 4 refused, 5 nobody there.

mod audit;
mod bulk;
mod credentials;
mod events;
mod explain;
mod moved;
mod provisioning;
mod table;
mod webhooks;

use std::{
    fmt, fs,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) use self::audit::{AuditArgs, run as read_audit};
use self::bulk::{BroadcastArgs, ExportArgs, ImportArgs};
pub(crate) use self::{
    credentials::{CredCommand, run as cred},
    events::{EventsArgs, run as read_events},
    explain::{ExplainCommand, run as explain},
    moved::{MovedArgs, run as import_moved},
    provisioning::{ProvisioningCommand, run as provisioning_key},
    webhooks::{WebhookCommand, run as webhook},
};
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
    /// Print JSON, also on a terminal; lines of it where there are many.
    #[arg(long)]
    json: bool,
    /// Of a request that makes or sends something: the same key again within 24 hours gets the first answer.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
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
        /// Of a tenant's token: only for devices of this name, in which `*` stands for anything; may be given again.
        #[arg(long = "device")]
        devices: Vec<String>,
        /// Of a tenant's token: only for devices with this label; may be given again.
        #[arg(long = "label")]
        labels: Vec<String>,
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
        /// Let its devices show their credentials without TLS.
        #[arg(long)]
        plaintext: bool,
        /// Let its devices have passwords that people chose.
        #[arg(long)]
        chosen_passwords: bool,
        /// A PEM file of authorities whose certificates name its devices.
        #[arg(long, value_name = "FILE")]
        trust_anchors: Option<PathBuf>,
        /// A PEM file with their lists of revoked certificates.
        #[arg(long, value_name = "FILE", requires = "trust_anchors")]
        revoked: Option<PathBuf>,
        /// By what a certificate names its device: `common-name`, `dns-name` or `uri`.
        #[arg(long, default_value = "common-name")]
        named_by: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show all tenants.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one tenant.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change what a JSON merge patch says of a tenant.
    Update {
        /// Its name.
        name: String,
        /// `{"settings": {"mail": {"items-max": 100}}}`: `null` takes something away.
        patch: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Let no client of it connect, and turn out those that have.
    Disable {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Let its clients connect again.
    Enable {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Forget a tenant, which must have no devices and tokens any more.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
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
        /// `device`, or `gateway`, which speaks for others too.
        #[arg(long, default_value = "device")]
        class: String,
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
    /// Change what a JSON merge patch says of a device.
    Update {
        /// Its name.
        name: String,
        /// `{"settings": {"labels": ["north"]}}`: `null` takes something away.
        patch: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Let a device connect no more, and turn it out if it has.
    Disable {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Let a device connect again.
    Enable {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make many devices from lines of JSON. The same file again goes on where it was cut off.
    Import(ImportArgs),
    /// Write all devices as lines of JSON, as `import` takes them; without secrets.
    Export(ExportArgs),
    /// Forget a device with its credentials and mail.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print what a device sends up, from now on.
    Tail {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `moorline mail …`.
#[derive(Debug, Subcommand)]
pub(crate) enum MailCommand {
    /// Send a mail to a device, or to all devices with a label.
    Send(SendArgs),
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
    /// Send a mail to all devices with a label: as `send --label`.
    Broadcast(BroadcastArgs),
    /// Settle the mail at the front in the device's place: it is done.
    Ack(SettleArgs),
    /// The same: it could not be done, and is removed.
    Reject(SettleArgs),
    /// The same: it goes behind all others.
    Requeue(SettleArgs),
    /// Empty a mailbox.
    Purge {
        /// The device.
        device: String,
        /// What was requeued too often instead.
        #[arg(long)]
        dead: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// To whom, and what.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The device; left out with --label.
    device: String,
    /// What it is about.
    name: Option<String>,
    /// Any JSON.
    payload: Option<String>,
    /// To all devices with this label: what follows is what it is about, and JSON.
    #[arg(long)]
    label: Option<String>,
    /// Seconds it may wait.
    #[arg(long)]
    ttl_s: Option<u64>,
    /// A UUIDv7: the same again is sent once to each.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which mail.
#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// The device.
    device: String,
    /// The mail's id: it must be at the front.
    id: String,
    #[command(flatten)]
    api: ApiArgs,
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

    /// A path of the API with its query, and the tenant in it.
    fn path(&self, path: &[&str], query: Vec<(&str, String)>) -> String {
        let path = path.iter().map(|part| encode(part)).collect::<Vec<_>>().join("/");
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        let tenant = self.tenant.clone().map(|tenant| ("tenant", tenant));
        query.into_iter().chain(tenant).for_each(|(key, value)| _ = pairs.append_pair(key, &value));
        let query = pairs.finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/api/v1/{path}{mark}{query}")
    }

    /// Prints an answer as whoever reads it wants it.
    fn print(&self, answer: &[u8]) -> anyhow::Result<()> {
        if let Some(field) = &self.only {
            let answer: Value = serde_json::from_slice(answer).context("the answer is no JSON")?;
            let found = answer.get(field).with_context(|| format!("no {field} in the answer"))?;
            println!("{}", found.as_str().map_or_else(|| found.to_string(), str::to_owned));
        } else if self.json || !io::stdout().is_terminal() {
            if !answer.is_empty() {
                println!("{}", String::from_utf8_lossy(answer));
            }
        } else if let Ok(answer) = serde_json::from_slice(answer) {
            print!("{}", table::text(&answer));
        }
        Ok(())
    }
}

/// Asks whoever sits there before something is gone for good.
fn confirmed(what: &str, yes: bool) -> anyhow::Result<()> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{what}? It is gone for good. [y/N] ");
    io::stderr().flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    anyhow::ensure!(matches!(said.trim(), "y" | "yes"), "nothing was done");
    Ok(())
}

/// What is in a file, if there is one.
fn text_of(file: Option<PathBuf>) -> anyhow::Result<String> {
    let Some(file) = file else { return Ok(String::new()) };
    fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// A request, ready to be made.
struct Asked {
    api: ApiArgs,
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Value,
}

fn asked(api: ApiArgs, method: Method, path: &[&str]) -> Asked {
    let path = path.iter().map(ToString::to_string).collect();
    Asked { api, method, path, query: Vec::new(), body: Value::Null }
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
        let Self { api, method, path, query, body } = self;
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let path = api.path(&path, query);
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let mut headers = http::bearer(api.token()?.as_deref());
        let key = api.idempotency_key.clone().filter(|_| method == Method::POST);
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let (status, answer) =
            http::request_with(method, &api.target()?, &path, body, headers).await?;
        if !status.is_success() {
            let code = exit_code(status);
            return Err(Declined { code, why: reason(&answer) }.into());
        }
        api.print(&answer)
    }
}

/// A merge patch as it was typed.
fn patch_of(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).context("the patch is no JSON")
}

/// Runs it.
pub(crate) async fn token(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, role, devices, labels, api } => {
            let scope = json!({ "devices": devices, "labels": labels });
            let body = json!({ "name": name, "role": role, "scope": scope });
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
        TenantCommand::Create {
            name,
            aliases,
            plaintext,
            chosen_passwords,
            trust_anchors,
            revoked,
            named_by,
            api,
        } => {
            let (certificates, revoked) = (text_of(trust_anchors)?, text_of(revoked)?);
            let settings = json!({
                "plaintext": plaintext,
                "chosen-passwords": chosen_passwords,
                "trust-anchors":
                    { "certificates": certificates, "revoked": revoked, "named-by": named_by },
            });
            let body = json!({ "name": name, "aliases": aliases, "settings": settings });
            asked(api, Method::POST, &["tenants"]).with(body).run().await
        }
        TenantCommand::List { api } => asked(api, Method::GET, &["tenants"]).run().await,
        TenantCommand::Show { name, api } => {
            asked(api, Method::GET, &["tenants", &name]).run().await
        }
        TenantCommand::Update { name, patch, api } => {
            asked(api, Method::PATCH, &["tenants", &name]).with(patch_of(&patch)?).run().await
        }
        TenantCommand::Disable { name, api } => {
            let patch = json!({ "enabled": false });
            asked(api, Method::PATCH, &["tenants", &name]).with(patch).run().await
        }
        TenantCommand::Enable { name, api } => {
            let patch = json!({ "enabled": true });
            asked(api, Method::PATCH, &["tenants", &name]).with(patch).run().await
        }
        TenantCommand::Delete { name, yes, api } => {
            confirmed(&format!("Forget tenant {name}"), yes)?;
            asked(api, Method::DELETE, &["tenants", &name]).run().await
        }
    }
}

/// Runs it.
pub(crate) async fn device(command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Create { name, kind, class, labels, api } => {
            let settings = json!({ "type": kind, "class": class, "labels": labels });
            let body = json!({ "name": name, "settings": settings });
            asked(api, Method::POST, &["devices"]).with(body).run().await
        }
        DeviceCommand::List { after, api } => {
            asked(api, Method::GET, &["devices"]).and("after", after).run().await
        }
        DeviceCommand::Show { name, api } => {
            asked(api, Method::GET, &["devices", &name]).run().await
        }
        DeviceCommand::Update { name, patch, api } => {
            asked(api, Method::PATCH, &["devices", &name]).with(patch_of(&patch)?).run().await
        }
        DeviceCommand::Disable { name, api } => {
            let patch = json!({ "enabled": false });
            asked(api, Method::PATCH, &["devices", &name]).with(patch).run().await
        }
        DeviceCommand::Enable { name, api } => {
            let patch = json!({ "enabled": true });
            asked(api, Method::PATCH, &["devices", &name]).with(patch).run().await
        }
        DeviceCommand::Import(args) => bulk::import(args).await,
        DeviceCommand::Export(args) => bulk::export(args).await,
        DeviceCommand::Delete { name, yes, api } => {
            confirmed(&format!("Forget device {name} with its mail"), yes)?;
            asked(api, Method::DELETE, &["devices", &name]).run().await
        }
        DeviceCommand::Tail { name, api } => read_events(EventsArgs::of_device(name, api)).await,
    }
}

/// Runs it.
pub(crate) async fn mail(command: MailCommand) -> anyhow::Result<()> {
    match command {
        MailCommand::Send(args) => send(args).await,
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
        MailCommand::Broadcast(args) => bulk::broadcast(args).await,
        MailCommand::Ack(args) => settle(args, "ack").await,
        MailCommand::Reject(args) => settle(args, "reject").await,
        MailCommand::Requeue(args) => settle(args, "requeue").await,
        MailCommand::Purge { device, dead, yes, api } => {
            confirmed(&format!("Empty the mailbox of {device}"), yes)?;
            let asked = asked(api, Method::DELETE, &["devices", &device, "mailbox"]);
            asked.and("dead", dead.then(|| "true".to_owned())).run().await
        }
    }
}

async fn send(args: SendArgs) -> anyhow::Result<()> {
    let SendArgs { device, name, payload, label, ttl_s, id, api } = args;
    if let Some(label) = label {
        // There is no device: everything stands one place further ahead.
        anyhow::ensure!(payload.is_none(), "with --label no device is named: NAME [PAYLOAD]");
        return bulk::broadcast(BroadcastArgs::to(label, (device, name), (ttl_s, id), api)).await;
    }
    let name = name.context("what the mail is about is missing: DEVICE NAME [PAYLOAD]")?;
    let payload: Value = match payload {
        Some(text) => serde_json::from_str(&text).context("the payload is no JSON")?,
        None => Value::Null,
    };
    let body = json!({ "name": name, "payload": payload, "ttl_s": ttl_s, "id": id });
    asked(api, Method::POST, &["devices", &device, "mailbox"]).with(body).run().await
}

async fn settle(args: SettleArgs, op: &str) -> anyhow::Result<()> {
    let SettleArgs { device, id, api } = args;
    let path = ["devices", &device, "mailbox", &id, "settle"];
    asked(api, Method::POST, &path).with(json!({ "op": op })).run().await
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_go_into_a_path_as_they_are() {
        assert_eq!(super::encode("pump-1_a.b"), "pump-1_a.b");
        assert_eq!(super::encode("type/id ü"), "type%2Fid%20%C3%BC");
    }
}
