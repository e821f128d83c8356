//! `[tls]`: the files a node's TLS is made of, read and checked as a whole.
//!
//! # Invariants
//!
//! - **What can be read is not enough**: certificates are in order, each by the next one's owner, and the key fits the first.
//!   Whoever asks for it also hears whether they count now. Checked by `tests/tls.rs` and `tests/tls_reload.rs`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::NoServerSessionStorage,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::verifier::AnyCertificate;

/// `[tls]`: what a node shows its clients, and asks of them. Read when the node starts, and again when a file changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority, in PEM, its own first.
    pub cert: PathBuf,
    /// The certificate's private key, in PEM.
    pub key: PathBuf,
    /// Whether clients are asked for a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// They may show one, and have to have its key; whose it is, is asked later.
    #[default]
    Ask,
    /// They are not asked.
    Off,
}

/// Files that make no TLS; the text names the key.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// The certificates can't be read, or do not belong together.
    #[error("cert: {path}: {why}")]
    Cert {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The private key can't be read.
    #[error("key: {path}: {why}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Both can be read, and do not fit.
    #[error("cert and key do not work together: {0}")]
    Pair(rustls::Error),
    /// The system gives no randomness, or has another fault that no file can cure.
    #[error("TLS can't be had: {0}")]
    System(String),
}

/// What was made of the files.
pub(super) struct Loaded {
    /// Asks clients for certificates, if the configuration says so.
    pub(super) asking: Arc<ServerConfig>,
    /// Does not.
    pub(super) silent: Arc<ServerConfig>,
    /// When the certificates count.
    pub(super) valid: Validity,
    /// What the files were.
    pub(super) stamps: Stamps,
}

/// From when until when, in seconds since the Unix epoch: the time when all certificates of the chain count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from_s: i64,
    pub(super) until_s: i64,
}

impl Validity {
    /// Why it does not count now.
    pub(super) fn complaint(self) -> Option<&'static str> {
        self.complaint_in(0)
    }

    /// Why it will not count in so many seconds.
    pub(super) fn complaint_in(self, seconds: i64) -> Option<&'static str> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_add(seconds);
        if now_s > self.until_s {
            return Some("it has expired");
        }
        (now_s < self.from_s).then_some("it does not count yet")
    }
}

/// What two files were when they were read: another one behind the same name is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 2]);

/// Device, inode, bytes, and when they were written, in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

impl TlsConfig {
    /// Files with everything else as it is by default.
    #[must_use]
    pub fn of(cert: PathBuf, key: PathBuf) -> Self {
        Self { cert, key, client_certificates: ClientCertificates::default() }
    }

    /// What the files are now.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps([stamp(&self.cert), stamp(&self.key)])
    }

    /// Reads and checks both files; whether the certificates count now is not looked at.
    pub(super) fn read(&self) -> Result<Loaded, TlsConfigError> {
        let stamps = self.stamps();
        let cert = |why: String| TlsConfigError::Cert { path: self.cert.clone(), why };
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| cert(explain(&error, &self.cert)))?;
        if chain.is_empty() {
            return Err(cert("there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsConfigError::Key {
            path: self.key.clone(),
            why: explain(&error, &self.key),
        })?;
        let silent = server(chain.clone(), key.clone_key(), false)?;
        let asks = self.client_certificates == ClientCertificates::Ask;
        let asking = if asks { server(chain.clone(), key, true)? } else { Arc::clone(&silent) };
        let valid = check(&chain).map_err(cert)?;
        Ok(Loaded { asking, silent, valid, stamps })
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    asks: bool,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsConfigError::System(error.to_string()))?;
    let builder = if asks {
        builder.with_client_cert_verifier(Arc::new(AnyCertificate::new(&provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsConfigError::Pair)?;
    // What a client may come back with is with the client: a thousand devices that sleep cost nothing here. The key of
    // the tickets is this configuration's: new files make old tickets worthless.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|error| TlsConfigError::System(error.to_string()))?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Whether a chain is one, and when it counts.
fn check(chain: &[CertificateDer<'static>]) -> Result<Validity, String> {
    let mut valid = Validity { from_s: i64::MIN, until_s: i64::MAX };
    let mut issuer: Option<Vec<u8>> = None;
    for (place, certificate) in chain.iter().enumerate() {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("certificate {}: {error}", place + 1))?;
        if issuer.as_ref().is_some_and(|issuer| issuer.as_slice() != parsed.subject().as_raw()) {
            return Err(format!("certificate {} is not of who signed the one before", place + 1));
        }
        let validity = parsed.validity();
        valid.from_s = valid.from_s.max(validity.not_before.timestamp());
        valid.until_s = valid.until_s.min(validity.not_after.timestamp());
        issuer = Some(parsed.issuer().as_raw().to_vec());
    }
    Ok(valid)
}

/// The library's words do not say which file was empty and which is of another kind.
fn explain(error: &pem::Error, path: &Path) -> String {
    #[allow(clippy::wildcard_enum_match_arm)] // the library may have more, and words for all
    match error {
        pem::Error::Io(error) => io::Error::to_string(error),
        pem::Error::NoItemsFound => {
            let is_empty = fs::metadata(path).is_ok_and(|file| file.len() == 0);
            if is_empty { "the file is empty" } else { "it is not in there, as PEM" }.to_owned()
        }
        _ => error.to_string(),
    }
}
