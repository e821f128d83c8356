//! Mutual TLS between nodes: the files of [`TlsFiles`], read when a node starts and again when they change.
//!
//! # Invariants
//!
//! - **All or nothing**: what is read again is checked as a whole, also that the other nodes would take this node's certificate, in both directions, if
//!   they trust what is in its own `ca`; with any complaint the old stays. Checked by `tests/tls.rs`.
//! - **What stands stays**: files count for the connections that are made after they were read. Checked by `tests/tls.rs`. An attempt to
//!   connect that began before is given up, and made again.
//! - **A failure is seen**: a count for each try, a line in the log when something else is wrong.
//! - **A failure lasts no longer than its cause**: after one files are read each time they are looked at, since what mends them may not
//!   show in them: rights, or a clock that was behind.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use moorline_core::NodeId;
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};
use tokio::{sync::Notify, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tracing::{error, info, warn};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    Peers,
    config::{TlsFiles, node_name},
    error::WireError,
};
use crate::blocking::spawn_blocking;

/// How often files are looked at: soon enough for somebody who watches, and a few `stat` calls a minute.
pub const TLS_FILES_POLL: Duration = Duration::from_secs(10);
/// From when before its end a certificate is complained about, each time it is read, in seconds.
const EXPIRES_SOON_S: i64 = 14 * 24 * 60 * 60;
/// What an HTTP/2 client asks for in its hello.
const HTTP2: &[u8] = b"h2";

/// The TLS of both directions, as the files were when they were read.
#[derive(Debug)]
pub(super) struct Tls {
    client: ClientTlsConfig,
    pub(super) server: Arc<ServerConfig>,
    domain: String,
    /// This node's certificates, its own first.
    chain: Vec<CertificateDer<'static>>,
    /// Who judges the certificates of others that connect.
    verifier: Arc<dyn ClientCertVerifier>,
    /// The same for those that are connected to.
    of_servers: Arc<WebPkiServerVerifier>,
    /// When the own certificate expires, in seconds since the Unix epoch.
    until_s: i64,
    stamps: Stamps,
}

impl Tls {
    /// How to connect to a node: only its own certificate will do.
    pub(super) fn client(&self, to: NodeId) -> ClientTlsConfig {
        self.client.clone().domain_name(node_name(to.0, &self.domain))
    }

    /// Takes connections.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// Whether a certificate is that of a node. Who signed it was checked by the handshake.
    pub(super) fn is_of(&self, node: NodeId, certificate: &CertificateDer<'_>) -> bool {
        let name = ServerName::try_from(node_name(node.0, &self.domain));
        let certificate = ParsedCertificate::try_from(certificate);
        let (Ok(name), Ok(certificate)) = (name, certificate) else { return false };
        verify_server_name(&certificate, &name).is_ok()
    }

    /// Why the other nodes would not take this node's certificate, if they trust whom this one trusts.
    fn complaint(&self, own: NodeId) -> Option<String> {
        let (first, rest) = self.chain.split_first()?;
        if !self.is_of(own, first) {
            return Some(format!("it has no name {}", node_name(own.0, &self.domain)));
        }
        let now = UnixTime::now();
        if let Err(error) = self.verifier.verify_client_cert(first, rest, now) {
            return Some(format!("nodes with this ca refuse it: {error}"));
        }
        let name = ServerName::try_from(node_name(own.0, &self.domain)).ok()?;
        let judged = self.of_servers.verify_server_cert(first, rest, &name, &[], now);
        judged.err().map(|error| format!("nodes with this ca do not connect to it: {error}"))
    }

    fn expires_soon(&self) -> bool {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        self.until_s < now_s.saturating_add(EXPIRES_SOON_S)
    }
}

/// What the files were when they were read: another one behind the same name is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 3]);

/// Device, inode, bytes, and when they were written, in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

impl TlsFiles {
    /// Whether the files can be read, and make TLS.
    ///
    /// # Errors
    ///
    /// [`WireError::TlsFile`] or [`WireError::TlsUnusable`], with the file that is wrong.
    pub fn check(&self) -> Result<(), WireError> {
        self.read().map(drop)
    }

    fn stamps(&self) -> Stamps {
        Stamps([&self.ca, &self.certificate, &self.key].map(|path| stamp(path)))
    }

    fn read(&self) -> Result<Tls, WireError> {
        let stamps = self.stamps();
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| WireError::TlsFile { path: path.clone(), source })
        };
        let (ca, certificate, key) = (read(&self.ca)?, read(&self.certificate)?, read(&self.key)?);
        let unusable =
            |path: &PathBuf, why: String| WireError::TlsUnusable { path: path.clone(), why };

        let mut roots = RootCertStore::empty();
        for authority in certificates(&ca).map_err(|why| unusable(&self.ca, why))? {
            roots.add(authority).map_err(|error| unusable(&self.ca, error.to_string()))?;
        }
        let chain = certificates(&certificate).map_err(|why| unusable(&self.certificate, why))?;
        let until_s = until(&chain[0]).map_err(|why| unusable(&self.certificate, why))?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| unusable(&self.key, "there is no private key in it, as PEM".to_owned()))?;

        let provider = Arc::new(aws_lc_rs::default_provider());
        let no_authority = |error: VerifierBuilderError| unusable(&self.ca, error.to_string());
        let (roots, with) = (Arc::new(roots), || Arc::clone(&provider));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), with());
        let verifier = verifier.build().map_err(no_authority)?;
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, with());
        let of_servers = of_servers.build().map_err(no_authority)?;
        let pair = |error: rustls::Error| {
            unusable(&self.certificate, format!("with {}: {error}", self.key.display()))
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain.clone(), private)
            .map_err(pair)?;
        server.alpn_protocols = vec![HTTP2.to_vec()];
        let client = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(certificate, key));
        let (server, domain) = (Arc::new(server), self.server_name.clone());
        Ok(Tls { client, server, domain, chain, verifier, of_servers, until_s, stamps })
    }
}

/// All certificates of a file, one at least.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err("there is no certificate in it".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

/// When a certificate expires, in seconds since the Unix epoch.
fn until(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    let parsed = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(parsed.1.validity().not_after.timestamp())
}

/// The TLS that counts for the next connection, and where it comes from.
#[derive(Debug)]
pub(super) struct Kept {
    own: NodeId,
    files: TlsFiles,
    now: RwLock<Arc<Tls>>,
}

impl Kept {
    /// Reads the files for the first time: what the others would not take is warned of.
    pub(super) fn read(own: NodeId, files: &TlsFiles) -> Result<Self, WireError> {
        let tls = files.read()?;
        if let Some(why) = tls.complaint(own) {
            let cert = files.certificate.display();
            error!(%cert, why, "other nodes will not trust this node's certificate");
        }
        Ok(Self { own, files: files.clone(), now: RwLock::new(Arc::new(tls)) })
    }

    /// What counts for a connection that is made now.
    pub(super) fn now(&self) -> Arc<Tls> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again.
    fn reload(&self) -> Result<(), WireError> {
        let tls = self.files.read()?;
        if let Some(why) = tls.complaint(self.own) {
            return Err(WireError::TlsUnusable { path: self.files.certificate.clone(), why });
        }
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
        Ok(())
    }
}

impl Peers {
    /// Reads the TLS files again; without TLS there is nothing to do. Connections that stand go on with what they have.
    ///
    /// # Errors
    ///
    /// If the files are not what they should be, or other nodes would not take them: then nothing has changed.
    pub fn reload_tls(&self) -> Result<(), WireError> {
        self.shared.tls.as_ref().map_or(Ok(()), Kept::reload)
    }

    /// Keeps to the TLS files until `stop`: they are read again when one of them changes, and whenever `asked`.
    pub async fn keep_tls_fresh(self, asked: Arc<Notify>, stop: CancellationToken) {
        let Some(kept) = &self.shared.tls else { return };
        let mut seen = self.tell(kept);
        // What was wrong with them, if they could not be used.
        let mut failed: Option<String> = None;
        loop {
            let was_asked = tokio::select! {
                () = stop.cancelled() => return,
                () = asked.notified() => true,
                () = sleep(TLS_FILES_POLL) => false,
            };
            let now = kept.files.stamps();
            if now == seen && !was_asked && failed.is_none() {
                continue;
            }
            seen = now;
            let peers = self.clone();
            match spawn_blocking(move || peers.reload_tls()).await {
                Ok(Ok(())) => {
                    self.shared.metrics.tls.reloads.inc();
                    failed = None;
                    info!(ca = %kept.files.ca.display(), "TLS files of the cluster were read again");
                    seen = self.tell(kept);
                }
                Ok(Err(why)) => {
                    self.shared.metrics.tls.reloads_failed.inc();
                    let cause = std::error::Error::source(&why).map(ToString::to_string);
                    let now = format!("{why} {cause:?}");
                    if was_asked || failed.as_ref() != Some(&now) {
                        error!(%why, cause, "TLS files of the cluster are not usable: the old ones stay");
                    }
                    failed = Some(now);
                }
                Err(why) => {
                    error!(%why, "TLS files of the cluster could not be read again");
                    failed = Some(why.to_string());
                }
            }
        }
    }

    /// Shows when the certificate expires; says what the files were.
    fn tell(&self, kept: &Kept) -> Stamps {
        let tls = kept.now();
        self.shared.metrics.tls.expires.set(tls.until_s);
        if tls.expires_soon() {
            let cert = kept.files.certificate.display();
            warn!(%cert, "this node's certificate for other nodes expires soon");
        }
        tls.stamps
    }
}
