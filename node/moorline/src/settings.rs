//! `moorline config reload` and `diff`, `moorline log level`: settings of a node that runs.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use crate::{
    cli::AdminArgs,
    config::{Changes, Config, differing},
    http,
};

/// `moorline config reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Which node.
    #[command(flatten)]
    admin: AdminArgs,
    /// Print what was taken and what needs a restart as JSON.
    #[arg(long)]
    json: bool,
}

/// `moorline config diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The file.
    config: PathBuf,
    /// Which node.
    #[command(flatten)]
    admin: AdminArgs,
}

/// `moorline log …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Change what a node logs, until it is started again or another `log.level` is reloaded.
    Level(LevelArgs),
}

/// `moorline log level`.
#[derive(Debug, Args)]
pub(crate) struct LevelArgs {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,moorline_group=debug`.
    level: String,
    /// Which node.
    #[command(flatten)]
    admin: AdminArgs,
}

/// Has a node read its file again.
pub(crate) async fn reload(args: ReloadArgs) -> anyhow::Result<()> {
    let body = ask(Method::POST, &args.admin, "/api/v1/config/reload").await?;
    if args.json {
        println!("{body}");
        return Ok(());
    }
    let Changes { taken, needs_restart } = serde_json::from_value(body)?;
    taken.iter().for_each(|key| println!("taken          {key}"));
    needs_restart.iter().for_each(|key| println!("needs restart  {key}"));
    if taken.is_empty() && needs_restart.is_empty() {
        println!("nothing has changed");
    }
    Ok(())
}

/// Prints what differs between a file and what runs.
pub(crate) async fn diff(args: DiffArgs) -> anyhow::Result<()> {
    let file = Config::load(&args.config)?.shown();
    let body = ask(Method::GET, &args.admin, "/api/v1/config").await?;
    let runs: BTreeMap<String, Value> = serde_json::from_value(body)?;
    let value = |of: &BTreeMap<String, Value>, key: &str| {
        of.get(key).map_or_else(|| "(none)".to_owned(), Value::to_string)
    };
    for key in differing(&runs, &file) {
        println!("{key}: runs {}, file {}", value(&runs, &key), value(&file, &key));
    }
    Ok(())
}

/// Changes what a node logs.
pub(crate) async fn log(command: LogCommand) -> anyhow::Result<()> {
    let LogCommand::Level(LevelArgs { level, admin }) = command;
    let mut path = "/api/v1/log/level?".to_owned();
    path.push_str(
        &form_urlencoded::Serializer::new(String::new()).append_pair("set", &level).finish(),
    );
    ask(Method::POST, &admin, &path).await?;
    Ok(())
}

async fn ask(method: Method, at: &AdminArgs, path: &str) -> anyhow::Result<Value> {
    let (status, body) = http::request(method, &at.admin, path, Vec::new()).await?;
    let body: Value = serde_json::from_slice(&body)?;
    if !status.is_success() {
        bail!("{}", body["detail"].as_str().unwrap_or("the node refused"));
    }
    Ok(body)
}
