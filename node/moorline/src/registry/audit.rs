//! `moorline audit`: prints who changed what, a line for each record.

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::{ApiArgs, Declined, encode, exit_code};
use crate::{cluster::reason, http};

/// Records of one page.
const LIMIT: &str = "500";

/// `moorline audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// From behind this cursor: what an earlier run printed to standard error.
    #[arg(long)]
    after: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Runs it.
pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    let AuditArgs { mut after, api } = args;
    let json = api.json;
    let (token, target) = (api.token()?, api.target()?);
    loop {
        let mut path = format!("/api/v1/audit?limit={LIMIT}");
        for (key, value) in [("tenant", &api.tenant), ("after", &after)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encode(value)));
            }
        }
        let body = Vec::new();
        let (status, answer) =
            http::request_as(Method::GET, &target, &path, body, token.as_deref()).await?;
        if status != StatusCode::OK {
            return Err(Declined { code: exit_code(status), why: reason(&answer) }.into());
        }
        let page: Value = serde_json::from_slice(&answer)?;
        for record in page["records"].as_array().into_iter().flatten() {
            println!("{}", if json { record.to_string() } else { line(record) });
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => {
                eprintln!("--after {}", page["cursor"].as_str().unwrap_or_default());
                return Ok(());
            }
        }
    }
}

/// For eyes: when, who, what, and its version before and after.
fn line(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
    let version =
        |field: &str| record[field].as_u64().map_or_else(|| "-".into(), |v| v.to_string());
    let fields = ["time", "actor", "address", "action", "tenant", "object"].map(text);
    format!("{} {}→{}", fields.join(" "), version("before"), version("after"))
}
