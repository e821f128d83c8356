//! `moorline ca …`: an authority in a directory, and the certificates it gives.
//!
//! # Invariants
//!
//! - **Nothing is overwritten**, and a key is its owner's alone (0600). Checked by `tests/it/tls.rs`.
//!
//! # Deliberately absent
//!
//! Lists of what was given, and revocation: what a client may do is in the registry, and is asked each time.

mod authority;
pub(crate) mod dev;

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use self::authority::{Authority, Purpose, Wanted};

/// `moorline ca …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make an authority: ca.pem, which everybody may have, and ca.key, which nobody else may.
    Init(InitArgs),
    /// Make a key and a certificate: NAME.pem and NAME.key.
    Issue(IssueArgs),
}

/// `moorline ca init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where its files go; made if it is not there.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// What it is called.
    #[arg(long, default_value = "Moorline CA")]
    name: String,
    /// How long it counts.
    #[arg(long, default_value_t = 3650, value_parser = days())]
    days: u32,
    /// Print where the files are as JSON.
    #[arg(long)]
    json: bool,
}

/// `moorline ca issue`.
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Whose it is: a host's name, a device's, or with --node the name all nodes of the cluster share (`cluster.tls.domain`).
    name: String,
    /// A host name or an address that clients use for it; may be given again. Without any: NAME.
    #[arg(long = "san")]
    sans: Vec<String>,
    /// For a client (a device), which is asked for no host name.
    #[arg(long, conflicts_with_all = ["sans", "node"])]
    client: bool,
    /// For node number N of a cluster: `cluster.tls`. Files are called nodeN.
    #[arg(long, value_name = "N", conflicts_with = "sans")]
    node: Option<u64>,
    /// How long it counts.
    #[arg(long, default_value_t = 397, value_parser = days())]
    days: u32,
    /// Where the authority's files are, and the new ones go.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Print where the files are as JSON.
    #[arg(long)]
    json: bool,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    // A century is for ever.
    clap::value_parser!(u32).range(1..=36_525)
}

/// Runs it.
pub(crate) fn run(command: CaCommand) -> anyhow::Result<()> {
    match command {
        CaCommand::Init(InitArgs { dir, name, days, json }) => {
            let authority = Authority::make(&dir, &name, days)?;
            tell(json, &[("cert", &authority.cert), ("key", &authority.key)]);
        }
        CaCommand::Issue(args) => issue(args)?,
    }
    Ok(())
}

fn issue(args: IssueArgs) -> anyhow::Result<()> {
    let IssueArgs { name, sans, client, node, days, dir, json } = args;
    let (file, sans, purpose) = match node {
        Some(node) => (format!("node{node}"), of_node(node, &name), Purpose::Node),
        None if client => (name.clone(), Vec::new(), Purpose::Client),
        None if sans.is_empty() => (name.clone(), vec![name.clone()], Purpose::Server),
        None => (name.clone(), sans, Purpose::Server),
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if file.starts_with('.') || file.is_empty() || !file.chars().all(plain) {
        bail!("{file:?} can be no file's name: letters, digits, `-`, `_` and `.` can");
    }
    let authority = Authority::open(&dir)?;
    let issued = authority.issue(&dir.join(file), &Wanted { name: &name, sans, purpose, days })?;
    tell(json, &[("cert", &issued.cert), ("key", &issued.key), ("ca", &authority.cert)]);
    Ok(())
}

/// The names of a node's certificate: the one all nodes share, and its own, which says which node it is.
fn of_node(node: u64, domain: &str) -> Vec<String> {
    vec![domain.to_owned(), moorline_group::wire::node_name(node, domain)]
}

fn tell(as_json: bool, files: &[(&str, &Path)]) {
    if as_json {
        let files = files.iter().map(|(what, path)| ((*what).to_owned(), json!(path)));
        println!("{}", serde_json::Value::Object(files.collect()));
    } else {
        for (what, path) in files {
            println!("{what}  {}", path.display());
        }
    }
}
