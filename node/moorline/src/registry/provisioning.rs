//! `moorline provisioning-key …`: keys by which devices make themselves known.

use clap::Subcommand;
use hyper::Method;
use serde_json::json;

use super::{ApiArgs, asked};

/// `moorline provisioning-key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProvisioningCommand {
    /// Make a key. It is shown once, as `secret`.
    Create {
        /// Its name.
        name: String,
        /// Names that its devices may have, in which `*` stands for anything; may be given again.
        #[arg(long = "device", required = true)]
        devices: Vec<String>,
        /// A label that its devices get; may be given again.
        #[arg(long = "label")]
        labels: Vec<String>,
        /// What sort of things they are.
        #[arg(long = "type")]
        kind: Option<String>,
        /// How many devices it may make.
        #[arg(long)]
        devices_max: u32,
        /// Until when it counts, in milliseconds since 1970.
        #[arg(long)]
        not_after_ms: Option<u64>,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show the keys, without their secrets.
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Forget a key. Its devices stay.
    Revoke {
        /// Its name.
        name: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// Runs it.
pub(crate) async fn run(command: ProvisioningCommand) -> anyhow::Result<()> {
    match command {
        ProvisioningCommand::Create {
            name,
            devices,
            labels,
            kind,
            devices_max,
            not_after_ms,
            api,
        } => {
            let body = json!({
                "name": name,
                "devices": devices,
                "labels": labels,
                "type": kind,
                "devices_max": devices_max,
                "not_after_ms": not_after_ms,
            });
            asked(api, Method::POST, &["provisioning-keys"]).with(body).run().await
        }
        ProvisioningCommand::List { api } => {
            asked(api, Method::GET, &["provisioning-keys"]).run().await
        }
        ProvisioningCommand::Revoke { name, api } => {
            asked(api, Method::DELETE, &["provisioning-keys", &name]).run().await
        }
    }
}
