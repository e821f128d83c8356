//! TLS in front of a listener (rustls): the files it is made of, and its stream as a socket.
//!
//! # Invariants
//!
//! - **TLS 1.2 and 1.3, nothing older**; clients show no certificate. Checked by `tests/tls.rs`.
//! - **Certificates are read once, when the node starts**: a file that is wrong stops it then, and names its key.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use serde::Deserialize;
use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::socket::Socket;

/// `[tls]`: what a node shows its clients. The files are read when the node starts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority, in PEM, its own first.
    pub cert: PathBuf,
    /// The certificate's private key, in PEM.
    pub key: PathBuf,
}

/// Files that make no TLS; the text names the key.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// The certificates can't be read.
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
}

impl TlsConfig {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// If they are not a certificate and its key.
    pub fn load(&self) -> Result<Tls, TlsConfigError> {
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
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::Pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsConfigError::Pair)?;
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

/// The library's words do not say which file was empty and which is of another kind.
fn explain(error: &pem::Error, path: &Path) -> String {
    if let pem::Error::Io(error) = error {
        return error.to_string();
    }
    if !matches!(error, pem::Error::NoItemsFound) {
        return error.to_string();
    }
    let is_empty = std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
    if is_empty { "the file is empty" } else { "it is not in there, as PEM" }.to_owned()
}

/// A certificate and its key, ready to be shown.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// By hand: a key is never printed.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why a TLS handshake did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Not TLS, no version or cipher in common, or the client does not trust our certificate.
    Refused,
    /// The client left.
    Gone,
    /// The client took too long.
    Timeout,
}

impl Failed {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 3] = [Self::Refused, Self::Gone, Self::Timeout];

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
        }
    }
}

impl Tls {
    /// Makes a TLS stream of a socket that begins with the client's hello.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, (Failed, io::Error)> {
        match self.0.accept(stream).await {
            Ok(stream) => Ok(stream),
            // The library's own complaints come under this kind.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err((Failed::Refused, error))
            }
            Err(error) => Err((Failed::Gone, error)),
        }
    }
}

impl Socket for TlsStream<TcpStream> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What was decrypted stays within; an error is seen by the read that follows.
        Pin::new(self).poll_fill_buf(cx).map(drop)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What it took before goes out first; a failure is seen by the write that follows.
        ready!(Pin::new(&mut *self).poll_flush(cx)).unwrap_or_default();
        self.get_mut().0.poll_writable(cx)
    }

    /// TLS has no words for it.
    fn node_stops(&mut self) {}
}
