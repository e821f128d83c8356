//! `moorline webhook …`: where a tenant's events are posted to.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::{ApiArgs, asked, confirmed};

/// `moorline webhook …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Make a webhook. What its requests are signed with is shown once, as `secret`.
    Create(CreateArgs),
    /// Show the webhooks, without their secrets.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one webhook, without its secrets.
    Get {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show how it goes: what it has sent, what fails and why, how far behind it is.
    Status {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Post one event of type `moorline.test` to it.
    Test {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Send nothing for now. Events wait, as long as the stream keeps them.
    Pause {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Go on, also when it paused by itself.
    Resume {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Change what a JSON merge patch says of it.
    Update {
        /// Its name.
        name: String,
        /// `{"filter": {"types": ["presence"]}, "headers": {"authorization": null}}`
        patch: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Forget a webhook. What it has not sent is not sent.
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

/// What a webhook is to be.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name.
    name: String,
    /// Where: `https://` or `http://`.
    url: String,
    /// Only events of this kind: `datapoint`, `presence.offline`, …; may be given again.
    #[arg(long = "type")]
    types: Vec<String>,
    /// Only those of this channel, in which `*` stands for anything; may be given again.
    #[arg(long = "channel")]
    channels: Vec<String>,
    /// Only those of devices of this name, in which `*` stands for anything; may be given again.
    #[arg(long = "device")]
    devices: Vec<String>,
    /// Only those of devices with this label; may be given again.
    #[arg(long = "label")]
    labels: Vec<String>,
    /// Only those that came by this protocol: `mqtt`, `http`, …; may be given again.
    #[arg(long = "protocol")]
    protocols: Vec<String>,
    /// A file of lines `Name: value`: headers of each request, whose values are never shown again.
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
    /// Events of one request at most.
    #[arg(long)]
    batch_max: Option<u16>,
    /// How long the receiver may take, in milliseconds.
    #[arg(long)]
    timeout_ms: Option<u32>,
    /// Leave out what it refuses again and again, instead of a pause.
    #[arg(long)]
    skip_refused: bool,
    /// Send nothing yet.
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Lines `Name: value`; empty ones are none.
fn headers(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').context("headers: `Name: value` is wanted")?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

impl CreateArgs {
    async fn run(self) -> anyhow::Result<()> {
        let text = match &self.headers_file {
            None => String::new(),
            Some(file) => fs::read_to_string(file).with_context(|| file.display().to_string())?,
        };
        let mut body = json!({
            "name": self.name,
            "url": self.url,
            "filter": {
                "types": self.types,
                "channels": self.channels,
                "devices": self.devices,
                "labels": self.labels,
                "protocols": self.protocols,
            },
            "headers": headers(&text)?,
            "refused": if self.skip_refused { "skip" } else { "pause" },
            "paused": self.paused,
        });
        let numbers =
            [("batch_max", self.batch_max.map(u32::from)), ("timeout_ms", self.timeout_ms)];
        let said =
            numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        if let Some(body) = body.as_object_mut() {
            body.extend(said.collect::<Map<String, Value>>());
        }
        asked(self.api, Method::POST, &["webhooks"]).with(body).run().await
    }
}

async fn change(api: ApiArgs, name: &str, patch: Value) -> anyhow::Result<()> {
    asked(api, Method::PATCH, &["webhooks", name]).with(patch).run().await
}

/// Runs it.
pub(crate) async fn run(command: WebhookCommand) -> anyhow::Result<()> {
    match command {
        WebhookCommand::Create(args) => args.run().await,
        WebhookCommand::List { api } => asked(api, Method::GET, &["webhooks"]).run().await,
        WebhookCommand::Get { name, api } => {
            asked(api, Method::GET, &["webhooks", &name]).run().await
        }
        WebhookCommand::Status { name, api } => {
            asked(api, Method::GET, &["webhooks", &name, "status"]).run().await
        }
        WebhookCommand::Test { name, api } => {
            asked(api, Method::POST, &["webhooks", &name, "test"]).run().await
        }
        WebhookCommand::Pause { name, api } => change(api, &name, json!({ "paused": true })).await,
        WebhookCommand::Resume { name, api } => {
            change(api, &name, json!({ "paused": false })).await
        }
        WebhookCommand::Update { name, patch, api } => {
            change(api, &name, super::patch_of(&patch)?).await
        }
        WebhookCommand::Delete { name, yes, api } => {
            confirmed(&format!("Forget webhook {name}"), yes)?;
            asked(api, Method::DELETE, &["webhooks", &name]).run().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stand_in_lines() {
        let read = headers("Authorization: Bearer a:b\n\n x-site:north \n").unwrap();
        let expected = [("Authorization", "Bearer a:b"), ("x-site", "north")];
        assert!(read.iter().map(|(name, value)| (&**name, &**value)).eq(expected));
        assert!(headers("nothing").is_err());
    }
}
