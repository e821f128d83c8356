//! `moorline cred …`: credentials of devices. What is secret is read from a file or standard input, never from the command line,
//! where others see it.

use std::{fs, io::Read, path::PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::{ApiArgs, asked};

/// Bytes of a file with a secret: none is longer.
const SECRET_BYTES_MAX: u64 = 4_096;

/// `moorline cred …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CredCommand {
    /// Make a credential for a device. What is generated is shown once, as `secret`.
    Create(Box<CreateArgs>),
    /// Show a device's credentials, without their secrets.
    List {
        /// The device.
        device: String,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Revoke a credential: live connections that came by it are closed.
    Revoke {
        /// The device.
        device: String,
        /// The credential's id, as `cred list` has it.
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// What is asked for.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The device.
    device: String,
    /// Which sort.
    #[arg(long, value_enum, default_value = "secret")]
    kind: Kind,
    /// Of a secret: `plain`, or `fostrom` as its devices want it.
    #[arg(long)]
    style: Option<String>,
    /// Of a password or mqtt-basic: the user name.
    #[arg(long)]
    user: Option<String>,
    /// Of mqtt-basic: the client id.
    #[arg(long)]
    client_id: Option<String>,
    /// Of mqtt-basic: generate a password.
    #[arg(long)]
    generate: bool,
    /// Of a token: the API of its platform shows it again to operators.
    #[arg(long)]
    readable: bool,
    /// A file, or `-`, with a token, a password, or a key in hexadecimal digits that exists already.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Of a certificate: it, in PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "sha256")]
    certificate: Option<PathBuf>,
    /// Of a certificate: its SHA-256, or that of its key.
    #[arg(long)]
    sha256: Option<String>,
    /// Of a certificate: whether its `key` counts, or the `certificate` as a whole.
    #[arg(long)]
    pin: Option<String>,
    /// Of a pre-shared key: its identity; DEVICE@TENANT without it.
    #[arg(long)]
    identity: Option<String>,
    /// From when on it counts, in milliseconds since 1970.
    #[arg(long)]
    not_before_ms: Option<u64>,
    /// Until when.
    #[arg(long)]
    not_after_ms: Option<u64>,
    #[command(flatten)]
    api: ApiArgs,
}

/// A sort of credential.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Generated, for DEVICE@TENANT.
    Secret,
    /// A token that is user name enough.
    Token,
    /// A user name and a password.
    Password,
    /// Client id, user name and password, some of them.
    MqttBasic,
    /// A pinned certificate.
    Certificate,
    /// A pre-shared key of TLS.
    Psk,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Token => "token",
            Self::Password => "password",
            Self::MqttBasic => "mqtt-basic",
            Self::Certificate => "certificate",
            Self::Psk => "psk",
        }
    }

    /// The field of what is read from a file.
    fn secret_field(self) -> anyhow::Result<&'static str> {
        match self {
            Self::Token => Ok("token"),
            Self::Password | Self::MqttBasic => Ok("password"),
            Self::Psk => Ok("key"),
            Self::Secret | Self::Certificate => bail!("--secret-file: this kind has none"),
        }
    }
}

fn secret_of(file: &PathBuf) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
    };
    read.with_context(|| file.display().to_string())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Fields that are there.
fn body(fields: Vec<(&str, Option<Value>)>) -> Value {
    let said = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
    Value::Object(said.collect::<Map<_, _>>())
}

/// Runs it.
pub(crate) async fn run(command: CredCommand) -> anyhow::Result<()> {
    match command {
        CredCommand::Create(args) => create(*args).await,
        CredCommand::List { device, api } => {
            asked(api, Method::GET, &["devices", &device, "credentials"]).run().await
        }
        CredCommand::Revoke { device, id, api } => {
            asked(api, Method::DELETE, &["devices", &device, "credentials", &id]).run().await
        }
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let text = |text: Option<String>| text.map(Value::from);
    let mut fields = vec![
        ("kind", Some(json!(args.kind.name()))),
        ("style", text(args.style)),
        ("user", text(args.user)),
        ("client_id", text(args.client_id)),
        ("generate", args.generate.then_some(json!(true))),
        ("readable", args.readable.then_some(json!(true))),
        ("sha256", text(args.sha256)),
        ("pin", text(args.pin)),
        ("identity", text(args.identity)),
        ("not_before_ms", args.not_before_ms.map(Value::from)),
        ("not_after_ms", args.not_after_ms.map(Value::from)),
    ];
    if let Some(file) = &args.secret_file {
        fields.push((args.kind.secret_field()?, Some(secret_of(file)?.into())));
    }
    if let Some(file) = &args.certificate {
        let pem = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        fields.push(("certificate", Some(pem.into())));
    }
    let path = ["devices", &args.device, "credentials"];
    asked(args.api, Method::POST, &path).with(body(fields)).run().await
}
