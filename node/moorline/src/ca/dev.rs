//! A development authority: made by a node (or a demo) that is to speak TLS and was given no certificate.
//!
//! # Invariants
//!
//! - **The authority is made once**, so that clients who trust it go on trusting it; its certificate is made anew before it expires.
//!   Checked by `tests/it/tls.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use moorline_edge::TlsConfig;

use super::authority::{Authority, CERT, Purpose, Wanted};

/// The directory of its files, beside a node's data.
const DIR: &str = "tls";
/// The certificate's and the key's file.
const SERVER: &str = "server";
/// How long the authority counts.
const AUTHORITY_DAYS: u32 = 3_650;
/// How long a certificate counts.
const SERVER_DAYS: u32 = 397;
/// A certificate that counts for less is made anew.
const SERVER_LEFT_MIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Files for TLS.
pub(crate) struct Dev {
    /// What clients have to trust.
    pub(crate) ca: PathBuf,
    /// What is shown to them.
    pub(crate) tls: TlsConfig,
}

/// Makes what is missing of an authority and a certificate below `dir`, for this machine and these names.
pub(crate) fn prepare(dir: &Path, names: Vec<String>) -> anyhow::Result<Dev> {
    let dir = dir.join(DIR);
    let ca = dir.join(CERT);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let authority = if ca.exists() {
        Authority::open(&dir)
    } else {
        Authority::make(&dir, &format!("Moorline development CA of {host}"), AUTHORITY_DAYS)
    };
    let authority =
        authority.context("the development CA; remove its directory for another one")?;
    let file = dir.join(SERVER);
    let tls = TlsConfig::of(file.with_extension("pem"), file.with_extension("key"));
    if !is_good(&tls) {
        for old in [&tls.cert, &tls.key].into_iter().filter(|path| path.exists()) {
            fs::remove_file(old).with_context(|| format!("cannot replace {}", old.display()))?;
        }
        let mut sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), host];
        sans.extend(names);
        sans.sort();
        sans.dedup();
        let wanted =
            Wanted { name: "localhost", sans, purpose: Purpose::Server, days: SERVER_DAYS };
        authority.issue(&file, &wanted)?;
    }
    Ok(Dev { ca, tls })
}

fn is_good(tls: &TlsConfig) -> bool {
    let until = SystemTime::now() + SERVER_LEFT_MIN;
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    tls.load().is_ok_and(|tls| tls.expires_s() > until.cast_signed())
}
